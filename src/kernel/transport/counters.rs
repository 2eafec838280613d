//! What each thread counts. One writer per block and plain loads and stores: counting costs an addition.

use crate::kernel::abi::{Opcode, opcode::OPCODES};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Counters of one thread, alone on their cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct QueueCounters {
    requests: [AtomicU64; OPCODES],
    forgets: AtomicU64,
    enters: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    deferred: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    panics: AtomicU64,
    /// Deferred requests that wait without a bound, now. Begun by the thread, ended by any.
    waits: AtomicUsize,
}

/// Counters that any thread raises: what happens to tokens away from their queue. Each owner of tokens has its own, alone on
/// its cache lines: its thread's own late replies would otherwise fight for a line with those of the other cores.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct SharedCounters {
    late_replies: AtomicU64,
    dropped: AtomicU64,
    wakes: AtomicU64,
    writes: AtomicU64,
    notices: AtomicU64,
    notices_refused: AtomicU64,
    kept: AtomicU64,
}

impl Default for QueueCounters {
    fn default() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; OPCODES],
            forgets: AtomicU64::default(),
            enters: AtomicU64::default(),
            reads: AtomicU64::default(),
            writes: AtomicU64::default(),
            deferred: AtomicU64::default(),
            refused: AtomicU64::default(),
            dropped: AtomicU64::default(),
            panics: AtomicU64::default(),
            waits: AtomicUsize::default(),
        }
    }
}

/// Adds to a counter that only this thread writes: no locked instruction.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

impl QueueCounters {
    pub(super) fn request(&self, opcode: u32) {
        let at = usize::try_from(opcode).ok().filter(|&n| n < OPCODES).unwrap_or(0);
        bump(&self.requests[at], 1);
    }
    pub(super) fn forgets(&self, n: u64) {
        bump(&self.forgets, n);
    }
    pub(super) fn entered(&self) {
        bump(&self.enters, 1);
    }
    pub(super) fn read(&self) {
        bump(&self.reads, 1);
    }
    pub(super) fn wrote(&self) {
        bump(&self.writes, 1);
    }
    pub(super) fn deferred(&self) {
        bump(&self.deferred, 1);
    }
    pub(super) fn refused(&self) {
        bump(&self.refused, 1);
    }
    pub(super) fn dropped(&self) {
        bump(&self.dropped, 1);
    }
    pub(super) fn panicked(&self) {
        bump(&self.panics, 1);
    }
    /// Counts one more that waits, unless there are `most`. Called by the thread alone.
    pub(super) fn wait_began(&self, most: usize) -> bool {
        let room = self.waits.load(Relaxed) < most;
        if room {
            self.waits.fetch_add(1, Relaxed);
        }
        room
    }
    pub(super) fn wait_ended(&self) {
        self.waits.fetch_sub(1, Relaxed);
    }
}

impl SharedCounters {
    pub(super) fn late_reply(&self) {
        self.late_replies.fetch_add(1, Relaxed);
    }
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }
    pub(super) fn woke(&self) {
        self.wakes.fetch_add(1, Relaxed);
    }
    pub(super) fn wrote(&self) {
        self.writes.fetch_add(1, Relaxed);
    }
    pub(super) fn kept(&self, entries: usize) {
        self.kept.fetch_add(entries as u64, Relaxed);
    }
    pub(super) fn notice(&self) {
        self.notices.fetch_add(1, Relaxed);
    }
    pub(super) fn notice_refused(&self) {
        self.notices_refused.fetch_add(1, Relaxed);
    }
}

/// All threads' counters together, at one moment. Single numbers may be a few requests apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Requests by opcode; those of unknown opcodes at 0.
    pub requests: [u64; OPCODES],
    /// References dropped, single or in batches (elements, not messages).
    pub forgets: u64,
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// read(2) calls on the device.
    pub reads: u64,
    /// write(2) calls on the device.
    pub writes: u64,
    /// Requests answered by token.
    pub deferred: u64,
    /// Tokens that have answered.
    pub late_replies: u64,
    /// Times a token had to wake its queue.
    pub wakes: u64,
    /// Requests the transport refused: unknown or malformed.
    pub refused: u64,
    /// Calls and tokens dropped without an answer. Not 0: a bug in the handler.
    pub dropped: u64,
    /// Panics of the handler, each answered EIO.
    pub panics: u64,
    /// Notifications written.
    pub notices: u64,
    /// Notifications refused because the queue was full.
    pub notices_refused: u64,
    /// Entries the kernel had not given back when it should have at the end; their memory stays mapped.
    pub kept: u64,
    /// Times a queue thread has yielded, by going behind all other programs on its core.
    pub yields: u64,
    /// Times one was put back. The difference to `yields` is how many yield now.
    pub put_back: u64,
    /// Times the thread that looks after queues that yield was awake.
    pub yield_looks: u64,
}

impl Counters {
    pub(super) fn collect<'s>(
        queues: &[Arc<QueueCounters>],
        shared: impl Iterator<Item = &'s Arc<SharedCounters>>,
    ) -> Self {
        let mut all = Self {
            requests: [0; OPCODES],
            forgets: 0,
            enters: 0,
            reads: 0,
            writes: 0,
            deferred: 0,
            late_replies: 0,
            wakes: 0,
            refused: 0,
            dropped: 0,
            panics: 0,
            notices: 0,
            notices_refused: 0,
            kept: 0,
            yields: 0,
            put_back: 0,
            yield_looks: 0,
        };
        for one in shared {
            all.writes += one.writes.load(Relaxed);
            all.late_replies += one.late_replies.load(Relaxed);
            all.wakes += one.wakes.load(Relaxed);
            all.dropped += one.dropped.load(Relaxed);
            all.notices += one.notices.load(Relaxed);
            all.notices_refused += one.notices_refused.load(Relaxed);
            all.kept += one.kept.load(Relaxed);
        }
        for queue in queues {
            for (sum, one) in all.requests.iter_mut().zip(&queue.requests) {
                *sum += one.load(Relaxed);
            }
            all.forgets += queue.forgets.load(Relaxed);
            all.enters += queue.enters.load(Relaxed);
            all.reads += queue.reads.load(Relaxed);
            all.writes += queue.writes.load(Relaxed);
            all.deferred += queue.deferred.load(Relaxed);
            all.refused += queue.refused.load(Relaxed);
            all.dropped += queue.dropped.load(Relaxed);
            all.panics += queue.panics.load(Relaxed);
        }
        all
    }

    /// Requests of one kind.
    #[must_use]
    pub fn of(&self, op: Opcode) -> u64 {
        self.requests[op as usize]
    }

    /// Requests of every kind: messages, a batch of FORGETs counting as one.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// The operations that occurred, with their number.
    pub fn by_opcode(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Opcode::ALL.iter().map(|&op| (op.name(), self.of(op))).filter(|&(_, n)| n > 0)
    }
}
