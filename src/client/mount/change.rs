//! Changes: completed here under leases, else the server's to make.
//!
//! ```text
//!  accept ──► completed here: in the tree and in the log, in one step ──► answered, the server follows
//!    │ ─────► not here: in the log ──► what was accepted before is applied ──► sent ──► outcome
//!    ├ no room ──► parked with its bytes, and begins anew when there is room
//!    └ behind one on its way to the server ──► begins anew when that has its outcome
//! ```

use super::complete::{Circumstances, Local};
use super::touched::Touched;
use super::{Interrupt, Kept, Mount, State, boottime};
use crate::base::{Caller, Errno};
use crate::client::oplog::{Refused, Turn, cost};
use crate::wire::{Done, Mutation, Origin, Outcome, Query, Ticket, mutation};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A change that has its place; [`Mount::apply`] sees it through.
#[derive(Debug)]
#[must_use = "a change that is not applied is never sent"]
pub struct Change(Accepted);

#[derive(Debug)]
enum Accepted {
    /// Completed here.
    Completed(Done, Kept),
    /// The caller waits for the server.
    Waited(Ticket),
    /// There is no room; the change in a form that owns its bytes.
    NoRoom(Owned),
    /// Something on its way to the server touches the same; and how often it began before.
    Behind(Owned, u32),
    Refused(Errno),
}

/// How often a change waits for others to have their outcomes before it goes to the server behind them. Would it go at once, those
/// that come next would have to go behind it, and so on for ever, though leases allow to complete them here.
const BEHIND_MAX: u32 = 3;

/// Begins a change anew.
pub(super) type Again = Box<dyn FnOnce() + Send>;

/// A mutation that waits for room.
#[derive(Debug)]
struct Owned {
    caller: Caller,
    body: Vec<u8>,
    payload: Vec<u8>,
}

impl Owned {
    fn new(caller: Caller, mutation: &Mutation<'_>) -> Self {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(0), caller), mutation);
        Self { caller, body, payload }
    }

    /// Reads back what [`Self::new`] encoded.
    fn mutation(&self) -> Option<Mutation<'_>> {
        mutation::decode_batch(&self.body, &self.payload).next()?.ok()?.1.ok()
    }
}

/// Hears the outcome of a mutation.
type Told = Box<dyn FnOnce(&Arc<Mount>, Result<Done, Errno>) + Send>;

/// Who waits for the outcome of a mutation.
pub(super) struct Waiter {
    pub(super) done: Told,
}

impl Mount {
    /// Completes a change here, or takes it into the log. What it borrows is copied, once.
    pub fn accept(self: &Arc<Self>, caller: Caller, mutation: &Mutation<'_>) -> Change {
        Change(self.accept_now(caller, mutation, None, 0))
    }

    fn accept_now(
        self: &Arc<Self>,
        caller: Caller,
        mutation: &Mutation<'_>,
        turn: Option<Turn>,
        times: u32,
    ) -> Accepted {
        let now = boottime();
        let mut state = self.state();
        let left = self.leases_left(now, &state);
        if left.is_some() && state.is_behind(mutation) {
            if times < BEHIND_MAX && state.is_leased(mutation) {
                return Accepted::Behind(Owned::new(caller, mutation), times);
            }
        } else if let Some(left) = left {
            let cx = Circumstances { now, at: self.server_time(now), left, caller, turn };
            match self.complete(&mut state, &cx, mutation) {
                Local::Done(done, kept) => {
                    state.counts.here(mutation);
                    let look = state.arrange(now);
                    let numbers = state.numbers.are_low();
                    drop(state);
                    self.arrange(look);
                    if numbers {
                        self.fetch_numbers();
                    }
                    return Accepted::Completed(done, kept);
                }
                Local::No(errno) => return Accepted::Refused(errno),
                Local::NoRoom => return Accepted::NoRoom(Owned::new(caller, mutation)),
                Local::Ask => {}
            }
        }
        match state.log.accept_waited(now, caller, mutation, turn) {
            Ok(ticket) => {
                state.counts.asked(mutation);
                let touched = Touched::new(&mut state, mutation);
                state.on_the_way.insert(ticket, touched);
                Accepted::Waited(ticket)
            }
            Err(Refused::Full) => Accepted::NoRoom(Owned::new(caller, mutation)),
            Err(Refused::TooLarge) => Accepted::Refused(Refused::TooLarge.errno()),
        }
    }

    /// Sees a change through. `done` gets its outcome exactly once, possibly before this returns.
    pub fn apply<F>(self: &Arc<Self>, change: Change, done: F)
    where
        F: FnOnce(Result<Done, Errno>, Kept) + Send + 'static,
    {
        self.apply_now(change.0, done);
    }

    fn apply_now<F>(self: &Arc<Self>, accepted: Accepted, done: F)
    where
        F: FnOnce(Result<Done, Errno>, Kept) + Send + 'static,
    {
        match accepted {
            Accepted::Completed(outcome, kept) => done(Ok(outcome), kept),
            Accepted::Refused(errno) => done(Err(errno), Kept::default()),
            Accepted::Waited(ticket) => self.wait(ticket, done),
            Accepted::NoRoom(owned) => self.park(owned, None, done),
            Accepted::Behind(owned, times) => self.stay_behind(owned, times, done),
        }
    }

    /// [`Self::accept`] and [`Self::apply`], for those who have nothing to do in between.
    pub fn mutate<F>(self: &Arc<Self>, caller: Caller, mutation: &Mutation<'_>, done: F)
    where
        F: FnOnce(Result<Done, Errno>, Kept) + Send + 'static,
    {
        self.apply(self.accept(caller, mutation), done);
    }

    fn park<F>(self: &Arc<Self>, owned: Owned, turn: Option<Turn>, done: F)
    where
        F: FnOnce(Result<Done, Errno>, Kept) + Send + 'static,
    {
        let mount = Arc::clone(self);
        let takes = owned.mutation().map_or(0, |mutation| cost(&mutation).unwrap_or(0));
        let again = move |turn| {
            let Some(mutation) = owned.mutation() else { return done(Err(Errno::EIO), Kept::default()) };
            match mount.accept_now(owned.caller, &mutation, Some(turn), 0) {
                Accepted::NoRoom(owned) => mount.park(owned, Some(turn), done),
                accepted => mount.apply_now(accepted, done),
            }
        };
        let mut state = self.state();
        match state.log.park(turn, takes, Box::new(again)) {
            Ok((_, due)) => {
                drop(state);
                due.run();
                self.pump();
            }
            // Dropping it answers its caller with an error. The kernel has not that many requests.
            Err(refused) => {
                drop(state);
                drop(refused);
            }
        }
    }

    /// Begins anew when something on its way has its outcome.
    fn stay_behind<F>(self: &Arc<Self>, owned: Owned, times: u32, done: F)
    where
        F: FnOnce(Result<Done, Errno>, Kept) + Send + 'static,
    {
        let mount = Arc::clone(self);
        let again = move || {
            let Some(mutation) = owned.mutation() else { return done(Err(Errno::EIO), Kept::default()) };
            let accepted = mount.accept_now(owned.caller, &mutation, None, times + 1);
            mount.apply_now(accepted, done);
        };
        let mut state = self.state();
        if state.on_the_way.is_empty() {
            drop(state);
            return again();
        }
        state.behind.push(Box::new(again));
    }

    /// Has those begin anew that stayed behind.
    fn go_on(&self) {
        let behind = std::mem::take(&mut self.state().behind);
        behind.into_iter().for_each(|again| again());
    }

    /// Sends a mutation when all that was accepted before it is applied (R1.2).
    fn wait<F>(self: &Arc<Self>, ticket: Ticket, done: F)
    where
        F: FnOnce(Result<Done, Errno>, Kept) + Send + 'static,
    {
        let durable = self.options.sync;
        let told = move |mount: &Arc<Self>, outcome: Result<Done, Errno>| {
            if !durable || outcome.is_err() {
                return done(outcome, Kept::default());
            }
            let synced = move |synced: Result<(), Errno>| {
                done(outcome.and_then(|done| synced.map(|()| done)), Kept::default());
            };
            mount.after_durable_to(Some(ticket), Box::new(synced));
        };
        let waiter = Waiter { done: Box::new(told) };
        let mut state = self.state();
        state.waiters.insert(ticket, waiter);
        let before = Ticket(ticket.0 - 1);
        if state.log.applied_through() >= before {
            drop(state);
            return self.send_waited(ticket);
        }
        let waiting = state.log.waiting();
        let mount = Arc::clone(self);
        // A lost session fails it with the rest; then there is nothing to send.
        let due = state.log.after_applied(before, Box::new(move |_| mount.send_waited(ticket)));
        drop(state);
        due.run();
        self.hurry(waiting);
    }

    fn send_waited(self: &Arc<Self>, ticket: Ticket) {
        let batch = self.state().log.send_waited(ticket, boottime());
        if let Some(batch) = batch {
            self.send_batch(batch);
        }
    }

    /// Outcomes came; `outcomes` are those of a waited mutation.
    pub(super) fn answered_by(
        self: &Arc<Self>,
        first: Ticket,
        commit: u64,
        failures: &mut dyn Iterator<Item = (Ticket, Errno)>,
        waited: Option<Outcome>,
    ) {
        let mut state = self.state();
        let mut answered = state.log.answered(boottime(), first, commit, failures);
        if let Some(Outcome { ticket, result: Ok(Done { attr: Some(attr), existed: false, .. }) }) = &waited {
            state.log.numbered(*ticket, attr.ino);
        }
        let waiter = waited.as_ref().and_then(|outcome| state.waiters.remove(&outcome.ticket));
        let mut wanted = Vec::new();
        let touched = waited.as_ref().and_then(|outcome| state.on_the_way.remove(&outcome.ticket));
        if let (Some(touched), Some(outcome)) = (&touched, &waited) {
            wanted = touched.done(&mut state, outcome.result.as_ref().ok());
        }
        self.settle(&mut state);
        let failed = std::mem::take(&mut answered.failed);
        drop(state);
        match (waiter, waited) {
            (Some(waiter), Some(outcome)) => (waiter.done)(self, outcome.result),
            (None, Some(Outcome { result: Ok(done), .. })) => self.told_again(&done),
            _ => {}
        }
        if touched.is_some() && wanted.is_empty() {
            self.go_on();
        }
        for ino in wanted {
            let mount = Arc::clone(self);
            // Without these nothing could be completed here.
            self.ask_server(Interrupt::Never, &Query::GetAttr { ino }, move |_, _| mount.go_on());
        }
        self.fail_late(&failed);
        answered.due.run();
        self.send_drops();
        self.pump();
    }

    /// The outcome of a waited mutation that was sent again after its caller had heard it: what it has held may be closed or
    /// forgotten by now.
    fn told_again(&self, done: &Done) {
        // Made, or without a name. Of other mutations this is an inode that is not held by them, and a Drop too many does no harm.
        for ino in done.attr.map(|attr| attr.ino).into_iter().chain(done.orphan) {
            // Sent with those that wait for this outcome.
            let _ = self.namespace.inodes.held_once_more(ino);
        }
    }

    /// Tells the link what needs no outcome any more, and forgets what is kept for what is not applied.
    pub(super) fn settle(&self, state: &mut State) {
        self.settled.store(state.log.settled_below().0, Ordering::Release);
        state.applied();
    }
}
