//! Who is heard: the ranking of microphones by loudness, and who speaks as the room is told.
//!
//! A microphone keeps its place until another is clearly louder, so that slots do not flutter. Nothing here knows
//! slots or packets.

use super::PeerKey;
use asamblea_seam::{PeerId, Speaker};
use std::time::{Duration, Instant};

/// How much louder a microphone must be to take another's place, in dB.
const MARGIN_DB: i32 = 8;

/// Least time between two announcements of who speaks.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(200);

/// Most speakers announced at a time.
pub const SPEAKERS_MAX: usize = 8;

/// A microphone in the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whose.
    pub key: PeerKey,
    /// Whose, as others know them.
    pub id: PeerId,
    /// Loudness in dB above silence.
    pub db: i32,
    /// Whether it is speech.
    pub is_speaking: bool,
}

/// The ranking.
#[derive(Debug, Default)]
pub struct Speakers {
    /// Everyone whose microphone is on; those heard stand before those not heard.
    order: Vec<Candidate>,
    announced: Vec<Speaker>,
    announced_at: Option<Instant>,
}

impl Speakers {
    /// Everyone whose microphone is on, those to be heard first.
    pub fn order(&self) -> &[Candidate] {
        &self.order
    }

    /// Who speaks loudest.
    pub fn loudest(&self) -> Option<PeerKey> {
        let speaking = self.order.iter().filter(|candidate| candidate.is_speaking);
        speaking.max_by_key(|candidate| candidate.db).map(|candidate| candidate.key)
    }

    /// Adds a microphone at the end, if it is not there.
    pub fn add(&mut self, key: PeerKey, id: PeerId) -> bool {
        let is_new = !self.order.iter().any(|candidate| candidate.key == key);
        if is_new {
            self.order.push(Candidate { key, id, db: 0, is_speaking: false });
        }
        is_new
    }

    /// Takes a microphone away.
    pub fn remove(&mut self, key: PeerKey) -> bool {
        let before = self.order.len();
        self.order.retain(|candidate| candidate.key != key);
        self.order.len() != before
    }

    /// Takes everyone's loudness and ranks anew at each boundary: a number of slots that some listener has. A
    /// listener who is heard leaves its own place to the next, hence each boundary counts once more. True if any
    /// boundary was crossed.
    pub fn rank(&mut self, boundaries: &[usize], level: impl Fn(PeerKey) -> (i32, bool)) -> bool {
        for candidate in &mut self.order {
            (candidate.db, candidate.is_speaking) = level(candidate.key);
        }
        let mut has_changed = false;
        for &boundary in boundaries {
            for boundary in [boundary + 1, boundary] {
                has_changed |= self.rank_at(boundary);
            }
        }
        has_changed
    }

    fn rank_at(&mut self, boundary: usize) -> bool {
        let mut has_changed = false;
        while boundary > 0 && boundary < self.order.len() {
            let (inside, outside) = self.order.split_at_mut(boundary);
            let (Some(quietest), Some(loudest)) = (
                inside.iter_mut().min_by_key(|candidate| candidate.db),
                outside.iter_mut().rev().max_by_key(|candidate| candidate.db),
            ) else {
                break;
            };
            if loudest.db <= quietest.db + MARGIN_DB {
                break;
            }
            std::mem::swap(quietest, loudest);
            has_changed = true;
        }
        has_changed
    }

    /// Who speaks now, loudest first, if that differs from what was announced last and enough time has passed. Two
    /// who speak about equally loud keep their order.
    pub fn announce(&mut self, now: Instant) -> Option<Vec<Speaker>> {
        if self.announced_at.is_some_and(|at| now.saturating_duration_since(at) < ANNOUNCE_INTERVAL) {
            return None;
        }
        let mut rank: Vec<Candidate> = Vec::new();
        let is_speaking =
            |id: PeerId| self.order.iter().find(|candidate| candidate.id == id && candidate.is_speaking);
        rank.extend(self.announced.iter().filter_map(|speaker| is_speaking(speaker.peer)));
        for candidate in self.order.iter().filter(|candidate| candidate.is_speaking) {
            if rank.len() < SPEAKERS_MAX && !rank.iter().any(|ranked| ranked.id == candidate.id) {
                rank.push(*candidate);
            }
        }
        for at in 1..rank.len() {
            let mut at = at;
            while at > 0 && rank[at].db > rank[at - 1].db + MARGIN_DB {
                rank.swap(at, at - 1);
                at -= 1;
            }
        }
        if rank.iter().map(|candidate| candidate.id).eq(self.announced.iter().map(|speaker| speaker.peer)) {
            return None;
        }
        self.announced = rank
            .iter()
            .map(|candidate| Speaker {
                peer: candidate.id,
                level_dbov: (127 - candidate.db).clamp(0, 127) as u8,
            })
            .collect();
        self.announced_at = Some(now);
        Some(self.announced.clone())
    }

    /// Who speaks, as it was last announced.
    pub fn announced(&self) -> &[Speaker] {
        &self.announced
    }

    /// Whether there is anything that fading or announcing could change.
    pub fn is_anyone_speaking(&self) -> bool {
        !self.announced.is_empty() || self.order.iter().any(|candidate| candidate.is_speaking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;
    use slotmap::SlotMap;

    fn room_of(people: u64) -> (Speakers, Vec<PeerKey>) {
        let mut keys: SlotMap<PeerKey, ()> = SlotMap::with_key();
        let mut speakers = Speakers::default();
        let keys: Vec<_> = (0..people).map(|_| keys.insert(())).collect();
        for (place, key) in keys.iter().enumerate() {
            speakers.add(*key, PeerId(place as u64));
        }
        (speakers, keys)
    }

    fn ids(speakers: &Speakers) -> Vec<u64> {
        speakers.order.iter().map(|candidate| candidate.id.0).collect()
    }

    #[test]
    fn only_the_clearly_louder_takes_a_place() {
        let (mut speakers, keys) = room_of(4);
        let level = |db: [i32; 4]| {
            let keys = keys.clone();
            move |key| keys.iter().position(|k| *k == key).map_or((0, false), |at| (db[at], db[at] > 75))
        };
        assert!(!speakers.rank(&[2], level([80, 82, 85, 0])));
        assert!(speakers.rank(&[2], level([80, 82, 99, 0])));
        assert_eq!(ids(&speakers)[..2], [2, 1], "the quietest gives way");
        assert!(!speakers.rank(&[2], level([88, 82, 99, 0])));
        assert!(!speakers.rank(&[8], level([99, 0, 0, 99])), "all are heard: nothing to rank");
    }

    #[test]
    fn announcements_are_rare_and_only_of_news() {
        let start = test_epoch();
        let (mut speakers, keys) = room_of(3);
        let only = |place: usize| {
            let key = keys[place];
            move |other| if other == key { (100, true) } else { (20, false) }
        };
        speakers.rank(&[2], only(0));
        assert_eq!(speakers.announce(start).expect("news")[0].peer, PeerId(0));
        speakers.rank(&[2], only(1));
        assert_eq!(speakers.announce(start + ANNOUNCE_INTERVAL / 2), None, "too soon");
        assert_eq!(speakers.announce(start + ANNOUNCE_INTERVAL).expect("news")[0].peer, PeerId(1));
        assert_eq!(speakers.announce(start + ANNOUNCE_INTERVAL * 3), None, "no news");
        speakers.rank(&[2], |_| (0, false));
        assert_eq!(speakers.announce(start + ANNOUNCE_INTERVAL * 3), Some(vec![]));
    }
}
