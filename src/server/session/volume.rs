//! What the sessions need of a volume. Stands here until `apply` offers it.

use crate::base::{Errno, Ino, SessionId};
use crate::wire::{Query, WireFault};
use bytes::Bytes;

/// Called once, from any thread.
pub type Synced = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// See the module.
pub trait Files: Send + Sync + 'static {
    /// Name of the volume.
    fn id(&self) -> Vec<u8>;
    /// Counts the start of a server on it.
    fn next_epoch(&self) -> Result<u64, Errno>;
    /// Sessions and their records.
    fn sessions(&self) -> Result<Vec<(SessionId, Vec<u8>)>, Errno>;
    /// Stores a session's record.
    fn put_session(&self, session: SessionId, record: &[u8]) -> Result<(), Errno>;
    /// Ends a session: record, results, holds.
    fn end_session(&self, session: SessionId) -> Result<(), Errno>;
    /// All sessions hold again what they held: the rest of the orphans may go.
    fn end_grace(&self);
    /// Works on a batch; its outcomes as bytes.
    fn apply(
        &self,
        session: SessionId,
        body: &[u8],
        payload: &Bytes,
        settled: u64,
    ) -> Result<Vec<u8>, WireFault>;
    /// Answers a query: the body, and the payload.
    fn query(&self, session: SessionId, query: &Query<'_>) -> (Vec<u8>, Bytes);
    /// Holds.
    fn reassert(&self, session: SessionId, inos: &[Ino]) -> Result<bool, Errno>;
    /// How many.
    fn holds_of(&self, session: SessionId) -> usize;
    /// All that was applied is durable when `done` is called.
    fn sync(&self, done: Synced);
    /// Waits for it.
    fn sync_wait(&self) -> Result<(), Errno>;
}

/// The volume.
pub type Volume = dyn Files;
