use super::{Kind, Options, Report, check};
use crate::base::{ChunkId, ChunkPlace, Ino, Kind as FileKind, Name, SegmentId, Time};
use crate::server::meta::chunk_table::{self, Live};
use crate::server::meta::counters::{self, Usage};
use crate::server::meta::dirents::{self, Target};
use crate::server::meta::extents::{self, Extent};
use crate::server::meta::inodes::{self, flags};
use crate::server::meta::{Inode, Txn, WriteTxn, attributes, keys, sessions};
use crate::server::store::{Store, StoreOptions};
use std::fs;

const DIR: Ino = Ino(16);
const SUB: Ino = Ino(17);
const FILE: Ino = Ino(18);
const LINK: Ino = Ino(19);
const HELD: Ino = Ino(20);
const NONE: Ino = Ino(999);

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).unwrap()
}

fn edit(store: &Store, ino: Ino, change: impl FnOnce(&mut Inode)) {
    let mut txn = store.begin();
    let mut inode = inodes::get(&txn, ino).unwrap().unwrap();
    change(&mut inode);
    inodes::put(&mut txn, &inode);
    txn.commit().unwrap();
}

fn with_txn(store: &Store, change: impl FnOnce(&mut WriteTxn<'_>)) {
    let mut txn = store.begin();
    change(&mut txn);
    txn.commit().unwrap();
}

fn add(store: &Store, parent: Ino, text: &str, ino: Ino, kind: FileKind) {
    with_txn(store, |txn| {
        assert_eq!(dirents::put(txn, store.names(), parent, name(text), Target { ino, kind }).unwrap(), None);
    });
}

/// `/dir/sub`, `/dir/file` (also `/dir/sub/other`) with 9000 bytes and an attribute, `/dir/link`, and an orphan.
fn healthy(store: Store) -> Store {
    let inode = |ino, kind: FileKind, parent| {
        Inode::new(ino, kind.mode_bits() | 0o755, (0, 0), parent, Time::default())
    };
    let one = store.append(FILE, &[1; 5000]).unwrap();
    let two = store.append(FILE, &[2; 4000]).unwrap();
    with_txn(&store, |txn| {
        counters::take_inos(txn, 5).unwrap();
        inodes::put(txn, &Inode { nlink: 3, entries: 3, ..inode(DIR, FileKind::Directory, Ino::ROOT) });
        inodes::put(txn, &Inode { entries: 1, ..inode(SUB, FileKind::Directory, DIR) });
        let file = inode(FILE, FileKind::File, DIR);
        inodes::put(txn, &Inode { nlink: 2, size: 9000, data_bytes: 9000, flags: flags::HAS_XATTR, ..file });
        inodes::put(txn, &Inode { nlink: 1, size: 6, ..inode(LINK, FileKind::Symlink, DIR) });
        inodes::put(txn, &inode(HELD, FileKind::File, DIR));
        attributes::put_symlink(txn, LINK, b"target");
        attributes::put_xattr(txn, FILE, b"user.key", b"value");
        sessions::put_orphan(txn, HELD);
        for (start, appended) in [(0, &one), (5000, &two)] {
            chunk_table::add(txn, appended.chunk, appended.place).unwrap();
            let len = u64::from(appended.place.len);
            extents::put(txn, FILE, &Extent { start, len, chunk: appended.chunk, offset: 0 }).unwrap();
        }
        counters::put_usage(txn, Usage { inodes: 6, bytes: 9000 });
    });
    add(&store, Ino::ROOT, "dir", DIR, FileKind::Directory);
    add(&store, DIR, "sub", SUB, FileKind::Directory);
    add(&store, DIR, "file", FILE, FileKind::File);
    add(&store, DIR, "link", LINK, FileKind::Symlink);
    add(&store, SUB, "other", FILE, FileKind::File);
    edit(&store, Ino::ROOT, |root| (root.nlink, root.entries) = (3, 1));
    store
}

fn memory() -> Store {
    healthy(Store::memory().unwrap())
}

fn run(store: &Store, repair: bool) -> Report {
    check(store, Options { verify_data: true, repair, ..Options::default() }).unwrap()
}

fn lines(report: &Report) -> String {
    report.problems.iter().map(|problem| format!("{:?} {problem}\n", problem.kind)).collect()
}

/// Plants a fault; the check finds it, of that kind, at that path, and repairs it or not.
fn planted(kind: Kind, path: Option<&str>, repairable: bool, plant: impl Fn(&Store)) {
    let store = memory();
    plant(&store);
    let report = run(&store, false);
    let found =
        report.problems.iter().find(|problem| problem.kind == kind && problem.path.as_deref() == path);
    assert!(found.is_some(), "{kind:?} at {path:?} not in\n{}", lines(&report));
    assert!(!report.is_clean() && report.repaired == 0);
    let again = run(&store, false);
    assert_eq!(again, report, "looking changed something");
    let repaired = run(&store, true);
    assert_eq!(repaired.is_clean(), repairable, "{}", lines(&repaired));
    let after = run(&store, false);
    assert_eq!(after.problems.is_empty(), repairable, "{}", lines(&after));
}

#[test]
fn a_healthy_store_has_no_problems() {
    let store = memory();
    let report = run(&store, false);
    assert_eq!(lines(&report), "");
    let counts = report.counts;
    assert_eq!((counts.inodes, counts.directories, counts.names, counts.orphans), (6, 3, 5, 1));
    assert_eq!((counts.extents, counts.chunks, counts.segments), (2, 2, 1));
    assert_eq!((counts.bytes, counts.verified_bytes), (9000, 9000));
    assert!(run(&store, true).is_clean());
}

#[test]
fn wrong_names_are_found() {
    planted(Kind::DanglingName, Some("/dir"), false, |store| {
        add(store, DIR, "ghost", NONE, FileKind::File);
        edit(store, DIR, |dir| dir.entries += 1);
    });
    planted(Kind::WrongName, Some("/dir/link"), false, |store| {
        with_txn(store, |txn| {
            let target = Target { ino: LINK, kind: FileKind::File };
            dirents::put(txn, store.names(), DIR, name("link"), target).unwrap();
        });
    });
    planted(Kind::WrongName, Some("/dir/file"), false, |store| {
        add(store, FILE, "below", LINK, FileKind::Symlink);
        edit(store, LINK, |link| link.nlink = 2);
    });
    planted(Kind::WrongName, None, false, |store| add(store, NONE, "below", LINK, FileKind::Symlink));
}

#[test]
fn wrong_trees_are_found() {
    planted(Kind::WrongParent, Some("/dir/sub"), false, |store| {
        edit(store, SUB, |sub| sub.parent = Ino::ROOT)
    });
    planted(Kind::WrongParent, Some("/"), false, |store| edit(store, Ino::ROOT, |root| root.parent = SUB));
    planted(Kind::WrongParent, Some("/dir/sub"), false, |store| {
        add(store, Ino::ROOT, "again", SUB, FileKind::Directory);
        edit(store, Ino::ROOT, |root| (root.nlink, root.entries) = (4, 2));
    });
    // A circle: `sub` is in `dir`, `dir` only in `sub`.
    planted(Kind::Unreachable, None, false, |store| {
        with_txn(store, |txn| {
            dirents::remove(txn, store.names(), Ino::ROOT, name("dir")).unwrap();
        });
        add(store, SUB, "dir", DIR, FileKind::Directory);
        edit(store, DIR, |dir| dir.parent = SUB);
        edit(store, SUB, |sub| (sub.nlink, sub.entries) = (3, 2));
        edit(store, Ino::ROOT, |root| (root.nlink, root.entries) = (2, 0));
    });
    planted(Kind::Unreachable, Some("/"), false, |store| {
        with_txn(store, |txn| inodes::delete(txn, Ino::ROOT));
    });
}

#[test]
fn wrong_counts_are_found_and_set_right() {
    planted(Kind::LinkCount, Some("/dir/file"), true, |store| edit(store, FILE, |file| file.nlink = 7));
    planted(Kind::LinkCount, Some("/dir"), true, |store| edit(store, DIR, |dir| dir.nlink = 2));
    planted(Kind::EntryCount, Some("/dir"), true, |store| edit(store, DIR, |dir| dir.entries = 2));
    planted(Kind::EntryCount, Some("/dir/file"), true, |store| edit(store, FILE, |file| file.entries = 2));
    planted(Kind::Extent, Some("/dir/file"), true, |store| edit(store, FILE, |file| file.data_bytes = 1));
    planted(Kind::UsageCount, None, true, |store| {
        with_txn(store, |txn| counters::put_usage(txn, Usage { inodes: 6, bytes: 9001 }));
    });
    planted(Kind::UsageCount, None, true, |store| with_txn(store, |txn| txn.put(keys::USAGE, b"junk")));
    planted(Kind::RefCount, None, true, |store| {
        with_txn(store, |txn| chunk_table::add_refs(txn, ChunkId(1), 1).unwrap());
    });
    planted(Kind::RefCount, None, true, |store| {
        let garbage = store.append(FILE, b"garbage").unwrap();
        with_txn(store, |txn| chunk_table::add(txn, garbage.chunk, garbage.place).unwrap());
    });
    planted(Kind::LiveCount, None, true, |store| {
        with_txn(store, |txn| chunk_table::put_live(txn, SegmentId(1), Live { bytes: 8, chunks: 2 }));
    });
    planted(Kind::LiveCount, None, true, |store| {
        with_txn(store, |txn| chunk_table::put_live(txn, SegmentId(5), Live { bytes: 8, chunks: 1 }));
    });
    planted(Kind::Mark, None, true, |store| {
        with_txn(store, |txn| counters::put_next_ino(txn, FILE));
    });
    planted(Kind::Mark, None, true, |store| {
        with_txn(store, |txn| counters::put_next_chunk(txn, ChunkId(1)));
    });
}

#[test]
fn wrong_orphans_are_found_and_set_right() {
    planted(Kind::Orphan, None, true, |store| with_txn(store, |txn| sessions::delete_orphan(txn, HELD)));
    planted(Kind::Orphan, Some("/dir/file"), true, |store| {
        with_txn(store, |txn| sessions::put_orphan(txn, FILE));
    });
    planted(Kind::Stray, None, false, |store| with_txn(store, |txn| sessions::put_orphan(txn, NONE)));
}

#[test]
fn what_belongs_to_nobody_is_found() {
    planted(Kind::Stray, None, false, |store| {
        with_txn(store, |txn| attributes::put_xattr(txn, NONE, b"user.a", b""));
    });
    planted(Kind::Stray, Some("/dir/sub"), false, |store| {
        with_txn(store, |txn| attributes::put_xattr(txn, SUB, b"user.a", b""));
    });
    planted(Kind::Stray, Some("/dir/file"), false, |store| {
        with_txn(store, |txn| attributes::put_symlink(txn, FILE, b"target"));
    });
    planted(Kind::Stray, Some("/dir/link"), false, |store| {
        with_txn(store, |txn| attributes::delete_symlink(txn, LINK));
    });
    planted(Kind::Stray, Some("/dir/link"), false, |store| {
        with_txn(store, |txn| attributes::put_symlink(txn, LINK, b"other length"));
    });
    planted(Kind::Stray, Some("/dir/sub"), false, |store| {
        with_txn(store, |txn| {
            let extent = Extent { start: 0, len: 10, chunk: ChunkId(1), offset: 0 };
            extents::put(txn, SUB, &extent).unwrap();
        });
    });
}

#[test]
fn wrong_extents_are_found() {
    let raw = |txn: &mut WriteTxn<'_>, start: u64, len: u64, chunk: u64, offset: u32| {
        let mut value = [len.to_le_bytes(), chunk.to_le_bytes()].concat();
        value.extend_from_slice(&offset.to_le_bytes());
        txn.put(&keys::extent(FILE, start), &value);
    };
    planted(Kind::Extent, Some("/dir/file"), false, |store| {
        with_txn(store, |txn| raw(txn, 4999, 2, 1, 0));
        edit(store, FILE, |file| file.data_bytes += 2);
    });
    planted(Kind::Extent, Some("/dir/file"), false, |store| {
        with_txn(store, |txn| raw(txn, 5000, 4000, 2, 1));
    });
    planted(Kind::MissingChunk, Some("/dir/file"), false, |store| {
        with_txn(store, |txn| raw(txn, 20_000, 10, 77, 0));
    });
    planted(Kind::MissingSegment, Some("/dir/file"), false, |store| {
        let place = ChunkPlace { segment: SegmentId(9), position: 0, len: 5000 };
        with_txn(store, |txn| {
            let at = chunk_table::must_get(txn, ChunkId(1)).unwrap().place;
            assert!(chunk_table::relocate(txn, ChunkId(1), at, place).unwrap());
        });
    });
    planted(Kind::MissingSegment, Some("/dir/file"), false, |store| {
        with_txn(store, |txn| {
            let at = chunk_table::must_get(txn, ChunkId(2)).unwrap().place;
            let place = ChunkPlace { position: 1 << 20, ..at };
            assert!(chunk_table::relocate(txn, ChunkId(2), at, place).unwrap());
        });
    });
}

#[test]
fn records_that_do_not_decode_are_found() {
    let unreadable: [&[u8]; 7] = [
        &keys::inode(HELD),
        &keys::dirent(DIR, 5),
        &keys::extent(FILE, 5000),
        &keys::chunk(ChunkId(1)),
        keys::NEXT_INO,
        b"A",
        b"Zebra",
    ];
    for key in unreadable {
        planted(Kind::Record, None, false, |store| with_txn(store, |txn| txn.put(key, b"junk")));
    }
    let store = memory();
    with_txn(&store, |txn| txn.put(&keys::segment(SegmentId(1)), b"junk"));
    let report = run(&store, true);
    assert_eq!((report.problems[0].kind, report.problems[1].kind), (Kind::Record, Kind::LiveCount));
    assert!(run(&store, false).is_clean(), "the live bytes were counted anew");
}

#[test]
fn damaged_bytes_are_found_and_the_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = healthy(Store::open(dir.path(), &StoreOptions::new(Time::default(), (0, 0))).unwrap());
    assert_eq!(lines(&run(&store, false)), "");
    let path = dir.path().join("segments/00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 4;
    fs::write(&path, bytes).unwrap();
    let quick = check(&store, Options::default()).unwrap();
    assert!(quick.is_clean(), "the quick check reads no data");
    let report = run(&store, false);
    assert_eq!(report.problems_total, 1);
    assert_eq!(report.problems[0].kind, Kind::Data);
    let path = report.problems[0].path.as_deref().unwrap();
    assert!(path == "/dir/file" || path == "/dir/sub/other", "{path}");
}

#[test]
fn a_report_is_bounded_and_counts_what_it_does_not_show() {
    let store = memory();
    for n in 0..50 {
        add(&store, DIR, &format!("ghost\n{n}"), Ino(1000 + n), FileKind::File);
    }
    let report = check(&store, Options { problems_max: 10, ..Options::default() }).unwrap();
    assert_eq!((report.problems.len(), report.problems_total), (10, 51));
    assert!(report.problems.iter().all(|problem| !problem.to_string().contains('\n')));
}
