//! How a mount ends: unmounted, busy, by a signal, without its server.

use crate::fixture::{Place, can_mount, eventually, is_mounted, ringfs, wait};
use crate::servers::TIMES;
use crate::stage::{Guard, Stage};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What an unmount may take with a server that lives.
const UNMOUNT: Duration = Duration::from_secs(10);

#[test]
fn an_unmount_after_much_work_is_quick_and_keeps_all() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let a = stage.mount("a");
    for n in 0..300 {
        fs::write(a.join(format!("f{n}")), vec![b'x'; n * 100]).unwrap();
    }
    let before = Instant::now();
    stage.umount("a");
    assert!(before.elapsed() < UNMOUNT, "{:?}", before.elapsed());
    stage.mount("a");
    assert_eq!(fs::read_dir(&a).unwrap().count(), 300);
    stage.end_and_check();
}

#[test]
fn a_busy_mount_stays_and_ends_when_it_is_free() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    let a = stage.mount("a");
    let file = fs::File::create(a.join("f")).unwrap();
    ringfs(&["umount", a.to_str().unwrap()]).fails(3, &["in use by", "--lazy", "--force"]);
    fs::write(a.join("g"), b"still works").unwrap();
    drop(file);
    stage.umount("a");
    stage.end_and_check();
}

#[test]
fn sigterm_ends_a_daemon_in_order_and_its_server_too() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let _guard = Guard::new(place.path(), 200);
    place.mount(&[]).ok();
    fs::write(place.at("mnt/f"), b"kept").unwrap();
    let daemon = place.daemon();
    kill(daemon, Signal::SIGTERM).unwrap();
    eventually("the daemon ends", || kill(daemon, None).is_err());
    assert!(!place.is_mounted());
    place.mount(&[]).ok();
    assert_eq!(fs::read(place.at("mnt/f")).unwrap(), b"kept");
    place.end_and_check();
}

/// Reads can be ended while the server is away; a change has been sent and cannot be taken back, so its caller
/// waits for the server or for `umount --force`, even when it was killed.
#[test]
fn a_process_that_waits_for_an_absent_server_can_be_killed() {
    if !can_mount() {
        return;
    }
    let stage = Stage::new(&TIMES);
    // Without leases: with them nobody waits before they end.
    let a = stage.mount_with("a", &["--sync"]);
    fs::write(a.join("f"), b"x").unwrap();
    ringfs(&["flush", a.to_str().unwrap()]).ok();
    stage.kill_server();
    let status = || ringfs(&["status", "--json", a.to_str().unwrap()]).ok().json();
    eventually("the mount notices", || status()["link"]["connected"] == false);
    // Until then changes are completed without the server.
    eventually("its leases are over", || status()["client"]["leases"]["good"] == false);
    let spawn = |program: &str, file: &str| {
        let mut command = Command::new(program);
        command.arg(a.join(file)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let waiting = |number: u64| status()["requests"]["in_flight"].as_u64() >= Some(number);
    let mut reader = spawn("cat", "f");
    eventually("it waits", || waiting(1));
    reader.kill().unwrap();
    assert_eq!(wait(&mut reader, Duration::from_secs(30)), Some(128 + 9));
    let mut changer = spawn("mkdir", "d");
    eventually("it waits", || waiting(1));
    changer.kill().unwrap();
    // `--force` is the way out that does not need the server.
    ringfs(&["umount", "--force", "--timeout", "30", a.to_str().unwrap()]).ok();
    assert!(!is_mounted(&a));
    assert!(wait(&mut changer, Duration::from_secs(30)).is_some());
    stage.start();
    stage.mount("a");
    assert_eq!(fs::read(a.join("f")).unwrap(), b"x");
    stage.end_and_check();
}
