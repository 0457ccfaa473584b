//! What clients of the TURN relay send, with credentials or without.

use asamblea_sfu_core::turn::{
    Action, Allocation, Channel, DATA_BYTES_MAX, HEAD_BYTES, MESSAGE_BYTES_MAX, Message, Method, Now,
    Relayed, Stranger, TurnSecret, is_turn, message_bytes, write_channel_data,
};
use std::net::SocketAddr;
use std::time::Instant;

/// What the corpus was signed with, when and for whom.
const SECRET: [u8; 32] = [7; 32];
const UNIX_S: u64 = 1_795_000_000;
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 44], 50_000);

/// A request that gets an allocation, behind its length.
const ALLOCATE: &[u8] = include_bytes!("../corpus/turn/allocate");

fn begin(secret: &TurnSecret, now: Now, request: &[u8]) -> Option<Allocation> {
    let relayed = Relayed { offered: &offered(), port: 50_001 };
    match Allocation::begin(now, secret, CLIENT.into(), request, relayed, |_| Ok(())) {
        Ok((allocation, reply)) => {
            assert!(
                reply.refusal().is_none() && offered().iter().any(|it| it.ip() == allocation.relayed().ip())
            );
            Some(allocation)
        }
        Err(reply) => {
            assert!(reply.is_none_or(|reply| reply.refusal().is_some()));
            None
        }
    }
}

fn offered() -> [SocketAddr; 2] {
    [([203, 0, 113, 5], 8443).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 5], 8443).into()]
}

/// Messages, each behind its length in two bytes (big-endian): from a stranger, and from someone with an allocation.
pub fn turn(data: &[u8]) {
    let secret = TurnSecret::new(SECRET);
    let now = Now { at: Instant::now(), unix_s: UNIX_S };
    let mut allocation = begin(&secret, now, &ALLOCATE[2..]).expect("it was signed for this");
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        rest = behind;
        judge(&secret, now, message);
        match allocation.handle(now, &secret, message) {
            Action::Relay { peer, datagram } => {
                assert!(offered().contains(&peer) && allocation.route(peer, now.at).is_some());
                assert!(datagram.len() <= DATA_BYTES_MAX);
                assert!(message.windows(datagram.len().max(1)).any(|it| it.starts_with(datagram)));
            }
            Action::Reply(reply) => assert_eq!(reply[8..20], message[8..20]),
            Action::End(reply) => {
                assert_eq!((reply.refusal(), &reply[8..20]), (None, &message[8..20]));
                allocation = begin(&secret, now, &ALLOCATE[2..]).expect("again");
            }
            Action::Drop(_) => {}
        }
    }
}

fn judge(secret: &TurnSecret, now: Now, message: &[u8]) {
    let parsed = Message::parse(message);
    if let Ok(parsed) = &parsed {
        assert!(is_turn(message), "what can be read is not taken for something else");
        if parsed.method() == Method::ChannelData {
            let channel = Channel::new(u16::from_be_bytes([message[0], message[1]])).expect("it was read");
            let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
            let mut written = Vec::new();
            write_channel_data(&mut written, channel, &message[4..4 + length], false);
            assert_eq!(written, message[..4 + length]);
        }
    }
    match secret.greet(now.unix_s, CLIENT.into(), message, |_| false) {
        Stranger::Admit => {
            assert_eq!(parsed.expect("it was read").method(), Method::Allocate);
            begin(secret, now, message);
        }
        Stranger::Answer(reply) => {
            assert!(reply.len() < 2 * message.len() && reply.refusal().is_some());
            assert_eq!(reply[8..20], message[8..20]);
        }
        Stranger::Drop(_) => {}
    }
}

/// A stream of messages, cut where they end.
pub fn turn_stream(data: &[u8]) {
    let mut rest = data;
    while let Some((head, _)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let Ok(whole) = message_bytes(*head) else { return };
        assert!((HEAD_BYTES..=MESSAGE_BYTES_MAX).contains(&whole) && whole.is_multiple_of(4));
        let Some((message, behind)) = rest.split_at_checked(whole) else { return };
        if let Ok(parsed) = Message::parse(message)
            && parsed.method() != Method::ChannelData
        {
            assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])) + 20, whole);
        }
        rest = behind;
    }
}
