//! A listener behind a line that carries little more than a voice: a queue of bounded length, feedback on what came out
//! of it, virtual time.

mod meeting;

use meeting::{
    Meeting,
    line::{DELAY, Line, OVERHEAD_BYTES, Out},
};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// One speaks and shows a camera, one listens and watches: ten seconds over a wide line, then as long as asked over one
/// of so many bit/s. Returns the line and the moment when it became narrow.
fn narrow(bps: u64, duration: Duration) -> (Meeting, Line, Instant) {
    narrow_and_busy(bps, Duration::ZERO, Duration::ZERO, duration)
}

/// See [`narrow`], [`Line::clump`] and [`Line::pause`].
fn narrow_and_busy(
    bps: u64,
    clump: Duration,
    pause: Duration,
    duration: Duration,
) -> (Meeting, Line, Instant) {
    call(|line| (line.clump, line.pause) = (clump, pause), |line| line.bps = bps, duration)
}

/// A call over a line that something happens to after ten seconds.
fn call(
    prepare: impl FnOnce(&mut Line),
    change: impl Fn(&mut Line),
    duration: Duration,
) -> (Meeting, Line, Instant) {
    let mut meeting = Meeting::new(21);
    meeting.join(2, 1);
    meeting.join(2, 1);
    meeting.people[1].oracle.is_narrow = true;
    meeting.view(1, &[("v0", Some(0), 720)]);
    let mut line = Line::new(meeting.now);
    prepare(&mut line);
    let (start, wide) = (meeting.now, Duration::from_secs(10));
    let mut narrow_at = start + wide;
    for step in 0..(wide + duration).as_millis() as u32 / 5 {
        if step == 2_000 {
            narrow_at = meeting.now;
            change(&mut line);
        }
        if step % 4 == 0 {
            let mut voice = meeting.sound(0, 30);
            voice.resize(voice.len() + 66, 0xaa); // 80 bytes of Opus: 58 kbit/s on the line
            meeting.hand_in(0, &voice);
        }
        // Thirty frames a second, a key frame now and then and whenever one is asked for.
        if step % 7 == 0 {
            let is_key = step % 700 == 0 || !meeting.take_plis(0).is_empty();
            for (layer, packets) in line.layers.into_iter().enumerate() {
                for packet in meeting.frame(0, layer, is_key, if is_key { packets * 4 } else { packets }) {
                    meeting.hand_in(0, &packet);
                }
            }
        }
        meeting.pass(5 * MS);
        line.carry(&mut meeting, 1, step % 20 == 0);
    }
    (meeting, line, narrow_at)
}

fn packets_a_second(line: &Line, from: Instant, until: Instant, of: impl Fn(&Out) -> bool) -> f64 {
    let count = line.since(from).filter(|out| out.at < until && of(out)).count();
    count as f64 / (until - from).as_secs_f64()
}

#[test]
fn while_pictures_are_held_back_it_is_still_known_how_the_line_is() {
    let (meeting, line, narrow_at) = narrow(80_000, Duration::from_secs(20));
    let calm = narrow_at + Duration::from_secs(5);
    assert!(
        line.since(calm).all(|out| out.is_sound || out.bytes < 324 + OVERHEAD_BYTES),
        "the picture is held back"
    );
    // Bursts of padding come every four seconds and do not count.
    let mut gaps = Vec::new();
    let mut before = calm;
    for out in line.since(calm).filter(|out| out.is_numbered) {
        gaps.push(out.at - before);
        before = out.at;
    }
    gaps.push(meeting.now - before);
    let longest = gaps.iter().max().expect("some");
    assert!(*longest <= 250 * MS, "{longest:?} without a packet that feedback can speak of");
    let small = packets_a_second(&line, calm, meeting.now, |out| out.is_numbered && out.bytes < 120);
    assert!((5.0..=11.0).contains(&small), "{small} a second");
}

#[test]
fn a_voice_that_all_but_fills_its_line_is_not_sent_twice_for_what_the_queue_lost() {
    let (meeting, line, narrow_at) = narrow(80_000, Duration::from_secs(30));
    let calm = narrow_at + Duration::from_secs(4);
    let sound: Vec<&Out> = line.since(calm).filter(|out| out.is_sound).collect();
    let lost = sound.iter().filter(|out| out.arrives.is_none()).count();
    let spoken = (meeting.now - calm).as_millis() as usize / 20;
    println!("{} sent of {spoken} spoken, {lost} lost", sound.len());
    assert!(sound.len() * 100 <= spoken * 102, "{} sent of {spoken}", sound.len());
    assert!(lost * 100 <= spoken, "{lost} of {spoken} lost");
    let mut waits: Vec<Duration> =
        sound.iter().filter_map(|out| Some(out.arrives? - out.at - DELAY)).collect();
    waits.sort_unstable();
    assert!(waits[waits.len() / 2] < 60 * MS, "half wait {:?}", waits[waits.len() / 2]);
}

/// What was seen from a moment on: how many times the layer changed, the longest time without a picture, and the share of
/// packets of each layer.
fn pictures(line: &Line, from: Instant, until: Instant) -> (usize, Duration, [f64; 3]) {
    let (mut changes, mut longest, mut counts) = (0, Duration::ZERO, [0.0; 3]);
    let mut before: Option<(Instant, u8)> = None;
    for (at, layer) in line.since(from).filter_map(|out| Some((out.at, out.layer?))) {
        longest = longest.max(at - before.map_or(from, |(at, _)| at));
        changes += usize::from(before.is_some_and(|(_, last)| last != layer));
        counts[usize::from(layer)] += 1.0;
        before = Some((at, layer));
    }
    longest = longest.max(until - before.map_or(from, |(at, _)| at));
    let all: f64 = counts.iter().sum();
    (changes, longest, counts.map(|count| count / all.max(1.0)))
}

#[test]
fn a_line_gets_the_layer_that_it_carries_and_keeps_it() {
    for (clump_ms, pause_ms) in [(0, 0), (15, 0), (0, 250)] {
        for (bps, layer) in [(300_000, 0), (750_000, 1), (2_500_000, 2)] {
            let busy = (clump_ms * MS, pause_ms * MS);
            let (meeting, line, narrow_at) = narrow_and_busy(bps, busy.0, busy.1, Duration::from_secs(40));
            let settled = narrow_at + Duration::from_secs(8);
            let (changes, longest, shares) = pictures(&line, settled, meeting.now);
            let sound: Vec<&Out> = line.since(settled).filter(|out| out.is_sound).collect();
            let lost = sound.iter().filter(|out| out.arrives.is_none()).count() as f64 / sound.len() as f64;
            let mut waits: Vec<Duration> =
                sound.iter().filter_map(|out| Some(out.arrives? - out.at - DELAY)).collect();
            waits.sort_unstable();
            let (half, most) = (waits[waits.len() / 2], waits[waits.len() * 95 / 100]);
            println!(
                "{bps} bit/s, clumps of {clump_ms} ms, pauses of {pause_ms} ms: {changes} changes, {longest:?} without a picture, layers \
                 {shares:.2?}, sound {:.1} % lost, waits {half:?}, {most:?}",
                lost * 100.0
            );
            assert!(changes <= 4, "{changes} changes at {bps}");
            assert!(longest < Duration::from_secs(1), "{longest:?} without a picture at {bps}");
            assert!(shares[layer] > 0.8, "layers {shares:?} at {bps}");
            assert!(lost < 0.01, "{lost} of the sound lost at {bps}");
            assert!(half < 60 * MS && most < 200 * MS, "sound waits {half:?}, {most:?} at {bps}");
        }
    }
}

#[test]
fn a_layer_is_not_tried_that_nothing_has_shown_to_fit() {
    // The next layer fits only half as often as what is sent and a voice would let one hope.
    for bps in [330_000, 345_000, 360_000] {
        let prepare = |line: &mut Line| line.layers = [3, 2, 6];
        let (meeting, line, narrow_at) = call(prepare, |line| line.bps = bps, Duration::from_secs(60));
        let settled = narrow_at + Duration::from_secs(6);
        let (changes, longest, shares) = pictures(&line, settled, meeting.now);
        println!("{bps} bit/s: {changes} changes, {longest:?} without a picture, layers {shares:.2?}");
        assert_eq!(changes, 0, "at {bps}");
        assert!(longest < Duration::from_millis(500), "{longest:?} without a picture at {bps}");
    }
}

#[test]
fn a_line_that_loses_a_little_has_its_picture_before_sound_is_repeated() {
    let run = |lost_percent| {
        let prepare = |line: &mut Line| line.layers = [3, 6, 9];
        let change = |line: &mut Line| (line.bps, line.lost_percent) = (360_000, lost_percent);
        let (meeting, line, narrow_at) = call(prepare, change, Duration::from_secs(40));
        let settled = narrow_at + Duration::from_secs(8);
        let sound = packets_a_second(&line, settled, meeting.now, |out| out.is_sound);
        let (changes, longest, _) = pictures(&line, settled, meeting.now);
        println!(
            "{lost_percent} % lost: {sound} of sound a second, {changes} changes, {longest:?} without a picture"
        );
        (sound, longest)
    };
    let (_, longest) = run(3);
    assert!(longest < Duration::from_secs(1), "{longest:?} without a picture where 3 % are lost");
    let (sound, _) = run(11);
    assert!(sound > 90.0, "{sound} packets of sound a second where 11 % are lost");
}

#[test]
fn a_receiver_that_reads_in_clumps_does_not_make_a_narrow_line_wide() {
    // A burst of padding that is read at once looks as fast as can be.
    let changes = |bps| {
        let (meeting, line, narrow_at) =
            narrow_and_busy(bps, 60 * MS, Duration::ZERO, Duration::from_secs(60));
        pictures(&line, narrow_at + Duration::from_secs(10), meeting.now).0
    };
    let sums: Vec<usize> = (19..=25).map(|n| changes(n * 20_000)).collect();
    assert!(sums.iter().sum::<usize>() <= 6, "{sums:?} changes on seven lines");
}

#[test]
fn a_longer_way_does_not_cost_the_picture() {
    for detour_ms in [60, 130, 300] {
        let detour = detour_ms * MS;
        let (meeting, line, from) = call(|_| {}, |line| line.detour = detour, Duration::from_secs(20));
        let (changes, longest, _) = pictures(&line, from, meeting.now);
        let tallest = line.since(from).filter(|out| out.layer == Some(2)).map(|out| out.at);
        let mut before = from;
        let mut smaller = Duration::ZERO;
        for at in tallest.chain([meeting.now]) {
            smaller = smaller.max(at - before);
            before = at;
        }
        println!(
            "{detour_ms} ms more: {changes} changes, {longest:?} without a picture, {smaller:?} a smaller one"
        );
        assert!(longest < Duration::from_secs(1), "{longest:?} without a picture, {detour_ms} ms more");
        assert!(smaller < Duration::from_secs(4), "{smaller:?} with a smaller picture, {detour_ms} ms more");
    }
}
