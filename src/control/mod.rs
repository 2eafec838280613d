//! The control socket of a mount: how `ringfs status`, `ringfs flush` and `ringfs umount` talk to the daemon.
//!
//! Comes in: one line of JSON per connection ([`protocol::Ask`]). Goes out: one line of JSON ([`protocol::Reply`]).
//! The socket is a unix socket in a folder of the user who mounted ([`place`]), named by the number of the FUSE
//! connection, so that a client finds it without touching the mount, which may hang. What is answered is supplied
//! by a [`server::Subject`]: nothing here knows what a mount is.
//!
//! Absent on purpose: authentication beyond the owner of the folder and of the peer, and any way to change options
//! of a running mount.
#![forbid(unsafe_code)]

pub mod client;
pub mod place;
pub mod protocol;
pub mod server;

#[cfg(test)]
mod tests;

pub use client::{ControlFault, ask};
pub use protocol::{Ask, Reply};
pub use server::{ControlServer, Subject};
