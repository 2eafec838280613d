//! One more name for an inode.

use super::{Env, Try, living_directory, must_get};
use crate::base::{Errno, Ino, Name, posix};
use crate::server::meta::dirents::{self, Target};
use crate::server::meta::{Txn, inodes, sessions};
use crate::wire::Done;

/// link(2), and linkat(2) of a file that has no name yet (`O_TMPFILE`).
pub(super) fn link(txn: &mut dyn Txn, env: &Env, ino: Ino, parent: Ino, name: Name<'_>) -> Try<Done> {
    let mut inode = must_get(txn, ino)?;
    let mut dir = living_directory(txn, parent)?;
    if dirents::find(txn, &env.hash, parent, name)?.is_some() {
        return Err(Errno::EEXIST.into());
    }
    let linkable = inode.flags & inodes::flags::LINKABLE != 0;
    posix::check_link(inode.kind(), inode.nlink, linkable)?;
    if inode.nlink == 0 {
        sessions::delete_orphan(txn, ino);
        inode.parent = parent;
        inode.flags &= !inodes::flags::LINKABLE;
    }
    inode.nlink += 1;
    posix::touch_attributes(&mut inode, env.now);
    inodes::put(txn, &inode);
    dirents::put(txn, &env.hash, parent, name, Target { ino, kind: inode.kind() })?;
    dir.entries += 1;
    posix::touch_content(&mut dir, env.now);
    inodes::put(txn, &dir);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}
