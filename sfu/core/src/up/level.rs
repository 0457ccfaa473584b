//! How loud a publisher is, out of the levels its packets carry (RFC 6464); nothing is decoded.
//!
//! Rises fast, so that a first word is heard, and falls slowly, so that a breath does not end a turn.

use std::time::{Duration, Instant};

/// Loudness above which someone counts as speaking, in dB above silence (127 - level).
const SPEAKING_FROM_DB: i32 = 80;

/// Loudness below which a speaker has stopped.
const SPEAKING_TO_DB: i32 = 72;

/// Loudness from which there is something to be heard: a whisper, or a room in which someone is about to speak.
const AUDIBLE_FROM_DB: i32 = 50;

/// What is assumed of a publisher whose packets carry no level: loud enough to be heard, not to displace others.
const UNKNOWN_DB: i32 = 60;

/// Without a packet for this long a publisher fades out: more than the gaps of discontinuous transmission (400 ms).
const FADE_AFTER: Duration = Duration::from_millis(500);

/// A smoothed loudness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Level {
    /// In 1/256 dB above silence.
    loudness_256: i32,
    heard_at: Option<Instant>,
    is_speaking: bool,
}

impl Level {
    /// Takes the level extension of a packet, or its absence.
    pub fn hear(&mut self, now: Instant, extension: Option<&[u8]>) {
        let loudness = match extension.and_then(|value| value.first()) {
            Some(byte) => 127 - i32::from(byte & 0x7f),
            None => UNKNOWN_DB,
        };
        self.heard_at = Some(now);
        self.move_towards(loudness);
    }

    /// Lets a publisher fade from whom nothing comes.
    pub fn fade(&mut self, now: Instant) {
        if self.heard_at.is_none_or(|at| now.saturating_duration_since(at) >= FADE_AFTER) {
            self.move_towards(0);
        }
    }

    /// Takes what another part of the room has measured.
    pub fn follow(&mut self, loudness_256: i32, is_speaking: bool) {
        (self.loudness_256, self.is_speaking) = (loudness_256, is_speaking);
    }

    /// Takes a packet's loudness that another part of the room has measured.
    pub fn follow_packet(&mut self, loudness_256: i32) {
        self.loudness_256 = loudness_256;
        self.is_speaking = self.db() >= self.speaking_from_db();
    }

    /// Silence at once: the publisher says it is muted.
    pub fn silence(&mut self) {
        *self = Self::default();
    }

    fn move_towards(&mut self, loudness: i32) {
        let difference = loudness * 256 - self.loudness_256;
        self.loudness_256 += if difference > 0 { difference / 3 } else { difference / 40 };
        self.is_speaking = self.db() >= self.speaking_from_db();
    }

    fn speaking_from_db(&self) -> i32 {
        if self.is_speaking { SPEAKING_TO_DB } else { SPEAKING_FROM_DB }
    }

    /// Loudness in 1/256 dB above silence.
    pub fn loudness_256(&self) -> i32 {
        self.loudness_256
    }

    /// Loudness in dB above silence, 0 to 127.
    pub fn db(&self) -> i32 {
        self.loudness_256 / 256
    }

    /// Level in -dBov, 0 loudest to 127 silence.
    pub fn dbov(&self) -> u8 {
        (127 - self.db()).clamp(0, 127) as u8
    }

    /// Whether there is anything to be heard: silence need not be protected from loss.
    pub fn is_audible(&self) -> bool {
        self.db() >= AUDIBLE_FROM_DB
    }

    /// Whether this is speech rather than a quiet room.
    pub fn is_speaking(&self) -> bool {
        self.is_speaking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;

    #[test]
    fn a_word_is_noticed_within_a_tenth_of_a_second_and_a_breath_is_not() {
        let now = test_epoch();
        let mut level = Level::default();
        for _ in 0..5 {
            level.hear(now, Some(&[0x80 | 25]));
        }
        assert!(level.is_speaking());
        for _ in 0..10 {
            level.hear(now, Some(&[90])); // 200 ms
        }
        assert!(level.is_speaking());
        for _ in 0..100 {
            level.hear(now, Some(&[90]));
        }
        assert!(!level.is_speaking());
    }

    #[test]
    fn who_sends_nothing_fades() {
        let start = test_epoch();
        let mut level = Level::default();
        (0..20).for_each(|_| level.hear(start, Some(&[20])));
        level.fade(start + Duration::from_millis(400));
        assert!(level.is_speaking());
        (0..60).for_each(|_| level.fade(start + Duration::from_secs(1)));
        assert!(!level.is_speaking());
    }
}
