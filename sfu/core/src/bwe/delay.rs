//! Is a queue growing on the way? The delay gradient of draft-ietf-rmcat-gcc-02 section 5, with the trend-line filter
//! that replaced its Kalman filter in practice.
//!
//! It is told when packets were sent and when they arrived, each on a clock of its own: only differences count. It
//! knows no rates.

use super::queue::Queue;
use arrayvec::ArrayVec;

/// Packets sent within this time are one group (section 5.2), µs.
const GROUP_US: i64 = 5_000;

/// Groups that the trend is drawn through.
const WINDOW: usize = 20;

/// How strongly accumulated delay is smoothed.
const SMOOTHING: f64 = 0.9;

/// What the trend is multiplied with before it is compared with the threshold.
const GAIN: f64 = 4.0;

/// Groups after which the trend counts in full.
const TRUSTED_GROUPS: u32 = 60;

/// Bounds of the adaptive threshold (section 5.4), and how fast it follows up and down, per ms.
const THRESHOLD_MS: (f64, f64, f64) = (6.0, 12.5, 600.0);
const FOLLOW_UP: f64 = 0.0087;
const FOLLOW_DOWN: f64 = 0.039;

/// A trend this far above the threshold is a spike that the threshold does not follow.
const SPIKE_MS: f64 = 15.0;

/// Overuse has to last for this long, ms.
const OVERUSE_MS: f64 = 10.0;

/// Clocks that jump by more than this have been set, µs: everything begins anew.
const JUMP_US: i64 = 3_000_000;

/// What the line does with what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// The queue, if any, stays as it is.
    #[default]
    Normal,
    /// A queue grows: more is sent than gets through.
    Over,
    /// A queue drains.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    sent_first: i64,
    sent_last: i64,
    arrived_first: i64,
    arrived_last: i64,
}

/// The detector.
#[derive(Debug, Default)]
pub struct Delay {
    group: Option<Group>,
    before: Option<Group>,
    groups: u32,
    origin_us: i64,
    accumulated_ms: f64,
    smoothed_ms: f64,
    window: ArrayVec<(f64, f64), WINDOW>,
    trend: f64,
    threshold_ms: Option<f64>,
    updated_at_us: i64,
    over_ms: f64,
    over_count: u32,
    usage: Usage,
    queue: Queue,
}

impl Delay {
    /// Takes a packet's two times, in the order of sending, µs.
    pub fn arrive(&mut self, sent_us: i64, arrived_us: i64) {
        self.queue.note(arrived_us, arrived_us - sent_us);
        let Some(group) = &mut self.group else {
            self.group = Some(Group::new(sent_us, arrived_us));
            return;
        };
        if (arrived_us - group.arrived_last).abs() > JUMP_US || (sent_us - group.sent_last).abs() > JUMP_US {
            let threshold_ms = self.threshold_ms;
            *self = Self { threshold_ms, ..Self::default() };
            self.group = Some(Group::new(sent_us, arrived_us));
            return;
        }
        if sent_us < group.sent_first {
            return; // overtaken: it says nothing of the queue
        }
        if group.takes(sent_us, arrived_us) {
            group.sent_last = group.sent_last.max(sent_us);
            group.arrived_last = group.arrived_last.max(arrived_us);
            return;
        }
        let group = *group;
        self.group = Some(Group::new(sent_us, arrived_us));
        if let Some(before) = self.before.replace(group) {
            let sent = (group.sent_last - before.sent_last) as f64 / 1e3;
            let arrived = (group.arrived_last - before.arrived_last) as f64 / 1e3;
            if arrived >= 0.0 {
                self.update(sent, arrived - sent, group.arrived_last);
            }
        }
    }

    /// Takes the two times of a packet that says nothing of a trend.
    pub fn arrive_alone(&mut self, sent_us: i64, arrived_us: i64) {
        self.queue.note(arrived_us, arrived_us - sent_us);
    }

    /// What the line does, and once: overuse that was told is over until it is found again.
    pub fn take_usage(&mut self) -> Usage {
        if self.queue.is_unsure() {
            return Usage::Normal;
        }
        if self.queue.is_standing() {
            // What is sent is less than what gets out: that is enough, and no measure of the line.
            return if self.queue.is_draining() { Usage::Under } else { Usage::Over };
        }
        let usage = self.usage;
        if usage == Usage::Over {
            self.usage = Usage::Normal;
        }
        usage
    }

    /// How long packets wait in a queue on the way, ms: the delay above the least seen lately.
    pub fn queue_ms(&self) -> f64 {
        self.queue.ms()
    }

    /// Something was lost: a queue that is full is steady, too.
    pub fn note_loss(&mut self) {
        self.queue.note_loss();
    }

    /// Whether what was or would have been taken for a queue turned out to be a longer way for sure; says so once.
    pub fn take_longer_way(&mut self) -> bool {
        if !self.queue.take_longer_way() {
            return false;
        }
        // The trend climbed with it.
        let (queue, threshold_ms) = (std::mem::take(&mut self.queue), self.threshold_ms);
        let (groups, origin_us, updated_at_us) = (self.groups, self.origin_us, self.updated_at_us);
        *self = Self { queue, threshold_ms, groups, origin_us, updated_at_us, ..Self::default() };
        true
    }

    fn update(&mut self, sent_ms: f64, gradient_ms: f64, arrived_us: i64) {
        if self.groups == 0 {
            self.origin_us = arrived_us;
            self.updated_at_us = arrived_us;
        }
        self.groups = (self.groups + 1).min(1_000);
        self.accumulated_ms += gradient_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        if self.window.is_full() {
            self.window.remove(0);
        }
        self.window.push(((arrived_us - self.origin_us) as f64 / 1e3, self.smoothed_ms));
        let trend =
            if self.window.is_full() { slope(&self.window).unwrap_or(self.trend) } else { self.trend };
        let scaled = f64::from(self.groups.min(TRUSTED_GROUPS)) * trend * GAIN;
        let threshold = self.threshold_ms.unwrap_or(THRESHOLD_MS.1);
        if scaled > threshold {
            self.over_ms += if self.over_count == 0 { sent_ms / 2.0 } else { sent_ms };
            self.over_count += 1;
            if self.over_ms > OVERUSE_MS && self.over_count > 1 && trend >= self.trend {
                (self.over_ms, self.over_count) = (0.0, 0);
                self.usage = Usage::Over;
            }
        } else {
            (self.over_ms, self.over_count) = (0.0, 0);
            self.usage = if scaled < -threshold { Usage::Under } else { Usage::Normal };
        }
        self.trend = trend;
        let passed_ms = ((arrived_us - self.updated_at_us) as f64 / 1e3).clamp(0.0, 100.0);
        self.updated_at_us = arrived_us;
        if scaled.abs() <= threshold + SPIKE_MS {
            let follow = if scaled.abs() < threshold { FOLLOW_DOWN } else { FOLLOW_UP };
            let moved = threshold + follow * (scaled.abs() - threshold) * passed_ms;
            self.threshold_ms = Some(moved.clamp(THRESHOLD_MS.0, THRESHOLD_MS.2));
        }
    }
}

impl Group {
    fn new(sent_us: i64, arrived_us: i64) -> Self {
        Self { sent_first: sent_us, sent_last: sent_us, arrived_first: arrived_us, arrived_last: arrived_us }
    }

    /// Whether a packet belongs to it: sent within the group's time, or arrived in one burst with it.
    fn takes(&self, sent_us: i64, arrived_us: i64) -> bool {
        if sent_us - self.sent_first <= GROUP_US {
            return true;
        }
        let (sent, arrived) = (sent_us - self.sent_last, arrived_us - self.arrived_last);
        arrived - sent < 0 && arrived <= GROUP_US && arrived_us - self.arrived_first < 20 * GROUP_US
    }
}

/// The slope of the line of least squares; `None` when all points stand at one time.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (covariance, variance) = points.iter().fold((0.0, 0.0), |(covariance, variance), (x, y)| {
        (covariance + (x - mean_x) * (y - mean_y), variance + (x - mean_x) * (x - mean_x))
    });
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets every 20 ms over a line whose queue grows by `growth_us` a packet; says what was found.
    fn usages(packets: i64, growth_us: i64, jitter_us: i64) -> Vec<Usage> {
        let mut delay = Delay::default();
        let mut random = 1_u64;
        (0..packets)
            .map(|n| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let jitter = if jitter_us == 0 { 0 } else { (random >> 33) as i64 % jitter_us };
                delay.arrive(n * 20_000, 7_000_000 + n * (20_000 + growth_us) + jitter);
                delay.take_usage()
            })
            .collect()
    }

    #[test]
    fn a_queue_that_grows_is_overuse_within_half_a_second() {
        let usages = usages(40, 2_000, 0);
        let found = usages.iter().position(|usage| *usage == Usage::Over).expect("found");
        assert!(found < 30, "after {found} packets");
    }

    #[test]
    fn a_steady_line_is_never_overused_whatever_the_clocks_say() {
        assert!(usages(2_000, 0, 0).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn jitter_is_seldom_taken_for_a_queue() {
        let over = usages(3_000, 0, 40_000).iter().filter(|usage| **usage == Usage::Over).count();
        assert!(over < 30, "{over} of 3000");
    }

    #[test]
    fn a_longer_way_is_a_queue_only_for_a_moment() {
        let mut delay = Delay::default();
        let mut over = Vec::new();
        for n in 0..500_i64 {
            let way_us = if n < 100 { 20_000 } else { 300_000 };
            delay.arrive(n * 20_000, n * 20_000 + way_us);
            if delay.take_usage() == Usage::Over {
                over.push(n);
            }
        }
        assert!(over.first().is_some_and(|first| (100..130).contains(first)), "{over:?}");
        assert!(over.last().is_some_and(|last| *last < 260), "{over:?}");
        assert!(delay.queue_ms() < 1.0);
    }

    #[test]
    fn a_receiver_that_pauses_makes_no_queue() {
        let mut delay = Delay::default();
        // Every two seconds it takes in at once what came in a quarter of a second.
        for n in 0..1_000_i64 {
            let arrives_us = n * 20_000;
            let pause_us = arrives_us % 2_000_000;
            let read_us = if pause_us < 250_000 { arrives_us - pause_us + 250_000 } else { arrives_us };
            delay.arrive(arrives_us - 20_000, read_us);
            if read_us == arrives_us {
                assert!(delay.queue_ms() < 20.0, "{} ms after {n}", delay.queue_ms());
                assert_ne!(delay.take_usage(), Usage::Over);
            }
        }
    }

    #[test]
    fn a_long_queue_that_drains_is_no_overuse() {
        let mut delay = Delay::default();
        let mut usages = Vec::new();
        // Two seconds of calm, a queue of 400 ms at once, which then drains by a fifth of what comes out.
        for n in 0..250_i64 {
            let queue_us = if n < 100 { 0 } else { 400_000 - (n - 100) * 4_000 };
            delay.arrive(n * 20_000, n * 20_000 + queue_us.max(0));
            usages.push(delay.take_usage());
        }
        let over = |range: std::ops::Range<usize>| usages[range].contains(&Usage::Over);
        assert!(over(100..130), "when it came");
        assert!(!over(140..250), "while it drains");
    }

    #[test]
    fn a_clock_that_is_set_begins_everything_anew() {
        let mut delay = Delay::default();
        for n in 0..100 {
            delay.arrive(n * 20_000, n * 20_000);
        }
        delay.arrive(2_000_000, 900_000_000);
        delay.arrive(2_020_000, 900_020_000);
        assert_eq!(delay.take_usage(), Usage::Normal);
        assert!(delay.queue_ms() < 1.0);
    }
}
