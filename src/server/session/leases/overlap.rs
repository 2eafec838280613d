//! What happened to an inode while a read was under way: an answer that may be older than a change must not be granted a
//! lease, or its client would keep the old state. Changes are numbered; a read remembers the number it began at.

use crate::base::Ino;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Changes remembered before those that no read needs any more are looked for.
const REMEMBERED: usize = 1024;

/// The moment a read began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stamp(u64);

#[derive(Default)]
pub(super) struct Overlap {
    /// Number of the last change.
    last: u64,
    /// Reads under way, by the number they began at.
    reads: BTreeMap<u64, usize>,
    /// Inodes that are being written, and by how many.
    pins: FxHashMap<Ino, usize>,
    /// Changes that a read under way may have missed.
    changes: FxHashMap<Ino, Change>,
}

#[derive(Clone, Copy, Default)]
struct Change {
    /// Number of the last one by any means.
    any: u64,
    /// Number of the last one by somebody who changed it under a lease, which is over.
    leased: u64,
}

impl Overlap {
    pub(super) fn begin(&mut self) -> Stamp {
        *self.reads.entry(self.last).or_default() += 1;
        Stamp(self.last)
    }

    pub(super) fn end(&mut self, stamp: Stamp) {
        if let Some(count) = self.reads.get_mut(&stamp.0) {
            *count -= 1;
            if *count == 0 {
                self.reads.remove(&stamp.0);
            }
        }
        match self.reads.first_key_value() {
            None => self.changes.clear(),
            Some((&oldest, _)) if self.changes.len() > REMEMBERED => {
                self.changes.retain(|_, change| change.any > oldest);
            }
            Some(_) => {}
        }
    }

    /// It is being written from now on.
    pub(super) fn pin(&mut self, ino: Ino) {
        *self.pins.entry(ino).or_default() += 1;
    }

    /// It was written.
    pub(super) fn unpin(&mut self, ino: Ino) {
        if let Some(count) = self.pins.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&ino);
            }
        }
        self.change(ino, false);
    }

    /// Somebody gave up the right to change it alone.
    pub(super) fn gave_up(&mut self, ino: Ino) {
        self.change(ino, true);
    }

    fn change(&mut self, ino: Ino, leased: bool) {
        if self.reads.is_empty() {
            return;
        }
        self.last += 1;
        let change = self.changes.entry(ino).or_default();
        change.any = self.last;
        if leased {
            change.leased = self.last;
        }
    }

    pub(super) fn pinned(&self, ino: Ino) -> bool {
        !self.pins.is_empty() && self.pins.contains_key(&ino)
    }

    /// Whether it was or is being written since `stamp`.
    pub(super) fn changed(&self, ino: Ino, stamp: Stamp) -> bool {
        self.pinned(ino) || self.since(ino, stamp, |change| change.any)
    }

    /// Whether somebody who could change it alone has given that up since `stamp`: what was read before may be older than
    /// a change that was completed before the read was asked for.
    pub(super) fn given_up(&self, ino: Ino, stamp: Stamp) -> bool {
        self.since(ino, stamp, |change| change.leased)
    }

    fn since(&self, ino: Ino, stamp: Stamp, number: impl Fn(&Change) -> u64) -> bool {
        !self.changes.is_empty() && self.changes.get(&ino).is_some_and(|change| number(change) > stamp.0)
    }
}
