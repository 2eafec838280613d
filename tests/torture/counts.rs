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

/// Frames that go out apart from the work: pings, numbers, the sync of a flush, the first touch.
const BESIDES: u64 = 40;

fn sent(mount: &Path) -> u64 {
    let status = ringfs(&["status", "--json", mount.to_str().unwrap()]).ok().json();
    status["link"]["frames_sent"].as_u64().unwrap()
}

/// Frames that a piece of work takes on a mount, with all that it leaves to be sent.
fn frames(mount: &Path, work: impl FnOnce()) -> u64 {
    let before = sent(mount);
    work();
    ringfs(&["flush", mount.to_str().unwrap()]).ok();
    sent(mount) - before
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
    // tar makes each name, and sets its times.
    let changes = files + folders;
    let unpack = |mount: &Path| shell(&format!("tar -C {} -xf {tar}", mount.display()));
    let remove = |mount: &Path| shell(&format!("rm -rf {}/tree", mount.display()));
    std::fs::read_dir(&a).unwrap().count();
    let unpacked = frames(&a, || unpack(&a));
    let removed = frames(&a, || remove(&a));
    unpack(&a);
    let cold = frames(&b, || remove(&b));
    eprintln!("{changes} names: unpacked with {unpacked} frames, removed with {removed}, cold with {cold}");
    assert!(unpacked <= changes / 50 + BESIDES, "{unpacked} frames for {changes} names unpacked");
    assert!(removed <= changes / 50 + BESIDES, "{removed} frames for {changes} names removed");
    assert!(cold <= changes / 50 + folders + BESIDES, "{cold} frames for {changes} names removed cold");
    assert!(!a.join("tree").exists() && !b.join("tree").exists());
    stage.end_and_check();
}
