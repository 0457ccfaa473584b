//! One layer of what a publisher sends: what came of it, what is kept, who receives it.

use super::{
    SlotRef,
    cap::Cap,
    demand::{Asked, Demand},
    gate::Gate,
    history::History,
    reception::Reception,
};
use crate::{bwe::meter::Meter, relay::LayerAsk, rtp::sequence::Sequence};
use std::time::{Duration, Instant};

/// A layer is live while packets came within this time.
pub const LIVE_FOR: Duration = Duration::from_secs(1);

/// How quickly a layer's rate follows what comes, at each tick: a key frame alone does not make a layer dear.
const RATE_FOLLOWS: f64 = 0.1;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;

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
