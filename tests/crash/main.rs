//! Server and client killed in the middle of work: what was promised holds afterwards.
//!
//! `RINGFS_SEED=n` repeats the moments at which something is killed. Needs root; without, the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "../cli/fixture.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod fixture;

#[path = "../model/random.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod random;

mod clients;

mod ends;

mod held;

mod servers;

#[allow(dead_code, reason = "shared with tests that use the rest")]
mod stage;

mod work;
