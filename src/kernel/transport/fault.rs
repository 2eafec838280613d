//! What can go wrong with a transport. Each message is one line and says what to do.

use super::Kind;

/// Why a mount cannot be served, or stopped being served.
#[derive(Debug, thiserror::Error)]
pub enum TransportFault {
    /// The device was not mounted when its first request was read.
    #[error("the FUSE device is not mounted: call mount(2) with its descriptor first")]
    NotMounted,
    /// The kernel speaks an older protocol.
    #[error("the kernel speaks FUSE {major}.{minor}; ringfs needs 7.32, that is Linux 5.10 or newer")]
    KernelTooOld {
        /// Major version.
        major: u32,
        /// Minor version.
        minor: u32,
    },
    /// The first request was not INIT, or not as long as INIT is.
    #[error("the kernel sent a malformed first request (opcode {opcode}, {bytes} bytes)")]
    BadInit {
        /// What came.
        opcode: u32,
        /// Its length.
        bytes: usize,
    },
    /// The transport that was asked for is not to be had.
    #[error("transport {kind} cannot be used: {why}")]
    Unavailable {
        /// Which.
        kind: Kind,
        /// Cause and remedy.
        why: String,
    },
    /// A system call failed that does not fail on a healthy system.
    #[error("{doing}: {error}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// Ended before INIT.
    #[error("the mount was gone before it could be served")]
    Gone,
}

impl TransportFault {
    /// Wraps a system call's error.
    pub(super) fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::System { doing, error }
    }

    /// The same for nix's errors.
    pub(super) fn errno(doing: &'static str) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |errno| Self::System { doing, error: errno.into() }
    }
}
