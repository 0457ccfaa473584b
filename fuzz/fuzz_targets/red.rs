//! cargo-fuzz target; see `asamblea_fuzz::red`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| asamblea_fuzz::red(data));
