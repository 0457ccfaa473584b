//! What a bot sends on one stream: numbered, sealed, kept for a while, sent again where it is asked for.

use super::rtp::Header;
use super::sdp::{Description, Extension, OwnLine, RIDS};
use crate::traffic::Kind;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Packets that are kept for repair: a second and more of any scenario's layer.
const KEPT_MAX: usize = 512;

/// The level of a bot's voice in -dBov with the bit that says that it is one (RFC 6464 section 3).
const VOICE: u8 = 0x80 | 30;

/// Numbers and payload types as the server answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendParameters {
    payload_type: u8,
    repair_payload_type: Option<u8>,
    extensions: [Option<u8>; Extension::ALL.len()],
}

impl SendParameters {
    /// What the answer says of a line; `None` where it was refused.
    pub(crate) fn of(answer: &Description, mid: &str) -> Option<Self> {
        let line = answer.lines.iter().find(|line| line.mid == mid && !line.is_rejected)?;
        Some(Self {
            payload_type: line.payload_type?,
            repair_payload_type: line.repair_payload_type,
            extensions: line.extensions,
        })
    }

    /// Whether packets carry transport-wide numbers.
    pub(crate) fn has_feedback(&self) -> bool {
        self.extensions[Extension::TransportCc as usize].is_some()
    }
}

struct Kept {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// One outgoing stream: a voice, a picture or a layer of one.
pub(crate) struct SendStream {
    mid: String,
    rid: Option<&'static str>,
    kind: Kind,
    ssrc: u32,
    repair_ssrc: u32,
    sequence: u16,
    repair_sequence: u16,
    pub(crate) parameters: Option<SendParameters>,
    kept: VecDeque<Kept>,
    packets: u32,
    bytes: u32,
    timestamp: u32,
}

impl SendStream {
    /// The streams of a line.
    pub(crate) fn of(line: &OwnLine) -> Vec<Self> {
        let is_simulcast = line.sends.len() > 1;
        let stream = |(layer, (ssrc, repair_ssrc)): (usize, &(u32, u32))| Self {
            mid: line.mid.clone(),
            rid: is_simulcast.then(|| RIDS[layer]),
            kind: line.kind,
            ssrc: *ssrc,
            repair_ssrc: *repair_ssrc,
            // Far from its end, so that a run never depends on the guess of a receiver that missed the start.
            sequence: (ssrc >> 1) as u16 & 0x3fff,
            repair_sequence: 0,
            parameters: None,
            kept: VecDeque::new(),
            packets: 0,
            bytes: 0,
            timestamp: 0,
        };
        line.sends.iter().enumerate().map(stream).collect()
    }

    pub(crate) fn mid(&self) -> &str {
        &self.mid
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets and bytes of payload so far, and the newest timestamp, for a sender report.
    pub(crate) fn totals(&self) -> (u32, u32, u32) {
        (self.packets, self.bytes, self.timestamp)
    }

    /// Writes a packet; false before the server has answered.
    pub(crate) fn write(
        &mut self,
        out: &mut Vec<u8>,
        transport_sequence: &mut u16,
        (timestamp, marker): (u32, bool),
        payload: &[u8],
    ) -> bool {
        let Some(parameters) = self.parameters else { return false };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(payload.len() as u32);
        self.timestamp = timestamp;
        let head = (parameters.payload_type, self.ssrc, sequence, timestamp, marker);
        self.write_head(out, parameters, transport_sequence, head, false);
        out.extend_from_slice(payload);
        if parameters.repair_payload_type.is_some() {
            let mut kept = match self.kept.len() {
                KEPT_MAX => self.kept.pop_front().map(|kept| kept.payload).unwrap_or_default(),
                _ => Vec::new(),
            };
            kept.clear();
            kept.extend_from_slice(payload);
            self.kept.push_back(Kept { sequence, timestamp, marker, payload: kept });
        }
        true
    }

    /// Writes a packet once more (RFC 4588 section 4); false where it is not kept or cannot be repaired.
    pub(crate) fn write_repair(
        &mut self,
        out: &mut Vec<u8>,
        transport_sequence: &mut u16,
        sequence: u16,
    ) -> bool {
        let Some(parameters) = self.parameters else { return false };
        let Some(payload_type) = parameters.repair_payload_type else { return false };
        let Some(at) = self.kept.iter().position(|kept| kept.sequence == sequence) else { return false };
        let (timestamp, marker) = (self.kept[at].timestamp, self.kept[at].marker);
        let head = (payload_type, self.repair_ssrc, self.repair_sequence, timestamp, marker);
        self.repair_sequence = self.repair_sequence.wrapping_add(1);
        self.write_head(out, parameters, transport_sequence, head, true);
        out.extend(sequence.to_be_bytes());
        out.extend_from_slice(&self.kept[at].payload);
        true
    }

    fn write_head(
        &self,
        out: &mut Vec<u8>,
        parameters: SendParameters,
        transport_sequence: &mut u16,
        (payload_type, ssrc, sequence, timestamp, marker): (u8, u32, u16, u32, bool),
        is_repair: bool,
    ) {
        let transport = transport_sequence.to_be_bytes();
        let rid_extension = if is_repair { Extension::RepairedRid } else { Extension::Rid };
        let mut extensions: SmallVec<[(u8, &[u8]); 4]> = SmallVec::new();
        let mut add = |extension: Extension, value| {
            if let Some(id) = parameters.extensions[extension as usize] {
                extensions.push((id, value));
            }
        };
        add(Extension::Mid, self.mid.as_bytes());
        if let Some(rid) = self.rid {
            add(rid_extension, rid.as_bytes());
        }
        if self.kind == Kind::Audio {
            add(Extension::AudioLevel, &[VOICE]);
        }
        add(Extension::TransportCc, &transport);
        if parameters.has_feedback() {
            *transport_sequence = transport_sequence.wrapping_add(1);
        }
        Header { payload_type, marker, sequence, timestamp, ssrc, extensions: &extensions }.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rtp;
    use super::super::sdp::{Credentials, Features, write_offer};
    use super::*;

    fn stream() -> SendStream {
        let line = OwnLine { mid: "1".into(), kind: Kind::Video, sends: vec![(11, 12)] };
        let credentials = Credentials { ufrag: "u".into(), pwd: "p".into(), fingerprint: [0; 32] };
        let offer = write_offer(
            &credentials,
            1,
            std::slice::from_ref(&line),
            Features { feedback: true, repair: true },
        );
        let description = super::super::sdp::read(&offer, [127, 0, 0, 1].into()).unwrap();
        let mut stream = SendStream::of(&line).remove(0);
        stream.parameters = SendParameters::of(&description, "1");
        stream
    }

    #[test]
    fn a_packet_is_repaired_with_its_own_number_in_front_and_only_while_it_is_kept() {
        let (mut stream, mut transport) = (stream(), 100);
        let first = stream.sequence;
        for packet in 0..=KEPT_MAX {
            let mut out = Vec::new();
            assert!(stream.write(&mut out, &mut transport, (9, true), &[packet as u8; 30]));
            let header = rtp::read(&out, Some(5)).unwrap();
            assert_eq!((header.ssrc, header.sequence), (11, first + packet as u16));
            assert_eq!(header.transport_sequence, Some(100 + packet as u16));
        }
        let mut out = Vec::new();
        assert!(!stream.write_repair(&mut out, &mut transport, first));
        assert!(stream.write_repair(&mut out, &mut transport, first + 1));
        let header = rtp::read(&out, Some(5)).unwrap();
        assert_eq!((header.ssrc, header.payload_type), (12, super::super::sdp::RTX));
        let payload = &out[header.payload_at..];
        assert_eq!(payload[..2], (first + 1).to_be_bytes());
        assert_eq!(payload[2..], [1; 30]);
    }

    #[test]
    fn nothing_is_sent_before_the_answer() {
        let mut stream = stream();
        stream.parameters = None;
        assert!(!stream.write(&mut Vec::new(), &mut 0, (0, false), &[0; 30]));
    }
}
