//! Bounds on what one subscriber may ask for again.
//!
//! It counts requests; what is resent, and from where, is not its business.

use crate::rtp::sequence::Sequence;
use std::time::{Duration, Instant};

/// Most numbers a subscriber may ask for in a second: a tenth of what 25 slots receive, several times a bad link's
/// loss. What lies beyond is refused, so that asking costs an attacker more than answering costs us.
pub const ASKS_PER_SECOND_MAX: u32 = 600;

/// Bounds of the least time between two resends of one packet. Browsers ask again after a round trip; who asks sooner
/// than three quarters of one has not waited for the answer.
pub const SPACINGS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(400);

/// The least time between two resends of one packet to a peer at this distance.
pub fn spacing(round_trip: Option<Duration>) -> Duration {
    round_trip.map_or(*SPACINGS.start(), |it| it * 3 / 4).clamp(*SPACINGS.start(), *SPACINGS.end())
}

/// Resends remembered for spacing, by the number's lower bits; more than browsers ask for at a time.
const REMEMBERED: usize = 64;

/// Requests of one subscriber in the running second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    since: Option<Instant>,
    spent: u32,
}

impl Budget {
    /// Takes one request from the budget. False if it is used up.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), spent: 0 };
        }
        self.spent += 1;
        self.spent <= ASKS_PER_SECOND_MAX
    }

    /// Whether nothing was asked for within this time, give or take a second.
    pub fn is_untouched(&self, now: Instant, within: Duration) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) >= within)
    }
}

/// Which packets of one slot were sent again lately.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// Empty until the first resend: most slots never see one.
    resends: Vec<Option<(Sequence, Instant)>>,
}

impl Recent {
    /// Notes a resend. False if the packet was sent again less than `spacing` ago.
    pub fn note(&mut self, now: Instant, sequence: Sequence, spacing: Duration) -> bool {
        if self.resends.is_empty() {
            self.resends = vec![None; REMEMBERED];
        }
        let place = &mut self.resends[sequence.0 as usize % REMEMBERED];
        let is_too_soon =
            place.is_some_and(|(noted, at)| noted == sequence && now.saturating_duration_since(at) < spacing);
        if !is_too_soon {
            *place = Some((sequence, now));
        }
        !is_too_soon
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;

    #[test]
    fn asking_is_bounded_by_the_second() {
        let start = test_epoch();
        let mut budget = Budget::default();
        assert_eq!((0..10_000).filter(|_| budget.take(start)).count(), ASKS_PER_SECOND_MAX as usize);
        assert!(budget.take(start + Duration::from_secs(1)));
    }

    #[test]
    fn one_packet_is_not_sent_again_at_once() {
        let start = test_epoch();
        for (round_trip, ms) in [(None, 10), (Some(5), 10), (Some(300), 225), (Some(9_000), 400)] {
            let spacing = spacing(round_trip.map(Duration::from_millis));
            assert_eq!(spacing, Duration::from_millis(ms));
            let mut recent = Recent::default();
            assert!(recent.note(start, Sequence(5), spacing));
            assert!(!recent.note(start + spacing / 2, Sequence(5), spacing));
            assert!(recent.note(start + spacing / 2, Sequence(6), spacing));
            assert!(recent.note(start + spacing, Sequence(5), spacing));
        }
    }
}
