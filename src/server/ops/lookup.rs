//! Questions about one inode or one name.

use super::{Try, directory, must_get, unlink};
use crate::base::{Attr, Errno, Ino, Kind, Name};
use crate::server::meta::{NameHash, StoreFault, Value, View, attributes, dirents, keys};

/// What a name stands for.
///
/// # Errors
/// ENOENT, ENOTDIR; ESTALE when the directory is gone.
pub fn lookup(view: &dyn View, hash: &NameHash, parent: Ino, name: Name<'_>) -> Try<Attr> {
    directory(view, parent)?;
    let found = dirents::find(view, hash, parent, name)?.ok_or(Errno::ENOENT)?;
    Ok(unlink::must_get_named(view, found.ino)?.attr())
}

/// Attributes.
///
/// # Errors
/// ESTALE.
pub fn attr(view: &dyn View, ino: Ino) -> Try<Attr> {
    Ok(must_get(view, ino)?.attr())
}

/// The directory above; of the root: itself.
///
/// # Errors
/// ESTALE, ENOTDIR; ENOENT when the directory above is gone (both were removed).
pub fn parent(view: &dyn View, ino: Ino) -> Try<Attr> {
    let dir = directory(view, ino)?;
    match crate::server::meta::inodes::get(view, dir.parent)? {
        Some(above) => Ok(above.attr()),
        None => Err(Errno::ENOENT.into()),
    }
}

/// Target of a symbolic link.
///
/// # Errors
/// ESTALE; EINVAL when it is none.
pub fn read_link(view: &dyn View, ino: Ino) -> Try<Value> {
    let inode = must_get(view, ino)?;
    if inode.kind() != Kind::Symlink {
        return Err(Errno::EINVAL.into());
    }
    let missing = || StoreFault::damaged(&keys::symlink(ino), "a symbolic link without a target");
    Ok(attributes::symlink(view, ino)?.ok_or_else(missing)?)
}
