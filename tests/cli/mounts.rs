//! Mounting, using, unmounting.

use crate::fixture::{Place, RINGFS, Started, can_mount, eventually, is_mounted, ringfs, run, runs};
use crate::host;
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

#[test]
fn a_directory_is_mounted_used_unmounted_and_keeps_its_files() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let mounted = place.mount(&[]).ok();
    assert!(mounted.out.is_empty(), "{mounted:?}");
    let file = format!("{}/file", place.mnt());
    fs::write(&file, b"hello").unwrap();
    ringfs(&["flush", &place.mnt()]).ok();

    let info = ringfs(&["info", "--json", &file]).ok().json();
    assert_eq!((info["file"]["size_bytes"].as_u64(), info["file"]["type"].as_str()), (Some(5), Some("file")));
    assert_eq!(info["file"]["data_ranges"][0], "0..5");
    assert!(ringfs(&["info", &file]).ok().out.contains("inode"));

    let status = place.status();
    assert_eq!(status["mount"]["point"], place.mnt());
    assert!(status["requests"]["by_kind"]["CREATE"].as_u64() >= Some(1), "{status}");
    // Other mounts of this host may be dead, which the exit code tells.
    assert!(ringfs(&["status"]).out.contains(&place.mnt()));

    let daemon = place.daemon();
    ringfs(&["umount", &place.mnt()]).ok();
    assert!(!place.is_mounted());
    assert!(!runs(daemon), "umount returns after the daemon has ended");
    place.mount(&[]).ok();
    assert_eq!(fs::read(&file).unwrap(), b"hello");
    ringfs(&["umount", &place.mnt()]).ok();
    let fsck = ringfs(&["fsck", "--data", &place.at("store")]);
    assert_eq!(fsck.code, 0, "{fsck:?}");
}

#[test]
fn each_transport_serves_the_null_source_and_says_which_it_is() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    for transport in ["uring", "ring", "blocking", "auto"] {
        let place = Place::new();
        let mut args = vec!["mount", "null:", "", "--transport", transport];
        let mnt = place.mnt();
        args[2] = &mnt;
        if transport == "ring" {
            args.push("--bare");
        }
        let mounted = ringfs(&args);
        // This host may lack a transport; then forcing it must say why.
        if mounted.code != 0 {
            mounted.fails(1, &[transport, "cannot be used"]);
            assert!(!place.is_mounted());
            continue;
        }
        assert!(fs::metadata(format!("{mnt}/absent")).is_err());
        fs::write(format!("{mnt}/anything"), b"gone").unwrap();
        let status = place.status();
        if transport != "auto" {
            assert_eq!(status["transport"]["in_use"], transport);
        }
        ringfs(&["umount", &mnt]).ok();
    }
}

#[test]
fn a_link_to_a_mount_point_is_as_good_as_the_point_also_when_nobody_answers_there() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let (mnt, link, far) = (place.mnt(), place.at("link"), place.at("far"));
    std::os::unix::fs::symlink("mnt", &link).unwrap();
    std::os::unix::fs::symlink(&link, &far).unwrap();
    place.mount(&[]).ok();
    fs::write(format!("{mnt}/file"), b"12345").unwrap();
    for name in [&link, &far] {
        assert_eq!(ringfs(&["status", "--json", name]).ok().json()["mount"]["point"], mnt);
        ringfs(&["flush", name]).ok();
        let info = ringfs(&["info", "--json", &format!("{name}/file")]).ok().json();
        assert_eq!(info["file"]["size_bytes"], 5);
        ringfs(&["mount", &place.at("store"), name]).fails(3, &["already", "ringfs umount"]);
    }
    ringfs(&["umount", &far]).ok();
    assert!(!place.is_mounted());
    // A daemon that is stopped answers nobody.
    place.mount(&[]).ok();
    let daemon = place.daemon();
    kill(daemon, Signal::SIGSTOP).unwrap();
    ringfs(&["mount", &place.at("store"), &far]).fails(1, &["does not answer", "ringfs umount"]);
    let forced = ringfs(&["umount", "--force", "--timeout", "1", &far]);
    kill(daemon, Signal::SIGCONT).unwrap();
    forced.fails(1, &["is unmounted, but its daemon"]);
    assert!(!place.is_mounted());
    eventually("the daemon ends", || !runs(daemon));
    // One that was killed leaves a mount that is only in the table.
    place.mount(&[]).ok();
    place.kill_daemon();
    ringfs(&["umount", &link]).ok();
    assert!(!place.is_mounted());
}

#[test]
fn a_busy_mount_is_refused_with_who_uses_it_and_lazily_outlives_its_users() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    place.mount(&[]).ok();
    let daemon = place.daemon();
    let mut user = Command::new("sleep").arg("1000").current_dir(place.mnt()).spawn().unwrap();
    let pid = format!("sleep ({})", user.id());
    ringfs(&["umount", &place.mnt()]).fails(3, &["in use by", &pid, "--lazy"]);
    assert!(place.is_mounted());
    ringfs(&["umount", "--lazy", &place.mnt()]).ok();
    assert!(!place.is_mounted());
    assert!(runs(daemon), "its user still needs it");
    user.kill().unwrap();
    user.wait().unwrap();
    eventually("the daemon ends with its last user", || !runs(daemon));
}

#[test]
fn a_stale_mount_is_named_by_mount_and_cleaned_by_umount() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    place.mount(&[]).ok();
    let file = format!("{}/synced", place.mnt());
    let mut written = fs::File::create(&file).unwrap();
    written.write_all(b"safe").unwrap();
    written.sync_all().unwrap();
    place.kill_daemon();
    place.mount(&[]).fails(1, &["daemon is gone", "ringfs umount"]);
    ringfs(&["status", &place.mnt()]).fails(1, &["ringfs umount"]);
    ringfs(&["flush", &place.mnt()]).fails(1, &["not flushed"]);
    drop(written);
    ringfs(&["umount", &place.mnt()]).ok();
    assert!(!place.is_mounted());
    place.mount(&[]).ok();
    assert_eq!(fs::read(&file).unwrap(), b"safe");
    ringfs(&["umount", &place.mnt()]).ok();
}

#[test]
fn a_daemon_that_hangs_costs_status_a_moment_and_is_ended_by_force() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    place.mount(&[]).ok();
    let daemon = place.daemon();
    kill(daemon, Signal::SIGSTOP).unwrap();
    ringfs(&["status", &place.mnt()]).fails(1, &["did not answer", "--force"]);
    ringfs(&["umount", "--timeout", "1", &place.mnt()]).fails(1, &["stays mounted", "--force"]);
    assert!(place.is_mounted());
    ringfs(&["umount", "--force", "--timeout", "1", &place.mnt()]).fails(1, &["still runs"]);
    assert!(!place.is_mounted());
    kill(daemon, Signal::SIGCONT).unwrap();
    eventually("the daemon ends when it goes on", || !runs(daemon));
}

#[test]
fn a_signal_unmounts_and_foreground_ends_with_zero() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new();
        let mut mount = Started::new(&["mount", &place.at("store"), &place.mnt(), "--foreground"]);
        eventually("the mount is there", || ringfs(&["status", &place.mnt()]).code == 0);
        fs::write(format!("{}/f", place.mnt()), b"x").unwrap();
        mount.signal(signal);
        assert_eq!(mount.ended(), 0);
        assert!(!place.is_mounted());
    }
}

#[test]
fn plain_umount_ends_the_daemon_too() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    place.mount(&[]).ok();
    let daemon = place.daemon();
    let mut umount = Command::new("umount");
    umount.arg(place.mnt());
    assert_eq!(run(umount).code, 0);
    eventually("the daemon ends", || !runs(daemon));
}

#[test]
fn mount_programs_start_it_their_way() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    if !["/sbin/mount.fuse3", "/usr/sbin/mount.fuse3"].iter().any(|path| Path::new(path).exists()) {
        eprintln!("skipped: no mount.fuse3");
        return;
    }
    let folder = Path::new(RINGFS).parent().unwrap().to_str().unwrap();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let place = Place::new();
    let (store, mnt) = (place.at("store"), place.mnt());
    // What mount(8) starts, which also sets the search path anew.
    let mut mount = Command::new("mount.fuse3");
    mount.args([&store, &mnt, "-t", "fuse.ringfs", "-o", "ro,noatime,_netdev,x-test=1"]).env("PATH", &path);
    assert_eq!(run(mount).code, 0);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(&mnt)).unwrap();
    assert!(line.contains("fuse.ringfs") && line.contains(" ro,") && line.contains("noatime"), "{line}");
    let refused = fs::write(format!("{mnt}/f"), b"x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    ringfs(&["umount", &mnt]).ok();

    // It opens and mounts the device itself and passes it on as /dev/fd/N.
    // What mount(8) starts, which also sets the search path anew.
    let mut mount = Command::new("mount.fuse3");
    mount.args([&store, &mnt, "-t", "fuse.ringfs", "-o", "drop_privileges"]).env("PATH", &path);
    assert_eq!(run(mount).code, 0);
    fs::write(format!("{mnt}/f"), b"x").unwrap();
    let mut umount = Command::new("umount");
    umount.arg(&mnt);
    assert_eq!(run(umount).code, 0);
    eventually("the store is free again", || {
        let free = ringfs(&["fsck", &store]).code == 0;
        free && !is_mounted(Path::new(&mnt))
    });
}

#[test]
fn systemd_is_told_when_the_mount_is_there() {
    if !can_mount() {
        return;
    }
    let _host = host::as_it_is();
    let place = Place::new();
    let socket = std::os::unix::net::UnixDatagram::bind(place.at("notify")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut command = Command::new(RINGFS);
    command.args(["mount", "null:", &place.mnt(), "-f"]).env("NOTIFY_SOCKET", place.at("notify"));
    let mut mount = Started(command.stderr(std::process::Stdio::null()).spawn().unwrap());
    let mut message = [0; 512];
    let bytes = socket.recv(&mut message).unwrap();
    assert!(message[..bytes].starts_with(b"READY=1\n"));
    assert!(place.is_mounted());
    ringfs(&["umount", &place.mnt()]).ok();
    assert_eq!(mount.ended(), 0);
    let bytes = socket.recv(&mut message).unwrap();
    assert!(message[..bytes].starts_with(b"STOPPING=1"));
}
