//! The other end of a secure path, as cheap as it can be: it proves its ICE password, skips the DTLS handshake
//! (both ends are given the same keys) and seals what it sends with the real SRTP.
//!
//! So a benchmark can put a thousand peers on one shard in a moment and still runs every instruction of the packet
//! path.

use asamblea_sfu_core::negotiate::{Fingerprint, IceCredentials};
use asamblea_sfu_core::transport::PrefilterCounters;
use asamblea_sfu_core::transport::dtls::{Dtls, DtlsEvent, DtlsFactory};
use asamblea_sfu_core::transport::srtp::{Profile, Srtp};
use ring::hmac;
use std::time::Instant;

const PROFILE: Profile = Profile::AeadAes128Gcm;
/// Master key and master salt of AES-128-GCM (RFC 7714).
const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 12;

/// Makes handshakes that are over with the first datagram.
pub(crate) struct ImmediateFactory;

impl DtlsFactory for ImmediateFactory {
    fn accept(&self, _now: Instant, expected: Fingerprint) -> Box<dyn Dtls> {
        Box::new(Immediate { expected, event: None, counters: PrefilterCounters::default() })
    }
}

struct Immediate {
    expected: Fingerprint,
    event: Option<DtlsEvent>,
    counters: PrefilterCounters,
}

impl Dtls for Immediate {
    fn handle_datagram(&mut self, _now: Instant, _datagram: &[u8]) {
        self.event = Some(DtlsEvent::Connected {
            profile: PROFILE,
            keying_material: keying_material(self.expected, Side::Server),
            peer_fingerprint: self.expected,
        });
    }
    fn handle_timeout(&mut self, _now: Instant) {}
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn poll_datagram(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn poll_event(&mut self) -> Option<DtlsEvent> {
        self.event.take()
    }
    fn close(&mut self, _now: Instant) {}
    fn counters(&self) -> &PrefilterCounters {
        &self.counters
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Keys that both ends can make from the fingerprint. The client takes the two directions swapped, since [`Srtp`]
/// always plays the server.
fn keying_material(fingerprint: Fingerprint, side: Side) -> Vec<u8> {
    let (client_key, rest) = fingerprint.0.split_at(KEY_BYTES);
    let server_key: Vec<u8> = rest.iter().map(|byte| byte ^ 0xa5).collect();
    let client_salt = &fingerprint.0[..SALT_BYTES];
    let server_salt: Vec<u8> = client_salt.iter().map(|byte| byte ^ 0x5a).collect();
    match side {
        Side::Server => [client_key, &server_key, client_salt, &server_salt].concat(),
        Side::Client => [&server_key, client_key, &server_salt, client_salt].concat(),
    }
}

/// The client's SRTP.
pub(crate) fn client_srtp(fingerprint: Fingerprint) -> Srtp {
    Srtp::new(PROFILE, &keying_material(fingerprint, Side::Client))
}

/// A datagram that ends [`Immediate`]'s handshake: it only has to look like a DTLS record.
pub(crate) const HANDSHAKE: [u8; 14] = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

/// A nominating connectivity check (RFC 8445 section 7.2.4) towards `server` from the agent with `client_ufrag`.
pub(crate) fn check(server: &IceCredentials, client_ufrag: &str, transaction: u64) -> Vec<u8> {
    let mut message = vec![0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend([0; 4]);
    message.extend(transaction.to_be_bytes());
    let mut attribute = |kind: u16, value: &[u8]| {
        message.extend(kind.to_be_bytes());
        message.extend((value.len() as u16).to_be_bytes());
        message.extend(value);
        message.resize(message.len().next_multiple_of(4), 0);
    };
    attribute(0x0006, format!("{}:{client_ufrag}", server.ufrag).as_bytes()); // USERNAME
    attribute(0x0024, &[0x6e, 0x00, 0x1e, 0xff]); // PRIORITY
    attribute(0x802a, &[0, 0, 0, 0, 0, 0, 0, 1]); // ICE-CONTROLLING
    attribute(0x0025, &[]); // USE-CANDIDATE
    // RFC 8489 section 14.5: the length counts the integrity attribute, the HMAC covers what is before it.
    let length = (message.len() - 20 + 24) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, server.pwd.as_bytes());
    let tag = hmac::sign(&key, &message);
    message.extend([0x00, 0x08, 0x00, 0x14]);
    message.extend(tag.as_ref());
    message
}
