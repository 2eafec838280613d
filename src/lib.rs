//! ringfs: a network file system whose small-file work runs as fast as FUSE itself allows.
//!
//! The modules stand in the order in which a request meets them; ARCHITECTURE.md follows one request
//! through the files and holds the table of who may import whom, which `tests/layers.rs` checks.

pub mod kernel;

pub mod client;

pub mod wire;

pub mod server;

pub mod control;

pub mod cli;

pub mod base;

pub mod thread;
