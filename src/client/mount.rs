//! One mounted volume: ties what is known of it, the mutation log and the link together.
//!
//! In: what operations want to know ([`Mount::ask`]) or to change ([`Mount::accept`], then [`Mount::apply`]), and the
//! kernel's interrupts. Out: answers and outcomes, each to the closure that came with the question: at once when leases
//! allow it, else on the thread that received the server's; with a server in this process that is the thread that asked.
//! Nothing here waits for the network, [`Mount::leave`] apart.
//!
//! What is known and what is not sent yet stand behind one lock ([`State`]), so that a change is in both or in neither, and
//! tickets have the order of what callers saw. It is never held across input or output, a reply or a closure.
//!
//! Threads besides those of transport and link: `ringfs-batch` sends what has gathered (`sender`), `ringfs-recall` gives leases
//! back (`recalls`), `ringfs-lease` looks whether they are still good (`leases`).
//!
//! A server that is away makes everybody wait, as a hard mount does. Who is killed meanwhile need not wait for the answer
//! to a question; a change is never given up.
#![forbid(unsafe_code)]

mod ask;

mod asked;

mod caches;

mod change;

mod complete;

mod drops;

mod failures;

mod grace;

mod leases;

mod local;

pub mod numbers;

mod opens;

mod options;

mod pending;

mod recalls;

mod sender;

mod state;

mod status;

mod touched;

mod watch;

use super::late::{Cursor, Late, LateOptions};
use super::link::{Link, LinkFault, LinkOptions, Target, boottime};
use super::namespace::Namespace;
use crate::base::{Errno, HandleId};
use crate::wire::hello::Welcome;
use ask::Ask;
use grace::Grace;
use leases::Lease;
use pending::Pending;
use recalls::Recalls;
use rustc_hash::FxHashMap;
use sender::Sender;
use state::State;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use watch::Watch;

pub use caches::{Kept, KernelCaches, Stale};

pub use change::Change;

pub use options::{CloseWait, Options};

pub use status::MountStatus;

pub use watch::Asker;

/// Which requests an interrupt can end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// None: the answer must be known.
    Never,
    /// When the caller is being killed and the server is away.
    WhenAway(Asker),
    /// It waits for a lock: at any time, by a signal that the caller handles.
    Lock(Asker),
}

/// See the module.
pub struct Mount {
    /// What the kernel and the programs have in their hands.
    pub namespace: Namespace,
    /// For what the link calls with a plain reference.
    myself: Weak<Self>,
    options: Options,
    state: Mutex<State>,
    late: Late,
    /// Anything failed late so far.
    failed_late: AtomicBool,
    /// Of what the last flush of the whole mount has told.
    flushed: Mutex<Cursor>,
    /// What descriptors have seen of that; those that are not in here saw nothing.
    cursors: Mutex<FxHashMap<HandleId, Cursor>>,
    link: Arc<Link>,
    /// [`crate::client::oplog::Log::settled_below`], for the link.
    settled: Arc<AtomicU64>,
    sender: Arc<Sender>,
    /// See [`Mount::send_drops`].
    drops_from: Mutex<Duration>,
    recalls: Arc<Recalls>,
    lease: Arc<Lease>,
    /// Milliseconds after the last sign of life for which leases are used.
    usable_ms: AtomicU64,
    pending: Pending,
    /// Questions that wait for the log and can be called off, by the kernel's number of their request.
    behind: Mutex<FxHashMap<u64, Ask>>,
    grace: Grace,
    watch: Watch,
    /// Leases were asked for.
    leased: bool,
    /// The server is not in this process.
    remote: bool,
    /// `FOPEN_*` of every open file; decided at INIT.
    open_mode: AtomicU32,
    /// The kernel's, once it serves.
    caches: OnceLock<Arc<dyn KernelCaches>>,
    /// The kernel ended the mount or the program left it.
    left: AtomicBool,
    left_with: OnceLock<Result<(), Errno>>,
}

impl Mount {
    /// Connects to the server. Leases are used if `link` asks for them.
    ///
    /// # Errors
    /// [`LinkFault`], one line for the user.
    pub fn open(
        target: Target,
        link: LinkOptions,
        options: Options,
        late: LateOptions,
    ) -> Result<(Arc<Self>, Welcome), LinkFault> {
        let settled = Arc::new(AtomicU64::new(1));
        let link = LinkOptions { settled: Arc::clone(&settled), ..link };
        let leased = link.leases;
        let remote = !matches!(target, Target::Local { .. });
        let (link, welcome) = Link::open(target, link)?;
        let mount = Arc::new_cyclic(|myself| Self {
            myself: Weak::clone(myself),
            namespace: Namespace::default(),
            options,
            state: Mutex::new(State::new(&options, &welcome)),
            late: Late::new(late),
            failed_late: AtomicBool::new(false),
            flushed: Mutex::default(),
            cursors: Mutex::default(),
            link,
            settled,
            sender: Arc::default(),
            drops_from: Mutex::default(),
            recalls: Arc::default(),
            lease: Arc::default(),
            usable_ms: AtomicU64::new(0),
            pending: Pending::default(),
            behind: Mutex::default(),
            grace: Grace::default(),
            watch: Watch::default(),
            leased,
            remote,
            open_mode: AtomicU32::new(0),
            caches: OnceLock::new(),
            left: AtomicBool::new(false),
            left_with: OnceLock::new(),
        });
        let thread = |cause| LinkFault::System { what: "thread", cause };
        mount.start_sender().map_err(thread)?;
        if leased {
            mount.start_recalls().map_err(thread)?;
            mount.start_lease().map_err(thread)?;
        }
        mount.welcomed(&welcome);
        mount.link.set_owner(mount.myself.clone());

        Ok((mount, welcome))
    }

    /// What is known and not sent. Held for moments.
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another thread is that thread's bug; it is told as such, and the rest goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `FOPEN_*` for every open file.
    #[must_use]
    pub fn open_mode(&self) -> u32 {
        self.open_mode.load(Ordering::Relaxed)
    }

    /// Sets [`Self::open_mode`]; at INIT, before anything is open.
    pub fn set_open_mode(&self, open_mode: u32) {
        self.open_mode.store(open_mode, Ordering::Relaxed);
    }

    /// The kernel can be told what to forget; at INIT. Before that it keeps nothing.
    pub fn set_caches(&self, caches: Arc<dyn KernelCaches>) {
        self.state().names_kept = caches.can_forget_names();
        // A second one would be of a second mount, which there is not.
        drop(self.caches.set(caches));
    }

    /// Makes all that was answered before durable; `done` hears when, or that something was lost since the last time.
    pub fn flush<F>(self: &Arc<Self>, done: F)
    where
        F: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let mount = Arc::clone(self);
        self.make_durable(Box::new(move |result| {
            let told = {
                let mut flushed = mount.flushed.lock().unwrap_or_else(PoisonError::into_inner);
                mount.late.check_mount(&mut flushed)
            };
            done(result.and(told));
        }));
    }

    /// Leaves the server: all that was answered is durable, then the session ends and with it what it holds and has
    /// locked. Waits up to `grace`, then leaves without. Later calls give the first one's result.
    ///
    /// # Errors
    /// ETIMEDOUT, or what the server said to the sync.
    pub fn leave(self: &Arc<Self>, grace: Duration) -> Result<(), Errno> {
        if self.left.swap(true, Ordering::AcqRel) {
            return *self.left_with.wait();
        }
        let until = Instant::now() + grace;
        let (told, hears) = sync_channel(1);
        self.flush(move |result| {
            // Nobody listens any more when it came too late.
            let _ = told.send(result);
        });
        let result = hears.recv_timeout(grace).unwrap_or(Err(Errno::ETIMEDOUT));
        self.late.finish();
        self.tell_what_is_left();
        self.recalls.stop();
        self.lease.stop();
        self.sender.stop();
        self.link.close(until.saturating_duration_since(Instant::now()));
        *self.left_with.get_or_init(|| result)
    }

    /// What leaving leaves behind is named in the log of the operator.
    fn tell_what_is_left(&self) {
        let state = self.state();
        let (kept, waiting) = (state.log.len(), state.log.waiting());
        drop(state);
        if kept > 0 {
            tracing::error!(
                not_applied = waiting,
                not_durable = kept,
                "leaving the server with changes that are not safe"
            );
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.recalls.stop();
        self.lease.stop();
        self.sender.stop();
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("link", &self.link).finish_non_exhaustive()
    }
}
