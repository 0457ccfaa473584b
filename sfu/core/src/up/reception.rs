//! What is known of one received RTP stream: which numbers came, which are missing, jitter, loss, its sender's clock
//! (RFC 3550 appendix A).
//!
//! It looks at headers only and decides nothing about forwarding.

use crate::rtp::{
    rtcp_write::ReportBlock,
    sequence::{Seen, Sequence},
    time::{Ntp, ntp_units, ticks_of},
};
use arrayvec::ArrayVec;
use std::time::{Duration, Instant};

/// How far a number may jump before the stream must show that it means it (RFC 3550 appendix A.1: MAX_DROPOUT).
const JUMP_MAX: u64 = 3_000;

/// Most packets of a layer that are waited for at once; a longer gap is for a key frame to mend.
const MISSING_MAX: usize = 64;

/// Times a missing packet is asked for.
const ASKS_MAX: u8 = 4;

/// How long a gap may be mere reordering.
const REORDER_WAIT: Duration = Duration::from_millis(10);

/// Time between two requests for one packet: above most round trips, so that an answer is not asked for twice.
const ASK_INTERVAL: Duration = Duration::from_millis(80);

/// The sender's clock out of its last report: two names of one moment.
#[derive(Clone, Copy, Debug)]
pub struct SenderClock {
    /// The sender's wall clock.
    pub ntp: Ntp,
    /// The stream's clock.
    pub rtp: u32,
    /// When the report arrived.
    pub arrived_at: Instant,
}

impl SenderClock {
    /// The moment of a timestamp on the sender's wall clock.
    pub fn ntp_of(&self, timestamp: u32, hz: u32) -> Ntp {
        let ticks = i64::from(timestamp.wrapping_sub(self.rtp) as i32);
        let span = (i128::from(ticks) << 32) / i128::from(hz);
        Ntp(self.ntp.0.wrapping_add(span as i64 as u64))
    }

    /// The timestamp of a moment on the sender's wall clock.
    pub fn timestamp_of(&self, ntp: Ntp, hz: u32) -> u32 {
        self.rtp.wrapping_add(ticks_of(ntp.since(self.ntp), hz) as u32)
    }
}

/// What a sequence number turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// New: its number without wraparound.
    New(Sequence),
    /// Seen before, or too old to know.
    Duplicate,
    /// So far off that the next packet has to confirm it.
    Suspicious,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: Sequence,
    ask_at: Instant,
    asks: u8,
}

/// One received stream.
#[derive(Debug, Default)]
pub struct Reception {
    seen: Seen,
    /// The highest number under an earlier SSRC.
    past: Option<Sequence>,
    first: u64,
    received: u64,
    /// Counts the times the stream began anew.
    epoch: u32,
    /// What a packet has to carry to confirm a jump.
    confirmed_by: Option<u16>,
    jitter_16: u32,
    transit: Option<u32>,
    /// Expected and received at the last report.
    reported: (u64, u64),
    missing: ArrayVec<Missing, MISSING_MAX>,
    /// The sender's clock, once it has reported.
    pub clock: Option<SenderClock>,
}

impl Reception {
    /// Takes a packet's number. `is_original` is false for one unwrapped from a retransmission: such a packet says
    /// nothing about timing and cannot begin a stream.
    pub fn arrive(&mut self, now: Instant, wire: u16, is_original: bool, is_repairable: bool) -> Arrival {
        let Some(highest) = self.seen.highest() else {
            if !is_original {
                return Arrival::Suspicious;
            }
            return self.begin(self.past.map_or(Sequence::first(wire), |past| past.begin_anew(wire)));
        };
        let sequence = highest.nearest(wire);
        if sequence.0.abs_diff(highest.0) > JUMP_MAX {
            if !is_original || self.confirmed_by != Some(wire) {
                self.confirmed_by = Some(wire.wrapping_add(1));
                return Arrival::Suspicious;
            }
            self.epoch += 1;
            return self.begin(highest.begin_anew(wire));
        }
        if is_original {
            self.confirmed_by = None;
        }
        if !self.seen.insert(sequence) {
            return Arrival::Duplicate;
        }
        self.received += 1;
        if sequence > highest {
            if is_repairable {
                self.note_gap(now, highest, sequence);
            }
        } else {
            self.missing.retain(|missing| missing.sequence != sequence);
        }
        Arrival::New(sequence)
    }

    fn begin(&mut self, sequence: Sequence) -> Arrival {
        let (epoch, clock) = (self.epoch, self.clock);
        *self = Self { epoch, clock, first: sequence.0, received: 1, ..Self::default() };
        self.seen.insert(sequence);
        Arrival::New(sequence)
    }

    /// The stream goes on under another SSRC: nothing of the old one holds, and no number is used twice.
    pub fn begin_under_another_ssrc(&mut self) {
        let past = self.seen.highest().or(self.past);
        *self = Self { epoch: self.epoch + 1, past, ..Self::default() };
    }

    fn note_gap(&mut self, now: Instant, highest: Sequence, sequence: Sequence) {
        let gap = sequence.0 - highest.0 - 1;
        if gap == 0 || gap as usize > MISSING_MAX {
            return;
        }
        for number in highest.0 + 1..sequence.0 {
            if self.missing.is_full() {
                self.missing.remove(0);
            }
            self.missing.push(Missing { sequence: Sequence(number), ask_at: now + REORDER_WAIT, asks: 0 });
        }
    }

    /// Takes a packet's timing (RFC 3550 appendix A.8). `arrival` is its arrival on the stream's clock.
    pub fn time(&mut self, arrival: u32, timestamp: u32) {
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(previous) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(previous) as i32).unsigned_abs().min(1 << 24);
            self.jitter_16 = self.jitter_16 + difference - ((self.jitter_16 + 8) >> 4);
        }
    }

    /// Counts the times the stream began anew: a number of one epoch says nothing about one of another.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// When the first missing packet is to be asked for.
    pub fn ask_at(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.ask_at).min()
    }

    /// The packets to ask for now, in rising order; those asked for often enough are given up.
    pub fn take_missing(&mut self, now: Instant) -> ArrayVec<u16, MISSING_MAX> {
        let mut due = ArrayVec::new();
        self.missing.retain(|missing| missing.asks < ASKS_MAX || now < missing.ask_at);
        for missing in &mut self.missing {
            if now >= missing.ask_at {
                missing.asks += 1;
                missing.ask_at = now + ASK_INTERVAL;
                due.push(missing.sequence.wire());
            }
        }
        due
    }

    /// A report block on the stream since the last one; `None` before anything came.
    pub fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let highest = self.seen.highest()?;
        if self.received == 0 {
            return None;
        }
        let expected = highest.0 + 1 - self.first.min(highest.0);
        let (expected_now, received_now) =
            (expected.saturating_sub(self.reported.0), self.received.saturating_sub(self.reported.1));
        self.reported = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let (last_report, delay) = self.clock.map_or((0, 0), |clock| {
            let delay = ntp_units(now.saturating_duration_since(clock.arrived_at)) >> 16;
            (clock.ntp.middle(), delay as u32)
        });
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: (highest.0 - (self.first & !0xffff)) as u32,
            jitter: self.jitter_16 >> 4,
            last_report,
            delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;

    #[test]
    fn loss_is_reported_once_and_cumulatively() {
        let now = test_epoch();
        let mut reception = Reception::default();
        for number in (0..100_u16).filter(|number| number % 4 != 3) {
            assert!(matches!(
                reception.arrive(now, number.wrapping_add(65_500), true, false),
                Arrival::New(_)
            ));
        }
        let block = reception.report(now, 7).expect("packets came");
        assert_eq!((block.cumulative_lost, block.fraction_lost), (24, (24 * 256 / 99) as u8));
        assert_eq!(block.highest, 65_500 + 98);
        assert_eq!(reception.report(now, 7).expect("packets came").fraction_lost, 0);
    }

    #[test]
    fn missing_packets_are_asked_for_a_few_times_and_not_once_they_came() {
        let start = test_epoch();
        let mut reception = Reception::default();
        for number in [10_u16, 11, 14, 15] {
            reception.arrive(start, number, true, true);
        }
        assert!(reception.take_missing(start).is_empty(), "may be reordered");
        let mut now = start + REORDER_WAIT;
        assert_eq!(reception.take_missing(now)[..], [12, 13]);
        assert_eq!(reception.arrive(now, 12, false, true), Arrival::New(Sequence::first(12)));
        let mut asks = 1;
        for _ in 0..20 {
            now += ASK_INTERVAL;
            let due = reception.take_missing(now);
            assert!(due.is_empty() || due[..] == [13]);
            asks += due.len();
        }
        assert_eq!(asks, usize::from(ASKS_MAX));
        assert_eq!(reception.ask_at(), None);
    }

    #[test]
    fn a_jump_needs_a_second_packet_and_begins_an_epoch() {
        let now = test_epoch();
        let mut reception = Reception::default();
        reception.arrive(now, 5, true, true);
        assert_eq!(reception.arrive(now, 20_000, true, true), Arrival::Suspicious);
        assert!(matches!(reception.arrive(now, 6, true, true), Arrival::New(_)));
        assert_eq!(reception.arrive(now, 20_000, true, true), Arrival::Suspicious);
        let Arrival::New(sequence) = reception.arrive(now, 20_001, true, true) else { panic!("confirmed") };
        assert!(sequence > Sequence::first(65_535));
        assert_eq!(reception.epoch(), 1);
    }

    #[test]
    fn a_new_ssrc_begins_an_epoch_at_any_number() {
        let now = test_epoch();
        for wire in [0, 1, 30_000, 65_535] {
            let mut reception = Reception::default();
            reception.arrive(now, 60_000, true, true);
            reception.begin_under_another_ssrc();
            let Arrival::New(sequence) = reception.arrive(now, wire, true, true) else {
                panic!("{wire}: taken")
            };
            assert!(sequence > Sequence::first(60_000) && sequence.wire() == wire);
            assert_eq!(reception.epoch(), 1);
        }
    }

    #[test]
    fn the_senders_clock_maps_both_ways() {
        let clock = SenderClock { ntp: Ntp(77 << 32), rtp: u32::MAX - 10, arrived_at: test_epoch() };
        let ntp = clock.ntp_of(89_989, 90_000);
        assert_eq!(ntp, Ntp(78 << 32));
        assert_eq!(clock.timestamp_of(ntp, 90_000), 89_989);
        assert_eq!(clock.timestamp_of(Ntp(76 << 32), 90_000), u32::MAX - 10 - 90_000);
    }
}
