//! How often everyone is told of everyone: comings, goings and changes, in large meetings several at a time.
//!
//! Told one by one they cost a meeting the square of its size: 500 people who come to 500 others are 125,000 messages, and
//! each wakes a task and makes a packet, on both sides. Up to [`TOLD_AT_ONCE`] people nothing is held back. Above, what follows
//! other news too closely waits until the meeting's share of messages allows it, and then goes out as one. Nothing is
//! reordered: whoever is told anything else that concerns everyone is told what waits first.

use crate::protocol::ServerMessage;
use asamblea_seam::PeerId;
use std::time::{Duration, Instant};

/// Meetings up to this size are told at once whatever happens: a thousand messages if everyone comes at the same time.
pub(super) const TOLD_AT_ONCE: usize = 32;

/// Messages of one meeting in a second, about: at 100 people news waits for two thirds of a second at most, at 500 for less
/// than four. Who is shown or heard is told of at once all the same.
const MESSAGES_PER_SECOND: usize = 150;

/// Most news that waits: what a storm of 75 people a second leaves behind among 500.
const WAITING_MAX: usize = 256;

/// What waits to be told to everyone.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// In order; `None` where something newer of the same kind replaced it.
    waiting: Vec<Option<ServerMessage>>,
    /// The number of the first that waits. Numbers are never used twice.
    first: u64,
    told_at: Option<Instant>,
    due_at: Option<Instant>,
}

impl Roster {
    /// Takes news in a meeting of so many. What is given back is to be told at once.
    pub(super) fn take(
        &mut self,
        now: Instant,
        people: usize,
        message: ServerMessage,
    ) -> Option<ServerMessage> {
        let wait = match people {
            0..=TOLD_AT_ONCE => Duration::ZERO,
            _ => Duration::from_secs(1) * people as u32 / MESSAGES_PER_SECOND as u32,
        };
        let may_at = self.told_at.map_or(now, |at| at + wait);
        if self.waiting.is_empty() && may_at <= now {
            self.told_at = Some(now);
            return Some(message);
        }
        if let ServerMessage::Changed { member } = &message {
            // It says all of its member, so an earlier one has nothing more to say.
            let is_older = |it: &&mut Option<ServerMessage>| matches!(it, Some(ServerMessage::Changed { member: older }) if older.id == member.id);
            if let Some(older) = self.waiting.iter_mut().find(is_older) {
                *older = None;
            }
        }
        self.waiting.push(Some(message));
        self.due_at = Some(if self.waiting.len() >= WAITING_MAX { now } else { may_at });
        None
    }

    /// When what waits is to be told.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// The number of the next news. Whoever is shown everyone as they are now needs nothing from before it.
    pub(super) fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// Whether someone's coming waits: the others do not know them yet.
    pub(super) fn holds_back(&self, peer: PeerId) -> bool {
        let is_theirs =
            |it: &ServerMessage| matches!(it, ServerMessage::Joined { member } if member.id == peer);
        self.waiting.iter().flatten().any(is_theirs)
    }

    /// Takes all that waits, each with its number.
    pub(super) fn tell(&mut self, now: Instant) -> Vec<(u64, ServerMessage)> {
        self.due_at = None;
        if !self.waiting.is_empty() {
            self.told_at = Some(now);
        }
        let first = self.first;
        self.first = self.next();
        let numbered = self.waiting.drain(..).enumerate();
        numbered.filter_map(|(place, it)| Some((first + place as u64, it?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ClientMessage;
    use crate::room::tests::{Script, mid, newcomer, returning, up};
    use crate::room::{Effect, SocketId};
    use asamblea_seam::{Event, Line, PeerLine, RoomId, SlotState, Up, UpKind};

    const MS: Duration = Duration::from_millis(1);

    /// A meeting of so many, whose people have sockets and ids of the same numbers from 1 on.
    fn meeting(people: u64) -> Script {
        let mut script = Script::new();
        for person in 1..=people {
            script.arrive(person, newcomer(person, "Ana"));
            script.wait(Duration::from_secs(1));
        }
        script
    }

    /// Who comes and goes in what everyone is told of everyone, and to whom it goes.
    fn told(effects: &[Effect]) -> Vec<(Vec<u64>, Vec<String>)> {
        let name = |message: &ServerMessage| match message {
            ServerMessage::Joined { member } => Some(format!("joined {}", member.id.0)),
            ServerMessage::Changed { member } => Some(format!("changed {}", member.id.0)),
            ServerMessage::Left { member } => Some(format!("left {}", member.0)),
            _ => None,
        };
        let told = effects.iter().filter_map(|effect| {
            let (sockets, messages) = match effect {
                Effect::Send { sockets, message } => (sockets, std::slice::from_ref(message)),
                Effect::SendAll { sockets, messages } => (sockets, &messages[..]),
                _ => return None,
            };
            let sockets = sockets.iter().map(|socket| socket.0).collect();
            Some((sockets, messages.iter().filter_map(name).collect::<Vec<_>>()))
        });
        told.filter(|(_, messages)| !messages.is_empty()).collect()
    }

    #[test]
    fn up_to_32_people_hear_of_everything_at_once() {
        let mut script = meeting(30);
        for person in [100, 101] {
            assert_eq!(told(&script.arrive(person, newcomer(person, "Eva"))).len(), 1);
        }
        assert_eq!(script.room.roster.due_at(), None);
    }

    #[test]
    fn in_a_large_meeting_arrivals_that_follow_each_other_are_told_together() {
        let mut script = meeting(40);
        let first = told(&script.arrive(100, newcomer(100, "Eva")));
        assert_eq!(first, [((1..=40).collect(), vec!["joined 100".to_owned()])], "nothing to wait for");
        for person in [101, 102] {
            assert!(told(&script.arrive(person, newcomer(person, "Luis"))).is_empty());
        }
        // 43 people and 150 messages a second.
        assert!(told(&script.wait(286 * MS)).is_empty());
        let mut everyone: Vec<u64> = (1..=40).collect();
        everyone.push(100);
        assert_eq!(
            told(&script.wait(2 * MS)),
            [
                (everyone, vec!["joined 101".to_owned(), "joined 102".to_owned()]),
                (vec![101], vec!["joined 102".to_owned()]),
            ],
            "nobody hears of who was there in their welcome, or of themselves"
        );
        assert!(told(&script.wait(Duration::from_secs(1))).is_empty());
    }

    #[test]
    fn of_changes_the_last_is_told_and_order_is_kept() {
        let mut script = meeting(40);
        let rename = |name: &str| ClientMessage::Rename { name: name.into() };
        script.say(1, rename("Ana 1"));
        script.say(1, rename("Ana 2"));
        script.say(2, ClientMessage::Leave {});
        script.say(3, ClientMessage::Publish { ups: vec![up(UpKind::Microphone, true)] });
        script.say(1, rename("Ana 3"));
        let effects = script.wait(Duration::from_secs(1));
        let [(sockets, messages)] = &told(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!((sockets.len(), sockets[0]), (39, 1), "and who changed is told, too");
        assert_eq!(messages, &["left 2", "changed 3", "changed 1"]);
        let Effect::SendAll { messages, .. } = &effects[0] else { panic!("{effects:?}") };
        assert!(matches!(&messages[2], ServerMessage::Changed { member } if member.name == "Ana 3"));
    }

    #[test]
    fn who_returns_meanwhile_is_told_nothing_older_than_what_they_were_shown() {
        let mut script = meeting(40);
        script.say(1, ClientMessage::Rename { name: "Eva".into() });
        script.lose(2);
        script.arrive(202, returning(2, "Ana"));
        script.arrive(100, newcomer(100, "Luis"));
        let effects = told(&script.wait(Duration::from_secs(1)));
        let of_the_returned = effects.iter().find(|(sockets, _)| sockets.contains(&202)).expect("told");
        assert_eq!(of_the_returned.1, ["joined 100"]);
    }

    #[test]
    fn nobody_is_shown_or_told_of_someone_they_do_not_know() {
        let slots = |peer| {
            let up = Some(Up { peer: PeerId(peer), kind: UpKind::Microphone });
            Event::Slots { peer: PeerId(7), slots: vec![SlotState { mid: mid("0"), up, paused: false }] }
        };
        let mut script = meeting(40);
        script.arrive(100, newcomer(100, "Eva"));
        script.arrive(101, newcomer(101, "Luis"));
        assert!(told(&script.hear(slots(3))).is_empty());
        assert_eq!(told(&script.hear(slots(101)))[0].1, ["joined 101"]);
        script.arrive(102, newcomer(102, "Eva"));
        let lines = vec![PeerLine { peer: PeerId(102), line: Line::Weak }];
        let effects = script.hear(Event::Lines { room: RoomId(1), lines });
        assert_eq!(told(&effects)[0].1, ["joined 102"]);
        assert!(matches!(effects.last(), Some(Effect::Send { message: ServerMessage::Lines { .. }, .. })));
        script.arrive(103, newcomer(103, "Eva"));
        script.room.handle_stop();
        let first = script.room.poll_effect();
        assert!(matches!(first, Some(Effect::SendAll { sockets, .. }) if !sockets.contains(&SocketId(103))));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut roster = Roster::default();
        let now = Instant::now();
        let left = |peer| ServerMessage::Left { member: PeerId(peer) };
        assert!(roster.take(now, 1_000, left(0)).is_some());
        for peer in 1..=WAITING_MAX as u64 {
            assert!(
                roster
                    .due_at()
                    .is_none_or(|at| at == now + Duration::from_secs(1) * 1_000 / MESSAGES_PER_SECOND as u32)
            );
            assert!(roster.take(now, 1_000, left(peer)).is_none());
        }
        assert_eq!(roster.due_at(), Some(now));
        assert_eq!(roster.tell(now).len(), WAITING_MAX);
        assert_eq!(roster.due_at(), None);
    }
}
