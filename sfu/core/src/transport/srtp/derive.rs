//! Session keys from master keys (RFC 3711 section 4.3), with a key derivation rate of zero as RFC 5764 has it.

use rtc_dtls::crypto_provider::{BlockCipherAlgorithm, RTCCryptoProvider, providers::RingProvider};

/// Labels of RFC 3711 section 4.3.2.
pub(super) const RTP_ENCRYPTION: u8 = 0;
pub(super) const RTP_AUTHENTICATION: u8 = 1;
pub(super) const RTP_SALT: u8 = 2;
pub(super) const RTCP_ENCRYPTION: u8 = 3;
pub(super) const RTCP_AUTHENTICATION: u8 = 4;
pub(super) const RTCP_SALT: u8 = 5;

/// AES-CM as a pseudo-random function. A salt of 12 bytes counts as one of 14 that ends in zeros (RFC 7714 section 11).
pub(super) fn derive<const BYTES: usize>(master_key: &[u8], master_salt: &[u8], label: u8) -> [u8; BYTES] {
    let provider = RingProvider::new();
    let mut out = [0; BYTES];
    for (number, chunk) in out.chunks_mut(16).enumerate() {
        let mut block = [0u8; 16];
        block[..master_salt.len()].copy_from_slice(master_salt);
        block[7] ^= label;
        block[15] = number as u8;
        provider
            .crypto()
            .block_encrypt(BlockCipherAlgorithm::Aes128, master_key, &mut block)
            .expect("a master key of AES-128 has 16 bytes");
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    #[test]
    fn the_keys_of_rfc_3711_appendix_b_3() {
        let key = hex("e1f97a0d3e018be0d64fa32c06de4139");
        let salt = hex("0ec675ad498afeebb6960b3aabe6");
        assert_eq!(
            derive::<16>(&key, &salt, RTP_ENCRYPTION).to_vec(),
            hex("c61e7a93744f39ee10734afe3ff7a087")
        );
        assert_eq!(derive::<14>(&key, &salt, RTP_SALT).to_vec(), hex("30cbbc08863d8c85d49db34a9ae1"));
        let auth = derive::<20>(&key, &salt, RTP_AUTHENTICATION);
        assert_eq!(auth.to_vec(), hex("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
    }
}
