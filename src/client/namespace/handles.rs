//! Open files and directories, by the number the kernel has for them.

use crate::base::{HandleId, Ino};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// One open file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    /// What is open.
    pub ino: Ino,
    /// Flags of open(2).
    pub flags: u32,
    /// A lock was asked for through it: its release must unlock.
    pub locked: bool,
    /// One of its descriptors was closed after that; it may have been the last, and the release on its way.
    pub closing: bool,
}

/// The table. READ and WRITE do not come here: their request names the inode.
#[derive(Debug)]
pub struct Handles {
    next: AtomicU64,
    shards: Box<[Mutex<FxHashMap<HandleId, Handle>>]>,
}

impl Default for Handles {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Handles {
    /// A new number for something that is open now. Numbers are not used twice.
    pub fn open(&self, ino: Ino, flags: u32) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.shard(id).insert(id, Handle { ino, flags, locked: false, closing: false });
        id
    }

    /// Notes that a lock is being asked for.
    pub fn mark_locked(&self, id: HandleId) {
        if let Some(handle) = self.shard(id).get_mut(&id) {
            handle.locked = true;
        }
    }

    /// Notes that a descriptor was closed, if locks were asked for through it.
    pub fn mark_closing(&self, id: HandleId) {
        if let Some(handle) = self.shard(id).get_mut(&id) {
            handle.closing |= handle.locked;
        }
    }

    /// Ends a handle; `None` for one that is not open.
    pub fn close(&self, id: HandleId) -> Option<Handle> {
        self.shard(id).remove(&id)
    }

    /// The handle, if it is open.
    #[must_use]
    pub fn get(&self, id: HandleId) -> Option<Handle> {
        self.shard(id).get(&id).copied()
    }

    /// Number of open files and directories.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: HandleId) -> MutexGuard<'_, FxHashMap<HandleId, Handle>> {
        let index = usize::try_from(id.0 % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
