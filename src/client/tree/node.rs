//! What is known of one inode, packed: a million of them are common.

use super::directory::Directory;
use super::index::Index;
use crate::base::posix;
use crate::base::{Attr, Ino, Kind, Time};
use crate::wire::LeaseMode;

/// Bits of [`Node::flags`].
pub(super) mod flag {
    /// Leased, shared or exclusive.
    pub(in super::super) const LEASED: u16 = 1;
    /// Leased exclusively.
    pub(in super::super) const EXCLUSIVE: u16 = 1 << 1;
    /// No extended attributes and no ACL.
    pub(in super::super) const PLAIN: u16 = 1 << 2;
    /// The attributes are known.
    pub(in super::super) const ATTR: u16 = 1 << 3;
    /// [`super::Node::space`] is the number of bytes from the start that have data; nothing behind them has.
    pub(in super::super) const PREFIX: u16 = 1 << 4;
    /// [`super::Node::space`] is not known: who asks for attributes has to ask the server.
    pub(in super::super) const SPACE_UNKNOWN: u16 = 1 << 5;
    /// A recall began.
    pub(in super::super) const RECALLED: u16 = 1 << 6;
    /// Nothing is changed locally any more, a recall waits for the log.
    pub(in super::super) const STOPPED: u16 = 1 << 7;
    /// Looked at since the sweep came by.
    pub(in super::super) const USED: u16 = 1 << 8;
    /// Lost its last name here: no link brings it back.
    pub(in super::super) const ORPHAN: u16 = 1 << 9;
    /// The prefix follows from the number of blocks: a hole of less than a block may be in it, anywhere.
    pub(in super::super) const HOLE_PERHAPS: u16 = 1 << 10;
    /// What a lease covers: goes with it.
    pub(in super::super) const KNOWLEDGE: u16 =
        LEASED | EXCLUSIVE | PLAIN | ATTR | PREFIX | SPACE_UNKNOWN | RECALLED | STOPPED | HOLE_PERHAPS;
}

/// A [`Time`] without the four bytes that alignment costs.
#[derive(Clone, Copy, Default)]
struct PackedTime {
    low: u32,
    high: u32,
    nanos: u32,
}

impl PackedTime {
    fn new(time: Time) -> Self {
        let [a, b, c, d, e, f, g, h] = time.secs.to_ne_bytes();
        let (low, high) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Self { low, high, nanos: time.nanos }
    }

    fn time(self) -> Time {
        let ([a, b, c, d], [e, f, g, h]) = (self.low.to_ne_bytes(), self.high.to_ne_bytes());
        Time { secs: i64::from_ne_bytes([a, b, c, d, e, f, g, h]), nanos: self.nanos }
    }
}

/// What few inodes have.
#[derive(Default)]
pub(super) struct More {
    rdev: u32,
    pub(super) target: Option<Box<[u8]>>,
    pub(super) names: Directory,
}

/// One inode. What it says holds while [`flag::LEASED`] is set; without it only `ticket` and `parent` mean something.
pub(super) struct Node {
    /// 0: a free place, `parent` is the next one.
    pub(super) ino: Ino,
    pub(super) size: u64,
    space: u64,
    /// Directory that holds it, or once held it; 0 when not known.
    pub(super) parent: Ino,
    /// Number of the grant, 0 for one born here.
    pub(super) number: u64,
    /// The last local mutation that changed it.
    pub(super) ticket: u64,
    /// When it was changed last, or an answer on the way became doubtful.
    pub(super) changed: u64,
    pub(super) more: Option<Box<More>>,
    times: [PackedTime; 4],
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    mode: u16,
    pub(super) flags: u16,
}

const _: () = assert!(size_of::<Node>() == 128);

impl Node {
    fn new(ino: Ino) -> Self {
        let times = [PackedTime::default(); 4];
        Self {
            ino,
            size: 0,
            space: 0,
            parent: Ino(0),
            number: 0,
            ticket: 0,
            changed: 0,
            more: None,
            times,
            nlink: 0,
            uid: 0,
            gid: 0,
            mode: 0,
            flags: flag::USED,
        }
    }

    pub(super) fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    pub(super) fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    pub(super) fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }

    pub(super) fn lease(&mut self, mode: LeaseMode, number: u64, plain: bool) {
        self.clear(flag::EXCLUSIVE | flag::PLAIN);
        self.set(flag::LEASED);
        if mode == LeaseMode::Exclusive {
            self.set(flag::EXCLUSIVE);
        }
        if plain {
            self.set(flag::PLAIN);
        }
        self.number = number;
    }

    /// The lease is gone, and with it all that it covered.
    pub(super) fn forget(&mut self) {
        self.clear(flag::KNOWLEDGE);
        self.more = None;
        self.number = 0;
    }

    pub(super) fn mode(&self) -> u32 {
        u32::from(self.mode)
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::from_mode(self.mode()).unwrap_or(Kind::File)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == Kind::Directory
    }

    /// All attributes, if all are known.
    pub(super) fn attr(&self) -> Option<Attr> {
        let known = self.has(flag::LEASED | flag::ATTR) && !self.has(flag::SPACE_UNKNOWN);
        known.then(|| self.attr_but_blocks())
    }

    /// The attributes; `blocks` only when known.
    pub(super) fn attr_but_blocks(&self) -> Attr {
        let [atime, mtime, ctime, btime] = self.times.map(PackedTime::time);
        Attr {
            ino: self.ino,
            mode: self.mode(),
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.more.as_ref().map_or(0, |more| more.rdev),
            size: self.size,
            blocks: if self.has(flag::PREFIX) { self.space.div_ceil(512) } else { self.space },
            atime,
            mtime,
            ctime,
            btime,
        }
    }

    /// What the server says.
    pub(super) fn learn(&mut self, attr: &Attr) {
        self.put(attr);
        self.clear(flag::PREFIX | flag::SPACE_UNKNOWN | flag::HOLE_PERHAPS);
        self.set(flag::ATTR);
        // As many blocks as a file without holes: it has none, or one too small to show.
        if attr.blocks == 0 || attr.blocks == attr.size.div_ceil(512) {
            self.set(flag::PREFIX);
            self.space = if attr.blocks == 0 { 0 } else { attr.size };
            if attr.blocks * 512 != self.space {
                self.set(flag::HOLE_PERHAPS);
            }
        } else {
            self.space = attr.blocks;
        }
    }

    /// Attributes as a rule changed them; `blocks` is not one of these.
    pub(super) fn put(&mut self, attr: &Attr) {
        self.mode = u16::try_from(attr.mode & 0xffff).unwrap_or(0);
        (self.nlink, self.uid, self.gid, self.size) = (attr.nlink, attr.uid, attr.gid, attr.size);
        self.times = [attr.atime, attr.mtime, attr.ctime, attr.btime].map(PackedTime::new);
        if attr.rdev != 0 {
            self.more().rdev = attr.rdev;
        }
    }

    /// Names or bytes of it change.
    pub(super) fn touch_content(&mut self, now: Time) {
        self.change(|attr| posix::touch_content(attr, now));
    }

    /// Attributes of it change.
    pub(super) fn touch_attributes(&mut self, now: Time) {
        self.change(|attr| posix::touch_attributes(attr, now));
    }

    /// Applies a rule.
    pub(super) fn change(&mut self, rule: impl FnOnce(&mut Attr)) {
        let mut attr = self.attr_but_blocks();
        rule(&mut attr);
        self.put(&attr);
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Its names; empty and unknown at first.
    pub(super) fn names_mut(&mut self) -> &mut Directory {
        &mut self.more().names
    }

    /// Its names, if anything is known of them.
    pub(super) fn names(&self) -> Option<&Directory> {
        self.more.as_ref().map(|more| &more.names)
    }

    /// The bytes from `size` on are cut off; the size is changed elsewhere. False: how many blocks are left only the
    /// server knows.
    #[must_use]
    pub(super) fn cut(&mut self, size: u64) -> bool {
        if self.has(flag::PREFIX) && !self.has(flag::HOLE_PERHAPS) {
            self.space = self.space.min(size);
        } else if size == 0 {
            self.space = 0;
            self.set(flag::PREFIX);
            self.clear(flag::SPACE_UNKNOWN | flag::HOLE_PERHAPS);
        } else if size < self.size {
            return false;
        }
        true
    }

    /// Bytes were written, before the size is changed.
    pub(super) fn wrote(&mut self, start: u64, end: u64) {
        if self.has(flag::PREFIX) && start <= self.space {
            self.space = self.space.max(end);
        } else if self.has(flag::PREFIX) {
            // Behind a hole: so many blocks, but from here on nobody knows which.
            self.space = (self.space + (end - start)).div_ceil(512);
            self.clear(flag::PREFIX);
        } else {
            self.set(flag::SPACE_UNKNOWN);
        }
    }

    /// Born a moment ago: known, complete and empty.
    pub(super) fn born(&mut self, attr: &Attr) {
        self.put(attr);
        self.set(flag::LEASED | flag::EXCLUSIVE | flag::PLAIN | flag::ATTR | flag::PREFIX);
        if self.is_dir() {
            self.names_mut().complete();
        }
    }
}

/// The table of nodes: places in pieces that never move, and where each inode is.
#[derive(Default)]
pub(super) struct Nodes {
    index: Index,
    pieces: Pieces,
    /// First free place plus one.
    free: u64,
}

const PIECE: usize = 1 << 10;

#[derive(Default)]
struct Pieces(Vec<Vec<Node>>);

impl Pieces {
    fn at(&self, place: u32) -> &Node {
        let place = place as usize;
        &self.0[place / PIECE][place % PIECE]
    }

    fn at_mut(&mut self, place: u32) -> &mut Node {
        let place = place as usize;
        &mut self.0[place / PIECE][place % PIECE]
    }

    fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PIECE + last.len())
    }

    fn push(&mut self, node: Node) {
        match self.0.last_mut() {
            Some(last) if last.len() < PIECE => last.push(node),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(node);
                self.0.push(piece);
            }
        }
    }
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Places that were ever used; some are free.
    pub(super) fn places(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn find(&self, ino: Ino) -> Option<u32> {
        self.index.find(ino, |place| self.pieces.at(place).ino)
    }

    pub(super) fn at(&self, place: u32) -> &Node {
        self.pieces.at(place)
    }

    pub(super) fn at_mut(&mut self, place: u32) -> &mut Node {
        self.pieces.at_mut(place)
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        self.find(ino).map(|place| self.at(place))
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.find(ino).map(|place| self.at_mut(place))
    }

    /// The inode's node, new when there was none. `None` for the number 0, which no inode has, and when four billion
    /// inodes are known.
    pub(super) fn ensure(&mut self, ino: Ino) -> Option<&mut Node> {
        if let Some(place) = self.find(ino) {
            return Some(self.at_mut(place));
        }
        if ino.0 == 0 {
            return None;
        }
        let free = self.free.checked_sub(1);
        let place = u32::try_from(free.unwrap_or(self.places() as u64)).ok()?;
        if !self.index.insert(ino, place, |place| self.pieces.at(place).ino) {
            return None;
        }
        if free.is_some() {
            self.free = self.at(place).parent.0;
            *self.at_mut(place) = Node::new(ino);
        } else {
            self.pieces.push(Node::new(ino));
        }
        Some(self.at_mut(place))
    }

    pub(super) fn remove(&mut self, ino: Ino) {
        if let Some(place) = self.index.remove(ino, |place| self.pieces.at(place).ino) {
            let next = std::mem::replace(&mut self.free, u64::from(place) + 1);
            let node = self.at_mut(place);
            *node = Node::new(Ino(0));
            node.parent = Ino(next);
        }
    }

    /// The known inodes.
    pub(super) fn inos(&self) -> Vec<Ino> {
        self.index.places().map(|place| self.at(place).ino).collect()
    }
}
