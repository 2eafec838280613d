//! What is granted, recalled and given back: the server's permission to answer locally (decision 0004).
//!
//! A grant travels behind the answer it came with, packed, so that an answer without grants costs nothing and one with
//! many costs no allocation.

use super::WireFault;
use super::record::{Record, push};
use crate::base::Ino;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How far a lease goes. `Exclusive` is more than `Shared`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LeaseMode {
    /// The client may answer from what it knows.
    Shared,
    /// It may also change locally; nobody else has a lease.
    Exclusive,
}

/// How much of a lease stays after a recall or a return.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// [`LeaseMode::Shared`].
    Shared,
}

/// A lease that a session has from now on, in place of the one it had on the inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Inode.
    pub ino: Ino,
    /// How far it goes.
    pub mode: LeaseMode,
    /// Number of the grant: grows with each one of the server, never 0.
    pub number: u64,
    /// The inode has no extended attributes and no ACL: the client may say so, and may make children in it.
    pub plain: bool,
}

/// The server wants a lease back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recall {
    /// Inode.
    pub ino: Ino,
    /// What the client may keep.
    pub keep: Keep,
    /// The grant that is recalled; 0 for a lease that came with a local `Make`, without a grant.
    pub number: u64,
}

/// A client gives a lease back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// Inode.
    pub ino: Ino,
    /// The grant it gives back, 0 for a lease that came with a local `Make`. The server ignores the return of a grant
    /// in place of which it has granted anew.
    pub number: u64,
    /// What it keeps.
    pub keep: Keep,
    /// It has the inode open: the server holds it for the session from now on.
    pub open: bool,
}

const EXCLUSIVE: u32 = 1;
const PLAIN: u32 = 2;
const KEEP_SHARED: u32 = 1;
const OPEN: u32 = 2;

/// One of the three above as it stands in a record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct WireLease {
    ino: U64,
    number: U64,
    flags: U32,
    reserved: U32,
}

impl WireLease {
    fn new(ino: Ino, number: u64, flags: u32) -> Self {
        Self { ino: ino.0.into(), number: number.into(), flags: flags.into(), reserved: 0.into() }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.get() & flag != 0
    }

    fn keep(&self) -> Keep {
        if self.has(KEEP_SHARED) { Keep::Shared } else { Keep::Nothing }
    }

    fn of_grant(grant: &Grant) -> Self {
        let exclusive = if grant.mode == LeaseMode::Exclusive { EXCLUSIVE } else { 0 };
        Self::new(grant.ino, grant.number, exclusive | if grant.plain { PLAIN } else { 0 })
    }

    fn grant(&self) -> Grant {
        let mode = if self.has(EXCLUSIVE) { LeaseMode::Exclusive } else { LeaseMode::Shared };
        Grant { ino: Ino(self.ino.get()), mode, number: self.number.get(), plain: self.has(PLAIN) }
    }

    pub(super) fn of_recall(recall: &Recall) -> Self {
        Self::new(recall.ino, recall.number, if recall.keep == Keep::Shared { KEEP_SHARED } else { 0 })
    }

    pub(super) fn recall(&self) -> Recall {
        Recall { ino: Ino(self.ino.get()), keep: self.keep(), number: self.number.get() }
    }

    fn of_returned(returned: &Returned) -> Self {
        let keep = if returned.keep == Keep::Shared { KEEP_SHARED } else { 0 };
        Self::new(returned.ino, returned.number, keep | if returned.open { OPEN } else { 0 })
    }

    fn returned(&self) -> Returned {
        let (ino, number) = (Ino(self.ino.get()), self.number.get());
        Returned { ino, number, keep: self.keep(), open: self.has(OPEN) }
    }
}

/// The packed list of a `Return`.
pub(super) fn pack_returned(returned: &[Returned]) -> Vec<u8> {
    let packed: Vec<WireLease> = returned.iter().map(WireLease::of_returned).collect();
    packed.as_bytes().to_vec()
}

/// Reads it back.
pub(super) fn unpack_returned(bytes: &[u8], kind: u16) -> Result<Vec<Returned>, WireFault> {
    Ok(packed(bytes, kind)?.iter().map(WireLease::returned).collect())
}

fn packed(bytes: &[u8], kind: u16) -> Result<&[WireLease], WireFault> {
    <[WireLease]>::ref_from_bytes(bytes).map_err(|_| WireFault::Invalid { kind, what: "half a lease" })
}

/// The record of grants behind an answer.
pub(super) const GRANTS: u16 = 203;

/// The grants that came with an answer, still in the bytes of its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grants<'a> {
    packed: &'a [WireLease],
}

impl<'a> Grants<'a> {
    pub(super) fn decode(record: &Record<'a>) -> Result<Self, WireFault> {
        Ok(Self { packed: packed(record.tail().bytes()?, record.kind)? })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// Whether the answer granted nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Grant> + use<'a> {
        self.packed.iter().map(WireLease::grant)
    }
}

/// Appends grants behind the answer in `body`; nothing for none.
pub fn encode_grants(body: &mut Vec<u8>, grants: &[Grant]) {
    if grants.is_empty() {
        return;
    }
    let packed: Vec<WireLease> = grants.iter().map(WireLease::of_grant).collect();
    push(body, GRANTS, &U32::ZERO, &[packed.as_bytes()]);
}

/// Bytes that this many grants take behind an answer.
#[must_use]
pub const fn grants_bytes(count: usize) -> usize {
    match count {
        0 => 0,
        count => super::record::RECORD_HEADER_BYTES + 8 + count * size_of::<WireLease>(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Grant, LeaseMode, encode_grants, grants_bytes};
    use crate::base::Ino;

    #[test]
    fn grants_take_the_bytes_that_were_announced() {
        for count in [0, 1, 7] {
            let grant = Grant { ino: Ino(3), mode: LeaseMode::Shared, number: 4, plain: false };
            let mut body = Vec::new();
            encode_grants(&mut body, &vec![grant; count]);
            assert_eq!(body.len(), grants_bytes(count));
        }
    }
}
