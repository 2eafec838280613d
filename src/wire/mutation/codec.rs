//! The records of mutations, version 2.

use super::{Expect, MakeFlags, Mutation, Origin, SetAttr, Ticket, TimeSet, WriteFlags};
use crate::base::limits::BATCH_MUTATIONS_MAX;
use crate::base::{Caller, Ino, Time};
use crate::wire::WireFault;
use crate::wire::record::{RECORD_HEADER_BYTES, Record, Records, push, without_zeros};
use std::mem::offset_of;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

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
/// means is told by `encode` below. What is seldom used stands at the end: zeros there are not sent.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Fixed {
    ticket: U64,
    uid: U32,
    gid: U32,
    pid: U32,
    flags: U32,
    at: WireTime,
    mode: U32,
    ino: U64,
    other: U64,
    /// Umask, or which attributes are set.
    mask: U32,
    rdev: U32,
    third: U64,
    fourth: U64,
    len: U64,
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

impl WireTime {
    fn new(time: Time) -> Self {
        Self { secs: time.secs.into(), nanos: time.nanos.into() }
    }

    fn time(&self) -> Time {
        Time { secs: self.secs.get(), nanos: self.nanos.get().min(999_999_999) }
    }
}

/// Bits of `flags`.
const HOLD: u32 = 1;
const EXCLUSIVE: u32 = 2;
const APPEND: u32 = 4;
const KILL: u32 = 8;
/// `at` is there.
const LOCAL: u32 = 16;
/// `other` is what the name stands for; of a `Make`, the number of what is made.
const KNOWN: u32 = 32;
/// `fourth` is what the new name stands for; 0: nothing.
const TARGET_KNOWN: u32 = 64;

const SET_MODE: u32 = 1;
const SET_UID: u32 = 2;
const SET_GID: u32 = 4;
const SET_SIZE: u32 = 8;
const SET_ATIME: u32 = 16;
const SET_ATIME_NOW: u32 = 32;
const SET_MTIME: u32 = 64;
const SET_MTIME_NOW: u32 = 128;
const SET_CTIME: u32 = 256;

/// Appends the record of `mutation` to a batch's `body`, and its data to `payload`. Bodies and payloads of several
/// batches, put one after the other in the same order, are one batch.
pub fn encode(body: &mut Vec<u8>, payload: &mut Vec<u8>, origin: Origin, mutation: &Mutation<'_>) {
    let mut f = Fixed::new_zeroed();
    f.ticket = origin.ticket.0.into();
    f.uid = origin.caller.uid.into();
    f.gid = origin.caller.gid.into();
    f.pid = origin.caller.pid.into();
    let mut flags = 0;
    if let Some(at) = origin.at {
        f.at = WireTime::new(at);
        flags |= LOCAL;
    }
    let kind = match *mutation {
        Mutation::Make { parent, name: _, mode, umask, rdev, target: _, flags: make, ino } => {
            f.ino = parent.0.into();
            f.mode = mode.into();
            f.mask = umask.into();
            f.rdev = rdev.into();
            flags |= bit(make.hold, HOLD) | bit(make.exclusive, EXCLUSIVE) | put_known(&mut f, ino);
            MAKE
        }
        Mutation::Tmpfile { parent, mode, umask } => {
            f.ino = parent.0.into();
            f.mode = mode.into();
            f.mask = umask.into();
            TMPFILE
        }
        Mutation::Link { ino, parent, name: _ } => {
            f.ino = parent.0.into();
            f.other = ino.0.into();
            LINK
        }
        Mutation::Unlink { parent, name: _, ino, hold } => {
            f.ino = parent.0.into();
            flags |= bit(hold, HOLD) | put_known(&mut f, ino);
            UNLINK
        }
        Mutation::Rmdir { parent, name: _, ino, hold } => {
            f.ino = parent.0.into();
            flags |= bit(hold, HOLD) | put_known(&mut f, ino);
            RMDIR
        }
        Mutation::Rename { parent, new_parent, flags: how, ino, replaced, hold, .. } => {
            f.ino = parent.0.into();
            f.third = new_parent.0.into();
            f.mode = how.into();
            flags |= bit(hold, HOLD) | put_known(&mut f, ino);
            match replaced {
                Expect::Any => {}
                Expect::Absent => flags |= TARGET_KNOWN,
                Expect::Is(ino) => {
                    flags |= TARGET_KNOWN;
                    f.fourth = ino.0.into();
                }
            }
            RENAME
        }
        Mutation::SetAttr { ino, set } => {
            f.ino = ino.0.into();
            put_set(&mut f, set);
            flags |= bit(set.kill_suidgid, KILL);
            SET_ATTR
        }
        Mutation::Write { ino, offset, flags: write, data } => {
            f.ino = ino.0.into();
            f.third = offset.into();
            f.len = (data.len() as u64).into();
            flags |= bit(write.append, APPEND) | bit(write.kill_suidgid, KILL);
            payload.extend_from_slice(data);
            WRITE
        }
        Mutation::Allocate { ino, mode, offset, len } => {
            f.ino = ino.0.into();
            f.mode = mode.into();
            f.third = offset.into();
            f.len = len.into();
            ALLOCATE
        }
        Mutation::Copy { source, source_offset, target, target_offset, len } => {
            f.ino = target.0.into();
            f.third = target_offset.into();
            f.other = source.0.into();
            f.fourth = source_offset.into();
            f.len = len.into();
            COPY
        }
        Mutation::SetXattr { ino, flags: how, kill_sgid, .. } => {
            f.ino = ino.0.into();
            f.mode = how.into();
            flags |= bit(kill_sgid, KILL);
            SET_XATTR
        }
        Mutation::RemoveXattr { ino, name: _ } => {
            f.ino = ino.0.into();
            REMOVE_XATTR
        }
    };
    f.flags = flags.into();
    let (strings, count) = strings(mutation);
    push(body, kind, without_zeros(f.as_bytes()), &strings[..count]);
}

/// The byte strings behind the struct.
fn strings<'a>(mutation: &Mutation<'a>) -> ([&'a [u8]; 2], usize) {
    match *mutation {
        Mutation::Make { name, target, .. } => ([name.bytes(), target], 2),
        Mutation::Rename { name, new_name, .. } => ([name.bytes(), new_name.bytes()], 2),
        Mutation::SetXattr { name, value, .. } => ([name, value], 2),
        Mutation::Link { name, .. } | Mutation::Unlink { name, .. } | Mutation::Rmdir { name, .. } => {
            ([name.bytes(), &[]], 1)
        }
        Mutation::RemoveXattr { name, .. } => ([name, &[]], 1),
        Mutation::Tmpfile { .. }
        | Mutation::SetAttr { .. }
        | Mutation::Write { .. }
        | Mutation::Allocate { .. }
        | Mutation::Copy { .. } => ([&[], &[]], 0),
    }
}

fn put_known(f: &mut Fixed, ino: Option<Ino>) -> u32 {
    let Some(ino) = ino else { return 0 };
    f.other = ino.0.into();
    KNOWN
}

/// Takes back `hold` in the record of one `Unlink`, `Rmdir` or `Rename`; of other kinds, and of bytes that are no
/// record, it changes nothing.
pub fn clear_hold(record: &mut [u8]) {
    const FLAGS: usize = RECORD_HEADER_BYTES + offset_of!(Fixed, flags);
    let Some(kind) = record.first_chunk::<2>().map(|kind| u16::from_le_bytes(*kind)) else { return };
    let Some(fixed) = record.get(2..4).map(|fixed| usize::from(fixed[0]) | usize::from(fixed[1]) << 8) else {
        return;
    };
    let reaches = RECORD_HEADER_BYTES + fixed > FLAGS;
    if matches!(kind, UNLINK | RMDIR | RENAME)
        && reaches
        && let Some(low) = record.get_mut(FLAGS)
    {
        *low &= !HOLD.to_le_bytes()[0];
    }
}

/// A mutation of a batch, with where it comes from. `Err` inside: a kind or field this version does not know, to be
/// answered with `EOPNOTSUPP` while the rest of the batch goes on.
pub type Decoded<'a> = (Origin, Result<Mutation<'a>, WireFault>);

/// Splits a batch into its mutations. The data of writes lies in `payload` in their order and is borrowed from it.
///
/// # Errors
/// An item is `Err` when the body is cut short, or its writes have other bytes than the payload: the connection is not usable any more.
pub fn decode_batch<'a>(
    body: &'a [u8],
    payload: &'a [u8],
) -> impl Iterator<Item = Result<Decoded<'a>, WireFault>> {
    let mut count = 0;
    // `None` behind a record that may have had data of its own.
    let mut unclaimed = Some(payload);
    Records::new(body).map(move |record| {
        let record = record?;
        count += 1;
        if count > BATCH_MUTATIONS_MAX {
            let what = "more mutations than a batch may hold";
            return Err(WireFault::Invalid { kind: record.kind, what });
        }
        let f: Fixed = record.fixed();
        let data = if record.kind == WRITE { take_data(&mut unclaimed, f.len.get())? } else { &[] };
        let origin = Origin {
            ticket: Ticket(f.ticket.get()),
            caller: Caller { uid: f.uid.get(), gid: f.gid.get(), pid: f.pid.get() },
            at: has(f.flags, LOCAL).then(|| f.at.time()),
        };
        let mutation = decode(&record, &f, data);
        if let Err(WireFault::Unknown { .. }) = mutation {
            unclaimed = None;
        }
        Ok((origin, mutation))
    })
}

/// The next `len` bytes of the payload.
fn take_data<'a>(unclaimed: &mut Option<&'a [u8]>, len: u64) -> Result<&'a [u8], WireFault> {
    let invalid = |what| WireFault::Invalid { kind: WRITE, what };
    let rest = unclaimed.ok_or_else(|| invalid("data behind a record of an unknown kind"))?;
    let split = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
    let (data, rest) = split.ok_or_else(|| invalid("writes of more bytes than the frame's payload has"))?;
    *unclaimed = Some(rest);
    Ok(data)
}

fn decode<'a>(record: &Record<'a>, f: &Fixed, data: &'a [u8]) -> Result<Mutation<'a>, WireFault> {
    let (ino, other, third) = (Ino(f.ino.get()), Ino(f.other.get()), f.third.get());
    let len = f.len.get();
    let known = has(f.flags, KNOWN).then_some(other);
    let hold = has(f.flags, HOLD);
    let mut tail = record.tail();
    Ok(match record.kind {
        MAKE => Mutation::Make {
            parent: ino,
            name: tail.name()?,
            mode: f.mode.get(),
            umask: f.mask.get(),
            rdev: f.rdev.get(),
            target: tail.bytes()?,
            flags: MakeFlags { hold, exclusive: has(f.flags, EXCLUSIVE) },
            ino: known,
        },
        TMPFILE => Mutation::Tmpfile { parent: ino, mode: f.mode.get(), umask: f.mask.get() },
        LINK => Mutation::Link { ino: other, parent: ino, name: tail.name()? },
        UNLINK => Mutation::Unlink { parent: ino, name: tail.name()?, ino: known, hold },
        RMDIR => Mutation::Rmdir { parent: ino, name: tail.name()?, ino: known, hold },
        RENAME => Mutation::Rename {
            parent: ino,
            name: tail.name()?,
            new_parent: Ino(third),
            new_name: tail.name()?,
            flags: f.mode.get(),
            ino: known,
            replaced: match (has(f.flags, TARGET_KNOWN), f.fourth.get()) {
                (false, _) => Expect::Any,
                (true, 0) => Expect::Absent,
                (true, target) => Expect::Is(Ino(target)),
            },
            hold,
        },
        SET_ATTR => Mutation::SetAttr { ino, set: take_set(f) },
        WRITE => {
            let flags = WriteFlags { append: has(f.flags, APPEND), kill_suidgid: has(f.flags, KILL) };
            Mutation::Write { ino, offset: third, flags, data }
        }
        ALLOCATE => Mutation::Allocate { ino, mode: f.mode.get(), offset: third, len },
        COPY => Mutation::Copy {
            source: other,
            source_offset: f.fourth.get(),
            target: ino,
            target_offset: third,
            len,
        },
        SET_XATTR => Mutation::SetXattr {
            ino,
            name: tail.bytes()?,
            value: tail.bytes()?,
            flags: f.mode.get(),
            kill_sgid: has(f.flags, KILL),
        },
        REMOVE_XATTR => Mutation::RemoveXattr { ino, name: tail.bytes()? },
        kind => return Err(WireFault::Unknown { kind }),
    })
}

fn put_set(f: &mut Fixed, set: SetAttr) {
    let mut mask = 0;
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
    f.mask = mask.into();
}

fn put_time(out: &mut WireTime, time: Option<TimeSet>, at_bit: u32, now_bit: u32) -> u32 {
    match time {
        None => 0,
        Some(TimeSet::Now) => now_bit,
        Some(TimeSet::At(time)) => {
            *out = WireTime::new(time);
            at_bit
        }
    }
}

fn take_set(f: &Fixed) -> SetAttr {
    let at = |i: usize| f.times[i].time();
    let time = |i: usize, at_bit: u32, now_bit: u32| {
        let now = has(f.mask, now_bit).then_some(TimeSet::Now);
        now.or_else(|| has(f.mask, at_bit).then(|| TimeSet::At(at(i))))
    };
    SetAttr {
        mode: has(f.mask, SET_MODE).then(|| f.mode.get()),
        uid: has(f.mask, SET_UID).then(|| f.set_uid.get()),
        gid: has(f.mask, SET_GID).then(|| f.set_gid.get()),
        size: has(f.mask, SET_SIZE).then(|| f.len.get()),
        atime: time(0, SET_ATIME, SET_ATIME_NOW),
        mtime: time(1, SET_MTIME, SET_MTIME_NOW),
        ctime: has(f.mask, SET_CTIME).then(|| at(2)),
        kill_suidgid: has(f.flags, KILL),
    }
}

fn bit(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

fn has(flags: U32, bit: u32) -> bool {
    flags.get() & bit != 0
}
