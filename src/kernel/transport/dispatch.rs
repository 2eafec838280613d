//! From a request in memory to its outcome: what the transport answers itself, and the call of the handler.
//! The same for every transport.

use super::call::{Call, Layout, Origin, Outcome};
use super::counters::QueueCounters;
use super::handler::Handler;
use super::lent::Lent;
use crate::base::{Errno, Ino};
use crate::kernel::abi::{BatchForgetIn, ForgetIn, ForgetOne, InHeader, InterruptIn, Opcode, OutHeader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable};

/// What a thread needs to dispatch.
pub(super) struct Dispatcher {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) counters: Arc<QueueCounters>,
    /// Number of the thread, for [`Call::thread`].
    pub(super) thread: usize,
    /// SETXATTR comes in its longer form.
    pub(super) setxattr_ext: bool,
}

impl Dispatcher {
    /// Answers the request whose parts lie in `memory` as `layout` says. After it the memory holds the body of the
    /// reply, or belongs to a token.
    pub(super) fn dispatch(
        &self,
        header: InHeader,
        memory: Lent<'_>,
        layout: Layout,
        origin: Origin<'_>,
    ) -> Outcome {
        self.counters.request(header.opcode);
        let Some(op) = Opcode::from_raw(header.opcode) else {
            self.counters.refused();
            return refusal(Errno::ENOSYS);
        };
        match op {
            Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt | Opcode::Destroy | Opcode::Init => {
                let bytes = memory.bytes();
                return self.own(op, &header, &bytes[layout.args], &bytes[layout.payload]);
            }
            _ => {}
        }
        let mut outcome = Outcome::Pending;
        let call = Call {
            header,
            memory,
            layout,
            origin,
            outcome: &mut outcome,
            counters: &self.counters,
            thread: self.thread,
        };
        // A panic unwinds through `call`, whose drop answers EIO; the handler's own state is its own matter.
        if catch_unwind(AssertUnwindSafe(|| self.handler.handle(call))).is_err() {
            self.counters.panicked();
            tracing::error!("the handler panicked on {} {}", op.name(), header.unique);
        }
        outcome
    }

    /// Operations of the transport itself.
    fn own(&self, op: Opcode, header: &InHeader, args: &[u8], payload: &[u8]) -> Outcome {
        match op {
            Opcode::Forget => match record::<ForgetIn>(args) {
                Some(forget) => {
                    self.counters.forgets(1);
                    self.forget(header.nodeid, forget.nlookup);
                }
                None => self.counters.refused(),
            },
            Opcode::BatchForget => {
                let count = record::<BatchForgetIn>(args).map_or(0, |batch| batch.count);
                let (ones, _) =
                    <[ForgetOne]>::ref_from_prefix_with_elems(payload, count as usize).unwrap_or((&[], &[]));
                if ones.len() != count as usize {
                    self.counters.refused();
                }
                self.counters.forgets(ones.len() as u64);
                ones.iter().for_each(|one| self.forget(one.nodeid, one.nlookup));
            }
            Opcode::Interrupt => match record::<InterruptIn>(args) {
                Some(interrupt) => {
                    let told = catch_unwind(AssertUnwindSafe(|| self.handler.interrupt(interrupt.unique)));
                    if told.is_err() {
                        self.counters.panicked();
                    }
                }
                None => self.counters.refused(),
            },
            // The mount ends; the end of the device says so too, and that is what the handler is told.
            Opcode::Destroy => return Outcome::Reply { error: 0, bytes: 0 },
            _ => {
                self.counters.refused();
                return refusal(Errno::EIO);
            }
        }
        Outcome::NoReply
    }

    fn forget(&self, node: u64, lookups: u64) {
        if catch_unwind(AssertUnwindSafe(|| self.handler.forget(Ino(node), lookups))).is_err() {
            self.counters.panicked();
            tracing::error!("the handler panicked on FORGET of {node}");
        }
    }

    /// Reads and dispatches the message of `bytes` bytes at the start of `memory`, as read(2) of the device gave it.
    /// Its reply's body, if any, is left right behind the room for a reply's header.
    pub(super) fn dispatch_message(
        &self,
        memory: &mut [u8],
        bytes: usize,
        channel: &Arc<super::channel::Channel>,
    ) -> Message {
        let message = &memory[..bytes.min(memory.len())];
        let Ok((header, _)) = InHeader::read_from_prefix(message) else {
            // Without a header there is nobody to answer.
            self.counters.refused();
            return Message { unique: 0, outcome: Outcome::NoReply };
        };
        let args_at = size_of::<InHeader>();
        let args = Opcode::from_raw(header.opcode).map_or(0, Opcode::args_bytes);
        let args = match Opcode::from_raw(header.opcode) {
            Some(Opcode::Setxattr) if !self.setxattr_ext => 8,
            _ => args,
        };
        let args_end = args_at + args;
        if header.len as usize != bytes || args_end > bytes {
            self.counters.refused();
            return Message { unique: header.unique, outcome: refusal(Errno::EINVAL) };
        }
        let layout =
            Layout { args: args_at..args_end, payload: args_end..bytes, reply_at: size_of::<OutHeader>() };
        let outcome = self.dispatch(header, Lent::from(memory), layout, Origin::Classic(channel));
        Message { unique: header.unique, outcome }
    }
}

/// What became of a message of the device.
pub(super) struct Message {
    pub(super) unique: u64,
    pub(super) outcome: Outcome,
}

impl Message {
    /// Completes the reply at the start of `memory` and says how long it is; none if nothing is to be written.
    pub(super) fn reply(&self, memory: &mut [u8]) -> Option<usize> {
        use zerocopy::IntoBytes;
        let Outcome::Reply { error, bytes } = self.outcome else { return None };
        let header = super::channel::reply_header(self.unique, error, bytes);
        let head = size_of::<OutHeader>();
        memory[..head].copy_from_slice(header.as_bytes());
        Some(head + bytes)
    }
}

fn refusal(errno: Errno) -> Outcome {
    Outcome::Reply { error: errno.raw(), bytes: 0 }
}

fn record<T: FromBytes + Immutable>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(record, _)| record)
}
