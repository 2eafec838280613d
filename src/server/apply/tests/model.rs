//! Random mutations and questions on a volume and on the reference, answer by answer; every batch is delivered twice.

use super::reference::{Content, Id, Made, Node, Plan, Reference, Who};
use super::rig::{ROOT, Rig, name, waited};
use crate::base::{Attr, Caller, Errno, Ino};
use crate::server::apply::Found;
use crate::server::fsck;
use crate::server::store::{Store, StoreOptions};
use crate::wire::{Done, Expect, MakeFlags, Mutation, Outcome, Query, SeekTo, SetAttr, WriteFlags};
use proptest::prelude::{Strategy, any, prop, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::collections::BTreeMap;

const KINDS: [u32; 4] = [libc::S_IFREG, libc::S_IFDIR, libc::S_IFLNK, libc::S_IFIFO];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const XATTRS: [&str; 3] = ["user.a", "user.b", "trusted.c"];

/// Chooses a node. `wild` says whether any kind will do, in one case of eight.
#[derive(Clone, Debug)]
struct Pick {
    index: Index,
    wild: u8,
}

/// Operations meet: mostly they get the kind of node they are for, and names that exist.
#[derive(Clone, Debug)]
enum Op {
    Make { dir: Pick, name: &'static str, kind: u32, mode: u32, umask: u32, exclusive: bool, hold: bool },
    Tmpfile { dir: Pick, mode: u32 },
    Link { node: Pick, dir: Pick, name: &'static str },
    Unlink { dir: Pick, name: &'static str, wrong: bool },
    Rename { dir: Pick, name: &'static str, to: Pick, new: &'static str, flags: u32 },
    Chmod { node: Pick, mode: u32 },
    Chown { node: Pick, uid: u32, gid: u32 },
    Truncate { node: Pick, size: u16 },
    Write { node: Pick, offset: u16, len: u16, append: bool, kill: bool },
    Allocate { node: Pick, zero: bool, keep: bool, offset: u16, len: u16 },
    Copy { source: Pick, from: u16, target: Pick, to: u16, len: u16 },
    SetXattr { node: Pick, key: &'static str, value: u8, flags: u32 },
    RemoveXattr { node: Pick, key: &'static str },
    Hold { node: Pick },
    Release { node: Pick },
    Become { uid: u32, gid: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let node = || (any::<Index>(), 0..8u8).prop_map(|(index, wild)| Pick { index, wild });
    let name = || select(&NAMES[..]);
    let key = || select(&XATTRS[..]);
    let offset = || 0..3000u16;
    let len = || prop_oneof![1 => 0..2u16, 6 => 0..1500u16];
    let perm = || prop_oneof![3 => 0..0o1000u32, 1 => 0..0o10000u32];
    let flags = prop_oneof![4 => 0..1u32, 3 => 0..8u32];
    let bools = any::<(bool, bool)>;
    prop_oneof![
        10 => (node(), name(), select(&KINDS[..]), perm(), 0..0o100u32, bools()).prop_map(
            |(dir, name, kind, mode, umask, (exclusive, hold))| {
                Op::Make { dir, name, kind, mode, umask, exclusive, hold }
            }
        ),
        1 => (node(), perm()).prop_map(|(dir, mode)| Op::Tmpfile { dir, mode }),
        3 => (node(), node(), name()).prop_map(|(node, dir, name)| Op::Link { node, dir, name }),
        4 => (node(), name(), prop::bool::weighted(0.2))
            .prop_map(|(dir, name, wrong)| Op::Unlink { dir, name, wrong }),
        8 => (node(), name(), node(), name(), flags)
            .prop_map(|(dir, name, to, new, flags)| Op::Rename { dir, name, to, new, flags }),
        2 => (node(), perm()).prop_map(|(node, mode)| Op::Chmod { node, mode }),
        1 => (node(), 0..3u32, 0..3u32).prop_map(|(node, uid, gid)| Op::Chown { node, uid, gid }),
        3 => (node(), offset()).prop_map(|(node, size)| Op::Truncate { node, size }),
        8 => (node(), offset(), len(), bools())
            .prop_map(|(node, offset, len, (append, kill))| Op::Write { node, offset, len, append, kill }),
        3 => (node(), bools(), offset(), len())
            .prop_map(|(node, (zero, keep), offset, len)| Op::Allocate { node, zero, keep, offset, len }),
        4 => (node(), offset(), node(), offset(), len())
            .prop_map(|(source, from, target, to, len)| Op::Copy { source, from, target, to, len }),
        2 => (node(), key(), any::<u8>(), 0..3u32)
            .prop_map(|(node, key, value, flags)| Op::SetXattr { node, key, value, flags }),
        1 => (node(), key()).prop_map(|(node, key)| Op::RemoveXattr { node, key }),
        1 => node().prop_map(|node| Op::Hold { node }),
        3 => node().prop_map(|node| Op::Release { node }),
        1 => select(&[(0, 0), (1000, 1), (1000, 2)][..]).prop_map(|(uid, gid)| Op::Become { uid, gid }),
    ]
}

/// Both file systems, and which node is which inode.
struct Pair {
    rig: Rig,
    reference: Reference,
    inos: Vec<Ino>,
    /// What the inode looked like at the last comparison, and the reference's counts then.
    seen: BTreeMap<Id, (Attr, u64, u64)>,
    who: Who,
    writes: u8,
}

impl Pair {
    fn new(rig: Rig) -> Self {
        let (inos, seen) = (vec![ROOT], BTreeMap::new());
        Self { rig, reference: Reference::new(), inos, seen, who: Who { uid: 0, gid: 0 }, writes: 0 }
    }

    /// Any node that ever was.
    fn id(&self, pick: &Pick) -> Id {
        pick.index.index(self.inos.len())
    }

    fn choose(&self, pick: &Pick, wanted: impl Fn(&Content) -> bool) -> Id {
        let good = |id: &Id| self.reference.get(*id).is_ok_and(|node| wanted(&node.content));
        let ids: Vec<Id> = (0..self.inos.len()).filter(good).collect();
        if pick.wild == 0 || ids.is_empty() { self.id(pick) } else { *pick.index.get(&ids) }
    }

    fn dir(&self, pick: &Pick) -> Id {
        self.choose(pick, |content| matches!(content, Content::Dir(_)))
    }

    fn file(&self, pick: &Pick) -> Id {
        self.choose(pick, |content| matches!(content, Content::File(_)))
    }

    /// A name that exists, in three cases of four.
    fn entry(&self, pick: &Pick, text: &'static str) -> (Id, String) {
        let mut entries = Vec::new();
        for id in 0..self.inos.len() {
            if let Ok(Node { content: Content::Dir(names), .. }) = self.reference.get(id) {
                entries.extend(names.keys().map(|name| (id, name.clone())));
            }
        }
        if pick.wild < 2 || entries.is_empty() {
            return (self.dir(pick), text.into());
        }
        pick.index.get(&entries).clone()
    }

    /// Delivers one mutation twice: the answers must be the same bytes.
    fn run(&self, mutation: &Mutation<'_>) -> Result<Done, Errno> {
        let (body, payload) = self.rig.batch(mutation);
        let apply =
            || self.rig.volume.apply(self.rig.session, &body, &payload, self.rig.last_ticket()).unwrap();
        let first = apply();
        assert_eq!(first, apply(), "a replay of {mutation:?}");
        let found: Vec<Outcome> = waited(&first);
        found[0].result
    }

    /// A node that only the reference knows the number of: the volume says its inode.
    fn made(&mut self, id: Id, attr: Option<Attr>) {
        assert_eq!(id, self.inos.len());
        self.inos.push(attr.expect("attributes of what was made").ino);
    }

    fn apply(&mut self, op: &Op) {
        // A clock that stands still, goes, and goes backwards.
        match self.rig.last_ticket() % 3 {
            0 => self.rig.advance(30),
            1 => self.rig.set_back(20),
            _ => {}
        }
        match op {
            Op::Make { dir, name: text, kind, mode, umask, exclusive, hold } => {
                let dir = self.dir(dir);
                let plan = Plan { mode: kind | mode, umask: *umask, exclusive: *exclusive, hold: *hold };
                let flags = MakeFlags { hold: *hold, exclusive: *exclusive };
                let target: &[u8] = if *kind == libc::S_IFLNK { b"target" } else { b"" };
                let (parent, name) = (self.inos[dir], name(text));
                let make = Mutation::Make {
                    parent,
                    name,
                    mode: plan.mode,
                    umask: *umask,
                    rdev: 0,
                    target,
                    flags,
                    ino: None,
                };
                let done = self.run(&make);
                let expected = self.reference.make(dir, text, self.who, plan);
                assert_eq!(done.map(|done| done.existed), expected.map(|made| matches!(made, Made::Old(_))));
                match expected {
                    Ok(Made::New(id)) => self.made(id, done.unwrap().attr),
                    Ok(Made::Old(id)) => assert_eq!(done.unwrap().attr.unwrap().ino, self.inos[id]),
                    Err(_) => {}
                }
            }
            Op::Tmpfile { dir, mode } => {
                let dir = self.dir(dir);
                let done = self.run(&Mutation::Tmpfile { parent: self.inos[dir], mode: *mode, umask: 0 });
                let expected = self.reference.tmpfile(dir, self.who, *mode);
                assert_eq!(done.map(drop), expected.map(drop));
                if let Ok(id) = expected {
                    self.made(id, done.unwrap().attr);
                }
            }
            Op::Rename { dir, name: text, to, new, flags } => {
                let from = self.entry(dir, text);
                // Over something in one half of the cases.
                let to = if to.wild % 2 == 0 { self.entry(to, new) } else { (self.dir(to), (*new).into()) };
                self.rename((from.0, &from.1), (to.0, &to.1), *flags);
            }
            Op::Become { uid, gid } => {
                self.who = Who { uid: *uid, gid: *gid };
                self.rig.caller.set(Caller { uid: *uid, gid: *gid, pid: 1 });
            }
            Op::Hold { node } => {
                let id = self.id(node);
                let found = self.rig.ask(&Query::Hold { ino: self.inos[id] });
                assert_eq!(found.map(drop), self.reference.hold(id));
            }
            Op::Release { node } => {
                let id = self.id(node);
                self.rig.release(&[self.inos[id]]);
                self.reference.release(id);
            }
            _ if self.apply_to_names(op) || self.apply_to_attributes(op) => {}
            _ => self.apply_to_data(op),
        }
    }

    fn apply_to_names(&mut self, op: &Op) -> bool {
        match op {
            Op::Link { node, dir, name: text } => {
                let (id, dir) = (self.file(node), self.dir(dir));
                let link = Mutation::Link { ino: self.inos[id], parent: self.inos[dir], name: name(text) };
                let done = self.run(&link);
                assert_eq!(done.map(drop), self.reference.link(id, dir, text));
            }
            Op::Unlink { dir, name: text, wrong } => {
                let (dir, text) = self.entry(dir, text);
                // Mostly the right call for what the name stands for.
                let is_dir = self.reference.names_a_dir(dir, &text);
                let directory = if *wrong { !is_dir } else { is_dir };
                let (parent, name) = (self.inos[dir], name(&text));
                let done = if directory {
                    self.run(&Mutation::Rmdir { parent, name, ino: None, hold: true })
                } else {
                    self.run(&Mutation::Unlink { parent, name, ino: None, hold: true })
                };
                let held = self.reference.held.clone();
                let expected = self.reference.unlink(dir, &text, directory);
                assert_eq!(done.map(drop), expected);
                if let Some(ino) = done.ok().and_then(|done| done.orphan) {
                    let id = self.inos.iter().position(|known| *known == ino).unwrap();
                    assert_eq!(self.reference.nlink(id), 0);
                } else {
                    assert_eq!(self.reference.held, held, "an orphan was not told");
                }
            }
            _ => return false,
        }
        true
    }

    fn rename(&mut self, from: (Id, &str), to: (Id, &str), flags: u32) {
        let (dir, new_dir) = (from.0, to.0);
        let before = self.reference.nodes.len();
        let rename = Mutation::Rename {
            parent: self.inos[dir],
            name: name(from.1),
            new_parent: self.inos[new_dir],
            new_name: name(to.1),
            flags,
            ino: None,
            replaced: Expect::Any,
            hold: true,
        };
        let done = self.run(&rename);
        let expected = self.reference.rename((dir, from.1), (new_dir, to.1), flags, self.who);
        assert_eq!(done.map(drop), expected);
        if self.reference.nodes.len() > before {
            let left = self.rig.lookup(self.inos[dir], from.1).expect("the whiteout");
            self.made(before, Some(left));
        }
    }

    fn apply_to_attributes(&mut self, op: &Op) -> bool {
        match op {
            Op::Chmod { node, mode } => {
                let id = self.id(node);
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                let done = self.run(&Mutation::SetAttr { ino: self.inos[id], set });
                assert_eq!(done.map(drop), self.reference.chmod(id, *mode));
            }
            Op::Chown { node, uid, gid } => {
                let id = self.id(node);
                let set = SetAttr { uid: Some(*uid), gid: Some(*gid), ..SetAttr::default() };
                let done = self.run(&Mutation::SetAttr { ino: self.inos[id], set });
                assert_eq!(done.map(drop), self.reference.chown(id, *uid, *gid, self.who));
            }
            Op::SetXattr { node, key, value, flags } => {
                let id = self.id(node);
                let (name, value, flags) = (key.as_bytes(), &[*value][..], *flags);
                let set = Mutation::SetXattr { ino: self.inos[id], name, value, flags, kill_sgid: false };
                let done = self.run(&set);
                assert_eq!(done.map(drop), self.reference.set_xattr(id, key, value, flags));
            }
            Op::RemoveXattr { node, key } => {
                let id = self.id(node);
                let done = self.run(&Mutation::RemoveXattr { ino: self.inos[id], name: key.as_bytes() });
                assert_eq!(done.map(drop), self.reference.remove_xattr(id, key));
            }
            _ => return false,
        }
        true
    }

    fn apply_to_data(&mut self, op: &Op) {
        match op {
            Op::Truncate { node, size } => {
                let id = self.file(node);
                let set = SetAttr { size: Some(u64::from(*size)), ..SetAttr::default() };
                let done = self.run(&Mutation::SetAttr { ino: self.inos[id], set });
                assert_eq!(done.map(drop), self.reference.truncate(id, usize::from(*size)));
            }
            Op::Write { node, offset, len, append, kill } => {
                let id = self.file(node);
                self.writes = self.writes % 255 + 1;
                let data = vec![self.writes; usize::from(*len)];
                let flags = WriteFlags { append: *append, kill_suidgid: *kill };
                let (ino, offset) = (self.inos[id], u64::from(*offset));
                let done = self.run(&Mutation::Write { ino, offset, flags, data: &data });
                let at = (!append).then(|| usize::try_from(offset).unwrap());
                let expected = self.reference.write(id, at, &data, kill.then_some(self.who));
                assert_eq!(done.map(|done| done.offset), expected.map(|at| at as u64));
                assert!(done.is_err() || done.unwrap().bytes == data.len() as u64);
            }
            Op::Allocate { node, zero, keep, offset, len } => {
                let id = self.file(node);
                let mode = match (zero, keep) {
                    (false, false) => 0,
                    (false, true) => libc::FALLOC_FL_KEEP_SIZE,
                    (true, false) => libc::FALLOC_FL_ZERO_RANGE,
                    (true, true) => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                };
                let (offset, len) = (u64::from(*offset), u64::from(*len));
                let mode = mode.cast_unsigned();
                let done = self.run(&Mutation::Allocate { ino: self.inos[id], mode, offset, len });
                let (at, len) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
                assert_eq!(done.map(drop), self.reference.allocate(id, (*zero, *keep), at, len, self.who));
            }
            Op::Copy { source, from, target, to, len } => {
                let (source, target) = (self.file(source), self.file(target));
                let copy = Mutation::Copy {
                    source: self.inos[source],
                    source_offset: u64::from(*from),
                    target: self.inos[target],
                    target_offset: u64::from(*to),
                    len: u64::from(*len),
                };
                let done = self.run(&copy);
                let (from, to) = ((source, usize::from(*from)), (target, usize::from(*to)));
                let expected = self.reference.copy(from, to, usize::from(*len), self.who);
                assert_eq!(done.map(|done| done.bytes), expected.map(|bytes| bytes as u64));
            }
            other => panic!("{other:?} belongs elsewhere"),
        }
    }

    /// Attributes of everything, and that times moved exactly where something changed.
    fn compare(&mut self) {
        for id in 0..self.inos.len() {
            let attr = self.rig.attr(self.inos[id]);
            let node = match self.reference.get(id) {
                Ok(node) => node,
                Err(errno) => {
                    assert_eq!(attr, Err(errno), "node {id}");
                    continue;
                }
            };
            let attr = attr.unwrap_or_else(|errno| panic!("node {id}: {errno}"));
            assert_eq!(attr.mode, node.mode, "mode of {id}: {:o} {:o}", attr.mode, node.mode);
            assert_eq!((attr.uid, attr.gid), (node.uid, node.gid), "owner of {id}");
            assert_eq!(attr.nlink as usize, self.reference.nlink(id), "links of {id}");
            assert_eq!(attr.size, self.reference.size(id) as u64, "size of {id}");
            if let Some((before, changes, contents)) = self.seen.get(&id) {
                assert_eq!(attr.ctime > before.ctime, node.changes > *changes, "ctime of {id}");
                assert_eq!(attr.mtime > before.mtime, node.contents > *contents, "mtime of {id}");
                assert!(attr.ctime >= before.ctime && attr.btime == before.btime);
            }
            self.seen.insert(id, (attr, node.changes, node.contents));
        }
    }

    /// Names, bytes and extended attributes of everything.
    fn compare_deep(&self) {
        for id in 0..self.inos.len() {
            let (ino, Ok(node)) = (self.inos[id], self.reference.get(id)) else { continue };
            match &node.content {
                Content::Dir(entries) => {
                    let found: BTreeMap<String, Ino> =
                        self.rig.names(ino, 400).into_iter().map(|(name, ino, _)| (name, ino)).collect();
                    let expected: BTreeMap<String, Ino> =
                        entries.iter().map(|(name, &id)| (name.clone(), self.inos[id])).collect();
                    assert_eq!(found, expected, "names of {id}");
                    for (name, &ino) in &expected {
                        assert_eq!(self.rig.lookup(self.inos[id], name).unwrap().ino, ino);
                    }
                }
                Content::File(data) => self.compare_data(ino, data),
                Content::Link | Content::Special => {}
            }
            self.compare_xattrs(ino, node);
        }
    }

    fn compare_data(&self, ino: Ino, data: &[u8]) {
        let found = self.rig.read(ino, 0, 1 << 16).unwrap();
        assert!(found == data, "bytes of {ino}: {found:?}, expected {data:?}");
        let middle = data.len() as u64 / 2;
        assert_eq!(
            self.rig.read(ino, middle, 7).unwrap(),
            data[data.len() / 2..].get(..7).unwrap_or(&data[data.len() / 2..])
        );
        // Whatever is told a hole must read as zeros, and all bytes that are not zero must be told data.
        let (mut at, end) = (0, data.len() as u64);
        while at < end {
            let seek = |to| match self.rig.ask(&Query::Seek { ino, offset: at, to }) {
                Ok(Found::Offset(offset)) => offset,
                Err(Errno::ENXIO) => end,
                other => panic!("{other:?}"),
            };
            let (next, hole) = (seek(SeekTo::Data), seek(SeekTo::Hole));
            assert!(next == at || hole == at, "{at} of {ino} is neither data nor hole");
            let index = |offset: u64| usize::try_from(offset).unwrap();
            assert!(data[index(at)..index(next)].iter().all(|&byte| byte == 0), "data in a hole of {ino}");
            at = next.max(hole);
        }
    }

    fn compare_xattrs(&self, ino: Ino, node: &Node) {
        let Ok(Found::Bytes(list)) = self.rig.ask(&Query::ListXattr { ino }) else { panic!("no list") };
        let found: Vec<&[u8]> = list.split(|&b| b == 0).filter(|name| !name.is_empty()).collect();
        let mut expected: Vec<&[u8]> = node.xattrs.keys().map(|key| key.as_bytes()).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        for (key, value) in &node.xattrs {
            assert_eq!(self.rig.getxattr(ino, key).as_ref(), Ok(value));
        }
    }

    fn check(&self) {
        self.compare_deep();
        let living = self.reference.nodes.iter().flatten().count() as u64;
        assert_eq!(self.rig.volume.usage().unwrap().inodes, living);
        let options = fsck::Options { verify_data: true, ..fsck::Options::default() };
        let report = fsck::check(self.rig.volume.store(), options).unwrap();
        assert!(report.is_clean(), "{:?}", report.problems);
    }
}

fn run(ops: &[Op], store: Store) -> Pair {
    let mut pair = Pair::new(Rig::over(store));
    for (i, op) in ops.iter().enumerate() {
        pair.apply(op);
        pair.compare();
        if i % 16 == 15 {
            pair.compare_deep();
        }
    }
    pair.check();
    pair
}

fn many(cases: u32, ops: usize, test: impl Fn(&[Op])) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let all = prop::collection::vec(op(), 1..ops);
    let result = runner.run(&all, |ops| {
        test(&ops);
        Ok::<(), TestCaseError>(())
    });
    if let Err(why) = result {
        panic!("{why}");
    }
}

#[test]
fn a_volume_in_memory_answers_as_the_reference() {
    many(300, 120, |ops| drop(run(ops, Store::memory().unwrap())));
}

#[test]
fn a_volume_in_a_folder_answers_as_the_reference_also_after_a_restart() {
    many(6, 80, |ops| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let open = || Store::open(&path, &StoreOptions::new(super::rig::START, (0, 0))).unwrap();
        let before = run(ops, open());
        let Pair { rig, reference, inos, .. } = before;
        rig.volume.close().unwrap();
        drop(rig);
        let rig = Rig::in_grace(open());
        let held: Vec<Ino> = reference.held.iter().map(|&id| inos[id]).collect();
        assert_eq!(rig.volume.reassert(rig.session, &held), Ok(true));
        rig.volume.end_grace();
        rig.volume.wait_reaped();
        let seen = BTreeMap::new();
        let mut after = Pair { rig, reference, inos, seen, who: Who { uid: 0, gid: 0 }, writes: 0 };
        after.compare();
        after.check();
    });
}
