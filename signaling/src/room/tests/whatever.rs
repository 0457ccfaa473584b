//! Whatever is said, in whatever order, harms nobody else and stays in bounds.

use super::*;
use proptest::prelude::*;

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
