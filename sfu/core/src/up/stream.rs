//! One thing that a publisher sends: its layers, what each costs, which of them are wanted and may be had.

use super::{LAYERS_MAX, layer::Layer, level::Level, reception::Repair};
use crate::{
    bwe::allocate::Price,
    negotiate::{Rid, UpDescription},
    relay::LayerFacts,
    rtp::Clock,
};
use asamblea_seam::{Mid, UpKind};
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// A layer that was wanted for this long and does not come is missing: its publisher's browser, line or processor does
/// not give it. Firefox takes up to four seconds on a busy machine.
pub const MISSED_AFTER: Duration = Duration::from_secs(5);

/// For so long a missing layer is not asked for again.
pub const MISSED_FOR: Duration = Duration::from_secs(15);

/// Height assumed for an up whose publisher did not say: what cameras commonly give.
const HEIGHT_PX_UNKNOWN: u16 = 720;

/// One thing a publisher sends.
#[derive(Debug)]
pub struct UpStream {
    /// What.
    pub kind: UpKind,
    pub(super) mid: Mid,
    pub(super) payload_type: u8,
    pub(super) rtx_payload_type: Option<u8>,
    pub(super) red_payload_type: Option<u8>,
    pub(super) rids: SmallVec<[Rid; 3]>,
    /// Its layers, smallest first; at least one.
    pub layers: SmallVec<[Layer; 1]>,
    /// Whether the publisher says that it sends.
    pub is_active: bool,
    pub(super) height_px: u16,
    /// How loud it is, if it is audio.
    pub level: Level,
    /// Which layers somebody receives or waits for now, as far as the running tick has found out.
    pub wanted_now: [bool; LAYERS_MAX],
    /// The same as it was told to the publisher.
    pub wanted: [bool; LAYERS_MAX],
    /// Since when each is wanted, and since when it has not been.
    pub wanted_since: [Option<Instant>; LAYERS_MAX],
    unwanted_since: [Option<Instant>; LAYERS_MAX],
    /// When each was last waited for in vain; `None` once it comes.
    pub(super) missed_at: [Option<Instant>; LAYERS_MAX],
    pub(super) is_wanted_told: bool,
    /// Differs from one description of its layers to the next.
    pub generation: u32,
    /// What another part of the room tells of each layer, where its publisher lives there.
    pub(super) told: Option<Box<[Option<LayerFacts>; LAYERS_MAX]>>,
}

/// Usual rates of a camera's layers by how many there are above each, and of a screen, bit/s.
const CAMERA_BPS: [f64; LAYERS_MAX] = [1_000_000.0, 350_000.0, 120_000.0];
const SCREEN_BPS: f64 = 500_000.0;

/// The least of their smallest layers that shows anything, headers included, bit/s: few pictures a second, few details.
const CAMERA_BPS_LEAST: f64 = 70_000.0;
const SCREEN_BPS_LEAST: f64 = 150_000.0;

/// A layer of four times the pixels takes no more than this much of the one below: a picture that is still in small is
/// still in large.
const STEP: f64 = 4.0;

impl UpStream {
    pub(super) fn new(description: &UpDescription) -> Self {
        let layers = description.rids.len().clamp(1, LAYERS_MAX);
        Self {
            payload_type: description.payload_type,
            rtx_payload_type: description.rtx_payload_type,
            red_payload_type: description.red_payload_type,
            rids: description.rids.iter().take(LAYERS_MAX).cloned().collect(),
            ..Self::of(description.kind, description.mid.clone(), layers)
        }
    }

    pub(super) fn of(kind: UpKind, mid: Mid, layers: usize) -> Self {
        Self {
            kind,
            mid,
            payload_type: 0,
            rtx_payload_type: None,
            red_payload_type: None,
            rids: SmallVec::new(),
            layers: (0..layers).map(|_| Layer::default()).collect(),
            is_active: false,
            height_px: 0,
            level: Level::default(),
            wanted_now: [false; LAYERS_MAX],
            wanted: [false; LAYERS_MAX],
            wanted_since: [None; LAYERS_MAX],
            unwanted_since: [None; LAYERS_MAX],
            missed_at: [None; LAYERS_MAX],
            is_wanted_told: false,
            generation: 0,
            told: None,
        }
    }

    /// What another part of the room tells of a layer; `None` if the publisher lives here.
    pub fn told(&self, layer: usize) -> Option<&LayerFacts> {
        self.told.as_ref()?.get(layer)?.as_ref()
    }

    /// Whether its publisher is asked for less of a layer than that takes.
    pub fn is_capped(&self, layer: usize) -> bool {
        self.told(layer).map_or_else(|| self.layers[layer].cap.told_bps().is_some(), |told| told.is_capped)
    }

    /// The height of its tallest layer in pixels; 0 if unknown.
    pub fn height_px(&self) -> u16 {
        self.height_px
    }

    /// What a layer takes, bit/s: as measured, or as usual before it was.
    pub fn rate_bps(&self, layer: usize) -> f64 {
        let measured = |layer: usize| self.layers.get(layer).map_or(0.0, |layer| layer.bps);
        if measured(layer) > 0.0 {
            return measured(layer);
        }
        let usual = self.usual_bps(layer);
        let below = layer.checked_sub(1).map_or(0.0, measured);
        if below > 0.0 { usual.min(below * STEP) } else { usual }
    }

    fn usual_bps(&self, layer: usize) -> f64 {
        match self.kind {
            UpKind::Screen => SCREEN_BPS,
            _ => CAMERA_BPS[(self.layers.len() - 1).saturating_sub(layer).min(LAYERS_MAX - 1)],
        }
    }

    /// What a layer costs a line that is to carry it, bit/s.
    pub fn price(&self, now: Instant, layer: usize) -> Price {
        if let Some(told) = self.told(layer) {
            return told.price;
        }
        let rate_bps = self.rate_bps(layer);
        let full_bps = |layer: usize| match self.layers[layer].cap.full_bps() {
            0.0 => self.rate_bps(layer).max(self.usual_bps(layer)),
            known => known,
        };
        let smallest_bps = match self.kind {
            UpKind::Screen => SCREEN_BPS_LEAST,
            _ => CAMERA_BPS_LEAST,
        };
        let least_bps = layer.checked_sub(1).map_or(smallest_bps, |below| {
            // With less than the one below takes it looks worse. A still picture takes little, and has to do when it moves.
            full_bps(below).max(self.usual_bps(below))
        });
        let Layer { cap, is_live, .. } = &self.layers[layer];
        Price {
            bps: cap.price_bps(now, rate_bps, *is_live, self.is_obedient(now, layer)),
            full_bps: full_bps(layer),
            least_bps,
            yields_to_bps: f64::INFINITY,
        }
    }

    /// Whether the publisher would keep to a cap of this layer: it did, or nothing was seen of that and it did with another.
    pub fn is_obedient(&self, now: Instant, layer: usize) -> bool {
        let is_obeyed = |layer: &Layer| layer.cap.is_obeyed(now);
        is_obeyed(&self.layers[layer])
            .unwrap_or_else(|| self.layers.iter().any(|layer| is_obeyed(layer) == Some(true)))
    }

    /// Whether a layer that is had already is to be asked for less rather than given up.
    pub fn is_trusted(&self, now: Instant, layer: usize) -> bool {
        if let Some(told) = self.told(layer) {
            return told.is_trusted;
        }
        self.is_obedient(now, layer) || self.layers.iter().all(|layer| layer.cap.is_trusted(now))
    }

    /// What the publisher is asked to send of each layer at most, bit/s of the encoder's output; 0 where nothing is asked.
    pub fn bps_max(&self) -> impl Iterator<Item = u32> + '_ {
        self.layers.iter().map(|layer| layer.cap.told_bps().map_or(0, |bps| bps as u32))
    }

    /// Asks of each layer what those who watch it can carry. True if that is to be told.
    pub fn settle_caps(&mut self, now: Instant) -> bool {
        let mut is_news = false;
        for place in 0..self.layers.len() {
            let full_bps = self.price(now, place).full_bps;
            let layer = &mut self.layers[place];
            is_news |= if self.wanted[place] {
                layer.cap.ask(now, layer.demand.most_bps(), full_bps)
            } else {
                layer.cap.lift(now)
            };
        }
        is_news
    }

    /// Has what is wanted told again: a new transport begins with every layer on.
    pub fn retell_wanted(&mut self) {
        self.is_wanted_told = false;
        self.wanted_since = [None; LAYERS_MAX];
        self.missed_at = [None; LAYERS_MAX];
    }

    /// Whether a layer did not come when it was last waited for: its publisher's browser, line or processor does not
    /// give it.
    pub fn is_missing(&self, layer: usize) -> bool {
        let is_missed =
            self.told(layer).map_or_else(|| self.missed_at[layer].is_some(), |told| told.is_missing);
        !self.layers[layer].is_live && is_missed
    }

    /// Whether it makes sense to ask for a layer: it comes, or it was not waited for in vain a short time ago.
    pub fn may_come(&self, now: Instant, layer: usize) -> bool {
        if let Some(told) = self.told(layer) {
            return told.may_come;
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) < MISSED_FOR;
        self.layers[layer].is_live || !self.missed_at[layer].is_some_and(is_recent)
    }

    /// Takes over what is wanted now: at once what has become wanted, after a while what has not been. True if that is
    /// to be told.
    pub fn settle_wanted(&mut self, now: Instant, unwanted_after: Duration) -> bool {
        let mut is_news = !std::mem::replace(&mut self.is_wanted_told, true);
        for place in 0..self.layers.len() {
            if self.layers[place].is_live {
                self.missed_at[place] = None;
            }
            if self.wanted_now[place] {
                let since = *self.wanted_since[place].get_or_insert(now);
                if !self.layers[place].is_live && now.saturating_duration_since(since) >= MISSED_AFTER {
                    self.missed_at[place] = Some(now);
                    self.wanted_since[place] = None;
                }
                self.unwanted_since[place] = None;
                is_news |= !std::mem::replace(&mut self.wanted[place], true);
                continue;
            }
            self.wanted_since[place] = None;
            let since = *self.unwanted_since[place].get_or_insert(now);
            if now.saturating_duration_since(since) >= unwanted_after {
                is_news |= std::mem::replace(&mut self.wanted[place], false);
            }
        }
        is_news
    }

    /// The smallest layer at least this tall among those that `may_be` sent, else the tallest of them.
    pub fn ideal_layer(&self, height_px: u16, may_be: impl Fn(usize) -> bool) -> Option<u8> {
        let tallest = if self.height_px == 0 { HEIGHT_PX_UNKNOWN } else { self.height_px };
        let mut chosen = None;
        for place in (0..self.layers.len()).filter(|place| may_be(*place)) {
            chosen = Some(place as u8);
            if tallest >> (self.layers.len() - 1 - place) >= height_px {
                break;
            }
        }
        chosen
    }

    /// How lost packets come when asked for. Sound comes again as it was, without a stream of its own; who does not
    /// keep it does not answer.
    pub fn repair(&self) -> Repair {
        match self.rtx_payload_type {
            Some(_) => Repair::Apart,
            None if self.kind.is_audio() => Repair::InPlace,
            None => Repair::None,
        }
    }

    /// The payload type of its codec.
    pub fn payload_type(&self) -> u8 {
        self.payload_type
    }

    /// The clock of its timestamps.
    pub fn clock(&self) -> Clock {
        if self.kind.is_audio() { Clock::Audio } else { Clock::Video }
    }

    /// The live layer to send where up to `limit` is allowed: the smallest at least this tall, else the tallest; a
    /// smaller one than wished while that is not live, a taller one only where no smaller is.
    pub fn choose_layer(&self, height_px: u16, limit: u8) -> Option<u8> {
        let is_live = |place: usize| self.layers[place].is_live;
        let best = self.ideal_layer(height_px, is_live)?;
        if best <= limit {
            return Some(best);
        }
        let layers = 0..self.layers.len() as u8;
        let below =
            layers.clone().filter(|layer| *layer <= limit).rev().find(|layer| is_live(usize::from(*layer)));
        below.or_else(|| layers.into_iter().find(|layer| is_live(usize::from(*layer))))
    }

    pub(super) fn layer_of_rid(&self, rid: &[u8]) -> Option<u8> {
        self.rids.iter().position(|known| known.0.as_bytes() == rid).map(|place| place as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_was_never_seen_is_taken_for_no_dearer_than_the_one_below_makes_likely() {
        let rid = |name: &str| Rid(name.into());
        let mut up = UpStream::new(&UpDescription {
            mid: Mid::new("1").expect("a mid"),
            kind: UpKind::Camera,
            payload_type: 96,
            rtx_payload_type: None,
            red_payload_type: None,
            rids: [rid("q"), rid("h"), rid("f")].into_iter().collect(),
            ssrcs: Default::default(),
        });
        let rates = |up: &UpStream| [0, 1, 2].map(|layer| up.rate_bps(layer));
        assert_eq!(rates(&up), [120_000.0, 350_000.0, 1_000_000.0]);
        up.layers[0].bps = 30_000.0;
        assert_eq!(rates(&up), [30_000.0, 120_000.0, 1_000_000.0], "a still picture");
        up.layers[1].bps = 400_000.0;
        assert_eq!(rates(&up), [30_000.0, 400_000.0, 1_000_000.0], "never above the usual");
    }
}
