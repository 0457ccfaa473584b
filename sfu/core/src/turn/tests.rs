//! What anyone may try at the relay, without a socket.

use super::allocation::PERMISSION;
use super::credentials::long_term_key;
use super::message::tests::Builder;
use super::*;
use crate::transport::stun::{IntegrityKey, address_of};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const ALLOCATE: u16 = 0x0003;
const REFRESH: u16 = 0x0004;
const SEND: u16 = 0x0016;
const PERMIT: u16 = 0x0008;
const BIND: u16 = 0x0009;
const UNIX_S: u64 = 1_795_000_000;
const UDP: [u8; 4] = [17, 0, 0, 0];

fn secret() -> TurnSecret {
    TurnSecret::new([9; 32])
}

#[allow(clippy::disallowed_methods, reason = "tests need some first moment; nothing depends on which")]
fn now() -> Now {
    Now { at: Instant::now(), unix_s: UNIX_S }
}

/// Of someone who holds nothing.
fn greet(secret: &TurnSecret, now_s: u64, from: SocketAddr, bytes: &[u8]) -> Stranger {
    secret.greet(now_s, from, bytes, |_| false)
}

fn client() -> SocketAddr {
    "192.0.2.44:50000".parse().unwrap()
}

fn offered() -> Vec<SocketAddr> {
    ["203.0.113.5:8443", "10.1.2.3:8443", "[2001:db8::5]:8443"].map(|text| text.parse().unwrap()).to_vec()
}

fn attribute_of(reply: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut rest = &reply[20..];
    while rest.len() >= 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if u16::from_be_bytes([rest[0], rest[1]]) == kind {
            return Some(rest[4..4 + length].to_vec());
        }
        rest = &rest[4 + length.next_multiple_of(4)..];
    }
    None
}

/// A client as RFC 8656 describes it.
struct Client {
    user: Credentials,
    key: IntegrityKey,
    nonce: Vec<u8>,
    transaction: u8,
}

impl Client {
    fn new(secret: &TurnSecret) -> Self {
        Self::with(secret, secret.credentials(UNIX_S + 900, b"a token"))
    }

    fn with(secret: &TurnSecret, user: Credentials) -> Self {
        let first = Builder::new(ALLOCATE, 1).with(0x0019, &UDP).build();
        let Stranger::Answer(reply) = greet(secret, UNIX_S, client(), &first) else { panic!("a challenge") };
        assert_eq!(reply.refusal(), Some(401));
        let key = long_term_key(&user.username, &user.password);
        Self { user, key, nonce: attribute_of(&reply, 0x0015).unwrap(), transaction: 1 }
    }

    fn request(&mut self, kind: u16, add: impl FnOnce(Builder) -> Builder) -> Vec<u8> {
        self.transaction += 1;
        let builder = add(Builder::new(kind, self.transaction))
            .with(0x0006, self.user.username.as_bytes())
            .with(0x0014, REALM.as_bytes())
            .with(0x0015, &self.nonce);
        builder.signed(&self.key).build()
    }

    fn allocate(&mut self) -> Vec<u8> {
        self.request(ALLOCATE, |it| it.with(0x0019, &UDP))
    }
}

struct Scene {
    secret: TurnSecret,
    client: Client,
    allocation: Allocation,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        let secret = secret();
        let mut client = Client::new(&secret);
        let now = now();
        let allocation = begin(now, &secret, &client.allocate()).expect("granted").0;
        Self { secret, client, allocation, now }
    }

    fn later(&mut self, by: Duration) {
        self.now.at += by;
        self.now.unix_s += by.as_secs();
    }

    /// The code of a refusal, or 0 of a success.
    fn asks(&mut self, kind: u16, add: impl FnOnce(Builder) -> Builder) -> u16 {
        let request = self.client.request(kind, add);
        match self.allocation.handle(self.now, &self.secret, &request) {
            Action::Reply(reply) | Action::End(reply) => reply.refusal().unwrap_or(0),
            other => panic!("{other:?}"),
        }
    }

    fn sends(&mut self, peer: SocketAddr) -> bool {
        let message = Builder::new(SEND, 9).peer(peer).with(0x0013, b"hello").build();
        let action = self.allocation.handle(self.now, &self.secret, &message);
        matches!(action, Action::Relay { peer: to, datagram: b"hello" } if to == peer)
    }
}

fn begin(now: Now, secret: &TurnSecret, request: &[u8]) -> Result<(Allocation, Reply), u16> {
    let offered = offered();
    let relayed = Relayed { offered: &offered, port: 50_001 };
    Allocation::begin(now, secret, client(), request, relayed, |_| Ok(()))
        .map_err(|reply| reply.expect("an answer").refusal().expect("a refusal"))
}

fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_channel_data(&mut out, Channel::new(channel).unwrap(), data, true);
    out
}

#[test]
fn who_proves_the_password_and_the_address_is_admitted() {
    let secret = secret();
    let mut client_ = Client::new(&secret);
    let request = client_.allocate();
    assert_eq!(greet(&secret, UNIX_S, client(), &request), Stranger::Admit);
    let now = now();
    let (allocation, reply) = begin(now, &secret, &request).expect("granted");
    assert_eq!(allocation.username(), client_.user.username);
    let id: [u8; 12] = request[8..20].try_into().unwrap();
    let address = |kind| address_of(&attribute_of(&reply, kind).unwrap(), id).unwrap();
    assert_eq!(address(0x0016), SocketAddr::new(offered()[0].ip(), 50_001));
    assert_eq!(address(0x0020), client());
    assert_eq!(attribute_of(&reply, 0x000d), Some(600_u32.to_be_bytes().to_vec()));
    let at = reply.len() - 24;
    assert!(client_.key.has_signed(&reply, at), "the answer is signed");
}

#[test]
fn the_answer_to_a_stranger_is_smaller_than_two_requests_and_there_is_none_to_less() {
    let secret = secret();
    let request = Builder::new(ALLOCATE, 1).with(0x0019, &UDP).build();
    let Stranger::Answer(reply) = greet(&secret, UNIX_S, client(), &request) else { panic!("a challenge") };
    assert!(reply.len() < 2 * request.len(), "{} to {}", reply.len(), request.len());
    for kind in [ALLOCATE, REFRESH, PERMIT, BIND] {
        let bare = Builder::new(kind, 1).build();
        assert_eq!(greet(&secret, UNIX_S, client(), &bare), Stranger::Drop(TurnDrop::TooShort));
    }
    let send = Builder::new(SEND, 1).peer(offered()[0]).with(0x0013, &[7; 500]).build();
    for silent in [send, channel_data(0x4000, &[7; 500])] {
        assert_eq!(greet(&secret, UNIX_S, client(), &silent), Stranger::Drop(TurnDrop::NoAllocation));
    }
}

#[test]
fn forged_expired_borrowed_and_stale_credentials_are_refused() {
    let secret = secret();
    let answer = |bytes: &[u8], from: SocketAddr, at: u64| match greet(&secret, at, from, bytes) {
        Stranger::Answer(reply) => reply.refusal().unwrap(),
        other => panic!("{other:?}"),
    };
    let genuine = secret.credentials(UNIX_S + 900, b"a token");
    let mut forged = genuine.clone();
    forged.password.push('x');
    assert_eq!(answer(&Client::with(&secret, forged).allocate(), client(), UNIX_S), 401);
    let mut prolonged = genuine.clone();
    prolonged.username = prolonged.username.replace("900:", "999:").replacen("1795000", "1895000", 1);
    assert_eq!(answer(&Client::with(&secret, prolonged).allocate(), client(), UNIX_S), 401);
    let other = TurnSecret::new([8; 32]).credentials(UNIX_S + 900, b"a token");
    assert_eq!(answer(&Client::with(&secret, other).allocate(), client(), UNIX_S), 401);
    let expired = secret.credentials(UNIX_S, b"a token");
    assert_eq!(answer(&Client::with(&secret, expired).allocate(), client(), UNIX_S), 401);

    // But who is in the relay may stay, on another network too.
    let request = Client::with(&secret, secret.credentials(UNIX_S, b"a token")).allocate();
    assert_eq!(secret.greet(UNIX_S, client(), &request, |_| true), Stranger::Admit);

    let request = Client::with(&secret, genuine.clone()).allocate();
    for elsewhere in ["192.0.2.44:50001", "192.0.2.45:50000", "[::ffff:192.0.2.44]:50000"] {
        assert_eq!(answer(&request, elsewhere.parse().unwrap(), UNIX_S), 438, "{elsewhere}");
    }
    let minutes = u64::from(NONCE_MINUTES_MAX);
    let late = Client::with(&secret, secret.credentials(UNIX_S + 90_000, b"a token")).allocate();
    assert_eq!(greet(&secret, UNIX_S + 60 * (minutes - 1), client(), &late), Stranger::Admit);
    assert_eq!(answer(&late, client(), UNIX_S + 60 * (minutes + 1)), 438);
}

#[test]
fn credentials_are_bound_to_what_they_are_for() {
    let secret = secret();
    let of = |token: &[u8]| secret.credentials(UNIX_S, token).username;
    assert_eq!(of(b"a"), of(b"a"));
    assert_ne!(of(b"a"), of(b"b"));
}

#[test]
fn a_request_without_an_allocation_is_a_mismatch() {
    let secret = secret();
    let mut client_ = Client::new(&secret);
    for kind in [REFRESH, PERMIT, BIND] {
        let request = client_.request(kind, |it| it.peer(offered()[0]));
        let Stranger::Answer(reply) = greet(&secret, UNIX_S, client(), &request) else { panic!("an answer") };
        assert_eq!(reply.refusal(), Some(437));
        assert!(client_.key.has_signed(&reply, reply.len() - 24));
    }
}

#[test]
fn what_cannot_be_allocated_says_why() {
    let secret = secret();
    let now = now();
    let mut client_ = Client::new(&secret);
    let mut code = |add: &dyn Fn(Builder) -> Builder| {
        begin(now, &secret, &client_.request(ALLOCATE, add)).map(|_| 0).unwrap_or_else(|code| code)
    };
    assert_eq!(code(&|it| it), 400, "no transport");
    assert_eq!(code(&|it| it.with(0x0019, &[6, 0, 0, 0])), 442, "TCP");
    assert_eq!(code(&|it| it.with(0x0019, &UDP).with(0x0018, &[0x80])), 508, "a pair of ports");
    assert_eq!(code(&|it| it.with(0x0019, &UDP).with(0x0022, &[1; 8])), 508, "a reserved port");
    assert_eq!(code(&|it| it.with(0x0019, &UDP).with(0x7abc, &[1; 8])), 420, "unknown");
    assert_eq!(code(&|it| it.with(0x0019, &UDP).with(0x0017, &[3, 0, 0, 0])), 440, "no such family");
    assert_eq!(code(&|it| it.with(0x0019, &UDP).with(0x001a, &[])), 0, "nothing is fragmented");
    assert_eq!(code(&|it| it.with(0x0019, &UDP).with(0x0017, &[2, 0, 0, 0])), 0, "IPv6");

    let request = client_.allocate();
    let offered = offered();
    let full = |why| {
        let relayed = Relayed { offered: &offered, port: 1 };
        let begun = Allocation::begin(now, &secret, client(), &request, relayed, |_| Err(why));
        begun.map(|_| ()).unwrap_err().unwrap().refusal()
    };
    assert_eq!((full(Full::OfOne), full(Full::OfAll)), (Some(486), Some(508)));
    let none = Relayed { offered: &[], port: 1 };
    let begun = Allocation::begin(now, &secret, client(), &request, none, |_| Ok(()));
    assert_eq!(begun.map(|_| ()).unwrap_err().unwrap().refusal(), Some(440), "nowhere to lead");
}

#[test]
fn an_allocation_is_refreshed_and_ended_by_its_owner_alone() {
    let mut scene = Scene::new();
    let first = scene.allocation.expires_at();
    scene.later(Duration::from_secs(100));
    assert_eq!(scene.asks(REFRESH, |it| it), 0);
    assert_eq!(scene.allocation.expires_at() - first, Duration::from_secs(100));
    assert_eq!(scene.asks(REFRESH, |it| it.with(0x0017, &[2, 0, 0, 0])), 443);
    assert_eq!(scene.asks(ALLOCATE, |it| it.with(0x0019, &UDP)), 437, "there is one already");

    let other = scene.secret.credentials(UNIX_S + 900, b"another token");
    let mut mallory = Client::with(&scene.secret, other);
    let end = mallory.request(REFRESH, |it| it.with(0x000d, &[0; 4]));
    let Action::Reply(reply) = scene.allocation.handle(scene.now, &scene.secret, &end) else { panic!() };
    assert_eq!(reply.refusal(), Some(441));

    // Long after the credentials have expired, with the fresh nonce that is asked for then.
    scene.later(Duration::from_secs(20 * 3_600));
    assert_eq!(scene.asks(REFRESH, |it| it), 438);
    let challenge = Builder::new(ALLOCATE, 1).with(0x0019, &UDP).build();
    let Stranger::Answer(reply) = greet(&scene.secret, scene.now.unix_s, client(), &challenge) else {
        panic!()
    };
    scene.client.nonce = attribute_of(&reply, 0x0015).unwrap();
    assert_eq!(scene.asks(REFRESH, |it| it), 0);
    let end = scene.client.request(REFRESH, |it| it.with(0x000d, &[0; 4]));
    assert!(matches!(scene.allocation.handle(scene.now, &scene.secret, &end), Action::End(_)));
}

#[test]
fn a_repeated_request_gets_the_same_answer() {
    let secret = secret();
    let mut client_ = Client::new(&secret);
    let request = client_.allocate();
    let now = now();
    let (mut allocation, reply) = begin(now, &secret, &request).expect("granted");
    assert_eq!(allocation.handle(now, &secret, &request), Action::Reply(reply));
}

#[test]
fn datagrams_pass_with_a_permission_and_as_long_as_it_lives() {
    let mut scene = Scene::new();
    let [near, far] = [offered()[1], offered()[0]];
    assert!(!scene.sends(near));
    assert_eq!(scene.asks(PERMIT, |it| it.peer(SocketAddr::new(near.ip(), 9))), 0, "whatever the port");
    assert!(scene.sends(near) && !scene.sends(far));
    assert!(!scene.sends(SocketAddr::new(near.ip(), 22)), "another port of ours");
    assert_eq!(scene.allocation.route(near, scene.now.at).unwrap().channel, None);
    scene.later(PERMISSION - Duration::from_secs(1));
    assert!(scene.sends(near));
    scene.later(Duration::from_secs(1));
    assert!(!scene.sends(near) && scene.allocation.route(near, scene.now.at).is_none());
}

#[test]
fn a_channel_has_one_peer_and_a_peer_one_channel() {
    let mut scene = Scene::new();
    let [near, far] = [offered()[1], offered()[0]];
    let bind = |scene: &mut Scene, channel: u16, peer| {
        let number = [channel.to_be_bytes(), [0, 0]].concat();
        scene.asks(BIND, |it| it.with(0x000c, &number).peer(peer))
    };
    assert_eq!(bind(&mut scene, 0x4001, near), 0);
    assert_eq!(bind(&mut scene, 0x4001, near), 0, "again");
    assert_eq!(bind(&mut scene, 0x4001, far), 400);
    assert_eq!(bind(&mut scene, 0x4002, near), 400);
    assert_eq!(bind(&mut scene, 0x4002, far), 0);
    assert_eq!(bind(&mut scene, 0x4003, SocketAddr::new(near.ip(), 22)), 403, "another port of ours");
    assert_eq!(scene.allocation.route(near, scene.now.at).unwrap().channel, Channel::new(0x4001));
    let data = channel_data(0x4001, b"hello");
    let relay = Action::Relay { peer: near, datagram: b"hello" };
    assert_eq!(scene.allocation.handle(scene.now, &scene.secret, &data), relay);
    let unbound = channel_data(0x4007, b"hello");
    let dropped = Action::Drop(TurnDrop::NotPermitted);
    assert_eq!(scene.allocation.handle(scene.now, &scene.secret, &unbound), dropped);
    scene.later(PERMISSION);
    assert_eq!(scene.allocation.handle(scene.now, &scene.secret, &data), dropped, "its permission is over");
}

/// Whatever else a client names, and however it writes it.
const NOT_OURS: &[&str] = &[
    // Our own addresses in other notations.
    "[::ffff:203.0.113.5]:8443",
    "[::203.0.113.5]:8443",
    "[64:ff9b::203.0.113.5]:8443",
    "[64:ff9b:1::203.0.113.5]:8443",
    "[2002:cb00:7105::1]:8443",
    "[2001:0:cb00:7105::1]:8443",
    "[::ffff:0:203.0.113.5]:8443",
    "[fe80::200:5efe:203.0.113.5]:8443",
    // This machine.
    "127.0.0.1:8443",
    "127.0.0.2:22",
    "127.255.255.254:8443",
    "0.0.0.0:8443",
    "0.1.2.3:8443",
    "[::1]:8443",
    "[::]:8443",
    "[::ffff:127.0.0.1]:8443",
    "[::127.0.0.1]:8443",
    "[64:ff9b::127.0.0.1]:8443",
    "[2002:7f00:1::]:8443",
    // Its neighbours and services of clouds.
    "10.1.2.4:8443",
    "10.0.0.1:80",
    "172.16.0.1:80",
    "192.168.1.1:80",
    "100.64.0.1:80",
    "169.254.169.254:80",
    "[::ffff:169.254.169.254]:80",
    "[fd00:ec2::254]:80",
    "[fe80::1]:8443",
    "[fec0::1]:8443",
    "[fc00::1]:8443",
    // Everyone at once, and nobody.
    "224.0.0.1:8443",
    "239.255.255.250:1900",
    "255.255.255.255:8443",
    "10.255.255.255:8443",
    "[ff02::1]:8443",
    "[ff05::2]:8443",
    "192.0.2.1:8443",
    "240.0.0.1:8443",
    "[100::1]:8443",
    // The client itself, another relayed address, and the internet.
    "192.0.2.44:50000",
    "198.51.100.7:53",
    "8.8.8.8:53",
    "[2001:db8::6]:8443",
    "[2606:4700::1111]:53",
];

#[test]
fn the_relay_leads_nowhere_but_to_our_own_media_addresses() {
    for family in [1, 2] {
        let mut scene = Scene::new();
        let request =
            scene.client.request(ALLOCATE, |it| it.with(0x0019, &UDP).with(0x0017, &[family, 0, 0, 0]));
        scene.allocation = begin(scene.now, &scene.secret, &request).expect("granted").0;
        let own: Vec<_> = offered().into_iter().filter(|it| it.is_ipv4() == (family == 1)).collect();
        for (index, peer) in NOT_OURS.iter().enumerate() {
            let peer: SocketAddr = peer.parse().unwrap();
            let expected = if peer.is_ipv4() == (family == 1) { 403 } else { 443 };
            assert_eq!(scene.asks(PERMIT, |it| it.peer(peer)), expected, "{peer}");
            assert_eq!(scene.asks(PERMIT, |it| it.peer(own[0]).peer(peer)), expected, "{peer} behind ours");
            assert!(!scene.sends(own[0]), "all or none of those that are named");
            let number = [(0x4100 + index as u16).to_be_bytes(), [0, 0]].concat();
            assert_eq!(scene.asks(BIND, |it| it.with(0x000c, &number).peer(peer)), expected, "{peer}");
            assert!(!scene.sends(peer), "{peer}");
            let data = channel_data(0x4100 + index as u16, b"hello");
            let action = scene.allocation.handle(scene.now, &scene.secret, &data);
            assert_eq!(action, Action::Drop(TurnDrop::NotPermitted), "{peer}");
        }
        // Even while ours are permitted.
        for peer in &own {
            assert_eq!(scene.asks(PERMIT, |it| it.peer(*peer)), 0);
            assert!(scene.sends(*peer));
        }
        assert!(NOT_OURS.iter().all(|peer| !scene.sends(peer.parse().unwrap())));
    }
}

#[test]
fn what_is_written_to_a_client_reads_as_rfc_8656_has_it() {
    let peer: SocketAddr = "[2001:db8::5]:8443".parse().unwrap();
    let mut out = Vec::new();
    write_data_indication(&mut out, [5; 12], peer, b"hello");
    assert_eq!((out.len(), &out[..2]), (20 + 24 + 12, &[0x00, 0x17][..]));
    assert_eq!(address_of(&attribute_of(&out, 0x0012).unwrap(), [5; 12]), Some(peer));
    assert_eq!(attribute_of(&out, 0x0013).unwrap(), b"hello");
    let (mut datagram, mut stream) = (Vec::new(), Vec::new());
    let channel = Channel::new(0x4001).unwrap();
    write_channel_data(&mut datagram, channel, b"hello", false);
    write_channel_data(&mut stream, channel, b"hello", true);
    assert_eq!(datagram, b"\x40\x01\0\x05hello");
    assert_eq!(stream, b"\x40\x01\0\x05hello\0\0\0");
}

#[test]
fn turn_is_told_from_connectivity_checks() {
    assert!(is_turn(&Builder::new(ALLOCATE, 1).build()) && is_turn(&channel_data(0x4000, b"")));
    let check = crate::transport::stun::tests::RequestBuilder::new("a:b", "password", 1).build();
    assert!(!is_turn(&check));
    for other in
        [&[][..], &[0x40, 0, 0], &[0, 3, 0, 0], &[22; 60], &[0x80; 60], &[0, 3, 0, 0, 1, 2, 3, 4, 5, 6]]
    {
        assert!(!is_turn(other), "{other:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..6) {
        let kinds = [ALLOCATE, REFRESH, SEND, PERMIT, BIND, 0x4001];
        if bytes.len() >= 20 {
            let head = Builder::new(kinds[kind], 3).build();
            let length = (bytes.len() - if kind == 5 { 4 } else { 20 }) as u16;
            let end = if kind == 5 { 2 } else { 20 };
            bytes[..end].copy_from_slice(&head[..end]);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        let mut scene = Scene::new();
        prop_assert_ne!(greet(&scene.secret, UNIX_S, client(), &bytes), Stranger::Admit);
        let action = scene.allocation.handle(scene.now, &scene.secret, &bytes);
        prop_assert!(!matches!(action, Action::Relay { .. } | Action::End(_)), "{:?}", action);
    }
}
