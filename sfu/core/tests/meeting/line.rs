//! A person's way down: a queue of bounded length, and feedback on what came out of it.

use super::{Meeting, Seen, TRANSPORT_CC, rtcp};
use asamblea_sfu_core::rtp::{header::Packet, rtcp_write::FeedbackHead};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// SRTP tag, UDP and IP headers.
pub const OVERHEAD_BYTES: usize = 16 + 8 + 20;

/// What does not get out within this time is lost.
pub const QUEUE: Duration = Duration::from_millis(300);

/// The way of the line besides its queue.
pub const DELAY: Duration = Duration::from_millis(20);

/// The listener's way down.
pub struct Line {
    pub start: Instant,
    pub bps: u64,
    /// How much longer the way is than [`DELAY`].
    pub detour: Duration,
    /// The listener's machine is busy and takes in what arrived at intervals of this length.
    pub clump: Duration,
    /// For how long it takes in nothing every four seconds.
    pub pause: Duration,
    /// So many packets of a hundred are lost.
    pub lost_percent: u64,
    random: u64,
    /// What comes to its beginning: packets of each layer's frame, of 65, 133 and 200 kbit/s on the line.
    pub layers: [u8; 3],
    free_at: Instant,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// Transport-wide numbers, unwrapped, and when each arrived.
    arrived: Vec<(u16, Instant)>,
    reported: Option<u16>,
    count: u8,
    pub seen: Vec<Out>,
}

/// A packet that was sent to the listener.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    pub at: Instant,
    pub bytes: usize,
    pub is_numbered: bool,
    pub is_sound: bool,
    /// Of the picture, if it is of one.
    pub layer: Option<u8>,
    /// When it got through.
    pub arrives: Option<Instant>,
}

impl Line {
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            bps: 5_000_000,
            detour: Duration::ZERO,
            clump: Duration::ZERO,
            pause: Duration::ZERO,
            lost_percent: 0,
            random: 1,
            layers: [1, 3, 6],
            free_at: start,
            under_way: VecDeque::new(),
            arrived: Vec::new(),
            reported: None,
            count: 0,
            seen: Vec::new(),
        }
    }

    fn put(&mut self, now: Instant, packet: Vec<u8>) {
        let bytes = packet.len() + OVERHEAD_BYTES;
        let begins = self.free_at.max(now);
        let has_room = begins - now <= QUEUE;
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let is_lost = (self.random >> 33) % 100 < self.lost_percent;
        if has_room {
            self.free_at = begins + Duration::from_micros(bytes as u64 * 8_000_000 / self.bps);
            if !is_lost {
                self.under_way.push_back((self.free_at + DELAY + self.detour, packet.clone()));
            }
        }
        let layer = Packet::parse(&packet)
            .filter(|parsed| parsed.payload_type == 120)
            .map(|_| Seen::read(&packet).layer);
        let packet = Packet::parse(&packet).expect("we send RTP");
        self.seen.push(Out {
            layer,
            at: now,
            bytes,
            is_numbered: packet.extensions.get(TRANSPORT_CC).is_some(),
            is_sound: packet.payload_type == 109,
            arrives: (has_room && !is_lost).then_some(self.free_at + DELAY + self.detour),
        });
    }

    /// When the listener's machine reads what arrived at a moment.
    fn read_at(&self, at: Instant) -> Instant {
        let clump_us = self.clump.as_micros().max(1) as u64;
        let read_us = ((at - self.start).as_micros() as u64).div_ceil(clump_us) * clump_us;
        let left_us = (self.pause.as_micros() as u64).saturating_sub(read_us % 4_000_000);
        self.start + Duration::from_micros(read_us + left_us)
    }

    fn take(&mut self, now: Instant) {
        while let Some((at, _)) = self.under_way.front() {
            let read_at = self.read_at(*at);
            if read_at > now {
                break;
            }
            let (_, packet) = self.under_way.pop_front().expect("seen");
            let packet = Packet::parse(&packet).expect("we send RTP");
            if let Some(number) = packet.extensions.get(TRANSPORT_CC) {
                self.arrived.push((u16::from_be_bytes([number[0], number[1]]), read_at));
            }
        }
    }

    /// Feedback on what arrived since the last, in the order of sending (nothing overtakes here).
    fn feedback(&mut self) -> Option<Vec<u8>> {
        let (last, _) = *self.arrived.last()?;
        let base = self.reported.map_or(self.arrived[0].0, |last| last.wrapping_add(1));
        self.reported = Some(last);
        let ticks = |at: Instant| ((at - self.start).as_micros() / 250) as i64;
        let reference = ticks(self.arrived[0].1) / 256;
        let mut statuses = vec![None; usize::from(last.wrapping_sub(base)) + 1];
        for (number, at) in self.arrived.drain(..) {
            statuses[usize::from(number.wrapping_sub(base))] = Some(ticks(at) - reference * 256);
        }
        let head =
            FeedbackHead { ssrc: 1, media_ssrc: 2, base, reference: reference as u32, count: self.count };
        self.count = self.count.wrapping_add(1);
        Some(rtcp(|writer| assert!(writer.transport_feedback(head, &statuses))))
    }

    /// Carries what a person was sent, and hands in feedback where it is due.
    pub fn carry(&mut self, meeting: &mut Meeting, person: usize, is_feedback_due: bool) {
        let now = meeting.now;
        for packet in std::mem::take(&mut meeting.people[person].received) {
            self.put(now, packet);
        }
        self.take(now);
        if is_feedback_due && let Some(feedback) = self.feedback() {
            meeting.hand_in_rtcp(person, &feedback);
        }
    }

    pub fn since(&self, from: Instant) -> impl Iterator<Item = &Out> {
        self.seen.iter().filter(move |out| out.at >= from)
    }
}
