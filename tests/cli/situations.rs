//! Bad situations: each has a clear error or a fallback that works.

use crate::fixture::{Place, RINGFS, Ran, can_mount, ringfs, run};
use crate::host::{self, Host};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";
const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

#[test]
fn bad_mount_points_are_each_named_with_their_remedy() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let (file, full) = (place.at("file"), place.at("full"));
    fs::write(&file, b"").unwrap();
    fs::create_dir_all(format!("{full}/x")).unwrap();
    ringfs(&["mount", "null:", &place.at("missing")]).fails(1, &["does not exist", "mkdir"]);
    ringfs(&["mount", "null:", &file]).fails(1, &["not a directory"]);
    ringfs(&["mount", "null:", &full]).fails(1, &["not empty", "-o nonempty"]);
    ringfs(&["mount", "null:", &full, "-o", "nonempty"]).ok();
    assert!(!Path::new(&format!("{full}/x")).exists());
    ringfs(&["mount", "null:", &full, "-o", "nonempty"]).fails(3, &["already", "ringfs umount"]);
    ringfs(&["umount", &full]).ok();
    ringfs(&["mount", "null:", "/dev/fd/250"]).fails(1, &["/dev/fd/250", "not an open /dev/fuse"]);
    ringfs(&["mount", &place.at("never"), &place.at("missing")]).fails(1, &["does not exist"]);
    assert!(!Path::new(&place.at("never")).exists(), "no store is made for a mount that cannot be");
    let inside = place.at("store/mnt");
    fs::create_dir_all(&inside).unwrap();
    ringfs(&["mount", &place.at("store"), &inside]).fails(2, &["inside"]);
}

/// A daemon that opens a file below its own mount point waits for itself, and cannot be killed.
#[test]
fn a_mount_that_would_cover_what_its_daemon_uses_is_refused() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let (mnt, store) = (place.mnt(), place.at("store"));
    let link = place.at("link");
    std::os::unix::fs::symlink(&mnt, &link).unwrap();
    for point in [&mnt, &link] {
        for covered in [format!("{mnt}/store"), format!("{link}/deep/store")] {
            ringfs(&["mount", &covered, point])
                .fails(2, &["store", "inside the mount point", "move the store"]);
        }
        let log = format!("{mnt}/log");
        ringfs(&["mount", &store, point, "--log", &log])
            .fails(2, &["log", "inside the mount point", "--log"]);
        let socket = format!("unix:{link}/socket");
        ringfs(&["mount", &socket, point]).fails(2, &["socket", "inside the mount point", "elsewhere"]);
    }
    assert_eq!(fs::read_dir(&mnt).unwrap().count(), 0, "nothing is made below the mount point");
    let mut mount = Command::new("unshare");
    mount.args(["-m", RINGFS, "mount", &store, "/run", "-o", "nonempty"]);
    run(mount).fails(2, &["control socket", "/run/ringfs"]);
    assert!(!Path::new(&store).exists());
}

#[test]
fn stores_that_cannot_be_used_are_each_named_with_their_remedy() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let file = place.at("file");
    fs::write(&file, b"").unwrap();
    ringfs(&["mount", &file, &place.mnt()]).fails(1, &["not a folder"]);
    let other = place.at("other");
    fs::create_dir_all(format!("{other}/precious")).unwrap();
    ringfs(&["mount", &other, &place.mnt()]).fails(1, &["not a ringfs store"]);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    for source in ["plainword:x", "http://example.org/x", "s3://bucket", "tpc://127.0.0.1:1"] {
        let mut mount = Command::new(RINGFS);
        mount.args(["mount", source, &place.mnt()]).current_dir(place.path());
        run(mount).fails(2, &[source, "unknown scheme", "unix:PATH, tcp://HOST:PORT or null:"]);
        let scheme = source.split_once(':').unwrap().0;
        assert!(!Path::new(&place.at(&format!("{scheme}:"))).exists(), "a directory was made for {source}");
    }
    ringfs(&["serve", "http://example.org/x", "--listen", "tcp://127.0.0.1:0"]).fails(2, &["unknown scheme"]);

    place.mount(&[]).ok();
    let second = place.at("second");
    fs::create_dir(&second).unwrap();
    ringfs(&["mount", &place.at("store"), &second]).fails(3, &["in use", "stop that one"]);
    ringfs(&["umount", &place.mnt()]).ok();

    let format = place.at("store/format");
    let known = fs::read_to_string(&format).unwrap();
    fs::write(&format, known.replace('1', "99")).unwrap();
    for command in [vec!["mount", &place.at("store"), &place.mnt()], vec!["fsck", &place.at("store")]] {
        ringfs(&command).fails(1, &["format 99", "newer ringfs"]);
    }
    fs::write(&format, known).unwrap();
    place.mount(&[]).ok();
    ringfs(&["umount", &place.mnt()]).ok();
}

#[test]
fn without_the_module_parameter_the_fallback_works_and_names_the_remedy() {
    if !can_mount() {
        return;
    }
    let mut host = Host::alone();
    if !host.set(PARAMETER, "N") {
        return;
    }
    falls_back("ring", PARAMETER);
}

#[test]
fn with_io_uring_disabled_the_fallback_works_and_names_the_remedy() {
    if !can_mount() {
        return;
    }
    let mut host = Host::alone();
    if !host.set(SYSCTL, "2") {
        return;
    }
    falls_back("blocking", "kernel.io_uring_disabled=0");
    let doctor = ringfs(&["doctor"]);
    assert!(doctor.out.contains("WARN  io_uring "), "{doctor:?}");
    assert!(doctor.out.contains("best transport here: blocking"), "{doctor:?}");
    let place = Place::new();
    ringfs(&["mount", "null:", &place.mnt(), "--transport", "ring"]).fails(1, &["ring", "io_uring_disabled"]);
}

#[track_caller]
fn falls_back(to: &str, remedy: &str) {
    let place = Place::new();
    let mounted = place.mount(&[]).ok();
    assert!(mounted.err.contains("warning") && mounted.err.contains(remedy), "{mounted:?}");
    let status = place.status();
    assert_eq!(status["transport"]["in_use"], to);
    assert!(status["transport"]["why_not_better"].as_str().unwrap().contains(remedy), "{status}");
    assert!(status["daemon"]["warnings"].to_string().contains(remedy), "{status}");
    fs::write(format!("{}/f", place.mnt()), b"works").unwrap();
    assert_eq!(fs::read(format!("{}/f", place.mnt())).unwrap(), b"works");
    ringfs(&["umount", &place.mnt()]).ok();
    place.mount(&["--transport", "uring"]).fails(1, &["uring", "cannot be used", remedy]);
    assert!(!place.is_mounted());
}

/// The number of an ordinary user: nobody, on every Linux.
const NOBODY: u32 = 65534;

/// Runs a copy of the program, in a place an ordinary user can reach, as that user.
fn as_nobody(place: &Place, args: &[&str]) -> Ran {
    let program = place.at("ringfs");
    if !Path::new(&program).exists() {
        fs::copy(RINGFS, &program).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(place.mnt(), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::create_dir(place.at("home")).unwrap();
        chown(place.at("home"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(program);
    command.args(args).uid(NOBODY).gid(NOBODY).current_dir("/").env_remove("XDG_RUNTIME_DIR");
    run(command)
}

#[test]
fn an_ordinary_user_mounts_through_the_helper() {
    if !can_mount() {
        return;
    }
    let mut host = Host::alone();
    let place = Place::new();
    let (store, mnt) = (place.at("home/store"), place.mnt());
    host.chmod("/dev/fuse", 0o600);
    as_nobody(&place, &["mount", &store, &mnt]).fails(1, &["/dev/fuse", "chmod 666"]);
    host.chmod("/dev/fuse", 0o666);
    let helper =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join("fusermount3").exists());
    if !helper {
        as_nobody(&place, &["mount", &store, &mnt]).fails(1, &["fusermount3", "package fuse3"]);
        return;
    }
    as_nobody(&place, &["mount", &store, &mnt]).ok();
    let status = as_nobody(&place, &["status", "--json", &mnt]).ok().json();
    assert!(status["mount"]["options"].as_str().unwrap().contains("nosuid"), "{status}");
    // Whose threads may not leave SCHED_IDLE never enters it.
    let (nice, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NICE).unwrap();
    if nice < 20 && status["transport"]["in_use"] == "uring" {
        assert!(status["transport"]["why_no_yield"].as_str().unwrap().contains("ulimit -e 20"), "{status}");
        let doctor = as_nobody(&place, &["doctor"]);
        assert!(doctor.out.contains("WARN  yielding threads"), "{doctor:?}");
    }
    // Root is one of the others, too.
    assert_eq!(fs::metadata(format!("{mnt}/x")).unwrap_err().raw_os_error(), Some(libc::EACCES));
    let mut touch = Command::new("touch");
    touch.arg(format!("{mnt}/file")).uid(NOBODY).gid(NOBODY);
    assert_eq!(run(touch).code, 0);
    as_nobody(&place, &["umount", &mnt]).ok();
    assert!(!place.is_mounted());
    let refused = as_nobody(&place, &["mount", &store, &mnt, "-o", "allow_other"]);
    if refused.code != 0 {
        refused.fails(1, &["user_allow_other", "/etc/fuse.conf"]);
    } else {
        as_nobody(&place, &["umount", &mnt]).ok();
    }
    as_nobody(&place, &["mount", "/proc/no-store", &mnt]).fails(1, &["/proc/no-store"]);
}

#[test]
fn without_the_device_the_remedy_is_named() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    for args in [vec!["mount", "null:", &place.mnt()], vec!["mount", &place.at("store"), &place.mnt()]] {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", RINGFS]).args(args);
        run(command).fails(1, &["/dev/fuse does not exist", "modprobe fuse"]);
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", RINGFS, "doctor"]);
    let doctor = run(command);
    assert_eq!(doctor.code, 4);
    assert!(doctor.out.contains("FAIL  /dev/fuse"), "{doctor:?}");
}

#[test]
fn a_full_disk_says_so_keeps_what_was_written_and_recovers() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let disk = place.at("store");
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=400m", "none", &disk]);
    assert_eq!(run(mount).code, 0);
    let store = format!("{disk}/s");
    let mnt = place.mnt();
    ringfs(&["mount", &store, &mnt]).ok();
    let full = (0..4096).find_map(|number| {
        fs::write(format!("{mnt}/f{number}"), vec![7; 1 << 20]).err().map(|error| (number, error))
    });
    let (number, error) = full.expect("a disk of 400 MiB takes no 4 GiB");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(number > 10, "{number}");
    assert_eq!(fs::read(format!("{mnt}/f0")).unwrap(), vec![7; 1 << 20]);
    for gone in 0..=number {
        fs::remove_file(format!("{mnt}/f{gone}")).unwrap();
    }
    ringfs(&["umount", &mnt]).ok();
    ringfs(&["fsck", "--data", &store]).ok();
    let mut umount = Command::new("umount");
    umount.arg(&disk);
    assert_eq!(run(umount).code, 0);
}
