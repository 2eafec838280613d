//! Names to inodes: LOOKUP, READLINK, STATFS, ACCESS, FORGET.

use super::{Context, Reply, ShortName, attr, entry, stale, unexpected};
use crate::base::{Errno, Ino, Name, limits};
use crate::client::mount::Mount;
use crate::kernel::decode::{self, LookupName};
use crate::wire::{Answer, Query};
use std::sync::Arc;

/// LOOKUP. `.` and `..` come when the mount is exported over NFS and a file handle is all the kernel has.
pub fn lookup<R: Reply>(cx: Context, name: LookupName<'_>) -> impl FnOnce(R) + use<R> {
    let ino = cx.ino;
    let (name, other) = match name {
        LookupName::Name(name) => (ShortName::new(name.bytes()), Query::StatFs),
        LookupName::Itself => (ShortName::new(b""), Query::GetAttr { ino }),
        LookupName::Parent => (ShortName::new(b""), Query::Parent { ino }),
    };
    move |reply: R| {
        let named = Name::parse(name.bytes()).map(|name| Query::Lookup { parent: ino, name });
        let by_number = named.is_err();
        cx.ask(&named.unwrap_or(other), reply, move |mount, reply, answer, kept| match attr(answer) {
            Ok(attr) => reply.record(&entry(mount, &attr, kept)),
            Err(Errno::ENOENT) if !by_number && !kept.name.is_zero() => {
                reply.record(&decode::reply::negative(kept.name));
            }
            Err(errno) => reply.errno(if by_number { stale(errno) } else { errno }),
        });
    }
}

/// READLINK.
pub fn readlink<R: Reply>(cx: Context) -> impl FnOnce(R) + use<R> {
    let query = Query::ReadLink { ino: cx.ino };
    move |reply: R| {
        cx.ask(&query, reply, |_, reply, answer, _| match answer {
            Ok(Answer::Bytes(target)) => reply.parts(&[target]),
            Ok(other) => reply.errno(unexpected(&other)),
            Err(errno) => reply.errno(stale(errno)),
        });
    }
}

/// STATFS.
pub fn statfs<R: Reply>(cx: Context) -> impl FnOnce(R) + use<R> {
    let block = u64::from(limits::BLOCK_BYTES);
    move |reply: R| {
        cx.ask(&Query::StatFs, reply, move |_, reply, answer, _| match answer {
            Ok(Answer::FsStat(stat)) => {
                let files = stat.inodes_used.saturating_add(stat.inodes_free);
                let (total, free) = (stat.bytes_total / block, stat.bytes_free / block);
                reply.record(&decode::reply::statfs(total, free, files, stat.inodes_free));
            }
            Ok(other) => reply.errno(unexpected(&other)),
            Err(errno) => reply.errno(errno),
        });
    }
}

/// ACCESS: comes only without `default_permissions`, and then all are let in; who asked for that mount decides who
/// may enter it (`allow_other`).
pub fn access<R: Reply>(cx: Context) -> impl FnOnce(R) + use<R> {
    let query = Query::GetAttr { ino: cx.ino };
    move |reply: R| {
        cx.ask(&query, reply, |_, reply, answer, _| reply.done(attr(answer).map(|_| ()).map_err(stale)));
    }
}

/// FORGET, one inode of it.
pub fn forget(mount: &Arc<Mount>, ino: Ino, count: u64) {
    // The root is never forgotten, whatever the kernel's counts say at the end.
    if ino == Ino::ROOT {
        return;
    }
    let drop = mount.namespace.inodes.forget(ino, count);
    if !mount.namespace.inodes.is_in_use(ino) {
        mount.forgotten(ino);
    }
    if drop {
        mount.send_drops();
    }
}
