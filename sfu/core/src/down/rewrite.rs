//! Makes one unbroken RTP stream out of pieces of many: sequence numbers, timestamps, VP8 picture ids.
//!
//! Each change of source opens a segment, and within a segment a packet's numbers differ from the publisher's by
//! constants: gaps stay gaps, so a receiver's NACK maps back to the packet it means. An output number is given to at
//! most one packet for ever: a packet from before its segment's start gets none.

use crate::{
    rtp::{
        Clock,
        sequence::{Sequence, is_later},
        vp8,
    },
    up::LayerRef,
};
use arrayvec::ArrayVec;
use std::time::{Duration, Instant};

/// Segments remembered for resends. A resend is useless after half a second; more changes than this within that time
/// do not happen while each waits for a key frame.
const SEGMENTS_MAX: usize = 4;

/// How far the time between two sources' frames by their senders' clocks may differ from the time between their
/// arrivals: beyond it a clock is not to be believed.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(2);

/// What is replayed goes by so many times faster than it was recorded: frames that are 33 ms apart come 1 ms apart, and at
/// 90 kHz every two frames of up to 2,800 a second keep timestamps of their own.
const REPLAY_SPEED: u32 = 32;

/// A piece of a stream that comes from one source.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The source.
    pub source: LayerRef,
    /// The source's epoch: after the next one began, the shifts do not hold.
    pub epoch: u32,
    first_in: Sequence,
    first_out: Sequence,
    timestamp_shift: u32,
    vp8_shift: vp8::Shift,
    /// The source's timestamp up to which it was replayed from what was kept, faster than it came: what follows is live.
    live_from: Option<u32>,
}

/// What a packet's numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The sequence number.
    pub sequence: Sequence,
    /// The timestamp.
    pub timestamp: u32,
    /// What is added to the VP8 descriptor's numbers.
    pub vp8_shift: vp8::Shift,
}

/// A packet about to be rewritten.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Where it comes from.
    pub source: LayerRef,
    /// The source's epoch.
    pub epoch: u32,
    /// Its number without wraparound.
    pub sequence: Sequence,
    /// Its timestamp.
    pub timestamp: u32,
    /// Its VP8 descriptor, if it is video.
    pub descriptor: Option<vp8::Descriptor>,
}

/// The rewriter of one slot.
#[derive(Debug)]
pub struct Rewriter {
    clock: Clock,
    segments: ArrayVec<Segment, SEGMENTS_MAX>,
    /// The next number nobody has used.
    next: Sequence,
    reached_timestamp: u32,
    reached_at: Option<Instant>,
    reached: vp8::Reached,
}

impl Rewriter {
    /// A stream that begins at this sequence number, taken modulo 2^15 so that it cannot have wrapped before its
    /// receiver has seen it (RFC 3711 section 3.3.1), and this timestamp.
    pub fn new(clock: Clock, sequence: u16, timestamp: u32) -> Self {
        Self {
            clock,
            segments: ArrayVec::new(),
            next: Sequence(u64::from(sequence & 0x7fff)),
            reached_timestamp: timestamp,
            reached_at: None,
            reached: vp8::Reached::default(),
        }
    }

    /// The running segment.
    pub fn segment(&self) -> Option<&Segment> {
        self.segments.last()
    }

    /// The next number nobody has used.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// The timestamp last sent and the moment it was.
    pub fn reached(&self) -> Option<(u32, Instant)> {
        self.reached_at.map(|at| (self.reached_timestamp, at))
    }

    /// What a timestamp of the running segment's source becomes.
    pub fn timestamp_of(&self, timestamp: u32) -> Option<u32> {
        self.segments.last().map(|segment| segment.timestamp_of(timestamp))
    }

    /// Opens a segment with its first packet. `on_old_clock` is the packet's time on the clock of the running
    /// segment's source, if the senders' reports tell. `live_from` is the timestamp of the source's newest packet where
    /// this one is replayed: what lies between the two is shown in quick motion, so that a receiver does not take the time
    /// between for a delay of the line that it has to make up for.
    pub fn begin(
        &mut self,
        now: Instant,
        packet: &Incoming,
        on_old_clock: Option<u32>,
        live_from: Option<u32>,
    ) -> Rewritten {
        let timestamp = self.following_timestamp(now, on_old_clock);
        let vp8_shift =
            packet.descriptor.map_or(vp8::Shift::default(), |descriptor| self.reached.shift_for(&descriptor));
        if self.segments.is_full() {
            self.segments.remove(0);
        }
        let mut segment = Segment {
            source: packet.source,
            epoch: packet.epoch,
            first_in: packet.sequence,
            first_out: self.next,
            timestamp_shift: 0,
            vp8_shift,
            live_from,
        };
        segment.timestamp_shift = timestamp.wrapping_sub(segment.timestamp_of(packet.timestamp));
        self.segments.push(segment);
        self.note(now, packet, Rewritten { sequence: self.next, timestamp, vp8_shift })
    }

    fn following_timestamp(&self, now: Instant, on_old_clock: Option<u32>) -> u32 {
        let Some(at) = self.reached_at else { return self.reached_timestamp };
        let elapsed = self.clock.ticks(now.saturating_duration_since(at)).max(1);
        let by_arrival = self.reached_timestamp.wrapping_add(elapsed);
        let Some(by_clock) = on_old_clock.and_then(|old| self.timestamp_of(old)) else { return by_arrival };
        if (by_clock.wrapping_sub(by_arrival) as i32).unsigned_abs() > self.clock.ticks(CLOCK_ERROR_MAX) {
            by_arrival
        } else if is_later(by_clock, self.reached_timestamp) {
            by_clock
        } else {
            self.reached_timestamp.wrapping_add(1) // another frame, so another timestamp
        }
    }

    /// Rewrites a packet of the running segment; `None` if it is from before the segment's start or of another
    /// source.
    pub fn continue_with(&mut self, now: Instant, packet: &Incoming) -> Option<Rewritten> {
        let segment = self.segments.last()?;
        if segment.source != packet.source
            || segment.epoch != packet.epoch
            || packet.sequence < segment.first_in
        {
            return None;
        }
        let rewritten = segment.rewrite(packet.sequence, packet.timestamp);
        Some(self.note(now, packet, rewritten))
    }

    fn note(&mut self, now: Instant, packet: &Incoming, rewritten: Rewritten) -> Rewritten {
        if rewritten.sequence >= self.next {
            self.next = rewritten.sequence.plus(1);
        }
        if self.reached_at.is_none() || is_later(rewritten.timestamp, self.reached_timestamp) {
            self.reached_timestamp = rewritten.timestamp;
            self.reached_at = Some(now);
        }
        if let Some(descriptor) = &packet.descriptor {
            self.reached.note(descriptor, rewritten.vp8_shift);
        }
        rewritten
    }

    /// Which packet of which source an output number meant, if it was given out and its segment is remembered.
    pub fn origin(&self, wire: u16) -> Option<(Segment, Sequence)> {
        let last = Sequence(self.next.0.checked_sub(1)?);
        let out = last.nearest(wire);
        if out > last {
            return None;
        }
        let segment = self.segments.iter().rev().find(|segment| segment.first_out <= out)?;
        Some((*segment, Sequence(segment.first_in.0 + (out.0 - segment.first_out.0))))
    }
}

impl Segment {
    /// What the numbers of one of this segment's packets become.
    pub fn rewrite(&self, sequence: Sequence, timestamp: u32) -> Rewritten {
        Rewritten {
            sequence: self.first_out.plus(sequence.0 - self.first_in.0),
            timestamp: self.timestamp_of(timestamp),
            vp8_shift: self.vp8_shift,
        }
    }

    fn timestamp_of(&self, timestamp: u32) -> u32 {
        let shown = match self.live_from {
            Some(live) if is_later(live, timestamp) => {
                live.wrapping_sub(live.wrapping_sub(timestamp).div_ceil(REPLAY_SPEED))
            }
            _ => timestamp,
        };
        shown.wrapping_add(self.timestamp_shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;
    use asamblea_seam::UpKind;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn layer(layer: u8) -> LayerRef {
        LayerRef { peer: Default::default(), kind: UpKind::Camera, layer }
    }

    fn frame(source: u8, sequence: u64, timestamp: u32, picture_id: u16) -> Incoming {
        let id = picture_id & 0x7fff;
        let bytes = [0x90, 0xc0, 0x80 | (id >> 8) as u8, id as u8, id as u8, 0];
        Incoming {
            source: layer(source),
            epoch: 0,
            sequence: Sequence(sequence),
            timestamp,
            descriptor: vp8::Descriptor::parse(&bytes),
        }
    }

    #[test]
    fn a_layer_switch_goes_on_with_every_number() {
        let now = test_epoch();
        let mut rewriter = Rewriter::new(Clock::Video, 0x7fff, u32::MAX - 100);
        let first = rewriter.begin(now, &frame(0, 70_000, 5, 0x7fff), None, None);
        assert_eq!((first.sequence, first.timestamp), (Sequence(0x7fff), u32::MAX - 100));
        let now = now + Duration::from_millis(33);
        let second = rewriter.continue_with(now, &frame(0, 70_001, 2_975, 0)).expect("same segment");
        assert_eq!((second.sequence, second.timestamp), (Sequence(0x8000), 2_869));
        let now = now + Duration::from_millis(100);
        let third = rewriter.begin(now, &frame(1, 12, 1_000_000, 500), None, None);
        assert_eq!((third.sequence, third.timestamp), (Sequence(0x8001), 2_869 + 9_000));
        assert_eq!(third.vp8_shift.picture_id.wrapping_add(500) & 0x7fff, 1);
        assert_eq!(rewriter.continue_with(now, &frame(1, 11, 0, 0)), None, "before the segment's start");
        assert_eq!(rewriter.continue_with(now, &frame(0, 70_002, 0, 0)), None, "of the old layer");
    }

    #[test]
    fn what_is_replayed_goes_by_faster_and_what_follows_does_not() {
        let now = test_epoch();
        let mut rewriter = Rewriter::new(Clock::Video, 5, 1_000);
        // Ten frames 33 ms apart lie behind, over the wraparound.
        let timestamp = |frame: u32| (u32::MAX - 10_000).wrapping_add(frame * 3_000);
        let first = rewriter.begin(now, &frame(0, 70_000, timestamp(0), 1), None, Some(timestamp(9)));
        assert_eq!(first.timestamp, 1_000);
        let mut follow = |number: u32| {
            let packet = frame(0, 70_000 + u64::from(number), timestamp(number), 1 + number as u16);
            rewriter.continue_with(now, &packet).expect("same segment").timestamp
        };
        let shown: Vec<u32> = (1..12).map(&mut follow).collect();
        let live = 1_000 + (9_u32 * 3_000).div_ceil(REPLAY_SPEED);
        assert_eq!(shown[8..], [live, live + 3_000, live + 6_000]);
        let steps = [1_000].iter().chain(&shown).zip(&shown).map(|(a, b)| b - a).collect::<Vec<_>>();
        assert!(steps[..9].iter().all(|step| (93..=94).contains(step)), "{steps:?}");
        // Asked for again it is what it was.
        let (segment, kept) = rewriter.origin(8).expect("given out");
        assert_eq!((kept, segment.rewrite(kept, timestamp(3)).timestamp), (Sequence(70_003), shown[2]));
    }

    #[test]
    fn senders_clocks_are_believed_only_within_reason() {
        let start = test_epoch();
        for (on_old_clock, expected) in
            [(Some(103_000), 103_000), (Some(90_000), 100_001), (Some(900_000), 109_000), (None, 109_000)]
        {
            let mut rewriter = Rewriter::new(Clock::Video, 0, 100_000);
            rewriter.begin(start, &frame(0, 1, 100_000, 1), None, None);
            let now = start + Duration::from_millis(100);
            assert_eq!(
                rewriter.begin(now, &frame(1, 1, 0, 1), on_old_clock, None).timestamp,
                expected,
                "{on_old_clock:?}"
            );
        }
    }

    proptest! {
        /// Any interleaving of sources, loss, reordering and repetition of arrivals (the reception state upstream
        /// removes repetitions, so each number comes once here).
        #[test]
        fn numbers_are_unique_continuous_and_map_back(
            first_out: u16,
            first_timestamp: u32,
            starts in proptest::collection::vec((0_u64..1 << 20, any::<u32>(), any::<u16>()), 3),
            steps in proptest::collection::vec((0_u8..3, prop::bool::weighted(0.1), 0_u64..4, prop::bool::weighted(0.2)), 1..400),
        ) {
            let mut now = test_epoch();
            let mut rewriter = Rewriter::new(Clock::Video, first_out, first_timestamp);
            let mut progress = [0_u64; 3];
            let mut sent: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
            let mut current = None;
            let mut reached: Option<(u32, u16)> = None;
            let mut late: Vec<Incoming> = Vec::new();
            for (source, is_switch, lost, is_held) in steps {
                now += Duration::from_millis(20);
                let place = usize::from(source);
                progress[place] += 1 + lost;
                let (sequence, timestamp, picture_id) = starts[place];
                let steps = progress[place];
                let packet = frame(source, 70_000 + sequence + steps, timestamp.wrapping_add(steps as u32 * 1_800), picture_id.wrapping_add(steps as u16));
                let id = packet.descriptor.and_then(|d| d.picture_id).expect("ours").value();
                let is_begin = current != Some(source) && (is_switch || current.is_none());
                let out = if is_begin {
                    current = Some(source);
                    Some(rewriter.begin(now, &packet, None, None))
                } else if is_held {
                    late.push(packet);
                    None
                } else {
                    rewriter.continue_with(now, &packet)
                };
                if let Some(out) = out {
                    prop_assert_eq!(sent.insert(out.sequence.0, (source, packet.sequence.0)), None, "a number twice");
                    let out_id = id.wrapping_add(out.vp8_shift.picture_id) & 0x7fff;
                    if let Some((timestamp, id)) = reached {
                        prop_assert!(is_later(out.timestamp, timestamp));
                        if is_begin { prop_assert_eq!(out_id, (id + 1) & 0x7fff); }
                    }
                    reached = Some((out.timestamp, out_id));
                }
                // What was held comes late, perhaps after a switch.
                if late.len() > 3 {
                    let packet = late.remove(0);
                    let before = reached;
                    if let Some(out) = rewriter.continue_with(now, &packet) {
                        prop_assert_eq!(sent.insert(out.sequence.0, (packet.source.layer, packet.sequence.0)), None, "a number twice");
                        // It may be the furthest that came of its source.
                        if let Some((timestamp, _)) = before && is_later(out.timestamp, timestamp) {
                            let id = packet.descriptor.and_then(|d| d.picture_id).expect("ours").value();
                            reached = Some((out.timestamp, id.wrapping_add(out.vp8_shift.picture_id) & 0x7fff));
                        }
                    }
                }
            }
            for (out, (source, sequence)) in sent.iter().rev().take(20) {
                if let Some((segment, origin)) = rewriter.origin(*out as u16) {
                    prop_assert_eq!((segment.source.layer, origin.0), (*source, *sequence));
                    prop_assert_eq!(segment.rewrite(origin, 0).sequence.0, *out);
                }
            }
            prop_assert!(rewriter.origin(rewriter.next.wire()).is_none(), "a number not given out");
        }
    }
}
