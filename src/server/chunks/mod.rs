//! The chunk store: immutable bytes in append-only segments.
//!
//! Comes in: the bytes of a chunk and its number. Goes out: its [`ChunkPlace`], and later any part of the bytes,
//! verified. Which chunks are alive is not known here: the metadata says so, and tells which segments to delete
//! ([`gc`] plans that).
//! Absent on purpose: overwriting, preallocation, an index of its own, and any cache (the kernel's page cache is one).
//!
//! | engine | for |
//! |---|---|
//! | [`local`] | files in a folder |
//! | [`memory`] | tests |

#![forbid(unsafe_code)]

mod fault;

mod record;

pub mod local;

pub mod memory;

pub mod gc;

pub use fault::ChunkFault;

use crate::base::{ChunkId, ChunkPlace, Ino, SegmentId};
use std::ops::ControlFlow;

/// A segment is closed when the next record would make it larger.
pub const SEGMENT_BYTES: u32 = 64 << 20;

/// What the record of a chunk says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkTag {
    /// Its number.
    pub chunk: ChunkId,
    /// The file it was written for: a hint for a person who has lost the metadata, never relied on.
    pub ino: Ino,
}

/// Why a chunk is appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its bytes are new.
    New,
    /// It is copied, so that the segment it lies in can be deleted.
    Move,
}

/// One record met by [`ChunkStore::records`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it says of its chunk.
    pub tag: ChunkTag,
    /// Where it is.
    pub place: ChunkPlace,
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// Bytes it takes.
    pub bytes: u64,
    /// Whether nothing is appended to it any more.
    pub sealed: bool,
    /// Whether [`ChunkStore::delete_segment`] would take it: sealed, and not the newest.
    pub deletable: bool,
}

/// What keeps the chunks. Safe to share; appends and reads of several threads go side by side.
pub trait ChunkStore: Send + Sync + 'static {
    /// Appends a chunk. When it returns the bytes survive the death of this process, not a loss of power.
    ///
    /// # Errors
    /// [`ChunkFault::Full`] leaves nothing behind that a reader could meet.
    fn append(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault>;

    /// [`ChunkStore::append`] of a chunk that moves: it may use room of the disk that is kept for this.
    ///
    /// # Errors
    /// As there.
    fn append_moved(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault> {
        self.append(tag, bytes)
    }

    /// Reads `out.len()` bytes from byte `from` of the chunk at `place`, and verifies them.
    ///
    /// # Errors
    /// [`ChunkFault::Corrupt`] or [`ChunkFault::WrongRecord`] for bytes that are not what was appended (`out` is then
    /// not to be used); [`ChunkFault::Missing`] when the segment is gone: the chunk was moved, look its place up again.
    fn read(&self, chunk: ChunkId, place: ChunkPlace, from: u32, out: &mut [u8]) -> Result<(), ChunkFault>;

    /// Returns when every append that returned before the call survives a loss of power.
    ///
    /// # Errors
    /// The disk refused; latches: later calls fail too.
    fn sync(&self) -> Result<(), ChunkFault>;

    /// The size at which a segment is closed.
    fn segment_bytes(&self) -> u32 {
        SEGMENT_BYTES
    }

    /// Closes the segment appended to; the next append begins a new one.
    fn seal(&self);

    /// The newest segment: the next append goes there or to a newer one. 0 when there was never one.
    fn newest(&self) -> SegmentId;

    /// Deletes a segment.
    ///
    /// # Errors
    /// [`ChunkFault::InUse`] for one that is not [`Segment::deletable`]: the newest keeps its number from coming back.
    fn delete_segment(&self, segment: SegmentId) -> Result<(), ChunkFault>;

    /// All segments, oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn segments(&self) -> Result<Vec<Segment>, ChunkFault>;

    /// Visits the records of a segment in order of position, skipping what is damaged, until `visit` breaks. Checks
    /// headers, not the bytes. Returns how many bytes were skipped.
    ///
    /// # Errors
    /// The segment cannot be read.
    fn records(
        &self,
        segment: SegmentId,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<u64, ChunkFault>;

    /// Syncs and stops in an orderly way. To be called last, once; without it the next user begins a new segment.
    ///
    /// # Errors
    /// The disk refused.
    fn close(&self) -> Result<(), ChunkFault>;

    /// Bytes of all segments on the disk.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn disk_bytes(&self) -> Result<u64, ChunkFault>;
}
