//! The log behind one mutex, and the wake-ups of parked requests. No lock is held while bytes are copied or a
//! wake-up runs.

use super::{Bounds, Claim, Granted, Log, ParkId, Record, Refused, cost};
use crate::base::{Caller, Errno};
use crate::wire::{Mutation, Ticket};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Called exactly once for a parked request, on the thread that made room (or inside [`SharedLog::park`]): with a
/// claim to fill, or EINTR after [`SharedLog::unpark`], or ENOMEM when too many are parked. Must not block.
pub type Wake = Box<dyn FnOnce(Result<Claim, Errno>) + Send>;

/// The log of a mount, for all its threads.
pub struct SharedLog {
    inner: Mutex<Inner>,
    settled: Arc<AtomicU64>,
}

struct Inner {
    log: Log,
    wakes: FxHashMap<ParkId, Wake>,
}

impl SharedLog {
    /// An empty log.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let log = Log::new(bounds);
        let settled = Arc::new(AtomicU64::new(log.settled_below().0));
        Self { inner: Mutex::new(Inner { log, wakes: FxHashMap::default() }), settled }
    }

    /// [`Log::settled_below`], kept up to date here: the link puts it into each frame.
    #[must_use]
    pub fn settled_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.settled)
    }

    /// Takes a mutation and notes it as sent: the caller hands the record to the link at once.
    ///
    /// # Errors
    /// [`Refused::Full`]: copy what the request needs and [`SharedLog::park`] it.
    pub fn accept(&self, caller: Caller, mutation: &Mutation<'_>) -> Result<Record, Refused> {
        if !matches!(mutation, Mutation::Write { .. }) {
            let mut inner = self.lock();
            let record = inner.log.accept(caller, mutation)?;
            inner.log.sent(record.ticket);
            return Ok(record);
        }
        // The data of a write is copied without the lock.
        let claim = self.lock().log.claim(cost(mutation)?)?;
        Ok(self.fill(claim, caller, mutation))
    }

    /// Waits for room without a thread: `wake` gets the claim. The mutation filled in later must not cost more than
    /// this one.
    pub fn park(&self, mutation: &Mutation<'_>, wake: Wake) -> Option<ParkId> {
        let cost = match cost(mutation) {
            Ok(cost) => cost,
            Err(refused) => {
                wake(Err(refused.errno()));
                return None;
            }
        };
        let mut inner = self.lock();
        let Some((id, granted)) = inner.log.park(cost) else {
            drop(inner);
            wake(Err(Refused::Full.errno()));
            return None;
        };
        inner.wakes.insert(id, wake);
        Self::run(inner, granted);
        Some(id)
    }

    /// Gives up waiting: the request's wake-up gets EINTR. False when it had its claim before.
    pub fn unpark(&self, id: ParkId) -> bool {
        let mut inner = self.lock();
        let Some(granted) = inner.log.unpark(id) else { return false };
        let wake = inner.wakes.remove(&id);
        Self::run(inner, granted);
        if let Some(wake) = wake {
            wake(Err(Errno::EINTR));
        }
        true
    }

    /// Encodes the mutation a claim was made for, and notes it as sent.
    pub fn fill(&self, claim: Claim, caller: Caller, mutation: &Mutation<'_>) -> Record {
        let record = Record::encode(claim.ticket(), caller, mutation);
        let mut inner = self.lock();
        inner.log.fill(claim, &record);
        inner.log.sent(record.ticket);
        record
    }

    /// Gives a claim back that no mutation will fill.
    pub fn abandon(&self, claim: Claim) {
        self.settle(claim.ticket());
    }

    /// The outcome of `ticket` is known, or never will be. Runs the wake-ups of those who may come in for it.
    ///
    /// # Panics
    /// When it was settled before.
    pub fn settle(&self, ticket: Ticket) {
        let mut inner = self.lock();
        let granted = inner.log.settle(ticket);
        // Under the lock, so that it never goes back.
        self.settled.store(inner.log.settled_below().0, Ordering::Release);
        Self::run(inner, granted);
    }

    /// Looks at the log as it is.
    pub fn with<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(&self.lock().log)
    }

    fn run(mut inner: MutexGuard<'_, Inner>, granted: Granted) {
        if granted.is_empty() {
            return;
        }
        let woken: Vec<_> = granted.into_iter().map(|(id, claim)| (inner.wakes.remove(&id), claim)).collect();
        drop(inner);
        for (wake, claim) in woken {
            match wake {
                Some(wake) => wake(Ok(claim)),
                None => unreachable!("a parked request has a wake-up"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of another thread is that thread's bug; the log's steps are complete or not begun.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SharedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lock().log.fmt(f)
    }
}
