//! The daemon's side: one thread accepts, one short-lived thread answers each client. Neither ever waits for the
//! mount itself, so a mount that hangs still answers `Status` and `Ping`.

use super::protocol::{ASK_BYTES_MAX, Ask, Reply};
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Clients served at the same time; one more is told to come back. Each costs a thread for the time of its request.
pub const CLIENTS_MAX: usize = 16;

/// How long a client may take to send its line or to take its answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// What is controlled. Called from several threads at once.
pub trait Subject: Send + Sync + 'static {
    /// Everything worth telling, from memory; must not wait for kernel, network or disk.
    fn status(&self) -> Value;

    /// Makes everything durable that was written before the call. May take long; bounds itself.
    ///
    /// # Errors
    /// One line for the user.
    fn flush(&self) -> Result<(), String>;

    /// The mount is about to be taken away on purpose: flush.
    ///
    /// # Errors
    /// One line for the user.
    fn prepare_unmount(&self) -> Result<(), String>;

    /// What failed late, from memory; with `clear` the list is emptied.
    fn errors(&self, clear: bool) -> Value;
}

/// A running control socket. Dropping it removes the socket and ends the accepting thread.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    /// Device and inode of the socket: the name may belong to a later mount by now, since the kernel gives the number of
    /// a connection that has ended to the next one.
    file: (u64, u64),
    listener: Arc<UnixListener>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Listens at `path`, replacing a socket that a dead daemon left there. The folder above must be private to the
    /// owner ([`super::place::make_folder`]); the socket itself gets mode 0600.
    ///
    /// # Errors
    /// The system refused the socket or the thread.
    pub fn start(path: &Path, subject: Arc<dyn Subject>) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(path)?);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let meta = std::fs::symlink_metadata(path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, accepting) = (Arc::clone(&stop), Arc::clone(&listener));
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept_loop(&accepting, &subject, &seen))?;
        let file = (meta.dev(), meta.ino());
        Ok(Self { path: path.to_owned(), file, listener, stop, thread: Some(thread) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Ends the wait in accept(2).
        let woken = shutdown(self.listener.as_raw_fd(), Shutdown::Both).is_ok();
        let ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket stays");
        }
        if let Some(thread) = self.thread.take()
            && woken
            && thread.join().is_err()
        {
            tracing::error!("control thread panicked");
        }
    }
}

fn accept_loop(listener: &UnixListener, subject: &Arc<dyn Subject>, stop: &AtomicBool) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Acquire) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket cannot accept");
                // Out of descriptors or memory: others must give some back first.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::AcqRel);
            answer(stream, &Reply::Error(format!("{CLIENTS_MAX} requests are being answered; try again")));
            continue;
        }
        let served = Arc::clone(&clients);
        let subject = Arc::clone(subject);
        let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
            let _leave = Leave(served);
            serve_client(stream, subject.as_ref());
        });
        if let Err(error) = spawned {
            clients.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "no thread for a control client");
        }
    }
}

/// Gives a client's place back, also when answering it panicked.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve_client(stream: UnixStream, subject: &dyn Subject) {
    let bounded = stream
        .set_read_timeout(Some(CLIENT_PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(CLIENT_PATIENCE)));
    if let Err(error) = bounded {
        tracing::debug!(%error, "control client left");
        return;
    }
    let mut line = Vec::new();
    let mut reader = BufReader::new((&stream).take(ASK_BYTES_MAX as u64));
    let reply = match reader.read_until(b'\n', &mut line) {
        Ok(0) => return,
        Ok(_) => match Ask::parse(&line) {
            Ok(ask) => act(ask, subject),
            Err(error) => Reply::Error(format!("not a request this version knows: {error}")),
        },
        Err(error) => Reply::Error(format!("no request arrived: {error}")),
    };
    answer(stream, &reply);
}

fn act(ask: Ask, subject: &dyn Subject) -> Reply {
    let done = match ask {
        Ask::Ping => {
            return Reply::Ok(serde_json::json!({
                "pid": std::process::id(),
                "version": env!("CARGO_PKG_VERSION"),
            }));
        }
        Ask::Status => return Reply::Ok(subject.status()),
        Ask::Errors { clear } => return Reply::Ok(subject.errors(clear)),
        Ask::Flush => subject.flush(),
        Ask::PrepareUnmount => subject.prepare_unmount(),
    };
    match done {
        Ok(()) => Reply::Ok(Value::Null),
        Err(reason) => Reply::Error(reason),
    }
}

fn answer(mut stream: UnixStream, reply: &Reply) {
    let line = serde_json::to_vec(reply).map(|mut line| {
        line.push(b'\n');
        line
    });
    match line {
        Ok(line) => {
            if let Err(error) = stream.write_all(&line) {
                tracing::debug!(%error, "control client left before its answer");
            }
        }
        Err(error) => tracing::error!(%error, "a control answer cannot be written as JSON"),
    }
}
