//! See ../bodies/fuse_request.rs.
#![no_main]

#[path = "../bodies/fuse_request.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
