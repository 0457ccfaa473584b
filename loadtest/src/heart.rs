//! The media heart under load, in memory: a whole shard with secure paths, rooms and real SRTP.

mod listeners;

pub(crate) use listeners::{Listeners, listeners};

use crate::ALLOCATOR;
use crate::client::{HANDSHAKE, ImmediateFactory, check, client_srtp};
use anyhow::ensure;
use asamblea_seam::{Mid, PeerId, RoomId, SlotWish, Up, UpKind, UpState};
use asamblea_sfu_core::negotiate::{
    ExtensionIds, Fingerprint, IceCredentials, MediaDescription, Rid, SlotDescription, UpDescription,
};
use asamblea_sfu_core::room::{RoomConfig, WallClock};
use asamblea_sfu_core::rtp::time::Ntp;
use asamblea_sfu_core::shard::{Output, Shard, ShardCommand, ShardConfig};
use asamblea_sfu_core::transport::srtp::Srtp;
use asamblea_sfu_core::transport::{Identity, PathId};
use smallvec::smallvec;
use stats_alloc::Region;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Payload type of VP8 in these descriptions.
const VP8: u8 = 96;
const OPUS: u8 = 111;
const MID_EXTENSION: u8 = 4;
const RID_EXTENSION: u8 = 10;
const AUDIO_LEVEL_EXTENSION: u8 = 1;
const TRANSPORT_CC_EXTENSION: u8 = 7;

/// What `forward` measures.
pub(crate) struct Forward {
    pub(crate) subscribers: u16,
    pub(crate) burst: u16,
    pub(crate) packet_bytes: usize,
    pub(crate) frames: u16,
    pub(crate) rounds: u16,
}

/// One publisher, many subscribers, frames in bursts.
pub(crate) fn forward(it: &Forward) -> anyhow::Result<()> {
    ensure!(it.packet_bytes >= 40 && it.packet_bytes <= 1_400, "packets of 40 to 1,400 bytes are supported");
    ensure!(it.rounds > 0 && it.frames > 0 && it.burst > 0, "at least one of everything");
    let mut bench = Bench::new();
    let publisher = bench.join(0, 0);
    for _ in 0..it.subscribers {
        let subscriber = bench.join(0, 1);
        bench.view(subscriber, &[(publisher, 720)]);
    }
    bench.publish(publisher);
    let camera = Stream::camera(publisher, 2);
    // Warm up: bind the SSRC, switch every slot at a key frame, let every buffer grow.
    let mut sender = Sender::new(camera);
    for frame in 0..200 {
        let mut packets = sender.frame(&mut bench, frame % 50 == 0, it.burst, it.packet_bytes);
        bench.feed(publisher, &mut packets);
        bench.advance(Duration::from_millis(40));
    }

    let mut ns_per_packet = Vec::new();
    let mut allocations = 0;
    let mut region_bytes = 0;
    let before = bench.shard.counters();
    for _ in 0..it.rounds {
        let mut frames: Vec<Vec<Vec<u8>>> =
            (0..it.frames).map(|_| sender.frame(&mut bench, false, it.burst, it.packet_bytes)).collect();
        let sent_before = bench.shard.counters().packets_out;
        let mut spent = Duration::ZERO;
        for packets in &mut frames {
            let region = Region::new(ALLOCATOR);
            let start = Instant::now();
            bench.feed(publisher, packets);
            spent += start.elapsed();
            let change = region.change();
            allocations += change.allocations + change.reallocations;
            region_bytes += change.bytes_allocated;
            bench.advance(Duration::from_millis(40));
        }
        let sent = bench.shard.counters().packets_out - sent_before;
        let expected = u64::from(it.frames) * u64::from(it.burst) * u64::from(it.subscribers);
        ensure!(sent >= expected, "only {sent} of {expected} packets were forwarded");
        ns_per_packet.push(spent.as_nanos() as f64 / expected as f64);
    }
    let after = bench.shard.counters();
    let (packets, runs) = (after.packets_out - before.packets_out, after.runs_out - before.runs_out);
    ns_per_packet.sort_by(f64::total_cmp);
    let median = ns_per_packet[ns_per_packet.len() / 2];
    println!(
        "1 publisher, {} subscribers, frames of {} packets of {} bytes, AES-128-GCM, {} rounds",
        it.subscribers, it.burst, it.packet_bytes, it.rounds
    );
    println!(
        "ns of user time per forwarded packet: min {:.0}, median {median:.0}, max {:.0}",
        ns_per_packet[0],
        ns_per_packet[ns_per_packet.len() - 1]
    );
    println!("packets per GSO run: {:.2} ({packets} packets, {runs} runs)", packets as f64 / runs as f64);
    println!(
        "allocations per forwarded packet: {:.5} ({allocations} allocations, {region_bytes} bytes)",
        allocations as f64 / packets as f64
    );
    Ok(())
}

/// A meeting where everyone sends a microphone and a camera in three layers for ten seconds and watches the others.
pub(crate) fn memory(people: u16) -> anyhow::Result<()> {
    ensure!((2..=25).contains(&people), "2 to 25 people");
    let slots = usize::from(people - 1);
    let mut bench = Bench::new();
    let region = Region::new(ALLOCATOR);
    let everyone: Vec<usize> = (0..people).map(|_| bench.join(4, slots)).collect();
    for &me in &everyone {
        bench.publish(me);
        let wishes: Vec<(usize, u16)> =
            everyone.iter().filter(|other| **other != me).map(|o| (*o, 180)).collect();
        bench.view(me, &wishes);
    }
    let after_join = region.change();
    let mut layers: Vec<Vec<Sender>> = everyone
        .iter()
        .map(|me| (0..3).map(|layer| Sender::new(Stream::camera(*me, layer))).collect())
        .collect();
    let mut voices: Vec<Sender> = everyone.iter().map(|me| Sender::new(Stream::microphone(*me))).collect();
    for tick in 0u32..500 {
        for me in &everyone {
            let mut packets = voices[*me].voice(&mut bench, 20 + (*me as u8 + tick as u8 / 50) % 40);
            bench.feed(*me, &mut packets);
            if tick % 2 == 0 {
                // About 120, 350 and 1,000 kbit/s at 25 frames a second.
                for (layer, (burst, bytes)) in [(1, 600), (2, 850), (5, 1_000)].into_iter().enumerate() {
                    let mut packets = layers[*me][layer].frame(&mut bench, tick % 100 == 0, burst, bytes);
                    bench.feed(*me, &mut packets);
                }
            }
        }
        bench.advance(Duration::from_millis(20));
    }
    let after_media = region.change();
    let kept = |change: &stats_alloc::Stats| {
        (change.bytes_allocated as f64 - change.bytes_deallocated as f64) / f64::from(people) / 1_000.0
    };
    println!(
        "{people} people, each sending 3 camera layers and a microphone and watching the {slots} others"
    );
    println!(
        "heap of the heart per participant: {:.0} kB after joining, {:.0} kB after 10 s of media (virtual time)",
        kept(&after_join),
        kept(&after_media)
    );
    Ok(())
}

struct Member {
    id: PeerId,
    ice: IceCredentials,
    path: PathId,
    srtp: Srtp,
    description: MediaDescription,
}

struct Bench {
    now: Instant,
    shard: Shard,
    members: Vec<Member>,
    consented_at: Instant,
    checks: u64,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let identity = Arc::new(Identity::with_factory(Fingerprint([1; 32]), Box::new(ImmediateFactory)));
        let room = RoomConfig::new(WallClock { at: now, ntp: Ntp(0xe000_0000_0000_0000) });
        let shard = Shard::new(ShardConfig { identity, seed: 1, room }, now);
        Self { now, shard, members: Vec::new(), consented_at: now, checks: 0 }
    }

    /// Brings a peer in up to a running secure path.
    fn join(&mut self, audio_slots: usize, video_slots: usize) -> usize {
        let index = self.members.len();
        let id = PeerId(index as u64 + 1);
        let ice =
            IceCredentials { ufrag: format!("00server{index:08}"), pwd: format!("password-of-{index:020}") };
        let remote_ice = IceCredentials { ufrag: format!("client{index}"), pwd: "x".repeat(24) };
        let mut fingerprint = Fingerprint([2; 32]);
        fingerprint.0[..8].copy_from_slice(&(index as u64).to_be_bytes());
        let description = describe(index, remote_ice.clone(), fingerprint, audio_slots, video_slots);
        self.shard
            .handle_command(self.now, ShardCommand::Join { room: RoomId(1), peer: id, ice: ice.clone() });
        let command =
            ShardCommand::Describe { peer: id, description: Box::new(description.clone()), restart: None };
        self.shard.handle_command(self.now, command);
        let remote = SocketAddr::new(Ipv4Addr::new(10, 0, (index >> 8) as u8, index as u8).into(), 40_000);
        self.shard.handle_check(self.now, remote, &check(&ice, &remote_ice.ufrag, index as u64));
        let mut path = None;
        while let Some(output) = self.shard.poll_output() {
            if let Output::OpenPath { path: opened, .. } = output {
                path = Some(opened);
            }
        }
        let path = path.expect("an authentic check opens a path");
        self.shard.handle_datagram(self.now, path, &mut HANDSHAKE.clone());
        self.drain();
        self.members.push(Member { id, ice, path, srtp: client_srtp(fingerprint), description });
        index
    }

    fn publish(&mut self, index: usize) {
        self.publish_as(index, true);
    }

    /// Has a peer publish a microphone and a camera that are on or off.
    fn publish_as(&mut self, index: usize, active: bool) {
        let state = |kind| UpState { kind, active, height_px: 720 };
        let ups = vec![state(UpKind::Microphone), state(UpKind::Camera)];
        self.shard.handle_command(self.now, ShardCommand::Publish { peer: self.members[index].id, ups });
        self.drain();
    }

    fn view(&mut self, index: usize, wishes: &[(usize, u16)]) {
        let slots = self.members[index].description.slots.iter().filter(|slot| !slot.is_audio);
        let slots = slots
            .zip(wishes)
            .map(|(slot, (whose, height_px))| SlotWish {
                mid: slot.mid.clone(),
                up: Some(Up { peer: PeerId(*whose as u64 + 1), kind: UpKind::Camera }),
                height_px: *height_px,
            })
            .collect();
        self.shard.handle_command(self.now, ShardCommand::View { peer: self.members[index].id, slots });
        self.drain();
    }

    /// One batch: everything is taken in, then everything that follows from it is given out.
    fn feed(&mut self, from: usize, packets: &mut [Vec<u8>]) {
        let path = self.members[from].path;
        for packet in packets {
            self.shard.handle_datagram(self.now, path, packet);
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.shard.poll_output() {
            std::hint::black_box(&output);
        }
        while let Some(event) = self.shard.poll_event() {
            std::hint::black_box(&event);
        }
    }

    /// Lets time pass; every peer renews its consent in time (RFC 7675).
    fn advance(&mut self, duration: Duration) {
        self.now += duration;
        if self.now - self.consented_at > Duration::from_secs(5) {
            self.consented_at = self.now;
            self.checks += 1;
            for (index, member) in self.members.iter().enumerate() {
                let transaction = self.checks << 32 | index as u64;
                let mut check = check(&member.ice, &member.description.remote_ice.ufrag, transaction);
                self.shard.handle_datagram(self.now, member.path, &mut check);
            }
        }
        self.shard.handle_timeout(self.now);
        self.drain();
    }
}

fn describe(
    index: usize,
    remote_ice: IceCredentials,
    fingerprint: Fingerprint,
    audio_slots: usize,
    video_slots: usize,
) -> MediaDescription {
    let mid = |number: usize| Mid::new(&number.to_string()).expect("a number is a mid");
    let up = |number, kind: UpKind, rids: &[&str]| UpDescription {
        mid: mid(number),
        kind,
        payload_type: if kind.is_audio() { OPUS } else { VP8 },
        rtx_payload_type: (!kind.is_audio()).then_some(VP8 + 1),
        red_payload_type: None,
        rids: rids.iter().map(|rid| Rid((*rid).into())).collect(),
        ssrcs: smallvec![],
    };
    let slot = |number: usize| {
        let is_audio = number < audio_slots;
        let ssrc = 0x5000_0000 + (index as u32) * 1_000 + number as u32 * 2;
        SlotDescription {
            mid: mid(3 + number),
            is_audio,
            ssrc,
            rtx_ssrc: (!is_audio).then_some(ssrc + 1),
            payload_type: if is_audio { OPUS } else { VP8 },
            rtx_payload_type: (!is_audio).then_some(VP8 + 1),
            has_transport_cc: true,
        }
    };
    MediaDescription {
        remote_ice,
        fingerprint,
        extensions: ExtensionIds {
            mid: Some(MID_EXTENSION),
            rid: Some(RID_EXTENSION),
            audio_level: Some(AUDIO_LEVEL_EXTENSION),
            transport_cc: Some(TRANSPORT_CC_EXTENSION),
            ..ExtensionIds::default()
        },
        ups: vec![
            up(0, UpKind::Microphone, &[]),
            up(1, UpKind::Camera, &["q", "h", "f"]),
            up(2, UpKind::Screen, &[]),
        ],
        slots: (0..audio_slots + video_slots).map(slot).collect(),
    }
}

/// Where a stream belongs.
#[derive(Clone, Copy)]
struct Stream {
    from: usize,
    ssrc: u32,
    mid: u8,
    rid: Option<u8>,
}

impl Stream {
    fn camera(from: usize, layer: u8) -> Self {
        let ssrc = 0x1000_0000 + from as u32 * 10 + u32::from(layer);
        Self { from, ssrc, mid: b'1', rid: Some(b"qhf"[usize::from(layer)]) }
    }

    fn microphone(from: usize) -> Self {
        Self { from, ssrc: 0x2000_0000 + from as u32, mid: b'0', rid: None }
    }
}

/// Writes and seals what a browser would send.
struct Sender {
    stream: Stream,
    sequence: u64,
    frame: u32,
    picture_id: u16,
}

impl Sender {
    fn new(stream: Stream) -> Self {
        Self { stream, sequence: 0, frame: 0, picture_id: 0 }
    }

    fn frame(&mut self, bench: &mut Bench, is_key: bool, packets: u16, packet_bytes: usize) -> Vec<Vec<u8>> {
        self.frame += 1;
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        let timestamp = self.frame * 3_600;
        (0..packets)
            .map(|packet| {
                let is_start = packet == 0;
                let payload = [
                    0x80 | if is_start { 0x10 } else { 0 },
                    0xc0,
                    0x80 | (self.picture_id >> 8) as u8,
                    self.picture_id as u8,
                    self.frame as u8,
                    u8::from(!(is_start && is_key)),
                ];
                self.packet(bench, VP8, packet + 1 == packets, timestamp, &payload, None, packet_bytes)
            })
            .collect()
    }

    fn voice(&mut self, bench: &mut Bench, level_dbov: u8) -> Vec<Vec<u8>> {
        self.frame += 1;
        vec![self.packet(bench, OPUS, false, self.frame * 960, &[0x78], Some(level_dbov), 120)]
    }

    #[expect(clippy::too_many_arguments, reason = "a packet has that many parts")]
    fn packet(
        &mut self,
        bench: &mut Bench,
        payload_type: u8,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
        level_dbov: Option<u8>,
        packet_bytes: usize,
    ) -> Vec<u8> {
        let mut extensions = vec![MID_EXTENSION << 4, self.stream.mid];
        if let Some(rid) = self.stream.rid {
            extensions.extend([RID_EXTENSION << 4, rid]);
        }
        if let Some(level) = level_dbov {
            extensions.extend([AUDIO_LEVEL_EXTENSION << 4, 0x80 | level]);
        }
        extensions.resize(extensions.len().next_multiple_of(4), 0);
        let mut packet = vec![0x90, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend((self.sequence as u16).to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.stream.ssrc.to_be_bytes());
        packet.extend([0xbe, 0xde]);
        packet.extend(((extensions.len() / 4) as u16).to_be_bytes());
        packet.extend(extensions);
        packet.extend(payload);
        packet.resize(packet_bytes.max(packet.len()), 0x55);
        let plain_bytes = packet.len();
        packet.resize(plain_bytes + 16, 0);
        let sealed = bench.members[self.stream.from].srtp.seal_rtp(&mut packet, plain_bytes, self.sequence);
        packet.truncate(sealed);
        self.sequence += 1;
        packet
    }
}
