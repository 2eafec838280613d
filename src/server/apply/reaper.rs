//! Removes orphans that nobody holds, a bounded slice at a time, so that a large file that is unlinked stops nobody.

use super::Inner;
use crate::base::{Errno, Ino};
use crate::server::ops::{self, Reaped};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What waits to be removed. Lost at a stop, found again at the start: the store lists its orphans.
#[derive(Default)]
pub(super) struct Reaper {
    queue: Mutex<Queue>,
    wake: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    dead: VecDeque<Ino>,
    busy: bool,
    stop: bool,
}

/// Orphans removed in one transaction, when they are small.
const ORPHANS_PER_STEP: usize = 256;

/// A transaction with so many changes is committed before the next orphan.
const CHANGES_PER_STEP: usize = 4096;

/// Pause before the next try when the disk is full.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl Reaper {
    pub(super) fn push(&self, dead: Vec<Ino>) {
        if dead.is_empty() {
            return;
        }
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).dead.extend(dead);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wake.notify_one();
    }

    pub(super) fn wait_idle(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.busy || !queue.dead.is_empty() {
            queue = self.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next few; `None` to end.
    fn take(&self) -> Option<VecDeque<Ino>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.busy = false;
        loop {
            if queue.stop {
                queue.dead.clear();
                self.idle.notify_all();
                return None;
            }
            if !queue.dead.is_empty() {
                queue.busy = true;
                let count = queue.dead.len().min(ORPHANS_PER_STEP);
                return Some(queue.dead.drain(..count).collect());
            }
            self.idle.notify_all();
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next few, without waiting. `None`: there are none.
    pub(super) fn take_now(&self) -> Option<VecDeque<Ino>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = queue.dead.len().min(ORPHANS_PER_STEP);
        (count > 0).then(|| queue.dead.drain(..count).collect())
    }

    fn is_stopped(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stop
    }

    /// Waits a while, or until the stop.
    fn pause(&self) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.wake.wait_timeout_while(queue, RETRY_PAUSE, |queue| !queue.stop));
    }
}

impl Inner {
    pub(super) fn reap_loop(&self) {
        while let Some(dead) = self.reaper.take() {
            self.reap(dead);
        }
    }

    pub(super) fn reap(&self, mut dead: VecDeque<Ino>) {
        while !dead.is_empty() && !self.reaper.is_stopped() {
            match self.reap_step(&dead) {
                Ok(finished) => drop(dead.drain(..finished)),
                // Some room will be made: by others, or by the collector.
                Err(Errno::ENOSPC) => self.reaper.pause(),
                Err(errno) => {
                    // Logged where it was met. The next start finds these orphans again.
                    tracing::warn!(%errno, orphans = dead.len(), "orphans are kept until the next start");
                    break;
                }
            }
        }
    }

    /// One transaction; returns how many of `dead` are finished with.
    fn reap_step(&self, dead: &VecDeque<Ino>) -> Result<usize, Errno> {
        let _state = self.write_state();
        let mut txn = self.store.begin();
        let mut gone = Vec::new();
        let mut finished = 0;
        for &ino in dead {
            let before = txn.savepoint();
            // Somebody may have opened it since.
            let free = self.holds().is_free(ino);
            match if free { ops::reap(&mut txn, ino) } else { Ok(Reaped::Alive) } {
                Ok(Reaped::Partly) => break,
                Ok(Reaped::Gone) => gone.push(ino),
                Ok(Reaped::Alive) => {}
                Err(stop) => {
                    // This one is damaged, which is logged here; the others need not suffer.
                    txn.rollback(before);
                    let _logged = stop.errno();
                }
            }
            finished += 1;
            if txn.changes().len() >= CHANGES_PER_STEP {
                break;
            }
        }
        self.commit(txn)?;
        let mut holds = self.holds();
        for ino in gone {
            holds.not_orphan(ino);
        }
        Ok(finished)
    }
}
