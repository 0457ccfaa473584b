//! A meeting on several shards: a [`Meeting`] for each part, and between them queues that may be slow, lose and refuse.

use super::{Meeting, Seen};
use asamblea_sfu_core::relay::{Batch, Carried, Envelope};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// People of one part have numbers apart from those of others.
pub const PER_PART: usize = 100;

pub struct Span {
    pub parts: Vec<Meeting>,
    /// How long a batch is under way.
    pub delay: Duration,
    /// Whether this batch, from one part to another, is lost.
    pub loses: Box<dyn FnMut(usize, usize) -> bool>,
    /// Whether a queue, from one part to another, is full.
    pub refuses: Box<dyn Fn(usize, usize) -> bool>,
    under_way: VecDeque<(Instant, usize, usize, Batch)>,
    revision: u64,
    /// Packets and states that were carried, from any part to any other.
    pub packets: u64,
    pub states: u64,
}

impl Span {
    /// So many parts that know of each other; nobody is there yet.
    pub fn new(seed: u64, parts: usize) -> Self {
        let mut parts: Vec<Meeting> = (0..parts).map(|part| Meeting::new(seed + part as u64 * 77)).collect();
        let now = parts[0].now;
        for (place, part) in parts.iter_mut().enumerate() {
            (part.now, part.first) = (now, place * PER_PART);
        }
        let mut span = Self {
            parts,
            delay: Duration::from_micros(50),
            loses: Box::new(|_, _| false),
            refuses: Box::new(|_, _| false),
            under_way: VecDeque::new(),
            revision: 0,
            packets: 0,
            states: 0,
        };
        let all: Vec<usize> = (0..span.parts.len()).collect();
        span.link(&all);
        span
    }

    /// Says which parts there are, to those.
    pub fn link(&mut self, parts: &[usize]) {
        self.revision += 1;
        for &part in parts {
            let others: Vec<u16> =
                parts.iter().filter(|other| **other != part).map(|other| *other as u16).collect();
            let is_lead = parts.iter().min() == Some(&part);
            let meeting = &mut self.parts[part];
            meeting.room.set_parts(meeting.now, self.revision, &others, is_lead);
        }
        self.exchange();
    }

    /// A part's heart ends and another begins; others hear of it.
    pub fn restart(&mut self, part: usize, seed: u64) {
        let now = self.parts[part].now;
        let mut fresh = Meeting::new(seed);
        (fresh.now, fresh.first) = (now, part * PER_PART);
        self.parts[part] = fresh;
        for other in (0..self.parts.len()).filter(|other| *other != part) {
            self.parts[other].room.end_part(now, part as u16);
            self.parts[other].settle();
        }
        self.exchange();
    }

    pub fn now(&self) -> Instant {
        self.parts[0].now
    }

    /// Takes what waits for other parts.
    pub fn exchange(&mut self) {
        for from in 0..self.parts.len() {
            self.parts[from].settle();
            let now = self.parts[from].now;
            let Self { parts, delay, loses, refuses, under_way, packets, states, .. } = self;
            parts[from].room.relay(now, &mut |to, batch: Batch| {
                let to = usize::from(to);
                if refuses(from, to) {
                    return Carried::Refused(batch);
                }
                if !loses(from, to) {
                    for (envelope, _) in batch.iter() {
                        let is_packet = matches!(envelope, Envelope::Packet(_));
                        *(if is_packet { &mut *packets } else { &mut *states }) += 1;
                    }
                    // Nothing overtakes, even if the delay has become shorter.
                    let after = under_way.back().map_or(now, |(due, ..)| *due);
                    under_way.push_back((after.max(now + *delay), from, to, batch));
                }
                Carried::Taken(Batch::default())
            });
        }
    }

    /// Time passes for all parts alike.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now() + duration;
        loop {
            self.exchange();
            let arrives = self.under_way.iter().map(|(at, ..)| *at).min();
            let wakes = self.parts.iter().filter_map(|part| part.room.poll_timeout()).min();
            let Some(at) = [arrives, wakes].into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            let at = at.max(self.now());
            self.parts.iter_mut().for_each(|part| part.now = at);
            while self.under_way.front().is_some_and(|(due, ..)| *due <= at)
                && let Some((_, from, to, batch)) = self.under_way.pop_front()
            {
                self.parts[to].room.handle_relay(at, from as u16, &batch);
                self.parts[to].settle();
            }
            for part in &mut self.parts {
                if part.room.poll_timeout().is_some_and(|due| due <= at) {
                    part.room.handle_timeout(at);
                    part.settle();
                }
            }
        }
        self.parts.iter_mut().for_each(|part| part.now = until);
    }

    /// Hands in a packet and lets it arrive wherever it goes.
    pub fn hand_in(&mut self, part: usize, person: usize, packet: &[u8]) {
        self.parts[part].hand_in(person, packet);
        self.exchange();
    }

    /// Someone sends so many frames of all their layers, 40 ms apart, with sound between.
    pub fn send(&mut self, people: &[(usize, usize)], frames: usize, level_dbov: u8) {
        for _ in 0..frames {
            for &(part, person) in people {
                let is_key = !self.parts[part].take_plis(person).is_empty();
                for layer in 0..3 {
                    for packet in self.parts[part].frame(person, layer, is_key, 3) {
                        self.hand_in(part, person, &packet);
                    }
                }
            }
            for _ in 0..2 {
                for &(part, person) in people {
                    let packet = self.parts[part].sound(person, level_dbov);
                    self.hand_in(part, person, &packet);
                }
                self.pass(Duration::from_millis(20));
            }
        }
    }

    /// Whose packets a slot got since the last time, each once.
    pub fn seen_in(&mut self, part: usize, person: usize, slot: &str) -> Vec<usize> {
        let mut from: Vec<usize> =
            self.parts[part].take_slot(person, slot).iter().map(|seen: &Seen| seen.from).collect();
        from.dedup();
        from
    }
}
