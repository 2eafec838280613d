//! The kernel's number of a connection, and what it offers under that number in `/sys/fs/fuse/connections`.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::RawFd;

/// The number of the connection behind an open device, as newer kernels tell it (`fuse_connection` in fdinfo). For older
/// ones it is the minor part of the mount's `st_dev`.
pub(super) fn number(device: RawFd) -> Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{device}"))?;
    let number = text.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::NotFound, "this kernel does not tell the connection's number"))
}

/// Cuts a connection.
pub(super) fn abort(number: u32) -> Result<()> {
    std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1")
}
