//! Random operations of one mount through the tree, with a server behind it that executes what the tree completed later and
//! in order, and grants, recalls and answers late; another client changes things too. Beside it a server that does each
//! operation at once: every answer, every errno and every attribute must be the same, and in the end every byte of the two
//! stores.

use super::server::{Server, placed};
use super::{Clock, HASH, ROOT, USER, at};
use crate::base::{Attr, Caller, Errno, Ino, Kind, Name, SetAttr, TimeSet};
use crate::client::tree::{Change, Denied, Known, New, Stamp, Tree, TreeBounds};
use crate::wire::{Done, Expect, Grant, Keep, LeaseMode, MakeFlags, Mutation, Recall, Ticket, WriteFlags};
use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;

const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"a name that does not fit into the entry itself"];
const OTHER: Caller = Caller { uid: 0, gid: 0, pid: 9 };

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }
}

/// What the server said, on its way.
enum Message {
    Attr(Stamp, Attr, Vec<Grant>),
    Name(Stamp, Ino, Name<'static>, Result<Attr, Errno>, Vec<Grant>),
    Listing(Stamp, Ino, u64, crate::server::ops::Listing, Vec<Grant>),
    Target(Ino, Vec<u8>, Vec<Grant>),
}

/// Completed here, not executed at the server yet.
struct Pending {
    change: Change,
    mutation: Mutation<'static>,
    chunk: Option<(u64, u32)>,
}

#[derive(Default)]
struct Counts {
    local: u32,
    asked: u32,
    known: u32,
    unknown: u32,
}

struct World {
    dice: Dice,
    clock: Clock,
    tree: Tree,
    /// Does everything at once.
    plain: Server,
    /// Stands behind the tree.
    behind: Server,
    pending: VecDeque<Pending>,
    inbox: VecDeque<Message>,
    inos: Vec<Ino>,
    next: u64,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let bounds = TreeBounds { inodes_max: if seed.is_multiple_of(3) { 5 } else { 100 }, names_max: 12 };
        Self {
            dice: Dice(seed),
            clock: Clock::default(),
            tree: Tree::new(HASH, bounds),
            plain: Server::new(),
            behind: Server::new(),
            pending: VecDeque::new(),
            inbox: VecDeque::new(),
            inos: vec![ROOT],
            next: 100,
            counts: Counts::default(),
        }
    }

    /// The time goes on, mostly.
    fn change(&mut self) -> Change {
        let mut change = self.clock.next();
        change.at.nanos = u32::try_from(self.dice.roll(1000)).unwrap();
        change.at.secs -= i64::try_from(self.dice.roll(3)).unwrap();
        if self.dice.one_in(4) {
            change.caller = self.dice.pick(&[Caller { uid: 5, gid: 7, pid: 1 }, OTHER]);
        }
        change
    }

    fn ino(&mut self) -> Ino {
        let recent = self.inos.len().saturating_sub(10);
        if self.dice.one_in(4) { ROOT } else { self.dice.pick(&self.inos[recent..]) }
    }

    fn directory(&mut self) -> Ino {
        let ino = self.ino();
        let is_dir = self.plain.attr(ino).is_ok_and(|attr| attr.is_dir());
        if is_dir || self.dice.one_in(8) { ino } else { ROOT }
    }

    fn name(&mut self) -> Name<'static> {
        Name::parse(self.dice.pick(&NAMES)).unwrap()
    }

    fn next_ino(&mut self) -> Ino {
        self.next += 1;
        self.inos.push(Ino(self.next));
        Ino(self.next)
    }

    /// A mutation, with the chunk of a write.
    fn mutation(&mut self) -> (Mutation<'static>, Option<(u64, u32)>) {
        let (parent, name) = (self.directory(), self.name());
        let mutation = match self.dice.roll(20) {
            0..7 => {
                let kinds = [
                    libc::S_IFREG,
                    libc::S_IFDIR,
                    libc::S_IFDIR,
                    libc::S_IFLNK,
                    libc::S_IFIFO,
                    libc::S_IFCHR,
                ];
                let kind = if self.dice.one_in(2) { libc::S_IFREG } else { self.dice.pick(&kinds) };
                let mode = kind | u32::try_from(self.dice.roll(0o10000)).unwrap();
                let target: &[u8] = if kind == libc::S_IFLNK { b"to/somewhere" } else { b"" };
                let target = if self.dice.one_in(20) { b"x\0" } else { target };
                let exclusive = self.dice.one_in(2);
                // A number of its own goes only with a name that is new, as in the client.
                let ino = self.plain.lookup(parent, name).is_err().then(|| self.next_ino());
                let flags = MakeFlags { hold: false, exclusive };
                Mutation::Make { parent, name, mode, umask: 0o026, rdev: 3, target, flags, ino }
            }
            7..10 => Mutation::Unlink { parent, name, ino: None, hold: true },
            10 | 11 => Mutation::Rmdir { parent, name, ino: None, hold: true },
            12..15 => {
                let flags = if self.dice.one_in(3) { u32::try_from(self.dice.roll(8)).unwrap() } else { 0 };
                let (new_parent, new_name) = (self.directory(), self.name());
                // A whiteout takes a number from the server.
                let flags = flags & !libc::RENAME_WHITEOUT;
                let (ino, replaced, hold) = (None, Expect::Any, true);
                Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, hold }
            }
            15 => Mutation::Link { ino: self.ino(), parent, name },
            16 | 17 => Mutation::SetAttr { ino: self.ino(), set: self.set() },
            18 => {
                let ino = self.ino();
                self.next += 1;
                let len = u32::try_from(self.dice.roll(4) * 512).unwrap();
                let flags = WriteFlags { append: self.dice.one_in(2), kill_suidgid: self.dice.one_in(2) };
                let offset = self.dice.roll(6) * 512;
                return (Mutation::Write { ino, offset, flags, data: b"" }, Some((self.next, len)));
            }
            _ if self.dice.one_in(2) => {
                let (ino, kill_sgid) = (self.ino(), false);
                Mutation::SetXattr { ino, name: b"user.a", value: b"v", flags: 0, kill_sgid }
            }
            _ => {
                let value = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x01\0\xff\xff\xff\xff";
                let (name, kill_sgid) = (&b"system.posix_acl_default"[..], false);
                Mutation::SetXattr { ino: parent, name, value, flags: 0, kill_sgid }
            }
        };
        (mutation, None)
    }

    fn set(&mut self) -> SetAttr {
        let mut set = SetAttr::default();
        let mode = u32::try_from(self.dice.roll(0o10000)).unwrap();
        match self.dice.roll(6) {
            0 => set.mode = Some(mode),
            1 => (set.uid, set.gid) = (Some(7), self.dice.one_in(2).then_some(8)),
            2 => set.size = Some(self.dice.roll(8) * 512),
            3 => set.mtime = Some(if self.dice.one_in(2) { TimeSet::Now } else { TimeSet::At(at(5)) }),
            4 => (set.atime, set.mode) = (Some(TimeSet::Now), Some(mode)),
            _ => {}
        }
        set.kill_suidgid = self.dice.one_in(4);
        set
    }

    fn want(
        &self,
        change: &Change,
        mutation: &Mutation<'static>,
        chunk: Option<(u64, u32)>,
    ) -> Result<Done, Errno> {
        let pieces: Vec<_> =
            chunk.filter(|(_, len)| *len > 0).map(|(id, len)| placed(id, len)).into_iter().collect();
        self.plain.run(change.at, change.caller, mutation, &pieces)
    }

    /// One operation of the mount.
    fn mutate(&mut self) {
        let (mutation, chunk) = self.mutation();
        let change = self.change();
        let want = self.want(&change, &mutation, chunk);
        match self.locally(&change, &mutation, chunk, want) {
            Ok(Some(mutation)) => {
                self.counts.local += 1;
                self.pending.push_back(Pending { change, mutation, chunk });
            }
            Ok(None) => self.counts.local += 1,
            Err(Denied::No(errno)) => assert_eq!(want, Err(errno), "{mutation:?}"),
            Err(Denied::Ask) => {
                self.counts.asked += 1;
                self.waited(&change, &mutation, chunk, want);
            }
        }
    }

    /// Tries it in the tree. Gives what goes to the server, if anything.
    fn locally(
        &mut self,
        change: &Change,
        mutation: &Mutation<'static>,
        chunk: Option<(u64, u32)>,
        want: Result<Done, Errno>,
    ) -> Result<Option<Mutation<'static>>, Denied> {
        let tree = &mut self.tree;
        let told = |want: Result<Done, Errno>| want.unwrap_or_else(|errno| panic!("{errno}: {mutation:?}"));
        match *mutation {
            Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino } => {
                let (ino, exclusive) = (ino.unwrap_or(Ino(99)), flags.exclusive);
                let made =
                    tree.make(change, parent, name, &New { ino, mode, umask, rdev, target, exclusive })?;
                assert_eq!(
                    (Some(made.attr), made.existed),
                    (told(want).attr, told(want).existed),
                    "{mutation:?}"
                );
                Ok((!made.existed).then_some(*mutation))
            }
            Mutation::Link { ino, parent, name } => {
                assert_eq!(Some(tree.link(change, ino, parent, name)?), told(want).attr, "{mutation:?}");
                Ok(Some(*mutation))
            }
            Mutation::Unlink { parent, name, hold, .. } => {
                let removed = tree.unlink(change, parent, name)?;
                assert_eq!(removed.orphan.then_some(removed.ino), told(want).orphan);
                Ok(Some(Mutation::Unlink { parent, name, ino: Some(removed.ino), hold }))
            }
            Mutation::Rmdir { parent, name, hold, .. } => {
                let removed = tree.rmdir(change, parent, name)?;
                assert_eq!(removed.orphan.then_some(removed.ino), told(want).orphan);
                Ok(Some(Mutation::Rmdir { parent, name, ino: Some(removed.ino), hold }))
            }
            Mutation::Rename { parent, name, new_parent, new_name, flags, hold, .. } => {
                let renamed = tree.rename(change, (parent, name), (new_parent, new_name), flags)?;
                assert_eq!(renamed.orphan, told(want).orphan);
                let ino = Some(renamed.ino);
                let replaced = renamed.replaced.map_or(Expect::Absent, Expect::Is);
                let record =
                    Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, hold };
                Ok((!renamed.nothing).then_some(record))
            }
            Mutation::SetAttr { ino, set } => {
                assert_eq!(Some(tree.set_attr(change, ino, &set)?), told(want).attr, "{mutation:?}");
                Ok((set != SetAttr::default()).then_some(*mutation))
            }
            Mutation::Write { ino, offset, flags, .. } => {
                let len = u64::from(chunk.map_or(0, |(_, len)| len));
                let written = tree.write(change, ino, offset, len, flags.append, flags.kill_suidgid)?;
                assert_eq!((written.offset, written.bytes), (told(want).offset, told(want).bytes));
                Ok((written.bytes > 0).then_some(*mutation))
            }
            _ => Err(Denied::Ask),
        }
    }

    /// The server does it, after all that was completed before.
    fn waited(
        &mut self,
        change: &Change,
        mutation: &Mutation<'static>,
        chunk: Option<(u64, u32)>,
        want: Result<Done, Errno>,
    ) {
        self.apply(usize::MAX);
        let pieces: Vec<_> =
            chunk.filter(|(_, len)| *len > 0).map(|(id, len)| placed(id, len)).into_iter().collect();
        let done = self.behind.run(change.at, change.caller, mutation, &pieces);
        assert_eq!(done, want, "{mutation:?}");
        let mut touched: Vec<Ino> = Vec::new();
        if let Ok(done) = &done {
            touched.extend(done.attr.map(|attr| attr.ino));
            touched.extend(done.named.iter().flatten());
        }
        let mut names = Vec::new();
        match *mutation {
            Mutation::Make { parent, name, .. } | Mutation::Link { parent, name, .. } => {
                names.push((parent, name))
            }
            Mutation::Unlink { parent, name, .. } | Mutation::Rmdir { parent, name, .. } => {
                names.push((parent, name));
            }
            Mutation::Rename { parent, name, new_parent, new_name, .. } => {
                names.extend([(parent, name), (new_parent, new_name)]);
            }
            Mutation::SetXattr { ino, .. } => touched.push(ino),
            _ => {}
        }
        for &(parent, name) in &names {
            self.tree.forget_name(parent, name);
        }
        for ino in touched {
            self.tree.forget_attr(ino);
        }
        // What was forgotten is asked for again, or nothing would ever be completed here.
        for (parent, name) in names {
            self.send(1, parent, name);
            self.send(0, parent, name);
        }
        if self.dice.one_in(2) {
            self.deliver(usize::MAX);
        }
    }

    /// The server executes the first `count` of what was completed.
    fn apply(&mut self, count: usize) {
        for _ in 0..count.min(self.pending.len()) {
            let Some(Pending { change, mutation, chunk }) = self.pending.pop_front() else { break };
            let pieces: Vec<_> = chunk.map(|(id, len)| placed(id, len)).into_iter().collect();
            let done = self.behind.run(change.at, change.caller, &mutation, &pieces);
            assert!(done.is_ok(), "{done:?}: {mutation:?}");
            if let Mutation::Make { ino: Some(ino), .. } = mutation {
                self.behind.leases.insert(ino, (LeaseMode::Exclusive, 0));
            }
            self.tree.applied(change.ticket);
        }
    }

    fn grants(&mut self, inos: &[Ino]) -> Vec<Grant> {
        let mut grants = Vec::new();
        for &ino in inos {
            let wish = match self.dice.roll(8) {
                0 => continue,
                1 => LeaseMode::Shared,
                _ => LeaseMode::Exclusive,
            };
            grants.extend(self.behind.grant(ino, wish));
        }
        grants
    }

    /// A question goes to the server and is answered there; the answer is on its way.
    fn send(&mut self, question: u64, ino: Ino, name: Name<'static>) {
        let asked = self.tree.stamp();
        let message = match question {
            0 => {
                let Ok(attr) = self.behind.attr(ino) else { return };
                Message::Attr(asked, attr, self.grants(&[ino]))
            }
            1 if !self.tree.should_list_first(ino) => {
                let found = self.behind.lookup(ino, name);
                let child = found.as_ref().ok().map(|attr| attr.ino);
                let granted: Vec<Ino> = [Some(ino), child].into_iter().flatten().collect();
                Message::Name(asked, ino, name, found, self.grants(&granted))
            }
            2 => {
                let Ok(target) = self.behind.read_link(ino) else { return };
                Message::Target(ino, target, self.grants(&[ino]))
            }
            _ => {
                let cookie = self.cookie(ino);
                let bytes = u32::try_from(400 + self.dice.roll(600)).unwrap();
                let Ok(listing) = self.behind.list(ino, cookie, bytes) else { return };
                let mut granted: Vec<Ino> = listing.entries().map(|entry| entry.ino).collect();
                granted.push(ino);
                Message::Listing(asked, ino, cookie, listing, self.grants(&granted))
            }
        };
        self.inbox.push_back(message);
    }

    /// A position in a directory that a listing gave out.
    fn cookie(&mut self, dir: Ino) -> u64 {
        let listing = self.behind.list(dir, 0, 1 << 16);
        let mut cookies: Vec<u64> = listing.iter().flat_map(|l| l.entries().map(|e| e.cookie)).collect();
        cookies.extend([0, 0]);
        self.dice.pick(&cookies)
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count.min(self.inbox.len()) {
            match self.inbox.pop_front() {
                Some(Message::Attr(asked, attr, grants)) => {
                    self.tree.granted(grants);
                    self.tree.learn_attr(asked, &attr);
                }
                Some(Message::Name(asked, parent, name, found, grants)) => {
                    self.tree.granted(grants);
                    match found {
                        Ok(attr) => self.tree.learn_name(asked, parent, name, &attr),
                        Err(Errno::ENOENT) => self.tree.learn_absent(asked, parent, name),
                        Err(_) => {}
                    }
                }
                Some(Message::Listing(asked, dir, cookie, listing, grants)) => {
                    self.tree.granted(grants);
                    let entries: Vec<_> = listing.entries().collect();
                    self.tree.learn_listing(asked, dir, cookie, &entries, listing.is_end());
                }
                Some(Message::Target(ino, target, grants)) => {
                    self.tree.granted(grants);
                    self.tree.learn_target(ino, &target);
                }
                None => break,
            }
        }
    }

    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        found: Known<T>,
        want: Result<T, Errno>,
        what: &str,
    ) {
        let found = match found {
            Known::Yes(found) => Ok(found),
            Known::No(errno) => Err(errno),
            Known::Unknown => {
                self.counts.unknown += 1;
                return;
            }
        };
        self.counts.known += 1;
        assert_eq!(found, want, "{what}");
    }

    /// Everything that the tree says of an inode and a name is what the other server says.
    fn look(&mut self, ino: Ino, name: Name<'static>) {
        let found = self.tree.attr(ino);
        self.compare(found, self.plain.attr(ino), "attr");
        let found = self.tree.lookup(ino, name);
        self.compare(found, self.plain.lookup(ino, name), "lookup");
        let found = match self.tree.read_link(ino) {
            Known::Yes(target) => Known::Yes(target.to_vec()),
            Known::No(errno) => Known::No(errno),
            Known::Unknown => Known::Unknown,
        };
        self.compare(found, self.plain.read_link(ino), "read_link");
        if self.plain.attr(ino).is_ok_and(|attr| attr.is_dir() && attr.nlink > 0) {
            let found = self.tree.parent(ino);
            self.compare(found, self.plain.parent(ino), "parent");
        }
        self.look_at_listing(ino);
    }

    fn look_at_listing(&mut self, dir: Ino) {
        let cookie = self.cookie(dir);
        let stop = usize::try_from(self.dice.roll(4)).unwrap();
        let mut found = Vec::new();
        let end = self.tree.list(dir, cookie, true, &mut |entry| {
            found.push((entry.name.to_vec(), entry.ino, entry.cookie, entry.kind, entry.attr));
            if found.len() > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let want = self.plain.list(dir, cookie, 1 << 16);
        let all: Vec<_> = want.iter().flat_map(|want| want.entries()).collect();
        for (at, (name, ino, cookie, kind, attr)) in found.iter().enumerate() {
            let want = &all[at];
            assert_eq!((&name[..], *ino, *cookie, *kind), (want.name, want.ino, want.cookie, want.kind));
            assert!(attr.is_none() || *attr == want.attr, "{attr:?} {want:?}");
        }
        if end == Known::Yes(true) && found.len() <= stop {
            assert_eq!(found.len(), all.len(), "{dir} after {cookie}: {found:?} {all:?}");
        }
        if let Known::No(errno) = end {
            assert_eq!(want.err(), Some(errno));
        }
    }

    /// The inodes that a mutation of another client needs alone.
    fn needs(&self, mutation: &Mutation<'static>) -> BTreeSet<Ino> {
        let mut needs = BTreeSet::new();
        let mut name = |parent: Ino, name: Name<'static>| {
            needs.insert(parent);
            needs.extend(self.behind.lookup(parent, name).map(|attr| attr.ino));
        };
        match *mutation {
            Mutation::Make { parent, name: text, .. } => name(parent, text),
            Mutation::Unlink { parent, name: text, .. } | Mutation::Rmdir { parent, name: text, .. } => {
                name(parent, text);
            }
            Mutation::Link { ino, parent, name: text } => {
                name(parent, text);
                needs.insert(ino);
            }
            Mutation::Rename { parent, name: text, new_parent, new_name, .. } => {
                name(parent, text);
                name(new_parent, new_name);
            }
            Mutation::SetAttr { ino, .. } | Mutation::Write { ino, .. } | Mutation::SetXattr { ino, .. } => {
                needs.insert(ino);
            }
            _ => {}
        }
        needs
    }

    /// Another client changes something: the mount gives back what that needs, and goes on meanwhile.
    fn other(&mut self) {
        let (mutation, chunk) = self.mutation();
        if self.needs(&mutation).iter().any(|ino| self.behind.attr(*ino).is_err()) {
            // Nobody else knows of it before the server does.
            self.apply(usize::MAX);
        }
        let mut waits = 0;
        loop {
            let conflicts: Vec<Ino> = self
                .needs(&mutation)
                .into_iter()
                .filter(|ino| self.behind.leases.contains_key(ino))
                .collect();
            if conflicts.is_empty() {
                break;
            }
            waits += 1;
            assert!(waits < 50, "a recall comes to no end: {mutation:?}");
            self.recall(&conflicts, Keep::Nothing);
        }
        let change = Change { caller: OTHER, ..self.change() };
        let mutation = match mutation {
            // The name may be taken by now.
            Mutation::Make { parent, name, mode, umask, rdev, target, flags, .. } => {
                let ino = self.plain.lookup(parent, name).is_err().then(|| self.next_ino());
                Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino }
            }
            other => other,
        };
        let want = self.want(&change, &mutation, chunk);
        let pieces: Vec<_> =
            chunk.filter(|(_, len)| *len > 0).map(|(id, len)| placed(id, len)).into_iter().collect();
        let done = self.behind.run(change.at, change.caller, &mutation, &pieces);
        assert_eq!(done, want, "another client: {mutation:?}");
    }

    fn recall(&mut self, inos: &[Ino], keep: Keep) {
        self.deliver(usize::MAX);
        for &ino in inos {
            let number = self.behind.leases.get(&ino).map_or(0, |(_, number)| *number);
            self.tree.recall_begin(&Recall { ino, keep, number });
            assert!(!self.tree.may_cache(ino));
        }
        if self.dice.one_in(2) {
            self.mutate();
        }
        let last = self.tree.recall_stop(inos);
        if self.dice.one_in(2) {
            self.mutate();
        }
        while last.is_some_and(|last| self.pending.front().is_some_and(|first| first.change.ticket <= last)) {
            self.apply(1);
        }
        for returned in self.tree.recall_finish(inos, |_| false) {
            self.behind.returned(&returned);
        }
    }

    /// The mount asks for all it may want to know of a directory, and waits for it.
    fn study(&mut self) {
        let dir = self.directory();
        self.apply(usize::MAX);
        let asked = self.tree.stamp();
        let Ok(listing) = self.behind.list(dir, 0, 1 << 16) else { return };
        let mut inos: Vec<Ino> = listing.entries().map(|entry| entry.ino).collect();
        inos.push(dir);
        let grants: Vec<Grant> =
            inos.iter().filter_map(|ino| self.behind.grant(*ino, LeaseMode::Exclusive)).collect();
        self.inbox.push_back(Message::Listing(asked, dir, 0, listing, grants));
        self.send(0, dir, Name::parse(b"a").unwrap());
        self.deliver(usize::MAX);
    }

    fn step(&mut self) {
        match self.dice.roll(80) {
            0..40 => self.mutate(),
            40..46 => self.study(),
            46..54 => {
                let (ino, name, question) = (self.directory(), self.name(), self.dice.roll(4));
                let known = self.tree.last_ticket(ino).is_none();
                if known || self.dice.one_in(2) {
                    self.send(question, ino, name);
                }
            }
            54..58 => {
                let ino = self.ino();
                self.send(0, ino, Name::parse(b"a").unwrap());
            }
            58..65 => {
                let count = usize::try_from(self.dice.roll(4)).unwrap();
                self.deliver(count);
            }
            65..72 => {
                let count = usize::try_from(self.dice.roll(4)).unwrap();
                self.apply(count);
            }
            72 | 73 => self.other(),
            74 | 75 => {
                let ino = self.ino();
                let keep = if self.dice.one_in(2) { Keep::Shared } else { Keep::Nothing };
                self.recall(&[ino], keep);
            }
            76 => {
                let seed = self.dice.roll(u64::MAX);
                // The lookup counts of the kernel say so.
                for returned in self.tree.trim(|ino| ino.0.wrapping_mul(seed) % 3 == 0) {
                    self.behind.returned(&returned);
                }
            }
            77 if self.dice.one_in(4) => {
                // The server began anew: what was completed is replayed before anything else is done.
                let _gone = self.tree.drop_leases();
                self.behind.leases.clear();
                self.inbox.clear();
                self.apply(usize::MAX);
            }
            _ => {}
        }
        let (ino, name) = (self.ino(), self.name());
        self.look(ino, name);
    }

    fn finish(&mut self) {
        self.apply(usize::MAX);
        for at in 0..self.inos.len() {
            let name = self.name();
            self.look(self.inos[at], name);
        }
        assert_eq!(self.behind.dump(), self.plain.dump());
    }
}

fn run(seeds: std::ops::Range<u64>, steps: u32) -> Counts {
    let mut sum = Counts::default();
    for seed in seeds {
        let told = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..steps {
                world.step();
            }
            world.finish();
            world.counts
        });
        let Ok(counts) = told else { panic!("seed {seed}") };
        sum.local += counts.local;
        sum.asked += counts.asked;
        sum.known += counts.known;
        sum.unknown += counts.unknown;
    }
    sum
}

#[test]
fn what_is_completed_here_is_what_the_server_would_have_done() {
    let counts = run(0..300, 80);
    // The test would see nothing if the tree always asked.
    assert!(counts.local > counts.asked / 4, "{} of {}", counts.local, counts.asked);
    assert!(counts.known > counts.unknown / 4, "{} of {}", counts.known, counts.unknown);
}
