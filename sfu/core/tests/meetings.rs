//! Scripted meetings, step by step: who gets what, and what is asked of whom.

mod meeting;

use asamblea_seam::{PeerId, SlotWish, Up, UpKind};
use asamblea_sfu_core::rtp::{
    header::Packet,
    rtcp::{Rtcp, walk},
    rtcp_write::SenderReport,
    time::Ntp,
};
use meeting::{Meeting, RIDS, mid, publishing, rtcp};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Two people; the second looks at the first, who sends all three layers.
fn pair() -> Meeting {
    let mut meeting = Meeting::new(1);
    meeting.join(2, 2);
    meeting.join(2, 2);
    for layer in 0..3 {
        meeting.send_frame(0, layer, true);
    }
    meeting
}

#[test]
fn twelve_people_hear_and_see_the_others_and_never_themselves() {
    let mut meeting = Meeting::new(7);
    for _ in 0..12 {
        meeting.join(11, 11);
    }
    for person in 0..12 {
        let others: Vec<_> = (0..12).filter(|other| *other != person).collect();
        let slots: Vec<_> = (0..11).map(|slot| format!("v{slot}")).collect();
        let wishes: Vec<_> =
            slots.iter().zip(&others).map(|(slot, other)| (slot.as_str(), Some(*other), 180)).collect();
        meeting.view(person, &wishes);
    }
    for round in 0..10 {
        for person in 0..12 {
            meeting.send_sound(person, 30);
            for layer in 0..3 {
                meeting.send_frame(person, layer, round % 5 == 0);
            }
        }
        meeting.pass(33 * MS);
    }
    for person in 0..12 {
        let others: Vec<_> = (0..12).filter(|other| *other != person).collect();
        let mut heard: Vec<_> =
            (0..11).filter_map(|slot| meeting.slot_state(person, &format!("a{slot}"))).collect();
        heard.sort_unstable();
        assert_eq!(heard, others);
        for (slot, other) in others.iter().enumerate() {
            let slot = format!("v{slot}");
            assert_eq!(meeting.slot_state(person, &slot), Some(*other));
            let seen = meeting.take_slot(person, &slot);
            assert!(
                seen.iter().all(|packet| packet.from == *other && packet.layer == 0),
                "smallest layer that fits"
            );
            assert!(seen.len() >= 27, "{}", seen.len());
        }
        for slot in 0..11 {
            let from = meeting.slot_state(person, &format!("a{slot}"));
            let heard = meeting.take_slot(person, &format!("a{slot}"));
            assert_eq!(heard.len(), 10);
            assert!(heard.iter().all(|packet| Some(packet.from) == from));
        }
    }
    assert_eq!(meeting.room.counters().dropped_overwritten, 0);
    assert_eq!(meeting.room.counters().dropped_unknown_ssrc, 0);
}

#[test]
fn a_layer_switch_waits_for_the_key_frame_and_the_old_layer_goes_on() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.take_slot(1, "v0");
    meeting.take_plis(0);
    meeting.view(1, &[("v0", Some(0), 720)]);
    assert_eq!(
        meeting.take_plis(0),
        [meeting.people[0].camera[2].ssrc],
        "a key frame is asked of the new layer"
    );
    meeting.send_frame(0, 2, false);
    meeting.send_frame(0, 0, false);
    let seen = meeting.take_slot(1, "v0");
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|packet| packet.layer == 0));
    let before = seen.last().expect("packets").clone();
    meeting.pass(10 * MS);
    meeting.send_frame(0, 2, true);
    meeting.send_frame(0, 0, false);
    let seen = meeting.take_slot(1, "v0");
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|packet| packet.layer == 2));
    assert_eq!(seen[0].sequence, before.sequence.wrapping_add(1));
    assert_eq!(seen[0].picture_id(), (before.picture_id() + 1) & 0x7fff);
    assert_eq!(
        seen[0].descriptor.and_then(|d| d.tl0_index),
        before.descriptor.and_then(|d| d.tl0_index).map(|index| index.wrapping_add(1))
    );
}

#[test]
fn another_source_stops_the_old_one_at_once_and_is_announced_with_its_key_frame() {
    let mut meeting = Meeting::new(3);
    (0..3).for_each(|_| {
        meeting.join(2, 2);
    });
    meeting.send_frame(0, 0, true);
    meeting.send_frame(1, 0, true);
    meeting.view(2, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    assert_eq!(meeting.slot_state(2, "v0"), Some(0));
    meeting.take_slot(2, "v0");
    meeting.view(2, &[("v0", Some(1), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.send_frame(1, 0, false);
    assert!(meeting.take_slot(2, "v0").is_empty());
    assert_eq!(meeting.slot_state(2, "v0"), Some(0), "not yet");
    meeting.send_frame(1, 0, true);
    assert_eq!(meeting.slot_state(2, "v0"), Some(1));
    assert!(meeting.take_slot(2, "v0").iter().all(|packet| packet.from == 1));
    meeting.view(2, &[("v0", None, 0)]);
    assert_eq!(meeting.slot_state(2, "v0"), None);
    meeting.send_frame(1, 0, true);
    assert!(meeting.take_slot(2, "v0").is_empty());
}

#[test]
fn the_smallest_live_layer_that_is_tall_enough_is_sent() {
    for (height_px, expected) in [(1, 0), (180, 0), (181, 1), (360, 1), (361, 2), (2_000, 2)] {
        let mut meeting = pair();
        meeting.view(1, &[("v0", Some(0), height_px)]);
        (0..3).for_each(|layer| meeting.send_frame(0, layer, true));
        let seen = meeting.take_slot(1, "v0");
        assert!(!seen.is_empty() && seen.iter().all(|packet| packet.layer == expected), "{height_px}");
    }
}

#[test]
fn a_layer_that_dies_gives_way_to_a_live_one_and_comes_back() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 720)]);
    meeting.send_frame(0, 2, true);
    for _ in 0..40 {
        meeting.pass(33 * MS);
        meeting.send_frame(0, 0, false);
    }
    meeting.take_slot(1, "v0");
    assert!(meeting.take_plis(0).contains(&meeting.people[0].camera[0].ssrc));
    meeting.send_frame(0, 0, true);
    assert!(meeting.take_slot(1, "v0").iter().all(|packet| packet.layer == 0));
    meeting.send_frame(0, 2, true);
    let seen = meeting.take_slot(1, "v0");
    assert!(seen.len() == 3 && seen.iter().all(|packet| packet.layer == 2), "{seen:?}");
}

#[test]
fn a_storm_of_requests_reaches_the_publisher_as_one() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.pass(600 * MS);
    meeting.take_plis(0);
    let ssrc = meeting.slot_ssrc(1, "v0");
    let pli = rtcp(|writer| {
        writer.picture_loss(1, ssrc);
    });
    for _ in 0..400 {
        meeting.hand_in_rtcp(1, &pli);
        meeting.pass(MS);
    }
    assert_eq!(meeting.take_plis(0), [meeting.people[0].camera[0].ssrc]);
    meeting.pass(200 * MS);
    assert_eq!(meeting.take_plis(0).len(), 1, "unanswered: asked again");
    meeting.send_frame(0, 0, true);
    meeting.pass(2_000 * MS);
    assert!(meeting.take_plis(0).is_empty(), "answered");
}

#[test]
fn a_lost_packet_is_sent_again_exactly_even_over_a_switch() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    let first = meeting.take_slot(1, "v0");
    meeting.view(1, &[("v0", Some(0), 720)]);
    meeting.send_frame(0, 2, true);
    let second = meeting.take_slot(1, "v0");
    let ssrc = meeting.slot_ssrc(1, "v0");
    for lost in first.iter().chain(&second) {
        meeting.people[1].received.clear();
        let nack = rtcp(|writer| {
            writer.nack(1, ssrc, &[lost.sequence]);
        });
        meeting.hand_in_rtcp(1, &nack);
        let bytes = meeting.people[1].received.pop().expect("sent again");
        let packet = Packet::parse(&bytes).expect("RTP");
        assert_eq!((packet.payload_type, packet.ssrc), (124, ssrc + 1));
        assert_eq!(packet.payload[..2], lost.sequence.to_be_bytes());
        assert_eq!(packet.payload[2..], lost.payload);
        assert_eq!((packet.timestamp, packet.marker), (lost.timestamp, lost.marker));
        meeting.hand_in_rtcp(1, &nack);
        assert!(meeting.people[1].received.is_empty(), "not at once a second time");
    }
    let nack = rtcp(|writer| {
        writer.nack(1, ssrc, &[second[2].sequence.wrapping_add(1), first[0].sequence.wrapping_sub(1)]);
    });
    meeting.hand_in_rtcp(1, &nack);
    assert!(meeting.people[1].received.is_empty(), "never sent");
    assert_eq!(meeting.room.counters().resend_unknown, 2);
}

#[test]
fn mute_and_camera_off_are_kept_by_the_server() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.send_sound(0, 20);
    let slot = if meeting.slot_state(1, "a0") == Some(0) { "a0" } else { "a1" };
    assert_eq!(meeting.take_slot(1, slot).len(), 1);
    meeting.take_slot(1, "v0");
    let key = meeting.people[0].key;
    meeting.room.publish(meeting.now, key, &publishing(false, false));
    meeting.settle();
    assert_eq!((meeting.slot_state(1, slot), meeting.slot_state(1, "v0")), (None, None));
    meeting.send_sound(0, 20);
    meeting.send_frame(0, 0, true);
    assert!(meeting.people[1].received.is_empty());
    meeting.room.publish(meeting.now, key, &publishing(true, true));
    meeting.send_sound(0, 20);
    meeting.send_frame(0, 0, true);
    assert_eq!(meeting.slot_state(1, "v0"), Some(0));
    assert_eq!(meeting.people[1].received.len(), 4);
}

#[test]
fn who_leaves_is_gone_from_every_slot_and_who_returns_is_found_again() {
    let mut meeting = Meeting::new(5);
    (0..3).for_each(|_| {
        meeting.join(2, 2);
    });
    (0..3).for_each(|person| meeting.send_frame(person, 0, true));
    meeting.view(1, &[("v0", Some(0), 180), ("v1", Some(2), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.send_frame(2, 0, true);
    let key = meeting.people[0].key;
    meeting.room.leave(meeting.now, key);
    meeting.settle();
    assert_eq!((meeting.slot_state(1, "v0"), meeting.slot_state(1, "v1")), (None, Some(2)));
    assert!((0..2).all(|slot| meeting.slot_state(1, &format!("a{slot}")) != Some(0)));
    meeting.people[1].received.clear();
    meeting.send_frame(0, 0, true);
    assert!(meeting.people[1].received.is_empty());
    // The same member joins again; the wish was not forgotten.
    let key = meeting.room.join(meeting.now, PeerId(1));
    meeting.people[0].key = key;
    let description = meeting.people[0].description.clone();
    meeting.room.describe(meeting.now, key, &description);
    meeting.room.publish(meeting.now, key, &publishing(true, true));
    meeting.room.set_connected(meeting.now, key, true);
    meeting.send_frame(0, 0, true);
    assert_eq!(meeting.slot_state(1, "v0"), Some(0));
    for person in 0..3 {
        let key = meeting.people[person].key;
        meeting.room.leave(meeting.now, key);
    }
    assert!(meeting.room.is_empty());
}

#[test]
fn the_loudest_are_heard_and_a_slot_does_not_flutter() {
    let mut meeting = Meeting::new(11);
    (0..6).for_each(|_| {
        meeting.join(2, 0);
    });
    let heard_by = |meeting: &Meeting, person: usize| {
        let mut heard: Vec<_> =
            ["a0", "a1"].iter().filter_map(|slot| meeting.slot_state(person, slot)).collect();
        heard.sort_unstable();
        heard
    };
    let round = |meeting: &mut Meeting, levels: [u8; 6]| {
        for _ in 0..50 {
            for (person, level) in levels.iter().enumerate() {
                meeting.send_sound(person, *level);
            }
            meeting.pass(20 * MS);
        }
    };
    round(&mut meeting, [90, 90, 90, 25, 30, 90]);
    assert_eq!(heard_by(&meeting, 0), [3, 4]);
    assert_eq!(heard_by(&meeting, 3).len(), 2);
    assert!(heard_by(&meeting, 3).contains(&4) && !heard_by(&meeting, 3).contains(&3), "never oneself");
    assert_eq!(meeting.speakers.last().expect("speakers"), &[PeerId(4), PeerId(5)]);
    let announced = meeting.speakers.len();
    round(&mut meeting, [24, 90, 90, 25, 30, 90]);
    assert_eq!(heard_by(&meeting, 5), [3, 4], "not clearly louder: no change");
    round(&mut meeting, [90, 90, 8, 90, 30, 90]);
    assert_eq!(heard_by(&meeting, 5), [2, 4]);
    assert!(meeting.speakers.len() - announced <= 10, "at most five a second");
    round(&mut meeting, [100; 6]);
    round(&mut meeting, [100; 6]);
    assert!(meeting.speakers.last().expect("speakers").is_empty(), "silence is told");
}

#[test]
fn everyone_has_a_slot_of_their_own_while_there_are_enough() {
    let mut meeting = Meeting::new(12);
    (0..4).for_each(|_| {
        meeting.join(3, 0);
    });
    let before: Vec<_> = (0..3).map(|slot| meeting.slot_state(0, &format!("a{slot}"))).collect();
    for round in 0..200_u32 {
        for person in 0..4 {
            meeting.send_sound(person, if round / 30 % 4 == person as u32 { 10 } else { 100 });
        }
        meeting.pass(20 * MS);
        let after: Vec<_> = (0..3).map(|slot| meeting.slot_state(0, &format!("a{slot}"))).collect();
        assert_eq!(before, after);
    }
    assert_eq!(meeting.room.counters().switches, 12);
}

#[test]
fn a_publisher_hears_of_loss_of_the_ceiling_and_of_arrivals() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    let mut packets = meeting.frame(0, 0, true, 10);
    packets.remove(4);
    for packet in &packets {
        meeting.hand_in(0, packet);
    }
    meeting.pass(600 * MS);
    meeting.send_frame(0, 0, false);
    meeting.pass(500 * MS);
    let compounds = std::mem::take(&mut meeting.people[0].rtcp);
    let mut found = [false; 4];
    let mut asked = 0;
    for packet in compounds.iter().flat_map(|bytes| walk(bytes)) {
        match packet.expect("well formed") {
            Rtcp::ReceiverReport { mut blocks } => found[0] |= blocks.any(|block| block.fraction_lost > 0),
            Rtcp::Remb { bps } => found[1] |= bps / 1_000 == 2_999 || bps == 3_000_000,
            Rtcp::TransportFeedback(_) => found[2] = true,
            Rtcp::Nack { lost, .. } => {
                found[3] = true;
                asked += lost.count();
            }
            _ => {}
        }
    }
    assert_eq!(found, [true; 4]);
    assert_eq!(asked, 5, "asked for a few times, not for ever");
}

#[test]
fn a_publishers_retransmission_fills_the_gap() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    let packets = meeting.frame(0, 0, true, 5);
    for packet in packets.iter().take(2).chain(packets.iter().skip(3)) {
        meeting.hand_in(0, packet);
    }
    assert_eq!(meeting.take_slot(1, "v0").len(), 4);
    let lost = Packet::parse(&packets[2]).expect("RTP");
    let mut payload = lost.sequence.to_be_bytes().to_vec();
    payload.extend_from_slice(lost.payload);
    let rtx = meeting::rtp(
        (97, lost.marker, 1, lost.timestamp, 999),
        &[(meeting::MID, b"1"), (meeting::REPAIRED_RID, RIDS[0].as_bytes())],
        &payload,
    );
    meeting.hand_in(0, &rtx);
    let seen = meeting.take_slot(1, "v0");
    assert_eq!((seen.len(), seen[0].index), (1, 2));
    meeting.hand_in(0, &rtx);
    assert!(meeting.take_slot(1, "v0").is_empty(), "once");
    meeting.pass(100 * MS);
    assert_eq!(meeting.room.counters().nacks_sent, 0, "it came before it was asked for");
}

#[test]
fn sender_reports_keep_sound_and_picture_in_step() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    // Sound and picture of one moment; the picture travels longer.
    meeting.send_sound(0, 30);
    meeting.pass(150 * MS);
    meeting.send_frame(0, 0, true);
    let (audio, video) = (meeting.people[0].microphone.clone(), meeting.people[0].camera[0].clone());
    // Both streams' clocks meet at one moment of the sender's own wall clock, which is an hour off.
    let theirs = Ntp(0xeeee_0000_0000_0000 - (3_600 << 32));
    let reports = rtcp(|writer| {
        for stream in [&audio, &video] {
            writer.sender_report(&SenderReport {
                ssrc: stream.ssrc,
                ntp: theirs,
                rtp: stream.timestamp,
                packets: 1,
                octets: 1,
            });
        }
    });
    meeting.hand_in_rtcp(0, &reports);
    let slot = if meeting.slot_state(1, "a0") == Some(0) { "a0" } else { "a1" };
    let sent = [(slot, 48_000_i64), ("v0", 90_000)].map(|(slot, hz)| {
        let timestamp = meeting.take_slot(1, slot).last().expect("sent").timestamp;
        (meeting.slot_ssrc(1, slot), timestamp, hz)
    });
    meeting.pass(1_100 * MS);
    let compounds = std::mem::take(&mut meeting.people[1].rtcp);
    let mut elapsed = Vec::new();
    for packet in compounds.iter().flat_map(|bytes| walk(bytes)) {
        if let Ok(Rtcp::SenderReport { ssrc, ntp, rtp, .. }) = packet {
            let (_, timestamp, hz) = sent.iter().find(|(slot, _, _)| *slot == ssrc).expect("a slot");
            let ticks = i64::from(rtp.wrapping_sub(*timestamp) as i32);
            elapsed.push((ticks * 1_000 / hz, ntp));
        }
    }
    assert_eq!(elapsed.len(), 2, "{elapsed:?}");
    assert!((elapsed[0].0 - elapsed[1].0).abs() <= 1, "{elapsed:?}");
    assert_eq!(elapsed[0].1, elapsed[1].1);
}

#[test]
fn forged_and_malformed_packets_cost_nothing_and_change_nothing() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.people[1].received.clear();
    let forged = meeting::rtp((96, false, 1, 1, 0xdead), &[(meeting::MID, b"7")], b"x");
    let no_rid = meeting::rtp((96, false, 1, 1, 0xdead), &[(meeting::MID, b"1")], b"x");
    let wrong_type = meeting::rtp((5, false, 1, 1, meeting.people[0].camera[0].ssrc), &[], b"x");
    for bytes in [&forged[..], &no_rid, &wrong_type, &[], &[0x80; 11], &[0xff; 1_500]] {
        meeting.hand_in(0, bytes);
        meeting.hand_in_rtcp(0, bytes);
    }
    assert!(meeting.people[1].received.is_empty());
    let counters = *meeting.room.counters();
    assert_eq!(
        (counters.dropped_unknown_ssrc, counters.dropped_payload_type, counters.dropped_malformed),
        (2, 1, 3)
    );
    meeting.send_frame(0, 0, false);
    assert_eq!(meeting.people[1].received.len(), 3, "the meeting did not notice");
}

#[test]
fn a_thousand_ssrcs_find_no_room() {
    let mut meeting = pair();
    let memory = meeting.room.memory_bytes();
    for ssrc in 0..1_000 {
        let packet = meeting::rtp(
            (96, false, 1, 1, 50_000 + ssrc),
            &[(meeting::MID, b"1"), (meeting::RID, b"q")],
            b"x",
        );
        meeting.hand_in(0, &packet);
    }
    assert_eq!(meeting.room.memory_bytes(), memory);
}

#[test]
fn a_new_ssrc_for_a_layer_goes_on_at_its_key_frame() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    let before = meeting.take_slot(1, "v0");
    meeting.pass(100 * MS);
    meeting.people[0].camera[0].ssrc = 7_777;
    meeting.people[0].camera[0].sequence = 3;
    meeting.people[0].camera[0].timestamp = 3;
    meeting.send_frame(0, 0, false);
    assert!(meeting.take_slot(1, "v0").is_empty());
    meeting.pass(600 * MS);
    assert!(meeting.take_plis(0).contains(&7_777));
    meeting.send_frame(0, 0, true);
    let after = meeting.take_slot(1, "v0");
    assert_eq!(after[0].sequence, before[2].sequence.wrapping_add(1));
    let step = after[0].timestamp.wrapping_sub(before[2].timestamp);
    assert_eq!(step, 63_000, "700 ms");
}

#[test]
fn nothing_is_queued_for_who_has_no_transport() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    meeting.people[1].received.clear();
    let key = meeting.people[1].key;
    meeting.room.set_connected(meeting.now, key, false);
    meeting.send_frame(0, 0, true);
    meeting.send_sound(0, 10);
    assert!(meeting.people[1].received.is_empty());
    meeting.room.set_connected(meeting.now, key, true);
    meeting.settle();
    meeting.send_frame(0, 0, false);
    assert!(meeting.people[1].received.is_empty(), "a decoder starts with a key frame");
    meeting.send_frame(0, 0, true);
    meeting.send_sound(0, 10);
    assert_eq!(meeting.people[1].received.len(), 4);
}

#[test]
fn new_keys_begin_every_stream_before_its_first_wraparound() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    let cross = |meeting: &mut Meeting| {
        for _ in 0..30 {
            meeting.people[0].camera[0].sequence = meeting.people[0].camera[0].sequence.wrapping_add(2_500);
            meeting.send_frame(0, 0, true);
        }
    };
    cross(&mut meeting);
    meeting.take_slot(1, "v0");
    let key = meeting.people[1].key;
    meeting.people[1].oracle.forget();
    meeting.room.renew_transport(meeting.now, key);
    meeting.room.set_connected(meeting.now, key, true);
    meeting.send_frame(0, 0, false);
    let seen = meeting.take_slot(1, "v0");
    let is_key_frame = seen[0].descriptor.is_some_and(|descriptor| descriptor.is_key_frame);
    assert!(is_key_frame, "a new decoder starts with a key frame, the last one if none comes yet");
    // The oracle asserts that a stream begins below 2^15.
    meeting.send_frame(0, 0, true);
    meeting.send_sound(0, 10);
    assert_eq!(meeting.take_slot(1, "v0").len(), 3);
    assert_eq!(meeting.slot_state(1, "v0"), Some(0));
}

#[test]
fn a_slot_that_comes_back_goes_on_in_its_numbers() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    let before = meeting.take_slot(1, "v0");
    let key = meeting.people[1].key;
    let full = meeting.people[1].description.clone();
    let mut less = full.clone();
    less.slots.retain(|slot| slot.mid != mid("v0"));
    meeting.room.describe(meeting.now, key, &less);
    meeting.send_frame(0, 0, true);
    assert!(meeting.take_slot(1, "v0").is_empty());
    meeting.room.describe(meeting.now, key, &full);
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    assert_eq!(meeting.take_slot(1, "v0")[0].sequence, before[2].sequence.wrapping_add(1));
}

#[test]
fn describing_and_viewing_again_change_nothing() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    let first = meeting.take_slot(1, "v0");
    meeting.take_plis(0);
    for person in 0..2 {
        let description = meeting.people[person].description.clone();
        let key = meeting.people[person].key;
        meeting.room.describe(meeting.now, key, &description);
        meeting.room.publish(meeting.now, key, &publishing(true, true));
        meeting.room.set_connected(meeting.now, key, true);
    }
    meeting.view(1, &[("v0", Some(0), 180)]);
    let key = meeting.people[1].key;
    let nonsense =
        SlotWish { mid: mid("zz"), up: Some(Up { peer: PeerId(99), kind: UpKind::Camera }), height_px: 1 };
    let wish =
        SlotWish { mid: mid("v0"), up: Some(Up { peer: PeerId(1), kind: UpKind::Camera }), height_px: 180 };
    meeting.room.view(meeting.now, key, &[nonsense, wish]);
    meeting.send_frame(0, 0, false);
    let second = meeting.take_slot(1, "v0");
    assert_eq!(second.len(), 3);
    assert_eq!(second[0].sequence, first[2].sequence.wrapping_add(1));
    assert!(meeting.take_plis(0).is_empty());
}

#[test]
fn more_slots_may_be_described_later() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 180)]);
    meeting.send_frame(0, 0, true);
    let description = meeting::description(1, 4, 6);
    let key = meeting.people[1].key;
    meeting.people[1].description = description.clone();
    meeting.room.describe(meeting.now, key, &description);
    meeting.people[1].received.clear();
    meeting.send_frame(0, 0, false);
    assert_eq!(meeting.take_slot(1, "v0").len(), 3, "the old slot went on");
}

#[test]
fn packets_of_a_frame_are_padded_to_one_length_only_where_asked() {
    for pad_runs in [false, true] {
        let mut meeting = Meeting::with(1, |config| config.pad_runs = pad_runs);
        meeting.join(2, 2);
        meeting.join(2, 2);
        meeting.send_frame(0, 0, true);
        meeting.view(1, &[("v0", Some(0), 180)]);
        let key = meeting.people[0].key;
        for packet in meeting.frame(0, 0, true, 4) {
            meeting.room.handle_rtp(meeting.now, key, &packet);
        }
        meeting.settle();
        let lengths: Vec<_> = meeting.people[1].received.iter().map(Vec::len).collect();
        assert_eq!(lengths.len(), 4);
        assert_eq!(lengths.iter().all(|length| *length == lengths[1]), pad_runs, "{lengths:?}");
        let payloads: Vec<_> = meeting.take_slot(1, "v0").iter().map(|packet| packet.payload.len()).collect();
        assert_eq!(payloads, [200, 201, 200, 201], "padding is no payload");
    }
}

#[test]
fn an_idle_room_sleeps_and_gives_memory_back() {
    let mut meeting = pair();
    meeting.view(1, &[("v0", Some(0), 720)]);
    for _ in 0..60 {
        meeting.send_frame(0, 2, true);
        meeting.pass(33 * MS);
    }
    let busy = meeting.room.memory_bytes();
    assert!(busy < 2 * 150_000, "{busy}");
    meeting.view(1, &[]);
    meeting.pass(10_000 * MS);
    // What is left is the greeting that tells a quiet path from a dead one.
    let wake = meeting.room.poll_timeout().expect("both are connected");
    meeting.pass(wake - meeting.now);
    let next = meeting.room.poll_timeout().expect("both are connected");
    assert!(next - wake > 300 * MS, "asleep: {:?}", next - wake);
    let idle = meeting.room.memory_bytes();
    assert!(idle + 60_000 < busy, "{idle} after {busy}");
}
