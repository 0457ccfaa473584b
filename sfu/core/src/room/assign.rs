//! Which slot carries what: video by the peer's wish, audio by the ranking of microphones.
//!
//! Decisions only: packets begin to flow when the layer's next key frame (or, for audio, its next packet) comes.

use super::{PeerKey, Room, sooner};
use crate::{
    bwe::allocate::Grant,
    rtp::Clock,
    up::{LayerRef, SlotRef},
};
use arrayvec::ArrayVec;
use asamblea_seam::{PeerId, Up, UpKind};
use std::time::Instant;

impl Room {
    /// Looks again at every slot that wishes for something of this peer.
    pub(super) fn retarget_watchers(&mut self, now: Instant, id: PeerId) {
        for place in 0..self.keys.len() {
            let key = self.keys[place];
            for slot in 0..self.slot_count(key) {
                let Some(peer) = self.peers.get(key) else { break };
                if peer.subscriber.slots[slot].wish.is_some_and(|(up, _)| up.peer == id) {
                    self.retarget(now, SlotRef { peer: key, slot: slot as u16 });
                }
            }
        }
    }

    /// Looks again at every video slot of this peer.
    pub(super) fn retarget_slots(&mut self, now: Instant, key: PeerKey) {
        for slot in 0..self.slot_count(key) {
            let Some(peer) = self.peers.get(key) else { return };
            if !peer.subscriber.slots[slot].is_audio {
                self.retarget(now, SlotRef { peer: key, slot: slot as u16 });
            }
        }
    }

    pub(super) fn slot_count(&self, key: PeerKey) -> usize {
        self.peers.get(key).map_or(0, |peer| peer.subscriber.slots.len())
    }

    /// Decides what a video slot is to carry.
    pub(super) fn retarget(&mut self, now: Instant, at: SlotRef) {
        self.end_ease(at.peer);
        let Some(peer) = self.peers.get(at.peer) else { return };
        let is_connected = peer.is_connected;
        let slot = &peer.subscriber.slots[usize::from(at.slot)];
        let (current, target, grant) = (slot.current, slot.target, slot.grant);
        let wanted = slot.wish.filter(|_| slot.is_open).and_then(|(up, height_px)| {
            let key = *self.by_id.get(&up.peer)?;
            let stream = self.peers.get(key)?.publisher.up(up.kind).filter(|up| up.is_active)?;
            let layer = match grant {
                Grant::Paused => None,
                Grant::Layer(limit) => stream.choose_layer(height_px, limit),
            };
            Some((key, up, layer))
        });
        let Some((source, up, layer)) = wanted else {
            self.unsubscribe_all(at);
            self.announce_slot(at, None);
            if let Some(slot) = self.slot_mut(at) {
                slot.grant = Grant::ALL;
            }
            return;
        };
        let kind = up.kind;
        let is_of_up = |layer: LayerRef| layer.peer == source && layer.kind == kind;
        if !is_connected {
            return;
        }
        // Another source: the old one stops at once.
        if current.is_some_and(|current| !is_of_up(current)) || target.is_some_and(|target| !is_of_up(target))
        {
            self.unsubscribe_all(at);
        }
        if grant == Grant::Paused {
            self.unsubscribe_all(at);
            self.announce_paused(at, up);
            return;
        }
        let Some(layer) = layer else { return };
        let wanted = LayerRef { peer: source, kind, layer };
        let Some((current, target)) = self.slot_mut(at).map(|slot| (slot.current, slot.target)) else {
            return;
        };
        if target == Some(wanted) {
            return;
        }
        if let Some(target) = target {
            self.unsubscribe(target, at);
        }
        let is_reached = current == Some(wanted);
        if let Some(slot) = self.slot_mut(at) {
            slot.target = if is_reached { None } else { Some(wanted) };
        }
        if !is_reached {
            self.subscribe(wanted, at);
            let is_shown = self.replay(now, wanted, at);
            if !is_shown || !self.has_fresh_key_frame(now, wanted) {
                self.want_key_frame(now, wanted);
            }
        }
    }

    pub(super) fn slot_mut(&mut self, at: SlotRef) -> Option<&mut crate::down::slot::Slot> {
        self.peers.get_mut(at.peer)?.subscriber.slots.get_mut(usize::from(at.slot))
    }

    fn subscribe(&mut self, layer: LayerRef, slot: SlotRef) {
        if let Some(peer) = self.peers.get_mut(layer.peer)
            && let Some(it) = peer.publisher.layer_mut(layer.kind, layer.layer)
            && !it.subscribers.contains(&slot)
        {
            it.subscribers.push(slot);
            self.fan_out.close(layer);
            self.mark_unasked(layer.peer);
        }
    }

    pub(super) fn unsubscribe(&mut self, layer: LayerRef, slot: SlotRef) {
        if let Some(peer) = self.peers.get_mut(layer.peer)
            && let Some(it) = peer.publisher.layer_mut(layer.kind, layer.layer)
        {
            it.subscribers.retain(|other| *other != slot);
            self.mark_unasked(layer.peer);
        }
    }

    /// Stops whatever fills a slot or is about to.
    pub(super) fn unsubscribe_all(&mut self, at: SlotRef) {
        let Some(slot) = self.slot_mut(at) else { return };
        let left = [slot.current.take(), slot.target.take()];
        for layer in left.into_iter().flatten() {
            self.unsubscribe(layer, at);
        }
        if let Some(peer) = self.peers.get_mut(at.peer) {
            peer.subscriber.forget_sound(at.slot);
        }
    }

    /// A source is gone: the slot has nothing of it any more.
    pub(super) fn forget_source(&mut self, at: SlotRef, source: PeerKey) {
        if let Some(slot) = self.slot_mut(at) {
            slot.current = slot.current.filter(|layer| layer.peer != source);
            slot.target = slot.target.filter(|layer| layer.peer != source);
        }
        if let Some(peer) = self.peers.get_mut(at.peer) {
            peer.subscriber.forget_sound(at.slot);
        }
        // What the slot still has of other kinds of this source is found again by retargeting.
        if let Some(peer) = self.peers.get_mut(source) {
            for layer in peer.publisher.ups_mut().flat_map(|up| &mut up.layers) {
                layer.subscribers.retain(|other| *other != at);
            }
            self.mark_unasked(source);
        }
    }

    /// Empties all slots of a peer; what they were announced to carry stays.
    pub(super) fn close_subscriptions(&mut self, key: PeerKey) {
        for slot in 0..self.slot_count(key) {
            self.unsubscribe_all(SlotRef { peer: key, slot: slot as u16 });
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.subscriber.queue.clear();
        }
    }

    pub(super) fn announce_slot(&mut self, at: SlotRef, up: Option<Up>) {
        if self.slot_mut(at).is_some_and(|slot| slot.announce(up, false)) {
            self.mark_changed(at.peer);
        }
    }

    /// Puts a peer's microphone into the ranking, or takes it out.
    pub(super) fn refresh_microphone(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        if peer.publisher.up(UpKind::Microphone).is_some_and(|up| up.is_active) {
            self.speakers.add(key, peer.id);
        } else {
            self.speakers.remove(key);
        }
    }

    /// Gives everyone's audio slots to the first of the ranking, without their own. What a slot carries stays there
    /// while it is among them.
    pub(super) fn assign_audio(&mut self, now: Instant) {
        let heard = self.boundaries().iter().copied().max().unwrap_or(0);
        for (place, candidate) in self.speakers.order().iter().enumerate() {
            if let Some(peer) = self.peers.get_mut(candidate.key) {
                peer.is_heard = place < heard;
            }
        }
        for place in 0..self.keys.len() {
            self.assign_audio_of(now, self.keys[place]);
        }
    }

    fn assign_audio_of(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let is_connected = peer.is_connected;
        let mut free = ArrayVec::<u16, { crate::down::SLOTS_MAX }>::new();
        let mut filled = ArrayVec::<(u16, PeerKey), { crate::down::SLOTS_MAX }>::new();
        for (place, slot) in peer.subscriber.slots.iter().enumerate() {
            if slot.is_open && slot.is_audio {
                let announced = slot.announced.and_then(|up| self.by_id.get(&up.peer));
                match announced {
                    Some(source) => filled.push((place as u16, *source)),
                    None => free.push(place as u16),
                }
            }
        }
        let count = (free.len() + filled.len()).min(peer.voices_max);
        let is_wanted = |key: PeerKey, source: PeerKey, room: &Room| {
            room.speakers
                .order()
                .iter()
                .filter(|other| other.key != key)
                .take(count)
                .any(|other| other.key == source)
        };
        for (place, source) in &filled {
            let at = SlotRef { peer: key, slot: *place };
            if !is_wanted(key, *source, self) {
                free.push(*place);
            } else if is_connected {
                self.point_audio(now, at, *source);
            }
        }
        filled.retain(|(place, _)| !free.contains(place));
        free.sort_unstable();
        let mut free = free.into_iter();
        for rank in 0..self.speakers.order().len() {
            let Some(candidate) =
                self.speakers.order().iter().filter(|other| other.key != key).take(count).nth(rank)
            else {
                break;
            };
            let (source, id) = (candidate.key, candidate.id);
            if filled.iter().any(|(_, filled)| *filled == source) {
                continue;
            }
            let Some(place) = free.next() else { break };
            let at = SlotRef { peer: key, slot: place };
            self.unsubscribe_all(at);
            if is_connected {
                self.point_audio(now, at, source);
            }
            self.announce_slot(at, Some(Up { peer: id, kind: UpKind::Microphone }));
        }
        for place in free {
            let at = SlotRef { peer: key, slot: place };
            self.unsubscribe_all(at);
            self.announce_slot(at, None);
        }
    }

    /// Points an audio slot at a microphone; nothing changes if it points there.
    fn point_audio(&mut self, _now: Instant, at: SlotRef, source: PeerKey) {
        let wanted = LayerRef { peer: source, kind: UpKind::Microphone, layer: 0 };
        let Some(slot) = self.slot_mut(at) else { return };
        debug_assert_eq!(slot.clock(), Clock::Audio, "audio goes to audio slots");
        if slot.current == Some(wanted) || slot.target == Some(wanted) {
            return;
        }
        self.unsubscribe_all(at);
        if let Some(slot) = self.slot_mut(at) {
            slot.target = Some(wanted);
        }
        self.subscribe(wanted, at);
    }

    /// Asks a layer's publisher for a key frame, now or as soon as the gate opens.
    pub(super) fn want_key_frame(&mut self, now: Instant, at: LayerRef) {
        if at.kind.is_audio() {
            return;
        }
        self.counters.key_frames_wanted += 1;
        let Some(peer) = self.peers.get_mut(at.peer) else { return };
        let Some(layer) = peer.publisher.layer_mut(at.kind, at.layer) else { return };
        let is_time = layer.gate.want(now);
        if let Some(at) = layer.gate.asks_at() {
            sooner(&mut self.ask_at, at);
        }
        if !is_time {
            return;
        }
        if let Some(origin) = &peer.origin {
            self.parts.want_key_frame(origin.shard, peer.id, at);
            self.wake(now);
            return;
        }
        if let Some(ssrc) = layer.ssrc
            && peer.duties.picture_loss(ssrc)
        {
            self.counters.plis_sent += 1;
            self.mark_dirty(at.peer);
        }
        self.wake(now);
    }
}
