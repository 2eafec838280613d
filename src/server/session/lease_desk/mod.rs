//! The table of leases with what it owes: recalls to be sent, requests that wait, notices. Under its mutex nothing is
//! sent and nothing is run; [`LeaseDesk::settle`] does that, called by each thread after its own work.
//!
//! A recall must not overtake the answer that granted what it recalls. So an answer with grants is announced before the
//! mutex is given up ([`Granting`]), and recalls of its grants are kept back until it has been sent.

mod inner;

use super::leases::{Access, LeaseLimits, LeaseTable, LeaseView, Stamp, WaitId};
use super::state::LinkId;
use crate::base::{Ino, SessionId};
use crate::wire::{Frame, FrameKind, Grant, Notice, Notices, Recall, Returned, notice};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most requests of one session that wait, and most bytes of them: a client keeps fewer in flight.
const PARKED_MAX: usize = 8192;
const PARKED_BYTES_MAX: usize = 256 << 20;

/// A request that waits, outside of its connection's order. Run after the connection or session is gone it does no more
/// than refuse itself.
pub(crate) struct Parked {
    pub(crate) session: SessionId,
    pub(crate) link: LinkId,
    /// Bytes of its frame.
    pub(crate) bytes: usize,
    /// Begins it anew.
    pub(crate) run: Box<dyn FnOnce() + Send>,
}

/// Where notices of a session go.
struct Sink {
    link: LinkId,
    version: u16,
    notices: Notices,
    /// The last commit whose outcomes were told, and the last that was told to be durable.
    told: u64,
    durable: u64,
}

/// An answer with grants that is on its way out.
#[derive(Debug)]
pub(crate) struct Granting {
    session: SessionId,
    numbers: RangeInclusive<u64>,
}

/// Why a request does not go on.
pub(crate) enum Held<R> {
    /// It waits; what was parked will be run.
    Parked,
    /// The session has too much that waits; here it is back.
    Full(R),
}

/// See the module.
pub(crate) struct LeaseDesk {
    inner: Mutex<Inner>,
    /// Something is to be sent or run; for those who need not lock to know that there is not.
    due: AtomicBool,
    /// Grace is not over; for those who need not lock to know that it is.
    frozen: AtomicBool,
}

struct Inner {
    table: LeaseTable,
    parked: FxHashMap<WaitId, Parked>,
    /// Until grace is over, what may not be worked on before.
    frozen: Option<Vec<Parked>>,
    /// Until then too: what is done again, and in which order.
    again: Vec<(u64, Parked)>,
    load: FxHashMap<SessionId, Load>,
    ready: VecDeque<Parked>,
    sinks: FxHashMap<SessionId, Sink>,
    granting: FxHashMap<SessionId, Vec<RangeInclusive<u64>>>,
    held_back: Vec<(SessionId, Recall)>,
    outbox: VecDeque<(SessionId, Recall)>,
    /// A thread empties the outbox: one alone, so that notices keep their order.
    sending: bool,
    numbers: FxHashMap<SessionId, Vec<Numbers>>,
    closed: bool,
}

/// What waits of one session.
#[derive(Default, Clone, Copy)]
struct Load {
    requests: usize,
    bytes: usize,
}

/// A range of inode numbers: the first and the one after the last.
pub(crate) type Numbers = (u64, u64);

impl LeaseDesk {
    pub(super) fn new(limits: LeaseLimits, epoch: u64, frozen: bool) -> Self {
        Self {
            due: AtomicBool::new(false),
            frozen: AtomicBool::new(frozen),
            inner: Mutex::new(Inner {
                table: LeaseTable::new(limits, epoch),
                parked: FxHashMap::default(),
                frozen: frozen.then(Vec::new),
                again: Vec::new(),
                load: FxHashMap::default(),
                ready: VecDeque::new(),
                sinks: FxHashMap::default(),
                granting: FxHashMap::default(),
                held_back: Vec::new(),
                outbox: VecDeque::new(),
                sending: false,
                numbers: FxHashMap::default(),
                closed: false,
            }),
        }
    }

    /// The session's connection for metadata: it gets leases, and its notices go there. What was recalled before and is
    /// not given back is recalled again.
    pub(crate) fn connect(&self, session: SessionId, link: LinkId, version: u16, notices: Notices) {
        let mut inner = self.inner();
        if inner.closed {
            return;
        }
        inner.table.join(session);
        let told = inner.sinks.get(&session).map_or(0, |sink| sink.told);
        inner.sinks.insert(session, Sink { link, version, notices, told, durable: 0 });
        let again = inner.table.outstanding(session);
        inner.outbox.extend(again.into_iter().map(|recall| (session, recall)));
    }

    /// Says again what was recalled and is not given back: the client listens from now on.
    pub(super) fn remind(&self, session: SessionId) {
        let mut inner = self.inner();
        let again = inner.table.outstanding(session);
        inner.outbox.extend(again.into_iter().map(|recall| (session, recall)));
    }

    /// A connection is gone: what waits of it never comes to be answered.
    pub(crate) fn disconnect(&self, session: SessionId, link: LinkId) {
        let mut inner = self.inner();
        if inner.sinks.get(&session).is_some_and(|sink| sink.link == link) {
            inner.sinks.remove(&session);
        }
        inner.wake_where(|parked| (parked.session, parked.link) == (session, link));
    }

    /// The session has ended.
    pub(super) fn leave(&self, session: SessionId) {
        let mut inner = self.inner();
        inner.sinks.remove(&session);
        inner.numbers.remove(&session);
        inner.change(|table, out| table.leave(session, out));
        inner.wake_where(|parked| parked.session == session);
        let again = std::mem::take(&mut inner.again);
        let (gone, left) = again.into_iter().partition(|(_, parked)| parked.session == session);
        inner.again = left;
        let gone: Vec<_> = gone;
        gone.into_iter().for_each(|(_, parked)| inner.make_ready(parked));
    }

    /// Grace is over: what is to be done again is done, in its order, then leases may be granted, and what waited for that goes
    /// on. To be called by a thread that holds nothing.
    pub(super) fn thaw(&self) {
        loop {
            let mut inner = self.inner();
            let mut again = std::mem::take(&mut inner.again);
            if again.is_empty() {
                self.frozen.store(false, Ordering::Release);
                let waited = inner.frozen.take().unwrap_or_default();
                waited.into_iter().for_each(|parked| inner.make_ready(parked));
                return;
            }
            again.iter().for_each(|(_, parked)| inner.take_load(parked));
            drop(inner);
            again.sort_by_key(|(order, _)| *order);
            again.into_iter().for_each(|(_, parked)| (parked.run)());
        }
    }

    /// Keeps what is done again until everybody has sent such. `Ok` gives it back: grace is over, or there is no room.
    pub(crate) fn queue<R>(
        &self,
        session: SessionId,
        order: u64,
        request: R,
        park: impl FnOnce(R) -> Parked,
    ) -> Result<R, ()> {
        let mut inner = self.inner();
        if inner.frozen.is_none() || inner.closed || !inner.has_room(session) {
            return Ok(request);
        }
        let parked = park(request);
        inner.add_load(&parked);
        inner.again.push((order, parked));
        Err(())
    }

    /// Parks a request until grace is over; `Ok` gives it back when it may go on.
    pub(crate) fn freeze<R>(
        &self,
        session: SessionId,
        request: R,
        park: impl FnOnce(R) -> Parked,
    ) -> Result<R, Held<R>> {
        if !self.frozen.load(Ordering::Acquire) {
            return Ok(request);
        }
        let mut inner = self.inner();
        if inner.frozen.is_none() {
            return Ok(request);
        }
        if !inner.has_room(session) {
            return Err(Held::Full(request));
        }
        let parked = park(request);
        inner.add_load(&parked);
        inner.frozen.get_or_insert_default().push(parked);
        Err(Held::Parked)
    }

    /// Lets a read begin, or parks it: `park` makes of the request what is kept.
    pub(crate) fn begin_read<R>(
        &self,
        session: SessionId,
        inos: &[Ino],
        now: Duration,
        request: R,
        park: impl FnOnce(R) -> Parked,
    ) -> Result<(R, Stamp), Held<R>> {
        let mut inner = self.inner();
        let request = inner.admit(session, &[(Access::Read, inos)], now, request, park)?;
        Ok((request, inner.table.begin_read()))
    }

    /// The read has looked and found these inodes besides. `Err` gives the request back, to be begun anew by
    /// [`LeaseDesk::begin_read`], when one of them is another session's to tell of. The read has ended either way.
    pub(crate) fn end_read(
        &self,
        session: SessionId,
        stamp: Stamp,
        found: &[Ino],
        wanted: &[Ino],
        now: Duration,
    ) -> Result<(Vec<Grant>, Option<Granting>), Vec<Ino>> {
        let mut inner = self.inner();
        let again: Vec<Ino> = found
            .iter()
            .copied()
            .filter(|ino| !inner.table.may_read(session, *ino) || inner.table.is_stale(*ino, stamp))
            .collect();
        if !again.is_empty() {
            inner.table.end_read(stamp);
            return Err(again);
        }
        let mut grants = Vec::new();
        if inner.frozen.is_none() && inner.sinks.contains_key(&session) {
            let table = &mut inner.table;
            grants.extend(wanted.iter().filter_map(|ino| table.grant(session, *ino, stamp, now)));
        }
        inner.table.end_read(stamp);
        let granting = grants.first().zip(grants.last()).map(|(first, last)| {
            let numbers = first.number..=last.number;
            inner.granting.entry(session).or_default().push(numbers.clone());
            Granting { session, numbers }
        });
        Ok((grants, granting))
    }

    /// Which of these the session may not be told of, or what it was told may be old: their entries in a listing stay bare.
    pub(crate) fn foreign(
        &self,
        session: SessionId,
        stamp: Stamp,
        inos: impl Iterator<Item = Ino>,
    ) -> Vec<Ino> {
        let inner = self.inner();
        inos.filter(|ino| !inner.table.may_read(session, *ino) || inner.table.is_stale(*ino, stamp)).collect()
    }

    /// The answer that grants has been sent, or never will be.
    pub(crate) fn sent(&self, granting: Granting) {
        let mut inner = self.inner();
        let Granting { session, numbers } = granting;
        if let Some(all) = inner.granting.get_mut(&session) {
            if let Some(at) = all.iter().position(|other| *other == numbers) {
                all.swap_remove(at);
            }
            if all.is_empty() {
                inner.granting.remove(&session);
            }
        }
        if inner.held_back.is_empty() {
            return;
        }
        let free = |(to, recall): &(SessionId, Recall)| *to == session && numbers.contains(&recall.number);
        let (now, later) = std::mem::take(&mut inner.held_back).into_iter().partition(free);
        inner.held_back = later;
        inner.outbox.extend::<Vec<_>>(now);
    }

    /// Lets a write of `inos` begin, which also tells of `reads`, or parks it. What began has to end by [`LeaseDesk::end_write`].
    pub(crate) fn begin_write<R>(
        &self,
        session: SessionId,
        inos: &[Ino],
        reads: &[Ino],
        now: Duration,
        request: R,
        park: impl FnOnce(R) -> Parked,
    ) -> Result<R, Held<R>> {
        let mut inner = self.inner();
        let needs = [(Access::Write, inos), (Access::Read, reads)];
        let request = inner.admit(session, &needs, now, request, park)?;
        inner.table.begin_write(session, inos);
        Ok(request)
    }

    /// A write is over.
    pub(crate) fn end_write(&self, inos: &[Ino]) {
        self.inner().change(|table, out| table.end_write(inos, out));
    }

    /// Leases that are given back.
    pub(crate) fn give_back(&self, session: SessionId, returned: &[Returned]) {
        let mut inner = self.inner();
        inner.change(|table, out| returned.iter().for_each(|one| table.give_back(session, one, out)));
    }

    /// Whether a local mutation may change these inodes, and make this one with a number of the session's own: then it
    /// has it exclusively.
    pub(crate) fn local(&self, session: SessionId, inos: &[Ino], makes: Option<Ino>, now: Duration) -> Local {
        let mut inner = self.inner();
        if makes.is_some_and(|ino| !inner.owns_number(session, ino)) {
            return Local::NotItsNumber;
        }
        if !inner.table.is_alone(session, inos) {
            return Local::Leased;
        }
        if let Some(ino) = makes.filter(|_| inner.frozen.is_none()) {
            inner.change(|table, out| table.made(session, ino, now, out));
        }
        Local::Free
    }

    /// Inode numbers that are the session's from now on.
    pub(super) fn put_numbers(&self, session: SessionId, ranges: Vec<Numbers>) {
        self.inner().numbers.insert(session, ranges);
    }

    /// Outcomes up to this commit have been told to the session: it waits to hear that they are durable.
    pub(crate) fn told(&self, session: SessionId, commit: u64) {
        if let Some(sink) = self.inner().sinks.get_mut(&session) {
            sink.told = sink.told.max(commit);
        }
    }

    /// Tells those who wait for it that this commit is durable.
    pub(crate) fn durable(&self, commit: u64) {
        let mut due = Vec::new();
        for (session, sink) in &mut self.inner().sinks {
            if sink.told > sink.durable && commit > sink.durable {
                sink.durable = commit;
                due.push((*session, sink.version, Notices::clone(&sink.notices)));
            }
        }
        for (session, version, notices) in due {
            notices(frame(session, version, &[Notice::Durable], commit));
        }
    }

    /// Sends and runs what is due. To be called by a thread that holds nothing; `durable` is told with each frame.
    pub(crate) fn settle(&self, durable: impl Fn() -> u64) {
        if !self.due.swap(false, Ordering::AcqRel) {
            return;
        }
        self.send_notices(&durable);
        loop {
            let Some(parked) = self.inner().ready.pop_front() else { break };
            (parked.run)();
            self.send_notices(&durable);
        }
    }

    fn send_notices(&self, durable: &impl Fn() -> u64) {
        let mut inner = self.inner();
        if inner.sending {
            return;
        }
        inner.sending = true;
        while !inner.outbox.is_empty() {
            let mut by_session: Vec<(SessionId, Vec<Notice>)> = Vec::new();
            for (session, recall) in std::mem::take(&mut inner.outbox) {
                match by_session.iter_mut().find(|(id, _)| *id == session) {
                    Some((_, notices)) => notices.push(Notice::Recall(recall)),
                    None => by_session.push((session, vec![Notice::Recall(recall)])),
                }
            }
            let due: Vec<_> = by_session
                .into_iter()
                .filter_map(|(session, notices)| {
                    // Without a connection it hears of it when it comes back.
                    let sink = inner.sinks.get(&session)?;
                    Some((session, sink.version, Notices::clone(&sink.notices), notices))
                })
                .collect();
            drop(inner);
            for (session, version, sink, notices) in due {
                for some in notices.chunks(NOTICES_PER_FRAME) {
                    sink(frame(session, version, some, durable()));
                }
            }
            inner = self.inner();
        }
        inner.sending = false;
    }

    /// Lets time pass; the sessions that did not give back in time are to be ended.
    pub(super) fn tick(&self, now: Duration) -> Vec<SessionId> {
        self.inner().table.tick(now)
    }

    /// Nothing is sent or run any more.
    pub(crate) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        let waiting = (
            std::mem::take(&mut inner.parked),
            inner.frozen.as_mut().map(std::mem::take),
            std::mem::take(&mut inner.again),
            std::mem::take(&mut inner.ready),
            std::mem::take(&mut inner.sinks),
        );
        drop(inner);
        drop(waiting);
    }

    /// Leases of a session, and how many of its requests wait.
    pub(super) fn view(&self, session: SessionId, now: Duration) -> (LeaseView, usize) {
        let inner = self.inner();
        let waiting = inner.load.get(&session).map_or(0, |load| load.requests);
        (inner.table.view(session, now), waiting)
    }

    /// Inodes with a lease, requests that wait, contested inodes.
    pub(crate) fn totals(&self) -> (usize, usize, usize) {
        let inner = self.inner();
        let (inodes, waits, contested) = inner.table.totals();
        let frozen = inner.frozen.as_ref().map_or(0, Vec::len) + inner.again.len();
        (inodes, waits + frozen, contested)
    }

    fn inner(&self) -> Locked<'_> {
        Locked { desk: self, inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// The desk, locked. When it is given up, those who settle learn whether something is due.
struct Locked<'d> {
    desk: &'d LeaseDesk,
    inner: MutexGuard<'d, Inner>,
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if !self.inner.outbox.is_empty() || !self.inner.ready.is_empty() {
            self.desk.due.store(true, Ordering::Release);
        }
    }
}

/// What [`LeaseDesk::local`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Local {
    /// Go on.
    Free,
    /// Another session has a lease.
    Leased,
    /// The number was never given to this session.
    NotItsNumber,
}

/// Recalls in one frame.
const NOTICES_PER_FRAME: usize = 4096;

fn frame(session: SessionId, version: u16, notices: &[Notice], durable: u64) -> Frame {
    let mut body = Vec::new();
    notices.iter().for_each(|one| notice::encode(&mut body, one));
    Frame::new(FrameKind::Notice, version, session, 0, body, bytes::Bytes::new()).durable(durable)
}

#[cfg(test)]
mod tests;
