//! SDP negotiation (RFC 8866, RFC 8829): the server only ever answers.
//!
//! [`Negotiator`] holds what one peer has negotiated; [`Offer`] is a client's offer, read; [`Answer`] is the text
//! for the client and the [`MediaDescription`] for the packet path. Everything travels in one bundle (RFC 8843)
//! over ICE-lite and DTLS in the passive role, Opus and VP8 only, in the client's payload type numbers.
//!
//! Nothing here draws random numbers, asks a clock, opens a socket or quotes an offer in an error. A refused offer
//! leaves the earlier description in force.

mod answer;
mod error;
mod negotiator;
mod offer;
#[cfg(test)]
mod tests;

pub use answer::OPUS_BITRATE_BPS;
pub use error::NegotiateError;
pub use negotiator::{Answer, CANDIDATES_MAX, LocalDescriptionParams, Negotiator, RemoteChange};
pub use offer::{LAYERS_MAX, LINES_MAX, OFFER_BYTES_MAX, Offer};

use asamblea_seam::{Mid, UpKind};
use smallvec::SmallVec;

/// An accepted session description as the packet path needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaDescription {
    /// The client's ICE user name fragment and password (RFC 8839).
    pub remote_ice: IceCredentials,
    /// The SHA-256 fingerprint of the client's certificate (RFC 8122).
    pub fingerprint: Fingerprint,
    /// Identifiers of the RTP header extensions in use, the same on every m-line (RFC 8843 section 9).
    pub extensions: ExtensionIds,
    /// Lines the client sends on, in the order of the offer.
    pub ups: Vec<UpDescription>,
    /// Lines the client receives on, in the order of the offer. A line once described never changes its SSRCs.
    pub slots: Vec<SlotDescription>,
}

/// ICE user name fragment and password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// The user name fragment, 4 to 256 characters.
    pub ufrag: String,
    /// The password, 22 to 256 characters.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceCredentials(..)") // never in a log
    }
}

/// A SHA-256 certificate fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// One-byte header extension ids (1 to 14), `None` where not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// urn:ietf:params:rtp-hdrext:sdes:mid
    pub mid: Option<u8>,
    /// urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
    pub rid: Option<u8>,
    /// urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
    pub repaired_rid: Option<u8>,
    /// urn:ietf:params:rtp-hdrext:ssrc-audio-level
    pub audio_level: Option<u8>,
    /// http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
    pub transport_cc: Option<u8>,
    /// http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
    pub abs_send_time: Option<u8>,
}

/// A line the client sends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpDescription {
    /// The m-line.
    pub mid: Mid,
    /// What travels there.
    pub kind: UpKind,
    /// Payload type of the codec: Opus for audio, VP8 for video.
    pub payload_type: u8,
    /// Payload type of its retransmissions (RFC 4588), if negotiated.
    pub rtx_payload_type: Option<u8>,
    /// Payload type of packets with copies of earlier ones (RFC 2198), if negotiated; the microphone only.
    pub red_payload_type: Option<u8>,
    /// Simulcast stream ids, smallest layer first (RFC 8853); empty for one layer without a rid.
    pub rids: SmallVec<[Rid; 3]>,
    /// Primary SSRCs announced with `a=ssrc`, with the RTX SSRC of the same FID group; often empty with simulcast.
    pub ssrcs: SmallVec<[(u32, Option<u32>); 3]>,
}

/// A restriction identifier (RFC 8851): names a simulcast layer. 1 to 16 letters or digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rid(pub Box<str>);

/// A line the client receives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDescription {
    /// The m-line.
    pub mid: Mid,
    /// Opus if true, VP8 if not.
    pub is_audio: bool,
    /// The slot's SSRC for life.
    pub ssrc: u32,
    /// The SSRC of its retransmissions; `None` for audio or where RTX was not negotiated.
    pub rtx_ssrc: Option<u32>,
    /// Payload type of the codec as this client numbers it.
    pub payload_type: u8,
    /// Payload type of retransmissions as this client numbers it.
    pub rtx_payload_type: Option<u8>,
    /// Whether its packets carry transport-wide numbers, on which the client gives feedback.
    pub has_transport_cc: bool,
}
