//! Who needs no looking after at each tick: one who is sent little over a line with room to spare.
//!
//! A tick decides how a line is shared, though nothing changes for hours at most of them. Whoever is sent everything that is
//! wished for, and little, over a line of which nothing moves, is passed by for some ticks. Whatever might change that
//! ends it at once: it is never found out late that a line has become narrow. One who is sent much is looked at each time,
//! which costs little beside what is sent.

use super::{Peer, PeerKey, Room};
use crate::{
    bwe::{Downlink, allocate::Picture},
    down::Subscriber,
    up::LayerRef,
};
use arrayvec::ArrayVec;
use std::time::{Duration, Instant};

/// How long someone is passed by: nine ticks of ten.
const EASE: Duration = Duration::from_millis(950);

/// Packets are counted over this time ...
const COUNTED_FOR: Duration = Duration::from_millis(800);

/// ... and this many are little: two frames of a picture that seldom moves, and less than any voice.
const LITTLE: u64 = 16;

/// A line that is believed to carry less than this, bit/s, is looked at each time: there every moment counts.
const WIDE_BPS: f64 = 600_000.0;

/// Who has asked for packets again is heard at once for this long.
const UNASKED_FOR: Duration = Duration::from_secs(10);

/// Most pictures that someone is sent who is sent little.
const PICTURES: usize = 4;

/// Until when one is passed by, and what has to be known meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Ease {
    until: Option<Instant>,
    /// Packets sent since when.
    sent: u64,
    since: Option<Instant>,
    /// Whether they were little the last time.
    is_little: bool,
    /// What its slots carry, all that they wish for.
    carried: ArrayVec<(u16, LayerRef), PICTURES>,
}

impl Ease {
    /// Whether its line needs no looking after now.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Has the next tick look again.
    pub(super) fn end(&mut self) {
        self.until = None;
    }

    /// Notes packets that were sent; many end it.
    pub(super) fn note_sent(&mut self, packets: u64) {
        self.sent += packets;
        if self.sent > LITTLE {
            self.is_little = false;
            self.end();
        }
    }

    /// Whether little has been sent for a while.
    fn is_little(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= COUNTED_FOR {
            self.is_little = self.sent <= LITTLE;
            (self.sent, self.since) = (0, Some(now));
        }
        self.is_little
    }

    /// What its slots carry while it is on.
    pub(super) fn carried(&self) -> &[(u16, LayerRef)] {
        &self.carried
    }
}

/// Whether a line that is believed to carry so much has room to spare.
fn is_wide(bps: f64) -> bool {
    bps >= WIDE_BPS
}

impl Peer {
    /// Begins to pass it by if everything is in its place: its slots carry these pictures, as they wish, and its line moves
    /// in nothing. The caller has found that the line has room for all of it.
    pub(super) fn begin_ease(&mut self, now: Instant, pictures: &[Picture]) {
        let Self { ease, subscriber, .. } = self;
        let is_little = ease.is_little(now);
        ease.end();
        ease.carried.clear();
        let is_calm =
            subscriber.line.as_ref().is_none_or(|line| line.bps().is_none_or(is_wide) && line.is_calm(now));
        let is_whole = self.voices_max == usize::MAX
            && !self.line.is_short
            && subscriber.redundancy.repeats() == 0
            && subscriber.queue.is_empty()
            && subscriber.padding_bytes == 0;
        if !is_little || !is_calm || !is_whole || pictures.len() > PICTURES {
            return;
        }
        let mut pictures = pictures.iter();
        let is_video = |slot: &&crate::down::slot::Slot| slot.is_open && !slot.is_audio;
        for (place, slot) in subscriber.slots.iter().enumerate() {
            if !is_video(&slot) || (slot.wish.is_none() && slot.current.is_none() && slot.target.is_none()) {
                continue;
            }
            let (Some(picture), Some(current), None) = (pictures.next(), slot.current, slot.target) else {
                return;
            };
            let is_wished = slot.wish.is_some_and(|(up, _)| up.kind == current.kind);
            if !is_wished
                || current.layer != picture.wish
                || ease.carried.try_push((place as u16, current)).is_err()
            {
                return;
            }
        }
        ease.until = Some(now + EASE);
    }
}

impl Room {
    /// Whether what a peer says next may be heard some tens of milliseconds late: it sends nothing, asked for nothing again
    /// lately, and its line is wide and moves in nothing.
    pub fn may_wait(&self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get(key).filter(|peer| peer.publisher.is_at_rest()) else { return false };
        let Subscriber { line, budget, .. } = &peer.subscriber;
        let is_calm = |line: &Downlink| line.bps().is_some_and(is_wide) && line.is_calm(now);
        line.as_deref().is_some_and(is_calm) && budget.is_untouched(now, UNASKED_FOR)
    }

    /// How many of its people a tick would pass by now: their lines, and what they send.
    pub fn passed_by(&self, now: Instant) -> (usize, usize) {
        let peers = || self.peers.values();
        let lines = peers().filter(|peer| peer.ease.is_on(now)).count();
        (lines, peers().filter(|peer| peer.publisher.is_at_rest()).count())
    }

    /// Has the next tick look at a peer's line again.
    pub(super) fn end_ease(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.ease.end();
        }
    }

    pub(super) fn carried_with_ease(&self, key: PeerKey, place: usize) -> Option<(u16, LayerRef)> {
        self.peers.get(key)?.ease.carried().get(place).copied()
    }
}
