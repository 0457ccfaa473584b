//! RTCP as we write it, straight into the egress buffer.
//!
//! A [`Writer`] never writes past its buffer: a packet that does not fit is left out, and says so.

use super::time::Ntp;

/// Writes a compound packet.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

/// A report block (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// Which stream.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning; 24 bits, signed.
    pub cumulative_lost: i32,
    /// Highest sequence number with the roll-over count above it.
    pub highest: u32,
    /// Jitter in timestamp ticks.
    pub jitter: u32,
    /// The middle of the last sender report's NTP timestamp; 0 if there was none.
    pub last_report: u32,
    /// Time since that report's arrival, in 1/65,536 s.
    pub delay: u32,
}

/// A sender report without blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderReport {
    /// Which stream.
    pub ssrc: u32,
    /// The wall clock,
    pub ntp: Ntp,
    /// and the same moment on the stream's clock.
    pub rtp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

impl<'a> Writer<'a> {
    /// Writes into `out` from its start.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.at
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Reserves a packet of `bytes` (a multiple of 4) and writes its header.
    fn begin(&mut self, count: u8, kind: u8, bytes: usize) -> Option<&mut [u8]> {
        debug_assert!(bytes.is_multiple_of(4) && bytes >= 4, "RTCP is made of 32-bit words");
        let packet = self.out.get_mut(self.at..self.at + bytes)?;
        self.at += bytes;
        packet.fill(0);
        packet[0] = 2 << 6 | count;
        packet[1] = kind;
        packet[2..4].copy_from_slice(&((bytes / 4 - 1) as u16).to_be_bytes());
        Some(packet)
    }

    /// A receiver report with at most 31 blocks; true if it fitted.
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let blocks = &blocks[..blocks.len().min(31)];
        let Some(packet) = self.begin(blocks.len() as u8, 201, 8 + 24 * blocks.len()) else { return false };
        put32(packet, 4, ssrc);
        for (block, out) in blocks.iter().zip(packet[8..].chunks_exact_mut(24)) {
            put32(out, 0, block.ssrc);
            put32(out, 4, (block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32) & 0xff_ffff);
            out[4] = block.fraction_lost;
            put32(out, 8, block.highest);
            put32(out, 12, block.jitter);
            put32(out, 16, block.last_report);
            put32(out, 20, block.delay);
        }
        true
    }

    /// A sender report; true if it fitted.
    pub fn sender_report(&mut self, report: &SenderReport) -> bool {
        let Some(packet) = self.begin(0, 200, 28) else { return false };
        put32(packet, 4, report.ssrc);
        put32(packet, 8, (report.ntp.0 >> 32) as u32);
        put32(packet, 12, report.ntp.0 as u32);
        put32(packet, 16, report.rtp);
        put32(packet, 20, report.packets);
        put32(packet, 24, report.octets);
        true
    }

    /// A source description (RFC 3550 section 6.5) with one canonical name for each SSRC, at most 31; true if it
    /// fitted.
    pub fn canonical_name(&mut self, ssrcs: impl ExactSizeIterator<Item = u32>, name: &[u8; 16]) -> bool {
        // SSRC, item type and length, name, terminator, padded to a word.
        const CHUNK: usize = 4 + 2 + 16 + 2;
        let count = ssrcs.len().min(31);
        let Some(packet) = self.begin(count as u8, 202, 4 + CHUNK * count) else { return false };
        for (ssrc, out) in ssrcs.zip(packet[4..].chunks_exact_mut(CHUNK)) {
            put32(out, 0, ssrc);
            out[4] = 1;
            out[5] = 16;
            out[6..22].copy_from_slice(name);
        }
        true
    }

    /// A picture loss indication (RFC 4585 section 6.3.1); true if it fitted.
    pub fn picture_loss(&mut self, ssrc: u32, media_ssrc: u32) -> bool {
        let Some(packet) = self.begin(1, 206, 12) else { return false };
        put32(packet, 4, ssrc);
        put32(packet, 8, media_ssrc);
        true
    }

    /// Asks for packets again (RFC 4585 section 6.2.1): sequence numbers in rising order, as many as fit. Returns
    /// whether any fitted.
    pub fn nack(&mut self, ssrc: u32, media_ssrc: u32, lost: &[u16]) -> bool {
        let mut entries = arrayvec::ArrayVec::<(u16, u16), 32>::new();
        for &number in lost {
            match entries.last_mut() {
                Some((base, bits)) if (1..=16).contains(&number.wrapping_sub(*base)) => {
                    *bits |= 1 << (number.wrapping_sub(*base) - 1);
                }
                _ => {
                    if entries.try_push((number, 0)).is_err() {
                        break;
                    }
                }
            }
        }
        if entries.is_empty() {
            return false;
        }
        let Some(packet) = self.begin(1, 205, 12 + 4 * entries.len()) else { return false };
        put32(packet, 4, ssrc);
        put32(packet, 8, media_ssrc);
        for ((base, bits), out) in entries.into_iter().zip(packet[12..].chunks_exact_mut(4)) {
            put32(out, 0, u32::from(base) << 16 | u32::from(bits));
        }
        true
    }

    /// A bandwidth ceiling for these streams (draft-alvestrand-rmcat-remb-03 section 2); true if it fitted.
    pub fn remb(&mut self, ssrc: u32, bps: u64, media_ssrcs: &[u32]) -> bool {
        let media_ssrcs = &media_ssrcs[..media_ssrcs.len().min(31)];
        let Some(packet) = self.begin(15, 206, 20 + 4 * media_ssrcs.len()) else { return false };
        let exponent = (64 - bps.leading_zeros()).saturating_sub(18);
        put32(packet, 4, ssrc);
        packet[12..16].copy_from_slice(b"REMB");
        put32(packet, 16, (media_ssrcs.len() as u32) << 24 | exponent << 18 | (bps >> exponent) as u32);
        for (ssrc, out) in media_ssrcs.iter().zip(packet[20..].chunks_exact_mut(4)) {
            put32(out, 0, *ssrc);
        }
        true
    }

    /// Arrival times (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): for each transport-wide number
    /// from `base` on when it arrived, in units of 250 µs since `reference` (itself in units of 64 ms), or `None`.
    /// Only two-bit status vectors are used: simple, and never more than a byte for four packets. Returns whether it
    /// fitted.
    pub fn transport_feedback(&mut self, head: FeedbackHead, arrivals: &[Option<i64>]) -> bool {
        let chunks = arrivals.len().div_ceil(7);
        let mut previous = 0;
        let deltas: usize = arrivals
            .iter()
            .flatten()
            .map(|&at| {
                let size = delta_bytes(at - previous);
                previous = at;
                size
            })
            .sum();
        let bytes = 20 + 2 * chunks + deltas;
        let padded = bytes.div_ceil(4) * 4;
        let Some(packet) = self.begin(15, 205, padded) else { return false };
        if padded > bytes {
            packet[0] |= 0x20;
            packet[padded - 1] = (padded - bytes) as u8;
        }
        put32(packet, 4, head.ssrc);
        put32(packet, 8, head.media_ssrc);
        put16(packet, 12, head.base);
        put16(packet, 14, arrivals.len() as u16);
        put32(packet, 16, head.reference << 8 | u32::from(head.count));
        let mut at = 20 + 2 * chunks;
        let mut previous = 0;
        for (chunk, seven) in arrivals.chunks(7).enumerate() {
            let mut word = 0xc000_u16;
            for (place, arrival) in seven.iter().enumerate() {
                let Some(arrival) = *arrival else { continue };
                let delta = arrival - previous;
                previous = arrival;
                if delta_bytes(delta) == 1 {
                    word |= 1 << (12 - 2 * place);
                    packet[at] = delta as u8;
                    at += 1;
                } else {
                    word |= 2 << (12 - 2 * place);
                    let delta = delta.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16;
                    packet[at..at + 2].copy_from_slice(&delta.to_be_bytes());
                    at += 2;
                }
            }
            put16(packet, 20 + 2 * chunk, word);
        }
        true
    }
}

/// The fixed part of a transport-wide feedback packet.
#[derive(Clone, Copy, Debug)]
pub struct FeedbackHead {
    /// Who reports.
    pub ssrc: u32,
    /// One of the streams reported on.
    pub media_ssrc: u32,
    /// The first transport-wide number.
    pub base: u16,
    /// The time that arrivals count from, in units of 64 ms; 24 bits.
    pub reference: u32,
    /// Counts the feedback packets.
    pub count: u8,
}

fn delta_bytes(delta: i64) -> usize {
    if (0..=255).contains(&delta) { 1 } else { 2 }
}

fn put16(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn put32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
