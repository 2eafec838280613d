//! Mutations that travel in one frame: local ones that gathered, or one that a caller waits for. Their canonical bytes
//! stand here one after the other, in the form of the frame's body and payload, and are what is sent again.

use super::stage::{Event, Stage};
use crate::base::{Caller, Errno, Ino, Time};
use crate::wire::record::RECORD_HEADER_BYTES;
use crate::wire::{Mutation, Origin, Ticket, mutation};
use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: Ticket,
    /// The ticket after the last.
    pub(super) end: Ticket,
    /// Mutations that were answered to their callers when they came in.
    pub(super) local: bool,
    /// Of all, but those that were folded or rejected.
    pub(super) stage: Stage,
    /// Mutations in it that were not folded.
    pub(super) live: u32,
    /// When the first came in.
    pub(super) opened: Duration,
    pub(super) sent: Duration,
    /// The server's commit that holds them; 0 before they are applied.
    pub(super) commit: u64,
    /// The commit of a server before this one that held them, while that has not answered; 0: none is known.
    pub(super) before: u64,
    /// Its session has ended since it was applied: no other server may be asked for it in the next one, which has no record of it.
    pub(super) fenced: bool,
    bytes: Kept,
    /// Those the server refused, ascending.
    rejected: Vec<Ticket>,
}

/// What a segment adds to the log's sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Weight {
    /// Mutations that are not applied.
    pub(super) waiting: usize,
    /// Mutations that are not at an end.
    pub(super) kept: usize,
    /// Memory of their bytes.
    pub(super) bytes: usize,
    /// Local frames without an answer.
    pub(super) in_flight: usize,
}

impl Weight {
    pub(super) fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.kept += other.kept;
        self.bytes += other.bytes;
        self.in_flight += other.in_flight;
    }

    pub(super) fn take(&mut self, other: Self) {
        self.waiting -= other.waiting;
        self.kept -= other.kept;
        self.bytes -= other.bytes;
        self.in_flight -= other.in_flight;
    }
}

#[derive(Debug)]
enum Kept {
    Growing { body: Vec<u8>, payload: Vec<u8>, holes: bool },
    Fixed { body: Bytes, payload: Bytes },
}

/// A frame of mutations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Lowest ticket.
    pub first: Ticket,
    /// Highest ticket.
    pub last: Ticket,
    /// Mutations in it; tickets between that are not in it were folded.
    pub count: u32,
    /// They were completed locally.
    pub local: bool,
    /// No server has answered them before.
    pub unanswered: bool,
    /// The commit of a server before this one in which they were done; 0: none is known.
    pub before: u64,
    /// Their records.
    pub body: Bytes,
    /// Their data.
    pub payload: Bytes,
}

/// A mutation that will not be applied, though its caller may have been told that it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Its number.
    pub ticket: Ticket,
    /// Why.
    pub errno: Errno,
    /// It was completed locally, or applied before a restart of the server: its caller does not know.
    pub late: bool,
    /// It may have been applied all the same, by a server whose answer did not come or that is gone.
    pub unknown: bool,
    body: Bytes,
    payload: Bytes,
}

impl Failed {
    /// What it was, with the data of a write.
    #[must_use]
    pub fn mutation(&self) -> Option<(Origin, Mutation<'_>)> {
        let (origin, mutation) = mutation::decode_batch(&self.body, &self.payload).next()?.ok()?;
        Some((origin, mutation.ok()?))
    }
}

impl Segment {
    pub(super) fn new(first: Ticket, local: bool, opened: Duration) -> Self {
        Self {
            first,
            end: first,
            local,
            stage: Stage::Accepted,
            live: 0,
            opened,
            sent: opened,
            commit: 0,
            before: 0,
            fenced: false,
            bytes: Kept::Growing { body: Vec::new(), payload: Vec::new(), holes: false },
            rejected: Vec::new(),
        }
    }

    /// Appends a record. Returns where it stands in the body.
    pub(super) fn push(&mut self, caller: Caller, at: Option<Time>, mutation: &Mutation<'_>) -> Range<usize> {
        let Kept::Growing { body, payload, .. } = &mut self.bytes else {
            unreachable!("a sent segment does not grow")
        };
        let start = body.len();
        mutation::encode(body, payload, Origin { ticket: self.end, caller, at }, mutation);
        self.end = Ticket(self.end.0 + 1);
        self.live += 1;
        start..body.len()
    }

    pub(super) fn weight(&self) -> Weight {
        let open = self.live as usize - self.rejected.len();
        let on_the_way = matches!(self.stage, Stage::Sent | Stage::Resent);
        Weight {
            waiting: if on_the_way || self.stage == Stage::Accepted { open } else { 0 },
            kept: if self.stage.is_end() { 0 } else { open },
            bytes: self.capacity(),
            in_flight: usize::from(self.local && on_the_way),
        }
    }

    /// Bytes of body and payload that memory is held for.
    fn capacity(&self) -> usize {
        match &self.bytes {
            Kept::Growing { body, payload, .. } => body.capacity() + payload.capacity(),
            Kept::Fixed { body, payload } => body.len() + payload.len(),
        }
    }

    /// Bytes of body and payload.
    pub(super) fn len(&self) -> (usize, usize) {
        match &self.bytes {
            Kept::Growing { body, payload, .. } => (body.len(), payload.len()),
            Kept::Fixed { body, payload } => (body.len(), payload.len()),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        match self.stage.on(event) {
            Some(next) => self.stage = next,
            None => unreachable!("{event:?} of a segment that is {:?}", self.stage),
        }
        if self.stage.is_end() {
            self.bytes = Kept::Fixed { body: Bytes::new(), payload: Bytes::new() };
        }
    }

    /// Its bytes do not change any more. What they took beyond their length is given back.
    pub(super) fn fix(&mut self) {
        let Kept::Growing { body, payload, holes } = &mut self.bytes else { return };
        if *holes {
            close_holes(body);
        }
        body.shrink_to_fit();
        payload.shrink_to_fit();
        let (body, payload) = (std::mem::take(body), std::mem::take(payload));
        self.bytes = Kept::Fixed { body: body.into(), payload: payload.into() };
    }

    /// The frame, of what was not rejected. The segment is fixed.
    pub(super) fn batch(&self) -> Batch {
        let Kept::Fixed { body, payload } = &self.bytes else { unreachable!("only fixed bytes are sent") };
        let (mut body, mut payload) = (body.clone(), payload.clone());
        if !self.rejected.is_empty() {
            let kept = |piece: &Piece| self.rejected.binary_search(&piece.ticket).is_err();
            let pieces: Vec<Piece> = pieces(&body, &payload).filter(kept).collect();
            let join = |bytes: &[u8], part: fn(&Piece) -> &Range<usize>| -> Bytes {
                pieces.iter().flat_map(|piece| &bytes[part(piece).clone()]).copied().collect()
            };
            (body, payload) = (join(&body, |piece| &piece.body), join(&payload, |piece| &piece.payload));
        }
        let rejected = u32::try_from(self.rejected.len()).unwrap_or(u32::MAX);
        Batch {
            first: self.first,
            last: Ticket(self.end.0 - 1),
            count: self.live - rejected,
            local: self.local,
            unanswered: self.stage == Stage::Sent,
            before: self.before,
            body,
            payload,
        }
    }

    /// Notes a mutation that the server refused. `None`: it is not in here, or was refused before.
    pub(super) fn reject(&mut self, ticket: Ticket, errno: Errno, late: bool) -> Option<Failed> {
        let at = self.rejected.binary_search(&ticket).err()?;
        let failed = self.failed(ticket, errno, late)?;
        self.rejected.insert(at, ticket);
        Some(failed)
    }

    /// The record that begins at this place of the body; none where a hole is. It holds no data of a write.
    pub(super) fn read(&self, at: usize) -> Option<(Origin, Mutation<'_>)> {
        let Kept::Growing { body, .. } = &self.bytes else { return None };
        let (origin, mutation) = mutation::decode_batch(body.get(at..)?, &[]).next()?.ok()?;
        Some((origin, mutation.ok()?))
    }

    /// What is sent again makes the inode with this number, which the server gave it. It is the only one in here.
    pub(super) fn number(&mut self, ino: Ino) {
        let Kept::Fixed { body, payload } = &self.bytes else { return };
        let Some(Ok((origin, Ok(made)))) = mutation::decode_batch(body, payload).next() else { return };
        let Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino: None } = made else {
            return;
        };
        let made = Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino: Some(ino) };
        let mut body = Vec::new();
        mutation::encode(&mut body, &mut Vec::new(), origin, &made);
        self.bytes = Kept::Fixed { body: body.into(), payload: payload.clone() };
    }

    /// Takes a record out.
    pub(super) fn make_hole(&mut self, at: usize) {
        let Kept::Growing { body, holes, .. } = &mut self.bytes else { return };
        if let Some(kind) = body.get_mut(at..at + HOLE.len()) {
            kind.copy_from_slice(&HOLE);
            *holes = true;
            self.live -= 1;
        }
    }

    /// Takes `hold` back in a record.
    pub(super) fn clear_hold(&mut self, at: usize) {
        if let Kept::Growing { body, .. } = &mut self.bytes {
            mutation::clear_hold(&mut body[at..]);
        }
    }

    /// Puts a mutation without strings in the place of a record, if that is long enough.
    pub(super) fn replace(&mut self, at: usize, origin: Origin, mutation: &Mutation<'_>) -> bool {
        let Kept::Growing { body, .. } = &mut self.bytes else { return false };
        let Some(whole) = record_bytes(&body[at..]) else { return false };
        let mut record = Vec::with_capacity(whole);
        mutation::encode(&mut record, &mut Vec::new(), origin, mutation);
        if record.len() > whole {
            return false;
        }
        // The struct of a record may be longer than a reader knows: zeros say nothing.
        record.resize(whole, 0);
        let fixed = whole - RECORD_HEADER_BYTES;
        record[2..4].copy_from_slice(&u16::try_from(fixed).unwrap_or(u16::MAX).to_le_bytes());
        record[4..8].copy_from_slice(&u32::try_from(fixed).unwrap_or(u32::MAX).to_le_bytes());
        body[at..at + whole].copy_from_slice(&record);
        true
    }

    fn failed(&self, ticket: Ticket, errno: Errno, late: bool) -> Option<Failed> {
        let Kept::Fixed { body, payload } = &self.bytes else { return None };
        let piece = pieces(body, payload).find(|piece| piece.ticket == ticket)?;
        Some(Failed {
            ticket,
            errno,
            late,
            unknown: false,
            body: body.slice(piece.body),
            payload: payload.slice(piece.payload),
        })
    }

    /// All that is neither folded nor rejected, as failed. Fixes the bytes.
    pub(super) fn all_failed(&mut self, errno: Errno, late: bool, unknown: bool) -> Vec<Failed> {
        self.fix();
        let Kept::Fixed { body, payload } = &self.bytes else { return Vec::new() };
        pieces(body, payload)
            .filter(|piece| self.rejected.binary_search(&piece.ticket).is_err())
            .map(|piece| Failed {
                ticket: piece.ticket,
                errno,
                late,
                unknown,
                body: body.slice(piece.body),
                payload: payload.slice(piece.payload),
            })
            .collect()
    }

    /// Number of those the server refused.
    pub(super) fn rejected(&self) -> usize {
        self.rejected.len()
    }

    #[cfg(test)]
    pub(super) fn rejected_bytes(&self) -> usize {
        self.rejected.capacity() * size_of::<Ticket>()
    }

    /// Where one of its mutations stands.
    pub(super) fn stage_of(&self, ticket: Ticket) -> Stage {
        if self.rejected.binary_search(&ticket).is_ok() {
            return Stage::Rejected;
        }
        let (body, payload) = match &self.bytes {
            Kept::Growing { body, payload, .. } => (&body[..], &payload[..]),
            Kept::Fixed { body, payload } => (&body[..], &payload[..]),
        };
        let folded = !self.stage.is_end() && !pieces(body, payload).any(|piece| piece.ticket == ticket);
        if folded { Stage::Folded } else { self.stage }
    }
}

/// One record, and its data.
struct Piece {
    ticket: Ticket,
    body: Range<usize>,
    payload: Range<usize>,
}

/// Splits bytes made here; holes are skipped.
fn pieces<'a>(body: &'a [u8], payload: &'a [u8]) -> impl Iterator<Item = Piece> + 'a {
    let (mut at, mut data_at) = (0, 0);
    std::iter::from_fn(move || {
        loop {
            let whole = record_bytes(body.get(at..)?)?;
            let start = at;
            at += whole;
            let record = &body[start..at];
            let Some(Ok((origin, read))) = mutation::decode_batch(record, &payload[data_at..]).next() else {
                continue;
            };
            let data = match read {
                Ok(Mutation::Write { data, .. }) => data.len(),
                Ok(_) => 0,
                // A hole.
                Err(_) => continue,
            };
            let data_start = data_at;
            data_at += data;
            return Some(Piece { ticket: origin.ticket, body: start..at, payload: data_start..data_at });
        }
    })
}

/// Length of the record that begins here.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
    let rest = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let whole = RECORD_HEADER_BYTES + rest;
    (whole <= bytes.len()).then_some(whole)
}

/// Kind of a record that is not sent: none has it.
const HOLE: [u8; 2] = [0, 0];

fn close_holes(body: &mut Vec<u8>) {
    let (mut from, mut to) = (0, 0);
    while let Some(whole) = record_bytes(&body[from..]) {
        if body[from..from + 2] != HOLE {
            body.copy_within(from..from + whole, to);
            to += whole;
        }
        from += whole;
    }
    body.truncate(to);
}
