//! How fast packets may leave: a bucket of bytes that fills at a little more than the line's rate.
//!
//! It never holds anything: it says how much may go and when there will be more. Where a line is ample the bucket is
//! deep enough for whole frames, so that a frame stays one run of equal packets; where it is tight a tall frame leaves in
//! slices, and sound between them does not wait behind it in a queue on the way.

/// Bytes leave at this much more than the rate, so that what was held back catches up; and at this much less while a queue
/// stands on the way, so that it drains.
const SURPLUS: (f64, f64) = (1.25, 0.85);

/// The bucket's depth where the line is ample and where it is tight, µs.
const DEPTH_US: (f64, f64) = (60_000.0, 10_000.0);

/// The least depth, bytes: two whole packets, so that every packet gets its turn.
const DEPTH_BYTES_MIN: f64 = 2_800.0;

/// Time between two releases, µs.
const RELEASE_US: u64 = 5_000;

/// The bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    bytes_per_us: f64,
    depth: f64,
    filled: f64,
    at_us: u64,
}

impl Pace {
    /// Takes the line's rate in bit/s, whether it is nearly full, and whether a queue stands on the way.
    pub fn set_rate(&mut self, bps: f64, is_tight: bool, is_queued: bool) {
        self.bytes_per_us = bps / 8e6 * if is_queued { SURPLUS.1 } else { SURPLUS.0 };
        let depth_us = if is_tight { DEPTH_US.1 } else { DEPTH_US.0 };
        self.depth = (self.bytes_per_us * depth_us).max(DEPTH_BYTES_MIN);
        self.filled = self.filled.min(self.depth);
    }

    /// Takes bytes out, below zero if need be: sound goes out whatever the bucket says.
    pub fn spend(&mut self, now_us: u64, bytes: usize) {
        self.fill(now_us);
        self.filled = (self.filled - bytes as f64).max(-self.depth);
    }

    /// How many bytes may leave now.
    pub fn available(&mut self, now_us: u64) -> usize {
        if self.depth == 0.0 {
            return usize::MAX;
        }
        self.fill(now_us);
        self.filled.max(0.0) as usize
    }

    /// When so many bytes may leave at once (or a full bucket, if that is less), µs; a whole release later at least.
    pub fn ready_at_us(&self, bytes: usize) -> u64 {
        let missing = (bytes as f64).min(self.depth) - self.filled;
        let wait_us = if self.bytes_per_us > 0.0 { (missing / self.bytes_per_us).max(0.0) as u64 } else { 0 };
        self.at_us + wait_us.clamp(RELEASE_US, 1_000_000)
    }

    fn fill(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.at_us) as f64;
        self.at_us = self.at_us.max(now_us);
        self.filled = (self.filled + passed * self.bytes_per_us).min(self.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_leaves_than_the_rate_and_the_depth_allow() {
        let mut pace = Pace::default();
        assert_eq!(pace.available(0), usize::MAX, "nothing is known");
        pace.set_rate(1_000_000.0, true, false);
        let mut sent = 0;
        for ms in 0..1_000 {
            while pace.available(ms * 1_000) >= 1_200 {
                pace.spend(ms * 1_000, 1_200);
                sent += 1_200;
            }
        }
        assert!((120_000..165_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_queue_on_the_way_drains() {
        let mut pace = Pace::default();
        pace.set_rate(1_000_000.0, true, true);
        pace.spend(0, 100_000);
        let at = pace.ready_at_us(1_200);
        pace.set_rate(1_000_000.0, true, false);
        assert!(at > pace.ready_at_us(1_200) * 14 / 10);
    }

    #[test]
    fn sound_that_overdraws_is_paid_back_by_pictures() {
        let mut pace = Pace::default();
        pace.set_rate(80_000.0, true, false);
        pace.spend(1_000_000, 4_000);
        assert_eq!(pace.available(1_000_000), 0);
        let at = pace.ready_at_us(1_200);
        assert!(at > 1_100_000, "{at}");
        assert!(pace.available(at) + 1 >= 1_200);
    }
}
