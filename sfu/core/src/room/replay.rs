//! What a slot is shown while it would wait for a key frame: the last one and all that came since, where that is little.
//!
//! Many who come soon after each other want the same picture. The first has a key frame made; those after it would wait for
//! another, and are given that one from the layer's history instead, in quick motion. Where another may be asked for it is,
//! and those who come next are given that. So key frames stay as rare as the gate has them, and nobody waits for the next.
//! Nothing is kept for it that is not kept for repair.

use super::{Room, forward::PACKET_OVERHEAD_BYTES};
use crate::{
    down::{
        QUEUE_MAX,
        rewrite::Incoming,
        slot::{Forwarded, Verdict},
    },
    rtp::vp8,
    up::{LayerRef, SlotRef, history},
};
use asamblea_seam::Up;
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// Packets that are replayed without allocating: half a second of 1 Mbit/s.
const USUAL_PACKETS: usize = 64;

/// What a key frame takes from the request until its first packet: a short round trip and a frame's time.
const ANSWER: Duration = Duration::from_millis(60);

/// What a replay may take in all where another key frame is asked for as well: a picture that lags by this for a moment is better
/// than none until that one comes, and the line has to carry both.
const CATCH_UP: Duration = Duration::from_millis(250);

type Recording = SmallVec<[Forwarded; USUAL_PACKETS]>;

impl Room {
    /// Gives a slot that shows nothing yet what its target was last begun with. False if that would take much longer than
    /// to wait for another key frame, or is not all kept.
    pub(super) fn replay(&mut self, now: Instant, source: LayerRef, at: SlotRef) -> bool {
        let Some(id) = self.peers.get(source.peer).map(|peer| peer.id) else { return false };
        let Some(peer) = self.peers.get(at.peer) else { return false };
        let subscriber = &peer.subscriber;
        let is_showing = subscriber.slots.get(usize::from(at.slot)).is_none_or(|slot| slot.current.is_some());
        if is_showing {
            return false;
        }
        let bps = subscriber.line.as_ref().and_then(|line| line.bps()).unwrap_or(crate::bwe::START_BPS);
        let room = QUEUE_MAX.saturating_sub(subscriber.queue.len());
        let Some(recording) = self.recording(now, source, bps, room) else { return false };
        self.fan_out.pass_over(source, at);
        if let Some(peer) = self.peers.get_mut(at.peer) {
            self.queues.lend(&mut peer.subscriber);
        }
        for packet in &recording {
            let Some(peer) = self.peers.get_mut(at.peer) else { return false };
            let Some(slot) = peer.subscriber.slots.get_mut(usize::from(at.slot)) else { return false };
            let (Verdict::Send(queued) | Verdict::Switch(queued, _)) = slot.take(now, at.slot, packet) else {
                continue;
            };
            peer.subscriber.enqueue(queued);
        }
        self.counters.switches += 1;
        self.counters.replays += 1;
        self.announce_slot(at, Some(Up { peer: id, kind: source.kind }));
        self.mark_dirty(at.peer);
        true
    }

    /// Whether a layer's last key frame is so fresh that no other may be asked for.
    pub(super) fn has_fresh_key_frame(&self, now: Instant, source: LayerRef) -> bool {
        let publisher = self.peers.get(source.peer).map(|peer| &peer.publisher);
        let layer = publisher.and_then(|publisher| publisher.layer(source.kind, source.layer));
        layer.is_some_and(|layer| layer.gate.rests_for(now).is_some())
    }

    /// What came of a layer from its last key frame on, if all of it is kept, it is no more than `packets_max`, and either what
    /// followed the key frame goes through a line of `bps` before another could come, or all of it in [`CATCH_UP`].
    fn recording(&self, now: Instant, source: LayerRef, bps: f64, packets_max: usize) -> Option<Recording> {
        let layer = self.peers.get(source.peer)?.publisher.layer(source.kind, source.layer)?;
        let rest = layer.gate.rests_for(now);
        let entry = layer.entry.filter(|entry| entry.epoch == layer.reception.epoch())?;
        let newest = layer.reception.newest()?;
        let count = (newest.0.checked_sub(entry.sequence.0)? + 1) as usize;
        if count > packets_max.min(history::PACKETS_MAX) {
            return None;
        }
        let live_from = layer.history.get(newest)?.timestamp;
        let mut recording = Recording::new();
        let (mut bytes, mut bytes_since) = (0, 0);
        for number in 0..count as u64 {
            let sequence = entry.sequence.plus(number);
            let kept = layer.history.get(sequence)?;
            bytes += kept.payload.len() + PACKET_OVERHEAD_BYTES;
            if kept.timestamp != entry.timestamp {
                bytes_since += kept.payload.len() + PACKET_OVERHEAD_BYTES;
            }
            recording.push(Forwarded {
                incoming: Incoming {
                    source,
                    epoch: entry.epoch,
                    sequence,
                    timestamp: kept.timestamp,
                    descriptor: vp8::Descriptor::parse(kept.payload),
                },
                marker: kept.marker,
                payload_bytes: kept.payload.len() as u16,
                is_entry: number == 0,
                on_layer_clocks: Default::default(),
                live_from: Some(live_from),
            });
        }
        let takes = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / bps.max(1.0));
        let is_sooner = rest.is_some_and(|rest| takes(bytes_since) <= rest + ANSWER);
        (is_sooner || takes(bytes) <= CATCH_UP).then_some(recording)
    }
}
