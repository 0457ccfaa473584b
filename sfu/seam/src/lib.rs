//! The seam between signaling and the media plane: what signaling may ask ([`Command`]) and what it hears back
//! ([`Event`]).
//!
//! Plain values only. Nothing here does I/O, keeps state or knows how a value is carried: in one process a value
//! is moved, across nodes it is serialised. Commands are reliable, ordered per peer and idempotent, so a carrier
//! may repeat one after a fault. Names of rooms and people never cross the seam: the media plane does not need
//! them.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }
    };
}

id!(
    /// One meeting. Chosen at random by signaling; below 2^53 so that JavaScript holds it exactly.
    RoomId
);
id!(
    /// One participant's connection in a meeting. Chosen at random by signaling; below 2^53. The same number is
    /// the member id of the signaling protocol.
    PeerId
);

/// Longest media identification tag that is accepted: browsers use 1 to 3 characters; 16 is what fits a
/// one-byte RTP header extension (RFC 8285 section 4.2).
pub const MID_BYTES_MAX: usize = 16;

/// Most video and audio slots one peer may wish to fill in one [`Command::View`]: a screen shows no more.
pub const SLOTS_MAX: usize = 64;

/// A media identification tag: names an m-line of a session description (RFC 8843, RFC 5888). At most
/// [`MID_BYTES_MAX`] bytes of RFC 4566 token characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mid(Box<str>);

/// Why a text is no [`Mid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mid has 1 to {MID_BYTES_MAX} characters out of letters, digits and !#$%&'*+-.^_`{{|}}~")]
pub struct InvalidMid;

impl Mid {
    /// Takes a text as a mid.
    ///
    /// # Errors
    /// [`InvalidMid`] when it is empty, longer than [`MID_BYTES_MAX`] bytes or holds other than token characters
    /// (RFC 4566 section 9).
    pub fn new(text: &str) -> Result<Self, InvalidMid> {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&b);
        if text.is_empty() || text.len() > MID_BYTES_MAX || !text.bytes().all(is_token) {
            return Err(InvalidMid);
        }
        Ok(Self(text.into()))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mid({})", self.0)
    }
}

impl TryFrom<String> for Mid {
    type Error = InvalidMid;
    fn try_from(text: String) -> Result<Self, InvalidMid> {
        Self::new(&text)
    }
}

impl From<Mid> for String {
    fn from(mid: Mid) -> String {
        mid.0.into()
    }
}

/// What a publisher sends on one m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
#[serde(rename_all = "lowercase")]
pub enum UpKind {
    /// Speech: Opus.
    Microphone,
    /// A face: VP8 in up to three simulcast layers, each half the width and height of the next.
    Camera,
    /// A shared screen: VP8, one layer.
    Screen,
}

impl UpKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [UpKind; 3] = [UpKind::Microphone, UpKind::Camera, UpKind::Screen];

    /// Whether this kind travels on an audio m-line.
    pub fn is_audio(self) -> bool {
        self == UpKind::Microphone
    }
}

/// Names one thing one peer publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
pub struct Up {
    /// Who publishes.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub peer: PeerId,
    /// What.
    pub kind: UpKind,
}

/// Says which m-line of an offer carries which up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
pub struct UpLine {
    /// The m-line, one the client sends on.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub mid: Mid,
    /// What is sent there.
    pub kind: UpKind,
}

/// The publisher's own word on one up: whether it sends now and how tall its tallest layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
pub struct UpState {
    /// What.
    pub kind: UpKind,
    /// Whether media flows: false while muted, off or not shared.
    pub active: bool,
    /// Height of the tallest layer in pixels; 0 for audio or when unknown.
    pub height_px: u16,
}

/// What a subscriber wishes to see in one video slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
pub struct SlotWish {
    /// The receiving m-line.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub mid: Mid,
    /// What to show there, or nothing.
    pub up: Option<Up>,
    /// The height at which it is shown, in device pixels; the smallest layer at least this tall is sent, else the
    /// tallest there is.
    pub height_px: u16,
}

/// What a slot carries since a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
pub struct SlotState {
    /// The receiving m-line, audio or video.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub mid: Mid,
    /// What it carries, or nothing.
    pub up: Option<Up>,
    /// Whether the picture is held back, since the peer's line cannot carry it now. Never so for audio.
    #[serde(default)]
    pub paused: bool,
}

/// Which simulcast layers of one up somebody receives or waits for, and how much of them their lines carry. The publisher
/// may pause the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
pub struct UpWanted {
    /// What.
    pub kind: UpKind,
    /// One entry a layer, smallest first, as many as were negotiated.
    pub layers: Vec<bool>,
    /// The most that is to be sent of each layer, in bit/s of the encoder's output; 0, or no entry, where there is no
    /// such limit. A publisher that does not keep to it is served as if there were none.
    #[serde(default)]
    pub bps_max: Vec<u32>,
}

/// How well a peer's line carries what is asked of it, both ways, as the server measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(export_to = "protocol.ts"))]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// All that is asked for arrives, or nothing is known to the contrary.
    #[default]
    Good,
    /// Packets are lost, or pictures are smaller than wished or held back.
    Weak,
    /// Nothing has arrived for a while.
    Lost,
}

/// The line of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLine {
    /// Whose.
    pub peer: PeerId,
    /// How it is now.
    pub line: Line,
}

/// How loud one speaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Who.
    pub peer: PeerId,
    /// Smoothed level in -dBov, 0 loudest to 127 silence (RFC 6464 section 3).
    pub level_dbov: u8,
}

/// What signaling asks of the media plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Makes room for a peer. Repeating it changes nothing. Until a valid [`Command::Offer`] came no media state
    /// exists beyond this entry.
    Join {
        /// The meeting; made on its first join.
        room: RoomId,
        /// The newcomer.
        peer: PeerId,
        /// Whether the peer reached signaling over the loopback interface: only then loopback candidates are
        /// offered to it.
        loopback: bool,
    },
    /// Ends a peer and everything kept for it. A room ends with its last peer. Unknown peers are ignored.
    Leave {
        /// Who leaves.
        peer: PeerId,
    },
    /// The peer's session description; answered by [`Event::Answer`] or [`Event::OfferRefused`] with the same
    /// revision. A description with another ICE ufrag than before restarts ICE; one with another certificate
    /// fingerprint replaces the transport.
    Offer {
        /// Whose.
        peer: PeerId,
        /// Counts the peer's offers; an offer that is not newer than the last is ignored.
        revision: u32,
        /// The offer (RFC 8866, RFC 8829).
        sdp: String,
        /// What travels on the lines the client sends on.
        ups: Vec<UpLine>,
    },
    /// The whole of what a peer says it sends; replaces what it said before.
    Publish {
        /// Whose.
        peer: PeerId,
        /// One entry a kind at most; a kind that is missing is not active.
        ups: Vec<UpState>,
    },
    /// The whole of what a peer wishes to see; replaces what it wished before.
    View {
        /// Whose.
        peer: PeerId,
        /// One entry a video slot; a slot that is missing shows nothing.
        slots: Vec<SlotWish>,
    },
}

/// What signaling hears from the media plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The answer to an offer.
    Answer {
        /// Whose offer.
        peer: PeerId,
        /// Which.
        revision: u32,
        /// The answer (RFC 8829).
        sdp: String,
    },
    /// An offer that cannot be answered; the peer's earlier description stays in force.
    OfferRefused {
        /// Whose offer.
        peer: PeerId,
        /// Which.
        revision: u32,
        /// Why, in words for a developer: it quotes nothing of the offer but is never shown to people.
        reason: String,
    },
    /// A peer's secure transport is up.
    Connected {
        /// Whose.
        peer: PeerId,
    },
    /// A peer's transport ended: no consent for 30 s (RFC 7675), a failed handshake or a close. The peer stays
    /// joined and may offer again.
    Disconnected {
        /// Whose.
        peer: PeerId,
        /// Why.
        reason: DisconnectReason,
    },
    /// What some of a peer's slots carry has changed; slots not named are as before.
    Slots {
        /// Whose slots.
        peer: PeerId,
        /// The changed ones.
        slots: Vec<SlotState>,
    },
    /// What is wanted of a peer's video ups has changed: the whole of it.
    Wanted {
        /// Whose ups.
        peer: PeerId,
        /// One entry for each video up that was negotiated.
        ups: Vec<UpWanted>,
    },
    /// The lines of some peers have changed; lines not named are as before.
    Lines {
        /// Where.
        room: RoomId,
        /// The changed ones.
        lines: Vec<PeerLine>,
    },
    /// Who speaks in a room has changed: loudest first, empty in silence.
    Speakers {
        /// Where.
        room: RoomId,
        /// The speakers, at most the number of audio slots.
        speakers: Vec<Speaker>,
    },
    /// The media state of these peers is gone with its shard. They are no longer joined; signaling joins them
    /// anew and has their clients offer afresh.
    Lost {
        /// Who has to start over.
        peers: Vec<PeerId>,
    },
}

/// Why a transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisconnectReason {
    /// No authenticated check for the consent time (RFC 7675 section 5.1).
    ConsentExpired,
    /// The DTLS handshake failed or did not end in time, or the certificate is not the one of the offer.
    HandshakeFailed,
    /// The client closed its transport (DTLS close_notify).
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mids_are_bounded_tokens() {
        assert!(Mid::new("0").is_ok());
        assert!(Mid::new("0123456789abcdef").is_ok());
        for bad in ["", "0123456789abcdefg", "a b", "a\r\nb", "é", "a/b"] {
            assert_eq!(Mid::new(bad), Err(InvalidMid), "{bad:?}");
        }
    }

    #[test]
    fn commands_survive_a_wire() {
        let command = Command::View {
            peer: PeerId(7),
            slots: vec![SlotWish {
                mid: Mid::new("3").expect("valid"),
                up: Some(Up { peer: PeerId(9), kind: UpKind::Camera }),
                height_px: 180,
            }],
        };
        let wire = serde_json::to_string(&command).expect("serialises");
        assert_eq!(serde_json::from_str::<Command>(&wire).expect("parses"), command);
    }

    #[test]
    fn a_wire_cannot_smuggle_an_invalid_mid() {
        assert!(serde_json::from_str::<Mid>("\"a b\"").is_err());
    }
}
