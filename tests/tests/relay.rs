//! Calls through the bridge's own relay, with a client of TURN that shares no code with it; and what strangers and
//! members may try at it.

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, PATIENCE, relay_credentials};
use asamblea_tests::turn::{RelayCredentials, Relayed, Way};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

async fn bridge() -> Bridge {
    let config = Config { port: 0, ..Config::default() };
    Bridge::start(config).await.expect("the bridge starts")
}

fn address(bridge: &Bridge) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, bridge.port()).into()
}

async fn join(bridge: &Bridge, number: u32, relayed: Option<Way>) -> Bot {
    let config = BotConfig { relayed, ..BotConfig::new(bridge.port(), "walls", number) };
    Bot::join(config).await.expect("the bridge lets it in")
}

/// The same, where the bridge is reached at an address of one's choice.
async fn join_at(bridge: SocketAddr, number: u32, way: Way) -> Bot {
    let config =
        BotConfig { host: bridge.ip(), relayed: Some(way), ..BotConfig::new(bridge.port(), "walls", number) };
    Bot::join(config).await.expect("the bridge lets it in")
}

/// Everyone gets media of all others; their numbers are their places, from 1.
async fn everyone_flows(people: &[Bot]) {
    for (place, bot) in people.iter().enumerate() {
        for other in (0..people.len()).filter(|other| *other != place) {
            bot.until_flowing(other as u32 + 1).await;
        }
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
            bot.until_flowing(other).await;
        }
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_but_tls_meets_who_has_udp_whether_they_name_the_protocol_or_not() {
    let bridge = bridge().await;
    let ana = join(&bridge, 1, Some(Way::Tls { is_named: true })).await;
    let berta = join(&bridge, 2, Some(Way::Tls { is_named: false })).await;
    let carlos = join(&bridge, 3, None).await;
    for (bot, other) in [(&ana, 3), (&berta, 3), (&carlos, 1), (&carlos, 2)] {
        bot.until_flowing(other).await;
    }
    bridge.stop().await;
}

/// Who names no family gets IPv4 (RFC 8656 section 7.2), over whatever they came: what is relayed stays in the process.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_is_reached_over_ipv6_and_leads_to_ipv4() {
    let bridge = bridge().await;
    let over_ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, bridge.port()));
    let mut people = vec![join(&bridge, 1, None).await];
    for (number, way) in [(2, Way::Udp), (3, Way::Tcp), (4, Way::Tls { is_named: false })] {
        people.push(join_at(over_ipv6, number, way).await);
    }
    everyone_flows(&people).await;
    for person in &people[1..] {
        let (from, to) = person.seen().path.expect("a path");
        assert!(from.is_ipv4() && to.is_ipv4() && from.port() != to.port(), "{from} to {to}");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_ipv6_alone_the_relay_leads_to_it() {
    let config = Config { port: 0, bind: Some(Ipv6Addr::LOCALHOST.into()), ..Config::default() };
    let bridge = Bridge::start(config).await.expect("the bridge starts");
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, bridge.port()));
    let mut people = Vec::new();
    for (number, way) in [(1, Way::Udp), (2, Way::Tcp), (3, Way::Tls { is_named: true })] {
        people.push(join_at(address, number, way).await);
    }
    everyone_flows(&people).await;
    for person in &people {
        let (from, to) = person.seen().path.expect("a path");
        assert_eq!((from.ip(), to), (address.ip(), address));
        assert_ne!(from.port(), to.port(), "one that stands for the allocation");
    }
    // Its own address in whatever notation, and the rest of the world: no.
    let credentials = relay_credentials(address, "walls").await.expect("a token");
    let mut relayed = Relayed::allocate(address, Way::Udp, credentials).await.expect("an allocation");
    assert!(relayed.relayed().is_ipv6());
    assert!(relayed.allows(address).await.expect("an answer"));
    for other in
        ["[::2]:22", "[::ffff:127.0.0.1]:53", "[64:ff9b::7f00:1]:53", "[ff02::1]:5353", "127.0.0.1:22"]
    {
        let other: SocketAddr = other.parse().expect("an address");
        assert!(!relayed.allows(other).await.expect("an answer"), "{other}");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_while_a_relayed_member_vanishes_and_another_comes() {
    let bridge = bridge().await;
    let (ana, berta) = (join(&bridge, 1, Some(Way::Udp)).await, join(&bridge, 2, Some(Way::Tcp)).await);
    ana.until_flowing(2).await;
    berta.vanish();
    let carlos = join(&bridge, 3, Some(Way::Udp)).await;
    ana.until_flowing(3).await;
    carlos.until_flowing(1).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_leads_to_the_bridges_own_port_and_nowhere_else() {
    let bridge = bridge().await;
    for way in [Way::Udp, Way::Tcp] {
        let credentials = relay_credentials(address(&bridge), "walls").await.expect("a token");
        let mut relayed = Relayed::allocate(address(&bridge), way, credentials).await.expect("an allocation");
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
    let genuine = relay_credentials(address(&bridge), "walls").await.expect("a token");
    let (until, bound) = genuine.username.split_once(':').expect("until when, and for whom");
    let later = until.parse::<u64>().expect("seconds") + 1;
    let forged = [
        RelayCredentials { password: "guess".into(), ..genuine.clone() },
        RelayCredentials { username: format!("{later}:{bound}"), ..genuine.clone() },
        RelayCredentials { username: String::new(), password: String::new() },
    ];
    for way in [Way::Udp, Way::Tcp] {
        for credentials in &forged {
            let refused = Relayed::allocate(address(&bridge), way, credentials.clone()).await;
            assert!(refused.is_err(), "{credentials:?} over {way:?}");
        }
        assert!(Relayed::allocate(address(&bridge), way, genuine.clone()).await.is_ok());
    }
    bridge.stop().await;
}

/// The longest a voice may pause on a machine that runs other tests beside this one.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Two people who talk, one of them relayed, and what they may not notice.
struct Call {
    bridge: Bridge,
    ana: Bot,
    berta: Bot,
}

impl Call {
    async fn start() -> Self {
        let bridge = bridge().await;
        let (ana, berta) = (join(&bridge, 1, Some(Way::Udp)).await, join(&bridge, 2, None).await);
        ana.until_flowing(2).await;
        berta.until_flowing(1).await;
        Self { bridge, ana, berta }
    }

    fn address(&self) -> SocketAddr {
        address(&self.bridge)
    }

    async fn credentials(&self) -> RelayCredentials {
        relay_credentials(self.address(), "walls").await.expect("a token")
    }

    /// Waits until a second of both voices has come that was sent after this.
    async fn flows(&self) {
        for (bot, other) in [(&self.ana, 2), (&self.berta, 1)] {
            let before = bot.seen().counts[&(other, 0)];
            bot.until("a voice that goes on", |seen| seen.counts[&(other, 0)] > before + 50).await;
        }
    }

    async fn ends_unharmed(self, since: Instant) {
        self.flows().await;
        for (bot, other) in [(&self.ana, 2), (&self.berta, 1)] {
            let seen = bot.seen();
            assert!(seen.is_connected && !seen.is_over && seen.transport_changes == 1);
            let gap = seen.longest_gap(other, since);
            assert!(gap < PAUSE_MAX, "a pause of {gap:?}");
        }
        self.bridge.stop().await;
    }
}

/// An Allocate request for UDP without credentials (RFC 8656 section 7.1).
fn allocate(transaction: u32) -> Vec<u8> {
    let mut request = vec![0x00, 0x03, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    request.extend([0; 8]);
    request.extend(transaction.to_be_bytes());
    request.extend([0x00, 0x19, 0, 4, 17, 0, 0, 0]);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_without_credentials_gets_less_than_twice_its_bytes_and_disturbs_nobody() {
    let call = Call::start().await;
    let since = Instant::now();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    socket.connect(call.address()).await.expect("loopback");
    let (mut sent, mut received, mut buffer) = (0, 0, [0; 2_048]);
    for transaction in 0..20_000 {
        let request = allocate(transaction);
        sent += socket.send(&request).await.unwrap_or(0);
        while let Ok(length) = socket.try_recv(&mut buffer) {
            assert_eq!(buffer[..2], [0x01, 0x13], "an error");
            received += length;
        }
    }
    assert!(received > 0 && received < 2 * sent, "{received} bytes for {sent}");
    // Others' messages of this kind, without an allocation: not a word.
    for other in [&b"\x40\x00\x00\x04hello"[..], &[0; 28], &[0x00, 0x16, 0, 0, 0x21, 0x12, 0xa4, 0x42]] {
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        stranger.send_to(other, call.address()).await.expect("loopback");
        call.flows().await;
        assert!(stranger.try_recv(&mut buffer).is_err());
    }
    call.ends_unharmed(since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_credentials_gets_so_many_allocations_and_no_more() {
    let call = Call::start().await;
    let since = Instant::now();
    let credentials = call.credentials().await;
    let mut held = Vec::new();
    for number in 0..24 {
        let way = if number % 2 == 0 { Way::Udp } else { Way::Tcp };
        held.push(Relayed::allocate(call.address(), way, credentials.clone()).await.expect("within it"));
    }
    for way in [Way::Udp, Way::Tcp] {
        let refused = Relayed::allocate(call.address(), way, credentials.clone()).await.err();
        let refused = refused.expect("beyond it").to_string();
        assert!(refused.contains("486"), "{refused}");
    }
    // Another's are another's; and what a stream held is free again when it has ended.
    let other = call.credentials().await;
    Relayed::allocate(call.address(), Way::Udp, other).await.expect("its own quota");
    held.pop();
    let again =
        async { while Relayed::allocate(call.address(), Way::Udp, credentials.clone()).await.is_err() {} };
    timeout(PATIENCE, again).await.expect("room again");
    call.ends_unharmed(since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_lie_about_their_messages_are_cut_and_silent_ones_only_take_their_place() {
    let call = Call::start().await;
    let since = Instant::now();
    let connect = || TcpStream::connect(call.address());
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = connect().await.expect("accepted");
        stream.write_all(&allocate(1)[..5]).await.expect("sent");
        silent.push(stream);
    }
    // No multiple of four, longer than any message, no cookie, one that wants no answer, another method.
    let lies = [
        &[0x00, 0x03, 0, 7, 1, 2, 3, 4][..],
        &[0x00, 0x03, 0xff, 0xfc, 1, 2, 3, 4],
        &[0x00, 0x03, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        &[&allocate(1)[..], &[0xff; 4]].concat(),
        &[&allocate(1)[..], b"\x40\x00\x00\x04data"].concat(),
        &allocate(1).repeat(7),
    ];
    for lie in lies {
        let mut stream = connect().await.expect("accepted");
        // It may be cut in the middle.
        let _ = stream.write_all(lie).await;
        let mut answers = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answers)).await.expect("cut at once");
        assert!(answers.len() <= 6 * 52, "{} bytes", answers.len());
    }
    // The door is open to others all the while.
    let credentials = call.credentials().await;
    Relayed::allocate(call.address(), Way::Tcp, credentials).await.expect("an allocation");
    call.ends_unharmed(since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_through_an_allocation_reaches_nobody() {
    let call = Call::start().await;
    let since = Instant::now();
    for way in [Way::Udp, Way::Tcp] {
        let credentials = call.credentials().await;
        let mut mallory = Relayed::allocate(call.address(), way, credentials).await.expect("an allocation");
        assert!(mallory.allows(call.address()).await.expect("an answer"));
        // What is no authentic check opens no path, whatever it looks like.
        for number in 0..2_000_u32 {
            let first = [0, 22, 0x80, 0xc8, 0xff][number as usize % 5];
            let datagram: Vec<u8> = [first].into_iter().chain(number.to_be_bytes()).chain([7; 200]).collect();
            mallory.send(&datagram, call.address()).expect("sent");
        }
        call.flows().await;
        let mut buffer = [0; 2_048];
        let answer = timeout(Duration::ZERO, mallory.receive(&mut buffer)).await;
        assert!(answer.is_err(), "the bridge answered {answer:?}");
    }
    call.ends_unharmed(since).await;
}
