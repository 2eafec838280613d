//! OPEN, FLUSH, RELEASE and the same for directories.

use super::{Context, Reply, attr, made, stale, success};
use crate::base::{Attr, Caller, Errno, HandleId, Ino};
use crate::client::mount::{Asker, Interrupt, Mount};
use crate::client::namespace::OpenStep;
use crate::kernel::abi::flags::OPEN_KILL_SUIDGID;
use crate::kernel::abi::{FlushIn, OpenIn, OpenOut, ReleaseIn};
use crate::kernel::decode;
use crate::wire::{Mutation, Query, SetAttr, TimeSet};
use std::sync::Arc;

/// OPEN: under a lease nobody can take the inode's last name; else the server holds it before the kernel hears that it is
/// open.
pub fn open<R: Reply>(cx: Context, args: &OpenIn) -> impl FnOnce(R) + use<R> {
    let asker = cx.asker();
    let Context { mount, ino, caller, .. } = cx;
    let args = *args;
    move |reply: R| {
        finish_open(&mount, asker, ino, move |mount, result| match result {
            Err(errno) => reply.errno(errno),
            Ok(()) => truncate_if_asked(mount, caller, ino, args.flags, args.open_flags, {
                move |mount, result| match result {
                    Ok(_) => {
                        let handle = mount.namespace.handles.open(ino, args.flags);
                        mount.opened(handle, ino);
                        reply.record(&decode::reply::open(handle, mount.open_mode()));
                    }
                    Err(errno) => reply.errno(errno),
                }
            }),
        });
    }
}

/// Counts one more open of `ino` and sees to it that the server holds it. On an error nothing is counted.
pub(super) fn finish_open(
    mount: &Arc<Mount>,
    asker: Asker,
    ino: Ino,
    then: impl FnOnce(&Arc<Mount>, Result<(), Errno>) + Send + 'static,
) {
    match mount.open_under_lease(ino) {
        Some(opened) => then(mount, opened),
        None => {
            let step = mount.namespace.inodes.begin_open(ino);
            take_step(mount, asker, ino, step, then);
        }
    }
}

fn take_step(
    mount: &Arc<Mount>,
    asker: Asker,
    ino: Ino,
    step: OpenStep,
    then: impl FnOnce(&Arc<Mount>, Result<(), Errno>) + Send + 'static,
) {
    let m = Arc::clone(mount);
    match step {
        OpenStep::Ready => then(mount, Ok(())),
        OpenStep::Ask => {
            mount.ask(Interrupt::WhenAway(asker), &Query::Hold { ino }, move |answer, _| {
                match attr(answer) {
                    Ok(_) => {
                        m.namespace.inodes.held(ino);
                        then(&m, Ok(()));
                    }
                    Err(errno) => {
                        undo_open(&m, ino, errno == Errno::EINTR);
                        then(&m, Err(stale(errno)));
                    }
                }
            });
        }
        OpenStep::Wait => mount.namespace.inodes.after_drop(
            ino,
            Box::new(move || {
                let step = m.namespace.inodes.resume_open(ino);
                take_step(&m, asker, ino, step, then);
            }),
        ),
    }
}

/// `doubtful`: a Hold was given up that may have reached the server.
fn undo_open(mount: &Arc<Mount>, ino: Ino, doubtful: bool) {
    if mount.namespace.inodes.open_failed(ino, doubtful) {
        mount.send_drops();
    }
}

/// The `O_TRUNC` of an open (`ATOMIC_O_TRUNC`). Gives the attributes afterwards if there was one; on an error the
/// open is undone.
pub(super) fn truncate_if_asked(
    mount: &Arc<Mount>,
    caller: Caller,
    ino: Ino,
    flags: u32,
    open_flags: u32,
    then: impl FnOnce(&Arc<Mount>, Result<Option<Attr>, Errno>) + Send + 'static,
) {
    if flags & libc::O_TRUNC.cast_unsigned() == 0 {
        return then(mount, Ok(None));
    }
    let set = SetAttr {
        size: Some(0),
        mtime: Some(TimeSet::Now),
        kill_suidgid: open_flags & OPEN_KILL_SUIDGID != 0,
        ..SetAttr::default()
    };
    let m = Arc::clone(mount);
    mount.mutate(caller, &Mutation::SetAttr { ino, set }, move |outcome, _| match made(outcome) {
        Ok(attr) => then(&m, Ok(Some(attr))),
        Err(errno) => {
            undo_open(&m, ino, false);
            then(&m, Err(stale(errno)));
        }
    });
}

/// FLUSH, at each close(2): the closing process loses its record locks on the file, and the mount's option says what it waits
/// for. Never ENOSYS, which would end these requests.
///
/// `None`: there is nothing to unlock or to wait for, the answer is yes.
pub fn flush<R: Reply>(cx: Context, args: &FlushIn) -> Option<impl FnOnce(R) + use<R>> {
    let (ino, owner, handle) = (cx.ino, args.lock_owner, HandleId(args.fh));
    let mount = cx.mount;
    if !mount.namespace.locks.is_empty() {
        mount.namespace.handles.mark_closing(handle);
    }
    let unlock = mount.namespace.locks.owner_has_any(ino, owner);
    (unlock || mount.close_waits()).then_some(move |reply: R| {
        let m = Arc::clone(&mount);
        let closed = move |result: Result<(), Errno>| {
            if result.is_err() || !unlock {
                return reply.done(result);
            }
            let mount = Arc::clone(&m);
            m.namespace.locks.owner_leaves(ino, owner);
            m.ask(Interrupt::Never, &Query::UnlockOwner { ino, owner }, move |answer, _| {
                mount.namespace.locks.unlock_owner(ino, owner);
                reply.done(success(answer));
            });
        };
        mount.before_close(ino, handle, closed);
    })
}

/// RELEASE: the last descriptor is closed. Locks that were set through it end here (flock, OFD): nobody else tells.
/// `None`: there are none, the answer is yes.
///
/// # Errors
/// EBADF for a handle that is not open.
pub fn release<R: Reply>(cx: Context, args: &ReleaseIn) -> Result<Option<impl FnOnce(R) + use<R>>, Errno> {
    let Context { mount, ino, .. } = cx;
    let id = HandleId(args.fh);
    let handle = mount.namespace.handles.close(id).ok_or(Errno::EBADF)?;
    mount.released(id);
    if !handle.locked {
        closed(&mount, ino);
        return Ok(None);
    }
    Ok(Some(move |reply: R| unlock_handle(&mount, ino, id, reply, closed)))
}

fn unlock_handle<R: Reply>(
    mount: &Arc<Mount>,
    ino: Ino,
    id: HandleId,
    reply: R,
    after: impl FnOnce(&Arc<Mount>, Ino) + Send + 'static,
) {
    let m = Arc::clone(mount);
    mount.namespace.locks.handle_leaves(ino, id);
    mount.ask(Interrupt::Never, &Query::UnlockHandle { ino, handle: id.0 }, move |answer, _| {
        m.namespace.locks.unlock_handle(ino, id);
        reply.done(success(answer));
        m.locks_released(ino);
        after(&m, ino);
    });
}

fn closed(mount: &Arc<Mount>, ino: Ino) {
    if mount.namespace.inodes.closed(ino) {
        mount.send_drops();
    }
}

/// OPENDIR. A directory is not held: one that another mount removes is gone for those who have it open.
#[must_use]
pub fn opendir(cx: &Context, args: &OpenIn) -> OpenOut {
    let handle = cx.mount.namespace.handles.open(cx.ino, args.flags);
    cx.mount.opened(handle, cx.ino);
    decode::reply::open(handle, 0)
}

/// RELEASEDIR; like [`release`].
///
/// # Errors
/// EBADF for a handle that is not open.
pub fn releasedir<R: Reply>(cx: Context, args: &ReleaseIn) -> Result<Option<impl FnOnce(R) + use<R>>, Errno> {
    let Context { mount, ino, .. } = cx;
    let id = HandleId(args.fh);
    let handle = mount.namespace.handles.close(id).ok_or(Errno::EBADF)?;
    mount.released(id);
    Ok(handle.locked.then_some(move |reply: R| unlock_handle(&mount, ino, id, reply, |_, _| ())))
}
