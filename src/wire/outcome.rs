//! Outcomes: what became of each mutation of a batch. The bytes of one outcome are what the server stores in the
//! mutation's own transaction and repeats to a replay (R7.2).
//!
//! A body begins with the commit that contains the batch. Then come, in the order of the batch, ranges of tickets of
//! local mutations that were done ([`encode_ran`]) and whole outcomes ([`encode`]): of those that failed, and of all that
//! somebody waits for.

use super::WireFault;
use super::mutation::Ticket;
use super::record::{RECORD_HEADER_BYTES, Record, Records, push, without_zeros};
use crate::base::{Attr, Errno, Ino, Time, limits};
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What became of the mutation with this ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Which mutation.
    pub ticket: Ticket,
    /// Done, or the errno its caller gets.
    pub result: Result<Done, Errno>,
}

/// What a mutation that was done has to tell. Fields that a kind does not name are empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// Attributes afterwards of the inode made, linked or changed (`Make`, `Tmpfile`, `Link`, `SetAttr`, `Write`,
    /// `Allocate`, `Copy`: of the target).
    pub attr: Option<Attr>,
    /// `Unlink`, `Rmdir`, `Rename`: the inode that lost its last name; with `hold` this session holds it now until it
    /// is dropped.
    pub orphan: Option<Ino>,
    /// What the names stood for before: of `Unlink` and `Rmdir` the first alone, of `Rename` the old and the new name.
    /// A client that did not know it learns whose attributes changed.
    pub named: [Option<Ino>; 2],
    /// `Write`, `Copy`: number of bytes.
    pub bytes: u64,
    /// `Write`: where the bytes went (differs from the request with append).
    pub offset: u64,
    /// `Make` without `exclusive`: the file existed and was not made.
    pub existed: bool,
}

/// [`Attr`] as it stands in a record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
pub(super) struct WireAttr {
    ino: U64,
    size: U64,
    blocks: U64,
    mode: U32,
    nlink: U32,
    uid: U32,
    gid: U32,
    rdev: U32,
    nanos: [U32; 4],
    pad: U32,
    secs: [I64; 4],
}

impl WireAttr {
    pub(super) fn new(attr: &Attr) -> Self {
        let times = [attr.atime, attr.mtime, attr.ctime, attr.btime];
        Self {
            ino: attr.ino.0.into(),
            size: attr.size.into(),
            blocks: attr.blocks.into(),
            mode: attr.mode.into(),
            nlink: attr.nlink.into(),
            uid: attr.uid.into(),
            gid: attr.gid.into(),
            rdev: attr.rdev.into(),
            nanos: times.map(|time| time.nanos.into()),
            pad: 0.into(),
            secs: times.map(|time| time.secs.into()),
        }
    }

    pub(super) fn attr(&self) -> Attr {
        let time = |i: usize| Time { secs: self.secs[i].get(), nanos: self.nanos[i].get().min(999_999_999) };
        Attr {
            ino: Ino(self.ino.get()),
            mode: self.mode.get(),
            nlink: self.nlink.get(),
            uid: self.uid.get(),
            gid: self.gid.get(),
            rdev: self.rdev.get(),
            size: self.size.get(),
            blocks: self.blocks.get(),
            atime: time(0),
            mtime: time(1),
            ctime: time(2),
            btime: time(3),
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Fixed {
    ticket: U64,
    errno: U32,
    flags: U32,
    orphan: U64,
    bytes: U64,
    offset: U64,
    attr: WireAttr,
    named: [U64; 2],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct CommitFixed {
    commit: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RanFixed {
    first: U64,
    last: U64,
}

const _: () = {
    // A full batch must be answerable: an outcome that does not fit is an effect that nobody learns of.
    let commit = RECORD_HEADER_BYTES + size_of::<CommitFixed>();
    let each = RECORD_HEADER_BYTES + size_of::<Fixed>();
    assert!(size_of::<RanFixed>() <= size_of::<Fixed>());
    assert!(commit + limits::BATCH_MUTATIONS_MAX * each <= limits::FRAME_BODY_BYTES_MAX);
};

const OUTCOME: u16 = 64;
const COMMIT: u16 = 65;
const RAN: u16 = 66;
const HAS_ATTR: u32 = 1;
const EXISTED: u32 = 2;

/// Begins a body: what follows is in the server's commit `commit`, or in an earlier one.
pub fn begin(body: &mut Vec<u8>, commit: u64) {
    push(body, COMMIT, &CommitFixed { commit: commit.into() }, &[]);
}

/// Appends: all local mutations from `first` to `last` were done.
pub fn encode_ran(body: &mut Vec<u8>, first: Ticket, last: Ticket) {
    push(body, RAN, &RanFixed { first: first.0.into(), last: last.0.into() }, &[]);
}

/// Appends the record of `outcome` to `body`.
pub fn encode(body: &mut Vec<u8>, outcome: &Outcome) {
    let mut f = Fixed::new_zeroed();
    f.ticket = outcome.ticket.0.into();
    match &outcome.result {
        Err(errno) => f.errno = errno.raw().unsigned_abs().into(),
        Ok(done) => {
            let mut flags = 0;
            if let Some(attr) = &done.attr {
                f.attr = WireAttr::new(attr);
                flags |= HAS_ATTR;
            }
            if done.existed {
                flags |= EXISTED;
            }
            f.flags = flags.into();
            f.orphan = done.orphan.map_or(0, |ino| ino.0).into();
            f.named = done.named.map(|ino| ino.map_or(0, |ino| ino.0).into());
            f.bytes = done.bytes.into();
            f.offset = done.offset.into();
        }
    }
    push(body, OUTCOME, without_zeros(f.as_bytes()), &[]);
}

/// What a record says of mutations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The local mutations with these tickets were done, both ends included.
    Ran {
        /// The first.
        first: Ticket,
        /// The last; not before the first.
        last: Ticket,
    },
    /// The outcome of one.
    One(Outcome),
}

/// The outcomes of a body, in order. After a fault nothing more comes.
#[derive(Debug)]
pub struct Outcomes<'a> {
    commit: u64,
    records: Records<'a>,
}

impl Outcomes<'_> {
    /// The server's commit that contains all of it.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }
}

impl Iterator for Outcomes<'_> {
    type Item = Result<Told, WireFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let told = self.records.next()?.and_then(|record| match record.kind {
            RAN => ran(&record),
            _ => outcome(&record).map(Told::One),
        });
        if told.is_err() {
            self.records = Records::new(&[]);
        }
        Some(told)
    }
}

/// Reads a body of outcomes.
///
/// # Errors
/// It does not begin with a commit; an item is `Err` for bytes that are no outcome.
pub fn decode(body: &[u8]) -> Result<Outcomes<'_>, WireFault> {
    let mut records = Records::new(body);
    let first = records.next().ok_or(WireFault::Short { kind: COMMIT })??;
    if first.kind != COMMIT {
        return Err(WireFault::Invalid {
            kind: first.kind,
            what: "outcomes that do not begin with a commit",
        });
    }
    Ok(Outcomes { commit: first.fixed::<CommitFixed>().commit.get(), records })
}

/// The one outcome in `record`, as [`encode`] wrote it.
///
/// # Errors
/// It is none.
pub fn decode_one(record: &[u8]) -> Result<Outcome, WireFault> {
    let first = Records::new(record).next().ok_or(WireFault::Short { kind: OUTCOME })?;
    outcome(&first?)
}

fn ran(record: &Record<'_>) -> Result<Told, WireFault> {
    let f: RanFixed = record.fixed();
    let (first, last) = (Ticket(f.first.get()), Ticket(f.last.get()));
    if first > last {
        return Err(WireFault::Invalid { kind: RAN, what: "a range that ends before it begins" });
    }
    Ok(Told::Ran { first, last })
}

fn outcome(record: &Record<'_>) -> Result<Outcome, WireFault> {
    if record.kind != OUTCOME {
        return Err(WireFault::Unknown { kind: record.kind });
    }
    let f: Fixed = record.fixed();
    let flags = f.flags.get();
    let errno = i32::try_from(f.errno.get()).unwrap_or(i32::MAX);
    let ino = |ino: U64| (ino.get() != 0).then(|| Ino(ino.get()));
    let result = if errno != 0 {
        Err(Errno::from_raw(errno))
    } else {
        Ok(Done {
            attr: (flags & HAS_ATTR != 0).then(|| f.attr.attr()),
            orphan: ino(f.orphan),
            named: f.named.map(ino),
            bytes: f.bytes.get(),
            offset: f.offset.get(),
            existed: flags & EXISTED != 0,
        })
    };
    Ok(Outcome { ticket: Ticket(f.ticket.get()), result })
}
