//! What members may do, and what is refused.

use super::*;

fn error_of(effects: &[Effect]) -> Option<ErrorCode> {
    match effects {
        [Effect::Send { message: ServerMessage::Error { code, fatal: false, .. }, .. }] => Some(*code),
        _ => None,
    }
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
