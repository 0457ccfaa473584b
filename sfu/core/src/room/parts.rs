//! A room on several shards: what each part tells the others of those who live on it, and what it asks of those who do not.
//!
//! Who publishes on another part is a peer here, without transport and slots: all that follows for slots, lines and
//! speakers is decided by the same code as for those who live here. This module keeps such peers true to what is told,
//! and tells and asks in turn. What goes out waits in a batch for each part; nothing waits for it.

use super::{PeerKey, Room, forward::Media};
use crate::{
    relay::{
        Ask, Batch, Carried, Envelope, FORGOTTEN_AFTER, Head, LayerAsk, LayerFacts, MemberFacts, TOLD_EVERY,
        UpFacts,
    },
    up::{Asked, Demand, Layer, LayerRef, UpStream, most, reception::SenderClock},
};
use asamblea_seam::{Event, PeerId, RoomId, UpKind};
use slotmap::Key;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Most people who live elsewhere: as many as a meeting can be told to have room for.
const ELSEWHERE_MAX: usize = 2_000;

/// Where a peer lives that does not live here.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) shard: u16,
    life: u64,
    told_at: Instant,
    /// What was last asked of each up, and when.
    asked: [Option<(Ask, Instant)>; UpKind::ALL.len()],
}

/// The other parts, as this one knows them.
#[derive(Debug)]
pub(super) struct Parts {
    room: RoomId,
    /// Differs from heart to heart.
    seed: u64,
    revision: u64,
    /// Whether what is said of the whole room is said here.
    is_lead: bool,
    links: Vec<Link>,
    /// Peers who live elsewhere.
    elsewhere: Vec<PeerKey>,
    /// Those who live here of whom there is something to tell.
    untold: Vec<PeerKey>,
    /// Those who live elsewhere of whom something else is to be asked.
    unasked: Vec<PeerKey>,
}

/// One other part.
#[derive(Debug)]
struct Link {
    shard: u16,
    out: Batch,
    /// What it was last told of those who live here, and when.
    told: BTreeMap<PeerId, (MemberFacts, Instant)>,
}

impl Parts {
    pub(super) fn new(room: RoomId, seed: u64) -> Self {
        Self {
            room,
            seed,
            revision: 0,
            is_lead: true,
            links: Vec::new(),
            elsewhere: Vec::new(),
            untold: Vec::new(),
            unasked: Vec::new(),
        }
    }

    /// Whether there are other parts.
    pub(super) fn is_linked(&self) -> bool {
        !self.links.is_empty()
    }

    /// Whether what is said of the whole room is said here.
    pub(super) fn is_lead(&self) -> bool {
        self.is_lead
    }

    pub(super) fn forget(&mut self, key: PeerKey) {
        for keys in [&mut self.elsewhere, &mut self.untold, &mut self.unasked] {
            keys.retain(|other| *other != key);
        }
    }

    /// Asks another part for a key frame. What is lost on the way is asked for again by the layer's gate.
    pub(super) fn want_key_frame(&mut self, shard: u16, peer: PeerId, at: LayerRef) {
        if let Some(link) = self.link(shard) {
            link.out.push(Envelope::KeyFrame { peer, kind: at.kind, layer: at.layer });
        }
    }

    fn link(&mut self, shard: u16) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.shard == shard)
    }
}

/// Taking in.
impl Room {
    /// Takes which shards carry the room's other parts, and whether this part speaks for the whole room. A word that is
    /// older than the last, by its revision, changes nothing.
    pub fn set_parts(&mut self, now: Instant, revision: u64, others: &[u16], is_lead: bool) {
        if revision <= self.parts.revision {
            return;
        }
        self.parts.revision = revision;
        let gone: Vec<u16> =
            self.parts.links.iter().map(|link| link.shard).filter(|shard| !others.contains(shard)).collect();
        self.parts.links.retain(|link| others.contains(&link.shard));
        gone.into_iter().for_each(|shard| self.end_part(now, shard));
        for &shard in others {
            if self.parts.link(shard).is_none() {
                let mut out = Batch::default();
                out.begin(self.id);
                out.push(Envelope::Hello);
                self.parts.links.push(Link { shard, out, told: BTreeMap::new() });
            }
        }
        self.tell_all();
        if is_lead && !std::mem::replace(&mut self.parts.is_lead, is_lead) {
            // What another part said last may not be what this one would say.
            let speakers = self.speakers.announced().to_vec();
            self.news.clear();
            self.news.push_back(Event::Speakers { room: self.id, speakers });
        }
        self.parts.is_lead = is_lead;
        self.wake(now);
    }

    /// Takes in that the part on a shard is gone, and all who live there with it. If it comes again it begins anew.
    pub fn end_part(&mut self, now: Instant, shard: u16) {
        if let Some(link) = self.parts.link(shard) {
            link.told.clear();
            link.out.begin(self.id);
        }
        let lived_there = |key: &PeerKey| self.origin(*key).is_some_and(|origin| origin.shard == shard);
        let gone: Vec<PeerKey> = self.parts.elsewhere.iter().copied().filter(lived_there).collect();
        for key in gone {
            self.remove(now, key);
        }
        for layer in self.layers_asked_for() {
            layer.asked.retain(|asked| asked.shard != shard);
        }
    }

    /// Takes what the part on another shard says. Of a shard that has no part of this room nothing is taken.
    pub fn handle_relay(&mut self, now: Instant, from: u16, batch: &Batch) {
        if self.parts.link(from).is_none() {
            self.counters.dropped_relay_unknown += batch.len() as u64;
            return;
        }
        for (envelope, payload) in batch.iter() {
            match envelope {
                Envelope::Packet(head) => self.take_relayed(now, from, head, payload),
                Envelope::Member(facts) => self.take_facts(now, from, facts),
                Envelope::Ask(ask) => self.take_ask(now, from, ask),
                Envelope::KeyFrame { peer, kind, layer } => {
                    if let Some(key) = self.living_here(*peer) {
                        self.want_key_frame(now, LayerRef { peer: key, kind: *kind, layer: *layer });
                    }
                }
                Envelope::Hello => {
                    if let Some(link) = self.parts.link(from) {
                        link.told.clear();
                    }
                    self.tell_all();
                }
            }
        }
    }

    fn take_relayed(&mut self, now: Instant, from: u16, head: &Head, payload: &[u8]) {
        let known = self.by_id.get(&head.peer).copied();
        let key = known.filter(|key| self.origin(*key).is_some_and(|origin| origin.shard == from));
        let up = key.and_then(|key| Some((key, self.peers.get_mut(key)?.publisher.up_mut(head.kind)?)));
        let Some((key, up)) = up.filter(|(_, up)| usize::from(head.layer) < up.layers.len()) else {
            self.counters.dropped_relay_unknown += 1;
            return;
        };
        if head.kind.is_audio() {
            up.level.follow_packet(head.loudness_256);
        }
        self.counters.relayed_in += 1;
        self.wake(now);
        let Head { epoch, sequence, timestamp, marker, .. } = *head;
        let at = LayerRef { peer: key, kind: head.kind, layer: head.layer };
        self.forward(now, at, &Media { epoch, sequence, timestamp, marker, payload });
    }

    fn take_facts(&mut self, now: Instant, from: u16, facts: &MemberFacts) {
        let id = facts.peer;
        let mut known = self.by_id.get(&id).copied();
        if let Some(key) = known {
            let Some(origin) = self.origin(key) else { return }; // who lives here is known better here
            let is_same = (origin.shard, origin.life) == (from, facts.life);
            if !is_same && facts.ups.is_empty() {
                return; // of an earlier stay
            }
            if !is_same || facts.ups.is_empty() {
                self.remove(now, key);
                known = None;
            }
        }
        if facts.ups.is_empty() {
            return;
        }
        let key = match known {
            Some(key) => key,
            None if self.parts.elsewhere.len() >= ELSEWHERE_MAX => return,
            None => {
                let (life, asked) = (facts.life, Default::default());
                let key = self.insert(id, Some(Box::new(Origin { shard: from, life, told_at: now, asked })));
                self.parts.elsewhere.push(key);
                key
            }
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(origin) = &mut peer.origin {
            origin.told_at = now;
        }
        peer.duties.clock_offset = facts.clock_offset;
        let was_speaking = peer.publisher.up(UpKind::Microphone).is_some_and(|up| up.level.is_speaking());
        let (mut has_changed, mut replaced) = (false, Vec::new());
        for kind in UpKind::ALL {
            let told = facts.ups.iter().find(|up| up.kind == kind);
            let retold = peer.publisher.retell(kind, told);
            has_changed |= retold.has_changed;
            replaced.extend(retold.replaced);
            let layers = peer.publisher.up_mut(kind).map(|up| &mut up.layers).into_iter().flatten();
            for (layer, told) in layers.zip(told.iter().flat_map(|up| &up.layers)) {
                let clock = |(ntp, rtp)| SenderClock { ntp, rtp, arrived_at: now };
                layer.reception.clock = told.clock.map(clock);
            }
        }
        let microphone = peer.publisher.up(UpKind::Microphone);
        let begins_to_speak = !was_speaking && microphone.is_some_and(|up| up.level.is_speaking());
        let has_to_be_ranked = !peer.is_heard && begins_to_speak;
        for slot in replaced.iter().flat_map(|up| &up.layers).flat_map(|layer| &layer.subscribers) {
            self.forget_source(*slot, key);
        }
        if has_changed {
            self.retarget_watchers(now, id);
            self.refresh_microphone(key);
            self.assign_audio(now);
            self.announce_speakers(now);
            self.wake(now);
        }
        if has_to_be_ranked {
            self.rank(now);
        }
    }

    fn take_ask(&mut self, now: Instant, from: u16, ask: &Ask) {
        let Some(key) = self.living_here(ask.peer).filter(|key| self.life_of(*key) == ask.life) else {
            return;
        };
        let up = self.peers.get_mut(key).and_then(|peer| peer.publisher.up_mut(ask.kind));
        let Some(up) = up.filter(|up| up.generation == ask.generation) else { return };
        for (layer, of_layer) in up.layers.iter_mut().zip(ask.layers) {
            layer.ask(Asked { shard: from, ask: of_layer, suffered: ask.suffered, at: now });
        }
        self.wake(now);
    }

    fn origin(&self, key: PeerKey) -> Option<&Origin> {
        self.peers.get(key)?.origin.as_deref()
    }

    fn living_here(&self, id: PeerId) -> Option<PeerKey> {
        let key = *self.by_id.get(&id)?;
        self.peers.get(key).filter(|peer| peer.origin.is_none()).map(|_| key)
    }

    /// A number for one stay of a peer on this heart.
    fn life_of(&self, key: PeerKey) -> u64 {
        self.parts.seed ^ key.data().as_ffi()
    }

    /// All layers of those who live here that other parts ask something of.
    fn layers_asked_for(&mut self) -> impl Iterator<Item = &mut Layer> {
        let ups = self.peers.values_mut().flat_map(|peer| peer.publisher.ups_mut());
        ups.flat_map(|up| &mut up.layers).filter(|layer| !layer.asked.is_empty())
    }
}

/// Giving out.
impl Room {
    /// Whether anything waits for other parts.
    pub fn has_relays(&self) -> bool {
        let Parts { links, untold, unasked, .. } = &self.parts;
        !links.is_empty()
            && (!untold.is_empty() || !unasked.is_empty() || links.iter().any(|link| !link.out.is_empty()))
    }

    /// Hands what waits for each other part to `carry`, with that part's shard.
    pub fn relay(&mut self, now: Instant, carry: &mut dyn FnMut(u16, Batch) -> Carried) {
        for key in std::mem::take(&mut self.parts.untold) {
            self.tell(now, key);
        }
        for key in std::mem::take(&mut self.parts.unasked) {
            self.ask(now, key);
        }
        for link in self.parts.links.iter_mut().filter(|link| !link.out.is_empty()) {
            link.out = match carry(link.shard, std::mem::take(&mut link.out)) {
                Carried::Refused(batch) => batch,
                Carried::Taken(mut empty) => {
                    empty.begin(self.parts.room);
                    empty
                }
            };
        }
    }

    /// Puts a packet into the batches of the parts that take its layer. Apart, so that rooms without parts do not carry it
    /// along on their way.
    #[cold]
    #[inline(never)]
    pub(super) fn relay_packet(&mut self, now: Instant, at: LayerRef, packet: &Media<'_>) {
        let Some(peer) = self.peers.get(at.peer) else { return };
        let Some(up) = peer.publisher.up(at.kind) else { return };
        let Some(layer) = up.layers.get(usize::from(at.layer)) else { return };
        let loudness_256 = if at.kind.is_audio() { up.level.loudness_256() } else { 0 };
        let Media { epoch, sequence, timestamp, marker, payload } = *packet;
        let of = (peer.id, at.kind, at.layer);
        let mut is_torn = false;
        for asked in layer.asked.iter().filter(|asked| asked.ask.is_taken) {
            let Some(link) = self.parts.link(asked.shard) else { continue };
            let head = Head::new(of, (marker, epoch, sequence, timestamp), loudness_256);
            if link.out.push_packet(head, payload) {
                self.counters.relayed_out += 1;
            } else {
                self.counters.dropped_relay_full += 1;
                is_torn = true;
            }
        }
        if is_torn {
            self.want_key_frame(now, at); // the gap is for a key frame to mend
        }
    }

    /// Notes that there is something to tell of one who lives here.
    pub(super) fn mark_untold(&mut self, key: PeerKey) {
        if self.parts.is_linked() && !self.parts.untold.contains(&key) {
            self.parts.untold.push(key);
        }
    }

    fn tell_all(&mut self) {
        if self.parts.is_linked() {
            self.parts.untold.clone_from(&self.keys);
        }
    }

    /// Notes that something else may be to be asked of a peer, if it lives elsewhere.
    pub(super) fn mark_unasked(&mut self, key: PeerKey) {
        if self.parts.is_linked() && self.origin(key).is_some() && !self.parts.unasked.contains(&key) {
            self.parts.unasked.push(key);
        }
    }

    /// Tells other parts that a peer lives here no more.
    pub(super) fn untell(&mut self, key: PeerKey) {
        let life = self.life_of(key);
        let Some(peer) = self.peers.get(key).filter(|peer| peer.origin.is_none()) else { return };
        for link in &mut self.parts.links {
            if link.told.remove(&peer.id).is_some() {
                let gone = MemberFacts { peer: peer.id, life, clock_offset: None, ups: Default::default() };
                link.out.push(Envelope::Member(Box::new(gone)));
            }
        }
    }

    /// Tells every other part what is known of one who lives here, where that is news or was told long ago.
    fn tell(&mut self, now: Instant, key: PeerKey) {
        for place in 0..self.parts.links.len() {
            let shard = self.parts.links[place].shard;
            let Some(facts) = self.facts_of(now, key, shard) else { return };
            let link = &mut self.parts.links[place];
            let is_known = match link.told.get(&facts.peer) {
                Some((told, at)) => *told == facts && now.saturating_duration_since(*at) < TOLD_EVERY,
                None => facts.ups.is_empty(),
            };
            if is_known || !link.out.push(Envelope::Member(Box::new(facts.clone()))) {
                continue;
            }
            if facts.ups.is_empty() {
                link.told.remove(&facts.peer);
            } else {
                link.told.insert(facts.peer, (facts, now));
            }
        }
    }

    /// What is known of one who lives here, as the part on a shard is to be told.
    fn facts_of(&self, now: Instant, key: PeerKey, shard: u16) -> Option<MemberFacts> {
        let peer = self.peers.get(key).filter(|peer| peer.origin.is_none())?;
        let ups = peer.publisher.ups().filter(|up| up.is_active).map(|up| facts_of_up(now, up, shard));
        Some(MemberFacts {
            peer: peer.id,
            life: self.life_of(key),
            clock_offset: peer.duties.clock_offset,
            ups: ups.collect(),
        })
    }

    /// Asks what is to be asked of one who lives elsewhere, where that is news or was asked long ago.
    fn ask(&mut self, now: Instant, key: PeerKey) {
        for kind in UpKind::ALL {
            let ask = self.ask_of(now, key, kind);
            let Some(origin) = self.peers.get_mut(key).and_then(|peer| peer.origin.as_mut()) else { return };
            let asked = &mut origin.asked[kind as usize];
            let Some(ask) = ask else {
                *asked = None;
                continue;
            };
            let is_known = match asked {
                Some((before, at)) => *before == ask && now.saturating_duration_since(*at) < TOLD_EVERY,
                None => ask.is_empty(),
            };
            if is_known {
                continue;
            }
            let Some(link) = self.parts.links.iter_mut().find(|link| link.shard == origin.shard) else {
                return;
            };
            if link.out.push(Envelope::Ask(Box::new(ask.clone()))) {
                *asked = Some((ask, now)).filter(|(ask, _)| !ask.is_empty());
            }
        }
    }

    fn ask_of(&self, now: Instant, key: PeerKey, kind: UpKind) -> Option<Ask> {
        let peer = self.peers.get(key)?;
        let life = peer.origin.as_ref()?.life;
        let up = peer.publisher.up(kind)?;
        let mut layers = [LayerAsk::default(); crate::up::LAYERS_MAX];
        for (place, (ask, layer)) in layers.iter_mut().zip(&up.layers).enumerate() {
            let is_taken = !layer.subscribers.is_empty();
            let is_wanted = is_taken || up.wanted_now[place];
            *ask = LayerAsk { is_taken, is_wanted, most_bps: layer.demand.here_bps() };
        }
        let suffered = match kind {
            UpKind::Microphone => up.layers.first().map_or(0, |layer| self.suffered_of(now, layer)),
            _ => 0,
        };
        Some(Ask { peer: peer.id, life, kind, generation: up.generation, layers, suffered })
    }

    /// Adds what other parts want of those who live here to what this one does, at a tick.
    pub(super) fn add_asked(&mut self) {
        for up in self.peers.values_mut().flat_map(|peer| peer.publisher.ups_mut()) {
            let UpStream { layers, wanted_now, .. } = up;
            for (layer, is_wanted) in layers.iter_mut().zip(wanted_now) {
                let Layer { asked, demand, .. } = layer;
                for asked in asked {
                    *is_wanted |= asked.ask.is_wanted;
                    demand.add_elsewhere(asked.ask.most_bps);
                }
            }
        }
    }

    /// What a tick does for parts: key frames still wanted of those who live elsewhere, what is no longer true, and what is
    /// to be told and asked again.
    pub(super) fn look_after_parts(&mut self, now: Instant) {
        if !self.parts.is_linked() {
            return;
        }
        let is_past = |at: Instant, after: Duration| now.saturating_duration_since(at) >= after;
        for place in (0..self.parts.elsewhere.len()).rev() {
            let key = self.parts.elsewhere[place];
            if self.origin(key).is_some_and(|origin| is_past(origin.told_at, FORGOTTEN_AFTER)) {
                self.remove(now, key);
            } else {
                self.look_after_elsewhere(now, key);
                self.mark_unasked(key);
            }
        }
        for layer in self.layers_asked_for() {
            layer.asked.retain(|asked| !is_past(asked.at, FORGOTTEN_AFTER));
        }
        self.tell_all();
    }

    fn look_after_elsewhere(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(shard) = peer.origin.as_ref().map(|origin| origin.shard) else { return };
        for up in peer.publisher.ups_mut() {
            let kind = up.kind;
            for (place, layer) in up.layers.iter_mut().enumerate() {
                layer.rest(now);
                if layer.gate.poll(now) {
                    let at = LayerRef { peer: key, kind, layer: place as u8 };
                    self.parts.want_key_frame(shard, peer.id, at);
                }
            }
        }
    }
}

fn facts_of_up(now: Instant, up: &UpStream, shard: u16) -> UpFacts {
    let layers = up.layers.iter().enumerate().map(|(place, layer)| {
        let others = layer.asked.iter().filter(|asked| asked.shard != shard);
        let elsewhere = others.fold(None, |bps, asked| most(bps, asked.ask.most_bps));
        let Layer { is_live, demand, reception, .. } = layer;
        LayerFacts {
            is_live: *is_live,
            may_come: up.may_come(now, place),
            is_missing: up.is_missing(place),
            is_trusted: up.is_trusted(now, place),
            is_capped: up.is_capped(place),
            price: up.price(now, place),
            others_bps: most(Demand::here_bps(demand), elsewhere),
            clock: reception.clock.map(|clock| (clock.ntp, clock.rtp)),
        }
    });
    UpFacts {
        kind: up.kind,
        generation: up.generation,
        height_px: up.height_px(),
        loudness_256: up.level.loudness_256(),
        is_speaking: up.level.is_speaking(),
        layers: layers.collect(),
    }
}
