//! Calls through the bridge's own relay, with a client of TURN that shares no code with it; and what strangers and
//! members may try at it.

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, relay_credentials};
use asamblea_tests::turn::{RelayCredentials, Relayed, Way};
use std::net::{Ipv4Addr, SocketAddr};

async fn bridge() -> Bridge {
    let config = Config { port: 0, ..Config::default() };
    Bridge::start(config).await.expect("the bridge starts")
}

async fn join(bridge: &Bridge, number: u32, relayed: Option<Way>) -> Bot {
    let config = BotConfig { relayed, ..BotConfig::new(bridge.port(), "walls", number) };
    Bot::join(config).await.expect("the bridge lets it in")
}

async fn until_flowing(bot: &Bot, other: u32) {
    for kind in [0, 1] {
        bot.until("voice and picture", |seen| seen.counts.get(&(other, kind)) > Some(&25)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_relayed_over_udp_or_tcp_meets_who_is_not() {
    let bridge = bridge().await;
    let ana = join(&bridge, 1, Some(Way::Udp)).await;
    let berta = join(&bridge, 2, Some(Way::Tcp)).await;
    let carlos = join(&bridge, 3, None).await;
    for (bot, others) in [(&ana, [2, 3]), (&berta, [1, 3]), (&carlos, [1, 2])] {
        for other in others {
            until_flowing(bot, other).await;
        }
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_while_a_relayed_member_vanishes_and_another_comes() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1, Some(Way::Udp)).await, join(&bridge, 2, Some(Way::Tcp)).await);
    until_flowing(&ana, 2).await;
    berta.vanish();
    let carlos = join(&bridge, 3, Some(Way::Udp)).await;
    until_flowing(&ana, 3).await;
    until_flowing(&carlos, 1).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_leads_to_the_bridges_own_port_and_nowhere_else() {
    let bridge = bridge().await;
    for way in [Way::Udp, Way::Tcp] {
        let credentials = relay_credentials(bridge.port(), "walls").await.expect("a token");
        let mut relayed = Relayed::allocate(bridge.port(), way, credentials).await.expect("an allocation");
        assert!(relayed.allows((Ipv4Addr::LOCALHOST, bridge.port()).into()).await.expect("an answer"));
        for other in ["127.0.0.2:22", "8.8.8.8:53", "169.254.169.254:80", "224.0.0.1:5353", "0.0.0.0:1"] {
            let other: SocketAddr = other.parse().expect("an address");
            assert!(!relayed.allows(other).await.expect("an answer"), "{other} over {way:?}");
        }
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_credentials_get_no_allocation() {
    let bridge = bridge().await;
    let genuine = relay_credentials(bridge.port(), "walls").await.expect("a token");
    let (until, bound) = genuine.username.split_once(':').expect("until when, and for whom");
    let later = until.parse::<u64>().expect("seconds") + 1;
    let forged = [
        RelayCredentials { password: "guess".into(), ..genuine.clone() },
        RelayCredentials { username: format!("{later}:{bound}"), ..genuine.clone() },
        RelayCredentials { username: String::new(), password: String::new() },
    ];
    for way in [Way::Udp, Way::Tcp] {
        for credentials in &forged {
            let refused = Relayed::allocate(bridge.port(), way, credentials.clone()).await;
            assert!(refused.is_err(), "{credentials:?} over {way:?}");
        }
        assert!(Relayed::allocate(bridge.port(), way, genuine.clone()).await.is_ok());
    }
    bridge.stop().await;
}
