//! RTP headers (RFC 3550 section 5.1) with one-byte extensions (RFC 8285 section 4.2): written for what a bot sends,
//! read in what it gets.

/// The fixed part of a header.
pub(crate) const HEADER_BYTES: usize = 12;

/// A header to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    /// Numbers and values, each 1 to 16 bytes.
    pub(crate) extensions: &'a [(u8, &'a [u8])],
}

impl Header<'_> {
    /// Appends the header.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(0x80 | if self.extensions.is_empty() { 0 } else { 0x10 });
        out.push(self.payload_type | if self.marker { 0x80 } else { 0 });
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        if self.extensions.is_empty() {
            return;
        }
        out.extend([0xbe, 0xde, 0, 0]);
        let start = out.len();
        for (id, value) in self.extensions {
            assert!((1..=14).contains(id) && (1..=16).contains(&value.len()), "a one-byte header carries it");
            out.push(id << 4 | (value.len() - 1) as u8);
            out.extend_from_slice(value);
        }
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);
        let words = ((out.len() - start) / 4) as u16;
        out[start - 2..start].copy_from_slice(&words.to_be_bytes());
    }
}

/// A header as it was read, before decryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) payload_type: u8,
    pub(crate) has_padding: bool,
    pub(crate) sequence: u16,
    pub(crate) ssrc: u32,
    /// The value of the extension that was asked for, if it has two bytes.
    pub(crate) transport_sequence: Option<u16>,
    /// Where the payload begins.
    pub(crate) payload_at: usize,
}

/// Reads a header and the transport-wide number in the extension `transport_id`. `None` where it is cut short.
pub(crate) fn read(packet: &[u8], transport_id: Option<u8>) -> Option<Read> {
    let fixed: &[u8; HEADER_BYTES] = packet.first_chunk()?;
    if fixed[0] >> 6 != 2 {
        return None;
    }
    let mut at = HEADER_BYTES + usize::from(fixed[0] & 0x0f) * 4;
    let mut transport_sequence = None;
    if fixed[0] & 0x10 != 0 {
        let head = packet.get(at..at + 4)?;
        let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let body = packet.get(at + 4..at + 4 + words * 4)?;
        if head[..2] == [0xbe, 0xde] {
            transport_sequence = transport_id.and_then(|id| two_bytes(body, id));
        }
        at += 4 + words * 4;
    }
    packet.get(at..)?;
    Some(Read {
        payload_type: fixed[1] & 0x7f,
        has_padding: fixed[0] & 0x20 != 0,
        sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
        ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        transport_sequence,
        payload_at: at,
    })
}

fn two_bytes(mut body: &[u8], wanted: u8) -> Option<u16> {
    while let Some((&first, rest)) = body.split_first() {
        if first == 0 {
            body = rest;
            continue;
        }
        let (id, length) = (first >> 4, usize::from(first & 0x0f) + 1);
        if id == 15 {
            return None;
        }
        let value = rest.get(..length)?;
        if id == wanted {
            return Some(u16::from_be_bytes(value.try_into().ok()?));
        }
        body = &rest[length..];
    }
    None
}

/// A payload without its RTP padding (RFC 3550 section 5.1); `None` where that is longer than the payload.
pub(crate) fn without_padding(payload: &[u8], has_padding: bool) -> Option<&[u8]> {
    if !has_padding {
        return Some(payload);
    }
    let padding = usize::from(*payload.last()?);
    (padding > 0).then_some(())?;
    payload.get(..payload.len().checked_sub(padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_with_its_transport_wide_number() {
        let mut packet = Vec::new();
        let extensions: [(u8, &[u8]); 3] = [(1, b"12"), (2, b"q"), (5, &[0x12, 0x34])];
        let (payload_type, marker, sequence, timestamp, ssrc) = (96, true, 7, 90_000, 0xdead_beef);
        Header { payload_type, marker, sequence, timestamp, ssrc, extensions: &extensions }
            .write(&mut packet);
        packet.extend([1, 2, 3]);
        let header = read(&packet, Some(5)).unwrap();
        assert_eq!((header.payload_type, header.sequence, header.ssrc), (96, 7, 0xdead_beef));
        assert_eq!(header.transport_sequence, Some(0x1234));
        assert_eq!(packet[header.payload_at..], [1, 2, 3]);
        assert_eq!(read(&packet, Some(2)).unwrap().transport_sequence, None);
        assert_eq!(read(&packet, None).unwrap().transport_sequence, None);
        for length in 0..header.payload_at {
            assert_eq!(read(&packet[..length], Some(5)), None);
        }
    }

    #[test]
    fn padding_is_taken_off() {
        assert_eq!(without_padding(&[9, 8, 2, 2], true), Some(&[9, 8][..]));
        assert_eq!(without_padding(&[9, 8, 2, 2], false), Some(&[9, 8, 2, 2][..]));
        assert_eq!(without_padding(&[9, 0], true), None);
        assert_eq!(without_padding(&[9, 7], true), None);
    }
}
