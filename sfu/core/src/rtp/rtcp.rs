//! RTCP as received: one pass over a compound packet (RFC 3550 section 6, RFC 4585, RFC 5104).
//!
//! A walk borrows, allocates nothing and ends at the first malformed packet; it takes packets in any order, so that
//! reduced-size packets (RFC 5506) need nothing special.

use super::{be16, be32, time::Ntp};

/// One packet of a compound, as far as the heart has a use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtcp<'a> {
    /// A sender report (RFC 3550 section 6.4.1).
    SenderReport {
        /// Whose stream.
        ssrc: u32,
        /// The sender's wall clock,
        ntp: Ntp,
        /// and the same moment on the stream's clock.
        rtp: u32,
        /// What the sender says of streams it receives.
        blocks: Blocks<'a>,
    },
    /// A receiver report (section 6.4.2).
    ReceiverReport {
        /// What it says.
        blocks: Blocks<'a>,
    },
    /// The end of streams (section 6.6).
    Bye {
        /// Which.
        ssrcs: Words<'a>,
    },
    /// Packets asked for again (RFC 4585 section 6.2.1).
    Nack {
        /// Of which stream.
        media_ssrc: u32,
        /// Which.
        lost: Lost<'a>,
    },
    /// A key frame asked for (section 6.3.1).
    PictureLoss {
        /// Of which stream.
        media_ssrc: u32,
    },
    /// Key frames asked for (RFC 5104 section 4.3.1).
    FullIntra {
        /// Of which streams: the first word of each 8-byte entry.
        entries: Words<'a>,
    },
    /// The receiver's estimate of the bandwidth (draft-alvestrand-rmcat-remb-03).
    Remb {
        /// In bit/s.
        bps: u64,
    },
    /// Arrival times (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportFeedback(TransportFeedback<'a>),
    /// Anything else that is well formed.
    Other,
}

/// A walk over a compound; see [`walk`].
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    rest: &'a [u8],
}

/// Walks a compound packet. Yields an `Err` and ends at the first malformed packet.
pub fn walk(compound: &[u8]) -> Walk<'_> {
    Walk { rest: compound }
}

/// A packet whose lengths contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Rtcp<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = self.read();
        if found.is_none() {
            self.rest = &[];
        }
        Some(found.ok_or(Malformed))
    }
}

impl<'a> Walk<'a> {
    fn read(&mut self) -> Option<Rtcp<'a>> {
        let first = *self.rest.first()?;
        if first >> 6 != 2 {
            return None;
        }
        let kind = *self.rest.get(1)?;
        let length = 4 + 4 * usize::from(be16(self.rest, 2)?);
        let mut body = self.rest.get(4..length)?;
        self.rest = &self.rest[length..];
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body = body.get(..body.len().checked_sub(padding)?)?;
        }
        read_body(kind, first & 0x1f, body)
    }
}

fn read_body(kind: u8, count: u8, body: &[u8]) -> Option<Rtcp<'_>> {
    let blocks = |at: usize| Some(Blocks { bytes: body.get(at..at + 24 * usize::from(count))? });
    Some(match (kind, count) {
        (200, _) => Rtcp::SenderReport {
            ssrc: be32(body, 0)?,
            ntp: Ntp(u64::from(be32(body, 4)?) << 32 | u64::from(be32(body, 8)?)),
            rtp: be32(body, 12)?,
            blocks: blocks(24)?,
        },
        (201, _) => {
            be32(body, 0)?;
            Rtcp::ReceiverReport { blocks: blocks(4)? }
        }
        (203, _) => Rtcp::Bye { ssrcs: Words { bytes: body.get(..4 * usize::from(count))?, stride: 4 } },
        (205, 1) => {
            Rtcp::Nack { media_ssrc: be32(body, 4)?, lost: Lost { bytes: &body[8..], bits: 0, base: 0 } }
        }
        (205, 15) => Rtcp::TransportFeedback(TransportFeedback::read(body)?),
        (206, 1) => Rtcp::PictureLoss { media_ssrc: be32(body, 4)? },
        (206, 4) => {
            be32(body, 4)?;
            Rtcp::FullIntra { entries: Words { bytes: &body[8..], stride: 8 } }
        }
        (206, 15) if body.get(8..12) == Some(b"REMB") => {
            let word = be32(body, 12)?;
            let (exponent, mantissa) = (word >> 18 & 0x3f, u64::from(word & 0x3_ffff));
            Rtcp::Remb { bps: if exponent > 45 { u64::MAX } else { mantissa << exponent } }
        }
        _ => Rtcp::Other,
    })
}

/// What arrived when, by transport-wide number: an iterator over statuses, `None` for a packet that did not arrive,
/// else its arrival in units of 250 µs on the receiver's clock.
///
/// A walk ends where the packet does, whatever the packet says of itself: what is cut off is not named. A chunk may say
/// 8,191 times the same in two bytes, so who walks has to stop at what it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    /// The first number.
    pub base: u16,
    /// How many numbers are spoken of, as the packet says.
    pub count: u16,
    /// The receiver's clock in units of 64 ms, 24 bits, signed.
    pub reference: i32,
    chunks: &'a [u8],
    deltas: &'a [u8],
    /// The symbols of the running chunk: how many are left, and which.
    left: u16,
    chunk: u16,
    arrival: i64,
}

impl<'a> TransportFeedback<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let count = be16(body, 10)?;
        let word = be32(body, 12)?;
        let rest = body.get(16..)?;
        // Chunks come first and deltas after them; where one ends is found by walking the chunks once.
        let mut at = 0;
        let mut symbols = 0_u32;
        while symbols < u32::from(count) {
            symbols += u32::from(symbols_of(be16(rest, at)?));
            at += 2;
        }
        let reference = (word & 0xffff_ff00) as i32 >> 8;
        Some(Self {
            base: be16(body, 8)?,
            count,
            reference,
            chunks: &rest[..at],
            deltas: &rest[at..],
            left: 0,
            chunk: 0,
            arrival: i64::from(reference) * 256,
        })
    }
}

/// How many symbols a chunk holds; never none for long: a run of length 0 says nothing and costs its two bytes.
fn symbols_of(chunk: u16) -> u16 {
    match chunk >> 14 {
        0 | 1 => chunk & 0x1fff,
        2 => 14,
        _ => 7,
    }
}

impl Iterator for TransportFeedback<'_> {
    type Item = Option<i64>;

    fn next(&mut self) -> Option<Option<i64>> {
        if self.count == 0 {
            return None;
        }
        while self.left == 0 {
            self.chunk = be16(self.chunks, 0)?;
            self.chunks = &self.chunks[2..];
            self.left = symbols_of(self.chunk);
        }
        self.left -= 1;
        self.count -= 1;
        let symbol = match self.chunk >> 14 {
            0 | 1 => self.chunk >> 13 & 3,
            2 => self.chunk >> self.left & 1,
            _ => self.chunk >> (2 * self.left) & 3,
        };
        let (delta, bytes) = match symbol {
            1 => (i64::from(*self.deltas.first()?), 1),
            2 => (i64::from(be16(self.deltas, 0)? as i16), 2),
            _ => return Some(None),
        };
        self.deltas = &self.deltas[bytes..];
        self.arrival += delta;
        Some(Some(self.arrival))
    }
}

/// Report blocks (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a> {
    bytes: &'a [u8],
}

/// What a receiver says of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which stream.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Highest sequence number received, with the roll-over count above it.
    pub highest: u32,
    /// Jitter in timestamp ticks.
    pub jitter: u32,
    /// The middle of the last sender report's NTP timestamp; 0 if there was none.
    pub last_report: u32,
    /// Time between that report's arrival and this report, in 1/65,536 s.
    pub delay: u32,
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let (block, rest) = self.bytes.split_at_checked(24)?;
        self.bytes = rest;
        Some(Block {
            ssrc: be32(block, 0)?,
            fraction_lost: block[4],
            highest: be32(block, 8)?,
            jitter: be32(block, 12)?,
            last_report: be32(block, 16)?,
            delay: be32(block, 20)?,
        })
    }
}

/// SSRCs, each at the start of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl Iterator for Words<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (entry, rest) = self.bytes.split_at_checked(self.stride)?;
        self.bytes = rest;
        be32(entry, 0)
    }
}

/// Sequence numbers out of NACK entries: a number and 16 bits for those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost<'a> {
    bytes: &'a [u8],
    base: u16,
    bits: u16,
}

impl Iterator for Lost<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.bits != 0 {
            let place = self.bits.trailing_zeros();
            self.bits &= self.bits - 1;
            return Some(self.base.wrapping_add(1 + place as u16));
        }
        let (entry, rest) = self.bytes.split_at_checked(4)?;
        self.bytes = rest;
        self.base = be16(entry, 0)?;
        self.bits = be16(entry, 2)?;
        Some(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_nack_names_every_number() {
        let bytes = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0x80, 0x03];
        let Some(Ok(Rtcp::Nack { media_ssrc, lost })) = walk(&bytes).next() else { panic!("a nack") };
        assert_eq!(media_ssrc, 2);
        assert_eq!(lost.collect::<Vec<_>>(), [0xfffe, 0xffff, 0, 14]);
    }

    #[test]
    fn every_form_of_a_feedback_chunk_is_read() {
        let chunks = [
            0x2003_u16,          // a run of three that arrived
            0x0002,              // a run of two that did not
            0b10_10000000000001, // one bit each: first and last of fourteen
            0b11_00_01_10_00_00_00_00,
        ];
        let deltas = [4, 0, 1, 8, 9, 2, 0xff, 0xf0];
        let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0, 26, 0xff, 0xff, 0xff, 7];
        chunks.iter().for_each(|chunk| body.extend(chunk.to_be_bytes()));
        body.extend(deltas);
        let mut bytes = vec![0x8f, 205, 0, (body.len() / 4) as u8];
        bytes.extend(&body);
        let Some(Ok(Rtcp::TransportFeedback(feedback))) = walk(&bytes).next() else { panic!("feedback") };
        assert_eq!((feedback.base, feedback.count, feedback.reference), (0xffff, 26, -1));
        let arrived: Vec<_> =
            feedback.enumerate().filter_map(|(place, at)| Some((place, at? + 256))).collect();
        assert_eq!(arrived, [(0, 4), (1, 4), (2, 5), (5, 13), (18, 22), (20, 24), (21, 8)]);
        assert_eq!(feedback.count(), 26);
        // Fewer deltas than the chunks promise: the walk ends there.
        bytes[3] -= 1;
        let Some(Ok(Rtcp::TransportFeedback(cut))) = walk(&bytes).next() else { panic!("feedback") };
        assert_eq!(cut.flatten().count(), 4);
        // Fewer chunks than the count promises: malformed.
        bytes[3] = 5;
        assert!(walk(&bytes).next().is_some_and(|packet| packet.is_err()));
    }

    #[test]
    fn a_walk_ends_at_the_first_malformed_packet() {
        let bytes = [0x80, 201, 0, 1, 0, 0, 0, 1, 0x80, 201, 0, 9, 0, 0, 0, 1];
        let found: Vec<_> = walk(&bytes).collect();
        assert!(matches!(found[..], [Ok(Rtcp::ReceiverReport { .. }), Err(Malformed)]), "{found:?}");
    }

    proptest! {
        #[test]
        fn junk_never_panics_and_stays_bounded(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 199_u8..208, len in 0_u8..50) {
            if bytes.len() > 4 {
                bytes[0] = 0x80 | bytes[0] & 0x3f;
                bytes[1] = kind;
                bytes[2] = 0;
                bytes[3] = len;
            }
            let mut items = 0;
            for packet in walk(&bytes).flatten() {
                items += 1;
                items += match packet {
                    Rtcp::SenderReport { blocks, .. } | Rtcp::ReceiverReport { blocks } => blocks.count(),
                    Rtcp::Bye { ssrcs } => ssrcs.count(),
                    Rtcp::FullIntra { entries } => entries.count(),
                    Rtcp::Nack { lost, .. } => lost.count(),
                    Rtcp::TransportFeedback(feedback) => {
                        let arrived = feedback.flatten().count();
                        prop_assert!(arrived <= bytes.len(), "each arrival costs a byte");
                        prop_assert!(feedback.count() <= usize::from(feedback.count));
                        0
                    }
                    _ => 0,
                };
            }
            prop_assert!(items <= 1 + bytes.len() * 5);
        }
    }
}
