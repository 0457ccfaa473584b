//! The front with the real heart, over the real kernel.

use super::*;
use asamblea_seam::{Mid, UpKind};
use ring::hmac;
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const OFFER: &str = include_str!("../../../core/src/negotiate/fixtures/firefox.sdp");
pub(crate) const ROOM: RoomId = RoomId(1);
pub(crate) const PEER: PeerId = PeerId(7);

pub(crate) fn start(shards: usize) -> (MediaPlane, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let plane = MediaPlane::start(Config {
        take_over: false,
        bind: "[::]:0".parse().unwrap(),
        public_addresses: vec!["203.0.113.5".parse().unwrap()],
        shards,
        members_per_shard: 3,
        pad_runs: false,
        turn_secret: [7; 32],
        events: Box::new(move |event| {
            let _ = sender.send(event);
        }),
    });
    (plane.unwrap(), events)
}

pub(crate) fn join(plane: &MediaPlane, room: RoomId, peer: PeerId) {
    plane.handle(Command::Join { room, peer, loopback: true });
}

pub(crate) fn offer(plane: &MediaPlane, peer: PeerId, revision: u32, sdp: &str) {
    let ups = ["0", "1", "2"].iter().zip(UpKind::ALL);
    let ups = ups.map(|(mid, kind)| UpLine { mid: Mid::new(mid).unwrap(), kind }).collect();
    plane.handle(Command::Offer { peer, revision, sdp: sdp.into(), ups });
}

pub(crate) fn answer(events: &mpsc::Receiver<Event>, revision: u32) -> String {
    match events.recv_timeout(PATIENCE).unwrap() {
        Event::Answer { peer: PEER, revision: answered, sdp } if answered == revision => sdp,
        other => panic!("{other:?}"),
    }
}

/// The first value of an attribute.
pub(crate) fn attribute<'a>(sdp: &'a str, name: &str) -> &'a str {
    let line = sdp.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("a={name} in {sdp}"))
}

/// RFC 8445 section 7.2.2, RFC 8489.
pub(crate) fn check(username: &str, pwd: &str) -> Vec<u8> {
    let mut check = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    check.extend(random::<12>()); // a transaction counts once
    let mut add = |kind: u16, value: &[u8]| {
        check.extend(kind.to_be_bytes());
        check.extend((value.len() as u16).to_be_bytes());
        check.extend(value);
        check.resize(check.len().next_multiple_of(4), 0);
    };
    add(0x0006, username.as_bytes());
    add(0x0024, &[0x6e, 0, 1, 0xff]);
    add(0x802a, &[1; 8]);
    add(0x0025, &[]);
    let length = (check.len() - 20 + 24) as u16;
    check[2..4].copy_from_slice(&length.to_be_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes());
    let tag = hmac::sign(&key, &check);
    check.extend([0, 8, 0, 20]);
    check.extend(tag.as_ref());
    check
}

pub(crate) fn client(plane: &MediaPlane) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(("127.0.0.1", plane.local_addr().port())).unwrap();
    client
}

fn check_for(answer: &str, offer: &str) -> Vec<u8> {
    let username = format!("{}:{}", attribute(answer, "ice-ufrag"), attribute(offer, "ice-ufrag"));
    check(&username, attribute(answer, "ice-pwd"))
}

fn is_success(client: &UdpSocket) -> bool {
    let mut buffer = [0; 2000];
    let length = client.recv(&mut buffer).expect("an answer to the check");
    length > 20 && buffer[..2] == [1, 1]
}

#[test]
fn a_check_with_the_answers_credentials_is_answered_on_its_own_path() {
    let (plane, events) = start(2);
    join(&plane, ROOM, PEER);
    offer(&plane, PEER, 1, OFFER);
    let answer = answer(&events, 1);
    let client = client(&plane);
    client.send(&check_for(&answer, OFFER)).unwrap();
    assert!(is_success(&client));
    client.send(&check_for(&answer, OFFER)).unwrap();
    assert!(is_success(&client));
    let stats = plane.stats();
    assert_eq!(stats.listener.datagrams, 1, "the second came on the path");
    assert_eq!(stats.shards.iter().map(|shard| shard.sockets.paths_opened).sum::<u64>(), 1);
}

#[test]
fn a_check_with_another_password_is_dropped_by_the_listener() {
    let (plane, events) = start(1);
    join(&plane, ROOM, PEER);
    offer(&plane, PEER, 1, OFFER);
    let answer = answer(&events, 1);
    let username = format!("{}:{}", attribute(&answer, "ice-ufrag"), attribute(OFFER, "ice-ufrag"));
    let client = client(&plane);
    client.send(&check(&username, "not the password of this peer")).unwrap();
    client.send(&check_for(&answer, OFFER)).unwrap();
    assert!(is_success(&client));
    assert_eq!(plane.stats().listener.dropped_integrity, 1);
    assert_eq!(plane.stats().shards[0].sockets.checks, 1);
}

#[test]
fn the_answer_names_this_port_and_the_configured_address_first() {
    let (plane, events) = start(1);
    plane.handle(Command::Join { room: ROOM, peer: PEER, loopback: false });
    offer(&plane, PEER, 1, OFFER);
    let sdp = answer(&events, 1);
    let port = plane.local_addr().port().to_string();
    assert!(attribute(&sdp, "candidate").contains(&format!("203.0.113.5 {port} ")), "{sdp}");
    assert!(!sdp.contains(&format!("127.0.0.1 {port} ")), "loopback is for those who came over it");
    let fingerprint = attribute(&sdp, "fingerprint").strip_prefix("sha-256 ").unwrap();
    assert_eq!(fingerprint.split(':').count(), 32);
}

#[test]
fn offers_are_answered_once_in_order_and_a_bad_one_is_refused() {
    let (plane, events) = start(1);
    offer(&plane, PEER, 1, OFFER); // not joined: nothing
    join(&plane, ROOM, PEER);
    offer(&plane, PEER, 5, OFFER);
    let first = answer(&events, 5);
    offer(&plane, PEER, 5, OFFER);
    offer(&plane, PEER, 4, OFFER);
    offer(&plane, PEER, 6, "v=1");
    match events.recv_timeout(PATIENCE).unwrap() {
        Event::OfferRefused { peer: PEER, revision: 6, reason } => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    }
    join(&plane, ROOM, PEER); // repeated: nothing changes
    offer(&plane, PEER, 7, OFFER);
    let again = answer(&events, 7);
    assert_eq!(attribute(&first, "ice-ufrag"), attribute(&again, "ice-ufrag"));
    assert!(events.try_recv().is_err());
}

#[test]
fn an_ice_restart_gets_new_credentials_and_a_path_with_them() {
    let (plane, events) = start(1);
    join(&plane, ROOM, PEER);
    offer(&plane, PEER, 1, OFFER);
    let first = answer(&events, 1);
    let client_before = client(&plane);
    client_before.send(&check_for(&first, OFFER)).unwrap();
    assert!(is_success(&client_before));

    let restart = OFFER.replace(attribute(OFFER, "ice-ufrag"), "restarted");
    offer(&plane, PEER, 2, &restart);
    let second = answer(&events, 2);
    assert_ne!(attribute(&first, "ice-ufrag"), attribute(&second, "ice-ufrag"));
    assert_ne!(attribute(&first, "ice-pwd"), attribute(&second, "ice-pwd"));
    let client_after = client(&plane);
    client_after.send(&check_for(&second, &restart)).unwrap();
    assert!(is_success(&client_after));
}

#[test]
fn rooms_go_where_fewest_peers_are_and_keep_their_peers_together() {
    let (plane, _events) = start(3);
    for (room, peer) in [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (2, 6), (4, 7)] {
        join(&plane, RoomId(room), PeerId(peer));
    }
    let shard_of = |peer| plane.places.of(PeerId(peer)).map(|place| place.shard);
    let shards: Vec<_> = (1..=7).map(|peer| shard_of(peer).unwrap()).collect();
    assert_eq!(shards, [0, 0, 0, 1, 2, 1, 2]);

    for peer in 1..=3 {
        plane.handle(Command::Leave { peer: PeerId(peer) });
        plane.handle(Command::Leave { peer: PeerId(peer) });
    }
    assert_eq!(shard_of(1), None);
    assert!(!plane.places.rooms.contains_key(&RoomId(1)));
    join(&plane, RoomId(5), PeerId(8));
    assert_eq!(shard_of(8), Some(0));
    join(&plane, RoomId(2), PeerId(8));
    assert_eq!(shard_of(8), Some(1), "a peer is in one room");
}

#[test]
fn a_room_that_outgrows_a_shard_goes_on_where_fewest_peers_are() {
    let (plane, _events) = start(2);
    join(&plane, RoomId(2), PeerId(100));
    let shard_of = |peer| plane.places.of(PeerId(peer)).map(|place| place.shard);
    for peer in 1..=7 {
        join(&plane, RoomId(1), PeerId(peer));
    }
    assert_eq!(shard_of(100), Some(0));
    let shards: Vec<_> = (1..=7).map(|peer| shard_of(peer).unwrap()).collect();
    assert_eq!(shards, [1, 1, 1, 0, 0, 0, 1], "three together, then each where there is most room");
    let parts = |has_changed| {
        plane
            .places
            .parts_to_tell(RoomId(1), has_changed)
            .map(|(revision, parts)| (revision, parts.into_vec()))
    };
    let (first, told) = parts(true).unwrap();
    assert_eq!(told, [1, 0]);
    assert_eq!(parts(false), None, "no news");
    for peer in 4..=6 {
        plane.handle(Command::Leave { peer: PeerId(peer) });
    }
    let (second, told) = parts(true).unwrap();
    assert_eq!(told, [1]);
    assert!(second > first);
    join(&plane, RoomId(1), PeerId(8));
    assert_eq!(parts(true).unwrap().1, [1, 0]);
    // With its shard it is gone; the next who comes has the others told.
    forgetting_the_lost(0, plane.places.clone(), plane.events.clone())(Event::Lost {
        peers: vec![PeerId(8)],
    });
    assert_eq!(parts(false).unwrap().1, [1]);
    for peer in [1, 2, 3, 7] {
        plane.handle(Command::Leave { peer: PeerId(peer) });
    }
    assert!(!plane.places.rooms.contains_key(&RoomId(1)));
}

#[test]
fn who_is_lost_with_a_shard_is_no_longer_joined() {
    let (plane, events) = start(2);
    join(&plane, RoomId(1), PeerId(1));
    join(&plane, RoomId(2), PeerId(2));
    let sink = forgetting_the_lost(0, plane.places.clone(), plane.events.clone());
    let lost = Event::Lost { peers: vec![PeerId(1), PeerId(2), PeerId(3)] };
    sink(lost.clone());
    assert_eq!(events.recv_timeout(PATIENCE), Ok(lost));
    assert!(plane.places.of(PeerId(1)).is_none());
    assert!(plane.places.of(PeerId(2)).is_some(), "it is on the other shard");
    join(&plane, RoomId(1), PeerId(1));
    assert_eq!(plane.places.of(PeerId(1)).map(|place| place.shard), Some(0));
}

#[test]
fn stopping_frees_the_port_and_may_be_repeated() {
    let (plane, _events) = start(2);
    join(&plane, ROOM, PEER);
    let taken = plane.local_addr();
    let second = |bind| {
        MediaPlane::start(Config {
            take_over: false,
            bind,
            public_addresses: vec![],
            shards: 1,
            members_per_shard: 0,
            pad_runs: false,
            turn_secret: [7; 32],
            events: Box::new(|_| {}),
        })
    };
    let error = second(taken).unwrap_err();
    assert!(error.to_string().contains("choose another port"), "{error}");
    plane.stop();
    plane.stop();
    plane.handle(Command::Leave { peer: PEER });
    second(taken).unwrap();
}
