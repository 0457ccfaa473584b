//! Who gets how much of a line: a pure function of the budget, of what is shown, and of what was given before.
//!
//! Sound is not its business: what sound needs is taken off the budget before. Pictures are served in order of
//! importance: first everyone's smallest layer, then the most important one's wish, then the next one's. Less is given
//! at once; more only with a margin and after a while, so that nothing flutters.

use crate::up::LAYERS_MAX;
use arrayvec::ArrayVec;
use std::time::{Duration, Instant};

/// Most pictures of one subscriber.
pub const PICTURES_MAX: usize = asamblea_seam::SLOTS_MAX;

/// More is given only when the budget exceeds the new sum by this factor.
pub const UPGRADE_MARGIN: f64 = 1.15;

/// Least time between two changes for the better: a switch costs a key frame.
pub const UPGRADE_INTERVAL: Duration = Duration::from_millis(1_500);

/// More that was given is well given if it lasts for this long.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// However often more had to be taken back, it is tried again after this long.
const UPGRADE_INTERVAL_MAX: Duration = Duration::from_secs(24);

/// The same while no picture is shown at all.
const INTERVAL_UNSEEN_MAX: Duration = Duration::from_secs(3);

/// What a picture may carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Nothing: it is held back.
    #[default]
    Paused,
    /// Layers up to this one.
    Layer(u8),
}

impl Grant {
    /// No limit.
    pub const ALL: Grant = Grant::Layer(u8::MAX);
}

/// A picture that is wished for and could be sent.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// Rates of its layers, smallest first, bit/s; `None` for one that does not flow. At least one flows.
    pub layers: [Option<f64>; LAYERS_MAX],
    /// The layer that its height asks for, live.
    pub wish: u8,
    /// What it was granted before.
    pub before: Grant,
    /// Smaller is more important.
    pub rank: u16,
}

impl Picture {
    fn cost(&self, grant: Grant) -> f64 {
        match grant {
            Grant::Paused => 0.0,
            Grant::Layer(layer) => {
                // The layer that flows for this grant: the best at or below it.
                let flowing =
                    self.layers[..=usize::from(layer).min(LAYERS_MAX - 1)].iter().rev().flatten().next();
                flowing.copied().unwrap_or(0.0)
            }
        }
    }

    fn smallest(&self) -> Option<u8> {
        self.layers.iter().position(Option::is_some).map(|place| place as u8)
    }

    fn next_above(&self, layer: u8) -> Option<u8> {
        (layer + 1..=self.wish).find(|above| self.layers[usize::from(*above)].is_some())
    }
}

/// When more may be given: a while after the last change, and twice as long each time that it had to be taken back soon.
#[derive(Clone, Copy, Debug)]
pub struct Hysteresis {
    changed_at: Option<Instant>,
    /// When more was last given, if none of it was taken back since.
    raised_at: Option<Instant>,
    interval: Duration,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { changed_at: None, raised_at: None, interval: UPGRADE_INTERVAL }
    }
}

impl Hysteresis {
    /// Whether more may be given now. Where nothing is shown the wait is short: that is worse than a change.
    pub fn may_raise(&self, now: Instant, is_nothing_shown: bool) -> bool {
        let interval = if is_nothing_shown {
            (self.interval / 2).clamp(UPGRADE_INTERVAL, INTERVAL_UNSEEN_MAX)
        } else {
            self.interval
        };
        self.changed_at.is_none_or(|at| now.saturating_duration_since(at) >= interval)
    }

    /// Takes a change of what is given: whether some picture got more, and whether some got less.
    pub fn change(&mut self, now: Instant, is_more: bool, is_less: bool) {
        self.changed_at = Some(now);
        if is_less && let Some(raised_at) = self.raised_at.take() {
            let has_lasted = now.saturating_duration_since(raised_at) >= PROVEN_AFTER;
            self.interval =
                if has_lasted { UPGRADE_INTERVAL } else { (self.interval * 2).min(UPGRADE_INTERVAL_MAX) };
        } else if is_more {
            self.raised_at = Some(now);
        }
    }
}

/// Grants, in the order of the pictures, and what all wishes together would cost, bit/s.
#[derive(Clone, Debug, Default)]
pub struct Allocation {
    /// One a picture.
    pub grants: ArrayVec<Grant, PICTURES_MAX>,
    /// The cost of every wish.
    pub wished_bps: f64,
    /// The cost of what is granted.
    pub granted_bps: f64,
}

/// Shares a budget out. `may_upgrade` is false for a while after the last change.
pub fn allocate(budget_bps: f64, pictures: &[Picture], may_upgrade: bool) -> Allocation {
    let pictures = &pictures[..pictures.len().min(PICTURES_MAX)];
    let mut order: ArrayVec<usize, PICTURES_MAX> = (0..pictures.len()).collect();
    order.sort_by_key(|place| (pictures[*place].rank, *place));
    let frugal = share(budget_bps, pictures, &order);
    let generous = share(budget_bps / UPGRADE_MARGIN, pictures, &order);
    let wish_of = |picture: &Picture| Grant::Layer(picture.wish);
    let mut allocation = Allocation {
        wished_bps: pictures.iter().map(|picture| picture.cost(wish_of(picture))).sum(),
        ..Allocation::default()
    };
    // What was given stays if it still fits as a whole; else the frugal share says what does.
    let kept: ArrayVec<Grant, PICTURES_MAX> =
        pictures.iter().map(|picture| picture.before.min(wish_of(picture))).collect();
    let sum = |grants: &[Grant]| -> f64 {
        pictures.iter().zip(grants).map(|(picture, grant)| picture.cost(*grant)).sum()
    };
    let mut grants = if sum(&kept) <= budget_bps { kept.clone() } else { frugal };
    if may_upgrade && sum(&kept) <= budget_bps {
        let is_more = generous.iter().zip(&kept).any(|(new, old)| new > old);
        if is_more {
            grants = generous;
        }
    }
    allocation.granted_bps = sum(&grants);
    allocation.grants = grants;
    allocation
}

fn share(budget_bps: f64, pictures: &[Picture], order: &[usize]) -> ArrayVec<Grant, PICTURES_MAX> {
    let mut grants: ArrayVec<Grant, PICTURES_MAX> = pictures.iter().map(|_| Grant::Paused).collect();
    let mut left = budget_bps;
    for &place in order {
        let picture = &pictures[place];
        let Some(smallest) = picture.smallest() else { continue };
        let grant = Grant::Layer(smallest);
        if picture.cost(grant) <= left {
            left -= picture.cost(grant);
            grants[place] = grant;
        }
    }
    for &place in order {
        let picture = &pictures[place];
        while let Grant::Layer(layer) = grants[place]
            && let Some(above) = picture.next_above(layer)
        {
            let more = picture.cost(Grant::Layer(above)) - picture.cost(grants[place]);
            if more > left {
                break;
            }
            left -= more;
            grants[place] = Grant::Layer(above);
        }
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn camera(rank: u16, before: Grant) -> Picture {
        Picture { layers: [Some(100e3), Some(300e3), Some(1e6)], wish: 2, before, rank }
    }

    fn grants(budget: f64, pictures: &[Picture]) -> Vec<Grant> {
        allocate(budget, pictures, true).grants.to_vec()
    }

    #[test]
    fn everyone_is_seen_before_anyone_is_seen_well() {
        let two = [camera(1, Grant::Paused), camera(0, Grant::Paused)];
        assert_eq!(grants(90e3, &two), [Grant::Paused, Grant::Paused]);
        assert_eq!(grants(150e3, &two), [Grant::Paused, Grant::Layer(0)]);
        assert_eq!(grants(500e3, &two), [Grant::Layer(0), Grant::Layer(1)]);
        assert_eq!(grants(3e6, &two), [Grant::Layer(2), Grant::Layer(2)]);
    }

    #[test]
    fn less_is_given_at_once_and_more_only_with_a_margin() {
        let at = |before| [camera(0, before)];
        assert_eq!(grants(1.05e6, &at(Grant::Layer(1))), [Grant::Layer(1)], "fits, but without a margin");
        assert_eq!(grants(1.05e6, &at(Grant::Layer(2))), [Grant::Layer(2)], "stays");
        assert_eq!(grants(0.95e6, &at(Grant::Layer(2))), [Grant::Layer(1)]);
        assert_eq!(allocate(9e6, &at(Grant::Layer(1)), false).grants[0], Grant::Layer(1), "too soon");
    }

    #[test]
    fn a_layer_that_does_not_flow_costs_and_gives_nothing() {
        let picture = Picture { layers: [Some(100e3), None, None], wish: 0, before: Grant::Paused, rank: 0 };
        assert_eq!(grants(9e6, &[picture]), [Grant::Layer(0)]);
    }

    #[test]
    fn what_had_to_be_taken_back_is_given_again_ever_later_until_it_lasts() {
        let start = crate::up::test_epoch();
        let mut hysteresis = Hysteresis::default();
        let (mut now, mut waits) = (start, Vec::new());
        let mut wait_and_raise = |hysteresis: &mut Hysteresis, now: &mut Instant| {
            let from = *now;
            while !hysteresis.may_raise(*now, false) {
                *now += Duration::from_millis(100);
            }
            waits.push((*now - from).as_millis());
            hysteresis.change(*now, true, false);
        };
        for _ in 0..7 {
            wait_and_raise(&mut hysteresis, &mut now);
            now += Duration::from_secs(3);
            hysteresis.change(now, false, true);
            hysteresis.change(now, false, true); // a second picture follows the first down
        }
        wait_and_raise(&mut hysteresis, &mut now);
        now += PROVEN_AFTER;
        hysteresis.change(now, false, true);
        wait_and_raise(&mut hysteresis, &mut now);
        assert!(hysteresis.may_raise(now + INTERVAL_UNSEEN_MAX, true));
        assert_eq!(waits, [0, 3_000, 6_000, 12_000, 24_000, 24_000, 24_000, 24_000, 1_500]);
    }

    fn pictures() -> impl Strategy<Value = Vec<Picture>> {
        let picture = (
            proptest::array::uniform3(proptest::option::of(20e3..3e6)),
            0..3_u8,
            proptest::option::of(0..3_u8),
            0..5_u16,
        )
            .prop_map(|(mut layers, wish, before, rank)| {
                // Taller layers cost more.
                let mut least = 0.0;
                for layer in layers.iter_mut().flatten() {
                    least += *layer;
                    *layer = least;
                }
                let wish = (0..=wish).rev().find(|wish| layers[usize::from(*wish)].is_some());
                let wish = wish.unwrap_or_else(|| {
                    layers[0].get_or_insert(50e3);
                    0
                });
                Picture { layers, wish, before: before.map_or(Grant::Paused, Grant::Layer), rank }
            });
        proptest::collection::vec(picture, 0..20)
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded_and_a_constant_one_gives_a_constant_picture(
            mut pictures in pictures(),
            budget in 0.0..20e6,
        ) {
            let cost = |pictures: &[Picture], grants: &[Grant]| -> f64 {
                pictures.iter().zip(grants).map(|(picture, grant)| picture.cost(*grant)).sum()
            };
            let first = allocate(budget, &pictures, true);
            prop_assert!(cost(&pictures, &first.grants) <= budget + 1.0);
            for (picture, grant) in pictures.iter_mut().zip(&first.grants) { picture.before = *grant; }
            let second = allocate(budget, &pictures, true);
            for (picture, grant) in pictures.iter_mut().zip(&second.grants) { picture.before = *grant; }
            let third = allocate(budget, &pictures, true);
            prop_assert_eq!(second.grants, third.grants);
        }

        #[test]
        fn the_most_important_picture_is_paused_only_if_not_even_its_smallest_layer_fits(
            mut pictures in pictures(),
            budget in 0.0..10e6,
        ) {
            for picture in &mut pictures { picture.before = Grant::Paused; }
            let first = (0..pictures.len()).min_by_key(|place| (pictures[*place].rank, *place));
            let Some(first) = first else { return Ok(()) };
            let smallest = pictures[first].smallest().expect("one flows");
            let is_paused = allocate(budget, &pictures, true).grants[first] == Grant::Paused;
            let fits = pictures[first].cost(Grant::Layer(smallest)) <= budget / UPGRADE_MARGIN;
            prop_assert_eq!(is_paused, !fits);
        }
    }
}
