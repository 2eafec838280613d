//! The metadata store: ordered keys, changed by atomic commits.
//!
//! Comes in: keys and values as bytes ([`keys`] says which), grouped into one [`Changes`] per transaction.
//! Goes out: values, scans in key order, a [`CommitSeq`] per commit. The engine owns the bytes; who calls it owns
//! the order: there is one writer at a time, the caller's lock sees to that.
//! Absent on purpose: conflicts, retries and snapshots (one writer needs none), and any knowledge of POSIX.
//!
//! | engine | for |
//! |---|---|
//! | [`embedded`] | `ringfs serve DIR`: fjall in a folder |
//! | [`memory`] | the model the other is compared with, and tests of what stands above |

#![forbid(unsafe_code)]

mod changes;

mod fault;

mod key_cache;

pub mod memory;

pub mod embedded;

mod txn;

pub mod keys;

pub mod superblock;

pub mod inodes;

pub mod dirents;

pub mod attributes;

pub mod extents;

pub mod chunk_table;

pub mod counters;

pub mod sessions;

#[cfg(test)]
mod conformance;

pub use crate::base::NameHash;
pub use changes::Changes;
pub use fault::StoreFault;
pub use inodes::Inode;
pub use superblock::Superblock;
pub use txn::{Savepoint, WriteTxn};

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{ControlFlow, Deref};

/// Bytes that are cheap to clone: short ones lie inside, longer ones are shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Value(fjall::Slice);

impl Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

// As its bytes: a map is asked with a slice.
impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<[u8]> for Value {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(fjall::Slice::from(bytes))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(fjall::Slice::from(bytes))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// Direction of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Reverse,
}

/// What a scan calls for each key and value; `Break` ends the scan.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Number of a commit: 1 for the first one of a store, one more for each. 0: nothing was ever committed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CommitSeq(pub u64);

impl fmt::Display for CommitSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Reading: an [`Engine`] (what is committed) or a [`Txn`] (that, and its own writes over it).
pub trait View {
    /// The value of `key`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreFault>;

    /// Visits the keys in `from..to` (bytewise order, `to` exclusive) until `visit` breaks. A range whose end is not
    /// after its start is empty. `visit` must not write to what is scanned.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreFault>;
}

/// A transaction: reads see its own writes, and nothing is stored before it is committed, whole.
///
/// The POSIX rules are written over `&mut dyn Txn`. Same reads and writes in, same changes out: it asks no clock.
pub trait Txn: View {
    /// Sets `key` to `value`.
    fn put(&mut self, key: &[u8], value: &[u8]);

    /// Removes `key`; it need not exist.
    fn delete(&mut self, key: &[u8]);

    /// Adds to the usage counters ([`counters::usage`]), at the commit.
    fn add_usage(&mut self, inodes: i64, bytes: i64);
}

/// What keeps the keys. Safe to share: commits exclude each other, reads go beside them.
pub trait Engine: View + Send + Sync + 'static {
    /// Applies all changes or none. When it returns they survive the death of this process, not a loss of power.
    ///
    /// # Errors
    /// [`StoreFault::Full`] leaves the store as it was and usable; any other fault latches: later commits fail too.
    fn commit(&self, changes: &Changes) -> Result<CommitSeq, StoreFault>;

    /// Returns when every commit that returned before the call survives a loss of power. Commits go on beside it.
    ///
    /// # Errors
    /// The disk refused; latches.
    fn persist(&self) -> Result<(), StoreFault>;

    /// Rewrites everything that is alive and gives back the room of what was removed, if that at least halves what the
    /// keys take and the new copy has no more than `room_bytes`. Says whether it was done. Takes long; commits go on.
    ///
    /// # Errors
    /// The store cannot be read or written.
    fn rewrite(&self, room_bytes: u64) -> Result<bool, StoreFault> {
        let _nothing_removed_is_kept = room_bytes;
        Ok(false)
    }

    /// The last commit.
    fn last_commit(&self) -> CommitSeq;

    /// Bytes the keys take on the disk (of the memory engine: in memory).
    ///
    /// # Errors
    /// The folder cannot be read.
    fn disk_bytes(&self) -> Result<u64, StoreFault>;
}
