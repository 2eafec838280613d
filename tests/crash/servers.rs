//! The server is killed.

use crate::fixture::can_mount;
use crate::random::{Random, seed};
use crate::stage::Stage;
use crate::work::{Worker, content, same};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Servers killed in one run.
const ROUNDS: u64 = 5;

/// Lease and grace of these tests, in seconds: short, and longer than a restart takes on a slow machine.
pub(crate) const TIMES: [&str; 4] = ["--lease", "5", "--grace", "5"];

#[test]
fn a_program_goes_on_over_kills_of_the_server_and_each_call_takes_effect_once() {
    over_kills(&["a"]);
}

#[test]
fn programs_on_two_mounts_go_on_over_kills_of_the_server() {
    over_kills(&["a", "b"]);
}

fn over_kills(names: &[&str]) {
    if !can_mount() {
        return;
    }
    let seed = seed();
    eprintln!("rerun with: RINGFS_SEED={seed}");
    let mut random = Random::new(seed);
    let stage = Stage::new(&TIMES);
    let mounts: Vec<PathBuf> = names.iter().map(|name| stage.mount(name)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<Worker> =
        (0..3).zip(mounts.iter().cycle()).map(|(n, mount)| Worker::start(mount, n, n == 1, &stop)).collect();
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(50 + random.below(400)));
        stage.kill_server();
        // Away for a moment, or for so long that everything waits.
        std::thread::sleep(Duration::from_millis(random.below(300)));
        let before: Vec<u64> = workers.iter().map(Worker::steps).collect();
        stage.start();
        for (worker, before) in workers.iter().zip(before) {
            crate::fixture::eventually(
                &format!("round {round}: {} goes on", worker.folder.display()),
                || worker.steps() > before || worker.has_ended(),
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        let folder = worker.folder.clone();
        let (known, met) = worker.end();
        met.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let known = known.lock().unwrap();
        eprintln!("{}: {} steps", folder.display(), known.steps);
        for mount in &mounts {
            same(&content(&mount.join(folder.file_name().unwrap())), &known.done);
        }
    }
    stage.end_and_check();
}

#[test]
fn a_call_that_is_on_its_way_at_the_kill_is_answered_after_the_restart() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let a = stage.mount("a");
    std::fs::write(a.join("before"), b"1").unwrap();
    stage.kill_server();
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let path = a.join(format!("f{n}"));
            std::thread::spawn(move || {
                let file = std::fs::File::create_new(path)?;
                file.sync_all()
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    assert!(calls.iter().all(|call| !call.is_finished()), "nothing is answered while the server is away");
    stage.start();
    for call in calls {
        call.join().unwrap().unwrap();
    }
    assert_eq!(content(&a).len(), 9);
    stage.end_and_check();
}
