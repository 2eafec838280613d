//! chmod, chown, truncate, utimes.

use super::{Env, Try, acl, data, must_get, xattr};
use crate::base::{Ino, SetAttr, posix};
use crate::server::meta::{Txn, inodes};
use crate::wire::Done;

/// Changes what `set` names.
pub(super) fn setattr(txn: &mut dyn Txn, env: &Env, ino: Ino, set: &SetAttr) -> Try<Done> {
    let mut inode = must_get(txn, ino)?;
    if *set == SetAttr::default() {
        return Ok(Done { attr: Some(inode.attr()), ..Done::default() });
    }
    posix::check_set_attr(inode.kind(), set)?;
    let chown = set.uid.is_some() || set.gid.is_some();
    if set.size.is_some() || (chown && !inode.is_dir()) {
        xattr::kill_capability(txn, &mut inode)?;
    }
    if let Some(size) = set.size {
        data::cut(txn, &mut inode, size)?;
    }
    posix::set_attr(&mut inode, set, env.caller, env.now);
    if set.mode.is_some() {
        acl::follow_chmod(txn, &mut inode)?;
    }
    inodes::put(txn, &inode);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}
