//! A connected stream socket, unix or TCP: blocking to read, never blocking to send.

use super::{LinkFault, Target};
use nix::errno::Errno as SysErrno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, setsockopt, socket, sockopt,
};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// See the module.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects within `timeout`.
    pub(super) fn connect(target: &Target, timeout: Duration) -> Result<Self, LinkFault> {
        let name = target.to_string();
        match target {
            Target::Unix(path) => unix(path, &name, timeout),
            Target::Tcp(address) => tcp(address, &name, timeout),
            Target::Local { .. } => unreachable!("a local server is not connected to"),
        }
    }

    /// Sends what the socket has room for; EAGAIN when it has none.
    pub(super) fn send(&self, slices: &[IoSlice<'_>]) -> Result<usize, SysErrno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.as_fd().as_raw_fd(), slices, &[], flags, None) {
                Err(SysErrno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Waits for bytes; 0 at the end of the stream.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Unix(stream) => (&*stream).read(buffer),
                Self::Tcp(stream) => (&*stream).read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Fills the buffer before `deadline`, or fails with `TimedOut` or `UnexpectedEof`.
    pub(super) fn read_exact_by(&self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            self.set_timeouts(Some(left(deadline)?))?;
            match self.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all before `deadline`, or fails with `TimedOut`.
    pub(super) fn write_all_by(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.set_timeouts(Some(left(deadline)?))?;
            let written = match self {
                Self::Unix(stream) => (&*stream).write(bytes),
                Self::Tcp(stream) => (&*stream).write(bytes),
            };
            match written {
                Ok(written) => bytes = &bytes[written..],
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bound of each read and write; `None`: they wait for ever.
    pub(super) fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    /// Ends both directions: whoever reads gets the end of the stream.
    pub(super) fn shutdown(&self) {
        // An error means that it has ended already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn unix(path: &Path, name: &str, timeout: Duration) -> Result<Socket, LinkFault> {
    let failed = |errno: SysErrno| connect_fault(name, errno.into(), timeout);
    let address = UnixAddr::new(path).map_err(failed)?;
    let deadline = Instant::now() + timeout;
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => {
                // One write of the largest size at once, where the system allows it; else the link's thread sends
                // the rest.
                if setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES).is_err() {
                    let _ = setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER_BYTES);
                }
                let stream = UnixStream::from(fd);
                stream
                    .set_nonblocking(false)
                    .map_err(|cause| LinkFault::Connect { target: name.to_owned(), cause })?;
                return Ok(Socket::Unix(stream));
            }
            // The queue of those waiting to be accepted is full.
            Err(SysErrno::EAGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn tcp(address: &str, name: &str, timeout: Duration) -> Result<Socket, LinkFault> {
    let failed = |cause| connect_fault(name, cause, timeout);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed)?;
                return Ok(Socket::Tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn connect_fault(name: &str, cause: io::Error, timeout: Duration) -> LinkFault {
    let target = name.to_owned();
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => LinkFault::Absent { target, cause },
        io::ErrorKind::NotFound if name.starts_with("unix:") => LinkFault::Absent { target, cause },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            LinkFault::TimedOut { target, what: "connecting", waited_ms: timeout.as_millis() }
        }
        _ => LinkFault::Connect { target, cause },
    }
}

/// Send buffer asked for: a frame of the largest write and some metadata behind it.
const SEND_BUFFER_BYTES: usize = 2 << 20;
