//! Builds the records of replies from the crate's own types.

use super::request::{Lock, LockKind};
use crate::base::{Attr, HandleId, Ino, Time, limits};
use crate::kernel::abi::{
    AttrOut, CreateOut, EntryOut, FileLock, FuseAttr, GetxattrOut, Kstatfs, LkOut, OpenOut, Statx, StatxOut,
    StatxTime, WriteOut,
};
use std::time::Duration;

/// The kernel's attributes of `attr`.
#[must_use]
pub fn attr(attr: &Attr) -> FuseAttr {
    FuseAttr {
        ino: attr.ino.0,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.secs.cast_unsigned(),
        mtime: attr.mtime.secs.cast_unsigned(),
        ctime: attr.ctime.secs.cast_unsigned(),
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: limits::BLOCK_BYTES,
        flags: 0,
    }
}

/// A name that exists. The kernel may use the name for `name_ttl` and the attributes for `attr_ttl`.
#[must_use]
pub fn entry(inode: &Attr, name_ttl: Duration, attr_ttl: Duration) -> EntryOut {
    EntryOut {
        nodeid: inode.ino.0,
        generation: Ino::GENERATION,
        entry_valid: name_ttl.as_secs(),
        attr_valid: attr_ttl.as_secs(),
        entry_valid_nsec: name_ttl.subsec_nanos(),
        attr_valid_nsec: attr_ttl.subsec_nanos(),
        attr: attr(inode),
    }
}

/// A name that does not exist, and may be taken as absent for `name_ttl`. An `ENOENT` says it without
/// being remembered.
#[must_use]
pub fn negative(name_ttl: Duration) -> EntryOut {
    EntryOut {
        entry_valid: name_ttl.as_secs(),
        entry_valid_nsec: name_ttl.subsec_nanos(),
        ..EntryOut::default()
    }
}

/// Attributes that may be used for `attr_ttl`.
#[must_use]
pub fn attributes(inode: &Attr, attr_ttl: Duration) -> AttrOut {
    AttrOut {
        attr_valid: attr_ttl.as_secs(),
        attr_valid_nsec: attr_ttl.subsec_nanos(),
        dummy: 0,
        attr: attr(inode),
    }
}

/// An open file or directory; `open_flags` are `FOPEN_*`.
#[must_use]
pub fn open(handle: HandleId, open_flags: u32) -> OpenOut {
    OpenOut { fh: handle.0, open_flags, backing_id: 0 }
}

/// A file that was made and opened.
#[must_use]
pub fn create(entry: EntryOut, open: OpenOut) -> CreateOut {
    CreateOut { entry, open }
}

/// Bytes that were written.
#[must_use]
pub fn written(bytes: u32) -> WriteOut {
    WriteOut { size: bytes, padding: 0 }
}

/// Size of an extended attribute or of the list of their names.
#[must_use]
pub fn xattr_size(bytes: u32) -> GetxattrOut {
    GetxattrOut { size: bytes, padding: 0 }
}

/// The limit in the width of the record.
#[expect(clippy::cast_possible_truncation, reason = "255")]
const NAME_BYTES_MAX: u32 = limits::NAME_BYTES_MAX as u32;

/// What STATFS tells: blocks of [`limits::BLOCK_BYTES`] and inodes, in total and free.
#[must_use]
pub fn statfs(blocks: u64, blocks_free: u64, files: u64, files_free: u64) -> Kstatfs {
    Kstatfs {
        blocks,
        bfree: blocks_free,
        bavail: blocks_free,
        files,
        ffree: files_free,
        bsize: limits::BLOCK_BYTES,
        namelen: NAME_BYTES_MAX,
        frsize: limits::BLOCK_BYTES,
        ..Kstatfs::default()
    }
}

/// Answer to GETLK: the lock that stands in the way, or none.
#[must_use]
pub fn lock(holder: Option<&Lock>) -> LkOut {
    let lk = holder.map_or(FileLock { kind: kind_bits(LockKind::Unlock), ..FileLock::default() }, |lock| {
        FileLock { start: lock.start, end: lock.end, kind: kind_bits(lock.kind), pid: lock.pid }
    });
    LkOut { lk }
}

fn kind_bits(kind: LockKind) -> u32 {
    match kind {
        LockKind::Read => libc::F_RDLCK as u32,
        LockKind::Write => libc::F_WRLCK as u32,
        LockKind::Unlock => libc::F_UNLCK as u32,
    }
}

/// Answer to STATX: basic attributes and the time of birth.
#[must_use]
pub fn statx(inode: &Attr, attr_ttl: Duration) -> StatxOut {
    let time = |t: Time| StatxTime { tv_sec: t.secs, tv_nsec: t.nanos, reserved: 0 };
    // `dev_t` as FUSE carries it: the low byte of the minor number, twelve bits of the major, the rest.
    let rdev = inode.rdev;
    StatxOut {
        attr_valid: attr_ttl.as_secs(),
        attr_valid_nsec: attr_ttl.subsec_nanos(),
        stat: Statx {
            mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
            blksize: limits::BLOCK_BYTES,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            #[expect(clippy::cast_possible_truncation, reason = "type and permission bits are 16")]
            mode: inode.mode as u16,
            ino: inode.ino.0,
            size: inode.size,
            blocks: inode.blocks,
            atime: time(inode.atime),
            btime: time(inode.btime),
            ctime: time(inode.ctime),
            mtime: time(inode.mtime),
            rdev_major: (rdev >> 8) & 0xfff,
            rdev_minor: (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
            ..Statx::default()
        },
        ..StatxOut::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{attributes, entry, negative, statx};
    use crate::base::{Attr, Ino, Time};
    use std::time::Duration;

    fn sample() -> Attr {
        let t = Time { secs: -5, nanos: 7 };
        Attr {
            ino: Ino(42),
            mode: libc::S_IFCHR | 0o640,
            nlink: 1,
            uid: 3,
            gid: 4,
            rdev: (0x12 << 8) | 0x34 | (0x5 << 20),
            size: 9,
            blocks: 8,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
        }
    }

    #[test]
    fn times_before_1970_and_fractions_of_a_ttl_survive() {
        let out = entry(&sample(), Duration::from_millis(1500), Duration::from_nanos(9));
        assert_eq!(
            (out.entry_valid, out.entry_valid_nsec, out.attr_valid, out.attr_valid_nsec),
            (1, 500_000_000, 0, 9)
        );
        assert_eq!(out.attr.mtime.cast_signed(), -5);
        assert_eq!(attributes(&sample(), Duration::MAX).attr_valid, u64::MAX);
        assert_eq!(negative(Duration::from_secs(3)).nodeid, 0);
    }

    #[test]
    fn a_device_number_is_taken_apart_as_the_kernel_put_it_together() {
        let out = statx(&sample(), Duration::ZERO).stat;
        assert_eq!((out.rdev_major, out.rdev_minor), (0x12, 0x534));
        assert_eq!(u32::from(out.mode), sample().mode);
    }
}
