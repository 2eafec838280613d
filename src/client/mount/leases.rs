//! How long leases are good, what happens when they end all at once, and which are given up when there are too many.
//!
//! ```text
//!  good ──── no answer for a lease less its margin ────► late: nothing is answered from them
//!   ▲                                                      │
//!   ├──────────── the server still knows the session ──────┤
//!   │                                                      ▼
//!   └── a new session begins with none ◄──── lost: the server has forgotten the session
//! ```
//! A restart of the server keeps the session and ends the leases: what was not durable there is sent again, and each is
//! earned anew.

use super::failures::LOST;
use super::{Mount, Stale, State};
use crate::base::{Ino, Time};
use crate::client::link::{Held, LogOutcomes, Logged, Owner, boottime};
use crate::wire::hello::Welcome;
use crate::wire::{LockKind, LockRequest, Recall, Ticket};
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks whether leases are still good.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Steps of giving up what is too much, at a time. One looks at some thousand inodes.
const TRIMS_MAX: usize = 256;

/// How long coming back to the server waits for the kernel to forget.
const FORGET_PATIENCE: Duration = Duration::from_millis(500);

/// Inodes that the kernel is told of at once.
const STALE_MAX: usize = 4096;

/// The thread that looks.
#[derive(Debug, Default)]
pub(super) struct Lease {
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Lease {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        *self.lock() = true;
        self.wake.notify_all();
    }

    /// False: the mount ends.
    fn pause(&self) -> bool {
        let waited = self.wake.wait_timeout_while(self.lock(), LOOK_EVERY, |stop| !*stop);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Mount {
    /// How long leases are good from `now` on. `None`: nothing is answered from them.
    pub(super) fn leases_left(&self, now: Duration, state: &State) -> Option<Duration> {
        if !self.leased || state.degraded {
            return None;
        }
        self.valid_until().checked_sub(now).filter(|left| !left.is_zero())
    }

    /// When leases end if the server is not heard again.
    fn valid_until(&self) -> Duration {
        self.link.answered_since() + Duration::from_millis(self.usable_ms.load(Ordering::Relaxed))
    }

    /// A server was connected to, whose leases last as it says.
    pub(super) fn welcomed(&self, welcome: &Welcome) {
        let lease = Duration::from_millis(welcome.lease_ms.into());
        let usable = lease.saturating_sub(self.options.margin(lease));
        self.usable_ms.store(u64::try_from(usable.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// The server's clock at `now`.
    pub(super) fn server_time(&self, now: Duration) -> Time {
        self.link.server_time(now)
    }

    /// Starts the thread that looks whether leases are still good. It ends with the mount.
    pub(super) fn start_lease(self: &Arc<Self>) -> std::io::Result<()> {
        let (mount, lease) = (Arc::downgrade(self), Arc::clone(&self.lease));
        let work = move || {
            let mut good = true;
            while lease.pause() {
                let Some(mount) = mount.upgrade() else { return };
                let now_good = mount.valid_until() > boottime();
                if good && !now_good {
                    tracing::warn!(
                        "the server is silent: nothing is answered from leases until it is heard again"
                    );
                    mount.forget_all_in_kernel();
                }
                good = now_good;
                mount.trim();
            }
        };
        std::thread::Builder::new().name("ringfs-lease".to_owned()).spawn(work).map(drop)
    }

    /// Gives up what is known beyond the bounds, and was not used for longest.
    fn trim(&self) {
        for _ in 0..TRIMS_MAX {
            let mut state = self.state();
            if !state.tree.is_over() {
                return;
            }
            let returned = state.tree.trim(|ino| self.namespace.inodes.is_in_use(ino));
            drop(state);
            self.send_returned(returned);
        }
    }

    /// Has the kernel forget all that it may have kept. What it keeps has an end of its own, but by a clock that
    /// stands still while the machine sleeps.
    fn forget_all_in_kernel(&self) {
        let inodes = self.state().tree.leased();
        self.forget_in_kernel(&Stale { names: true, inodes: Vec::new() });
        for inodes in inodes.chunks(STALE_MAX) {
            self.forget_in_kernel(&Stale { names: false, inodes: inodes.to_vec() });
        }
    }

    /// All leases are gone, at the server too.
    fn leases_gone(self: &Arc<Self>) {
        let inodes = self.state().tree.drop_leases();
        self.forget_gone(inodes);
    }

    /// Has the kernel forget what it kept under leases that are gone. Waits for that, since others may change it as soon as
    /// the server hears of us again; but not for ever: the kernel may wait for an answer that only the server can give.
    fn forget_gone(self: &Arc<Self>, inodes: Vec<Ino>) {
        let mount = Arc::clone(self);
        let (told, hears) = sync_channel(1);
        let tell = move || {
            mount.forget_in_kernel(&Stale { names: true, inodes: Vec::new() });
            for inodes in inodes.chunks(STALE_MAX) {
                mount.forget_in_kernel(&Stale { names: false, inodes: inodes.to_vec() });
            }
            // Whoever waited may have gone on.
            let _ = told.send(());
        };
        if crate::thread::start("ringfs-forget", tell).is_err() {
            tracing::error!("no thread to tell the kernel what it must forget");
        } else if hears.recv_timeout(FORGET_PATIENCE).is_err() {
            tracing::warn!("the kernel takes its time to forget what leases allowed it to keep");
        }
    }
}

impl Owner for Mount {
    fn held(&self) -> Held {
        let mut holds = self.namespace.inodes.all_held();
        // What takes the last name of these is sent again, and has them held; before that they may not be there at all.
        let state = self.state();
        holds.retain(|ino| !state.unlinked.contains_key(ino));
        drop(state);
        Held { holds, locks: self.namespace.locks.asserted() }
    }

    fn lost(&self, restarted: bool) {
        let Some(mount) = self.myself.upgrade() else { return };
        let locks = self.namespace.locks.all();
        let open = self.namespace.inodes.lost();
        if !locks.is_empty() || !open.is_empty() {
            tracing::error!(
                locks = locks.len(),
                open = open.len(),
                "the server has forgotten this mount: its locks are gone, and open files that have no name"
            );
        }
        for (ino, lock) in locks {
            self.namespace.locks.granted(ino, LockRequest { kind: LockKind::Unlock, ..lock });
        }
        let mut state = mount.state();
        let mut answered = state.log.fence(restarted);
        state.numbers.clear();
        state.session_lost();
        let waiters: Vec<_> = state.waiters.drain().collect();
        state.on_the_way.clear();
        let behind = std::mem::take(&mut state.behind);
        mount.settle(&mut state);
        // In the same step: nothing may be completed by leases that are gone.
        let inodes = state.tree.drop_leases();
        drop(state);
        let failed = std::mem::take(&mut answered.failed);
        mount.fail_late(&failed);
        mount.forget_gone(inodes);
        for (_, waiter) in waiters {
            (waiter.done)(&mount, Err(LOST));
        }
        behind.into_iter().for_each(|again| again());
        answered.due.run();
        for ino in open {
            // The first attempt fails with the old session, which clears the way for the second.
            mount.hold_again(ino, 3);
        }
    }

    fn recalled(&self, recalls: &[Recall]) {
        self.recalls.add(recalls);
    }

    fn durable(&self, commit: u64) {
        let Some(mount) = self.myself.upgrade() else { return };
        let mut state = mount.state();
        let due = state.log.durable(commit);
        mount.settle(&mut state);
        drop(state);
        if !due.is_empty() {
            due.run();
            mount.pump();
        }
    }

    fn answered(&self, first: Ticket, outcomes: &LogOutcomes<'_>) {
        let Some(mount) = self.myself.upgrade() else { return };
        mount.answered_by(first, outcomes.commit(), &mut outcomes.failures(), outcomes.waited());
    }

    fn replay(&self, restarted: bool) -> Vec<Logged> {
        let Some(mount) = self.myself.upgrade() else { return Vec::new() };
        mount.welcomed(&mount.link.welcome());
        if restarted {
            mount.leases_gone();
            // The server has to hold what only the leases kept alive.
            for ino in mount.namespace.inodes.open_by_lease() {
                mount.namespace.inodes.opened_leased(ino);
                mount.hold_again(ino, 3);
            }
        }
        let mut state = mount.state();
        let batches = state.log.replay(restarted, boottime());
        if restarted {
            // What took their last names has them held once more, whether they were dropped since or not. The drops are sent when
            // that is applied.
            for ino in state.unlinked.keys() {
                let _ = mount.namespace.inodes.held_once_more(*ino);
            }
        }
        let lost = state.log.lost_in_replay();
        mount.settle(&mut state);
        drop(state);
        mount.fail_late(&lost.failed);
        lost.due.run();
        batches.into_iter().map(super::sender::logged).collect()
    }
}
