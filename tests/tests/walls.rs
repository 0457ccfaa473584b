//! Calls from behind walls: where no UDP gets out, the same port is reached over TCP.

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, PATIENCE, connect};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn bridge() -> Bridge {
    let config = Config { port: 0, ..Config::default() };
    Bridge::start(config).await.expect("the bridge starts")
}

async fn join(bridge: &Bridge, number: u32, over_tcp: bool) -> Bot {
    let config = BotConfig { over_tcp, ..BotConfig::new(bridge.port(), "walls", number) };
    Bot::join(config).await.expect("the bridge lets it in")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_only_tcp_meets_who_has_udp() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1, true).await, join(&bridge, 2, false).await);
    ana.until_flowing(2).await;
    berta.until_flowing(1).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_have_only_tcp_meet_while_others_leave() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1, true).await, join(&bridge, 2, true).await);
    let carlos = join(&bridge, 3, true).await;
    ana.until_flowing(3).await;
    carlos.vanish();
    ana.until_flowing(2).await;
    berta.until_flowing(1).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_begins_with_no_authentic_check_is_cut_and_nobody_notices() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1, true).await, join(&bridge, 2, false).await);
    ana.until_flowing(2).await;
    // An empty frame, one that is too long, junk, and a binding request without credentials.
    let mut unsigned = vec![0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    unsigned.extend([7; 12]);
    let junk = [&[0, 200][..], &[0xab; 200]].concat();
    for lie in [&[0, 0][..], &[5, 0xff, 1], &junk, &unsigned] {
        for _ in 0..50 {
            let mut stream =
                TcpStream::connect((Ipv4Addr::LOCALHOST, bridge.port())).await.expect("accepted");
            stream.write_all(lie).await.expect("sent");
            let mut answer = Vec::new();
            // Cut, by an end or a reset; never answered.
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("cut at once");
            assert_eq!(answer, [0; 0], "{lie:?}");
        }
    }
    // Silent ones only take their place for a while.
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, bridge.port())).await.expect("accepted");
        stream.write_all(&[0]).await.expect("sent");
        silent.push(stream);
    }
    connect(bridge.port()).await.expect("a WebSocket beside them");
    let before = (ana.seen().counts[&(2, 0)], berta.seen().counts[&(1, 0)]);
    ana.until("Berta's voice", |seen| seen.counts[&(2, 0)] > before.0 + 25).await;
    berta.until("Ana's voice", |seen| seen.counts[&(1, 0)] > before.1 + 25).await;
    bridge.stop().await;
}
