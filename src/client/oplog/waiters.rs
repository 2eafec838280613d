//! Who waits for the log: for a ticket to be applied or durable, or for room.

use crate::base::Errno;
use crate::wire::Ticket;
use std::collections::BTreeMap;

/// Called once, when what was waited for is there, or with the reason why it never will be.
pub type Reached = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// Called once, when there is room: the caller tries again, with its turn.
pub type Retry = Box<dyn FnOnce(Turn) + Send>;

/// A place among those who wait for room, which its owner keeps when it finds none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Turn(pub(super) u64);

/// Closures that a step of the log has made due. The caller runs them when it has let go of the log.
#[derive(Default)]
#[must_use = "somebody waits for these"]
pub struct Due {
    pub(super) reached: Vec<(Reached, Result<(), Errno>)>,
    pub(super) retries: Vec<(Turn, Retry)>,
}

impl Due {
    /// Runs them, in their order. The log must not be locked: they use it.
    pub fn run(self) {
        for (reached, result) in self.reached {
            reached(result);
        }
        for (turn, retry) in self.retries {
            retry(turn);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.retries.is_empty()
    }

    /// These, and then others.
    pub fn append(&mut self, mut other: Self) {
        self.reached.append(&mut other.reached);
        self.retries.append(&mut other.retries);
    }
}

impl std::fmt::Debug for Due {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Due")
            .field("reached", &self.reached.len())
            .field("retries", &self.retries.len())
            .finish()
    }
}

/// Waiters by the ticket they wait for.
#[derive(Default)]
pub(super) struct Barriers(BTreeMap<Ticket, Vec<Reached>>);

impl Barriers {
    pub(super) fn add(&mut self, ticket: Ticket, reached: Reached) {
        self.0.entry(ticket).or_default().push(reached);
    }

    /// The highest ticket waited for.
    pub(super) fn highest(&self) -> Option<Ticket> {
        self.0.last_key_value().map(|(ticket, _)| *ticket)
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Everything below `below` is there.
    pub(super) fn pass(&mut self, below: Ticket, due: &mut Due) {
        while let Some(first) = self.0.first_entry()
            && *first.key() < below
        {
            due.reached.extend(first.remove().into_iter().map(|reached| (reached, Ok(()))));
        }
    }

    /// Nothing that is waited for will come.
    pub(super) fn fail(&mut self, errno: Errno, due: &mut Due) {
        let all = std::mem::take(&mut self.0).into_values().flatten();
        due.reached.extend(all.map(|reached| (reached, Err(errno))));
    }
}

/// Waiters for room, in the order in which they came first.
#[derive(Default)]
pub(super) struct Parked {
    /// What each takes of the log's room, and its closure.
    waiting: BTreeMap<Turn, (usize, Retry)>,
    ever: u64,
}

impl Parked {
    pub(super) fn add(&mut self, turn: Option<Turn>, cost: usize, retry: Retry) -> Turn {
        let turn = turn.unwrap_or_else(|| {
            self.ever += 1;
            Turn(self.ever)
        });
        self.waiting.insert(turn, (cost, retry));
        turn
    }

    pub(super) fn remove(&mut self, turn: Turn) -> Option<Retry> {
        self.waiting.remove(&turn).map(|(_, retry)| retry)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What the first takes of the log's room.
    pub(super) fn first_cost(&self) -> Option<usize> {
        self.waiting.first_key_value().map(|(_, (cost, _))| *cost)
    }

    pub(super) fn release(&mut self, due: &mut Due) {
        let all = std::mem::take(&mut self.waiting);
        due.retries.extend(all.into_iter().map(|(turn, (_, retry))| (turn, retry)));
    }
}
