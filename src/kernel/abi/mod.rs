//! The kernel's side of FUSE as bytes: records, opcodes and flags up to protocol 7.45 (Linux 6.18).
//!
//! In: nothing. Out: `#[repr(C)]` records that can be read from and written to a buffer in place, and the
//! numbers that go into them. Source: `include/uapi/linux/fuse.h`; the records keep the names of its fields.
//! Absent on purpose: CUSE, DAX mappings, and the forms records had before protocol 7.32 (Linux 5.10),
//! since nothing older is served.
#![forbid(unsafe_code)]

pub mod flags;
pub mod opcode;
pub mod records;
pub mod ring;

pub use flags::InitFlags;
pub use opcode::Opcode;
pub use records::{
    AccessIn, AttrOut, BackingMap, BatchForgetIn, BmapIn, BmapOut, CopyFileRangeIn, CopyFileRangeOut,
    CreateIn, CreateOut, Dirent, Direntplus, EntryOut, ExtHeader, FallocateIn, FileLock, FlushIn, ForgetIn,
    ForgetOne, FsyncIn, FuseAttr, GetattrIn, GetxattrIn, GetxattrOut, InHeader, InitIn, InitOut, InterruptIn,
    IoctlIn, IoctlOut, Kstatfs, LinkIn, LkIn, LkOut, LseekIn, LseekOut, MkdirIn, MknodIn, NotifyDeleteOut,
    NotifyInvalEntryOut, NotifyInvalInodeOut, NotifyPollWakeupOut, NotifyPruneOut, NotifyRetrieveIn,
    NotifyRetrieveOut, NotifyStoreOut, OpenIn, OpenOut, OutHeader, PollIn, PollOut, ReadIn, ReleaseIn,
    Rename2In, RenameIn, Secctx, SecctxHeader, SetattrIn, SetxattrIn, Statx, StatxIn, StatxOut, StatxTime,
    SuppGroups, SyncfsIn, WriteIn, WriteOut,
};

/// Major version of the protocol. A kernel with another one is asked to speak this one.
pub const MAJOR: u32 = 7;

/// Newest minor version this crate knows (Linux 6.18).
pub const MINOR: u32 = 45;

/// Oldest minor version served (Linux 5.10).
pub const MINOR_OLDEST: u32 = 32;

/// The kernel refuses a read(2) of `/dev/fuse` with a smaller buffer (`FUSE_MIN_READ_BUFFER`).
pub const READ_BUFFER_BYTES_MIN: usize = 8192;

/// Most bytes of headers, records and names that come before the data of a WRITE. The kernel asks for
/// room of one page besides `max_write`.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Number of the `ioctl`s of `/dev/fuse` (`FUSE_DEV_IOC_MAGIC`).
pub const IOCTL_MAGIC: u8 = 229;
/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, u32)`, joins an open `/dev/fuse` to the connection of another.
pub const IOCTL_CLONE: u8 = 0;
/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, BackingMap)`.
pub const IOCTL_BACKING_OPEN: u8 = 1;
/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, u32)`.
pub const IOCTL_BACKING_CLOSE: u8 = 2;
/// `FUSE_DEV_IOC_SYNC_INIT`: `_IO(229, 3)`, mount(2) waits for INIT (Linux 6.18).
pub const IOCTL_SYNC_INIT: u8 = 3;

/// Set in the `unique` of requests sent again after `NOTIFY_RESEND` (`FUSE_UNIQUE_RESEND`).
pub const UNIQUE_RESEND: u64 = 1 << 63;

/// `unique` values are even; the odd neighbour names an INTERRUPT request (`FUSE_INT_REQ_BIT`).
pub const UNIQUE_INTERRUPT: u64 = 1;

/// Dirents, direntpluses and extensions start at multiples of this (`FUSE_REC_ALIGN`).
pub const RECORD_ALIGN: usize = 8;
