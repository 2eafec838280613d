//! Group commit: who waits for the disk is served in groups, one flush for all that came while the last one ran.

use super::Inner;
use crate::base::Errno;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Told after each flush which commit is durable, from the committer's thread: it must not block.
pub type DurableObserver = Box<dyn Fn(u64) + Send + Sync>;

/// Told once whether all that was applied before is durable.
pub type Synced = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// The queue of those who wait.
#[derive(Default)]
pub(super) struct Committer {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Synced>,
    /// Since when there has been a commit that no flush has begun after.
    dirty_since: Option<Instant>,
    stop: bool,
}

impl Committer {
    /// Bounded by what the sessions may have in flight. After the stop it fails at once.
    pub(super) fn push(&self, done: Synced) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.stop {
            drop(queue);
            return done(Err(Errno::EIO));
        }
        queue.waiting.push(done);
        self.wake.notify_one();
    }

    /// There is a commit that is not durable.
    pub(super) fn committed(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.dirty_since.is_none() {
            queue.dirty_since = Some(Instant::now());
            // Once in a while: it works out how long it may sleep.
            self.wake.notify_one();
        }
    }

    /// The thread ends when nobody waits any more.
    pub(super) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wake.notify_one();
    }

    /// The next group, without waiting. `None`: nobody waits, and all is durable.
    pub(super) fn take_now(&self) -> Option<Vec<Synced>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let dirty = queue.dirty_since.take().is_some();
        (dirty || !queue.waiting.is_empty()).then(|| std::mem::take(&mut queue.waiting))
    }

    /// The next group, empty when a commit has waited for `durable_every`; `None` to end.
    fn take(&self, durable_every: Duration) -> Option<Vec<Synced>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = queue.dirty_since.map(|since| durable_every.saturating_sub(since.elapsed()));
            if !queue.waiting.is_empty() || (left == Some(Duration::ZERO) && !queue.stop) {
                queue.dirty_since = None;
                return Some(std::mem::take(&mut queue.waiting));
            }
            if queue.stop {
                return None;
            }
            queue = match left {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl Inner {
    pub(super) fn commit_loop(&self) {
        while let Some(group) = self.committer.take(self.options.durable_every) {
            let result = self.flush();
            for done in group {
                done(result);
            }
        }
    }

    pub(super) fn flush(&self) -> Result<(), Errno> {
        if self.latch.get().is_some() {
            return Err(Errno::EIO);
        }
        let upto = self.store.engine().last_commit().0;
        self.store.persist().map_err(|fault| self.fault(fault))?;
        // A commit may have failed meanwhile.
        if self.latch.get().is_some() {
            return Err(Errno::EIO);
        }
        self.durable.fetch_max(upto, Ordering::AcqRel);
        for tell in &*self.observers.lock().unwrap_or_else(PoisonError::into_inner) {
            tell(upto);
        }
        Ok(())
    }
}
