//! What is asked of a layer: by other parts of the room, and by the lines of those who watch it.

use super::SlotRef;
use crate::relay::LayerAsk;
use std::time::Instant;

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
