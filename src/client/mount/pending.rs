//! Requests that an interrupt could end, by the kernel's number for them.
//!
//! An interrupt may overtake its request: the kernel sends the two by different ways. What comes too early is
//! remembered for a while, so that a wait for a lock does not begin that nobody can end.

use crate::client::link::Sequence;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Interrupts remembered, per shard. They are rare, and those of requests that have been answered are forgotten here.
const EARLY_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// On its way to the link.
    Asking { interrupted: bool },
    /// The link has it.
    Asked(Sequence),
}

#[derive(Debug, Default)]
struct Shard {
    requests: FxHashMap<u64, Stage>,
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
    /// A request is going to be asked. False: it was interrupted already, and is not to be asked.
    #[must_use]
    pub(super) fn begin(&self, unique: u64) -> bool {
        let mut shard = self.shard(unique);
        if let Some(at) = shard.early.iter().position(|early| *early == unique) {
            shard.early.remove(at);
            return false;
        }
        shard.requests.insert(unique, Stage::Asking { interrupted: false });
        true
    }

    /// The link has it. True: an interrupt came in between.
    #[must_use]
    pub(super) fn asked(&self, unique: u64, sequence: Sequence) -> bool {
        let mut shard = self.shard(unique);
        match shard.requests.get_mut(&unique) {
            Some(stage) => {
                let interrupted = matches!(stage, Stage::Asking { interrupted: true });
                *stage = Stage::Asked(sequence);
                interrupted
            }
            // Answered before the link's call returned.
            None => false,
        }
    }

    /// It is answered.
    pub(super) fn end(&self, unique: u64) {
        self.shard(unique).requests.remove(&unique);
    }

    /// An interrupt came. Gives the request to interrupt, if the link has it.
    #[must_use]
    pub(super) fn interrupt(&self, unique: u64) -> Option<Sequence> {
        let mut shard = self.shard(unique);
        match shard.requests.get_mut(&unique) {
            Some(Stage::Asked(sequence)) => return Some(*sequence),
            Some(Stage::Asking { interrupted }) => *interrupted = true,
            None => {
                if shard.early.len() == EARLY_MAX {
                    shard.early.pop_front();
                }
                shard.early.push_back(unique);
            }
        }
        None
    }

    fn shard(&self, unique: u64) -> MutexGuard<'_, Shard> {
        // The kernel counts by 2, and queues count apart in the upper bits.
        let index = usize::try_from((unique >> 1) % SHARDS as u64).unwrap_or(0);
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{EARLY_MAX, Pending};
    use crate::client::link::Sequence;

    #[test]
    fn an_interrupt_finds_its_request_at_every_stage() {
        let pending = Pending::default();
        assert_eq!(pending.interrupt(2), None);
        assert!(!pending.begin(2), "it came before the request");
        assert!(pending.begin(4));
        assert_eq!(pending.interrupt(4), None);
        assert!(pending.asked(4, Sequence(9)), "it came between");
        assert_eq!(pending.interrupt(4), Some(Sequence(9)));
        pending.end(4);
        assert!(!pending.asked(4, Sequence(9)));
    }

    #[test]
    fn early_interrupts_are_bounded() {
        let pending = Pending::default();
        for n in 0..10 * EARLY_MAX as u64 {
            assert_eq!(pending.interrupt(32 * n), None);
        }
        assert!(pending.begin(0) && !pending.begin(32 * (10 * EARLY_MAX as u64 - 1)));
    }
}
