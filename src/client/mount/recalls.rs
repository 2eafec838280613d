//! Gives leases back that the server wants, in the order that keeps everybody correct and nobody waiting for himself
//! (decision 0005).
//!
//! In: recalls, noted by the thread that receives. Out: one `Return` for all that wait. The thread `ringfs-recall` does it, since the
//! kernel may take its time; it answers no requests.

use super::{Mount, Stale};
use crate::base::Ino;
use crate::wire::{Query, Recall, Returned};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Leases in one `Return`: 24 KiB.
const RETURNED_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    inner: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    recalls: Vec<Recall>,
    stop: bool,
}

impl Recalls {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note.
    pub(super) fn add(&self, recalls: &[Recall]) {
        self.lock().recalls.extend_from_slice(recalls);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    /// Waits for recalls. `None`: there will be none any more.
    fn next(&self) -> Option<Vec<Recall>> {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.recalls.is_empty() && !waiting.stop;
        let mut waiting = self.wake.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        if waiting.stop { None } else { Some(std::mem::take(&mut waiting.recalls)) }
    }
}

impl Mount {
    /// Starts the thread. It ends with the mount.
    pub(super) fn start_recalls(self: &Arc<Self>) -> std::io::Result<()> {
        let (mount, recalls) = (Arc::downgrade(self), Arc::clone(&self.recalls));
        let work = move || {
            while let Some(some) = recalls.next() {
                let Some(mount) = mount.upgrade() else { return };
                some.chunks(RETURNED_MAX).for_each(|some| mount.give_back(some));
            }
        };
        std::thread::Builder::new().name("ringfs-recall".to_owned()).spawn(work).map(drop)
    }

    fn give_back(self: &Arc<Self>, recalls: &[Recall]) {
        let mut state = self.state();
        // Replies carry no time from here on; changes are still completed here.
        for recall in recalls {
            state.tree.recall_begin(recall);
        }
        state.counts.recalls += recalls.len() as u64;
        let mut inos: Vec<Ino> = recalls.iter().map(|recall| recall.ino).collect();
        inos.sort_unstable();
        inos.dedup();
        // Of what is a directory the kernel may have names.
        let names = inos.iter().any(|ino| state.tree.has_names(*ino));
        drop(state);
        self.forget_in_kernel(&Stale { names, inodes: inos.clone() });
        let last = self.state().tree.recall_stop(&inos);
        if let Some(last) = last {
            // Whatever comes of it: a lost session has taken the leases with it.
            self.drain_to(last);
        }
        let mut state = self.state();
        let returned = state.tree.recall_finish(&inos, |ino| self.namespace.inodes.lease_ends(ino));
        drop(state);
        self.send_returned(returned);
    }

    /// Gives leases back.
    pub(super) fn send_returned(&self, returned: Vec<Returned>) {
        if returned.is_empty() {
            return;
        }
        self.link.call(&Query::Return { returned }, |answer| {
            if let Err(errno) = answer {
                tracing::debug!(%errno, "the server did not take leases back");
            }
        });
    }

    /// Has the kernel forget, and waits for it.
    pub(super) fn forget_in_kernel(&self, stale: &Stale) {
        if let Some(caches) = self.caches.get()
            && *stale != Stale::default()
        {
            caches.forget(stale);
        }
    }
}
