//! RTCP both ways: what a peer's compound packets ask for, and what the room owes a peer.
//!
//! What is owed is noted as [`Duties`] and written at the peer's next flush; what a peer asks for is bounded before it
//! is answered.

use super::{PLIS_MAX, PeerKey, Room};
use crate::{
    down::{Queued, Subscriber, resend::spacing},
    egress::Egress,
    rtp::{
        rtcp::{self, Rtcp},
        rtcp_write::{ReportBlock, SenderReport, Writer},
        sequence::is_later,
        time::{Ntp, WallClock},
    },
    up::{Layer, reception::SenderClock},
};
use arrayvec::ArrayVec;
use asamblea_seam::UpKind;
use slotmap::SlotMap;
use std::time::{Duration, Instant};

/// Loss that transport-wide feedback tells so soon after a queue is laid to it.
const CROWDED_FOR: Duration = Duration::from_secs(1);

/// Most sequence numbers asked of one publisher at a flush: what is missing of one layer at a time.
const ASKED_MAX: usize = 64;

/// Most layers asked for packets at a flush.
const ASKED_LAYERS_MAX: usize = 4;

/// Sender reports in one compound packet: with their names 52 bytes each, so that it fits any path.
const REPORTS_PER_COMPOUND: usize = 16;

/// How far a sender report made from the publisher's own may differ from one by arrival time: beyond it the
/// publisher's clock is not to be believed.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(5);

/// Most loss of listeners that is told to a microphone, in 1/256: 20 %, beyond which Opus protects no more, so that
/// one listener's line, or word, costs the others little.
const LISTENERS_LOSS_MAX: u8 = 51;

/// A publisher's clock that jumps further than this has been set anew, in units of 2^-32 s: one second.
const CLOCK_STEP: u64 = 1 << 32;

/// What the room owes one peer in RTCP.
#[derive(Debug)]
pub(super) struct Duties {
    /// The SSRC we report under.
    ssrc: u32,
    is_report_due: bool,
    plis: ArrayVec<u32, PLIS_MAX>,
    /// For at most [`ASKED_LAYERS_MAX`] layers; no memory is held before anything is lost.
    asked: Vec<(u32, ArrayVec<u16, ASKED_MAX>)>,
    /// Our wall clock less the publisher's, smoothed, in units of 2^-32 s: one for all its streams, so that they stay
    /// in step.
    pub(super) clock_offset: Option<i64>,
    /// The round trip to the peer by its receiver reports.
    pub(super) round_trip: Option<Duration>,
}

impl Duties {
    pub(super) fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            is_report_due: false,
            plis: ArrayVec::new(),
            asked: Vec::new(),
            clock_offset: None,
            round_trip: None,
        }
    }

    /// The SSRC we report under.
    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Owes a picture loss indication. False if it is owed already or cannot be.
    pub(super) fn picture_loss(&mut self, ssrc: u32) -> bool {
        !self.plis.contains(&ssrc) && self.plis.try_push(ssrc).is_ok()
    }

    /// Owes a request for missing packets. False if it cannot be owed.
    pub(super) fn ask_again(&mut self, ssrc: u32, missing: &[u16]) -> bool {
        let missing: ArrayVec<_, ASKED_MAX> = missing.iter().copied().take(ASKED_MAX).collect();
        let is_owed = !missing.is_empty() && self.asked.len() < ASKED_LAYERS_MAX;
        if is_owed {
            self.asked.push((ssrc, missing));
        }
        is_owed
    }

    fn note_clock(&mut self, ours: Ntp, theirs: Ntp) {
        let sample = ours.since(theirs);
        self.clock_offset = Some(match self.clock_offset {
            Some(offset) if offset.abs_diff(sample) < CLOCK_STEP => offset + (sample - offset) / 16,
            _ => sample,
        });
    }
}

impl Room {
    /// Takes an RTCP compound packet from a peer, decrypted and authenticated.
    pub fn handle_rtcp(&mut self, now: Instant, key: PeerKey, compound: &[u8]) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.line.heard_at = Some(now);
        }
        for packet in rtcp::walk(compound) {
            let Ok(packet) = packet else {
                self.counters.rtcp_malformed += 1;
                return;
            };
            match packet {
                Rtcp::SenderReport { ssrc, ntp, rtp, blocks } => {
                    self.handle_sender_report(now, key, ssrc, ntp, rtp);
                    self.handle_blocks(now, key, blocks);
                }
                Rtcp::ReceiverReport { blocks } => self.handle_blocks(now, key, blocks),
                Rtcp::Bye { ssrcs } => self.handle_bye(now, key, ssrcs),
                Rtcp::Nack { media_ssrc, lost } => self.handle_nack(now, key, media_ssrc, lost),
                Rtcp::PictureLoss { media_ssrc } => self.handle_picture_loss(now, key, media_ssrc),
                Rtcp::FullIntra { entries } => {
                    for media_ssrc in entries.take(PLIS_MAX) {
                        self.handle_picture_loss(now, key, media_ssrc);
                    }
                }
                Rtcp::Remb { bps } => {
                    if let Some(peer) = self.peers.get_mut(key) {
                        let lost = f64::from(peer.subscriber.redundancy.loss()) / 256.0;
                        if let Some(line) = &mut peer.subscriber.line {
                            line.handle_report(now, lost, Some(bps));
                        }
                        peer.ease.end();
                    }
                }
                Rtcp::TransportFeedback(feedback) => self.handle_transport_feedback(now, key, &feedback),
                Rtcp::Other => {}
            }
        }
    }

    fn handle_transport_feedback(
        &mut self,
        now: Instant,
        key: PeerKey,
        feedback: &rtcp::TransportFeedback<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(line) = &mut peer.subscriber.line else { return };
        let before = *line.counters();
        let (arrived, missing) = line.handle_feedback(now, feedback);
        if missing > 0 || !line.is_calm(now) {
            peer.ease.end();
        }
        let is_crowded = line.is_crowded(now, CROWDED_FOR);
        let after = line.counters();
        self.counters.feedback_refused += after.feedback_refused - before.feedback_refused;
        self.counters.feedback_unknown += after.feedback_unknown - before.feedback_unknown;
        if let Some(lost) = (missing * 255).checked_div(arrived + missing).filter(|_| !is_crowded) {
            peer.subscriber.redundancy.set_loss(now, lost as u8, arrived + missing);
        }
    }

    fn handle_sender_report(&mut self, now: Instant, key: PeerKey, ssrc: u32, ntp: Ntp, rtp: u32) {
        let ours = self.config.wall_clock.ntp(now);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(binding) = peer.publisher.bound(ssrc) else {
            self.counters.reports_unknown += 1;
            return;
        };
        if binding.is_rtx {
            return;
        }
        if let Some(layer) = peer.publisher.layer_mut(binding.kind, binding.layer) {
            layer.reception.clock = Some(SenderClock { ntp, rtp, arrived_at: now });
            peer.duties.note_clock(ours, ntp);
        }
    }

    fn handle_blocks(&mut self, now: Instant, key: PeerKey, blocks: rtcp::Blocks<'_>) {
        let middle = self.config.wall_clock.ntp(now).middle();
        let Some(peer) = self.peers.get_mut(key) else { return };
        for block in blocks {
            if !peer.subscriber.hear_report(now, &block) {
                self.counters.reports_unknown += 1;
                continue;
            }
            if block.fraction_lost > 0 {
                peer.ease.end();
            }
            if block.last_report == 0 {
                continue;
            }

            // RFC 3550 section 6.4.1; a value of more than 10 s is no round trip but nonsense.
            let units = middle.wrapping_sub(block.last_report).wrapping_sub(block.delay);
            if units < 10 << 16 {
                peer.duties.round_trip = Some(Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16));
            }
        }
    }

    /// A stream that ended is not live: whoever receives it falls back to another layer without waiting.
    fn handle_bye(&mut self, now: Instant, key: PeerKey, ssrcs: rtcp::Words<'_>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        let mut has_died = false;
        for ssrc in ssrcs {
            let Some(binding) = peer.publisher.bound(ssrc) else {
                self.counters.reports_unknown += 1;
                continue;
            };
            if binding.is_rtx {
                continue;
            }
            if let Some(layer) = peer.publisher.layer_mut(binding.kind, binding.layer) {
                layer.heard_at = None;
                has_died |= layer.expire(now);
            }
        }
        if has_died {
            self.mark_untold(key);
            self.retarget_watchers(now, id);
        }
    }

    fn handle_picture_loss(&mut self, now: Instant, key: PeerKey, media_ssrc: u32) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some((_, slot)) = peer.subscriber.slot_of_ssrc(media_ssrc) else {
            self.counters.requests_unknown += 1;
            return;
        };
        // While a new layer is awaited the old one still goes out and needs mending, too.
        for layer in [slot.current, slot.target].into_iter().flatten() {
            self.want_key_frame(now, layer);
        }
    }

    /// Queues what a subscriber asks for again, out of the shared histories.
    fn handle_nack(&mut self, now: Instant, key: PeerKey, media_ssrc: u32, lost: rtcp::Lost<'_>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !peer.is_connected {
            return;
        }
        peer.ease.end();
        let spacing = spacing(peer.duties.round_trip);
        let mut subscriber = std::mem::take(&mut peer.subscriber);
        self.queues.lend(&mut subscriber);
        self.resend(now, &mut subscriber, media_ssrc, lost, spacing);
        let has_queue = !subscriber.queue.is_empty();
        if let Some(peer) = self.peers.get_mut(key) {
            peer.subscriber = subscriber;
        }
        if has_queue {
            self.mark_dirty(key);
        }
    }

    fn resend(
        &mut self,
        now: Instant,
        subscriber: &mut Subscriber,
        media_ssrc: u32,
        lost: rtcp::Lost<'_>,
        spacing: Duration,
    ) {
        let Some(place) = subscriber.slots.iter().position(|slot| slot.is_open && slot.ssrc == media_ssrc)
        else {
            self.counters.requests_unknown += 1;
            return;
        };
        for wire in lost {
            self.counters.nacked += 1;
            if !subscriber.budget.take(now) {
                self.counters.resend_refused += 1;
                return;
            }
            let slot = &mut subscriber.slots[place];
            if slot.rtx_template.is_none() {
                return;
            }
            let found = slot.rewriter.origin(wire).and_then(|(segment, kept)| {
                let source = segment.source;
                let layer = self.peers.get(source.peer)?.publisher.layer(source.kind, source.layer)?;
                Some((segment, kept, layer.history.get(kept)?))
            });
            let Some((segment, kept, packet)) = found else {
                self.counters.resend_unknown += 1;
                continue;
            };
            let original = segment.rewrite(kept, packet.timestamp);
            if original.sequence < slot.repairable_from {
                self.counters.resend_unknown += 1;
                continue;
            }
            if !slot.recent.note(now, original.sequence, spacing) {
                self.counters.resend_refused += 1;
                continue;
            }
            let sequence = slot.rtx_next;
            slot.rtx_next = sequence.plus(1);
            let is_queued = subscriber.enqueue(Queued {
                slot: place as u16,
                payload_bytes: packet.payload.len() as u16,
                marker: packet.marker,
                is_repeat: false,
                original: Some(wire),
                source: segment.source,
                kept,
                sequence,
                timestamp: original.timestamp,
                vp8_shift: original.vp8_shift,
            });
            if is_queued {
                self.counters.resent += 1;
            } else {
                self.counters.dropped_queue_full += 1;
                return;
            }
        }
    }

    /// Notes that a peer is to be reported to. Reports on what it sends leave at once; those on what it is sent go out behind
    /// the next packets or the next greeting, where they cost next to nothing.
    pub(super) fn report(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.duties.is_report_due = true;
            if !peer.publisher.is_at_rest() {
                self.mark_dirty(key);
            }
        }
    }

    /// The loss that those who listen to a peer's microphone suffer after all repair, in 1/256: the encoder is to protect
    /// for the worst of them, since it adds in-band repair for the loss it is told of and no other (RFC 6716 section
    /// 2.1.7). Only the fraction is told so; the count, out of which browsers estimate bandwidth, stays the uplink's own.
    fn suffered_by_listeners(&self, now: Instant, key: PeerKey) -> u8 {
        let Some(peer) = self.peers.get(key).filter(|peer| peer.duties.is_report_due) else { return 0 };
        let Some(layer) = peer.publisher.layer(UpKind::Microphone, 0) else { return 0 };
        let elsewhere = layer.asked.iter().map(|asked| asked.suffered).max().unwrap_or(0);
        self.suffered_of(now, layer).max(elsewhere).min(LISTENERS_LOSS_MAX)
    }

    /// The loss that those on this part who receive a layer suffer after all repair, in 1/256.
    pub(super) fn suffered_of(&self, now: Instant, layer: &Layer) -> u8 {
        let suffered = layer
            .subscribers
            .iter()
            .filter_map(|slot| Some(self.peers.get(slot.peer)?.subscriber.redundancy.suffered(now)));
        suffered.max().unwrap_or(0)
    }

    /// Writes what is owed to a peer. Whether that was anything.
    pub(super) fn write_rtcp<E: Egress>(
        &mut self,
        now: Instant,
        key: PeerKey,
        subscriber: &Subscriber,
        egress: &mut E,
    ) -> bool {
        let Some(peer) = self.peers.get(key) else { return false };
        // Whoever hears nothing for two seconds takes the path for dead; media is as good as a report.
        // So is a report on what it was sent.
        let has_report = peer.duties.is_report_due
            && subscriber.slots.iter().any(|slot| slot.is_open && slot.packets != slot.reported_packets);
        let is_greeting_due = !has_report && peer.beat.is_due(now);
        let is_feedback_due = peer.publisher.feedback.is_due();
        let duties = &peer.duties;
        let is_anything_due = duties.is_report_due
            || is_greeting_due
            || is_feedback_due
            || !duties.plis.is_empty()
            || !duties.asked.is_empty();
        // Most flushes are of media alone.
        if !is_anything_due {
            return false;
        }
        let name = &self.canonical_name;
        let suffered = self.suffered_by_listeners(now, key);
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let is_report_due = peer.duties.is_report_due;
        let duties = &mut peer.duties;
        let ssrc = duties.ssrc;
        let mut media = ArrayVec::<u32, 8>::new();
        let mut blocks = ArrayVec::<ReportBlock, 8>::new();
        let mut up_loss = 0;
        // Of one at rest nothing comes, and to look would end the rest.
        let ups = (!peer.publisher.is_at_rest()).then(|| peer.publisher.ups_mut());
        for up in ups.into_iter().flatten() {
            let suffered = if up.kind == UpKind::Microphone { suffered } else { 0 };
            for layer in up.layers.iter_mut().filter(|layer| layer.is_live) {
                let Some(layer_ssrc) = layer.ssrc else { continue };
                let _ = media.try_push(layer_ssrc);
                if is_report_due && let Some(mut block) = layer.reception.report(now, layer_ssrc) {
                    up_loss = up_loss.max(block.fraction_lost);
                    block.fraction_lost = block.fraction_lost.max(suffered);
                    let _ = blocks.try_push(block);
                }
            }
        }
        if is_report_due && !blocks.is_empty() {
            peer.line.up_loss = ((u16::from(peer.line.up_loss) + u16::from(up_loss)) / 2) as u8;
        }
        let is_upstream_due = (is_report_due && !blocks.is_empty())
            || is_greeting_due
            || !duties.plis.is_empty()
            || !duties.asked.is_empty();
        if is_upstream_due {
            let ceiling = self.config.upstream_bps_max;
            egress.rtcp(|out| {
                let mut writer = Writer::new(out);
                writer.receiver_report(ssrc, &blocks);
                writer.canonical_name([ssrc].into_iter(), name);
                if is_report_due && !media.is_empty() {
                    writer.remb(ssrc, ceiling, &media);
                }
                for media_ssrc in duties.plis.drain(..) {
                    writer.picture_loss(ssrc, media_ssrc);
                }
                for (media_ssrc, missing) in duties.asked.drain(..) {
                    writer.nack(ssrc, media_ssrc, &missing);
                }
                writer.len()
            });
        }
        if is_feedback_due {
            let began_at = self.began_at;
            let media_ssrc = media.first().copied().unwrap_or_default();
            let feedback = &mut peer.publisher.feedback;
            egress.rtcp(|out| {
                let mut writer = Writer::new(out);
                writer.receiver_report(ssrc, &[]);
                feedback.write(&mut writer, began_at, ssrc, media_ssrc);
                writer.len()
            });
        }
        is_upstream_due || is_feedback_due || has_report
    }

    /// Whether a peer is owed a report; it is owed no more then.
    pub(super) fn take_report_due(&mut self, key: PeerKey) -> bool {
        self.peers.get_mut(key).is_some_and(|peer| std::mem::take(&mut peer.duties.is_report_due))
    }

    /// Sender reports for every slot that has sent since its last one. They are written last: a shorter datagram behind
    /// others goes out with them in one send.
    pub(super) fn write_sender_reports<E: Egress>(
        &self,
        now: Instant,
        subscriber: &mut Subscriber,
        egress: &mut E,
    ) {
        let name = &self.canonical_name;
        write_sender_reports(&self.peers, self.config.wall_clock, name, now, subscriber, egress);
    }
}

/// Sender reports for every slot that has sent since its last one.
fn write_sender_reports<E: Egress>(
    peers: &SlotMap<PeerKey, super::Peer>,
    wall_clock: WallClock,
    name: &[u8; 16],
    now: Instant,
    subscriber: &mut Subscriber,
    egress: &mut E,
) {
    let ntp = wall_clock.ntp(now);
    let mut reports = ArrayVec::<SenderReport, REPORTS_PER_COMPOUND>::new();
    let mut slots = subscriber.slots.iter_mut().filter(|slot| slot.is_open);
    loop {
        let slot = slots.next();
        if reports.is_full() || (slot.is_none() && !reports.is_empty()) {
            egress.rtcp(|out| {
                let mut writer = Writer::new(out);
                for report in &reports {
                    writer.sender_report(report);
                }
                writer.canonical_name(reports.iter().map(|report| report.ssrc), name);
                writer.len()
            });
            reports.clear();
        }
        let Some(slot) = slot else { return };
        let Some((timestamp, at)) = slot.rewriter.reached().filter(|_| slot.packets != slot.reported_packets)
        else {
            continue;
        };
        slot.reported_packets = slot.packets;
        let clock = slot.clock();
        let by_arrival = timestamp.wrapping_add(clock.ticks(now.saturating_duration_since(at)));
        let by_sender = slot.current.and_then(|source| {
            let peer = peers.get(source.peer)?;
            let sender = peer.publisher.layer(source.kind, source.layer)?.reception.clock?;
            let theirs = Ntp(ntp.0.wrapping_sub(peer.duties.clock_offset? as u64));
            slot.rewriter.timestamp_of(sender.timestamp_of(theirs, clock.hz()))
        });
        let is_close = |rtp: &u32| {
            let difference = if is_later(*rtp, by_arrival) {
                rtp.wrapping_sub(by_arrival)
            } else {
                by_arrival.wrapping_sub(*rtp)
            };
            difference < clock.ticks(CLOCK_ERROR_MAX)
        };
        reports.push(SenderReport {
            ssrc: slot.ssrc,
            ntp,
            rtp: by_sender.filter(is_close).unwrap_or(by_arrival),
            packets: slot.packets,
            octets: slot.octets,
        });
    }
}
