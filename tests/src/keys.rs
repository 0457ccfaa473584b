//! The keys of a client's media, taken at its own handshake, so that a test can say over SRTCP what no client would.
//!
//! They are taken where `str0m` asks its cryptography for DTLS, and used by `rtc-srtp`.

use rtc_srtp::context::Context;
use rtc_srtp::crypto::{RTCCryptoProvider, providers::RingProvider};
use rtc_srtp::protection_profile::ProtectionProfile;
use std::cell::RefCell;
use std::fmt;
use std::sync::LazyLock;
use std::time::Instant;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

static INNER: LazyLock<CryptoProvider> = LazyLock::new(str0m::crypto::from_feature_flags);

thread_local! {
    /// A client polls its DTLS and takes what came of it in one call, so that nobody else's stands here.
    static TAKEN: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// The cryptography of `str0m` with a tap on its handshakes.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider { dtls_provider: &Tap, ..INNER.clone() }
}

/// The keys of a handshake that ended on this thread since the last call.
pub(crate) fn taken() -> Option<Keys> {
    TAKEN.take()
}

/// What a client seals its SRTCP with.
pub(crate) struct Keys(Context);

impl Keys {
    fn new(material: &[u8], profile: SrtpProfile, is_client: bool) -> Option<Self> {
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
            _ => return None,
        };
        // The client's key, the server's, the client's salt, the server's (RFC 5764 section 4.2).
        let (keys, salts) = material.split_at_checked(2 * profile.key_len())?;
        let half = |both: &[u8]| {
            let (client, server) = both.split_at(both.len() / 2);
            if is_client { client.to_vec() } else { server.to_vec() }
        };
        let crypto = RingProvider::new();
        Context::new(&half(keys), &half(salts), profile, None, None, crypto.crypto()).ok().map(Self)
    }

    pub(crate) fn seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt_rtcp(compound).ok().map(|sealed| sealed.to_vec())
    }
}

#[derive(Debug)]
struct Tap;

impl DtlsProvider for Tap {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        INNER.dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = INNER.dtls_provider.new_dtls(certificate, now, version, mtu)?;
        Ok(Box::new(Tapped(inner)))
    }

    fn is_test(&self) -> bool {
        INNER.dtls_provider.is_test()
    }
}

struct Tapped(Box<dyn DtlsInstance>);

impl fmt::Debug for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl DtlsInstance for Tapped {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.0.poll_output(buffer);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            TAKEN.set(Keys::new(material, *profile, self.0.is_active()));
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
