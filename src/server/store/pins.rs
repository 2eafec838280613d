//! Chunks that are written but not yet in the metadata look like garbage. A pin says that they are not.

use crate::base::{ChunkId, ChunkPlace, SegmentId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A chunk that was just stored. Dropping it, after the commit that enters it or instead of one, lets the garbage
/// collector look at its segment again.
#[derive(Debug)]
pub struct Appended {
    /// Its number.
    pub chunk: ChunkId,
    /// Where it lies.
    pub place: ChunkPlace,
    pub(super) _pin: Pin,
}

/// Who holds which segments.
#[derive(Debug, Default)]
pub(super) struct Pins {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Appends in progress: each will end up in this segment or a newer one.
    from: BTreeMap<SegmentId, usize>,
    /// Chunks that wait for their commit.
    exact: BTreeMap<SegmentId, usize>,
}

impl Held {
    fn covers(&self, segment: SegmentId) -> bool {
        let from = self.from.first_key_value().is_some_and(|(&oldest, _)| oldest <= segment);
        from || self.exact.contains_key(&segment)
    }
}

fn add(counts: &mut BTreeMap<SegmentId, usize>, segment: SegmentId) {
    *counts.entry(segment).or_default() += 1;
}

fn remove(counts: &mut BTreeMap<SegmentId, usize>, segment: SegmentId) {
    let count = counts.get_mut(&segment).expect("pinned before");
    *count -= 1;
    if *count == 0 {
        counts.remove(&segment);
    }
}

impl Pins {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an append. `newest` is asked under the lock, so that no segment older than what it says is used.
    pub(super) fn writing(pins: &Arc<Self>, newest: impl FnOnce() -> SegmentId) -> Writing {
        let mut held = pins.held();
        let from = newest();
        add(&mut held.from, from);
        drop(held);
        Writing { pins: Arc::clone(pins), from }
    }

    /// Whether somebody writes to the segment, or waits to enter a chunk of it.
    pub(super) fn covers(&self, segment: SegmentId) -> bool {
        self.held().covers(segment)
    }
}

/// An append in progress.
pub(super) struct Writing {
    pins: Arc<Pins>,
    from: SegmentId,
}

impl Writing {
    /// The append is done and went to `segment`.
    pub(super) fn wrote(self, segment: SegmentId) -> Pin {
        add(&mut self.pins.held().exact, segment);
        Pin { pins: Arc::clone(&self.pins), segment }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        remove(&mut self.pins.held().from, self.from);
    }
}

/// Keeps one segment from being collected.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Arc<Pins>,
    segment: SegmentId,
}

impl Drop for Pin {
    fn drop(&mut self) {
        remove(&mut self.pins.held().exact, self.segment);
    }
}

#[cfg(test)]
mod tests {
    use super::Pins;
    use crate::base::SegmentId;
    use std::sync::Arc;

    #[test]
    fn a_segment_is_held_from_before_the_append_until_after_the_commit() {
        let pins = Arc::new(Pins::default());
        let writing = Pins::writing(&pins, || SegmentId(3));
        assert!(!pins.covers(SegmentId(2)) && pins.covers(SegmentId(3)) && pins.covers(SegmentId(9)));
        let pin = writing.wrote(SegmentId(4));
        assert!(!pins.covers(SegmentId(3)) && pins.covers(SegmentId(4)) && !pins.covers(SegmentId(5)));
        drop(pin);
        assert!(!pins.covers(SegmentId(4)));
    }
}
