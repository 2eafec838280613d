//! Queries: what a client asks without changing the name space. Each is idempotent, so it is simply asked again
//! after a reconnect; holds, drops and locks change the session's state at the server, and are idempotent too.

use super::WireFault;
use super::lease::{Returned, pack_returned, unpack_returned};
use super::record::{Record, Records, push};
use crate::base::{Ino, Name, SessionId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// One question.
#[derive(Clone, PartialEq, Debug)]
pub enum Query<'a> {
    /// What a name stands for. Answer: `Attr`.
    Lookup {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name<'a>,
    },
    /// Attributes. Answer: `Attr`.
    GetAttr {
        /// Inode.
        ino: Ino,
    },
    /// Directory that holds this one. Answer: `Attr` (of the root: itself).
    Parent {
        /// Directory.
        ino: Ino,
    },
    /// Target of a symlink. Answer: `Bytes`.
    ReadLink {
        /// Symlink.
        ino: Ino,
    },
    /// Names after `cookie`, as many as fit `bytes_max` of encoded answer. Answer: `Entries`, without `.` and `..`.
    ReadDir {
        /// Directory.
        ino: Ino,
        /// 0, or the cookie of the last entry seen.
        cookie: u64,
        /// Bound of the answer in bytes.
        bytes_max: u32,
        /// Whether each entry brings its attributes.
        plus: bool,
    },
    /// File bytes. Answer: `Data`, shorter than asked only at the end of the file.
    Read {
        /// File.
        ino: Ino,
        /// First byte.
        offset: u64,
        /// Number of bytes, at most [`crate::base::limits::IO_BYTES_MAX`].
        len: u32,
    },
    /// Value of an extended attribute. Answer: `Bytes`.
    GetXattr {
        /// Inode.
        ino: Ino,
        /// Full name.
        name: &'a [u8],
    },
    /// Names of all extended attributes, each ended by NUL. Answer: `Bytes`.
    ListXattr {
        /// Inode.
        ino: Ino,
    },
    /// Space and inodes. Answer: `FsStat`.
    StatFs,
    /// Next data or hole. Answer: `Offset`; ENXIO past the end.
    Seek {
        /// File.
        ino: Ino,
        /// Where to start.
        offset: u64,
        /// What to find.
        to: SeekTo,
    },
    /// The inode is being opened: it lives on without a name until dropped. Answer: `Attr`.
    Hold {
        /// Inode.
        ino: Ino,
    },
    /// These inodes are no longer open or known here; those without a name die. Answer: `Empty`.
    Drop {
        /// Inodes.
        inos: Vec<Ino>,
    },
    /// Wait until all that was applied before is durable. Answer: `Empty`.
    Sync {
        /// `fdatasync` of this inode, or everything. The server may make more durable than asked.
        ino: Option<Ino>,
        /// Attributes that are not needed to read the data back may stay behind.
        data_only: bool,
    },
    /// Would this lock be granted? Answer: `Lock`, of kind `Unlock` when it would.
    GetLock {
        /// Inode.
        ino: Ino,
        /// The lock.
        lock: LockRequest,
    },
    /// Set or remove a lock. Answer: `Empty`; EAGAIN when held by another and `wait` is false; EDEADLK. With
    /// `wait` the answer comes when the lock is granted.
    SetLock {
        /// Inode.
        ino: Ino,
        /// The lock.
        lock: LockRequest,
        /// Wait for it.
        wait: bool,
    },
    /// Give up the waiting `SetLock` that was asked with this sequence; that one is answered with EINTR, if it was
    /// not granted before. Answer: `Empty`.
    CancelLock {
        /// Sequence of the frame that asked.
        sequence: u64,
    },
    /// An owner closed the file: all its record locks on it end (POSIX). Answer: `Empty`.
    UnlockOwner {
        /// Inode.
        ino: Ino,
        /// Owner.
        owner: u64,
    },
    /// The last descriptor of an open file was closed: all locks that were set through it end (flock, OFD). Answer:
    /// `Empty`.
    UnlockHandle {
        /// Inode.
        ino: Ino,
        /// The handle the locks were set through.
        handle: u64,
    },
    /// After a reconnect: what this client holds open and has locked, in pieces; `last` ends them. Answer: `Empty`, or
    /// ESTALE when the session had expired and what it held may be gone.
    Reassert {
        /// Inodes.
        holds: Vec<Ino>,
        /// Locks.
        locks: Vec<(Ino, LockRequest)>,
        /// No more pieces follow.
        last: bool,
    },
    /// Keeps the session alive. Answer: `Empty`.
    Ping,
    /// What the server tells an operator. Answer: `Bytes` (JSON).
    Status,
    /// Leases that are given back. What was changed under them has been applied before. Answer: `Empty`.
    Return {
        /// Which.
        returned: Vec<Returned>,
    },
    /// Inode numbers for what this session will make; nobody else ever gets them. Answer: `Numbers`.
    Numbers {
        /// How many are wanted; the server may give fewer, never none.
        count: u32,
    },
    /// Ends a session as if it had been silent for too long. Observers alone may ask. Answer: `Empty`; ENOENT when there
    /// is no such session, EEXIST when there are several.
    Evict {
        /// Which: its whole number, or the digits that the status shows of it with zeros behind.
        session: SessionId,
    },
}

/// What `Seek` finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekTo {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// Kind of a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

/// Who owns a lock within its session. `flock` locks and record locks do not see each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LockOwner {
    /// `fcntl` record lock of a process or (OFD) of an open file: the kernel's number for it.
    Record(u64),
    /// `flock` of an open file: the kernel's number for it.
    Flock(u64),
}

/// One lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockRequest {
    /// Owner.
    pub owner: LockOwner,
    /// Kind.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `i64::MAX` means to the end.
    pub end: u64,
    /// Process id to tell in `GetLock`.
    pub pid: u32,
    /// Handle it is set through.
    pub handle: u64,
}

const LOOKUP: u16 = 128;
const GET_ATTR: u16 = 129;
const PARENT: u16 = 130;
const READ_LINK: u16 = 131;
const READ_DIR: u16 = 132;
const READ: u16 = 133;
const GET_XATTR: u16 = 134;
const LIST_XATTR: u16 = 135;
const STAT_FS: u16 = 136;
const SEEK: u16 = 137;
const HOLD: u16 = 138;
const DROP: u16 = 139;
const SYNC: u16 = 140;
const GET_LOCK: u16 = 141;
const SET_LOCK: u16 = 142;
const CANCEL_LOCK: u16 = 143;
const UNLOCK_OWNER: u16 = 144;
const UNLOCK_HANDLE: u16 = 145;
const REASSERT: u16 = 146;
const PING: u16 = 147;
const STATUS: u16 = 148;
const RETURN: u16 = 149;
const NUMBERS: u16 = 150;
const EVICT: u16 = 151;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Fixed {
    ino: U64,
    offset: U64,
    len: U32,
    flags: U32,
    lock: WireLock,
}

/// A lock as it stands in a record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
pub(super) struct WireLock {
    ino: U64,
    owner: U64,
    start: U64,
    end: U64,
    handle: U64,
    pid: U32,
    kind: U32,
}

const FLOCK: u32 = 256;

impl WireLock {
    pub(super) fn new(ino: Ino, lock: &LockRequest) -> Self {
        let (owner, flock) = match lock.owner {
            LockOwner::Record(owner) => (owner, 0),
            LockOwner::Flock(owner) => (owner, FLOCK),
        };
        let kind = match lock.kind {
            LockKind::Read => 0,
            LockKind::Write => 1,
            LockKind::Unlock => 2,
        };
        Self {
            ino: ino.0.into(),
            owner: owner.into(),
            start: lock.start.into(),
            end: lock.end.into(),
            handle: lock.handle.into(),
            pid: lock.pid.into(),
            kind: (kind | flock).into(),
        }
    }

    pub(super) fn lock(&self, record: u16) -> Result<(Ino, LockRequest), WireFault> {
        let raw = self.kind.get();
        let kind = match raw & !FLOCK {
            0 => LockKind::Read,
            1 => LockKind::Write,
            2 => LockKind::Unlock,
            _ => return Err(WireFault::Invalid { kind: record, what: "a lock of no known kind" }),
        };
        let owner = self.owner.get();
        let owner = if raw & FLOCK != 0 { LockOwner::Flock(owner) } else { LockOwner::Record(owner) };
        let (start, end) = (self.start.get(), self.end.get());
        if start > end {
            return Err(WireFault::Invalid { kind: record, what: "a lock that ends before it starts" });
        }
        let (pid, handle) = (self.pid.get(), self.handle.get());
        Ok((Ino(self.ino.get()), LockRequest { owner, kind, start, end, pid, handle }))
    }
}

/// Appends the record of `query` to the body of a `Call`.
pub fn encode(body: &mut Vec<u8>, query: &Query<'_>) {
    let mut f = Fixed::new_zeroed();
    let plain = |body: &mut Vec<u8>, kind: u16, mut f: Fixed, ino: Ino| {
        f.ino = ino.0.into();
        push(body, kind, &f, &[]);
    };
    match query {
        Query::Lookup { parent, name } => {
            f.ino = parent.0.into();
            push(body, LOOKUP, &f, &[name.bytes()]);
        }
        Query::GetAttr { ino } => plain(body, GET_ATTR, f, *ino),
        Query::Parent { ino } => plain(body, PARENT, f, *ino),
        Query::ReadLink { ino } => plain(body, READ_LINK, f, *ino),
        Query::ReadDir { ino, cookie, bytes_max, plus } => {
            f.offset = (*cookie).into();
            f.len = (*bytes_max).into();
            f.flags = u32::from(*plus).into();
            plain(body, READ_DIR, f, *ino);
        }
        Query::Read { ino, offset, len } => {
            f.offset = (*offset).into();
            f.len = (*len).into();
            plain(body, READ, f, *ino);
        }
        Query::GetXattr { ino, name } => {
            f.ino = ino.0.into();
            push(body, GET_XATTR, &f, &[name]);
        }
        Query::ListXattr { ino } => plain(body, LIST_XATTR, f, *ino),
        Query::StatFs => push(body, STAT_FS, &f, &[]),
        Query::Seek { ino, offset, to } => {
            f.offset = (*offset).into();
            f.flags = u32::from(*to == SeekTo::Hole).into();
            plain(body, SEEK, f, *ino);
        }
        Query::Hold { ino } => plain(body, HOLD, f, *ino),
        Query::Drop { inos } => push(body, DROP, &f, &[&ino_bytes(inos)]),
        Query::Sync { ino, data_only } => {
            f.flags = u32::from(*data_only).into();
            plain(body, SYNC, f, ino.unwrap_or(Ino(0)));
        }
        Query::GetLock { ino, lock } => {
            f.lock = WireLock::new(*ino, lock);
            push(body, GET_LOCK, &f, &[]);
        }
        Query::SetLock { ino, lock, wait } => {
            f.lock = WireLock::new(*ino, lock);
            f.flags = u32::from(*wait).into();
            push(body, SET_LOCK, &f, &[]);
        }
        Query::CancelLock { sequence } => {
            f.offset = (*sequence).into();
            push(body, CANCEL_LOCK, &f, &[]);
        }
        Query::UnlockOwner { ino, owner } => {
            f.offset = (*owner).into();
            plain(body, UNLOCK_OWNER, f, *ino);
        }
        Query::UnlockHandle { ino, handle } => {
            f.offset = (*handle).into();
            plain(body, UNLOCK_HANDLE, f, *ino);
        }
        Query::Reassert { holds, locks, last } => {
            f.flags = u32::from(*last).into();
            let wire: Vec<WireLock> = locks.iter().map(|(ino, lock)| WireLock::new(*ino, lock)).collect();
            push(body, REASSERT, &f, &[&ino_bytes(holds), wire.as_bytes()]);
        }
        Query::Ping => push(body, PING, &f, &[]),
        Query::Status => push(body, STATUS, &f, &[]),
        Query::Return { returned } => push(body, RETURN, &f, &[&pack_returned(returned)]),
        Query::Numbers { count } => {
            f.len = (*count).into();
            push(body, NUMBERS, &f, &[]);
        }
        Query::Evict { session } => push(body, EVICT, &f, &[&session.0.to_le_bytes()]),
    }
}

/// Reads the body of a `Call`: exactly one query.
///
/// # Errors
/// [`WireFault::Unknown`] for a kind of a later version (answer EOPNOTSUPP); any other fault: close the connection.
pub fn decode(body: &[u8]) -> Result<Query<'_>, WireFault> {
    let mut records = Records::new(body);
    let record = records.next().ok_or(WireFault::Short { kind: 0 })??;
    let query = decode_one(&record)?;
    match records.next() {
        None => Ok(query),
        Some(_) => Err(WireFault::Invalid { kind: record.kind, what: "a call holds one query" }),
    }
}

fn decode_one<'a>(record: &Record<'a>) -> Result<Query<'a>, WireFault> {
    let f: Fixed = record.fixed();
    let (ino, offset, len) = (Ino(f.ino.get()), f.offset.get(), f.len.get());
    let flag = f.flags.get() & 1 != 0;
    let mut tail = record.tail();
    let lock = || f.lock.lock(record.kind);
    Ok(match record.kind {
        LOOKUP => Query::Lookup { parent: ino, name: tail.name()? },
        GET_ATTR => Query::GetAttr { ino },
        PARENT => Query::Parent { ino },
        READ_LINK => Query::ReadLink { ino },
        READ_DIR => Query::ReadDir { ino, cookie: offset, bytes_max: len, plus: flag },
        READ => Query::Read { ino, offset, len },
        GET_XATTR => Query::GetXattr { ino, name: tail.bytes()? },
        LIST_XATTR => Query::ListXattr { ino },
        STAT_FS => Query::StatFs,
        SEEK => Query::Seek { ino, offset, to: if flag { SeekTo::Hole } else { SeekTo::Data } },
        HOLD => Query::Hold { ino },
        DROP => Query::Drop { inos: inos(tail.bytes()?, DROP)? },
        SYNC => Query::Sync { ino: (ino.0 != 0).then_some(ino), data_only: flag },
        GET_LOCK => lock().map(|(ino, lock)| Query::GetLock { ino, lock })?,
        SET_LOCK => lock().map(|(ino, lock)| Query::SetLock { ino, lock, wait: flag })?,
        CANCEL_LOCK => Query::CancelLock { sequence: offset },
        UNLOCK_OWNER => Query::UnlockOwner { ino, owner: offset },
        UNLOCK_HANDLE => Query::UnlockHandle { ino, handle: offset },
        REASSERT => {
            let holds = inos(tail.bytes()?, REASSERT)?;
            let bytes = tail.bytes()?;
            let wire = <[WireLock]>::ref_from_bytes(bytes);
            let wire = wire.map_err(|_| WireFault::Invalid { kind: REASSERT, what: "half a lock" })?;
            let locks: Result<Vec<_>, _> = wire.iter().map(|lock| lock.lock(REASSERT)).collect();
            Query::Reassert { holds, locks: locks?, last: flag }
        }
        PING => Query::Ping,
        STATUS => Query::Status,
        RETURN => Query::Return { returned: unpack_returned(tail.bytes()?, RETURN)? },
        NUMBERS => Query::Numbers { count: len },
        EVICT => {
            let id = tail.bytes()?.try_into();
            let id =
                id.map_err(|_| WireFault::Invalid { kind: EVICT, what: "a session that is not 16 bytes" })?;
            Query::Evict { session: SessionId(u128::from_le_bytes(id)) }
        }
        kind => return Err(WireFault::Unknown { kind }),
    })
}

fn ino_bytes(inos: &[Ino]) -> Vec<u8> {
    inos.iter().flat_map(|ino| ino.0.to_le_bytes()).collect()
}

fn inos(bytes: &[u8], kind: u16) -> Result<Vec<Ino>, WireFault> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireFault::Invalid { kind, what: "half an inode number" });
    }
    Ok(numbers.iter().map(|n| Ino(u64::from_le_bytes(*n))).collect())
}
