//! A packet's way out: a subscriber's queue becomes packets, each header built fresh, each payload copied once from
//! the history it is kept in straight into the egress buffer.
//!
//! Queued order is sent order where the line carries everything. Where it does not, sound goes first and pictures leave
//! as fast as the line takes them ([`crate::bwe::pace`]); what waits stays a reference. Nothing is allocated.

use super::{PeerKey, Room, sooner};
use crate::{
    bwe::Downlink,
    down::{Queued, Subscriber, slot::Slot},
    egress::Egress,
    rtp::sequence::Sequence,
    up::SlotRef,
};
use arrayvec::ArrayVec;
use std::time::{Duration, Instant};

/// What a packet has besides its RTP bytes: the SRTP tag, UDP and IP headers.
const OVERHEAD_BYTES: usize = 16 + 8 + 20;

/// Pictures that would wait longer than this are dropped, and begin anew with a key frame; a key frame alone may take most of it on
/// a narrow line.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Length of a packet of padding: below the 255 bytes that its last byte can count (RFC 3550 section 5.1).
const PADDING_BYTES: usize = 240;

/// Padding of a packet that only asks for feedback: the byte that counts itself.
const SOUNDING_BYTES: usize = 1;

/// Places of slots among their peer's.
type Places = ArrayVec<u16, { crate::down::SLOTS_MAX }>;

impl Room {
    /// Writes all that a peer is to be sent now.
    pub fn flush<E: Egress>(&mut self, now: Instant, key: PeerKey, egress: &mut E) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.is_dirty = false;
        if !peer.is_connected {
            peer.subscriber.queue.clear();
            self.queues.take_back(&mut peer.subscriber, self.keys.len());
            return;
        }
        // Lent out, so that the histories of others can be read while this peer's slots are counted.
        let mut subscriber = std::mem::take(&mut peer.subscriber);
        let sent_before = self.counters.packets_sent;
        let is_reported = self.write_rtcp(now, key, &subscriber, egress);
        let mut torn = Places::new();
        self.write_queue(now, &mut subscriber, &mut torn, egress);
        write_padding(now, &mut subscriber, egress);
        if self.take_report_due(key) {
            self.write_sender_reports(now, &mut subscriber, egress);
        }
        self.queues.take_back(&mut subscriber, self.keys.len());
        if let Some(peer) = self.peers.get_mut(key) {
            peer.subscriber = subscriber;
            let sent = self.counters.packets_sent - sent_before;
            peer.ease.note_sent(sent);
            if is_reported || sent > 0 {
                peer.beat.note(now, sent);
            }
        }
        if !torn.is_empty() {
            self.begin_again(now, key, &torn);
        }
        self.after_flush(now, key);
    }

    /// Slots of which a picture waited for so long that its history has lost a part of it are `torn`.
    fn write_queue<E: Egress>(
        &mut self,
        now: Instant,
        subscriber: &mut Subscriber,
        torn: &mut Places,
        egress: &mut E,
    ) {
        let may_send = subscriber.line.as_mut().map_or(usize::MAX, |line| line.may_send(now));
        let waiting: usize =
            subscriber.queue.iter().filter(|queued| queued.is_picture()).map(length_of).sum();
        if waiting <= may_send {
            self.write_range(now, subscriber, 0, subscriber.queue.len(), torn, egress);
            subscriber.queue.clear();
            return;
        }
        // Sound, then what was asked for again, then the rest, each in its order.
        subscriber.queue.sort_by_key(|queued| (queued.is_picture(), queued.original.is_none()));
        let sound = subscriber.queue.iter().take_while(|queued| !queued.is_picture()).count();
        let mut left = may_send;
        let pictures = subscriber.queue[sound..].iter().take_while(|queued| {
            let fits = length_of(queued) <= left;
            left = left.saturating_sub(length_of(queued));
            fits
        });
        let count = sound + pictures.count();
        self.write_range(now, subscriber, 0, count, torn, egress);
        subscriber.queue.drain(..count);
        if !torn.is_empty() {
            subscriber.queue.retain(|queued| queued.original.is_some() || !torn.contains(&queued.slot));
        }
    }

    /// Has what is left of a peer's queue wait for its turn, or gives it up where it would wait too long.
    fn after_flush(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let subscriber = &mut peer.subscriber;
        let (Some(line), Some(first)) = (&mut subscriber.line, subscriber.queue.first()) else { return };
        let waiting: usize = subscriber.queue.iter().map(length_of).sum();
        let takes = waiting as f64 * 8.0 / line.bps().unwrap_or(f64::MAX);
        if takes <= WAIT_MAX.as_secs_f64() {
            let at = line.may_send_at(now, length_of(first));
            peer.held_until = Some(at);
            sooner(&mut self.release_at, at);
            return;
        }
        let mut given_up = Places::new();
        self.counters.dropped_late += subscriber.queue.len() as u64;
        for queued in subscriber.queue.drain(..) {
            if !given_up.contains(&queued.slot) {
                let _ = given_up.try_push(queued.slot);
            }
        }
        self.begin_again(now, key, &given_up);
    }

    /// Pictures of these slots go on with their next key frames.
    fn begin_again(&mut self, now: Instant, key: PeerKey, places: &[u16]) {
        self.end_ease(key);
        for &place in places {
            let at = SlotRef { peer: key, slot: place };
            let Some((left, awaited)) = self.slot_mut(at).map(Slot::begin_again) else { continue };
            if let Some(left) = left {
                self.unsubscribe(left, at);
            }
            if let Some(awaited) = awaited {
                self.want_key_frame(now, awaited);
            }
        }
    }

    /// Wakes those whose packets may leave now.
    pub(super) fn release(&mut self, now: Instant) {
        self.release_at = None;
        for place in 0..self.keys.len() {
            let key = self.keys[place];
            let Some(peer) = self.peers.get_mut(key) else { continue };
            let Some(at) = peer.held_until else { continue };
            if at <= now {
                peer.held_until = None;
                self.mark_dirty(key);
            } else {
                sooner(&mut self.release_at, at);
            }
        }
    }

    fn write_range<E: Egress>(
        &mut self,
        now: Instant,
        subscriber: &mut Subscriber,
        start: usize,
        end: usize,
        torn: &mut Places,
        egress: &mut E,
    ) {
        let mut run_end = 0;
        let mut run_bytes = 0;
        let Subscriber { queue, slots, line, .. } = subscriber;
        for (place, queued) in queue[..end].iter().enumerate().skip(start) {
            if self.config.pad_runs && place >= run_end {
                (run_end, run_bytes) = frame_run(&queue[..end], place);
            }
            let Some(slot) = slots.get_mut(usize::from(queued.slot)) else { continue };
            let is_of_picture = queued.is_picture() && queued.original.is_none();
            if is_of_picture && torn.contains(&queued.slot) {
                self.counters.dropped_overwritten += 1;
                continue;
            }
            let source = queued.source;
            let layer =
                self.peers.get(source.peer).and_then(|peer| peer.publisher.layer(source.kind, source.layer));
            let Some(kept) = layer.and_then(|layer| layer.history.get(queued.kept)) else {
                self.counters.dropped_overwritten += u64::from(!queued.is_repeat);
                if is_of_picture {
                    let _ = torn.try_push(queued.slot); // has room for every slot
                }
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
                if let Some(line) = line {
                    line.send_repeat(now, bytes + OVERHEAD_BYTES);
                }
                self.counters.packets_sent += 1;
                self.counters.bytes_sent += bytes as u64;
                continue;
            }
            let Slot { template, rtx_template, trail, .. } = slot;
            let template = if queued.original.is_some() { rtx_template.as_ref() } else { Some(&*template) };
            let Some(template) = template else { continue };
            // The padding byte says how many there are: one, itself (RFC 3550 section 5.1).
            let is_video = queued.is_picture();
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
                if let Some(line) = line.as_mut() {
                    note_sent(now, line, template.has_transport_number(), is_video, at, |number| {
                        template.write_transport_number(out, number);
                    });
                }
                at
            });
            self.counters.packets_sent += 1;
            self.counters.bytes_sent += length as u64;
        }
    }
}

/// Tells the line of a packet; `put` writes its transport-wide number where it has room for one.
fn note_sent(
    now: Instant,
    line: &mut Downlink,
    is_numbered: bool,
    is_video: bool,
    bytes: usize,
    put: impl FnOnce(u16),
) {
    let bytes = bytes + OVERHEAD_BYTES;
    match (is_numbered, is_video) {
        (true, _) => put(line.send_numbered(now, bytes, false)),
        (false, true) => line.send_unnumbered(now, bytes),
        (false, false) => line.send_sound(now, bytes),
    }
}

/// Writes the burst of padding or the one small packet that congestion control asked for, on the retransmission stream
/// of a slot (RFC 4588: a receiver takes an empty one for nothing), where there is one with room for transport-wide
/// numbers.
fn write_padding<E: Egress>(now: Instant, subscriber: &mut Subscriber, egress: &mut E) {
    let burst_bytes = std::mem::take(&mut subscriber.padding_bytes);
    let is_sounding = std::mem::take(&mut subscriber.is_sounding);
    let is_probe = burst_bytes > 0;
    let (count, padding) = match (is_probe, is_sounding) {
        (true, _) => (burst_bytes.div_ceil(PADDING_BYTES), PADDING_BYTES),
        (false, true) => (1, SOUNDING_BYTES),
        (false, false) => return,
    };
    let Subscriber { slots, line, .. } = subscriber;
    let Some(line) = line else { return };
    let is_fit = |slot: &&mut Slot| {
        slot.is_open && slot.rtx_template.as_ref().is_some_and(|template| template.has_transport_number())
    };
    let Some(slot) = slots.iter_mut().find(is_fit) else { return };
    let timestamp = slot.rewriter.reached().map_or(0, |(timestamp, _)| timestamp);
    for _ in 0..count {
        let Some(template) = &slot.rtx_template else { return };
        let sequence: Sequence = slot.rtx_next;
        slot.rtx_next = sequence.plus(1);
        egress.rtp(sequence.0, |out| {
            let at = template.write(out, false, true, sequence.wire(), timestamp);
            out[at..at + padding].fill(0);
            out[at + padding - 1] = padding as u8;
            let length = at + padding;
            template.write_transport_number(out, line.send_numbered(now, length + OVERHEAD_BYTES, is_probe));
            length
        });
    }
}

/// About what a queued packet costs the line.
fn length_of(queued: &Queued) -> usize {
    usize::from(queued.payload_bytes) + 24 + OVERHEAD_BYTES
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
