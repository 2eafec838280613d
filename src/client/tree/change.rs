//! Names that are made and removed here. The order of checks is that of `server::ops`.

use super::directory::Found;
use super::{Change, Denied, Tree, flag};
use crate::base::posix;
use crate::base::{Attr, Errno, Ino, Kind, Name};

/// What is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct New<'a> {
    /// The number taken for it. It was never used before.
    pub ino: Ino,
    /// Type and permission bits, before the umask.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
    /// Device number of a device file.
    pub rdev: u32,
    /// Target of a symlink, else empty.
    pub target: &'a [u8],
    /// A name that exists is EEXIST. Without it an existing regular file is opened.
    pub exclusive: bool,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Attributes of the new inode, or of the one that was there.
    pub attr: Attr,
    /// It was there: nothing was changed, there is nothing to log.
    pub existed: bool,
}

/// What lost a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed {
    /// What the name stood for, which the record says.
    pub ino: Ino,
    /// That was its last name.
    pub orphan: bool,
}

impl Tree {
    /// `open(O_CREAT)`, mkdir, mknod, symlink.
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`].
    pub fn make(
        &mut self,
        change: &Change,
        parent: Ino,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<Made, Denied> {
        let hash = self.hash.hash(name);
        let place = self.living_directory(parent)?;
        let dir = self.nodes.at(place);
        let kind = Kind::from_mode(new.mode)?;
        let Some(names) = dir.names() else { return Err(Denied::Ask) };
        let (found, alone) = names.look(hash, name);
        match found {
            Found::Is { ino, kind: found, .. } => {
                posix::check_existing(found, kind == Kind::File && !new.exclusive)?;
                let found = self.nodes.at(self.known(ino)?).attr();
                return found.map(|attr| Made { attr, existed: true }).ok_or(Denied::Ask);
            }
            Found::Absent => {}
            Found::Unknown => return Err(Denied::Ask),
        }
        posix::check_target(kind, new.target)?;
        if kind == Kind::Directory {
            posix::check_links(dir.nlink)?;
        }
        let used = new.ino.0 == 0 || self.nodes.find(new.ino).is_some();
        if used || !self.may_change(place)?.has(flag::PLAIN) || !alone {
            return Err(Denied::Ask);
        }
        let (mode, gid) = posix::born(dir.mode(), dir.gid, new.mode, change.caller);
        let attr = Attr {
            ino: new.ino,
            mode: posix::masked(mode, new.umask),
            nlink: if kind == Kind::Directory { 2 } else { 1 },
            uid: change.caller.uid,
            gid,
            rdev: if matches!(kind, Kind::CharDevice | Kind::BlockDevice) { new.rdev } else { 0 },
            size: new.target.len() as u64,
            blocks: 0,
            atime: change.at,
            mtime: change.at,
            ctime: change.at,
            btime: change.at,
        };
        self.changes += 1;
        let changes = self.changes;
        let Some(node) = self.nodes.ensure(new.ino) else { return Err(Denied::Ask) };
        node.born(&attr);
        (node.parent, node.ticket, node.changed) = (parent, change.ticket.0, changes);
        if kind == Kind::Symlink {
            node.more().target = Some(new.target.into());
        }
        self.in_place(place, |names| names.put(hash, found, name, new.ino, kind));
        let dir = self.nodes.at_mut(place);
        dir.nlink += u32::from(kind == Kind::Directory);
        dir.touch_content(change.at);
        self.touched(place, change);
        Ok(Made { attr, existed: false })
    }

    /// One more name for an inode. Gives its attributes afterwards.
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`].
    pub fn link(&mut self, change: &Change, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Attr, Denied> {
        let hash = self.hash.hash(name);
        let (linked, place) = (self.known(ino)?, self.living_directory(parent)?);
        let Some(names) = self.nodes.at(place).names() else { return Err(Denied::Ask) };
        let (found, alone) = names.look(hash, name);
        match found {
            Found::Is { .. } => return Err(Errno::EEXIST.into()),
            Found::Absent => {}
            Found::Unknown => return Err(Denied::Ask),
        }
        let node = self.nodes.at(linked);
        let kind = node.kind();
        if kind != Kind::Directory && node.nlink == 0 && !node.has(flag::ORPHAN) {
            // Made without a name, perhaps.
            return Err(Denied::Ask);
        }
        posix::check_link(kind, node.nlink, false)?;
        self.may_change(linked)?;
        self.may_change(place)?;
        if node.attr().is_none() || !alone {
            return Err(Denied::Ask);
        }
        let node = self.nodes.at_mut(linked);
        node.nlink += 1;
        node.touch_attributes(change.at);
        let attr = node.attr().ok_or(Denied::Ask)?;
        self.touched(linked, change);
        self.in_place(place, |names| names.put(hash, found, name, ino, kind));
        self.nodes.at_mut(place).touch_content(change.at);
        self.touched(place, change);
        Ok(attr)
    }

    /// unlink(2).
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`].
    pub fn unlink(&mut self, change: &Change, parent: Ino, name: Name<'_>) -> Result<Removed, Denied> {
        self.remove(change, parent, name, false)
    }

    /// rmdir(2).
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`].
    pub fn rmdir(&mut self, change: &Change, parent: Ino, name: Name<'_>) -> Result<Removed, Denied> {
        self.remove(change, parent, name, true)
    }

    fn remove(
        &mut self,
        change: &Change,
        parent: Ino,
        name: Name<'_>,
        directory: bool,
    ) -> Result<Removed, Denied> {
        let hash = self.hash.hash(name);
        let place = self.known_directory(parent)?;
        let Some(names) = self.nodes.at(place).names() else { return Err(Denied::Ask) };
        let (cookie, ino, kind) = match names.find(hash, name) {
            Found::Is { cookie, ino, kind } => (cookie, ino, kind),
            Found::Absent => return Err(Errno::ENOENT.into()),
            Found::Unknown => return Err(Denied::Ask),
        };
        if directory {
            // Of another kind it has no names.
            posix::check_rmdir(kind, 0)?;
            posix::check_rmdir(kind, self.entries(ino)?)?;
        } else {
            posix::check_unlink(kind)?;
        }
        let lost = self.known(ino)?;
        self.may_change(place)?;
        let node = self.may_change(lost)?;
        let subdirectories = self.nodes.at(place).nlink;
        // Counts that cannot be are damage, which the server has to find.
        if node.nlink == 0 || (directory && subdirectories <= 2) {
            return Err(Denied::Ask);
        }
        let orphan = self.lose_name(lost, change);
        self.in_place(place, |names| names.take(cookie));
        let dir = self.nodes.at_mut(place);
        dir.nlink -= u32::from(directory);
        dir.touch_content(change.at);
        self.touched(place, change);
        Ok(Removed { ino, orphan })
    }

    /// How many names a directory has: all must be known for "none", one is enough for "some".
    pub(super) fn entries(&self, dir: Ino) -> Result<u64, Denied> {
        let node = self.nodes.get(dir).filter(|node| node.has(flag::LEASED));
        let names = node.and_then(|node| node.names()).ok_or(Denied::Ask)?;
        match names.entries() {
            Some(entries) => Ok(entries),
            None if names.len() > 0 => Ok(names.len() as u64),
            None => Err(Denied::Ask),
        }
    }

    /// The inode lost a name (a directory: its only one). True: it was the last.
    pub(super) fn lose_name(&mut self, place: u32, change: &Change) -> bool {
        let node = self.nodes.at_mut(place);
        node.nlink = if node.is_dir() { 0 } else { node.nlink - 1 };
        node.touch_attributes(change.at);
        let orphan = node.nlink == 0;
        if orphan {
            node.set(flag::ORPHAN);
        } else {
            // Which of its names is left is not looked for.
            node.parent = Ino(0);
        }
        self.touched(place, change);
        orphan
    }
}
