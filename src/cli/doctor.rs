//! `ringfs doctor`: can this host run ringfs, and how well? Each line says what was found and what to do about it.

use super::args::DoctorArgs;
use super::fail::{Exit, Failure};
use super::print;
use crate::kernel::transport::may_yield;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    /// Nothing to do.
    Ok,
    /// Mounts work, but slower or with a limit.
    Warn,
    /// Mounts do not work.
    Fail,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do, empty when nothing.
    remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: String::new() }
    }
    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Warn, found: found.into(), remedy: remedy.into() }
    }
    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Runs the command.
///
/// # Errors
/// The output cannot be written.
pub(super) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let checks = [
        kernel_version(&read(Path::new("/proc/sys/kernel/osrelease"))),
        fuse_device(),
        fuse_over_uring(),
        uring_sysctl(),
        uring_probe(),
        fusermount(),
        user_allow_other(),
        fusectl(),
        memlock(),
        yielding(),
    ];
    if args.json {
        print::json(&serde_json::json!({ "checks": checks, "transport": best_transport(&checks) }))?;
    } else {
        let mut text = String::new();
        for check in &checks {
            let state = match check.state {
                State::Ok => "OK  ",
                State::Warn => "WARN",
                State::Fail => "FAIL",
            };
            text.push_str(&format!("{state}  {:<18} {}\n", check.name, check.found));
            if !check.remedy.is_empty() {
                text.push_str(&format!("      {:<18} -> {}\n", "", check.remedy));
            }
        }
        text.push_str(&format!("best transport here: {}\n", best_transport(&checks)));
        print::text(&text)?;
    }
    let failed = checks.iter().any(|check| check.state == State::Fail);
    Ok(if failed { Exit::Found } else { Exit::Ok })
}

fn best_transport(checks: &[Check]) -> &'static str {
    let good = |name: &str| checks.iter().any(|check| check.name == name && check.state == State::Ok);
    match (good("io_uring"), good("fuse.enable_uring") && good("kernel")) {
        (true, true) => "uring",
        (true, false) => "ring",
        (false, _) => "blocking",
    }
}

/// Kernels below 5.10 are not promised; FUSE over io_uring begins with 6.14 and is broken before 6.18.3.
fn kernel_version(release: &str) -> Check {
    const NAME: &str = "kernel";
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {}", release.trim());
    match version {
        v if v < (5, 10, 0) => Check::fail(NAME, found, "install Linux 5.10 or later"),
        v if v < (6, 14, 0) => Check::warn(
            NAME,
            format!("{found}: no FUSE over io_uring before 6.14"),
            "works with the transport ring or blocking; Linux 6.18.3 or later is faster",
        ),
        v if v < (6, 18, 3) => Check::warn(
            NAME,
            format!("{found}: FUSE over io_uring can corrupt kernel lists before 6.18.3 (CVE-2025-68805)"),
            "install Linux 6.18.3 or later, or a distribution kernel with the fix and force `--transport uring`",
        ),
        _ => Check::ok(NAME, found),
    }
}

fn fuse_device() -> Check {
    const NAME: &str = "/dev/fuse";
    match fs::OpenOptions::new().read(true).write(true).open(NAME) {
        Ok(_) => Check::ok(NAME, "can be opened"),
        Err(error) if error.kind() == ErrorKind::NotFound => Check::fail(
            NAME,
            "is not there",
            "`modprobe fuse`; in a container start it with --device /dev/fuse",
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Check::fail(
            NAME,
            "you may not open it",
            "`chmod 666 /dev/fuse` as root (what udev does by default), or mount as root",
        ),
        Err(error) => {
            Check::fail(NAME, format!("cannot be opened: {error}"), "`modprobe fuse`; see `dmesg | tail`")
        }
    }
}

fn fuse_over_uring() -> Check {
    const NAME: &str = "fuse.enable_uring";
    match read(Path::new("/sys/module/fuse/parameters/enable_uring")).trim() {
        "Y" | "1" => Check::ok(NAME, "on"),
        "" => Check::warn(NAME, "this kernel has no such parameter", "Linux 6.14 and later have it"),
        _ => Check::warn(
            NAME,
            "off: mounts use the slower classic protocol",
            "`echo Y > /sys/module/fuse/parameters/enable_uring` as root; for every boot put `options fuse \
             enable_uring=1` into /etc/modprobe.d/fuse.conf",
        ),
    }
}

fn uring_sysctl() -> Check {
    const NAME: &str = "io_uring sysctl";
    match read(Path::new("/proc/sys/kernel/io_uring_disabled")).trim() {
        "" => Check::ok(NAME, "this kernel has no kernel.io_uring_disabled"),
        "0" => Check::ok(NAME, "kernel.io_uring_disabled=0"),
        "1" => Check::warn(
            NAME,
            "kernel.io_uring_disabled=1: only privileged processes may use io_uring",
            "`sysctl kernel.io_uring_disabled=0`, mount as root, or put the user into kernel.io_uring_group",
        ),
        other => Check::warn(
            NAME,
            format!("kernel.io_uring_disabled={other}: nobody may use io_uring"),
            "`sysctl kernel.io_uring_disabled=0`",
        ),
    }
}

fn uring_probe() -> Check {
    const NAME: &str = "io_uring";
    match io_uring::IoUring::new(2) {
        Ok(_) => Check::ok(NAME, "a ring can be made"),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Check::warn(
                NAME,
                "forbidden by the sysctl above or by a seccomp filter",
                "set the sysctl; in a container use a seccomp profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register",
            ),
            Some(libc::ENOSYS) => Check::warn(
                NAME,
                "not in this kernel, or hidden by a seccomp filter",
                "mounts use the transport blocking; a kernel with CONFIG_IO_URING is faster",
            ),
            Some(libc::ENOMEM) => Check::warn(
                NAME,
                "the limit of locked memory is too small for a ring",
                "`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit",
            ),
            _ => Check::warn(
                NAME,
                format!("a ring cannot be made: {error}"),
                "mounts use the transport blocking",
            ),
        },
    }
}

fn fusermount() -> Check {
    const NAME: &str = "fusermount3";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    match found {
        Some(file) => Check::ok(NAME, file.display().to_string()),
        None if nix::unistd::geteuid().is_root() => Check::warn(
            NAME,
            "not installed; root mounts without it",
            "install the package fuse3 for other users",
        ),
        None => {
            Check::fail(NAME, "not installed", "install the package fuse3; without it only root may mount")
        }
    }
}

fn user_allow_other() -> Check {
    const NAME: &str = "/etc/fuse.conf";
    let text = read(Path::new(NAME));
    if text.lines().any(|line| line.trim() == "user_allow_other") {
        return Check::ok(NAME, "user_allow_other is set: users' mounts may be open to others");
    }
    let remedy = "for -o allow_other by ordinary users add the line `user_allow_other`";
    if nix::unistd::geteuid().is_root() {
        return Check::ok(NAME, "no user_allow_other: only root's mounts can be open to others");
    }
    Check::warn(NAME, "no user_allow_other: your mounts are for you alone", remedy)
}

fn fusectl() -> Check {
    const NAME: &str = "fusectl";
    let mounted =
        super::mountinfo::table().is_ok_and(|table| table.iter().any(|mount| mount.fs_type == "fusectl"));
    if mounted {
        return Check::ok(NAME, "/sys/fs/fuse/connections is mounted");
    }
    Check::warn(
        NAME,
        "not mounted: `ringfs umount --force` cannot abort a mount that hangs",
        "`mount -t fusectl none /sys/fs/fuse/connections`",
    )
}

fn memlock() -> Check {
    const NAME: &str = "locked memory";
    /// What rings took on kernels before 5.12, which count them against the limit.
    const ENOUGH_BYTES: u64 = 8 << 20;
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft == RLIM_INFINITY => Check::ok(NAME, "unlimited"),
        Ok((soft, _)) if soft >= ENOUGH_BYTES || nix::unistd::geteuid().is_root() => {
            Check::ok(NAME, format!("limit {}", print::bytes(soft)))
        }
        Ok((soft, _)) => Check::warn(
            NAME,
            format!("limit {}: rings on kernels before 5.12 may need more", print::bytes(soft)),
            "`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit",
        ),
        Err(errno) => Check::warn(NAME, format!("limit unknown: {errno}"), "nothing to do if mounts work"),
    }
}

fn yielding() -> Check {
    const NAME: &str = "yielding threads";
    match may_yield() {
        Ok(()) => Check::ok(NAME, "queue threads may step behind the programs they serve, and back"),
        Err(why) => Check::warn(NAME, "no: a single program on an idle machine may be served slower", why),
    }
}

/// A small file, or nothing when it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Check, State, best_transport, kernel_version};

    #[test]
    fn kernels_are_judged_by_what_they_can_do() {
        for (release, state) in [
            ("4.19.0-27-amd64", State::Fail),
            ("5.9.16", State::Fail),
            ("5.10.0-46-cloud-amd64", State::Warn),
            ("6.13.7", State::Warn),
            ("6.14.0", State::Warn),
            ("6.18.2", State::Warn),
            ("6.18.3", State::Ok),
            ("6.18.44-fc-v669", State::Ok),
            ("7.0.0-rc1", State::Ok),
            ("garbage", State::Fail),
        ] {
            assert_eq!(kernel_version(release).state, state, "{release}");
        }
    }

    #[test]
    fn the_best_transport_follows_from_the_checks() {
        let all = |uring: State, parameter: State| {
            [("io_uring", uring), ("fuse.enable_uring", parameter), ("kernel", State::Ok)]
                .map(|(name, state)| Check { name, state, found: String::new(), remedy: String::new() })
        };
        assert_eq!(best_transport(&all(State::Ok, State::Ok)), "uring");
        assert_eq!(best_transport(&all(State::Ok, State::Warn)), "ring");
        assert_eq!(best_transport(&all(State::Warn, State::Ok)), "blocking");
    }
}
