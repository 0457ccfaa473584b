//! RTP and RTCP as bytes.

/// Longest payload that is forwarded, in bytes. Browsers stay below 1,200; this leaves room for a header of ours, the
/// original sequence number of a retransmission and the SRTP tag within an Ethernet frame over IPv6 (1,452 bytes).
pub const PAYLOAD_BYTES_MAX: usize = 1_390;
