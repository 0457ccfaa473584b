//! One way of a line: a packet goes in with the time, and comes out later, twice or never.
//!
//! A packet is lost or not, waits for its turn on a line of limited rate, and then travels. The rate's queue is bounded
//! in time and drops at its tail, as home routers do. Pure and seeded: the same packets at the same times meet the same
//! fate. `str0m-netem`, which has the same stages, counts packets that travel as queued, keeps jittered packets in
//! order always and asks the clock, hence a link of our own.

use super::profile::LinkProfile;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What IPv4 (20 bytes) and UDP (8 bytes) add to a datagram on a line.
pub const HEADER_BYTES: usize = 28;

/// Packets under way at one time: more than a second of 3 Mbit/s in packets of the smallest size that media has.
const UNDER_WAY_MAX: usize = 8_192;

/// Waits in the queue are told apart to so much.
const WAIT_STEP: Duration = Duration::from_millis(2);

/// So many steps are told apart, which is a second; what waits longer counts as the last.
const WAIT_STEPS: usize = 512;

/// What has become of the packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LinkCounters {
    /// Packets that were put in.
    pub offered: u64,
    /// Of these, lost at random or in bursts.
    pub lost: u64,
    /// Of these, dropped because the queue was full.
    pub overflowed: u64,
    /// Of these, fallen into the black hole.
    pub swallowed: u64,
    /// Copies that were made.
    pub duplicated: u64,
    /// Packets that came out, copies included.
    pub delivered: u64,
    /// Their bytes, IP and UDP headers included.
    pub delivered_bytes: u64,
    /// How long the packets that came out had waited in the queue, summed, in microseconds.
    pub queued_us: u64,
    /// What 95 % of these waits are not longer than, in microseconds, to 2 ms and up to a second.
    pub queued_us_95: u64,
    /// The longest of these waits, in microseconds.
    pub queued_us_max: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Link<T> {
    profile: LinkProfile,
    random: Random,
    /// The state of the Gilbert-Elliott model.
    is_bad: bool,
    /// When the line of limited rate has carried all that was put in.
    free_at: Option<Instant>,
    /// When the last packet comes out, for lines that keep the order.
    last_out_at: Option<Instant>,
    under_way: BinaryHeap<Reverse<Parcel<T>>>,
    count: u64,
    counters: LinkCounters,
    /// How many of the packets that came out had waited so many steps.
    waits: Box<[u64; WAIT_STEPS]>,
}

impl<T: Clone> Link<T> {
    /// A link.
    pub fn new(profile: LinkProfile, seed: u64) -> Self {
        Self {
            profile,
            random: Random(seed),
            is_bad: false,
            free_at: None,
            last_out_at: None,
            under_way: BinaryHeap::new(),
            count: 0,
            counters: LinkCounters::default(),
            waits: Box::new([0; WAIT_STEPS]),
        }
    }

    /// From now on is like this. What is under way stays so.
    pub fn set_profile(&mut self, profile: LinkProfile) {
        self.profile = profile;
        self.is_bad = false;
        if profile.rate_kbps.is_none() {
            self.free_at = None;
        }
    }

    /// Takes in a datagram of so many bytes.
    pub fn handle_packet(&mut self, now: Instant, bytes: usize, packet: T) {
        self.counters.offered += 1;
        // The dice are cast for every packet, whatever becomes of it: a packet's fate does not shift those after it.
        let is_lost = self.loses();
        let is_twice = self.random.share() < self.profile.duplicate;
        let jitter = Duration::from_millis(self.profile.jitter_ms.into()).mul_f64(self.random.share());
        if self.profile.black_hole {
            self.counters.swallowed += 1;
        } else if is_lost {
            self.counters.lost += 1;
        } else {
            self.carry(now, bytes, packet.clone(), jitter);
            if is_twice {
                self.counters.duplicated += 1;
                self.carry(now, bytes, packet, jitter);
            }
        }
    }

    /// The next packet that has come out.
    pub fn poll_packet(&mut self, now: Instant) -> Option<T> {
        if self.under_way.peek()?.0.at > now {
            return None;
        }
        let Reverse(parcel) = self.under_way.pop()?;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += (parcel.bytes + HEADER_BYTES) as u64;
        self.counters.queued_us += parcel.queued_us;
        self.counters.queued_us_max = self.counters.queued_us_max.max(parcel.queued_us);
        let steps = (u128::from(parcel.queued_us) / WAIT_STEP.as_micros()) as usize;
        self.waits[steps.min(WAIT_STEPS - 1)] += 1;
        Some(parcel.packet)
    }

    /// When the next packet comes out.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(parcel)| parcel.at)
    }

    /// What has become of the packets so far.
    pub fn counters(&self) -> LinkCounters {
        LinkCounters { queued_us_95: self.queued_us_95(), ..self.counters }
    }

    /// Starts the counters over.
    pub fn take_counters(&mut self) -> LinkCounters {
        let taken = self.counters();
        self.counters = LinkCounters::default();
        self.waits.fill(0);
        taken
    }

    fn queued_us_95(&self) -> u64 {
        // Of nothing or next to nothing the longest is all there is to say.
        let allowed_longer = self.counters.delivered / 20;
        let mut longer = 0;
        let step = self.waits.iter().rposition(|count| {
            longer += count;
            longer > allowed_longer
        });
        let step_us = WAIT_STEP.as_micros() as u64;
        step.map_or(0, |step| ((step as u64 + 1) * step_us).min(self.counters.queued_us_max))
    }

    fn loses(&mut self) -> bool {
        let (draw, LinkProfile { loss, burst_packets, .. }) = (self.random.share(), self.profile);
        if burst_packets <= 1.0 {
            return draw < loss;
        }
        // The chain leaves its bad state after `burst_packets` on average and is there for `loss` of the time.
        let leave = 1.0 / burst_packets;
        let enter = leave * loss / (1.0 - loss);
        self.is_bad = if self.is_bad { draw >= leave } else { draw < enter };
        self.is_bad
    }

    fn carry(&mut self, now: Instant, bytes: usize, packet: T, jitter: Duration) {
        let mut sent_at = now;
        let mut queued = Duration::ZERO;
        if let Some(rate_kbps) = self.profile.rate_kbps {
            let starts_at = self.free_at.map_or(now, |free_at| free_at.max(now));
            queued = starts_at - now;
            if queued > Duration::from_millis(self.profile.queue_ms.into()) {
                self.counters.overflowed += 1;
                return;
            }
            let bits = ((bytes + HEADER_BYTES) * 8) as f64;
            sent_at = starts_at + Duration::from_secs_f64(bits / (f64::from(rate_kbps) * 1e3));
            self.free_at = Some(sent_at);
        }
        if self.under_way.len() >= UNDER_WAY_MAX {
            self.counters.overflowed += 1;
            return;
        }
        let mut at = sent_at + Duration::from_millis(self.profile.delay_ms.into()) + jitter;
        if !self.profile.reorder {
            at = self.last_out_at.map_or(at, |last| last.max(at));
            self.last_out_at = Some(at);
        }
        self.count += 1;
        let queued_us = queued.as_micros() as u64;
        self.under_way.push(Reverse(Parcel { at, count: self.count, bytes, queued_us, packet }));
    }
}

/// A packet under way; the earliest comes out first, among equals the one that went in first.
#[derive(Debug)]
struct Parcel<T> {
    at: Instant,
    count: u64,
    bytes: usize,
    queued_us: u64,
    packet: T,
}

impl<T> Ord for Parcel<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.count).cmp(&(other.at, other.count))
    }
}

impl<T> PartialOrd for Parcel<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Eq for Parcel<T> {}

impl<T> PartialEq for Parcel<T> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seeded, the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(1);
    const BYTES: usize = 1_000 - HEADER_BYTES;

    /// Puts `count` packets in, one a millisecond, and gives when each came out, in order of coming out.
    fn through(profile: LinkProfile, seed: u64, count: usize) -> (Vec<(usize, Duration)>, LinkCounters) {
        let start = Instant::now();
        let mut link = Link::new(profile, seed);
        let mut out = Vec::new();
        for tick in 0..count + 30_000 {
            let now = start + EVERY * tick as u32;
            while let Some(packet) = link.poll_packet(now) {
                out.push((packet, now - start - EVERY * packet as u32));
            }
            if tick < count {
                link.handle_packet(now, BYTES, tick);
            }
        }
        assert_eq!(link.poll_timeout(), None, "nothing stays inside");
        (out, link.counters())
    }

    fn runs_of_loss(out: &[(usize, Duration)], count: usize) -> Vec<usize> {
        let arrived: std::collections::BTreeSet<usize> = out.iter().map(|(packet, _)| *packet).collect();
        let mut runs = vec![0];
        for packet in 0..count {
            match (arrived.contains(&packet), runs.last_mut()) {
                (false, Some(run)) => *run += 1,
                (true, Some(0)) => {}
                _ => runs.push(0),
            }
        }
        runs.retain(|run| *run > 0);
        runs
    }

    #[test]
    fn a_clean_line_delays_and_does_nothing_else() {
        let (out, counters) = through(LinkProfile::CLEAN, 1, 1_000);
        assert_eq!(out, (0..1_000).map(|packet| (packet, Duration::from_millis(20))).collect::<Vec<_>>());
        assert_eq!(
            (counters.offered, counters.delivered, counters.delivered_bytes),
            (1_000, 1_000, 1_000_000)
        );
    }

    #[test]
    fn the_same_seed_has_the_same_fate_and_another_has_another() {
        let profile =
            LinkProfile { jitter_ms: 30, reorder: true, duplicate: 0.1, ..LinkProfile::lossy(0.2, 3.0) };
        assert_eq!(through(profile, 7, 2_000), through(profile, 7, 2_000));
        assert_ne!(through(profile, 7, 2_000).0, through(profile, 8, 2_000).0);
    }

    #[test]
    fn losses_have_the_mean_and_the_bursts_that_were_asked_for() {
        for (loss, burst) in [(0.05, 1.0), (0.3, 1.0), (0.1, 5.0), (0.3, 3.0)] {
            let count = 60_000;
            let (out, counters) = through(LinkProfile::lossy(loss, burst), 3, count);
            let share = counters.lost as f64 / count as f64;
            assert!((share - loss).abs() < 0.15 * loss, "{share} of {loss}");
            let runs = runs_of_loss(&out, count);
            let mean = runs.iter().sum::<usize>() as f64 / runs.len() as f64;
            // Independent losses come in runs too: of 1 / (1 - loss) packets.
            let expected = if burst > 1.0 { burst } else { 1.0 / (1.0 - loss) };
            assert!((mean - expected).abs() < 0.1 * expected, "bursts of {mean}, not {expected}");
        }
    }

    #[test]
    fn jitter_spreads_over_its_range_and_reorders_only_when_it_may() {
        for reorder in [false, true] {
            let profile = LinkProfile { jitter_ms: 60, reorder, ..LinkProfile::CLEAN };
            let (out, _) = through(profile, 5, 10_000);
            assert_eq!(out.len(), 10_000);
            let is_in_order = out.is_sorted_by_key(|(packet, _)| *packet);
            assert_eq!(is_in_order, !reorder);
            let millis = out.iter().map(|(_, delay)| delay.as_millis());
            // A packet comes out at the first millisecond after its time.
            assert!(millis.clone().all(|ms| (20..=81).contains(&ms)));
            assert!(millis.clone().max() > Some(70));
            if reorder {
                assert!(millis.min() < Some(25));
            }
        }
    }

    #[test]
    fn a_narrow_line_carries_its_rate_and_drops_what_would_wait_too_long() {
        // 1,000 bytes a millisecond are 8 Mbit/s; 2 Mbit/s of them come out.
        let profile = LinkProfile { rate_kbps: Some(2_000), queue_ms: 100, ..LinkProfile::CLEAN };
        let (out, counters) = through(profile, 1, 4_000);
        assert_eq!(counters.overflowed + counters.delivered, 4_000);
        let carried = counters.delivered_bytes as f64 * 8.0 / 4.1; // what was queued at the end comes after it
        assert!((carried - 2e6).abs() < 4e4, "{carried} bit/s");
        let longest = out.iter().map(|(_, delay)| delay.as_millis()).max();
        assert!(longest <= Some(20 + 100 + 4 + 1), "{longest:?} ms");
        assert!(counters.queued_us_max <= 100_000 && counters.queued_us_max > 95_000);
        // Full from the first 100 ms on.
        assert!((94_000..=100_000).contains(&counters.queued_us_95), "{}", counters.queued_us_95);
        assert!(out.is_sorted_by_key(|(packet, _)| *packet));
    }

    #[test]
    fn of_a_hundred_waits_five_may_be_longer_than_what_is_told() {
        // Each packet takes 8 ms of the line: the first waits for none, the last for 99 others.
        let start = Instant::now();
        let profile = LinkProfile { queue_ms: 1_000, ..LinkProfile::narrow(1_000) };
        let mut link = Link::new(profile, 1);
        assert_eq!(link.counters().queued_us_95, 0);
        for packet in 0..100 {
            link.handle_packet(start, BYTES, packet);
        }
        let later = start + Duration::from_secs(2);
        while link.poll_packet(later).is_some() {}
        let counters = link.take_counters();
        assert_eq!((counters.queued_us_max, counters.queued_us), (99 * 8_000, 99 * 50 * 8_000));
        assert_eq!(counters.queued_us_95, 94 * 8_000 + 2_000);
        assert_eq!(link.take_counters(), LinkCounters::default(), "each report begins anew");
    }

    #[test]
    fn copies_arrive_and_a_black_hole_swallows() {
        let (out, counters) = through(LinkProfile { duplicate: 0.2, ..LinkProfile::CLEAN }, 2, 10_000);
        assert!((1_800..2_200).contains(&counters.duplicated), "{}", counters.duplicated);
        assert_eq!(out.len() as u64, 10_000 + counters.duplicated);
        let (out, counters) = through(LinkProfile { black_hole: true, ..LinkProfile::CLEAN }, 2, 100);
        assert!(out.is_empty());
        assert_eq!(counters.swallowed, 100);
    }

    #[test]
    fn a_line_that_recovers_does_not_remember_its_queue() {
        let start = Instant::now();
        let mut link = Link::new(LinkProfile { queue_ms: 1_000, ..LinkProfile::narrow(100) }, 1);
        for packet in 0..10 {
            link.handle_packet(start, BYTES, packet);
        }
        assert!(link.poll_timeout() > Some(start + Duration::from_millis(90)));
        link.set_profile(LinkProfile { reorder: true, ..LinkProfile::CLEAN });
        link.handle_packet(start, BYTES, 99);
        assert_eq!(link.poll_packet(start + Duration::from_millis(20)), Some(99));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let start = Instant::now();
        let mut link = Link::new(LinkProfile { delay_ms: 10_000, ..LinkProfile::CLEAN }, 1);
        for packet in 0..UNDER_WAY_MAX + 5 {
            link.handle_packet(start, BYTES, packet);
        }
        assert_eq!(link.counters().overflowed, 5);
    }
}
