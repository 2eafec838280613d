//! A connected stream, of either family.

use nix::sys::socket::{MsgFlags, sendmsg};
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A peer that takes nothing of what it is sent for so long is gone.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// A connection. Reading and sending are independent, so a shared reference serves both.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Which family a descriptor is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Tcp,
    Unix,
}

impl Socket {
    /// Takes an accepted descriptor.
    pub(super) fn new(family: Family, fd: OwnedFd) -> io::Result<Self> {
        match family {
            Family::Tcp => {
                let stream = TcpStream::from(fd);
                stream.set_write_timeout(Some(STALL))?;
                // Answers are small and waited for.
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Family::Unix => {
                let stream = UnixStream::from(fd);
                stream.set_write_timeout(Some(STALL))?;
                Ok(Self::Unix(stream))
            }
        }
    }

    /// The peer, for the log.
    pub(super) fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => {
                stream.peer_addr().map_or_else(|_| "tcp".to_owned(), |a| format!("tcp://{a}"))
            }
            Self::Unix(stream) => {
                let pid = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials);
                pid.map_or_else(|_| "unix".to_owned(), |peer| format!("unix pid {}", peer.pid()))
            }
        }
    }

    /// Longest wait of one read; `None` waits without end.
    pub(super) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Unix(stream) => stream.set_read_timeout(limit),
        }
    }

    /// Ends one or both directions; the other thread that waits there returns.
    pub(super) fn shutdown(&self, how: Shutdown) {
        let ended = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
        // The peer may have ended it before: then there is nothing to do.
        drop(ended);
    }

    /// Sends what fits. With `wait` it blocks until something does, or [`STALL`] is over.
    pub(super) fn send(&self, pieces: &[IoSlice<'_>], wait: bool) -> io::Result<usize> {
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        if !wait {
            flags |= MsgFlags::MSG_DONTWAIT;
        }
        loop {
            match sendmsg::<()>(self.as_raw_fd(), pieces, &[], flags, None) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}
