//! Locks live on the server, so that all mounts see them: GETLK, SETLK, SETLKW for fcntl, OFD and flock.

use super::{Context, Reply, stale, success, unexpected};
use crate::base::HandleId;
use crate::client::mount::Interrupt;
use crate::kernel::decode;
use crate::wire::{Answer, LockKind, LockOwner, LockRequest, Query};
use std::sync::Arc;

/// GETLK: which lock is in the way.
pub fn getlk<R: Reply>(cx: Context, lock: &decode::Lock) -> impl FnOnce(R) + use<R> {
    let handle = lock.handle;
    let query = Query::GetLock { ino: cx.ino, lock: request(lock) };
    move |reply: R| {
        cx.ask(&query, reply, move |_, reply, answer| match answer {
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
    let Context { mount, unique, ino, .. } = cx;
    let lock = request(lock);
    let unlock = lock.kind == LockKind::Unlock;
    let wait = wait && !unlock;
    if !unlock {
        // Before the grant: a close that comes at the same time must not overlook it.
        mount.namespace.handles.mark_locked(HandleId(lock.handle));
    }
    let interrupt = if wait { Interrupt::Lock(unique) } else { Interrupt::WhenAway(unique) };
    move |reply: R| {
        let m = Arc::clone(&mount);
        mount.ask(interrupt, &Query::SetLock { ino, lock, wait }, move |answer| {
            let result = success(answer).map_err(stale);
            if result.is_ok() {
                m.namespace.locks.granted(ino, lock);
            }
            reply.done(result);
        });
    }
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
