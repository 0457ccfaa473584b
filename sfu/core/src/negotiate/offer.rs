//! Reads a client's offer: a line-based reader of only what an answer needs.
//!
//! It never keeps what it does not need (candidates, foreign codecs, unknown attributes), never looks at a line
//! twice and stops at the first bound that is passed, so its cost is linear in the text and its memory is bounded
//! by [`LINES_MAX`], whatever the text holds. `rtc-sdp` parses the same grammar, but builds the whole tree before a
//! bound can be applied and quotes the text in its errors; it serves the tests as an independent reader instead.

mod reader;

use super::{Fingerprint, IceCredentials, NegotiateError, Rid};
use asamblea_seam::{Mid, SLOTS_MAX, UpKind};
use smallvec::SmallVec;

/// Longest offer that is read, in bytes: Chromium writes 5 kB for a receiving line, thus 360 kB for
/// [`LINES_MAX`] lines; the rest is slack.
pub const OFFER_BYTES_MAX: usize = 512 * 1024;

/// Most m-lines of an offer: one a kind that is sent, the slots, and a few refused ones (a data channel).
pub const LINES_MAX: usize = UpKind::ALL.len() + SLOTS_MAX + 5;

/// Most simulcast layers that are accepted on a line: three halvings reach from 720 to 180 lines.
pub const LAYERS_MAX: usize = 3;

/// An offer, read and checked, not yet answered.
#[derive(Clone, Debug)]
pub struct Offer {
    pub(super) remote_ice: IceCredentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) lines: Vec<OfferLine>,
}

/// One m-line.
#[derive(Clone, Debug)]
pub(super) struct OfferLine {
    pub(super) mid: Mid,
    pub(super) media: MediaType,
    /// First word of the m-line, and the parts a rejected line has to mirror.
    pub(super) media_token: Box<str>,
    pub(super) protocol: Box<str>,
    pub(super) first_format: Box<str>,
    /// Neither port 0 without bundle-only (RFC 8843 section 6) nor a foreign transport.
    pub(super) is_usable: bool,
    pub(super) sends: bool,
    pub(super) receives: bool,
    /// Opus or VP8, whichever this line's media allows; the first in the client's order of preference.
    pub(super) codec: Option<OfferCodec>,
    pub(super) extensions: [Option<OfferExtension>; Extension::ALL.len()],
    pub(super) rids: SmallVec<[Rid; LAYERS_MAX]>,
    pub(super) is_simulcast: bool,
    pub(super) reduced_size_rtcp: bool,
    pub(super) ssrcs: SmallVec<[(u32, Option<u32>); 3]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    Audio,
    Video,
    Other,
}

/// The chosen codec of a line in the client's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfferCodec {
    pub(super) payload_type: u8,
    pub(super) rtx_payload_type: Option<u8>,
    /// Packets with copies of earlier ones (RFC 2198) of this codec and no other.
    pub(super) red_payload_type: Option<u8>,
    /// Whether the client would rather send those than the codec alone.
    pub(super) prefers_red: bool,
    pub(super) feedback: Feedback,
}

/// Feedback messages of RFC 4585 and its kin, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Feedback(u8);

impl Feedback {
    pub(super) const TRANSPORT_CC: Feedback = Feedback(1 << 4);
    /// What the media plane understands, in the order it is written.
    pub(super) const KNOWN: [(Feedback, &'static str); 5] = [
        (Feedback(1), "nack"),
        (Feedback(1 << 1), "nack pli"),
        (Feedback(1 << 2), "ccm fir"),
        (Feedback(1 << 3), "goog-remb"),
        (Feedback::TRANSPORT_CC, "transport-cc"),
    ];

    pub(super) fn contains(self, other: Feedback) -> bool {
        self.0 & other.0 == other.0
    }

    fn union(self, other: Feedback) -> Feedback {
        Feedback(self.0 | other.0)
    }

    fn named(name: &str) -> Feedback {
        Self::KNOWN.iter().find(|(_, n)| *n == name).map_or(Feedback(0), |(f, _)| *f)
    }
}

/// The header extensions that the media plane reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    TransportCc,
    AbsSendTime,
}

impl Extension {
    pub(super) const ALL: [Extension; 6] = [
        Extension::Mid,
        Extension::Rid,
        Extension::RepairedRid,
        Extension::AudioLevel,
        Extension::TransportCc,
        Extension::AbsSendTime,
    ];

    pub(super) fn uri(self) -> &'static str {
        match self {
            Extension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Extension::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Extension::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Extension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Extension::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Extension::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        }
    }
}

/// An extension as one line offers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfferExtension {
    pub(super) id: u8,
    pub(super) direction: Option<Direction>,
}

/// A direction as the offerer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "sendrecv" => Direction::SendRecv,
            "sendonly" => Direction::SendOnly,
            "recvonly" => Direction::RecvOnly,
            "inactive" => Direction::Inactive,
            _ => return None,
        })
    }

    pub(super) fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// The first thing found that an answer cannot be made for. What is merely unknown is skipped.
    pub fn parse(sdp: &str) -> Result<Self, NegotiateError> {
        if sdp.len() > OFFER_BYTES_MAX {
            return Err(NegotiateError::TooLong);
        }
        reader::read(sdp)
    }

    /// The client's ICE credentials, the same on every bundled line.
    pub fn remote_ice(&self) -> &IceCredentials {
        &self.remote_ice
    }

    /// The fingerprint of the client's certificate, the same on every bundled line.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Rid {
    /// Takes a text as a restriction identifier; `None` when it is not 1 to 16 letters or digits.
    pub fn new(text: &str) -> Option<Self> {
        let is_valid = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        is_valid.then(|| Rid(text.into()))
    }
}
