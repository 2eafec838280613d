//! Notifications: what the server tells the kernel unasked.
//!
//! They are written by a thread of their own (R4.6): the kernel may need a lock for one that the caller of an
//! unanswered request holds, and then the write waits for that answer. A thread that answers requests must
//! therefore never write one, nor wait for one. The queue is bounded; when it is full the notification is refused
//! and the caller decides.

use super::channel::Channel;
use crate::base::{Errno, Ino, Name, NameBuf};
use crate::kernel::abi::{
    NotifyDeleteOut, NotifyInvalEntryOut, NotifyInvalInodeOut, NotifyPollWakeupOut, NotifyPruneOut,
    NotifyRetrieveOut, NotifyStoreOut, OutHeader, flags::EXPIRE_ONLY, opcode::NotifyCode,
};
use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use zerocopy::IntoBytes;

/// Notifications that may wait. A recall of a directory with more names drops the directory instead.
pub const NOTICES_MAX: usize = 16_384;

/// Inodes in one [`Notice::Prune`].
pub const PRUNE_MAX: usize = 512;

/// One notification.
#[derive(Debug)]
#[allow(missing_docs, reason = "the variants' comments name every field")]
pub enum Notice {
    /// Drop cached data from `offset` on for `len` bytes (0 or less: to the end) and cached attributes. A negative
    /// `offset`: attributes only. Waits for locked pages, and writes dirty mapped ones back first.
    InvalInode { ino: Ino, offset: i64, len: i64 },
    /// Drop a cached name. Takes the directory's lock.
    InvalEntry { parent: Ino, name: NameBuf },
    /// Let a cached name expire: it is looked up again at its next use (7.38, `HAS_EXPIRE_ONLY`).
    ExpireEntry { parent: Ino, name: NameBuf },
    /// A name was removed elsewhere: drops it even where `InvalEntry` would not, and tells watchers.
    Delete { parent: Ino, child: Ino, name: NameBuf },
    /// Put data into the page cache.
    Store { ino: Ino, offset: u64, data: Box<[u8]> },
    /// Ask for data of the page cache; it comes as NOTIFY_REPLY with this `unique`.
    Retrieve { unique: u64, ino: Ino, offset: u64, size: u32 },
    /// Wake those who poll this handle (`kh` of POLL).
    PollWakeup { kh: u64 },
    /// Send all unanswered requests again (7.40, `HAS_RESEND`).
    Resend,
    /// Every cached name of the mount is stale; takes no directory's lock (7.44, Linux 6.16).
    IncEpoch,
    /// Evict these inodes if nobody uses them; at most [`PRUNE_MAX`] (7.45, Linux 6.18).
    Prune { inos: Box<[Ino]> },
}

/// Is called when the kernel has done what a notification says, or has refused: `ENOENT` when it had nothing cached, which
/// is as good; `ENODEV` when the mount ended before. Once for each notification that was queued, on the notifier's thread
/// (at the end of the mount also on one that drops the last notifier).
pub type Completion = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// Why a notification was not queued. Its completion is not called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// [`NOTICES_MAX`] are waiting.
    #[error("too many notifications wait for the kernel")]
    Full,
    /// The mount has ended.
    #[error("the mount is gone")]
    Gone,
}

/// A completion that is called even if nobody gets to its notification.
struct Owed(Option<Completion>);

impl Owed {
    fn pay(mut self, result: Result<(), Errno>) {
        if let Some(completion) = self.0.take() {
            completion(result);
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(completion) = self.0.take() {
            completion(Err(Errno::ENODEV));
        }
    }
}

/// What waits in the queue.
enum Item {
    Notice(Notice, Owed),
    /// The mount is gone.
    Stop,
}

/// Sends notifications; clones share one queue and one order.
#[derive(Clone)]
pub struct Notifier {
    queue: SyncSender<Item>,
    /// The mount is gone. A full queue has no room to say so, and a cut connection still takes some notifications.
    over: Arc<AtomicBool>,
    counters: Arc<super::counters::SharedCounters>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    /// The notifier of a channel and its work, to be run on a thread of its own.
    pub(super) fn new(channel: Arc<Channel>) -> (Self, NotifierWork) {
        let (queue, notices) = sync_channel(NOTICES_MAX);
        let over = Arc::new(AtomicBool::new(false));
        let work = NotifierWork { channel, notices, over: Arc::clone(&over) };
        (Self { queue, over, counters: work.channel.counters().clone() }, work)
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Release);
        // Only to wake the thread; with a full queue it is awake.
        let _ = self.queue.try_send(Item::Stop);
    }

    /// Queues a notification. Never blocks.
    ///
    /// # Errors
    /// [`Refused`]: nothing was queued.
    pub fn send(&self, notice: Notice, completion: Option<Completion>) -> Result<(), Refused> {
        if self.over.load(Ordering::Acquire) {
            self.counters.notice_refused();
            return Err(Refused::Gone);
        }
        self.queue.try_send(Item::Notice(notice, Owed(completion))).map_err(|refused| {
            self.counters.notice_refused();
            let (item, why) = match refused {
                TrySendError::Full(item) => (item, Refused::Full),
                TrySendError::Disconnected(item) => (item, Refused::Gone),
            };
            if let Item::Notice(_, mut owed) = item {
                owed.0 = None;
            }
            why
        })
    }

    /// [`Notice::InvalInode`], without a completion.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub fn inval_inode(&self, ino: Ino, offset: i64, len: i64) -> Result<(), Refused> {
        self.send(Notice::InvalInode { ino, offset, len }, None)
    }

    /// [`Notice::InvalEntry`], without a completion.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub fn inval_entry(&self, parent: Ino, name: Name<'_>) -> Result<(), Refused> {
        self.send(Notice::InvalEntry { parent, name: name.to_buf() }, None)
    }

    /// [`Notice::ExpireEntry`], without a completion.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub fn expire_entry(&self, parent: Ino, name: Name<'_>) -> Result<(), Refused> {
        self.send(Notice::ExpireEntry { parent, name: name.to_buf() }, None)
    }

    /// [`Notice::Delete`], without a completion.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub fn delete(&self, parent: Ino, child: Ino, name: Name<'_>) -> Result<(), Refused> {
        self.send(Notice::Delete { parent, child, name: name.to_buf() }, None)
    }

    /// [`Notice::IncEpoch`], without a completion.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub fn inc_epoch(&self) -> Result<(), Refused> {
        self.send(Notice::IncEpoch, None)
    }
}

/// The thread's side of a [`Notifier`].
pub(super) struct NotifierWork {
    channel: Arc<Channel>,
    notices: Receiver<Item>,
    over: Arc<AtomicBool>,
}

impl NotifierWork {
    /// Writes notifications until the mount is gone or every notifier is. What waits then is dropped, which calls its
    /// completions.
    pub(super) fn run(self) {
        while let Ok(Item::Notice(notice, completion)) = self.notices.recv() {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let result = write(&self.channel, &notice);
            self.channel.counters().notice();
            completion.pay(result.map_err(Errno::from));
            if matches!(result, Err(nix::errno::Errno::ENODEV | nix::errno::Errno::ENOTCONN)) {
                return;
            }
        }
    }
}

fn write(channel: &Channel, notice: &Notice) -> nix::Result<()> {
    let nul: &[u8] = b"\0";
    let entry = |parent: Ino, name: &NameBuf, flags| NotifyInvalEntryOut {
        parent: parent.0,
        namelen: length(name.as_name().bytes()),
        flags,
    };
    match notice {
        Notice::InvalInode { ino, offset, len } => {
            let out = NotifyInvalInodeOut { ino: ino.0, off: *offset, len: *len };
            write_parts(channel, NotifyCode::InvalInode, &[out.as_bytes()])
        }
        Notice::InvalEntry { parent, name } => {
            let out = entry(*parent, name, 0);
            write_parts(channel, NotifyCode::InvalEntry, &[out.as_bytes(), name.as_name().bytes(), nul])
        }
        Notice::ExpireEntry { parent, name } => {
            let out = entry(*parent, name, EXPIRE_ONLY);
            write_parts(channel, NotifyCode::InvalEntry, &[out.as_bytes(), name.as_name().bytes(), nul])
        }
        Notice::Delete { parent, child, name } => {
            let namelen = length(name.as_name().bytes());
            let out = NotifyDeleteOut { parent: parent.0, child: child.0, namelen, padding: 0 };
            write_parts(channel, NotifyCode::Delete, &[out.as_bytes(), name.as_name().bytes(), nul])
        }
        Notice::Store { ino, offset, data } => {
            let out = NotifyStoreOut { nodeid: ino.0, offset: *offset, size: length(data), padding: 0 };
            write_parts(channel, NotifyCode::Store, &[out.as_bytes(), data])
        }
        Notice::Retrieve { unique, ino, offset, size } => {
            let (nodeid, offset) = (ino.0, *offset);
            let out = NotifyRetrieveOut { notify_unique: *unique, nodeid, offset, size: *size, padding: 0 };
            write_parts(channel, NotifyCode::Retrieve, &[out.as_bytes()])
        }
        Notice::PollWakeup { kh } => {
            write_parts(channel, NotifyCode::Poll, &[NotifyPollWakeupOut { kh: *kh }.as_bytes()])
        }
        Notice::Resend => write_parts(channel, NotifyCode::Resend, &[]),
        Notice::IncEpoch => write_parts(channel, NotifyCode::IncEpoch, &[]),
        Notice::Prune { inos } => {
            let inos: Vec<u64> = inos.iter().take(PRUNE_MAX).map(|ino| ino.0).collect();
            let out = NotifyPruneOut { count: length(&inos), padding: 0, spare: 0 };
            write_parts(channel, NotifyCode::Prune, &[out.as_bytes(), inos.as_bytes()])
        }
    }
}

/// A length that is known to be small: a name, or what [`write_parts`] checks.
fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn write_parts(channel: &Channel, code: NotifyCode, parts: &[&[u8]]) -> nix::Result<()> {
    let bytes = size_of::<OutHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
    let len = u32::try_from(bytes).map_err(|_| nix::errno::Errno::EINVAL)?;
    let header = OutHeader { len, error: code as i32, unique: 0 };
    let mut slices = [IoSlice::new(&[]); 4];
    slices[0] = IoSlice::new(header.as_bytes());
    for (slice, part) in slices[1..].iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    channel.write_parts(&slices[..=parts.len()])
}
