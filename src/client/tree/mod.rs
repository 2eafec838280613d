//! What this mount knows of the server's tree under its leases, and the changes it made itself that the server has not
//! executed yet.
//!
//! In come answers with their grants, recalls, and the mutations that the kernel asks for. Out go answers, and for each mutation
//! either what the server would have said, or [`Denied::Ask`]: this one is for the server. [`Tree`] is a value: no
//! I/O, no clock, no lock, no thread. Its owner keeps it behind one mutex together with the log, so that a mutation
//! gets its ticket in the same step in which it changes what the mount shows.
//!
//! Three things are kept apart for each inode: its *lease*, what is *known* of it (attributes, names, target; only under
//! a lease), and the *ticket* of the last local mutation that changed it. A lease without knowledge is common; knowledge
//! without a lease does not exist.
//!
//! An answer can be older than what it meets here: the question was on its way while the inode was changed. So each
//! question takes a [`Stamp`] along, and what was changed since, or had changes that were not applied yet, learns
//! nothing from the answer ([`Tree::stamp`]). Grants are taken all the same.
//!
//! Absent on purpose: file data, who has what open, how many lookups the kernel has, extended attributes (beyond "there
//! are none"), and whether the leases are still in time: the owner checks that before it asks here.
#![forbid(unsafe_code)]

mod answer;
mod attributes;
mod bounds;
mod change;
mod directory;
mod index;
mod learn;
mod node;
mod recall;
mod rename;
#[cfg(test)]
mod tests;

pub use attributes::Written;
pub use bounds::TreeCounts;
pub use change::{Made, New, Removed};
pub use rename::Renamed;

use crate::base::{Caller, Errno, Ino, NameHash, Time};
use crate::wire::{Keep, Ticket};
use node::{Node, Nodes, flag};
use rustc_hash::{FxHashMap, FxHashSet};

/// What the tree says to a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known<T> {
    /// This.
    Yes(T),
    /// What the server would say: no.
    No(Errno),
    /// The server must be asked.
    Unknown,
}

/// Why a mutation was not done. Nothing was changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// What the server would say.
    No(Errno),
    /// The server must do it.
    Ask,
}

impl From<Errno> for Denied {
    fn from(errno: Errno) -> Self {
        Self::No(errno)
    }
}

/// State of the tree when a question was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    changes: u64,
    applied: u64,
}

/// How much the tree keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeBounds {
    /// Inodes; more only as long as the kernel has them in its hand, or they have changes that are not applied.
    pub inodes_max: usize,
    /// Names.
    pub names_max: usize,
}

impl Default for TreeBounds {
    fn default() -> Self {
        Self { inodes_max: 1 << 20, names_max: 1 << 22 }
    }
}

/// A local mutation: when, by whom, and under which number it goes to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The time, by the server's clock. The server uses it as its own.
    pub at: Time,
    /// Who asked.
    pub caller: Caller,
    /// Ticket of the record that the owner appends to the log when the mutation was done here.
    pub ticket: Ticket,
}

/// See the module.
pub struct Tree {
    hash: NameHash,
    bounds: TreeBounds,
    nodes: Nodes,
    /// Names in all directories.
    names: usize,
    /// Counts changes; the last one.
    changes: u64,
    /// The last change of an inode that is not in the table, or not any more, and its ticket: a new one in the table learns
    /// nothing from an answer that is older.
    floor: (u64, u64),
    /// All local mutations up to this ticket are applied, or failed.
    applied: u64,
    /// What is being recalled, and what may be kept of it.
    recalls: FxHashMap<Ino, Recalled>,
    /// Directories whose listing was asked for because of a lookup.
    listed: FxHashSet<Ino>,
    /// Inodes whose `Make` failed, or whose changes were lost, with what is said to those who use them.
    poisoned: FxHashMap<Ino, Errno>,
    /// Where the sweep for what is not used goes on.
    hand: u32,
}

#[derive(Clone, Copy)]
struct Recalled {
    keep: Keep,
    number: u64,
}

/// Most directories that are remembered as listed. Without a memory each lookup in a directory that cannot be leased would
/// ask for a listing; one too many now and then does no harm.
const LISTED_MAX: usize = 1 << 12;

impl Tree {
    /// An empty one. `hash` comes with the server's welcome.
    #[must_use]
    pub fn new(hash: NameHash, bounds: TreeBounds) -> Self {
        Self {
            hash,
            bounds,
            nodes: Nodes::default(),
            names: 0,
            changes: 0,
            floor: (0, 0),
            applied: 0,
            recalls: FxHashMap::default(),
            listed: FxHashSet::default(),
            poisoned: FxHashMap::default(),
            hand: 0,
        }
    }

    /// To be taken when a question is sent, and given back with its answer.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { changes: self.changes, applied: self.applied }
    }

    /// All local mutations up to this one are applied at the server, or failed.
    pub fn applied(&mut self, ticket: Ticket) {
        self.applied = self.applied.max(ticket.0);
    }

    /// The last local mutation that changed this inode, while it is not applied: who asks the server about the inode,
    /// syncs or gives it back waits for that first.
    #[must_use]
    pub fn last_ticket(&self, ino: Ino) -> Option<Ticket> {
        self.nodes.get(ino).filter(|node| node.ticket > self.applied).map(|node| Ticket(node.ticket))
    }

    /// Whether replies about this inode may let the kernel keep what they say.
    #[must_use]
    pub fn may_cache(&self, ino: Ino) -> bool {
        self.nodes.get(ino).is_some_and(|node| node.has(flag::LEASED) && !node.has(flag::RECALLED))
    }

    /// The same of names in this directory.
    #[must_use]
    pub fn may_cache_name(&self, parent: Ino) -> bool {
        self.may_cache(parent)
    }

    /// Whether changes of this inode may be completed here, as far as leases go.
    #[must_use]
    pub fn is_changeable(&self, ino: Ino) -> bool {
        self.nodes.find(ino).is_some_and(|place| self.may_change(place).is_ok())
    }

    /// Whether the inode is known to have its only name in another directory than this one.
    #[must_use]
    pub fn is_named_elsewhere(&self, ino: Ino, dir: Ino) -> bool {
        let known = self.nodes.get(ino).filter(|node| node.has(flag::LEASED));
        let elsewhere = known.is_some_and(|node| {
            node.parent.0 != 0 && node.parent != dir && (node.is_dir() || node.nlink == 1)
        });
        elsewhere || ino == Ino::ROOT
    }

    /// The inode and the directories above it as far as they are known, nearest first: where errors of a late failure
    /// are noted.
    #[must_use]
    pub fn ancestors(&self, ino: Ino) -> Vec<Ino> {
        /// Deeper than any path; a circle, which no server tells of, ends here too.
        const DEPTH_MAX: usize = 4096;
        let above = |at: &Ino| {
            let parent = self.nodes.get(*at).map(|node| node.parent);
            parent.filter(|parent| parent.0 != 0 && parent != at)
        };
        std::iter::successors(Some(ino), above).take(DEPTH_MAX).collect()
    }

    /// Where the inode is, from the root, as far as the names on the way are known. For the operator: it looks through the
    /// names of each directory above.
    #[must_use]
    pub fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let above = self.ancestors(ino);
        if *above.last()? != Ino::ROOT {
            return None;
        }
        let mut parts = Vec::new();
        for pair in above.windows(2) {
            let names = self.nodes.get(pair[1])?.names()?;
            parts.push(names.iter().take(PATH_NAMES_MAX).find(|entry| entry.ino == pair[0])?.name());
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    /// What those who use this inode are told after a late failure of what made it.
    #[must_use]
    pub fn poisoned(&self, ino: Ino) -> Option<Errno> {
        if self.poisoned.is_empty() { None } else { self.poisoned.get(&ino).copied() }
    }

    /// Notes a change of this node.
    fn touched(&mut self, place: u32, change: &Change) {
        self.changes += 1;
        let node = self.nodes.at_mut(place);
        node.ticket = change.ticket.0;
        node.changed = self.changes;
        node.set(flag::USED);
    }

    /// An inode that is leased and whose attributes are known, apart from its blocks perhaps.
    fn known(&self, ino: Ino) -> Result<u32, Denied> {
        if let Some(errno) = self.poisoned(ino) {
            return Err(errno.into());
        }
        let place = self.nodes.find(ino).ok_or(Denied::Ask)?;
        if self.nodes.at(place).has(flag::LEASED | flag::ATTR) { Ok(place) } else { Err(Denied::Ask) }
    }

    /// A directory of which the same is true.
    fn known_directory(&self, ino: Ino) -> Result<u32, Denied> {
        let place = self.known(ino)?;
        if self.nodes.at(place).is_dir() { Ok(place) } else { Err(Errno::ENOTDIR.into()) }
    }

    /// A directory that may get new names.
    fn living_directory(&self, ino: Ino) -> Result<u32, Denied> {
        let place = self.known_directory(ino)?;
        if self.nodes.at(place).nlink == 0 { Err(Errno::ENOENT.into()) } else { Ok(place) }
    }

    /// Whether the node may be changed here.
    fn may_change(&self, place: u32) -> Result<&Node, Denied> {
        let node = self.nodes.at(place);
        let may = node.has(flag::EXCLUSIVE) && !node.has(flag::STOPPED);
        if may { Ok(node) } else { Err(Denied::Ask) }
    }
}

/// Names of a directory that are looked through for a path.
const PATH_NAMES_MAX: usize = 1 << 14;
