//! The RTP header: a view over received bytes (RFC 3550 section 5.1, RFC 8285) and the fixed header as we write it.
//!
//! A view borrows and never copies; it does not know what a payload means.

use super::{be16, be32};

/// Length of the fixed header in bytes.
pub const FIXED_BYTES: usize = 12;

/// A received packet's header, extensions and payload.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The marker bit.
    pub marker: bool,
    /// The payload type, 0 to 127.
    pub payload_type: u8,
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
    /// The header extensions.
    pub extensions: Extensions<'a>,
    /// The payload, without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet. `None` if it is not RTP version 2, or its lengths contradict each other.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        if first >> 6 != 2 {
            return None;
        }
        let second = *bytes.get(1)?;
        let sequence = be16(bytes, 2)?;
        let timestamp = be32(bytes, 4)?;
        let ssrc = be32(bytes, 8)?;
        let mut at = FIXED_BYTES + 4 * usize::from(first & 0x0f);
        let mut extensions = Extensions { profile: 0, bytes: &[] };
        if first & 0x10 != 0 {
            let length = 4 * usize::from(be16(bytes, at + 2)?);
            extensions = Extensions { profile: be16(bytes, at)?, bytes: bytes.get(at + 4..at + 4 + length)? };
            at += 4 + length;
        }
        let mut payload = bytes.get(at..)?;
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            if padding == 0 || padding > payload.len() {
                return None;
            }
            payload = &payload[..payload.len() - padding];
        }
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence,
            timestamp,
            ssrc,
            extensions,
            payload,
        })
    }
}

/// The header extensions of a packet (RFC 8285), in the one-byte or the two-byte form.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    profile: u16,
    bytes: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// The first extension element with this id. A walk ends at the first malformed element.
    pub fn get(&self, id: u8) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    /// All elements up to the first malformed one.
    pub fn iter(&self) -> ExtensionIter<'a> {
        ExtensionIter { profile: self.profile, rest: self.bytes }
    }
}

/// Walks extension elements; see [`Extensions::iter`].
#[derive(Clone, Debug)]
pub struct ExtensionIter<'a> {
    profile: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for ExtensionIter<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = *self.rest.first()?;
            if first == 0 {
                self.rest = &self.rest[1..]; // padding
                continue;
            }
            let (id, start, length) = if self.profile == 0xbede {
                (first >> 4, 1, usize::from(first & 0x0f) + 1)
            } else if self.profile >> 4 == 0x100 {
                (first, 2, usize::from(*self.rest.get(1)?))
            } else {
                return None;
            };
            if self.profile == 0xbede && id == 15 {
                self.rest = &[]; // reserved: ends the walk (RFC 8285 section 4.2)
                return None;
            }
            let Some(value) = self.rest.get(start..start + length) else {
                self.rest = &[];
                return None;
            };
            self.rest = &self.rest[start + length..];
            return Some((id, value));
        }
    }
}

/// Longest prepared header: the fixed part, the extension header, one element of a 16-byte mid and one of a
/// transport-wide number, which together fill five words.
pub const TEMPLATE_BYTES_MAX: usize = FIXED_BYTES + 4 + 20;

/// A slot's header, prepared once: only marker, sequence number, timestamp and transport-wide number differ from packet
/// to packet, so that packets of a frame stay of equal length.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: [u8; TEMPLATE_BYTES_MAX],
    length: u8,
    /// Where the transport-wide number stands; 0 for nowhere.
    transport_at: u8,
}

impl Template {
    /// Prepares a header that carries the mid (RFC 8843 section 15) under the given extension id, in the one-byte
    /// form, and room for a transport-wide number (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2) under
    /// the id `transport_cc`. Without an id in 1 to 14 or with a mid that is not 1 to 16 bytes there is no such element.
    pub fn new(ssrc: u32, payload_type: u8, mid: Option<(u8, &[u8])>, transport_cc: Option<u8>) -> Self {
        let mut bytes = [0; TEMPLATE_BYTES_MAX];
        bytes[0] = 2 << 6;
        bytes[1] = payload_type & 0x7f;
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        const FIRST: usize = FIXED_BYTES + 4;
        let mut end = FIRST;
        if let Some((id, mid)) = mid
            && (1..=14).contains(&id)
            && (1..=16).contains(&mid.len())
        {
            bytes[end] = id << 4 | (mid.len() - 1) as u8;
            bytes[end + 1..end + 1 + mid.len()].copy_from_slice(mid);
            end += 1 + mid.len();
        }
        let mut transport_at = 0;
        if let Some(id) = transport_cc.filter(|id| (1..=14).contains(id)) {
            bytes[end] = id << 4 | 1;
            transport_at = end + 1;
            end += 3;
        }
        let mut length = FIXED_BYTES;
        if end > FIRST {
            let words = (end - FIRST).div_ceil(4);
            bytes[0] |= 0x10;
            bytes[12..14].copy_from_slice(&0xbede_u16.to_be_bytes());
            bytes[14..16].copy_from_slice(&(words as u16).to_be_bytes());
            length += 4 + 4 * words;
        }
        Self { bytes, length: length as u8, transport_at: transport_at as u8 }
    }

    /// Length of the header in bytes.
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether nothing is in it: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether its packets carry a transport-wide number.
    pub fn has_transport_number(&self) -> bool {
        self.transport_at != 0
    }

    /// Puts a transport-wide number into a header that [`Template::write`] wrote at the start of `out`, if it has room
    /// for one.
    pub fn write_transport_number(&self, out: &mut [u8], number: u16) {
        let at = usize::from(self.transport_at);
        if at != 0 {
            out[at..at + 2].copy_from_slice(&number.to_be_bytes());
        }
    }

    /// Writes the header at the start of `out`, which must be long enough, and returns its length.
    pub fn write(
        &self,
        out: &mut [u8],
        marker: bool,
        is_padded: bool,
        sequence: u16,
        timestamp: u32,
    ) -> usize {
        let length = self.len();
        out[..length].copy_from_slice(&self.bytes[..length]);
        out[0] |= u8::from(is_padded) << 5;
        out[1] |= u8::from(marker) << 7;
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&timestamp.to_be_bytes());
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_template_reads_back_with_its_mid() {
        let template = Template::new(0xdead_beef, 96, Some((4, b"17")), None);
        assert!(!template.has_transport_number());
        let mut buffer = [0; 64];
        let length = template.write(&mut buffer, true, false, 65_535, 7);
        buffer[length..length + 3].copy_from_slice(b"abc");
        let packet = Packet::parse(&buffer[..length + 3]).expect("well formed");
        assert_eq!((packet.marker, packet.payload_type, packet.sequence), (true, 96, 65_535));
        assert_eq!((packet.timestamp, packet.ssrc), (7, 0xdead_beef));
        assert_eq!(packet.extensions.get(4), Some(&b"17"[..]));
        assert_eq!(packet.extensions.get(5), None);
        assert_eq!(packet.payload, b"abc");
    }

    #[test]
    fn a_transport_wide_number_stands_beside_any_mid() {
        for mid in
            [None, Some((4, &b"1"[..])), Some((4, b"0123456789abcdef")), Some((4, b"12345678901234567"))]
        {
            let template = Template::new(1, 96, mid, Some(9));
            let mut buffer = [0; 64];
            let length = template.write(&mut buffer, false, false, 1, 2);
            assert!(length <= TEMPLATE_BYTES_MAX && length.is_multiple_of(4));
            template.write_transport_number(&mut buffer, 0xbeef);
            let packet = Packet::parse(&buffer[..length]).expect("well formed");
            assert_eq!(packet.extensions.get(9), Some(&[0xbe, 0xef][..]));
            assert_eq!(packet.extensions.get(4), mid.map(|(_, mid)| mid).filter(|mid| mid.len() <= 16));
            assert!(packet.payload.is_empty());
        }
    }

    #[test]
    fn two_byte_extensions_are_found() {
        let mut bytes = vec![0x90, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x10, 0x00, 0, 2];
        bytes.extend_from_slice(&[1, 0, 0, 200, 3, b'a', b'b', b'c', 9]);
        let packet = Packet::parse(&bytes).expect("well formed");
        assert_eq!(packet.extensions.get(1), Some(&b""[..]));
        assert_eq!(packet.extensions.get(200), Some(&b"abc"[..]));
        assert_eq!(packet.payload, [9]);
    }

    #[test]
    fn padding_is_taken_off_and_must_make_sense() {
        let mut bytes = vec![0xa0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 7, 7, 0, 2];
        assert_eq!(Packet::parse(&bytes).expect("well formed").payload, [7, 7]);
        *bytes.last_mut().expect("not empty") = 5;
        assert!(Packet::parse(&bytes).is_none());
        *bytes.last_mut().expect("not empty") = 0;
        assert!(Packet::parse(&bytes).is_none());
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), first in 0x80_u8..0xc0) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() { *byte = first; }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.extensions.iter().count() <= bytes.len());
                prop_assert!(packet.payload.len() <= bytes.len());
            }
        }
    }
}
