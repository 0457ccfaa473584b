//! Offers of real browsers, and everything that can be wrong with one.

use super::*;
use asamblea_seam::UpLine;
use insta::assert_snapshot;
use proptest::prelude::*;
use std::net::SocketAddr;

const FIREFOX: &str = include_str!("fixtures/firefox.sdp");
const FIREFOX_MORE_SLOTS: &str = include_str!("fixtures/firefox-more-slots.sdp");
const FIREFOX_ICE_RESTART: &str = include_str!("fixtures/firefox-ice-restart.sdp");
const CHROMIUM: &str = include_str!("fixtures/chromium.sdp");
const CHROMIUM_MORE_SLOTS: &str = include_str!("fixtures/chromium-more-slots.sdp");

fn local_ice(generation: u32) -> IceCredentials {
    IceCredentials {
        ufrag: format!("server{generation}"),
        pwd: format!("aPasswordOfTheServer{generation:04}"),
    }
}

fn params() -> LocalDescriptionParams {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    LocalDescriptionParams {
        ice: local_ice(0),
        fingerprint: Fingerprint([0xab; 32]),
        candidates: vec![address("192.0.2.1:8443"), address("[2001:db8::1]:8443")],
        seed: 7,
        transport_cc: true,
    }
}

fn negotiator() -> Negotiator {
    Negotiator::new(params())
}

fn mid(text: &str) -> Mid {
    Mid::new(text).expect("a valid mid")
}

fn ups() -> Vec<UpLine> {
    ["0", "1", "2"].into_iter().zip(UpKind::ALL).map(|(m, kind)| UpLine { mid: mid(m), kind }).collect()
}

/// The smallest offer there is: a microphone and a slot each for audio and video.
fn small() -> String {
    [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1 2",
        "a=ice-ufrag:client",
        "a=ice-pwd:aPasswordOfTheClient000",
        "a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F",
        "a=setup:actpass",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=mid:0",
        "a=sendonly",
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "m=audio 0 UDP/TLS/RTP/SAVPF 111",
        "a=bundle-only",
        "a=mid:1",
        "a=recvonly",
        "a=rtpmap:111 opus/48000/2",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "m=video 0 UDP/TLS/RTP/SAVPF 98 96 97",
        "a=bundle-only",
        "a=mid:2",
        "a=recvonly",
        "a=rtpmap:98 VP9/90000",
        "a=rtpmap:96 vp8/90000",
        "a=rtpmap:97 rtx/90000",
        "a=fmtp:97 apt=96",
        "a=rtcp-fb:* nack",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "",
    ]
    .join("\r\n")
}

fn microphone() -> Vec<UpLine> {
    vec![UpLine { mid: mid("0"), kind: UpKind::Microphone }]
}

fn refusal(sdp: &str, ups: &[UpLine]) -> NegotiateError {
    negotiator().handle_offer(sdp, ups).expect_err("the offer should be refused")
}

/// The lines of an answer's section that start with one of `prefixes`.
fn section(sdp: &str, index: usize, prefixes: &[&str]) -> String {
    let mut sections = sdp.split("\r\nm=");
    let text = sections.nth(index + 1).expect("the section exists");
    format!("m={text}")
        .lines()
        .filter(|l| prefixes.is_empty() || prefixes.iter().any(|p| l.starts_with(p)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn summary(description: &MediaDescription) -> String {
    let mut out = format!("{:?}\n", description.extensions);
    for up in &description.ups {
        let rids: Vec<&str> = up.rids.iter().map(|r| &*r.0).collect();
        out += &format!(
            "up {} {:?} {} rtx {:?} rids {rids:?} ssrcs {:?}\n",
            up.mid.as_str(),
            up.kind,
            up.payload_type,
            up.rtx_payload_type,
            up.ssrcs
        );
    }
    for slot in &description.slots {
        let kind = if slot.is_audio { "audio" } else { "video" };
        out += &format!(
            "slot {} {kind} {} rtx {:?} ssrc {} rtx {:?}\n",
            slot.mid.as_str(),
            slot.payload_type,
            slot.rtx_payload_type,
            slot.ssrc,
            slot.rtx_ssrc
        );
    }
    out
}

#[test]
fn firefox_is_understood() {
    let answer = negotiator().handle_offer(FIREFOX, &ups()).expect("a real offer");
    assert_snapshot!(summary(&answer.description), @r#"
    ExtensionIds { mid: Some(3), rid: Some(9), repaired_rid: Some(10), audio_level: Some(1), transport_cc: Some(7), abs_send_time: Some(4) }
    up 0 Microphone 109 rtx None rids [] ssrcs [(2494162186, None)]
    up 1 Camera 120 rtx Some(124) rids ["q", "h", "f"] ssrcs [(3254819913, Some(2708226066)), (3052324747, Some(718445803)), (391902415, Some(2109190176))]
    up 2 Screen 120 rtx Some(124) rids [] ssrcs [(638660942, Some(74856657))]
    slot 3 audio 109 rtx None ssrc 72105175 rtx None
    slot 4 audio 109 rtx None ssrc 2503666544 rtx None
    slot 5 audio 109 rtx None ssrc 1071300230 rtx None
    slot 6 audio 109 rtx None ssrc 1409078865 rtx None
    slot 7 video 120 rtx Some(124) ssrc 1774428790 rtx Some(444786587)
    slot 8 video 120 rtx Some(124) ssrc 4122627767 rtx Some(3942864095)
    slot 9 video 120 rtx Some(124) ssrc 3742341412 rtx Some(3710884653)
    slot 10 video 120 rtx Some(124) ssrc 2354876523 rtx Some(3777912064)
    slot 11 video 120 rtx Some(124) ssrc 1401711116 rtx Some(2659102734)
    slot 12 video 120 rtx Some(124) ssrc 3252673146 rtx Some(2897242008)
    "#);
}

#[test]
fn chromium_is_understood() {
    let answer = negotiator().handle_offer(CHROMIUM, &ups()).expect("a real offer");
    assert_snapshot!(summary(&answer.description), @r#"
    ExtensionIds { mid: Some(4), rid: Some(10), repaired_rid: Some(11), audio_level: Some(1), transport_cc: Some(3), abs_send_time: Some(2) }
    up 0 Microphone 111 rtx None rids [] ssrcs [(3694589126, None)]
    up 1 Camera 96 rtx Some(97) rids ["q", "h", "f"] ssrcs []
    up 2 Screen 96 rtx Some(97) rids [] ssrcs [(2594476946, Some(291377302))]
    slot 3 audio 111 rtx None ssrc 72105175 rtx None
    slot 4 audio 111 rtx None ssrc 2503666544 rtx None
    slot 5 audio 111 rtx None ssrc 1071300230 rtx None
    slot 6 audio 111 rtx None ssrc 1409078865 rtx None
    slot 7 video 96 rtx Some(97) ssrc 1774428790 rtx Some(444786587)
    slot 8 video 96 rtx Some(97) ssrc 4122627767 rtx Some(3942864095)
    slot 9 video 96 rtx Some(97) ssrc 3742341412 rtx Some(3710884653)
    slot 10 video 96 rtx Some(97) ssrc 2354876523 rtx Some(3777912064)
    slot 11 video 96 rtx Some(97) ssrc 1401711116 rtx Some(2659102734)
    slot 12 video 96 rtx Some(97) ssrc 3252673146 rtx Some(2897242008)
    "#);
}

#[test]
fn the_session_part_names_the_bundle_and_ice_lite() {
    let answer = negotiator().handle_offer(CHROMIUM, &ups()).expect("a real offer");
    let session = answer.sdp.split("\r\nm=").next().expect("there is one").replace("\r\n", "\n");
    assert_snapshot!(session, @r"
    v=0
    o=- 3595544800446187243 0 IN IP4 0.0.0.0
    s=-
    t=0 0
    a=ice-lite
    a=group:BUNDLE 0 1 2 3 4 5 6 7 8 9 10 11 12
    a=msid-semantic:WMS *
    ");
}

#[test]
fn a_microphone_line_is_answered_with_a_stated_opus_rate() {
    let answer = negotiator().handle_offer(FIREFOX, &ups()).expect("a real offer");
    assert_snapshot!(section(&answer.sdp, 0, &[]), @r"
    m=audio 8443 UDP/TLS/RTP/SAVPF 109
    c=IN IP4 192.0.2.1
    a=mid:0
    a=ice-ufrag:server0
    a=ice-pwd:aPasswordOfTheServer0000
    a=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
    a=setup:passive
    a=rtcp-mux
    a=recvonly
    a=rtpmap:109 opus/48000/2
    a=fmtp:109 minptime=10;useinbandfec=1;stereo=0;maxaveragebitrate=40000
    a=rtcp-fb:109 transport-cc
    a=rtcp-fb:109 nack
    a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
    a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
    a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
    a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host
    a=candidate:2 1 udp 2130706175 2001:db8::1 8443 typ host
    a=candidate:3 1 tcp 1520435199 192.0.2.1 8443 typ host tcptype passive
    a=candidate:4 1 tcp 1520434943 2001:db8::1 8443 typ host tcptype passive
    a=end-of-candidates
    ");
}

#[test]
fn redundant_sound_is_taken_in_the_clients_order_and_only_of_opus() {
    let microphone = |formats: &str, parameters: &str| {
        let offer = small().replace("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n", &format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF {formats}\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 {parameters}\r\na=mid:0\r\n"
        ));
        assert_ne!(offer, small());
        let ups = [UpLine { mid: mid("0"), kind: UpKind::Microphone }];
        let answer = negotiator().handle_offer(&offer, &ups).expect("a good offer");
        let red = answer.description.ups[0].red_payload_type;
        (section(&answer.sdp, 0, &["m=", "a=rtpmap", "a=fmtp:63"]), red)
    };
    let (section, red) = microphone("111 63", "111/111");
    assert_eq!(red, Some(63));
    assert_snapshot!(section, @r"
    m=audio 8443 UDP/TLS/RTP/SAVPF 111 63
    a=rtpmap:111 opus/48000/2
    a=rtpmap:63 red/48000/2
    a=fmtp:63 111/111
    ");
    let (section, red) = microphone("63 111", "111/111/111");
    assert!(section.starts_with("m=audio 8443 UDP/TLS/RTP/SAVPF 63 111\n") && red == Some(63));
    for parameters in ["111/0", "0/0", "111", "111/", "/", "111/128"] {
        let (section, red) = microphone("63 111", parameters);
        assert!(red.is_none() && !section.contains("63"), "{parameters}: {section}");
    }
}

#[test]
fn slots_never_get_redundant_sound() {
    let answer = negotiator().handle_offer(CHROMIUM_MORE_SLOTS, &ups()).expect("a real offer");
    let lines = answer.sdp.matches("red/48000").count();
    assert_eq!(lines, 1, "the microphone's alone");
    assert_eq!(answer.sdp.matches(" nack\r\n").count() - answer.sdp.matches("VP8/90000").count(), 1);
}

#[test]
fn a_camera_line_is_answered_with_its_layers() {
    let answer = negotiator().handle_offer(CHROMIUM, &ups()).expect("a real offer");
    assert_snapshot!(section(&answer.sdp, 1, &[]), @r"
    m=video 8443 UDP/TLS/RTP/SAVPF 96 97
    c=IN IP4 192.0.2.1
    a=mid:1
    a=ice-ufrag:server0
    a=ice-pwd:aPasswordOfTheServer0000
    a=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
    a=setup:passive
    a=rtcp-mux
    a=rtcp-rsize
    a=recvonly
    a=rtpmap:96 VP8/90000
    a=rtpmap:97 rtx/90000
    a=fmtp:97 apt=96
    a=rtcp-fb:96 nack
    a=rtcp-fb:96 nack pli
    a=rtcp-fb:96 ccm fir
    a=rtcp-fb:96 goog-remb
    a=rtcp-fb:96 transport-cc
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
    a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
    a=rid:q recv
    a=rid:h recv
    a=rid:f recv
    a=simulcast:recv q;h;f
    ");
}

#[test]
fn a_slot_is_answered_with_a_stream_of_its_own() {
    let answer = negotiator().handle_offer(FIREFOX, &ups()).expect("a real offer");
    assert_snapshot!(section(&answer.sdp, 7, &[]), @r"
    m=video 8443 UDP/TLS/RTP/SAVPF 120 124
    c=IN IP4 192.0.2.1
    a=mid:7
    a=ice-ufrag:server0
    a=ice-pwd:aPasswordOfTheServer0000
    a=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
    a=setup:passive
    a=rtcp-mux
    a=rtcp-rsize
    a=sendonly
    a=rtpmap:120 VP8/90000
    a=rtpmap:124 rtx/90000
    a=fmtp:124 apt=120
    a=rtcp-fb:120 nack
    a=rtcp-fb:120 nack pli
    a=rtcp-fb:120 ccm fir
    a=rtcp-fb:120 goog-remb
    a=rtcp-fb:120 transport-cc
    a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
    a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
    a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
    a=msid:slot-7 slot-7
    a=ssrc-group:FID 1774428790 444786587
    a=ssrc:1774428790 cname:slot-7
    a=ssrc:444786587 cname:slot-7
    ");
}

#[test]
fn a_screen_line_has_one_layer_whatever_is_offered() {
    let ups = [UpLine { mid: mid("1"), kind: UpKind::Screen }];
    let answer = negotiator().handle_offer(CHROMIUM, &ups).expect("a real offer");
    assert!(answer.description.ups[0].rids.is_empty());
    assert!(!section(&answer.sdp, 1, &[]).contains("simulcast"));
}

#[test]
fn candidates_stand_in_the_first_accepted_section_only() {
    let answer = negotiator().handle_offer(FIREFOX, &ups()).expect("a real offer");
    assert_eq!(answer.sdp.matches("a=candidate:").count(), 4);
    assert_eq!(answer.sdp.matches("a=end-of-candidates").count(), 1);
    assert_eq!(
        section(&answer.sdp, 0, &["a=candidate", "c="]),
        "c=IN IP4 192.0.2.1\n\
         a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host\n\
         a=candidate:2 1 udp 2130706175 2001:db8::1 8443 typ host\n\
         a=candidate:3 1 tcp 1520435199 192.0.2.1 8443 typ host tcptype passive\n\
         a=candidate:4 1 tcp 1520434943 2001:db8::1 8443 typ host tcptype passive"
    );
}

#[test]
fn addresses_nobody_can_reach_are_no_candidates() {
    let mut local = params();
    local.candidates = ["0.0.0.0:1", "[::]:1", "[fe80::1]:1", "224.0.0.1:1", "192.0.2.1:0", "127.0.0.1:1"]
        .map(|a| a.parse().expect("an address"))
        .to_vec();
    local.candidates.extend((0..100).map(|i| SocketAddr::from(([192, 0, 2, 1], 8000 + i % 50))));
    let answer = Negotiator::new(local).handle_offer(FIREFOX, &ups()).expect("a real offer");
    assert_eq!(answer.sdp.matches("a=candidate:").count(), 2 * CANDIDATES_MAX);
    assert!(answer.sdp.contains("a=candidate:1 1 udp 2130706431 127.0.0.1 1 typ host"));
}

#[test]
fn without_transport_cc_no_trace_of_it_is_answered() {
    let mut negotiator = Negotiator::new(LocalDescriptionParams { transport_cc: false, ..params() });
    let answer = negotiator.handle_offer(CHROMIUM, &ups()).expect("a real offer");
    assert_eq!(answer.description.extensions.transport_cc, None);
    assert!(!answer.sdp.contains("transport-cc") && !answer.sdp.contains("transport-wide-cc"));
}

#[test]
fn more_slots_leave_the_others_as_they_are() {
    for (first, more) in [(FIREFOX, FIREFOX_MORE_SLOTS), (CHROMIUM, CHROMIUM_MORE_SLOTS)] {
        let mut negotiator = negotiator();
        let before = negotiator.handle_offer(first, &ups()).expect("a real offer").description;
        let answer = negotiator.handle_offer(more, &ups()).expect("a real re-offer");
        assert_eq!(answer.change, RemoteChange::Same);
        assert_eq!(answer.description.slots.len(), 14);
        // These second offers were recorded when no slot had been answered with transport-wide numbers.
        let grown = answer.description.slots[..10].iter().zip(&before.slots);
        let grown: Vec<_> = grown
            .map(|(slot, was)| SlotDescription { has_transport_cc: was.has_transport_cc, ..slot.clone() })
            .collect();
        assert_eq!(grown, before.slots);
        assert_eq!(answer.description.ups, before.ups);
        assert!(answer.sdp.contains("a=ice-ufrag:server0\r\n"));
    }
}

#[test]
fn every_ssrc_is_unique_and_follows_from_the_seed() {
    let describe = |seed| {
        let mut negotiator = Negotiator::new(LocalDescriptionParams { seed, ..params() });
        negotiator.handle_offer(FIREFOX_MORE_SLOTS, &ups()).expect("a real offer").description
    };
    let description = describe(1);
    let mut ssrcs: Vec<u32> =
        description.slots.iter().flat_map(|s| [Some(s.ssrc), s.rtx_ssrc]).flatten().collect();
    ssrcs.sort();
    ssrcs.dedup();
    assert_eq!(ssrcs.len(), 4 + 2 * 10, "one for each audio slot, two for each video slot");
    assert_eq!(description, describe(1));
    assert_ne!(description.slots[0].ssrc, describe(2).slots[0].ssrc);
}

#[test]
fn an_ice_restart_is_seen_and_answered_with_new_credentials() {
    let mut negotiator = negotiator();
    let first = negotiator.handle_offer(FIREFOX_MORE_SLOTS, &ups()).expect("a real offer").description;
    let offer = Offer::parse(FIREFOX_ICE_RESTART).expect("a real re-offer");
    assert_eq!(negotiator.change(&offer), RemoteChange::IceRestart);
    assert_eq!(negotiator.answer(&offer, &ups()).expect_err("none"), NegotiateError::NoNewCredentials);

    negotiator.restart(local_ice(1));
    let answer = negotiator.answer(&offer, &ups()).expect("a real re-offer");
    assert_eq!(answer.change, RemoteChange::IceRestart);
    assert!(answer.sdp.contains("a=ice-ufrag:server1\r\n") && !answer.sdp.contains("server0"));
    assert_eq!(answer.description.slots[..14], first.slots[..]);
    assert_eq!(negotiator.change(&offer), RemoteChange::Same, "once answered it is the one in force");
}

#[test]
fn credentials_brought_in_vain_are_forgotten() {
    let mut negotiator = negotiator();
    negotiator.handle_offer(FIREFOX, &ups()).expect("a real offer");
    negotiator.restart(local_ice(1));
    let answer = negotiator.handle_offer(FIREFOX_MORE_SLOTS, &ups()).expect("a real re-offer");
    assert!(answer.sdp.contains("server0"));
    assert_eq!(negotiator.local_ice(), &local_ice(0));
}

#[test]
fn another_peer_connection_of_the_same_client_starts_over() {
    let mut negotiator = negotiator();
    let before = negotiator.handle_offer(CHROMIUM_MORE_SLOTS, &ups()).expect("a real offer").description;
    let offer = Offer::parse(FIREFOX).expect("a real offer");
    assert_eq!(negotiator.change(&offer), RemoteChange::NewTransport);
    negotiator.restart(local_ice(1));
    let after = negotiator.answer(&offer, &ups()).expect("fewer lines, other numbers").description;
    assert_eq!(after.slots.len(), 10);
    for slot in &after.slots {
        let is_taken =
            before.slots.iter().any(|old| old.ssrc == slot.ssrc || old.rtx_ssrc == Some(slot.ssrc));
        assert!(!is_taken, "a new transport counts rollovers from 0, so its slots have SSRCs of their own");
    }
}

#[test]
fn a_data_channel_is_rejected_in_its_place() {
    let mut negotiator = negotiator();
    let answer = negotiator.handle_offer(FIREFOX_ICE_RESTART, &ups()).expect("a real offer");
    let index =
        FIREFOX_ICE_RESTART.split("\r\nm=").position(|s| s.starts_with("application")).expect("one") - 1;
    let answered = section(&answer.sdp, index, &[]);
    assert!(answered.starts_with("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\n"), "{answered}");
    let mid = answered.lines().find_map(|l| l.strip_prefix("a=mid:")).expect("a mid");
    let group = answer.sdp.lines().find_map(|l| l.strip_prefix("a=group:BUNDLE ")).expect("a group");
    assert!(!group.split(' ').any(|m| m == mid));
}

#[test]
fn a_line_without_our_codecs_is_rejected_in_its_place() {
    let sdp = small().replace("vp8", "H264");
    let answer = negotiator().handle_offer(&sdp, &microphone()).expect("audio is left");
    assert!(section(&answer.sdp, 2, &[]).starts_with("m=video 0 UDP/TLS/RTP/SAVPF 98\n"));
    assert_eq!(answer.description.slots.len(), 1);
    assert!(answer.sdp.contains("a=group:BUNDLE 0 1\r\n"));
}

#[test]
fn a_first_line_that_is_rejected_hands_the_candidates_to_the_next() {
    let sdp = small().replacen("opus", "speex", 1);
    let answer = negotiator().handle_offer(&sdp, &microphone()).expect("the slots are left");
    assert!(answer.description.ups.is_empty());
    assert_eq!(section(&answer.sdp, 0, &["a=candidate"]), "");
    assert_eq!(section(&answer.sdp, 1, &["a=candidate"]).lines().count(), 4);
}

#[test]
fn a_line_nobody_declared_is_inactive_and_may_be_used_later() {
    let mut negotiator = negotiator();
    let answer = negotiator.handle_offer(&small(), &[]).expect("valid");
    assert!(answer.description.ups.is_empty());
    assert!(section(&answer.sdp, 0, &[]).contains("\na=inactive\n"));
    let answer = negotiator.handle_offer(&small(), &microphone()).expect("valid");
    assert_eq!(answer.description.ups.len(), 1);
}

#[test]
fn feedback_is_what_both_sides_know() {
    let answer = negotiator().handle_offer(&small(), &microphone()).expect("valid");
    assert_eq!(section(&answer.sdp, 2, &["a=rtcp-fb"]), "a=rtcp-fb:96 nack");
}

#[test]
fn a_slot_without_retransmission_keeps_its_ssrc_when_it_gains_it() {
    let mut negotiator = negotiator();
    let without = small().replace("rtx/90000", "red/90000");
    let before = negotiator.handle_offer(&without, &microphone()).expect("valid").description;
    let after = negotiator.handle_offer(&small(), &microphone()).expect("valid").description;
    assert_eq!((before.slots[1].rtx_ssrc, before.slots[1].rtx_payload_type), (None, None));
    assert_eq!(before.slots[1].ssrc, after.slots[1].ssrc);
    assert!(after.slots[1].rtx_ssrc.is_some());
}

#[test]
fn layers_beyond_three_are_not_answered() {
    let sdp = CHROMIUM
        .replace("a=rid:f send\r\n", "a=rid:f send\r\na=rid:x send\r\n")
        .replace("send q;h;f", "send q;~h;f,q;x");
    let answer = negotiator().handle_offer(&sdp, &ups()).expect("valid");
    assert!(answer.sdp.contains("a=simulcast:recv q;h;f\r\n") && !answer.sdp.contains("a=rid:x"));
    let sdp = sdp.replace("send q;~h;f,q;x", "send x;q;h;f");
    let answer = negotiator().handle_offer(&sdp, &ups()).expect("valid");
    assert!(
        answer.sdp.contains("a=simulcast:recv q;h\r\n"),
        "neither the fourth of one list nor of the other"
    );
}

#[test]
fn extensions_beyond_the_one_byte_form_do_not_exist() {
    let sdp = small().replace("extmap:4 ", "extmap:15 ");
    let answer = negotiator().handle_offer(&sdp, &microphone()).expect("valid");
    assert_eq!(answer.description.extensions.mid, None);
}

#[test]
fn five_hundred_lines_are_refused() {
    let line = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n";
    assert_eq!(refusal(&format!("v=0\r\n{}", line.repeat(500)), &[]), NegotiateError::TooManyLines);
    let mids: String = (0..500).map(|i| format!(" {i}")).collect();
    assert_eq!(refusal(&format!("v=0\r\na=group:BUNDLE{mids}\r\n"), &[]), NegotiateError::TooManyLines);
}

#[test]
fn as_many_lines_as_are_allowed_are_answered() {
    let mut sdp = small();
    let mut mids = String::from("a=group:BUNDLE 0 1 2");
    for index in 3..LINES_MAX {
        mids += &format!(" {index}");
        sdp += &format!(
            "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=bundle-only\r\na=mid:{index}\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n"
        );
    }
    let answer = negotiator().handle_offer(&sdp.replace("a=group:BUNDLE 0 1 2", &mids), &microphone());
    assert_eq!(answer.expect("valid").description.slots.len(), LINES_MAX - 1);
}

#[test]
fn too_long_is_refused_unread() {
    assert_eq!(refusal(&"v=0\n".repeat(OFFER_BYTES_MAX / 4 + 1), &[]), NegotiateError::TooLong);
}

#[test]
fn each_fault_has_its_error() {
    use NegotiateError::*;
    let fingerprint = "a=fingerprint:sha-256 00:01";
    let cases: &[(&str, &str, NegotiateError)] = &[
        ("v=0\r\n", "", Syntax),
        ("s=-", "something", Syntax),
        ("s=-", "something=else", Syntax),
        ("m=audio 9 ", "m=audio 65536 ", Syntax),
        ("m=audio 9 ", "m=aud\u{e9} 9 ", Syntax),
        ("SAVPF 98 96 97", "SAVPF 98 96 128", Syntax),
        ("rtpmap:96", "rtpmap:+96", Syntax),
        ("rtpmap:96 ", "rtpmap:96\t", Syntax),
        ("apt=96", "apt=x", Syntax),
        ("extmap:1 ", "extmap:1/both ", Syntax),
        ("a=mid:1\r\n", "", Mid),
        ("a=mid:1\r\n", "a=mid:0\r\n", Mid),
        ("a=mid:1\r\n", "a=mid:a b\r\n", Mid),
        ("a=mid:1\r\n", "a=mid:1\r\na=rid:q! send\r\n", Rid),
        ("a=mid:1\r\n", "a=mid:1\r\na=rid:q send\r\na=rid:q send\r\n", Rid),
        ("a=mid:1\r\n", "a=mid:1\r\na=simulcast:send ;\r\n", Rid),
        ("a=mid:1\r\n", "a=mid:1\r\na=simulcast:send q;q\r\n", Rid),
        ("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 0 1", NotBundled),
        ("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 0 1 2\r\na=group:BUNDLE 2", NotBundled),
        ("a=group:BUNDLE 0 1 2", "a=group:LS 0 1 2", NotBundled),
        ("a=rtcp-mux\r\n", "", NoRtcpMux),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", NoMedia),
        ("a=ice-ufrag:client\r\n", "", Ice),
        ("a=ice-ufrag:client", "a=ice-ufrag:abc", Ice),
        ("a=ice-ufrag:client", "a=ice-ufrag:a:b:c", Ice),
        ("a=ice-pwd:aPasswordOfTheClient000", "a=ice-pwd:tooShort", Ice),
        ("a=setup:actpass", "a=setup:actpass\r\na=ice-lite", RemoteIceLite),
        (fingerprint, "a=fingerprint:sha-1 00:01", Fingerprint),
        (fingerprint, "a=fingerprint:sha-256 0001", Fingerprint),
        (fingerprint, "a=fingerprint:sha-256 +0:01", Fingerprint),
        (fingerprint, "a=fingerprint:sha-256 0:01", Fingerprint),
        (fingerprint, "a=fingerprint:sha-256 00:00:01", Fingerprint),
        ("a=setup:actpass\r\n", "", Setup),
        ("a=setup:actpass", "a=setup:passive", Setup),
        ("a=mid:1\r\n", "a=mid:1\r\na=ice-ufrag:other\r\n", Inconsistent),
        ("a=mid:1\r\n", "a=mid:1\r\na=ice-pwd:anotherPasswordOfTheClient\r\n", Inconsistent),
        ("a=mid:1\r\n", "a=mid:1\r\na=setup:passive\r\n", Inconsistent),
        ("a=mid:1\r\n", "a=mid:1\r\na=mid:7\r\n", Inconsistent),
        ("extmap:1 ", "extmap:4 ", Extensions),
        (
            "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\nm=",
            "a=extmap:5 urn:ietf:params:rtp-hdrext:sdes:mid\r\nm=",
            Extensions,
        ),
        ("a=sendonly", "a=recvonly", Ups),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 111", Ups),
    ];
    for (from, to, error) in cases {
        // The extension that differs is that of the second line; everything else is replaced wherever it stands.
        let sdp = if *error == NoMedia { small().replace(from, to) } else { small().replacen(from, to, 1) };
        assert_ne!(sdp, small(), "{from:?} is in the offer");
        assert_eq!(refusal(&sdp, &microphone()), *error, "{from:?} -> {to:?}");
    }
}

#[test]
fn ups_have_to_fit_the_lines() {
    let up = |m, kind| UpLine { mid: mid(m), kind };
    let wrong = [
        vec![up("9", UpKind::Microphone)],
        vec![up("0", UpKind::Camera)],
        vec![up("1", UpKind::Microphone)],
        vec![up("0", UpKind::Microphone), up("0", UpKind::Camera)],
        vec![up("0", UpKind::Microphone), up("1", UpKind::Microphone)],
        vec![up("0", UpKind::Microphone); 1000],
    ];
    for ups in wrong {
        assert_eq!(refusal(&small(), &ups), NegotiateError::Ups, "{:?}", ups.first());
    }
    let two_cameras = [up("1", UpKind::Camera), up("2", UpKind::Camera)];
    assert_eq!(refusal(CHROMIUM, &two_cameras), NegotiateError::Ups);
}

#[test]
fn a_line_in_use_stays_what_it_is() {
    let small = small();
    let without_last = small.rsplit_once("m=video").expect("there is one").0.to_owned();
    let changes = [
        without_last,
        small.replace("a=mid:2", "a=mid:3").replace("BUNDLE 0 1 2", "BUNDLE 0 1 3"),
        small.replacen("a=recvonly", "a=inactive", 1),
        small.replacen(
            "m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=bundle-only",
            "m=audio 0 UDP/TLS/RTP/SAVPF 111",
            1,
        ),
        small.replace("vp8", "AV1"),
    ];
    for changed in changes {
        let mut negotiator = negotiator();
        negotiator.handle_offer(&small, &microphone()).expect("valid");
        let error = negotiator.handle_offer(&changed, &microphone()).expect_err("changed");
        assert_eq!(error, NegotiateError::LineChanged, "{changed}");
    }
    let mut negotiator = negotiator();
    negotiator.handle_offer(&small, &microphone()).expect("valid");
    assert_eq!(negotiator.handle_offer(&small, &[]).expect_err("no up"), NegotiateError::LineChanged);
    let renumbered = small.replace("extmap:4 ", "extmap:5 ");
    assert_eq!(
        negotiator.handle_offer(&renumbered, &microphone()).expect_err("ids"),
        NegotiateError::Extensions
    );
}

#[test]
fn a_refused_offer_leaves_everything_as_it_was() {
    let mut disturbed = negotiator();
    let mut undisturbed = negotiator();
    for negotiator in [&mut disturbed, &mut undisturbed] {
        negotiator.handle_offer(&small(), &microphone()).expect("valid");
    }
    let restart = small().replace("ice-ufrag:client", "ice-ufrag:newone");
    disturbed.restart(local_ice(1));
    disturbed.handle_offer(&restart, &[]).expect_err("an up is missing");
    disturbed.handle_offer(&restart, &microphone()).expect_err("the credentials went with the refused offer");
    let answers =
        [&mut disturbed, &mut undisturbed].map(|n| n.handle_offer(&small(), &microphone()).expect("valid"));
    assert_eq!(answers[0].sdp, answers[1].sdp);
}

#[test]
fn reasons_quote_nothing_of_the_offer() {
    let secret = "s3cretName";
    for sdp in [secret.to_owned(), small().replace("a=mid:1", &format!("a=mid:{secret} {secret}"))] {
        assert!(!refusal(&sdp, &[]).to_string().contains(secret));
    }
}

/// What must hold for any text.
fn check(sdp: &str) {
    let mut negotiator = negotiator();
    let before = negotiator.handle_offer(FIREFOX, &ups()).expect("a real offer");
    negotiator.restart(local_ice(1));
    let Ok(offer) = Offer::parse(sdp) else { return };
    let answers = [negotiator.answer(&offer, &ups()), self::negotiator().answer(&offer, &ups())];
    for answer in answers.into_iter().flatten() {
        let sections = |sdp: &str| sdp.lines().filter(|l| l.starts_with("m=")).count();
        assert_eq!(sections(&answer.sdp), sections(sdp), "every line is answered");
        assert!(answer.sdp.len() <= 1024 + 2048 * LINES_MAX, "{} bytes", answer.sdp.len());
        assert!(answer.sdp.split("\r\n").all(|l| !l.contains(['\r', '\n', '\0'])));
        let mut reader = std::io::Cursor::new(answer.sdp.as_bytes());
        rtc_sdp::SessionDescription::unmarshal(&mut reader).expect("an independent reader takes the answer");
        for slot in &answer.description.slots {
            if let Some(known) = before.description.slots.iter().find(|s| s.mid == slot.mid)
                && known.is_audio == slot.is_audio
                && matches!(answer.change, RemoteChange::Same | RemoteChange::IceRestart)
            {
                assert_eq!(known.ssrc, slot.ssrc);
            }
        }
    }
}

proptest! {
    // Each case reads two whole offers; the fuzz target goes on from here.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_answered_or_refused(sdp in "\\PC*") {
        check(&sdp);
    }

    #[test]
    fn any_lines_are_answered_or_refused(lines in prop::collection::vec("(m=(audio|video) [0-9]{1,5} [A-Z/]{1,9} [0-9 ]{1,9}|a=(mid|rid|extmap|rtpmap|fmtp|ssrc|group|simulcast|ssrc-group|rtcp-fb|fingerprint):[a-z0-9 /:;,~*-]{0,20})", 0..40)) {
        check(&format!("v=0\r\n{}\r\n", lines.join("\r\n")));
    }

    #[test]
    fn mutated_offers_are_answered_or_refused(
        is_firefox: bool,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8), 1..6),
    ) {
        let mut lines: Vec<String> =
            (if is_firefox { FIREFOX } else { CHROMIUM }).lines().map(str::to_owned).collect();
        for (at, other, edit) in edits {
            if lines.len() < 2 {
                break;
            }
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match edit {
                0 => drop(lines.remove(at)),
                1 => lines.swap(at, other),
                2 => lines.insert(at, lines[other].clone()),
                3 => {
                    let text = lines[other].clone();
                    let (head, tail) = (lines[at].len() / 2, text.len() / 2);
                    lines[at] = format!("{}{}", &lines[at][..head], &text[tail..]);
                }
                _ => lines.truncate(at.max(1)),
            }
        }
        check(&(lines.join("\r\n") + "\r\n"));
    }
}
