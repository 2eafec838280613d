//! Sends what the log says, when it says so.
//!
//! In: the log, and whoever has changed it so that something may be due. Out: frames to the link, in the log's order. One
//! thread at a time sends ([`Mount::pump`]); one that finds another at it leaves a note and goes its way. Who only
//! accepts a change sends nothing: the thread `ringfs-batch` sleeps until what has gathered is to go ([`Mount::arrange`]), and
//! is woken once when the log turns from empty to non-empty.

use super::{Mount, boottime};
use crate::client::link::Logged;
use crate::client::oplog::{Action, Batch, Due, Reached};
use crate::wire::{Query, Ticket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// Mutations that a thread sends itself for somebody who waits. More are left to the thread for batches: in a server of this
/// process they are executed by who sends them.
const INLINE_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Held by who sends.
    sending: Mutex<()>,
    /// There may be something to send that its holder has not seen.
    again: AtomicBool,
    alarm: Mutex<Alarm>,
    wake: Condvar,
}

/// When the thread for batches looks.
#[derive(Debug, Default)]
struct Alarm {
    at: Option<Duration>,
    stop: bool,
}

impl Sender {
    fn alarm(&self) -> MutexGuard<'_, Alarm> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread look at `at`, if it would not sooner.
    pub(super) fn look_at(&self, at: Duration) {
        let mut alarm = self.alarm();
        if alarm.at.is_none_or(|before| at < before) {
            alarm.at = Some(at);
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.alarm().stop = true;
        self.wake.notify_all();
    }

    /// Sleeps until it is time to look. False: there is nothing to look at any more.
    fn sleep(&self) -> bool {
        let mut alarm = self.alarm();
        loop {
            if alarm.stop {
                return false;
            }
            let left = alarm.at.map(|at| at.saturating_sub(boottime()));
            alarm = match left {
                Some(Duration::ZERO) => {
                    alarm.at = None;
                    return true;
                }
                Some(left) => self.wake.wait_timeout(alarm, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(alarm).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Mount {
    /// Starts the thread for batches. It ends with the mount.
    pub(super) fn start_sender(self: &Arc<Self>) -> std::io::Result<()> {
        let (mount, sender) = (Arc::downgrade(self), Arc::clone(&self.sender));
        let work = move || {
            while sender.sleep() {
                let Some(mount) = mount.upgrade() else { return };
                mount.pump();
                mount.send_drops();
            }
        };
        std::thread::Builder::new().name("ringfs-batch".to_owned()).spawn(work).map(drop)
    }

    /// Sends what is due now, and sees to it that the rest is sent in time.
    pub(super) fn pump(self: &Arc<Self>) {
        let sender = &self.sender;
        sender.again.store(true, Ordering::SeqCst);
        loop {
            let guard = match sender.sending.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
                // Whoever is at it sees the note.
                Err(TryLockError::WouldBlock) => return,
            };
            while sender.again.swap(false, Ordering::SeqCst) {
                self.send_due();
            }
            drop(guard);
            if !sender.again.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn send_due(self: &Arc<Self>) {
        loop {
            let now = boottime();
            let mut state = self.state();
            match state.log.next(now) {
                Action::Send(batch) => {
                    drop(state);
                    self.send_batch(batch);
                }
                Action::Sync => {
                    drop(state);
                    self.send_sync();
                }
                Action::Wait(until) => {
                    state.alarm = until;
                    drop(state);
                    if let Some(until) = until {
                        self.sender.look_at(until);
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn send_batch(self: &Arc<Self>, batch: Batch) {
        self.link.send(logged(batch));
    }

    fn send_sync(self: &Arc<Self>) {
        let mount = Arc::clone(self);
        // The frame that answers it tells what is durable, and the log hears that first.
        self.link.call(&Query::Sync { ino: None, data_only: false }, move |answer| {
            let mut state = mount.state();
            let due = match answer {
                Ok(_) => {
                    state.log.sync_answered();
                    Due::default()
                }
                Err(errno) => state.log.sync_failed(errno),
            };
            drop(state);
            due.run();
            mount.pump();
        });
    }

    /// To be called after the log has taken local mutations, without the lock: `at` is what [`super::state::State::arrange`]
    /// said.
    pub(super) fn arrange(&self, at: Option<Duration>) {
        if let Some(at) = at {
            self.sender.look_at(at);
        }
    }

    /// Something waits for the log: sends at once what is missing for it.
    pub(super) fn hurry(self: &Arc<Self>, waiting: usize) {
        if waiting <= INLINE_MAX {
            self.pump();
        } else {
            self.sender.look_at(Duration::ZERO);
        }
    }

    /// Runs `then` when all that was accepted up to this ticket is applied or never will be; at once, when it is.
    pub(super) fn after_applied_to(self: &Arc<Self>, ticket: Ticket, then: Reached) {
        let mut state = self.state();
        if state.log.applied_through() >= ticket {
            drop(state);
            return then(Ok(()));
        }
        let waiting = state.log.waiting();
        let due = state.log.after_applied(ticket, then);
        drop(state);
        due.run();
        self.hurry(waiting);
    }

    /// Runs `then` when all that was accepted so far is durable, and what other mounts had made before as well.
    pub(super) fn make_durable(self: &Arc<Self>, then: Reached) {
        if !self.state().log.is_empty() {
            // The sync of what is here covers it.
            return self.after_durable_to(None, then);
        }
        let query = Query::Sync { ino: None, data_only: false };
        self.link.call(&query, move |answer| then(answer.map(|_| ())));
    }

    /// Runs `then` when all that was accepted up to this ticket is durable; without one: all that was accepted so far.
    pub(super) fn after_durable_to(self: &Arc<Self>, ticket: Option<Ticket>, then: Reached) {
        let mut state = self.state();
        let (last, waiting) = (state.log.last(), state.log.waiting());
        let due = state.log.after_durable(ticket.unwrap_or(last), then);
        drop(state);
        due.run();
        self.hurry(waiting);
    }

    /// Waits until all that was accepted up to this ticket is applied or never will be, for a thread that may block.
    pub(super) fn drain_to(self: &Arc<Self>, ticket: Ticket) {
        let (told, hears) = sync_channel(1);
        let tell = move |result| {
            // Whoever waits hears it, or has ended.
            let _ = told.send(result);
        };
        self.after_applied_to(ticket, Box::new(tell));
        // An error is the end of the session: so is that of the log.
        let _ = hears.recv();
    }
}

/// A batch in the link's words.
pub(super) fn logged(batch: Batch) -> Logged {
    let Batch { first, last, count, local, unanswered, before, body, payload } = batch;
    Logged { first, last, count, local, unanswered, before, body, payload }
}
