//! NTP timestamps (RFC 5905 section 6) as RTCP uses them, tied to the clock that the heart is told.

use std::time::{Duration, Instant};

/// A moment as 32 bits of seconds since 1900 and 32 bits of fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ntp(pub u64);

impl Ntp {
    /// The middle 32 bits, as reports quote them (RFC 3550 section 4).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// How much later `self` is than `other`, in units of 2^-32 s; negative if earlier.
    pub fn since(self, other: Ntp) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }
}

/// A duration in units of 2^-32 s.
pub fn ntp_units(duration: Duration) -> u64 {
    (duration.as_secs() << 32) | ((u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000)
}

/// A span in units of 2^-32 s as ticks of a clock; negative spans give negative ticks.
pub fn ticks_of(span: i64, hz: u32) -> i64 {
    ((i128::from(span) * i128::from(hz)) >> 32) as i64
}

/// Ties the monotonic clock that the heart is told to the wall clock that RTCP sender reports need.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// A moment,
    pub at: Instant,
    /// and the same moment as an NTP timestamp.
    pub ntp: Ntp,
}

impl WallClock {
    /// The wall clock's time at a moment.
    pub fn ntp(&self, now: Instant) -> Ntp {
        match now.checked_duration_since(self.at) {
            Some(after) => Ntp(self.ntp.0.wrapping_add(ntp_units(after))),
            None => Ntp(self.ntp.0.wrapping_sub(ntp_units(self.at - now))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_a_clock_rate_of_ticks() {
        let second = ntp_units(Duration::from_secs(1)) as i64;
        assert_eq!(ticks_of(second, 90_000), 90_000);
        assert_eq!(ticks_of(-second / 2, 48_000), -24_000);
        assert_eq!(Ntp(0x1234_5678_9abc_def0).middle(), 0x5678_9abc);
        assert_eq!(Ntp(1).since(Ntp(3)), -2);
    }
}
