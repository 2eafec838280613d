//! Who waits for whom, and whether one more wait closes a circle.

use super::segments::Segment;
use super::{Holder, LockTable, Mode, Waiter};
use crate::base::Ino;
use crate::wire::LockOwner;
use std::collections::HashSet;

impl LockTable {
    /// Whether `holder`, if it waited for `want`, would wait for itself through others. Edges go from a waiting
    /// owner to each owner that holds what is in its way; only those who wait have edges, so the walk ends after at most
    /// as many steps as there are waiters.
    pub(super) fn closes_circle(&self, ino: Ino, holder: &Holder, want: &Segment) -> bool {
        if matches!(holder.owner, LockOwner::Flock(_)) {
            return false;
        }
        let mut seen: HashSet<Holder> = HashSet::new();
        let mut next: Vec<Holder> = self.obstacles(ino, holder, want).map(|(other, _)| other).collect();
        while let Some(other) = next.pop() {
            if other == *holder {
                return true;
            }
            if !seen.insert(other) {
                continue;
            }
            for (sequence, at) in self.waits.get(&other).into_iter().flatten() {
                let queue = self.files.get(at).into_iter().flat_map(|file| &file.queue);
                let named = |w: &&Waiter| w.holder == other && w.sequence == *sequence;
                for waiter in queue.filter(named).filter(|w| w.mode == Mode::Wait) {
                    next.extend(self.obstacles(*at, &waiter.holder, &waiter.want).map(|(h, _)| h));
                }
            }
        }
        false
    }
}
