//! The kernel's caches: what a reply lets it keep, and how that is taken back.

use crate::base::{Attr, Ino, Kind};
use std::time::Duration;

/// How long the kernel may keep what a reply says. Nothing, by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// The name, also an absent one.
    pub name: Duration,
    /// The attributes.
    pub attributes: Duration,
    /// The change was completed here, and what it opened counts as open.
    pub here: bool,
}

impl Kept {
    /// The same for the inode that is told: the kernel clears the bits of a file that is written to only when it asks for its
    /// attributes, so those of a program with powers are never kept.
    #[must_use]
    pub fn of(self, attr: &Attr) -> Self {
        let powers = libc::S_ISUID | libc::S_ISGID;
        let powerful = attr.kind() == Kind::File && attr.mode & powers != 0;
        if powerful { Self { attributes: Duration::ZERO, ..self } } else { self }
    }
}

/// What the kernel has to forget.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stale {
    /// Every name of the mount.
    pub names: bool,
    /// Attributes and data of these.
    pub inodes: Vec<Ino>,
}

/// The kernel's side, as the mount needs it.
pub trait KernelCaches: Send + Sync {
    /// Whether names that were given out can be taken back while a directory is in use. If not, none are given out.
    fn can_forget_names(&self) -> bool;

    /// Has the kernel forget, and returns when it has. Blocks: for a thread that answers no requests.
    fn forget(&self, stale: &Stale);
}

#[cfg(test)]
mod tests {
    use super::Kept;
    use crate::base::{Attr, Ino, Time};
    use std::time::Duration;

    #[test]
    fn attributes_of_a_program_with_powers_are_not_kept() {
        let time = Time { secs: 0, nanos: 0 };
        let attr = |mode| Attr {
            ino: Ino(2),
            mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        };
        let kept = Kept { name: Duration::from_secs(1), attributes: Duration::from_secs(1), here: false };
        assert_eq!(kept.of(&attr(libc::S_IFREG | 0o755)), kept);
        assert_eq!(kept.of(&attr(libc::S_IFDIR | 0o2755)), kept);
        let program = kept.of(&attr(libc::S_IFREG | 0o4755));
        assert_eq!((program.name, program.attributes), (kept.name, Duration::ZERO));
    }
}
