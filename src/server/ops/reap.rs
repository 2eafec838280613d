//! What is left of an inode that nobody names or holds.

use super::{EXTENTS_PER_STEP, Try, data};
use crate::base::{Ino, Kind};
use crate::server::meta::{Inode, Order, StoreFault, Txn, attributes, extents, inodes, keys, sessions};
use std::ops::ControlFlow;

/// How far a reaping came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaped {
    /// The inode is gone.
    Gone,
    /// Some of its extents are: commit, and go on.
    Partly,
    /// It is no orphan (any more).
    Alive,
}

/// Removes an inode without a name that nobody holds, when that is cheap: without extended attributes, and with one extent
/// at most. Says whether it is gone.
///
/// # Errors
/// The store cannot be read.
pub(super) fn at_once(txn: &mut dyn Txn, inode: &Inode) -> Try<bool> {
    if inode.flags & inodes::flags::HAS_XATTR != 0 {
        return Ok(false);
    }
    if inode.data_bytes > 0 {
        let Some(extent) = extents::only(txn, inode.ino, inode.data_bytes)? else { return Ok(false) };
        extents::remove(txn, inode.ino, &extent)?;
    }
    if inode.kind() == Kind::Symlink {
        attributes::delete_symlink(txn, inode.ino);
    }
    txn.add_usage(-1, -inode.data_bytes.cast_signed());
    inodes::delete(txn, inode.ino);
    Ok(true)
}

/// Removes an orphan that nobody holds, or a bounded part of it.
///
/// # Errors
/// The store cannot be read.
pub fn reap(txn: &mut dyn Txn, ino: Ino) -> Try<Reaped> {
    if !sessions::is_orphan(txn, ino)? {
        return Ok(Reaped::Alive);
    }
    let Some(mut inode) = inodes::get(txn, ino)? else {
        sessions::delete_orphan(txn, ino);
        return Ok(Reaped::Gone);
    };
    if inode.nlink > 0 || inode.entries > 0 {
        return Err(
            StoreFault::damaged(&keys::orphan(ino), "an inode with names is noted as an orphan").into()
        );
    }
    if at_once(txn, &inode)? {
        sessions::delete_orphan(txn, ino);
        return Ok(Reaped::Gone);
    }
    let (mut count, mut from) = (0, 0);
    extents::each(txn, ino, 0..u64::MAX, Order::Reverse, &mut |extent| {
        count += 1;
        from = extent.start;
        if count < EXTENTS_PER_STEP { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if count == EXTENTS_PER_STEP && from > 0 {
        data::clear(txn, &mut inode, from..u64::MAX)?;
        inode.size = inode.size.min(from);
        // What has lost bytes must not come back under a name.
        inode.flags &= !inodes::flags::LINKABLE;
        inodes::put(txn, &inode);
        return Ok(Reaped::Partly);
    }
    data::clear(txn, &mut inode, 0..u64::MAX)?;
    attributes::delete_xattrs(txn, ino)?;
    attributes::delete_symlink(txn, ino);
    txn.add_usage(-1, 0);
    inodes::delete(txn, ino);
    sessions::delete_orphan(txn, ino);
    Ok(Reaped::Gone)
}
