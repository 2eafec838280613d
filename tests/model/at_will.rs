//! Several mounts of one server, each with several threads, in shared folders, nobody in order: what must hold however they meet.
//!
//! Names come and go one by one, so they can be counted; a file holds one whole piece or nothing; and in the end every mount
//! shows the same, with link counts that are right.

use crate::fixture::can_mount;
use crate::random::{Random, pattern, seed, steps};
use crate::stage::Stage;
use rustix::fs::{AtFlags, CWD, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Threads on each mount.
const THREADS: u64 = 2;

/// Names of files and of folders that one thread made, less those that it removed.
#[derive(Clone, Copy, Default, Debug)]
struct Count {
    files: i64,
    folders: i64,
    done: u64,
}

/// What may be met when others work in the same place. Anything else is a defect.
fn met(call: &str, errno: Errno) -> bool {
    let may = [Errno::NOENT, Errno::EXIST, Errno::NOTEMPTY, Errno::STALE];
    assert!(may.contains(&errno), "{call}: {errno}");
    false
}

fn folder(random: &mut Random) -> String {
    format!("d{}", random.below(3))
}

fn file_name(random: &mut Random) -> String {
    format!("{}/n{}", folder(random), random.below(12))
}

/// The bytes of a piece.
fn piece(id: u64) -> Vec<u8> {
    let mut bytes = format!("{id:020}").into_bytes();
    bytes.extend(pattern(id, usize::try_from(id % 5000).unwrap()));
    bytes
}

/// A file holds nothing yet, or one whole piece.
fn is_whole(bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let id = bytes.get(..20).and_then(|id| std::str::from_utf8(id).ok()).and_then(|id| id.parse().ok());
    id.is_some_and(|id| bytes == piece(id))
}

fn work(mount: &Path, mut random: Random, thread: u64, steps: u64) -> Count {
    let mut count = Count::default();
    for step in 0..steps {
        let name = file_name(&mut random);
        let path = mount.join(&name);
        let done = match random.below(100) {
            0..28 => {
                let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
                match made {
                    Ok(mut file) => {
                        count.files += 1;
                        let bytes = piece(thread << 32 | step);
                        assert_eq!(file.write(&bytes).unwrap(), bytes.len());
                        true
                    }
                    Err(error) => met("create", Errno::from_io_error(&error).unwrap()),
                }
            }
            28..50 => match rustix::fs::unlink(&path) {
                Ok(()) => {
                    count.files -= 1;
                    true
                }
                Err(errno) => met("unlink", errno),
            },
            50..62 => {
                let flags = random.pick(&[RenameFlags::NOREPLACE, RenameFlags::EXCHANGE]);
                let to = mount.join(file_name(&mut random));
                let done = rustix::fs::renameat_with(CWD, &path, CWD, &to, flags);
                done.map_or_else(|errno| met("rename", errno), |()| true)
            }
            62..68 => {
                let to = mount.join(file_name(&mut random));
                match rustix::fs::linkat(CWD, &path, CWD, &to, AtFlags::empty()) {
                    Ok(()) => {
                        count.files += 1;
                        true
                    }
                    Err(errno) => met("link", errno),
                }
            }
            68..78 => {
                let path = mount.join(format!("{}/m{}", folder(&mut random), random.below(4)));
                let make = random.one_in(2);
                let done = if make {
                    rustix::fs::mkdir(&path, rustix::fs::Mode::from_raw_mode(0o755))
                } else {
                    rustix::fs::rmdir(&path)
                };
                match done {
                    Ok(()) => {
                        count.folders += if make { 1 } else { -1 };
                        true
                    }
                    Err(errno) => met("mkdir or rmdir", errno),
                }
            }
            78..90 => match fs::read(&path) {
                Ok(bytes) => {
                    assert!(is_whole(&bytes), "{}: {} bytes are no piece", path.display(), bytes.len());
                    true
                }
                Err(error) => met("read", Errno::from_io_error(&error).unwrap()),
            },
            90..95 => {
                let mut seen = BTreeSet::new();
                for entry in fs::read_dir(mount.join(folder(&mut random))).unwrap() {
                    let name = entry.unwrap().file_name();
                    assert!(seen.insert(name.clone()), "{name:?} is listed twice");
                }
                true
            }
            _ => match rustix::fs::stat(&path) {
                // It may have lost its name between the two halves of the call.
                Ok(stat) => {
                    assert!(stat.st_nlink <= 36, "{}: {} links", path.display(), stat.st_nlink);
                    true
                }
                Err(errno) => met("stat", errno),
            },
        };
        count.done += u64::from(done);
    }
    count
}

/// Every name with what it stands for; link counts are compared with the names.
fn all(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut links: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for top in 0..3 {
        let top = format!("d{top}");
        let mut below = 0;
        for entry in fs::read_dir(root.join(&top)).unwrap() {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            let (name, ino) = (format!("{top}/{}", entry.file_name().display()), stat.ino());
            let text = if stat.is_dir() {
                below += 1;
                assert_eq!(stat.nlink(), 2, "{name}");
                format!("folder {ino}")
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                assert!(is_whole(&bytes) && !bytes.is_empty(), "{name}: {} bytes", bytes.len());
                links.entry(ino).or_insert((stat.nlink(), 0)).1 += 1;
                format!("file {ino} of {} bytes, {}", stat.len(), String::from_utf8_lossy(&bytes[..20]))
            };
            assert!(seen.insert(name, text).is_none());
        }
        assert_eq!(fs::metadata(root.join(&top)).unwrap().nlink(), 2 + below, "{top}");
    }
    for (ino, (told, found)) in links {
        assert_eq!(told, found, "names of inode {ino}");
    }
    seen
}

fn at_will(names: &[&str], usual: u64) {
    if !can_mount() {
        return;
    }
    let (seed, steps) = (seed(), steps(usual));
    eprintln!("rerun with: RINGFS_SEED={seed} RINGFS_STEPS={steps}");
    let stage = Stage::lasting(600 + steps / 20, &[]);
    let mounts: Vec<PathBuf> = names.iter().map(|name| stage.mount(name)).collect();
    for top in 0..3 {
        fs::create_dir(mounts[0].join(format!("d{top}"))).unwrap();
    }
    let threads: Vec<_> = (0..THREADS * mounts.len() as u64)
        .zip(mounts.iter().cycle().cloned())
        .map(|(thread, mount)| {
            let random = Random::new(seed * 1000 + thread);
            std::thread::spawn(move || work(&mount, random, thread, steps))
        })
        .collect();
    let counts: Vec<Count> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let total = |of: fn(&Count) -> i64| counts.iter().map(of).sum::<i64>();
    eprintln!(
        "{} of {} steps found what they wanted",
        total(|c| c.done.cast_signed()),
        steps * counts.len() as u64
    );
    let first = all(&mounts[0]);
    for mount in &mounts[1..] {
        assert_eq!(first, all(mount), "{}", mount.display());
    }
    let found = |kind: &str| first.values().filter(|text| text.starts_with(kind)).count();
    assert_eq!(total(|count| count.files), i64::try_from(found("file")).unwrap(), "names of files");
    assert_eq!(total(|count| count.folders), i64::try_from(found("folder")).unwrap(), "folders");
    stage.end_and_check();
}

#[test]
fn two_mounts_at_will_agree_in_the_end_and_lose_no_name() {
    at_will(&["a", "b"], 1000);
}

#[test]
fn four_mounts_at_will_agree_in_the_end_and_lose_no_name() {
    at_will(&["a", "b", "c", "d"], 500);
}
