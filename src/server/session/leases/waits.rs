//! Requests that wait for leases to be given back, and for what each still waits.

use super::Access;
use crate::base::{Ino, SessionId};
use rustc_hash::FxHashMap;

/// Number of a request that waits.
pub(crate) type WaitId = u64;

#[derive(Default)]
pub(super) struct Waits {
    last: WaitId,
    all: FxHashMap<WaitId, Wait>,
    by_ino: FxHashMap<Ino, Vec<WaitId>>,
}

#[derive(Debug)]
pub(super) struct Wait {
    pub(super) session: SessionId,
    pub(super) access: Access,
    left: Vec<Ino>,
}

impl Waits {
    pub(super) fn insert(&mut self, session: SessionId, access: Access, mut inos: Vec<Ino>) -> WaitId {
        inos.sort_unstable();
        inos.dedup();
        self.last += 1;
        for ino in &inos {
            self.by_ino.entry(*ino).or_default().push(self.last);
        }
        self.all.insert(self.last, Wait { session, access, left: inos });
        self.last
    }

    /// Whether somebody waits for the inode.
    pub(super) fn wanted(&self, ino: Ino) -> bool {
        !self.by_ino.is_empty() && self.by_ino.contains_key(&ino)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Ends the waiting for `ino` of those whom it suits; appends to `woken` those who wait for nothing else.
    pub(super) fn wake(&mut self, ino: Ino, suits: impl Fn(&Wait) -> bool, woken: &mut Vec<WaitId>) {
        if self.by_ino.is_empty() {
            return;
        }
        let Some(ids) = self.by_ino.get_mut(&ino) else { return };
        ids.retain(|id| {
            let Some(wait) = self.all.get_mut(id) else { return false };
            if !suits(wait) {
                return true;
            }
            wait.left.retain(|left| *left != ino);
            if wait.left.is_empty() {
                self.all.remove(id);
                woken.push(*id);
            }
            false
        });
        if ids.is_empty() {
            self.by_ino.remove(&ino);
        }
    }

    /// It waits no more.
    pub(super) fn remove(&mut self, id: WaitId) {
        let Some(wait) = self.all.remove(&id) else { return };
        for ino in wait.left {
            if let Some(ids) = self.by_ino.get_mut(&ino) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_ino.remove(&ino);
                }
            }
        }
    }
}
