//! READDIR and READDIRPLUS. A directory is streamed: each request brings one piece, and nothing is remembered
//! between them but the kernel's position, so that seekdir and rewinddir work and a listing costs no memory.
//!
//! Positions: 0 the start, 1 after `.`, 2 after `..`, else the server's cookie of the last entry, which stays true
//! while names come and go.

use super::{Context, Reply, attr, entry, unexpected};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::{Errno, Ino, Name};
use crate::client::mount::{Kept, Mount};
use crate::kernel::abi::{EntryOut, ReadIn};
use crate::kernel::decode::DirWriter;
use crate::wire::{Answer, DirEntry, Query};
use std::ops::ControlFlow;

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

impl Piece {
    /// The server's position.
    fn cookie(self) -> u64 {
        if self.offset <= AFTER_DOTDOT { 0 } else { self.offset }
    }
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
        cx.ask(&Query::Parent { ino: piece.ino }, reply, move |_, reply, answer, _| match attr(answer) {
            Ok(parent) => list(again, reply, piece, parent.ino),
            // A removed directory has no parent; it lists itself as such, and nothing else.
            Err(Errno::ENOENT) => list(again, reply, piece, piece.ino),
            Err(errno) => reply.errno(errno),
        });
    }
}

fn list<R: Reply>(cx: Context, reply: R, piece: Piece, parent: Ino) {
    if let Some(listed) = list_here(&cx.mount, piece, parent) {
        return match listed {
            Ok(bytes) => reply.parts(&[&bytes]),
            Err(errno) => reply.errno(errno),
        };
    }
    let cookie = piece.cookie();
    let bytes_max = u32::try_from(wire_bytes(piece)).unwrap_or(u32::MAX);
    let query = Query::ReadDir { ino: piece.ino, cookie, bytes_max, plus: piece.plus };
    cx.ask(&query, reply, move |mount, reply, answer, _| match answer {
        // What it taught is told as if it had been known, so that the kernel may keep it.
        Ok(Answer::Entries { entries, .. }) => {
            if let Some(Ok(bytes)) = list_here(mount, piece, parent) {
                return reply.parts(&[&bytes]);
            }
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

/// The piece, if what it lists is known here.
fn list_here(mount: &Mount, piece: Piece, parent: Ino) -> Option<Result<Vec<u8>, Errno>> {
    let mut buffer = vec![0; piece.bytes_max];
    let mut out = DirWriter::new(&mut buffer);
    if !add_dots(&mut out, piece, parent) {
        return None;
    }
    let listed = mount.list(piece.ino, piece.cookie(), piece.plus, |entry, kept| {
        add(mount, &mut out, piece, entry, kept)
    })?;
    let used = out.used();
    buffer.truncate(used);
    Some(listed.map(|()| buffer))
}

/// Writes what fits; the kernel asks for the rest. Returns the bytes used.
fn fill(mount: &Mount, buffer: &mut [u8], piece: Piece, parent: Ino, entries: &[DirEntry<'_>]) -> usize {
    let mut out = DirWriter::new(buffer);
    if add_dots(&mut out, piece, parent) {
        let mut entries = entries.iter();
        let _all_fit = entries.try_for_each(|entry| add(mount, &mut out, piece, entry, Kept::default()));
    }
    out.used()
}

/// `.` and `..`; false when they do not fit.
fn add_dots(out: &mut DirWriter<'_>, piece: Piece, parent: Ino) -> bool {
    [(0, AFTER_DOT, piece.ino), (AFTER_DOT, AFTER_DOTDOT, parent)].into_iter().all(|(at, next, ino)| {
        let up = next == AFTER_DOTDOT;
        piece.offset > at
            || if piece.plus { out.add_plus_dot(ino, next, up) } else { out.add_dot(ino, next, up) }
    })
}

/// One entry; breaks when it does not fit.
fn add(
    mount: &Mount,
    out: &mut DirWriter<'_>,
    piece: Piece,
    entry: &DirEntry<'_>,
    kept: Kept,
) -> ControlFlow<()> {
    let Ok(name) = Name::parse(entry.name) else { return ControlFlow::Continue(()) };
    if !out.fits(entry.name.len(), piece.plus) {
        return ControlFlow::Break(());
    }
    let added = if piece.plus {
        out.add_plus(&entry_out(mount, entry, kept), entry.ino, entry.cookie, entry.kind, name)
    } else {
        out.add(entry.ino, entry.cookie, entry.kind, name)
    };
    assert!(added, "an entry that fits is added");
    ControlFlow::Continue(())
}

/// Attributes of an entry, counted as a lookup; without any when they are not known: the kernel asks when it wants them.
fn entry_out(mount: &Mount, listed: &DirEntry<'_>, kept: Kept) -> EntryOut {
    match &listed.attr {
        Some(attr) => entry(mount, attr, kept),
        None => EntryOut::default(),
    }
}
