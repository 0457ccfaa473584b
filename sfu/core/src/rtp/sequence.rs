//! Sequence numbers without their wraparound.
//!
//! Inside the heart a sequence number is 64 bits wide and never wraps; 16 bits exist on the wire only.

/// The first roll-over count, so that a packet from before the first one seen has a number, too.
const FIRST_CYCLE: u64 = 1 << 16;

/// A sequence number with its roll-over count above the lower 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number a stream begins with.
    pub fn first(wire: u16) -> Self {
        Self(FIRST_CYCLE + u64::from(wire))
    }

    /// As it is on the wire.
    pub fn wire(self) -> u16 {
        self.0 as u16
    }

    /// The number with these lower 16 bits that lies nearest to `self`, at most 32,768 away (RFC 3711 section 3.3.1).
    pub fn nearest(self, wire: u16) -> Self {
        let difference = wire.wrapping_sub(self.wire()) as i16;
        Self(self.0.saturating_add_signed(i64::from(difference)))
    }

    /// A number far above `self` for a stream that began anew, so that no number of the two is the same.
    pub fn begin_anew(self, wire: u16) -> Self {
        Self((((self.0 >> 16) + 2) << 16) + u64::from(wire))
    }

    /// The number `count` later.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// Whether timestamp `a` is later than `b`, modulo 2^32.
pub fn is_later(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The last [`Seen::WIDTH`] sequence numbers of a stream, one bit each.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    bits: [u64; (Seen::WIDTH / 64) as usize],
    highest: Option<Sequence>,
}

impl Seen {
    /// How far a packet may be behind the highest seen: a second of a 3 Mbit/s layer is about 350 packets.
    pub const WIDTH: u64 = 512;

    /// The highest number noted.
    pub fn highest(&self) -> Option<Sequence> {
        self.highest
    }

    fn place(sequence: Sequence) -> (usize, u64) {
        let place = sequence.0 % Self::WIDTH;
        ((place / 64) as usize, 1 << (place % 64))
    }

    /// Whether the number was noted; numbers too old to know count as seen.
    pub fn contains(&self, sequence: Sequence) -> bool {
        let Some(highest) = self.highest else { return false };
        if sequence > highest {
            return false;
        }
        let (word, bit) = Self::place(sequence);
        highest.0 - sequence.0 >= Self::WIDTH || self.bits[word] & bit != 0
    }

    /// Notes a number. False if it was noted before or is too old to know.
    pub fn insert(&mut self, sequence: Sequence) -> bool {
        if self.contains(sequence) {
            return false;
        }
        let (word, bit) = Self::place(sequence);
        match self.highest {
            Some(highest) if sequence > highest => {
                if sequence.0 - highest.0 >= Self::WIDTH {
                    self.bits = Default::default();
                } else {
                    for skipped in highest.0 + 1..sequence.0 {
                        let (word, bit) = Self::place(Sequence(skipped));
                        self.bits[word] &= !bit;
                    }
                }
                self.highest = Some(sequence);
            }
            Some(_) => {}
            None => self.highest = Some(sequence),
        }
        self.bits[word] |= bit;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn nearest_follows_any_walk(start in any::<u16>(), steps in proptest::collection::vec(-3_000_i64..3_000, 1..200)) {
            let mut truth = Sequence::first(start).plus(1 << 20);
            for step in steps {
                let next = Sequence(truth.0.saturating_add_signed(step));
                prop_assert_eq!(truth.nearest(next.wire()), next);
                truth = next;
            }
        }

        #[test]
        fn a_stream_begun_anew_shares_no_number(old in 0_u64..1 << 40, wire in any::<u16>(), behind in 0_u16..32_768) {
            let anew = Sequence(old).begin_anew(wire);
            prop_assert!(anew.nearest(wire.wrapping_sub(behind)).0 > old);
        }

        #[test]
        fn seen_agrees_with_a_set(steps in proptest::collection::vec(-600_i64..700, 1..300)) {
            let mut seen = Seen::default();
            let mut model = BTreeSet::new();
            let mut at = Sequence::first(65_000);
            for step in steps {
                at = Sequence(at.0.saturating_add_signed(step));
                let highest = model.last().copied().unwrap_or(0);
                let is_new = at.0 + Seen::WIDTH > highest && !model.contains(&at.0);
                prop_assert_eq!(seen.insert(at), is_new);
                if is_new { model.insert(at.0); }
            }
        }

        #[test]
        fn later_is_a_direction(a in any::<u32>(), by in 1_u32..1 << 31) {
            prop_assert!(is_later(a.wrapping_add(by), a));
            prop_assert!(!is_later(a, a.wrapping_add(by)));
        }
    }
}
