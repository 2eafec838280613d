//! A file system as simple as can be: trees of maps and vectors, everything counted anew when it is asked for. Written
//! from the manual pages, sharing nothing with the rules it judges.

use crate::base::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// Number of a node, in order of creation; 0 is the root.
pub(super) type Id = usize;

#[derive(Clone, Debug)]
pub(super) enum Content {
    File(Vec<u8>),
    Dir(BTreeMap<String, Id>),
    Link,
    Special,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// With the type.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) content: Content,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    /// Counts changes of the content, which mtime shows.
    pub(super) contents: u64,
    /// Counts changes of anything, which ctime shows.
    pub(super) changes: u64,
    /// Was made without a name and never had one.
    linkable: bool,
}

pub(super) type Answer<T> = Result<T, Errno>;

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Who {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) held: BTreeSet<Id>,
}

/// What `make` found or made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Made {
    New(Id),
    Old(Id),
}

/// What a new node shall be.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) exclusive: bool,
    pub(super) hold: bool,
}

impl Reference {
    pub(super) fn new() -> Self {
        let root = Self::node(libc::S_IFDIR | 0o755, 0, 0);
        Self { nodes: vec![Some(root)], held: BTreeSet::new() }
    }

    fn node(mode: u32, uid: u32, gid: u32) -> Node {
        let content = match mode & libc::S_IFMT {
            libc::S_IFREG => Content::File(Vec::new()),
            libc::S_IFDIR => Content::Dir(BTreeMap::new()),
            libc::S_IFLNK => Content::Link,
            _ => Content::Special,
        };
        let xattrs = BTreeMap::new();
        Node { mode, uid, gid, content, xattrs, contents: 0, changes: 0, linkable: false }
    }

    pub(super) fn get(&self, id: Id) -> Answer<&Node> {
        self.nodes[id].as_ref().ok_or(Errno::ESTALE)
    }

    fn get_mut(&mut self, id: Id) -> &mut Node {
        self.nodes[id].as_mut().expect("checked before")
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        matches!(self.get(id), Ok(Node { content: Content::Dir(_), .. }))
    }

    pub(super) fn names_a_dir(&self, dir: Id, name: &str) -> bool {
        self.entries(dir).is_ok_and(|entries| entries.get(name).is_some_and(|&id| self.is_dir(id)))
    }

    /// All names of a node in all directories.
    fn names(&self, id: Id) -> usize {
        let dirs = self.nodes.iter().flatten().filter_map(|node| match &node.content {
            Content::Dir(entries) => Some(entries),
            _ => None,
        });
        dirs.flat_map(BTreeMap::values).filter(|&&entry| entry == id).count()
    }

    pub(super) fn nlink(&self, id: Id) -> usize {
        let names = self.names(id);
        match &self.get(id).expect("exists").content {
            Content::Dir(entries) if names > 0 || id == 0 => {
                2 + entries.values().filter(|&&entry| self.is_dir(entry)).count()
            }
            _ => names,
        }
    }

    pub(super) fn size(&self, id: Id) -> usize {
        match &self.get(id).expect("exists").content {
            Content::File(data) => data.len(),
            Content::Link => "target".len(),
            _ => 0,
        }
    }

    fn entries(&self, dir: Id) -> Answer<&BTreeMap<String, Id>> {
        match &self.get(dir)?.content {
            Content::Dir(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn living(&self, dir: Id) -> Answer<&BTreeMap<String, Id>> {
        let entries = self.entries(dir)?;
        if self.nlink(dir) == 0 { Err(Errno::ENOENT) } else { Ok(entries) }
    }

    fn set_entry(&mut self, dir: Id, name: &str, id: Option<Id>) {
        let Content::Dir(entries) = &mut self.get_mut(dir).content else { panic!("no directory") };
        match id {
            Some(id) => entries.insert(name.into(), id),
            None => entries.remove(name),
        };
    }

    fn changed(&mut self, id: Id) {
        self.get_mut(id).changes += 1;
    }

    fn content_changed(&mut self, id: Id) {
        self.changed(id);
        self.get_mut(id).contents += 1;
    }

    /// A node lost a name: without others it lives while it is held, and whoever took the name holds it.
    fn lost_name(&mut self, id: Id) {
        self.changed(id);
        if self.names(id) == 0 {
            self.held.insert(id);
        }
    }

    fn born(&mut self, dir: Id, who: Who, mode: u32, umask: u32) -> Id {
        let parent = self.get(dir).expect("checked");
        let kind = mode & libc::S_IFMT;
        let mut bits = mode & 0o7777;
        if kind != libc::S_IFLNK {
            bits &= !umask;
        }
        let mut gid = who.gid;
        if parent.mode & 0o2000 != 0 {
            gid = parent.gid;
            if kind == libc::S_IFDIR {
                bits |= 0o2000;
            } else if mode & 0o2010 == 0o2010 && who.uid != 0 && who.gid != gid {
                bits &= !0o2000;
            }
        }
        self.nodes.push(Some(Self::node(kind | bits, who.uid, gid)));
        self.nodes.len() - 1
    }

    pub(super) fn make(&mut self, dir: Id, name: &str, who: Who, plan: Plan) -> Answer<Made> {
        if let Some(&found) = self.living(dir)?.get(name) {
            if plan.exclusive || plan.mode & libc::S_IFMT != libc::S_IFREG {
                return Err(Errno::EEXIST);
            }
            return match &self.get(found)?.content {
                Content::File(_) => {
                    if plan.hold {
                        self.held.insert(found);
                    }
                    Ok(Made::Old(found))
                }
                Content::Dir(_) => Err(Errno::EISDIR),
                _ => Err(Errno::ESTALE),
            };
        }
        let id = self.born(dir, who, plan.mode, plan.umask);
        self.set_entry(dir, name, Some(id));
        self.content_changed(dir);
        if plan.hold {
            self.held.insert(id);
        }
        Ok(Made::New(id))
    }

    pub(super) fn tmpfile(&mut self, dir: Id, who: Who, mode: u32) -> Answer<Id> {
        self.living(dir)?;
        let id = self.born(dir, who, libc::S_IFREG | mode, 0);
        self.get_mut(id).linkable = true;
        self.held.insert(id);
        Ok(id)
    }

    pub(super) fn link(&mut self, id: Id, dir: Id, name: &str) -> Answer<()> {
        self.get(id)?;
        if self.living(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.is_dir(id) {
            return Err(Errno::EPERM);
        }
        if self.names(id) == 0 && !self.get(id)?.linkable {
            return Err(Errno::ENOENT);
        }
        self.get_mut(id).linkable = false;
        self.set_entry(dir, name, Some(id));
        self.changed(id);
        self.content_changed(dir);
        Ok(())
    }

    pub(super) fn unlink(&mut self, dir: Id, name: &str, directory: bool) -> Answer<()> {
        let id = *self.entries(dir)?.get(name).ok_or(Errno::ENOENT)?;
        match (&self.get(id)?.content, directory) {
            (Content::Dir(_), false) => return Err(Errno::EISDIR),
            (Content::Dir(entries), true) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (Content::Dir(_), true) => {}
            (_, true) => return Err(Errno::ENOTDIR),
            (_, false) => {}
        }
        self.set_entry(dir, name, None);
        self.content_changed(dir);
        self.lost_name(id);
        Ok(())
    }

    /// Whether `below` is found when one walks down from `top`.
    fn reaches(&self, top: Id, below: Id) -> bool {
        let Ok(entries) = self.entries(top) else { return false };
        top == below || entries.values().any(|&entry| self.reaches(entry, below))
    }

    pub(super) fn rename(&mut self, from: (Id, &str), to: (Id, &str), flags: u32, who: Who) -> Answer<()> {
        let has = |flag: u32| flags & flag != 0;
        if has(libc::RENAME_EXCHANGE) && has(libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        self.entries(from.0)?;
        self.entries(to.0)?;
        let moved = *self.entries(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        let target = self.living(to.0)?.get(to.1).copied();
        if target.is_some() && has(libc::RENAME_NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if target.is_none() && has(libc::RENAME_EXCHANGE) {
            return Err(Errno::ENOENT);
        }
        if from.0 != to.0 {
            if self.is_dir(moved) && self.reaches(moved, to.0) {
                return Err(Errno::EINVAL);
            }
            if target.is_some_and(|target| self.is_dir(target) && self.reaches(target, from.0)) {
                return Err(if has(libc::RENAME_EXCHANGE) { Errno::EINVAL } else { Errno::ENOTEMPTY });
            }
        }
        if target == Some(moved) {
            return Ok(());
        }
        if let (Some(other), true) = (target, has(libc::RENAME_EXCHANGE)) {
            self.set_entry(from.0, from.1, Some(other));
            self.set_entry(to.0, to.1, Some(moved));
            self.changed(other);
        } else {
            if let Some(target) = target {
                match (self.is_dir(moved), self.is_dir(target)) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.entries(target)?.is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
            }
            self.set_entry(from.0, from.1, None);
            self.set_entry(to.0, to.1, Some(moved));
            if let Some(target) = target {
                self.lost_name(target);
            }
            if has(libc::RENAME_WHITEOUT) {
                let id = self.born(from.0, who, libc::S_IFCHR, 0);
                self.set_entry(from.0, from.1, Some(id));
            }
        }
        self.changed(moved);
        for dir in BTreeSet::from([from.0, to.0]) {
            self.content_changed(dir);
        }
        Ok(())
    }

    pub(super) fn chmod(&mut self, id: Id, mode: u32) -> Answer<()> {
        if matches!(self.get(id)?.content, Content::Link) {
            return Err(Errno::EOPNOTSUPP);
        }
        let node = self.get_mut(id);
        node.mode = node.mode & libc::S_IFMT | mode;
        self.changed(id);
        Ok(())
    }

    fn kill(node: &mut Node, who: Who) {
        if !matches!(node.content, Content::Dir(_)) {
            let trusted = who.uid == 0 || who.gid == node.gid;
            let group = if node.mode & 0o010 != 0 || !trusted { 0o2000 } else { 0 };
            node.mode &= !(0o4000 | group);
        }
    }

    pub(super) fn chown(&mut self, id: Id, uid: u32, gid: u32, who: Who) -> Answer<()> {
        self.get(id)?;
        let node = self.get_mut(id);
        Self::kill(node, who);
        (node.uid, node.gid) = (uid, gid);
        self.changed(id);
        Ok(())
    }

    pub(super) fn data(&mut self, id: Id, special: Errno) -> Answer<&mut Vec<u8>> {
        match &mut self.nodes[id].as_mut().ok_or(Errno::ESTALE)?.content {
            Content::File(data) => Ok(data),
            Content::Dir(_) => Err(Errno::EISDIR),
            _ => Err(special),
        }
    }

    pub(super) fn truncate(&mut self, id: Id, size: usize) -> Answer<()> {
        self.data(id, Errno::EINVAL)?.resize(size, 0);
        self.content_changed(id);
        Ok(())
    }

    /// Where it was written; `None`: at the end.
    pub(super) fn write(
        &mut self,
        id: Id,
        at: Option<usize>,
        bytes: &[u8],
        kill: Option<Who>,
    ) -> Answer<usize> {
        let data = self.data(id, Errno::EINVAL)?;
        let at = at.unwrap_or(data.len());
        if bytes.is_empty() {
            return Ok(at);
        }
        if data.len() < at + bytes.len() {
            data.resize(at + bytes.len(), 0);
        }
        data[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(who) = kill {
            Self::kill(self.get_mut(id), who);
        }
        self.content_changed(id);
        Ok(at)
    }

    pub(super) fn allocate(
        &mut self,
        id: Id,
        (zero, keep): (bool, bool),
        at: usize,
        len: usize,
        who: Who,
    ) -> Answer<()> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let data = self.data(id, Errno::ENODEV)?;
        if !keep && data.len() < at + len {
            data.resize(at + len, 0);
        }
        let (from, to) = (at.min(data.len()), (at + len).min(data.len()));
        if zero {
            data[from..to].fill(0);
        }
        if who.uid != 0 {
            Self::kill(self.get_mut(id), who);
        }
        self.content_changed(id);
        Ok(())
    }

    pub(super) fn copy(
        &mut self,
        (source, from): (Id, usize),
        (target, to): (Id, usize),
        len: usize,
        who: Who,
    ) -> Answer<usize> {
        let data = self.data(source, Errno::EINVAL)?.clone();
        self.data(target, Errno::EINVAL)?;
        let end = (from + len).min(data.len());
        let len = end.saturating_sub(from);
        if source == target && from < to + len && to < from + len {
            return Err(Errno::EINVAL);
        }
        if len > 0 {
            self.write(target, Some(to), &data[from..end], (who.uid != 0).then_some(who))?;
        }
        Ok(len)
    }

    pub(super) fn set_xattr(&mut self, id: Id, key: &str, value: &[u8], flags: u32) -> Answer<()> {
        let node = self.get(id)?;
        if key.starts_with("user.") && matches!(node.content, Content::Link | Content::Special) {
            return Err(Errno::EPERM);
        }
        match node.xattrs.contains_key(key) {
            true if flags & libc::XATTR_CREATE.cast_unsigned() != 0 => return Err(Errno::EEXIST),
            false if flags & libc::XATTR_REPLACE.cast_unsigned() != 0 => return Err(Errno::ENODATA),
            _ => {}
        }
        self.get_mut(id).xattrs.insert(key.into(), value.into());
        self.changed(id);
        Ok(())
    }

    pub(super) fn remove_xattr(&mut self, id: Id, key: &str) -> Answer<()> {
        let node = self.get(id)?;
        if key.starts_with("user.") && matches!(node.content, Content::Link | Content::Special) {
            return Err(Errno::EPERM);
        }
        if !node.xattrs.contains_key(key) {
            return Err(Errno::ENODATA);
        }
        self.get_mut(id).xattrs.remove(key);
        self.changed(id);
        Ok(())
    }

    pub(super) fn hold(&mut self, id: Id) -> Answer<()> {
        self.get(id)?;
        self.held.insert(id);
        Ok(())
    }

    pub(super) fn release(&mut self, id: Id) {
        if self.held.remove(&id) && id != 0 && self.names(id) == 0 {
            self.nodes[id] = None;
        }
    }
}
