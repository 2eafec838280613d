//! chmod, chown, truncate, utimes.

use super::{Env, Try, acl, data, must_get, tick, touch_content, xattr};
use crate::base::limits::FILE_BYTES_MAX;
use crate::base::{Errno, Ino, Kind, Time};
use crate::server::meta::{Inode, Txn, inodes};
use crate::wire::{Done, SetAttr, TimeSet};

/// Changes what `set` names. ctime is always the server's, also where the kernel sends one.
pub(super) fn setattr(txn: &mut dyn Txn, env: &Env, ino: Ino, set: &SetAttr) -> Try<Done> {
    let mut inode = must_get(txn, ino)?;
    if *set == SetAttr::default() {
        return Ok(Done { attr: Some(inode.attr()), ..Done::default() });
    }
    check_size(&inode, set.size)?;
    if set.mode.is_some() && inode.kind() == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let chown = set.uid.is_some() || set.gid.is_some();
    if set.kill_suidgid || (chown && !inode.is_dir()) {
        kill_suidgid(&mut inode, env);
    }
    if set.size.is_some() || (chown && !inode.is_dir()) {
        xattr::kill_capability(txn, &mut inode)?;
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    if let Some(mode) = set.mode {
        inode.mode = inode.mode & libc::S_IFMT | mode & 0o7777;
        acl::follow_chmod(txn, &mut inode)?;
    }
    let now = tick(&inode, env.now);
    match set.size {
        Some(size) => {
            data::cut(txn, &mut inode, size)?;
            touch_content(&mut inode, env);
        }
        None => inode.ctime = now,
    }
    let time = |wish: Option<TimeSet>, old: Time| match wish {
        None => old,
        Some(TimeSet::Now) => now,
        Some(TimeSet::At(time)) => time,
    };
    inode.atime = time(set.atime, inode.atime);
    inode.mtime = time(set.mtime, inode.mtime);
    inodes::put(txn, &inode);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}

fn check_size(inode: &Inode, size: Option<u64>) -> Result<(), Errno> {
    match (size, inode.kind()) {
        (None, _) => Ok(()),
        (Some(_), Kind::Directory) => Err(Errno::EISDIR),
        (Some(size), Kind::File) if size > FILE_BYTES_MAX => Err(Errno::EFBIG),
        (Some(_), Kind::File) => Ok(()),
        (Some(_), _) => Err(Errno::EINVAL),
    }
}

/// `FUSE_HANDLE_KILLPRIV_V2`: a changed or given-away program does not keep its powers. A setgid bit without the
/// group's execute bit is no power (it meant mandatory locking), and stays where the superuser or a member of the group
/// changes the file (`setattr_should_drop_sgid`); of a caller's groups the kernel tells one.
pub(super) fn kill_suidgid(inode: &mut Inode, env: &Env) {
    if inode.is_dir() {
        return;
    }
    inode.mode &= !libc::S_ISUID;
    let trusted = env.caller.uid == 0 || env.caller.gid == inode.gid;
    if inode.mode & libc::S_IXGRP != 0 || !trusted {
        inode.mode &= !libc::S_ISGID;
    }
}
