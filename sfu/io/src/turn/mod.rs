//! The TURN relay's shell: sockets and clocks around `asamblea_sfu_core::turn`.
//!
//! What a client sends to one of our own media addresses through its allocation is a carrier of datagrams to the shard
//! (see [`crate::carrier`]), one for each of these addresses; there is no other way out. Clients over UDP have a
//! connected socket each, served by one thread; whoever holds a stream serves its client itself.
#![allow(clippy::result_large_err, reason = "an answer is made once a request, where no size matters")]

mod thread;

pub(crate) use thread::{TurnMail, TurnSender, TurnThread};

use crate::carrier::{Admission, Carriage, Carrier, Inlet};
use crate::plane::candidates::Candidates;
use crate::plane::random;
use crate::stats::TurnStats;
use asamblea_sfu_core::turn::{
    Action, Allocation, Channel, Ledger, Now, Relayed, TurnSecret, write_channel_data, write_data_indication,
};
pub use asamblea_sfu_core::turn::{
    Credentials, HEAD_BYTES, MESSAGE_BYTES_MAX, Reply, Stranger, message_bytes,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The first of the port numbers that stand for allocations: the dynamic ones (RFC 6335 section 6).
const PORT_MIN: u16 = 49_152;

/// What all clients of the relay share.
pub struct TurnServer {
    secret: TurnSecret,
    candidates: Arc<Candidates>,
    admission: Arc<Admission>,
    ledger: Mutex<Ledger>,
    begun: AtomicU64,
    refused: AtomicU64,
    relayed: AtomicU64,
    dropped: AtomicU64,
    epoch: Instant,
}

impl TurnServer {
    pub(crate) fn new(secret: TurnSecret, candidates: Arc<Candidates>, admission: Arc<Admission>) -> Self {
        Self {
            secret,
            candidates,
            admission,
            ledger: Mutex::default(),
            begun: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            relayed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// Fresh credentials; see [`TurnSecret::credentials`]. No two are the same: tokens of one second may be, and those who
    /// have them would share a quota.
    pub fn credentials(&self, until: SystemTime, bound_to: &[u8]) -> Credentials {
        self.secret.credentials(unix_s(until), &[&random::<16>(), bound_to].concat())
    }

    /// Judges a message from an address without an allocation; see [`TurnSecret::greet`].
    pub fn greet(&self, client: SocketAddr, message: &[u8]) -> Stranger {
        let holds = |username: &str| locked(&self.ledger).holds(username);
        self.secret.greet(unix_s(SystemTime::now()), client, message, holds)
    }

    /// Makes the allocation that an admitted message asks for. `client` is where it came from, `wire` the way back to
    /// it; the answer is already on it.
    ///
    /// # Errors
    /// What to answer instead, if anything.
    pub fn admit<W: Wire>(
        self: &Arc<Self>,
        client: SocketAddr,
        message: &[u8],
        wire: W,
    ) -> Result<TurnClient<W>, Option<Reply>> {
        let offered = self.candidates.at(Instant::now(), client.ip().is_loopback());
        let ports = u64::from(u16::MAX - PORT_MIN) + 1;
        let port = PORT_MIN + (self.begun.load(Relaxed) % ports) as u16;
        let relayed = Relayed { offered: &offered, port };
        let take = |username: &str| locked(&self.ledger).take(username, client.ip());
        let (allocation, reply) = Allocation::begin(now(), &self.secret, client, message, relayed, take)
            .inspect_err(|_| {
                self.refused.fetch_add(1, Relaxed);
            })?;
        self.begun.fetch_add(1, Relaxed);
        wire.answer(&reply);
        Ok(TurnClient { server: Arc::clone(self), allocation, legs: Vec::new(), wire })
    }

    /// What was counted so far.
    pub fn stats(&self) -> TurnStats {
        TurnStats {
            allocations: locked(&self.ledger).total(),
            allocated: self.begun.load(Relaxed),
            refused: self.refused.load(Relaxed),
            relayed: self.relayed.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnServer").finish_non_exhaustive()
    }
}

/// The way back to a client, used from several threads. Must neither block nor panic.
pub trait Wire: Clone + Send + 'static {
    /// Whether messages follow each other in a stream.
    const IS_STREAM: bool;

    /// Takes the answer to a request: a client on a stream does not ask again.
    fn answer(&self, message: &[u8]) -> Carriage {
        self.send(message)
    }

    /// Takes a whole message around what is relayed, or says why not.
    fn send(&self, message: &[u8]) -> Carriage;

    /// See [`Carrier::take_late`].
    fn take_late(&self) -> u64 {
        0
    }
}

/// A client with an allocation.
pub struct TurnClient<W> {
    server: Arc<TurnServer>,
    allocation: Allocation,
    /// Bounded by the addresses that it may reach.
    legs: Vec<Leg>,
    wire: W,
}

/// From one allocation to one of our addresses.
struct Leg {
    peer: SocketAddr,
    inlet: Inlet,
    shared: Arc<Shared>,
}

/// What the two directions of a leg know of each other.
#[derive(Default)]
struct Shared {
    /// The channel's number, or 0.
    channel: AtomicU16,
    /// Until when something may be sent, in milliseconds of the server's epoch.
    until_ms: AtomicU64,
    /// The path in the shard has ended.
    is_path_over: AtomicBool,
    /// The allocation has ended.
    is_client_gone: AtomicBool,
}

impl<W: Wire> TurnClient<W> {
    /// Takes in a message of the client. False when the allocation has ended by it.
    pub fn handle(&mut self, message: &[u8]) -> bool {
        let server = Arc::clone(&self.server);
        match self.allocation.handle(now(), &server.secret, message) {
            Action::Relay { peer, datagram } => self.relay(peer, datagram),
            Action::Reply(reply) => {
                if reply.refusal().is_some() {
                    server.refused.fetch_add(1, Relaxed);
                }
                self.wire.answer(&reply);
                for leg in &self.legs {
                    self.renew_route(leg.peer, &leg.shared);
                }
            }
            Action::End(reply) => {
                self.wire.answer(&reply);
                return false;
            }
            Action::Drop(_) => {
                server.dropped.fetch_add(1, Relaxed);
            }
        }
        true
    }

    /// When the allocation ends unless it is refreshed.
    pub fn expires_at(&self) -> Instant {
        self.allocation.expires_at()
    }

    fn relay(&mut self, peer: SocketAddr, datagram: &[u8]) {
        let server = &self.server;
        server.relayed.fetch_add(1, Relaxed);
        let at = self.legs.iter().position(|leg| leg.peer == peer);
        if let Some(leg) = at.map(|at| &self.legs[at])
            && !leg.shared.is_path_over.load(Relaxed)
        {
            return leg.inlet.send(datagram);
        }
        // The first of a path, or of another one after a path has ended: it has to be a check.
        let shared = Arc::new(Shared::default());
        // Before the shard has it: the check is answered at once.
        self.renew_route(peer, &shared);
        let outlet = Outlet {
            server: Arc::clone(server),
            peer,
            shared: Arc::clone(&shared),
            wire: self.wire.clone(),
            sent: 0,
            message: Vec::new(),
        };
        if let Some(at) = at {
            self.legs.swap_remove(at);
        }
        let relayed = self.allocation.relayed();
        if let Some(inlet) = server.admission.admit(relayed, datagram, Box::new(outlet)) {
            self.legs.push(Leg { peer, inlet, shared });
        }
    }

    /// Tells the other direction what a request may have changed.
    fn renew_route(&self, peer: SocketAddr, shared: &Shared) {
        let route = self.allocation.route(peer, Instant::now());
        let channel = route.and_then(|route| route.channel).map_or(0, Channel::number);
        shared.channel.store(channel, Relaxed);
        shared.until_ms.store(route.map_or(0, |route| self.server.ms(route.until)), Relaxed);
    }
}

impl<W> Drop for TurnClient<W> {
    fn drop(&mut self) {
        locked(&self.server.ledger).give_back(self.allocation.username(), self.allocation.client().ip());
        for leg in &self.legs {
            leg.shared.is_client_gone.store(true, Relaxed);
        }
    }
}

/// From a shard to a client.
struct Outlet<W> {
    server: Arc<TurnServer>,
    peer: SocketAddr,
    shared: Arc<Shared>,
    wire: W,
    sent: u64,
    message: Vec<u8>,
}

impl<W: Wire> Carrier for Outlet<W> {
    fn send(&mut self, datagram: &[u8]) -> Carriage {
        if self.shared.is_client_gone.load(Relaxed) {
            return Carriage::Gone;
        }
        // Without a permission a relay drops what comes (RFC 8656 section 11.3).
        if self.server.ms(Instant::now()) >= self.shared.until_ms.load(Relaxed) {
            return Carriage::Full;
        }
        self.message.clear();
        match Channel::new(self.shared.channel.load(Relaxed)) {
            Some(channel) => write_channel_data(&mut self.message, channel, datagram, W::IS_STREAM),
            None => {
                self.sent += 1;
                let mut id = *b"relay\0\0\0\0\0\0\0";
                id[4..].copy_from_slice(&self.sent.to_be_bytes());
                write_data_indication(&mut self.message, id, self.peer, datagram);
            }
        }
        self.wire.send(&self.message)
    }

    fn take_late(&mut self) -> u64 {
        self.wire.take_late()
    }
}

impl<W> Drop for Outlet<W> {
    fn drop(&mut self) {
        self.shared.is_path_over.store(true, Relaxed);
    }
}

fn now() -> Now {
    Now { at: Instant::now(), unix_s: unix_s(SystemTime::now()) }
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a panic left behind a lock is still whole: each change under one is a single step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
