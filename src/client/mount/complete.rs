//! Changes that are completed here: in the tree and in the log, in one step.

use super::Mount;
use super::caches::Kept;
use super::state::State;
use crate::base::{Caller, Errno, Ino, Name, Time};
use crate::client::oplog::{Refused, Turn};
use crate::client::tree::{self, Denied, New};
use crate::wire::{Done, Expect, MakeFlags, Mutation, SetAttr, Ticket, WriteFlags};
use std::time::Duration;

/// Largest write that is completed here. A larger one is sent at once, and its caller waits: it is the data that takes
/// the time then.
const WRITE_BYTES_MAX: usize = 128 << 10;

/// What became of an attempt to complete a change here.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the common variant is the large one, and a box would cost an allocation"
)]
pub(super) enum Local {
    /// Done.
    Done(Done, Kept),
    /// What the server would say.
    No(Errno),
    /// The log has no room.
    NoRoom,
    /// The server must do it.
    Ask,
}

impl From<Denied> for Local {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::No(errno) => Self::No(errno),
            Denied::Ask => Self::Ask,
        }
    }
}

/// When and for whom.
#[derive(Clone, Copy)]
pub(super) struct Circumstances {
    /// By the clock of leases.
    pub(super) now: Duration,
    /// By the server's.
    pub(super) at: Time,
    /// How long leases are good.
    pub(super) left: Duration,
    pub(super) caller: Caller,
    pub(super) turn: Option<Turn>,
}

impl Mount {
    /// Completes a change here, if leases allow it.
    pub(super) fn complete(&self, state: &mut State, cx: &Circumstances, mutation: &Mutation<'_>) -> Local {
        match state.log.admits(mutation, cx.turn) {
            Ok(()) => {}
            Err(Refused::Full) => return Local::NoRoom,
            Err(Refused::TooLarge) => return Local::Ask,
        }
        let ticket = Ticket(state.log.last().0 + 1);
        let change = tree::Change { at: cx.at, caller: cx.caller, ticket };
        let local = match *mutation {
            Mutation::Make { parent, name, mode, umask, rdev, target, flags, .. } => {
                let new = New { ino: Ino(0), mode, umask, rdev, target, exclusive: flags.exclusive };
                self.make(state, cx, &change, (parent, name), new, flags.hold)
            }
            Mutation::Link { ino, parent, name } => state.link(cx, &change, ino, parent, name),
            Mutation::Unlink { parent, name, .. } => state.remove(cx, &change, parent, name, false),
            Mutation::Rmdir { parent, name, .. } => state.remove(cx, &change, parent, name, true),
            Mutation::Rename { parent, name, new_parent, new_name, flags, .. } => {
                state.rename(cx, &change, (parent, name), (new_parent, new_name), flags)
            }
            Mutation::SetAttr { ino, set } => match state.tree.set_attr(&change, ino, &set) {
                Ok(attr) => {
                    let kept = state.kept(None, Some(ino), cx.left);
                    if set != SetAttr::default() {
                        state.log_local(cx, ticket, mutation);
                    }
                    Local::Done(Done { attr: Some(attr), ..Done::default() }, kept)
                }
                Err(denied) => denied.into(),
            },
            Mutation::Write { ino, offset, flags, data } if data.len() <= WRITE_BYTES_MAX => {
                state.write(cx, &change, ino, offset, flags, data)
            }
            Mutation::Write { .. }
            | Mutation::Tmpfile { .. }
            | Mutation::Allocate { .. }
            | Mutation::Copy { .. }
            | Mutation::SetXattr { .. }
            | Mutation::RemoveXattr { .. } => Local::Ask,
        };
        match local {
            Local::Done(done, kept) => Local::Done(done, Kept { here: true, ..kept }),
            other => other,
        }
    }

    fn make(
        &self,
        state: &mut State,
        cx: &Circumstances,
        change: &tree::Change,
        (parent, name): (Ino, Name<'_>),
        new: New<'_>,
        open: bool,
    ) -> Local {
        // Without a number the tree says whether the name exists, and leaves the rest to the server.
        let number = state.numbers.take();
        let new = New { ino: number.unwrap_or(Ino(0)), ..new };
        let made = state.tree.make(change, parent, name, &new);
        if let (Some(number), Err(_) | Ok(tree::Made { existed: true, .. })) = (number, &made) {
            state.numbers.put_back(number);
        }
        let made = match made {
            Ok(made) => made,
            Err(denied) => return denied.into(),
        };
        let kept = state.kept(Some(parent), Some(made.attr.ino), cx.left);
        let done = Done { attr: Some(made.attr), existed: made.existed, ..Done::default() };
        if !made.existed {
            let New { mode, umask, rdev, target, ino, .. } = new;
            // What is leased need not be held, and the name is known to be absent.
            let flags = MakeFlags { hold: false, exclusive: true };
            let record = Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino: Some(ino) };
            state.log_local(cx, change.ticket, &record);
            if open {
                // In the same step: a recall that comes now must know that it is open.
                self.namespace.inodes.created(ino, false, true);
            }
        }
        Local::Done(done, kept)
    }
}

impl State {
    /// The tree has taken a change, and the log takes it too.
    fn log_local(&mut self, cx: &Circumstances, ticket: Ticket, record: &Mutation<'_>) {
        match self.log.accept(cx.now, cx.caller, cx.at, record, cx.turn) {
            Ok(drawn) => debug_assert_eq!(drawn, ticket, "the tree knows the change by its ticket"),
            Err(refused) => unreachable!("the log had room for it: {refused:?}"),
        }
    }

    fn link(
        &mut self,
        cx: &Circumstances,
        change: &tree::Change,
        ino: Ino,
        parent: Ino,
        name: Name<'_>,
    ) -> Local {
        match self.tree.link(change, ino, parent, name) {
            Ok(attr) => {
                self.log_local(cx, change.ticket, &Mutation::Link { ino, parent, name });
                let kept = self.kept(Some(parent), Some(ino), cx.left);
                Local::Done(Done { attr: Some(attr), ..Done::default() }, kept)
            }
            Err(denied) => denied.into(),
        }
    }

    fn remove(
        &mut self,
        cx: &Circumstances,
        change: &tree::Change,
        parent: Ino,
        name: Name<'_>,
        directory: bool,
    ) -> Local {
        let removed = if directory {
            self.tree.rmdir(change, parent, name)
        } else {
            self.tree.unlink(change, parent, name)
        };
        let removed = match removed {
            Ok(removed) => removed,
            Err(denied) => return denied.into(),
        };
        let (ino, hold) = (Some(removed.ino), removed.orphan);
        let record = if directory {
            Mutation::Rmdir { parent, name, ino, hold }
        } else {
            Mutation::Unlink { parent, name, ino, hold }
        };
        self.log_local(cx, change.ticket, &record);
        let orphan = removed.orphan.then_some(removed.ino);
        self.orphaned(orphan, change.ticket);
        Local::Done(Done { orphan, ..Done::default() }, Kept::default())
    }

    fn rename(
        &mut self,
        cx: &Circumstances,
        change: &tree::Change,
        (parent, name): (Ino, Name<'_>),
        (new_parent, new_name): (Ino, Name<'_>),
        flags: u32,
    ) -> Local {
        let renamed = match self.tree.rename(change, (parent, name), (new_parent, new_name), flags) {
            Ok(renamed) => renamed,
            Err(denied) => return denied.into(),
        };
        if !renamed.nothing {
            let record = Mutation::Rename {
                parent,
                name,
                new_parent,
                new_name,
                flags,
                ino: Some(renamed.ino),
                replaced: renamed.replaced.map_or(Expect::Absent, Expect::Is),
                hold: renamed.orphan.is_some(),
            };
            self.log_local(cx, change.ticket, &record);
            self.orphaned(renamed.orphan, change.ticket);
        }
        Local::Done(Done { orphan: renamed.orphan, ..Done::default() }, Kept::default())
    }

    fn write(
        &mut self,
        cx: &Circumstances,
        change: &tree::Change,
        ino: Ino,
        offset: u64,
        flags: WriteFlags,
        data: &[u8],
    ) -> Local {
        let WriteFlags { append, kill_suidgid } = flags;
        let written = match self.tree.write(change, ino, offset, data.len() as u64, append, kill_suidgid) {
            Ok(written) => written,
            Err(denied) => return denied.into(),
        };
        let done = Done { bytes: written.bytes, offset: written.offset, ..Done::default() };
        let taken = usize::try_from(written.bytes).ok().and_then(|bytes| data.get(..bytes));
        if let Some(data) = taken.filter(|data| !data.is_empty()) {
            // Its place is known, and stays what it is however the file grows before.
            let flags = WriteFlags { append: false, kill_suidgid };
            self.log_local(cx, change.ticket, &Mutation::Write { ino, offset: written.offset, flags, data });
        }
        Local::Done(done, Kept::default())
    }

    fn orphaned(&mut self, ino: Option<Ino>, ticket: Ticket) {
        if let Some(ino) = ino {
            self.took_last_name(ino, ticket);
        }
    }
}
