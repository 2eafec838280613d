//! A link to the server in this process: every request is a plain call on the thread that asks.

use super::answers::{self, Tickets};
use super::{Batch, LinkOptions, LinkStatus, Sequence};
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::base::{Errno, SessionId};
use crate::wire::hello::Welcome;
use crate::wire::{Answer, Frame, FrameKind, Outcome, Peer, Query, query, version};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// See the module.
pub(super) struct Local {
    peer: Arc<dyn Peer>,
    session: SessionId,
    welcome: Welcome,
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

impl Local {
    pub(super) fn new(peer: Arc<dyn Peer>, welcome: Welcome, options: &LinkOptions) -> Self {
        Self {
            peer,
            session: options.session,
            welcome,
            settled: Arc::clone(&options.settled),
            next: AtomicU64::new(1),
            in_flight_max: options.in_flight_max,
            in_flight_bytes_max: options.in_flight_bytes_max,
            counts: Arc::default(),
            opened: Instant::now(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn call<F>(&self, asked: &Query<'_>, done: F) -> Sequence
    where
        F: FnOnce(Result<Answer<'_>, Errno>) + Send + 'static,
    {
        let mut body = Vec::new();
        query::encode(&mut body, asked);
        let sequence = self.sequence();
        if let Err(errno) = self.admit(body.len(), 0) {
            done(Err(errno));
            return sequence;
        }
        let frame = self.frame(FrameKind::Call, sequence, body, bytes::Bytes::new());
        let arrived = self.submitted(&frame);
        let reply = Box::new(move |frame: Frame| {
            arrived(&frame);
            done(answers::answer(&frame.header, &frame.body, &frame.payload).unwrap_or(Err(Errno::EIO)));
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
            arrived(&frame);
            finish(&tickets, &frame, done);
        });
        self.peer.submit(frame, reply);
        sequence
    }

    /// Whether it was a lock the server is still waiting for is the server's to know.
    pub(super) fn interrupt(&self, sequence: Sequence) {
        self.call(&Query::CancelLock { sequence: sequence.0 }, |_| ());
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

    /// Counts a frame that goes out; the result counts its answer.
    fn submitted(&self, frame: &Frame) -> impl FnOnce(&Frame) + Send + 'static {
        let counts = Arc::clone(&self.counts);
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
