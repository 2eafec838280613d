//! Where each chunk lies, how many extents refer to it, and how many bytes of each segment are alive.
//!
//! A chunk enters with [`add`] when its bytes are in a segment, gets its references from [`super::extents`] in the same
//! transaction, and goes with the last of them. The counters of its segment change along.

use super::{Order, StoreFault, Txn, View, keys};
use crate::base::{ChunkId, ChunkPlace, SegmentId};
use std::ops::ControlFlow;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Where it lies.
    pub place: ChunkPlace,
    /// How many extents refer to it.
    pub refs: u32,
}

/// What is alive in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// Bytes of the records of its chunks.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ChunkValue {
    segment: U32,
    position: U32,
    len: U32,
    refs: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LiveValue {
    bytes: U64,
    chunks: U64,
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<Chunk, StoreFault> {
    let value = ChunkValue::ref_from_bytes(bytes);
    let value = value.map_err(|_| StoreFault::damaged(key, "not the record of a chunk"))?;
    let segment = SegmentId(value.segment.get());
    let place = ChunkPlace { segment, position: value.position.get(), len: value.len.get() };
    Ok(Chunk { place, refs: value.refs.get() })
}

/// Stores a chunk as it is given; the counters of its segment are the caller's concern.
pub fn put(txn: &mut dyn Txn, id: ChunkId, chunk: Chunk) {
    let ChunkPlace { segment, position, len } = chunk.place;
    let value = ChunkValue {
        segment: segment.0.into(),
        position: position.into(),
        len: len.into(),
        refs: chunk.refs.into(),
    };
    txn.put(&keys::chunk(id), value.as_bytes());
}

/// A chunk, if it exists.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn get(view: &dyn View, id: ChunkId) -> Result<Option<Chunk>, StoreFault> {
    let key = keys::chunk(id);
    view.get(&key)?.map(|bytes| decode(&key, &bytes)).transpose()
}

/// A chunk that an extent refers to.
///
/// # Errors
/// It does not exist, cannot be read or is damaged.
pub fn must_get(view: &dyn View, id: ChunkId) -> Result<Chunk, StoreFault> {
    get(view, id)?
        .ok_or_else(|| StoreFault::damaged(&keys::chunk(id), "an extent refers to it, but it is missing"))
}

/// Enters a chunk whose bytes are at `place`, without references yet.
///
/// # Errors
/// The counters of the segment cannot be read; the number is taken.
pub fn add(txn: &mut dyn Txn, id: ChunkId, place: ChunkPlace) -> Result<(), StoreFault> {
    if get(txn, id)?.is_some() {
        return Err(StoreFault::damaged(&keys::chunk(id), "the number of a new chunk is taken"));
    }
    put(txn, id, Chunk { place, refs: 0 });
    add_live(txn, place, 1)
}

/// Changes how many extents refer to a chunk; the last reference takes the chunk along.
///
/// # Errors
/// It cannot be read, is damaged, or has fewer references than are taken away.
pub fn add_refs(txn: &mut dyn Txn, id: ChunkId, by: i32) -> Result<(), StoreFault> {
    if by == 0 {
        return Ok(());
    }
    let chunk = must_get(txn, id)?;
    let refs = chunk.refs.checked_add_signed(by);
    let refs = refs.ok_or_else(|| StoreFault::damaged(&keys::chunk(id), "wrong number of references"))?;
    if refs > 0 {
        put(txn, id, Chunk { refs, ..chunk });
        return Ok(());
    }
    txn.delete(&keys::chunk(id));
    add_live(txn, chunk.place, -1)
}

/// Notes that the bytes of a chunk were copied from `from` to `to`. Does nothing and says `false` when it is not at
/// `from` any more: removed or moved meanwhile.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn relocate(
    txn: &mut dyn Txn,
    id: ChunkId,
    from: ChunkPlace,
    to: ChunkPlace,
) -> Result<bool, StoreFault> {
    let Some(chunk) = get(txn, id)?.filter(|chunk| chunk.place == from) else { return Ok(false) };
    put(txn, id, Chunk { place: to, ..chunk });
    add_live(txn, from, -1)?;
    add_live(txn, to, 1)?;
    Ok(true)
}

/// What is alive in a segment.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn live(view: &dyn View, segment: SegmentId) -> Result<Live, StoreFault> {
    let key = keys::segment(segment);
    view.get(&key)?.map_or(Ok(Live::default()), |bytes| decode_live(&key, &bytes))
}

fn decode_live(key: &[u8], bytes: &[u8]) -> Result<Live, StoreFault> {
    let value = LiveValue::ref_from_bytes(bytes);
    let value = value.map_err(|_| StoreFault::damaged(key, "not the record of a segment"))?;
    Ok(Live { bytes: value.bytes.get(), chunks: value.chunks.get() })
}

/// Stores what is alive in a segment.
pub fn put_live(txn: &mut dyn Txn, segment: SegmentId, live: Live) {
    let value = LiveValue { bytes: live.bytes.into(), chunks: live.chunks.into() };
    if live == Live::default() {
        txn.delete(&keys::segment(segment));
    } else {
        txn.put(&keys::segment(segment), value.as_bytes());
    }
}

fn add_live(txn: &mut dyn Txn, place: ChunkPlace, chunks: i64) -> Result<(), StoreFault> {
    let old = live(txn, place.segment)?;
    let bytes = i64::try_from(place.record_bytes()).ok().and_then(|bytes| bytes.checked_mul(chunks));
    let new = bytes.and_then(|bytes| {
        Some(Live {
            bytes: old.bytes.checked_add_signed(bytes)?,
            chunks: old.chunks.checked_add_signed(chunks)?,
        })
    });
    let wrong =
        || StoreFault::damaged(&keys::segment(place.segment), "fewer live bytes than its chunks have");
    put_live(txn, place.segment, new.ok_or_else(wrong)?);
    Ok(())
}

/// Visits all chunks in order of number. A damaged one is handed over as its fault.
///
/// # Errors
/// The store cannot be read.
pub fn each(
    view: &dyn View,
    visit: &mut dyn FnMut(Result<(ChunkId, Chunk), StoreFault>) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::CHUNK], keys::after(keys::letter::CHUNK));
    view.scan(&from, &end, Order::Forward, &mut |key, value| {
        let id = keys::number(key).ok_or_else(|| StoreFault::damaged(key, "not the key of a chunk"));
        visit(id.and_then(|id| Ok((ChunkId(id), decode(key, value)?))))
    })
}

/// Visits the counters of all segments in order of number. A damaged one is handed over as its fault.
///
/// # Errors
/// The store cannot be read.
pub fn each_live(
    view: &dyn View,
    visit: &mut dyn FnMut(Result<(SegmentId, Live), StoreFault>) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::SEGMENT], keys::after(keys::letter::SEGMENT));
    view.scan(&from, &end, Order::Forward, &mut |key, value| {
        let id = key.get(1..).and_then(|number| <[u8; 4]>::try_from(number).ok());
        let id = id.ok_or_else(|| StoreFault::damaged(key, "not the key of a segment"));
        visit(id.and_then(|id| Ok((SegmentId(u32::from_be_bytes(id)), decode_live(key, value)?))))
    })
}
