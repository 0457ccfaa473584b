//! cargo-fuzz target; see `asamblea_fuzz::turn_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| asamblea_fuzz::turn_stream(data));
