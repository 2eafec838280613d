//! The thread that accepts with plain system calls: on unix sockets, and on all where io_uring is not allowed.

use super::socket::{Family, Socket};
use super::{Core, connection};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// After a failed accept (no descriptors left, say) the next one waits so long.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A thread that accepts connections.
pub(super) struct Acceptor {
    through: &'static str,
    /// Its other end is closed to stop the thread.
    stop: Mutex<Option<UnixStream>>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    pub(super) fn new(through: &'static str, stop: UnixStream, thread: JoinHandle<()>) -> Self {
        Self { through, stop: Mutex::new(Some(stop)), thread }
    }

    /// The way it accepts, for the log.
    pub(super) fn through(&self) -> &'static str {
        self.through
    }

    pub(super) fn stop(self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.thread.join().is_err() {
            tracing::error!("the thread that accepts connections ended in a panic");
        }
    }
}

/// Where connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::new(Family::Tcp, OwnedFd::from(listener.accept()?.0)),
            Self::Unix(listener) => Socket::new(Family::Unix, OwnedFd::from(listener.accept()?.0)),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Starts the thread.
pub(super) fn start(core: &Arc<Core>, listener: Listener) -> io::Result<Acceptor> {
    match &listener {
        Listener::Tcp(listener) => listener.set_nonblocking(true)?,
        Listener::Unix(listener) => listener.set_nonblocking(true)?,
    }
    let (stop, stopped) = UnixStream::pair()?;
    let core = Arc::clone(core);
    let work = move || accept_loop(&core, &listener, &stopped);
    let thread = std::thread::Builder::new().name("ringfs-accept".to_owned()).spawn(work)?;
    Ok(Acceptor::new("accept", stop, thread))
}

fn accept_loop(core: &Arc<Core>, listener: &Listener, stopped: &UnixStream) {
    loop {
        let mut waited = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), hang_up(stopped)];
        if let Err(error) = poll(&mut waited, PollTimeout::NONE)
            && error != nix::errno::Errno::EINTR
        {
            tracing::error!(%error, "no more connections are accepted");
            return;
        }
        if waited[1].any().unwrap_or(true) {
            return;
        }
        match listener.accept() {
            Ok(socket) => connection::start(core, socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                let pause = PollTimeout::try_from(ACCEPT_PAUSE).unwrap_or(PollTimeout::ZERO);
                // Interrupted, the pause is shorter; the next failure makes another.
                let _interrupted = poll(&mut [hang_up(stopped)], pause);
            }
        }
    }
}

fn hang_up(stopped: &UnixStream) -> PollFd<'_> {
    PollFd::new(stopped.as_fd(), PollFlags::POLLIN)
}
