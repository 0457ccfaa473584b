//! A slot: one m-line of a subscriber, one SSRC for life, whatever it carries.
//!
//! Video changes its source or layer at the first packet of a key frame only. When the source changes, the old one
//! stops at once; when only the layer changes, the old one goes on until the new one's key frame.

use super::{
    Queued,
    redundancy::Trail,
    resend::Recent,
    rewrite::{Incoming, Rewriter},
};
use crate::{
    bwe::allocate::{Grant, Offer},
    negotiate::{ExtensionIds, SlotDescription},
    rtp::{Clock, header::Template, sequence::Sequence},
    up::{LAYERS_MAX, LayerRef},
};
use asamblea_seam::{Mid, Up};
use std::time::Instant;

/// What a slot made of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// To be sent.
    Send(Queued),
    /// To be sent, and the first of a new source or layer; the layer left behind, if there was one.
    Switch(Queued, Option<LayerRef>),
    /// The source began anew: nothing goes out until its next key frame.
    AwaitKeyFrame,
    /// Not for this slot now.
    Skip,
}

/// A packet as the room forwards it.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    /// Its numbers.
    pub incoming: Incoming,
    /// Its marker bit.
    pub marker: bool,
    /// Length of its payload in bytes.
    pub payload_bytes: u16,
    /// Whether a stream may begin with it: the first packet of a key frame, or any audio.
    pub is_entry: bool,
    /// For an entry, its timestamp on the clock of each layer of the same up, where the sender's reports tell.
    pub on_layer_clocks: [Option<u32>; LAYERS_MAX],
    /// For an entry that is replayed, the timestamp of the newest packet; see [`Rewriter::begin`].
    pub live_from: Option<u32>,
}

/// One slot.
#[derive(Debug)]
pub struct Slot {
    /// The m-line.
    pub mid: Mid,
    /// Opus if true, VP8 if not.
    pub is_audio: bool,
    /// The SSRC.
    pub ssrc: u32,
    /// The SSRC of retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Whether the latest description still has it.
    pub is_open: bool,
    /// The header of its packets.
    pub template: Template,
    /// The header of its retransmissions, if negotiated.
    pub rtx_template: Option<Template>,
    /// What its peer wishes to see in it (video only), and how tall.
    pub wish: Option<(Up, u16)>,
    /// What goes out now.
    pub current: Option<LayerRef>,
    /// What is to go out from its next key frame on.
    pub target: Option<LayerRef>,
    /// What its peer was told that it carries.
    pub announced: Option<Up>,
    /// Whether its peer was told that the picture is held back.
    pub is_paused: bool,
    /// What congestion control lets it carry.
    pub grant: Grant,
    /// What its peer's line could give a layer if that were made to fit; `None` where nothing is known of the line.
    pub offer: Option<Offer>,
    /// Whether its peer is yet to be told.
    pub is_changed: bool,
    /// Numbers before this one were given up and are not sent again.
    pub repairable_from: Sequence,
    /// Its numbers.
    pub rewriter: Rewriter,
    /// The next number of its retransmissions.
    pub rtx_next: Sequence,
    /// Its recent retransmissions.
    pub recent: Recent,
    /// Its recent sound.
    pub trail: Trail,
    /// The highest number its receiver has reported, roll-overs included.
    reported_highest: Option<u32>,
    /// The next number and the packets sent when it last reported.
    reported_sent: (u64, u32),
    /// Packets sent, modulo 2^32 as sender reports count.
    pub packets: u32,
    /// Payload bytes sent, modulo 2^32.
    pub octets: u32,
    /// Packets sent when its last sender report was written.
    pub reported_packets: u32,
}

impl Slot {
    /// A slot as described. `random` seeds its first numbers.
    pub fn new(description: &SlotDescription, extensions: &ExtensionIds, random: u64) -> Self {
        let mut slot = Self {
            mid: description.mid.clone(),
            is_audio: description.is_audio,
            ssrc: description.ssrc,
            rtx_ssrc: None,
            is_open: true,
            template: Template::new(0, 0, None, None),
            rtx_template: None,
            wish: None,
            current: None,
            target: None,
            announced: None,
            is_paused: false,
            grant: Grant::ALL,
            offer: None,
            is_changed: false,
            repairable_from: Sequence::default(),
            rewriter: Rewriter::new(Clock::Audio, 0, 0),
            rtx_next: Sequence::default(),
            recent: Recent::default(),
            trail: Trail::default(),
            reported_highest: None,
            reported_sent: (0, 0),
            packets: 0,
            octets: 0,
            reported_packets: 0,
        };
        slot.begin_anew(random);
        slot.describe(description, extensions);
        slot
    }

    /// Begins its streams anew, for a receiver with new keys. What it is to carry has to be pointed at again.
    pub fn begin_anew(&mut self, random: u64) {
        self.rewriter = Rewriter::new(self.clock(), random as u16, (random >> 16) as u32);
        self.rtx_next = Sequence((random >> 48) & 0x7fff);
        self.recent = Recent::default();
        self.repairable_from = Sequence::default();
        self.trail.clear();
        (self.reported_highest, self.reported_sent) = (None, (0, 0));
        (self.packets, self.octets, self.reported_packets) = (0, 0, 0);
    }

    /// Whether a description is of this slot: the m-line and its SSRC are the same.
    pub fn is_described_by(&self, description: &SlotDescription) -> bool {
        self.mid == description.mid && self.ssrc == description.ssrc && self.is_audio == description.is_audio
    }

    /// Takes the parts of a description that may change: payload types and extension ids.
    pub fn describe(&mut self, description: &SlotDescription, extensions: &ExtensionIds) {
        let mid = extensions.mid.map(|id| (id, description.mid.as_str().as_bytes()));
        let transport_cc = extensions.transport_cc.filter(|_| description.has_transport_cc);
        self.is_open = true;
        self.template = Template::new(self.ssrc, description.payload_type, mid, transport_cc);
        let rtx = description.rtx_ssrc.zip(description.rtx_payload_type);
        self.rtx_ssrc = rtx.map(|(ssrc, _)| ssrc);
        self.rtx_template =
            rtx.map(|(ssrc, payload_type)| Template::new(ssrc, payload_type, mid, transport_cc));
    }

    /// Whether packets of this slot, or their retransmissions, go out under this SSRC.
    pub fn has_ssrc(&self, ssrc: u32) -> bool {
        self.ssrc == ssrc || self.rtx_ssrc == Some(ssrc)
    }

    /// What a report on this slot says of its line alone: the loss (in 1/256) and of how many packets; 0 packets if it
    /// makes no sense. Numbers that never came here (gaps stay gaps) are taken off the loss.
    pub fn reported_loss(&mut self, highest: u32, fraction_lost: u8) -> (u8, u32) {
        let before = self.reported_highest.replace(highest);
        let packets = highest.wrapping_sub(before.unwrap_or(highest));
        let (next, sent) = (self.rewriter.next().0, self.packets);
        let (next_before, sent_before) = std::mem::replace(&mut self.reported_sent, (next, sent));
        if !(1..1 << 16).contains(&packets) {
            return (0, 0);
        }
        let numbers = next.saturating_sub(next_before);
        let sent = u64::from(sent.wrapping_sub(sent_before)).min(numbers);
        if numbers == 0 || sent == 0 {
            return (fraction_lost, packets);
        }
        // Of 256 numbers, how many were sent, and how many of those did not arrive.
        let sent = (sent * 256 / numbers).max(1);
        let lost = u64::from(fraction_lost).saturating_sub(256 - sent);
        ((lost * 256 / sent).min(255) as u8, packets)
    }

    /// The clock of its timestamps.
    pub fn clock(&self) -> Clock {
        if self.is_audio { Clock::Audio } else { Clock::Video }
    }

    /// Notes what it carries now and whether that is held back, to be told to its peer if it is news.
    pub fn announce(&mut self, up: Option<Up>, is_paused: bool) -> bool {
        let is_news = (self.announced, self.is_paused) != (up, is_paused);
        if is_news {
            (self.announced, self.is_paused) = (up, is_paused);
            self.is_changed = true;
        }
        is_news
    }

    /// What it was to send is given up: what it carries goes on from its next key frame, and what was numbered so far is
    /// not sent again. Returns the layer that it leaves for good, if one was to follow, and the one that has to make a
    /// key frame.
    pub fn begin_again(&mut self) -> (Option<LayerRef>, Option<LayerRef>) {
        self.repairable_from = self.rewriter.next();
        let current = self.current.take();
        let left = if self.target.is_some() { current } else { None };
        self.target = self.target.or(current);
        (left.filter(|left| Some(*left) != self.target), self.target)
    }

    /// Decides on a packet of a layer it is subscribed to. `place` is the slot's own among its peer's.
    pub fn take(&mut self, now: Instant, place: u16, packet: &Forwarded) -> Verdict {
        let source = packet.incoming.source;
        let is_switch = self.target == Some(source);
        if is_switch {
            if !packet.is_entry {
                return Verdict::Skip;
            }
            let sibling = self.current.filter(|old| old.peer == source.peer && old.kind == source.kind);
            let on_old_clock = sibling.and_then(|old| packet.on_layer_clocks[usize::from(old.layer)]);
            let rewritten = self.rewriter.begin(now, &packet.incoming, on_old_clock, packet.live_from);
            let left = self.current.replace(source);
            self.target = None;
            // Audio that begins after another's is a talk spurt (RFC 3551 section 4.1).
            let marker = packet.marker || self.is_audio;
            return Verdict::Switch(
                self.queued(place, packet, rewritten, marker),
                left.filter(|left| *left != source),
            );
        }
        if self.current != Some(source) {
            return Verdict::Skip;
        }
        if self.rewriter.segment().is_some_and(|segment| segment.epoch != packet.incoming.epoch) {
            self.current = None;
            self.target = Some(source);
            return match packet.is_entry {
                true => self.take(now, place, packet),
                false => Verdict::AwaitKeyFrame,
            };
        }
        match self.rewriter.continue_with(now, &packet.incoming) {
            Some(rewritten) => Verdict::Send(self.queued(place, packet, rewritten, packet.marker)),
            None => Verdict::Skip,
        }
    }

    fn queued(
        &mut self,
        place: u16,
        packet: &Forwarded,
        rewritten: super::rewrite::Rewritten,
        marker: bool,
    ) -> Queued {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::from(packet.payload_bytes));
        Queued {
            slot: place,
            payload_bytes: packet.payload_bytes,
            marker,
            is_repeat: false,
            original: None,
            source: packet.incoming.source,
            kept: packet.incoming.sequence,
            sequence: rewritten.sequence,
            timestamp: rewritten.timestamp,
            vp8_shift: rewritten.vp8_shift,
        }
    }
}
