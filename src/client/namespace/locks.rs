//! Locks the server granted to this mount. The server decides; this is the copy that is asserted again after a
//! reconnect, and that tells a close whether there is anything to unlock.

use crate::base::{HandleId, Ino};
use crate::wire::{LockKind, LockOwner, LockRequest};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The table. Most mounts never lock anything, so emptiness is told without taking the mutex.
#[derive(Debug, Default)]
pub struct Locks {
    inodes: AtomicUsize,
    table: Mutex<FxHashMap<Ino, Vec<LockRequest>>>,
}

impl Locks {
    /// The server granted `lock`, or took it back when it is an unlock.
    pub fn granted(&self, ino: Ino, lock: LockRequest) {
        let mut table = self.table();
        let locks = table.entry(ino).or_default();
        let (mine, mut rest): (Vec<_>, Vec<_>) = locks.drain(..).partition(|held| held.owner == lock.owner);
        for held in mine {
            cut(held, &lock, &mut rest);
        }
        if lock.kind != LockKind::Unlock {
            rest.push(lock);
        }
        *locks = rest;
        self.settle(ino, &mut table);
    }

    /// Ends all record locks of an owner on an inode. Whether there were any.
    pub fn unlock_owner(&self, ino: Ino, owner: u64) -> bool {
        self.remove(ino, |lock| lock.owner == LockOwner::Record(owner))
    }

    /// Ends all locks set through a handle. Whether there were any.
    pub fn unlock_handle(&self, ino: Ino, handle: HandleId) -> bool {
        self.remove(ino, |lock| lock.handle == handle.0)
    }

    /// Whether an owner has record locks on an inode.
    #[must_use]
    pub fn owner_has_any(&self, ino: Ino, owner: u64) -> bool {
        if self.inodes.load(Ordering::Acquire) == 0 {
            return false;
        }
        let table = self.table();
        table.get(&ino).is_some_and(|locks| locks.iter().any(|lock| lock.owner == LockOwner::Record(owner)))
    }

    /// Handles whose locks here stand in the way of `lock`.
    #[must_use]
    pub fn in_the_way(&self, ino: Ino, lock: &LockRequest) -> Vec<HandleId> {
        let table = self.table();
        let held = table.get(&ino).into_iter().flatten();
        held.filter(|held| conflict(held, lock)).map(|held| HandleId(held.handle)).collect()
    }

    /// Whether this mount has no locks at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inodes.load(Ordering::Acquire) == 0
    }

    /// All of them, for a server that has to be told again.
    #[must_use]
    pub fn all(&self) -> Vec<(Ino, LockRequest)> {
        let table = self.table();
        table.iter().flat_map(|(ino, locks)| locks.iter().map(|lock| (*ino, *lock))).collect()
    }

    fn remove(&self, ino: Ino, gone: impl Fn(&LockRequest) -> bool) -> bool {
        if self.inodes.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut table = self.table();
        let Some(locks) = table.get_mut(&ino) else { return false };
        let before = locks.len();
        locks.retain(|lock| !gone(lock));
        let removed = locks.len() != before;
        self.settle(ino, &mut table);
        removed
    }

    fn settle(&self, ino: Ino, table: &mut FxHashMap<Ino, Vec<LockRequest>>) {
        if table.get(&ino).is_some_and(Vec::is_empty) {
            table.remove(&ino);
        }
        self.inodes.store(table.len(), Ordering::Release);
    }

    fn table(&self) -> MutexGuard<'_, FxHashMap<Ino, Vec<LockRequest>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two locks cannot be held at the same time.
fn conflict(a: &LockRequest, b: &LockRequest) -> bool {
    let alike = matches!(
        (a.owner, b.owner),
        (LockOwner::Flock(_), LockOwner::Flock(_)) | (LockOwner::Record(_), LockOwner::Record(_))
    );
    let one_writes = a.kind == LockKind::Write || b.kind == LockKind::Write;
    alike && a.owner != b.owner && one_writes && a.start <= b.end && b.start <= a.end
}

/// Adds to `out` what `held` keeps outside the range of `new`.
fn cut(held: LockRequest, new: &LockRequest, out: &mut Vec<LockRequest>) {
    if held.end < new.start || held.start > new.end {
        out.push(held);
        return;
    }
    if held.start < new.start {
        out.push(LockRequest { end: new.start - 1, ..held });
    }
    if held.end > new.end {
        out.push(LockRequest { start: new.end + 1, ..held });
    }
}
