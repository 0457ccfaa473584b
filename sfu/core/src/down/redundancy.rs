//! How often a subscriber's voices are sent: on a line that loses, each packet of sound goes out once or twice more.
//!
//! A repeat is the same packet again, byte for byte under the same number: a receiver that has it drops it by its
//! replay window (RFC 3711 section 3.3.2), one that lost it plays it, and no browser has to have agreed to anything.
//! It leaves together with a later packet of its slot, far enough behind for a burst of losses to lie between. Here it
//! is decided how many times and how far behind; what is sent, and when, is not known here.

use super::Queued;
use crate::rtp::{header::TEMPLATE_BYTES_MAX, sequence::Sequence};
use arrayvec::ArrayVec;
use std::time::{Duration, Instant};

/// Most repeats of one packet.
pub const REPEATS_MAX: usize = 2;

/// How many packets behind its first sending a repeat follows, by the number of repeats. Simulated over 200,000
/// packets (`docs/adr/0009-repeats-of-sound.md`): the further, the longer a burst it bridges; the nearer, the less a
/// receiver has to delay its playing.
const DISTANCES: [&[u64]; REPEATS_MAX + 1] = [&[], &[2], &[2, 5]];

/// The furthest of them.
const DISTANCE_MAX: u64 = 5;

/// Sent packets remembered for each slot: a power of two above [`DISTANCE_MAX`].
const REMEMBERED: usize = 8;

/// Loss (in 1/256) from which each packet is repeated once: 2 %. Below it a receiver's concealment is not noticed.
const ONCE_FROM: u32 = 5;

/// Loss below which repeating ends: 1 %.
const ONCE_UNTIL: u32 = 3;

/// Loss from which each packet is repeated twice: 15 %, where one repeat leaves more than 2 %.
const TWICE_FROM: u32 = 38;

/// Loss below which the second repeat ends: 10 %.
const TWICE_UNTIL: u32 = 26;

/// Loss from which speech needs repeats more than anyone needs a picture: 11 % as it is measured here, where rises are
/// believed sooner than falls, which is 8 to 10 % on the whole. Below it concealment and the codec's own redundancy
/// carry it.
const NEEDED_FROM: u32 = 28;

/// Loss below which a picture comes first again: 8 %.
const NEEDED_UNTIL: u32 = 20;

/// Loss is measured over so many packets at least, or over what there was in [`MEASURED_FOR`]: one lost of two says
/// little.
const MEASURED_PACKETS: u32 = 25;
/// See [`MEASURED_PACKETS`].
const MEASURED_FOR: Duration = Duration::from_millis(2_500);

/// Packets after which half of a rise in loss is believed: a second of one voice.
const RISE_PACKETS: u32 = 50;

/// The same for loss reckoned back from what repeats left over, which a single lost packet says much about.
const RECKONED_RISE_PACKETS: u32 = 250;

/// Time after which a fall in loss is believed: several times the 5 s between two reports on sound.
const FALL: Duration = Duration::from_secs(10);

/// After a change reports still speak of the time before it: for the longest interval between two reports of a browser
/// on sound (7.5 s) the loss is not reckoned back and does not fall.
const SETTLE: Duration = Duration::from_millis(7_500);

/// Most packets one report is believed to be about: 10 s of one voice.
const REPORTED_PACKETS_MAX: u32 = 500;

/// Most repeats in a second for one subscriber: three voices of 50 packets a second, twice. More do not speak at a
/// time.
pub const REPEATS_PER_SECOND_MAX: u32 = 300;

/// What a listener suffers counts for this long without being said again: two of the longest intervals.
const SUFFERED_FOR: Duration = Duration::from_secs(15);

/// The measure of one subscriber's line, and what follows from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redundancy {
    /// Loss before repair in 1/65,536.
    loss: u32,
    /// What is measured now: since when, packets, and the sum of what of each was lost in 1/65,536.
    measured: Option<(Instant, u32, u64)>,
    heard_at: Option<Instant>,
    repeats: u8,
    is_needed: bool,
    changed_at: Option<Instant>,
    /// Loss of sound after repair in 1/65,536.
    suffered: u32,
    suffered_at: Option<Instant>,
    /// What congestion control leaves for repeats in bit/s; `None` without a say.
    allowance_bps: Option<u64>,
    second: Option<Instant>,
    spent: u32,
    spent_bits: u64,
}

impl Redundancy {
    /// How many times each packet of sound is repeated now.
    pub fn repeats(&self) -> usize {
        usize::from(self.repeats)
    }

    /// Whether repeats come before pictures.
    pub fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// How many packets behind each repeat follows.
    pub fn distances(&self) -> &'static [u64] {
        DISTANCES[usize::from(self.repeats)]
    }

    /// The line's loss before repair, in 1/256.
    pub fn loss(&self) -> u8 {
        (self.loss >> 8).min(255) as u8
    }

    /// What congestion control leaves for repeats in bit/s, headers included; `None` for no bound but
    /// [`REPEATS_PER_SECOND_MAX`]. Repeats on a line that loses because it is full make it lose more.
    pub fn set_allowance_bps(&mut self, allowance_bps: Option<u64>) {
        self.allowance_bps = allowance_bps;
    }

    /// Takes a measure of loss (in 1/256) over some packets that nothing has repaired: transport-wide feedback, or a
    /// report on a stream of video, whose repair travels apart (RFC 4588).
    pub fn set_loss(&mut self, now: Instant, fraction_lost: u8, packets: u32) {
        let packets = packets.min(REPORTED_PACKETS_MAX);
        let (since, before, lost) = self.measured.unwrap_or((now, 0, 0));
        let lost = lost + u64::from(packets) * (u64::from(fraction_lost) << 8);
        let packets = before + packets;
        self.measured = Some((since, packets, lost));
        let is_over = packets >= MEASURED_PACKETS || now.saturating_duration_since(since) >= MEASURED_FOR;
        if is_over && packets > 0 {
            self.measured = None;
            self.take(now, (lost / u64::from(packets)) as u32, packets, RISE_PACKETS, true);
        }
    }

    /// Takes a report on a stream of sound, in which packets that a repeat brought count as received
    /// (RFC 3550 section 6.4.1). What was lost while the line was crowded calls for no repeats.
    pub fn hear_report(&mut self, now: Instant, fraction_lost: u8, packets: u32, is_crowded: bool) {
        let packets = packets.min(REPORTED_PACKETS_MAX);
        let left = u32::from(fraction_lost) << 8;
        let weight = packets.min(RISE_PACKETS) * 2;
        if packets > 0 {
            self.suffered_at = Some(now);
            self.suffered =
                (self.suffered * (2 * RISE_PACKETS - weight) + left * weight) / (2 * RISE_PACKETS);
        }
        if is_crowded {
            return;
        }
        let is_settling = self.changed_at.is_some_and(|at| now.saturating_duration_since(at) < SETTLE);
        if self.repeats == 0 {
            self.take(now, left, packets, RISE_PACKETS, true);
        } else if is_settling {
            self.take(now, left, packets, RISE_PACKETS, false);
        } else {
            // A packet is missing if all its copies are: of independent losses the root. Bursts leave more over, and
            // are then taken for a higher loss, which they need.
            self.take(now, root(left, self.repeats + 1), packets, RECKONED_RISE_PACKETS, true);
        }
    }

    /// What a listener at this line misses of the sound it is sent, all repair done, in 1/256.
    pub fn suffered(&self, now: Instant) -> u8 {
        let is_known = self.suffered_at.is_some_and(|at| now.saturating_duration_since(at) < SUFFERED_FOR);
        if is_known { (self.suffered >> 8).min(255) as u8 } else { 0 }
    }

    fn take(&mut self, now: Instant, loss: u32, packets: u32, rise_packets: u32, may_fall: bool) {
        let packets = packets.min(REPORTED_PACKETS_MAX);
        if packets == 0 {
            return;
        }
        let elapsed = self.heard_at.replace(now).map_or(FALL, |at| now.saturating_duration_since(at));
        if loss >= self.loss {
            self.loss += (loss - self.loss) * packets / (packets + rise_packets);
        } else if may_fall {
            let part = elapsed.min(FALL).as_millis() as u32;
            let fall = (self.loss - loss) * part / FALL.as_millis() as u32;
            self.loss -= fall;
        }
        let (loss, before) = (self.loss >> 8, self.repeats);
        self.repeats = match before {
            _ if loss >= TWICE_FROM => 2,
            2 if loss >= TWICE_UNTIL => 2,
            0 if loss >= ONCE_FROM => 1,
            1 | 2 if loss >= ONCE_UNTIL => 1,
            _ => 0,
        };
        self.is_needed = loss >= if self.is_needed { NEEDED_UNTIL } else { NEEDED_FROM };
        if self.repeats != before {
            self.changed_at = Some(now);
        }
    }

    /// Takes one repeat of so many bytes from what a second allows. False if that is used up.
    fn spend(&mut self, now: Instant, bytes: usize) -> bool {
        if self.second.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1)) {
            (self.second, self.spent, self.spent_bits) = (Some(now), 0, 0);
        }
        let bits = 8 * bytes as u64;
        let is_allowed = self.spent < REPEATS_PER_SECOND_MAX
            && self.allowance_bps.is_none_or(|allowed| self.spent_bits + bits <= allowed);
        if is_allowed {
            self.spent += 1;
            self.spent_bits += bits;
        }
        is_allowed
    }
}

/// The square or cube root of a part of 65,536.
fn root(part: u32, degree: u8) -> u32 {
    let part = u64::from(part);
    match degree {
        2 => (part << 16).isqrt() as u32,
        // No cube root of integers in the library; a bit at a time.
        _ => (0..=16).rev().fold(0_u64, |root, bit| {
            let larger = root | 1 << bit;
            if larger * larger * larger <= part << 32 { larger } else { root }
        }) as u32,
    }
}

/// What of a slot's sound was sent lately. Empty until it is first repeated.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    sent: Vec<Option<Sent>>,
    /// The highest number whose turn has come.
    reached: Option<Sequence>,
}

/// One packet of it.
#[derive(Clone, Debug)]
struct Sent {
    packet: Queued,
    /// Its header as it was written first, whatever stands in it: none before that.
    header: ArrayVec<u8, TEMPLATE_BYTES_MAX>,
}

/// Bytes on the line beyond a payload: IPv4, UDP, RTP header with its mid, SRTP tag.
const OVERHEAD_BYTES: usize = 20 + 8 + 20 + 16;

impl Trail {
    /// Notes a packet as it is queued, and gives what is to be repeated along with it to `queue`.
    pub fn follow(
        &mut self,
        now: Instant,
        packet: &Queued,
        redundancy: &mut Redundancy,
        mut queue: impl FnMut(Queued) -> bool,
    ) {
        let distances = redundancy.distances();
        if distances.is_empty() {
            if self.reached.is_some() {
                self.clear();
            }
            return;
        }
        if self.sent.is_empty() {
            self.sent = vec![None; REMEMBERED];
        }
        let number = packet.sequence.0;
        let packet = Queued { is_repeat: true, ..*packet };
        self.sent[number as usize % REMEMBERED] = Some(Sent { packet, header: ArrayVec::new() });
        // Numbers that were lost on the way here have their turn, too; one that comes late had it already.
        let first = match self.reached {
            Some(reached) if number <= reached.0 => return,
            Some(reached) => (reached.0 + 1).max(number.saturating_sub(DISTANCE_MAX)),
            None => number,
        };
        self.reached = Some(packet.sequence);
        for turn in first..=number {
            for distance in distances {
                let Some(wanted) = turn.checked_sub(*distance) else { continue };
                let Some(sent) = self.of(Sequence(wanted)) else { continue };
                let repeat = sent.packet;
                let bytes = usize::from(repeat.payload_bytes) + OVERHEAD_BYTES;
                if redundancy.spend(now, bytes) && !queue(repeat) {
                    return;
                }
            }
        }
    }

    /// Keeps the header of a packet that goes out for the first time.
    pub fn keep_header(&mut self, sequence: Sequence, header: &[u8]) {
        let place = sequence.0 as usize % REMEMBERED;
        if let Some(Some(sent)) = self.sent.get_mut(place)
            && sent.packet.sequence == sequence
            && sent.header.is_empty()
        {
            // A header of ours always fits; one that did not would not be repeated.
            let _ = sent.header.try_extend_from_slice(header);
        }
    }

    /// The header under which a packet went out; a repeat has to have it again, since one number must not be sealed
    /// twice with different bytes.
    pub fn header(&self, sequence: Sequence) -> Option<&[u8]> {
        self.of(sequence).map(|sent| &sent.header[..]).filter(|header| !header.is_empty())
    }

    fn of(&self, sequence: Sequence) -> Option<&Sent> {
        self.sent
            .get(sequence.0 as usize % REMEMBERED)?
            .as_ref()
            .filter(|sent| sent.packet.sequence == sequence)
    }

    /// Forgets what was sent: from here on the same numbers may mean other bytes.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        room::PeerKey,
        rtp::vp8,
        up::{LayerRef, test_epoch},
    };
    use asamblea_seam::UpKind;

    const SECOND: Duration = Duration::from_secs(1);

    fn packet(number: u64) -> Queued {
        Queued {
            slot: 0,
            payload_bytes: 100,
            marker: false,
            is_repeat: false,
            original: None,
            source: LayerRef { peer: PeerKey::default(), kind: UpKind::Microphone, layer: 0 },
            kept: Sequence(number),
            sequence: Sequence(number),
            timestamp: number as u32 * 960,
            vp8_shift: vp8::Shift::default(),
        }
    }

    fn at_loss(fraction: u8) -> Redundancy {
        let mut redundancy = Redundancy::default();
        redundancy.set_loss(test_epoch(), fraction, 500);
        redundancy.set_loss(test_epoch(), fraction, 500);
        redundancy
    }

    #[test]
    fn repeats_come_before_pictures_where_much_is_lost() {
        let mut redundancy = Redundancy::default();
        let mut measure = |fraction_lost, seconds: std::ops::Range<u32>| {
            for second in seconds {
                redundancy.set_loss(test_epoch() + second * SECOND, fraction_lost, 50);
            }
            (redundancy.repeats(), redundancy.is_needed())
        };
        assert_eq!(measure(13, 0..10), (1, false), "5 %");
        assert_eq!(measure(31, 10..20), (1, true), "12 %");
        assert_eq!(measure(24, 20..60), (1, true), "9 %");
        assert_eq!(measure(13, 60..100), (1, false), "5 %");
    }

    #[test]
    fn a_few_packets_say_nothing_alone() {
        let mut redundancy = Redundancy::default();
        redundancy.set_loss(test_epoch(), 127, 2);
        assert_eq!(redundancy.loss(), 0);
        (0..12).for_each(|_| redundancy.set_loss(test_epoch(), 0, 2));
        assert!((1..10).contains(&redundancy.loss()), "{}", redundancy.loss());
    }

    #[test]
    fn repeats_come_within_two_seconds_and_go_slowly() {
        let start = test_epoch();
        let mut redundancy = Redundancy::default();
        redundancy.set_loss(start, 0, 50);
        assert_eq!(redundancy.repeats(), 0);
        redundancy.set_loss(start + SECOND, 26, 50);
        assert_eq!(redundancy.repeats(), 1, "10 % after one report of a second");
        redundancy.set_loss(start + 2 * SECOND, 77, 50);
        redundancy.set_loss(start + 3 * SECOND, 77, 50);
        assert_eq!(redundancy.repeats(), 2, "30 % after two");
        let mut steps = Vec::new();
        for second in 4..60 {
            redundancy.set_loss(start + second * SECOND, 0, 50);
            if steps.last().is_none_or(|(_, repeats)| *repeats != redundancy.repeats()) {
                steps.push((second, redundancy.repeats()));
            }
        }
        let [(4, 2), (once, 1), (never, 0)] = steps[..] else { panic!("{steps:?}") };
        assert!(once >= 8 && never > 20 && never < 50, "{steps:?}");
    }

    #[test]
    fn a_loss_between_two_thresholds_settles() {
        for fraction in 0..=255 {
            let mut redundancy = Redundancy::default();
            let mut changes = 0;
            for second in 0..120 {
                let before = redundancy.repeats();
                redundancy.set_loss(test_epoch() + second * SECOND, fraction, 50);
                changes += usize::from(redundancy.repeats() != before);
            }
            assert!(changes <= 2, "{fraction}: {changes} changes");
            let expected = if fraction < 5 {
                0
            } else if fraction < 38 {
                1
            } else {
                2
            };
            assert!(redundancy.repeats().abs_diff(expected) <= usize::from([5, 38].contains(&fraction)));
        }
    }

    #[test]
    fn reports_after_repair_are_reckoned_back() {
        let start = test_epoch();
        // 10 % leaves 1 % after one repeat: the third of 256 parts.
        let mut redundancy = at_loss(26);
        for step in 1..60 {
            redundancy.hear_report(start + SETTLE + step * 5 * SECOND, 2 + (step % 2) as u8, 250, false);
            assert_eq!(redundancy.repeats(), 1, "goes on while the line loses");
        }
        assert!((20..32).contains(&redundancy.loss()), "{}", redundancy.loss());
        assert!((1..=3).contains(&redundancy.suffered(start + SETTLE + 300 * SECOND)));
        assert_eq!(redundancy.suffered(start + SETTLE + 400 * SECOND), 0, "long ago");
        for step in 60..70 {
            redundancy.hear_report(start + SETTLE + step * 5 * SECOND, 0, 250, false);
        }
        assert_eq!(redundancy.repeats(), 0);
    }

    #[test]
    fn a_report_of_before_is_not_reckoned_back() {
        let start = test_epoch();
        let mut redundancy = at_loss(26);
        redundancy.hear_report(start + SECOND, 26, 250, false);
        assert_eq!(redundancy.repeats(), 1);
    }

    #[test]
    fn what_is_lost_on_a_crowded_line_is_not_repeated_for() {
        let start = test_epoch();
        let mut redundancy = Redundancy::default();
        for step in 1..10 {
            redundancy.hear_report(start + step * 5 * SECOND, 100, 250, true);
        }
        assert_eq!((redundancy.repeats(), redundancy.loss()), (0, 0));
        assert!(redundancy.suffered(start + 46 * SECOND) > 90, "but it is what the listener misses");
    }

    #[test]
    fn roots_are_roots() {
        assert_eq!((root(65_536 / 100, 2), root(65_536 / 1_000, 3)), (6_551, 6_535));
        assert_eq!((root(65_280, 2), root(65_280, 3), root(0, 3)), (65_407, 65_450, 0));
    }

    #[test]
    fn every_packet_is_repeated_behind_later_ones_even_over_gaps() {
        for (fraction, distances) in [(0, &[][..]), (26, &[2][..]), (77, &[2, 5][..])] {
            let mut redundancy = at_loss(fraction);
            let mut trail = Trail::default();
            let mut repeats = Vec::new();
            // 110 and 111 are missing; 105 comes late, after 108.
            let numbers = (100..105).chain([106, 107, 108, 105, 109]).chain(112..130);
            for number in numbers.clone() {
                trail.follow(test_epoch(), &packet(number), &mut redundancy, |repeat| {
                    assert!(repeat.is_repeat);
                    repeats.push((repeat.sequence.0, number));
                    true
                });
            }
            for number in numbers.filter(|number| *number <= 124) {
                let with: Vec<u64> = repeats
                    .iter()
                    .filter(|(repeat, _)| *repeat == number)
                    .map(|(_, with)| with - number)
                    .collect();
                match number {
                    105 => assert!(with.len() >= distances.len().saturating_sub(1), "late: {with:?}"),
                    _ => {
                        assert_eq!(with.len(), distances.len(), "{number}: {with:?}");
                        assert!(with.iter().zip(distances).all(|(with, wanted)| with >= wanted), "{with:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn repeats_are_bounded_by_the_second_and_by_congestion_control() {
        let mut redundancy = at_loss(77);
        let mut trail = Trail::default();
        let mut count = 0;
        for number in 0..1_000 {
            trail.follow(test_epoch(), &packet(number), &mut redundancy, |_| {
                count += 1;
                true
            });
        }
        assert_eq!(count, REPEATS_PER_SECOND_MAX);
        redundancy.set_allowance_bps(Some(20_000));
        let mut bytes = 0;
        for number in 1_000..2_000 {
            trail.follow(test_epoch() + SECOND, &packet(number), &mut redundancy, |repeat| {
                bytes += usize::from(repeat.payload_bytes) + OVERHEAD_BYTES;
                true
            });
        }
        assert!((2_300..=2_500).contains(&bytes), "{bytes}");
    }
}
