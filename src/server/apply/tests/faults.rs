//! A store that refuses: full for a while, or broken for good.

use super::rig::{ROOT, Rig, name, waited};
use crate::base::{ChunkId, ChunkPlace, Errno, SegmentId};
use crate::server::chunks::memory::MemoryChunks;
use crate::server::chunks::{ChunkFault, ChunkStore, ChunkTag, Record, Segment};
use crate::server::meta::memory::MemoryEngine;
use crate::server::meta::{Changes, CommitSeq, Engine, Order, StoreFault, Value, View, Visit, inodes};
use crate::server::store::Store;
use crate::wire::{MakeFlags, Mutation, Outcome};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const GOOD: u8 = 0;
const FULL: u8 = 1;
const BROKEN: u8 = 2;

/// What the disk does from now on.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicU8>);

impl Switch {
    fn set(&self, state: u8) {
        self.0.store(state, Ordering::SeqCst);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }

    fn store(&self) -> Result<(), StoreFault> {
        match self.get() {
            GOOD => Ok(()),
            FULL => Err(StoreFault::Full),
            _ => Err(StoreFault::Latched { cause: "the disk is broken".into() }),
        }
    }

    fn chunk(&self) -> Result<(), ChunkFault> {
        match self.get() {
            GOOD => Ok(()),
            FULL => Err(ChunkFault::Full),
            _ => Err(ChunkFault::Latched { cause: "the disk is broken".into() }),
        }
    }
}

struct Keys(MemoryEngine, Switch);

impl View for Keys {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreFault> {
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreFault> {
        self.0.scan(from, to, order, visit)
    }
}

impl Engine for Keys {
    fn commit(&self, changes: &Changes) -> Result<CommitSeq, StoreFault> {
        self.1.store()?;
        self.0.commit(changes)
    }

    fn persist(&self) -> Result<(), StoreFault> {
        self.1.store()
    }

    fn last_commit(&self) -> CommitSeq {
        self.0.last_commit()
    }

    fn disk_bytes(&self) -> Result<u64, StoreFault> {
        self.0.disk_bytes()
    }
}

struct Bytes(MemoryChunks, Switch);

impl ChunkStore for Bytes {
    fn append(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault> {
        self.1.chunk()?;
        self.0.append(tag, bytes)
    }

    fn read(&self, chunk: ChunkId, place: ChunkPlace, from: u32, out: &mut [u8]) -> Result<(), ChunkFault> {
        self.0.read(chunk, place, from, out)
    }

    fn sync(&self) -> Result<(), ChunkFault> {
        self.1.chunk()
    }

    fn seal(&self) {
        self.0.seal();
    }

    fn newest(&self) -> SegmentId {
        self.0.newest()
    }

    fn delete_segment(&self, segment: SegmentId) -> Result<(), ChunkFault> {
        self.0.delete_segment(segment)
    }

    fn segments(&self) -> Result<Vec<Segment>, ChunkFault> {
        self.0.segments()
    }

    fn records(
        &self,
        segment: SegmentId,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<u64, ChunkFault> {
        self.0.records(segment, visit)
    }

    fn disk_bytes(&self) -> Result<u64, ChunkFault> {
        self.0.disk_bytes()
    }

    fn close(&self) -> Result<(), ChunkFault> {
        self.0.close()
    }
}

/// A volume over two disks, one for metadata and one for data.
fn rig() -> (Rig, Switch, Switch) {
    let (keys, bytes) = (Switch::default(), Switch::default());
    let engine = Box::new(Keys(MemoryEngine::new(), keys.clone()));
    let chunks = Box::new(Bytes(MemoryChunks::new(), bytes.clone()));
    (Rig::over(Store::over(engine, chunks).unwrap()), keys, bytes)
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let (rig, keys, bytes) = rig();
    let f = rig.file(ROOT, "f");
    rig.write(f, 0, b"before").unwrap();
    bytes.set(FULL);
    let (body, payload) = rig.batch(&Mutation::Write {
        ino: f,
        offset: 0,
        flags: crate::wire::WriteFlags::default(),
        data: b"no",
    });
    let refused = rig.volume.apply(rig.session, &body, &payload, 0).unwrap();
    let found: Vec<Outcome> = waited(&refused);
    assert_eq!(found[0].result, Err(Errno::ENOSPC));
    bytes.set(GOOD);
    assert_eq!(rig.volume.apply(rig.session, &body, &payload, 0).unwrap(), refused, "the answer stands");
    assert_eq!(rig.read(f, 0, 9), Ok(b"before".to_vec()));
    assert_eq!(rig.volume.sync_wait(), Ok(()), "full is not broken");

    keys.set(FULL);
    let make = Mutation::Make {
        parent: ROOT,
        name: name("g"),
        mode: libc::S_IFREG | 0o600,
        umask: 0,
        rdev: 0,
        target: b"",
        flags: MakeFlags { hold: true, exclusive: true },
        ino: None,
    };
    let (body, payload) = rig.batch(&make);
    let apply = || {
        let outcomes = rig.volume.apply(rig.session, &body, &payload, 0).unwrap();
        waited(&outcomes)[0].result
    };
    assert_eq!(apply(), Err(Errno::ENOSPC));
    assert_eq!(rig.volume.holds_of(rig.session), 0);
    assert_eq!(rig.lookup(ROOT, "g"), Err(Errno::ENOENT));
    assert_eq!(rig.volume.latched(), None);
    keys.set(GOOD);
    assert!(apply().is_ok(), "nothing was done and nothing recorded, so it is done now");
    assert_eq!(rig.volume.holds_of(rig.session), 1);
}

#[test]
fn orphans_wait_for_room_and_are_not_forgotten() {
    let (rig, keys, _) = rig();
    let gone = ["a", "b", "c"].map(|text| {
        rig.file(ROOT, text);
        rig.unlink(ROOT, text).unwrap().orphan.unwrap()
    });
    keys.set(FULL);
    rig.volume.release(rig.session, &gone);
    assert_eq!(rig.volume.usage().unwrap().inodes, 4);
    keys.set(GOOD);
    rig.volume.wait_reaped();
    assert_eq!(rig.volume.usage().unwrap().inodes, 1);
}

#[test]
fn a_damaged_orphan_stops_no_other() {
    let (rig, ..) = rig();
    let gone = ["a", "b", "c"].map(|text| {
        rig.file(ROOT, text);
        rig.unlink(ROOT, text).unwrap().orphan.unwrap()
    });
    let mut txn = rig.volume.store().begin();
    let mut inode = inodes::get(&txn, gone[1]).unwrap().unwrap();
    inode.nlink = 1;
    inodes::put(&mut txn, &inode);
    txn.commit().unwrap();
    rig.release(&gone);
    assert_eq!(rig.volume.usage().unwrap().inodes, 2);
    assert!(rig.attr(gone[1]).is_ok());
}

#[test]
fn after_a_fault_nothing_is_promised_durable() {
    for broken in 0..2 {
        let (rig, keys, bytes) = rig();
        let f = rig.file(ROOT, "f");
        assert_eq!(rig.volume.sync_wait(), Ok(()));
        [&keys, &bytes][broken].set(BROKEN);
        assert_eq!(rig.write(f, 0, b"lost"), Err(Errno::EIO));
        [&keys, &bytes][broken].set(GOOD);
        assert_eq!(rig.volume.sync_wait(), Err(Errno::EIO), "it may have lost what came before");
        assert!(rig.volume.latched().is_some_and(|cause| cause.contains("broken")));
        assert_eq!(rig.read(f, 0, 9), Ok(Vec::new()), "reading goes on");
    }
}

#[test]
fn a_flush_that_fails_is_told_to_all_who_wait_and_to_all_later_ones() {
    for broken in 0..2 {
        let (rig, keys, bytes) = rig();
        rig.file(ROOT, "f");
        [&keys, &bytes][broken].set(BROKEN);
        let (send, receive) = std::sync::mpsc::channel();
        for _ in 0..10 {
            let send = send.clone();
            rig.volume.sync(Box::new(move |result| send.send(result).unwrap()));
        }
        for _ in 0..10 {
            assert_eq!(receive.recv().unwrap(), Err(Errno::EIO));
        }
        [&keys, &bytes][broken].set(GOOD);
        assert_eq!(rig.volume.sync_wait(), Err(Errno::EIO));
    }
}
