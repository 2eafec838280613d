//! The locks of one owner on one file: pieces that do not overlap, sorted by their first byte.

/// Last byte a lock can reach; a lock up to here reaches "to the end", however the file grows.
pub(super) const LAST_BYTE: u64 = i64::MAX as u64;

/// Bytes `start..=end` locked in one way. `end` is at most [`LAST_BYTE`], so that `end + 1` is a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Exclusive, else shared.
    pub(super) write: bool,
    /// Told to `GetLock`.
    pub(super) pid: u32,
    /// Handle it was set through; the lock ends with it.
    pub(super) handle: u64,
}

impl Segment {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start <= end && start <= self.end
    }

    /// Whether `next` says the same about the bytes right behind this.
    pub(super) fn continues_in(&self, next: &Self) -> bool {
        self.end + 1 == next.start
            && (self.write, self.pid, self.handle) == (next.write, next.pid, next.handle)
    }
}

/// The pieces that touch `start..=end`.
pub(super) fn touching(all: &[Segment], start: u64, end: u64) -> &[Segment] {
    let from = all.partition_point(|segment| segment.end < start);
    let to = all.partition_point(|segment| segment.start <= end);
    all.get(from..to).unwrap_or(&[])
}

/// Whether every byte of `start..=end` is locked at least as strongly as asked.
pub(super) fn cover(all: &[Segment], start: u64, end: u64, write: bool) -> bool {
    let mut next = start;
    for segment in touching(all, start, end) {
        if segment.start > next || (write && !segment.write) {
            return false;
        }
        next = segment.end + 1;
    }
    next > end
}

/// What is left of `all` when bytes `start..=end` become `new`, or unlocked without one. `new` covers the same bytes.
pub(super) fn replaced(all: &[Segment], start: u64, end: u64, new: Option<Segment>) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::with_capacity(all.len() + 2);
    let mut push = |piece: Segment| match out.last_mut() {
        Some(last) if last.continues_in(&piece) => last.end = piece.end,
        _ => out.push(piece),
    };
    let mut new = new;
    for &segment in all {
        if segment.end < start {
            push(segment);
            continue;
        }
        if segment.overlaps(start, end) && segment.start < start {
            push(Segment { end: start - 1, ..segment });
        }
        if let Some(new) = new.take() {
            push(new);
        }
        if segment.start > end {
            push(segment);
        } else if segment.end > end {
            push(Segment { start: end + 1, ..segment });
        }
    }
    if let Some(new) = new {
        push(new);
    }
    out
}
