//! What people cost who are sent little: the same packets to ever more of them, with all that they send in return and all
//! that the room does at its own times. Time is virtual, only the heart's work is counted.
//!
//! `valgrind --tool=callgrind --toggle-collect='*in_heart*' loadtest listeners ...` counts its instructions alone.

use super::{Bench, Sender, Stream};
use crate::ALLOCATOR;
use crate::bot::rtcp::{Arrivals, Report, write_receiver_report};
use crate::client::check;
use anyhow::ensure;
use asamblea_sfu_core::shard::{Output, Shard};
use asamblea_sfu_core::transport::PathId;
use stats_alloc::Region;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Steps of virtual time: everything due within one is done at its end.
const STEP: Duration = Duration::from_millis(1);

/// What receivers send in return, and how often: as the load tester's bots do.
const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(1);
const CONSENT_EVERY: Duration = Duration::from_millis(2_500);

/// Time that passes before anything is counted: lines are known, buffers have grown.
const WARM_UP: Duration = Duration::from_secs(8);

/// The length of each packet before it is sealed.
const PACKET_BYTES: usize = 1_100;

/// Room for a receiver's compound packet, sealed.
const COMPOUND_BYTES: usize = 64;

/// What `listeners` measures.
pub(crate) struct Listeners {
    pub(crate) listeners: u16,
    pub(crate) muted: u16,
    pub(crate) packets_per_second: u32,
    pub(crate) burst: u16,
    pub(crate) seconds: u32,
}

/// Work that was done, and how long it took.
#[derive(Clone, Copy, Default)]
struct Spent {
    calls: u64,
    nanos: u64,
}

#[derive(Default)]
struct Costs {
    media: Spent,
    feedback: Spent,
    reports: Spent,
    checks: Spent,
    timeouts: Spent,
    output: Spent,
    /// Sends that carry media, and others.
    sends: (u64, u64),
    packets: u64,
}

/// The heart under measure: nothing else runs within. The hint keeps the compiler from making one function of this and
/// the next.
#[inline(never)]
fn in_heart<R>(shard: &mut Shard, work: impl FnOnce(&mut Shard) -> R) -> R {
    work(std::hint::black_box(shard))
}

#[inline(never)]
fn unmeasured<R>(shard: &mut Shard, work: impl FnOnce(&mut Shard) -> R) -> R {
    work(shard)
}

/// What one receiver has got and is to answer.
struct Receiver {
    index: usize,
    arrivals: Arrivals,
    number: u16,
    highest: u32,
}

struct Meeting {
    bench: Bench,
    began_at: Instant,
    by_path: BTreeMap<PathId, usize>,
    /// By place in the bench.
    receivers: Vec<Receiver>,
    is_counted: bool,
    costs: Costs,
}

/// One publisher, many who receive it, and some who are there with microphone and camera off.
pub(crate) fn listeners(it: &Listeners) -> anyhow::Result<()> {
    ensure!(it.listeners > 0 && it.burst > 0 && it.seconds > 0, "at least one of everything");
    ensure!(it.packets_per_second > 0, "at least one packet a second");
    let mut bench = Bench::new();
    let publisher = bench.join(0, 0);
    for _ in 0..it.listeners {
        let listener = bench.join(0, 1);
        bench.view(listener, &[(publisher, 720)]);
    }
    for _ in 0..it.muted {
        let muted = bench.join(0, 0);
        bench.publish_as(muted, false);
    }
    bench.publish(publisher);
    let mut meeting = Meeting::new(bench);
    let mut sender = Sender::new(Stream::camera(publisher, 2));
    let per_frame = u64::from(it.burst) * u64::from(it.listeners);
    let frame_every = Duration::from_nanos(per_frame * 1_000_000_000 / u64::from(it.packets_per_second));
    let end = WARM_UP + Duration::from_secs(it.seconds.into());
    let (mut at, mut frame_at, mut frames) = (Duration::ZERO, Duration::ZERO, 0_u64);
    while at < end {
        at += STEP;
        meeting.bench.now += STEP;
        meeting.is_counted = at > WARM_UP;
        meeting.answer(at);
        if frame_at <= at {
            frame_at += frame_every;
            let packets = sender.frame(&mut meeting.bench, frames < 2, it.burst, PACKET_BYTES);
            frames += 1;
            meeting.send(publisher, packets);
        }
        meeting.pass_time();
    }
    let Meeting { bench, costs, .. } = meeting;
    costs.print(it);
    let region = Region::new(ALLOCATOR);
    drop(bench.shard);
    let people = f64::from(it.listeners + it.muted + 1);
    println!("memory: {:.1} kB of heap a person", region.change().bytes_deallocated as f64 / people / 1e3);
    Ok(())
}

impl Meeting {
    fn new(bench: Bench) -> Self {
        let receiver = |(index, _)| Receiver { index, arrivals: Arrivals::default(), number: 0, highest: 0 };
        let by_path = bench.members.iter().enumerate().map(|(index, member)| (member.path, index)).collect();
        let receivers = bench.members.iter().enumerate().map(receiver).collect();
        let (began_at, costs) = (bench.now, Costs::default());
        Self { bench, began_at, by_path, receivers, is_counted: false, costs }
    }

    /// Does something with the heart, and counts what it took.
    fn work<R>(
        &mut self,
        account: impl FnOnce(&mut Costs) -> &mut Spent,
        work: impl FnOnce(&mut Shard) -> R,
    ) -> R {
        if !self.is_counted {
            return unmeasured(&mut self.bench.shard, work);
        }
        let before = Instant::now();
        let result = in_heart(&mut self.bench.shard, work);
        let spent = account(&mut self.costs);
        spent.calls += 1;
        spent.nanos += before.elapsed().as_nanos() as u64;
        result
    }

    /// Has a publisher's packets arrive in one batch.
    fn send(&mut self, publisher: usize, mut packets: Vec<Vec<u8>>) {
        let (now, path) = (self.bench.now, self.bench.members[publisher].path);
        self.work(
            |costs| &mut costs.media,
            |shard| packets.iter_mut().for_each(|packet| shard.handle_datagram(now, path, packet)),
        );
        self.drain();
    }

    /// Has all receivers send what is due within the step that ends `at`; each has its own phase.
    fn answer(&mut self, at: Duration) {
        let (now, at_ns) = (self.bench.now, at.as_nanos() as u64);
        let count = self.receivers.len() as u32;
        for index in 0..self.receivers.len() {
            let is_due = |every: Duration| {
                let phase = every * index as u32 / count;
                let turns = |at: Duration| (at + phase).as_nanos() / every.as_nanos();
                at > STEP && turns(at) != turns(at - STEP)
            };
            let path = self.bench.members[index].path;
            let mut compound = Vec::with_capacity(COMPOUND_BYTES);
            let own_ssrc = 0x7000_0000 + index as u32;
            let receiver = &mut self.receivers[index];
            let has_feedback = is_due(FEEDBACK_EVERY) && receiver.arrivals.write(&mut compound, own_ssrc, 0);
            if has_feedback {
                self.answer_with(index, compound, |costs| &mut costs.feedback);
                compound = Vec::with_capacity(COMPOUND_BYTES);
            }
            if is_due(REPORT_EVERY) {
                let (receiver, member) = (&self.receivers[index], &self.bench.members[index]);
                let slot = member.description.slots.first().filter(|_| receiver.highest > 0);
                let report = slot.map(|slot| Report {
                    ssrc: slot.ssrc,
                    lost: 0,
                    highest: receiver.highest,
                    sender_report: 0,
                    since: 0,
                });
                write_receiver_report(&mut compound, own_ssrc, report.as_slice());
                self.answer_with(index, compound, |costs| &mut costs.reports);
            }
            if is_due(CONSENT_EVERY) {
                let member = &self.bench.members[index];
                let transaction = at_ns << 16 | index as u64;
                let mut check = check(&member.ice, &member.description.remote_ice.ufrag, transaction);
                self.work(|costs| &mut costs.checks, |shard| shard.handle_datagram(now, path, &mut check));
                self.drain();
            }
        }
    }

    fn answer_with(
        &mut self,
        index: usize,
        mut compound: Vec<u8>,
        account: impl FnOnce(&mut Costs) -> &mut Spent,
    ) {
        let now = self.bench.now;
        let member = &mut self.bench.members[index];
        let (path, plain_bytes) = (member.path, compound.len());
        compound.resize(plain_bytes + member.srtp.rtcp_overhead_bytes(), 0);
        let sealed = member.srtp.seal_rtcp(&mut compound, plain_bytes);
        compound.truncate(sealed);
        self.work(account, |shard| shard.handle_datagram(now, path, &mut compound));
        self.drain();
    }

    /// Does what the heart wants done by now.
    fn pass_time(&mut self) {
        let now = self.bench.now;
        while self.bench.shard.poll_timeout().is_some_and(|wake| wake.at <= now) {
            self.work(|costs| &mut costs.timeouts, |shard| shard.handle_timeout(now));
        }
        self.drain();
    }

    /// Takes what the heart sends.
    fn drain(&mut self) {
        let at_ns = self.bench.now.duration_since(self.began_at).as_nanos() as u64;
        loop {
            // The path, and of packets of media there how many and the last one's number.
            let taken = self.work(
                |costs| &mut costs.output,
                |shard| match shard.poll_output() {
                    None => None,
                    Some(Output::Transmit { path, contents, segment_bytes }) => {
                        let is_media =
                            |datagram: &&[u8]| !(192..224).contains(&datagram[1]) && datagram[0] >> 6 == 2;
                        // A report may stand behind the packets of a run.
                        let count = contents.chunks(segment_bytes).filter(is_media).count();
                        let highest = u32::from(u16::from_be_bytes([contents[2], contents[3]]));
                        Some((path, count as u64, highest))
                    }
                    Some(output) => unreachable!("nobody moves: {output:?}"),
                },
            );
            let Some((path, count, first)) = taken else { break };
            if self.is_counted {
                self.costs.packets += count;
                *(if count > 0 { &mut self.costs.sends.0 } else { &mut self.costs.sends.1 }) += 1;
            }
            let Some(receiver) = self.by_path.get(&path).and_then(|at| self.receivers.get_mut(*at)) else {
                continue;
            };
            for _ in 0..count {
                receiver.arrivals.note(at_ns + receiver.index as u64, receiver.number);
                receiver.number = receiver.number.wrapping_add(1);
            }
            if count > 0 {
                receiver.highest = (receiver.highest & 0xffff_0000 | first) + count as u32 - 1;
            }
        }
        let mut events = 0;
        while self.bench.shard.poll_event().is_some() {
            events += 1;
        }
        std::hint::black_box(events);
    }
}

impl Costs {
    fn print(&self, it: &Listeners) {
        let seconds = f64::from(it.seconds);
        let people = f64::from(it.listeners + it.muted);
        let rate = |count: u64| count as f64 / seconds;
        println!(
            "1 publisher, {} listeners, {} muted, {:.0} packets/s in frames of {}, {} s",
            it.listeners,
            it.muted,
            rate(self.packets),
            it.burst,
            it.seconds
        );
        println!("{:<12} {:>9} {:>9} {:>12} {:>16}", "what", "calls/s", "ns each", "µs/s", "ns/s and person");
        let accounts = [
            ("media", self.media),
            ("feedback", self.feedback),
            ("reports", self.reports),
            ("checks", self.checks),
            ("timeouts", self.timeouts),
            ("output", self.output),
        ];
        let mut all = Spent::default();
        let line = |name: &str, spent: Spent| {
            println!(
                "{name:<12} {:>9.1} {:>9.0} {:>12.1} {:>16.0}",
                rate(spent.calls),
                spent.nanos as f64 / spent.calls.max(1) as f64,
                rate(spent.nanos) / 1e3,
                rate(spent.nanos) / people
            );
        };
        for (name, spent) in accounts {
            line(name, spent);
            all = Spent { calls: all.calls + spent.calls, nanos: all.nanos + spent.nanos };
        }
        line("all", all);
        println!(
            "sends: {:.2} of media and {:.2} others a second and person; {:.0} ns per packet of media",
            rate(self.sends.0) / people,
            rate(self.sends.1) / people,
            all.nanos as f64 / self.packets.max(1) as f64
        );
    }
}
