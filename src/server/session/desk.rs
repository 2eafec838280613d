//! The lock table with the answers it owes. Answers are given after the table's mutex is free again.

use super::locks::{LockLimits, LockTable, Placed, Wake};
use crate::base::{Errno, Ino, SessionId};
use crate::wire::{LockRange, LockRequest};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the answer to a lock request goes; `Some` answers `GetLock`.
pub(crate) type LockReply = Box<dyn FnOnce(Result<Option<LockRange>, Errno>) + Send>;

/// See the module.
pub(crate) struct LockDesk {
    inner: Mutex<Inner>,
}

struct Inner {
    table: LockTable,
    /// One for each request that waits. Sent again after a reconnect, it replaces the one on the lost connection.
    replies: HashMap<(SessionId, u64), LockReply>,
}

/// One frame's request for a lock.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) session: SessionId,
    /// Sequence of the frame.
    pub(crate) sequence: u64,
    pub(crate) ino: Ino,
    pub(crate) lock: &'a LockRequest,
}

impl LockDesk {
    pub(super) fn new(limits: LockLimits, frozen: bool) -> Self {
        Self { inner: Mutex::new(Inner { table: LockTable::new(limits, frozen), replies: HashMap::new() }) }
    }

    /// `GetLock`.
    pub(crate) fn test(&self, ask: Ask<'_>, reply: LockReply) {
        let mut inner = self.inner();
        match inner.table.test(ask.session, ask.sequence, ask.ino, ask.lock) {
            Ok(None) => {
                inner.replies.insert((ask.session, ask.sequence), reply);
            }
            answer => {
                drop(inner);
                reply(answer);
            }
        }
    }

    /// `SetLock`.
    pub(crate) fn set(&self, ask: Ask<'_>, wait: bool, reply: LockReply) {
        let mut wakes = Vec::new();
        let mut inner = self.inner();
        let placed = inner.table.set(ask.session, ask.sequence, ask.ino, ask.lock, wait, &mut wakes);
        let answered = match placed {
            Ok(Placed::Waiting) => {
                inner.replies.insert((ask.session, ask.sequence), reply);
                None
            }
            Ok(Placed::Done) => Some((reply, Ok(None))),
            Err(errno) => Some((reply, Err(errno))),
        };
        // What the table wakes may be the very request that was placed just now, so its reply had to be there first.
        let woken = inner.take_replies(wakes);
        drop(inner);
        answered.into_iter().chain(woken).for_each(|(reply, answer)| reply(answer));
    }

    /// `CancelLock`.
    pub(crate) fn cancel(&self, session: SessionId, sequence: u64) {
        self.change(|table, wakes| table.cancel(session, sequence, wakes));
    }

    /// `UnlockOwner`.
    pub(crate) fn unlock_owner(&self, session: SessionId, ino: Ino, owner: u64) {
        self.change(|table, wakes| table.unlock_owner(session, ino, owner, wakes));
    }

    /// `UnlockHandle`.
    pub(crate) fn unlock_handle(&self, session: SessionId, ino: Ino, handle: u64) {
        self.change(|table, wakes| table.unlock_handle(session, ino, handle, wakes));
    }

    /// The locks of a `Reassert`.
    pub(super) fn assert_held(&self, session: SessionId, ino: Ino, lock: &LockRequest) -> Result<(), Errno> {
        self.inner().table.assert_held(session, ino, lock)
    }

    pub(super) fn drop_session(&self, session: SessionId) {
        self.change(|table, wakes| table.drop_session(session, wakes));
    }

    pub(super) fn thaw(&self) {
        self.change(LockTable::thaw);
    }

    /// Locks and waiting requests of a session.
    pub(super) fn load(&self, session: SessionId) -> (usize, usize) {
        self.inner().table.load(session)
    }

    /// Locks and waiting requests of all.
    pub(crate) fn total(&self) -> (usize, usize) {
        self.inner().table.total()
    }

    fn change(&self, work: impl FnOnce(&mut LockTable, &mut Vec<Wake>)) {
        let mut wakes = Vec::new();
        let mut inner = self.inner();
        work(&mut inner.table, &mut wakes);
        let woken = inner.take_replies(wakes);
        drop(inner);
        woken.into_iter().for_each(|(reply, answer)| reply(answer));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Owed = (LockReply, Result<Option<LockRange>, Errno>);

impl Inner {
    fn take_replies(&mut self, wakes: Vec<Wake>) -> Vec<Owed> {
        let owed = |wake: Wake| Some((self.replies.remove(&(wake.session, wake.sequence))?, wake.answer));
        wakes.into_iter().filter_map(owed).collect()
    }
}
