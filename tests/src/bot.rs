//! A participant without a browser: [`crate::peer::Peer`] over a real socket, with the signaling protocol.
//!
//! Written from `docs/protocol.md`: messages are read and written as plain JSON, without the bridge's types. A bot
//! runs as a task of its own, sends stamped media while it is told to, shows whoever is there and writes down what
//! it gets.

use crate::peer::{Peer, PeerEvent, Received};
use crate::turn::{RelayCredentials, Relayed, Way};
use asamblea_seam::UpKind;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Nothing that is waited for on one machine takes longer, however busy it is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Received packets that are written down one by one; later ones are counted only.
const RECEIVED_MAX: usize = 200_000;

/// An Opus packet's duration.
const AUDIO_EVERY: Duration = Duration::from_millis(20);

/// How long a bot waits before it tries to connect once more. One that plays many people would double it each time.
const RETRY: Duration = Duration::from_millis(100);

/// How long the earlier transport goes on once the one in its place is up, for those who have not moved yet.
const OVERLAP: Duration = Duration::from_secs(2);

/// Audio packets between two video frames: about 16 frames a second.
const AUDIO_PER_FRAME: u64 = 3;

/// Packets a frame has on each simulcast layer, and their bytes.
const LAYERS: [(u8, usize); 3] = [(1, 400), (2, 700), (4, 900)];

/// How a bot takes part.
#[derive(Clone, Debug)]
pub struct BotConfig {
    /// The bridge's port on this machine.
    pub port: u16,
    /// The meeting's name.
    pub meeting: String,
    /// The name to show.
    pub name: String,
    /// Stamps the bot's media; the tests' own numbering.
    pub number: u32,
    /// The level of its voice in -dBov, 0 loudest to 127, or no microphone.
    pub voice_dbov: Option<u8>,
    /// Whether its camera is on.
    pub camera: bool,
    /// Receive slots to offer: audio and video.
    pub slots: (usize, usize),
    /// The height at which it shows the others, in pixels.
    pub height_px: u16,
    /// Where on this machine its media goes instead of to the bridge: an emulator's port.
    pub media_port: Option<u16>,
    /// Whether its media travels over TCP (RFC 6544), UDP being blocked.
    pub over_tcp: bool,
    /// How its media reaches the bridge's relay (RFC 8656), if it goes through that.
    pub relayed: Option<Way>,
    /// Whether it shakes hands once a path is there; one that does not never has media.
    pub shakes_hands: bool,
    /// Whether it comes back when its socket ends: after a fault, and when the bridge moves.
    pub returns: bool,
}

impl BotConfig {
    /// Someone who talks and shows their face.
    pub fn new(port: u16, meeting: &str, number: u32) -> Self {
        Self {
            port,
            meeting: meeting.into(),
            name: format!("Bot {number}"),
            number,
            voice_dbov: Some(30),
            camera: true,
            slots: (3, 4),
            height_px: 720,
            media_port: None,
            over_tcp: false,
            relayed: None,
            shakes_hands: true,
            returns: false,
        }
    }
}

/// Which incoming datagrams a bot loses before its media side sees them.
pub type Loss = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// What a bot is told to do.
enum Order {
    Voice(Option<u8>),
    Camera(bool),
    Say(String),
    Lose(Loss),
    Inject(Vec<u8>),
    Leave,
}

/// What a bot has seen so far.
#[derive(Default)]
pub struct Seen {
    /// Its own member id.
    pub member: u64,
    /// How often it was welcomed, and whether the last time as the same membership with its media.
    pub welcomes: usize,
    /// See `welcomes`.
    pub is_resumed: bool,
    /// How often a fresh resume token came.
    pub renewals: usize,
    /// Why the bridge ended sockets, in order.
    pub byes: Vec<String>,
    /// Whether its media transport is up.
    pub is_connected: bool,
    /// How often the transport came up and went down.
    pub transport_changes: usize,
    /// Everyone in the meeting as the bridge told it last, by member id.
    pub members: BTreeMap<u64, Value>,
    /// What its slots carry by mid: a member and a kind.
    pub slots: BTreeMap<String, Option<(u64, String)>>,
    /// The mids of slots whose picture is held back.
    pub paused: BTreeSet<String>,
    /// Stamped packets, in order of arrival.
    pub received: Vec<(Instant, Received)>,
    /// Stamped packets by sender and kind (0 microphone, 1 camera, 2 screen).
    pub counts: BTreeMap<(u32, u8), u64>,
    /// Error codes the bridge answered with, in order.
    pub errors: Vec<String>,
    /// Key frames that were asked of it.
    pub key_frames_wanted: usize,
    /// The media line to the bridge: where from and where to.
    pub path: Option<(SocketAddr, SocketAddr)>,
    /// The newest datagrams that it sent to the bridge, oldest first.
    pub sent: std::collections::VecDeque<Vec<u8>>,
    /// The newest answer.
    pub answer: String,
    /// Whether the socket has ended.
    pub is_over: bool,
}

/// Sent datagrams that are kept for tests that repeat or damage them.
const SENT_MAX: usize = 512;

impl Seen {
    /// Numbers of the senders whose voice came.
    pub fn heard(&self) -> BTreeSet<u32> {
        self.counts.keys().filter(|(_, kind)| *kind == 0).map(|(sender, _)| *sender).collect()
    }

    /// Numbers of the senders whose camera came.
    pub fn seen(&self) -> BTreeSet<u32> {
        self.counts.keys().filter(|(_, kind)| *kind == 1).map(|(sender, _)| *sender).collect()
    }

    /// When the first packet of a kind (0 microphone, 1 camera) of one sender came after a moment.
    pub fn first_after(&self, sender: u32, kind: u8, after: Instant) -> Option<Instant> {
        let is_it = |(at, packet): &&(Instant, Received)| {
            packet.stamp.sender == sender && packet.stamp.kind == kind && *at > after
        };
        self.received.iter().find(is_it).map(|(at, _)| *at)
    }

    /// The longest time without a packet of one voice since a moment, up to now.
    pub fn longest_gap(&self, sender: u32, since: Instant) -> Duration {
        let times = self
            .received
            .iter()
            .filter(|(at, packet)| packet.stamp.sender == sender && packet.stamp.kind == 0 && *at >= since)
            .map(|(at, _)| *at);
        let mut last = since;
        let mut longest = Duration::ZERO;
        for at in times.chain([Instant::now()]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}

/// See the module.
pub struct Bot {
    seen: Arc<Mutex<Seen>>,
    news: Arc<Notify>,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Bot {
    /// Joins a meeting; returns once the bridge has answered the offer.
    ///
    /// # Errors
    /// What the network or the bridge said instead.
    pub async fn join(config: BotConfig) -> anyhow::Result<Self> {
        let mut socket = connect(config.port).await?;
        let token = token(config.port, &config.meeting).await?;
        say(&mut socket, &json!({ "type": "hello", "versions": [1], "token": token, "name": config.name }))
            .await?;
        let line = Line::new(&config).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut runner = Runner {
            publish: Vec::new(),
            config,
            line,
            earlier: None,
            earlier_ends: None,
            socket: Some(socket),
            opening: None,
            resume: String::new(),
            seen: Arc::clone(&seen),
            news: Arc::new(Notify::new()),
            loss: None,
            ticks: 0,
        };
        let news = Arc::clone(&runner.news);
        runner.expect("welcome").await?;
        runner.expect("answer").await?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(runner.run(inbox));
        Ok(Self { seen, news, orders, task })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something holds of what it has seen.
    ///
    /// # Panics
    /// When it does not come to hold within [`PATIENCE`].
    pub async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let waiting = async {
            loop {
                let news = self.news.notified();
                if holds(&self.seen()) {
                    return;
                }
                news.await;
            }
        };
        let name = self.seen().member;
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "member {name:x} waited in vain: {what}");
    }

    /// Waits until enough of another's voice and picture has come to call them flowing.
    ///
    /// # Panics
    /// As [`Bot::until`].
    pub async fn until_flowing(&self, other: u32) {
        for (kind, what) in [(0, "voice"), (1, "picture")] {
            let what = format!("the {what} of {other}");
            self.until(&what, |seen| seen.counts.get(&(other, kind)) > Some(&25)).await;
        }
    }

    /// Speaks at this level, or not at all.
    pub fn voice(&self, dbov: Option<u8>) {
        self.order(Order::Voice(dbov));
    }

    /// Turns the camera on or off.
    pub fn camera(&self, on: bool) {
        self.order(Order::Camera(on));
    }

    /// Sends a text over the signaling socket as it is.
    pub fn say(&self, text: impl Into<String>) {
        self.order(Order::Say(text.into()));
    }

    /// From now on loses the incoming datagrams for which `loss` says so.
    pub fn lose(&self, loss: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.order(Order::Lose(Box::new(loss)));
    }

    /// Sends a datagram from its own media address.
    pub fn inject(&self, datagram: Vec<u8>) {
        self.order(Order::Inject(datagram));
    }

    /// Leaves the meeting and waits for the end.
    pub async fn leave(self) {
        self.order(Order::Leave);
        let _ = timeout(PATIENCE, self.task).await;
    }

    /// Is gone without a word, as when a machine loses its power.
    pub fn vanish(self) {
        self.task.abort();
    }

    fn order(&self, order: Order) {
        // A bot whose socket ended takes no orders; the test sees `is_over`.
        let _ = self.orders.send(order);
    }
}

/// What carries a bot's datagrams.
enum Wire {
    Udp(UdpSocket),
    /// Frames of RFC 4571 on one connection.
    Stream {
        server: SocketAddr,
        local: SocketAddr,
        write: OwnedWriteHalf,
        inbox: mpsc::Receiver<Vec<u8>>,
    },
    /// Through an allocation of the bridge's relay.
    Relayed(Box<Relayed>),
}

impl Wire {
    async fn stream(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (server, local) = (stream.peer_addr()?, stream.local_addr()?);
        let (mut read, write) = stream.into_split();
        let (sender, inbox) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(length) = read.read_u16().await {
                let mut frame = vec![0; usize::from(length)];
                if read.read_exact(&mut frame).await.is_err() || sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self::Stream { server, local, write, inbox })
    }

    fn local(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Udp(udp) => udp.local_addr(),
            Self::Stream { local, .. } => Ok(*local),
            Self::Relayed(relayed) => Ok(relayed.relayed()),
        }
    }

    /// May be cancelled without loss.
    async fn receive(&mut self, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
        match self {
            Self::Udp(udp) => udp.recv_from(buffer).await,
            Self::Stream { server, inbox, .. } => match inbox.recv().await {
                Some(frame) if frame.len() <= buffer.len() => {
                    buffer[..frame.len()].copy_from_slice(&frame);
                    Ok((frame.len(), *server))
                }
                Some(_) => Err(std::io::ErrorKind::InvalidData.into()),
                None => std::future::pending().await,
            },
            Self::Relayed(relayed) => relayed.receive(buffer).await,
        }
    }

    async fn send(&mut self, datagram: &[u8], to: SocketAddr) -> std::io::Result<()> {
        match self {
            Self::Udp(udp) => udp.send_to(datagram, to).await.map(|_| ()),
            Self::Stream { server, write, .. } if to == *server => {
                let length = (datagram.len() as u16).to_be_bytes();
                write.write_all(&[&length, datagram].concat()).await
            }
            Self::Stream { .. } => Err(std::io::ErrorKind::AddrNotAvailable.into()),
            Self::Relayed(relayed) => relayed.send(datagram, to).map_err(std::io::Error::other),
        }
    }
}

/// An answer with its TCP candidates alone. They are shown to the media side as its own kind, since it only sees
/// datagrams: framing them is the wire's business.
fn of_streams(sdp: &str) -> String {
    let lines = sdp.split_inclusive("\r\n").filter(|line| !line.contains(" udp "));
    lines.map(|line| line.replace(" tcp ", " udp ").replace(" tcptype passive", "")).collect()
}

/// An answer whose only way to the bridge is this port of this machine.
fn through(sdp: &str, port: u16) -> String {
    let mut is_first = true;
    let detour = |line: &str| match line.starts_with("a=candidate:") {
        false => Some(line.to_owned()),
        true if line.contains(" udp ") && std::mem::take(&mut is_first) => {
            let mut words: Vec<&str> = line.split(' ').collect();
            let port = port.to_string();
            (words[4], words[5]) = ("127.0.0.1", &port);
            Some(words.join(" "))
        }
        true => None,
    };
    sdp.split_inclusive("\r\n").filter_map(detour).collect()
}

type Socket = WebSocketStream<TcpStream>;

struct Runner {
    config: BotConfig,
    line: Line,
    /// The transport to a bridge that makes place for another.
    earlier: Option<Line>,
    earlier_ends: Option<Instant>,
    socket: Option<Socket>,
    /// The next socket, on which `hello` was said.
    opening: Option<JoinHandle<Socket>>,
    /// The newest resume token.
    resume: String,
    seen: Arc<Mutex<Seen>>,
    news: Arc<Notify>,
    loss: Option<Loss>,
    ticks: u64,
    publish: Vec<Value>,
}

/// One transport to the bridge.
struct Line {
    peer: Peer,
    wire: Wire,
    is_up: bool,
    needs_key: [bool; 3],
}

impl Line {
    async fn new(config: &BotConfig) -> anyhow::Result<Self> {
        let wire = match (config.relayed, config.over_tcp) {
            (Some(way), _) => {
                let credentials = relay_credentials(config.port, &config.meeting).await?;
                Wire::Relayed(Box::new(Relayed::allocate(config.port, way, credentials).await?))
            }
            (None, false) => Wire::Udp(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?),
            (None, true) => Wire::stream(config.port).await?,
        };
        let peer = Peer::new(Instant::now(), config.number, wire.local()?);
        Ok(Self { peer, wire, is_up: false, needs_key: [true; 3] })
    }

    /// What comes next; nothing ever where there is no line.
    async fn receive(line: Option<&mut Self>, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
        match line {
            Some(line) => line.wire.receive(buffer).await,
            None => std::future::pending().await,
        }
    }

    fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8]) {
        if let Ok(local) = self.wire.local() {
            self.peer.handle_datagram(Instant::now(), source, local, datagram);
        }
    }

    fn send_media(&mut self, config: &BotConfig, ticks: u64) {
        let now = Instant::now();
        if let Some(level) = config.voice_dbov {
            self.peer.send_audio(now, level);
        }
        if config.camera && ticks.is_multiple_of(AUDIO_PER_FRAME) {
            for (layer, (packets, bytes)) in LAYERS.into_iter().enumerate() {
                let is_key = std::mem::take(&mut self.needs_key[layer]);
                self.peer.send_video(now, UpKind::Camera, layer, is_key, packets, bytes);
            }
        }
    }
}

impl Runner {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn expect(&mut self, kind: &str) -> anyhow::Result<()> {
        timeout(PATIENCE, async {
            loop {
                let Some(message) = next(&mut self.socket).await else { anyhow::bail!("the socket ended") };
                let message: Value = serde_json::from_str(message?.to_text()?)?;
                self.handle_message(&message).await?;
                if message["type"] == kind {
                    return Ok(());
                }
                anyhow::ensure!(message["type"] != "error", "the bridge refused: {message}");
            }
        })
        .await?
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut ticker = tokio::time::interval(AUDIO_EVERY);
        // A machine that was busy sends late rather than all at once.
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; 2_048];
        let mut earlier_buffer = vec![0; 2_048];
        loop {
            self.flush().await;
            self.news.notify_waiters();
            let earlier_wake = self.earlier.as_ref().map(|line| line.peer.poll_timeout());
            let wakes = [Some(self.line.peer.poll_timeout()), earlier_wake, self.earlier_ends];
            let wake = wakes.into_iter().flatten().min().expect("the first is there");
            tokio::select! {
                message = next(&mut self.socket) => {
                    let Some(Ok(message)) = message else {
                        if !self.config.returns {
                            break;
                        }
                        self.come_back();
                        continue;
                    };
                    let Ok(text) = message.to_text() else { continue };
                    let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
                    if self.handle_message(&value).await.is_err() {
                        break;
                    }
                }
                socket = opened(&mut self.opening) => {
                    self.opening = None;
                    self.socket = Some(socket);
                }
                datagram = self.line.wire.receive(&mut buffer) => {
                    // A closed port on the other side is told here; the media side notices by itself.
                    let Ok((bytes, source)) = datagram else { continue };
                    let loses = |loss: &mut Loss| loss(&buffer[..bytes]);
                    if !self.loss.as_mut().is_some_and(loses) {
                        self.line.handle_datagram(source, &buffer[..bytes]);
                    }
                }
                datagram = Line::receive(self.earlier.as_mut(), &mut earlier_buffer) => {
                    if let (Ok((bytes, source)), Some(line)) = (datagram, &mut self.earlier) {
                        line.handle_datagram(source, &earlier_buffer[..bytes]);
                    }
                }
                _ = ticker.tick() => self.send_media(),
                () = tokio::time::sleep_until(tokio::time::Instant::from_std(wake)) => self.handle_timeout(),
                order = orders.recv() => {
                    let Some(order) = order else { break };
                    if self.obey(order).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.seen().is_over = true;
        self.news.notify_waiters();
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        self.line.peer.handle_timeout(now);
        if let Some(line) = &mut self.earlier {
            line.peer.handle_timeout(now);
            if self.earlier_ends.is_some_and(|at| at <= now) {
                self.earlier_ends = None;
                line.is_up = false;
                line.peer.close();
            }
        }
    }

    /// Opens another socket for the same membership, in the background: media goes on meanwhile.
    fn come_back(&mut self) {
        self.socket = None;
        let (config, resume) = (self.config.clone(), self.resume.clone());
        self.opening = Some(tokio::spawn(async move {
            loop {
                match greet(&config, &resume).await {
                    Ok(socket) => return socket,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            }
        }));
    }

    /// Offers the line, says what is sent on it.
    async fn offer(&mut self) -> anyhow::Result<()> {
        let (sdp, ups) = self.line.peer.offer(self.config.slots.0, self.config.slots.1);
        let lines: Vec<_> = ups.iter().map(|up| json!({ "mid": up.mid, "kind": up.kind })).collect();
        self.say(&json!({ "type": "offer", "revision": 1, "sdp": sdp, "ups": lines })).await?;
        self.publish().await
    }

    /// Nobody hears it while there is no socket; what counts is said again on the next.
    async fn say(&mut self, message: &Value) -> anyhow::Result<()> {
        match &mut self.socket {
            Some(socket) => say(socket, message).await,
            None => Ok(()),
        }
    }

    async fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Voice(dbov) => {
                self.config.voice_dbov = dbov;
                self.publish().await?;
            }
            Order::Camera(on) => {
                self.config.camera = on;
                self.line.needs_key = [true; 3];
                self.publish().await?;
            }
            Order::Say(text) => {
                if let Some(socket) = &mut self.socket {
                    socket.send(Message::text(text)).await?;
                }
            }
            Order::Lose(loss) => self.loss = Some(loss),
            Order::Inject(datagram) => {
                let path = self.seen().path;
                if let Some((_, server)) = path {
                    self.line.wire.send(&datagram, server).await?;
                }
            }
            Order::Leave => {
                self.config.returns = false;
                self.say(&json!({ "type": "leave" })).await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        self.publish = vec![
            json!({ "kind": "microphone", "active": self.config.voice_dbov.is_some(), "height_px": 0 }),
            json!({ "kind": "camera", "active": self.config.camera, "height_px": 720 }),
        ];
        let message = json!({ "type": "publish", "ups": self.publish });
        self.say(&message).await
    }

    fn send_media(&mut self) {
        self.ticks += 1;
        for line in [Some(&mut self.line), self.earlier.as_mut()].into_iter().flatten() {
            if line.is_up {
                line.send_media(&self.config, self.ticks);
            }
        }
    }

    /// Carries out what the media side wants to send and writes down what happened to it.
    async fn flush(&mut self) {
        self.flush_line().await;
        // As the other one for a moment: what came on either came.
        if let Some(mut earlier) = self.earlier.take() {
            std::mem::swap(&mut earlier, &mut self.line);
            let before = {
                let seen = self.seen();
                (seen.is_connected, seen.transport_changes)
            };
            self.flush_line().await;
            std::mem::swap(&mut earlier, &mut self.line);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.is_connected, seen.transport_changes) = before;
            self.earlier = Some(earlier);
        }
    }

    async fn flush_line(&mut self) {
        let line = &mut self.line;
        while let Some(datagram) = line.peer.poll_datagram() {
            // STUN, DTLS, RTP and RTCP are told apart by their first byte (RFC 7983).
            let first = datagram.contents.first().copied().unwrap_or_default();
            let is_held_back = !self.config.shakes_hands && (20..64).contains(&first);
            // An address that cannot be reached from here is no fault: ICE tries others.
            let is_sent =
                is_held_back || line.wire.send(&datagram.contents, datagram.destination).await.is_ok();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if is_sent && first >= 20 {
                seen.path = Some((datagram.source, datagram.destination));
            }
            if seen.sent.len() == SENT_MAX {
                seen.sent.pop_front();
            }
            seen.sent.push_back(datagram.contents);
        }
        while let Some(event) = line.peer.poll_event() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                PeerEvent::Connected => {
                    line.is_up = true;
                    seen.is_connected = true;
                    seen.transport_changes += 1;
                    self.earlier_ends = self.earlier.as_ref().map(|_| Instant::now() + OVERLAP);
                }
                PeerEvent::Disconnected => {
                    line.is_up = false;
                    seen.is_connected = false;
                    seen.transport_changes += 1;
                }
                PeerEvent::KeyFrameWanted { layer, .. } => {
                    seen.key_frames_wanted += 1;
                    line.needs_key[layer] = true;
                }
                PeerEvent::Received(received) => {
                    *seen.counts.entry((received.stamp.sender, received.stamp.kind)).or_default() += 1;
                    if seen.received.len() < RECEIVED_MAX {
                        seen.received.push((Instant::now(), received));
                    }
                }
            }
        }
    }

    async fn handle_message(&mut self, message: &Value) -> anyhow::Result<()> {
        let kind = message["type"].as_str().unwrap_or_default();
        match kind {
            "welcome" => {
                self.resume = message["resume"].as_str().unwrap_or_default().into();
                let is_resumed = message["resumed"] == true;
                let is_first = {
                    let mut seen = self.seen();
                    seen.welcomes += 1;
                    seen.is_resumed = is_resumed;
                    seen.member = message["member"].as_u64().unwrap_or_default();
                    seen.members.clear();
                    seen.slots.clear();
                    seen.paused.clear();
                    for member in list(&message["members"]) {
                        seen.members.insert(id(&member["id"]), member.clone());
                    }
                    note_slots(&mut seen, &message["slots"]);
                    seen.welcomes == 1
                };
                if !is_resumed {
                    if !is_first {
                        let line = Line::new(&self.config).await?;
                        let earlier = std::mem::replace(&mut self.line, line);
                        let is_moving = self.seen().byes.last().is_some_and(|reason| reason == "moving");
                        self.earlier = is_moving.then_some(earlier);
                        self.seen().is_connected = false;
                    }
                    self.offer().await?;
                }
            }
            "resume" => {
                self.resume = message["token"].as_str().unwrap_or_default().into();
                self.seen().renewals += 1;
            }
            "bye" => {
                let reason = message["reason"].as_str().unwrap_or_default().to_owned();
                self.seen().byes.push(reason);
            }
            "answer" => {
                let sdp = message["sdp"].as_str().unwrap_or_default();
                match (self.config.over_tcp, self.config.media_port) {
                    (true, _) => self.line.peer.accept_answer(&of_streams(sdp))?,
                    (false, Some(port)) => self.line.peer.accept_answer(&through(sdp, port))?,
                    (false, None) => self.line.peer.accept_answer(sdp)?,
                }
                self.line.peer.handle_timeout(Instant::now());
                self.seen().answer = sdp.into();
                self.view().await?;
            }
            "joined" | "changed" => {
                let member = &message["member"];
                self.seen().members.insert(id(&member["id"]), member.clone());
                self.view().await?;
            }
            "left" => {
                self.seen().members.remove(&id(&message["member"]));
                self.view().await?;
            }
            "slots" => note_slots(&mut self.seen(), &message["slots"]),
            "error" => {
                let code = message["code"].as_str().unwrap_or_default().to_owned();
                self.seen().errors.push(code);
            }
            "ping" => self.say(&json!({ "type": "pong", "nonce": message["nonce"] })).await?,
            _ => {}
        }
        Ok(())
    }

    /// Shows the others' cameras, in order of arrival, as far as there are slots.
    async fn view(&mut self) -> anyhow::Result<()> {
        let slots: Vec<Value> = {
            let seen = self.seen();
            let has_camera = |member: &&Value| {
                id(&member["id"]) != seen.member
                    && list(&member["ups"]).iter().any(|up| up["kind"] == "camera" && up["active"] == true)
            };
            let others = seen.members.values().filter(has_camera);
            let wish = |(mid, member): (String, &Value)| {
                json!({
                    "mid": mid,
                    "up": { "peer": member["id"], "kind": "camera" },
                    "height_px": self.config.height_px,
                })
            };
            self.line.peer.video_slots().into_iter().zip(others).map(wish).collect()
        };
        self.say(&json!({ "type": "view", "slots": slots })).await
    }
}

/// What comes next on the socket; nothing ever where there is none.
async fn next(socket: &mut Option<Socket>) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

/// The socket that is being opened, once it is.
async fn opened(opening: &mut Option<JoinHandle<Socket>>) -> Socket {
    match opening {
        Some(opening) => opening.await.expect("opening a socket does not panic"),
        None => std::future::pending().await,
    }
}

/// Opens a socket and says `hello` with a resume token.
async fn greet(config: &BotConfig, resume: &str) -> anyhow::Result<Socket> {
    let token = token(config.port, &config.meeting).await?;
    let mut socket = connect(config.port).await?;
    let hello = json!({
        "type": "hello", "versions": [1], "token": token, "name": config.name, "resume": resume,
    });
    say(&mut socket, &hello).await?;
    Ok(socket)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn id(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn note_slots(seen: &mut Seen, slots: &Value) {
    for slot in list(slots) {
        let up = &slot["up"];
        let carried = up["kind"].as_str().map(|kind| (id(&up["peer"]), kind.to_owned()));
        let mid = slot["mid"].as_str().unwrap_or_default().to_owned();
        match slot["paused"] == true {
            true => seen.paused.insert(mid.clone()),
            false => seen.paused.remove(&mid),
        };
        seen.slots.insert(mid, carried);
    }
}

/// Opens the signaling socket.
///
/// # Errors
/// What the network or the bridge said instead.
pub async fn connect(port: u16) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(client_async(format!("ws://localhost:{port}/api/socket"), stream).await?.0)
}

/// Asks for a join token.
///
/// # Errors
/// What the network or the bridge said instead.
pub async fn token(port: u16, meeting: &str) -> anyhow::Result<String> {
    let body = ask_token(port, meeting).await?;
    Ok(body["token"].as_str().unwrap_or_default().to_owned())
}

/// Asks for credentials of the relay, which come with a token.
///
/// # Errors
/// What the network or the bridge said instead.
pub async fn relay_credentials(port: u16, meeting: &str) -> anyhow::Result<RelayCredentials> {
    let body = ask_token(port, meeting).await?;
    let text = |key: &str| body["relay"][key].as_str().map(str::to_owned);
    match (text("username"), text("credential")) {
        (Some(username), Some(password)) => Ok(RelayCredentials { username, password }),
        _ => anyhow::bail!("the bridge has no relay"),
    }
}

async fn ask_token(port: u16, meeting: &str) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!(
        "POST /api/meetings/{meeting}/token HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut response)).await??;
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no HTTP answer"))?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "no token: {head}");
    Ok(serde_json::from_str(body)?)
}

async fn say(socket: &mut Socket, message: &Value) -> anyhow::Result<()> {
    Ok(socket.send(Message::text(message.to_string())).await?)
}
