//! Sessions: who the clients are, how long they may be silent, and what ends with them.
//!
//! Comes in: handshakes, the beginning and end of each frame's work, the time. Goes out: whether a frame may be worked
//! on at all, answers to lock requests, and the end of what a client held ([`Volume::end_session`]). The table
//! ([`table`]) owns the sessions, the desk ([`desk`]) the locks. A session outlives its connections by its lease and a
//! restart of the server by the grace period; it never comes back from the dead (semantics 3.7, 3.8).
//!
//! Absent on purpose: sockets, frames, results of mutations (they are stored with the mutation, see `apply`), leases of
//! clients on directories and files.
//!
//! [`Volume::end_session`]: crate::server::apply::Volume::end_session
#![forbid(unsafe_code)]

pub mod locks;

mod desk;
mod phase;
mod record;
mod state;
pub mod table;

pub(crate) use desk::{Ask, LockReply};
pub use locks::LockLimits;
pub use record::About;
pub(crate) use record::TEXT_BYTES_MAX;
pub(crate) use state::{Closer, LinkId, Session};
pub(crate) use table::{Claim, Entry, InHand, Sessions};
pub use table::{Clock, SessionOptions, SessionView};
