//! cargo-fuzz target; see `asamblea_fuzz::vp8`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| asamblea_fuzz::vp8(data));
