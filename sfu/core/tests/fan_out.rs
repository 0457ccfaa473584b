//! In what order those who watch are served, and what comes meanwhile.

mod meeting;

use asamblea_sfu_core::down::Queued;
use meeting::Meeting;

/// More than are handed a packet before it goes to the first.
const WATCHERS: usize = 100;

/// One who sends a picture, and others who are about to see it; nothing is to be sent.
fn watched() -> Meeting {
    watched_by(WATCHERS)
}

fn watched_by(watchers: usize) -> Meeting {
    let mut meeting = Meeting::new(3);
    for _ in 0..=watchers {
        meeting.join(0, 1);
    }
    for watcher in 1..=watchers {
        meeting.view(watcher, &[("v0", Some(0), 720)]);
    }
    meeting
}

/// A key frame, seen by all.
fn begin(meeting: &mut Meeting, sender: usize) {
    meeting.send_frame(sender, 2, true);
    for person in &mut meeting.people {
        person.received.clear();
    }
}

fn hand_in_only(meeting: &mut Meeting, packet: &[u8]) {
    meeting.room.handle_rtp(meeting.now, meeting.people[0].key, packet);
}

/// Flushes up to so many, and says whom and how many packets each was sent.
fn serve(meeting: &mut Meeting, count: usize) -> Vec<(usize, usize)> {
    let mut served = Vec::new();
    while served.len() < count {
        let Some(person) = meeting.flush_next() else { break };
        let sent = std::mem::take(&mut meeting.people[person].received).len();
        if sent > 0 {
            served.push((person, sent));
        }
    }
    served
}

#[test]
fn the_first_are_sent_a_packet_before_anything_is_done_for_the_last() {
    let mut meeting = watched();
    let frame = meeting.frame(0, 2, true, 3);
    hand_in_only(&mut meeting, &frame[0]);
    assert_eq!(serve(&mut meeting, 5).len(), 5);
    let begun = meeting.room.counters().switches;
    assert!(begun < WATCHERS as u64, "the last slots have yet to begin with it: {begun}");
    assert_eq!(serve(&mut meeting, usize::MAX).len(), WATCHERS - 5);
}

#[test]
fn whoever_waits_for_nothing_holds_no_memory_for_what_would_wait() {
    let grown_by = |watchers| {
        let mut meeting = watched_by(watchers);
        let before = meeting.room.memory_bytes();
        for is_key in [true, false, false] {
            let frame = meeting.frame(0, 2, is_key, 8);
            frame.iter().for_each(|packet| hand_in_only(&mut meeting, packet));
            assert_eq!(serve(&mut meeting, usize::MAX).len(), watchers);
        }
        meeting.room.memory_bytes() - before
    };
    // A queue of one packet for each would be more.
    let more = grown_by(WATCHERS) - grown_by(WATCHERS / 10);
    assert!(more < (WATCHERS - WATCHERS / 10) * size_of::<Queued>(), "{more} bytes");
}

#[test]
fn what_comes_while_a_packet_goes_round_goes_with_it_to_those_who_are_to_come_and_then_to_the_others() {
    let mut meeting = watched();
    begin(&mut meeting, 0);
    let frame = meeting.frame(0, 2, false, 3);
    hand_in_only(&mut meeting, &frame[0]);
    let first: Vec<_> = (1..=5).map(|watcher| (watcher, 1)).collect();
    assert_eq!(serve(&mut meeting, 5), first);
    hand_in_only(&mut meeting, &frame[1]);
    hand_in_only(&mut meeting, &frame[2]);
    let others = (6..=WATCHERS).map(|watcher| (watcher, 3));
    let round: Vec<_> = others.chain((1..=5).map(|watcher| (watcher, 2))).collect();
    assert_eq!(serve(&mut meeting, usize::MAX), round);
}

#[test]
fn packets_of_two_go_out_in_one_flush_to_whoever_watches_both() {
    let mut meeting = Meeting::new(4);
    for _ in 0..=WATCHERS {
        meeting.join(0, 2);
    }
    for watcher in 2..=WATCHERS {
        meeting.view(watcher, &[("v0", Some(0), 720), ("v1", Some(1), 720)]);
    }
    for sender in [0, 1] {
        begin(&mut meeting, sender);
    }
    for sender in [0, 1] {
        let packet = meeting.frame(sender, 2, false, 1).remove(0);
        meeting.room.handle_rtp(meeting.now, meeting.people[sender].key, &packet);
    }
    let once: Vec<_> = (2..=WATCHERS).map(|watcher| (watcher, 2)).collect();
    assert_eq!(serve(&mut meeting, usize::MAX), once);
}

#[test]
fn who_begins_to_watch_meanwhile_misses_nothing_and_is_sent_nothing_twice() {
    let mut meeting = watched();
    let late = meeting.join(0, 1);
    begin(&mut meeting, 0);
    let frame = meeting.frame(0, 2, false, 3);
    hand_in_only(&mut meeting, &frame[0]);
    serve(&mut meeting, 5);
    // Both are replayed the key frame and what followed, up to the packet that goes round.
    let in_the_round = WATCHERS;
    for watcher in [late, in_the_round] {
        let key = meeting.people[watcher].key;
        meeting.room.view(meeting.now, key, &[]);
        meeting.room.view(meeting.now, key, &[meeting::wish("v0", Some(0), 720)]);
    }
    hand_in_only(&mut meeting, &frame[1]);
    hand_in_only(&mut meeting, &frame[2]);
    while meeting.flush_next().is_some() {}
    for watcher in [late, in_the_round] {
        let seen = meeting.take_slot(watcher, "v0");
        let numbers: Vec<_> = seen.iter().map(|seen| (seen.frame, seen.index)).collect();
        assert_eq!(numbers, [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)], "{watcher}");
    }
}

#[test]
fn who_begins_to_watch_before_a_packet_has_gone_round_is_sent_the_key_frame_after_it() {
    let mut meeting = watched();
    let late = meeting.join(0, 1);
    let before = meeting.frame(0, 2, false, 1).remove(0);
    hand_in_only(&mut meeting, &before);
    meeting.room.view(meeting.now, meeting.people[late].key, &[meeting::wish("v0", Some(0), 720)]);
    for packet in meeting.frame(0, 2, true, 3) {
        hand_in_only(&mut meeting, &packet);
    }
    let all: Vec<_> = (1..=late).map(|watcher| (watcher, 3)).collect();
    assert_eq!(serve(&mut meeting, usize::MAX), all);
}
