//! Random operations of one mount through the tree, with a server behind it that executes what the tree completed later and
//! in order, and grants, recalls and answers late; another client changes things too. Beside it a server that does each
//! operation at once: every answer, every errno and every attribute must be the same, and in the end every byte of the two
//! stores.

mod draw;
mod talk;

use super::server::{Server, placed};
use super::{Clock, HASH, ROOT};
use crate::base::{Caller, Errno, Ino, Name, SetAttr};
use crate::client::tree::{Change, Denied, New, Tree, TreeBounds};
use crate::wire::{Done, Expect, Keep, LeaseMode, Mutation, Recall};
use draw::Dice;
use std::collections::{BTreeSet, VecDeque};
use talk::Message;

const OTHER: Caller = Caller { uid: 0, gid: 0, pid: 9 };

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
