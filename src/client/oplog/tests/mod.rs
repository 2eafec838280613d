//! The log rule by rule, and any sequence of events against a model.

mod fold;
mod memory;
mod model;
mod rules;
mod sending;

use super::{Action, Batch, Limits, Log};
use crate::base::{Caller, Ino, Name, Time};
use crate::wire::{MakeFlags, Mutation, SetAttr, Ticket, WriteFlags, mutation};
use std::time::Duration;

const CALLER: Caller = Caller { uid: 1, gid: 2, pid: 3 };
const AT: Time = Time { secs: 1_700_000_000, nanos: 123 };

const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn chmod(ino: u64, mode: u32) -> Mutation<'static> {
    Mutation::SetAttr { ino: Ino(ino), set: SetAttr { mode: Some(mode), ..SetAttr::default() } }
}

fn make(ino: u64, name: &str) -> Mutation<'_> {
    Mutation::Make {
        parent: Ino(1),
        name: Name::parse(name.as_bytes()).unwrap(),
        mode: libc::S_IFREG | 0o644,
        umask: 0o22,
        rdev: 0,
        target: &[],
        flags: MakeFlags { hold: false, exclusive: true },
        ino: Some(Ino(ino)),
    }
}

fn write(data: &[u8]) -> Mutation<'_> {
    Mutation::Write { ino: Ino(5), offset: 7, flags: WriteFlags::default(), data }
}

fn limits() -> Limits {
    Limits { waiting_max: 8, kept_max: 16, parked_max: 3, ..Limits::default() }
}

/// Accepts a local mutation that differs from the others, so that none folds into another.
fn accept(log: &mut Log, now: Duration) -> Ticket {
    let other = log.last().0 + 100;
    log.accept(now, CALLER, AT, &chmod(other, 0o600), None).unwrap()
}

fn sent(log: &mut Log, now: Duration) -> Batch {
    match log.next(now) {
        Action::Send(batch) => batch,
        other => panic!("a batch is due, not {other:?}"),
    }
}

/// All of a batch is done.
fn answer(log: &mut Log, now: Duration, batch: &Batch, commit: u64) {
    let answered = log.answered(now, batch.first, commit, &mut std::iter::empty());
    assert!(answered.failed.is_empty());
    answered.due.run();
}

fn tickets(batch: &Batch) -> Vec<u64> {
    mutation::decode_batch(&batch.body, &batch.payload).map(|read| read.unwrap().0.ticket.0).collect()
}
