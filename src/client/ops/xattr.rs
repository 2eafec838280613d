//! Extended attributes. GETXATTR is never answered ENOSYS: that would switch all of them off for the mount.

use super::{Context, Reply, ShortName, stale, unexpected};
use crate::base::Errno;
use crate::kernel::abi::SetxattrIn;
use crate::kernel::abi::flags::SETXATTR_ACL_KILL_SGID;
use crate::kernel::decode::{self, XattrName};
use crate::wire::{Answer, Mutation, Query};

/// SETXATTR.
pub fn set<R: Reply>(
    cx: Context,
    args: &SetxattrIn,
    name: XattrName<'_>,
    value: &[u8],
) -> impl FnOnce(R) + use<R> {
    let mutation = Mutation::SetXattr {
        ino: cx.ino,
        name: name.bytes(),
        value,
        flags: args.flags,
        kill_sgid: args.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0,
    };
    cx.mutate(&mutation, |_, reply: R, outcome, _| reply.done(outcome.map(|_| ()).map_err(stale)))
}

/// REMOVEXATTR.
pub fn remove<R: Reply>(cx: Context, name: XattrName<'_>) -> impl FnOnce(R) + use<R> {
    let mutation = Mutation::RemoveXattr { ino: cx.ino, name: name.bytes() };
    cx.mutate(&mutation, |_, reply: R, outcome, _| reply.done(outcome.map(|_| ()).map_err(stale)))
}

/// GETXATTR; with `size` 0 only the size is wanted.
pub fn get<R: Reply>(cx: Context, size: u32, name: XattrName<'_>) -> impl FnOnce(R) + use<R> {
    let (ino, name) = (cx.ino, ShortName::new(name.bytes()));
    move |reply: R| {
        let query = Query::GetXattr { ino, name: name.bytes() };
        cx.ask(&query, reply, move |_, reply, answer, _| reply_bytes(reply, size, answer));
    }
}

/// LISTXATTR; with `size` 0 only the size is wanted.
pub fn list<R: Reply>(cx: Context, size: u32) -> impl FnOnce(R) + use<R> {
    let query = Query::ListXattr { ino: cx.ino };
    move |reply: R| cx.ask(&query, reply, move |_, reply, answer, _| reply_bytes(reply, size, answer))
}

fn reply_bytes<R: Reply>(reply: R, size: u32, answer: Result<Answer<'_>, Errno>) {
    let bytes = match answer {
        Ok(Answer::Bytes(bytes)) => bytes,
        Ok(other) => return reply.errno(unexpected(&other)),
        Err(errno) => return reply.errno(stale(errno)),
    };
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => reply.record(&decode::reply::xattr_size(len)),
        Ok(len) if len <= size => reply.parts(&[bytes]),
        Ok(_) | Err(_) => reply.errno(Errno::ERANGE),
    }
}
