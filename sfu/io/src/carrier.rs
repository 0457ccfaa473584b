//! Carriers: ways to a peer that are no UDP socket of ours, such as a TCP stream (RFC 6544).
//!
//! Whoever holds the stream hands in what arrives through an [`Inlet`] and takes what is to leave through its own
//! [`Carrier`]. Neither side ever waits for the other: both are bounded, and what exceeds a bound is dropped and
//! counted, as a network would. Paths over UDP sockets pass none of this.

use asamblea_sfu_core::transport::CarrierId;
use asamblea_sfu_core::transport::ice::{self, NodeSecret};
use mio::Waker;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;

/// Carried datagrams that wait for one shard, of all carriers together: two turns of it.
pub const CARRIED_MAX: usize = 1_024;

/// Of these, from one carrier: a fifth of a second of 8 Mbit/s, so that no one fills the mailbox alone.
pub const CARRIED_OF_ONE_MAX: usize = 128;

/// The sending side of a carrier, called on a shard's thread. Must neither block nor panic.
pub trait Carrier: Send {
    /// Takes a datagram, or says why not.
    fn send(&mut self, datagram: &[u8]) -> Carriage;

    /// How many datagrams that it had taken were dropped since the last call because they had grown too old.
    fn take_late(&mut self) -> u64;
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// It is under way.
    Taken,
    /// No room for it; the next may fare better.
    Full,
    /// The carrier has ended.
    Gone,
}

/// What a shard hears of carriers.
pub(crate) enum CarriedMail {
    /// A new carrier with an authentic check.
    Begin { id: CarrierId, address: SocketAddr, carrier: Box<dyn Carrier>, check: Box<[u8]> },
    /// A datagram of one that has begun.
    Datagram { id: CarrierId, datagram: Box<[u8]>, place: Place },
}

/// One of [`CARRIED_OF_ONE_MAX`] places, free again when dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The end of a shard's mailbox for carriers.
#[derive(Clone)]
pub(crate) struct CarriedSender {
    pub(crate) mail: SyncSender<CarriedMail>,
    pub(crate) waker: Arc<Waker>,
}

impl CarriedSender {
    /// Puts something into the mailbox; false if there was no room for it.
    pub(crate) fn try_send(&self, mail: CarriedMail) -> bool {
        self.mail.try_send(mail).is_ok() && self.waker.wake().is_ok()
    }
}

impl fmt::Debug for CarriedSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarriedSender").finish_non_exhaustive()
    }
}

/// The receiving side of a carrier: hands what arrives to the shard.
#[derive(Debug)]
pub struct Inlet {
    id: CarrierId,
    sender: CarriedSender,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Inlet {
    pub(crate) fn new(id: CarrierId, sender: CarriedSender, dropped: Arc<AtomicU64>) -> Self {
        Self { id, sender, waiting: Arc::default(), dropped }
    }

    /// Hands in a datagram. Dropped and counted if too many wait already.
    pub fn send(&self, datagram: &[u8]) {
        if self.waiting.load(Relaxed) >= CARRIED_OF_ONE_MAX {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.waiting.fetch_add(1, Relaxed);
        let place = Place(self.waiting.clone());
        if !self.sender.try_send(CarriedMail::Datagram { id: self.id, datagram: datagram.into(), place }) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// The door for carriers: lets one in whose first datagram is an authentic check, to the shard that the check names.
pub(crate) struct Admission {
    secret: Arc<NodeSecret>,
    shards: Vec<CarriedSender>,
    begun: AtomicU64,
    refused: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl Admission {
    pub(crate) fn new(secret: Arc<NodeSecret>, shards: Vec<CarriedSender>) -> Self {
        let (begun, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { secret, shards, begun, refused, dropped: Arc::default() }
    }

    /// Takes in a carrier, from any thread. Never waits. The carrier is dropped when its path has ended.
    pub(crate) fn admit(
        &self,
        address: SocketAddr,
        first: &[u8],
        carrier: Box<dyn Carrier>,
    ) -> Option<Inlet> {
        let shard = ice::authenticate_check(&self.secret, first).ok();
        let Some(sender) = shard.and_then(|check| self.shards.get(usize::from(check.shard))) else {
            self.refused.fetch_add(1, Relaxed);
            return None;
        };
        let id = CarrierId(self.begun.fetch_add(1, Relaxed));
        let begin = CarriedMail::Begin { id, address, carrier, check: first.into() };
        sender.try_send(begin).then(|| Inlet::new(id, sender.clone(), self.dropped.clone()))
    }

    /// First datagrams that were no authentic check, and datagrams for which there was no room.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.refused.load(Relaxed), self.dropped.load(Relaxed))
    }
}
