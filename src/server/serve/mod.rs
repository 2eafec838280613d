//! The server: connections come in, frames are worked on, answers go out.
//!
//! Comes in: connections ([`listen`]), or frames of the mount in the same process ([`Server::local`]). Goes out: answers.
//! A connection is shaken hands with ([`handshake`]), then its own thread reads its frames and works on them one after
//! the other ([`dispatch`]); what has to wait (locks, `Sync`) is answered by other threads, over an output that never
//! makes them wait ([`output`]). A fault of a peer closes its connection and nothing else.
//!
//! | per small request | socket | same process |
//! |---|---|---|
//! | system calls of the server | 1 receive, 1 send | 0 |
//! | wake-ups beyond the reader's own | 0, unless the peer does not take its answers | 0 |
//!
//! Absent on purpose: TLS, and more than one volume.

mod accept;
mod accept_ring;
mod address;
mod admit;
mod connection;
mod dispatch;
mod frames;
mod handshake;
pub mod listen;
mod local;
mod needs;
mod output;
mod secret;
mod socket;
mod status;

#[cfg(test)]
mod tests;

pub use address::Listen;
pub use listen::ListenFault;
pub use local::{CarriedPeer, LocalPeer};
pub use secret::Secret;

use crate::base::Errno;
use crate::server::apply::Volume;
use crate::server::session::{Clock, LeaseLimits, Local, LockLimits, SessionOptions, Sessions};
use crate::wire::Notices;
use crate::wire::hello::{Hello, Refusal, Welcome};
use connection::Connections;
use dispatch::{Member, Membership, Standing};
use listen::Listening;
use status::Counters;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a server behaves.
#[derive(Clone)]
pub struct ServeOptions {
    /// A session that is silent for longer is over, 100 ms to 1 hour.
    pub lease: Duration,
    /// How long clients may take to come back after a restart of the server.
    pub grace: Duration,
    /// What clients must know to be let in. Without it only this host is served.
    pub secret: Option<Secret>,
    /// Bounds of locks.
    pub locks: LockLimits,
    /// Bounds of leases.
    pub leases: LeaseLimits,
    /// Most connections at a time; each has two threads.
    pub connections_max: usize,
    /// Longest time a handshake may take.
    pub handshake: Duration,
    /// Whether TCP connections are accepted through io_uring where that is allowed.
    pub ring: bool,
    /// The clock of leases and grace.
    pub clock: Clock,
}

impl Default for ServeOptions {
    fn default() -> Self {
        let started = Instant::now();
        // Long enough to come through a short cut of the network with all that was accepted, and for the kernel to keep
        // names meanwhile; NFS takes 90 seconds, Ceph 60.
        let lease = Duration::from_secs(30);
        Self {
            lease,
            grace: lease,
            secret: None,
            locks: LockLimits::default(),
            leases: LeaseLimits::default(),
            connections_max: 1024,
            handshake: Duration::from_secs(5),
            ring: true,
            clock: Arc::new(move || started.elapsed()),
        }
    }
}

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeFault {
    /// A time out of range.
    #[error("a lease of {ms} ms is out of range: give 100 ms to 1 h")]
    Lease {
        /// What was asked for.
        ms: u128,
    },
    /// The store refused.
    #[error("the store cannot be used ({0}): see the log, and run `ringfs fsck` on it")]
    Store(Errno),
    /// The system gives no thread.
    #[error("the system gives no thread ({0}): raise the limit of processes")]
    Thread(std::io::Error),
}

/// What all threads of a server share.
pub(crate) struct Core {
    volume: Arc<Volume>,
    sessions: Sessions,
    options: ServeOptions,
    epoch: u64,
    counters: Counters,
    connections: Connections,
    started: Instant,
    /// No new connections, sessions or frames by socket.
    stopping: AtomicBool,
    /// No frames at all.
    closed: AtomicBool,
}

/// A running server. [`Server::shutdown`] ends it in order; dropped without, it ends as a crash would.
pub struct Server {
    core: Arc<Core>,
    listening: Mutex<Vec<Listening>>,
    ticker: Arc<Ticker>,
}

impl Server {
    /// Starts a server on a volume. It serves nobody before [`Server::local`] or [`Server::listen`].
    ///
    /// # Errors
    /// See [`ServeFault`].
    pub fn open(volume: Volume, options: ServeOptions) -> Result<Self, ServeFault> {
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&options.lease) {
            return Err(ServeFault::Lease { ms: options.lease.as_millis() });
        }
        let volume = Arc::new(volume);
        let epoch = volume.next_epoch().map_err(ServeFault::Store)?;
        let sessions =
            Sessions::open(Arc::clone(&volume), options.session_options(epoch)).map_err(ServeFault::Store)?;
        guard(&volume, &sessions, &options);
        let core = Arc::new(Core {
            volume,
            sessions,
            epoch,
            counters: Counters::default(),
            connections: Connections::new(options.connections_max),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            options,
        });
        // Where the volume has no threads, the server has none either.
        let ticker = if core.volume.has_threads() { Ticker::start(&core)? } else { Ticker::none() };
        Ok(Self { core, listening: Mutex::default(), ticker })
    }

    /// A session of the process the server lives in: frames are worked on by the thread that brings them, and notices go to
    /// `notices`. It does not expire, and ends when the peer is dropped.
    ///
    /// # Errors
    /// The refusal a remote client would get; the secret is not asked for.
    pub fn local(&self, hello: &Hello, notices: Notices) -> Result<(LocalPeer, Welcome), Refusal> {
        LocalPeer::new(&self.core, hello, notices)
    }

    /// A connection whose frames are carried by other means than a socket; `closed` is called when the server ends it. It is
    /// lost when the peer is dropped; its session lives on as that of any connection that was lost.
    ///
    /// # Errors
    /// The refusal that a remote client would get; the secret is not asked for.
    pub fn carried(
        &self,
        hello: &Hello,
        notices: Notices,
        closed: Box<dyn Fn() + Send + Sync>,
    ) -> Result<(CarriedPeer, Welcome), Refusal> {
        CarriedPeer::new(&self.core, hello, notices, closed)
    }

    /// Listens at an address. Returns the address as a client would name it, with the port the system chose for 0.
    ///
    /// # Errors
    /// See [`ListenFault`].
    pub fn listen(&self, at: &Listen) -> Result<String, ListenFault> {
        let listening = Listening::start(&self.core, at)?;
        let address = listening.address().to_owned();
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).push(listening);
        Ok(address)
    }

    /// The state of the server as JSON, the same as `Query::Status` answers.
    #[must_use]
    pub fn status(&self) -> String {
        self.core.status()
    }

    /// Lets time pass for leases and grace. A thread does it a few times per lease; a test that moves the clock itself
    /// need not wait for that.
    pub fn tick(&self) {
        self.core.sessions.tick();
        self.core.settle();
    }

    /// Lets a volume without threads do what is due ([`Volume::work`]).
    pub fn work(&self) {
        self.core.volume.work();
        self.core.settle();
    }

    /// Ends the server: accepts nobody, finishes the frames in hand, makes all durable, closes the volume. Sessions stay
    /// known, so that their clients can come back to the next server on this store; the one in this process should have
    /// been dropped before. Later calls do nothing.
    ///
    /// # Errors
    /// The disk refused: what was not synced may be lost.
    pub fn shutdown(&self) -> Result<(), ServeFault> {
        if self.core.stopping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let listening = std::mem::take(&mut *self.listening.lock().unwrap_or_else(PoisonError::into_inner));
        listening.into_iter().for_each(Listening::stop);
        self.ticker.stop();
        if !self.core.connections.finish(FINISH_WAIT) {
            tracing::warn!("some connections did not end in time and are cut");
        }
        self.core.closed.store(true, Ordering::Release);
        self.core.sessions.wait_idle(FINISH_WAIT);
        self.core.sessions.leases.close();
        self.core.volume.close().map_err(ServeFault::Store)
    }
}

/// Ties the volume to the leases: what it asks before a local mutation, and whom it tells what is durable.
fn guard(volume: &Volume, sessions: &Sessions, options: &ServeOptions) {
    let (leases, clock) = (Arc::clone(&sessions.leases), Arc::clone(&options.clock));
    volume.set_gate(Box::new(move |session, mutation| {
        let needs = needs::of_mutation(mutation);
        match leases.local(session, needs.writes.as_slice(), needs.makes, clock()) {
            Local::Free => Ok(()),
            Local::Leased => Err(Errno::EAGAIN),
            Local::NotItsNumber => Err(Errno::EINVAL),
        }
    }));
    let leases = Arc::clone(&sessions.leases);
    volume.on_durable(Box::new(move |commit| leases.durable(commit)));
}

/// How long frames in hand and answers may take when the server ends.
const FINISH_WAIT: Duration = Duration::from_secs(5);

impl Drop for Server {
    fn drop(&mut self) {
        // Threads hold the core, so they have to be told.
        self.core.stopping.store(true, Ordering::Release);
        let listening = std::mem::take(&mut *self.listening.lock().unwrap_or_else(PoisonError::into_inner));
        listening.into_iter().for_each(Listening::stop);
        self.ticker.stop();
        self.core.connections.cut();
        self.core.sessions.leases.close();
    }
}

impl ServeOptions {
    fn session_options(&self, epoch: u64) -> SessionOptions {
        SessionOptions {
            lease: self.lease,
            grace: self.grace,
            locks: self.locks,
            leases: self.leases,
            epoch,
            clock: Arc::clone(&self.clock),
        }
    }
}

impl Core {
    /// From now on the member is sent notices, if it wants them.
    fn listens(&self, member: &Member, notices: Notices) {
        if let Standing::Session(Membership { session, link, leases: true, .. }) = &member.standing {
            self.sessions.leases.connect(session.id, *link, member.version, notices);
            self.settle();
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The thread that lets time pass.
struct Ticker {
    stopped: Mutex<bool>,
    wake: Condvar,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Ticker {
    fn none() -> Arc<Self> {
        Arc::new(Self { stopped: Mutex::new(false), wake: Condvar::new(), thread: Mutex::default() })
    }

    fn start(core: &Arc<Core>) -> Result<Arc<Self>, ServeFault> {
        let ticker = Self::none();
        // Ten times per lease: a session ends at most a tenth late.
        let pause = (core.options.lease.min(core.options.grace) / 10)
            .clamp(Duration::from_millis(10), Duration::from_secs(1));
        let (own, core) = (Arc::clone(&ticker), Arc::clone(core));
        let work = move || {
            let mut stopped = own.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            while !*stopped {
                stopped = own.wake.wait_timeout(stopped, pause).unwrap_or_else(PoisonError::into_inner).0;
                core.sessions.tick();
                core.settle();
            }
        };
        let thread = std::thread::Builder::new().name("ringfs-leases".to_owned()).spawn(work);
        *ticker.thread.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(thread.map_err(ServeFault::Thread)?);
        Ok(ticker)
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic there was printed by the panic hook already.
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}
