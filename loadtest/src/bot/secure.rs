//! The secure path of a bot: a full ICE agent, DTLS at either end, SRTP with the keys that come of it. webrtc-rs's
//! sans-IO parts do the work; this joins them.

use super::sdp::{Credentials, Description};
use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use ring::digest;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, providers::RingProvider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_ice::agent::agent_config::AgentConfig;
use rtc_ice::agent::{Agent, Event};
use rtc_ice::candidate::CandidateConfig;
use rtc_ice::candidate::candidate_host::CandidateHostConfig;
use rtc_ice::mdns::MulticastDnsMode;
use rtc_ice::state::ConnectionState;
use rtc_shared::error::Error;
use rtc_shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc_srtp::config::{Config as SrtpConfig, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc_srtp::context::Context as SrtpContext;
use rtc_srtp::protection_profile::ProtectionProfile;
use sansio::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often an established path is checked, as browsers do (RFC 7675 section 5.1).
const CONSENT_EVERY: Duration = Duration::from_millis(2_500);

/// How often candidate pairs are checked before there is a path.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// The first bytes of an answer to a check (RFC 8489 section 5).
const BINDING_SUCCESS: [u8; 2] = [1, 1];

/// Datagrams of one handshake that may be refused: two flights that a busy server sends again some times.
const DTLS_ERRORS_MAX: u32 = 20;

/// A DTLS record's header, and where its epoch, its number and its length are (RFC 6347 section 4.1).
const RECORD_HEADER_BYTES: usize = 13;
const EPOCH: std::ops::Range<usize> = 3..5;
const NUMBER: std::ops::Range<usize> = 5..11;
const LENGTH: std::ops::Range<usize> = 11..13;

/// What is the same of a datagram of a handshake however often it is sent: all but the numbers of its records and, where
/// they are encrypted, what they say, as each time has a nonce of its own.
fn lasting(datagram: &[u8]) -> [u8; 32] {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut rest = datagram;
    while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER_BYTES) {
        let length = usize::from(u16::from_be_bytes([header[LENGTH.start], header[LENGTH.start + 1]]));
        let (body, behind) = behind.split_at(length.min(behind.len()));
        digest.update(&header[..NUMBER.start]);
        digest.update(&header[LENGTH]);
        if header[EPOCH] == [0, 0] {
            digest.update(body);
        }
        rest = behind;
    }
    digest.update(rest);
    digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Which SRTP profile bots offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Cipher {
    /// AEAD_AES_128_GCM (RFC 7714).
    #[default]
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    /// SRTP_AES128_CM_HMAC_SHA1_80 (RFC 3711).
    #[serde(rename = "sha1-80")]
    Sha1_80,
}

/// What all bots of a run share: making a certificate for each would cost more than the handshakes.
pub(crate) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: [u8; 32],
    cipher: Cipher,
}

impl Identity {
    /// Makes a key and a certificate.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn generate(cipher: Cipher) -> anyhow::Result<Self> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(RingProvider::new());
        let certificate = Certificate::generate_self_signed(vec!["bot".to_owned()], provider.crypto())?;
        let der = certificate.certificate.first().context("a certificate was made")?;
        Ok(Self { fingerprint: fingerprint(der), provider, certificate, cipher })
    }
}

fn fingerprint(der: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, der).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The keys of an established path.
pub(crate) struct Srtp {
    pub(crate) outbound: SrtpContext,
    pub(crate) inbound: SrtpContext,
}

impl Srtp {
    /// Keys for a path without a handshake, the same in both directions: for a run without a server.
    pub(crate) fn preset(identity: &Identity, secret: u8) -> anyhow::Result<Self> {
        let config = SrtpConfig { profile: profile(identity.cipher), ..SrtpConfig::default() };
        let half = config.profile.key_len();
        let (key, salt) = (vec![secret; half], vec![!secret; config.profile.salt_len()]);
        let context =
            || SrtpContext::new(&key, &salt, config.profile, None, None, identity.provider.crypto());
        Ok(Self { outbound: context()?, inbound: context()? })
    }
}

fn profile(cipher: Cipher) -> ProtectionProfile {
    match cipher {
        Cipher::Aes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Cipher::Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    }
}

/// See the module.
pub(crate) struct Secure {
    identity: Arc<Identity>,
    local: SocketAddr,
    agent: Agent,
    dtls: Option<Endpoint>,
    is_dtls_client: bool,
    expected_fingerprint: Option<[u8; 32]>,
    selected: Option<SocketAddr>,
    srtp: Option<Srtp>,
    cipher: Option<Cipher>,
    failure: Option<String>,
    /// Datagrams of a handshake that the library would not have.
    dtls_errors: u32,
    /// What it had, by what is lasting of it.
    dtls_taken: HashSet<[u8; 32]>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl Secure {
    /// An agent with one local address.
    ///
    /// # Errors
    /// When that is no address for ICE.
    pub(crate) fn new(now: Instant, identity: Arc<Identity>, local: SocketAddr) -> anyhow::Result<Self> {
        let config = AgentConfig {
            multicast_dns_mode: MulticastDnsMode::Disabled,
            check_interval: CHECK_EVERY,
            keepalive_interval: Some(CONSENT_EVERY),
            is_controlling: true,
            ..AgentConfig::default()
        };
        let mut agent = Agent::new(now, Arc::new(config), identity.provider.clone())?;
        agent.add_local_candidate(host(local)?)?;
        Ok(Self {
            identity,
            local,
            agent,
            dtls: None,
            is_dtls_client: true,
            expected_fingerprint: None,
            selected: None,
            srtp: None,
            cipher: None,
            failure: None,
            dtls_errors: 0,
            dtls_taken: HashSet::new(),
            outbox: VecDeque::new(),
        })
    }

    /// What to say of this end in a description.
    pub(crate) fn credentials(&self) -> Credentials {
        let own = self.agent.get_local_credentials();
        Credentials { ufrag: own.ufrag.clone(), pwd: own.pwd.clone(), fingerprint: self.identity.fingerprint }
    }

    /// Starts towards the other end. A second description of the same end changes nothing.
    ///
    /// # Errors
    /// When it has no candidate that a bot may use, or is another end than before.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        remote: &Description,
        is_offerer: bool,
    ) -> anyhow::Result<()> {
        if let Some(expected) = self.expected_fingerprint {
            ensure!(expected == remote.credentials.fingerprint, "the server's certificate changed");
            return Ok(());
        }
        ensure!(
            !remote.candidates.is_empty(),
            "the server offers no UDP host candidate at its own address ({} others)",
            remote.candidates_left_out
        );
        self.expected_fingerprint = Some(remote.credentials.fingerprint);
        self.is_dtls_client = !remote.is_dtls_client;
        for candidate in &remote.candidates {
            self.agent.add_remote_candidate(host(*candidate)?)?;
        }
        let (ufrag, pwd) = (remote.credentials.ufrag.clone(), remote.credentials.pwd.clone());
        self.agent.start_connectivity_checks(now, is_offerer || remote.is_ice_lite, ufrag, pwd)?;
        self.handle_timeout(now);
        Ok(())
    }

    /// Puts keys in place of a handshake with `remote`.
    pub(crate) fn preset(&mut self, srtp: Srtp, remote: SocketAddr) {
        self.selected = Some(remote);
        self.cipher = Some(self.identity.cipher);
        self.srtp = Some(srtp);
    }

    /// Takes a STUN message.
    pub(crate) fn handle_stun(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        // What is no authentic message of the other end is ignored, as RFC 8489 section 6.3 has it.
        let _ = self.agent.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
        if self.selected.is_none() && datagram.starts_with(&BINDING_SUCCESS) {
            // The library would nominate at its next check. Browsers do so with the answer or, where the server is
            // ICE-lite, with the first check, so its interval is over now.
            let _ = self.agent.handle_timeout(now + CHECK_EVERY);
        }
        self.drain_ice(now);
    }

    /// Takes a DTLS datagram.
    pub(crate) fn handle_dtls(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(dtls) = &mut self.dtls else { return };
        let lasting = lasting(datagram);
        if self.srtp.is_none() && self.dtls_taken.contains(&lasting) {
            // A busy server sends a flight again before it has seen the answer. To the library that is an error, to the
            // handshake it is none (RFC 6347 section 4.2.4); should the answer be lost, its own timer repeats it.
            return;
        }
        match dtls.read(now, from, None, BytesMut::from(datagram)) {
            Ok(events) => {
                if self.srtp.is_none() {
                    self.dtls_taken.insert(lasting);
                }
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            if let Err(error) = self.handle_keys(from) {
                                self.failure = Some(format!("{error:#}"));
                            }
                        }
                        EndpointEvent::PeerClosed => self.failure = Some("the server closed DTLS".into()),
                        _ => {}
                    }
                }
            }
            // What cannot be read is to be dropped (RFC 6347 section 4.1.2.7).
            Err(error) if self.srtp.is_none() => {
                self.dtls_errors += 1;
                if self.dtls_errors > DTLS_ERRORS_MAX {
                    self.failure = Some(format!("DTLS: {error}"));
                }
            }
            Err(_) => {}
        }
        self.drain_dtls();
    }

    /// Takes in that time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.expected_fingerprint.is_none() {
            return;
        }
        if self.agent.poll_timeout().is_some_and(|at| at <= now) {
            let _ = self.agent.handle_timeout(now);
            self.drain_ice(now);
        }
        if let (Some(dtls), Some(remote)) = (&mut self.dtls, self.selected)
            && dtls.poll_timeout(&remote).is_some_and(|at| at <= now)
        {
            if let Err(error) = dtls.handle_timeout(remote, now) {
                self.failure = Some(format!("DTLS: {error}"));
            }
            self.drain_dtls();
        }
    }

    /// The next datagram to send and where to.
    pub(crate) fn poll_datagram(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// Keys, once there are any.
    pub(crate) fn srtp(&mut self) -> Option<&mut Srtp> {
        self.srtp.as_mut()
    }

    /// Whether there are keys.
    pub(crate) fn is_connected(&self) -> bool {
        self.srtp.is_some()
    }

    /// The server's end of the path, once there is one.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// The cipher that was negotiated.
    pub(crate) fn cipher(&self) -> Option<Cipher> {
        self.cipher
    }

    /// Why there is no path, or none any more.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls {
            let _ = dtls.close(now);
        }
        self.drain_dtls();
    }

    fn drain_ice(&mut self, now: Instant) {
        while let Some(event) = self.agent.poll_event() {
            match event.event {
                Event::SelectedCandidatePairChange(_, remote) => self.selected = Some(remote.addr()),
                Event::ConnectionStateChange(ConnectionState::Failed) => {
                    self.failure = Some("ICE: no answer to any check".into());
                }
                _ => {}
            }
        }
        while let Some(message) = self.agent.poll_write() {
            self.outbox.push_back((message.transport.peer_addr, message.message.to_vec()));
        }
        if let (Some(remote), Some(expected), None) = (self.selected, self.expected_fingerprint, &self.dtls) {
            match self.connect(now, remote, expected) {
                Ok(endpoint) => self.dtls = Some(endpoint),
                Err(error) => self.failure = Some(format!("DTLS: {error}")),
            }
            self.drain_dtls();
        }
    }

    fn connect(&self, now: Instant, remote: SocketAddr, expected: [u8; 32]) -> Result<Endpoint, Error> {
        let profile = match self.identity.cipher {
            Cipher::Aes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            Cipher::Sha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        };
        let suites = [
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
        ];
        // Its own certificate is of the first kind.
        let suites = if self.is_dtls_client { &suites[..] } else { &suites[..1] };
        let config = ConfigBuilder::default()
            .with_crypto_provider(self.identity.provider.clone())
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_cipher_suites(suites.to_vec())
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_srtp_protection_profiles(vec![profile])
            .with_extended_master_secret(ExtendedMasterSecretType::Request)
            // The fingerprint in the description stands for the certificate, no authority does (RFC 8122).
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |chain: &[Vec<u8>], _: &[_]| {
                match chain.first() {
                    Some(der) if fingerprint(der) == expected => Ok(()),
                    _ => Err(Error::ErrInvalidCertificate),
                }
            })))
            .build(self.is_dtls_client, Some(remote))?;
        if !self.is_dtls_client {
            return Ok(Endpoint::new(self.local, TransportProtocol::UDP, Some(Arc::new(config))));
        }
        let mut endpoint = Endpoint::new(self.local, TransportProtocol::UDP, None);
        endpoint.connect(now, remote, Arc::new(config), None)?;
        Ok(endpoint)
    }

    fn drain_dtls(&mut self) {
        let Some(dtls) = &mut self.dtls else { return };
        while let Some(message) = dtls.poll_transmit() {
            self.outbox.push_back((message.transport.peer_addr, message.message.to_vec()));
        }
    }

    fn handle_keys(&mut self, remote: SocketAddr) -> anyhow::Result<()> {
        let state = self.dtls.as_ref().and_then(|dtls| dtls.get_connection_state(remote));
        let state = state.context("a finished handshake has a state")?;
        let cipher = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Cipher::Aes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Cipher::Sha1_80,
            _ => bail!("the server has not agreed to the SRTP profile"),
        };
        let mut config = SrtpConfig { profile: profile(cipher), ..SrtpConfig::default() };
        let material =
            state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
        config.set_session_keys_from_keying_material(material.as_ref(), self.is_dtls_client)?;
        let keys = &config.keys;
        let context = |key: &[u8], salt: &[u8]| {
            SrtpContext::new(key, salt, config.profile, None, None, self.identity.provider.crypto())
        };
        let outbound = context(&keys.local_master_key, &keys.local_master_salt)?;
        let inbound = context(&keys.remote_master_key, &keys.remote_master_salt)?;
        self.srtp = Some(Srtp { outbound, inbound });
        self.cipher = Some(cipher);
        self.dtls_taken = HashSet::new();
        Ok(())
    }
}

fn host(address: SocketAddr) -> anyhow::Result<rtc_ice::candidate::Candidate> {
    let base_config = CandidateConfig {
        network: "udp".to_owned(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..CandidateConfig::default()
    };
    Ok(CandidateHostConfig { base_config, ..CandidateHostConfig::default() }.new_candidate_host()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u8, number: u8, body: &[u8]) -> Vec<u8> {
        let mut record = vec![22, 254, 253, 0, epoch, 0, 0, 0, 0, 0, number, 0, body.len() as u8];
        record.extend(body);
        record
    }

    #[test]
    fn a_flight_is_known_again_under_other_record_numbers_and_others_are_not() {
        let flight = [record(0, 1, b"hello"), record(1, 0, b"sealed")].concat();
        let again = [record(0, 3, b"hello"), record(1, 1, b"other!")].concat();
        assert_eq!(lasting(&flight), lasting(&again));
        for other in [
            [record(0, 1, b"hallo"), record(1, 0, b"sealed")].concat(),
            [record(0, 1, b"hello"), record(1, 0, b"sealed2")].concat(),
            record(0, 1, b"hello"),
            [record(0, 1, b"hello"), record(0, 0, b"sealed")].concat(),
            flight[..flight.len() - 7].to_vec(),
        ] {
            assert_ne!(lasting(&flight), lasting(&other), "{other:?}");
        }
    }
}
