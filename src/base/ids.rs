//! Numbers that name things. Each is a type of its own, so that one cannot stand where another belongs.

use std::fmt;

/// Number of an inode, the identity of a file (R0.3): never reused, so its generation is always
/// [`Ino::GENERATION`]. It is the kernel's node id too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of a volume (`FUSE_ROOT_ID`).
    pub const ROOT: Self = Self(1);
    /// Generation told to the kernel. Numbers never come back, so it never changes (semantics 3.6, point 8).
    pub const GENERATION: u64 = 0;
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of a chunk: immutable bytes in a segment. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ChunkId(pub u64);

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of an open file or directory of one mount, as told to the kernel (`fh`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct HandleId(pub u64);

/// Name of a session: chosen at random by the client, kept over reconnects and server restarts. Who knows it whole may
/// speak for the session, so no log and no status shows more than its first digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::SessionId;

    #[test]
    fn a_session_is_told_by_its_first_digits_alone() {
        let id = SessionId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(
            (id.to_string(), format!("{id:?}")),
            ("01234567".to_owned(), "SessionId(01234567)".to_owned())
        );
    }
}
