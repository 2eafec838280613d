//! Checks of locks, with helper processes as the other owners.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::fcntl::fcntl;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::ground::{Outcome, at, fails, holds, new_file, same};

/// Longest a step may wait for another process before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A helper process that holds (or wants) a lock on a file, so that owners differ.
fn helper(mode: &str, path: &Path) -> Result<Child, String> {
    let own = at("own path", std::env::current_exe())?;
    let mut child = at(
        "start a helper",
        Command::new(own).arg(mode).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn(),
    )?;
    let mut ready = [0; 1];
    if let Some(stdout) = child.stdout.as_mut() {
        at("the helper speaks", stdout.read_exact(&mut ready))?;
    }
    Ok(child)
}

/// The lock must be had before long. The kernel does not wait for a FUSE server's RELEASE when a file is closed, so
/// a lock that ends with its file ends a moment after the close has returned.
fn soon(what: &str, take: impl Fn() -> Result<(), Errno>) -> Outcome {
    let start = Instant::now();
    loop {
        match take() {
            Err(Errno::EAGAIN) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            result => return at(what, result),
        }
    }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: i16::try_from(kind).unwrap_or(0), l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Run as a process of its own: takes a record lock, says one byte, and holds it until its input ends.
/// Without `hold` it speaks first, then waits for the lock and leaves once it has it.
pub(super) fn hold_lock(path: &Path, hold: bool) -> ExitCode {
    let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return ExitCode::from(3) };
    let lock = || fcntl(&file, FcntlArg::F_SETLKW(&whole_file(libc::F_WRLCK))).is_ok();
    let speak = || {
        let mut out = std::io::stdout();
        out.write_all(b"!").and_then(|()| out.flush()).is_ok()
    };
    if hold {
        let done = lock() && speak() && std::io::stdin().read_to_end(&mut Vec::new()).is_ok();
        return if done { ExitCode::SUCCESS } else { ExitCode::from(4) };
    }
    if speak() && lock() { ExitCode::SUCCESS } else { ExitCode::from(4) }
}

/// Ends a helper that waits for the end of its input.
fn release(mut child: Child) -> Outcome {
    drop(child.stdin.take());
    let status = wait_for(&mut child)?;
    holds("the helper ends well", status.success())
}

fn wait_for(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let start = Instant::now();
    loop {
        if let Some(status) = at("wait", child.try_wait())? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            at("kill", child.kill())?;
            return Err("a helper process hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn record_locks(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let file = new_file(&path)?;
    let child = helper("--hold", &path)?;
    fails(
        "F_SETLK against a holder",
        fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_RDLCK))),
        Errno::EAGAIN,
    )?;
    let mut found = whole_file(libc::F_WRLCK);
    at("F_GETLK", fcntl(&file, FcntlArg::F_GETLK(&mut found)))?;
    same("kind", i32::from(found.l_type), libc::F_WRLCK)?;
    same("holder", u32::try_from(found.l_pid).ok(), Some(child.id()))?;
    release(child)?;
    at("free again", fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))))?;
    let mut part = whole_file(libc::F_UNLCK);
    (part.l_start, part.l_len) = (10, 10);
    at("unlock a part", fcntl(&file, FcntlArg::F_SETLK(&part)))?;
    at("unlock all", fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_UNLCK))))?;
    Ok(())
}

pub(super) fn open_file_locks(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let one = new_file(&path)?;
    let two = at("open", OpenOptions::new().read(true).write(true).open(&path))?;
    at("first", fcntl(&one, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))))?;
    fails("second", fcntl(&two, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))), Errno::EAGAIN)?;
    drop(one);
    soon("free after close", || fcntl(&two, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).map(drop))
}

#[allow(deprecated, reason = "the replacement owns the file, and this check needs two locks on one")]
pub(super) fn whole_file_locks(dir: &Path) -> Outcome {
    use nix::fcntl::{FlockArg, flock};
    let path = dir.join("file");
    let one = new_file(&path)?;
    let two = at("open", File::open(&path))?;
    at("shared", flock(one.as_raw_fd(), FlockArg::LockSharedNonblock))?;
    at("shared twice", flock(two.as_raw_fd(), FlockArg::LockSharedNonblock))?;
    fails("upgrade", flock(one.as_raw_fd(), FlockArg::LockExclusiveNonblock), Errno::EAGAIN)?;
    at("unlock", flock(two.as_raw_fd(), FlockArg::UnlockNonblock))?;
    at("exclusive", flock(one.as_raw_fd(), FlockArg::LockExclusiveNonblock))?;
    fails("shared against it", flock(two.as_raw_fd(), FlockArg::LockSharedNonblock), Errno::EAGAIN)?;
    drop(one);
    soon("free after close", || flock(two.as_raw_fd(), FlockArg::LockExclusiveNonblock))
}

pub(super) fn waiting_for_a_lock(dir: &Path) -> Outcome {
    let path = dir.join("file");
    new_file(&path)?;
    let holder = helper("--hold", &path)?;
    let mut waiter = helper("--want", &path)?;
    // The waiter may not have the lock while the holder lives: give it time to be wrong.
    std::thread::sleep(Duration::from_millis(200));
    holds("the waiter waits", at("wait", waiter.try_wait())?.is_none())?;
    release(holder)?;
    holds("the waiter got the lock", wait_for(&mut waiter)?.success())
}

pub(super) fn interrupt_while_waiting(dir: &Path) -> Outcome {
    let path = dir.join("file");
    new_file(&path)?;
    let holder = helper("--hold", &path)?;
    let mut waiter = helper("--want", &path)?;
    std::thread::sleep(Duration::from_millis(100));
    let pid = Pid::from_raw(at("pid", i32::try_from(waiter.id()))?);
    at("kill", kill(pid, Signal::SIGTERM))?;
    let status = wait_for(&mut waiter)?;
    holds("a signal ends the wait", !status.success())?;
    release(holder)?;
    // The interrupted wait must not have left a lock behind.
    let file = at("open", OpenOptions::new().write(true).open(&path))?;
    at("free", fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))))?;
    Ok(())
}
