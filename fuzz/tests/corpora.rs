//! Replays every corpus through its target, and mutations of every file. The same seed gives the same mutations;
//! `ASAMBLEA_FUZZ_SEED` and `ASAMBLEA_FUZZ_MUTATIONS` (for each file) choose others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Enough to break what a small change breaks, few enough for a few seconds.
const MUTATIONS: u64 = 200;

/// For files beyond 4 kB, of which each run costs more.
const MUTATIONS_OF_LARGE: u64 = 20;

#[test]
fn stun() {
    replay("stun");
}

#[test]
fn dtls_prefilter() {
    replay("dtls_prefilter");
}

#[test]
fn turn() {
    replay("turn");
}

#[test]
fn turn_stream() {
    replay("turn_stream");
}

#[test]
fn rtp() {
    replay("rtp");
}

#[test]
fn rtcp() {
    replay("rtcp");
}

#[test]
fn vp8() {
    replay("vp8");
}

#[test]
fn red() {
    replay("red");
}

#[test]
fn sdp() {
    replay("sdp");
}

#[test]
fn protocol() {
    replay("protocol");
}

/// A corpus that only ever fails at the first byte would test nothing.
#[test]
fn recorded_files_get_through() {
    use asamblea_sfu_core::negotiate::Offer;
    use asamblea_sfu_core::transport::dtls_prefilter::Prefilter;
    use asamblea_sfu_core::transport::ice::{NodeSecret, authenticate_check};
    use asamblea_sfu_core::turn::{Stranger, TurnSecret};

    let read = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        std::fs::read(folder.join(name)).expect("it is committed")
    };
    let behind_length = |name: &str| read(name)[2..].to_vec();
    let greet = |message: &[u8]| {
        TurnSecret::new([7; 32]).greet(1_795_000_000, ([192, 0, 2, 44], 50_000).into(), message, |_| false)
    };
    for name in ["allocate", "allocate-fingerprint", "ipv6", "tcp-transport"] {
        assert_eq!(greet(&behind_length(&format!("turn/{name}"))), Stranger::Admit, "{name}");
    }
    for browser in ["firefox", "chromium"] {
        let check = read(&format!("stun/{browser}-check-0"));
        authenticate_check(&NodeSecret::new([7; 32]), &check).expect("recorded with this secret");

        let recorded = read(&format!("dtls_prefilter/{browser}-client-hello"));
        let first = usize::from(u16::from_be_bytes([recorded[0], recorded[1]]));
        let mut filter = Prefilter::new();
        let mut passed = Vec::new();
        filter.handle_datagram(&recorded[2..2 + first], &mut passed);
        filter.handle_datagram(&recorded[4 + first..], &mut passed);
        assert_eq!(filter.counters().messages, 1, "one ClientHello out of two datagrams");

        let offer = String::from_utf8(read(&format!("sdp/{browser}"))).expect("text");
        Offer::parse(&offer).expect("a real offer");
    }
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn replay(name: &str) {
    let seed = number_from("ASAMBLEA_FUZZ_SEED").unwrap_or(1);
    println!("ASAMBLEA_FUZZ_SEED={seed}");
    let target = asamblea_fuzz::TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> =
        folder.read_dir().expect("a corpus").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(files.len() >= 4, "the corpus of {name} is there");
    let contents: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("readable")).collect();
    for (file, content) in files.iter().zip(&contents) {
        let label = file.file_name().expect("a file").to_string_lossy();
        run(target, content, &format!("corpus/{name}/{label}"));
        let usual = if content.len() > 4096 { MUTATIONS_OF_LARGE } else { MUTATIONS };
        let mutations = number_from("ASAMBLEA_FUZZ_MUTATIONS").unwrap_or(usual);
        let mut random = SplitMix64(seed);
        for number in 0..mutations {
            let other = &contents[random.below(contents.len())];
            let mutated = mutated(content, other, &mut random);
            run(target, &mutated, &format!("mutation {number} of corpus/{name}/{label}, seed {seed}"));
        }
    }
    run(target, &[], "nothing");
}

/// Says which input it was and shows it, so that it can join the corpus.
fn run(target: asamblea_fuzz::Target, input: &[u8], label: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let shown: String = input.iter().take(2048).map(|byte| format!("{byte:02x}")).collect();
        panic!("{label} failed: {shown}");
    }
}

fn mutated(content: &[u8], other: &[u8], random: &mut SplitMix64) -> Vec<u8> {
    let mut out = content.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            out.push(random.next() as u8);
        }
        let at = random.below(out.len());
        let length = 1 + random.below((out.len() - at).min(64));
        match random.below(8) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'\n', b' '][random.below(8)],
            2 => out[at] = random.next() as u8,
            3 => out.truncate(at),
            4 => drop(out.drain(at..at + length)),
            5 => {
                let piece = out[at..at + length].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, piece);
            }
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let to = from + 1 + random.below((other.len() - from).min(64));
                let replaced = (at + to - from).min(out.len());
                out.splice(at..replaced, other[from..to].iter().copied());
            }
            _ => out.insert(at, random.next() as u8),
        }
    }
    out
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
