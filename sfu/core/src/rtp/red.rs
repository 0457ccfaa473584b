//! Redundant audio data (RFC 2198): one packet with a primary block and copies of earlier ones.
//!
//! Only block headers are read; what a block holds is not looked at. A walk borrows and allocates nothing.

/// Most blocks of a packet, the primary one included: browsers send one or two copies, and what reaches further back
/// than these is played by nobody.
pub const BLOCKS_MAX: usize = 8;

/// A packet's blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks<'a> {
    /// What the packet is about.
    pub primary: &'a [u8],
    /// Copies of earlier packets, the oldest first.
    pub copies: arrayvec::ArrayVec<Copy<'a>, { BLOCKS_MAX - 1 }>,
}

/// A copy of an earlier packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy<'a> {
    /// By how much its timestamp is earlier than the packet's; 14 bits (RFC 2198 section 3).
    pub earlier: u16,
    /// The payload; never empty.
    pub payload: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// Reads a payload. `None` if its lengths contradict each other, it has more than [`BLOCKS_MAX`] blocks, or one of
    /// another payload type than `payload_type`.
    pub fn parse(payload: &'a [u8], payload_type: u8) -> Option<Self> {
        let mut lengths = arrayvec::ArrayVec::<(u16, usize), { BLOCKS_MAX - 1 }>::new();
        let mut at = 0;
        loop {
            let first = *payload.get(at)?;
            if first & 0x7f != payload_type {
                return None;
            }
            if first & 0x80 == 0 {
                at += 1;
                break;
            }
            let word = super::be32(payload, at)?;
            let (earlier, length) = ((word >> 10 & 0x3fff) as u16, (word & 0x3ff) as usize);
            lengths.try_push((earlier, length)).ok()?;
            at += 4;
        }
        let mut copies = arrayvec::ArrayVec::new();
        for (earlier, length) in lengths {
            let payload = payload.get(at..at + length)?;
            at += length;
            // Browsers write empty blocks before there is anything to copy.
            if !payload.is_empty() {
                copies.push(Copy { earlier, payload });
            }
        }
        let primary = payload.get(at..).filter(|primary| !primary.is_empty())?;
        Some(Self { primary, copies })
    }

    /// The copies with how many packets each is behind the packet itself, the oldest first: browsers copy the packets
    /// just before. Empty if the timestamps say otherwise: they must rise to the packet's own.
    pub fn behind(&self) -> impl Iterator<Item = (u16, &Copy<'a>)> {
        let is_rising = self.copies.windows(2).all(|pair| pair[0].earlier > pair[1].earlier)
            && self.copies.last().is_none_or(|last| last.earlier > 0);
        let count = if is_rising { self.copies.len() } else { 0 };
        self.copies[..count].iter().enumerate().map(move |(place, copy)| ((count - place) as u16, copy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(copies: &[(u16, &[u8])], primary: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (earlier, payload) in copies {
            bytes.push(0x80 | 111);
            bytes.extend_from_slice(&(u32::from(*earlier) << 10 | payload.len() as u32).to_be_bytes()[1..]);
        }
        bytes.push(111);
        copies.iter().for_each(|(_, payload)| bytes.extend_from_slice(payload));
        bytes.extend_from_slice(primary);
        bytes
    }

    #[test]
    fn blocks_are_found_and_numbered() {
        let bytes = packet(&[(1_920, b"older"), (960, b"old")], b"now");
        let blocks = Blocks::parse(&bytes, 111).expect("well formed");
        assert_eq!(blocks.primary, b"now");
        let behind: Vec<_> =
            blocks.behind().map(|(behind, copy)| (behind, copy.earlier, copy.payload)).collect();
        assert_eq!(behind, [(2, 1_920, &b"older"[..]), (1, 960, b"old")]);
        let bytes = packet(&[(0, b""), (960, b"old")], b"now");
        assert_eq!(Blocks::parse(&bytes, 111).expect("well formed").behind().count(), 1);
    }

    #[test]
    fn lies_are_no_blocks() {
        let bytes = packet(&[(960, b"old")], b"now");
        assert_eq!(Blocks::parse(&bytes, 110), None, "another codec");
        assert_eq!(Blocks::parse(&bytes[..bytes.len() - 3], 111), None, "no primary block");
        assert_eq!(Blocks::parse(&bytes[..6], 111), None, "cut off");
        assert_eq!(Blocks::parse(&[], 111), None);
        assert_eq!(Blocks::parse(&[0x80 | 111; 4_000], 111), None, "a thousand blocks");
        let many = vec![(960, &b"x"[..]); BLOCKS_MAX];
        assert_eq!(Blocks::parse(&packet(&many, b"now"), 111), None);
        for (first, second) in [(960, 960), (960, 1_920), (960, 0)] {
            let bytes = packet(&[(first, b"a"), (second, b"b")], b"now");
            assert_eq!(
                Blocks::parse(&bytes, 111).expect("well formed").behind().count(),
                0,
                "{first} {second}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_read_was_there(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), heads in 0_usize..10) {
            for head in 0..heads {
                if let Some(byte) = bytes.get_mut(head * 4) { *byte = 0x80 | 111; }
            }
            if let Some(byte) = bytes.get_mut(heads * 4) { *byte = 111; }
            if let Some(blocks) = Blocks::parse(&bytes, 111) {
                let total: usize = blocks.copies.iter().map(|copy| copy.payload.len()).sum();
                prop_assert!(total + blocks.primary.len() < bytes.len());
                prop_assert!(bytes.ends_with(blocks.primary));
                prop_assert!(blocks.behind().all(|(behind, _)| (1..BLOCKS_MAX as u16).contains(&behind)));
            }
        }
    }
}
