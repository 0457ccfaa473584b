//! What the sockets and threads count, readable from any thread.
//!
//! Each set of counters has one writer, the thread it belongs to; readers see each number at some recent moment,
//! not all of them at the same one. Never a lock that a shard waits for, never an address.

use asamblea_sfu_core::stats::RoomCounters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// A number with one writer and many readers.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning thread may call this: a load and a store cost a tenth of an atomic addition.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Replaces. Only the owning thread may call this.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $plain:ident from $live:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $plain { $($(#[$field_doc])* pub $field: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct $live { $(pub(crate) $field: Counter,)* }

        impl $live {
            pub(crate) fn snapshot(&self) -> $plain {
                $plain { $($field: self.$field.get(),)* }
            }
        }
    };
}

counters! {
    /// The listener since the start.
    ListenerStats from ListenerCounters {
        /// Datagrams received.
        datagrams,
        /// Checks given to a shard.
        admitted,
        /// Dropped: longer than any connectivity check.
        dropped_too_long,
        /// Dropped: not a well-formed STUN message.
        dropped_malformed,
        /// Dropped: STUN, but no binding request.
        dropped_not_a_request,
        /// Dropped: the FINGERPRINT is wrong.
        dropped_fingerprint,
        /// Dropped: no credentials.
        dropped_no_credentials,
        /// Dropped: a user name that this server never gave out.
        dropped_unknown_user,
        /// Dropped: the MESSAGE-INTEGRITY is wrong.
        dropped_integrity,
        /// Dropped: the shard's mailbox was full.
        dropped_mailbox_full,
        /// TURN requests given to the relay's thread.
        turn_admitted,
        /// TURN requests answered here: with a challenge for credentials, as a rule.
        turn_answered,
        /// TURN requests dropped because enough others were answered in that second.
        dropped_turn_busy,
        /// TURN messages dropped: malformed, or without the allocation that they need.
        dropped_turn,
        /// Receives that failed for another reason than that nothing waited.
        receive_errors,
    }
}

/// The TURN relay since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnStats {
    /// Allocations now.
    pub allocations: usize,
    /// Allocations made.
    pub allocated: u64,
    /// Requests with credentials that were refused.
    pub refused: u64,
    /// Datagrams handed to shards.
    pub relayed: u64,
    /// Messages of clients with an allocation that were dropped: malformed, to an address that is not ours, or not
    /// permitted.
    pub dropped: u64,
}

counters! {
    /// One shard's sockets since the start of its thread.
    SocketStats from SocketCounters {
        /// Peers joined now.
        peers,
        /// Paths open now.
        paths,
        /// Of these, such that send no media.
        paths_quiet,
        /// Paths opened.
        paths_opened,
        /// Paths that could not be opened: no descriptor, no memory, no route.
        paths_failed,
        /// Checks taken from the listener.
        checks,
        /// Checks dropped because they came to another local address than the path of the same remote address.
        checks_elsewhere,
        /// Datagrams received on paths.
        datagrams_received,
        /// Receive calls that returned something; datagrams / receives is the inbound batch.
        receives,
        /// Errors that a receive reported about an earlier send.
        receive_errors,
        /// Send calls that succeeded; datagrams / sends is the run.
        sends,
        /// Datagrams sent.
        datagrams_sent,
        /// Bytes sent, UDP payload.
        bytes_sent,
        /// Datagrams dropped because the socket's buffer was full: media does not wait.
        dropped_send_full,
        /// Datagrams dropped because the send failed otherwise.
        dropped_send_failed,
        /// Datagrams dropped because their path was gone.
        dropped_no_path,
        /// Paths on which the kernel or the device refused segmentation; they go on datagram by datagram.
        paths_without_segmentation,
        /// Turns of the loop.
        turns,
        /// Carriers in use now.
        carriers,
        /// Carriers taken.
        carriers_opened,
        /// Datagrams received from carriers.
        carried_received,
        /// Datagrams given to carriers.
        carried_sent,
        /// Datagrams dropped because their carrier's queue was full.
        dropped_carrier_full,
        /// Datagrams dropped because they had waited too long in their carrier's queue.
        dropped_carrier_late,
        /// Panics that the thread survived.
        panics,
    }
}

/// Upper bounds of the buckets of [`RunHistogram`], in datagrams a send.
pub const RUN_BUCKETS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Sends by the number of datagrams in them; bucket `i` counts those with at most [`RUN_BUCKETS`]`[i]` and more
/// than the bucket before.
pub type RunHistogram = [u64; RUN_BUCKETS.len()];

/// One shard since the start of its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Counts.
    pub sockets: SocketStats,
    /// Datagrams per send.
    pub runs: RunHistogram,
    /// What its rooms have done: as of the shard's last turn, or up to a second before.
    pub rooms: RoomCounters,
}

/// The media plane since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaneStats {
    /// The listener.
    pub listener: ListenerStats,
    /// The relay.
    pub turn: TurnStats,
    /// Carriers whose first datagram was no authentic check.
    pub carriers_refused: u64,
    /// Datagrams of carriers dropped because too many waited for their shard.
    pub carried_dropped: u64,
    /// The shards, by index.
    pub shards: Vec<ShardStats>,
}

/// What one shard's thread writes.
#[derive(Debug, Default)]
pub(crate) struct ShardCounters {
    pub(crate) sockets: SocketCounters,
    runs: [Counter; RUN_BUCKETS.len()],
    rooms: Mutex<RoomCounters>,
}

impl ShardCounters {
    /// Counts a successful send of `datagrams` datagrams, `bytes` bytes together.
    pub(crate) fn sent(&self, datagrams: usize, bytes: usize) {
        self.sockets.sends.add(1);
        self.sockets.datagrams_sent.add(datagrams as u64);
        self.sockets.bytes_sent.add(bytes as u64);
        let bucket = RUN_BUCKETS.partition_point(|&most| most < datagrams).min(RUN_BUCKETS.len() - 1);
        self.runs[bucket].add(1);
    }

    /// Replaces what the rooms have done. False if someone reads it just now: the next turn will do.
    pub(crate) fn set_rooms(&self, rooms: RoomCounters) -> bool {
        self.rooms.try_lock().map(|mut told| *told = rooms).is_ok()
    }

    /// What the rooms had done when it was last told.
    pub(crate) fn rooms(&self) -> RoomCounters {
        *self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> ShardStats {
        ShardStats {
            sockets: self.sockets.snapshot(),
            runs: std::array::from_fn(|i| self.runs[i].get()),
            rooms: self.rooms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_falls_into_the_bucket_that_holds_its_length() {
        let counters = ShardCounters::default();
        for datagrams in [1, 2, 3, 4, 5, 8, 64] {
            counters.sent(datagrams, 10);
        }
        let stats = counters.snapshot();
        assert_eq!(stats.runs, [1, 1, 2, 2, 0, 0, 1]);
        assert_eq!(stats.sockets.sends, 7);
        assert_eq!(stats.sockets.datagrams_sent, 87);
    }
}
