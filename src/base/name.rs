//! File names. Bytes from the kernel, the wire or the disk are claims until [`Name::parse`] has seen them.

use super::errno::Errno;
use super::limits::NAME_BYTES_MAX;
use std::fmt;

/// A name that may stand in a directory: 1..=255 bytes, no `/`, no NUL, not `.` or `..`. Any other byte is
/// allowed, valid UTF-8 or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The only way to make a `Name`; everything that takes one relies on what is checked here.
    ///
    /// # Errors
    /// `ENAMETOOLONG` over 255 bytes, `EINVAL` for the rest of what a name must not be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let forbidden = bytes.is_empty() || bytes == b"." || bytes == b"..";
        if forbidden || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(Errno::EINVAL);
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a terminator.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_buf(self) -> NameBuf {
        NameBuf(self.0.into())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

/// A [`Name`] that owns its bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameBuf(Box<[u8]>);

impl NameBuf {
    /// The name, borrowed.
    #[must_use]
    pub fn as_name(&self) -> Name<'_> {
        Name(&self.0)
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_name().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use crate::base::Errno;

    #[test]
    fn what_posix_forbids_is_refused_and_the_rest_is_kept() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(Name::parse(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(Name::parse(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
        for good in [&b"..."[..], b"a\nb", b"a:b;c", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(Name::parse(good).map(Name::bytes), Ok(good));
        }
    }
}
