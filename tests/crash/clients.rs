//! The client's daemon is killed.

use crate::fixture::{Place, can_mount, eventually, ringfs};
use crate::random::{Random, seed};
use crate::servers::TIMES;
use crate::stage::{Guard, Stage};
use crate::work::{Content, Worker, content};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Works on a mount until `kill` has killed its daemon; gives what each worker was promised.
fn work_until_killed(mount: &Path, kill: impl FnOnce()) -> Vec<(String, Content, Content)> {
    let seed = seed();
    eprintln!("rerun with: RINGFS_SEED={seed}");
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<Worker> = (0..3).map(|n| Worker::start(mount, n, true, &stop)).collect();
    eventually("the workers have synced", || workers.iter().all(|worker| worker.steps() > 8));
    std::thread::sleep(Duration::from_millis(Random::new(seed).below(500)));
    kill();
    stop.store(true, Ordering::Relaxed);
    let mut promised = Vec::new();
    for worker in workers {
        let name = worker.folder.file_name().unwrap().to_str().unwrap().to_owned();
        let (known, met) = worker.end();
        let errno = met.expect_err("the daemon was killed").raw_os_error();
        let dead = [libc::ENOTCONN, libc::ECONNABORTED, libc::ECANCELED, libc::EIO];
        assert!(errno.is_some_and(|errno| dead.contains(&errno)), "{errno:?}");
        let known = known.lock().unwrap();
        promised.push((name, known.durable.clone(), known.done.clone()));
    }
    promised
}

/// What fsync promised is there. What came after it may be there or not, but nothing that never was.
#[track_caller]
fn keeps_promises(mount: &Path, promised: &[(String, Content, Content)]) {
    for (name, durable, done) in promised {
        let have = content(&mount.join(name));
        assert!(durable.contains_key("log") && durable.len() > 2, "{name}: nothing was synced");
        for (file, bytes) in durable {
            match (have.get(file), bytes) {
                (Some(Some(have)), Some(bytes)) if file == "log" => {
                    assert!(have.starts_with(bytes), "{name}/log lost what was synced");
                }
                // Removed, renamed or cut after the fsync, and known to be so or on its way.
                (have, bytes) if done.get(file) != Some(bytes) || have == Some(bytes) => {}
                // The one call that was not answered may have changed it.
                (None, _) if is_last(file, done) => {}
                (Some(Some(have)), Some(bytes))
                    if is_last(file, done) && (have.starts_with(bytes) || have.len() == 10) => {}
                (have, bytes) => {
                    let (have, bytes) =
                        (have.map(|b| b.as_ref().map(Vec::len)), bytes.as_ref().map(Vec::len));
                    panic!("{name}/{file}: have {have:?} bytes, synced {bytes:?}");
                }
            }
        }
    }
}

/// Whether a name belongs to one of the last two steps.
fn is_last(name: &str, done: &Content) -> bool {
    let step = |name: &str| name[1..].parse::<u64>().ok();
    let last = done.keys().filter_map(|name| step(name)).max();
    step(name).zip(last).is_some_and(|(step, last)| step + 2 > last)
}

#[test]
fn what_was_synced_outlives_a_kill_of_a_mount_with_its_own_server() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let _guard = Guard::new(place.path(), 400);
    place.mount(&[]).ok();
    let mount = std::path::PathBuf::from(place.mnt());
    let promised = work_until_killed(&mount, || place.kill_daemon());
    ringfs(&["umount", &place.mnt()]).ok();
    assert!(!place.is_mounted());
    place.mount(&[]).ok();
    keeps_promises(&mount, &promised);
    place.end_and_check();
}

#[test]
fn what_was_answered_outlives_a_kill_of_the_client_of_a_server() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let a = stage.mount_with("a", &["--sync"]);
    let promised = work_until_killed(&a, || stage.kill_daemon("a"));
    stage.umount("a");
    stage.mount("a");
    keeps_promises(&a, &promised);
    // The server lives, so all that was answered is there, synced or not.
    let answered: Vec<_> = promised.into_iter().map(|(name, _, done)| (name, done.clone(), done)).collect();
    keeps_promises(&a, &answered);
    stage.end_and_check();
}
