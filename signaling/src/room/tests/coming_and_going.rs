//! Who comes, goes, comes back, and what becomes of memberships meanwhile.

use super::*;

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
