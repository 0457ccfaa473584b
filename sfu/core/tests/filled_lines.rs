//! Lines that carry something between two layers, and a publisher that can be asked for as much: a queue of bounded
//! length, an encoder that follows a moment later, virtual time.

mod meeting;

use asamblea_seam::{Event, Line as Judged};
use meeting::{
    Meeting, description,
    line::{DELAY, Line, Out},
};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_millis(5);

/// What was asked reaches an encoder after this long.
const HEARD_AFTER: Duration = Duration::from_millis(150);

/// A layer that is switched on comes this much later.
const BEGINS_AFTER: Duration = Duration::from_millis(700);

/// Frames a second.
const FRAMES: f64 = 25.0;

/// Some other noise than a generator of random numbers would need.
struct Noise(u64);

impl Noise {
    /// 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A camera whose layers are made for so many bit/s, and that does what it is asked to, or does not.
struct Camera {
    full_bps: Vec<f64>,
    /// Whether it sends no more of a layer than it is asked to, and only layers that are wanted.
    keeps_caps: bool,
    pauses_layers: bool,
    /// The encoder gives so many times what it is to.
    overshoot: f64,
    /// By how much that swings, and how long it takes to.
    swing: (f64, Duration),
    began: Instant,
    /// Of each layer whether it is on and since when, and what it is to give at most.
    layers: Vec<(Option<Instant>, f64)>,
    /// How many of the meeting's notes were heard.
    heard: usize,
    /// Bits that each layer was given beyond its rate, for a key frame.
    debt: Vec<f64>,
    needs_key: bool,
    noise: Noise,
}

impl Camera {
    fn new(seed: u64, now: Instant, full_bps: &[f64]) -> Self {
        Self {
            full_bps: full_bps.to_vec(),
            keeps_caps: true,
            pauses_layers: true,
            overshoot: 1.0,
            swing: (0.0, Duration::from_secs(1)),
            began: now,
            layers: full_bps.iter().map(|bps| (Some(now), *bps)).collect(),
            heard: 0,
            debt: vec![0.0; full_bps.len()],
            needs_key: true,
            noise: Noise(seed),
        }
    }

    /// Does what the first person was told, a moment ago.
    fn hear(&mut self, meeting: &Meeting) {
        while let Some((at, event)) = meeting.told.get(self.heard)
            && meeting.now >= *at + HEARD_AFTER
        {
            self.heard += 1;
            let Event::Wanted { peer, ups } = event else { continue };
            let Some(up) = ups.first().filter(|_| *peer == meeting.people[0].id) else {
                continue;
            };
            for (place, (is_wanted, bps_max)) in up.layers.iter().zip(&up.bps_max).enumerate() {
                let (on_since, rate) = &mut self.layers[place];
                if *is_wanted && on_since.is_none() {
                    self.needs_key = true;
                }
                if self.pauses_layers {
                    *on_since = is_wanted.then(|| on_since.unwrap_or(meeting.now + BEGINS_AFTER));
                }
                let below = place.checked_sub(1).map_or(40e3, |below| self.full_bps[below]);
                let full = self.full_bps[place];
                *rate = if *bps_max == 0 || !self.keeps_caps {
                    full
                } else {
                    f64::from(*bps_max).max(below).min(full)
                };
            }
        }
    }

    /// The packets of a frame of every layer that is on.
    fn frame(&mut self, meeting: &mut Meeting) -> Vec<Vec<u8>> {
        let is_key = std::mem::take(&mut self.needs_key) || !meeting.take_plis(0).is_empty();
        let mut all = Vec::new();
        let (part, period) = self.swing;
        let turns = (meeting.now - self.began).as_secs_f64() / period.as_secs_f64();
        let overshoot = self.overshoot * (1.0 + part * (turns * std::f64::consts::TAU).sin());
        for place in 0..self.layers.len() {
            let (on_since, rate) = self.layers[place];
            if on_since.is_none_or(|since| meeting.now < since) || self.full_bps[place] == 0.0 {
                continue;
            }
            let usual = rate * overshoot / FRAMES * (0.7 + 0.6 * self.noise.next());
            let bits = if is_key { usual * 4.0 } else { usual - (self.debt[place] * 0.1).min(usual * 0.4) };
            self.debt[place] = (self.debt[place] + bits - usual).max(0.0);
            let bytes = (bits / 8.0) as usize;
            let packets = bytes.div_ceil(1_000).max(1);
            for mut packet in meeting.frame(0, place, is_key, packets as u8) {
                let header = packet.len() - 200 - place * 300;
                packet.resize(header + (bytes / packets).max(40), 0xaa);
                all.push(packet);
            }
        }
        all
    }
}

/// What one made of the picture after a moment.
#[derive(Debug)]
struct Figures {
    /// Of what the line carries.
    used: f64,
    queue_ms: f64,
    changes: usize,
    longest_gap: Duration,
    /// The share of packets of each layer.
    layers: [f64; 3],
    /// Of the picture, bit/s.
    picture_bps: f64,
}

/// One who speaks and shows a camera, and so many who watch, each behind a line.
struct Call {
    meeting: Meeting,
    camera: Camera,
    lines: Vec<Line>,
    /// Who says nothing of what arrives.
    silent: Option<usize>,
    steps: u32,
    is_speaking: bool,
}

impl Call {
    fn new(seed: u64, watchers: usize) -> Self {
        Self::of(seed, watchers, &[120e3, 350e3, 1_200e3])
    }

    fn of(seed: u64, watchers: usize, full_bps: &[f64]) -> Self {
        println!("seed {seed}");
        let mut meeting = Meeting::new(seed);
        meeting.join(2, 1);
        if full_bps.len() == 1 {
            // The same camera in one layer.
            let mut one = description(0, 2, 1);
            one.ups[1].rids.truncate(1);
            meeting.room.describe(meeting.now, meeting.people[0].key, &one);
            meeting.people[0].description = one;
        }
        for _ in 0..watchers {
            let person = meeting.join(2, 1);
            meeting.people[person].oracle.is_narrow = true;
            meeting.view(person, &[("v0", Some(0), 720)]);
        }
        let lines = (0..watchers).map(|_| Line::new(meeting.now)).collect();
        let camera = Camera::new(seed, meeting.now, full_bps);
        Self { meeting, camera, lines, silent: None, steps: 0, is_speaking: true }
    }

    fn run(&mut self, duration: Duration) -> Instant {
        let from = self.meeting.now;
        for _ in 0..duration.as_millis() / STEP.as_millis() {
            let step = self.steps;
            self.steps += 1;
            if self.is_speaking && step.is_multiple_of(4) {
                let mut voice = self.meeting.sound(0, 30);
                voice.resize(voice.len() + 66, 0xaa); // 80 bytes of Opus: 58 kbit/s on the line
                self.meeting.hand_in(0, &voice);
            }
            self.camera.hear(&self.meeting);
            if step.is_multiple_of((200.0 / FRAMES) as u32) {
                for packet in self.camera.frame(&mut self.meeting) {
                    self.meeting.hand_in(0, &packet);
                }
            }
            self.meeting.pass(STEP);
            for (place, line) in self.lines.iter_mut().enumerate() {
                let tells = step.is_multiple_of(20) && self.silent != Some(place);
                line.carry(&mut self.meeting, place + 1, tells);
            }
        }
        from
    }

    fn figures(&self, watcher: usize, from: Instant) -> Figures {
        let line = &self.lines[watcher];
        let seconds = (self.meeting.now - from).as_secs_f64();
        let through: Vec<(&Out, Instant)> =
            line.since(from).filter_map(|out| Some((out, out.arrives?))).collect();
        let bits = |of: &dyn Fn(&Out) -> bool| -> f64 {
            through.iter().filter(|(out, _)| of(out)).map(|(out, _)| out.bytes as f64 * 8.0).sum()
        };
        let waited = through.iter().map(|(out, arrives)| (*arrives - out.at - DELAY).as_secs_f64() * 1e3);
        let queue_ms = waited.sum::<f64>() / through.len() as f64;
        let (mut changes, mut longest_gap, mut layers) = (0, Duration::ZERO, [0.0; 3]);
        let mut before: Option<(Instant, u8)> = None;
        for (at, layer) in line.since(from).filter_map(|out| Some((out.at, out.layer?))) {
            longest_gap = longest_gap.max(at - before.map_or(from, |(at, _)| at));
            changes += usize::from(before.is_some_and(|(_, last)| last != layer));
            layers[usize::from(layer)] += 1.0;
            before = Some((at, layer));
        }
        longest_gap = longest_gap.max(self.meeting.now - before.map_or(from, |(at, _)| at));
        let all: f64 = layers.iter().sum();
        Figures {
            used: bits(&|_| true) / seconds / line.bps as f64,
            queue_ms,
            changes,
            longest_gap,
            layers: layers.map(|count| count / all.max(1.0)),
            picture_bps: bits(&|out| out.layer.is_some()) / seconds,
        }
    }

    /// When the publisher was told something, and the limits that it was told, since a moment.
    fn asked(&self, from: Instant) -> Vec<(Instant, Vec<u32>)> {
        let of = |(at, event): &(Instant, Event)| match event {
            Event::Wanted { peer, ups } if *peer == self.meeting.people[0].id && *at >= from => {
                Some((*at, ups.first()?.bps_max.clone()))
            }
            _ => None,
        };
        self.meeting.told.iter().filter_map(of).collect()
    }
}

#[test]
fn a_line_between_two_layers_is_filled_and_its_queue_stays_short() {
    for (bps, layer) in [(300_000, 1), (1_000_000, 2)] {
        for (seed, overshoot) in [(1, 1.0), (2, 1.0), (3, 1.25)] {
            let mut call = Call::new(seed, 1);
            call.camera.overshoot = overshoot;
            call.run(5_000 * MS);
            call.lines[0].bps = bps;
            call.run(20_000 * MS);
            let settled = call.run(60_000 * MS);
            let figures = call.figures(0, settled);
            println!("{bps}, overshoot {overshoot}: {figures:.2?}");
            let asked = call.asked(settled);
            println!("{} times asked", asked.len());
            assert!(figures.used > 0.85, "{:.0} % of {bps} used", figures.used * 100.0);
            assert!(figures.queue_ms < 100.0, "{:.0} ms of queue at {bps}", figures.queue_ms);
            assert!(figures.longest_gap < 500 * MS, "{:?} without a picture", figures.longest_gap);
            assert!(figures.changes <= 2, "{} changes", figures.changes);
            assert!(figures.layers[layer] > 0.9, "layers {:?}", figures.layers);
            assert!(asked.len() < 90, "{} messages in a minute", asked.len());
        }
    }
}

#[test]
fn lines_of_every_width_keep_their_picture() {
    let mut sum = 0;
    for n in 4..=30 {
        let bps = n * 50_000;
        let mut call = Call::new(n, 1);
        call.run(5_000 * MS);
        call.lines[0].bps = bps;
        call.run(20_000 * MS);
        let settled = call.run(40_000 * MS);
        let figures = call.figures(0, settled);
        println!("{bps}: {figures:.2?}");
        assert!(figures.queue_ms < 100.0, "{:.0} ms of queue at {bps}", figures.queue_ms);
        assert!(figures.longest_gap < 1_000 * MS, "{:?} without a picture at {bps}", figures.longest_gap);
        assert!(figures.changes <= 8, "{} changes at {bps}", figures.changes);
        sum += figures.changes;
    }
    assert!(sum <= 12, "{sum} changes on 27 lines");
}

/// A small camera sends two layers of three, and the taller, its full picture, nearly fits many a line.
#[test]
fn a_layer_that_nearly_fits_is_made_to_fit_before_it_is_given_up() {
    let mut sum = 0;
    for n in 8..=24 {
        let bps = n * 50_000;
        let mut call = Call::of(n, 1, &[120e3, 800e3, 0.0]);
        call.camera.swing = (0.2, Duration::from_secs(7));
        call.run(5_000 * MS);
        call.lines[0].bps = bps;
        let narrowed = call.run(45_000 * MS);
        let figures = call.figures(0, narrowed);
        println!("{bps}: {figures:.2?}");
        assert!(figures.queue_ms < 100.0, "{:.0} ms of queue at {bps}", figures.queue_ms);
        assert!(figures.longest_gap < 500 * MS, "{:?} without a picture at {bps}", figures.longest_gap);
        sum += figures.changes;
    }
    assert!(sum <= 12, "{sum} changes on 17 lines");
}

#[test]
fn whose_line_carries_all_of_a_layer_gets_all_of_it_whoever_else_watches() {
    let mut call = Call::new(5, 2);
    call.run(5_000 * MS);
    call.lines[0].bps = 1_000_000;
    call.run(15_000 * MS);
    let settled = call.run(20_000 * MS);
    let (narrow, wide) = (call.figures(0, settled), call.figures(1, settled));
    println!("narrow {narrow:.2?}, wide {wide:.2?}");
    assert!(wide.layers[2] == 1.0 && wide.picture_bps > 1_150e3, "{wide:?}");
    assert!(narrow.layers[1] > 0.95, "{narrow:?}");
    assert!(call.asked(settled).iter().all(|(_, limits)| limits.iter().all(|bps| *bps == 0)));
    // The one with the wide line looks away: now the other's counts.
    call.meeting.view(2, &[]);
    call.run(15_000 * MS);
    let alone = call.run(15_000 * MS);
    let narrow = call.figures(0, alone);
    println!("alone {narrow:.2?}");
    assert!(narrow.layers[2] > 0.95 && narrow.used > 0.8, "{narrow:?}");
    // And looks again.
    call.meeting.view(2, &[("v0", Some(0), 720)]);
    let both = call.run(8_000 * MS);
    let narrow = call.figures(0, both);
    println!("both {narrow:.2?}");
    assert!(narrow.queue_ms < 100.0 && narrow.longest_gap < 500 * MS, "{narrow:?}");
    let settled = call.run(15_000 * MS);
    let wide = call.figures(1, settled);
    println!("wide {wide:.2?}");
    assert!(wide.layers[2] == 1.0 && wide.picture_bps > 1_150e3, "{wide:?}");
}

#[test]
fn the_best_of_several_narrow_lines_is_what_is_asked_for() {
    let mut call = Call::new(6, 2);
    call.run(5_000 * MS);
    call.lines[0].bps = 700_000;
    call.lines[1].bps = 1_000_000;
    call.run(20_000 * MS);
    let settled = call.run(30_000 * MS);
    let (narrower, better) = (call.figures(0, settled), call.figures(1, settled));
    println!("narrower {narrower:.2?}, better {better:.2?}");
    assert!(better.layers[2] > 0.95 && better.used > 0.85, "{better:?}");
    assert!(narrower.layers[1] > 0.95 && narrower.longest_gap < 500 * MS, "{narrower:?}");
}

#[test]
fn one_of_two_that_narrows_does_with_less_and_the_other_keeps_what_it_has() {
    let mut call = Call::new(12, 2);
    call.run(5_000 * MS);
    call.lines.iter_mut().for_each(|line| line.bps = 1_000_000);
    call.run(20_000 * MS);
    call.lines[0].bps = 800_000;
    let narrowed = call.run(20_000 * MS);
    let (narrowed, other) = (call.figures(0, narrowed), call.figures(1, narrowed));
    println!("narrowed {narrowed:.2?}, other {other:.2?}");
    assert!(other.layers[2] > 0.98 && other.used > 0.85, "{other:?}");
    assert!(narrowed.queue_ms < 30.0 && narrowed.layers[1] > 0.8, "{narrowed:?}");
}

#[test]
fn one_of_whose_line_nothing_is_known_gets_all_of_what_they_watch() {
    let mut call = Call::new(13, 2);
    call.silent = Some(1);
    call.run(5_000 * MS);
    call.lines[0].bps = 1_000_000;
    call.run(10_000 * MS);
    let settled = call.run(20_000 * MS);
    assert!(call.asked(settled).iter().all(|(_, limits)| limits[2] == 0), "{:?}", call.asked(settled));
    let silent = call.figures(1, settled);
    assert!(silent.layers[2] == 1.0 && silent.picture_bps > 1_150e3, "{silent:?}");
}

#[test]
fn a_line_that_becomes_wide_again_gets_the_whole_layer() {
    for bps in [300_000, 1_000_000] {
        let mut call = Call::new(7, 1);
        call.run(5_000 * MS);
        call.lines[0].bps = bps;
        call.run(30_000 * MS);
        call.lines[0].bps = 5_000_000;
        let widened = call.run(10_000 * MS);
        let asked = call.asked(widened);
        println!("{asked:?}");
        assert!(asked.last().is_some_and(|(_, limits)| limits[2] == 0), "{asked:?}");
        let settled = call.run(10_000 * MS);
        let figures = call.figures(0, settled);
        println!("{figures:.2?}");
        assert!(figures.layers[2] == 1.0 && figures.picture_bps > 1_150e3, "{figures:?}");
    }
}

#[test]
fn a_line_that_narrows_under_a_layer_that_was_made_to_fit_gets_a_smaller_one_at_once() {
    let mut call = Call::new(8, 1);
    call.lines[0].bps = 1_000_000;
    call.run(30_000 * MS);
    call.lines[0].bps = 300_000;
    let narrowed = call.run(5_000 * MS);
    let figures = call.figures(0, narrowed);
    println!("{figures:.2?}");
    let sound: Vec<&Out> = call.lines[0].since(narrowed).filter(|out| out.is_sound).collect();
    let lost = sound.iter().filter(|out| out.arrives.is_none()).count();
    println!("{lost} of {} lost", sound.len());
    assert!(figures.longest_gap < 2_000 * MS, "{:?} without a picture", figures.longest_gap);
    assert!(lost * 20 < sound.len(), "{lost} of {} lost", sound.len());
    let tallest = call.lines[0].since(narrowed + 2_000 * MS).filter(|out| out.layer == Some(2)).count();
    assert_eq!(tallest, 0, "two seconds later");
}

#[test]
fn who_does_not_keep_to_what_was_asked_is_served_as_if_nothing_had_been() {
    for (bps, pauses_layers) in [(300_000, false), (300_000, true), (1_000_000, false), (1_000_000, true)] {
        let mut call = Call::new(9, 1);
        call.camera.keeps_caps = false;
        call.camera.pauses_layers = pauses_layers;
        call.run(5_000 * MS);
        call.lines[0].bps = bps;
        let narrowed = call.run(10_000 * MS);
        let figures = call.figures(0, narrowed);
        println!("{bps}, at first: {figures:.2?}");
        assert!(figures.queue_ms < 150.0 && figures.longest_gap < 1_000 * MS, "{figures:?}");
        let settled = call.run(120_000 * MS);
        let figures = call.figures(0, settled);
        println!("{bps}: {figures:.2?}");
        let fitting = if bps == 300_000 { 0 } else { 1 };
        assert!(figures.layers[fitting] > 0.98, "{figures:?}");
        assert!(figures.queue_ms < 60.0 && figures.longest_gap < 500 * MS, "{figures:?}");
        let asked = call.asked(settled);
        println!("{asked:?}");
        assert!(asked.len() <= 12, "asked {} times in two minutes", asked.len());
    }
}

#[test]
fn one_who_kept_to_it_and_then_does_not_costs_a_moment() {
    let mut call = Call::new(10, 1);
    call.lines[0].bps = 1_000_000;
    call.run(40_000 * MS);
    call.camera.keeps_caps = false;
    call.run(5_000 * MS);
    let settled = call.run(30_000 * MS);
    let figures = call.figures(0, settled);
    println!("{figures:.2?}");
    assert!(figures.layers[2] < 0.02, "{figures:?}");
    assert!(figures.queue_ms < 60.0 && figures.longest_gap < 1_000 * MS, "{figures:?}");
}

/// A shared screen has one layer, which can take more than all of a line.
#[test]
fn a_picture_of_one_layer_that_does_not_fit_is_made_to_instead_of_being_held_back() {
    let mut call = Call::of(11, 1, &[2_500e3]);
    call.run(5_000 * MS);
    call.lines[0].bps = 1_000_000;
    call.run(20_000 * MS);
    let settled = call.run(40_000 * MS);
    let figures = call.figures(0, settled);
    println!("{figures:.2?}");
    assert!(figures.longest_gap < 500 * MS, "{figures:?}");
    assert!(figures.used > 0.85 && figures.queue_ms < 100.0, "{figures:?}");
    let lines = call.meeting.told.iter().rev().find_map(|(_, event)| match event {
        Event::Lines { lines, .. } => lines.iter().find(|line| line.peer == call.meeting.people[1].id),
        _ => None,
    });
    assert!(lines.is_none_or(|line| line.line == Judged::Good), "{lines:?}");
}
