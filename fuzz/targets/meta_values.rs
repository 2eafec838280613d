//! See ../bodies/meta_values.rs.
#![no_main]

#[path = "../bodies/meta_values.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
