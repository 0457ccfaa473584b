//! One meeting on two shards, through the whole bridge over real sockets: who lives on which is nobody's business.

mod watched;

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig};

async fn join(bridge: &Bridge, number: u32) -> Bot {
    let config = BotConfig { slots: (3, 4), ..BotConfig::new(bridge.port(), "several-cores", number) };
    let bot = Bot::join(config).await.expect("the bridge lets it in");
    bot.until("media is up", |seen| seen.is_connected).await;
    bot
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_one_meeting_on_two_shards_see_and_hear_each_other() {
    // Each shard carries two members of one meeting before the other takes part.
    let config = Config { shards: Some(2), members_per_core: 2, ..Config::default() };
    let (bridge, watched) = watched::bridge(config).await;
    let mut bots = Vec::new();
    for number in 1..=4 {
        bots.push(join(&bridge, number).await);
    }
    for (place, bot) in bots.iter().enumerate() {
        for other in (1..=4).filter(|other| *other != place as u32 + 1) {
            bot.until_flowing(other).await;
        }
    }
    let peers: Vec<u64> = watched.rooms().iter().map(|(peers, _)| *peers).collect();
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
            watched.rooms().iter().all(|(_, rooms)| rooms.relayed_out > 100 && rooms.relayed_in > 100)
        })
        .await;
    for (_, rooms) in watched.rooms() {
        assert_eq!((rooms.dropped_relay_full, rooms.dropped_overwritten), (0, 0), "{rooms:?}");
    }
    bridge.stop().await;
}
