//! The mutation log: every change this mount made or asked for, until the server's disk has it.
//!
//! In come mutations in the order in which they are answered or asked, the server's acknowledgements, and the time. Out go
//! tickets, frames to send, and closures of those who wait. [`Log`] is a value: no I/O, no clock, no lock, so that
//! it can be run through any sequence of events in a test and stand under its owner's mutex, where a ticket is
//! drawn in the same step that changes what the mount shows.
//!
//! One sequence of tickets for two classes. A *local* mutation was answered to its caller when it came in; local ones
//! gather in segments, are sent in their order, several in a frame, and done by the server in their order (R2.6). Of a *waited*
//! one the caller gets the server's outcome; it makes a segment of its own and is sent alone, by [`Log::send_waited`], when
//! all before it are applied; local ones do not wait for it, since whoever might conflict with it holds it up at the server.
//!
//! Each mutation is encoded once, straight into its segment, which becomes the body of the frame; the same bytes are
//! sent again after a lost connection or a restart of the server, until they are durable there.
//!
//! Who asks [`Log::next`] sends what it says in that order, by one thread at a time. What to do when is decided in
//! [`Log::next`] alone; `pace` says how much.
//!
//! When the log is full nobody waits here: [`Log::accept`] refuses with [`Refused::Full`], and [`Log::park`] keeps the
//! caller's closure until there is room. Full means that something is on its way to the server or its disk, whose
//! answer makes room. While somebody is parked newcomers are refused too.
//!
//! Absent on purpose: what mutations mean (folding apart), leases, how frames are sent.
#![forbid(unsafe_code)]

mod fold;
mod pace;
mod room;
mod segment;
mod send;
mod settle;
mod stage;
mod status;
#[cfg(test)]
mod tests;
mod waiters;

pub use room::{Refused, cost};
pub use segment::{Batch, Failed};
pub use send::Action;
pub use settle::Answered;
pub use stage::{Event, Stage};
pub use status::LogStatus;
pub use waiters::{Due, Reached, Retry, Turn};

use crate::base::{Caller, Ino, Time};
use crate::wire::{Mutation, Ticket};
use fold::{Folded, Folds};
use pace::Pace;
use segment::{Segment, Weight};
use std::collections::VecDeque;
use std::time::Duration;
use waiters::{Barriers, Parked};

/// How much the log holds, and how long it gathers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Mutations not applied yet; fewer when the server would work longer than 100 ms on them (never fewer than 1024).
    pub waiting_max: usize,
    /// Mutations not durable yet.
    pub kept_max: usize,
    /// Bytes of these. One mutation is let in whatever its size.
    pub kept_bytes_max: usize,
    /// Mutations whose callers wait for room; the kernel holds each of them anyhow.
    pub parked_max: usize,
    /// How long an idle log waits for company of the first mutation (`--gather`).
    pub gather: Duration,
    /// Bound of the time a mutation nobody waits for may wait for company while traffic goes on.
    pub age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_max: 1 << 15,
            // What comes in within the half second after which a server syncs by itself, and as much again.
            kept_max: 1 << 16,
            kept_bytes_max: 64 << 20,
            parked_max: 1 << 16,
            gather: Duration::from_micros(100),
            // Nobody waits for what ages: a recall or an fsync sends at once. The frames saved are the server's time.
            age_max: Duration::from_millis(20),
        }
    }
}

/// See the module.
pub struct Log {
    limits: Limits,
    pace: Pace,
    next_ticket: Ticket,
    /// In the order of their tickets, without gaps. The front one is not at an end.
    segments: VecDeque<Segment>,
    /// Local mutations below this one are sent, or at an end.
    unsent: Ticket,
    /// Mutations below this one are applied or at an end, the waited ones that are not answered left out.
    unapplied: Ticket,
    /// The same for durable.
    undurable: Ticket,
    applied_barriers: Barriers,
    durable_barriers: Barriers,
    parked: Parked,
    /// Of the last segment, while it grows.
    folds: Folds,
    /// Of all segments.
    weight: Weight,
    /// When the last local mutation came in.
    last_accept: Duration,
    /// The same when a frame was sent last; `None` before the first.
    last_sent_accept: Option<Duration>,
    /// The server's highest durable commit.
    durable_commit: u64,
    /// A sync was asked for that covers the tickets below.
    synced: Ticket,
    /// Syncs that were asked for and are not answered.
    syncs: usize,
    /// See [`Log::lost_in_replay`].
    lost: Vec<Failed>,
    counts: status::Counts,
}

impl Log {
    /// An empty log; the first ticket is 1.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pace: Pace::default(),
            next_ticket: Ticket(1),
            segments: VecDeque::new(),
            unsent: Ticket(1),
            unapplied: Ticket(1),
            undurable: Ticket(1),
            applied_barriers: Barriers::default(),
            durable_barriers: Barriers::default(),
            parked: Parked::default(),
            folds: Folds::default(),
            weight: Weight::default(),
            last_accept: Duration::ZERO,
            last_sent_accept: None,
            durable_commit: 0,
            synced: Ticket(1),
            syncs: 0,
            lost: Vec::new(),
            counts: status::Counts::default(),
        }
    }

    /// Takes a mutation that is answered to its caller now, at `at` of the server's clock. What it borrows is copied, once.
    /// The caller then asks [`Log::next`]. `turn`: of one who was parked.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn accept(
        &mut self,
        now: Duration,
        caller: Caller,
        at: Time,
        mutation: &Mutation<'_>,
        turn: Option<Turn>,
    ) -> Result<Ticket, Refused> {
        let cost = cost(mutation)?;
        self.admit(cost, turn)?;
        if !self.segments.back().is_some_and(|segment| is_open_for(segment, mutation)) {
            self.begin(true, now);
        }
        self.last_accept = now;
        let last = self.segments.len() - 1;
        let mut folds = std::mem::take(&mut self.folds);
        let (folded, gone) = self.change(last, |segment| folds.fold(segment, caller, at, mutation));
        self.counts.folded += gone;
        let instead = match folded {
            Folded::Same => *mutation,
            Folded::Instead(mutation) => mutation,
        };
        let place = self.segments[last].len().0;
        let ticket = self.push(caller, Some(at), &instead);
        folds.appended(place, &instead);
        self.folds = folds;
        Ok(ticket)
    }

    /// Takes a mutation whose caller waits for the server's outcome. [`Log::send_waited`] sends it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn accept_waited(
        &mut self,
        now: Duration,
        caller: Caller,
        mutation: &Mutation<'_>,
        turn: Option<Turn>,
    ) -> Result<Ticket, Refused> {
        self.admit(cost(mutation)?, turn)?;
        self.begin(false, now);
        Ok(self.push(caller, None, mutation))
    }

    /// The kernel forgot an inode whose only name was removed: what is not sent yet need not have it held. False: the server
    /// holds it, or will.
    pub fn clear_hold(&mut self, ino: Ino) -> bool {
        let Some(last) = self.segments.len().checked_sub(1) else { return false };
        let mut folds = std::mem::take(&mut self.folds);
        let gone = self.change(last, |segment| folds.clear_hold(segment, ino));
        self.folds = folds;
        self.counts.folded += gone.unwrap_or(0);
        gone.is_some()
    }

    fn begin(&mut self, local: bool, now: Duration) {
        self.folds.forget();
        self.segments.push_back(Segment::new(self.next_ticket, local, now));
    }

    /// Into the last segment.
    fn push(&mut self, caller: Caller, at: Option<Time>, mutation: &Mutation<'_>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0 + 1);
        self.counts.accepted += 1;
        self.change(self.segments.len() - 1, |segment| segment.push(caller, at, mutation));
        ticket
    }

    /// Changes a segment; the sums follow.
    fn change<R>(&mut self, at: usize, change: impl FnOnce(&mut Segment) -> R) -> R {
        let segment = &mut self.segments[at];
        self.weight.take(segment.weight());
        let result = change(segment);
        self.weight.add(segment.weight());
        result
    }

    /// Whether [`Log::accept`] would take this mutation now.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admits(&self, mutation: &Mutation<'_>, turn: Option<Turn>) -> Result<(), Refused> {
        self.admit(cost(mutation)?, turn)
    }

    fn admit(&self, cost: usize, turn: Option<Turn>) -> Result<(), Refused> {
        let others_first = turn.is_none() && self.parked.len() > 0;
        if others_first || !self.has_room(cost) { Err(Refused::Full) } else { Ok(()) }
    }

    fn has_room(&self, cost: usize) -> bool {
        let bytes_fit = self.weight.kept == 0 || self.weight.bytes + cost <= self.limits.kept_bytes_max;
        // Tickets of mutations that are kept span no more than what may be kept: a stuck one stops the log.
        let span = self.next_ticket.0 - self.settled_below().0;
        let span_fits = usize::try_from(span).is_ok_and(|span| span < 2 * self.limits.kept_max);
        bytes_fit
            && span_fits
            && self.weight.kept < self.limits.kept_max
            && self.weight.waiting < self.pace.operations_max(self.limits.waiting_max)
    }

    /// Room for so many, and for one of this cost, that it is worth waking those who wait.
    fn has_ample_room(&self, first: usize) -> bool {
        let most = |max: usize| max - max / 8;
        self.has_room(first)
            && (self.weight.waiting == 0
                || (self.weight.kept <= most(self.limits.kept_max)
                    && self.weight.bytes <= most(self.limits.kept_bytes_max)
                    && self.weight.waiting <= most(self.pace.operations_max(self.limits.waiting_max))))
    }

    /// Keeps the closure of one who was refused with [`Refused::Full`] until there is room; it is among the [`Due`] of
    /// the step that makes it, possibly of this one. `turn`: of one who was parked before and found no room. `cost`: what it
    /// takes ([`cost`]), so that it is not woken for less. The turn returned takes it back ([`Log::unpark`]).
    ///
    /// # Errors
    /// The closure, when too many are parked: ENOMEM to the caller.
    pub fn park(&mut self, turn: Option<Turn>, cost: usize, retry: Retry) -> Result<(Turn, Due), Retry> {
        if self.parked.len() >= self.limits.parked_max {
            return Err(retry);
        }
        let turn = self.parked.add(turn, cost, retry);
        let mut due = Due::default();
        self.release(&mut due);
        Ok((turn, due))
    }

    /// Takes back the closure of one who waits for room no longer. `None`: it is or was among the due.
    pub fn unpark(&mut self, turn: Turn) -> Option<Retry> {
        self.parked.remove(turn)
    }

    fn release(&mut self, due: &mut Due) {
        if self.parked.first_cost().is_some_and(|first| self.has_ample_room(first)) {
            self.parked.release(due);
        }
    }

    /// Calls `reached` when this and all local mutations before it are applied (or will never be); a waited one that is
    /// not answered yet is not waited for. What is unsent of it is sent at once: ask [`Log::next`].
    pub fn after_applied(&mut self, ticket: Ticket, reached: Reached) -> Due {
        self.folds.forget();
        self.applied_barriers.add(ticket, reached);
        // Waited ones came in since the marks moved last.
        self.advance();
        let mut due = Due::default();
        self.applied_barriers.pass(self.unapplied, &mut due);
        due
    }

    /// Calls `reached` when this and all mutations before it that were applied or are local are durable. What is missing
    /// for it, a sync of the server among it, is asked for at once: ask [`Log::next`].
    pub fn after_durable(&mut self, ticket: Ticket, reached: Reached) -> Due {
        self.folds.forget();
        self.durable_barriers.add(ticket, reached);
        self.advance();
        let mut due = Due::default();
        self.durable_barriers.pass(self.undurable, &mut due);
        due
    }

    /// The ticket drawn last; 0 before the first. A barrier on it waits for everything.
    #[must_use]
    pub fn last(&self) -> Ticket {
        Ticket(self.next_ticket.0 - 1)
    }

    /// This and all before it are applied or at an end, waited ones without an answer left out.
    #[must_use]
    pub fn applied_through(&self) -> Ticket {
        Ticket(self.unapplied.0 - 1)
    }

    /// This and all before it are durable or at an end, waited ones without an answer left out.
    #[must_use]
    pub fn durable_through(&self) -> Ticket {
        Ticket(self.undurable.0 - 1)
    }

    /// Every ticket below this one is at an end ([`crate::wire::Header::settled`]).
    #[must_use]
    pub fn settled_below(&self) -> Ticket {
        self.segments.front().map_or(self.next_ticket, |segment| segment.first)
    }

    /// Where a mutation stands. `None`: its ticket was not drawn yet, or the log has forgotten it.
    #[must_use]
    pub fn stage(&self, ticket: Ticket) -> Option<Stage> {
        let segment = self.segments.get(self.position(ticket)?)?;
        Some(segment.stage_of(ticket))
    }

    /// Number of mutations that are not durable yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weight.kept
    }

    /// Whether everything is durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weight.kept == 0
    }

    /// Number of mutations that are not applied yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.weight.waiting
    }

    /// Index of the segment that holds a ticket.
    fn position(&self, ticket: Ticket) -> Option<usize> {
        let after = self.segments.partition_point(|segment| segment.first <= ticket);
        let at = after.checked_sub(1)?;
        (ticket < self.segments.get(at)?.end).then_some(at)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("settled_below", &self.settled_below())
            .field("unapplied", &self.unapplied)
            .field("unsent", &self.unsent)
            .field("next", &self.next_ticket)
            .finish_non_exhaustive()
    }
}

/// Whether one more mutation may join the segment.
fn is_open_for(segment: &Segment, mutation: &Mutation<'_>) -> bool {
    let data_bytes = if let Mutation::Write { data, .. } = mutation { data.len() } else { 0 };
    let (body, payload) = segment.len();
    segment.local
        && segment.stage == Stage::Accepted
        && u64::from(segment.live) < pace::BATCH_OPERATIONS_MAX
        && body < SEGMENT_BODY_BYTES
        && (payload == 0 || payload + data_bytes <= SEGMENT_PAYLOAD_BYTES)
}

/// A segment of this length takes no more: half of what a frame may have, so that the largest record fits behind it.
const SEGMENT_BODY_BYTES: usize = 1 << 20;
const SEGMENT_PAYLOAD_BYTES: usize = 1 << 20;
