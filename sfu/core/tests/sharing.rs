//! What follows from how lines are and what is watched: greetings, wanted layers, lines that are weak or lost.

mod meeting;

use asamblea_seam::{Event, Line};
use meeting::{Meeting, publishing, rtcp};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Two people who send microphone and camera.
fn pair() -> Meeting {
    let mut meeting = Meeting::new(3);
    for _ in 0..2 {
        let person = meeting.join(2, 2);
        let (now, key) = (meeting.now, meeting.people[person].key);
        meeting.room.publish(now, key, &publishing(true, true));
    }
    meeting.settle();
    meeting
}

/// Everyone in `who` sends for so long, sound and all three layers.
fn talk(meeting: &mut Meeting, who: &[usize], duration: Duration) {
    let end = meeting.now + duration;
    while meeting.now < end {
        for &person in who {
            meeting.send_sound(person, 30);
            for layer in 0..3 {
                meeting.send_frame(person, layer, true);
            }
        }
        meeting.pass(20 * MS);
    }
}

/// What was told last of a person's layers.
fn wanted(meeting: &Meeting, person: usize) -> Option<(Instant, Vec<bool>)> {
    let id = meeting.people[person].id;
    meeting.told.iter().rev().find_map(|(at, event)| match event {
        Event::Wanted { peer, ups } if *peer == id => Some((*at, ups.first()?.layers.clone())),
        _ => None,
    })
}

fn lines(meeting: &Meeting, person: usize) -> Vec<(Instant, Line)> {
    let id = meeting.people[person].id;
    let of = |(at, event): &(Instant, Event)| match event {
        Event::Lines { lines, .. } => lines.iter().find(|line| line.peer == id).map(|line| (*at, line.line)),
        _ => None,
    };
    meeting.told.iter().filter_map(of).collect()
}

#[test]
fn whoever_is_connected_hears_something_twice_a_second_even_in_silence() {
    let mut meeting = pair();
    for half in 0..20 {
        meeting.people.iter_mut().for_each(|person| person.rtcp.clear());
        meeting.pass(500 * MS);
        let heard = meeting.people.iter().all(|person| !person.rtcp.is_empty());
        assert!(heard, "half second {half}");
    }
}

#[test]
fn whoever_gets_media_is_not_greeted_besides() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 720)]);
    talk(&mut meeting, &[0], 1_000 * MS);
    meeting.people[1].rtcp.clear();
    talk(&mut meeting, &[0], 3_000 * MS);
    // Sender reports still come; a greeting begins with a receiver report (RFC 3550 section 6.4.2).
    let begins = |kind: u8| meeting.people[1].rtcp.iter().filter(|compound| compound[1] == kind).count();
    assert_eq!((begins(201), begins(200)), (0, 3));
}

#[test]
fn several_packets_are_greeting_enough_for_a_second_and_one_is_for_half_of_it() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 720)]);
    talk(&mut meeting, &[0], 1_000 * MS);
    // How many reports and greetings come besides, and how many of them begin as greetings do.
    let besides = |meeting: &mut Meeting, send: fn(&mut Meeting)| {
        meeting.people[1].rtcp.clear();
        for _ in 0..10 {
            send(meeting);
            meeting.pass(800 * MS);
        }
        let compounds = &meeting.people[1].rtcp;
        (compounds.len(), compounds.iter().filter(|compound| compound[1] == 201).count())
    };
    let frame = |meeting: &mut Meeting| (0..3).for_each(|layer| meeting.send_frame(0, layer, true));
    assert_eq!(besides(&mut meeting, frame), (8, 0), "a report each second");
    let sound = |meeting: &mut Meeting| meeting.send_sound(0, 30);
    let (compounds, greetings) = besides(&mut meeting, sound);
    assert!(
        compounds >= 10 && greetings > 0,
        "{compounds}, {greetings}: between two packets that may be lost"
    );
    // Once nothing comes, the beat is the usual one.
    frame(&mut meeting);
    meeting.pass(1_000 * MS);
    for _ in 0..4 {
        meeting.people[1].rtcp.clear();
        meeting.pass(500 * MS);
        assert!(!meeting.people[1].rtcp.is_empty());
    }
}

#[test]
fn publishers_are_told_which_layers_somebody_watches() {
    let mut meeting = pair();
    talk(&mut meeting, &[0, 1], 3_000 * MS);
    assert_eq!(
        wanted(&meeting, 0).map(|(_, layers)| layers),
        Some(vec![true, false, false]),
        "nobody watches"
    );
    let at = meeting.now;
    meeting.view(1, &[("v0", Some(0), 720)]);
    talk(&mut meeting, &[0, 1], 300 * MS);
    let (told_at, layers) = wanted(&meeting, 0).expect("told");
    assert!(layers[2] && told_at - at <= 200 * MS, "at once: {layers:?} after {:?}", told_at - at);
    meeting.view(1, &[("v0", Some(0), 180)]);
    let at = meeting.now;
    talk(&mut meeting, &[0, 1], 4_000 * MS);
    let (told_at, layers) = wanted(&meeting, 0).expect("told");
    assert_eq!(layers, [true, false, false]);
    assert!(told_at - at >= 2_000 * MS, "after a while only");
    assert_eq!(wanted(&meeting, 1).map(|(_, layers)| layers), Some(vec![true, false, false]));
}

#[test]
fn who_falls_silent_while_they_should_speak_is_lost_until_they_are_heard_again() {
    let mut meeting = pair();
    talk(&mut meeting, &[0, 1], 2_000 * MS);
    let silent_at = meeting.now;
    talk(&mut meeting, &[0], 3_000 * MS);
    let told = lines(&meeting, 1);
    assert_eq!(told.last().map(|(_, line)| *line), Some(Line::Lost), "{told:?}");
    let after = told.last().map(|(at, _)| *at - silent_at);
    assert!(after.is_some_and(|after| after <= 2_300 * MS), "{after:?}");
    talk(&mut meeting, &[0, 1], 4_000 * MS);
    assert_eq!(lines(&meeting, 1).last().map(|(_, line)| *line), Some(Line::Good));
    assert_eq!(lines(&meeting, 0), [], "the other never was anything but good");
}

/// Four people who see each other at full height, and what the first one's browser says of its line each second.
fn four_with(estimate_bps: impl Fn(u64) -> u64, seconds: u64) -> Meeting {
    let mut meeting = Meeting::new(7);
    for _ in 0..4 {
        meeting.join(2, 3);
    }
    for viewer in 0..4 {
        let others: Vec<usize> = (0..4).filter(|other| *other != viewer).collect();
        let wish = |place: usize| (["v0", "v1", "v2"][place], Some(others[place]), 720);
        meeting.view(viewer, &[wish(0), wish(1), wish(2)]);
    }
    let media = meeting.slot_ssrc(0, "v0");
    for second in 0..seconds {
        let estimate = rtcp(|writer| assert!(writer.remb(1, estimate_bps(second), &[media])));
        meeting.hand_in_rtcp(0, &estimate);
        talk(&mut meeting, &[0, 1, 2, 3], 1_000 * MS);
    }
    meeting
}

#[test]
fn a_fine_line_that_is_still_being_found_out_is_not_called_weak() {
    let meeting = four_with(|second| 900_000 + second * 200_000, 12);
    assert_eq!(lines(&meeting, 0), []);
}

#[test]
fn a_line_that_stays_too_narrow_for_what_is_wished_is_called_weak() {
    for (name, line) in
        [("narrow", [700_000; 12]), ("falls", std::array::from_fn(|n| 900_000 - n as u64 * 50_000))]
    {
        let meeting = four_with(|second| line[second as usize], 12);
        let told: Vec<_> = lines(&meeting, 0).into_iter().map(|(_, line)| line).collect();
        assert_eq!(told, [Line::Weak], "{name}");
    }
}
