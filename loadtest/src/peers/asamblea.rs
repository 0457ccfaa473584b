//! Ours: the bridge's own binary, spoken to as `docs/protocol.md` says. One connection both sends and receives, and
//! the client offers.
//!
//! The sockets of all bots are served by one thread that answers pings; what a bot asks for, it waits for.

use super::{
    ANSWER_LIMIT, FeedId, Negotiate, Peer, Published, Running, START_LIMIT, ServerOptions, Session, Track,
};
use crate::driver::yield_to_driver;
use crate::place::{Place, Process, Scratch};
use crate::traffic::Kind;
use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::time::Instant;
use tokio::net::{TcpSocket, TcpStream as AsyncTcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longest answer to a request for a token.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// Names the binary where it is not beside this program.
const BINARY: &str = "ASAMBLEA_BINARY";

/// Names the other one, to be compared with it.
const OTHER_BINARY: &str = "ASAMBLEA_OTHER_BINARY";

/// The height of a publisher's tallest layer; each smaller one is half as tall as the next.
const HEIGHT_PX: u32 = 720;

/// People in one meeting: as many as the bridge can be told, since rows differ and others have no such bound.
const MEMBERS_MAX: &str = "2000";

/// Audio slots that a bot offers at the most: as many of the loudest are forwarded.
const AUDIO_SLOTS_MAX: usize = 4;

/// What the bridge says that a bot waits for; the rest, a member's every coming and going, is read and dropped.
const AWAITED: [&str; 4] = ["welcome", "answer", "error", "bye"];

/// The bridge.
pub(crate) struct Asamblea {
    /// Whether it is another build of it, as `asamblea-other` in a scenario.
    pub(crate) is_other: bool,
    /// Threads that forward.
    pub(crate) shards: u8,
}

impl Asamblea {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        if self.is_other {
            let named = std::env::var_os(OTHER_BINARY).map(PathBuf::from).unwrap_or_default();
            ensure!(named.is_file(), "{OTHER_BINARY} has to say where the build to compare with is");
            return Ok(named);
        }
        let named = std::env::var_os(BINARY).map(PathBuf::from);
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("asamblea"));
        let path = named.or_else(beside).unwrap_or_default();
        if !path.is_file() {
            bail!(
                "{} is missing: `cargo build --release -p asamblea` makes it, or {BINARY} says where it is",
                path.display()
            );
        }
        Ok(path)
    }
}

impl Peer for Asamblea {
    fn name(&self) -> &'static str {
        match (self.is_other, self.shards) {
            (true, _) => "asamblea-other",
            (false, 1) => "asamblea",
            (false, _) => "asamblea-two",
        }
    }

    fn prepare(&mut self, _may_install: bool) -> anyhow::Result<()> {
        self.binary().map(|_| ())
    }

    fn version(&self) -> anyhow::Result<String> {
        let output = Command::new(self.binary()?).arg("--version").output().context("asamblea --version")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn start(
        &mut self,
        place: &Place,
        core: usize,
        _options: &ServerOptions, // what is offered decides about feedback, and one port is enough
    ) -> anyhow::Result<Box<dyn Running>> {
        let folder = Scratch::new()?;
        let ip = place.server_address();
        let mut command = Command::new(self.binary()?);
        command
            .args(["--port", "0", "--bind", &ip.to_string()])
            // As a rule one thread that forwards, as the others have one worker.
            .args(["--shards", &self.shards.to_string()])
            .args(["--state-dir", "", "--members-max", MEMBERS_MAX]);
        let process = place.spawn(core, command, &folder.path().join("asamblea.log"))?;
        let process = process.with_signaling(|_, thread| !thread.starts_with("media-"));
        let port =
            process.wait_for(START_LIMIT, |line| line.strip_prefix("listening on port ")?.parse().ok())?;
        let server = SocketAddr::new(ip, port);
        Ok(Box::new(Bridge {
            processes: [process],
            server,
            homes: place.homes(),
            sessions: AtomicUsize::new(0),
            sockets: Sockets::start()?,
            _folder: folder,
        }))
    }
}

struct Bridge {
    processes: [Process; 1],
    server: SocketAddr,
    homes: Vec<IpAddr>,
    sessions: AtomicUsize,
    sockets: Sockets,
    _folder: Scratch,
}

impl Running for Bridge {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn address(&self) -> SocketAddr {
        self.server
    }

    fn session(&self) -> anyhow::Result<Box<dyn Session>> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Member {
            server: self.server,
            home: self.homes[number % self.homes.len()],
            runtime: self.sockets.handle.clone(),
            socket: None,
            id: 0,
            revision: 0,
            ups: Vec::new(),
            view: Vec::new(),
        }))
    }
}

/// The thread on which all sockets are served, as long as this lives.
struct Sockets {
    handle: tokio::runtime::Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sockets {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("signaling".into()).spawn(move || {
            yield_to_driver();
            // Whether it is told to end or its owner is gone is the same.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // Nothing is left to do about a thread that panicked.
            let _ = thread.join();
        }
    }
}

/// One bot's membership.
struct Member {
    server: SocketAddr,
    /// Where it connects from: the bridge lets so many come from one address at a time.
    home: IpAddr,
    runtime: tokio::runtime::Handle,
    socket: Option<(mpsc::Sender<Value>, blocking::Receiver<Value>)>,
    id: u64,
    revision: u32,
    /// Line and kind of what it sends, which every offer repeats.
    ups: Vec<(String, &'static str)>,
    /// Its slots, with whom they show and at which height.
    view: Vec<(String, Feed, u32)>,
}

/// What a feed's id is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Feed {
    member: u64,
    kind: String,
    layers: u8,
}

impl Feed {
    fn id(&self) -> FeedId {
        FeedId(format!("{}/{}/{}", self.member, self.kind, self.layers))
    }

    fn of(id: &FeedId) -> anyhow::Result<Self> {
        let parts: Vec<&str> = id.0.split('/').collect();
        let [member, kind, layers] = parts[..] else { bail!("{:?} is no feed of the bridge", id.0) };
        Ok(Self { member: member.parse()?, kind: kind.to_owned(), layers: layers.parse()? })
    }
}

impl Member {
    /// Comes into the room, if it is not there already.
    fn join(&mut self, room: &str) -> anyhow::Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        let token = token(self.home, self.server, room)?;
        let (outbox, orders) = mpsc::channel(16);
        let (news, inbox) = blocking::channel();
        let (home, server) = (self.home, self.server);
        self.runtime.spawn(async move {
            if let Err(error) = serve(home, server, orders, &news).await {
                // Whoever waits hears it; nobody waits when the run is over.
                let _ = news.send(json!({ "type": "bye", "reason": format!("{error:#}") }));
            }
        });
        self.socket = Some((outbox, inbox));
        self.say(json!({ "type": "hello", "versions": [1], "token": token, "name": "" }))?;
        let welcome = self.hear("welcome")?;
        self.id = welcome["member"].as_u64().context("a welcome names the member")?;
        Ok(())
    }

    fn say(&self, message: Value) -> anyhow::Result<()> {
        let (outbox, _) = self.socket.as_ref().context("not joined")?;
        outbox.blocking_send(message).context("the bridge closed the socket")
    }

    fn hear(&self, kind: &str) -> anyhow::Result<Value> {
        let (_, inbox) = self.socket.as_ref().context("not joined")?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let message = inbox.recv_timeout(rest).with_context(|| format!("no {kind} from the bridge"))?;
            match message["type"].as_str() {
                Some(found) if found == kind => return Ok(message),
                Some("error" | "bye") => bail!("the bridge says {message}"),
                _ => {}
            }
        }
    }

    fn offer(&mut self, sdp: &str) -> anyhow::Result<String> {
        self.revision += 1;
        let ups: Vec<Value> =
            self.ups.iter().map(|(mid, kind)| json!({ "mid": mid, "kind": kind })).collect();
        self.say(json!({ "type": "offer", "revision": self.revision, "sdp": sdp, "ups": ups }))?;
        loop {
            let answer = self.hear("answer")?;
            if answer["revision"] == self.revision {
                return Ok(answer["sdp"].as_str().context("an answer has a description")?.to_owned());
            }
        }
    }

    fn say_view(&self) -> anyhow::Result<()> {
        let slot = |(mid, feed, height_px): &(String, Feed, u32)| {
            let up = json!({ "peer": feed.member, "kind": feed.kind });
            json!({ "mid": mid, "up": up, "height_px": height_px })
        };
        self.say(json!({ "type": "view", "slots": self.view.iter().map(slot).collect::<Vec<_>>() }))
    }
}

impl Session for Member {
    fn publish(&mut self, room: &str, offer: &str, tracks: &[Track]) -> anyhow::Result<Published> {
        self.join(room)?;
        let lines = lines(offer);
        ensure!(lines.len() == tracks.len(), "a track for each line");
        let kind = |track: &Track| if track.kind == Kind::Audio { "microphone" } else { "camera" };
        self.ups = lines.iter().zip(tracks).map(|(line, track)| (line.mid.to_owned(), kind(track))).collect();
        let answer = self.offer(offer)?;
        let state = |track: &Track| {
            let height_px = if track.kind == Kind::Video { HEIGHT_PX } else { 0 };
            json!({ "kind": kind(track), "active": track.is_active, "height_px": height_px })
        };
        self.say(json!({ "type": "publish", "ups": tracks.iter().map(state).collect::<Vec<_>>() }))?;
        let feed =
            |track: &Track| Feed { member: self.id, kind: kind(track).to_owned(), layers: track.layers };
        Ok(Published { answer, feeds: tracks.iter().map(|track| feed(track).id()).collect() })
    }

    fn subscribe(&mut self, room: &str, feeds: &[FeedId], bot: &mut dyn Negotiate) -> anyhow::Result<()> {
        self.join(room)?;
        let feeds = feeds.iter().map(Feed::of).collect::<anyhow::Result<Vec<_>>>()?;
        let (cameras, voices): (Vec<Feed>, Vec<Feed>) =
            feeds.into_iter().partition(|feed| feed.kind == "camera");
        let offer = bot.create_offer(voices.len().min(AUDIO_SLOTS_MAX), cameras.len())?;
        let answer = self.offer(&offer)?;
        bot.accept_answer(&answer)?;
        let slots = lines(&offer).into_iter().filter(|line| line.is_video && line.receives);
        self.view = slots.zip(cameras).map(|(line, feed)| (line.mid.to_owned(), feed, HEIGHT_PX)).collect();
        self.say_view()
    }

    fn prefer(&mut self, feed: &FeedId, spatial: u8) -> anyhow::Result<()> {
        let feed = Feed::of(feed)?;
        let slot = self.view.iter_mut().find(|(_, shown, _)| *shown == feed);
        let (_, _, height_px) = slot.context("this feed is not subscribed to")?;
        *height_px = HEIGHT_PX >> feed.layers.saturating_sub(1 + spatial);
        self.say_view()
    }
}

/// One line of an offer.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    mid: &'a str,
    is_video: bool,
    receives: bool,
}

fn lines(offer: &str) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for text in offer.lines() {
        if let Some(media) = text.strip_prefix("m=") {
            lines.push(Line { mid: "", is_video: media.starts_with("video"), receives: false });
        } else if let Some(line) = lines.last_mut() {
            line.mid = text.strip_prefix("a=mid:").unwrap_or(line.mid);
            line.receives |= text == "a=recvonly";
        }
    }
    lines
}

/// Serves one socket until its owner is gone or it ends.
async fn serve(
    home: IpAddr,
    server: SocketAddr,
    mut orders: mpsc::Receiver<Value>,
    news: &blocking::Sender<Value>,
) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((home, 0).into())?;
    let stream = socket.connect(server).await.context("the bridge's port")?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{}/api/socket", host(server)).into_client_request()?;
    // The bridge serves plain HTTP to loopback names and behind a proxy that has done TLS.
    request.headers_mut().insert("X-Forwarded-Proto", "https".parse()?);
    let (mut socket, _): (WebSocketStream<AsyncTcpStream>, _) = client_async(request, stream).await?;
    loop {
        let message = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order,
                None => return Ok(()),
            },
            message = socket.next() => match message.context("the bridge closed the socket")?? {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text)?;
                    match message["type"].as_str().unwrap_or_default() {
                        "ping" => json!({ "type": "pong", "nonce": message["nonce"] }),
                        kind if AWAITED.contains(&kind) => {
                            // Nobody waits any more when the run is over.
                            let _ = news.send(message);
                            continue;
                        }
                        _ => continue,
                    }
                }
                _ => continue,
            },
        };
        socket.send(Message::text(message.to_string())).await?;
    }
}

/// A stream from one of this machine's addresses. It blocks as long as the kernel waits for an answer, which on one
/// machine comes at once or not at all.
fn connect_from(home: IpAddr, server: SocketAddr) -> anyhow::Result<TcpStream> {
    let kind = rustix::net::SocketType::STREAM;
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(rustix::net::AddressFamily::INET, kind, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(home, 0))?;
    rustix::net::connect(&socket, &server)?;
    Ok(TcpStream::from(socket))
}

/// How the bridge is called: loopback by its name, for which it serves plain HTTP.
fn host(server: SocketAddr) -> String {
    match server.ip().is_loopback() {
        true => format!("localhost:{}", server.port()),
        false => server.to_string(),
    }
}

/// Asks for a join token.
fn token(home: IpAddr, server: SocketAddr, room: &str) -> anyhow::Result<String> {
    let mut stream = connect_from(home, server).context("the bridge's port")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let host = host(server);
    write!(
        stream,
        "POST /api/meetings/{room}/token HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(TOKEN_BYTES_MAX).read_to_string(&mut answer).context("a join token")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the bridge's answer was cut short")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "no join token: {}", head.lines().next().unwrap_or_default());
    let body: Value = serde_json::from_str(body).context("a join token")?;
    Ok(body["token"].as_str().context("a join token")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feeds_id_is_read_back_and_another_servers_is_not() {
        let feed = Feed { member: 7, kind: "camera".into(), layers: 3 };
        assert_eq!(Feed::of(&feed.id()).unwrap(), feed);
        assert!(Feed::of(&FeedId("7/camera".into())).is_err());
    }

    #[test]
    fn lines_of_an_offer_are_told_apart() {
        let offer =
            "v=0\r\nm=audio 9 x 111\r\na=mid:0\r\na=sendonly\r\nm=video 9 x 96\r\na=mid:1\r\na=recvonly\r\n";
        let line = |mid, is_video, receives| Line { mid, is_video, receives };
        assert_eq!(lines(offer), [line("0", false, false), line("1", true, true)]);
    }
}
