//! One mounted volume: ties the namespace, the mutation log and the link together.
//!
//! In: what operations want to know ([`Mount::ask`]) or to change ([`Mount::accept`], then [`Mount::apply`]), and the
//! kernel's interrupts. Out: answers and outcomes, each to the closure that came with the question, on the thread that
//! received it; with a server in this process that is the thread that asked. Nothing here waits for the network,
//! [`Mount::leave`] apart.
//!
//! A change goes through the log: it gets its ticket and its bytes there before it is sent, and is settled when its
//! outcome has been told. Until leases exist a batch holds one mutation, and its caller waits for it.
//!
//! A server that is away makes everybody wait, as a hard mount does. Who is killed meanwhile need not wait for the answer
//! to a question; a change is never given up.
#![forbid(unsafe_code)]

mod drops;

mod grace;

mod pending;

mod watch;

use super::link::{Batch, Held, Link, LinkFault, LinkOptions, LinkStatus, Owner, Target, Tickets};
use super::namespace::Namespace;
use super::oplog::{Bounds, Record, Refused, SharedLog};
use crate::base::{Caller, Errno};
use crate::wire::hello::Welcome;
use crate::wire::{Answer, Done, LockKind, LockRequest, Mutation, Origin, Outcome, Query, Ticket, mutation};
use grace::Grace;
use pending::Pending;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use watch::Watch;

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

/// A change that has its place in the log; [`Mount::apply`] sends it.
#[derive(Debug)]
#[must_use = "a change that is not applied holds up all later ones in the log"]
pub struct Change(Accepted);

#[derive(Debug)]
enum Accepted {
    Logged(Record),
    /// The log is full; the change in a form that owns its bytes.
    Waiting {
        caller: Caller,
        body: Vec<u8>,
        payload: Vec<u8>,
    },
    Refused(Errno),
}

/// See the module.
pub struct Mount {
    /// What the kernel and the programs have in their hands.
    pub namespace: Namespace,
    /// For what the link calls with a plain reference.
    myself: Weak<Self>,
    log: SharedLog,
    link: Arc<Link>,
    pending: Pending,
    grace: Grace,
    watch: Watch,
    /// The server is not in this process.
    remote: bool,
    /// `FOPEN_*` of every open file; decided at INIT.
    open_mode: AtomicU32,
    /// The kernel ended the mount or the program left it.
    left: AtomicBool,
    left_with: OnceLock<Result<(), Errno>>,
}

/// What `ringfs status` shows of a mount.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct MountStatus {
    /// Inodes the kernel knows, or that are held.
    pub inodes_known: usize,
    /// Inodes the server holds for this mount.
    pub inodes_held: usize,
    /// Inodes without a name that are kept alive by this mount.
    pub inodes_orphaned: usize,
    /// Open files and directories.
    pub handles_open: usize,
    /// Locks granted.
    pub locks_granted: usize,
    /// Changes without an outcome.
    pub mutations_unsettled: usize,
    /// Bytes of them.
    pub mutation_bytes_unsettled: usize,
    /// Changes that wait for room in the log.
    pub mutations_parked: usize,
    /// The way to the server.
    pub link: LinkStatus,
}

impl Mount {
    /// Connects to the server.
    ///
    /// # Errors
    /// [`LinkFault`], one line for the user.
    pub fn open(target: Target, options: LinkOptions) -> Result<(Arc<Self>, Welcome), LinkFault> {
        let log = SharedLog::new(Bounds::default());
        let options = LinkOptions { settled: log.settled_counter(), ..options };
        let remote = !matches!(target, Target::Local { .. });
        let (link, welcome) = Link::open(target, options)?;
        let mount = Arc::new_cyclic(|myself| Self {
            myself: Weak::clone(myself),
            namespace: Namespace::default(),
            log,
            link,
            pending: Pending::default(),
            grace: Grace::default(),
            watch: Watch::default(),
            remote,
            open_mode: AtomicU32::new(0),
            left: AtomicBool::new(false),
            left_with: OnceLock::new(),
        });
        let owner: Weak<dyn Owner> = mount.myself.clone();
        mount.link.set_owner(owner);
        Ok((mount, welcome))
    }

    /// Asks the server. `done` gets the answer exactly once, possibly before this returns.
    pub fn ask<F>(self: &Arc<Self>, interrupt: Interrupt, query: &Query<'_>, done: F)
    where
        F: FnOnce(Result<Answer<'_>, Errno>) + Send + 'static,
    {
        let (asker, lock) = match interrupt {
            Interrupt::Lock(asker) => (asker, true),
            Interrupt::WhenAway(asker) if self.remote => (asker, false),
            Interrupt::WhenAway(_) | Interrupt::Never => {
                self.link.call(query, done);
                return;
            }
        };
        let unique = asker.unique;
        self.pending.begin(asker, lock);
        let mount = Arc::clone(self);
        let sequence = self.link.call(query, move |answer| {
            mount.pending.end(unique);
            done(answer);
        });
        if self.pending.asked(unique, sequence) {
            self.interrupted(unique);
        }
    }

    /// Takes a change into the log. What it borrows is copied here, once.
    pub fn accept(&self, caller: Caller, mutation: &Mutation<'_>) -> Change {
        Change(match self.log.accept(caller, mutation) {
            Ok(record) => Accepted::Logged(record),
            Err(Refused::TooLarge) => Accepted::Refused(Refused::TooLarge.errno()),
            Err(Refused::Full) => {
                let (mut body, mut payload) = (Vec::new(), Vec::new());
                let origin = Origin::waited(Ticket(0), caller);
                mutation::encode(&mut body, &mut payload, origin, mutation);
                Accepted::Waiting { caller, body, payload }
            }
        })
    }

    /// Sends a change. `done` gets its outcome exactly once, possibly before this returns.
    pub fn apply<F>(self: &Arc<Self>, change: Change, done: F)
    where
        F: FnOnce(Result<Done, Errno>) + Send + 'static,
    {
        match change.0 {
            Accepted::Logged(record) => self.send(record, done),
            Accepted::Refused(errno) => done(Err(errno)),
            Accepted::Waiting { caller, body, payload } => self.wait_for_room(caller, body, payload, done),
        }
    }

    /// [`Self::accept`] and [`Self::apply`], for those who have nothing to do in between.
    pub fn mutate<F>(self: &Arc<Self>, caller: Caller, mutation: &Mutation<'_>, done: F)
    where
        F: FnOnce(Result<Done, Errno>) + Send + 'static,
    {
        self.apply(self.accept(caller, mutation), done);
    }

    fn send<F>(self: &Arc<Self>, record: Record, done: F)
    where
        F: FnOnce(Result<Done, Errno>) + Send + 'static,
    {
        let ticket = record.ticket;
        let batch = Batch { tickets: Tickets::One(ticket), body: record.body, payload: record.payload };
        let mount = Arc::clone(self);
        self.link.batch(batch, move |outcomes| {
            let outcome = match outcomes {
                Ok([Outcome { result, .. }]) => *result,
                // The link has compared the tickets: one was asked for.
                Ok(_) => Err(Errno::EIO),
                Err(errno) => Err(errno),
            };
            // First told, then settled: a frame that says "settled" comes from a client that has taken note.
            done(outcome);
            mount.log.settle(ticket);
        });
    }

    fn wait_for_room<F>(self: &Arc<Self>, caller: Caller, body: Vec<u8>, payload: Vec<u8>, done: F)
    where
        F: FnOnce(Result<Done, Errno>) + Send + 'static,
    {
        let mount = Arc::clone(self);
        let waiting = Arc::new((body, payload));
        let bytes = Arc::clone(&waiting);
        let Some(mutation) = own_mutation(&waiting.0, &waiting.1) else { return done(Err(Errno::EIO)) };
        self.log.park(
            &mutation,
            Box::new(move |claim| match (claim, own_mutation(&bytes.0, &bytes.1)) {
                (Ok(claim), Some(mutation)) => {
                    let record = mount.log.fill(claim, caller, &mutation);
                    mount.send(record, done);
                }
                (Ok(claim), None) => {
                    mount.log.abandon(claim);
                    done(Err(Errno::EIO));
                }
                (Err(errno), _) => done(Err(errno)),
            }),
        );
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

    /// Makes all that was answered before durable; `done` hears when.
    pub fn flush<F>(self: &Arc<Self>, done: F)
    where
        F: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let query = Query::Sync { ino: None, data_only: false };
        self.ask(Interrupt::Never, &query, move |answer| done(answer.map(|_| ())));
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
        self.link.close(until.saturating_duration_since(Instant::now()));
        *self.left_with.get_or_init(|| result)
    }

    /// Numbers for the operator.
    #[must_use]
    pub fn status(&self) -> MountStatus {
        let inodes = self.namespace.inodes.counts();
        let (unsettled, bytes, parked) = self.log.with(|log| (log.len(), log.bytes(), log.parked()));
        MountStatus {
            inodes_known: inodes.known,
            inodes_held: inodes.held,
            inodes_orphaned: inodes.orphans,
            handles_open: self.namespace.handles.len(),
            locks_granted: self.namespace.locks.all().len(),
            mutations_unsettled: unsettled,
            mutation_bytes_unsettled: bytes,
            mutations_parked: parked,
            link: self.link.status(),
        }
    }
}

impl Owner for Mount {
    fn held(&self) -> Held {
        Held { holds: self.namespace.inodes.all_held(), locks: self.namespace.locks.asserted() }
    }

    fn lost(&self) {
        let locks = self.namespace.locks.all();
        let open = self.namespace.inodes.lost();
        if !locks.is_empty() || !open.is_empty() {
            tracing::error!(
                locks = locks.len(),
                open = open.len(),
                "the server has forgotten this mount: its locks are gone, and open files that have no name"
            );
        }
        for (ino, lock) in locks {
            self.namespace.locks.granted(ino, LockRequest { kind: LockKind::Unlock, ..lock });
        }
        let Some(mount) = self.myself.upgrade() else { return };
        for ino in open {
            // The first attempt fails with the old session, which clears the way for the second.
            mount.hold_again(ino, 3);
        }
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("link", &self.link).finish_non_exhaustive()
    }
}

/// Reads back what `accept` encoded.
fn own_mutation<'a>(body: &'a [u8], payload: &'a [u8]) -> Option<Mutation<'a>> {
    mutation::decode_batch(body, payload).next()?.ok()?.1.ok()
}
