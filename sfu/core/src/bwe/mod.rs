//! Congestion control of one subscriber's downlink: what was sent and what came of it ([`sent`]), whether a queue grows
//! ([`delay`]), whether loss is our doing ([`loss`]), the rate that follows from both ([`rate`]), trying for more
//! ([`probe`]), how fast packets may leave ([`pace`]), and who gets what of it ([`allocate`]).
//!
//! [`Downlink`] joins the first six; the room asks [`allocate`] with what it says. A subscriber that gives no feedback
//! on transport-wide numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01) is limited by what its receiver
//! reports and its own estimate (REMB) say; one that says nothing at all is not limited. Nothing here knows slots,
//! layers or packets' contents.

pub mod allocate;
pub mod delay;
pub mod loss;
pub mod meter;
pub mod pace;
pub mod probe;
pub mod queue;
pub mod rate;
pub mod sent;

use crate::rtp::rtcp::TransportFeedback;
use delay::{Delay, Usage};
use loss::{Loss, Verdict};
use meter::Meter;
use pace::Pace;
use probe::Probe;
use rate::Rate;
use sent::{Sent, Settled};
use std::time::{Duration, Instant};

/// What a line is believed to carry when its first feedback comes, bit/s: a picture of middling size and voices; bursts
/// show soon whether there is more.
pub const START_BPS: f64 = 900_000.0;

/// A queue of this length when the first rate is known says that the line is full, ms.
const START_QUEUE_MS: f64 = 40.0;

/// Without feedback on anything for this long while packets go out the rate goes down, µs.
const SILENT_US: u64 = 1_000_000;

/// What is taken off the rate then, each [`SILENT_STEP_US`].
const SILENT_FACTOR: f64 = 0.7;
/// See [`SILENT_FACTOR`].
const SILENT_STEP_US: u64 = 500_000;

/// Feedback packets that are walked in a second: browsers send 10 to 20; what lies beyond is counted and dropped, so
/// that feedback costs a forger more than us.
const FEEDBACKS_PER_SECOND_MAX: u32 = 200;

/// A queue of this length means that what is lost may be lost to it, ms.
const CROWDED_MS: f64 = 60.0;

/// Behind a queue of this length what came out lately is all that the line carries, ms.
const FULL_MS: f64 = 100.0;

/// While little goes out a packet with a number is sent this often, so that it is known how the line is, µs.
const SOUNDING_US: u64 = 100_000;

/// Pictures wait while more is under way than the rate allows for the round trip and this many times the interval of the
/// feedback: a line that has just become narrow is left to the sound long before its queue is seen.
const WINDOW_INTERVALS: u64 = 3;

/// Bounds of that interval as it is reckoned with, µs: browsers report each 50 to 250 ms.
const INTERVAL_US: std::ops::RangeInclusive<u64> = 50_000..=250_000;

/// The least of that window, bytes: a few packets of any size.
const WINDOW_BYTES_MIN: usize = 6_000;

/// A burst that shows this much more than the limit that was found has to be confirmed by another: receivers that are
/// busy take in at once what came in turn.
const CLAIM: f64 = 1.3;

/// A line of whose rate more than this is used is nearly full: frames leave in slices.
pub const TIGHT: f64 = 0.7;

/// A queue of more than this is the beginning of a full line, ms.
const TIGHT_MS: f64 = 20.0;

/// After a line was full it is watched closely for this long, µs.
const CALM_AFTER_US: u64 = 3_000_000;

/// A line that loses more than this is watched closely.
const CALM_LOSS: f64 = 0.005;

/// The round trip before any report told one, µs.
const ROUND_TRIP_US: u64 = 100_000;

/// One subscriber's line.
#[derive(Debug)]
pub struct Downlink {
    began_at: Instant,
    sent: Sent,
    delay: Delay,
    loss: Loss,
    through: Meter,
    sending: Meter,
    sound: Meter,
    /// Of the sound what was sent before.
    repeats: Meter,
    rate: Option<Rate>,
    /// The rate when there was last no queue.
    calm: Option<Rate>,
    probe: Probe,
    pace: Pace,
    round_trip_us: u64,
    feedback_at_us: Option<u64>,
    /// The time between two feedback packets, smoothed, µs.
    interval_us: u64,
    /// What a burst showed that is not believed yet, bit/s.
    claimed_bps: Option<f64>,
    /// When a packet with a number last went out.
    numbered_at_us: u64,
    /// When the queue was last longer than [`CROWDED_MS`].
    crowded_at_us: Option<u64>,
    lowered_for_silence_at_us: u64,
    /// When packets last began to take another way.
    moved_at_us: u64,
    /// The rate before silence lowered it.
    before_silence_bps: Option<f64>,
    /// Feedback packets in the running second, and when it began.
    budget: (u32, u64),
    arrived_us: i64,
    /// The receiver's clock: the newest reference, and how far it is from the first, both in units of 64 ms.
    reference: Option<(i32, i64)>,
    counters: Counters,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Feedback packets beyond the bound of a second.
    pub feedback_refused: u64,
    /// Numbers that feedback speaks of, which were never sent or are settled.
    pub feedback_unknown: u64,
    /// Bursts of padding that were sent.
    pub probes: u64,
}

impl Downlink {
    /// A line of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Self {
            began_at: now,
            sent: Sent::default(),
            delay: Delay::default(),
            loss: Loss::default(),
            through: Meter::default(),
            sending: Meter::default(),
            sound: Meter::default(),
            repeats: Meter::default(),
            rate: None,
            calm: None,
            probe: Probe::default(),
            pace: Pace::default(),
            round_trip_us: ROUND_TRIP_US,
            feedback_at_us: None,
            interval_us: *INTERVAL_US.end(),
            claimed_bps: None,
            numbered_at_us: 0,
            crowded_at_us: None,
            lowered_for_silence_at_us: 0,
            moved_at_us: 0,
            before_silence_bps: None,
            budget: (0, 0),
            arrived_us: 0,
            reference: None,
            counters: Counters::default(),
        }
    }

    fn us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began_at).as_micros() as u64
    }

    /// Notes a packet that carries a transport-wide number, and gives the number. `is_probe` says that it is of the
    /// burst that [`Downlink::begin_probe`] asked for.
    pub fn send_numbered(&mut self, now: Instant, bytes: usize, is_probe: bool) -> u16 {
        let now_us = self.us(now);
        self.sending.add(now_us as i64, bytes);
        self.pace.spend(now_us, bytes);
        self.numbered_at_us = now_us;
        if is_probe {
            self.probe.sent();
        }
        self.sent.push(now_us, bytes, if is_probe { self.probe.id() } else { 0 })
    }

    /// Notes a packet without a number.
    pub fn send_unnumbered(&mut self, now: Instant, bytes: usize) {
        let now_us = self.us(now);
        self.sending.add(now_us as i64, bytes);
        self.pace.spend(now_us, bytes);
    }

    /// Notes a packet of sound: it has no number, since a repeat of it has to have the same bytes.
    pub fn send_sound(&mut self, now: Instant, bytes: usize) {
        self.send_unnumbered(now, bytes);
        self.sound.add(self.us(now) as i64, bytes);
    }

    /// Notes a packet of sound that was sent before.
    pub fn send_repeat(&mut self, now: Instant, bytes: usize) {
        self.send_sound(now, bytes);
        self.repeats.add(self.us(now) as i64, bytes);
    }

    /// What repeats of sound take of the line, bit/s.
    pub fn repeats_bps(&mut self, now: Instant) -> f64 {
        let now_us = self.us(now) as i64;
        self.repeats.bps(now_us).unwrap_or(0.0)
    }

    /// What sound takes of the line, repeats included, bit/s.
    pub fn sound_bps(&mut self, now: Instant) -> f64 {
        let now_us = self.us(now) as i64;
        self.sound.bps(now_us).unwrap_or(0.0)
    }

    /// Takes the subscriber's feedback on what arrived. Returns how many packets it settles as arrived and as missing.
    pub fn handle_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>) -> (u32, u32) {
        let now_us = self.us(now);
        if now_us.saturating_sub(self.budget.1) >= 1_000_000 {
            self.budget = (0, now_us);
        }
        self.budget.0 += 1;
        if self.budget.0 > FEEDBACKS_PER_SECOND_MAX {
            self.counters.feedback_refused += 1;
            return (0, 0);
        }
        let (mut arrived, mut missing) = (0, 0);
        let since_first_us = (self.unwrap(feedback.reference) - i64::from(feedback.reference)) * 64_000;
        // After a silence it may begin with numbers that are forgotten: what is known comes behind them.
        let forgotten = usize::from(self.sent.forgotten_from(feedback.base));
        for (place, status) in (*feedback).enumerate().skip(forgotten).take(self.sent.len()) {
            let wire = feedback.base.wrapping_add(place as u16);
            match self.sent.settle(wire, status.is_some()) {
                None => self.counters.feedback_unknown += 1,
                Some(Settled::Missing(_)) => missing += 1,
                Some(settled @ (Settled::Arrived(packet) | Settled::Late(packet))) => {
                    if matches!(settled, Settled::Late(_)) {
                        self.loss.forgive();
                    } else {
                        arrived += 1;
                    }
                    let arrived_us = since_first_us + status.unwrap_or_default() * 250;
                    self.arrived_us = arrived_us;
                    self.through.add(arrived_us, usize::from(packet.bytes));
                    if packet.at_us < self.moved_at_us {
                        // It went the way of before.
                    } else if packet.probe == 0 {
                        self.delay.arrive(packet.at_us as i64, arrived_us);
                    } else if self.probe.arrive(packet.probe, arrived_us, packet.bytes) {
                        self.delay.arrive_alone(packet.at_us as i64, arrived_us);
                    }
                }
            }
        }
        if arrived == 0 {
            self.loss.count(now_us, 0, missing);
            return (0, missing);
        }
        if let Some(before) = self.feedback_at_us.replace(now_us) {
            let interval = now_us.saturating_sub(before).clamp(*INTERVAL_US.start(), *INTERVAL_US.end());
            self.interval_us = (self.interval_us * 7 + interval) / 8;
        }
        self.loss.count(now_us, arrived, missing);
        // A hole says nothing of the line behind it.
        if let (Some(bps), Some(rate)) = (self.before_silence_bps.take(), &mut self.rate) {
            *rate = Rate::new(bps);
            self.begin_on_another_way(now);
        }
        // Sound has no numbers; it is taken to get through as the rest does.
        let sound = self.sound.bps(now_us as i64).unwrap_or(0.0) * (1.0 - self.loss.fraction());
        let through = self.through.bps(self.arrived_us).map(|bps| bps + sound);
        let rate = match &mut self.rate {
            Some(rate) => rate,
            // Until it is known what gets through, all that is wished goes out.
            None => {
                let Some(through) = through else { return (arrived, missing) };
                let is_full = self.delay.queue_ms() > START_QUEUE_MS;
                self.rate.insert(Rate::new(if is_full { through } else { (through * 1.5).max(START_BPS) }))
            }
        };
        if missing > 0 {
            self.delay.note_loss();
        }
        let is_longer_way = self.delay.take_longer_way();
        let (usage, queue_ms) = (self.delay.take_usage(), self.delay.queue_ms());
        if is_longer_way {
            // There was no queue: nothing of what was done for it is due.
            if let Some(calm) = self.calm.take().filter(|calm| calm.bps() > rate.bps()) {
                *rate = calm;
            }
            self.crowded_at_us = None;
        }
        if queue_ms > CROWDED_MS {
            self.crowded_at_us = Some(now_us);
        } else if usage == Usage::Normal {
            self.calm = Some(*rate);
        }
        let through = match usage {
            // What came out before the queue grew says nothing of the line as it is now.
            Usage::Over if queue_ms > FULL_MS => {
                self.through.latest_bps().map(|latest| latest + sound).or(through)
            }
            // A full line carries what comes out of it in its fullest moments, however little is sent between them.
            Usage::Over => match (self.through.peak_bps(), through) {
                (Some(peak), Some(through)) => Some(through.max(peak + sound)),
                (_, through) => through,
            },
            Usage::Normal | Usage::Under => through,
        };
        rate.update(now_us, usage, through, self.round_trip_us);
        if usage == Usage::Over {
            self.probe.back_off(now_us);
        }
        self.judge(now_us);
        (arrived, missing)
    }

    /// How far a reference is from the first, in units of 64 ms: its 24 bits start over every 12 days.
    fn unwrap(&mut self, reference: i32) -> i64 {
        let (newest, since_first) = self.reference.unwrap_or((reference, 0));
        let step = reference.wrapping_sub(newest) << 8 >> 8;
        let since_first = since_first + i64::from(step);
        self.reference = Some((reference, since_first));
        since_first
    }

    /// Takes what receiver reports and the subscriber's own estimate say, where it gives no other feedback.
    /// `lost` is 0 to 1.
    pub fn handle_report(&mut self, now: Instant, lost: f64, estimate_bps: Option<u64>) {
        if self.feedback_at_us.is_some() {
            return;
        }
        let Some(estimate_bps) = estimate_bps else { return };
        let now_us = self.us(now);
        let lost = (lost.clamp(0.0, 1.0) * 100.0) as u32;
        self.loss.count(now_us, 100 - lost, lost);
        let mut rate = Rate::new(estimate_bps as f64);
        if let Some(before) = self.rate.filter(|before| before.bps() < rate.bps()) {
            rate = before;
            rate.raise_to((before.bps() * 1.1).min(estimate_bps as f64));
        }
        self.rate = Some(rate);
        self.judge(now_us);
    }

    /// Packets take another way from now on: what was known of delay and loss was of the old one, and its rate is no more
    /// than a guess.
    pub fn begin_on_another_way(&mut self, now: Instant) {
        let now_us = self.us(now);
        self.moved_at_us = now_us;
        (self.delay, self.loss, self.crowded_at_us) = (Delay::default(), Loss::default(), None);
        self.calm = None;
        if let Some(rate) = &mut self.rate {
            *rate = Rate::new(rate.bps().min(START_BPS));
        }
        self.probe.back_off(now_us);
    }

    /// Takes the round trip that the subscriber's reports tell.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip_us = round_trip.as_micros().min(2_000_000) as u64;
    }

    /// Does what is due each tick of the room: judges what came late, notices silence.
    pub fn handle_tick(&mut self, now: Instant) {
        let now_us = self.us(now);
        self.judge(now_us);
        let is_silent = self.feedback_at_us.is_some_and(|at| now_us.saturating_sub(at) > SILENT_US)
            && self.sent.unanswered_since_us().is_some_and(|at| now_us.saturating_sub(at) > SILENT_US);
        if is_silent && now_us.saturating_sub(self.lowered_for_silence_at_us) > SILENT_STEP_US {
            self.lowered_for_silence_at_us = now_us;
            if let Some(rate) = &mut self.rate {
                self.before_silence_bps.get_or_insert(rate.bps());
                rate.lower(now_us, SILENT_FACTOR);
            }
        }
        let is_tight = self.is_tight(now_us);
        if let Some(rate) = &self.rate {
            self.pace.set_rate(rate.bps(), is_tight, self.delay.queue_ms() > CROWDED_MS);
        }
    }

    fn judge(&mut self, now_us: u64) {
        let Some(rate) = &mut self.rate else { return };
        match self.loss.judge(now_us, rate.bps()) {
            Verdict::Keep => {}
            Verdict::Decrease(factor) => {
                rate.lower(now_us, factor);
                self.probe.back_off(now_us);
            }
            Verdict::Restore(bps) => rate.raise_to(bps),
        }
        if let Some(bps) = self.probe.judge(now_us) {
            let is_claim = rate.limit_bps().is_some_and(|limit| bps > limit * CLAIM);
            match self.claimed_bps.take() {
                None if is_claim => {
                    self.claimed_bps = Some(bps);
                    self.probe.again(now_us);
                }
                Some(before) if is_claim => rate.raise_to(bps.min(before)),
                _ => rate.raise_to(bps),
            }
        }
    }

    /// Begins a burst of padding if more is wanted than the line is known to carry: how many bytes to send at once.
    pub fn begin_probe(&mut self, now: Instant, wanted_bps: f64) -> Option<usize> {
        let now_us = self.us(now);
        // A burst says nothing without feedback on it.
        self.feedback_at_us?;
        let bytes = self.probe.begin(now_us, self.rate?.bps(), wanted_bps)?;
        self.counters.probes += 1;
        Some(bytes)
    }

    /// What the line is believed to carry, bit/s; `None` while nothing is known.
    pub fn bps(&self) -> Option<f64> {
        self.rate.map(|rate| rate.bps())
    }

    /// What goes out now, bit/s.
    pub fn sending_bps(&mut self, now: Instant) -> f64 {
        let now_us = self.us(now) as i64;
        self.sending.bps(now_us).unwrap_or(0.0)
    }

    /// The share of packets lost lately, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.loss.fraction()
    }

    /// Whether a packet with a number is due for the sake of feedback alone: sound has none, so while pictures are held
    /// back nothing else would tell how the line is.
    pub fn is_sounding_due(&self, now: Instant) -> bool {
        self.feedback_at_us.is_some() && self.us(now).saturating_sub(self.numbered_at_us) >= SOUNDING_US
    }

    /// Whether packets waited in a long queue within this time: what was lost then was lost to it, and more sent for it
    /// would be lost, too.
    pub fn is_crowded(&self, now: Instant, within: Duration) -> bool {
        let is_recent = |at: u64| self.us(now).saturating_sub(at) <= within.as_micros() as u64;
        self.crowded_at_us.is_some_and(is_recent)
    }

    /// Whether nothing of the line moves: no queue, no loss, nothing tried or taken back lately. As long as little is sent it
    /// may be looked at less often then.
    pub fn is_calm(&self, now: Instant) -> bool {
        let is_over = |at: u64| self.us(now).saturating_sub(at) >= CALM_AFTER_US;
        self.loss.fraction() < CALM_LOSS
            && self.delay.queue_ms() <= TIGHT_MS
            && !self.probe.is_running()
            && self.claimed_bps.is_none()
            && self.before_silence_bps.is_none()
            && self.crowded_at_us.is_none_or(is_over)
            && self.rate.and_then(|rate| rate.decreased_at_us()).is_none_or(is_over)
    }

    /// How long packets wait on the way, ms.
    pub fn queue_ms(&self) -> f64 {
        self.delay.queue_ms()
    }

    /// When feedback last told of an arrival.
    pub fn answered_at(&self) -> Option<Instant> {
        self.feedback_at_us.map(|us| self.began_at + Duration::from_micros(us))
    }

    /// Whether something sent so long ago has not been answered, nor anything after it.
    pub fn is_unanswered(&self, now: Instant, after: Duration) -> bool {
        let now_us = self.us(now);
        let is_old = |at: u64| now_us.saturating_sub(at) >= after.as_micros() as u64;
        self.sent.unanswered_since_us().is_some_and(is_old) && self.feedback_at_us.is_some_and(is_old)
    }

    /// How many bytes may leave now; without bound while nothing is known.
    pub fn may_send(&mut self, now: Instant) -> usize {
        let Some(window) = self.window_bytes() else { return usize::MAX };
        let now_us = self.us(now);
        self.pace.available(now_us).min(window.saturating_sub(self.sent.in_flight_bytes()))
    }

    /// When so many bytes may leave, if not now: feedback may change that any time.
    pub fn may_send_at(&mut self, now: Instant, bytes: usize) -> Instant {
        let now_us = self.us(now);
        self.began_at + Duration::from_micros(self.pace.ready_at_us(now_us, bytes))
    }

    /// How much may be under way; `None` while nothing is known.
    fn window_bytes(&self) -> Option<usize> {
        let window_us = self.round_trip_us + self.interval_us * WINDOW_INTERVALS;
        let bytes = self.rate?.bps() / 8e6 * window_us as f64;
        self.feedback_at_us.map(|_| (bytes as usize).max(WINDOW_BYTES_MIN))
    }

    /// What was dropped.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.sent.memory_bytes()
    }

    /// Whether the line is full, or was a moment ago.
    fn is_tight(&mut self, now_us: u64) -> bool {
        let sending = self.sending.bps(now_us as i64).unwrap_or(0.0);
        let Some(rate) = &self.rate else { return false };
        let is_fresh = rate.decreased_at_us().is_some_and(|at| now_us.saturating_sub(at) < CALM_AFTER_US);
        is_fresh || self.delay.queue_ms() > TIGHT_MS || sending > rate.bps() * TIGHT
    }
}
