//! Who may use the relay: credentials that say until when, and nonces that say whose address is proved. Both are
//! checked with nothing but the secret.
//!
//! The long-term mechanism with MD5 and SHA-1 (RFC 8489 section 9.2) is what browsers speak. What it protects is that
//! nobody else asks in a client's name; what is relayed is DTLS and SRTP anyway.

use super::{Message, Reply};
use crate::transport::stun::IntegrityKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use md5::{Digest, Md5};
use ring::hmac;
use std::net::{IpAddr, SocketAddr};

/// The realm: as short as can be, since it stands in the one answer to strangers.
pub const REALM: &str = "turn";

/// How old a nonce may be; RFC 8656 section 5 asks for a new one each hour at least.
pub const NONCE_MINUTES_MAX: u16 = 30;

/// Two bytes of minutes and seven of tag, as text.
const NONCE_CHARS: usize = 12;

/// Bytes of the user name that stand for what the credentials are bound to.
const BOUND_BYTES: usize = 9;

/// What credentials and nonces are derived from.
pub struct TurnSecret {
    passwords: hmac::Key,
    nonces: hmac::Key,
}

/// What a browser is given.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// A user who proved a password and an address.
pub(super) struct User<'a> {
    pub(super) name: &'a str,
    pub(super) key: IntegrityKey,
    /// Whether it may not begin anything any more; what it has begun goes on.
    pub(super) is_expired: bool,
}

impl TurnSecret {
    /// Takes 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let derive = |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, label).as_ref());
        Self { passwords: derive(b"turn passwords"), nonces: derive(b"turn nonces") }
    }

    /// Credentials that are good until a time in seconds since 1970, bound to something that only their owner has,
    /// such as a token.
    pub fn credentials(&self, until_s: u64, bound_to: &[u8]) -> Credentials {
        let tag = hmac::sign(&self.passwords, bound_to);
        let bound = STANDARD_NO_PAD.encode(&tag.as_ref()[..BOUND_BYTES]);
        let username = format!("{until_s}:{bound}");
        let password = self.password(&username);
        Credentials { username, password }
    }

    fn password(&self, username: &str) -> String {
        // No token begins like this, so no binding is a password.
        let mut context = hmac::Context::with_key(&self.passwords);
        context.update(b"password\0");
        context.update(username.as_bytes());
        STANDARD_NO_PAD.encode(&context.sign().as_ref()[..24])
    }

    /// The key of a user's long-term password (RFC 8489 section 9.2.2).
    fn key(&self, username: &str) -> IntegrityKey {
        long_term_key(username, &self.password(username))
    }

    /// Whether a request is from someone who has credentials and receives what is sent to `client`.
    ///
    /// # Errors
    /// What to answer.
    pub(super) fn authenticate<'a>(
        &self,
        now_s: u64,
        client: SocketAddr,
        message: &Message<'a>,
    ) -> Result<User<'a>, Reply> {
        if !message.has_integrity() {
            return Err(self.challenge(now_s, client, message, 401));
        }
        let (Some(name), Some(nonce), true) = (message.username, message.nonce, message.has_realm) else {
            return Err(message.refuse(400));
        };
        if !self.is_fresh(now_s, client, nonce) {
            return Err(self.challenge(now_s, client, message, 438));
        }
        let until_s = name.split_once(':').and_then(|(until, _)| until.parse::<u64>().ok());
        let (Some(until_s), key) = (until_s, self.key(name)) else {
            return Err(self.challenge(now_s, client, message, 401));
        };
        if !message.is_authentic(&key) {
            return Err(self.challenge(now_s, client, message, 401));
        }
        Ok(User { name, key, is_expired: now_s >= until_s })
    }

    /// Asks for credentials, or for a fresh nonce (RFC 8489 section 9.2.4).
    pub(super) fn challenge(
        &self,
        now_s: u64,
        client: SocketAddr,
        message: &Message<'_>,
        code: u16,
    ) -> Reply {
        message.refuse(code).with_challenge(REALM, &self.nonce(now_s, client))
    }

    /// A nonce for this address.
    fn nonce(&self, now_s: u64, client: SocketAddr) -> [u8; NONCE_CHARS] {
        self.nonce_of((now_s / 60) as u16, client)
    }

    fn nonce_of(&self, minute: u16, client: SocketAddr) -> [u8; NONCE_CHARS] {
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&minute.to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());
        let mut bytes = [0; 9];
        bytes[..2].copy_from_slice(&minute.to_be_bytes());
        bytes[2..].copy_from_slice(&context.sign().as_ref()[..7]);
        let mut text = [0; NONCE_CHARS];
        STANDARD_NO_PAD.encode_slice(bytes, &mut text).expect("nine bytes are twelve characters");
        text
    }

    fn is_fresh(&self, now_s: u64, client: SocketAddr, nonce: &[u8]) -> bool {
        let mut bytes = [0; 9];
        if nonce.len() != NONCE_CHARS || STANDARD_NO_PAD.decode_slice(nonce, &mut bytes) != Ok(9) {
            return false;
        }
        let minute = u16::from_be_bytes([bytes[0], bytes[1]]);
        let age = ((now_s / 60) as u16).wrapping_sub(minute);
        age <= NONCE_MINUTES_MAX
            && rtc_dtls::crypto_provider::constant_time_eq(&self.nonce_of(minute, client), nonce)
    }
}

/// MD5 of name, realm and password (RFC 8489 section 9.2.2).
pub(super) fn long_term_key(username: &str, password: &str) -> IntegrityKey {
    IntegrityKey::from_bytes(&Md5::digest(format!("{username}:{REALM}:{password}")))
}
