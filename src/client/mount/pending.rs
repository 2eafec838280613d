//! Requests that an interrupt could end, by the kernel's number for them.
//!
//! An interrupt may overtake its request: the kernel sends the two by different ways. What comes too early is
//! remembered for a while, so that a wait for a lock does not begin that nobody can end.

use super::watch::Asker;
use crate::client::link::Sequence;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Interrupts remembered, per shard. They are rare, and those of requests that have been answered are forgotten here.
const EARLY_MAX: usize = 64;

/// A request that is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    /// Who waits for it.
    pub(super) asker: Asker,
    /// It waits for a lock: every signal ends it.
    pub(super) lock: bool,
    /// Its number at the link; absent while it is on its way there.
    pub(super) sequence: Option<Sequence>,
    /// It waits for the log before it goes to the link, and can be called off there.
    pub(super) behind: bool,
    interrupted: bool,
}

#[derive(Debug, Default)]
struct Shard {
    requests: FxHashMap<u64, Request>,
    early: VecDeque<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pending(Box<[Mutex<Shard>]>);

impl Default for Pending {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Pending {
    /// A request is going to be asked.
    pub(super) fn begin(&self, asker: Asker, lock: bool) {
        let _interrupted_before = self.add(asker, lock, false);
    }

    /// A request waits for the log. True: an interrupt came before.
    #[must_use]
    pub(super) fn wait(&self, asker: Asker, lock: bool) -> bool {
        self.add(asker, lock, true)
    }

    fn add(&self, asker: Asker, lock: bool, behind: bool) -> bool {
        let mut shard = self.shard(asker.unique);
        let early = shard.early.iter().position(|early| *early == asker.unique);
        if let Some(at) = early {
            shard.early.remove(at);
        }
        let request = Request { asker, lock, sequence: None, behind, interrupted: early.is_some() };
        shard.requests.insert(asker.unique, request);
        early.is_some()
    }

    /// The link has it. True: an interrupt came before.
    #[must_use]
    pub(super) fn asked(&self, unique: u64, sequence: Sequence) -> bool {
        match self.shard(unique).requests.get_mut(&unique) {
            Some(request) => {
                request.sequence = Some(sequence);
                request.interrupted
            }
            // Answered before the link's call returned.
            None => false,
        }
    }

    /// It is answered.
    pub(super) fn end(&self, unique: u64) {
        self.shard(unique).requests.remove(&unique);
    }

    /// An interrupt came. False: what it is for is not known, or not at the link yet, and will be told of it.
    #[must_use]
    pub(super) fn interrupt(&self, unique: u64) -> bool {
        let mut shard = self.shard(unique);
        if let Some(request) = shard.requests.get_mut(&unique) {
            request.interrupted = true;
            return request.sequence.is_some() || request.behind;
        }
        if shard.early.len() == EARLY_MAX {
            shard.early.pop_front();
        }
        shard.early.push_back(unique);
        false
    }

    /// The request, while it is without an answer.
    #[must_use]
    pub(super) fn get(&self, unique: u64) -> Option<Request> {
        self.shard(unique).requests.get(&unique).copied()
    }

    fn shard(&self, unique: u64) -> MutexGuard<'_, Shard> {
        // The kernel counts by 2, and queues count apart in the upper bits.
        let index = usize::try_from((unique >> 1) % SHARDS as u64).unwrap_or(0);
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asker, EARLY_MAX, Pending};
    use crate::client::link::Sequence;

    fn asker(unique: u64) -> Asker {
        Asker { unique, pid: 1 }
    }

    #[test]
    fn an_interrupt_finds_its_request_at_every_stage() {
        let pending = Pending::default();
        assert!(!pending.interrupt(2), "it came before the request");
        pending.begin(asker(2), true);
        assert!(pending.asked(2, Sequence(8)));
        pending.begin(asker(4), true);
        assert!(!pending.interrupt(4));
        assert!(pending.asked(4, Sequence(9)), "it came between");
        pending.begin(asker(6), false);
        assert!(!pending.asked(6, Sequence(10)));
        assert!(pending.interrupt(6));
        assert_eq!(pending.get(6).and_then(|request| request.sequence), Some(Sequence(10)));
        pending.end(6);
        assert_eq!(pending.get(6), None);
        assert!(!pending.asked(6, Sequence(10)));
    }

    #[test]
    fn early_interrupts_are_bounded() {
        let pending = Pending::default();
        let last = 32 * (10 * EARLY_MAX as u64 - 1);
        for unique in (0..=last).step_by(32) {
            assert!(!pending.interrupt(unique));
        }
        pending.begin(asker(0), true);
        pending.begin(asker(last), true);
        assert!(!pending.asked(0, Sequence(1)) && pending.asked(last, Sequence(2)));
    }
}
