//! A meeting without transport: people who send made-up packets, and who look hard at what they are sent.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by several test binaries, each of which uses a part"
)]

pub mod line;
pub mod span;

use asamblea_seam::{Event, Mid, PeerId, RoomId, SlotWish, Up, UpKind, UpState};
use asamblea_sfu_core::{
    egress::{Egress, PLAINTEXT_BYTES_MAX},
    negotiate::{
        ExtensionIds, Fingerprint, IceCredentials, MediaDescription, Rid, SlotDescription, UpDescription,
    },
    room::{PeerKey, Room, RoomConfig, WallClock},
    rtp::{
        header::Packet,
        rtcp::{Rtcp, walk},
        rtcp_write::Writer,
        time::Ntp,
        vp8::{Descriptor, PictureId},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub const MID: u8 = 1;
pub const RID: u8 = 2;
pub const REPAIRED_RID: u8 = 3;
pub const LEVEL: u8 = 4;
pub const TRANSPORT_CC: u8 = 5;
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// The numbers of one stream that a person sends.
#[derive(Clone, Debug)]
pub struct Stream {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture_id: u16,
    pub tl0_index: u8,
    pub frame: u32,
}

#[derive(Debug)]
pub struct Person {
    pub id: PeerId,
    pub key: PeerKey,
    pub microphone: Stream,
    pub camera: [Stream; 3],
    pub description: MediaDescription,
    pub received: Vec<Vec<u8>>,
    pub rtcp: Vec<Vec<u8>>,
    pub slots: BTreeMap<Mid, Option<Up>>,
    pub oracle: Oracle,
    pub transport_number: u16,
    pub rtx_sequence: u16,
}

pub struct Meeting {
    pub now: Instant,
    /// The number of the first person; others count on from there.
    pub first: usize,
    pub room: Room,
    pub people: Vec<Person>,
    pub speakers: Vec<Vec<PeerId>>,
    /// What else signaling was told, and when.
    pub told: Vec<(Instant, Event)>,
    /// What draws how many are flushed before more is handed in; `None` for all.
    pub hurry: Option<u64>,
}

pub fn stamp(id: PeerId, layer: u8, frame: u32, index: u8) -> [u8; 14] {
    let mut bytes = [0; 14];
    bytes[..8].copy_from_slice(&id.0.to_be_bytes());
    bytes[8] = layer;
    bytes[9..13].copy_from_slice(&frame.to_be_bytes());
    bytes[13] = index;
    bytes
}

fn stream(ssrc: u32) -> Stream {
    // Close to every wraparound.
    Stream {
        ssrc,
        sequence: 65_500_u16.wrapping_add(ssrc as u16),
        timestamp: u32::MAX - ssrc,
        picture_id: 0x7ff0,
        tl0_index: 250,
        frame: 0,
    }
}

pub fn mid(text: &str) -> Mid {
    Mid::new(text).expect("a mid")
}

/// A browser's description: a microphone, a camera in three layers, and so many slots.
pub fn description(person: u32, audio_slots: u32, video_slots: u32) -> MediaDescription {
    let slot = |is_audio: bool, place: u32| SlotDescription {
        mid: mid(&format!("{}{place}", if is_audio { "a" } else { "v" })),
        is_audio,
        ssrc: 1_000_000 + person * 1_000 + place * 2 + u32::from(is_audio) * 500,
        rtx_ssrc: (!is_audio).then_some(1_000_001 + person * 1_000 + place * 2),
        payload_type: if is_audio { 109 } else { 120 },
        rtx_payload_type: (!is_audio).then_some(124),
        has_transport_cc: !is_audio,
    };
    MediaDescription {
        remote_ice: IceCredentials { ufrag: "abcd".into(), pwd: "0123456789012345678901".into() },
        fingerprint: Fingerprint([0; 32]),
        extensions: ExtensionIds {
            mid: Some(MID),
            rid: Some(RID),
            repaired_rid: Some(REPAIRED_RID),
            audio_level: Some(LEVEL),
            transport_cc: Some(TRANSPORT_CC),
            abs_send_time: None,
        },
        ups: vec![
            UpDescription {
                mid: mid("0"),
                kind: UpKind::Microphone,
                payload_type: 111,
                rtx_payload_type: None,
                red_payload_type: Some(63),
                rids: Default::default(),
                ssrcs: Default::default(),
            },
            UpDescription {
                mid: mid("1"),
                kind: UpKind::Camera,
                payload_type: 96,
                rtx_payload_type: Some(97),
                red_payload_type: None,
                rids: RIDS.iter().map(|rid| Rid((*rid).into())).collect(),
                ssrcs: Default::default(),
            },
        ],
        slots: (0..audio_slots)
            .map(|place| slot(true, place))
            .chain((0..video_slots).map(|place| slot(false, place)))
            .collect(),
    }
}

impl Meeting {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    pub fn with(seed: u64, configure: impl FnOnce(&mut RoomConfig)) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "tests need some first moment; nothing depends on which"
        )]
        let now = Instant::now();
        let mut config = RoomConfig::new(WallClock { at: now, ntp: Ntp(0xeeee_0000_0000_0000) });
        configure(&mut config);
        Self {
            now,
            first: 0,
            room: Room::new(now, RoomId(1), seed, config),
            people: Vec::new(),
            speakers: Vec::new(),
            told: Vec::new(),
            hurry: None,
        }
    }

    /// Someone joins, connects, and turns on microphone and camera (720 lines).
    pub fn join(&mut self, audio_slots: u32, video_slots: u32) -> usize {
        let place = self.people.len();
        let number = self.first + place;
        let id = PeerId(number as u64 + 1);
        let description = description(number as u32, audio_slots, video_slots);
        let key = self.room.join(self.now, id);
        self.room.describe(self.now, key, &description);
        self.room.publish(self.now, key, &publishing(true, true));
        self.room.set_connected(self.now, key, true);
        let base = 10 + number as u32 * 100;
        self.people.push(Person {
            id,
            key,
            microphone: stream(base),
            camera: [stream(base + 10), stream(base + 20), stream(base + 30)],
            oracle: Oracle::new(&description),
            description,
            received: Vec::new(),
            rtcp: Vec::new(),
            slots: BTreeMap::new(),
            transport_number: 65_000,
            rtx_sequence: 7,
        });
        self.settle();
        place
    }

    pub fn view(&mut self, person: usize, wishes: &[(&str, Option<usize>, u16)]) {
        let slots: Vec<_> = wishes.iter().map(|(slot, up, height_px)| wish(slot, *up, *height_px)).collect();
        self.room.view(self.now, self.people[person].key, &slots);
        self.settle();
    }

    /// Time passes; the room is woken when it wants to be.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.room.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// How many are flushed now.
    fn flushes(&mut self) -> usize {
        let Some(drawn) = &mut self.hurry else { return usize::MAX };
        // Knuth's generator (MMIX), whose high bits are good.
        *drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        [0, 1, 2, usize::MAX][(*drawn >> 62) as usize]
    }

    /// Flushes the next who has something to send; says who.
    pub fn flush_next(&mut self) -> Option<usize> {
        loop {
            let key = self.room.poll_dirty()?;
            let place = self.people.iter().position(|person| person.key == key);
            let mut egress = Collect { rtp: Vec::new(), rtcp: Vec::new() };
            self.room.flush(self.now, key, &mut egress);
            let Some(place) = place else { continue }; // is joining
            let person = &mut self.people[place];
            for (sequence, bytes) in egress.rtp {
                person.oracle.check(sequence, &bytes);
                person.received.push(bytes);
            }
            for bytes in &egress.rtcp {
                check_rtcp(bytes);
            }
            person.rtcp.extend(egress.rtcp);
            return Some(place);
        }
    }

    /// Flushes everyone, or in a hurry some, and takes all events.
    pub fn settle(&mut self) {
        for _ in 0..self.flushes() {
            if self.flush_next().is_none() {
                break;
            }
        }
        while let Some(event) = self.room.poll_event() {
            match event {
                Event::Slots { peer, slots } => {
                    let Some(person) = self.people.iter_mut().find(|person| person.id == peer) else {
                        continue;
                    };
                    for slot in slots {
                        person.slots.insert(slot.mid, slot.up);
                    }
                }
                Event::Speakers { speakers, .. } => {
                    self.speakers.push(speakers.iter().map(|speaker| speaker.peer).collect());
                }
                other => self.told.push((self.now, other)),
            }
        }
    }

    pub fn hand_in(&mut self, person: usize, packet: &[u8]) {
        self.room.handle_rtp(self.now, self.people[person].key, packet);
        self.settle();
    }

    pub fn hand_in_rtcp(&mut self, person: usize, compound: &[u8]) {
        self.room.handle_rtcp(self.now, self.people[person].key, compound);
        self.settle();
    }

    /// A packet of 20 ms of sound at this level.
    pub fn sound(&mut self, person: usize, level_dbov: u8) -> Vec<u8> {
        let person = &mut self.people[person];
        let id = person.id;
        let stream = &mut person.microphone;
        stream.sequence = stream.sequence.wrapping_add(1);
        stream.timestamp = stream.timestamp.wrapping_add(960);
        stream.frame += 1;
        person.transport_number = person.transport_number.wrapping_add(1);
        let number = person.transport_number.to_be_bytes();
        rtp(
            (111, false, stream.sequence, stream.timestamp, stream.ssrc),
            &[(MID, b"0"), (LEVEL, &[level_dbov]), (TRANSPORT_CC, &number)],
            &stamp(id, 9, stream.frame, 0),
        )
    }

    /// The packets of a frame of one camera layer.
    pub fn frame(&mut self, person: usize, layer: usize, is_key: bool, packets: u8) -> Vec<Vec<u8>> {
        let person = &mut self.people[person];
        let id = person.id;
        let stream = &mut person.camera[layer];
        stream.timestamp = stream.timestamp.wrapping_add(3_000);
        stream.picture_id = (stream.picture_id + 1) & 0x7fff;
        stream.tl0_index = stream.tl0_index.wrapping_add(1);
        stream.frame += 1;
        (0..packets)
            .map(|index| {
                stream.sequence = stream.sequence.wrapping_add(1);
                person.transport_number = person.transport_number.wrapping_add(1);
                let picture_id = stream.picture_id.to_be_bytes();
                let start = if index == 0 { 0x90 } else { 0x80 };
                let mut payload = vec![
                    start,
                    0xe0,
                    0x80 | picture_id[0],
                    picture_id[1],
                    stream.tl0_index,
                    0,
                    u8::from(!is_key),
                ];
                payload.extend_from_slice(&stamp(id, layer as u8, stream.frame, index));
                // Packets of a frame differ by at most one byte.
                payload.resize(200 + layer * 300 + usize::from(index % 2), 0xaa);
                let number = person.transport_number.to_be_bytes();
                rtp(
                    (96, index + 1 == packets, stream.sequence, stream.timestamp, stream.ssrc),
                    &[(MID, b"1"), (RID, RIDS[layer].as_bytes()), (TRANSPORT_CC, &number)],
                    &payload,
                )
            })
            .collect()
    }

    pub fn send_frame(&mut self, person: usize, layer: usize, is_key: bool) {
        for packet in self.frame(person, layer, is_key, 3) {
            self.hand_in(person, &packet);
        }
    }

    pub fn send_sound(&mut self, person: usize, level_dbov: u8) {
        let packet = self.sound(person, level_dbov);
        self.hand_in(person, &packet);
    }

    /// The media SSRC of a person's slot.
    pub fn slot_ssrc(&self, person: usize, slot: &str) -> u32 {
        let slots = &self.people[person].description.slots;
        slots.iter().find(|described| described.mid == mid(slot)).expect("described").ssrc
    }

    /// What a person got on a slot since the last time: payloads.
    pub fn take_slot(&mut self, person: usize, slot: &str) -> Vec<Seen> {
        let ssrc = self.slot_ssrc(person, slot);
        let person = &mut self.people[person];
        let (taken, kept) = std::mem::take(&mut person.received)
            .into_iter()
            .partition(|bytes| Packet::parse(bytes).is_some_and(|packet| packet.ssrc == ssrc));
        person.received = kept;
        let taken: Vec<Vec<u8>> = taken;
        taken.iter().map(|bytes| Seen::read(bytes)).collect()
    }

    /// Picture loss indications a person was sent since the last time, by SSRC.
    pub fn take_plis(&mut self, person: usize) -> Vec<u32> {
        let compounds = std::mem::take(&mut self.people[person].rtcp);
        compounds
            .iter()
            .flat_map(|bytes| {
                walk(bytes)
                    .filter_map(|packet| match packet {
                        Ok(Rtcp::PictureLoss { media_ssrc }) => Some(media_ssrc),
                        _ => None,
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    pub fn slot_state(&self, person: usize, slot: &str) -> Option<usize> {
        let up = self.people[person].slots.get(&mid(slot)).copied().flatten();
        up.map(|up| up.peer.0 as usize - 1)
    }
}

/// To see a person's camera in a slot.
pub fn wish(slot: &str, whose: Option<usize>, height_px: u16) -> SlotWish {
    let up = whose.map(|place| Up { peer: PeerId(place as u64 + 1), kind: UpKind::Camera });
    SlotWish { mid: mid(slot), up, height_px }
}

pub fn publishing(microphone: bool, camera: bool) -> [UpState; 2] {
    [
        UpState { kind: UpKind::Microphone, active: microphone, height_px: 0 },
        UpState { kind: UpKind::Camera, active: camera, height_px: 720 },
    ]
}

/// What a received packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub descriptor: Option<Descriptor>,
    pub from: usize,
    pub layer: u8,
    pub frame: u32,
    pub index: u8,
    pub payload: Vec<u8>,
}

impl Seen {
    pub fn read(bytes: &[u8]) -> Self {
        let packet = Packet::parse(bytes).expect("we send RTP");
        let is_rtx = packet.payload_type == 124;
        let payload = &packet.payload[if is_rtx { 2 } else { 0 }..];
        let (descriptor, at) = match packet.payload_type {
            109 | 110 => (None, 0),
            120 | 124 => (Some(Descriptor::parse(payload).expect("VP8")), 7),
            other => panic!("payload type {other} was not negotiated with this receiver"),
        };
        let stamp = &payload[at..at + 14];
        Self {
            marker: packet.marker,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            descriptor,
            from: u64::from_be_bytes(stamp[..8].try_into().expect("8 bytes")) as usize - 1,
            layer: stamp[8],
            frame: u32::from_be_bytes(stamp[9..13].try_into().expect("4 bytes")),
            index: stamp[13],
            payload: payload.to_vec(),
        }
    }

    pub fn picture_id(&self) -> u16 {
        self.descriptor.and_then(|descriptor| descriptor.picture_id).map_or(0, PictureId::value)
    }
}

/// What must hold of every packet that a person is sent.
#[derive(Debug)]
pub struct Oracle {
    mids: BTreeMap<u32, Mid>,
    rtx: BTreeMap<u32, u32>,
    sealed: BTreeSet<(u32, u64)>,
    /// The bytes sent under each number of a slot: a resend must repeat them.
    payloads: BTreeMap<(u32, u16), Vec<u8>>,
    /// The last packet of each slot, by its number: sequence, timestamp, picture id, source.
    reached: BTreeMap<u32, (u64, u32, u16, (usize, u8))>,
    pub packets: u64,
    pub resends: u64,
    /// Whole packets of sound, which may be sent again as they are.
    sound: BTreeMap<(u32, u64), Vec<u8>>,
    pub repeats: u64,
    /// A line that does not carry everything: what would wait too long is given up, and its numbers with it.
    pub is_narrow: bool,
}

impl Oracle {
    fn new(description: &MediaDescription) -> Self {
        Self {
            mids: description
                .slots
                .iter()
                .flat_map(|slot| {
                    [Some(slot.ssrc), slot.rtx_ssrc].map(|ssrc| ssrc.map(|ssrc| (ssrc, slot.mid.clone())))
                })
                .flatten()
                .collect(),
            rtx: description.slots.iter().filter_map(|slot| Some((slot.rtx_ssrc?, slot.ssrc))).collect(),
            sealed: BTreeSet::new(),
            payloads: BTreeMap::new(),
            reached: BTreeMap::new(),
            packets: 0,
            resends: 0,
            sound: BTreeMap::new(),
            repeats: 0,
            is_narrow: false,
        }
    }

    /// New keys: numbers may come again.
    pub fn forget(&mut self) {
        self.sealed.clear();
        self.sound.clear();
        self.payloads.clear();
        self.reached.clear();
    }

    pub fn check(&mut self, extended: u64, bytes: &[u8]) {
        assert!(bytes.len() <= PLAINTEXT_BYTES_MAX);
        let packet = Packet::parse(bytes).expect("we send RTP");
        assert_eq!(packet.sequence, extended as u16);
        if !self.sealed.insert((packet.ssrc, extended)) {
            let first = self.sound.get(&(packet.ssrc, extended));
            assert_eq!(
                first.map(Vec::as_slice),
                Some(bytes),
                "a number was sealed twice with different bytes"
            );
            self.repeats += 1;
            return;
        }
        if matches!(packet.payload_type, 109 | 110) {
            self.sound.insert((packet.ssrc, extended), bytes.to_vec());
        }
        let mid = self.mids.get(&packet.ssrc).expect("an SSRC of this person's slots");
        assert_eq!(packet.extensions.get(MID), Some(mid.as_str().as_bytes()), "mid always");
        let is_sound = matches!(packet.payload_type, 109 | 110);
        let numbered =
            usize::from(packet.extensions.get(TRANSPORT_CC).is_some_and(|number| number.len() == 2));
        assert_eq!(numbered == 1, !is_sound, "pictures have transport-wide numbers, sound has none");
        assert_eq!(packet.extensions.iter().count(), 1 + numbered, "nothing else");
        if packet.payload.is_empty() {
            assert!(self.rtx.contains_key(&packet.ssrc), "padding goes where retransmissions go");
            return;
        }
        let seen = Seen::read(bytes);
        self.packets += 1;
        if let Some(media_ssrc) = self.rtx.get(&packet.ssrc) {
            self.resends += 1;
            let original = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
            if let Some(first) = self.payloads.get(&(*media_ssrc, original)) {
                assert_eq!(first, &seen.payload, "a resend repeats the payload");
            }
            return;
        }
        self.payloads.insert((packet.ssrc, packet.sequence), seen.payload.clone());
        let source = (seen.from, seen.layer);
        let now = (extended, seen.timestamp, seen.picture_id(), source);
        let Some(before) = self.reached.insert(packet.ssrc, now) else {
            assert!(extended < 1 << 15, "a stream begins before its first wraparound");
            return;
        };
        if source != before.3 {
            let next = before.0.max(self.highest_before(packet.ssrc, extended)) + 1;
            assert!(
                extended == next || (self.is_narrow && extended > next),
                "switches leave no gap: {extended} after {next}"
            );
            assert!(
                (seen.timestamp.wrapping_sub(before.1) as i32) > 0,
                "timestamps go forward over a switch"
            );
            if seen.descriptor.is_some() {
                assert!(
                    seen.descriptor.is_some_and(|descriptor| descriptor.is_key_frame),
                    "switches at key frames"
                );
            } else {
                assert!(seen.marker, "another voice begins with a marker");
            }
        }
        if extended < before.0 {
            self.reached.insert(packet.ssrc, before); // late
        }
    }

    fn highest_before(&self, ssrc: u32, extended: u64) -> u64 {
        self.sealed.range((ssrc, 0)..(ssrc, extended)).next_back().map_or(0, |(_, number)| *number)
    }
}

/// Another implementation reads every compound we send.
fn check_rtcp(bytes: &[u8]) {
    let mut input = bytes::Bytes::copy_from_slice(bytes);
    rtc_rtcp::packet::unmarshal(&mut input).expect("well-formed RTCP");
    assert!(walk(bytes).all(|packet| packet.is_ok()));
}

struct Collect {
    rtp: Vec<(u64, Vec<u8>)>,
    rtcp: Vec<Vec<u8>>,
}

impl Egress for Collect {
    fn rtp(&mut self, extended_sequence: u64, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut buffer = [0; PLAINTEXT_BYTES_MAX];
        let length = write(&mut buffer);
        self.rtp.push((extended_sequence, buffer[..length].to_vec()));
    }

    fn rtcp(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut buffer = [0; PLAINTEXT_BYTES_MAX];
        let length = write(&mut buffer);
        self.rtcp.push(buffer[..length].to_vec());
    }
}

pub fn rtp(
    (payload_type, marker, sequence, timestamp, ssrc): (u8, bool, u16, u32, u32),
    extensions: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0x90, payload_type | u8::from(marker) << 7];
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    let mut elements = Vec::new();
    for (id, value) in extensions {
        elements.push(id << 4 | (value.len() - 1) as u8);
        elements.extend_from_slice(value);
    }
    elements.resize(elements.len().div_ceil(4) * 4, 0);
    bytes.extend_from_slice(&0xbede_u16.to_be_bytes());
    bytes.extend_from_slice(&((elements.len() / 4) as u16).to_be_bytes());
    bytes.extend_from_slice(&elements);
    bytes.extend_from_slice(payload);
    bytes
}

pub fn rtcp(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1_400];
    let mut writer = Writer::new(&mut buffer);
    write(&mut writer);
    let length = writer.len();
    buffer[..length].to_vec()
}
