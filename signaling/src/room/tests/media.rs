//! What the media plane says, and who is told.

use super::*;

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
