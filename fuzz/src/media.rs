//! What a participant can send: RTP, RTCP and VP8 payloads.

use asamblea_sfu_core::demux::classify;
use asamblea_sfu_core::rtp::header::{Packet, Template};
use asamblea_sfu_core::rtp::red;
use asamblea_sfu_core::rtp::rtcp::{Rtcp, walk};
use asamblea_sfu_core::rtp::rtcp_write::{SenderReport, Writer};
use asamblea_sfu_core::rtp::vp8::{Descriptor, PictureId, Reached, Shift};
use std::collections::BTreeSet;

/// A decrypted RTP packet, and the header that would be written for it.
pub fn rtp(data: &[u8]) {
    let _ = classify(data);
    let Some(packet) = Packet::parse(data) else { return };
    assert!(packet.payload_type < 128);
    assert!(packet.payload.len() + 12 <= data.len());
    let elements: Vec<(u8, &[u8])> = packet.extensions.iter().collect();
    let bytes: usize = elements.iter().map(|(_, value)| value.len() + 1).sum();
    assert!(bytes <= data.len(), "elements do not overlap");
    for (id, _) in &elements {
        let first = elements.iter().find(|(known, _)| known == id).map(|(_, value)| *value);
        assert_eq!(packet.extensions.get(*id), first);
    }

    let mid = elements.first().copied();
    let mut out = vec![0; 64 + packet.payload.len()];
    let header = Template::new(packet.ssrc, packet.payload_type, mid, None);
    let length = header.write(&mut out, packet.marker, false, packet.sequence, packet.timestamp);
    assert_eq!(length, header.len());
    out[length..length + packet.payload.len()].copy_from_slice(packet.payload);
    let again = Packet::parse(&out[..length + packet.payload.len()]).expect("what is written can be read");
    assert_eq!(
        (again.ssrc, again.payload_type, again.marker, again.sequence, again.timestamp, again.payload),
        (packet.ssrc, packet.payload_type, packet.marker, packet.sequence, packet.timestamp, packet.payload)
    );
    let is_writable = |(id, value): &(u8, &[u8])| (1..=14).contains(id) && (1..=16).contains(&value.len());
    assert_eq!(again.extensions.iter().next(), mid.filter(is_writable));
}

/// A decrypted compound packet, and what is understood of it written again.
pub fn rtcp(data: &[u8]) {
    let _ = classify(data);
    let mut packets = 0;
    let mut is_over = false;
    for packet in walk(data) {
        assert!(!is_over, "the walk ends at the first malformed packet");
        packets += 1;
        let Ok(packet) = packet else {
            is_over = true;
            continue;
        };
        rewritten(&packet, data.len());
    }
    assert!(packets <= data.len() / 4 + 1, "each packet has a header of its own");
}

fn rewritten(packet: &Rtcp<'_>, bytes: usize) {
    let mut out = [0; 256];
    let mut writer = Writer::new(&mut out);
    match *packet {
        Rtcp::SenderReport { ssrc, ntp, rtp, blocks } => {
            assert!(blocks.count() <= 31);
            assert!(writer.sender_report(&SenderReport { ssrc, ntp, rtp, packets: 1, octets: 2 }));
        }
        Rtcp::ReceiverReport { blocks } => {
            assert!(blocks.count() <= 31);
            return;
        }
        Rtcp::Bye { ssrcs } => {
            assert!(ssrcs.count() <= 31);
            return;
        }
        Rtcp::Nack { media_ssrc, lost } => {
            assert!(lost.count() <= bytes / 4 * 17, "17 numbers an entry");
            let mut numbers: Vec<u16> = lost.take(32).collect();
            numbers.sort_unstable();
            numbers.dedup();
            if !writer.nack(1, media_ssrc, &numbers) {
                assert!(numbers.is_empty());
                return;
            }
            let length = writer.len();
            let again = walk(&out[..length]).next();
            let Some(Ok(Rtcp::Nack { media_ssrc: again_ssrc, lost: again_lost })) = again else {
                panic!("a NACK was written, not {again:?}");
            };
            assert_eq!(again_ssrc, media_ssrc);
            assert_eq!(again_lost.collect::<BTreeSet<u16>>(), numbers.into_iter().collect());
            return;
        }
        Rtcp::PictureLoss { media_ssrc } => assert!(writer.picture_loss(1, media_ssrc)),
        Rtcp::FullIntra { entries } => {
            assert!(entries.count() <= bytes / 8);
            return;
        }
        Rtcp::Remb { bps } => assert!(writer.remb(1, bps, &[2, 3])),
        Rtcp::TransportFeedback(feedback) => {
            assert!(feedback.flatten().count() <= bytes, "each arrival costs a byte");
            assert!(feedback.count() <= usize::from(feedback.count));
            let reached: Vec<Option<i64>> = feedback.take(64).collect();
            let base = i64::from(feedback.reference) * 256;
            let in_range = reached.iter().flatten().all(|at| at.abs_diff(base) <= 64 * 0x8000);
            assert!(in_range, "no delta is wider than 16 bits");
            return;
        }
        Rtcp::Other => return,
    }
    let length = writer.len();
    let again = walk(&out[..length]).next().expect("one packet").expect("what is written can be read");
    match (again, *packet) {
        (
            Rtcp::SenderReport { ssrc, ntp, rtp, .. },
            Rtcp::SenderReport { ssrc: ssrc_before, ntp: ntp_before, rtp: rtp_before, .. },
        ) => assert_eq!((ssrc, ntp, rtp), (ssrc_before, ntp_before, rtp_before)),
        (again, before) => assert_eq!(again, before),
    }
}

/// A payload with copies of earlier ones behind the payload type of its codec; what is read, written again, reads the
/// same.
pub fn red(data: &[u8]) {
    let Some((codec, payload)) = data.split_first() else { return };
    let Some(blocks) = red::Blocks::parse(payload, *codec) else { return };
    assert!(blocks.copies.len() < red::BLOCKS_MAX);
    assert!(payload.ends_with(blocks.primary) && !blocks.primary.is_empty());
    let total: usize = blocks.copies.iter().map(|copy| copy.payload.len()).sum();
    assert!(total + blocks.primary.len() + 4 * blocks.copies.len() < payload.len(), "blocks do not overlap");
    let behind: Vec<u16> = blocks.behind().map(|(behind, _)| behind).collect();
    assert!(
        behind.windows(2).all(|pair| pair[0] == pair[1] + 1) && behind.last().is_none_or(|last| *last == 1)
    );
    let mut again = Vec::new();
    for copy in &blocks.copies {
        assert!(copy.earlier < 1 << 14 && (1..1 << 10).contains(&copy.payload.len()));
        again.push(0x80 | codec);
        let word = u32::from(copy.earlier) << 10 | copy.payload.len() as u32;
        again.extend_from_slice(&word.to_be_bytes()[1..]);
    }
    again.push(*codec);
    blocks.copies.iter().for_each(|copy| again.extend_from_slice(copy.payload));
    again.extend_from_slice(blocks.primary);
    assert_eq!(red::Blocks::parse(&again, *codec), Some(blocks));
}

/// A VP8 payload behind three bytes that say how its picture ids are moved.
pub fn vp8(data: &[u8]) {
    let Some(([high, low, tl0_index], payload)) = data.split_first_chunk::<3>() else { return };
    let shift = Shift { picture_id: u16::from_be_bytes([*high, *low]), tl0_index: *tl0_index };
    let before = Descriptor::parse(payload);
    let mut moved = payload.to_vec();
    shift.apply(&mut moved);
    let after = Descriptor::parse(&moved);
    let (Some(before), Some(after)) = (before, after) else {
        assert_eq!(before.is_some(), after.is_some());
        return;
    };
    assert_eq!((before.is_frame_start, before.is_key_frame), (after.is_frame_start, after.is_key_frame));
    assert_eq!((before.temporal_id, before.key_index), (after.temporal_id, after.key_index));
    assert!(!before.is_key_frame || before.is_frame_start);
    assert_eq!(after.tl0_index, before.tl0_index.map(|index| index.wrapping_add(shift.tl0_index)));
    match (before.picture_id, after.picture_id) {
        (Some(PictureId::Long(from)), Some(PictureId::Long(to))) => {
            assert_eq!(to, from.wrapping_add(shift.picture_id) & 0x7fff);
        }
        (Some(PictureId::Short(from)), Some(PictureId::Short(to))) => {
            assert_eq!(u16::from(to), u16::from(from).wrapping_add(shift.picture_id) & 0x7f);
        }
        (from, to) => assert_eq!((from, to), (None, None)),
    }
    // The descriptor has at most 6 bytes; nothing behind it is touched.
    assert_eq!(moved[moved.len().min(6)..], payload[payload.len().min(6)..]);

    let mut reached = Reached::default();
    reached.note(&before, shift);
    let mut followed = payload.to_vec();
    reached.shift_for(&before).apply(&mut followed);
    let followed = Descriptor::parse(&followed).expect("as before");
    let value = |descriptor: &Descriptor| descriptor.picture_id.map(PictureId::value);
    let mask = if matches!(before.picture_id, Some(PictureId::Long(_))) { 0x7fff } else { 0x7f };
    assert_eq!(value(&followed), value(&after).map(|id| (id + 1) & mask), "a new source follows the old");
}
