//! A link to the server in this process: every request is a plain call on the thread that asks.

use super::answers::{self, Tickets};
use super::clock::{ServerClock, boottime};
use super::options::Owner;
use super::{Batch, LinkOptions, LinkStatus, Logged, Sequence};
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::base::{Errno, SessionId};
use crate::wire::hello::Welcome;
use crate::wire::{
    Answer, Frame, FrameKind, Grants, Notice, Notices, Outcome, Peer, Query, notice, query, version,
};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

/// See the module.
pub(super) struct Local {
    peer: Arc<dyn Peer>,
    session: SessionId,
    pub(super) welcome: Welcome,
    pub(super) clock: ServerClock,
    notices: Arc<LocalNotices>,
    settled: Arc<AtomicU64>,
    next: AtomicU64,
    in_flight_max: usize,
    in_flight_bytes_max: usize,
    counts: Arc<Counts>,
    opened: Instant,
    closed: AtomicBool,
}

#[derive(Default)]
struct Counts {
    in_flight: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
}

/// Takes the notices of a server in this process: made before the session, since the server wants to know where to say
/// them, and given to the link, which passes them to its owner.
#[derive(Default)]
pub struct LocalNotices {
    owner: OnceLock<Weak<dyn Owner>>,
    /// What came before there was an owner.
    early: Mutex<Vec<Frame>>,
    /// The highest durable commit that the owner knows.
    durable: AtomicU64,
}

impl LocalNotices {
    /// What the server is given.
    #[must_use]
    pub fn sink(self: &Arc<Self>) -> Notices {
        let notices = Arc::clone(self);
        Arc::new(move |frame| notices.take(frame))
    }

    fn take(&self, frame: Frame) {
        match self.owner() {
            Some(owner) => self.tell(owner.as_ref(), &frame),
            None if self.owner.get().is_none() => {
                self.early.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
            }
            None => {}
        }
    }

    fn set_owner(&self, owner: Weak<dyn Owner>) {
        // A second owner is a bug that changes nothing: the first stays.
        drop(self.owner.set(owner));
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        early.into_iter().for_each(|frame| self.take(frame));
    }

    fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.get().and_then(Weak::upgrade)
    }

    fn tell(&self, owner: &dyn Owner, frame: &Frame) {
        let recalls: Vec<_> = notice::decode(&frame.body)
            .filter_map(|notice| match notice {
                Ok(Notice::Recall(recall)) => Some(recall),
                Ok(Notice::Durable) | Err(_) => None,
            })
            .collect();
        if !recalls.is_empty() {
            owner.recalled(&recalls);
        }
        self.durable(owner, frame.header.durable());
    }

    /// Several threads may tell at the same time; the owner takes the highest.
    fn durable(&self, owner: &dyn Owner, commit: u64) {
        if self.durable.fetch_max(commit, Ordering::AcqRel) < commit {
            owner.durable(commit);
        }
    }
}

impl std::fmt::Debug for LocalNotices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalNotices").field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl Local {
    pub(super) fn new(
        peer: Arc<dyn Peer>,
        welcome: Welcome,
        notices: Arc<LocalNotices>,
        options: &LinkOptions,
    ) -> Self {
        let clock = ServerClock::default();
        // The server's clock is this host's; what it showed at the welcome was a moment ago.
        let now = boottime();
        clock.measured(welcome.clock_nanos, now, now);
        Self {
            peer,
            session: options.session,
            welcome,
            clock,
            notices,
            settled: Arc::clone(&options.settled),
            next: AtomicU64::new(1),
            in_flight_max: options.in_flight_max,
            in_flight_bytes_max: options.in_flight_bytes_max,
            counts: Arc::default(),
            opened: Instant::now(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn set_owner(&self, owner: Weak<dyn Owner>) {
        self.notices.set_owner(owner);
    }

    pub(super) fn call<F>(&self, asked: &Query<'_>, done: F) -> Sequence
    where
        F: FnOnce(Result<Answer<'_>, Errno>, Grants<'_>) + Send + 'static,
    {
        let mut body = Vec::new();
        query::encode(&mut body, asked);
        let sequence = self.sequence();
        if let Err(errno) = self.admit(body.len(), 0) {
            done(Err(errno), Grants::default());
            return sequence;
        }
        let frame = self.frame(FrameKind::Call, sequence, body, bytes::Bytes::new());
        let arrived = self.submitted(&frame);
        let reply = Box::new(move |frame: Frame| {
            // Before the closure: whoever asked for a sync then knows what it made durable.
            arrived(&frame);
            match answers::answer(&frame.header, &frame.body, &frame.payload) {
                Ok((answer, grants)) => done(answer, grants),
                Err(_) => done(Err(Errno::EIO), Grants::default()),
            }
        });
        self.peer.submit(frame, reply);
        sequence
    }

    pub(super) fn batch<F>(&self, batch: Batch, done: F) -> Sequence
    where
        F: FnOnce(Result<&[Outcome], Errno>) + Send + 'static,
    {
        let sequence = self.sequence();
        if let Err(errno) = self.admit(batch.body.len(), batch.payload.len()) {
            done(Err(errno));
            return sequence;
        }
        let Batch { tickets, body, payload } = batch;
        let frame = self.frame(FrameKind::Batch, sequence, Vec::from(body), payload);
        let arrived = self.submitted(&frame);
        let reply = Box::new(move |frame: Frame| {
            finish(&tickets, &frame, done);
            arrived(&frame);
        });
        self.peer.submit(frame, reply);
        sequence
    }

    /// A batch of the owner's log.
    pub(super) fn send(&self, batch: Logged) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let frame = self.frame(FrameKind::Batch, self.sequence(), Vec::from(batch.body), batch.payload);
        let arrived = self.submitted(&frame);
        let (notices, first) = (Arc::clone(&self.notices), batch.first);
        let reply = Box::new(move |frame: Frame| {
            if let (Ok(outcomes), Some(owner)) =
                (answers::log_outcomes(&frame.header, &frame.body), notices.owner())
            {
                owner.answered(first, &outcomes);
            }
            arrived(&frame);
        });
        self.peer.submit(frame, reply);
    }

    /// Whether it was a lock the server is still waiting for is the server's to know.
    pub(super) fn interrupt(&self, sequence: Sequence) {
        self.call(&Query::CancelLock { sequence: sequence.0 }, |_, _| ());
    }

    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let frame = self.frame(FrameKind::Bye, self.sequence(), Vec::new(), bytes::Bytes::new());
        self.peer.submit(frame, Box::new(|_| ()));
    }

    pub(super) fn status(&self, target: String) -> LinkStatus {
        let c = &self.counts;
        LinkStatus {
            target,
            session: self.session.to_string(),
            connected: !self.closed.load(Ordering::Acquire),
            since_ms: u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX),
            in_flight: c.in_flight.load(Ordering::Relaxed),
            in_flight_bytes: c.in_flight_bytes.load(Ordering::Relaxed),
            frames_sent: c.frames_sent.load(Ordering::Relaxed),
            bytes_sent: c.bytes_sent.load(Ordering::Relaxed),
            frames_received: c.frames_received.load(Ordering::Relaxed),
            bytes_received: c.bytes_received.load(Ordering::Relaxed),
            version: u32::from(version::NEWEST),
            epoch: self.welcome.epoch,
            lease_ms: self.welcome.lease_ms,
            server: self.welcome.program.clone(),
            ..LinkStatus::default()
        }
    }

    fn admit(&self, body_bytes: usize, payload_bytes: usize) -> Result<(), Errno> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Errno::ENOTCONN);
        }
        let counts = &self.counts;
        if counts.in_flight.load(Ordering::Relaxed) >= self.in_flight_max
            || counts.in_flight_bytes.load(Ordering::Relaxed) >= self.in_flight_bytes_max
        {
            return Err(Errno::ENOMEM);
        }
        let fits = body_bytes <= FRAME_BODY_BYTES_MAX && payload_bytes <= FRAME_PAYLOAD_BYTES_MAX;
        if fits { Ok(()) } else { Err(Errno::E2BIG) }
    }

    fn sequence(&self) -> Sequence {
        Sequence(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn frame(&self, kind: FrameKind, sequence: Sequence, body: Vec<u8>, payload: bytes::Bytes) -> Frame {
        Frame::new(kind, version::NEWEST, self.session, sequence.0, body, payload)
            .settled(self.settled.load(Ordering::Acquire))
    }

    /// Counts a frame that goes out; the result counts its answer, and tells the owner what that says of durability: behind
    /// outcomes, so that nothing is durable before it is known to be applied.
    fn submitted(&self, frame: &Frame) -> impl FnOnce(&Frame) + Send + 'static {
        let (counts, notices) = (Arc::clone(&self.counts), Arc::clone(&self.notices));
        let bytes = frame_bytes(frame);
        counts.in_flight.fetch_add(1, Ordering::Relaxed);
        counts.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        counts.frames_sent.fetch_add(1, Ordering::Relaxed);
        counts.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        move |reply: &Frame| {
            counts.in_flight.fetch_sub(1, Ordering::Relaxed);
            counts.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counts.frames_received.fetch_add(1, Ordering::Relaxed);
            counts.bytes_received.fetch_add(frame_bytes(reply) as u64, Ordering::Relaxed);
            if let Some(owner) = notices.owner() {
                notices.durable(owner.as_ref(), reply.header.durable());
            }
        }
    }
}

fn finish<F: FnOnce(Result<&[Outcome], Errno>)>(tickets: &Tickets, frame: &Frame, done: F) {
    match answers::outcomes(&frame.header, &frame.body) {
        Ok(outcomes) if tickets.match_all(outcomes.as_slice()) => done(Ok(outcomes.as_slice())),
        _ => done(Err(Errno::EIO)),
    }
}

fn frame_bytes(frame: &Frame) -> usize {
    crate::wire::frame::HEADER_BYTES + frame.body.len() + frame.payload.len()
}
