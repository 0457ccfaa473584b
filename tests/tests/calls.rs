//! Calls through the whole bridge over real sockets, between clients that share no code with it.

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

async fn bridge() -> Bridge {
    // On every address of the machine, as people run it: a client then reaches the bridge in several ways.
    let config = Config { port: 0, ..Config::default() };
    Bridge::start(config).await.expect("the bridge starts")
}

async fn join(bridge: &Bridge, number: u32) -> Bot {
    let bot = Bot::join(BotConfig::new(bridge.port(), "calls", number)).await.expect("the bridge lets it in");
    bot.until("media is up", |seen| seen.is_connected).await;
    bot
}

async fn until_flowing(bot: &Bot, others: &[u32]) {
    for other in others {
        bot.until_flowing(*other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_get_each_others_voice_and_picture() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1).await, join(&bridge, 2).await);
    until_flowing(&ana, &[2]).await;
    until_flowing(&berta, &[1]).await;
    assert_eq!(ana.seen().heard(), BTreeSet::from([2]), "nobody hears themselves");
    assert_eq!(berta.seen().seen(), BTreeSet::from([1]), "nobody sees themselves");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_gets_a_key_frame_first() {
    let bridge = bridge().await;
    let ana = join(&bridge, 1).await;
    let started = Instant::now();
    ana.until("the camera has run for a while", |seen| {
        seen.is_connected && started.elapsed().as_millis() > 500
    })
    .await;
    let wanted_before = ana.seen().key_frames_wanted;
    let berta = join(&bridge, 2).await;
    until_flowing(&berta, &[1]).await;
    let first = berta.seen().received.iter().find(|(_, it)| it.stamp.kind == 1).expect("a picture").1.clone();
    assert!(first.stamp.is_key && first.stamp.packet == 0, "the first packet begins a key frame: {first:?}");
    assert!(ana.seen().key_frames_wanted > wanted_before, "the bridge asked for it");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_packet_comes_again() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1).await, join(&bridge, 2).await);
    until_flowing(&berta, &[1]).await;
    // RTP of a video's size, not what was asked for again: one in ten of 200.
    let (mut count, mut lost) = (0, 0);
    let (report, mut losses) = tokio::sync::mpsc::unbounded_channel();
    berta.lose(move |datagram| {
        let is_rtp = datagram.first().is_some_and(|first| (128..192).contains(first))
            && datagram.get(1).is_some_and(|second| !(192..224).contains(second));
        if !is_rtp || datagram.len() < 350 || count >= 200 {
            return false;
        }
        count += 1;
        if count % 10 != 0 {
            return false;
        }
        lost += 1;
        // The receiver of the report may be gone at the end of the test.
        let _ = report.send(lost);
        true
    });
    while losses.recv().await.expect("the bot runs") < 20 {}
    let newest = |seen: &Seen| {
        seen.received.iter().filter(|(_, it)| it.stamp.kind == 1).map(|(_, it)| it.sequence).max()
    };
    let at_loss = newest(&berta.seen()).expect("a picture");
    berta
        .until("every packet of the picture, in the end", |seen| {
            let sequences: BTreeSet<u64> = seen
                .received
                .iter()
                .filter(|(_, it)| it.stamp.kind == 1 && it.sequence <= at_loss)
                .map(|(_, it)| it.sequence)
                .collect();
            let first = sequences.first().copied().unwrap_or_default();
            sequences.len() as u64 == at_loss - first + 1
        })
        .await;
    let torn = torn_frames(&berta.seen(), at_loss);
    assert!(torn <= 1, "{torn} frames lack packets"); // the newest may be on its way
    drop(ana);
    bridge.stop().await;
}

/// Frames up to a sequence number of which some packets never came: what comes again is the same packet, not another
/// in its place.
fn torn_frames(seen: &Seen, newest: u64) -> usize {
    let mut frames = BTreeMap::<(u8, u32), (BTreeSet<u8>, u8)>::new();
    for (_, it) in seen.received.iter().filter(|(_, it)| it.stamp.kind == 1 && it.sequence <= newest) {
        let frame = frames.entry((it.stamp.layer, it.stamp.frame)).or_default();
        frame.0.insert(it.stamp.packet);
        frame.1 = it.stamp.packets;
    }
    frames.values().filter(|(packets, all)| packets.len() != usize::from(*all)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_mutes_is_not_heard_and_who_leaves_is_gone() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1).await, join(&bridge, 2).await);
    until_flowing(&ana, &[2]).await;
    berta.voice(None);
    let member = berta.seen().member;
    ana.until("the word that Berta is muted", |seen| {
        seen.members[&member]["ups"].as_array().is_some_and(|ups| {
            ups.iter().any(|up| up["kind"] == "microphone" && up["active"] == false)
                || !ups.iter().any(|up| up["kind"] == "microphone")
        })
    })
    .await;
    berta.voice(Some(20));
    let before = ana.seen().counts[&(2, 0)];
    ana.until("Berta's voice again", |seen| seen.counts[&(2, 0)] > before + 25).await;
    berta.leave().await;
    ana.until("that Berta is gone", |seen| !seen.members.contains_key(&member)).await;
    ana.until("that her slots are free", |seen| {
        seen.slots.values().flatten().all(|(whose, _)| *whose != member)
    })
    .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loudest_are_heard_and_all_are_seen() {
    let bridge = bridge().await;
    let mut bots = Vec::new();
    for number in 1..=6 {
        let config = BotConfig {
            voice_dbov: Some(if number <= 3 { 20 } else { 110 }),
            slots: (2, 6),
            height_px: 180,
            ..BotConfig::new(bridge.port(), "calls", number)
        };
        bots.push(Bot::join(config).await.expect("the bridge lets it in"));
    }
    for bot in &bots {
        bot.until("everyone's picture", |seen| seen.seen().len() == 5).await;
    }
    let quiet = bots.last().expect("six");
    quiet
        .until("two of the three loud voices in its two slots", |seen| {
            (1..=3).filter(|number| seen.counts.get(&(*number, 0)) > Some(&25)).count() >= 2
        })
        .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_people_are_in_one_room() {
    let bridge = bridge().await;
    let mut bots = Vec::new();
    for number in 1..=12 {
        let config =
            BotConfig { slots: (3, 11), height_px: 90, ..BotConfig::new(bridge.port(), "calls", number) };
        bots.push(Bot::join(config).await.expect("the bridge lets it in"));
    }
    for bot in &bots {
        bot.until("everyone's picture", |seen| seen.members.len() == 12 && seen.seen().len() == 11).await;
        bot.until("some voice", |seen| !seen.heard().is_empty()).await;
    }
    bridge.stop().await;
}
