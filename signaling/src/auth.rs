//! Join tokens and resume tokens: compact JWS (RFC 7515) with HS256.
//!
//! Written out with ring's HMAC rather than taken from a library: `jsonwebtoken` brings RSA and P-384 for
//! algorithms that must never be accepted here. There is one algorithm and one header, compared byte by byte, so
//! nothing is negotiated with the bearer. Never logs or stores a token.

use crate::room::Role;
use asamblea_seam::{PeerId, RoomId};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::hmac;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a join token may begin a membership: long enough to choose a camera and type a name, short enough
/// that a leaked one is soon worth nothing.
pub const JOIN_TOKEN: Duration = Duration::from_secs(15 * 60);

/// How long after it was last renewed a resume token brings a membership back that the server does not know, since
/// it died and was started again: a machine that reboots with its updates takes a few minutes, and after ten
/// people have gone elsewhere. Short, since a role that was taken away while nobody wrote it down is worth as long.
pub const RESUME_TOKEN: Duration = Duration::from_secs(10 * 60);

/// Longest token that is looked at; ours stay below 800 bytes for the longest meeting name.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Shortest secret that may be configured: the length of the HMAC's output (RFC 7518 section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// `{"alg":"HS256"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiJ9";

/// Signs and verifies tokens.
pub struct Signer {
    key: hmac::Key,
    /// See [`Signer::turn_secret`].
    turn_secret: [u8; 32],
    /// Names this life of the server among all that share the secret; random.
    life: u64,
}

/// A membership as a resume token vouches for it: all of it that outlives the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The membership.
    pub member: PeerId,
    /// Its role.
    pub role: Role,
    /// The meeting's id in the life of the server that signed this.
    pub room: RoomId,
    /// Whether the membership may be brought back if it is not known: not so once the token has expired, and not so
    /// if this very server signed it, which would know the membership unless it has ended.
    pub may_return: bool,
}

/// What a token vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "snake_case")]
pub enum Claims {
    /// Its bearer may begin a membership.
    Join {
        /// The meeting's canonical name.
        meeting: String,
        /// In which role.
        role: Role,
        /// Until when, in seconds since 1970.
        exp: u64,
    },
    /// Its bearer may take up this membership again: for as long as the meeting keeps it, and from a server that
    /// died until it expires. Earlier ones stay good beside the newest: a message that is lost on the way must not
    /// lock anyone out.
    Resume {
        /// The meeting's canonical name.
        meeting: String,
        /// The meeting's id.
        room: RoomId,
        /// The membership.
        member: PeerId,
        /// Its role.
        role: Role,
        /// Which life of the server signed it.
        life: u64,
        /// Until when it brings the membership back to a later one, in seconds since 1970.
        exp: u64,
    },
}

impl Signer {
    /// A signer with a secret of its own: tokens end with the process.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0u8; SECRET_BYTES_MIN];
        getrandom::fill(&mut secret)?;
        Self::new(&secret)
    }

    /// A signer with a kept secret of at least [`SECRET_BYTES_MIN`] bytes.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new(secret: &[u8]) -> Result<Self, getrandom::Error> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        // No token is signed over this.
        let turn_secret = hmac::sign(&key, b"turn").as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { key, turn_secret, life: getrandom::u64()? })
    }

    /// What the credentials of the TURN relay are derived from: the same for all lives that share the secret.
    pub fn turn_secret(&self) -> [u8; 32] {
        self.turn_secret
    }

    /// A join token good for [`JOIN_TOKEN`] from `now`.
    pub fn join(&self, now: SystemTime, meeting: &str, role: Role) -> String {
        let exp = seconds(now) + JOIN_TOKEN.as_secs();
        self.sign(&Claims::Join { meeting: meeting.into(), role, exp })
    }

    /// A resume token of a membership, good for [`RESUME_TOKEN`] from `now`.
    pub fn resume(&self, now: SystemTime, meeting: &str, room: RoomId, member: PeerId, role: Role) -> String {
        let exp = seconds(now) + RESUME_TOKEN.as_secs();
        self.sign(&Claims::Resume { meeting: meeting.into(), room, member, role, life: self.life, exp })
    }

    /// What a resume token vouches for in this meeting; `None` if it is not genuine, or for something else.
    pub fn vouched(&self, now: SystemTime, token: &str, meeting: &str) -> Option<Vouched> {
        let Claims::Resume { meeting: named, room, member, role, life, exp } = self.verify(token)? else {
            return None;
        };
        let may_return = life != self.life && !is_expired(now, exp);
        (named == meeting).then_some(Vouched { member, role, room, may_return })
    }

    fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("plain values serialise");
        let mut token = format!("{HEADER}.{}", BASE64.encode(claims));
        let tag = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        BASE64.encode_string(tag.as_ref(), &mut token);
        token
    }

    /// What a genuine token says; `None` when it is forged, malformed or too long. Expiry is the caller's to
    /// judge, with [`is_expired`].
    pub fn verify(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, tag) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if header != HEADER {
            return None;
        }
        hmac::verify(&self.key, signed.as_bytes(), &BASE64.decode(tag).ok()?).ok()?;
        serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
    }
}

/// Whether a time stamp of a token has passed.
pub fn is_expired(now: SystemTime, exp: u64) -> bool {
    seconds(now) >= exp
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer() -> Signer {
        Signer::new(&[7; 32]).expect("random")
    }

    #[test]
    fn the_header_says_what_the_algorithm_is() {
        assert_eq!(BASE64.decode(HEADER).expect("base64"), br#"{"alg":"HS256"}"#);
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let token = signer().join(UNIX_EPOCH, "plaza", Role::Member);
        let Some(Claims::Join { meeting, role, exp }) = signer().verify(&token) else { panic!("genuine") };
        assert_eq!((meeting.as_str(), role), ("plaza", Role::Member));
        assert!(!is_expired(UNIX_EPOCH + JOIN_TOKEN - Duration::from_secs(1), exp));
        assert!(is_expired(UNIX_EPOCH + JOIN_TOKEN, exp));
    }

    #[test]
    fn another_secret_or_algorithm_is_forged() {
        let token = signer().resume(UNIX_EPOCH, "plaza", RoomId(1), PeerId(2), Role::Member);
        assert!(Signer::new(&[8; 32]).expect("random").verify(&token).is_none());
        let none =
            format!("{}.{}.", BASE64.encode(br#"{"alg":"none"}"#), token.split('.').nth(1).expect("claims"));
        assert!(signer().verify(&none).is_none());
    }

    #[test]
    fn the_longest_meeting_name_fits() {
        let name = "\u{10ffff}".repeat(crate::registry::MEETING_CHARS_MAX);
        let token = signer().join(SystemTime::now(), &name, Role::Member);
        assert!(signer().verify(&token).is_some(), "{} bytes", token.len());
        let ids = u64::MAX >> 11;
        let token = signer().resume(SystemTime::now(), &name, RoomId(ids), PeerId(ids), Role::Member);
        assert!(signer().verify(&token).is_some() && token.len() < 800, "{} bytes", token.len());
    }

    #[test]
    fn a_resume_token_vouches_for_one_membership_of_one_meeting_to_a_later_server_until_it_expires() {
        let (earlier, later) = (signer(), signer());
        let token = earlier.resume(UNIX_EPOCH, "plaza", RoomId(1), PeerId(2), Role::Host);
        let vouched = Vouched { member: PeerId(2), role: Role::Host, room: RoomId(1), may_return: true };
        assert_eq!(later.vouched(UNIX_EPOCH, &token, "plaza"), Some(vouched.clone()));
        let known = Vouched { may_return: false, ..vouched };
        assert_eq!(later.vouched(UNIX_EPOCH + RESUME_TOKEN, &token, "plaza"), Some(known.clone()));
        assert_eq!(earlier.vouched(UNIX_EPOCH, &token, "plaza"), Some(known), "what it forgot has ended");
        assert_eq!(later.vouched(UNIX_EPOCH, &token, "elsewhere"), None);
        let join = earlier.join(UNIX_EPOCH, "plaza", Role::Host);
        assert_eq!(later.vouched(UNIX_EPOCH, &join, "plaza"), None, "a join token is no resume token");
    }

    proptest! {
        #[test]
        fn any_change_of_a_token_is_noticed(at in 0usize..1000, with in "[A-Za-z0-9._-]") {
            let token = signer().join(UNIX_EPOCH, "plaza", Role::Member);
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != token);
            // The last character of a 32-byte tag carries spare bits, which the decoder wants to be zero.
            prop_assert!(signer().verify(&changed).is_none());
        }

        #[test]
        fn any_text_is_survived(token in any::<String>()) {
            prop_assert!(signer().verify(&token).is_none());
        }
    }
}
