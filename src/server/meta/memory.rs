//! The model of an engine: a sorted map. Nothing survives it.

use super::{Changes, CommitSeq, Engine, Order, StoreFault, Value, View, Visit};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

/// How many keys a scan copies at a time.
const PIECE: usize = 64;

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

    fn some(&self, from: &Bound<Value>, to: &Bound<Value>, order: Order) -> Vec<(Value, Value)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let range = state.map.range((from.clone(), to.clone()));
        let owned = |(key, value): (&Value, &Value)| (key.clone(), value.clone());
        match order {
            Order::Forward => range.take(PIECE).map(owned).collect(),
            Order::Reverse => range.rev().take(PIECE).map(owned).collect(),
        }
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
        let mut from = Bound::Included(Value::from(from));
        let mut to = Bound::Excluded(Value::from(to));
        loop {
            // Copies of a few, so that `visit` may read the engine again without holding its lock twice.
            let found = self.some(&from, &to, order);
            for (key, value) in &found {
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
            let Some((last, _)) = found.last() else { return Ok(()) };
            match order {
                Order::Forward => from = Bound::Excluded(last.clone()),
                Order::Reverse => to = Bound::Excluded(last.clone()),
            }
            if let (Bound::Excluded(from), Bound::Excluded(to)) = (&from, &to)
                && from >= to
            {
                return Ok(());
            }
        }
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
