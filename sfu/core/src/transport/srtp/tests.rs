use super::*;
use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::{RTCCryptoProvider, providers::RingProvider};
use rtc_srtp::protection_profile::ProtectionProfile;

pub(super) fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80];

fn material(profile: Profile) -> Vec<u8> {
    (0..profile.keying_material_bytes()).map(|number| (number * 37 + 11) as u8).collect()
}

fn server(profile: Profile) -> Srtp {
    Srtp::new(profile, &material(profile))
}

/// The same keys, seen from the client: its keys come first in the material.
fn client(profile: Profile) -> Srtp {
    let material = material(profile);
    let (key, salt) = profile.master_bytes();
    let (keys, salts) = material.split_at(2 * key);
    let swapped = [&keys[key..], &keys[..key], &salts[salt..], &salts[..salt]].concat();
    Srtp::new(profile, &swapped)
}

/// The independent implementation, in one direction.
fn oracle(profile: Profile, is_client: bool) -> Context {
    let material = material(profile);
    let (key, salt) = profile.master_bytes();
    let (keys, salts) = material.split_at(2 * key);
    let (key, salt) = if is_client { (&keys[..key], &salts[..salt]) } else { (&keys[key..], &salts[salt..]) };
    let profile = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    Context::new(key, salt, profile, None, None, RingProvider::new().crypto()).unwrap()
}

/// An RTP packet: with a number of sources, an extension of a number of words or none, a payload, and padding.
fn rtp(ssrc: u32, sequence: u16, sources: u8, words: Option<u8>, payload: &[u8], padding: u8) -> Vec<u8> {
    let mut out = vec![0x80 | sources, 111];
    out[0] |= if words.is_some() { 0x10 } else { 0 } | if padding > 0 { 0x20 } else { 0 };
    out.extend(sequence.to_be_bytes());
    out.extend([1, 2, 3, 4]);
    out.extend(ssrc.to_be_bytes());
    out.extend((0..4 * usize::from(sources)).map(|number| number as u8));
    if let Some(words) = words {
        out.extend([0xbe, 0xde, 0, words]);
        // One-byte elements: id 1, one byte long, then padding.
        for _ in 0..words {
            out.extend([0x10, 7, 0, 0]);
        }
    }
    out.extend(payload);
    if padding > 0 {
        out.extend(std::iter::repeat_n(0, usize::from(padding) - 1));
        out.push(padding);
    }
    out
}

fn rtcp(ssrc: u32, words: u16) -> Vec<u8> {
    let mut out = vec![0x80, 201];
    out.extend((words + 1).to_be_bytes());
    out.extend(ssrc.to_be_bytes());
    out.extend((0..4 * words).map(|number| number as u8));
    out
}

fn seal_rtp(srtp: &mut Srtp, plain: &[u8], extended_sequence: u64) -> Vec<u8> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + RTP_OVERHEAD_BYTES_MAX, 0);
    let sealed_bytes = srtp.seal_rtp(&mut buffer, plain.len(), extended_sequence);
    buffer.truncate(sealed_bytes);
    buffer
}

fn seal_rtcp(srtp: &mut Srtp, plain: &[u8]) -> Vec<u8> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + RTCP_OVERHEAD_BYTES_MAX, 0);
    let sealed_bytes = srtp.seal_rtcp(&mut buffer, plain.len());
    buffer.truncate(sealed_bytes);
    buffer
}

fn open_rtp(srtp: &mut Srtp, sealed: &[u8]) -> Result<Vec<u8>, SrtpDrop> {
    let mut buffer = sealed.to_vec();
    let plain_bytes = srtp.open_rtp(&mut buffer)?;
    buffer.truncate(plain_bytes);
    Ok(buffer)
}

fn open_rtcp(srtp: &mut Srtp, sealed: &[u8]) -> Result<Vec<u8>, SrtpDrop> {
    let mut buffer = sealed.to_vec();
    let plain_bytes = srtp.open_rtcp(&mut buffer)?;
    buffer.truncate(plain_bytes);
    Ok(buffer)
}

fn packets() -> impl Strategy<Value = (u32, u16, u8, Option<u8>, Vec<u8>, u8)> {
    (
        any::<u32>(),
        any::<u16>(),
        0u8..16,
        proptest::option::of(0u8..6),
        proptest::collection::vec(any::<u8>(), 0..200),
        0u8..9,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn another_library_opens_what_we_seal((ssrc, sequence, sources, words, payload, padding) in packets()) {
        let plain = rtp(ssrc, sequence, sources, words, &payload, padding);
        for profile in PROFILES {
            let sealed = seal_rtp(&mut server(profile), &plain, sequence.into());
            prop_assert_eq!(sealed.len(), plain.len() + server(profile).overhead_bytes());
            prop_assert_eq!(&oracle(profile, false).decrypt_rtp(&sealed).unwrap()[..], &plain[..]);
        }
    }

    #[test]
    fn we_open_what_another_library_seals((ssrc, sequence, sources, words, payload, padding) in packets()) {
        let plain = rtp(ssrc, sequence, sources, words, &payload, padding);
        for profile in PROFILES {
            let sealed = oracle(profile, true).encrypt_rtp(&plain).unwrap();
            prop_assert_eq!(open_rtp(&mut server(profile), &sealed).unwrap(), plain.clone());
        }
    }

    #[test]
    fn rtcp_agrees_with_another_library(ssrc: u32, words in 0u16..100, count in 1usize..4) {
        let plain = rtcp(ssrc, words);
        for profile in PROFILES {
            let (mut ours, mut theirs) = (server(profile), oracle(profile, false));
            let (mut sender, mut receiver) = (oracle(profile, true), server(profile));
            for _ in 0..count {
                let sealed = seal_rtcp(&mut ours, &plain);
                prop_assert_eq!(sealed.len(), plain.len() + ours.rtcp_overhead_bytes());
                prop_assert_eq!(&theirs.decrypt_rtcp(&sealed).unwrap()[..], &plain[..]);
                let sealed = sender.encrypt_rtcp(&plain).unwrap();
                prop_assert_eq!(open_rtcp(&mut receiver, &sealed).unwrap(), plain.clone());
            }
        }
    }

    #[test]
    fn a_changed_bit_is_noticed_and_leaves_no_state(
        (ssrc, sequence, sources, words, payload, padding) in packets(), bit in any::<prop::sample::Index>()
    ) {
        let plain = rtp(ssrc, sequence, sources, words, &payload, padding);
        for profile in PROFILES {
            let mut sealed = seal_rtp(&mut client(profile), &plain, sequence.into());
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            let mut receiver = server(profile);
            prop_assert!(open_rtp(&mut receiver, &sealed).is_err());
            prop_assert_eq!(receiver.ssrcs(), 0);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), looks_right: bool) {
        if looks_right && !bytes.is_empty() {
            bytes[0] = bytes[0] & 0x3f | 0x80;
        }
        for profile in PROFILES {
            let mut receiver = server(profile);
            prop_assert!(open_rtp(&mut receiver, &bytes).is_err());
            prop_assert!(open_rtcp(&mut receiver, &bytes).is_err());
            prop_assert_eq!(receiver.ssrcs(), 0);
        }
    }
}

#[test]
fn a_packet_opens_once() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (client(profile), server(profile));
        let sealed = seal_rtp(&mut sender, &rtp(1, 7, 0, None, b"voice", 0), 7);
        assert!(open_rtp(&mut receiver, &sealed).is_ok());
        assert_eq!(open_rtp(&mut receiver, &sealed), Err(SrtpDrop::Replayed));
        let sealed = seal_rtcp(&mut sender, &rtcp(1, 6));
        assert!(open_rtcp(&mut receiver, &sealed).is_ok());
        assert_eq!(open_rtcp(&mut receiver, &sealed), Err(SrtpDrop::Replayed));
    }
}

#[test]
fn a_stream_goes_on_over_rollovers_loss_and_reordering() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (client(profile), server(profile));
        let mut theirs = oracle(profile, true);
        for extended in (65_000u64..200_000).step_by(90) {
            for late in [extended, extended - 40] {
                let plain = rtp(5, late as u16, 0, Some(1), b"video", 0);
                let sealed = seal_rtp(&mut sender, &plain, late);
                assert_eq!(open_rtp(&mut receiver, &sealed), Ok(plain), "{late}");
            }
        }
        // Our extended sequence number is the library's rollover counter.
        let plain = rtp(9, 65_535, 0, None, b"x", 0);
        theirs.encrypt_rtp(&plain).unwrap();
        let plain = rtp(9, 0, 0, None, b"x", 0);
        assert_eq!(theirs.encrypt_rtp(&plain).unwrap()[..], seal_rtp(&mut sender, &plain, 65_536)[..]);
    }
}

#[test]
fn the_streams_of_a_peer_are_bounded() {
    let (mut sender, mut receiver) = (client(Profile::AeadAes128Gcm), server(Profile::AeadAes128Gcm));
    for ssrc in 0..SSRCS_MAX as u32 {
        let sealed = seal_rtp(&mut sender, &rtp(ssrc, 1, 0, None, b"x", 0), 1);
        assert!(open_rtp(&mut receiver, &sealed).is_ok());
    }
    let sealed = seal_rtp(&mut sender, &rtp(1_000, 1, 0, None, b"x", 0), 1);
    assert_eq!(open_rtp(&mut receiver, &sealed), Err(SrtpDrop::TooManySsrcs));
    assert_eq!(receiver.ssrcs(), SSRCS_MAX);
}

#[test]
fn rtcp_in_the_clear_is_refused() {
    for profile in PROFILES {
        let mut sealed = seal_rtcp(&mut client(profile), &rtcp(1, 6));
        let (_, behind) = server(profile).inbound.rtcp_tail_bytes();
        let flag_at = sealed.len() - behind - RTCP_INDEX_BYTES;
        sealed[flag_at] &= 0x7f;
        assert_eq!(open_rtcp(&mut server(profile), &sealed), Err(SrtpDrop::Unencrypted));
    }
}

#[test]
fn the_directions_have_keys_of_their_own() {
    for profile in PROFILES {
        let sealed = seal_rtp(&mut server(profile), &rtp(1, 1, 0, None, b"x", 0), 1);
        assert_eq!(open_rtp(&mut server(profile), &sealed), Err(SrtpDrop::Unauthentic));
    }
}
