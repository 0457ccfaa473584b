//! Someone in a meeting whose feedback lies, over the real server and their own SRTCP, thousands of times a second. The
//! others miss nothing of each other, their cameras are asked for key frames as by anyone, the server keeps none of it,
//! says what it dropped, and whoever lied goes on in the call once they stop.
//!
//! `sfu/core/tests/hostile_feedback.rs` has the same of one room in virtual time, byte for byte.

mod watched;

use asamblea::Config;
use asamblea_sfu_core::stats::RoomCounters;
use asamblea_sfu_core::up::gate;
use asamblea_tests::bot::{Bot, BotConfig, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Lies that go out at once, and how often: with a packet of a voice every 20 ms between them, 10^4 compounds a second
/// as far as the machine keeps up. Many ask for something twenty times.
const BURST: usize = 200;
const BURSTS: usize = 50;

/// Memory that the process may gain meanwhile, clients and what they write down included. The lies themselves, with what
/// they speak of, are more than twice as much.
const GAINED_BYTES_MAX: usize = 24 << 20;

/// The SSRC under which the lies are sent, and one that nobody has.
const LIAR: u32 = 0x11a7_0000;
const NOBODY: u32 = 0xdead_beef;

/// One RTCP packet (RFC 3550 section 6.4) of whole words.
fn packet(count: u8, kind: u8, words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let body: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    let mut bytes = vec![0x80 | count, kind];
    bytes.extend(((body.len() / 4) as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01) that speaks of `count` numbers.
fn transport_feedback(base: u16, count: u16, reference: u32, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
    let mut tail: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_be_bytes()).collect();
    tail.extend(deltas);
    tail.resize(tail.len().next_multiple_of(4), 0);
    let tail = tail.chunks(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    let head = [LIAR, 0, u32::from(base) << 16 | u32::from(count), reference << 8];
    packet(15, 205, head.into_iter().chain(tail))
}

/// What someone who lies can know, and how many lies were told.
#[derive(Default)]
struct Knowledge {
    /// The SSRCs of their own slots, of the others' slots, and of what the others send.
    mine: BTreeSet<u32>,
    slots: BTreeSet<u32>,
    streams: BTreeSet<u32>,
    /// The newest transport-wide number that came, and the newest sequence number of a picture.
    newest: u16,
    picture: u16,
    count: usize,
}

impl Knowledge {
    fn of(liar: &Bot, others: &[&Bot]) -> Self {
        let slots = |seen: &Seen| seen.received.iter().map(|(_, it)| it.ssrc).collect::<BTreeSet<_>>();
        let streams = |bot: &&Bot| {
            let is_rtp =
                |it: &&Vec<u8>| it.len() > 12 && it[0] >> 6 == 2 && !(64..96).contains(&(it[1] & 0x7f));
            let ssrc = |it: &Vec<u8>| u32::from_be_bytes([it[8], it[9], it[10], it[11]]);
            bot.seen().sent.iter().filter(is_rtp).map(ssrc).collect::<Vec<_>>()
        };
        let mut knowledge = Self {
            mine: slots(&liar.seen()),
            slots: others.iter().flat_map(|bot| slots(&bot.seen())).collect(),
            streams: others.iter().flat_map(streams).collect(),
            ..Self::default()
        };
        assert!(knowledge.mine.len() >= 4 && knowledge.streams.len() >= 6, "sounds and pictures of all");
        knowledge.look(liar);
        knowledge
    }

    fn look(&mut self, liar: &Bot) {
        let seen = liar.seen();
        let latest =
            |kind| seen.received.iter().rev().map(|(_, it)| it).find(move |it| it.stamp.kind == kind);
        self.newest = latest(0).and_then(|it| it.transport_number).unwrap_or(self.newest);
        self.picture = latest(1).map_or(self.picture, |it| it.sequence as u16);
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        self.mine.iter().chain(&self.slots).chain(&self.streams).copied().chain([NOBODY])
    }
}

fn arrived_though_never_sent(it: &Knowledge) -> Vec<u8> {
    transport_feedback(it.newest.wrapping_add(5_000), 400, it.count as u32, &[0x2000 | 400], &[0; 400])
}

fn arrived_and_missing_days_apart(it: &Knowledge) -> Vec<u8> {
    let reference = [0, 0x7f_ffff, 0x80_0000, 0xff_ffff, 12_345][it.count % 5];
    match it.count % 3 {
        0 => transport_feedback(it.newest.wrapping_sub(50), 50, reference, &[0x2000 | 50], &[255; 50]),
        1 => transport_feedback(it.newest.wrapping_sub(30_000), u16::MAX, reference, &[0x1fff; 9], &[]),
        _ => transport_feedback(it.newest.wrapping_sub(50), 50, reference, &[50], &[]),
    }
}

fn a_line_of_nothing_and_one_without_end(it: &Knowledge) -> Vec<u8> {
    // Exponent and mantissa of 6 and 18 bits (draft-alvestrand-rmcat-remb-03).
    let estimate = [0, 0xff_ffff, 1, 63 << 18 | 1][it.count % 4];
    packet(15, 206, [LIAR, 0, u32::from_be_bytes(*b"REMB"), 1 << 24 | estimate, it.all().next().unwrap_or(0)])
}

fn every_packet_of_everyone_again(it: &Knowledge) -> Vec<u8> {
    // Four times 17 numbers for each stream: what was just sent, and what never was.
    let first = if it.count.is_multiple_of(2) { it.picture.wrapping_sub(68) } else { (it.count * 37) as u16 };
    let lost = |place: u16| u32::from(first.wrapping_add(17 * place)) << 16 | 0xffff;
    it.all().flat_map(|ssrc| packet(1, 205, [LIAR, ssrc].into_iter().chain((0..4).map(lost)))).collect()
}

fn a_key_frame_of_everything(it: &Knowledge) -> Vec<u8> {
    let full_intra = it.all().flat_map(|ssrc| [ssrc, (it.count as u32) << 24]);
    let mut compound: Vec<u8> = it.all().flat_map(|ssrc| packet(1, 206, [LIAR, ssrc])).collect();
    compound.extend(packet(4, 206, [LIAR, 0].into_iter().chain(full_intra)));
    compound
}

fn reports_on_anything(it: &Knowledge) -> Vec<u8> {
    let noise = (it.count as u32).wrapping_mul(0x1357_9bdf);
    let block =
        |ssrc| [ssrc, [0, u32::MAX, 0xff00_0000][it.count % 3], noise, u32::MAX, noise | 1, noise >> 9];
    let streams: Vec<u32> = it.all().take(31).collect();
    packet(streams.len() as u8, 201, [LIAR].into_iter().chain(streams.into_iter().flat_map(block)))
}

fn others_streams_as_if_sent_and_their_end(it: &Knowledge) -> Vec<u8> {
    let report = |ssrc: &u32| packet(0, 200, [*ssrc, u32::MAX, it.count as u32, u32::MAX, 0, u32::MAX]);
    let mut compound = packet(0, 201, [LIAR]);
    compound.extend(it.streams.iter().chain(&it.slots).flat_map(report));
    let ended: Vec<u32> = it.streams.iter().copied().take(31).collect();
    compound.extend(packet(ended.len() as u8, 203, ended));
    compound
}

fn compounds_cut_short(it: &Knowledge) -> Vec<u8> {
    let mut compound = packet(0, 201, [LIAR]);
    let whole =
        [every_packet_of_everyone_again, a_key_frame_of_everything, reports_on_anything][it.count % 3](it);
    compound.extend(&whole[..5 + it.count % (whole.len() - 8)]);
    // Not at the end of a packet, or it would be a truth.
    if compound.len().is_multiple_of(4) {
        compound.pop();
    }
    compound
}

type Lie = fn(&Knowledge) -> Vec<u8>;

/// What is counted of it, at least once for each lie, if it can be told from the truth.
type Count = fn(&RoomCounters) -> u64;

const LIES: [(&str, Lie, Option<Count>); 8] = [
    (
        "feedback on what was never sent",
        arrived_though_never_sent,
        Some(|it| it.feedback_refused + it.feedback_unknown),
    ),
    (
        "feedback that contradicts itself",
        arrived_and_missing_days_apart,
        Some(|it| it.feedback_refused + it.feedback_unknown),
    ),
    ("estimates of nothing and without end", a_line_of_nothing_and_one_without_end, None),
    (
        "every packet of everyone again",
        every_packet_of_everyone_again,
        Some(|it| it.resend_refused.min(it.requests_unknown)),
    ),
    ("a key frame of everything", a_key_frame_of_everything, Some(|it| it.requests_unknown)),
    ("reports on anything", reports_on_anything, Some(|it| it.reports_unknown)),
    (
        "others' streams as if sent, and their end",
        others_streams_as_if_sent_and_their_end,
        Some(|it| it.reports_unknown),
    ),
    ("compounds cut short", compounds_cut_short, Some(|it| it.rtcp_malformed)),
];

/// What came of one sender's media of one kind since a moment: nothing twice, each frame whole, none left out while the
/// layer is the same. Gives the number of frames and of changes of layer.
fn complete(seen: &Seen, sender: u32, kind: u8, since: Instant) -> (usize, usize) {
    let is_it = |(at, it): &&(Instant, asamblea_tests::peer::Received)| {
        it.stamp.sender == sender && it.stamp.kind == kind && *at >= since
    };
    let stamps: Vec<_> = seen.received.iter().filter(is_it).map(|(_, it)| it.stamp).collect();
    let mut frames = BTreeMap::<(u8, u32), BTreeSet<u8>>::new();
    for stamp in &stamps {
        let is_new = frames.entry((stamp.layer, stamp.frame)).or_default().insert(stamp.packet);
        assert!(is_new, "{stamp:?} came twice");
    }
    let (first, last) = (stamps.first().expect("media"), stamps.last().expect("media"));
    let (mut run, mut changes) = (first, 0);
    for stamp in &stamps {
        if stamp.layer != run.layer {
            changes += 1;
        } else if stamp.frame != run.frame {
            assert_eq!(stamp.frame, run.frame + 1, "frames of {sender} are missing after {run:?}");
        }
        run = stamp;
        let frame = &frames[&(stamp.layer, stamp.frame)];
        // The first and the last may be cut by the moments that they were looked at.
        let is_inner = [first, last].iter().all(|it| (it.layer, it.frame) != (stamp.layer, stamp.frame));
        assert!(!is_inner || frame.len() == usize::from(stamp.packets), "{stamp:?} is not whole: {frame:?}");
    }
    (frames.len(), changes)
}

/// Memory of this process in bytes (proc(5), `statm`).
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4_096
}

/// Waits until a good second of everyone's sound and pictures has come to everyone else.
async fn flows(bots: &[&Bot]) {
    let all = (1..).zip(bots);
    let others = |number| (1..=bots.len() as u32).filter(move |other| *other != number);
    let came = |seen: &Seen, number| -> Vec<u64> {
        let keys = others(number).flat_map(|other| [(other, 0), (other, 1)]);
        keys.map(|key| seen.counts.get(&key).copied().unwrap_or_default()).collect()
    };
    let before: Vec<_> = all.clone().map(|(number, bot)| came(&bot.seen(), number)).collect();
    for ((number, bot), before) in all.zip(before) {
        let flow = |seen: &Seen| came(seen, number).iter().zip(&before).all(|(now, then)| *now > then + 50);
        bot.until("media of everyone", flow).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_of_four_says_of_their_line_the_others_miss_nothing() {
    let config = Config { shards: Some(1), members_per_core: 0, ..Config::default() };
    let (bridge, watched) = watched::bridge(config).await;
    let counters = || {
        let mut sum = RoomCounters::default();
        for (_, rooms) in watched.rooms() {
            sum += rooms;
        }
        sum
    };

    let mut bots = Vec::new();
    for number in 1..=4 {
        let config = BotConfig { slots: (3, 3), ..BotConfig::new(bridge.port(), "feedback", number) };
        bots.push(Bot::join(config).await.expect("let in"));
    }
    let [ana, berta, carla, mallory] = &bots[..] else { unreachable!("four joined") };
    let honest = [ana, berta, carla];
    let everyone = [ana, berta, carla, mallory];
    flows(&everyone).await;
    flows(&everyone).await;

    let mut knowledge = Knowledge::of(mallory, &honest);
    let (since, memory) = (Instant::now(), resident_bytes());
    let asked = |bot: &Bot| bot.seen().key_frames_wanted;
    let asked_before = honest.map(asked);
    // Counters are told once a second: by the second time what was sent before has been read and is in them.
    let settle = async || {
        for _ in 0..2 {
            let before = counters().packets_received;
            berta.until("fresh counters", |_| counters().packets_received > before).await;
        }
    };
    settle().await;
    for (name, lie, count) in LIES {
        let (before, began) = (counters(), Instant::now());
        for _ in 0..BURSTS {
            knowledge.look(mallory);
            let burst = (0..BURST).map(|_| {
                knowledge.count += 1;
                lie(&knowledge)
            });
            mallory.rtcp(burst.collect());
            let heard = berta.seen().counts[&(1, 0)];
            berta.until("a voice that goes on", |seen| seen.counts[&(1, 0)] > heard).await;
        }
        let took = began.elapsed();
        let told = (BURST * BURSTS) as u64;
        settle().await;
        let counted = count.map_or(told, |count| count(&counters()) - count(&before));
        println!("{name}: {:.0} a second, {counted} counted", told as f64 / took.as_secs_f64());
        assert!(counted * 10 >= told * 9, "{name}: of {told} lies {counted} are counted");
    }
    let lasted = since.elapsed();
    let gained = resident_bytes().saturating_sub(memory);
    // Each camera has three layers, and each is asked for at the gate's pace.
    let asked_max = 3 * (lasted.as_millis() / gate::INTERVAL.as_millis() + 1) as usize;
    for (bot, before) in honest.iter().zip(asked_before) {
        let times = asked(bot) - before;
        println!("asked for {times} key frames of {asked_max} in {lasted:.1?}");
        assert!(times > 0, "a key frame of everything was wanted");
        assert!(times <= asked_max, "asked for {times} key frames in {lasted:?}");
    }
    for (number, bot) in (1..).zip(honest) {
        let seen = bot.seen();
        for other in (1..=3).filter(|other| *other != number) {
            for (kind, least) in [(0, lasted.as_millis() / 40), (1, lasted.as_millis() / 120)] {
                let (frames, changes) = complete(&seen, other, kind, since);
                println!("{number} has {frames} frames {kind} of {other}, {changes} changes of layer");
                assert!(frames as u128 > least, "{frames} frames {kind} of {other} in {lasted:?}");
            }
        }
        assert!(seen.paused.is_empty() && seen.errors.is_empty(), "{:?} {:?}", seen.paused, seen.errors);
    }
    println!("{} MiB gained", gained >> 20);
    assert!(gained < GAINED_BYTES_MAX, "{gained} bytes gained");

    // Whoever lied hears and sees, and is heard and seen.
    flows(&everyone).await;
    for bot in everyone {
        let seen = bot.seen();
        assert!(seen.is_connected && !seen.is_over && seen.transport_changes == 1 && seen.members.len() == 4);
    }
    bridge.stop().await;
}
