//! Questions that outlive the request they came from.

use crate::base::{Ino, NameBuf};
use crate::wire::{Query, query};

/// A question in a form that owns its bytes.
#[derive(Debug)]
pub(super) struct Owned(Vec<u8>);

impl Owned {
    pub(super) fn new(asked: &Query<'_>) -> Self {
        let mut body = Vec::new();
        query::encode(&mut body, asked);
        Self(body)
    }

    /// The question; `None` never, since [`Self::new`] wrote it.
    pub(super) fn query(&self) -> Option<Query<'_>> {
        query::decode(&self.0).ok()
    }
}

/// What of a question must be known to understand what its answer says about names and inodes.
#[derive(Debug)]
pub(super) enum About {
    /// One name.
    Name { parent: Ino, name: NameBuf },
    /// One inode.
    Inode(Ino),
    /// A piece of a listing, behind this cookie.
    Listing { ino: Ino, cookie: u64 },
    /// The target of a symlink.
    Target(Ino),
}

impl About {
    /// `None`: the answer says nothing that is remembered.
    pub(super) fn new(query: &Query<'_>) -> Option<Self> {
        Some(match query {
            Query::Lookup { parent, name } => Self::Name { parent: *parent, name: name.to_buf() },
            Query::GetAttr { ino } | Query::Hold { ino } => Self::Inode(*ino),
            Query::ReadDir { ino, cookie, plus: true, .. } => Self::Listing { ino: *ino, cookie: *cookie },
            Query::ReadLink { ino } => Self::Target(*ino),
            _ => return None,
        })
    }
}

/// What of the log a question must not overtake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Behind {
    /// Nothing: its answer does not depend on changes.
    Nothing,
    /// Changes of this inode.
    Inode(Ino),
    /// Everything.
    Everything,
}

impl Behind {
    pub(super) fn new(query: &Query<'_>) -> Self {
        match query {
            Query::Read { ino, .. }
            | Query::Seek { ino, .. }
            | Query::GetXattr { ino, .. }
            | Query::ListXattr { ino }
            // What was written under a lock is seen by whoever gets it next.
            | Query::SetLock { ino, .. }
            | Query::UnlockOwner { ino, .. }
            | Query::UnlockHandle { ino, .. } => Self::Inode(*ino),
            Query::StatFs
            | Query::GetLock { .. }
            | Query::CancelLock { .. }
            | Query::Drop { .. }
            | Query::Ping
            | Query::Status
            | Query::Numbers { .. }
            | Query::Return { .. }
            | Query::Evict { .. }
            | Query::Reassert { .. } => Self::Nothing,
            Query::Lookup { .. }
            | Query::GetAttr { .. }
            | Query::Parent { .. }
            | Query::ReadLink { .. }
            | Query::ReadDir { .. }
            | Query::Hold { .. }
            | Query::Sync { .. } => Self::Everything,
        }
    }
}
