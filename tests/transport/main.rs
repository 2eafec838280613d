//! Real mounts: the same scripts over every transport.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes, whatever they are")]

mod counting;
mod ends;
mod memory;
mod mounted;
mod null;
mod recall;
mod scripts;
