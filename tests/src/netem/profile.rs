//! What a line is like, by numbers and by name.
//!
//! The named profiles are the rows of `docs/lines.md`. All of them have the same delay, so that a row differs from
//! `clean` in one thing.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A day on the other side of the world by satellite is shorter: more is a slip of the pen.
const MS_MAX: u32 = 10_000;

/// One way of a line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkProfile {
    /// The share of packets that are lost, from 0 to 1.
    pub loss: f64,
    /// The mean number of packets that are lost in a row. 1 loses each packet independently of the others; more is
    /// the Gilbert-Elliott model with nothing lost in its good state and everything in its bad one.
    pub burst_packets: f64,
    /// How long a packet travels, in ms.
    pub delay_ms: u32,
    /// A packet travels up to so much longer, evenly distributed, in ms.
    pub jitter_ms: u32,
    /// Whether jitter may bring packets out of order. Otherwise a late packet holds up those behind it.
    pub reorder: bool,
    /// What the line carries in kbit/s, IP and UDP headers included; `null` for no limit.
    pub rate_kbps: Option<u32>,
    /// How long a packet may wait in front of a limited line before it is dropped at the tail, in ms.
    pub queue_ms: u32,
    /// The share of packets that arrive twice, from 0 to 1.
    pub duplicate: f64,
    /// Whether nothing gets through.
    pub black_hole: bool,
}

impl LinkProfile {
    /// The delay that all named profiles have, in ms each way.
    pub const DELAY_MS: u32 = 20;

    /// A line that only takes its time.
    pub const CLEAN: Self = Self {
        loss: 0.0,
        burst_packets: 1.0,
        delay_ms: Self::DELAY_MS,
        jitter_ms: 0,
        reorder: false,
        rate_kbps: None,
        queue_ms: 300,
        duplicate: 0.0,
        black_hole: false,
    };

    /// A line that loses packets, on average so many in a row.
    pub const fn lossy(loss: f64, burst_packets: f64) -> Self {
        Self { loss, burst_packets, ..Self::CLEAN }
    }

    /// A line that carries so much.
    pub const fn narrow(rate_kbps: u32) -> Self {
        Self { rate_kbps: Some(rate_kbps), ..Self::CLEAN }
    }

    /// The longest that a packet can be under way.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(u64::from(self.delay_ms + self.jitter_ms + self.queue_ms))
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// Which do not.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !is_share(self.loss) || !is_share(self.duplicate) {
            return Err("loss and duplicate are shares from 0 to 1");
        }
        if !(1.0..=1_000.0).contains(&self.burst_packets) {
            return Err("burst_packets is from 1 to 1000");
        }
        if self.loss == 1.0 && self.burst_packets > 1.0 {
            return Err("a line that loses everything has no bursts");
        }
        if [self.delay_ms, self.jitter_ms, self.queue_ms].into_iter().any(|ms| ms > MS_MAX) {
            return Err("delay_ms, jitter_ms and queue_ms are at most 10000");
        }
        if self.rate_kbps == Some(0) {
            return Err("a rate of 0 is a black hole");
        }
        Ok(())
    }
}

impl Default for LinkProfile {
    fn default() -> Self {
        Self::CLEAN
    }
}

/// A line: both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// From the client to the bridge.
    pub up: LinkProfile,
    /// From the bridge to the client.
    pub down: LinkProfile,
}

impl Profile {
    /// A line that is the same both ways.
    pub const fn both(way: LinkProfile) -> Self {
        Self { up: way, down: way }
    }

    /// The profile with this name.
    pub fn named(name: &str) -> Option<Self> {
        NAMED.iter().find(|(known, _)| *known == name).map(|(_, way)| Self::both(*way))
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// Which do not.
    pub fn check(&self) -> Result<(), &'static str> {
        self.up.check().and(self.down.check())
    }
}

/// Profiles that people can ask for by name; the same both ways.
pub const NAMED: [(&str, LinkProfile); 16] = [
    ("clean", LinkProfile::CLEAN),
    ("loss-5", LinkProfile::lossy(0.05, 1.0)),
    ("loss-10", LinkProfile::lossy(0.10, 1.0)),
    ("burst-10", LinkProfile::lossy(0.10, 5.0)),
    ("loss-20", LinkProfile::lossy(0.20, 1.0)),
    ("loss-30", LinkProfile::lossy(0.30, 1.0)),
    ("rtt-300", LinkProfile { delay_ms: 150, ..LinkProfile::CLEAN }),
    ("jitter-60", LinkProfile { jitter_ms: 60, ..LinkProfile::CLEAN }),
    ("jitter-60-reorder", LinkProfile { jitter_ms: 60, reorder: true, ..LinkProfile::CLEAN }),
    ("duplicate-10", LinkProfile { duplicate: 0.1, ..LinkProfile::CLEAN }),
    ("rate-3000", LinkProfile::narrow(3_000)),
    ("rate-1000", LinkProfile::narrow(1_000)),
    ("rate-300", LinkProfile::narrow(300)),
    ("rate-100", LinkProfile::narrow(100)),
    ("rate-64", LinkProfile::narrow(64)),
    ("black-hole", LinkProfile { black_hole: true, ..LinkProfile::CLEAN }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_one_profile_that_makes_sense() {
        let names: BTreeSet<_> = NAMED.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), NAMED.len());
        for (name, _) in NAMED {
            let profile = Profile::named(name).expect("it is in the table");
            assert_eq!(profile.check(), Ok(()), "{name}");
        }
        assert_eq!(Profile::named("loss-11"), None);
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        let clean = LinkProfile::CLEAN;
        for bad in [
            LinkProfile { loss: 1.1, ..clean },
            LinkProfile { loss: f64::NAN, ..clean },
            LinkProfile { duplicate: -0.1, ..clean },
            LinkProfile { burst_packets: 0.5, ..clean },
            LinkProfile { loss: 1.0, burst_packets: 2.0, ..clean },
            LinkProfile { delay_ms: 10_001, ..clean },
            LinkProfile { rate_kbps: Some(0), ..clean },
        ] {
            assert!(Profile { up: clean, down: bad }.check().is_err(), "{bad:?}");
        }
    }
}
