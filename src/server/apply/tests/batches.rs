//! Random batches of local mutations against a model, under everything that may happen to a batch on its way: it comes
//! twice, late, cut off from its answer, over a server that was killed, over one that lost what was not durable.

use super::local::{AT, apply, batch, failed, folder, make, numbers, ran};
use super::rig::{ROOT, SESSION, name};
use crate::base::{Errno, Ino};
use crate::server::apply::Volume;
use crate::server::fsck;
use crate::server::meta::{View, dirents};
use crate::server::store::{Store, StoreOptions};
use crate::wire::{Expect, Mutation, Told};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One local mutation, by small numbers that become directories, names and inodes.
#[derive(Clone, Copy, Debug)]
enum Op {
    Make { dir: usize, name: usize, directory: bool, used: bool },
    Remove { dir: usize, name: usize, directory: bool, wrong: bool },
    Rename { dir: usize, name: usize, new_dir: usize, new_name: usize, wrong: bool },
}

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Batch(Vec<Op>),
    /// A batch that was sent before comes once more.
    Again(usize),
    /// The server is killed; the last batch is sent again.
    Kill,
    /// All is made durable.
    Sync,
    /// The server loses what was not durable; all batches since are sent again.
    PowerLoss,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Numbers of the client; the first directories get the first of them.
const FIRST: u64 = 1 << 30;

/// What the volume must hold.
#[derive(Clone, Default)]
struct Model {
    /// Every inode but the root: whether it is a directory, and where it is.
    inodes: BTreeMap<u64, (bool, u64)>,
    names: BTreeMap<(u64, usize), u64>,
}

impl Model {
    /// A directory, or the number of one that is gone.
    fn dir(&self, nth: usize) -> u64 {
        let dirs: Vec<u64> = self.inodes.iter().filter(|(_, (dir, _))| *dir).map(|(ino, _)| *ino).collect();
        match nth % (dirs.len() + 2) {
            0 => ROOT.0,
            1 => FIRST - 1,
            nth => dirs[nth - 2],
        }
    }

    fn directory(&self, ino: u64) -> Result<(), Errno> {
        match self.inodes.get(&ino) {
            _ if ino == ROOT.0 => Ok(()),
            None => Err(Errno::ESTALE),
            Some((true, _)) => Ok(()),
            Some((false, _)) => Err(Errno::ENOTDIR),
        }
    }

    fn is_empty(&self, dir: u64) -> bool {
        self.names.range((dir, 0)..(dir + 1, 0)).next().is_none()
    }

    fn is_at_or_below(&self, mut below: u64, above: u64) -> bool {
        while below != above && below != ROOT.0 {
            below = self.inodes[&below].1;
        }
        below == above
    }

    fn make(&mut self, dir: u64, name: usize, ino: u64, directory: bool) -> Result<(), Errno> {
        self.directory(dir)?;
        if self.names.contains_key(&(dir, name)) {
            return Err(Errno::EEXIST);
        }
        if self.inodes.contains_key(&ino) {
            return Err(Errno::ESTALE);
        }
        self.inodes.insert(ino, (directory, dir));
        self.names.insert((dir, name), ino);
        Ok(())
    }

    fn remove(&mut self, dir: u64, name: usize, ino: u64, directory: bool) -> Result<(), Errno> {
        self.directory(dir)?;
        if self.names.get(&(dir, name)) != Some(&ino) {
            return Err(Errno::ESTALE);
        }
        match (directory, self.inodes[&ino].0) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !self.is_empty(ino) => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.names.remove(&(dir, name));
        self.inodes.remove(&ino);
        Ok(())
    }

    fn rename(
        &mut self,
        from: (u64, usize),
        to: (u64, usize),
        ino: u64,
        replaced: Option<u64>,
    ) -> Result<(), Errno> {
        self.directory(from.0)?;
        self.directory(to.0)?;
        if self.names.get(&from) != Some(&ino) || self.names.get(&to).copied() != replaced {
            return Err(Errno::ESTALE);
        }
        let is_dir = self.inodes[&ino].0;
        let target_dir = replaced.map(|target| self.inodes[&target].0);
        if from.0 != to.0 {
            if is_dir && self.is_at_or_below(to.0, ino) {
                return Err(Errno::EINVAL);
            }
            if let (Some(target), Some(true)) = (replaced, target_dir)
                && self.is_at_or_below(from.0, target)
            {
                return Err(Errno::ENOTEMPTY);
            }
        }
        if replaced == Some(ino) {
            return Ok(());
        }
        match (is_dir, target_dir) {
            (true, Some(false)) => return Err(Errno::ENOTDIR),
            (false, Some(true)) => return Err(Errno::EISDIR),
            _ => {}
        }
        if let Some(target) = replaced {
            if !self.is_empty(target) {
                return Err(Errno::ENOTEMPTY);
            }
            self.inodes.remove(&target);
        }
        self.names.remove(&from);
        self.names.insert(to, ino);
        self.inodes.insert(ino, (is_dir, to.0));
        Ok(())
    }
}

/// A batch as it was sent, and what it must be told each time.
struct Sent {
    bytes: (Vec<u8>, Vec<u8>),
    told: Vec<Told>,
}

struct Client {
    volume: Option<Volume>,
    path: PathBuf,
    saved: PathBuf,
    model: Model,
    sent: Vec<Sent>,
    durable: usize,
    ticket: u64,
    next: u64,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Client {
    fn new(folder_of_all: &Path) -> Self {
        let (path, saved) = (folder_of_all.join("store"), folder_of_all.join("saved"));
        let mut client = Self {
            volume: None,
            path,
            saved,
            model: Model::default(),
            sent: Vec::new(),
            durable: 0,
            ticket: 1,
            next: FIRST,
        };
        client.open();
        assert!(numbers(client.volume(), FIRST + 100_000) < Ino(FIRST));
        client.sync();
        client
    }

    fn open(&mut self) {
        let volume = folder(&self.path);
        volume.end_grace();
        self.volume = Some(volume);
    }

    fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    fn sync(&mut self) {
        self.volume().sync_wait().unwrap();
        let _none = std::fs::remove_dir_all(&self.saved);
        copy(&self.path, &self.saved);
        self.durable = self.sent.len();
    }

    /// Carries one out in the model.
    fn act(&mut self, op: Op) -> (Mutation<'static>, Result<(), Errno>) {
        match op {
            Op::Make { dir, name: nth, directory, used } => {
                let dir = self.model.dir(dir);
                let ino = if used { self.next - 1 } else { self.next };
                self.next = self.next.max(ino + 1);
                let kind = if directory { libc::S_IFDIR } else { libc::S_IFREG };
                // A number that was used and is free again is not known as such any more; no client sends that.
                let ino = if used && !self.model.inodes.contains_key(&ino) { self.next } else { ino };
                self.next = self.next.max(ino + 1);
                (make(Ino(dir), NAMES[nth], kind, Ino(ino)), self.model.make(dir, nth, ino, directory))
            }
            Op::Remove { dir, name: nth, directory, wrong } => {
                let dir = self.model.dir(dir);
                let found = self.model.names.get(&(dir, nth)).copied().filter(|_| !wrong);
                let ino = found.unwrap_or(FIRST + 7);
                let (parent, text, expected) = (Ino(dir), name(NAMES[nth]), Some(Ino(ino)));
                let mutation = if directory {
                    Mutation::Rmdir { parent, name: text, ino: expected, hold: false }
                } else {
                    Mutation::Unlink { parent, name: text, ino: expected, hold: false }
                };
                (mutation, self.model.remove(dir, nth, ino, directory))
            }
            Op::Rename { dir, name: nth, new_dir, new_name, wrong } => {
                let (from, to) = ((self.model.dir(dir), nth), (self.model.dir(new_dir), new_name));
                let ino = self.model.names.get(&from).copied().unwrap_or(FIRST + 7);
                let replaced = self.model.names.get(&to).copied();
                let replaced = if wrong { Some(FIRST + 9) } else { replaced };
                let mutation = Mutation::Rename {
                    parent: Ino(from.0),
                    name: name(NAMES[nth]),
                    new_parent: Ino(to.0),
                    new_name: name(NAMES[new_name]),
                    flags: 0,
                    ino: Some(Ino(ino)),
                    replaced: replaced.map_or(Expect::Absent, |ino| Expect::Is(Ino(ino))),
                    hold: false,
                };
                (mutation, self.model.rename(from, to, ino, replaced))
            }
        }
    }

    fn send(&mut self, ops: &[Op]) {
        let (mut mutations, mut told): (Vec<_>, Vec<Told>) = (Vec::new(), Vec::new());
        for op in ops {
            let ticket = self.ticket;
            self.ticket += 1;
            let (mutation, result) = self.act(*op);
            mutations.push((ticket, mutation));
            match (result, told.last_mut()) {
                (Err(errno), _) => told.push(failed(ticket, errno)),
                (Ok(()), Some(Told::Ran { last, .. })) if last.0 + 1 == ticket => last.0 = ticket,
                (Ok(()), _) => told.push(ran(ticket, ticket)),
            }
        }
        let bytes = batch(&mutations);
        self.sent.push(Sent { bytes, told });
        self.deliver(self.sent.len() - 1);
    }

    fn deliver(&self, nth: usize) {
        let Sent { bytes, told } = &self.sent[nth];
        assert_eq!(&apply(self.volume(), bytes, 0), told, "batch {nth}");
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Batch(ops) => self.send(&ops),
            Event::Again(nth) if !self.sent.is_empty() => self.deliver(nth % self.sent.len()),
            Event::Again(_) => {}
            Event::Kill => {
                self.volume = None;
                self.open();
                if !self.sent.is_empty() {
                    self.deliver(self.sent.len() - 1);
                }
            }
            Event::Sync => self.sync(),
            Event::PowerLoss => {
                self.volume = None;
                std::fs::remove_dir_all(&self.path).unwrap();
                copy(&self.saved, &self.path);
                self.open();
                for nth in self.durable..self.sent.len() {
                    self.deliver(nth);
                }
            }
        }
    }

    /// The volume holds what the model holds, and is sound.
    fn compare(&mut self) {
        let volume = self.volume();
        volume.wait_reaped();
        let mut found = BTreeMap::new();
        let engine: &dyn View = volume.store().engine();
        dirents::each(engine, volume.store().names(), &mut |parent, entry| {
            let entry = entry.unwrap();
            let nth = NAMES.iter().position(|text| text.as_bytes() == entry.name.bytes()).unwrap();
            found.insert((parent.0, nth), entry.ino.0);
        })
        .unwrap();
        assert_eq!(found, self.model.names);
        assert_eq!(volume.usage().unwrap().inodes, 1 + self.model.inodes.len() as u64);
        self.volume = None;
        let store = Store::open(&self.path, &StoreOptions::new(AT, (0, 0))).unwrap();
        let report = fsck::check(&store, fsck::Options::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

fn ops() -> impl Strategy<Value = Op> {
    let (dir, name) = (0..6usize, 0..NAMES.len());
    let rarely = || prop::bool::weighted(0.1);
    prop_oneof![
        4 => (dir.clone(), name.clone(), any::<bool>(), rarely())
            .prop_map(|(dir, name, directory, used)| Op::Make { dir, name, directory, used }),
        3 => (dir.clone(), name.clone(), any::<bool>(), rarely())
            .prop_map(|(dir, name, directory, wrong)| Op::Remove { dir, name, directory, wrong }),
        2 => (dir.clone(), name.clone(), dir, name, rarely()).prop_map(|(dir, name, new_dir, new_name, wrong)| {
            Op::Rename { dir, name, new_dir, new_name, wrong }
        }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => prop::collection::vec(ops(), 1..20).prop_map(Event::Batch),
        2 => any::<usize>().prop_map(Event::Again),
        1 => Just(Event::Kill),
        1 => Just(Event::Sync),
        1 => Just(Event::PowerLoss),
    ];
    prop::collection::vec(event, 1..30)
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]
    #[test]
    fn every_batch_has_one_effect_whatever_happens_to_it(events in events()) {
        let temp = tempfile::tempdir().unwrap();
        let mut client = Client::new(temp.path());
        for event in events {
            client.run(event);
        }
        client.compare();
    }
}

#[test]
fn a_batch_larger_than_a_transaction_is_executed_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut client = Client::new(temp.path());
    let texts: Vec<String> = (0..6000).map(|nth| format!("file-{nth}")).collect();
    let mutations: Vec<_> = (1..)
        .zip(&texts)
        .map(|(ticket, text)| (ticket, make(ROOT, text, libc::S_IFREG, Ino(FIRST + ticket))))
        .collect();
    let sent = batch(&mutations);
    let before = client.volume().committed();
    assert_eq!(apply(client.volume(), &sent, 0), [ran(1, 6000)]);
    assert!(client.volume().committed() > before + 1, "several transactions");
    for _ in 0..2 {
        assert_eq!(apply(client.volume(), &sent, 0), [ran(1, 6000)]);
        client.run(Event::Kill);
    }
    assert_eq!(client.volume().usage().unwrap().inodes, 6001);
    assert_eq!(client.volume().holds_of(SESSION), 0);
}
