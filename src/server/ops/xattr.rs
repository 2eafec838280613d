//! Extended attributes, ACLs among them.
//!
//! Who may use `trusted.` and `security.` names is the kernel's decision; which names a file may have is decided here.

use super::{Env, Try, acl, must_get};
use crate::base::limits::{NAME_BYTES_MAX, XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::base::{Errno, Ino, Kind, posix};
use crate::server::meta::{Inode, Txn, Value, View, attributes, inodes};
use crate::wire::Done;
use std::ops::ControlFlow;

/// What to set.
pub(super) struct Wish<'a> {
    pub(super) value: &'a [u8],
    pub(super) flags: u32,
    pub(super) kill_sgid: bool,
}

const CREATE: u32 = libc::XATTR_CREATE.cast_unsigned();
const REPLACE: u32 = libc::XATTR_REPLACE.cast_unsigned();
const CAPABILITY: &[u8] = b"security.capability";

/// What a name means here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    User,
    Plain,
    Acl,
}

fn space(name: &[u8]) -> Result<Space, Errno> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Errno::ERANGE);
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        return Ok(Space::Acl);
    }
    for (prefix, space) in
        [(&b"user."[..], Space::User), (b"trusted.", Space::Plain), (b"security.", Space::Plain)]
    {
        if let Some(rest) = name.strip_prefix(prefix) {
            let bad = rest.is_empty() || rest.contains(&0);
            return if bad { Err(Errno::EINVAL) } else { Ok(space) };
        }
    }
    Err(Errno::EOPNOTSUPP)
}

/// `user.` names belong to files and directories only (`xattr_permission`).
fn user_allowed(inode: &Inode) -> bool {
    matches!(inode.kind(), Kind::File | Kind::Directory)
}

/// setxattr(2).
pub(super) fn set(txn: &mut dyn Txn, env: &Env, ino: Ino, name: &[u8], wish: &Wish<'_>) -> Try<Done> {
    let mut inode = must_get(txn, ino)?;
    if wish.flags & !(CREATE | REPLACE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let space = space(name)?;
    if wish.value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(Errno::E2BIG.into());
    }
    if space == Space::Acl {
        set_acl(txn, &mut inode, name, wish)?;
    } else {
        if space == Space::User && !user_allowed(&inode) {
            return Err(Errno::EPERM.into());
        }
        let exists = has_any(&inode) && attributes::xattr(txn, ino, name)?.is_some();
        if exists && wish.flags & CREATE != 0 {
            return Err(Errno::EEXIST.into());
        }
        if !exists && wish.flags & REPLACE != 0 {
            return Err(Errno::ENODATA.into());
        }
        if !exists && list_bytes(txn, &inode)? + name.len() + 1 > XATTR_LIST_BYTES_MAX {
            return Err(Errno::ENOSPC.into());
        }
        attributes::put_xattr(txn, ino, name, wish.value);
        inode.flags |= inodes::flags::HAS_XATTR;
    }
    posix::touch_attributes(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(Done::default())
}

/// Setting an access ACL sets the mode too; one that says no more than the mode is not stored.
fn set_acl(txn: &mut dyn Txn, inode: &mut Inode, name: &[u8], wish: &Wish<'_>) -> Try<()> {
    if inode.kind() == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let Some(list) = acl::Acl::parse(wish.value)? else {
        return remove_acl(txn, inode, name);
    };
    if name == acl::DEFAULT {
        if !inode.is_dir() {
            return Err(Errno::EACCES.into());
        }
        acl::store(txn, inode, name, &list);
        return Ok(());
    }
    let (mode, whole) = list.mode();
    inode.mode = inode.mode & !0o777 | mode;
    if wish.kill_sgid {
        inode.mode &= !libc::S_ISGID;
    }
    if whole {
        return remove_acl(txn, inode, name);
    }
    acl::store(txn, inode, name, &list);
    Ok(())
}

fn remove_acl(txn: &mut dyn Txn, inode: &mut Inode, name: &[u8]) -> Try<()> {
    if inode.flags & inodes::flags::HAS_ACL != 0 {
        attributes::delete_xattr(txn, inode.ino, name);
        recount(txn, inode)?;
    }
    Ok(())
}

/// removexattr(2). An ACL that is not there is removed without complaint, as on ext4.
pub(super) fn remove(txn: &mut dyn Txn, env: &Env, ino: Ino, name: &[u8]) -> Try<Done> {
    let mut inode = must_get(txn, ino)?;
    match space(name)? {
        Space::Acl if inode.kind() == Kind::Symlink => return Err(Errno::EOPNOTSUPP.into()),
        Space::Acl => remove_acl(txn, &mut inode, name)?,
        Space::User if !user_allowed(&inode) => return Err(Errno::EPERM.into()),
        Space::User | Space::Plain => {
            if !has_any(&inode) || attributes::xattr(txn, ino, name)?.is_none() {
                return Err(Errno::ENODATA.into());
            }
            attributes::delete_xattr(txn, ino, name);
            recount(txn, &mut inode)?;
        }
    }
    posix::touch_attributes(&mut inode, env.now);
    inodes::put(txn, &inode);
    Ok(Done::default())
}

/// File capabilities do not survive a change of content or owner (`cap_inode_killpriv`).
pub(super) fn kill_capability(txn: &mut dyn Txn, inode: &mut Inode) -> Try<()> {
    if has_any(inode) && attributes::xattr(txn, inode.ino, CAPABILITY)?.is_some() {
        attributes::delete_xattr(txn, inode.ino, CAPABILITY);
        recount(txn, inode)?;
    }
    Ok(())
}

fn has_any(inode: &Inode) -> bool {
    inode.flags & inodes::flags::HAS_XATTR != 0
}

/// Something was removed: the flags say what is left.
fn recount(view: &dyn View, inode: &mut Inode) -> Try<()> {
    let mut left = 0;
    attributes::each_xattr(view, inode.ino, &mut |name, _| {
        left |= inodes::flags::HAS_XATTR;
        if name == acl::ACCESS || name == acl::DEFAULT {
            left |= inodes::flags::HAS_ACL;
        }
        ControlFlow::Continue(())
    })?;
    inode.flags = inode.flags & !(inodes::flags::HAS_XATTR | inodes::flags::HAS_ACL) | left;
    Ok(())
}

/// Bytes of the list of names.
fn list_bytes(view: &dyn View, inode: &Inode) -> Try<usize> {
    let mut bytes = 0;
    if has_any(inode) {
        attributes::each_xattr(view, inode.ino, &mut |name, _| {
            bytes += name.len() + 1;
            ControlFlow::Continue(())
        })?;
    }
    Ok(bytes)
}

/// Value of an extended attribute.
///
/// # Errors
/// ENODATA; EOPNOTSUPP for a name of no known namespace; ESTALE.
pub fn get_xattr(view: &dyn View, ino: Ino, name: &[u8]) -> Try<Value> {
    let inode = must_get(view, ino)?;
    let space = space(name)?;
    if space == Space::Acl && inode.kind() == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if !has_any(&inode) || (space == Space::User && !user_allowed(&inode)) {
        return Err(Errno::ENODATA.into());
    }
    Ok(attributes::xattr(view, ino, name)?.ok_or(Errno::ENODATA)?)
}

/// Names of all extended attributes, each ended by NUL.
///
/// # Errors
/// ESTALE.
pub fn list_xattr(view: &dyn View, ino: Ino) -> Try<Vec<u8>> {
    let inode = must_get(view, ino)?;
    let mut list = Vec::new();
    if has_any(&inode) {
        attributes::each_xattr(view, ino, &mut |name, _| {
            list.extend_from_slice(name);
            list.push(0);
            ControlFlow::Continue(())
        })?;
    }
    Ok(list)
}
