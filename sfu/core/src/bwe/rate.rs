//! The rate that a line is believed to carry: up while nothing speaks against it, down to what got through when a queue
//! grows (draft-ietf-rmcat-gcc-02 section 5.5).
//!
//! It measures nothing: usage, loss and the acknowledged rate are told to it.

use super::delay::Usage;

/// The rate is kept within these, bit/s: below the least not even one voice gets through; above the most no screen
/// needs more.
pub const BPS_MIN: f64 = 40_000.0;
/// See [`BPS_MIN`].
pub const BPS_MAX: f64 = 30_000_000.0;

/// What remains of the acknowledged rate when a queue grows.
const BETA: f64 = 0.9;

/// Growth a second while the line's limit is not known.
const GROWTH: f64 = 1.08;

/// The rate is never believed to be more than this much above what got through, since more was not tried.
const UNTRIED: f64 = 1.1;
/// See [`UNTRIED`], bit/s.
const UNTRIED_BPS: f64 = 20_000.0;

/// Least time between two decreases, µs: a round trip and a report, so that the first is seen to work.
const DECREASE_US: u64 = 400_000;

/// How quickly the memory of the limit follows.
const MEMORY: f64 = 0.05;

/// The rate control.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    bps: f64,
    decreased_at_us: Option<u64>,
    updated_at_us: Option<u64>,
    /// After a decrease, until the queue is gone, the rate is held.
    is_held: bool,
    /// Where the limit was found to be, and how surely: the mean and the mean deviation relative to it.
    limit: Option<(f64, f64)>,
}

impl Rate {
    /// Begins somewhere.
    pub fn new(bps: f64) -> Self {
        Self {
            bps: bps.clamp(BPS_MIN, BPS_MAX),
            decreased_at_us: None,
            updated_at_us: None,
            is_held: false,
            limit: None,
        }
    }

    /// The rate, bit/s.
    pub fn bps(&self) -> f64 {
        self.bps
    }

    /// Where the line's limit was found to be, if it was, bit/s.
    pub fn limit_bps(&self) -> Option<f64> {
        self.limit.map(|(mean, _)| mean)
    }

    /// When it last went down, µs.
    pub fn decreased_at_us(&self) -> Option<u64> {
        self.decreased_at_us
    }

    /// Takes what the line does now, what got through lately, and the round trip in µs.
    pub fn update(&mut self, now_us: u64, usage: Usage, acknowledged_bps: Option<f64>, round_trip_us: u64) {
        let passed_s = self.updated_at_us.map_or(0.0, |at| now_us.saturating_sub(at) as f64 / 1e6).min(1.0);
        self.updated_at_us = Some(now_us);
        match usage {
            Usage::Over => self.decrease(now_us, acknowledged_bps),
            Usage::Under => self.is_held = true,
            Usage::Normal if self.is_held => self.is_held = false,
            Usage::Normal => self.increase(passed_s, acknowledged_bps, round_trip_us),
        }
    }

    /// Goes down by a factor, since loss asks for it.
    pub fn lower(&mut self, now_us: u64, factor: f64) {
        self.decreased_at_us = Some(now_us);
        self.bps = (self.bps * factor).clamp(BPS_MIN, BPS_MAX);
    }

    /// Goes up to a rate that has been shown to get through.
    pub fn raise_to(&mut self, bps: f64) {
        if bps > self.bps {
            self.bps = bps.min(BPS_MAX);
            if self.limit.is_some_and(|(mean, _)| bps > mean * 1.2) {
                self.limit = None;
            }
        }
    }

    fn decrease(&mut self, now_us: u64, acknowledged_bps: Option<f64>) {
        self.is_held = true;
        if self.decreased_at_us.is_some_and(|at| now_us.saturating_sub(at) < DECREASE_US) {
            return;
        }
        self.decreased_at_us = Some(now_us);
        let through = acknowledged_bps.unwrap_or(self.bps * BETA);
        self.bps = (through * BETA).min(self.bps).clamp(BPS_MIN, BPS_MAX);
        self.limit = Some(match self.limit {
            Some((mean, deviation)) if (through - mean).abs() < mean * 3.0 * deviation.max(0.1) => {
                let off = (through - mean).abs() / mean;
                (mean + MEMORY * (through - mean), deviation + MEMORY * (off - deviation))
            }
            _ => (through, 0.1),
        });
    }

    fn increase(&mut self, passed_s: f64, acknowledged_bps: Option<f64>, round_trip_us: u64) {
        let is_beyond =
            |through: f64, (mean, deviation): (f64, f64)| through > mean * (1.0 + 3.0 * deviation.max(0.05));
        if let (Some(through), Some(limit)) = (acknowledged_bps, self.limit)
            && is_beyond(through, limit)
        {
            self.limit = None;
        }
        let grown = match self.limit {
            // Near the limit: a packet more each round trip and the detector's own delay.
            Some((mean, _)) if self.bps > mean * 0.9 => {
                let response_s = round_trip_us as f64 / 1e6 + 0.1;
                let packet_bits = (self.bps / 60.0).min(9_600.0);
                self.bps + (packet_bits / response_s).max(4_000.0) * passed_s
            }
            _ => self.bps * GROWTH.powf(passed_s) + 1_000.0 * passed_s,
        };
        let tried = acknowledged_bps.map_or(f64::MAX, |through| through * UNTRIED + UNTRIED_BPS);
        if grown <= tried {
            self.bps = grown.clamp(BPS_MIN, BPS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overuse_goes_down_to_what_got_through_and_only_once_a_round_trip() {
        let mut rate = Rate::new(1_000_000.0);
        rate.update(0, Usage::Over, Some(500_000.0), 50_000);
        assert_eq!(rate.bps(), 450_000.0);
        rate.update(50_000, Usage::Over, Some(500_000.0), 50_000);
        assert_eq!(rate.bps(), 450_000.0);
        rate.update(500_000, Usage::Over, Some(300_000.0), 50_000);
        assert_eq!(rate.bps(), 270_000.0);
    }

    #[test]
    fn what_lets_the_queue_drain_is_not_lowered_again() {
        let mut rate = Rate::new(180_000.0);
        rate.update(0, Usage::Over, Some(240_000.0), 50_000);
        assert_eq!(rate.bps(), 180_000.0);
    }

    #[test]
    fn calm_goes_up_but_not_far_beyond_what_was_tried() {
        let mut rate = Rate::new(300_000.0);
        for tick in 0..6_000 {
            rate.update(tick * 100_000, Usage::Normal, Some(300_000.0), 50_000);
        }
        assert!(rate.bps() > 340_000.0 && rate.bps() <= 350_000.0, "{}", rate.bps());
    }

    #[test]
    fn a_known_limit_is_approached_slowly() {
        let climb = |limit: bool| {
            let mut rate = Rate::new(1_000_000.0);
            if limit {
                rate.update(0, Usage::Over, Some(1_000_000.0), 50_000);
                rate.raise_to(950_000.0);
                rate.update(100_000, Usage::Normal, None, 50_000);
            }
            let before = rate.bps();
            for tick in 2..12 {
                rate.update(tick * 100_000, Usage::Normal, None, 50_000);
            }
            rate.bps() / before
        };
        assert!(climb(true) < climb(false));
    }
}
