//! The same script on a mount and on a folder.

use crate::fixture::{Place, can_mount};
use crate::random::{seed, steps};
use crate::script::{Abilities, Script, Step};
use crate::stage::{Guard, Stage};
use crate::world::{Gave, World};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Steps between two looks at everything.
const TREE_EVERY: u64 = 100;

/// Steps shown before one that differs.
const SHOWN: usize = 40;

/// What the folder's file system can do.
fn abilities(folder: &Path) -> Abilities {
    let dir = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let file = rustix::fs::openat(&dir, "probe", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).unwrap();
    let zero_range = rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 0, 10).is_ok();
    let mut least = 2_u32.to_le_bytes().to_vec();
    for tag in [1_u16, 4, 0x20] {
        least.extend_from_slice(&tag.to_le_bytes());
        least.extend_from_slice(&[6, 0, 255, 255, 255, 255]);
    }
    let acl = rustix::fs::fsetxattr(&file, "system.posix_acl_access", &least, XattrFlags::empty()).is_ok();
    let whiteout = rustix::fs::renameat_with(&dir, "probe", &dir, "probe2", RenameFlags::WHITEOUT).is_ok();
    for name in ["probe", "probe2"] {
        // One of them may not be there.
        let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
    }
    Abilities { acl, zero_range, whiteout }
}

/// The last steps, for the one who looks for the cause.
#[derive(Default)]
struct Trail(VecDeque<String>);

impl Trail {
    fn add(&mut self, number: u64, step: &Step, gave: &Gave) {
        if self.0.len() == SHOWN {
            self.0.pop_front();
        }
        let mut line = format!("{number}: {step:?} -> {gave:?}");
        line.truncate(line.floor_char_boundary(300));
        self.0.push_back(line);
    }
}

/// Runs a script on the reference and on each volume, which is seen through one or several mounts, and compares.
fn compare(test: &str, reference: &Path, volumes: &[&[&Path]], steps: u64) {
    let seed = seed();
    let abilities = abilities(reference);
    let again = format!("RINGFS_SEED={seed} RINGFS_STEPS={steps} cargo test --test model {test}");
    eprintln!("rerun with: {again}  ({abilities:?})");
    let sides = volumes.iter().map(|volume| volume.len()).max().unwrap();
    let mut script = Script::new(seed, sides, abilities);
    let mut right = World::new(&[reference]);
    let mut tried: Vec<World> = volumes.iter().map(|sides| World::new(sides)).collect();
    let mut trail = Trail::default();
    for number in 0..steps {
        let step = script.step();
        let wanted = right.run(&step);
        trail.add(number, &step, &wanted);
        let fail = |what: String| {
            let mut text = String::new();
            trail.0.iter().for_each(|line| writeln!(text, "{line}").unwrap());
            panic!("{text}step {number} {step:?}\n{what}\nrerun with: {again}");
        };
        for (nth, volume) in tried.iter_mut().enumerate() {
            let gave = volume.run(&step);
            if wanted != gave {
                fail(format!("volume {nth}: wanted {wanted:?}\n  gave {gave:?}"));
            }
        }
        if number % TREE_EVERY == TREE_EVERY - 1 || number + 1 == steps {
            let wanted = right.tree(0);
            for (nth, volume) in tried.iter().enumerate() {
                for side in 0..volumes[nth].len() {
                    let gave = volume.tree(side);
                    if wanted != gave {
                        let differ = difference(&wanted, &gave);
                        fail(format!("volume {nth} side {side}: the trees differ\n{differ}"));
                    }
                }
            }
        }
    }
    right.close();
    tried.iter_mut().for_each(World::close);
}

/// Seconds that so many steps may take before their mounts are cut.
fn patience(steps: u64) -> u64 {
    600 + steps / 50
}

fn difference(wanted: &str, gave: &str) -> String {
    let mut out = String::new();
    for line in wanted.lines().filter(|line| !gave.lines().any(|other| other == *line)) {
        writeln!(out, "wanted {line}").unwrap();
    }
    for line in gave.lines().filter(|line| !wanted.lines().any(|other| other == *line)) {
        writeln!(out, "  gave {line}").unwrap();
    }
    out
}

fn one_mount(test: &str, transport: &str, usual: u64) {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let _guard = Guard::new(place.path(), patience(steps(usual)));
    let mounted = place.mount(&["--transport", transport]);
    if mounted.code != 0 && mounted.err.contains("cannot be used") {
        eprintln!("skipped: {}", mounted.err);
        return;
    }
    mounted.ok();
    let reference = place.path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    compare(test, &reference, &[&[Path::new(&place.mnt())]], steps(usual));
    place.end_and_check();
}

#[test]
fn a_mount_over_uring_does_what_a_folder_does() {
    one_mount("a_mount_over_uring_does_what_a_folder_does", "uring", 3000);
}

#[test]
fn a_mount_over_ring_does_what_a_folder_does() {
    one_mount("a_mount_over_ring_does_what_a_folder_does", "ring", 2000);
}

#[test]
fn a_mount_over_blocking_does_what_a_folder_does() {
    one_mount("a_mount_over_blocking_does_what_a_folder_does", "blocking", 2000);
}

/// One volume with local completion and its twin without, whose every change waits for the disk.
#[test]
fn local_completion_and_its_synchronous_twin_do_what_a_folder_does() {
    if !can_mount() {
        return;
    }
    let test = "local_completion_and_its_synchronous_twin_do_what_a_folder_does";
    let usual = 2000;
    let places = [Place::new(), Place::new()];
    let _guards = [&places[0], &places[1]].map(|place| Guard::new(place.path(), patience(steps(usual))));
    places[0].mount(&[]).ok();
    places[1].mount(&["--sync"]).ok();
    let reference = places[0].path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    let mounts = [places[0].mnt(), places[1].mnt()];
    let volumes = [[Path::new(&mounts[0])], [Path::new(&mounts[1])]];
    compare(test, &reference, &[&volumes[0], &volumes[1]], steps(usual));
    places.iter().for_each(Place::end_and_check);
}

/// So many mounts of one server, by turns.
fn mounts_of_one_server(test: &str, names: &[&str], usual: u64) {
    if !can_mount() {
        return;
    }
    let stage = Stage::lasting(patience(steps(usual)), &[]);
    let mounts: Vec<_> = names.iter().map(|name| stage.mount(name)).collect();
    let sides: Vec<&Path> = mounts.iter().map(PathBuf::as_path).collect();
    let reference = stage.place.path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    compare(test, &reference, &[&sides], steps(usual));
    stage.end_and_check();
}

#[test]
fn two_mounts_of_one_server_together_do_what_a_folder_does() {
    mounts_of_one_server("two_mounts_of_one_server_together_do_what_a_folder_does", &["a", "b"], 3000);
}

#[test]
fn four_mounts_of_one_server_together_do_what_a_folder_does() {
    let names = ["a", "b", "c", "d"];
    mounts_of_one_server("four_mounts_of_one_server_together_do_what_a_folder_does", &names, 2000);
}
