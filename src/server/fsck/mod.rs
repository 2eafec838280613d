//! The check of a whole store: does everything in it agree with everything else?
//!
//! Comes in: an opened store that nobody else uses. Goes out: a [`Report`]. The metadata is read once by kind of key
//! ([`scan`]), then what was counted is compared with what is stored ([`compare`]); memory is about 100 bytes per inode
//! and chunk. With [`Options::repair`] counters are set to what was counted; nothing else is ever changed, least of all
//! removed, but the record of a chunk that nothing refers to.
//! Absent on purpose: rescuing. A damaged file is named, so that a copy can be brought back.

#![forbid(unsafe_code)]

mod compare;

mod paths;

mod scan;

use crate::server::store::{Fault, Store};
use serde::Serialize;

/// What to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Also read every byte of every chunk that is alive, and compare it with its checksum.
    pub verify_data: bool,
    /// Set wrong counters right.
    pub repair: bool,
    /// Problems described in the report; more are only counted.
    pub problems_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { verify_data: false, repair: false, problems_max: 1000 }
    }
}

/// What kind of damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A record does not decode, or belongs to nothing this version knows.
    Record,
    /// A name stands for an inode that does not exist.
    DanglingName,
    /// A name lies about the type of its inode, or is in something that is no directory.
    WrongName,
    /// A directory has several names, or its back-pointer points elsewhere.
    WrongParent,
    /// A directory cannot be reached from the root.
    Unreachable,
    /// An inode counts another number of names or subdirectories than there are.
    LinkCount,
    /// A directory counts another number of entries than there are.
    EntryCount,
    /// An inode without a name is not noted as an orphan, or one with a name is.
    Orphan,
    /// Something belongs to an inode that does not exist, or that cannot have it.
    Stray,
    /// Extents overlap, reach past their chunk, or cover another number of bytes than the inode says.
    Extent,
    /// An extent refers to a chunk that does not exist.
    MissingChunk,
    /// A chunk counts another number of references than there are.
    RefCount,
    /// A chunk lies in a segment that does not exist, or past its end.
    MissingSegment,
    /// A segment counts other live bytes than its chunks have.
    LiveCount,
    /// The volume counts other inodes or bytes than there are.
    UsageCount,
    /// A number was given out that is still marked as free.
    Mark,
    /// The bytes of a chunk do not match their checksum, or cannot be read.
    Data,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// The inode concerned.
    pub ino: Option<u64>,
    /// Its path, when it has one; bytes that are no UTF-8 are replaced, control characters escaped.
    pub path: Option<String>,
    /// What is wrong, with the numbers.
    pub text: String,
    /// Whether it was set right.
    pub repaired: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.path, self.ino) {
            (Some(path), _) => write!(f, "{path}: ")?,
            (None, Some(ino)) => write!(f, "inode {ino}: ")?,
            (None, None) => {}
        }
        write!(f, "{}{}", self.text, if self.repaired { " (repaired)" } else { "" })
    }
}

/// How much was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Inodes.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Names.
    pub names: u64,
    /// Inodes that live without a name because they were open.
    pub orphans: u64,
    /// Extents.
    pub extents: u64,
    /// Chunks.
    pub chunks: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes that files cover.
    pub bytes: u64,
    /// Bytes of chunks that were read and compared.
    pub verified_bytes: u64,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// What is wrong: the first [`Options::problems_max`] of it.
    pub problems: Vec<Problem>,
    /// All that is wrong.
    pub problems_total: u64,
    /// Of that, set right.
    pub repaired: u64,
    /// How much was looked at.
    pub counts: Counts,
}

impl Report {
    /// Nothing is wrong, or nothing any more.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems_total == self.repaired
    }
}

/// Notes problems, in order and bounded.
struct Notes {
    report: Report,
    problems_max: usize,
    /// Problems whose file is known only by a chunk: index in the report, and the chunk.
    of_chunks: Vec<(usize, u64)>,
}

impl Notes {
    fn note(&mut self, kind: Kind, ino: Option<u64>, text: String) {
        self.add(Problem { kind, ino, path: None, text, repaired: false });
    }

    fn repaired(&mut self, kind: Kind, ino: Option<u64>, text: String) {
        self.add(Problem { kind, ino, path: None, text, repaired: true });
    }

    fn of_chunk(&mut self, kind: Kind, chunk: u64, text: String) {
        if self.report.problems.len() < self.problems_max {
            self.of_chunks.push((self.report.problems.len(), chunk));
        }
        self.note(kind, None, text);
    }

    fn add(&mut self, problem: Problem) {
        self.report.problems_total += 1;
        self.report.repaired += u64::from(problem.repaired);
        if self.report.problems.len() < self.problems_max {
            self.report.problems.push(problem);
        }
    }
}

/// Checks a store that nobody else uses.
///
/// # Errors
/// The store cannot be read (or, repairing, written); damage is not an error but in the report.
pub fn check(store: &Store, options: Options) -> Result<Report, Fault> {
    let report = Report::default();
    let mut notes = Notes { report, problems_max: options.problems_max, of_chunks: Vec::new() };
    let mut tally = scan::scan(store, &mut notes)?;
    compare::compare(store, &mut tally, options.repair, &mut notes)?;
    if options.verify_data {
        scan::verify_data(store, &mut notes)?;
    }
    paths::name_files(store, &tally, &mut notes)?;
    if options.repair {
        store.persist()?;
    }
    Ok(notes.report)
}

#[cfg(test)]
mod tests;
