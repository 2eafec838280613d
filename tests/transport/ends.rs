//! Mounts that end badly: unmounted while busy, aborted, their server killed. Nothing may hang.

use crate::memory::{Answers, Memory};
use crate::mounted::{Mounted, PATIENCE, connection, eventually, kinds, mount_device};
use nix::mount::MntFlags;
use ringfs::kernel::transport::{Choice, End, Options, serve};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Makes and removes files until `stop`, whatever the mount says.
fn keep_busy(mounted: &Mounted, stop: &AtomicBool, worker: usize, done: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let path = mounted.path(&format!("busy{worker}"));
        if fs::write(&path, b"x").is_ok() {
            done.fetch_add(1, Ordering::Relaxed);
        }
        let _ = fs::remove_file(&path);
    }
}

#[test]
fn an_abort_under_load_ends_every_call_and_every_thread() {
    for kind in kinds() {
        for answers in [Answers::AtOnce, Answers::FromAnotherThread] {
            println!("{kind}, {answers:?}");
            let memory = Memory::new(answers);
            let mut mounted = Mounted::new(kind, memory.clone());
            let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for worker in 0..8 {
                    let (mounted, stop, done) = (&mounted, &stop, &done);
                    scope.spawn(move || keep_busy(mounted, stop, worker, done));
                }
                eventually("the load runs", || done.load(Ordering::Relaxed) > 100);
                mounted.running().abort().unwrap();
                eventually("the end is noticed", || mounted.running().is_over());
                stop.store(true, Ordering::Relaxed);
            });
            assert_eq!(mounted.running.take().unwrap().wait(), End::Aborted);
            assert_eq!(memory.destroyed.load(Ordering::SeqCst), 1);
        }
    }
}

#[test]
fn a_busy_mount_detached_lazily_ends_when_its_users_leave() {
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::new(Answers::AtOnce);
        let mut mounted = Mounted::new(kind, memory);
        let file = fs::File::create(mounted.path("open")).unwrap();
        assert!(nix::mount::umount(&mounted.dir).is_err(), "an open file keeps the mount busy");
        nix::mount::umount2(&mounted.dir, MntFlags::MNT_DETACH).unwrap();
        // The open file still works; it is the last user.
        file.sync_all().unwrap();
        assert!(!mounted.running().is_over());
        drop(file);
        assert_eq!(mounted.running.take().unwrap().wait(), End::Unmounted);
    }
}

#[test]
fn an_abort_with_replies_outstanding_ends_and_the_late_replies_are_harmless() {
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::new(Answers::AtOnce);
        let mut mounted = Mounted::new(kind, memory.clone());
        let mut child = Command::new("stat")
            .arg(mounted.path("slow"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the lookup is held", || memory.held.lock().unwrap().len() == 1);
        mounted.running().abort().unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(mounted.running.take().unwrap().wait(), End::Aborted);
        let token = memory.held.lock().unwrap().pop().unwrap();
        token.ok(&[0; 128]);
    }
}

#[test]
fn replies_that_wait_do_not_hold_up_other_requests_of_their_core() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    const WAITING: usize = 100;
    let this = nix::unistd::Pid::from_raw(0);
    let usable = sched_getaffinity(this).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| usable.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::new(Answers::AtOnce);
        let options = Options { choice: Choice::Only(kind), queue_depth: 8, ..Options::default() };
        let mounted = Mounted::with(memory.clone(), &options);
        let call = |name: String| {
            sched_setaffinity(this, &one).unwrap();
            fs::metadata(mounted.path(&name)).map(|_| ()).map_err(|error| error.raw_os_error())
        };
        std::thread::scope(|scope| {
            for n in 1..=WAITING {
                scope.spawn(move || assert_eq!(call(format!("slow{n}")), Err(Some(libc::ENOENT))));
                eventually("the lookup is held", || memory.held.lock().unwrap().len() == n);
            }
            assert_eq!(scope.spawn(|| call("other".to_owned())).join().unwrap(), Err(Some(libc::ENOENT)));
            for token in memory.held.lock().unwrap().drain(..) {
                token.error(ringfs::base::Errno::ENOENT);
            }
        });
        assert_eq!(mounted.unmount(), End::Unmounted);
    }
}

/// Not a test of its own: the server of the next one, in a process that can be killed.
#[test]
fn server_to_be_killed() {
    let Ok(dir) = std::env::var("RINGFS_TEST_SERVE") else { return };
    let choice: Choice = std::env::var("RINGFS_TEST_KIND").unwrap().parse().unwrap();
    let device = mount_device(Path::new(&dir));
    let running = serve(device, Memory::new(Answers::AtOnce), &Options { choice, ..Options::default() });
    running.unwrap().wait();
}

#[test]
fn a_killed_server_leaves_errors_not_hangs() {
    for kind in kinds() {
        println!("{kind}");
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ends::server_to_be_killed", "--nocapture"])
            .env("RINGFS_TEST_SERVE", &dir)
            .env("RINGFS_TEST_KIND", kind.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the mount is there", || fs::write(dir.join("probe"), b"x").is_ok() && is_mounted(&dir));
        let number = connection(&dir);
        let mut caller = Command::new("stat")
            .arg(dir.join("slow"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the call waits", || {
            fs::read_to_string(format!("/sys/fs/fuse/connections/{number}/waiting")).unwrap().trim() != "0"
        });
        server.kill().unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while caller.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "the caller of a dead server hangs");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        server.wait().unwrap();
        assert!(fs::metadata(dir.join("probe")).is_err());
        nix::mount::umount2(&dir, MntFlags::MNT_DETACH).unwrap();
    }
}

fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}
