//! cargo-fuzz target; see `asamblea_fuzz::turn`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| asamblea_fuzz::turn(data));
