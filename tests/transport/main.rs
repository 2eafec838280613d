//! Real mounts: the same scripts over every transport.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes, whatever they are")]

mod counting;
mod ends;
#[path = "../mount/ground.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod ground;
mod local;
mod memory;
mod mounted;
mod null;
mod recall;
mod scripts;
mod yielding;
