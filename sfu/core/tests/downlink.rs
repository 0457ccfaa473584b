//! One subscriber's congestion control over lines that are narrow, long, lossy or restless, in virtual time: sender,
//! queue and feedback. The same seed gives the same run.

use asamblea_sfu_core::bwe::Downlink;
use asamblea_sfu_core::rtp::rtcp::{Rtcp, walk};
use asamblea_sfu_core::rtp::rtcp_write::{FeedbackHead, Writer};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a receiver reports what arrived.
const FEEDBACK_MS: u64 = 100;
const TICK_MS: u64 = 100;
const PACKET_BYTES: usize = 1_144;
const SOUND_BYTES: usize = 164;

#[derive(Clone, Copy)]
struct Line {
    bps: f64,
    delay_ms: f64,
    jitter_ms: f64,
    loss: f64,
    /// The queue is as long as this; what does not fit is lost.
    queue_ms: f64,
    /// What the receiver's clock showed at the beginning, in units of 64 ms.
    clock: u32,
}

impl Line {
    fn of(bps: f64) -> Self {
        Self { bps, delay_ms: 25.0, jitter_ms: 0.0, loss: 0.0, queue_ms: 300.0, clock: 0 }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
struct Sample {
    ms: u64,
    estimate_bps: f64,
    sent_bps: f64,
    queue_ms: f64,
}

struct Run {
    samples: Vec<Sample>,
}

impl Run {
    fn between(&self, from_ms: u64, to_ms: u64) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| (from_ms..to_ms).contains(&sample.ms))
    }

    fn mean(&self, from_ms: u64, to_ms: u64, of: impl Fn(&Sample) -> f64) -> f64 {
        let values: Vec<f64> = self.between(from_ms, to_ms).map(of).collect();
        values.iter().sum::<f64>() / values.len() as f64
    }
}

/// Sends sound and as much picture as the estimate says, up to `source_bps`, for so long, over what `line` says at each
/// millisecond.
fn run(seed: u64, seconds: u64, source_bps: f64, line: impl Fn(u64) -> Line) -> Run {
    run_moving(seed, seconds, source_bps, None, line)
}

/// The same; at `moves_at_ms` it is known that packets take another way.
fn run_moving(
    seed: u64,
    seconds: u64,
    source_bps: f64,
    moves_at_ms: Option<u64>,
    line: impl Fn(u64) -> Line,
) -> Run {
    println!("seed {seed}");
    #[expect(
        clippy::disallowed_methods,
        reason = "a run needs some instant to start from; nothing depends on which"
    )]
    let start = Instant::now();
    let at = |us: u64| start + Duration::from_micros(us);
    let mut random = Random(seed);
    let mut downlink = Downlink::new(start);
    // On the way: when it arrives, its number.
    let mut under_way: VecDeque<(u64, u16)> = VecDeque::new();
    let mut arrived: Vec<(u16, u64)> = Vec::new();
    let mut lost: Vec<u16> = Vec::new();
    let mut answers: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let mut free_at_us = 0_u64;
    let (mut debt, mut probe_bytes) = (0.0_f64, 0_usize);
    let (mut sent_bytes, mut waited_ms) = (0_usize, 0.0_f64);
    let mut count = 0_u8;
    let mut samples = Vec::new();
    for ms in 0..seconds * 1_000 {
        let now_us = ms * 1_000;
        let line = line(ms);
        if moves_at_ms == Some(ms) {
            downlink.begin_on_another_way(at(now_us));
        }
        let mut put = |bytes: usize, number: Option<u16>, random: &mut Random| {
            let wait_us = free_at_us.saturating_sub(now_us);
            waited_ms = wait_us as f64 / 1e3;
            let is_lost = waited_ms > line.queue_ms || random.next() < line.loss;
            if waited_ms <= line.queue_ms {
                free_at_us = now_us + wait_us + (bytes as f64 * 8e6 / line.bps) as u64;
            }
            let Some(number) = number else { return };
            if is_lost {
                lost.push(number);
            } else {
                let jitter_us = (random.next() * line.jitter_ms * 1e3) as u64;
                let arrives = free_at_us + (line.delay_ms * 1e3) as u64 + jitter_us;
                // Jitter that does not reorder: a queue elsewhere.
                let arrives = under_way.back().map_or(arrives, |(last, _)| arrives.max(*last));
                under_way.push_back((arrives, number));
            }
        };
        if ms % 20 == 0 {
            downlink.send_sound(at(now_us), SOUND_BYTES);
            put(SOUND_BYTES, None, &mut random);
            sent_bytes += SOUND_BYTES;
        }
        let rate = downlink.bps().map_or(source_bps, |bps| (bps * 0.95 - 66_000.0).clamp(0.0, source_bps));
        debt += rate / 8e3;
        // Frames of 33 ms.
        if ms % 33 == 0 {
            while debt >= PACKET_BYTES as f64 {
                debt -= PACKET_BYTES as f64;
                let number = downlink.send_numbered(at(now_us), PACKET_BYTES, false);
                put(PACKET_BYTES, Some(number), &mut random);
                sent_bytes += PACKET_BYTES;
            }
        }
        while probe_bytes > 0 {
            probe_bytes = probe_bytes.saturating_sub(240);
            let number = downlink.send_numbered(at(now_us), 324, true);
            put(324, Some(number), &mut random);
            sent_bytes += 324;
        }
        while under_way.front().is_some_and(|(arrives, _)| *arrives <= now_us) {
            let (arrives, number) = under_way.pop_front().expect("seen");
            arrived.push((number, arrives));
        }
        if ms % FEEDBACK_MS == 50 && !arrived.is_empty() {
            let base =
                arrived.iter().map(|(number, _)| *number).min_by_key(|n| n.wrapping_sub(arrived[0].0) as i16);
            let base = base.expect("some");
            let base =
                lost.iter().copied().fold(base, |b, l| if (l.wrapping_sub(b) as i16) < 0 { l } else { b });
            let last = arrived.iter().map(|(number, _)| number.wrapping_sub(base)).max().expect("some");
            let mut statuses = vec![None; usize::from(last) + 1];
            let epoch_ticks = arrived[0].1 / 64_000;
            for (number, us) in arrived.drain(..) {
                statuses[usize::from(number.wrapping_sub(base))] =
                    Some((us / 250) as i64 - (epoch_ticks * 256) as i64);
            }
            lost.retain(|number| number.wrapping_sub(base) > last);
            let mut bytes = vec![0; 1_400];
            let mut writer = Writer::new(&mut bytes);
            let reference = (line.clock + epoch_ticks as u32) & 0xff_ffff;
            let head = FeedbackHead { ssrc: 1, media_ssrc: 2, base, reference, count };
            count = count.wrapping_add(1);
            if writer.transport_feedback(head, &statuses) {
                let length = writer.len();
                bytes.truncate(length);
                answers.push_back((now_us + (line.delay_ms * 1e3) as u64, bytes));
            }
        }
        while answers.front().is_some_and(|(arrives, _)| *arrives <= now_us) {
            let (_, bytes) = answers.pop_front().expect("seen");
            for packet in walk(&bytes) {
                if let Ok(Rtcp::TransportFeedback(feedback)) = packet {
                    downlink.handle_feedback(at(now_us), &feedback);
                }
            }
        }
        if ms % TICK_MS == 0 {
            downlink.handle_tick(at(now_us));
            if let Some(bytes) = downlink.begin_probe(at(now_us), source_bps + 66_000.0) {
                probe_bytes = bytes;
            }
            samples.push(Sample {
                ms,
                estimate_bps: downlink.bps().unwrap_or(f64::NAN),
                sent_bps: sent_bytes as f64 * 8e3 / TICK_MS as f64,
                queue_ms: waited_ms,
            });
            sent_bytes = 0;
        }
    }
    Run { samples }
}

#[test]
fn a_narrow_line_is_filled_and_its_queue_stays_short() {
    for seed in 1..=5 {
        for bps in [300e3, 1e6, 2.5e6] {
            let run = run(seed, 60, 5e6, |_| Line::of(bps));
            let (used, queue) =
                (run.mean(20_000, 60_000, |s| s.sent_bps), run.mean(20_000, 60_000, |s| s.queue_ms));
            println!("{bps}: used {:.0} %, queue {queue:.0} ms", used / bps * 100.0);
            assert!(used > bps * 0.85, "seed {seed}: {used} of {bps}");
            assert!(queue < 100.0, "seed {seed}, {bps}: {queue} ms");
        }
    }
}

#[test]
fn a_line_that_drops_to_a_tenth_is_obeyed_in_time_and_comes_back() {
    for seed in 1..=10 {
        let run =
            run(seed, 60, 1.5e6, |ms| Line::of(if (20_000..40_000).contains(&ms) { 100e3 } else { 2e6 }));
        assert!(run.mean(10_000, 20_000, |s| s.estimate_bps) > 1.2e6, "seed {seed}: not found before");
        let low = run.between(20_000, 40_000).find(|s| s.estimate_bps < 110e3).map(|s| s.ms - 20_000);
        assert!(low.is_some_and(|ms| ms <= 3_000), "seed {seed}: low after {low:?} ms");
        let back = run.between(40_000, 60_000).find(|s| s.estimate_bps > 1.0e6).map(|s| s.ms - 40_000);
        assert!(back.is_some_and(|ms| ms <= 10_000), "seed {seed}: back after {back:?} ms");
    }
}

#[test]
fn loss_that_is_the_lines_own_does_not_starve_the_pictures() {
    for (loss, least) in [(0.1, 600e3), (0.3, 200e3)] {
        for seed in 1..=10 {
            let run = run(seed, 60, 1e6, |_| Line { loss, ..Line::of(3e6) });
            let estimate = run.mean(20_000, 60_000, |s| s.estimate_bps);
            println!("{loss}: {estimate:.0}");
            assert!(estimate > least, "seed {seed}, {loss}: {estimate}");
        }
    }
}

#[test]
fn a_restless_line_is_not_taken_for_a_narrow_one() {
    for seed in 1..=10 {
        let run = run(seed, 60, 1e6, |_| Line { jitter_ms: 60.0, ..Line::of(3e6) });
        let estimate = run.mean(20_000, 60_000, |s| s.estimate_bps);
        println!("{estimate:.0}");
        assert!(estimate > 600e3, "seed {seed}: {estimate}");
    }
}

#[test]
fn feedback_that_begins_with_forgotten_numbers_is_still_feedback() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a run needs some instant to start from; nothing depends on which"
    )]
    let start = Instant::now();
    let mut downlink = Downlink::new(start);
    (0..10).for_each(|number| assert_eq!(downlink.send_numbered(start, 1_000, false), number));
    let later = start + Duration::from_secs(10);
    (10..14).for_each(|number| assert_eq!(downlink.send_numbered(later, 1_000, false), number));
    let mut bytes = vec![0; 400];
    let mut writer = Writer::new(&mut bytes);
    let head = FeedbackHead { ssrc: 1, media_ssrc: 2, base: 0, reference: 7, count: 0 };
    let statuses: Vec<Option<i64>> = (0..14).map(|number| (number >= 10).then_some(number)).collect();
    assert!(writer.transport_feedback(head, &statuses));
    let length = writer.len();
    let Some(Ok(Rtcp::TransportFeedback(feedback))) = walk(&bytes[..length]).next() else {
        panic!("feedback")
    };
    assert_eq!(downlink.handle_feedback(later, &feedback), (4, 0));
}

#[test]
fn a_hole_of_five_seconds_is_got_over() {
    for seed in 1..=10 {
        let hole = |ms: u64| (20_000..25_000).contains(&ms);
        let run = run(seed, 60, 1e6, |ms| Line { loss: f64::from(u8::from(hole(ms))), ..Line::of(3e6) });
        let back = run.between(25_000, 60_000).find(|s| s.estimate_bps > 0.7e6).map(|s| s.ms - 25_000);
        assert!(back.is_some_and(|ms| ms <= 2_000), "seed {seed}: back after {back:?} ms");
    }
}

#[test]
fn a_way_that_becomes_longer_is_not_taken_for_a_narrow_one_for_long() {
    for seed in 1..=10 {
        let delay_ms = |ms: u64| if ms < 20_000 { 20.0 } else { 170.0 };
        let run = run(seed, 60, 1e6, |ms| Line { delay_ms: delay_ms(ms), ..Line::of(3e6) });
        let estimate = run.mean(32_000, 60_000, |s| s.estimate_bps);
        assert!(estimate > 0.8e6, "seed {seed}: {estimate}");
        // Nothing is lost and delay is steady: no queue would be.
        let back = run.between(20_500, 60_000).find(|s| s.estimate_bps > 0.8e6).map(|s| s.ms - 20_000);
        assert!(back.is_some_and(|ms| ms <= 2_000), "seed {seed}: back after {back:?} ms");
    }
}

#[test]
fn a_longer_way_costs_no_picture_where_it_is_steady_or_known_to_be_another() {
    let least = |moves_at_ms, jitter_ms| {
        let delay_ms = |ms: u64| if ms < 20_000 { 20.0 } else { 170.0 };
        let line = |ms| Line { delay_ms: delay_ms(ms), jitter_ms, ..Line::of(3e6) };
        let run = run_moving(3, 40, 0.7e6, moves_at_ms, line);
        run.between(20_000, 40_000).map(|s| s.estimate_bps).fold(f64::MAX, f64::min)
    };
    assert!(least(None, 0.0) > 0.8e6, "{}", least(None, 0.0));
    assert!(least(None, 60.0) < 0.7e6, "taken for a queue: {}", least(None, 60.0));
    assert!(least(Some(20_000), 60.0) > 0.8e6, "{}", least(Some(20_000), 60.0));
}

#[test]
fn a_long_line_is_filled_too() {
    for seed in 1..=5 {
        let run = run(seed, 60, 3e6, |_| Line { delay_ms: 150.0, ..Line::of(1e6) });
        let used = run.mean(20_000, 60_000, |s| s.sent_bps);
        assert!(used > 0.75e6, "seed {seed}: {used}");
    }
}

/// A receiver's clock counts 12 days in 24 bits, read as a signed number; calls go on when it starts over.
#[test]
fn a_receivers_clock_may_start_over_in_the_middle_of_a_call() {
    let narrowing = |clock: u32| {
        let run = run(3, 60, 3e6, |ms| Line { clock, ..Line::of(if ms < 30_000 { 2e6 } else { 400e3 }) });
        run.samples.iter().map(|sample| sample.estimate_bps.to_bits()).collect::<Vec<_>>()
    };
    let usual = narrowing(0);
    for after_s in [20, 40] {
        let ticks = after_s * 1_000 / 64;
        assert!(narrowing(0x80_0000 - ticks) == usual, "from the highest to the lowest after {after_s} s");
        assert!(narrowing(0x100_0000 - ticks) == usual, "from -1 to 0 after {after_s} s");
    }
}

#[test]
fn feedback_on_what_was_never_sent_changes_nothing_and_a_flood_of_it_is_refused() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a run needs some instant to start from; nothing depends on which"
    )]
    let start = Instant::now();
    let mut downlink = Downlink::new(start);
    let numbers: Vec<u16> = (0..20).map(|_| downlink.send_numbered(start, 1_000, false)).collect();
    for flood in 0..10_000_u32 {
        let mut bytes = vec![0; 400];
        let mut writer = Writer::new(&mut bytes);
        let base = numbers[0].wrapping_add(20 + flood as u16);
        let head = FeedbackHead { ssrc: 1, media_ssrc: 2, base, reference: flood, count: flood as u8 };
        assert!(writer.transport_feedback(head, &[Some(1); 64]));
        let length = writer.len();
        for packet in walk(&bytes[..length]) {
            if let Ok(Rtcp::TransportFeedback(feedback)) = packet {
                let settled = downlink
                    .handle_feedback(start + Duration::from_micros(u64::from(flood) * 100), &feedback);
                assert!(settled.0 <= 20, "no more than was sent");
            }
        }
    }
    assert_eq!(downlink.bps(), None, "nothing arrived, so nothing is known");
    assert!(downlink.counters().feedback_refused >= 9_700, "{:?}", downlink.counters());
    assert!(downlink.memory_bytes() < 100_000);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let once = || run(7, 10, 1e6, |_| Line { loss: 0.05, jitter_ms: 10.0, ..Line::of(600e3) });
    let estimates = |run: Run| run.samples.iter().map(|s| s.estimate_bps.to_bits()).collect::<Vec<_>>();
    assert_eq!(estimates(once()), estimates(once()));
}

#[test]
fn while_nothing_is_answered_little_is_under_way() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a run needs some instant to start from; nothing depends on which"
    )]
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut downlink = Downlink::new(start);
    let mut unreported: Vec<(u16, u64)> = Vec::new();
    // 400 kbit/s that arrive and are reported each 100 ms.
    for ms in 0..3_000 {
        if ms % 20 == 0 {
            unreported.push((downlink.send_numbered(at(ms), 1_000, false), ms + 20));
        }
        if ms % 100 == 99 {
            let base = unreported[0].0;
            let statuses: Vec<_> =
                unreported.drain(..).map(|(_, arrives)| Some(arrives as i64 * 4)).collect();
            let reference = statuses[0].unwrap_or_default() / 256;
            let statuses: Vec<_> = statuses.iter().map(|at| at.map(|at| at - reference * 256)).collect();
            let head = FeedbackHead {
                ssrc: 1,
                media_ssrc: 2,
                base,
                reference: reference as u32,
                count: (ms / 100) as u8,
            };
            let mut bytes = vec![0; 400];
            let mut writer = Writer::new(&mut bytes);
            assert!(writer.transport_feedback(head, &statuses));
            let length = writer.len();
            let Some(Ok(Rtcp::TransportFeedback(feedback))) = walk(&bytes[..length]).next() else {
                panic!("feedback")
            };
            downlink.handle_feedback(at(ms), &feedback);
            downlink.handle_tick(at(ms));
        }
    }
    let bps = downlink.bps().expect("known");
    // From here on nothing is heard of the line, and there is more to send than it carries.
    let mut under_way = 0;
    for ms in 3_000..4_000 {
        while downlink.may_send(at(ms)) >= 1_000 {
            downlink.send_numbered(at(ms), 1_000, false);
            under_way += 1_000;
        }
    }
    println!("{under_way} bytes at {bps:.0} bit/s");
    let seconds = under_way as f64 * 8.0 / bps;
    assert!((0.2..0.6).contains(&seconds), "{seconds} s of the rate under way");
}
