//! ICE lite (RFC 8445 section 2.5): the credentials the server hands out, and what one peer's checks have shown.
//!
//! Nothing is kept for a datagram whose MESSAGE-INTEGRITY is wrong. It never sends a check of its own, never gathers
//! and never answers an address that did not prove the password; deciding what to do with a path is the transport's.

use super::stun::{IntegrityKey, Request, Role, StunDrop};
use super::{PathId, Remote};
use crate::negotiate::IceCredentials;
use arrayvec::ArrayVec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;
use std::time::{Duration, Instant};

/// How long a peer may send without a fresh check before it is taken as gone (RFC 7675 section 5.1).
pub const CONSENT: Duration = Duration::from_secs(30);

/// Most validated remote addresses of one peer at a time: two networks with two address families each. Every path is
/// a socket in the shell.
pub const PATHS_MAX: usize = 4;

/// How long a nominated UDP path stays in use beside a nominated carried one, counted from its last check. Aggressive
/// nomination (Firefox) nominates every pair that works and means the best of them; a living path is checked every
/// six seconds at most (RFC 7675 section 5.1).
pub const UDP_PREFERRED: Duration = Duration::from_secs(7);

/// Transactions remembered, so that a captured check cannot be used again: at one check each 2.5 s (RFC 7675) and
/// four paths these are the last 2.5 minutes.
pub const TRANSACTIONS_MAX: usize = 256;

/// Length of the server's user name fragments: two characters of shard, fourteen of 80 random bits.
pub const UFRAG_CHARS: usize = 16;

/// Length of the server's passwords: 192 bits, RFC 8445 section 5.3 asks for 128.
pub const PWD_CHARS: usize = 32;

/// Shards that fit the two leading characters of a user name fragment.
pub const SHARDS_MAX: u16 = 1024;

/// Base 32 hex (RFC 4648 section 7): all of it ice-chars.
const SHARD_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";

/// What the passwords of a node's user name fragments are derived from; made anew at each start.
pub struct NodeSecret(hmac::Key);

impl NodeSecret {
    /// Takes 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The password that belongs to one of our user name fragments.
    fn pwd(&self, ufrag: &str) -> ArrayVec<u8, 44> {
        let tag = hmac::sign(&self.0, ufrag.as_bytes());
        let mut text = [0; 44];
        let chars =
            STANDARD_NO_PAD.encode_slice(tag.as_ref(), &mut text).expect("32 bytes are 43 characters");
        assert!(chars >= PWD_CHARS);
        text[..PWD_CHARS].iter().copied().collect()
    }
}

/// The server's side of one ICE generation, verifiable with nothing but the [`NodeSecret`].
#[derive(Clone, Debug)]
pub struct LocalCredentials(IceCredentials);

impl LocalCredentials {
    /// Makes credentials out of a shard's index, below [`SHARDS_MAX`], and random bytes.
    pub fn new(shard: u16, random: [u8; 10], secret: &NodeSecret) -> Self {
        assert!(shard < SHARDS_MAX, "the user name fragment has room for {SHARDS_MAX} shards");
        let mut ufrag = String::with_capacity(UFRAG_CHARS);
        ufrag.push(SHARD_ALPHABET[usize::from(shard >> 5)].into());
        ufrag.push(SHARD_ALPHABET[usize::from(shard & 31)].into());
        STANDARD_NO_PAD.encode_string(random, &mut ufrag);
        let pwd = String::from_utf8(secret.pwd(&ufrag).to_vec()).expect("base 64 is ASCII");
        Self(IceCredentials { ufrag, pwd })
    }

    /// For the answer and the transport.
    pub fn credentials(&self) -> &IceCredentials {
        &self.0
    }
}

impl From<LocalCredentials> for IceCredentials {
    fn from(local: LocalCredentials) -> Self {
        local.0
    }
}

/// A connectivity check that proved a password of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check<'a> {
    /// The shard that owns the peer.
    pub shard: u16,
    /// Names the peer's ICE generation.
    pub server_ufrag: &'a str,
    /// The sender's own fragment; whether it is the offered one is for the shard to say.
    pub client_ufrag: &'a str,
    /// The priority of a candidate learned from it (RFC 8445 section 7.1.1).
    pub priority: Option<u32>,
    /// Whether it nominates its pair.
    pub use_candidate: bool,
    /// Names the transaction.
    pub transaction_id: [u8; 12],
}

/// Authenticates a datagram from an unknown address with no state at all: what the listener does before anything else
/// hears of it. Allocates nothing.
///
/// # Errors
/// [`StunDrop`] with the reason; there is no answer then.
pub fn authenticate_check<'a>(secret: &NodeSecret, datagram: &'a [u8]) -> Result<Check<'a>, StunDrop> {
    let request = Request::parse(datagram)?;
    let (server_ufrag, client_ufrag) = request.ufrags()?;
    let shard = shard_of(server_ufrag).ok_or(StunDrop::UnknownUser)?;
    let pwd = secret.pwd(server_ufrag);
    let pwd = std::str::from_utf8(&pwd).expect("base 64 is ASCII");
    if !request.is_authentic(&IntegrityKey::new(pwd)) {
        return Err(StunDrop::Integrity);
    }
    Ok(Check {
        shard,
        server_ufrag,
        client_ufrag,
        priority: request.priority(),
        use_candidate: request.use_candidate(),
        transaction_id: request.transaction_id(),
    })
}

/// The shard that a user name fragment of ours names.
fn shard_of(ufrag: &str) -> Option<u16> {
    if ufrag.len() != UFRAG_CHARS {
        return None;
    }
    let digit = |byte: u8| SHARD_ALPHABET.iter().position(|known| *known == byte);
    let (high, low) = (digit(ufrag.as_bytes()[0])?, digit(ufrag.as_bytes()[1])?);
    Some((high << 5 | low) as u16)
}

/// A remote address that proved the password.
#[derive(Clone, Copy, Debug)]
struct Path {
    id: PathId,
    remote: Remote,
    last_check_at: Instant,
}

/// One generation of our credentials.
struct Local {
    ufrag: String,
    key: IntegrityKey,
}

/// What an authenticated check means for the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// Answer with success on this path.
    Answer {
        path: PathId,
        /// To be opened before the answer goes out.
        is_new: bool,
        /// To be closed, since [`PATHS_MAX`] are in use.
        replaced: Option<PathId>,
        /// Whether the path to send on is another one now.
        is_switched: bool,
        /// Whether consent was renewed: not by a repeated transaction.
        is_fresh: bool,
    },
    /// Answer with an error on this known path.
    Refuse { path: PathId, answer: super::stun::Answer },
}

/// Why an authentic-looking check has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckDrop {
    Stun(StunDrop),
    /// A captured check from another address than the first time.
    Replayed,
    /// An error would have to go to an address that has no path.
    Unanswerable,
}

/// One peer's ICE state.
pub(super) struct Ice {
    /// Oldest first; two only between an ICE restart and the first nomination under the new.
    locals: ArrayVec<Local, 2>,
    /// The user name fragments the peer may use, oldest first.
    remote_ufrags: ArrayVec<String, 2>,
    paths: ArrayVec<Path, PATHS_MAX>,
    nominated: Option<PathId>,
    transactions: Vec<u64>,
    transaction_next: usize,
    consent_at: Option<Instant>,
}

impl Ice {
    pub(super) fn new(local: &IceCredentials) -> Self {
        let mut ice = Self {
            locals: ArrayVec::new(),
            remote_ufrags: ArrayVec::new(),
            paths: ArrayVec::new(),
            nominated: None,
            transactions: Vec::new(),
            transaction_next: 0,
            consent_at: None,
        };
        ice.restart_local(local);
        ice
    }

    /// Accepts checks under new credentials of ours; the generation in use stays until one of them nominates.
    pub(super) fn restart_local(&mut self, local: &IceCredentials) {
        if self.locals.iter().any(|known| known.ufrag == local.ufrag) {
            return;
        }
        self.locals.truncate(1);
        self.locals.push(Local { ufrag: local.ufrag.clone(), key: IntegrityKey::new(&local.pwd) });
    }

    /// Accepts checks under new credentials of the peer's.
    pub(super) fn restart_remote(&mut self, ufrag: &str) {
        if self.remote_ufrags.iter().any(|known| known == ufrag) {
            return;
        }
        self.remote_ufrags.truncate(1);
        self.remote_ufrags.push(ufrag.to_owned());
    }

    pub(super) fn newest_remote_ufrag(&self) -> Option<&str> {
        self.remote_ufrags.last().map(String::as_str)
    }

    /// Takes a check from a remote address, on a path of its own or not.
    pub(super) fn handle_check(
        &mut self,
        now: Instant,
        remote: Option<Remote>,
        known: Option<PathId>,
        datagram: &[u8],
        alloc: &mut dyn FnMut() -> PathId,
    ) -> Result<(Checked, Remote, [u8; 12], IntegrityKey), CheckDrop> {
        let request = Request::parse(datagram).map_err(CheckDrop::Stun)?;
        let (server_ufrag, client_ufrag) = request.ufrags().map_err(CheckDrop::Stun)?;
        let generation = self.locals.iter().position(|local| local.ufrag == server_ufrag);
        let generation = generation.ok_or(CheckDrop::Stun(StunDrop::UnknownUser))?;
        if !self.remote_ufrags.iter().any(|ufrag| ufrag == client_ufrag) {
            return Err(CheckDrop::Stun(StunDrop::UnknownUser));
        }
        let key = self.locals[generation].key.clone();
        if !request.is_authentic(&key) {
            return Err(CheckDrop::Stun(StunDrop::Integrity));
        }

        // Authentic from here on: the peer, or someone who repeats what it once sent.
        let path = self
            .paths
            .iter()
            .position(|path| known == Some(path.id) || remote.is_some_and(|remote| path.remote == remote));
        let transaction_id = request.transaction_id();
        let refusal = match (request.role(), request.unknown_attribute()) {
            (_, Some(unknown)) => Some(super::stun::Answer::UnknownAttribute(unknown)),
            (Some(Role::Controlled), _) => Some(super::stun::Answer::RoleConflict),
            _ => None,
        };
        if let Some(answer) = refusal {
            let path = self.paths[path.ok_or(CheckDrop::Unanswerable)?];
            return Ok((Checked::Refuse { path: path.id, answer }, path.remote, transaction_id, key));
        }
        let is_fresh = self.remember(transaction_id);
        if !is_fresh {
            let path = self.paths[path.ok_or(CheckDrop::Replayed)?];
            let answer = Checked::Answer {
                path: path.id,
                is_new: false,
                replaced: None,
                is_switched: false,
                is_fresh: false,
            };
            return Ok((answer, path.remote, transaction_id, key));
        }

        self.consent_at = Some(now);
        let mut replaced = None;
        let (index, is_new) = match path {
            Some(index) => (index, false),
            None => {
                let remote = remote.ok_or(CheckDrop::Unanswerable)?;
                if self.paths.is_full() {
                    replaced = self.remove_least_used();
                }
                self.paths.push(Path { id: alloc(), remote, last_check_at: now });
                (self.paths.len() - 1, true)
            }
        };
        self.paths[index].last_check_at = now;
        let Path { id, remote, .. } = self.paths[index];
        let mut is_switched = false;
        if request.use_candidate() {
            // An ICE restart moves at once: only within one generation the better kind of path is kept.
            let keeps = generation == 0 && self.keeps_udp(now, remote);
            is_switched = !keeps && self.nominated != Some(id);
            if !keeps {
                self.nominated = Some(id);
            }
            // The new generation is in use now, so the old one has served.
            if generation == 1 {
                self.locals.remove(0);
            }
            if self.remote_ufrags.len() > 1 && self.remote_ufrags[1] == client_ufrag {
                self.remote_ufrags.remove(0);
            }
        }
        Ok((
            Checked::Answer { path: id, is_new, replaced, is_switched, is_fresh },
            remote,
            transaction_id,
            key,
        ))
    }

    /// Whether the path in use is over UDP and alive while `other` is carried.
    fn keeps_udp(&self, now: Instant, other: Remote) -> bool {
        let in_use = self.paths.iter().find(|path| Some(path.id) == self.nominated);
        matches!(other, Remote::Carried { .. })
            && in_use.is_some_and(|path| {
                matches!(path.remote, Remote::Udp(_))
                    && now.saturating_duration_since(path.last_check_at) < UDP_PREFERRED
            })
    }

    /// Whether a transaction is new; remembers it.
    fn remember(&mut self, transaction_id: [u8; 12]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = transaction_id;
        let transaction = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        if self.transactions.contains(&transaction) {
            return false;
        }
        if self.transactions.len() < TRANSACTIONS_MAX {
            self.transactions.push(transaction);
        } else {
            self.transactions[self.transaction_next] = transaction;
            self.transaction_next = (self.transaction_next + 1) % TRANSACTIONS_MAX;
        }
        true
    }

    /// Makes room: the path that was checked longest ago, but never the one in use.
    fn remove_least_used(&mut self) -> Option<PathId> {
        let nominated = self.nominated;
        let (index, _) = self
            .paths
            .iter()
            .enumerate()
            .filter(|(_, path)| Some(path.id) != nominated)
            .min_by_key(|(_, path)| path.last_check_at)?;
        Some(self.paths.remove(index).id)
    }

    /// Whether a path is this peer's.
    pub(super) fn has_path(&self, path: PathId) -> bool {
        self.paths.iter().any(|known| known.id == path)
    }

    /// Forgets one path, for example because its socket failed.
    pub(super) fn remove_path(&mut self, path: PathId) -> bool {
        let before = self.paths.len();
        self.paths.retain(|known| known.id != path);
        if self.nominated == Some(path) {
            self.nominated = None;
        }
        self.paths.len() != before
    }

    /// Forgets every path.
    pub(super) fn take_paths(&mut self) -> ArrayVec<PathId, PATHS_MAX> {
        self.nominated = None;
        self.paths.drain(..).map(|path| path.id).collect()
    }

    /// The path of the newest nomination.
    pub(super) fn nominated(&self) -> Option<PathId> {
        self.nominated
    }

    /// Starts the consent clock for a peer that has yet to send its first check.
    pub(super) fn await_consent(&mut self, now: Instant) {
        self.consent_at = Some(now);
    }

    /// When consent ends; `None` before anything was described.
    pub(super) fn consent_ends_at(&self) -> Option<Instant> {
        self.consent_at.map(|at| at + CONSENT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stun::tests::RequestBuilder;
    use super::*;

    fn secret() -> NodeSecret {
        NodeSecret::new([5; 32])
    }

    #[test]
    fn credentials_name_their_shard_and_follow_the_ice_grammar() {
        for shard in [0, 1, 31, 32, 700, SHARDS_MAX - 1] {
            let local = LocalCredentials::new(shard, [0xab; 10], &secret());
            let IceCredentials { ufrag, pwd } = local.credentials();
            assert_eq!((ufrag.len(), pwd.len()), (UFRAG_CHARS, PWD_CHARS));
            let is_ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            assert!(ufrag.bytes().chain(pwd.bytes()).all(is_ice_char));
            assert_eq!(shard_of(ufrag), Some(shard));
        }
    }

    #[test]
    fn the_listener_authenticates_a_check_without_state() {
        let local = LocalCredentials::new(37, [1; 10], &secret());
        let IceCredentials { ufrag, pwd } = local.credentials();
        let datagram = RequestBuilder::new(&format!("{ufrag}:abcd"), pwd, 3).nominating().build();
        let check = authenticate_check(&secret(), &datagram).unwrap();
        assert_eq!((check.shard, check.server_ufrag, check.client_ufrag), (37, ufrag.as_str(), "abcd"));
        assert!(check.use_candidate);
        assert_eq!(authenticate_check(&NodeSecret::new([6; 32]), &datagram), Err(StunDrop::Integrity));
    }

    #[test]
    fn checks_for_nobody_are_told_apart_from_forged_ones() {
        let local = LocalCredentials::new(2, [1; 10], &secret());
        let IceCredentials { ufrag, .. } = local.credentials();
        let forged = RequestBuilder::new(&format!("{ufrag}:abcd"), "guess", 3).build();
        assert_eq!(authenticate_check(&secret(), &forged), Err(StunDrop::Integrity));
        let nobody = RequestBuilder::new("short:abcd", "guess", 3).build();
        assert_eq!(authenticate_check(&secret(), &nobody), Err(StunDrop::UnknownUser));
        let colonless = RequestBuilder::new(ufrag, "guess", 3).build();
        assert_eq!(authenticate_check(&secret(), &colonless), Err(StunDrop::NoCredentials));
    }
}
