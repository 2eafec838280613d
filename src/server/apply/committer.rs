//! Group commit: who waits for the disk is served in groups, one flush for all that came while the last one ran.

use super::Inner;
use crate::base::Errno;
use std::sync::{Condvar, Mutex, PoisonError};

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

    /// The thread ends when nobody waits any more.
    pub(super) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wake.notify_one();
    }

    /// The next group; `None` to end.
    fn take(&self) -> Option<Vec<Synced>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if !queue.waiting.is_empty() {
                return Some(std::mem::take(&mut queue.waiting));
            }
            if queue.stop {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Inner {
    pub(super) fn commit_loop(&self) {
        while let Some(group) = self.committer.take() {
            let result = self.flush();
            for done in group {
                done(result);
            }
        }
    }

    fn flush(&self) -> Result<(), Errno> {
        if self.latch.get().is_some() {
            return Err(Errno::EIO);
        }
        self.store.persist().map_err(|fault| self.fault(fault))?;
        // A commit may have failed meanwhile.
        if self.latch.get().is_some() { Err(Errno::EIO) } else { Ok(()) }
    }
}
