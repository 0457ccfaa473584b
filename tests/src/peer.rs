//! A browser's media side, played by `str0m`: an implementation that shares no code with the bridge.
//!
//! Sans-IO like the bridge's own heart: the caller carries datagrams and tells the time, so that the same client
//! runs over real sockets and in a simulation. It sends stamped packets (see [`crate::stamp`]) that have the shape
//! of Opus and VP8 and reports the stamps that it receives.

use crate::keys::{self, Keys};
use crate::stamp::{STAMP_BYTES, Stamp};
use asamblea_seam::{Mid as SeamMid, UpKind, UpLine};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};

/// The simulcast layers of the camera, smallest first, as `docs/protocol.md` has them.
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// Bytes of the VP8 payload descriptor that is sent: 15-bit picture id and TL0PICIDX (RFC 7741).
const VP8_DESCRIPTOR_BYTES: usize = 5;

/// What came in on a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The receiving m-line, if the packet named it.
    pub mid: Option<String>,
    /// The slot's SSRC.
    pub ssrc: u32,
    /// The extended sequence number in the slot.
    pub sequence: u64,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// The 15-bit picture id and the TL0PICIDX of a VP8 packet.
    pub picture: Option<(u16, u8)>,
    /// The transport-wide number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub transport_number: Option<u16>,
    /// What the sender wrote.
    pub stamp: Stamp,
}

/// What happened to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// ICE and DTLS are up.
    Connected,
    /// ICE gave up.
    Disconnected,
    /// A stamped packet came.
    Received(Received),
    /// The bridge asks for a key frame of a layer.
    KeyFrameWanted {
        /// Which up.
        kind: UpKind,
        /// Which layer, 0 the smallest.
        layer: usize,
    },
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// What.
    pub contents: Vec<u8>,
}

#[derive(Default)]
struct Layer {
    sequence: u64,
    frame: u32,
    picture_id: u16,
    tl0_picture_index: u8,
}

/// See the module.
pub struct Peer {
    rtc: Rtc,
    number: u32,
    pending: Option<SdpPendingOffer>,
    microphone: Mid,
    camera: Mid,
    screen: Mid,
    audio_slots: Vec<Mid>,
    video_slots: Vec<Mid>,
    layers: BTreeMap<(UpKind, usize), Layer>,
    datagrams: VecDeque<Datagram>,
    events: VecDeque<PeerEvent>,
    wake: Instant,
    keys: Option<Keys>,
}

impl Peer {
    /// A client with one local address that will stamp its media with `number`.
    ///
    /// # Panics
    /// When the address is none that ICE can use.
    pub fn new(now: Instant, number: u32, local: SocketAddr) -> Self {
        keys::provider().install_process_default();
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_rtp_mode(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp").expect("an address for ICE"));
        let placeholder = Mid::from("");
        Self {
            rtc,
            number,
            pending: None,
            microphone: placeholder,
            camera: placeholder,
            screen: placeholder,
            audio_slots: Vec::new(),
            video_slots: Vec::new(),
            layers: BTreeMap::new(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
            wake: now,
            keys: None,
        }
    }

    /// The offer that adds so many slots, the first time with the three sending lines before them.
    ///
    /// # Panics
    /// When an earlier offer still waits for its answer.
    pub fn offer(&mut self, audio_slots: usize, video_slots: usize) -> (String, Vec<UpLine>) {
        assert!(self.pending.is_none(), "one offer at a time");
        let is_first = self.audio_slots.is_empty() && self.video_slots.is_empty();
        let mut changes = self.rtc.sdp_api();
        if is_first {
            let mut simulcast = Simulcast::new();
            for rid in RIDS {
                simulcast.add_send_layer(SimulcastLayer::new(rid));
            }
            self.microphone = changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
            self.camera =
                changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, Some(simulcast));
            self.screen = changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        }
        for _ in 0..audio_slots {
            self.audio_slots.push(changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None));
        }
        for _ in 0..video_slots {
            self.video_slots.push(changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None));
        }
        let (offer, pending) = changes.apply().expect("something to offer");
        self.pending = Some(pending);
        let line =
            |mid: Mid, kind| UpLine { mid: SeamMid::new(&mid.to_string()).expect("a short mid"), kind };
        let ups = vec![
            line(self.microphone, UpKind::Microphone),
            line(self.camera, UpKind::Camera),
            line(self.screen, UpKind::Screen),
        ];
        (offer.to_sdp_string(), ups)
    }

    /// Takes the bridge's answer.
    ///
    /// # Errors
    /// What str0m says of an answer that it cannot use.
    pub fn accept_answer(&mut self, sdp: &str) -> anyhow::Result<()> {
        let answer = SdpAnswer::from_sdp_string(sdp)?;
        let pending = self.pending.take().ok_or_else(|| anyhow::anyhow!("no offer waits for an answer"))?;
        self.rtc.sdp_api().accept_answer(pending, answer)?;
        Ok(())
    }

    /// The receiving audio lines, as the signaling protocol names them.
    pub fn audio_slots(&self) -> Vec<String> {
        self.audio_slots.iter().map(ToString::to_string).collect()
    }

    /// The receiving video lines, as the signaling protocol names them.
    pub fn video_slots(&self) -> Vec<String> {
        self.video_slots.iter().map(ToString::to_string).collect()
    }

    /// Takes in a datagram. One that is not for this client, or damaged, is ignored.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        contents: &[u8],
    ) {
        if let Ok(receive) = Receive::new(Protocol::Udp, source, destination, contents) {
            let input = Input::Receive(now, receive);
            if self.rtc.accepts(&input) {
                let _ = self.rtc.handle_input(input);
            }
        }
        self.drain();
    }

    /// Takes in that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain();
    }

    /// Ends the transport with a word to the bridge.
    pub fn close(&mut self) {
        let _ = self.rtc.close();
        self.drain();
    }

    /// The next datagram to send.
    pub fn poll_datagram(&mut self) -> Option<Datagram> {
        self.datagrams.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// When to call [`Peer::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        self.wake
    }

    /// Sends one Opus-shaped packet of 20 ms with an audio level in -dBov, 0 loudest to 127.
    pub fn send_audio(&mut self, now: Instant, level_dbov: u8) -> Stamp {
        let layer = self.layers.entry((UpKind::Microphone, 0)).or_default();
        let stamp = Stamp {
            sender: self.number,
            kind: 0,
            layer: 0,
            frame: layer.frame,
            packet: 0,
            packets: 1,
            is_key: false,
        };
        let timestamp = layer.frame.wrapping_mul(960);
        let sequence = layer.sequence;
        layer.frame += 1;
        layer.sequence += 1;
        let mut payload = vec![0x78]; // TOC: CELT, 20 ms, mono, one frame (RFC 6716 section 3.1)
        payload.extend(stamp.to_bytes());
        payload.resize(100, 0x55);
        let levels = ExtensionValues {
            audio_level: Some(-(level_dbov as i8)),
            voice_activity: Some(level_dbov < 60),
            ..Default::default()
        };
        let pt = self.payload_type(Codec::Opus);
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(self.microphone, None) {
            stream.write_rtp(RtpWrite::new(pt, sequence.into(), timestamp, now, payload).ext_vals(levels));
        }
        self.handle_timeout(now);
        stamp
    }

    /// Sends one VP8-shaped frame of so many packets of `packet_bytes` on a layer of the camera or the screen.
    ///
    /// # Panics
    /// When `kind` is no video or a packet is too small for a stamp.
    pub fn send_video(
        &mut self,
        now: Instant,
        kind: UpKind,
        layer: usize,
        is_key: bool,
        packets: u8,
        packet_bytes: usize,
    ) -> Stamp {
        assert!(packet_bytes > VP8_DESCRIPTOR_BYTES + 1 + STAMP_BYTES, "room for a stamp");
        let (mid, rid, kind_number) = match kind {
            UpKind::Camera => (self.camera, Some(Rid::from(RIDS[layer])), 1),
            UpKind::Screen => (self.screen, None, 2),
            UpKind::Microphone => panic!("a microphone sends no pictures"),
        };
        let state = self.layers.entry((kind, layer)).or_default();
        let first = Stamp {
            sender: self.number,
            kind: kind_number,
            layer: layer as u8,
            frame: state.frame,
            packet: 0,
            packets,
            is_key,
        };
        let timestamp = state.frame.wrapping_mul(3_000);
        let (picture_id, tl0) = (state.picture_id, state.tl0_picture_index);
        let first_sequence = state.sequence;
        state.frame += 1;
        state.sequence += u64::from(packets);
        state.picture_id = (picture_id + 1) & 0x7fff;
        state.tl0_picture_index = tl0.wrapping_add(1);
        let pt = self.payload_type(Codec::Vp8);
        for packet in 0..packets {
            let is_start = packet == 0;
            let mut payload = vec![
                0x80 | if is_start { 0x10 } else { 0 }, // X, S at the start of the partition
                0xc0,                                   // I and L: picture id and TL0PICIDX follow
                0x80 | (picture_id >> 8) as u8,
                picture_id as u8,
                tl0,
                if is_start && is_key { 0x10 } else { 0x11 }, // frame tag: the P bit is 0 for a key frame
            ];
            payload.extend(Stamp { packet, ..first }.to_bytes());
            payload.resize(packet_bytes, 0x55);
            let write =
                RtpWrite::new(pt, (first_sequence + u64::from(packet)).into(), timestamp, now, payload)
                    .marker(packet + 1 == packets)
                    .nackable(true);
            if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, rid) {
                stream.write_rtp(write);
            }
        }
        self.handle_timeout(now);
        first
    }

    /// Asks for a key frame on a slot.
    pub fn ask_key_frame(&mut self, now: Instant, slot_ssrc: u32) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&Ssrc::from(slot_ssrc)) {
            stream.request_keyframe(str0m::media::KeyframeRequestKind::Pli);
        }
        self.handle_timeout(now);
    }

    /// An RTCP compound of the caller's own making under this client's keys; `None` before the handshake, or when it
    /// has no header. Its first SSRC should be none that the client reports under: each counts its packets by itself.
    pub fn seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        self.keys.as_mut()?.seal_rtcp(compound)
    }

    fn payload_type(&self, codec: Codec) -> str0m::media::Pt {
        self.rtc
            .codec_config()
            .find(|params| params.spec().codec == codec)
            .expect("the codec is enabled")
            .pt()
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => self.datagrams.push_back(Datagram {
                    source: transmit.source,
                    destination: transmit.destination,
                    contents: transmit.contents.to_vec(),
                }),
                Ok(Output::Event(event)) => self.note(event),
                Ok(Output::Timeout(wake)) => {
                    self.wake = wake;
                    self.keys = keys::taken().or(self.keys.take());
                    return;
                }
                Err(_) => {
                    self.events.push_back(PeerEvent::Disconnected);
                    return;
                }
            }
        }
    }

    fn note(&mut self, event: Event) {
        let event = match event {
            Event::Connected => PeerEvent::Connected,
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) | Event::Closed => {
                PeerEvent::Disconnected
            }
            Event::KeyframeRequest(request) => {
                let kind = if request.mid == self.screen { UpKind::Screen } else { UpKind::Camera };
                let layer =
                    request.rid.and_then(|rid| RIDS.iter().position(|known| Rid::from(*known) == rid));
                PeerEvent::KeyFrameWanted { kind, layer: layer.unwrap_or(0) }
            }
            Event::RtpPacket(packet) => {
                let mid = packet.header.ext_vals.mid.map(|mid| mid.to_string());
                let opus = Stamp::read(packet.payload.get(1..).unwrap_or_default());
                let vp8 = Stamp::read(packet.payload.get(VP8_DESCRIPTOR_BYTES + 1..).unwrap_or_default());
                let picture = vp8.map(|_| {
                    let byte = |at: usize| packet.payload[at];
                    ((u16::from(byte(2) & 0x7f) << 8) | u16::from(byte(3)), byte(4))
                });
                let Some(stamp) = opus.or(vp8) else { return };
                PeerEvent::Received(Received {
                    mid,
                    ssrc: *packet.header.ssrc,
                    sequence: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    picture,
                    transport_number: packet.header.ext_vals.transport_cc,
                    stamp,
                })
            }
            _ => return,
        };
        self.events.push_back(event);
    }
}
