//! rename(2) with its flags.

use super::unlink::{lose_entry, lose_name, lose_subdirectory, must_get_named, named};
use super::{Env, Try, directory, make};
use crate::base::posix::{self, RenameFlags};
use crate::base::{Errno, Ino, Kind, Name};
use crate::server::meta::dirents::{self, Target};
use crate::server::meta::{Inode, StoreFault, Txn, View, inodes, keys};
use crate::wire::{Done, Expect};

/// A name in a directory.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) parent: Ino,
    pub(super) name: Name<'a>,
}

/// How to rename.
pub(super) struct Wish {
    /// `RENAME_*`.
    pub(super) flags: u32,
    /// What the old name must stand for.
    pub(super) ino: Option<Ino>,
    /// What the new name must stand for before.
    pub(super) replaced: Expect,
}

/// The two directories, which may be one.
struct Dirs {
    old: Inode,
    new: Option<Inode>,
}

impl Dirs {
    /// That of the new name.
    fn gaining(&mut self) -> &mut Inode {
        self.new.as_mut().unwrap_or(&mut self.old)
    }

    fn store(mut self, txn: &mut dyn Txn, env: &Env) {
        for dir in [Some(&mut self.old), self.new.as_mut()].into_iter().flatten() {
            posix::touch_content(dir, env.now);
            inodes::put(txn, dir);
        }
    }
}

/// Carries it out, in the order of checks of `do_renameat2` and `vfs_rename`.
pub(super) fn rename(txn: &mut dyn Txn, env: &Env, from: Place<'_>, to: Place<'_>, wish: &Wish) -> Try<Done> {
    let flags = RenameFlags::parse(wish.flags)?;
    let old = directory(txn, from.parent)?;
    let new = if from.parent == to.parent { None } else { Some(directory(txn, to.parent)?) };
    let dirs = Dirs { old, new };
    let source = named(dirents::find(txn, &env.hash, from.parent, from.name)?, wish.ino)?;
    if dirs.new.is_some_and(|dir| dir.nlink == 0) {
        return Err(Errno::ENOENT.into());
    }
    let target = dirents::find(txn, &env.hash, to.parent, to.name)?;
    let as_expected = match wish.replaced {
        Expect::Any => true,
        Expect::Absent => target.is_none(),
        Expect::Is(ino) => target.is_some_and(|target| target.ino == ino),
    };
    if !as_expected {
        return Err(Errno::ESTALE.into());
    }
    flags.check_target(target.is_some())?;
    if dirs.new.is_some() {
        check_circle(txn, flags, source, from.parent, target, to.parent)?;
    }
    if target.is_some_and(|target| target.ino == source.ino) {
        return Ok(Done { named: [Some(source.ino), Some(source.ino)], ..Done::default() });
    }
    let moved = must_get_named(txn, source.ino)?;
    let target = target.map(|target| must_get_named(txn, target.ino)).transpose()?;
    let named = [Some(source.ino), target.map(|target| target.ino)];
    let orphan = match target {
        Some(other) if flags.exchange => {
            exchange(txn, env, dirs, (from, moved), (to, other))?;
            None
        }
        target => {
            let replaced = target.map(|target| (target.kind(), target.entries));
            posix::check_replace(moved.kind(), replaced, dirs.new.map(|dir| dir.nlink))?;
            replace(txn, env, dirs, (from, moved), (to, target), flags.whiteout)?
        }
    };
    Ok(Done { orphan, named, ..Done::default() })
}

/// A directory must not move below itself.
fn check_circle(
    view: &dyn View,
    flags: RenameFlags,
    source: Target,
    old_parent: Ino,
    target: Option<Target>,
    new_parent: Ino,
) -> Try<()> {
    if source.kind == Kind::Directory && is_at_or_below(view, new_parent, source.ino)? {
        return Err(Errno::EINVAL.into());
    }
    if let Some(target) = target
        && target.kind == Kind::Directory
        && is_at_or_below(view, old_parent, target.ino)?
    {
        return Err(if flags.exchange { Errno::EINVAL } else { Errno::ENOTEMPTY }.into());
    }
    Ok(())
}

/// Whether directory `below` is `above` or lies somewhere under it.
fn is_at_or_below(view: &dyn View, below: Ino, above: Ino) -> Try<bool> {
    /// No tree is deeper: paths would be longer than any file.
    const DEPTH_MAX: u32 = 1 << 20;
    let mut at = below;
    for _ in 0..DEPTH_MAX {
        if at == above {
            return Ok(true);
        }
        if at == Ino::ROOT {
            return Ok(false);
        }
        at = must_get_named(view, at)?.parent;
    }
    Err(StoreFault::damaged(&keys::inode(below), "its parents form a circle").into())
}

/// The new name stands for the moved inode; what it stood for loses a name, which is given when that was its last.
fn replace(
    txn: &mut dyn Txn,
    env: &Env,
    mut dirs: Dirs,
    (from, mut moved): (Place<'_>, Inode),
    (to, target): (Place<'_>, Option<Inode>),
    whiteout: bool,
) -> Try<Option<Ino>> {
    let mut orphan = None;
    match target {
        Some(mut target) => {
            orphan = lose_name(txn, env, &mut target)?;
            if target.is_dir() {
                lose_subdirectory(dirs.gaining())?;
            }
        }
        None => dirs.gaining().entries += 1,
    }
    dirents::put(txn, &env.hash, to.parent, to.name, Target { ino: moved.ino, kind: moved.kind() })?;
    if whiteout {
        make::whiteout(txn, env, &dirs.old, from.name)?;
    } else {
        dirents::remove(txn, &env.hash, from.parent, from.name)?;
        lose_entry(&mut dirs.old)?;
    }
    if moved.is_dir() && dirs.new.is_some() {
        lose_subdirectory(&mut dirs.old)?;
        dirs.gaining().nlink += 1;
    }
    moved.parent = to.parent;
    posix::touch_attributes(&mut moved, env.now);
    inodes::put(txn, &moved);
    dirs.store(txn, env);
    Ok(orphan)
}

/// Two names swap what they stand for.
fn exchange(
    txn: &mut dyn Txn,
    env: &Env,
    mut dirs: Dirs,
    (from, mut moved): (Place<'_>, Inode),
    (to, mut other): (Place<'_>, Inode),
) -> Try<()> {
    if dirs.new.is_some() && moved.is_dir() != other.is_dir() {
        let (loser, gainer) = match &mut dirs {
            Dirs { old, new: Some(new) } if moved.is_dir() => (old, new),
            Dirs { old, new: Some(new) } => (new, old),
            Dirs { old: _, new: None } => unreachable!("checked above"),
        };
        posix::check_links(gainer.nlink)?;
        lose_subdirectory(loser)?;
        gainer.nlink += 1;
    }
    dirents::put(txn, &env.hash, to.parent, to.name, Target { ino: moved.ino, kind: moved.kind() })?;
    dirents::put(txn, &env.hash, from.parent, from.name, Target { ino: other.ino, kind: other.kind() })?;
    moved.parent = to.parent;
    other.parent = from.parent;
    for inode in [&mut moved, &mut other] {
        posix::touch_attributes(inode, env.now);
        inodes::put(txn, inode);
    }
    dirs.store(txn, env);
    Ok(())
}
