//! One request in the hands of the handler, and the ways to answer it.
//!
//! In: memory lent by a queue, with a request in it. Out: an [`Outcome`] that tells the queue what lies in that
//! memory now. Request and reply share the memory, so every answer consumes the [`Call`]: nothing read from
//! the request can still be borrowed. A call or token that is dropped answers EIO, so no caller hangs.

use super::channel::{Channel, ClassicLease};
use super::counters::QueueCounters;
use super::lent::Lent;
use super::uring::{GROWTH_MAX, RingLease, Seat};
use crate::base::{Caller, Errno, Ino};
use crate::kernel::abi::{InHeader, Opcode, SetxattrIn};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Proof that a call was answered, deferred or needs no answer. Made by [`Call`] only.
#[must_use]
#[derive(Debug)]
pub struct Verdict(());

/// Where in the lent memory things lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The operation's record.
    pub(super) args: Range<usize>,
    /// Names and data.
    pub(super) payload: Range<usize>,
    /// Start of the reply's body, which may reach to the end of the memory.
    pub(super) reply_at: usize,
}

/// What became of a call. The queue acts on this, never on the [`Verdict`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Nothing yet.
    Pending,
    /// A reply with this errno (0: none) and this many bytes of body in the memory.
    Reply { error: i32, bytes: usize },
    /// A token owns the memory or, on `/dev/fuse`, the duty to answer.
    Deferred,
    /// No reply.
    NoReply,
}

/// Where a call came from: what a token needs.
pub(super) enum Origin<'q> {
    /// An entry of a ring.
    Ring(Seat<'q>),
    /// A read of `/dev/fuse`.
    Classic(&'q Arc<Channel>),
}

/// One request.
pub struct Call<'q> {
    pub(super) header: InHeader,
    pub(super) memory: Lent<'q>,
    pub(super) layout: Layout,
    pub(super) origin: Origin<'q>,
    pub(super) outcome: &'q mut Outcome,
    pub(super) counters: &'q Arc<QueueCounters>,
    pub(super) thread: usize,
}

impl Call<'_> {
    /// The kernel's header.
    #[must_use]
    pub fn header(&self) -> &InHeader {
        &self.header
    }

    /// What is asked for. Unknown operations never reach a handler.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        Opcode::from_raw(self.header.opcode).unwrap_or(Opcode::Destroy)
    }

    /// Number of the request, as INTERRUPT names it.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.header.unique
    }

    /// The inode it is about.
    #[must_use]
    pub fn node(&self) -> Ino {
        Ino(self.header.nodeid)
    }

    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { uid: self.header.uid, gid: self.header.gid, pid: self.header.pid }
    }

    /// Number of the thread this runs on, from 0, below [`super::Negotiated::threads`]: for what is kept per core.
    #[must_use]
    pub fn thread(&self) -> usize {
        self.thread
    }

    /// The operation's record.
    ///
    /// # Errors
    /// `EINVAL` if the kernel sent fewer bytes. Only SETXATTR's has two lengths; the rest is 0 then.
    pub fn args<T: Args>(&self) -> Result<T, Errno> {
        let bytes = self.args_bytes();
        if bytes.len() < T::BYTES_MIN {
            return Err(Errno::EINVAL);
        }
        let mut record = T::new_zeroed();
        let n = bytes.len().min(size_of::<T>());
        record.as_mut_bytes()[..n].copy_from_slice(&bytes[..n]);
        Ok(record)
    }

    /// The operation's record as bytes, for [`crate::kernel::decode::Request::parse`].
    #[must_use]
    pub fn args_bytes(&self) -> &[u8] {
        &self.memory.bytes()[self.layout.args.clone()]
    }

    /// What follows the record: names, data, extensions.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.memory.bytes()[self.layout.payload.clone()]
    }

    /// Bytes a reply may have at most.
    #[must_use]
    pub fn reply_bytes_max(&self) -> usize {
        self.memory.len() - self.layout.reply_at
    }

    /// Answers with a small reply that was built elsewhere.
    pub fn ok(self, bytes: &[u8]) -> Verdict {
        self.ok_parts(&[bytes])
    }

    /// Answers with a reply in several parts.
    pub fn ok_parts(self, parts: &[&[u8]]) -> Verdict {
        self.reply_with(usize::MAX, |body| gather(body, parts))
    }

    /// Answers no.
    pub fn error(self, errno: Errno) -> Verdict {
        *self.outcome = Outcome::Reply { error: errno.raw(), bytes: 0 };
        Verdict(())
    }

    /// Answers with what `fill` writes into the reply in place: up to `max` bytes, of which it says how many count.
    /// What stands there before is of no meaning.
    pub fn reply_with(mut self, max: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Verdict {
        let body = &mut self.memory.bytes_mut()[self.layout.reply_at..];
        let n = max.min(body.len());
        *self.outcome = Outcome::of(fill(&mut body[..n]), n);
        Verdict(())
    }

    /// Leaves the answer to a token, which may be used on any thread, at any time. What is needed of the
    /// request must have been copied out. A queue whose entries are all deferred takes no further requests.
    pub fn defer(mut self) -> (Token, Verdict) {
        self.counters.deferred();
        let back = match &mut self.origin {
            Origin::Ring(seat) => Back::Ring(seat.lease(self.header.unique)),
            Origin::Classic(channel) => {
                Back::Classic(ClassicLease::new(channel, self.header.unique, self.memory.len()))
            }
        };
        *self.outcome = Outcome::Deferred;
        (Token { unique: self.header.unique, back: Some(back), wait: None }, Verdict(()))
    }

    /// As [`Call::defer`], for what may wait without a bound, such as a lock. Over [`WAITS_MAX`] of one thread the answer is
    /// ENOLCK and there is no token: those that wait must leave entries to the requests that end their wait.
    pub fn defer_wait(self) -> (Option<Token>, Verdict) {
        let Some(wait) = Wait::begin(self.counters) else { return (None, self.error(Errno::ENOLCK)) };
        let (mut token, verdict) = self.defer();
        token.wait = Some(wait);
        (Some(token), verdict)
    }

    /// For the one operation that has no reply, NOTIFY_REPLY. Any other is answered EIO.
    pub fn no_reply(self) -> Verdict {
        *self.outcome = match self.opcode() {
            Opcode::NotifyReply => Outcome::NoReply,
            _ => Outcome::Reply { error: Errno::EIO.raw(), bytes: 0 },
        };
        Verdict(())
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if *self.outcome == Outcome::Pending {
            self.counters.dropped();
            *self.outcome = Outcome::Reply { error: Errno::EIO.raw(), bytes: 0 };
        }
    }
}

impl Outcome {
    /// The outcome of filling a body of `room` bytes. To claim more than that is a bug of the handler, and EIO.
    pub(super) fn of(filled: Result<usize, Errno>, room: usize) -> Self {
        match filled {
            Ok(bytes) if bytes <= room => Self::Reply { error: 0, bytes },
            Ok(_) => Self::Reply { error: Errno::EIO.raw(), bytes: 0 },
            Err(errno) => Self::Reply { error: errno.raw(), bytes: 0 },
        }
    }
}

/// Copies `parts` one after the other into `body`.
fn gather(body: &mut [u8], parts: &[&[u8]]) -> Result<usize, Errno> {
    let mut at = 0;
    for part in parts {
        body.get_mut(at..at + part.len()).ok_or(Errno::EIO)?.copy_from_slice(part);
        at += part.len();
    }
    Ok(at)
}

/// A record that can be read from a request.
pub trait Args: FromBytes + IntoBytes + Immutable + Sized {
    /// Fewest bytes it may come in.
    const BYTES_MIN: usize = size_of::<Self>();
}

macro_rules! args {
    ($($name:ident),*) => { $(impl Args for crate::kernel::abi::$name {})* };
}

args! {
    AccessIn, BmapIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, FsyncIn, GetattrIn, GetxattrIn, IoctlIn,
    LinkIn, LkIn, LseekIn, MkdirIn, MknodIn, NotifyRetrieveIn, OpenIn, PollIn, ReadIn, ReleaseIn, Rename2In,
    RenameIn, SetattrIn, StatxIn, SyncfsIn, WriteIn
}

impl Args for SetxattrIn {
    const BYTES_MIN: usize = 8;
}

/// The duty to answer one deferred request. Dropped without an answer it replies EIO and counts.
#[derive(Debug)]
pub struct Token {
    unique: u64,
    back: Option<Back>,
    /// Only held: what counts is its drop.
    wait: Option<Wait>,
}

/// Waits of one thread that may be under way at a time: as many as entries that its queues get beyond those of the start.
pub const WAITS_MAX: usize = GROWTH_MAX;

/// One wait under way.
#[derive(Debug)]
struct Wait(Arc<QueueCounters>);

impl Wait {
    fn begin(counters: &Arc<QueueCounters>) -> Option<Self> {
        counters.wait_began(WAITS_MAX).then(|| Self(Arc::clone(counters)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.wait_ended();
    }
}

#[derive(Debug)]
enum Back {
    Ring(RingLease),
    Classic(ClassicLease),
}

impl Token {
    /// Number of the request, as INTERRUPT names it.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Answers with `bytes`.
    pub fn ok(self, bytes: &[u8]) {
        self.ok_parts(&[bytes]);
    }

    /// Answers with a reply in several parts.
    pub fn ok_parts(mut self, parts: &[&[u8]]) {
        match self.back.take() {
            Some(Back::Ring(lease)) => lease.fill(usize::MAX, |body| gather(body, parts)),
            // One writev(2): the parts need not be put together first.
            Some(Back::Classic(lease)) => lease.send(Ok(()), parts),
            None => {}
        }
    }

    /// Answers no.
    pub fn error(mut self, errno: Errno) {
        self.finish(errno);
    }

    /// Answers with what `fill` writes into the reply in place: up to `max` bytes, of which it says how many count.
    ///
    /// # Panics
    /// If `fill` does, after answering EIO.
    pub fn reply_with(mut self, max: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) {
        let mut panic = None;
        // The caller must have its answer in any case, so a panic goes on only after it.
        let guarded = |body: &mut [u8]| {
            catch_unwind(AssertUnwindSafe(|| fill(body))).unwrap_or_else(|payload| {
                panic = Some(payload);
                Err(Errno::EIO)
            })
        };
        match self.back.take() {
            Some(Back::Ring(lease)) => lease.fill(max, guarded),
            Some(Back::Classic(lease)) => lease.fill(max, guarded),
            None => {}
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn finish(&mut self, errno: Errno) {
        match self.back.take() {
            Some(Back::Ring(lease)) => lease.fill(0, |_| Err(errno)),
            Some(Back::Classic(lease)) => lease.send(Err(errno), &[]),
            None => {}
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        match &self.back {
            Some(Back::Ring(lease)) => lease.count_dropped(),
            Some(Back::Classic(lease)) => lease.count_dropped(),
            None => return,
        }
        self.finish(Errno::EIO);
    }
}
