//! What is open under leases, what a close or a sync waits for, and what the kernel has forgotten.

use super::{CloseWait, Mount};
use crate::base::{Errno, Ino};
use std::sync::Arc;

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

    /// The kernel has forgotten an inode that nobody has open.
    pub fn forgotten(&self, ino: Ino) {
        self.state().tree.forgotten(ino);
    }

    /// Whether close(2) waits for anything.
    #[must_use]
    pub fn close_waits(&self) -> bool {
        self.options.close != CloseWait::Nothing
    }

    /// Waits for what close(2) of `ino` has to wait for.
    pub fn before_close(self: &Arc<Self>, ino: Ino, then: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        match self.options.close {
            CloseWait::Nothing => then(Ok(())),
            CloseWait::Applied => {
                let last = self.state().tree.last_ticket(ino);
                match last {
                    Some(last) => self.after_applied_to(last, Box::new(then)),
                    None => then(Ok(())),
                }
            }
            CloseWait::Durable => self.sync(Some(ino), then),
        }
    }

    /// Makes all that was answered before durable, and tells errors of late failures that concern `ino`, or the mount.
    pub fn sync(self: &Arc<Self>, ino: Option<Ino>, then: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        let mount = Arc::clone(self);
        self.make_durable(Box::new(move |result| {
            let poisoned = ino.and_then(|ino| mount.state().tree.poisoned(ino));
            then(poisoned.map_or(result, Err));
        }));
    }
}
