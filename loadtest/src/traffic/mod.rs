//! What is sent and what became of it: the load tester's pure heart. It is told the time, draws from a seed and
//! opens no socket.
//!
//! [`schedule`] says when packets are due, [`source`] what is in them, [`ledger`] keeps the books on what arrived.
//! All times are nanoseconds since the run's beginning.

pub(crate) mod ledger;
pub(crate) mod schedule;
pub(crate) mod source;
pub(crate) mod stamp;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Opus.
    Audio,
    /// VP8.
    Video,
}
