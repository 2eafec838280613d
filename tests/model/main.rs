//! Random operations through real system calls, on mounts and on a folder of an ordinary file system at once: after each
//! step both have given the same, and from time to time both trees are the same.
//!
//! `RINGFS_SEED=n` repeats a run, `RINGFS_STEPS=n` makes it longer. Needs root; without, the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "../cli/fixture.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod fixture;

#[path = "../crash/stage.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod stage;

mod at_will;

mod compare;

mod random;

mod script;

mod together;

mod world;
