//! Messages of TURN: STUN with methods of its own (RFC 8656 section 17), and ChannelData (section 12.4).
//!
//! A [`Message`] borrows from what arrived and allocates nothing. What it says is unproved until its integrity was
//! checked with the sender's key.

use super::TurnDrop;
use crate::transport::stun::{
    ATTRIBUTES_MAX, ERROR_CODE, FINGERPRINT, FINGERPRINT_XOR, HEADER_BYTES, INTEGRITY_BYTES, IntegrityKey,
    MAGIC_COOKIE, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, RESPONSE_BYTES_MAX, UNKNOWN_ATTRIBUTES,
    USERNAME, XOR_MAPPED_ADDRESS, address_of, attribute, crc32, put, u16_at, u32_at, xor_address,
};
use arrayvec::ArrayVec;
use std::net::SocketAddr;
use std::ops::Deref;

const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const EVEN_PORT: u16 = 0x0018;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const DONT_FRAGMENT: u16 = 0x001a;
const RESERVATION_TOKEN: u16 = 0x0022;

/// The success and error classes (RFC 8489 section 5).
const SUCCESS: u16 = 0x0100;
const ERROR: u16 = 0x0110;

const DATA_INDICATION: u16 = 0x0017;

/// Longest datagram that is relayed: browsers keep to an Ethernet frame.
pub const DATA_BYTES_MAX: usize = 1_500;

/// Longest message that is read: a Send indication around the longest datagram, to an IPv6 address.
pub const MESSAGE_BYTES_MAX: usize = DATA_BYTES_MAX + 100;

/// Most peers that one CreatePermission may name: more than a bridge has addresses as a rule.
const PEERS_OF_ONE_MAX: usize = 16;

/// Longest text of an attribute that is looked at: ours are far below.
const TEXT_BYTES_MAX: usize = 128;

/// A channel's number (RFC 8656 section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(u16);

impl Channel {
    /// `None` for a number that no channel may have.
    pub fn new(number: u16) -> Option<Self> {
        (0x4000..=0x4fff).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks for an allocation (RFC 8656 section 7).
    Allocate,
    /// Prolongs or ends one (section 8).
    Refresh,
    /// Asks to reach an address (section 9).
    CreatePermission,
    /// Gives an address a short name (section 12).
    ChannelBind,
    /// Has a datagram relayed (section 11).
    Send,
    /// The same through a channel (section 12.4).
    ChannelData,
}

impl Method {
    /// Whether it wants an answer.
    pub fn is_request(self) -> bool {
        !matches!(self, Self::Send | Self::ChannelData)
    }

    fn of(kind: u16) -> Option<Self> {
        Some(match kind {
            0x0003 => Self::Allocate,
            0x0004 => Self::Refresh,
            0x0008 => Self::CreatePermission,
            0x0009 => Self::ChannelBind,
            0x0016 => Self::Send,
            _ => return None,
        })
    }
}

/// Whether a datagram claims to be what a client of TURN sends; a connectivity check does not.
pub fn is_turn(datagram: &[u8]) -> bool {
    match datagram {
        [0x40..=0x4f, _, _, _, ..] => true,
        [0..=3, ..] if datagram.len() >= HEADER_BYTES => {
            u32_at(datagram, 4) == MAGIC_COOKIE && Method::of(u16_at(datagram, 0)).is_some()
        }
        _ => false,
    }
}

/// A well-formed message of a client. Not authenticated until [`Message::is_authentic`] said so.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    method: Method,
    integrity_at: Option<usize>,
    pub(super) username: Option<&'a str>,
    pub(super) has_realm: bool,
    pub(super) nonce: Option<&'a [u8]>,
    pub(super) lifetime_s: Option<u32>,
    /// The protocol number of REQUESTED-TRANSPORT.
    pub(super) transport: Option<u8>,
    /// 1 for IPv4, 2 for IPv6.
    pub(super) family: Option<u8>,
    /// Whether it asks for a port with a neighbour.
    pub(super) wants_pair: bool,
    pub(super) channel: Option<Channel>,
    pub(super) peers: ArrayVec<SocketAddr, PEERS_OF_ONE_MAX>,
    pub(super) data: Option<&'a [u8]>,
    pub(super) unknown: Option<u16>,
}

impl<'a> Message<'a> {
    /// Reads a message. Costs one pass over it.
    ///
    /// # Errors
    /// [`TurnDrop::Malformed`]; it deserves no answer then.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TurnDrop> {
        if bytes.len() > MESSAGE_BYTES_MAX || bytes.len() < 4 {
            return Err(TurnDrop::Malformed);
        }
        if let 0x40..=0x4f = bytes[0] {
            return Self::parse_channel_data(bytes);
        }
        if bytes.len() < HEADER_BYTES {
            return Err(TurnDrop::Malformed);
        }
        let length = usize::from(u16_at(bytes, 2));
        if length != bytes.len() - HEADER_BYTES
            || !length.is_multiple_of(4)
            || u32_at(bytes, 4) != MAGIC_COOKIE
        {
            return Err(TurnDrop::Malformed);
        }
        let method = Method::of(u16_at(bytes, 0)).ok_or(TurnDrop::Malformed)?;
        let mut message = Self::empty(bytes, method);
        message.read_attributes()?;
        Ok(message)
    }

    fn empty(bytes: &'a [u8], method: Method) -> Self {
        Self {
            bytes,
            method,
            integrity_at: None,
            username: None,
            has_realm: false,
            nonce: None,
            lifetime_s: None,
            transport: None,
            family: None,
            wants_pair: false,
            channel: None,
            peers: ArrayVec::new(),
            data: None,
            unknown: None,
        }
    }

    fn parse_channel_data(bytes: &'a [u8]) -> Result<Self, TurnDrop> {
        let length = usize::from(u16_at(bytes, 2));
        // There may be padding behind it (RFC 8656 section 12.5).
        let data = bytes.get(4..4 + length).ok_or(TurnDrop::Malformed)?;
        let channel = Channel::new(u16_at(bytes, 0)).ok_or(TurnDrop::Malformed)?;
        if data.len() > DATA_BYTES_MAX {
            return Err(TurnDrop::Malformed);
        }
        let empty = Self::empty(bytes, Method::ChannelData);
        Ok(Self { channel: Some(channel), data: Some(data), ..empty })
    }

    fn read_attributes(&mut self) -> Result<(), TurnDrop> {
        let bytes = self.bytes;
        let transaction_id = self.transaction_id();
        let mut at = HEADER_BYTES;
        for _ in 0..ATTRIBUTES_MAX {
            if at == bytes.len() {
                break;
            }
            // The length is a multiple of four, so four bytes of attribute header are there.
            let kind = u16_at(bytes, at);
            let value_bytes = usize::from(u16_at(bytes, at + 2));
            let value = bytes.get(at + 4..at + 4 + value_bytes).ok_or(TurnDrop::Malformed)?;
            match kind {
                FINGERPRINT
                    if value.len() == 4
                        && at + 8 == bytes.len()
                        && u32_at(value, 0) == crc32(&bytes[..at]) ^ FINGERPRINT_XOR => {}
                FINGERPRINT => return Err(TurnDrop::Malformed),
                // Nothing but the fingerprint counts behind the integrity (RFC 8489 section 14.5).
                _ if self.integrity_at.is_some() => {}
                MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => self.integrity_at = Some(at),
                // We never offered the stronger integrity, so it must not come alone, but it may come too.
                MESSAGE_INTEGRITY_SHA256 => {}
                USERNAME if value.len() <= TEXT_BYTES_MAX => {
                    self.username = Some(std::str::from_utf8(value).map_err(|_| TurnDrop::Malformed)?);
                }
                REALM if value.len() <= TEXT_BYTES_MAX => self.has_realm = true,
                NONCE if value.len() <= TEXT_BYTES_MAX => self.nonce = Some(value),
                LIFETIME if value.len() == 4 => self.lifetime_s = Some(u32_at(value, 0)),
                REQUESTED_TRANSPORT if value.len() == 4 => self.transport = Some(value[0]),
                REQUESTED_ADDRESS_FAMILY if value.len() == 4 => self.family = Some(value[0]),
                EVEN_PORT | RESERVATION_TOKEN => self.wants_pair = true,
                CHANNEL_NUMBER if value.len() == 4 => {
                    self.channel = Some(Channel::new(u16_at(value, 0)).ok_or(TurnDrop::Malformed)?);
                }
                XOR_PEER_ADDRESS => {
                    let peer = address_of(value, transaction_id).ok_or(TurnDrop::Malformed)?;
                    self.peers.try_push(peer).map_err(|_| TurnDrop::Malformed)?;
                }
                DATA if value.len() <= DATA_BYTES_MAX => self.data = Some(value),
                // Nothing that is relayed here becomes a packet that could be fragmented.
                DONT_FRAGMENT => {}
                MESSAGE_INTEGRITY
                | USERNAME
                | REALM
                | NONCE
                | LIFETIME
                | REQUESTED_TRANSPORT
                | REQUESTED_ADDRESS_FAMILY
                | CHANNEL_NUMBER
                | DATA => return Err(TurnDrop::Malformed),
                0..0x8000 => self.unknown = self.unknown.or(Some(kind)),
                _ => {}
            }
            at += 4 + value_bytes.next_multiple_of(4);
        }
        if at == bytes.len() { Ok(()) } else { Err(TurnDrop::Malformed) }
    }

    /// What it asks.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Names the transaction; a retransmission repeats it. Zeros in ChannelData, which has none.
    pub fn transaction_id(&self) -> [u8; 12] {
        self.bytes.get(8..20).and_then(|id| id.try_into().ok()).unwrap_or_default()
    }

    /// Whether it carries a MESSAGE-INTEGRITY at all.
    pub(super) fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Whether its MESSAGE-INTEGRITY was made with this key.
    pub fn is_authentic(&self, key: &IntegrityKey) -> bool {
        self.integrity_at.is_some_and(|at| key.has_signed(self.bytes, at))
    }

    /// Begins the answer that grants what was asked.
    pub(super) fn grant(&self) -> Reply {
        Reply::begin(u16_at(self.bytes, 0) | SUCCESS, self.transaction_id())
    }

    /// Begins the answer that refuses it (RFC 8489 section 14.8), without a phrase.
    pub(super) fn refuse(&self, code: u16) -> Reply {
        let mut reply = Reply::begin(u16_at(self.bytes, 0) | ERROR, self.transaction_id());
        reply.attribute(ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8]);
        if let (420, Some(unknown)) = (code, self.unknown) {
            reply.attribute(UNKNOWN_ATTRIBUTES, &unknown.to_be_bytes());
        }
        reply
    }
}

/// An answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(ArrayVec<u8, RESPONSE_BYTES_MAX>);

impl Reply {
    fn begin(kind: u16, transaction_id: [u8; 12]) -> Self {
        let mut out = ArrayVec::new();
        put(&mut out, &kind.to_be_bytes());
        put(&mut out, &[0, 0]);
        put(&mut out, &MAGIC_COOKIE.to_be_bytes());
        put(&mut out, &transaction_id);
        Self(out)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        attribute(&mut self.0, kind, value);
        let length = (self.0.len() - HEADER_BYTES) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }

    pub(super) fn with_lifetime(mut self, seconds: u32) -> Self {
        self.attribute(LIFETIME, &seconds.to_be_bytes());
        self
    }

    pub(super) fn with_addresses(mut self, relayed: SocketAddr, mapped: SocketAddr) -> Self {
        let id: [u8; 12] = self.0[8..20].try_into().expect("begun with a header");
        self.attribute(XOR_RELAYED_ADDRESS, &xor_address(relayed, id));
        self.attribute(XOR_MAPPED_ADDRESS, &xor_address(mapped, id));
        self
    }

    pub(super) fn with_challenge(mut self, realm: &str, nonce: &[u8]) -> Self {
        self.attribute(REALM, realm.as_bytes());
        self.attribute(NONCE, nonce);
        self
    }

    /// Ends it with a MESSAGE-INTEGRITY.
    pub(super) fn signed(mut self, key: &IntegrityKey) -> Self {
        let tag = key.sign(&self.0);
        self.attribute(MESSAGE_INTEGRITY, &tag);
        self
    }

    /// The class and code of a refusal, for counting; `None` for a success.
    pub fn refusal(&self) -> Option<u16> {
        let is_error = u16_at(&self.0, 0) & ERROR == ERROR;
        is_error.then(|| u16::from(self.0[26]) * 100 + u16::from(self.0[27]))
    }
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends a datagram that came from a peer, for a client with a channel to it; padded where the client is reached over
/// a stream (RFC 8656 section 12.5).
///
/// # Panics
/// When it is longer than any datagram.
pub fn write_channel_data(out: &mut Vec<u8>, channel: Channel, datagram: &[u8], is_padded: bool) {
    let length = u16::try_from(datagram.len()).expect("no datagram is longer");
    out.extend(channel.0.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(datagram);
    if is_padded {
        out.resize(out.len() + datagram.len().next_multiple_of(4) - datagram.len(), 0);
    }
}

/// Appends a datagram that came from a peer, for a client without a channel to it (RFC 8656 section 11.4).
///
/// # Panics
/// When it is longer than any datagram.
pub fn write_data_indication(out: &mut Vec<u8>, transaction_id: [u8; 12], peer: SocketAddr, datagram: &[u8]) {
    let address = xor_address(peer, transaction_id);
    let padded = datagram.len().next_multiple_of(4);
    let length = u16::try_from(4 + address.len() + 4 + padded).expect("no datagram is longer");
    out.extend(DATA_INDICATION.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(MAGIC_COOKIE.to_be_bytes());
    out.extend(transaction_id);
    out.extend(XOR_PEER_ADDRESS.to_be_bytes());
    out.extend((address.len() as u16).to_be_bytes());
    out.extend(address);
    out.extend(DATA.to_be_bytes());
    out.extend((datagram.len() as u16).to_be_bytes());
    out.extend(datagram);
    out.resize(out.len() + padded - datagram.len(), 0);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message as clients write it.
    pub(crate) struct Builder(Vec<u8>);

    impl Builder {
        pub(crate) fn new(kind: u16, transaction: u8) -> Self {
            let mut out = kind.to_be_bytes().to_vec();
            out.extend([0, 0]);
            out.extend(MAGIC_COOKIE.to_be_bytes());
            out.extend([transaction; 12]);
            Self(out)
        }

        pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
            self.0.extend(kind.to_be_bytes());
            self.0.extend((value.len() as u16).to_be_bytes());
            self.0.extend(value);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
            let length = (self.0.len() - HEADER_BYTES) as u16;
            self.0[2..4].copy_from_slice(&length.to_be_bytes());
            self
        }

        pub(crate) fn peer(self, peer: SocketAddr) -> Self {
            let id = self.0[8..20].try_into().unwrap();
            self.with(XOR_PEER_ADDRESS, &xor_address(peer, id))
        }

        pub(crate) fn signed(self, key: &IntegrityKey) -> Self {
            let tag = key.sign(&self.0);
            self.with(MESSAGE_INTEGRITY, &tag)
        }

        pub(crate) fn build(self) -> Vec<u8> {
            self.0
        }
    }
}
