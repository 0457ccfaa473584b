//! AEAD_AES_128_GCM (RFC 7714) in place with ring: what every browser can do.

use super::{Cipher, RTCP_HEADER_BYTES, RTCP_INDEX_BYTES, Unauthentic, derive};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Master key and master salt together (RFC 5764 section 4.1.2).
pub(super) const MASTER_BYTES: (usize, usize) = (KEY_BYTES, SALT_BYTES);

/// The session keys of one direction.
pub(super) struct Gcm {
    rtp: LessSafeKey,
    rtp_salt: [u8; SALT_BYTES],
    rtcp: LessSafeKey,
    rtcp_salt: [u8; SALT_BYTES],
}

impl Gcm {
    pub(super) fn new(master_key: &[u8], master_salt: &[u8]) -> Self {
        let session = |label| derive::<KEY_BYTES>(master_key, master_salt, label);
        Self::from_session_keys(
            session(derive::RTP_ENCRYPTION),
            derive(master_key, master_salt, derive::RTP_SALT),
            session(derive::RTCP_ENCRYPTION),
            derive(master_key, master_salt, derive::RTCP_SALT),
        )
    }

    fn from_session_keys(
        rtp: [u8; KEY_BYTES],
        rtp_salt: [u8; SALT_BYTES],
        rtcp: [u8; KEY_BYTES],
        rtcp_salt: [u8; SALT_BYTES],
    ) -> Self {
        let key = |bytes: &[u8]| {
            LessSafeKey::new(UnboundKey::new(&AES_128_GCM, bytes).expect("AES-128 takes 16 bytes"))
        };
        Self { rtp: key(&rtp), rtp_salt, rtcp: key(&rtcp), rtcp_salt }
    }

    /// RFC 7714 section 8.1.
    fn rtp_nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = self.rtp_salt;
        xor(&mut nonce[2..6], &ssrc.to_be_bytes());
        xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 7714 section 9.1.
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> Nonce {
        let mut nonce = self.rtcp_salt;
        xor(&mut nonce[2..6], &ssrc.to_be_bytes());
        xor(&mut nonce[8..12], &index.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

fn xor(bytes: &mut [u8], mask: &[u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Header and index word: what of an SRTCP packet is authenticated but not encrypted (RFC 7714 section 9.2).
fn rtcp_aad(header: &[u8], word: u32) -> Aad<[u8; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES]> {
    let mut aad = [0; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES];
    aad[..RTCP_HEADER_BYTES].copy_from_slice(&header[..RTCP_HEADER_BYTES]);
    aad[RTCP_HEADER_BYTES..].copy_from_slice(&word.to_be_bytes());
    Aad::from(aad)
}

impl Cipher for Gcm {
    fn rtp_overhead_bytes(&self) -> usize {
        TAG_BYTES
    }

    fn seal_rtp(&mut self, packet: &mut [u8], header_bytes: usize, ssrc: u32, index: u64) {
        let nonce = self.rtp_nonce(ssrc, index);
        let (plain, tag_out) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let (header, payload) = plain.split_at_mut(header_bytes);
        let tag = self.rtp.seal_in_place_separate_tag(nonce, Aad::from(header), payload);
        tag_out.copy_from_slice(tag.expect("a packet is far below the limit of AES-GCM").as_ref());
    }

    fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unauthentic> {
        let nonce = self.rtp_nonce(ssrc, index);
        let (header, payload) = packet.split_at_mut(header_bytes);
        self.rtp.open_in_place(nonce, Aad::from(header), payload).map(drop).map_err(|_| Unauthentic)
    }

    fn rtcp_tail_bytes(&self) -> (usize, usize) {
        (TAG_BYTES, 0)
    }

    fn seal_rtcp(&mut self, packet: &mut [u8], ssrc: u32, word: u32) {
        let nonce = self.rtcp_nonce(ssrc, word & !super::RTCP_ENCRYPTED);
        let aad = rtcp_aad(packet, word);
        let (packet, word_out) = packet.split_at_mut(packet.len() - RTCP_INDEX_BYTES);
        let (plain, tag_out) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let tag = self.rtcp.seal_in_place_separate_tag(nonce, aad, &mut plain[RTCP_HEADER_BYTES..]);
        tag_out.copy_from_slice(tag.expect("a packet is far below the limit of AES-GCM").as_ref());
        word_out.copy_from_slice(&word.to_be_bytes());
    }

    fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<(), Unauthentic> {
        let nonce = self.rtcp_nonce(ssrc, word & !super::RTCP_ENCRYPTED);
        let aad = rtcp_aad(packet, word);
        let end = packet.len() - RTCP_INDEX_BYTES;
        let sealed = &mut packet[RTCP_HEADER_BYTES..end];
        self.rtcp.open_in_place(nonce, aad, sealed).map(drop).map_err(|_| Unauthentic)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const SALT: [u8; 12] = *b"Quid pro quo";

    fn vectors() -> Gcm {
        Gcm::from_session_keys(KEY, SALT, KEY, SALT)
    }

    #[test]
    fn the_rtp_vector_of_rfc_7714_section_16_1() {
        let plain = hex(
            "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e20706172746573207472\
             6573",
        );
        let sealed = hex(
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf\
             8833899d7f27beb16a9152cf765ee4390cce",
        );
        let mut packet = plain.clone();
        packet.resize(plain.len() + TAG_BYTES, 0);
        vectors().seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b);
        assert_eq!(packet, sealed);
        assert_eq!(vectors().open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b), Ok(()));
        assert_eq!(packet[..plain.len()], plain);
    }

    #[test]
    fn the_rtcp_vector_of_rfc_7714_section_17_1() {
        let plain = hex(
            "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeef\
             deadbeef",
        );
        let sealed = hex(
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded\
             0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        );
        let mut packet = plain.clone();
        packet.resize(plain.len() + TAG_BYTES + RTCP_INDEX_BYTES, 0);
        vectors().seal_rtcp(&mut packet, 0x4d61_7273, 0x8000_05d4);
        assert_eq!(packet, sealed);
        assert_eq!(vectors().open_rtcp(&mut packet, 0x4d61_7273, 0x8000_05d4), Ok(()));
        assert_eq!(packet[..plain.len()], plain);
    }
}
