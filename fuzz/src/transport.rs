//! What anyone on the internet can send: STUN and DTLS.

use asamblea_sfu_core::demux::{Kind, classify};
use asamblea_sfu_core::transport::dtls::offered_srtp_profile;
use asamblea_sfu_core::transport::dtls_prefilter::{HANDSHAKE_BYTES_MAX, MESSAGES_MAX, Prefilter};
use asamblea_sfu_core::transport::ice::{NodeSecret, SHARDS_MAX, UFRAG_CHARS, authenticate_check};
use asamblea_sfu_core::transport::stun::{Answer, IntegrityKey, Request, StunDrop, respond};
use std::net::SocketAddr;

/// The node secret that the corpus was recorded with.
const SECRET: [u8; 32] = [7; 32];

/// A datagram before authentication, and the answer it would get.
pub fn stun(data: &[u8]) {
    let kind = classify(data);
    let Ok(request) = Request::parse(data) else {
        authenticate_check(&NodeSecret::new(SECRET), data).expect_err("what cannot be read proves nothing");
        return;
    };
    assert_eq!(kind, Kind::Stun, "what is a request is not taken for something else");
    let transaction_id = request.transaction_id();
    assert_eq!(transaction_id[..], data[8..20]);
    if let Ok(check) = authenticate_check(&NodeSecret::new(SECRET), data) {
        assert!(check.shard < SHARDS_MAX && check.server_ufrag.len() == UFRAG_CHARS);
        assert_eq!(request.ufrags(), Ok((check.server_ufrag, check.client_ufrag)));
        assert_eq!(check.transaction_id, transaction_id);
    }

    let key = IntegrityKey::new("aPasswordThatNobodyHas");
    assert!(!request.is_authentic(&key));
    let remote = SocketAddr::from(([192, 0, 2, 1], u16::from_be_bytes([data[18], data[19]])));
    let unknown = request.unknown_attribute().unwrap_or(0);
    for answer in [Answer::Mapped(remote), Answer::RoleConflict, Answer::UnknownAttribute(unknown)] {
        let response = respond(transaction_id, answer, &key);
        assert_eq!(classify(&response), Kind::Stun);
        assert_eq!(response[8..20], transaction_id);
        assert_eq!(
            Request::parse(&response).err(),
            Some(StunDrop::NotARequest),
            "an answer is well-formed and is never answered in turn"
        );
    }
}

/// Datagrams of one handshake, each behind its length in two bytes (big-endian); the length 0xffff ends the handshake.
pub fn dtls_prefilter(data: &[u8]) {
    // A parser of its own: finds the SRTP profiles in a ClientHello.
    let _ = offered_srtp_profile(data);

    let mut filter = Prefilter::new();
    let mut messages = Messages::default();
    let mut is_over = false;
    let mut passed_bytes = 0;
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        rest = behind;
        if *length == [0xff, 0xff] {
            filter.finish();
            is_over = true;
            continue;
        }
        let (datagram, behind) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        rest = behind;
        messages.note(datagram);
        let mut passed = Vec::new();
        filter.handle_datagram(datagram, &mut passed);
        if !is_over {
            passed_bytes += passed.len();
        }
        messages.check(&passed, is_over);
    }
    // What is handed over was received: at most each record's header is new.
    assert!(passed_bytes <= 2 * HANDSHAKE_BYTES_MAX, "{passed_bytes} bytes were handed over");
    assert_eq!(filter.counters().messages, u64::from(messages.next));
    assert!(messages.next <= MESSAGES_MAX);
}

/// What the DTLS library would get to see, and what it is made of.
#[derive(Default)]
struct Messages {
    /// The next message's number.
    next: u16,
    /// Every fragment that was received: message number, length of the whole, offset, bytes.
    fragments: Vec<(u16, usize, usize, Vec<u8>)>,
}

impl Messages {
    fn note(&mut self, mut datagram: &[u8]) {
        let u24 = |bytes: &[u8]| u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        while let Some((header, behind)) = datagram.split_first_chunk::<13>() {
            let body_bytes = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let Some((mut body, behind)) = behind.split_at_checked(body_bytes) else { return };
            datagram = behind;
            while let Some((header, behind)) = body.split_first_chunk::<12>() {
                let Some((bytes, behind)) = behind.split_at_checked(u24(&header[9..])) else { break };
                body = behind;
                let number = u16::from_be_bytes([header[4], header[5]]);
                self.fragments.push((number, u24(&header[1..]), u24(&header[6..]), bytes.to_vec()));
            }
        }
    }

    /// Whether every byte of a message was received in its place.
    fn is_received(&self, number: u16, message: &[u8]) -> bool {
        let mut is_known = vec![false; message.len()];
        let own = |fragment: &&(u16, usize, usize, _)| fragment.0 == number && fragment.1 == message.len();
        for (_, _, offset, bytes) in self.fragments.iter().filter(own) {
            for (at, byte) in (*offset..message.len()).zip(bytes) {
                is_known[at] |= message[at] == *byte;
            }
        }
        is_known.into_iter().all(|known| known)
    }

    /// Records follow each other without a gap, and handshake messages in the clear are whole, in order and each
    /// there once.
    fn check(&mut self, mut passed: &[u8], is_over: bool) {
        while let Some((header, behind)) = passed.split_first_chunk::<13>() {
            let body_bytes = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let (body, behind) = behind.split_at_checked(body_bytes).expect("a whole record");
            passed = behind;
            if header[0] == 22 && header[3..5] == [0, 0] {
                assert!(!is_over, "no handshake in the clear once it is over");
                assert_eq!(body[4..6], self.next.to_be_bytes(), "in order");
                assert_eq!(
                    (&body[1..4], &body[6..9]),
                    (&body[9..12], &[0; 3][..]),
                    "one fragment is the whole"
                );
                assert_eq!(body.len() - 12, u32::from_be_bytes([0, body[1], body[2], body[3]]) as usize);
                assert!(self.is_received(self.next, &body[12..]), "nothing is made up");
                let _ = offered_srtp_profile(&body[12..]);
                self.next += 1;
            }
        }
        assert!(passed.is_empty(), "nothing but records");
    }
}
