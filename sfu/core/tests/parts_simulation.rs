//! Many short meetings on several shards under a virtual clock: people come, go, mute, look elsewhere; parts end and begin
//! anew; what parts say to each other is slow, lost, refused.
//!
//! Every choice comes from a seed, and a failure prints its own. During the storm each packet that anyone is sent is
//! checked (see `meeting::Oracle`); in the calm after it everyone must soon see whom they wish for and hear those who
//! speak, wherever they live, and nobody who has left.
//!
//! `ASAMBLEA_SEED=17` runs one seed, `ASAMBLEA_SEEDS=10000` so many instead of the usual number.

mod meeting;

use asamblea_sfu_core::relay::FORGOTTEN_AFTER;
use meeting::{
    publishing,
    span::{PER_PART, Span},
};
use std::{cell::Cell, rc::Rc, time::Duration};

/// Steps of 40 ms. The calm is longer than what was lost is remembered, since that someone left may have been.
const STORM: u64 = 60;
const CALM: u64 = 50 + FORGOTTEN_AFTER.as_millis() as u64 / 40;

/// Most memory that a part holds for each member of the whole room.
const MEMORY_BYTES_MAX: usize = 2 << 20;

#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.0.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// Someone in the meeting.
#[derive(Clone, Debug)]
struct Member {
    at: (usize, usize),
    has_camera: bool,
    has_microphone: bool,
    /// Whom the slots v0 and v1 are to show, by number.
    wishes: [Option<usize>; 2],
}

struct Storm {
    random: Random,
    span: Span,
    members: Vec<Member>,
    linked: Vec<bool>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let random = Random(Rc::new(Cell::new(seed)));
        let parts = 2 + random.below(2) as usize;
        let mut span = Span::new(seed, parts);
        span.delay = Duration::from_micros(random.below(8_000));
        let (loss, fullness) = (random.below(30), random.below(20));
        let noise = random.clone();
        span.loses = Box::new(move |_, _| noise.below(100) < loss);
        let noise = random.clone();
        span.refuses = Box::new(move |_, _| noise.below(100) < fullness);
        let mut storm = Self { random, span, members: Vec::new(), linked: vec![true; parts] };
        for _ in 0..4 + storm.random.below(4) {
            storm.join();
        }
        storm
    }

    fn number(member: &Member) -> usize {
        member.at.0 * PER_PART + member.at.1
    }

    fn join(&mut self) {
        let part = self.random.below(self.linked.len() as u64) as usize;
        let person = self.span.parts[part].join(3, 2);
        let it = Member { at: (part, person), has_camera: true, has_microphone: true, wishes: [None; 2] };
        self.members.push(it);
        if !self.linked[part] {
            self.linked[part] = true;
            self.link();
        }
        self.view(self.members.len() - 1);
    }

    fn link(&mut self) {
        let parts: Vec<usize> = (0..self.linked.len()).filter(|part| self.linked[*part]).collect();
        self.span.link(&parts);
    }

    fn view(&mut self, member: usize) {
        let own = Self::number(&self.members[member]);
        for place in 0..2 {
            let other = Self::number(&self.members[self.random.below(self.members.len() as u64) as usize]);
            let is_other = other != own && self.members[member].wishes[1 - place] != Some(other);
            self.members[member].wishes[place] = Some(other).filter(|_| is_other);
        }
        self.say_view(member);
    }

    fn say_view(&mut self, member: usize) {
        let Member { at, wishes, .. } = self.members[member].clone();
        let height_px = [180, 360, 720][self.random.below(3) as usize];
        let wishes: Vec<_> =
            ["v0", "v1"].into_iter().zip(wishes).map(|(slot, up)| (slot, up, height_px)).collect();
        self.span.parts[at.0].view(at.1, &wishes);
    }

    fn publish(&mut self, member: usize, microphone: bool, camera: bool) {
        let it = &mut self.members[member];
        (it.has_microphone, it.has_camera) = (microphone, camera);
        let part = &mut self.span.parts[it.at.0];
        part.room.publish(part.now, part.people[it.at.1].key, &publishing(microphone, camera));
    }

    fn leave(&mut self, member: usize) {
        let Member { at, .. } = self.members.remove(member);
        let part = &mut self.span.parts[at.0];
        part.room.leave(part.now, part.people[at.1].key);
    }

    /// A part ends with all who live there, and they come again.
    fn restart(&mut self) {
        let part = self.random.below(self.linked.len() as u64) as usize;
        let count = self.span.parts[part].people.len();
        self.span.restart(part, self.random.next());
        if self.random.one_in(2) {
            // Others may have been told that it is gone.
            self.linked[part] = false;
            self.link();
        }
        for person in 0..count {
            // Ids come again in their order; whoever had left comes, and leaves at once.
            let again = self.span.parts[part].join(3, 2);
            assert_eq!(again, person);
            if !self.members.iter().any(|member| member.at == (part, person)) {
                let it = &mut self.span.parts[part];
                it.room.leave(it.now, it.people[again].key);
            }
        }
        self.linked[part] = true;
        self.link();
        let back: Vec<usize> = (0..self.members.len()).filter(|it| self.members[*it].at.0 == part).collect();
        for member in back {
            self.publish(member, true, true);
            self.say_view(member);
        }
    }

    fn act(&mut self) {
        let member = self.random.below(self.members.len() as u64) as usize;
        match self.random.below(9) {
            0 if self.members.len() < 10 => self.join(),
            1 if self.members.len() > 3 => self.leave(member),
            2 | 3 => self.view(member),
            4 | 5 => {
                let (microphone, camera) = (self.random.one_in(2), self.random.one_in(2));
                self.publish(member, microphone, camera);
            }
            6 if self.random.one_in(4) => self.restart(),
            7 => {
                let it = &mut self.span.parts[self.members[member].at.0];
                let key = it.people[self.members[member].at.1].key;
                it.room.set_connected(it.now, key, false);
                it.room.set_connected(it.now, key, true);
            }
            _ => {}
        }
    }

    /// 40 ms in which everyone sends what they say that they send.
    fn step(&mut self) {
        for member in self.members.clone() {
            let (part, person) = member.at;
            if member.has_camera {
                let is_key = !self.span.parts[part].take_plis(person).is_empty();
                for layer in 0..3 {
                    for packet in self.span.parts[part].frame(person, layer, is_key, 2) {
                        self.span.hand_in(part, person, &packet);
                    }
                }
            }
            if member.has_microphone {
                let packet = self.span.parts[part].sound(person, 30);
                self.span.hand_in(part, person, &packet);
            }
        }
        self.span.pass(Duration::from_millis(40));
    }

    fn check_calm(&mut self) {
        let members = self.members.clone();
        let find = |number: usize| members.iter().find(|member| Self::number(member) == number);
        let speaking = members.iter().filter(|member| member.has_microphone).count();
        for member in &members {
            let (part, person) = member.at;
            for (slot, wish) in ["v0", "v1"].into_iter().zip(member.wishes) {
                let expected = wish.and_then(find).filter(|other| other.has_camera).map(Self::number);
                assert_eq!(self.span.parts[part].slot_state(person, slot), expected, "{slot} of {member:?}");
                let seen = self.span.seen_in(part, person, slot);
                assert_eq!(seen, Vec::from_iter(expected), "{slot} of {member:?}");
            }
            let mut heard = Vec::new();
            for slot in ["a0", "a1", "a2"] {
                let from = self.span.seen_in(part, person, slot);
                if let Some(state) = self.span.parts[part].slot_state(person, slot) {
                    assert!(find(state).is_some_and(|other| other.has_microphone), "{slot} of {member:?}");
                    assert_eq!(from, [state], "{slot} of {member:?}");
                    heard.push(state);
                }
            }
            let others = speaking - usize::from(member.has_microphone);
            assert_eq!(heard.len(), others.min(3), "{member:?} hears {heard:?} of {members:?}");
        }
    }
}

fn run(seed: u64) {
    let mut storm = Storm::new(seed);
    for _ in 0..STORM {
        if storm.random.one_in(3) {
            storm.act();
        }
        storm.step();
        let people = storm.members.len() + 4;
        for part in &storm.span.parts {
            assert!(part.room.memory_bytes() <= MEMORY_BYTES_MAX * people, "{}", part.room.memory_bytes());
        }
    }
    storm.span.loses = Box::new(|_, _| false);
    storm.span.refuses = Box::new(|_, _| false);
    for step in 0..CALM {
        if step == CALM - 10 {
            storm.span.parts.iter_mut().for_each(|part| {
                part.people.iter_mut().for_each(|person| person.received.clear());
            });
        }
        storm.step();
    }
    storm.check_calm();
}

#[test]
fn whatever_happened_between_parts_everyone_soon_sees_and_hears() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("ASAMBLEA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ASAMBLEA_SEEDS").unwrap_or(60),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = result {
            eprintln!("seed {seed}: run again with ASAMBLEA_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
