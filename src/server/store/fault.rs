//! What goes wrong with a store as a whole.

use crate::base::Errno;
use crate::server::chunks::ChunkFault;
use crate::server::meta::StoreFault;
use std::path::PathBuf;

/// A fault of the metadata or of the chunks.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Of the metadata.
    #[error(transparent)]
    Meta(#[from] StoreFault),
    /// Of the chunks.
    #[error(transparent)]
    Chunk(#[from] ChunkFault),
}

impl Fault {
    /// What the program that asked is told.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Meta(fault) => fault.errno(),
            Self::Chunk(fault) => fault.errno(),
        }
    }
}

impl From<Fault> for Errno {
    /// Becomes the answer to one operation, and is logged.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Meta(fault) => fault.into(),
            Fault::Chunk(fault) => fault.into(),
        }
    }
}

/// Why a store cannot be opened: one line for the operator, with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFault {
    /// There is something else in the folder.
    #[error("{} is not empty and not a ringfs store; name an empty folder or one that does not exist", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The name is that of a file.
    #[error("{} is not a folder; name an empty folder or one that does not exist", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A later version of this program made it.
    #[error(
        "{} has store format {found}, this program knows formats up to {known}; use the newer ringfs that made it",
        path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The file that says the format says something else.
    #[error("{} does not say which format the store has: it should read \"ringfs store format N\"", path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{} is in use by another process{}; stop that one first", path.display(), of_pid(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// That process, if it said so.
        pid: Option<u32>,
    },
    /// Too little room for a new store.
    #[error("no space for a new store in {}: {free_mib} MiB are free, {needed_mib} MiB are needed", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Free now.
        free_mib: u64,
        /// Needed.
        needed_mib: u64,
    },
    /// It says that it is a store, but the first record is missing.
    #[error("{} is marked as a ringfs store but has no superblock; restore a copy of the store", path.display())]
    NoSuperblock {
        /// The folder.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("cannot {action} {}: {source}; check the path, its owner and its permissions", path.display())]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers, which a new volume needs")]
    NoRandom,
    /// Of the metadata.
    #[error(transparent)]
    Meta(#[from] StoreFault),
    /// Of the chunks.
    #[error(transparent)]
    Chunk(#[from] ChunkFault),
}

impl From<Fault> for OpenFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Meta(fault) => Self::Meta(fault),
            Fault::Chunk(fault) => Self::Chunk(fault),
        }
    }
}

fn of_pid(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
