//! What one peer has negotiated, and the decisions behind an answer.

use super::answer::{AnswerLine, AnswerParts, Role};
use super::offer::{Direction, Extension, Feedback, MediaType, Offer, OfferLine};
use super::{
    ExtensionIds, Fingerprint, IceCredentials, MediaDescription, NegotiateError, SlotDescription,
    UpDescription,
};
use asamblea_seam::{Mid, UpKind, UpLine};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Most addresses in an answer, each a candidate over UDP and one over TCP: those of a machine with several networks
/// in both families; browsers check every pair, so more would only slow them down.
pub const CANDIDATES_MAX: usize = 16;

/// What the server says about itself to one peer.
#[derive(Clone, Debug)]
pub struct LocalDescriptionParams {
    /// The server's ICE credentials for this peer.
    pub ice: IceCredentials,
    /// The fingerprint of the server's certificate.
    pub fingerprint: Fingerprint,
    /// Where the server is reached over UDP and TCP, the preferred address first. Unspecified and multicast addresses,
    /// link-local IPv6 ones (which mean nothing without an interface) and port 0 are left out, as is what exceeds
    /// [`CANDIDATES_MAX`].
    pub candidates: Vec<SocketAddr>,
    /// Random; the SSRCs and the session id follow from it.
    pub seed: u64,
    /// Whether transport-wide congestion control feedback is negotiated on lines the client sends on. Only if the
    /// media plane sends it: a browser that negotiated it and hears nothing never raises its rate. Lines the client
    /// receives on never have it, since nothing numbers packets across the transport there.
    pub transport_cc: bool,
}

/// The answer to an offer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The session description for the client.
    pub sdp: String,
    /// The same for the packet path.
    pub description: MediaDescription,
    /// What changed in the client's transport.
    pub change: RemoteChange,
}

/// What an offer means for the transport, compared with the description in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteChange {
    /// There is no description yet.
    First,
    /// The same transport; lines may have been added.
    Same,
    /// New ICE credentials (RFC 8839 section 4.4.1.1.1): the answer needs new local ones as well. SRTP goes on.
    IceRestart,
    /// Another certificate: another peer connection of the same client, which starts over and may have other
    /// lines. The answer needs new local ICE credentials.
    NewTransport,
}

impl RemoteChange {
    /// Whether the answer needs new local ICE credentials.
    pub fn needs_new_credentials(self) -> bool {
        matches!(self, RemoteChange::IceRestart | RemoteChange::NewTransport)
    }
}

/// The negotiation with one peer. Pure: the same offers give the same answers.
///
/// ```text
/// let offer = Offer::parse(sdp)?;
/// if negotiator.change(&offer).needs_new_credentials() {
///     negotiator.restart(new_credentials());
/// }
/// let answer = negotiator.answer(&offer, ups)?;
/// ```
#[derive(Debug)]
pub struct Negotiator {
    local: LocalDescriptionParams,
    /// For the next answer if it answers an ICE restart.
    new_ice: Option<IceCredentials>,
    session_id: u64,
    version: u64,
    random: SplitMix64,
    in_force: Option<InForce>,
}

/// The description in force.
#[derive(Clone, Debug)]
struct InForce {
    remote_ice: IceCredentials,
    fingerprint: Fingerprint,
    extensions: ExtensionIds,
    lines: Vec<Line>,
    sources: BTreeMap<Mid, Sources>,
}

/// What is remembered of a line.
#[derive(Clone, Debug)]
struct Line {
    mid: Mid,
    media: MediaType,
    use_: Option<LineUse>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineUse {
    Up(UpKind),
    Slot,
}

/// The SSRCs of a slot.
#[derive(Clone, Copy, Debug)]
struct Sources {
    media: MediaType,
    ssrc: u32,
    rtx_ssrc: u32,
}

impl Negotiator {
    /// Starts with no description.
    pub fn new(mut local: LocalDescriptionParams) -> Self {
        let mut random = SplitMix64(local.seed);
        local.candidates = offered_candidates(&local.candidates);
        // RFC 8829 section 5.2.1: a 63-bit number.
        Self { local, new_ice: None, session_id: random.next() >> 1, version: 0, random, in_force: None }
    }

    /// Reads and answers an offer in one go. An offer for which [`RemoteChange::needs_new_credentials`] holds needs
    /// [`Negotiator::restart`] before.
    ///
    /// # Errors
    /// As [`Offer::parse`] and [`Negotiator::answer`].
    pub fn handle_offer(&mut self, sdp: &str, ups: &[UpLine]) -> Result<Answer, NegotiateError> {
        let offer = Offer::parse(sdp)?;
        self.answer(&offer, ups)
    }

    /// What an offer would change in the transport.
    pub fn change(&self, offer: &Offer) -> RemoteChange {
        match &self.in_force {
            None => RemoteChange::First,
            Some(in_force) if in_force.fingerprint != offer.fingerprint => RemoteChange::NewTransport,
            Some(in_force) if in_force.remote_ice != offer.remote_ice => RemoteChange::IceRestart,
            Some(_) => RemoteChange::Same,
        }
    }

    /// Hands over new local ICE credentials for the next answer. They are used if that answers an ICE restart or a
    /// new transport, and forgotten otherwise.
    pub fn restart(&mut self, ice: IceCredentials) {
        self.new_ice = Some(ice);
    }

    /// The local ICE credentials of the description in force.
    pub fn local_ice(&self) -> &IceCredentials {
        &self.local.ice
    }

    /// Answers an offer; `ups` says what travels on the lines the client sends on.
    ///
    /// A line that is not in `ups` becomes a slot if the client can receive on it. What cannot carry Opus or VP8 is
    /// rejected with port 0; what has no use is inactive.
    ///
    /// # Errors
    /// Any; the description in force then stays as it is.
    pub fn answer(&mut self, offer: &Offer, ups: &[UpLine]) -> Result<Answer, NegotiateError> {
        let change = self.change(offer);
        let new_ice = self.new_ice.take();
        let local_ice = match (change.needs_new_credentials(), new_ice) {
            (true, Some(ice)) => ice,
            (true, None) => return Err(NegotiateError::NoNewCredentials),
            (false, _) => self.local.ice.clone(),
        };
        let ups = ups_by_mid(ups)?;
        let before = self.in_force.as_ref();
        let continued = if change == RemoteChange::NewTransport { None } else { before };
        let lines = lines(offer, &ups, continued)?;
        let extensions =
            self.extensions(offer, &lines, continued.map(|c| c.extensions).unwrap_or_default())?;

        let mut random = self.random;
        let sources = sources(offer, &lines, before, continued, &mut random);
        let mut description = MediaDescription {
            remote_ice: offer.remote_ice.clone(),
            fingerprint: offer.fingerprint,
            extensions,
            ups: Vec::new(),
            slots: Vec::new(),
        };
        let mut answer_lines = Vec::with_capacity(lines.len());
        for (line, offered) in lines.iter().zip(&offer.lines) {
            let role = role(line, offered, &sources, self.local.transport_cc);
            match &role {
                Role::Up(up) => description.ups.push(up.clone()),
                Role::Slot(slot) => description.slots.push(slot.clone()),
                Role::Inactive | Role::Rejected => {}
            }
            answer_lines.push(AnswerLine { offered, role });
        }
        let sdp = AnswerParts {
            session_id: self.session_id,
            version: self.version,
            ice: &local_ice,
            fingerprint: self.local.fingerprint,
            candidates: &self.local.candidates,
            transport_cc: self.local.transport_cc,
            lines: &answer_lines,
        }
        .write();

        self.version += 1;
        self.random = random;
        self.local.ice = local_ice;
        self.in_force = Some(InForce {
            remote_ice: offer.remote_ice.clone(),
            fingerprint: offer.fingerprint,
            extensions,
            lines,
            sources,
        });
        Ok(Answer { sdp, description, change })
    }

    /// One numbering for all lines and all offers of a transport.
    fn extensions(
        &self,
        offer: &Offer,
        lines: &[Line],
        before: ExtensionIds,
    ) -> Result<ExtensionIds, NegotiateError> {
        let mut ids = Extension::ALL.map(|extension| *id_of(&mut before.clone(), extension));
        for (line, offered) in lines.iter().zip(&offer.lines) {
            let Some(line_use) = line.use_ else { continue };
            let is_up = matches!(line_use, LineUse::Up(_));
            for (index, extension) in Extension::ALL.into_iter().enumerate() {
                let Some(id) = offered.extension(extension, is_up, self.local.transport_cc) else { continue };
                if ids[index].is_some_and(|known| known != id) {
                    return Err(NegotiateError::Extensions);
                }
                ids[index] = Some(id);
            }
        }
        let mut is_taken = [false; 15];
        for id in ids.into_iter().flatten() {
            if std::mem::replace(&mut is_taken[usize::from(id)], true) {
                return Err(NegotiateError::Extensions);
            }
        }
        let mut extensions = ExtensionIds::default();
        for (extension, id) in Extension::ALL.into_iter().zip(ids) {
            *id_of(&mut extensions, extension) = id;
        }
        Ok(extensions)
    }
}

impl OfferLine {
    /// The id of an extension if it is to be used on this line.
    pub(super) fn extension(&self, extension: Extension, is_up: bool, transport_cc: bool) -> Option<u8> {
        let offered = self.extensions[extension as usize]?;
        let direction = offered.direction.unwrap_or(Direction::SendRecv);
        let flows = if is_up { direction.sends() } else { direction.receives() };
        let is_wanted = match extension {
            Extension::Mid | Extension::AbsSendTime => true,
            // A slot carries one stream, known by its SSRC and its mid.
            Extension::Rid | Extension::RepairedRid => is_up && self.media == MediaType::Video,
            Extension::AudioLevel => self.media == MediaType::Audio,
            // Sound that is sent twice has to have the same bytes, and so no number that changes.
            Extension::TransportCc => transport_cc && (is_up || self.media == MediaType::Video),
        };
        (flows && is_wanted).then_some(offered.id)
    }
}

fn id_of(ids: &mut ExtensionIds, extension: Extension) -> &mut Option<u8> {
    match extension {
        Extension::Mid => &mut ids.mid,
        Extension::Rid => &mut ids.rid,
        Extension::RepairedRid => &mut ids.repaired_rid,
        Extension::AudioLevel => &mut ids.audio_level,
        Extension::TransportCc => &mut ids.transport_cc,
        Extension::AbsSendTime => &mut ids.abs_send_time,
    }
}

fn ups_by_mid(ups: &[UpLine]) -> Result<BTreeMap<&Mid, UpKind>, NegotiateError> {
    if ups.len() > UpKind::ALL.len() {
        return Err(NegotiateError::Ups);
    }
    let mut by_mid = BTreeMap::new();
    for up in ups {
        if by_mid.values().any(|kind| *kind == up.kind) || by_mid.insert(&up.mid, up.kind).is_some() {
            return Err(NegotiateError::Ups);
        }
    }
    Ok(by_mid)
}

/// What each line is used for; once it has a use, that stays.
fn lines(
    offer: &Offer,
    ups: &BTreeMap<&Mid, UpKind>,
    before: Option<&InForce>,
) -> Result<Vec<Line>, NegotiateError> {
    let before = before.map_or(&[][..], |b| &b.lines);
    if offer.lines.len() < before.len() {
        return Err(NegotiateError::LineChanged);
    }
    let mut ups_found = 0;
    let mut lines = Vec::with_capacity(offer.lines.len());
    for (index, offered) in offer.lines.iter().enumerate() {
        let up = ups.get(&offered.mid).copied();
        if let Some(kind) = up {
            let media = if kind.is_audio() { MediaType::Audio } else { MediaType::Video };
            if offered.media != media || !offered.sends {
                return Err(NegotiateError::Ups);
            }
            ups_found += 1;
        }
        let use_ = match up {
            _ if !offered.is_usable || offered.codec.is_none() => None,
            Some(kind) => Some(LineUse::Up(kind)),
            None if offered.receives => Some(LineUse::Slot),
            None => None,
        };
        if let Some(line) = before.get(index) {
            let is_same = line.mid == offered.mid
                && line.media == offered.media
                && (line.use_.is_none() || line.use_ == use_);
            if !is_same {
                return Err(NegotiateError::LineChanged);
            }
        }
        lines.push(Line { mid: offered.mid.clone(), media: offered.media, use_ });
    }
    if ups_found != ups.len() {
        return Err(NegotiateError::Ups);
    }
    Ok(lines)
}

/// The SSRCs of every slot: those it had in this transport, else new ones. A new transport never gets those of
/// the one before: its receiver counts rollovers from 0 again (RFC 3711 section 3.3.1), so every slot's sequence
/// numbers have to start over.
fn sources(
    offer: &Offer,
    lines: &[Line],
    before: Option<&InForce>,
    continued: Option<&InForce>,
    random: &mut SplitMix64,
) -> BTreeMap<Mid, Sources> {
    let mut taken: Vec<u32> = offer
        .lines
        .iter()
        .flat_map(|l| &l.ssrcs)
        .flat_map(|(ssrc, rtx)| [Some(*ssrc), *rtx])
        .flatten()
        .collect();
    let known = continued.map(|c| &c.sources);
    taken.extend(
        before.map(|b| &b.sources).into_iter().flat_map(|k| k.values()).flat_map(|s| [s.ssrc, s.rtx_ssrc]),
    );
    let mut fresh = || loop {
        let ssrc = (random.next() >> 32) as u32;
        // 0 is taken for "none" by some tools.
        if ssrc != 0 && !taken.contains(&ssrc) {
            taken.push(ssrc);
            return ssrc;
        }
    };
    lines
        .iter()
        .filter(|line| line.use_ == Some(LineUse::Slot))
        .map(|line| {
            let sources = match known.and_then(|k| k.get(&line.mid)) {
                Some(sources) if sources.media == line.media => *sources,
                _ => Sources { media: line.media, ssrc: fresh(), rtx_ssrc: fresh() },
            };
            (line.mid.clone(), sources)
        })
        .collect()
}

fn role(line: &Line, offered: &OfferLine, sources: &BTreeMap<Mid, Sources>, transport_cc: bool) -> Role {
    let codec = match offered.codec {
        Some(codec) if offered.is_usable => codec,
        _ => return Role::Rejected,
    };
    let mid = line.mid.clone();
    match line.use_ {
        None => Role::Inactive,
        Some(LineUse::Up(kind)) => {
            let rids = if kind == UpKind::Camera { offered.rids.clone() } else { Default::default() };
            Role::Up(UpDescription {
                mid,
                kind,
                payload_type: codec.payload_type,
                rtx_payload_type: codec.rtx_payload_type,
                red_payload_type: codec.red_payload_type,
                rids,
                ssrcs: offered.ssrcs.clone(),
            })
        }
        Some(LineUse::Slot) => {
            let sources = sources.get(&line.mid).expect("every slot was given its SSRCs just before");
            Role::Slot(SlotDescription {
                mid,
                is_audio: line.media == MediaType::Audio,
                ssrc: sources.ssrc,
                rtx_ssrc: codec.rtx_payload_type.map(|_| sources.rtx_ssrc),
                payload_type: codec.payload_type,
                rtx_payload_type: codec.rtx_payload_type,
                has_transport_cc: codec.feedback.contains(Feedback::TRANSPORT_CC)
                    && offered.extension(Extension::TransportCc, false, transport_cc).is_some(),
            })
        }
    }
}

fn offered_candidates(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut candidates: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        let is_reachable = match address.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
        };
        let candidate = SocketAddr::new(address.ip(), address.port());
        if is_reachable && address.port() != 0 && !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
        if candidates.len() == CANDIDATES_MAX {
            break;
        }
    }
    candidates
}

/// SplitMix64 (Steele, Lea and Flood 2014): SSRCs only have to be unlike each other, not unguessable.
#[derive(Clone, Copy, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
