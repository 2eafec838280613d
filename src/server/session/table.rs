//! All sessions of a volume, their leases, and the grace period after a restart.

pub(super) mod numbers;
mod view;

pub use view::SessionView;

use super::desk::LockDesk;
use super::lease_desk::LeaseDesk;
use super::leases::LeaseLimits;
use super::locks::LockLimits;
use super::phase::{Event, Phase};
use super::record::About;
use super::state::{Closer, LinkId, Session, Sweep};
use crate::base::{Errno, Ino, SessionId};
use crate::server::apply::Volume;
use crate::wire::LockRequest;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time since some moment that does not change, by a clock that does not jump (R7.7).
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Most sessions of one volume. Each has a record in the store and may have 2.5 MiB of locks.
const SESSIONS_MAX: usize = 4096;

/// How many ended sessions are remembered. One forgotten is still refused as unknown when it comes back.
const DEAD_MAX: usize = 65_536;

/// So many inode numbers a server may have given out one by one since its disk was last in step: within half a second, with
/// much to spare.
const NUMBERS_LOST_MAX: u32 = 1 << 20;

/// Longest wait for frames of a connection that its own client replaced.
const SUPERSEDED_WAIT: Duration = Duration::from_secs(5);

/// Times and bounds of sessions.
#[derive(Clone)]
pub struct SessionOptions {
    /// A session that is silent for longer is over.
    pub lease: Duration,
    /// How long sessions from before a restart may take to come back.
    pub grace: Duration,
    /// Bounds of locks.
    pub locks: LockLimits,
    /// Bounds of leases.
    pub leases: LeaseLimits,
    /// The server's epoch.
    pub epoch: u64,
    /// The clock.
    pub clock: Clock,
}

/// A client's claim to be or become a session.
pub(crate) struct Claim {
    pub(crate) id: SessionId,
    /// It says that it was one before.
    pub(crate) resumed: bool,
    pub(crate) about: About,
    /// Closes the connection it came on.
    pub(crate) closer: Closer,
}

/// How a claim was answered.
pub(crate) enum Entry {
    /// It is a session.
    Member {
        /// The session.
        session: Arc<Session>,
        /// Number of this connection in it.
        link: LinkId,
        /// It was one before.
        known: bool,
    },
    /// It was one, is not any more, and nothing it sends will be worked on.
    Fenced,
}

/// A claim that cannot be granted; what [`crate::wire::hello::Refusal`] tells.
pub(crate) struct Refused {
    pub(crate) reason: String,
    pub(crate) retry: bool,
}

/// See the module. Order of locks: table, then a session's gate, then the desks. Nothing is waited for under any.
pub(crate) struct Sessions {
    volume: Arc<Volume>,
    options: SessionOptions,
    table: Mutex<Table>,
    /// The locks.
    pub(crate) desk: LockDesk,
    /// The leases.
    pub(crate) leases: Arc<LeaseDesk>,
    links: AtomicU64,
}

struct Table {
    all: FxHashMap<SessionId, Arc<Session>>,
    dead: Dead,
    grace: Option<Grace>,
    /// When orphans that nobody holds may go, after a grace period.
    orphans: Option<Duration>,
}

struct Grace {
    ends: Duration,
    /// Sessions that have not said yet what they hold.
    missing: FxHashSet<SessionId>,
}

#[derive(Default)]
struct Dead {
    ids: FxHashSet<SessionId>,
    order: VecDeque<SessionId>,
}

impl Dead {
    fn insert(&mut self, id: SessionId) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > DEAD_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

impl Sessions {
    /// The sessions the volume knows. Those in the former server's own process died with it; for the others a grace
    /// period begins.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) fn open(volume: Arc<Volume>, options: SessionOptions) -> Result<Self, Errno> {
        let now = (options.clock)();
        let (mut all, mut numbers) = (FxHashMap::default(), Vec::new());
        for (id, record) in volume.sessions()? {
            let about = About::from_bytes(id, &record);
            if about.local {
                volume.end_session(id)?;
            } else {
                numbers.push((id, numbers::ranges(&about)));
                all.insert(id, Arc::new(Session::new(id, about, Phase::Awaited, now)));
            }
        }
        let missing: FxHashSet<SessionId> = all.keys().copied().collect();
        let frozen = !missing.is_empty();
        if frozen {
            let (sessions, grace_ms) = (missing.len(), options.grace.as_millis());
            tracing::info!(sessions, grace_ms, "waiting for the clients of before the restart");
            // What the disk lost with the power may have had the next numbers, and comes back under them.
            volume.take_numbers(NUMBERS_LOST_MAX)?;
            volume.sync_wait()?;
        } else {
            volume.end_grace();
        }
        let grace = frozen.then(|| Grace { ends: now + options.grace, missing });
        let table = Mutex::new(Table { all, dead: Dead::default(), grace, orphans: None });
        let desk = LockDesk::new(options.locks, frozen);
        let leases = Arc::new(LeaseDesk::new(options.leases, options.epoch, frozen));
        numbers.into_iter().for_each(|(id, ranges)| leases.put_numbers(id, ranges));
        Ok(Self { volume, options, table, desk, leases, links: AtomicU64::new(1) })
    }

    /// Answers a claim. A session that comes back replaces all its former connections: their frames are finished or
    /// refused before this returns, so that none of them is worked on after what the new one brings. (Another
    /// connection beside the first one says `resumed: false`.)
    pub(crate) fn claim(&self, claim: Claim) -> Result<Entry, Refused> {
        let now = self.now();
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let (id, resumed, local) = (claim.id, claim.resumed, claim.about.local);
        let (session, known) = {
            let mut table = self.table();
            match table.all.get(&id).cloned() {
                Some(session) => (session, true),
                None if resumed => return Ok(Entry::Fenced),
                None if table.dead.ids.contains(&id) => return Err(Refused::dead()),
                None => (self.found(&mut table, id, claim.about, now)?, false),
            }
        };
        if !session.attach(link, claim.closer, resumed, now) {
            return if resumed { Ok(Entry::Fenced) } else { Err(Refused::dead()) };
        }
        if known && resumed && !session.wait_idle(SUPERSEDED_WAIT) {
            self.detach(&session, link);
            return Err(Refused::later("the server still works on requests of the lost connection"));
        }
        if !known && !local {
            self.make_durable(id, &session, link)?;
        }
        Ok(Entry::Member { session, link, known })
    }

    /// Makes a session and stores its record.
    fn found(
        &self,
        table: &mut Table,
        id: SessionId,
        about: About,
        now: Duration,
    ) -> Result<Arc<Session>, Refused> {
        if table.all.len() >= SESSIONS_MAX {
            return Err(Refused::later("the server has as many clients as it can have"));
        }
        let stored = self.volume.put_session(id, &about.to_bytes());
        stored.map_err(|errno| Refused::later(&format!("the server cannot store the session ({errno})")))?;
        let session = Arc::new(Session::new(id, about, Phase::Lost, now));
        table.all.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// The session is known after a loss of power too, before its client relies on that.
    fn make_durable(&self, id: SessionId, session: &Session, link: LinkId) -> Result<(), Refused> {
        if let Err(errno) = self.volume.sync_wait() {
            tracing::error!(session = %id, %errno, "the record of a new session could not be made durable");
            session.detach(link, self.now());
            return Err(Refused::later("the server's disk does not take writes"));
        }
        Ok(())
    }

    /// Begins the work on a frame; it ends when the value is dropped.
    ///
    /// # Errors
    /// ESTALE: nothing of this session or connection is worked on any more.
    pub(crate) fn take<'s>(&'s self, session: &'s Arc<Session>, link: LinkId) -> Result<InHand<'s>, Errno> {
        session.enter(link, self.now())?;
        Ok(InHand { sessions: self, session })
    }

    /// The same of a frame that came on a connection which may be gone.
    ///
    /// # Errors
    /// ESTALE: the session is over.
    pub(crate) fn take_of_any<'s>(&'s self, session: &'s Arc<Session>) -> Result<InHand<'s>, Errno> {
        session.enter_of_any()?;
        Ok(InHand { sessions: self, session })
    }

    /// A connection is gone.
    pub(crate) fn detach(&self, session: &Session, link: LinkId) {
        session.detach(link, self.now());
        self.leases.disconnect(session.id, link);
    }

    /// The peer takes what it is sent.
    pub(crate) fn touch(&self, session: &Session) {
        session.touch(self.now());
    }

    /// The client leaves for good.
    pub(crate) fn bye(&self, session: &Arc<Session>) {
        self.end(session, Event::Bye);
    }

    /// What a client says it holds, after a reconnect.
    ///
    /// # Errors
    /// ESTALE when some of it could not be had again; the rest is held all the same.
    pub(crate) fn reassert(
        &self,
        session: &Arc<Session>,
        holds: &[Ino],
        locks: &[(Ino, LockRequest)],
        last: bool,
    ) -> Result<(), Errno> {
        let mut lost = 0;
        match self.volume.reassert(session.id, holds) {
            Ok(true) => {}
            // What made it may still be in the client's log, and holds it when it is sent again. If not, descriptors of it are
            // stale; the session has done nothing wrong.
            Ok(false) => tracing::info!(session = %session.id, "a client holds what is not here, or not yet"),
            Err(_) => lost += 1,
        }
        for (ino, lock) in locks {
            lost += usize::from(self.desk.assert_held(session.id, *ino, lock).is_err());
        }
        if last {
            self.leases.remind(session.id);
            self.came_back(session.id);
        }
        if lost == 0 {
            return Ok(());
        }
        tracing::warn!(session = %session.id, lost, "a client cannot get back all that it held");
        Err(Errno::ESTALE)
    }

    /// Lets time pass: ends silent sessions, the grace period, and what is kept a lease longer.
    pub(crate) fn tick(&self) {
        let now = self.now();
        let all: Vec<Arc<Session>> = self.table().all.values().cloned().collect();
        for session in &all {
            if session.expire(self.options.lease, now) == Sweep::Now {
                self.sweep(session);
            }
        }
        for late in self.leases.tick(now) {
            tracing::warn!(session = %late, "a client does not give back leases: its session is ended");
            // It may be gone by itself meanwhile.
            let _gone = self.evict(late);
        }
        if self.table().grace.as_ref().is_some_and(|grace| now >= grace.ends) {
            self.end_grace();
        }
        let due = self.table().orphans.take_if(|due| now >= *due).is_some();
        if due {
            self.volume.end_grace();
        }
    }

    /// Ends a session as if it had been silent for too long.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub(crate) fn evict(&self, id: SessionId) -> Result<(), Errno> {
        let session = self.table().all.get(&id).cloned().ok_or(Errno::ENOENT)?;
        self.end(&session, Event::Evicted);
        Ok(())
    }

    /// Ends the session that shows these first digits, all that an operator sees of it.
    ///
    /// # Errors
    /// ENOENT: there is none; EEXIST: there are several.
    pub(crate) fn evict_shown(&self, shown: SessionId) -> Result<(), Errno> {
        let alike = |id: &SessionId| *id == shown || SessionId(id.0 >> 96 << 96) == shown;
        let found: Vec<SessionId> = self.table().all.keys().copied().filter(alike).collect();
        match found[..] {
            [] => Err(Errno::ENOENT),
            [id] => self.evict(id),
            _ => Err(Errno::EEXIST),
        }
    }

    /// Whether the session is from before a restart and has not sent again yet all that it had on its way.
    pub(crate) fn replays(&self, id: SessionId) -> bool {
        self.table().grace.as_ref().is_some_and(|grace| grace.missing.contains(&id))
    }

    /// Whether grace still runs: how long in milliseconds, and for how many sessions.
    pub(crate) fn grace(&self) -> Option<(u64, usize)> {
        let table = self.table();
        let grace = table.grace.as_ref()?;
        Some((millis(grace.ends.saturating_sub(self.now())), grace.missing.len()))
    }

    /// Waits until no frame is in hand, at most `limit` for each session.
    pub(crate) fn wait_idle(&self, limit: Duration) {
        let all: Vec<Arc<Session>> = self.table().all.values().cloned().collect();
        for session in all {
            if !session.wait_idle(limit) {
                tracing::warn!(session = %session.id, "a frame is still being worked on");
            }
        }
    }

    /// How many sessions there are.
    pub(crate) fn count(&self) -> usize {
        self.table().all.len()
    }

    /// The clock of leases.
    pub(crate) fn now(&self) -> Duration {
        (self.options.clock)()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, session: &Arc<Session>, event: Event) {
        if session.end(event) == Sweep::Now {
            self.sweep(session);
        }
    }

    /// Gives up what an ended session held. It is fenced before, and has no frame in hand.
    fn sweep(&self, session: &Session) {
        self.table().dead.insert(session.id);
        self.desk.drop_session(session.id);
        self.leases.leave(session.id);
        if let Err(errno) = self.volume.end_session(session.id) {
            tracing::error!(session = %session.id, %errno, "the end of a session could not be stored");
        }
        self.table().all.remove(&session.id);
        self.came_back(session.id);
    }

    /// Nobody waits for this session any more; grace ends with the last one.
    fn came_back(&self, id: SessionId) {
        let over = {
            let mut table = self.table();
            table.grace.as_mut().is_some_and(|grace| {
                grace.missing.remove(&id);
                grace.missing.is_empty()
            })
        };
        if over {
            self.end_grace();
        }
    }

    fn end_grace(&self) {
        let (grace, all): (_, Vec<Arc<Session>>) = {
            let mut table = self.table();
            (table.grace.take(), table.all.values().cloned().collect())
        };
        let Some(grace) = grace else { return };
        tracing::info!(missing = grace.missing.len(), "grace period is over");
        for session in &all {
            // Who was cut off before he had sent all again would do it when others have seen that it is not there.
            let cut_off = grace.missing.contains(&session.id) && session.is_lost();
            self.end(session, if cut_off { Event::LeaseOver } else { Event::GraceOver });
        }
        self.desk.thaw();
        self.leases.thaw();
        // A client that is back sends what was not answered again: it may hold an orphan by an outcome that it is told
        // only then (a file made without a name, a name just removed). Until that is through, none goes.
        self.table().orphans = Some(self.now() + self.options.lease);
    }
}

/// A frame of a session is being worked on: the session is not swept before this is dropped.
pub(crate) struct InHand<'s> {
    sessions: &'s Sessions,
    session: &'s Arc<Session>,
}

impl InHand<'_> {
    /// The session.
    pub(crate) fn session(&self) -> &Arc<Session> {
        self.session
    }

    /// The locks, for a request of this session.
    pub(crate) fn desk(&self) -> &LockDesk {
        &self.sessions.desk
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if self.session.leave(self.sessions.now()) == Sweep::Now {
            self.sessions.sweep(self.session);
        }
    }
}

impl Refused {
    fn dead() -> Self {
        Self { reason: "this session has expired: mount anew".to_owned(), retry: false }
    }

    pub(crate) fn later(reason: &str) -> Self {
        Self { reason: format!("{reason}: try again"), retry: true }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
