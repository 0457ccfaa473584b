//! Rollover counters and replay windows of what a peer sends (RFC 3711 section 3.3).
//!
//! It never changes before a packet is authenticated: [`Streams::estimate`] only reads, [`Streams::accept`] is for
//! afterwards.

use super::SrtpDrop;

/// Packets behind the newest one that may still arrive: RFC 3711 asks for 64 at least; 128 are 400 ms of a simulcast
/// layer's densest stream.
pub const WINDOW_PACKETS: u64 = 128;

/// Most SSRCs of one peer that have state, for RTP and for RTCP each. A browser with microphone, camera in three
/// layers and screen uses 9 with their retransmissions; the rest is for streams that start anew.
pub const SSRCS_MAX: usize = 64;

/// One SSRC's window. The index is 48 bits for RTP, 31 for RTCP.
#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    newest: u64,
    /// Bit `n`: the packet `n` behind the newest was seen.
    seen: u128,
}

/// The windows of all SSRCs of one peer in one direction and of one protocol.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: Vec<Stream>,
}

impl Streams {
    /// The 48-bit index of an RTP packet, from its 16-bit sequence number (RFC 3711 section 3.3.1 and appendix A).
    ///
    /// # Errors
    /// [`SrtpDrop::TooOld`] when it lies before the first packet of the stream.
    pub(super) fn estimate(&self, ssrc: u32, sequence: u16) -> Result<u64, SrtpDrop> {
        let Some(stream) = self.find(ssrc) else { return Ok(sequence.into()) };
        // Of the three rollovers around the newest packet, the one which brings the sequence number nearest to it.
        let ahead = sequence.wrapping_sub(stream.newest as u16) as i16;
        stream.newest.checked_add_signed(ahead.into()).ok_or(SrtpDrop::TooOld)
    }

    /// Whether a packet with this index may be opened.
    ///
    /// # Errors
    /// [`SrtpDrop::Replayed`], [`SrtpDrop::TooOld`], or [`SrtpDrop::TooManySsrcs`] for one stream too many.
    pub(super) fn check(&self, ssrc: u32, index: u64) -> Result<(), SrtpDrop> {
        match self.find(ssrc) {
            None if self.streams.len() == SSRCS_MAX => Err(SrtpDrop::TooManySsrcs),
            None => Ok(()),
            Some(stream) if index > stream.newest => Ok(()),
            Some(stream) => {
                let behind = stream.newest - index;
                if behind >= WINDOW_PACKETS {
                    Err(SrtpDrop::TooOld)
                } else if stream.seen >> behind & 1 == 1 {
                    Err(SrtpDrop::Replayed)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Records a packet that passed [`Streams::check`] and was authentic.
    pub(super) fn accept(&mut self, ssrc: u32, index: u64) {
        let Some(position) = self.streams.iter().position(|stream| stream.ssrc == ssrc) else {
            self.streams.push(Stream { ssrc, newest: index, seen: 1 });
            return;
        };
        let stream = &mut self.streams[position];
        if index > stream.newest {
            let ahead = index - stream.newest;
            stream.seen = if ahead < WINDOW_PACKETS { stream.seen << ahead | 1 } else { 1 };
            stream.newest = index;
        } else {
            stream.seen |= 1 << (stream.newest - index);
        }
    }

    /// How many SSRCs have state.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    fn find(&self, ssrc: u32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.ssrc == ssrc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn take(streams: &mut Streams, index: u64) -> Result<(), SrtpDrop> {
        streams.check(1, index)?;
        streams.accept(1, index);
        Ok(())
    }

    #[test]
    fn a_packet_passes_once() {
        let mut streams = Streams::default();
        for index in [500, 502, 501, 400] {
            assert_eq!(take(&mut streams, index), Ok(()));
            assert_eq!(take(&mut streams, index), Err(SrtpDrop::Replayed));
        }
    }

    #[test]
    fn what_left_the_window_is_too_old() {
        let mut streams = Streams::default();
        take(&mut streams, 1_000).unwrap();
        assert_eq!(take(&mut streams, 1_000 - WINDOW_PACKETS + 1), Ok(()));
        assert_eq!(take(&mut streams, 1_000 - WINDOW_PACKETS), Err(SrtpDrop::TooOld));
    }

    #[test]
    fn the_rollover_counter_follows_the_sequence_number_around() {
        let mut streams = Streams::default();
        streams.accept(1, 0xfffe);
        assert_eq!(streams.estimate(1, 0xffff), Ok(0xffff));
        assert_eq!(streams.estimate(1, 2), Ok(0x1_0002));
        streams.accept(1, 0x1_0002);
        assert_eq!(streams.estimate(1, 0xffff), Ok(0xffff), "late, from before the rollover");
        assert_eq!(streams.estimate(2, 7), Ok(7), "another stream starts at zero");
        let mut young = Streams::default();
        young.accept(1, 3);
        assert_eq!(young.estimate(1, 0xffff), Err(SrtpDrop::TooOld), "before the first packet");
    }

    #[test]
    fn streams_are_bounded() {
        let mut streams = Streams::default();
        for ssrc in 0..SSRCS_MAX as u32 {
            streams.check(ssrc, 0).unwrap();
            streams.accept(ssrc, 0);
        }
        assert_eq!(streams.check(9_999, 0), Err(SrtpDrop::TooManySsrcs));
        assert_eq!(streams.check(3, 1), Ok(()), "those that are known go on");
        assert_eq!(streams.len(), SSRCS_MAX);
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(indices in proptest::collection::vec(0u64..600, 1..400)) {
            let mut streams = Streams::default();
            let mut seen = BTreeSet::new();
            for index in indices {
                let newest = seen.last().copied().unwrap_or(index);
                let is_fresh = index + WINDOW_PACKETS > newest && !seen.contains(&index);
                prop_assert_eq!(take(&mut streams, index).is_ok(), is_fresh);
                if is_fresh {
                    seen.insert(index);
                }
            }
        }

        #[test]
        fn the_estimate_is_right_within_half_a_turn(newest in 40_000u64..1 << 40, ahead in -32_768i64..32_768) {
            let mut streams = Streams::default();
            streams.accept(1, newest);
            let index = newest.checked_add_signed(ahead).unwrap();
            prop_assert_eq!(streams.estimate(1, index as u16), Ok(index));
        }
    }
}
