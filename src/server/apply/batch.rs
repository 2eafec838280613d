//! A batch becomes transactions: one pass over its mutations, each with its own outcome, stored in the transaction of
//! its effect (R7.2). Several mutations share a transaction; a fault of one takes none of the others along.

use super::answers::{self, Given};
use super::results::{Results, Seen};
use super::{Inner, Volume};
use crate::base::limits::CHUNK_BYTES_MAX;
use crate::base::{Errno, Ino, SessionId};
use crate::server::meta::{WriteTxn, inodes, sessions};
use crate::server::ops::{self, Env, Placed};
use crate::server::store::Appended;
use crate::wire::mutation::{self, Decoded};
use crate::wire::{Done, Expect, MakeFlags, Mutation, Origin, Outcome, Ticket, WireFault, outcome};
use std::sync::{MutexGuard, PoisonError, RwLockWriteGuard};
use std::time::Duration;

/// A transaction with so many changes is committed before the next mutation.
const CHANGES_PER_COMMIT: usize = 4096;

/// How long a large mutation leaves the lock to others after each step of about 10 ms.
const PAUSE: Duration = Duration::from_micros(100);

impl Volume {
    /// Applies the mutations of a batch in order and returns their outcomes, encoded, in the same order, after the
    /// commit that contains them. When it returns they survive the death of this process, not a loss of power
    /// ([`Volume::durable`], [`Volume::sync`]).
    ///
    /// A ticket that was applied before is answered from the record and changes nothing. Local mutations must come in
    /// the order of their tickets, over all batches of a session. Outcomes of tickets below `settled` are forgotten;
    /// such a ticket fails with EIO and is never executed.
    ///
    /// # Errors
    /// The body is no batch; nothing was applied.
    pub fn apply(
        &self,
        session: SessionId,
        body: &[u8],
        payload: &[u8],
        settled: u64,
    ) -> Result<Vec<u8>, WireFault> {
        let batch = mutation::decode_batch(body, payload).collect::<Result<Vec<_>, _>>()?;
        let inner = &*self.inner;
        // Kept to the end: it holds the collector off while no metadata names these chunks.
        let placed = inner.place(session, &batch);
        let mut pass = Pass {
            inner,
            session,
            state: Some(inner.write_state()),
            large: None,
            txn: inner.store.begin(),
            answers: Vec::with_capacity(batch.len()),
            pending: Vec::with_capacity(batch.len()),
            holds_pending: 0,
            mark_moved: false,
        };
        pass.run(&batch, &placed, settled);
        Ok(answers::encode(&batch, &pass.answers, self.committed()))
    }
}

impl Volume {
    /// Whether all of a batch was done before: it will be answered from the record.
    pub fn has_done(&self, session: SessionId, body: &[u8], payload: &[u8]) -> bool {
        let mut state = self.inner.write_state();
        let known = |state: &Results, origin: &Origin| {
            matches!(state.seen(session, origin.ticket, origin.at.is_some()), Seen::Stored | Seen::Ran)
        };
        state.load(self.inner.store.engine(), session).is_ok()
            && mutation::decode_batch(body, payload)
                .all(|one| one.is_ok_and(|(origin, _)| known(&state, &origin)))
    }
}

/// Where the data of each mutation lies, or why it was refused.
type PlacedBatch = Vec<Result<Vec<Appended>, Errno>>;

impl Inner {
    /// Appends the data of the writes, before the writer's lock is taken. What a mutation then does not use is dead
    /// from birth: no metadata counts it.
    fn place(&self, session: SessionId, batch: &[Decoded<'_>]) -> PlacedBatch {
        batch
            .iter()
            .map(|(origin, mutation)| match mutation {
                Ok(Mutation::Write { ino, data, .. }) if !data.is_empty() => {
                    // A replay is answered from the record; a session not loaded yet is one more append, no harm.
                    let (ticket, local) = (origin.ticket, origin.at.is_some());
                    let new = self.read_state().seen(session, ticket, local) == Seen::New;
                    if new { self.append(*ino, data) } else { Ok(Vec::new()) }
                }
                _ => Ok(Vec::new()),
            })
            .collect()
    }

    fn append(&self, ino: Ino, data: &[u8]) -> Result<Vec<Appended>, Errno> {
        let append = |bytes| self.store.append(ino, bytes).map_err(|fault| self.fault(fault));
        data.chunks(CHUNK_BYTES_MAX).map(append).collect()
    }
}

/// What a mutation means for holds, once it is committed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Effect {
    hold: Option<Ino>,
    orphaned: Option<Ino>,
    named: Option<Ino>,
}

impl Effect {
    fn of(mutation: &Mutation<'_>, done: &Done) -> Self {
        let made = done.attr.map(|attr| attr.ino);
        match mutation {
            Mutation::Make { flags: MakeFlags { hold: true, .. }, .. } => {
                Self { hold: made, ..Self::default() }
            }
            Mutation::Tmpfile { .. } => Self { hold: made, orphaned: made, named: None },
            Mutation::Link { ino, .. } => Self { named: Some(*ino), ..Self::default() },
            Mutation::Unlink { hold: false, .. }
            | Mutation::Rmdir { hold: false, .. }
            | Mutation::Rename { hold: false, .. } => Self { orphaned: done.orphan, ..Self::default() },
            _ => Self { hold: done.orphan, orphaned: done.orphan, named: None },
        }
    }
}

/// An executed mutation whose transaction is not committed yet.
struct Pending {
    /// Index of its answer.
    answer: usize,
    ticket: Ticket,
    local: bool,
    effect: Effect,
}

/// One pass over a batch, under the writer's lock.
struct Pass<'v> {
    inner: &'v Inner,
    session: SessionId,
    /// `None` only between two steps of something large.
    state: Option<RwLockWriteGuard<'v, Results>>,
    /// Taken while a mutation is executed in steps.
    large: Option<MutexGuard<'v, ()>>,
    txn: WriteTxn<'v>,
    answers: Vec<Given>,
    pending: Vec<Pending>,
    /// How many of `pending` are to be held.
    holds_pending: usize,
    /// The mark is higher than in the last commit.
    mark_moved: bool,
}

impl Pass<'_> {
    fn state(&mut self) -> &mut Results {
        self.state.as_mut().expect("held but between two steps")
    }

    fn run(&mut self, batch: &[Decoded<'_>], placed: &PlacedBatch, settled: u64) {
        let (inner, session) = (self.inner, self.session);
        let loaded = self.state().load(inner.store.engine(), session).map_err(Errno::from);
        if let Some(state) = &mut self.state {
            state.settle(&mut self.txn, session, settled);
            self.mark_moved = state.store_refused(&mut self.txn, session);
        }
        for ((origin, mutation), placed) in batch.iter().zip(placed) {
            let answer = match (loaded, mutation) {
                (Err(errno), _) => Given::Failed(errno),
                // A later version's: told apart from what this one refuses, and not worth a record.
                (Ok(()), Err(_)) => Given::Failed(Errno::EOPNOTSUPP),
                (Ok(()), Ok(mutation)) => match self.seen(origin) {
                    Seen::New => {
                        self.execute(origin, mutation, placed);
                        continue;
                    }
                    Seen::Ran => {
                        self.hold_again(again(mutation));
                        Given::Ran
                    }
                    Seen::Stored => self.replay(origin.ticket, mutation),
                    Seen::Running | Seen::Forgotten => Given::Failed(Errno::EIO),
                },
            };
            self.answers.push(answer);
        }
        let _told = self.commit();
    }

    /// What is known of a ticket; waits for one that runs.
    fn seen(&mut self, origin: &Origin) -> Seen {
        loop {
            let session = self.session;
            let seen = self.state().seen(session, origin.ticket, origin.at.is_some());
            if seen != Seen::Running {
                return seen;
            }
            // The overlay must not outlive the lock.
            let _told = self.commit();
            self.state = None;
            let ended = self.inner.large.lock().map(drop);
            std::thread::yield_now();
            self.state = Some(self.inner.write_state());
            if ended.is_err() {
                // The thread that ran it is gone, and how far it came is not known.
                return Seen::Running;
            }
        }
    }

    /// Answers from the record.
    fn replay(&mut self, ticket: Ticket, mutation: &Mutation<'_>) -> Given {
        // It may be of this very batch, so it is read through the transaction.
        let stored = match sessions::result(&self.txn, self.session, ticket.0) {
            Ok(Some(stored)) => stored.to_vec(),
            Ok(None) => return Given::Failed(Errno::EIO),
            Err(fault) => return Given::Failed(Errno::from(fault)),
        };
        if let Ok(Outcome { result: Ok(done), .. }) = outcome::decode_one(&stored) {
            self.hold_again(Effect::of(mutation, &done).hold);
        }
        Given::Whole(stored)
    }

    /// The holds that came with an outcome may have been lost with a restart.
    fn hold_again(&self, ino: Option<Ino>) {
        // Gone meanwhile: the session dropped it, so it has the outcome and this replay is a late duplicate.
        if let Some(ino) = ino
            && matches!(inodes::get(&self.txn, ino), Ok(Some(_)))
        {
            self.inner.holds().hold(self.session, ino);
        }
    }

    fn execute(&mut self, origin: &Origin, mutation: &Mutation<'_>, placed: &Result<Vec<Appended>, Errno>) {
        let (session, ticket, local) = (self.session, origin.ticket, origin.at.is_some());
        let result = self.attempt(origin, mutation, placed);
        let effect = result.as_ref().map(|done| Effect::of(mutation, done)).unwrap_or_default();
        let answer = match (local, result) {
            (true, Ok(_)) => Given::Ran,
            (_, result) => {
                let record = answers::record(ticket, result);
                sessions::put_result(&mut self.txn, session, ticket.0, &record);
                // Known from here on, for a second one in the same batch.
                self.state().insert(session, ticket);
                Given::Whole(record)
            }
        };
        if local {
            self.state().advance(session, ticket);
            self.mark_moved = true;
        }
        self.holds_pending += usize::from(effect.hold.is_some());
        self.pending.push(Pending { answer: self.answers.len(), ticket, local, effect });
        self.answers.push(answer);
        if self.large.is_some() {
            self.state().finish(session, ticket);
            self.large = None;
        }
        if self.txn.changes().len() >= CHANGES_PER_COMMIT {
            let _told = self.commit();
        }
    }

    /// Whether nobody holds what `mutation` takes the last name of, or wants to. Holds are taken by readers, so this stays
    /// true until the transaction is committed.
    fn unheld(&self, mutation: &Mutation<'_>) -> bool {
        let unnamed = match *mutation {
            Mutation::Unlink { ino, hold: false, .. } | Mutation::Rmdir { ino, hold: false, .. } => ino,
            Mutation::Rename { replaced: Expect::Is(ino), hold: false, .. } => Some(ino),
            _ => None,
        };
        let pending = |ino| {
            self.holds_pending > 0 && self.pending.iter().any(|pending| pending.effect.hold == Some(ino))
        };
        unnamed.is_some_and(|ino| self.inner.holds().is_free(ino) && !pending(ino))
    }

    /// Local mutations are asked about.
    fn admit(&self, origin: &Origin, mutation: &Mutation<'_>) -> Result<(), Errno> {
        if origin.at.is_none() {
            return Ok(());
        }
        match (self.inner.gate.get(), mutation) {
            (Some(gate), _) => gate(self.session, mutation),
            (None, Mutation::Make { ino: Some(ino), .. }) => {
                tracing::error!(%ino, session = %self.session, "a client took an inode number that it does not own");
                Err(Errno::EINVAL)
            }
            (None, _) => Ok(()),
        }
    }

    /// Leaves no trace in the transaction when it fails.
    fn attempt(
        &mut self,
        origin: &Origin,
        mutation: &Mutation<'_>,
        placed: &Result<Vec<Appended>, Errno>,
    ) -> Result<Done, Errno> {
        self.admit(origin, mutation)?;
        let placed = placed.as_ref().map_err(|errno| *errno)?;
        if let Mutation::Write { data, .. } = mutation
            && placed.is_empty() != data.is_empty()
        {
            // A replay, so nothing was appended; but what it repeats has failed to be stored since.
            return Err(Errno::EIO);
        }
        let holds = matches!(
            mutation,
            Mutation::Make { flags: MakeFlags { hold: true, .. }, .. } | Mutation::Tmpfile { .. }
        );
        if holds && !self.inner.holds().has_room(self.session) {
            return Err(Errno::ENFILE);
        }
        let placed: Vec<Placed> = placed
            .iter()
            .map(|Appended { chunk, place, .. }| Placed { chunk: *chunk, place: *place })
            .collect();
        let env = Env {
            hash: *self.inner.store.names(),
            now: origin.at.unwrap_or_else(|| self.inner.now()),
            caller: origin.caller,
            unheld: self.unheld(mutation),
        };
        self.steps(origin, &env, mutation, &placed)?;
        let before = self.txn.savepoint();
        let done = ops::mutate(&mut self.txn, &env, mutation, &placed).map_err(ops::Stop::errno);
        // Asked last: what is refused or changes nothing on a disk with room is so on a full one.
        let done = done.and_then(|done| match grows(mutation) && !done.existed {
            true => self.inner.store.check_room().map(|()| done),
            false => Ok(done),
        });
        if done.is_err() {
            self.txn.rollback(before);
        }
        done
    }

    /// The parts of a mutation that is too large for one transaction.
    fn steps(
        &mut self,
        origin: &Origin,
        env: &Env,
        mutation: &Mutation<'_>,
        placed: &[Placed],
    ) -> Result<(), Errno> {
        loop {
            let before = self.txn.savepoint();
            match ops::step(&mut self.txn, env, mutation, placed) {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    self.commit()?;
                    self.pause(origin);
                }
                Err(stop) => {
                    self.txn.rollback(before);
                    return Err(stop.errno());
                }
            }
        }
    }

    /// Lets others have the writer's lock between two steps: a file of a million extents takes seconds.
    fn pause(&mut self, origin: &Origin) {
        let (inner, session) = (self.inner, self.session);
        if self.large.is_none() {
            self.state().start(session, origin.ticket, origin.at.is_some());
            self.state = None;
            self.large = Some(inner.large.lock().unwrap_or_else(PoisonError::into_inner));
        } else {
            self.state = None;
            // The lock is not fair: without this those who wait for it would seldom be quick enough.
            std::thread::sleep(PAUSE);
        }
        self.state = Some(inner.write_state());
    }

    /// Commits what is pending. If the store refuses, none of it happened, and its answers say so.
    fn commit(&mut self) -> Result<(), Errno> {
        let session = self.session;
        let mut txn = std::mem::replace(&mut self.txn, self.inner.store.begin());
        if let (true, Some(state)) = (self.mark_moved, &self.state) {
            state.store_mark(&mut txn, session);
        }
        let result = self.inner.commit(txn);
        match (result, &mut self.state) {
            (Ok(()), Some(state)) if self.mark_moved => {
                state.refused_stored(session);
                self.mark_moved = false;
            }
            _ => {}
        }
        let mut holds = self.inner.holds();
        let mut dead = Vec::new();
        self.holds_pending = 0;
        for Pending { answer, ticket, local, effect } in self.pending.drain(..) {
            if let Err(errno) = result {
                self.answers[answer] = Given::Failed(errno);
                if let Some(state) = &mut self.state {
                    if local {
                        state.refuse(session, ticket, errno);
                    } else {
                        state.remove(session, ticket);
                    }
                }
                continue;
            }
            if effect == Effect::default() {
                continue;
            }
            if let Some(ino) = effect.orphaned {
                holds.orphaned(ino);
            }
            if let Some(ino) = effect.named {
                holds.not_orphan(ino);
            }
            if let Some(ino) = effect.hold {
                holds.hold(session, ino);
            } else {
                dead.extend(effect.orphaned.filter(|&ino| holds.is_free(ino)));
            }
        }
        drop(holds);
        self.inner.reaper.push(dead);
        result
    }
}

/// What the session holds by a local mutation that was done before.
fn again(mutation: &Mutation<'_>) -> Option<Ino> {
    match *mutation {
        Mutation::Make { ino, flags: MakeFlags { hold: true, .. }, .. }
        | Mutation::Unlink { ino, hold: true, .. }
        | Mutation::Rmdir { ino, hold: true, .. } => ino,
        Mutation::Rename { replaced: Expect::Is(ino), flags, hold: true, .. }
            if flags & libc::RENAME_EXCHANGE == 0 =>
        {
            Some(ino)
        }
        _ => None,
    }
}

/// Whether the volume gets larger by it. Removing must work on a full disk.
fn grows(mutation: &Mutation<'_>) -> bool {
    match mutation {
        Mutation::Make { .. }
        | Mutation::Tmpfile { .. }
        | Mutation::Link { .. }
        | Mutation::Write { .. }
        | Mutation::Copy { .. }
        | Mutation::SetXattr { .. } => true,
        Mutation::Allocate { mode, .. } => mode & libc::FALLOC_FL_PUNCH_HOLE.cast_unsigned() == 0,
        Mutation::Unlink { .. }
        | Mutation::Rmdir { .. }
        | Mutation::Rename { .. }
        | Mutation::SetAttr { .. }
        | Mutation::RemoveXattr { .. } => false,
    }
}
