//! What goes wrong in the metadata store, by who is to blame.

use super::CommitSeq;
use crate::base::{Errno, Ino};
use std::path::PathBuf;

/// A fault of the metadata store. The answer to the caller is [`StoreFault::errno`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// The disk below is full. Nothing was changed; removing files helps.
    #[error("the disk of the store is full")]
    Full,
    /// A write failed before, so what the disk holds is not certain any more.
    #[error(
        "the store stopped writing after an earlier fault ({cause}); mend the disk and restart the server"
    )]
    Latched {
        /// The first fault.
        cause: String,
    },
    /// The system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The embedded engine reports a fault of its own or of its files.
    #[error("metadata engine cannot {action}: {source}")]
    Engine {
        /// What was tried, as a verb.
        action: &'static str,
        /// The engine's words.
        source: Box<fjall::Error>,
    },
    /// The embedded engine gave up while it opened its files.
    #[error("the metadata in {} is damaged beyond what the engine can read; restore a copy of the store", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
    },
    /// A record does not say what its key promises: damage, or a bug of an older version.
    #[error("damaged metadata record at key {key}: {why}; run `ringfs fsck` on the store")]
    Damaged {
        /// The key, escaped.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More names of one directory have the same hash than a bucket holds. Needs the volume's secret key.
    #[error("too many names of directory {parent} have the same hash")]
    Collisions {
        /// The directory.
        parent: Ino,
    },
    /// Another process has the store open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The journal was cut short: commits known to have been on the disk are gone.
    #[error(
        "the metadata journal is damaged: commit {persisted} had reached the disk, the last one found is {found}; \
         restore a copy of the store, or accept the loss with `ringfs fsck --repair`"
    )]
    CommitsLost {
        /// The last commit that had been persisted.
        persisted: CommitSeq,
        /// The last commit found.
        found: CommitSeq,
    },
}

impl StoreFault {
    /// A record at `key` that does not decode.
    #[must_use]
    pub fn damaged(key: &[u8], why: &'static str) -> Self {
        Self::Damaged { key: key.escape_ascii().to_string(), why }
    }

    /// What the program that asked is told.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Full | Self::Collisions { .. } => Errno::ENOSPC,
            _ => Errno::EIO,
        }
    }
}

impl From<StoreFault> for Errno {
    /// Becomes the answer to one operation. This is where a fault is handled, so here it is logged, once.
    fn from(fault: StoreFault) -> Self {
        if !matches!(fault, StoreFault::Full) {
            tracing::error!(%fault, "metadata store");
        }
        fault.errno()
    }
}
