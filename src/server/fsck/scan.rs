//! Reads everything once, and counts.

use super::{Kind, Notes};
use crate::base::limits::CHUNK_BYTES_MAX;
use crate::base::{Ino, Kind as FileKind, SegmentId};
use crate::server::meta::chunk_table::{self, Chunk, Live};
use crate::server::meta::dirents::{self, Dirent};
use crate::server::meta::extents::{self, Extent};
use crate::server::meta::inodes::{self, flags};
use crate::server::meta::keys::{self, letter};
use crate::server::meta::{Inode, Order, StoreFault, View, sessions};
use crate::server::store::{Fault, Store};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// An inode: what its record says, and what was counted.
pub(super) struct Seen {
    pub(super) record: Inode,
    pub(super) names: u32,
    pub(super) subdirs: u32,
    pub(super) entries: u64,
    pub(super) covered_bytes: u64,
    pub(super) orphan: bool,
    pub(super) has_target: bool,
}

/// Everything that was counted.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) inodes: BTreeMap<u64, Seen>,
    /// References by extents.
    pub(super) refs: FxHashMap<u64, u32>,
    pub(super) chunks: BTreeMap<u64, Chunk>,
    pub(super) live: BTreeMap<SegmentId, Live>,
    pub(super) stored_live: BTreeMap<SegmentId, Live>,
}

const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

pub(super) fn scan(store: &Store, notes: &mut Notes) -> Result<Tally, Fault> {
    let view: &dyn View = store.engine();
    let mut tally = Tally::default();
    scan_inodes(view, &mut tally, notes)?;
    scan_names(store, &mut tally, notes)?;
    scan_belongings(view, &mut tally, notes)?;
    scan_extents(view, &mut tally, notes)?;
    scan_chunks(store, &mut tally, notes)?;
    sessions::each_mark(view, &mut |found| {
        let _counted = sound(found, notes);
        GO_ON
    })?;
    scan_gaps(view, notes)?;
    Ok(tally)
}

/// Notes a record that does not decode; what it belongs to will show as missing.
fn sound<T>(found: Result<T, StoreFault>, notes: &mut Notes) -> Option<T> {
    found.map_err(|fault| notes.note(Kind::Record, None, fault.to_string())).ok()
}

fn scan_inodes(view: &dyn View, tally: &mut Tally, notes: &mut Notes) -> Result<(), Fault> {
    inodes::each(view, Ino(0), &mut |found| {
        if let Some(record) = sound(found, notes) {
            notes.report.counts.inodes += 1;
            notes.report.counts.directories += u64::from(record.is_dir());
            let seen = Seen {
                record,
                names: 0,
                subdirs: 0,
                entries: 0,
                covered_bytes: 0,
                orphan: false,
                has_target: false,
            };
            tally.inodes.insert(record.ino.0, seen);
        }
        GO_ON
    })?;
    Ok(())
}

fn scan_names(store: &Store, tally: &mut Tally, notes: &mut Notes) -> Result<(), Fault> {
    dirents::each(store.engine(), store.names(), &mut |parent, found| {
        if let Some(entry) = sound(found, notes) {
            notes.report.counts.names += 1;
            count_name(parent, entry, tally, notes);
        }
    })?;
    Ok(())
}

fn count_name(parent: Ino, entry: Dirent<'_>, tally: &mut Tally, notes: &mut Notes) {
    let Dirent { name, ino, kind, .. } = entry;
    let is_directory = kind == FileKind::Directory;
    match tally.inodes.get_mut(&parent.0) {
        Some(dir) if dir.record.is_dir() => {
            dir.entries += 1;
            dir.subdirs += u32::from(is_directory);
        }
        _ => {
            let text = format!("name {name:?} of inode {ino} is in it, but it is no directory");
            notes.note(Kind::WrongName, Some(parent.0), text);
        }
    }
    let Some(target) = tally.inodes.get_mut(&ino.0) else {
        let text = format!("its name {name:?} stands for inode {ino}, which does not exist");
        notes.note(Kind::DanglingName, Some(parent.0), text);
        return;
    };
    target.names += 1;
    if target.record.kind() != kind {
        let text = format!("its name {name:?} says {kind:?}, it is a {:?}", target.record.kind());
        notes.note(Kind::WrongName, Some(ino.0), text);
    }
    if target.record.is_dir() && target.record.parent != parent {
        let text = format!("a directory in inode {parent} says that it is in inode {}", target.record.parent);
        notes.note(Kind::WrongParent, Some(ino.0), text);
    }
}

/// Extended attributes, targets of symbolic links, orphans.
fn scan_belongings(view: &dyn View, tally: &mut Tally, notes: &mut Notes) -> Result<(), Fault> {
    let all = |tag: u8| ([tag], keys::after(tag));
    let (from, end) = all(letter::XATTR);
    view.scan(&from, &end, Order::Forward, &mut |key, _| {
        let seen = keys::number(key).and_then(|ino| tally.inodes.get(&ino));
        match seen {
            Some(seen) if seen.record.flags & flags::HAS_XATTR != 0 => {}
            Some(seen) => {
                let text = "has extended attributes that its flags deny".to_owned();
                notes.note(Kind::Stray, Some(seen.record.ino.0), text);
            }
            None => stray(key, "an extended attribute", notes),
        }
        GO_ON
    })?;
    let (from, end) = all(letter::SYMLINK);
    view.scan(&from, &end, Order::Forward, &mut |key, target| {
        let seen = keys::number(key).and_then(|ino| tally.inodes.get_mut(&ino));
        match seen.filter(|seen| seen.record.kind() == FileKind::Symlink) {
            Some(seen) if seen.record.size == target.len() as u64 => seen.has_target = true,
            _ => stray(key, "a target of a symbolic link", notes),
        }
        GO_ON
    })?;
    sessions::each_orphan(view, &mut |ino| {
        notes.report.counts.orphans += 1;
        match tally.inodes.get_mut(&ino.0) {
            Some(seen) => seen.orphan = true,
            None => stray(&keys::orphan(ino), "the note of an orphan", notes),
        }
        GO_ON
    })?;
    Ok(())
}

fn stray(key: &[u8], what: &str, notes: &mut Notes) {
    let text = format!("{what} belongs to no inode that can have it (key {})", key.escape_ascii());
    notes.note(Kind::Stray, keys::number(key), text);
}

fn scan_extents(view: &dyn View, tally: &mut Tally, notes: &mut Notes) -> Result<(), Fault> {
    let mut last: Option<(Ino, Extent)> = None;
    extents::each_of_all(view, &mut |found| {
        let Some((ino, extent)) = sound(found, notes) else { return GO_ON };
        notes.report.counts.extents += 1;
        *tally.refs.entry(extent.chunk.0).or_default() += 1;
        match tally.inodes.get_mut(&ino.0) {
            Some(seen) if seen.record.kind() == FileKind::File => seen.covered_bytes += extent.len,
            _ => stray(&keys::extent(ino, extent.start), "an extent", notes),
        }
        if let Some((_, before)) = last.filter(|(of, before)| *of == ino && before.end() > extent.start) {
            let text = format!("two extents cover byte {}: {before:?} and {extent:?}", extent.start);
            notes.note(Kind::Extent, Some(ino.0), text);
        }
        check_chunk_of(view, ino, &extent, notes);
        last = Some((ino, extent));
        GO_ON
    })?;
    Ok(())
}

fn check_chunk_of(view: &dyn View, ino: Ino, extent: &Extent, notes: &mut Notes) {
    let Extent { start, len, chunk, offset } = *extent;
    let end = u64::from(offset) + len;
    match chunk_table::get(view, chunk) {
        Ok(Some(found)) if end <= u64::from(found.place.len) => {}
        Ok(Some(found)) => {
            let has = found.place.len;
            let text = format!("bytes from {start} on are {offset}..{end} of chunk {chunk}, which has {has}");
            notes.note(Kind::Extent, Some(ino.0), text);
        }
        Ok(None) => {
            let text = format!("bytes {start}..{} are in chunk {chunk}, which does not exist", extent.end());
            notes.note(Kind::MissingChunk, Some(ino.0), text);
        }
        // Noted by the scan of chunks.
        Err(_) => {}
    }
}

fn scan_chunks(store: &Store, tally: &mut Tally, notes: &mut Notes) -> Result<(), Fault> {
    let mut segments = BTreeMap::new();
    for segment in store.chunks().segments()? {
        notes.report.counts.segments += 1;
        segments.insert(segment.id, segment.bytes);
    }
    chunk_table::each(store.engine(), &mut |found| {
        let Some((id, chunk)) = sound(found, notes) else { return GO_ON };
        notes.report.counts.chunks += 1;
        tally.chunks.insert(id.0, chunk);
        let place = chunk.place;
        let live = tally.live.entry(place.segment).or_default();
        live.bytes += place.record_bytes();
        live.chunks += 1;
        let end = u64::from(place.position) + place.record_bytes();
        if segments.get(&place.segment).is_none_or(|&bytes| bytes < end) {
            let text = format!("chunk {id} should end at byte {end} of segment {}", place.segment);
            let why = if segments.contains_key(&place.segment) { "is shorter" } else { "does not exist" };
            notes.of_chunk(Kind::MissingSegment, id.0, format!("{text}, which {why}"));
        }
        GO_ON
    })?;
    chunk_table::each_live(store.engine(), &mut |found| {
        tally.stored_live.extend(sound(found, notes));
        GO_ON
    })?;
    Ok(())
}

/// Keys that begin with no known letter.
fn scan_gaps(view: &dyn View, notes: &mut Notes) -> Result<(), Fault> {
    const KNOWN: [u8; 15] = *b"CDEGILMNOQRSUWX";
    const _: () = {
        let mut at = 1;
        while at < KNOWN.len() {
            assert!(KNOWN[at - 1] < KNOWN[at]);
            at += 1;
        }
    };
    let mut from = vec![];
    for end in KNOWN.iter().map(|&tag| vec![tag]).chain([vec![0xff; 64]]) {
        view.scan(&from, &end, Order::Forward, &mut |key, _| {
            let text = format!("unknown key {}", key.escape_ascii());
            notes.note(Kind::Record, None, text);
            GO_ON
        })?;
        from = vec![end[0].saturating_add(1)];
    }
    Ok(())
}

/// Reads all chunks; their checksums are compared on the way.
pub(super) fn verify_data(store: &Store, notes: &mut Notes) -> Result<(), Fault> {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    chunk_table::each(store.engine(), &mut |found| {
        let Ok((id, chunk)) = found else { return GO_ON };
        let Some(out) = buffer.get_mut(..chunk.place.len as usize) else {
            notes.of_chunk(Kind::Data, id.0, format!("chunk {id} is larger than a chunk can be"));
            return GO_ON;
        };
        notes.report.counts.verified_bytes += out.len() as u64;
        if let Err(fault) = store.chunks().read(id, chunk.place, 0, out) {
            notes.of_chunk(Kind::Data, id.0, fault.to_string());
        }
        GO_ON
    })?;
    Ok(())
}
