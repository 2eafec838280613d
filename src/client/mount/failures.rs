//! Changes that failed after their callers had been told that they were done (3.4).
//!
//! What was shown for them is taken back: the tree forgets what they touched, the kernel too, and what was made and does not
//! exist gives errors to those who use it.

use super::{Mount, Stale};
use crate::base::{Errno, Ino, Name};
use crate::client::oplog::Failed;
use crate::wire::{Expect, Mutation};
use std::sync::Arc;

/// Late failures after which nothing is completed here any more: something is wrong that nobody sees in time.
const DEGRADE_AFTER: u64 = 32;

impl Mount {
    /// Takes note of failures; those whose callers hear of them themselves are left out.
    pub(super) fn fail_late(self: &Arc<Self>, failed: &[Failed]) {
        let late: Vec<&Failed> = failed.iter().filter(|failed| failed.late).collect();
        if late.is_empty() {
            return;
        }
        let mut state = self.state();
        let mut stale = Stale::default();
        for failed in &late {
            let Some((origin, mutation)) = failed.mutation() else { continue };
            tracing::error!(
                ticket = failed.ticket.0,
                errno = %failed.errno,
                uid = origin.caller.uid,
                ?mutation,
                "a change failed after it had been answered"
            );
            let touches = Touches::of(&mutation);
            stale.inodes.extend(state.tree.roll_back(&touches.names, &touches.inos, touches.made));
            stale.names |= !touches.names.is_empty();
            if let Some(ino) = touches.unlinked {
                self.namespace.inodes.not_held(ino, false);
            }
        }
        state.counts.failed_late += late.len() as u64;
        if state.counts.failed_late >= DEGRADE_AFTER && !state.degraded {
            state.degraded = true;
            tracing::error!("too many changes failed late: from now on each waits for the server");
        }
        drop(state);
        self.forget_later(stale);
    }

    /// Has the kernel forget, on a thread that may wait for it.
    pub(super) fn forget_later(self: &Arc<Self>, stale: Stale) {
        if self.caches.get().is_none() {
            return;
        }
        let mount = Arc::clone(self);
        let tell = move || mount.forget_in_kernel(&stale);
        if std::thread::Builder::new().name("ringfs-forget".to_owned()).spawn(tell).is_err() {
            tracing::error!("no thread to tell the kernel what it must forget");
        }
    }
}

/// What a mutation says of names and inodes.
struct Touches<'m> {
    names: Vec<(Ino, Name<'m>)>,
    inos: Vec<Ino>,
    made: Option<Ino>,
    /// It was to be held since it lost its last name.
    unlinked: Option<Ino>,
}

impl<'m> Touches<'m> {
    fn of(mutation: &Mutation<'m>) -> Self {
        let mut touches = Self { names: Vec::new(), inos: Vec::new(), made: None, unlinked: None };
        match *mutation {
            Mutation::Make { parent, name, ino, .. } => {
                touches.names.push((parent, name));
                touches.made = ino;
            }
            Mutation::Link { ino, parent, name } => {
                touches.names.push((parent, name));
                touches.inos.push(ino);
            }
            Mutation::Unlink { parent, name, ino, hold } | Mutation::Rmdir { parent, name, ino, hold } => {
                touches.names.push((parent, name));
                touches.inos.extend(ino);
                touches.unlinked = ino.filter(|_| hold);
            }
            Mutation::Rename { parent, name, new_parent, new_name, ino, replaced, hold, .. } => {
                touches.names.extend([(parent, name), (new_parent, new_name)]);
                touches.inos.extend(ino);
                if let Expect::Is(replaced) = replaced {
                    touches.inos.push(replaced);
                    touches.unlinked = hold.then_some(replaced);
                }
            }
            Mutation::SetAttr { ino, .. }
            | Mutation::Write { ino, .. }
            | Mutation::Allocate { ino, .. }
            | Mutation::SetXattr { ino, .. }
            | Mutation::RemoveXattr { ino, .. } => touches.inos.push(ino),
            Mutation::Copy { target, .. } => touches.inos.push(target),
            Mutation::Tmpfile { .. } => {}
        }
        touches
    }
}

/// What those who wait for a lost mutation are told.
pub(super) const LOST: Errno = Errno::EIO;
