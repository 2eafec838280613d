//! The client: what the kernel asks is answered here, with the server's help.
//!
//! In come requests of the transport, out go frames to the server. The parts do not know each other; `mount` ties
//! them together.

pub mod oplog;

pub mod link;
