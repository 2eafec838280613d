//! A session over sockets: what its threads share.
//!
//! Locks: each channel has one, `info`, `broken` and `attempt` have theirs; none is taken while another is held.

use super::channel::{Added, Channel, Lane, Live, Pumped, Signalled};
use super::clock::{ServerClock, boottime};
use super::keeper::Keeper;
use super::request::{Done, InFlight, Nature, Request, Span};
use super::socket::Socket;
use super::{Batch, Interrupted, LinkFault, LinkOptions, LinkStatus, Logged, Owner, Sequence, Target};
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::base::{Errno, SessionId};
use crate::wire::frame::crc32c;
use crate::wire::hello::Welcome;
use crate::wire::{Answer, FrameKind, Grants, Outcome, Query, query};
use bytes::Bytes;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) options: LinkOptions,
    metadata: Channel,
    data: Channel,
    pub(super) next_sequence: AtomicU64,
    in_flight: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    /// Milliseconds after `born` at which a frame came last, for each lane.
    heard_ms: [AtomicU64; 2],
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    answers_ignored: AtomicU64,
    /// When the last request that was answered was sent, in nanoseconds of [`boottime`].
    answered_asked: AtomicU64,
    /// The server's highest durable commit that the owner knows.
    durable: AtomicU64,
    /// The server has the session, and not all that it held.
    pub(super) stale: AtomicBool,
    pub(super) clock: ServerClock,
    pub(super) owner: OnceLock<Weak<dyn Owner>>,
    /// Wakes the link's thread.
    pub(super) wake: EventFd,
    /// Why a connection of this generation broke, for each lane.
    broken: Mutex<[Option<(u64, LinkFault)>; 2]>,
    /// The socket on which a handshake is going on, so that closing can end it.
    attempt: Mutex<Option<Arc<Socket>>>,
    pub(super) info: Mutex<Info>,
    /// Signalled when the link's thread has ended.
    ended: Condvar,
    born: Instant,
}

/// What changes with connections, not with requests.
pub(super) struct Info {
    pub(super) session: SessionId,
    pub(super) connected: bool,
    pub(super) since: Instant,
    pub(super) reconnects: u64,
    pub(super) sessions_lost: u64,
    pub(super) welcome: Welcome,
    pub(super) fault: Option<String>,
    rtt_last: Option<Duration>,
    rtt_smoothed: Option<Duration>,
    /// When the link has to be gone.
    pub(super) closing: Option<Instant>,
    pub(super) ended: bool,
}

impl Shared {
    /// Connects once, then starts the link's thread.
    pub(super) fn open(target: Target, options: LinkOptions) -> Result<(Arc<Self>, Welcome), LinkFault> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags)
            .map_err(|errno| LinkFault::System { what: "eventfd", cause: errno.into() })?;
        let info = Info {
            session: options.session,
            connected: false,
            since: Instant::now(),
            reconnects: 0,
            sessions_lost: 0,
            welcome: Welcome::default(),
            fault: None,
            rtt_last: None,
            rtt_smoothed: None,
            closing: None,
            ended: false,
        };
        let shared = Arc::new(Self {
            target,
            options,
            metadata: Channel::new(),
            data: Channel::new(),
            next_sequence: AtomicU64::new(1),
            in_flight: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            heard_ms: [AtomicU64::new(0), AtomicU64::new(0)],
            frames_received: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            answers_ignored: AtomicU64::new(0),
            answered_asked: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            clock: ServerClock::default(),
            owner: OnceLock::new(),
            wake,
            broken: Mutex::new([None, None]),
            attempt: Mutex::new(None),
            info: Mutex::new(info),
            ended: Condvar::new(),
            born: Instant::now(),
        });
        let welcome = Keeper::start(Arc::clone(&shared))?;
        Ok((shared, welcome))
    }

    pub(super) fn call<F>(self: &Arc<Self>, asked: &Query<'_>, done: F) -> Sequence
    where
        F: FnOnce(Result<Answer<'_>, Errno>, Grants<'_>) + Send + 'static,
    {
        let mut body = Vec::with_capacity(CALL_BYTES_TYPICAL);
        query::encode(&mut body, asked);
        let (lane, payload_bytes_max) = match asked {
            Query::Read { len, .. } => (Lane::Data, *len),
            _ => (Lane::Metadata, 0),
        };
        let outgoing = Outgoing {
            kind: FrameKind::Call,
            body: body.into(),
            payload: Bytes::new(),
            before: 0,
            nature: Nature::of(asked),
            payload_bytes_max,
            done: Done::Call(Box::new(done)),
        };
        self.submit(lane, outgoing)
    }

    pub(super) fn batch<F>(self: &Arc<Self>, batch: Batch, done: F) -> Sequence
    where
        F: FnOnce(Result<&[Outcome], Errno>) + Send + 'static,
    {
        let lane = if batch.payload.is_empty() { Lane::Metadata } else { Lane::Data };
        let outgoing = Outgoing {
            kind: FrameKind::Batch,
            body: batch.body,
            payload: batch.payload,
            before: 0,
            nature: Nature::Change,
            payload_bytes_max: 0,
            done: Done::Batch(batch.tickets, Box::new(done)),
        };
        self.submit(lane, outgoing)
    }

    /// A batch of the owner's log.
    pub(super) fn send(self: &Arc<Self>, batch: Logged) {
        let lane = if batch.local || batch.payload.is_empty() { Lane::Metadata } else { Lane::Data };
        self.submit(lane, Outgoing::logged(batch));
    }

    /// The same as a frame of a new connection.
    pub(super) fn again(&self, batch: Logged) -> InFlight {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let in_flight = Outgoing::logged(batch).in_flight(sequence);
        self.entered(in_flight.request.bytes());
        in_flight
    }

    /// The end of the re-assertion, as a frame of a new connection.
    pub(super) fn asserted(self: &Arc<Self>) -> InFlight {
        let mut body = Vec::new();
        query::encode(&mut body, &Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true });
        let shared = Arc::downgrade(self);
        let done = move |answer: Result<Answer<'_>, Errno>, _: Grants<'_>| {
            let (Some(shared), Err(errno)) = (shared.upgrade(), answer) else { return };
            if errno != Errno::ENOTCONN {
                shared.stale.store(errno == Errno::ESTALE, Ordering::Release);
                let fault = shared.protocol("it refused what the session holds");
                shared.broken(Lane::Metadata, shared.channel(Lane::Metadata).generation(), fault);
            }
        };
        let outgoing = Outgoing {
            kind: FrameKind::Call,
            body: body.into(),
            payload: Bytes::new(),
            before: 0,
            // Each connection has one of its own.
            nature: Nature::Keepalive,
            payload_bytes_max: 0,
            done: Done::Call(Box::new(done)),
        };
        let in_flight = outgoing.in_flight(self.next_sequence.fetch_add(1, Ordering::Relaxed));
        self.entered(in_flight.request.bytes());
        in_flight
    }

    /// The link's own sign of life, and its measure of the round trip.
    pub(super) fn ping(self: &Arc<Self>, lane: Lane) {
        let mut body = Vec::new();
        query::encode(&mut body, &Query::Ping);
        let (asked, shared) = (Instant::now(), Arc::downgrade(self));
        let done = move |answer: Result<Answer<'_>, Errno>, _: Grants<'_>| {
            let Some(shared) = shared.upgrade() else { return };
            match answer {
                Ok(_) => shared.measured(asked.elapsed()),
                // The server ended the session and left the connection open: the next handshake tells.
                Err(Errno::ESTALE) => {
                    let fault = shared.protocol("it ended the session");
                    shared.broken(lane, shared.channel(lane).generation(), fault);
                }
                Err(_) => {}
            }
        };
        let outgoing = Outgoing {
            kind: FrameKind::Call,
            body: body.into(),
            payload: Bytes::new(),
            before: 0,
            nature: Nature::Keepalive,
            payload_bytes_max: 0,
            done: Done::Call(Box::new(done)),
        };
        self.submit(lane, outgoing);
    }

    pub(super) fn interrupt(self: &Arc<Self>, sequence: Sequence) -> Interrupted {
        for lane in LANES {
            match self.channel(lane).interrupt(sequence.0) {
                Signalled::Unknown => {}
                Signalled::Kept => return Interrupted::Kept,
                Signalled::Failed(in_flight) => {
                    self.fail(in_flight, Errno::EINTR);
                    return Interrupted::Failed;
                }
                Signalled::LockWait => {
                    // Without a connection it waits and goes out behind the lock's own request.
                    self.call(&Query::CancelLock { sequence: sequence.0 }, |_, _| ());
                    return Interrupted::Cancelling;
                }
            }
        }
        Interrupted::Kept
    }

    /// Starts closing; see [`super::Link::close`].
    pub(super) fn begin_close(&self, grace: Duration) {
        for lane in LANES {
            self.channel(lane).close();
        }
        let connected = {
            let mut info = self.info();
            let deadline = Instant::now() + grace;
            info.closing = Some(info.closing.map_or(deadline, |before| before.min(deadline)));
            info.connected
        };
        if !connected && let Some(socket) = lock(&self.attempt).take() {
            socket.shutdown();
        }
        self.wake();
    }

    /// Waits for the end of closing.
    pub(super) fn finish_close(&self, grace: Duration) {
        let info = self.info();
        let bound = grace + CLOSE_SLACK;
        let waited = self.ended.wait_timeout_while(info, bound, |info| !info.ended);
        drop(waited);
        // The link's thread may be stuck in a connection attempt; it ends with that.
        for lane in LANES {
            self.fail_all(lane, Errno::ENOTCONN, true);
        }
    }

    pub(super) fn end(&self) {
        self.info().ended = true;
        self.ended.notify_all();
    }

    pub(super) fn fail_all(&self, lane: Lane, errno: Errno, close: bool) {
        for in_flight in self.channel(lane).drain(close) {
            self.fail(in_flight, errno);
        }
    }

    pub(super) fn fail(&self, in_flight: InFlight, errno: Errno) {
        self.left(&in_flight);
        in_flight.done.fail(errno);
    }

    pub(super) fn channel(&self, lane: Lane) -> &Channel {
        match lane {
            Lane::Metadata => &self.metadata,
            Lane::Data => &self.data,
        }
    }

    /// Sends what a channel has queued, on this thread, which made the sender of that generation busy.
    pub(super) fn pump(&self, lane: Lane, generation: u64) {
        self.pumped(lane, self.channel(lane).pump(generation));
    }

    /// The same for a socket that was full.
    pub(super) fn pump_full(&self, lane: Lane) {
        self.pumped(lane, self.channel(lane).pump_full());
    }

    /// A connection broke: the link's thread takes over.
    pub(super) fn broken(&self, lane: Lane, generation: u64, fault: LinkFault) {
        {
            let noted = &mut lock(&self.broken)[lane as usize];
            // The first cause is the one to tell; one of an older connection is not.
            if noted.as_ref().is_none_or(|(known, _)| *known < generation) {
                *noted = Some((generation, fault));
            }
        }
        self.wake();
    }

    /// Why a connection broke, if one of the present ones did.
    pub(super) fn take_broken(&self, present: &[Live; 2]) -> Option<LinkFault> {
        let mut broken = lock(&self.broken);
        let of_present = |(noted, live): (&mut Option<(u64, LinkFault)>, &Live)| {
            noted.take_if(|(generation, _)| *generation == live.generation)
        };
        broken.iter_mut().zip(present).find_map(of_present).map(|(_, fault)| fault)
    }

    pub(super) fn wake(&self) {
        // It fails only when the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
    }

    /// Notes the socket of a handshake; false when the link is closing.
    pub(super) fn attempting(&self, socket: Option<Arc<Socket>>) -> bool {
        *lock(&self.attempt) = socket;
        self.info().closing.is_none()
    }

    /// A frame arrived.
    pub(super) fn heard(&self, lane: Lane, bytes: usize) {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard_now(lane);
    }

    pub(super) fn heard_now(&self, lane: Lane) {
        self.heard_ms[lane as usize].store(millis(self.born.elapsed()), Ordering::Relaxed);
    }

    /// Milliseconds since the last frame.
    pub(super) fn silent_ms(&self, lane: Lane) -> u64 {
        millis(self.born.elapsed()).saturating_sub(self.heard_ms[lane as usize].load(Ordering::Relaxed))
    }

    /// A request that was asked at that time was answered: the session lived then.
    pub(super) fn lived(&self, asked: Duration) {
        let nanos = u64::try_from(asked.as_nanos()).unwrap_or(0);
        self.answered_asked.fetch_max(nanos, Ordering::AcqRel);
    }

    /// [`super::Link::answered_since`].
    pub(super) fn answered_since(&self) -> Duration {
        Duration::from_nanos(self.answered_asked.load(Ordering::Acquire))
    }

    /// A frame said what is durable.
    pub(super) fn durable(&self, commit: u64) {
        // Frames of one connection come in order, and only one connection tells.
        if commit > self.durable.load(Ordering::Relaxed) {
            self.durable.store(commit, Ordering::Relaxed);
            if let Some(owner) = self.owner() {
                owner.durable(commit);
            }
        }
    }

    /// A server that restarted counts its commits anew.
    pub(super) fn durable_anew(&self) {
        self.durable.store(0, Ordering::Relaxed);
    }

    pub(super) fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.get().and_then(Weak::upgrade)
    }

    pub(super) fn ignored(&self) {
        self.answers_ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is out of the table.
    pub(super) fn left(&self, in_flight: &InFlight) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_sub(in_flight.request.bytes(), Ordering::Relaxed);
    }

    pub(super) fn is_idle(&self) -> bool {
        LANES.iter().all(|lane| self.channel(*lane).is_idle())
    }

    pub(super) fn name(&self) -> String {
        self.target.to_string()
    }

    pub(super) fn protocol(&self, what: &'static str) -> LinkFault {
        LinkFault::Protocol { target: self.name(), what }
    }

    pub(super) fn settled(&self) -> u64 {
        self.options.settled.load(Ordering::Acquire)
    }

    pub(super) fn info(&self) -> MutexGuard<'_, Info> {
        lock(&self.info)
    }

    pub(super) fn status(&self) -> LinkStatus {
        let sum = |count: fn(&Channel) -> &AtomicU64| {
            LANES.iter().map(|lane| count(self.channel(*lane)).load(Ordering::Relaxed)).sum()
        };
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        let info = self.info();
        LinkStatus {
            target: self.name(),
            session: info.session.to_string(),
            connected: info.connected,
            since_ms: millis(info.since.elapsed()),
            reconnects: info.reconnects,
            sessions_lost: info.sessions_lost,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            in_flight_bytes: self.in_flight_bytes.load(Ordering::Relaxed),
            frames_sent: sum(|channel| &channel.frames_sent),
            bytes_sent: sum(|channel| &channel.bytes_sent),
            frames_received: load(&self.frames_received),
            bytes_received: load(&self.bytes_received),
            answers_ignored: load(&self.answers_ignored),
            rtt_last_us: info.rtt_last.map(micros),
            rtt_smoothed_us: info.rtt_smoothed.map(micros),
            version: info.welcome.version,
            epoch: info.welcome.epoch,
            lease_ms: info.welcome.lease_ms,
            server: info.welcome.program.clone(),
            fault: info.fault.clone(),
        }
    }

    fn submit(self: &Arc<Self>, lane: Lane, outgoing: Outgoing) -> Sequence {
        let bytes = crate::wire::frame::HEADER_BYTES + outgoing.body.len() + outgoing.payload.len();
        let own = matches!(outgoing.nature, Nature::Keepalive | Nature::Logged);
        let refused = if outgoing.body.len() > FRAME_BODY_BYTES_MAX
            || outgoing.payload.len() > FRAME_PAYLOAD_BYTES_MAX
        {
            Some(Errno::E2BIG)
        } else if !own && self.is_full() {
            Some(Errno::ENOMEM)
        } else {
            None
        };
        if let Some(errno) = refused {
            outgoing.done.fail(errno);
            return Sequence(self.next_sequence.fetch_add(1, Ordering::Relaxed));
        }
        // Counted before it is in the table, since the answer may be faster than this thread.
        self.entered(bytes);
        let make = outgoing.made();
        let channel = self.channel(lane);
        let (sequence, added) = channel.add(&self.next_sequence, &self.options.settled, make);
        match added {
            Added::Taken { pump: Some(generation) } => self.pump(lane, generation),
            Added::Taken { pump: None } => {}
            Added::Closed(done) => {
                self.in_flight.fetch_sub(1, Ordering::Relaxed);
                self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
                done.fail(Errno::ENOTCONN);
            }
        }
        Sequence(sequence)
    }

    fn entered(&self, bytes: usize) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.options.in_flight_max
            || self.in_flight_bytes.load(Ordering::Relaxed) >= self.options.in_flight_bytes_max
    }

    fn pumped(&self, lane: Lane, pumped: Pumped) {
        match pumped {
            Pumped::Done => {}
            Pumped::Full => self.wake(),
            Pumped::Broken(generation, errno) => {
                let fault = LinkFault::Broken { target: self.name(), cause: errno.into() };
                self.broken(lane, generation, fault);
            }
        }
    }

    fn measured(&self, rtt: Duration) {
        let mut info = self.info();
        info.rtt_last = Some(rtt);
        info.rtt_smoothed = Some(info.rtt_smoothed.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8));
    }
}

/// A request on its way in.
struct Outgoing {
    kind: FrameKind,
    body: Bytes,
    payload: Bytes,
    /// See [`crate::wire::Header::before`].
    before: u64,
    nature: Nature,
    payload_bytes_max: u32,
    done: Done,
}

impl Outgoing {
    fn logged(batch: Logged) -> Self {
        let span = Span { first: batch.first, last: batch.last, count: batch.count };
        Self {
            kind: FrameKind::Batch,
            body: batch.body,
            payload: batch.payload,
            before: batch.before,
            nature: Nature::Logged,
            payload_bytes_max: 0,
            done: Done::Log(span),
        }
    }

    /// What makes the request of it, once it has its number. The checksum is computed here, under no lock.
    fn made(self) -> impl FnOnce(u64) -> InFlight {
        let Self { kind, body, payload, before, nature, payload_bytes_max, done } = self;
        let (body_crc, asked) = (crc32c(&body), boottime());
        move |sequence| InFlight {
            request: Arc::new(Request { kind, sequence, body, body_crc, payload, before }),
            done,
            nature,
            asked,
            payload_bytes_max,
            interrupted: false,
        }
    }

    fn in_flight(self, sequence: u64) -> InFlight {
        self.made()(sequence)
    }
}

/// A lock whose holders leave it whole at every step, so that another thread's panic does not spread.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Both connections, in the order in which they are set up.
pub(super) const LANES: [Lane; 2] = [Lane::Metadata, Lane::Data];

/// Most queries with a name fit.
const CALL_BYTES_TYPICAL: usize = 160;

/// What closing may take besides the grace: the leave-taking.
const CLOSE_SLACK: Duration = Duration::from_secs(1);
