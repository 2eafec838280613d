//! The disk below: how much is free, and from where on writes are refused.
//!
//! The metadata engine gives up for good when a write of its own fails, so the last bytes of a disk are never used:
//! growth stops first, then the copying of live chunks that gives back the room of dead ones, then all metadata. So files
//! can still be removed when nothing can be made, and what is removed gives its room back.

use super::{Fault, OpenFault};
use crate::base::Errno;
use crate::server::chunks::SEGMENT_BYTES;
use crate::server::meta::StoreFault;
use crate::server::meta::embedded::{JOURNAL_BYTES, journal_rest};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What the bytes are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Chunks, and metadata of something new.
    Growth,
    /// Copies of chunks, made to free more than they take.
    Collect,
    /// Any metadata.
    Metadata,
}

/// The disk below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Its size.
    pub total_bytes: u64,
    /// What files can still take.
    pub free_bytes: u64,
}

/// Part of the disk that growth leaves free, within these bounds.
const RESERVE_PART: u64 = 8;
const RESERVE_BYTES_MIN: u64 = 16 << 20;
const RESERVE_BYTES_MAX: u64 = 512 << 20;

/// Growth also leaves room for what the engine's journal may still take, but no larger part of the disk than this: the
/// tombstones of all that is removed go there before anything is given back.
const JOURNAL_PART: u64 = 8;

/// The system is asked again after so many bytes; others write to the disk as well.
const TRUST_BYTES: u64 = 4 << 20;

/// Counts down what is free between questions to the system.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    reserve_bytes: u64,
    /// See [`JOURNAL_PART`].
    journal_max_bytes: u64,
    estimate: Mutex<Estimate>,
}

#[derive(Debug, Default)]
struct Estimate {
    free_bytes: u64,
    /// Of them kept for the journal.
    journal_bytes: u64,
    /// Bytes that may still be taken before the system is asked again.
    trust_bytes: u64,
}

impl Room {
    pub(super) fn new(folder: &Path) -> Result<Self, Fault> {
        let mut room = Self {
            folder: folder.to_path_buf(),
            reserve_bytes: 0,
            journal_max_bytes: 0,
            estimate: Mutex::default(),
        };
        let total = room.ask()?.total_bytes;
        room.journal_max_bytes = total / JOURNAL_PART;
        room.reserve_bytes = (total / RESERVE_PART).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        Ok(room)
    }

    fn ask(&self) -> Result<Space, Fault> {
        let found = statvfs(&self.folder).map_err(|errno| StoreFault::Disk {
            action: "ask for the free space of",
            path: self.folder.clone(),
            source: errno.into(),
        })?;
        let unit = found.fragment_size();
        Ok(Space { total_bytes: found.blocks() * unit, free_bytes: found.blocks_available() * unit })
    }

    fn journal_bytes(&self) -> u64 {
        journal_rest(&self.folder.join(super::META)).min(self.journal_max_bytes)
    }

    /// Size of a segment on this disk: one that is being emptied fits into what is kept for that, twice.
    pub(super) fn segment_bytes(&self) -> u32 {
        u32::try_from(self.reserve_bytes / 8).unwrap_or(SEGMENT_BYTES).min(SEGMENT_BYTES)
    }

    /// Size of the engine's tables in memory on this disk: writing one out must fit into what is kept for that.
    pub(super) fn memtable_bytes(&self) -> u64 {
        self.reserve_bytes / 16
    }

    /// What the engine may take for a while to give back more.
    pub(super) fn rewrite_bytes(&self) -> u64 {
        self.ask().map_or(0, |space| space.free_bytes.saturating_sub(self.reserve_bytes / 4))
    }

    /// Whether growth is refused, or will be soon.
    pub(super) fn is_scarce(&self) -> bool {
        let kept = self.reserve_bytes + self.reserve_bytes / 2 + self.journal_bytes();
        self.ask().is_ok_and(|space| space.free_bytes < kept)
    }

    /// What statfs shows: the reserve counts as taken.
    pub(super) fn space(&self) -> Result<Space, Fault> {
        let space = self.ask()?;
        Ok(Space {
            free_bytes: space.free_bytes.saturating_sub(self.reserve_bytes + self.journal_bytes()),
            ..space
        })
    }

    /// Refuses when a new store would have no room to grow.
    pub(super) fn check_new(&self, folder: &Path) -> Result<(), OpenFault> {
        let free_bytes = self.ask()?.free_bytes;
        let kept = self.reserve_bytes + self.journal_max_bytes.min(JOURNAL_BYTES);
        if free_bytes > kept {
            return Ok(());
        }
        let (free_mib, needed_mib) = (free_bytes >> 20, (kept >> 20) + 1);
        Err(OpenFault::NoSpace { path: folder.to_path_buf(), free_mib, needed_mib })
    }

    /// Takes `bytes`, or refuses with `ENOSPC`.
    pub(super) fn take(&self, bytes: u64, purpose: Use) -> Result<(), Errno> {
        let floor = |estimate: &Estimate| match purpose {
            Use::Growth => self.reserve_bytes + estimate.journal_bytes,
            Use::Collect => self.reserve_bytes / 8 * 5,
            Use::Metadata => self.reserve_bytes / 2,
        };
        let mut estimate = self.estimate.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |estimate: &Estimate| estimate.free_bytes >= floor(estimate).saturating_add(bytes);
        // Asked again also before refusing: something may have been removed.
        if estimate.trust_bytes < bytes || !fits(&estimate) {
            let free_bytes = self.ask().map_err(Errno::from)?.free_bytes;
            *estimate = Estimate {
                free_bytes,
                journal_bytes: self.journal_bytes(),
                trust_bytes: TRUST_BYTES.max(bytes),
            };
            if !fits(&estimate) {
                return Err(Errno::ENOSPC);
            }
        }
        estimate.free_bytes -= bytes;
        estimate.trust_bytes -= bytes;
        Ok(())
    }
}
