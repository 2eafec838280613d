//! Corners where systems that complete operations locally have been wrong, each on real mounts of a server: one mount works, the
//! other looks. Where it says "slow", the server stands still for a moment, so that what was done is still on its way.
//!
//! Needs root; without, the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "../cli/fixture.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod fixture;

#[path = "../model/random.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod random;

#[path = "../crash/stage.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod stage;

mod attributes;

mod files;

mod mounts;

mod names;

mod pair;
