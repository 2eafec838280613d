//! INIT: reads it, agrees on version and features, answers it.
//!
//! In: a mounted device. Out: what is in force. Between [`Session::read`] and [`Session::answer`] the rings are
//! built, so that what they lack can still be taken out of the answer.

use super::channel::{Channel, reply_header};
use super::fault::TransportFault;
use super::handler::{IO_BYTES_MIN, Negotiated, Offered, Wanted};
use super::{Kind, page_bytes};
use crate::base::limits;
use crate::kernel::abi::{self, InHeader, InitFlags, InitIn, InitOut, Opcode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use zerocopy::{FromBytes, IntoBytes};

/// Flags that are the transport's to decide, whatever the handler wants.
const OWN: InitFlags = InitFlags::INIT_EXT
    .with(InitFlags::MAX_PAGES)
    .with(InitFlags::BIG_WRITES)
    .with(InitFlags::ABORT_ERROR)
    .with(InitFlags::OVER_IO_URING)
    // Replies are never spliced: it was measured to be slower, and a ring has none.
    .with(InitFlags::SPLICE_WRITE)
    .with(InitFlags::SPLICE_MOVE)
    .with(InitFlags::SPLICE_READ)
    // DAX needs mappings that only virtio has.
    .with(InitFlags::MAP_ALIGNMENT)
    .with(InitFlags::HAS_INODE_DAX);

/// Of those, the ones that are always taken when offered.
const ALWAYS: InitFlags =
    InitFlags::INIT_EXT.with(InitFlags::MAX_PAGES).with(InitFlags::BIG_WRITES).with(InitFlags::ABORT_ERROR);

/// An INIT that waits for its answer.
#[derive(Debug)]
pub(super) struct Session {
    unique: u64,
    pub(super) offered: Offered,
}

impl Session {
    /// Waits for INIT, which mount(2) leaves in the device, and makes sure both sides speak the same version.
    pub(super) fn read(channel: &Channel) -> Result<Self, TransportFault> {
        loop {
            let (header, init) = read_init(channel)?;
            if init.major > abi::MAJOR {
                // The kernel sends INIT again with our major version.
                let again = InitOut { major: abi::MAJOR, minor: abi::MINOR, ..InitOut::default() };
                reply(channel, header.unique, 0, again.as_bytes())?;
                continue;
            }
            if init.major < abi::MAJOR || init.minor < abi::MINOR_OLDEST {
                reply(channel, header.unique, libc::EPROTO, &[])?;
                return Err(TransportFault::KernelTooOld { major: init.major, minor: init.minor });
            }
            let flags = InitFlags::from_halves(init.flags, init.flags2);
            let offered = Offered { minor: init.minor, flags, max_readahead: init.max_readahead };
            return Ok(Self { unique: header.unique, offered });
        }
    }

    /// What is in force if the kernel gets the answer to `wanted` over transport `kind`.
    pub(super) fn negotiate(&self, wanted: &Wanted, kind: Kind, threads: usize) -> Negotiated {
        let mut flags = wanted.flags.without(OWN) | ALWAYS;
        if kind == Kind::Uring {
            flags |= InitFlags::OVER_IO_URING;
        }
        flags = flags & self.offered.flags;
        #[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
        let largest = limits::IO_BYTES_MAX as u32;
        // Without MAX_PAGES the kernel stops at 32 pages, whatever is said here.
        Negotiated {
            minor: self.offered.minor.min(abi::MINOR),
            flags,
            max_write: wanted.max_write.clamp(IO_BYTES_MIN, largest),
            max_readahead: wanted.max_readahead.min(self.offered.max_readahead),
            kind,
            threads,
        }
    }

    /// Answers INIT. From here on requests come.
    pub(super) fn answer(
        &self,
        channel: &Channel,
        wanted: &Wanted,
        agreed: &Negotiated,
    ) -> Result<(), TransportFault> {
        let (flags, flags2) = agreed.flags.halves();
        let max_background = wanted.max_background.max(1);
        let out = InitOut {
            major: abi::MAJOR,
            // The kernel takes the lower of the two; what it offers is told in flags, not in this number.
            minor: agreed.minor,
            max_readahead: agreed.max_readahead,
            flags,
            flags2,
            max_background,
            // The kernel's own proportion.
            congestion_threshold: (max_background / 4).saturating_mul(3).max(1),
            max_write: agreed.max_write,
            time_gran: wanted.time_gran.max(1),
            max_pages: u16::try_from(pages(agreed.max_write)).unwrap_or(u16::MAX),
            max_stack_depth: if agreed.flags.has(InitFlags::PASSTHROUGH) {
                wanted.max_stack_depth
            } else {
                0
            },
            request_timeout: if agreed.flags.has(InitFlags::REQUEST_TIMEOUT) {
                wanted.request_timeout
            } else {
                0
            },
            ..InitOut::default()
        };
        reply(channel, self.unique, 0, out.as_bytes())
    }
}

/// Pages that hold `bytes`.
fn pages(bytes: u32) -> usize {
    (bytes as usize).div_ceil(page_bytes())
}

/// Bytes each entry of a ring must lend for payloads, or the kernel refuses the whole ring.
pub(super) fn payload_bytes(max_write: u32) -> usize {
    (pages(max_write) * page_bytes()).max(abi::READ_BUFFER_BYTES_MIN)
}

/// Bytes that a read of the device needs for the largest request.
pub(super) fn message_bytes(max_write: u32) -> usize {
    payload_bytes(max_write) + abi::HEADER_BYTES_MAX
}

fn read_init(channel: &Channel) -> Result<(InHeader, InitIn), TransportFault> {
    let mut buffer = [0_u8; abi::READ_BUFFER_BYTES_MIN];
    let bytes = loop {
        match channel.read(&mut buffer) {
            Ok(bytes) => break bytes,
            Err(Errno::EINTR | Errno::ENOENT) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(TransportFault::errno("cannot wait for the kernel")(errno)),
                }
            }
            Err(Errno::EPERM) => return Err(TransportFault::NotMounted),
            Err(Errno::ENODEV | Errno::ECONNABORTED) => return Err(TransportFault::Gone),
            Err(errno) => return Err(TransportFault::errno("cannot read the FUSE device")(errno)),
        }
    };
    parse_init(&buffer[..bytes])
}

/// Reads an INIT request, in its short form of the time before `INIT_EXT` too.
fn parse_init(message: &[u8]) -> Result<(InHeader, InitIn), TransportFault> {
    const SHORT: usize = 16;
    let bytes = message.len();
    let (header, record) =
        InHeader::read_from_prefix(message).map_err(|_| TransportFault::BadInit { opcode: 0, bytes })?;
    if header.opcode != Opcode::Init as u32 || record.len() < SHORT {
        return Err(TransportFault::BadInit { opcode: header.opcode, bytes });
    }
    let mut init = InitIn::default();
    let n = record.len().min(size_of::<InitIn>());
    init.as_mut_bytes()[..n].copy_from_slice(&record[..n]);
    Ok((header, init))
}

fn reply(channel: &Channel, unique: u64, error: i32, body: &[u8]) -> Result<(), TransportFault> {
    let mut message = [0_u8; 128];
    let head = size_of::<abi::OutHeader>();
    message[..head].copy_from_slice(reply_header(unique, error, body.len()).as_bytes());
    message[head..head + body.len()].copy_from_slice(body);
    match channel.write(&message[..head + body.len()]) {
        Ok(()) => Ok(()),
        Err(Errno::ENODEV | Errno::ENOENT) => Err(TransportFault::Gone),
        Err(errno) => Err(TransportFault::errno("the kernel refused the answer to INIT")(errno)),
    }
}
