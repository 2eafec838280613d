//! What takes a name away: UNLINK, RMDIR, RENAME and RENAME2.

use super::{Context, Reply};
use crate::base::{Errno, Ino, Name};
use crate::client::mount::{Kept, Mount};
use crate::wire::{Done, Expect, Mutation};
use std::sync::Arc;

/// UNLINK.
pub fn unlink<R: Reply>(cx: Context, name: Name<'_>) -> impl FnOnce(R) + use<R> {
    let mutation = Mutation::Unlink { parent: cx.ino, name, ino: None, hold: true };
    cx.mutate(&mutation, reply_removed)
}

/// RMDIR.
pub fn rmdir<R: Reply>(cx: Context, name: Name<'_>) -> impl FnOnce(R) + use<R> {
    let mutation = Mutation::Rmdir { parent: cx.ino, name, ino: None, hold: true };
    cx.mutate(&mutation, reply_removed)
}

/// RENAME and RENAME2.
pub fn rename<R: Reply>(
    cx: Context,
    name: Name<'_>,
    new_parent: Ino,
    new_name: Name<'_>,
    flags: u32,
) -> impl FnOnce(R) + use<R> {
    let parent = cx.ino;
    let replaced = Expect::Any;
    let mutation =
        Mutation::Rename { parent, name, new_parent, new_name, flags, ino: None, replaced, hold: true };
    cx.mutate(&mutation, reply_removed)
}

fn reply_removed<R: Reply>(mount: &Arc<Mount>, reply: R, outcome: Result<Done, Errno>, _: Kept) {
    // Before the reply: the kernel's FORGET may follow at once, and must find that the inode is held.
    let drop = match outcome {
        Ok(Done { orphan: Some(ino), .. }) => mount.namespace.inodes.orphaned(ino),
        Ok(_) | Err(_) => false,
    };
    reply.done(outcome.map(|_| ()));
    if drop {
        mount.send_drops();
    }
}
