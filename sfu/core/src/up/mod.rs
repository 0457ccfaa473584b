//! What a publisher sends: its layers, each with reception state, shared packet history and key-frame gate.
//!
//! An SSRC is bound to a layer once and then found in a table of a few entries. Nothing here knows who receives a
//! layer beyond a list of keys, and nothing is stored for an SSRC that was not described or announced by a
//! negotiated header extension.

pub mod cap;
pub mod feedback;
pub mod gate;
pub mod history;
pub mod level;
pub mod reception;

use crate::{
    bwe::{allocate::Price, meter::Meter},
    negotiate::{ExtensionIds, Rid, UpDescription},
    relay::{LayerAsk, LayerFacts, UpFacts},
    room::PeerKey,
    rtp::{Clock, header::Packet, sequence::Sequence},
};
use arrayvec::ArrayVec;
use asamblea_seam::{Mid, UpKind};
use cap::Cap;
use feedback::Feedback;
use gate::Gate;
use history::History;
use level::Level;
use reception::{Reception, Repair};
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// Most SSRCs bound at one time for one publisher: a microphone, three camera layers and a screen, the video ones with
/// retransmissions, are nine; the rest is for a browser that changes them.
pub const SSRCS_MAX: usize = 16;

/// Most layers of one up: what browsers send, and what [`crate::negotiate::UpDescription`] is made for.
pub const LAYERS_MAX: usize = 3;

/// A layer is live while packets came within this time.
pub const LIVE_FOR: Duration = Duration::from_secs(1);

/// A layer that was wanted for this long and does not come is missing: its publisher's browser, line or processor does
/// not give it. Firefox takes up to four seconds on a busy machine.
pub const MISSED_AFTER: Duration = Duration::from_secs(5);

/// For so long a missing layer is not asked for again.
pub const MISSED_FOR: Duration = Duration::from_secs(15);

/// Height assumed for an up whose publisher did not say: what cameras commonly give.
const HEIGHT_PX_UNKNOWN: u16 = 720;

/// Names a layer in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// Who publishes it.
    pub peer: PeerKey,
    /// Of which up.
    pub kind: UpKind,
    /// Which, smallest first.
    pub layer: u8,
}

/// Names a slot in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRef {
    /// Whose.
    pub peer: PeerKey,
    /// Which of the peer's slots.
    pub slot: u16,
}

/// What an SSRC carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which up.
    pub kind: UpKind,
    /// Which of its layers.
    pub layer: u8,
    /// Whether these are retransmissions (RFC 4588).
    pub is_rtx: bool,
    /// Whether this packet has copies of earlier ones beside its payload (RFC 2198); never said of an SSRC.
    pub is_red: bool,
}

/// Why a packet has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// Its SSRC was neither described nor announced, or there are too many.
    UnknownSsrc,
    /// Its payload type is not the one negotiated for its line.
    PayloadType,
}

/// Where a layer can be begun: the first packet of its last key frame.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its number, of this epoch of the reception.
    pub sequence: Sequence,
    /// See `sequence`.
    pub epoch: u32,
    /// Its timestamp.
    pub timestamp: u32,
}

/// One layer of an up.
#[derive(Debug, Default)]
pub struct Layer {
    /// The SSRC it travels under, once known.
    pub ssrc: Option<u32>,
    /// What came.
    pub reception: Reception,
    /// What is kept for those who receive it; empty while nobody does.
    pub history: History,
    /// Where what is kept can be begun.
    pub entry: Option<Entry>,
    /// Asks for key frames.
    pub gate: Gate,
    /// Slots that receive it or wait for its key frame.
    pub subscribers: Vec<SlotRef>,
    /// When a tick last found a subscriber.
    pub left_at: Option<Instant>,
    /// When the last packet came.
    pub heard_at: Option<Instant>,
    /// What comes, in bytes.
    pub meter: Meter,
    /// Its rate, smoothed over ticks, bit/s; 0 before it was known. While it does not come, what it was before it ended.
    pub bps: f64,
    /// The rate when a packet last came.
    heard_bps: f64,
    is_heard: bool,
    /// Whether packets came lately; kept by [`Layer::hear`] and [`Layer::expire`].
    pub is_live: bool,
    /// The most that its publisher is asked to send of it.
    pub cap: Cap,
    /// What those who watch it can carry of it, as far as the running tick has found out.
    pub demand: Demand,
    /// What other parts of the room ask of it.
    pub asked: Vec<Asked>,
}

/// What another part of the room asks of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which part.
    pub shard: u16,
    /// What.
    pub ask: LayerAsk,
    /// The loss that those who listen there suffer after all repair, in 1/256.
    pub suffered: u8,
    /// When it was last said.
    pub at: Instant,
}

/// What those who watch a layer can carry of it, bit/s; infinite for all that it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// The most, and whose that is.
    most: Option<(f64, SlotRef)>,
    /// The most of anyone else.
    next_bps: Option<f64>,
    /// The most of anyone on another part of the room.
    elsewhere_bps: Option<f64>,
}

/// The more of two that may not be there.
pub fn most(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

impl Demand {
    /// Nobody here watches.
    pub fn elsewhere(bps: Option<f64>) -> Self {
        Self { elsewhere_bps: bps, ..Self::default() }
    }

    /// Takes what one on another part can carry.
    pub fn add_elsewhere(&mut self, bps: Option<f64>) {
        self.elsewhere_bps = most(self.elsewhere_bps, bps);
    }

    /// The most that anyone on this part can carry; `None` if nobody here watches.
    pub fn here_bps(&self) -> Option<f64> {
        self.most.map(|(bps, _)| bps)
    }

    /// Takes what one can carry.
    pub fn add(&mut self, bps: f64, by: SlotRef) {
        match self.most {
            Some((most, whose)) if bps > most => {
                if whose != by {
                    self.next_bps = Some(most);
                }
                self.most = Some((bps, by));
            }
            Some((_, whose)) if whose == by => {}
            Some(_) => self.next_bps = Some(self.next_bps.map_or(bps, |next| next.max(bps))),
            None => self.most = Some((bps, by)),
        }
    }

    /// The most that anyone can carry; `None` if nobody watches.
    pub fn most_bps(&self) -> Option<f64> {
        most(self.here_bps(), self.elsewhere_bps)
    }

    /// The most that anyone else can carry.
    pub fn of_others_bps(&self, by: SlotRef) -> Option<f64> {
        let here = self.most.and_then(|(bps, whose)| if whose == by { self.next_bps } else { Some(bps) });
        most(here, self.elsewhere_bps)
    }
}

impl Layer {
    /// Notes the first packet of a key frame that is kept.
    pub fn note_entry(&mut self, sequence: Sequence, timestamp: u32) {
        let epoch = self.reception.epoch();
        // One that was sent again may come behind a later one.
        if self.entry.is_none_or(|known| known.epoch != epoch || known.sequence < sequence) {
            self.entry = Some(Entry { sequence, epoch, timestamp });
        }
    }

    /// Notes a packet. True if the layer has just come to life.
    pub fn hear(&mut self, now: Instant) -> bool {
        self.heard_at = Some(now);
        self.is_heard = true;
        let has_begun = !std::mem::replace(&mut self.is_live, true);
        if has_begun {
            self.cap.begin(now);
        }
        has_begun
    }

    /// True if the layer has just died.
    pub fn expire(&mut self, now: Instant) -> bool {
        let is_silent = self.heard_at.is_none_or(|at| now.saturating_duration_since(at) >= LIVE_FOR);
        let has_died = is_silent && std::mem::replace(&mut self.is_live, false);
        if has_died {
            // The silence before its end says nothing of what it takes when it comes again.
            self.bps = self.heard_bps;
        }
        has_died
    }

    /// Whether packets of it go to anyone, here or on another part.
    pub fn is_taken(&self) -> bool {
        !self.subscribers.is_empty() || self.asked.iter().any(|asked| asked.ask.is_taken)
    }

    /// What a tick does for it where nobody receives it (any more): no key frame is wanted, no memory is needed.
    pub fn rest(&mut self, now: Instant) {
        if !self.is_taken() {
            self.gate.satisfy();
        }
        if !self.subscribers.is_empty() {
            self.left_at = Some(now);
        } else if self.left_at.is_none_or(|at| now.saturating_duration_since(at) >= LIVE_FOR) {
            self.history.release();
        }
    }

    /// Takes what another part asks of it.
    pub fn ask(&mut self, asked: Asked) {
        self.asked.retain(|other| other.shard != asked.shard);
        if asked.ask != LayerAsk::default() {
            self.asked.push(asked);
        }
    }

    /// Takes what came lately, in bit/s, at a tick.
    pub fn measure(&mut self, now: Instant, bps: f64) {
        self.bps += (bps - self.bps) * if self.bps == 0.0 { 1.0 } else { RATE_FOLLOWS };
        if std::mem::take(&mut self.is_heard) {
            self.heard_bps = self.bps;
            self.cap.measure(now, bps, self.bps);
        }
    }
}

/// One thing a publisher sends.
#[derive(Debug)]
pub struct UpStream {
    /// What.
    pub kind: UpKind,
    mid: Mid,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    red_payload_type: Option<u8>,
    rids: SmallVec<[Rid; 3]>,
    /// Its layers, smallest first; at least one.
    pub layers: SmallVec<[Layer; 1]>,
    /// Whether the publisher says that it sends.
    pub is_active: bool,
    height_px: u16,
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
    missed_at: [Option<Instant>; LAYERS_MAX],
    is_wanted_told: bool,
    /// Differs from one description of its layers to the next.
    pub generation: u32,
    /// What another part of the room tells of each layer, where its publisher lives there.
    told: Option<Box<[Option<LayerFacts>; LAYERS_MAX]>>,
}

/// How quickly a layer's rate follows what comes, at each tick: a key frame alone does not make a layer dear.
const RATE_FOLLOWS: f64 = 0.1;

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
    fn new(description: &UpDescription) -> Self {
        let layers = description.rids.len().clamp(1, LAYERS_MAX);
        Self {
            payload_type: description.payload_type,
            rtx_payload_type: description.rtx_payload_type,
            red_payload_type: description.red_payload_type,
            rids: description.rids.iter().take(LAYERS_MAX).cloned().collect(),
            ..Self::of(description.kind, description.mid.clone(), layers)
        }
    }

    fn of(kind: UpKind, mid: Mid, layers: usize) -> Self {
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

    fn layer_of_rid(&self, rid: &[u8]) -> Option<u8> {
        self.rids.iter().position(|known| known.0.as_bytes() == rid).map(|place| place as u8)
    }
}

/// All that one peer sends.
#[derive(Debug, Default)]
pub struct Publisher {
    extensions: ExtensionIds,
    bindings: ArrayVec<(u32, Binding), SSRCS_MAX>,
    ups: [Option<UpStream>; UpKind::ALL.len()],
    said: [Option<(bool, u16)>; UpKind::ALL.len()],
    /// Whether ticks pass it by; see [`Publisher::rest`].
    is_at_rest: bool,
    /// Arrivals for the publisher's bandwidth estimate.
    pub feedback: Feedback,
    /// How often layers were described.
    generations: u32,
}

/// What changed with what another part of the room told of an up.
#[derive(Debug, Default)]
pub struct Retold {
    /// The up whose layers are gone, so that whoever subscribed starts over.
    pub replaced: Option<UpStream>,
    /// Whether watchers have to look again.
    pub has_changed: bool,
}

impl Publisher {
    /// Takes a description. Returns the ups whose layers are gone or new, so that whoever subscribed starts over.
    pub fn describe(&mut self, extensions: ExtensionIds, ups: &[UpDescription]) -> Vec<UpStream> {
        self.stir();
        self.extensions = extensions;
        let mut replaced = Vec::new();
        for kind in UpKind::ALL {
            let place = &mut self.ups[kind as usize];
            let Some(description) = ups.iter().find(|up| up.kind == kind) else {
                replaced.extend(place.take());
                self.bindings.retain(|(_, binding)| binding.kind != kind);
                continue;
            };
            let is_same = |up: &UpStream| {
                up.rids.iter().eq(description.rids.iter().take(LAYERS_MAX)) && up.mid == description.mid
            };
            match place {
                Some(up) if is_same(up) => {
                    up.payload_type = description.payload_type;
                    up.rtx_payload_type = description.rtx_payload_type;
                    up.red_payload_type = description.red_payload_type;
                }
                _ => {
                    let mut up = UpStream::new(description);
                    self.generations += 1;
                    up.generation = self.generations;
                    if let Some((is_active, height_px)) = self.said[kind as usize] {
                        (up.is_active, up.height_px) = (is_active, height_px);
                    }
                    replaced.extend(place.replace(up));
                    self.bindings.retain(|(_, binding)| binding.kind != kind);
                }
            }
            if description.rids.is_empty()
                && let Some((ssrc, rtx_ssrc)) = description.ssrcs.first()
            {
                self.bind(*ssrc, Binding { kind, layer: 0, is_rtx: false, is_red: false });
                if let Some(rtx_ssrc) = rtx_ssrc {
                    self.bind(*rtx_ssrc, Binding { kind, layer: 0, is_rtx: true, is_red: false });
                }
            }
        }
        replaced
    }

    /// Takes what another part of the room tells of an up; `None` if there is none.
    pub fn retell(&mut self, kind: UpKind, facts: Option<&UpFacts>) -> Retold {
        let place = &mut self.ups[kind as usize];
        let Some(facts) = facts.filter(|facts| !facts.layers.is_empty()) else {
            let replaced = place.take();
            return Retold { has_changed: replaced.is_some(), replaced };
        };
        let is_same =
            |up: &&mut UpStream| up.generation == facts.generation && up.layers.len() == facts.layers.len();
        let mut retold = Retold::default();
        if place.as_mut().filter(is_same).is_none() {
            // No line carries it here; the tag is never looked at.
            let mid = Mid::new("0").expect("a digit is a token");
            retold.replaced = place.replace(UpStream::of(kind, mid, facts.layers.len()));
            retold.has_changed = true;
        }
        let Some(up) = place else { return retold };
        up.is_active = true;
        up.generation = facts.generation;
        retold.has_changed |= std::mem::replace(&mut up.height_px, facts.height_px) != facts.height_px;
        up.level.follow(facts.loudness_256, facts.is_speaking);
        let told = up.told.get_or_insert_default();
        for ((layer, told), facts) in up.layers.iter_mut().zip(told.iter_mut()).zip(&facts.layers) {
            retold.has_changed |= std::mem::replace(&mut layer.is_live, facts.is_live) != facts.is_live;
            *told = Some(*facts);
        }
        retold
    }

    /// Takes the publisher's own word on one kind; `None` means not active. True if anything changed.
    pub fn publish(&mut self, kind: UpKind, said: Option<(bool, u16)>) -> bool {
        self.stir();
        let said = said.unwrap_or((false, 0));
        if self.said[kind as usize].replace(said) == Some(said) {
            return false;
        }
        if let Some(up) = &mut self.ups[kind as usize] {
            (up.is_active, up.height_px) = said;
            // Another camera, another chance.
            up.missed_at = [None; LAYERS_MAX];
            up.wanted_since = [None; LAYERS_MAX];
            for layer in &mut up.layers {
                layer.cap.forget();
                layer.entry = None;
            }
            up.is_wanted_told = false;
            if !said.0 {
                up.level.silence();
            }
        }
        true
    }

    /// The up of a kind.
    pub fn up(&self, kind: UpKind) -> Option<&UpStream> {
        self.ups[kind as usize].as_ref()
    }

    /// All ups.
    pub fn ups(&self) -> impl Iterator<Item = &UpStream> {
        self.ups.iter().flatten()
    }

    /// The up of a kind.
    pub fn up_mut(&mut self, kind: UpKind) -> Option<&mut UpStream> {
        self.stir();
        self.ups[kind as usize].as_mut()
    }

    /// All ups.
    pub fn ups_mut(&mut self) -> impl Iterator<Item = &mut UpStream> {
        self.stir();
        self.ups.iter_mut().flatten()
    }

    /// A layer.
    pub fn layer_mut(&mut self, kind: UpKind, layer: u8) -> Option<&mut Layer> {
        self.up_mut(kind)?.layers.get_mut(usize::from(layer))
    }

    /// A layer.
    pub fn layer(&self, kind: UpKind, layer: u8) -> Option<&Layer> {
        self.up(kind)?.layers.get(usize::from(layer))
    }

    /// Lets ticks pass it by until anything is done with it, if none of them would find anything to do: nothing is on,
    /// comes, is waited for or kept, and what it was told holds. Whoever only listens is so for hours.
    pub fn rest(&mut self, is_alone: bool) {
        let is_still = |layer: &Layer| {
            !layer.is_live
                && !layer.is_taken()
                && !layer.gate.is_wanted()
                && layer.history.memory_bytes() == 0
                && layer.reception.ask_at().is_none()
                && layer.cap.told_bps().is_none()
                && layer.demand.most_bps().is_none()
        };
        let is_resting = |up: &UpStream| {
            // The smallest picture is asked for in advance of whoever comes.
            let told = [!is_alone, false, false];
            let is_told = up.is_wanted_told && up.wanted == told && up.wanted_now == told;
            !up.is_active
                && up.level.db() == 0
                && (up.kind.is_audio() || is_told)
                && up.layers.iter().all(is_still)
        };
        self.is_at_rest = self.feedback.is_empty() && self.ups().all(is_resting);
    }

    /// Whether ticks pass it by.
    pub fn is_at_rest(&self) -> bool {
        self.is_at_rest
    }

    /// Has the next tick look at it again. Whatever may change it does that by itself.
    pub fn stir(&mut self) {
        self.is_at_rest = false;
    }

    /// What a media SSRC carries, if it is bound.
    pub fn bound(&self, ssrc: u32) -> Option<Binding> {
        self.bindings.iter().find(|(bound, _)| *bound == ssrc).map(|(_, binding)| *binding)
    }

    /// The RTP header extension ids in use.
    pub fn extensions(&self) -> &ExtensionIds {
        &self.extensions
    }

    /// Finds the place of a packet, binding its SSRC if this is the first that says where it belongs
    /// (RFC 8843 section 9.2, RFC 8852).
    pub fn place(&mut self, packet: &Packet<'_>) -> Result<Binding, Unplaced> {
        self.stir();
        let binding = match self.bound(packet.ssrc) {
            Some(binding) => binding,
            None => self.learn(packet).ok_or(Unplaced::UnknownSsrc)?,
        };
        let up = self.up(binding.kind).ok_or(Unplaced::UnknownSsrc)?;
        let expected = if binding.is_rtx { up.rtx_payload_type } else { Some(up.payload_type) };
        let is_red = !binding.is_rtx && up.red_payload_type == Some(packet.payload_type);
        if !is_red && expected != Some(packet.payload_type) {
            return Err(Unplaced::PayloadType);
        }
        Ok(Binding { is_red, ..binding })
    }

    fn learn(&mut self, packet: &Packet<'_>) -> Option<Binding> {
        let extension = |id: Option<u8>| id.and_then(|id| packet.extensions.get(id));
        let carries = |up: &&UpStream| {
            let types = [Some(up.payload_type), up.rtx_payload_type, up.red_payload_type];
            types.contains(&Some(packet.payload_type))
        };
        let up = match extension(self.extensions.mid) {
            Some(mid) => self.ups.iter().flatten().find(|up| up.mid.as_str().as_bytes() == mid)?,
            None => {
                // Without a mid a payload type will do, if it leaves no choice.
                let mut fitting = self.ups.iter().flatten().filter(carries);
                fitting.next().filter(|_| fitting.next().is_none())?
            }
        };
        if !carries(&up) {
            return None;
        }
        let is_rtx = up.rtx_payload_type == Some(packet.payload_type);
        let layer = if up.rids.is_empty() {
            0
        } else {
            let id = if is_rtx { self.extensions.repaired_rid } else { self.extensions.rid };
            up.layer_of_rid(extension(id)?)?
        };
        let binding = Binding { kind: up.kind, layer, is_rtx, is_red: false };
        self.bind(packet.ssrc, binding);
        self.bound(packet.ssrc)
    }

    fn bind(&mut self, ssrc: u32, binding: Binding) {
        if self.bound(ssrc) == Some(binding) {
            return;
        }
        // One SSRC for each use: the newest takes the place of an earlier one, so that the table stays small.
        self.bindings.retain(|(bound, other)| *bound != ssrc && *other != binding);
        let is_bound = self.bindings.try_push((ssrc, binding)).is_ok();
        if is_bound
            && !binding.is_rtx
            && let Some(layer) = self.layer_mut(binding.kind, binding.layer)
            && layer.ssrc.replace(ssrc).is_some()
        {
            layer.reception.begin_under_another_ssrc();
        }
    }

    /// Memory held for histories, in bytes.
    pub fn history_bytes(&self) -> usize {
        self.ups.iter().flatten().flat_map(|up| &up.layers).map(|layer| layer.history.memory_bytes()).sum()
    }
}

/// Some moment to count from in tests.
#[cfg(test)]
pub(crate) fn test_epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "tests need some first moment; nothing depends on which")]
    Instant::now()
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

    #[test]
    fn a_layer_that_ended_is_taken_for_as_dear_as_it_was() {
        let start = test_epoch();
        let mut layer = Layer::default();
        for tick in 0..60 {
            let now = start + Duration::from_millis(tick * 100);
            let is_sent = tick < 30;
            if is_sent {
                layer.hear(now);
            }
            if layer.expire(now) {
                assert!(layer.bps > 395_000.0, "{}", layer.bps);
                return;
            }
            layer.measure(now, if is_sent { 400_000.0 } else { 0.0 });
        }
        panic!("it never ends");
    }
}
