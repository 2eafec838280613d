//! Names that go away.

use super::{Env, Stop, Try, directory, must_get, reap};
use crate::base::{Errno, Ino, Name, posix};
use crate::server::meta::dirents::{self, Target};
use crate::server::meta::{Inode, StoreFault, Txn, View, inodes, keys, sessions};
use crate::wire::Done;

/// unlink(2). `ino`: what the name must stand for.
pub(super) fn unlink(
    txn: &mut dyn Txn,
    env: &Env,
    parent: Ino,
    name: Name<'_>,
    ino: Option<Ino>,
) -> Try<Done> {
    let mut dir = directory(txn, parent)?;
    let found = named(dirents::find(txn, &env.hash, parent, name)?, ino)?;
    let mut inode = must_get_named(txn, found.ino)?;
    posix::check_unlink(inode.kind())?;
    dirents::remove(txn, &env.hash, parent, name)?;
    let orphan = lose_name(txn, env, &mut inode)?;
    lose_entry(&mut dir)?;
    posix::touch_content(&mut dir, env.now);
    inodes::put(txn, &dir);
    Ok(Done { orphan, named: [Some(found.ino), None], ..Done::default() })
}

/// rmdir(2). `ino`: what the name must stand for.
pub(super) fn rmdir(
    txn: &mut dyn Txn,
    env: &Env,
    parent: Ino,
    name: Name<'_>,
    ino: Option<Ino>,
) -> Try<Done> {
    let mut dir = directory(txn, parent)?;
    let found = named(dirents::find(txn, &env.hash, parent, name)?, ino)?;
    let mut inode = must_get_named(txn, found.ino)?;
    posix::check_rmdir(inode.kind(), inode.entries)?;
    dirents::remove(txn, &env.hash, parent, name)?;
    let orphan = lose_name(txn, env, &mut inode)?;
    lose_entry(&mut dir)?;
    posix::touch_content(&mut dir, env.now);
    lose_subdirectory(&mut dir)?;
    inodes::put(txn, &dir);
    Ok(Done { orphan, named: [Some(found.ino), None], ..Done::default() })
}

/// What was found at a name, which is there and is what the client took it for.
pub(super) fn named(found: Option<Target>, expected: Option<Ino>) -> Result<Target, Errno> {
    match (found, expected) {
        (None, None) => Err(Errno::ENOENT),
        (Some(found), None) => Ok(found),
        (Some(found), Some(ino)) if found.ino == ino => Ok(found),
        (_, Some(_)) => Err(Errno::ESTALE),
    }
}

/// The inode a name stands for: that it is missing is damage, not an answer.
pub(super) fn must_get_named(view: &dyn View, ino: Ino) -> Try<Inode> {
    match must_get(view, ino) {
        Err(Stop::No(_)) => {
            Err(StoreFault::damaged(&keys::inode(ino), "a name refers to it, but it is missing").into())
        }
        other => other,
    }
}

/// The inode lost a name (a directory: its only one), which is stored. Returns its number when that was the last and it
/// lives on as an orphan.
pub(super) fn lose_name(txn: &mut dyn Txn, env: &Env, inode: &mut Inode) -> Try<Option<Ino>> {
    let left = if inode.is_dir() { Some(0) } else { inode.nlink.checked_sub(1) };
    let damaged = || StoreFault::damaged(&keys::inode(inode.ino), "a name refers to it, but it counts none");
    inode.nlink = left.ok_or_else(damaged)?;
    posix::touch_attributes(inode, env.now);
    let last = inode.nlink == 0;
    if last && env.unheld && reap::at_once(txn, inode)? {
        return Ok(None);
    }
    inodes::put(txn, inode);
    if last {
        sessions::put_orphan(txn, inode.ino);
    }
    Ok(last.then_some(inode.ino))
}

/// A directory lost an entry. The caller stores the record, with the time of the change.
pub(super) fn lose_entry(dir: &mut Inode) -> Result<(), StoreFault> {
    let left = dir.entries.checked_sub(1);
    dir.entries =
        left.ok_or_else(|| StoreFault::damaged(&keys::inode(dir.ino), "counts fewer names than it has"))?;
    Ok(())
}

/// A directory lost a subdirectory. The caller stores the record.
pub(super) fn lose_subdirectory(dir: &mut Inode) -> Result<(), StoreFault> {
    let left = dir.nlink.checked_sub(1).filter(|&left| left >= 2);
    dir.nlink =
        left.ok_or_else(|| StoreFault::damaged(&keys::inode(dir.ino), "counts fewer links than it has"))?;
    Ok(())
}
