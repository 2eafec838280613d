//! What can be answered here.

use super::directory::Found;
use super::{Known, Tree, flag};
use crate::base::{Attr, Errno, Ino, Kind, Name};
use crate::wire::DirEntry;
use std::ops::ControlFlow;

impl Tree {
    /// What a name stands for.
    #[must_use]
    pub fn lookup(&mut self, parent: Ino, name: Name<'_>) -> Known<Attr> {
        let hash = self.hash.hash(name);
        let Some(dir) = self.nodes.get_mut(parent).filter(|node| node.has(flag::LEASED)) else {
            return Known::Unknown;
        };
        dir.set(flag::USED);
        if dir.has(flag::ATTR) && !dir.is_dir() {
            return Known::No(Errno::ENOTDIR);
        }
        match dir.names().map(|names| names.find(hash, name)) {
            Some(Found::Is { ino, .. }) => self.attr(ino),
            Some(Found::Absent) => Known::No(Errno::ENOENT),
            Some(Found::Unknown) | None => Known::Unknown,
        }
    }

    /// Attributes. A late failure of what made the inode is told here.
    #[must_use]
    pub fn attr(&mut self, ino: Ino) -> Known<Attr> {
        if let Some(errno) = self.poisoned(ino) {
            return Known::No(errno);
        }
        match self.nodes.get_mut(ino) {
            Some(node) => {
                node.set(flag::USED);
                node.attr().map_or(Known::Unknown, Known::Yes)
            }
            None => Known::Unknown,
        }
    }

    /// Target of a symlink.
    #[must_use]
    pub fn read_link(&self, ino: Ino) -> Known<&[u8]> {
        let Some(node) = self.nodes.get(ino).filter(|node| node.has(flag::LEASED | flag::ATTR)) else {
            return Known::Unknown;
        };
        if node.kind() != Kind::Symlink {
            return Known::No(Errno::EINVAL);
        }
        let target = node.more.as_ref().and_then(|more| more.target.as_deref());
        target.map_or(Known::Unknown, Known::Yes)
    }

    /// Whether it is known that the inode has no extended attributes and no ACL.
    #[must_use]
    pub fn xattr_is_absent(&self, ino: Ino) -> bool {
        self.nodes.get(ino).is_some_and(|node| node.has(flag::LEASED | flag::PLAIN))
    }

    /// The directory above a directory; of the root: itself.
    #[must_use]
    pub fn parent(&mut self, ino: Ino) -> Known<Attr> {
        match self.known_directory(ino).map(|place| self.nodes.at(place).parent) {
            _ if ino == Ino::ROOT => self.attr(ino),
            Ok(parent) if parent.0 != 0 => self.attr(parent),
            _ => Known::Unknown,
        }
    }

    /// Visits the entries after `cookie` as far as they are known and `visit` goes on, in the order of their cookies, without `.`
    /// and `..`. `plus`: each with its attributes, where they are known. Yes says whether the end of the directory was reached;
    /// no entry and no end: [`Known::Unknown`].
    pub fn list(
        &mut self,
        ino: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Known<bool> {
        let Some(dir) = self.nodes.get_mut(ino).filter(|node| node.has(flag::LEASED)) else {
            return Known::Unknown;
        };
        dir.set(flag::USED);
        if dir.has(flag::ATTR) && !dir.is_dir() {
            return Known::No(Errno::ENOTDIR);
        }
        if cookie == u64::MAX {
            return Known::Yes(true);
        }
        let dir = self.nodes.get(ino);
        let Some((entries, end)) = dir.and_then(|dir| dir.names()).and_then(|names| names.after(cookie))
        else {
            return Known::Unknown;
        };
        let mut any = false;
        for (cookie, entry) in entries {
            any = true;
            let attr = if plus { self.nodes.get(entry.ino).and_then(|node| node.attr()) } else { None };
            let (kind, name) = (entry.kind(), entry.name());
            if visit(DirEntry { ino: entry.ino, cookie, kind, name, attr }).is_break() {
                return Known::Yes(false);
            }
        }
        match end {
            u64::MAX => Known::Yes(true),
            _ if any => Known::Yes(false),
            _ => Known::Unknown,
        }
    }

    /// Whether a lookup in this directory that cannot be answered should ask for the directory's listing instead: when nothing
    /// is known of it, and it was not tried in vain before.
    #[must_use]
    pub fn should_list_first(&mut self, dir: Ino) -> bool {
        let names = self.nodes.get(dir).and_then(|node| node.names());
        if names.is_some_and(|names| !names.is_unknown()) {
            return false;
        }
        if self.listed.len() >= super::LISTED_MAX {
            self.listed.clear();
        }
        self.listed.insert(dir)
    }
}
