use super::*;
use asamblea_seam::{DisconnectReason, Speaker, Up, UpLine};
use proptest::prelude::*;
use std::time::Duration;

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

fn error_of(effects: &[Effect]) -> Option<ErrorCode> {
    match effects {
        [Effect::Send { message: ServerMessage::Error { code, fatal: false, .. }, .. }] => Some(*code),
        _ => None,
    }
}

fn two_people() -> Script {
    let mut script = Script::new();
    script.arrive(1, newcomer(11, "Ana"));
    script.arrive(2, newcomer(12, "Luis"));
    script
}

#[test]
fn who_comes_is_welcomed_and_the_others_are_told() {
    let mut script = Script::new();
    script.arrive(1, newcomer(11, "Ana"));
    let effects = script.arrive(2, newcomer(12, "Luis"));
    let [
        Effect::Media(join),
        Effect::Send { sockets, message: welcome },
        Effect::Send { sockets: others, message: joined },
    ] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*join, Command::Join { room: RoomId(1), peer: PeerId(12), loopback: false });
    assert_eq!(*sockets, [SocketId(2)]);
    let ServerMessage::Welcome { member, resumed, members, meeting, revision, .. } = welcome else {
        panic!()
    };
    assert_eq!((*member, *resumed, meeting.as_str(), *revision), (PeerId(12), false, "plaza", 0));
    assert_eq!(members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["Ana", "Luis"]);
    assert_eq!(*others, [SocketId(1)]);
    assert!(matches!(joined, ServerMessage::Joined { member } if member.id == PeerId(12) && member.present));
}

#[test]
fn who_leaves_is_gone_at_once_and_an_empty_room_is_empty() {
    let mut script = two_people();
    let effects = script.say(1, ClientMessage::Leave {});
    assert_eq!(
        effects,
        [
            Effect::Send {
                sockets: vec![SocketId(1)],
                message: ServerMessage::Bye { reason: ByeReason::Left }
            },
            Effect::Close { socket: SocketId(1) },
            Effect::Media(Command::Leave { peer: PeerId(11) }),
            Effect::Send { sockets: vec![SocketId(2)], message: ServerMessage::Left { member: PeerId(11) } },
        ]
    );
    assert!(script.lose(1).is_empty(), "the socket's end says nothing new");
    script.say(2, ClientMessage::Leave {});
    assert!(script.room.is_empty());
    assert_eq!(script.room.poll_timeout(), None);
}

#[test]
fn a_lost_socket_is_seen_at_once_and_taken_up_again_without_touching_media() {
    let mut script = two_people();
    script.say(1, offer(1));
    script.hear(Event::Connected { peer: PeerId(11) });
    script.hear(Event::Slots {
        peer: PeerId(11),
        slots: vec![SlotState { mid: mid("1"), up: None, paused: false }],
    });
    let effects = script.lose(1);
    assert!(matches!(&effects[..],
        [Effect::Send { sockets, message: ServerMessage::Changed { member } }]
            if *sockets == [SocketId(2)] && !member.present));
    script.wait(Duration::from_secs(59));
    let effects = script.arrive(3, returning(11, "Ana"));
    let [
        Effect::Send { message: welcome, .. },
        Effect::Send { message: media, .. },
        Effect::Heard { socket: SocketId(3), is_heard: true },
        Effect::Send { message: changed, .. },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    let ServerMessage::Welcome { member, resumed, revision, slots, resume, .. } = welcome else { panic!() };
    assert_eq!((*member, *resumed, *revision, slots.len()), (PeerId(11), true, 1, 1));
    assert_eq!(resume, "again-11");
    assert_eq!(*media, ServerMessage::Media { state: MediaState::Connected });
    assert!(matches!(changed, ServerMessage::Changed { member } if member.present));
}

#[test]
fn who_does_not_return_in_time_is_gone() {
    let resume = Timing::default().resume;
    let mut script = two_people();
    script.lose(1);
    let gone = Effect::Media(Command::Leave { peer: PeerId(11) });
    let second = Duration::from_secs(1);
    assert!(!script.wait(resume - second).contains(&gone));
    assert!(script.room.poll_timeout().is_some_and(|at| at <= script.now + second));
    assert!(script.wait(second).contains(&gone));
    let effects = script.arrive(3, returning(11, "Ana"));
    assert!(matches!(
        &effects[..],
        [
            Effect::Send {
                message: ServerMessage::Error { code: ErrorCode::InvalidToken, fatal: true, .. },
                ..
            },
            Effect::Close { .. }
        ]
    ));
    let again = Arrival { may_begin: true, ..returning(11, "Ana") };
    let effects = script.arrive(4, again);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Send { message: ServerMessage::Welcome { resumed: false, revision: 0, .. }, .. }
    )));
}

#[test]
fn a_second_socket_replaces_the_first() {
    let mut script = two_people();
    let effects = script.arrive(3, returning(11, "Ana"));
    assert_eq!(
        effects[..2],
        [
            Effect::Send {
                sockets: vec![SocketId(1)],
                message: ServerMessage::Bye { reason: ByeReason::Replaced }
            },
            Effect::Close { socket: SocketId(1) },
        ]
    );
    assert_eq!(effects.len(), 3, "for the others nothing has changed: {effects:?}");
    assert!(script.say(1, ClientMessage::Leave {}).is_empty(), "the replaced socket has no say any more");
    assert!(script.lose(1).is_empty());
    assert!(!script.say(3, ClientMessage::Rename { name: "Anita".into() }).is_empty());
}

#[test]
fn what_someone_sends_is_told_to_everyone_once() {
    let mut script = two_people();
    let message =
        ClientMessage::Publish { ups: vec![up(UpKind::Camera, true), up(UpKind::Microphone, false)] };
    let effects = script.say(1, message.clone());
    let sorted = vec![up(UpKind::Microphone, false), up(UpKind::Camera, true)];
    assert_eq!(effects[0], Effect::Media(Command::Publish { peer: PeerId(11), ups: sorted.clone() }));
    assert!(matches!(&effects[1], Effect::Send { sockets, message: ServerMessage::Changed { member } }
        if sockets.len() == 2 && member.ups == sorted));
    assert!(script.say(1, message).is_empty());
}

#[test]
fn an_offer_is_answered_by_the_media_plane_and_only_the_newest_counts() {
    let mut script = two_people();
    assert!(matches!(&script.say(1, offer(1))[..], [Effect::Media(Command::Offer { revision: 1, .. })]));
    assert_eq!(error_of(&script.say(1, offer(1))), Some(ErrorCode::OfferRefused));
    script.say(1, offer(7));
    let answer = |revision| Event::Answer { peer: PeerId(11), revision, sdp: "v=0".into() };
    assert!(script.hear(answer(1)).is_empty(), "overtaken by a newer offer");
    assert!(matches!(&script.hear(answer(7))[..],
        [Effect::Send { sockets, message: ServerMessage::Answer { revision: 7, .. } }] if *sockets == [SocketId(1)]));
    let refused = Event::OfferRefused { peer: PeerId(11), revision: 7, reason: "no BUNDLE".into() };
    assert_eq!(error_of(&script.hear(refused)), Some(ErrorCode::OfferRefused));
}

#[test]
fn forged_and_repeated_references_are_refused_and_change_nothing() {
    let mut script = two_people();
    script.say(1, offer(1));
    let bad_view = |slots| ClientMessage::View { slots };
    for (message, why) in [
        (bad_view(vec![wish("9", 12, UpKind::Camera)]), "unknown line"),
        (bad_view(vec![wish("1", 99, UpKind::Camera)]), "unknown member"),
        (bad_view(vec![wish("1", 12, UpKind::Microphone)]), "not to be seen"),
        (bad_view(vec![wish("1", 12, UpKind::Camera), wish("1", 12, UpKind::Screen)]), "line twice"),
        (
            ClientMessage::Publish { ups: vec![up(UpKind::Camera, true), up(UpKind::Camera, false)] },
            "kind twice",
        ),
        (
            ClientMessage::Offer {
                revision: 2,
                sdp: SDP.into(),
                ups: vec![UpLine { mid: mid("8"), kind: UpKind::Camera }],
            },
            "up on an unknown line",
        ),
    ] {
        assert_eq!(error_of(&script.say(1, message)), Some(ErrorCode::UnknownReference), "{why}");
    }
    let too_many = (0..=SLOTS_MAX).map(|_| wish("1", 12, UpKind::Camera)).collect();
    assert_eq!(error_of(&script.say(1, bad_view(too_many))), Some(ErrorCode::Malformed));
    let fine = bad_view(vec![wish("1", 12, UpKind::Camera), wish("2", 12, UpKind::Screen)]);
    assert!(matches!(&script.say(1, fine)[..], [Effect::Media(Command::View { .. })]));
}

#[test]
fn hello_twice_is_refused() {
    let mut script = two_people();
    let hello =
        ClientMessage::Hello { versions: vec![1], token: String::new(), name: String::new(), resume: None };
    assert_eq!(error_of(&script.say(1, hello)), Some(ErrorCode::AlreadyJoined));
    assert_eq!(error_of(&script.arrive(1, newcomer(13, "Eva"))), Some(ErrorCode::AlreadyJoined));
}

#[test]
fn a_role_may_do_only_what_its_row_lists() {
    let settings = RoomSettings {
        authorization: Authorization(&[(Role::Member, &[Act::View, Act::Leave])]),
        ..settings()
    };
    let mut script = Script::with(settings);
    script.arrive(1, newcomer(11, "Ana"));
    script.arrive(2, Arrival { role: Role::Host, ..newcomer(12, "Luis") });
    assert_eq!(error_of(&script.say(1, offer(1))), Some(ErrorCode::NotAllowed));
    assert!(error_of(&script.say(1, ClientMessage::View { slots: vec![] })).is_none());
    assert_eq!(error_of(&script.say(2, ClientMessage::Leave {})), Some(ErrorCode::NotAllowed), "no row");
}

#[test]
fn a_full_meeting_turns_newcomers_away_but_not_those_who_return() {
    let mut script = Script::new();
    for n in 0..MEMBERS_MAX as u64 {
        script.arrive(n, newcomer(1000 + n, "x"));
    }
    script.lose(5);
    let effects = script.arrive(900, newcomer(9000, "late"));
    assert!(matches!(
        &effects[..],
        [
            Effect::Send {
                message: ServerMessage::Error { code: ErrorCode::MeetingFull, fatal: true, .. },
                ..
            },
            Effect::Close { .. }
        ]
    ));
    let effects = script.arrive(901, returning(1005, "x"));
    assert!(matches!(
        &effects[0],
        Effect::Send { message: ServerMessage::Welcome { resumed: true, .. }, .. }
    ));
}

#[test]
fn peers_whose_media_state_is_lost_are_joined_anew() {
    let mut script = two_people();
    script.say(1, ClientMessage::Publish { ups: vec![up(UpKind::Camera, true)] });
    let effects = script.hear(Event::Lost { peers: vec![PeerId(11), PeerId(99)] });
    assert!(matches!(
        &effects[..],
        [
            Effect::Media(Command::Leave { peer: PeerId(11) }),
            Effect::Media(Command::Join { peer: PeerId(11), .. }),
            Effect::Media(Command::Publish { peer: PeerId(11), .. }),
            Effect::Send { message: ServerMessage::Media { state: MediaState::Lost }, .. },
        ]
    ));
}

#[test]
fn media_that_was_lost_while_someone_was_away_is_told_on_their_return() {
    let mut script = two_people();
    script.lose(1);
    script.hear(Event::Lost { peers: vec![PeerId(11)] });
    let effects = script.arrive(3, returning(11, "Ana"));
    assert!(matches!(
        &effects[1],
        Effect::Send { message: ServerMessage::Media { state: MediaState::Lost }, .. }
    ));
}

#[test]
fn speakers_are_told_to_everyone_who_is_there() {
    let mut script = two_people();
    script.lose(2);
    let speakers = |room| Event::Speakers {
        room: RoomId(room),
        speakers: vec![
            Speaker { peer: PeerId(12), level_dbov: 20 },
            Speaker { peer: PeerId(77), level_dbov: 30 },
        ],
    };
    let effects = script.hear(speakers(1));
    assert_eq!(
        effects,
        [Effect::Send {
            sockets: vec![SocketId(1)],
            message: ServerMessage::Speakers {
                speakers: vec![SpeakerLevel { member: PeerId(12), level_dbov: 20 }]
            }
        }]
    );
    assert!(script.hear(speakers(2)).is_empty(), "another meeting's");
}

#[test]
fn a_stop_says_bye_to_everyone_and_ends_all_media() {
    let mut script = two_people();
    script.lose(2);
    script.room.handle_stop();
    let effects = script.drain();
    assert_eq!(
        effects,
        [
            Effect::Send {
                sockets: vec![SocketId(1)],
                message: ServerMessage::Bye { reason: ByeReason::Stopping }
            },
            Effect::Close { socket: SocketId(1) },
            Effect::Media(Command::Leave { peer: PeerId(11) }),
            Effect::Media(Command::Leave { peer: PeerId(12) }),
        ]
    );
    assert!(script.room.is_empty());
}

/// Who was welcomed as whom: member, resumed, resume token.
fn welcomed(effects: &[Effect]) -> Option<(u64, bool, String)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { message: ServerMessage::Welcome { member, resumed, resume, .. }, .. } => {
            Some((member.0, *resumed, resume.clone()))
        }
        _ => None,
    })
}

#[test]
fn a_membership_of_a_server_that_died_comes_back_with_its_id_and_role_and_media_starts_afresh() {
    let mut script = Script::new();
    script.arrive(1, newcomer(11, "Luis, who came by name"));
    let back = Arrival { may_begin: false, resume: Some(vouched(77, true)), ..newcomer(12, "Ana") };
    let effects = script.arrive(2, back.clone());
    assert_eq!(welcomed(&effects), Some((77, false, "again-77".into())));
    assert_eq!(
        effects[0],
        Effect::Media(Command::Join { room: RoomId(1), peer: PeerId(77), loopback: false })
    );
    assert_eq!(script.room.members[&PeerId(77)].role, Role::Host, "the join token says member");
    // The same token once more is the same person on another socket.
    let effects = script.arrive(3, back);
    assert!(matches!(&effects[0],
        Effect::Send { sockets, message: ServerMessage::Bye { reason: ByeReason::Replaced } } if *sockets == [SocketId(2)]));
    assert_eq!(welcomed(&effects), Some((77, true, "again-77".into())));
    assert_eq!(script.room.members.len(), 2);
}

#[test]
fn a_membership_that_ended_here_does_not_come_back_and_its_role_neither() {
    let mut script = two_people();
    script.say(1, ClientMessage::Leave {});
    let again = Arrival { may_begin: true, ..returning(11, "Ana") };
    let effects = script.arrive(3, again);
    assert_eq!(welcomed(&effects), Some((1_000_011, false, "resume-1000011".into())));
    assert_eq!(script.room.members[&PeerId(1_000_011)].role, Role::Member);
}

/// Whose token is renewed, as (socket, member).
fn renewed(effects: &[Effect]) -> Vec<(u64, u64)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Renew { socket, member, .. } => Some((socket.0, member.0)),
            _ => None,
        })
        .collect()
}

#[test]
fn who_is_here_gets_fresh_resume_tokens_in_seconds_that_their_ids_draw() {
    let mut script = Script::new();
    let (renew, second) = (Timing::default().renew, Duration::from_secs(1));
    // 10 s after they came at least: 17, 17 and 12.3 s.
    for (socket, peer) in [(1, 7_000), (2, 37_000), (3, 2_300)] {
        script.arrive(socket, newcomer(peer, "someone"));
    }
    let began = script.now;
    let mut served = Vec::new();
    for _ in 0..4 {
        let at = script.room.poll_timeout().expect("somebody is here");
        let effects = script.wait(at - script.now);
        served.push((at - began, renewed(&effects)));
    }
    let (first, others) = (vec![(3, 2_300)], vec![(1, 7_000), (2, 37_000)]);
    assert_eq!(
        served,
        [
            (13 * second, first.clone()),
            (17 * second, others.clone()),
            (renew + 13 * second, first),
            (renew + 17 * second, others)
        ]
    );
}

#[test]
fn who_comes_back_has_tokens_renewed_again_and_does_not_end() {
    let mut script = Script::new();
    let Timing { renew, resume, .. } = Timing::default();
    for (socket, peer) in [(1, 5_000), (2, 6_000)] {
        script.arrive(socket, newcomer(peer, "someone"));
    }
    script.lose(1);
    assert_eq!(renewed(&script.wait(Duration::from_secs(15))), [], "nobody is there to get it");
    assert_eq!(renewed(&script.wait(Duration::from_secs(1))), [(2, 6_000)]);
    script.wait(resume - Duration::from_secs(17));
    script.arrive(3, returning(5_000, "someone"));
    assert_eq!(renewed(&script.wait(Duration::from_secs(15))), [(3, 5_000)]);
    assert_eq!(renewed(&script.wait(renew)).last(), Some(&(3, 5_000)));
    script.wait(resume);
    assert_eq!(script.room.members.len(), 2, "both are here");
    script.say(3, ClientMessage::Leave {});
    script.lose(2);
    assert_eq!(script.room.poll_timeout(), Some(script.now + resume));
    script.wait(resume);
    assert_eq!((script.room.is_empty(), script.room.poll_timeout()), (true, None));
}

/// Whether media speak for a socket, as its task was last told.
fn heard(effects: &[Effect]) -> Vec<(u64, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Heard { socket, is_heard } => Some((socket.0, *is_heard)),
            _ => None,
        })
        .collect()
}

#[test]
fn whose_media_arrive_is_not_asked_for_signs_of_life() {
    let mut script = two_people();
    let peer = PeerId(11);
    assert_eq!(heard(&script.hear(Event::Connected { peer })), [(1, true)]);
    assert_eq!(heard(&script.hear(Event::Connected { peer })), [], "nothing new");
    let line = |line| Event::Lines { room: RoomId(1), lines: vec![PeerLine { peer, line }] };
    assert_eq!(heard(&script.hear(line(Line::Weak))), []);
    assert_eq!(heard(&script.hear(line(Line::Lost))), [(1, false)]);
    assert_eq!(heard(&script.hear(line(Line::Good))), [(1, true)]);
    // On another socket, as long as media arrive.
    script.lose(1);
    assert_eq!(heard(&script.arrive(3, returning(11, "Ana"))), [(3, true)]);
    let reason = DisconnectReason::ConsentExpired;
    assert_eq!(heard(&script.hear(Event::Disconnected { peer, reason })), [(3, false)]);
    script.lose(3);
    assert_eq!(heard(&script.arrive(4, returning(11, "Ana"))), []);
    assert_eq!(heard(&script.hear(Event::Connected { peer })), [(4, true)]);
    assert_eq!(heard(&script.hear(Event::Lost { peers: vec![peer] })), [(4, false)]);
    // Of somebody who is away nobody is told.
    script.hear(Event::Connected { peer });
    script.lose(4);
    assert_eq!(heard(&script.hear(line(Line::Lost))), []);
}

#[test]
fn a_move_is_told_to_everyone_and_media_goes_on_until_it_is_closed() {
    let mut script = two_people();
    script.arrive(3, newcomer(13, "Eva, whose media never came up"));
    script.hear(Event::Connected { peer: PeerId(11) });
    script.hear(Event::Connected { peer: PeerId(12) });
    let effects = script.make_place();
    let everyone = [SocketId(1), SocketId(2), SocketId(3)];
    assert_eq!(
        effects[0],
        Effect::Send {
            sockets: everyone.to_vec(),
            message: ServerMessage::Bye { reason: ByeReason::Moving }
        }
    );
    assert_eq!(effects[1..4], everyone.map(|socket| Effect::Close { socket }));
    assert_eq!(effects[4..], [Effect::Media(Command::Leave { peer: PeerId(13) })]);
    assert_eq!(
        script.arrive(4, returning(11, "Ana")),
        [
            Effect::Send {
                sockets: vec![SocketId(4)],
                message: ServerMessage::Bye { reason: ByeReason::Moving }
            },
            Effect::Close { socket: SocketId(4) },
        ]
    );
    let closed = |peer| Event::Disconnected { peer: PeerId(peer), reason: DisconnectReason::Closed };
    assert_eq!(script.hear(closed(11)), [Effect::Media(Command::Leave { peer: PeerId(11) })]);
    assert!(!script.room.is_empty());
    script.hear(Event::Lost { peers: vec![PeerId(12)] });
    assert!(script.room.is_empty());
}

#[test]
fn what_is_wanted_and_held_back_is_told_to_whom_it_concerns_and_kept_for_their_return() {
    let mut script = two_people();
    let wanted = vec![UpWanted {
        kind: UpKind::Camera,
        layers: vec![true, false, false],
        bps_max: vec![90_000, 0, 0],
    }];
    assert_eq!(
        script.hear(Event::Wanted { peer: PeerId(11), ups: wanted.clone() }),
        [Effect::Send { sockets: vec![SocketId(1)], message: ServerMessage::Wanted { ups: wanted.clone() } }]
    );
    assert!(script.hear(Event::Wanted { peer: PeerId(99), ups: wanted.clone() }).is_empty());
    let up = Some(Up { peer: PeerId(12), kind: UpKind::Camera });
    let held = vec![SlotState { mid: mid("1"), up, paused: true }];
    assert_eq!(
        script.hear(Event::Slots { peer: PeerId(11), slots: held.clone() }),
        [Effect::Send { sockets: vec![SocketId(1)], message: ServerMessage::Slots { slots: held.clone() } }]
    );
    script.lose(1);
    let effects = script.arrive(3, returning(11, "Ana"));
    assert!(
        matches!(&effects[0], Effect::Send { message: ServerMessage::Welcome { wanted: told, slots, .. }, .. }
            if *told == wanted && *slots == held),
        "{effects:?}"
    );
}

#[test]
fn lines_are_told_to_everyone_when_they_change_and_shown_to_who_comes_later() {
    let mut script = two_people();
    let lines = |room, peer, line| Event::Lines {
        room: RoomId(room),
        lines: vec![PeerLine { peer: PeerId(peer), line }, PeerLine { peer: PeerId(99), line: Line::Lost }],
    };
    let told = vec![MemberLine { member: PeerId(11), line: Line::Weak }];
    assert_eq!(
        script.hear(lines(1, 11, Line::Weak)),
        [Effect::Send {
            sockets: vec![SocketId(1), SocketId(2)],
            message: ServerMessage::Lines { lines: told }
        }]
    );
    assert!(script.hear(lines(1, 11, Line::Weak)).is_empty(), "nothing new");
    assert!(script.hear(lines(2, 11, Line::Lost)).is_empty(), "another meeting's");
    let effects = script.arrive(3, newcomer(13, "Eva"));
    assert!(matches!(&effects[1], Effect::Send { message: ServerMessage::Welcome { members, .. }, .. }
        if members[0].line == Line::Weak && members[1].line == Line::Good));
}

/// Anything that can happen to a room, from a handful of sockets and peers, so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Arrive { socket: u64, fresh: u64, resume: Option<(u64, bool)>, name: String },
    Say { socket: u64, message: ClientMessage },
    Hear(Event),
    Lose(u64),
    Wait(u64),
    Move,
}

fn any_kind() -> impl Strategy<Value = UpKind> {
    prop::sample::select(UpKind::ALL.to_vec())
}

fn any_mid() -> impl Strategy<Value = Mid> {
    (0..6u8).prop_map(|n| mid(&n.to_string()))
}

fn any_message() -> impl Strategy<Value = ClientMessage> {
    let up_line = (any_mid(), any_kind()).prop_map(|(mid, kind)| UpLine { mid, kind });
    let up_state = (any_kind(), any::<bool>(), any::<u16>()).prop_map(|(kind, active, height_px)| UpState {
        kind,
        active,
        height_px,
    });
    let slot = (any_mid(), prop::option::of((0..8u64, any_kind())), any::<u16>()).prop_map(
        |(mid, up, height_px)| SlotWish {
            mid,
            up: up.map(|(peer, kind)| Up { peer: PeerId(peer), kind }),
            height_px,
        },
    );
    prop_oneof![
        (0..5u32, prop::collection::vec(up_line, 0..4)).prop_map(|(revision, ups)| ClientMessage::Offer {
            revision,
            sdp: SDP.into(),
            ups
        }),
        prop::collection::vec(up_state, 0..4).prop_map(|ups| ClientMessage::Publish { ups }),
        prop::collection::vec(slot, 0..4).prop_map(|slots| ClientMessage::View { slots }),
        ".{0,80}".prop_map(|name| ClientMessage::Rename { name }),
        any::<u32>().prop_map(|nonce| ClientMessage::Pong { nonce }),
        any::<u32>().prop_map(|nonce| ClientMessage::Ping { nonce }),
        Just(ClientMessage::Leave {}),
        Just(ClientMessage::Hello { versions: vec![1], token: "t".into(), name: "n".into(), resume: None }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let peer = || (0..8u64).prop_map(PeerId);
    prop_oneof![
        (peer(), 0..5u32).prop_map(|(peer, revision)| Event::Answer { peer, revision, sdp: "v=0".into() }),
        (peer(), 0..5u32).prop_map(|(peer, revision)| Event::OfferRefused {
            peer,
            revision,
            reason: "no".into()
        }),
        peer().prop_map(|peer| Event::Connected { peer }),
        peer().prop_map(|peer| Event::Disconnected { peer, reason: DisconnectReason::Closed }),
        (peer(), any_mid()).prop_map(|(peer, mid)| Event::Slots {
            peer,
            slots: vec![SlotState { mid, up: None, paused: false }]
        }),
        prop::collection::vec(peer(), 0..3).prop_map(|peers| Event::Lost { peers }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6u64, prop::option::of((0..8u64, any::<bool>())), ".{0,20}")
            .prop_map(|(socket, resume, name)| Step::Arrive { socket, fresh: 0, resume, name }),
        8 => (0..6u64, any_message()).prop_map(|(socket, message)| Step::Say { socket, message }),
        2 => any_event().prop_map(Step::Hear),
        2 => (0..6u64).prop_map(Step::Lose),
        1 => (0..70u64).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.1).prop_map(|moves| if moves { Step::Move } else { Step::Wait(60) }),
    ]
}

/// Peers get ids in order of their steps, so that both runs of a script agree and ids are never reused.
fn numbered(mut steps: Vec<Step>) -> Vec<Step> {
    let mut next = 0;
    for step in &mut steps {
        if let Step::Arrive { fresh, .. } = step {
            *fresh = next;
            next += 1;
        }
    }
    steps
}

const FEW: usize = 4;

fn run(steps: &[Step], start: Instant) -> Result<Vec<Effect>, TestCaseError> {
    let settings = RoomSettings { members_max: FEW, ..settings() };
    let mut script = Script::with(settings);
    script.now = start;
    for step in steps {
        let shown = |script: &Script| -> Vec<Member> {
            script.room.members.iter().map(|(&id, member)| member.shown(id)).collect()
        };
        match step.clone() {
            Step::Arrive { socket, fresh, resume, name } => {
                // Memberships of a server that died have ids that no newcomer gets.
                let resume = resume.map(|(peer, back)| vouched(if back { 1_000 + peer } else { peer }, back));
                script.arrive(socket, Arrival { resume, ..newcomer(fresh, &name) });
            }
            Step::Say { socket, message } => {
                let speaker = script.room.sockets.get(&SocketId(socket)).copied();
                let others = |members: Vec<Member>| -> Vec<Member> {
                    members.into_iter().filter(|member| Some(member.id) != speaker).collect()
                };
                let before = others(shown(&script));
                let effects = script.say(socket, message);
                prop_assert_eq!(others(shown(&script)), before, "a message changed someone else");
                for effect in effects {
                    if let Effect::Media(
                        Command::Leave { peer }
                        | Command::Offer { peer, .. }
                        | Command::Publish { peer, .. }
                        | Command::View { peer, .. },
                    ) = effect
                    {
                        prop_assert_eq!(Some(peer), speaker, "a message commanded someone else's media");
                    }
                }
            }
            Step::Hear(event) => drop(script.hear(event)),
            Step::Lose(socket) => drop(script.lose(socket)),
            Step::Wait(seconds) => drop(script.wait(Duration::from_secs(seconds))),
            Step::Move => drop(script.make_place()),
        }
        let room = &script.room;
        prop_assert!(room.members.len() <= FEW);
        prop_assert!(room.sockets.len() <= room.members.len());
        let dates: BTreeSet<_> = room.members.iter().map(|(id, member)| (member.due, *id)).collect();
        prop_assert_eq!(&room.dates, &dates, "each membership has one date");
        for (id, member) in &room.members {
            prop_assert!(member.ups.len() <= UpKind::ALL.len());
            prop_assert!(member.slots.len() <= OFFER_LINES_MAX && member.mids.len() <= OFFER_LINES_MAX);
            if let Some(socket) = member.socket {
                prop_assert_eq!(room.sockets.get(&socket), Some(id));
            }
        }
        prop_assert!(
            room.poll_timeout().is_none_or(|at| at > script.now),
            "a timeout is due and was not handled"
        );
    }
    Ok(script.said)
}

proptest! {
    #[test]
    fn whatever_is_said_harms_nobody_else_and_stays_in_bounds(steps in prop::collection::vec(any_step(), 0..60)) {
        let steps = numbered(steps);
        let start = Instant::now();
        let said = run(&steps, start)?;
        prop_assert_eq!(&run(&steps, start)?, &said, "the same script was told differently");
        // Media is joined and left in turns, for every peer.
        let mut joined = BTreeSet::new();
        for effect in said {
            match effect {
                Effect::Media(Command::Join { peer, .. }) => prop_assert!(joined.insert(peer)),
                Effect::Media(Command::Leave { peer }) => prop_assert!(joined.remove(&peer)),
                Effect::Media(Command::Offer { peer, .. } | Command::View { peer, .. }) => {
                    prop_assert!(joined.contains(&peer));
                }
                _ => {}
            }
        }
    }
}
