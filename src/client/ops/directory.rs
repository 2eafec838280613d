//! READDIR and READDIRPLUS. A directory is streamed: each request brings one piece, and nothing is remembered
//! between them but the kernel's position, so that seekdir and rewinddir work and a listing costs no memory.
//!
//! Positions: 0 the start, 1 after `.`, 2 after `..`, else the server's cookie of the last entry, which stays true
//! while names come and go.

use super::{Context, Reply, TTL, attr, unexpected};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::{Errno, Ino, Name};
use crate::client::mount::Mount;
use crate::kernel::abi::{EntryOut, ReadIn};
use crate::kernel::decode::{self, DirWriter};
use crate::wire::{Answer, DirEntry, Query};
use std::sync::Arc;

const AFTER_DOT: u64 = 1;
const AFTER_DOTDOT: u64 = 2;

/// A piece under way.
#[derive(Clone, Copy, Debug)]
struct Piece {
    ino: Ino,
    offset: u64,
    bytes_max: usize,
    plus: bool,
}

/// READDIR, and READDIRPLUS, which counts as a lookup of each name it returns but `.` and `..`.
pub fn readdir<R: Reply>(cx: Context, args: &ReadIn, plus: bool) -> impl FnOnce(R) + use<R> {
    let bytes_max = usize::try_from(args.size).unwrap_or(IO_BYTES_MAX).min(IO_BYTES_MAX);
    let piece = Piece { ino: cx.ino, offset: args.offset, bytes_max, plus };
    move |reply: R| {
        if piece.offset >= AFTER_DOTDOT || piece.ino == Ino::ROOT {
            return list(cx, reply, piece, Ino::ROOT);
        }
        let again = cx.clone();
        cx.ask(&Query::Parent { ino: piece.ino }, reply, move |_, reply, answer| match attr(answer) {
            Ok(parent) => list(again, reply, piece, parent.ino),
            // A removed directory has no parent; it lists itself as such, and nothing else.
            Err(Errno::ENOENT) => list(again, reply, piece, piece.ino),
            Err(errno) => reply.errno(errno),
        });
    }
}

fn list<R: Reply>(cx: Context, reply: R, piece: Piece, parent: Ino) {
    let cookie = if piece.offset <= AFTER_DOTDOT { 0 } else { piece.offset };
    let bytes_max = u32::try_from(wire_bytes(piece)).unwrap_or(u32::MAX);
    let query = Query::ReadDir { ino: piece.ino, cookie, bytes_max, plus: piece.plus };
    cx.ask(&query, reply, move |mount, reply, answer| match answer {
        Ok(Answer::Entries { entries, .. }) => {
            reply.fill(piece.bytes_max, |buffer| fill(mount, buffer, piece, parent, &entries));
        }
        Ok(other) => reply.errno(unexpected(&other)),
        Err(errno) => reply.errno(errno),
    });
}

/// How much to ask for: a name takes 36 bytes on the wire and at most 31 in the kernel's form, so that as much fits;
/// with attributes it takes 132 and at most 159.
fn wire_bytes(piece: Piece) -> usize {
    if piece.plus { piece.bytes_max / 160 * 132 } else { piece.bytes_max }
}

/// Writes what fits; the kernel asks for the rest. Returns the bytes used.
fn fill(mount: &Arc<Mount>, buffer: &mut [u8], piece: Piece, parent: Ino, entries: &[DirEntry<'_>]) -> usize {
    let mut out = DirWriter::new(buffer);
    for (at, next, ino) in [(0, AFTER_DOT, piece.ino), (AFTER_DOT, AFTER_DOTDOT, parent)] {
        let up = next == AFTER_DOTDOT;
        let added = piece.offset > at
            || if piece.plus { out.add_plus_dot(ino, next, up) } else { out.add_dot(ino, next, up) };
        if !added {
            return out.used();
        }
    }
    for entry in entries {
        let Ok(name) = Name::parse(entry.name) else { continue };
        if !out.fits(entry.name.len(), piece.plus) {
            break;
        }
        let added = if piece.plus {
            out.add_plus(&entry_out(mount, entry), entry.ino, entry.cookie, entry.kind, name)
        } else {
            out.add(entry.ino, entry.cookie, entry.kind, name)
        };
        assert!(added, "an entry that fits is added");
    }
    out.used()
}

/// Attributes of an entry, counted as a lookup; without any when the inode is gone.
fn entry_out(mount: &Arc<Mount>, entry: &DirEntry<'_>) -> EntryOut {
    match &entry.attr {
        Some(attr) => {
            mount.namespace.inodes.looked_up(attr.ino);
            decode::reply::entry(attr, TTL, TTL)
        }
        None => EntryOut::default(),
    }
}
