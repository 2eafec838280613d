//! The thread that owns queues: its ring, its entries, its loop.
//!
//! One completion is one request in an entry's memory; one submission is its reply and asks for the next request; one
//! `io_uring_enter` hands over all replies and waits. The kernel copies in the context of the thread that submitted,
//! so nobody else ever submits here: late replies come through [`Owner`].
#![allow(
    unsafe_code,
    reason = "submits entries that name lent memory, and reads that memory after completions"
)]

use super::owner::{BLOCK_ENTRIES, GROWTH_MAX, HEADER_BYTES, Owner, Seat, write_reply};
use crate::kernel::abi::{InHeader, ring};
use crate::kernel::transport::call::{Layout, Origin, Outcome};
use crate::kernel::transport::dispatch::Dispatcher;
use io_uring::{IoUring, cqueue, opcode, squeue::Entry128, types};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

type Ring = IoUring<Entry128, cqueue::Entry>;
type Submissions<'r> = io_uring::SubmissionQueue<'r, Entry128>;
type CompletionQueue<'r> = io_uring::CompletionQueue<'r, cqueue::Entry>;

/// Completion of the read of the event descriptor; entries have their index.
const EVENT: u64 = u64::MAX;

/// Places of the two descriptors among the ring's registered files.
const DEVICE: types::Fixed = types::Fixed(0);
const EVENT_FILE: types::Fixed = types::Fixed(1);

/// One entry as the queue thread knows it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Its queue, as an index of [`Desk::lines`].
    line: usize,
    /// Names the request in the entry.
    commit_id: u64,
    /// The kernel took it, and has not given it up.
    alive: bool,
}

/// One queue of the kernel's.
#[derive(Clone, Copy, Debug)]
struct Line {
    qid: u16,
    entries: usize,
    /// Of these, those no token has: requests can come.
    free: usize,
}

impl Line {
    /// Waits for locks end by other requests, so these must never find all entries taken. Entries are added long before,
    /// since the kernel gives a new one only to requests that come after it.
    fn is_short(self) -> bool {
        self.free * 2 <= self.entries.min(2 * BLOCK_ENTRIES as usize)
    }
}

/// A queue thread's state. Made on the thread itself: the ring accepts one submitter.
pub(super) struct Queue {
    ring: Ring,
    desk: Desk,
    /// Where reads of the event descriptor go. Never freed: a ring is taken down some time after its descriptor is closed,
    /// and a read that is still in flight may end then. Eight bytes for each queue thread of a mount.
    event: &'static mut u64,
}

/// All but the ring, so that both can be borrowed at a time.
struct Desk {
    owner: Arc<Owner>,
    slots: Vec<Slot>,
    lines: Vec<Line>,
    /// A line may be short of entries.
    short: bool,
    /// What REGISTER has told the kernel of added entries.
    added: Vec<[libc::iovec; 2]>,
    alive: usize,
    /// Entries that are leased.
    deferred: usize,
    refused: Option<i32>,
}

impl Queue {
    /// Builds the ring. `qids` names the queue of each entry.
    pub(super) fn new(owner: Arc<Owner>, device: RawFd, qids: &[u16]) -> io::Result<Self> {
        assert_eq!(qids.len(), owner.entries() as usize, "one queue id per entry");
        let most = qids.len() + GROWTH_MAX + 1;
        let entries = u32::try_from(most).map_err(io::Error::other)?.next_power_of_two();
        let ring = build(entries)?;
        ring.submitter().register_files(&[device, owner.event_fd()])?;
        let mut lines: Vec<Line> = Vec::new();
        let mut slots = Vec::with_capacity(qids.len());
        for &qid in qids {
            let line = lines.iter().position(|line| line.qid == qid).unwrap_or_else(|| {
                lines.push(Line { qid, entries: 0, free: 0 });
                lines.len() - 1
            });
            lines[line].entries += 1;
            slots.push(Slot { line, commit_id: 0, alive: false });
        }
        // Each addition must stay where it is until the kernel has read it.
        let added = Vec::with_capacity(GROWTH_MAX);
        let desk = Desk { owner, slots, lines, short: false, added, alive: 0, deferred: 0, refused: None };
        Ok(Self { ring, desk, event: Box::leak(Box::new(0)) })
    }

    /// Lends all entries to the kernel. From the moment every queue of the mount has one, requests come this way.
    /// `payload_bytes` is told to the kernel instead of the real length by tests that want to be refused.
    ///
    /// # Errors
    /// The errno the kernel gave if a queue is left without any entry.
    pub(super) fn register(
        &mut self,
        payload_bytes: Option<usize>,
        dispatcher: &Dispatcher,
    ) -> Result<(), i32> {
        let entries = u32::try_from(self.desk.slots.len()).unwrap_or(0);
        let mut buffers: Vec<[libc::iovec; 2]> = (0..entries).map(|i| self.desk.owner.buffers(i)).collect();
        if let Some(bytes) = payload_bytes {
            buffers.iter_mut().for_each(|pair| pair[1].iov_len = pair[1].iov_len.min(bytes));
        }
        for (index, pair) in (0..entries).zip(&buffers) {
            let slot = &mut self.desk.slots[index as usize];
            slot.alive = true;
            self.desk.alive += 1;
            let line = &mut self.desk.lines[slot.line];
            line.free += 1;
            let entry = register_entry(line.qid, index, pair);
            // SAFETY: the two buffers are the whole memory of an entry, which lives as long as the owner and is not
            // touched by this process until the completion; `buffers` lives until the submission below has returned,
            // and the kernel has read it by then.
            unsafe { self.ring.submission().push(&entry) }.map_err(|_| libc::ENOSPC)?;
        }
        push_event_read(&mut self.ring.submission(), self.event);
        if let Err(error) = self.ring.submit() {
            return Err(error.raw_os_error().unwrap_or(libc::EIO));
        }
        drop(buffers);
        // Refusals are complete by now; requests may have come too.
        let (_, mut submissions, mut completions) = self.ring.split();
        if self.desk.take_completions(&mut completions, &mut submissions, dispatcher) {
            push_event_read(&mut submissions, self.event);
        }
        drop((submissions, completions));
        let served = |line: usize| self.desk.slots.iter().any(|slot| slot.alive && slot.line == line);
        if (0..self.desk.lines.len()).all(served) {
            Ok(())
        } else {
            Err(self.desk.refused.unwrap_or(libc::EIO))
        }
    }

    /// Serves until every entry is gone or the mount is.
    pub(super) fn serve(&mut self, dispatcher: &Dispatcher) -> io::Result<()> {
        let Self { ring, desk, event } = self;
        let (mut submitter, mut submissions, mut completions) = ring.split();
        // Saves the look-up of the ring's descriptor in each call; without it all works the same.
        let _ = submitter.register_ring_fd();
        loop {
            let mut wait = 1;
            if desk.deferred > 0 {
                desk.commit_finished(&mut submissions);
                if std::mem::take(&mut desk.short) {
                    desk.add_entries(&mut submissions);
                }
                // Without tokens nobody wakes this thread for a reply, and the barrier is saved.
                if desk.deferred > 0 && !desk.owner.fall_asleep() {
                    wait = 0;
                }
            }
            if (desk.alive == 0 && desk.deferred == 0) || desk.owner.stopping() {
                return Ok(());
            }
            submissions.sync();
            dispatcher.counters.entered();
            let entered = submitter.submit_and_wait(wait);
            if desk.deferred > 0 {
                desk.owner.awake();
            }
            match entered.map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) => {}
                // A signal; or completions that must be taken first.
                Err((Some(libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
                Err((_, error)) => return Err(error),
            }
            submissions.sync();
            if desk.take_completions(&mut completions, &mut submissions, dispatcher) {
                push_event_read(&mut submissions, event);
            }
        }
    }
}

/// Asks to be told when somebody writes to the event descriptor.
fn push_event_read(submissions: &mut Submissions<'_>, event: &mut u64) {
    let read = opcode::Read::new(EVENT_FILE, (&raw mut *event).cast(), 8).build().user_data(EVENT);
    // SAFETY: the eight bytes are never freed, so a read may still end after the ring's descriptor was closed; nothing
    // else uses them.
    let pushed = unsafe { submissions.push(&read.into()) };
    assert!(pushed.is_ok(), "a ring has room for its event");
}

impl Desk {
    /// Handles what the kernel has completed and queues the replies. True: the event descriptor was read.
    fn take_completions(
        &mut self,
        completions: &mut CompletionQueue<'_>,
        submissions: &mut Submissions<'_>,
        dispatcher: &Dispatcher,
    ) -> bool {
        let mut woken = false;
        completions.sync();
        for completion in completions.by_ref() {
            if completion.user_data() == EVENT {
                woken = true;
                continue;
            }
            let Ok(index) = u32::try_from(completion.user_data()) else { continue };
            let Some(commit) = self.completed(index, completion.result(), dispatcher) else { continue };
            // SAFETY: the entry's memory is lent to the kernel again: this thread does not touch it until the next
            // completion, and no lease of it exists (`completed` says so by returning a commit).
            let pushed = unsafe { submissions.push(&commit) };
            assert!(pushed.is_ok(), "a ring has room for each of its entries");
        }
        // Tells the kernel what was taken: it would take the rest for what the next wait waits for.
        completions.sync();
        woken
    }

    /// Queues the late replies.
    fn commit_finished(&mut self, submissions: &mut Submissions<'_>) {
        let Self { owner, slots, lines, deferred, .. } = self;
        owner.take_finished(|index| {
            *deferred -= 1;
            let slot = &slots[index as usize];
            lines[slot.line].free += 1;
            let commit = commit_entry(slot, lines[slot.line].qid, index);
            // SAFETY: the lease gave the entry up when it put it into the list, and this thread does not touch it
            // before the completion.
            let pushed = unsafe { submissions.push(&commit) };
            assert!(pushed.is_ok(), "a ring has room for each of its entries");
        });
    }

    /// Lends the kernel more entries for each queue that has few left.
    fn add_entries(&mut self, submissions: &mut Submissions<'_>) {
        for at in 0..self.lines.len() {
            if !self.lines[at].is_short() {
                continue;
            }
            let first = match self.owner.grow() {
                Ok(Some(first)) => first,
                Ok(None) => return,
                Err(error) => return tracing::warn!("no memory for more requests that wait: {error}"),
            };
            for index in first..first + BLOCK_ENTRIES {
                assert!(self.added.len() < self.added.capacity(), "added entries must not move");
                self.added.push(self.owner.buffers(index));
                let entry = register_entry(self.lines[at].qid, index, &self.added[self.added.len() - 1]);
                // SAFETY: the memory of an entry that was added just now lives as long as the owner, and nothing
                // touches it until the completion; what names it stays in `added`, which does not move.
                let pushed = unsafe { submissions.push(&entry) };
                assert!(pushed.is_ok(), "a ring has room for each entry that can be added");
                self.slots.push(Slot { line: at, commit_id: 0, alive: true });
            }
            self.alive += BLOCK_ENTRIES as usize;
            self.lines[at].entries += BLOCK_ENTRIES as usize;
            self.lines[at].free += BLOCK_ENTRIES as usize;
        }
    }

    /// Handles the completion of an entry. Returns the commit to submit, unless the entry is gone or leased.
    fn completed(&mut self, index: u32, result: i32, dispatcher: &Dispatcher) -> Option<Entry128> {
        let slot = self.slots.get_mut(index as usize)?;
        if result < 0 {
            // ENOTCONN at unmount; after a refused REGISTER or commit the kernel has forgotten the entry too.
            if !matches!(-result, libc::ENOTCONN | libc::ECONNABORTED | libc::ECANCELED) {
                tracing::debug!("entry {index} of queue {}: errno {}", self.lines[slot.line].qid, -result);
                self.refused.get_or_insert(-result);
            }
            if std::mem::take(&mut slot.alive) {
                self.alive -= 1;
                self.lines[slot.line].free -= 1;
            }
            return None;
        }
        // SAFETY: a completion without an error gives the entry to this thread, and the commit that gives it away again
        // is made only after the last use of `memory`. If the call is deferred, `dispatch` has consumed `memory`
        // before the lease can be used, and it is not used below.
        let memory = unsafe { self.owner.memory(index) };
        // SAFETY: as above; one seat per completion.
        let seat = unsafe { Seat::new(&self.owner, index) };
        let (header, layout, commit_id) = read_entry(memory);
        slot.commit_id = commit_id;
        let outcome = match layout {
            Some(layout) => dispatcher.dispatch(header, memory, layout, Origin::Ring(seat)),
            None => Outcome::Reply { error: libc::EINVAL, bytes: 0 },
        };
        if outcome == Outcome::Deferred {
            self.deferred += 1;
            let line = &mut self.lines[slot.line];
            line.free -= 1;
            self.short |= line.is_short();
            return None;
        }
        // SAFETY: not deferred, so the entry is still this thread's, and the earlier slice was given to `dispatch`.
        let memory = unsafe { self.owner.memory(index) };
        write_reply(memory, header.unique, outcome);
        Some(commit_entry(slot, self.lines[slot.line].qid, index))
    }
}

/// Reads where the parts of a request lie in an entry. No layout: the kernel's numbers do not add up.
fn read_entry(memory: &[u8]) -> (InHeader, Option<Layout>, u64) {
    let header = InHeader::read_from_prefix(memory).map(|(header, _)| header).unwrap_or_default();
    let ent = ring::EntInOut::read_from_prefix(&memory[ring::ENT_IN_OUT_OFFSET..]);
    let ent = ent.map(|(ent, _)| ent).unwrap_or_default();
    let payload = ent.payload_bytes as usize;
    // The length of the record is not told: it is what the header's length leaves.
    let args = (header.len as usize).checked_sub(size_of::<InHeader>() + payload);
    let layout =
        args.filter(|&n| n <= ring::OP_IN_BYTES && HEADER_BYTES + payload <= memory.len()).map(|args| {
            Layout {
                args: ring::OP_IN_OFFSET..ring::OP_IN_OFFSET + args,
                payload: HEADER_BYTES..HEADER_BYTES + payload,
                reply_at: HEADER_BYTES,
            }
        });
    (header, layout, ent.commit_id)
}

/// Builds the ring with the best flags. All of them exist in every kernel that knows FUSE over io_uring.
fn build(entries: u32) -> io::Result<Ring> {
    IoUring::<Entry128, cqueue::Entry>::builder()
        .setup_clamp()
        // One bad commit must not hold back the others of its batch.
        .setup_submit_all()
        // Completion work runs when this thread asks for it: 0.2-0.3 us less per request than an interrupt.
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(entries * 2)
        .build(entries)
}

fn command(op: u32, qid: u16, commit_id: u64) -> opcode::UringCmd80 {
    let request = ring::CmdReq { flags: 0, commit_id, qid, padding: [0; 6] };
    let mut area = [0; 80];
    area[..size_of_val(&request)].copy_from_slice(request.as_bytes());
    opcode::UringCmd80::new(DEVICE, op).cmd(area)
}

fn commit_entry(slot: &Slot, qid: u16, index: u32) -> Entry128 {
    command(ring::CMD_COMMIT_AND_FETCH, qid, slot.commit_id).build().user_data(u64::from(index))
}

/// A submission entry as the kernel lays it out, for the one field the crate cannot set.
#[repr(C)]
struct RawEntry {
    before: [u8; 24],
    /// `sqe->len`.
    len: u32,
    after: [u8; 100],
}

fn register_entry(qid: u16, index: u32, buffers: &[libc::iovec; 2]) -> Entry128 {
    let address = buffers.as_ptr().expose_provenance() as u64;
    let entry = command(ring::CMD_REGISTER, qid, 0).addr(Some(address)).build().user_data(u64::from(index));
    // SAFETY: `Entry128` is `#[repr(C)]`, 128 bytes of plain integers, as `RawEntry` is; both directions are checked for
    // size by the compiler.
    let mut raw: RawEntry = unsafe { std::mem::transmute(entry) };
    raw.len = ring::REGISTER_BUFFERS;
    // SAFETY: as above; every value of the field is valid.
    unsafe { std::mem::transmute(raw) }
}
