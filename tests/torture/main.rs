//! Servers killed, networks cut, clients killed, again and again under load: what was promised is there exactly once.
//!
//! `RINGFS_ROUNDS=n` (here few; `make torture` takes 200), `RINGFS_SEED=n` repeats the workers' choices and the moments.
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

mod clients;

mod counts;

mod cuts;

mod net;

mod numbered;

mod prefix;

mod round;

mod servers;

mod state;

mod visitor;

mod watch;
