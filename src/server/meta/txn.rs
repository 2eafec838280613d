//! A transaction: an overlay of writes over an engine.

use super::changes::Undo;
use super::{Changes, CommitSeq, Engine, Order, StoreFault, Txn, Value, View, Visit, counters};
use std::cell::RefCell;
use std::ops::ControlFlow;

/// The one kind of [`Txn`]: nothing is stored before [`WriteTxn::commit`]; dropped, it never was.
pub struct WriteTxn<'e> {
    engine: &'e dyn Engine,
    changes: Changes,
    /// What each write replaced in `changes`, oldest first: the way back to a savepoint.
    undo: Vec<Undo>,
    /// Inodes and bytes that came and went: counted once, at the commit.
    counted: (i64, i64),
    recent: RefCell<Recent>,
}

/// The engine's last few answers. A name is looked up to see what it stands for and once more to change its bucket, which
/// costs the engine as much as the change. Nobody else writes meanwhile.
#[derive(Default)]
struct Recent {
    answers: [Option<(Value, Option<Value>)>; RECENT],
    next: usize,
}

/// One mutation reads about as many keys.
const RECENT: usize = 4;

/// A point to which [`WriteTxn::rollback`] can return.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    writes: usize,
    counted: (i64, i64),
}

impl<'e> WriteTxn<'e> {
    /// An empty transaction. The caller holds the writer's lock until the commit has returned.
    #[must_use]
    pub fn new(engine: &'e dyn Engine) -> Self {
        Self {
            engine,
            changes: Changes::default(),
            undo: Vec::new(),
            counted: (0, 0),
            recent: RefCell::default(),
        }
    }

    /// Stores the writes; without any it stores nothing and returns the last commit's number.
    ///
    /// # Errors
    /// See [`Engine::commit`].
    pub fn commit(mut self) -> Result<CommitSeq, StoreFault> {
        let (inodes, bytes) = std::mem::take(&mut self.counted);
        counters::count(&mut self, inodes, bytes)?;
        if self.changes.is_empty() {
            return Ok(self.engine.last_commit());
        }
        self.engine.commit(&self.changes)
    }

    /// The writes so far.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Marks where the transaction stands: one mutation of a batch may fail without taking the others along.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { writes: self.undo.len(), counted: self.counted }
    }

    /// Forgets the writes made since `to`.
    ///
    /// # Panics
    /// When `to` belongs to another transaction or was rolled back past already.
    pub fn rollback(&mut self, to: Savepoint) {
        assert!(to.writes <= self.undo.len(), "savepoint {} of {} writes", to.writes, self.undo.len());
        self.counted = to.counted;
        for undo in self.undo.drain(to.writes..).rev() {
            self.changes.undo(undo);
        }
    }

    fn read(&self, key: &[u8]) -> Result<Option<Value>, StoreFault> {
        let mut recent = self.recent.borrow_mut();
        if let Some((_, value)) = recent.answers.iter().flatten().find(|(known, _)| **known == *key) {
            return Ok(value.clone());
        }
        let value = self.engine.get(key)?;
        let at = recent.next % RECENT;
        recent.answers[at] = Some((Value::from(key), value.clone()));
        recent.next = at + 1;
        Ok(value)
    }

    fn write(&mut self, key: &[u8], value: Option<Value>) {
        let undo = self.changes.set(key, value);
        self.undo.push(undo);
    }
}

impl Txn for WriteTxn<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.write(key, Some(Value::from(value)));
    }

    fn delete(&mut self, key: &[u8]) {
        self.write(key, None);
    }

    fn add_usage(&mut self, inodes: i64, bytes: i64) {
        self.counted.0 = self.counted.0.saturating_add(inodes);
        self.counted.1 = self.counted.1.saturating_add(bytes);
    }
}

impl View for WriteTxn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreFault> {
        match self.changes.get(key) {
            Some(write) => Ok(write.clone()),
            None => self.read(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<(), StoreFault> {
        if from >= to {
            return Ok(());
        }
        let own = self.changes.range(from, to).into_iter();
        match order {
            Order::Forward => merge(self.engine, from, to, order, own, visit),
            Order::Reverse => merge(self.engine, from, to, order, own.rev(), visit),
        }
    }
}

/// Visits the engine's keys and the transaction's own in one order; at the same key its own write wins.
fn merge<'w>(
    engine: &dyn Engine,
    from: &[u8],
    to: &[u8],
    order: Order,
    own: impl Iterator<Item = (&'w Value, &'w Option<Value>)>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreFault> {
    let mut own = own.peekable();
    let before = |a: &[u8], b: &[u8]| if order == Order::Forward { a < b } else { a > b };
    let mut ended = false;
    engine.scan(from, to, order, &mut |key, value| {
        while let Some((mine, write)) = own.next_if(|(mine, _)| before(mine, key)) {
            if let Some(value) = write
                && visit(mine, value).is_break()
            {
                ended = true;
                return ControlFlow::Break(());
            }
        }
        let shown = match own.next_if(|(mine, _)| &***mine == key) {
            Some((_, write)) => write.as_deref(),
            None => Some(value),
        };
        let flow = shown.map_or(ControlFlow::Continue(()), |value| visit(key, value));
        ended = flow.is_break();
        flow
    })?;
    if ended {
        return Ok(());
    }
    for (mine, write) in own {
        if let Some(value) = write
            && visit(mine, value).is_break()
        {
            break;
        }
    }
    Ok(())
}
