//! Real mounts of a real server: system calls on one side, a store in a folder on the other, all in this process.
//!
//! Needs root and /dev/fuse; says so and passes where they are missing. Single calls are the business of
//! `tests/kernels/exercise`, which is run here on each transport; what is tested here needs two mounts, or looks
//! at the client from inside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ground;
mod leases;
mod one;
mod two;
