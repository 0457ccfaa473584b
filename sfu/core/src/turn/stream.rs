//! Where one message ends and the next begins in a stream: RFC 8656 section 12.5 has ChannelData padded there.

use super::MESSAGE_BYTES_MAX;

/// So many bytes say how long the whole is.
pub const HEAD_BYTES: usize = 4;

/// What cannot begin a message: the stream has to end, since nobody knows where the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message begins like this")]
pub struct FramingLie;

/// How many bytes the message that begins with these has, its head and its padding included.
///
/// # Errors
/// [`FramingLie`], also for a message that is longer than [`MESSAGE_BYTES_MAX`].
pub fn message_bytes(head: [u8; HEAD_BYTES]) -> Result<usize, FramingLie> {
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let whole = match head[0] {
        0..=0x3f if length.is_multiple_of(4) => 20 + length,
        0x40..=0x4f => HEAD_BYTES + length.next_multiple_of(4),
        _ => return Err(FramingLie),
    };
    if whole <= MESSAGE_BYTES_MAX { Ok(whole) } else { Err(FramingLie) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_whole_is() {
        for (head, whole) in [
            ([0x00, 0x03, 0, 8], 28),
            ([0x40, 0x00, 0, 0], 4),
            ([0x40, 0x00, 0, 1], 8),
            ([0x4f, 0xff, 0, 4], 8),
            ([0x40, 0x01, 0x05, 0xdc], 1_504),
        ] {
            assert_eq!(message_bytes(head), Ok(whole), "{head:?}");
        }
    }

    #[test]
    fn what_begins_no_message_or_one_too_long_is_a_lie() {
        for head in [
            [0x00, 0x03, 0, 7],
            [0x00, 0x03, 0xff, 0xfc],
            [0x40, 0x00, 0xff, 0xff],
            [0x50, 0x00, 0, 4],
            [0x80, 0x00, 0, 4],
            [0xff; 4],
        ] {
            assert_eq!(message_bytes(head), Err(FramingLie), "{head:?}");
        }
    }
}
