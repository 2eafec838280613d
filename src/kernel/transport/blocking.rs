//! read(2) and write(2) on `/dev/fuse`, one request at a time per thread: the reference for the other transports,
//! what is left where io_uring is forbidden, and the reader of what never comes over a ring.

use super::channel::{Channel, report_reply_error};
use super::dispatch::Dispatcher;
use super::running::End;
use crate::kernel::abi::{InHeader, Opcode};
use memmap2::MmapMut;
use nix::errno::Errno;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::FromBytes;

/// One thread's work.
pub(super) struct Worker {
    pub(super) channel: Arc<Channel>,
    pub(super) dispatcher: Dispatcher,
    /// Bytes of the largest message.
    pub(super) message_bytes: usize,
    /// How long to leave the device alone after FORGETs. Beside a ring this thread gets little else, and each
    /// FORGET that finds it waiting costs the caller a wake-up; those that come meanwhile are read as one batch.
    pub(super) forget_pause: Option<Duration>,
}

impl Worker {
    /// Serves until the mount ends, and says how it ended.
    pub(super) fn run(self) -> End {
        let mut memory = match MmapMut::map_anon(self.message_bytes) {
            Ok(memory) => memory,
            Err(error) => return End::Failed(format!("no memory for requests: {error}")),
        };
        loop {
            self.dispatcher.counters.read();
            let bytes = match self.channel.read(&mut memory) {
                Ok(bytes) => bytes,
                // A signal; a request that was withdrawn while it was being read; nothing there after all.
                Err(Errno::EINTR | Errno::ENOENT | Errno::EAGAIN) => continue,
                Err(Errno::ENODEV) => return End::Unmounted,
                Err(Errno::ECONNABORTED) => return End::Aborted,
                Err(errno) => return End::Failed(format!("cannot read the FUSE device: {errno}")),
            };
            let message = self.dispatcher.dispatch_message(&mut memory, bytes, &self.channel);
            if let Some(len) = message.reply(&mut memory) {
                self.dispatcher.counters.wrote();
                if let Err(errno) = self.channel.write(&memory[..len]) {
                    report_reply_error(errno);
                }
            } else if let Some(pause) = self.forget_pause.filter(|_| is_forget(&memory)) {
                std::thread::sleep(pause);
            }
        }
    }
}

/// Whether the message in `memory`, which had no reply and so is untouched, was a FORGET.
fn is_forget(memory: &[u8]) -> bool {
    InHeader::read_from_prefix(memory).is_ok_and(|(header, _)| {
        header.opcode == Opcode::Forget as u32 || header.opcode == Opcode::BatchForget as u32
    })
}
