//! Compares what is stored with what was counted, and sets counters right when asked.

use super::scan::{Seen, Tally};
use super::{Kind, Notes};
use crate::base::{ChunkId, Ino, Kind as FileKind, SegmentId};
use crate::server::meta::chunk_table::{self, Chunk, Live};
use crate::server::meta::counters::{self, Usage};
use crate::server::meta::{Inode, Txn, WriteTxn, inodes, keys, sessions};
use crate::server::store::{Fault, Store};
use std::collections::BTreeSet;

/// Most records set right in one transaction.
const REPAIRS_PER_COMMIT: usize = 4096;

/// Where repairs go, when they are wanted.
struct Repair<'s> {
    store: &'s Store,
    /// `None`: only look.
    txn: Option<WriteTxn<'s>>,
}

impl Repair<'_> {
    /// Notes a wrong counter, and sets it right with `mend` when that is wanted.
    fn counter(
        &mut self,
        notes: &mut Notes,
        (kind, ino, text): (Kind, Option<u64>, String),
        mend: impl FnOnce(&mut dyn Txn),
    ) -> Result<(), Fault> {
        let Some(txn) = &mut self.txn else {
            notes.note(kind, ino, text);
            return Ok(());
        };
        mend(txn);
        notes.repaired(kind, ino, text);
        if txn.changes().len() >= REPAIRS_PER_COMMIT {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        if let Some(txn) = self.txn.take() {
            txn.commit()?;
            self.txn = Some(self.store.begin());
        }
        Ok(())
    }
}

pub(super) fn compare(
    store: &Store,
    tally: &mut Tally,
    repair: bool,
    notes: &mut Notes,
) -> Result<(), Fault> {
    let mut repair = Repair { store, txn: repair.then(|| store.begin()) };
    for seen in tally.inodes.values() {
        compare_inode(seen, &mut repair, notes)?;
    }
    if !tally.inodes.contains_key(&Ino::ROOT.0) {
        notes.note(Kind::Unreachable, Some(Ino::ROOT.0), "the root directory is missing".to_owned());
    }
    find_unreachable(tally, notes);
    compare_chunks(tally, &mut repair, notes)?;
    compare_live(tally, &mut repair, notes)?;
    compare_usage(tally, &mut repair, notes)?;
    compare_marks(tally, &mut repair, notes)?;
    repair.commit()
}

fn compare_inode(seen: &Seen, repair: &mut Repair<'_>, notes: &mut Notes) -> Result<(), Fault> {
    let record = &seen.record;
    let ino = record.ino.0;
    let mut right = *record;
    if record.is_dir() {
        compare_directory(seen, &mut right, notes);
    } else {
        right.nlink = seen.names;
    }
    if right.nlink != record.nlink {
        let text = format!("counts {} links, there are {}", record.nlink, right.nlink);
        repair.counter(notes, (Kind::LinkCount, Some(ino), text), |txn| inodes::put(txn, &right))?;
    }
    if seen.entries != record.entries {
        right.entries = seen.entries;
        let text = format!("counts {} entries, there are {}", record.entries, seen.entries);
        repair.counter(notes, (Kind::EntryCount, Some(ino), text), |txn| inodes::put(txn, &right))?;
    }
    if seen.covered_bytes != record.data_bytes {
        right.data_bytes = seen.covered_bytes;
        let text = format!("counts {} bytes, extents cover {}", record.data_bytes, seen.covered_bytes);
        repair.counter(notes, (Kind::Extent, Some(ino), text), |txn| inodes::put(txn, &right))?;
    }
    if record.kind() == FileKind::Symlink && !seen.has_target {
        notes.note(Kind::Stray, Some(ino), "a symbolic link without its target".to_owned());
    }
    compare_orphan(seen, &right, repair, notes)
}

/// Names and back-pointer of a directory: its link count follows from them.
fn compare_directory(seen: &Seen, right: &mut Inode, notes: &mut Notes) {
    let record = &seen.record;
    let is_root = record.ino == Ino::ROOT;
    let names = if is_root { 0 } else { 1 };
    if seen.names > names {
        let text = format!("a directory with {} names", seen.names);
        notes.note(Kind::WrongParent, Some(record.ino.0), text);
    }
    if is_root && record.parent != Ino::ROOT {
        let text = format!("the root says that it is in inode {}", record.parent);
        notes.note(Kind::WrongParent, Some(record.ino.0), text);
    }
    // A removed directory that somebody holds counts 0; its note as an orphan says that this is right.
    let removed = seen.names == 0 && !is_root && (seen.orphan || record.nlink == 0);
    if removed && seen.entries > 0 {
        let text = format!("a removed directory that still holds {} names", seen.entries);
        notes.note(Kind::Orphan, Some(record.ino.0), text);
    }
    right.nlink = if removed { 0 } else { 2 + seen.subdirs };
}

fn compare_orphan(
    seen: &Seen,
    right: &Inode,
    repair: &mut Repair<'_>,
    notes: &mut Notes,
) -> Result<(), Fault> {
    let ino = seen.record.ino;
    let nameless = right.nlink == 0;
    if nameless && !seen.orphan {
        let text = "has no name and is not noted as an orphan: nothing would ever remove it".to_owned();
        repair.counter(notes, (Kind::Orphan, Some(ino.0), text), |txn| sessions::put_orphan(txn, ino))?;
    }
    if !nameless && seen.orphan {
        let text = "has a name and is noted as an orphan".to_owned();
        repair.counter(notes, (Kind::Orphan, Some(ino.0), text), |txn| sessions::delete_orphan(txn, ino))?;
    }
    Ok(())
}

/// Directories whose parents lead to a circle or to nothing instead of the root.
fn find_unreachable(tally: &Tally, notes: &mut Notes) {
    let mut reached = BTreeSet::from([Ino::ROOT.0]);
    for (&ino, seen) in tally.inodes.iter().filter(|(_, seen)| seen.record.is_dir() && !seen.orphan) {
        let mut trail = BTreeSet::new();
        let mut at = ino;
        let mut lost = seen.names == 0 && ino != Ino::ROOT.0;
        while !lost && !reached.contains(&at) {
            let parent = tally.inodes.get(&at).map(|seen| seen.record.parent.0);
            lost = !trail.insert(at) || parent.is_none();
            at = parent.unwrap_or(at);
        }
        if lost {
            notes.note(Kind::Unreachable, Some(ino), "the root does not lead to this directory".to_owned());
        } else {
            reached.extend(trail);
        }
    }
}

fn compare_chunks(tally: &mut Tally, repair: &mut Repair<'_>, notes: &mut Notes) -> Result<(), Fault> {
    let mut garbage = Vec::new();
    for (&id, chunk) in &tally.chunks {
        let refs = tally.refs.get(&id).copied().unwrap_or(0);
        if refs == chunk.refs && refs > 0 {
            continue;
        }
        let text = format!("chunk {id} counts {} references, there are {refs}", chunk.refs);
        if refs == 0 {
            garbage.push((id, *chunk));
        }
        repair.counter(notes, (Kind::RefCount, None, text), |txn| set_refs(txn, id, *chunk, refs))?;
    }
    if repair.txn.is_some() {
        for (id, Chunk { place, .. }) in garbage {
            tally.chunks.remove(&id);
            let live = tally.live.get_mut(&place.segment).expect("counted with the chunk");
            live.bytes -= place.record_bytes();
            live.chunks -= 1;
        }
    }
    Ok(())
}

/// Also takes the record of a chunk away that nothing refers to; the live bytes are compared afterwards.
fn set_refs(txn: &mut dyn Txn, id: u64, chunk: Chunk, refs: u32) {
    if refs == 0 {
        txn.delete(&keys::chunk(ChunkId(id)));
    } else {
        chunk_table::put(txn, ChunkId(id), Chunk { refs, ..chunk });
    }
}

fn compare_live(tally: &Tally, repair: &mut Repair<'_>, notes: &mut Notes) -> Result<(), Fault> {
    let segments: BTreeSet<SegmentId> = tally.live.keys().chain(tally.stored_live.keys()).copied().collect();
    for segment in segments {
        let get = |from: &std::collections::BTreeMap<SegmentId, Live>| from.get(&segment).copied();
        let counted = get(&tally.live).unwrap_or_default();
        let stored = get(&tally.stored_live).unwrap_or_default();
        if counted != stored {
            let text = format!(
                "segment {segment} counts {} live bytes in {} chunks, there are {} in {}",
                stored.bytes, stored.chunks, counted.bytes, counted.chunks
            );
            let mend = |txn: &mut dyn Txn| chunk_table::put_live(txn, segment, counted);
            repair.counter(notes, (Kind::LiveCount, None, text), mend)?;
        }
    }
    Ok(())
}

fn compare_usage(tally: &Tally, repair: &mut Repair<'_>, notes: &mut Notes) -> Result<(), Fault> {
    let bytes = tally.inodes.values().map(|seen| seen.covered_bytes).sum();
    let counted = Usage { inodes: tally.inodes.len() as u64, bytes };
    notes.report.counts.bytes = bytes;
    let stored = counters::usage(repair.store.engine());
    let text = match stored {
        Ok(stored) if stored == counted => return Ok(()),
        Ok(Usage { inodes, bytes }) => format!(
            "the volume counts {inodes} inodes and {bytes} bytes, there are {} and {}",
            counted.inodes, counted.bytes
        ),
        Err(fault) => fault.to_string(),
    };
    repair.counter(notes, (Kind::UsageCount, None, text), |txn| counters::put_usage(txn, counted))
}

fn compare_marks(tally: &Tally, repair: &mut Repair<'_>, notes: &mut Notes) -> Result<(), Fault> {
    let engine = repair.store.engine();
    let last_ino = tally.inodes.last_key_value().map_or(0, |(&ino, _)| ino);
    match counters::next_ino(engine) {
        Ok(next) if next.0 > last_ino => {}
        Ok(next) => {
            let text = format!("inode {last_ino} exists, but {next} is the next one to be given out");
            let mend = |txn: &mut dyn Txn| counters::put_next_ino(txn, Ino(last_ino + 1));
            repair.counter(notes, (Kind::Mark, None, text), mend)?;
        }
        Err(fault) => notes.note(Kind::Record, None, fault.to_string()),
    }
    let last_chunk = tally.chunks.last_key_value().map_or(0, |(&id, _)| id);
    match counters::next_chunk(engine) {
        Ok(next) if next.0 > last_chunk => {}
        Ok(next) => {
            let text = format!("chunk {last_chunk} exists, but {next} is the next one to be given out");
            let mend = |txn: &mut dyn Txn| counters::put_next_chunk(txn, ChunkId(last_chunk + 1));
            repair.counter(notes, (Kind::Mark, None, text), mend)?;
        }
        Err(fault) => notes.note(Kind::Record, None, fault.to_string()),
    }
    Ok(())
}
