//! The front of the media plane: the one object that signaling holds.
//!
//! It places rooms and their members on shards, negotiates on the caller's thread, makes everything random, and passes the rest on.
//! Media never comes by here, and a shard never waits for it.

pub(crate) mod candidates;

use crate::batch;
use crate::carrier::{Admission, Carrier, Inlet};
use crate::crossing::crossings;
use crate::listener::{Listener, Strangers};
use crate::port::{self, LocalPort, PortError};
use crate::shard::{EventSink, ShardThread};
use crate::stats::PlaneStats;
use crate::turn::{TurnServer, TurnThread};
use asamblea_seam::{Command, Event, PeerId, RoomId, UpLine};
use asamblea_sfu_core::negotiate::{
    IceCredentials, LocalDescriptionParams, NegotiateError, Negotiator, Offer,
};
use asamblea_sfu_core::room::{RoomConfig, WallClock};
use asamblea_sfu_core::rtp::time::Ntp;
use asamblea_sfu_core::shard::{Shard, ShardCommand, ShardConfig};
use asamblea_sfu_core::transport::Identity;
use asamblea_sfu_core::transport::ice::{LocalCredentials, NodeSecret, SHARDS_MAX};
use asamblea_sfu_core::turn::TurnSecret;
use candidates::Candidates;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use smallvec::SmallVec;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// From the NTP epoch to the Unix epoch: 70 years with 17 leap days.
const NTP_TO_UNIX_S: u64 = (70 * 365 + 17) * 86_400;

/// How the media plane is to be started.
pub struct Config {
    /// Where to listen; `[::]` is every address of both families, port 0 a free one.
    pub bind: SocketAddr,
    /// Addresses to offer besides those of this machine's interfaces, and before them: what a one-to-one NAT or a
    /// load balancer maps to the same port here.
    pub public_addresses: Vec<IpAddr>,
    /// Whether another process of the same user may have the port already; see [`port::take_over`].
    pub take_over: bool,
    /// How many shards; 0 is one for each core.
    pub shards: usize,
    /// How many members of one room one shard carries before others take part; 0 is any number.
    pub members_per_shard: usize,
    /// See [`RoomConfig::pad_runs`].
    pub pad_runs: bool,
    /// What the credentials of the TURN relay are derived from, 32 random bytes. With the same as before they outlive
    /// a restart.
    pub turn_secret: [u8; 32],
    /// Where events go. Called on media threads and on callers of [`MediaPlane::handle`]: it must neither block,
    /// nor panic, nor call the plane.
    pub events: Box<dyn Fn(Event) + Send + Sync>,
}

/// Why the media plane could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No random numbers, so no secrets.
    #[error(
        "the operating system gives no random numbers ({0}): without them nothing is secret, so nothing is started"
    )]
    Random(getrandom::Error),
    /// No thread or no descriptor for one.
    #[error(
        "a media thread could not be started ({0}): raise the limits of processes and open files (`ulimit -u -n`)"
    )]
    Thread(#[source] io::Error),
}

/// The running media plane. Stops when dropped.
pub struct MediaPlane {
    port: LocalPort,
    candidates: Arc<Candidates>,
    identity: Arc<Identity>,
    secret: Arc<NodeSecret>,
    places: Arc<Places>,
    events: EventSink,
    shards: Vec<ShardThread<ShardCommand>>,
    listener: Mutex<Listener>,
    admission: Arc<Admission>,
    turn: Arc<TurnServer>,
    turn_thread: Mutex<TurnThread>,
}

impl MediaPlane {
    /// Opens the port and starts the threads.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(StartError::Random)?;
        let secret = Arc::new(NodeSecret::new(secret));
        let (port, sockets) =
            if config.take_over { port::take_over(config.bind) } else { port::open(config.bind) }?;
        if let Err(error) = batch::raise_descriptor_limit() {
            tracing::warn!(%error, "the limit of open files stays as it is; each path needs one");
        }
        let count = match config.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            count => count,
        };
        let count = count.min(usize::from(SHARDS_MAX)) as u16;
        let identity = Arc::new(Identity::generate());
        let places = Arc::new(Places::new(count, config.members_per_shard));
        let events: EventSink = config.events.into();
        let mut shards = Vec::with_capacity(usize::from(count));
        for (index, crossing) in (0..count).zip(crossings(count)) {
            let identity = identity.clone();
            let make = move |now| {
                let config = ShardConfig {
                    identity: identity.clone(),
                    seed: u64::from_ne_bytes(random()),
                    room: room_config(now, config.pad_runs),
                };
                Shard::new(config, now)
            };
            let sink = forgetting_the_lost(index, places.clone(), events.clone());
            shards.push(ShardThread::start(index, port, make, sink, crossing).map_err(StartError::Thread)?);
        }
        let checks: Vec<_> = shards.iter().map(ShardThread::checks).collect();
        let carried = shards.iter().map(ShardThread::carried).collect();
        let admission = Arc::new(Admission::new(secret.clone(), carried));
        let candidates = Arc::new(Candidates::new(port, config.public_addresses));
        let turn = Arc::new(TurnServer::new(
            TurnSecret::new(config.turn_secret),
            candidates.clone(),
            admission.clone(),
        ));
        let turn_thread = TurnThread::start(port, turn.clone(), secret.clone(), checks.clone())
            .map_err(StartError::Thread)?;
        let strangers = Strangers { turn: turn.clone(), sender: turn_thread.sender() };
        let listener =
            Listener::start(sockets, secret.clone(), checks, Some(strangers)).map_err(StartError::Thread)?;
        Ok(Self {
            port,
            candidates,
            identity,
            secret,
            places,
            events,
            shards,
            listener: Mutex::new(listener),
            admission,
            turn,
            turn_thread: Mutex::new(turn_thread),
        })
    }

    /// Takes in a command, from any thread. An offer is negotiated before this returns. Waits only while the
    /// mailbox of the peer's shard is full.
    pub fn handle(&self, command: Command) {
        match command {
            Command::Join { room, peer, loopback } => self.join(room, peer, loopback),
            Command::Leave { peer } => self.leave(peer),
            Command::Offer { peer, revision, sdp, ups } => self.offer(peer, revision, &sdp, &ups),
            Command::Publish { peer, ups } => self.pass(peer, ShardCommand::Publish { peer, ups }),
            Command::View { peer, slots } => self.pass(peer, ShardCommand::View { peer, slots }),
        }
    }

    /// Takes in a carrier of datagrams from `address` whose `first` datagram has to be an authentic check; without
    /// one nothing is kept and there is no inlet. Never waits. The carrier is dropped when its path has ended.
    pub fn carry(&self, address: SocketAddr, first: &[u8], carrier: Box<dyn Carrier>) -> Option<Inlet> {
        self.admission.admit(address, first, carrier)
    }

    /// The TURN relay, for clients that come over streams; those over UDP are served already.
    pub fn turn(&self) -> &Arc<TurnServer> {
        &self.turn
    }

    /// The address of the port; unspecified for all addresses.
    pub fn local_addr(&self) -> SocketAddr {
        self.port.address()
    }

    /// What the sockets have counted so far.
    pub fn stats(&self) -> PlaneStats {
        let (carriers_refused, carried_dropped) = self.admission.counts();
        PlaneStats {
            listener: locked(&self.listener).stats(),
            turn: self.turn.stats(),
            carriers_refused,
            carried_dropped,
            shards: self.shards.iter().map(ShardThread::stats).collect(),
        }
    }

    /// Closes the listening sockets, so that strangers' checks go to whoever listens on the port next. Paths that are
    /// open go on; none is opened any more. Returns when it is done.
    pub fn yield_port(&self) {
        locked(&self.listener).stop();
    }

    /// Ends all threads and closes all sockets; returns when it is done. Repeating it changes nothing, and commands
    /// after it do nothing.
    pub fn stop(&self) {
        locked(&self.listener).stop();
        locked(&self.turn_thread).stop();
        for shard in &self.shards {
            shard.stop();
        }
    }

    fn join(&self, room: RoomId, peer: PeerId, loopback: bool) {
        if let Some(before) = self.places.of(peer) {
            if before.room == room {
                return;
            }
            self.leave(peer); // from the room it was in
        }
        let candidates = self.candidates.at(Instant::now(), loopback);
        let seed = u64::from_ne_bytes(random());
        let placed = self.places.join(room, peer, |shard| {
            let ice: IceCredentials = LocalCredentials::new(shard, random(), &self.secret).into();
            let params = LocalDescriptionParams {
                ice: ice.clone(),
                fingerprint: self.identity.fingerprint(),
                candidates,
                seed,
                transport_cc: true,
            };
            (Negotiation { negotiator: Negotiator::new(params), revision: None }, ice)
        });
        let Some((shard, ice, has_changed)) = placed else { return };
        // A shard that has just started afresh may hold an earlier join of this peer that nobody knows of any more.
        self.send(shard, ShardCommand::Leave { peer });
        self.send(shard, ShardCommand::Join { room, peer, ice });
        self.tell_parts(room, has_changed);
    }

    fn leave(&self, peer: PeerId) {
        if let Some((place, has_changed)) = self.places.leave(peer, |_| true) {
            self.send(place.shard, ShardCommand::Leave { peer });
            self.tell_parts(place.room, has_changed);
        }
    }

    /// Tells each part of a room which others there are now, if that has changed. Whoever changed it does so after the
    /// command that came of it, since a shard knows no room before its first member is there; an older word that comes
    /// later is not listened to.
    fn tell_parts(&self, room: RoomId, has_changed: bool) {
        let Some((revision, parts)) = self.places.parts_to_tell(room, has_changed) else { return };
        for &shard in &parts {
            let others: Vec<u16> = parts.iter().copied().filter(|other| *other != shard).collect();
            // The oldest: it knows who speaks when another comes.
            let is_lead = parts.first() == Some(&shard);
            self.send(shard, ShardCommand::Parts { room, revision, others, is_lead });
        }
    }

    fn offer(&self, peer: PeerId, revision: u32, sdp: &str, ups: &[UpLine]) {
        let Some(place) = self.places.of(peer) else { return };
        // Held until the shard has the description, so that those of one peer arrive in order.
        let mut negotiation = locked(&place.negotiation);
        if negotiation.revision.is_some_and(|last| revision <= last) {
            return;
        }
        negotiation.revision = Some(revision);
        let event = match self.negotiate(&mut negotiation.negotiator, &place, peer, sdp, ups) {
            Ok(sdp) => Event::Answer { peer, revision, sdp },
            Err(error) => Event::OfferRefused { peer, revision, reason: error.to_string() },
        };
        (self.events)(event);
    }

    fn negotiate(
        &self,
        negotiator: &mut Negotiator,
        place: &Place,
        peer: PeerId,
        sdp: &str,
        ups: &[UpLine],
    ) -> Result<String, NegotiateError> {
        let offer = Offer::parse(sdp)?;
        let mut restart = None;
        if negotiator.change(&offer).needs_new_credentials() {
            let ice: IceCredentials = LocalCredentials::new(place.shard, random(), &self.secret).into();
            negotiator.restart(ice.clone());
            restart = Some(ice);
        }
        let answer = negotiator.answer(&offer, ups)?;
        let description = Box::new(answer.description);
        self.send(place.shard, ShardCommand::Describe { peer, description, restart });
        Ok(answer.sdp)
    }

    fn pass(&self, peer: PeerId, command: ShardCommand) {
        if let Some(place) = self.places.of(peer) {
            self.send(place.shard, command);
        }
    }

    fn send(&self, shard: u16, command: ShardCommand) {
        self.shards[usize::from(shard)].send(command);
    }
}

impl Drop for MediaPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for MediaPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaPlane").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// The sink of one shard: who is lost with it is no longer joined, before signaling hears of it.
fn forgetting_the_lost(shard: u16, places: Arc<Places>, events: EventSink) -> EventSink {
    Arc::new(move |event| {
        if let Event::Lost { peers } = &event {
            for &peer in peers {
                places.lose(peer, shard);
            }
        }
        events(event);
    })
}

/// Who is where. A room's lock is only ever taken inside of or after a peer's, and nobody waits holding either.
struct Places {
    rooms: DashMap<RoomId, RoomPlace>,
    peers: DashMap<PeerId, Place>,
    /// Peers by shard.
    loads: Vec<AtomicUsize>,
    /// How many members of one room one shard carries before others take part; 0 is any number.
    members_per_shard: usize,
    /// Counts changes of the parts of any room.
    revisions: AtomicU64,
}

/// Which shards carry a room.
#[derive(Default)]
struct RoomPlace {
    /// Those that carry members of it, the first one first, and how many.
    parts: SmallVec<[(u16, usize); 2]>,
    /// When its parts last changed.
    revision: u64,
    /// Whether they did when nobody could be told.
    is_untold: bool,
}

impl RoomPlace {
    fn peers(&self) -> usize {
        self.parts.iter().map(|(_, peers)| peers).sum()
    }
}

#[derive(Clone)]
struct Place {
    room: RoomId,
    shard: u16,
    negotiation: Arc<Mutex<Negotiation>>,
}

struct Negotiation {
    negotiator: Negotiator,
    /// The newest offer's.
    revision: Option<u32>,
}

impl Places {
    fn new(shards: u16, members_per_shard: usize) -> Self {
        Self {
            members_per_shard,
            revisions: AtomicU64::new(0),
            rooms: DashMap::new(),
            peers: DashMap::new(),
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    fn of(&self, peer: PeerId) -> Option<Place> {
        self.peers.get(&peer).map(|place| place.clone())
    }

    /// Places a peer: with those of its room while they are few, else, and in a new room, where there are fewest peers.
    /// Gives its shard and whether the room has another part now; `None` if the peer has a place.
    fn join<T>(
        &self,
        room: RoomId,
        peer: PeerId,
        negotiation: impl FnOnce(u16) -> (Negotiation, T),
    ) -> Option<(u16, T, bool)> {
        let Entry::Vacant(vacant) = self.peers.entry(peer) else { return None };
        let mut home = self.rooms.entry(room).or_default();
        let has_outgrown = self.members_per_shard > 0 && home.peers() >= self.members_per_shard;
        let shard = match home.parts.first() {
            Some((first, _)) if !has_outgrown => *first,
            _ => {
                let load = |shard: &u16| self.loads[usize::from(*shard)].load(Ordering::Relaxed);
                (0..self.loads.len() as u16).min_by_key(load).expect("there is at least one shard")
            }
        };
        match home.parts.iter_mut().find(|(part, _)| *part == shard) {
            Some((_, peers)) => *peers += 1,
            None => home.parts.push((shard, 1)),
        }
        // A first part has nothing to be told.
        let has_changed = home.parts.len() > 1 && home.parts.contains(&(shard, 1));
        if has_changed {
            home.revision = self.next_revision();
        }
        drop(home);
        self.loads[usize::from(shard)].fetch_add(1, Ordering::Relaxed);
        let (negotiation, rest) = negotiation(shard);
        vacant.insert(Place { room, shard, negotiation: Arc::new(Mutex::new(negotiation)) });
        Some((shard, rest, has_changed))
    }

    /// Takes a peer's place away, if it is the one meant; a room ends with its last peer. Says whether the room has a part
    /// less now.
    fn leave(&self, peer: PeerId, is_meant: impl FnOnce(&Place) -> bool) -> Option<(Place, bool)> {
        let (_, place) = self.peers.remove_if(&peer, |_, place| is_meant(place))?;
        self.loads[usize::from(place.shard)].fetch_sub(1, Ordering::Relaxed);
        let mut has_changed = false;
        if let Entry::Occupied(mut home) = self.rooms.entry(place.room) {
            let parts = &mut home.get_mut().parts;
            let part = parts.iter().position(|(shard, _)| *shard == place.shard);
            if let Some(part) = part {
                parts[part].1 -= 1;
                if parts[part].1 == 0 {
                    parts.remove(part);
                    has_changed = true;
                    home.get_mut().revision = self.next_revision();
                }
            }
            if home.get().parts.is_empty() {
                home.remove();
            }
        }
        Some((place, has_changed))
    }

    /// A peer is gone with its shard. Its room's other parts hear of that from the shards themselves, and which parts there
    /// are when somebody comes next.
    fn lose(&self, peer: PeerId, shard: u16) {
        if let Some((place, true)) = self.leave(peer, |place| place.shard == shard)
            && let Some(mut home) = self.rooms.get_mut(&place.room)
        {
            home.is_untold = true;
        }
    }

    fn next_revision(&self) -> u64 {
        self.revisions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The parts of a room and the revision of that, if they changed just now or when nobody could be told.
    fn parts_to_tell(&self, room: RoomId, has_changed: bool) -> Option<(u64, SmallVec<[u16; 2]>)> {
        let mut home = self.rooms.get_mut(&room)?;
        let was_untold = std::mem::take(&mut home.is_untold);
        if !has_changed && !was_untold {
            return None;
        }
        Some((home.revision, home.parts.iter().map(|(shard, _)| *shard).collect()))
    }
}

fn room_config(now: Instant, pad_runs: bool) -> RoomConfig {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // RFC 5905 section 6: seconds since 1900, wrapping in 2036, and their binary fraction.
    let seconds = unix.as_secs().wrapping_add(NTP_TO_UNIX_S) & 0xffff_ffff;
    let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
    let wall_clock = WallClock { at: now, ntp: Ntp((seconds << 32) | fraction) };
    RoomConfig { pad_runs, ..RoomConfig::new(wall_clock) }
}

/// Random bytes, fit for secrets.
pub(crate) fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("a system that gave random bytes at the start goes on doing so");
    bytes
}

/// What a panic left behind a lock is still whole: each change under one is a single step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
