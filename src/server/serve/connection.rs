//! One accepted connection, from its first byte to its last, and the list of all of them.

use super::Core;
use super::dispatch::{Member, Next, Standing};
use super::frames::FrameReader;
use super::handshake::{ShakeFault, Timed, say};
use super::output::Output;
use super::socket::Socket;
use super::status::count;
use crate::wire::FrameKind;
use crate::wire::hello::{self, Refusal};
use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that may be in their handshake at a time: a stranger can hold up no more than these.
const STRANGERS_MAX: usize = 64;

/// A connection without a session, whose lease would end it, may be silent for so long.
const IDLE: Duration = Duration::from_secs(60);

/// The open connections of a server.
pub(super) struct Connections {
    max: usize,
    state: Mutex<State>,
    /// One was closed.
    closed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Arc<Socket>>,
    /// Those of them that are not known yet.
    strangers: usize,
    addresses: Vec<String>,
}

/// A place in the list, given back when dropped.
struct Place {
    core: Arc<Core>,
    id: u64,
    stranger: bool,
}

impl Connections {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default(), closed: Condvar::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.state().open.len()
    }

    /// Addresses the server listens at.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.state().addresses.clone()
    }

    pub(super) fn add_address(&self, address: String) {
        self.state().addresses.push(address);
    }

    /// Lets the connections finish the frame in hand, and waits for them. Says whether all ended in time; those that
    /// did not are cut.
    pub(super) fn finish(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.state().open.values().for_each(|socket| socket.shutdown(Shutdown::Read));
        let mut state = self.state();
        while !state.open.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.open.values().for_each(|socket| socket.shutdown(Shutdown::Both));
                return false;
            }
            state = self.closed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Cuts all connections, as a crash would.
    pub(super) fn cut(&self) {
        self.state().open.values().for_each(|socket| socket.shutdown(Shutdown::Both));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A place for a stranger; `None`, with the reason, when there is none.
    fn take(core: &Arc<Core>, socket: &Arc<Socket>) -> Result<Self, &'static str> {
        let mut state = core.connections.state();
        if state.open.len() >= core.connections.max {
            return Err("the server has as many connections as it may");
        }
        if state.strangers >= STRANGERS_MAX {
            return Err("too many connections are in their handshake");
        }
        let id = state.next;
        state.next += 1;
        state.strangers += 1;
        state.open.insert(id, Arc::clone(socket));
        Ok(Self { core: Arc::clone(core), id, stranger: true })
    }

    fn known(&mut self) {
        if std::mem::replace(&mut self.stranger, false) {
            self.core.connections.state().strangers -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known();
        self.core.connections.state().open.remove(&self.id);
        self.core.connections.closed.notify_all();
    }
}

/// Serves an accepted connection on a thread of its own.
pub(super) fn start(core: &Arc<Core>, socket: Socket) {
    count(&core.counters.accepted, 1);
    let socket = Arc::new(socket);
    let place = match Place::take(core, &socket) {
        Ok(place) => place,
        Err(reason) => {
            count(&core.counters.refused, 1);
            let refusal = Refusal { reason: format!("{reason}: try again"), retry: true };
            // A peer that does not hear it sees the connection close.
            drop(say(&socket, FrameKind::Refusal, &hello::encode(&refusal)));
            tracing::warn!(peer = socket.peer(), "connection refused: {reason}");
            return;
        }
    };
    let core = Arc::clone(core);
    let spawned = std::thread::Builder::new()
        .name("ringfs-client".to_owned())
        .spawn(move || run(&core, &socket, place));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for a connection");
    }
}

/// A connection that leaves its session when it ends, also by a panic.
struct Seat<'c> {
    core: &'c Core,
    member: Member,
    output: Arc<Output>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Standing::Session(member) = &self.member.standing {
            self.core.sessions.detach(&member.session, member.link);
            self.core.settle();
        }
        self.output.finish();
    }
}

fn run(core: &Arc<Core>, socket: &Arc<Socket>, mut place: Place) {
    let peer = socket.peer();
    let mut reader = FrameReader::new(Timed::new(socket, Instant::now() + core.options.handshake));
    let (member, welcome) = match core.shake(socket, &mut reader) {
        Ok(shaken) => shaken,
        Err(fault) => {
            count(&core.counters.refused, 1);
            match fault {
                ShakeFault::Nothing => tracing::debug!(peer, "connection closed: {fault}"),
                _ => tracing::warn!(peer, "connection closed in its handshake: {fault}"),
            }
            socket.shutdown(Shutdown::Both);
            return;
        }
    };
    place.known();
    let output = Arc::new(Output::new(Arc::clone(socket)));
    let seat = Seat { core, member, output: Arc::clone(&output) };
    let writer = std::thread::Builder::new().name("ringfs-answers".to_owned());
    let writing = Arc::clone(&output);
    let writer = match writer.spawn(move || writing.write_loop()) {
        Ok(writer) => writer,
        Err(error) => {
            tracing::error!(peer, %error, "no thread for a connection");
            return output.close();
        }
    };
    output.send(welcome);
    let sink = Arc::clone(&output);
    core.listens(&seat.member, Arc::new(move |frame| sink.send(frame)));
    if let Err(fault) = frames(core, &seat, &mut reader) {
        count(&core.counters.faults, 1);
        tracing::warn!(peer, "connection closed: {fault}");
    }
    drop(seat);
    // The place is given up after the last answer has left: a server that ends waits for it.
    if writer.join().is_err() {
        output.close();
    }
    drop(place);
}

/// Works on the frames of a connection until it ends.
fn frames(
    core: &Arc<Core>,
    seat: &Seat<'_>,
    reader: &mut FrameReader<Timed<'_>>,
) -> Result<(), super::frames::ReadFault> {
    let session = matches!(seat.member.standing, Standing::Session(_));
    reader.source().trust((!session).then_some(IDLE))?;
    let alive = || {
        if let Standing::Session(member) = &seat.member.standing {
            core.sessions.touch(&member.session);
        }
    };
    while !core.stopping() && seat.output.wait_for_room(&alive) {
        let Some(frame) = reader.next(usize::MAX)? else { return Ok(()) };
        let output = Arc::clone(&seat.output);
        let next = core.take(&seat.member, frame, Box::new(move |frame| output.send(frame)))?;
        if next == Next::Ended {
            break;
        }
    }
    Ok(())
}
