//! The link's own thread: makes connections, keeps the session alive, sends when a socket was full, takes leave.
//!
//! ```text
//!  ┌──────────► attempt: connect both, shake hands ─── refused, absent, … ──► back-off ─┐
//!  │               │ welcome                  ▲  │ session unknown                      │
//!  │               │                          │  ▼                                      │
//!  │               │                          │ lost: fail what is in flight, new session
//!  │               ▼                          └─────────────────────────────────────────┘
//!  │            re-assert (only a session that existed before)
//!  │               ▼
//!  │            install: send what the log replays, end the re-assertion, send again what is in flight, receive
//!  │               ▼
//!  └─ broken ── tend: pings, full sockets ── closing ──► leave
//! ```

use super::LinkFault;
use super::channel::{Lane, Live};
use super::clock::boottime;
use super::handshake::{BYE_TIMEOUT, Terms};
use super::options::{Held, random_bytes, random_session};
use super::receive;
use super::remote::{LANES, Shared, millis};
use super::request::{InFlight, Request};
use super::socket::Socket;
use crate::base::{Errno, SessionId};
use crate::wire::FrameKind;
use crate::wire::hello::Welcome;
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the thread owns.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    session: SessionId,
    /// The server does not know this session yet.
    fresh: bool,
    /// Volume of the first welcome.
    volume: Vec<u8>,
    /// Of the server that the session was last known to, 0 before.
    epoch: u64,
    lease: Duration,
    live: Option<[Live; 2]>,
    receivers: Vec<JoinHandle<()>>,
    /// Attempts since the last connection that held.
    attempts: u32,
    /// Text of the fault that was logged last.
    logged: String,
}

enum Attempt {
    /// The server does not know the session.
    Lost {
        /// It is another one than that which did.
        restarted: bool,
    },
    Fault(LinkFault),
}

impl From<LinkFault> for Attempt {
    fn from(fault: LinkFault) -> Self {
        Self::Fault(fault)
    }
}

impl Keeper {
    /// Connects on the calling thread, then goes on with a thread of its own.
    pub(super) fn start(shared: Arc<Shared>) -> Result<Welcome, LinkFault> {
        let mut keeper = Self {
            session: shared.options.session,
            shared,
            fresh: true,
            volume: Vec::new(),
            epoch: 0,
            lease: LEASE_MIN,
            live: None,
            receivers: Vec::new(),
            attempts: 0,
            logged: String::new(),
        };
        match keeper.attempt() {
            Ok(()) => {}
            Err(Attempt::Fault(fault)) => return Err(fault),
            Err(Attempt::Lost { .. }) => {
                return Err(keeper.shared.protocol("it lost a session that had not begun"));
            }
        }
        let welcome = keeper.shared.info().welcome.clone();
        let shared = Arc::clone(&keeper.shared);
        let started = std::thread::Builder::new().name("link".into()).spawn(move || keeper.run());
        match started {
            Ok(_) => Ok(welcome),
            Err(cause) => {
                // The receivers end with their sockets.
                for lane in LANES {
                    shared.channel(lane).take_down();
                }
                Err(LinkFault::System { what: "thread", cause })
            }
        }
    }

    fn run(mut self) {
        let mut installed = Instant::now();
        while let Some(fault) = self.tend() {
            if installed.elapsed() > HELD_LONG_ENOUGH {
                self.attempts = 0;
            }
            let stale = self.shared.stale.swap(false, Ordering::AcqRel);
            if stale {
                // What it still has there would be in the way of the new session.
                self.say_bye();
            }
            self.take_down(&fault);
            if stale {
                self.lost(false);
            }
            if !self.reconnect() {
                break;
            }
            installed = Instant::now();
        }
        self.leave();
    }

    /// Looks after two connections until one is broken (the reason is returned) or the link closes.
    fn tend(&mut self) -> Option<LinkFault> {
        let mut ping_at = Instant::now();
        loop {
            let now = Instant::now();
            let closing = self.shared.info().closing;
            if closing.is_some_and(|deadline| now >= deadline || self.shared.is_idle()) {
                return None;
            }
            if let Some(fault) = self.live.as_ref().and_then(|live| self.shared.take_broken(live)) {
                return Some(fault);
            }
            let silent_ms = LANES.iter().map(|lane| self.shared.silent_ms(*lane)).max().unwrap_or(0);
            if silent_ms > millis(self.lease) {
                return Some(LinkFault::Silent { target: self.shared.name(), silent_ms });
            }
            if now >= ping_at {
                for lane in LANES {
                    self.shared.ping(lane);
                }
                ping_at = now + self.lease / PINGS_PER_LEASE;
            }
            let silent_until = now + self.lease.saturating_sub(Duration::from_millis(silent_ms));
            let mut until = ping_at.min(silent_until + Duration::from_millis(1));
            if let Some(deadline) = closing {
                // What comes in does not wake this thread.
                until = until.min(deadline).min(now + CLOSING_STEP);
            }
            self.wait(until);
            for lane in LANES {
                self.shared.pump_full(lane);
            }
        }
    }

    /// Waits for a wake-up, for room in a full socket, or until `until`.
    fn wait(&self, until: Instant) {
        let full: Vec<Arc<Socket>> =
            LANES.iter().filter_map(|lane| self.shared.channel(*lane).full_socket()).collect();
        let mut fds = vec![PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(full.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)));
        // Rounded up, so as not to spin through the last millisecond.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // An interrupted wait is a short one: whoever calls looks again.
        let _ = poll(&mut fds, left);
        let _ = self.shared.wake.read();
    }

    /// Ends both connections and their threads; what does not outlive them fails.
    fn take_down(&mut self, fault: &LinkFault) {
        self.live = None;
        let ended: Vec<_> = LANES.iter().flat_map(|lane| self.shared.channel(*lane).take_down()).collect();
        for receiver in self.receivers.drain(..) {
            // A panic there was told as the fault.
            let _ = receiver.join();
        }
        for (in_flight, errno) in ended {
            self.shared.fail(in_flight, errno);
        }
        let mut info = self.shared.info();
        info.connected = false;
        info.since = Instant::now();
        drop(info);
        self.note(fault);
    }

    /// Tries until there is a connection; false: the link closes.
    fn reconnect(&mut self) -> bool {
        loop {
            if !self.back_off() {
                return false;
            }
            self.attempts = self.attempts.saturating_add(1);
            match self.attempt() {
                Ok(()) => {
                    self.logged.clear();
                    tracing::info!("connected to {} again", self.shared.name());
                    return true;
                }
                Err(Attempt::Lost { restarted }) => self.lost(restarted),
                Err(Attempt::Fault(fault)) => self.note(&fault),
            }
        }
    }

    /// Waits before the next attempt: not at all before the first, then doubling, with jitter so that the clients of
    /// a restarted server do not come all at once. False: the link closes.
    fn back_off(&self) -> bool {
        let options = &self.shared.options;
        let delay = match self.attempts {
            0 => Duration::ZERO,
            n => options.backoff_min.saturating_mul(1 << (n - 1).min(20)).min(options.backoff_max),
        };
        // A server that fell again and again is not to wait for us longer than it waits for anybody.
        let delay = delay.min(self.lease / ATTEMPTS_PER_LEASE);
        let share = random_bytes().map_or(128, |[byte]| u32::from(byte));
        let until = Instant::now() + delay / 2 + delay.saturating_mul(share) / 512;
        loop {
            if self.shared.info().closing.is_some() {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
            self.wait(until);
        }
    }

    /// One attempt at both connections.
    fn attempt(&mut self) -> Result<(), Attempt> {
        let asked = boottime();
        let made = self.handshakes();
        self.shared.attempting(None);
        let (sockets, welcome) = made?;
        self.lease = match welcome.lease_ms {
            0 => LEASE_UNTOLD,
            ms => Duration::from_millis(ms.into()).clamp(LEASE_MIN, LEASE_MAX),
        };
        self.volume.clone_from(&welcome.volume);
        let (resumed, restarted) = (!self.fresh, self.epoch != welcome.epoch);
        // The session was lost to the server before this one, whose commits mean nothing now.
        let lost_again = !resumed && restarted && self.epoch != 0;
        self.fresh = false;
        self.epoch = welcome.epoch;
        if restarted {
            self.shared.durable_anew();
        }
        if lost_again && let Some(owner) = self.shared.owner() {
            owner.lost(true);
        }
        let version = u16::try_from(welcome.version).unwrap_or(0);
        {
            let mut info = self.shared.info();
            info.welcome = welcome;
            info.session = self.session;
            info.connected = true;
            // The first attempt of all is not counted as one.
            info.reconnects += u64::from(self.attempts > 0);
            info.since = Instant::now();
            info.fault = None;
        }
        // A new session that follows a lost one too: what went out while there was no connection has gone nowhere.
        let mut ahead = Some(self.replay(resumed, restarted));
        // Not before the owner knows that the server restarted: its leases are gone then.
        self.shared.lived(asked);
        let mut live = Vec::with_capacity(2);
        for (lane, socket) in LANES.into_iter().zip(sockets) {
            self.shared.heard_now(lane);
            let (channel, settled) = (self.shared.channel(lane), self.shared.settled());
            // Metadata is the first: the order of the log is that of one connection.
            let ahead = ahead.take().unwrap_or_default();
            live.push(channel.install(socket, version, self.session, settled, ahead));
        }
        for (lane, live) in LANES.into_iter().zip(&live) {
            match receive::start(Arc::clone(&self.shared), lane, live.clone()) {
                Ok(receiver) => self.receivers.push(receiver),
                Err(fault) => {
                    self.take_down(&fault);
                    return Err(fault.into());
                }
            }
        }
        self.live = live.try_into().ok();
        for lane in LANES {
            self.shared.pump_full(lane);
        }
        Ok(())
    }

    /// What the log sends again, and behind it the end of the re-assertion. A waited mutation that no server has answered
    /// comes behind that too: until then a server that restarted executes what is sent though others may have leases.
    fn replay(&self, resumed: bool, restarted: bool) -> Vec<InFlight> {
        for in_flight in LANES.iter().flat_map(|lane| self.shared.channel(*lane).collect()) {
            self.shared.left(&in_flight);
        }
        let owner = self.shared.owner();
        let batches = owner.map_or_else(Vec::new, |owner| owner.replay(resumed && restarted));
        if !resumed {
            return batches.into_iter().map(|batch| self.shared.again(batch)).collect();
        }
        let (known, new): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(|batch| batch.local || !batch.unanswered);
        let mut ahead: Vec<InFlight> = known.into_iter().map(|batch| self.shared.again(batch)).collect();
        ahead.push(self.shared.asserted());
        ahead.extend(new.into_iter().map(|batch| self.shared.again(batch)));
        ahead
    }

    /// Connects and shakes hands twice; takes an existing session up again.
    fn handshakes(&self) -> Result<([Arc<Socket>; 2], Welcome), Attempt> {
        let name = self.shared.name();
        let terms = Terms {
            target: &name,
            options: &self.shared.options,
            session: self.session,
            resumed: !self.fresh,
            leases: self.shared.options.leases,
            volume: &self.volume,
        };
        let (metadata, welcome) = self.handshake(&terms)?;
        if terms.resumed && !welcome.session_known {
            return Err(Attempt::Lost { restarted: welcome.epoch != self.epoch });
        }
        // A resumed session replaces its former connections; this one stands beside the first.
        let beside = Terms { resumed: false, leases: false, ..terms };
        let (data, second) = self.handshake(&beside)?;
        if second.epoch != welcome.epoch || second.version != welcome.version {
            return Err(self.shared.protocol("it restarted between two connections").into());
        }
        if terms.resumed {
            let held = self.shared.owner().map_or_else(Held::default, |owner| owner.held());
            let next = || self.shared.next_sequence.fetch_add(1, Ordering::Relaxed);
            let version = u16::try_from(welcome.version).unwrap_or(0);
            match terms.reassert(&metadata, version, &held, &next)? {
                Ok(()) => {}
                Err(Errno::ESTALE) => {
                    // What it still has there would be in the way of the new session.
                    terms.bye(&metadata, version, next());
                    return Err(Attempt::Lost { restarted: welcome.epoch != self.epoch });
                }
                Err(_) => return Err(self.shared.protocol("it refused what the session holds").into()),
            }
        }
        for socket in [&metadata, &data] {
            socket.set_timeouts(None).map_err(|cause| LinkFault::Broken { target: name.clone(), cause })?;
        }
        Ok(([metadata, data], welcome))
    }

    fn handshake(&self, terms: &Terms<'_>) -> Result<(Arc<Socket>, Welcome), LinkFault> {
        let closed = || LinkFault::Closed { target: self.shared.name(), what: "this side closes" };
        let options = &self.shared.options;
        let socket = Arc::new(Socket::connect(&self.shared.target, options.connect_timeout)?);
        if !self.shared.attempting(Some(Arc::clone(&socket))) {
            return Err(closed());
        }
        let asked = boottime();
        let welcome = terms.shake(&socket)?;
        self.shared.clock.measured(welcome.clock_nanos, asked, boottime());
        if !self.volume.is_empty() && welcome.volume != self.volume {
            return Err(LinkFault::OtherVolume { target: self.shared.name() });
        }
        Ok((socket, welcome))
    }

    /// The server forgot the session: what is in flight has an unknown fate; a new session begins.
    fn lost(&mut self, restarted: bool) {
        tracing::error!(
            "{} does not know session {} any more: open files and locks are lost",
            self.shared.name(),
            self.session
        );
        if let Some(owner) = self.shared.owner() {
            owner.lost(restarted);
        }
        // Without random numbers the next one still differs from this mount's earlier ones.
        self.session = random_session().unwrap_or(SessionId(self.session.0.wrapping_add(1)));
        self.fresh = true;
        {
            let mut info = self.shared.info();
            info.sessions_lost += 1;
            info.session = self.session;
        }
        for lane in LANES {
            self.shared.fail_all(lane, Errno::EIO, false);
        }
    }

    /// Ends the session at the server, when there is a connection.
    fn say_bye(&self) {
        if self.live.is_some() {
            let sequence = self.shared.next_sequence.fetch_add(1, Ordering::Relaxed);
            let bye = Request::new(FrameKind::Bye, sequence, Bytes::new(), Bytes::new());
            let pump = self.shared.channel(Lane::Metadata).add_unanswered(bye, self.shared.settled());
            if let Some(generation) = pump {
                self.shared.pump(Lane::Metadata, generation);
            }
            let deadline = Instant::now() + BYE_TIMEOUT;
            while Instant::now() < deadline && self.shared.channel(Lane::Metadata).full_socket().is_some() {
                self.wait(deadline);
                self.shared.pump_full(Lane::Metadata);
            }
        }
    }

    /// Says good-bye; then nothing is in flight any more.
    fn leave(&mut self) {
        self.say_bye();
        let closed = LinkFault::Closed { target: self.shared.name(), what: "this side closes" };
        self.logged = closed.to_string();
        self.take_down(&closed);
        for lane in LANES {
            self.shared.fail_all(lane, Errno::ENOTCONN, true);
        }
        self.shared.end();
    }

    /// Shows a fault, and logs it unless it is the one logged last.
    fn note(&mut self, fault: &LinkFault) {
        let text = fault.to_string();
        if self.logged != text {
            tracing::warn!("{text}; requests wait until it is back");
            self.logged.clone_from(&text);
        }
        self.shared.info().fault = Some(text);
    }
}

/// So often in a lease an idle session shows that it lives: what was answered under leases stays valid meanwhile, with
/// room for a lost one.
const PINGS_PER_LEASE: u32 = 4;

/// So often in a lease a connection is tried for at least: grace is a lease, usually.
const ATTEMPTS_PER_LEASE: u32 = 8;

/// Shorter leases than this are taken for this: no server can be that quick to forget.
const LEASE_MIN: Duration = Duration::from_millis(50);

/// Longer leases would let a dead connection go unnoticed.
const LEASE_MAX: Duration = Duration::from_secs(600);

/// Of a server that names none.
const LEASE_UNTOLD: Duration = Duration::from_secs(30);

/// A connection that held this long was a good one: the next attempt is made at once.
const HELD_LONG_ENOUGH: Duration = Duration::from_secs(1);

/// How often closing looks whether everything is answered.
const CLOSING_STEP: Duration = Duration::from_millis(5);
