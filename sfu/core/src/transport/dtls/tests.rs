use super::*;
use crate::transport::srtp::Srtp;
use rtc_dtls::config::HandshakeConfig;

/// A browser's side of the handshake, with the same library as a client.
pub(crate) struct Client {
    endpoint: Endpoint,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) is_complete: bool,
    pub(crate) is_closed: bool,
    resend_at: Instant,
    flight: Vec<Vec<u8>>,
}

pub(crate) const GCM_LAST: [SrtpProtectionProfile; 2] =
    [SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm];
pub(crate) const SHA1_ONLY: [SrtpProtectionProfile; 1] = [SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80];

impl Client {
    pub(crate) fn new(now: Instant, profiles: &[SrtpProtectionProfile]) -> Self {
        Self::with_mtu(now, profiles, 600)
    }

    fn with_mtu(now: Instant, profiles: &[SrtpProtectionProfile], mtu: usize) -> Self {
        let (factory, fingerprint) = RtcDtlsFactory::generate();
        let config: HandshakeConfig = ConfigBuilder::default()
            .with_crypto_provider(factory.shared.provider.clone())
            .with_certificates(vec![factory.shared.certificate.clone()])
            .with_srtp_protection_profiles(profiles.to_vec())
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_insecure_skip_verify(true)
            .with_mtu(mtu)
            .build(true, None)
            .unwrap();
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        endpoint.connect(now, PEER, Arc::new(config), None).unwrap();
        let resend_at = now + Duration::from_millis(100);
        Self { endpoint, fingerprint, is_complete: false, is_closed: false, resend_at, flight: Vec::new() }
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        for event in self.endpoint.read(now, PEER, None, BytesMut::from(datagram)).unwrap_or_default() {
            match event {
                EndpointEvent::HandshakeComplete => self.is_complete = true,
                EndpointEvent::PeerClosed => self.is_closed = true,
                _ => {}
            }
        }
    }

    /// What it sends now: a new flight, or the last one again, as browsers do.
    pub(crate) fn poll_datagrams(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut flight = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            flight.push(transmit.message.to_vec());
        }
        if !flight.is_empty() {
            self.flight = flight.clone();
            self.resend_at = now + Duration::from_millis(100);
        } else if now >= self.resend_at && !self.is_complete {
            self.resend_at = now + Duration::from_millis(100);
            flight = self.flight.clone();
        }
        flight
    }

    pub(crate) fn close(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.endpoint.stop(now, PEER);
        self.poll_datagrams(now)
    }

    /// Its own end of the media keys.
    pub(crate) fn srtp(&self) -> Srtp {
        let Some(DtlsEvent::Connected { profile, keying_material, .. }) = connected(&self.endpoint) else {
            panic!("the handshake is complete");
        };
        let (key, salt) = match profile {
            Profile::AeadAes128Gcm => (16, 12),
            Profile::Aes128CmSha1_80 => (16, 14),
        };
        let (keys, salts) = keying_material.split_at(2 * key);
        Srtp::new(profile, &[&keys[key..], &keys[..key], &salts[salt..], &salts[..salt]].concat())
    }
}

fn server(now: Instant, expected: Fingerprint) -> Box<dyn Dtls> {
    RtcDtlsFactory::generate().0.accept(now, expected)
}

/// Runs a handshake in virtual time through a network that says which datagrams arrive; returns what the server heard.
fn run(
    now: &mut Instant,
    client: &mut Client,
    server: &mut dyn Dtls,
    mut arrives: impl FnMut(usize) -> bool,
) -> Option<DtlsEvent> {
    let started = *now;
    let mut number = 0;
    let mut heard = None;
    while *now < started + Duration::from_secs(30) {
        let mut is_idle = true;
        for datagram in client.poll_datagrams(*now) {
            is_idle = false;
            number += 1;
            if arrives(number) {
                server.handle_datagram(*now, &datagram);
            }
        }
        server.handle_timeout(*now);
        while let Some(datagram) = server.poll_datagram() {
            is_idle = false;
            number += 1;
            if arrives(number) {
                client.handle_datagram(*now, &datagram);
            }
        }
        heard = heard.or(server.poll_event());
        match heard {
            Some(DtlsEvent::Connected { .. }) if !client.is_complete => {}
            None if !client.is_complete => {}
            _ => return heard,
        }
        if is_idle {
            *now += Duration::from_millis(10);
        }
    }
    heard
}

#[test]
fn the_best_profile_is_chosen_whatever_the_clients_order() {
    for (offered, expected) in
        [(&GCM_LAST[..], Profile::AeadAes128Gcm), (&SHA1_ONLY[..], Profile::Aes128CmSha1_80)]
    {
        let mut now = Instant::now_for_tests();
        let mut client = Client::new(now, offered);
        let mut server = server(now, client.fingerprint);
        let heard = run(&mut now, &mut client, &mut *server, |_| true);
        let Some(DtlsEvent::Connected { profile, keying_material, peer_fingerprint }) = heard else {
            panic!("no handshake");
        };
        assert_eq!((profile, peer_fingerprint), (expected, client.fingerprint));
        let mut packet = vec![0x80, 111, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 42, 42];
        packet.resize(14 + 16, 0);
        let sealed = client.srtp().seal_rtp(&mut packet, 14, 9);
        assert_eq!(Srtp::new(profile, &keying_material).open_rtp(&mut packet[..sealed]), Ok(14));
    }
}

#[test]
fn another_certificate_than_the_offers_is_refused() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &GCM_LAST);
    let mut server = server(now, Fingerprint([1; 32]));
    assert!(run(&mut now, &mut client, &mut *server, |_| true) == Some(DtlsEvent::Failed));
    assert!(!client.is_complete);
}

#[test]
fn a_client_without_srtp_is_refused() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &[]);
    let mut server = server(now, client.fingerprint);
    assert!(run(&mut now, &mut client, &mut *server, |_| true) == Some(DtlsEvent::Failed));
}

#[test]
fn a_lossy_network_only_delays_the_handshake() {
    for seed in 0..60u64 {
        let mut now = Instant::now_for_tests();
        let mut client = Client::new(now, &GCM_LAST);
        let mut server = server(now, client.fingerprint);
        let mut state = seed;
        let heard = run(&mut now, &mut client, &mut *server, |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 100 >= 30
        });
        assert!(matches!(heard, Some(DtlsEvent::Connected { .. })), "30 % lost, seed {seed}");
        assert!(client.is_complete, "30 % lost, seed {seed}");
    }
}

#[test]
fn a_lost_last_flight_is_sent_again() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &GCM_LAST);
    let mut server = server(now, client.fingerprint);
    let mut is_connected = false;
    for _ in 0..200 {
        for datagram in client.poll_datagrams(now) {
            server.handle_datagram(now, &datagram);
        }
        is_connected |= matches!(server.poll_event(), Some(DtlsEvent::Connected { .. }));
        let lost_until = now;
        while let Some(datagram) = server.poll_datagram() {
            if !is_connected {
                client.handle_datagram(lost_until, &datagram);
            }
        }
        if is_connected {
            break;
        }
    }
    assert!(is_connected && !client.is_complete);
    now += Duration::from_millis(200);
    let heard = run(&mut now, &mut client, &mut *server, |_| true);
    assert!(heard.is_none() && client.is_complete);
}

#[test]
fn a_repeating_peer_cannot_use_us_to_flood() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &GCM_LAST);
    let mut server = server(now, client.fingerprint);
    let hello = client.poll_datagrams(now);
    hello.iter().for_each(|datagram| server.handle_datagram(now, datagram));
    while server.poll_datagram().is_some() {}
    let mut answers = 0;
    for _ in 0..10_000 {
        now += Duration::from_millis(1);
        hello.iter().for_each(|datagram| server.handle_datagram(now, datagram));
        while server.poll_datagram().is_some() {
            answers += 1;
        }
    }
    assert!((1..=usize::from(REPEATS_MAX)).contains(&answers), "{answers} answers");
}

#[test]
fn a_repeating_peer_cannot_use_us_to_flood_after_the_handshake_either() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &GCM_LAST);
    let mut server = server(now, client.fingerprint);
    run(&mut now, &mut client, &mut *server, |_| true).unwrap();
    let last = client.flight.clone();
    let mut answers = 0;
    for _ in 0..10_000 {
        now += Duration::from_millis(10);
        last.iter().for_each(|datagram| server.handle_datagram(now, datagram));
        while server.poll_datagram().is_some() {
            answers += 1;
        }
    }
    assert_eq!(answers, usize::from(REPEATS_MAX));
}

#[test]
fn a_client_that_sends_small_fragments_gets_through() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::with_mtu(now, &GCM_LAST, 100);
    let mut server = server(now, client.fingerprint);
    let heard = run(&mut now, &mut client, &mut *server, |_| true);
    assert!(matches!(heard, Some(DtlsEvent::Connected { .. })));
    assert!(client.is_complete);
}

#[test]
fn either_side_can_close() {
    for is_client_first in [true, false] {
        let mut now = Instant::now_for_tests();
        let mut client = Client::new(now, &GCM_LAST);
        let mut server = server(now, client.fingerprint);
        run(&mut now, &mut client, &mut *server, |_| true).unwrap();
        if is_client_first {
            client.close(now).iter().for_each(|datagram| server.handle_datagram(now, datagram));
            assert!(server.poll_event() == Some(DtlsEvent::Closed));
        } else {
            server.close(now);
            while let Some(datagram) = server.poll_datagram() {
                client.handle_datagram(now, &datagram);
            }
            assert!(client.is_closed);
        }
    }
}

#[test]
fn of_a_handshake_that_is_over_little_is_kept() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &GCM_LAST);
    let mut server = RtcDtlsFactory::generate().0.handshake(client.fingerprint);
    run(&mut now, &mut client, &mut server, |_| true).unwrap();
    let Stage::Connected(Association { state, goodbye }) = &server.stage else { panic!("it is complete") };
    let datagrams = goodbye.iter().chain(&server.flight.datagrams);
    let kept = size_of::<RtcDtls>() + state.len() + datagrams.map(Vec::len).sum::<usize>();
    assert!(kept < 1_500, "{kept} bytes beside empty queues");
    assert!(server.datagrams.is_empty() && server.events.is_empty());
}

#[test]
fn forged_alerts_end_nothing_and_are_looked_at_a_few_times() {
    let mut now = Instant::now_for_tests();
    let mut client = Client::new(now, &GCM_LAST);
    let mut server = server(now, client.fingerprint);
    run(&mut now, &mut client, &mut *server, |_| true).unwrap();
    let goodbye = client.close(now).remove(0);
    for byte in 0..100 {
        let mut forged = goodbye.clone();
        *forged.last_mut().unwrap() ^= 1 + byte;
        let records_before = server.counters().records;
        server.handle_datagram(now, &forged);
        assert!(server.poll_event().is_none() && server.poll_datagram().is_none());
        let is_looked_at = server.counters().records > records_before;
        assert_eq!(is_looked_at, byte < crate::transport::dtls_prefilter::NEXT_EPOCH_RECORDS_MAX);
    }
}

#[test]
fn damaged_handshakes_never_panic() {
    // Every 13th byte of every datagram of the client, set to a few values in turn.
    for value in [0u8, 1, 0x7f, 0xff] {
        for at in (0..600).step_by(13) {
            let mut now = Instant::now_for_tests();
            let mut client = Client::new(now, &GCM_LAST);
            let mut server = server(now, client.fingerprint);
            for _ in 0..6 {
                for mut datagram in client.poll_datagrams(now) {
                    let at = at % datagram.len();
                    datagram[at] = value;
                    server.handle_datagram(now, &datagram);
                }
                while let Some(datagram) = server.poll_datagram() {
                    client.handle_datagram(now, &datagram);
                }
                now += Duration::from_millis(100);
                server.handle_timeout(now);
            }
        }
    }
}

#[test]
fn random_client_hellos_are_read_safely() {
    use proptest::prelude::*;
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..300))| {
        let _ = offered_srtp_profile(&bytes);
    });
}

/// The heart is told the time; the tests need one instant to begin with.
pub(crate) trait Epoch {
    fn now_for_tests() -> Instant;
}

impl Epoch for Instant {
    #[allow(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
    fn now_for_tests() -> Instant {
        Instant::now()
    }
}
