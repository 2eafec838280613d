//! How a mount behaves; the command line's words for it are in parentheses.

use std::time::Duration;

/// What close(2) waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CloseWait {
    /// Nothing.
    #[default]
    Nothing,
    /// What was written before is seen by other mounts.
    Applied,
    /// It survives a crash of the server.
    Durable,
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// No leases: each operation is the server's, and a change is durable when it is answered (`--sync`).
    pub sync: bool,
    /// What close(2) waits for (`--close`).
    pub close: CloseWait,
    /// How long before a lease ends nothing is answered from it any more (`--lease-margin`). `None`: a fifth of the lease.
    pub lease_margin: Option<Duration>,
    /// How long the first change of a burst waits for company (`--gather`).
    pub gather: Duration,
    /// Changes that may wait for the server (`--log-operations`).
    pub log_operations: usize,
    /// Inodes that are remembered (`--cache-inodes`).
    pub cache_inodes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: false,
            close: CloseWait::Nothing,
            lease_margin: None,
            gather: Duration::from_micros(100),
            log_operations: 1 << 15,
            // Some 500 MB when they are all used, with their names.
            cache_inodes: 1 << 20,
        }
    }
}

impl Options {
    /// How long before the end of a lease nothing is answered from it.
    #[must_use]
    pub fn margin(&self, lease: Duration) -> Duration {
        self.lease_margin.unwrap_or(lease / 5).min(lease)
    }
}
