//! A bot's life: its socket, its transports, its media and what it is told to do, one after the other.

use super::door::{self, Socket, connect_to, greet, next, opened, token_of};
use super::line::Line;
use super::seen::Seen;
use super::wire::{of_streams, through};
use super::{BotConfig, Loss, Order, PATIENCE};
use crate::peer::PeerEvent;
use futures_util::SinkExt;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Received packets that are written down one by one; later ones are counted only.
const RECEIVED_MAX: usize = 200_000;

/// An Opus packet's duration.
const AUDIO_EVERY: Duration = Duration::from_millis(20);

/// How long a bot waits before it tries to connect once more. One that plays many people would double it each time.
const RETRY: Duration = Duration::from_millis(100);

/// How long the earlier transport goes on once the one in its place is up, for those who have not moved yet.
const OVERLAP: Duration = Duration::from_secs(2);

/// Sent datagrams that are kept for tests that repeat or damage them.
const SENT_MAX: usize = 512;

pub(super) struct Runner {
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

impl Runner {
    /// Joins; returns once the bridge has answered the offer.
    pub(super) async fn join(config: BotConfig) -> anyhow::Result<(Self, Arc<Mutex<Seen>>, Arc<Notify>)> {
        let mut socket = connect_to(config.bridge()).await?;
        let token = token_of(config.bridge(), &config.meeting).await?;
        door::say(
            &mut socket,
            &json!({ "type": "hello", "versions": [1], "token": token, "name": config.name }),
        )
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
        Ok((runner, seen, news))
    }

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

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
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
            Some(socket) => door::say(socket, message).await,
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
            Order::Rtcp(compounds) => {
                let path = self.seen().path;
                for compound in compounds {
                    if let (Some((_, server)), Some(sealed)) = (path, self.line.peer.seal_rtcp(&compound)) {
                        self.line.wire.send(&sealed, server).await?;
                    }
                }
            }
            Order::Write(bytes) => self.line.wire.write(&bytes).await?,
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
