//! The memory one queue thread lends to the kernel, and how a late reply finds its way back to that thread.
//!
//! Each entry is one stretch of the mapping: a header page, then the payload. At any moment an entry belongs to one
//! of three: the kernel (from a commit until its completion), the queue thread (from then until the next commit), or
//! one [`RingLease`] (from [`Seat::lease`] until the lease gives it back through the list of finished entries).
#![allow(
    unsafe_code,
    reason = "lends parts of one mapping to the kernel, the queue thread and late replies in turn"
)]

use super::entry::write_reply;
use crate::base::Errno;
use crate::kernel::abi::ring;
use crate::kernel::transport::call::Outcome;
use crate::kernel::transport::counters::SharedCounters;
use memmap2::{MmapOptions, MmapRaw};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Room for the header of an entry: a page, so that payloads start on one too.
pub(super) const HEADER_BYTES: usize = 4096;
const _: () = assert!(HEADER_BYTES >= ring::HEADER_BYTES);

/// Entries that are added at a time when those of a queue are nearly all with tokens.
pub(super) const BLOCK_ENTRIES: u32 = 32;

/// How often entries are added. What waits without a bound are locks, each a thread of a program on one core.
const BLOCKS_MAX: usize = 15;

/// Entries that can be added in all.
pub(in crate::kernel::transport) const GROWTH_MAX: usize = BLOCKS_MAX * BLOCK_ENTRIES as usize;

/// End of the list of finished entries.
const NONE: u32 = u32::MAX;

/// What a queue thread shares with the tokens of its entries.
#[derive(Debug)]
pub(in crate::kernel::transport) struct Owner {
    map: MmapRaw,
    /// Entries in `map`; the others are in `added`.
    entries: u32,
    added: [OnceLock<MmapRaw>; BLOCKS_MAX],
    entry_bytes: usize,
    /// First finished entry; each names the next. Any thread pushes, the queue thread takes all.
    finished: AtomicU32,
    next: Box<[AtomicU32]>,
    /// The queue thread waits in the kernel, or is about to: it has to be woken for what is finished from now on.
    asleep: AtomicBool,
    stopping: AtomicBool,
    event: EventFd,
    /// Of this owner's tokens alone: those of another core count elsewhere.
    counters: Arc<SharedCounters>,
}

impl Owner {
    /// Maps memory for `entries` entries with `payload_bytes` each. Pages become real when they are first used.
    pub(super) fn new(
        entries: usize,
        payload_bytes: usize,
        counters: Arc<SharedCounters>,
    ) -> io::Result<Self> {
        let entry_bytes = HEADER_BYTES + payload_bytes.next_multiple_of(HEADER_BYTES);
        let map = map(entries * entry_bytes)?;
        // Not O_NONBLOCK: io_uring would answer EAGAIN instead of waiting.
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            map,
            entries: u32::try_from(entries).map_err(io::Error::other)?,
            added: [const { OnceLock::new() }; BLOCKS_MAX],
            entry_bytes,
            finished: AtomicU32::new(NONE),
            next: (0..entries + GROWTH_MAX).map(|_| AtomicU32::new(NONE)).collect(),
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            event,
            counters,
        })
    }

    /// Entries of the start.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Maps memory for [`BLOCK_ENTRIES`] more, whose first index is returned. `None`: there are enough.
    pub(super) fn grow(&self) -> io::Result<Option<u32>> {
        let Some(block) = self.added.iter().position(|added| added.get().is_none()) else { return Ok(None) };
        let added = map(BLOCK_ENTRIES as usize * self.entry_bytes)?;
        self.added[block].get_or_init(|| added);
        let before = u32::try_from(block).map_err(io::Error::other)? * BLOCK_ENTRIES;
        Ok(Some(self.entries + before))
    }

    /// The descriptor that is written to wake the queue thread.
    pub(super) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Address of an entry's header, and of its payload with its length: what REGISTER tells the kernel.
    pub(super) fn buffers(&self, index: u32) -> [libc::iovec; 2] {
        let base = self.base(index);
        [
            libc::iovec { iov_base: base.cast(), iov_len: HEADER_BYTES },
            libc::iovec {
                iov_base: base.wrapping_add(HEADER_BYTES).cast(),
                iov_len: self.entry_bytes - HEADER_BYTES,
            },
        ]
    }

    fn base(&self, index: u32) -> *mut u8 {
        let (map, at) = match index.checked_sub(self.entries) {
            None => (&self.map, index),
            Some(later) => {
                let added = self.added.get((later / BLOCK_ENTRIES) as usize).and_then(OnceLock::get);
                (added.expect("an entry that was added"), later % BLOCK_ENTRIES)
            }
        };
        map.as_mut_ptr().wrapping_add(at as usize * self.entry_bytes)
    }

    /// Where the bytes of an entry are, for as long as this owner lives.
    pub(super) fn place(&self, index: u32) -> NonNull<[u8]> {
        let start = NonNull::new(self.base(index)).expect("a mapping does not start at 0");
        NonNull::slice_from_raw_parts(start, self.entry_bytes)
    }

    /// The bytes of an entry.
    ///
    /// # Safety
    /// The entry must belong to the caller (see the module's header) for as long as the slice lives, and the caller
    /// must not hold another slice of it.
    #[expect(clippy::mut_from_ref, reason = "entries are owned one by one, not through `Owner`")]
    pub(super) unsafe fn memory(&self, index: u32) -> &mut [u8] {
        // SAFETY:
        // - live: the mappings are unmapped when the last `Arc<Owner>` goes, and the slice borrows `self`.
        // - in bounds: `place` finds the mapping that has the index, and each has `entry_bytes` for each of its entries.
        // - initialised: anonymous memory is zero until written.
        // - nobody else writes or reads: promised by the caller.
        unsafe { self.place(index).as_mut() }
    }

    /// Takes the finished entries, in the order in which they were finished, and gives each to `each`.
    pub(super) fn take_finished(&self, mut each: impl FnMut(u32)) {
        let mut at = self.finished.swap(NONE, Ordering::Acquire);
        // The list runs from the last to the first: turn it round.
        let mut first = NONE;
        while at != NONE {
            let next = self.next[at as usize].swap(first, Ordering::Relaxed);
            (first, at) = (at, next);
        }
        while first != NONE {
            let next = self.next[first as usize].load(Ordering::Relaxed);
            each(first);
            first = next;
        }
    }

    /// Gives a finished entry back to the queue thread and wakes it if it sleeps.
    fn finish(&self, index: u32) {
        let mut head = self.finished.load(Ordering::Relaxed);
        loop {
            self.next[index as usize].store(head, Ordering::Relaxed);
            // SeqCst: the pair of `fall_asleep`. Either this thread sees `asleep`, or that one sees the entry.
            match self.finished.compare_exchange_weak(head, index, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.counters.woke();
            self.wake();
        }
    }

    /// Announces that the queue thread is going to wait. False: something has been finished; it must look first.
    pub(super) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let idle = self.finished.load(Ordering::SeqCst) == NONE;
        if !idle {
            self.awake();
        }
        idle
    }

    /// The queue thread runs again.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The kernel has not given `entries` back: the memory is never unmapped.
    pub(super) fn keep(self: &Arc<Self>, entries: usize) {
        self.counters.kept(entries);
        std::mem::forget(Arc::clone(self));
    }

    /// Ends the queue thread.
    pub(in crate::kernel::transport) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the thread has long been woken.
        let _ = self.event.write(1);
    }
}

/// Memory whose pages become real when they are first used.
fn map(bytes: usize) -> io::Result<MmapRaw> {
    Ok(MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?.into())
}

/// An entry with a request in it, in the hands of the queue thread: the right to lease it.
pub(in crate::kernel::transport) struct Seat<'q> {
    owner: &'q Arc<Owner>,
    index: u32,
}

impl<'q> Seat<'q> {
    /// # Safety
    /// The entry belongs to the queue thread, which makes one seat per request and, once a lease was taken from it,
    /// leaves the entry alone until [`Owner::take_finished`] yields it.
    pub(super) unsafe fn new(owner: &'q Arc<Owner>, index: u32) -> Self {
        Self { owner, index }
    }

    /// Moves the entry into a lease. Called once per request: the call that holds the seat is consumed by it.
    pub(in crate::kernel::transport) fn lease(&mut self, unique: u64) -> RingLease {
        RingLease { owner: self.owner.clone(), index: self.index, unique }
    }
}

/// An entry that waits for a late reply.
#[derive(Debug)]
pub(in crate::kernel::transport) struct RingLease {
    owner: Arc<Owner>,
    index: u32,
    unique: u64,
}

impl RingLease {
    /// Fills the reply in place and gives the entry back. `fill` must not panic (the caller sees to it).
    pub(in crate::kernel::transport) fn fill(
        self,
        max: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) {
        // SAFETY: the lease is the entry's owner from `Seat::lease` until `finish` below; it is neither `Clone` nor
        // usable after this method, and `memory` is not used after `finish`.
        let memory = unsafe { self.owner.memory(self.index) };
        let body = &mut memory[HEADER_BYTES..];
        let room = max.min(body.len());
        let outcome = Outcome::of(fill(&mut body[..room]), room);
        write_reply(memory, self.unique, outcome);
        self.owner.counters.late_reply();
        self.owner.finish(self.index);
    }

    pub(in crate::kernel::transport) fn count_dropped(&self) {
        self.owner.counters.dropped();
    }
}
