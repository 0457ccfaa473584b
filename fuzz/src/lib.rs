//! Fuzz targets: one plain function for each parser that meets the network.
//!
//! Each takes any bytes and asserts what must hold for all of them: no panic, bounded output, and that what is read
//! can be written and read again. cargo-fuzz calls them through `fuzz_targets/`, `cargo test` replays the corpora and
//! mutations of them (`tests/corpora.rs`). Nothing here measures time or keeps state between two inputs.

mod media;
mod relay;
mod text;
mod transport;

pub use media::{red, rtcp, rtp, vp8};
pub use relay::{turn, turn_stream};
pub use text::{protocol, sdp};
pub use transport::{dtls_prefilter, stun};

/// What a fuzzer calls: takes any bytes and panics when something does not hold.
pub type Target = fn(&[u8]);

/// All targets by the names of their corpora.
pub const TARGETS: [(&str, Target); 10] = [
    ("stun", stun),
    ("dtls_prefilter", dtls_prefilter),
    ("turn", turn),
    ("turn_stream", turn_stream),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("vp8", vp8),
    ("red", red),
    ("sdp", sdp),
    ("protocol", protocol),
];
