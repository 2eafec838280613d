//! What a server keeps on its disk, in memory: it outlives the server, and forgets what was not synced when the power goes.

use ringfs::base::{ChunkId, ChunkPlace, SegmentId};
use ringfs::server::chunks::memory::MemoryChunks;
use ringfs::server::chunks::{ChunkFault, ChunkStore, ChunkTag, Record, Segment};
use ringfs::server::meta::{Changes, CommitSeq, Engine, Order, StoreFault, Value, View, Visit};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Default)]
struct State {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    commits: u64,
}

#[derive(Default)]
struct Plate {
    now: State,
    /// As of the last sync.
    safe: State,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk {
    plate: Arc<Mutex<Plate>>,
    chunks: Arc<MemoryChunks>,
}

impl Disk {
    fn plate(&self) -> MutexGuard<'_, Plate> {
        self.plate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes.
    pub(super) fn lose(&self) {
        let mut plate = self.plate();
        plate.now = plate.safe.clone();
    }

    /// The last commit that survives that.
    pub(super) fn durable(&self) -> u64 {
        self.plate().safe.commits
    }
}

impl View for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreFault> {
        Ok(self.plate().now.map.get(key).map(|value| Value::from(&value[..])))
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreFault> {
        if from >= to {
            return Ok(());
        }
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = {
            let plate = self.plate();
            let range = plate.now.map.range(from.to_vec()..to.to_vec());
            range.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        if order == Order::Reverse {
            found.reverse();
        }
        for (key, value) in found {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Engine for Disk {
    fn commit(&self, changes: &Changes) -> Result<CommitSeq, StoreFault> {
        let mut plate = self.plate();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => plate.now.map.insert(key.to_vec(), value.to_vec()),
                None => plate.now.map.remove(&key[..]),
            };
        }
        plate.now.commits += 1;
        Ok(CommitSeq(plate.now.commits))
    }

    fn persist(&self) -> Result<(), StoreFault> {
        let mut plate = self.plate();
        plate.safe = plate.now.clone();
        Ok(())
    }

    fn last_commit(&self) -> CommitSeq {
        CommitSeq(self.plate().now.commits)
    }

    fn disk_bytes(&self) -> Result<u64, StoreFault> {
        Ok(0)
    }
}

impl ChunkStore for Disk {
    fn append(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault> {
        self.chunks.append(tag, bytes)
    }

    fn read(&self, chunk: ChunkId, place: ChunkPlace, from: u32, out: &mut [u8]) -> Result<(), ChunkFault> {
        self.chunks.read(chunk, place, from, out)
    }

    fn sync(&self) -> Result<(), ChunkFault> {
        self.chunks.sync()
    }

    fn seal(&self) {
        self.chunks.seal();
    }

    fn newest(&self) -> SegmentId {
        self.chunks.newest()
    }

    fn delete_segment(&self, segment: SegmentId) -> Result<(), ChunkFault> {
        self.chunks.delete_segment(segment)
    }

    fn segments(&self) -> Result<Vec<Segment>, ChunkFault> {
        self.chunks.segments()
    }

    fn records(
        &self,
        segment: SegmentId,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<u64, ChunkFault> {
        self.chunks.records(segment, visit)
    }

    fn close(&self) -> Result<(), ChunkFault> {
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, ChunkFault> {
        Ok(0)
    }
}
