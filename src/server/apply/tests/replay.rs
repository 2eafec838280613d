//! Exactly once: replays, settled outcomes, faults of the store.

use super::rig::{ROOT, Rig, SESSION, name, waited};
use crate::base::{Caller, Errno, SessionId, Time};
use crate::server::apply::{Volume, VolumeOptions};
use crate::server::meta::sessions;
use crate::server::store::{Store, StoreOptions};
use crate::wire::{MakeFlags, Mutation, Origin, Ticket, WriteFlags, mutation};
use std::ops::ControlFlow;
use std::sync::Arc;

fn stored(volume: &Volume, session: SessionId) -> Vec<u64> {
    let mut seqs = Vec::new();
    sessions::each_result(volume.store().engine(), session, &mut |seq, _| {
        seqs.push(seq);
        ControlFlow::Continue(())
    })
    .unwrap();
    seqs
}

fn make<'a>(text: &'a str) -> Mutation<'a> {
    Mutation::Make {
        parent: ROOT,
        name: name(text),
        mode: libc::S_IFREG | 0o644,
        umask: 0,
        rdev: 0,
        target: b"",
        flags: MakeFlags { hold: true, exclusive: true },
        ino: None,
    }
}

#[test]
fn a_batch_delivered_twice_has_one_effect_and_one_answer() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    let append = Mutation::Write {
        ino: f,
        offset: 0,
        flags: WriteFlags { append: true, kill_suidgid: false },
        data: b"once",
    };
    let unlink = Mutation::Unlink { parent: ROOT, name: name("made"), ino: None, hold: true };
    let batch = [make("made"), append, make("f"), unlink, make("again")];
    for (ticket, mutation) in (100..).zip(&batch) {
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(ticket), Caller::ROOT), mutation);
    }
    let first = rig.volume.apply(SESSION, &body, &payload, 100).unwrap();
    let outcomes = waited(&first);
    assert_eq!(outcomes[2].result, Err(Errno::EEXIST), "failures are remembered too");
    let gone = outcomes[3].result.unwrap().orphan.unwrap();
    let usage = rig.volume.usage().unwrap();
    let commits = rig.volume.store().engine().last_commit();
    let segment_bytes = rig.volume.store().chunks().disk_bytes().unwrap();
    rig.advance(1_000_000);
    assert_eq!(rig.volume.apply(SESSION, &body, &payload, 100).unwrap(), first);
    assert_eq!(rig.read(f, 0, 100), Ok(b"once".to_vec()));
    assert_eq!(rig.volume.usage().unwrap(), usage);
    assert_eq!(rig.volume.store().engine().last_commit(), commits, "nothing was committed");
    assert_eq!(rig.volume.store().chunks().disk_bytes().unwrap(), segment_bytes, "nothing was appended");
    assert_eq!(rig.attr(gone).unwrap().nlink, 0);
    assert_eq!(stored(&rig.volume, SESSION), [100, 101, 102, 103, 104]);
    // Half of it twice, with something new behind.
    let mutation = make("new");
    mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(105), Caller::ROOT), &mutation);
    let third = rig.volume.apply(SESSION, &body, &payload, 102).unwrap();
    let outcomes = waited(&third);
    assert_eq!(outcomes[0].result, Err(Errno::EIO), "settled: never executed again, not even answered");
    assert_eq!(outcomes[2].result, Err(Errno::EEXIST));
    assert!(outcomes[5].result.is_ok());
    assert_eq!(stored(&rig.volume, SESSION), [102, 103, 104, 105]);
    assert_eq!(rig.read(f, 0, 100), Ok(b"once".to_vec()));
}

#[test]
fn one_ticket_twice_in_one_batch_is_one_mutation() {
    let rig = Rig::new();
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(1), Caller::ROOT), &make("f"));
    }
    let outcomes = waited(&rig.volume.apply(SESSION, &body, &payload, 0).unwrap());
    assert!(outcomes[0].result.is_ok());
    assert_eq!(outcomes[0], outcomes[1]);
}

#[test]
fn sessions_do_not_see_each_others_tickets() {
    let rig = Rig::new();
    let (body, payload) = rig.batch(&make("f"));
    assert!(waited(&rig.volume.apply(SESSION, &body, &payload, 0).unwrap())[0].result.is_ok());
    let other = waited(&rig.volume.apply(SessionId(8), &body, &payload, 0).unwrap());
    assert_eq!(other[0].result, Err(Errno::EEXIST));
}

#[test]
fn a_replay_after_a_restart_is_answered_and_holds_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let open = || {
        let store = Store::open(&path, &StoreOptions::new(Time::default(), (0, 0))).unwrap();
        let mut options = VolumeOptions::new(Arc::new(Time::default));
        options.collect_every = None;
        Volume::open(store, options).unwrap()
    };
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for (ticket, mutation) in [
        (1, make("f")),
        (2, Mutation::Unlink { parent: ROOT, name: name("f"), ino: None, hold: true }),
        (3, make("g")),
    ] {
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(ticket), Caller::ROOT), &mutation);
    }
    let volume = open();
    let first = volume.apply(SESSION, &body, &payload, 0).unwrap();
    // The process dies: nothing is closed.
    drop(volume);
    let volume = open();
    assert_eq!(volume.apply(SESSION, &body, &payload, 0).unwrap(), first);
    assert_eq!(volume.holds_of(SESSION), 2);
    volume.end_grace();
    volume.wait_reaped();
    assert_eq!(volume.usage().unwrap().inodes, 3, "the unlinked file is held by the replay");
}

#[test]
fn a_mutation_that_was_on_its_way_at_the_kill_is_executed_though_younger_ones_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let open = || {
        let store = Store::open(&path, &StoreOptions::new(Time::default(), (0, 0))).unwrap();
        let mut options = VolumeOptions::new(Arc::new(Time::default));
        options.collect_every = None;
        Volume::open(store, options).unwrap()
    };
    let batch = |ticket, file| {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(ticket), Caller::ROOT), &make(file));
        (body, payload)
    };
    let apply = |volume: &Volume, ticket, file, settled| {
        let (body, payload) = batch(ticket, file);
        waited(&volume.apply(SESSION, &body, &payload, settled).unwrap())[0].result
    };
    let volume = open();
    assert!(apply(&volume, 1, "settled", 0).is_ok());
    assert!(apply(&volume, 3, "younger", 2).is_ok());
    drop(volume);
    let volume = open();
    assert!(apply(&volume, 2, "lost", 2).is_ok(), "it never arrived before");
    assert_eq!(apply(&volume, 1, "settled", 2), Err(Errno::EIO), "what is settled is never executed again");
    assert_eq!(volume.usage().unwrap().inodes, 4);
}

#[test]
fn bytes_that_are_no_batch_change_nothing() {
    let rig = Rig::new();
    let (body, payload) = rig.batch(&make("f"));
    assert!(rig.volume.apply(SESSION, &body[..body.len() - 1], &payload, 0).is_err());
    let mut unknown = body.clone();
    unknown[0] = 99;
    unknown.extend_from_slice(&body);
    let outcomes = waited(&rig.volume.apply(SESSION, &unknown, &payload, 0).unwrap());
    assert_eq!(outcomes[0].result, Err(Errno::EOPNOTSUPP));
    assert!(outcomes[1].result.is_ok(), "the rest of the batch goes on");
    assert_eq!(rig.last_ticket(), 1);
}

#[test]
fn many_wait_for_one_flush() {
    let rig = Rig::new();
    let (send, receive) = std::sync::mpsc::channel();
    for _ in 0..100 {
        let send = send.clone();
        rig.volume.sync(Box::new(move |result| send.send(result).unwrap()));
    }
    for _ in 0..100 {
        assert_eq!(receive.recv().unwrap(), Ok(()));
    }
    rig.volume.close().unwrap();
}
