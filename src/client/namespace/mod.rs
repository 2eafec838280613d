//! What this mount knows of the volume: the inodes the kernel has in its hand, what is open, what is locked.
//!
//! In: what requests and the server's answers say of inodes, handles and locks. Out: whether an inode must be
//! held or dropped at the server, and after a reconnect all that has to be asserted again. Owns the counts; an
//! entry dies with the kernel's last FORGET, so memory is bounded by the kernel's own inode cache.
//!
//! An inode is *held* at the server from its first open here to its last close, so that it lives on without a
//! name. One that lost its last name by an operation of this mount stays held until the kernel has forgotten it
//! too: an `O_PATH` descriptor or a working directory keeps a file that nobody has open.
//!
//! Absent on purpose: names, attributes and data (no lease, nothing may be remembered), I/O, clocks.
#![forbid(unsafe_code)]

mod handles;

mod inodes;

mod locks;

#[cfg(test)]
mod tests;

pub use handles::{Handle, Handles};
pub use inodes::{InodeCounts, Inodes, OpenStep};
pub use locks::Locks;

/// All of it. Lock order: the three tables do not know each other, and no call into one is made under another's
/// lock.
#[derive(Debug, Default)]
pub struct Namespace {
    /// Inodes the kernel knows or that are held.
    pub inodes: Inodes,
    /// Open files and directories.
    pub handles: Handles,
    /// Locks this mount was granted.
    pub locks: Locks,
}
