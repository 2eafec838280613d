//! One mount.

use crate::ground::{Way, World, can_mount, eventually};
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, fstat};
use ringfs::client::namespace::InodeCounts;
use ringfs::kernel::transport::Kind;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;

/// The example that makes every system call.
fn exercise() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    // target/debug/deps/mount-… to target/debug/examples/exercise
    path.pop();
    path.pop();
    path.join("examples/exercise")
}

fn every_call(way: Way, kind: Kind) {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let Some(mounted) = world.mount(way, kind) else { return };
    let out = Command::new(exercise()).arg(&mounted.point).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{way:?} {kind}:\n{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.lines().filter(|line| line.starts_with("PASS")).count() > 30, "{text}");
    eventually("everything is dropped that was held", || mounted.client.namespace.inodes.counts().held == 0);
    assert!(mounted.client.namespace.handles.is_empty());
    assert!(mounted.client.namespace.locks.all().is_empty());
}

#[test]
fn every_call_over_uring_with_the_server_inside() {
    every_call(Way::Inside, Kind::Uring);
}

#[test]
fn every_call_over_uring_and_a_socket() {
    every_call(Way::Socket, Kind::Uring);
}

#[test]
fn every_call_over_the_ring() {
    every_call(Way::Inside, Kind::Ring);
}

#[test]
fn every_call_over_reads_and_writes() {
    every_call(Way::Inside, Kind::Blocking);
}

#[test]
fn the_client_forgets_what_the_kernel_forgets() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    for nth in 0..300 {
        fs::create_dir(mounted.path(format!("d{nth}"))).unwrap();
        fs::write(mounted.path(format!("d{nth}/f")), "x").unwrap();
    }
    assert!(mounted.client.namespace.inodes.counts().known >= 600);
    for nth in 0..300 {
        fs::remove_dir_all(mounted.path(format!("d{nth}"))).unwrap();
    }
    eventually("all counts are zero", || {
        let InodeCounts { known, held, orphans } = mounted.client.namespace.inodes.counts();
        // The root stays known where a listing or an entry has told it.
        known <= 1 && held == 0 && orphans == 0
    });
    eventually("nothing is open or waits", || {
        let status = mounted.client.status();
        (status.mutations_unsettled, status.handles_open) == (0, 0)
    });
}

#[test]
fn a_file_that_nobody_opened_lives_on_under_an_o_path_descriptor() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    let path = mounted.path("f");
    fs::write(&path, "content").unwrap();
    let fd = open(&path, OFlag::O_PATH, Mode::empty()).unwrap();
    fs::remove_file(&path).unwrap();
    let stat = fstat(&fd).unwrap();
    assert_eq!((stat.st_nlink, stat.st_size), (0, 7));
    // And it can be read through /proc, as a program does that was handed the descriptor.
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    assert_eq!(fs::read_to_string(again).unwrap(), "content");
    drop(fd);
    eventually("it is dropped", || mounted.client.namespace.inodes.counts().held == 0);
}

#[test]
fn a_removed_working_directory_still_answers() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    fs::create_dir(mounted.path("d")).unwrap();
    let out = Command::new("sh")
        .args(["-c", "rmdir ../d && stat -c %h . && ls -a . && ! touch f 2>/dev/null && echo refused"])
        .current_dir(mounted.path("d"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.starts_with("0\n") && text.ends_with("refused\n"), "{text:?} {out:?}");
}

#[test]
fn an_anonymous_file_gets_a_name_and_keeps_it() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    let fd = match open(&mounted.point, OFlag::O_TMPFILE | OFlag::O_RDWR, Mode::from_bits_truncate(0o640)) {
        Err(nix::errno::Errno::EOPNOTSUPP) => {
            return eprintln!("skipped: no O_TMPFILE over FUSE before Linux 6.1");
        }
        other => other.unwrap(),
    };
    let mut file = fs::File::from(fd);
    file.write_all(b"anonymous").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let cwd = nix::fcntl::AT_FDCWD;
    nix::unistd::linkat(cwd, from.as_str(), cwd, &mounted.path("named"), AtFlags::AT_SYMLINK_FOLLOW).unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(mounted.path("named")).unwrap(), "anonymous");
    assert_eq!(fs::metadata(mounted.path("named")).unwrap().nlink(), 1);
}

#[test]
fn a_listing_of_twenty_thousand_names_survives_deletes_and_seeks() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    let dir = mounted.path("many");
    fs::create_dir(&dir).unwrap();
    // Names of one file are made faster than files.
    fs::write(dir.join("0"), "").unwrap();
    for nth in 1..20_000 {
        fs::hard_link(dir.join("0"), dir.join(nth.to_string())).unwrap();
    }
    let mut seen = BTreeSet::new();
    for (nth, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.insert(name.clone()), "{name} came twice");
        if nth % 3 == 0 {
            fs::remove_file(dir.join(&name)).unwrap();
        }
    }
    assert_eq!(seen.len(), 20_000, "none was missed");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 20_000 - 20_000usize.div_ceil(3));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_is_written_in_pieces_is_read_as_a_whole_and_at_every_offset() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    let path = mounted.path("f");
    let mut file = fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let bytes: Vec<u8> =
        (0..3_000_017u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let mut at = 0;
    for piece in [1, 4095, 4096, 4097, 65_536, 1_048_576, 1_500_000].into_iter().cycle() {
        let end = bytes.len().min(at + piece);
        file.write_all(&bytes[at..end]).unwrap();
        at = end;
        if at == bytes.len() {
            break;
        }
    }
    let mut back = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut back).unwrap();
    assert!(back == bytes);
    for (offset, len) in [(0, 1), (4095, 2), (999_999, 123_457), (3_000_016, 100)] {
        let mut piece = vec![0; len];
        let n = file.read_at(&mut piece, offset as u64).unwrap();
        assert!(piece[..n] == bytes[offset..bytes.len().min(offset + len)]);
    }
    file.set_len(10).unwrap();
    file.set_len(20).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [&bytes[..10], &[0; 10]].concat());
}

#[test]
fn an_archive_that_is_unpacked_and_packed_again_is_the_same() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Inside);
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("tree");
    for nth in 0..40 {
        let dir = source.join(format!("d{}/e{}", nth % 4, nth % 7));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{nth}")), vec![b'a' + u8::try_from(nth % 26).unwrap(); nth * 997])
            .unwrap();
    }
    std::os::unix::fs::symlink("d0/e0", source.join("link")).unwrap();
    let run = |script: &str| {
        let out = Command::new("sh").args(["-ec", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {out:?}");
        out.stdout
    };
    let (from, to) = (source.display(), mounted.path("tree"));
    let to = to.display();
    run(&format!(
        "mkdir {to}; tar -C {from} --format=posix -cf - . | tar -C {to} -xpf -; diff -r --no-dereference {from} {to}"
    ));
    let pack = |dir: &dyn std::fmt::Display| {
        run(&format!(
            "tar -C {dir} --sort=name --format=posix --pax-option=delete=atime,delete=ctime -cf - . | cksum"
        ))
    };
    assert_eq!(pack(&from), pack(&to), "with owners, modes and times in nanoseconds");
    run(&format!("rm -rf {to}"));
    assert_eq!(fs::read_dir(&mounted.point).unwrap().count(), 0);
}
