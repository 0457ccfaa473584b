//! What a bot receives on one SSRC: what is missing is asked for, and what came is known by the stamp inside.
//!
//! To open every packet in every receiver costs the driver more than anything else. Where a scenario says so only a
//! share is opened: a server that carries one stream in one SSRC keeps the distance between its numbers and the
//! stream's, so the opened packets name the others, and each opened one proves the distance anew.

use crate::traffic::ledger::FlowId;
use crate::traffic::stamp::Stamp;

/// Missing packets of a stream that are asked for at a time; a longer gap is not repaired but ends in a key frame.
const MISSING_MAX: usize = 256;

/// Times a packet is asked for, and how long an answer may take before it is asked for again, in ns.
const ASKED_MAX: u8 = 5;
const ASK_AGAIN_NS: u64 = 50_000_000;

/// How long a picture without a key frame is watched before one is asked for, in ns.
const KEY_FRAME_WAIT_NS: u64 = 500_000_000;

struct Missing {
    sequence: u64,
    asked: u8,
    ask_at_ns: u64,
}

/// See the module.
pub(crate) struct ReceiveStream {
    pub(crate) ssrc: u32,
    pub(crate) is_repair: bool,
    pub(crate) is_video: bool,
    highest: Option<u64>,
    received: u64,
    first: u64,
    missing: Vec<Missing>,
    /// The stream inside, its flow in the ledger, and the distance of its counter from the sequence number.
    inside: Option<Inside>,
    /// Opened packets that did not have the distance of those before: what was not opened was named wrongly.
    pub(crate) contradictions: u64,
    /// The middle of the NTP time in the newest sender report, and when that came.
    pub(crate) sender_report: Option<(u32, u64)>,
    has_key: bool,
    key_wanted_at_ns: Option<u64>,
}

#[derive(Clone, Copy)]
pub(crate) struct Inside {
    pub(crate) stream: u32,
    pub(crate) flow: FlowId,
    distance: i64,
}

impl ReceiveStream {
    pub(crate) fn new(ssrc: u32, is_repair: bool, is_video: bool) -> Self {
        Self {
            ssrc,
            is_repair,
            is_video,
            highest: None,
            received: 0,
            first: 0,
            missing: Vec::new(),
            inside: None,
            contradictions: 0,
            sender_report: None,
            has_key: false,
            key_wanted_at_ns: None,
        }
    }

    /// Notes a sequence number and returns it unwrapped.
    pub(crate) fn note(&mut self, now_ns: u64, sequence: u16) -> u64 {
        self.received += 1;
        let Some(highest) = self.highest else {
            let unwrapped = 0x1_0000 + u64::from(sequence);
            (self.highest, self.first) = (Some(unwrapped), unwrapped);
            return unwrapped;
        };
        let unwrapped = highest.wrapping_add_signed(i64::from(sequence.wrapping_sub(highest as u16) as i16));
        if unwrapped > highest {
            let gap = (unwrapped - highest - 1) as usize;
            if gap > 0 && !self.is_repair {
                self.handle_gap(now_ns, highest + 1..unwrapped);
            }
            self.highest = Some(unwrapped);
        } else {
            self.settle(unwrapped);
        }
        unwrapped
    }

    fn handle_gap(&mut self, now_ns: u64, gap: std::ops::Range<u64>) {
        if (gap.end - gap.start) as usize + self.missing.len() > MISSING_MAX {
            self.missing.clear();
            self.has_key = false;
            self.key_wanted_at_ns = Some(now_ns);
            return;
        }
        self.missing.extend(gap.map(|sequence| Missing { sequence, asked: 0, ask_at_ns: now_ns }));
    }

    /// A missing packet came: late, or as a repair with this original number.
    pub(crate) fn settle(&mut self, sequence: u64) {
        self.missing.retain(|missing| missing.sequence != sequence);
    }

    /// As [`ReceiveStream::settle`], by the number on the wire.
    pub(crate) fn settle_wrapped(&mut self, sequence: u16) {
        self.missing.retain(|missing| missing.sequence as u16 != sequence);
    }

    /// The numbers to ask for now, if any.
    pub(crate) fn poll_missing(&mut self, now_ns: u64) -> Vec<u16> {
        if self.missing.is_empty() {
            return Vec::new();
        }
        let count = self.missing.len();
        self.missing.retain(|missing| missing.asked < ASKED_MAX || missing.ask_at_ns > now_ns);
        if self.missing.len() < count {
            // A picture that misses a packet for good goes on with a key frame.
            self.has_key = false;
            self.key_wanted_at_ns = Some(now_ns);
        }
        let mut numbers = Vec::new();
        for missing in self.missing.iter_mut().filter(|missing| missing.ask_at_ns <= now_ns) {
            missing.asked += 1;
            missing.ask_at_ns = now_ns + ASK_AGAIN_NS;
            numbers.push(missing.sequence as u16);
        }
        numbers
    }

    /// Whether to ask for a key frame now.
    pub(crate) fn poll_key_frame_wanted(&mut self, now_ns: u64) -> bool {
        if !self.is_video || self.is_repair || self.has_key || self.received == 0 {
            return false;
        }
        let at_ns = *self.key_wanted_at_ns.get_or_insert(now_ns + KEY_FRAME_WAIT_NS);
        if at_ns > now_ns {
            return false;
        }
        self.key_wanted_at_ns = Some(now_ns + KEY_FRAME_WAIT_NS);
        true
    }

    /// Whether a frame that can be decoded has come to its end: until then every packet is opened.
    pub(crate) fn has_key(&self) -> bool {
        self.has_key
    }

    /// What is inside, as far as known.
    pub(crate) fn inside(&self) -> Option<Inside> {
        self.inside
    }

    /// The counter of a packet that was not opened.
    pub(crate) fn counter_of(&self, sequence: u64) -> Option<u32> {
        let counter = sequence.checked_add_signed(self.inside?.distance)?;
        u32::try_from(counter).ok()
    }

    /// Notes what an opened packet held.
    pub(crate) fn handle_stamp(&mut self, sequence: u64, stamp: &Stamp, flow: FlowId) {
        self.has_key |= stamp.is_key && stamp.is_frame_end;
        if self.is_repair {
            return;
        }
        let distance = i64::from(stamp.counter) - sequence as i64;
        if let Some(inside) = self.inside
            && (inside.stream, inside.distance) != (stamp.stream, distance)
        {
            self.contradictions += 1;
        }
        self.inside = Some(Inside { stream: stamp.stream, flow, distance });
    }

    /// Lost so far and highest number, for a receiver report (RFC 3550 section 6.4.1).
    pub(crate) fn report(&self) -> Option<(u32, u32)> {
        let highest = self.highest?;
        let expected = highest - self.first + 1;
        Some((expected.saturating_sub(self.received) as u32, (highest - 0x1_0000) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::ledger::Ledger;

    #[test]
    fn what_is_missing_is_asked_for_until_it_comes_and_not_forever() {
        let mut stream = ReceiveStream::new(1, false, true);
        for sequence in [65_534, 65_535, 2] {
            stream.note(0, sequence);
        }
        assert_eq!(stream.poll_missing(0), [0, 1]);
        assert_eq!(stream.poll_missing(ASK_AGAIN_NS - 1), [0_u16; 0]);
        stream.settle_wrapped(0);
        for round in 1..u64::from(ASKED_MAX) {
            assert_eq!(stream.poll_missing(round * ASK_AGAIN_NS), [1]);
        }
        assert_eq!(stream.poll_missing(100 * ASK_AGAIN_NS), [0_u16; 0]);
        assert_eq!(stream.report(), Some((2, 65_538)));
    }

    #[test]
    fn a_picture_that_misses_a_packet_for_good_asks_for_a_key_frame() {
        let flow = Ledger::new(&[1]).flow(0, 0).unwrap();
        let (is_key, is_frame_start, is_frame_end) = (true, true, true);
        let stamp = Stamp { stream: 0, counter: 0, due_ns: 0, is_key, is_frame_start, is_frame_end };
        let mut stream = ReceiveStream::new(1, false, true);
        let first = stream.note(0, 5);
        stream.handle_stamp(first, &stamp, flow);
        stream.note(0, 7);
        for round in 0..u64::from(ASKED_MAX) {
            assert_eq!(stream.poll_missing(round * ASK_AGAIN_NS), [6]);
            assert!(!stream.poll_key_frame_wanted(round * ASK_AGAIN_NS), "it may still come");
        }
        let after_ns = u64::from(ASKED_MAX) * ASK_AGAIN_NS;
        assert!(stream.poll_missing(after_ns).is_empty());
        assert!(stream.poll_key_frame_wanted(after_ns), "nothing more is expected");
    }

    #[test]
    fn a_long_gap_asks_for_a_key_frame_instead() {
        let mut stream = ReceiveStream::new(1, false, true);
        stream.note(0, 0);
        stream.note(5, 1_000);
        assert!(stream.poll_missing(5).is_empty());
        assert!(stream.poll_key_frame_wanted(5));
        assert!(!stream.poll_key_frame_wanted(6), "not twice");
    }

    #[test]
    fn opened_packets_name_the_others_and_a_jump_is_noticed() {
        let mut ledger = Ledger::new(&[1]);
        let flow = ledger.flow(0, 0).unwrap();
        let (is_key, is_frame_start, is_frame_end) = (true, true, true);
        let stamp = |counter| Stamp { stream: 0, counter, due_ns: 0, is_key, is_frame_start, is_frame_end };
        let mut stream = ReceiveStream::new(1, false, true);
        let first = stream.note(0, 65_535);
        assert_eq!(stream.counter_of(first), None);
        stream.handle_stamp(first, &stamp(7), flow);
        let second = stream.note(0, 0);
        assert_eq!(stream.counter_of(second), Some(8));
        stream.handle_stamp(second, &stamp(8), flow);
        assert_eq!(stream.contradictions, 0);
        let third = stream.note(0, 1);
        stream.handle_stamp(third, &stamp(10), flow);
        assert_eq!(stream.contradictions, 1);
    }
}
