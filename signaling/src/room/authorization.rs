//! Who may do what: one table, asked for every message. Never looks at a message's content.

use crate::protocol::ClientMessage;
use serde::{Deserialize, Serialize};

/// What a join token makes of its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes part.
    Member,
    /// Takes part and will moderate; no token gives this role yet.
    Host,
}

/// What a message of someone in a meeting does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// `offer`
    Offer,
    /// `publish`
    Publish,
    /// `view`
    View,
    /// `rename`
    Rename,
    /// `pong`
    Pong,
    /// `ping`
    Ping,
    /// `leave`
    Leave,
}

impl Act {
    /// The act of a message; none for `hello`, which is not for someone who is in.
    pub fn of(message: &ClientMessage) -> Option<Self> {
        Some(match message {
            ClientMessage::Hello { .. } => return None,
            ClientMessage::Offer { .. } => Act::Offer,
            ClientMessage::Publish { .. } => Act::Publish,
            ClientMessage::View { .. } => Act::View,
            ClientMessage::Rename { .. } => Act::Rename,
            ClientMessage::Pong { .. } => Act::Pong,
            ClientMessage::Ping { .. } => Act::Ping,
            ClientMessage::Leave {} => Act::Leave,
        })
    }
}

/// For each role what it may do; what is not listed is refused.
#[derive(Clone, Copy, Debug)]
pub struct Authorization(pub &'static [(Role, &'static [Act])]);

/// The table in force. Everything here concerns the speaker alone: there is no act on another member yet.
pub const AUTHORIZATION: Authorization = Authorization(&[
    (Role::Member, &[Act::Offer, Act::Publish, Act::View, Act::Rename, Act::Pong, Act::Ping, Act::Leave]),
    (Role::Host, &[Act::Offer, Act::Publish, Act::View, Act::Rename, Act::Pong, Act::Ping, Act::Leave]),
]);

impl Authorization {
    /// Whether a role may do this.
    pub fn allows(&self, role: Role, act: Act) -> bool {
        self.0.iter().any(|(listed, acts)| *listed == role && acts.contains(&act))
    }
}
