//! One request: the bytes that go out, who waits for the answer, and what the answer may look like.

use super::Tickets;
use crate::base::{Errno, SessionId};
use crate::wire::frame::{HEADER_BYTES, crc32c};
use crate::wire::{Answer, FrameKind, Grants, Header, Outcome, Query, Ticket};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What does not change however often the request is sent. Kept until the answer is there.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: FrameKind,
    pub(super) sequence: u64,
    pub(super) body: Bytes,
    pub(super) body_crc: u32,
    pub(super) payload: Bytes,
    /// See [`Header::before`].
    pub(super) before: u64,
}

impl Request {
    pub(super) fn new(kind: FrameKind, sequence: u64, body: Bytes, payload: Bytes) -> Self {
        let body_crc = crc32c(&body);
        Self { kind, sequence, body, body_crc, payload, before: 0 }
    }

    /// Bytes on the wire.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len() + self.payload.len()
    }

    /// The header it gets on a connection: fixed once, since a frame may be half sent.
    pub(super) fn header(&self, version: u16, session: SessionId, settled: u64) -> [u8; HEADER_BYTES] {
        let header = Header {
            version,
            kind: self.kind,
            session,
            sequence: self.sequence,
            settled,
            before: self.before,
            // Both lengths were checked against their limits when the request came in.
            body_bytes: u32::try_from(self.body.len()).unwrap_or(u32::MAX),
            payload_bytes: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            body_crc: self.body_crc,
        };
        header.encode()
    }
}

type CallDone = Box<dyn for<'a> FnOnce(Result<Answer<'a>, Errno>, Grants<'a>) + Send>;
type BatchDone = Box<dyn for<'a> FnOnce(Result<&'a [Outcome], Errno>) + Send>;

/// Who waits.
pub(super) enum Done {
    Call(CallDone),
    Batch(Tickets, BatchDone),
    /// The owner's log, which sends it again by itself.
    Log(Span),
}

/// The tickets of a batch of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) first: Ticket,
    pub(super) last: Ticket,
    pub(super) count: u32,
}

impl Done {
    pub(super) fn fail(self, errno: Errno) {
        match self {
            Self::Call(done) => done(Err(errno), Grants::default()),
            Self::Batch(_, done) => done(Err(errno)),
            Self::Log(_) => {}
        }
    }
}

/// What the link must know of a request's meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    /// A question that may be given up while there is no connection.
    Question,
    /// It waits for a lock at the server.
    LockWait,
    /// It changes something: never given up.
    Change,
    /// Mutations of the owner's log: with the connection it is forgotten, and comes from the log again.
    Logged,
    /// The link's own keepalive: not sent again.
    Keepalive,
}

impl Nature {
    pub(super) fn of(query: &Query<'_>) -> Self {
        match query {
            Query::SetLock { wait: true, .. } => Self::LockWait,
            Query::SetLock { wait: false, .. }
            | Query::Drop { .. }
            | Query::CancelLock { .. }
            | Query::UnlockOwner { .. }
            | Query::UnlockHandle { .. }
            | Query::Reassert { .. }
            | Query::Return { .. } => Self::Change,
            Query::Lookup { .. }
            | Query::GetAttr { .. }
            | Query::Parent { .. }
            | Query::ReadLink { .. }
            | Query::ReadDir { .. }
            | Query::Read { .. }
            | Query::GetXattr { .. }
            | Query::ListXattr { .. }
            | Query::StatFs
            | Query::Seek { .. }
            | Query::Hold { .. }
            | Query::Sync { .. }
            | Query::GetLock { .. }
            | Query::Ping
            | Query::Status
            | Query::Numbers { .. }
            | Query::Evict { .. } => Self::Question,
        }
    }
}

/// A request without an answer.
pub(super) struct InFlight {
    pub(super) request: Arc<Request>,
    pub(super) done: Done,
    pub(super) nature: Nature,
    /// When it was asked for, by [`super::boottime`].
    pub(super) asked: Duration,
    /// Longest payload the answer may bring.
    pub(super) payload_bytes_max: u32,
    /// Its caller got a signal: it fails when the connection is lost.
    pub(super) interrupted: bool,
}
