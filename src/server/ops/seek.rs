//! `SEEK_DATA` and `SEEK_HOLE`.

use super::{Try, file};
use crate::base::{Errno, Ino};
use crate::server::meta::{Order, View, extents};
use crate::wire::SeekTo;
use std::ops::ControlFlow;

/// The next byte at or after `offset` that is data, or a hole; the end of the file is a hole.
///
/// # Errors
/// ENXIO at or past the end of the file, or when only holes follow; EISDIR, EINVAL for what has no data; ESTALE.
pub fn seek(view: &dyn View, ino: Ino, offset: u64, to: SeekTo) -> Try<u64> {
    let inode = file(view, ino)?;
    if offset >= inode.size {
        return Err(Errno::ENXIO.into());
    }
    let mut data = None;
    let mut covered_to = offset;
    extents::each(view, ino, offset..inode.size, Order::Forward, &mut |extent| {
        let start = extent.start.max(offset);
        data.get_or_insert(start);
        if to == SeekTo::Data || start > covered_to {
            return ControlFlow::Break(());
        }
        covered_to = extent.end();
        ControlFlow::Continue(())
    })?;
    match to {
        SeekTo::Data => Ok(data.ok_or(Errno::ENXIO)?),
        SeekTo::Hole => Ok(covered_to.min(inode.size)),
    }
}
