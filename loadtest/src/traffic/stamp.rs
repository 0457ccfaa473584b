//! What stands at the end of each payload: when it was due, of which stream, the how manieth.
//!
//! At the end, since a server may rewrite the codec's descriptor in front. It travels encrypted like all media.

/// Bytes of a stamp.
pub(crate) const STAMP_BYTES: usize = 20;

const MAGIC: [u8; 2] = *b"LT";
const KEY_FRAME: u8 = 1;
const FRAME_START: u8 = 2;
const FRAME_END: u8 = 4;

/// Names a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The run's number for the stream: one simulcast layer or one voice.
    pub(crate) stream: u32,
    /// Counts the stream's packets from 0.
    pub(crate) counter: u32,
    /// When it was due to be sent, however late it was.
    pub(crate) due_ns: u64,
    /// Whether it belongs to a frame that can be decoded alone.
    pub(crate) is_key: bool,
    /// Whether it is the first of its frame.
    pub(crate) is_frame_start: bool,
    /// Whether it is the last of its frame.
    pub(crate) is_frame_end: bool,
}

impl Stamp {
    pub(crate) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = (u8::from(self.is_key) * KEY_FRAME)
            | (u8::from(self.is_frame_start) * FRAME_START)
            | (u8::from(self.is_frame_end) * FRAME_END);
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.counter.to_be_bytes());
        bytes[12..].copy_from_slice(&self.due_ns.to_be_bytes());
        bytes[3] = check(&bytes);
        bytes
    }

    /// Reads the stamp at the end of a payload without RTP padding; `None` where none is.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = payload.last_chunk()?;
        let [.., stream3, stream2, stream1, stream0, c3, c2, c1, c0, d7, d6, d5, d4, d3, d2, d1, d0] = *bytes;
        if bytes[..2] != MAGIC || bytes[3] != check(bytes) {
            return None;
        }
        Some(Self {
            stream: u32::from_be_bytes([stream3, stream2, stream1, stream0]),
            counter: u32::from_be_bytes([c3, c2, c1, c0]),
            due_ns: u64::from_be_bytes([d7, d6, d5, d4, d3, d2, d1, d0]),
            is_key: bytes[2] & KEY_FRAME != 0,
            is_frame_start: bytes[2] & FRAME_START != 0,
            is_frame_end: bytes[2] & FRAME_END != 0,
        })
    }
}

/// A sum over everything but itself.
fn check(bytes: &[u8; STAMP_BYTES]) -> u8 {
    let sum = |sum: u8, byte: &u8| sum.rotate_left(1) ^ byte;
    bytes[4..].iter().fold(bytes[..3].iter().fold(0x5a, sum), sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_is_read_back_from_the_end(
            stream: u32, counter: u32, due_ns: u64, is_key: bool, is_frame_start: bool, is_frame_end: bool,
            front in 0..40_usize,
        ) {
            let stamp = Stamp { stream, counter, due_ns, is_key, is_frame_start, is_frame_end };
            let mut payload = vec![0x55; front];
            payload.extend(stamp.to_bytes());
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
        }

        #[test]
        fn a_damaged_stamp_is_none(counter: u32, bit in 0..STAMP_BYTES * 8) {
            let (is_key, is_frame_start, is_frame_end) = (true, false, true);
            let stamp = Stamp { stream: 7, counter, due_ns: 123, is_key, is_frame_start, is_frame_end };
            let mut bytes = stamp.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Stamp::read(&bytes), None);
        }
    }

    #[test]
    fn what_is_too_short_has_none() {
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
    }
}
