use super::dtls::tests::{Client, Epoch, GCM_LAST, SHA1_ONLY};
use super::ice::{LocalCredentials, NodeSecret, PATHS_MAX};
use super::stun::tests::RequestBuilder;
use super::*;
use std::net::SocketAddr;
use std::time::Duration;

const FINGERPRINT: Fingerprint = Fingerprint([4; 32]);

fn credentials(text: &str) -> IceCredentials {
    IceCredentials { ufrag: text.into(), pwd: format!("{text}-password-of-22-chars") }
}

fn address(port: u16) -> Remote {
    SocketAddr::from(([192, 0, 2, 1], port)).into()
}

/// A transport with the names of its paths and transactions counted, as a shard would.
struct Bench {
    transport: Transport,
    now: Instant,
    local: IceCredentials,
    paths: u64,
    transactions: u64,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now_for_tests();
        let local: IceCredentials = LocalCredentials::new(3, [1; 10], &NodeSecret::new([2; 32])).into();
        let transport = Transport::new(now, Arc::new(Identity::generate()), local.clone());
        Self { transport, now, local, paths: 0, transactions: 0 }
    }

    fn described() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.describe("peer", FINGERPRINT), Described::First);
        bench
    }

    fn describe(&mut self, remote: &str, fingerprint: Fingerprint) -> Described {
        self.transport.describe(self.now, &credentials(remote), fingerprint)
    }

    fn request(&mut self, remote: &str) -> RequestBuilder {
        self.transactions += 1;
        let username = format!("{}:{remote}", self.local.ufrag);
        RequestBuilder::new(&username, &self.local.pwd, self.transactions)
    }

    fn send(&mut self, port: u16, request: &RequestBuilder) {
        self.send_bytes(port, &request.build());
    }

    fn nominate_from(&mut self, remote: Remote) {
        let datagram = self.request("peer").nominating().build();
        self.check_from(remote, &datagram);
    }

    fn send_bytes(&mut self, port: u16, datagram: &[u8]) {
        self.check_from(address(port), datagram);
    }

    fn check_from(&mut self, remote: Remote, datagram: &[u8]) {
        let paths = &mut self.paths;
        let mut alloc = || {
            *paths += 1;
            PathId(*paths)
        };
        self.transport.handle_check(self.now, remote, None, datagram, &mut alloc);
    }

    fn nominate(&mut self, port: u16) {
        let request = self.request("peer").nominating();
        self.send(port, &request);
    }

    fn outputs(&mut self) -> Vec<TransportOutput> {
        std::iter::from_fn(|| self.transport.poll_output()).collect()
    }

    fn events(&mut self) -> Vec<TransportEvent> {
        std::iter::from_fn(|| self.transport.poll_event()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.transport.handle_timeout(self.now);
    }

    /// Brings a client's handshake to its end on the nominated path, through a network that loses every `lost`th.
    fn connect(&mut self, client: &mut Client, lost: usize) {
        let until = self.now + Duration::from_secs(25);
        let mut number = 0;
        while self.now < until && !(self.transport.is_connected() && client.is_complete) {
            let path = self.transport.send_path().expect("a path is nominated");
            for datagram in client.poll_datagrams(self.now) {
                number += 1;
                if number % lost != 0 {
                    self.transport.handle_dtls(self.now, path, &datagram);
                }
            }
            for output in self.outputs() {
                if let TransportOutput::Transmit { datagram, .. } = output {
                    number += 1;
                    if number % lost != 0 {
                        client.handle_datagram(self.now, &datagram);
                    }
                }
            }
            self.pass(Duration::from_millis(10));
        }
    }

    fn connected() -> (Self, Client) {
        let mut bench = Self::new();
        let mut client = Client::new(bench.now, &GCM_LAST);
        bench.describe("peer", client.fingerprint);
        bench.nominate(1);
        bench.outputs();
        bench.events();
        bench.connect(&mut client, usize::MAX);
        assert_eq!(bench.events(), [TransportEvent::Connected]);
        (bench, client)
    }
}

#[test]
fn the_first_check_opens_a_path_before_it_is_answered() {
    let mut bench = Bench::described();
    bench.nominate(1);
    let outputs = bench.outputs();
    assert_eq!(outputs[0], TransportOutput::OpenPath { path: PathId(1), remote: address(1) });
    assert!(matches!(outputs[1], TransportOutput::Transmit { path: PathId(1), .. }));
    assert_eq!(outputs.len(), 2);
    assert_eq!(bench.events(), [TransportEvent::PathChanged]);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)));
}

#[test]
fn nothing_is_taken_before_the_description() {
    let mut bench = Bench::new();
    bench.nominate(1);
    assert_eq!((bench.outputs(), bench.events()), (vec![], vec![]));
    assert_eq!(bench.transport.counters().stun_unknown_users, 1);
}

#[test]
fn forged_checks_get_nothing_and_leave_nothing() {
    let mut bench = Bench::described();
    let mut request = bench.request("peer").nominating();
    request.pwd = "guess".into();
    bench.send(1, &request);
    let stranger = bench.request("stranger");
    bench.send(1, &stranger);
    bench.send_bytes(1, &[0; 40]);
    assert_eq!((bench.outputs(), bench.events()), (vec![], vec![]));
    let counters = *bench.transport.counters();
    assert_eq!((counters.stun_forged, counters.stun_unknown_users, counters.stun_malformed), (1, 1, 1));
}

#[test]
fn the_newest_nomination_wins_and_may_be_repeated() {
    let mut bench = Bench::described();
    bench.nominate(1);
    bench.nominate(2);
    assert_eq!(bench.transport.send_path(), Some(PathId(2)));
    bench.nominate(2);
    bench.events();
    bench.nominate(1);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)));
    assert_eq!(bench.events(), [TransportEvent::PathChanged]);
    let plain = bench.request("peer");
    bench.send(2, &plain);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)), "a check that nominates nothing moves nothing");
}

#[test]
fn a_captured_check_moves_nothing_and_renews_no_consent() {
    let mut bench = Bench::described();
    let captured = bench.request("peer").nominating();
    bench.send(1, &captured);
    bench.outputs();
    bench.pass(Duration::from_secs(20));
    bench.send(66, &captured);
    assert_eq!(bench.outputs(), [], "no answer to another address");
    assert_eq!(bench.transport.counters().stun_replayed, 1);
    bench.send(1, &captured);
    assert_eq!(bench.outputs().len(), 1, "a retransmission is answered");
    bench.events();
    bench.pass(Duration::from_secs(10));
    assert!(!bench.events().is_empty(), "30 s after the first sending consent is over");
}

#[test]
fn paths_are_bounded_and_the_one_in_use_stays() {
    let mut bench = Bench::described();
    bench.nominate(1);
    for port in 2..=20 {
        bench.now += Duration::from_millis(1);
        let request = bench.request("peer");
        bench.send(port, &request);
        assert!(!bench.outputs().contains(&TransportOutput::ClosePath { path: PathId(1) }));
    }
    assert_eq!(bench.transport.counters().paths_replaced, 20 - PATHS_MAX as u64);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)));
    bench.transport.handle_stun(bench.now, PathId(2), &[]);
    assert_eq!(bench.transport.counters().stale_path, 1);
}

#[test]
fn a_role_conflict_is_refused_on_a_known_path_only() {
    let mut bench = Bench::described();
    let request = bench.request("peer").controlled();
    bench.send(1, &request);
    assert_eq!(bench.outputs(), []);
    bench.nominate(1);
    bench.outputs();
    let request = bench.request("peer").controlled();
    bench.send(1, &request);
    let [TransportOutput::Transmit { datagram, .. }] = &bench.outputs()[..] else { panic!("an answer") };
    assert_eq!(datagram[..2], [0x01, 0x11]);
    assert_eq!(bench.transport.counters().checks_refused, 1);
}

#[test]
fn an_unread_queue_does_not_grow() {
    let mut bench = Bench::described();
    for _ in 0..1_000 {
        bench.nominate(1);
    }
    assert!(bench.outputs().len() <= OUTPUTS_MAX);
    assert!(bench.transport.counters().outputs_full > 900);
}

#[test]
fn the_same_description_changes_nothing() {
    let mut bench = Bench::described();
    assert_eq!(bench.describe("peer", FINGERPRINT), Described::Unchanged);
    assert_eq!(bench.describe("restarted", FINGERPRINT), Described::IceRestarted);
    assert_eq!(bench.describe("restarted", Fingerprint([5; 32])), Described::TransportReset);
}

#[test]
fn a_peer_that_never_comes_is_given_up() {
    let mut bench = Bench::described();
    assert_eq!(bench.transport.poll_timeout(), Some(bench.now + ice::CONSENT));
    bench.pass(ice::CONSENT);
    assert_eq!(bench.events(), [TransportEvent::Disconnected(DisconnectReason::ConsentExpired)]);
    assert_eq!(bench.transport.poll_timeout(), None);
}

#[test]
fn a_handshake_that_never_ends_fails() {
    let mut bench = Bench::described();
    for _ in 0..12 {
        bench.nominate(1);
        bench.outputs();
        bench.pass(Duration::from_millis(2_500));
    }
    let events = bench.events();
    assert_eq!(events.last(), Some(&TransportEvent::Disconnected(DisconnectReason::HandshakeFailed)));
    assert_eq!(bench.outputs(), [TransportOutput::ClosePath { path: PathId(1) }]);
}

#[test]
fn media_flows_after_the_handshake_and_not_before() {
    for profiles in [&GCM_LAST[..], &SHA1_ONLY[..]] {
        let mut bench = Bench::new();
        let mut client = Client::new(bench.now, profiles);
        bench.describe("peer", client.fingerprint);
        bench.nominate(1);
        assert!(bench.transport.srtp().is_none());
        assert_eq!(bench.transport.open_rtp(PathId(1), &mut [0x80; 40]), None);
        bench.connect(&mut client, 4);
        let mut theirs = client.srtp();
        let mut packet = vec![0x80, 111, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 42, 42];
        packet.resize(14 + 16, 0);
        let sealed_bytes = theirs.seal_rtp(&mut packet, 14, 9);
        let sealed = packet[..sealed_bytes].to_vec();
        assert_eq!(bench.transport.open_rtp(PathId(1), &mut packet[..sealed_bytes]), Some(14));
        assert_eq!(bench.transport.open_rtp(PathId(1), &mut sealed.clone()), None);
        assert_eq!(bench.transport.open_rtp(PathId(9), &mut sealed.clone()), None);
        let ours = bench.transport.srtp().unwrap();
        let sealed_bytes = ours.seal_rtp(&mut packet, 14, 9);
        assert_eq!(theirs.open_rtp(&mut packet[..sealed_bytes]), Ok(14));
        let counters = *bench.transport.counters();
        let media = (counters.srtp_opened, counters.srtp_replayed, counters.srtp_early, counters.stale_path);
        assert_eq!(media, (1, 1, 1, 1));
    }
}

#[test]
fn a_certificate_that_is_not_the_offers_ends_the_transport() {
    let mut bench = Bench::described();
    let mut client = Client::new(bench.now, &GCM_LAST);
    bench.nominate(1);
    bench.events();
    while bench.transport.send_path().is_some() {
        let path = bench.transport.send_path().unwrap();
        for datagram in client.poll_datagrams(bench.now) {
            bench.transport.handle_dtls(bench.now, path, &datagram);
        }
        for output in bench.outputs() {
            if let TransportOutput::Transmit { datagram, .. } = output {
                client.handle_datagram(bench.now, &datagram);
            }
        }
        bench.pass(Duration::from_millis(10));
    }
    assert_eq!(bench.events(), [TransportEvent::Disconnected(DisconnectReason::HandshakeFailed)]);
    assert!(!client.is_complete && bench.transport.srtp().is_none());
    assert_eq!(bench.transport.counters().handshakes_failed, 1);
}

#[test]
fn a_certificate_is_judged_even_if_the_library_did_not() {
    struct Careless(Option<DtlsEvent>, PrefilterCounters);
    impl Dtls for Careless {
        fn handle_datagram(&mut self, _: Instant, _: &[u8]) {}
        fn handle_timeout(&mut self, _: Instant) {}
        fn poll_timeout(&self) -> Option<Instant> {
            None
        }
        fn poll_datagram(&mut self) -> Option<Vec<u8>> {
            None
        }
        fn poll_event(&mut self) -> Option<DtlsEvent> {
            self.0.take()
        }
        fn close(&mut self, _: Instant) {}
        fn counters(&self) -> &PrefilterCounters {
            &self.1
        }
    }
    struct Factory(Fingerprint);
    impl dtls::DtlsFactory for Factory {
        fn accept(&self, _: Instant, _: Fingerprint) -> Box<dyn Dtls> {
            let profile = srtp::Profile::AeadAes128Gcm;
            let event = DtlsEvent::Connected {
                profile,
                keying_material: vec![0; profile.keying_material_bytes()],
                peer_fingerprint: self.0,
            };
            Box::new(Careless(Some(event), PrefilterCounters::default()))
        }
    }
    for (shown, expected) in [
        (FINGERPRINT, TransportEvent::Connected),
        (Fingerprint([9; 32]), TransportEvent::Disconnected(DisconnectReason::HandshakeFailed)),
    ] {
        let mut bench = Bench::new();
        bench.transport.identity = Arc::new(Identity::with_factory(FINGERPRINT, Box::new(Factory(shown))));
        bench.describe("peer", FINGERPRINT);
        bench.nominate(1);
        bench.events();
        bench.transport.handle_dtls(bench.now, PathId(1), &[22; 20]);
        assert_eq!(bench.events(), [expected]);
    }
}

#[test]
fn silence_ends_the_connection_and_a_check_brings_it_back() {
    let (mut bench, mut client) = Bench::connected();
    for _ in 0..20 {
        bench.pass(Duration::from_millis(2_500));
        bench.nominate(1);
        bench.outputs();
    }
    assert_eq!(bench.events(), []);
    bench.pass(ice::CONSENT);
    assert_eq!(bench.events(), [TransportEvent::Disconnected(DisconnectReason::ConsentExpired)]);
    assert_eq!(bench.outputs(), [TransportOutput::ClosePath { path: PathId(1) }]);
    assert!(bench.transport.srtp().is_none() && bench.transport.send_path().is_none());
    bench.nominate(2);
    assert_eq!(bench.events(), [TransportEvent::Connected, TransportEvent::PathChanged]);
    assert!(bench.transport.srtp().is_some());
    let _ = &mut client;
}

#[test]
fn an_ice_restart_keeps_the_old_path_until_the_new_is_nominated() {
    let (mut bench, _client) = Bench::connected();
    let old = bench.local.clone();
    let new: IceCredentials = LocalCredentials::new(3, [7; 10], &NodeSecret::new([2; 32])).into();
    bench.transport.restart_ice(new.clone());
    let fingerprint = bench.transport.fingerprint.unwrap();
    assert_eq!(bench.describe("again", fingerprint), Described::IceRestarted);

    bench.nominate(1);
    assert_eq!(bench.outputs().len(), 1, "the old credentials are still good");
    bench.local = new;
    let request = bench.request("again");
    bench.send(2, &request);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)), "not nominated yet");
    let request = bench.request("again").nominating();
    bench.send(2, &request);
    assert_eq!(bench.transport.send_path(), Some(PathId(2)));
    assert!(bench.transport.is_connected(), "the media keys stay");

    bench.local = old;
    bench.outputs();
    bench.nominate(1);
    let request = bench.request("again").nominating();
    bench.send(1, &request);
    assert_eq!(bench.outputs(), [], "the old credentials have served");
    assert_eq!(bench.transport.send_path(), Some(PathId(2)));
}

#[test]
fn a_reload_makes_a_new_handshake_beside_the_old_path() {
    let (mut bench, _old) = Bench::connected();
    let mut client = Client::new(bench.now, &GCM_LAST);
    let new: IceCredentials = LocalCredentials::new(3, [7; 10], &NodeSecret::new([2; 32])).into();
    bench.transport.restart_ice(new.clone());
    assert_eq!(bench.describe("reloaded", client.fingerprint), Described::TransportReset);
    assert!(bench.transport.srtp().is_none());
    bench.local = new;
    let request = bench.request("reloaded").nominating();
    bench.send(2, &request);
    bench.outputs();
    bench.events();
    bench.connect(&mut client, usize::MAX);
    assert_eq!(bench.events(), [TransportEvent::Connected]);
    let sealed = {
        let mut packet = vec![0x80, 111, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 42, 42];
        packet.resize(14 + 16, 0);
        let bytes = client.srtp().seal_rtp(&mut packet, 14, 9);
        packet.truncate(bytes);
        packet
    };
    assert_eq!(bench.transport.open_rtp(PathId(2), &mut sealed.clone()), Some(14));
}

#[test]
fn a_close_from_the_client_ends_the_transport() {
    let (mut bench, mut client) = Bench::connected();
    for datagram in client.close(bench.now) {
        bench.transport.handle_dtls(bench.now, PathId(1), &datagram);
    }
    assert_eq!(bench.events(), [TransportEvent::Disconnected(DisconnectReason::Closed)]);
    let outputs = bench.outputs();
    assert!(outputs.contains(&TransportOutput::ClosePath { path: PathId(1) }));
    assert!(bench.transport.srtp().is_none());
}

#[test]
fn our_close_reaches_the_client_before_the_path_closes() {
    let (mut bench, mut client) = Bench::connected();
    bench.transport.close(bench.now);
    let outputs = bench.outputs();
    let [TransportOutput::Transmit { datagram, .. }, TransportOutput::ClosePath { .. }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    client.handle_datagram(bench.now, datagram);
    assert!(client.is_closed);
}

#[test]
fn junk_on_a_path_is_counted_and_harmless() {
    let (mut bench, _client) = Bench::connected();
    let mut seed = 1u32;
    for length in 0..400 {
        let junk: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        bench.transport.handle_stun(bench.now, PathId(1), &junk);
        bench.transport.handle_dtls(bench.now, PathId(1), &junk);
        assert_eq!(bench.transport.open_rtp(PathId(1), &mut junk.clone()), None);
        assert_eq!(bench.transport.open_rtcp(PathId(1), &mut junk.clone()), None);
    }
    assert!(bench.transport.is_connected());
    let counters = *bench.transport.counters();
    assert!(counters.srtp_malformed > 0 && counters.stun_malformed > 0 && counters.dtls.malformed > 0);
}

#[test]
fn a_stream_is_taken_once_udp_is_silent_and_not_before() {
    let mut bench = Bench::described();
    bench.nominate(1);
    let stream = Remote::Carried { carrier: CarrierId(9), address: address(1).address() };
    bench.nominate_from(stream);
    assert_eq!(bench.outputs().iter().filter(|it| matches!(it, TransportOutput::OpenPath { .. })).count(), 2);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)), "the same address, but UDP is the better path");
    bench.now += ice::UDP_PREFERRED;
    bench.nominate_from(stream);
    assert_eq!(bench.transport.send_path(), Some(PathId(2)));
    bench.nominate(1);
    assert_eq!(bench.transport.send_path(), Some(PathId(1)), "back to UDP at once");
}
