//! See ../bodies/wire_frame.rs.
#![no_main]

#[path = "../bodies/wire_frame.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
