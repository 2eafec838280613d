//! The server's rules over a store in memory, with a table of leases of one session.

use super::{HASH, ROOT, at};
use crate::base::{Attr, Caller, ChunkId, ChunkPlace, Errno, Ino, Name, SegmentId, Time};
use crate::server::meta::memory::MemoryEngine;
use crate::server::meta::{Order, View, WriteTxn, counters, inodes};
use crate::server::ops::{self, Env, Listing, Placed, Stop, Try};
use crate::wire::{Done, Grant, LeaseMode, Mutation, Returned};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

pub(super) struct Server {
    engine: MemoryEngine,
    pub(super) leases: BTreeMap<Ino, (LeaseMode, u64)>,
    number: u64,
}

fn errno(stop: Stop) -> Errno {
    match stop {
        Stop::No(errno) => errno,
        Stop::Fault(fault) => panic!("{fault}"),
    }
}

/// Where the data of a write lies: `chunk` names it.
pub(super) fn placed(chunk: u64, len: u32) -> Placed {
    let position = u32::try_from(chunk).unwrap();
    Placed { chunk: ChunkId(chunk), place: ChunkPlace { segment: SegmentId(1), position, len } }
}

impl Server {
    pub(super) fn new() -> Self {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        let root = inodes::Inode::new(ROOT, libc::S_IFDIR | 0o755, (0, 0), ROOT, at(1000));
        inodes::put(&mut txn, &root);
        counters::put_usage(&mut txn, counters::Usage { inodes: 1, bytes: 0 });
        txn.commit().unwrap();
        Self { engine, leases: BTreeMap::new(), number: 1 }
    }

    pub(super) fn run(
        &self,
        now: Time,
        caller: Caller,
        mutation: &Mutation<'_>,
        placed: &[Placed],
    ) -> Result<Done, Errno> {
        let mut txn = WriteTxn::new(&self.engine);
        let done = ops::mutate(&mut txn, &Env { hash: HASH, now, caller, unheld: false }, mutation, placed)
            .map_err(errno)?;
        txn.commit().unwrap();
        Ok(done)
    }

    fn view<T>(&self, look: impl FnOnce(&dyn View) -> Try<T>) -> Result<T, Errno> {
        look(&self.engine).map_err(errno)
    }

    pub(super) fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.view(|view| ops::attr(view, ino))
    }

    pub(super) fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        self.view(|view| ops::lookup(view, &HASH, parent, name))
    }

    pub(super) fn parent(&self, ino: Ino) -> Result<Attr, Errno> {
        self.view(|view| ops::parent(view, ino))
    }

    pub(super) fn read_link(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.view(|view| ops::read_link(view, ino)).map(|target| target.to_vec())
    }

    pub(super) fn list(&self, dir: Ino, cookie: u64, bytes_max: u32) -> Result<Listing, Errno> {
        self.view(|view| ops::list(view, dir, cookie, bytes_max, true))
    }

    fn is_plain(&self, ino: Ino) -> bool {
        let inode = inodes::get(&self.engine, ino).unwrap();
        inode.is_some_and(|inode| inode.flags & (inodes::flags::HAS_XATTR | inodes::flags::HAS_ACL) == 0)
    }

    /// Grants the inode to the session, as far as `wish` goes; what it has is not made less.
    pub(super) fn grant(&mut self, ino: Ino, wish: LeaseMode) -> Option<Grant> {
        inodes::get(&self.engine, ino).unwrap()?;
        self.number += 1;
        let had = self.leases.get(&ino).map(|(mode, _)| *mode);
        let mode = had.map_or(wish, |had| had.max(wish));
        self.leases.insert(ino, (mode, self.number));
        Some(Grant { ino, mode, number: self.number, plain: self.is_plain(ino) })
    }

    pub(super) fn returned(&mut self, returned: &Returned) {
        if self.leases.get(&returned.ino).is_some_and(|(_, number)| *number == returned.number) {
            match returned.keep {
                crate::wire::Keep::Nothing => self.leases.remove(&returned.ino),
                crate::wire::Keep::Shared => {
                    self.leases.insert(returned.ino, (LeaseMode::Shared, returned.number))
                }
            };
        }
    }

    /// Everything in the store.
    pub(super) fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            all.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        self.engine.scan(&[0], &[255], Order::Forward, visit).unwrap();
        all
    }
}
