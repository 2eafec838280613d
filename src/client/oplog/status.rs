//! Numbers of the log, for the operator.

use super::Log;
use std::time::Duration;

/// Since the mount began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) batches: u64,
    pub(super) batched: u64,
    pub(super) syncs: u64,
    pub(super) folded: u64,
    pub(super) rejected: u64,
    pub(super) lost: u64,
}

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct LogStatus {
    /// Mutations accepted so far.
    pub accepted: u64,
    /// Frames of mutations sent so far, replays left out.
    pub batches: u64,
    /// Mutations in them.
    pub batched: u64,
    /// Syncs asked for.
    pub syncs: u64,
    /// Mutations that others made superfluous before they were sent.
    pub folded: u64,
    /// Mutations that the server refused.
    pub rejected: u64,
    /// Mutations whose session or server was lost before they were known to be safe.
    pub lost: u64,
    /// Mutations not applied yet.
    pub waiting: usize,
    /// Most of these at present: 100 ms of the server's work.
    pub waiting_max: usize,
    /// Mutations not durable yet.
    pub kept: usize,
    /// Bytes of memory of these.
    pub kept_bytes: usize,
    /// Callers that wait for room.
    pub parked: usize,
    /// Closures that wait for a ticket to be applied or durable.
    pub barriers: usize,
    /// Frames without an answer.
    pub in_flight: usize,
    /// Frames that may be without an answer, at present.
    pub window: usize,
    /// Mutations that are sent without waiting for more, at present.
    pub batch_operations: u64,
    /// Microseconds an idle log gathers.
    pub gather_us: u64,
    /// Microseconds the oldest mutation waits for company in traffic, at present.
    pub age_us: u64,
    /// Round trip of a batch in microseconds, smoothed.
    pub rtt_us: u64,
    /// Mutations the server does in a second when it is kept busy, as measured; 0: not known yet.
    pub drain_per_second: u64,
}

impl Log {
    /// Numbers for the operator.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        LogStatus {
            accepted: self.counts.accepted,
            batches: self.counts.batches,
            batched: self.counts.batched,
            syncs: self.counts.syncs,
            folded: self.counts.folded,
            rejected: self.counts.rejected,
            lost: self.counts.lost,
            waiting: self.weight.waiting,
            waiting_max: self.pace.operations_max(self.limits.waiting_max),
            kept: self.weight.kept,
            kept_bytes: self.weight.bytes,
            parked: self.parked.len(),
            barriers: self.applied_barriers.len() + self.durable_barriers.len(),
            in_flight: self.weight.in_flight,
            window: self.pace.window(),
            batch_operations: self.pace.batch_operations(),
            gather_us: micros(self.limits.gather),
            age_us: micros(self.pace.age_max(self.limits.age_max)),
            rtt_us: micros(self.pace.rtt()),
            drain_per_second: self.pace.drain(),
        }
    }
}

#[cfg(test)]
impl Log {
    /// Bytes of memory, counted.
    pub(super) fn heap_bytes(&self) -> usize {
        let rejected: usize = self.segments.iter().map(super::Segment::rejected_bytes).sum();
        self.weight.bytes
            + self.segments.capacity() * size_of::<super::Segment>()
            + rejected
            + self.folds.heap_bytes()
    }
}
