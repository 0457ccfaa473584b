//! The last packets of one layer, kept once for all who receive it.
//!
//! Payloads lie in one ring of bytes, what is known of them in a table indexed by sequence number. Both begin empty,
//! grow by doubling until they hold [`KEEP`] of the layer's traffic, and never beyond their bounds. A packet is looked
//! up in one step and, once overwritten, is not found.

use crate::rtp::sequence::Sequence;
use std::time::{Duration, Instant};

/// How much is kept at least, bounds permitting: a resend that comes later than this is of no use to a conversation.
pub const KEEP: Duration = Duration::from_millis(500);

/// Most bytes kept for a layer: [`KEEP`] of 3 Mbit/s, rounded up to a power of two.
pub const BYTES_MAX: usize = 256 * 1024;

/// Bytes that the first packet makes room for: a second of Opus at 32 kbit/s. Holds any one packet.
const BYTES_MIN: usize = 4 * 1024;

/// Most packets kept for a layer: [`KEEP`] of 3 Mbit/s in packets of 200 bytes, rounded up.
pub const PACKETS_MAX: usize = 1_024;

/// Packets that the first packet makes room for: [`KEEP`] of Opus.
const PACKETS_MIN: usize = 32;

/// A kept packet.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The payload as its publisher sent it, without padding.
    pub payload: &'a [u8],
    /// Its timestamp as its publisher wrote it.
    pub timestamp: u32,
    /// Its marker bit.
    pub marker: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// 0 marks an empty entry: sequence numbers begin above.
    sequence: u64,
    position: u64,
    timestamp: u32,
    length: u16,
    marker: bool,
}

/// The last packets of one layer.
#[derive(Debug, Default)]
pub struct History {
    bytes: Vec<u8>,
    index: Vec<Entry>,
    /// Bytes ever written, those skipped at the end of the ring included.
    head: u64,
    /// The position that lies at the start of the ring.
    base: u64,
    /// What lay below this position was overwritten before the ring last grew.
    floor: u64,
    mark: Option<Mark>,
}

/// The start of the running span of [`KEEP`]: nothing since then is overwritten while there is room to grow.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    head: u64,
    sequence: u64,
}

impl History {
    /// Keeps a packet. Its sequence number must not be kept already; its payload is at most
    /// [`crate::rtp::PAYLOAD_BYTES_MAX`] long.
    pub fn push(&mut self, now: Instant, sequence: Sequence, timestamp: u32, marker: bool, payload: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BYTES_MIN];
            self.index = vec![Entry::default(); PACKETS_MIN];
        }
        if self.mark.is_none_or(|mark| now.saturating_duration_since(mark.at) >= KEEP) {
            self.mark = Some(Mark { at: now, head: self.head, sequence: sequence.0 });
        }
        if let Some(mark) = self.mark {
            // What is skipped at the end of the ring takes up room, too.
            let written =
                |it: &Self| (it.head - mark.head) as usize + it.skip_before(payload.len()) + payload.len();
            while written(self) > self.bytes.len() && self.bytes.len() < BYTES_MAX {
                self.grow_bytes();
            }
            let span = sequence.0.saturating_sub(mark.sequence);
            if span >= self.index.len() as u64 && self.index.len() < PACKETS_MAX {
                self.grow_index();
            }
        }
        self.head += self.skip_before(payload.len()) as u64;
        let at = self.place_of(self.head);
        self.bytes[at..at + payload.len()].copy_from_slice(payload);
        let place = (sequence.0 & (self.index.len() as u64 - 1)) as usize;
        self.index[place] = Entry {
            sequence: sequence.0,
            position: self.head,
            timestamp,
            length: payload.len() as u16,
            marker,
        };
        self.head += payload.len() as u64;
    }

    /// Looks a packet up.
    pub fn get(&self, sequence: Sequence) -> Option<Kept<'_>> {
        let place = (sequence.0 & (self.index.len() as u64).wrapping_sub(1)) as usize;
        let entry = self.index.get(place)?;
        let is_overwritten =
            entry.position < self.floor || self.head - entry.position > self.bytes.len() as u64;
        if entry.sequence != sequence.0 || is_overwritten {
            return None;
        }
        let at = self.place_of(entry.position);
        let payload = &self.bytes[at..at + usize::from(entry.length)];
        Some(Kept { payload, timestamp: entry.timestamp, marker: entry.marker })
    }

    /// Forgets everything and gives the memory back.
    pub fn release(&mut self) {
        *self = Self::default();
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * size_of::<Entry>()
    }

    /// Where in the ring a position lies.
    fn place_of(&self, position: u64) -> usize {
        (position.wrapping_sub(self.base) & (self.bytes.len() as u64 - 1)) as usize
    }

    /// How many bytes are left unused at the end of the ring, so that the next packet lies in one piece.
    fn skip_before(&self, length: usize) -> usize {
        let left = self.bytes.len() - self.place_of(self.head);
        if length > left { left } else { 0 }
    }

    /// Doubles the ring. The oldest byte moves to its start, so that positions go on mapping to places.
    fn grow_bytes(&mut self) {
        let capacity = self.bytes.len();
        let oldest = (self.head.wrapping_sub(self.base) & (capacity as u64 - 1)) as usize;
        self.bytes.rotate_left(oldest);
        self.base = self.head.wrapping_sub(capacity as u64);
        self.floor = self.floor.max(self.head.saturating_sub(capacity as u64));
        self.bytes.resize(capacity * 2, 0);
    }

    fn grow_index(&mut self) {
        let length = self.index.len() * 2;
        let old = std::mem::replace(&mut self.index, vec![Entry::default(); length]);
        for entry in old {
            let place = (entry.sequence & (length as u64 - 1)) as usize;
            if self.index[place].sequence < entry.sequence {
                self.index[place] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload_of(sequence: u64, length: usize) -> Vec<u8> {
        (0..length).map(|at| (sequence as usize * 31 + at) as u8).collect()
    }

    #[test]
    fn keeps_half_a_second_of_a_camera_and_stays_small() {
        let start = crate::up::test_epoch();
        let mut history = History::default();
        // 1.2 Mbit/s: 136 packets of 1,100 bytes a second.
        for number in 0..1_000_u64 {
            let now = start + Duration::from_micros(number * 7_350);
            history.push(now, Sequence::first(0).plus(number), 0, false, &payload_of(number, 1_100));
        }
        for number in 1_000 - 68..1_000 {
            let kept = history.get(Sequence::first(0).plus(number)).expect("within half a second");
            assert_eq!(kept.payload, payload_of(number, 1_100));
        }
        assert!(history.memory_bytes() <= 140_000, "{}", history.memory_bytes());
        history.release();
        assert_eq!(history.memory_bytes(), 0);
    }

    proptest! {
        #[test]
        fn what_comes_within_the_time_that_is_kept_is_found(
            before in proptest::collection::vec((1_usize..1_390, 0_u64..40), 0..60),
            burst in proptest::collection::vec((1_usize..1_390, 0_u64..5), 1..90),
        ) {
            let mut now = crate::up::test_epoch();
            let mut history = History::default();
            let mut sequence = Sequence::first(7);
            let mut kept = Vec::new();
            for (length, wait_ms) in before.into_iter().chain([(1, 1_000)]).chain(burst) {
                now += Duration::from_millis(wait_ms);
                sequence = sequence.plus(1);
                let payload = payload_of(sequence.0, length);
                history.push(now, sequence, 0, false, &payload);
                kept.push((now, sequence, payload));
            }
            for (at, sequence, payload) in kept.iter().filter(|(at, ..)| now - *at < KEEP) {
                let found = history.get(*sequence).map(|packet| packet.payload);
                prop_assert_eq!(found, Some(&payload[..]), "{:?} ago", now - *at);
            }
        }

        #[test]
        fn what_is_found_is_what_was_kept(
            packets in proptest::collection::vec((0_i64..6, 0_usize..1_390, 0_u64..20), 1..400),
            first in any::<u16>(),
        ) {
            let mut now = crate::up::test_epoch();
            let mut history = History::default();
            let mut sequence = Sequence::first(first);
            let mut kept = std::collections::BTreeMap::new();
            for (step, length, wait_ms) in packets {
                now += Duration::from_millis(wait_ms);
                sequence = sequence.plus(1 + step as u64);
                // Every fifth comes late, after its successor's number was used up by a gap.
                let number = if step == 5 && !kept.contains_key(&(sequence.0 - 3)) { Sequence(sequence.0 - 3) } else { sequence };
                let payload = payload_of(number.0, length);
                history.push(now, number, length as u32, step == 1, &payload);
                kept.insert(number.0, payload);
                prop_assert_eq!(history.get(number).expect("just kept").payload, &kept[&number.0][..]);
            }
            let mut found = 0;
            for (number, payload) in &kept {
                if let Some(packet) = history.get(Sequence(*number)) {
                    found += 1;
                    prop_assert_eq!(packet.payload, &payload[..]);
                    prop_assert_eq!(packet.timestamp as usize, payload.len());
                }
            }
            prop_assert!(found > 0);
            prop_assert!(history.bytes.len() <= BYTES_MAX && history.index.len() <= PACKETS_MAX);
        }
    }
}
