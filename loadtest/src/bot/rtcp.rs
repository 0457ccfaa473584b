//! RTCP (RFC 3550, RFC 4585, RFC 5104, transport-wide feedback of draft-holmer-rmcat-transport-wide-cc-extensions-01):
//! the reports and requests that a bot writes, and the requests that it reads.

use std::collections::VecDeque;

/// Transport-wide numbers in one feedback message, so that it fits a datagram however they are coded.
const FEEDBACK_PACKETS_MAX: u64 = 350;

/// Numbers that wait for a feedback message at the most: 100 ms at far beyond any scenario's rate.
const WAITING_MAX: usize = 16_384;

/// Something a server asks of a sender, or tells a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The middle of the NTP time in a sender report of the stream with this SSRC, to be told back in reports on it.
    Answer { ssrc: u32, sender_report: u32 },
    /// A key frame (PLI or FIR) of the stream with this SSRC.
    KeyFrame(u32),
    /// The packets with this number and those after it that the mask names (RFC 4585 section 6.2.1).
    Resend { ssrc: u32, first: u16, mask: u16 },
}

/// Reads the requests of a compound packet; what is damaged ends it.
pub(crate) fn read_requests(mut compound: &[u8], mut handle: impl FnMut(Request)) {
    while let Some(head) = compound.first_chunk::<4>() {
        let bytes = (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1) * 4;
        let Some(packet) = compound.get(..bytes) else { return };
        let word = |at: usize| packet.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        match (head[1], head[0] & 0x1f) {
            (200, _) => {
                if let (Some(ssrc), Some(seconds), Some(fraction)) = (word(4), word(8), word(12)) {
                    handle(Request::Answer { ssrc, sender_report: seconds << 16 | fraction >> 16 });
                }
            }
            (206, 1) => {
                if let Some(ssrc) = word(8) {
                    handle(Request::KeyFrame(ssrc));
                }
            }
            (206, 4) => {
                for at in (12..bytes).step_by(8) {
                    if let Some(ssrc) = word(at) {
                        handle(Request::KeyFrame(ssrc));
                    }
                }
            }
            (205, 1) => {
                for at in (12..bytes).step_by(4) {
                    if let (Some(ssrc), Some(pair)) = (word(8), word(at)) {
                        handle(Request::Resend { ssrc, first: (pair >> 16) as u16, mask: pair as u16 });
                    }
                }
            }
            _ => {}
        }
        compound = &compound[bytes..];
    }
}

/// Writes the head of a packet; `out` gets `words` more words behind its first.
fn write_head(out: &mut Vec<u8>, count_or_format: u8, kind: u8, words: usize) {
    out.extend([0x80 | count_or_format, kind]);
    out.extend((words as u16).to_be_bytes());
}

/// A sender report without report blocks (RFC 3550 section 6.4.1).
pub(crate) fn write_sender_report(
    out: &mut Vec<u8>,
    ssrc: u32,
    ntp: u64,
    timestamp: u32,
    packets: u32,
    bytes: u32,
) {
    write_head(out, 0, 200, 6);
    out.extend(ssrc.to_be_bytes());
    out.extend(ntp.to_be_bytes());
    for word in [timestamp, packets, bytes] {
        out.extend(word.to_be_bytes());
    }
}

/// What a receiver reports of one stream (RFC 3550 section 6.4.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) ssrc: u32,
    pub(crate) lost: u32,
    pub(crate) highest: u32,
    /// The newest sender report and how long ago it came, in units of 1/65,536 s; zeros where none has come.
    pub(crate) sender_report: u32,
    /// See `sender_report`.
    pub(crate) since: u32,
}

/// A receiver report; an empty one only where it is to be the compound's first packet.
pub(crate) fn write_receiver_report(out: &mut Vec<u8>, own_ssrc: u32, reports: &[Report]) {
    if reports.is_empty() && out.is_empty() {
        write_head(out, 0, 201, 1);
        out.extend(own_ssrc.to_be_bytes());
    }
    for reports in reports.chunks(31) {
        write_head(out, reports.len() as u8, 201, 1 + reports.len() * 6);
        out.extend(own_ssrc.to_be_bytes());
        for report in reports {
            out.extend(report.ssrc.to_be_bytes());
            out.extend((report.lost & 0x00ff_ffff).to_be_bytes()); // nothing lost since the last report
            out.extend(report.highest.to_be_bytes());
            out.extend([0; 4]); // no jitter measured
            out.extend(report.sender_report.to_be_bytes());
            out.extend(report.since.to_be_bytes());
        }
    }
}

/// A source description with the name that all bots have (RFC 3550 section 6.5).
pub(crate) fn write_source_description(out: &mut Vec<u8>, own_ssrc: u32) {
    write_head(out, 1, 202, 3);
    out.extend(own_ssrc.to_be_bytes());
    out.extend(b"\x01\x03bot\0\0\0"); // CNAME, and null octets up to a whole word
}

/// Whether a compound begins with a report, as RFC 3550 section 6.1 has it.
pub(crate) fn has_report_in_front(compound: &[u8]) -> bool {
    matches!(compound.get(1), Some(200 | 201))
}

/// Asks for a key frame (RFC 4585 section 6.3.1).
pub(crate) fn write_key_frame_request(out: &mut Vec<u8>, own_ssrc: u32, ssrc: u32) {
    write_head(out, 1, 206, 2);
    out.extend(own_ssrc.to_be_bytes());
    out.extend(ssrc.to_be_bytes());
}

/// Asks for packets once more (RFC 4585 section 6.2.1); `numbers` ascend.
pub(crate) fn write_resend_request(out: &mut Vec<u8>, own_ssrc: u32, ssrc: u32, numbers: &[u16]) {
    let mut pairs: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match pairs.last_mut() {
            Some((first, mask)) if (1..=16).contains(&number.wrapping_sub(*first)) => {
                *mask |= 1 << (number.wrapping_sub(*first) - 1);
            }
            _ => pairs.push((*number, 0)),
        }
    }
    write_head(out, 1, 205, 2 + pairs.len());
    out.extend(own_ssrc.to_be_bytes());
    out.extend(ssrc.to_be_bytes());
    for (first, mask) in pairs {
        out.extend(first.to_be_bytes());
        out.extend(mask.to_be_bytes());
    }
}

/// Arrivals by transport-wide number, until they are reported.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// Unwrapped numbers, ascending, and when they came in ns.
    waiting: VecDeque<(u64, u64)>,
    highest: Option<u64>,
    next_base: u64,
    messages: u8,
    left_out: u64,
}

/// Units of a time in the message: 250 µs, and 64 ms of the reference.
const DELTA_NS: u64 = 250_000;
const REFERENCE_NS: u64 = 64_000_000;

impl Arrivals {
    /// Notes an arrival.
    pub(crate) fn note(&mut self, now_ns: u64, number: u16) {
        let number = match self.highest {
            None => {
                self.next_base = 0x1_0000 + u64::from(number);
                self.next_base
            }
            // RFC 3711's way: the nearest to the highest.
            Some(highest) => {
                highest.wrapping_add_signed(i64::from(number.wrapping_sub(highest as u16) as i16))
            }
        };
        self.highest = self.highest.max(Some(number));
        if number < self.next_base || self.waiting.len() == WAITING_MAX {
            self.left_out += 1;
            return;
        }
        let at = self.waiting.iter().rposition(|(earlier, _)| *earlier <= number).map_or(0, |at| at + 1);
        if at > 0 && self.waiting[at - 1].0 == number {
            return;
        }
        self.waiting.insert(at, (number, now_ns));
    }

    /// Appends a message about what has arrived since the last; false where nothing has.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, own_ssrc: u32, media_ssrc: u32) -> bool {
        let Some(&(first, first_ns)) = self.waiting.front() else { return false };
        // What is missing in front is told as missing, but for a hole that would fill messages on its own.
        let base = if first - self.next_base < FEEDBACK_PACKETS_MAX { self.next_base } else { first };
        let reference = first_ns / REFERENCE_NS;
        let mut last_ns = reference * REFERENCE_NS;
        let (mut symbols, mut deltas) = (Vec::new(), Vec::new());
        while let Some(&(number, at_ns)) = self.waiting.front() {
            if number - base >= FEEDBACK_PACKETS_MAX {
                break;
            }
            let delta = (at_ns as i64 - last_ns as i64).div_euclid(DELTA_NS as i64);
            symbols.resize((number - base) as usize, 0_u16);
            match (u8::try_from(delta), i16::try_from(delta)) {
                (Ok(small), _) => {
                    symbols.push(1);
                    deltas.push(small);
                }
                (_, Ok(large)) => {
                    symbols.push(2);
                    deltas.extend(large.to_be_bytes());
                }
                _ => break, // 8 s apart: the next message has a reference of its own
            }
            last_ns = last_ns.wrapping_add_signed(delta * DELTA_NS as i64);
            self.waiting.pop_front();
        }
        self.next_base = base + symbols.len() as u64;
        let mut body = Vec::with_capacity(16 + symbols.len() / 3 + deltas.len());
        body.extend(own_ssrc.to_be_bytes());
        body.extend(media_ssrc.to_be_bytes());
        body.extend((base as u16).to_be_bytes());
        body.extend((symbols.len() as u16).to_be_bytes());
        body.extend(&(reference as u32).to_be_bytes()[1..]);
        body.push(self.messages);
        self.messages = self.messages.wrapping_add(1);
        write_symbols(&mut body, &symbols);
        body.extend(deltas);
        body.resize(body.len().next_multiple_of(4), 0);
        write_head(out, 15, 205, body.len() / 4);
        out.extend(body);
        true
    }
}

/// Packet status chunks: a run where it is longer than a vector of seven two-bit symbols (section 3.1.3, 3.1.4).
fn write_symbols(body: &mut Vec<u8>, mut symbols: &[u16]) {
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take_while(|symbol| **symbol == first).count();
        let (chunk, taken) = if run >= 7 {
            (first << 13 | run as u16, run)
        } else {
            let taken = symbols.len().min(7);
            let bits = symbols[..taken].iter().enumerate();
            (bits.fold(0xc000, |bits, (at, symbol)| bits | symbol << (12 - 2 * at)), taken)
        };
        body.extend(chunk.to_be_bytes());
        symbols = &symbols[taken..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc_rtcp::receiver_report::ReceiverReport;
    use rtc_rtcp::source_description::SourceDescription;
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, TransportLayerCc};
    use rtc_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
    use rtc_shared::marshal::Unmarshal;

    fn statuses(message: &TransportLayerCc) -> Vec<u16> {
        let chunk = |chunk: &PacketStatusChunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                vec![run.packet_status_symbol as u16; usize::from(run.run_length)]
            }
            PacketStatusChunk::StatusVectorChunk(vector) => {
                vector.symbol_list.iter().map(|symbol| *symbol as u16).collect()
            }
        };
        let mut all: Vec<u16> = message.packet_chunks.iter().flat_map(chunk).collect();
        all.truncate(usize::from(message.packet_status_count));
        all
    }

    proptest! {
        /// An independent reader finds each arrival at its time, whatever is missing between.
        #[test]
        fn feedback_tells_what_arrived_and_when(
            first: u16, steps in proptest::collection::vec((1..12_u16, 0..200_000_u64), 1..400),
        ) {
            let mut arrivals = Arrivals::default();
            let (mut number, mut at_us, mut expected) = (first, 5_000_000_u64, Vec::new());
            for (step, delta_us) in steps {
                arrivals.note(at_us * 1_000, number);
                expected.push((number, at_us));
                number = number.wrapping_add(step);
                at_us += delta_us;
            }
            let mut found = Vec::new();
            loop {
                let mut out = Vec::new();
                if !arrivals.write(&mut out, 1, 2) {
                    break;
                }
                prop_assert!(out.len() < 1_200);
                let message = TransportLayerCc::unmarshal(&mut &out[..]).expect("well-formed");
                let mut at_us = i64::from(message.reference_time) * 64_000;
                let mut deltas = message.recv_deltas.iter();
                for (index, status) in statuses(&message).into_iter().enumerate() {
                    if status != 0 {
                        at_us += deltas.next().expect("a delta for each arrival").delta;
                        found.push((message.base_sequence_number.wrapping_add(index as u16), at_us));
                    }
                }
            }
            prop_assert_eq!(found.len(), expected.len());
            for ((number, at_us), (expected_number, expected_us)) in found.into_iter().zip(expected) {
                prop_assert_eq!(number, expected_number);
                prop_assert!((at_us - expected_us as i64).abs() <= 250);
            }
        }
    }

    #[test]
    fn a_request_for_packets_is_read_back_by_us_and_by_another() {
        let mut out = Vec::new();
        write_resend_request(&mut out, 1, 2, &[65_530, 65_535, 3, 40]);
        let mut requests = Vec::new();
        read_requests(&out, |request| requests.push(request));
        let resend = |first, mask| Request::Resend { ssrc: 2, first, mask };
        assert_eq!(requests, [resend(65_530, 1 << 4 | 1 << 8), resend(40, 0)]);
        let other = TransportLayerNack::unmarshal(&mut &out[..]).unwrap();
        let numbers: Vec<u16> = other.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        assert_eq!(numbers, [65_530, 65_535, 3, 40]);
    }

    #[test]
    fn of_a_sender_report_the_middle_of_its_time_is_told() {
        let mut out = Vec::new();
        write_sender_report(&mut out, 9, 0x1122_3344_5566_7788, 3, 4, 5);
        let mut requests = Vec::new();
        read_requests(&out, |request| requests.push(request));
        assert_eq!(requests, [Request::Answer { ssrc: 9, sender_report: 0x3344_5566 }]);
    }

    #[test]
    fn a_source_description_is_read_by_another() {
        let mut out = Vec::new();
        write_receiver_report(&mut out, 1, &[]);
        assert!(has_report_in_front(&out));
        let report_bytes = out.len();
        write_source_description(&mut out, 7);
        let other = SourceDescription::unmarshal(&mut &out[report_bytes..]).unwrap();
        assert_eq!((other.chunks[0].source, &other.chunks[0].items[0].text[..]), (7, &b"bot"[..]));
        assert!(!has_report_in_front(&out[report_bytes..]) && !has_report_in_front(&[]));
    }

    #[test]
    fn key_frame_requests_of_both_kinds_are_read_behind_reports() {
        let mut out = Vec::new();
        write_sender_report(&mut out, 1, 2, 3, 4, 5);
        let report = Report { ssrc: 9, lost: 0, highest: 7, sender_report: 0xaabb_ccdd, since: 65_536 };
        write_receiver_report(&mut out, 1, &[report]);
        write_key_frame_request(&mut out, 1, 77);
        write_head(&mut out, 4, 206, 4); // FIR (RFC 5104 section 4.3.1)
        for word in [1_u32, 0, 78, 0x0100_0000] {
            out.extend(word.to_be_bytes());
        }
        let mut requests = Vec::new();
        read_requests(&out, |request| requests.push(request));
        let answer = Request::Answer { ssrc: 1, sender_report: 0 };
        assert_eq!(requests, [answer, Request::KeyFrame(77), Request::KeyFrame(78)]);
        let other = ReceiverReport::unmarshal(&mut &out[28..60]).unwrap();
        assert_eq!((other.reports[0].last_sender_report, other.reports[0].delay), (0xaabb_ccdd, 65_536));
        for length in 0..out.len() {
            read_requests(&out[..length], |_| {});
        }
    }
}
