//! AES_CM_128_HMAC_SHA1_80 (RFC 3711): for clients that have nothing else.
//!
//! ring has no AES in counter mode, so the primitives are those that the DTLS library brings along.

use super::{Cipher, RTCP_HEADER_BYTES, RTCP_INDEX_BYTES, Unauthentic, derive};
use rtc_dtls::crypto_provider::{
    HmacAlgorithm, Mac, RTCCryptoProvider, StreamCipher, StreamCipherAlgorithm, constant_time_eq,
    providers::RingProvider,
};

const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 14;
const AUTH_KEY_BYTES: usize = 20;
const TAG_BYTES: usize = 10;
const MAC_BYTES: usize = 20;

/// Master key and master salt together (RFC 5764 section 4.1.2).
pub(super) const MASTER_BYTES: (usize, usize) = (KEY_BYTES, SALT_BYTES);

/// Keys of one protocol in one direction.
struct Keys {
    stream: Box<dyn StreamCipher>,
    salt: [u8; SALT_BYTES],
    mac: Box<dyn Mac>,
}

impl Keys {
    fn new(key: [u8; KEY_BYTES], salt: [u8; SALT_BYTES], auth: [u8; AUTH_KEY_BYTES]) -> Self {
        let provider = RingProvider::new();
        let stream = provider.crypto().new_stream_cipher(StreamCipherAlgorithm::Aes128Ctr, &key);
        let mac = provider.crypto().new_hmac(HmacAlgorithm::Sha1, &auth);
        Self { stream: stream.expect("AES-128 takes 16 bytes"), salt, mac: mac.expect("HMAC takes any key") }
    }

    /// RFC 3711 section 4.1.1.
    fn crypt(&mut self, payload: &mut [u8], ssrc: u32, index: u64) {
        let mut counter = [0u8; 16];
        counter[..SALT_BYTES].copy_from_slice(&self.salt);
        counter[4..8].iter_mut().zip(ssrc.to_be_bytes()).for_each(|(byte, mask)| *byte ^= mask);
        counter[8..14].iter_mut().zip(&index.to_be_bytes()[2..]).for_each(|(byte, mask)| *byte ^= mask);
        self.stream.apply_keystream(&counter, payload).expect("the counter is a block of AES");
    }

    /// RFC 3711 section 4.2.
    fn tag(&mut self, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
        let mut mac = [0; MAC_BYTES];
        self.mac.sign(parts, &mut mac).expect("SHA-1 has 20 bytes");
        mac[..TAG_BYTES].try_into().expect("a tag is the beginning of a MAC")
    }
}

/// The session keys of one direction.
pub(super) struct Sha1 {
    rtp: Keys,
    rtcp: Keys,
}

impl Sha1 {
    pub(super) fn new(master_key: &[u8], master_salt: &[u8]) -> Self {
        Self {
            rtp: Keys::new(
                derive(master_key, master_salt, derive::RTP_ENCRYPTION),
                derive(master_key, master_salt, derive::RTP_SALT),
                derive(master_key, master_salt, derive::RTP_AUTHENTICATION),
            ),
            rtcp: Keys::new(
                derive(master_key, master_salt, derive::RTCP_ENCRYPTION),
                derive(master_key, master_salt, derive::RTCP_SALT),
                derive(master_key, master_salt, derive::RTCP_AUTHENTICATION),
            ),
        }
    }
}

impl Cipher for Sha1 {
    fn rtp_overhead_bytes(&self) -> usize {
        TAG_BYTES
    }

    fn seal_rtp(&mut self, packet: &mut [u8], header_bytes: usize, ssrc: u32, index: u64) {
        let (packet, tag_out) = packet.split_at_mut(packet.len() - TAG_BYTES);
        self.rtp.crypt(&mut packet[header_bytes..], ssrc, index);
        tag_out.copy_from_slice(&self.rtp.tag(&[packet, &((index >> 16) as u32).to_be_bytes()]));
    }

    fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unauthentic> {
        let (packet, tag) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let expected = self.rtp.tag(&[packet, &((index >> 16) as u32).to_be_bytes()]);
        if !constant_time_eq(&expected, tag) {
            return Err(Unauthentic);
        }
        self.rtp.crypt(&mut packet[header_bytes..], ssrc, index);
        Ok(())
    }

    fn rtcp_tail_bytes(&self) -> (usize, usize) {
        (0, TAG_BYTES)
    }

    fn seal_rtcp(&mut self, packet: &mut [u8], ssrc: u32, word: u32) {
        let (packet, tag_out) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let end = packet.len() - RTCP_INDEX_BYTES;
        self.rtcp.crypt(&mut packet[RTCP_HEADER_BYTES..end], ssrc, (word & !super::RTCP_ENCRYPTED).into());
        packet[end..].copy_from_slice(&word.to_be_bytes());
        tag_out.copy_from_slice(&self.rtcp.tag(&[packet]));
    }

    fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<(), Unauthentic> {
        let (packet, tag) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let expected = self.rtcp.tag(&[packet]);
        if !constant_time_eq(&expected, tag) {
            return Err(Unauthentic);
        }
        let end = packet.len() - RTCP_INDEX_BYTES;
        self.rtcp.crypt(&mut packet[RTCP_HEADER_BYTES..end], ssrc, (word & !super::RTCP_ENCRYPTED).into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    #[test]
    fn the_key_stream_of_rfc_3711_appendix_b_2() {
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let salt = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap();
        let mut stream = [0; 48];
        Keys::new(key, salt, [0; 20]).crypt(&mut stream, 0, 0);
        let expected = "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0";
        assert_eq!(stream.to_vec(), hex(expected));
    }
}
