//! Names: made, renamed and removed faster than the server hears of it.

use crate::pair::{Pair, listing, set};
use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[test]
fn a_file_renamed_right_after_close_has_its_new_name_alone() {
    let Some(pair) = Pair::new() else { return };
    pair.slow(|| {
        for n in 0..50 {
            fs::write(pair.a.join(format!("old{n}")), b"x").unwrap();
            fs::rename(pair.a.join(format!("old{n}")), pair.a.join(format!("new{n}"))).unwrap();
        }
    });
    for mount in [&pair.a, &pair.b] {
        let names = listing(mount);
        assert!(names.len() == 50 && names.iter().all(|name| name.starts_with("new")), "{names:?}");
    }
    assert!(!pair.b.join("old7").exists());
    pair.end();
}

#[test]
fn files_removed_right_after_close_never_come_back() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..300 {
        let path = pair.a.join(format!("f{}", n % 7));
        File::create_new(&path).unwrap();
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(listing(&pair.b), set([]));
    assert_eq!(listing(&pair.a), set([]));
    pair.end();
}

#[test]
fn a_late_removal_never_takes_the_new_file_of_that_name() {
    let Some(pair) = Pair::new() else { return };
    pair.slow(|| {
        for n in 0..100 {
            let path = pair.a.join("f");
            fs::write(&path, n.to_string()).unwrap();
            if n < 99 {
                fs::remove_file(&path).unwrap();
            }
        }
    });
    assert_eq!(fs::read_to_string(pair.b.join("f")).unwrap(), "99");
    assert_eq!(listing(&pair.a), set(["f"]));
    pair.end();
}

#[test]
fn a_file_that_is_not_closed_can_be_renamed() {
    let Some(pair) = Pair::new() else { return };
    let mut file = File::create_new(pair.a.join("f")).unwrap();
    fs::rename(pair.a.join("f"), pair.a.join("g")).unwrap();
    file.write_all(b"through the old descriptor").unwrap();
    assert_eq!(fs::read(pair.b.join("g")).unwrap(), b"through the old descriptor");
    assert_eq!(listing(&pair.b), set(["g"]));
    drop(file);
    pair.end();
}

#[test]
fn a_folder_moves_with_children_that_are_on_their_way() {
    let Some(pair) = Pair::new() else { return };
    pair.slow(|| {
        fs::create_dir_all(pair.a.join("d/e")).unwrap();
        for n in 0..20 {
            File::create_new(pair.a.join(format!("d/e/f{n}"))).unwrap();
        }
        fs::create_dir(pair.a.join("other")).unwrap();
        fs::rename(pair.a.join("d"), pair.a.join("other/moved")).unwrap();
        File::create_new(pair.a.join("other/moved/e/last")).unwrap();
    });
    assert_eq!(listing(&pair.b.join("other/moved/e")).len(), 21);
    assert_eq!(listing(&pair.b), set(["other"]));
    // `..` leads to where it is now, also for the kernel that moved it.
    for mount in [&pair.a, &pair.b] {
        let (up, other) = (mount.join("other/moved/.."), mount.join("other"));
        assert_eq!(fs::metadata(up).unwrap().ino(), fs::metadata(other).unwrap().ino());
    }
    pair.end();
}

#[test]
fn a_folder_that_is_renamed_while_files_are_made_in_it_loses_none() {
    let Some(pair) = Pair::new() else { return };
    fs::create_dir(pair.a.join("d0")).unwrap();
    let inside =
        rustix::fs::open(pair.a.join("d0"), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..100 {
                fs::rename(pair.a.join(format!("d{n}")), pair.a.join(format!("d{}", n + 1))).unwrap();
            }
        });
        for n in 0..200 {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&inside, format!("f{n}"), flags, Mode::RUSR).unwrap();
        }
    });
    assert_eq!(listing(&pair.b), set(["d100"]));
    assert_eq!(listing(&pair.b.join("d100")).len(), 200);
    assert_eq!(listing(&pair.a.join("d100")).len(), 200);
    drop(inside);
    pair.end();
}

#[test]
fn two_names_of_one_file_renamed_onto_each_other_both_stay() {
    let Some(pair) = Pair::new() else { return };
    fs::write(pair.a.join("f"), b"x").unwrap();
    fs::hard_link(pair.a.join("f"), pair.a.join("g")).unwrap();
    fs::rename(pair.a.join("f"), pair.a.join("g")).unwrap();
    fs::rename(pair.a.join("f"), pair.a.join("f")).unwrap();
    for mount in [&pair.a, &pair.b] {
        assert_eq!(listing(mount), set(["f", "g"]));
        assert_eq!(fs::metadata(mount.join("f")).unwrap().nlink(), 2);
    }
    pair.end();
}

#[test]
fn a_rename_that_fails_leaves_the_open_target_and_what_is_written_to_it() {
    let Some(pair) = Pair::new() else { return };
    let mut target = File::create_new(pair.a.join("target")).unwrap();
    target.write_all(b"before ").unwrap();
    fs::create_dir(pair.a.join("folder")).unwrap();
    let failed = fs::rename(pair.a.join("folder"), pair.a.join("target")).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ENOTDIR));
    target.write_all(b"after").unwrap();
    assert_eq!(fs::read(pair.b.join("target")).unwrap(), b"before after");
    // And one that succeeds takes the name, not the bytes of the open one.
    fs::write(pair.a.join("new"), b"new").unwrap();
    fs::rename(pair.a.join("new"), pair.a.join("target")).unwrap();
    target.write_all(b" and later").unwrap();
    drop(target);
    assert_eq!(fs::read(pair.b.join("target")).unwrap(), b"new");
    assert_eq!(fs::read(pair.a.join("target")).unwrap(), b"new");
    pair.end();
}

#[test]
fn the_source_of_a_rename_is_gone_on_every_mount_that_knew_it() {
    let Some(pair) = Pair::new() else { return };
    fs::create_dir(pair.a.join("d")).unwrap();
    for n in 0..30 {
        fs::write(pair.a.join("f"), b"x").unwrap();
        assert!(pair.b.join("f").exists());
        let to = format!("d/g{n}");
        fs::rename(pair.a.join("f"), pair.a.join(&to)).unwrap();
        assert!(!pair.b.join("f").exists() && pair.b.join(to).exists());
    }
    assert_eq!(listing(&pair.b), set(["d"]));
    pair.end();
}

#[test]
fn a_name_may_be_any_bytes_but_slash_and_zero() {
    let Some(pair) = Pair::new() else { return };
    let long = "n".repeat(255);
    let names: [&[u8]; 7] =
        [b"\xff\xfe", b"new\nline", b"a:b;c", b" ", b"...", "\u{2028}".as_bytes(), long.as_bytes()];
    for name in names {
        let name = std::ffi::OsStr::from_bytes(name);
        File::create_new(pair.a.join(name)).unwrap();
        assert!(pair.b.join(name).exists(), "{name:?}");
    }
    let too_long = File::create_new(pair.a.join("n".repeat(256))).unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::ENAMETOOLONG));
    assert_eq!(fs::read_dir(&pair.b).unwrap().count(), names.len());
    pair.end();
}

#[test]
fn link_counts_of_folders_count_the_folders_in_them() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..5 {
        fs::create_dir(pair.a.join(format!("d{n}"))).unwrap();
    }
    fs::rename(pair.a.join("d0"), pair.a.join("d1/d0")).unwrap();
    fs::remove_dir(pair.a.join("d2")).unwrap();
    for mount in [&pair.a, &pair.b] {
        let links = |path: &str| fs::metadata(mount.join(path)).unwrap().nlink();
        assert_eq!((links(""), links("d1"), links("d1/d0")), (2 + 3, 3, 2), "{}", mount.display());
    }
    pair.end();
}

#[test]
fn links_made_and_removed_at_once_on_siblings_are_counted_right() {
    let Some(pair) = Pair::new() else { return };
    fs::write(pair.a.join("f"), b"x").unwrap();
    std::thread::scope(|scope| {
        for (thread, mount) in [&pair.a, &pair.a, &pair.b].into_iter().enumerate() {
            scope.spawn(move || {
                for n in 0..40 {
                    let name = mount.join(format!("l{thread}-{n}"));
                    fs::hard_link(mount.join("f"), &name).unwrap();
                    if n % 2 == 0 {
                        fs::remove_file(name).unwrap();
                    }
                }
            });
        }
    });
    for mount in [&pair.a, &pair.b] {
        assert_eq!(fs::metadata(mount.join("f")).unwrap().nlink(), 1 + 3 * 20);
        assert_eq!(listing(mount).len(), 1 + 3 * 20);
    }
    pair.end();
}

#[test]
fn a_file_without_a_name_left_cannot_be_linked_and_one_made_without_can() {
    let Some(pair) = Pair::new() else { return };
    let link = |file: &dyn AsRawFd, to: &Path| {
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)
    };
    let file = File::create_new(pair.a.join("f")).unwrap();
    fs::remove_file(pair.a.join("f")).unwrap();
    assert_eq!(link(&file, &pair.a.join("g")), Err(rustix::io::Errno::NOENT));
    file.sync_all().unwrap();
    let made =
        rustix::fs::open(&pair.a, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR).unwrap();
    rustix::io::write(&made, b"made").unwrap();
    link(&made, &pair.a.join("named")).unwrap();
    assert_eq!(fs::read(pair.b.join("named")).unwrap(), b"made");
    assert_eq!(listing(&pair.a), set(["named"]));
    drop((file, made));
    pair.end();
}

#[test]
fn listings_tell_the_numbers_that_stat_tells_before_and_after_the_server_knows_them() {
    let Some(pair) = Pair::new() else { return };
    let numbers = |mount: &Path| {
        let mut all: Vec<_> = Vec::new();
        let dir = rustix::fs::open(mount, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for entry in rustix::fs::Dir::read_from(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap().to_owned();
            if !name.starts_with('.') {
                let told = fs::symlink_metadata(mount.join(&name)).unwrap().ino();
                assert_eq!(entry.ino(), told, "{name}");
                all.push((name, told));
            }
        }
        all.sort();
        all
    };
    let before = pair.slow(|| {
        for n in 0..30 {
            File::create_new(pair.a.join(format!("f{n}"))).unwrap();
        }
        numbers(&pair.a)
    });
    crate::fixture::ringfs(&["flush", pair.a.to_str().unwrap()]).ok();
    assert_eq!(before, numbers(&pair.a));
    assert_eq!(before, numbers(&pair.b));
    pair.end();
}

#[test]
fn positions_in_a_listing_stay_when_what_is_listed_reaches_the_server() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..400 {
        File::create_new(pair.a.join(format!("f{n}"))).unwrap();
    }
    let dir = rustix::fs::open(&pair.a, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut buffer = Vec::with_capacity(2048);
    let mut seen = std::collections::BTreeSet::new();
    let mut rounds = 0;
    loop {
        // A new reader each time, at the position where the last one stopped.
        let mut reader = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
        let mut some = false;
        let mut last = 0;
        for _ in 0..20 {
            let Some(entry) = reader.next() else { break };
            let entry = entry.unwrap();
            some = true;
            last = entry.next_entry_cookie();
            let name = entry.file_name().to_str().unwrap().to_owned();
            assert!(name.starts_with('.') || seen.insert(name.clone()), "{name} came twice");
        }
        if !some {
            break;
        }
        if rounds % 2 == 0 {
            crate::fixture::ringfs(&["flush", pair.a.to_str().unwrap()]).ok();
            // And from here on everything is looked up anew.
            assert!(pair.b.join("f7").exists());
            fs::write(pair.b.join("f7"), rounds.to_string()).unwrap();
        }
        rounds += 1;
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(last)).unwrap();
    }
    assert_eq!(seen.len(), 400, "after {rounds} readers");
    drop(dir);
    pair.end();
}

#[test]
fn a_tree_of_many_names_never_runs_out_of_numbers_and_uses_none_twice() {
    let Some(pair) = Pair::new() else { return };
    let mut numbers = std::collections::BTreeSet::new();
    for folder in 0..8 {
        let folder = pair.a.join(format!("d{folder}"));
        fs::create_dir(&folder).unwrap();
        for n in 0..250 {
            let file = File::create_new(folder.join(n.to_string())).unwrap();
            assert!(numbers.insert(file.metadata().unwrap().ino()));
        }
    }
    fs::remove_dir_all(pair.a.join("d0")).unwrap();
    pair.stage.kill_daemon("a");
    pair.stage.umount("a");
    pair.stage.mount("a");
    for n in 0..100 {
        let file = File::create_new(pair.a.join(format!("new{n}"))).unwrap();
        assert!(numbers.insert(file.metadata().unwrap().ino()), "a number twice");
    }
    pair.end();
}

#[test]
fn one_bad_request_among_a_thousand_harms_itself_alone() {
    let Some(pair) = Pair::new() else { return };
    fs::create_dir(pair.a.join("full")).unwrap();
    File::create_new(pair.a.join("full/f")).unwrap();
    for n in 0..1000 {
        let path = pair.a.join(format!("f{n}"));
        File::create_new(&path).unwrap();
        if n % 100 == 50 {
            let errno = |result: Result<(), std::io::Error>| {
                Errno::from_raw(result.unwrap_err().raw_os_error().unwrap())
            };
            assert_eq!(errno(fs::create_dir(&path)), Errno::EEXIST);
            assert_eq!(errno(fs::remove_dir(&path)), Errno::ENOTDIR);
            assert_eq!(errno(fs::remove_file(pair.a.join("full"))), Errno::EISDIR);
            assert_eq!(errno(fs::remove_dir(pair.a.join("full"))), Errno::ENOTEMPTY);
            assert_eq!(errno(fs::rename(pair.a.join("full"), pair.a.join("full/below"))), Errno::EINVAL);
            assert_eq!(errno(fs::hard_link(pair.a.join("full"), pair.a.join("l"))), Errno::EPERM);
        }
    }
    assert_eq!(listing(&pair.b).len(), 1001);
    pair.end();
}
