//! What answers of the server teach.

use super::directory::Directory;
use super::{Stamp, Tree, flag};
use crate::base::{Attr, Ino, Kind, Name};
use crate::wire::{DirEntry, Grant};

impl Tree {
    /// Takes the grants of an answer; to be called before what it says is learned. Answers and recalls must come here in
    /// the order in which the server sent them.
    pub fn granted(&mut self, grants: impl IntoIterator<Item = Grant>) {
        for grant in grants {
            let Some(node) = self.nodes.ensure(grant.ino) else { continue };
            if !node.has(flag::LEASED) {
                // It may have been changed and moved while nobody here was told.
                node.changed = node.changed.max(self.floor.0);
                node.ticket = node.ticket.max(self.floor.1);
                node.parent = Ino(0);
            }
            if grant.number > node.number {
                node.lease(grant.mode, grant.number, grant.plain);
            }
        }
    }

    /// Attributes of an inode.
    pub fn learn_attr(&mut self, asked: Stamp, attr: &Attr) {
        if let Some(node) = self.nodes.get_mut(attr.ino)
            && node.has(flag::LEASED)
            && node.changed <= asked.changes
            && node.ticket <= asked.applied
        {
            node.learn(attr);
            node.set(flag::USED);
        }
    }

    /// What a name stands for, with the attributes of that.
    pub fn learn_name(&mut self, asked: Stamp, parent: Ino, name: Name<'_>, attr: &Attr) {
        self.learn_attr(asked, attr);
        if !self.is_fresh(asked, parent) {
            return;
        }
        let hash = self.hash.hash(name);
        self.in_directory(parent, |names| {
            let found = names.find(hash, name);
            names.put(hash, found, name, attr.ino, attr.kind());
        });
        self.learn_parent(asked, attr.ino, parent);
    }

    /// A name does not exist.
    pub fn learn_absent(&mut self, asked: Stamp, parent: Ino, name: Name<'_>) {
        if self.is_fresh(asked, parent) {
            let hash = self.hash.hash(name);
            self.in_directory(parent, |names| names.learn_absent(hash, name));
        }
    }

    /// The piece of a listing that follows `from_cookie`, in the order of the cookies; `end`: nothing comes after it.
    pub fn learn_listing(
        &mut self,
        asked: Stamp,
        dir: Ino,
        from_cookie: u64,
        entries: &[DirEntry<'_>],
        end: bool,
    ) {
        for attr in entries.iter().filter_map(|entry| entry.attr.as_ref()) {
            self.learn_attr(asked, attr);
        }
        if !self.is_fresh(asked, dir) {
            return;
        }
        let from = if from_cookie == 0 { 0 } else { from_cookie.saturating_add(1) };
        let to = match entries.last() {
            _ if end => u64::MAX,
            Some(last) => last.cookie,
            None => return,
        };
        self.in_directory(dir, |names| {
            names.learn(
                from..=to,
                entries.iter().map(|entry| (entry.cookie, entry.name, entry.ino, entry.kind)),
            );
        });
        self.listed.remove(&dir);
        for entry in entries {
            self.learn_parent(asked, entry.ino, dir);
        }
    }

    /// Target of a symlink, which never changes.
    pub fn learn_target(&mut self, ino: Ino, target: &[u8]) {
        if let Some(node) = self.nodes.get_mut(ino)
            && node.has(flag::LEASED | flag::ATTR)
            && node.kind() == Kind::Symlink
        {
            node.more().target = Some(target.into());
        }
    }

    /// A mutation that the caller waited for was sent or answered: what is known of the inode's attributes, extended ones among
    /// them, is old, and what is on its way may be.
    pub fn forget_attr(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.clear(flag::PLAIN);
            if !node.has(flag::ATTR) || node.is_dir() {
                // Perhaps it was moved.
                node.parent = Ino(0);
            }
        }
        self.doubt(ino);
    }

    /// What is known of it now is the outcome of a change: answers to what was asked for before may be older, and teach nothing.
    pub fn is_newest(&mut self, ino: Ino) {
        self.changes += 1;
        if let Some(node) = self.nodes.get_mut(ino) {
            node.changed = self.changes;
        }
    }

    /// It may have been moved, or lost one of its names.
    pub fn forget_place(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.parent = Ino(0);
        }
    }

    /// The same of a name, and of the attributes of its directory.
    pub fn forget_name(&mut self, parent: Ino, name: Name<'_>) {
        self.doubt(parent);
        if self.nodes.get(parent).is_some_and(|node| node.names().is_some()) {
            let hash = self.hash.hash(name);
            self.in_directory(parent, |names| names.forget(hash));
        }
    }

    /// The same of all names of a directory, and of its attributes.
    pub fn forget_listing(&mut self, dir: Ino) {
        self.doubt(dir);
        if self.nodes.get(dir).is_some_and(|node| node.names().is_some()) {
            self.in_directory(dir, |names| *names = Directory::default());
        }
    }

    /// Whether the inode is leased, but its attributes are not known: to complete mutations locally again they must be asked
    /// for.
    #[must_use]
    pub fn wants_attr(&self, ino: Ino) -> bool {
        self.nodes.get(ino).is_some_and(|node| node.has(flag::LEASED) && node.attr().is_none())
    }

    fn doubt(&mut self, ino: Ino) {
        self.changes += 1;
        if let Some(node) = self.nodes.get_mut(ino) {
            node.clear(flag::ATTR);
            node.changed = self.changes;
        } else {
            self.floor.0 = self.changes;
        }
    }

    /// Whether what an answer says of a directory's names can be believed.
    fn is_fresh(&self, asked: Stamp, dir: Ino) -> bool {
        self.nodes.get(dir).is_some_and(|node| {
            node.has(flag::LEASED) && node.changed <= asked.changes && node.ticket <= asked.applied
        })
    }

    fn learn_parent(&mut self, asked: Stamp, ino: Ino, parent: Ino) {
        if let Some(node) = self.nodes.get_mut(ino)
            && node.has(flag::LEASED)
            && node.changed <= asked.changes
            && ino != Ino::ROOT
        {
            node.parent = parent;
        }
    }

    /// Changes the names of a directory and counts them.
    pub(super) fn in_directory(&mut self, dir: Ino, change: impl FnOnce(&mut Directory)) {
        if let Some(place) = self.nodes.find(dir) {
            self.in_place(place, change);
        }
    }

    /// The same, of a node that was found.
    pub(super) fn in_place(&mut self, place: u32, change: impl FnOnce(&mut Directory)) {
        let names = self.nodes.at_mut(place).names_mut();
        let before = names.len();
        change(names);
        self.names = self.names + names.len() - before;
    }
}
