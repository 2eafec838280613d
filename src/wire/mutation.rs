//! Mutations: one change of the name space, of attributes or of data each, and their records.

mod codec;

pub use codec::{Decoded, clear_hold, decode_batch, encode};

use crate::base::{Caller, Ino, Name, Time};
pub use crate::base::{SetAttr, TimeSet};

/// Number of a mutation within its session, counted from 1. With the session it is the operation id under which
/// the server stores the outcome (R7.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Where a mutation comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Its number.
    pub ticket: Ticket,
    /// Who asked.
    pub caller: Caller,
    /// When the client completed it, by the server's clock as the client knows it. `None`: its caller waits for
    /// the outcome, and the time is the server's.
    pub at: Option<Time>,
}

impl Origin {
    /// Of a mutation whose caller waits.
    #[must_use]
    pub fn waited(ticket: Ticket, caller: Caller) -> Self {
        Self { ticket, caller, at: None }
    }
}

/// What a name must stand for; in any other state the mutation is ESTALE and changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Expect {
    /// Anything: the client does not know.
    #[default]
    Any,
    /// Nothing.
    Absent,
    /// This inode.
    Is(Ino),
}

/// One change, as the client asks for it. Names and data are borrowed from the request or the frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mutation<'a> {
    /// Make a file, directory, symlink or special file: `mode` carries the type.
    Make {
        /// Directory.
        parent: Ino,
        /// Name in it.
        name: Name<'a>,
        /// Type and permission bits before the umask.
        mode: u32,
        /// Caller's umask; ignored where the directory has a default ACL.
        umask: u32,
        /// Device number of a device file.
        rdev: u32,
        /// Target of a symlink, else empty.
        target: &'a [u8],
        /// See [`MakeFlags`].
        flags: MakeFlags,
        /// The number that the client took for it from a range of its own; the server gives one when there is none.
        ino: Option<Ino>,
    },
    /// Make a file without a name (`O_TMPFILE`) and hold it.
    Tmpfile {
        /// Directory whose owner rules and default ACL apply.
        parent: Ino,
        /// Permission bits before the umask.
        mode: u32,
        /// Caller's umask.
        umask: u32,
    },
    /// One more name for an inode.
    Link {
        /// Inode.
        ino: Ino,
        /// Directory.
        parent: Ino,
        /// New name.
        name: Name<'a>,
    },
    /// Remove the name of something that is not a directory.
    Unlink {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name<'a>,
        /// What the name must stand for, if the client knows it.
        ino: Option<Ino>,
        /// The session holds the inode when this was its last name.
        hold: bool,
    },
    /// Remove an empty directory.
    Rmdir {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Name<'a>,
        /// What the name must stand for, if the client knows it.
        ino: Option<Ino>,
        /// The session holds the directory.
        hold: bool,
    },
    /// Rename.
    Rename {
        /// Directory of the old name.
        parent: Ino,
        /// Old name.
        name: Name<'a>,
        /// Directory of the new name.
        new_parent: Ino,
        /// New name.
        new_name: Name<'a>,
        /// `RENAME_NOREPLACE`, `RENAME_EXCHANGE`, `RENAME_WHITEOUT`; others are EINVAL.
        flags: u32,
        /// What the old name must stand for, if the client knows it.
        ino: Option<Ino>,
        /// What the new name must stand for before.
        replaced: Expect,
        /// The session holds a replaced inode that loses its last name.
        hold: bool,
    },
    /// Change attributes.
    SetAttr {
        /// Inode.
        ino: Ino,
        /// What to change.
        set: SetAttr,
    },
    /// Write the data behind it.
    Write {
        /// File.
        ino: Ino,
        /// First byte in the file; ignored with [`WriteFlags::APPEND`].
        offset: u64,
        /// See [`WriteFlags`].
        flags: WriteFlags,
        /// The bytes: a slice of the frame's payload.
        data: &'a [u8],
    },
    /// `fallocate(2)`.
    Allocate {
        /// File.
        ino: Ino,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// `copy_file_range(2)` inside the volume: shares chunks, copies nothing.
    Copy {
        /// Source file.
        source: Ino,
        /// First byte in it.
        source_offset: u64,
        /// Destination file.
        target: Ino,
        /// First byte in it.
        target_offset: u64,
        /// Number of bytes at most.
        len: u64,
    },
    /// Set an extended attribute.
    SetXattr {
        /// Inode.
        ino: Ino,
        /// Full name with its namespace, `user.x`.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
        /// `XATTR_CREATE`, `XATTR_REPLACE`.
        flags: u32,
        /// Whether setting an access ACL also drops the setgid bit (`FUSE_SETXATTR_ACL_KILL_SGID`).
        kill_sgid: bool,
    },
    /// Remove an extended attribute.
    RemoveXattr {
        /// Inode.
        ino: Ino,
        /// Full name.
        name: &'a [u8],
    },
}

/// How a `Make` behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MakeFlags {
    /// The session holds the new inode (it is being opened).
    pub hold: bool,
    /// A name that exists is EEXIST. Without it an existing regular file is held and returned, not made.
    pub exclusive: bool,
}

/// How a `Write` behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteFlags {
    /// Write at the end of file as the server knows it, whatever `offset` says (O_APPEND of several mounts).
    pub append: bool,
    /// Drop setuid and setgid bits (the writer may not keep them).
    pub kill_suidgid: bool,
}
