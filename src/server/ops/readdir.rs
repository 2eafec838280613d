//! Listing a directory, in pieces.

use super::{Try, directory};
use crate::base::limits::FRAME_BODY_BYTES_MAX;
use crate::base::{Attr, Errno, Ino, Kind};
use crate::server::meta::{StoreFault, View, dirents, inodes};
use crate::wire::answer::{self, DirEntry};
use std::ops::{ControlFlow, Range};

/// A piece of a directory. Names lie in one buffer, since there may be tens of thousands.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<Entry>,
    end: bool,
}

#[derive(Clone, PartialEq, Debug)]
struct Entry {
    ino: Ino,
    cookie: u64,
    kind: Kind,
    name: Range<usize>,
    attr: Option<Attr>,
}

impl Listing {
    /// The entries in order of their cookies.
    pub fn entries(&self) -> impl Iterator<Item = DirEntry<'_>> {
        self.entries.iter().map(|entry| DirEntry {
            ino: entry.ino,
            cookie: entry.cookie,
            kind: entry.kind,
            name: &self.names[entry.name.clone()],
            attr: entry.attr,
        })
    }

    /// Takes the attributes from the entries of these inodes.
    pub fn hide(&mut self, hidden: impl Fn(Ino) -> bool) {
        for entry in self.entries.iter_mut().filter(|entry| hidden(entry.ino)) {
            entry.attr = None;
        }
    }

    /// Whether nothing follows them.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.end
    }
}

/// Room that the head of the answer may take.
const HEAD_BYTES: usize = 64;

/// The names after `cookie`, as many as fit `bytes_max` of encoded answer.
///
/// # Errors
/// EINVAL when not even one fits; ENOTDIR, ESTALE.
pub fn list(view: &dyn View, ino: Ino, cookie: u64, bytes_max: u32, plus: bool) -> Try<Listing> {
    directory(view, ino)?;
    let budget = (bytes_max as usize).min(FRAME_BODY_BYTES_MAX).saturating_sub(HEAD_BYTES);
    let mut listing = Listing { end: true, ..Listing::default() };
    let mut used = 0;
    let mut fault: Option<StoreFault> = None;
    dirents::list(view, ino, cookie, &mut |found| {
        let name = found.name.bytes();
        used += answer::entry_bytes(name.len(), plus);
        if used > budget {
            listing.end = false;
            return ControlFlow::Break(());
        }
        let attr = match plus.then(|| inodes::get(view, found.ino)).transpose() {
            Ok(inode) => inode.flatten().map(|inode| inode.attr()),
            Err(why) => {
                fault = Some(why);
                return ControlFlow::Break(());
            }
        };
        let start = listing.names.len();
        listing.names.extend_from_slice(name);
        let name = start..listing.names.len();
        listing.entries.push(Entry { ino: found.ino, cookie: found.cookie, kind: found.kind, name, attr });
        ControlFlow::Continue(())
    })?;
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    if listing.entries.is_empty() && !listing.end {
        return Err(Errno::EINVAL.into());
    }
    Ok(listing)
}
