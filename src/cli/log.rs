//! Where log lines go: the terminal, a file (reopened on SIGHUP, for logrotate), or the system log.

use super::args::DaemonArgs;
use super::fail::Failure;
use super::server_address;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// The standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// The system log (/dev/log); nowhere on hosts without one.
    System,
}

/// Sets up logging as the options of a daemon say: to their file, to the terminal in the foreground, else to the
/// system log.
///
/// # Errors
/// See [`start`].
pub(super) fn start_for(args: &DaemonArgs) -> Result<Log, Failure> {
    let target = match &args.log {
        Some(path) => Target::File(server_address::settled(path)?),
        None if args.foreground => Target::Stderr,
        None => Target::System,
    };
    start(&target, args.log_level.as_deref().unwrap_or("info"))
}

/// Sets up logging for this process. `level` is a filter such as `info` or `ringfs=debug`.
///
/// # Errors
/// The file cannot be opened, or the level is not one.
pub(super) fn start(target: &Target, level: &str) -> Result<Log, Failure> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Failure::usage(format!("--log-level {level}: {error}; use error, warn, info, debug or trace"))
    })?;
    let sink = match target {
        Target::Stderr => Sink::Stderr,
        Target::File(path) => Sink::File(path.clone(), open(path)?),
        Target::System => connect().map_or(Sink::Nowhere, Sink::System),
    };
    let plain = !matches!(sink, Sink::Stderr);
    let log = Log { sink: Arc::new(Mutex::new(sink)), warnings: Arc::default() };
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let colours = !plain && io::IsTerminal::is_terminal(&io::stderr());
    let set = events.with_ansi(colours).with_writer(log.clone()).try_init();
    set.map_err(|error| Failure::new(format!("logging cannot start: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        eprintln!("ringfs: {panic}; this is a bug");
    }));
    Ok(log)
}

/// Warnings and errors kept in memory for `ringfs status`.
const WARNINGS_KEPT: usize = 20;

/// The log of this process.
#[derive(Clone, Debug)]
pub(super) struct Log {
    sink: Arc<Mutex<Sink>>,
    warnings: Arc<Mutex<VecDeque<String>>>,
}

/// Writes one event.
pub(super) struct Line {
    log: Log,
    warns: bool,
}

#[derive(Debug)]
enum Sink {
    Stderr,
    File(PathBuf, File),
    System(UnixDatagram),
    Nowhere,
}

impl Log {
    /// Opens the log file anew by its name; whoever rotated it has moved the old one away.
    pub(super) fn reopen(&self) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::File(path, file) = &mut *sink {
            // On failure the old file goes on: better than no log.
            if let Ok(fresh) = open(path) {
                *file = fresh;
            }
        }
    }

    /// The latest warnings and errors, oldest first.
    pub(super) fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.iter().cloned().collect()
    }

    fn keep(&self, line: &[u8]) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() == WARNINGS_KEPT {
            warnings.pop_front();
        }
        warnings.push_back(String::from_utf8_lossy(line.trim_ascii()).into_owned());
    }

    fn put(&self, line: &[u8]) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *sink {
            Sink::Stderr => io::stderr().write_all(line),
            Sink::File(_, file) => file.write_all(line),
            Sink::System(socket) => {
                // Facility daemon (3), severity notice (5); the line itself names its level.
                let mut message = format!("<29>ringfs[{}]: ", std::process::id()).into_bytes();
                message.extend_from_slice(line.trim_ascii_end());
                socket.send(&message).map(|_| ())
            }
            Sink::Nowhere => Ok(()),
        };
        drop(written);
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: self.clone(), warns: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        Line { log: self.clone(), warns: *event.level() <= Level::WARN }
    }
}

impl Write for Line {
    /// Takes one whole line. A line that cannot be written is lost: a daemon does not stop for its log.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.put(line);
        if self.warns {
            self.log.keep(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| Failure::new(format!("cannot open the log file {}: {error}", path.display())))
}

fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect("/dev/log").ok()?;
    // A system log that hangs must not stop the daemon.
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}
