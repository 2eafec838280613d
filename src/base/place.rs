//! Where the bytes of a chunk lie, and how much room they take there.

use std::fmt;

/// Number of a segment: one append-only file (or object) that holds many chunks. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// Bytes of the fixed part of a chunk's record in a segment.
pub const RECORD_HEADER_BYTES: u32 = 32;

/// Bytes covered by one checksum: a partial read verifies only the blocks it touches.
pub const CHECKSUM_BLOCK_BYTES: u32 = 4096;

/// Records start at multiples of this, so that a search after damage is cheap.
pub const RECORD_ALIGN_BYTES: u32 = 8;

/// Place of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkPlace {
    /// The segment.
    pub segment: SegmentId,
    /// Byte position of the chunk's record in the segment.
    pub position: u32,
    /// Bytes of the chunk itself, without its record's header and checksums.
    pub len: u32,
}

impl ChunkPlace {
    /// Bytes the record takes in its segment: header, one checksum per block, the bytes, padding.
    #[must_use]
    pub const fn record_bytes(&self) -> u64 {
        record_bytes(self.len)
    }
}

/// See [`ChunkPlace::record_bytes`].
#[must_use]
pub const fn record_bytes(len: u32) -> u64 {
    let blocks = len.div_ceil(CHECKSUM_BLOCK_BYTES) as u64;
    let raw = RECORD_HEADER_BYTES as u64 + 4 * blocks + len as u64;
    raw.next_multiple_of(RECORD_ALIGN_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::record_bytes;

    #[test]
    fn a_record_holds_header_checksums_bytes_and_padding() {
        assert_eq!(record_bytes(1), 40);
        assert_eq!(record_bytes(4096), 4136);
        assert_eq!(record_bytes(4097), 32 + 8 + 4104);
    }
}
