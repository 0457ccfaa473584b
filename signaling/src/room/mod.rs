//! One meeting as a pure machine: who is in it, who may do what, what everyone is told.
//!
//! The shell calls `handle_*`, then drains [`Room::poll_effect`] until it is empty, then sleeps until
//! [`Room::poll_timeout`]. The room never touches a socket, a clock, a thread or a random source: the time and
//! fresh ids are arguments. It stores nothing that a message of one member could make grow without bound, and a
//! message of one member never changes what is known of another.

mod acts;
mod authorization;
mod media;
mod name;
mod offer;
mod roster;

pub use authorization::{AUTHORIZATION, Act, Authorization, Role};
pub use name::shown_name;
pub use offer::OFFER_LINES_MAX;

use crate::config::Timing;
use crate::protocol::{ByeReason, ClientMessage, ErrorCode, MediaState, Member, ServerMessage, VERSIONS};
use asamblea_seam::{Command, Line, Mid, PeerId, RoomId, SlotState, UpState, UpWanted};
use indexmap::IndexMap;
use roster::Roster;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Most memberships of one meeting where its server says nothing else. One shard forwards a room; 200 people is what the media plane is meant to
/// carry on one core, and every arrival is told to everyone.
pub const MEMBERS_MAX: usize = 200;

/// One WebSocket. Numbers are never reused in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What a meeting is made with.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// Names the meeting towards the media plane; random.
    pub id: RoomId,
    /// The meeting's name as it is shown.
    pub meeting: String,
    /// Most memberships, absent ones included.
    pub members_max: usize,
    /// How long an absent membership is kept, and what clients are told about silence.
    pub timing: Timing,
    /// Who may do what.
    pub authorization: Authorization,
}

impl RoomSettings {
    /// The usual bounds.
    pub fn new(id: RoomId, meeting: String, members_max: usize, timing: Timing) -> Self {
        Self { id, meeting, members_max, timing, authorization: AUTHORIZATION }
    }
}

/// Someone at the door: their `hello` was well-formed and their token genuine.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// A fresh random id, used when no membership is taken up again.
    pub fresh: PeerId,
    /// The resume token that goes with `fresh`.
    pub fresh_resume: String,
    /// The membership that a genuine resume token of this meeting vouches for.
    pub resume: Option<Returning>,
    /// Whether the join token lets a new membership begin: not so when it has expired.
    pub may_begin: bool,
    /// The role the join token gives.
    pub role: Role,
    /// The name as it was sent.
    pub name: String,
    /// The protocol version agreed on.
    pub version: u16,
    /// Whether the socket came over the loopback interface.
    pub loopback: bool,
}

/// The membership of a genuine resume token.
#[derive(Clone, Debug)]
pub struct Returning {
    /// The membership.
    pub member: PeerId,
    /// The role that it had when the token was signed.
    pub role: Role,
    /// The token that goes on from here.
    pub resume: String,
    /// Whether it is brought back if this room does not know it: the server that knew it died.
    pub may_return: bool,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send one message to these sockets.
    Send {
        /// Where to; never empty.
        sockets: Vec<SocketId>,
        /// What.
        message: ServerMessage,
    },
    /// Send several messages to these sockets, in this order, as one where that is possible.
    SendAll {
        /// Where to; never empty.
        sockets: Vec<SocketId>,
        /// What; never empty.
        messages: Vec<ServerMessage>,
    },
    /// Sign a fresh resume token for a membership and send it.
    Renew {
        /// Where to.
        socket: SocketId,
        /// The membership.
        member: PeerId,
        /// Its role.
        role: Role,
    },
    /// Say to a socket whether media show that its owner is there: then it is neither asked for signs of life nor given up
    /// for want of them. Until the first of these it is.
    Heard {
        /// Which.
        socket: SocketId,
        /// Whether they do.
        is_heard: bool,
    },
    /// Tell the media plane.
    Media(Command),
    /// Close a socket once what was sent to it before is out.
    Close {
        /// Which.
        socket: SocketId,
    },
}

/// One meeting.
#[derive(Debug)]
pub struct Room {
    settings: RoomSettings,
    /// In order of arrival.
    members: IndexMap<PeerId, Membership>,
    /// Whose each live socket is. A socket that is not here is nobody's, whatever it says.
    sockets: HashMap<SocketId, PeerId>,
    /// When each membership has something due; exactly one entry a membership.
    dates: BTreeSet<(Instant, PeerId)>,
    /// When the first one came.
    began: Option<Instant>,
    /// Why nobody is let in any more, if so.
    closing: Option<ByeReason>,
    /// What everyone is yet to be told of everyone.
    roster: Roster,
    /// The latest time the room was told.
    now: Option<Instant>,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
struct Membership {
    role: Role,
    name: String,
    /// Its live socket; without one it waits to be taken up again.
    socket: Option<SocketId>,
    /// When it gets a fresh resume token, or, without a socket, when it ends.
    due: Instant,
    loopback: bool,
    /// One entry a kind at most, in the order of kinds.
    ups: Vec<UpState>,
    /// Newest offer seen; 0 before the first.
    revision: u32,
    /// The m-lines of the newest offer, at most [`OFFER_LINES_MAX`].
    mids: BTreeSet<Mid>,
    /// What the media plane says the slots carry; at most one entry an m-line.
    slots: BTreeMap<Mid, SlotState>,
    /// What the media plane last said is wanted of this member's ups; one entry a kind at most.
    wanted: Vec<UpWanted>,
    /// How the media plane says its line is.
    line: Line,
    /// What the media plane last said of the transport.
    media: Option<MediaState>,
    /// The first news of the roster that its present socket was not shown with its `welcome`.
    news_from: u64,
}

impl Membership {
    /// Whether its media show that it is there, so that its socket need not.
    fn is_heard(&self) -> bool {
        self.media == Some(MediaState::Connected) && self.line != Line::Lost
    }

    fn shown(&self, id: PeerId) -> Member {
        Member {
            id,
            name: self.name.clone(),
            ups: self.ups.clone(),
            present: self.socket.is_some(),
            line: self.line,
        }
    }
}

/// A refusal: the message changed nothing.
struct Refusal(ErrorCode, &'static str);

impl Room {
    /// An empty meeting.
    pub fn new(settings: RoomSettings) -> Self {
        Self {
            settings,
            members: IndexMap::new(),
            sockets: HashMap::new(),
            dates: BTreeSet::new(),
            began: None,
            closing: None,
            roster: Roster::default(),
            now: None,
            effects: VecDeque::new(),
        }
    }

    /// Whether nobody is in it, not even someone absent. The shell ends such a room.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The meeting's id.
    pub fn id(&self) -> RoomId {
        self.settings.id
    }

    /// Lets someone in on a new socket, or takes up an earlier membership again. What follows for that socket is
    /// a `welcome`, or a fatal error and a [`Effect::Close`].
    pub fn handle_arrival(&mut self, now: Instant, socket: SocketId, mut arrival: Arrival) {
        self.handle_timeout(now);
        if self.sockets.contains_key(&socket) {
            return self.refuse(socket, Refusal(ErrorCode::AlreadyJoined, "hello came twice"));
        }
        if let Some(reason) = self.closing {
            self.send(socket, ServerMessage::Bye { reason });
            return self.effects.push_back(Effect::Close { socket });
        }
        self.began.get_or_insert(now);
        let mut back = None;
        if let Some(returning) = arrival.resume.take() {
            if self.members.contains_key(&returning.member) {
                return self.resume(now, socket, returning, arrival);
            }
            back = returning.may_return.then_some(returning);
        }
        if !arrival.may_begin && back.is_none() {
            let why = "the join token has expired and there is no membership to resume";
            return self.turn_away(socket, ErrorCode::InvalidToken, why);
        }
        if self.members.len() >= self.settings.members_max {
            return self.turn_away(socket, ErrorCode::MeetingFull, "the meeting is full");
        }
        let (peer, role, resume) = match back {
            Some(back) => (back.member, back.role, back.resume),
            None => (arrival.fresh, arrival.role, arrival.fresh_resume),
        };
        debug_assert!(!self.members.contains_key(&peer), "ids are drawn from 2^53 and checked by the shell");
        let membership = Membership {
            role,
            name: shown_name(&arrival.name),
            socket: Some(socket),
            due: now,
            loopback: arrival.loopback,
            ups: Vec::new(),
            revision: 0,
            mids: BTreeSet::new(),
            slots: BTreeMap::new(),
            wanted: Vec::new(),
            line: Line::default(),
            media: None,
            news_from: 0,
        };
        let shown = membership.shown(peer);
        self.members.insert(peer, membership);
        self.sockets.insert(socket, peer);
        self.begin_renewals(now, peer);
        let room = self.settings.id;
        self.effects.push_back(Effect::Media(Command::Join { room, peer, loopback: arrival.loopback }));
        self.welcome(peer, arrival.version, resume, false);
        self.tell(Some(peer), ServerMessage::Joined { member: shown });
        self.know_all(peer);
    }

    /// Serves one message of a socket that was let in. Messages of other sockets are ignored: the socket was
    /// replaced or cut and its last words are still on their way.
    pub fn handle_message(&mut self, now: Instant, socket: SocketId, message: ClientMessage) {
        self.handle_timeout(now);
        let Some(&peer) = self.sockets.get(&socket) else { return };
        let Some(act) = Act::of(&message) else {
            return self.refuse(socket, Refusal(ErrorCode::AlreadyJoined, "hello came twice"));
        };
        let role = self.members[&peer].role;
        if !self.settings.authorization.allows(role, act) {
            return self.refuse(socket, Refusal(ErrorCode::NotAllowed, "your role does not allow this"));
        }
        let served = match message {
            ClientMessage::Hello { .. } | ClientMessage::Pong { .. } | ClientMessage::Ping { .. } => Ok(()),
            ClientMessage::Offer { revision, sdp, ups } => self.offer(peer, revision, sdp, ups),
            ClientMessage::Publish { ups } => self.publish(peer, ups),
            ClientMessage::View { slots } => self.view(peer, slots),
            ClientMessage::Rename { name } => {
                self.rename(peer, &name);
                Ok(())
            }
            ClientMessage::Leave {} => {
                self.send(socket, ServerMessage::Bye { reason: ByeReason::Left });
                self.effects.push_back(Effect::Close { socket });
                self.remove(peer);
                Ok(())
            }
        };
        if let Err(refusal) = served {
            self.refuse(socket, refusal);
        }
    }

    /// A socket ended without `leave`: the membership waits for its return, the media transport is left alone.
    pub fn handle_socket_lost(&mut self, now: Instant, socket: SocketId) {
        self.handle_timeout(now);
        let Some(peer) = self.sockets.remove(&socket) else { return };
        let membership = self.members.get_mut(&peer).expect("sockets only name members");
        membership.socket = None;
        let shown = membership.shown(peer);
        self.set_due(peer, now + self.settings.timing.resume);
        self.tell(Some(peer), ServerMessage::Changed { member: shown });
    }

    /// Ends memberships whose time to resume is over, renews the tokens of those who are here, and tells what waited.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        if self.roster.due_at().is_some_and(|at| at <= now) {
            self.tell_waiting();
        }
        while let Some(&(at, peer)) = self.dates.first()
            && at <= now
        {
            let member = &self.members[&peer];
            match member.socket {
                Some(socket) => {
                    self.effects.push_back(Effect::Renew { socket, member: peer, role: member.role });
                    let next = at + self.settings.timing.renew;
                    // Unless the machine stood still, the seconds stay the same.
                    let next = if next > now { next } else { self.whole_second(now + (next - at)) };
                    self.set_due(peer, next);
                }
                None => self.remove(peer),
            }
        }
    }

    /// The server makes place for another process: everyone is told, and media goes on where it flows until the
    /// member's client closes it. The rest is for the shell to end, with [`Room::handle_stop`].
    pub fn handle_move(&mut self, now: Instant) {
        self.handle_timeout(now);
        self.close_all(ByeReason::Moving);
        let mut idle = Vec::new();
        let peers: Vec<PeerId> = self.members.keys().copied().collect();
        for peer in peers {
            self.set_due(peer, now + self.settings.timing.resume);
            let member = &mut self.members[&peer];
            member.socket = None;
            if member.media != Some(MediaState::Connected) {
                idle.push(peer);
            }
        }
        idle.into_iter().for_each(|peer| self.remove(peer));
    }

    /// The server stops: everyone is told and every media state ends.
    pub fn handle_stop(&mut self) {
        self.close_all(ByeReason::Stopping);
        self.dates.clear();
        let peers: Vec<PeerId> = self.members.drain(..).map(|(peer, _)| peer).collect();
        self.effects.extend(peers.into_iter().map(|peer| Effect::Media(Command::Leave { peer })));
    }

    /// What to do next; drain it after every `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`Room::handle_timeout`]: the next end of an absent membership, the next renewal, or news that waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.dates.first().map(|(at, _)| *at);
        due.into_iter().chain(self.roster.due_at()).min()
    }

    /// Who is just here has the first token renewed after a quarter of the usual time at least. Member ids are random, so
    /// those who come together, as all do after a restart, are not served together for ever.
    fn begin_renewals(&mut self, now: Instant, peer: PeerId) {
        let renew_ms = self.settings.timing.renew.as_millis() as u64;
        let least_ms = renew_ms / 4;
        let after = Duration::from_millis(least_ms + peer.0 % (renew_ms - least_ms).max(1));
        self.set_due(peer, self.whole_second(now + after));
    }

    /// The next whole second since the room began, so that what is due within one is done together.
    fn whole_second(&self, at: Instant) -> Instant {
        let began = self.began.unwrap_or(at);
        let since = at.saturating_duration_since(began);
        began + Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0))
    }

    fn set_due(&mut self, peer: PeerId, at: Instant) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        self.dates.remove(&(member.due, peer));
        member.due = at;
        self.dates.insert((at, peer));
    }

    fn resume(&mut self, now: Instant, socket: SocketId, returning: Returning, arrival: Arrival) {
        let peer = returning.member;
        let membership = self.members.get_mut(&peer).expect("the caller looked it up");
        let before = membership.shown(peer);
        let replaced = membership.socket.replace(socket);
        membership.name = shown_name(&arrival.name);
        membership.loopback = arrival.loopback;
        let shown = membership.shown(peer);
        let (media, is_heard) = (membership.media, membership.is_heard());
        self.begin_renewals(now, peer);
        if let Some(old) = replaced {
            self.sockets.remove(&old);
            self.send(old, ServerMessage::Bye { reason: ByeReason::Replaced });
            self.effects.push_back(Effect::Close { socket: old });
        }
        self.sockets.insert(socket, peer);
        self.welcome(peer, arrival.version, returning.resume, true);
        if let Some(state) = media {
            self.send(socket, ServerMessage::Media { state });
        }
        if is_heard {
            self.effects.push_back(Effect::Heard { socket, is_heard });
        }
        if shown != before {
            self.tell(Some(peer), ServerMessage::Changed { member: shown });
        }
        self.know_all(peer);
    }

    fn welcome(&mut self, peer: PeerId, version: u16, resume: String, resumed: bool) {
        debug_assert!(VERSIONS.contains(&version));
        let own = &self.members[&peer];
        let message = ServerMessage::Welcome {
            version,
            member: peer,
            resume,
            resumed,
            revision: own.revision,
            meeting: self.settings.meeting.clone(),
            members: self.members.iter().map(|(&id, member)| member.shown(id)).collect(),
            slots: own.slots.values().cloned().collect(),
            wanted: own.wanted.clone(),
            silence_ms_max: self.settings.timing.client_silence.as_millis() as u32,
            resume_ms_max: self.settings.timing.resume.as_millis() as u32,
        };
        self.send_to(peer, message);
    }

    fn remove(&mut self, peer: PeerId) {
        let Some(member) = self.members.shift_remove(&peer) else { return };
        self.dates.remove(&(member.due, peer));
        if let Some(socket) = member.socket {
            self.sockets.remove(&socket);
        }
        self.effects.push_back(Effect::Media(Command::Leave { peer }));
        self.tell(None, ServerMessage::Left { member: peer });
    }

    /// Ends every socket, and lets none in from here on.
    fn close_all(&mut self, reason: ByeReason) {
        self.closing = Some(reason);
        self.broadcast(ServerMessage::Bye { reason });
        let mut sockets: Vec<SocketId> = self.sockets.drain().map(|(socket, _)| socket).collect();
        sockets.sort_unstable();
        self.effects.extend(sockets.into_iter().map(|socket| Effect::Close { socket }));
    }

    /// A fatal error to a socket that is not let in.
    fn turn_away(&mut self, socket: SocketId, code: ErrorCode, message: &str) {
        self.send(socket, ServerMessage::Error { code, message: message.into(), fatal: true });
        self.effects.push_back(Effect::Close { socket });
    }

    fn refuse(&mut self, socket: SocketId, Refusal(code, message): Refusal) {
        self.send(socket, ServerMessage::Error { code, message: message.into(), fatal: false });
    }

    fn send(&mut self, socket: SocketId, message: ServerMessage) {
        self.effects.push_back(Effect::Send { sockets: vec![socket], message });
    }

    fn send_to(&mut self, peer: PeerId, message: ServerMessage) {
        if let Some(socket) = self.members.get(&peer).and_then(|member| member.socket) {
            self.send(socket, message);
        }
    }

    /// Tells everyone (`but` one) of a member, now or with what waits.
    fn tell(&mut self, but: Option<PeerId>, message: ServerMessage) {
        let people = self.sockets.len();
        let message = match self.now {
            Some(now) if self.closing.is_none() => self.roster.take(now, people, message),
            _ => Some(message),
        };
        if let Some(message) = message {
            self.broadcast_to(|peer| Some(peer) != but, message);
        }
    }

    /// A socket was shown everyone as they are now.
    fn know_all(&mut self, peer: PeerId) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.news_from = self.roster.next();
        }
    }

    /// Tells everyone what waits, from where they know it on.
    fn tell_waiting(&mut self) {
        let Some(now) = self.now else { return };
        let news = self.roster.tell(now);
        let mut groups: BTreeMap<usize, Vec<SocketId>> = BTreeMap::new();
        for member in self.members.values() {
            let known = news.partition_point(|(number, _)| *number < member.news_from);
            if let Some(socket) = member.socket.filter(|_| known < news.len()) {
                groups.entry(known).or_default().push(socket);
            }
        }
        for (known, sockets) in groups {
            let messages = news[known..].iter().map(|(_, message)| message.clone()).collect();
            self.effects.push_back(Effect::SendAll { sockets, messages });
        }
    }

    fn broadcast(&mut self, message: ServerMessage) {
        self.tell_waiting();
        self.broadcast_to(|_| true, message);
    }

    fn broadcast_to(&mut self, whom: impl Fn(PeerId) -> bool, message: ServerMessage) {
        let sockets: Vec<SocketId> = self
            .members
            .iter()
            .filter(|(peer, _)| whom(**peer))
            .filter_map(|(_, member)| member.socket)
            .collect();
        if !sockets.is_empty() {
            self.effects.push_back(Effect::Send { sockets, message });
        }
    }
}

#[cfg(test)]
mod tests;
