//! What a user of the transport implements, and what both sides agree on at INIT.

use super::{Call, Kind, Notifier, Verdict};
use crate::base::{Ino, limits};
use crate::kernel::abi::InitFlags;

/// Answers the requests of one mount.
///
/// All methods are called on the transport's threads, in parallel, and must not block: on a ring a blocked
/// thread stops every program that runs on its core. What takes time is deferred ([`Call::defer`]).
/// A panic in [`Handler::handle`] is caught and answered EIO.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, now or later. INIT, DESTROY, FORGET, BATCH_FORGET and INTERRUPT do not come here,
    /// nor do operations that [`crate::kernel::abi::Opcode`] does not know: those are answered ENOSYS.
    fn handle(&self, call: Call<'_>) -> Verdict;

    /// The kernel drops `lookups` of the references that entries in replies gave it.
    fn forget(&self, ino: Ino, lookups: u64);

    /// The caller of request `unique` got a signal. If it is a deferred one, it should be answered soon,
    /// with `EINTR` unless it is done. A number that is not known is not an error: the two may cross.
    fn interrupt(&self, unique: u64);

    /// Which optional features are wanted, of those the kernel offers. Called once, before anything else.
    fn init(&self, offered: &Offered) -> Wanted;

    /// What is in force. Called once, before the first request. `notifier` works until the mount ends.
    fn started(&self, negotiated: &Negotiated, notifier: Notifier) {
        let _ = (negotiated, notifier);
    }

    /// The mount is gone: no further call of any method. Called once.
    fn destroyed(&self) {}
}

/// What the kernel says in INIT.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// Minor version of its protocol; the major one is 7.
    pub minor: u32,
    /// What it can do.
    pub flags: InitFlags,
    /// Its default readahead, in bytes.
    pub max_readahead: u32,
}

/// What the handler wants. Flags that were not offered are dropped, numbers are brought into their range.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Optional features. Those about the transport itself are set by it: `INIT_EXT`, `MAX_PAGES`,
    /// `BIG_WRITES`, `OVER_IO_URING`, `ABORT_ERROR`, and none about splicing or DAX.
    pub flags: InitFlags,
    /// Largest WRITE and READ, in bytes; between [`IO_BYTES_MIN`] and [`limits::IO_BYTES_MAX`].
    pub max_write: u32,
    /// Largest readahead, in bytes; at most what was offered.
    pub max_readahead: u32,
    /// Requests nobody waits for (readahead, RELEASE) that may be out at a time.
    pub max_background: u16,
    /// Granularity of times, in nanoseconds; 1 for a server that keeps them whole.
    pub time_gran: u32,
    /// With `PASSTHROUGH`: how deep stacks of file systems below may be.
    pub max_stack_depth: u32,
    /// With `REQUEST_TIMEOUT`: seconds after which the kernel gives up on the mount; 0 for never.
    pub request_timeout: u16,
}

/// Smallest [`Wanted::max_write`]: an extended attribute and a page of a listing must fit one reply.
pub const IO_BYTES_MIN: u32 = 128 << 10;

impl Default for Wanted {
    /// The features that cost nothing and suit any server: parallel lookups and reads, large requests.
    fn default() -> Self {
        Self {
            flags: InitFlags::ASYNC_READ
                .with(InitFlags::PARALLEL_DIROPS)
                .with(InitFlags::ASYNC_DIO)
                .with(InitFlags::ATOMIC_O_TRUNC)
                .with(InitFlags::AUTO_INVAL_DATA)
                .with(InitFlags::HANDLE_KILLPRIV_V2),
            #[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
            max_write: limits::IO_BYTES_MAX as u32,
            max_readahead: u32::MAX,
            // The kernel's default of 12 lets readahead of one file stall that of the others.
            max_background: 64,
            time_gran: 1,
            max_stack_depth: 0,
            request_timeout: 0,
        }
    }
}

/// What is in force after INIT.
#[derive(Clone, Copy, Debug)]
pub struct Negotiated {
    /// Minor version both sides speak.
    pub minor: u32,
    /// Features in force.
    pub flags: InitFlags,
    /// Largest WRITE, in bytes.
    pub max_write: u32,
    /// Largest readahead, in bytes.
    pub max_readahead: u32,
    /// The transport. It can still become [`Kind::Ring`] or [`Kind::Blocking`] if the kernel refuses the queues after INIT.
    pub kind: Kind,
    /// [`Call::thread`] is always below this number.
    pub threads: usize,
}
