//! A volume: the rules over a store, one writer at a time, every mutation exactly once.
//!
//! Comes in: batches of mutations and queries of sessions, already decoded from frames but not understood. Goes out:
//! outcomes and answers. Here are owned: the writer's lock, what was answered to whom (so that a replay gets the same
//! bytes), who holds which inode open, and the threads that flush, reap and collect.
//! Absent on purpose: sockets, locks of files, leases, and when a session expires (`server::session`).
//!
//! Lock order: `large`, then `state`, then `holds`; the queues of the threads are leaves.
//!
//! | part | does |
//! |---|---|
//! | [`answers`] | what each mutation is told, packed into a body |
//! | [`batch`] | one pass over the mutations of a batch, in bounded transactions |
//! | [`query`] | reading, beside others that read |
//! | [`holds`] | open inodes and orphans |
//! | [`numbers`] | inode numbers given out in advance |
//! | [`results`] | outcomes that a replay may ask for |
//! | [`committer`] | many that wait, one flush of the disk |
//! | [`reaper`] | removes orphans nobody holds, in slices |
//! | [`collector`] | gives back the room of dead chunks |
#![forbid(unsafe_code)]

mod answers;
mod batch;
mod collector;
mod committer;
mod holds;
mod numbers;
mod query;
mod reaper;
mod results;

pub use committer::{DurableObserver, Synced};
pub use query::Found;

use crate::base::{Errno, Ino, SessionId, Time};
use crate::server::meta::{StoreFault, WriteTxn, counters, sessions};
use crate::server::store::{Fault, Store};
use crate::wire::Mutation;
use collector::Collector;
use committer::Committer;
use holds::Holds;
use reaper::Reaper;
use results::Results;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Tells the present time.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// How a volume runs.
#[derive(Clone)]
pub struct VolumeOptions {
    /// Time of changes.
    pub clock: Clock,
    /// How long a reader may need between looking a chunk up and reading it.
    pub collect_grace: Duration,
    /// Pause between two looks for dead chunks; `None`: never look.
    pub collect_every: Option<Duration>,
    /// Most inodes one session may hold open; over it opening and creating fail with ENFILE. Each takes some 50 bytes.
    pub holds_max: usize,
    /// Longest time a commit waits to be made durable when nobody asks for it.
    pub durable_every: Duration,
    /// Whether threads flush, reap and collect. Without them nothing happens but in a call, in an order that is the same each
    /// time: [`Volume::work`] flushes and reaps.
    pub threads: bool,
}

/// Asked before a local mutation is executed for the first time, under the writer's lock: whether the session owns the
/// number it took for what it makes, and whether no other session has a lease on what it changes.
pub type Gate = Box<dyn Fn(SessionId, &Mutation<'_>) -> Result<(), Errno> + Send + Sync>;

impl VolumeOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            collect_grace: Duration::from_secs(30),
            collect_every: Some(Duration::from_secs(10)),
            holds_max: 1 << 20,
            durable_every: Duration::from_millis(500),
            threads: true,
        }
    }
}

/// A volume that is open for work. Safe to share. Dropping it stops its threads and loses nothing that was made
/// durable; [`Volume::close`] makes all durable first.
pub struct Volume {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    store: Store,
    options: VolumeOptions,
    /// Held by the one mutation that is executed in steps, over all of them.
    large: Mutex<()>,
    /// Written: a mutation, or a step of a large one. Read: a query, which sees none half done.
    state: RwLock<Results>,
    holds: Mutex<Holds>,
    committer: Committer,
    reaper: Reaper,
    collector: Collector,
    /// The first fault that left the store's state uncertain: nothing is promised durable after it.
    latch: OnceLock<String>,
    /// Every commit up to this one survives a loss of power.
    durable: AtomicU64,
    observers: Mutex<Vec<DurableObserver>>,
    gate: OnceLock<Gate>,
}

impl Volume {
    /// Starts work on a store. Orphans are kept until [`Volume::end_grace`].
    ///
    /// # Errors
    /// The store cannot be read, or the system refuses threads.
    pub fn open(store: Store, options: VolumeOptions) -> Result<Self, Fault> {
        let mut orphans = Vec::new();
        sessions::each_orphan(store.engine(), &mut |ino| {
            orphans.push(ino);
            ControlFlow::Continue(())
        })?;
        let holds = Holds::new(orphans, options.holds_max);
        let inner = Arc::new(Inner {
            store,
            options,
            large: Mutex::new(()),
            state: RwLock::new(Results::default()),
            holds: Mutex::new(holds),
            committer: Committer::default(),
            reaper: Reaper::default(),
            collector: Collector::default(),
            latch: OnceLock::new(),
            durable: AtomicU64::new(0),
            observers: Mutex::default(),
            gate: OnceLock::new(),
        });
        let volume = Self { inner, threads: Mutex::default() };
        // What was found may have been written by a server that was killed.
        volume.inner.committer.committed();
        if !volume.inner.options.threads {
            return Ok(volume);
        }
        volume.spawn("ringfs-commit", Inner::commit_loop)?;
        volume.spawn("ringfs-reap", Inner::reap_loop)?;
        if let Some(pause) = volume.inner.options.collect_every {
            volume.spawn("ringfs-collect", move |inner| inner.collect_loop(pause))?;
        }
        Ok(volume)
    }

    fn spawn(&self, name: &str, body: impl FnOnce(&Inner) + Send + 'static) -> Result<(), Fault> {
        let inner = Arc::clone(&self.inner);
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || body(&inner));
        let refused = |source| StoreFault::Disk { action: "start a thread for", path: name.into(), source };
        self.threads().push(spawned.map_err(refused)?);
        Ok(())
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The present time, by which changes are dated.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.now()
    }

    /// What the volume holds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self) -> Result<counters::Usage, StoreFault> {
        counters::usage(self.inner.store.engine())
    }

    /// The first fault that left the store uncertain, for the operator.
    #[must_use]
    pub fn latched(&self) -> Option<&str> {
        self.inner.latch.get().map(String::as_str)
    }

    /// Number of the last commit. Outcomes name the one that contains their mutations.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.inner.store.engine().last_commit().0
    }

    /// Every commit up to this one survives a loss of power. 0 until the first flush since the start.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.inner.durable.load(Ordering::Acquire)
    }

    /// Calls `tell` after each flush from now on, with [`Self::durable`].
    pub fn on_durable(&self, tell: DurableObserver) {
        self.inner.observers.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
    }

    /// Sets what is asked before local mutations, once. Without it no session owns numbers or has leases.
    pub fn set_gate(&self, gate: Gate) {
        let _first = self.inner.gate.set(gate);
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
        if !self.inner.options.threads {
            return self.inner.flush();
        }
        let (send, receive) = std::sync::mpsc::channel();
        self.sync(Box::new(move |result| {
            let _gone = send.send(result);
        }));
        receive.recv().unwrap_or(Err(Errno::EIO))
    }

    /// Does at once what threads do in time: flushes if something waits for it or is not durable, and removes orphans.
    pub fn work(&self) {
        if let Some(group) = self.inner.committer.take_now() {
            let result = self.inner.flush();
            group.into_iter().for_each(|done| done(result));
        }
        while let Some(dead) = self.inner.reaper.take_now() {
            self.inner.reap(dead);
        }
    }

    /// Whether the volume has threads of its own ([`VolumeOptions::threads`]).
    #[must_use]
    pub fn has_threads(&self) -> bool {
        self.inner.options.threads
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
        let mut txn = self.inner.store.begin();
        sessions::delete(&mut txn, session)?;
        self.inner.commit(txn)
    }

    /// Stores the record of a session, of the session layer's making; it survives a restart.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_session(&self, session: SessionId, record: &[u8]) -> Result<(), Errno> {
        let _state = self.inner.write_state();
        let mut txn = self.inner.store.begin();
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
        sessions::each(self.inner.store.engine(), &mut |session, record| {
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

    /// Counts a start of a server on this volume; the first one is 1. Durable when it returns.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn next_epoch(&self) -> Result<u64, Errno> {
        let epoch = {
            let _state = self.inner.write_state();
            let mut txn = self.inner.store.begin();
            let epoch = counters::next_epoch(&mut txn)?;
            self.inner.commit(txn)?;
            epoch
        };
        self.sync_wait()?;
        Ok(epoch)
    }

    /// Makes everything durable and stops the threads: a [`Volume::sync`] after it fails. To be called when nothing is
    /// applied any more.
    ///
    /// # Errors
    /// The disk refused.
    pub fn close(&self) -> Result<(), Errno> {
        let synced = self.sync_wait();
        self.stop();
        synced?;
        self.inner.store.close().map_err(|fault| self.inner.fault(fault))
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.inner.committer.stop();
        self.inner.reaper.stop();
        self.inner.collector.stop();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the volume ended in a panic");
            }
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn now(&self) -> Time {
        (self.options.clock)()
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
        if txn.changes().is_empty() {
            return Ok(());
        }
        txn.commit().map_err(|fault| self.fault(fault.into()))?;
        self.committer.committed();
        Ok(())
    }

    /// A fault of writing: unless the disk is just full, what the store holds is not certain any more.
    fn fault(&self, fault: Fault) -> Errno {
        if fault.errno() != Errno::ENOSPC && self.latch.set(fault.to_string()).is_ok() {
            tracing::error!(%fault, "the volume promises nothing durable any more; restart the server");
        }
        Errno::from(fault)
    }
}

#[cfg(test)]
mod tests;
