//! Finds out which file a problem is about, and its path.

use super::Notes;
use super::scan::Tally;
use crate::base::Ino;
use crate::server::meta::{dirents, extents};
use crate::server::store::{Fault, Store};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::ControlFlow;

/// Names one file of each chunk that has a problem, and gives every inode that has one its path.
pub(super) fn name_files(store: &Store, tally: &Tally, notes: &mut Notes) -> Result<(), Fault> {
    if notes.report.problems.is_empty() {
        return Ok(());
    }
    find_files_of_chunks(store, notes)?;
    let mut needed = FxHashSet::default();
    for ino in notes.report.problems.iter().filter_map(|problem| problem.ino) {
        let mut at = ino;
        while needed.insert(at)
            && let Some(seen) = tally.inodes.get(&at)
        {
            at = seen.record.parent.0;
        }
    }
    let mut names: FxHashMap<u64, (Ino, Vec<u8>)> = FxHashMap::default();
    let mut ancestors = Vec::new();
    loop {
        dirents::each(store.engine(), store.names(), &mut |parent, found| {
            let Ok(entry) = found else { return };
            // Of several names the one where the back-pointer says.
            let points_here = || {
                tally.inodes.get(&entry.ino.0).is_some_and(|seen| seen.record.parent == parent)
                    && names.get(&entry.ino.0).is_some_and(|(other, _)| *other != parent)
            };
            if needed.contains(&entry.ino.0) && (!names.contains_key(&entry.ino.0) || points_here()) {
                names.insert(entry.ino.0, (parent, entry.name.bytes().to_vec()));
                ancestors.push(parent.0);
            }
        })?;
        // A hard link may be found in another directory than its back-pointer says: whose name is then needed, too.
        let known = needed.len();
        for parent in ancestors.drain(..) {
            let mut at = parent;
            while needed.insert(at)
                && let Some(seen) = tally.inodes.get(&at)
            {
                at = seen.record.parent.0;
            }
        }
        if needed.len() == known {
            break;
        }
    }
    for problem in &mut notes.report.problems {
        problem.path = problem.ino.and_then(|ino| path_of(&names, ino));
    }
    Ok(())
}

fn find_files_of_chunks(store: &Store, notes: &mut Notes) -> Result<(), Fault> {
    if notes.of_chunks.is_empty() {
        return Ok(());
    }
    let mut files: FxHashMap<u64, Option<u64>> =
        notes.of_chunks.iter().map(|&(_, chunk)| (chunk, None)).collect();
    extents::each_of_all(store.engine(), &mut |found| {
        if let Ok((ino, extent)) = found
            && let Some(file) = files.get_mut(&extent.chunk.0)
        {
            file.get_or_insert(ino.0);
        }
        ControlFlow::Continue(())
    })?;
    for &(at, chunk) in &notes.of_chunks {
        notes.report.problems[at].ino = files[&chunk];
    }
    Ok(())
}

/// The path of an inode, or `None` when its names do not lead to the root.
fn path_of(names: &FxHashMap<u64, (Ino, Vec<u8>)>, ino: u64) -> Option<String> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT.0 {
        let (parent, name) = names.get(&at)?;
        parts.push(name);
        at = parent.0;
        if parts.len() > names.len() {
            return None;
        }
    }
    let path: Vec<u8> = parts.iter().rev().flat_map(|part| [b"/", *part].concat()).collect();
    if path.is_empty() {
        return Some("/".to_owned());
    }
    // A report has one line per problem, whatever a name holds.
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Some(String::from_utf8_lossy(&path).chars().map(escape).collect())
}
