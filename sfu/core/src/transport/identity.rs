//! The certificate the server shows to every browser of its life.

use super::dtls::{Dtls, DtlsFactory, RtcDtlsFactory};
use crate::negotiate::Fingerprint;
use std::time::Instant;

/// The server's side of every DTLS handshake: a self-signed ECDSA P-256 certificate, which the answer names by its
/// fingerprint (RFC 8122).
pub struct Identity {
    fingerprint: Fingerprint,
    factory: Box<dyn DtlsFactory>,
}

impl Identity {
    /// Makes a new key and certificate. Costs about a millisecond; once at the start is enough.
    pub fn generate() -> Self {
        let (factory, fingerprint) = RtcDtlsFactory::generate();
        Self::with_factory(fingerprint, Box::new(factory))
    }

    /// Takes another maker of handshakes: what a simulation uses.
    pub fn with_factory(fingerprint: Fingerprint, factory: Box<dyn DtlsFactory>) -> Self {
        Self { fingerprint, factory }
    }

    /// For the answer.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn accept(&self, now: Instant, expected: Fingerprint) -> Box<dyn Dtls> {
        self.factory.accept(now, expected)
    }
}
