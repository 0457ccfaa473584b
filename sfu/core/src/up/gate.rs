//! The key-frame gate of one layer: many may want a key frame, few requests reach the publisher.
//!
//! It keeps two facts and asks nobody the time.

use std::time::{Duration, Instant};

/// Least time between two requests for one layer. A key frame costs a publisher several times a delta frame, and one
/// that was asked for is normally here within a round trip.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// The gate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gate {
    is_wanted: bool,
    asked_at: Option<Instant>,
}

impl Gate {
    /// Someone wants a key frame. True if it is to be asked for now.
    pub fn want(&mut self, now: Instant) -> bool {
        self.is_wanted = true;
        self.poll(now)
    }

    /// True if a key frame is still wanted and it is time to ask (again).
    pub fn poll(&mut self, now: Instant) -> bool {
        let is_time = self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if self.is_wanted && is_time {
            self.asked_at = Some(now);
        }
        self.is_wanted && is_time
    }

    /// A key frame came: all who waited are served.
    pub fn satisfy(&mut self) {
        self.is_wanted = false;
    }

    /// When a key frame that is wanted may be asked for (again).
    pub fn asks_at(&self) -> Option<Instant> {
        self.asked_at.filter(|_| self.is_wanted).map(|at| at + INTERVAL)
    }

    /// For how long none may be asked for, where the last one that was has come.
    pub fn rests_for(&self, now: Instant) -> Option<Duration> {
        let opens_at = self.asked_at.filter(|_| !self.is_wanted)? + INTERVAL;
        (opens_at > now).then(|| opens_at - now)
    }

    /// Whether a key frame is wanted.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_becomes_one_request_until_the_key_frame_comes() {
        let start = crate::up::test_epoch();
        let mut gate = Gate::default();
        let asked = (0..1_000).filter(|ms| gate.want(start + Duration::from_millis(*ms))).count();
        assert_eq!(asked, 2);
        gate.satisfy();
        assert!(!gate.poll(start + Duration::from_secs(9)));
        assert!(gate.want(start + Duration::from_secs(9)));
        assert!(!gate.poll(start + Duration::from_millis(9_499)));
        assert!(gate.poll(start + Duration::from_millis(9_500)), "nobody answered: ask again");
    }

    #[test]
    fn it_says_when_it_asks_and_how_long_it_rests() {
        let start = crate::up::test_epoch();
        let later = start + Duration::from_millis(100);
        let mut gate = Gate::default();
        assert_eq!((gate.asks_at(), gate.rests_for(start)), (None, None), "never asked");
        gate.want(start);
        assert_eq!((gate.asks_at(), gate.rests_for(later)), (Some(start + INTERVAL), None), "under way");
        gate.satisfy();
        assert_eq!((gate.asks_at(), gate.rests_for(later)), (None, Some(Duration::from_millis(400))));
        assert_eq!(gate.rests_for(start + INTERVAL), None, "may be asked again");
    }
}
