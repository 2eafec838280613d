//! fuse-backend-rs' types from ours and back. Both sides describe the same kernel records, by other names.

use crate::base::{Errno, Kind, Name};
use crate::kernel::abi::{EntryOut, FuseAttr, InHeader, Kstatfs};
use crate::kernel::decode::request::{Lock, LockKind, SetAttr, SetTime};
use fuse_backend_rs::abi::fuse_abi::{Attr, SetattrValid, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{Context, Entry, FileLock};
use std::ffi::CStr;
use std::io;

pub(super) fn context(header: &InHeader) -> Context {
    let mut context = Context::new();
    context.uid = header.uid;
    context.gid = header.gid;
    context.pid = header.pid.cast_signed();
    context
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A name with its NUL, in a buffer on the caller's stack.
pub(super) struct CName([u8; 256]);

impl CName {
    pub(super) fn new(name: Name<'_>) -> Self {
        let mut bytes = [0; 256];
        // A `Name` has at most 255 bytes, none of them NUL.
        bytes[..name.bytes().len()].copy_from_slice(name.bytes());
        Self(bytes)
    }

    pub(super) fn get(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

pub(super) fn entry(entry: &Entry) -> EntryOut {
    EntryOut {
        nodeid: entry.inode,
        generation: entry.generation,
        entry_valid: entry.entry_timeout.as_secs(),
        attr_valid: entry.attr_timeout.as_secs(),
        entry_valid_nsec: entry.entry_timeout.subsec_nanos(),
        attr_valid_nsec: entry.attr_timeout.subsec_nanos(),
        attr: attr(entry.attr, entry.attr_flags),
    }
}

pub(super) fn attr(stat: stat64, flags: u32) -> FuseAttr {
    let a = Attr::with_flags(stat, flags);
    FuseAttr {
        ino: a.ino,
        size: a.size,
        blocks: a.blocks,
        atime: a.atime,
        mtime: a.mtime,
        ctime: a.ctime,
        atimensec: a.atimensec,
        mtimensec: a.mtimensec,
        ctimensec: a.ctimensec,
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: a.blksize,
        flags: a.flags,
    }
}

pub(super) fn statfs(stat: &statvfs64) -> Kstatfs {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Kstatfs {
        blocks: stat.f_blocks,
        bfree: stat.f_bfree,
        bavail: stat.f_bavail,
        files: stat.f_files,
        ffree: stat.f_ffree,
        bsize: narrow(stat.f_bsize),
        namelen: narrow(stat.f_namemax),
        frsize: narrow(stat.f_frsize),
        padding: 0,
        spare: [0; 6],
    }
}

/// What SETATTR changes, as a stat and a mask.
pub(super) fn set_attr(set: &SetAttr) -> (stat64, SetattrValid) {
    let mut a = Attr::default();
    let mut valid = SetattrValid::empty();
    if let Some(mode) = set.mode {
        a.mode = mode;
        valid |= SetattrValid::MODE;
    }
    if let Some(uid) = set.uid {
        a.uid = uid;
        valid |= SetattrValid::UID;
    }
    if let Some(gid) = set.gid {
        a.gid = gid;
        valid |= SetattrValid::GID;
    }
    if let Some(size) = set.size {
        a.size = size;
        valid |= SetattrValid::SIZE;
    }
    match set.atime {
        Some(SetTime::Now) => valid |= SetattrValid::ATIME | SetattrValid::ATIME_NOW,
        Some(SetTime::At(time)) => {
            (a.atime, a.atimensec) = (time.secs.cast_unsigned(), time.nanos);
            valid |= SetattrValid::ATIME;
        }
        None => {}
    }
    match set.mtime {
        Some(SetTime::Now) => valid |= SetattrValid::MTIME | SetattrValid::MTIME_NOW,
        Some(SetTime::At(time)) => {
            (a.mtime, a.mtimensec) = (time.secs.cast_unsigned(), time.nanos);
            valid |= SetattrValid::MTIME;
        }
        None => {}
    }
    if set.kill_suidgid {
        valid |= SetattrValid::KILL_SUIDGID;
    }
    (stat64::from(a), valid)
}

pub(super) fn lock(lock: &Lock) -> FileLock {
    let kind = match lock.kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
        LockKind::Unlock => libc::F_UNLCK,
    };
    FileLock { start: lock.start, end: lock.end, lock_type: kind.unsigned_abs(), pid: lock.pid }
}

/// The type a directory entry claims; one that says nothing is taken for a regular file.
pub(super) fn kind(type_: u32) -> Kind {
    Kind::from_mode(type_ << 12).unwrap_or(Kind::File)
}

#[cfg(test)]
mod tests {
    use super::{CName, kind, set_attr};
    use crate::base::{Kind, Name, Time};
    use crate::kernel::decode::request::{SetAttr, SetTime};
    use fuse_backend_rs::abi::fuse_abi::SetattrValid;

    #[test]
    fn names_keep_every_byte() {
        for name in [&b"a"[..], b"\xff\xfe:;\n", &[b'x'; 255]] {
            assert_eq!(CName::new(Name::parse(name).unwrap()).get().to_bytes(), name);
        }
    }

    #[test]
    fn only_what_is_set_is_valid() {
        let at = SetTime::At(Time { secs: -1, nanos: 5 });
        let set = SetAttr { size: Some(9), mtime: Some(at), atime: Some(SetTime::Now), ..SetAttr::default() };
        let (stat, valid) = set_attr(&set);
        assert_eq!((stat.st_size, stat.st_mtime, stat.st_mtime_nsec), (9, -1, 5));
        let expected =
            SetattrValid::SIZE | SetattrValid::MTIME | SetattrValid::ATIME | SetattrValid::ATIME_NOW;
        assert_eq!(valid, expected);
    }

    #[test]
    fn directory_types_are_the_upper_bits_of_modes() {
        assert_eq!(kind(u32::from(libc::DT_DIR)), Kind::Directory);
        assert_eq!(kind(u32::from(libc::DT_LNK)), Kind::Symlink);
        assert_eq!(kind(u32::from(libc::DT_UNKNOWN)), Kind::File);
    }
}
