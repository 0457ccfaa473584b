//! The part of STUN (RFC 8489) that a lite ICE agent needs: reading binding requests and writing their answers.
//!
//! A [`Request`] borrows from the datagram and allocates nothing, so that a flood of forged requests costs a scan and
//! one HMAC each. It never answers, keeps or trusts anything by itself: the integrity is checked by
//! [`Request::is_authentic`], and whoever calls decides.

use ring::hmac;
use std::net::{IpAddr, SocketAddr};

pub(crate) const HEADER_BYTES: usize = 20;
pub(crate) const MAGIC_COOKIE: u32 = 0x2112_a442;
pub(crate) const FINGERPRINT_XOR: u32 = 0x5354_554e;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

pub(crate) const USERNAME: u16 = 0x0006;
pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(crate) const ERROR_CODE: u16 = 0x0009;
pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
pub(crate) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
pub(crate) const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

pub(crate) const INTEGRITY_BYTES: usize = 20;

/// Longest request that is read: a browser's has about 110 bytes, the longest allowed username 513 (RFC 8489 14.3).
pub const REQUEST_BYTES_MAX: usize = 1_024;

/// Most attributes of one request that are looked at: browsers send 6 or 7.
pub const ATTRIBUTES_MAX: usize = 24;

/// Longest answer: an error with its reason, two integrity attributes and an IPv6 address fit well.
pub const RESPONSE_BYTES_MAX: usize = 128;

/// Why a datagram is not taken as a connectivity check. Each is counted by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunDrop {
    /// Not a well-formed STUN message, or longer than [`REQUEST_BYTES_MAX`].
    #[error("malformed")]
    Malformed,
    /// Well-formed, but a response, an indication or another method: nothing here awaits those.
    #[error("not a binding request")]
    NotARequest,
    /// The FINGERPRINT is wrong.
    #[error("wrong fingerprint")]
    Fingerprint,
    /// No MESSAGE-INTEGRITY, no USERNAME, or none that a connectivity check has (RFC 8445 section 7.1).
    #[error("no credentials")]
    NoCredentials,
    /// The USERNAME is not one of ours.
    #[error("unknown user name")]
    UnknownUser,
    /// The MESSAGE-INTEGRITY is wrong.
    #[error("wrong integrity")]
    Integrity,
}

/// The ICE role the sender of a request claims (RFC 8445 section 7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// ICE-CONTROLLING, as everyone who talks to a lite agent must be.
    Controlling,
    /// ICE-CONTROLLED: a role conflict.
    Controlled,
}

/// A well-formed binding request. Not authenticated until [`Request::is_authentic`] said so.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    datagram: &'a [u8],
    integrity_at: usize,
    username: &'a str,
    priority: Option<u32>,
    role: Option<Role>,
    use_candidate: bool,
    unknown: Option<u16>,
}

impl<'a> Request<'a> {
    /// Reads a datagram as a binding request with short-term credentials. Costs one pass over it.
    ///
    /// # Errors
    /// [`StunDrop`] with the reason; the datagram deserves no answer then.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunDrop> {
        if datagram.len() < HEADER_BYTES || datagram.len() > REQUEST_BYTES_MAX {
            return Err(StunDrop::Malformed);
        }
        let length = usize::from(u16_at(datagram, 2));
        if length != datagram.len() - HEADER_BYTES
            || !length.is_multiple_of(4)
            || u32_at(datagram, 4) != MAGIC_COOKIE
        {
            return Err(StunDrop::Malformed);
        }
        if u16_at(datagram, 0) != BINDING_REQUEST {
            return Err(StunDrop::NotARequest);
        }
        let mut username = None;
        let mut integrity_at = None;
        let mut request = Self {
            datagram,
            integrity_at: 0,
            username: "",
            priority: None,
            role: None,
            use_candidate: false,
            unknown: None,
        };
        let mut at = HEADER_BYTES;
        for _ in 0..ATTRIBUTES_MAX {
            if at == datagram.len() {
                break;
            }
            // The length is a multiple of four, so four bytes of attribute header are there.
            let kind = u16_at(datagram, at);
            let value_bytes = usize::from(u16_at(datagram, at + 2));
            let value = datagram.get(at + 4..at + 4 + value_bytes).ok_or(StunDrop::Malformed)?;
            match kind {
                FINGERPRINT => {
                    if value.len() != 4 || at + 8 != datagram.len() {
                        return Err(StunDrop::Malformed);
                    }
                    if u32_at(value, 0) != crc32(&datagram[..at]) ^ FINGERPRINT_XOR {
                        return Err(StunDrop::Fingerprint);
                    }
                }
                // Nothing but the fingerprint counts behind the integrity (RFC 8489 section 14.5).
                _ if integrity_at.is_some() => {}
                USERNAME => username = Some(std::str::from_utf8(value).map_err(|_| StunDrop::Malformed)?),
                MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => integrity_at = Some(at),
                PRIORITY if value.len() == 4 => request.priority = Some(u32_at(value, 0)),
                USE_CANDIDATE => request.use_candidate = true,
                ICE_CONTROLLED if value.len() == 8 => request.role = Some(Role::Controlled),
                ICE_CONTROLLING if value.len() == 8 => request.role = Some(Role::Controlling),
                MESSAGE_INTEGRITY | PRIORITY | ICE_CONTROLLED | ICE_CONTROLLING => {
                    return Err(StunDrop::Malformed);
                }
                // We never offered the stronger integrity, so it must not come alone, but it may come too.
                MESSAGE_INTEGRITY_SHA256 => {}
                0..0x8000 => request.unknown = request.unknown.or(Some(kind)),
                _ => {}
            }
            at += 4 + value_bytes.next_multiple_of(4);
        }
        if at != datagram.len() {
            return Err(StunDrop::Malformed);
        }
        request.username = username.ok_or(StunDrop::NoCredentials)?;
        request.integrity_at = integrity_at.ok_or(StunDrop::NoCredentials)?;
        Ok(request)
    }

    /// The two halves of the USERNAME: the receiver's user name fragment, then the sender's (RFC 8445 section 7.2.2).
    ///
    /// # Errors
    /// [`StunDrop::NoCredentials`] when there is no colon.
    pub fn ufrags(&self) -> Result<(&'a str, &'a str), StunDrop> {
        self.username.split_once(':').ok_or(StunDrop::NoCredentials)
    }

    /// Whether the MESSAGE-INTEGRITY was made with the receiver's password (RFC 8489 section 14.5).
    pub fn is_authentic(&self, key: &IntegrityKey) -> bool {
        key.has_signed(self.datagram, self.integrity_at)
    }

    /// Names the transaction; a retransmission repeats it.
    pub fn transaction_id(&self) -> [u8; 12] {
        self.datagram[8..20].try_into().expect("the header was measured in parse")
    }

    /// The priority a peer-reflexive candidate learned from this request would have (RFC 8445 section 7.1.1).
    pub fn priority(&self) -> Option<u32> {
        self.priority
    }

    /// The role the sender claims.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Whether the sender nominates this pair (RFC 8445 section 7.1.2).
    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// The first attribute that had to be understood and was not (RFC 8489 section 6.3.1).
    pub fn unknown_attribute(&self) -> Option<u16> {
        self.unknown
    }
}

/// A password's key, ready for signing (RFC 8489 section 9).
#[derive(Clone)]
pub struct IntegrityKey(hmac::Key);

impl IntegrityKey {
    /// Takes an ICE password, which is its own key (RFC 8489 section 9.1.1).
    pub fn new(pwd: &str) -> Self {
        Self::from_bytes(pwd.as_bytes())
    }

    /// Takes the key itself, such as the hash of a long-term password (RFC 8489 section 9.2.2).
    pub(crate) fn from_bytes(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key))
    }

    /// Whether the MESSAGE-INTEGRITY that begins at a place of this message was made with this key.
    pub(crate) fn has_signed(&self, message: &[u8], integrity_at: usize) -> bool {
        let Some(found) = message.get(integrity_at + 4..integrity_at + 4 + INTEGRITY_BYTES) else {
            return false;
        };
        rtc_dtls::crypto_provider::constant_time_eq(&self.sign(&message[..integrity_at]), found)
    }

    /// Signs a message that ends where its MESSAGE-INTEGRITY begins.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; INTEGRITY_BYTES] {
        // The length is that of a message which ends with the integrity, whatever follows in this one.
        let length = (message.len() - HEADER_BYTES + 4 + INTEGRITY_BYTES) as u16;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&message[..2]);
        context.update(&length.to_be_bytes());
        context.update(&message[4..]);
        context.sign().as_ref().try_into().expect("SHA-1 has 20 bytes")
    }
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Success: tells the sender where it is seen to be (RFC 8489 section 14.2).
    Mapped(SocketAddr),
    /// 487 Role Conflict: the sender has to be controlling (RFC 8445 section 7.3.1.1).
    RoleConflict,
    /// 420 Unknown Attribute (RFC 8489 section 6.3.1).
    UnknownAttribute(u16),
}

/// Writes the answer to an authenticated request, with MESSAGE-INTEGRITY and FINGERPRINT.
pub fn respond(
    transaction_id: [u8; 12],
    answer: Answer,
    key: &IntegrityKey,
) -> arrayvec::ArrayVec<u8, RESPONSE_BYTES_MAX> {
    let mut out = arrayvec::ArrayVec::new();
    let kind = if matches!(answer, Answer::Mapped(_)) { BINDING_SUCCESS } else { BINDING_ERROR };
    put(&mut out, &kind.to_be_bytes());
    put(&mut out, &[0, 0]);
    put(&mut out, &MAGIC_COOKIE.to_be_bytes());
    put(&mut out, &transaction_id);
    match answer {
        Answer::Mapped(remote) => {
            attribute(&mut out, XOR_MAPPED_ADDRESS, &xor_address(remote, transaction_id));
        }
        Answer::RoleConflict => attribute(&mut out, ERROR_CODE, b"\0\0\x04\x57Role Conflict"),
        Answer::UnknownAttribute(unknown) => {
            attribute(&mut out, ERROR_CODE, b"\0\0\x04\x14Unknown Attribute");
            attribute(&mut out, UNKNOWN_ATTRIBUTES, &unknown.to_be_bytes());
        }
    }
    let tag = key.sign(&out);
    attribute(&mut out, MESSAGE_INTEGRITY, &tag);
    // The fingerprint counts itself in the length (RFC 8489 section 14.7).
    let length = (out.len() - HEADER_BYTES + 8) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let fingerprint = crc32(&out) ^ FINGERPRINT_XOR;
    attribute(&mut out, FINGERPRINT, &fingerprint.to_be_bytes());
    out
}

/// An address as the XOR attributes have it (RFC 8489 section 14.2).
pub(crate) fn xor_address(address: SocketAddr, transaction_id: [u8; 12]) -> arrayvec::ArrayVec<u8, 20> {
    let mut value = arrayvec::ArrayVec::new();
    value.extend([0, if address.is_ipv4() { 1 } else { 2 }]);
    value.extend((address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes());
    let mask = address_mask(transaction_id);
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(mask).map(|(octet, mask)| octet ^ mask)),
        IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(mask).map(|(octet, mask)| octet ^ mask)),
    }
    value
}

/// The address that an XOR attribute holds; `None` if it holds none.
pub(crate) fn address_of(value: &[u8], transaction_id: [u8; 12]) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]) ^ (MAGIC_COOKIE >> 16) as u16;
    let mask = address_mask(transaction_id);
    let ip: IpAddr = match head[1] {
        1 => std::array::from_fn::<u8, 4, _>(|at| mask[at] ^ ip.get(at).copied().unwrap_or_default()).into(),
        2 => std::array::from_fn::<u8, 16, _>(|at| mask[at] ^ ip.get(at).copied().unwrap_or_default()).into(),
        _ => return None,
    };
    let bytes = if ip.is_ipv4() { 8 } else { 20 };
    (value.len() == bytes).then_some(SocketAddr::new(ip, port))
}

fn address_mask(transaction_id: [u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction_id);
    mask
}

pub(crate) fn put(out: &mut arrayvec::ArrayVec<u8, RESPONSE_BYTES_MAX>, bytes: &[u8]) {
    out.try_extend_from_slice(bytes).expect("RESPONSE_BYTES_MAX holds the longest answer");
}

pub(crate) fn attribute(out: &mut arrayvec::ArrayVec<u8, RESPONSE_BYTES_MAX>, kind: u16, value: &[u8]) {
    put(out, &kind.to_be_bytes());
    put(out, &(value.len() as u16).to_be_bytes());
    put(out, value);
    put(out, &[0; 3][..value.len().next_multiple_of(4) - value.len()]);
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// CRC-32 of ITU V.42 (RFC 8489 section 14.7).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A binding request as browsers write it.
    pub(crate) struct RequestBuilder {
        pub(crate) username: String,
        pub(crate) pwd: String,
        pub(crate) transaction_id: [u8; 12],
        pub(crate) use_candidate: bool,
        pub(crate) role: u16,
        pub(crate) extra: Option<(u16, Vec<u8>)>,
    }

    impl RequestBuilder {
        pub(crate) fn new(username: &str, pwd: &str, transaction: u64) -> Self {
            let mut transaction_id = [7; 12];
            transaction_id[..8].copy_from_slice(&transaction.to_be_bytes());
            Self {
                username: username.into(),
                pwd: pwd.into(),
                transaction_id,
                use_candidate: false,
                role: ICE_CONTROLLING,
                extra: None,
            }
        }

        pub(crate) fn nominating(mut self) -> Self {
            self.use_candidate = true;
            self
        }

        pub(crate) fn controlled(mut self) -> Self {
            self.role = ICE_CONTROLLED;
            self
        }

        pub(crate) fn build(&self) -> Vec<u8> {
            let mut out = Vec::new();
            out.extend(BINDING_REQUEST.to_be_bytes());
            out.extend([0, 0]);
            out.extend(MAGIC_COOKIE.to_be_bytes());
            out.extend(self.transaction_id);
            let mut add = |kind: u16, value: &[u8]| {
                out.extend(kind.to_be_bytes());
                out.extend((value.len() as u16).to_be_bytes());
                out.extend(value);
                out.resize(out.len().next_multiple_of(4), 0);
                out.clone()
            };
            add(USERNAME, self.username.as_bytes());
            add(0xc057, &[0, 1, 3, 231]);
            add(self.role, &[9; 8]);
            if self.use_candidate {
                add(USE_CANDIDATE, &[]);
            }
            if let Some((kind, value)) = &self.extra {
                add(*kind, value);
            }
            let so_far = add(PRIORITY, &0x6e7f_1eff_u32.to_be_bytes());
            let signed = add(MESSAGE_INTEGRITY, &IntegrityKey::new(&self.pwd).sign(&so_far));
            let length = (signed.len() - HEADER_BYTES + 8) as u16;
            out[2..4].copy_from_slice(&length.to_be_bytes());
            let fingerprint = crc32(&out) ^ FINGERPRINT_XOR;
            out.extend([0x80, 0x28, 0, 4]);
            out.extend(fingerprint.to_be_bytes());
            out
        }
    }

    /// RFC 5769 section 2.1: a request with the password VOkJxbRl1RmTxUk/WvJxBt and padding of spaces.
    const SAMPLE: [u8; 108] = [
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
        0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20,
        0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00,
        0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a,
        0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf,
        0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28,
        0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
    ];

    #[test]
    fn the_sample_request_of_rfc_5769_is_read() {
        let request = Request::parse(&SAMPLE).unwrap();
        assert_eq!(request.ufrags(), Ok(("evtj", "h6vY")));
        assert_eq!(request.priority(), Some(0x6e00_01ff));
        assert_eq!(request.role(), Some(Role::Controlled));
        assert!(!request.use_candidate());
        assert!(request.is_authentic(&IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBt")));
        assert!(!request.is_authentic(&IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBu")));
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let key = IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBt");
        // All but the header of the fingerprint, which the integrity does not cover.
        for bit in (0..100 * 8).chain(104 * 8..108 * 8) {
            let mut changed = SAMPLE;
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_taken = Request::parse(&changed).is_ok_and(|request| request.is_authentic(&key));
            assert!(!is_taken, "bit {bit}");
        }
    }

    #[test]
    fn answers_are_what_another_stun_library_expects() {
        use rtc_dtls::crypto_provider::{RTCCryptoProvider, providers::RingProvider};
        use rtc_stun::attributes::ATTR_ERROR_CODE;
        use rtc_stun::integrity::MessageIntegrity;
        use rtc_stun::message::{Getter, Message};
        use rtc_stun::xoraddr::XorMappedAddress;
        for remote in ["192.0.2.7:40001", "[2001:db8::9]:5"] {
            let remote: SocketAddr = remote.parse().unwrap();
            let bytes =
                respond([3; 12], Answer::Mapped(remote), &IntegrityKey::new("secret-secret-secret-se"));
            let mut message = Message::new();
            message.unmarshal_binary(&bytes).unwrap();
            let mut mapped = XorMappedAddress::default();
            mapped.get_from(&message).unwrap();
            assert_eq!(SocketAddr::new(mapped.ip, mapped.port), remote);
            rtc_stun::fingerprint::FINGERPRINT.check(&message).unwrap();
            let provider = RingProvider::new();
            MessageIntegrity::check(&mut message, b"secret-secret-secret-se", provider.crypto()).unwrap();
            assert!(MessageIntegrity::check(&mut message, b"another", provider.crypto()).is_err());
        }
        for (answer, code) in [(Answer::RoleConflict, 487), (Answer::UnknownAttribute(0x7777), 420)] {
            let bytes = respond([3; 12], answer, &IntegrityKey::new("secret-secret-secret-se"));
            let mut message = Message::new();
            message.unmarshal_binary(&bytes).unwrap();
            let value = message.get(ATTR_ERROR_CODE).unwrap();
            assert_eq!(u32::from(value[2]) * 100 + u32::from(value[3]), code);
        }
    }

    #[test]
    fn a_browsers_request_is_read_whole() {
        let bytes = RequestBuilder::new("server:client", "password", 1).nominating().build();
        let request = Request::parse(&bytes).unwrap();
        assert!(request.use_candidate() && request.is_authentic(&IntegrityKey::new("password")));
        assert_eq!(request.role(), Some(Role::Controlling));
        assert_eq!(request.unknown_attribute(), None);
    }

    #[test]
    fn an_unknown_attribute_that_must_be_understood_is_named() {
        let mut builder = RequestBuilder::new("server:client", "password", 1);
        builder.extra = Some((0x7abc, vec![1, 2, 3]));
        assert_eq!(Request::parse(&builder.build()).unwrap().unknown_attribute(), Some(0x7abc));
    }

    #[test]
    fn what_is_no_request_says_why() {
        let mut response = SAMPLE;
        response[0] = 1;
        assert_eq!(Request::parse(&response).unwrap_err(), StunDrop::NotARequest);
        assert_eq!(Request::parse(&SAMPLE[..SAMPLE.len() - 4]).unwrap_err(), StunDrop::Malformed);
        assert_eq!(Request::parse(&[0; REQUEST_BYTES_MAX + 1]).unwrap_err(), StunDrop::Malformed);
        let mut fingerprint = SAMPLE;
        fingerprint[107] ^= 1;
        assert_eq!(Request::parse(&fingerprint).unwrap_err(), StunDrop::Fingerprint);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), honest: bool) {
            if honest && bytes.len() >= HEADER_BYTES {
                let length = (bytes.len() - HEADER_BYTES) as u16;
                bytes[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            }
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert!(!request.is_authentic(&IntegrityKey::new("password")));
            }
        }

        #[test]
        fn mutated_requests_never_panic(at in 0usize..SAMPLE.len(), value: u8, cut in 0usize..SAMPLE.len()) {
            let mut bytes = SAMPLE;
            bytes[at] = value;
            let _ = Request::parse(&bytes);
            let _ = Request::parse(&bytes[..cut]);
        }
    }
}
