//! What a subscriber receives: slots, each one RTP stream for life, and a queue of references to packets.
//!
//! A slot decides which packets of its source go out and under which numbers. It holds no bytes and knows neither
//! other slots nor the room: who fills it is told to it.

pub mod queues;
pub mod redundancy;
pub mod resend;
pub mod rewrite;
pub mod slot;

use crate::{
    bwe::Downlink,
    rtp::{rtcp, sequence::Sequence, vp8},
    up::LayerRef,
};
use redundancy::Redundancy;
use resend::Budget;
use slot::Slot;
use std::time::{Duration, Instant};

/// Most packets queued for one subscriber between two flushes. A flush follows every batch received, so this is only
/// reached by a key frame in every slot at once; what lies beyond is lost and asked for again.
pub const QUEUE_MAX: usize = 1_024;

/// Most slots of one peer, closed ones included: twice the video slots of a view, to leave room for audio.
pub const SLOTS_MAX: usize = 2 * asamblea_seam::SLOTS_MAX;

/// Loss that receiver reports tell so soon after a queue is laid to it: they speak of the last five seconds and more
/// (RFC 3550 section 6.2).
const REPORTED_FOR: Duration = Duration::from_secs(6);

/// A packet to be sent: where its payload is kept, and its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    /// The slot it goes out on.
    pub slot: u16,
    /// Length of the payload in bytes.
    pub payload_bytes: u16,
    /// The marker bit.
    pub marker: bool,
    /// Whether the same packet was sent before, under the same number: then its bytes must be the same.
    pub is_repeat: bool,
    /// For a resend, the number it was first sent under.
    pub original: Option<u16>,
    /// Whose payload.
    pub source: LayerRef,
    /// Which.
    pub kept: Sequence,
    /// The number it goes out under.
    pub sequence: Sequence,
    /// The timestamp it goes out with.
    pub timestamp: u32,
    /// What is added to its VP8 descriptor's numbers.
    pub vp8_shift: vp8::Shift,
}

/// All that one peer receives.
#[derive(Debug, Default)]
pub struct Subscriber {
    /// Its slots, in the order of their first description. A slot keeps its place; one that is described no more is
    /// closed.
    pub slots: Vec<Slot>,
    /// What is to be sent at the next flush.
    pub queue: Vec<Queued>,
    /// What it may still ask for again.
    pub budget: Budget,
    /// How often its sound is sent.
    pub redundancy: Redundancy,
    /// What its line carries; `None` while it is not connected.
    pub line: Option<Box<Downlink>>,
    /// Padding to be sent at the next flush, in bytes.
    pub padding_bytes: usize,
    /// Whether a small packet is to be sent at the next flush that feedback can speak of.
    pub is_sounding: bool,
}

impl Queued {
    /// Whether it is of a picture.
    pub fn is_picture(&self) -> bool {
        !self.source.kind.is_audio()
    }
}

impl Subscriber {
    /// Queues a packet. False if the queue is full.
    pub fn enqueue(&mut self, packet: Queued) -> bool {
        let has_room = self.queue.len() < QUEUE_MAX;
        if has_room {
            self.queue.push(packet);
        }
        has_room
    }

    /// Queues what of a slot's sound is to go out once more along with a packet just queued. Returns how many.
    pub fn repeat_sound(&mut self, now: Instant, packet: &Queued) -> u64 {
        let Self { slots, queue, redundancy, .. } = self;
        let Some(slot) = slots.get_mut(usize::from(packet.slot)) else { return 0 };
        let mut count = 0;
        slot.trail.follow(now, packet, redundancy, |repeat| {
            let has_room = queue.len() < QUEUE_MAX;
            if has_room {
                queue.push(repeat);
                count += 1;
            }
            has_room
        });
        count
    }

    /// Forgets what a slot sent, so that nothing of it goes out again.
    pub fn forget_sound(&mut self, slot: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
            slot.trail.clear();
        }
        self.queue.retain(|queued| !(queued.is_repeat && queued.slot == slot));
    }

    /// Takes a report block. False if it is on none of its streams.
    pub fn hear_report(&mut self, now: Instant, block: &rtcp::Block) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_open && slot.has_ssrc(block.ssrc)) else {
            return false;
        };
        if slot.ssrc == block.ssrc {
            let (lost, packets) = slot.reported_loss(block.highest, block.fraction_lost);
            let is_crowded = self.line.as_ref().is_some_and(|line| line.is_crowded(now, REPORTED_FOR));
            if slot.is_audio {
                self.redundancy.hear_report(now, lost, packets, is_crowded);
            } else if !is_crowded {
                self.redundancy.set_loss(now, lost, packets);
            }
        }
        true
    }

    /// The open slot that sends under an SSRC.
    pub fn slot_of_ssrc(&mut self, ssrc: u32) -> Option<(u16, &mut Slot)> {
        let place = self.slots.iter().position(|slot| slot.is_open && slot.ssrc == ssrc)?;
        Some((place as u16, &mut self.slots[place]))
    }
}
