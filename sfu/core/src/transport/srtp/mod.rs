//! SRTP and SRTCP of one peer, both directions (RFC 3711), keyed by the DTLS handshake (RFC 5764).
//!
//! In place and without allocation: a packet is sealed where it was built and opened where it arrived. State comes
//! into being only after authentication. It never seals two packets with one index; who numbers them is the caller.

mod derive;
mod gcm;
mod replay;
mod sha1;

use derive::derive;
use replay::Streams;
pub use replay::{SSRCS_MAX, WINDOW_PACKETS};

/// Most bytes that sealing adds to an RTP packet.
pub const RTP_OVERHEAD_BYTES_MAX: usize = 16;

/// Most bytes that sealing adds to an RTCP compound packet: tag and index word.
pub const RTCP_OVERHEAD_BYTES_MAX: usize = 20;

/// What of an SRTCP packet stays readable: the first header and its SSRC.
const RTCP_HEADER_BYTES: usize = 8;
/// The encryption flag and the index (RFC 3711 section 3.4).
const RTCP_INDEX_BYTES: usize = 4;
const RTCP_ENCRYPTED: u32 = 1 << 31;

/// The protection profiles we negotiate, best first (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// SRTP_AEAD_AES_128_GCM
    AeadAes128Gcm,
    /// SRTP_AES128_CM_HMAC_SHA1_80
    Aes128CmSha1_80,
}

impl Profile {
    /// The number in `use_srtp`.
    pub const fn id(self) -> u16 {
        match self {
            Profile::AeadAes128Gcm => 0x0007,
            Profile::Aes128CmSha1_80 => 0x0001,
        }
    }

    /// Length of the master key and the master salt.
    const fn master_bytes(self) -> (usize, usize) {
        match self {
            Profile::AeadAes128Gcm => gcm::MASTER_BYTES,
            Profile::Aes128CmSha1_80 => sha1::MASTER_BYTES,
        }
    }

    /// How much keying material the exporter must give: keys and salts of both directions (RFC 5764 section 4.2).
    pub const fn keying_material_bytes(self) -> usize {
        let (key, salt) = self.master_bytes();
        2 * (key + salt)
    }
}

/// Why a packet was not opened. Each is counted by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpDrop {
    /// Too short, or its header does not fit into it.
    #[error("malformed")]
    Malformed,
    /// The tag is wrong: forged, damaged, or from before a rollover that was missed.
    #[error("not authentic")]
    Unauthentic,
    /// Seen before.
    #[error("replayed")]
    Replayed,
    /// More than [`WINDOW_PACKETS`] behind the newest.
    #[error("too old")]
    TooOld,
    /// One stream more than [`SSRCS_MAX`].
    #[error("too many SSRCs")]
    TooManySsrcs,
    /// SRTCP without encryption, which was not negotiated.
    #[error("not encrypted")]
    Unencrypted,
}

/// A tag did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unauthentic;

/// One direction of one profile. Lengths are checked by [`Srtp`].
trait Cipher: Send {
    /// Bytes of the tag behind an RTP packet.
    fn rtp_overhead_bytes(&self) -> usize;
    /// Seals a packet that ends with room for the tag.
    fn seal_rtp(&mut self, packet: &mut [u8], header_bytes: usize, ssrc: u32, index: u64);
    /// Opens a packet that ends with its tag. After an error the payload is undefined.
    fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unauthentic>;
    /// Bytes of the tag before and behind the index word of an SRTCP packet.
    fn rtcp_tail_bytes(&self) -> (usize, usize);
    /// Seals a packet that ends with room for tag and index word.
    fn seal_rtcp(&mut self, packet: &mut [u8], ssrc: u32, word: u32);
    /// Opens a packet that ends with tag and index word. After an error the payload is undefined.
    fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<(), Unauthentic>;
}

/// Both directions of one peer.
pub struct Srtp {
    profile: Profile,
    outbound: Box<dyn Cipher>,
    inbound: Box<dyn Cipher>,
    rtp_streams: Streams,
    rtcp_streams: Streams,
    rtcp_index_next: u32,
}

impl Srtp {
    /// Takes the keying material of a DTLS handshake in which we were the server (RFC 5764 section 4.2).
    ///
    /// # Panics
    /// When the material is not [`Profile::keying_material_bytes`] long.
    pub fn new(profile: Profile, keying_material: &[u8]) -> Self {
        assert_eq!(
            keying_material.len(),
            profile.keying_material_bytes(),
            "ask the exporter for the right length"
        );
        let (key, salt) = profile.master_bytes();
        let (keys, salts) = keying_material.split_at(2 * key);
        Self {
            profile,
            outbound: cipher(profile, &keys[key..], &salts[salt..]),
            inbound: cipher(profile, &keys[..key], &salts[..salt]),
            rtp_streams: Streams::default(),
            rtcp_streams: Streams::default(),
            rtcp_index_next: 0,
        }
    }

    /// The profile in use.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Bytes that sealing adds to an RTP packet.
    pub fn overhead_bytes(&self) -> usize {
        self.outbound.rtp_overhead_bytes()
    }

    /// Bytes that sealing adds to an RTCP compound packet.
    pub fn rtcp_overhead_bytes(&self) -> usize {
        let (before, behind) = self.outbound.rtcp_tail_bytes();
        before + RTCP_INDEX_BYTES + behind
    }

    /// Opens an RTP packet in place.
    ///
    /// Returns the length of the plain packet, header included.
    ///
    /// # Errors
    /// [`SrtpDrop`]; the packet's bytes are undefined then, and nothing was kept.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpDrop> {
        let plain_bytes =
            packet.len().checked_sub(self.inbound.rtp_overhead_bytes()).ok_or(SrtpDrop::Malformed)?;
        let header_bytes = rtp_header_bytes(&packet[..plain_bytes]).ok_or(SrtpDrop::Malformed)?;
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let ssrc = u32_at(packet, 8);
        let index = self.rtp_streams.estimate(ssrc, sequence)?;
        self.rtp_streams.check(ssrc, index)?;
        self.inbound
            .open_rtp(packet, header_bytes, ssrc, index)
            .map_err(|Unauthentic| SrtpDrop::Unauthentic)?;
        self.rtp_streams.accept(ssrc, index);
        Ok(plain_bytes)
    }

    /// Opens an RTCP compound packet in place.
    ///
    /// Returns the length of the plain packet.
    ///
    /// # Errors
    /// [`SrtpDrop`]; the packet's bytes are undefined then, and nothing was kept.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpDrop> {
        let (before, behind) = self.inbound.rtcp_tail_bytes();
        let plain_bytes =
            packet.len().checked_sub(before + RTCP_INDEX_BYTES + behind).ok_or(SrtpDrop::Malformed)?;
        if plain_bytes < RTCP_HEADER_BYTES || packet[0] >> 6 != 2 {
            return Err(SrtpDrop::Malformed);
        }
        let ssrc = u32_at(packet, 4);
        let word = u32_at(packet, plain_bytes + before);
        if word & RTCP_ENCRYPTED == 0 {
            return Err(SrtpDrop::Unencrypted);
        }
        let index = u64::from(word & !RTCP_ENCRYPTED);
        self.rtcp_streams.check(ssrc, index)?;
        self.inbound.open_rtcp(packet, ssrc, word).map_err(|Unauthentic| SrtpDrop::Unauthentic)?;
        self.rtcp_streams.accept(ssrc, index);
        Ok(plain_bytes)
    }

    /// Seals an RTP packet of `plain_bytes` in place and returns the length of the sealed one.
    ///
    /// The lower 16 bits of `extended_sequence` are the packet's own sequence number, the 32 above are the rollover
    /// counter. For one SSRC an extended sequence must never come twice with different bytes: the key stream would
    /// give both away.
    ///
    /// # Panics
    /// When `buffer` does not hold [`Srtp::overhead_bytes`] more than the packet, or the packet is no RTP: it is ours.
    pub fn seal_rtp(&mut self, buffer: &mut [u8], plain_bytes: usize, extended_sequence: u64) -> usize {
        let header_bytes = rtp_header_bytes(&buffer[..plain_bytes]).expect("what we send is RTP");
        debug_assert_eq!(extended_sequence as u16, u16::from_be_bytes([buffer[2], buffer[3]]));
        let ssrc = u32_at(buffer, 8);
        let sealed_bytes = plain_bytes + self.outbound.rtp_overhead_bytes();
        let index = extended_sequence & 0xffff_ffff_ffff;
        self.outbound.seal_rtp(&mut buffer[..sealed_bytes], header_bytes, ssrc, index);
        sealed_bytes
    }

    /// Seals an RTCP compound packet of `plain_bytes` in place and returns the length of the sealed one.
    ///
    /// # Panics
    /// When `buffer` does not hold [`Srtp::rtcp_overhead_bytes`] more than the packet, or after 2^31 packets, which is
    /// where RFC 3711 section 9.2 ends a key: at ten packets a second in 6 years.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], plain_bytes: usize) -> usize {
        assert!(plain_bytes >= RTCP_HEADER_BYTES, "what we send is RTCP");
        assert!(self.rtcp_index_next < RTCP_ENCRYPTED, "a key lasts for 2^31 RTCP packets");
        let ssrc = u32_at(buffer, 4);
        // One counter for all our SSRCs: each sees it rise, and no two packets share it.
        let word = RTCP_ENCRYPTED | self.rtcp_index_next;
        self.rtcp_index_next += 1;
        let sealed_bytes = plain_bytes + self.rtcp_overhead_bytes();
        self.outbound.seal_rtcp(&mut buffer[..sealed_bytes], ssrc, word);
        sealed_bytes
    }

    /// How many SSRCs of the peer have state, RTP and RTCP together.
    pub fn ssrcs(&self) -> usize {
        self.rtp_streams.len() + self.rtcp_streams.len()
    }
}

fn cipher(profile: Profile, master_key: &[u8], master_salt: &[u8]) -> Box<dyn Cipher> {
    match profile {
        Profile::AeadAes128Gcm => Box::new(gcm::Gcm::new(master_key, master_salt)),
        Profile::Aes128CmSha1_80 => Box::new(sha1::Sha1::new(master_key, master_salt)),
    }
}

/// Length of an RTP header with its sources and extension (RFC 3550 section 5.1); `None` when it does not fit.
fn rtp_header_bytes(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let mut header_bytes = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(header_bytes + 2..header_bytes + 4)?;
        header_bytes += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    (header_bytes <= packet.len()).then_some(header_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
