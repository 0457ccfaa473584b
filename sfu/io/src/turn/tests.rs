//! The relay over the real kernel, with a client that is written out by hand.

use super::*;
use crate::plane::MediaPlane;
use crate::plane::tests::{
    OFFER, PATIENCE, PEER, ROOM, answer, attribute, check, client, join, offer, start,
};
use md5::{Digest, Md5};
use ring::hmac;
use std::net::UdpSocket;
use std::time::Duration;

const ALLOCATE: u16 = 0x0003;
const REFRESH: u16 = 0x0004;
const PERMIT: u16 = 0x0008;
const BIND: u16 = 0x0009;
const ERROR: u16 = 0x0110;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const UDP: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);

struct Client {
    socket: UdpSocket,
    user: Credentials,
    nonce: Vec<u8>,
    transaction: u8,
}

impl Client {
    fn new(plane: &MediaPlane) -> Self {
        let user = plane.turn().credentials(SystemTime::now() + Duration::from_secs(60), b"a token");
        Self { socket: client(plane), user, nonce: Vec::new(), transaction: 0 }
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2_000];
        let length = self.socket.recv(&mut buffer).expect("an answer");
        buffer[..length].to_vec()
    }

    /// The answer to a request: signed, once there is a nonce to sign it with.
    fn ask(&mut self, kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        self.transaction += 1;
        let mut request = kind.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(COOKIE);
        request.extend([self.transaction; 12]);
        let add = |request: &mut Vec<u8>, kind: u16, value: &[u8]| {
            request.extend(kind.to_be_bytes());
            request.extend((value.len() as u16).to_be_bytes());
            request.extend(value);
            request.resize(request.len().next_multiple_of(4), 0);
            let length = (request.len() - 20) as u16;
            request[2..4].copy_from_slice(&length.to_be_bytes());
        };
        for (kind, value) in attributes {
            add(&mut request, *kind, value);
        }
        if !self.nonce.is_empty() {
            add(&mut request, 0x0006, self.user.username.as_bytes());
            add(&mut request, 0x0014, b"turn");
            add(&mut request, 0x0015, &self.nonce);
            let key = Md5::digest(format!("{}:turn:{}", self.user.username, self.user.password));
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
            let length = (request.len() - 20 + 24) as u16;
            request[2..4].copy_from_slice(&length.to_be_bytes());
            let tag = hmac::sign(&key, &request);
            add(&mut request, 0x0008, tag.as_ref());
        }
        self.socket.send(&request).expect("loopback");
        let answer = self.receive();
        assert_eq!(answer[8..20], request[8..20], "of the same transaction");
        answer
    }

    fn allocate(&mut self) -> Vec<u8> {
        let challenge = self.ask(ALLOCATE, &[UDP]);
        assert_eq!(code(&challenge), 401);
        self.nonce = value(&challenge, 0x0015);
        self.ask(ALLOCATE, &[UDP])
    }
}

/// 0 for a success.
fn code(answer: &[u8]) -> u16 {
    let kind = u16::from_be_bytes([answer[0], answer[1]]);
    if kind & ERROR != ERROR {
        return 0;
    }
    let error = value(answer, 0x0009);
    u16::from(error[2]) * 100 + u16::from(error[3])
}

/// An attribute's value.
fn value(message: &[u8], wanted: u16) -> Vec<u8> {
    let mut rest = &message[20..];
    loop {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if u16::from_be_bytes([rest[0], rest[1]]) == wanted {
            return rest[4..4 + length].to_vec();
        }
        rest = &rest[4 + length.next_multiple_of(4)..];
    }
}

/// 127.0.0.1 with the plane's port, as XOR-PEER-ADDRESS has it.
fn own_address(plane: &MediaPlane) -> Vec<u8> {
    let port = (plane.local_addr().port() ^ 0x2112).to_be_bytes();
    let ip = [127 ^ COOKIE[0], COOKIE[1], COOKIE[2], 1 ^ COOKIE[3]];
    [&[0, 1][..], &port, &ip].concat()
}

/// A plane with someone joined, and what makes the check that opens a path for them.
fn joined() -> (MediaPlane, impl Fn() -> Vec<u8>) {
    let (plane, events) = start(1);
    join(&plane, ROOM, PEER);
    offer(&plane, PEER, 1, OFFER);
    let sdp = answer(&events, 1);
    let username = format!("{}:{}", attribute(&sdp, "ice-ufrag"), attribute(OFFER, "ice-ufrag"));
    let pwd = attribute(&sdp, "ice-pwd").to_owned();
    (plane, move || check(&username, &pwd))
}

#[test]
fn people_who_come_in_one_second_share_no_quota() {
    let (plane, _check) = joined();
    let until = SystemTime::now();
    let usernames = [0; 2].map(|_| plane.turn().credentials(until, b"a token").username);
    assert_ne!(usernames[0], usernames[1]);
}

#[test]
fn a_check_through_an_allocation_is_answered_through_it() {
    let (plane, check) = joined();
    let mut client = Client::new(&plane);
    assert_eq!(code(&client.allocate()), 0);
    let peer = own_address(&plane);
    assert_eq!(code(&client.ask(PERMIT, &[(0x0012, &peer)])), 0);
    let check_ = check();
    let send = [&[0, 0x16, 0, 16 + check_.len() as u8][..], &COOKIE, &[9; 12], &[0, 0x12, 0, 8], &peer];
    let data = [&[0, 0x13][..], &(check_.len() as u16).to_be_bytes(), &check_];
    client.socket.send(&[send.concat(), data.concat()].concat()).expect("loopback");
    let indication = client.receive();
    assert_eq!(indication[..2], [0x00, 0x17], "a Data indication");
    assert_eq!(value(&indication, 0x0013)[..2], [0x01, 0x01], "around a Binding success");

    // The same through a channel.
    assert_eq!(code(&client.ask(BIND, &[(0x000c, &[0x40, 1, 0, 0]), (0x0012, &peer)])), 0);
    let check_ = check();
    let header = [&[0x40, 1][..], &(check_.len() as u16).to_be_bytes()].concat();
    client.socket.send(&[header, check_].concat()).expect("loopback");
    let data = client.receive();
    assert_eq!((&data[..2], &data[4..6]), (&[0x40, 1][..], &[0x01, 0x01][..]));
    let stats = plane.stats();
    assert_eq!((stats.turn.allocations, stats.turn.relayed, stats.turn.dropped), (1, 2, 0));
    assert_eq!(stats.shards[0].sockets.carriers, 1);
}

#[test]
fn a_check_from_where_an_allocation_is_opens_a_direct_path() {
    let (plane, check) = joined();
    let mut client = Client::new(&plane);
    assert_eq!(code(&client.allocate()), 0);
    client.socket.send(&check()).expect("loopback");
    assert_eq!(client.receive()[..2], [0x01, 0x01], "a Binding success");
    assert_eq!(plane.stats().shards[0].sockets.paths, 1);
}

#[test]
fn whose_allocation_has_ended_is_a_stranger_again() {
    let (plane, _check) = joined();
    let mut client = Client::new(&plane);
    assert_eq!(code(&client.allocate()), 0);
    assert_eq!(code(&client.ask(ALLOCATE, &[UDP])), 437, "one for each address");
    assert_eq!(code(&client.ask(REFRESH, &[(0x000d, &[0; 4])])), 0);
    let deadline = Instant::now() + PATIENCE;
    while plane.stats().turn.allocations > 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(code(&client.ask(REFRESH, &[])), 437, "there is none any more");
    assert_eq!(code(&client.ask(ALLOCATE, &[UDP])), 0, "and may be another");
    assert_eq!(plane.stats().turn.allocated, 2);
}

#[test]
fn allocations_go_on_when_the_port_is_yielded_and_end_with_the_plane() {
    let (plane, _check) = joined();
    let mut client = Client::new(&plane);
    assert_eq!(code(&client.allocate()), 0);
    plane.yield_port();
    assert_eq!(code(&client.ask(REFRESH, &[])), 0);
    plane.stop();
    assert_eq!(plane.stats().turn.allocations, 0);
}
