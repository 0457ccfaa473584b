//! TURN (RFC 8656) for a relay that leads nowhere but to this bridge: reading and writing its messages, telling who may
//! allocate, and what one allocation does with what its client sends.
//!
//! There is no relay socket. The relayed address is a name for the allocation; what is sent through it to one of our own
//! media addresses is handed to the shard, and anything else is refused. Nothing is kept for a client before its
//! credentials and its address are proved: the one answer before that is smaller than two requests.
#![allow(clippy::result_large_err, reason = "an answer is made once a request, where no size matters")]

mod allocation;
mod credentials;
mod ledger;
mod message;
mod stream;

pub use allocation::{Action, Allocation, LIFETIME, Now, PEERS_MAX, PERMISSION, Relayed, Route};
pub use credentials::{Credentials, NONCE_MINUTES_MAX, REALM, TurnSecret};
pub use ledger::{ALLOCATIONS_MAX, ALLOCATIONS_OF_ADDRESS_MAX, ALLOCATIONS_OF_ONE_MAX, Full, Ledger};
pub use message::{
    Channel, DATA_BYTES_MAX, MESSAGE_BYTES_MAX, Message, Method, Reply, is_turn, write_channel_data,
    write_data_indication,
};
pub use stream::{FramingLie, HEAD_BYTES, message_bytes};

use std::net::SocketAddr;

/// Why a message of TURN gets nothing. Each is counted by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnDrop {
    /// Not a well-formed message of TURN, or a longer one than any client sends.
    #[error("malformed")]
    Malformed,
    /// It needs an allocation, and there is none.
    #[error("no allocation")]
    NoAllocation,
    /// The answer would be as long as two such requests.
    #[error("too short to be answered")]
    TooShort,
    /// To be relayed to an address that is not ours, or without permission.
    #[error("not permitted")]
    NotPermitted,
}

/// What is to be done about a message from someone without an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It proved its credentials and asks for an allocation.
    Admit,
    /// Answer with this and keep nothing.
    Answer(Reply),
    /// No answer.
    Drop(TurnDrop),
}

impl TurnSecret {
    /// Judges a message from an address without an allocation, and keeps nothing of it. `now_s` is in seconds since 1970;
    /// `holds` says whether a user has an allocation elsewhere, and is asked if the credentials have expired: a call may
    /// last longer than what began it, and change its network then.
    pub fn greet(
        &self,
        now_s: u64,
        client: SocketAddr,
        bytes: &[u8],
        holds: impl FnOnce(&str) -> bool,
    ) -> Stranger {
        let Ok(message) = Message::parse(bytes) else { return Stranger::Drop(TurnDrop::Malformed) };
        if !message.method().is_request() {
            return Stranger::Drop(TurnDrop::NoAllocation);
        }
        let answer = match self.authenticate(now_s, client, &message) {
            Ok(user) if message.method() == Method::Allocate && (!user.is_expired || holds(user.name)) => {
                return Stranger::Admit;
            }
            // A relay that was started again does not know what it had allocated.
            Ok(user) if message.method() != Method::Allocate => message.refuse(437).signed(&user.key),
            Ok(_) => self.challenge(now_s, client, &message, 401),
            Err(answer) => answer,
        };
        // Its address is not proved: what comes back is no gain to someone who sends in another's name.
        if answer.len() >= 2 * bytes.len() {
            return Stranger::Drop(TurnDrop::TooShort);
        }
        Stranger::Answer(answer)
    }
}

#[cfg(test)]
mod tests;
