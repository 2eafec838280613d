//! One more name for an inode.

use super::{Env, Try, living_directory, must_get, touch_attributes, touch_content};
use crate::base::limits::LINKS_MAX;
use crate::base::{Errno, Ino, Name};
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
    if inode.is_dir() {
        return Err(Errno::EPERM.into());
    }
    // A file that had a name and lost it stays without one, as in `vfs_link` (I_LINKABLE).
    if inode.nlink == 0 && inode.flags & inodes::flags::LINKABLE == 0 {
        return Err(Errno::ENOENT.into());
    }
    if inode.nlink >= LINKS_MAX {
        return Err(Errno::EMLINK.into());
    }
    if inode.nlink == 0 {
        sessions::delete_orphan(txn, ino);
        inode.parent = parent;
        inode.flags &= !inodes::flags::LINKABLE;
    }
    inode.nlink += 1;
    touch_attributes(&mut inode, env);
    inodes::put(txn, &inode);
    dirents::put(txn, &env.hash, parent, name, Target { ino, kind: inode.kind() })?;
    dir.entries += 1;
    touch_content(&mut dir, env);
    inodes::put(txn, &dir);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}
