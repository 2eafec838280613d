//! Finding the mount a command is about, and the daemon behind it.

use super::fail::Failure;
use super::mountinfo::{self, Mount};
use crate::control::{Ask, ControlFault, ask, client, place};
use nix::unistd::Uid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a command waits for answers that a daemon gives from memory.
pub(super) const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// The ringfs mount at exactly `dir`.
///
/// # Errors
/// There is none there.
pub(super) fn mount_at(dir: &Path) -> Result<Mount, Failure> {
    let table = table()?;
    let point = settle(&table, dir)?;
    match mountinfo::at(&table, &point) {
        Some(mount) if mount.is_ringfs() => Ok(mount.clone()),
        Some(mount) => Err(Failure::new(format!(
            "{} is a mount of type {}, not of ringfs",
            dir.display(),
            mount.fs_type
        ))),
        None => Err(Failure::new(format!(
            "{} is not a mount point; `ringfs status` lists the mounts of this host",
            dir.display()
        ))),
    }
}

/// The ringfs mount that holds `path`, and `path` as it is called there.
///
/// # Errors
/// It is on another file system.
pub(super) fn mount_of(path: &Path) -> Result<(Mount, PathBuf), Failure> {
    let table = table()?;
    let settled = settle(&table, path)?;
    if let Some(mount) = mountinfo::holding(&table, &settled).filter(|mount| mount.is_ringfs()) {
        return Ok((mount.clone(), settled));
    }
    Err(Failure::new(format!(
        "{} is not on a ringfs mount; `ringfs status` lists the mounts of this host",
        path.display()
    )))
}

/// Every ringfs mount of this host.
///
/// # Errors
/// /proc is not there.
pub(super) fn all_mounts() -> Result<Vec<Mount>, Failure> {
    Ok(table()?.into_iter().filter(Mount::is_ringfs).collect())
}

/// Asks the daemon of a mount.
///
/// # Errors
/// See [`ControlFault`]; a daemon without a socket is unreachable.
pub(super) fn ask_daemon(mount: &Mount, what: Ask, patience: Duration) -> Result<Value, ControlFault> {
    let (owner, socket) = socket_of(mount)?;
    ask(&socket, owner, what, patience)
}

/// The process number of the daemon of a mount, also when it hangs.
///
/// # Errors
/// See [`ask_daemon`].
pub(super) fn daemon_of(mount: &Mount) -> Result<u32, ControlFault> {
    let (owner, socket) = socket_of(mount)?;
    client::daemon(&socket, owner)
}

fn socket_of(mount: &Mount) -> Result<(Uid, PathBuf), ControlFault> {
    let owner = Uid::from_raw(mount.owner());
    let socket = place::find(owner, mount.number).ok_or_else(|| ControlFault::Unreachable {
        path: format!("mount-{}.sock", mount.number),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    Ok((owner, socket))
}

fn table() -> Result<Vec<Mount>, Failure> {
    mountinfo::table().map_err(|error| {
        Failure::new(format!("cannot read /proc/self/mountinfo: {error}; is /proc mounted?"))
    })
}

fn settle(table: &[Mount], path: &Path) -> Result<PathBuf, Failure> {
    mountinfo::settle(table, path)
        .map_err(|error| Failure::new(format!("cannot resolve {}: {error}", path.display())))
}
