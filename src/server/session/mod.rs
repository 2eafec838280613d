//! Sessions: who the clients are, how long they may be silent, and what ends with them.
//!
//! Comes in: handshakes, the beginning and end of each frame's work, the time. Goes out: whether a frame may be worked
//! on at all, answers to lock requests, grants and recalls of leases, and the end of what a client held
//! ([`Volume::end_session`]). The table ([`table`]) owns the sessions, the desks the locks ([`desk`]) and the leases
//! ([`lease_desk`]). A session outlives its connections by its lease and a
//! restart of the server by the grace period; it never comes back from the dead (semantics 3.7, 3.8).
//!
//! Absent on purpose: sockets, results of mutations (they are stored with the mutation, see `apply`).
//!
//! [`Volume::end_session`]: crate::server::apply::Volume::end_session
#![forbid(unsafe_code)]

pub mod locks;

mod desk;
mod lease_desk;
pub mod leases;
mod phase;
mod record;
mod state;
pub mod table;

pub(crate) use desk::{Ask, LockReply};
pub(crate) use lease_desk::{Granting, Held, Local, Parked};
pub use leases::LeaseLimits;
pub(crate) use leases::Stamp;
pub use locks::LockLimits;
pub use record::About;
pub(crate) use record::TEXT_BYTES_MAX;
pub(crate) use state::{Closer, LinkId, Session};
pub(crate) use table::{Claim, Entry, InHand, Sessions};
pub use table::{Clock, SessionOptions, SessionView};
