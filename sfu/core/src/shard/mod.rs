//! The only scheduler of the heart: many rooms and many secure paths behind one set of verbs.
//!
//! The contract: call `handle_*` for everything that arrived, then [`Shard::poll_output`] until it answers `None`,
//! [`Shard::relay`] for what other shards are to hear, then [`Shard::poll_event`] until it answers `None`, then sleep until [`Shard::poll_timeout`]. Handling many
//! datagrams before polling is what makes long runs: each subscriber with something to send is flushed once per
//! batch. More may be handled between two polls: it joins what waits for those who were not flushed yet.
//!
//! A shard never asks a clock, a socket or a random source, never blocks, and allocates nothing per packet once
//! its buffers have grown.

mod handshakes;
mod output;
mod runs;
mod timers;

pub use runs::{RUN_BYTES_MAX, RUN_SEGMENTS_MAX};

use crate::demux::{Kind, classify};
use crate::negotiate::{IceCredentials, MediaDescription};
use crate::relay::Batch;
use crate::room::{PeerKey, Room, RoomConfig};
use crate::stats::RoomCounters;
use crate::transport::stun::Request;
use crate::transport::{Described, Identity, PathId, Remote, Transport, TransportEvent, TransportOutput};
use arrayvec::ArrayVec;
use asamblea_seam::{Event, PeerId, RoomId, SlotWish, UpState};
use handshakes::Handshakes;
use runs::Runs;
use slotmap::{Key, KeyData, SecondaryMap, SlotMap, new_key_type};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use timers::{Filed, Timers};

new_key_type! {
    struct RoomKey;
    struct MemberKey;
    struct PathKey;
}

/// What a shard is made with.
#[derive(Clone)]
pub struct ShardConfig {
    /// The server's DTLS certificate.
    pub identity: Arc<Identity>,
    /// Seeds everything that has to differ from run to run but needs not be secret.
    pub seed: u64,
    /// How rooms are to behave.
    pub room: RoomConfig,
}

/// What the shell's front asks of a shard: the seam's commands after negotiation.
#[derive(Clone, Debug)]
pub enum ShardCommand {
    /// Makes room for a peer; repeating it changes nothing.
    Join {
        /// The meeting, made on its first join.
        room: RoomId,
        /// The newcomer.
        peer: PeerId,
        /// The server's ICE credentials towards this peer; the ufrag is unique in the shard.
        ice: IceCredentials,
    },
    /// Ends a peer.
    Leave {
        /// Who.
        peer: PeerId,
    },
    /// Puts an accepted offer in force.
    Describe {
        /// Whose.
        peer: PeerId,
        /// What the offer means.
        description: Box<MediaDescription>,
        /// The server's new ICE credentials where the offer restarts ICE.
        restart: Option<IceCredentials>,
    },
    /// See [`asamblea_seam::Command::Publish`].
    Publish {
        /// Whose.
        peer: PeerId,
        /// What is sent.
        ups: Vec<UpState>,
    },
    /// Says which other shards have a part of a room. Ignored where there is none here.
    Parts {
        /// The meeting.
        room: RoomId,
        /// Counts upwards; what is older than the last is ignored.
        revision: u64,
        /// Those shards.
        others: Vec<u16>,
        /// Whether the part here speaks for the whole room.
        is_lead: bool,
    },
    /// See [`asamblea_seam::Command::View`].
    View {
        /// Whose.
        peer: PeerId,
        /// What is wished for.
        slots: Vec<SlotWish>,
    },
}

/// What the shell has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// Make a connected socket to `remote`, or take the carrier that it names. What is transmitted on the path follows.
    OpenPath {
        /// The new path's name.
        path: PathId,
        /// The other end.
        remote: Remote,
    },
    /// Send datagrams on a path.
    Transmit {
        /// Where.
        path: PathId,
        /// One or more datagrams back to back.
        contents: &'a [u8],
        /// The length of each datagram; the last may be shorter.
        segment_bytes: usize,
    },
    /// Close a path's socket, or let go of its carrier.
    ClosePath {
        /// Which.
        path: PathId,
    },
}

/// When a shard wants [`Shard::handle_timeout`], and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The instant; it may turn out to be early, never late.
    pub at: Instant,
    /// Whose deadline it is.
    pub reason: WakeReason,
}

/// Whose deadline a [`Wake`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// A handshake's retransmission or a consent's end.
    Transport,
    /// A room's reports, key-frame requests or speakers.
    Room,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Transport(MemberKey),
    Room(RoomKey),
}

/// What a shard has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Datagrams on a path that no longer exists.
    pub path_unknown: u64,
    /// Checks for a ufrag that no peer here has.
    pub ufrag_unknown: u64,
    /// Datagrams that are none of STUN, DTLS, RTP and RTCP (RFC 7983).
    pub junk: u64,
    /// Datagrams of handshakes that were worked.
    pub handshake_steps: u64,
    /// Those that were dropped, since too many waited.
    pub handshakes_dropped: u64,
    /// Envelopes of other shards for rooms that have no part here.
    pub relay_unknown: u64,
    /// RTP packets received and accepted.
    pub rtp_in: u64,
    /// RTP and RTCP packets sent.
    pub packets_out: u64,
    /// Sends they took: `packets_out / runs_out` is what GSO gains.
    pub runs_out: u64,
}

struct RoomEntry {
    room: Room,
    members: SecondaryMap<PeerKey, MemberKey>,
    filed: Filed,
    dirty: bool,
    /// Whether it is among those with something for other shards.
    is_relaying: bool,
}

struct Member {
    id: PeerId,
    room: RoomKey,
    key: PeerKey,
    transport: Transport,
    filed: Filed,
    /// Every local ufrag that may still arrive: the present one last, before it the one of before a restart.
    ufrags: ArrayVec<String, 2>,
    /// Whose sockets the shell holds open for this member.
    paths: SmallVec<[PathId; 4]>,
}

struct PathEntry {
    member: MemberKey,
    remote: Remote,
}

enum Control {
    Open { path: PathId, remote: Remote },
    Transmit { path: PathId, datagram: Vec<u8> },
    Close { path: PathId },
}

/// See the module.
pub struct Shard {
    config: ShardConfig,
    rooms: SlotMap<RoomKey, RoomEntry>,
    members: SlotMap<MemberKey, Member>,
    paths: SlotMap<PathKey, PathEntry>,
    room_by_id: HashMap<RoomId, RoomKey>,
    member_by_id: HashMap<PeerId, MemberKey>,
    member_by_ufrag: HashMap<String, MemberKey>,
    timers: Timers<Owner>,
    dirty_rooms: Vec<RoomKey>,
    handshakes: Handshakes,
    relaying_rooms: Vec<RoomKey>,
    control: VecDeque<Control>,
    /// The control datagram that is being handed out.
    control_datagram: Vec<u8>,
    runs: Runs,
    events: VecDeque<Event>,
    counters: ShardCounters,
    /// What rooms that have ended had counted.
    ended: RoomCounters,
    /// The latest time the shard was told.
    now: Instant,
}

/// Taking things in.
impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Self {
            now,
            config,
            rooms: SlotMap::with_key(),
            members: SlotMap::with_key(),
            paths: SlotMap::with_key(),
            room_by_id: HashMap::new(),
            member_by_id: HashMap::new(),
            member_by_ufrag: HashMap::new(),
            timers: Timers::new(),
            dirty_rooms: Vec::new(),
            handshakes: Handshakes::default(),
            relaying_rooms: Vec::new(),
            control: VecDeque::new(),
            control_datagram: Vec::new(),
            runs: Runs::new(),
            events: VecDeque::new(),
            counters: ShardCounters::default(),
            ended: RoomCounters::default(),
        }
    }

    /// Takes in a command. Commands about peers that are not here are ignored: a repeated or overtaken command
    /// is no fault.
    pub fn handle_command(&mut self, now: Instant, command: ShardCommand) {
        self.now = now;
        match command {
            ShardCommand::Join { room, peer, ice } => self.join(now, room, peer, ice),
            ShardCommand::Leave { peer } => {
                if let Some(&key) = self.member_by_id.get(&peer) {
                    self.leave(now, key);
                }
            }
            ShardCommand::Describe { peer, description, restart } => {
                if let Some(&key) = self.member_by_id.get(&peer) {
                    self.describe(now, key, &description, restart);
                }
            }
            ShardCommand::Publish { peer, ups } => {
                self.with_room_of(peer, |room, key| room.publish(now, key, &ups));
            }
            ShardCommand::Parts { room, revision, others, is_lead } => {
                if let Some(&key) = self.room_by_id.get(&room) {
                    self.rooms[key].room.set_parts(now, revision, &others, is_lead);
                    self.after_room(key);
                }
            }
            ShardCommand::View { peer, slots } => {
                self.with_room_of(peer, |room, key| room.view(now, key, &slots));
            }
        }
    }

    /// Takes in a binding request that reached the listener. The listener has authenticated it; it is
    /// authenticated again here, since only here the peer is known.
    pub fn handle_check(&mut self, now: Instant, remote: impl Into<Remote>, datagram: &[u8]) {
        let remote = remote.into();
        self.now = now;
        let known = Request::parse(datagram)
            .and_then(|request| request.ufrags().map(|(local, _)| self.member_by_ufrag.get(local).copied()));
        let Ok(Some(key)) = known else {
            self.counters.ufrag_unknown += 1;
            return;
        };
        let (paths, member) = (&mut self.paths, &mut self.members[key]);
        let known = member
            .paths
            .iter()
            .copied()
            .find(|path| paths.get(path_key(*path)).is_some_and(|it| it.remote == remote));
        member.transport.handle_check(now, remote, known, datagram, &mut || {
            path_id(paths.insert(PathEntry { member: key, remote }))
        });
        self.after_transport(now, key);
    }

    /// Takes in a datagram that a path's socket received. It is decrypted in place.
    pub fn handle_datagram(&mut self, now: Instant, path: PathId, datagram: &mut [u8]) {
        self.now = now;
        let Some(entry) = self.paths.get(path_key(path)) else {
            self.counters.path_unknown += 1;
            return;
        };
        let key = entry.member;
        let member = &mut self.members[key];
        match classify(datagram) {
            Kind::Rtp => {
                let Some(length) = member.transport.open_rtp(path, datagram) else { return };
                self.counters.rtp_in += 1;
                let (room, peer) = (member.room, member.key);
                self.rooms[room].room.handle_rtp(now, peer, &datagram[..length]);
                self.after_room(room);
            }
            Kind::Rtcp => {
                let Some(length) = member.transport.open_rtcp(path, datagram) else { return };
                let (room, peer) = (member.room, member.key);
                self.rooms[room].room.handle_rtcp(now, peer, &datagram[..length]);
                self.after_room(room);
            }
            Kind::Stun => {
                member.transport.handle_stun(now, path, datagram);
                self.after_transport(now, key);
            }
            Kind::Dtls if self.handshakes.may_step() => self.step(now, path, datagram),
            Kind::Dtls => {
                self.counters.handshakes_dropped += u64::from(!self.handshakes.wait(path, datagram));
            }
            Kind::Junk => self.counters.junk += 1,
        }
    }

    /// Whether what comes on a path next may be taken in some tens of milliseconds late, together with what comes on
    /// others. To be asked again after anything came on it.
    pub fn may_wait(&self, now: Instant, path: PathId) -> bool {
        let member = self.paths.get(path_key(path)).map(|entry| &self.members[entry.member]);
        member.is_some_and(|member| self.rooms[member.room].room.may_wait(now, member.key))
    }

    /// Takes in that a path's socket could not be made or is broken for good, or that its carrier has ended.
    pub fn handle_path_failed(&mut self, now: Instant, path: PathId) {
        self.now = now;
        if let Some(entry) = self.paths.remove(path_key(path)) {
            self.control.push_back(Control::Close { path });
            let member = &mut self.members[entry.member];
            member.paths.retain(|open| *open != path);
            member.transport.handle_path_failed(path);
            self.after_transport(now, entry.member);
        }
    }

    /// Takes in what another shard says about a room that both have a part of.
    pub fn handle_relay(&mut self, now: Instant, from: u16, batch: &Batch) {
        self.now = now;
        let Some(&key) = self.room_by_id.get(&batch.room()) else {
            self.counters.relay_unknown += batch.len() as u64;
            return;
        };
        self.rooms[key].room.handle_relay(now, from, batch);
        self.after_room(key);
    }

    /// Takes in that another shard has begun anew, and all that it had is gone.
    pub fn handle_shard_ended(&mut self, now: Instant, shard: u16) {
        self.now = now;
        let keys: Vec<RoomKey> = self.rooms.keys().collect();
        for key in keys {
            self.rooms[key].room.end_part(now, shard);
            self.after_room(key);
        }
    }

    /// Takes in that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some((path, datagram)) = self.handshakes.next() {
            self.step(now, path, &datagram);
        }
        while let Some((at, owner)) = self.timers.pop_due(now) {
            match owner {
                Owner::Transport(key) => {
                    let Some(member) = self.members.get_mut(key) else { continue };
                    if !Timers::<Owner>::claim(&mut member.filed, at) {
                        continue;
                    }
                    if member.transport.poll_timeout().is_some_and(|deadline| deadline <= now) {
                        member.transport.handle_timeout(now);
                    }
                    self.after_transport(now, key);
                }
                Owner::Room(key) => {
                    let Some(entry) = self.rooms.get_mut(key) else { continue };
                    if !Timers::<Owner>::claim(&mut entry.filed, at) {
                        continue;
                    }
                    if entry.room.poll_timeout().is_some_and(|deadline| deadline <= now) {
                        entry.room.handle_timeout(now);
                    }
                    self.after_room(key);
                }
            }
        }
    }
}

/// Inside.
impl Shard {
    fn join(&mut self, now: Instant, room: RoomId, peer: PeerId, ice: IceCredentials) {
        if self.member_by_id.contains_key(&peer) {
            return;
        }
        let room_key = *self.room_by_id.entry(room).or_insert_with(|| {
            let seed = self.config.seed ^ room.0;
            self.rooms.insert(RoomEntry {
                room: Room::new(now, room, seed, self.config.room),
                members: SecondaryMap::new(),
                filed: Filed::default(),
                dirty: false,
                is_relaying: false,
            })
        });
        let entry = &mut self.rooms[room_key];
        let key = entry.room.join(now, peer);
        let ufrag = ice.ufrag.clone();
        let member_key = self.members.insert(Member {
            id: peer,
            room: room_key,
            key,
            transport: Transport::new(now, self.config.identity.clone(), ice),
            filed: Filed::default(),
            ufrags: ArrayVec::from_iter([ufrag.clone()]),
            paths: SmallVec::new(),
        });
        entry.members.insert(key, member_key);
        self.member_by_id.insert(peer, member_key);
        self.member_by_ufrag.insert(ufrag, member_key);
        self.after_transport(now, member_key);
        self.after_room(room_key);
    }

    fn leave(&mut self, now: Instant, key: MemberKey) {
        if let Some(member) = self.members.get_mut(key) {
            member.transport.close(now);
        }
        self.after_transport(now, key);
        let Some(member) = self.members.remove(key) else { return };
        self.member_by_id.remove(&member.id);
        for ufrag in &member.ufrags {
            self.member_by_ufrag.remove(ufrag);
        }
        debug_assert!(member.paths.is_empty(), "a closed transport closes its paths");
        let entry = &mut self.rooms[member.room];
        entry.room.leave(now, member.key);
        entry.members.remove(member.key);
        self.after_room(member.room);
        if self.rooms[member.room].room.is_empty()
            && let Some(entry) = self.rooms.remove(member.room)
        {
            self.room_by_id.remove(&entry.room.id());
            self.ended += *entry.room.counters();
        }
    }

    fn describe(
        &mut self,
        now: Instant,
        key: MemberKey,
        description: &MediaDescription,
        restart: Option<IceCredentials>,
    ) {
        let member = &mut self.members[key];
        if let Some(local) = restart {
            if member.ufrags.is_full() {
                let oldest = member.ufrags.remove(0);
                self.member_by_ufrag.remove(&oldest);
            }
            member.ufrags.push(local.ufrag.clone());
            self.member_by_ufrag.insert(local.ufrag.clone(), key);
            member.transport.restart_ice(local);
        }
        let described = member.transport.describe(now, &description.remote_ice, description.fingerprint);
        let (room, peer) = (member.room, member.key);
        if matches!(described, Described::TransportReset) {
            self.rooms[room].room.renew_transport(now, peer);
        }
        self.rooms[room].room.describe(now, peer, description);
        self.after_transport(now, key);
        self.after_room(room);
    }

    fn with_room_of(&mut self, peer: PeerId, act: impl FnOnce(&mut Room, PeerKey)) {
        let Some(&key) = self.member_by_id.get(&peer) else { return };
        let (room, peer) = (self.members[key].room, self.members[key].key);
        act(&mut self.rooms[room].room, peer);
        self.after_room(room);
    }

    /// Works a datagram of a handshake.
    fn step(&mut self, now: Instant, path: PathId, datagram: &[u8]) {
        // Its path may have been closed while it waited.
        let Some(key) = self.paths.get(path_key(path)).map(|entry| entry.member) else { return };
        self.counters.handshake_steps += 1;
        self.members[key].transport.handle_dtls(now, path, datagram);
        self.after_transport(now, key);
    }

    /// Carries on what a transport has to say after it was given something.
    fn after_transport(&mut self, now: Instant, key: MemberKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        while let Some(output) = member.transport.poll_output() {
            match output {
                TransportOutput::OpenPath { path, remote } => {
                    member.paths.push(path);
                    self.control.push_back(Control::Open { path, remote });
                }
                TransportOutput::Transmit { path, datagram } => {
                    self.control.push_back(Control::Transmit { path, datagram });
                }
                TransportOutput::ClosePath { path } => {
                    member.paths.retain(|open| *open != path);
                    self.paths.remove(path_key(path));
                    self.control.push_back(Control::Close { path });
                }
            }
        }
        let (room, peer, id) = (member.room, member.key, member.id);
        let (mut is_connected, mut is_moved) = (None, false);
        while let Some(event) = member.transport.poll_event() {
            match event {
                TransportEvent::Connected => {
                    is_connected = Some(true);
                    self.events.push_back(Event::Connected { peer: id });
                }
                TransportEvent::Disconnected(reason) => {
                    is_connected = Some(false);
                    self.events.push_back(Event::Disconnected { peer: id, reason });
                }
                TransportEvent::PathChanged => is_moved = true,
            }
        }
        self.timers.file(Owner::Transport(key), &mut member.filed, member.transport.poll_timeout());
        if is_moved {
            self.rooms[room].room.change_path(now, peer);
        }
        if let Some(is_connected) = is_connected {
            self.rooms[room].room.set_connected(now, peer, is_connected);
            self.after_room(room);
        }
    }

    /// Carries on what a room has to say after it was given something.
    fn after_room(&mut self, key: RoomKey) {
        let Some(entry) = self.rooms.get_mut(key) else { return };
        while let Some(event) = entry.room.poll_event() {
            self.events.push_back(event);
        }
        self.timers.file(Owner::Room(key), &mut entry.filed, entry.room.poll_timeout());
        if !entry.is_relaying && entry.room.has_relays() {
            entry.is_relaying = true;
            self.relaying_rooms.push(key);
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty_rooms.push(key);
        }
    }
}

fn path_id(key: PathKey) -> PathId {
    PathId(key.data().as_ffi())
}

fn path_key(path: PathId) -> PathKey {
    KeyData::from_ffi(path.0).into()
}
