//! GETATTR, STATX and SETATTR.

use super::{Context, Reply, attr, attributes, made, stale};
use crate::kernel::decode::{self, SetAttr, SetTime};
use crate::wire::{self, Mutation, Query, TimeSet};

/// GETATTR.
pub fn getattr<R: Reply>(cx: Context) -> impl FnOnce(R) + use<R> {
    let query = Query::GetAttr { ino: cx.ino };
    move |reply: R| {
        cx.ask(&query, reply, |_, reply, answer, kept| {
            reply.result(attr(answer).map(|attr| attributes(&attr, kept)).map_err(stale));
        });
    }
}

/// STATX: like GETATTR, with the time of birth.
pub fn statx<R: Reply>(cx: Context) -> impl FnOnce(R) + use<R> {
    let query = Query::GetAttr { ino: cx.ino };
    move |reply: R| {
        cx.ask(&query, reply, |_, reply, answer, kept| {
            let statx = |attr| decode::reply::statx(&attr, kept.of(&attr).attributes);
            reply.result(attr(answer).map(statx).map_err(stale));
        });
    }
}

/// SETATTR: chmod, chown, truncate, utimes.
pub fn setattr<R: Reply>(cx: Context, set: &SetAttr) -> impl FnOnce(R) + use<R> {
    let time = |time: SetTime| match time {
        SetTime::Now => TimeSet::Now,
        SetTime::At(time) => TimeSet::At(time),
    };
    let set = wire::SetAttr {
        mode: set.mode,
        uid: set.uid,
        gid: set.gid,
        size: set.size,
        atime: set.atime.map(time),
        mtime: set.mtime.map(time),
        ctime: set.ctime,
        // With HANDLE_KILLPRIV_V2 the kernel says it for truncations alone; a new owner always costs the bits.
        kill_suidgid: set.kill_suidgid || set.uid.is_some() || set.gid.is_some(),
    };
    let mutation = Mutation::SetAttr { ino: cx.ino, set };
    cx.mutate(&mutation, |_, reply: R, outcome, kept| {
        reply.result(made(outcome).map(|attr| attributes(&attr, kept)).map_err(stale));
    })
}
