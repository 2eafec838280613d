//! Two mounts that get into each other's way: recalls at bad moments, and ends of one of them.

use crate::fixture::{Ran, eventually, ringfs};
use crate::pair::{Pair, listing, set};
use rustix::fs::{AtFlags, CWD};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[test]
fn a_listing_never_misses_what_stays_while_others_come_and_leases_go() {
    let Some(pair) = Pair::new() else { return };
    let stay: Vec<String> = (0..200).map(|n| format!("stays{n}")).collect();
    for name in &stay {
        File::create_new(pair.a.join(name)).unwrap();
    }
    let over = AtomicBool::new(false);
    let lists = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for mount in [&pair.a, &pair.b] {
            let (over, lists, stay) = (&over, &lists, &stay);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let names = listing(mount);
                    assert!(stay.iter().all(|name| names.contains(name)), "{} of 200 and more", names.len());
                    lists.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..300 {
            let mount = if n % 3 == 0 { &pair.b } else { &pair.a };
            File::create_new(mount.join(format!("n{n}"))).unwrap();
            if n % 2 == 0 {
                fs::remove_file(pair.a.join(format!("n{n}"))).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(lists.load(Ordering::Relaxed) > 1);
    assert_eq!(listing(&pair.a), listing(&pair.b));
    assert_eq!(listing(&pair.a).len(), 200 + 150);
    pair.end();
}

#[test]
fn renames_between_two_folders_while_the_other_mount_wants_them_keep_each_file_once() {
    let Some(pair) = Pair::new() else { return };
    for folder in ["x", "y"] {
        fs::create_dir(pair.a.join(folder)).unwrap();
    }
    for n in 0..20 {
        fs::write(pair.a.join(format!("x/f{n}")), n.to_string()).unwrap();
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                // In the opposite order: whoever waits for one while he keeps the other would never end.
                File::create_new(pair.b.join(format!("y/new{n}"))).unwrap();
                File::create_new(pair.b.join(format!("x/new{n}"))).unwrap();
                fs::remove_file(pair.b.join(format!("y/new{n}"))).unwrap();
                fs::remove_file(pair.b.join(format!("x/new{n}"))).unwrap();
                n += 1;
            }
        });
        for round in 0..20 {
            for n in 0..20 {
                let (from, to) = if round % 2 == 0 { ("x", "y") } else { ("y", "x") };
                fs::rename(pair.a.join(format!("{from}/f{n}")), pair.a.join(format!("{to}/f{n}"))).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    for mount in [&pair.a, &pair.b] {
        assert_eq!((listing(&mount.join("x")).len(), listing(&mount.join("y")).len()), (20, 0));
        for n in 0..20 {
            assert_eq!(fs::read_to_string(mount.join(format!("x/f{n}"))).unwrap(), n.to_string());
        }
    }
    pair.end();
}

#[test]
fn a_recall_in_the_middle_of_a_burst_loses_nothing() {
    let Some(pair) = Pair::new() else { return };
    fs::create_dir(pair.a.join("d")).unwrap();
    for round in 0..10 {
        for n in 0..60 {
            File::create_new(pair.a.join(format!("d/f{round}-{n}"))).unwrap();
        }
        // What has returned there is seen here, however much of it was still on its way.
        assert!(pair.b.join(format!("d/f{round}-59")).exists());
        assert_eq!(listing(&pair.b.join("d")).len(), (round + 1) * 60);
        assert_eq!(
            fs::metadata(pair.b.join("d")).unwrap().mtime_nsec(),
            fs::metadata(pair.a.join("d")).unwrap().mtime_nsec()
        );
    }
    pair.end();
}

#[test]
fn an_absent_name_is_known_to_be_absent_only_until_another_mount_makes_it() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..50 {
        let name = format!("f{n}");
        for _ in 0..2 {
            assert!(!pair.a.join(&name).exists() && !pair.b.join(&name).exists());
        }
        let (maker, looker) = if n % 2 == 0 { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        File::create_new(maker.join(&name)).unwrap();
        assert!(looker.join(&name).exists());
        assert!(File::create_new(looker.join(&name)).is_err());
    }
    pair.end();
}

#[test]
fn a_link_made_elsewhere_keeps_a_file_that_is_unlinked_here() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..20 {
        let (name, other) = (format!("f{n}"), format!("l{n}"));
        fs::write(pair.a.join(&name), b"kept").unwrap();
        let from = File::open(pair.b.join(&name)).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&from));
        rustix::fs::linkat(CWD, path, CWD, pair.b.join(&other), AtFlags::SYMLINK_FOLLOW).unwrap();
        fs::remove_file(pair.a.join(&name)).unwrap();
        assert_eq!(fs::metadata(pair.a.join(&other)).unwrap().nlink(), 1);
        assert_eq!(fs::read(pair.b.join(&other)).unwrap(), b"kept");
    }
    assert_eq!(listing(&pair.b).len(), 20);
    pair.end();
}

#[test]
fn a_file_open_here_outlives_a_restart_and_a_removal_elsewhere() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..3 {
        let path = format!("f{n}");
        fs::write(pair.a.join(&path), b"kept").unwrap();
        let file = File::open(pair.a.join(&path)).unwrap();
        pair.stage.kill_server();
        pair.stage.start();
        fs::remove_file(pair.b.join(&path)).unwrap();
        let mut bytes = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }
    pair.end();
}

#[test]
fn a_folder_is_removed_only_when_it_is_empty_on_every_mount() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..20 {
        let folder = format!("d{n}");
        fs::create_dir(pair.a.join(&folder)).unwrap();
        File::create_new(pair.b.join(&folder).join("f")).unwrap();
        let failed = fs::remove_dir(pair.a.join(&folder)).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::ENOTEMPTY));
        fs::remove_file(pair.a.join(&folder).join("f")).unwrap();
        fs::remove_dir(pair.b.join(&folder)).unwrap();
        assert!(!pair.a.join(&folder).exists());
        let failed = File::create_new(pair.a.join(&folder).join("g")).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::ENOENT));
    }
    assert_eq!(listing(&pair.a), set([]));
    pair.end();
}

#[test]
fn content_copied_in_the_server_while_it_is_recalled_is_whole() {
    let Some(pair) = Pair::new() else { return };
    let bytes = crate::random::pattern(5, 200_000);
    fs::write(pair.a.join("source"), &bytes).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(fs::read(pair.b.join("source")).unwrap() == bytes);
                let _ = fs::hard_link(pair.b.join("source"), pair.b.join("link"));
                let _ = fs::remove_file(pair.b.join("link"));
            }
        });
        for n in 0..20 {
            let path = pair.a.join(format!("copy{n}"));
            // copy_file_range, where the file system has it.
            assert_eq!(fs::copy(pair.a.join("source"), &path).unwrap(), 200_000);
            assert!(fs::read(pair.b.join(format!("copy{n}"))).unwrap() == bytes, "copy {n}");
        }
        over.store(true, Ordering::Relaxed);
    });
    pair.end();
}

#[test]
fn an_unmount_in_a_storm_of_creates_is_refused_or_keeps_all_that_returned() {
    let Some(pair) = Pair::new() else { return };
    let point = pair.a.to_str().unwrap().to_owned();
    let made = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            // Below the mount point itself, which stays when the mount is gone.
            fs::create_dir(pair.a.join("d")).unwrap();
            loop {
                let n = made.load(Ordering::Relaxed);
                if File::create_new(pair.a.join(format!("d/f{n}"))).is_err() {
                    return;
                }
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
        eventually("something is made", || made.load(Ordering::Relaxed) > 50);
        let mut refused = 0;
        while let Ran { code: 3, .. } = ringfs(&["umount", &point]) {
            refused += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("refused {refused} times");
        maker.join().unwrap();
    });
    let made = made.load(Ordering::Relaxed);
    assert_eq!(listing(&pair.b.join("d")).len() as u64, made);
    pair.end();
}

#[test]
fn changes_made_here_are_told_to_those_who_watch_here() {
    let Some(pair) = Pair::new() else { return };
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &pair.a, WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE).unwrap();
    pair.slow(|| {
        File::create_new(pair.a.join("f")).unwrap();
        fs::rename(pair.a.join("f"), pair.a.join("g")).unwrap();
        fs::remove_file(pair.a.join("g")).unwrap();
    });
    let mut buffer = Vec::with_capacity(4096);
    let mut reader = inotify::Reader::new(&watch, buffer.spare_capacity_mut());
    let events: Vec<ReadFlags> = (0..4).map(|_| reader.next().unwrap().events()).collect();
    let wanted = [ReadFlags::CREATE, ReadFlags::MOVED_FROM, ReadFlags::MOVED_TO, ReadFlags::DELETE];
    assert_eq!(events, wanted);
    pair.end();
}

/// Number and generation as a server of NFS keeps them.
fn by_handle(mount: &Path, name: &str) -> std::process::Output {
    let script = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
handle, mount = Handle(128), ctypes.c_int()
if libc.name_to_handle_at(-100, sys.argv[2].encode(), ctypes.byref(handle), ctypes.byref(mount), 0):
    sys.exit(os.strerror(ctypes.get_errno()))
root = os.open(sys.argv[1], os.O_RDONLY)
fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
if fd < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
sys.stdout.buffer.write(os.read(fd, 100))
";
    let file = mount.join(name);
    std::process::Command::new("python3").args(["-c", script]).arg(mount).arg(file).output().unwrap()
}

#[test]
fn a_file_that_is_on_its_way_can_be_opened_by_its_handle() {
    let Some(pair) = Pair::new() else { return };
    pair.slow(|| {
        fs::create_dir(pair.a.join("d")).unwrap();
        fs::write(pair.a.join("d/f"), b"by handle").unwrap();
        let out = by_handle(&pair.a, "d/f");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.stdout, b"by handle");
    });
    pair.end();
}
