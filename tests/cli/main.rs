//! The real program, from the outside: every command, and every bad situation a user can meet.
//!
//! Tests that mount need root and /dev/fuse; without them they say so and pass, so that `cargo test` works for an
//! ordinary user. Tests that change something of the whole host (a module parameter, a sysctl, the mode of /dev/fuse) hold
//! [`host::Host`] alone and put it back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod fixture;

mod host;

mod mounts;

mod servers;

mod situations;

mod words;
