//! Counts of each inode, and whether the server holds it for us.
//!
//! ```text
//!              begin_open: Ask              begin_drop (opens 0, not needed)
//!   Free ───────────────────────► Held ───────────────────────► Dropping
//!     ▲   held, orphaned                                           │
//!     └────────────────────────────────────────────────────────────┘
//!                              drops_done
//! ```
//! A Hold and a Drop of one inode are never on their way together: an open that meets `Dropping` waits for it.

use crate::base::Ino;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tables, by the low bits of the inode number: eight cores seldom meet in one.
const SHARDS: usize = 64;

const _: () = assert!(size_of::<Inode>() == 24);

/// What runs when an inode's drop has been answered.
pub(super) type Waiter = Box<dyn FnOnce() + Send>;

/// Whether the server holds the inode for this mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Hold {
    /// Not, or a Hold is on its way.
    #[default]
    Free,
    /// Yes.
    Held,
    /// Perhaps: a Hold was given up while the server was away, or what had it held was sent again. An open asks again; without one
    /// a Drop makes sure.
    Doubtful,
    /// A Drop is on its way.
    Dropping,
}

/// 24 bytes; one million of them with their keys and the table's slack stay under 100 MB.
#[derive(Clone, Copy, Debug, Default)]
struct Inode {
    /// Lookups the kernel has not taken back. A directory that is walked through 300,000 times a second, each time with a
    /// lookup, would pass 32 bits within hours.
    lookups: u64,
    /// Open files, and opens under way.
    opens: u32,
    hold: Hold,
    /// Lost its last name by an operation of this mount, or never had one.
    orphan: bool,
    /// Stands in the list of inodes to drop.
    listed: bool,
    /// Somebody waits for the drop.
    awaited: bool,
    /// Lost its last name while a Drop was on its way: which of the two the server saw first is not known.
    unsure: bool,
}

impl Inode {
    /// Held at the server without need.
    fn droppable(&self) -> bool {
        match self.hold {
            Hold::Held => self.opens == 0 && !(self.orphan && self.lookups > 0),
            Hold::Doubtful => self.opens == 0,
            Hold::Free | Hold::Dropping => false,
        }
    }

    fn dead(&self) -> bool {
        self.lookups == 0 && self.opens == 0 && self.hold == Hold::Free && !self.listed
    }
}

/// What an open has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenStep {
    /// Nothing: the server holds the inode for us.
    Ready,
    /// Ask the server to hold it, then tell [`Inodes::held`] or [`Inodes::open_failed`].
    Ask,
    /// A drop is on its way: wait with [`Inodes::after_drop`], then begin again.
    Wait,
}

/// How many inodes are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InodeCounts {
    /// Entries in the table.
    pub known: usize,
    /// Held at the server.
    pub held: usize,
    /// Without a name.
    pub orphans: usize,
}

#[derive(Debug, Default)]
struct Shard {
    inodes: FxHashMap<Ino, Inode>,
    waiters: WaiterTable,
}

#[derive(Default)]
struct WaiterTable(FxHashMap<Ino, Vec<Waiter>>);

impl std::fmt::Debug for WaiterTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} inodes awaited", self.0.len())
    }
}

/// The table. Each call locks one shard for a moment.
#[derive(Debug)]
pub struct Inodes {
    shards: Box<[Mutex<Shard>]>,
    /// Inodes that may be dropped, and whether a Drop is on its way; see [`Inodes::next_drops`].
    drops: Mutex<Drops>,
}

#[derive(Debug, Default)]
struct Drops {
    list: Vec<Ino>,
    busy: bool,
}

impl Default for Inodes {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, drops: Mutex::default() }
    }
}

impl Inodes {
    /// The kernel gets one more reference, by an entry in a reply. To be called before the reply goes out.
    pub fn looked_up(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let inode = shard.inodes.entry(ino).or_default();
        inode.lookups += 1;
    }

    /// The kernel gives references back. True: there is something to drop now.
    #[must_use]
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        self.change(ino, |inode| {
            // More than was given is a fault of the kernel's; less harm is done by forgetting than by keeping.
            inode.lookups = inode.lookups.saturating_sub(count);
        })
    }

    /// An open begins. Whatever it finds, it counts until [`Self::closed`] or [`Self::open_failed`].
    pub fn begin_open(&self, ino: Ino) -> OpenStep {
        let mut shard = self.shard(ino);
        let inode = shard.inodes.entry(ino).or_default();
        inode.opens += 1;
        step(inode)
    }

    /// An open under a lease, which keeps the inode alive: nothing is asked. Counts until [`Self::closed`].
    pub fn opened_leased(&self, ino: Ino) {
        self.shard(ino).inodes.entry(ino).or_default().opens += 1;
    }

    /// Whether the kernel knows the inode or has it open.
    #[must_use]
    pub fn is_in_use(&self, ino: Ino) -> bool {
        self.shard(ino).inodes.get(&ino).is_some_and(|inode| inode.lookups > 0 || inode.opens > 0)
    }

    /// A lease ends: whether the inode has to be held without it. If so it counts as held from now on.
    pub fn lease_ends(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let Some(inode) = shard.inodes.get_mut(&ino) else { return false };
        let needed = inode.opens > 0;
        if needed {
            match inode.hold {
                Hold::Free | Hold::Doubtful => inode.hold = Hold::Held,
                Hold::Held => {}
                // Which of the two the server sees first is not known.
                Hold::Dropping => inode.unsure = true,
            }
        }
        needed
    }

    /// The same open goes on after a drop.
    pub fn resume_open(&self, ino: Ino) -> OpenStep {
        let mut shard = self.shard(ino);
        step(shard.inodes.entry(ino).or_default())
    }

    /// Runs `waiter` when the drop that is on its way has been answered; at once when there is none.
    pub fn after_drop(&self, ino: Ino, waiter: Waiter) {
        let mut shard = self.shard(ino);
        match shard.inodes.get_mut(&ino) {
            Some(inode) if inode.hold == Hold::Dropping => {
                inode.awaited = true;
                shard.waiters.0.entry(ino).or_default().push(waiter);
            }
            _ => {
                drop(shard);
                waiter();
            }
        }
    }

    /// The server holds the inode for an open that asked.
    pub fn held(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        shard.inodes.entry(ino).or_default().hold = Hold::Held;
    }

    /// A file was made and opened in one step: it is known to the kernel once and open once, and held by the server unless
    /// it is leased.
    pub fn created(&self, ino: Ino, orphan: bool, leased: bool) {
        let mut shard = self.shard(ino);
        let inode = shard.inodes.entry(ino).or_default();
        inode.lookups += 1;
        inode.opens += 1;
        if !leased {
            inode.hold = Hold::Held;
        }
        inode.orphan |= orphan;
    }

    /// An open came to nothing; `doubtful` when the server may hold the inode for it all the same. True: there is
    /// something to drop now.
    #[must_use]
    pub fn open_failed(&self, ino: Ino, doubtful: bool) -> bool {
        self.change(ino, |inode| {
            if doubtful && inode.hold == Hold::Free {
                inode.hold = Hold::Doubtful;
            }
            close(inode, ino);
        })
    }

    /// An open file was closed for good. True: there is something to drop now.
    #[must_use]
    pub fn closed(&self, ino: Ino) -> bool {
        self.change(ino, |inode| close(inode, ino))
    }

    /// An operation of this mount took the last name; the server holds the inode for us since. True: there is
    /// something to drop now.
    #[must_use]
    pub fn orphaned(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let inode = shard.inodes.entry(ino).or_default();
        inode.orphan = true;
        match inode.hold {
            Hold::Free | Hold::Doubtful => inode.hold = Hold::Held,
            Hold::Held => {}
            Hold::Dropping => inode.unsure = true,
        }
        let list = list(inode);
        drop(shard);
        self.enlist(ino, list)
    }

    /// A mutation that has the server hold the inode for us was sent again: the server holds it once more, also when it had been
    /// dropped before. True: there is something to drop now.
    #[must_use]
    pub fn held_once_more(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let inode = shard.inodes.entry(ino).or_default();
        match inode.hold {
            Hold::Free => inode.hold = Hold::Doubtful,
            Hold::Held | Hold::Doubtful => {}
            // Which of the two the server sees first is not known.
            Hold::Dropping => inode.unsure = true,
        }
        let list = list(inode);
        drop(shard);
        self.enlist(ino, list)
    }

    /// The operation that took the last name will not ask the server to hold the inode, or has failed: it is not held for that
    /// any more.
    pub fn not_held(&self, ino: Ino, orphan: bool) {
        let mut shard = self.shard(ino);
        let Entry::Occupied(mut entry) = shard.inodes.entry(ino) else { return };
        let inode = entry.get_mut();
        inode.orphan = orphan;
        if inode.hold == Hold::Held {
            inode.hold = Hold::Free;
        }
        if inode.dead() {
            entry.remove();
        }
    }

    /// The next inodes to drop, at most `max`, all marked as being dropped; the caller sends one Drop for them and
    /// reports [`Self::drops_done`]. `None` when nothing is to be done or another Drop is on its way, so there is
    /// one at a time and those who come meanwhile gather. What is not `ready` stays in the list.
    #[must_use]
    pub fn next_drops(&self, max: usize, ready: impl Fn(Ino) -> bool) -> Option<Vec<Ino>> {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if drops.busy {
            return None;
        }
        let (mut inos, mut later) = (Vec::new(), Vec::new());
        while inos.len() < max {
            let Some(ino) = drops.list.pop() else { break };
            if !ready(ino) {
                later.push(ino);
            } else if self.begin_drop(ino) {
                inos.push(ino);
            }
        }
        drops.list.append(&mut later);
        drops.busy = !inos.is_empty();
        drops.busy.then_some(inos)
    }

    /// The Drop of `inos` was answered. Gives who waited for it, and the inodes that must be held again because an
    /// operation of ours took their last name while the Drop was on its way; each of these counts as an open that
    /// asks ([`OpenStep::Ask`]), to be ended by [`Self::closed`].
    #[must_use]
    pub fn drops_done(&self, inos: &[Ino]) -> (Vec<Waiter>, Vec<Ino>) {
        let (mut waiters, mut again, mut relisted) = (Vec::new(), Vec::new(), Vec::new());
        for &ino in inos {
            let mut shard = self.shard(ino);
            let Entry::Occupied(mut entry) = shard.inodes.entry(ino) else { continue };
            let inode = entry.get_mut();
            inode.hold = Hold::Free;
            let unsure = std::mem::take(&mut inode.unsure);
            let needed = inode.lookups > 0 || inode.opens > 0;
            if unsure && needed {
                inode.opens += 1;
                again.push(ino);
            } else if unsure {
                // Dropping what is not held does no harm.
                inode.hold = Hold::Held;
                inode.listed = true;
                relisted.push(ino);
            }
            let awaited = std::mem::take(&mut inode.awaited);
            if inode.dead() {
                entry.remove();
            }
            if awaited {
                waiters.extend(shard.waiters.0.remove(&ino).unwrap_or_default());
            }
        }
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        drops.busy = false;
        drops.list.append(&mut relisted);
        (waiters, again)
    }

    /// Every inode the server holds for us: what is to be asserted after a reconnect.
    #[must_use]
    pub fn all_held(&self) -> Vec<Ino> {
        self.all(|inode| inode.hold == Hold::Held)
    }

    /// Every inode that is open and not held for certain, for the lease keeps it alive.
    #[must_use]
    pub fn open_by_lease(&self) -> Vec<Ino> {
        self.all(|inode| matches!(inode.hold, Hold::Free | Hold::Doubtful) && inode.opens > 0)
    }

    fn all(&self, wanted: impl Fn(&Inode) -> bool) -> Vec<Ino> {
        let mut out = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            out.extend(shard.inodes.iter().filter(|(_, inode)| wanted(inode)).map(|(ino, _)| *ino));
        }
        out
    }

    /// The server has forgotten the session: it holds nothing for us, no lease keeps anything alive, and what had no name is
    /// gone. Gives the inodes that are open, to be held again by the next session; each counts as one more open that asks
    /// ([`OpenStep::Ask`]).
    #[must_use]
    pub fn lost(&self) -> Vec<Ino> {
        let mut open = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (ino, inode) in &mut shard.inodes {
                if matches!(inode.hold, Hold::Held | Hold::Doubtful) {
                    inode.hold = Hold::Free;
                }
                if inode.opens > 0 && matches!(inode.hold, Hold::Free) {
                    inode.opens += 1;
                    open.push(*ino);
                }
            }
            shard.inodes.retain(|_, inode| !inode.dead());
        }
        open
    }

    /// Counts, for the operator. Walks the table.
    #[must_use]
    pub fn counts(&self) -> InodeCounts {
        let mut counts = InodeCounts::default();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            counts.known += shard.inodes.len();
            for inode in shard.inodes.values() {
                counts.held += usize::from(inode.hold == Hold::Held);
                counts.orphans += usize::from(inode.orphan);
            }
        }
        counts
    }

    fn begin_drop(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let Entry::Occupied(mut entry) = shard.inodes.entry(ino) else { return false };
        let inode = entry.get_mut();
        inode.listed = false;
        if inode.droppable() {
            inode.hold = Hold::Dropping;
            return true;
        }
        if inode.dead() {
            entry.remove();
        }
        false
    }

    /// Changes an inode that exists; lists it for dropping or removes it when it has come to that.
    fn change(&self, ino: Ino, change: impl FnOnce(&mut Inode)) -> bool {
        let mut shard = self.shard(ino);
        let Entry::Occupied(mut entry) = shard.inodes.entry(ino) else { return false };
        change(entry.get_mut());
        let list = list(entry.get_mut());
        if entry.get().dead() {
            entry.remove();
        }
        drop(shard);
        self.enlist(ino, list)
    }

    fn enlist(&self, ino: Ino, list: bool) -> bool {
        if list {
            self.drops.lock().unwrap_or_else(PoisonError::into_inner).list.push(ino);
        }
        list
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(ino.0 % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step(inode: &Inode) -> OpenStep {
    match inode.hold {
        Hold::Held => OpenStep::Ready,
        Hold::Free | Hold::Doubtful => OpenStep::Ask,
        Hold::Dropping => OpenStep::Wait,
    }
}

fn close(inode: &mut Inode, ino: Ino) {
    assert!(inode.opens > 0, "inode {ino} was closed more often than opened");
    inode.opens -= 1;
}

/// Whether the inode has to be put on the list of drops now.
fn list(inode: &mut Inode) -> bool {
    let list = inode.droppable() && !inode.listed;
    inode.listed |= list;
    list
}
