//! One frame of an established connection: checked, worked on, answered.

use super::Core;
use super::needs::{self, QueryNeeds};
use super::status::count;
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::base::{Errno, Ino, SessionId};
use crate::server::apply::Found;
use crate::server::session::{Ask, InHand, LinkId, LockReply, Session};
use crate::wire::{
    Answer, Frame, FrameKind, Header, LockRange, Outcome, Query, Reply, WireFault, answer, mutation, outcome,
    query,
};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an established connection may do.
pub(super) struct Member {
    /// Session named by each of its frames.
    pub(super) id: SessionId,
    /// Version of each of its frames.
    pub(super) version: u16,
    pub(super) standing: Standing,
}

/// The place of a connection in its session.
#[derive(Clone)]
pub(super) struct Membership {
    pub(super) session: Arc<Session>,
    pub(super) link: LinkId,
    /// It brings grants and notices.
    pub(super) leases: bool,
    /// `Sync`s that wait for the disk.
    pub(super) syncs: Arc<AtomicUsize>,
}

/// `Sync`s of one connection that wait at a time; the next one is waited for before more frames are taken.
const SYNCS_MAX: usize = 4096;

/// On which footing a connection stands.
pub(super) enum Standing {
    /// It belongs to a session.
    Session(Membership),
    /// Its session is over: everything is answered with ESTALE, nothing is worked on (semantics 3.8).
    Fenced,
    /// An operator's tool: it may ask for the status, and end a session.
    Observer,
}

/// Where the answer to one frame goes, and what it repeats of the frame.
pub(super) struct Answering {
    core: Arc<Core>,
    version: u16,
    session: SessionId,
    sequence: u64,
    reply: Reply,
}

impl Answering {
    pub(super) fn frame(self, kind: FrameKind, body: Vec<u8>, payload: Bytes) {
        let fits = body.len() <= FRAME_BODY_BYTES_MAX && payload.len() <= FRAME_PAYLOAD_BYTES_MAX;
        let (body, payload) = if fits { (body, payload) } else { (encoded(&Err(Errno::EIO)), Bytes::new()) };
        count(&self.core.counters.answers, 1);
        count(&self.core.counters.bytes_out, body.len() + payload.len());
        let frame = Frame::new(kind, self.version, self.session, self.sequence, body, payload);
        (self.reply)(frame.durable(self.core.volume.durable()));
    }

    fn answer(self, answer: &Result<Answer<'_>, Errno>) {
        self.frame(FrameKind::Answer, encoded(answer), Bytes::new());
    }

    pub(super) fn done(self, result: Result<(), Errno>) {
        self.answer(&result.map(|()| Answer::Empty));
    }

    fn lock(self) -> LockReply {
        Box::new(move |result: Result<Option<LockRange>, Errno>| {
            self.answer(&result.map(|found| found.map_or(Answer::Empty, Answer::Lock)));
        })
    }
}

fn encoded(answer: &Result<Answer<'_>, Errno>) -> Vec<u8> {
    let mut body = Vec::new();
    answer::encode(&mut body, answer);
    body
}

/// What is to become of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// More frames may come.
    GoOn,
    /// The client said goodbye.
    Ended,
}

impl Core {
    /// Works on one frame of `member`; its body was checked against its header. The answer may come later, from another
    /// thread.
    ///
    /// # Errors
    /// The frame breaks the protocol: it was answered with EPROTO if it can be answered at all, and the connection is to
    /// be closed.
    pub(super) fn take(
        self: &Arc<Self>,
        member: &Member,
        frame: Frame,
        reply: Reply,
    ) -> Result<Next, WireFault> {
        count(&self.counters.frames, 1);
        count(&self.counters.bytes_in, frame.body.len() + frame.payload.len());
        let (version, session, sequence) = (member.version, member.id, frame.header.sequence);
        let answering = Answering { core: Arc::clone(self), version, session, sequence, reply };
        if let Err(fault) = check(member, &frame.header) {
            answering.done(Err(Errno::EPROTO));
            return Err(fault);
        }
        match &member.standing {
            _ if self.closed.load(Ordering::Acquire) => refuse(&frame, Errno::ENOTCONN, answering),
            Standing::Session(member) => {
                let next = match self.sessions.take(&member.session, member.link) {
                    Ok(in_hand) => self.work(&in_hand, member, frame, answering),
                    Err(errno) => refuse(&frame, errno, answering),
                };
                self.settle();
                next
            }
            Standing::Fenced => refuse(&frame, Errno::ESTALE, answering),
            Standing::Observer => self.observe(&frame, answering),
        }
    }

    /// Works on a frame that is in hand: at once, or, where something is in its way, later and anew.
    pub(super) fn work(
        self: &Arc<Self>,
        in_hand: &InHand<'_>,
        member: &Membership,
        frame: Frame,
        answering: Answering,
    ) -> Result<Next, WireFault> {
        let needs = match frame.header.kind {
            FrameKind::Bye => {
                self.sessions.bye(in_hand.session());
                return Ok(Next::Ended);
            }
            FrameKind::Batch if frame.header.before > 0 || self.sessions.replays(member.session.id) => {
                self.again(in_hand, member, (frame, answering))?;
                return Ok(Next::GoOn);
            }
            FrameKind::Batch => Some(QueryNeeds::Nothing),
            _ => match query::decode(&frame.body) {
                Ok(query) => match needs::of_query(&query) {
                    QueryNeeds::Nothing => {
                        self.call(in_hand, &member.syncs, query, answering);
                        return Ok(Next::GoOn);
                    }
                    needs => Some(needs),
                },
                Err(WireFault::Unknown { .. }) => {
                    answering.done(Err(Errno::EOPNOTSUPP));
                    return Ok(Next::GoOn);
                }
                Err(fault) => {
                    answering.done(Err(Errno::EPROTO));
                    return Err(fault);
                }
            },
        };
        let request = (frame, answering);
        let request = match needs {
            None => request,
            Some(_) => match self.thawed(member, request) {
                Some(request) => request,
                None => return Ok(Next::GoOn),
            },
        };
        match needs {
            Some(QueryNeeds::Read(ino)) => self.ask(in_hand, member, ino, request),
            _ => self.batch(in_hand, member, request)?,
        }
        Ok(Next::GoOn)
    }

    fn call(&self, in_hand: &InHand<'_>, syncs: &Arc<AtomicUsize>, query: Query<'_>, answering: Answering) {
        let (session, desk) = (in_hand.session().id, in_hand.desk());
        let sequence = answering.sequence;
        match query {
            Query::Ping => answering.done(Ok(())),
            Query::Status => answering.answer(&Ok(Answer::Bytes(self.status().as_bytes()))),
            Query::Sync { .. } => self.sync(syncs, answering),
            Query::GetLock { ino, lock } => {
                desk.test(Ask { session, sequence, ino, lock: &lock }, answering.lock());
            }
            Query::SetLock { ino, lock, wait } => {
                desk.set(Ask { session, sequence, ino, lock: &lock }, wait, answering.lock());
            }
            Query::CancelLock { sequence } => {
                desk.cancel(session, sequence);
                answering.done(Ok(()));
            }
            Query::UnlockOwner { ino, owner } => {
                desk.unlock_owner(session, ino, owner);
                answering.done(Ok(()));
            }
            Query::UnlockHandle { ino, handle } => {
                desk.unlock_handle(session, ino, handle);
                answering.done(Ok(()));
            }
            Query::Reassert { holds, locks, last } => {
                answering.done(self.sessions.reassert(in_hand.session(), &holds, &locks, last));
            }
            Query::Return { returned } => {
                let open: Vec<Ino> = returned.iter().filter(|one| one.open).map(|one| one.ino).collect();
                // Held before anybody else may take the last name. What is gone needs no hold.
                let held = self.volume.reassert(session, &open);
                self.sessions.leases.give_back(session, &returned);
                answering.done(held.map(drop));
            }
            Query::Numbers { count } => {
                let done = |taken: Result<(Ino, u32), Errno>| {
                    answering.answer(&taken.map(|(first, count)| Answer::Numbers { first, count }));
                };
                self.sessions.take_numbers(in_hand.session(), count, Box::new(done));
            }
            Query::Evict { .. } => answering.done(Err(Errno::EPERM)),
            query => {
                let mut body = Vec::new();
                let payload = Found::encode(&self.volume.query(session, &query), &mut body);
                answering.frame(FrameKind::Answer, body, payload);
            }
        }
    }

    /// Sends what leases owe, and runs what waited for them. To be called by a thread that holds nothing.
    pub(super) fn settle(&self) {
        self.sessions.leases.settle(|| self.volume.durable());
    }

    /// Answers when the disk has it. What waits is bounded: beyond that the connection's own thread waits.
    fn sync(&self, syncs: &Arc<AtomicUsize>, answering: Answering) {
        if syncs.load(Ordering::Relaxed) >= SYNCS_MAX {
            return answering.done(self.volume.sync_wait());
        }
        syncs.fetch_add(1, Ordering::Relaxed);
        let syncs = Arc::clone(syncs);
        self.volume.sync(Box::new(move |result| {
            syncs.fetch_sub(1, Ordering::Relaxed);
            answering.done(result);
        }));
    }

    fn observe(&self, frame: &Frame, answering: Answering) -> Result<Next, WireFault> {
        match (frame.header.kind, query::decode(&frame.body)) {
            (FrameKind::Bye, _) => return Ok(Next::Ended),
            (FrameKind::Call, Ok(Query::Status)) => {
                answering.answer(&Ok(Answer::Bytes(self.status().as_bytes())));
            }
            (FrameKind::Call, Ok(Query::Ping)) => answering.done(Ok(())),
            (FrameKind::Call, Ok(Query::Evict { session })) => {
                tracing::warn!(%session, "an operator ends a session");
                let evicted = self.sessions.evict_shown(session);
                self.settle();
                answering.done(evicted);
            }
            _ => answering.done(Err(Errno::EPERM)),
        }
        Ok(Next::GoOn)
    }
}

fn check(member: &Member, header: &Header) -> Result<(), WireFault> {
    let kind = header.kind.number();
    let wrong = |what| Err(WireFault::Invalid { kind, what });
    if !matches!(header.kind, FrameKind::Call | FrameKind::Batch | FrameKind::Bye) {
        return wrong("a frame no client sends after the handshake");
    }
    if header.version != member.version {
        return wrong("a frame of another version than was agreed");
    }
    if header.session != member.id {
        return wrong("a frame of another session than the connection's");
    }
    if header.sequence == 0 {
        return wrong("a frame without a sequence");
    }
    Ok(())
}

/// Answers a frame that is not worked on, in the form its sender expects.
pub(super) fn refuse(frame: &Frame, errno: Errno, answering: Answering) -> Result<Next, WireFault> {
    match frame.header.kind {
        FrameKind::Bye => return Ok(Next::Ended),
        FrameKind::Batch => {
            let mut body = Vec::new();
            outcome::begin(&mut body, 0);
            for item in mutation::decode_batch(&frame.body, &frame.payload) {
                let Ok((origin, _)) = item else { break };
                outcome::encode(&mut body, &Outcome { ticket: origin.ticket, result: Err(errno) });
                // A record of the smallest kind is shorter than an outcome.
                if body.len() > FRAME_BODY_BYTES_MAX - 512 {
                    break;
                }
            }
            answering.frame(FrameKind::Outcomes, body, Bytes::new());
        }
        _ => answering.done(Err(errno)),
    }
    Ok(Next::GoOn)
}
