//! A witness of a load test (`--witness target/release/examples/str0m-witness`): a client on str0m, which shares no code
//! with the bots or the bridge, watches one publisher and says what came. See `loadtest/src/run/witness.rs`.

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// Longest answer to a request for a token.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;
/// How long the bridge may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How often the signaling socket is looked at: the bridge's pings may wait so long.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a packet may come late and still be seen.
const LATE: Duration = Duration::from_secs(1);
/// The publisher's picture, whatever its height: the bridge sends the tallest layer there is.
const HEIGHT_PX: u32 = 720;
/// As `loadtest/src/traffic/stamp.rs` writes them, at the end of each payload.
const STAMP_BYTES: usize = 20;

fn main() -> anyhow::Result<()> {
    let server: SocketAddr = setting("LOADTEST_SERVER")?.parse()?;
    let room = setting("LOADTEST_ROOM")?;
    let member: u64 = setting("LOADTEST_MEMBER")?.parse()?;
    let epoch = UNIX_EPOCH + Duration::from_micros(setting("LOADTEST_EPOCH_US")?.parse()?);
    let (from_ns, to_ns) = (setting("LOADTEST_FROM_NS")?.parse()?, setting("LOADTEST_TO_NS")?.parse()?);
    let mut books =
        Books { epoch, window: (from_ns, to_ns), seen: BTreeSet::new(), late: Histogram::new(3)? };
    let socket = UdpSocket::bind((server.ip(), 0))?;
    let mut rtc = Rtc::builder().clear_codecs().enable_vp8(true).set_rtp_mode(true).build(Instant::now());
    rtc.add_local_candidate(Candidate::host(socket.local_addr()?, "udp")?);
    let mut signaling = join(server, &room, member, &mut rtc)?;
    watch(&mut rtc, &socket, &mut signaling, &mut books)?;
    println!("witness {}", books.testimony());
    Ok(())
}

fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: the load tester's --witness starts this"))
}

/// Comes into the meeting and asks for the publisher's picture.
fn join(server: SocketAddr, room: &str, member: u64, rtc: &mut Rtc) -> anyhow::Result<WebSocket<TcpStream>> {
    let token = token(server, room)?;
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let (mut socket, _) = client(format!("ws://localhost:{}/api/socket", server.port()), stream)?;
    say(&mut socket, &json!({ "type": "hello", "versions": [1], "token": token, "name": "" }))?;
    hear(&mut socket, "welcome")?;
    let mut changes = rtc.sdp_api();
    let mid = changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    let (offer, pending) = changes.apply().context("something to offer")?;
    say(&mut socket, &json!({ "type": "offer", "revision": 1, "sdp": offer.to_sdp_string(), "ups": [] }))?;
    let answer = hear(&mut socket, "answer")?;
    let answer = answer["sdp"].as_str().context("an answer has a description")?;
    rtc.sdp_api().accept_answer(pending, str0m::change::SdpAnswer::from_sdp_string(answer)?)?;
    let slot = json!({
        "mid": mid.to_string(), "up": { "peer": member, "kind": "camera" }, "height_px": HEIGHT_PX,
    });
    say(&mut socket, &json!({ "type": "view", "slots": [slot] }))?;
    socket.get_ref().set_nonblocking(true)?;
    Ok(socket)
}

fn token(server: SocketAddr, room: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    write!(
        stream,
        "POST /api/meetings/{room}/token HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n",
        server.port()
    )?;
    let mut answer = String::new();
    stream.take(TOKEN_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a whole answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "no token: {head}");
    let body: Value = serde_json::from_str(body)?;
    Ok(body["token"].as_str().context("a token")?.to_owned())
}

fn say(socket: &mut WebSocket<TcpStream>, message: &Value) -> anyhow::Result<()> {
    Ok(socket.send(Message::text(message.to_string()))?)
}

fn hear(socket: &mut WebSocket<TcpStream>, kind: &str) -> anyhow::Result<Value> {
    loop {
        let message: Value = serde_json::from_str(socket.read()?.to_text()?)?;
        match message["type"].as_str() {
            Some(found) if found == kind => return Ok(message),
            Some("error" | "bye") => bail!("the bridge says {message}"),
            _ => {}
        }
    }
}

/// Takes what comes until the window is over.
fn watch(
    rtc: &mut Rtc,
    socket: &UdpSocket,
    signaling: &mut WebSocket<TcpStream>,
    books: &mut Books,
) -> anyhow::Result<()> {
    let local = socket.local_addr()?;
    let end = books.epoch + Duration::from_nanos(books.window.1) + LATE;
    let mut buffer = [0; 2_048];
    let mut look_at = Instant::now();
    while SystemTime::now() < end {
        let wake = loop {
            match rtc.poll_output()? {
                Output::Timeout(wake) => break wake,
                Output::Transmit(it) => {
                    // ICE and DTLS send again what was lost.
                    let _ = socket.send_to(&it.contents, it.destination);
                }
                Output::Event(Event::RtpPacket(packet)) => books.note(&packet.payload),
                Output::Event(_) => {}
            }
        };
        if look_at <= Instant::now() {
            look_at = Instant::now() + LOOK_EVERY;
            answer_pings(signaling)?;
        }
        let rest = wake.min(look_at).saturating_duration_since(Instant::now());
        // Zero would wait without end.
        socket.set_read_timeout(Some(rest.max(Duration::from_micros(100))))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                if let Ok(receive) = Receive::new(Protocol::Udp, source, local, &buffer[..length]) {
                    rtc.handle_input(Input::Receive(Instant::now(), receive))?;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                rtc.handle_input(Input::Timeout(Instant::now()))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn answer_pings(socket: &mut WebSocket<TcpStream>) -> anyhow::Result<()> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text)?;
                match message["type"].as_str() {
                    Some("ping") => say(socket, &json!({ "type": "pong", "nonce": message["nonce"] }))?,
                    Some("error" | "bye") => bail!("the bridge says {message}"),
                    _ => {}
                }
            }
            Ok(_) => {}
            Err(tokio_tungstenite::tungstenite::Error::Io(error))
                if error.kind() == ErrorKind::WouldBlock =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What came.
struct Books {
    epoch: SystemTime,
    /// Due times that count, in ns since the epoch.
    window: (u64, u64),
    /// Counters of packets that were due in it.
    seen: BTreeSet<u32>,
    /// From due to arrival, in µs.
    late: Histogram<u64>,
}

impl Books {
    fn note(&mut self, payload: &[u8]) {
        let now_ns = self.epoch.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let Some(stamp) = payload.last_chunk::<STAMP_BYTES>().filter(|stamp| stamp.starts_with(b"LT")) else {
            return;
        };
        let [_, _, _, _, _, _, _, _, c3, c2, c1, c0, due @ ..] = *stamp;
        let due_ns = u64::from_be_bytes(due);
        if (self.window.0..self.window.1).contains(&due_ns)
            && self.seen.insert(u32::from_be_bytes([c3, c2, c1, c0]))
        {
            self.late.saturating_record(now_ns.saturating_sub(due_ns) / 1_000);
        }
    }

    /// A stream's counters have no gaps, so what lies between the first and the last and was not seen is lost.
    fn testimony(&self) -> Value {
        let span = match (self.seen.first(), self.seen.last()) {
            (Some(first), Some(last)) => u64::from(last - first) + 1,
            _ => 0,
        };
        let packets = self.seen.len() as u64;
        let ms = |share| self.late.value_at_quantile(share) as f64 / 1e3;
        json!({
            "name": "str0m 0.25", "packets": packets, "lost": span - packets, "latency_ms": [ms(0.5), ms(0.99)],
        })
    }
}
