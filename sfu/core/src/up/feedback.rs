//! When a publisher's packets arrived, for the sender's own estimate of its uplink
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! It records and reports; estimating is the browser's part here.

use crate::rtp::{
    rtcp_write::{FeedbackHead, Writer},
    sequence::Sequence,
};
use std::time::Instant;

/// Most packets between two reports: 3 Mbit/s and audio are below 50 in a tenth of a second; a probing browser sends
/// bursts of several times that.
const PENDING_MAX: usize = 256;

/// Most numbers that one feedback packet covers: what fits a packet even if every delta takes two bytes.
const SPAN_MAX: u64 = 400;

/// Arrivals since the last report.
#[derive(Debug, Default)]
pub struct Feedback {
    pending: Vec<(Sequence, Instant)>,
    highest: Option<Sequence>,
    /// The first number that no report covers yet.
    next: Option<Sequence>,
    count: u8,
    /// Whether the turn for a report has come.
    is_turn: bool,
}

impl Feedback {
    /// Notes a packet's transport-wide number.
    pub fn arrive(&mut self, now: Instant, wire: u16) {
        let sequence = self.highest.map_or(Sequence::first(wire), |highest| highest.nearest(wire));
        if self.pending.len() >= PENDING_MAX || self.next.is_some_and(|next| sequence < next) {
            return;
        }
        self.highest = self.highest.max(Some(sequence));
        self.pending.push((sequence, now));
    }

    /// Says that the turn for a report has come. Not every flush is one: on a narrow line thirty reports a second would
    /// crowd out what their publisher listens to.
    pub fn take_turn(&mut self) {
        self.is_turn = true;
    }

    /// Whether nothing waits for a report.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether a report is to be written now.
    pub fn is_due(&self) -> bool {
        !self.pending.is_empty() && (self.is_turn || self.is_urgent())
    }

    /// Whether a report should not wait for its turn: the record is nearly full.
    pub fn is_urgent(&self) -> bool {
        self.pending.len() >= PENDING_MAX / 2
    }

    /// Writes a report on all that is pending. `epoch` is any fixed moment before the first arrival.
    pub fn write(&mut self, writer: &mut Writer<'_>, epoch: Instant, ssrc: u32, media_ssrc: u32) {
        self.pending.sort_unstable();
        self.pending.dedup_by_key(|(sequence, _)| *sequence);
        let (Some(&(first, _)), Some(&(last, _))) = (self.pending.first(), self.pending.last()) else {
            return;
        };
        let base = match self.next {
            Some(next) if next <= first && last.0 - next.0 < SPAN_MAX => next,
            _ => first,
        };
        let span = (last.0 - base.0 + 1).min(SPAN_MAX) as usize;
        // Units of 250 µs; the reference is the latest multiple of 64 ms at or before the first arrival.
        let units = |at: Instant| (at.saturating_duration_since(epoch).as_micros() / 250) as i64;
        let earliest = self.pending.iter().map(|(_, at)| units(*at)).min().unwrap_or(0);
        let reference = earliest / 256;
        let mut arrivals = [None; SPAN_MAX as usize];
        for (sequence, at) in &self.pending {
            if let Some(place) = arrivals.get_mut((sequence.0 - base.0) as usize) {
                *place = Some(units(*at) - reference * 256);
            }
        }
        let head = FeedbackHead {
            ssrc,
            media_ssrc,
            base: base.wire(),
            reference: reference as u32 & 0xff_ffff,
            count: self.count,
        };
        if writer.transport_feedback(head, &arrivals[..span]) {
            self.count = self.count.wrapping_add(1);
        }
        self.next = Some(last.plus(1));
        self.pending.clear();
        self.is_turn = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::test_epoch;
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
    use std::time::Duration;

    #[test]
    fn another_implementation_reads_the_report() {
        let epoch = test_epoch();
        let mut feedback = Feedback::default();
        let start = epoch + Duration::from_millis(70);
        for (wire, ms) in [(65_534_u16, 0), (65_535, 1), (1, 30), (0, 5), (9, 200)] {
            feedback.arrive(start + Duration::from_millis(ms), wire);
        }
        let mut bytes = [0; 200];
        let mut writer = Writer::new(&mut bytes);
        feedback.write(&mut writer, epoch, 1, 2);
        let length = writer.len();
        let mut input = bytes::Bytes::copy_from_slice(&bytes[..length]);
        let packets = rtc_rtcp::packet::unmarshal(&mut input).expect("well formed");
        let report = packets[0].as_any().downcast_ref::<TransportLayerCc>().expect("feedback");
        assert_eq!((report.base_sequence_number, report.packet_status_count), (65_534, 12));
        assert_eq!(report.reference_time, 1);
        let deltas: Vec<_> = report.recv_deltas.iter().map(|delta| delta.delta / 1_000).collect();
        assert_eq!(deltas, [6, 1, 4, 25, 170]);
        assert!(!feedback.is_due());
    }

    #[test]
    fn a_report_waits_for_its_turn_unless_the_record_fills() {
        let epoch = test_epoch();
        let mut feedback = Feedback::default();
        feedback.take_turn();
        assert!(!feedback.is_due(), "nothing to report");
        feedback.arrive(epoch, 1);
        assert!(feedback.is_due());
        feedback.write(&mut Writer::new(&mut [0; 200]), epoch, 1, 2);
        feedback.arrive(epoch, 2);
        assert!(!feedback.is_due(), "not before its turn");
        for number in 3..=PENDING_MAX as u16 {
            feedback.arrive(epoch, number);
        }
        assert!(feedback.is_due(), "urgent");
    }

    #[test]
    fn the_record_is_bounded_and_a_full_one_fits_a_packet() {
        let epoch = test_epoch();
        let mut feedback = Feedback::default();
        for number in 0..2_000_u16 {
            feedback.arrive(epoch + Duration::from_millis(u64::from(number) * 100), number.wrapping_mul(3));
        }
        assert_eq!(feedback.pending.len(), PENDING_MAX);
        let mut bytes = [0; 1_400];
        let mut writer = Writer::new(&mut bytes);
        feedback.write(&mut writer, epoch, 1, 2);
        assert!(!writer.is_empty());
    }
}
