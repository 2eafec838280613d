//! The model of an engine: a sorted map. Nothing survives it.

use super::{Changes, CommitSeq, Engine, Order, StoreFault, Value, View, Visit};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

/// Keys in memory.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    map: BTreeMap<Value, Value>,
    commits: u64,
}

impl MemoryEngine {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl View for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreFault> {
        Ok(self.state.read().unwrap_or_else(PoisonError::into_inner).map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreFault> {
        if from >= to {
            return Ok(());
        }
        // A copy, so that `visit` may read the engine again without holding its lock twice.
        let found: Vec<(Value, Value)> = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let range = state.map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
            range.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let each = |(key, value): &(Value, Value)| visit(key, value).is_break();
        match order {
            Order::Forward => found.iter().any(each),
            Order::Reverse => found.iter().rev().any(each),
        };
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn commit(&self, changes: &Changes) -> Result<CommitSeq, StoreFault> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes.iter() {
            match value {
                Some(value) => state.map.insert(key.clone(), value.clone()),
                None => state.map.remove(key),
            };
        }
        state.commits += 1;
        Ok(CommitSeq(state.commits))
    }

    fn persist(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    fn last_commit(&self) -> CommitSeq {
        CommitSeq(self.state.read().unwrap_or_else(PoisonError::into_inner).commits)
    }

    fn disk_bytes(&self) -> Result<u64, StoreFault> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok(state.map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
