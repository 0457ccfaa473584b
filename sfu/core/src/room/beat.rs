//! The beat: what everyone who is connected hears so often that silence means a line that is gone.
//!
//! Clients count on something each half second, and take the path for dead when nothing has come for two. A greeting costs as
//! much as a frame does, so whatever is sent counts; and behind several packets the beat is a whole second, which is still
//! heard twice before it is missed: a line that loses packets hardly loses all of a frame.

use std::time::{Duration, Instant};

/// The longest time that a connected peer hears nothing, but for a tick: just below half a second, so that the beat is
/// five ticks also where a tick comes early.
pub(super) const BEAT: Duration = Duration::from_millis(450);

/// The same behind several packets: pictures that move little come about once a second.
const BEAT_AFTER_FRAME: Duration = Duration::from_millis(950);

/// So many packets are several ...
const SEVERAL: u64 = 3;

/// ... if each comes so soon after the one before.
const TOGETHER: Duration = Duration::from_millis(100);

/// When a peer has to hear something again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat {
    at: Option<Instant>,
    /// Packets of media up to then, without a pause.
    packets: u64,
    due_at: Option<Instant>,
}

impl Beat {
    /// Notes that something was sent, with so many packets of media.
    pub(super) fn note(&mut self, now: Instant, packets: u64) {
        let goes_on = self.at.is_some_and(|at| now.saturating_duration_since(at) < TOGETHER);
        self.packets = if goes_on { self.packets + packets } else { packets };
        self.at = Some(now);
        let beat = if self.packets >= SEVERAL { BEAT_AFTER_FRAME } else { BEAT };
        self.due_at = self.due_at.max(Some(now + beat));
    }

    /// Whether the next beat is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at.is_none_or(|at| at <= now)
    }
}
