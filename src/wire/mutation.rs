//! Mutations: one change of the name space, of attributes or of data each, and their records.

use super::WireFault;
use super::record::{Record, Records, push};
use crate::base::limits::BATCH_MUTATIONS_MAX;
use crate::base::{Caller, Ino, Name, Time};
pub use crate::base::{SetAttr, TimeSet};
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Number of a mutation within its session, counted from 1. With the session it is the operation id under which
/// the server stores the outcome (R7.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// One change, as the client asks for it. Names and data are borrowed from the request or the frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mutation<'a> {
    /// Make a file, directory, symlink or special file: `mode` carries the type.
    Make {
        /// Directory.
        parent: Ino,
        /// Name in it.
        name: Name<'a>,
        /// Type and permission bits before the umask.
        mode: u32,
        /// Caller's umask; ignored where the directory has a default ACL.
        umask: u32,
        /// Device number of a device file.
        rdev: u32,
        /// Target of a symlink, else empty.
        target: &'a [u8],
        /// See [`MakeFlags`].
        flags: MakeFlags,
    },
    /// Make a file without a name (`O_TMPFILE`) and hold it.
    Tmpfile {
        /// Directory whose owner rules and default ACL apply.
        parent: Ino,
        /// Permission bits before the umask.
        mode: u32,
        /// Caller's umask.
        umask: u32,
    },
    /// One more name for an inode.
    Link {
        /// Inode.
        ino: Ino,
        /// Directory.
        parent: Ino,
        /// New name.
        name: Name<'a>,
    },
    /// Remove the name of something that is not a directory. The inode stays held by this session when this was
    /// its last name.
    Unlink {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name<'a>,
    },
    /// Remove an empty directory; it too stays held.
    Rmdir {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name<'a>,
    },
    /// Rename. A replaced inode that loses its last name stays held.
    Rename {
        /// Directory of the old name.
        parent: Ino,
        /// Old name.
        name: Name<'a>,
        /// Directory of the new name.
        new_parent: Ino,
        /// New name.
        new_name: Name<'a>,
        /// `RENAME_NOREPLACE`, `RENAME_EXCHANGE`, `RENAME_WHITEOUT`; others are EINVAL.
        flags: u32,
    },
    /// Change attributes.
    SetAttr {
        /// Inode.
        ino: Ino,
        /// What to change.
        set: SetAttr,
    },
    /// Write the data behind it.
    Write {
        /// File.
        ino: Ino,
        /// First byte in the file; ignored with [`WriteFlags::APPEND`].
        offset: u64,
        /// See [`WriteFlags`].
        flags: WriteFlags,
        /// The bytes: a slice of the frame's payload.
        data: &'a [u8],
    },
    /// `fallocate(2)`.
    Allocate {
        /// File.
        ino: Ino,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// `copy_file_range(2)` inside the volume: shares chunks, copies nothing.
    Copy {
        /// Source file.
        source: Ino,
        /// First byte in it.
        source_offset: u64,
        /// Destination file.
        target: Ino,
        /// First byte in it.
        target_offset: u64,
        /// Number of bytes at most.
        len: u64,
    },
    /// Set an extended attribute.
    SetXattr {
        /// Inode.
        ino: Ino,
        /// Full name with its namespace, `user.x`.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
        /// `XATTR_CREATE`, `XATTR_REPLACE`.
        flags: u32,
        /// Whether setting an access ACL also drops the setgid bit (`FUSE_SETXATTR_ACL_KILL_SGID`).
        kill_sgid: bool,
    },
    /// Remove an extended attribute.
    RemoveXattr {
        /// Inode.
        ino: Ino,
        /// Full name.
        name: &'a [u8],
    },
}

/// How a `Make` behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MakeFlags {
    /// The session holds the new inode (it is being opened).
    pub hold: bool,
    /// A name that exists is EEXIST. Without it an existing regular file is held and returned, not made.
    pub exclusive: bool,
}

/// How a `Write` behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteFlags {
    /// Write at the end of file as the server knows it, whatever `offset` says (O_APPEND of several mounts).
    pub append: bool,
    /// Drop setuid and setgid bits (the writer may not keep them).
    pub kill_suidgid: bool,
}

const MAKE: u16 = 1;
const TMPFILE: u16 = 2;
const LINK: u16 = 3;
const UNLINK: u16 = 4;
const RMDIR: u16 = 5;
const RENAME: u16 = 6;
const SET_ATTR: u16 = 7;
const WRITE: u16 = 8;
const ALLOCATE: u16 = 9;
const COPY: u16 = 10;
const SET_XATTR: u16 = 11;
const REMOVE_XATTR: u16 = 12;

/// One struct serves all mutations, so that ticket and caller stand in one place; what each of the plain numbers
/// means is told by `encode` below.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Fixed {
    ticket: U64,
    uid: U32,
    gid: U32,
    pid: U32,
    flags: U32,
    ino: U64,
    other: U64,
    offset: U64,
    other_offset: U64,
    len: U64,
    mode: U32,
    umask: U32,
    rdev: U32,
    set_mask: U32,
    set_uid: U32,
    set_gid: U32,
    times: [WireTime; 3],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct WireTime {
    secs: I64,
    nanos: U32,
}

const HOLD: u32 = 1;
const EXCLUSIVE: u32 = 2;
const APPEND: u32 = 1;
const KILL: u32 = 2;

const SET_MODE: u32 = 1;
const SET_UID: u32 = 2;
const SET_GID: u32 = 4;
const SET_SIZE: u32 = 8;
const SET_ATIME: u32 = 16;
const SET_ATIME_NOW: u32 = 32;
const SET_MTIME: u32 = 64;
const SET_MTIME_NOW: u32 = 128;
const SET_CTIME: u32 = 256;
const SET_KILL: u32 = 512;

/// Appends the record of `mutation` to a batch's `body`, and its data to `payload`.
pub fn encode(
    body: &mut Vec<u8>,
    payload: &mut Vec<u8>,
    ticket: Ticket,
    caller: Caller,
    mutation: &Mutation<'_>,
) {
    let mut f = Fixed::new_zeroed();
    f.ticket = ticket.0.into();
    f.uid = caller.uid.into();
    f.gid = caller.gid.into();
    f.pid = caller.pid.into();
    match *mutation {
        Mutation::Make { parent, name, mode, umask, rdev, target, flags } => {
            f.ino = parent.0.into();
            f.mode = mode.into();
            f.umask = umask.into();
            f.rdev = rdev.into();
            f.flags = (bit(flags.hold, HOLD) | bit(flags.exclusive, EXCLUSIVE)).into();
            push(body, MAKE, &f, &[name.bytes(), target]);
        }
        Mutation::Tmpfile { parent, mode, umask } => {
            f.ino = parent.0.into();
            f.mode = mode.into();
            f.umask = umask.into();
            push(body, TMPFILE, &f, &[]);
        }
        Mutation::Link { ino, parent, name } => {
            f.ino = parent.0.into();
            f.other = ino.0.into();
            push(body, LINK, &f, &[name.bytes()]);
        }
        Mutation::Unlink { parent, name } => {
            f.ino = parent.0.into();
            push(body, UNLINK, &f, &[name.bytes()]);
        }
        Mutation::Rmdir { parent, name } => {
            f.ino = parent.0.into();
            push(body, RMDIR, &f, &[name.bytes()]);
        }
        Mutation::Rename { parent, name, new_parent, new_name, flags } => {
            f.ino = parent.0.into();
            f.other = new_parent.0.into();
            f.flags = flags.into();
            push(body, RENAME, &f, &[name.bytes(), new_name.bytes()]);
        }
        Mutation::SetAttr { ino, set } => {
            f.ino = ino.0.into();
            put_set(&mut f, set);
            push(body, SET_ATTR, &f, &[]);
        }
        Mutation::Write { ino, offset, flags, data } => {
            f.ino = ino.0.into();
            f.offset = offset.into();
            f.other_offset = (payload.len() as u64).into();
            f.len = (data.len() as u64).into();
            f.flags = (bit(flags.append, APPEND) | bit(flags.kill_suidgid, KILL)).into();
            payload.extend_from_slice(data);
            push(body, WRITE, &f, &[]);
        }
        Mutation::Allocate { ino, mode, offset, len } => {
            f.ino = ino.0.into();
            f.mode = mode.into();
            f.offset = offset.into();
            f.len = len.into();
            push(body, ALLOCATE, &f, &[]);
        }
        Mutation::Copy { source, source_offset, target, target_offset, len } => {
            f.ino = target.0.into();
            f.offset = target_offset.into();
            f.other = source.0.into();
            f.other_offset = source_offset.into();
            f.len = len.into();
            push(body, COPY, &f, &[]);
        }
        Mutation::SetXattr { ino, name, value, flags, kill_sgid } => {
            f.ino = ino.0.into();
            f.flags = flags.into();
            f.mode = u32::from(kill_sgid).into();
            push(body, SET_XATTR, &f, &[name, value]);
        }
        Mutation::RemoveXattr { ino, name } => {
            f.ino = ino.0.into();
            push(body, REMOVE_XATTR, &f, &[name]);
        }
    }
}

/// A mutation of a batch, with the number and the caller it came with. `Err` inside: a kind or field this version
/// does not know, to be answered with `EOPNOTSUPP` while the rest of the batch goes on.
pub type Decoded<'a> = (Ticket, Caller, Result<Mutation<'a>, WireFault>);

/// Splits a batch into its mutations; the data of writes is borrowed from `payload`.
///
/// # Errors
/// An item is `Err` when the body is cut short: the connection is not usable any more.
pub fn decode_batch<'a>(
    body: &'a [u8],
    payload: &'a [u8],
) -> impl Iterator<Item = Result<Decoded<'a>, WireFault>> {
    let mut count = 0;
    let mut unclaimed = payload.len();
    Records::new(body).map(move |record| {
        let record = record?;
        let invalid = |what| Err(WireFault::Invalid { kind: record.kind, what });
        count += 1;
        if count > BATCH_MUTATIONS_MAX {
            return invalid("more mutations than a batch may hold");
        }
        let f: Fixed = record.fixed();
        let caller = Caller { uid: f.uid.get(), gid: f.gid.get(), pid: f.pid.get() };
        let mutation = decode(&record, &f, payload);
        if let Ok(Mutation::Write { data, .. }) = &mutation {
            // The same bytes named by thousands of writes would make one frame gigabytes on the server's disk.
            match unclaimed.checked_sub(data.len()) {
                Some(left) => unclaimed = left,
                None => return invalid("writes of more bytes than the frame's payload has"),
            }
        }
        Ok((Ticket(f.ticket.get()), caller, mutation))
    })
}

fn decode<'a>(record: &Record<'a>, f: &Fixed, payload: &'a [u8]) -> Result<Mutation<'a>, WireFault> {
    let (ino, other) = (Ino(f.ino.get()), Ino(f.other.get()));
    let (offset, len) = (f.offset.get(), f.len.get());
    let mut tail = record.tail();
    Ok(match record.kind {
        MAKE => Mutation::Make {
            parent: ino,
            name: tail.name()?,
            mode: f.mode.get(),
            umask: f.umask.get(),
            rdev: f.rdev.get(),
            target: tail.bytes()?,
            flags: MakeFlags { hold: has(f.flags, HOLD), exclusive: has(f.flags, EXCLUSIVE) },
        },
        TMPFILE => Mutation::Tmpfile { parent: ino, mode: f.mode.get(), umask: f.umask.get() },
        LINK => Mutation::Link { ino: other, parent: ino, name: tail.name()? },
        UNLINK => Mutation::Unlink { parent: ino, name: tail.name()? },
        RMDIR => Mutation::Rmdir { parent: ino, name: tail.name()? },
        RENAME => Mutation::Rename {
            parent: ino,
            name: tail.name()?,
            new_parent: other,
            new_name: tail.name()?,
            flags: f.flags.get(),
        },
        SET_ATTR => Mutation::SetAttr { ino, set: take_set(f) },
        WRITE => {
            let at = usize::try_from(f.other_offset.get()).unwrap_or(usize::MAX);
            let count = usize::try_from(len).unwrap_or(usize::MAX);
            let data = payload.get(at..).and_then(|rest| rest.get(..count));
            let data =
                data.ok_or(WireFault::Invalid { kind: WRITE, what: "data outside the frame's payload" })?;
            let flags = WriteFlags { append: has(f.flags, APPEND), kill_suidgid: has(f.flags, KILL) };
            Mutation::Write { ino, offset, flags, data }
        }
        ALLOCATE => Mutation::Allocate { ino, mode: f.mode.get(), offset, len },
        COPY => Mutation::Copy {
            source: other,
            source_offset: f.other_offset.get(),
            target: ino,
            target_offset: offset,
            len,
        },
        SET_XATTR => Mutation::SetXattr {
            ino,
            name: tail.bytes()?,
            value: tail.bytes()?,
            flags: f.flags.get(),
            kill_sgid: f.mode.get() != 0,
        },
        REMOVE_XATTR => Mutation::RemoveXattr { ino, name: tail.bytes()? },
        kind => return Err(WireFault::Unknown { kind }),
    })
}

fn put_set(f: &mut Fixed, set: SetAttr) {
    let mut mask = bit(set.kill_suidgid, SET_KILL);
    if let Some(mode) = set.mode {
        f.mode = mode.into();
        mask |= SET_MODE;
    }
    if let Some(uid) = set.uid {
        f.set_uid = uid.into();
        mask |= SET_UID;
    }
    if let Some(gid) = set.gid {
        f.set_gid = gid.into();
        mask |= SET_GID;
    }
    if let Some(size) = set.size {
        f.len = size.into();
        mask |= SET_SIZE;
    }
    mask |= put_time(&mut f.times[0], set.atime, SET_ATIME, SET_ATIME_NOW);
    mask |= put_time(&mut f.times[1], set.mtime, SET_MTIME, SET_MTIME_NOW);
    mask |= put_time(&mut f.times[2], set.ctime.map(TimeSet::At), SET_CTIME, 0);
    f.set_mask = mask.into();
}

fn put_time(out: &mut WireTime, time: Option<TimeSet>, at_bit: u32, now_bit: u32) -> u32 {
    match time {
        None => 0,
        Some(TimeSet::Now) => now_bit,
        Some(TimeSet::At(time)) => {
            *out = WireTime { secs: time.secs.into(), nanos: time.nanos.into() };
            at_bit
        }
    }
}

fn take_set(f: &Fixed) -> SetAttr {
    let at = |i: usize| Time { secs: f.times[i].secs.get(), nanos: f.times[i].nanos.get().min(999_999_999) };
    let time = |i: usize, at_bit: u32, now_bit: u32| {
        let now = has(f.set_mask, now_bit).then_some(TimeSet::Now);
        now.or_else(|| has(f.set_mask, at_bit).then(|| TimeSet::At(at(i))))
    };
    SetAttr {
        mode: has(f.set_mask, SET_MODE).then(|| f.mode.get()),
        uid: has(f.set_mask, SET_UID).then(|| f.set_uid.get()),
        gid: has(f.set_mask, SET_GID).then(|| f.set_gid.get()),
        size: has(f.set_mask, SET_SIZE).then(|| f.len.get()),
        atime: time(0, SET_ATIME, SET_ATIME_NOW),
        mtime: time(1, SET_MTIME, SET_MTIME_NOW),
        ctime: has(f.set_mask, SET_CTIME).then(|| at(2)),
        kill_suidgid: has(f.set_mask, SET_KILL),
    }
}

fn bit(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

fn has(flags: U32, bit: u32) -> bool {
    flags.get() & bit != 0
}
