//! Sound over lines that lose, both ways, under a virtual clock: what is left of the loss after repair, and its price.
//!
//! A listener counts a packet of sound as heard if any copy of it reaches it within [`PLAYED_WITHIN`] of its being
//! spoken; nothing is decoded, and what Opus repairs in band comes on top.

mod meeting;

use asamblea_sfu_core::rtp::{
    header::Packet,
    rtcp::{Rtcp, walk},
    rtcp_write::ReportBlock,
};
use meeting::{LEVEL, MID, Meeting, Seen, rtcp, rtp, stamp};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

/// Longer than any browser's jitter buffer waits on such a line.
const PLAYED_WITHIN: Duration = Duration::from_millis(250);

/// Time in which repair finds its measure; not counted.
const SETTLE: Duration = Duration::from_secs(15);

/// What is counted: 3,000 packets.
const MEASURED: Duration = Duration::from_secs(60);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn is_below(&mut self, thousandths: u64) -> bool {
        self.next() % 1_000 < thousandths
    }
}

#[derive(Clone, Copy, Debug)]
enum Loss {
    None,
    /// Each packet for itself, in thousandths.
    Random(u64),
    /// Gilbert-Elliott: 10 % in bursts of 3 packets on average.
    Bursts,
}

struct Line {
    loss: Loss,
    random: Random,
    is_bad: bool,
}

impl Line {
    fn loses(&mut self) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Random(thousandths) => self.random.is_below(thousandths),
            Loss::Bursts => {
                let loses = self.is_bad;
                self.is_bad = if self.is_bad { self.random.is_below(667) } else { self.random.is_below(37) };
                loses
            }
        }
    }
}

/// How the speaker's browser sends sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    /// Opus alone, never sent again.
    Plain,
    /// Opus alone, sent again when asked for: Firefox and Chromium.
    Answers,
    /// Each packet with a copy of the one before (RFC 2198), sent again when asked for: Chromium, if it is told so.
    Copies,
}

/// What a line costs and leaves.
#[derive(Debug)]
struct Outcome {
    /// Packets of sound never heard, in percent.
    missed: f64,
    /// Packets to the listener for each one spoken.
    sent: f64,
    /// Packets of sound that the server asked for, for each one spoken.
    asked: f64,
}

/// The listener's account of its slot, as browsers keep it (RFC 3550 appendix A.3).
#[derive(Default)]
struct Account {
    seen: BTreeSet<u64>,
    highest: u64,
    reported: (u64, u64),
}

impl Account {
    fn take(&mut self, wire: u16) {
        let sequence = match self.highest {
            0 => 1 << 16 | u64::from(wire),
            highest => highest.saturating_add_signed(i64::from(wire.wrapping_sub(highest as u16) as i16)),
        };
        self.seen.insert(sequence);
        self.highest = self.highest.max(sequence);
    }

    fn report(&mut self, ssrc: u32) -> Option<ReportBlock> {
        let first = *self.seen.first()?;
        let (expected, received) = (self.highest + 1 - first, self.seen.len() as u64);
        let (expected_now, received_now) = (expected - self.reported.0, received - self.reported.1);
        self.reported = (expected, received);
        let lost = expected_now.saturating_sub(received_now);
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost * 256).checked_div(expected_now)?.min(255) as u8,
            highest: self.highest as u32,
            ..ReportBlock::default()
        })
    }
}

/// One speaks, one listens. `one_way` is the time between the speaker and the server.
fn talk(seed: u64, speaker: Speaker, up: Loss, down: Loss, one_way: Duration) -> Outcome {
    let mut meeting = Meeting::new(seed);
    meeting.join(2, 1);
    meeting.join(2, 1);
    let mut up = Line { loss: up, random: Random(seed), is_bad: false };
    let mut up_control = Line { loss: up.loss, random: Random(seed + 1), is_bad: false };
    let mut down = Line { loss: down, random: Random(seed + 2), is_bad: false };
    let ssrc = meeting.people[0].microphone.ssrc;
    let start = meeting.now;
    let mut spoken = BTreeMap::<u32, Instant>::new();
    let mut heard = BTreeMap::<u32, Instant>::new();
    let mut kept = BTreeMap::<u16, Vec<u8>>::new();
    let mut on_the_way = VecDeque::<(Instant, Vec<u8>)>::new();
    let mut account = Account::default();
    let (mut packets, mut asked) = (0_u64, 0_u64);
    let mut before: Option<Vec<u8>> = None;
    tell_round_trip(&mut meeting, one_way * 2);
    let mut slot_ssrc = None;
    for step in 0.. {
        let elapsed = meeting.now - start;
        if elapsed >= SETTLE + MEASURED + Duration::from_secs(1) {
            break;
        }
        if step % 20 == 0 && elapsed < SETTLE + MEASURED {
            let plain = meeting.sound(0, 20);
            let packet = Packet::parse(&plain).expect("RTP");
            spoken.insert(meeting.people[0].microphone.frame, meeting.now);
            let bytes = match (speaker, &before) {
                (Speaker::Copies, Some(copy)) => {
                    let head = 960_u32 << 10 | copy.len() as u32;
                    let mut payload = vec![0x80 | 111];
                    payload.extend_from_slice(&head.to_be_bytes()[1..]);
                    payload.push(111);
                    payload.extend_from_slice(copy);
                    payload.extend_from_slice(packet.payload);
                    let header = (63, false, packet.sequence, packet.timestamp, ssrc);
                    rtp(header, &[(MID, b"0"), (LEVEL, &[20])], &payload)
                }
                _ => plain.clone(),
            };
            before = Some(packet.payload.to_vec());
            kept.insert(packet.sequence, bytes.clone());
            if !up.loses() {
                on_the_way.push_back((meeting.now + one_way, bytes));
            }
        }
        meeting.pass(MS);
        on_the_way.make_contiguous().sort_by_key(|(at, _)| *at);
        while on_the_way.front().is_some_and(|(at, _)| *at <= meeting.now) {
            let Some((_, bytes)) = on_the_way.pop_front() else { break };
            meeting.hand_in(0, &bytes);
        }
        // The server asks the speaker.
        for compound in std::mem::take(&mut meeting.people[0].rtcp) {
            for packet in walk(&compound).flatten() {
                let Rtcp::Nack { media_ssrc, lost } = packet else { continue };
                assert_eq!(media_ssrc, ssrc);
                let lost: Vec<u16> = lost.collect();
                asked += lost.len() as u64;
                if speaker == Speaker::Plain || up_control.loses() {
                    continue;
                }
                for bytes in lost.iter().filter_map(|wire| kept.get(wire)) {
                    if !up.loses() {
                        on_the_way.push_back((meeting.now + 2 * one_way, bytes.clone()));
                    }
                }
            }
        }
        // The listener takes what its line leaves, and reports on it every 5 s, as browsers do on sound.
        for bytes in std::mem::take(&mut meeting.people[1].received) {
            let packet = Packet::parse(&bytes).expect("RTP");
            slot_ssrc = Some(packet.ssrc);
            let seen = Seen::read(&bytes);
            let is_measured = spoken.get(&seen.frame).is_some_and(|at| *at >= start + SETTLE);
            packets += u64::from(is_measured);
            if down.loses() {
                continue;
            }
            account.take(packet.sequence);
            heard.entry(seen.frame).or_insert(meeting.now);
        }
        if step % 5_000 == 4_999
            && let Some(block) = slot_ssrc.and_then(|ssrc| account.report(ssrc))
        {
            meeting.hand_in_rtcp(1, &rtcp(|writer| assert!(writer.receiver_report(1, &[block]))));
        }
    }
    let measured: Vec<_> = spoken.iter().filter(|(_, at)| **at >= start + SETTLE).collect();
    let missed = measured
        .iter()
        .filter(|(frame, at)| heard.get(frame).is_none_or(|heard| *heard > **at + one_way + PLAYED_WITHIN));
    let count = measured.len() as f64;
    assert!(count >= 2_990.0);
    Outcome {
        missed: 100.0 * missed.count() as f64 / count,
        sent: packets as f64 / count,
        asked: asked as f64 / (count + SETTLE.as_millis() as f64 / 20.0),
    }
}

/// The speaker's report on the server's own shows how far away it is.
fn tell_round_trip(meeting: &mut Meeting, round_trip: Duration) {
    // Whatever the last report's middle was, what counts is the difference to the room's clock, which began at 0xeeee
    // seconds: a report made at this moment, said to have been held for no time.
    let middle = 0xeeee_0000_0000_0000_u64 >> 16;
    meeting.pass(round_trip);
    let block = ReportBlock { ssrc: 0, last_report: middle as u32, ..ReportBlock::default() };
    meeting.hand_in_rtcp(0, &rtcp(|writer| assert!(writer.receiver_report(1, &[block]))));
}

fn over_seeds(run: impl Fn(u64) -> Outcome) -> Outcome {
    let outcomes: Vec<Outcome> = (1..=3).map(|seed| run(seed * 1_000)).collect();
    let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64;
    Outcome { missed: mean(|it| it.missed), sent: mean(|it| it.sent), asked: mean(|it| it.asked) }
}

#[test]
fn a_listener_on_a_lossy_line_hears_nearly_all() {
    // What is lost, the most that may be missed in percent, and the most packets sent for one spoken.
    for (loss, missed_max, sent_max) in [
        (Loss::None, 0.0, 1.0),
        (Loss::Random(10), 1.5, 1.3),
        (Loss::Random(50), 1.0, 2.01),
        (Loss::Random(100), 1.7, 2.6),
        (Loss::Random(200), 1.7, 3.01),
        (Loss::Random(300), 3.8, 3.01),
        (Loss::Bursts, 2.5, 3.01),
    ] {
        let outcome = over_seeds(|seed| talk(seed, Speaker::Plain, Loss::None, loss, 20 * MS));
        println!("down {loss:?}: {outcome:.2?}");
        assert!(outcome.missed <= missed_max, "{loss:?}: {outcome:?}");
        assert!(outcome.sent <= sent_max, "{loss:?}: {outcome:?}");
        assert!(outcome.asked == 0.0);
    }
}

#[test]
fn a_speaker_on_a_lossy_line_is_heard() {
    use Speaker::{Answers, Copies, Plain};
    for (speaker, loss, one_way_ms, missed_max) in [
        (Answers, Loss::Random(50), 25, 0.2),
        (Answers, Loss::Random(100), 25, 0.5),
        (Answers, Loss::Random(200), 25, 3.5),
        (Answers, Loss::Random(300), 25, 8.5),
        (Answers, Loss::Bursts, 25, 3.5),
        (Copies, Loss::Random(100), 25, 0.2),
        (Copies, Loss::Random(300), 25, 3.0),
        (Copies, Loss::Bursts, 25, 3.0),
        // Too far away to be asked in time: only copies help.
        (Answers, Loss::Random(100), 150, 11.0),
        (Copies, Loss::Random(100), 150, 1.7),
        (Copies, Loss::Random(300), 150, 10.5),
        // Repaired in band or not at all.
        (Plain, Loss::Random(100), 25, 11.0),
    ] {
        let outcome = over_seeds(|seed| talk(seed, speaker, loss, Loss::None, one_way_ms * MS));
        println!("up {speaker:?} {loss:?} {one_way_ms} ms: {outcome:.2?}");
        assert!(outcome.missed <= missed_max, "{speaker:?} {loss:?}: {outcome:?}");
        assert!(outcome.sent < 1.15, "{outcome:?}");
        assert!(outcome.asked < 1.0, "{speaker:?} {loss:?}: {outcome:?}");
    }
}

#[test]
fn a_microphone_is_told_of_the_loss_that_its_listeners_suffer() {
    let mut meeting = Meeting::new(5);
    for _ in 0..3 {
        meeting.join(2, 1);
    }
    let ssrc = meeting.people[0].microphone.ssrc;
    let told = |meeting: &mut Meeting, person: usize| {
        let compounds = std::mem::take(&mut meeting.people[person].rtcp);
        let mut told = None;
        for compound in &compounds {
            for packet in walk(compound).flatten() {
                if let Rtcp::ReceiverReport { blocks } = packet {
                    for block in blocks.filter(|block| block.ssrc == ssrc) {
                        told = Some((block.fraction_lost, block.highest));
                    }
                }
            }
        }
        told
    };
    let slot = meeting.slot_ssrc(1, "a0");
    let mut highest = 0;
    for (lost, expected) in [(0_u8, 0_u8..=0), (30, 30..=30), (255, 51..=51), (0, 0..=0)] {
        for _ in 0..100 {
            meeting.send_sound(0, 20);
            meeting.pass(20 * MS);
        }
        for _ in 0..2 {
            highest += 100;
            let block = ReportBlock { ssrc: slot, fraction_lost: lost, highest, ..ReportBlock::default() };
            meeting.hand_in_rtcp(1, &rtcp(|writer| assert!(writer.receiver_report(1, &[block]))));
        }
        told(&mut meeting, 0);
        for _ in 0..100 {
            meeting.send_sound(0, 20);
            meeting.pass(20 * MS);
        }
        let (fraction, _) = told(&mut meeting, 0).expect("a report each second");
        assert!(expected.contains(&fraction), "{lost}: told of {fraction}");
    }
}

#[test]
fn copies_fill_gaps_with_the_right_numbers_and_lies_change_nothing() {
    let mut meeting = Meeting::new(6);
    for _ in 0..2 {
        meeting.join(2, 1);
    }
    let red = |meeting: &mut Meeting, copies: &[(u16, Vec<u8>)]| {
        let plain = meeting.sound(0, 20);
        let packet = Packet::parse(&plain).expect("RTP");
        let mut payload = Vec::new();
        for (earlier, copy) in copies {
            payload.push(0x80 | 111);
            payload.extend_from_slice(&(u32::from(*earlier) << 10 | copy.len() as u32).to_be_bytes()[1..]);
        }
        payload.push(111);
        copies.iter().for_each(|(_, copy)| payload.extend_from_slice(copy));
        payload.extend_from_slice(packet.payload);
        rtp((63, false, packet.sequence, packet.timestamp, packet.ssrc), &[(MID, b"0")], &payload)
    };
    let id = meeting.people[0].id;
    meeting.send_sound(0, 20);
    meeting.send_sound(0, 20);
    // The third and fourth are lost; the fifth brings them, and the second, which is there already.
    let lost = [meeting.sound(0, 20), meeting.sound(0, 20)];
    let copies: Vec<_> =
        (2..=4_u32).map(|frame| ((5 - frame) as u16 * 960, stamp(id, 9, frame, 0).to_vec())).collect();
    let packet = red(&mut meeting, &copies);
    meeting.hand_in(0, &packet);
    let seen = meeting.take_slot(1, "a0");
    let order: Vec<u32> = seen.iter().map(|packet| packet.frame).collect();
    assert_eq!(order, [1, 2, 5, 3, 4]);
    let first = &seen[0];
    for packet in &seen {
        let step = packet.frame - 1;
        assert_eq!(packet.sequence, first.sequence.wrapping_add(step as u16));
        assert_eq!(packet.timestamp, first.timestamp.wrapping_add(step * 960));
        assert_eq!(packet.payload.len(), 14, "plain Opus");
    }
    assert_eq!(meeting.room.counters().red_repaired, 2);
    // What was only late is not heard twice.
    lost.iter().for_each(|packet| meeting.hand_in(0, packet));
    assert!(meeting.take_slot(1, "a0").is_empty());
    // Lies: lengths beyond the packet, a thousand blocks, copies of the future.
    let before = meeting.room.counters().dropped_malformed;
    let header = (63, false, 9, 9, meeting.people[0].microphone.ssrc);
    for payload in [&[0xef, 0, 0x0f, 0xff, 111, 1, 2][..], &[0xef; 1_300], &[], &[111]] {
        let packet = rtp(header, &[(MID, b"0")], payload);
        meeting.hand_in(0, &packet);
    }
    assert_eq!(meeting.room.counters().dropped_malformed, before + 4);
    let lie = red(&mut meeting, &[(960, vec![1; 14]), (1_920, vec![2; 14])]);
    meeting.hand_in(0, &lie);
    let seen = meeting.take_slot(1, "a0");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].frame, 6);
}

#[test]
fn repeats_are_the_same_bytes_whatever_changes_around_them() {
    let mut meeting = Meeting::new(7);
    for _ in 0..2 {
        meeting.join(2, 1);
    }
    let slot = meeting.slot_ssrc(1, "a0");
    for highest in [100, 200, 300] {
        let block = ReportBlock { ssrc: slot, fraction_lost: 80, highest, ..ReportBlock::default() };
        meeting.hand_in_rtcp(1, &rtcp(|writer| assert!(writer.receiver_report(1, &[block]))));
    }
    let key = meeting.people[1].key;
    let mut description = meeting.people[1].description.clone();
    for step in 0..200_usize {
        let sound = meeting.sound(0, 20);
        match step % 10 {
            // Lost on its way here, late, sent twice by the network.
            3 => continue,
            5 => {
                let next = meeting.sound(0, 20);
                meeting.hand_in(0, &next);
            }
            7 => meeting.hand_in(0, &sound),
            _ => {}
        }
        meeting.hand_in(0, &sound);
        meeting.pass(20 * MS);
        if step % 40 == 39 {
            // Another number for the codec: nothing sent before may go out under it again.
            for slot in description.slots.iter_mut().filter(|slot| slot.is_audio) {
                slot.payload_type = if slot.payload_type == 109 { 110 } else { 109 };
            }
            meeting.room.describe(meeting.now, key, &description);
            meeting.settle();
        }
        if step % 50 == 49 {
            // The speaker's line is made anew, and its numbers begin at the same place.
            let speaker = meeting.people[0].key;
            let mut other = meeting.people[0].description.clone();
            other.ups.remove(0);
            meeting.room.describe(meeting.now, speaker, &other);
            let again = meeting.people[0].description.clone();
            meeting.room.describe(meeting.now, speaker, &again);
            meeting.people[0].microphone.sequence = 65_510;
            meeting.settle();
        }
    }
    assert!(meeting.people[1].oracle.repeats > 200, "{}", meeting.people[1].oracle.repeats);
}
