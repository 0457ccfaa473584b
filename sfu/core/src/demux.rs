//! Tells apart what shares one UDP port (RFC 7983), by the first byte and, for RTCP, the second (RFC 5761).
//!
//! It never reads further, keeps nothing and authenticates nothing: the answer is only where to send the datagram.

/// What a datagram claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connectivity checks (RFC 8489): first byte 0 to 3.
    Stun,
    /// DTLS records (RFC 6347): first byte 20 to 63.
    Dtls,
    /// RTP (RFC 3550): first byte 128 to 191.
    Rtp,
    /// RTCP: as RTP, with a packet type of 192 to 223 in the second byte (RFC 5761 section 4).
    Rtcp,
    /// Anything else, and whatever is too short to be what it claims.
    Junk,
}

/// A STUN header (RFC 8489 section 5).
const STUN_BYTES_MIN: usize = 20;
/// A DTLS record header and one byte (RFC 6347 section 4.1).
const DTLS_BYTES_MIN: usize = 14;
/// An RTP header (RFC 3550 section 5.1).
const RTP_BYTES_MIN: usize = 12;
/// An RTCP header with one SSRC (RFC 3550 section 6.4).
const RTCP_BYTES_MIN: usize = 8;

/// Says what a datagram claims to be.
pub fn classify(datagram: &[u8]) -> Kind {
    let [first, second, ..] = *datagram else { return Kind::Junk };
    match first {
        0..=3 if datagram.len() >= STUN_BYTES_MIN => Kind::Stun,
        20..=63 if datagram.len() >= DTLS_BYTES_MIN => Kind::Dtls,
        // Payload types 64 to 95 never occur in RTP that shares a port with RTCP, with or without the marker.
        128..=191 if (64..=95).contains(&(second & 0x7f)) => {
            if datagram.len() >= RTCP_BYTES_MIN {
                Kind::Rtcp
            } else {
                Kind::Junk
            }
        }
        128..=191 if datagram.len() >= RTP_BYTES_MIN => Kind::Rtp,
        _ => Kind::Junk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(first: u8, second: u8) -> Kind {
        let mut datagram = [0u8; 40];
        datagram[0] = first;
        datagram[1] = second;
        classify(&datagram)
    }

    #[test]
    fn every_first_byte_has_its_place() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                128..=191 => Kind::Rtp,
                _ => Kind::Junk,
            };
            assert_eq!(kind(first, 111), expected, "first byte {first}");
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_packet_type() {
        for packet_type in 192..=223 {
            assert_eq!(kind(0x80, packet_type), Kind::Rtcp, "packet type {packet_type}");
        }
        for payload_type in (0..64).chain(96..128) {
            assert_eq!(kind(0x80, payload_type), Kind::Rtp);
            assert_eq!(kind(0x80, payload_type | 0x80), Kind::Rtp, "with the marker bit");
        }
    }

    #[test]
    fn what_is_too_short_is_junk() {
        for (first, second, bytes_min) in [(0, 1, 20), (22, 0xfe, 14), (0x80, 111, 12), (0x80, 200, 8)] {
            let mut datagram = vec![0u8; bytes_min];
            datagram[0] = first;
            datagram[1] = second;
            assert_ne!(classify(&datagram), Kind::Junk);
            assert_eq!(classify(&datagram[..bytes_min - 1]), Kind::Junk);
        }
        assert_eq!(classify(&[]), Kind::Junk);
        assert_eq!(classify(&[0x80]), Kind::Junk);
    }
}
