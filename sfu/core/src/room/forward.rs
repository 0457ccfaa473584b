//! A packet's way in: placed by its SSRC, noted, kept once, and given to those who hand it on to every slot that its layer
//! fills (see [`super::fan_out`]).
//!
//! One table look-up and one copy of the payload a packet; then a few dozen bytes for each subscriber. Nothing
//! allocates once histories and queues have grown to their size.

use super::{PLIS_MAX, PeerKey, Room, fan_out::Passing, sooner};
use crate::{
    down::{rewrite::Incoming, slot::Forwarded},
    rtp::{PAYLOAD_BYTES_MAX, be16, header::Packet, red::Blocks, sequence::Sequence, vp8},
    up::{
        Binding, LAYERS_MAX, LayerRef, Unplaced, UpStream,
        reception::{Arrival, Patience, Repair},
    },
};
use arrayvec::ArrayVec;
use asamblea_seam::UpKind;
use std::time::{Duration, Instant};

/// What a packet costs a line besides its payload, bytes: RTP header with extensions, SRTP tag, UDP and IP headers.
pub(super) const PACKET_OVERHEAD_BYTES: usize = 68;

/// Least time between two rankings that packets trigger: one packet of Opus.
const RANK_INTERVAL: Duration = Duration::from_millis(20);

/// A packet as it is passed on, here and to other parts, wherever it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Media<'a> {
    pub(super) epoch: u32,
    pub(super) sequence: Sequence,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload: &'a [u8],
}

impl<'a> Media<'a> {
    fn new(epoch: u32, sequence: Sequence, packet: &Packet<'a>) -> Self {
        let Packet { timestamp, marker, payload, .. } = *packet;
        Self { epoch, sequence, timestamp, marker, payload }
    }
}

impl Room {
    /// Takes an RTP packet from a peer, decrypted and authenticated.
    pub fn handle_rtp(&mut self, now: Instant, key: PeerKey, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes).filter(|packet| packet.payload.len() <= PAYLOAD_BYTES_MAX)
        else {
            self.counters.dropped_malformed += 1;
            return;
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        let binding = match peer.publisher.place(&packet) {
            Ok(binding) => binding,
            Err(Unplaced::UnknownSsrc) => {
                self.counters.dropped_unknown_ssrc += 1;
                return;
            }
            Err(Unplaced::PayloadType) => {
                self.counters.dropped_payload_type += 1;
                return;
            }
        };
        peer.line.heard_at = Some(now);
        self.counters.packets_received += 1;
        self.counters.bytes_received += bytes.len() as u64;
        if let Some(number) = peer
            .publisher
            .extensions()
            .transport_cc
            .and_then(|id| packet.extensions.get(id))
            .and_then(|value| be16(value, 0))
        {
            peer.publisher.feedback.arrive(now, number);
            if peer.publisher.feedback.is_urgent() {
                self.mark_dirty(key);
            }
        }
        self.wake(now);
        if binding.is_rtx {
            self.counters.rtx_received += 1;
            // The original sequence number, then the original payload (RFC 4588 section 4); without either it is
            // padding, by which a browser probes.
            let Some(wire) = be16(packet.payload, 0) else { return };
            let original = Packet { sequence: wire, payload: &packet.payload[2..], ..packet };
            self.take(now, key, binding, &original);
        } else if binding.is_red {
            self.take_redundant(now, key, binding, &packet);
        } else {
            self.take(now, key, binding, &packet);
        }
    }

    /// Takes a packet with copies of earlier ones (RFC 2198): its own payload, then of the copies what is missing.
    fn take_redundant(&mut self, now: Instant, key: PeerKey, binding: Binding, packet: &Packet<'_>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(up) = peer.publisher.up(binding.kind) else { return };
        let Some(blocks) = Blocks::parse(packet.payload, up.payload_type()) else {
            self.counters.dropped_malformed += 1;
            return;
        };
        self.take(now, key, binding, &Packet { payload: blocks.primary, ..*packet });
        let binding = Binding { is_rtx: true, ..binding };
        for (behind, copy) in blocks.behind() {
            let wire = packet.sequence.wrapping_sub(behind);
            let layer =
                self.peers.get(key).and_then(|peer| peer.publisher.layer(binding.kind, binding.layer));
            if layer.is_some_and(|layer| layer.reception.is_missing(wire)) {
                self.counters.red_repaired += 1;
                let timestamp = packet.timestamp.wrapping_sub(u32::from(copy.earlier));
                let earlier =
                    Packet { marker: false, sequence: wire, timestamp, payload: copy.payload, ..*packet };
                self.take(now, key, binding, &earlier);
            }
        }
    }

    /// Takes a packet or one unwrapped from a retransmission.
    fn take(&mut self, now: Instant, key: PeerKey, binding: Binding, packet: &Packet<'_>) {
        let at = LayerRef { peer: key, kind: binding.kind, layer: binding.layer };
        let Some(peer) = self.peers.get_mut(key) else { return };
        let audio_level = peer.publisher.extensions().audio_level;
        let Some(up) = peer.publisher.up_mut(binding.kind) else { return };
        let (clock, is_active) = (up.clock(), up.is_active);
        let repair = up.repair();
        let Some(layer) = up.layers.get_mut(usize::from(binding.layer)) else { return };
        let repair = if is_active && layer.is_taken() { repair } else { Repair::None };
        let sequence = match layer.reception.arrive(now, packet.sequence, !binding.is_rtx, repair) {
            Arrival::New(sequence) => sequence,
            Arrival::Duplicate | Arrival::Suspicious => {
                self.counters.dropped_duplicate += 1;
                return;
            }
        };
        let elapsed = now.saturating_duration_since(self.began_at);
        layer.meter.add(elapsed.as_micros() as i64, packet.payload.len() + PACKET_OVERHEAD_BYTES);
        // What comes late says nothing about timing: it may have been sent again.
        if !binding.is_rtx && layer.reception.is_newest(sequence) {
            layer.reception.time(clock.ticks(elapsed), packet.timestamp);
        }
        if let Some(at) = layer.reception.ask_at() {
            sooner(&mut self.repair_at, at);
        }
        let epoch = layer.reception.epoch();
        let is_beyond_repair = layer.reception.take_beyond_repair();
        let is_newly_live = layer.hear(now);
        if !is_active {
            self.counters.dropped_inactive += 1;
            return;
        }
        let mut should_rank = false;
        if binding.kind.is_audio() {
            let was_speaking = up.level.is_speaking();
            up.level.hear(now, audio_level.and_then(|id| packet.extensions.get(id)));
            let is_speaking = up.level.is_speaking();
            should_rank = !peer.is_heard && is_speaking;
            if is_newly_live || is_speaking != was_speaking {
                self.mark_untold(key);
            }
        } else if is_newly_live {
            let id = peer.id;
            self.mark_untold(key);
            self.retarget_watchers(now, id);
        }
        if should_rank && self.ranked_at.is_none_or(|at| now.saturating_duration_since(at) >= RANK_INTERVAL) {
            self.rank(now);
        }
        self.forward(now, at, &Media::new(epoch, sequence, packet));
        if is_beyond_repair {
            self.want_key_frame(now, at);
        }
    }

    /// Keeps a packet and has it go to every slot that its layer fills.
    pub(super) fn forward(&mut self, now: Instant, at: LayerRef, packet: &Media<'_>) {
        let Some(peer) = self.peers.get_mut(at.peer) else { return };
        let from = peer.id;
        let Some(up) = peer.publisher.up_mut(at.kind) else { return };
        let descriptor = if at.kind.is_audio() { None } else { vp8::Descriptor::parse(packet.payload) };
        let is_key_frame = descriptor.is_some_and(|descriptor| descriptor.is_key_frame);
        let is_entry = at.kind.is_audio() || is_key_frame;
        let is_audible = at.kind.is_audio() && up.level.is_audible();
        let on_layer_clocks =
            if is_key_frame { on_layer_clocks(up, at.layer, packet.timestamp) } else { [None; LAYERS_MAX] };
        let Some(layer) = up.layers.get_mut(usize::from(at.layer)) else { return };
        if is_key_frame {
            layer.gate.satisfy();
            layer.reception.forgive_before(packet.sequence);
        }
        let is_asked_elsewhere = !layer.asked.is_empty();
        if layer.subscribers.is_empty() {
            if is_asked_elsewhere {
                self.relay_packet(now, at, packet);
            }
            return;
        }
        layer.history.push(now, packet.sequence, packet.timestamp, packet.marker, packet.payload);
        if is_key_frame {
            layer.note_entry(packet.sequence, packet.timestamp);
        }
        let forwarded = Forwarded {
            incoming: Incoming {
                source: at,
                epoch: packet.epoch,
                sequence: packet.sequence,
                timestamp: packet.timestamp,
                descriptor,
            },
            marker: packet.marker,
            payload_bytes: packet.payload.len() as u16,
            is_entry,
            on_layer_clocks,
            live_from: None,
        };
        self.hand_out(at, Passing { arrived_at: now, packet: forwarded, from, is_audible });
        if is_asked_elsewhere {
            self.relay_packet(now, at, packet);
        }
    }

    /// What a tick does for one peer: layers that died, key frames nobody wants any more, memory nobody needs, feedback due.
    pub(super) fn look_after(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        let elapsed_us = now.saturating_duration_since(self.began_at).as_micros() as i64;
        let mut has_died = false;
        peer.publisher.feedback.take_turn();
        let is_due = peer.publisher.feedback.is_due();
        for up in peer.publisher.ups_mut() {
            if up.kind == UpKind::Microphone {
                up.level.fade(now);
            }
            for layer in &mut up.layers {
                has_died |= layer.expire(now);
                if layer.is_live
                    && let Some(bps) = layer.meter.bps(elapsed_us)
                {
                    layer.measure(now, bps);
                }
                layer.rest(now);
            }
        }
        if is_due {
            self.mark_dirty(key);
        }
        if has_died {
            self.retarget_watchers(now, id);
        }
    }

    /// Asks for the key frames that are still wanted and may be asked for (again) by now.
    pub(super) fn ask_key_frames(&mut self, now: Instant) {
        self.ask_at = None;
        for place in 0..self.keys.len() {
            let key = self.keys[place];
            // Of one at rest nothing is wanted, and to look would end the rest.
            let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.publisher.is_at_rest()) else {
                continue;
            };
            let mut is_due = false;
            for layer in peer.publisher.ups_mut().flat_map(|up| &mut up.layers) {
                if layer.gate.poll(now)
                    && let Some(ssrc) = layer.ssrc
                    && peer.duties.picture_loss(ssrc)
                {
                    self.counters.plis_sent += 1;
                    is_due = true;
                }
                if let Some(at) = layer.gate.asks_at() {
                    sooner(&mut self.ask_at, at);
                }
            }
            if is_due {
                self.mark_dirty(key);
            }
        }
    }

    /// Marks the publishers whose missing packets are to be asked for.
    pub(super) fn repair(&mut self, now: Instant) {
        self.repair_at = None;
        for place in 0..self.keys.len() {
            let key = self.keys[place];
            let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.publisher.is_at_rest()) else {
                continue;
            };
            let mut is_due = false;
            let mut beyond_repair = ArrayVec::<LayerRef, PLIS_MAX>::new();
            for up in peer.publisher.ups_mut() {
                let kind = up.kind;
                let patience = Patience::new(peer.duties.round_trip, kind.is_audio());
                for (place, layer) in up.layers.iter_mut().enumerate() {
                    let Some(ssrc) = layer.ssrc else { continue };
                    if layer.reception.ask_at().is_some_and(|at| now >= at) {
                        let missing = layer.reception.take_missing(now, patience);
                        self.counters.nacks_sent += missing.len() as u64;
                        is_due |= peer.duties.ask_again(ssrc, &missing);
                    }
                    if layer.reception.take_beyond_repair() {
                        let _ = beyond_repair.try_push(LayerRef { peer: key, kind, layer: place as u8 });
                    }
                    if let Some(at) = layer.reception.ask_at() {
                        sooner(&mut self.repair_at, at);
                    }
                }
            }
            if is_due {
                self.mark_dirty(key);
            }
            for layer in beyond_repair {
                self.want_key_frame(now, layer);
            }
        }
    }
}

/// A timestamp of one layer on the clocks of all layers of its up, where the sender's reports tell: their wall clock
/// is the same.
fn on_layer_clocks(up: &UpStream, layer: u8, timestamp: u32) -> [Option<u32>; LAYERS_MAX] {
    let hz = up.clock().hz();
    let mut clocks = [None; LAYERS_MAX];
    let Some(own) = up.layers.get(usize::from(layer)).and_then(|layer| layer.reception.clock) else {
        return clocks;
    };
    let ntp = own.ntp_of(timestamp, hz);
    for (clock, layer) in clocks.iter_mut().zip(&up.layers) {
        *clock = layer.reception.clock.map(|clock| clock.timestamp_of(ntp, hz));
    }
    clocks
}
