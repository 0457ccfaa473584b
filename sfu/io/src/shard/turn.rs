//! The loop of a shard's thread, turn by turn: take in mail and datagrams, tell the heart, send what it says, sleep.

use super::quiet::{self, QUIET, Quiet};
use super::{CheckMail, Heart, Mail, Membership};
use crate::batch::{COALESCED_BYTES_MAX, Inbox};
use crate::carrier::{Carriage, CarriedMail, Carrier};
use crate::crossing::Crossed;
use crate::path::PathSocket;
use crate::port::LocalPort;
use crate::stats::ShardCounters;
use asamblea_seam::{Event, PeerId};
use asamblea_sfu_core::shard::Output;
use asamblea_sfu_core::stats::RoomCounters;
use asamblea_sfu_core::transport::{CarrierId, PathId, Remote};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Commands and checks taken in one turn, so that a burst of either does not hold up media.
const MAIL_PER_TURN_MAX: usize = 64;

/// Datagrams taken in one turn before what they caused is sent: bounds the delay and the memory of a batch.
const DATAGRAMS_PER_TURN_MAX: usize = 512;

/// Sends of a turn after which the sockets are looked at for the first time; then after twice as many, and so on. A
/// frame's packets arrive while its first ones are sent on, and what is taken in between two sends goes out in one run
/// with them to those whose turn has not come. The heart gives out batches of that many.
pub(super) const SENDS_BEFORE_LOOK: usize = 8;

/// Quiet paths that have their turn before the other sockets are looked at again, so that media do not wait for what a
/// thousand listeners say together.
pub(super) const QUIET_PATHS_PER_TURN: usize = 8;

/// Messages taken from one socket before the next has its turn; each may be a run of many datagrams.
const MESSAGES_PER_SOCKET: usize = 8;

/// Readiness taken in one poll.
const READY_MAX: usize = 256;

/// How long a path may be silent before a check of the same remote address to another local address replaces it:
/// a living path has a consent check every six seconds at most (RFC 7675 section 5.1).
const SILENT: Duration = Duration::from_secs(10);

/// How often at most it is told what rooms have counted: it walks all of them.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The mailbox's readiness.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Everything that one heart works with.
pub(super) struct Loop<'a, H: Heart> {
    port: LocalPort,
    heart: &'a mut H,
    mail: &'a Mail<H::Command>,
    events: &'a (dyn Fn(Event) + Send + Sync),
    counters: &'a ShardCounters,
    stopping: &'a AtomicBool,
    peers: &'a mut BTreeSet<PeerId>,
    paths: HashMap<PathId, Path, ByOwnId>,
    /// How many of them are quiet.
    quiet_paths: usize,
    remotes: HashMap<SocketAddr, PathId>,
    /// Paths that have something to read, in the order of their turns.
    ready: VecDeque<PathId>,
    /// The same of the quiet ones, which come after all others.
    ready_quiet: VecDeque<PathId>,
    /// Who sent a check in this turn, and to which of our addresses: the heart opens paths by remote address alone.
    asked: Vec<(SocketAddr, Option<IpAddr>)>,
    /// Paths that run over carriers.
    carried: HashMap<PathId, Carried>,
    by_carrier: HashMap<CarrierId, PathId>,
    /// Carriers whose first check came in this turn; those for which the heart opens no path end with it.
    newcomers: Vec<(CarrierId, Box<dyn Carrier>)>,
    /// What the rooms of hearts before this one had counted.
    earlier: RoomCounters,
    /// When it was last told what rooms have counted.
    told_at: Option<Instant>,
}

/// Hashes what the heart numbers itself: nobody outside can choose it, and it is looked up for each send.
type ByOwnId = BuildHasherDefault<OwnIdHasher>;

#[derive(Default)]
struct OwnIdHasher(u64);

impl Hasher for OwnIdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        // Fibonacci hashing: an odd constant near 2^64 over the golden ratio spreads consecutive numbers, and the
        // table takes its bits from both ends.
        let mixed = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

struct Carried {
    id: CarrierId,
    carrier: Box<dyn Carrier>,
}

/// What is needed to take datagrams in.
struct Arrivals {
    readiness: Events,
    inbox: Inbox,
    /// How many more may be taken in this turn.
    left: usize,
    /// How many more quiet paths have their turn in it.
    quiet_left: usize,
}

struct Path {
    socket: PathSocket,
    is_ready: bool,
    heard: Instant,
    /// Whether it is among the quiet ones.
    is_quiet: bool,
}

impl<'a, H: Heart> Loop<'a, H> {
    /// A heart that has just been made, with no paths yet. `peers` is kept true to who is joined, and outlives it.
    pub(super) fn new(
        port: LocalPort,
        heart: &'a mut H,
        mail: &'a Mail<H::Command>,
        events: &'a (dyn Fn(Event) + Send + Sync),
        counters: &'a ShardCounters,
        stopping: &'a AtomicBool,
        peers: &'a mut BTreeSet<PeerId>,
    ) -> Self {
        Self {
            port,
            heart,
            mail,
            events,
            counters,
            stopping,
            peers,
            paths: HashMap::default(),
            quiet_paths: 0,
            remotes: HashMap::new(),
            ready: VecDeque::new(),
            ready_quiet: VecDeque::new(),
            asked: Vec::new(),
            carried: HashMap::new(),
            by_carrier: HashMap::new(),
            newcomers: Vec::new(),
            earlier: counters.rooms(),
            told_at: None,
        }
    }

    /// Turns until it is told to stop.
    ///
    /// # Errors
    ///
    /// The sockets cannot be waited for.
    pub(super) fn run(&mut self, poll: &mut Poll) -> io::Result<()> {
        let mut arrivals = Arrivals {
            readiness: Events::with_capacity(READY_MAX),
            inbox: Inbox::new(MESSAGES_PER_SOCKET, COALESCED_BYTES_MAX),
            left: 0,
            quiet_left: 0,
        };
        let mut quiet = Quiet::new(poll.registry())?;
        let mut mail_waits = false;
        loop {
            let is_waited_for = mail_waits || !self.ready.is_empty() || !self.ready_quiet.is_empty();
            let timeout = if is_waited_for || !self.mail.crossing.may_sleep() {
                Some(Duration::ZERO)
            } else {
                let due = self.heart.poll_timeout().into_iter().chain(quiet.look_at()).min();
                due.map(|at| at.saturating_duration_since(Instant::now()))
            };
            self.look(poll, &mut arrivals, &mut quiet, timeout)?;
            self.mail.crossing.awake();
            if self.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = Instant::now();
            self.counters.sockets.turns.add(1);
            mail_waits = self.take_mail(now);
            mail_waits |= self.take_crossed(now);
            if self.heart.poll_timeout().is_some_and(|at| at <= now) {
                self.heart.handle_timeout(now);
            }
            (arrivals.left, arrivals.quiet_left) = (DATAGRAMS_PER_TURN_MAX, QUIET_PATHS_PER_TURN);
            if self.ready_quiet.is_empty() && quiet.look(now, poll.registry(), &mut arrivals.readiness)? {
                self.line_up(&arrivals.readiness);
            }
            self.receive(now, poll, &mut arrivals, &quiet);
            self.relay();
            // Its wake-up is used up by then.
            mail_waits |= self.flush(now, poll, &mut arrivals, &mut quiet)?;
            if self.ready_quiet.is_empty() && quiet.is_nearly_due(now) {
                quiet.look_early(now, poll.registry(), &mut arrivals.readiness)?;
                self.line_up(&arrivals.readiness);
            }
            self.tell_rooms(now);
        }
    }

    /// Waits for sockets that have something to read and gives them their turns behind the others. Whether it was woken
    /// for mail.
    fn look(
        &mut self,
        poll: &mut Poll,
        arrivals: &mut Arrivals,
        quiet: &mut Quiet,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let readiness = &mut arrivals.readiness;
        match poll.poll(readiness, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => readiness.clear(),
            result => result?,
        }
        let is_named = |token| readiness.iter().any(|event| event.token() == token);
        if is_named(QUIET) {
            quiet.handle_ready(Instant::now(), poll.registry())?;
        }
        let has_mail = is_named(WAKE);
        self.line_up(readiness);
        Ok(has_mail)
    }

    /// Gives paths that have something to read their turns behind the others.
    fn line_up(&mut self, readiness: &Events) {
        for event in readiness {
            let id = PathId(event.token().0 as u64);
            // None has the number of another token.
            if let Some(path) = self.paths.get_mut(&id)
                && !path.is_ready
            {
                path.is_ready = true;
                let ready = if path.is_quiet { &mut self.ready_quiet } else { &mut self.ready };
                ready.push_back(id);
            }
        }
    }

    fn tell_rooms(&mut self, now: Instant) {
        if self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY) {
            let mut sum = self.earlier;
            sum += self.heart.room_counters();
            if self.counters.set_rooms(sum) {
                self.told_at = Some(now);
            }
        }
    }

    /// Whether some was left for the next turn.
    fn take_mail(&mut self, now: Instant) -> bool {
        let mut taken = 0;
        while taken < MAIL_PER_TURN_MAX
            && let Ok(command) = self.mail.commands.try_recv()
        {
            taken += 1;
            match H::membership(&command) {
                Membership::Joined(peer) => self.peers.insert(peer),
                Membership::Left(peer) => self.peers.remove(&peer),
                Membership::Unchanged => false,
            };
            self.counters.sockets.peers.set(self.peers.len() as u64);
            self.heart.handle_command(now, command);
        }
        let mut checks = 0;
        while checks < MAIL_PER_TURN_MAX
            && let Ok(check) = self.mail.checks.try_recv()
        {
            checks += 1;
            self.counters.sockets.checks.add(1);
            self.take_check(now, check);
        }
        let mut carried = 0;
        while carried < DATAGRAMS_PER_TURN_MAX
            && let Ok(mail) = self.mail.carried.try_recv()
        {
            carried += 1;
            self.take_carried(now, mail);
        }
        taken == MAIL_PER_TURN_MAX || checks == MAIL_PER_TURN_MAX || carried == DATAGRAMS_PER_TURN_MAX
    }

    /// Takes what other shards say. Whether some was left for the next turn.
    fn take_crossed(&mut self, now: Instant) -> bool {
        self.mail.crossing.take(|from, crossed| match crossed {
            Crossed::Batch(batch) => self.heart.handle_relay(now, from, batch),
            Crossed::Ended => self.heart.handle_shard_ended(now, from),
        })
    }

    /// Gives other shards what the heart has for them, before what it has for its own.
    fn relay(&mut self) {
        let crossing = &self.mail.crossing;
        self.heart.relay(&mut |to, batch| crossing.put(to, batch));
    }

    fn take_carried(&mut self, now: Instant, mail: CarriedMail) {
        match mail {
            CarriedMail::Begin { id, address, carrier, check } => {
                self.newcomers.push((id, carrier));
                self.heart.handle_check(now, Remote::Carried { carrier: id, address }, &check);
            }
            CarriedMail::Datagram { id, mut datagram, place: _place } => {
                self.counters.sockets.carried_received.add(1);
                match self.by_carrier.get(&id) {
                    Some(&path) => self.heart.handle_datagram(now, path, &mut datagram),
                    // Its first check is of this turn: what follows waits for the path no longer than a network
                    // may take, and is repeated.
                    None => self.counters.sockets.dropped_no_path.add(1),
                }
            }
        }
    }

    fn take_check(&mut self, now: Instant, check: CheckMail) {
        // A check from the remote address of a path reaches the listener only if it was sent to another local
        // address (or just before the path was there). Its answer would leave from the path's address and the
        // sender would not take it, so as long as the path lives there is nothing to gain.
        if let Some(&id) = self.remotes.get(&check.remote)
            && let Some(path) = self.paths.get(&id)
            && check.local.is_some()
            && path.socket.local() != check.local
        {
            if now.duration_since(path.heard) < SILENT {
                self.counters.sockets.checks_elsewhere.add(1);
                return;
            }
            self.close(id);
            self.heart.handle_path_failed(now, id);
        }
        // The same before the path is there: the first check of the turn says at which address it opens, and the
        // sender repeats the other.
        if self.asked.iter().any(|(asker, local)| *asker == check.remote && *local != check.local) {
            self.counters.sockets.checks_elsewhere.add(1);
            return;
        }
        self.asked.push((check.remote, check.local));
        self.heart.handle_check(now, check.remote.into(), &check.datagram);
    }

    /// Takes from the ready sockets in turn until none is left or the turn has its fill.
    fn receive(&mut self, now: Instant, poll: &Poll, arrivals: &mut Arrivals, quiet: &Quiet) {
        let counters = &self.counters.sockets;
        let Arrivals { inbox, left, quiet_left, .. } = arrivals;
        while *left > 0 {
            let id = match self.ready.pop_front() {
                Some(id) => id,
                None if *quiet_left == 0 => break,
                None => {
                    *quiet_left -= 1;
                    let Some(id) = self.ready_quiet.pop_front() else { break };
                    id
                }
            };
            let Some(path) = self.paths.get_mut(&id) else { continue };
            let count = match inbox.receive(path.socket.as_fd()) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    path.is_ready = false;
                    continue;
                }
                Err(_) => {
                    // What became of an earlier send; there may still be something to read behind it.
                    counters.receive_errors.add(1);
                    *left = left.saturating_sub(1);
                    self.ready.push_back(id);
                    continue;
                }
            };
            path.heard = now;
            if count == inbox.capacity() {
                self.ready.push_back(id);
            } else {
                path.is_ready = false; // the kernel had no more, and says so when it has
            }
            counters.receives.add(1);
            for index in 0..count {
                let message = inbox.message(index);
                for datagram in message.data.chunks_mut(message.segment_bytes) {
                    *left = left.saturating_sub(1);
                    counters.datagrams_received.add(1);
                    self.heart.handle_datagram(now, id, datagram);
                }
            }
            if path.is_quiet != self.heart.may_wait(now, id) {
                path.change_company(id, poll, quiet);
                self.quiet_paths =
                    self.quiet_paths + usize::from(path.is_quiet) - usize::from(!path.is_quiet);
                counters.paths_quiet.set(self.quiet_paths as u64);
            }
        }
    }

    /// Does what the heart says until it is content, and takes in what arrives meanwhile. Whether it was woken for mail.
    fn flush(
        &mut self,
        now: Instant,
        poll: &mut Poll,
        arrivals: &mut Arrivals,
        quiet: &mut Quiet,
    ) -> io::Result<bool> {
        let mut is_woken = false;
        let (mut sends, mut sends_max) = (0, SENDS_BEFORE_LOOK);
        loop {
            if sends >= sends_max && arrivals.left > 0 {
                (sends, sends_max) = (0, sends_max * 2);
                is_woken |= self.look(poll, arrivals, quiet, Some(Duration::ZERO))?;
                let now = Instant::now();
                self.receive(now, poll, arrivals, quiet);
                is_woken |= self.take_crossed(now);
                self.relay();
            }
            let Some(output) = self.heart.poll_output() else { break };
            sends += 1;
            match output {
                Output::Transmit { path, contents, segment_bytes } => match self.paths.get_mut(&path) {
                    Some(path) => path.socket.send(contents, segment_bytes, self.counters),
                    None => {
                        let counters = &self.counters.sockets;
                        let sent = match self.carried.get_mut(&path) {
                            Some(carried) => carried.send(contents, segment_bytes, self.counters),
                            None => {
                                let datagrams = contents.len().div_ceil(segment_bytes.max(1));
                                counters.dropped_no_path.add(datagrams as u64);
                                Carriage::Taken
                            }
                        };
                        if sent == Carriage::Gone {
                            self.close(path);
                            self.heart.handle_path_failed(now, path);
                        }
                    }
                },
                Output::OpenPath { path, remote } => {
                    if let Err(error) = self.open(now, poll, path, remote) {
                        tracing::debug!(%error, "a path could not be opened");
                        self.counters.sockets.paths_failed.add(1);
                        self.heart.handle_path_failed(now, path);
                    }
                }
                Output::ClosePath { path } => self.close(path),
            }
        }
        self.relay();
        self.asked.clear();
        self.newcomers.clear();
        while let Some(event) = self.heart.poll_event() {
            (self.events)(event);
        }
        Ok(is_woken)
    }

    fn open(&mut self, now: Instant, poll: &Poll, id: PathId, remote: Remote) -> io::Result<()> {
        let remote = match remote {
            Remote::Udp(remote) => remote,
            Remote::Carried { carrier, .. } => return self.open_carried(id, carrier),
        };
        let local = self.asked.iter().find(|(asker, _)| *asker == remote).and_then(|(_, local)| *local);
        let socket = PathSocket::open(&self.port, remote, local)?;
        let token = Token(id.0 as usize);
        assert!(token != WAKE && token != QUIET, "the heart numbers paths from below");
        poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        // A peer that rejoined from the same socket: the kernel prefers the newer one, and so does this.
        self.remotes.insert(remote, id);
        let path = Path { socket, is_ready: false, heard: now, is_quiet: false };
        self.paths.insert(id, path);
        self.counters.sockets.paths_opened.add(1);
        self.counters.sockets.paths.set(self.paths.len() as u64);
        Ok(())
    }

    fn open_carried(&mut self, id: PathId, carrier: CarrierId) -> io::Result<()> {
        let at = self.newcomers.iter().position(|(newcomer, _)| *newcomer == carrier);
        let (carrier, sink) = self.newcomers.swap_remove(at.ok_or(io::ErrorKind::NotFound)?);
        self.by_carrier.insert(carrier, id);
        self.carried.insert(id, Carried { id: carrier, carrier: sink });
        self.counters.sockets.carriers_opened.add(1);
        self.counters.sockets.carriers.set(self.carried.len() as u64);
        Ok(())
    }

    fn close(&mut self, id: PathId) {
        if let Some(carried) = self.carried.remove(&id) {
            self.by_carrier.remove(&carried.id);
            self.counters.sockets.carriers.set(self.carried.len() as u64);
            return;
        }
        // Closing the descriptor takes it out of its poll.
        let Some(path) = self.paths.remove(&id) else { return };
        if self.remotes.get(&path.socket.remote()) == Some(&id) {
            self.remotes.remove(&path.socket.remote());
        }
        self.quiet_paths -= usize::from(path.is_quiet);
        // It is not counted as closed before it is.
        drop(path);
        self.counters.sockets.paths.set(self.paths.len() as u64);
        self.counters.sockets.paths_quiet.set(self.quiet_paths as u64);
    }
}

impl Path {
    /// Has it join the quiet ones, or leave them. What waits to be read is found in either place.
    fn change_company(&mut self, id: PathId, poll: &Poll, quiet: &Quiet) {
        let polls = [poll.registry(), quiet.registry()];
        let [from, to] = if self.is_quiet { [polls[1], polls[0]] } else { polls };
        if let Err(error) = quiet::change(self.socket.as_raw_fd(), Token(id.0 as usize), from, to) {
            // It is heard no more, and its peer comes back on another.
            tracing::debug!(%error, "a path is lost between two polls");
        }
        self.is_quiet = !self.is_quiet;
    }
}

impl Carried {
    /// Sends a run datagram by datagram; [`Carriage::Gone`] once the carrier has ended.
    fn send(&mut self, contents: &[u8], segment_bytes: usize, counters: &ShardCounters) -> Carriage {
        let counters = &counters.sockets;
        for datagram in contents.chunks(segment_bytes.max(1)) {
            match self.carrier.send(datagram) {
                Carriage::Taken => counters.carried_sent.add(1),
                Carriage::Full => counters.dropped_carrier_full.add(1),
                Carriage::Gone => return Carriage::Gone,
            }
        }
        counters.dropped_carrier_late.add(self.carrier.take_late());
        Carriage::Taken
    }
}
