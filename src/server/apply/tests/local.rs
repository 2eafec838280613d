//! Mutations that the client completed: in order, once, and each failing by itself.

use super::rig::{ROOT, SESSION, START, name};
use crate::base::{Attr, Caller, Errno, Ino, SessionId, Time};
use crate::server::apply::{Found, Volume, VolumeOptions};
use crate::server::meta::{counters, sessions};
use crate::server::store::{Store, StoreOptions};
use crate::wire::{Expect, MakeFlags, Mutation, Origin, Outcome, Query, Ticket, Told, mutation, outcome};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// When the client completed its mutations: long before the server's clock.
pub(super) const AT: Time = Time { secs: 500, nanos: 7 };

fn volume(store: Store) -> Volume {
    let mut options = VolumeOptions::new(Arc::new(|| START));
    options.collect_every = None;
    let volume = Volume::open(store, options).expect("open");
    // Every number that was ever taken from the volume may be used by anybody here.
    volume.set_gate(Box::new(|_, _| Ok(())));
    volume
}

fn memory() -> Volume {
    let volume = volume(Store::memory().expect("a volume in memory"));
    volume.end_grace();
    volume
}

pub(super) fn folder(path: &Path) -> Volume {
    volume(Store::open(path, &StoreOptions::new(Time::default(), (0, 0))).expect("open"))
}

/// A number for a client to use.
fn number(volume: &Volume) -> Ino {
    numbers(volume, 1)
}

/// The first of `count`.
pub(super) fn numbers(volume: &Volume, count: u64) -> Ino {
    let _state = volume.inner.write_state();
    let mut txn = volume.inner.store.begin();
    let ino = counters::take_inos(&mut txn, count).expect("a number");
    volume.inner.commit(txn).expect("committed");
    ino
}

pub(super) type Batch = (Vec<u8>, Vec<u8>);

pub(super) fn batch(mutations: &[(u64, Mutation<'_>)]) -> Batch {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for (ticket, mutation) in mutations {
        let origin = Origin { ticket: Ticket(*ticket), caller: Caller::ROOT, at: Some(AT) };
        mutation::encode(&mut body, &mut payload, origin, mutation);
    }
    (body, payload)
}

fn told(body: &[u8]) -> Vec<Told> {
    outcome::decode(body).expect("outcomes").map(|told| told.expect("an outcome")).collect()
}

pub(super) fn apply(volume: &Volume, batch: &Batch, settled: u64) -> Vec<Told> {
    told(&volume.apply(SESSION, &batch.0, &batch.1, settled).expect("a batch"))
}

pub(super) fn make(parent: Ino, text: &str, kind: u32, ino: Ino) -> Mutation<'_> {
    let flags = MakeFlags { hold: false, exclusive: true };
    let (mode, name) = (kind | 0o644, name(text));
    Mutation::Make { parent, name, mode, umask: 0, rdev: 0, target: b"", flags, ino: Some(ino) }
}

fn file(text: &str, ino: Ino) -> Mutation<'_> {
    make(ROOT, text, libc::S_IFREG, ino)
}

fn unlink(text: &str, ino: Ino, hold: bool) -> Mutation<'_> {
    Mutation::Unlink { parent: ROOT, name: name(text), ino: Some(ino), hold }
}

pub(super) fn ran(first: u64, last: u64) -> Told {
    Told::Ran { first: Ticket(first), last: Ticket(last) }
}

pub(super) fn failed(ticket: u64, errno: Errno) -> Told {
    Told::One(Outcome { ticket: Ticket(ticket), result: Err(errno) })
}

fn lookup(volume: &Volume, text: &str) -> Result<Attr, Errno> {
    match volume.query(SESSION, &Query::Lookup { parent: ROOT, name: name(text) })? {
        Found::Attr(attr) => Ok(attr),
        other => panic!("{other:?}"),
    }
}

fn stored(volume: &Volume) -> Vec<u64> {
    let mut found = Vec::new();
    sessions::each_result(volume.store().engine(), SESSION, &mut |seq, _| {
        found.push(seq);
        ControlFlow::Continue(())
    })
    .expect("readable");
    found
}

#[test]
fn successes_are_ranges_and_failures_are_told_and_stored_one_by_one() {
    let volume = memory();
    let (a, b, c) = (number(&volume), number(&volume), number(&volume));
    let sent = batch(&[(1, file("a", a)), (2, file("b", b)), (3, file("a", c)), (4, unlink("b", b, false))]);
    let first = volume.apply(SESSION, &sent.0, &sent.1, 0).unwrap();
    assert_eq!(told(&first), [ran(1, 2), failed(3, Errno::EEXIST), ran(4, 4)]);
    assert_eq!(outcome::decode(&first).unwrap().commit(), volume.committed());
    assert_eq!(stored(&volume), [3], "one mark stands for what was done");
    assert_eq!(sessions::mark(volume.store().engine(), SESSION).unwrap(), 4);
    let made = lookup(&volume, "a").unwrap();
    assert_eq!((made.ino, made.mtime, made.btime), (a, AT, AT), "the number and the time are the client's");
    // All of it once more, and again with what was settled.
    assert_eq!(apply(&volume, &sent, 0), [ran(1, 2), failed(3, Errno::EEXIST), ran(4, 4)]);
    assert_eq!(volume.usage().unwrap().inodes, 2);
    assert_eq!(apply(&volume, &batch(&[(5, unlink("a", a, false))]), 4), [ran(5, 5)]);
    assert!(stored(&volume).is_empty());
    assert_eq!(apply(&volume, &batch(&[(3, file("a", c))]), 4), [failed(3, Errno::EIO)]);
    assert_eq!(volume.usage().unwrap().inodes, 1);
}

#[test]
fn what_a_name_stands_for_now_is_not_harmed_by_who_expected_something_else() {
    let volume = memory();
    let (old, new, moved) = (number(&volume), number(&volume), number(&volume));
    let setup = [(1, file("f", new)), (2, file("m", moved)), (3, make(ROOT, "d", libc::S_IFDIR, old))];
    assert_eq!(apply(&volume, &batch(&setup), 0), [ran(1, 3)]);
    let rename = |ino, replaced| Mutation::Rename {
        parent: ROOT,
        name: name("m"),
        new_parent: ROOT,
        new_name: name("f"),
        flags: 0,
        ino: Some(ino),
        replaced,
        hold: false,
    };
    let wrong = [
        unlink("f", old, false),
        unlink("none", new, false),
        Mutation::Rmdir { parent: ROOT, name: name("d"), ino: Some(new), hold: false },
        rename(new, Expect::Is(new)),
        rename(moved, Expect::Absent),
        rename(moved, Expect::Is(old)),
        file("other", new),
    ];
    let usage = volume.usage().unwrap();
    for (ticket, mutation) in (4..).zip(wrong) {
        let sent = batch(&[(ticket, mutation)]);
        assert_eq!(apply(&volume, &sent, 0), [failed(ticket, Errno::ESTALE)], "{mutation:?}");
    }
    assert_eq!(volume.usage().unwrap(), usage);
    assert_eq!(lookup(&volume, "f").unwrap().ino, new);
    assert_eq!(apply(&volume, &batch(&[(20, rename(moved, Expect::Is(new)))]), 0), [ran(20, 20)]);
    assert_eq!(lookup(&volume, "f").unwrap().ino, moved);
    assert_eq!(volume.usage().unwrap().inodes, 3, "nobody held what was replaced");
}

#[test]
fn what_depends_on_a_refused_mutation_fails_by_itself() {
    let volume = memory();
    let inos: Vec<Ino> = (0..4).map(|_| number(&volume)).collect();
    assert_eq!(apply(&volume, &batch(&[(1, file("p", inos[0]))]), 0), [ran(1, 1)]);
    let sent = batch(&[
        (2, make(ROOT, "p", libc::S_IFDIR, inos[1])),
        (3, make(inos[1], "child", libc::S_IFREG, inos[2])),
        (4, file("q", inos[3])),
    ]);
    let expected = [failed(2, Errno::EEXIST), failed(3, Errno::ESTALE), ran(4, 4)];
    assert_eq!(apply(&volume, &sent, 0), expected);
    assert_eq!(apply(&volume, &sent, 0), expected);
    assert_eq!(volume.usage().unwrap().inodes, 3);
}

#[test]
fn what_nobody_holds_goes_with_its_name_and_what_is_held_stays() {
    let volume = memory();
    let (free, held, kept) = (number(&volume), number(&volume), number(&volume));
    let data =
        Mutation::Write { ino: free, offset: 0, flags: crate::wire::WriteFlags::default(), data: b"xyz" };
    let sent = batch(&[(1, file("free", free)), (2, data), (3, file("held", held)), (4, file("kept", kept))]);
    assert_eq!(apply(&volume, &sent, 0), [ran(1, 4)]);
    volume.query(SessionId(9), &Query::Hold { ino: held }).unwrap();
    let gone = batch(&[
        (5, unlink("free", free, false)),
        (6, unlink("held", held, false)),
        (7, unlink("kept", kept, true)),
    ]);
    assert_eq!(apply(&volume, &gone, 0), [ran(5, 7)]);
    let alive = |ino| volume.query(SESSION, &Query::GetAttr { ino }).is_ok();
    volume.wait_reaped();
    assert_eq!((alive(free), alive(held), alive(kept)), (false, true, true));
    let usage = volume.usage().unwrap();
    assert_eq!((usage.inodes, usage.bytes), (3, 0));
    volume.release(SessionId(9), &[held]);
    volume.release(SESSION, &[kept]);
    volume.wait_reaped();
    assert_eq!(volume.usage().unwrap().inodes, 1);
}

#[test]
fn a_replay_after_a_kill_is_exactly_once_and_holds_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let volume = folder(&path);
    let inos: Vec<Ino> = (0..3).map(|_| number(&volume)).collect();
    let first = batch(&[(1, file("a", inos[0])), (2, file("a", inos[1])), (4, unlink("a", inos[0], true))]);
    let second = batch(&[(5, file("a", inos[2]))]);
    let expected = [ran(1, 1), failed(2, Errno::EEXIST), ran(4, 4)];
    assert_eq!(apply(&volume, &first, 0), expected);
    assert_eq!(apply(&volume, &second, 0), [ran(5, 5)]);
    drop(volume);
    let volume = folder(&path);
    assert_eq!(apply(&volume, &first, 0), expected);
    assert_eq!(volume.holds_of(SESSION), 1, "what was unlinked while it was open");
    assert_eq!(apply(&volume, &second, 0), [ran(5, 5)]);
    assert_eq!(lookup(&volume, "a").unwrap().ino, inos[2]);
    volume.end_grace();
    volume.wait_reaped();
    assert_eq!(volume.usage().unwrap().inodes, 3);
}

#[test]
fn a_number_that_the_session_does_not_own_is_refused() {
    let store = Store::memory().unwrap();
    let volume = Volume::open(store, VolumeOptions::new(Arc::new(|| START))).unwrap();
    let sent = batch(&[(1, file("f", Ino(99)))]);
    assert_eq!(apply(&volume, &sent, 0), [failed(1, Errno::EINVAL)]);
}

#[test]
fn commits_become_durable_without_being_asked_and_observers_learn_of_it() {
    let mut options = VolumeOptions::new(Arc::new(|| START));
    options.durable_every = std::time::Duration::from_millis(1);
    let volume = Volume::open(Store::memory().unwrap(), options).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    volume.on_durable(Box::new(move |upto| {
        let _gone = send.send(upto);
    }));
    let sent = batch(&[(1, Mutation::Tmpfile { parent: ROOT, mode: 0o600, umask: 0 })]);
    let outcomes = volume.apply(SESSION, &sent.0, &sent.1, 0).unwrap();
    let commit = outcome::decode(&outcomes).unwrap().commit();
    assert!(commit > 0);
    let learnt = receive.iter().find(|&upto| upto >= commit);
    assert!(learnt.is_some() && volume.durable() >= commit);
}
