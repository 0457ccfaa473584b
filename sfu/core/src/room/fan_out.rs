//! Who is handed a packet when: some subscribers, who are flushed before the next have their turn.
//!
//! In a large room it takes milliseconds until a packet has gone to all. To queue it for all of them before it goes to the
//! first has the first wait for the last, and looks at everyone's numbers twice, when they have left the cache
//! in between. So packets of one layer wait here, and [`Room::poll_dirty`] gives them to a few subscribers at a time.
//! What comes meanwhile goes to those who are still to come together with what waits, and to the others in a second round.
//!
//! Slots may come and go meanwhile: each slot of the round is handed each packet once, and decides by itself
//! whether that is for it.

use super::Room;
use crate::{
    down::{
        QUEUE_MAX,
        slot::{Forwarded, Verdict},
    },
    up::{LayerRef, SlotRef},
};
use asamblea_seam::{PeerId, Up};
use std::{collections::VecDeque, time::Instant};

/// How many packets are queued for slots before any of them is flushed. To do the two in turn for each packet costs more than is
/// gained, probably since either's code leaves the nearest cache.
const TOGETHER: usize = 64;

/// Many are about to be flushed if they are more than one in so many of those who receive a layer.
const MANY: usize = 8;

/// A packet on its way to the slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    pub(super) arrived_at: Instant,
    pub(super) packet: Forwarded,
    /// Who sent it.
    pub(super) from: PeerId,
    /// Whether it is sound that somebody would miss.
    pub(super) is_audible: bool,
}

/// Packets of one layer that wait for the slots whose turn has not come.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    source: Option<LayerRef>,
    /// Those who received the layer when its first packet came, in the order of their turns.
    round: Vec<SlotRef>,
    /// In order of arrival, each with the number of the turn before which it was not there.
    packets: VecDeque<(u64, Passing)>,
    /// Turns that have been.
    turns: u64,
    /// Whether somebody receives the layer who is not in the round.
    is_closed: bool,
}

impl FanOut {
    /// Whether a packet of this layer can join those that wait.
    fn is_open_to(&self, source: LayerRef) -> bool {
        self.source == Some(source) && !self.is_closed && self.packets.len() < QUEUE_MAX
    }

    /// Begins a round. Nothing may be waiting.
    fn begin(&mut self, source: LayerRef, round: &[SlotRef]) {
        (self.source, self.turns, self.is_closed) = (Some(source), 0, false);
        self.round.clear();
        self.round.extend_from_slice(round);
    }

    /// Whose turn it is; nobody's when nothing waits.
    fn turn(&self) -> Option<SlotRef> {
        (!self.packets.is_empty()).then(|| self.round[self.turns as usize % self.round.len()])
    }

    /// A turn has been: what has gone round is done with.
    fn end_turn(&mut self) {
        self.turns += 1;
        let has_gone_round = |since: u64| self.turns - since == self.round.len() as u64;
        while self.packets.front().is_some_and(|(since, _)| has_gone_round(*since)) {
            self.packets.pop_front();
        }
        if self.packets.is_empty() {
            self.source = None;
        }
    }

    /// Somebody receives a layer from now on: packets that come after this are for it, too.
    pub(super) fn close(&mut self, source: LayerRef) {
        self.is_closed |= self.source == Some(source);
    }

    /// A slot was given all that has come of a layer: what waits was among it, and must not be numbered again.
    pub(super) fn pass_over(&mut self, source: LayerRef, slot: SlotRef) {
        if self.source == Some(source) {
            self.is_closed = true;
            self.round.iter_mut().filter(|it| **it == slot).for_each(|it| it.peer = Default::default());
        }
    }
}

impl Room {
    /// Has a packet go to all slots that receive its layer.
    pub(super) fn hand_out(&mut self, source: LayerRef, passing: Passing) {
        if !self.fan_out.is_open_to(source) {
            self.finish_fan_out();
            let layer =
                self.peers.get(source.peer).and_then(|peer| peer.publisher.layer(source.kind, source.layer));
            let Some(layer) = layer.filter(|layer| !layer.subscribers.is_empty()) else { return };
            self.fan_out.begin(source, &layer.subscribers);
        }
        self.fan_out.packets.push_back((self.fan_out.turns, passing));
        // Where many are about to be flushed anyway, it goes to all at once, and in the same runs to those.
        if self.dirty.len() * MANY > self.fan_out.round.len() {
            self.finish_fan_out();
        }
    }

    fn finish_fan_out(&mut self) {
        while self.hand_on() {}
    }

    /// Hands what waits to the next few slots. False if nothing waits.
    pub(super) fn hand_on(&mut self) -> bool {
        let Some(turns) = TOGETHER.checked_div(self.fan_out.packets.len()) else { return false };
        for _ in 0..turns.max(1) {
            let Some(at) = self.fan_out.turn() else { break };
            let packets = std::mem::take(&mut self.fan_out.packets);
            for (_, passing) in &packets {
                self.hand(at, passing);
            }
            self.fan_out.packets = packets;
            self.fan_out.end_turn();
        }
        true
    }

    /// Queues a packet for a slot, if it is for it.
    fn hand(&mut self, at: SlotRef, passing: &Passing) {
        let Passing { arrived_at: now, ref packet, from, is_audible } = *passing;
        let source = packet.incoming.source;
        let Some(peer) = self.peers.get_mut(at.peer) else { return };
        let Some(slot) = peer.subscriber.slots.get_mut(usize::from(at.slot)) else { return };
        let queued = match slot.take(now, at.slot, packet) {
            Verdict::Send(queued) => queued,
            Verdict::Switch(queued, left) => {
                self.counters.switches += 1;
                let is_audio = slot.is_audio;
                if let Some(left) = left {
                    self.unsubscribe(left, at);
                }
                if !is_audio {
                    self.announce_slot(at, Some(Up { peer: from, kind: source.kind }));
                }
                queued
            }
            Verdict::AwaitKeyFrame => return self.want_key_frame(now, source),
            Verdict::Skip => return,
        };
        let Some(peer) = self.peers.get_mut(at.peer) else { return };
        self.queues.lend(&mut peer.subscriber);
        if !peer.subscriber.enqueue(queued) {
            self.counters.dropped_queue_full += 1;
            return;
        }
        if is_audible {
            self.counters.repeated += peer.subscriber.repeat_sound(now, &queued);
        }
        if !std::mem::replace(&mut peer.is_dirty, true) {
            self.dirty.push_back(at.peer);
        }
    }
}
