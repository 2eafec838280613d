//! The mutation log: every change this mount asked for and whose outcome it does not know yet.
//!
//! In come mutations with their callers, outcomes' tickets, cuts of the connection. Out go tickets, canonical bytes
//! and the order of a replay. [`Log`] is a value: it does no I/O, reads no clock and takes no lock, so that it can be
//! run through any sequence of events in a test. [`SharedLog`] is the same behind one mutex.
//!
//! Tickets count from 1 and are never used twice by a mount, also when the server forgot the session: then those
//! below [`Log::settled_below`] are simply settled, which each frame says (R7.2).
//!
//! Who waits when it is full: nobody here. [`Log::accept`] refuses with [`Refused::Full`]; the caller parks the
//! request ([`Log::park`]) and gets a [`Claim`], a ticket with room, when others have settled, in the order of
//! parking. While somebody is parked newcomers are refused too.
//!
//! Absent on purpose: what mutations mean, how they are grouped, how they are sent.
#![forbid(unsafe_code)]

mod record;
mod shared;
mod stage;
#[cfg(test)]
mod tests;

pub use record::{Record, cost};
pub use shared::{SharedLog, Wake};
pub use stage::{Event, Stage};

use crate::base::{Caller, Errno};
use crate::wire::{Mutation, Ticket};
use std::collections::VecDeque;

/// How much the log holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Unsettled mutations.
    pub operations_max: usize,
    /// Bytes of them, by [`cost`]. One mutation is let in whatever its size.
    pub bytes_max: usize,
    /// Distance from the oldest unsettled ticket to the next one: the server keeps the outcomes of that many.
    pub span_max: usize,
    /// Requests parked; the kernel holds each of them anyhow.
    pub parked_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // 64 writes of the largest size, or some 16,000 small mutations: more than the kernel has in flight.
        Self { operations_max: 1 << 14, bytes_max: 64 << 20, span_max: 1 << 16, parked_max: 1 << 16 }
    }
}

/// Why a mutation did not enter the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No room at present: park the request.
    Full,
    /// No frame can carry it.
    TooLarge,
}

impl Refused {
    /// What the caller gets when it cannot be parked.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Self::Full => Errno::ENOMEM,
            Self::TooLarge => Errno::E2BIG,
        }
    }
}

/// A ticket with room in the log and no bytes yet. It must be filled or abandoned: every later ticket waits for it
/// in [`Log::settled_below`].
#[derive(PartialEq, Eq, Debug)]
#[must_use = "fill or abandon it"]
pub struct Claim {
    ticket: Ticket,
}

impl Claim {
    /// The number.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }
}

/// Names a parked request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ParkId(u64);

/// Parked requests that have room now, in their order.
pub type Granted = Vec<(ParkId, Claim)>;

#[derive(Debug)]
struct Slot {
    stage: Stage,
    cost: usize,
    record: Option<Record>,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    bounds: Bounds,
    /// Ticket of `slots[0]`; everything below is settled.
    first: u64,
    /// Indexed by ticket - `first`. The front one is never settled.
    slots: VecDeque<Slot>,
    live: usize,
    live_bytes: usize,
    parked: VecDeque<(ParkId, usize)>,
    parked_ever: u64,
}

impl Log {
    /// An empty log; the first ticket is 1.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            first: 1,
            slots: VecDeque::new(),
            live: 0,
            live_bytes: 0,
            parked: VecDeque::new(),
            parked_ever: 0,
        }
    }

    /// Takes a mutation: gives it a ticket and fixes its bytes.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn accept(&mut self, caller: Caller, mutation: &Mutation<'_>) -> Result<Record, Refused> {
        let claim = self.claim(cost(mutation)?)?;
        let record = Record::encode(claim.ticket, caller, mutation);
        self.fill(claim, &record);
        Ok(record)
    }

    /// The first half of [`Log::accept`], so that a large copy can be made elsewhere.
    ///
    /// # Errors
    /// [`Refused::Full`].
    pub fn claim(&mut self, cost: usize) -> Result<Claim, Refused> {
        if !self.parked.is_empty() || !self.has_room(cost) {
            return Err(Refused::Full);
        }
        Ok(self.claim_now(cost))
    }

    /// The second half.
    ///
    /// # Panics
    /// When the record has another ticket than the claim.
    pub fn fill(&mut self, claim: Claim, record: &Record) {
        assert_eq!(claim.ticket, record.ticket, "a record goes into the slot claimed for it");
        let slot = self.step(claim.ticket, Event::Fill);
        slot.record = Some(record.clone());
    }

    /// Gives a claim back that no mutation will fill.
    pub fn abandon(&mut self, claim: Claim) -> Granted {
        self.settle(claim.ticket)
    }

    /// The mutation goes to the link now.
    ///
    /// # Panics
    /// When it is not waiting to be sent.
    pub fn sent(&mut self, ticket: Ticket) {
        self.step(ticket, Event::Send);
    }

    /// The connection is gone: what was sent waits to be sent again, under the same tickets.
    pub fn cut(&mut self) {
        for slot in &mut self.slots {
            if let Some(next) = slot.stage.on(Event::Cut) {
                slot.stage = next;
            }
        }
    }

    /// The outcome arrived, or never will. Returns who may come in for it.
    ///
    /// # Panics
    /// When the ticket is settled already or was never given out: the link delivers each outcome once.
    pub fn settle(&mut self, ticket: Ticket) -> Granted {
        let slot = self.step(ticket, Event::Settle);
        slot.record = None;
        let cost = slot.cost;
        self.live -= 1;
        self.live_bytes -= cost;
        while self.slots.front().is_some_and(|slot| slot.stage == Stage::Settled) {
            self.slots.pop_front();
            self.first += 1;
        }
        self.grant()
    }

    /// Queues a request that was refused with [`Refused::Full`]; a later call returns its claim among [`Granted`].
    /// So may this one, when room came in between. `None`: too many are parked.
    pub fn park(&mut self, cost: usize) -> Option<(ParkId, Granted)> {
        if self.parked.len() >= self.bounds.parked_max {
            return None;
        }
        self.parked_ever += 1;
        let id = ParkId(self.parked_ever);
        self.parked.push_back((id, cost));
        Some((id, self.grant()))
    }

    /// Takes a parked request back. `None` when it is not parked any more.
    pub fn unpark(&mut self, id: ParkId) -> Option<Granted> {
        let at = self.parked.iter().position(|(parked, _)| *parked == id)?;
        self.parked.remove(at);
        Some(self.grant())
    }

    /// Every ticket below this one is settled ([`crate::wire::Header::settled`]).
    #[must_use]
    pub fn settled_below(&self) -> Ticket {
        Ticket(self.first)
    }

    /// What a new connection has to send again, in the order of the tickets.
    pub fn unsettled(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().filter_map(|slot| slot.record.as_ref())
    }

    /// Where a mutation stands; `None` for a ticket not given out yet.
    #[must_use]
    pub fn stage(&self, ticket: Ticket) -> Option<Stage> {
        match ticket.0.checked_sub(self.first) {
            None => Some(Stage::Settled),
            Some(at) => self.slots.get(usize::try_from(at).ok()?).map(|slot| slot.stage),
        }
    }

    /// Number of unsettled mutations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether everything is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes of unsettled mutations, by [`cost`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.live_bytes
    }

    /// Number of parked requests.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    fn has_room(&self, cost: usize) -> bool {
        let bytes_fit = self.live == 0 || self.live_bytes + cost <= self.bounds.bytes_max;
        bytes_fit && self.live < self.bounds.operations_max && self.slots.len() < self.bounds.span_max
    }

    fn claim_now(&mut self, cost: usize) -> Claim {
        let ticket = Ticket(self.first + self.slots.len() as u64);
        self.slots.push_back(Slot { stage: Stage::Claimed, cost, record: None });
        self.live += 1;
        self.live_bytes += cost;
        Claim { ticket }
    }

    fn grant(&mut self) -> Granted {
        let mut granted = Vec::new();
        while let Some(&(id, cost)) = self.parked.front() {
            if !self.has_room(cost) {
                break;
            }
            self.parked.pop_front();
            granted.push((id, self.claim_now(cost)));
        }
        granted
    }

    fn step(&mut self, ticket: Ticket, event: Event) -> &mut Slot {
        let at = ticket.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let slot = at.and_then(|at| self.slots.get_mut(at));
        let next = slot.as_ref().and_then(|slot| slot.stage.on(event));
        let (Some(slot), Some(next)) = (slot, next) else {
            panic!("{event:?} of {ticket:?}, which is not in a stage for that");
        };
        slot.stage = next;
        slot
    }
}
