//! `ringfs mount`: opens the source, mounts, serves, and stays until the mount ends.
//!
//! Order matters: the source comes first, so that a server that is not there leaves nothing mounted; the parent is told
//! last, when a statfs through the mount has been answered. The end, however it comes (umount, SIGTERM, a dead connection),
//! passes through [`Daemon::run`].

use super::args::{MountArgs, Question, TransportArg};
use super::daemon::{self, Signals};
use super::fail::{self, Exit, Failure};
use super::front::{self, Front};
use super::log::{self, Log};
use super::mountinfo::{self, Mount};
use super::probe::{self, Answer};
use super::{cover, options, remount, target, umount};
use crate::control::{Ask, ControlServer, Subject, place};
use crate::kernel::transport::mount::descriptor_of;
use crate::kernel::transport::{self, Choice, End, Kind, Monitor, MountOptions, Running};
use nix::mount::MsFlags;
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a fresh mount may take to answer its first statfs.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// How long SIGTERM waits for a flush; systemd kills after 90 s, people sooner.
const FLUSH_PATIENCE: Duration = Duration::from_secs(8);

/// How long the threads may take to end after the mount is gone.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Runs the command. `line` is what the daemon is started with.
///
/// # Errors
/// Nothing is mounted then.
pub(super) fn run(args: MountArgs, line: &[OsString]) -> Result<ExitCode, Failure> {
    let mut args = args;
    if remount::is_asked(&args.options) {
        return remount::run(&args.dir, &args.options);
    }
    let mut kernel = options::apply(&mut args)?;
    front::judge(&args)?;
    let point = settle_point(&args.dir)?;
    refuse_own_mount(&point)?;
    cover::refuse(&args, &point)?;
    // Before a store is made for a mount that cannot be.
    transport::mount::check(&point, &kernel).map_err(Failure::new)?;
    if !args.daemon.foreground && !daemon::is_child() {
        return daemon::start_and_wait(line);
    }
    let signals = Signals::block()?;
    let log = log::start_for(&args.daemon)?;
    let front = Front::open(&args, &point)?;
    kernel.source.clone_from(&front.source);
    kernel.default_permissions = !args.bare;
    kernel.flags.set(MsFlags::MS_RDONLY, front.read_only || kernel.flags.contains(MsFlags::MS_RDONLY));
    if daemon::is_child() {
        daemon::leave_terminal();
    }
    let daemon = Daemon::start(&args, &point, &kernel, front, signals, &log)?;
    daemon.run(&log)
}

/// The mount point as the mount table will call it.
fn settle_point(dir: &Path) -> Result<PathBuf, Failure> {
    if descriptor_of(dir).is_some() {
        return Ok(dir.to_owned());
    }
    let plain =
        mountinfo::absolute(dir).map_err(|error| Failure::new(format!("{}: {error}", dir.display())))?;
    // A mount that is there already may hang: it is not asked.
    if let Ok(mount) = target::mount_at(dir) {
        return Ok(mount.point);
    }
    match plain.canonicalize() {
        Ok(real) => Ok(real),
        // What is wrong with it is told by whoever mounts, with its remedy.
        Err(_) => Ok(plain),
    }
}

/// A second mount at the same place would hide the first; a dead one must be cleaned up before.
fn refuse_own_mount(point: &Path) -> Result<(), Failure> {
    let Ok(mount) = target::mount_at(point) else { return Ok(()) };
    let shown = point.display();
    if target::ask_daemon(&mount, Ask::Ping, target::MEMORY_PATIENCE).is_ok() {
        return Err(Failure::busy(format!(
            "{shown} is a ringfs mount of {} already; run `ringfs umount {shown}` first",
            mount.source
        )));
    }
    Err(Failure::new(format!(
        "{shown} is a ringfs mount whose daemon is gone or does not answer; run `ringfs umount {shown}` first"
    )))
}

/// What happens to a daemon.
enum Event {
    Signal(Signal),
    Ended(End),
}

/// A mount that is served.
struct Daemon {
    front: Arc<Front>,
    /// The mount, when it is in this process's mount table.
    mount: Option<Mount>,
    point: PathBuf,
    events: Receiver<Event>,
    control: Option<ControlServer>,
}

impl Daemon {
    /// Mounts, starts the threads, and sees the mount answer.
    fn start(
        args: &MountArgs,
        point: &Path,
        kernel: &MountOptions,
        front: Front,
        signals: Signals,
        log: &Log,
    ) -> Result<Self, Failure> {
        let front = Arc::new(front);
        let device = transport::mount(point, kernel).map_err(|fault| front.give_up(fault))?;
        let mount = find_mount(point);
        let serve = transport::Options {
            choice: choice(args.transport.unwrap_or(TransportArg::Auto)),
            yields: !args.no_yield,
            connection: mount.as_ref().and_then(|mount| u32::try_from(mount.number).ok()),
            ..transport::Options::default()
        };
        let running = match transport::serve(device, front.handler(), &serve) {
            Ok(running) => running,
            Err(fault) => {
                undo(mount.as_ref());
                return Err(front.give_up(fault));
            }
        };
        // In the foreground the log line is on the terminal already.
        if let Some(why) = running.fallback().filter(|_| daemon::is_child()) {
            fail::warn(format!("transport {}: {why}", running.kind()));
        }
        let subject = Arc::new(Watched::new(Arc::clone(&front), &running, log.clone()));
        let (tell, events) = channel();
        signals.listen(tell.clone(), Event::Signal)?;
        watch_end(running, tell)?;
        let control = control_socket(mount.as_ref(), subject);
        let daemon = Self { front, mount, point: point.to_owned(), events, control };
        if let Err(failure) = daemon.answers() {
            daemon.cut();
            return Err(daemon.front.give_up(failure));
        }
        Ok(daemon)
    }

    /// Tells whoever waits that the mount is there, then stays until it ends.
    fn run(mut self, log: &Log) -> Result<ExitCode, Failure> {
        let status = format!("{} on {}", self.front.source, self.point.display());
        let mut cause = None;
        if daemon::ready(&status).is_err() {
            cause = Some("whoever started the mount gave up".to_owned());
        }
        tracing::info!("mounted {status}");
        let end = loop {
            if let Some(cause) = cause.take() {
                break self.unmount(&cause);
            }
            match self.events.recv() {
                Ok(Event::Signal(Signal::SIGHUP)) => log.reopen(),
                Ok(Event::Signal(signal)) => cause = Some(signal.to_string()),
                Ok(Event::Ended(end)) => break end,
                Err(_) => break End::Failed("no thread is left to hear from".into()),
            }
        };
        daemon::notify_systemd("STOPPING=1");
        let closed = self.front.close(FLUSH_PATIENCE);
        drop(self.control.take());
        match (end, closed) {
            (End::Failed(why), _) => Err(Failure::new(format!("{status}: {why}"))),
            (_, Err(why)) => Err(Failure::new(format!("{status}: not everything was flushed: {why}"))),
            (End::Aborted, Ok(())) => {
                tracing::warn!("{status}: the connection was aborted");
                Ok(Exit::Failed.into())
            }
            (End::Unmounted, Ok(())) => {
                tracing::info!("unmounted {status}");
                Ok(Exit::Ok.into())
            }
        }
    }

    /// Flushes and unmounts because of a signal; every step is bounded, a second signal ends the waiting.
    fn unmount(&self, cause: &str) -> End {
        tracing::info!("unmounting {}: {cause}", self.point.display());
        daemon::notify_systemd("STOPPING=1");
        if let Err(why) = self.front.flush(FLUSH_PATIENCE) {
            tracing::error!("not everything was flushed: {why}");
        }
        // Lazily: programs that still use it must not keep the daemon from ending.
        undo(self.mount.as_ref());
        match self.wait_end(END_PATIENCE) {
            Some(end) => end,
            None => {
                tracing::warn!("{} is still in use: cutting the connection", self.point.display());
                self.cut();
                self.wait_end(END_PATIENCE).unwrap_or(End::Aborted)
            }
        }
    }

    fn wait_end(&self, patience: Duration) -> Option<End> {
        let deadline = Instant::now() + patience;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(end)) => return Some(end),
                Ok(Event::Signal(Signal::SIGHUP)) => {}
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return None;
                }
            }
        }
    }

    /// Ends the connection and takes the mount away, whatever it is doing.
    fn cut(&self) {
        let Some(mount) = &self.mount else { return };
        if let Err(failure) = umount::abort(mount) {
            tracing::warn!("{failure}");
        }
        undo(Some(mount));
    }

    /// Whether a statfs through the mount is answered.
    fn answers(&self) -> Result<(), Failure> {
        // A descriptor that somebody else mounted has no path here.
        if self.mount.is_none() {
            return Ok(());
        }
        let shown = self.point.display();
        match probe::ask(Question::Statfs, &self.point, ANSWER_PATIENCE)? {
            Answer::Ok(_) => Ok(()),
            Answer::Errno(errno) => Err(Failure::new(format!("{shown} is mounted but answers {errno}"))),
            Answer::Silent => Err(Failure::new(format!(
                "{shown} is mounted but did not answer within {} s; try `--transport blocking`, and look at the log",
                ANSWER_PATIENCE.as_secs()
            ))),
        }
    }
}

/// The fresh mount in the mount table. Absent for `/dev/fd/N` unless the kernel tells its number.
fn find_mount(point: &Path) -> Option<Mount> {
    let table = mountinfo::table().ok()?;
    mountinfo::at(&table, point).filter(|mount| mount.is_ringfs()).cloned()
}

/// Takes a mount away lazily; best effort on the way out.
fn undo(mount: Option<&Mount>) {
    let Some(mount) = mount else { return };
    if find_mount(&mount.point).is_none_or(|now| now.number != mount.number) {
        return;
    }
    if let Err(errno) = transport::unmount(&mount.point, true) {
        tracing::warn!("cannot unmount {}: {errno}", mount.point.display());
    }
}

fn choice(arg: TransportArg) -> Choice {
    match arg {
        TransportArg::Auto => Choice::Auto,
        TransportArg::Uring => Choice::Only(Kind::Uring),
        TransportArg::Ring => Choice::Only(Kind::Ring),
        TransportArg::Blocking => Choice::Only(Kind::Blocking),
    }
}

fn watch_end(running: Running, tell: Sender<Event>) -> Result<(), Failure> {
    let watcher = std::thread::Builder::new().name("end".into());
    let watcher = watcher.spawn(move || tell.send(Event::Ended(running.wait())));
    watcher.map(|_| ()).map_err(|error| Failure::new(format!("no thread: {error}")))
}

/// A mount without a control socket works; only `ringfs status` and its kin do not.
fn control_socket(mount: Option<&Mount>, subject: Arc<Watched>) -> Option<ControlServer> {
    let mount = mount?;
    let made = place::make_folder(nix::unistd::geteuid()).and_then(|folder| {
        let path = place::socket_in(&folder, mount.number);
        ControlServer::start(&path, subject).map_err(|error| format!("{}: {error}", path.display()))
    });
    made.map_err(|why| tracing::warn!("no control socket, so no `ringfs status` of this mount: {why}")).ok()
}

/// What the control socket shows of a mount.
struct Watched {
    front: Arc<Front>,
    monitor: Monitor,
    /// What does not change: transport and features.
    fixed: Value,
    log: Log,
    since: Instant,
}

impl Watched {
    fn new(front: Arc<Front>, running: &Running, log: Log) -> Self {
        let agreed = running.negotiated();
        let fixed = json!({
            "in_use": running.kind().to_string(),
            "why_not_better": running.fallback(),
            "fuse": format!("7.{}", agreed.minor),
            "features": agreed.flags.names().collect::<Vec<_>>(),
            "max_write_bytes": agreed.max_write,
            "max_readahead_bytes": agreed.max_readahead,
            "threads": agreed.threads,
            "why_no_yield": running.why_no_yield(),
        });
        Self { front, monitor: running.monitor(), fixed, log, since: Instant::now() }
    }
}

impl Subject for Watched {
    fn status(&self) -> Value {
        let counters = self.monitor.counters();
        let requests: Map<String, Value> =
            counters.by_opcode().map(|(name, number)| (name.to_owned(), number.into())).collect();
        let mut status = json!({
            "daemon": {
                "pid": std::process::id(),
                "version": env!("CARGO_PKG_VERSION"),
                "up_seconds": self.since.elapsed().as_secs(),
                "resident_bytes": resident_bytes(),
                "warnings": self.log.warnings(),
            },
            "transport": self.fixed,
            "requests": {
                "total": counters.total(),
                "by_kind": requests,
                "forgotten_references": counters.forgets,
                "deferred": counters.deferred,
                "late_replies": counters.late_replies,
                "in_flight": counters.deferred.saturating_sub(counters.late_replies),
                "refused": counters.refused,
                "dropped": counters.dropped,
                "panics": counters.panics,
            },
            "system_calls": {
                "io_uring_enter": counters.enters,
                "read": counters.reads,
                "write": counters.writes,
                "wakes": counters.wakes,
            },
            "yielding": {
                "queues_now": counters.yields.saturating_sub(counters.put_back),
                "yielded": counters.yields,
                "put_back": counters.put_back,
            },
        });
        if let Value::Object(fields) = &mut status {
            fields.extend(self.front.status());
        }
        status
    }

    fn flush(&self) -> Result<(), String> {
        self.front.flush(Duration::from_secs(3600))
    }

    fn prepare_unmount(&self) -> Result<(), String> {
        self.front.flush(FLUSH_PATIENCE)
    }

    fn errors(&self, clear: bool) -> Value {
        self.front.errors(clear)
    }
}

/// Resident memory of this process, from /proc/self/statm (pages).
fn resident_bytes() -> Option<u64> {
    static PAGE_BYTES: OnceLock<u64> = OnceLock::new();
    let page = *PAGE_BYTES.get_or_init(|| {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
    });
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page)
}
