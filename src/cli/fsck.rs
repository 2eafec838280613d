//! `ringfs fsck`: checks a store that no server has open.

use super::args::FsckArgs;
use super::fail::{Exit, Failure};
use super::own_server::{now, open_failure};
use super::print;
use crate::server::fsck::{self, Options, Report};
use crate::server::store::{Store, StoreOptions};
use serde_json::json;

/// Runs the command.
///
/// # Errors
/// The store could not be checked.
pub(super) fn run(args: &FsckArgs) -> Result<Exit, Failure> {
    let shown = args.store.display();
    // Opening a store makes a missing one; a check must not.
    if !args.store.join("format").exists() {
        return Err(Failure::new(format!(
            "{shown} is not a ringfs store; name the directory that is mounted or served"
        )));
    }
    let options = StoreOptions { accept_lost_commits: args.repair, ..StoreOptions::new(now(), (0, 0)) };
    let store = Store::open(&args.store, &options).map_err(open_failure)?;
    let what = Options { verify_data: args.data, repair: args.repair, ..Options::default() };
    let report = fsck::check(&store, what).map_err(|fault| Failure::new(format!("{shown}: {fault}")))?;
    let closed = store.close();
    if args.json {
        print::json(&json!({ "store": args.store, "clean": report.is_clean(), "report": report }))?;
    } else {
        print::text(&told(&shown.to_string(), &report))?;
    }
    closed.map_err(|fault| Failure::new(format!("{shown}: {fault}")))?;
    Ok(if report.is_clean() { Exit::Ok } else { Exit::Found })
}

fn told(store: &str, report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        text.push_str(&format!("{problem}\n"));
    }
    let untold = report.problems_total - report.problems.len() as u64;
    if untold > 0 {
        text.push_str(&format!("and {untold} more\n"));
    }
    let counts = &report.counts;
    text.push_str(&format!(
        "{store}: {} inodes ({} directories, {} orphans), {} names, {} in {} chunks, {} segments",
        counts.inodes,
        counts.directories,
        counts.orphans,
        counts.names,
        print::bytes(counts.bytes),
        counts.chunks,
        counts.segments,
    ));
    if counts.verified_bytes > 0 {
        text.push_str(&format!(", {} verified", print::bytes(counts.verified_bytes)));
    }
    text.push_str(&match (report.problems_total, report.repaired) {
        (0, _) => ": clean\n".to_owned(),
        (all, repaired) if all == repaired => format!(": {all} problems, all repaired\n"),
        (all, 0) => {
            format!(": {all} problems; `ringfs fsck --repair` mends counters, damaged files need a copy\n")
        }
        (all, repaired) => format!(": {all} problems, {repaired} repaired; damaged files need a copy\n"),
    });
    text
}
