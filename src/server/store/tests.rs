use super::gc::Collector;
use super::{OpenFault, Store, StoreOptions};
use crate::base::{ChunkPlace, Ino, SegmentId, Time};
use crate::server::chunks::memory::MemoryChunks;
use crate::server::meta::extents::{self, Extent};
use crate::server::meta::memory::MemoryEngine;
use crate::server::meta::{WriteTxn, chunk_table, counters, inodes};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FILE: Ino = Ino(20);
const NOW: Time = Time { secs: 1_700_000_000, nanos: 5 };

fn open(folder: &Path) -> Result<Store, OpenFault> {
    Store::open(folder, &StoreOptions::new(NOW, (7, 8)))
}

/// Writes `bytes` to the file at `start`, as a mutation would.
fn write(store: &Store, start: u64, bytes: &[u8]) {
    let appended = store.append(FILE, bytes).unwrap();
    let mut txn = store.begin();
    enter(&mut txn, &appended, start);
    txn.commit().unwrap();
}

fn enter(txn: &mut WriteTxn<'_>, appended: &super::Appended, start: u64) {
    chunk_table::add(txn, appended.chunk, appended.place).unwrap();
    let len = u64::from(appended.place.len);
    extents::put(txn, FILE, &Extent { start, len, chunk: appended.chunk, offset: 0 }).unwrap();
}

fn read(store: &Store, start: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    let mut parts = Vec::new();
    let range = start..start + len;
    extents::each(store.engine(), FILE, range.clone(), crate::server::meta::Order::Forward, &mut |extent| {
        parts.push(extent.cut(&range));
        ControlFlow::Continue(())
    })
    .unwrap();
    for part in parts {
        let place = chunk_table::must_get(store.engine(), part.chunk).unwrap().place;
        let at = usize::try_from(part.start - start).unwrap();
        let out = &mut bytes[at..at + usize::try_from(part.len).unwrap()];
        store.chunks().read(part.chunk, place, part.offset, out).unwrap();
    }
    bytes
}

fn collect(collector: &mut Collector, store: &Store, now: u64, writer: &Mutex<()>) -> super::gc::Done {
    let with_writer = |work: &mut dyn FnMut() -> Result<(), super::Fault>| {
        let _lock = writer.lock().unwrap();
        work()
    };
    collector.round(store, Duration::from_secs(now), 1 << 30, &with_writer).unwrap()
}

#[test]
fn a_missing_folder_becomes_a_volume_with_a_root_that_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deep/er/store");
    let first = open(&folder).unwrap();
    assert!(first.found().fresh);
    let root = inodes::get(first.engine(), Ino::ROOT).unwrap().unwrap();
    assert_eq!((root.mode & 0o7777, root.uid, root.gid, root.nlink, root.mtime), (0o755, 7, 8, 2, NOW));
    assert_eq!(counters::usage(first.engine()).unwrap().inodes, 1);
    write(&first, 0, b"bytes");
    let superblock = first.superblock().clone();
    first.close().unwrap();
    drop(first);
    let again = open(&folder).unwrap();
    assert_eq!((again.found().fresh, again.found().clean), (false, true));
    assert_eq!(again.superblock(), &superblock);
    assert_eq!(read(&again, 0, 5), b"bytes");
    let next = again.append(FILE, b"x").unwrap();
    assert!(next.chunk.0 > 1, "chunk numbers begin anew");
}

#[test]
fn what_cannot_be_opened_says_why_in_one_line_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let message = |folder: &Path| open(folder).unwrap_err().to_string();

    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "mine").unwrap();
    assert!(message(&other).contains("not empty and not a ringfs store"));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);

    assert!(message(&other.join("letter.txt")).contains("is not a folder"));

    let store = dir.path().join("store");
    let held = open(&store).unwrap();
    assert!(message(&store).contains(&format!("in use by another process (pid {})", std::process::id())));
    drop(held);

    fs::write(store.join("format"), "ringfs store format 9\n").unwrap();
    let newer = message(&store);
    assert!(newer.contains("format 9") && newer.contains("formats up to 1"), "{newer}");
    fs::write(store.join("format"), "something").unwrap();
    assert!(message(&store).contains("does not say which format"));
    fs::write(store.join("format"), "ringfs store format 1\n").unwrap();
    open(&store).unwrap();

    fs::remove_dir_all(store.join("meta")).unwrap();
    assert!(message(&store).contains("no superblock"));
    for line in [newer, message(&store), message(&other)] {
        assert!(!line.contains('\n'), "{line}");
    }
}

#[test]
fn a_store_whose_making_was_interrupted_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let superblock = store.superblock().clone();
    drop(store);
    fs::remove_file(dir.path().join("format")).unwrap();
    fs::write(dir.path().join("format.new"), "ringfs sto").unwrap();
    let again = open(dir.path()).unwrap();
    assert_eq!(again.superblock(), &superblock);
    assert!(dir.path().join("format").exists());
}

#[test]
fn dead_segments_go_after_the_grace_and_half_dead_ones_are_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let writer = Mutex::new(());
    let mut collector = Collector::new(Duration::from_secs(10));
    for n in 0..8u8 {
        write(&store, u64::from(n) * 100_000, &vec![n; 100_000]);
    }
    store.chunks().seal();
    write(&store, 1 << 30, b"keeps the first segment from being the newest");
    // Overwrite 6 of 8: a quarter of segment 1 is alive.
    for n in 0..6u8 {
        write(&store, u64::from(n) * 100_000, &vec![n + 100; 100_000]);
    }
    let done = collect(&mut collector, &store, 0, &writer);
    assert_eq!((done.deleted, done.more), (0, false));
    assert_eq!(done.moved_bytes, 2 * 100_136);
    assert_eq!(chunk_table::live(store.engine(), SegmentId(1)).unwrap(), chunk_table::Live::default());
    assert_eq!(collect(&mut collector, &store, 1, &writer).deleted, 0, "seen dead just now");
    assert_eq!(collect(&mut collector, &store, 10, &writer).deleted, 0, "grace not over");
    assert_eq!(collect(&mut collector, &store, 11, &writer).deleted, 1);
    assert!(store.chunks().segments().unwrap().iter().all(|segment| segment.id > SegmentId(1)));
    for n in 0..8u8 {
        let expected = if n < 6 { n + 100 } else { n };
        assert_eq!(read(&store, u64::from(n) * 100_000, 100_000), vec![expected; 100_000], "{n}");
    }
}

#[test]
fn a_chunk_waiting_for_its_commit_is_not_collected() {
    let store = Store::memory().unwrap();
    let writer = Mutex::new(());
    let mut collector = Collector::new(Duration::ZERO);
    let waiting = store.append(FILE, b"waits").unwrap();
    store.chunks().seal();
    write(&store, 100, b"newer");
    for now in 0..3 {
        assert_eq!(collect(&mut collector, &store, now, &writer).deleted, 0);
    }
    let mut txn = store.begin();
    enter(&mut txn, &waiting, 0);
    txn.commit().unwrap();
    drop(waiting);
    assert_eq!(collect(&mut collector, &store, 4, &writer).deleted, 0);
    assert_eq!(read(&store, 0, 5), b"waits");
    let abandoned = store.append(FILE, b"abandoned").unwrap();
    let ChunkPlace { segment, .. } = abandoned.place;
    store.chunks().seal();
    write(&store, 200, b"newest");
    extents::punch(&mut store.begin(), FILE, 0..1).unwrap();
    drop(abandoned);
    let mut txn = store.begin();
    extents::punch(&mut txn, FILE, 100..105).unwrap();
    txn.commit().unwrap();
    let deleted: usize = (5..8).map(|now| collect(&mut collector, &store, now, &writer).deleted).sum();
    assert_eq!(deleted, 1, "segment {segment} holds nothing but garbage");
}

#[test]
fn a_damaged_live_chunk_stops_the_collector_from_touching_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let writer = Mutex::new(());
    let mut collector = Collector::new(Duration::ZERO);
    for n in 0..4u8 {
        write(&store, u64::from(n) * 1000, &[n; 1000]);
    }
    store.chunks().seal();
    for n in 0..3u8 {
        write(&store, u64::from(n) * 1000, &[n; 1000]);
    }
    let path = dir.path().join("segments/00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    for now in 0..4 {
        assert_eq!(collect(&mut collector, &store, now, &writer).deleted, 0);
    }
    assert!(path.exists());
    assert_eq!(chunk_table::live(store.engine(), SegmentId(1)).unwrap().chunks, 1);
}

#[test]
fn collecting_under_writes_loses_nothing() {
    const SLOTS: u64 = 12;
    let chunks = MemoryChunks::with_segment_bytes(16 << 10);
    let store = Store::over(Box::new(MemoryEngine::new()), Box::new(chunks)).unwrap();
    let writer = Mutex::new(());
    let stop = AtomicBool::new(false);
    let byte = |round: u64, slot: u64| u8::try_from((round * 7 + slot) % 251).unwrap();
    let deleted = std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut collector = Collector::new(Duration::ZERO);
            let mut deleted = 0;
            let mut now = 0;
            while !stop.load(Ordering::Relaxed) || deleted == 0 {
                now += 1;
                deleted += collect(&mut collector, &store, now, &writer).deleted;
            }
            deleted
        });
        for round in 0..150 {
            for slot in 0..SLOTS {
                let appended = store.append(FILE, &[byte(round, slot); 900]).unwrap();
                let _lock = writer.lock().unwrap();
                let mut txn = store.begin();
                enter(&mut txn, &appended, slot * 900);
                txn.commit().unwrap();
            }
            let _lock = writer.lock().unwrap();
            for slot in 0..SLOTS {
                let place_of = || read(&store, slot * 900, 900);
                assert_eq!(place_of(), vec![byte(round, slot); 900], "round {round}, slot {slot}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        collecting.join().unwrap()
    });
    assert!(deleted > 10, "{deleted}");
    assert!(store.chunks().disk_bytes().unwrap() < 100 * 900 * SLOTS);
}

/// A small file system of its own, so that it can really be full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` for those who may not mount.
    fn new(mib: u32) -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={mib}m");
        mount(None::<&str>, dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).ok()?;
        Some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_really_full_disk_refuses_growth_keeps_what_is_there_and_recovers_after_removing() {
    let Some(disk) = SmallDisk::new(64) else { return };
    let folder = disk.0.path().join("store");
    let store = open(&folder).unwrap();
    let piece = |n: u64| vec![u8::try_from(n).unwrap(); 1 << 20];
    let mut stored = 0;
    let refused = loop {
        match store.append(FILE, &piece(stored)) {
            Ok(appended) => {
                let mut txn = store.begin();
                enter(&mut txn, &appended, stored << 20);
                txn.commit().unwrap();
                stored += 1;
            }
            Err(fault) => break fault,
        }
        assert!(stored < 64, "64 MiB hold more than 64 MiB");
    };
    assert_eq!(refused.errno(), crate::base::Errno::ENOSPC);
    fs::write(disk.0.path().join("other"), vec![0; 2 << 20]).unwrap();
    assert_eq!(store.append(FILE, &piece(0)).unwrap_err().errno(), crate::base::Errno::ENOSPC);
    assert_eq!(store.check_room(), Err(crate::base::Errno::ENOSPC));
    for n in 0..stored {
        assert_eq!(read(&store, n << 20, 1 << 20), piece(n), "{n}");
    }
    let full = matches!(open(&disk.0.path().join("second")), Err(OpenFault::NoSpace { .. }));
    assert!(full, "a new store on a full disk");

    let mut txn = store.begin();
    extents::punch(&mut txn, FILE, 0..u64::MAX).unwrap();
    txn.commit().unwrap();
    store.chunks().seal();
    // The newest segment stays; on a disk this small it may be the only one, so a file of somebody else goes, too.
    fs::remove_file(disk.0.path().join("other")).unwrap();
    let mut collector = Collector::new(Duration::ZERO);
    let writer = Mutex::new(());
    store.append(FILE, b"a new segment").unwrap();
    assert!((0..2).map(|now| collect(&mut collector, &store, now, &writer).deleted).sum::<usize>() > 0);
    assert_eq!(store.check_room(), Ok(()));
    for n in 1..stored {
        store.append(FILE, &piece(n)).unwrap();
    }
}

#[test]
fn a_full_disk_of_half_dead_segments_recovers() {
    const PIECE: usize = 64 << 10;
    let Some(disk) = SmallDisk::new(96) else { return };
    let store = open(&disk.0.path().join("store")).unwrap();
    let start = |n: u64| n * PIECE as u64;
    let piece = |n: u64| vec![u8::try_from(n % 251).unwrap(); PIECE];
    let mut stored = 0;
    while let Ok(appended) = store.append(FILE, &piece(stored)) {
        let mut txn = store.begin();
        enter(&mut txn, &appended, start(stored));
        txn.commit().unwrap();
        stored += 1;
    }
    assert_eq!(store.append(FILE, &piece(0)).unwrap_err().errno(), crate::base::Errno::ENOSPC);
    // A third of every segment dies: none is dead as a whole, none even by half.
    let lives = |n: &u64| !n.is_multiple_of(3);
    for n in (0..stored).filter(|n| !lives(n)) {
        let mut txn = store.begin();
        extents::punch(&mut txn, FILE, start(n)..start(n + 1)).unwrap();
        txn.commit().unwrap();
    }
    let mut collector = Collector::new(Duration::from_secs(3600));
    let writer = Mutex::new(());
    let mut rounds = 0;
    while collect(&mut collector, &store, rounds, &writer).more {
        rounds += 1;
        assert!(rounds < 200, "it goes on collecting and gains nothing");
    }
    // What died can be written again, but for the last pieces of a segment here and there.
    let again = (0..stored).filter(|n| !lives(n)).take_while(|&n| {
        store.append(FILE, &piece(n)).is_ok_and(|appended| {
            let mut txn = store.begin();
            enter(&mut txn, &appended, start(n));
            txn.commit().is_ok()
        })
    });
    let (again, died) = (again.count() as u64, stored.div_ceil(3));
    assert!(again > died / 2, "room for {again} of {died} pieces that died, {stored} stored");
    for n in (0..stored).filter(lives) {
        assert_eq!(read(&store, start(n), PIECE as u64), piece(n), "{n}");
    }
}

#[test]
fn on_a_disk_full_of_metadata_everything_can_be_removed_and_made_again() {
    let Some(disk) = SmallDisk::new(192) else { return };
    let store = open(&disk.0.path().join("store")).unwrap();
    // Bytes that do not compress, as names and hashes do not.
    let key = |n: u64| [b"zz".as_slice(), &n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()].concat();
    let value = |n: u64| -> Vec<u8> {
        (n..n + 32)
            .flat_map(|word| (word.wrapping_mul(0xD129_0B2A_5C4E_9F1B) ^ n << 7).to_le_bytes())
            .collect()
    };
    let fill = |mut made: u64| {
        while store.check_room().is_ok() {
            let mut txn = store.begin();
            for n in made..made + 64 {
                crate::server::meta::Txn::put(&mut txn, &key(n), &value(n));
            }
            if txn.commit().is_err() {
                break;
            }
            made += 64;
        }
        made
    };
    let empty = |made: u64| {
        for n in (0..made).step_by(64) {
            let mut txn = store.begin();
            for n in n..n + 64 {
                crate::server::meta::Txn::delete(&mut txn, &key(n));
            }
            txn.commit().unwrap_or_else(|fault| panic!("{fault} at {n} of {made}"));
        }
    };
    let first = fill(0);
    assert!(first > 50_000, "{first}");
    empty(first);
    let writer = Mutex::new(());
    let mut collector = Collector::new(Duration::ZERO);
    // The first time there may be some room already, so that nothing is worth collecting until it is used.
    let mut second = fill(0);
    while collect(&mut collector, &store, 0, &writer).more {}
    second = fill(second);
    assert!(second > first / 4, "room for {second} after {first} were removed");
    empty(second);
}
