//! What publishers are to send: which layers, and how much of them. It follows from what is watched and from what the lines
//! of those who watch carry; decided at ticks, told when it is news.
//!
//! A layer is asked for at what the best line among those who wish for it could give it, so that nobody's line makes
//! anyone else's picture worse: who can carry all of it gets all of it, and then the others do with a smaller one.

use super::{PeerKey, Room, share::prices};
use crate::{
    bwe::allocate::Grant,
    down::slot::Slot,
    up::{Demand, LAYERS_MAX, LayerRef, SlotRef, UpStream},
};
use arrayvec::ArrayVec;
use asamblea_seam::{Event, UpKind, UpWanted};
use std::time::{Duration, Instant};

/// A layer that nobody has wanted for this long is said to be unwanted.
const UNWANTED_AFTER: Duration = Duration::from_secs(2);

/// Most layers that one slot has to do with: what it carries and is about to, what it wishes and what comes until then,
/// and what could be made to fit.
const LAYERS_OF_SLOT_MAX: usize = 5;

impl Room {
    /// Works out which layers anyone receives or waits for, and what their lines carry of them, and says so where it is
    /// news.
    pub(super) fn announce_wanted(&mut self, now: Instant) {
        let is_alone = self.keys.len() < 2 && !self.parts.is_linked();
        // What all are asked for depends on it, those who rest among them.
        if std::mem::replace(&mut self.was_alone, is_alone) != is_alone {
            self.peers.values_mut().for_each(|peer| peer.publisher.stir());
        }
        for peer in self.peers.values_mut().filter(|peer| !peer.publisher.is_at_rest()) {
            for up in peer.publisher.ups_mut() {
                up.wanted_now = [false; LAYERS_MAX];
                for place in 0..up.layers.len() {
                    let elsewhere_bps = up.told(place).and_then(|told| told.others_bps);
                    up.layers[place].demand = Demand::elsewhere(elsewhere_bps);
                }
            }
        }
        if self.parts.is_linked() {
            self.add_asked();
        }
        for place in 0..self.keys.len() {
            let key = self.keys[place];
            let Some(peer) = self.peers.get(key) else { continue };
            if peer.ease.is_on(now) {
                for carried in 0..peer.ease.carried().len() {
                    let Some((slot, layer)) = self.carried_with_ease(key, carried) else { break };
                    self.want(layer, Some(f64::INFINITY), SlotRef { peer: key, slot });
                }
                continue;
            }
            for slot in 0..self.slot_count(key) {
                let at = SlotRef { peer: key, slot: slot as u16 };
                for (layer, bps) in self.wanted_by(now, at) {
                    self.want(layer, bps, at);
                }
            }
        }
        for place in 0..self.keys.len() {
            self.tell_wanted(now, self.keys[place], is_alone);
        }
    }

    /// Notes that a slot has or waits for a layer, and what its line could give it.
    fn want(&mut self, layer: LayerRef, bps: Option<f64>, by: SlotRef) {
        let up = self.peers.get_mut(layer.peer).and_then(|peer| peer.publisher.up_mut(layer.kind));
        let place = usize::from(layer.layer);
        if let Some(up) = up.filter(|up| place < up.layers.len()) {
            up.wanted_now[place] = true;
            if let Some(bps) = bps {
                up.layers[place].demand.add(bps, by);
            }
        }
    }

    /// The layers that a slot has or waits for, and what its line could give each; `None` where that is not to matter.
    fn wanted_by(&self, now: Instant, at: SlotRef) -> ArrayVec<(LayerRef, Option<f64>), LAYERS_OF_SLOT_MAX> {
        let mut wanted = ArrayVec::new();
        let Some(peer) = self.peers.get(at.peer) else { return wanted };
        let slot = &peer.subscriber.slots[usize::from(at.slot)];
        let carried = [slot.current, slot.target].into_iter().flatten();
        let mut layers: ArrayVec<LayerRef, LAYERS_OF_SLOT_MAX> =
            carried.filter(|layer| !layer.kind.is_audio()).collect();
        let wished = self.wished_by(now, slot);
        if let Some((source, kind, ideal, stream)) = wished {
            let of = |layer| LayerRef { peer: source, kind, layer };
            if let Grant::Layer(limit) = slot.grant {
                let layer = ideal.min(limit);
                layers.push(of(layer));
                // Until the wished layer comes the next smaller one is wanted too, since it may never come.
                let is_live = stream.layers[usize::from(layer)].is_live;
                layers.extend(layer.checked_sub(1).filter(|_| !is_live).map(of));
            }
            // What could be made to fit has to come before anyone knows whether it does.
            let is_had = |layer| Grant::Layer(layer) <= slot.grant;
            let is_tried = |bps: f64| bps.is_finite();
            layers.extend(
                slot.offer.filter(|offer| !is_had(offer.layer) && is_tried(offer.bps)).map(|it| of(it.layer)),
            );
        }
        let is_found_out = peer.line.is_found_out(now);
        for layer in layers {
            let bps = match (slot.offer, wished) {
                (Some(offer), Some((source, kind, _, stream)))
                    if (source, kind) == (layer.peer, layer.kind) =>
                {
                    let is_asked = stream.is_capped(usize::from(offer.layer));
                    match layer.layer.cmp(&offer.layer) {
                        std::cmp::Ordering::Equal if is_found_out || is_asked => Some(offer.bps),
                        // It is on its way down from there.
                        std::cmp::Ordering::Greater => None,
                        _ => Some(f64::INFINITY),
                    }
                }
                _ => Some(f64::INFINITY),
            };
            wanted.push((layer, bps));
        }
        wanted
    }

    /// Whose picture a slot wishes for, and which layer its height asks for.
    fn wished_by(&self, now: Instant, slot: &Slot) -> Option<(PeerKey, UpKind, u8, &UpStream)> {
        let (up, height_px) = slot.wish.filter(|_| slot.is_open && !slot.is_audio)?;
        let source = *self.by_id.get(&up.peer)?;
        let stream = self.peers.get(source)?.publisher.up(up.kind)?;
        let prices = prices(now, stream, None);
        let ideal = stream.ideal_layer(height_px, |layer| prices[layer].is_some())?;
        Some((source, up.kind, ideal, stream))
    }

    /// Tells a publisher what is wanted of it, if that is news.
    fn tell_wanted(&mut self, now: Instant, key: PeerKey, is_alone: bool) {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.publisher.is_at_rest()) else { return };
        let mut is_news = false;
        for up in peer.publisher.ups_mut().filter(|up| !up.kind.is_audio()) {
            // The smallest goes on for whoever comes next: a face at once costs little.
            up.wanted_now[0] |= !is_alone;
            is_news |= up.settle_wanted(now, UNWANTED_AFTER);
            is_news |= up.settle_caps(now);
        }
        if is_news {
            let wanted = |up: &UpStream| UpWanted {
                kind: up.kind,
                layers: up.wanted[..up.layers.len()].to_vec(),
                bps_max: up.bps_max().collect(),
            };
            let ups = peer.publisher.ups_mut().filter(|up| !up.kind.is_audio());
            let ups = ups.map(|up| wanted(up)).collect();
            self.notes.push_back(Event::Wanted { peer: peer.id, ups });
        }
        peer.publisher.rest(is_alone);
    }
}
