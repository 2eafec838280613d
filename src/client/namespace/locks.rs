//! Locks the server granted to this mount. The server decides; this is the copy that is asserted again after a
//! reconnect, and that tells a close whether there is anything to unlock.
//!
//! A lock that this mount has asked to end may have a new holder already, whom an assertion would contradict. So it
//! is *leaving* from the question on: still in the table, but not asserted. The question itself is sent again.

use crate::base::{HandleId, Ino};
use crate::wire::{LockKind, LockOwner, LockRequest};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The table. Most mounts never lock anything, so emptiness is told without taking the mutex.
#[derive(Debug, Default)]
pub struct Locks {
    inodes: AtomicUsize,
    table: Mutex<Table>,
}

type Table = FxHashMap<Ino, Vec<Held>>;

#[derive(Clone, Copy, Debug)]
struct Held {
    lock: LockRequest,
    leaving: bool,
}

impl Locks {
    /// The server granted `lock`, or took it back when it is an unlock.
    pub fn granted(&self, ino: Ino, lock: LockRequest) {
        let mut table = self.table();
        let locks = table.entry(ino).or_default();
        let (mine, mut rest): (Vec<_>, Vec<_>) =
            locks.drain(..).partition(|held| held.lock.owner == lock.owner);
        for held in mine {
            cut(held, &lock, &mut rest);
        }
        if lock.kind != LockKind::Unlock {
            rest.push(Held { lock, leaving: false });
        }
        *locks = rest;
        self.settle(ino, &mut table);
    }

    /// `wish` is going to be asked for. What the server gives up for it, whatever it answers, is not asserted any more.
    pub fn asked(&self, ino: Ino, wish: &LockRequest) {
        if self.is_empty() {
            return;
        }
        match wish.kind {
            LockKind::Unlock => self.leaving_piece(ino, wish),
            // Granted in any case: nobody is in the way of less than is held.
            LockKind::Read if self.covers(ino, wish) => self.granted(ino, *wish),
            // A flock is removed before it is converted, and does not come back when the new one is refused.
            LockKind::Write if matches!(wish.owner, LockOwner::Flock(_)) => {
                let reads = |lock: &LockRequest| lock.owner == wish.owner && lock.kind == LockKind::Read;
                self.remove(ino, reads);
            }
            LockKind::Read | LockKind::Write => {}
        }
    }

    /// All record locks of an owner on an inode are asked to end.
    pub fn owner_leaves(&self, ino: Ino, owner: u64) {
        self.leave(ino, |lock| lock.owner == LockOwner::Record(owner));
    }

    /// All locks set through a handle are asked to end.
    pub fn handle_leaves(&self, ino: Ino, handle: HandleId) {
        self.leave(ino, |lock| lock.handle == handle.0);
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
        table
            .get(&ino)
            .is_some_and(|locks| locks.iter().any(|held| held.lock.owner == LockOwner::Record(owner)))
    }

    /// Handles whose locks here stand in the way of `lock`.
    #[must_use]
    pub fn in_the_way(&self, ino: Ino, lock: &LockRequest) -> Vec<HandleId> {
        let table = self.table();
        let held = table.get(&ino).into_iter().flatten();
        held.filter(|held| conflict(&held.lock, lock)).map(|held| HandleId(held.lock.handle)).collect()
    }

    /// Whether this mount has no locks at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inodes.load(Ordering::Acquire) == 0
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(Ino, LockRequest)> {
        self.list(|_| true)
    }

    /// Those that a server has to be told again.
    #[must_use]
    pub fn asserted(&self) -> Vec<(Ino, LockRequest)> {
        self.list(|held| !held.leaving)
    }

    fn list(&self, wanted: impl Fn(&Held) -> bool) -> Vec<(Ino, LockRequest)> {
        let table = self.table();
        let all = table.iter().flat_map(|(ino, locks)| locks.iter().map(move |held| (*ino, held)));
        all.filter(|(_, held)| wanted(held)).map(|(ino, held)| (ino, held.lock)).collect()
    }

    /// Whether the owner of `wish` holds all of its range in some way.
    fn covers(&self, ino: Ino, wish: &LockRequest) -> bool {
        let table = self.table();
        let own = table.get(&ino).into_iter().flatten();
        let own = own.filter(|held| held.lock.owner == wish.owner && !held.leaving);
        let mut pieces: Vec<_> = own.map(|held| (held.lock.start, held.lock.end)).collect();
        pieces.sort_unstable();
        let mut next = Some(wish.start);
        for (start, end) in pieces {
            match next {
                Some(at) if start <= at && end >= at => next = end.checked_add(1),
                _ => {}
            }
        }
        next.is_none_or(|at| at > wish.end)
    }

    /// The part of an owner's locks that `wish` ends is leaving.
    fn leaving_piece(&self, ino: Ino, wish: &LockRequest) {
        let mut table = self.table();
        let Some(locks) = table.get_mut(&ino) else { return };
        let (mine, mut rest): (Vec<_>, Vec<_>) =
            locks.drain(..).partition(|held| held.lock.owner == wish.owner);
        for held in mine {
            cut(held, wish, &mut rest);
            let (start, end) = (held.lock.start.max(wish.start), held.lock.end.min(wish.end));
            if start <= end {
                rest.push(Held { lock: LockRequest { start, end, ..held.lock }, leaving: true });
            }
        }
        *locks = rest;
    }

    fn leave(&self, ino: Ino, leaves: impl Fn(&LockRequest) -> bool) {
        let mut table = self.table();
        for held in table.get_mut(&ino).into_iter().flatten() {
            held.leaving |= leaves(&held.lock);
        }
    }

    fn remove(&self, ino: Ino, gone: impl Fn(&LockRequest) -> bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut table = self.table();
        let Some(locks) = table.get_mut(&ino) else { return false };
        let before = locks.len();
        locks.retain(|held| !gone(&held.lock));
        let removed = locks.len() != before;
        self.settle(ino, &mut table);
        removed
    }

    fn settle(&self, ino: Ino, table: &mut Table) {
        if table.get(&ino).is_some_and(Vec::is_empty) {
            table.remove(&ino);
        }
        self.inodes.store(table.len(), Ordering::Release);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
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
fn cut(held: Held, new: &LockRequest, out: &mut Vec<Held>) {
    let lock = held.lock;
    if lock.end < new.start || lock.start > new.end {
        out.push(held);
        return;
    }
    if lock.start < new.start {
        out.push(Held { lock: LockRequest { end: new.start - 1, ..lock }, ..held });
    }
    if lock.end > new.end {
        out.push(Held { lock: LockRequest { start: new.end + 1, ..lock }, ..held });
    }
}
