//! The records, in the order of the kernel's header. Every size is checked against the C compiler's.
#![allow(missing_docs, reason = "fields carry the names of include/uapi/linux/fuse.h, which documents them")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Defines records without padding bytes (zerocopy refuses those) and checks their size.
macro_rules! records {
    ($($(#[$meta:meta])* $name:ident: $bytes:literal { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $(pub $field: $kind),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
        impl Default for $name {
            fn default() -> Self { <Self as zerocopy::FromZeros>::new_zeroed() }
        }
    )*};
}

records! {
    /// Stands before every request.
    InHeader: 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// Stands before every reply and, with `unique` 0 and a notify code in `error`, every notification.
    OutHeader: 16 { len: u32, error: i32, unique: u64 }

    /// Attributes of an inode.
    FuseAttr: 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// Answer to STATFS.
    Kstatfs: 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// A range and a kind of lock.
    FileLock: 24 { start: u64, end: u64, kind: u32, pid: u32 }
    /// One time of STATX.
    StatxTime: 16 { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    /// Attributes as statx(2) has them.
    Statx: 256 {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
        ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }

    /// INIT. Before `INIT_EXT` only the first 16 bytes come.
    InitIn: 64 { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
    /// Answer to INIT.
    InitOut: 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_gran: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }

    /// Answer to LOOKUP, MKNOD, MKDIR, SYMLINK, LINK; first part of CREATE's and TMPFILE's.
    EntryOut: 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: FuseAttr,
    }
    /// FORGET.
    ForgetIn: 8 { nlookup: u64 }
    /// One element of BATCH_FORGET.
    ForgetOne: 16 { nodeid: u64, nlookup: u64 }
    /// BATCH_FORGET; `count` times [`ForgetOne`] follow.
    BatchForgetIn: 8 { count: u32, dummy: u32 }
    /// GETATTR.
    GetattrIn: 16 { getattr_flags: u32, dummy: u32, fh: u64 }
    /// Answer to GETATTR and SETATTR.
    AttrOut: 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: FuseAttr }
    /// STATX.
    StatxIn: 24 { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    /// Answer to STATX.
    StatxOut: 288 { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx }
    /// MKNOD; a name follows.
    MknodIn: 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// MKDIR; a name follows.
    MkdirIn: 8 { mode: u32, umask: u32 }
    /// RENAME; two names follow.
    RenameIn: 8 { newdir: u64 }
    /// RENAME2; two names follow.
    Rename2In: 16 { newdir: u64, flags: u32, padding: u32 }
    /// LINK; a name follows.
    LinkIn: 8 { oldnodeid: u64 }
    /// SETATTR.
    SetattrIn: 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// OPEN and OPENDIR.
    OpenIn: 8 { flags: u32, open_flags: u32 }
    /// CREATE and TMPFILE; a name follows.
    CreateIn: 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// Answer to OPEN and OPENDIR; second part of CREATE's and TMPFILE's.
    OpenOut: 16 { fh: u64, open_flags: u32, backing_id: i32 }
    /// Answer to CREATE and TMPFILE.
    CreateOut: 144 { entry: EntryOut, open: OpenOut }
    /// RELEASE and RELEASEDIR.
    ReleaseIn: 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// FLUSH.
    FlushIn: 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// READ, READDIR and READDIRPLUS.
    ReadIn: 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// WRITE; `size` bytes follow.
    WriteIn: 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// Answer to WRITE and COPY_FILE_RANGE.
    WriteOut: 8 { size: u32, padding: u32 }
    /// FSYNC and FSYNCDIR.
    FsyncIn: 16 { fh: u64, fsync_flags: u32, padding: u32 }
    /// SETXATTR; a name and `size` bytes follow. Without `SETXATTR_EXT` only the first 8 bytes come.
    SetxattrIn: 16 { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    /// GETXATTR (a name follows) and LISTXATTR.
    GetxattrIn: 8 { size: u32, padding: u32 }
    /// Answer to GETXATTR and LISTXATTR that asked for the size.
    GetxattrOut: 8 { size: u32, padding: u32 }
    /// GETLK, SETLK and SETLKW.
    LkIn: 48 { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 }
    /// Answer to GETLK.
    LkOut: 24 { lk: FileLock }
    /// ACCESS.
    AccessIn: 8 { mask: u32, padding: u32 }
    /// INTERRUPT.
    InterruptIn: 8 { unique: u64 }
    /// BMAP.
    BmapIn: 16 { block: u64, blocksize: u32, padding: u32 }
    /// Answer to BMAP.
    BmapOut: 8 { block: u64 }
    /// IOCTL; `in_size` bytes follow.
    IoctlIn: 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    /// Answer to IOCTL; data follows.
    IoctlOut: 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// POLL.
    PollIn: 24 { fh: u64, kh: u64, flags: u32, events: u32 }
    /// Answer to POLL.
    PollOut: 8 { revents: u32, padding: u32 }
    /// FALLOCATE.
    FallocateIn: 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// LSEEK.
    LseekIn: 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// Answer to LSEEK.
    LseekOut: 8 { offset: u64 }
    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64.
    CopyFileRangeIn: 56 { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    /// Answer to COPY_FILE_RANGE_64.
    CopyFileRangeOut: 8 { bytes_copied: u64 }
    /// SYNCFS.
    SyncfsIn: 8 { padding: u64 }

    /// Stands before each name in a READDIR reply.
    Dirent: 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// Stands before each name in a READDIRPLUS reply.
    Direntplus: 152 { entry: EntryOut, dirent: Dirent }

    /// Stands before each extension of a request.
    ExtHeader: 8 { size: u32, kind: u32 }
    /// Extension: groups of the caller that matter for a create; `nr_groups` times `u32` follow.
    SuppGroups: 4 { nr_groups: u32 }
    /// Extension: stands before the security contexts. Has the place of an [`ExtHeader`].
    SecctxHeader: 8 { size: u32, nr_secctx: u32 }
    /// One security context; its attribute's name and `size` bytes follow.
    Secctx: 8 { size: u32, padding: u32 }

    /// NOTIFY_POLL.
    NotifyPollWakeupOut: 8 { kh: u64 }
    /// NOTIFY_INVAL_INODE. Negative `off`: attributes only; `len` 0 or less: to the end.
    NotifyInvalInodeOut: 24 { ino: u64, off: i64, len: i64 }
    /// NOTIFY_INVAL_ENTRY; a name and a NUL follow.
    NotifyInvalEntryOut: 16 { parent: u64, namelen: u32, flags: u32 }
    /// NOTIFY_DELETE; a name and a NUL follow.
    NotifyDeleteOut: 24 { parent: u64, child: u64, namelen: u32, padding: u32 }
    /// NOTIFY_STORE; `size` bytes follow.
    NotifyStoreOut: 24 { nodeid: u64, offset: u64, size: u32, padding: u32 }
    /// NOTIFY_RETRIEVE.
    NotifyRetrieveOut: 32 { notify_unique: u64, nodeid: u64, offset: u64, size: u32, padding: u32 }
    /// NOTIFY_REPLY, the request that answers NOTIFY_RETRIEVE; data follows.
    NotifyRetrieveIn: 40 { dummy1: u64, offset: u64, size: u32, dummy2: u32, dummy3: u64, dummy4: u64 }
    /// NOTIFY_PRUNE; `count` times a `u64` node id follow.
    NotifyPruneOut: 16 { count: u32, padding: u32, spare: u64 }
    /// Argument of the ioctl that opens a backing file for passthrough.
    BackingMap: 16 { fd: i32, flags: u32, padding: u64 }
}
