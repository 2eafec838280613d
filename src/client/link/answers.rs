//! What a frame of the server means, checked. A frame is a claim until it has been here.

use crate::base::Errno;
use crate::wire::{Answer, FrameKind, Header, Outcome, Ticket, Told, WireFault, answer, outcome};

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

/// Reads an `Answer` frame. A record of a kind unknown here fails this request alone.
pub(super) fn answer<'a>(
    header: &Header,
    body: &'a [u8],
    payload: &'a [u8],
) -> Result<Result<Answer<'a>, Errno>, WireFault> {
    if header.kind != FrameKind::Answer {
        return Err(WireFault::Unknown { kind: header.kind.number() });
    }
    match answer::decode(body, payload).map(|(answer, _)| answer) {
        Err(WireFault::Unknown { .. }) => Ok(Err(Errno::EOPNOTSUPP)),
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
