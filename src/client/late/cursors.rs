//! Who has to learn of which error, and has: each descriptor that was open sees each error of its inode once; one that
//! nobody saw waits for the next who opens the inode.

use crate::base::{Errno, Ino};
use rustc_hash::FxHashMap;

/// How far a descriptor has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor(u64);

/// The errors of a mount. One count serves all inodes, so that an inode that was forgotten and fails again cannot be taken
/// for what it was.
#[derive(Debug, Default)]
pub struct Errors {
    /// Errors so far.
    raised: u64,
    last: FxHashMap<Ino, Last>,
    mount: Option<Last>,
}

/// The youngest error of an inode.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    errno: Errno,
    unseen: bool,
}

impl Errors {
    /// A descriptor of an inode, or of the whole mount, is opened.
    #[must_use]
    pub fn open(&self, ino: Option<Ino>) -> Cursor {
        match self.get(ino) {
            Some(last) if last.unseen => Cursor(last.number - 1),
            _ => Cursor(self.raised),
        }
    }

    /// What a sync through a descriptor tells; it has seen it then.
    ///
    /// # Errors
    /// The youngest error since it looked last.
    pub fn check(&mut self, ino: Option<Ino>, cursor: &mut Cursor) -> Result<(), Errno> {
        let seen = std::mem::replace(cursor, Cursor(self.raised));
        let last = match ino {
            None => self.mount.as_mut(),
            Some(ino) => self.last.get_mut(&ino),
        };
        let Some(last) = last.filter(|last| last.number > seen.0) else { return Ok(()) };
        last.unseen = false;
        Err(last.errno)
    }

    /// Something of an inode, or of the whole mount, failed.
    pub fn raise(&mut self, ino: Option<Ino>, errno: Errno) {
        self.raised += 1;
        let last = Last { number: self.raised, errno: told(errno), unseen: true };
        match ino {
            None => self.mount = Some(last),
            Some(ino) => {
                if self.last.len() >= INODES_MAX && !self.last.contains_key(&ino) {
                    self.make_room();
                }
                self.last.insert(ino, last);
            }
        }
    }

    fn get(&self, ino: Option<Ino>) -> Option<&Last> {
        ino.map_or(self.mount.as_ref(), |ino| self.last.get(&ino))
    }

    /// Forgets the older half: of those that were seen, if there are any. The mount's own error stays.
    fn make_room(&mut self) {
        let mut numbers: Vec<(bool, u64)> =
            self.last.values().map(|last| (last.unseen, last.number)).collect();
        let middle = numbers.len() / 2;
        let (_, median, _) = numbers.select_nth_unstable(middle);
        let median = *median;
        self.last.retain(|_, last| (last.unseen, last.number) > median);
    }
}

/// What a sync may say. The cause of the others is in the list for the operator.
fn told(errno: Errno) -> Errno {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS => errno,
        _ => Errno::EIO,
    }
}

/// Inodes whose error is remembered: some megabytes.
pub(super) const INODES_MAX: usize = 1 << 16;
