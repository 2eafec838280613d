//! The thread that accepts through io_uring, with tokio-uring: one system call takes several connections that wait.
#![allow(unsafe_code, reason = "tokio-uring lends its descriptors as numbers")]

use super::accept::{ACCEPT_PAUSE, Acceptor, Source};
use super::socket::{Family, Socket};
use super::{Core, connection};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Poll;
use tokio_uring::net::{TcpListener, UnixListener};

/// Entries of the ring: one accept and one read are in flight.
const RING_ENTRIES: u32 = 8;

/// Whether this process may use io_uring.
pub(super) fn allowed() -> bool {
    io_uring::IoUring::new(RING_ENTRIES).is_ok()
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => take(Family::Tcp, &listener.accept().await?.0),
            Self::Unix(listener) => take(Family::Unix, &listener.accept().await?),
        }
    }
}

/// A descriptor of our own for an accepted connection; the ring closes its one.
fn take(family: Family, stream: &impl AsRawFd) -> io::Result<Socket> {
    // SAFETY: `stream` owns this descriptor and is borrowed until this function returns, so it stays open for as long as
    // the borrow made here lives, which is the one call that duplicates it.
    let accepted = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    Socket::new(family, accepted.try_clone_to_owned()?)
}

/// Starts the thread; returns when it listens.
pub(super) fn start(core: &Arc<Core>, source: Source) -> io::Result<Acceptor> {
    let (stop, stopped) = UnixStream::pair()?;
    let (ready, listens) = sync_channel(1);
    let core = Arc::clone(core);
    let work = move || run(&core, source, stopped, &ready);
    let thread = std::thread::Builder::new().name("ringfs-accept".to_owned()).spawn(work)?;
    match listens.recv() {
        Ok(Ok(())) => Ok(Acceptor::new("io_uring", stop, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the thread that accepts connections ended in a panic")),
    }
}

fn run(core: &Arc<Core>, source: Source, stopped: UnixStream, ready: &SyncSender<io::Result<()>>) {
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES);
    let tell = |result| {
        // The one who started this thread waits for it.
        drop(ready.send(result));
    };
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => return tell(Err(error)),
    };
    runtime.block_on(async {
        let listener = match source {
            Source::Tcp(listener) => Ok(Listener::Tcp(TcpListener::from_std(listener))),
            Source::Unix(path) => UnixListener::bind(path).map(Listener::Unix),
        };
        match listener {
            Ok(listener) => {
                tell(Ok(()));
                accept_loop(core, &listener, stopped).await;
            }
            Err(error) => tell(Err(error)),
        }
    });
}

async fn accept_loop(core: &Arc<Core>, listener: &Listener, stopped: UnixStream) {
    let stopped = tokio_uring::net::UnixStream::from_std(stopped);
    // Ends when the other end is closed.
    let mut stop = pin!(stopped.read(vec![0_u8; 1]));
    loop {
        let mut accept = pin!(listener.accept());
        let next = poll_fn(|context| {
            if stop.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            accept.as_mut().poll(context).map(Some)
        });
        match next.await {
            None => return,
            Some(Ok(socket)) => connection::start(core, socket),
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // This thread does nothing else; a stop is seen after the pause.
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}
