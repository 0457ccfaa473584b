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

/// Times a missing packet is asked for: where requests and answers are lost at 30 % each, one in a thousand is left.
const ASKS_MAX: u8 = 10;

/// How long a gap may be mere reordering, as long as none was seen.
const REORDER_WAIT_MIN: Duration = Duration::from_millis(10);

/// The same where much was seen. What comes later still is asked for in vain.
const REORDER_WAIT_MAX: Duration = Duration::from_millis(80);

/// The round trip to a peer that has not shown its own.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(80);

/// Bounds of the time between two requests for one packet. It is the round trip and a quarter, so that an answer under
/// way is not asked for again: each packet once a round trip.
const ASK_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(25)..=Duration::from_millis(600);

/// How long a missing packet of video is asked for. After that a key frame mends the picture, which takes a round trip
/// and has to be there within a second of the loss.
pub const ASK_FOR: Duration = Duration::from_millis(500);

/// The same for sound: what comes later than this is played by nobody.
pub const ASK_FOR_SOUND: Duration = Duration::from_millis(300);

/// Packets of sound asked for without any answer after which their sender counts as one that cannot answer: no browser
/// offers to send sound again, and what one does nevertheless may change.
const UNANSWERED_MAX: u8 = 32;

/// One in so many packets is asked of such a sender nevertheless, should it have been the line.
const UNANSWERED_TRIAL: u64 = 16;

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
    /// When the gap was seen.
    since: Instant,
    ask_at: Instant,
    asks: u8,
}

/// How a stream's lost packets come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Not at all, or nobody needs them.
    None,
    /// In a stream of their own (RFC 4588).
    Apart,
    /// As they were.
    InPlace,
}

/// When and for how long missing packets are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time between two requests for one packet.
    interval: Duration,
    /// How long one is asked for.
    ask_for: Duration,
    /// Whether the sender may be unable to answer.
    is_doubtful: bool,
}

impl Patience {
    /// For a sender at this distance, if it is known.
    pub fn new(round_trip: Option<Duration>, is_audio: bool) -> Self {
        let round_trip = round_trip.unwrap_or(ROUND_TRIP_UNKNOWN);
        let interval = (round_trip + round_trip / 4).clamp(*ASK_INTERVALS.start(), *ASK_INTERVALS.end());
        Self { interval, ask_for: if is_audio { ASK_FOR_SOUND } else { ASK_FOR }, is_doubtful: is_audio }
    }
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
    /// At most [`MISSING_MAX`]; no memory is held before anything is lost.
    missing: Vec<Missing>,
    /// How much longer than [`REORDER_WAIT_MIN`] a gap is waited on, by the reordering seen.
    reorder_wait_more: Duration,
    /// Packets asked for since the last one that came when asked for.
    unanswered: u8,
    /// Whether something is missing that will not be asked for (any more).
    is_beyond_repair: bool,
    /// The sender's clock, once it has reported.
    pub clock: Option<SenderClock>,
}

impl Reception {
    /// Takes a packet's number. `is_original` is false for one unwrapped from a retransmission: such a packet says
    /// nothing about timing and cannot begin a stream.
    pub fn arrive(&mut self, now: Instant, wire: u16, is_original: bool, repair: Repair) -> Arrival {
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
            if repair != Repair::None {
                self.note_gap(now, highest, sequence);
            }
        } else {
            self.close_gap(now, sequence, is_original, repair);
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
        if gap == 0 {
            return;
        }
        if gap as usize > MISSING_MAX {
            self.missing.clear();
            self.is_beyond_repair = true;
            return;
        }
        let ask_at = now + REORDER_WAIT_MIN + self.reorder_wait_more;
        for number in highest.0 + 1..sequence.0 {
            if self.missing.len() >= MISSING_MAX {
                self.missing.remove(0);
                self.is_beyond_repair = true;
            }
            self.missing.push(Missing { sequence: Sequence(number), since: now, ask_at, asks: 0 });
        }
    }

    /// A packet fills a gap, and shows whether that was loss or reordering.
    fn close_gap(&mut self, now: Instant, sequence: Sequence, is_original: bool, repair: Repair) {
        let Some(place) = self.missing.iter().position(|missing| missing.sequence == sequence) else {
            return;
        };
        let missing = self.missing.remove(place);
        let late = now.saturating_duration_since(missing.since);
        let more = (late + late / 4).min(REORDER_WAIT_MAX).saturating_sub(REORDER_WAIT_MIN);
        // What comes by itself, or sooner than it can have been answered, was only late.
        let is_unasked = missing.asks == 0 || repair == Repair::Apart || late < *ASK_INTERVALS.start();
        if is_original && is_unasked {
            self.reorder_wait_more = self.reorder_wait_more.max(more);
        } else {
            self.unanswered = 0;
            self.reorder_wait_more -= self.reorder_wait_more / 16;
        }
    }

    /// Whether a number has not come, though a later one has.
    pub fn is_missing(&self, wire: u16) -> bool {
        let Some(highest) = self.seen.highest() else { return false };
        let sequence = highest.nearest(wire);
        sequence < highest && sequence.0 >= self.first && !self.seen.contains(sequence)
    }

    /// A key frame begins here: nothing before it is needed any more.
    pub fn forgive_before(&mut self, sequence: Sequence) {
        self.missing.retain(|missing| missing.sequence >= sequence);
        self.is_beyond_repair = false;
    }

    /// Whether something was lost since the last time that no request will bring: a longer gap than can be asked for,
    /// or one that was asked for long enough.
    pub fn take_beyond_repair(&mut self) -> bool {
        std::mem::take(&mut self.is_beyond_repair)
    }

    /// Takes a packet's timing (RFC 3550 appendix A.8). `arrival` is its arrival on the stream's clock.
    pub fn time(&mut self, arrival: u32, timestamp: u32) {
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(previous) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(previous) as i32).unsigned_abs().min(1 << 24);
            self.jitter_16 = self.jitter_16 + difference - ((self.jitter_16 + 8) >> 4);
        }
    }

    /// Whether this is the highest number so far.
    pub fn is_newest(&self, sequence: Sequence) -> bool {
        self.seen.highest() == Some(sequence)
    }

    /// The highest number so far.
    pub fn newest(&self) -> Option<Sequence> {
        self.seen.highest()
    }

    /// Counts the times the stream began anew: a number of one epoch says nothing about one of another.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// When the first missing packet is to be asked for.
    pub fn ask_at(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.ask_at).min()
    }

    /// The packets to ask for now, in rising order; those asked for long enough are given up.
    pub fn take_missing(&mut self, now: Instant, patience: Patience) -> ArrayVec<u16, MISSING_MAX> {
        let mut due = ArrayVec::new();
        let is_unable = patience.is_doubtful && self.unanswered >= UNANSWERED_MAX;
        let before = self.missing.len();
        self.missing.retain(|missing| {
            if is_unable && missing.asks == 0 && !missing.sequence.0.is_multiple_of(UNANSWERED_TRIAL) {
                return false;
            }
            let is_patient =
                missing.asks < ASKS_MAX && now.saturating_duration_since(missing.since) < patience.ask_for;
            is_patient || now < missing.ask_at
        });
        self.is_beyond_repair |= self.missing.len() < before;
        for missing in &mut self.missing {
            if now >= missing.ask_at {
                self.unanswered = self.unanswered.saturating_add(u8::from(missing.asks == 0));
                missing.asks += 1;
                missing.ask_at = now + patience.interval;
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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn loss_is_reported_once_and_cumulatively() {
        let now = test_epoch();
        let mut reception = Reception::default();
        for number in (0..100_u16).filter(|number| number % 4 != 3) {
            assert!(matches!(
                reception.arrive(now, number.wrapping_add(65_500), true, Repair::None),
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
            reception.arrive(start, number, true, Repair::Apart);
        }
        assert!(reception.take_missing(start, Patience::new(None, false)).is_empty(), "may be reordered");
        let mut now = start + REORDER_WAIT_MIN;
        let patience = Patience::new(Some(40 * MS), false);
        assert_eq!(reception.take_missing(now, patience)[..], [12, 13]);
        assert_eq!(reception.arrive(now, 12, false, Repair::Apart), Arrival::New(Sequence::first(12)));
        let mut asked_at = vec![now];
        while let Some(at) = reception.ask_at() {
            assert!(!reception.take_beyond_repair());
            now = at;
            let due = reception.take_missing(now, patience);
            assert!(due.is_empty() || due[..] == [13]);
            asked_at.extend(due.iter().map(|_| now));
        }
        assert!(asked_at.windows(2).all(|pair| pair[1] - pair[0] == 50 * MS), "a round trip and a quarter");
        assert_eq!(asked_at.len(), usize::from(ASKS_MAX));
        assert!(now <= start + ASK_FOR + 60 * MS);
        assert!(reception.take_beyond_repair() && !reception.take_beyond_repair());
    }

    #[test]
    fn far_away_each_packet_is_asked_for_once_a_round_trip() {
        let start = test_epoch();
        let mut reception = Reception::default();
        for number in [10_u16, 12] {
            reception.arrive(start, number, true, Repair::Apart);
        }
        let patience = Patience::new(Some(300 * MS), false);
        let asks =
            (0..1_000).filter(|ms| !reception.take_missing(start + *ms * MS, patience).is_empty()).count();
        assert_eq!(asks, 2, "at 10 and 385 ms; later a key frame comes sooner");
        assert!(reception.take_beyond_repair());
    }

    #[test]
    fn reordering_that_was_seen_is_waited_for() {
        let mut now = test_epoch();
        let mut reception = Reception::default();
        let patience = Patience::new(Some(40 * MS), false);
        let mut asked = Vec::new();
        for number in (0..4_000_u16).step_by(4) {
            // The second comes 20 ms late, every time.
            for (wire, wait_ms) in [(number, 5), (number + 2, 5), (number + 3, 20), (number + 1, 5)] {
                for _ in 0..wait_ms {
                    now += MS;
                    if !reception.take_missing(now, patience).is_empty() {
                        asked.push(number);
                    }
                }
                reception.arrive(now, wire, true, Repair::Apart);
            }
        }
        assert!(asked.len() <= 3, "asked in vain: {asked:?}");
        // True losses bring the wait back.
        for number in (4_000..8_000_u16).step_by(2) {
            now += 5 * MS;
            reception.arrive(now, number, true, Repair::Apart);
            now += 85 * MS;
            reception.take_missing(now, patience);
            reception.arrive(now + 40 * MS, number.wrapping_sub(1), false, Repair::Apart);
        }
        assert!(reception.reorder_wait_more < MS);
    }

    #[test]
    fn a_gap_too_long_to_ask_for_is_known_at_once_and_a_key_frame_mends_it() {
        let now = test_epoch();
        let mut reception = Reception::default();
        for number in [10_u16, 12, 12 + MISSING_MAX as u16 + 2] {
            reception.arrive(now, number, true, Repair::Apart);
        }
        assert_eq!(reception.ask_at(), None);
        assert!(reception.take_beyond_repair());
        for number in [100_u16, 200, 203] {
            reception.arrive(now, number, true, Repair::Apart);
        }
        reception.forgive_before(Sequence::first(203));
        assert_eq!(reception.ask_at(), None);
        assert!(!reception.take_beyond_repair());
    }

    #[test]
    fn who_never_answers_for_sound_is_hardly_asked() {
        let mut now = test_epoch();
        let mut reception = Reception::default();
        let patience = Patience::new(Some(40 * MS), true);
        let (mut early, mut late) = (0, 0);
        for number in (1..4_004_u16).step_by(2) {
            reception.arrive(now, number, true, Repair::InPlace);
            for _ in 0..4 {
                now += 10 * MS;
                let asked = reception.take_missing(now, patience).len();
                *if number < 100 { &mut early } else { &mut late } += asked;
            }
        }
        assert!(early > 40, "{early}");
        assert!(late < 1_950, "all would be asked for six times: {late}");
        // One answer, and all are asked for again.
        let asked = reception.missing.iter().find(|missing| missing.asks > 0).expect("a trial").sequence;
        reception.arrive(now, asked.wire(), true, Repair::InPlace);
        reception.arrive(now, 4_005, true, Repair::InPlace);
        assert!(reception.take_missing(now + 10 * MS, patience).contains(&4_004));
    }

    #[test]
    fn a_jump_needs_a_second_packet_and_begins_an_epoch() {
        let now = test_epoch();
        let mut reception = Reception::default();
        reception.arrive(now, 5, true, Repair::Apart);
        assert_eq!(reception.arrive(now, 20_000, true, Repair::Apart), Arrival::Suspicious);
        assert!(matches!(reception.arrive(now, 6, true, Repair::Apart), Arrival::New(_)));
        assert_eq!(reception.arrive(now, 20_000, true, Repair::Apart), Arrival::Suspicious);
        let Arrival::New(sequence) = reception.arrive(now, 20_001, true, Repair::Apart) else {
            panic!("confirmed")
        };
        assert!(sequence > Sequence::first(65_535));
        assert_eq!(reception.epoch(), 1);
    }

    #[test]
    fn a_new_ssrc_begins_an_epoch_at_any_number() {
        let now = test_epoch();
        for wire in [0, 1, 30_000, 65_535] {
            let mut reception = Reception::default();
            reception.arrive(now, 60_000, true, Repair::Apart);
            reception.begin_under_another_ssrc();
            let Arrival::New(sequence) = reception.arrive(now, wire, true, Repair::Apart) else {
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
