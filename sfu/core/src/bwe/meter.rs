//! A rate over the recent past: bytes in a ring of short buckets.
//!
//! It counts; which clock its microseconds are of is the caller's affair.

/// Length of a bucket, µs.
const BUCKET_US: i64 = 50_000;

/// Buckets of the window.
const BUCKETS: usize = 16;

/// Buckets of a fifth of a second.
const SPAN: i64 = 4;

/// Buckets of a moment: enough for a few packets of a line of 100 kbit/s.
const MOMENT: i64 = 3;

/// Bytes over the last 800 ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    bytes: [u32; BUCKETS],
    /// The number of the newest bucket.
    newest: Option<i64>,
    /// The number of the first bucket that anything was put in since the meter was empty.
    oldest: i64,
}

impl Meter {
    /// Counts bytes at a moment. What is older than the window is not counted.
    pub fn add(&mut self, at_us: i64, bytes: usize) {
        let bucket = at_us.div_euclid(BUCKET_US);
        self.advance(bucket);
        let newest = self.newest.unwrap_or(bucket);
        if newest - bucket < BUCKETS as i64 {
            let place = bucket.rem_euclid(BUCKETS as i64) as usize;
            self.bytes[place] = self.bytes[place].saturating_add(bytes as u32);
        }
    }

    /// The rate at a moment in bit/s; `None` until a quarter of the window has been seen.
    pub fn bps(&mut self, now_us: i64) -> Option<f64> {
        let bucket = now_us.div_euclid(BUCKET_US);
        self.newest?;
        self.advance(bucket);
        let newest = self.newest?;
        let first = self.oldest.max(newest - BUCKETS as i64 + 1);
        let span_us = (newest - first) * BUCKET_US + now_us.rem_euclid(BUCKET_US).max(1);
        if span_us < BUCKETS as i64 * BUCKET_US / 4 {
            return None;
        }
        let bytes: u64 = self.bytes.iter().map(|bytes| u64::from(*bytes)).sum();
        Some(bytes as f64 * 8e6 / span_us as f64)
    }

    /// The highest rate over any fifth of a second of the last half, in bit/s: what a line carries while it is full,
    /// though less than that is sent on the whole.
    pub fn peak_bps(&self) -> Option<f64> {
        const PAST: i64 = 10;
        let newest = self.newest?;
        (newest - PAST + SPAN..=newest).map(|last| self.span_bps(last, SPAN)).max_by(f64::total_cmp)
    }

    /// The highest rate over any [`MOMENT`] of the last quarter of a second, in bit/s: what a full line carries now. A
    /// hole, after which everything comes at once or as before, is no lower rate.
    pub fn latest_bps(&self) -> Option<f64> {
        let newest = self.newest?;
        (newest - SPAN + MOMENT..=newest).map(|last| self.span_bps(last, MOMENT)).max_by(f64::total_cmp)
    }

    /// The rate over so many buckets up to this one, in bit/s.
    fn span_bps(&self, last: i64, buckets: i64) -> f64 {
        let bucket = |number: i64| u64::from(self.bytes[number.rem_euclid(BUCKETS as i64) as usize]);
        let sum: u64 = (last - buckets + 1..=last).map(bucket).sum();
        sum as f64 * 8e6 / (buckets * BUCKET_US) as f64
    }

    fn advance(&mut self, bucket: i64) {
        let Some(newest) = self.newest else {
            (self.newest, self.oldest) = (Some(bucket), bucket);
            return;
        };
        if bucket - newest >= BUCKETS as i64 {
            self.bytes = [0; BUCKETS];
        } else {
            for passed in newest + 1..=bucket {
                self.bytes[passed.rem_euclid(BUCKETS as i64) as usize] = 0;
            }
        }
        self.newest = Some(newest.max(bucket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_measured_and_its_end_is_noticed() {
        let mut meter = Meter::default();
        assert_eq!(meter.bps(0), None);
        for packet in 0..100 {
            meter.add(packet * 10_000, 1_250);
        }
        let bps = meter.bps(1_000_000).expect("seen long enough");
        assert!((bps - 1_000_000.0).abs() < 60_000.0, "{bps}");
        assert_eq!(meter.bps(3_000_000), Some(0.0));
    }

    #[test]
    fn the_latest_rate_is_that_of_the_last_fifth_of_a_second_alone() {
        let mut meter = Meter::default();
        assert_eq!(meter.latest_bps(), None);
        (0..100).for_each(|packet| meter.add(packet * 10_000, 1_250));
        (0..30).for_each(|packet| meter.add(1_000_000 + packet * 10_000, 125));
        let bps = meter.latest_bps().expect("something came");
        assert!((bps - 100_000.0).abs() < 1.0, "{bps}");
    }

    #[test]
    fn what_comes_late_counts_if_it_is_in_the_window() {
        let mut meter = Meter::default();
        meter.add(1_000_000, 100);
        meter.add(700_000, 100);
        meter.add(-9_000_000, 1_000_000);
        assert!(meter.bps(1_200_000).is_some_and(|bps| bps < 20_000.0));
    }
}
