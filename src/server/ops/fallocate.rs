//! fallocate(2). Segments cannot reserve room, so plain allocation only sets the length; punching and zeroing make holes.

use super::data::{clear, step_end};
use super::{Env, Try, must_get, xattr};
use crate::base::limits::FILE_BYTES_MAX;
use crate::base::{Errno, Ino, posix};
use crate::server::meta::{Inode, Txn, View, inodes};
use crate::wire::Done;
use std::ops::Range;

const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE.cast_unsigned();
const PUNCH: u32 = libc::FALLOC_FL_PUNCH_HOLE.cast_unsigned();
const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE.cast_unsigned();

/// Carries it out.
pub(super) fn allocate(
    txn: &mut dyn Txn,
    env: &Env,
    ino: Ino,
    mode: u32,
    offset: u64,
    len: u64,
) -> Try<Done> {
    let (mut inode, range) = check(txn, ino, mode, offset, len)?;
    if mode & (PUNCH | ZERO) != 0 {
        clear(txn, &mut inode, range.clone())?;
    }
    if mode & KEEP_SIZE == 0 {
        inode.size = inode.size.max(range.end);
    }
    // The request does not say it, though the kernel relies on it.
    if env.caller.uid != 0 {
        posix::kill_suidgid(&mut inode, env.caller);
    }
    xattr::kill_capability(txn, &mut inode)?;
    posix::touch_content(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}

/// The order of `vfs_fallocate`.
fn check(view: &dyn View, ino: Ino, mode: u32, offset: u64, len: u64) -> Try<(Inode, Range<u64>)> {
    let top = FILE_BYTES_MAX;
    if len == 0 || offset > top || len > top {
        return Err(Errno::EINVAL.into());
    }
    let supported =
        matches!(mode, 0 | KEEP_SIZE | ZERO) || mode == PUNCH | KEEP_SIZE || mode == ZERO | KEEP_SIZE;
    if !supported {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let inode = must_get(view, ino)?;
    match inode.mode & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFDIR => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = offset.checked_add(len).filter(|&end| end <= top).ok_or(Errno::EFBIG)?;
    Ok((inode, offset..end))
}

/// One step of a punch that is too large for one transaction, from its start. Returns whether it did anything; then
/// the caller commits and asks again.
///
/// # Errors
/// The store cannot be read.
pub(super) fn punch_step(
    txn: &mut dyn Txn,
    env: &Env,
    ino: Ino,
    mode: u32,
    offset: u64,
    len: u64,
) -> Try<bool> {
    let Ok((mut inode, range)) = check(txn, ino, mode, offset, len) else { return Ok(false) };
    if mode & (PUNCH | ZERO) == 0 {
        return Ok(false);
    }
    let end = step_end(txn, ino, range.clone())?;
    if end == range.end {
        return Ok(false);
    }
    clear(txn, &mut inode, range.start..end)?;
    posix::touch_content(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(true)
}
