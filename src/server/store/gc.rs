//! Garbage collection of segments, driven by the caller: one [`Collector::round`] now and then.
//!
//! A segment without live chunks is deleted, one that is less than half alive is emptied first. What must hold:
//!
//! 1. A chunk is copied, the copy is synced, and only then the metadata says that it is there: a loss of power in
//!    between finds the old place or the new one, both whole.
//! 2. A segment is deleted only after the commit that freed its last chunk is on the disk, else a loss of power would
//!    bring back metadata that points to nothing.
//! 3. It is deleted only a while later: a reader may have looked a place up and not read yet. On a full disk it goes at
//!    once, and such a reader has to look again.
//! 4. Chunks that are written and not yet committed are pinned, their segments are left alone.

use super::{Appended, Fault, Store};
use crate::base::{ChunkId, ChunkPlace, Errno, SegmentId};
use crate::server::chunks::gc::{SegmentLife, plan};
use crate::server::chunks::{ChunkTag, Record, Why};
use crate::server::meta::{WriteTxn, chunk_table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// Runs its argument while it holds the one writer's lock.
pub type WithWriter<'w> = dyn Fn(&mut dyn FnMut() -> Result<(), Fault>) -> Result<(), Fault> + 'w;

/// What the collector remembers between rounds.
#[derive(Debug)]
pub struct Collector {
    grace: Duration,
    /// Dead segments whose death is on the disk, and when they may go.
    waiting: BTreeMap<SegmentId, Duration>,
    /// Segments with a damaged chunk that is still alive: left as they are, for a person to look at.
    damaged: BTreeSet<SegmentId>,
}

/// What a round has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// Segments deleted.
    pub deleted: usize,
    /// Bytes of records copied out of segments.
    pub moved_bytes: u64,
    /// Whether there is more to copy at once; otherwise the next round can wait.
    pub more: bool,
}

/// Bytes copied between two syncs.
const BATCH_BYTES: u64 = 8 << 20;

/// A chunk that was copied.
struct Moved {
    from: ChunkPlace,
    copy: Appended,
}

impl Collector {
    /// Readers may look up a place and read it within `grace`.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, waiting: BTreeMap::new(), damaged: BTreeSet::new() }
    }

    /// Does what is worth doing, copying about `budget_bytes` at most. `now` is any clock that does not go back.
    ///
    /// On a disk that is full or nearly so more is worth it, and copies go into room that nothing else uses.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn round(
        &mut self,
        store: &Store,
        now: Duration,
        budget_bytes: u64,
        with_writer: &WithWriter<'_>,
    ) -> Result<Done, Fault> {
        let mut done = Done::default();
        let scarce = store.is_scarce();
        let planned = plan(&self.lives(store)?, store.chunks().segment_bytes(), scarce);
        let grace = if scarce { Duration::ZERO } else { self.grace };
        self.delete_dead(store, now, grace, &planned.dead, &mut done)?;
        let mut budget = budget_bytes;
        for segment in planned.compact {
            if self.damaged.contains(&segment) {
                continue;
            }
            match empty(store, segment, &mut budget, with_writer, &mut done)? {
                Rest::Nothing => {}
                Rest::Damaged => {
                    self.damaged.insert(segment);
                }
                Rest::Budget => {
                    done.more = true;
                    break;
                }
                Rest::Full => break,
            }
        }
        if scarce && store.rewrite_metadata()? {
            done.more = true;
        }
        // What was emptied now is deleted in the next round, and makes room for more.
        done.more |= scarce && (done.moved_bytes > 0 || done.deleted > 0);
        Ok(done)
    }

    fn lives(&self, store: &Store) -> Result<Vec<SegmentLife>, Fault> {
        let mut lives = Vec::new();
        for segment in store.chunks().segments()? {
            // The pin is asked before the live bytes: an append that commits in between shows in one of the two.
            let pinned = store.pins.covers(segment.id);
            let live_bytes = chunk_table::live(store.engine(), segment.id)?.bytes;
            lives.push(SegmentLife { segment, live_bytes, pinned });
        }
        Ok(lives)
    }

    fn delete_dead(
        &mut self,
        store: &Store,
        now: Duration,
        grace: Duration,
        dead: &[SegmentId],
        done: &mut Done,
    ) -> Result<(), Fault> {
        self.waiting.retain(|segment, _| dead.contains(segment));
        if dead.iter().any(|segment| !self.waiting.contains_key(segment)) {
            store.persist()?;
            for &segment in dead {
                self.waiting.entry(segment).or_insert(now + grace);
            }
        }
        for due in self.waiting.values_mut() {
            *due = (*due).min(now + grace);
        }
        let due: Vec<SegmentId> =
            self.waiting.iter().filter(|&(_, &at)| at <= now).map(|(&segment, _)| segment).collect();
        for segment in due {
            store.chunks().delete_segment(segment)?;
            self.waiting.remove(&segment);
            done.deleted += 1;
        }
        Ok(())
    }
}

/// What is left in a segment, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    /// No live chunk.
    Nothing,
    /// The budget is used up.
    Budget,
    /// No room for a copy.
    Full,
    /// A live chunk cannot be read.
    Damaged,
}

/// Copies the live chunks of `segment` elsewhere, as far as `budget` goes.
fn empty(
    store: &Store,
    segment: SegmentId,
    budget: &mut u64,
    with_writer: &WithWriter<'_>,
    done: &mut Done,
) -> Result<Rest, Fault> {
    let mut live = live_records(store, segment)?.into_iter().peekable();
    let mut rest = Rest::Nothing;
    while live.peek().is_some() {
        if *budget == 0 {
            return Ok(Rest::Budget);
        }
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while batch_bytes < BATCH_BYTES.min(*budget)
            && let Some(record) = live.next()
        {
            match copy(store, record) {
                Ok(moved) => batch.push(moved),
                // What was copied so far is worth keeping.
                Err(fault) if fault.errno() == Errno::ENOSPC => {
                    rest = Rest::Full;
                    break;
                }
                Err(fault) => {
                    tracing::error!(%fault, %segment, "garbage collection leaves a damaged segment alone");
                    rest = Rest::Damaged;
                }
            }
            batch_bytes += record.place.record_bytes();
        }
        store.chunks().sync()?;
        with_writer(&mut || relocate(store, &batch))?;
        done.moved_bytes += batch_bytes;
        *budget = budget.saturating_sub(batch_bytes);
        if rest == Rest::Full {
            break;
        }
    }
    Ok(rest)
}

fn live_records(store: &Store, segment: SegmentId) -> Result<Vec<Record>, Fault> {
    let mut records = Vec::new();
    store.chunks().records(segment, &mut |record| {
        records.push(record);
        ControlFlow::Continue(())
    })?;
    let mut live = Vec::new();
    for record in records {
        let known = chunk_table::get(store.engine(), record.tag.chunk)?;
        if known.is_some_and(|chunk| chunk.place == record.place) {
            live.push(record);
        }
    }
    Ok(live)
}

fn copy(store: &Store, record: Record) -> Result<Moved, Fault> {
    let Record { tag, place } = record;
    let mut bytes = vec![0; place.len as usize];
    store.chunks().read(tag.chunk, place, 0, &mut bytes)?;
    let copy = store.append_as(ChunkTag { chunk: tag.chunk, ino: tag.ino }, &bytes, Why::Move)?;
    Ok(Moved { from: place, copy })
}

/// Says where the copies are. A chunk that was freed meanwhile stays freed; its copy is garbage.
fn relocate(store: &Store, batch: &[Moved]) -> Result<(), Fault> {
    let mut txn: WriteTxn<'_> = store.begin();
    for Moved { from, copy } in batch {
        let id: ChunkId = copy.chunk;
        let _still_there = chunk_table::relocate(&mut txn, id, *from, copy.place)?;
    }
    txn.commit()?;
    Ok(())
}
