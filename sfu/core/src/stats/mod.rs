//! Counters of a room as plain values.
//!
//! They are written by the packet path and copied out by whoever reports; nothing here formats, names a person or
//! decides.

use std::ops::AddAssign;

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counters! {
    /// What a room has done since it began. All values only grow.
    RoomCounters {
        /// RTP packets taken in and belonging to a known layer.
        packets_received,
        /// Their bytes, headers included.
        bytes_received,
        /// RTP packets written for subscribers, retransmissions included.
        packets_sent,
        /// Their bytes, headers included, before sealing.
        bytes_sent,
        /// Packets that are no RTP or longer than we forward.
        dropped_malformed,
        /// Packets whose SSRC belongs to nothing described, or beyond the bound of SSRCs.
        dropped_unknown_ssrc,
        /// Packets with a payload type that was not negotiated for their line.
        dropped_payload_type,
        /// Packets seen before, or too old to be told from one seen before.
        dropped_duplicate,
        /// Packets of an up that its publisher says is off.
        dropped_inactive,
        /// Packets that a subscriber could not be given because its queue was full.
        dropped_queue_full,
        /// Packets overwritten in the history before they were flushed.
        dropped_overwritten,
        /// Packets given up since they would have waited too long for a full line.
        dropped_late,
        /// RTCP compounds that end in something malformed; what stood before it was used.
        rtcp_malformed,
        /// Upstream retransmissions unwrapped.
        rtx_received,
        /// Upstream packets of sound that were missing and came as copies in later ones (RFC 2198).
        red_repaired,
        /// Sequence numbers that subscribers asked for again.
        nacked,
        /// Packets sent again.
        resent,
        /// Asked for again, but no longer (or never) in the history.
        resend_unknown,
        /// Asked for again too soon or beyond the bound per second.
        resend_refused,
        /// Packets of sound sent once more unasked; fewer leave where a header has changed meanwhile.
        repeated,
        /// Report blocks on streams that their sender does not receive, and sender reports and goodbyes of streams that it
        /// does not send, or no longer.
        reports_unknown,
        /// Requests for packets or key frames of streams that their sender does not receive, or no longer.
        requests_unknown,
        /// Transport-wide feedback packets beyond the bound of a second.
        feedback_refused,
        /// Transport-wide numbers that feedback speaks of, which were never sent or are settled.
        feedback_unknown,
        /// Sequence numbers asked of publishers.
        nacks_sent,
        /// Key frames that subscribers or slots asked for.
        key_frames_wanted,
        /// Picture loss indications sent to publishers; fewer than asked for where requests were joined.
        plis_sent,
        /// Times a slot changed to another source or layer.
        switches,
        /// Of them those that began with a key frame of before, without waiting for another.
        replays,
        /// Packets relayed to other parts of the room, once for each part.
        relayed_out,
        /// Packets that came from other parts of the room.
        relayed_in,
        /// Packets not relayed since too many waited for their part.
        dropped_relay_full,
        /// Relayed packets of streams that are not known here, or no longer.
        dropped_relay_unknown,
    }
}
