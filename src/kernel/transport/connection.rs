//! The kernel's number of a connection, and what it offers under that number in `/sys/fs/fuse/connections`.

use nix::mount::MntFlags;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::RawFd;
use std::path::Path;

/// The number of the connection behind an open device, as newer kernels tell it (`fuse_connection` in fdinfo). For older
/// ones it is the minor part of the mount's `st_dev`.
pub(super) fn number(device: RawFd) -> Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{device}"))?;
    let number = text.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::NotFound, "this kernel does not tell the connection's number"))
}

/// Cuts a connection: by its number, or where `/sys/fs/fuse/connections` is not mounted by forcing the mount off.
pub(super) fn abort(number: Option<u32>, mount_point: Option<&Path>) -> Result<()> {
    let by_number = match number {
        Some(number) => std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1"),
        None => Err(Error::new(ErrorKind::NotFound, "the number of the connection is not known")),
    };
    match (by_number, mount_point) {
        (Err(error), Some(dir)) if error.kind() == ErrorKind::NotFound => {
            match nix::mount::umount2(dir, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
                // Forcing cuts the connection first and unmounts then, which a user of the mount may prevent.
                Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        }
        (result, _) => result,
    }
}
