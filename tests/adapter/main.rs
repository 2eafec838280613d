//! The passthrough file system of fuse-backend-rs, served by each transport: what is done on the mount must be found
//! in the directory below it, and the other way round.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use fuse_backend_rs::passthrough::{Config, PassthroughFs};
use ringfs::kernel::adapter::Adapter;
use ringfs::kernel::transport::{Choice, End, Kind, MountOptions, Options, mount, serve, unmount};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

fn on_each_transport(check: impl Fn(&Path, &Path)) {
    if !nix::unistd::geteuid().is_root() || !Path::new(ringfs::kernel::transport::DEVICE).exists() {
        eprintln!("skipped: needs root and /dev/fuse");
        return;
    }
    for kind in [Kind::Blocking, Kind::Ring, Kind::Uring] {
        let scratch = tempfile::tempdir().unwrap();
        let (below, point) = (scratch.path().join("below"), scratch.path().join("mnt"));
        fs::create_dir(&below).unwrap();
        fs::create_dir(&point).unwrap();
        let root_dir = below.to_str().unwrap().to_owned();
        let config = Config { root_dir, do_import: true, xattr: true, ..Config::default() };
        let passthrough = PassthroughFs::<()>::new(config).unwrap();
        passthrough.import().unwrap();
        let device = mount(&point, &MountOptions::new("passthrough")).unwrap();
        let options = Options { choice: Choice::Only(kind), ..Options::default() };
        let running = match serve(device, Arc::new(Adapter::new(passthrough)), &options) {
            Ok(running) => running,
            Err(fault) => {
                unmount(&point, true).unwrap();
                eprintln!("skipped on {kind}: {fault}");
                continue;
            }
        };
        assert_eq!(running.kind(), kind);
        check(&point, &below);
        unmount(&point, false).unwrap();
        assert!(matches!(running.wait(), End::Unmounted), "on {kind}");
    }
}

/// Every path below `root` with its type and content.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                open.push(path.clone());
                "directory".to_owned()
            } else if meta.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("{} bytes, {} names, {:x?}", meta.len(), meta.nlink(), fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), content);
        }
    }
    found
}

#[test]
fn what_is_done_above_is_found_below_and_the_other_way_round() {
    on_each_transport(|point, below| {
        fs::create_dir_all(point.join("a/b/c")).unwrap();
        fs::write(point.join("a/file"), vec![7; 300_000]).unwrap();
        fs::write(point.join("a/b/empty"), "").unwrap();
        fs::hard_link(point.join("a/file"), point.join("a/b/same")).unwrap();
        symlink("../file", point.join("a/b/link")).unwrap();
        fs::rename(point.join("a/b/empty"), point.join("a/moved")).unwrap();
        fs::write(below.join("a/b/c/under"), "from below").unwrap();
        assert_eq!(tree(point), tree(below));
        assert_eq!(fs::read_to_string(point.join("a/b/c/under")).unwrap(), "from below");
        fs::remove_file(point.join("a/b/same")).unwrap();
        fs::remove_dir_all(point.join("a/b/c")).unwrap();
        assert_eq!(tree(point), tree(below));
        fs::remove_dir_all(point.join("a")).unwrap();
        assert!(tree(below).is_empty());
    });
}

#[test]
fn a_listing_of_many_names_is_whole() {
    on_each_transport(|point, below| {
        for nth in 0..3000 {
            fs::write(below.join(format!("name-{nth}")), "").unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(point)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 3000);
    });
}

#[test]
fn an_error_below_is_the_same_error_above() {
    on_each_transport(|point, _| {
        fs::create_dir(point.join("d")).unwrap();
        fs::write(point.join("d/f"), "x").unwrap();
        let raw = |error: std::io::Error| error.raw_os_error().unwrap();
        assert_eq!(raw(fs::remove_dir(point.join("d")).unwrap_err()), libc::ENOTEMPTY);
        assert_eq!(raw(fs::create_dir(point.join("d")).unwrap_err()), libc::EEXIST);
        assert_eq!(raw(fs::read(point.join("none")).unwrap_err()), libc::ENOENT);
        assert_eq!(raw(fs::remove_file(point.join("d")).unwrap_err()), libc::EISDIR);
    });
}
