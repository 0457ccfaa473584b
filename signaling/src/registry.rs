//! All meetings by name, and the task that drives each room machine.
//!
//! A meeting begins with its first arrival and vanishes with its last membership; nothing is kept of it. The
//! registry never looks into a room: it routes arrivals by name and media events by peer, and carries out the
//! effects of each room in that room's own task. A room that panics ends alone.

use crate::auth::{Signer, Vouched};
use crate::config::Timing;
use crate::media::{Events, MediaPlane};
use crate::protocol::{ByeReason, ClientMessage, ErrorCode, ServerMessage};
use crate::room::{Arrival, Effect, Returning, Role, Room, RoomSettings, SocketId};
use asamblea_seam::{Command, Event, PeerId, RoomId};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Most meetings at one time: each is a task and a few kilobytes, and one machine's cores are used up long
/// before.
pub const MEETINGS_MAX: usize = 1000;

/// Longest meeting name, in Unicode scalar values: a readable phrase; tokens and links stay short.
pub const MEETING_CHARS_MAX: usize = 100;

/// First path segments that are not meetings.
pub const RESERVED_NAMES: &[&str] = &["api", "assets"];

/// Messages waiting for one room. Rooms never wait for anyone, so this absorbs a moment's burst; when it is full
/// the sockets stop reading.
const MAILBOX: usize = 256;

/// Messages waiting for one slow reader before it is cut off: several seconds of a lively meeting.
pub const QUEUE: usize = 256;

/// Ids stay below this so that JavaScript holds them exactly.
const ID_BITS: u32 = 53;

/// A meeting's name in canonical form: what stands in its link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeetingName(Arc<str>);

/// Why a text is no [`MeetingName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing is left of it.
    #[error("a meeting's name has at least one letter or digit")]
    Empty,
    /// More than [`MEETING_CHARS_MAX`] characters.
    #[error("a meeting's name has at most {MEETING_CHARS_MAX} characters")]
    TooLong,
    /// Something else than letters, digits, `-` and `_`.
    #[error("a meeting's name has letters, digits, - and _ only")]
    Character,
    /// One of [`RESERVED_NAMES`].
    #[error("this name is used by the bridge itself")]
    Reserved,
}

impl MeetingName {
    /// Brings a name into canonical form: trimmed, lower case, white space as single `-`.
    ///
    /// # Errors
    /// [`InvalidName`] says what is wrong.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        // Four bytes a character at most: what is longer need not be looked at.
        if text.len() > 8 * MEETING_CHARS_MAX {
            return Err(InvalidName::TooLong);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let name = words.join("-").to_lowercase();
        if !name.chars().any(char::is_alphanumeric) {
            return Err(if name.is_empty() { InvalidName::Empty } else { InvalidName::Character });
        }
        if name.chars().count() > MEETING_CHARS_MAX {
            return Err(InvalidName::TooLong);
        }
        if !name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') {
            return Err(InvalidName::Character);
        }
        if RESERVED_NAMES.contains(&name.as_str()) {
            return Err(InvalidName::Reserved);
        }
        Ok(Self(name.into()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a room sends to a socket's task.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// One message, already JSON.
    Text(Utf8Bytes),
    /// Several messages, in this order.
    Texts(Arc<[Utf8Bytes]>),
    /// Whether media show that the socket's owner is there; nothing is sent.
    Heard(bool),
    /// Nothing follows: close.
    Close,
}

/// A socket as its room holds it.
#[derive(Debug)]
pub struct SocketHandle {
    /// Names it.
    pub id: SocketId,
    /// Its outgoing messages.
    pub queue: mpsc::Sender<Outgoing>,
    /// Cuts it off when the queue is full.
    pub cut: Arc<Notify>,
}

/// What reaches a room's task.
#[derive(Debug)]
pub enum Input {
    /// Someone at the door.
    Arrival(SocketHandle, Arrival),
    /// A message of a socket that was let in.
    Message(SocketId, ClientMessage),
    /// A socket's end.
    Lost(SocketId),
    /// From the media plane.
    Media(Event),
    /// The server makes place for another process.
    Move,
    /// The server stops.
    Stop,
}

/// A well-formed `hello`.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The version agreed on.
    pub version: u16,
    /// The meeting of the join token.
    pub meeting: MeetingName,
    /// The role of the join token.
    pub role: Role,
    /// Whether the join token has expired: then only a membership can be taken up again.
    pub expired: bool,
    /// The name as it was sent.
    pub name: String,
    /// The resume token as it was sent.
    pub resume: Option<String>,
    /// Whether the socket came over the loopback interface.
    pub loopback: bool,
}

/// Whether the server is there for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It is.
    Open,
    /// It makes place for another process: nobody is let in, media goes on for a while.
    Moving,
    /// It stops.
    Stopping,
}

impl Service {
    /// The last word to a socket when the service is not open any more.
    pub fn last_word(self) -> Option<LastWord> {
        match self {
            Service::Open => None,
            Service::Moving => Some(LastWord::Bye(ByeReason::Moving)),
            Service::Stopping => Some(LastWord::Bye(ByeReason::Stopping)),
        }
    }
}

/// What is said before a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// A fatal error.
    Fatal(ErrorCode, &'static str),
    /// It is on purpose.
    Bye(ByeReason),
}

impl From<LastWord> for ServerMessage {
    fn from(last: LastWord) -> Self {
        match last {
            LastWord::Fatal(code, message) => Self::Error { code, message: message.into(), fatal: true },
            LastWord::Bye(reason) => Self::Bye { reason },
        }
    }
}

/// All meetings.
pub struct Registry {
    meetings: DashMap<MeetingName, Handle>,
    /// Where a peer's media events go. One entry a membership.
    peers: DashMap<PeerId, mpsc::Sender<Input>>,
    /// Where a room's media events go. One entry a meeting.
    rooms: DashMap<RoomId, mpsc::Sender<Input>>,
    plane: Arc<dyn MediaPlane>,
    signer: Arc<Signer>,
    permits: Arc<Semaphore>,
    sockets: AtomicU64,
    service: watch::Sender<Service>,
    /// Told when a meeting has ended.
    ended: Notify,
    members_max: usize,
    timing: Timing,
}

struct Handle {
    id: RoomId,
    mailbox: mpsc::Sender<Input>,
}

impl Registry {
    /// No meeting yet.
    pub fn new(
        plane: Arc<dyn MediaPlane>,
        signer: Arc<Signer>,
        meetings_max: usize,
        members_max: usize,
        timing: Timing,
    ) -> Arc<Self> {
        Arc::new(Self {
            meetings: DashMap::new(),
            peers: DashMap::new(),
            rooms: DashMap::new(),
            plane,
            signer,
            permits: Arc::new(Semaphore::new(meetings_max)),
            sockets: AtomicU64::new(0),
            service: watch::Sender::new(Service::Open),
            ended: Notify::new(),
            members_max,
            timing,
        })
    }

    /// How many meetings there are.
    pub fn meetings(&self) -> usize {
        self.meetings.len()
    }

    /// A number for a new socket.
    pub fn next_socket(&self) -> SocketId {
        SocketId(self.sockets.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the server is there for people, and every change of it.
    pub fn service(&self) -> watch::Receiver<Service> {
        self.service.subscribe()
    }

    /// Brings an arrival to its meeting, which begins if need be, and returns where its messages go.
    ///
    /// A meeting is found by its name alone. One that begins with someone who returns from a server that died gets
    /// its earlier id, one that begins with a newcomer a fresh one, and whoever comes later joins what is there:
    /// so all of them meet, in whatever order they come.
    ///
    /// # Errors
    /// The last word to the socket.
    pub fn enter(
        self: &Arc<Self>,
        hello: Hello,
        socket: SocketHandle,
    ) -> Result<mpsc::Sender<Input>, LastWord> {
        let refuse = LastWord::Fatal;
        let random = |_| refuse(ErrorCode::ServerFull, "the server has no random numbers");
        let now = SystemTime::now();
        let name = hello.meeting.as_str();
        let vouched = hello.resume.as_deref().and_then(|token| self.signer.vouched(now, token, name));
        // A membership that is known is for its room to take up.
        let vouched = vouched
            .map(|it| Vouched { may_return: it.may_return && !self.peers.contains_key(&it.member), ..it });
        let back = vouched.as_ref().filter(|it| it.may_return);
        let fresh = self.fresh_peer().map_err(random)?;
        let fresh_room = RoomId(random_id().map_err(random)?);
        let arrival = |room: RoomId| Arrival {
            fresh,
            fresh_resume: self.signer.resume(now, name, room, fresh, hello.role),
            resume: vouched.as_ref().map(|it| Returning {
                member: it.member,
                role: it.role,
                resume: self.signer.resume(now, name, room, it.member, it.role),
                may_return: it.may_return,
            }),
            may_begin: !hello.expired,
            role: hello.role,
            name: hello.name.clone(),
            version: hello.version,
            loopback: hello.loopback,
        };
        // The entry's lock is held while the arrival is put in the mailbox: a room only ends under the same lock
        // and with an empty mailbox, so no arrival falls into a room that has ended.
        match self.meetings.entry(hello.meeting.clone()) {
            Entry::Occupied(entry) if !entry.get().mailbox.is_closed() => {
                let handle = entry.get();
                let input = Input::Arrival(socket, arrival(handle.id));
                match handle.mailbox.try_send(input) {
                    Ok(()) => Ok(handle.mailbox.clone()),
                    Err(_) => {
                        let why = "the meeting is too busy; try again in a moment";
                        Err(refuse(ErrorCode::ServerFull, why))
                    }
                }
            }
            entry => {
                if hello.expired && back.is_none() {
                    return Err(refuse(ErrorCode::InvalidToken, "the join token has expired"));
                }
                if let Some(last) = self.service.borrow().last_word() {
                    return Err(last);
                }
                let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
                    refuse(ErrorCode::ServerFull, "the server holds as many meetings as it may")
                })?;
                // A room that is just ending may still have the earlier id.
                let id = back
                    .map(|it| it.room)
                    .filter(|room| !self.rooms.contains_key(room))
                    .unwrap_or(fresh_room);
                let (mailbox, inputs) = mpsc::channel(MAILBOX);
                mailbox
                    .try_send(Input::Arrival(socket, arrival(id)))
                    .expect("a new mailbox has room for one");
                entry.insert(Handle { id, mailbox: mailbox.clone() });
                self.rooms.insert(id, mailbox.clone());
                let settings = RoomSettings::new(id, name.to_owned(), self.members_max, self.timing);
                let task = RoomTask {
                    room: Room::new(settings),
                    sockets: HashMap::new(),
                    present: Present {
                        registry: Arc::clone(self),
                        name: hello.meeting,
                        room: id,
                        peers: HashSet::new(),
                    },
                    mailbox: mailbox.downgrade(),
                    _permit: permit,
                };
                tokio::spawn(task.run(inputs));
                Ok(mailbox)
            }
        }
    }

    /// Lets no meeting begin and has sockets at the door go on to another process.
    pub fn close(&self) {
        self.service.send_replace(Service::Moving);
    }

    /// Makes place for another process: says so to everyone and lets nobody in; returns when the last meeting has
    /// ended because everyone has gone over. Whoever calls this decides how long to wait for it.
    pub async fn make_place(&self) {
        self.tell_all(Service::Moving, || Input::Move).await;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before the look, so that an end right after it is not missed.
            ended.as_mut().enable();
            if self.meetings.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Ends every meeting and lets none begin.
    pub async fn stop(&self) {
        self.tell_all(Service::Stopping, || Input::Stop).await;
    }

    async fn tell_all(&self, service: Service, input: impl Fn() -> Input) {
        // First, so that no meeting begins unseen: whoever makes one looks while it holds the map's lock.
        self.service.send_replace(service);
        let mailboxes: Vec<_> = self.meetings.iter().map(|meeting| meeting.mailbox.clone()).collect();
        for mailbox in mailboxes {
            // A room that is gone has nobody left to tell.
            let _ = mailbox.send(input()).await;
        }
    }

    /// Routes media events until the media plane is gone.
    pub async fn route(self: Arc<Self>, mut events: Events) {
        while let Some(event) = events.next().await {
            match event {
                Event::Lost { peers } => {
                    for peer in peers {
                        self.send_to_peer(peer, Event::Lost { peers: vec![peer] }).await;
                    }
                }
                Event::Speakers { room, .. } | Event::Lines { room, .. } => {
                    let mailbox = self.rooms.get(&room).map(|mailbox| mailbox.clone());
                    if let Some(mailbox) = mailbox {
                        let _ = mailbox.send(Input::Media(event)).await;
                    }
                }
                Event::Answer { peer, .. }
                | Event::OfferRefused { peer, .. }
                | Event::Connected { peer }
                | Event::Disconnected { peer, .. }
                | Event::Slots { peer, .. }
                | Event::Wanted { peer, .. } => self.send_to_peer(peer, event).await,
            }
        }
    }

    async fn send_to_peer(&self, peer: PeerId, event: Event) {
        // The map's lock must not be held while waiting.
        let mailbox = self.peers.get(&peer).map(|mailbox| mailbox.clone());
        if let Some(mailbox) = mailbox {
            let _ = mailbox.send(Input::Media(event)).await;
        }
    }

    fn fresh_peer(&self) -> Result<PeerId, getrandom::Error> {
        loop {
            let peer = PeerId(random_id()?);
            if !self.peers.contains_key(&peer) {
                return Ok(peer);
            }
        }
    }
}

fn random_id() -> Result<u64, getrandom::Error> {
    Ok(getrandom::u64()? >> (u64::BITS - ID_BITS))
}

/// One meeting's task.
struct RoomTask {
    room: Room,
    sockets: HashMap<SocketId, SocketHandle>,
    present: Present,
    mailbox: mpsc::WeakSender<Input>,
    _permit: OwnedSemaphorePermit,
}

/// The peers of one room that the media plane knows. Takes them away when the room ends, also by a panic.
struct Present {
    registry: Arc<Registry>,
    name: MeetingName,
    room: RoomId,
    peers: HashSet<PeerId>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.registry.meetings.remove_if(&self.name, |_, handle| handle.id == self.room);
        for peer in self.peers.drain() {
            self.registry.peers.remove(&peer);
            self.registry.plane.handle(Command::Leave { peer });
        }
        // Last: while it stands here the id is not taken for the next meeting of this name.
        self.registry.rooms.remove(&self.room);
        self.registry.ended.notify_waiters();
    }
}

impl RoomTask {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let wake = self.room.poll_timeout();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.handle(Instant::now(), input),
                    None => break,
                },
                () = sleep_until(wake) => self.room.handle_timeout(Instant::now()),
            }
            self.carry_out();
            if self.room.is_empty() {
                let id = self.room.id();
                let ended = self
                    .present
                    .registry
                    .meetings
                    .remove_if(&self.present.name, |_, handle| handle.id == id && inputs.is_empty());
                if ended.is_some() {
                    break;
                }
            }
        }
    }

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Arrival(handle, arrival) => {
                let socket = handle.id;
                self.sockets.insert(socket, handle);
                self.room.handle_arrival(now, socket, arrival);
            }
            Input::Message(socket, message) => self.room.handle_message(now, socket, message),
            Input::Lost(socket) => {
                self.sockets.remove(&socket);
                self.room.handle_socket_lost(now, socket);
            }
            Input::Media(event) => self.room.handle_media_event(now, event),
            Input::Move => self.room.handle_move(now),
            Input::Stop => self.room.handle_stop(),
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.room.poll_effect() {
            match effect {
                Effect::Send { sockets, message } => {
                    let text = serde_json::to_string(&message).expect("plain values serialise");
                    let text = Utf8Bytes::from(text);
                    for socket in sockets {
                        self.send(socket, Outgoing::Text(text.clone()));
                    }
                }
                Effect::SendAll { sockets, messages } => {
                    let text = |message| serde_json::to_string(message).expect("plain values serialise");
                    let texts: Arc<[Utf8Bytes]> =
                        messages.iter().map(|message| Utf8Bytes::from(text(message))).collect();
                    for socket in sockets {
                        self.send(socket, Outgoing::Texts(Arc::clone(&texts)));
                    }
                }
                Effect::Renew { socket, member, role } => {
                    let (name, room) = (self.present.name.as_str(), self.present.room);
                    let token =
                        self.present.registry.signer.resume(SystemTime::now(), name, room, member, role);
                    let message = ServerMessage::Resume { token };
                    let text = serde_json::to_string(&message).expect("plain values serialise");
                    self.send(socket, Outgoing::Text(text.into()));
                }
                Effect::Heard { socket, is_heard } => self.send(socket, Outgoing::Heard(is_heard)),
                Effect::Media(command) => {
                    match command {
                        Command::Join { peer, .. } => {
                            if let Some(mailbox) = self.mailbox.upgrade() {
                                self.present.peers.insert(peer);
                                self.present.registry.peers.insert(peer, mailbox);
                            }
                        }
                        Command::Leave { peer } => {
                            self.present.peers.remove(&peer);
                            self.present.registry.peers.remove(&peer);
                        }
                        _ => {}
                    }
                    self.present.registry.plane.handle(command);
                }
                Effect::Close { socket } => {
                    self.send(socket, Outgoing::Close);
                    self.sockets.remove(&socket);
                }
            }
        }
    }

    /// Never waits: a reader that is too slow is cut off and may resume.
    fn send(&mut self, socket: SocketId, outgoing: Outgoing) {
        let Some(handle) = self.sockets.get(&socket) else { return };
        match handle.queue.try_send(outgoing) {
            Ok(()) => {}
            Err(error) => {
                if matches!(error, mpsc::error::TrySendError::Full(_)) {
                    handle.cut.notify_one();
                }
                self.sockets.remove(&socket);
                self.room.handle_socket_lost(Instant::now(), socket);
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_meeting_has_one_name_however_it_is_typed() {
        for typed in ["Asamblea  del Barrio", " asamblea-del-barrio ", "ASAMBLEA\tDEL BARRIO"] {
            assert_eq!(MeetingName::new(typed).expect("fine").as_str(), "asamblea-del-barrio");
        }
        assert_eq!(MeetingName::new("Reunión_2").expect("fine").as_str(), "reunión_2");
        assert_eq!(MeetingName::new("会议").expect("fine").as_str(), "会议");
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        assert_eq!(MeetingName::new(" "), Err(InvalidName::Empty));
        assert_eq!(MeetingName::new("--"), Err(InvalidName::Character));
        assert_eq!(MeetingName::new("API"), Err(InvalidName::Reserved));
        assert_eq!(MeetingName::new("a/b"), Err(InvalidName::Character));
        assert_eq!(MeetingName::new("<script>"), Err(InvalidName::Character));
        assert_eq!(MeetingName::new(&"a".repeat(101)), Err(InvalidName::TooLong));
        assert_eq!(MeetingName::new(&"a".repeat(1_000_000)), Err(InvalidName::TooLong));
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_its_own_canonical_name(text in any::<String>()) {
            if let Ok(name) = MeetingName::new(&text) {
                prop_assert_eq!(MeetingName::new(name.as_str()), Ok(name));
            }
        }
    }
}
