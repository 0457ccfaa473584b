//! A subscriber whose feedback lies, ten thousand times a second: what was never sent has arrived, what arrived is
//! missing, times that jump by days, the impossible is asked for. Another subscriber of the same pictures has, byte for
//! byte and at the same moments, what it has without the lies; the publisher is bothered no more than by anyone.

mod meeting;

use asamblea_seam::Event;
use asamblea_sfu_core::{
    rtp::{
        header::Packet,
        rtcp::{Rtcp, walk},
        rtcp_write::{FeedbackHead, ReportBlock, SenderReport, Writer},
        time::Ntp,
    },
    stats::RoomCounters,
};
use meeting::{Meeting, TRANSPORT_CC, rtcp};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Ten times this a millisecond: 10^4 a second.
const LIES_PER_MS: usize = 10;

const LASTS_MS: u32 = 4_000;

const PUBLISHER: usize = 0;
const LIAR: usize = 1;
const WITNESS: usize = 2;

/// Transport-wide feedback written by hand, since the writer cannot lie.
fn forged(base: u16, count: u16, reference: u32, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2];
    body.extend(base.to_be_bytes());
    body.extend(count.to_be_bytes());
    body.extend((reference << 8).to_be_bytes());
    body.extend(chunks.iter().flat_map(|chunk| chunk.to_be_bytes()));
    body.extend(deltas);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut bytes = vec![0x8f, 205];
    bytes.extend(((body.len() / 4) as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// What a liar knows.
struct Knowledge {
    /// The SSRCs of its own slots and of the witness's, and of the publisher's streams.
    mine: [u32; 2],
    witness: [u32; 2],
    publisher: [u32; 2],
    /// The newest transport-wide number that it was sent, and the newest of its pictures.
    newest: u16,
    picture: u16,
    count: usize,
}

type Lie = fn(&Knowledge) -> Vec<u8>;

fn all_arrived_at_once(it: &Knowledge) -> Vec<u8> {
    forged(it.newest.wrapping_sub(200), 400, 7, &[0x2000 | 400], &[0; 400])
}

fn nothing_ever_arrived(it: &Knowledge) -> Vec<u8> {
    forged(it.newest.wrapping_sub(30_000), u16::MAX, it.count as u32, &[0x1fff; 9], &[])
}

fn now_this_and_now_that(it: &Knowledge) -> Vec<u8> {
    let reference = [0, 0x7f_ffff, 0x80_0000, 0xff_ffff, 12_345][it.count % 5];
    match it.count % 2 {
        0 => forged(it.newest.wrapping_sub(50), 50, reference, &[0x2000 | 50], &[255; 50]),
        _ => forged(it.newest.wrapping_sub(50), 50, reference, &[50], &[]),
    }
}

fn arrived_before_it_was_sent(it: &Knowledge) -> Vec<u8> {
    let deltas: Vec<u8> = [0x80, 0x00, 0x7f, 0xff].repeat(10);
    forged(it.newest.wrapping_sub(20), 20, 0x80_0000, &[0x4000 | 20], &deltas)
}

fn no_line_at_all_and_one_without_end(it: &Knowledge) -> Vec<u8> {
    let bps = [0, u64::MAX >> 18, 1, 40_000_000][it.count % 4];
    rtcp(|writer| assert!(writer.remb(1, bps, &it.mine)))
}

fn every_packet_again(it: &Knowledge) -> Vec<u8> {
    let first = match it.count % 2 {
        0 => it.picture.wrapping_sub(64),
        _ => (it.count as u16).wrapping_mul(37),
    };
    let numbers: Vec<u16> = (0..64).map(|place| first.wrapping_add(place)).collect();
    rtcp(|writer| {
        for ssrc in it.mine.into_iter().chain(it.witness).chain(it.publisher).chain([0xdead_beef]) {
            assert!(writer.nack(1, ssrc, &numbers));
        }
    })
}

fn a_key_frame_of_everything(it: &Knowledge) -> Vec<u8> {
    rtcp(|writer| {
        for ssrc in it.mine.into_iter().chain(it.witness).chain(it.publisher).chain([0xdead_beef]) {
            assert!(writer.picture_loss(1, ssrc));
        }
    })
}

fn reports_on_anything(it: &Knowledge) -> Vec<u8> {
    let all = it.mine.into_iter().chain(it.witness).chain(it.publisher).chain([0xdead_beef]);
    let blocks: Vec<ReportBlock> = all
        .map(|ssrc| ReportBlock {
            ssrc,
            fraction_lost: [0, 255][it.count % 2],
            cumulative_lost: [-0x80_0000, 0x7f_ffff][it.count / 2 % 2],
            highest: (it.count as u32).wrapping_mul(0x1357_9bdf),
            jitter: u32::MAX,
            last_report: (it.count as u32).wrapping_mul(0x2468_ace1) | 1,
            delay: it.count as u32,
        })
        .collect();
    rtcp(|writer| assert!(writer.receiver_report(1, &blocks)))
}

fn others_streams_and_their_end(it: &Knowledge) -> Vec<u8> {
    let mut bytes = rtcp(|writer| {
        for ssrc in it.publisher.into_iter().chain(it.witness).chain(it.mine) {
            let ntp = Ntp(u64::MAX / (1 + it.count as u64));
            let report = SenderReport { ssrc, ntp, rtp: u32::MAX, packets: 0, octets: u32::MAX };
            assert!(writer.sender_report(&report));
        }
    });
    bytes.extend([0x82, 203, 0, 2]);
    for ssrc in it.publisher {
        bytes.extend(ssrc.to_be_bytes());
    }
    bytes
}

/// What is counted of it; each lie at the least once, if it can be told from the truth.
type Count = fn(&RoomCounters) -> u64;

const LIES: [(&str, Lie, Option<Count>); 9] = [
    (
        "everything arrived at once, also what was never sent",
        all_arrived_at_once,
        Some(|it| it.feedback_refused + it.feedback_unknown),
    ),
    ("nothing ever arrived", nothing_ever_arrived, Some(|it| it.feedback_refused + it.feedback_unknown)),
    (
        "what arrived is missing and has arrived, days ago or ahead",
        now_this_and_now_that,
        Some(|it| it.feedback_refused + it.feedback_unknown),
    ),
    (
        "it arrived before it was sent",
        arrived_before_it_was_sent,
        Some(|it| it.feedback_refused + it.feedback_unknown),
    ),
    ("the line carries nothing, the line carries everything", no_line_at_all_and_one_without_end, None),
    (
        "every packet again, of all streams",
        every_packet_again,
        Some(|it| it.resend_refused.min(it.requests_unknown)),
    ),
    ("a key frame of every stream", a_key_frame_of_everything, Some(|it| it.requests_unknown)),
    ("reports on all streams, whatever comes to mind", reports_on_anything, Some(|it| it.reports_unknown)),
    (
        "reports as the sender of others' streams, and their end",
        others_streams_and_their_end,
        Some(|it| it.reports_unknown),
    ),
];

/// What came of a meeting.
struct Outcome {
    /// What the witness was sent, and when.
    witness: Vec<(Duration, Vec<u8>)>,
    /// Bytes that the liar was sent.
    liar_bytes: usize,
    /// Picture loss indications and requests for packets that the publisher was sent.
    bothered: usize,
    /// What signaling was told of anyone.
    told: usize,
    memory_bytes: usize,
    counters: RoomCounters,
}

/// A publisher, someone who lies with these if with any, and someone who does not.
fn run(lies: &[Lie]) -> Outcome {
    let mut meeting = Meeting::new(5);
    for _ in 0..3 {
        meeting.join(2, 1);
    }
    for layer in 0..3 {
        meeting.send_frame(PUBLISHER, layer, true);
    }
    for watcher in [LIAR, WITNESS] {
        meeting.view(watcher, &[("v0", Some(PUBLISHER), 720)]);
    }
    meeting.people[LIAR].oracle.is_narrow = true;
    let slots =
        |meeting: &Meeting, person| [meeting.slot_ssrc(person, "v0"), meeting.slot_ssrc(person, "a0")];
    let mut knowledge = Knowledge {
        mine: slots(&meeting, LIAR),
        witness: slots(&meeting, WITNESS),
        publisher: [meeting.people[PUBLISHER].camera[2].ssrc, meeting.people[PUBLISHER].microphone.ssrc],
        newest: 0,
        picture: 0,
        count: 0,
    };
    let start = meeting.now;
    let mut honest = Honest::new(start);
    let mut outcome = Outcome {
        witness: Vec::new(),
        liar_bytes: 0,
        bothered: 0,
        told: 0,
        memory_bytes: 0,
        counters: RoomCounters::default(),
    };
    meeting.told.clear();
    for ms in 0..LASTS_MS {
        if ms % 20 == 0 {
            meeting.send_sound(PUBLISHER, 20);
        }
        if ms % 40 == 0 {
            for (layer, packets) in [(0, 1), (1, 3), (2, 12)] {
                // The same key frames in every run, whoever asks: a decoder's matter is not this test's.
                for packet in meeting.frame(PUBLISHER, layer, ms % 1_000 == 0, packets) {
                    meeting.hand_in(PUBLISHER, &packet);
                }
            }
        }
        for lie in lies.iter().cycle().take(if lies.is_empty() { 0 } else { LIES_PER_MS }) {
            meeting.hand_in_rtcp(LIAR, &lie(&knowledge));
            knowledge.count += 1;
        }
        meeting.pass(MS);
        for bytes in std::mem::take(&mut meeting.people[LIAR].received) {
            outcome.liar_bytes += bytes.len();
            knowledge.newest = number(&bytes).unwrap_or(knowledge.newest);
            let packet = Packet::parse(&bytes).expect("RTP");
            if packet.ssrc == knowledge.mine[0] {
                knowledge.picture = packet.sequence;
            }
        }
        for bytes in std::mem::take(&mut meeting.people[WITNESS].received) {
            honest.receive(meeting.now, &bytes);
            outcome.witness.push((meeting.now - start, bytes));
        }
        if ms % 100 == 99
            && let Some(report) = honest.report()
        {
            meeting.hand_in_rtcp(WITNESS, &report);
        }
        for compound in std::mem::take(&mut meeting.people[PUBLISHER].rtcp) {
            let is_request =
                |packet: &Rtcp<'_>| matches!(packet, Rtcp::PictureLoss { .. } | Rtcp::Nack { .. });
            outcome.bothered += walk(&compound).flatten().filter(is_request).count();
        }
        outcome.memory_bytes = outcome.memory_bytes.max(meeting.room.memory_bytes());
    }
    let is_of_another = |(_, event): &&(Instant, Event)| !matches!(event, Event::Speakers { .. });
    outcome.told = meeting.told.iter().filter(is_of_another).count();
    outcome.counters = *meeting.room.counters();
    outcome
}

/// The transport-wide number of a packet.
fn number(bytes: &[u8]) -> Option<u16> {
    let number = Packet::parse(bytes)?.extensions.get(TRANSPORT_CC)?;
    Some(u16::from_be_bytes(number.try_into().ok()?))
}

/// The feedback of a receiver that says what is.
struct Honest {
    start: Instant,
    arrivals: Vec<(u16, i64)>,
    reports: u8,
}

impl Honest {
    fn new(start: Instant) -> Self {
        Self { start, arrivals: Vec::new(), reports: 0 }
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let at = (now - self.start).as_micros() as i64 / 250;
        self.arrivals.extend(number(bytes).map(|number| (number, at)));
    }

    fn report(&mut self) -> Option<Vec<u8>> {
        let (base, _) = *self.arrivals.first()?;
        let (last, _) = *self.arrivals.last()?;
        let mut all = vec![None; usize::from(last.wrapping_sub(base)) + 1];
        let reference = self.arrivals[0].1 / 256;
        for (number, at) in self.arrivals.drain(..) {
            all[usize::from(number.wrapping_sub(base))] = Some(at - reference * 256);
        }
        self.reports = self.reports.wrapping_add(1);
        let head =
            FeedbackHead { ssrc: 1, media_ssrc: 2, base, reference: reference as u32, count: self.reports };
        Some(rtcp(|writer: &mut Writer<'_>| assert!(writer.transport_feedback(head, &all))))
    }
}

#[test]
fn whatever_one_subscriber_says_another_has_the_same_to_the_byte() {
    let calm = run(&[]);
    assert!(calm.witness.len() > 1_000, "{} packets", calm.witness.len());
    assert_eq!(calm.counters.feedback_unknown, 0, "the witness is honest");
    let seconds = u64::from(LASTS_MS / 1_000);
    let all: Vec<Lie> = LIES.iter().map(|(_, lie, _)| *lie).collect();
    let each = LIES.iter().map(|(name, lie, count)| (*name, vec![*lie], *count));
    for (name, lies, count) in each.chain([("all of these", all, None)]) {
        let stormy = run(&lies);
        let counters = stormy.counters;
        let first = stormy.witness.iter().zip(&calm.witness).position(|(one, other)| one != other);
        assert_eq!(first, None, "{name}: the witness notices");
        assert_eq!(stormy.witness.len(), calm.witness.len(), "{name}: the witness notices");
        let told = LIES_PER_MS as u64 * u64::from(LASTS_MS);
        let counted = count.map_or(told, |count| count(&counters));
        assert!(counted >= told * 19 / 20, "{name}: of {told} lies {counted} are counted");
        // As often as anyone who watches a layer may ask for a key frame of it.
        let more = stormy.bothered.saturating_sub(calm.bothered) as u64;
        assert!(more <= 2 * 3 * (seconds + 1), "{name}: the publisher is asked {more} times more");
        assert!(counters.resent <= 600 * (seconds + 1), "{name}: {} packets again", counters.resent);
        let sent = stormy.liar_bytes as f64 / calm.liar_bytes as f64;
        assert!(sent < 3.0, "{name}: the liar is sent {sent:.1} times as much");
        let said = stormy.told.saturating_sub(calm.told) as u64;
        assert!(said <= 4 * seconds, "{name}: signaling is told {said} times more");
        assert!(stormy.memory_bytes < calm.memory_bytes + (1 << 20), "{name}: {} bytes", stormy.memory_bytes);
        println!(
            "{name}: publisher asked {more} times more, liar sent {sent:.1} times as much, {said} events more"
        );
    }
}
