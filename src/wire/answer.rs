//! Answers to queries.

use super::WireFault;
use super::lease::{GRANTS, Grants};
use super::outcome::WireAttr;
use super::query::{LockRequest, WireLock};
use super::record::{Records, push};
use crate::base::{Attr, Errno, Ino, Kind};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What a query that could be answered brings back.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer<'a> {
    /// Nothing but success.
    Empty,
    /// Attributes of one inode.
    Attr(Attr),
    /// A link target, the value or the names of extended attributes, or JSON.
    Bytes(&'a [u8]),
    /// File bytes: the payload of the frame.
    Data(&'a [u8]),
    /// An offset in a file.
    Offset(u64),
    /// Space.
    FsStat(FsStat),
    /// A lock in the way, or one of kind `Unlock`.
    Lock(LockRange),
    /// A piece of a directory.
    Entries {
        /// In the order of their cookies.
        entries: Vec<DirEntry<'a>>,
        /// Nothing follows the last of them.
        end: bool,
    },
    /// Inode numbers: `first` and those after it.
    Numbers {
        /// The lowest.
        first: Ino,
        /// How many, at least one.
        count: u32,
    },
}

/// One name of a directory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DirEntry<'a> {
    /// Inode.
    pub ino: Ino,
    /// Where to go on after this entry: positive, stable while names come and go, never 0, 1 or 2.
    pub cookie: u64,
    /// Type.
    pub kind: Kind,
    /// Name; checked when the entry was made.
    pub name: &'a [u8],
    /// Attributes, when asked for and the inode still exists.
    pub attr: Option<Attr>,
}

/// A lock in the way of another. `pid` is 0 when its owner is on another mount.
pub type LockRange = LockRequest;

/// Space and inodes of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FsStat {
    /// Bytes the volume can hold.
    pub bytes_total: u64,
    /// Bytes free.
    pub bytes_free: u64,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Inodes that can still be made.
    pub inodes_free: u64,
}

const FAILED: u16 = 192;
const EMPTY: u16 = 193;
const ATTR: u16 = 194;
const BYTES: u16 = 195;
const DATA: u16 = 196;
const OFFSET: u16 = 197;
const FS_STAT: u16 = 198;
const LOCK: u16 = 199;
const ENTRIES: u16 = 200;
const ENTRY: u16 = 201;
const NUMBERS: u16 = 202;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct WireStat {
    numbers: [U64; 4],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct WireNumbers {
    first: U64,
    count: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct WireEntry {
    ino: U64,
    cookie: U64,
    mode: U32,
    has_attr: U32,
    attr: WireAttr,
}

/// Bytes one entry of this name takes in the answer, for those who fill it up to `bytes_max`.
#[must_use]
pub const fn entry_bytes(name_bytes: usize, plus: bool) -> usize {
    let attr = if plus { size_of::<WireAttr>() } else { 0 };
    super::record::RECORD_HEADER_BYTES + size_of::<WireEntry>() - size_of::<WireAttr>()
        + attr
        + 4
        + name_bytes
}

/// Appends the answer to `body`; grants may follow ([`super::lease::encode_grants`]). The bytes of `Data` are not copied: they go out as the frame's payload.
pub fn encode(body: &mut Vec<u8>, answer: &Result<Answer<'_>, Errno>) {
    match answer {
        Err(errno) => push(body, FAILED, &U32::new(errno.raw().unsigned_abs()), &[]),
        Ok(Answer::Empty) => push(body, EMPTY, &U32::ZERO, &[]),
        Ok(Answer::Attr(attr)) => push(body, ATTR, &WireAttr::new(attr), &[]),
        Ok(Answer::Bytes(bytes)) => push(body, BYTES, &U32::ZERO, &[bytes]),
        Ok(Answer::Data(_)) => push(body, DATA, &U32::ZERO, &[]),
        Ok(Answer::Offset(offset)) => push(body, OFFSET, &U64::new(*offset), &[]),
        Ok(Answer::FsStat(s)) => {
            let numbers = [s.bytes_total, s.bytes_free, s.inodes_used, s.inodes_free].map(U64::new);
            push(body, FS_STAT, &WireStat { numbers }, &[]);
        }
        Ok(Answer::Lock(lock)) => push(body, LOCK, &WireLock::new(Ino(0), lock), &[]),
        Ok(Answer::Entries { entries, end }) => {
            push(body, ENTRIES, &U32::new(u32::from(*end)), &[]);
            for entry in entries {
                encode_entry(body, entry);
            }
        }
        Ok(Answer::Numbers { first, count }) => {
            let numbers = WireNumbers { first: first.0.into(), count: (*count).into() };
            push(body, NUMBERS, &numbers, &[]);
        }
    }
}

/// Appends one entry behind the head of an `Entries` answer.
fn encode_entry(body: &mut Vec<u8>, entry: &DirEntry<'_>) {
    let mut f = WireEntry::new_zeroed();
    f.ino = entry.ino.0.into();
    f.cookie = entry.cookie.into();
    f.mode = entry.kind.mode_bits().into();
    match &entry.attr {
        Some(attr) => {
            f.has_attr = 1.into();
            f.attr = WireAttr::new(attr);
            push(body, ENTRY, &f, &[entry.name]);
        }
        None => {
            let plain = &f.as_bytes()[..size_of::<WireEntry>() - size_of::<WireAttr>()];
            push(body, ENTRY, plain, &[entry.name]);
        }
    }
}

/// Reads the body of an `Answer` frame; `payload` is what `Data` refers to. Also a failed query may bring grants: of the
/// directory in which a name was not found.
///
/// # Errors
/// Outside: bytes that are no answer. Inside: the errno the caller gets.
pub fn decode<'a>(
    body: &'a [u8],
    payload: &'a [u8],
) -> Result<(Result<Answer<'a>, Errno>, Grants<'a>), WireFault> {
    let mut records = Records::new(body);
    let record = records.next().ok_or(WireFault::Short { kind: 0 })??;
    if record.kind == ENTRIES {
        return decode_entries(record.fixed::<U32>().get() != 0, records);
    }
    let result = match record.kind {
        FAILED => {
            let errno = record.fixed::<U32>().get();
            Err(Errno::from_raw(i32::try_from(errno).unwrap_or(i32::MAX)))
        }
        EMPTY => Ok(Answer::Empty),
        ATTR => Ok(Answer::Attr(record.fixed::<WireAttr>().attr())),
        BYTES => Ok(Answer::Bytes(record.tail().bytes()?)),
        DATA => Ok(Answer::Data(payload)),
        OFFSET => Ok(Answer::Offset(record.fixed::<U64>().get())),
        FS_STAT => {
            let [bytes_total, bytes_free, inodes_used, inodes_free] =
                record.fixed::<WireStat>().numbers.map(U64::get);
            Ok(Answer::FsStat(FsStat { bytes_total, bytes_free, inodes_used, inodes_free }))
        }
        LOCK => Ok(Answer::Lock(record.fixed::<WireLock>().lock(LOCK)?.1)),
        NUMBERS => {
            let WireNumbers { first, count } = record.fixed();
            Ok(Answer::Numbers { first: Ino(first.get()), count: count.get() })
        }
        kind => return Err(WireFault::Unknown { kind }),
    };
    let grants = records.next().transpose()?.map_or(Ok(Grants::default()), |record| match record.kind {
        GRANTS => Grants::decode(&record),
        kind => Err(WireFault::Unknown { kind }),
    })?;
    Ok((result, grants))
}

fn decode_entries<'a>(
    end: bool,
    records: Records<'a>,
) -> Result<(Result<Answer<'a>, Errno>, Grants<'a>), WireFault> {
    let (mut entries, mut grants) = (Vec::new(), Grants::default());
    for record in records {
        let record = record?;
        match record.kind {
            GRANTS => grants = Grants::decode(&record)?,
            ENTRY => entries.push(decode_entry(record)?),
            kind => return Err(WireFault::Unknown { kind }),
        }
    }
    Ok((Ok(Answer::Entries { entries, end }), grants))
}

fn decode_entry(record: super::record::Record<'_>) -> Result<DirEntry<'_>, WireFault> {
    let f: WireEntry = record.fixed();
    let kind = Kind::from_mode(f.mode.get());
    Ok(DirEntry {
        ino: Ino(f.ino.get()),
        cookie: f.cookie.get(),
        kind: kind.map_err(|_| WireFault::Invalid { kind: ENTRY, what: "an entry of no known type" })?,
        name: record.tail().name()?.bytes(),
        attr: (f.has_attr.get() != 0).then(|| f.attr.attr()),
    })
}
