//! The thread that accepts TCP connections through io_uring, with tokio-uring.
//!
//! Not for unix sockets: tokio-uring makes them itself and sets SO_REUSEPORT on them, which Linux refuses with
//! EOPNOTSUPP since 6.13 and 6.12.9 (tokio-uring issue 323).
#![allow(unsafe_code, reason = "tokio-uring lends its descriptors as numbers")]

use super::accept::{ACCEPT_PAUSE, Acceptor};
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
use tokio_uring::net::TcpListener;

/// Entries of the ring: one accept and one read are in flight.
const RING_ENTRIES: u32 = 8;

/// Whether this process may use io_uring.
pub(super) fn allowed() -> bool {
    io_uring::IoUring::new(RING_ENTRIES).is_ok()
}

/// Accepts one connection.
async fn accept(listener: &TcpListener) -> io::Result<Socket> {
    let (stream, _) = listener.accept().await?;
    // SAFETY: `stream` owns this descriptor and lives to the end of this function, so it stays open for as long as the
    // borrow made here, which ends with the next statement: that one duplicates it.
    let accepted = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    Socket::new(Family::Tcp, accepted.try_clone_to_owned()?)
}

/// Starts the thread; returns when it listens.
pub(super) fn start(core: &Arc<Core>, listener: std::net::TcpListener) -> io::Result<Acceptor> {
    let (stop, stopped) = UnixStream::pair()?;
    let (ready, listens) = sync_channel(1);
    let core = Arc::clone(core);
    let work = move || run(&core, listener, stopped, &ready);
    let thread = std::thread::Builder::new().name("ringfs-accept".to_owned()).spawn(work)?;
    match listens.recv() {
        Ok(Ok(())) => Ok(Acceptor::new("io_uring", stop, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the thread that accepts connections ended in a panic")),
    }
}

fn run(
    core: &Arc<Core>,
    listener: std::net::TcpListener,
    stopped: UnixStream,
    ready: &SyncSender<io::Result<()>>,
) {
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
        tell(Ok(()));
        accept_loop(core, &TcpListener::from_std(listener), stopped).await;
    });
}

async fn accept_loop(core: &Arc<Core>, listener: &TcpListener, stopped: UnixStream) {
    let stopped = tokio_uring::net::UnixStream::from_std(stopped);
    // Ends when the other end is closed.
    let mut stop = pin!(stopped.read(vec![0_u8; 1]));
    loop {
        let mut accept = pin!(accept(listener));
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
