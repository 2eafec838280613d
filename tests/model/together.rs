//! Two mounts of one server at the same time: one winner, nothing lost, locks that exclude each other.

use crate::fixture::{can_mount, eventually};
use crate::random::steps;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};

fn two() -> Option<(Stage, PathBuf, PathBuf)> {
    if !can_mount() {
        return None;
    }
    let stage = Stage::new(&[]);
    let (a, b) = (stage.mount("a"), stage.mount("b"));
    Some((stage, a, b))
}

#[test]
fn of_two_mounts_that_create_a_name_exclusively_one_wins_each_time() {
    let Some((stage, a, b)) = two() else { return };
    let races = steps(10_000);
    let start = Arc::new(Barrier::new(2));
    let racers = [a.clone(), b].map(|mount| {
        let start = Arc::clone(&start);
        std::thread::spawn(move || {
            let mut won = Vec::new();
            for race in 0..races {
                // A name per race, in few folders' worth of entries: taken away again by the winner.
                let path = mount.join(format!("n{}", race % 100));
                start.wait();
                match File::create_new(&path) {
                    Ok(_) => won.push(race),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
                }
                start.wait();
                if won.last() == Some(&race) {
                    fs::remove_file(&path).unwrap();
                }
            }
            won
        })
    });
    let mut won = racers.map(|racer| racer.join().unwrap());
    eprintln!("won by each: {} and {}", won[0].len(), won[1].len());
    let mut all = won[0].clone();
    all.append(&mut won[1]);
    all.sort_unstable();
    assert!(all.into_iter().eq(0..races), "one winner in each race");
    assert_eq!(fs::read_dir(&a).unwrap().count(), 0);
    stage.end_and_check();
}

#[test]
fn appends_of_two_mounts_lose_nothing_and_keep_their_order() {
    let Some((stage, a, b)) = two() else { return };
    let appends = steps(2000);
    fs::write(a.join("log"), b"").unwrap();
    let writers = [a.clone(), b].map(|mount| {
        std::thread::spawn(move || {
            let mut log = OpenOptions::new().append(true).open(mount.join("log")).unwrap();
            for n in 0..appends {
                let line = format!("{:>30} {n}\n", mount.file_name().unwrap().to_str().unwrap());
                assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
            }
        })
    });
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let log = fs::read_to_string(a.join("log")).unwrap();
    for name in ["a", "b"] {
        let numbers =
            log.lines().filter_map(|line| line.trim().strip_prefix(name)?.trim().parse::<u64>().ok());
        assert!(numbers.eq(0..appends), "the appends of {name}");
    }
    assert_eq!(log.lines().count() as u64, 2 * appends);
    stage.end_and_check();
}

fn record(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn locks_of_each_kind_exclude_the_other_mount() {
    let Some((stage, a, b)) = two() else { return };
    let (mine, theirs) = (open(&a.join("f")), open(&b.join("f")));
    let set =
        |file: &File, kind, start, len| fcntl(file, FcntlArg::F_SETLK(&record(kind, start, len))).map(drop);
    set(&mine, libc::F_WRLCK, 0, 10).unwrap();
    assert_eq!(set(&theirs, libc::F_RDLCK, 9, 1), Err(Errno::EAGAIN));
    set(&theirs, libc::F_WRLCK, 10, 1).unwrap();
    let mut found = record(libc::F_WRLCK, 0, 0);
    fcntl(&theirs, FcntlArg::F_GETLK(&mut found)).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_start, found.l_len), (libc::F_WRLCK, 0, 10));
    set(&mine, libc::F_RDLCK, 0, 10).unwrap();
    set(&theirs, libc::F_RDLCK, 0, 5).unwrap();
    assert_eq!(set(&theirs, libc::F_WRLCK, 0, 5), Err(Errno::EAGAIN));

    let ofd = |file: &File, kind| fcntl(file, FcntlArg::F_OFD_SETLK(&record(kind, 100, 1))).map(drop);
    ofd(&mine, libc::F_WRLCK).unwrap();
    assert_eq!(ofd(&theirs, libc::F_RDLCK), Err(Errno::EAGAIN));
    mine.lock().unwrap();
    assert!(theirs.try_lock_shared().is_err());
    mine.lock_shared().unwrap();
    theirs.try_lock_shared().unwrap();
    assert!(theirs.try_lock().is_err());
    drop(mine);
    // close(2) waits for the end of record locks; of the others the kernel tells when it has time.
    set(&theirs, libc::F_WRLCK, 0, 10).unwrap();
    eventually("the lock of the closed description ends", || ofd(&theirs, libc::F_WRLCK).is_ok());
    eventually("the flock of the closed file ends", || theirs.try_lock().is_ok());
    drop(theirs);
    stage.end_and_check();
}

/// A counter that only holds if whoever has the lock is alone: read, add, write, on one descriptor.
#[test]
fn a_counter_under_a_lock_counts_for_both_mounts() {
    let Some((stage, a, b)) = two() else { return };
    let rounds = steps(500);
    fs::write(a.join("counter"), 0_u64.to_le_bytes()).unwrap();
    let counters = [a.clone(), b].map(|mount| {
        std::thread::spawn(move || {
            let file = open(&mount.join("counter"));
            for round in 0..rounds {
                let flock = round % 2 == 0;
                fcntl(&file, FcntlArg::F_SETLKW(&record(libc::F_WRLCK, 0, 0))).unwrap();
                if flock {
                    file.lock().unwrap();
                }
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, 0).unwrap();
                file.write_all_at(&(u64::from_le_bytes(bytes) + 1).to_le_bytes(), 0).unwrap();
                if flock {
                    file.unlock().unwrap();
                }
                fcntl(&file, FcntlArg::F_SETLK(&record(libc::F_UNLCK, 0, 0))).unwrap();
            }
        })
    });
    counters.into_iter().for_each(|counter| counter.join().unwrap());
    assert_eq!(fs::read(a.join("counter")).unwrap(), (2 * rounds).to_le_bytes());
    stage.end_and_check();
}

#[test]
fn two_mounts_that_wait_for_each_other_are_told_of_the_deadlock() {
    let Some((stage, a, b)) = two() else { return };
    let files = [&a, &b].map(|mount| [open(&mount.join("f")), open(&mount.join("g"))]);
    let whole = record(libc::F_WRLCK, 0, 0);
    fcntl(&files[0][0], FcntlArg::F_SETLK(&whole)).unwrap();
    fcntl(&files[1][1], FcntlArg::F_SETLK(&whole)).unwrap();
    let [mine, theirs] = files;
    let waiting = std::thread::spawn(move || {
        let got = fcntl(&mine[1], FcntlArg::F_SETLKW(&record(libc::F_WRLCK, 0, 0)));
        (mine, got)
    });
    eventually("one waits", || stage.status()["lock_waiters"] == 1);
    assert_eq!(fcntl(&theirs[0], FcntlArg::F_SETLKW(&whole)), Err(Errno::EDEADLK));
    assert!(!waiting.is_finished());
    drop(theirs);
    let (mine, got) = waiting.join().unwrap();
    got.unwrap();
    drop(mine);
    stage.end_and_check();
}
