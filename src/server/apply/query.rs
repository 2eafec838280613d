//! Queries: reading beside others that read. A query sees the state between two mutations, never inside one.

use super::{Inner, Volume};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::{Attr, Errno, Ino, SessionId};
use crate::server::chunks::ChunkFault;
use crate::server::meta::{Value, View, attributes, counters, inodes};
use crate::server::ops::{self, Listing, ReadPlan};
use crate::wire::{Answer, FsStat, Grant, Query, answer};
use bytes::Bytes;
use std::ops::ControlFlow;

/// An answer that owns what it tells.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// Nothing but success.
    Empty,
    /// Attributes.
    Attr(Attr),
    /// A link target, the value or the names of extended attributes.
    Bytes(Value),
    /// File bytes: for the payload of the frame, shared without a copy.
    Data(Bytes),
    /// An offset.
    Offset(u64),
    /// Space.
    FsStat(FsStat),
    /// A piece of a directory.
    Listing(Listing),
}

impl Found {
    /// Appends the answer to a frame's body; returns the frame's payload.
    pub fn encode(result: &Result<Self, Errno>, body: &mut Vec<u8>) -> Bytes {
        let answer = match result {
            Err(errno) => Err(*errno),
            Ok(Self::Empty) => Ok(Answer::Empty),
            Ok(Self::Attr(attr)) => Ok(Answer::Attr(*attr)),
            Ok(Self::Bytes(bytes)) => Ok(Answer::Bytes(bytes)),
            Ok(Self::Data(data)) => Ok(Answer::Data(data)),
            Ok(Self::Offset(offset)) => Ok(Answer::Offset(*offset)),
            Ok(Self::FsStat(stat)) => Ok(Answer::FsStat(*stat)),
            Ok(Self::Listing(list)) => {
                Ok(Answer::Entries { entries: list.entries().collect(), end: list.is_end() })
            }
        };
        answer::encode(body, &answer);
        match result {
            Ok(Self::Data(data)) => data.clone(),
            _ => Bytes::new(),
        }
    }
}

/// Bytes of metadata one more inode takes on the disk, roughly: for the number of inodes that can still be made.
const INODE_BYTES: u64 = 512;

/// What a volume in memory claims to have left.
const MEMORY_BYTES: u64 = 1 << 30;

/// A chunk that moves while it is read is looked up again, so often at most. The collector moves one in minutes.
const READ_TRIES_MAX: u32 = 8;

impl Volume {
    /// Answers what is asked of the file system: everything that reads, and `Hold` and `Drop`. EOPNOTSUPP for what
    /// belongs to the session (locks, syncs, re-assertion).
    ///
    /// # Errors
    /// As documented at [`Query`]; ESTALE for an inode that is gone, EIO for a fault of the store, which is logged.
    pub fn query(&self, session: SessionId, query: &Query<'_>) -> Result<Found, Errno> {
        let inner = &*self.inner;
        match query {
            Query::Read { ino, offset, len } => inner.read(*ino, *offset, *len).map(Found::Data),
            Query::Hold { ino } => inner.hold(session, *ino).map(Found::Attr),
            Query::Drop { inos } => {
                self.release(session, inos);
                Ok(Found::Empty)
            }
            Query::StatFs => inner.statfs().map(Found::FsStat),
            _ => {
                let _state = inner.read_state();
                let found = inner.look(query).ok_or(Errno::EOPNOTSUPP)?;
                found.map_err(ops::Stop::errno)
            }
        }
    }
}

impl Volume {
    /// Notes in grants which of the inodes have no extended attributes and no ACL. One that cannot be read is not noted.
    pub fn mark_plain(&self, grants: &mut [Grant]) {
        if grants.is_empty() {
            return;
        }
        let inner = &*self.inner;
        let _state = inner.read_state();
        let plain = |ino: Ino| {
            let mut none = true;
            let seen = attributes::each_xattr(inner.view(), ino, &mut |_, _| {
                none = false;
                ControlFlow::Break(())
            });
            seen.is_ok() && none
        };
        grants.iter_mut().for_each(|grant| grant.plain = plain(grant.ino));
    }
}

impl Inner {
    fn view(&self) -> &dyn View {
        self.store.engine()
    }

    /// What needs nothing but the keys; `None` when the query is of another kind.
    fn look(&self, query: &Query<'_>) -> Option<ops::Try<Found>> {
        let view = self.view();
        Some(match query {
            Query::Lookup { parent, name } => {
                ops::lookup(view, self.store.names(), *parent, *name).map(Found::Attr)
            }
            Query::GetAttr { ino } => ops::attr(view, *ino).map(Found::Attr),
            Query::Parent { ino } => ops::parent(view, *ino).map(Found::Attr),
            Query::ReadLink { ino } => ops::read_link(view, *ino).map(Found::Bytes),
            Query::ReadDir { ino, cookie, bytes_max, plus } => {
                ops::list(view, *ino, *cookie, *bytes_max, *plus).map(Found::Listing)
            }
            Query::GetXattr { ino, name } => ops::get_xattr(view, *ino, name).map(Found::Bytes),
            Query::ListXattr { ino } => {
                ops::list_xattr(view, *ino).map(|names| Found::Bytes(Value::from(names)))
            }
            Query::Seek { ino, offset, to } => ops::seek(view, *ino, *offset, *to).map(Found::Offset),
            _ => return None,
        })
    }

    /// Takes a hold, unless the inode is gone or about to go.
    pub(super) fn hold(&self, session: SessionId, ino: Ino) -> Result<Attr, Errno> {
        // Read: the reaper needs it written, so what is found here stays until it is held.
        let _state = self.read_state();
        let inode = inodes::get(self.view(), ino)?.ok_or(Errno::ESTALE)?;
        let mut holds = self.holds();
        if inode.nlink == 0 && holds.is_free(ino) {
            return Err(Errno::ESTALE);
        }
        if !holds.has_room(session) && !holds.holds(session, ino) {
            return Err(Errno::ENFILE);
        }
        holds.hold(session, ino);
        Ok(inode.attr())
    }

    fn statfs(&self) -> Result<FsStat, Errno> {
        let used = counters::usage(self.view())?;
        let bytes_free = self.store.space()?.map_or(MEMORY_BYTES, |space| space.free_bytes);
        Ok(FsStat {
            bytes_total: used.bytes.saturating_add(bytes_free),
            bytes_free,
            inodes_used: used.inodes,
            inodes_free: bytes_free / INODE_BYTES,
        })
    }

    /// Bytes are read without a lock: chunks never change. One that moved meanwhile is looked up again.
    fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Bytes, Errno> {
        for _ in 0..READ_TRIES_MAX {
            let plan = {
                let _state = self.read_state();
                ops::read_plan(self.view(), ino, offset, len).map_err(ops::Stop::errno)?
            };
            match self.read_chunks(&plan) {
                Ok(bytes) => return Ok(bytes),
                Err(ChunkFault::Missing { .. }) => {}
                Err(fault) => return Err(Errno::from(fault)),
            }
        }
        tracing::error!(%ino, offset, "chunks of a file are missing; run `ringfs fsck` on the store");
        Err(Errno::EIO)
    }

    fn read_chunks(&self, plan: &ReadPlan) -> Result<Bytes, ChunkFault> {
        assert!(plan.len <= IO_BYTES_MAX);
        let mut out = vec![0; plan.len];
        for piece in &plan.pieces {
            let part = &mut out[piece.at..piece.at + piece.len];
            self.store.chunks().read(piece.chunk, piece.place, piece.from, part)?;
        }
        Ok(Bytes::from(out))
    }
}
