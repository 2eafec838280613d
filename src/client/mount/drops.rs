//! Tells the server which inodes need not be held any more. Nobody waits for it, one message is on its way at a time,
//! and those who come meanwhile gather for the next, or for a moment: few messages when many files are deleted.

use super::{Mount, boottime};
use crate::base::{Errno, Ino};
use crate::wire::Query;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// Inodes in one message: 8 KiB.
const DROPS_MAX: usize = 1024;

/// Between two messages that are not full. A file whose removal is sent before the kernel has forgotten it has to be
/// dropped; without a pause each batch of removals would have a message of drops behind it.
const PAUSE: Duration = Duration::from_millis(50);

/// Which of the two, the call's return or its answer, came first.
const NEITHER: u8 = 0;
const RETURNED: u8 = 1;
const ANSWERED: u8 = 2;

impl Mount {
    /// Sends what has gathered, unless a message is on its way, whose answer sends the rest, or the last one was sent just now:
    /// then the thread for batches does, a moment later.
    pub fn send_drops(self: &Arc<Self>) {
        let (now, from) = (boottime(), *self.drops_from());
        if now < from {
            return self.sender.look_at(from);
        }
        while let Some(inos) = self.next_drops() {
            *self.drops_from() = boottime() + PAUSE;
            let first = Arc::new(AtomicU8::new(NEITHER));
            let (mount, other) = (Arc::clone(self), Arc::clone(&first));
            let query = Query::Drop { inos };
            // `query` is lent to the call, so the answer needs its own list.
            let Query::Drop { inos: dropped } = query.clone() else { return };
            self.link.call(&query, move |answer| {
                if let Err(errno) = answer
                    && errno != Errno::ENOTCONN
                {
                    tracing::warn!(%errno, inodes = dropped.len(), "the server did not take a drop");
                }
                mount.dropped(&dropped);
                if dropped.len() == DROPS_MAX {
                    *mount.drops_from() = Duration::ZERO;
                }
                if other.swap(ANSWERED, Ordering::AcqRel) == RETURNED {
                    mount.send_drops();
                }
            });
            // Answered inside the call: this loop goes on, so that answers do not pile up on the stack.
            if first.swap(RETURNED, Ordering::AcqRel) != ANSWERED {
                return;
            }
        }
    }

    /// Before that no more is sent.
    fn drops_from(&self) -> MutexGuard<'_, Duration> {
        self.drops_from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What took an inode's last name says that it is to be held, and must come first.
    fn next_drops(&self) -> Option<Vec<Ino>> {
        let state = self.state();
        self.namespace.inodes.next_drops(DROPS_MAX, |ino| state.hold_is_applied(ino))
    }

    fn dropped(self: &Arc<Self>, inos: &[Ino]) {
        let (waiters, again) = self.namespace.inodes.drops_done(inos);
        for ino in again {
            self.hold_again(ino, 1);
        }
        waiters.into_iter().for_each(|waiter| waiter());
    }

    /// Has an inode held that is counted as one more open for this. When it does not exist any more, descriptors of it
    /// are stale. `attempts`: a session that is lost takes what is in flight with it.
    pub(super) fn hold_again(self: &Arc<Self>, ino: Ino, attempts: u32) {
        let mount = Arc::clone(self);
        self.link.call(&Query::Hold { ino }, move |answer| {
            let drop = match answer {
                Ok(_) => {
                    mount.namespace.inodes.held(ino);
                    mount.namespace.inodes.closed(ino)
                }
                Err(Errno::EIO) if attempts > 1 => return mount.hold_again(ino, attempts - 1),
                Err(_) => mount.namespace.inodes.open_failed(ino, false),
            };
            if drop {
                mount.send_drops();
            }
        });
    }
}
