//! Bad input beside a call that goes on: media that is not what it seems gets nothing, signaling gets a typed error,
//! and the people in the call notice neither.

use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, PATIENCE, connect, token};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// The longest a voice may pause on a machine that runs other tests beside this one.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Datagrams of one attack; sent in bursts that a socket's buffer holds.
const DATAGRAMS: usize = 2_000;
const BURST: usize = 50;

/// Two people who talk, and what they may not notice.
struct Call {
    bridge: Bridge,
    ana: Bot,
    berta: Bot,
    since: Instant,
}

impl Call {
    async fn start() -> Self {
        // On every address of the machine, as people run it: a client then reaches the bridge in several ways.
        let config = Config { port: 0, ..Config::default() };
        let bridge = Bridge::start(config).await.expect("the bridge starts");
        let ana = Bot::join(BotConfig::new(bridge.port(), "call", 1)).await.expect("let in");
        let berta = Bot::join(BotConfig::new(bridge.port(), "call", 2)).await.expect("let in");
        let call = Self { bridge, ana, berta, since: Instant::now() };
        call.flows().await;
        Self { since: Instant::now(), ..call }
    }

    /// Waits until as much media came again as a good half second holds.
    async fn flows(&self) {
        for (bot, other) in [(&self.ana, 2), (&self.berta, 1)] {
            for kind in [0, 1] {
                let before = bot.seen().counts.get(&(other, kind)).copied().unwrap_or_default();
                bot.until("media that flow", |seen| seen.counts.get(&(other, kind)) > Some(&(before + 30)))
                    .await;
            }
        }
    }

    /// Waits for the next packet of each voice: by then the bridge has read what was sent before it. A client that
    /// fills its own socket's buffer would lose its own voice, and nothing else.
    async fn voices_go_on(&self) {
        for (bot, other) in [(&self.ana, 2), (&self.berta, 1)] {
            let before = bot.seen().counts.get(&(other, 0)).copied().unwrap_or_default();
            bot.until("a voice that goes on", |seen| seen.counts.get(&(other, 0)) > Some(&before)).await;
        }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.bridge.port()).into()
    }

    /// Sends datagrams to the bridge from a place it does not know; none of them may be answered.
    async fn attack_from_outside(&self, datagrams: impl IntoIterator<Item = Vec<u8>>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        for (count, datagram) in datagrams.into_iter().enumerate() {
            // A full buffer or an empty datagram is no matter here.
            let _ = socket.send_to(&datagram, self.address()).await;
            if count % BURST == 0 {
                self.voices_go_on().await;
            }
        }
        self.flows().await;
        let answer = socket.try_recv(&mut [0; 2_048]);
        assert!(answer.is_err(), "the bridge answered {answer:?} to a stranger");
    }

    /// Sends datagrams from Berta's own address, where the bridge expects her media.
    async fn attack_from_within(&self, datagrams: impl IntoIterator<Item = Vec<u8>>) {
        for (count, datagram) in datagrams.into_iter().enumerate() {
            self.berta.inject(datagram);
            if count % BURST == 0 {
                self.voices_go_on().await;
            }
        }
        self.flows().await;
    }

    /// Nobody missed anything, nothing came twice, nobody was thrown out.
    async fn ends_unharmed(self) {
        self.flows().await;
        for (bot, other) in [(&self.ana, 2), (&self.berta, 1)] {
            let seen = bot.seen();
            assert!(seen.is_connected && !seen.is_over);
            assert_eq!(seen.transport_changes, 1, "the transport came up once");
            assert_eq!(seen.members.len(), 2);
            let gap = seen.longest_gap(other, self.since);
            assert!(gap < PAUSE_MAX, "a pause of {gap:?}");
            let frames: Vec<u32> = seen
                .received
                .iter()
                .filter(|(at, it)| it.stamp.sender == other && it.stamp.kind == 0 && *at >= self.since)
                .map(|(_, it)| it.stamp.frame)
                .collect();
            let once: BTreeSet<u32> = frames.iter().copied().collect();
            assert_eq!(once.len(), frames.len(), "a packet of the voice came twice");
            let (first, last) = (once.first().expect("a voice"), once.last().expect("a voice"));
            assert_eq!(once.len() as u32, last - first + 1, "packets of the voice are missing");
        }
        self.bridge.stop().await;
    }

    /// What Berta sent last: STUN, DTLS, RTP and RTCP as a client writes them.
    fn genuine(&self) -> Vec<Vec<u8>> {
        self.berta.seen().sent.iter().cloned().collect()
    }
}

/// Small, seeded and good enough for noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = 1 + self.below(1_400);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// One of the genuine datagrams, cut short or with some of its bits turned.
    fn damaged(&mut self, genuine: &[Vec<u8>]) -> Vec<u8> {
        let mut datagram = genuine[self.below(genuine.len())].clone();
        if self.below(3) == 0 {
            datagram.truncate(self.below(datagram.len()));
        }
        for _ in 0..=self.below(4) {
            let at = self.below(datagram.len());
            if let Some(byte) = datagram.get_mut(at) {
                *byte ^= 1 << self.below(8);
            }
        }
        datagram
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_get_nothing() {
    let call = Call::start().await;
    let mut noise = Noise(1);
    call.attack_from_outside((0..DATAGRAMS).map(|_| noise.bytes())).await;
    call.attack_from_within((0..DATAGRAMS).map(|_| noise.bytes())).await;
    call.ends_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_packets_of_every_kind_get_nothing() {
    let call = Call::start().await;
    let (genuine, mut noise) = (call.genuine(), Noise(2));
    assert!(genuine.iter().any(|it| it[0] < 4), "STUN is among them");
    assert!(genuine.iter().any(|it| it[0] >= 128), "RTP is among them");
    call.attack_from_outside((0..DATAGRAMS).map(|_| noise.damaged(&genuine))).await;
    call.attack_from_within((0..DATAGRAMS).map(|_| noise.damaged(&genuine))).await;
    call.ends_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_once_does_nothing_when_it_is_sent_again() {
    let call = Call::start().await;
    let genuine = call.genuine();
    call.attack_from_within(genuine.iter().cloned().cycle().take(DATAGRAMS)).await;
    call.attack_from_outside(genuine.iter().cloned().cycle().take(DATAGRAMS)).await;
    call.ends_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_under_anothers_ssrc_get_nothing() {
    let call = Call::start().await;
    let berta = call.genuine();
    let ana: Vec<Vec<u8>> = call.ana.seen().sent.iter().filter(|it| it[0] >= 128).cloned().collect();
    assert!(!ana.is_empty());
    // Ana's own packets, which only Ana's keys open, and Berta's with another SSRC in the header.
    let forged = berta.iter().filter(|it| it[0] >= 128 && it.len() > 12).cloned().map(|mut packet| {
        packet[8..12].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        packet
    });
    call.attack_from_within(ana.into_iter().chain(forged).collect::<Vec<_>>()).await;
    call.ends_unharmed().await;
}

/// A binding request (RFC 8489 section 5) for a user, with an integrity attribute that nobody computed.
fn binding_request(user: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    attributes.extend([0x00, 0x06]);
    attributes.extend((user.len() as u16).to_be_bytes());
    attributes.extend(user.as_bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    attributes.extend([0x00, 0x08, 0x00, 0x14]);
    attributes.extend([0x5a; 20]);
    let mut request = vec![0x00, 0x01];
    request.extend((attributes.len() as u16).to_be_bytes());
    request.extend([0x21, 0x12, 0xa4, 0x42]);
    request.extend([7; 12]);
    request.extend(attributes);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_for_unknown_users_or_without_integrity_get_nothing() {
    let call = Call::start().await;
    let answer = call.ana.seen().answer.clone();
    let ufrag =
        answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("a ufrag").to_owned();
    let users = [format!("{ufrag}:abcd"), "0000000000000000:abcd".into(), ":".into(), "x".repeat(500)];
    call.attack_from_outside(users.iter().cycle().take(DATAGRAMS).map(|user| binding_request(user))).await;
    call.attack_from_within(users.iter().cycle().take(DATAGRAMS).map(|user| binding_request(user))).await;
    call.ends_unharmed().await;
}

/// A ClientHello in fragments of one byte each (RFC 6347 section 4.2.3).
fn fragments(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |at| {
        let mut record = vec![22, 0xfe, 0xfd, 0, 0];
        record.extend(&u64::from(at).to_be_bytes()[2..]);
        record.extend([0, 13]);
        record.push(1);
        record.extend(&count.to_be_bytes()[1..]);
        record.extend([0, 0]);
        record.extend(&at.to_be_bytes()[1..]);
        record.extend([0, 0, 1, 0xaa]);
        record
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_in_two_thousand_fragments_costs_the_others_nothing() {
    let call = Call::start().await;
    // From someone in the same meeting who has a path and never shook hands, and from someone who has.
    let config = BotConfig {
        shakes_hands: false,
        slots: (1, 0),
        camera: false,
        ..BotConfig::new(call.bridge.port(), "other", 3)
    };
    let mallory = Bot::join(config).await.expect("let in");
    mallory.until("a path", |seen| seen.path.is_some()).await;
    for fragment in fragments(2_000) {
        mallory.inject(fragment);
    }
    call.flows().await;
    call.attack_from_within(fragments(2_000)).await;
    call.ends_unharmed().await;
}

/// Says something over a socket and gives the bridge's next error.
async fn error_for(port: u16, hello: Option<&str>, text: String) -> Value {
    let mut socket = connect(port).await.expect("the door is open");
    if let Some(meeting) = hello {
        let token = token(port, meeting).await.expect("a token");
        let hello = json!({ "type": "hello", "versions": [1], "token": token, "name": "Mallory" });
        socket.send(Message::text(hello.to_string())).await.expect("sent");
    }
    // The bridge may end the socket while a long message is still being written.
    let _ = socket.send(Message::text(text)).await;
    timeout(PATIENCE, async {
        while let Some(Ok(message)) = socket.next().await {
            let Ok(value) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default()) else {
                continue;
            };
            if value["type"] == "error" {
                return value;
            }
        }
        json!({ "code": "the socket ended without a word" })
    })
    .await
    .expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn signaling_that_makes_no_sense_gets_a_typed_error() {
    let call = Call::start().await;
    let port = call.bridge.port();
    let member = call.ana.seen().member;
    let m_line = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\n";
    let sdp = format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{}", m_line.repeat(500));
    let offer = |sdp: &str| json!({ "type": "offer", "revision": 1, "sdp": sdp, "ups": [] }).to_string();
    let view = |whose: u64, mid: &str| {
        let up = json!({ "peer": whose, "kind": "camera" });
        json!({ "type": "view", "slots": [{ "mid": mid, "up": up, "height_px": 90 }] }).to_string()
    };
    let cases = [
        (Some("call"), offer(&sdp), "offer_refused"),
        (Some("call"), offer("v=0"), "offer_refused"),
        (Some("call"), "x".repeat(1 << 20), "too_large"),
        (Some("call"), "no json".into(), "malformed"),
        (Some("call"), json!({ "type": "dance" }).to_string(), "malformed"),
        (Some("call"), json!({ "type": "pong", "nonce": "one" }).to_string(), "malformed"),
        (Some("call"), json!({ "type": "leave", "member": member }).to_string(), "malformed"),
        (Some("call"), view(12_345, "0"), "unknown_reference"),
        (Some("another-meeting"), view(member, "0"), "unknown_reference"),
        (None, json!({ "type": "leave" }).to_string(), "not_joined"),
        (
            None,
            json!({ "type": "hello", "versions": [1], "token": "forged", "name": "" }).to_string(),
            "invalid_token",
        ),
    ];
    for (hello, text, code) in cases {
        let start: String = text.chars().take(80).collect();
        assert_eq!(error_for(port, hello, text).await["code"], code, "{start}");
    }
    call.flows().await;
    let count = || call.ana.seen().members.len();
    // The visitors vanished without a word; their memberships are kept for a while, as anyone's.
    assert!(count() >= 2);
    assert!(call.ana.seen().transport_changes == 1 && call.berta.seen().transport_changes == 1);
    assert!(call.ana.seen().longest_gap(2, call.since) < PAUSE_MAX);
    call.bridge.stop().await;
}
