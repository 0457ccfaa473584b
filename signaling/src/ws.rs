//! One WebSocket: from its first frame to its last. Bounds what a client may send and how slowly it may read;
//! what its messages mean is the room's business.
//!
//! A socket has two lives: at the door, until a valid `hello`, it is on its own; in the meeting its room speaks to
//! it through a bounded queue, and nothing that happens here is ever waited for by the room.
#![allow(clippy::result_large_err, reason = "a refusal is made once a visit, where no size matters")]

use crate::auth::{Claims, is_expired};
use crate::bridge::Shared;
use crate::config::Timing;
use crate::http::Connection;
use crate::protocol::{ClientMessage, ErrorCode, FRAME_BYTES_MAX, ServerMessage, VERSIONS};
use crate::registry::{Hello, Input, LastWord, MeetingName, Outgoing, QUEUE, Service, SocketHandle};
use crate::room::SocketId;
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

/// Most bytes of a frame that are read at all: enough to answer a frame that is somewhat too large with a typed
/// error instead of a cut.
pub const READ_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Bytes that are read at once. The WebSocket layer clears as many each time that it looks for more, which is after every
/// message that it has sent; most of what clients say is shorter.
pub const READ_BYTES: usize = 1024;

/// Bytes of messages that leave together that are gathered before they are written: some twenty people who came. As many are
/// held for each socket from then on.
pub const WRITE_BYTES: usize = 4 * 1024;

/// A longer message leaves in several frames (RFC 6455 section 5.4): the WebSocket layer keeps as much memory as the longest
/// frame took, and whoever comes is told of everyone.
const SENT_FRAME_BYTES_MAX: usize = 2 * 1024;

/// Messages a second on average, and at once. A busy client sends about 10 a second while its layout changes.
const MESSAGES: (u32, u32) = (50, 200);

/// Offers a second on average, and at once: each costs a negotiation.
const OFFERS: (u32, u32) = (2, 20);

/// Errors a second, and at once, that a client is told; the rest are only counted, so that a flood does not fill
/// its own queue.
const ERRORS: (u32, u32) = (5, 20);

/// Refused messages in a row after which a flood is cut off.
const REFUSED_MAX: u32 = 2000;

/// How long is waited for a frame that may have come while the server itself stood still.
const AFTER_SILENCE: Duration = Duration::from_millis(250);

/// How long the last words to a socket may take.
const FAREWELL: Duration = Duration::from_secs(1);

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock>;

type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Drives one socket to its end.
pub(crate) async fn serve(upgraded: Upgraded, connection: Connection, loopback: bool, shared: Arc<Shared>) {
    // Held to the end, so that the bridge can wait for the last words.
    let Ok(_place) = Arc::clone(&shared.places).try_acquire_owned() else { return };
    let config = WebSocketConfig::default()
        .max_message_size(Some(READ_BYTES_MAX))
        .max_frame_size(Some(READ_BYTES_MAX))
        .write_buffer_size(WRITE_BYTES)
        .max_write_buffer_size(4 * FRAME_BYTES_MAX)
        .read_buffer_size(READ_BYTES);
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let mut service = shared.registry.service();
    let mut door = Door { budget: Budget::new(), shared: &shared, loopback };
    let hello = tokio::select! {
        hello = timeout(shared.timing.hello, door.hello(&mut socket)) => hello.unwrap_or_else(|_| {
            Err(Some(fatal(ErrorCode::NotJoined, "hello did not come in time")))
        }),
        last = closed(&mut service) => Err(last),
    };
    let budget = door.budget;
    let entered = hello.and_then(|hello| Visit::enter(hello, &shared, budget).map_err(Some));
    let last = match entered {
        Ok(visit) => visit.run(&mut socket).await,
        Err(last) => last,
    };
    tracing::debug!(secure = connection.secure, "socket ended");
    let farewell = async {
        if let Some(message) = last {
            let _ = send(&mut socket, Outgoing::Text(json(&message.into()))).await;
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        let _ = socket.send(Message::Close(Some(close))).await;
        // Closing with unread bytes would reset the connection and lose the last words on their way.
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// Waits until the server is not there for people any more; returns what to say about it.
async fn closed(service: &mut watch::Receiver<Service>) -> Option<LastWord> {
    // An error means that the bridge is gone, and says it all.
    service.wait_for(|service| *service != Service::Open).await.ok()?.last_word()
}

/// The life of a socket before its `hello`.
struct Door<'a> {
    budget: Budget,
    shared: &'a Shared,
    loopback: bool,
}

/// Enough of a `hello` of any version to see which versions it speaks.
#[derive(Deserialize)]
struct Greeting {
    r#type: String,
    versions: Vec<u16>,
}

impl Door<'_> {
    /// Waits for a valid `hello`. The error is the last thing to say, if anything.
    async fn hello(&mut self, socket: &mut WebSocket) -> Result<Hello, Option<LastWord>> {
        loop {
            let (code, message) = match self.budget.take(socket.next().await) {
                Taken::Message(ClientMessage::Hello { versions, token, name, resume }) => {
                    return self.admit(&versions, &token, name, resume).map_err(Some);
                }
                Taken::Message(_) => return Err(Some(fatal(ErrorCode::NotJoined, "hello comes first"))),
                Taken::Unknown(text) => {
                    if let Ok(greeting) = serde_json::from_str::<Greeting>(&text)
                        && greeting.r#type == "hello"
                    {
                        common_version(&greeting.versions).map_err(Some)?;
                    }
                    (ErrorCode::Malformed, "not a message of this protocol")
                }
                Taken::Refused(code, message) => (code, message),
                Taken::Nothing => continue,
                Taken::Ended(last) => return Err(last),
            };
            if self.budget.may_complain() {
                let error = ServerMessage::Error { code, message: message.into(), fatal: false };
                send(socket, Outgoing::Text(json(&error))).await.map_err(|_| None)?;
            }
        }
    }

    fn admit(
        &self,
        versions: &[u16],
        token: &str,
        name: String,
        resume: Option<String>,
    ) -> Result<Hello, LastWord> {
        let version = common_version(versions)?;
        let Some(Claims::Join { meeting, role, exp }) = self.shared.signer.verify(token) else {
            return Err(fatal(ErrorCode::InvalidToken, "the join token is not genuine"));
        };
        let meeting = MeetingName::new(&meeting)
            .map_err(|_| fatal(ErrorCode::InvalidToken, "the join token names no meeting"))?;
        let expired = is_expired(SystemTime::now(), exp);
        Ok(Hello { version, meeting, role, expired, name, resume, loopback: self.loopback })
    }
}

fn common_version(versions: &[u16]) -> Result<u16, LastWord> {
    VERSIONS
        .iter()
        .rev()
        .find(|version| versions.contains(version))
        .copied()
        .ok_or_else(|| fatal(ErrorCode::UnsupportedVersion, "no protocol version in common"))
}

/// The life of a socket in its meeting.
struct Visit {
    id: SocketId,
    mailbox: mpsc::Sender<Input>,
    outgoing: mpsc::Receiver<Outgoing>,
    /// For this task's own messages. Weak, so that the queue ends with the room.
    queue: mpsc::WeakSender<Outgoing>,
    cut: Arc<Notify>,
    budget: Budget,
    timing: Timing,
}

impl Visit {
    fn enter(hello: Hello, shared: &Shared, budget: Budget) -> Result<Self, LastWord> {
        let id = shared.registry.next_socket();
        let (sender, outgoing) = mpsc::channel(QUEUE);
        let queue = sender.downgrade();
        let cut = Arc::new(Notify::new());
        let handle = SocketHandle { id, queue: sender, cut: Arc::clone(&cut) };
        let mailbox = shared.registry.enter(hello, handle)?;
        Ok(Self { id, mailbox, outgoing, queue, cut, budget, timing: shared.timing })
    }

    /// Serves the socket until either side ends it; what is returned is the last thing to say, if anything.
    async fn run(mut self, socket: &mut WebSocket) -> Option<LastWord> {
        let last = self.converse(socket).await;
        // The room may have ended by itself.
        let _ = self.mailbox.send(Input::Lost(self.id)).await;
        last
    }

    async fn converse(&mut self, socket: &mut WebSocket) -> Option<LastWord> {
        let cut = Arc::clone(&self.cut);
        let too_slow = || Some(fatal(ErrorCode::TooSlow, "messages were not read in time; resume"));
        let mut heard = Instant::now();
        let mut ping_at = heard + self.timing.ping;
        let mut nonce = 0u32;
        // Whether media show that somebody is there: then TCP alone tells when the socket is not.
        let mut is_heard = false;
        loop {
            let frame = tokio::select! {
                () = cut.notified() => return too_slow(),
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(Outgoing::Close) | None => return None,
                    Some(Outgoing::Heard(by_media)) => {
                        is_heard = by_media;
                        heard = Instant::now();
                        continue;
                    }
                    Some(outgoing) => {
                        let patience = if is_heard { Instant::now() } else { heard } + self.timing.silence;
                        // While a reader is slow nothing is read from it either.
                        tokio::select! {
                            biased;
                            sent = send(socket, outgoing) => sent.ok()?,
                            () = cut.notified() => return too_slow(),
                            () = sleep_until(patience) => return None,
                        }
                        continue;
                    }
                },
                () = sleep_until(ping_at), if !is_heard => {
                    ping_at = Instant::now() + self.timing.ping;
                    nonce = nonce.wrapping_add(1);
                    self.say(&ServerMessage::Ping { nonce });
                    continue;
                }
                frame = socket.next() => frame,
                () = sleep_until(heard + self.timing.silence), if !is_heard => {
                    // If it was this machine that stood still, what the client said in time waits to be read.
                    timeout(AFTER_SILENCE, socket.next()).await.ok()?
                }
            };
            heard = Instant::now();
            let (code, message) = match self.budget.take(frame) {
                Taken::Message(ClientMessage::Pong { .. }) | Taken::Nothing => continue,
                Taken::Message(ClientMessage::Ping { nonce }) => {
                    self.say(&ServerMessage::Pong { nonce });
                    continue;
                }
                Taken::Message(message) => {
                    self.mailbox.send(Input::Message(self.id, message)).await.ok()?;
                    continue;
                }
                Taken::Unknown(_) => (ErrorCode::Malformed, "not a message of this protocol"),
                Taken::Refused(code, message) => (code, message),
                Taken::Ended(last) => return last,
            };
            if self.budget.may_complain() {
                self.say(&ServerMessage::Error { code, message: message.into(), fatal: false });
            }
        }
    }

    /// Queues a message of this task's own behind the room's.
    fn say(&self, message: &ServerMessage) {
        let Some(queue) = self.queue.upgrade() else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(Outgoing::Text(json(message))) {
            self.cut.notify_one();
        }
    }
}

/// What a socket may send.
struct Budget {
    messages: Limiter,
    offers: Limiter,
    errors: Limiter,
    refused: u32,
    /// The last long message, an offer mostly. The WebSocket layer goes on reading in its memory for good if nobody else has
    /// it, and beside it if somebody does.
    long: Option<Bytes>,
}

/// What became of a frame.
enum Taken {
    /// A message of the protocol.
    Message(ClientMessage),
    /// Text that is none.
    Unknown(Utf8Bytes),
    /// Not served, and what to say about it.
    Refused(ErrorCode, &'static str),
    /// Nothing to do.
    Nothing,
    /// The socket is over; the last thing to say, if anything.
    Ended(Option<LastWord>),
}

impl Budget {
    fn new() -> Self {
        let limiter = |(per_second, burst)| {
            let positive = |n| NonZeroU32::new(n).expect("the constants are positive");
            let quota = Quota::per_second(positive(per_second)).allow_burst(positive(burst));
            RateLimiter::direct(quota)
        };
        Self {
            messages: limiter(MESSAGES),
            offers: limiter(OFFERS),
            errors: limiter(ERRORS),
            refused: 0,
            long: None,
        }
    }

    fn may_complain(&self) -> bool {
        self.errors.check().is_ok()
    }

    fn take(&mut self, frame: Option<Result<Message, Error>>) -> Taken {
        match &frame {
            Some(Ok(Message::Text(text))) if text.len() > READ_BYTES => self.long = Some(text.clone().into()),
            // The layer reads elsewhere now.
            _ if self.long.as_ref().is_some_and(Bytes::is_unique) => self.long = None,
            _ => {}
        }
        let taken = self.judge(frame);
        match taken {
            Taken::Message(_) => self.refused = 0,
            Taken::Unknown(_) | Taken::Refused(..) => self.refused += 1,
            Taken::Nothing | Taken::Ended(_) => {}
        }
        if self.refused > REFUSED_MAX {
            return Taken::Ended(Some(fatal(ErrorCode::TooManyRequests, "nothing but refused messages")));
        }
        taken
    }

    fn judge(&self, frame: Option<Result<Message, Error>>) -> Taken {
        let text = match frame {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return match self.messages.check() {
                    Ok(()) => Taken::Refused(ErrorCode::Malformed, "messages are text frames"),
                    Err(_) => too_many(),
                };
            }
            // The layer gives no frames but messages.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                return if self.messages.check().is_ok() { Taken::Nothing } else { too_many() };
            }
            Some(Ok(Message::Close(_))) | None => return Taken::Ended(None),
            Some(Err(error)) => return Taken::Ended(last_word_on(&error)),
        };
        if text.len() > FRAME_BYTES_MAX {
            return Taken::Ended(Some(fatal(ErrorCode::TooLarge, "the frame exceeds the limit")));
        }
        if self.messages.check().is_err() {
            return too_many();
        }
        match serde_json::from_str(&text) {
            Ok(ClientMessage::Offer { .. }) if self.offers.check().is_err() => too_many(),
            Ok(message) => Taken::Message(message),
            Err(_) => Taken::Unknown(text),
        }
    }
}

fn too_many() -> Taken {
    Taken::Refused(ErrorCode::TooManyRequests, "more messages than the rate limit allows")
}

/// What to say when the WebSocket layer gave up on a socket. A lost connection gets these words nowhere.
fn last_word_on(error: &Error) -> Option<LastWord> {
    Some(match error {
        Error::Capacity(_) => fatal(ErrorCode::TooLarge, "the frame exceeds the limit"),
        _ => fatal(ErrorCode::Malformed, "not a valid WebSocket frame"),
    })
}

fn fatal(code: ErrorCode, message: &'static str) -> LastWord {
    LastWord::Fatal(code, message)
}

/// Sends what a room has said; several messages leave together.
async fn send(socket: &mut WebSocket, outgoing: Outgoing) -> Result<(), Error> {
    match outgoing {
        Outgoing::Text(text) => feed(socket, text).await?,
        Outgoing::Texts(texts) => {
            for text in &*texts {
                feed(socket, text.clone()).await?;
            }
        }
        Outgoing::Heard(_) | Outgoing::Close => {}
    }
    socket.flush().await
}

/// Hands a message over. All of its frames or none: whoever stops waiting for room may still say a last word.
async fn feed<S: Sink<Message> + Unpin>(socket: &mut S, text: Utf8Bytes) -> Result<(), S::Error> {
    let mut rest = Bytes::from(text);
    let mut kind = Data::Text;
    loop {
        let piece = rest.split_to(rest.len().min(SENT_FRAME_BYTES_MAX));
        let frame = Message::Frame(Frame::message(piece, OpCode::Data(kind), rest.is_empty()));
        match kind {
            Data::Text => socket.feed(frame).await?,
            _ => Pin::new(&mut *socket).start_send(frame)?,
        }
        if rest.is_empty() {
            return Ok(());
        }
        kind = Data::Continue;
    }
}

fn json(message: &ServerMessage) -> Utf8Bytes {
    serde_json::to_string(message).expect("plain values serialise").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_long_message_took_is_given_back() {
        let (ours, theirs) = tokio::io::duplex(64 * READ_BYTES);
        let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
        let mut server = WebSocketStream::from_raw_socket(ours, Role::Server, Some(config)).await;
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut budget = Budget::new();
        client.send(Message::text("a".repeat(20 * READ_BYTES))).await.expect("there is room");
        budget.take(server.next().await);
        assert!(budget.long.is_some());
        for _ in 0..4 {
            client.send(Message::text("b".repeat(READ_BYTES / 2))).await.expect("there is room");
            budget.take(server.next().await);
        }
        assert!(budget.long.is_none(), "the layer still reads in it");
    }

    #[tokio::test]
    async fn a_long_message_leaves_in_several_frames() {
        for length in [0, 1, SENT_FRAME_BYTES_MAX, SENT_FRAME_BYTES_MAX + 1, 5 * SENT_FRAME_BYTES_MAX] {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let mut sent = Vec::new();
            feed(&mut sent, text.clone().into()).await.expect("it is only kept");
            let frames: Vec<Frame> = sent
                .into_iter()
                .map(|message| match message {
                    Message::Frame(frame) => frame,
                    other => panic!("no frame: {other:?}"),
                })
                .collect();
            let all: Vec<u8> = frames.iter().flat_map(|frame| frame.payload().iter().copied()).collect();
            assert_eq!(all, text.as_bytes());
            assert_eq!(frames.len(), length.div_ceil(SENT_FRAME_BYTES_MAX).max(1));
            for (place, frame) in frames.iter().enumerate() {
                let kind = if place == 0 { Data::Text } else { Data::Continue };
                assert_eq!(frame.header().opcode, OpCode::Data(kind));
                assert_eq!(frame.header().is_final, place + 1 == frames.len());
                assert!(frame.payload().len() <= SENT_FRAME_BYTES_MAX);
            }
        }
    }
}
