//! The protocol of `/dev/fuse` through a plain io_uring: one wait point per thread from Linux 5.10 on.
//!
//! Each thread has a clone of the device, two message buffers and one READ in flight. A reply goes out as a WRITE in the
//! same `io_uring_enter` that submits the next READ and waits. The device is always `O_NONBLOCK`: without it
//! kernels before 6.12 run such a READ in a kernel thread, or block in the system call itself. Late replies are written
//! by whoever has the token.
#![allow(
    unsafe_code,
    reason = "submits reads and writes of buffers that the kernel uses until their completion"
)]

use super::channel::{Channel, report_reply_error};
use super::dispatch::Dispatcher;
use super::running::End;
use io_uring::{IoUring, opcode, squeue, types};
use memmap2::MmapMut;
use std::io;
use std::sync::Arc;

const DEVICE: types::Fixed = types::Fixed(0);

/// What a completion belongs to.
const READ: u64 = 1;
const WRITE: u64 = 2;
const POLL: u64 = 3;

/// READ, WRITE and POLL may be in flight at a time.
const ENTRIES: u32 = 4;

/// Builds a ring with the best flags that this kernel has.
pub(super) fn build() -> io::Result<IoUring> {
    let best =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(ENTRIES);
    match best {
        // Flags of 5.18, 6.0 and 6.1: refused as unknown by older kernels.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(ENTRIES),
        other => other,
    }
}

/// One thread's work.
pub(super) struct RingWorker {
    ring: IoUring,
    channel: Arc<Channel>,
    dispatcher: Dispatcher,
    /// One is read into while the other's reply is written.
    buffers: [MmapMut; 2],
    /// The kernel does not wait for a request in READ: each READ is linked behind a POLL.
    poll_first: bool,
    /// READs in a row that came back with EAGAIN.
    empty_reads: u32,
    /// The buffer whose reply is in flight, if any.
    writing: Option<usize>,
}

/// Where READ waits for a request, EAGAIN means that another thread was faster; this often in a row, that it does not wait.
const EMPTY_READS_MAX: u32 = 4;

impl RingWorker {
    pub(super) fn new(
        channel: Arc<Channel>,
        dispatcher: Dispatcher,
        message_bytes: usize,
    ) -> io::Result<Self> {
        let ring = build()?;
        ring.submitter().register_files(&[channel.raw()])?;
        let buffers = [MmapMut::map_anon(message_bytes)?, MmapMut::map_anon(message_bytes)?];
        Ok(Self { ring, channel, dispatcher, buffers, poll_first: false, empty_reads: 0, writing: None })
    }

    /// Serves until the mount ends, and says how it ended.
    pub(super) fn run(mut self) -> End {
        let mut reading = 0;
        self.push_read(reading);
        loop {
            let result = match self.turn() {
                Ok(result) => result,
                Err(error) => return End::Failed(format!("io_uring_enter: {error}")),
            };
            match result {
                0.. => {
                    self.empty_reads = 0;
                    let bytes = usize::try_from(result).unwrap_or(0);
                    let memory = &mut self.buffers[reading];
                    let message = self.dispatcher.dispatch_message(memory, bytes, &self.channel);
                    if let Some(len) = message.reply(memory) {
                        self.push_write(reading, len);
                        reading = 1 - reading;
                    }
                }
                _ => match -result {
                    libc::ENODEV => return End::Unmounted,
                    libc::ECONNABORTED => return End::Aborted,
                    libc::EAGAIN => {
                        self.empty_reads += 1;
                        self.poll_first |= self.empty_reads >= EMPTY_READS_MAX;
                    }
                    // A withdrawn request, a signal, or a POLL that failed with its READ.
                    libc::ENOENT | libc::EINTR | libc::ECANCELED => {}
                    errno => {
                        let error = io::Error::from_raw_os_error(errno);
                        return End::Failed(format!("cannot read the FUSE device: {error}"));
                    }
                },
            }
            self.push_read(reading);
        }
    }

    /// Submits what is queued and waits for the READ, whose result it returns, and for a WRITE that was queued with
    /// it: its buffer is needed next. Nearly always all is done when the call returns, so this is one call per request.
    fn turn(&mut self) -> io::Result<i32> {
        let mut read = None;
        let mut polling = self.poll_first;
        loop {
            let wait =
                usize::from(read.is_none()) + usize::from(polling) + usize::from(self.writing.is_some());
            if wait == 0 {
                return Ok(read.unwrap_or(-libc::EAGAIN));
            }
            self.dispatcher.counters.entered();
            match self.ring.submit_and_wait(wait) {
                Ok(_) => {}
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => return Err(error),
            }
            for completion in self.ring.completion() {
                match completion.user_data() {
                    READ => read = Some(completion.result()),
                    POLL => polling = false,
                    _ => {
                        self.writing = None;
                        if completion.result() < 0 {
                            report_reply_error(nix::errno::Errno::from_raw(-completion.result()));
                        }
                    }
                }
            }
        }
    }

    fn push_read(&mut self, buffer: usize) {
        self.dispatcher.counters.read();
        if self.poll_first {
            let poll = opcode::PollAdd::new(DEVICE, libc::POLLIN.cast_unsigned().into()).build();
            let poll = poll.flags(squeue::Flags::IO_LINK).user_data(POLL);
            self.push(&poll);
        }
        let memory = &mut self.buffers[buffer];
        let len = u32::try_from(memory.len()).unwrap_or(u32::MAX);
        let read = opcode::Read::new(DEVICE, memory.as_mut_ptr(), len).build().user_data(READ);
        self.push(&read);
    }

    fn push_write(&mut self, buffer: usize, len: usize) {
        self.dispatcher.counters.wrote();
        self.writing = Some(buffer);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let write = opcode::Write::new(DEVICE, self.buffers[buffer].as_ptr(), len).build().user_data(WRITE);
        self.push(&write);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: READ and WRITE name one buffer each, mapped until `self` is dropped, where the ring goes first. `run`
        // touches a buffer only between its READ's completion and its WRITE's submission, and reads into the other
        // one meanwhile; `turn` returns only when a WRITE in flight is complete.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "a ring has room for a read, a write and a poll");
    }
}
