//! What went to one subscriber under transport-wide numbers, until its feedback is in
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Numbers that were never given out, or were settled before, mean nothing: feedback can only speak of what is here.

use std::collections::VecDeque;

/// Most packets awaiting feedback: a second of 20 Mbit/s, or a tenth of it over a line that takes seconds.
pub const SENT_MAX: usize = 2_048;

/// How long feedback is waited for, µs: longer than any round trip that a call survives.
const AWAITED_US: u64 = 4_000_000;

/// A packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, µs.
    pub at_us: u64,
    /// Its length in bytes.
    pub bytes: u16,
    /// The probe that it is of; 0 for none.
    pub probe: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awaited,
    Missing,
    Arrived,
}

/// How a number was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It arrived.
    Arrived(Packet),
    /// It was reported missing, for the first time.
    Missing(Packet),
    /// It was reported missing before and has arrived after all.
    Late(Packet),
}

/// Packets in the order of their numbers.
#[derive(Debug, Default)]
pub struct Sent {
    ring: VecDeque<Packet>,
    /// The number of the first of them.
    first: u64,
    /// The number behind the highest that was settled.
    settled: u64,
    /// Bytes of the packets from there on.
    in_flight: usize,
}

impl Sent {
    /// Notes a packet and gives it a number.
    pub fn push(&mut self, now_us: u64, bytes: usize, probe: u8) -> u16 {
        while let Some(oldest) = self.ring.front()
            && (oldest.state == State::Arrived
                || self.ring.len() >= SENT_MAX
                || now_us.saturating_sub(oldest.at_us) > AWAITED_US)
        {
            if self.first >= self.settled {
                self.in_flight -= usize::from(oldest.bytes);
            }
            self.ring.pop_front();
            self.first += 1;
        }
        let bytes = bytes.min(usize::from(u16::MAX));
        self.in_flight += bytes;
        let number = self.first + self.ring.len() as u64;
        self.ring.push_back(Packet { at_us: now_us, bytes: bytes as u16, probe, state: State::Awaited });
        number as u16
    }

    /// Settles a number; `None` if it was never given out, is forgotten, or was settled this way before.
    pub fn settle(&mut self, wire: u16, has_arrived: bool) -> Option<Settled> {
        let place = usize::from(wire.wrapping_sub(self.first as u16));
        let settled = self.first + place as u64 + 1;
        if place < self.ring.len() && settled > self.settled {
            let from = self.settled.saturating_sub(self.first) as usize;
            let passed: usize = self.ring.range(from..=place).map(|packet| usize::from(packet.bytes)).sum();
            self.in_flight -= passed;
            self.settled = settled;
        }
        let packet = self.ring.get_mut(place)?;
        let before = packet.state;
        match (before, has_arrived) {
            (State::Arrived, _) | (State::Missing, false) => None,
            (State::Awaited, false) => {
                packet.state = State::Missing;
                Some(Settled::Missing(*packet))
            }
            (_, true) => {
                packet.state = State::Arrived;
                Some(match before {
                    State::Missing => Settled::Late(*packet),
                    _ => Settled::Arrived(*packet),
                })
            }
        }
    }

    /// How many numbers from this one on were given out and are forgotten; 0 if it is known, or was never given out. A
    /// feedback packet that begins further back than [`SENT_MAX`] is of another time.
    pub fn forgotten_from(&self, wire: u16) -> u16 {
        let behind = (self.first as u16).wrapping_sub(wire);
        let is_past = usize::from(behind) <= SENT_MAX && u64::from(behind) <= self.first;
        if is_past { behind } else { 0 }
    }

    /// How many numbers are known; feedback beyond them need not be walked.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether nothing is awaited.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// When the oldest packet was sent of which no feedback speaks, nor of any after it, µs.
    pub fn unanswered_since_us(&self) -> Option<u64> {
        self.ring.get(self.settled.saturating_sub(self.first) as usize).map(|packet| packet.at_us)
    }

    /// Bytes of which no feedback speaks yet, nor of anything after them.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.ring.capacity() * size_of::<Packet>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_settled_once_each_way() {
        let mut sent = Sent::default();
        assert_eq!(sent.push(5, 100, 0), 0);
        assert_eq!(sent.settle(1, true), None, "never given out");
        assert!(matches!(sent.settle(0, false), Some(Settled::Missing(_))));
        assert_eq!(sent.settle(0, false), None);
        assert!(matches!(sent.settle(0, true), Some(Settled::Late(packet)) if packet.bytes == 100));
        assert_eq!(sent.settle(0, true), None);
    }

    #[test]
    fn numbers_that_are_forgotten_are_told_from_those_that_never_were() {
        let mut sent = Sent::default();
        for number in 0..10 {
            assert_eq!(sent.push(0, 100, 0), number);
        }
        assert_eq!(sent.push(2 * AWAITED_US, 100, 0), 10, "forgets the ten");
        assert_eq!(sent.forgotten_from(3), 7);
        assert_eq!(sent.forgotten_from(10), 0);
        assert_eq!(sent.forgotten_from(500), 0);
        assert_eq!(sent.forgotten_from(u16::MAX), 0, "never given out");
        assert!(matches!(sent.settle(10, true), Some(Settled::Arrived(_))));
    }

    proptest! {
        #[test]
        fn whatever_is_reported_only_what_was_sent_is_settled_and_once(
            reports in proptest::collection::vec((any::<u16>(), any::<bool>()), 0..3_000),
            count in 0_u64..100_000,
        ) {
            let mut sent = Sent::default();
            for number in 0..count.min(5_000) {
                prop_assert_eq!(sent.push(number * 100, 1_000, 0), number as u16);
            }
            let mut arrived = 0;
            let mut reached = 0;
            for (wire, has_arrived) in reports {
                let place = usize::from(wire.wrapping_sub(sent.first as u16));
                if place < sent.len() { reached = reached.max(place + 1); }
                let settled = sent.settle(wire, has_arrived);
                arrived += usize::from(matches!(settled, Some(Settled::Arrived(_) | Settled::Late(_))));
                prop_assert_eq!(sent.in_flight_bytes(), 1_000 * (sent.len() - reached));
            }
            prop_assert!(arrived <= sent.len() && sent.len() <= SENT_MAX);
        }
    }
}
