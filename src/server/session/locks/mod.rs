//! Locks of files: POSIX record locks and `flock`, over all sessions.
//!
//! Comes in: what owners ask for, and the end of owners, handles and sessions. Goes out: an answer at once, or a
//! [`Wake`] for a request that waited. The table owns what is held and who waits; it does no I/O, reads no clock and
//! knows nothing of connections: a waiting request is named by its session and the sequence of the frame that asked.
//!
//! Rules: record locks split, merge, grow stronger and weaker by bytes; a `flock` is on the whole file and is removed
//! before it is converted, as Linux does (`flock_lock_inode` in fs/locks.c). The two kinds do not see each other. A new
//! request competes with what is held alone; those who wait are served in the order in which they came. A record lock
//! whose wait would close a circle is refused with EDEADLK; `flock` has no such check, as in Linux. An owner with several
//! waiting threads counts as waiting for all of them.
//!
//! While the table is *frozen* (grace after a restart) a request that could conflict with a lock that is not
//! re-asserted yet waits, also one that was not to wait.
//!
//! Absent on purpose: mandatory locks, and any fairness beyond the order of arrival.

mod circle;
mod segments;

#[cfg(test)]
mod tests;

use crate::base::{Errno, Ino, SessionId};
use crate::wire::{LockKind, LockOwner, LockRange, LockRequest};
use segments::{LAST_BYTE, Segment, cover, replaced, touching};
use std::collections::{HashMap, VecDeque};

/// How many locks there may be; over it the answer is ENOLCK.
#[derive(Clone, Copy, Debug)]
pub struct LockLimits {
    /// Locked pieces of one file.
    pub per_file: usize,
    /// Locked pieces of one session.
    pub per_session: usize,
    /// Requests of one session that wait. Each is a thread of a program there.
    pub waiting_per_session: usize,
}

impl Default for LockLimits {
    /// A piece takes 40 bytes: 65,536 of them are 2.5 MiB for a session. Searching a file's pieces is linear in its
    /// owners, so a file gets fewer.
    fn default() -> Self {
        Self { per_file: 16_384, per_session: 65_536, waiting_per_session: 4096 }
    }
}

/// Who holds or wants a lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Holder {
    pub(crate) session: SessionId,
    pub(crate) owner: LockOwner,
}

impl Holder {
    /// Whether the two could be in each other's way at all.
    fn competes_with(&self, other: &Self) -> bool {
        let flock = |holder: &Self| matches!(holder.owner, LockOwner::Flock(_));
        self != other && flock(self) == flock(other)
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placed {
    /// Done.
    Done,
    /// It waits; a [`Wake`] with its sequence follows.
    Waiting,
}

/// The answer to a request that waited. `Ok(Some)` answers a question (`GetLock`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Wake {
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
    pub(crate) answer: Result<Option<LockRange>, Errno>,
}

/// What a request in the queue does when it is its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Waits until it can be granted.
    Wait,
    /// Waits for the end of the freeze alone, then is granted or refused.
    Try,
    /// Waits for the end of the freeze alone, then is told what is in the way.
    Test,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    holder: Holder,
    want: Segment,
    sequence: u64,
    mode: Mode,
}

#[derive(Debug, Default)]
struct File {
    held: HashMap<Holder, Vec<Segment>>,
    /// Pieces of all holders.
    pieces: usize,
    queue: VecDeque<Waiter>,
}

#[derive(Debug, Default)]
struct Load {
    pieces: usize,
    waiting: usize,
}

/// All locks of a volume.
#[derive(Debug)]
pub(crate) struct LockTable {
    files: HashMap<Ino, File>,
    loads: HashMap<SessionId, Load>,
    /// What each owner waits for: sequence and file, in the order of arrival.
    waits: HashMap<Holder, Vec<(u64, Ino)>>,
    /// File of each waiting request.
    places: HashMap<(SessionId, u64), Ino>,
    frozen: bool,
    limits: LockLimits,
}

impl LockTable {
    /// An empty table.
    pub(crate) fn new(limits: LockLimits, frozen: bool) -> Self {
        Self {
            files: HashMap::new(),
            loads: HashMap::new(),
            waits: HashMap::new(),
            places: HashMap::new(),
            frozen,
            limits,
        }
    }

    /// Locked pieces and waiting requests of a session.
    pub(crate) fn load(&self, session: SessionId) -> (usize, usize) {
        self.loads.get(&session).map_or((0, 0), |load| (load.pieces, load.waiting))
    }

    /// Locked pieces and waiting requests of all.
    pub(crate) fn total(&self) -> (usize, usize) {
        let pieces = self.loads.values().map(|load| load.pieces).sum();
        (pieces, self.places.len())
    }

    /// Whether the request with this sequence waits.
    pub(crate) fn is_waiting(&self, session: SessionId, sequence: u64) -> bool {
        self.places.contains_key(&(session, sequence))
    }

    /// What is in the way of `lock`. While frozen, "nothing" cannot be said: then the question waits (`None`).
    ///
    /// # Errors
    /// EINVAL for a range past the last byte, ENOLCK when too many wait.
    pub(crate) fn test(
        &mut self,
        session: SessionId,
        sequence: u64,
        ino: Ino,
        lock: &LockRequest,
    ) -> Result<Option<LockRange>, Errno> {
        let holder = Holder { session, owner: lock.owner };
        let Some(want) = wanted(lock)? else { return Ok(Some(free(lock))) };
        let found = self.obstacle(ino, &holder, &want);
        if let Some((other, piece)) = found {
            return Ok(Some(told(session, &other, &piece)));
        }
        if self.frozen && !self.has(ino, &holder, &want) {
            self.enqueue(ino, Waiter { holder, want, sequence, mode: Mode::Test })?;
            return Ok(None);
        }
        Ok(Some(free(lock)))
    }

    /// Sets or removes a lock. A request that waits already under the same session and sequence keeps its place.
    ///
    /// # Errors
    /// EAGAIN (held by another, not to wait), EDEADLK, ENOLCK, EINVAL.
    pub(crate) fn set(
        &mut self,
        session: SessionId,
        sequence: u64,
        ino: Ino,
        lock: &LockRequest,
        wait: bool,
        wakes: &mut Vec<Wake>,
    ) -> Result<Placed, Errno> {
        let holder = Holder { session, owner: lock.owner };
        let Some(want) = wanted(lock)? else {
            let (start, end) = range(lock)?;
            self.put(ino, &holder, start, end, None)?;
            self.serve(ino, wakes);
            return Ok(Placed::Done);
        };
        if self.is_waiting(session, sequence) {
            return Ok(Placed::Waiting);
        }
        if self.has(ino, &holder, &want) {
            self.grant(ino, &holder, want)?;
            self.serve(ino, wakes);
            return Ok(Placed::Done);
        }
        let mode = if wait { Mode::Wait } else { Mode::Try };
        let blocked = self.obstacle(ino, &holder, &want).is_some();
        if self.frozen && (wait || !blocked) {
            self.enqueue(ino, Waiter { holder, want, sequence, mode })?;
            return Ok(Placed::Waiting);
        }
        self.give_up_flock(ino, &holder);
        let placed = self.place(ino, Waiter { holder, want, sequence, mode }, blocked, wakes);
        self.serve(ino, wakes);
        placed
    }

    /// A client says after a restart of the server that it holds this lock.
    ///
    /// # Errors
    /// ESTALE when another was granted what conflicts with it; ENOLCK, EINVAL.
    pub(crate) fn assert_held(
        &mut self,
        session: SessionId,
        ino: Ino,
        lock: &LockRequest,
    ) -> Result<(), Errno> {
        let holder = Holder { session, owner: lock.owner };
        let want = wanted(lock)?.ok_or(Errno::EINVAL)?;
        if self.obstacle(ino, &holder, &want).is_some() {
            return Err(Errno::ESTALE);
        }
        let granted = self.grant(ino, &holder, want);
        self.tidy(ino);
        granted
    }

    /// Gives up a request that waits; it is answered with EINTR.
    pub(crate) fn cancel(&mut self, session: SessionId, sequence: u64, wakes: &mut Vec<Wake>) {
        let Some(&ino) = self.places.get(&(session, sequence)) else { return };
        let asked = |w: &Waiter| w.holder.session == session && w.sequence == sequence;
        let at = self.files.get(&ino).and_then(|file| file.queue.iter().position(asked));
        if let Some(waiter) = at.and_then(|at| self.leave_queue(ino, at)) {
            wakes.push(waiter.wake(Err(Errno::EINTR)));
        }
        self.tidy(ino);
    }

    /// An owner closed the file: its record locks on it end.
    pub(crate) fn unlock_owner(&mut self, session: SessionId, ino: Ino, owner: u64, wakes: &mut Vec<Wake>) {
        let holder = Holder { session, owner: LockOwner::Record(owner) };
        self.keep(ino, &holder, |_| false);
        self.serve(ino, wakes);
    }

    /// The last descriptor of a handle was closed: what was locked through it ends.
    pub(crate) fn unlock_handle(&mut self, session: SessionId, ino: Ino, handle: u64, wakes: &mut Vec<Wake>) {
        let Some(file) = self.files.get(&ino) else { return };
        let holders: Vec<Holder> = file.held.keys().filter(|h| h.session == session).copied().collect();
        for holder in holders {
            self.keep(ino, &holder, |segment| segment.handle != handle);
        }
        self.serve(ino, wakes);
    }

    /// A session is over: what it holds ends, what it waits for is answered with ESTALE.
    pub(crate) fn drop_session(&mut self, session: SessionId, wakes: &mut Vec<Wake>) {
        // All of it goes before anybody is served: a lock still there could look like part of a circle.
        let inos = self.inos();
        for &ino in &inos {
            let Some(file) = self.files.get(&ino) else { continue };
            let mine = file.queue.iter().enumerate().filter(|(_, w)| w.holder.session == session);
            let waiting: Vec<usize> = mine.map(|(at, _)| at).collect();
            let holders: Vec<Holder> = file.held.keys().filter(|h| h.session == session).copied().collect();
            for at in waiting.into_iter().rev() {
                let waiter = self.leave_queue(ino, at);
                wakes.extend(waiter.map(|waiter| waiter.wake(Err(Errno::ESTALE))));
            }
            for holder in &holders {
                self.keep(ino, holder, |_| false);
            }
        }
        for ino in inos {
            self.serve(ino, wakes);
        }
        self.loads.remove(&session);
    }

    /// Grace is over: whoever waited for it takes its turn, in the order of arrival at each file.
    pub(crate) fn thaw(&mut self, wakes: &mut Vec<Wake>) {
        if !std::mem::take(&mut self.frozen) {
            return;
        }
        for ino in self.inos() {
            let waiting = self.files.get(&ino).map_or(0, |file| file.queue.len());
            for _ in 0..waiting {
                // Each leaves the front; one that has to wait on joins the end, so the order stays.
                let Some(waiter) = self.leave_queue(ino, 0) else { break };
                self.take_turn(ino, waiter, wakes);
            }
            self.serve(ino, wakes);
        }
    }

    fn take_turn(&mut self, ino: Ino, waiter: Waiter, wakes: &mut Vec<Wake>) {
        let obstacle = self.obstacle(ino, &waiter.holder, &waiter.want);
        if waiter.mode == Mode::Test {
            let range = match obstacle {
                Some((other, piece)) => told(waiter.holder.session, &other, &piece),
                None => free(&waiter.request()),
            };
            wakes.push(waiter.wake(Ok(Some(range))));
            return;
        }
        self.give_up_flock(ino, &waiter.holder);
        match self.place(ino, waiter, obstacle.is_some(), wakes) {
            Ok(Placed::Done) => wakes.push(waiter.wake(Ok(None))),
            Ok(Placed::Waiting) => {}
            Err(errno) => wakes.push(waiter.wake(Err(errno))),
        }
    }

    /// Grants, refuses, or lets wait.
    fn place(
        &mut self,
        ino: Ino,
        waiter: Waiter,
        blocked: bool,
        wakes: &mut Vec<Wake>,
    ) -> Result<Placed, Errno> {
        if !blocked {
            self.grant(ino, &waiter.holder, waiter.want)?;
            self.break_circles(&waiter.holder, wakes);
            return Ok(Placed::Done);
        }
        if waiter.mode == Mode::Try {
            return Err(Errno::EAGAIN);
        }
        if self.closes_circle(ino, &waiter.holder, &waiter.want) {
            return Err(Errno::EDEADLK);
        }
        self.enqueue(ino, waiter)?;
        Ok(Placed::Waiting)
    }

    /// Grants whatever the queue of a file allows, in order, and again as long as a grant may have made room.
    fn serve(&mut self, ino: Ino, wakes: &mut Vec<Wake>) {
        let mut at = 0;
        while !self.frozen {
            let Some(&waiter) = self.files.get(&ino).and_then(|file| file.queue.get(at)) else { break };
            if self.obstacle(ino, &waiter.holder, &waiter.want).is_some() {
                at += 1;
                continue;
            }
            self.leave_queue(ino, at);
            let waiting = self.waiting_for(ino);
            let held_before = self.files.get(&ino).is_some_and(|file| file.held.contains_key(&waiter.holder));
            let granted = self.grant(ino, &waiter.holder, waiter.want);
            wakes.push(waiter.wake(granted.map(|()| None)));
            self.break_circles(&waiter.holder, wakes);
            // A weaker lock over an own stronger one makes room for those before; and those before may have left. Only
            // then are they looked at again: thousands that wait would otherwise cost the square of their number.
            if held_before || self.waiting_for(ino) != waiting {
                at = 0;
            }
        }
        self.tidy(ino);
    }

    fn waiting_for(&self, ino: Ino) -> usize {
        self.files.get(&ino).map_or(0, |file| file.queue.len())
    }

    /// An owner that got a lock while another of its threads waits may have closed a circle: that wait is refused.
    fn break_circles(&mut self, holder: &Holder, wakes: &mut Vec<Wake>) {
        for (sequence, ino) in self.waits.get(holder).cloned().unwrap_or_default() {
            let Some(file) = self.files.get(&ino) else { continue };
            let at = file.queue.iter().position(|w| w.holder == *holder && w.sequence == sequence);
            let in_circle = |at: &usize| self.closes_circle(ino, holder, &file.queue[*at].want);
            if let Some(waiter) = at.filter(in_circle).and_then(|at| self.leave_queue(ino, at)) {
                wakes.push(waiter.wake(Err(Errno::EDEADLK)));
            }
        }
    }

    /// The first piece, by offset, of another owner that does not go with `want`.
    fn obstacle(&self, ino: Ino, holder: &Holder, want: &Segment) -> Option<(Holder, Segment)> {
        self.obstacles(ino, holder, want).min_by_key(|(_, piece)| piece.start)
    }

    /// For each other owner in the way, its first piece that is.
    fn obstacles<'t>(
        &'t self,
        ino: Ino,
        holder: &'t Holder,
        want: &'t Segment,
    ) -> impl Iterator<Item = (Holder, Segment)> + 't {
        let held = self.files.get(&ino).into_iter().flat_map(|file| &file.held);
        held.filter(|(other, _)| other.competes_with(holder)).filter_map(|(other, pieces)| {
            let mut touching = touching(pieces, want.start, want.end).iter();
            touching.find(|piece| piece.write || want.write).map(|piece| (*other, *piece))
        })
    }

    /// Whether the owner holds all of `want` already, or more.
    fn has(&self, ino: Ino, holder: &Holder, want: &Segment) -> bool {
        let own = self.files.get(&ino).and_then(|file| file.held.get(holder));
        own.is_some_and(|own| cover(own, want.start, want.end, want.write))
    }

    fn grant(&mut self, ino: Ino, holder: &Holder, want: Segment) -> Result<(), Errno> {
        self.put(ino, holder, want.start, want.end, Some(want))
    }

    /// Before a `flock` is converted its old form is removed, also when the new one has to wait or is refused.
    fn give_up_flock(&mut self, ino: Ino, holder: &Holder) {
        if matches!(holder.owner, LockOwner::Flock(_)) {
            self.keep(ino, holder, |_| false);
        }
    }

    /// Removes the pieces of an owner that `keep` does not want.
    fn keep(&mut self, ino: Ino, holder: &Holder, keep: impl Fn(&Segment) -> bool) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        let Some(pieces) = file.held.get_mut(holder) else { return };
        let before = pieces.len();
        pieces.retain(keep);
        let (left, gone) = (pieces.len(), before - pieces.len());
        if left == 0 {
            file.held.remove(holder);
        }
        file.pieces -= gone;
        self.loads.entry(holder.session).or_default().pieces -= gone;
    }

    /// Makes `start..=end` of an owner `new`, within the limits.
    fn put(
        &mut self,
        ino: Ino,
        holder: &Holder,
        start: u64,
        end: u64,
        new: Option<Segment>,
    ) -> Result<(), Errno> {
        if new.is_none() && !self.files.contains_key(&ino) {
            return Ok(());
        }
        let file = self.files.entry(ino).or_default();
        let load = self.loads.entry(holder.session).or_default();
        let own = file.held.get(holder).map_or(&[][..], Vec::as_slice);
        let pieces = replaced(own, start, end, new);
        let (before, after) = (own.len(), pieces.len());
        let (in_file, in_session) = (file.pieces - before + after, load.pieces - before + after);
        if after > before && (in_file > self.limits.per_file || in_session > self.limits.per_session) {
            return Err(Errno::ENOLCK);
        }
        (file.pieces, load.pieces) = (in_file, in_session);
        if pieces.is_empty() {
            file.held.remove(holder);
        } else {
            file.held.insert(*holder, pieces);
        }
        Ok(())
    }

    fn enqueue(&mut self, ino: Ino, waiter: Waiter) -> Result<(), Errno> {
        let name = (waiter.holder.session, waiter.sequence);
        if self.places.contains_key(&name) {
            return Ok(());
        }
        let load = self.loads.entry(waiter.holder.session).or_default();
        if load.waiting >= self.limits.waiting_per_session {
            return Err(Errno::ENOLCK);
        }
        load.waiting += 1;
        self.places.insert(name, ino);
        self.waits.entry(waiter.holder).or_default().push((waiter.sequence, ino));
        self.files.entry(ino).or_default().queue.push_back(waiter);
        Ok(())
    }

    fn leave_queue(&mut self, ino: Ino, at: usize) -> Option<Waiter> {
        let waiter = self.files.get_mut(&ino)?.queue.remove(at)?;
        self.places.remove(&(waiter.holder.session, waiter.sequence));
        if let Some(waits) = self.waits.get_mut(&waiter.holder) {
            waits.retain(|(sequence, _)| *sequence != waiter.sequence);
            if waits.is_empty() {
                self.waits.remove(&waiter.holder);
            }
        }
        self.loads.entry(waiter.holder.session).or_default().waiting -= 1;
        Some(waiter)
    }

    fn inos(&self) -> Vec<Ino> {
        let mut inos: Vec<Ino> = self.files.keys().copied().collect();
        inos.sort_unstable();
        inos
    }

    /// Forgets a file of which nothing is left.
    fn tidy(&mut self, ino: Ino) {
        if self.files.get(&ino).is_some_and(|file| file.held.is_empty() && file.queue.is_empty()) {
            self.files.remove(&ino);
        }
    }
}

impl Waiter {
    fn wake(&self, answer: Result<Option<LockRange>, Errno>) -> Wake {
        Wake { session: self.holder.session, sequence: self.sequence, answer }
    }

    fn request(&self) -> LockRequest {
        lock_of(&self.holder, &self.want)
    }
}

fn lock_of(holder: &Holder, piece: &Segment) -> LockRequest {
    LockRequest {
        owner: holder.owner,
        kind: if piece.write { LockKind::Write } else { LockKind::Read },
        start: piece.start,
        end: piece.end,
        pid: piece.pid,
        handle: piece.handle,
    }
}

/// A lock in the way, as told to `session`: process ids of other mounts mean nothing there.
fn told(session: SessionId, holder: &Holder, piece: &Segment) -> LockRange {
    let lock = lock_of(holder, piece);
    LockRange { pid: if holder.session == session { lock.pid } else { 0 }, ..lock }
}

fn free(lock: &LockRequest) -> LockRange {
    LockRange { kind: LockKind::Unlock, pid: 0, ..*lock }
}

/// The bytes a request means.
fn range(lock: &LockRequest) -> Result<(u64, u64), Errno> {
    if matches!(lock.owner, LockOwner::Flock(_)) {
        return Ok((0, LAST_BYTE));
    }
    if lock.start > lock.end || lock.start > LAST_BYTE {
        return Err(Errno::EINVAL);
    }
    Ok((lock.start, lock.end.min(LAST_BYTE)))
}

/// The piece a request wants; `None` to unlock.
fn wanted(lock: &LockRequest) -> Result<Option<Segment>, Errno> {
    let (start, end) = range(lock)?;
    let write = match lock.kind {
        LockKind::Unlock => return Ok(None),
        LockKind::Read => false,
        LockKind::Write => true,
    };
    Ok(Some(Segment { start, end, write, pid: lock.pid, handle: lock.handle }))
}
