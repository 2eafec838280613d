//! `ringfs umount`: flush, unmount, wait for the daemon to end. Every step is bounded, and a mount whose daemon is
//! dead or hangs can always be taken away.

use super::args::{Question, UmountArgs};
use super::fail::Failure;
use super::mountinfo::{self, Mount};
use super::probe::{self, Answer};
use super::procs;
use super::target::{MEMORY_PATIENCE, ask_daemon, daemon_of, mount_at};
use crate::base::Errno;
use crate::control::{Ask, ControlFault};
use nix::errno::Errno as SystemErrno;
use nix::mount::{MntFlags, umount2};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How often the end of a process, or of what keeps a mount busy for a moment, is looked for.
const POLL: Duration = Duration::from_millis(20);

/// A mount that was busy may be free a moment later: what used it is just ending.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// The mount is still there, or its daemon.
pub(super) fn run(args: &UmountArgs) -> Result<(), Failure> {
    let mount = mount_at(&args.dir)?;
    let daemon = Daemon::of(&mount);
    let deadline = Instant::now() + Duration::from_secs(args.timeout.into());
    if args.force {
        abort(&mount)?;
        detach(&mount)?;
        return end_of(daemon, deadline, &mount);
    }
    match ask_daemon(&mount, Ask::PrepareUnmount, deadline.duration_since(Instant::now())) {
        Ok(_) => {}
        // Nobody serves it any more: nothing can be flushed, and nothing is left to wait for.
        Err(ControlFault::Unreachable { .. }) if !is_served(&mount)? => return detach(&mount),
        // It is served, but without a control socket: the unmount itself flushes.
        Err(ControlFault::Unreachable { .. }) => {}
        Err(fault) => return Err(not_flushed(args, &fault)),
    }
    if args.lazy {
        return detach(&mount);
    }
    let busy_until = deadline.min(Instant::now() + BUSY_PATIENCE);
    loop {
        match unmount(&mount.point, MntFlags::empty()) {
            Ok(()) => return end_of(daemon, deadline, &mount),
            Err(Refusal::Busy) if Instant::now() < busy_until => std::thread::sleep(POLL),
            Err(Refusal::Busy) => return Err(busy(args, &mount)),
            Err(Refusal::Other(reason)) => return Err(Failure::new(reason)),
        }
    }
}

/// The process behind a mount, known by number and start, so that another one of the same number is not taken for it.
struct Daemon {
    pid: u32,
    start: u64,
}

impl Daemon {
    fn of(mount: &Mount) -> Option<Self> {
        let pid = daemon_of(mount).ok()?;
        Some(Self { pid, start: procs::start_of(pid)? })
    }

    fn is_alive(&self) -> bool {
        procs::start_of(self.pid) == Some(self.start)
    }
}

fn end_of(daemon: Option<Daemon>, deadline: Instant, mount: &Mount) -> Result<(), Failure> {
    let Some(daemon) = daemon else { return Ok(()) };
    while daemon.is_alive() {
        if Instant::now() >= deadline {
            return Err(Failure::new(format!(
                "{} is unmounted, but its daemon {} still runs; see its log, or end it with `kill {}`",
                mount.point.display(),
                daemon.pid,
                daemon.pid
            )));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Whether somebody serves the mount. The kernel answers for a dead one at once; one that is silent is served.
fn is_served(mount: &Mount) -> Result<bool, Failure> {
    let answer = probe::ask(Question::Statfs, &mount.point, MEMORY_PATIENCE)?;
    Ok(!matches!(answer, Answer::Errno(Errno::ENOTCONN | Errno::ECONNABORTED)))
}

/// Where the kernel shows the connections of FUSE mounts: a small file system of its own, mounted by systemd.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Ends the connection: everything that waits in the kernel for the mount gets an error.
///
/// # Errors
/// It may not be ended by this user, or the kernel's list of connections cannot be reached.
pub(super) fn abort(mount: &Mount) -> Result<(), Failure> {
    let connection = Path::new(CONNECTIONS).join(mount.number.to_string());
    let point = mount.point.display();
    if !connection.exists() && !fusectl_is_mounted() {
        let none: Option<&str> = None;
        nix::mount::mount(none, CONNECTIONS, Some("fusectl"), nix::mount::MsFlags::empty(), none).map_err(|errno| {
            Failure::new(format!(
                "cannot abort {point}: {CONNECTIONS} is not mounted ({}); as root run `mount -t fusectl none \
                 {CONNECTIONS}`",
                errno.desc()
            ))
        })?;
    }
    match std::fs::write(connection.join("abort"), b"1") {
        // The connection of a dead mount is gone already.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| {
            Failure::new(format!("cannot abort {point}: {error}; run as its owner or as root"))
        }),
    }
}

fn fusectl_is_mounted() -> bool {
    mountinfo::table().is_ok_and(|table| mountinfo::at(&table, Path::new(CONNECTIONS)).is_some())
}

fn detach(mount: &Mount) -> Result<(), Failure> {
    match unmount(&mount.point, MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        Err(Refusal::Busy) => Err(Failure::busy(format!("{} is in use", mount.point.display()))),
        Err(Refusal::Other(reason)) => Err(Failure::new(reason)),
    }
}

enum Refusal {
    Busy,
    Other(String),
}

/// umount2(2), or fusermount3 for those who may not call it.
fn unmount(point: &Path, flags: MntFlags) -> Result<(), Refusal> {
    match umount2(point, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(SystemErrno::EBUSY) => Err(Refusal::Busy),
        Err(SystemErrno::EPERM) => fusermount(point, flags.contains(MntFlags::MNT_DETACH)),
        Err(errno) => Err(Refusal::Other(format!("cannot unmount {}: {}", point.display(), errno.desc()))),
    }
}

fn fusermount(point: &Path, lazy: bool) -> Result<(), Refusal> {
    let mode = if lazy { "-uz" } else { "-u" };
    let output = Command::new("fusermount3").arg(mode).arg("--").arg(point).output().map_err(|error| {
        Refusal::Other(format!(
            "only root may unmount {} without fusermount3 ({error}); install the package fuse3",
            point.display()
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") { Err(Refusal::Busy) } else { Err(Refusal::Other(said.trim().to_owned())) }
}

fn not_flushed(args: &UmountArgs, fault: &ControlFault) -> Failure {
    let dir = args.dir.display();
    Failure::new(format!(
        "{dir}: {fault}; what is not flushed would be lost, so it stays mounted. Try again, or give the unflushed \
         writes up with `ringfs umount --force {dir}`"
    ))
}

fn busy(args: &UmountArgs, mount: &Mount) -> Failure {
    Failure::busy(format!(
        "{} is in use by {}; end them, or use --lazy (goes on until they end) or --force (they get errors)",
        args.dir.display(),
        procs::users_of(&mount.point, mount.number)
    ))
}
