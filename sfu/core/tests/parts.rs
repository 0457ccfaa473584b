//! A meeting on several shards behaves like one on one shard.

mod meeting;

use asamblea_seam::Event;
use asamblea_sfu_core::{
    relay::{BYTES_MAX, FORGOTTEN_AFTER},
    rtp::{
        header::Packet,
        rtcp::{Rtcp, walk},
        rtcp_write::SenderReport,
        time::Ntp,
    },
};
use meeting::{
    Meeting, Seen, publishing, rtcp,
    span::{PER_PART, Span},
};
use std::{cell::Cell, rc::Rc, time::Duration};

const MS: Duration = Duration::from_millis(1);

/// One who publishes and one who watches in each of two parts; everyone watches all others, whom they name by number.
fn four() -> (Span, [(usize, usize); 4]) {
    let mut span = Span::new(5, 2);
    let people = [(0, 0), (0, 1), (1, 0), (1, 1)];
    for (part, _) in people {
        span.parts[part].join(3, 3);
    }
    for (part, person) in people {
        let others: Vec<usize> =
            people.iter().filter(|other| **other != (part, person)).map(|other| number(*other)).collect();
        let slots = ["v0", "v1", "v2"];
        let wishes: Vec<_> =
            slots.iter().zip(others).map(|(slot, other)| (*slot, Some(other), 720)).collect();
        span.parts[part].view(person, &wishes);
    }
    span.pass(10 * MS);
    (span, people)
}

fn number((part, person): (usize, usize)) -> usize {
    part * PER_PART + person
}

#[test]
fn everyone_sees_and_hears_everyone_wherever_they_live() {
    let (mut span, people) = four();
    span.send(&people, 50, 30);
    for (part, person) in people {
        let others: Vec<usize> =
            people.iter().filter(|other| **other != (part, person)).map(|other| number(*other)).collect();
        for (slot, other) in ["v0", "v1", "v2"].iter().zip(&others) {
            let seen = span.parts[part].take_slot(person, slot);
            assert!(seen.len() > 100, "{} of {other} at {part}/{person}", seen.len());
            assert!(seen.iter().all(|it| it.from == *other));
            assert_eq!(seen.last().map(|it| it.layer), Some(2), "the tallest, as wished");
            assert_eq!(span.parts[part].slot_state(person, slot), Some(*other));
        }
        let mut heard: Vec<usize> =
            ["a0", "a1", "a2"].iter().flat_map(|slot| span.seen_in(part, person, slot)).collect();
        heard.sort_unstable();
        assert_eq!(heard, others, "at {part}/{person}");
    }
    for part in &span.parts {
        let counters = part.room.counters();
        assert_eq!(counters.dropped_relay_full + counters.dropped_relay_unknown, 0, "{counters:?}");
        assert!(counters.relayed_in > 0);
    }
}

#[test]
fn a_layer_crosses_once_however_many_watch_it_and_not_at_all_if_nobody_does() {
    let mut span = Span::new(1, 2);
    span.parts[0].join(0, 0);
    for _ in 0..10 {
        span.parts[1].join(0, 1);
    }
    span.send(&[(0, 0)], 5, 127);
    assert_eq!(span.packets, 0, "nobody watches, nobody has a slot for sound");
    for person in 0..10 {
        span.parts[1].view(person, &[("v0", Some(0), 180)]);
    }
    span.send(&[(0, 0)], 20, 127);
    let received = span.parts[1].take_slot(9, "v0").len() as u64;
    assert!(received >= 3 * 15);
    assert!((3 * 15..=3 * 20).contains(&span.packets), "{} for ten who watch", span.packets);
    // A layer that is waited for is taken once it comes.
    let carried = span.packets;
    span.parts[1].view(0, &[("v0", Some(0), 720)]);
    span.pass(1_200 * MS);
    for packet in span.parts[0].frame(0, 0, false, 3) {
        span.hand_in(0, 0, &packet);
    }
    span.pass(150 * MS);
    assert_eq!(span.packets, carried + 3);
    let packets = span.parts[0].frame(0, 2, true, 1);
    span.hand_in(0, 0, &packets[0]);
    assert_eq!(span.packets, carried + 3, "wanted, but not taken yet");
}

#[test]
fn a_key_frame_that_many_want_is_asked_for_once() {
    let (mut span, people) = four();
    span.send(&people, 30, 127);
    span.pass(600 * MS); // the gate is open again
    let packets: Vec<_> = span.parts[0].frame(0, 2, false, 1);
    span.hand_in(0, 0, &packets[0]);
    span.parts[0].take_plis(0);
    for person in [0, 1] {
        // Person 0 of part 0 is the first whom those of part 1 watch.
        let media_ssrc = span.parts[1].slot_ssrc(person, "v0");
        let compound = rtcp(|writer| {
            writer.receiver_report(1, &[]);
            writer.picture_loss(1, media_ssrc);
        });
        span.parts[1].hand_in_rtcp(person, &compound);
    }
    span.exchange();
    span.pass(MS);
    assert_eq!(span.parts[0].take_plis(0), [span.parts[0].people[0].camera[2].ssrc]);
    // It does not come, and is asked for again until it does.
    span.pass(600 * MS);
    assert_eq!(span.parts[0].take_plis(0).len(), 1);
    for packet in span.parts[0].frame(0, 2, true, 3) {
        span.hand_in(0, 0, &packet);
    }
    span.pass(900 * MS);
    assert_eq!(span.parts[0].take_plis(0).len(), 0);
}

#[test]
fn what_was_lost_on_a_line_is_sent_again_by_the_part_of_who_lost_it() {
    let (mut span, people) = four();
    span.send(&people, 50, 127);
    let seen = span.parts[1].take_slot(0, "v0");
    let before = span.packets;
    let media_ssrc = span.parts[1].slot_ssrc(0, "v0");
    let lost: Vec<u16> = seen.iter().rev().take(5).map(|it| it.sequence).collect();
    let compound = rtcp(|writer| {
        writer.receiver_report(1, &[]);
        writer.nack(1, media_ssrc, &lost);
    });
    span.parts[1].hand_in_rtcp(0, &compound);
    span.pass(MS);
    assert_eq!(span.parts[1].room.counters().resent, 5);
    assert_eq!(span.packets, before, "out of its own history");
}

fn wanted(span: &Span, part: usize, person: usize) -> Vec<bool> {
    let id = span.parts[part].people[person].id;
    let told = span.parts[part].told.iter().rev().find_map(|(_, event)| match event {
        Event::Wanted { peer, ups } if *peer == id => Some(ups[0].layers.clone()),
        _ => None,
    });
    told.unwrap_or_default()
}

#[test]
fn a_publisher_is_told_what_either_part_wants_and_what_neither_does() {
    let mut span = Span::new(2, 2);
    span.parts[0].join(1, 1);
    span.parts[0].join(1, 1);
    span.parts[1].join(1, 1);
    span.send(&[(0, 0)], 75, 127);
    assert_eq!(wanted(&span, 0, 0), [true, false, false], "the smallest for whoever comes next");
    span.parts[1].view(0, &[("v0", Some(0), 720)]);
    span.send(&[(0, 0)], 5, 127);
    assert_eq!(wanted(&span, 0, 0), [true, false, true], "at once");
    span.parts[0].view(1, &[("v0", Some(0), 360)]);
    span.parts[1].view(0, &[("v0", None, 0)]);
    span.send(&[(0, 0)], 75, 127);
    assert_eq!(wanted(&span, 0, 0), [true, true, false]);
    let packets = span.packets;
    span.send(&[(0, 0)], 5, 127);
    let sound = 10;
    assert_eq!(span.packets - packets, sound, "of the picture nothing crosses any more");
    // Nobody is left on the other part, and it says so no more.
    span.parts[0].view(1, &[("v0", None, 0)]);
    span.parts[1].view(0, &[("v0", Some(0), 720)]);
    span.send(&[(0, 0)], 5, 127);
    assert_eq!(wanted(&span, 0, 0), [true, true, true]);
    span.refuses = Box::new(|from, _| from == 1);
    span.send(&[(0, 0)], FORGOTTEN_AFTER.as_millis() as usize / 40 + 75, 127);
    assert_eq!(wanted(&span, 0, 0), [true, false, false], "an ask that is not repeated is forgotten");
}

#[test]
fn who_leaves_or_stops_is_gone_everywhere() {
    let (mut span, people) = four();
    span.send(&people, 30, 30);
    assert_eq!(span.parts[1].slot_state(0, "v0"), Some(0));
    let (now, key) = (span.now(), span.parts[0].people[0].key);
    span.parts[0].room.publish(now, key, &publishing(true, false));
    span.pass(2 * MS);
    assert_eq!(span.parts[1].slot_state(0, "v0"), None, "the camera");
    assert!(
        ["a0", "a1", "a2"].iter().any(|slot| span.parts[1].slot_state(0, slot) == Some(0)),
        "still heard"
    );
    span.parts[0].room.publish(now, key, &publishing(true, true));
    span.send(&people, 20, 30);
    assert_eq!(span.parts[1].slot_state(0, "v0"), Some(0), "and back");
    span.parts[0].room.leave(now, key);
    span.pass(2 * MS);
    for slot in ["v0", "a0", "a1", "a2"] {
        assert_ne!(span.parts[1].slot_state(0, slot), Some(0), "{slot}");
    }
    span.send(&people[1..], 5, 30);
    assert_eq!(span.parts[1].slot_state(0, "v1"), Some(1), "the others stay");
}

#[test]
fn a_part_that_ends_ends_alone_and_its_people_come_again() {
    let (mut span, people) = four();
    span.send(&people, 30, 30);
    span.restart(1, 99);
    for person in [0, 1] {
        assert!(["v1", "v2"].iter().all(|slot| span.parts[0].slot_state(person, slot).is_none()));
    }
    span.send(&people[..2], 10, 30);
    assert_eq!(span.parts[0].slot_state(0, "v0"), Some(1), "those of the other part go on");
    // The same ids; their numbers begin anew.
    for _ in 0..2 {
        let person = span.parts[1].join(3, 3);
        span.parts[1].view(person, &[("v0", Some(0), 720)]);
    }
    span.link(&[0, 1]);
    span.parts[0].people.iter_mut().for_each(|person| person.received.clear());
    span.send(&people, 30, 30);
    assert_eq!(span.parts[0].slot_state(0, "v1"), Some(PER_PART));
    assert_eq!(span.seen_in(0, 0, "v1"), [PER_PART]);
    assert_eq!(span.seen_in(1, 0, "v0"), [0]);
}

#[test]
fn one_who_comes_again_on_another_part_is_there_once() {
    let (mut span, people) = four();
    span.send(&people, 30, 30);
    // Person 0 of part 1 comes to part 0, which does not know that it left.
    span.refuses = Box::new(|from, _| from == 1);
    let (now, key) = (span.now(), span.parts[1].people[0].key);
    span.parts[1].room.leave(now, key);
    span.parts[0].first = PER_PART - 2;
    let person = span.parts[0].join(3, 3);
    assert_eq!(span.parts[0].people[person].id.0 as usize, PER_PART + 1);
    span.refuses = Box::new(|_, _| false);
    span.parts[0].people[0].received.clear();
    let others = [people[0], people[1], people[3], (0, person)];
    span.send(&others, 40, 30);
    assert_eq!(span.parts[0].slot_state(0, "v1"), Some(PER_PART));
    assert_eq!(span.seen_in(0, 0, "v1"), [PER_PART]);
    assert_eq!(span.parts[1].slot_state(1, "v2"), Some(PER_PART), "and seen from where they were");
}

#[test]
fn who_speaks_is_said_by_one_part_and_by_the_other_once_that_is_gone() {
    let (mut span, people) = four();
    span.send(&[people[2]], 25, 20);
    assert_eq!(span.parts[0].speakers.last().expect("said")[0].0 as usize, PER_PART + 1);
    assert!(span.parts[1].speakers.is_empty(), "once");
    span.link(&[1]);
    span.parts[1].settle();
    assert_eq!(span.parts[1].speakers.last().expect("said")[0].0 as usize, PER_PART + 1);
}

#[test]
fn a_part_that_hears_of_the_other_later_is_told_everything_at_once() {
    let (mut span, _) = four();
    let hears =
        |span: &Span| ["a0", "a1", "a2"].map(|slot| span.parts[1].slot_state(0, slot)).contains(&Some(0));
    span.link(&[1]);
    span.link(&[0]);
    span.pass(500 * MS);
    assert!(!hears(&span), "apart");
    // The first knows of the second, and says all that it has to say; the second does not listen yet. Nobody makes a
    // sound, so that nothing changes of which to tell.
    let mut now = span.now();
    span.parts[0].room.set_parts(now, 100, &[1], true);
    span.pass(250 * MS);
    assert!(!hears(&span));
    now = span.now();
    span.parts[1].room.set_parts(now, 100, &[0], false);
    span.pass(20 * MS);
    assert!(hears(&span), "long before all is told again");
}

#[test]
fn a_voice_from_the_other_part_is_heard_from_its_first_word() {
    let mut span = Span::new(3, 2);
    for part in [0, 1] {
        for _ in 0..4 {
            span.parts[part].join(2, 0);
        }
    }
    let people: Vec<_> = [0, 1].iter().flat_map(|part| (0..4).map(|person| (*part, person))).collect();
    span.send(&people, 25, 100);
    for phase in 0..5 {
        // Whoever of the other part fills no slot here.
        let is_unheard = |span: &Span, it: usize| {
            ["a0", "a1"].iter().all(|slot| span.parts[0].slot_state(0, slot) != Some(PER_PART + it))
        };
        let speaker = (0..4).find(|it| is_unheard(&span, *it)).expect("two slots for seven");
        span.pass(20 * MS * phase);
        for _ in 0..4 {
            let packet = span.parts[1].sound(speaker, 15);
            span.hand_in(1, speaker, &packet);
            span.pass(MS);
            span.pass(19 * MS);
        }
        assert!(
            !is_unheard(&span, speaker),
            "after 80 ms, of which a word takes 60 to be one; phase {phase}"
        );
        span.send(&people, 40, 100);
    }
}

#[test]
fn a_full_queue_is_counted_and_mended_by_a_key_frame() {
    let (mut span, people) = four();
    span.send(&people, 30, 127);
    let is_full = Rc::new(Cell::new(true));
    let refuses = is_full.clone();
    span.refuses = Box::new(move |from, _| from == 0 && refuses.get());
    let mut sent = 0;
    while span.parts[0].room.counters().dropped_relay_full == 0 {
        for packet in span.parts[0].frame(0, 2, false, 3) {
            sent += packet.len();
            span.hand_in(0, 0, &packet);
        }
        assert!(sent < 2 * BYTES_MAX, "what waits is bounded");
    }
    span.pass(600 * MS);
    assert_eq!(span.parts[0].take_plis(0).last(), Some(&span.parts[0].people[0].camera[2].ssrc));
    is_full.set(false);
    span.pass(2 * MS);
    span.parts[1].take_slot(0, "v0");
    for packet in span.parts[0].frame(0, 2, true, 3) {
        span.hand_in(0, 0, &packet);
    }
    span.pass(2 * MS);
    let seen = span.parts[1].take_slot(0, "v0");
    assert!(seen.iter().any(|it| it.descriptor.is_some_and(|it| it.is_key_frame)), "{seen:?}");
}

#[test]
fn a_part_that_is_not_heard_of_for_long_is_forgotten_and_known_again_when_it_is() {
    let (mut span, people) = four();
    span.send(&people, 30, 30);
    span.refuses = Box::new(|from, _| from == 1);
    span.pass(FORGOTTEN_AFTER + Duration::from_secs(1));
    assert_eq!(span.parts[0].slot_state(0, "v1"), None);
    assert_eq!(span.parts[0].slot_state(0, "v0"), Some(1));
    span.refuses = Box::new(|_, _| false);
    span.send(&people, 40, 30);
    assert_eq!(span.parts[0].slot_state(0, "v1"), Some(PER_PART));
}

/// The moment of a frame on the wall clock, as the sender reports of a slot have it, in milliseconds.
fn told_at_ms(meeting: &Meeting, person: usize, slot: &str, frame: u32) -> f64 {
    let ssrc = meeting.slot_ssrc(person, slot);
    let mut seen = meeting.people[person].received.iter().filter_map(|bytes| {
        Packet::parse(bytes).filter(|packet| packet.ssrc == ssrc).map(|_| Seen::read(bytes))
    });
    let timestamp = seen.rfind(|seen| seen.layer == 2 && seen.frame == frame).expect("it came").timestamp;
    let reports = meeting.people[person].rtcp.iter().flat_map(|bytes| walk(bytes).flatten());
    let report = reports.filter_map(|packet| match packet {
        Rtcp::SenderReport { ssrc: of, ntp, rtp, .. } if of == ssrc => Some((ntp, rtp)),
        _ => None,
    });
    let (ntp, rtp) = report.last().expect("a slot that is filled is reported on");
    let seconds = ntp.since(Ntp(0xeeee_0000_0000_0000)) as f64 / 2_f64.powi(32);
    seconds * 1e3 + f64::from(timestamp.wrapping_sub(rtp) as i32) / 90.0
}

#[test]
fn sender_reports_of_either_part_tell_the_publishers_clock() {
    let (mut span, people) = four();
    span.delay = 150 * MS; // by which reports by arrival would differ
    span.send(&people, 60, 30);
    let stream = &span.parts[0].people[0].camera[2];
    let ntp = Ntp(0xeeee_0000_0000_0000 - (3_600 << 32)); // an hour behind ours
    let report = SenderReport { ssrc: stream.ssrc, ntp, rtp: stream.timestamp, packets: 1, octets: 1 };
    let compound = rtcp(|writer| assert!(writer.sender_report(&report)));
    span.parts[0].hand_in_rtcp(0, &compound);
    // Frames are 3,000 ticks apart, as if there were 30 a second.
    for _ in 0..60 {
        for packet in span.parts[0].frame(0, 2, false, 1) {
            span.hand_in(0, 0, &packet);
        }
        span.pass(Duration::from_nanos(33_333_333));
    }
    span.pass(200 * MS);
    let frame = span.parts[0].people[0].camera[2].frame - 10;
    let here = told_at_ms(&span.parts[0], 1, "v0", frame);
    let there = told_at_ms(&span.parts[1], 0, "v0", frame);
    assert!((here - there).abs() < 5.0, "{here} ms and {there} ms");
}
