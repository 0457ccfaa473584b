//! cargo-fuzz target; see `asamblea_fuzz::dtls_prefilter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| asamblea_fuzz::dtls_prefilter(data));
