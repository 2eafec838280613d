//! What is measured: a directory with a name, how to wait until all is durable in it, and its message counts.

use crate::mount::{Mount, Server};
use serde_json::Value;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Keeps alive what the directory belongs to.
enum Owner {
    Nobody,
    Scratch(PathBuf),
    /// The mount ends first.
    Mounts {
        _mount: Mount,
        server: Option<Server>,
    },
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Self::Scratch(dir) = self {
            std::fs::remove_dir_all(dir).ok();
        }
    }
}

/// See the module.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// The binary, where the directory is a mount of it.
    ringfs: Option<PathBuf>,
    /// Command that returns when all is durable; its last word is the directory.
    drain: Option<String>,
    /// Processes whose memory is the file system's: client, then server.
    pub(crate) pids: Vec<u32>,
    owner: Owner,
}

impl Target {
    /// A mount of `null:` over io_uring: what the transport costs by itself.
    pub(crate) fn floor(ringfs: &Path) -> Result<Self, String> {
        let mount = Mount::start(ringfs, "null:", &["--transport", "uring"], None)?;
        Ok(Self::of_mount("floor", ringfs, mount, None))
    }

    /// A mount of a server in its own process, with its store below `disk`.
    pub(crate) fn served(ringfs: &Path, disk: &Path, options: &[&str]) -> Result<Self, String> {
        let server = Server::start(ringfs, disk)?;
        let mount = Mount::start(ringfs, &server.address(), options, None)?;
        Ok(Self::of_mount("ringfs", ringfs, mount, Some(server)))
    }

    /// One more mount of the same server.
    pub(crate) fn beside(&self, ringfs: &Path) -> Result<Mount, String> {
        let Owner::Mounts { server: Some(server), .. } = &self.owner else {
            return Err(format!("{} has no server", self.name));
        };
        Mount::start(ringfs, &server.address(), &[], None)
    }

    fn of_mount(name: &str, ringfs: &Path, mount: Mount, server: Option<Server>) -> Self {
        let mut pids = vec![mount.pid()];
        pids.extend(server.as_ref().map(Server::pid));
        Self {
            name: name.to_owned(),
            dir: mount.point().to_path_buf(),
            ringfs: Some(ringfs.to_path_buf()),
            drain: None,
            pids,
            owner: Owner::Mounts { _mount: mount, server },
        }
    }

    /// A folder of the local file system below `disk`.
    pub(crate) fn local(disk: &Path) -> Result<Self, String> {
        let dir = disk.join(format!("ringfs-perf-local-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { owner: Owner::Scratch(dir.clone()), ..Self::plain("local", dir, None) })
    }

    /// `NAME=DIR`: any directory that is mounted already.
    pub(crate) fn named(word: &str, drains: &[String]) -> Result<Self, String> {
        let split = |word: &str| word.split_once('=').map(|(name, rest)| (name.to_owned(), rest.to_owned()));
        let (name, dir) = split(word).ok_or_else(|| format!("{word}: use NAME=DIR"))?;
        let drain = drains.iter().filter_map(|word| split(word)).find(|(of, _)| *of == name);
        Ok(Self::plain(&name, PathBuf::from(dir), drain.map(|(_, command)| command)))
    }

    fn plain(name: &str, dir: PathBuf, drain: Option<String>) -> Self {
        Self { name: name.to_owned(), dir, ringfs: None, drain, pids: Vec::new(), owner: Owner::Nobody }
    }

    /// Returns when all that was done is durable. The floor has nothing to make durable.
    pub(crate) fn drain(&self) -> Result<(), String> {
        let mut command = match (&self.ringfs, &self.drain) {
            (Some(ringfs), _) => {
                let mut command = Command::new(ringfs);
                command.args(["flush", "--timeout", "600"]);
                command
            }
            (None, Some(words)) => {
                let mut words = words.split_whitespace();
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words);
                command
            }
            (None, None) => {
                let dir = std::fs::File::open(&self.dir).map_err(|error| error.to_string())?;
                return rustix::fs::syncfs(dir.as_fd()).map_err(|error| format!("syncfs: {error}"));
            }
        };
        let out = command.arg(&self.dir).output().map_err(|error| format!("{command:?}: {error}"))?;
        // `null:` has no server that could flush.
        if out.status.success() || self.name == "floor" {
            return Ok(());
        }
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }

    /// `ringfs status --json`, where the directory is a mount of it.
    pub(crate) fn status(&self) -> Option<Value> {
        let out =
            Command::new(self.ringfs.as_ref()?).args(["status", "--json"]).arg(&self.dir).output().ok()?;
        serde_json::from_slice(&out.stdout).ok()
    }

    /// Requests of the kernel until now, and frames sent to the server.
    pub(crate) fn messages(&self) -> Option<(u64, u64)> {
        let status = self.status()?;
        let frames = status["link"]["frames_sent"].as_u64().unwrap_or(0);
        Some((status["requests"]["total"].as_u64()?, frames))
    }
}

/// Processor seconds that the whole machine has worked, all processes and the kernel: user, nice, system, interrupts.
pub(crate) fn busy() -> Result<f64, String> {
    let stat = std::fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // Fourth and fifth are idle and waiting for the disk; guest time is in user time already; stolen time is nobody's work.
    let worked = ticks.iter().enumerate().filter(|(at, _)| matches!(at, 0..3 | 5 | 6));
    Ok(worked.map(|(_, ticks)| *ticks).sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}
