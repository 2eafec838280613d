//! Folding against not folding: the same mutations, by the server's rules, over two stores in memory.

use super::{CALLER, limits, ms, sent, tickets};
use crate::base::{Caller, Ino, Name, Time};
use crate::client::oplog::{Action, Limits, Log, Stage};
use crate::server::meta::memory::MemoryEngine;
use crate::server::meta::{NameHash, Order, View, WriteTxn, counters, inodes};
use crate::server::ops::{self, Env};
use crate::wire::{Expect, MakeFlags, Mutation, Origin, SetAttr, Ticket, TimeSet, mutation};
use proptest::prelude::{ProptestConfig as Config, any, proptest};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const ROOT: Ino = Ino::ROOT;
const OTHER: Caller = Caller { uid: 1000, gid: 1000, pid: 9 };

fn at(step: u64) -> Time {
    Time { secs: 2_000_000_000, nanos: u32::try_from(step * 1000).unwrap() }
}

fn name(bytes: &[u8]) -> Name<'_> {
    Name::parse(bytes).unwrap()
}

fn make(parent: Ino, called: &[u8], mode: u32, ino: u64) -> Mutation<'_> {
    Mutation::Make {
        parent,
        name: name(called),
        mode,
        umask: 0,
        rdev: 0,
        target: &[],
        flags: MakeFlags { hold: false, exclusive: true },
        ino: Some(Ino(ino)),
    }
}

fn file(parent: Ino, called: &[u8], ino: u64) -> Mutation<'_> {
    make(parent, called, libc::S_IFREG | 0o640, ino)
}

fn unlink(parent: Ino, called: &[u8], ino: u64, hold: bool) -> Mutation<'_> {
    Mutation::Unlink { parent, name: name(called), ino: Some(Ino(ino)), hold }
}

fn rmdir(parent: Ino, called: &[u8], ino: u64, hold: bool) -> Mutation<'_> {
    Mutation::Rmdir { parent, name: name(called), ino: Some(Ino(ino)), hold }
}

fn set(ino: u64, set: SetAttr) -> Mutation<'static> {
    Mutation::SetAttr { ino: Ino(ino), set }
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

/// What the log sends of these, all accepted before anything is sent.
fn sent_of(mutations: &[Mutation<'_>]) -> (Log, Vec<(u64, String)>) {
    let mut log = Log::new(Limits::default());
    for (step, mutation) in mutations.iter().enumerate() {
        log.accept(ms(1), CALLER, at(step as u64 + 1), mutation, None).unwrap();
    }
    let records = records(&mut log);
    (log, records)
}

fn records(log: &mut Log) -> Vec<(u64, String)> {
    let batch = sent(log, ms(2));
    let told = |read: crate::wire::mutation::Decoded<'_>| {
        let kind = match read.1.unwrap() {
            Mutation::Make { .. } => "make",
            Mutation::Unlink { hold: true, .. } => "unlink, hold",
            Mutation::Unlink { .. } => "unlink",
            Mutation::Rmdir { .. } => "rmdir",
            Mutation::SetAttr { ino, .. } if ino == ROOT => "times of the root",
            Mutation::SetAttr { .. } => "setattr",
            _ => "another",
        };
        (read.0.ticket.0, kind.to_owned())
    };
    let all: Vec<_> =
        mutation::decode_batch(&batch.body, &batch.payload).map(|read| told(read.unwrap())).collect();
    assert_eq!((all.len(), tickets(&batch).len()), (batch.count as usize, all.len()));
    all
}

fn kinds(mutations: &[Mutation<'_>]) -> Vec<String> {
    sent_of(mutations).1.into_iter().map(|(_, kind)| kind).collect()
}

#[test]
fn what_came_and_went_leaves_only_the_directorys_times() {
    let (log, told) = sent_of(&[
        file(ROOT, b"tmp", 20),
        set(20, mode(0o600)),
        file(ROOT, b"kept", 21),
        unlink(ROOT, b"tmp", 20, false),
    ]);
    assert_eq!(told, [(3, "make".to_owned()), (4, "times of the root".to_owned())]);
    assert_eq!((log.stage(Ticket(1)), log.stage(Ticket(2))), (Some(Stage::Folded), Some(Stage::Folded)));
    assert_eq!((log.stage(Ticket(3)), log.status().folded, log.waiting()), (Some(Stage::Sent), 2, 2));
}

#[test]
fn a_thousand_that_came_and_went_leave_one_record() {
    let mut log = Log::new(Limits::default());
    for round in 0..500 {
        log.accept(ms(1), CALLER, at(2 * round + 1), &file(ROOT, b"tmp", 20 + round), None).unwrap();
        log.accept(ms(1), CALLER, at(2 * round + 2), &unlink(ROOT, b"tmp", 20 + round, false), None).unwrap();
    }
    assert_eq!((log.waiting(), log.status().folded), (1, 999));
    assert_eq!(records(&mut log), [(1000, "times of the root".to_owned())]);
}

#[test]
fn a_folder_that_came_and_went_with_all_in_it_leaves_the_times_of_the_one_above() {
    let told = kinds(&[
        make(ROOT, b"dir", libc::S_IFDIR | 0o755, 20),
        file(Ino(20), b"in it", 21),
        unlink(Ino(20), b"in it", 21, false),
        rmdir(ROOT, b"dir", 20, false),
    ]);
    assert_eq!(told, ["times of the root"]);
}

#[test]
fn changes_of_one_inodes_attributes_become_one() {
    let owner = SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() };
    let times = SetAttr { atime: Some(TimeSet::At(at(0))), mtime: Some(TimeSet::Now), ..SetAttr::default() };
    let (log, told) = sent_of(&[file(ROOT, b"a", 20), set(20, owner), set(20, mode(0o4755)), set(20, times)]);
    assert_eq!(told, [(1, "make".to_owned()), (4, "setattr".to_owned())]);
    assert_eq!(log.status().folded, 2);
}

#[test]
fn what_one_record_cannot_say_stays_two() {
    let owner = SetAttr { uid: Some(5), ..SetAttr::default() };
    let now = SetAttr { mtime: Some(TimeSet::Now), ..SetAttr::default() };
    let size = SetAttr { size: Some(3), ..SetAttr::default() };
    let kill = SetAttr { kill_suidgid: true, ..mode(0o600) };
    for (first, second) in [
        (mode(0o4755), owner),
        (owner, owner),
        (now, mode(0o600)),
        (size, mode(0o600)),
        (mode(0o600), size),
        (kill, mode(0o600)),
        (SetAttr::default(), mode(0o600)),
        (mode(0o600), SetAttr::default()),
    ] {
        assert_eq!(kinds(&[set(20, first), set(20, second)]).len(), 2, "{first:?} {second:?}");
    }
    let mut log = Log::new(Limits::default());
    log.accept(ms(1), CALLER, at(1), &set(20, mode(0o600)), None).unwrap();
    log.accept(ms(1), OTHER, at(2), &set(20, mode(0o644)), None).unwrap();
    log.accept(ms(1), OTHER, at(1), &set(20, mode(0o640)), None).unwrap();
    assert_eq!(records(&mut log).len(), 3, "another caller; a clock that went back");
}

#[test]
fn what_something_else_has_touched_stays() {
    let link = Mutation::Link { ino: Ino(20), parent: ROOT, name: name(b"other") };
    let moved = Mutation::Rename {
        parent: ROOT,
        name: name(b"tmp"),
        new_parent: ROOT,
        new_name: name(b"x"),
        flags: 0,
        ino: Some(Ino(20)),
        replaced: Expect::Absent,
        hold: false,
    };
    let data = Mutation::Write { ino: Ino(20), offset: 0, flags: Default::default(), data: b"x" };
    let xattr = Mutation::RemoveXattr { ino: Ino(20), name: b"user.x" };
    for between in [link, moved, data, xattr] {
        let told = kinds(&[file(ROOT, b"tmp", 20), between, unlink(ROOT, b"tmp", 20, false)]);
        assert_eq!(told.len(), 3, "{between:?}");
        let told = kinds(&[set(20, mode(0o600)), between, set(20, mode(0o644))]);
        assert_eq!(told.len(), 3, "{between:?}");
    }
    let told = kinds(&[
        make(ROOT, b"dir", libc::S_IFDIR | 0o755, 20),
        file(Ino(20), b"in it", 21),
        rmdir(ROOT, b"dir", 20, false),
    ]);
    assert_eq!(told.len(), 3);
}

#[test]
fn nothing_is_folded_over_a_barrier_or_what_was_sent() {
    let mut log = Log::new(Limits::default());
    let first = log.accept(ms(1), CALLER, at(1), &file(ROOT, b"tmp", 20), None).unwrap();
    log.after_durable(first, Box::new(|_| ())).run();
    log.accept(ms(1), CALLER, at(2), &unlink(ROOT, b"tmp", 20, false), None).unwrap();
    assert_eq!(records(&mut log).len(), 2);
    log.accept(ms(1), CALLER, at(3), &unlink(ROOT, b"x", 21, true), None).unwrap();
    let Action::Send(_) = log.next(ms(900)) else { panic!("it is old enough") };
    assert!(!log.clear_hold(Ino(21)), "it is on its way");
}

#[test]
fn what_the_kernel_forgot_before_it_was_sent_need_not_be_held() {
    let mut log = Log::new(Limits::default());
    log.accept(ms(1), CALLER, at(1), &unlink(ROOT, b"old", 30, true), None).unwrap();
    log.accept(ms(1), CALLER, at(2), &file(ROOT, b"a longer name", 20), None).unwrap();
    log.accept(ms(1), CALLER, at(3), &unlink(ROOT, b"a longer name", 20, true), None).unwrap();
    log.accept(ms(1), CALLER, at(4), &file(ROOT, b"a", 21), None).unwrap();
    log.accept(ms(1), CALLER, at(5), &unlink(ROOT, b"a", 21, true), None).unwrap();
    log.accept(ms(1), CALLER, at(6), &unlink(ROOT, b"held", 31, true), None).unwrap();
    assert!([30, 20, 21].into_iter().all(|ino| log.clear_hold(Ino(ino))) && !log.clear_hold(Ino(99)));
    let told = records(&mut log);
    let told: Vec<(u64, &str)> = told.iter().map(|(ticket, kind)| (*ticket, kind.as_str())).collect();
    // In the place of a record as short as that of a one-letter name nothing else fits.
    assert_eq!(
        told,
        [(1, "unlink"), (3, "times of the root"), (4, "make"), (5, "unlink"), (6, "unlink, hold")]
    );
}

/// A store by the server's rules.
struct Store(MemoryEngine);

impl Store {
    fn new() -> Self {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        inodes::put(&mut txn, &inodes::Inode::new(ROOT, libc::S_IFDIR | 0o755, (0, 0), ROOT, at(0)));
        counters::put_usage(&mut txn, counters::Usage { inodes: 1, bytes: 0 });
        txn.commit().unwrap();
        Self(engine)
    }

    fn run(&self, origin: Origin, mutation: &Mutation<'_>) -> bool {
        let hold =
            matches!(mutation, Mutation::Unlink { hold: true, .. } | Mutation::Rmdir { hold: true, .. });
        let env = Env {
            hash: NameHash::new([7; 16]),
            now: origin.at.unwrap(),
            caller: origin.caller,
            unheld: !hold,
        };
        let mut txn = WriteTxn::new(&self.0);
        let done = ops::mutate(&mut txn, &env, mutation, &[]).is_ok();
        if done {
            txn.commit().unwrap();
        }
        done
    }

    fn dump(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            all.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        };
        self.0.scan(&[0], &[255], Order::Forward, visit).unwrap();
        all
    }
}

/// A mutation with its bytes.
type Owned = (Origin, Vec<u8>);

/// Runs random mutations; the log folds them, and both ways must come to the same.
struct Run {
    log: Log,
    /// Says what can be done, as the mount's own tree would.
    live: Store,
    folded: Store,
    all: Vec<Owned>,
    step: u64,
    next_ino: u64,
    /// Names, and what was made by them.
    names: BTreeMap<(u64, u8), (u64, bool)>,
    gone: Vec<(u64, usize)>,
    now: std::time::Duration,
}

impl Run {
    fn new() -> Self {
        Self {
            log: Log::new(Limits { waiting_max: 4096, kept_max: 1 << 14, ..limits() }),
            live: Store::new(),
            folded: Store::new(),
            all: Vec::new(),
            step: 0,
            next_ino: 10,
            names: BTreeMap::new(),
            gone: Vec::new(),
            now: ms(1),
        }
    }

    fn accept(&mut self, caller: Caller, mutation: &Mutation<'_>) -> bool {
        self.step += 1;
        let origin = Origin { ticket: Ticket(self.step), caller, at: Some(at(self.step)) };
        if !self.live.run(origin, mutation) {
            return false;
        }
        self.log.accept(self.now, caller, at(self.step), mutation, None).unwrap();
        let mut bytes = Vec::new();
        mutation::encode(&mut bytes, &mut Vec::new(), origin, mutation);
        self.all.push((origin, bytes));
        true
    }

    fn act(&mut self, (what, which, how): (u8, u8, u8)) {
        let caller = if how.is_multiple_of(7) { OTHER } else { CALLER };
        let directories: Vec<u64> =
            std::iter::once(1).chain(self.names.values().filter(|made| made.1).map(|made| made.0)).collect();
        let dir = directories[usize::from(which) % directories.len()];
        let letter = b'a' + how % 4;
        let long = [letter; 9];
        let called = if letter.is_multiple_of(2) { &long[..] } else { &long[..1] };
        let found = self.names.get(&(dir, letter)).copied();
        match (what % 10, found) {
            (0..=2, None) => {
                let is_dir = how % 3 == 0;
                let kind = if is_dir { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 };
                self.next_ino += 1;
                let ino = self.next_ino;
                if self.accept(caller, &make(Ino(dir), called, kind, ino)) {
                    self.names.insert((dir, letter), (ino, is_dir));
                }
            }
            (3..=5, Some((ino, is_dir))) => {
                let hold = how % 2 == 0;
                let gone = if is_dir { rmdir } else { unlink }(Ino(dir), called, ino, hold);
                if self.accept(caller, &gone) {
                    self.names.remove(&(dir, letter));
                    if hold {
                        self.gone.push((ino, self.all.len() - 1));
                    }
                }
            }
            (6 | 7, Some((ino, _))) => {
                let time = Some(if how % 5 == 0 { TimeSet::Now } else { TimeSet::At(at(how.into())) });
                let change = match which % 6 {
                    0 => mode(u32::from(how) | if how % 9 == 0 { 0o4000 } else { 0 }),
                    1 => SetAttr { uid: Some(how.into()), ..SetAttr::default() },
                    2 => SetAttr { gid: Some(how.into()), ..mode(0o2711) },
                    3 => SetAttr { mtime: time, ..SetAttr::default() },
                    4 => SetAttr { atime: time, mtime: Some(TimeSet::Now), ..SetAttr::default() },
                    _ => SetAttr { size: Some(how.into()), kill_suidgid: how % 2 == 0, ..SetAttr::default() },
                };
                self.accept(caller, &set(ino, change));
            }
            (8, _) if !self.gone.is_empty() => {
                let (ino, at) = self.gone.swap_remove(usize::from(how) % self.gone.len());
                if self.log.clear_hold(Ino(ino)) {
                    mutation::clear_hold(&mut self.all[at].1);
                }
            }
            (9, _) if how % 8 == 0 => self.send(),
            (9, _) if how % 8 == 1 => {
                let last = self.log.last();
                self.log.after_applied(last, Box::new(|_| ())).run();
            }
            _ => {}
        }
    }

    fn send(&mut self) {
        self.now += ms(1000);
        while let Action::Send(batch) = self.log.next(self.now) {
            for read in mutation::decode_batch(&batch.body, &batch.payload) {
                let (origin, mutation) = read.unwrap();
                let mutation = mutation.unwrap();
                assert!(self.folded.run(origin, &mutation), "{mutation:?} was done when it was not folded");
            }
            self.log.answered(self.now, batch.first, 1, &mut std::iter::empty()).due.run();
        }
    }

    fn compare(mut self) -> u64 {
        self.send();
        let plain = Store::new();
        for (_, bytes) in &self.all {
            let (origin, mutation) = mutation::decode_batch(bytes, &[]).next().unwrap().unwrap();
            assert!(plain.run(origin, &mutation.unwrap()));
        }
        assert_eq!(self.folded.dump(), plain.dump());
        self.log.status().folded
    }
}

#[test]
fn the_random_runs_do_fold() {
    let mut run = Run::new();
    let mut seed = 1_u32;
    let mut byte = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(seed >> 24).unwrap()
    };
    for _ in 0..4000 {
        let event = (byte(), byte(), byte());
        run.act(event);
    }
    let folded = run.compare();
    assert!(folded > 10, "{folded}");
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn folding_changes_neither_the_final_state_nor_any_result(
        events in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..120)
    ) {
        let mut run = Run::new();
        events.into_iter().for_each(|event| run.act(event));
        run.compare();
    }
}
