//! Locks live on the server, so that all mounts see them: GETLK, SETLK, SETLKW for fcntl, OFD and flock.

use super::{Context, Reply, stale, success, unexpected};
use crate::base::{Errno, HandleId, Ino};
use crate::client::mount::{Interrupt, Mount};
use crate::kernel::decode;
use crate::wire::{Answer, LockKind, LockOwner, LockRequest, Query};
use std::sync::Arc;

/// GETLK: which lock is in the way.
pub fn getlk<R: Reply>(cx: Context, lock: &decode::Lock) -> impl FnOnce(R) + use<R> {
    let handle = lock.handle;
    let query = Query::GetLock { ino: cx.ino, lock: request(lock) };
    move |reply: R| {
        cx.ask(&query, reply, move |_, reply, answer, _| match answer {
            Ok(Answer::Lock(found)) => {
                let kind = kernel_kind(found.kind);
                let (start, end, pid) = (found.start, found.end, found.pid);
                let holder = decode::Lock { handle, owner: 0, start, end, kind, pid, flock: false };
                let in_the_way = (found.kind != LockKind::Unlock).then_some(&holder);
                reply.record(&decode::reply::lock(in_the_way));
            }
            Ok(other) => reply.errno(unexpected(&other)),
            Err(errno) => reply.errno(stale(errno)),
        });
    }
}

/// SETLK and SETLKW. One that waits is answered when the lock is granted, or with EINTR when the waiting process
/// gets a signal ([`crate::client::mount::Mount::interrupt`]).
pub fn setlk<R: Reply>(cx: Context, lock: &decode::Lock, wait: bool) -> impl FnOnce(R) + use<R> {
    let asker = cx.asker();
    let Context { mount, ino, .. } = cx;
    let lock = request(lock);
    let unlock = lock.kind == LockKind::Unlock;
    let wait = wait && !unlock;
    if !unlock {
        // Before the grant: a close that comes at the same time must not overlook it.
        mount.namespace.handles.mark_locked(HandleId(lock.handle));
    }
    let interrupt = if wait { Interrupt::Lock(asker) } else { Interrupt::WhenAway(asker) };
    move |reply: R| {
        ask(&mount, interrupt, Wish { ino, lock, wait }, reply, move |mount, wish, reply| {
            mount.lock_refused(wish.ino, move |mount| {
                ask(mount, interrupt, wish, reply, |_, _, reply: R| reply.errno(Errno::EAGAIN));
            });
        });
    }
}

/// A lock that is asked for.
#[derive(Clone, Copy)]
struct Wish {
    ino: Ino,
    lock: LockRequest,
    wait: bool,
}

/// Asks for a lock; `refused` decides when what is in its way may be a file that is being closed here.
fn ask<R: Reply>(
    mount: &Arc<Mount>,
    interrupt: Interrupt,
    wish: Wish,
    reply: R,
    refused: impl FnOnce(&Arc<Mount>, Wish, R) + Send + 'static,
) {
    let m = Arc::clone(mount);
    let releases = mount.lock_releases();
    let Wish { ino, lock, wait } = wish;
    mount.namespace.locks.asked(ino, &lock);
    mount.ask(interrupt, &Query::SetLock { ino, lock, wait }, move |answer, _| match success(answer) {
        Ok(()) => {
            m.namespace.locks.granted(ino, lock);
            reply.empty();
        }
        Err(Errno::EAGAIN) if m.lock_releases() != releases || blocked_by_a_close(&m, ino, &lock) => {
            refused(&m, wish, reply)
        }
        Err(errno) => reply.errno(stale(errno)),
    });
}

/// Whether a file through which a lock in the way was set may be on its way to RELEASE, or has just been there.
fn blocked_by_a_close(mount: &Mount, ino: Ino, lock: &LockRequest) -> bool {
    let handles = mount.namespace.locks.in_the_way(ino, lock);
    handles.iter().any(|id| mount.namespace.handles.get(*id).is_none_or(|handle| handle.closing))
}

fn request(lock: &decode::Lock) -> LockRequest {
    LockRequest {
        owner: if lock.flock { LockOwner::Flock(lock.owner) } else { LockOwner::Record(lock.owner) },
        kind: match lock.kind {
            decode::LockKind::Read => LockKind::Read,
            decode::LockKind::Write => LockKind::Write,
            decode::LockKind::Unlock => LockKind::Unlock,
        },
        start: lock.start,
        end: lock.end,
        pid: lock.pid,
        handle: lock.handle.0,
    }
}

fn kernel_kind(kind: LockKind) -> decode::LockKind {
    match kind {
        LockKind::Read => decode::LockKind::Read,
        LockKind::Write => decode::LockKind::Write,
        LockKind::Unlock => decode::LockKind::Unlock,
    }
}
