//! File bytes: where they go and where they are. The bytes themselves are in chunks and never come by here.

use super::{EXTENTS_PER_STEP, Env, Try, file, must_get, xattr};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::{ChunkId, ChunkPlace, Ino, Kind, posix};
use crate::server::meta::extents::{self, Extent};
use crate::server::meta::{Inode, Order, StoreFault, Txn, View, chunk_table, inodes, keys};
use crate::wire::{Done, WriteFlags};
use std::ops::{ControlFlow, Range};

/// A chunk that was appended for a write. The data of a write is its chunks one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Its number.
    pub chunk: ChunkId,
    /// Where it lies; its length is the number of bytes it brings.
    pub place: ChunkPlace,
}

/// A part of what is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where it lies at the moment.
    pub place: ChunkPlace,
    /// First byte in the chunk.
    pub from: u32,
    /// First byte in the answer.
    pub at: usize,
    /// How many.
    pub len: usize,
}

/// How to read a range: pieces in order, zeros between them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadPlan {
    /// Bytes of the answer.
    pub len: usize,
    /// Where those are that are not zero.
    pub pieces: Vec<Piece>,
}

/// Plans a read.
///
/// # Errors
/// EISDIR, EINVAL for what has no data; ESTALE.
pub fn read_plan(view: &dyn View, ino: Ino, offset: u64, len: u32) -> Try<ReadPlan> {
    let inode = file(view, ino)?;
    let end = inode.size.min(offset.saturating_add(u64::from(len).min(IO_BYTES_MAX as u64)));
    if offset >= end {
        return Ok(ReadPlan::default());
    }
    let range = offset..end;
    let mut found = Vec::new();
    extents::each(view, ino, range.clone(), Order::Forward, &mut |extent| {
        found.push(extent.cut(&range));
        ControlFlow::Continue(())
    })?;
    let mut plan = ReadPlan { len: bytes(end - offset), pieces: Vec::with_capacity(found.len()) };
    for extent in found {
        let place = chunk_table::must_get(view, extent.chunk)?.place;
        let at = bytes(extent.start - offset);
        plan.pieces.push(Piece {
            chunk: extent.chunk,
            place,
            from: extent.offset,
            at,
            len: bytes(extent.len),
        });
    }
    Ok(plan)
}

/// A number of bytes in one answer, which [`IO_BYTES_MAX`] bounds.
fn bytes(count: u64) -> usize {
    usize::try_from(count).expect("an answer is no longer than IO_BYTES_MAX")
}

/// write(2): the chunks become the file's bytes from `offset`, or from its end.
pub(super) fn write(
    txn: &mut dyn Txn,
    env: &Env,
    ino: Ino,
    offset: u64,
    flags: WriteFlags,
    placed: &[Placed],
) -> Try<Done> {
    let mut inode = file(txn, ino)?;
    let start = if flags.append { inode.size } else { offset };
    let want = length(placed);
    if want == 0 {
        return Ok(Done { attr: Some(inode.attr()), offset: start, ..Done::default() });
    }
    let end = posix::write_end(start, want)?;
    // A file without data has nothing that is written over: most files are new when they are written.
    let fresh = inode.data_bytes == 0;
    let end = if fresh { end } else { step_end(txn, ino, start..end)? };
    let mut at = start;
    for piece in placed {
        let len = u64::from(piece.place.len).min(end - at);
        if len == 0 {
            break;
        }
        // An earlier step may have used the start of it.
        if chunk_table::get(txn, piece.chunk)?.is_none_or(|chunk| chunk.place != piece.place) {
            chunk_table::add(txn, piece.chunk, piece.place)?;
        }
        let extent = Extent { start: at, len, chunk: piece.chunk, offset: 0 };
        let grown = if fresh { extents::add(txn, ino, &extent)? } else { extents::put(txn, ino, &extent)? };
        add_data(txn, &mut inode, grown.cast_signed())?;
        at += len;
    }
    inode.size = inode.size.max(end);
    if flags.kill_suidgid {
        posix::kill_suidgid(&mut inode, env.caller);
    }
    xattr::kill_capability(txn, &mut inode)?;
    posix::touch_content(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(Done { attr: Some(inode.attr()), bytes: end - start, offset: start, ..Done::default() })
}

/// Bytes that a write brings.
fn length(placed: &[Placed]) -> u64 {
    placed.iter().map(|piece| u64::from(piece.place.len)).sum()
}

/// One step of a write over more extents than one transaction can free: its first part. Returns whether it did anything;
/// then the caller commits and asks again, with the same chunks. The write is not cut short instead: of a page that the
/// kernel writes back nobody would notice that a part was not taken.
///
/// # Errors
/// The store cannot be read.
pub(super) fn write_step(
    txn: &mut dyn Txn,
    env: &Env,
    ino: Ino,
    offset: u64,
    flags: WriteFlags,
    placed: &[Placed],
) -> Try<bool> {
    // Nothing lies behind the end; and the steps of an append would each find another one.
    if flags.append || file(txn, ino).map_or(true, |inode| inode.data_bytes == 0) {
        return Ok(false);
    }
    let Ok(end) = posix::write_end(offset, length(placed)) else { return Ok(false) };
    if step_end(txn, ino, offset..end)? == end {
        return Ok(false);
    }
    write(txn, env, ino, offset, flags, placed)?;
    Ok(true)
}

/// How far one transaction can change `range`: its end, or less when it holds more than [`EXTENTS_PER_STEP`] extents.
pub(super) fn step_end(view: &dyn View, ino: Ino, range: Range<u64>) -> Try<u64> {
    let (mut count, mut end) = (0, range.end);
    extents::each(view, ino, range.clone(), Order::Forward, &mut |extent| {
        count += 1;
        if count <= EXTENTS_PER_STEP {
            return ControlFlow::Continue(());
        }
        end = extent.start;
        ControlFlow::Break(())
    })?;
    Ok(end)
}

/// The file covers `by` bytes more (or fewer) than before.
pub(super) fn add_data(txn: &mut dyn Txn, inode: &mut Inode, by: i64) -> Result<(), StoreFault> {
    let wrong = || StoreFault::damaged(&keys::inode(inode.ino), "counts fewer bytes than its extents have");
    inode.data_bytes = inode.data_bytes.checked_add_signed(by).ok_or_else(wrong)?;
    txn.add_usage(0, by);
    Ok(())
}

/// Makes `range` a hole. The caller stores the inode.
pub(super) fn clear(txn: &mut dyn Txn, inode: &mut Inode, range: Range<u64>) -> Result<(), StoreFault> {
    let freed = extents::punch(txn, inode.ino, range)?;
    add_data(txn, inode, -freed.cast_signed())
}

/// Sets the length of a file; what is cut off is gone, also when the file grows again. The caller stores the inode.
pub(super) fn cut(txn: &mut dyn Txn, inode: &mut Inode, size: u64) -> Result<(), StoreFault> {
    if size < inode.size {
        clear(txn, inode, size..u64::MAX)?;
    }
    inode.size = size;
    Ok(())
}

/// One step of a truncation to `size` that is too large for one transaction: cuts the file shorter, from its end.
/// Returns whether it did anything; then the caller commits and asks again. Others may see the lengths between, as
/// they may see those of any writer.
///
/// # Errors
/// The store cannot be read.
pub(super) fn trim_step(txn: &mut dyn Txn, env: &Env, ino: Ino, size: u64) -> Try<bool> {
    let Ok(mut inode) = must_get(txn, ino) else { return Ok(false) };
    if inode.kind() != Kind::File || size >= inode.size {
        return Ok(false);
    }
    let (mut count, mut to) = (0, size);
    extents::each(txn, ino, size..u64::MAX, Order::Reverse, &mut |extent| {
        count += 1;
        match count {
            EXTENTS_PER_STEP => to = extent.start,
            n if n > EXTENTS_PER_STEP => return ControlFlow::Break(()),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    if count <= EXTENTS_PER_STEP || to <= size {
        return Ok(false);
    }
    cut(txn, &mut inode, to)?;
    posix::touch_content(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(true)
}
