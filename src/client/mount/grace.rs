//! A second chance for locks that are refused because of a file that has just been closed here.
//!
//! On a local file system close(2) has ended the locks of an open file when it returns. Over FUSE the kernel sends RELEASE,
//! which ends them, behind the caller's back, so that the next lock may come first and find them. Such a refusal
//! is not told at once: it is asked again when a file with locks on that inode has been released, or when the grace is
//! over. Who closes a duplicate while the lock lives on makes others hear "no" that much later, never wrongly.

use super::Mount;
use crate::base::Ino;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Long against the way of a RELEASE on a busy host, short against a program that polls for a lock.
const GRACE: Duration = Duration::from_millis(50);

/// Refusals held back; one more is told at once.
const HELD_BACK_MAX: usize = 256;

/// Asks again.
type Retry = Box<dyn FnOnce(&Arc<Mount>) + Send>;

/// See the module.
#[derive(Default)]
pub(super) struct Grace {
    state: Mutex<State>,
    wake: Condvar,
    /// Releases done so far.
    releases: AtomicU64,
}

#[derive(Default)]
struct State {
    /// In the order of their deadlines, since all get the same time.
    waiting: VecDeque<Waiting>,
    thread_runs: bool,
}

struct Waiting {
    until: Instant,
    ino: Ino,
    retry: Retry,
}

impl Grace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mount {
    /// Holds a refusal back: `retry` runs when a release on `ino` is done ([`Self::locks_released`]) or the grace is over. When too
    /// many wait, or there is no thread to wait on, it runs at once.
    pub fn lock_refused(self: &Arc<Self>, ino: Ino, retry: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let mut state = self.grace.state();
        let full = state.waiting.len() >= HELD_BACK_MAX;
        if full || (!state.thread_runs && !self.start_thread()) {
            drop(state);
            return retry(self);
        }
        state.thread_runs = true;
        state.waiting.push_back(Waiting { until: Instant::now() + GRACE, ino, retry: Box::new(retry) });
        self.grace.wake.notify_one();
    }

    /// Locks on `ino` ended because the file they were set through was closed.
    pub fn locks_released(self: &Arc<Self>, ino: Ino) {
        self.grace.releases.fetch_add(1, Ordering::AcqRel);
        let mut state = self.grace.state();
        let (now, later): (VecDeque<_>, _) = state.waiting.drain(..).partition(|waiting| waiting.ino == ino);
        state.waiting = later;
        drop(state);
        now.into_iter().for_each(|waiting| (waiting.retry)(self));
    }

    /// Counts [`Self::locks_released`].
    #[must_use]
    pub fn lock_releases(&self) -> u64 {
        self.grace.releases.load(Ordering::Acquire)
    }

    /// The thread lives as long as somebody waits, and ends with the mount.
    fn start_thread(self: &Arc<Self>) -> bool {
        let mount = Arc::downgrade(self);
        let work = move || {
            while let Some(mount) = mount.upgrade() {
                if !mount.next_over() {
                    return;
                }
            }
        };
        crate::thread::start("ringfs-lock-grace", work).is_ok()
    }

    /// Waits for the next deadline and runs its retry. False: nobody waits, the thread ends.
    fn next_over(self: &Arc<Self>) -> bool {
        let mut state = self.grace.state();
        let Some(first) = state.waiting.front() else {
            state.thread_runs = false;
            return false;
        };
        let left = first.until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            drop(self.grace.wake.wait_timeout(state, left));
            return true;
        }
        let over = state.waiting.pop_front();
        drop(state);
        if let Some(over) = over {
            (over.retry)(self);
        }
        true
    }
}
