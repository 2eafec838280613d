//! Attributes: who owns what is made, which rights it gets, and times that stay what they were set to.

use crate::fixture::ringfs;
use crate::pair::Pair;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn times_that_were_set_stay_when_the_server_hears_of_them() {
    let Some(pair) = Pair::new() else { return };
    let old = Timespec { tv_sec: 1_000_000, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: old, last_modification: old };
    pair.slow(|| {
        for n in 0..20 {
            let path = pair.a.join(format!("f{n}"));
            fs::write(&path, b"x").unwrap();
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        }
    });
    ringfs(&["flush", pair.a.to_str().unwrap()]).ok();
    for mount in [&pair.a, &pair.b] {
        for n in 0..20 {
            let stat = fs::metadata(mount.join(format!("f{n}"))).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec()), (old.tv_sec, old.tv_nsec));
        }
    }
    pair.end();
}

fn ctime(path: &Path) -> (i64, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.ctime(), stat.ctime_nsec())
}

#[test]
fn the_times_of_a_folder_never_go_back_when_the_server_answers() {
    let Some(pair) = Pair::new() else { return };
    fs::create_dir(pair.a.join("d")).unwrap();
    let (dir, mut last) = (pair.a.join("d"), (0, 0));
    for n in 0..100 {
        File::create_new(dir.join(format!("f{n}"))).unwrap();
        let here = ctime(&dir);
        assert!(here > last, "{n}: {here:?} after {last:?}");
        if n % 10 == 0 {
            assert_eq!(ctime(&pair.b.join("d")), here);
            File::create_new(pair.b.join(format!("d/other{n}"))).unwrap();
            assert!(ctime(&dir) > here);
        }
        if n % 10 == 5 {
            ringfs(&["flush", pair.a.to_str().unwrap()]).ok();
            assert_eq!(ctime(&dir), here);
        }
        last = ctime(&dir);
    }
    pair.end();
}

#[test]
fn owner_and_mode_stay_while_many_look_at_a_file_that_is_being_made() {
    let Some(pair) = Pair::new() else { return };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mount in [&pair.a, &pair.b] {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for n in 0..40 {
                        let Ok(stat) = fs::metadata(mount.join(format!("f{n}"))) else { break };
                        let seen = (stat.uid(), stat.mode() & 0o7777);
                        // Made, given away, and its mode set, in this order.
                        let right = [(0, 0o600), (1234, 0o600), (1234, 0o640)];
                        assert!(right.contains(&seen), "f{n}: {seen:?}");
                    }
                }
            });
        }
        for n in 0..40 {
            let path = pair.a.join(format!("f{n}"));
            let mut options = File::options();
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            drop(options.write(true).create_new(true).open(&path).unwrap());
            std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    pair.end();
}

/// Runs a script on a mount; it must work.
fn shell(mount: &Path, script: &str) -> String {
    let out = Command::new("sh").args(["-euc", script]).current_dir(mount).output().unwrap();
    assert!(out.status.success(), "{script}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn umask_and_setgid_folders_decide_what_new_files_get() {
    let Some(pair) = Pair::new() else { return };
    let script = "umask 027; touch f; mkdir d g; chgrp 4321 g; chmod 2770 g; touch g/f; mkdir g/d; ln -s x l";
    pair.slow(|| shell(&pair.a, script));
    let look = "stat -c '%n %a %g' f d g g/f g/d l";
    let wanted = "f 640 0\nd 750 0\ng 2770 4321\ng/f 640 4321\ng/d 2750 4321\nl 777 0\n";
    assert_eq!(shell(&pair.a, look), wanted);
    assert_eq!(shell(&pair.b, look), wanted);
    pair.end();
}

#[test]
fn a_default_acl_and_attributes_of_a_folder_reach_what_is_made_in_it() {
    let Some(pair) = Pair::new() else { return };
    let folder = pair.a.join("d");
    fs::create_dir(&folder).unwrap();
    // Version 2; owner rwx, user 1000 rwx, group r-x, mask rwx, others nothing.
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(rights.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(&folder, name, &acl, rustix::fs::XattrFlags::empty()).unwrap();
    let get = |path: &Path, name: &str| {
        let mut value = vec![0; 200];
        let len = rustix::fs::getxattr(path, name, &mut value[..])?;
        value.truncate(len);
        Ok::<_, rustix::io::Errno>(value)
    };
    pair.slow(|| {
        fs::create_dir(folder.join("e")).unwrap();
        File::create_new(folder.join("e/f")).unwrap();
    });
    for mount in [&pair.a, &pair.b] {
        assert_eq!(get(&mount.join("d/e"), name), Ok(acl.clone()));
        assert!(get(&mount.join("d/e/f"), "system.posix_acl_access").is_ok());
        assert_eq!(get(&mount.join("d/e/f"), "user.none"), Err(rustix::io::Errno::NODATA));
    }
    // And one set on this mount counts at once on the other.
    rustix::fs::setxattr(pair.a.join("d/e/f"), "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(get(&pair.b.join("d/e/f"), "user.x"), Ok(b"1".to_vec()));
    rustix::fs::setxattr(pair.b.join("d/e/f"), "user.x", b"2", rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(get(&pair.a.join("d/e/f"), "user.x"), Ok(b"2".to_vec()));
    pair.end();
}

#[test]
fn the_sticky_bit_protects_files_that_are_on_their_way() {
    let Some(pair) = Pair::new() else { return };
    let as_user = |uid: u32, mount: &Path, script: &str| {
        let mut command = Command::new("sh");
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        command.args(["-c", script]).current_dir(mount).output().unwrap().status.success()
    };
    fs::create_dir(pair.a.join("t")).unwrap();
    fs::set_permissions(pair.a.join("t"), fs::Permissions::from_mode(0o1777)).unwrap();
    pair.slow(|| assert!(as_user(1000, &pair.a, "touch t/f")));
    for mount in [&pair.a, &pair.b] {
        assert!(!as_user(1001, mount, "rm -f t/f"), "{}", mount.display());
        assert!(!as_user(1001, mount, "mv t/f t/g"), "{}", mount.display());
    }
    assert!(as_user(1000, &pair.b, "rm t/f"));
    assert!(!pair.a.join("t/f").exists());
    pair.end();
}

#[test]
fn rights_that_another_mount_takes_away_count_at_once() {
    let Some(pair) = Pair::new() else { return };
    let may = |mount: &Path| {
        let mut command = Command::new("sh");
        std::os::unix::process::CommandExt::uid(&mut command, 1000);
        command.args(["-c", ": >>d/f"]).current_dir(mount).output().unwrap().status.success()
    };
    fs::create_dir(pair.a.join("d")).unwrap();
    fs::set_permissions(pair.a.join("d"), fs::Permissions::from_mode(0o777)).unwrap();
    for round in 0..10 {
        assert!(may(&pair.a), "round {round}");
        fs::set_permissions(pair.b.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!may(&pair.a), "round {round}");
        fs::set_permissions(pair.b.join("d"), fs::Permissions::from_mode(0o777)).unwrap();
    }
    pair.end();
}
