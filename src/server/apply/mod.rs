//! A volume: the rules over a store, one writer at a time, every mutation exactly once.
//!
//! Comes in: batches of mutations and queries of sessions, already decoded from frames but not understood. Goes out:
//! outcomes and answers. Here are owned: the writer's lock, what was answered to whom (so that a replay gets the same
//! bytes), who holds which inode open, and the threads that flush, reap and collect.
//! Absent on purpose: sockets, locks of files, leases, and when a session expires (`server::session`).
//!
//! Lock order: `gate`, then `state`, then `holds`; `numbers` before `state`; the queues of the threads are leaves.
//!
//! | part | does |
//! |---|---|
//! | [`batch`] | one pass over the mutations of a batch, in bounded transactions |
//! | [`query`] | reading, beside others that read |
//! | [`holds`] | open inodes and orphans |
//! | [`results`] | outcomes that a replay may ask for |
//! | [`committer`] | many that wait, one flush of the disk |
//! | [`reaper`] | removes orphans nobody holds, in slices |
#![forbid(unsafe_code)]

mod batch;
mod committer;
mod holds;
mod query;
mod reaper;
mod results;

pub use committer::Synced;
pub use query::Found;

use crate::base::{Errno, Ino, SessionId, Time};
use crate::server::chunks::{ChunkFault, ChunkStore};
use crate::server::meta::{
    self, Engine, NameHash, StoreFault, Superblock, WriteTxn, counters, sessions, superblock,
};
use crate::server::ops;
use committer::Committer;
use holds::Holds;
use reaper::Reaper;
use results::Results;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

/// Tells the present time.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Tells how many bytes the disk below the store has left.
pub type Space = Arc<dyn Fn() -> std::io::Result<u64> + Send + Sync>;

/// What a volume is made of.
#[derive(Clone)]
pub struct Parts {
    /// Keys.
    pub engine: Arc<dyn Engine>,
    /// File bytes.
    pub chunks: Arc<dyn ChunkStore>,
    /// Time of changes.
    pub clock: Clock,
    /// Room left.
    pub space: Space,
}

/// A volume that is open for work. Safe to share; dropping it stops its threads, [`Volume::close`] makes all durable
/// first.
pub struct Volume {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    chunks: Arc<dyn ChunkStore>,
    clock: Clock,
    space: Space,
    superblock: Superblock,
    hash: NameHash,
    /// Read: chunks were appended that no metadata names yet. Written: a segment is deleted.
    gate: RwLock<()>,
    /// Written: a mutation. Read: a query, which sees no mutation half done.
    state: RwLock<Results>,
    holds: Mutex<Holds>,
    /// Chunk numbers reserved in the store and not given out: next, end.
    numbers: Mutex<(u64, u64)>,
    committer: Committer,
    reaper: Reaper,
    /// The first fault that left the store's state uncertain: nothing is promised durable after it.
    latch: OnceLock<String>,
}

/// Chunk numbers reserved at once: one small transaction for so many writes.
const CHUNK_NUMBERS: u64 = 1 << 16;

impl Volume {
    /// Makes an empty store a volume: superblock and root directory.
    ///
    /// # Errors
    /// The store cannot be written, or is a volume already.
    pub fn format(
        engine: &dyn Engine,
        superblock: &Superblock,
        root_mode: u32,
        owner: (u32, u32),
    ) -> Result<(), StoreFault> {
        if superblock::get(engine)?.is_some() {
            return Err(StoreFault::damaged(meta::keys::SUPERBLOCK, "the store is a volume already"));
        }
        let mut txn = WriteTxn::new(engine);
        superblock::put(&mut txn, superblock);
        let created = Time { secs: superblock.created_secs, nanos: superblock.created_nanos };
        ops::make_root(&mut txn, root_mode, owner, created)?;
        txn.commit()?;
        engine.persist()
    }

    /// Opens a volume and starts its threads. Orphans are kept until [`Volume::end_grace`].
    ///
    /// # Errors
    /// The store cannot be read, or is no volume.
    pub fn open(parts: Parts) -> Result<Self, StoreFault> {
        let Parts { engine, chunks, clock, space } = parts;
        let superblock = superblock::get(&*engine)?;
        let no_volume = || StoreFault::damaged(meta::keys::SUPERBLOCK, "the store holds no volume");
        let superblock = superblock.ok_or_else(no_volume)?;
        let mut orphans = Vec::new();
        sessions::each_orphan(&*engine, &mut |ino| {
            orphans.push(ino);
            ControlFlow::Continue(())
        })?;
        let inner = Arc::new(Inner {
            hash: superblock.name_hash()?,
            superblock,
            engine,
            chunks,
            clock,
            space,
            gate: RwLock::new(()),
            state: RwLock::new(Results::default()),
            holds: Mutex::new(Holds::new(orphans)),
            numbers: Mutex::new((0, 0)),
            committer: Committer::default(),
            reaper: Reaper::default(),
            latch: OnceLock::new(),
        });
        let committer = Arc::clone(&inner);
        let reaper = Arc::clone(&inner);
        let threads = vec![
            spawn("ringfs-commit", move || committer.commit_loop())?,
            spawn("ringfs-reap", move || reaper.reap_loop())?,
        ];
        Ok(Self { inner, threads })
    }

    /// The superblock.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.inner.superblock
    }

    /// What the volume holds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self) -> Result<counters::Usage, StoreFault> {
        counters::usage(&*self.inner.engine)
    }

    /// The first fault that left the store uncertain, for the operator.
    #[must_use]
    pub fn latched(&self) -> Option<&str> {
        self.inner.latch.get().map(String::as_str)
    }

    /// Calls `done` when all that was applied before this call survives a loss of power, from the committer's thread.
    pub fn sync(&self, done: Synced) {
        self.inner.committer.push(done);
    }

    /// [`Volume::sync`], waited for.
    ///
    /// # Errors
    /// The disk refused.
    pub fn sync_wait(&self) -> Result<(), Errno> {
        let (send, receive) = std::sync::mpsc::channel();
        self.sync(Box::new(move |result| {
            let _gone = send.send(result);
        }));
        receive.recv().unwrap_or(Err(Errno::EIO))
    }

    /// These inodes are no longer open or known to the session; those without a name and another holder die.
    pub fn release(&self, session: SessionId, inos: &[Ino]) {
        let dead = self.inner.holds().release(session, inos);
        self.inner.reaper.push(dead);
    }

    /// The session says after a reconnect what it holds. Returns whether all of it still exists.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn reassert(&self, session: SessionId, inos: &[Ino]) -> Result<bool, Errno> {
        let mut all = true;
        for ino in inos {
            match self.inner.hold(session, *ino) {
                Ok(_) => {}
                Err(Errno::ESTALE) => all = false,
                Err(errno) => return Err(errno),
            }
        }
        Ok(all)
    }

    /// All sessions that live have told what they hold: the other orphans may go.
    pub fn end_grace(&self) {
        let dead = self.inner.holds().end_grace();
        self.inner.reaper.push(dead);
    }

    /// The session has ended for good: its holds, its stored outcomes and its record go.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn end_session(&self, session: SessionId) -> Result<(), Errno> {
        let dead = self.inner.holds().release_all(session);
        self.inner.reaper.push(dead);
        let mut state = self.inner.write_state();
        state.forget(session);
        let mut txn = WriteTxn::new(&*self.inner.engine);
        sessions::delete(&mut txn, session)?;
        self.inner.commit(txn)
    }

    /// Stores the record of a session, of the session layer's making; it survives a restart.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_session(&self, session: SessionId, record: &[u8]) -> Result<(), Errno> {
        let _state = self.inner.write_state();
        let mut txn = WriteTxn::new(&*self.inner.engine);
        sessions::put(&mut txn, session, record);
        self.inner.commit(txn)
    }

    /// The records of all sessions.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn sessions(&self) -> Result<Vec<(SessionId, Vec<u8>)>, Errno> {
        let _state = self.inner.read_state();
        let mut found = Vec::new();
        sessions::each(&*self.inner.engine, &mut |session, record| {
            found.push((session, record.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// How many inodes a session holds.
    #[must_use]
    pub fn holds_of(&self, session: SessionId) -> usize {
        self.inner.holds().count(session)
    }

    /// Waits until no orphan is left that may be removed.
    pub fn wait_reaped(&self) {
        self.inner.reaper.wait_idle();
    }

    /// Makes everything durable and stops the threads.
    ///
    /// # Errors
    /// The disk refused.
    pub fn close(self) -> Result<(), Errno> {
        self.sync_wait()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.inner.committer.stop();
        self.inner.reaper.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the volume ended in a panic");
            }
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreFault> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map_err(|source| StoreFault::Disk { action: "start a thread for", path: name.into(), source })
}

impl Inner {
    fn now(&self) -> Time {
        (self.clock)()
    }

    // A thread that panicked has not committed its transaction, so what the locks guard is whole.

    fn read_state(&self) -> RwLockReadGuard<'_, Results> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, Results> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits; the caller holds the writer's lock. A fault other than a full disk latches.
    fn commit(&self, txn: WriteTxn<'_>) -> Result<(), Errno> {
        match txn.commit() {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.store_fault(fault)),
        }
    }

    fn store_fault(&self, fault: StoreFault) -> Errno {
        if fault.errno() != Errno::ENOSPC {
            self.latch_with(&fault);
        }
        Errno::from(fault)
    }

    fn chunk_fault(&self, fault: ChunkFault) -> Errno {
        if fault.errno() != Errno::ENOSPC {
            self.latch_with(&fault);
        }
        Errno::from(fault)
    }

    fn latch_with(&self, fault: &dyn std::fmt::Display) {
        let first = self.latch.set(fault.to_string()).is_ok();
        if first {
            tracing::error!(%fault, "the volume promises nothing durable any more; restart the server");
        }
    }

    /// Reserves `count` chunk numbers; returns the first.
    fn chunk_numbers(&self, count: u64) -> Result<u64, Errno> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers.1 - numbers.0 < count {
            let take = CHUNK_NUMBERS.max(count);
            let _state = self.write_state();
            let mut txn = WriteTxn::new(&*self.engine);
            let first = counters::take_chunks(&mut txn, take)?.0;
            self.commit(txn)?;
            *numbers = (first, first + take);
        }
        let first = numbers.0;
        numbers.0 += count;
        Ok(first)
    }
}
