//! Scripted meetings, message by message.

mod acts;
mod coming_and_going;
mod media;
mod whatever;

use super::*;
use crate::protocol::{MemberLine, SpeakerLevel};
use asamblea_seam::{DisconnectReason, Event, PeerLine, SLOTS_MAX, SlotWish, Speaker, Up, UpKind, UpLine};

const SDP: &str =
    "v=0\r\nm=audio 9\r\na=mid:0\r\nm=video 9\r\na=mid:1\r\nm=video 9\r\na=mid:2\r\nm=video 9\r\na=mid:3\r\n";

fn settings() -> RoomSettings {
    RoomSettings::new(RoomId(1), "plaza".into(), MEMBERS_MAX, Timing::default())
}

/// A meeting with its clock and everything it ever said.
pub(super) struct Script {
    pub(super) room: Room,
    pub(super) now: Instant,
    said: Vec<Effect>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: RoomSettings) -> Self {
        Self { room: Room::new(settings), now: Instant::now(), said: Vec::new() }
    }

    fn drain(&mut self) -> Vec<Effect> {
        let effects: Vec<Effect> = std::iter::from_fn(|| self.room.poll_effect()).collect();
        self.said.extend(effects.iter().cloned());
        effects
    }

    pub(super) fn arrive(&mut self, socket: u64, arrival: Arrival) -> Vec<Effect> {
        self.room.handle_arrival(self.now, SocketId(socket), arrival);
        self.drain()
    }

    pub(super) fn say(&mut self, socket: u64, message: ClientMessage) -> Vec<Effect> {
        self.room.handle_message(self.now, SocketId(socket), message);
        self.drain()
    }

    pub(super) fn hear(&mut self, event: Event) -> Vec<Effect> {
        self.room.handle_media_event(self.now, event);
        self.drain()
    }

    pub(super) fn lose(&mut self, socket: u64) -> Vec<Effect> {
        self.room.handle_socket_lost(self.now, SocketId(socket));
        self.drain()
    }

    fn make_place(&mut self) -> Vec<Effect> {
        self.room.handle_move(self.now);
        self.drain()
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.room.handle_timeout(self.now);
        self.drain()
    }
}

pub(super) fn newcomer(peer: u64, name: &str) -> Arrival {
    Arrival {
        fresh: PeerId(peer),
        fresh_resume: format!("resume-{peer}"),
        resume: None,
        may_begin: true,
        role: Role::Member,
        name: name.into(),
        version: 1,
        loopback: false,
    }
}

pub(super) fn returning(peer: u64, name: &str) -> Arrival {
    Arrival { resume: Some(vouched(peer, false)), may_begin: false, ..newcomer(1_000_000 + peer, name) }
}

fn vouched(peer: u64, may_return: bool) -> Returning {
    Returning { member: PeerId(peer), role: Role::Host, resume: format!("again-{peer}"), may_return }
}

pub(super) fn mid(text: &str) -> Mid {
    Mid::new(text).expect("a token")
}

pub(super) fn up(kind: UpKind, active: bool) -> UpState {
    UpState { kind, active, height_px: 0 }
}

fn offer(revision: u32) -> ClientMessage {
    let ups = vec![UpLine { mid: mid("0"), kind: UpKind::Microphone }];
    ClientMessage::Offer { revision, sdp: SDP.into(), ups }
}

fn wish(line: &str, peer: u64, kind: UpKind) -> SlotWish {
    SlotWish { mid: mid(line), up: Some(Up { peer: PeerId(peer), kind }), height_px: 360 }
}

fn two_people() -> Script {
    let mut script = Script::new();
    script.arrive(1, newcomer(11, "Ana"));
    script.arrive(2, newcomer(12, "Luis"));
    script
}
