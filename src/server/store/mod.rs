//! A store: metadata and chunks of one volume, in one folder (or in memory), with what belongs to both.
//!
//! ```text
//! DIR/format         "ringfs store format 1": written last when a store is made, read first when it is opened
//! DIR/lock           flock of the process that has it open; its pid, for the message to a second one
//! DIR/meta/          the metadata engine
//! DIR/segments/      the chunks
//! ```
//!
//! Comes in: a folder. Goes out: transactions ([`Store::begin`]), chunks ([`Store::append`]), durability in the right
//! order ([`Store::persist`]: data before the metadata that refers to it). The caller has the one writer's lock.
//! Absent on purpose: POSIX, sessions, and threads of its own; the caller drives [`gc`].

#![forbid(unsafe_code)]

mod fault;

mod folder;

pub mod gc;

mod pins;

mod room;

pub use fault::{Fault, OpenFault};
pub use pins::Appended;
pub use room::Space;

use crate::base::{ChunkId, Errno, Ino, Time};
use crate::server::chunks::local::{LocalChunks, LocalOptions};
use crate::server::chunks::memory::MemoryChunks;
use crate::server::chunks::{ChunkStore, ChunkTag, Why};
use crate::server::meta::embedded::{EmbeddedEngine, EmbeddedOptions};
use crate::server::meta::memory::MemoryEngine;
use crate::server::meta::{
    CommitSeq, Engine, Inode, NameHash, Superblock, WriteTxn, counters, inodes, superblock,
};
use pins::Pins;
use room::Room;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The time, for a new volume and its root directory.
    pub now: Time,
    /// Owner of the root directory of a new volume: user and group.
    pub owner: (u32, u32),
    /// Memory for metadata: half for blocks of the engine's files, half for single keys.
    pub cache_bytes: u64,
    /// Open also when commits are missing that had reached the disk, and go on without them.
    pub accept_lost_commits: bool,
}

impl StoreOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(now: Time, owner: (u32, u32)) -> Self {
        Self { now, owner, cache_bytes: 256 << 20, accept_lost_commits: false }
    }
}

/// What was found when a store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The store was made just now.
    pub fresh: bool,
    /// The last user closed it.
    pub clean: bool,
    /// Bytes at the end of the last segment that a crash left without a whole record.
    pub torn_bytes: u64,
    /// The last commit.
    pub last_commit: CommitSeq,
}

/// A volume's metadata and chunks.
pub struct Store {
    // Dropped in this order: the lock goes when nothing is open any more.
    engine: Box<dyn Engine>,
    chunks: Box<dyn ChunkStore>,
    superblock: Superblock,
    names: NameHash,
    found: Found,
    pins: Arc<Pins>,
    /// Chunk numbers reserved and not yet given out.
    chunk_ids: Mutex<Range<u64>>,
    room: Option<Arc<Room>>,
    _lock: Option<folder::Lock>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("uuid", &self.superblock.uuid_text()).finish_non_exhaustive()
    }
}

/// The folder of the metadata engine.
const META: &str = "meta";

/// Chunk numbers reserved at a time: each time costs a sync.
const CHUNK_IDS_RESERVED: u64 = 1 << 16;

impl Store {
    /// Opens the store in `folder`; makes the folder and a volume in it when it is missing or empty. To be called
    /// after a daemon has forked: the engine has threads.
    ///
    /// # Errors
    /// One line each, naming the remedy: see [`OpenFault`].
    pub fn open(folder: &Path, options: &StoreOptions) -> Result<Self, OpenFault> {
        let (lock, marked) = folder::enter(folder)?;
        let room = Arc::new(Room::new(folder)?);
        if !marked {
            room.check_new(folder)?;
        }
        let (for_engine, for_chunks) = (Arc::clone(&room), Arc::clone(&room));
        let segment_bytes = room.segment_bytes();
        let engine_options = EmbeddedOptions {
            cache_bytes: options.cache_bytes / 2,
            key_cache_bytes: options.cache_bytes / 2,
            room: Arc::new(move |bytes| for_engine.take(bytes, room::Use::Metadata)),
            memtable_bytes: room.memtable_bytes(),
            accept_lost_commits: options.accept_lost_commits,
        };
        let chunk_options = LocalOptions {
            room: Arc::new(move |bytes, why| {
                let purpose = match why {
                    Why::New => room::Use::Growth,
                    Why::Move => room::Use::Collect,
                };
                for_chunks.take(bytes, purpose)
            }),
            segment_bytes,
        };
        let engine = EmbeddedEngine::open(&folder.join(META), &engine_options)?;
        let (chunks, segments) = LocalChunks::open(&folder.join("segments"), &chunk_options)?;
        let superblock = match superblock::get(&engine)? {
            Some(found) => found,
            None if marked => return Err(OpenFault::NoSuperblock { path: folder.to_path_buf() }),
            None => make_volume(&engine, options)?,
        };
        folder::check_format(folder, superblock.format)?;
        if !marked {
            engine.persist()?;
            folder::mark(folder)?;
        }
        let found = Found {
            fresh: !marked,
            clean: segments.clean,
            torn_bytes: segments.torn_bytes,
            last_commit: engine.last_commit(),
        };
        Self::assemble(Box::new(engine), Box::new(chunks), superblock, found, Some((lock, room)))
    }

    /// A new volume in memory, for tests and models: random keys, but all else the same each time.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn memory() -> Result<Self, OpenFault> {
        Self::over(Box::new(MemoryEngine::new()), Box::new(MemoryChunks::new()))
    }

    /// The volume over any two engines; a new one if they have none.
    ///
    /// # Errors
    /// The engine cannot store it; the system has no random numbers.
    pub fn over(engine: Box<dyn Engine>, chunks: Box<dyn ChunkStore>) -> Result<Self, OpenFault> {
        let before = superblock::get(&*engine)?;
        let fresh = before.is_none();
        let superblock = match before {
            Some(found) => found,
            None => make_volume(&*engine, &StoreOptions::new(Time::default(), (0, 0)))?,
        };
        let found = Found { fresh, clean: true, torn_bytes: 0, last_commit: engine.last_commit() };
        Self::assemble(engine, chunks, superblock, found, None)
    }

    fn assemble(
        engine: Box<dyn Engine>,
        chunks: Box<dyn ChunkStore>,
        superblock: Superblock,
        found: Found,
        on_disk: Option<(folder::Lock, Arc<Room>)>,
    ) -> Result<Self, OpenFault> {
        let names = superblock.name_hash()?;
        let (lock, room) = on_disk.unzip();
        Ok(Self {
            engine,
            chunks,
            superblock,
            names,
            found,
            pins: Arc::default(),
            chunk_ids: Mutex::new(0..0),
            room,
            _lock: lock,
        })
    }

    /// The metadata as committed.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The chunks. To append, use [`Store::append`].
    #[must_use]
    pub fn chunks(&self) -> &dyn ChunkStore {
        &*self.chunks
    }

    /// What the volume is.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The volume's hash of names.
    #[must_use]
    pub fn names(&self) -> &NameHash {
        &self.names
    }

    /// What was found at opening.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// A transaction. The caller holds the writer's lock until it is committed or dropped.
    #[must_use]
    pub fn begin(&self) -> WriteTxn<'_> {
        WriteTxn::new(self.engine())
    }

    /// Stores the bytes of a new chunk. They are garbage until [`crate::server::meta::chunk_table::add`] and an extent
    /// are committed: keep the result until that commit has returned, it holds the garbage collector off.
    ///
    /// # Errors
    /// The disk is full or broken; more than [`crate::base::limits::CHUNK_BYTES_MAX`] bytes, or none.
    pub fn append(&self, ino: Ino, bytes: &[u8]) -> Result<Appended, Fault> {
        let chunk = self.next_chunk()?;
        Ok(self.append_as(ChunkTag { chunk, ino }, bytes, Why::New)?)
    }

    fn append_as(
        &self,
        tag: ChunkTag,
        bytes: &[u8],
        why: Why,
    ) -> Result<Appended, crate::server::chunks::ChunkFault> {
        let writing = Pins::writing(&self.pins, || self.chunks.newest());
        let place = match why {
            Why::New => self.chunks.append(tag, bytes)?,
            Why::Move => self.chunks.append_moved(tag, bytes)?,
        };
        Ok(Appended { chunk: tag.chunk, place, _pin: writing.wrote(place.segment) })
    }

    /// A chunk number that nobody has had, even after a loss of power: the reservation is on the disk.
    fn next_chunk(&self) -> Result<ChunkId, Fault> {
        let mut ids = self.chunk_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.is_empty() {
            // The one key that is written without the writer's lock; nobody else reads or writes it.
            let mut txn = self.begin();
            let first = counters::take_chunks(&mut txn, CHUNK_IDS_RESERVED)?;
            txn.commit()?;
            self.engine.persist()?;
            *ids = first.0..first.0 + CHUNK_IDS_RESERVED;
        }
        Ok(ChunkId(ids.next().expect("just filled")))
    }

    /// Returns when every commit that returned before the call, and the chunks it refers to, survive a loss of power.
    ///
    /// # Errors
    /// The disk refused; latches.
    pub fn persist(&self) -> Result<(), Fault> {
        self.chunks.sync()?;
        Ok(self.engine.persist()?)
    }

    /// Whether there is room for something new: `ENOSPC` otherwise. To be asked before each mutation that makes the
    /// volume larger; removing stays possible for a while after this begins to refuse.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn check_room(&self) -> Result<(), Errno> {
        self.room.as_ref().map_or(Ok(()), |room| room.take(0, room::Use::Growth))
    }

    /// Gives back the room of removed metadata when it is worth it; see [`Engine::rewrite`].
    fn rewrite_metadata(&self) -> Result<bool, Fault> {
        let room_bytes = self.room.as_ref().map_or(0, |room| room.rewrite_bytes());
        Ok(self.engine.rewrite(room_bytes)?)
    }

    /// Whether the disk below is full, or will be soon: then also what frees little is worth collecting.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.is_scarce())
    }

    /// The disk below, for statfs. `None` in memory, where there is no end to it.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn space(&self) -> Result<Option<Space>, Fault> {
        self.room.as_ref().map(|room| room.space()).transpose()
    }

    /// Stops in an orderly way: all is on the disk, and the next user goes on in the same segment. To be called last;
    /// without it nothing is lost that was committed.
    ///
    /// # Errors
    /// The disk refused.
    pub fn close(&self) -> Result<(), Fault> {
        self.persist()?;
        Ok(self.chunks.close()?)
    }
}

/// Superblock, root directory and counters of a new volume, committed.
fn make_volume(engine: &dyn Engine, options: &StoreOptions) -> Result<Superblock, OpenFault> {
    let new = Superblock::new(folder::random()?, folder::random()?, options.now);
    let mut txn = WriteTxn::new(engine);
    superblock::put(&mut txn, &new);
    let mode = libc::S_IFDIR | 0o755;
    inodes::put(&mut txn, &Inode::new(Ino::ROOT, mode, options.owner, Ino::ROOT, options.now));
    counters::put_usage(&mut txn, counters::Usage { inodes: 1, bytes: 0 });
    txn.commit()?;
    Ok(new)
}

#[cfg(test)]
mod tests;
