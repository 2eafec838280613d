//! One mount of the binary under test, ended when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to mount or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `ringfs serve`, ended when dropped, its store with it.
pub(crate) struct Server {
    daemon: Child,
    scratch: PathBuf,
}

impl Server {
    /// Serves a new store below `disk` at a unix socket.
    pub(crate) fn start(ringfs: &Path, disk: &Path) -> Result<Self, String> {
        let scratch = disk.join(format!("ringfs-perf-{}-{}", std::process::id(), nonce()));
        std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
        let scratch = scratch.canonicalize().map_err(|error| error.to_string())?;
        let socket = scratch.join("socket");
        let mut command = Command::new(ringfs);
        command.args(["serve", "--foreground", "--log-level", "warn"]).arg(scratch.join("store"));
        command.arg("--listen").arg(format!("unix:{}", socket.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = command.spawn().map_err(|error| format!("{}: {error}", ringfs.display()))?;
        let mut server = Self { daemon, scratch };
        let started = Instant::now();
        while !socket.exists() {
            if let Ok(Some(status)) = server.daemon.try_wait() {
                return Err(format!("the server ended with {status} instead of listening"));
            }
            if started.elapsed() > PATIENCE {
                return Err("the server did not listen in time".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Where mounts reach it.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}/socket", self.scratch.display())
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its store goes away with it: nothing has to be made durable.
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        std::fs::remove_dir_all(&self.scratch).ok();
    }
}

/// A running `ringfs mount`.
pub(crate) struct Mount {
    daemon: Child,
    ringfs: PathBuf,
    scratch: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Mounts `source` with `options`. `cpus` limits the daemon to these processors, as taskset(1) does.
    pub(crate) fn start(
        ringfs: &Path,
        source: &str,
        options: &[&str],
        cpus: Option<&str>,
    ) -> Result<Self, String> {
        let scratch = std::env::temp_dir().join(format!("ringfs-perf-{}-{}", std::process::id(), nonce()));
        let point = scratch.join("mnt");
        std::fs::create_dir_all(&point).map_err(|error| format!("{}: {error}", point.display()))?;
        let source = match source {
            "embedded" => scratch.join("store").display().to_string(),
            other => other.to_owned(),
        };
        let mut command = match cpus {
            Some(cpus) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cpus]).arg(ringfs);
                command
            }
            None => Command::new(ringfs),
        };
        command.args(["mount", "--foreground", "--log-level", "warn"]).args(options).arg(source).arg(&point);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = command.spawn().map_err(|error| format!("{}: {error}", ringfs.display()))?;
        let mut mount = Self { daemon, ringfs: ringfs.to_path_buf(), scratch, point };
        mount.wait_until_mounted()?;
        Ok(mount)
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    /// Process number of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    fn wait_until_mounted(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let wanted = format!(" {} ", self.point.display());
        loop {
            if let Ok(Some(status)) = self.daemon.try_wait() {
                return Err(format!("the daemon ended with {status} instead of mounting"));
            }
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            if table.contains(&wanted) && std::fs::read_dir(&self.point).is_ok() {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err("the daemon did not mount in time".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let ended = Command::new(&self.ringfs).arg("umount").arg(&self.point).status();
        let started = Instant::now();
        while ended.as_ref().is_ok_and(std::process::ExitStatus::success) && started.elapsed() < PATIENCE {
            if let Ok(Some(_)) = self.daemon.try_wait() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A daemon that is still there is killed, and its mount detached, so that the next round can start.
        if !matches!(self.daemon.try_wait(), Ok(Some(_))) {
            eprintln!("perf: the daemon did not end; killing it");
            self.daemon.kill().ok();
            self.daemon.wait().ok();
            Command::new("umount").arg("-l").arg(&self.point).status().ok();
        }
        std::fs::remove_dir_all(&self.scratch).ok();
    }
}

fn nonce() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos())
}
