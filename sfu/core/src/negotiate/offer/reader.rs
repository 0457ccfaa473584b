//! The lines of an offer one after another, and what each m-section has said by its end. Every attribute costs O(1), whatever came
//! before it.

use super::{
    Direction, Extension, Feedback, LAYERS_MAX, LINES_MAX, MediaType, Offer, OfferCodec, OfferExtension,
    OfferLine,
};
use crate::negotiate::{Fingerprint, IceCredentials, NegotiateError, Rid};
use asamblea_seam::Mid;
use smallvec::SmallVec;

/// Longest m-line token that is mirrored into an answer ("UDP/DTLS/SCTP", "webrtc-datachannel"), in bytes.
const TOKEN_BYTES_MAX: usize = 32;

/// A payload type has seven bits (RFC 3550 section 5.1).
const PAYLOAD_TYPES: usize = 128;

/// Reads an offer line by line.
///
/// # Errors
/// The first thing found that an answer cannot be made for.
pub(super) fn read(sdp: &str) -> Result<Offer, NegotiateError> {
    let mut reader = Reader::default();
    for (index, line) in sdp.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        if index == 0 && line != "v=0" {
            return Err(NegotiateError::Syntax);
        }
        let Some((kind, value)) = line.split_once('=') else { return Err(NegotiateError::Syntax) };
        match kind {
            "m" => reader.handle_media(value)?,
            "a" => reader.handle_attribute(value)?,
            _ if kind.len() == 1 => {} // nothing in the other lines matters to an answer
            _ => return Err(NegotiateError::Syntax),
        }
    }
    reader.finish()
}

/// Attributes that may stand at session level or in an m-section.
#[derive(Default)]
struct Common {
    ufrag: Option<Box<str>>,
    pwd: Option<Box<str>>,
    fingerprint: Option<Fingerprint>,
    /// `Some(true)`: the client can be the DTLS client.
    may_be_dtls_client: Option<bool>,
    direction: Option<Direction>,
}

#[derive(Default)]
struct Reader {
    session: Common,
    sections: Vec<Section>,
    /// The mids of the BUNDLE group.
    bundle: Vec<Mid>,
}

/// What one m-section has said so far. Tables are indexed by payload type, so that every attribute costs O(1)
/// whatever came before it.
struct Section {
    common: Common,
    media: MediaType,
    media_token: Box<str>,
    protocol: Box<str>,
    first_format: Box<str>,
    is_port_zero: bool,
    is_known_transport: bool,
    payload_types: SmallVec<[u8; 32]>,
    mid: Option<Mid>,
    is_bundle_only: bool,
    rtcp_mux: bool,
    reduced_size_rtcp: bool,
    codecs: [Codec; PAYLOAD_TYPES],
    /// For retransmissions and copies: the payload type they repair; a number above 127 for none.
    repairs: [u8; PAYLOAD_TYPES],
    feedback: [Feedback; PAYLOAD_TYPES],
    feedback_of_all: Feedback,
    extensions: [Option<OfferExtension>; Extension::ALL.len()],
    /// Those of `a=rid` lines, in order; one more than is accepted tells "too many".
    rids: SmallVec<[Rid; LAYERS_MAX]>,
    simulcast: Option<SmallVec<[Rid; LAYERS_MAX]>>,
    ssrcs: SmallVec<[u32; SSRCS_MAX]>,
    repair_groups: SmallVec<[(u32, u32); LAYERS_MAX]>,
}

/// Most SSRCs that are kept for a line: each layer and its retransmissions.
const SSRCS_MAX: usize = LAYERS_MAX * 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Codec {
    None,
    Opus,
    Vp8,
    Rtx,
    Red,
}

impl Reader {
    fn handle_media(&mut self, value: &str) -> Result<(), NegotiateError> {
        if self.sections.len() == LINES_MAX {
            return Err(NegotiateError::TooManyLines);
        }
        let mut words = value.split(' ');
        let mut token = || words.next().filter(|w| is_mirrorable(w)).ok_or(NegotiateError::Syntax);
        let (media_token, port, protocol, first_format) = (token()?, token()?, token()?, token()?);
        // A port may be followed by a count, which means nothing here (RFC 8866 section 5.14).
        let port: u16 = number(port.split('/').next().unwrap_or(port))?;
        let media = match media_token {
            "audio" => MediaType::Audio,
            "video" => MediaType::Video,
            _ => MediaType::Other,
        };
        let mut payload_types = SmallVec::new();
        if media != MediaType::Other {
            for word in std::iter::once(first_format).chain(words) {
                if payload_types.len() == PAYLOAD_TYPES {
                    return Err(NegotiateError::Syntax);
                }
                payload_types.push(payload_type(word)?);
            }
        }
        self.sections.push(Section {
            common: Common::default(),
            media,
            media_token: media_token.into(),
            protocol: protocol.into(),
            first_format: first_format.into(),
            is_port_zero: port == 0,
            is_known_transport: protocol == "UDP/TLS/RTP/SAVPF",
            payload_types,
            mid: None,
            is_bundle_only: false,
            rtcp_mux: false,
            reduced_size_rtcp: false,
            codecs: [Codec::None; PAYLOAD_TYPES],
            repairs: [u8::MAX; PAYLOAD_TYPES],
            feedback: [Feedback::default(); PAYLOAD_TYPES],
            feedback_of_all: Feedback::default(),
            extensions: Default::default(),
            rids: SmallVec::new(),
            simulcast: None,
            ssrcs: SmallVec::new(),
            repair_groups: SmallVec::new(),
        });
        Ok(())
    }

    fn handle_attribute(&mut self, attribute: &str) -> Result<(), NegotiateError> {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        let common = self.sections.last_mut().map_or(&mut self.session, |s| &mut s.common);
        if common.handle(name, value)? {
            return Ok(());
        }
        match self.sections.last_mut() {
            Some(section) => section.handle(name, value),
            None if name == "group" => self.handle_group(value),
            None if name == "ice-lite" => Err(NegotiateError::RemoteIceLite),
            None => Ok(()),
        }
    }

    fn handle_group(&mut self, value: &str) -> Result<(), NegotiateError> {
        let Some(mids) = value.strip_prefix("BUNDLE ") else { return Ok(()) };
        if !self.bundle.is_empty() {
            return Err(NegotiateError::NotBundled); // two transports
        }
        for mid in mids.split(' ').filter(|m| !m.is_empty()) {
            if self.bundle.len() == LINES_MAX {
                return Err(NegotiateError::TooManyLines);
            }
            self.bundle.push(Mid::new(mid).map_err(|_| NegotiateError::Mid)?);
        }
        self.bundle.sort();
        Ok(())
    }

    fn finish(self) -> Result<Offer, NegotiateError> {
        let Reader { session, sections, bundle } = self;
        let mut remote = session;
        let mut lines = Vec::with_capacity(sections.len());
        let mut mids = Vec::with_capacity(sections.len());
        let mut is_first_usable = true;
        for section in sections {
            let mid = section.mid.clone().ok_or(NegotiateError::Mid)?;
            mids.push(mid.clone());
            let is_usable = (!section.is_port_zero || section.is_bundle_only)
                && section.is_known_transport
                && section.media != MediaType::Other;
            if is_usable {
                if bundle.binary_search(&mid).is_err() {
                    return Err(NegotiateError::NotBundled);
                }
                // Bundled lines after the first may leave out what is the same for all (RFC 8843 section 7.1.3).
                if is_first_usable && !section.rtcp_mux {
                    return Err(NegotiateError::NoRtcpMux);
                }
                is_first_usable = false;
                remote.merge(&section.common)?;
            }
            lines.push(section.finish(mid, is_usable, remote.direction));
        }
        mids.sort();
        if mids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NegotiateError::Mid);
        }
        if is_first_usable {
            return Err(NegotiateError::NoMedia);
        }
        match remote.may_be_dtls_client {
            Some(true) => {}
            Some(false) | None => return Err(NegotiateError::Setup),
        }
        let (Some(ufrag), Some(pwd)) = (remote.ufrag, remote.pwd) else { return Err(NegotiateError::Ice) };
        Ok(Offer {
            remote_ice: IceCredentials { ufrag: ufrag.into(), pwd: pwd.into() },
            fingerprint: remote.fingerprint.ok_or(NegotiateError::Fingerprint)?,
            lines,
        })
    }
}

impl Common {
    /// Takes an attribute if it is one of these.
    fn handle(&mut self, name: &str, value: &str) -> Result<bool, NegotiateError> {
        match name {
            "ice-ufrag" => {
                once(&mut self.ufrag, ice_text(value, 4).ok_or(NegotiateError::Ice)?)?;
            }
            "ice-pwd" => {
                once(&mut self.pwd, ice_text(value, 22).ok_or(NegotiateError::Ice)?)?;
            }
            "fingerprint" => {
                // Others may stand beside the SHA-256 one (RFC 8122 section 5).
                let (algorithm, bytes) = value.split_once(' ').ok_or(NegotiateError::Fingerprint)?;
                if algorithm.eq_ignore_ascii_case("sha-256") {
                    let fingerprint = fingerprint(bytes).ok_or(NegotiateError::Fingerprint)?;
                    once(&mut self.fingerprint, fingerprint)?;
                }
            }
            "setup" => once(&mut self.may_be_dtls_client, matches!(value, "actpass" | "active"))?,
            _ => match Direction::parse(name) {
                Some(direction) => self.direction = Some(direction),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// All bundled lines share one transport, so what several of them say has to be the same.
    fn merge(&mut self, other: &Common) -> Result<(), NegotiateError> {
        fn same<T: Clone + PartialEq>(
            mine: &mut Option<T>,
            theirs: &Option<T>,
        ) -> Result<(), NegotiateError> {
            theirs.clone().map_or(Ok(()), |theirs| once(mine, theirs))
        }
        same(&mut self.ufrag, &other.ufrag)?;
        same(&mut self.pwd, &other.pwd)?;
        same(&mut self.fingerprint, &other.fingerprint)?;
        same(&mut self.may_be_dtls_client, &other.may_be_dtls_client)
    }
}

impl Section {
    fn handle(&mut self, name: &str, value: &str) -> Result<(), NegotiateError> {
        match name {
            "mid" => once(&mut self.mid, Mid::new(value).map_err(|_| NegotiateError::Mid)?)?,
            "bundle-only" => self.is_bundle_only = true,
            "rtcp-mux" => self.rtcp_mux = true,
            "rtcp-rsize" => self.reduced_size_rtcp = true,
            "extmap" => self.handle_extension(value)?,
            "rtpmap" if self.media != MediaType::Other => self.handle_codec(value)?,
            "fmtp" if self.media != MediaType::Other => self.handle_format(value)?,
            "rtcp-fb" if self.media != MediaType::Other => self.handle_feedback(value)?,
            "rid" => self.handle_rid(value)?,
            "simulcast" => self.handle_simulcast(value)?,
            "ssrc" => self.handle_ssrc(value)?,
            "ssrc-group" => self.handle_ssrc_group(value)?,
            _ => {}
        }
        Ok(())
    }

    fn handle_codec(&mut self, value: &str) -> Result<(), NegotiateError> {
        let (payload_type, codec) = numbered(value)?;
        // At most three parts, of which the clock rate tells the codec's variants apart.
        let codec = match codec {
            c if c.eq_ignore_ascii_case("opus/48000/2") => Codec::Opus,
            c if c.eq_ignore_ascii_case("VP8/90000") => Codec::Vp8,
            c if c.eq_ignore_ascii_case("rtx/90000") => Codec::Rtx,
            c if c.eq_ignore_ascii_case("red/48000/2") => Codec::Red,
            _ => Codec::None,
        };
        self.codecs[usize::from(payload_type)] = codec;
        Ok(())
    }

    fn handle_format(&mut self, value: &str) -> Result<(), NegotiateError> {
        let (payload_type, parameters) = numbered(value)?;
        for parameter in parameters.split(';') {
            if let Some(repaired) = parameter.trim().strip_prefix("apt=") {
                self.repairs[usize::from(payload_type)] = self::payload_type(repaired)?;
            }
        }
        // Redundant audio lists its blocks' payload types (RFC 2198 section 5); of one codec they are all the same.
        let mut blocks = parameters.trim().split('/').map(self::payload_type);
        if parameters.contains('/')
            && let Some(Ok(first)) = blocks.next()
            && blocks.all(|block| block == Ok(first))
        {
            self.repairs[usize::from(payload_type)] = first;
        }
        Ok(())
    }

    fn handle_feedback(&mut self, value: &str) -> Result<(), NegotiateError> {
        let of_all = value.strip_prefix("* ");
        let (feedback, name) = match of_all {
            Some(name) => (&mut self.feedback_of_all, name),
            None => {
                let (payload_type, name) = numbered(value)?;
                (&mut self.feedback[usize::from(payload_type)], name)
            }
        };
        *feedback = feedback.union(Feedback::named(name));
        Ok(())
    }

    fn handle_extension(&mut self, value: &str) -> Result<(), NegotiateError> {
        let mut words = value.split(' ');
        let (Some(number_and_direction), Some(uri)) = (words.next(), words.next()) else {
            return Err(NegotiateError::Syntax);
        };
        let (id, direction) = match number_and_direction.split_once('/') {
            Some((id, direction)) => (id, Some(Direction::parse(direction).ok_or(NegotiateError::Syntax)?)),
            None => (number_and_direction, None),
        };
        let id: u16 = number(id)?;
        let Some(index) = Extension::ALL.iter().position(|e| e.uri() == uri) else { return Ok(()) };
        // Only the one-byte form is written (RFC 8285 section 4.2): 15 and above do not exist there.
        if (1..=14).contains(&id) {
            if self.extensions[index].is_some() {
                return Err(NegotiateError::Extensions);
            }
            self.extensions[index] = Some(OfferExtension { id: id as u8, direction });
        }
        Ok(())
    }

    fn handle_rid(&mut self, value: &str) -> Result<(), NegotiateError> {
        let mut words = value.split(' ');
        let rid = words.next().and_then(Rid::new).ok_or(NegotiateError::Rid)?;
        if words.next() == Some("send") && self.rids.len() < LAYERS_MAX {
            if self.rids.contains(&rid) {
                return Err(NegotiateError::Rid);
            }
            self.rids.push(rid);
        }
        Ok(())
    }

    fn handle_simulcast(&mut self, value: &str) -> Result<(), NegotiateError> {
        let mut words = value.split(' ').filter(|w| !w.is_empty());
        while let (Some(direction), Some(streams)) = (words.next(), words.next()) {
            if direction != "send" {
                continue;
            }
            let mut layers = SmallVec::<[Rid; LAYERS_MAX]>::new();
            for stream in streams.split(';').take(LAYERS_MAX) {
                // The first of the alternatives, paused or not (RFC 8853 section 5.1).
                let rid = stream.split(',').next().unwrap_or(stream).trim_start_matches('~');
                let rid = Rid::new(rid).ok_or(NegotiateError::Rid)?;
                if layers.contains(&rid) {
                    return Err(NegotiateError::Rid);
                }
                layers.push(rid);
            }
            once(&mut self.simulcast, layers)?;
        }
        Ok(())
    }

    fn handle_ssrc(&mut self, value: &str) -> Result<(), NegotiateError> {
        let ssrc: u32 = number(value.split(' ').next().unwrap_or(value))?;
        if self.ssrcs.len() < SSRCS_MAX && !self.ssrcs.contains(&ssrc) {
            self.ssrcs.push(ssrc);
        }
        Ok(())
    }

    fn handle_ssrc_group(&mut self, value: &str) -> Result<(), NegotiateError> {
        let mut words = value.split(' ');
        if words.next() != Some("FID") || self.repair_groups.len() == LAYERS_MAX {
            return Ok(());
        }
        let (Some(primary), Some(repair), None) = (words.next(), words.next(), words.next()) else {
            return Err(NegotiateError::Syntax);
        };
        self.repair_groups.push((number(primary)?, number(repair)?));
        Ok(())
    }

    fn finish(self, mid: Mid, is_usable: bool, default_direction: Option<Direction>) -> OfferLine {
        // sendrecv is the default (RFC 8866 section 6.7).
        let direction = self.common.direction.or(default_direction).unwrap_or(Direction::SendRecv);
        let codec = self.codec();
        let ssrcs = self
            .ssrcs
            .iter()
            .filter(|ssrc| !self.repair_groups.iter().any(|(_, repair)| repair == *ssrc))
            .take(LAYERS_MAX)
            .map(|ssrc| {
                (
                    *ssrc,
                    self.repair_groups.iter().find(|(primary, _)| primary == ssrc).map(|(_, repair)| *repair),
                )
            })
            .collect();
        let is_simulcast = self.simulcast.is_some();
        // A layer that simulcast names but no `a=rid` line describes does not exist (RFC 8853 section 5.2).
        let rids = match self.simulcast {
            Some(layers) => layers.into_iter().filter(|rid| self.rids.contains(rid)).collect(),
            None => self.rids,
        };
        OfferLine {
            mid,
            media: self.media,
            media_token: self.media_token,
            protocol: self.protocol,
            first_format: self.first_format,
            is_usable,
            sends: direction.sends(),
            receives: direction.receives(),
            codec,
            extensions: self.extensions,
            rids,
            is_simulcast,
            reduced_size_rtcp: self.reduced_size_rtcp,
            ssrcs,
        }
    }

    fn codec(&self) -> Option<OfferCodec> {
        let wanted = match self.media {
            MediaType::Audio => Codec::Opus,
            MediaType::Video => Codec::Vp8,
            MediaType::Other => return None,
        };
        let is = |payload_type: u8, codec| self.codecs[usize::from(payload_type)] == codec;
        let payload_type = self.payload_types.iter().copied().find(|p| is(*p, wanted))?;
        let repairs = |p: &u8| is(*p, Codec::Rtx) && self.repairs[usize::from(*p)] == payload_type;
        let copies = |p: &u8| is(*p, Codec::Red) && self.repairs[usize::from(*p)] == payload_type;
        let place = |wanted: Option<u8>| self.payload_types.iter().position(|p| Some(*p) == wanted);
        let red_payload_type = self.payload_types.iter().copied().find(copies);
        Some(OfferCodec {
            payload_type,
            rtx_payload_type: self.payload_types.iter().copied().find(repairs),
            red_payload_type,
            prefers_red: red_payload_type.is_some() && place(red_payload_type) < place(Some(payload_type)),
            feedback: self.feedback[usize::from(payload_type)].union(self.feedback_of_all),
        })
    }
}

/// Sets what may be said repeatedly but not differently.
fn once<T: PartialEq>(place: &mut Option<T>, value: T) -> Result<(), NegotiateError> {
    match place {
        Some(earlier) if *earlier != value => Err(NegotiateError::Inconsistent),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, NegotiateError> {
    // `from_str` takes a plus sign, SDP does not.
    if text.starts_with('+') {
        return Err(NegotiateError::Syntax);
    }
    text.parse().map_err(|_| NegotiateError::Syntax)
}

fn payload_type(text: &str) -> Result<u8, NegotiateError> {
    number::<u8>(text).and_then(|p| if p < 128 { Ok(p) } else { Err(NegotiateError::Syntax) })
}

/// Splits "PT rest".
fn numbered(value: &str) -> Result<(u8, &str), NegotiateError> {
    let (number, rest) = value.split_once(' ').ok_or(NegotiateError::Syntax)?;
    Ok((payload_type(number)?, rest))
}

/// RFC 8839 section 5.4: letters, digits, plus and slash, at most 256.
fn ice_text(value: &str, bytes_min: usize) -> Option<Box<str>> {
    let is_ice_char = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    ((bytes_min..=256).contains(&value.len()) && value.bytes().all(is_ice_char)).then(|| value.into())
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Fingerprint(bytes))
}

/// Whether a word of an m-line may stand in an answer.
fn is_mirrorable(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= TOKEN_BYTES_MAX
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._+".contains(&b))
}
