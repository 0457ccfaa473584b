//! Sharing a subscriber's line out, and what follows from it: which pictures are held back, how good everyone's line is.
//! What follows for publishers is in [`super::wanted`].
//!
//! Done at ticks, not for packets. Who gets how much is [`allocate`]'s decision; here it is asked with what the room
//! knows and its answer is put in force.

use super::{PeerKey, Room};
use crate::{
    bwe::allocate::{Grant, PICTURES_MAX, Picture, Price, allocate, offers},
    bwe::{TIGHT, probe::ENOUGH},
    down::Subscriber,
    rtp::Clock,
    up::{LAYERS_MAX, SlotRef, UpStream},
};
use arrayvec::ArrayVec;
use asamblea_seam::{Event, Line, PeerLine, Up, UpKind};
use std::time::{Duration, Instant};

/// A line may carry this part of what others' lines do and still share a layer with them that was made to fit: by more than
/// a tenth goes no estimate down at a time, and it comes back.
const FALLS_BEHIND: f64 = 0.85;

/// Part of the budget that is left to repair and reports.
const SHARED: f64 = 0.95;

/// Beyond what is wished, this much is probed for, so that the margins of an upgrade are there, and that a line which has
/// room is not taken for nearly full: frames would leave in slices.
const PROBE_MARGIN: f64 = 1.6;
const _: () = assert!(PROBE_MARGIN / ENOUGH * TIGHT > 1.0, "frames leave whole where there is room");

/// What a voice takes on the line, headers included, bit/s.
const VOICE_BPS: f64 = 60_000.0;

/// A line below the first rate carries one voice well, below the second two; bit/s.
const VOICES_BPS: [f64; 2] = [130_000.0, 200_000.0];

/// It takes a fifth more to get a voice back than to keep it.
const VOICE_BACK: f64 = 1.2;

/// For so long after a queue nothing is repeated.
const UNREPEATED_FOR: Duration = Duration::from_millis(500);

/// A layer gives way to less by its being asked for less down to this part of what it takes: beyond that a line is gone
/// before any encoder has followed.
const YIELDS: f64 = 0.6;

/// Loss from which a line is weak, in 1/256: 5 %.
const WEAK_LOSS: u8 = 13;

/// How long a line has to be worse or better before it is said.
const WEAK_AFTER: Duration = Duration::from_secs(2);
/// See [`WEAK_AFTER`].
const GOOD_AFTER: Duration = Duration::from_secs(3);

/// Nothing heard for this long from someone who has to answer.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// A rate that grows by this much beyond all before it shows a line that has not been found out yet.
const GROWTH: f64 = 1.05;

/// A rate below this part of its highest has been found too high: the line is as narrow as it seems.
const FALLEN: f64 = 0.85;

/// How long a line is given to show more after it last did: a burst that fails is repeated after 1 s, and again 2 s later.
const FOUND_OUT_AFTER: Duration = Duration::from_secs(4);

/// What is known of how good a peer's line is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judgement {
    told: Line,
    /// What it has been since when, if that is not what was told.
    other: Option<(Line, Instant)>,
    /// Whether some picture is held back or smaller than wished for its line's sake.
    pub(super) is_short: bool,
    /// The highest rate the line was believed to carry, bit/s, when it became so, and the rate now.
    most_bps: f64,
    grown_at: Option<Instant>,
    bps: f64,
    /// Loss on the way to us at the last reports, smoothed, in 1/256.
    pub(super) up_loss: u8,
    /// When anything last came from the peer.
    pub(super) heard_at: Option<Instant>,
}

impl Judgement {
    /// Takes what the line is believed to carry now.
    fn note_rate(&mut self, now: Instant, bps: f64) {
        self.bps = bps;
        if bps >= self.most_bps * GROWTH {
            (self.most_bps, self.grown_at) = (bps, Some(now));
        }
    }

    /// Whether what the line does not carry is the line's fault. At first it is only not known yet: every line is
    /// believed narrow until it has shown more, the finest one included.
    pub(super) fn is_found_out(&self, now: Instant) -> bool {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= FOUND_OUT_AFTER;
        self.bps < self.most_bps * FALLEN || self.grown_at.is_none_or(is_over)
    }

    /// Whether the line is good, and nothing says otherwise.
    fn is_good(&self) -> bool {
        self.told == Line::Good && self.other.is_none() && self.up_loss < WEAK_LOSS
    }

    /// Takes what the line seems to be now. True if it has become news.
    fn judge(&mut self, now: Instant, seems: Line) -> bool {
        if seems == self.told {
            self.other = None;
            return false;
        }
        let since = match self.other {
            Some((line, since)) if line == seems => since,
            _ => {
                self.other = Some((seems, now));
                now
            }
        };
        let after = match seems {
            Line::Lost => Duration::ZERO, // the silence was waited for already
            Line::Weak => WEAK_AFTER,
            Line::Good => GOOD_AFTER,
        };
        let is_news = now.saturating_duration_since(since) >= after;
        if is_news {
            (self.told, self.other) = (seems, None);
        }
        is_news
    }
}

/// The pictures of one peer, at most [`PICTURES_MAX`]: filled anew for each, kept so that nothing is allocated or copied.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The slots' places.
    places: Vec<u16>,
    /// What a good line would be granted.
    due: Vec<Grant>,
    /// What there is to decide.
    pictures: Vec<Picture>,
}

impl Shown {
    fn clear(&mut self) {
        self.places.clear();
        self.due.clear();
        self.pictures.clear();
    }
}

impl Room {
    /// Puts in force what a peer's line carries now.
    pub(super) fn share_line(&mut self, now: Instant, key: PeerKey, speaker: Option<PeerKey>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let round_trip = peer.duties.round_trip;
        let Some(line) = peer.subscriber.line.as_mut().filter(|_| peer.is_connected) else {
            return peer.begin_ease(now, &[]);
        };
        if let Some(round_trip) = round_trip {
            line.set_round_trip(round_trip);
        }
        line.handle_tick(now);
        let Some(bps) = line.bps() else { return peer.begin_ease(now, &[]) };
        let mut sound = line.sound_bps(now);
        if !peer.subscriber.redundancy.is_needed() {
            sound -= line.repeats_bps(now).min(sound);
        }
        peer.line.note_rate(now, bps);
        let mut shown = std::mem::take(&mut self.shown);
        self.show(now, key, speaker, &mut shown);
        self.grant(now, key, bps, sound, &shown);
        self.shown = shown;
    }

    /// Decides on pictures and puts it in force.
    fn grant(&mut self, now: Instant, key: PeerKey, bps: f64, sound: f64, shown: &Shown) {
        let Shown { places, due, pictures } = shown;
        let Some(peer) = self.peers.get_mut(key) else { return };
        let is_nothing_shown = pictures.iter().all(|picture| picture.before == Grant::Paused);
        let may_raise = peer.hysteresis.may_raise(now, is_nothing_shown);
        let budget_bps = (bps - sound).max(0.0) * SHARED;
        let allocation = allocate(budget_bps, pictures, may_raise);
        // What a line that is not found out could give is no reason to ask anyone for less.
        let may_ask = may_raise && peer.line.is_found_out(now);
        let offers = offers(budget_bps, pictures, &allocation.grants, may_ask);
        peer.line.is_short = due.iter().zip(&allocation.grants).any(|(due, grant)| grant < due);
        // What is probed for at any time is the next step and not the whole dream.
        let pictures_bps = allocation.wished_bps.min(allocation.granted_bps * 2.0 + 400_000.0);
        // Whoever shows no pictures still wants the voice back that the line did not carry.
        let next_voice_bps =
            VOICES_BPS.get(peer.voices_max.wrapping_sub(1)).map_or(0.0, |least| least * VOICE_BACK);
        let wanted = (sound + pictures_bps * PROBE_MARGIN).max(next_voice_bps * PROBE_MARGIN);
        if let Some(line) = &mut peer.subscriber.line
            && let Some(bytes) = line.begin_probe(now, wanted)
        {
            peer.subscriber.padding_bytes = bytes;
            self.mark_dirty(key);
        }
        self.sound_line(now, key);
        self.limit_voices(now, key, bps);
        self.limit_repeats(now, key, bps, allocation.granted_bps);
        let mut changed = ArrayVec::<u16, PICTURES_MAX>::new();
        if let Some(peer) = self.peers.get_mut(key) {
            let (mut is_more, mut is_less) = (false, false);
            peer.subscriber.slots.iter_mut().for_each(|slot| slot.offer = None);
            let granted = allocation.grants.iter().zip(&offers);
            for ((place, picture), (grant, offer)) in places.iter().zip(pictures).zip(granted) {
                let slot = &mut peer.subscriber.slots[usize::from(*place)];
                slot.offer = *offer;
                if std::mem::replace(&mut slot.grant, *grant) != *grant {
                    changed.push(*place);
                    // Less because less is wished for is no matter of the line.
                    let before = picture.before.min(Grant::Layer(picture.wish));
                    is_more |= *grant > before;
                    is_less |= *grant < before;
                }
            }
            if !changed.is_empty() {
                peer.hysteresis.change(now, is_more, is_less);
            }
        }
        let is_whole = |(place, picture): (usize, &Picture)| {
            allocation.grants[place] >= Grant::Layer(picture.wish)
                && offers[place].is_none_or(|offer| offer.bps.is_infinite())
        };
        let is_enough = wanted <= bps * ENOUGH && pictures.iter().enumerate().all(is_whole);
        if changed.is_empty()
            && is_enough
            && let Some(peer) = self.peers.get_mut(key)
        {
            peer.begin_ease(now, pictures);
        }
        for slot in changed {
            self.retarget(now, SlotRef { peer: key, slot });
        }
    }

    /// Finds the pictures that a peer wishes to see and that could be sent.
    fn show(&self, now: Instant, key: PeerKey, speaker: Option<PeerKey>, shown: &mut Shown) {
        shown.clear();
        let Some(peer) = self.peers.get(key) else { return };
        for (place, slot) in peer.subscriber.slots.iter().enumerate() {
            let Some((up, height_px)) = slot.wish.filter(|_| slot.is_open && !slot.is_audio) else {
                continue;
            };
            let Some(source) = self.by_id.get(&up.peer) else { continue };
            let stream = self.peers.get(*source).and_then(|peer| peer.publisher.up(up.kind));
            let Some(stream) = stream.filter(|stream| stream.is_active) else { continue };
            let layers = prices(now, stream, Some(SlotRef { peer: key, slot: place as u16 }));
            let Some(wish) = stream.ideal_layer(height_px, |layer| layers[layer].is_some()) else { continue };
            // What the publisher does not give is no fault of this line.
            let due = stream.ideal_layer(height_px, |layer| !stream.is_missing(layer)).unwrap_or(wish);
            let rank = match up.kind {
                UpKind::Screen => 0,
                _ if speaker == Some(*source) => 1,
                _ => u16::MAX - height_px.min(u16::MAX - 2),
            };
            if shown.pictures.len() == PICTURES_MAX {
                break;
            }
            shown.places.push(place as u16);
            shown.due.push(Grant::Layer(due.min(wish)));
            shown.pictures.push(Picture { layers, wish, before: slot.grant, rank });
        }
    }

    /// Under a tight budget fewer voices are sent: two that speak at once are not understood anyway, one that stutters
    /// is not either.
    fn limit_voices(&mut self, now: Instant, key: PeerKey, bps: f64) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let before = peer.voices_max;
        let fits = |voices: usize| {
            VOICES_BPS
                .get(voices - 1)
                .is_none_or(|least| bps >= if before > voices { *least } else { least * VOICE_BACK })
        };
        let voices = if !fits(1) {
            1
        } else if !fits(2) {
            2
        } else {
            usize::MAX
        };
        if voices != before {
            peer.voices_max = voices;
            self.boundaries = None;
            self.assign_audio(now);
        }
    }

    /// Has a packet sent that feedback can speak of, where the line's state decides what is sent and nothing else would
    /// tell of it.
    fn sound_line(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Subscriber { line, redundancy, .. } = &mut peer.subscriber;
        let depends = peer.line.is_short || redundancy.repeats() > 0 || peer.voices_max < usize::MAX;
        if depends && line.as_ref().is_some_and(|line| line.is_sounding_due(now)) {
            peer.subscriber.is_sounding = true;
            self.mark_dirty(key);
        }
    }

    /// What each voice needs once is not spent on sending others twice, nor what pictures are granted unless the line
    /// loses much; and behind a queue nothing is sent twice.
    fn limit_repeats(&mut self, now: Instant, key: PeerKey, bps: f64, granted_bps: f64) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let line = peer.subscriber.line.as_ref();
        if line.is_some_and(|line| line.is_crowded(now, UNREPEATED_FOR)) {
            peer.subscriber.redundancy.set_allowance_bps(Some(0));
            return;
        }
        let voices =
            peer.subscriber.slots.iter().filter(|slot| slot.is_audio && slot.current.is_some()).count();
        let pictures = if peer.subscriber.redundancy.is_needed() { 0.0 } else { granted_bps };
        let left = bps - voices as f64 * VOICE_BPS - pictures;
        peer.subscriber.redundancy.set_allowance_bps(Some(left.max(0.0) as u64));
    }

    /// Says whose line has become better or worse.
    pub(super) fn announce_lines(&mut self, now: Instant) {
        let mut lines = Vec::new();
        for peer in self.peers.values_mut().filter(|peer| peer.is_connected) {
            let is_silent = |at: Instant| now.saturating_duration_since(at) >= LOST_AFTER;
            if peer.ease.is_on(now) && peer.line.is_good() && !peer.line.heard_at.is_some_and(is_silent) {
                continue;
            }
            // Who sends nothing and is sent nothing that wants an answer may well be silent.
            let has_to_answer = peer.publisher.ups().any(|up| up.is_active)
                || peer.subscriber.line.as_ref().is_some_and(|line| line.is_unanswered(now, LOST_AFTER));
            // What sound is repeated for is remembered longer than is honest: feedback tells of now.
            let told = peer.subscriber.line.as_ref().filter(|line| {
                line.answered_at().is_some_and(|at| now.saturating_duration_since(at) < LOST_AFTER)
            });
            let down_loss = told.map_or_else(
                || peer.subscriber.redundancy.loss(),
                |line| (line.loss() * 256.0).min(255.0) as u8,
            );
            let is_narrow = peer.line.is_short && peer.line.is_found_out(now);
            let seems = if has_to_answer && peer.line.heard_at.is_some_and(is_silent) {
                Line::Lost
            } else if is_narrow || peer.line.up_loss >= WEAK_LOSS || down_loss >= WEAK_LOSS {
                Line::Weak
            } else {
                Line::Good
            };
            if peer.line.judge(now, seems) {
                lines.push(PeerLine { peer: peer.id, line: seems });
            }
        }
        if !lines.is_empty() {
            lines.sort_unstable_by_key(|line| line.peer);
            self.notes.push_back(Event::Lines { room: self.id, lines });
        }
    }

    /// Tells a slot's peer that a picture is held back.
    pub(super) fn announce_paused(&mut self, at: SlotRef, up: Up) {
        if self.slot_mut(at).is_some_and(|slot| slot.announce(Some(up), true)) {
            self.mark_changed(at.peer);
        }
    }
}

/// What each layer costs: as measured where it flows, as last measured or as usual where it might; `None` where it was
/// waited for in vain. For a slot it is also known what a layer can be brought down to by asking its publisher for less:
/// that is of no use where it is not obeyed, and others keep what their lines carry.
pub(super) fn prices(now: Instant, up: &UpStream, by: Option<SlotRef>) -> [Option<Price>; LAYERS_MAX] {
    debug_assert_eq!(up.clock(), Clock::Video, "pictures only");
    let mut prices = [None; LAYERS_MAX];
    let mut least: f64 = 0.0;
    for (place, known) in prices.iter_mut().enumerate().take(up.layers.len()) {
        if up.may_come(now, place) {
            let price = up.price(now, place);
            // A taller layer is never taken for cheaper: what is measured in a still moment says little.
            least = least.max(price.bps);
            let yields_to_bps = match by {
                Some(by) if up.is_trusted(now, place) => {
                    let others_bps = up.layers[place].demand.of_others_bps(by).unwrap_or(0.0);
                    price.least_bps.max(least * YIELDS).max(others_bps * FALLS_BEHIND)
                }
                _ => f64::INFINITY,
            };
            *known = Some(Price { bps: least, full_bps: price.full_bps.max(least), yields_to_bps, ..price });
        }
    }
    prices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_called_weak_after_a_while_and_good_after_a_longer_one() {
        let start = crate::up::test_epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut judgement = Judgement::default();
        let told: Vec<u64> = (0..100)
            .map(|tick| tick * 100)
            .filter(|ms| judgement.judge(at(*ms), if *ms < 4_000 { Line::Weak } else { Line::Good }))
            .collect();
        assert_eq!(told, [2_000, 7_000]);
        assert!(judgement.judge(at(10_000), Line::Lost), "at once");
    }

    #[test]
    fn a_line_is_narrow_once_it_shows_no_more_or_less_than_it_did() {
        let start = crate::up::test_epoch();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut judgement = Judgement::default();
        for second in 0..20 {
            judgement.note_rate(at(second), 900e3 + second as f64 * 100e3);
            assert!(!judgement.is_found_out(at(second)), "it still grows");
        }
        // A twentieth beyond all before was last seen at 2.7 Mbit/s, in second 18.
        judgement.note_rate(at(21), 2_810e3);
        assert!(!judgement.is_found_out(at(21)));
        assert!(judgement.is_found_out(at(22)), "it stays");
        judgement.note_rate(at(24), 3_500e3);
        assert!(!judgement.is_found_out(at(24)));
        judgement.note_rate(at(25), 2_500e3);
        assert!(judgement.is_found_out(at(25)), "it fell");
        judgement.note_rate(at(26), 3_400e3);
        judgement.note_rate(at(28), 3_450e3);
        assert!(judgement.is_found_out(at(28)), "what it showed before is no growth");
    }

    #[test]
    fn what_comes_and_goes_is_not_told() {
        let start = crate::up::test_epoch();
        let mut judgement = Judgement::default();
        let seems = |tick: u64| if tick.is_multiple_of(10) { Line::Good } else { Line::Weak };
        let is_told =
            (0..500).any(|tick| judgement.judge(start + Duration::from_millis(tick * 100), seems(tick)));
        assert!(!is_told);
    }
}
