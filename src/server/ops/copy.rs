//! copy_file_range(2) inside the volume: the target shares the source's chunks.

use super::data::{add_data, step_end};
use super::{Env, Try, file, xattr};
use crate::base::limits::FILE_BYTES_MAX;
use crate::base::{Errno, Ino, posix};
use crate::server::meta::{Txn, extents, inodes};
use crate::wire::Done;

/// What to copy.
pub(super) struct From {
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Carries it out; may copy less than asked, which the answer says.
pub(super) fn copy(txn: &mut dyn Txn, env: &Env, from: From, target: Ino, offset: u64) -> Try<Done> {
    let source = file(txn, from.ino)?;
    let mut inode = file(txn, target)?;
    if from.offset > FILE_BYTES_MAX || offset > FILE_BYTES_MAX {
        return Err(Errno::EINVAL.into());
    }
    if offset == FILE_BYTES_MAX && from.len > 0 {
        return Err(Errno::EFBIG.into());
    }
    let len = from.len.min(source.size.saturating_sub(from.offset)).min(FILE_BYTES_MAX - offset);
    // Measured after the cut, as `generic_copy_file_checks` does.
    if from.ino == target && from.offset < offset + len && offset < from.offset + len {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(Done { attr: Some(inode.attr()), ..Done::default() });
    }
    let read_end = step_end(txn, from.ino, from.offset..from.offset + len)?;
    let write_end = step_end(txn, target, offset..offset + len)?;
    let len = (read_end - from.offset).min(write_end - offset);
    let grown = extents::share(txn, from.ino, from.offset..from.offset + len, target, offset)?;
    add_data(txn, &mut inode, grown)?;
    inode.size = inode.size.max(offset + len);
    if env.caller.uid != 0 {
        posix::kill_suidgid(&mut inode, env.caller);
    }
    xattr::kill_capability(txn, &mut inode)?;
    posix::touch_content(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(Done { attr: Some(inode.attr()), bytes: len, ..Done::default() })
}
