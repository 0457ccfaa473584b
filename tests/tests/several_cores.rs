//! One meeting on two shards, through the whole bridge over real sockets: who lives on which is nobody's business.

use asamblea::{Bridge, Config};
use asamblea_sfu_core::stats::RoomCounters;
use asamblea_sfu_io::plane;
use asamblea_tests::bot::{Bot, BotConfig};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// A bridge with two shards that carry two members of one meeting each before the other takes part, and a look at what
/// each shard counts.
async fn bridge() -> (Bridge, Arc<OnceLock<Arc<plane::MediaPlane>>>) {
    let slot = Arc::new(OnceLock::new());
    let plane = Arc::clone(&slot);
    let config = Config { port: 0, shards: Some(2), members_per_core: 2, ..Config::default() };
    let bridge = Bridge::start_with(config, move |config, port, sink| {
        let started = plane::MediaPlane::start(plane::Config {
            bind: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            public_addresses: Vec::new(),
            shards: config.shards.map_or(0, usize::from),
            take_over: false,
            members_per_shard: config.members_per_core,
            pad_runs: true,
            turn_secret: [7; 32],
            events: Box::new(move |event| sink(event)),
        });
        let started = Arc::new(started.expect("a port that signaling has just taken"));
        let _ = plane.set(Arc::clone(&started));
        Ok(started)
    })
    .await
    .expect("the bridge starts");
    (bridge, slot)
}

fn rooms(plane: &OnceLock<Arc<plane::MediaPlane>>) -> Vec<(u64, RoomCounters)> {
    let shards = plane.get().expect("it has started").stats().shards;
    shards.iter().map(|shard| (shard.sockets.peers, shard.rooms)).collect()
}

async fn join(bridge: &Bridge, number: u32) -> Bot {
    let config = BotConfig { slots: (3, 4), ..BotConfig::new(bridge.port(), "several-cores", number) };
    let bot = Bot::join(config).await.expect("the bridge lets it in");
    bot.until("media is up", |seen| seen.is_connected).await;
    bot
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_one_meeting_on_two_shards_see_and_hear_each_other() {
    let (bridge, plane) = bridge().await;
    let mut bots = Vec::new();
    for number in 1..=4 {
        bots.push(join(&bridge, number).await);
    }
    for (place, bot) in bots.iter().enumerate() {
        for other in (1..=4).filter(|other| *other != place as u32 + 1) {
            bot.until_flowing(other).await;
        }
    }
    let peers: Vec<u64> = rooms(&plane).iter().map(|(peers, _)| *peers).collect();
    assert_eq!(peers, [2, 2], "the load is spread");
    // One leaves, one mutes: those on the other shard hear of it.
    let gone = bots.pop().expect("four");
    let member = gone.seen().member;
    gone.leave().await;
    for bot in &bots {
        bot.until("the word that the fourth is gone", |seen| !seen.members.contains_key(&member)).await;
    }
    // Who comes again is seen by all, and sees all.
    let fourth = join(&bridge, 5).await;
    for bot in &bots {
        bot.until_flowing(5).await;
    }
    for other in 1..=3 {
        fourth.until_flowing(other).await;
    }
    // Counts are told once a second.
    fourth
        .until("both shards have relayed and received what the other did", |_| {
            rooms(&plane).iter().all(|(_, rooms)| rooms.relayed_out > 100 && rooms.relayed_in > 100)
        })
        .await;
    for (_, rooms) in rooms(&plane) {
        assert_eq!((rooms.dropped_relay_full, rooms.dropped_overwritten), (0, 0), "{rooms:?}");
    }
    bridge.stop().await;
}
