//! The record of a chunk in a segment. All numbers are little-endian.
//!
//! ```text
//! byte 0   u32 magic       4  u32 header checksum, of everything from byte 8 to the end of the block checksums
//!      8   u64 chunk      16  u64 inode
//!     24   u32 length     28  u32 0
//!     32   u32 checksum of each block of 4096 bytes, the last block may be shorter
//!      …   the bytes of the chunk, then zeros up to a multiple of 8
//! ```
//!
//! Checksums are CRC-32C. That of the header begins with the segment and the position, so that a record is valid only
//! where it was written: the bytes of a file that happens to hold a segment are not mistaken for one.

use super::{ChunkFault, ChunkTag, Record};
use crate::base::limits::CHUNK_BYTES_MAX;
use crate::base::place::{CHECKSUM_BLOCK_BYTES, RECORD_HEADER_BYTES};
use crate::base::{ChunkId, ChunkPlace, Ino, SegmentId};
use crc_fast::{CrcAlgorithm, Digest};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: u32 = u32::from_le_bytes(*b"rCHK");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    checksum: U32,
    chunk: U64,
    ino: U64,
    len: U32,
    zero: U32,
}

const _: () = assert!(size_of::<Header>() == RECORD_HEADER_BYTES as usize);
/// Bytes of the header that its checksum does not cover.
const UNCOVERED_BYTES: usize = 8;

/// Longest header with its block checksums.
pub(super) const HEAD_BYTES_MAX: usize =
    RECORD_HEADER_BYTES as usize + 4 * CHUNK_BYTES_MAX.div_ceil(CHECKSUM_BLOCK_BYTES as usize);

/// Bytes before the chunk's own: header and block checksums.
pub(super) fn head_bytes(len: u32) -> u32 {
    RECORD_HEADER_BYTES + 4 * len.div_ceil(CHECKSUM_BLOCK_BYTES)
}

/// CRC-32C of some bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

fn head_checksum(covered: &[u8], segment: SegmentId, position: u32) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&segment.0.to_le_bytes());
    digest.update(&position.to_le_bytes());
    digest.update(covered);
    u32::try_from(digest.finalize()).expect("32 bits")
}

/// Header and block checksums of a record. The header's own checksum depends on the place: see [`seal_head`].
pub(super) fn encode_head(tag: ChunkTag, bytes: &[u8]) -> Result<Vec<u8>, ChunkFault> {
    let len = u32::try_from(bytes.len()).ok().filter(|&len| len > 0 && len as usize <= CHUNK_BYTES_MAX);
    let len = len.ok_or(ChunkFault::Range {
        chunk: tag.chunk,
        from: 0,
        to: bytes.len() as u64,
        len: CHUNK_BYTES_MAX as u64,
    })?;
    let header = Header {
        magic: MAGIC.into(),
        checksum: 0.into(),
        chunk: tag.chunk.0.into(),
        ino: tag.ino.0.into(),
        len: len.into(),
        zero: 0.into(),
    };
    let mut head = Vec::with_capacity(head_bytes(len) as usize);
    head.extend_from_slice(header.as_bytes());
    for block in bytes.chunks(CHECKSUM_BLOCK_BYTES as usize) {
        head.extend_from_slice(&checksum(block).to_le_bytes());
    }
    Ok(head)
}

/// Sets the checksum of the header for the place where the record goes.
pub(super) fn seal_head(head: &mut [u8], segment: SegmentId, position: u32) {
    let sum = head_checksum(&head[UNCOVERED_BYTES..], segment, position);
    head[4..UNCOVERED_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// Length that a header claims, if it looks like one; [`verify_head`] says whether it is true.
pub(super) fn claimed_len(header: &[u8]) -> Option<u32> {
    let (header, _) = Header::ref_from_prefix(header).ok()?;
    let len = header.len.get();
    let fits = header.magic.get() == MAGIC && len > 0 && len as usize <= CHUNK_BYTES_MAX;
    fits.then_some(len)
}

/// The record whose header and block checksums are `head` (of the length that [`claimed_len`] implies).
pub(super) fn verify_head(head: &[u8], segment: SegmentId, position: u32) -> Option<Record> {
    let (header, _) = Header::ref_from_prefix(head).ok()?;
    if header.checksum.get() != head_checksum(&head[UNCOVERED_BYTES..], segment, position) {
        return None;
    }
    let tag = ChunkTag { chunk: ChunkId(header.chunk.get()), ino: Ino(header.ino.get()) };
    Some(Record { tag, place: ChunkPlace { segment, position, len: header.len.get() } })
}

/// Checks that `head` is that of `chunk` at `place`.
pub(super) fn expect_head(head: &[u8], chunk: ChunkId, place: ChunkPlace) -> Result<(), ChunkFault> {
    let wrong = |why| ChunkFault::WrongRecord {
        chunk,
        segment: place.segment,
        position: u64::from(place.position),
        why,
    };
    if claimed_len(head) != Some(place.len) {
        return Err(wrong("no header of that length"));
    }
    let record = verify_head(head, place.segment, place.position);
    let record = record.ok_or_else(|| wrong("the header is damaged"))?;
    if record.tag.chunk == chunk { Ok(()) } else { Err(wrong("the record of another chunk")) }
}

/// Checks block `block` of the chunk, whose bytes are `bytes`.
pub(super) fn verify_block(
    head: &[u8],
    chunk: ChunkId,
    place: ChunkPlace,
    block: u32,
    bytes: &[u8],
) -> Result<(), ChunkFault> {
    let at = (RECORD_HEADER_BYTES + 4 * block) as usize;
    let expected = u32::from_le_bytes(*head[at..].first_chunk().expect("the head was verified"));
    let actual = checksum(bytes);
    if actual == expected {
        return Ok(());
    }
    let block_start = u64::from(head_bytes(place.len)) + u64::from(block) * u64::from(CHECKSUM_BLOCK_BYTES);
    let position = u64::from(place.position) + block_start;
    Err(ChunkFault::Corrupt { chunk, segment: place.segment, position, expected, actual })
}

/// Checks that `from..from + len` lies in the chunk.
pub(super) fn check_range(
    chunk: ChunkId,
    place: ChunkPlace,
    from: u32,
    len: usize,
) -> Result<(), ChunkFault> {
    let (from, to, whole) = (u64::from(from), u64::from(from) + len as u64, u64::from(place.len));
    if to <= whole && place.len as usize <= CHUNK_BYTES_MAX && place.len > 0 {
        return Ok(());
    }
    Err(ChunkFault::Range { chunk, from, to, len: whole })
}

#[cfg(test)]
mod tests {
    use super::{claimed_len, encode_head, head_bytes, seal_head, verify_head};
    use crate::base::{ChunkId, Ino, SegmentId};
    use crate::server::chunks::ChunkTag;

    #[test]
    fn a_header_is_valid_only_where_it_was_written() {
        let tag = ChunkTag { chunk: ChunkId(9), ino: Ino(4) };
        let mut head = encode_head(tag, &[5; 5000]).unwrap();
        assert_eq!(head.len(), head_bytes(5000) as usize);
        seal_head(&mut head, SegmentId(3), 128);
        assert_eq!(claimed_len(&head), Some(5000));
        assert_eq!(verify_head(&head, SegmentId(3), 128).unwrap().tag, tag);
        assert!(verify_head(&head, SegmentId(3), 136).is_none());
        assert!(verify_head(&head, SegmentId(4), 128).is_none());
        for at in 4..head.len() {
            let mut flipped = head.clone();
            flipped[at] ^= 1;
            assert!(verify_head(&flipped, SegmentId(3), 128).is_none(), "byte {at}");
        }
    }

    #[test]
    fn chunks_of_no_bytes_or_too_many_are_refused() {
        let tag = ChunkTag { chunk: ChunkId(1), ino: Ino(1) };
        assert!(encode_head(tag, &[]).is_err());
        assert!(encode_head(tag, &vec![0; super::CHUNK_BYTES_MAX + 1]).is_err());
        assert!(encode_head(tag, &vec![0; super::CHUNK_BYTES_MAX]).is_ok());
    }
}
