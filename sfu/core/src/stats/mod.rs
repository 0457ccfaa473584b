//! Counters of a room as plain values.
//!
//! They are written by the packet path and copied out by whoever reports; nothing here formats, names a person or
//! decides.

/// What a room has done since it began. All values only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomCounters {
    /// RTP packets taken in and belonging to a known layer.
    pub packets_received: u64,
    /// Their bytes, headers included.
    pub bytes_received: u64,
    /// RTP packets written for subscribers, retransmissions included.
    pub packets_sent: u64,
    /// Their bytes, headers included, before sealing.
    pub bytes_sent: u64,
    /// Packets that are no RTP or longer than we forward.
    pub dropped_malformed: u64,
    /// Packets whose SSRC belongs to nothing described, or beyond the bound of SSRCs.
    pub dropped_unknown_ssrc: u64,
    /// Packets with a payload type that was not negotiated for their line.
    pub dropped_payload_type: u64,
    /// Packets seen before, or too old to be told from one seen before.
    pub dropped_duplicate: u64,
    /// Packets of an up that its publisher says is off.
    pub dropped_inactive: u64,
    /// Packets that a subscriber could not be given because its queue was full.
    pub dropped_queue_full: u64,
    /// Packets overwritten in the history before they were flushed.
    pub dropped_overwritten: u64,
    /// Packets given up since they would have waited too long for a full line.
    pub dropped_late: u64,
    /// RTCP compounds that end in something malformed; what stood before it was used.
    pub rtcp_malformed: u64,
    /// Upstream retransmissions unwrapped.
    pub rtx_received: u64,
    /// Upstream packets of sound that were missing and came as copies in later ones (RFC 2198).
    pub red_repaired: u64,
    /// Sequence numbers that subscribers asked for again.
    pub nacked: u64,
    /// Packets sent again.
    pub resent: u64,
    /// Asked for again, but no longer (or never) in the history.
    pub resend_unknown: u64,
    /// Asked for again too soon or beyond the bound per second.
    pub resend_refused: u64,
    /// Packets of sound sent once more unasked; fewer leave where a header has changed meanwhile.
    pub repeated: u64,
    /// Report blocks on streams that their sender does not receive, and sender reports and goodbyes of streams that it
    /// does not send, or no longer.
    pub reports_unknown: u64,
    /// Requests for packets or key frames of streams that their sender does not receive, or no longer.
    pub requests_unknown: u64,
    /// Transport-wide feedback packets beyond the bound of a second.
    pub feedback_refused: u64,
    /// Transport-wide numbers that feedback speaks of, which were never sent or are settled.
    pub feedback_unknown: u64,
    /// Sequence numbers asked of publishers.
    pub nacks_sent: u64,
    /// Key frames that subscribers or slots asked for.
    pub key_frames_wanted: u64,
    /// Picture loss indications sent to publishers; fewer than asked for where requests were joined.
    pub plis_sent: u64,
    /// Times a slot changed to another source or layer.
    pub switches: u64,
}
