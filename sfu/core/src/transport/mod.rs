//! One browser's secure path: ICE lite, then DTLS, then SRTP.
//!
//! [`Transport`] takes the peer's checks and handshake datagrams in and gives answers, paths and events out; media
//! packets are opened and sealed through [`Transport::srtp`]. It keeps nothing of an address that did not prove the
//! ICE password, lets DTLS in from proven paths only, and lets no media through before the certificate is the one of
//! the offer. It never owns a socket, reads a clock or looks at what RTP carries.

pub mod dtls;
pub mod dtls_prefilter;
pub mod ice;
mod identity;
mod remote;
pub mod srtp;
pub mod stun;

use crate::negotiate::{Fingerprint, IceCredentials};
use asamblea_seam::DisconnectReason;
use dtls::{Dtls, DtlsEvent};
pub use dtls_prefilter::PrefilterCounters;
use ice::{CheckDrop, Checked, Ice};
pub use identity::Identity;
pub use remote::{CarrierId, Remote};
use srtp::{Srtp, SrtpDrop};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun::{Answer, StunDrop};

/// How long a DTLS handshake may take from the first check on: as long as consent lasts without one.
pub const HANDSHAKE: Duration = Duration::from_secs(30);

/// Most outputs that wait to be polled. A batch of datagrams from one peer makes a few; beyond this the peer's checks
/// and handshake datagrams are dropped, and it will repeat them.
pub const OUTPUTS_MAX: usize = 64;

/// A validated way to a peer: the shell has a connected socket or a carrier for it. Numbered by the shard, unique for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u64);

/// What describing the remote side changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Described {
    /// Nothing: the same credentials and certificate as before.
    Unchanged,
    /// The first description: checks are taken from now on.
    First,
    /// New credentials, the same certificate: the media keys stay (RFC 8445 section 2.4).
    IceRestarted,
    /// Another certificate, or a transport that had ended: a new handshake is awaited, the old keys are gone.
    TransportReset,
}

/// What the transport wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportOutput {
    /// Open a path before anything is sent on it.
    OpenPath {
        /// Its name from now on.
        path: PathId,
        /// Where it leads.
        remote: Remote,
    },
    /// Send one datagram.
    Transmit {
        /// Where.
        path: PathId,
        /// What.
        datagram: Vec<u8>,
    },
    /// Nothing will be sent or taken on this path any more.
    ClosePath {
        /// Which.
        path: PathId,
    },
}

/// What became of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// The keys are there and the peer has been heard: media may flow.
    Connected,
    /// It ended; [`Transport::srtp`] gives nothing any more until [`TransportEvent::Connected`].
    Disconnected(DisconnectReason),
    /// [`Transport::send_path`] is another one now.
    PathChanged,
}

/// How often what was dropped or refused, and what happened otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Checks that were answered with success.
    pub checks: u64,
    /// Checks that were answered with an error: a role conflict or an attribute we do not know.
    pub checks_refused: u64,
    /// STUN messages that could not be read.
    pub stun_malformed: u64,
    /// STUN messages other than binding requests.
    pub stun_not_requests: u64,
    /// Checks with a user name of no generation of ours, or without one.
    pub stun_unknown_users: u64,
    /// Checks with a wrong MESSAGE-INTEGRITY or FINGERPRINT.
    pub stun_forged: u64,
    /// Authentic checks that came again from another address.
    pub stun_replayed: u64,
    /// Checks that would need an answer to an address without a path.
    pub stun_unanswerable: u64,
    /// Paths that were opened.
    pub paths_opened: u64,
    /// Paths that were given up for a newer one.
    pub paths_replaced: u64,
    /// Times the nomination moved to another path.
    pub paths_switched: u64,
    /// Datagrams on a path that is not this peer's any more.
    pub stale_path: u64,
    /// DTLS datagrams before the first description or after the end.
    pub dtls_unexpected: u64,
    /// What the DTLS pre-filter let through and dropped.
    pub dtls: PrefilterCounters,
    /// Handshakes that failed.
    pub handshakes_failed: u64,
    /// Dropped since [`OUTPUTS_MAX`] outputs wait already.
    pub outputs_full: u64,
    /// Media packets opened.
    pub srtp_opened: u64,
    /// Media packets that could not be read, or came unencrypted.
    pub srtp_malformed: u64,
    /// Media packets with a wrong tag.
    pub srtp_forged: u64,
    /// Media packets seen before or too old.
    pub srtp_replayed: u64,
    /// Media packets of one stream too many.
    pub srtp_too_many_ssrcs: u64,
    /// Media packets before there were keys.
    pub srtp_early: u64,
}

impl TransportCounters {
    fn count_stun(&mut self, drop: StunDrop) {
        match drop {
            StunDrop::Malformed => self.stun_malformed += 1,
            StunDrop::NotARequest => self.stun_not_requests += 1,
            StunDrop::NoCredentials | StunDrop::UnknownUser => self.stun_unknown_users += 1,
            StunDrop::Fingerprint | StunDrop::Integrity => self.stun_forged += 1,
        }
    }

    fn count_srtp(&mut self, result: Result<usize, SrtpDrop>) -> Result<usize, SrtpDrop> {
        match result {
            Ok(_) => self.srtp_opened += 1,
            Err(SrtpDrop::Malformed | SrtpDrop::Unencrypted) => self.srtp_malformed += 1,
            Err(SrtpDrop::Unauthentic) => self.srtp_forged += 1,
            Err(SrtpDrop::Replayed | SrtpDrop::TooOld) => self.srtp_replayed += 1,
            Err(SrtpDrop::TooManySsrcs) => self.srtp_too_many_ssrcs += 1,
        }
        result
    }
}

/// Where the transport is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was described yet: no check is taken.
    New,
    /// Described; awaits checks and the handshake.
    Connecting {
        /// When the handshake has to be over; `None` before the first check.
        handshake_ends_at: Option<Instant>,
    },
    /// Media may flow.
    Connected,
    /// The peer fell silent; a fresh check brings it back.
    Silent,
    /// The handshake failed or the peer closed; only a new description helps.
    Ended,
}

/// ICE lite, DTLS and SRTP of one peer.
pub struct Transport {
    identity: Arc<Identity>,
    state: State,
    ice: Ice,
    fingerprint: Option<Fingerprint>,
    dtls: Option<Box<dyn Dtls>>,
    /// Where the last DTLS datagram came from: answers go there.
    dtls_path: Option<PathId>,
    /// What the pre-filters of earlier handshakes counted.
    dtls_before: PrefilterCounters,
    srtp: Option<Srtp>,
    outputs: VecDeque<TransportOutput>,
    events: VecDeque<TransportEvent>,
    counters: TransportCounters,
}

impl Transport {
    /// Makes a transport that takes nothing yet: checks are accepted from [`Transport::describe`] on.
    pub fn new(_now: Instant, identity: Arc<Identity>, local: IceCredentials) -> Self {
        Self {
            identity,
            state: State::New,
            ice: Ice::new(&local),
            fingerprint: None,
            dtls: None,
            dtls_path: None,
            dtls_before: PrefilterCounters::default(),
            srtp: None,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            counters: TransportCounters::default(),
        }
    }

    /// Says who the peer is. May be called again with every offer: the same changes nothing, a new user name fragment
    /// restarts ICE, a new fingerprint replaces the transport.
    pub fn describe(
        &mut self,
        now: Instant,
        remote_ice: &IceCredentials,
        fingerprint: Fingerprint,
    ) -> Described {
        let is_new_generation = self.ice.newest_remote_ufrag() != Some(remote_ice.ufrag.as_str());
        let is_new_peer = self.fingerprint != Some(fingerprint);
        self.ice.restart_remote(&remote_ice.ufrag);
        let described = match self.state {
            State::New => Described::First,
            _ if is_new_peer => Described::TransportReset,
            State::Ended if is_new_generation => Described::TransportReset,
            _ if is_new_generation => Described::IceRestarted,
            _ => return Described::Unchanged,
        };
        self.ice.await_consent(now);
        match described {
            Described::First | Described::TransportReset => {
                self.fingerprint = Some(fingerprint);
                self.drop_keys();
                self.state = State::Connecting { handshake_ends_at: None };
                if self.ice.nominated().is_some() {
                    self.state = State::Connecting { handshake_ends_at: Some(now + HANDSHAKE) };
                }
            }
            Described::IceRestarted | Described::Unchanged => {}
        }
        described
    }

    /// Takes new credentials of ours for an ICE restart; those in use stay valid until a path is nominated under the
    /// new ones.
    pub fn restart_ice(&mut self, local: IceCredentials) {
        self.ice.restart_local(&local);
    }

    /// Takes a check that the listener authenticated: it came from an address without a path, or before its path was
    /// there. `known` names the path if the shard knows one for `remote`; `alloc` names a new one.
    pub fn handle_check(
        &mut self,
        now: Instant,
        remote: Remote,
        known: Option<PathId>,
        datagram: &[u8],
        alloc: &mut dyn FnMut() -> PathId,
    ) {
        self.check(now, Some(remote), known, datagram, alloc);
    }

    /// Takes a STUN datagram from one of the peer's paths.
    pub fn handle_stun(&mut self, now: Instant, path: PathId, datagram: &[u8]) {
        if !self.ice.has_path(path) {
            self.counters.stale_path += 1;
            return;
        }
        self.check(now, None, Some(path), datagram, &mut || unreachable!("a known path needs no name"));
    }

    /// Takes a DTLS datagram from one of the peer's paths.
    pub fn handle_dtls(&mut self, now: Instant, path: PathId, datagram: &[u8]) {
        if !self.ice.has_path(path) {
            self.counters.stale_path += 1;
            return;
        }
        if !matches!(self.state, State::Connecting { .. } | State::Connected) {
            self.counters.dtls_unexpected += 1;
            return;
        }
        let fingerprint = self.fingerprint.expect("every state but New is described");
        self.dtls_path = Some(path);
        let dtls = self.dtls.get_or_insert_with(|| self.identity.accept(now, fingerprint));
        dtls.handle_datagram(now, datagram);
        self.drain_dtls();
    }

    /// Forgets a path whose socket is gone. The peer's next check opens another.
    pub fn handle_path_failed(&mut self, path: PathId) {
        if self.ice.remove_path(path) && self.dtls_path == Some(path) {
            self.dtls_path = None;
        }
    }

    /// Does what is due. Cheap when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
            self.drain_dtls();
        }
        if let State::Connecting { handshake_ends_at: Some(at) } = self.state
            && now >= at
        {
            self.end(DisconnectReason::HandshakeFailed);
        }
        if matches!(self.state, State::Connecting { .. } | State::Connected)
            && self.ice.consent_ends_at().is_some_and(|at| now >= at)
        {
            self.fall_silent();
        }
    }

    /// When [`Transport::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (handshake, consent) = match self.state {
            State::Connecting { handshake_ends_at } => (handshake_ends_at, self.ice.consent_ends_at()),
            State::Connected => (None, self.ice.consent_ends_at()),
            State::New | State::Silent | State::Ended => (None, None),
        };
        let dtls = self.dtls.as_ref().and_then(|dtls| dtls.poll_timeout());
        [handshake, consent, dtls].into_iter().flatten().min()
    }

    /// What to do next, in order.
    pub fn poll_output(&mut self) -> Option<TransportOutput> {
        self.outputs.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Where to send: the path of the newest nomination. Until one arrives (the nominating check may be the one that
    /// was lost), the path on which the handshake was spoken.
    pub fn send_path(&self) -> Option<PathId> {
        self.ice.nominated().or_else(|| self.dtls_path.filter(|path| self.ice.has_path(*path)))
    }

    /// Whether media may flow.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// The media keys, while connected.
    pub fn srtp(&mut self) -> Option<&mut Srtp> {
        if self.is_connected() { self.srtp.as_mut() } else { None }
    }

    /// Opens an RTP packet from one of the peer's paths in place, and counts. Returns its plain length.
    pub fn open_rtp(&mut self, path: PathId, packet: &mut [u8]) -> Option<usize> {
        self.open(path, |srtp| srtp.open_rtp(packet))
    }

    /// Opens an RTCP compound packet from one of the peer's paths in place, and counts. Returns its plain length.
    pub fn open_rtcp(&mut self, path: PathId, packet: &mut [u8]) -> Option<usize> {
        self.open(path, |srtp| srtp.open_rtcp(packet))
    }

    /// Says goodbye to the peer with a close_notify (RFC 5246 section 7.2.1), if there is a handshake to end, and
    /// closes all paths. To be called before a transport is dropped.
    pub fn close(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
            self.dtls_path = None;
            self.drain_dtls();
        }
        self.state = State::Ended;
        self.drop_keys();
        self.close_paths();
    }

    /// What was counted so far.
    pub fn counters(&self) -> &TransportCounters {
        &self.counters
    }

    fn open(
        &mut self,
        path: PathId,
        open: impl FnOnce(&mut Srtp) -> Result<usize, SrtpDrop>,
    ) -> Option<usize> {
        if !self.ice.has_path(path) {
            self.counters.stale_path += 1;
            return None;
        }
        match &mut self.srtp {
            Some(srtp) if self.state == State::Connected => self.counters.count_srtp(open(srtp)).ok(),
            _ => {
                self.counters.srtp_early += 1;
                None
            }
        }
    }

    fn check(
        &mut self,
        now: Instant,
        remote: Option<Remote>,
        known: Option<PathId>,
        datagram: &[u8],
        alloc: &mut dyn FnMut() -> PathId,
    ) {
        // Room for a ClosePath, an OpenPath and the answer.
        if self.outputs.len() + 3 > OUTPUTS_MAX {
            self.counters.outputs_full += 1;
            return;
        }
        let (checked, remote, transaction_id, key) =
            match self.ice.handle_check(now, remote, known, datagram, alloc) {
                Ok(checked) => checked,
                Err(CheckDrop::Stun(drop)) => return self.counters.count_stun(drop),
                Err(CheckDrop::Replayed) => return self.counters.stun_replayed += 1,
                Err(CheckDrop::Unanswerable) => return self.counters.stun_unanswerable += 1,
            };
        let (path, answer) = match checked {
            Checked::Refuse { path, answer } => {
                self.counters.checks_refused += 1;
                (path, answer)
            }
            Checked::Answer { path, is_new, replaced, is_switched, is_fresh } => {
                self.counters.checks += 1;
                if let Some(path) = replaced {
                    self.counters.paths_replaced += 1;
                    self.outputs.push_back(TransportOutput::ClosePath { path });
                }
                if is_new {
                    self.counters.paths_opened += 1;
                    self.outputs.push_back(TransportOutput::OpenPath { path, remote });
                }
                if is_fresh {
                    self.consented(now);
                }
                if is_switched {
                    self.counters.paths_switched += 1;
                    if self.events.back() != Some(&TransportEvent::PathChanged) {
                        self.events.push_back(TransportEvent::PathChanged);
                    }
                }
                (path, Answer::Mapped(remote.address()))
            }
        };
        let datagram = stun::respond(transaction_id, answer, &key).to_vec();
        self.outputs.push_back(TransportOutput::Transmit { path, datagram });
    }

    /// A fresh check came.
    fn consented(&mut self, now: Instant) {
        match self.state {
            State::Connecting { handshake_ends_at: None } => {
                self.state = State::Connecting { handshake_ends_at: Some(now + HANDSHAKE) };
            }
            State::Silent if self.srtp.is_some() => {
                self.state = State::Connected;
                self.events.push_back(TransportEvent::Connected);
            }
            State::Silent => self.state = State::Connecting { handshake_ends_at: Some(now + HANDSHAKE) },
            State::New | State::Connecting { .. } | State::Connected | State::Ended => {}
        }
    }

    fn drain_dtls(&mut self) {
        // Where the peer speaks from; after a reset that may not be the path in use yet.
        let path = self.dtls_path.filter(|path| self.ice.has_path(*path)).or(self.ice.nominated());
        let Some(dtls) = &mut self.dtls else { return };
        while let Some(datagram) = dtls.poll_datagram() {
            match path {
                Some(path) if self.outputs.len() < OUTPUTS_MAX => {
                    self.outputs.push_back(TransportOutput::Transmit { path, datagram });
                }
                _ => self.counters.outputs_full += 1,
            }
        }
        self.counters.dtls = self.dtls_before.plus(dtls.counters());
        while let Some(event) = self.dtls.as_mut().and_then(|dtls| dtls.poll_event()) {
            self.handle_dtls_event(event);
        }
    }

    fn handle_dtls_event(&mut self, event: DtlsEvent) {
        match event {
            DtlsEvent::Connected { profile, keying_material, peer_fingerprint } => {
                // The library was asked to check this; nothing may depend on a library having done so.
                if Some(peer_fingerprint) != self.fingerprint {
                    return self.end(DisconnectReason::HandshakeFailed);
                }
                self.srtp = Some(Srtp::new(profile, &keying_material));
                self.state = State::Connected;
                self.events.push_back(TransportEvent::Connected);
            }
            DtlsEvent::Failed => self.end(DisconnectReason::HandshakeFailed),
            DtlsEvent::Closed => self.end(DisconnectReason::Closed),
        }
    }

    /// Ends for good, until described anew.
    fn end(&mut self, reason: DisconnectReason) {
        if self.state == State::Ended {
            return;
        }
        if reason == DisconnectReason::HandshakeFailed {
            self.counters.handshakes_failed += 1;
        }
        self.state = State::Ended;
        self.drop_keys();
        self.close_paths();
        self.events.push_back(TransportEvent::Disconnected(reason));
    }

    /// Ends until the peer is heard again: the keys stay, since an ICE restart does not make new ones.
    fn fall_silent(&mut self) {
        self.state = State::Silent;
        if self.srtp.is_none() {
            self.drop_keys();
        }
        self.close_paths();
        self.events.push_back(TransportEvent::Disconnected(DisconnectReason::ConsentExpired));
    }

    fn drop_keys(&mut self) {
        self.srtp = None;
        self.dtls = None;
        self.dtls_before = self.counters.dtls;
    }

    fn close_paths(&mut self) {
        self.dtls_path = None;
        for path in self.ice.take_paths() {
            self.outputs.push_back(TransportOutput::ClosePath { path });
        }
    }
}

#[cfg(test)]
mod tests;
