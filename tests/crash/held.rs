//! What a client holds while the server is killed, and what becomes of it when the client is.

use crate::fixture::{can_mount, eventually};
use crate::servers::TIMES;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The lock of a range for a process.
pub(crate) fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// Tries to lock all of a file.
pub(crate) fn try_lock(file: &File) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, 0, 0))).map(|_| ())
}

pub(crate) fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn an_open_file_that_lost_its_name_on_another_mount_outlives_a_kill_of_the_server() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let (a, b) = (stage.mount("a"), stage.mount("b"));
    let file = open(&a.join("f"));
    file.write_all_at(b"held", 0).unwrap();
    fs::remove_file(b.join("f")).unwrap();
    let temporary = rustix::fs::open(
        &a,
        // Not for the server that is started meanwhile.
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::from_raw_mode(0o600),
    );
    let temporary = File::from(temporary.unwrap());
    temporary.write_all_at(b"nameless", 0).unwrap();
    for round in 0..2 {
        stage.kill_server();
        stage.start();
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"held", "round {round}");
        file.write_all_at(b"more", 4 + 4 * round).unwrap();
        temporary.read_exact_at(&mut bytes, 4).unwrap();
        assert_eq!(&bytes, b"less");
        assert!(!b.join("f").exists());
    }
    assert_eq!(file.metadata().unwrap().len(), 12);
    // Grace is over, or both have come back: the orphans stay while they are open.
    eventually("grace ends", || stage.status()["grace"].is_null());
    let mut bytes = [0; 12];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"heldmoremore");
    let inodes = stage.status()["usage"]["inodes"].as_u64().unwrap();
    drop((file, temporary));
    eventually("closed orphans are removed", || {
        let now = stage.status();
        now["usage"]["inodes"] == inodes - 2
    });
    stage.end_and_check();
}

#[test]
fn what_a_mount_unlinked_and_let_go_before_a_kill_of_the_server_is_not_held_by_it_afterwards() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let (a, b) = (stage.mount("a"), stage.mount("b"));
    let file = open(&a.join("f"));
    let held = || {
        let status = crate::fixture::ringfs(&["status", "--json", b.to_str().unwrap()]).ok().json();
        status["client"]["inodes_held"].as_u64().unwrap()
    };
    // One by the server's hand and one by its own: both are sent again after the kill, since its disk may not have them.
    let other = open(&a.join("g"));
    fs::remove_file(b.join("f")).unwrap();
    fs::remove_file(b.join("g")).unwrap();
    eventually("the mount lets go of what it has unlinked", || held() == 0);
    stage.kill_server();
    stage.start();
    eventually("grace ends", || stage.status()["grace"].is_null());
    let inodes = stage.status()["usage"]["inodes"].as_u64().unwrap();
    drop((file, other));
    eventually("closed orphans are removed", || stage.status()["usage"]["inodes"] == inodes - 2);
    stage.end_and_check();
}

#[test]
fn locks_outlive_a_kill_of_the_server_and_still_exclude_the_other_mount() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let (a, b) = (stage.mount("a"), stage.mount("b"));
    let (mine, flocked) = (open(&a.join("f")), open(&a.join("g")));
    let (theirs, theirs_flocked) = (open(&b.join("f")), open(&b.join("g")));
    try_lock(&mine).unwrap();
    flocked.lock().unwrap();
    assert_eq!(try_lock(&theirs), Err(Errno::EAGAIN));
    stage.kill_server();
    stage.start();
    // Also while grace runs, and when it has ended.
    assert_eq!(try_lock(&theirs), Err(Errno::EAGAIN));
    assert!(theirs_flocked.try_lock().is_err());
    eventually("grace ends", || stage.status()["grace"].is_null());
    assert_eq!(try_lock(&theirs), Err(Errno::EAGAIN));
    assert!(theirs_flocked.try_lock().is_err());
    // One that waits over a restart gets it when it is free.
    let waiting = std::thread::spawn(move || {
        let got = fcntl(&theirs, FcntlArg::F_SETLKW(&lock(libc::F_WRLCK, 0, 0)));
        (theirs, got)
    });
    eventually("it waits", || stage.status()["lock_waiters"] == 1);
    stage.kill_server();
    stage.start();
    eventually("it waits again", || stage.status()["lock_waiters"] == 1);
    assert!(!waiting.is_finished());
    fcntl(&mine, FcntlArg::F_SETLK(&lock(libc::F_UNLCK, 0, 0))).unwrap();
    let (theirs, got) = waiting.join().unwrap();
    got.unwrap();
    assert_eq!(try_lock(&mine), Err(Errno::EAGAIN));
    drop((mine, flocked));
    theirs_flocked.lock().unwrap();
    drop((theirs, theirs_flocked));
    stage.end_and_check();
}

#[test]
fn a_killed_client_loses_its_locks_and_orphans_when_its_lease_is_over() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let (a, b) = (stage.mount("a"), stage.mount("b"));
    let theirs = open(&b.join("f"));
    try_lock(&theirs).unwrap();
    let orphan = open(&b.join("g"));
    orphan.write_all_at(b"gone", 0).unwrap();
    fs::remove_file(b.join("g")).unwrap();
    let mine = open(&a.join("f"));
    assert_eq!(try_lock(&mine), Err(Errno::EAGAIN));
    let inodes = stage.status()["usage"]["inodes"].as_u64().unwrap();
    stage.kill_daemon("b");
    // It has no answer until the lease of the other is over.
    fcntl(&mine, FcntlArg::F_SETLKW(&lock(libc::F_WRLCK, 0, 0))).unwrap();
    eventually("the orphan is removed", || stage.status()["usage"]["inodes"] == inodes - 1);
    assert_eq!(stage.status()["session_count"], 1);
    drop((theirs, orphan, mine));
    stage.umount("b");
    stage.end_and_check();
}
