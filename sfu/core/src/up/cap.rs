//! The most that a publisher is asked to send of a layer, so that it fits the lines of those who watch it.
//!
//! A cap is a wish and proves nothing: a layer costs what is measured of it, until it has been seen to keep to what was
//! asked. Then its price is known a moment before it is measured, and can be lowered before a smaller layer has to do.
//! Who does not keep to a cap is served as if there were none. Rates here are of the line, headers included, but for
//! [`Cap::told_bps`], which an encoder understands.

use std::time::{Duration, Instant};

/// What comes is taken to be so many times what was told, headers included. Encoders overshoot: Firefox sends 450 kbit/s
/// of a layer that is to have 350; and on a busy machine, which makes fewer frames, they fall short: 660 of 770.
const KEPT: std::ops::RangeInclusive<f64> = 0.85..=1.6;

/// The same before anything was seen.
const KEPT_BEFORE: f64 = 1.15;

/// After a cap was told or its layer began it takes this long until it says anything of whether it is kept: a way to the
/// browser, an encoder that follows, a key frame.
const SETTLED_AFTER: Duration = Duration::from_millis(1_500);

/// Measurements, one a tick, after which a cap is known to be kept, and after which it is known not to be.
const PROVEN_AFTER: u32 = 10;
/// See [`PROVEN_AFTER`].
const IGNORED_AFTER: u32 = 30;

/// What has come down to this part of what it was without a cap has come down for the cap's sake. What has not may have
/// been asked for too little less to tell.
const FALLEN: f64 = 0.85;

/// More than this many times what is expected, without any of it telling, is doubtful; so many measurements of that, and
/// the cap is of no use.
const DOUBTFUL: f64 = 1.1;
/// See [`DOUBTFUL`].
const DOUBTS_MAX: u32 = 100;

/// A layer of which nothing was seen yet is trusted to keep to a cap while there are no more doubts than this: to lose it
/// at the first queue would cost more than two seconds of one.
const TRUSTED_DOUBTS: u32 = 20;

/// For so long one who did not keep to a cap is not told another.
const IGNORED_FOR: Duration = Duration::from_secs(60);

/// How quickly what was told takes effect, at each tick.
const EFFECT: f64 = 0.1;

/// How quickly the memory of how caps are kept follows, at each tick: in five seconds, since frames come in bursts.
const FOLLOWS: f64 = 0.02;

/// With less than this part of what was told it is the picture that takes no more, not the cap.
const FILLED: f64 = 0.8;

/// A layer may exceed what is expected of it by this much, for this long: a key frame, an encoder that is slow.
const EXCESS: f64 = 1.3;
/// See [`EXCESS`].
const EXCESS_FOR: Duration = Duration::from_secs(2);

/// A cap goes up by no more than this at a time, and no sooner than this after the last change.
const STEP: f64 = 1.08;
/// See [`STEP`].
const STEP_INTERVAL: Duration = Duration::from_secs(1);

/// A change upwards or downwards by less than this is not worth a message.
const WORTH_RAISING: f64 = 1.03;
/// See [`WORTH_RAISING`].
const WORTH_LOWERING: f64 = 0.97;

/// Least time between a change and one downwards, so that a restless line makes no more than five messages a second.
const LOWER_INTERVAL: Duration = Duration::from_millis(200);

/// A cap that leaves this part of a layer is not worth a message.
const WORTH_TELLING: f64 = 0.95;

/// For so long the whole layer has to be wished for until its cap is lifted.
const LIFTED_AFTER: Duration = Duration::from_secs(1);

/// For so long after that a layer is taken for as dear as it was without.
const FULL_FOR: Duration = Duration::from_secs(3);

/// How quickly the memory of what a layer takes without a cap follows, at each tick: in three seconds.
const FULL_FOLLOWS: f64 = 0.03;

/// No cap is less than this, bit/s: below it no encoder makes a picture.
pub const TOLD_BPS_MIN: f64 = 40_000.0;

/// One layer's cap.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    told_bps: Option<f64>,
    /// When that last changed.
    changed_at: Option<Instant>,
    /// From when on what is measured says how the layer is now.
    settled_at: Option<Instant>,
    /// What was told, as it takes effect.
    effective_bps: f64,
    /// What comes, by what was told, of this cap or an earlier one.
    kept: f64,
    /// How many measurements say so.
    proofs: u32,
    /// How many measurements on end say neither that it is kept nor that it is not.
    doubts: u32,
    /// Since when more comes than may.
    excess_since: Option<Instant>,
    ignored_until: Option<Instant>,
    /// Since when the whole layer is wished for.
    whole_since: Option<Instant>,
    /// What the layer takes without a cap, once known, and how many measurements say so.
    full_bps: f64,
    full_measurements: u32,
    /// The same, or what is usual.
    believed_bps: f64,
    /// Whether what was last measured was under a cap, so that more may come without one.
    is_measured_capped: bool,
}

impl Default for Cap {
    fn default() -> Self {
        Self {
            told_bps: None,
            changed_at: None,
            settled_at: None,
            effective_bps: 0.0,
            kept: KEPT_BEFORE,
            proofs: 0,
            doubts: 0,
            excess_since: None,
            ignored_until: None,
            whole_since: None,
            full_bps: 0.0,
            full_measurements: 0,
            believed_bps: f64::INFINITY,
            is_measured_capped: false,
        }
    }
}

impl Cap {
    /// What the publisher is told, if anything, bit/s of the encoder's output.
    pub fn told_bps(&self) -> Option<f64> {
        self.told_bps
    }

    /// What the layer takes without a cap; 0 before it was known.
    pub fn full_bps(&self) -> f64 {
        self.full_bps
    }

    /// Another source, of which nothing is known.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The layer has just come to life.
    pub fn begin(&mut self, now: Instant) {
        self.effective_bps = self.told_bps.unwrap_or_default();
        self.settled_at = Some(now + SETTLED_AFTER);
    }

    /// Takes what came of the layer lately and smoothed, at a tick in which something came.
    pub fn measure(&mut self, now: Instant, bps: f64, smoothed_bps: f64) {
        if let Some(told_bps) = self.told_bps {
            self.effective_bps += (told_bps - self.effective_bps) * EFFECT;
        }
        if !self.is_settled(now) || self.is_just_lifted(now) {
            return;
        }
        let Some(told_bps) = self.told_bps else {
            if std::mem::take(&mut self.is_measured_capped) {
                self.full_measurements = 0;
            }
            self.full_measurements = self.full_measurements.saturating_add(1);
            let follows = FULL_FOLLOWS.max(1.0 / f64::from(self.full_measurements));
            self.full_bps += (bps - self.full_bps) * follows;
            return;
        };
        self.is_measured_capped = true;
        let expected_bps = self.expected_bps(told_bps);
        let fallen_bps = self.believed_bps * FALLEN;
        let is_telling = smoothed_bps <= fallen_bps || self.effective_bps * KEPT.end() <= fallen_bps;
        if is_telling && smoothed_bps >= self.effective_bps * FILLED {
            self.proofs = self.proofs.saturating_add(1);
            let follows = FOLLOWS.max(1.0 / f64::from(self.proofs));
            self.kept += (bps / self.effective_bps - self.kept) * follows;
            self.doubts = 0;
        } else if smoothed_bps > expected_bps * DOUBTFUL {
            self.doubts += 1;
        }
        if (self.proofs >= IGNORED_AFTER && self.kept > *KEPT.end()) || self.doubts >= DOUBTS_MAX {
            self.ignored_until = Some(now + IGNORED_FOR);
            (self.kept, self.proofs, self.doubts) = (KEPT_BEFORE, 0, 0);
        }
        if smoothed_bps <= expected_bps * EXCESS {
            self.excess_since = None;
        } else {
            self.excess_since.get_or_insert(now);
        }
    }

    /// What the layer costs, where it is known whether its cap is obeyed.
    pub fn price_bps(&self, now: Instant, smoothed_bps: f64, is_live: bool, is_obeyed: bool) -> f64 {
        let is_settled = is_live && self.is_settled(now);
        match self.told_bps {
            Some(told_bps) if is_obeyed && is_settled => smoothed_bps.min(self.expected_bps(told_bps)),
            Some(told_bps) if is_obeyed => self.expected_bps(told_bps),
            // What was measured says nothing of what comes next.
            _ if self.is_measured_capped && !is_settled => smoothed_bps.max(self.full_bps),
            None if self.is_just_lifted(now) => smoothed_bps.max(self.full_bps),
            _ => smoothed_bps,
        }
    }

    /// Whether caps of this layer have been seen to be kept, so that another would be, too; `None` where nothing of the
    /// kind was seen.
    pub fn is_obeyed(&self, now: Instant) -> Option<bool> {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= EXCESS_FOR;
        if self.ignored_until.is_some_and(|until| now < until) || self.excess_since.is_some_and(is_long) {
            return Some(false);
        }
        (self.proofs >= PROVEN_AFTER).then_some(self.kept <= *KEPT.end())
    }

    /// Whether a layer that is had already is to be asked for less rather than given up: caps of it are kept, or nothing
    /// was seen that says otherwise.
    pub fn is_trusted(&self, now: Instant) -> bool {
        self.is_obeyed(now).unwrap_or(self.doubts < TRUSTED_DOUBTS)
    }

    /// Takes what those who watch the layer can carry of it: the most that anyone can, infinite where someone can carry
    /// all of it, `None` where nobody has a wish. `full_bps` is what it takes or is believed to take without a cap.
    /// True if another cap is to be told.
    pub fn ask(&mut self, now: Instant, goal_bps: Option<f64>, full_bps: f64) -> bool {
        if self.ignored_until.is_some_and(|until| now < until) {
            return self.tell(now, None);
        }
        self.believed_bps = full_bps;
        let Some(goal_bps) = goal_bps else { return false };
        let is_after = |interval| {
            let is_over = |at: Instant| now.saturating_duration_since(at) >= interval;
            self.changed_at.is_none_or(is_over)
        };
        let goal = goal_bps / self.kept_so_far();
        match self.told_bps {
            None if goal_bps < full_bps * WORTH_TELLING && is_after(STEP_INTERVAL) => {
                self.tell(now, Some(goal))
            }
            None => false,
            Some(_) if goal_bps >= full_bps => {
                let since = *self.whole_since.get_or_insert(now);
                now.saturating_duration_since(since) >= LIFTED_AFTER && self.tell(now, None)
            }
            Some(told) => {
                self.whole_since = None;
                let is_due = if goal < told {
                    goal < told * WORTH_LOWERING && is_after(LOWER_INTERVAL)
                } else {
                    goal > told * WORTH_RAISING && is_after(STEP_INTERVAL)
                };
                is_due && self.tell(now, Some(goal.min(told * STEP)))
            }
        }
    }

    /// Nobody wants the layer any more. True if it had a cap.
    pub fn lift(&mut self, now: Instant) -> bool {
        self.tell(now, None)
    }

    fn tell(&mut self, now: Instant, bps: Option<f64>) -> bool {
        let bps = bps.map(|bps| bps.max(TOLD_BPS_MIN));
        if self.told_bps == bps {
            return false;
        }
        if let (None, Some(bps)) = (self.told_bps, bps) {
            self.effective_bps = bps;
            self.settled_at = Some(now + SETTLED_AFTER);
        }
        if bps.is_none() {
            self.excess_since = None;
        }
        (self.told_bps, self.changed_at, self.whole_since) = (bps, Some(now), None);
        true
    }

    fn kept_so_far(&self) -> f64 {
        if self.proofs >= PROVEN_AFTER { self.kept.clamp(*KEPT.start(), *KEPT.end()) } else { KEPT_BEFORE }
    }

    fn expected_bps(&self, told_bps: f64) -> f64 {
        told_bps * self.kept_so_far()
    }

    fn is_settled(&self, now: Instant) -> bool {
        self.settled_at.is_none_or(|at| now >= at)
    }

    fn is_just_lifted(&self, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < FULL_FOR;
        self.told_bps.is_none() && self.changed_at.is_some_and(is_recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);
    const FULL_BPS: f64 = 1_200_000.0;

    /// A layer of [`FULL_BPS`] that follows its cap, or does not.
    struct Scene {
        now: Instant,
        cap: Cap,
        smoothed_bps: f64,
        /// When it was told what.
        told: Vec<(Instant, Option<f64>)>,
        follows: bool,
        overshoot: f64,
    }

    impl Scene {
        fn new() -> Self {
            let now = crate::up::test_epoch();
            let mut scene = Self {
                now,
                cap: Cap::default(),
                smoothed_bps: FULL_BPS,
                told: Vec::new(),
                follows: true,
                overshoot: 1.1,
            };
            scene.cap.begin(now);
            scene.run(5_000, Some(f64::INFINITY));
            scene
        }

        fn run(&mut self, ms: u64, goal_bps: Option<f64>) {
            for _ in 0..ms / 100 {
                self.now += TICK;
                let told_bps = self.cap.told_bps().filter(|_| self.follows);
                let bps = told_bps.map_or(FULL_BPS, |bps| (bps * self.overshoot).min(FULL_BPS));
                self.smoothed_bps += (bps - self.smoothed_bps) * 0.1;
                self.cap.measure(self.now, bps, self.smoothed_bps);
                if self.cap.ask(self.now, goal_bps, FULL_BPS) {
                    self.told.push((self.now, self.cap.told_bps()));
                }
            }
        }

        fn price_bps(&self) -> f64 {
            let is_obeyed = self.cap.is_obeyed(self.now) == Some(true);
            self.cap.price_bps(self.now, self.smoothed_bps, true, is_obeyed)
        }
    }

    #[test]
    fn who_can_be_given_all_of_a_layer_is_asked_for_no_less() {
        let mut scene = Scene::new();
        scene.run(10_000, Some(FULL_BPS * 0.96));
        scene.run(10_000, None);
        assert_eq!(scene.told, []);
        assert!((scene.cap.full_bps() - FULL_BPS).abs() < 1.0);
    }

    #[test]
    fn a_cap_is_a_price_only_once_it_was_seen_to_be_kept() {
        let mut scene = Scene::new();
        scene.run(1_000, Some(600e3));
        assert_eq!(scene.price_bps(), scene.smoothed_bps, "as measured");
        scene.run(9_000, Some(600e3));
        assert!((580e3..620e3).contains(&scene.price_bps()), "{}", scene.price_bps());
        let told = scene.cap.told_bps().expect("a cap");
        assert!((told * 1.1 - 600e3).abs() < 30e3, "what an encoder exceeds it by is known: {told}");
        // From here on it costs what it is about to be.
        scene.run(100, Some(400e3));
        assert!(scene.price_bps() < 420e3 && scene.smoothed_bps > 550e3, "{}", scene.price_bps());
    }

    #[test]
    fn it_goes_down_at_once_up_in_steps_and_away_after_a_second() {
        let mut scene = Scene::new();
        scene.run(10_000, Some(600e3));
        let before = scene.told.len();
        scene.run(200, Some(300e3));
        assert_eq!(scene.told.len(), before + 1, "at once");
        let lowered = scene.told[before].1.expect("a cap");
        assert!((lowered * 1.1 - 300e3).abs() < 15e3, "as low as that: {lowered}");
        scene.run(5_000, Some(600e3));
        let raised = &scene.told[before + 1..];
        assert!((4..=5).contains(&raised.len()), "once a second: {raised:?}");
        let rates: Vec<f64> = scene.told[before..].iter().filter_map(|(_, bps)| *bps).collect();
        assert!(rates.windows(2).all(|two| two[1] <= two[0] * STEP + 1.0), "{rates:?}");
        scene.run(900, Some(f64::INFINITY));
        assert!(scene.cap.told_bps().is_some(), "not for a moment's sake");
        scene.run(200, Some(f64::INFINITY));
        assert_eq!(scene.cap.told_bps(), None);
        assert!(scene.price_bps() >= FULL_BPS * 0.99, "it is about to be as dear as it was");
    }

    #[test]
    fn a_restless_line_makes_few_messages() {
        let mut scene = Scene::new();
        for n in 0..300 {
            scene.run(100, Some(if n % 2 == 0 { 300e3 } else { 900e3 }));
        }
        let most = (0..30).map(|second| {
            let from = scene.now - Duration::from_secs(second + 1);
            scene.told.iter().filter(|(at, _)| (from..from + Duration::from_secs(1)).contains(at)).count()
        });
        assert!(most.max() <= Some(5), "{:?}", scene.told);
        assert!(scene.told.len() < 60, "{} in half a minute", scene.told.len());
    }

    #[test]
    fn who_does_not_keep_to_it_is_left_alone_for_a_minute() {
        let mut scene = Scene::new();
        scene.follows = false;
        scene.run(6_000, Some(600e3));
        assert_eq!(scene.cap.told_bps(), None, "{:?}", scene.told);
        assert_eq!(scene.cap.is_obeyed(scene.now), Some(false));
        let before = scene.told.len();
        scene.run(50_000, Some(600e3));
        assert_eq!(scene.told.len(), before);
        scene.run(10_000, Some(600e3));
        assert!(scene.told.len() > before, "another chance");
        assert!((scene.price_bps() - FULL_BPS).abs() < 1.0, "as measured all the while");
    }

    #[test]
    fn who_was_never_asked_is_trusted_for_some_seconds() {
        let mut scene = Scene::new();
        assert!(scene.cap.is_trusted(scene.now));
        scene.follows = false;
        let ticks = (0..100).find(|_| {
            scene.run(100, Some(600e3));
            !scene.cap.is_trusted(scene.now)
        });
        assert!(ticks.is_some_and(|ticks| (15..=40).contains(&ticks)), "{ticks:?} ticks");
        scene.run(1_000, None);
        assert!(
            scene.cap.lift(scene.now) && !scene.cap.is_trusted(scene.now),
            "and is not trusted again at once"
        );
    }

    #[test]
    fn who_kept_to_it_and_then_does_not_is_believed_for_two_seconds() {
        let mut scene = Scene::new();
        scene.run(10_000, Some(500e3));
        scene.follows = false;
        let ms = (0..100).find(|_| {
            scene.run(100, Some(500e3));
            scene.cap.is_obeyed(scene.now) == Some(false)
        });
        assert!(ms.is_some_and(|ticks| ticks <= 30), "{ms:?} ticks");
    }

    #[test]
    fn what_was_asked_for_too_little_less_to_tell_proves_nothing() {
        let mut scene = Scene::new();
        scene.follows = false;
        scene.run(8_000, Some(FULL_BPS * 0.9));
        assert_eq!(scene.cap.is_obeyed(scene.now), None);
        scene.run(10_000, Some(FULL_BPS * 0.9));
        assert_eq!(scene.cap.is_obeyed(scene.now), Some(false), "it does not come down at all");
    }

    #[test]
    fn a_cap_is_never_less_than_an_encoder_can_make() {
        let mut scene = Scene::new();
        scene.run(1_000, Some(1.0));
        assert_eq!(scene.cap.told_bps(), Some(TOLD_BPS_MIN));
    }
}
