//! See ../bodies/wire_hello.rs.
#![no_main]

#[path = "../bodies/wire_hello.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
