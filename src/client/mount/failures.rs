//! Changes that failed after their callers had been told that they were done (3.4).
//!
//! What was shown for them is taken back: the tree forgets what they touched, the kernel too, and what was made and does not
//! exist gives errors to those who use it.

use super::state::State;
use super::{Mount, Stale};
use crate::base::{Errno, HandleId, Ino, Name};
use crate::client::late::{Cursor, Failure, Late};
use crate::client::oplog::Failed;
use crate::wire::{Expect, Mutation};
use rustc_hash::FxHashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

impl Mount {
    /// Takes note of failures; those whose callers hear of them themselves are left out.
    pub(super) fn fail_late(self: &Arc<Self>, failed: &[Failed]) {
        let late: Vec<&Failed> = failed.iter().filter(|failed| failed.late).collect();
        if late.is_empty() {
            return;
        }
        let now = super::boottime();
        let seconds = u64::try_from(self.server_time(now).secs).unwrap_or(0);
        let mut stale = Stale::default();
        for failed in late {
            let Some((_, mutation)) = failed.mutation() else { continue };
            let mut touches = Touches::of(&mutation);
            if failed.unknown {
                // The server is asked whether it is there.
                touches.inos.extend(touches.made.take());
            }
            let mut state = self.state();
            let (concerned, path) = (touches.concerned(&state), touches.path(&state));
            stale.inodes.extend(state.tree.roll_back(&touches.names, &touches.inos, touches.made));
            stale.names |= !touches.names.is_empty();
            state.counts.failed_late += 1;
            drop(state);
            if let Some(ino) = touches.unlinked {
                self.namespace.inodes.not_held(ino, false);
            }
            let failure =
                Failure { mutation: &mutation, errno: failed.errno, path: path.as_deref(), seconds, now };
            self.late.failed(&failure, concerned);
        }
        if self.late.degraded() {
            self.state().degraded = true;
        }
        self.failed_late.store(true, Ordering::Release);
        self.forget_later(stale);
    }

    /// Late failures: for the operator, and for descriptors.
    #[must_use]
    pub fn late(&self) -> &Late {
        &self.late
    }

    /// The operator has read the list: changes are completed here again.
    pub fn clear_errors(&self) {
        self.late.clear();
        self.state().degraded = false;
    }

    /// A descriptor was opened. Without any failure so far there is nothing to remember: it sees all that come.
    pub fn opened(&self, handle: HandleId, ino: Ino) {
        if self.failed_late.load(Ordering::Acquire) {
            self.cursors().insert(handle, self.late.open(ino));
        }
    }

    /// It was closed.
    pub fn released(&self, handle: HandleId) {
        if self.failed_late.load(Ordering::Acquire) {
            self.cursors().remove(&handle);
        }
    }

    /// What a descriptor has to learn: each error of its inode once.
    ///
    /// # Errors
    /// Something that was answered as done was not.
    pub fn errors_of(&self, ino: Ino, handle: HandleId) -> Result<(), Errno> {
        if !self.failed_late.load(Ordering::Acquire) {
            return Ok(());
        }
        self.late.check(ino, self.cursors().entry(handle).or_default())
    }

    fn cursors(&self) -> MutexGuard<'_, FxHashMap<HandleId, Cursor>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel forget, on a thread that may wait for it.
    pub(super) fn forget_later(self: &Arc<Self>, stale: Stale) {
        if self.caches.get().is_none() {
            return;
        }
        let mount = Arc::clone(self);
        let tell = move || mount.forget_in_kernel(&stale);
        if crate::thread::start("ringfs-forget", tell).is_err() {
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
    /// The inodes, their directories, and all above as far as they are known.
    fn concerned(&self, state: &State) -> Vec<Ino> {
        let parents = self.names.iter().map(|(parent, _)| *parent);
        let own = self.made.into_iter().chain(self.inos.iter().copied()).chain(parents);
        let mut all: Vec<Ino> = own.flat_map(|ino| state.tree.ancestors(ino)).collect();
        all.push(Ino::ROOT);
        all.sort_unstable();
        all.dedup();
        // The root comes last.
        all.retain(|ino| *ino != Ino::ROOT);
        all.push(Ino::ROOT);
        all
    }

    /// What it was about, from the root, as far as the names on the way are known.
    fn path(&self, state: &State) -> Option<Vec<u8>> {
        let Some((parent, name)) = self.names.first() else { return state.tree.path(*self.inos.first()?) };
        let mut path = state.tree.path(*parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.bytes());
        Some(path)
    }

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
