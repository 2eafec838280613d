//! One open `/dev/fuse`: read(2), write(2), clones, and late replies.
//!
//! A reply must go to the descriptor whose read gave the request: the kernel keeps a list of unanswered
//! requests for each clone (a reply to another: ENOENT).
#![allow(unsafe_code, reason = "the ioctl that clones the device")]

use super::counters::SharedCounters;
use crate::base::Errno;
use crate::kernel::abi::{OutHeader, UNIQUE_RESEND};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

nix::ioctl_read!(fuse_clone, crate::kernel::abi::IOCTL_MAGIC, crate::kernel::abi::IOCTL_CLONE, u32);

/// An open `/dev/fuse` that belongs to a mount.
#[derive(Debug)]
pub(super) struct Channel {
    fd: OwnedFd,
    counters: Arc<SharedCounters>,
}

impl Channel {
    pub(super) fn new(fd: OwnedFd, counters: Arc<SharedCounters>) -> Self {
        Self { fd, counters }
    }

    /// A second descriptor of the same connection, with its own list of unanswered requests and its own flags.
    pub(super) fn clone_device(&self) -> std::io::Result<Self> {
        let fd: OwnedFd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse")?.into();
        let mut old = u32::try_from(self.fd.as_raw_fd()).map_err(std::io::Error::other)?;
        // SAFETY: both descriptors are open for the whole call, and the kernel only reads the number behind the
        // pointer, which outlives the call.
        unsafe { fuse_clone(fd.as_raw_fd(), &raw mut old) }?;
        Ok(Self { fd, counters: self.counters.clone() })
    }

    /// Whether reads return EAGAIN instead of waiting.
    pub(super) fn set_nonblocking(&self, on: bool) -> nix::Result<()> {
        let now = OFlag::from_bits_retain(fcntl(&self.fd, FcntlArg::F_GETFL)?);
        let mut wanted = now;
        wanted.set(OFlag::O_NONBLOCK, on);
        if wanted != now {
            fcntl(&self.fd, FcntlArg::F_SETFL(wanted))?;
        }
        Ok(())
    }

    /// One read(2): one request, or several FORGETs in one.
    pub(super) fn read(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        nix::unistd::read(&self.fd, buffer)
    }

    /// One write(2) of a whole message.
    pub(super) fn write(&self, message: &[u8]) -> nix::Result<()> {
        nix::unistd::write(&self.fd, message).map(|_| ())
    }

    /// One writev(2) of a whole message in parts.
    pub(super) fn write_parts(&self, parts: &[IoSlice<'_>]) -> nix::Result<()> {
        nix::sys::uio::writev(&self.fd, parts).map(|_| ())
    }

    pub(super) fn counters(&self) -> &Arc<SharedCounters> {
        &self.counters
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The header of a reply with `bytes` of body.
pub(super) fn reply_header(unique: u64, error: i32, bytes: usize) -> OutHeader {
    #[expect(clippy::cast_possible_truncation, reason = "bodies are at most a few MiB")]
    let len = (size_of::<OutHeader>() + bytes) as u32;
    // A request sent again is known to the kernel by its number without the mark.
    OutHeader { len, error: -error, unique: unique & !UNIQUE_RESEND }
}

/// The duty to answer one request that was read from `channel`.
#[derive(Debug)]
pub(super) struct ClassicLease {
    channel: Arc<Channel>,
    unique: u64,
    /// Bytes a reply may have, header included.
    room: usize,
}

/// Most parts of a reply that are written without being put together first.
const PARTS_MAX: usize = 8;

thread_local! {
    /// Where late replies are filled: grows to the largest one of its thread and stays.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl ClassicLease {
    pub(super) fn new(channel: &Arc<Channel>, unique: u64, room: usize) -> Self {
        Self { channel: channel.clone(), unique, room }
    }

    /// Replies with `parts`, or an errno.
    pub(super) fn send(&self, result: Result<(), Errno>, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let too_long = bytes > self.room - size_of::<OutHeader>();
        let error = if too_long { Errno::EIO.raw() } else { result.err().map_or(0, Errno::raw) };
        if error != 0 {
            return self.write(&[IoSlice::new(reply_header(self.unique, error, 0).as_bytes())]);
        }
        let header = reply_header(self.unique, 0, bytes);
        if parts.len() < PARTS_MAX {
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            slices[0] = IoSlice::new(header.as_bytes());
            for (slice, part) in slices[1..].iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
            }
            self.write(&slices[..=parts.len()]);
        } else {
            self.write(&[IoSlice::new(header.as_bytes()), IoSlice::new(&parts.concat())]);
        }
    }

    /// Replies with what `fill` writes.
    pub(super) fn fill(&self, max: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) {
        let room = max.min(self.room - size_of::<OutHeader>());
        SCRATCH.with(|scratch| {
            // `fill` may answer another token on this thread: that one gets a buffer of its own.
            let mut own = Vec::new();
            let mut borrowed = scratch.try_borrow_mut();
            let buffer = borrowed.as_deref_mut().unwrap_or(&mut own);
            if buffer.len() < room {
                buffer.resize(room, 0);
            }
            match fill(&mut buffer[..room]) {
                Ok(n) if n <= room => self.send(Ok(()), &[&buffer[..n]]),
                Ok(_) => self.send(Err(Errno::EIO), &[]),
                Err(errno) => self.send(Err(errno), &[]),
            }
        });
    }

    fn write(&self, slices: &[IoSlice<'_>]) {
        let counters = &self.channel.counters;
        counters.late_reply();
        counters.wrote();
        if let Err(error) = self.channel.write_parts(slices) {
            report_reply_error(error);
        }
    }

    pub(super) fn count_dropped(&self) {
        self.channel.counters.dropped();
    }
}

/// A reply that the kernel did not take. It has ended the request itself in each of these cases.
pub(super) fn report_reply_error(error: nix::errno::Errno) {
    use nix::errno::Errno as E;
    match error {
        // The caller was killed meanwhile, or the mount is gone.
        E::ENOENT | E::ENODEV | E::ECONNABORTED | E::ENOTCONN => {}
        _ => tracing::error!("the kernel refused a reply: {error}; its caller got EIO"),
    }
}
