//! Real mounts: the same scripts over every transport.

mod counting;
mod ends;
mod memory;
mod mounted;
mod scripts;
