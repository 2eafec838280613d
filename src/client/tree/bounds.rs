//! What is not needed goes, so that the tree stays within its bounds.

use super::{Tree, flag};
use crate::base::Ino;
use crate::wire::{Keep, Returned};

/// How much is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreeCounts {
    /// Inodes.
    pub inodes: usize,
    /// Names.
    pub names: usize,
    /// Inodes that are being recalled.
    pub recalls: usize,
    /// Inodes whose making failed late.
    pub poisoned: usize,
}

/// Most inodes that one call of [`Tree::trim`] looks at: the mutex is held meanwhile.
const SWEEP_MAX: usize = 1 << 12;

impl Tree {
    /// Counts, for the operator.
    #[must_use]
    pub fn counts(&self) -> TreeCounts {
        TreeCounts {
            inodes: self.nodes.len(),
            names: self.names,
            recalls: self.recalls.len(),
            poisoned: self.poisoned.len(),
        }
    }

    /// The kernel has given back its last lookup of this inode, and nobody has it open. What has no name is gone for good then.
    pub fn forgotten(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(ino) else {
            self.poisoned.remove(&ino);
            return;
        };
        let dead = node.has(flag::ORPHAN) || (node.has(flag::LEASED | flag::ATTR) && node.nlink == 0);
        if dead && !node.has(flag::RECALLED) {
            self.give_up(ino);
        }
        self.poisoned.remove(&ino);
    }

    /// Whether [`Tree::trim`] has something to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.nodes.len() > self.bounds.inodes_max || self.names > self.bounds.names_max
    }

    /// Gives up what was not used for longest, a bounded part of what is too much; gives the leases to be sent back. Who calls
    /// it says which inodes are in use, by the kernel (lookups) or open, and must count a lookup before it lets another
    /// thread come here.
    #[must_use]
    pub fn trim(&mut self, in_use: impl Fn(Ino) -> bool) -> Vec<Returned> {
        let mut returned = Vec::new();
        let places = self.nodes.places();
        for _ in 0..SWEEP_MAX.min(2 * places) {
            if !self.is_over() {
                break;
            }
            let place = self.hand;
            self.hand = if place as usize + 1 < places { place + 1 } else { 0 };
            let node = self.nodes.at_mut(place);
            let ino = node.ino;
            if ino.0 == 0 || ino == Ino::ROOT || node.ticket > self.applied || node.has(flag::RECALLED) {
                continue;
            }
            if node.has(flag::USED) {
                node.clear(flag::USED);
                continue;
            }
            if self.names > self.bounds.names_max && node.names().is_some_and(|names| names.len() > 0) {
                self.forget_listing_but_attr(ino);
            }
            if self.nodes.len() > self.bounds.inodes_max && !in_use(ino) {
                let node = self.nodes.at(place);
                if node.has(flag::LEASED) {
                    let number = node.number;
                    returned.push(Returned { ino, number, keep: Keep::Nothing, open: false });
                }
                self.give_up(ino);
            }
        }
        returned
    }

    fn forget_listing_but_attr(&mut self, dir: Ino) {
        self.in_directory(dir, |names| *names = super::directory::Directory::default());
    }
}
