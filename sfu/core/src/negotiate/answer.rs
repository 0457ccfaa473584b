//! Writes an answer: one section per line of the offer, in its order, every attribute decided before.

use super::offer::{Direction, Extension, Feedback, MediaType, OfferCodec, OfferLine};
use super::{Fingerprint, IceCredentials, SlotDescription, UpDescription};
use std::fmt::Write;
use std::net::SocketAddr;

/// The average rate Opus encoders are asked for, in bits per second. Firefox takes it as its actual rate; without it
/// it would choose one for music. 40 kb/s is full-band speech with room for the in-band repair copy
/// (`useinbandfec`).
///
/// Discontinuous transmission (`usedtx`) is left off: it would save little next to video, while silence is when
/// audio levels (RFC 6464) tell the loudest speakers apart, and its first syllables suffer.
pub const OPUS_BITRATE_BPS: u32 = 40_000;

/// What an answer says about a line.
#[derive(Debug)]
pub(super) enum Role {
    Up(UpDescription),
    Slot(SlotDescription),
    /// Negotiated, but nothing flows.
    Inactive,
    /// Port 0 (RFC 3264 section 6).
    Rejected,
}

pub(super) struct AnswerLine<'a> {
    pub(super) offered: &'a OfferLine,
    pub(super) role: Role,
}

pub(super) struct AnswerParts<'a> {
    pub(super) session_id: u64,
    pub(super) version: u64,
    pub(super) ice: &'a IceCredentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) candidates: &'a [SocketAddr],
    pub(super) transport_cc: bool,
    pub(super) lines: &'a [AnswerLine<'a>],
}

/// Writes a line; a `String` takes everything.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        let out: &mut String = $out;
        write!(out, $($arg)*).expect("writing to a String never fails");
        out.push_str("\r\n");
    }};
}

impl AnswerParts<'_> {
    pub(super) fn write(&self) -> String {
        let mut out = String::with_capacity(1024 + self.lines.len() * 1024);
        let out_ref = &mut out;
        line!(out_ref, "v=0");
        line!(out_ref, "o=- {} {} IN IP4 0.0.0.0", self.session_id, self.version);
        line!(out_ref, "s=-");
        line!(out_ref, "t=0 0");
        line!(out_ref, "a=ice-lite");
        out_ref.push_str("a=group:BUNDLE");
        for accepted in self.lines.iter().filter(|l| l.is_accepted()) {
            out_ref.push(' ');
            out_ref.push_str(accepted.offered.mid.as_str());
        }
        out_ref.push_str("\r\n");
        line!(out_ref, "a=msid-semantic:WMS *");
        let mut is_first = true;
        for line in self.lines {
            match &line.role {
                Role::Rejected => line.write_rejected(out_ref),
                role => {
                    self.write_transport(out_ref, line);
                    match role {
                        Role::Up(up) => self.write_up(out_ref, line.offered, up),
                        Role::Slot(slot) => self.write_slot(out_ref, line.offered, slot),
                        Role::Inactive | Role::Rejected => {
                            line!(out_ref, "a=inactive");
                            line.write_codec(out_ref, false);
                        }
                    }
                    // Candidates stand in one section of a bundle (RFC 8843 section 10).
                    if std::mem::take(&mut is_first) {
                        self.write_candidates(out_ref);
                    }
                }
            }
        }
        out
    }

    /// What all sections of the bundle share. Chromium repeats it in each, so it is known to be understood.
    fn write_transport(&self, out: &mut String, line: &AnswerLine<'_>) {
        let offered = line.offered;
        let formats = line.payload_types();
        line!(out, "m={} {} {} {}", offered.media_token, self.port(), offered.protocol, formats);
        self.write_connection(out);
        line!(out, "a=mid:{}", offered.mid.as_str());
        line!(out, "a=ice-ufrag:{}", self.ice.ufrag);
        line!(out, "a=ice-pwd:{}", self.ice.pwd);
        line!(out, "a=fingerprint:sha-256 {}", Hex(self.fingerprint));
        // Passive: the client begins the handshake, once its first check has shown that its address is its own.
        line!(out, "a=setup:passive");
        line!(out, "a=rtcp-mux");
        if offered.reduced_size_rtcp {
            line!(out, "a=rtcp-rsize");
        }
    }

    fn write_up(&self, out: &mut String, offered: &OfferLine, up: &UpDescription) {
        line!(out, "a=recvonly");
        write_codec(out, offered, self.transport_cc);
        if offered.media == MediaType::Audio {
            write_sound_repair(out, offered);
        }
        self.write_extensions(out, offered, true);
        for rid in &up.rids {
            line!(out, "a=rid:{} recv", rid.0);
        }
        if offered.is_simulcast && !up.rids.is_empty() {
            let layers: Vec<&str> = up.rids.iter().map(|rid| &*rid.0).collect();
            line!(out, "a=simulcast:recv {}", layers.join(";"));
        }
    }

    fn write_slot(&self, out: &mut String, offered: &OfferLine, slot: &SlotDescription) {
        let mid = slot.mid.as_str();
        line!(out, "a=sendonly");
        write_codec(out, offered, slot.has_transport_cc);
        self.write_extensions(out, offered, false);
        // A stream per slot: browsers keep the tracks of one stream in lip sync, and what fills two slots has
        // nothing in common. For the same reason each has a canonical name of its own.
        line!(out, "a=msid:slot-{mid} slot-{mid}");
        if let Some(rtx_ssrc) = slot.rtx_ssrc {
            line!(out, "a=ssrc-group:FID {} {}", slot.ssrc, rtx_ssrc);
        }
        for ssrc in [Some(slot.ssrc), slot.rtx_ssrc].into_iter().flatten() {
            line!(out, "a=ssrc:{ssrc} cname:slot-{mid}");
        }
    }

    fn write_extensions(&self, out: &mut String, offered: &OfferLine, is_up: bool) {
        for extension in Extension::ALL {
            let Some(id) = offered.extension(extension, is_up, self.transport_cc) else { continue };
            let direction = match offered.extensions[extension as usize].and_then(|e| e.direction) {
                Some(Direction::SendOnly) => "/recvonly",
                Some(Direction::RecvOnly) => "/sendonly",
                Some(Direction::SendRecv | Direction::Inactive) | None => "",
            };
            line!(out, "a=extmap:{id}{direction} {}", extension.uri());
        }
    }

    fn write_candidates(&self, out: &mut String) {
        for (index, address) in self.candidates.iter().enumerate() {
            // RFC 8445 section 5.1.2.1: host candidates, the caller's order, RTP (and RTCP with it).
            let priority = (126_u32 << 24) | ((u32::from(u16::MAX) - index as u32) << 8) | 255;
            let (ip, port) = (address.ip(), address.port());
            line!(out, "a=candidate:{} 1 udp {priority} {ip} {port} typ host", index + 1);
        }
        // RFC 6544 section 4.2: a lower type preference than UDP has, then the direction, 4 for a passive host
        // candidate. The foundation differs from that of UDP, so that a pair of one does not hold up the other.
        for (index, address) in self.candidates.iter().enumerate() {
            let local = (4 << 13) | (0x1fff - index as u32);
            let priority = (90_u32 << 24) | (local << 8) | 255;
            let (ip, port, foundation) = (address.ip(), address.port(), self.candidates.len() + index + 1);
            line!(out, "a=candidate:{foundation} 1 tcp {priority} {ip} {port} typ host tcptype passive");
        }
        line!(out, "a=end-of-candidates");
    }

    /// The default candidate is the preferred one (RFC 8839 section 4.2.1.2); 9 is "none" (RFC 8840).
    fn port(&self) -> u16 {
        self.candidates.first().map_or(9, SocketAddr::port)
    }

    fn write_connection(&self, out: &mut String) {
        match self.candidates.first().map(SocketAddr::ip) {
            Some(ip @ std::net::IpAddr::V4(_)) => line!(out, "c=IN IP4 {ip}"),
            Some(ip @ std::net::IpAddr::V6(_)) => line!(out, "c=IN IP6 {ip}"),
            None => line!(out, "c=IN IP4 0.0.0.0"),
        }
    }
}

impl AnswerLine<'_> {
    fn is_accepted(&self) -> bool {
        !matches!(self.role, Role::Rejected)
    }

    fn payload_types(&self) -> String {
        match (self.offered.codec, &self.role) {
            // In the client's order: it sends what stands first.
            (
                Some(OfferCodec { payload_type, red_payload_type: Some(red), prefers_red, .. }),
                Role::Up(_),
            ) => match prefers_red {
                true => format!("{red} {payload_type}"),
                false => format!("{payload_type} {red}"),
            },
            (Some(OfferCodec { payload_type, rtx_payload_type: Some(rtx), .. }), _) => {
                format!("{payload_type} {rtx}")
            }
            (Some(OfferCodec { payload_type, .. }), _) => payload_type.to_string(),
            (None, _) => self.offered.first_format.to_string(),
        }
    }

    fn write_codec(&self, out: &mut String, transport_cc: bool) {
        write_codec(out, self.offered, transport_cc);
    }

    fn write_rejected(&self, out: &mut String) {
        let offered = self.offered;
        line!(out, "m={} 0 {} {}", offered.media_token, offered.protocol, offered.first_format);
        line!(out, "c=IN IP4 0.0.0.0");
        line!(out, "a=mid:{}", offered.mid.as_str());
        line!(out, "a=inactive");
    }
}

fn write_codec(out: &mut String, offered: &OfferLine, transport_cc: bool) {
    let Some(codec) = offered.codec else { return };
    let payload_type = codec.payload_type;
    if offered.media == MediaType::Audio {
        line!(out, "a=rtpmap:{payload_type} opus/48000/2");
        line!(
            out,
            "a=fmtp:{payload_type} minptime=10;useinbandfec=1;stereo=0;maxaveragebitrate={OPUS_BITRATE_BPS}"
        );
    } else {
        line!(out, "a=rtpmap:{payload_type} VP8/90000");
        if let Some(rtx) = codec.rtx_payload_type {
            line!(out, "a=rtpmap:{rtx} rtx/90000");
            line!(out, "a=fmtp:{rtx} apt={payload_type}");
        }
    }
    for (feedback, name) in Feedback::KNOWN {
        let is_understood = match offered.media {
            // What is lost of a voice is concealed or repaired in band.
            MediaType::Audio => feedback == Feedback::TRANSPORT_CC,
            MediaType::Video | MediaType::Other => true,
        };
        let is_wanted = is_understood && (feedback != Feedback::TRANSPORT_CC || transport_cc);
        if is_wanted && codec.feedback.contains(feedback) {
            line!(out, "a=rtcp-fb:{payload_type} {name}");
        }
    }
}

/// How lost sound may come again: when asked for (RFC 4585 section 6.2.1), and as copies in later packets (RFC 2198).
/// No browser offers the former; Chromium and Firefox do it nevertheless when they are answered so.
fn write_sound_repair(out: &mut String, offered: &OfferLine) {
    let Some(codec) = offered.codec else { return };
    let payload_type = codec.payload_type;
    line!(out, "a=rtcp-fb:{payload_type} nack");
    if let Some(red) = codec.red_payload_type {
        line!(out, "a=rtpmap:{red} red/48000/2");
        line!(out, "a=fmtp:{red} {payload_type}/{payload_type}");
    }
}

/// A fingerprint as RFC 8122 section 5 writes it.
struct Hex(Fingerprint);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}
