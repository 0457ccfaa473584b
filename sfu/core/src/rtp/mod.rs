//! RTP and RTCP as bytes: views over what arrived, writers for what leaves.
//!
//! Nothing here allocates, keeps state between packets or reads past a payload's codec descriptor and its key-frame
//! bit. Every parser takes any bytes and ends after one pass.

pub mod header;
pub mod red;
pub mod rtcp;
pub mod rtcp_write;
pub mod sequence;
pub mod time;
pub mod vp8;

/// Longest payload that is forwarded, in bytes. Browsers stay below 1,200; this leaves room for a header of ours, the
/// original sequence number of a retransmission and the SRTP tag within an Ethernet frame over IPv6 (1,452 bytes).
pub const PAYLOAD_BYTES_MAX: usize = 1_390;

/// The RTP clock of a kind of media, in ticks a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Opus: 48 kHz whatever it encodes (RFC 7587 section 4.1).
    Audio,
    /// Video: 90 kHz (RFC 7741 section 4.1).
    Video,
}

impl Clock {
    /// Ticks a second.
    pub fn hz(self) -> u32 {
        match self {
            Clock::Audio => 48_000,
            Clock::Video => 90_000,
        }
    }

    /// A duration in ticks, modulo 2^32 as timestamps are.
    pub fn ticks(self, duration: std::time::Duration) -> u32 {
        (duration.as_nanos() * u128::from(self.hz()) / 1_000_000_000) as u32
    }
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
