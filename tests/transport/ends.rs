//! Mounts that end badly: unmounted while busy, aborted, their server killed. Nothing may hang.

use crate::memory::{Answers, Memory};
use crate::mounted::{Mounted, PATIENCE, connection, eventually, kinds, mount_device};
use nix::mount::MntFlags;
use ringfs::kernel::transport::{Choice, End, Kind, Options, WAITS_MAX, serve};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
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
            let running = mounted.running.take().unwrap();
            let monitor = running.monitor();
            assert_eq!(running.wait(), End::Aborted);
            assert_eq!(memory.destroyed.load(Ordering::SeqCst), 1);
            assert_eq!(monitor.counters().kept, 0, "the kernel has given every entry back");
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
fn a_notice_that_is_queued_at_the_end_still_has_its_completion() {
    use ringfs::kernel::transport::Notice;
    use std::sync::Arc;
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::new(Answers::AtOnce);
        let mut mounted = Mounted::new(kind, memory.clone());
        let (told, queued) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let running = mounted.running.take().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let notifier = memory.notifier.get().unwrap();
                    loop {
                        let told = told.clone();
                        let completion = Box::new(move |_| {
                            told.fetch_add(1, Ordering::SeqCst);
                        });
                        match notifier.send(Notice::IncEpoch, Some(completion)) {
                            Ok(()) => queued.fetch_add(1, Ordering::SeqCst),
                            Err(ringfs::kernel::transport::Refused::Full) => {
                                std::thread::yield_now();
                                0
                            }
                            Err(ringfs::kernel::transport::Refused::Gone) => return,
                        };
                    }
                });
            }
            eventually("notices are on their way", || queued.load(Ordering::SeqCst) > 100);
            running.abort().unwrap();
        });
        assert_eq!(running.wait(), End::Aborted);
        assert_eq!(told.load(Ordering::SeqCst), queued.load(Ordering::SeqCst));
    }
}

/// Lets this thread and those it starts run on one core alone.
fn stay_on_one_core() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let usable = sched_getaffinity(this).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| usable.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    sched_setaffinity(this, &one).unwrap();
}

#[test]
fn waits_over_their_bound_are_refused_and_leave_room_for_what_ends_them() {
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::new(Answers::AtOnce);
        let options = Options { choice: Choice::Only(kind), threads: Some(1), ..Options::default() };
        let mounted = Mounted::with(memory.clone(), &options);
        let refused = AtomicUsize::new(0);
        let held = || memory.held.lock().unwrap().len();
        std::thread::scope(|scope| {
            for n in 0..WAITS_MAX + 5 {
                let (mounted, refused) = (&mounted, &refused);
                scope.spawn(move || {
                    stay_on_one_core();
                    let error = fs::metadata(mounted.path(&format!("wait{n}"))).unwrap_err();
                    if error.raw_os_error() == Some(libc::ENOLCK) {
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                });
                // A burst would find no entry, since more are added while requests come.
                eventually("it waits or is refused", || held() + refused.load(Ordering::SeqCst) == n + 1);
            }
            assert_eq!((held(), refused.load(Ordering::SeqCst)), (WAITS_MAX, 5));
            // A lookup, as those that wait are: the kernel keeps the directory's lock shared for them.
            let other = scope.spawn(|| {
                stay_on_one_core();
                fs::metadata(mounted.path("other")).unwrap_err().raw_os_error()
            });
            assert_eq!(other.join().unwrap(), Some(libc::ENOENT));
            for token in memory.held.lock().unwrap().drain(..) {
                token.error(ringfs::base::Errno::ENOENT);
            }
        });
        // Their places are free again.
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(fs::metadata(mounted.path("wait")).is_err()));
            eventually("one more waits", || held() == 1);
            memory.held.lock().unwrap().clear();
        });
        assert_eq!(mounted.unmount(), End::Unmounted);
    }
}

#[test]
fn more_parked_requests_than_entries_only_wait_while_forgets_interrupts_and_notices_pass() {
    // More than a core has entries for, so the last ones stay with the kernel.
    const PARKED: usize = WAITS_MAX + 32 + 40;
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::new(Answers::AtOnce);
        let options = Options { choice: Choice::Only(kind), threads: Some(1), ..Options::default() };
        let mounted = Mounted::with(memory.clone(), &options);
        // An inode that only a descriptor without an OPEN keeps: the kernel forgets it when that is closed.
        let file = mounted.path("file");
        fs::write(&file, b"x").unwrap();
        let last = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let forgotten = || memory.forgotten.load(Ordering::SeqCst);
        let held = || memory.held.lock().unwrap().len();
        let most = if kind == Kind::Uring { WAITS_MAX + 32 } else { PARKED };
        let mut first = Command::new("stat");
        let mut first =
            first.arg(mounted.path("slow")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the first one waits", || held() == 1);
        let unique = memory.held.lock().unwrap()[0].unique();
        std::thread::scope(|scope| {
            for n in 0..PARKED {
                let mounted = &mounted;
                scope.spawn(move || {
                    stay_on_one_core();
                    let error = fs::metadata(mounted.path(&format!("slow{n}"))).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
                });
                // A burst would find no entry, since more are added while requests come.
                eventually("it is parked, unless there is no room", || held() >= most.min(n + 2));
            }
            // A signal reaches the handler, which answers: this caller was the first to come.
            first.kill().unwrap();
            first.wait().unwrap();
            eventually("the interrupt has come", || memory.interrupted.lock().unwrap().contains(&unique));
            // Notices are carried out: this one needs no lock that a parked lookup has.
            let (told, heard) = std::sync::mpsc::channel();
            let notice = ringfs::kernel::transport::Notice::InvalInode {
                ino: ringfs::base::Ino(2),
                offset: 0,
                len: 0,
            };
            let completion = Box::new(move |result| told.send(result).unwrap());
            memory.notifier.get().unwrap().send(notice, Some(completion)).unwrap();
            heard.recv_timeout(PATIENCE).unwrap().ok();
            let before = forgotten();
            drop(last);
            eventually("the file is forgotten", || forgotten() > before);
            // The last ones come when there is room.
            let answered = Cell::new(0);
            eventually("all are answered", || {
                for token in memory.held.lock().unwrap().drain(..) {
                    token.error(ringfs::base::Errno::ENOENT);
                    answered.set(answered.get() + 1);
                }
                answered.get() >= PARKED
            });
        });
        fs::write(&file, b"again").unwrap();
        assert_eq!(mounted.unmount(), End::Unmounted);
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
