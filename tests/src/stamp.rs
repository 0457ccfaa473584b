//! What a test client writes into the media it sends, so that whoever receives it knows what it is.
//!
//! A stamp follows the Opus TOC byte or the VP8 payload descriptor and frame tag; the bridge forwards it unread.

/// Bytes of a stamp on the wire.
pub const STAMP_BYTES: usize = 16;

const MAGIC: [u8; 2] = *b"As";

/// Who sent a packet, as what, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// A number the test gave the sender.
    pub sender: u32,
    /// 0 microphone, 1 camera, 2 screen.
    pub kind: u8,
    /// 0 for the smallest simulcast layer.
    pub layer: u8,
    /// Counts the frames of a layer from 0.
    pub frame: u32,
    /// Counts the packets of a frame from 0.
    pub packet: u8,
    /// Packets in this frame.
    pub packets: u8,
    /// Whether the frame is a key frame.
    pub is_key: bool,
}

impl Stamp {
    /// The stamp as bytes.
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2..6].copy_from_slice(&self.sender.to_be_bytes());
        bytes[6] = self.kind;
        bytes[7] = self.layer;
        bytes[8..12].copy_from_slice(&self.frame.to_be_bytes());
        bytes[12] = self.packet;
        bytes[13] = self.packets;
        bytes[14] = u8::from(self.is_key);
        bytes[15] = bytes[..15].iter().fold(0x5a, |sum, byte| sum ^ byte);
        bytes
    }

    /// Reads a stamp off the beginning of `bytes`; `None` if there is none or it was damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..STAMP_BYTES)?;
        let sum = bytes[..15].iter().fold(0x5a, |sum, byte| sum ^ byte);
        if bytes[..2] != MAGIC || bytes[15] != sum {
            return None;
        }
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self {
            sender: number(2),
            kind: bytes[6],
            layer: bytes[7],
            frame: number(8),
            packet: bytes[12],
            packets: bytes[13],
            is_key: bytes[14] != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_a_damaged_one_is_not() {
        let stamp =
            Stamp { sender: 7, kind: 1, layer: 2, frame: 90_000, packet: 3, packets: 4, is_key: true };
        let mut bytes = stamp.to_bytes();
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        bytes[9] ^= 1;
        assert_eq!(Stamp::read(&bytes), None);
        assert_eq!(Stamp::read(&bytes[..10]), None);
    }
}
