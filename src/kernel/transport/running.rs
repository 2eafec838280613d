//! A mount that is being served: its threads, its end, its numbers.

use super::counters::{Counters, QueueCounters, SharedCounters};
use super::fault::TransportFault;
use super::handler::{Handler, Negotiated};
use super::notify::Notifier;
use super::uring::Owner;
use super::yielding::{Watch, Yielder};
use super::{Kind, connection};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};

/// How a mount ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Unmounted.
    Unmounted,
    /// Aborted, by [`Running::abort`] or by somebody else.
    Aborted,
    /// A thread could not go on.
    Failed(String),
}

/// What the threads of one mount share.
pub(super) struct Shared {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) counters: Arc<SharedCounters>,
    queues: Mutex<Vec<Arc<QueueCounters>>>,
    /// Of the tokens of each owner.
    tokens: Mutex<Vec<Arc<SharedCounters>>>,
    owners: Mutex<Vec<Arc<Owner>>>,
    notifier: OnceLock<Notifier>,
    /// Of the queues that may yield, or why none may.
    watch: OnceLock<Result<Arc<Watch>, String>>,
    end: Mutex<Option<End>>,
    /// Threads that still call the handler.
    alive: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The kernel's number of the connection, where it is known.
    connection: Option<u32>,
    mount_point: Option<PathBuf>,
}

impl Shared {
    pub(super) fn new(
        handler: Arc<dyn Handler>,
        counters: Arc<SharedCounters>,
        connection: Option<u32>,
        mount_point: Option<PathBuf>,
    ) -> Self {
        Self {
            handler,
            counters,
            queues: Mutex::default(),
            tokens: Mutex::default(),
            owners: Mutex::default(),
            notifier: OnceLock::new(),
            watch: OnceLock::new(),
            end: Mutex::default(),
            // One for whoever starts the threads: the mount cannot end between two of them.
            alive: AtomicUsize::new(1),
            threads: Mutex::default(),
            connection,
            mount_point,
        }
    }

    /// Counters for one more thread.
    pub(super) fn new_counters(&self) -> Arc<QueueCounters> {
        let counters = Arc::<QueueCounters>::default();
        lock(&self.queues).push(counters.clone());
        counters
    }

    /// Counters for the tokens of one more owner.
    pub(super) fn new_token_counters(&self) -> Arc<SharedCounters> {
        let counters = Arc::<SharedCounters>::default();
        lock(&self.tokens).push(counters.clone());
        counters
    }

    /// All numbers, now.
    fn collect(&self) -> Counters {
        let tokens = lock(&self.tokens);
        let shared = std::iter::once(&self.counters).chain(tokens.iter());
        let mut counters = Counters::collect(&lock(&self.queues), shared);
        if let Some(watch) = self.watch() {
            let numbers = watch.numbers();
            counters.yields = numbers.yields;
            counters.put_back = numbers.put_back;
            counters.yield_looks = numbers.looks;
        }
        counters
    }

    /// Queues to be stopped at the end.
    pub(super) fn set_owners(&self, owners: &[Arc<Owner>]) {
        *lock(&self.owners) = owners.to_vec();
    }

    pub(super) fn set_notifier(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    pub(super) fn set_watch(&self, watch: Result<Arc<Watch>, String>) {
        let _ = self.watch.set(watch);
    }

    /// Lets the calling queue thread yield, where that is wanted and allowed.
    pub(super) fn join_watch(&self) -> Option<Yielder> {
        self.watch().and_then(Watch::join)
    }

    fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.get().and_then(|watch| watch.as_ref().ok())
    }

    /// Starts a thread that calls the handler. `work` returns how the mount ended, if it knows.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: String,
        work: impl FnOnce() -> Option<End> + Send + 'static,
    ) -> Result<(), TransportFault> {
        self.alive.fetch_add(1, Ordering::AcqRel);
        let shared = self.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let end = work();
            if let Some(end) = end {
                shared.ended(end);
            }
            shared.leave();
        });
        match thread {
            Ok(thread) => {
                lock(&self.threads).push(thread);
                Ok(())
            }
            Err(error) => {
                self.leave();
                Err(TransportFault::system("cannot start a thread")(error))
            }
        }
    }

    /// Starts a thread that never calls the handler.
    pub(super) fn spawn_helper(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Thread, TransportFault> {
        let started = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(TransportFault::system("cannot start a thread"))?;
        let thread = started.thread().clone();
        lock(&self.threads).push(started);
        Ok(thread)
    }

    /// The mount is gone: the first to say so says how, and the queues stop.
    ///
    /// A thread that failed leaves requests behind that nobody will answer, so the connection is cut; the threads
    /// that learn of it then come here again. One that fails when the mount has ended already cuts nothing: the number
    /// of the connection may be another mount's by then.
    pub(super) fn ended(&self, end: End) {
        let failure = if let End::Failed(why) = &end { Some(why.clone()) } else { None };
        let mut known = lock(&self.end);
        let first = known.is_none();
        known.get_or_insert(end);
        drop(known);
        if let (Some(why), true) = (&failure, first) {
            let cut = self.abort();
            tracing::error!("a transport thread stopped: {why}; the connection was cut: {cut:?}");
            return;
        }
        for owner in lock(&self.owners).iter() {
            owner.stop();
        }
    }

    /// Cuts the connection.
    pub(super) fn abort(&self) -> std::io::Result<()> {
        connection::abort(self.connection, self.mount_point.as_deref())
    }

    /// One thread less; the last one tells the handler. The queues' memory goes with the last token.
    pub(super) fn leave(&self) {
        if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(notifier) = self.notifier.get() {
                notifier.stop();
            }
            if let Some(watch) = self.watch() {
                watch.stop();
            }
            self.handler.destroyed();
            lock(&self.owners).clear();
        }
    }
}

/// None of the transport's locks guards a state that a panic could leave half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mount that is being served. Dropping it leaves the threads to serve on until the mount ends.
pub struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) negotiated: Negotiated,
    pub(super) fallback: Option<String>,
}

impl Running {
    /// Waits until the mount has ended and every thread with it.
    pub fn wait(self) -> End {
        loop {
            // Not held while joining: the threads take it too.
            let Some(thread) = lock(&self.shared.threads).pop() else { break };
            let _ = thread.join();
        }
        lock(&self.shared.end).clone().unwrap_or(End::Unmounted)
    }

    /// Whether the mount has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        lock(&self.shared.end).is_some()
    }

    /// The transport in use.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.negotiated.kind
    }

    /// What is in force.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Why a better transport is not in use, and what to do about it.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Why the queue threads of *uring* never yield. The other transports have none.
    #[must_use]
    pub fn why_no_yield(&self) -> Option<&str> {
        let watch = self.shared.watch.get().filter(|_| self.negotiated.kind == Kind::Uring);
        watch.and_then(|watch| watch.as_ref().err()).map(String::as_str)
    }

    /// All numbers, now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.collect()
    }

    /// For whoever shows the numbers of a mount that another waits for.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: self.shared.clone() }
    }

    /// Cuts the connection: every request ends with an error, and so do the threads. The mount stays until it is
    /// unmounted. For a mount that hangs, or whose server must go.
    ///
    /// # Errors
    /// What the system says: `EACCES` to who is neither root nor the mount's owner; `NotFound` if the number of the
    /// connection cannot be known (before Linux 6.17 it must be given in the options) or `/sys/fs/fuse/connections`
    /// is not mounted, and the options do not say where the mount is.
    pub fn abort(&self) -> std::io::Result<()> {
        self.shared.abort()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("negotiated", &self.negotiated)
            .field("fallback", &self.fallback)
            .finish()
    }
}

/// Reads the counters of a mount; cheap to clone.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

impl Monitor {
    /// All numbers, now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.collect()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Monitor")
    }
}
