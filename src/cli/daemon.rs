//! Becoming a daemon, and what a daemon hears: signals, the end of its work, systemd.
//!
//! The parent starts the program again with the same arguments in a session of its own and waits for one line on
//! its standard output. So nothing is forked while threads run, the errors of the daemon reach the terminal until
//! it is ready, and the shell gets its exit code.

use super::fail::Failure;
use super::print;
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::Sender;

/// Set in the environment of the process that is to become the daemon.
const CHILD_MARK: &str = "RINGFS_DAEMON";

/// What the daemon writes when it is ready.
const READY: &str = "ready";

/// Whether this process was started by [`start_and_wait`].
#[must_use]
pub(super) fn is_child() -> bool {
    std::env::var_os(CHILD_MARK).is_some()
}

/// Starts this program once more as a daemon with the arguments `args` (without the program's name), and returns
/// when it is ready, or with the exit code it ended with; its error is on the terminal by then.
///
/// # Errors
/// The daemon could not be started, or died without a word.
pub(super) fn start_and_wait(args: &[OsString]) -> Result<ExitCode, Failure> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("ringfs")
        .args(args)
        .env(CHILD_MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start the daemon: {error}")))?;
    let output = child.stdout.take().map(BufReader::new);
    for line in output.into_iter().flat_map(BufRead::lines) {
        match line {
            Ok(line) if line == READY => return Ok(ExitCode::SUCCESS),
            Ok(line) => print::text(&format!("{line}\n"))?,
            Err(_) => break,
        }
    }
    let status = child.wait().map_err(|error| Failure::new(format!("lost the daemon: {error}")))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Err(Failure::new("the daemon ended before it was ready")),
        (Some(code), _) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        (None, signal) => Err(Failure::new(format!(
            "the daemon died of signal {} before it was ready; see its log",
            signal.unwrap_or(0)
        ))),
    }
}

/// Leaves the terminal's session: signals from the keyboard and its end do not reach the daemon.
pub(super) fn leave_terminal() {
    // Fails only for a process group leader, which a fresh child is not unless a debugger made it one.
    if let Err(errno) = nix::unistd::setsid() {
        tracing::debug!(%errno, "no session of its own");
    }
    // A daemon must not keep a directory busy that somebody wants to unmount.
    if let Err(errno) = nix::unistd::chdir("/") {
        tracing::debug!(%errno, "cannot leave the current directory");
    }
}

/// Tells the waiting parent (when there is one) and systemd (when it asks) that the work has begun. From here on
/// the daemon has no terminal.
///
/// # Errors
/// The parent is gone: the user gave up waiting.
pub(super) fn ready(status: &str) -> Result<(), Failure> {
    notify_systemd(&format!("READY=1\nSTATUS={status}"));
    if !is_child() {
        return Ok(());
    }
    let mut out = std::io::stdout();
    let told = writeln!(out, "{READY}").and_then(|()| out.flush());
    told.map_err(|error| Failure::new(format!("whoever started the daemon is gone: {error}")))?;
    let quiet = std::fs::OpenOptions::new().write(true).open("/dev/null").and_then(|null| {
        nix::unistd::dup2_stdout(&null)?;
        nix::unistd::dup2_stderr(&null)?;
        Ok(())
    });
    if let Err(error) = quiet {
        tracing::debug!(%error, "the terminal stays open");
    }
    Ok(())
}

/// Sends a line to systemd when it started us with `Type=notify` (sd_notify(3)).
pub(super) fn notify_systemd(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.send(message.as_bytes())
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// Signals a daemon listens to. Call [`Signals::block`] before the first thread starts: threads inherit it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signals(SigSet);

impl Signals {
    /// From here on SIGTERM, SIGINT and SIGHUP wait for [`Signals::listen`].
    ///
    /// # Errors
    /// Never on Linux.
    pub(super) fn block() -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(|errno| Failure::new(format!("cannot block signals: {errno}")))?;
        Ok(Self(set))
    }

    /// Sends every signal to `events` from a thread of its own, for the rest of the process's life.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn listen<E: Send + 'static>(
        self,
        events: Sender<E>,
        wrap: impl Fn(Signal) -> E + Send + 'static,
    ) -> Result<(), Failure> {
        let listener = std::thread::Builder::new().name("signals".into()).spawn(move || {
            while let Ok(signal) = self.0.wait() {
                if events.send(wrap(signal)).is_err() {
                    return;
                }
            }
        });
        listener.map(|_| ()).map_err(|error| Failure::new(format!("no thread for signals: {error}")))
    }
}
