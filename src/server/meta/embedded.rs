//! The embedded engine: fjall, a log-structured merge tree, in a folder of its own.
//!
//! ```text
//! DIR/db/            fjall's own files; the newest DIR/db/N.jnl is its journal
//! DIR/persisted      u64 number of a commit known to be on the disk, u32 CRC-32C of it
//! ```
//!
//! A commit is written to the journal and handed to the system before it returns, so it survives `kill -9`.
//! [`Engine::persist`] calls fdatasync on the journal through a file of our own: fjall's `persist` holds the lock that
//! commits need. That is complete, because fjall syncs a journal before it begins the next one, and numbers them
//! without gaps (`the_journal_is_where_persist_looks` watches over it).
//!
//! fjall cuts a damaged journal off at the damage without a word. So each commit also writes its number, and opening
//! compares the last one with `DIR/persisted`.

mod files;

pub use files::{JOURNAL_BYTES, journal_rest};

use super::key_cache::KeyCache;
use super::{Changes, CommitSeq, Engine, Order, StoreFault, Value, View, Visit, keys};
use crate::base::Errno;
use files::{folder_bytes, newest_journal, read_note, write_note};
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::fs::File;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Asked before bytes are written: is there room for so many? `ENOSPC` refuses.
///
/// fjall gives up for good when a write of its own fails, so a full disk must be noticed before.
pub type RoomCheck = Arc<dyn Fn(u64) -> Result<(), Errno> + Send + Sync>;

/// How to open the engine.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Memory for blocks read from the disk.
    pub cache_bytes: u64,
    /// Memory for single keys that were lately written or read.
    pub key_cache_bytes: u64,
    /// See [`RoomCheck`].
    pub room: RoomCheck,
    /// Writes are kept in memory up to this size before they go to a sorted file.
    pub memtable_bytes: u64,
    /// Open also when commits are missing that had reached the disk, and go on without them.
    pub accept_lost_commits: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        let room: RoomCheck = Arc::new(|_| Ok(()));
        Self {
            cache_bytes: 128 << 20,
            key_cache_bytes: 128 << 20,
            room,
            memtable_bytes: MEMTABLE_BYTES_MAX,
            accept_lost_commits: false,
        }
    }
}

/// Bounds of [`EmbeddedOptions::memtable_bytes`].
const MEMTABLE_BYTES_MIN: u64 = 1 << 20;
const MEMTABLE_BYTES_MAX: u64 = 32 << 20;
/// Size of a sorted file, in memtables.
const TABLE_MEMTABLES: u64 = 4;
/// Removed keys for which looking at all keys is worth it.
const REWRITE_REMOVED: u64 = 10_000;
/// How long a commit that finds no room waits for the engine to give some back, and how seldom one does.
const RELIEF_PATIENCE: Duration = Duration::from_secs(2);
const RELIEF_POLL: Duration = Duration::from_millis(50);
const RELIEF_PAUSE: Duration = Duration::from_secs(10);
/// Old journals may take so much before fjall hurries to empty them.
const JOURNALS_BYTES: u64 = 128 << 20;
/// Open files of sorted data (the process may have 20,000 in all).
const OPEN_FILES: usize = 512;
/// One flushes, one compacts.
const WORKERS: usize = 2;
/// What a commit costs on the disk besides its keys and values, roughly, times the rewriting by compactions.
const WRITE_AMPLIFICATION: u64 = 4;

/// Keys in a fjall database.
pub struct EmbeddedEngine {
    folder: PathBuf,
    keyspace: Keyspace,
    db: Database,
    known: KeyCache,
    room: RoomCheck,
    /// Number of the last commit; changed under `committing`.
    last: AtomicU64,
    /// Lock order: alone, never together with `persisting`.
    committing: Mutex<()>,
    persisting: Mutex<Persisting>,
    /// The first fault of a write, after which none is tried.
    latch: Mutex<Option<String>>,
    /// Keys removed since [`Engine::rewrite`] was last worth a look.
    removed: AtomicU64,
    /// When [`EmbeddedEngine::relieve`] was last tried; used under `committing`.
    relieved: Mutex<Option<Instant>>,
}

struct Persisting {
    /// Every commit up to this one is on the disk.
    upto: u64,
    /// The journal as it was last time, to be synced.
    journal: Option<(u64, File)>,
    /// `DIR/persisted`.
    note: File,
}

impl std::fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedEngine").field("folder", &self.folder).field("last", &self.last).finish()
    }
}

fn engine_fault(action: &'static str) -> impl FnOnce(fjall::Error) -> StoreFault {
    move |source| StoreFault::Engine { action, source: Box::new(source) }
}

fn disk_fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreFault {
    let path = path.to_path_buf();
    move |source| StoreFault::Disk { action, path, source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedEngine {
    /// Opens the engine in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// The files cannot be read or written, are damaged, are in use by another process, or miss commits
    /// ([`StoreFault::CommitsLost`]).
    pub fn open(folder: &Path, options: &EmbeddedOptions) -> Result<Self, StoreFault> {
        let (db, keyspace) = open_database(&folder.join("db"), options)?;
        let found = match keyspace.get(keys::COMMIT).map_err(engine_fault("read its last commit"))? {
            Some(bytes) => {
                let bytes: Result<[u8; 8], _> = bytes[..].try_into();
                u64::from_le_bytes(bytes.map_err(|_| StoreFault::damaged(keys::COMMIT, "not a number"))?)
            }
            None => 0,
        };
        let path = folder.join("persisted");
        let note = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let note = note.map_err(disk_fault("open", &path))?;
        let persisted = read_note(&note).map_err(disk_fault("read", &path))?;
        if persisted > found {
            if !options.accept_lost_commits {
                return Err(StoreFault::CommitsLost {
                    persisted: CommitSeq(persisted),
                    found: CommitSeq(found),
                });
            }
            write_note(&note, found).map_err(disk_fault("write", &path))?;
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            keyspace,
            db,
            known: KeyCache::new(options.key_cache_bytes),
            room: Arc::clone(&options.room),
            last: AtomicU64::new(found),
            committing: Mutex::new(()),
            persisting: Mutex::new(Persisting { upto: persisted.min(found), journal: None, note }),
            latch: Mutex::new(None),
            removed: AtomicU64::new(0),
            relieved: Mutex::new(None),
        })
    }

    fn check_latch(&self) -> Result<(), StoreFault> {
        match &*lock(&self.latch) {
            Some(cause) => Err(StoreFault::Latched { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Notes a fault after which nothing is written any more.
    fn latched(&self, fault: StoreFault) -> StoreFault {
        lock(&self.latch).get_or_insert_with(|| fault.to_string());
        fault
    }

    /// No room: what was removed gives its room back only when its tombstones reach the sorted files, so they are sent
    /// there, and the result is waited for.
    fn relieve(&self, bytes: u64) -> Result<(), StoreFault> {
        let now = Instant::now();
        let mut relieved = lock(&self.relieved);
        if relieved.is_some_and(|last| now - last < RELIEF_PAUSE) {
            return Err(StoreFault::Full);
        }
        *relieved = Some(now);
        self.keyspace
            .rotate_memtable()
            .map_err(engine_fault("write its memory out"))
            .map_err(|f| self.latched(f))?;
        while now.elapsed() < RELIEF_PATIENCE {
            std::thread::sleep(RELIEF_POLL);
            if (self.room)(bytes).is_ok() {
                return Ok(());
            }
        }
        Err(StoreFault::Full)
    }

    /// Syncs the newest journal; older ones were synced before it was begun.
    fn sync_journal(&self, cached: &mut Option<(u64, File)>) -> Result<(), StoreFault> {
        let db = self.folder.join("db");
        let path = |number: u64| db.join(format!("{number}.jnl"));
        let known = cached.as_ref().map(|(number, _)| *number);
        let mut newest = match known {
            Some(number) => number,
            None => match newest_journal(&db).map_err(disk_fault("list", &db))? {
                Some(number) => number,
                // Not where it was in the version this was written for: the slow way is still right.
                None => return self.db.persist(PersistMode::SyncData).map_err(engine_fault("sync")),
            },
        };
        while path(newest + 1).try_exists().map_err(disk_fault("look for", &path(newest + 1)))? {
            newest += 1;
        }
        if known != Some(newest) {
            let file = File::open(path(newest)).map_err(disk_fault("open", &path(newest)))?;
            *cached = Some((newest, file));
        }
        let (_, file) = cached.as_ref().expect("set above");
        file.sync_data().map_err(disk_fault("sync", &path(newest)))
    }
}

/// fjall panics on some kinds of damage; to the operator that is one more way of not being able to open.
fn open_database(path: &Path, options: &EmbeddedOptions) -> Result<(Database, Keyspace), StoreFault> {
    std::fs::create_dir_all(path).map_err(disk_fault("make", path))?;
    let memtable_bytes = options.memtable_bytes.clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX);
    let cache_bytes = options.cache_bytes;
    let open = move || {
        let db = Database::builder(path)
            .cache_size(cache_bytes)
            .worker_threads(WORKERS)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNALS_BYTES)
            .open()?;
        let levels = Arc::new(Leveled::default().with_table_target_size(TABLE_MEMTABLES * memtable_bytes));
        let tree =
            || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes).compaction_strategy(levels);
        let keyspace = db.keyspace("meta", tree)?;
        Ok((db, keyspace))
    };
    match std::panic::catch_unwind(open) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Locked)) => Err(StoreFault::InUse { path: path.to_path_buf() }),
        Ok(Err(fjall::Error::Io(source))) => Err(disk_fault("open the metadata in", path)(source)),
        Ok(Err(source)) => Err(engine_fault("open its files")(source)),
        Err(_) => Err(StoreFault::Unreadable { path: path.to_path_buf() }),
    }
}

impl View for EmbeddedEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreFault> {
        self.known.get(key, || Ok(self.keyspace.get(key).map_err(engine_fault("read"))?.map(Value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreFault> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut found = self.db.snapshot().range::<&[u8], _>(&self.keyspace, range);
        let next = |found: &mut fjall::Iter| match order {
            Order::Forward => found.next(),
            Order::Reverse => found.next_back(),
        };
        while let Some(guard) = next(&mut found) {
            let (key, value) = guard.into_inner().map_err(engine_fault("scan"))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Engine for EmbeddedEngine {
    fn commit(&self, changes: &Changes) -> Result<CommitSeq, StoreFault> {
        let _one_at_a_time = lock(&self.committing);
        self.check_latch()?;
        let bytes = changes.bytes() * WRITE_AMPLIFICATION;
        if (self.room)(bytes).is_err() {
            self.relieve(bytes)?;
        }
        let number = self.last.load(Ordering::Relaxed) + 1;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), changes.len() + 1);
        // In order, so that the places in memory where neighbours go are still near.
        let mut writes: Vec<_> = changes.iter().collect();
        writes.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key.0.clone(), value.0.clone()),
                None => batch.remove(&self.keyspace, key.0.clone()),
            }
        }
        batch.insert(&self.keyspace, keys::COMMIT, number.to_le_bytes());
        let batch = batch.durability(Some(PersistMode::Buffer));
        let known = self.known.begin();
        batch.commit().map_err(engine_fault("commit")).map_err(|fault| self.latched(fault))?;
        known.done(changes);
        self.last.store(number, Ordering::Release);
        let removed = changes.iter().filter(|(_, value)| value.is_none()).count();
        self.removed.fetch_add(removed as u64, Ordering::Relaxed);
        Ok(CommitSeq(number))
    }

    fn persist(&self) -> Result<(), StoreFault> {
        let wanted = self.last_commit().0;
        let mut state = lock(&self.persisting);
        self.check_latch()?;
        if state.upto >= wanted {
            return Ok(());
        }
        // Commits that came while another thread was syncing go along.
        let upto = self.last_commit().0;
        self.sync_journal(&mut state.journal).map_err(|fault| self.latched(fault))?;
        state.upto = upto;
        write_note(&state.note, upto).map_err(disk_fault("write", &self.folder.join("persisted")))
    }

    /// The engine's own compactions leave a removed key in a deep level alone until enough was written over it.
    fn rewrite(&self, room_bytes: u64) -> Result<bool, StoreFault> {
        if self.removed.load(Ordering::Relaxed) < REWRITE_REMOVED {
            return Ok(false);
        }
        self.removed.store(0, Ordering::Relaxed);
        let most = room_bytes.min(self.keyspace.disk_space() / 2);
        let mut alive = 0;
        self.scan(&[], &[0xFF; 8], Order::Forward, &mut |key, value| {
            alive += (key.len() + value.len()) as u64;
            if alive > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if alive > most {
            return Ok(false);
        }
        let failed = |fault| self.latched(engine_fault("rewrite its files")(fault));
        self.keyspace.rotate_memtable_and_wait().map_err(failed)?;
        self.keyspace.major_compact().map_err(failed)?;
        // fjall deletes the old files when the next table in memory is written out, so one with a key is needed.
        let written = {
            let _one_at_a_time = lock(&self.committing);
            self.keyspace.insert(keys::COMMIT, self.last.load(Ordering::Relaxed).to_le_bytes())
        };
        written.map_err(failed)?;
        self.keyspace.rotate_memtable_and_wait().map_err(failed)?;
        Ok(true)
    }

    fn last_commit(&self) -> CommitSeq {
        CommitSeq(self.last.load(Ordering::Acquire))
    }

    fn disk_bytes(&self) -> Result<u64, StoreFault> {
        folder_bytes(&self.folder).map_err(disk_fault("list", &self.folder))
    }
}

#[cfg(test)]
mod tests;
