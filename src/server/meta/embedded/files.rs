//! The files of the embedded engine: fjall's journals, and the note beside them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// fjall begins a new journal when the newest one is longer than this.
pub const JOURNAL_BYTES: u64 = 64_000_000;

/// Bytes that the newest journal of the engine in `folder` may still take from the disk. All of them when it cannot be
/// looked at.
#[must_use]
pub fn journal_rest(folder: &Path) -> u64 {
    let db = folder.join("db");
    let newest = newest_journal(&db).ok().flatten();
    let taken = newest.and_then(|number| std::fs::metadata(db.join(format!("{number}.jnl"))).ok());
    JOURNAL_BYTES.saturating_sub(taken.map_or(0, |journal| journal.blocks() * 512))
}

/// Number of the journal that commits are written to.
pub(super) fn newest_journal(db: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(db)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        newest = newest.max(number);
    }
    Ok(newest)
}

const NOTE_BYTES: usize = 12;

/// The commit noted as persisted; 0 when there is none, or when the note itself was torn: it is a check, not a need.
pub(super) fn read_note(note: &File) -> io::Result<u64> {
    let mut bytes = [0; NOTE_BYTES];
    match note.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    let (number, crc) = bytes.split_at(8);
    if crc_fast::crc32_iscsi(number).to_le_bytes() != crc {
        return Ok(0);
    }
    Ok(u64::from_le_bytes(*number.first_chunk().expect("split at 8")))
}

/// Notes a commit as persisted, before which the journal was synced.
pub(super) fn write_note(note: &File, commit: u64) -> io::Result<()> {
    let mut bytes = [0; NOTE_BYTES];
    bytes[..8].copy_from_slice(&commit.to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_le_bytes());
    note.write_all_at(&bytes, 0)
}

/// Bytes the disk has given to the files in `folder`. A file that goes meanwhile counts nothing.
pub(super) fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => folder_bytes(&entry.path())?,
            Ok(found) => found.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}
