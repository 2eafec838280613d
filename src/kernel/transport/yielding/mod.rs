//! Queue threads that step behind the programs they serve.
//!
//! While a queue thread answers, its core counts as busy, so the scheduler wakes the caller on another, idle one: a dear way to wake
//! it, and its next request goes to the queue of that core, for every request anew. Of a core on which only `SCHED_IDLE` threads
//! run the kernel says that it is idle (`sched_idle_cpu`): the caller is woken where it was and preempts the queue thread at
//! once. So a busy queue *yields*: its thread gets that policy. docs/decisions/0007-yielding.md has numbers and alternatives.
//!
//! A thread with that policy starves beside a program that wants the core for itself. So one thread, the *watch*, looks every
//! [`rule::TICK`] after the queues that yield, and puts those back that serve little, or no more than before: [`rule`] decides. It sleeps
//! without a timeout when none yields. It alone changes policies, so none is changed twice at a time; a queue thread asks, by a flag
//! and a wake-up, and apart from that counts.
//!
//! Whatever a queue thread holds while it yields (a mutex of the client's state, a transaction of a server in the same process, a
//! lock in the kernel) it may hold without running, and ordinary threads wait for it then. That ends when it is put back: after
//! two ticks at most, and the time the watch takes to wake. A handler that works on something long serves nothing meanwhile, so it is put
//! back too. Threads that a queue thread starts would inherit its policy: see [`crate::thread::start`].

mod rule;

use crate::thread::{Policy, policy, set_policy};
use nix::unistd::{Pid, gettid};
use rule::{Change, Pace, Rule};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant};

pub(super) use rule::TICK;

/// Whether queue threads may yield here: they must be able to leave it again. Tried on a thread that is not needed.
///
/// # Errors
/// Why not, and what to do about it.
pub fn may_yield() -> Result<(), String> {
    let failed = |error: io::Error| refusal(&error);
    if policy(gettid()).map_err(failed)? != Policy::Ordinary {
        return Err("it was started with a scheduling policy, which is left as it is".to_owned());
    }
    let (tell, told) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    // Changed from here: a thread that yields might be long in getting to its next system call.
    let tried = crate::thread::start("ringfs-try", move || {
        let _ = tell.send(gettid());
        let _ = ends.recv();
    });
    tried.map_err(failed)?;
    let thread = told.recv().map_err(|_| "a thread could not be tried".to_owned())?;
    let changed = set_policy(thread, Policy::Yielding).and_then(|()| set_policy(thread, Policy::Ordinary));
    drop(end);
    changed.map_err(failed)
}

fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "its threads could not leave SCHED_IDLE again: mount as root, or raise the limit of \
                              nice with `ulimit -e 20`, LimitNICE=20 in the unit"
                .to_owned()
        }
        _ => format!("scheduling policies cannot be changed: {error}"),
    }
}

/// What a queue thread and the watch share.
#[derive(Debug)]
struct Watched {
    /// Requests so far. The queue thread counts.
    served: AtomicU64,
    /// The queue thread asks to yield.
    asks: AtomicBool,
    /// When it may ask again, in nanoseconds of [`Watch::now`]; [`NEVER`] from the moment it asks until it is put back.
    asks_from: AtomicU64,
    /// It has been given the policy of those that yield.
    yields: AtomicBool,
    /// Its number, gone when the thread is about to end: another could get it then. The watch holds the lock while it changes
    /// the policy.
    thread: Mutex<Option<Pid>>,
    /// The kernel's line about the thread, where /proc has it.
    line: Option<File>,
}

const NEVER: u64 = u64::MAX;

impl Watched {
    /// Whether the thread wants to run, or does: the third word of its line. Taken for true where it is not known.
    fn waits(&self) -> bool {
        let mut line = [0; 128];
        let read = self.line.as_ref().and_then(|file| file.read_at(&mut line, 0).ok());
        read.and_then(|bytes| state(&line[..bytes])).is_none_or(|state| state == b'R')
    }
}

/// The state in a line of /proc/PID/stat: the letter behind the name, which stands in parentheses and may hold some.
fn state(line: &[u8]) -> Option<u8> {
    let end = line.iter().rposition(|byte| *byte == b')')?;
    line.get(end + 2).copied()
}

/// The watch of one mount, and its numbers.
#[derive(Debug)]
pub(super) struct Watch {
    began: Instant,
    tick: Duration,
    queues: Mutex<Vec<(Arc<Watched>, Rule)>>,
    thread: OnceLock<Thread>,
    stopping: AtomicBool,
    /// A change failed: nobody yields any more.
    failed: AtomicBool,
    yields: AtomicU64,
    put_back: AtomicU64,
    looks: AtomicU64,
}

/// The numbers of a [`Watch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Numbers {
    pub(super) yields: u64,
    pub(super) put_back: u64,
    pub(super) looks: u64,
}

impl Watch {
    pub(super) fn new(tick: Duration) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            tick,
            queues: Mutex::default(),
            thread: OnceLock::new(),
            stopping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            yields: AtomicU64::new(0),
            put_back: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        })
    }

    /// Names the thread that runs [`Self::run`]. Before the first queue joins.
    pub(super) fn runs_on(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    /// Lets the calling thread yield, if its policy is the ordinary one.
    pub(super) fn join(self: &Arc<Self>) -> Option<Yielder> {
        let own = gettid();
        if policy(own).ok()? != Policy::Ordinary {
            return None;
        }
        let watched = Arc::new(Watched {
            served: AtomicU64::new(0),
            asks: AtomicBool::new(false),
            yields: AtomicBool::new(false),
            asks_from: AtomicU64::new(0),
            thread: Mutex::new(Some(own)),
            line: File::open("/proc/thread-self/stat").ok(),
        });
        lock(&self.queues).push((watched.clone(), Rule::new(self.tick)));
        Some(Yielder { watched, watch: self.clone(), pace: Pace::new(self.tick) })
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            yields: self.yields.load(Ordering::Relaxed),
            put_back: self.put_back.load(Ordering::Relaxed),
            looks: self.looks.load(Ordering::Relaxed),
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Since the mount began.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The watch's thread: ends when it is told to.
    pub(super) fn run(&self) {
        let mut next = Duration::ZERO;
        while !self.stopping.load(Ordering::Acquire) {
            let any = self.look(&mut next);
            if any {
                std::thread::park_timeout(next.saturating_sub(self.now()));
            } else {
                std::thread::park();
            }
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Judges who yields or has asked to, if it is time, and hears who asks. Says whether there is anybody. `next`: when it is time.
    fn look(&self, next: &mut Duration) -> bool {
        let mut queues = lock(&self.queues);
        let now = self.now();
        queues.retain(|(watched, _)| lock(&watched.thread).is_some());
        if now >= *next {
            *next = now + self.tick;
            for (watched, rule) in queues.iter_mut() {
                let served = watched.served.load(Ordering::Relaxed);
                if let Some(change) = rule.look(now, served, || watched.waits())
                    && let Err(error) = self.change(watched, change)
                {
                    rule.undone(change);
                    if !self.failed.swap(true, Ordering::Relaxed) {
                        tracing::error!("queue threads do not yield any more: {}", refusal(&error));
                    }
                }
            }
        }
        for (watched, rule) in queues.iter_mut() {
            if watched.asks.swap(false, Ordering::Acquire) && !self.failed.load(Ordering::Relaxed) {
                rule.asked(now, watched.served.load(Ordering::Relaxed));
            }
        }
        queues.iter().any(|(_, rule)| !rule.is_ordinary())
    }

    fn change(&self, watched: &Watched, change: Change) -> io::Result<()> {
        let thread = lock(&watched.thread);
        let Some(thread) = *thread else { return Ok(()) };
        match change {
            Change::Yield => {
                set_policy(thread, Policy::Yielding)?;
                self.yields.fetch_add(1, Ordering::Relaxed);
                watched.yields.store(true, Ordering::Relaxed);
            }
            Change::Back(asks_again) => {
                if watched.yields.load(Ordering::Relaxed) {
                    set_policy(thread, Policy::Ordinary)?;
                    watched.yields.store(false, Ordering::Relaxed);
                    self.put_back.fetch_add(1, Ordering::Relaxed);
                }
                watched.asks_from.store(nanos(asks_again), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// What a queue thread has of its watch. It must be dropped on that thread, which is ordinary again then.
#[derive(Debug)]
pub(super) struct Yielder {
    watched: Arc<Watched>,
    watch: Arc<Watch>,
    pace: Pace,
}

impl Yielder {
    /// So many requests have been served.
    pub(super) fn served(&mut self, requests: usize) {
        let served = &self.watched.served;
        served.store(served.load(Ordering::Relaxed) + requests as u64, Ordering::Relaxed);
        if self.pace.counts(requests) {
            self.consider();
        }
    }

    /// Asks to yield if requests come fast.
    fn consider(&mut self) {
        let asks_from = self.watched.asks_from.load(Ordering::Relaxed);
        if asks_from == NEVER {
            return self.pace.forget();
        }
        let now = self.watch.now();
        if self.pace.was_fast(now) && nanos(now) >= asks_from {
            self.watched.asks_from.store(NEVER, Ordering::Relaxed);
            self.watched.asks.store(true, Ordering::Release);
            self.watch.wake();
        }
    }
}

impl Drop for Yielder {
    fn drop(&mut self) {
        // The watch holds this for no longer than a system call.
        *lock(&self.watched.thread) = None;
        // What the thread still has to do may be long, and nobody watches it any more.
        if self.watched.yields.load(Ordering::Relaxed) {
            match set_policy(gettid(), Policy::Ordinary) {
                Ok(()) => drop(self.watch.put_back.fetch_add(1, Ordering::Relaxed)),
                Err(error) => tracing::error!("a queue thread ends behind all others: {}", refusal(&error)),
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

/// Nothing behind these locks can be left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::state;

    #[test]
    fn the_state_of_a_thread_is_read_whatever_its_name_is() {
        assert_eq!(state(b"812 (ringfs-q0) R 1 812 812 0"), Some(b'R'));
        assert_eq!(state(b"7 (a) S) D (b) S 1 7"), Some(b'S'));
        assert_eq!(state(b"7 (a"), None);
        assert_eq!(state(b"7 (a)"), None);
        let line = std::fs::read("/proc/thread-self/stat").unwrap();
        assert_eq!(state(&line), Some(b'R'), "it is running");
    }
}
