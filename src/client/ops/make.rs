//! What makes a name: MKNOD, MKDIR, SYMLINK, LINK, CREATE, TMPFILE.

use super::open::{finish_open, truncate_if_asked};
use super::{Context, Reply, entry, made};
use crate::base::{Attr, Errno, Ino, Kind, Name};
use crate::client::mount::{Kept, Mount};
use crate::kernel::abi::{CreateIn, MkdirIn, MknodIn};
use crate::kernel::decode;
use crate::wire::{Done, MakeFlags, Mutation};
use std::sync::Arc;

/// MKNOD: a special file, or a regular one that is not opened.
pub fn mknod<R: Reply>(cx: Context, args: &MknodIn, name: Name<'_>) -> impl FnOnce(R) + use<R> {
    let (mode, umask, rdev) = (args.mode, args.umask, args.rdev);
    make(cx, name, mode, umask, rdev, b"")
}

/// MKDIR.
pub fn mkdir<R: Reply>(cx: Context, args: &MkdirIn, name: Name<'_>) -> impl FnOnce(R) + use<R> {
    let mode = libc::S_IFDIR | (args.mode & !libc::S_IFMT);
    make(cx, name, mode, args.umask, 0, b"")
}

/// SYMLINK.
pub fn symlink<R: Reply>(cx: Context, name: Name<'_>, target: &[u8]) -> impl FnOnce(R) + use<R> {
    make(cx, name, libc::S_IFLNK | 0o777, 0, 0, target)
}

fn make<R: Reply>(
    cx: Context,
    name: Name<'_>,
    mode: u32,
    umask: u32,
    rdev: u32,
    target: &[u8],
) -> impl FnOnce(R) + use<R> {
    let flags = MakeFlags { hold: false, exclusive: true };
    let mutation = Mutation::Make { parent: cx.ino, name, mode, umask, rdev, target, flags, ino: None };
    cx.mutate(&mutation, reply_entry)
}

/// LINK: `target` gets one more name in the directory the request is for. A file made by TMPFILE gets its first.
pub fn link<R: Reply>(cx: Context, target: Ino, name: Name<'_>) -> impl FnOnce(R) + use<R> {
    let mutation = Mutation::Link { ino: target, parent: cx.ino, name };
    cx.mutate(&mutation, reply_entry)
}

fn reply_entry<R: Reply>(mount: &Arc<Mount>, reply: R, outcome: Result<Done, Errno>, kept: Kept) {
    reply.result(made(outcome).map(|attr| entry(mount, &attr, kept)));
}

/// CREATE: makes and opens. The kernel sends it for a name it has just found absent; another mount may have made
/// that name since, which is an error with `O_EXCL` alone.
pub fn create<R: Reply>(cx: Context, args: &CreateIn, name: Name<'_>) -> impl FnOnce(R) + use<R> {
    let exclusive = args.flags & libc::O_EXCL.cast_unsigned() != 0;
    let mutation = Mutation::Make {
        parent: cx.ino,
        name,
        mode: libc::S_IFREG | (args.mode & !libc::S_IFMT),
        umask: args.umask,
        rdev: 0,
        target: b"",
        flags: MakeFlags { hold: true, exclusive },
        ino: None,
    };
    let (args, caller, asker) = (*args, cx.caller, cx.asker());
    cx.mutate(&mutation, move |mount, reply: R, outcome, kept| {
        let existed = outcome.is_ok_and(|done| done.existed);
        match made(outcome) {
            Ok(attr) if !existed => reply_created(mount, reply, (&attr, kept), args.flags, false),
            Ok(attr) if attr.kind() == Kind::File => {
                finish_open(mount, asker, attr.ino, move |mount, result| match result {
                    Err(errno) => reply.errno(errno),
                    Ok(()) => truncate_if_asked(mount, caller, attr.ino, args.flags, args.open_flags, {
                        move |mount, result| match result {
                            Ok(truncated) => {
                                reply_found(mount, reply, &truncated.unwrap_or(attr), args.flags)
                            }
                            Err(errno) => reply.errno(errno),
                        }
                    }),
                });
            }
            // Something that cannot be opened by CREATE stands there: the kernel looks again and opens it by its kind.
            Ok(_) => reply.errno(Errno::ESTALE),
            Err(Errno::EEXIST) if !exclusive => reply.errno(Errno::ESTALE),
            Err(errno) => reply.errno(errno),
        }
    })
}

/// TMPFILE: a file without a name, open and held.
pub fn tmpfile<R: Reply>(cx: Context, args: &CreateIn) -> impl FnOnce(R) + use<R> {
    let mode = libc::S_IFREG | (args.mode & !libc::S_IFMT);
    let mutation = Mutation::Tmpfile { parent: cx.ino, mode, umask: args.umask };
    let flags = args.flags;
    cx.mutate(&mutation, move |mount, reply: R, outcome, kept| match made(outcome) {
        Ok(attr) => reply_created(mount, reply, (&attr, kept), flags, true),
        Err(errno) => reply.errno(errno),
    })
}

fn reply_created<R: Reply>(
    mount: &Arc<Mount>,
    reply: R,
    (attr, kept): (&Attr, Kept),
    flags: u32,
    orphan: bool,
) {
    if !kept.here {
        mount.namespace.inodes.created(attr.ino, orphan, false);
    }
    let handle = mount.namespace.handles.open(attr.ino, flags);
    mount.opened(handle, attr.ino);
    let open = decode::reply::open(handle, mount.open_mode());
    let kept = kept.of(attr);
    reply.record(&decode::reply::create(decode::reply::entry(attr, kept.name, kept.attributes), open));
}

/// A file that was there: its open is counted already.
fn reply_found<R: Reply>(mount: &Arc<Mount>, reply: R, attr: &Attr, flags: u32) {
    let entry = entry(mount, attr, Kept::default());
    let handle = mount.namespace.handles.open(attr.ino, flags);
    mount.opened(handle, attr.ino);
    let open = decode::reply::open(handle, mount.open_mode());
    reply.record(&decode::reply::create(entry, open));
}
