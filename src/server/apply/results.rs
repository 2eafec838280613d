//! Which outcomes are stored for a replay. The outcomes themselves are in the store; here is only which tickets have one,
//! so that a new mutation costs no look-up.

use crate::base::{Errno, SessionId};
use crate::server::meta::{StoreFault, Txn, View, keys, sessions};
use crate::wire::{Outcome, Ticket, outcome};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Most outcomes kept for one session. A client keeps fewer in flight; of one that never settles, the oldest go.
const OUTCOMES_MAX: usize = 1 << 16;

/// What is known of a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Not executed yet.
    New,
    /// Being executed in steps, between which others get the writer's lock.
    Running,
    /// Executed; the outcome is stored.
    Stored,
    /// A local mutation that was done.
    Ran,
    /// Below what is kept: the client has said that it knows the outcome, so this is no honest replay (R7.1).
    Forgotten,
}

/// Of all sessions.
#[derive(Default)]
pub(super) struct Results {
    windows: FxHashMap<SessionId, Window>,
    /// The one mutation that is executed in steps at the moment, and those that wait to be.
    running: Vec<Running>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Running {
    session: SessionId,
    ticket: Ticket,
    local: bool,
}

/// Of one session.
#[derive(Default)]
struct Window {
    /// All waited mutations, and local ones that failed.
    stored: BTreeSet<u64>,
    /// Everything below is settled.
    floor: u64,
    /// The highest executed ticket of a local mutation; they are executed in the order of their tickets.
    mark: u64,
    /// Local mutations that were told they failed, because the store refused their transaction. The next
    /// transaction stores that, before the mark can go past them.
    refused: Vec<(u64, Errno)>,
}

impl Results {
    /// Learns of a session from the store, once; in later calls it does nothing.
    pub(super) fn load(&mut self, view: &dyn View, session: SessionId) -> Result<(), StoreFault> {
        if self.windows.contains_key(&session) {
            return Ok(());
        }
        let mut window = Window { mark: sessions::mark(view, session)?, ..Window::default() };
        sessions::each_result(view, session, &mut |seq, _| {
            window.stored.insert(seq);
            ControlFlow::Continue(())
        })?;
        // What is settled stands in the client's next frame. The first that is stored says nothing of it: an older one may
        // have been on its way when the server was killed. Only in a full window have older outcomes gone unsettled.
        if window.stored.len() >= OUTCOMES_MAX {
            window.floor = window.stored.first().copied().unwrap_or(0);
        }
        self.windows.insert(session, window);
        Ok(())
    }

    /// What is known of a ticket; a session that was not loaded knows none.
    pub(super) fn seen(&self, session: SessionId, ticket: Ticket, local: bool) -> Seen {
        // A mark that goes past a local mutation which is half done would be wrong after a crash.
        let waits = |running: &Running| {
            running.session == session && (running.ticket == ticket || (running.local && local))
        };
        match self.windows.get(&session) {
            _ if self.running.iter().any(waits) => Seen::Running,
            Some(window) if window.stored.contains(&ticket.0) => Seen::Stored,
            Some(window) if ticket.0 < window.floor => Seen::Forgotten,
            Some(window) if local && ticket.0 <= window.mark => Seen::Ran,
            _ => Seen::New,
        }
    }

    /// It will be executed in steps.
    pub(super) fn start(&mut self, session: SessionId, ticket: Ticket, local: bool) {
        self.running.push(Running { session, ticket, local });
    }

    /// The last step is done, in the same hold of the lock as its outcome is stored.
    pub(super) fn finish(&mut self, session: SessionId, ticket: Ticket) {
        self.running.retain(|running| (running.session, running.ticket) != (session, ticket));
    }

    /// The outcome of this ticket was written.
    pub(super) fn insert(&mut self, session: SessionId, ticket: Ticket) {
        self.windows.entry(session).or_default().stored.insert(ticket.0);
    }

    /// A local mutation was executed.
    pub(super) fn advance(&mut self, session: SessionId, ticket: Ticket) {
        let window = self.windows.entry(session).or_default();
        window.mark = window.mark.max(ticket.0);
    }

    /// The transaction of a local mutation was refused, and whoever sent it learns so.
    pub(super) fn refuse(&mut self, session: SessionId, ticket: Ticket, errno: Errno) {
        let window = self.windows.entry(session).or_default();
        window.stored.insert(ticket.0);
        window.refused.push((ticket.0, errno));
    }

    /// Writes what was refused into `txn`; says whether there was anything.
    pub(super) fn store_refused(&self, txn: &mut dyn Txn, session: SessionId) -> bool {
        let Some(window) = self.windows.get(&session) else { return false };
        for (ticket, errno) in &window.refused {
            let mut record = Vec::new();
            outcome::encode(&mut record, &Outcome { ticket: Ticket(*ticket), result: Err(*errno) });
            sessions::put_result(txn, session, *ticket, &record);
        }
        !window.refused.is_empty()
    }

    /// What [`Self::store_refused`] wrote is committed.
    pub(super) fn refused_stored(&mut self, session: SessionId) {
        if let Some(window) = self.windows.get_mut(&session) {
            window.refused.clear();
        }
    }

    /// Writes the mark into `txn`.
    pub(super) fn store_mark(&self, txn: &mut dyn Txn, session: SessionId) {
        if let Some(window) = self.windows.get(&session) {
            sessions::put_mark(txn, session, window.mark);
        }
    }

    /// It was not committed after all.
    pub(super) fn remove(&mut self, session: SessionId, ticket: Ticket) {
        if let Some(window) = self.windows.get_mut(&session) {
            window.stored.remove(&ticket.0);
        }
    }

    /// Forgets what is settled, and what is too much: removes it from the store in `txn`. Nothing is lost when that
    /// is not committed: such an outcome stays in the store until the session ends.
    pub(super) fn settle(&mut self, txn: &mut dyn Txn, session: SessionId, settled: u64) {
        let Some(window) = self.windows.get_mut(&session) else { return };
        window.floor = window.floor.max(settled);
        while let Some(&oldest) = window.stored.first() {
            if oldest >= window.floor && window.stored.len() <= OUTCOMES_MAX {
                break;
            }
            window.floor = window.floor.max(oldest.saturating_add(1));
            window.stored.pop_first();
            window.refused.retain(|(ticket, _)| *ticket != oldest);
            txn.delete(&keys::result(session, oldest));
        }
    }

    /// The session has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.windows.remove(&session);
    }
}
