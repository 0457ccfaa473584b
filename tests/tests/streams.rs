//! Streams that say nothing, half of something or a lie, on the port that carries everything: what they can take is
//! bounded and counted, and the people in the meeting miss no packet of each other's voices.

use asamblea::crowd::{ConnectionStats, HALF_OPEN_OF_LINE_MAX};
use asamblea::{Bridge, Config};
use asamblea_tests::bot::{Bot, BotConfig, PATIENCE};
use asamblea_tests::turn::Way;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How a stream carries someone's media.
#[derive(Clone, Copy)]
enum Over {
    Udp,
    Frames,
    Relay(Way),
}

/// Four people who have met over UDP, ICE-TCP and the relay.
struct Meeting {
    bridge: Bridge,
    /// The first two have UDP.
    people: Vec<Bot>,
    since: Instant,
}

async fn join(bridge: &Bridge, number: u32, over: Over) -> Bot {
    let config = BotConfig::new(bridge.port(), "streams", number);
    let config = match over {
        Over::Udp => config,
        Over::Frames => BotConfig { over_tcp: true, ..config },
        Over::Relay(way) => BotConfig { relayed: Some(way), ..config },
    };
    Bot::join(config).await.expect("the bridge lets it in")
}

impl Meeting {
    async fn start() -> Self {
        let bridge = Bridge::start(Config { port: 0, ..Config::default() }).await.expect("the bridge starts");
        let mut people = Vec::new();
        for over in [Over::Udp, Over::Udp, Over::Frames, Over::Relay(Way::Tcp)] {
            people.push(join(&bridge, people.len() as u32 + 1, over).await);
        }
        for (place, bot) in people.iter().enumerate() {
            for other in (0..people.len()).filter(|other| *other != place) {
                bot.until_flowing(other as u32 + 1).await;
            }
        }
        Self { bridge, people, since: Instant::now() }
    }

    /// Waits until what is counted of connections is as it should be.
    async fn until(&self, what: &str, holds: impl Fn(ConnectionStats) -> bool) {
        let waiting = async {
            while !holds(self.bridge.connections()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}: {:?}", self.bridge.connections());
    }

    /// These go on hearing each other, and have missed no packet of each other's voices all the time.
    async fn misses_nothing(&self, places: &[usize]) {
        for &place in places {
            let bot = &self.people[place];
            for &other in places.iter().filter(|other| **other != place) {
                let other = other as u32 + 1;
                let before = bot.seen().counts[&(other, 0)];
                bot.until("a voice that goes on", |seen| seen.counts[&(other, 0)] > before + 50).await;
                let seen = bot.seen();
                let is_voice = |(at, it): &&(Instant, asamblea_tests::peer::Received)| {
                    it.stamp.sender == other && it.stamp.kind == 0 && *at >= self.since
                };
                let frames: BTreeSet<u32> =
                    seen.received.iter().filter(is_voice).map(|(_, it)| it.stamp.frame).collect();
                let (first, last) = (frames.first().expect("a voice"), frames.last().expect("a voice"));
                assert_eq!(frames.len() as u32, last - first + 1, "person {} of {other}", place + 1);
                assert!(seen.is_connected && !seen.is_over && seen.transport_changes == 1);
            }
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.bridge.port())).await.expect("accepted")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_half_open_streams_take_a_bounded_place_and_leave_the_door_open() {
    let meeting = Meeting::start().await;
    let hello = {
        // The head of a TLS record and of a ClientHello (RFC 8446 section 4), and no more.
        let mut bytes = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        bytes.extend([7; 40]);
        bytes
    };
    let halves: [&[u8]; 6] = [&[], &[0], &[0, 100, 1, 2, 3], &[0, 3, 0], &[0x16], &hello];
    let mut held = Vec::new();
    for number in 0..1_000 {
        let mut stream = meeting.connect().await;
        // One that was crowded out meanwhile takes no more.
        let _ = stream.write_all(halves[number % halves.len()]).await;
        held.push(stream);
    }
    let too_many = 1_000 - HALF_OPEN_OF_LINE_MAX;
    let is_full = |stats: ConnectionStats| {
        (stats.half_open, stats.crowded_out) == (HALF_OPEN_OF_LINE_MAX, too_many as u64)
    };
    meeting.until("as many as one line may have", is_full).await;
    for mut oldest in held.drain(..too_many) {
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, oldest.read_to_end(&mut answer)).await.expect("cut at once");
        assert_eq!(answer, [0; 0]);
    }
    // Whoever has something to say is let in, from the same address and in every way.
    let tls = Over::Relay(Way::Tls { is_named: false });
    for (number, over) in [(11, Over::Udp), (12, Over::Frames), (13, Over::Relay(Way::Tcp)), (14, tls)] {
        let newcomer = join(&meeting.bridge, number, over).await;
        newcomer.until_flowing(1).await;
        newcomer.leave().await;
    }
    meeting.misses_nothing(&[0, 1, 2, 3]).await;
    // They are cut by themselves in the end.
    meeting.until("silence has an end", |stats| stats.half_open == 0).await;
    let stats = meeting.bridge.connections();
    // The newcomers made some more room for themselves.
    let cut = stats.silent as usize + stats.crowded_out as usize;
    assert_eq!((cut, stats.senseless, stats.unknown), (1_000, 0, 0), "{stats:?}");
    meeting.bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_length_before_anyone_is_known_are_cut_and_counted() {
    let meeting = Meeting::start().await;
    let allocate =
        [&[0x00, 0x03, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12], &[0x00, 0x19, 0, 4, 17, 0, 0, 0]]
            .concat();
    let senseless: [&[u8]; 6] = [
        // An empty frame, one that is longer than any.
        &[0, 0],
        &[5, 0xdd, 1, 2],
        // A message of the relay that is no multiple of four, and one that is longer than any.
        &[0x00, 0x03, 0, 7, 1, 2, 3, 4],
        &[0x00, 0x03, 0xff, 0xfc, 1, 2, 3, 4],
        // After a first one that is well-formed: what nothing begins with.
        &[&allocate[..], &[0x80; 8]].concat(),
        // TLS that is none.
        &[0x16, 0xff, 0xff, 0xff, 0xff, 1, 2, 3],
    ];
    for lie in senseless {
        for _ in 0..50 {
            let mut stream = meeting.connect().await;
            let _ = stream.write_all(lie).await;
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("cut at once");
            assert!(answer.len() <= 52, "{} bytes for {lie:?}", answer.len());
        }
    }
    // A frame as long as it says, from nobody.
    for _ in 0..50 {
        let mut stream = meeting.connect().await;
        stream.write_all(&[&[0, 200][..], &[0xab; 200]].concat()).await.expect("sent");
        let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("cut at once");
    }
    meeting.until("each is counted", |stats| stats.senseless == 300 && stats.unknown == 50).await;
    meeting.misses_nothing(&[0, 1, 2, 3]).await;
    meeting.bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_stream_lies_loses_that_stream_and_nobody_else_anything() {
    let meeting = Meeting::start().await;
    let (frames, relayed) = (&meeting.people[2], &meeting.people[3]);
    // What is well-formed and means nothing is dropped; who sends it goes on.
    for number in 0..500_u16 {
        let junk = [&[0, 40][..], &[0xab; 40]].concat();
        frames.write(junk);
        // A channel that nobody has bound, and a Send indication whose DATA is longer than itself.
        let channel = [&[0x4a, 1, 0, 8][..], &[7; 8]].concat();
        let mut indication = vec![0x00, 0x16, 0, 8, 0x21, 0x12, 0xa4, 0x42];
        indication.extend([7; 10]);
        indication.extend(number.to_be_bytes());
        indication.extend([0x00, 0x13, 0x05, 0xdc, 1, 2, 3, 4]);
        relayed.write([channel, indication].concat());
    }
    meeting.misses_nothing(&[0, 1]).await;
    for liar in [frames, relayed] {
        let before = liar.seen().counts[&(1, 0)];
        liar.until("a voice that goes on", |seen| seen.counts[&(1, 0)] > before + 50).await;
    }
    assert_eq!(meeting.bridge.connections().senseless, 0);
    // Where nobody can tell any more where one ends and the next begins the stream is cut.
    frames.write(vec![0xff, 0xff, 1, 2, 3]);
    relayed.write(vec![0xc0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    meeting.until("both are cut", |stats| stats.senseless == 2).await;
    meeting.misses_nothing(&[0, 1]).await;
    meeting.bridge.stop().await;
}
