//! Who gets how much of a line: a pure function of the budget, of what is shown, and of what was given before.
//!
//! Sound is not its business: what sound needs is taken off the budget before. Pictures are served in order of
//! importance: first everyone's smallest layer, then the most important one's wish, then the next one's. Less is given
//! at once; more only with a margin and after a while, so that nothing flutters.
//!
//! Between two layers lies what nothing is made for. [`offers`] says what of it a line could give to which layer, so that
//! its publisher can be asked for that much. A layer that was asked for gives way before a smaller one has to do.

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

/// A layer that is not had yet is asked for at this many times the least that makes sense, one that is had is kept from
/// there on.
const WORTH_ASKING: f64 = 1.35;

/// This much of what a line could give to a layer is asked for: the rest is for what an encoder exceeds it by.
const ASKED: f64 = 0.98;

/// The same before it is had: the margin of an upgrade has to be there.
const ASKED_BEFORE: f64 = 0.97 / UPGRADE_MARGIN;

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

/// What a layer costs, bit/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// As it is now.
    pub bps: f64,
    /// If its publisher is asked for no less than it can give.
    pub full_bps: f64,
    /// Below this the layer makes no sense: a smaller one, or none, looks better.
    pub least_bps: f64,
    /// What it can be brought down to by asking its publisher for less; infinite where nothing would come of that.
    pub yields_to_bps: f64,
}

/// A picture that is wished for and could be sent.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// Its layers, smallest first; `None` for one that does not flow. At least one flows.
    pub layers: [Option<Price>; LAYERS_MAX],
    /// The layer that its height asks for, live.
    pub wish: u8,
    /// What it was granted before.
    pub before: Grant,
    /// Smaller is more important.
    pub rank: u16,
}

impl Picture {
    /// The price of the layer that flows for a grant: the best at or below it.
    fn price(&self, grant: Grant) -> Option<Price> {
        let Grant::Layer(layer) = grant else { return None };
        self.layers[..=usize::from(layer).min(LAYERS_MAX - 1)].iter().rev().flatten().next().copied()
    }

    fn cost(&self, grant: Grant) -> f64 {
        self.price(grant).map_or(0.0, |price| price.bps)
    }

    /// The most of what was granted before that is still wished for.
    fn kept(&self) -> Grant {
        self.before.min(Grant::Layer(self.wish))
    }

    /// The least that has to be there for a grant. What is already had may yield.
    fn need(&self, grant: Grant) -> f64 {
        let need = |price: Price| {
            if grant <= self.kept() { price.bps.min(price.yields_to_bps) } else { price.bps }
        };
        self.price(grant).map_or(0.0, need)
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
    /// The cost of every wish, if nobody is asked for less.
    pub wished_bps: f64,
    /// The cost of what is granted.
    pub granted_bps: f64,
}

/// Shares a budget out. `may_upgrade` is false for a while after the last change.
pub fn allocate(budget_bps: f64, pictures: &[Picture], may_upgrade: bool) -> Allocation {
    let pictures = &pictures[..pictures.len().min(PICTURES_MAX)];
    let order = ranked(pictures);
    let wished = |picture: &Picture| picture.layers[usize::from(picture.wish)];
    let mut allocation = Allocation {
        wished_bps: pictures.iter().filter_map(wished).map(|price| price.bps.max(price.full_bps)).sum(),
        ..Allocation::default()
    };
    // What was given stays if it still fits as a whole; else the frugal share says what does.
    let kept: ArrayVec<Grant, PICTURES_MAX> = pictures.iter().map(Picture::kept).collect();
    let needed: f64 = pictures.iter().zip(&kept).map(|(picture, grant)| picture.need(*grant)).sum();
    let is_kept = needed <= budget_bps;
    let mut grants = if is_kept { kept.clone() } else { share(budget_bps, 0.0, pictures, &order) };
    if may_upgrade && is_kept {
        let reserve_bps = budget_bps - budget_bps / UPGRADE_MARGIN;
        let generous = share(budget_bps, reserve_bps, pictures, &order);
        let is_more = generous.iter().zip(&kept).any(|(new, old)| new > old);
        if is_more {
            grants = generous;
        }
    }
    allocation.granted_bps = cost(pictures, &grants);
    allocation.grants = grants;
    allocation
}

fn cost(pictures: &[Picture], grants: &[Grant]) -> f64 {
    pictures.iter().zip(grants).map(|(picture, grant)| picture.cost(*grant)).sum()
}

/// The pictures' places, the most important first.
fn ranked(pictures: &[Picture]) -> ArrayVec<usize, PICTURES_MAX> {
    let mut order: ArrayVec<usize, PICTURES_MAX> = (0..pictures.len()).collect();
    order.sort_by_key(|place| (pictures[*place].rank, *place));
    order
}

/// Shares a budget out, of which the reserve has to be left behind what was not granted before.
fn share(
    budget_bps: f64,
    reserve_bps: f64,
    pictures: &[Picture],
    order: &[usize],
) -> ArrayVec<Grant, PICTURES_MAX> {
    let mut grants: ArrayVec<Grant, PICTURES_MAX> = pictures.iter().map(|_| Grant::Paused).collect();
    let mut charged: ArrayVec<f64, PICTURES_MAX> = pictures.iter().map(|_| 0.0).collect();
    let mut left = budget_bps;
    // What yields is charged for as far as there is something left, and yields the rest.
    let mut give = |place: usize, grant: Grant| {
        let picture = &pictures[place];
        let reserve = if grant > picture.kept() { reserve_bps } else { 0.0 };
        if picture.need(grant) - charged[place] + reserve > left {
            return false;
        }
        let more = (picture.cost(grant) - charged[place]).min(left);
        left -= more;
        charged[place] += more;
        grants[place] = grant;
        true
    };
    let mut seen = ArrayVec::<(usize, u8), PICTURES_MAX>::new();
    for &place in order {
        if let Some(smallest) = pictures[place].smallest()
            && give(place, Grant::Layer(smallest))
        {
            seen.push((place, smallest));
        }
    }
    for (place, mut layer) in seen {
        while let Some(above) = pictures[place].next_above(layer)
            && give(place, Grant::Layer(above))
        {
            layer = above;
        }
    }
    grants
}

/// What a line could give a layer, if its publisher were asked for that much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Which layer.
    pub layer: u8,
    /// How much, bit/s; infinite if all that it takes.
    pub bps: f64,
}

/// What a line could give each picture beyond or instead of what was granted: the most important one gets all that is
/// left, and what more is granted than there is, the least important one gives up. A layer that is not granted is named
/// only if `may_upgrade`. `None` where nothing that makes sense fits.
pub fn offers(
    budget_bps: f64,
    pictures: &[Picture],
    grants: &[Grant],
    may_upgrade: bool,
) -> ArrayVec<Option<Offer>, PICTURES_MAX> {
    let pictures = &pictures[..pictures.len().min(grants.len())];
    let mut given: ArrayVec<f64, PICTURES_MAX> =
        pictures.iter().zip(grants).map(|(picture, grant)| picture.cost(*grant)).collect();
    let order = ranked(pictures);
    let mut left = budget_bps - given.iter().sum::<f64>();
    for &place in order.iter().rev() {
        if left >= 0.0 {
            break;
        }
        let less = (given[place] - pictures[place].need(grants[place])).clamp(0.0, -left);
        given[place] -= less;
        left += less;
    }
    left = left.max(0.0);
    let mut offers: ArrayVec<Option<Offer>, PICTURES_MAX> = pictures.iter().map(|_| None).collect();
    for &place in &order {
        let (picture, granted) = (&pictures[place], grants[place]);
        let room = given[place] + left;
        let fitting = (0..=picture.wish).rev().find_map(|layer| {
            let price = picture.layers[usize::from(layer)]?;
            let is_had = Grant::Layer(layer) <= granted;
            let least = price.least_bps * if is_had { 1.0 } else { WORTH_ASKING };
            ((is_had || may_upgrade) && room >= least).then_some((layer, price, is_had))
        });
        let Some((layer, price, is_had)) = fitting else { continue };
        // The smallest gets its margin before it is known to give way: nothing would be left below it.
        let is_safe = price.yields_to_bps.is_finite() || Some(layer) != picture.smallest();
        let asked = room * if is_had && is_safe { ASKED } else { ASKED_BEFORE };
        let is_whole = asked >= price.full_bps;
        offers[place] = Some(Offer { layer, bps: if is_whole { f64::INFINITY } else { asked } });
        // What it does not take now it may take in a moment.
        let taken = if is_whole { price.full_bps.max(given[place]) } else { room };
        left = (left - (taken - given[place])).max(0.0);
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Nobody is asked for less.
    fn whole(bps: f64) -> Price {
        Price { bps, full_bps: bps, least_bps: bps, yields_to_bps: f64::INFINITY }
    }

    fn camera(rank: u16, before: Grant) -> Picture {
        let layers = [100e3, 300e3, 1e6].map(|bps| Some(whole(bps)));
        Picture { layers, wish: 2, before, rank }
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
        let layers = [Some(whole(100e3)), None, None];
        let picture = Picture { layers, wish: 0, ..camera(0, Grant::Paused) };
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

    /// A camera whose publisher keeps to what it is asked for.
    fn elastic(rank: u16, before: Grant) -> Picture {
        let prices = [(100e3, 50e3), (300e3, 110e3), (1e6, 330e3)];
        let layers = prices.map(|(bps, least_bps)| {
            Some(Price { bps, full_bps: bps, least_bps, yields_to_bps: least_bps.max(bps * 0.6) })
        });
        Picture { layers, ..camera(rank, before) }
    }

    #[test]
    fn a_layer_that_can_be_had_for_less_is_kept_while_it_makes_sense() {
        let at = |layer| [elastic(0, Grant::Layer(layer))];
        assert_eq!(grants(700e3, &at(2)), [Grant::Layer(2)]);
        assert_eq!(grants(590e3, &at(2)), [Grant::Layer(1)], "too far for an encoder to follow");
        assert_eq!(grants(700e3, &at(1)), [Grant::Layer(1)], "what is not had is not had for less");
        assert_eq!(grants(70e3, &at(2)), [Grant::Layer(0)], "the smallest gives way, too");
        assert_eq!(grants(59e3, &at(2)), [Grant::Paused]);
    }

    #[test]
    fn what_yields_makes_no_room_for_what_is_less_important() {
        let two = [elastic(0, Grant::Layer(2)), elastic(1, Grant::Layer(0))];
        assert_eq!(grants(1.2e6, &two), [Grant::Layer(2), Grant::Layer(0)]);
        assert_eq!(grants(800e3, &two), [Grant::Layer(2), Grant::Layer(0)], "it yields itself");
        assert_eq!(grants(1.6e6, &two), [Grant::Layer(2), Grant::Layer(1)]);
        let screen = Picture { rank: 0, ..elastic(0, Grant::Paused) };
        let camera = elastic(1, Grant::Layer(2));
        assert_eq!(
            grants(1.4e6, &[screen, camera]),
            [Grant::Layer(2), Grant::Layer(1)],
            "the other way round"
        );
    }

    fn offered(budget: f64, pictures: &[Picture], may_upgrade: bool) -> Vec<Option<(u8, f64)>> {
        let grants: Vec<Grant> = pictures.iter().map(|picture| picture.before).collect();
        let offers = offers(budget, pictures, &grants, may_upgrade);
        offers.iter().map(|offer| offer.map(|offer| (offer.layer, (offer.bps / 1e3).round()))).collect()
    }

    #[test]
    fn between_two_layers_the_taller_is_asked_for_at_what_is_there() {
        let at = |layer| [elastic(0, Grant::Layer(layer))];
        assert_eq!(offered(800e3, &at(1), true), [Some((2, 675.0))], "with the margin of an upgrade");
        assert_eq!(offered(800e3, &at(2), true), [Some((2, 784.0))], "nearly all of it once it is had");
        assert_eq!(offered(800e3, &at(1), false), [Some((1, f64::INFINITY))], "not now");
        assert_eq!(offered(400e3, &at(1), true), [Some((1, f64::INFINITY))], "too little to be worth it");
        assert_eq!(offered(2e6, &at(1), true), [Some((2, f64::INFINITY))]);
        assert_eq!(offered(40e3, &[elastic(0, Grant::Paused)], true), [None]);
        assert_eq!(offered(80e3, &[elastic(0, Grant::Paused)], true), [Some((0, 67.0))]);
    }

    #[test]
    fn what_is_left_goes_to_the_most_important_and_what_is_missing_is_taken_from_the_least() {
        let two = [elastic(1, Grant::Layer(1)), elastic(0, Grant::Layer(1))];
        assert_eq!(offered(1.1e6, &two, true), [Some((1, 294.0)), Some((2, 675.0))]);
        assert_eq!(offered(550e3, &two, true), [Some((1, 245.0)), Some((1, 294.0))]);
        let none_to_spare = [elastic(0, Grant::Layer(2)), elastic(1, Grant::Layer(2))];
        assert_eq!(offered(1.3e6, &none_to_spare, true), [Some((2, 686.0)), Some((2, 588.0))]);
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
                let mut layers = layers.map(|layer| layer.map(whole));
                let wish = (0..=wish).rev().find(|wish| layers[usize::from(*wish)].is_some());
                let wish = wish.unwrap_or_else(|| {
                    layers[0].get_or_insert(whole(50e3));
                    0
                });
                let before = before.map_or(Grant::Paused, Grant::Layer);
                Picture { layers, wish, before, rank }
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
        fn no_more_is_offered_than_there_is(pictures in pictures(), budget in 0.0..20e6) {
            let grants = allocate(budget, &pictures, true).grants;
            let offers = offers(budget, &pictures, &grants, true);
            prop_assert_eq!(offers.len(), pictures.len());
            for (picture, offer) in pictures.iter().zip(&offers) {
                let Some(offer) = offer else { continue };
                prop_assert!(offer.layer <= picture.wish && offer.bps >= 0.0);
                prop_assert!(picture.layers[usize::from(offer.layer)].is_some());
                prop_assert!(offer.bps <= budget || offer.bps.is_infinite());
            }
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
