//! The signaling protocol: every message between a client and the bridge, as one file of plain values.
//!
//! JSON text frames over one WebSocket (`/api/socket`), one message a frame, tagged by `type`. The TypeScript
//! types in `web/src/core/protocol.ts` are generated from this file (`cargo test -p asamblea protocol` fails
//! when they are stale and says how to renew them). `docs/protocol.md` tells the same in prose.
//!
//! Nothing here decides anything: the room machine does.

use asamblea_seam::{Line, PeerId, SlotState, SlotWish, UpLine, UpState, UpWanted};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The protocol versions this server speaks, newest last.
pub const VERSIONS: &[u16] = &[1];

/// Largest frame accepted from a client. An offer with 45 m-lines is 222 kB in Chromium; what a client needs
/// stays well below.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;

/// Longest shown name, in Unicode scalar values; longer ones are cut, not refused.
pub const NAME_CHARS_MAX: usize = 64;

/// What a client says.
#[derive(Clone, Debug, Deserialize, Serialize, TS)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[ts(export_to = "protocol.ts")]
pub enum ClientMessage {
    /// The first message on every socket.
    Hello {
        /// Versions the client speaks; the newest that both speak is taken.
        versions: Vec<u16>,
        /// The join token from `POST /api/meetings/{name}/token`: says which meeting and in which role.
        token: String,
        /// The name to show; markup is text, control characters are dropped, what exceeds the bound is cut.
        name: String,
        /// The resume token of an earlier `welcome`, to take up the same membership again.
        #[serde(default)]
        #[ts(optional)]
        resume: Option<String>,
    },
    /// A session description to be answered (RFC 8829). The server only ever answers.
    Offer {
        /// Counts up from 1 over the life of the membership, resumes included.
        revision: u32,
        /// The offer.
        sdp: String,
        /// What travels on the lines the client sends on.
        ups: Vec<UpLine>,
    },
    /// The whole of what the client sends now.
    Publish {
        /// One entry a kind at most; a kind that is missing is not active.
        ups: Vec<UpState>,
    },
    /// The whole of what the client shows now.
    View {
        /// One entry a video slot; a slot that is missing shows nothing.
        slots: Vec<SlotWish>,
    },
    /// Takes another name.
    Rename {
        /// The name, bounded as in `hello`.
        name: String,
    },
    /// Answers a `ping`.
    Pong {
        /// The ping's number.
        nonce: u32,
    },
    /// Asks for a `pong` with the same number at once: is this socket still alive?
    Ping {
        /// The number.
        nonce: u32,
    },
    /// Leaves the meeting for good; the server closes the socket.
    Leave {},
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[serde(tag = "type", rename_all = "snake_case")]
#[ts(export_to = "protocol.ts")]
pub enum ServerMessage {
    /// Answers `hello`: the client is in.
    Welcome {
        /// The version spoken from here on.
        version: u16,
        /// The client's own member id.
        #[ts(type = "number")]
        member: PeerId,
        /// Presented in a later `hello` to take up the same membership; a `resume` message replaces it.
        resume: String,
        /// Whether this continues an earlier membership: its media transport may still be up, its published state
        /// and slots are as they were. If false after a resume was asked for, the client starts afresh: new peer
        /// connection, revisions from 1. The member id may be the earlier one even then, after the server was
        /// started again.
        resumed: bool,
        /// The newest offer revision the server has seen from this membership.
        revision: u32,
        /// The meeting's name as it is shown.
        meeting: String,
        /// Everyone in the meeting, the client itself included, in order of arrival.
        members: Vec<Member>,
        /// What all of the client's slots carry now.
        slots: Vec<SlotState>,
        /// What is wanted of the client's video ups; empty before the first `wanted`.
        wanted: Vec<UpWanted>,
        /// Without any message for this long the client takes the socket for dead and makes another.
        silence_ms_max: u32,
        /// For how long a lost socket's membership is kept.
        resume_ms_max: u32,
    },
    /// A fresh resume token, in place of the one before; comes every 40 s or so and keeps proxies
    /// from forgetting the connection.
    Resume {
        /// Presented in a later `hello` to take up the same membership.
        token: String,
    },
    /// Answers an `offer`.
    Answer {
        /// The offer's number.
        revision: u32,
        /// The answer.
        sdp: String,
    },
    /// Someone came.
    Joined {
        /// Who.
        member: Member,
    },
    /// Something about a member changed; replaces what was known of them.
    Changed {
        /// Who, as they are now.
        member: Member,
    },
    /// Someone is gone for good.
    Left {
        /// Who.
        #[ts(type = "number")]
        member: PeerId,
    },
    /// What some of the client's slots carry has changed.
    Slots {
        /// The changed ones.
        slots: Vec<SlotState>,
    },
    /// Which layers of the client's video ups somebody receives or waits for: the whole of it. The client may pause
    /// the others, and starts them again when they are wanted.
    Wanted {
        /// One entry for each video up that was negotiated.
        ups: Vec<UpWanted>,
    },
    /// How the lines of some members are now; those not named are as before.
    Lines {
        /// The changed ones.
        lines: Vec<MemberLine>,
    },
    /// Who speaks now, loudest first; empty in silence.
    Speakers {
        /// Member and level.
        speakers: Vec<SpeakerLevel>,
    },
    /// The state of the client's own media transport.
    Media {
        /// What became of it.
        state: MediaState,
    },
    /// Asks for a `pong` with the same number.
    Ping {
        /// The number.
        nonce: u32,
    },
    /// Answers a `ping` of the client.
    Pong {
        /// The ping's number.
        nonce: u32,
    },
    /// A message could not be served. The socket and the meeting live on unless `fatal`.
    Error {
        /// Stable, for programs.
        code: ErrorCode,
        /// For developers, in English; people see a text of the client's own for the code.
        message: String,
        /// Whether the server closes the socket after this.
        fatal: bool,
    },
    /// The server ends this socket on purpose.
    Bye {
        /// Why.
        reason: ByeReason,
    },
}

/// A person in a meeting.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[ts(export_to = "protocol.ts")]
pub struct Member {
    /// Names the membership; random, never another's.
    #[ts(type = "number")]
    pub id: PeerId,
    /// The shown name; may be empty and need not be unique.
    pub name: String,
    /// What they send, as they said last.
    pub ups: Vec<UpState>,
    /// False while their socket is lost and they may yet come back.
    pub present: bool,
    /// How their line is.
    pub line: Line,
}

/// One member's line.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[ts(export_to = "protocol.ts")]
pub struct MemberLine {
    /// Who.
    #[ts(type = "number")]
    pub member: PeerId,
    /// How it is now.
    pub line: Line,
}

/// One speaker of a `speakers` message.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[ts(export_to = "protocol.ts")]
pub struct SpeakerLevel {
    /// Who.
    #[ts(type = "number")]
    pub member: PeerId,
    /// 0 loudest to 127 silent, in -dBov (RFC 6464).
    pub level_dbov: u8,
}

/// What became of the client's media transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[ts(export_to = "protocol.ts")]
pub enum MediaState {
    /// Up.
    Connected,
    /// Ended: no checks came, the handshake failed or the client closed it. The client offers again with an ICE
    /// restart or a new peer connection.
    Disconnected,
    /// The media plane lost its state: the client makes a new peer connection and offers it with the next
    /// revision.
    Lost,
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[ts(export_to = "protocol.ts")]
pub enum ErrorCode {
    /// Not JSON, no known type, a missing, unknown or wrongly typed field.
    Malformed,
    /// The frame exceeds the size limit; fatal.
    TooLarge,
    /// More messages than the rate limit allows: this one was not served.
    TooManyRequests,
    /// `hello` has to come first; fatal.
    NotJoined,
    /// `hello` came twice.
    AlreadyJoined,
    /// No version in common; fatal.
    UnsupportedVersion,
    /// The join token is forged or expired; fatal. Get a new one.
    InvalidToken,
    /// The meeting is full; fatal.
    MeetingFull,
    /// The server holds as many meetings as it may; fatal.
    ServerFull,
    /// A member, m-line or kind that the message names does not exist, or is named twice.
    UnknownReference,
    /// The offer cannot be answered.
    OfferRefused,
    /// The member's role does not allow this.
    NotAllowed,
    /// The client reads too slowly and was cut off; fatal. Resume to get the present state.
    TooSlow,
}

/// Why the server ends a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[ts(export_to = "protocol.ts")]
pub enum ByeReason {
    /// The client said `leave`.
    Left,
    /// The same membership was resumed on another socket.
    Replaced,
    /// The server stops.
    Stopping,
    /// The server makes place for another process: connect anew at once, and keep the peer connection until the new
    /// one flows.
    Moving,
}

/// Answers `POST /api/meetings/{name}/token`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[ts(export_to = "protocol.ts")]
pub struct TokenResponse {
    /// The meeting's name as it is shown and stands in its link.
    pub meeting: String,
    /// The join token: signed, good for a few minutes, for this meeting only.
    pub token: String,
    /// How to reach the bridge's own TURN relay (RFC 8656), at the host and port of the page, over UDP, TCP and perhaps
    /// TLS. Missing where the bridge has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub relay: Option<RelayCredentials>,
}

/// Answers `GET /api/links`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[ts(export_to = "protocol.ts")]
pub struct LinksResponse {
    /// Where others reach this bridge, likeliest first: `https://192.0.2.1:8443`, without a path. Empty for whoever is
    /// not at the bridge's own machine.
    pub links: Vec<String>,
    /// Whether the bridge made its certificate itself, of which browsers warn.
    pub own_certificate: bool,
}

/// Credentials for the relay: short-lived, bound to the join token that they came with.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, TS)]
#[ts(export_to = "protocol.ts")]
pub struct RelayCredentials {
    /// The TURN user name.
    pub username: String,
    /// The TURN password.
    pub credential: String,
    /// Whether TLS is worth trying too: browsers refuse a certificate that the bridge made for itself.
    pub tls: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use ts_rs::{Config, TS, TypeVisitor};

    const TYPESCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../web/src/core/protocol.ts");

    /// Declares a type and everything it refers to, each once, by name: ts-rs visits in no stable order.
    struct Declare<'a> {
        config: &'a Config,
        types: BTreeMap<String, String>,
    }

    impl TypeVisitor for Declare<'_> {
        fn visit<T: TS + 'static + ?Sized>(&mut self) {
            let name = T::ident(self.config);
            if T::output_path().is_none() || self.types.contains_key(&name) {
                return;
            }
            let declaration = format!("\n{}export {}\n", T::docs().unwrap_or_default(), T::decl(self.config));
            self.types.insert(name, tidy(&declaration));
            T::visit_dependencies(self);
        }
    }

    /// One field a line, one-line comments on one line.
    fn tidy(declaration: &str) -> String {
        let mut text = declaration.replace("{ \n", "{\n").replace(", \n", ",\n").replace(", }", ",\n}");
        let mut depth = 0usize;
        text = text
            .split('\n')
            .map(|line| {
                let closes = line.starts_with('}');
                let indent = if depth > 0 && !closes { "  " } else { "" };
                depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
                let line = format!("{indent}{line}\n");
                if line.trim() == "" { "\n".into() } else { line }
            })
            .collect::<String>();
        for indent in ["", "  "] {
            let (open, close) = (format!("\n{indent}/**\n{indent} * "), format!("\n{indent} */"));
            let mut parts = text.split(&open).map(str::to_owned).collect::<Vec<_>>();
            for part in parts.iter_mut().skip(1) {
                let end = part.find(&close).expect("every comment ends");
                *part = if part[..end].contains('\n') {
                    format!("{open}{part}")
                } else {
                    format!("\n{indent}/** {} */{}", &part[..end], &part[end + close.len()..])
                };
            }
            text = parts.concat();
        }
        text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
    }

    fn typescript() -> String {
        let config = Config::new().with_large_int("number");
        let mut declare = Declare { config: &config, types: BTreeMap::new() };
        declare.visit::<ClientMessage>();
        declare.visit::<ServerMessage>();
        declare.visit::<TokenResponse>();
        declare.visit::<LinksResponse>();
        let mut out = String::from(
            "// Generated from signaling/src/protocol.rs by `ASAMBLEA_RENEW=1 cargo test -p asamblea protocol`.\n\
             // Do not edit: change the Rust file and renew this one.\n",
        );
        out.extend(declare.types.into_values());
        let versions: Vec<String> = VERSIONS.iter().map(u16::to_string).collect();
        out.push_str(&format!(
            "\n/** The protocol versions the server of this source tree speaks, newest last. */\n\
             export const VERSIONS: readonly number[] = [{}];\n\
             \n/** Largest frame the server accepts, in bytes of UTF-8. */\n\
             export const FRAME_BYTES_MAX = {FRAME_BYTES_MAX};\n\
             \n/** Longest shown name, in Unicode code points; the server cuts longer ones. */\n\
             export const NAME_CHARS_MAX = {NAME_CHARS_MAX};\n",
            versions.join(", ")
        ));
        out
    }

    #[test]
    fn the_committed_typescript_is_current() {
        let fresh = typescript();
        if std::env::var_os("ASAMBLEA_RENEW").is_some() {
            std::fs::write(TYPESCRIPT, &fresh).expect("web/src/core is part of the source tree");
        }
        let committed = std::fs::read_to_string(TYPESCRIPT).unwrap_or_default();
        assert!(
            committed == fresh,
            "web/src/core/protocol.ts is stale; renew it with: ASAMBLEA_RENEW=1 cargo test -p asamblea protocol"
        );
    }
}
