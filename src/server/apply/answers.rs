//! The answer to a batch: what each of its mutations is told, and how that is packed.

use crate::base::Errno;
use crate::wire::mutation::Decoded;
use crate::wire::{Done, Outcome, Ticket, outcome};

/// What one mutation is told.
pub(super) enum Given {
    /// A local one was done.
    Ran,
    /// It failed, and nothing of it is stored.
    Failed(Errno),
    /// The record of its outcome, as it is stored.
    Whole(Vec<u8>),
}

/// The record of an outcome.
pub(super) fn record(ticket: Ticket, result: Result<Done, Errno>) -> Vec<u8> {
    let mut bytes = Vec::new();
    outcome::encode(&mut bytes, &Outcome { ticket, result });
    bytes
}

/// The body of the answer. Local mutations with tickets in a row that were done share a record.
pub(super) fn encode(batch: &[Decoded<'_>], given: &[Given], commit: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY_BYTES_TYPICAL);
    outcome::begin(&mut body, commit);
    let mut run: Option<(Ticket, Ticket)> = None;
    for ((origin, _), given) in batch.iter().zip(given) {
        let ticket = origin.ticket;
        if let (Given::Ran, Some((_, last))) = (given, &mut run)
            && last.0.checked_add(1) == Some(ticket.0)
        {
            *last = ticket;
            continue;
        }
        if let Some((first, last)) = run.take() {
            outcome::encode_ran(&mut body, first, last);
        }
        match given {
            Given::Ran => run = Some((ticket, ticket)),
            Given::Failed(errno) => outcome::encode(&mut body, &Outcome { ticket, result: Err(*errno) }),
            Given::Whole(record) => body.extend_from_slice(record),
        }
    }
    if let Some((first, last)) = run {
        outcome::encode_ran(&mut body, first, last);
    }
    body
}

/// A commit, and one outcome or one range.
const BODY_BYTES_TYPICAL: usize = 256;
