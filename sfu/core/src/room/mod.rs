//! One meeting: who is in it, who sends what, who receives what.
//!
//! The packet path is [`Room::handle_rtp`] (where a packet is placed and kept once, see [`forward`]), then
//! [`Room::poll_dirty`] (where it is queued for a few at a time of the slots that its layer fills, see [`fan_out`]), then
//! [`Room::flush`] (where a subscriber's queue becomes packets, see [`flush`]).
//! Control comes in through the other `handle` verbs; which slot carries what is decided in [`assign`].
//!
//! A room seals nothing, opens nothing and knows no address. Mutate, then drain: after any number of `handle` calls,
//! flush what [`Room::poll_dirty`] names, take what [`Room::poll_event`] gives, and come back at
//! [`Room::poll_timeout`].

mod assign;
mod beat;
mod ease;
mod fan_out;
mod flush;
mod forward;
mod parts;
mod replay;
mod reports;
mod share;
pub mod speakers;
mod wanted;

pub use crate::rtp::time::WallClock;

use crate::{
    bwe::{
        Downlink,
        allocate::{Grant, Hysteresis},
    },
    down::{SLOTS_MAX, Subscriber, queues::SpareQueues, slot::Slot},
    negotiate::MediaDescription,
    stats::RoomCounters,
    up::{Publisher, SlotRef},
};
use arrayvec::ArrayVec;
use asamblea_seam::{Event, PeerId, RoomId, SlotState, SlotWish, UpKind, UpState};
use beat::{BEAT, Beat};
use parts::Parts;
use slotmap::SlotMap;
use speakers::Speakers;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

slotmap::new_key_type! {
    /// A peer's place in its room. Unique for the room's life.
    pub struct PeerKey;
}

/// How often the room looks after what no packet triggers: liveness, feedback,
/// speakers. Feedback to senders is the most urgent of these (50 to 200 ms is usual).
pub const TICK: Duration = Duration::from_millis(100);

/// Ticks between two reports of one peer: RTCP reports come once a second; peers take turns.
const TICKS_PER_REPORT: u64 = 10;

/// Without any packet for this long the room sleeps until the next one.
const SLEEP_AFTER: Duration = Duration::from_secs(3);

/// Most picture loss indications for one publisher between two flushes: one a layer.
const PLIS_MAX: usize = 8;

/// Numbers of audio slots, the largest first.
type Boundaries = ArrayVec<usize, 4>;

/// Has something due at this moment too: what is due at all is the first of them.
fn sooner(due_at: &mut Option<Instant>, at: Instant) {
    *due_at = Some(due_at.map_or(at, |other| other.min(at)));
}

/// What a room is told once.
#[derive(Clone, Copy, Debug)]
pub struct RoomConfig {
    /// The wall clock.
    pub wall_clock: WallClock,
    /// Whether packets of one frame that are one byte shorter than its longest are padded to the same length, so that
    /// one GSO send carries more of them.
    pub pad_runs: bool,
    /// The ceiling given to each publisher (REMB), in bit/s. Here congestion control will put its estimate.
    pub upstream_bps_max: u64,
}

impl RoomConfig {
    /// Three camera layers of a browser, 720 lines tall, need about 2.5 Mbit/s; the rest is for a shared screen.
    pub const UPSTREAM_BPS_MAX: u64 = 3_000_000;

    /// The usual configuration.
    pub fn new(wall_clock: WallClock) -> Self {
        Self { wall_clock, pad_runs: true, upstream_bps_max: Self::UPSTREAM_BPS_MAX }
    }
}

/// One participant.
#[derive(Debug)]
pub(crate) struct Peer {
    id: PeerId,
    is_connected: bool,
    is_dirty: bool,
    /// Whether a slot's announcement waits in the event queue.
    has_changed_slots: bool,
    /// Whether its microphone is among those that are heard.
    is_heard: bool,
    publisher: Publisher,
    subscriber: Subscriber,
    duties: reports::Duties,
    line: share::Judgement,
    /// Until when its line needs no looking after.
    ease: ease::Ease,
    /// When its pictures may be granted more.
    hysteresis: Hysteresis,
    /// Most voices that its line carries.
    voices_max: usize,
    /// Until when the rest of its queue waits.
    held_until: Option<Instant>,
    /// When it has to hear something again.
    beat: Beat,
    /// Where it lives, if that is on another part: then it has no transport and no slots here.
    origin: Option<Box<parts::Origin>>,
}

/// One meeting.
#[derive(Debug)]
pub struct Room {
    id: RoomId,
    config: RoomConfig,
    began_at: Instant,
    random: u64,
    canonical_name: [u8; 16],
    peers: SlotMap<PeerKey, Peer>,
    /// Those who live here, in order of arrival.
    keys: Vec<PeerKey>,
    by_id: BTreeMap<PeerId, PeerKey>,
    speakers: Speakers,
    ranked_at: Option<Instant>,
    /// See [`Room::boundaries`]; `None` when it has to be found anew.
    boundaries: Option<Boundaries>,
    dirty: VecDeque<PeerKey>,
    fan_out: fan_out::FanOut,
    queues: SpareQueues,
    changed: VecDeque<PeerKey>,
    news: VecDeque<Event>,
    notes: VecDeque<Event>,
    release_at: Option<Instant>,
    tick_at: Option<Instant>,
    ticks: u64,
    repair_at: Option<Instant>,
    /// When the first key frame that is wanted is to be asked for (again).
    ask_at: Option<Instant>,
    heard_at: Option<Instant>,
    /// Whether there was anyone to see anyone at the last tick.
    was_alone: bool,
    shown: share::Shown,
    parts: Parts,
    counters: RoomCounters,
}

impl Room {
    /// An empty room. `seed` is where its SSRCs, sequence numbers and timestamps begin from: the same seed and the
    /// same input give the same output.
    pub fn new(now: Instant, id: RoomId, seed: u64, config: RoomConfig) -> Self {
        let mut room = Self {
            id,
            config,
            began_at: now,
            random: seed,
            canonical_name: [0; 16],
            peers: SlotMap::with_key(),
            keys: Vec::new(),
            by_id: BTreeMap::new(),
            speakers: Speakers::default(),
            ranked_at: None,
            boundaries: None,
            dirty: VecDeque::new(),
            fan_out: fan_out::FanOut::default(),
            queues: SpareQueues::default(),
            changed: VecDeque::new(),
            news: VecDeque::new(),
            notes: VecDeque::new(),
            release_at: None,
            tick_at: None,
            ticks: 0,
            repair_at: None,
            ask_at: None,
            heard_at: None,
            was_alone: true,
            shown: share::Shown::default(),
            parts: Parts::new(id, seed),
            counters: RoomCounters::default(),
        };
        let name = u128::from(room.random()) << 64 | u128::from(room.random());
        for (place, byte) in room.canonical_name.iter_mut().enumerate() {
            *byte = b"abcdefghijklmnopqrstuvwxyz234567"[(name >> (place * 5) & 31) as usize];
        }
        room
    }

    /// The room's id.
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// Whether nobody lives here.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The peers who live here, in order of arrival.
    pub fn peers(&self) -> impl Iterator<Item = (PeerKey, PeerId)> + '_ {
        self.keys.iter().filter_map(|key| Some((*key, self.peers.get(*key)?.id)))
    }

    /// What the room has done since it began.
    pub fn counters(&self) -> &RoomCounters {
        &self.counters
    }

    /// Memory held for packet histories and queues, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.peers
            .values()
            .map(|peer| {
                peer.publisher.history_bytes()
                    + peer.subscriber.queue.capacity() * size_of::<crate::down::Queued>()
                    + peer.subscriber.slots.capacity() * size_of::<Slot>()
            })
            .sum::<usize>()
            + self.queues.memory_bytes()
    }

    /// SplitMix64: spreads the seed; nothing secret depends on it.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Lets a peer in. A peer that is in already keeps its place.
    pub fn join(&mut self, now: Instant, id: PeerId) -> PeerKey {
        if let Some(key) = self.by_id.get(&id).copied() {
            let lives_elsewhere = self.peers.get(key).is_some_and(|peer| peer.origin.is_some());
            if !lives_elsewhere {
                return key;
            }
            self.remove(now, key);
        }
        let key = self.insert(id, None);
        self.keys.push(key);
        self.retarget_watchers(now, id);
        key
    }

    fn insert(&mut self, id: PeerId, origin: Option<Box<parts::Origin>>) -> PeerKey {
        let ssrc = (self.random() as u32).max(1);
        let key = self.peers.insert(Peer {
            id,
            is_connected: false,
            is_dirty: false,
            has_changed_slots: false,
            is_heard: false,
            publisher: Publisher::default(),
            subscriber: Subscriber::default(),
            duties: reports::Duties::new(ssrc),
            line: share::Judgement::default(),
            ease: ease::Ease::default(),
            hysteresis: Hysteresis::default(),
            voices_max: usize::MAX,
            held_until: None,
            beat: Beat::default(),
            origin,
        });
        self.by_id.insert(id, key);
        key
    }

    /// Lets a peer go. Slots that showed it are empty at once.
    pub fn leave(&mut self, now: Instant, key: PeerKey) {
        self.close_subscriptions(key);
        self.untell(key);
        self.remove(now, key);
    }

    /// Takes a peer out, wherever it lives.
    fn remove(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.remove(key) else { return };
        self.keys.retain(|other| *other != key);
        self.by_id.remove(&peer.id);
        self.parts.forget(key);
        self.speakers.remove(key);
        self.retarget_watchers(now, peer.id);
        self.boundaries = None;
        self.assign_audio(now);
        self.announce_speakers(now);
    }

    /// Takes a peer's description; one that says the same again changes nothing.
    pub fn describe(&mut self, now: Instant, key: PeerKey, description: &MediaDescription) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        let replaced = peer.publisher.describe(description.extensions, &description.ups);
        for slot in replaced.iter().flat_map(|up| &up.layers).flat_map(|layer| &layer.subscribers) {
            self.forget_source(*slot, key);
        }
        self.describe_slots(key, description);
        self.mark_untold(key);
        self.retarget_watchers(now, id);
        self.retarget_slots(now, key);
        self.refresh_microphone(key);
        self.assign_audio(now);
    }

    fn describe_slots(&mut self, key: PeerKey, description: &MediaDescription) {
        self.boundaries = None;
        for place in 0..self.peers.get(key).map_or(0, |peer| peer.subscriber.slots.len()) {
            let Some(peer) = self.peers.get(key) else { return };
            let slot = &peer.subscriber.slots[place];
            if slot.is_open && !description.slots.iter().any(|described| slot.is_described_by(described)) {
                self.unsubscribe_all(SlotRef { peer: key, slot: place as u16 });
                if let Some(peer) = self.peers.get_mut(key) {
                    let slot = &mut peer.subscriber.slots[place];
                    (slot.is_open, slot.wish, slot.announced) = (false, None, None);
                    peer.subscriber.queue.retain(|queued| usize::from(queued.slot) != place);
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(key) {
            let slots = &mut peer.subscriber.slots;
            slots.reserve_exact(description.slots.len().min(SLOTS_MAX).saturating_sub(slots.len()));
        }
        for described in description.slots.iter().take(SLOTS_MAX) {
            let random = self.random();
            let Some(peer) = self.peers.get_mut(key) else { return };
            let slots = &mut peer.subscriber.slots;
            if let Some(slot) = slots.iter_mut().find(|slot| slot.is_described_by(described)) {
                slot.describe(described, &description.extensions);
                continue;
            }
            let slot = Slot::new(described, &description.extensions, random);
            // A closed slot's place is not used again: its SSRC may come back, and must then go on in its numbers.
            if slots.len() < SLOTS_MAX {
                slots.push(slot);
            }
        }
    }

    /// Takes a peer's whole word on what it sends.
    pub fn publish(&mut self, now: Instant, key: PeerKey, ups: &[UpState]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        let mut has_changed = false;
        for kind in UpKind::ALL {
            let said = ups.iter().find(|up| up.kind == kind).map(|up| (up.active, up.height_px));
            has_changed |= peer.publisher.publish(kind, said);
        }
        if has_changed {
            self.mark_untold(key);
            self.retarget_watchers(now, id);
            self.refresh_microphone(key);
            self.assign_audio(now);
            self.announce_speakers(now);
        }
    }

    /// Takes a peer's whole wish of what it sees. Unknown m-lines and audio slots are ignored; a peer that is not
    /// here (yet) is remembered.
    pub fn view(&mut self, now: Instant, key: PeerKey, wishes: &[SlotWish]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        for slot in peer.subscriber.slots.iter_mut().filter(|slot| slot.is_open && !slot.is_audio) {
            let wish = wishes.iter().find(|wish| wish.mid == slot.mid);
            slot.wish = wish
                .and_then(|wish| Some((wish.up?, wish.height_px)))
                .filter(|(up, _)| !up.kind.is_audio() && up.peer != peer.id);
        }
        self.retarget_slots(now, key);
    }

    /// Says that a peer's packets take another way from now on.
    pub fn change_path(&mut self, now: Instant, key: PeerKey) {
        if let Some(line) = self.peers.get_mut(key).and_then(|peer| peer.subscriber.line.as_mut()) {
            line.begin_on_another_way(now);
        }
        self.end_ease(key);
    }

    /// Says whether a peer's transport is up. For a peer without one nothing is queued.
    pub fn set_connected(&mut self, now: Instant, key: PeerKey, is_connected: bool) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.is_connected == is_connected {
            return;
        }
        peer.is_connected = is_connected;
        peer.subscriber.line = is_connected.then(|| Box::new(Downlink::new(now)));
        (peer.voices_max, peer.held_until) = (usize::MAX, None);
        peer.ease.end();
        self.boundaries = None;
        peer.hysteresis = Hysteresis::default();
        for slot in &mut peer.subscriber.slots {
            (slot.grant, slot.offer) = (Grant::ALL, None);
        }
        for up in peer.publisher.ups_mut() {
            up.retell_wanted();
        }
        if is_connected {
            self.retarget_slots(now, key);
            self.assign_audio(now);
            self.wake(now);
        } else {
            self.close_subscriptions(key);
        }
    }

    /// Says that a peer's transport has been replaced, and its SRTP keys with it: before it is connected again. Roll-over
    /// counts begin at zero with new keys (RFC 3711 section 3.3.1), so every slot's stream begins anew. Must not be
    /// said while the keys stay, since numbers may then come again.
    pub fn renew_transport(&mut self, now: Instant, key: PeerKey) {
        self.set_connected(now, key, false);
        for place in 0..self.peers.get(key).map_or(0, |peer| peer.subscriber.slots.len()) {
            let random = self.random();
            if let Some(peer) = self.peers.get_mut(key) {
                peer.subscriber.slots[place].begin_anew(random);
            }
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.subscriber.slots.retain(|slot| slot.is_open);
            peer.publisher.feedback = Default::default();
            peer.duties = reports::Duties::new(peer.duties.ssrc());
        }
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.repair_at.is_some_and(|at| now >= at) {
            self.repair(now);
        }
        if self.ask_at.is_some_and(|at| now >= at) {
            self.ask_key_frames(now);
        }
        if self.release_at.is_some_and(|at| now >= at) {
            self.release(now);
        }
        if self.tick_at.is_none_or(|at| now < at) {
            return;
        }
        self.ticks += 1;
        let speaker = self.speakers.loudest();
        for place in 0..self.keys.len() {
            let key = self.keys[place];
            let Some(peer) = self.peers.get(key) else { continue };
            // Most of a large meeting only listens: of them these three words are read and no more.
            let (is_at_rest, is_easy) = (peer.publisher.is_at_rest(), peer.ease.is_on(now));
            let is_greeting_due = peer.beat.is_due(now);
            if !is_at_rest {
                self.look_after(now, key);
            }
            if !is_easy {
                self.share_line(now, key, speaker);
            }
            if is_greeting_due {
                self.mark_dirty(key);
            }
            if (self.ticks + place as u64).is_multiple_of(TICKS_PER_REPORT) {
                self.report(key);
            }
        }
        self.rank(now);
        self.announce_speakers(now);
        self.announce_wanted(now);
        self.announce_lines(now);
        self.look_after_parts(now);
        let is_awake = self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < SLEEP_AFTER);
        let is_anyone_connected = self.peers.values().any(|peer| peer.is_connected);
        self.tick_at = if is_awake || self.speakers.is_anyone_speaking() {
            Some(now + TICK)
        } else {
            (is_anyone_connected || self.parts.is_linked()).then(|| now + BEAT)
        };
    }

    /// When [`Room::handle_timeout`] has something to do; `None` while nothing moves.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.tick_at, self.repair_at, self.ask_at, self.release_at].into_iter().flatten().min()
    }

    /// What signaling is to hear.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.news.pop_front().or_else(|| self.notes.pop_front()) {
            return Some(event);
        }
        loop {
            let key = self.changed.pop_front()?;
            let Some(peer) = self.peers.get_mut(key) else { continue };
            peer.has_changed_slots = false;
            let slots: Vec<_> = peer
                .subscriber
                .slots
                .iter_mut()
                .filter_map(|slot| {
                    let is_told = std::mem::take(&mut slot.is_changed) && slot.is_open;
                    is_told.then(|| SlotState {
                        mid: slot.mid.clone(),
                        up: slot.announced,
                        paused: slot.is_paused,
                    })
                })
                .collect();
            if !slots.is_empty() {
                return Some(Event::Slots { peer: peer.id, slots });
            }
        }
    }

    /// A peer that has something to send. Each is named once until it is flushed; it should be before the next is asked for.
    pub fn poll_dirty(&mut self) -> Option<PeerKey> {
        loop {
            while let Some(key) = self.dirty.pop_front() {
                if self.peers.contains_key(key) {
                    return Some(key);
                }
            }
            if !self.hand_on() {
                return None;
            }
        }
    }

    fn mark_dirty(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && peer.is_connected
            && !std::mem::replace(&mut peer.is_dirty, true)
        {
            self.dirty.push_back(key);
        }
    }

    fn mark_changed(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && !std::mem::replace(&mut peer.has_changed_slots, true)
        {
            self.changed.push_back(key);
        }
    }

    fn wake(&mut self, now: Instant) {
        self.heard_at = Some(now);
        self.tick_at.get_or_insert(now + TICK);
    }

    /// The numbers of audio slots that peers have, each once: where the ranking matters.
    fn boundaries(&mut self) -> Boundaries {
        if let Some(known) = &self.boundaries {
            return known.clone();
        }
        let mut found = Boundaries::new();
        for peer in self.peers.values() {
            let slots = peer.subscriber.slots.iter().filter(|slot| slot.is_open && slot.is_audio).count();
            let slots = slots.min(peer.voices_max);
            if slots > 0 && !found.contains(&slots) && found.try_push(slots).is_err() {
                break;
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        self.boundaries = Some(found.clone());
        found
    }

    fn rank(&mut self, now: Instant) {
        self.ranked_at = Some(now);
        let boundaries = self.boundaries();
        let peers = &self.peers;
        let has_changed = self.speakers.rank(&boundaries, |key| {
            let up = peers.get(key).and_then(|peer| peer.publisher.up(UpKind::Microphone));
            up.map_or((0, false), |up| (up.level.db(), up.level.is_speaking()))
        });
        if has_changed {
            self.assign_audio(now);
        }
    }

    fn announce_speakers(&mut self, now: Instant) {
        if let Some(speakers) = self.speakers.announce(now)
            && self.parts.is_lead()
        {
            // Only the latest matters to one who has not asked yet.
            self.news.clear();
            self.news.push_back(Event::Speakers { room: self.id, speakers });
        }
    }
}
