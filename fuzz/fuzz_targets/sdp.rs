//! cargo-fuzz target; see `asamblea_fuzz::sdp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| asamblea_fuzz::sdp(data));
