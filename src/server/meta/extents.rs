//! Which bytes of a file are in which chunk. What no extent covers is a hole and reads as zeros.
//!
//! Extents of one file never overlap. Writing over a part of one splits it: both rests refer to the same chunk, which
//! goes when nothing refers to it any more. The caller keeps [`super::Inode::data_bytes`] and the usage counters: every
//! change here says by how many covered bytes the file grew.

use super::{Order, StoreFault, Txn, View, chunk_table, keys};
use crate::base::{ChunkId, Ino};
use std::ops::{ControlFlow, Range};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes `start..start + len` of a file are bytes `offset..offset + len` of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte in the file.
    pub start: u64,
    /// How many; never 0.
    pub len: u64,
    /// The chunk.
    pub chunk: ChunkId,
    /// First byte in the chunk.
    pub offset: u32,
}

impl Extent {
    /// End in the file, exclusive.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The part of it in `range`, which it overlaps.
    #[must_use]
    pub fn cut(&self, range: &Range<u64>) -> Self {
        let start = self.start.max(range.start);
        let end = self.end().min(range.end);
        assert!(start < end, "{self:?} does not reach into {range:?}");
        let skipped = u32::try_from(start - self.start).expect("extents are no longer than chunks");
        Self { start, len: end - start, chunk: self.chunk, offset: self.offset + skipped }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExtentValue {
    len: U64,
    chunk: U64,
    offset: U32,
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<(Ino, Extent), StoreFault> {
    let damaged = |why| StoreFault::damaged(key, why);
    let value = ExtentValue::ref_from_bytes(bytes).map_err(|_| damaged("not the record of an extent"))?;
    let numbers = keys::number(key).zip(keys::second_number(key)).filter(|_| key.len() == 17);
    let (ino, start) = numbers.ok_or_else(|| damaged("not the key of an extent"))?;
    let (len, offset) = (value.len.get(), value.offset.get());
    let fits = len > 0 && len.checked_add(u64::from(offset)).is_some_and(|end| end <= u64::from(u32::MAX));
    if !fits || start.checked_add(len).is_none() {
        return Err(damaged("an extent longer than a chunk or a file"));
    }
    Ok((Ino(ino), Extent { start, len, chunk: ChunkId(value.chunk.get()), offset }))
}

fn store(txn: &mut dyn Txn, ino: Ino, extent: &Extent) {
    let value =
        ExtentValue { len: extent.len.into(), chunk: extent.chunk.0.into(), offset: extent.offset.into() };
    txn.put(&keys::extent(ino, extent.start), value.as_bytes());
}

/// Visits the extents of `ino` that reach into `range`, whole, in the given order.
///
/// # Errors
/// They cannot be read or are damaged.
pub fn each(
    view: &dyn View,
    ino: Ino,
    range: Range<u64>,
    order: Order,
    visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    if range.is_empty() {
        return Ok(());
    }
    let first = before(view, ino, range.start)?.filter(|extent| extent.end() > range.start);
    if let (Order::Forward, Some(extent)) = (order, first)
        && visit(extent).is_break()
    {
        return Ok(());
    }
    let (from, to) = (keys::extent(ino, range.start), keys::extent(ino, range.end));
    if scan(view, &from, &to, order, visit)?.is_break() {
        return Ok(());
    }
    if let (Order::Reverse, Some(extent)) = (order, first) {
        let _last = visit(extent);
    }
    Ok(())
}

/// The one extent of a file whose extents cover `bytes` in all, if it has but one, from its first byte. Costs one look-up.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn only(view: &dyn View, ino: Ino, bytes: u64) -> Result<Option<Extent>, StoreFault> {
    let key = keys::extent(ino, 0);
    let Some(value) = view.get(&key)? else { return Ok(None) };
    let (_, extent) = decode(&key, &value)?;
    Ok((extent.len == bytes).then_some(extent))
}

/// Removes an extent that was found, whole.
///
/// # Errors
/// Its chunk cannot be read or is damaged.
pub fn remove(txn: &mut dyn Txn, ino: Ino, extent: &Extent) -> Result<(), StoreFault> {
    txn.delete(&keys::extent(ino, extent.start));
    chunk_table::add_refs(txn, extent.chunk, -1)
}

/// The extent that begins last before byte `at`.
fn before(view: &dyn View, ino: Ino, at: u64) -> Result<Option<Extent>, StoreFault> {
    let mut found = None;
    let (from, to) = (keys::extent(ino, 0), keys::extent(ino, at));
    let _flow = scan(view, &from, &to, Order::Reverse, &mut |extent| {
        found = Some(extent);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn scan(
    view: &dyn View,
    from: &[u8],
    to: &[u8],
    order: Order,
    visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreFault> {
    let mut fault = None;
    let mut flow = ControlFlow::Continue(());
    view.scan(from, to, order, &mut |key, value| {
        flow = match decode(key, value) {
            Ok((_, extent)) => visit(extent),
            Err(found) => {
                fault = Some(found);
                ControlFlow::Break(())
            }
        };
        flow
    })?;
    fault.map_or(Ok(flow), Err)
}

/// Makes `range` of `ino` a hole. Returns how many bytes were covered before.
///
/// # Errors
/// The extents cannot be read or are damaged.
pub fn punch(txn: &mut dyn Txn, ino: Ino, range: Range<u64>) -> Result<u64, StoreFault> {
    let mut hit = Vec::new();
    each(txn, ino, range.clone(), Order::Forward, &mut |extent| {
        hit.push(extent);
        ControlFlow::Continue(())
    })?;
    let mut freed = 0;
    for extent in hit {
        freed += extent.cut(&range).len;
        let mut refs = -1;
        if extent.start < range.start {
            store(txn, ino, &extent.cut(&(0..range.start)));
            refs += 1;
        } else {
            txn.delete(&keys::extent(ino, extent.start));
        }
        if extent.end() > range.end {
            store(txn, ino, &extent.cut(&(range.end..u64::MAX)));
            refs += 1;
        }
        chunk_table::add_refs(txn, extent.chunk, refs)?;
    }
    Ok(freed)
}

/// Puts `extent` into `ino` where there is none; its chunk was entered with [`chunk_table::add`]. Returns by how many
/// bytes more of the file are covered now.
///
/// # Errors
/// The chunk cannot be read or is damaged.
///
/// # Panics
/// When the extent is empty or reaches past 2^64: the caller has checked its numbers.
pub fn add(txn: &mut dyn Txn, ino: Ino, extent: &Extent) -> Result<u64, StoreFault> {
    assert!(extent.len > 0 && extent.start.checked_add(extent.len).is_some(), "{extent:?}");
    chunk_table::add_refs(txn, extent.chunk, 1)?;
    store(txn, ino, extent);
    Ok(extent.len)
}

/// Puts `extent` into `ino`, over whatever was there; its chunk was entered with [`chunk_table::add`]. Returns by how
/// many bytes more of the file are covered now.
///
/// # Errors
/// The extents cannot be read or are damaged.
///
/// # Panics
/// When the extent is empty or reaches past 2^64: the caller has checked its numbers.
pub fn put(txn: &mut dyn Txn, ino: Ino, extent: &Extent) -> Result<u64, StoreFault> {
    assert!(extent.len > 0 && extent.start.checked_add(extent.len).is_some(), "{extent:?}");
    // First the new reference: the same chunk may be what is overwritten.
    chunk_table::add_refs(txn, extent.chunk, 1)?;
    let freed = punch(txn, ino, extent.start..extent.end())?;
    store(txn, ino, extent);
    let overlap = || StoreFault::damaged(&keys::extent(ino, extent.start), "extents overlap here");
    extent.len.checked_sub(freed).ok_or_else(overlap)
}

/// Makes `range` of `from` also the bytes of `to` from `to_start` on, sharing the chunks; holes become holes. Returns
/// by how many covered bytes `to` changed.
///
/// # Errors
/// The extents cannot be read or are damaged.
///
/// # Panics
/// When both are the same file and the ranges overlap, or the copy reaches past 2^63: the caller has checked.
pub fn share(
    txn: &mut dyn Txn,
    from: Ino,
    range: Range<u64>,
    to: Ino,
    to_start: u64,
) -> Result<i64, StoreFault> {
    let end = to_start.checked_add(range.end - range.start).filter(|&end| end <= i64::MAX as u64);
    let end = end.expect("the caller has checked the size of the file");
    assert!(from != to || end <= range.start || to_start >= range.end, "copy of a range onto itself");
    let mut found = Vec::new();
    each(txn, from, range.clone(), Order::Forward, &mut |extent| {
        found.push(extent.cut(&range));
        ControlFlow::Continue(())
    })?;
    let freed = punch(txn, to, to_start..end)?;
    let mut covered = 0;
    for extent in found {
        covered += put(txn, to, &Extent { start: extent.start - range.start + to_start, ..extent })?;
    }
    Ok(covered.cast_signed() - freed.cast_signed())
}

/// Visits the extents of all files, in order of file and start. A damaged one is handed over as its fault.
///
/// # Errors
/// The store cannot be read.
pub fn each_of_all(
    view: &dyn View,
    visit: &mut dyn FnMut(Result<(Ino, Extent), StoreFault>) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::EXTENT], keys::after(keys::letter::EXTENT));
    view.scan(&from, &end, Order::Forward, &mut |key, value| visit(decode(key, value)))
}

#[cfg(test)]
mod tests;
