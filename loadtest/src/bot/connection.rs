//! One peer connection of a bot, sans I/O: datagrams in, datagrams out, what arrived into the books.

use super::receive::ReceiveStream;
use super::rtcp::{self, Arrivals, Report, Request};
use super::rtp;
use super::sdp::{self, Credentials, Description, Extension, Features, OwnLine};
use super::secure::{Cipher, Identity, Secure, Srtp};
use super::send::{SendParameters, SendStream};
use crate::traffic::Kind;
use crate::traffic::ledger::Ledger;
use crate::traffic::source::Sources;
use crate::traffic::stamp::Stamp;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often transport-wide feedback leaves, as in Chromium at these rates, and reports do.
const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The round trip that reports tell beside the real one, which is a fraction of a millisecond here and on no line: Janus
/// keeps packets for repair only once it has measured more than 0 ms.
const LINE: Duration = Duration::from_millis(2);

/// SSRCs that are followed on one connection: everyone's voice and picture with repair, in the largest scenario.
const STREAMS_MAX: usize = 2_048;

/// An NTP time (RFC 5905 section 6) to count from in sender reports: nobody compares it with a wall clock.
const NTP_AT_START: u64 = 0xe000_0000_0000_0000;

/// A moment, as the libraries want it and as the books do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For timers.
    pub(crate) instant: Instant,
    /// Since the run's beginning.
    pub(crate) ns: u64,
}

/// What a connection writes into while it works.
pub(crate) struct Desk<'a> {
    /// The books.
    pub(crate) ledger: &'a mut Ledger,
    /// What is sent, to be asked for key frames.
    pub(crate) sources: &'a mut Sources,
    /// Of received media one packet in so many is opened.
    pub(crate) open_one_in: u32,
    /// Of received media this share is dropped before anything sees it: injected loss, in 1 / 2^32.
    pub(crate) loss: u32,
    /// Datagrams to send on the path.
    pub(crate) outbox: &'a mut Vec<Vec<u8>>,
}

/// What went wrong or was left out, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Media that could not be decrypted.
    pub(crate) undecryptable: u64,
    /// Media without a stamp: probes and padding.
    pub(crate) unstamped: u64,
    /// Packets that were asked for again by this bot, and by the server.
    pub(crate) resends_asked: u64,
    pub(crate) resends_answered: u64,
    /// Key frames that the server asked for.
    pub(crate) key_frames_asked: u64,
    /// Media datagrams, with repair and probes.
    pub(crate) media_datagrams: u64,
    /// Packets dropped on purpose.
    pub(crate) dropped: u64,
}

impl std::ops::Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            undecryptable: self.undecryptable + other.undecryptable,
            unstamped: self.unstamped + other.unstamped,
            resends_asked: self.resends_asked + other.resends_asked,
            resends_answered: self.resends_answered + other.resends_answered,
            key_frames_asked: self.key_frames_asked + other.key_frames_asked,
            media_datagrams: self.media_datagrams + other.media_datagrams,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// When a connection had come how far, in ns since the run began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The server's description was there.
    pub(crate) described_ns: Option<u64>,
    /// ICE had a path.
    pub(crate) path_ns: Option<u64>,
    /// DTLS had keys.
    pub(crate) keys_ns: Option<u64>,
    /// The first packet of media came.
    pub(crate) media_ns: Option<u64>,
}

/// See the module.
pub(crate) struct Connection {
    secure: Secure,
    progress: Progress,
    /// The bot's number as a subscriber.
    number: usize,
    lines: Vec<OwnLine>,
    version: u32,
    features: Features,
    sends: Vec<SendStream>,
    /// The run's stream for each of `sends`.
    send_streams: Vec<usize>,
    receives: Vec<ReceiveStream>,
    /// What payload types mean on what is received: whether video and whether repair.
    payload_types: [Option<(bool, bool)>; 128],
    transport_id: Option<u8>,
    /// Whether RTCP may go without a report in front.
    is_reduced_size: bool,
    transport_sequence: u16,
    arrivals: Arrivals,
    feedback_at: Instant,
    report_at: Instant,
    random: u64,
    own_ssrc: u32,
    pub(crate) counters: Counters,
    plain: Vec<u8>,
}

impl Connection {
    /// A connection from one local address.
    ///
    /// # Errors
    /// When that is no address for ICE.
    pub(crate) fn new(
        now: Now,
        identity: Arc<Identity>,
        local: SocketAddr,
        number: usize,
        features: Features,
    ) -> anyhow::Result<Self> {
        // Reports of a thousand bots at the same moment would be a burst that no meeting has.
        let phase = |every: Duration| every.mul_f64((number as f64 * 0.618).fract());
        Ok(Self {
            secure: Secure::new(now.instant, identity, local)?,
            progress: Progress::default(),
            number,
            lines: Vec::new(),
            version: 0,
            features,
            sends: Vec::new(),
            send_streams: Vec::new(),
            receives: Vec::new(),
            payload_types: [None; 128],
            transport_id: None,
            is_reduced_size: false,
            transport_sequence: 1,
            arrivals: Arrivals::default(),
            feedback_at: now.instant + phase(FEEDBACK_EVERY),
            report_at: now.instant + phase(REPORT_EVERY),
            random: crate::traffic::source::splitmix(number as u64),
            own_ssrc: 0x1000_0000 + (number as u32) * 64,
            counters: Counters::default(),
            plain: Vec::with_capacity(2_048),
        })
    }

    /// Offers these lines more than before: streams of the run by layer to send, lines to receive.
    pub(crate) fn offer(
        &mut self,
        sends: &[(Kind, Vec<usize>)],
        receive_audio: usize,
        receive_video: usize,
    ) -> String {
        let receives = [(Kind::Audio, receive_audio), (Kind::Video, receive_video)];
        let receives =
            receives.iter().flat_map(|(kind, count)| std::iter::repeat_n((*kind, &[][..]), *count));
        let sends = sends.iter().map(|(kind, streams)| (*kind, &streams[..]));
        for (kind, streams) in sends.chain(receives) {
            let first = self.own_ssrc + 1 + self.sends.len() as u32 * 2;
            let ssrcs = (0..streams.len() as u32).map(|layer| (first + layer * 2, first + layer * 2 + 1));
            let line = OwnLine { mid: self.lines.len().to_string(), kind, sends: ssrcs.collect() };
            self.sends.extend(SendStream::of(&line));
            self.send_streams.extend(streams);
            self.lines.push(line);
        }
        self.version += 1;
        sdp::write_offer(&self.secure.credentials(), self.version, &self.lines, self.features)
    }

    /// Takes the server's answer.
    ///
    /// # Errors
    /// When it cannot be read, or a line that sends was refused.
    pub(crate) fn accept_answer(&mut self, now: Now, answer: &str, server: IpAddr) -> anyhow::Result<()> {
        let answer = sdp::read(answer, server)?;
        for send in &mut self.sends {
            send.parameters = SendParameters::of(&answer, send.mid());
            anyhow::ensure!(send.parameters.is_some(), "the server refused line {}", send.mid());
        }
        self.learn(&answer);
        self.progress.described_ns.get_or_insert(now.ns);
        self.secure.start(now.instant, &answer, true)
    }

    /// Answers the server's offer.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn answer_offer(&mut self, now: Now, offer: &str, server: IpAddr) -> anyhow::Result<String> {
        let mut offer = sdp::read(offer, server)?;
        offer.restrict(self.features);
        self.learn(&offer);
        self.progress.described_ns.get_or_insert(now.ns);
        self.version += 1;
        let answer = sdp::write_answer(&self.secure.credentials(), self.version, &offer);
        self.secure.start(now.instant, &offer, false)?;
        Ok(answer)
    }

    fn learn(&mut self, description: &Description) {
        self.is_reduced_size = description.is_reduced_size;
        for line in &description.lines {
            let is_video = line.kind == Some(Kind::Video);
            for (payload_type, is_repair) in [(line.payload_type, false), (line.repair_payload_type, true)] {
                if let Some(slot) = payload_type.and_then(|pt| self.payload_types.get_mut(usize::from(pt))) {
                    *slot = Some((is_video, is_repair));
                }
            }
            if self.features.feedback && line.feedback.iter().any(|name| name == "transport-cc") {
                self.transport_id = self.transport_id.or(line.extension(Extension::TransportCc));
            }
        }
    }

    /// A path without a handshake, for a run without a server: it sends and takes what was offered.
    pub(crate) fn preset(&mut self, srtp: Srtp, remote: SocketAddr) -> anyhow::Result<()> {
        let own = Credentials { ufrag: "none".into(), pwd: "none".into(), fingerprint: [0; 32] };
        let lines = sdp::write_offer(&own, 1, &self.lines, self.features);
        let lines = sdp::read(&lines, remote.ip())?;
        for send in &mut self.sends {
            send.parameters = SendParameters::of(&lines, send.mid());
        }
        self.learn(&lines);
        self.secure.preset(srtp, remote);
        Ok(())
    }

    /// Takes a datagram.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &[u8],
        desk: &mut Desk<'_>,
    ) {
        // RFC 7983 section 7.
        match datagram.first() {
            Some(0..=63) => self.handle_handshake(now, from, datagram),
            Some(128..=191) if datagram.len() >= rtp::HEADER_BYTES => match datagram[1] {
                192..=223 => self.handle_rtcp(now, datagram, desk),
                _ => self.handle_rtp(now, datagram, desk),
            },
            _ => {}
        }
    }

    /// Takes a datagram of ICE or DTLS; others are dropped, as nothing can be made of them before there are keys.
    pub(crate) fn handle_handshake(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        match datagram.first() {
            Some(0..=3) => self.secure.handle_stun(now.instant, from, datagram),
            Some(20..=63) => self.secure.handle_dtls(now.instant, from, datagram),
            _ => {}
        }
        if self.secure.selected().is_some() {
            self.progress.path_ns.get_or_insert(now.ns);
        }
        if self.secure.is_connected() {
            self.progress.keys_ns.get_or_insert(now.ns);
        }
    }

    /// How far it has come, and when.
    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Takes in that time has passed while there are no keys.
    pub(crate) fn handle_handshake_timeout(&mut self, now: Now) {
        self.secure.handle_timeout(now.instant);
    }

    fn handle_rtp(&mut self, now: Now, datagram: &[u8], desk: &mut Desk<'_>) {
        let Some(header) = rtp::read(datagram, self.transport_id) else { return };
        if desk.loss > 0 {
            self.random = crate::traffic::source::splitmix(self.random);
            if (self.random as u32) < desk.loss {
                self.counters.dropped += 1;
                return;
            }
        }
        // Whatever it is: mediasoup probes a line with packets of a payload type that no line has.
        if let Some(number) = header.transport_sequence {
            self.arrivals.note(now.ns, number);
        }
        let Some((is_video, is_repair)) = self.payload_types[usize::from(header.payload_type)] else {
            self.counters.unstamped += 1;
            return;
        };
        self.counters.media_datagrams += 1;
        self.progress.media_ns.get_or_insert(now.ns);
        let at = match self.receives.iter().position(|stream| stream.ssrc == header.ssrc) {
            Some(at) => at,
            None if self.receives.len() < STREAMS_MAX => {
                self.receives.push(ReceiveStream::new(header.ssrc, is_repair, is_video));
                self.receives.len() - 1
            }
            None => return,
        };
        let sequence = self.receives[at].note(now.ns, header.sequence);
        let may_stay_closed = desk.open_one_in > 1 && !is_repair && self.receives[at].has_key();
        if may_stay_closed && !(header.sequence as u32).is_multiple_of(desk.open_one_in) {
            self.note_unopened(now, at, sequence, desk);
            return;
        }
        let Some(srtp) = self.secure.srtp() else { return };
        let Ok(packet) = srtp.inbound.decrypt_rtp(datagram) else {
            self.counters.undecryptable += 1;
            return;
        };
        let payload = packet.get(header.payload_at..).unwrap_or_default();
        let payload = rtp::without_padding(payload, header.has_padding).unwrap_or_default();
        let Some(stamp) = Stamp::read(payload) else {
            self.counters.unstamped += 1;
            return;
        };
        let known = self.receives[at].inside().filter(|inside| inside.stream == stamp.stream);
        let flow = known.map(|inside| inside.flow).or_else(|| desk.ledger.flow(self.number, stamp.stream));
        let Some(flow) = flow else { return };
        self.receives[at].handle_stamp(sequence, &stamp, flow);
        if is_repair && let Some(original) = payload.first_chunk::<2>() {
            let is_it = |stream: &&mut ReceiveStream| {
                stream.inside().is_some_and(|inside| inside.stream == stamp.stream)
            };
            if let Some(repaired) = self.receives.iter_mut().find(is_it) {
                repaired.settle_wrapped(u16::from_be_bytes(*original));
            }
        }
        desk.ledger.handle_arrival(now.ns, flow, &stamp, is_repair);
    }

    fn note_unopened(&mut self, now: Now, at: usize, sequence: u64, desk: &mut Desk<'_>) {
        let stream = &self.receives[at];
        let (Some(inside), Some(counter)) = (stream.inside(), stream.counter_of(sequence)) else { return };
        let schedule = &desk.sources.plan(inside.stream as usize).schedule;
        let packet = schedule.place(counter).packet;
        let stamp = Stamp {
            stream: inside.stream,
            counter,
            due_ns: schedule.due_ns(counter),
            is_key: false,
            is_frame_start: packet == 0,
            is_frame_end: packet + 1 == schedule.packets_per_frame,
        };
        desk.ledger.handle_arrival(now.ns, inside.flow, &stamp, false);
    }

    fn handle_rtcp(&mut self, now: Now, datagram: &[u8], desk: &mut Desk<'_>) {
        let Some(srtp) = self.secure.srtp() else { return };
        let Ok(compound) = srtp.inbound.decrypt_rtcp(datagram) else {
            self.counters.undecryptable += 1;
            return;
        };
        let mut requests = Vec::new();
        rtcp::read_requests(&compound, |request| requests.push(request));
        for request in requests {
            match request {
                Request::Answer { ssrc, sender_report } => {
                    if let Some(stream) = self.receives.iter_mut().find(|stream| stream.ssrc == ssrc) {
                        stream.sender_report = Some((sender_report, now.ns));
                    }
                }
                Request::KeyFrame(ssrc) => {
                    if let Some(at) = self.sends.iter().position(|send| send.ssrc() == ssrc) {
                        self.counters.key_frames_asked += 1;
                        desk.sources.ask_key_frame(self.send_streams[at]);
                    }
                }
                Request::Resend { ssrc, first, mask } => {
                    let rest =
                        (0..16).filter(|bit| mask >> bit & 1 == 1).map(|bit| first.wrapping_add(bit + 1));
                    for sequence in std::iter::once(first).chain(rest) {
                        self.resend(ssrc, sequence, desk);
                    }
                }
            }
        }
    }

    fn resend(&mut self, ssrc: u32, sequence: u16, desk: &mut Desk<'_>) {
        let Some(send) = self.sends.iter_mut().find(|send| send.ssrc() == ssrc) else { return };
        self.plain.clear();
        if send.write_repair(&mut self.plain, &mut self.transport_sequence, sequence)
            && let Some(srtp) = self.secure.srtp()
            && let Ok(sealed) = srtp.outbound.encrypt_rtp(&self.plain)
        {
            self.counters.resends_answered += 1;
            desk.outbox.push(sealed.to_vec());
        }
    }

    /// Seals a packet of a stream of the run; `None` before there are keys.
    pub(crate) fn send(
        &mut self,
        stream: usize,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) -> Option<bytes::BytesMut> {
        let at = self.send_streams.iter().position(|known| *known == stream)?;
        let srtp = self.secure.srtp()?;
        self.plain.clear();
        self.sends[at]
            .write(&mut self.plain, &mut self.transport_sequence, (timestamp, marker), payload)
            .then_some(())?;
        srtp.outbound.encrypt_rtp(&self.plain).ok()
    }

    /// Takes in that time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Now, desk: &mut Desk<'_>) {
        self.secure.handle_timeout(now.instant);
        if !self.secure.is_connected() {
            return;
        }
        let mut compound = Vec::new();
        for stream in &mut self.receives {
            let numbers = if self.features.repair { stream.poll_missing(now.ns) } else { Vec::new() };
            if !numbers.is_empty() {
                self.counters.resends_asked += numbers.len() as u64;
                rtcp::write_resend_request(&mut compound, self.own_ssrc, stream.ssrc, &numbers);
            }
            if stream.poll_key_frame_wanted(now.ns) {
                rtcp::write_key_frame_request(&mut compound, self.own_ssrc, stream.ssrc);
            }
        }
        if self.feedback_at <= now.instant {
            self.feedback_at = now.instant + FEEDBACK_EVERY;
            let media_ssrc = self.receives.first().map_or(0, |stream| stream.ssrc);
            while self.arrivals.write(&mut compound, self.own_ssrc, media_ssrc) {
                self.seal_rtcp(now, &mut compound, desk);
            }
        }
        if self.report_at <= now.instant {
            self.report_at = now.instant + REPORT_EVERY;
            self.write_reports(now, &mut compound);
        }
        self.seal_rtcp(now, &mut compound, desk);
    }

    fn write_reports(&self, now: Now, compound: &mut Vec<u8>) {
        for send in &self.sends {
            let (packets, bytes, timestamp) = send.totals();
            let ntp = NTP_AT_START + ((u128::from(now.ns) << 32) / 1_000_000_000) as u64;
            if packets > 0 {
                rtcp::write_sender_report(compound, send.ssrc(), ntp, timestamp, packets, bytes);
            }
        }
        self.write_receiver_report(now, compound);
    }

    fn write_receiver_report(&self, now: Now, compound: &mut Vec<u8>) {
        let report = |stream: &ReceiveStream| {
            let (lost, highest) = stream.report()?;
            let (sender_report, since) = stream.sender_report.map_or((0, 0), |(middle, at_ns)| {
                let since_ns = now.ns.saturating_sub(at_ns).saturating_sub(LINE.as_nanos() as u64);
                (middle, (u128::from(since_ns) * 65_536 / 1_000_000_000) as u32)
            });
            Some(Report { ssrc: stream.ssrc, lost, highest, sender_report, since })
        };
        let reports: Vec<Report> = self.receives.iter().filter_map(report).collect();
        rtcp::write_receiver_report(compound, self.own_ssrc, &reports);
    }

    fn seal_rtcp(&mut self, now: Now, compound: &mut Vec<u8>, desk: &mut Desk<'_>) {
        if compound.is_empty() {
            return;
        }
        if !self.is_reduced_size && !rtcp::has_report_in_front(compound) {
            // Some servers know by the report alone which stream the rest is about.
            let rest = std::mem::take(compound);
            self.write_receiver_report(now, compound);
            rtcp::write_source_description(compound, self.own_ssrc);
            compound.extend(rest);
        }
        if let Some(srtp) = self.secure.srtp()
            && let Ok(sealed) = srtp.outbound.encrypt_rtcp(compound)
        {
            desk.outbox.push(sealed.to_vec());
        }
        compound.clear();
    }

    /// The next datagram of ICE or DTLS and where to.
    pub(crate) fn poll_datagram(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.secure.poll_datagram()
    }

    /// The server's end of the path, once there is one.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        self.secure.selected()
    }

    /// Whether media can flow.
    pub(crate) fn is_connected(&self) -> bool {
        self.secure.is_connected()
    }

    /// Whether the server takes part in transport-wide feedback on what it sends.
    pub(crate) fn has_feedback(&self) -> bool {
        self.transport_id.is_some()
    }

    /// The cipher that was negotiated.
    pub(crate) fn cipher(&self) -> Option<Cipher> {
        self.secure.cipher()
    }

    /// Why there is no path.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.secure.failure()
    }

    /// Opened packets that contradicted how others were named.
    pub(crate) fn contradictions(&self) -> u64 {
        self.receives.iter().map(|stream| stream.contradictions).sum()
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, now: Now) {
        self.secure.close(now.instant);
    }
}
