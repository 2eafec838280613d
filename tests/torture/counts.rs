//! How many messages it takes: many changes travel in few frames, and nobody waits for one after the first touch.

use crate::fixture::{can_mount, ringfs};
use crate::stage::Stage;
use std::path::Path;
use std::process::Command;

/// `RINGFS_TREE`, or files of a tree that fits into a short run.
fn files() -> u64 {
    let text = std::env::var("RINGFS_TREE").ok();
    text.map_or(5000, |text| text.parse().unwrap_or_else(|_| panic!("RINGFS_TREE is not a number: {text}")))
}

/// Files in each folder of the tree.
const IN_FOLDER: u64 = 100;

/// Frames that go out apart from the work: pings, numbers, drops, the sync of a flush.
const BESIDES: u64 = 40;

/// What gathers waits so long for company at most, in milliseconds: on a slow machine there is a frame for each.
const AGE: u128 = 20;

/// What a piece of work took.
#[derive(Debug)]
struct Took {
    /// Changes, completed here or by the server.
    changes: u64,
    /// Frames to the server.
    frames: u64,
    /// Questions and changes that waited for it.
    asked: u64,
    /// Frames that may be: one for 50 changes.
    may: u64,
}

fn counts(mount: &Path) -> (u64, u64, u64) {
    let status = ringfs(&["status", "--json", mount.to_str().unwrap()]).ok().json();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let operations = status["client"]["operations"].as_object().unwrap();
    let asked =
        operations.iter().filter(|(name, _)| *name != "other").map(|(_, counts)| number(&counts["asked"]));
    (number(&status["client"]["log"]["accepted"]), number(&status["link"]["frames_sent"]), asked.sum())
}

/// What a piece of work takes on a mount, with all that it leaves to be sent.
fn took(mount: &Path, work: impl FnOnce()) -> Took {
    let (before, began) = (counts(mount), std::time::Instant::now());
    work();
    ringfs(&["flush", mount.to_str().unwrap()]).ok();
    let after = counts(mount);
    let (changes, frames, asked) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    let aged = u64::try_from(began.elapsed().as_millis() / AGE).unwrap();
    let took = Took { changes, frames, asked, may: changes / 50 + BESIDES + aged };
    eprintln!("{took:?}");
    took
}

fn shell(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(out.status.success(), "{script}: {out:?}");
}

#[test]
fn a_tree_that_is_unpacked_and_removed_takes_few_frames() {
    if !can_mount() {
        return;
    }
    let (files, stage) = (files(), Stage::new(&[]));
    let folders = files / IN_FOLDER;
    let (a, b) = (stage.mount("a"), stage.mount("b"));
    let source = stage.place.path().join("source");
    for folder in 0..folders {
        let folder = source.join(format!("tree/d{folder}"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..IN_FOLDER {
            std::fs::File::create(folder.join(format!("f{file}"))).unwrap();
        }
    }
    let tar = stage.place.at("tar");
    shell(&format!("tar -C {} -cf {tar} tree", source.display()));
    let unpack = |mount: &Path| shell(&format!("tar -C {} -xf {tar}", mount.display()));
    let remove = |mount: &Path| shell(&format!("rm -rf {}/tree", mount.display()));
    // The first touch.
    assert_eq!(std::fs::read_dir(&a).unwrap().count(), 0);
    let unpacked = took(&a, || unpack(&a));
    let removed = took(&a, || remove(&a));
    unpack(&a);
    // Nobody else has leases on it, and this mount knows nothing of it.
    stage.umount("a");
    let cold = took(&b, || remove(&b));
    let names = files + folders;
    assert!(unpacked.changes >= names && removed.changes > names && cold.changes > names);
    for warm in [&unpacked, &removed] {
        assert!(warm.asked == 0 && warm.frames <= warm.may, "{warm:?}");
    }
    // Each folder is asked for once.
    assert!(cold.frames <= cold.may + 2 * folders, "{cold:?}");
    assert!(!b.join("tree").exists());
    stage.end_and_check();
}
