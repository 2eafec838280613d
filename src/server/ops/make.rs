//! New inodes: files, directories, symlinks, special files, and files without a name.

use super::{Env, Try, acl, living_directory, must_get};
use crate::base::{Errno, Ino, Kind, Name, posix};
use crate::server::meta::dirents::{self, Target};
use crate::server::meta::{Inode, Txn, View, attributes, counters, inodes, sessions};
use crate::wire::{Done, MakeFlags};

/// What a new inode shall be.
pub(super) struct Wish<'a> {
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) rdev: u32,
    pub(super) target: &'a [u8],
    pub(super) flags: MakeFlags,
    /// The number that the client took for it.
    pub(super) ino: Option<Ino>,
}

/// `open(O_CREAT)`, mkdir, mknod, symlink.
pub(super) fn make(txn: &mut dyn Txn, env: &Env, parent: Ino, name: Name<'_>, wish: &Wish<'_>) -> Try<Done> {
    let mut dir = living_directory(txn, parent)?;
    let kind = Kind::from_mode(wish.mode)?;
    if let Some(found) = dirents::find(txn, &env.hash, parent, name)? {
        // A client that took a number has answered that it was made: another file is not what it meant.
        return existing(txn, found, kind == Kind::File && !wish.flags.exclusive && wish.ino.is_none());
    }
    posix::check_target(kind, wish.target)?;
    if kind == Kind::Directory {
        posix::check_links(dir.nlink)?;
    }
    let ino = number(txn, wish.ino)?;
    let mut inode = born(txn, env, &dir, ino, wish.mode, wish.umask)?;
    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        inode.rdev = wish.rdev;
    }
    match kind {
        Kind::Directory => dir.nlink += 1,
        Kind::Symlink => {
            attributes::put_symlink(txn, inode.ino, wish.target);
            inode.size = wish.target.len() as u64;
            inode.nlink = 1;
        }
        _ => inode.nlink = 1,
    }
    inodes::put(txn, &inode);
    dirents::put(txn, &env.hash, parent, name, Target { ino: inode.ino, kind })?;
    dir.entries += 1;
    posix::touch_content(&mut dir, env.now);
    inodes::put(txn, &dir);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}

/// The name is taken. A plain `O_CREAT` opens a regular file it finds.
fn existing(view: &dyn View, found: Target, may_open: bool) -> Try<Done> {
    posix::check_existing(found.kind, may_open)?;
    Ok(Done { attr: Some(must_get(view, found.ino)?.attr()), existed: true, ..Done::default() })
}

/// `O_TMPFILE`: a file that lives while it is held, until it is linked.
pub(super) fn tmpfile(txn: &mut dyn Txn, env: &Env, parent: Ino, mode: u32, umask: u32) -> Try<Done> {
    let dir = living_directory(txn, parent)?;
    let ino = number(txn, None)?;
    let mut inode = born(txn, env, &dir, ino, libc::S_IFREG | (mode & 0o7777), umask)?;
    inode.flags |= inodes::flags::LINKABLE;
    inodes::put(txn, &inode);
    sessions::put_orphan(txn, inode.ino);
    Ok(Done { attr: Some(inode.attr()), ..Done::default() })
}

/// The number of a new inode: the client's, or the next. ESTALE for one that is in use: numbers never come back.
fn number(txn: &mut dyn Txn, taken: Option<Ino>) -> Try<Ino> {
    match taken {
        None => Ok(counters::take_inos(txn, 1)?),
        Some(ino) if inodes::get(txn, ino)?.is_some() => Err(Errno::ESTALE.into()),
        Some(ino) => Ok(ino),
    }
}

/// A new inode as its directory wants it: owner, mode, ACLs and usage; its record is not stored yet.
fn born(txn: &mut dyn Txn, env: &Env, dir: &Inode, ino: Ino, mode: u32, umask: u32) -> Try<Inode> {
    let is_dir = mode & libc::S_IFMT == libc::S_IFDIR;
    let (mode, gid) = posix::born(dir.mode, dir.gid, mode, env.caller);
    let mut inherited = acl::Inherited { mode, ..acl::Inherited::default() };
    if mode & libc::S_IFMT != libc::S_IFLNK {
        inherited = acl::inherit(txn, dir, mode, umask)?;
    }
    let mut inode = Inode::new(ino, inherited.mode, (env.caller.uid, gid), dir.ino, env.now);
    if let Some(access) = &inherited.access {
        acl::store(txn, &mut inode, acl::ACCESS, access);
    }
    if let (true, Some(default)) = (is_dir, &inherited.default) {
        acl::store(txn, &mut inode, acl::DEFAULT, default);
    }
    txn.add_usage(1, 0);
    Ok(inode)
}

/// What `RENAME_WHITEOUT` leaves at the old name: a character device 0/0, which overlay file systems read as "removed".
/// The directory's record is the caller's to store.
pub(super) fn whiteout(txn: &mut dyn Txn, env: &Env, dir: &Inode, name: Name<'_>) -> Try<()> {
    let ino = number(txn, None)?;
    let mut inode = born(txn, env, dir, ino, libc::S_IFCHR, 0)?;
    inode.nlink = 1;
    inodes::put(txn, &inode);
    dirents::put(txn, &env.hash, dir.ino, name, Target { ino: inode.ino, kind: Kind::CharDevice })?;
    Ok(())
}
