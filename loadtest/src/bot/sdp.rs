//! Session descriptions (RFC 8866), as little of them as a bot needs: it writes its own offers and answers and reads
//! what servers say of ICE, DTLS, codecs and header extensions. Candidates that are no UDP host candidates of the
//! server's own address are not read: a bot never sends anywhere else.

use crate::traffic::Kind;
use anyhow::{Context, bail, ensure};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Longest description that is read, in bytes, and most lines of media in it: some hundred receiving lines of a
/// few hundred bytes.
const SDP_BYTES_MAX: usize = 1 << 20;
const LINES_MAX: usize = 1_024;

/// Payload types of a bot's offers: those that Chromium has.
pub(crate) const OPUS: u8 = 111;
pub(crate) const VP8: u8 = 96;
pub(crate) const RTX: u8 = 97;

/// Names of simulcast layers, smallest first.
pub(crate) const RIDS: [&str; 3] = ["q", "h", "f"];

/// The header extensions that a bot writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    TransportCc,
}

impl Extension {
    pub(crate) const ALL: [Extension; 5] =
        [Self::Mid, Self::Rid, Self::RepairedRid, Self::AudioLevel, Self::TransportCc];

    fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        }
    }
}

/// What a description says for the whole bundle (RFC 8843).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    /// SHA-256 of the certificate (RFC 8122).
    pub(crate) fingerprint: [u8; 32],
}

/// One of a bot's own lines.
#[derive(Clone, Debug)]
pub(crate) struct OwnLine {
    pub(crate) mid: String,
    pub(crate) kind: Kind,
    /// SSRCs of media and repair of each layer it sends, smallest first; none where it receives.
    pub(crate) sends: Vec<(u32, u32)>,
}

/// Which parts a bot offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// Feedback on transport-wide numbers.
    pub(crate) feedback: bool,
    /// Requests for missing packets (RFC 4585 section 6.2.1) and repair (RFC 4588).
    pub(crate) repair: bool,
}

/// A server's offer or answer.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) credentials: Credentials,
    pub(crate) candidates: Vec<SocketAddr>,
    /// Candidates of other addresses or transports, which are not used.
    pub(crate) candidates_left_out: usize,
    pub(crate) is_ice_lite: bool,
    /// Whether RTCP may come without a report in front of it (RFC 5506 section 5): every line says so.
    pub(crate) is_reduced_size: bool,
    /// Whether the other end begins the DTLS handshake (`a=setup:active`, RFC 8842): Janus' answers do.
    pub(crate) is_dtls_client: bool,
    pub(crate) lines: Vec<Line>,
}

/// One line of a server's description.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) mid: String,
    pub(crate) kind: Option<Kind>,
    /// As in the m-line, to be mirrored where it is refused.
    pub(crate) media: String,
    pub(crate) protocol: String,
    pub(crate) is_rejected: bool,
    pub(crate) sends: bool,
    /// Payload types of Opus or VP8 and of its repair.
    pub(crate) payload_type: Option<u8>,
    pub(crate) repair_payload_type: Option<u8>,
    pub(crate) feedback: Vec<String>,
    pub(crate) extensions: [Option<u8>; Extension::ALL.len()],
}

macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        write!($out, $($arg)*).expect("writing to a String never fails");
        $out.push_str("\r\n");
    }};
}

/// The head that offers and answers share.
fn write_head<'a>(out: &mut String, version: u32, mids: impl Iterator<Item = &'a str>) {
    line!(out, "v=0");
    line!(out, "o=- 4611686018427387904 {version} IN IP4 127.0.0.1");
    line!(out, "s=-");
    line!(out, "t=0 0");
    out.push_str("a=group:BUNDLE");
    for mid in mids {
        out.push(' ');
        out.push_str(mid);
    }
    out.push_str("\r\n");
    line!(out, "a=extmap-allow-mixed");
    line!(out, "a=msid-semantic: WMS");
}

fn write_transport(out: &mut String, own: &Credentials, setup: &str, is_reduced_size: bool) {
    line!(out, "c=IN IP4 0.0.0.0");
    line!(out, "a=ice-ufrag:{}", own.ufrag);
    line!(out, "a=ice-pwd:{}", own.pwd);
    let hex: Vec<String> = own.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    line!(out, "a=fingerprint:sha-256 {}", hex.join(":"));
    line!(out, "a=setup:{setup}");
    line!(out, "a=rtcp-mux");
    if is_reduced_size {
        line!(out, "a=rtcp-rsize");
    }
}

/// An offer with these lines.
pub(crate) fn write_offer(own: &Credentials, version: u32, lines: &[OwnLine], features: Features) -> String {
    let mut text = String::new();
    let out = &mut text;
    write_head(out, version, lines.iter().map(|line| line.mid.as_str()));
    for own_line in lines {
        let is_video = own_line.kind == Kind::Video;
        match is_video {
            true if features.repair => line!(out, "m=video 9 UDP/TLS/RTP/SAVPF {VP8} {RTX}"),
            true => line!(out, "m=video 9 UDP/TLS/RTP/SAVPF {VP8}"),
            false => line!(out, "m=audio 9 UDP/TLS/RTP/SAVPF {OPUS}"),
        }
        write_transport(out, own, "actpass", true);
        line!(out, "a=mid:{}", own_line.mid);
        for (index, extension) in Extension::ALL.into_iter().enumerate() {
            let is_left_out = match extension {
                Extension::Rid | Extension::RepairedRid => !is_video,
                Extension::AudioLevel => is_video,
                Extension::TransportCc => !features.feedback,
                Extension::Mid => false,
            };
            if !is_left_out {
                line!(out, "a=extmap:{} {}", index + 1, extension.uri());
            }
        }
        line!(out, "a={}", if own_line.sends.is_empty() { "recvonly" } else { "sendonly" });
        let media = if is_video { VP8 } else { OPUS };
        if is_video {
            line!(out, "a=rtpmap:{VP8} VP8/90000");
            for feedback in ["nack pli", "ccm fir"] {
                line!(out, "a=rtcp-fb:{VP8} {feedback}");
            }
            if features.repair {
                line!(out, "a=rtcp-fb:{VP8} nack");
                line!(out, "a=rtpmap:{RTX} rtx/90000");
                line!(out, "a=fmtp:{RTX} apt={VP8}");
            }
        } else {
            line!(out, "a=rtpmap:{OPUS} opus/48000/2");
            line!(out, "a=fmtp:{OPUS} minptime=10;useinbandfec=1");
        }
        if features.feedback {
            line!(out, "a=rtcp-fb:{media} transport-cc");
        }
        write_sources(out, own_line, features);
    }
    text
}

fn write_sources(out: &mut String, own_line: &OwnLine, features: Features) {
    let mid = &own_line.mid;
    if own_line.sends.is_empty() {
        return;
    }
    line!(out, "a=msid:bot bot-{mid}");
    if own_line.sends.len() > 1 {
        let rids = &RIDS[..own_line.sends.len()];
        for rid in rids {
            line!(out, "a=rid:{rid} send");
        }
        line!(out, "a=simulcast:send {}", rids.join(";"));
        return; // told apart by rid, as browsers do
    }
    for (ssrc, repair) in &own_line.sends {
        if own_line.kind == Kind::Video && features.repair {
            line!(out, "a=ssrc-group:FID {ssrc} {repair}");
            line!(out, "a=ssrc:{repair} cname:bot");
        }
        line!(out, "a=ssrc:{ssrc} cname:bot");
    }
}

/// An answer that takes everything the server sends, and nothing else.
pub(crate) fn write_answer(own: &Credentials, version: u32, offer: &Description) -> String {
    let mut text = String::new();
    let out = &mut text;
    let taken = |line: &&Line| line.is_taken();
    write_head(out, version, offer.lines.iter().filter(taken).map(|line| line.mid.as_str()));
    for line in &offer.lines {
        let Some(payload_type) = line.payload_type.filter(|_| line.is_taken()) else {
            line!(out, "m={} 0 {} 0", line.media, line.protocol);
            line!(out, "c=IN IP4 0.0.0.0");
            line!(out, "a=mid:{}", line.mid);
            line!(out, "a=inactive");
            continue;
        };
        let repair = line.repair_payload_type;
        let formats = repair.map_or(payload_type.to_string(), |repair| format!("{payload_type} {repair}"));
        line!(out, "m={} 9 {} {formats}", line.media, line.protocol);
        write_transport(out, own, "active", offer.is_reduced_size);
        line!(out, "a=mid:{}", line.mid);
        line!(out, "a=recvonly");
        for (extension, id) in Extension::ALL.into_iter().zip(line.extensions) {
            if let Some(id) = id {
                line!(out, "a=extmap:{id} {}", extension.uri());
            }
        }
        let codec = if line.kind == Some(Kind::Video) { "VP8/90000" } else { "opus/48000/2" };
        line!(out, "a=rtpmap:{payload_type} {codec}");
        for feedback in &line.feedback {
            line!(out, "a=rtcp-fb:{payload_type} {feedback}");
        }
        if let Some(repair) = repair {
            line!(out, "a=rtpmap:{repair} rtx/90000");
            line!(out, "a=fmtp:{repair} apt={payload_type}");
        }
    }
    text
}

impl Description {
    /// Leaves out what a bot does not want of a server's offer.
    pub(crate) fn restrict(&mut self, features: Features) {
        for line in self.lines.iter_mut().filter(|_| !features.repair) {
            line.repair_payload_type = None;
            line.feedback.retain(|name| name != "nack");
        }
    }
}

impl Line {
    fn is_taken(&self) -> bool {
        !self.is_rejected && self.sends && self.payload_type.is_some()
    }

    /// The number of an extension on this line.
    pub(crate) fn extension(&self, extension: Extension) -> Option<u8> {
        self.extensions[extension as usize]
    }
}

/// What is read of a line before it is known which codec it has.
#[derive(Default)]
struct Formats {
    codecs: Vec<(u8, String)>,
    repairs: Vec<(u8, u8)>,
    feedback: Vec<(String, String)>,
}

/// Reads a server's description; of its candidates those that are UDP at `server`.
pub(crate) fn read(sdp: &str, server: IpAddr) -> anyhow::Result<Description> {
    ensure!(sdp.len() <= SDP_BYTES_MAX, "a session description of {} bytes is too long", sdp.len());
    let (mut ufrag, mut pwd, mut fingerprint) = (None, None, None);
    let (mut is_ice_lite, mut is_dtls_client) = (false, false);
    let (mut candidates, mut candidates_left_out) = (Vec::new(), 0);
    let mut lines: Vec<(Line, Formats)> = Vec::new();
    let mut reduced_size_lines = 0;
    for text in sdp.lines() {
        if let Some(media) = text.strip_prefix("m=") {
            ensure!(lines.len() < LINES_MAX, "more than {LINES_MAX} m-lines");
            lines.push((read_media(media)?, Formats::default()));
            continue;
        }
        let Some(attribute) = text.strip_prefix("a=") else { continue };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "ice-ufrag" => ufrag = Some(value.to_owned()),
            "ice-pwd" => pwd = Some(value.to_owned()),
            "ice-lite" => is_ice_lite = true,
            "rtcp-rsize" => reduced_size_lines += 1,
            "setup" => is_dtls_client = value == "active",
            "fingerprint" => fingerprint = read_fingerprint(value).or(fingerprint),
            "candidate" => match read_candidate(value, server) {
                Some(candidate) if !candidates.contains(&candidate) => candidates.push(candidate),
                Some(_) => {}
                None => candidates_left_out += 1,
            },
            _ => {
                if let Some((line, formats)) = lines.last_mut() {
                    read_attribute(line, formats, name, value);
                }
            }
        }
    }
    let lines: Vec<Line> = lines.into_iter().map(|(line, formats)| with_codec(line, formats)).collect();
    let is_reduced_size =
        reduced_size_lines >= lines.iter().filter(|line| line.kind.is_some() && !line.is_rejected).count();
    let credentials = Credentials {
        ufrag: ufrag.context("no ice-ufrag")?,
        pwd: pwd.context("no ice-pwd")?,
        fingerprint: fingerprint.context("no SHA-256 fingerprint")?,
    };
    Ok(Description {
        credentials,
        candidates,
        candidates_left_out,
        is_ice_lite,
        is_reduced_size,
        is_dtls_client,
        lines,
    })
}

fn read_media(value: &str) -> anyhow::Result<Line> {
    let mut words = value.split(' ');
    let (Some(media), Some(port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
        bail!("a malformed m-line");
    };
    let kind = match media {
        "audio" => Some(Kind::Audio),
        "video" => Some(Kind::Video),
        _ => None,
    };
    let (media, protocol, is_rejected) = (media.to_owned(), protocol.to_owned(), port == "0");
    Ok(Line { kind, media, protocol, is_rejected, sends: true, ..Line::default() })
}

fn read_attribute(line: &mut Line, formats: &mut Formats, name: &str, value: &str) {
    let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
    match name {
        "mid" => line.mid = value.to_owned(),
        "recvonly" | "inactive" => line.sends = false,
        "rtpmap" => {
            if let Ok(payload_type) = first.parse() {
                formats.codecs.push((payload_type, rest.to_ascii_lowercase()));
            }
        }
        "fmtp" => {
            let apt = rest.split(';').find_map(|word| word.trim().strip_prefix("apt="));
            if let (Ok(repair), Some(Ok(repaired))) = (first.parse(), apt.map(str::parse)) {
                formats.repairs.push((repair, repaired));
            }
        }
        "rtcp-fb" => formats.feedback.push((first.to_owned(), rest.trim().to_owned())),
        "extmap" => {
            let id = first.split('/').next().and_then(|id| id.parse().ok());
            let uri = rest.split(' ').next().unwrap_or(rest);
            let known = Extension::ALL.into_iter().find(|extension| extension.uri() == uri);
            // One byte headers (RFC 8285 section 4.2) have 4 bits for it, 15 being reserved.
            if let (Some(known), Some(id @ 1..=14)) = (known, id) {
                line.extensions[known as usize] = Some(id);
            }
        }
        _ => {}
    }
}

fn with_codec(mut line: Line, formats: Formats) -> Line {
    let wanted = match line.kind {
        Some(Kind::Audio) => "opus/48000/2",
        Some(Kind::Video) => "vp8/90000",
        None => return line,
    };
    let codec = formats.codecs.iter().find(|(_, name)| name == wanted);
    line.payload_type = codec.map(|(payload_type, _)| *payload_type);
    if let Some(payload_type) = line.payload_type {
        let repair = formats.repairs.iter().find(|(_, repaired)| *repaired == payload_type);
        line.repair_payload_type = repair.map(|(repair, _)| *repair);
        let number = payload_type.to_string();
        line.feedback =
            formats.feedback.into_iter().filter(|(pt, _)| *pt == number || pt == "*").map(|f| f.1).collect();
    }
    line
}

fn read_fingerprint(value: &str) -> Option<[u8; 32]> {
    let (hash, hex) = value.split_once(' ')?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let bytes: Option<Vec<u8>> = hex.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    bytes?.try_into().ok()
}

fn read_candidate(value: &str, server: IpAddr) -> Option<SocketAddr> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let [_, "1", transport, _, ip, port, "typ", "host", ..] = words[..] else { return None };
    let address = SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
    (transport.eq_ignore_ascii_case("udp") && address.ip() == server && address.port() != 0)
        .then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use asamblea_sfu_core::negotiate::Offer;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn credentials() -> Credentials {
        let pwd = "0123456789abcdef0123456789".into();
        Credentials { ufrag: "ufra".into(), pwd, fingerprint: [0xa5; 32] }
    }

    fn lines() -> Vec<OwnLine> {
        let line =
            |mid: &str, kind, sends: &[(u32, u32)]| OwnLine { mid: mid.into(), kind, sends: sends.to_vec() };
        vec![
            line("0", Kind::Audio, &[(1, 2)]),
            line("1", Kind::Video, &[(3, 4), (5, 6), (7, 8)]),
            line("2", Kind::Video, &[(9, 10)]),
            line("3", Kind::Video, &[]),
        ]
    }

    #[test]
    fn the_bridge_reads_an_offer_with_and_without_feedback_and_repair() {
        for (feedback, repair) in [(true, true), (false, true), (true, false), (false, false)] {
            let offer = write_offer(&credentials(), 1, &lines(), Features { feedback, repair });
            Offer::parse(&offer).expect("the bridge takes it");
            let read = read(&offer, SERVER).expect("a bot takes it");
            assert_eq!(read.credentials, credentials());
            assert!(!read.is_dtls_client);
            assert_eq!(read.lines.len(), 4);
            assert_eq!(read.lines[1].payload_type, Some(VP8));
            assert_eq!(read.lines[1].repair_payload_type, repair.then_some(RTX));
            assert_eq!(read.lines[1].feedback.iter().any(|name| name == "nack"), repair);
            assert_eq!(offer.contains("FID"), repair);
            assert_eq!(read.lines[1].extension(Extension::TransportCc).is_some(), feedback);
            assert_eq!(read.lines[1].feedback.iter().any(|name| name == "transport-cc"), feedback);
            assert!(!read.lines[3].sends && read.lines[2].sends);
        }
    }

    #[test]
    fn only_udp_host_candidates_of_the_server_itself_are_used() {
        let mut offer = write_offer(&credentials(), 1, &lines(), Features { feedback: true, repair: true });
        for candidate in [
            "1 1 udp 2 10.0.0.1 4000 typ host",
            "2 1 UDP 2 10.0.0.1 4000 typ host generation 0",
            "3 1 udp 2 192.0.2.1 4000 typ host",
            "4 1 tcp 2 10.0.0.1 4000 typ host tcptype passive",
            "5 1 udp 2 10.0.0.1 4000 typ srflx raddr 0.0.0.0 rport 0",
            "6 2 udp 2 10.0.0.1 4001 typ host",
            "nonsense",
        ] {
            offer.push_str(&format!("a=candidate:{candidate}\r\n"));
        }
        let read = read(&offer, SERVER).unwrap();
        assert_eq!(read.candidates, [SocketAddr::new(SERVER, 4000)]);
        assert_eq!(read.candidates_left_out, 5);
    }

    #[test]
    fn an_answer_takes_what_is_sent_in_the_offers_numbers_and_refuses_the_rest() {
        let mut offer = write_offer(&credentials(), 1, &lines(), Features { feedback: true, repair: true });
        offer = offer.replace("96 97", "100 101").replace(":96 ", ":100 ").replace(":97 ", ":101 ");
        offer = offer.replace("apt=96", "apt=100");
        offer.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:4\r\n");
        let answer = write_answer(&credentials(), 1, &read(&offer, SERVER).unwrap());
        let answer = read(&answer, SERVER).unwrap();
        let taken: Vec<_> = answer.lines.iter().map(|line| (line.is_rejected, line.payload_type)).collect();
        let (audio, video) = ((false, Some(OPUS)), (false, Some(100)));
        assert_eq!(taken, [audio, video, video, (true, None), (true, None)]);
        assert_eq!(answer.lines[1].repair_payload_type, Some(101));
        assert!(answer.lines.iter().all(|line| !line.sends));
        assert!(answer.is_dtls_client);
    }

    #[test]
    fn reduced_size_is_answered_where_every_line_offers_it() {
        let features = Features { feedback: true, repair: true };
        let offer = write_offer(&credentials(), 1, &lines(), features);
        let answer = |offer: &str| write_answer(&credentials(), 1, &read(offer, SERVER).unwrap());
        assert!(read(&offer, SERVER).unwrap().is_reduced_size);
        assert!(answer(&offer).contains("a=rtcp-rsize"));
        let offer = offer.replacen("a=rtcp-rsize\r\n", "", 1);
        assert!(!read(&offer, SERVER).unwrap().is_reduced_size);
        assert!(!answer(&offer).contains("a=rtcp-rsize"));
    }

    #[test]
    fn an_answer_without_repair_leaves_it_out_and_keeps_key_frame_requests() {
        let offer = write_offer(&credentials(), 1, &lines(), Features { feedback: true, repair: true });
        let mut offer = read(&offer, SERVER).unwrap();
        offer.restrict(Features { feedback: true, repair: false });
        let answer = read(&write_answer(&credentials(), 1, &offer), SERVER).unwrap();
        assert_eq!(answer.lines[1].repair_payload_type, None);
        assert_eq!(answer.lines[1].feedback, ["nack pli", "ccm fir", "transport-cc"]);
    }

    #[test]
    fn what_has_no_credentials_is_refused() {
        let offer = write_offer(&credentials(), 1, &lines(), Features { feedback: true, repair: true });
        for name in ["a=ice-ufrag", "a=ice-pwd", "a=fingerprint"] {
            assert!(read(&offer.replace(name, "a=other"), SERVER).is_err(), "{name}");
        }
        assert!(read(&"x".repeat(SDP_BYTES_MAX + 1), SERVER).is_err());
    }
}
