//! What a request asks for.

use super::records::{
    AccessIn, BatchForgetIn, BmapIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, FsyncIn,
    GetattrIn, GetxattrIn, InitIn, InterruptIn, IoctlIn, LinkIn, LkIn, LseekIn, MkdirIn, MknodIn,
    NotifyRetrieveIn, OpenIn, PollIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, StatxIn,
    SyncfsIn, WriteIn,
};

/// One more than the largest opcode that is counted by itself.
pub const OPCODES: usize = 64;

macro_rules! opcodes {
    ($($(#[$meta:meta])* $name:ident = $number:literal, $text:literal, $args:expr;)*) => {
        /// The operations of FUSE. DAX's two (48, 49) and CUSE's are not here: they are answered ENOSYS.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u32)]
        pub enum Opcode { $($(#[$meta])* $name = $number),* }

        impl Opcode {
            /// The operation with this number, if it is known.
            #[must_use]
            pub fn from_raw(raw: u32) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its name in the kernel's header without the prefix, for counters and messages.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Bytes of the record between the header and the names or data, in its newest form. On
            /// `/dev/fuse` nothing else says where the record ends; on a ring it lies apart.
            #[must_use]
            pub fn args_bytes(self) -> usize {
                match self { $(Self::$name => $args),* }
            }

            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
        const _: () = { $(assert!(($number as usize) < OPCODES);)* };
    };
}

opcodes! {
    /// Name to inode.
    Lookup = 1, "LOOKUP", 0;
    /// The kernel drops references; no reply.
    Forget = 2, "FORGET", size_of::<ForgetIn>();
    /// stat(2).
    Getattr = 3, "GETATTR", size_of::<GetattrIn>();
    /// chmod, chown, truncate, utimes.
    Setattr = 4, "SETATTR", size_of::<SetattrIn>();
    /// Target of a symbolic link.
    Readlink = 5, "READLINK", 0;
    /// New symbolic link.
    Symlink = 6, "SYMLINK", 0;
    /// New file that is not opened, or special file.
    Mknod = 8, "MKNOD", size_of::<MknodIn>();
    /// New directory.
    Mkdir = 9, "MKDIR", size_of::<MkdirIn>();
    /// Removes a name.
    Unlink = 10, "UNLINK", 0;
    /// Removes a directory.
    Rmdir = 11, "RMDIR", 0;
    /// rename(2) without flags.
    Rename = 12, "RENAME", size_of::<RenameIn>();
    /// One more name.
    Link = 13, "LINK", size_of::<LinkIn>();
    /// Opens a file that exists.
    Open = 14, "OPEN", size_of::<OpenIn>();
    /// Reads file data.
    Read = 15, "READ", size_of::<ReadIn>();
    /// Writes file data.
    Write = 16, "WRITE", size_of::<WriteIn>();
    /// statfs(2).
    Statfs = 17, "STATFS", 0;
    /// Last close of an open file.
    Release = 18, "RELEASE", size_of::<ReleaseIn>();
    /// fsync and fdatasync.
    Fsync = 20, "FSYNC", size_of::<FsyncIn>();
    /// Sets an extended attribute.
    Setxattr = 21, "SETXATTR", size_of::<SetxattrIn>();
    /// Value of an extended attribute.
    Getxattr = 22, "GETXATTR", size_of::<GetxattrIn>();
    /// Names of extended attributes.
    Listxattr = 23, "LISTXATTR", size_of::<GetxattrIn>();
    /// Removes an extended attribute.
    Removexattr = 24, "REMOVEXATTR", 0;
    /// Each close(2) of a file.
    Flush = 25, "FLUSH", size_of::<FlushIn>();
    /// Versions and features; the first request.
    Init = 26, "INIT", size_of::<InitIn>();
    /// Opens a directory.
    Opendir = 27, "OPENDIR", size_of::<OpenIn>();
    /// Names of a directory.
    Readdir = 28, "READDIR", size_of::<ReadIn>();
    /// Last close of a directory.
    Releasedir = 29, "RELEASEDIR", size_of::<ReleaseIn>();
    /// fsync of a directory.
    Fsyncdir = 30, "FSYNCDIR", size_of::<FsyncIn>();
    /// Who holds a lock.
    Getlk = 31, "GETLK", size_of::<LkIn>();
    /// Takes or drops a lock, does not wait.
    Setlk = 32, "SETLK", size_of::<LkIn>();
    /// Takes a lock, waits.
    Setlkw = 33, "SETLKW", size_of::<LkIn>();
    /// access(2) without `default_permissions`.
    Access = 34, "ACCESS", size_of::<AccessIn>();
    /// open(2) with `O_CREAT`.
    Create = 35, "CREATE", size_of::<CreateIn>();
    /// The caller of an earlier request got a signal.
    Interrupt = 36, "INTERRUPT", size_of::<InterruptIn>();
    /// Block of a file on a block device.
    Bmap = 37, "BMAP", size_of::<BmapIn>();
    /// Unmounted.
    Destroy = 38, "DESTROY", 0;
    /// ioctl(2).
    Ioctl = 39, "IOCTL", size_of::<IoctlIn>();
    /// poll(2).
    Poll = 40, "POLL", size_of::<PollIn>();
    /// Answer to a RETRIEVE notification; no reply.
    NotifyReply = 41, "NOTIFY_REPLY", size_of::<NotifyRetrieveIn>();
    /// Many FORGETs; no reply.
    BatchForget = 42, "BATCH_FORGET", size_of::<BatchForgetIn>();
    /// fallocate(2).
    Fallocate = 43, "FALLOCATE", size_of::<FallocateIn>();
    /// READDIR and LOOKUP of each name.
    Readdirplus = 44, "READDIRPLUS", size_of::<ReadIn>();
    /// renameat2(2) with flags.
    Rename2 = 45, "RENAME2", size_of::<Rename2In>();
    /// `SEEK_DATA` and `SEEK_HOLE`.
    Lseek = 46, "LSEEK", size_of::<LseekIn>();
    /// copy_file_range(2).
    CopyFileRange = 47, "COPY_FILE_RANGE", size_of::<CopyFileRangeIn>();
    /// syncfs(2), where the kernel passes it on.
    Syncfs = 50, "SYNCFS", size_of::<SyncfsIn>();
    /// open(2) with `O_TMPFILE`.
    Tmpfile = 51, "TMPFILE", size_of::<CreateIn>();
    /// statx(2) that wants more than GETATTR gives.
    Statx = 52, "STATX", size_of::<StatxIn>();
    /// copy_file_range(2) with a 64-bit answer.
    CopyFileRange64 = 53, "COPY_FILE_RANGE_64", size_of::<CopyFileRangeIn>();
}

/// What a notification (`error` of its header) says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum NotifyCode {
    /// Wakes pollers.
    Poll = 1,
    /// Drops cached attributes and data of an inode.
    InvalInode = 2,
    /// Drops a cached name, or lets it expire.
    InvalEntry = 3,
    /// Puts data into the page cache.
    Store = 4,
    /// Asks for data of the page cache.
    Retrieve = 5,
    /// A name was removed elsewhere.
    Delete = 6,
    /// Send all unanswered requests again (7.40).
    Resend = 7,
    /// Every cached name of the mount is stale (7.44).
    IncEpoch = 8,
    /// Evict these inodes if nobody uses them (7.45).
    Prune = 9,
}

#[cfg(test)]
mod tests {
    use super::Opcode;

    #[test]
    fn every_opcode_is_found_by_its_number_and_no_other_number_is() {
        for &op in Opcode::ALL {
            assert_eq!(Opcode::from_raw(op as u32), Some(op));
        }
        for raw in [0, 7, 19, 48, 49, 54, 4096, u32::MAX] {
            assert_eq!(Opcode::from_raw(raw), None, "{raw}");
        }
    }
}
