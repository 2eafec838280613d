//! See ../bodies/chunk_record.rs.
#![no_main]

#[path = "../bodies/chunk_record.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
