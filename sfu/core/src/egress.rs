//! Where plaintext packets leave the heart: the shard seals what is written here and hands it to the kernel.
//!
//! Nothing is kept here and nothing is encrypted here.

/// Room the buffer given to a writer must have, in bytes: the longest packet that a [`crate::room::Room`] writes,
/// without what sealing adds. A payload of [`crate::rtp::PAYLOAD_BYTES_MAX`] with the longest header (12 fixed, 24 of
/// extensions), the original sequence number of a retransmission and one byte of padding stays below.
pub const PLAINTEXT_BYTES_MAX: usize = 1_440;

/// Takes the packets of one subscriber in the order in which they are to be sent.
pub trait Egress {
    /// One RTP packet. `write` fills a buffer of at least [`PLAINTEXT_BYTES_MAX`] bytes and returns the packet's length.
    ///
    /// `extended_sequence` is the packet's sequence number with its roll-over count above the lower 16 bits
    /// (RFC 3711 section 3.3.1). Each SSRC sees each value at most once.
    fn rtp(&mut self, extended_sequence: u64, write: impl FnOnce(&mut [u8]) -> usize);

    /// One RTCP compound packet, in the same manner.
    fn rtcp(&mut self, write: impl FnOnce(&mut [u8]) -> usize);
}
