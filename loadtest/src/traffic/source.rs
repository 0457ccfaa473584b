//! The streams of the publishers and what their packets hold: bytes that are media to every server on the way,
//! without an encoder.
//!
//! Video has a VP8 payload descriptor (RFC 7741 section 4.2) with picture id and TL0PICIDX in each packet and a
//! frame header (section 4.3) at the start of each frame, so that key frames are found and descriptors are
//! rewritten as in real meetings. Audio begins with an Opus TOC byte (RFC 6716 section 3.1).

use super::Kind;
use super::schedule::Schedule;
use super::stamp::{STAMP_BYTES, Stamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Least bytes of a payload: descriptor, key frame header and stamp.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 6 + 10 + STAMP_BYTES;

/// The VP8 clock (RFC 7741 section 4.1) in ticks a second; Opus has 48 kHz (RFC 7587 section 4.1).
const VIDEO_HZ: u128 = 90_000;
const AUDIO_HZ: u128 = 48_000;

/// One stream's fixed properties.
#[derive(Clone, Debug)]
pub(crate) struct StreamPlan {
    /// Whose it is: an index of the run's bots.
    pub(crate) publisher: usize,
    /// What it carries.
    pub(crate) kind: Kind,
    /// The size of its picture.
    pub(crate) width_px: u16,
    /// See `width_px`.
    pub(crate) height_px: u16,
    /// When its packets are due.
    pub(crate) schedule: Schedule,
    /// Shortest and longest payload; what lies between is drawn for each packet.
    pub(crate) payload_bytes: (usize, usize),
}

/// A packet to be sent, but for its RTP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Index of its stream.
    pub(crate) stream: usize,
    /// When it was due.
    pub(crate) due_ns: u64,
    /// RTP timestamp in the codec's clock.
    pub(crate) timestamp: u32,
    /// Whether it ends its frame (RFC 7741 section 4.1).
    pub(crate) marker: bool,
}

struct Stream {
    plan: StreamPlan,
    counter: u32,
    /// Of the frame that is being sent.
    is_key: bool,
    is_key_wanted: bool,
    random: u64,
}

/// All streams of a run, in the order in which their packets are due.
pub(crate) struct Sources {
    streams: Vec<Stream>,
    agenda: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Sources {
    /// Starts them; each first frame is a key frame.
    pub(crate) fn new(plans: Vec<StreamPlan>, seed: u64) -> Self {
        let stream = |(index, plan): (usize, StreamPlan)| {
            assert!(
                plan.payload_bytes.0 >= PAYLOAD_BYTES_MIN && plan.payload_bytes.0 <= plan.payload_bytes.1
            );
            let random = splitmix(seed ^ splitmix(index as u64));
            Stream { plan, counter: 0, is_key: false, is_key_wanted: true, random }
        };
        let streams: Vec<Stream> = plans.into_iter().enumerate().map(stream).collect();
        let agenda = streams
            .iter()
            .enumerate()
            .map(|(index, stream)| Reverse((stream.plan.schedule.due_ns(0), index)));
        Self { agenda: agenda.collect(), streams }
    }

    /// Moves the beginning of all streams by `start_ns`, before anything is sent.
    pub(crate) fn start(&mut self, start_ns: u64) {
        assert!(self.streams.iter().all(|stream| stream.counter == 0), "nothing was sent yet");
        for stream in &mut self.streams {
            stream.plan.schedule.start_ns += start_ns;
        }
        let all = self.streams.iter().enumerate();
        self.agenda = all.map(|(index, stream)| Reverse((stream.plan.schedule.due_ns(0), index))).collect();
    }

    /// When the next packet is due.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.agenda.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// The properties of a stream.
    pub(crate) fn plan(&self, stream: usize) -> &StreamPlan {
        &self.streams[stream].plan
    }

    /// Makes the next frame of a stream a key frame.
    pub(crate) fn ask_key_frame(&mut self, stream: usize) {
        self.streams[stream].is_key_wanted = true;
    }

    /// The next packet that is due by `now_ns`; its payload is appended to `payload`.
    pub(crate) fn poll_packet(&mut self, now_ns: u64, payload: &mut Vec<u8>) -> Option<Packet> {
        let Reverse((due_ns, index)) =
            *self.agenda.peek().filter(|Reverse((due_ns, _))| *due_ns <= now_ns)?;
        let stream = &mut self.streams[index];
        let packet = stream.write(index, due_ns, payload);
        stream.counter = stream.counter.wrapping_add(1);
        // In place of what was taken: one sift instead of two.
        if let Some(mut top) = self.agenda.peek_mut() {
            *top = Reverse((stream.plan.schedule.due_ns(stream.counter), index));
        }
        Some(packet)
    }
}

impl Stream {
    fn write(&mut self, index: usize, due_ns: u64, payload: &mut Vec<u8>) -> Packet {
        let start = payload.len();
        let place = self.plan.schedule.place(self.counter);
        let is_frame_start = place.packet == 0;
        if is_frame_start && self.plan.kind == Kind::Video {
            self.is_key = std::mem::take(&mut self.is_key_wanted);
        }
        let clock = match self.plan.kind {
            Kind::Audio => {
                payload.push(0x78); // CELT, 20 ms, mono, one frame
                AUDIO_HZ
            }
            Kind::Video => {
                self.write_vp8(place.frame, is_frame_start, payload);
                VIDEO_HZ
            }
        };
        self.random = splitmix(self.random);
        let (shortest, longest) = self.plan.payload_bytes;
        let bytes = shortest + (self.random % (longest - shortest + 1) as u64) as usize;
        payload.resize(start + bytes - STAMP_BYTES, 0x55);
        let is_key = self.is_key || self.plan.kind == Kind::Audio;
        let schedule = &self.plan.schedule;
        let is_frame_end = place.packet + 1 == schedule.packets_per_frame;
        let (stream, counter) = (index as u32, self.counter);
        payload.extend(Stamp { stream, counter, due_ns, is_key, is_frame_start, is_frame_end }.to_bytes());
        // The frame's own time: all packets of a frame share it, however they are paced.
        let ticks = u128::from(place.frame) * u128::from(schedule.per_ns) * clock
            / (u128::from(schedule.frames) * 1_000_000_000);
        Packet {
            stream: index,
            due_ns,
            timestamp: ticks as u32,
            marker: self.plan.kind == Kind::Video && is_frame_end,
        }
    }

    fn write_vp8(&self, frame: u32, is_start: bool, payload: &mut Vec<u8>) {
        let picture_id = (frame & 0x7fff) as u16;
        payload.extend([
            0x80 | if is_start { 0x10 } else { 0 }, // X, and S at the start of the partition
            0xc0,                                   // I and L: picture id and TL0PICIDX follow
            0x80 | (picture_id >> 8) as u8,
            picture_id as u8,
            frame as u8,
        ]);
        if is_start {
            // Frame tag (RFC 6386 section 9.1): P is 0 in a key frame, version 0, shown, a partition of 1,000 bytes.
            let tag = u32::from(!self.is_key) | 1 << 4 | 1_000 << 5;
            payload.extend(&tag.to_le_bytes()[..3]);
            if self.is_key {
                payload.extend([0x9d, 0x01, 0x2a]);
                payload.extend(self.plan.width_px.to_le_bytes());
                payload.extend(self.plan.height_px.to_le_bytes());
            }
        }
    }
}

/// The SplitMix64 generator: small, seeded, and good enough for sizes and phases.
pub(crate) fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Pace;
    use super::*;
    use asamblea_sfu_core::rtp::vp8;

    fn plan(pace: Pace, start_ns: u64) -> StreamPlan {
        StreamPlan {
            publisher: 0,
            kind: Kind::Video,
            width_px: 1280,
            height_px: 720,
            schedule: Schedule { start_ns, packets_per_frame: 4, frames: 25, per_ns: 1_000_000_000, pace },
            payload_bytes: (1_069, 1_070),
        }
    }

    fn packets(sources: &mut Sources, until_ns: u64) -> Vec<(Packet, Vec<u8>)> {
        let mut payload = Vec::new();
        std::iter::from_fn(|| {
            payload.clear();
            sources.poll_packet(until_ns, &mut payload).map(|packet| (packet, payload.clone()))
        })
        .collect()
    }

    #[test]
    fn packets_come_in_the_order_in_which_they_are_due() {
        let mut sources = Sources::new(vec![plan(Pace::Even, 0), plan(Pace::Burst, 3)], 1);
        assert_eq!(sources.next_due_ns(), Some(0));
        let sent = packets(&mut sources, 999_999_999);
        assert_eq!(sent.len(), 200);
        assert!(sent.is_sorted_by_key(|(packet, _)| packet.due_ns));
        assert!(sources.next_due_ns() > Some(999_999_999));
    }

    #[test]
    fn the_first_frame_is_a_key_frame_and_so_is_the_one_after_a_request() {
        let mut sources = Sources::new(vec![plan(Pace::Burst, 0)], 1);
        let keys = |sent: Vec<(Packet, Vec<u8>)>| -> Vec<bool> {
            sent.iter().map(|(_, payload)| Stamp::read(payload).unwrap().is_key).collect()
        };
        assert_eq!(keys(packets(&mut sources, 79_999_999)), [[true; 4], [false; 4]].concat());
        sources.ask_key_frame(0);
        assert_eq!(keys(packets(&mut sources, 159_999_999)), [[true; 4], [false; 4]].concat());
    }

    #[test]
    fn the_bridge_reads_descriptor_and_key_frames_as_meant() {
        let mut sources = Sources::new(vec![plan(Pace::Burst, 0)], 1);
        for (index, (packet, payload)) in packets(&mut sources, 79_999_999).iter().enumerate() {
            let descriptor = vp8::Descriptor::parse(payload).expect("a valid descriptor");
            assert_eq!(descriptor.is_key_frame, index == 0);
            assert_eq!(packet.marker, index % 4 == 3);
            assert_eq!(packet.timestamp, if index < 4 { 0 } else { 3_600 });
        }
    }

    #[test]
    fn sizes_stay_within_a_byte_and_both_occur() {
        let mut sources = Sources::new(vec![plan(Pace::Even, 0)], 7);
        let sizes: Vec<usize> = packets(&mut sources, 900_000_000).iter().map(|(_, p)| p.len()).collect();
        assert!(sizes.contains(&1_069) && sizes.contains(&1_070));
        assert!(sizes.iter().all(|size| (1_069..=1_070).contains(size)));
    }
}
