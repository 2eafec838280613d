//! One request, checked. Each variant names what the kernel asks for and holds the record as it came;
//! what the record only claims (names, sizes, kinds) has become a type that says it is true.

use super::extension;
use crate::base::{Errno, HandleId, Ino, Name, Time, limits};
use crate::kernel::abi::flags::{
    FATTR_ATIME, FATTR_ATIME_NOW, FATTR_CTIME, FATTR_FH, FATTR_GID, FATTR_KILL_SUIDGID, FATTR_LOCKOWNER,
    FATTR_MODE, FATTR_MTIME, FATTR_MTIME_NOW, FATTR_SIZE, FATTR_UID, GETATTR_FH, LK_FLOCK,
};
use crate::kernel::abi::{
    AccessIn, BmapIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, GetattrIn, GetxattrIn,
    InHeader, IoctlIn, LinkIn, LkIn, LseekIn, MkdirIn, MknodIn, NotifyRetrieveIn, Opcode, OpenIn, PollIn,
    ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, StatxIn, WriteIn,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What LOOKUP looks for. `.` and `..` come from NFS export only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookupName<'a> {
    /// A name in the directory.
    Name(Name<'a>),
    /// The inode itself, which need not be a directory.
    Itself,
    /// The directory's parent.
    Parent,
}

/// Name of an extended attribute: 1..=255 bytes, no NUL, with its prefix (`user.` …).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XattrName<'a>(&'a [u8]);

impl<'a> XattrName<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Errno> {
        match bytes.len() {
            0 => Err(Errno::EINVAL),
            n if n > limits::NAME_BYTES_MAX => Err(Errno::ERANGE),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes, without a terminator.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// What a time is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The server's clock.
    Now,
    /// This.
    At(Time),
}

/// What SETATTR changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits; the kernel sends the type bits too.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length: truncate or extend.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
    /// Last change; only with the writeback cache.
    pub ctime: Option<Time>,
    /// The open file it was called on.
    pub handle: Option<HandleId>,
    /// Owner of the lock that a truncation respects.
    pub lock_owner: Option<u64>,
    /// Setuid and setgid bits go, by the rules of write(2).
    pub kill_suidgid: bool,
}

/// What a lock request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None: drop it.
    Unlock,
}

/// A lock request, its range checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// The open file.
    pub handle: HandleId,
    /// Owner, as the kernel tells owners apart.
    pub owner: u64,
    /// First byte.
    pub start: u64,
    /// Last byte, at least `start`.
    pub end: u64,
    /// What is wanted.
    pub kind: LockKind,
    /// Process of the caller, told to others by GETLK.
    pub pid: u32,
    /// flock(2), else fcntl(2).
    pub flock: bool,
}

/// One request. The records are the kernel's; see [`crate::kernel::abi::records`].
///
/// FORGET, BATCH_FORGET, INTERRUPT, INIT and DESTROY are not here: the transport takes them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "variants and fields carry the names of the protocol")]
pub enum Request<'a> {
    Lookup {
        name: LookupName<'a>,
    },
    Getattr {
        handle: Option<HandleId>,
    },
    Setattr(SetAttr),
    Readlink,
    Symlink {
        name: Name<'a>,
        target: &'a [u8],
    },
    Mknod {
        args: MknodIn,
        name: Name<'a>,
    },
    Mkdir {
        args: MkdirIn,
        name: Name<'a>,
    },
    Unlink {
        name: Name<'a>,
    },
    Rmdir {
        name: Name<'a>,
    },
    /// RENAME and RENAME2; `flags` are renameat2's.
    Rename {
        name: Name<'a>,
        new_parent: Ino,
        new_name: Name<'a>,
        flags: u32,
    },
    Link {
        target: Ino,
        name: Name<'a>,
    },
    Open(OpenIn),
    Read(ReadIn),
    /// `data` has exactly `args.size` bytes.
    Write {
        args: WriteIn,
        data: &'a [u8],
    },
    Statfs,
    Release(ReleaseIn),
    Fsync(FsyncIn),
    /// `value` has exactly `args.size` bytes.
    Setxattr {
        args: SetxattrIn,
        name: XattrName<'a>,
        value: &'a [u8],
    },
    Getxattr {
        size: u32,
        name: XattrName<'a>,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: XattrName<'a>,
    },
    Flush(FlushIn),
    Opendir(OpenIn),
    Readdir(ReadIn),
    Readdirplus(ReadIn),
    Releasedir(ReleaseIn),
    Fsyncdir(FsyncIn),
    Getlk(Lock),
    Setlk(Lock),
    Setlkw(Lock),
    Access {
        mask: u32,
    },
    Create {
        args: CreateIn,
        name: Name<'a>,
    },
    Tmpfile(CreateIn),
    Bmap(BmapIn),
    /// `data` has exactly `args.in_size` bytes.
    Ioctl {
        args: IoctlIn,
        data: &'a [u8],
    },
    Poll(PollIn),
    NotifyReply {
        args: NotifyRetrieveIn,
        data: &'a [u8],
    },
    Fallocate(FallocateIn),
    Lseek(LseekIn),
    /// COPY_FILE_RANGE (`wide` false: the answer is a `WriteOut`) and COPY_FILE_RANGE_64.
    CopyFileRange {
        args: CopyFileRangeIn,
        wide: bool,
    },
    Syncfs,
    Statx {
        args: StatxIn,
        handle: Option<HandleId>,
    },
}

impl<'a> Request<'a> {
    /// Reads a request from its header, its record and what follows the record.
    ///
    /// # Errors
    /// The errno to answer with: `ENOSYS` for an operation that is unknown or belongs to the transport,
    /// `EINVAL` for a malformed record or name, `ENAMETOOLONG`, `ERANGE` (attribute names).
    pub fn parse(header: &InHeader, args: &'a [u8], payload: &'a [u8]) -> Result<Self, Errno> {
        let op = Opcode::from_raw(header.opcode).ok_or(Errno::ENOSYS)?;
        // What is left of the payload when the extensions at its end are taken off.
        let rest = extension::split(header, payload)?.0;
        match op {
            Opcode::Lookup
            | Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
            | Opcode::Link
            | Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Create
            | Opcode::Tmpfile => Self::parse_name_op(op, args, rest),
            Opcode::Setxattr | Opcode::Getxattr | Opcode::Listxattr | Opcode::Removexattr => {
                Self::parse_xattr(op, args, rest)
            }
            Opcode::Write | Opcode::Ioctl | Opcode::NotifyReply => Self::parse_data(op, args, rest),
            Opcode::Init | Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt | Opcode::Destroy => {
                Err(Errno::ENOSYS)
            }
            _ => Self::parse_plain(op, args),
        }
    }

    /// Operations whose payload is names.
    fn parse_name_op(op: Opcode, args: &'a [u8], payload: &'a [u8]) -> Result<Self, Errno> {
        let (first, rest) = split_nul(payload)?;
        Ok(match op {
            Opcode::Lookup => Self::Lookup { name: lookup_name(first)? },
            Opcode::Unlink => Self::Unlink { name: Name::parse(first)? },
            Opcode::Rmdir => Self::Rmdir { name: Name::parse(first)? },
            Opcode::Mknod => Self::Mknod { args: record(args)?, name: Name::parse(first)? },
            Opcode::Mkdir => Self::Mkdir { args: record(args)?, name: Name::parse(first)? },
            Opcode::Create => Self::Create { args: record(args)?, name: Name::parse(first)? },
            // The kernel sends "/" as its name, which says nothing.
            Opcode::Tmpfile => Self::Tmpfile(record(args)?),
            Opcode::Link => {
                let link: LinkIn = record(args)?;
                Self::Link { target: Ino(link.oldnodeid), name: Name::parse(first)? }
            }
            Opcode::Symlink => {
                let (target, _) = split_nul(rest)?;
                match target.len() {
                    0 => return Err(Errno::ENOENT),
                    n if n > limits::SYMLINK_BYTES_MAX => return Err(Errno::ENAMETOOLONG),
                    _ => Self::Symlink { name: Name::parse(first)?, target },
                }
            }
            Opcode::Rename => {
                let rename: RenameIn = record(args)?;
                let new_name = Name::parse(split_nul(rest)?.0)?;
                Self::Rename { name: Name::parse(first)?, new_parent: Ino(rename.newdir), new_name, flags: 0 }
            }
            Opcode::Rename2 => {
                let rename: Rename2In = record(args)?;
                let new_name = Name::parse(split_nul(rest)?.0)?;
                let (new_parent, flags) = (Ino(rename.newdir), rename.flags);
                Self::Rename { name: Name::parse(first)?, new_parent, new_name, flags }
            }
            _ => return Err(Errno::ENOSYS),
        })
    }

    fn parse_xattr(op: Opcode, args: &'a [u8], payload: &'a [u8]) -> Result<Self, Errno> {
        if op == Opcode::Listxattr {
            let list: GetxattrIn = record(args)?;
            return Ok(Self::Listxattr { size: list.size });
        }
        let (name, rest) = split_nul(payload)?;
        let name = XattrName::parse(name)?;
        Ok(match op {
            Opcode::Setxattr => {
                let args = setxattr_record(args)?;
                if usize::try_from(args.size).is_ok_and(|n| n > limits::XATTR_VALUE_BYTES_MAX) {
                    return Err(Errno::E2BIG);
                }
                Self::Setxattr { args, name, value: exactly(rest, args.size)? }
            }
            Opcode::Getxattr => {
                let get: GetxattrIn = record(args)?;
                Self::Getxattr { size: get.size, name }
            }
            _ => Self::Removexattr { name },
        })
    }

    /// Operations whose payload is data.
    fn parse_data(op: Opcode, args: &'a [u8], payload: &'a [u8]) -> Result<Self, Errno> {
        Ok(match op {
            Opcode::Write => {
                let args: WriteIn = record(args)?;
                Self::Write { args, data: exactly(payload, args.size)? }
            }
            Opcode::Ioctl => {
                let args: IoctlIn = record(args)?;
                Self::Ioctl { args, data: exactly(payload, args.in_size)? }
            }
            _ => {
                let args: NotifyRetrieveIn = record(args)?;
                Self::NotifyReply { args, data: exactly(payload, args.size)? }
            }
        })
    }

    /// Operations that are their record, or nothing at all.
    fn parse_plain(op: Opcode, args: &[u8]) -> Result<Self, Errno> {
        Ok(match op {
            Opcode::Getattr => {
                let get: GetattrIn = record(args)?;
                Self::Getattr { handle: handle_if(get.getattr_flags & GETATTR_FH != 0, get.fh) }
            }
            Opcode::Setattr => Self::Setattr(set_attr(&record(args)?)?),
            Opcode::Readlink => Self::Readlink,
            Opcode::Open => Self::Open(record(args)?),
            Opcode::Opendir => Self::Opendir(record(args)?),
            Opcode::Read => Self::Read(record(args)?),
            Opcode::Readdir => Self::Readdir(record(args)?),
            Opcode::Readdirplus => Self::Readdirplus(record(args)?),
            Opcode::Statfs => Self::Statfs,
            Opcode::Release => Self::Release(record(args)?),
            Opcode::Releasedir => Self::Releasedir(record(args)?),
            Opcode::Fsync => Self::Fsync(record(args)?),
            Opcode::Fsyncdir => Self::Fsyncdir(record(args)?),
            Opcode::Flush => Self::Flush(record(args)?),
            Opcode::Getlk => Self::Getlk(lock(&record(args)?)?),
            Opcode::Setlk => Self::Setlk(lock(&record(args)?)?),
            Opcode::Setlkw => Self::Setlkw(lock(&record(args)?)?),
            Opcode::Access => {
                let access: AccessIn = record(args)?;
                Self::Access { mask: access.mask }
            }
            Opcode::Bmap => Self::Bmap(record(args)?),
            Opcode::Poll => Self::Poll(record(args)?),
            Opcode::Fallocate => Self::Fallocate(record(args)?),
            Opcode::Lseek => Self::Lseek(record(args)?),
            Opcode::CopyFileRange => Self::CopyFileRange { args: record(args)?, wide: false },
            Opcode::CopyFileRange64 => Self::CopyFileRange { args: record(args)?, wide: true },
            Opcode::Syncfs => Self::Syncfs,
            Opcode::Statx => {
                let args: StatxIn = record(args)?;
                Self::Statx { args, handle: handle_if(args.getattr_flags & GETATTR_FH != 0, args.fh) }
            }
            _ => return Err(Errno::ENOSYS),
        })
    }
}

/// The record at the start of `bytes`.
fn record<T: FromBytes + Immutable>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(bytes).map(|(record, _)| record).map_err(|_| Errno::EINVAL)
}

/// SETXATTR's record, in whichever of its two lengths it came.
fn setxattr_record(bytes: &[u8]) -> Result<SetxattrIn, Errno> {
    let mut args = SetxattrIn::default();
    let n = bytes.len().min(size_of::<SetxattrIn>());
    if n < 8 {
        return Err(Errno::EINVAL);
    }
    args.as_mut_bytes()[..n].copy_from_slice(&bytes[..n]);
    Ok(args)
}

/// The bytes before the first NUL and those after it. A string that is not terminated is malformed.
fn split_nul(bytes: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(Errno::EINVAL)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// The first `size` bytes, which must be there.
fn exactly(bytes: &[u8], size: u32) -> Result<&[u8], Errno> {
    usize::try_from(size).ok().and_then(|n| bytes.get(..n)).ok_or(Errno::EINVAL)
}

fn lookup_name(bytes: &[u8]) -> Result<LookupName<'_>, Errno> {
    match bytes {
        b"." => Ok(LookupName::Itself),
        b".." => Ok(LookupName::Parent),
        _ => Name::parse(bytes).map(LookupName::Name),
    }
}

fn handle_if(valid: bool, fh: u64) -> Option<HandleId> {
    valid.then_some(HandleId(fh))
}

fn time(secs: u64, nanos: u32) -> Result<Time, Errno> {
    if nanos >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    // The kernel carries the signed seconds of a `timespec64` in an unsigned field.
    Ok(Time { secs: secs.cast_signed(), nanos })
}

fn set_attr(raw: &SetattrIn) -> Result<SetAttr, Errno> {
    let has = |bit: u32| raw.valid & bit != 0;
    let set_time = |set, now, secs, nanos| -> Result<Option<SetTime>, Errno> {
        match (has(set), has(now)) {
            (_, true) => Ok(Some(SetTime::Now)),
            (true, false) => Ok(Some(SetTime::At(time(secs, nanos)?))),
            (false, false) => Ok(None),
        }
    };
    if has(FATTR_SIZE) && raw.size > limits::FILE_BYTES_MAX {
        return Err(Errno::EFBIG);
    }
    Ok(SetAttr {
        mode: has(FATTR_MODE).then_some(raw.mode),
        uid: has(FATTR_UID).then_some(raw.uid),
        gid: has(FATTR_GID).then_some(raw.gid),
        size: has(FATTR_SIZE).then_some(raw.size),
        atime: set_time(FATTR_ATIME, FATTR_ATIME_NOW, raw.atime, raw.atimensec)?,
        mtime: set_time(FATTR_MTIME, FATTR_MTIME_NOW, raw.mtime, raw.mtimensec)?,
        ctime: if has(FATTR_CTIME) { Some(time(raw.ctime, raw.ctimensec)?) } else { None },
        handle: handle_if(has(FATTR_FH), raw.fh),
        lock_owner: has(FATTR_LOCKOWNER).then_some(raw.lock_owner),
        kill_suidgid: has(FATTR_KILL_SUIDGID),
    })
}

fn lock(raw: &LkIn) -> Result<Lock, Errno> {
    const READ: i32 = libc::F_RDLCK;
    const WRITE: i32 = libc::F_WRLCK;
    const UNLOCK: i32 = libc::F_UNLCK;
    let kind = match i32::try_from(raw.lk.kind) {
        Ok(READ) => LockKind::Read,
        Ok(WRITE) => LockKind::Write,
        Ok(UNLOCK) => LockKind::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    if raw.lk.end < raw.lk.start {
        return Err(Errno::EINVAL);
    }
    Ok(Lock {
        handle: HandleId(raw.fh),
        owner: raw.owner,
        start: raw.lk.start,
        end: raw.lk.end,
        kind,
        pid: raw.lk.pid,
        flock: raw.lk_flags & LK_FLOCK != 0,
    })
}

#[cfg(test)]
mod tests;
