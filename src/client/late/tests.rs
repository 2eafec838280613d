use super::cursors::INODES_MAX;
use super::record::LINES_MAX;
use super::{
    Cursor, Errors, Failure, Late, LateOptions, RescueFault, default_folder, discard, list, range_lines,
    retrieve,
};
use crate::base::{Errno, Ino, Name};
use crate::wire::{Mutation, WriteFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: Ino = Ino(7);
const FOLDER: Ino = Ino(3);

fn write(offset: u64, data: &[u8]) -> Mutation<'_> {
    Mutation::Write { ino: FILE, offset, flags: WriteFlags::default(), data }
}

fn unlink() -> Mutation<'static> {
    Mutation::Unlink { parent: FOLDER, name: Name::parse(b"name").unwrap(), ino: Some(FILE), hold: false }
}

fn fail(late: &Late, mutation: &Mutation<'_>, errno: Errno, seconds: u64) {
    let failure =
        Failure { mutation, errno, path: Some(b"dir/file"), seconds, now: Duration::from_secs(seconds) };
    late.failed(&failure, [FILE, FOLDER, Ino::ROOT]);
}

#[test]
fn each_descriptor_learns_of_each_error_once() {
    let mut errors = Errors::default();
    let (mut first, mut second) = (errors.open(Some(FILE)), errors.open(Some(FILE)));
    let mut other = errors.open(Some(Ino(8)));
    errors.raise(Some(FILE), Errno::ENOSPC);
    assert_eq!(errors.check(Some(FILE), &mut first), Err(Errno::ENOSPC));
    assert_eq!(errors.check(Some(FILE), &mut first), Ok(()));
    let mut late = errors.open(Some(FILE));
    assert_eq!(errors.check(Some(FILE), &mut late), Ok(()), "it was told, and this one came after");
    assert_eq!(errors.check(Some(FILE), &mut second), Err(Errno::ENOSPC));
    errors.raise(Some(FILE), Errno::EDQUOT);
    errors.raise(Some(FILE), Errno::ESTALE);
    assert_eq!(errors.check(Some(FILE), &mut second), Err(Errno::EIO), "what a sync may say");
    assert_eq!(errors.check(Some(FILE), &mut late), Err(Errno::EIO));
    assert_eq!(errors.check(Some(Ino(8)), &mut other), Ok(()));
}

#[test]
fn an_error_that_nobody_saw_waits_for_the_next_who_opens() {
    let mut errors = Errors::default();
    errors.raise(Some(FILE), Errno::EROFS);
    errors.raise(Some(Ino(8)), Errno::EIO);
    let (mut first, mut second) = (errors.open(Some(FILE)), errors.open(Some(FILE)));
    assert_eq!(errors.check(Some(FILE), &mut first), Err(Errno::EROFS));
    assert_eq!(errors.check(Some(FILE), &mut second), Err(Errno::EROFS), "it was open before that");
    let mut third = errors.open(Some(FILE));
    assert_eq!(errors.check(Some(FILE), &mut third), Ok(()));
}

#[test]
fn remembered_errors_have_a_bound_and_those_that_were_seen_go_first() {
    let mut errors = Errors::default();
    errors.raise(Some(FILE), Errno::EIO);
    let many = INODES_MAX as u64;
    for ino in 100..100 + many {
        errors.raise(Some(Ino(ino)), Errno::EIO);
        if ino > 200 {
            let mut seen = Cursor::default();
            assert_eq!(errors.check(Some(Ino(ino)), &mut seen), Err(Errno::EIO));
        }
    }
    let mut next = errors.open(Some(FILE));
    assert_eq!(errors.check(Some(FILE), &mut next), Err(Errno::EIO), "nobody has seen it");
}

#[test]
fn the_inode_its_directories_and_the_mount_learn_of_it() {
    let late = Late::new(LateOptions::default());
    let mut cursors = [FILE, FOLDER, Ino::ROOT].map(|ino| (ino, late.open(ino)));
    let (mut mount, mut stranger) = (late.open_mount(), late.open(Ino(99)));
    fail(&late, &unlink(), Errno::ENOENT, 1);
    for (ino, cursor) in &mut cursors {
        assert_eq!((late.check(*ino, cursor), late.check(*ino, cursor)), (Err(Errno::EIO), Ok(())));
    }
    assert_eq!((late.check_mount(&mut mount), late.check_mount(&mut mount)), (Err(Errno::EIO), Ok(())));
    assert_eq!(late.check(Ino(99), &mut stranger), Ok(()));
}

#[test]
fn the_list_says_what_failed_and_what_to_do() {
    let late = Late::new(LateOptions::default());
    fail(&late, &unlink(), Errno::ENOENT, 5);
    fail(&late, &write(0, b"data"), Errno::ENOSPC, 6);
    let report = late.report();
    let told: Vec<_> = report
        .failures
        .iter()
        .map(|line| (line.number, line.seconds, line.op.as_str(), line.path.as_deref(), line.errno.as_str()))
        .collect();
    assert_eq!(
        told,
        [(1, 5, "unlink", Some("dir/file"), "ENOENT"), (2, 6, "write", Some("dir/file"), "ENOSPC")]
    );
    assert!(report.failures[1].what_to_do.starts_with("make room on the server"));
    assert_eq!((report.status.gone_bytes, report.status.failures), (4, 2));
    assert_eq!(report.status.by_kind.get("write ENOSPC"), Some(&1));
    for second in 0..2 * LINES_MAX as u64 {
        fail(&late, &unlink(), Errno::EIO, 1000 * second);
    }
    assert_eq!(late.report().failures.len(), LINES_MAX);
    late.clear();
    let report = late.report();
    assert_eq!((report.failures.len(), report.status.failures), (0, 2 + 2 * LINES_MAX as u64));
}

#[test]
fn too_many_refusals_in_a_window_end_local_completion_until_the_list_is_cleared() {
    let options = LateOptions { refusals_max: 3, window: Duration::from_secs(10), ..LateOptions::default() };
    let late = Late::new(options);
    for second in [0, 6, 12] {
        fail(&late, &unlink(), Errno::EIO, second);
    }
    assert!(!late.degraded(), "three, but not in ten seconds");
    fail(&late, &unlink(), Errno::EIO, 15);
    assert!(late.degraded());
    fail(&late, &unlink(), Errno::EIO, 1000);
    assert!(late.degraded(), "it stays");
    late.clear();
    assert!(!late.degraded());
    fail(&late, &unlink(), Errno::EIO, 1001);
    assert!(!late.degraded(), "it counts anew");
}

fn with_rescue(bytes_max: u64) -> (Late, PathBuf, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("some/rescue");
    let late = Late::new(LateOptions {
        rescue: Some(folder.clone()),
        rescue_bytes_max: bytes_max,
        ..LateOptions::default()
    });
    (late, folder, home)
}

#[test]
fn the_data_of_refused_writes_is_kept_at_its_place_and_can_be_had_back() {
    let (late, folder, home) = with_rescue(1 << 20);
    fail(&late, &write(10, b"world"), Errno::ENOSPC, 5);
    fail(&late, &write(4, b"hello"), Errno::EDQUOT, 6);
    fail(&late, &write(1 << 40, b"far"), Errno::EDQUOT, 7);
    late.finish();
    let items = list(&folder).unwrap();
    let [item] = &items[..] else { panic!("{items:?}") };
    assert_eq!((item.id.as_str(), item.path.as_str()), ("7", "dir/file"));
    assert_eq!((item.errno.as_str(), item.seconds, item.bytes), ("EDQUOT", 7, 13));
    let about = range_lines(&folder, "7").unwrap();
    assert!(about.contains("path: dir/file\nfailure: 1 errno ENOSPC at 5\nkept: 10 5\n"), "{about}");
    assert_eq!(late.status().rescued_bytes, 13);
    assert!(late.report().failures[0].rescued);
    let target = home.path().join("copy");
    assert_eq!(retrieve(&folder, "7", &target).unwrap(), (1 << 40) + 3, "as a file with holes");
    let mut start = [0; 15];
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&target).unwrap(), &mut start, 0).unwrap();
    assert_eq!(&start, b"\0\0\0\0hello\0world");
    assert!(
        matches!(retrieve(&folder, "7", &target), Err(RescueFault::System { .. })),
        "nothing is overwritten"
    );
    discard(&folder, "7").unwrap();
    assert_eq!(list(&folder).unwrap(), []);
}

#[test]
fn appended_data_is_kept_in_its_order() {
    let (late, folder, _home) = with_rescue(1 << 20);
    let flags = WriteFlags { append: true, ..WriteFlags::default() };
    for data in [b"one ", b"two "] {
        fail(&late, &Mutation::Write { ino: FILE, offset: 0, flags, data }, Errno::EIO, 5);
    }
    late.finish();
    assert_eq!(std::fs::read(&list(&folder).unwrap()[0].data).unwrap(), b"one two ");
}

#[test]
fn the_area_has_a_bound_and_says_what_it_could_not_keep() {
    let (late, folder, _home) = with_rescue(8);
    fail(&late, &write(0, b"12345"), Errno::ENOSPC, 5);
    fail(&late, &write(100, b"6789"), Errno::ENOSPC, 6);
    late.finish();
    // What is there from before counts too.
    fail(&late, &write(5, b"abcd"), Errno::ENOSPC, 7);
    fail(&late, &write(5, b"abc"), Errno::ENOSPC, 8);
    late.finish();
    let about = range_lines(&folder, "7").unwrap();
    let pieces: Vec<_> =
        about.lines().filter(|line| line.starts_with("kept") || line.starts_with("lost")).collect();
    assert_eq!(pieces, ["kept: 0 5", "lost: 100 4", "lost: 5 4", "kept: 5 3"]);
    assert_eq!(std::fs::read(&list(&folder).unwrap()[0].data).unwrap(), b"12345abc");
}

#[test]
fn names_from_outside_reach_nothing_else() {
    let (late, folder, home) = with_rescue(1 << 20);
    fail(&late, &write(0, b"x"), Errno::EIO, 5);
    late.finish();
    std::fs::create_dir_all(home.path().join("other")).unwrap();
    std::fs::write(home.path().join("other/about.txt"), "failure: 1 errno EIO at 5\n").unwrap();
    for id in ["", "..", "../../other", "7/../7", "8", "+7"] {
        assert!(matches!(discard(&folder, id), Err(RescueFault::Absent { .. })), "{id}");
        assert!(matches!(range_lines(&folder, id), Err(RescueFault::Absent { .. })), "{id}");
    }
    assert!(home.path().join("other/about.txt").exists());
    assert_eq!(list(&home.path().join("nothing")).unwrap(), []);
}

#[test]
fn a_path_with_a_line_feed_stays_on_its_line() {
    let (late, folder, _home) = with_rescue(1 << 20);
    let failure = Failure {
        mutation: &write(0, b"x"),
        errno: Errno::EIO,
        path: Some(b"a\nkept: 0 99"),
        seconds: 5,
        now: Duration::ZERO,
    };
    late.failed(&failure, [FILE]);
    late.finish();
    let items = list(&folder).unwrap();
    assert_eq!((items[0].path.as_str(), items[0].bytes), ("a\\nkept: 0 99", 1));
}

#[test]
fn the_default_folder_follows_the_users_state_folder() {
    let folder = |root, state: Option<&str>, home: Option<&str>| {
        default_folder(Path::new("/mnt/a b"), root, state.map(Path::new), home.map(Path::new))
    };
    let expect = |path: &str| Some(PathBuf::from(path));
    assert_eq!(folder(false, Some("/s"), Some("/h")), expect("/s/ringfs/rescue/mnt-a b"));
    assert_eq!(folder(false, Some("relative"), Some("/h")), expect("/h/.local/state/ringfs/rescue/mnt-a b"));
    assert_eq!(folder(true, None, Some("/root")), expect("/var/lib/ringfs/rescue/mnt-a b"));
    assert_eq!(folder(false, None, None), None);
    assert_eq!(default_folder(Path::new("/"), true, None, None), expect("/var/lib/ringfs/rescue/root"));
}
