//! Whom ticks pass by, and that nothing is found out late for it.

mod meeting;

use asamblea_seam::Event;
use meeting::{Meeting, line::Line, publishing, rtcp};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A camera with a frame each so many steps of 5 ms, and one who watches it over a line; `look` is taken after each step.
fn film(
    meeting: &mut Meeting,
    line: &mut Line,
    (steps, frame_each): (usize, usize),
    mut look: impl FnMut(&Meeting, usize),
) {
    for step in 0..steps {
        if step % frame_each == 0 {
            let is_key = !meeting.take_plis(0).is_empty();
            (0..3).for_each(|layer| meeting.send_frame(0, layer, is_key));
        }
        meeting.pass(5 * MS);
        line.carry(meeting, 1, step % 20 == 0);
        look(meeting, step);
    }
}

/// A camera that moves seldom, for so long. How many 5 ms steps found both lines passed by, and of how many.
fn watch(meeting: &mut Meeting, line: &mut Line, duration: Duration) -> (usize, usize) {
    let (mut passed_by, steps) = (0, (duration.as_millis() / 5) as usize);
    film(meeting, line, (steps, 80), |meeting, _| {
        passed_by += usize::from(meeting.room.passed_by(meeting.now).0 == 2);
    });
    (passed_by, steps)
}

fn publish(meeting: &mut Meeting, person: usize, camera: bool) {
    let (now, key) = (meeting.now, meeting.people[person].key);
    meeting.room.publish(now, key, &publishing(false, camera));
}

fn watched() -> (Meeting, Line) {
    let mut meeting = Meeting::new(7);
    meeting.join(2, 2);
    meeting.join(2, 2);
    publish(&mut meeting, 0, true);
    meeting.view(1, &[("v0", Some(0), 720)]);
    let line = Line::new(meeting.now);
    (meeting, line)
}

#[test]
fn who_is_sent_little_over_a_good_line_is_passed_by_and_looked_at_once_it_loses() {
    let (mut meeting, mut line) = watched();
    watch(&mut meeting, &mut line, 8_000 * MS);
    let (passed_by, steps) = watch(&mut meeting, &mut line, 8_000 * MS);
    assert!(passed_by * 10 > steps * 7, "{passed_by} of {steps}");
    line.lost_percent = 40;
    watch(&mut meeting, &mut line, 1_000 * MS);
    let (passed_by, steps) = watch(&mut meeting, &mut line, 5_000 * MS);
    assert_eq!(passed_by, 0, "of {steps}");
}

#[test]
fn who_is_sent_much_is_looked_at_each_time() {
    let (mut meeting, mut line) = watched();
    film(&mut meeting, &mut line, (2_000, 7), |meeting, step| {
        assert!(step < 300 || meeting.room.passed_by(meeting.now).0 < 2, "step {step}");
    });
}

#[test]
fn who_changes_what_it_sees_is_looked_at_with_the_next_tick() {
    let (mut meeting, mut line) = watched();
    watch(&mut meeting, &mut line, 16_000 * MS);
    assert_eq!(meeting.room.passed_by(meeting.now).0, 2);
    meeting.view(1, &[("v0", Some(0), 180)]);
    assert_eq!(meeting.room.passed_by(meeting.now).0, 1, "the publisher");
}

#[test]
fn a_camera_that_is_off_costs_no_look_and_is_asked_for_as_soon_as_it_is_on() {
    let mut meeting = Meeting::new(11);
    for person in 0..3 {
        meeting.join(2, 2);
        publish(&mut meeting, person, false);
    }
    meeting.view(1, &[("v0", Some(0), 720)]);
    meeting.pass(5_000 * MS);
    // The wish for a camera that is off keeps its owner from resting.
    assert_eq!(meeting.room.passed_by(meeting.now).1, 2);
    meeting.view(1, &[]);
    meeting.pass(5_000 * MS);
    assert_eq!(meeting.room.passed_by(meeting.now).1, 3);
    let (now, key) = (meeting.now, meeting.people[2].key);
    meeting.told.clear();
    meeting.room.publish(now, key, &publishing(false, true));
    meeting.view(0, &[("v0", Some(2), 720)]);
    assert_eq!(meeting.room.passed_by(meeting.now).1, 2);
    (0..3).for_each(|layer| meeting.send_frame(2, layer, true));
    meeting.pass(500 * MS);
    let id = meeting.people[2].id;
    let is_asked = meeting.told.iter().any(|(at, event)| match event {
        Event::Wanted { peer, ups } => *peer == id && *at - now <= 200 * MS && ups[0].layers[2],
        _ => false,
    });
    assert!(is_asked, "{:?}", meeting.told);
}

#[test]
fn news_of_a_calm_line_may_wait_until_something_is_asked_for_or_lost() {
    let (mut meeting, mut line) = watched();
    publish(&mut meeting, 1, false);
    let may_wait =
        |meeting: &Meeting, person: usize| meeting.room.may_wait(meeting.now, meeting.people[person].key);
    assert!(!may_wait(&meeting, 1), "nothing is known of the line");
    watch(&mut meeting, &mut line, 8_000 * MS);
    assert!(may_wait(&meeting, 1));
    assert!(!may_wait(&meeting, 0), "it sends media");
    publish(&mut meeting, 1, true);
    assert!(!may_wait(&meeting, 1), "it is about to send media");
    publish(&mut meeting, 1, false);
    watch(&mut meeting, &mut line, 3_000 * MS);
    assert!(may_wait(&meeting, 1));
    let ssrc = meeting.slot_ssrc(1, "v0");
    let request = rtcp(|writer| {
        writer.receiver_report(1, &[]);
        writer.nack(1, ssrc, &[7]);
    });
    meeting.hand_in_rtcp(1, &request);
    assert!(!may_wait(&meeting, 1), "a packet is missing");
    watch(&mut meeting, &mut line, 9_000 * MS);
    assert!(!may_wait(&meeting, 1), "it may be so again");
    watch(&mut meeting, &mut line, 4_000 * MS);
    assert!(may_wait(&meeting, 1));
    line.lost_percent = 10;
    watch(&mut meeting, &mut line, 5_000 * MS);
    assert!(!may_wait(&meeting, 1), "packets get lost");
}

#[test]
fn news_of_a_narrow_line_may_not_wait() {
    let (mut meeting, mut line) = watched();
    publish(&mut meeting, 1, false);
    meeting.people[1].oracle.is_narrow = true;
    line.bps = 300_000;
    film(&mut meeting, &mut line, (4_000, 7), |meeting, step| {
        let may_wait = meeting.room.may_wait(meeting.now, meeting.people[1].key);
        assert!(step < 2_000 || !may_wait, "step {step}");
    });
}

#[test]
fn who_rests_goes_on_while_others_come_and_ask_for_pictures() {
    let mut meeting = Meeting::new(13);
    for person in 0..4 {
        meeting.join(2, 2);
        publish(&mut meeting, person, person == 0);
    }
    (0..3).for_each(|layer| meeting.send_frame(0, layer, true));
    meeting.pass(5_000 * MS);
    let at_rest = |meeting: &Meeting| meeting.room.passed_by(meeting.now).1;
    assert_eq!(at_rest(&meeting), 3, "all but the camera");
    meeting.join(2, 2);
    assert_eq!(at_rest(&meeting), 3, "the newcomer has said nothing yet");
    (0..3).for_each(|layer| meeting.send_frame(0, layer, false));
    meeting.view(1, &[("v0", Some(0), 720)]);
    let mut asked = 0;
    for _ in 0..200 {
        meeting.pass(5 * MS);
        asked += meeting.take_plis(0).len();
        assert_eq!(at_rest(&meeting), 3, "with {asked} key frames asked for");
    }
    assert!(asked > 0);
}

#[test]
fn who_is_left_alone_is_told_so_at_rest_too() {
    let mut meeting = Meeting::new(17);
    for person in 0..2 {
        meeting.join(2, 2);
        publish(&mut meeting, person, false);
    }
    meeting.pass(5_000 * MS);
    assert_eq!(meeting.room.passed_by(meeting.now).1, 2);
    meeting.told.clear();
    let (now, key) = (meeting.now, meeting.people[1].key);
    meeting.room.leave(now, key);
    meeting.people.truncate(1);
    meeting.pass(5_000 * MS);
    let id = meeting.people[0].id;
    let is_told = |(_, event): &(_, Event)| matches!(event, Event::Wanted { peer, ups } if *peer == id && !ups[0].layers[0]);
    assert!(meeting.told.iter().any(is_told), "{:?}", meeting.told);
}

#[test]
fn beside_media_a_report_each_second_goes_out_and_nothing_else() {
    let (mut meeting, mut line) = watched();
    watch(&mut meeting, &mut line, 4_000 * MS);
    meeting.people[1].rtcp.clear();
    watch(&mut meeting, &mut line, 6_000 * MS);
    let kinds: Vec<u8> = meeting.people[1].rtcp.iter().map(|compound| compound[1]).collect();
    assert_eq!(kinds, [200; 6], "sender reports (RFC 3550 section 6.4.1)");
}
