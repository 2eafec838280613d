//! The transport: requests of one mount in, answers out. It knows nothing of files.
//!
//! In: a mounted `/dev/fuse` and a [`Handler`]. Out: a [`Running`] mount. Three ways, the same for the handler:
//! *uring* (FUSE over io_uring, a queue per core), *ring* (`/dev/fuse` through a plain io_uring) and *blocking*
//! (`/dev/fuse` with read and write). Every thread is the transport's own; nothing here is shared between mounts.
//! Absent on purpose: splice (measured slower, and not to be had over a ring), spinning (it starves clients on the same
//! core), SQPOLL (a second thread per core).

mod blocking;
mod call;
mod channel;
mod connection;
mod counters;
mod cpus;
mod dispatch;
mod fault;
mod handler;
mod lent;
pub mod mount;
mod notify;
pub mod options;
mod probe;
mod ring;
mod running;
mod session;
mod uring;
mod yielding;

pub use call::{Args, Call, Token, Verdict, WAITS_MAX};
pub use counters::Counters;
pub use fault::TransportFault;
pub use handler::{Handler, IO_BYTES_MIN, Negotiated, Offered, Wanted};
pub use mount::{DEVICE, MountFault, mount, unmount};
pub use notify::{Completion, NOTICES_MAX, Notice, Notifier, PRUNE_MAX, Refused};
pub use options::{MountOptions, SUBTYPE, Taken};
pub use running::{End, Monitor, Running};
pub use yielding::may_yield;

use crate::kernel::abi::InitFlags;
use blocking::Worker;
use channel::Channel;
use counters::SharedCounters;
use dispatch::Dispatcher;
use notify::NotifierWork;
use ring::RingWorker;
use running::Shared;
use session::Session;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use yielding::Watch;

/// Which transport to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// The best that works, with one warning if it is not uring.
    #[default]
    Auto,
    /// This one, or an error.
    Only(Kind),
}

/// A transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// FUSE over io_uring.
    Uring,
    /// `/dev/fuse` through io_uring.
    Ring,
    /// `/dev/fuse` with read(2) and write(2).
    Blocking,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Ring => "ring",
            Self::Blocking => "blocking",
        })
    }
}

impl std::str::FromStr for Choice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Only(Kind::Uring)),
            "ring" => Ok(Self::Only(Kind::Ring)),
            "blocking" => Ok(Self::Only(Kind::Blocking)),
            _ => Err(format!("unknown transport {text:?}: use auto, uring, ring or blocking")),
        }
    }
}

/// How to serve a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which transport.
    pub choice: Choice,
    /// Threads of *ring* and *blocking*; none: see [`CLASSIC_THREADS`]. *uring* has one for each usable CPU.
    pub threads: Option<usize>,
    /// Entries of each *uring* queue: requests of one core that may be with the handler or its tokens at a time. Each
    /// reserves address space of `max_write` bytes; memory is used only for what requests have touched. More are added
    /// when tokens have half of them.
    pub queue_depth: usize,
    /// How long the device is left alone after FORGETs beside *uring*, so that they gather into batches. Delays
    /// INTERRUPTs by as much.
    pub forget_pause: Duration,
    /// Threads of *uring* yield while many requests come: they step behind the programs on their core. Where that is not allowed they
    /// do not, and [`Running::why_no_yield`] says so.
    pub yields: bool,
    /// Number of the connection (the minor part of the mount's `st_dev`), for [`Running::abort`] on kernels before 6.17.
    pub connection: Option<u32>,
    /// Where it is mounted, for [`Running::abort`] where `/sys/fs/fuse/connections` is not mounted.
    pub mount_point: Option<PathBuf>,
    /// For tests on slow machines: how often queues that yield are looked after, which is also the time in which a few requests
    /// have to come.
    #[doc(hidden)]
    pub yield_tick: Duration,
    /// For tests of the fallback: tells the kernel that payloads have this size, so that it refuses them.
    #[doc(hidden)]
    pub claim_payload_bytes: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            choice: Choice::Auto,
            threads: None,
            queue_depth: QUEUE_DEPTH,
            forget_pause: FORGET_PAUSE,
            yields: true,
            yield_tick: yielding::TICK,
            connection: None,
            mount_point: None,
            claim_payload_bytes: None,
        }
    }
}

/// Entries of a queue. One is enough for a handler that answers at once (508k against 536k requests/s at 8 clients);
/// deferred ones hold theirs for a round trip to the server.
pub const QUEUE_DEPTH: usize = 32;

/// Short against what a person notices of a signal, long against the time between two FORGETs of a busy mount.
pub const FORGET_PAUSE: Duration = Duration::from_millis(2);

/// Threads that read the device without *uring*, if nothing else is said: more than one makes a single client slower,
/// since the kernel wakes them in turn and each wake-up of another core costs 40 us and more on a virtual machine.
pub const CLASSIC_THREADS: usize = 2;

/// Serves the mount behind `device`: answers INIT and starts the threads. `device` must be mounted already. When the
/// returned [`Running`] is dropped, the threads serve on until the mount ends.
///
/// # Errors
/// Why the mount cannot be served; the device is closed then, which ends the mount for those who use it.
pub fn serve(
    device: OwnedFd,
    handler: Arc<dyn Handler>,
    options: &Options,
) -> Result<Running, TransportFault> {
    let counters = Arc::new(SharedCounters::default());
    let connection = options.connection.or_else(|| connection::number(device.as_raw_fd()).ok());
    let channel = Arc::new(Channel::new(device, counters.clone()));
    channel.set_nonblocking(false).map_err(TransportFault::errno("cannot set flags of the FUSE device"))?;
    let session = Session::read(&channel)?;
    let wanted = handler.init(&session.offered);
    let shared = Arc::new(Shared::new(handler, counters, connection, options.mount_point.clone()));
    let result = Start { channel, session, wanted, shared: shared.clone(), options }.start();
    // The starter's own share: from here on the mount may end.
    shared.leave();
    result
}

/// The pieces while a mount is being started.
struct Start<'o> {
    channel: Arc<Channel>,
    session: Session,
    wanted: Wanted,
    shared: Arc<Shared>,
    options: &'o Options,
}

impl Start<'_> {
    fn start(self) -> Result<Running, TransportFault> {
        let (uring, mut fallback) = match self.options.choice {
            Choice::Auto => self.try_uring(false),
            Choice::Only(Kind::Uring) => self.try_uring(true),
            Choice::Only(_) => (None, None),
        };
        let mut kind = match (&uring, self.options.choice) {
            (Some(_), _) => Kind::Uring,
            (None, Choice::Only(Kind::Uring)) => {
                return Err(TransportFault::Unavailable {
                    kind: Kind::Uring,
                    why: fallback.unwrap_or_default(),
                });
            }
            (None, Choice::Only(kind)) => kind,
            (None, Choice::Auto) => without_uring(&mut fallback),
        };
        if kind == Kind::Ring {
            ring::build()
                .map_err(|error| TransportFault::Unavailable { kind, why: probe::ring_refusal(&error) })?;
        }
        let queues = uring.as_ref().map_or(0, |prepared| prepared.owners.len());
        let classic = self.classic_threads();
        let mut negotiated = self.session.negotiate(&self.wanted, kind, queues + classic);
        let (notifier, work) = Notifier::new(self.channel.clone());
        self.start_notifier(notifier.clone(), work)?;
        self.shared.handler.started(&negotiated, notifier);
        self.session.answer(&self.channel, &self.wanted, &negotiated)?;

        if let Some(prepared) = uring {
            self.shared.set_owners(&prepared.owners);
            if let Err(why) = prepared.register(&negotiated) {
                fallback = Some(why);
                kind = without_uring(&mut fallback);
                negotiated.kind = kind;
            }
        }
        if let (Some(why), Choice::Auto) = (&fallback, self.options.choice) {
            tracing::warn!("FUSE over io_uring is not used, small files will be 2-4 times slower: {why}");
        }
        // Beside queues one thread reads what comes over the device only.
        let readers = if kind == Kind::Uring { 1 } else { classic };
        for number in 0..readers {
            self.start_reader(&negotiated, queues, number)?;
        }
        Ok(Running { shared: self.shared, negotiated, fallback })
    }

    /// Threads with rings, or why there are none.
    fn try_uring(&self, forced: bool) -> (Option<uring::Prepared>, Option<String>) {
        if let Some(why) = probe::uring_refusal(self.session.offered.flags, forced) {
            return (None, Some(why));
        }
        // Before there are queues that want to join it.
        self.shared.set_watch(self.start_watch());
        let agreed = self.session.negotiate(&self.wanted, Kind::Uring, 0);
        let payload_bytes = session::payload_bytes(agreed.max_write);
        let plan = uring::plan(self.options.queue_depth, payload_bytes, self.options.claim_payload_bytes);
        let prepared = plan
            .map_err(|fault| fault.to_string())
            .and_then(|plan| uring::Prepared::new(&plan, &self.shared, &self.channel));
        match prepared {
            Ok(prepared) => (Some(prepared), None),
            Err(why) => (None, Some(why)),
        }
    }

    fn classic_threads(&self) -> usize {
        let usable = cpus::usable().map_or(1, |list| list.len());
        self.options.threads.unwrap_or(CLASSIC_THREADS.min(usable)).max(1)
    }

    fn start_notifier(&self, notifier: Notifier, work: NotifierWork) -> Result<(), TransportFault> {
        self.shared.set_notifier(notifier);
        self.shared.spawn_helper("ringfs-notify", move || work.run()).map(drop)
    }

    /// Starts the watch of queues that yield.
    ///
    /// # Errors
    /// Why they do not.
    fn start_watch(&self) -> Result<Arc<Watch>, String> {
        if !self.options.yields {
            return Err("it is switched off".to_owned());
        }
        may_yield()?;
        let watch = Watch::new(self.options.yield_tick);
        let own = watch.clone();
        let thread = self.shared.spawn_helper("ringfs-yield", move || own.run());
        watch.runs_on(thread.map_err(|fault| fault.to_string())?);
        Ok(watch)
    }

    /// Starts the `number`th thread that reads the device. The first one uses the descriptor itself, the others a
    /// clone, so that they do not share a list of unanswered requests and its lock.
    fn start_reader(&self, agreed: &Negotiated, queues: usize, number: usize) -> Result<(), TransportFault> {
        let channel = if number == 0 { None } else { self.channel.clone_device().ok().map(Arc::new) };
        let channel = channel.unwrap_or_else(|| self.channel.clone());
        let message_bytes = session::message_bytes(agreed.max_write);
        let kind = agreed.kind;
        if kind == Kind::Ring {
            channel
                .set_nonblocking(true)
                .map_err(TransportFault::errno("cannot set flags of the FUSE device"))?;
        }
        let forget_pause =
            (kind == Kind::Uring).then_some(self.options.forget_pause).filter(|pause| !pause.is_zero());
        let dispatcher = Dispatcher {
            handler: self.shared.handler.clone(),
            counters: self.shared.new_counters(),
            thread: queues + number,
            setxattr_ext: agreed.flags.has(InitFlags::SETXATTR_EXT),
        };
        self.shared.spawn(format!("ringfs-dev{number}"), move || {
            Some(match kind {
                Kind::Ring => match RingWorker::new(channel, dispatcher, message_bytes) {
                    Ok(worker) => worker.run(),
                    Err(error) => End::Failed(probe::ring_refusal(&error)),
                },
                Kind::Uring | Kind::Blocking => {
                    Worker { channel, dispatcher, message_bytes, forget_pause }.run()
                }
            })
        })
    }
}

/// The best of the other two: *ring* serves several clients at once better (174k against 138k requests/s at 8
/// threads), *blocking* works where io_uring is forbidden. Adds to the reason why it has to be *blocking*.
fn without_uring(fallback: &mut Option<String>) -> Kind {
    let Err(error) = ring::build() else { return Kind::Ring };
    let why = probe::ring_refusal(&error);
    match fallback {
        Some(text) if !text.contains(&why) => {
            text.push_str("; and ");
            text.push_str(&why);
        }
        Some(_) => {}
        None => *fallback = Some(why),
    }
    Kind::Blocking
}

/// Size of a page: the unit in which the kernel counts what a request may carry.
fn page_bytes() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(4096)
}
