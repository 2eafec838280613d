//! The thread that owns queues: its ring, its entries, its loop.
//!
//! One completion is one request in an entry's memory; one submission is its reply and asks for the next request; one
//! `io_uring_enter` hands over all replies of a turn (docs/decisions/0006-queue-loop.md). The kernel copies in the context of
//! the thread that submitted, so nobody else ever submits here: late replies come through [`Owner`].
#![allow(
    unsafe_code,
    reason = "submits entries that name lent memory, and reads that memory after completions"
)]

use super::entry::{self, EVENT_FILE, read_entry, write_reply};
use super::owner::{BLOCK_ENTRIES, GROWTH_MAX, Owner, Seat};
use crate::kernel::transport::call::{Origin, Outcome};
use crate::kernel::transport::dispatch::Dispatcher;
use crate::kernel::transport::lent::Lent;
use crate::kernel::transport::yielding::Yielder;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue::Entry128};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

type Ring = IoUring<Entry128, cqueue::Entry>;
type Submissions<'r> = io_uring::SubmissionQueue<'r, Entry128>;
type CompletionQueue<'r> = io_uring::CompletionQueue<'r, cqueue::Entry>;

/// Completion of the read of the event descriptor; entries have their index.
const EVENT: u64 = u64::MAX;

/// How long the kernel may take at the end of a mount to give back the entries it has: it tries every few milliseconds.
const RETURN_SECONDS: u64 = 10;

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
            let entry = entry::register(line.qid, index, pair);
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
        self.desk.take_completions(&mut completions, &mut submissions, dispatcher, self.event);
        drop((submissions, completions));
        let served = |line: usize| self.desk.slots.iter().any(|slot| slot.alive && slot.line == line);
        if (0..self.desk.lines.len()).all(served) {
            Ok(())
        } else {
            Err(self.desk.refused.unwrap_or(libc::EIO))
        }
    }

    /// Serves until every entry is gone or the mount is, and the kernel has given back what it had.
    ///
    /// Replies are submitted without waiting as long as that pays: on the way back to this thread the kernel lets the callers
    /// run that were waiting for them, and their next requests are often there before it would have slept. Where they are
    /// not, waiting takes a second call, so [`Budget`] falls back to submitting and waiting in one.
    /// `yielder`: what counts the requests and lets the thread yield, if it may.
    pub(super) fn serve(&mut self, dispatcher: &Dispatcher, mut yielder: Option<Yielder>) -> io::Result<()> {
        let Self { ring, desk, event } = self;
        let (mut submitter, mut submissions, mut completions) = ring.split();
        // Saves the look-up of the ring's descriptor in each call; without it all works the same.
        let _ = submitter.register_ring_fd();
        let mut budget = Budget::new();
        loop {
            if desk.deferred > 0 {
                desk.commit_finished(&mut submissions);
                if std::mem::take(&mut desk.short) {
                    desk.add_entries(&mut submissions);
                }
            }
            let stopping = desk.owner.stopping();
            if desk.alive == desk.deferred && (stopping || desk.deferred == 0) {
                return Ok(());
            }
            submissions.sync();
            if !submissions.is_empty() && (stopping || budget.has_a_call_to_spare()) {
                dispatcher.counters.entered();
                entered(submitter.submit())?;
                submissions.sync();
                let came = desk.take_completions(&mut completions, &mut submissions, dispatcher, event);
                budget.spent(came);
                if came > 0 {
                    count(&mut yielder, came);
                    continue;
                }
            }
            if stopping {
                if !wait_for_the_rest(&submitter, desk, dispatcher)? {
                    return Ok(());
                }
            } else {
                // Without tokens nobody wakes this thread for a reply, and the barrier is saved.
                let wait = desk.deferred == 0 || desk.owner.fall_asleep();
                dispatcher.counters.entered();
                let waited = submitter.submit_and_wait(usize::from(wait));
                if desk.deferred > 0 {
                    desk.owner.awake();
                }
                entered(waited)?;
            }
            submissions.sync();
            let came = desk.take_completions(&mut completions, &mut submissions, dispatcher, event);
            budget.spent(came);
            count(&mut yielder, came);
        }
    }
}

fn count(yielder: &mut Option<Yielder>, came: usize) {
    if let Some(yielder) = yielder {
        yielder.served(came);
    }
}

/// Keeps the calls of `io_uring_enter` at one for each request: requests that came several at a time pay for calls in vain, and
/// one in [`Budget::CALL`] requests for finding out whether these still are.
struct Budget(usize);

impl Budget {
    /// What a call costs; a request brings one more than that.
    const CALL: usize = 64;
    const MOST: usize = 64 * Self::CALL;

    fn new() -> Self {
        Self(Self::CALL)
    }

    fn has_a_call_to_spare(&self) -> bool {
        self.0 >= Self::CALL
    }

    /// A call has brought `requests`.
    fn spent(&mut self, requests: usize) {
        self.0 = (self.0 + requests * (Self::CALL + 1)).saturating_sub(Self::CALL).min(Self::MOST);
    }
}

/// What `io_uring_enter` says that stops nothing: a signal; completions that must be taken first.
fn entered(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// The mount is gone: waits for an entry that the kernel still has. False: it took too long, and the memory of all entries
/// is never unmapped, since the kernel might still write there.
fn wait_for_the_rest(submitter: &Submitter<'_>, desk: &Desk, dispatcher: &Dispatcher) -> io::Result<bool> {
    dispatcher.counters.entered();
    let limit = Timespec::new().sec(RETURN_SECONDS);
    let waited = submitter.submit_with_args(1, &SubmitArgs::new().timespec(&limit));
    let kept = matches!(&waited, Err(error) if error.raw_os_error() == Some(libc::ETIME));
    if !kept {
        entered(waited)?;
        return Ok(true);
    }
    let entries = desk.alive - desk.deferred;
    tracing::error!("the kernel did not give {entries} entries back; their memory stays mapped");
    desk.owner.keep(entries);
    Ok(false)
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
    /// Handles what the kernel has completed and queues the replies. Says how many completions there were.
    fn take_completions(
        &mut self,
        completions: &mut CompletionQueue<'_>,
        submissions: &mut Submissions<'_>,
        dispatcher: &Dispatcher,
        event: &mut u64,
    ) -> usize {
        let mut came = 0;
        completions.sync();
        for completion in completions.by_ref() {
            came += 1;
            if completion.user_data() == EVENT {
                push_event_read(submissions, event);
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
        came
    }

    /// Queues the late replies.
    fn commit_finished(&mut self, submissions: &mut Submissions<'_>) {
        let Self { owner, slots, lines, deferred, .. } = self;
        owner.take_finished(|index| {
            *deferred -= 1;
            let slot = &slots[index as usize];
            lines[slot.line].free += 1;
            let commit = entry::commit(lines[slot.line].qid, slot.commit_id, index);
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
                let entry = entry::register(self.lines[at].qid, index, &self.added[self.added.len() - 1]);
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
        // is made only after the last use of its memory. The slice ends in this statement.
        let (header, layout, commit_id) = read_entry(unsafe { self.owner.memory(index) });
        // SAFETY: as above, and one seat per completion: once a lease was taken from it, nothing here touches the entry.
        let seat = unsafe { Seat::new(&self.owner, index) };
        // SAFETY: the entry is this thread's, and nothing else here names its memory while `lent` is used; the call that
        // holds it is consumed by what hands the entry to a lease. The owner outlives it.
        let lent = unsafe { Lent::new(self.owner.place(index)) };
        slot.commit_id = commit_id;
        let outcome = match layout {
            Some(layout) => dispatcher.dispatch(header, lent, layout, Origin::Ring(seat)),
            None => Outcome::Reply { error: libc::EINVAL, bytes: 0 },
        };
        if outcome == Outcome::Deferred {
            self.deferred += 1;
            let line = &mut self.lines[slot.line];
            line.free -= 1;
            self.short |= line.is_short();
            return None;
        }
        // SAFETY: not deferred, so the entry is still this thread's, and `dispatch` has consumed what named its memory.
        let memory = unsafe { self.owner.memory(index) };
        write_reply(memory, header.unique, outcome);
        Some(entry::commit(self.lines[slot.line].qid, commit_id, index))
    }
}

/// Builds the ring with the best flags. All of them exist in every kernel that knows FUSE over io_uring.
fn build(entries: u32) -> io::Result<Ring> {
    IoUring::<Entry128, cqueue::Entry>::builder()
        .setup_clamp()
        // One bad commit must not hold back the others of its batch.
        .setup_submit_all()
        .setup_single_issuer()
        // Completion work runs on every way out of the kernel, without an interrupt: what callers have asked for while
        // this thread was preempted is there when a submission returns.
        .setup_coop_taskrun()
        .setup_no_sqarray()
        .setup_cqsize(entries * 2)
        .build(entries)
}

#[cfg(test)]
mod tests {
    use super::Budget;

    /// Calls for `rounds` rounds in which `clients` requests come at a time; `at_once`: also to a call that does not wait.
    fn calls(rounds: usize, clients: usize, at_once: impl Fn(usize) -> bool) -> usize {
        let mut budget = Budget::new();
        let mut calls = 0;
        for round in 0..rounds {
            if budget.has_a_call_to_spare() {
                calls += 1;
                let came = if at_once(round) { clients } else { 0 };
                budget.spent(came);
                if came > 0 {
                    continue;
                }
            }
            calls += 1;
            budget.spent(clients);
        }
        calls
    }

    #[test]
    fn calls_in_vain_never_cost_more_than_a_few_for_a_hundred_requests() {
        assert_eq!(calls(10_000, 1, |_| true), 10_000);
        assert!(calls(10_000, 1, |_| false) <= 10_000 + 10_000 / 64 + 2);
        assert!(calls(10_000, 1, |round| round % 3 == 0) <= 10_000 + 10_000 / 64 + 2);
        // Clients that come several at a time pay for all calls that bring nothing.
        assert_eq!(calls(10_000, 4, |_| false), 20_000);
    }
}
