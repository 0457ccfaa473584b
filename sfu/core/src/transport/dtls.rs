//! DTLS 1.2 as the server (RFC 6347), for the keys of SRTP (RFC 5764) and nothing else.
//!
//! [`Dtls`] is all the transport knows of it. [`RtcDtls`] drives `rtc-dtls` behind the pre-filter and owns the
//! retransmission, since the library's own timer stops for good at the first repeated datagram. Of a handshake that is over
//! it keeps what the peer's alerts are read with and a goodbye that is sealed already. It never takes application data and
//! never accepts another certificate than that of the offer.

use super::dtls_prefilter::{
    CLIENT_HELLO, HANDSHAKE_HEADER_BYTES, Prefilter, PrefilterCounters, RECORD_HEADER_BYTES,
};
use super::srtp::Profile;
use crate::negotiate::Fingerprint;
use bytes::BytesMut;
use ring::digest;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::conn::DTLSConn;
use rtc_dtls::crypto::{Certificate, CryptoPrivateKey};
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme, providers::RingProvider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_dtls::state::State;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time after which an unanswered flight is sent again the first time; doubles up to [`RESEND_MAX`]. RFC 6347 section
/// 4.2.4.1 asks for a second, browsers start at 50 ms since media waits.
pub const RESEND_MIN: Duration = Duration::from_millis(250);
/// Longest time between two sendings of a flight.
pub const RESEND_MAX: Duration = Duration::from_secs(2);
/// Shortest time between two sendings of a flight that the peer provokes by repeating its own.
pub const REPEAT_MIN: Duration = Duration::from_millis(40);
/// Most sendings of the last flight that the peer may provoke: nobody can use us to flood a path.
pub const REPEATS_MAX: u8 = 32;

/// What a handshake came to.
#[derive(Clone, PartialEq, Eq)]
pub enum DtlsEvent {
    /// It is complete.
    Connected {
        /// The negotiated protection.
        profile: Profile,
        /// Keys and salts of both directions, [`Profile::keying_material_bytes`] long (RFC 5764 section 4.2).
        keying_material: Vec<u8>,
        /// Of the certificate that the peer proved to own.
        peer_fingerprint: Fingerprint,
    },
    /// It failed: another certificate, no common parameters, or an alert.
    Failed,
    /// The peer closed with a close_notify.
    Closed,
}

/// One handshake, sans I/O.
pub trait Dtls: Send {
    /// Takes a datagram from a validated path.
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]);
    /// Sends again what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// When [`Dtls::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The next datagram to send.
    fn poll_datagram(&mut self) -> Option<Vec<u8>>;
    /// What happened.
    fn poll_event(&mut self) -> Option<DtlsEvent>;
    /// Queues a close_notify.
    fn close(&mut self, now: Instant);
    /// What was let through and dropped.
    fn counters(&self) -> &PrefilterCounters;
}

/// Makes handshakes.
pub trait DtlsFactory: Send + Sync {
    /// A new handshake with a peer whose certificate has the fingerprint of its offer.
    fn accept(&self, now: Instant, expected: Fingerprint) -> Box<dyn Dtls>;
}

/// Makes handshakes with `rtc-dtls` and one certificate.
pub struct RtcDtlsFactory {
    shared: Arc<Shared>,
}

/// What all handshakes have in common.
struct Shared {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// For reading alerts, of which none of it matters.
    reading: Arc<HandshakeConfig>,
}

impl RtcDtlsFactory {
    /// Makes a key and a certificate.
    pub(super) fn generate() -> (Self, Fingerprint) {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(RingProvider::new());
        let key =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("the system has randomness");
        let parameters = rcgen::CertificateParams::new(Vec::new()).expect("no name is a valid list of names");
        let certificate = parameters.self_signed(&key).expect("a fresh key signs");
        let signing_key = provider
            .crypto()
            .import_signing_key(SignatureScheme::EcdsaP256Sha256, &key.serialize_der())
            .expect("a fresh key is well-formed");
        let fingerprint = fingerprint(certificate.der());
        let certificate = Certificate {
            certificate: vec![certificate.der().clone()],
            private_key: CryptoPrivateKey::from_signing_key(signing_key),
        };
        let reading = ConfigBuilder::default()
            .with_crypto_provider(provider.clone())
            .with_certificates(vec![certificate.clone()])
            .build(false, None)
            .expect("a provider and a certificate are all that a server needs");
        (Self { shared: Arc::new(Shared { provider, certificate, reading: Arc::new(reading) }) }, fingerprint)
    }

    fn handshake(&self, expected: Fingerprint) -> RtcDtls {
        RtcDtls {
            shared: self.shared.clone(),
            expected,
            prefilter: Prefilter::new(),
            stage: Stage::Handshake { endpoint: None },
            flight: Flight::default(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }
}

impl DtlsFactory for RtcDtlsFactory {
    fn accept(&self, _now: Instant, expected: Fingerprint) -> Box<dyn Dtls> {
        Box::new(self.handshake(expected))
    }
}

/// The SHA-256 fingerprint of a certificate (RFC 8122 section 5).
fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint(digest::digest(&digest::SHA256, der).as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The library keeps associations by address; ours has one.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The label of RFC 5764 section 4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

enum Stage {
    Handshake { endpoint: Option<Box<Endpoint>> },
    Connected(Association),
    Over,
}

/// What is left of a handshake that is over. The library would keep all its messages, 10 kB for as long as somebody is
/// there, to read one alert and write another.
struct Association {
    /// Keys and numbers, in the library's own form.
    state: Box<[u8]>,
    /// A close_notify, sealed.
    goodbye: Vec<Vec<u8>>,
}

/// Our latest flight, as sent: a repetition is the same records again, of which the peer's replay window takes those
/// it has missed.
#[derive(Default)]
struct Flight {
    datagrams: Vec<Vec<u8>>,
    sent_at: Option<Instant>,
    resend: Option<(Instant, Duration)>,
    repeats: u8,
}

/// A handshake driven by `rtc-dtls`.
pub struct RtcDtls {
    shared: Arc<Shared>,
    expected: Fingerprint,
    prefilter: Prefilter,
    stage: Stage,
    flight: Flight,
    datagrams: VecDeque<Vec<u8>>,
    events: VecDeque<DtlsEvent>,
}

impl RtcDtls {
    /// The library takes the client's first profile of those we name, and Chromium names the dearer one first: so we
    /// name only the best that the client has.
    fn endpoint(&self, profile: Profile) -> Result<Box<Endpoint>, Error> {
        let expected = self.expected;
        let profile = match profile {
            Profile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            Profile::Aes128CmSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        };
        let config = ConfigBuilder::default()
            .with_crypto_provider(self.shared.provider.clone())
            .with_certificates(vec![self.shared.certificate.clone()])
            // The one that RFC 8827 section 6.5 requires of everyone.
            .with_cipher_suites(vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256])
            .with_srtp_protection_profiles(vec![profile])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // Binds the keys to the whole handshake, which the library's check of Finished alone does not.
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            // About certificate authorities, and it spares making a certificate for each handshake.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |chain: &[Vec<u8>], _: &[_]| {
                match chain.first() {
                    Some(der) if fingerprint(der) == expected => Ok(()),
                    _ => Err(Error::ErrInvalidCertificate),
                }
            })))
            .build(false, None)?;
        Ok(Box::new(Endpoint::new(PEER, TransportProtocol::UDP, Some(Arc::new(config)))))
    }

    fn handle_passed(&mut self, now: Instant, passed: &[u8]) {
        if let Stage::Handshake { endpoint: None } = self.stage {
            match offered_profile(passed).and_then(|profile| self.endpoint(profile).ok()) {
                Some(made) => self.stage = Stage::Handshake { endpoint: Some(made) },
                None => return self.fail(),
            }
        }
        let Stage::Handshake { endpoint: Some(endpoint) } = &mut self.stage else { return };
        let result = endpoint.read(now, PEER, None, BytesMut::from(passed));
        let flight = drained(endpoint);
        if !flight.is_empty() {
            self.datagrams.extend(flight.iter().cloned());
            self.flight = Flight {
                datagrams: flight,
                sent_at: Some(now),
                resend: Some((now + RESEND_MIN, RESEND_MIN)),
                repeats: 0,
            };
        }
        match result {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => self.handle_complete(now),
                        EndpointEvent::PeerClosed => self.end(DtlsEvent::Closed),
                        _ => {}
                    }
                }
            }
            Err(_) => self.fail(),
        }
    }

    fn handle_complete(&mut self, now: Instant) {
        let Stage::Handshake { endpoint: Some(endpoint) } = std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return;
        };
        match connected(&endpoint).zip(Association::of(now, *endpoint)) {
            Some((event, association)) => {
                self.events.push_back(event);
                self.stage = Stage::Connected(association);
                // The peer repeats its last flight if it misses ours.
                self.flight.resend = None;
                self.prefilter.finish();
            }
            None => self.fail(),
        }
    }

    fn fail(&mut self) {
        self.end(DtlsEvent::Failed);
    }

    fn end(&mut self, event: DtlsEvent) {
        self.stage = Stage::Over;
        self.flight = Flight::default();
        self.prefilter.finish();
        self.events.push_back(event);
    }

    /// The peer repeats a flight, so it may not have ours.
    fn handle_repeated(&mut self, now: Instant) {
        let is_due = self.flight.sent_at.is_some_and(|at| now >= at + REPEAT_MIN);
        if is_due && self.flight.repeats < REPEATS_MAX {
            self.flight.repeats += 1;
            self.resend(now);
        }
    }

    fn resend(&mut self, now: Instant) {
        self.datagrams.extend(self.flight.datagrams.iter().cloned());
        self.flight.sent_at = Some(now);
        if let Some((at, interval)) = &mut self.flight.resend {
            *at = now + *interval;
        }
    }
}

impl Dtls for RtcDtls {
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let mut passed = Vec::new();
        let verdict = self.prefilter.handle_datagram(datagram, &mut passed);
        if let Stage::Connected(association) = &mut self.stage
            && !passed.is_empty()
        {
            // Only alerts pass now. A fatal one ends, a warning does not.
            if association.is_ended_by(&self.shared, &passed) {
                self.datagrams.extend(association.goodbye.drain(..));
                self.end(DtlsEvent::Closed);
            }
        } else if !passed.is_empty() {
            self.handle_passed(now, &passed);
        } else if verdict.is_repeated {
            self.handle_repeated(now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some((at, interval)) = &mut self.flight.resend
            && now >= *at
        {
            *interval = (*interval * 2).min(RESEND_MAX);
            self.resend(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.flight.resend.map(|(at, _)| at)
    }

    fn poll_datagram(&mut self) -> Option<Vec<u8>> {
        self.datagrams.pop_front()
    }

    fn poll_event(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    fn close(&mut self, _now: Instant) {
        if let Stage::Connected(association) = &mut self.stage {
            self.datagrams.extend(association.goodbye.drain(..));
        }
        self.stage = Stage::Over;
        self.flight = Flight::default();
    }

    fn counters(&self) -> &PrefilterCounters {
        self.prefilter.counters()
    }
}

impl Association {
    /// What is needed of the library when its handshake is complete; `None` if it does not give it.
    fn of(now: Instant, mut endpoint: Endpoint) -> Option<Self> {
        let state = endpoint.get_connection_state(PEER)?.marshal_binary().ok()?.into_boxed_slice();
        endpoint.stop(now, PEER);
        Some(Self { state, goodbye: drained(&mut endpoint) })
    }

    /// Whether records hold an authentic alert that ends the association. A repeated one that does would have done so the
    /// first time, so that no number has to be remembered.
    fn is_ended_by(&self, shared: &Shared, records: &[u8]) -> bool {
        let mut state = State::new(shared.provider.clone(), false);
        if state.unmarshal_binary(&self.state).is_err() {
            return false;
        }
        let mut conn = DTLSConn::new(shared.reading.clone(), false, Some(state));
        matches!(conn.read(records), Err(Error::ErrAlertFatalOrClose))
    }
}

/// What the library wants to send.
fn drained(endpoint: &mut Endpoint) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| endpoint.poll_transmit()).map(|transmit| transmit.message.to_vec()).collect()
}

/// What the library has negotiated; `None` when it is not what we asked for.
fn connected(endpoint: &Endpoint) -> Option<DtlsEvent> {
    let state = endpoint.get_connection_state(PEER)?;
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Profile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Profile::Aes128CmSha1_80,
        _ => return None,
    };
    let keying_material =
        state.export_keying_material(EXPORTER_LABEL, &[], profile.keying_material_bytes()).ok()?;
    Some(DtlsEvent::Connected {
        profile,
        keying_material: keying_material.as_ref().to_vec(),
        peer_fingerprint: fingerprint(state.peer_certificates.first()?),
    })
}

/// The best profile of a ClientHello that came whole from the pre-filter, as the first of its records.
fn offered_profile(passed: &[u8]) -> Option<Profile> {
    let mut message = passed.get(RECORD_HEADER_BYTES..)?;
    if message.first() != Some(&CLIENT_HELLO) {
        return None;
    }
    let length = message.get(1..4)?;
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    message = message.get(HANDSHAKE_HEADER_BYTES..)?.get(..length)?;
    offered_srtp_profile(message)
}

/// The best SRTP profile in the `use_srtp` extension (RFC 5764 section 4.1.1) of a ClientHello's body (RFC 6347 section
/// 4.3.2). For fuzzing, too.
pub fn offered_srtp_profile(client_hello: &[u8]) -> Option<Profile> {
    const USE_SRTP: u16 = 14;
    let mut rest = client_hello.get(2 + 32..)?;
    vector(&mut rest, 1)?; // session_id
    vector(&mut rest, 1)?; // cookie
    vector(&mut rest, 2)?; // cipher_suites
    vector(&mut rest, 1)?; // compression_methods
    let mut extensions = vector(&mut rest, 2)?;
    while let Some((kind, behind)) = extensions.split_first_chunk::<2>() {
        extensions = behind;
        let mut body = vector(&mut extensions, 2)?;
        if u16::from_be_bytes(*kind) == USE_SRTP {
            let offered = vector(&mut body, 2)?;
            return [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80]
                .into_iter()
                .find(|profile| offered.chunks_exact(2).any(|id| id == profile.id().to_be_bytes()));
        }
    }
    None
}

/// Takes a vector with a length of `length_bytes` off the front.
fn vector<'a>(rest: &mut &'a [u8], length_bytes: usize) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (body, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(body)
}

#[cfg(test)]
pub(crate) mod tests;
