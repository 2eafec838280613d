//! Leases that go: recalled, lost with the session, or doubtful after a late failure.
//!
//! A recall takes its steps in the order of decision 0004: [`Tree::recall_begin`], invalidate the kernel's caches,
//! [`Tree::recall_stop`], wait for the log, [`Tree::recall_finish`], send what that gives.

use super::{Recalled, Tree, flag};
use crate::base::{Errno, Ino, Name, NameBuf};
use crate::wire::{Keep, LeaseMode, Recall, Returned, Ticket};

impl Tree {
    /// The server wants a lease back: from now on replies let the kernel keep nothing of the inode. False: that was so
    /// before, by a recall that wants no less.
    pub fn recall_begin(&mut self, recall: &Recall) -> bool {
        if let Some(node) = self.nodes.get_mut(recall.ino) {
            node.set(flag::RECALLED);
        }
        let old = self.recalls.get(&recall.ino).map(|old| old.keep);
        let keep = old.map_or(recall.keep, |old| old.min(recall.keep));
        self.recalls.insert(recall.ino, Recalled { keep, number: recall.number });
        old.is_none_or(|old| keep < old)
    }

    /// Whether names of it may be known to the kernel.
    #[must_use]
    pub fn has_names(&self, ino: Ino) -> bool {
        self.nodes.get(ino).is_some_and(|node| node.names().is_some())
    }

    /// The inodes with a lease.
    #[must_use]
    pub fn leased(&self) -> Vec<Ino> {
        let leased = |ino: &Ino| self.nodes.get(*ino).is_some_and(|node| node.has(flag::LEASED));
        self.nodes.inos().into_iter().filter(leased).collect()
    }

    /// Names in this directory that the kernel may have: for kernels that forget names one by one.
    #[must_use]
    pub fn recall_names(&self, ino: Ino) -> Vec<NameBuf> {
        let names = self.nodes.get(ino).and_then(|node| node.names());
        let entries = names.into_iter().flat_map(|names| names.iter());
        entries.filter_map(|entry| Name::parse(entry.name()).ok()).map(Name::to_buf).collect()
    }

    /// From now on nothing is changed locally of these inodes. Gives the last ticket that must be applied before they
    /// are given back.
    pub fn recall_stop(&mut self, inos: &[Ino]) -> Option<Ticket> {
        let mut last = 0;
        for ino in inos {
            if let Some(node) = self.nodes.get_mut(*ino) {
                node.set(flag::STOPPED);
                last = last.max(node.ticket);
            }
        }
        (last > self.applied).then_some(Ticket(last))
    }

    /// The log is applied as far as it had to be: the leases go, with what was known under them. Gives what is to be sent to
    /// the server, `open` says which inodes are open. An inode that nobody recalls (any more) is left out.
    #[must_use]
    pub fn recall_finish(&mut self, inos: &[Ino], open: impl Fn(Ino) -> bool) -> Vec<Returned> {
        let mut returned = Vec::with_capacity(inos.len());
        for &ino in inos {
            let Some(Recalled { mut keep, number }) = self.recalls.remove(&ino) else { continue };
            let mut back = Returned { ino, number, keep: Keep::Nothing, open: open(ino) };
            if let Some(node) = self.nodes.get_mut(ino).filter(|node| node.has(flag::LEASED)) {
                if node.ticket > self.applied {
                    // Changed since, by an owner that did not stop: what is not applied must not be given away.
                    self.recalls.insert(ino, Recalled { keep, number });
                    continue;
                }
                keep = if node.nlink == 0 && node.has(flag::ATTR) { Keep::Nothing } else { keep };
                (back.number, back.keep) = (node.number, keep);
                node.clear(flag::RECALLED | flag::STOPPED);
                if keep == Keep::Shared {
                    let plain = node.has(flag::PLAIN);
                    node.lease(LeaseMode::Shared, back.number, plain);
                } else {
                    self.give_up(ino);
                }
            }
            returned.push(back);
        }
        returned
    }

    /// The session is lost, or the server began anew: no lease holds. Gives all inodes that were known, whose caches in the
    /// kernel are to be invalidated. What is not applied yet is remembered as that alone.
    #[must_use]
    pub fn drop_leases(&mut self) -> Vec<Ino> {
        let inos = self.nodes.inos();
        for &ino in &inos {
            self.give_up(ino);
        }
        self.recalls.clear();
        self.listed.clear();
        inos
    }

    /// A local mutation failed late: what it touched is not known any more, and `made`, the inode of a failed
    /// `Make`, is poisoned. `names` and `inos` are those that the mutation says. Gives the inodes whose caches in the
    /// kernel are to be invalidated.
    #[must_use]
    pub fn roll_back(&mut self, names: &[(Ino, Name<'_>)], inos: &[Ino], made: Option<Ino>) -> Vec<Ino> {
        let mut touched: Vec<Ino> = inos.iter().copied().chain(made).collect();
        for &(parent, name) in names {
            let hash = self.hash.hash(name);
            let stands =
                self.nodes.get(parent).and_then(|node| node.names()).map(|names| names.find(hash, name));
            if let Some(super::directory::Found::Is { ino, .. }) = stands {
                touched.push(ino);
            }
            touched.push(parent);
            self.forget_name(parent, name);
        }
        touched.sort_unstable();
        touched.dedup();
        for &ino in &touched {
            self.forget_attr(ino);
        }
        if let Some(ino) = made {
            self.give_up(ino);
            self.poisoned.insert(ino, Errno::EIO);
        }
        touched
    }

    /// The lease of this inode is gone, and all that was known under it; what is not applied is remembered.
    pub(super) fn give_up(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(ino) else { return };
        self.names -= node.names().map_or(0, |names| names.len());
        node.forget();
        if node.ticket <= self.applied {
            self.floor = (self.floor.0.max(node.changed), self.floor.1.max(node.ticket));
            self.nodes.remove(ino);
        }
    }
}
