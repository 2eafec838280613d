//! The reference: one store, no clients, no network. It receives every operation at the moment at which it takes effect, and
//! remembers all, so that what is lost with a client can be taken out again.

use ringfs::base::{Attr, Caller, ChunkId, ChunkPlace, Errno, Ino, NameHash, SegmentId, Time};
use ringfs::server::meta::memory::MemoryEngine;
use ringfs::server::meta::{Inode, View, WriteTxn, counters, inodes, superblock};
use ringfs::server::ops::{self, Env, Placed, Stop, Try};
use ringfs::wire::{Done, Mutation};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// A question, and what is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    Name(Ino, &'static str),
    Attr(Ino),
    List(Ino),
    Read(Ino),
}

/// What a question was answered.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Seen {
    Attr(Attr),
    /// Names and what they stand for.
    Names(BTreeMap<Vec<u8>, Ino>),
    Bytes(Vec<u8>),
}

/// A mutation that took effect.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) session: u128,
    pub(super) ticket: u64,
    pub(super) at: Time,
    pub(super) caller: Caller,
    pub(super) mutation: Mutation<'static>,
    pub(super) result: Result<Done, Errno>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few hundred of them")]
enum Entry {
    Act(Act),
    Look { session: u128, look: Look, seen: Result<Seen, Errno> },
}

pub(super) struct Model {
    hash: NameHash,
    engine: MemoryEngine,
    entries: Vec<Entry>,
    contents: BTreeMap<Ino, Vec<u8>>,
    chunk: u64,
}

pub(super) const FIRST: Time = Time { secs: 1000, nanos: 0 };

fn errno(stop: Stop) -> Errno {
    match stop {
        Stop::No(errno) => errno,
        Stop::Fault(fault) => panic!("{fault}"),
    }
}

/// Writes an empty volume.
pub(super) fn format(txn: &mut WriteTxn<'_>, hash: &NameHash) {
    superblock::put(txn, &superblock::Superblock::new([7; 16], hash.key(), FIRST));
    inodes::put(txn, &Inode::new(Ino::ROOT, libc::S_IFDIR | 0o755, (0, 0), Ino::ROOT, FIRST));
    counters::put_usage(txn, counters::Usage { inodes: 1, bytes: 0 });
}

impl Model {
    pub(super) fn new(hash: NameHash) -> Self {
        let mut model = Self {
            hash,
            engine: MemoryEngine::new(),
            entries: Vec::new(),
            contents: BTreeMap::new(),
            chunk: 0,
        };
        model.clear();
        model
    }

    fn clear(&mut self) {
        self.engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&self.engine);
        format(&mut txn, &self.hash);
        txn.commit().unwrap();
        self.contents.clear();
    }

    pub(super) fn view(&self) -> &dyn View {
        &self.engine
    }

    /// What would come of a mutation; nothing is changed.
    pub(super) fn would(&self, at: Time, caller: Caller, mutation: &Mutation<'_>) -> Result<Done, Errno> {
        self.try_it(at, caller, mutation, false)
    }

    fn try_it(&self, at: Time, caller: Caller, mutation: &Mutation<'_>, commit: bool) -> Result<Done, Errno> {
        let mut txn = WriteTxn::new(&self.engine);
        let placed = match mutation {
            Mutation::Write { data, .. } if !data.is_empty() => {
                let len = u32::try_from(data.len()).unwrap();
                let position = u32::try_from(self.chunk).unwrap();
                let place = ChunkPlace { segment: SegmentId(1), position, len };
                vec![Placed { chunk: ChunkId(self.chunk + 1), place }]
            }
            _ => Vec::new(),
        };
        let env = Env { hash: self.hash, now: at, caller, unheld: false };
        let done = ops::mutate(&mut txn, &env, mutation, &placed).map_err(errno)?;
        if commit {
            txn.commit().unwrap();
        }
        Ok(done)
    }

    fn run(&mut self, at: Time, caller: Caller, mutation: &Mutation<'_>) -> Result<Done, Errno> {
        let done = self.try_it(at, caller, mutation, true);
        self.chunk += 1;
        match (mutation, &done) {
            (Mutation::Write { ino, data, .. }, Ok(done)) if done.bytes > 0 => {
                let content = self.contents.entry(*ino).or_default();
                let (start, count) =
                    (usize::try_from(done.offset).unwrap(), usize::try_from(done.bytes).unwrap());
                if content.len() < start + count {
                    content.resize(start + count, 0);
                }
                content[start..start + count].copy_from_slice(&data[..count]);
            }
            (Mutation::SetAttr { ino, set }, Ok(_)) => {
                if let Some(size) = set.size {
                    self.contents.entry(*ino).or_default().resize(usize::try_from(size).unwrap(), 0);
                }
            }
            _ => {}
        }
        done
    }

    /// A mutation takes effect now. Gives what comes of it here.
    pub(super) fn act(&mut self, act: Act) -> Result<Done, Errno> {
        let result = self.run(act.at, act.caller, &act.mutation);
        self.entries.push(Entry::Act(Act { result, ..act }));
        result
    }

    /// What a question is to be answered now.
    pub(super) fn look(&self, look: Look) -> Result<Seen, Errno> {
        look_at(&self.engine, &self.hash, look, &|ino| self.contents.get(&ino).cloned().unwrap_or_default())
    }

    /// Notes that a question was answered so.
    pub(super) fn looked(&mut self, session: u128, look: Look, seen: Result<Seen, Errno>) {
        self.entries.push(Entry::Look { session, look, seen });
    }

    /// Takes out what `lost` says, and everything that this session was told. What all others were told must stay true; says what
    /// did not.
    pub(super) fn take_out(&mut self, session: u128, lost: impl Fn(&Act) -> bool) -> Result<usize, String> {
        let before = self.entries.len();
        self.entries.retain(|entry| match entry {
            Entry::Act(act) => act.session != session || !lost(act),
            Entry::Look { session: whose, .. } => *whose != session,
        });
        let count = before - self.entries.len();
        self.fold()?;
        Ok(count)
    }

    /// Takes out one that nobody was told of. Says what is not true without it.
    pub(super) fn take_back(&mut self, session: u128, ticket: u64) -> Result<(), String> {
        self.entries.retain(
            |entry| !matches!(entry, Entry::Act(act) if (act.session, act.ticket) == (session, ticket)),
        );
        self.fold()
    }

    /// A waited mutation was done anew, at another time.
    pub(super) fn again(&mut self, session: u128, ticket: u64, at: Time) -> Result<(), String> {
        for entry in &mut self.entries {
            if let Entry::Act(act) = entry
                && (act.session, act.ticket) == (session, ticket)
            {
                act.at = at;
            }
        }
        // Times have changed: what was seen of them before the loss is not what is there now.
        self.entries.retain(|entry| matches!(entry, Entry::Act(_)));
        self.clear();
        for at in 0..self.entries.len() {
            let Entry::Act(act) = self.entries[at].clone() else { continue };
            let result = self.run(act.at, act.caller, &act.mutation);
            if result.is_ok() != act.result.is_ok() {
                return Err(format!("done again it is {result:?}: {act:?}"));
            }
            let Entry::Act(kept) = &mut self.entries[at] else { continue };
            kept.result = result;
        }
        Ok(())
    }

    fn fold(&mut self) -> Result<(), String> {
        self.clear();
        let entries = std::mem::take(&mut self.entries);
        let mut wrong = None;
        for entry in &entries {
            match entry {
                Entry::Act(act) => {
                    let result = self.run(act.at, act.caller, &act.mutation);
                    if result != act.result && wrong.is_none() {
                        wrong = Some(format!("without what was lost it is {result:?}: {act:?}"));
                    }
                }
                Entry::Look { session, look, seen } => {
                    let now = self.look(*look);
                    if now != *seen && wrong.is_none() {
                        wrong =
                            Some(format!("{session:x} saw what was lost: {look:?}: {seen:?}, now {now:?}"));
                    }
                }
            }
        }
        self.entries = entries;
        wrong.map_or(Ok(()), Err)
    }

    pub(super) fn acts(&self) -> impl Iterator<Item = &Act> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Act(act) => Some(act),
            Entry::Look { .. } => None,
        })
    }

    pub(super) fn attr(&self, ino: Ino) -> Option<Attr> {
        ops::attr(&self.engine, ino).ok()
    }

    /// Inodes with a name, and directories among them.
    pub(super) fn living(&self) -> (Vec<Ino>, Vec<Ino>) {
        let (mut all, mut dirs) = (Vec::new(), Vec::new());
        let seen = inodes::each(&self.engine, Ino(0), &mut |inode| {
            if let Ok(inode) = inode
                && inode.nlink > 0
            {
                all.push(inode.ino);
                if inode.is_dir() {
                    dirs.push(inode.ino);
                }
            }
            ControlFlow::Continue(())
        });
        seen.unwrap();
        (all, dirs)
    }
}

/// The answer of a store.
pub(super) fn look_at(
    view: &dyn View,
    hash: &NameHash,
    look: Look,
    content: &dyn Fn(Ino) -> Vec<u8>,
) -> Result<Seen, Errno> {
    let answer: Try<Seen> = match look {
        Look::Name(parent, name) => {
            let name = ringfs::base::Name::parse(name.as_bytes()).unwrap();
            ops::lookup(view, hash, parent, name).map(Seen::Attr)
        }
        Look::Attr(ino) => ops::attr(view, ino).map(Seen::Attr),
        Look::List(dir) => ops::list(view, dir, 0, 1 << 20, false)
            .map(|list| Seen::Names(list.entries().map(|entry| (entry.name.to_vec(), entry.ino)).collect())),
        Look::Read(ino) => ops::read_plan(view, ino, 0, 1 << 16).map(|_| Seen::Bytes(content(ino))),
    };
    answer.map_err(errno)
}

/// Everything that can be reached from the root: path, attributes, content.
pub(super) fn tree(
    view: &dyn View,
    content: &dyn Fn(Ino, u64) -> Vec<u8>,
) -> BTreeMap<String, (Attr, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![(String::from("/"), Ino::ROOT)];
    let mut seen = BTreeSet::new();
    while let Some((path, ino)) = todo.pop() {
        let attr = ops::attr(view, ino).map_err(errno).unwrap_or_else(|errno| panic!("{errno}: {path}"));
        let data = if attr.kind() == ringfs::base::Kind::File { content(ino, attr.size) } else { Vec::new() };
        all.insert(path.clone(), (attr, data));
        if attr.is_dir() && seen.insert(ino) {
            let list = ops::list(view, ino, 0, 1 << 20, false).map_err(errno).unwrap();
            for entry in list.entries() {
                todo.push((format!("{path}{}/", String::from_utf8_lossy(entry.name)), entry.ino));
            }
        }
    }
    all
}
