//! How long packets wait on the way: their delay above the least that was seen lately, and whether it is a queue at all or
//! a way that has become longer.
//!
//! It is told when packets arrived and how much later than they were sent, by two clocks that have nothing to do with
//! each other: only differences count. It knows no rates.

/// A queue that stands above this is overuse even if it no longer grows, ms: a call with more is no conversation.
const STANDING_MS: f64 = 120.0;

/// A queue that has become this much shorter within [`DRAIN_US`] drains, ms.
const DRAIN_MS: f64 = 10.0;
/// See [`DRAIN_MS`].
const DRAIN_US: i64 = 200_000;

/// A queue that stands for this long although less and less is sent is none: the way has become longer, µs.
const LONGER_WAY_US: i64 = 2_500_000;

/// The same where delay stays within [`STEADY_US`] meanwhile and nothing is lost, µs: a queue that less is sent into
/// becomes shorter by more than that.
const LONGER_STEADY_WAY_US: i64 = 900_000;
/// See [`LONGER_STEADY_WAY_US`].
const STEADY_US: i64 = 15_000;

/// Packets that arrive within this time arrive at once, µs: the last of them waited least and tells how long the queue is.
const AT_ONCE_US: i64 = 5_000;

/// For how long the least delay is remembered before it is measured anew, µs: clocks drift apart, routes change.
const LEAST_DELAY_US: i64 = 20_000_000;

/// The time over which the queue is smoothed, µs.
const QUEUE_US: f64 = 150_000.0;

/// Delay that becomes this much longer from one arrival to the next where there was no queue is a step, µs. A queue
/// grows by what one packet takes, which is less on any line that carries a picture.
const STEP_US: i64 = 50_000;

/// No queue, in this respect, ms.
const STEP_QUEUE_MS: f64 = 30.0;

/// A step after which delay stays as it is for this long is a longer way, µs: a queue would grow on or drain.
const STEP_STEADY_US: i64 = 250_000;

/// Arrivals which that takes: sound alone has a dozen in that time, of which one in five carries a number.
const STEP_ARRIVALS: u32 = 3;

/// Beyond the step by more than this delay goes on growing, µs; below it by more than [`STEADY_US`] it drains.
const STEP_GROWS_US: i64 = 40_000;

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    /// The least delay of the running and of the last period; and when the running one began.
    least_us: (Option<i64>, Option<i64>, i64),
    /// Delay above the least, smoothed, ms.
    ms: f64,
    /// The packets that arrived at once, last.
    arrival: Option<Arrival>,
    /// How long the queue was at the beginning of the running and of the last [`DRAIN_US`], and when the running one began.
    before_ms: (f64, f64, i64),
    /// Since when the queue has stood above what a call bears.
    standing_since_us: Option<i64>,
    /// Since when delay has been steady meanwhile, and its bounds, µs.
    steady: Option<(i64, i64, i64)>,
    step: Option<Step>,
    has_way_become_longer: bool,
}

/// Packets that arrive at once.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// When the first of them came, µs.
    at_us: i64,
    /// The least of their delays, µs.
    delay_us: i64,
    /// How long the queue was before, smoothed, ms, and how much these count.
    before_ms: f64,
    weight: f64,
}

/// Delay that has become longer at once, of which it is not known yet what it is.
#[derive(Clone, Copy, Debug)]
struct Step {
    since_us: i64,
    /// The first delay, µs.
    delay_us: i64,
    arrivals: u32,
}

impl Queue {
    /// Takes when a packet arrived and how much later than it was sent, µs.
    pub fn note(&mut self, arrived_us: i64, delay_us: i64) {
        let (running, last, since) = &mut self.least_us;
        if (arrived_us - *since).abs() > LEAST_DELAY_US {
            (*last, *running, *since) = (*running, None, arrived_us);
        }
        *running = Some(running.map_or(delay_us, |least| least.min(delay_us)));
        let least = last.map_or(delay_us, |last| last.min(delay_us)).min(running.unwrap_or(delay_us));
        if self.note_step(arrived_us, delay_us) {
            return;
        }
        let arrival = match &mut self.arrival {
            Some(arrival) if (0..AT_ONCE_US).contains(&(arrived_us - arrival.at_us)) => {
                arrival.delay_us = arrival.delay_us.min(delay_us);
                *arrival
            }
            before => {
                let passed_us = before.map_or(0, |before| (arrived_us - before.at_us).max(0));
                let weight = 1.0 - (-(passed_us as f64) / QUEUE_US).exp();
                *before.insert(Arrival { at_us: arrived_us, delay_us, before_ms: self.ms, weight })
            }
        };
        let waited_ms = ((arrival.delay_us - least) as f64 / 1e3).min(10_000.0);
        self.ms = arrival.before_ms + (waited_ms - arrival.before_ms) * arrival.weight;
        let (running, last, since) = &mut self.before_ms;
        if arrived_us - *since >= DRAIN_US {
            (*last, *running, *since) = (*running, self.ms, arrived_us);
        }
        if !self.is_standing() {
            (self.standing_since_us, self.steady) = (None, None);
            return;
        }
        let (since, least_steady, most) = self.steady.unwrap_or((arrived_us, delay_us, delay_us));
        let (least_steady, most) = (least_steady.min(delay_us), most.max(delay_us));
        let is_steady = most - least_steady <= STEADY_US;
        let steady = if is_steady { (since, least_steady, most) } else { (arrived_us, delay_us, delay_us) };
        self.steady = Some(steady);
        let standing_since_us = *self.standing_since_us.get_or_insert(arrived_us);
        if arrived_us - steady.0 > LONGER_STEADY_WAY_US {
            self.begin_anew(arrived_us, delay_us, true);
        } else if arrived_us - standing_since_us > LONGER_WAY_US {
            self.begin_anew(arrived_us, delay_us, false);
        }
    }

    /// Looks whether delay has become longer at once. True while that is not known to be a queue.
    fn note_step(&mut self, arrived_us: i64, delay_us: i64) -> bool {
        let Some(step) = &mut self.step else {
            let grown_us = self.arrival.map_or(0, |before| delay_us - before.delay_us);
            let is_step = grown_us > STEP_US && self.ms < STEP_QUEUE_MS;
            self.step = is_step.then_some(Step { since_us: arrived_us, delay_us, arrivals: 1 });
            return is_step;
        };
        let off_us = delay_us - step.delay_us;
        step.arrivals += 1;
        let is_over = arrived_us - step.since_us >= STEP_STEADY_US && step.arrivals >= STEP_ARRIVALS;
        let most_us = if is_over { STEADY_US } else { STEP_GROWS_US };
        if !(-STEADY_US..=most_us).contains(&off_us) {
            self.step = None;
            return false;
        }
        if is_over {
            self.begin_anew(arrived_us, delay_us, true);
        }
        true
    }

    /// The least delay is this from now on.
    fn begin_anew(&mut self, arrived_us: i64, delay_us: i64, has_way_become_longer: bool) {
        *self = Self {
            least_us: (Some(delay_us), None, arrived_us),
            before_ms: self.before_ms,
            has_way_become_longer: self.has_way_become_longer || has_way_become_longer,
            ..Self::default()
        };
    }

    /// Something was lost: a queue that is full is steady, too.
    pub fn note_loss(&mut self) {
        self.steady = None;
        if let (Some(step), Some(arrival)) = (self.step.take(), &mut self.arrival) {
            arrival.delay_us = step.delay_us;
        }
    }

    /// Whether the way has become longer for sure; says so once.
    pub fn take_longer_way(&mut self) -> bool {
        std::mem::take(&mut self.has_way_become_longer)
    }

    /// How long it is, ms.
    pub fn ms(&self) -> f64 {
        self.ms
    }

    /// Whether it is longer than a call bears.
    pub fn is_standing(&self) -> bool {
        self.ms > STANDING_MS
    }

    /// Whether it becomes shorter.
    pub fn is_draining(&self) -> bool {
        self.ms < self.before_ms.1 - DRAIN_MS
    }

    /// Whether delay has just become longer at once, so that the next arrivals have to tell what that is.
    pub fn is_unsure(&self) -> bool {
        self.step.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet each 20 ms that takes `delay_us` longer than the least; when the way was known to have become longer, in
    /// packets after the hundredth, and the longest queue seen.
    fn known(loses: bool, delay_us: impl Fn(i64) -> i64) -> (Option<i64>, f64) {
        let mut queue = Queue::default();
        let mut longest_ms = 0.0_f64;
        for n in 0..400_i64 {
            let longer_us = if n < 100 { 0 } else { delay_us(n - 100) };
            queue.note(n * 20_000 + longer_us, longer_us - 7_000_000);
            if loses && n % 20 == 0 {
                queue.note_loss();
            }
            if !queue.is_unsure() {
                longest_ms = longest_ms.max(queue.ms());
            }
            if queue.take_longer_way() {
                return (Some(n - 100), longest_ms);
            }
        }
        (None, longest_ms)
    }

    #[test]
    fn delay_that_is_longer_at_once_and_stays_so_is_a_longer_way_and_never_a_queue() {
        let (after, longest_ms) = known(false, |_| 130_000);
        assert!(after.is_some_and(|packets| (12..=15).contains(&packets)), "{after:?}");
        assert!(longest_ms < 1.0, "{longest_ms}");
        let (after, longest_ms) = known(true, |_| 130_000);
        assert!(after.is_none() && longest_ms > 100.0, "what is lost too may be a full queue: {after:?}");
    }

    #[test]
    fn delay_that_is_longer_at_once_and_grows_or_falls_is_a_queue() {
        for by_us in [9_000, -5_000] {
            let (after, longest_ms) = known(false, |n| (130_000 + n.min(26) * by_us).max(0));
            assert!(after.is_none_or(|packets| packets > 60), "{after:?}");
            assert!(longest_ms > 60.0, "{longest_ms}");
        }
    }

    #[test]
    fn delay_that_becomes_longer_bit_by_bit_and_stays_so_is_a_longer_way_later() {
        let rise = |n: i64| (n + 1).min(10) * 13_000;
        let (after, longest_ms) = known(false, rise);
        assert!(after.is_some_and(|packets| (45..=100).contains(&packets)), "{after:?}");
        assert!(longest_ms > 100.0, "{longest_ms}");
        assert_eq!(known(true, rise).0, None, "a full queue is steady, too");
        assert_eq!(known(false, |n| rise(n) - n * 600).0, None, "a queue that drains by 3 %");
    }

    #[test]
    fn a_single_packet_that_comes_late_is_neither() {
        let (after, longest_ms) = known(false, |n| if n % 50 == 0 { 100_000 } else { 0 });
        assert!(after.is_none() && longest_ms < 30.0, "{after:?} {longest_ms}");
    }
}
