//! A packet's way out: a subscriber's queue becomes packets, each header built fresh, each payload copied once from
//! the history it is kept in straight into the egress buffer.
//!
//! Queued order is sent order. Nothing is allocated and nothing is decided but padding.

use super::{PeerKey, Room};
use crate::{
    down::{Queued, Subscriber, slot::Slot},
    egress::Egress,
};
use std::time::Instant;

impl Room {
    /// Writes all that a peer is to be sent now.
    pub fn flush<E: Egress>(&mut self, now: Instant, key: PeerKey, egress: &mut E) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.is_dirty = false;
        if !peer.is_connected {
            peer.subscriber.queue.clear();
            return;
        }
        // Lent out, so that the histories of others can be read while this peer's slots are counted.
        let mut subscriber = std::mem::take(&mut peer.subscriber);
        self.write_rtcp(now, key, &mut subscriber, egress);
        self.write_queue(&mut subscriber, egress);
        subscriber.queue.clear();
        if let Some(peer) = self.peers.get_mut(key) {
            peer.subscriber = subscriber;
        }
    }

    fn write_queue<E: Egress>(&mut self, subscriber: &mut Subscriber, egress: &mut E) {
        let mut run_end = 0;
        let mut run_bytes = 0;
        for (place, queued) in subscriber.queue.iter().enumerate() {
            if self.config.pad_runs && place >= run_end {
                (run_end, run_bytes) = frame_run(&subscriber.queue, place);
            }
            let Some(slot) = subscriber.slots.get_mut(usize::from(queued.slot)) else { continue };
            let source = queued.source;
            let layer =
                self.peers.get(source.peer).and_then(|peer| peer.publisher.layer(source.kind, source.layer));
            let Some(kept) = layer.and_then(|layer| layer.history.get(queued.kept)) else {
                self.counters.dropped_overwritten += u64::from(!queued.is_repeat);
                continue;
            };
            if queued.is_repeat {
                let Some(header) = slot.trail.header(queued.sequence) else { continue };
                let bytes = header.len() + kept.payload.len();
                egress.rtp(queued.sequence.0, |out| {
                    out[..header.len()].copy_from_slice(header);
                    out[header.len()..bytes].copy_from_slice(kept.payload);
                    bytes
                });
                self.counters.packets_sent += 1;
                self.counters.bytes_sent += bytes as u64;
                continue;
            }
            let Slot { template, rtx_template, trail, .. } = slot;
            let template = if queued.original.is_some() { rtx_template.as_ref() } else { Some(&*template) };
            let Some(template) = template else { continue };
            // The padding byte says how many there are: one, itself (RFC 3550 section 5.1).
            let is_video = !queued.source.kind.is_audio();
            // Sound is never padded: a repeat has to have the same bytes whatever stands beside it.
            let is_padded = self.config.pad_runs
                && is_video
                && queued.original.is_none()
                && queued.payload_bytes + 1 == run_bytes;
            let mut length = 0;
            egress.rtp(queued.sequence.0, |out| {
                let wire = queued.sequence.wire();
                let mut at = template.write(out, queued.marker, is_padded, wire, queued.timestamp);
                // What stands in the header from here on stands in the repeats of it, too.
                if !is_video {
                    trail.keep_header(queued.sequence, &out[..at]);
                }
                if let Some(original) = queued.original {
                    out[at..at + 2].copy_from_slice(&original.to_be_bytes());
                    at += 2;
                }
                let payload = &mut out[at..at + kept.payload.len()];
                payload.copy_from_slice(kept.payload);
                if is_video {
                    queued.vp8_shift.apply(payload);
                }
                at += kept.payload.len();
                if is_padded {
                    out[at] = 1;
                    at += 1;
                }
                length = at;
                at
            });
            self.counters.packets_sent += 1;
            self.counters.bytes_sent += length as u64;
        }
    }
}

/// Where the run of packets of one slot's frame that starts here ends, and its longest payload.
fn frame_run(queue: &[Queued], start: usize) -> (usize, u16) {
    let first = &queue[start];
    let is_same = |other: &&Queued| {
        other.slot == first.slot && other.timestamp == first.timestamp && other.original.is_none()
    };
    let run = queue[start..].iter().take_while(is_same);
    let (count, longest) =
        run.fold((0, 0), |(count, longest), queued| (count + 1, longest.max(queued.payload_bytes)));
    (start + count.max(1), longest)
}
