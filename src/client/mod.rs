//! The client: what the kernel asks is answered here, with the server's help.
//!
//! In come requests of the transport, out go frames to the server. [`serve`] takes a request, [`ops`] says what it
//! means, [`mount`] ties together what the parts below know without knowing each other.

pub mod serve;

pub mod ops;

pub mod mount;

pub mod namespace;

pub mod oplog;

pub mod link;

pub mod late;

pub mod tree;
