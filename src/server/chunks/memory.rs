//! Segments in memory, for tests of what stands above. Nothing survives it.

use super::{ChunkFault, ChunkStore, ChunkTag, Record, SEGMENT_BYTES, Segment, record};
use crate::base::{ChunkId, ChunkPlace, SegmentId};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Chunks in memory.
#[derive(Debug)]
pub struct MemoryChunks {
    segment_bytes: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Records by position.
    segments: BTreeMap<SegmentId, BTreeMap<u32, (ChunkTag, Vec<u8>)>>,
    /// Where the next record goes; `sealed`: not here.
    current: SegmentId,
    tail: u32,
    sealed: bool,
}

impl MemoryChunks {
    /// An empty store with segments of [`SEGMENT_BYTES`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_segment_bytes(SEGMENT_BYTES)
    }

    /// An empty store with smaller segments.
    #[must_use]
    pub fn with_segment_bytes(segment_bytes: u32) -> Self {
        let state = State { segments: BTreeMap::new(), current: SegmentId(0), tail: 0, sealed: true };
        Self { segment_bytes, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryChunks {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkStore for MemoryChunks {
    fn append(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault> {
        record::encode_head(tag, bytes)?;
        let mut state = self.state();
        let len = u32::try_from(bytes.len()).expect("checked by encode_head");
        let record_bytes = u32::try_from(crate::base::place::record_bytes(len)).expect("a chunk is small");
        if state.sealed || state.tail.saturating_add(record_bytes) > self.segment_bytes {
            state.current.0 += 1;
            state.tail = 0;
            state.sealed = false;
        }
        let place = ChunkPlace { segment: state.current, position: state.tail, len };
        state.tail += record_bytes;
        state.segments.entry(place.segment).or_default().insert(place.position, (tag, bytes.to_vec()));
        Ok(place)
    }

    fn read(&self, chunk: ChunkId, place: ChunkPlace, from: u32, out: &mut [u8]) -> Result<(), ChunkFault> {
        record::check_range(chunk, place, from, out.len())?;
        let state = self.state();
        let missing = ChunkFault::Missing { segment: place.segment };
        let records = state.segments.get(&place.segment).ok_or(missing)?;
        match records.get(&place.position) {
            Some((tag, bytes)) if tag.chunk == chunk && bytes.len() == place.len as usize => {
                let from = from as usize;
                out.copy_from_slice(&bytes[from..from + out.len()]);
                Ok(())
            }
            _ => Err(ChunkFault::WrongRecord {
                chunk,
                segment: place.segment,
                position: u64::from(place.position),
                why: "no such record",
            }),
        }
    }

    fn sync(&self) -> Result<(), ChunkFault> {
        Ok(())
    }

    fn seal(&self) {
        self.state().sealed = true;
    }

    fn newest(&self) -> SegmentId {
        self.state().current
    }

    fn delete_segment(&self, segment: SegmentId) -> Result<(), ChunkFault> {
        let mut state = self.state();
        if segment >= state.current {
            return Err(ChunkFault::InUse { segment });
        }
        state.segments.remove(&segment).map(drop).ok_or(ChunkFault::Missing { segment })
    }

    fn segments(&self) -> Result<Vec<Segment>, ChunkFault> {
        let state = self.state();
        let bytes = |records: &BTreeMap<u32, (ChunkTag, Vec<u8>)>| {
            records.last_key_value().map_or(0, |(&position, (_, bytes))| {
                let len = u32::try_from(bytes.len()).expect("a chunk is small");
                u64::from(position) + crate::base::place::record_bytes(len)
            })
        };
        Ok(state
            .segments
            .iter()
            .map(|(&id, records)| Segment {
                id,
                bytes: bytes(records),
                sealed: id != state.current || state.sealed,
                deletable: id != state.current,
            })
            .collect())
    }

    fn records(
        &self,
        segment: SegmentId,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<u64, ChunkFault> {
        let found: Vec<Record> = {
            let state = self.state();
            let records = state.segments.get(&segment).ok_or(ChunkFault::Missing { segment })?;
            let record = |(&position, (tag, bytes)): (&u32, &(ChunkTag, Vec<u8>))| {
                let len = u32::try_from(bytes.len()).expect("a chunk is small");
                Record { tag: *tag, place: ChunkPlace { segment, position, len } }
            };
            records.iter().map(record).collect()
        };
        let _all = found.into_iter().try_for_each(visit);
        Ok(0)
    }

    fn close(&self) -> Result<(), ChunkFault> {
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, ChunkFault> {
        Ok(self.segments()?.iter().map(|segment| segment.bytes).sum())
    }
}
