//! What a frame of the server means, checked. A frame is a claim until it has been here.

use super::request::Span;
use crate::base::Errno;
use crate::wire::{Answer, FrameKind, Grants, Header, Outcome, Ticket, Told, WireFault, answer, outcome};

/// The mutations of a batch, in order. One is by far the commonest number, and takes no allocation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tickets {
    /// One mutation.
    One(Ticket),
    /// Several.
    Many(Box<[Ticket]>),
}

impl Tickets {
    /// In order.
    #[must_use]
    pub fn as_slice(&self) -> &[Ticket] {
        match self {
            Self::One(ticket) => std::slice::from_ref(ticket),
            Self::Many(tickets) => tickets,
        }
    }

    /// Whether these are the outcomes of exactly these mutations, in their order.
    pub(super) fn match_all(&self, outcomes: &[Outcome]) -> bool {
        self.as_slice().iter().eq(outcomes.iter().map(|outcome| &outcome.ticket))
    }
}

/// What became of a batch of the log: checked, still in the bytes of its frame.
#[derive(Clone, Copy, Debug)]
pub struct LogOutcomes<'a> {
    body: &'a [u8],
    commit: u64,
}

impl LogOutcomes<'_> {
    /// The server's commit that contains all of it.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Those that were refused, in their order. All others are done.
    pub fn failures(&self) -> impl Iterator<Item = (Ticket, Errno)> {
        self.told().filter_map(|told| match told {
            Told::One(outcome) => Some((outcome.ticket, outcome.result.err()?)),
            Told::Ran { .. } => None,
        })
    }

    /// What came of the one mutation of a waited batch. `None` for a batch of local ones that are done.
    #[must_use]
    pub fn waited(&self) -> Option<Outcome> {
        match self.told().next()? {
            Told::One(outcome) => Some(outcome),
            Told::Ran { .. } => None,
        }
    }

    fn told(&self) -> impl Iterator<Item = Told> {
        outcome::decode(self.body).into_iter().flatten().filter_map(Result::ok)
    }
}

/// Reads an `Outcomes` frame that answers a batch of the log.
pub(super) fn log_outcomes<'a>(header: &Header, body: &'a [u8]) -> Result<LogOutcomes<'a>, WireFault> {
    if header.kind != FrameKind::Outcomes {
        return Err(WireFault::Unknown { kind: header.kind.number() });
    }
    let mut all = outcome::decode(body)?;
    let commit = all.commit();
    all.try_for_each(|told| told.map(|_| ()))?;
    Ok(LogOutcomes { body, commit })
}

impl Span {
    /// Whether these are the outcomes of exactly this batch: ascending, none outside, and no fewer than it has (ranges may
    /// name tickets between that it has not).
    pub(super) fn matches(&self, outcomes: &LogOutcomes<'_>) -> bool {
        let (mut next, mut count) = (self.first, 0_u64);
        for told in outcomes.told() {
            let (first, last) = match told {
                Told::Ran { first, last } => (first, last),
                Told::One(outcome) => (outcome.ticket, outcome.ticket),
            };
            if first < next || last > self.last {
                return false;
            }
            next = Ticket(last.0 + 1);
            count += next.0 - first.0;
        }
        count >= u64::from(self.count)
    }
}

/// The outcomes of a frame.
#[derive(Debug)]
pub(super) enum Outcomes {
    One(Outcome),
    Many(Vec<Outcome>),
}

impl Outcomes {
    pub(super) fn as_slice(&self) -> &[Outcome] {
        match self {
            Self::One(outcome) => std::slice::from_ref(outcome),
            Self::Many(outcomes) => outcomes,
        }
    }
}

/// An answer, and the grants that came with it.
pub(super) type Granting<'a> = (Result<Answer<'a>, Errno>, Grants<'a>);

/// Reads an `Answer` frame. A record of a kind unknown here fails this request alone.
pub(super) fn answer<'a>(
    header: &Header,
    body: &'a [u8],
    payload: &'a [u8],
) -> Result<Granting<'a>, WireFault> {
    if header.kind != FrameKind::Answer {
        return Err(WireFault::Unknown { kind: header.kind.number() });
    }
    match answer::decode(body, payload) {
        Err(WireFault::Unknown { .. }) => Ok((Err(Errno::EOPNOTSUPP), Grants::default())),
        other => other,
    }
}

/// Reads an `Outcomes` frame.
pub(super) fn outcomes(header: &Header, body: &[u8]) -> Result<Outcomes, WireFault> {
    if header.kind != FrameKind::Outcomes {
        return Err(WireFault::Unknown { kind: header.kind.number() });
    }
    let mut all = outcome::decode(body)?.map(|told| waited(told?));
    let first = all.next().ok_or(WireFault::Short { kind: 0 })??;
    let Some(second) = all.next() else { return Ok(Outcomes::One(first)) };
    let mut many = vec![first, second?];
    for outcome in all {
        many.push(outcome?);
    }
    Ok(Outcomes::Many(many))
}

/// The outcome of a mutation somebody waits for.
fn waited(told: Told) -> Result<Outcome, WireFault> {
    match told {
        Told::One(outcome) => Ok(outcome),
        Told::Ran { .. } => {
            Err(WireFault::Invalid { kind: 0, what: "a range where an outcome is waited for" })
        }
    }
}
