//! Flag bits: those of INIT as a type, since both sides' sets are combined, the rest as numbers.

use std::ops::{BitAnd, BitOr, BitOrAssign};

/// A set of INIT flags; bits 32 and up travel in `flags2`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct InitFlags(pub u64);

macro_rules! init_flags {
    ($($name:ident = $bit:literal, $doc:literal;)*) => {
        impl InitFlags {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*

            /// Names of the flags in the set; unknown bits are left out.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                [$((Self::$name, stringify!($name))),*]
                    .into_iter()
                    .filter_map(move |(flag, name)| self.has(flag).then_some(name))
            }
        }
    };
}

init_flags! {
    ASYNC_READ = 0, "Several READs of one file at a time.";
    POSIX_LOCKS = 1, "fcntl locks are sent.";
    FILE_OPS = 2, "Never used by the kernel.";
    ATOMIC_O_TRUNC = 3, "OPEN carries O_TRUNC instead of a SETATTR before it.";
    EXPORT_SUPPORT = 4, "LOOKUP of \".\" and \"..\" works (NFS export).";
    BIG_WRITES = 5, "WRITE may be larger than a page.";
    DONT_MASK = 6, "The umask is not applied by the kernel.";
    SPLICE_WRITE = 7, "Splice to the device.";
    SPLICE_MOVE = 8, "Splice moves pages.";
    SPLICE_READ = 9, "Splice from the device.";
    FLOCK_LOCKS = 10, "flock locks are sent.";
    HAS_IOCTL_DIR = 11, "ioctl on directories.";
    AUTO_INVAL_DATA = 12, "Cached data is dropped when mtime or size change.";
    DO_READDIRPLUS = 13, "READDIRPLUS is sent.";
    READDIRPLUS_AUTO = 14, "READDIRPLUS only where it seems useful.";
    ASYNC_DIO = 15, "Direct I/O without waiting.";
    WRITEBACK_CACHE = 16, "Writes gather in the page cache.";
    NO_OPEN_SUPPORT = 17, "OPEN may be answered ENOSYS.";
    PARALLEL_DIROPS = 18, "LOOKUP and READDIR in one directory in parallel.";
    HANDLE_KILLPRIV = 19, "The server drops setuid and setgid bits.";
    POSIX_ACL = 20, "POSIX ACLs; forces default_permissions.";
    ABORT_ERROR = 21, "After an abort a read of the device says ECONNABORTED.";
    MAX_PAGES = 22, "`max_pages` in the reply counts.";
    CACHE_SYMLINKS = 23, "Targets of symbolic links are cached.";
    NO_OPENDIR_SUPPORT = 24, "OPENDIR may be answered ENOSYS.";
    EXPLICIT_INVAL_DATA = 25, "Cached data is dropped only when told to.";
    MAP_ALIGNMENT = 26, "DAX.";
    SUBMOUNTS = 27, "Submounts are announced.";
    HANDLE_KILLPRIV_V2 = 28, "The server drops setuid, setgid and capabilities when the kernel says so.";
    SETXATTR_EXT = 29, "SETXATTR in its longer form.";
    INIT_EXT = 30, "`flags2` counts.";
    SECURITY_CTX = 32, "Security contexts come with creates.";
    HAS_INODE_DAX = 33, "DAX.";
    CREATE_SUPP_GROUP = 34, "Groups come with creates.";
    HAS_EXPIRE_ONLY = 35, "INVAL_ENTRY can let a name expire instead of dropping it.";
    DIRECT_IO_ALLOW_MMAP = 36, "Shared mmap with FOPEN_DIRECT_IO.";
    PASSTHROUGH = 37, "Opens can be tied to a local file.";
    NO_EXPORT_SUPPORT = 38, "NFS export is refused.";
    HAS_RESEND = 39, "Requests can be asked for again.";
    ALLOW_IDMAP = 40, "Idmapped mounts.";
    OVER_IO_URING = 41, "Requests over io_uring.";
    REQUEST_TIMEOUT = 42, "The kernel gives up on a request after `request_timeout` seconds.";
}

impl InitFlags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// The flags of an INIT request or reply. `flags2` counts only beside `INIT_EXT`.
    #[must_use]
    pub fn from_halves(flags: u32, flags2: u32) -> Self {
        let low = Self(u64::from(flags));
        if low.has(Self::INIT_EXT) { Self(low.0 | u64::from(flags2) << 32) } else { low }
    }

    /// `flags` and `flags2` of an INIT reply.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    #[must_use]
    pub fn halves(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both sets together; `|` for constants.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for InitFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for InitFlags {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOrAssign for InitFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl std::fmt::Debug for InitFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

macro_rules! bits {
    ($($name:ident = $bit:literal, $doc:literal;)*) => { $(#[doc = $doc] pub const $name: u32 = 1 << $bit;)* };
}

bits! {
    FATTR_MODE = 0, "SETATTR: set the permission bits.";
    FATTR_UID = 1, "SETATTR: set the owner.";
    FATTR_GID = 2, "SETATTR: set the group.";
    FATTR_SIZE = 3, "SETATTR: set the length.";
    FATTR_ATIME = 4, "SETATTR: set the time of access.";
    FATTR_MTIME = 5, "SETATTR: set the time of modification.";
    FATTR_FH = 6, "SETATTR: `fh` is valid.";
    FATTR_ATIME_NOW = 7, "SETATTR: access is now.";
    FATTR_MTIME_NOW = 8, "SETATTR: modification is now.";
    FATTR_LOCKOWNER = 9, "SETATTR: `lock_owner` is valid.";
    FATTR_CTIME = 10, "SETATTR: set the time of change (writeback cache).";
    FATTR_KILL_SUIDGID = 11, "SETATTR: drop setuid and setgid bits.";

    FOPEN_DIRECT_IO = 0, "Open reply: bypass the page cache.";
    FOPEN_KEEP_CACHE = 1, "Open reply: keep what is cached.";
    FOPEN_NONSEEKABLE = 2, "Open reply: no seeking.";
    FOPEN_CACHE_DIR = 3, "Open reply: listing may be cached.";
    FOPEN_STREAM = 4, "Open reply: no file position at all.";
    FOPEN_NOFLUSH = 5, "Open reply: no FLUSH on close.";
    FOPEN_PARALLEL_DIRECT_WRITES = 6, "Open reply: direct writes of one inode in parallel.";
    FOPEN_PASSTHROUGH = 7, "Open reply: `backing_id` serves the data.";

    RELEASE_FLUSH = 0, "RELEASE: flush too.";
    RELEASE_FLOCK_UNLOCK = 1, "RELEASE: drop the flock lock of this open file.";
    GETATTR_FH = 0, "GETATTR, STATX: `fh` is valid.";
    LK_FLOCK = 0, "Lock requests: flock(2), not fcntl(2).";
    WRITE_CACHE = 0, "WRITE: from the page cache, `fh` is a guess.";
    WRITE_LOCKOWNER = 1, "WRITE: `lock_owner` is valid.";
    WRITE_KILL_SUIDGID = 2, "WRITE: drop setuid and setgid bits.";
    READ_LOCKOWNER = 1, "READ: `lock_owner` is valid.";
    FSYNC_FDATASYNC = 0, "FSYNC: data only.";
    OPEN_KILL_SUIDGID = 0, "OPEN, CREATE: drop setuid and setgid bits (with O_TRUNC).";
    SETXATTR_ACL_KILL_SGID = 0, "SETXATTR: drop the setgid bit with the ACL.";
    ATTR_SUBMOUNT = 0, "Attributes: root of a submount.";
    ATTR_DAX = 1, "Attributes: DAX.";
    IOCTL_COMPAT = 0, "IOCTL: 32-bit caller.";
    IOCTL_UNRESTRICTED = 1, "IOCTL: not well formed, retry allowed.";
    IOCTL_RETRY = 2, "IOCTL reply: again with these buffers.";
    IOCTL_32BIT = 3, "IOCTL: 32-bit ioctl.";
    IOCTL_DIR = 4, "IOCTL: on a directory.";
    IOCTL_COMPAT_X32 = 5, "IOCTL: x32 caller.";
    POLL_SCHEDULE_NOTIFY = 0, "POLL: notify when ready.";
    EXPIRE_ONLY = 0, "INVAL_ENTRY: expire, do not drop.";
}

/// Extension type: [`super::SuppGroups`]. Types up to 31 are security contexts.
pub const EXT_GROUPS: u32 = 32;

#[cfg(test)]
mod tests {
    use super::InitFlags;

    #[test]
    fn the_upper_half_counts_only_beside_init_ext() {
        let ext = u32::try_from(InitFlags::INIT_EXT.0).unwrap();
        assert!(!InitFlags::from_halves(0, 1 << 9).has(InitFlags::OVER_IO_URING));
        let both = InitFlags::from_halves(ext | 1, 1 << 9);
        assert!(both.has(InitFlags::OVER_IO_URING | InitFlags::ASYNC_READ));
        assert_eq!(both.halves(), (ext | 1, 1 << 9));
        assert_eq!(format!("{both:?}"), r#"{"ASYNC_READ", "INIT_EXT", "OVER_IO_URING"}"#);
    }
}
