//! What is open under leases, what a close or a sync waits for, and what the kernel has forgotten.

use super::{CloseWait, Mount};
use crate::base::{Errno, HandleId, Ino};
use crate::wire::Ticket;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Mount {
    /// Counts one more open of `ino`, if a lease keeps it alive: nobody can take its last name without recalling that, and its
    /// return says what is open. `None`: there is none, the server has to hold it.
    pub fn open_under_lease(&self, ino: Ino) -> Option<Result<(), Errno>> {
        let state = self.state();
        self.leases_left(super::boottime(), &state)?;
        if let Some(errno) = state.tree.poisoned(ino) {
            return Some(Err(errno));
        }
        // Under the same lock as the return.
        state.tree.may_cache(ino).then(|| {
            self.namespace.inodes.opened_leased(ino);
            Ok(())
        })
    }

    /// The kernel has forgotten an inode that nobody has open. What took its last name need not have it held, if that is
    /// not sent yet.
    pub fn forgotten(&self, ino: Ino) {
        let mut state = self.state();
        state.tree.forgotten(ino);
        if state.unlinked.contains_key(&ino) && state.log.clear_hold(ino) {
            state.unlinked.remove(&ino);
            self.namespace.inodes.not_held(ino, true);
        }
    }

    /// Whether close(2) waits for anything.
    #[must_use]
    pub fn close_waits(&self) -> bool {
        self.options.close != CloseWait::Nothing || self.failed_late.load(Ordering::Acquire)
    }

    /// Waits for what close(2) has to wait for, and tells errors that are known by then.
    pub fn before_close(
        self: &Arc<Self>,
        ino: Ino,
        handle: HandleId,
        then: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        match self.options.close {
            CloseWait::Nothing => then(self.errors_of(ino, handle)),
            CloseWait::Applied => {
                let last = self.state().tree.last_ticket(ino).unwrap_or(Ticket(0));
                let mount = Arc::clone(self);
                let applied = move |result: Result<(), Errno>| {
                    then(mount.errors_of(ino, handle).and(result));
                };
                self.after_applied_to(last, Box::new(applied));
            }
            CloseWait::Durable => self.sync(Some((ino, handle)), then),
        }
    }

    /// Makes all that was answered before durable, and tells errors of late failures that concern a descriptor.
    pub fn sync(
        self: &Arc<Self>,
        of: Option<(Ino, HandleId)>,
        then: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let mount = Arc::clone(self);
        self.make_durable(Box::new(move |result| {
            let errors = of.map_or(Ok(()), |(ino, handle)| mount.errors_of(ino, handle));
            then(errors.and(result));
        }));
    }
}
