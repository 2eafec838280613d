//! What stat(2) tells of a file.

use super::errno::Errno;
use super::ids::Ino;

/// A point in time: seconds since 1970 (may be negative) and nanoseconds in `0..1_000_000_000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    /// Whole seconds since 1970-01-01 UTC.
    pub secs: i64,
    /// Nanoseconds past `secs`.
    pub nanos: u32,
}

impl Time {
    /// The time `nanos` nanoseconds after 1970; what is past the year 2554 does not fit and is not needed.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            secs: i64::try_from(nanos / SECOND).unwrap_or(i64::MAX),
            nanos: u32::try_from(nanos % SECOND).unwrap_or(0),
        }
    }

    /// Nanoseconds since 1970; 0 for what lies before, the largest number for what does not fit.
    #[must_use]
    pub fn to_nanos(self) -> u64 {
        let Ok(secs) = u64::try_from(self.secs) else { return 0 };
        secs.saturating_mul(1_000_000_000).saturating_add(u64::from(self.nanos))
    }
}

/// Type of a file, the `S_IFMT` part of its mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl Kind {
    /// The type in the `S_IFMT` bits of `mode`.
    ///
    /// # Errors
    /// `EINVAL` for bits that name no type.
    pub fn from_mode(mode: u32) -> Result<Self, Errno> {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Ok(Self::File),
            libc::S_IFDIR => Ok(Self::Directory),
            libc::S_IFLNK => Ok(Self::Symlink),
            libc::S_IFIFO => Ok(Self::Fifo),
            libc::S_IFSOCK => Ok(Self::Socket),
            libc::S_IFCHR => Ok(Self::CharDevice),
            libc::S_IFBLK => Ok(Self::BlockDevice),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The `S_IFMT` bits.
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// Attributes of one inode, as the server holds them and stat(2) shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Number of names; of a directory 2 + its subdirectories. 0: unlinked, alive while somebody holds it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file (Linux `dev_t`, 32 bit as FUSE carries it), else 0.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes of the store behind it, in units of 512.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of content or attributes; set by the server, never goes backwards.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

impl Attr {
    /// Type of the file. The server never stores a mode without one.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode).unwrap_or(Kind::File)
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// A timestamp to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeSet {
    /// The server's present time.
    Now,
    /// This time.
    At(Time),
}

/// Which attributes a `SetAttr` changes; `None` leaves one alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (type bits are ignored).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New length; bytes past it are gone, a gap reads as zeros.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<TimeSet>,
    /// Modification time.
    pub mtime: Option<TimeSet>,
    /// Change time, only from a kernel that keeps it (write-back cache); otherwise the server sets it.
    pub ctime: Option<Time>,
    /// Drop setuid and setgid bits because the owner or the content changes.
    pub kill_suidgid: bool,
}
