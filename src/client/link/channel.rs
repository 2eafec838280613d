//! One of the two connections of a session: its table of requests in flight, and the queue of frames to send.
//!
//! One mutex guards both, held for a few instructions and never while a system call or a closure runs. Whoever finds the
//! queue without a sender sends, and takes along what others add meanwhile; when the socket is full the link's thread
//! goes on. A frame is in the table before it is in the queue, so no answer comes too early.
//!
//! ```text
//!          install            request             queue empty
//!   Down ──────────► Idle ───────────────► Busy ──────────────► Idle
//!    ▲                                      │ ▲
//!    │                          socket full ▼ │ socket has room
//!    └── take_down, from each ──────────── Full
//! ```

use super::request::{Done, InFlight, Nature, Request};
use super::socket::Socket;
use crate::base::{Errno, SessionId};
use crate::wire::frame::HEADER_BYTES;
use nix::errno::Errno as SysErrno;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Names, attributes, locks, small answers.
    Metadata,
    /// File bytes.
    Data,
}

/// A connection as it was agreed.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) socket: Arc<Socket>,
    /// Counts connections of this channel: what belongs to an older one is void.
    pub(super) generation: u64,
    pub(super) version: u16,
    pub(super) session: SessionId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sender {
    Down,
    Idle,
    Busy,
    Full,
}

/// A frame to send.
struct Queued {
    request: Arc<Request>,
    header: [u8; HEADER_BYTES],
}

struct State {
    in_flight: FxHashMap<u64, InFlight>,
    queue: VecDeque<Queued>,
    /// An empty queue with its memory, for the next sender.
    spare: VecDeque<Queued>,
    /// Bytes of the first frame of `queue` that went out already.
    head_sent: usize,
    sender: Sender,
    generation: u64,
    live: Option<Live>,
    /// The owner is being asked for what its log sends again: what it sends besides goes out behind that.
    collecting: bool,
    closed: bool,
}

impl State {
    /// Queues a frame; returns the generation when nobody sends yet, and the caller is the one to do so.
    fn push(&mut self, queued: Queued) -> Option<u64> {
        self.queue.push_back(queued);
        let idle = self.sender == Sender::Idle;
        idle.then(|| {
            self.sender = Sender::Busy;
            self.generation
        })
    }
}

/// See the module.
pub(super) struct Channel {
    state: Mutex<State>,
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
}

/// What a new request met.
pub(super) enum Added {
    /// It is in the table, and in the queue if there is a connection. `pump`: this thread sends, for that generation.
    Taken { pump: Option<u64> },
    /// The link is closed, or there is no connection for what does not wait for the next.
    Closed(Done),
}

/// How sending ended.
pub(super) enum Pumped {
    /// Everything is out, or another thread goes on.
    Done,
    /// The link's thread has to go on when the socket has room.
    Full,
    /// The connection broke.
    Broken(u64, SysErrno),
}

/// What an arrived frame belongs to.
pub(super) enum Taken {
    /// This request; it is out of the table.
    Found(InFlight),
    /// Nobody waits for it any more, or the connection is void.
    Nobody,
}

impl Channel {
    pub(super) fn new() -> Self {
        let state = State {
            in_flight: FxHashMap::default(),
            queue: VecDeque::new(),
            spare: VecDeque::new(),
            head_sent: 0,
            sender: Sender::Down,
            generation: 0,
            live: None,
            collecting: false,
            closed: false,
        };
        Self { state: Mutex::new(state), frames_sent: AtomicU64::new(0), bytes_sent: AtomicU64::new(0) }
    }

    /// Takes a request in. The sequence is drawn here, so that the queue keeps the order of the sequences.
    pub(super) fn add(
        &self,
        next_sequence: &AtomicU64,
        settled: &AtomicU64,
        make: impl FnOnce(u64) -> InFlight,
    ) -> (u64, Added) {
        let mut state = self.lock();
        let sequence = next_sequence.fetch_add(1, Ordering::Relaxed);
        let in_flight = make(sequence);
        if state.closed {
            return (sequence, Added::Closed(in_flight.done));
        }
        let request = Arc::clone(&in_flight.request);
        let waits_not = match in_flight.nature {
            Nature::Keepalive => true,
            Nature::Logged => !state.collecting,
            Nature::Question | Nature::LockWait | Nature::Change => false,
        };
        let header = state
            .live
            .as_ref()
            .map(|l| request.header(l.version, l.session, settled.load(Ordering::Acquire)));
        if header.is_none() && waits_not {
            return (sequence, Added::Closed(in_flight.done));
        }
        state.in_flight.insert(sequence, in_flight);
        let pump = header.and_then(|header| state.push(Queued { request, header }));
        (sequence, Added::Taken { pump })
    }

    /// Queues a frame that gets no answer. The generation is that of [`Channel::pump`], if this thread sends.
    pub(super) fn add_unanswered(&self, request: Request, settled: u64) -> Option<u64> {
        let mut state = self.lock();
        let live = state.live.as_ref()?;
        let header = request.header(live.version, live.session, settled);
        state.push(Queued { request: Arc::new(request), header })
    }

    /// Sends what is queued. Only for the thread that made the sender of this generation `Busy`.
    pub(super) fn pump(&self, generation: u64) -> Pumped {
        let mut state = self.lock();
        if state.generation != generation {
            return Pumped::Done;
        }
        for _ in 0..ROUNDS_MAX {
            let Some(live) = state.live.clone() else { return Pumped::Done };
            let spare = std::mem::take(&mut state.spare);
            let mut queue = std::mem::replace(&mut state.queue, spare);
            let mut head_sent = state.head_sent;
            drop(state);
            let sent = self.send(&live.socket, &mut queue, &mut head_sent);
            state = self.lock();
            if state.generation != live.generation {
                return Pumped::Done;
            }
            state.head_sent = head_sent;
            if queue.is_empty() {
                state.spare = queue;
            } else {
                // What others added meanwhile goes behind.
                let added = std::mem::replace(&mut state.queue, queue);
                state.queue.extend(added);
            }
            match sent {
                Ok(()) if state.queue.is_empty() => {
                    state.sender = Sender::Idle;
                    return Pumped::Done;
                }
                Ok(()) => {}
                Err(SysErrno::EAGAIN) => break,
                // The sender stays `Busy`: nobody else tries before the link's thread has cleared up.
                Err(errno) => return Pumped::Broken(live.generation, errno),
            }
        }
        state.sender = Sender::Full;
        Pumped::Full
    }

    /// The link's thread goes on sending, if that is its turn.
    pub(super) fn pump_full(&self) -> Pumped {
        let generation = {
            let mut state = self.lock();
            if state.sender != Sender::Full {
                return Pumped::Done;
            }
            state.sender = Sender::Busy;
            state.generation
        };
        self.pump(generation)
    }

    /// The socket the link's thread waits for to have room.
    pub(super) fn full_socket(&self) -> Option<Arc<Socket>> {
        let state = self.lock();
        let live = state.live.as_ref().filter(|_| state.sender == Sender::Full)?;
        Some(Arc::clone(&live.socket))
    }

    /// From here on what the owner's log sends waits for the connection that comes; the owner is asked for the rest after
    /// this.
    pub(super) fn collect(&self) -> Vec<InFlight> {
        let mut state = self.lock();
        state.collecting = true;
        state.in_flight.extract_if(|_, f| f.nature == Nature::Logged).map(|(_, f)| f).collect()
    }

    /// A new connection: first `ahead` goes out, in its order, then everything in flight again, in the order of the
    /// sequences, before anything new. The caller then calls [`Channel::pump_full`].
    pub(super) fn install(
        &self,
        socket: Arc<Socket>,
        version: u16,
        session: SessionId,
        settled: u64,
        ahead: Vec<InFlight>,
    ) -> Live {
        let mut state = self.lock();
        state.generation += 1;
        let live = Live { socket, generation: state.generation, version, session };
        let mut requests: Vec<_> = state.in_flight.values().map(|f| Arc::clone(&f.request)).collect();
        requests.sort_unstable_by_key(|request| request.sequence);
        state.queue.clear();
        let requests = ahead.iter().map(|f| Arc::clone(&f.request)).chain(requests).collect::<Vec<_>>();
        state.in_flight.extend(ahead.into_iter().map(|f| (f.request.sequence, f)));
        state.collecting = false;
        for request in requests {
            let header = request.header(version, session, settled);
            state.queue.push_back(Queued { request, header });
        }
        state.head_sent = 0;
        state.sender = if state.queue.is_empty() { Sender::Idle } else { Sender::Full };
        state.live = Some(live.clone());
        live
    }

    /// Ends the connection. Returns what does not outlive it, with the errno it fails with.
    pub(super) fn take_down(&self) -> Vec<(InFlight, Errno)> {
        let mut state = self.lock();
        state.generation += 1;
        state.sender = Sender::Down;
        state.queue.clear();
        state.head_sent = 0;
        state.collecting = false;
        if let Some(live) = state.live.take() {
            live.socket.shutdown();
        }
        let keepalive = state
            .in_flight
            .extract_if(|_, f| matches!(f.nature, Nature::Keepalive | Nature::Logged))
            .map(|(_, f)| (f, Errno::ENOTCONN));
        let mut ended: Vec<_> = keepalive.collect();
        ended.extend(state.in_flight.extract_if(|_, f| f.interrupted).map(|(_, f)| (f, Errno::EINTR)));
        ended
    }

    /// Empties the table, in the order of the sequences. With `close` nothing comes in any more.
    pub(super) fn drain(&self, close: bool) -> Vec<InFlight> {
        let mut state = self.lock();
        state.closed |= close;
        let mut all: Vec<_> = state.in_flight.drain().map(|(_, f)| f).collect();
        drop(state);
        all.sort_unstable_by_key(|f| f.request.sequence);
        all
    }

    /// Refuses new requests; what is in flight goes on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Takes the request an answer belongs to out of the table, if `fits` says that it may be its answer.
    pub(super) fn take<E>(
        &self,
        generation: u64,
        sequence: u64,
        fits: impl FnOnce(&InFlight) -> Result<(), E>,
    ) -> Result<Taken, E> {
        let mut state = self.lock();
        if state.generation != generation {
            return Ok(Taken::Nobody);
        }
        let Some(in_flight) = state.in_flight.get(&sequence) else { return Ok(Taken::Nobody) };
        fits(in_flight)?;
        Ok(state.in_flight.remove(&sequence).map_or(Taken::Nobody, Taken::Found))
    }

    /// A signal for the caller of `sequence`: see [`super::Interrupted`].
    pub(super) fn interrupt(&self, sequence: u64) -> Signalled {
        let mut state = self.lock();
        let connected = state.live.is_some();
        let Some(in_flight) = state.in_flight.get_mut(&sequence) else { return Signalled::Unknown };
        match in_flight.nature {
            Nature::Change | Nature::Logged | Nature::Keepalive => Signalled::Kept,
            Nature::LockWait => Signalled::LockWait,
            Nature::Question if connected => {
                in_flight.interrupted = true;
                Signalled::Kept
            }
            Nature::Question => {
                state.in_flight.remove(&sequence).map_or(Signalled::Unknown, Signalled::Failed)
            }
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Whether nothing but a keepalive is in flight, and nothing on its way out.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        let answered = state.in_flight.values().all(|f| f.nature == Nature::Keepalive);
        answered && state.queue.is_empty() && state.sender != Sender::Busy
    }

    /// Sends until the queue is empty or the socket full.
    fn send(
        &self,
        socket: &Socket,
        queue: &mut VecDeque<Queued>,
        head_sent: &mut usize,
    ) -> Result<(), SysErrno> {
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_PER_SEND * 3];
            let mut count = 0;
            let mut skip = *head_sent;
            for queued in queue.iter().take(FRAMES_PER_SEND) {
                for part in [&queued.header[..], &queued.request.body, &queued.request.payload] {
                    let skipped = skip.min(part.len());
                    skip -= skipped;
                    if skipped < part.len() {
                        slices[count] = IoSlice::new(&part[skipped..]);
                        count += 1;
                    }
                }
            }
            *head_sent += socket.send(&slices[..count])?;
            while let Some(first) = queue.front().filter(|first| *head_sent >= first.request.bytes()) {
                let bytes = first.request.bytes();
                *head_sent -= bytes;
                self.frames_sent.fetch_add(1, Ordering::Relaxed);
                self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
                queue.pop_front();
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No closure runs under the lock, so a panic elsewhere leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Channel::interrupt`].
pub(super) enum Signalled {
    Unknown,
    Kept,
    LockWait,
    Failed(InFlight),
}

/// Frames in one system call.
const FRAMES_PER_SEND: usize = 16;

/// After this many rounds the link's thread goes on, so that no caller sends for others without end.
const ROUNDS_MAX: usize = 4;

const _: () = assert!(FRAMES_PER_SEND * 3 <= 1024, "the kernel's limit of slices");
