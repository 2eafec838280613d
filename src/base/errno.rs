//! The answer "no": a Linux error number, `Copy`, without allocation or log line.

use std::fmt;

/// A Linux error number, always in `1..512` (the range FUSE accepts in a reply).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident = $doc:literal),* $(,)?) => {
        impl Errno {
            $(
                #[doc = $doc]
                #[expect(clippy::cast_possible_truncation, reason = "errno values are below 512")]
                pub const $name: Self = Self(libc::$name as u16);
            )*
        }
        fn symbol(raw: u16) -> Option<&'static str> {
            match i32::from(raw) {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

errnos! {
    EPERM = "Operation not permitted.",
    ENOENT = "No such file or directory.",
    EINTR = "Interrupted.",
    EIO = "Input/output error.",
    ENXIO = "No such device or address (SEEK_DATA past the end).",
    E2BIG = "Argument list too long (an extended attribute over its limit).",
    EBADF = "Bad file descriptor.",
    EAGAIN = "Try again (a lock is held by another).",
    ENOMEM = "Out of memory.",
    EACCES = "Permission denied.",
    EBUSY = "Busy.",
    EEXIST = "File exists.",
    EXDEV = "Crosses a volume.",
    ENODEV = "No such device.",
    ENOTDIR = "Not a directory.",
    EISDIR = "Is a directory.",
    EINVAL = "Invalid argument.",
    ENFILE = "Too many open files in the system.",
    ENOTTY = "Inappropriate ioctl.",
    EFBIG = "File too large.",
    ENOSPC = "No space left.",
    EROFS = "Read-only file system.",
    EMLINK = "Too many links.",
    ERANGE = "Result too large for the caller's buffer.",
    EDEADLK = "A lock would close a circle of waiters.",
    ENAMETOOLONG = "Name too long.",
    ENOLCK = "No locks available.",
    ENOSYS = "Not implemented. To the kernel it means: never ask again on this mount.",
    ENOTEMPTY = "Directory not empty.",
    ELOOP = "Too many symbolic links.",
    ENODATA = "No such extended attribute.",
    EPROTO = "Protocol error.",
    EOVERFLOW = "Value too large.",
    EOPNOTSUPP = "Operation not supported.",
    ENOTCONN = "Not connected.",
    ETIMEDOUT = "Timed out.",
    ECONNABORTED = "Connection aborted (a FUSE connection that was cut).",
    ECONNREFUSED = "Connection refused.",
    EALREADY = "Already in progress.",
    ESTALE = "Stale file handle.",
    EDQUOT = "Quota exceeded.",
    ECANCELED = "Canceled.",
}

impl Errno {
    /// The errno with this number; anything outside `1..512` is `EIO`, since FUSE cannot carry it.
    #[must_use]
    pub fn from_raw(raw: i32) -> Self {
        match u16::try_from(raw) {
            Ok(n) if (1..512).contains(&n) => Self(n),
            _ => Self::EIO,
        }
    }

    /// The positive number, as in errno(3).
    #[must_use]
    pub fn raw(self) -> i32 {
        i32::from(self.0)
    }
}

impl From<std::io::Error> for Errno {
    /// The system's own number where there is one, else `EIO`.
    fn from(error: std::io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self::from_raw)
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(error: nix::errno::Errno) -> Self {
        Self::from_raw(error as i32)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match symbol(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn numbers_outside_what_fuse_carries_become_eio() {
        assert_eq!(Errno::from_raw(2), Errno::ENOENT);
        for raw in [0, -2, 512, 70_000, i32::MIN] {
            assert_eq!(Errno::from_raw(raw), Errno::EIO, "{raw}");
        }
    }

    #[test]
    fn known_numbers_print_their_symbol() {
        assert_eq!(Errno::EDEADLK.to_string(), "EDEADLK");
        assert_eq!(Errno::from_raw(133).to_string(), "errno 133");
    }
}
