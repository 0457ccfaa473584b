//! Calls over bad lines: the real bridge, clients that share no code with it, and an emulator between one of them and
//! the bridge. The bounds are what people are promised; `docs/lines.md` has what real browsers make of such lines.

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, PATIENCE, Seen};
use asamblea_tests::netem::profile::{LinkProfile, Profile};
use asamblea_tests::netem::proxy::Emulator;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A held picture is said to be held within this, and is back within the other.
const PAUSED_MAX: Duration = Duration::from_secs(3);
const PICTURE_BACK_MAX: Duration = Duration::from_secs(10);

/// Ana, whose line is good, and Berta behind an emulator.
struct Call {
    bridge: Bridge,
    emulator: Emulator,
    ana: Bot,
    berta: Bot,
}

impl Call {
    async fn start(seed: u64) -> Self {
        let bridge = Bridge::start(Config { port: 0, ..Config::default() }).await.expect("the bridge starts");
        let emulator = Emulator::start(bridge.port(), Profile::default(), seed).await.expect("sockets");
        let ana = Bot::join(BotConfig::new(bridge.port(), "lines", 1)).await.expect("let in");
        let media_port = Some(emulator.port());
        let berta = BotConfig { media_port, ..BotConfig::new(bridge.port(), "lines", 2) };
        let berta = Bot::join(berta).await.expect("let in");
        let call = Self { bridge, emulator, ana, berta };
        call.flows().await;
        let report = call.emulator.report().await;
        assert!(report.up.delivered > 50 && report.down.delivered > 50, "media goes through the emulator");
        call
    }

    /// Waits until a good second of media has come again both ways.
    async fn flows(&self) {
        for (bot, other) in [(&self.ana, 2), (&self.berta, 1)] {
            for kind in [0, 1] {
                let before = bot.seen().counts.get(&(other, kind)).copied().unwrap_or_default();
                bot.until("media that flow", |seen| seen.counts.get(&(other, kind)) > Some(&(before + 50)))
                    .await;
            }
        }
    }

    async fn end(self) {
        for bot in [&self.ana, &self.berta] {
            let seen = bot.seen();
            assert_eq!((seen.transport_changes, seen.members.len()), (1, 2), "nobody was thrown out");
        }
        self.bridge.stop().await;
    }
}

/// Of a sender's frames of one kind from a moment on, but for the last half second: how many there were, and how many
/// came whole.
fn frames(seen: &Seen, sender: u32, kind: u8, since: Instant) -> (usize, usize) {
    let until = Instant::now() - Duration::from_millis(500);
    let mut came = BTreeMap::<u32, (BTreeSet<u8>, u8)>::new();
    let mut known = BTreeSet::new();
    for (at, it) in seen.received.iter().filter(|(_, it)| it.stamp.sender == sender && it.stamp.kind == kind)
    {
        if *at >= since && *at <= until {
            known.insert(it.stamp.frame);
        }
        let frame = came.entry(it.stamp.frame).or_default();
        frame.0.insert(it.stamp.packet);
        frame.1 = it.stamp.packets;
    }
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return (0, 0) };
    let whole = |(packets, all): &(BTreeSet<u8>, u8)| packets.len() == usize::from(*all);
    ((last - first + 1) as usize, came.range(first..=last).filter(|(_, frame)| whole(frame)).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_of_the_packets_lost_each_way_costs_little_speech_and_few_pictures() {
    for (name, burst) in [("each by itself", 1.0), ("in bursts", 4.0)] {
        let call = Call::start(3).await;
        call.emulator.set_profile(Profile::both(LinkProfile::lossy(0.1, burst)));
        // Until the line is known to lose, sound is not sent twice.
        call.flows().await;
        let since = Instant::now();
        for _ in 0..3 {
            call.flows().await;
        }
        let report = call.emulator.report().await;
        assert!(report.down.lost > 50 && report.up.lost > 50, "it loses: {report:?}");
        // The bridge sends sound twice; this client neither does so nor answers requests for sound, as browsers do.
        for (bot, other, who, missed_max) in [(&call.ana, 2, "Ana", 15), (&call.berta, 1, "Berta", 4)] {
            let (spoken, heard) = frames(&bot.seen(), other, 0, since);
            let (shown, seen) = frames(&bot.seen(), other, 1, since);
            println!("{name}, {who}: {heard} of {spoken} packets of sound, {seen} of {shown} frames whole");
            assert!(spoken > 150 && shown > 50, "{spoken} packets of sound, {shown} frames");
            let missed = spoken - heard;
            assert!(missed * 100 <= spoken * missed_max, "{name}: {who} misses {missed} of {spoken}");
            assert!(seen * 100 >= shown * 80, "{name}: {who} misses {} of {shown} frames", shown - seen);
        }
        call.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_narrows_keeps_its_sound_holds_the_picture_and_gets_it_back() {
    let call = Call::start(4).await;
    let narrow = Profile { up: LinkProfile::CLEAN, down: LinkProfile::narrow(100) };
    let narrowed = Instant::now();
    call.emulator.set_profile(narrow);
    call.berta.until("word that the picture is held back", |seen| !seen.paused.is_empty()).await;
    let paused = narrowed.elapsed();
    // What stood in the queue has drained; from here on the sound has the line to itself.
    let calm = Instant::now() + Duration::from_secs(1);
    let before = call.berta.seen().counts[&(1, 0)];
    call.berta.until("five seconds of sound", |seen| seen.counts[&(1, 0)] > before + 250).await;
    let gap = call.berta.seen().longest_gap(1, calm);
    let widened = Instant::now();
    call.emulator.set_profile(Profile::default());
    call.berta.until("the picture back", |seen| seen.paused.is_empty()).await;
    call.berta.until("its packets", |seen| seen.first_after(1, 1, widened).is_some()).await;
    let back = call.berta.seen().first_after(1, 1, widened).map(|at| at - widened);
    println!("held back after {paused:?}, longest gap of sound {gap:?}, back after {back:?}");
    assert!(paused <= PAUSED_MAX, "held back after {paused:?}");
    assert!(gap <= Duration::from_millis(500), "sound stopped for {gap:?}");
    assert!(back.is_some_and(|back| back <= PICTURE_BACK_MAX), "back after {back:?}");
    call.flows().await;
    call.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_in_the_middle_of_a_call_is_followed_and_the_old_one_forgotten() {
    let call = Call::start(5).await;
    for _ in 0..3 {
        let moved = Instant::now();
        call.emulator.move_client();
        let came = |bot: &Bot, other| bot.seen().first_after(other, 0, moved + Duration::from_millis(200));
        call.ana.until("Berta's voice", |seen| seen.first_after(2, 0, moved).is_some()).await;
        call.flows().await;
        let gaps = [call.ana.seen().longest_gap(2, moved), call.berta.seen().longest_gap(1, moved)];
        println!("gaps {gaps:?}, {:?} {:?}", came(&call.ana, 2).is_some(), came(&call.berta, 1).is_some());
        // Until the client's next check: str0m has one every few seconds, browsers sooner.
        assert!(gaps.iter().all(|gap| *gap < PATIENCE / 4), "{gaps:?}");
    }
    assert_eq!(call.emulator.report().await.moves, 3);
    call.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_of_three_seconds_ends_no_call() {
    let call = Call::start(6).await;
    let hole = Profile::named("black-hole").expect("it is in the table");
    let began = Instant::now();
    call.emulator.set_profile(hole);
    // The bridge says so to whoever is on the line, and forgets nobody.
    call.ana
        .until("silence", |seen| {
            let last = seen.received.iter().rev().find(|(_, it)| it.stamp.sender == 2).map(|(at, _)| *at);
            last.is_some_and(|at| at.elapsed() > Duration::from_secs(3)) || began.elapsed() > PATIENCE / 2
        })
        .await;
    let mended = Instant::now();
    call.emulator.set_profile(Profile::default());
    call.flows().await;
    let back = |bot: &Bot, other| bot.seen().first_after(other, 0, mended).map(|at| at - mended);
    let back = [back(&call.ana, 2), back(&call.berta, 1)];
    println!("sound back after {back:?}");
    assert!(back.iter().all(|back| back.is_some_and(|it| it < Duration::from_secs(1))), "{back:?}");
    call.end().await;
}
