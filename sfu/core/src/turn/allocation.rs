//! One allocation: what its client may reach, through which channels, and until when.
//!
//! It is told what arrived from the client's own address and says what to do; it neither sends nor relays. The peers it
//! allows are the addresses that the bridge offers as its own candidates and nothing else, whatever notation a client
//! finds for anything else.

use super::credentials::TurnSecret;
use super::ledger::Full;
use super::{Channel, Message, Method, Reply, TurnDrop};
use crate::transport::stun::IntegrityKey;
use arrayvec::ArrayVec;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long an allocation lives after it was made or refreshed (RFC 8656 section 3.2).
pub const LIFETIME: Duration = Duration::from_secs(600);

/// How long a permission lives after it was given or renewed (RFC 8656 section 9).
pub const PERMISSION: Duration = Duration::from_secs(300);

/// How long a channel lives after it was bound or renewed (RFC 8656 section 12).
const CHANNEL: Duration = Duration::from_secs(600);

/// The protocol number of UDP, all that is relayed.
const UDP: u8 = 17;

/// Most of our own addresses that one allocation may reach.
pub const PEERS_MAX: usize = 32;

/// An address of ours that an allocation may reach, and how.
#[derive(Clone, Copy, Debug)]
struct Peer {
    address: SocketAddr,
    permitted_until: Option<Instant>,
    channel: Option<(Channel, Instant)>,
}

/// The time, on both clocks: credentials outlive a process, allocations do not.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes.
    pub at: Instant,
    /// Seconds since 1970, for credentials and nonces.
    pub unix_s: u64,
}

/// Where an allocation is to lead.
#[derive(Clone, Copy, Debug)]
pub struct Relayed<'a> {
    /// Our own media addresses; the first [`PEERS_MAX`] of them can be reached.
    pub offered: &'a [SocketAddr],
    /// The port number that stands for the allocation.
    pub port: u16,
}

/// How what a peer sends gets to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The channel to use, or a Data indication without one.
    pub channel: Option<Channel>,
    /// Until when.
    pub until: Instant,
}

/// What to do about a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Answer the client.
    Reply(Reply),
    /// Answer the client; the allocation has ended.
    End(Reply),
    /// Hand a datagram to one of our own addresses.
    Relay {
        /// Which.
        peer: SocketAddr,
        /// What.
        datagram: &'a [u8],
    },
    /// Nothing, for this reason.
    Drop(TurnDrop),
}

/// See the module.
pub struct Allocation {
    username: String,
    key: IntegrityKey,
    client: SocketAddr,
    relayed: SocketAddr,
    begun_with: [u8; 12],
    expires_at: Instant,
    peers: ArrayVec<Peer, PEERS_MAX>,
}

impl Allocation {
    /// Makes an allocation for an Allocate request that [`TurnSecret::greet`] has admitted. `take` counts it under the
    /// user's name and may refuse.
    ///
    /// # Errors
    /// What to answer instead.
    pub fn begin(
        now: Now,
        secret: &TurnSecret,
        client: SocketAddr,
        bytes: &[u8],
        Relayed { offered, port }: Relayed<'_>,
        take: impl FnOnce(&str) -> Result<(), Full>,
    ) -> Result<(Self, Reply), Option<Reply>> {
        let message = Message::parse(bytes).map_err(|_| None)?;
        let user = secret.authenticate(now.unix_s, client, &message).map_err(Some)?;
        let refuse = |code| Some(message.refuse(code).signed(&user.key));
        if message.method() != Method::Allocate {
            return Err(None);
        }
        if message.unknown.is_some() {
            return Err(refuse(420));
        }
        match message.transport {
            None => return Err(refuse(400)),
            Some(UDP) => {}
            Some(_) => return Err(refuse(442)),
        }
        if message.wants_pair {
            return Err(refuse(508));
        }
        // Without a wish IPv4 (RFC 8656 section 7.2), but where we have none a client is better served by IPv6.
        let of_family = |family| offered.iter().find(|address| address.is_ipv4() == (family == 1));
        let ip = match message.family {
            Some(family @ (1 | 2)) => of_family(family),
            Some(_) => None,
            None => of_family(1).or(offered.first()),
        };
        let Some(ip) = ip.map(SocketAddr::ip) else { return Err(refuse(440)) };
        take(user.name).map_err(|full| refuse(full.code()))?;
        let peers = offered.iter().filter(|address| address.is_ipv4() == ip.is_ipv4());
        let allocation = Self {
            username: user.name.to_owned(),
            key: user.key,
            client,
            relayed: SocketAddr::new(ip, port),
            begun_with: message.transaction_id(),
            expires_at: now.at + LIFETIME,
            peers: peers
                .take(PEERS_MAX)
                .map(|address| Peer { address: *address, permitted_until: None, channel: None })
                .collect(),
        };
        let reply = allocation.granted(&message);
        Ok((allocation, reply))
    }

    /// Under whose name it is counted.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Where its client is.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The address that stands for it.
    pub fn relayed(&self) -> SocketAddr {
        self.relayed
    }

    /// When it ends unless it is refreshed.
    pub fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// How what comes from a peer gets to the client; `None` without a permission.
    pub fn route(&self, peer: SocketAddr, now: Instant) -> Option<Route> {
        let peer = self.peers.iter().find(|known| known.address == peer)?;
        let until = peer.permitted_until.filter(|until| *until > now)?;
        let channel = peer.channel.filter(|(_, until)| *until > now);
        let until = channel.map_or(until, |(_, ends)| ends.min(until)).min(self.expires_at);
        Some(Route { channel: channel.map(|(channel, _)| channel), until })
    }

    /// Takes in what its client sent.
    pub fn handle<'a>(&mut self, now: Now, secret: &TurnSecret, bytes: &'a [u8]) -> Action<'a> {
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(reason) => return Action::Drop(reason),
        };
        match message.method() {
            Method::Send => {
                let (Some(datagram), [peer]) = (message.data, &message.peers[..]) else {
                    return Action::Drop(TurnDrop::Malformed);
                };
                self.relay(now, *peer, datagram)
            }
            Method::ChannelData => {
                let bound = |peer: &&Peer| {
                    peer.channel
                        .is_some_and(|(bound, until)| Some(bound) == message.channel && until > now.at)
                };
                match (self.peers.iter().find(bound), message.data) {
                    (Some(peer), Some(datagram)) => self.relay(now, peer.address, datagram),
                    _ => Action::Drop(TurnDrop::NotPermitted),
                }
            }
            Method::Allocate | Method::Refresh | Method::CreatePermission | Method::ChannelBind => {
                self.handle_request(now, secret, &message)
            }
        }
    }

    fn relay<'a>(&self, now: Now, peer: SocketAddr, datagram: &'a [u8]) -> Action<'a> {
        match self.route(peer, now.at) {
            Some(_) => Action::Relay { peer, datagram },
            None => Action::Drop(TurnDrop::NotPermitted),
        }
    }

    fn handle_request<'a>(&mut self, now: Now, secret: &TurnSecret, message: &Message<'a>) -> Action<'a> {
        // An expired user's allocation goes on: a call may last longer than what began it.
        let user = match secret.authenticate(now.unix_s, self.client, message) {
            Ok(user) => user,
            Err(reply) => return Action::Reply(reply),
        };
        if user.name != self.username {
            return Action::Reply(message.refuse(441).signed(&user.key));
        }
        let result = if message.unknown.is_some() {
            Err(420)
        } else {
            match message.method() {
                Method::Allocate if message.transaction_id() == self.begun_with => {
                    return Action::Reply(self.granted(message));
                }
                Method::Allocate => Err(437),
                Method::Refresh => match self.refresh(now, message) {
                    Ok(lifetime) => {
                        let reply =
                            message.grant().with_lifetime(lifetime.as_secs() as u32).signed(&self.key);
                        return if lifetime.is_zero() { Action::End(reply) } else { Action::Reply(reply) };
                    }
                    Err(code) => Err(code),
                },
                Method::CreatePermission => self.permit(now, message),
                _ => self.bind(now, message),
            }
        };
        let reply = match result {
            Ok(()) => message.grant(),
            Err(code) => message.refuse(code),
        };
        Action::Reply(reply.signed(&self.key))
    }

    /// The answer to the request that it began with, and to repetitions of that.
    fn granted(&self, message: &Message<'_>) -> Reply {
        message
            .grant()
            .with_addresses(self.relayed, self.client)
            .with_lifetime(LIFETIME.as_secs() as u32)
            .signed(&self.key)
    }

    fn refresh(&mut self, now: Now, message: &Message<'_>) -> Result<Duration, u16> {
        if message.family.is_some_and(|family| (family == 1) != self.relayed.is_ipv4()) {
            return Err(443);
        }
        let lifetime = if message.lifetime_s == Some(0) { Duration::ZERO } else { LIFETIME };
        self.expires_at = now.at + lifetime;
        Ok(lifetime)
    }

    fn permit(&mut self, now: Now, message: &Message<'_>) -> Result<(), u16> {
        if message.peers.is_empty() {
            return Err(400);
        }
        for peer in &message.peers {
            self.allows(peer.ip())?;
        }
        for asked in &message.peers {
            // A permission is for an address, whatever the port (RFC 8656 section 9).
            for peer in self.peers.iter_mut().filter(|peer| peer.address.ip() == asked.ip()) {
                peer.permitted_until = Some(now.at + PERMISSION);
            }
        }
        Ok(())
    }

    fn bind(&mut self, now: Now, message: &Message<'_>) -> Result<(), u16> {
        let (Some(channel), [asked]) = (message.channel, &message.peers[..]) else { return Err(400) };
        self.allows(asked.ip())?;
        // A channel has one peer and a peer one channel, as long as they are bound (RFC 8656 section 12.2).
        let contradicts = |peer: &Peer| {
            let bound = peer.channel.filter(|(_, until)| *until > now.at);
            bound.is_some_and(|(bound, _)| (bound == channel) != (peer.address == *asked))
        };
        if self.peers.iter().any(contradicts) {
            return Err(400);
        }
        let peer = self.peers.iter_mut().find(|peer| peer.address == *asked).ok_or(403_u16)?;
        peer.channel = Some((channel, now.at + CHANNEL));
        peer.permitted_until = Some(now.at + PERMISSION);
        Ok(())
    }

    /// Whether an address is one of ours, as we write it: another notation of it is refused like any other address.
    fn allows(&self, ip: IpAddr) -> Result<(), u16> {
        if ip.is_ipv4() != self.relayed.is_ipv4() {
            return Err(443);
        }
        if self.peers.iter().any(|peer| peer.address.ip() == ip) { Ok(()) } else { Err(403) }
    }
}
