//! What goes wrong in the chunk store, by who is to blame.

use crate::base::{ChunkId, Errno, SegmentId};
use std::path::PathBuf;

/// A fault of the chunk store. The answer to the caller is [`ChunkFault::errno`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkFault {
    /// The disk below is full. Nothing was stored; removing files helps.
    #[error("the disk of the store is full")]
    Full,
    /// A write failed before, so what the disk holds is not certain any more.
    #[error(
        "the chunk store stopped writing after an earlier fault ({cause}); mend the disk and restart the server"
    )]
    Latched {
        /// The first fault.
        cause: String,
    },
    /// The bytes of a chunk do not match their checksum: the disk returned something else than was written.
    #[error(
        "chunk {chunk} is damaged in segment {segment} at byte {position}: checksum {actual:08x}, expected {expected:08x}"
    )]
    Corrupt {
        /// The chunk.
        chunk: ChunkId,
        /// Its segment.
        segment: SegmentId,
        /// Where the damaged block begins in the segment.
        position: u64,
        /// The checksum stored when it was written.
        expected: u32,
        /// The checksum of what was read.
        actual: u32,
    },
    /// There is no valid record of this chunk where the metadata says.
    #[error("no record of chunk {chunk} in segment {segment} at byte {position}: {why}")]
    WrongRecord {
        /// The chunk.
        chunk: ChunkId,
        /// The segment.
        segment: SegmentId,
        /// Where the record should begin.
        position: u64,
        /// What is there instead.
        why: &'static str,
    },
    /// A segment does not exist (any more).
    #[error("segment {segment} does not exist")]
    Missing {
        /// The segment.
        segment: SegmentId,
    },
    /// A segment that is still needed was to be deleted: a bug of the caller.
    #[error("segment {segment} is in use")]
    InUse {
        /// The segment.
        segment: SegmentId,
    },
    /// A chunk larger than a record can hold, empty, or a read past its end: the caller's numbers are wrong.
    #[error("chunk {chunk}: bytes {from}..{to} of {len}")]
    Range {
        /// The chunk.
        chunk: ChunkId,
        /// First byte asked for.
        from: u64,
        /// End of what was asked for.
        to: u64,
        /// Bytes there are, or may be.
        len: u64,
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
}

impl ChunkFault {
    /// What the program that asked is told.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Full => Errno::ENOSPC,
            _ => Errno::EIO,
        }
    }
}

impl From<ChunkFault> for Errno {
    /// Becomes the answer to one operation. This is where a fault is handled, so here it is logged, once.
    fn from(fault: ChunkFault) -> Self {
        if !matches!(fault, ChunkFault::Full) {
            tracing::error!(%fault, "chunk store");
        }
        fault.errno()
    }
}
