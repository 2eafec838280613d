use super::{LocalChunks, LocalOptions, lock};
use crate::base::{ChunkId, ChunkPlace, Errno, Ino, SegmentId};
use crate::server::chunks::memory::MemoryChunks;
use crate::server::chunks::{ChunkFault, ChunkStore, ChunkTag, Record};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn small() -> LocalOptions {
    LocalOptions { segment_bytes: 64 << 10, ..LocalOptions::default() }
}

fn open(folder: &Path) -> LocalChunks {
    LocalChunks::open(folder, &small()).unwrap().0
}

fn tag(chunk: u64) -> ChunkTag {
    ChunkTag { chunk: ChunkId(chunk), ino: Ino(1) }
}

/// Bytes that differ from chunk to chunk and from block to block.
fn bytes(chunk: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (chunk.wrapping_mul(31) ^ (at * 7) ^ (at >> 12)).to_le_bytes()[0]).collect()
}

fn records(store: &dyn ChunkStore, segment: SegmentId) -> (Vec<Record>, u64) {
    let mut found = Vec::new();
    let skipped = store
        .records(segment, &mut |record| {
            found.push(record);
            ControlFlow::Continue(())
        })
        .unwrap();
    (found, skipped)
}

fn read(store: &dyn ChunkStore, chunk: u64, place: ChunkPlace) -> Result<Vec<u8>, ChunkFault> {
    let mut out = vec![0; place.len as usize];
    store.read(ChunkId(chunk), place, 0, &mut out).map(|()| out)
}

fn conforms(store: &dyn ChunkStore, chunks: &[(usize, usize, usize)]) -> Result<(), TestCaseError> {
    let mut places = Vec::new();
    for (id, &(len, ..)) in (1..).zip(chunks) {
        places.push(store.append(tag(id), &bytes(id, len)).unwrap());
        if id % 5 == 0 {
            store.seal();
        }
    }
    store.sync().unwrap();
    for ((id, &(len, from, count)), &place) in (1..).zip(chunks).zip(&places) {
        prop_assert_eq!(read(store, id, place).unwrap(), bytes(id, len));
        let from = from.min(len - 1);
        let mut part = vec![0; count.min(len - from)];
        store.read(ChunkId(id), place, u32::try_from(from).unwrap(), &mut part).unwrap();
        prop_assert_eq!(&part, &bytes(id, len)[from..from + part.len()]);
        let past = store.read(ChunkId(id), place, u32::try_from(from).unwrap(), &mut vec![0; len - from + 1]);
        prop_assert!(matches!(past, Err(ChunkFault::Range { .. })), "{past:?}");
        prop_assert!(store.read(ChunkId(id + 1), place, 0, &mut part).is_err());
    }
    let mut met = BTreeMap::new();
    for segment in store.segments().unwrap() {
        let (found, skipped) = records(store, segment.id);
        prop_assert_eq!(skipped, 0);
        met.extend(found.into_iter().map(|record| (record.tag.chunk.0, record.place)));
    }
    prop_assert_eq!(met.into_values().collect::<Vec<_>>(), places);
    Ok(())
}

fn lengths() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    let len = prop_oneof![1usize..40, 4090usize..4110, 8180usize..8200, 1usize..30_000];
    proptest::collection::vec((len, 0usize..30_000, 0usize..30_000), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn both_engines_return_what_was_appended(chunks in lengths()) {
        let dir = tempfile::tempdir().unwrap();
        conforms(&open(dir.path()), &chunks)?;
        conforms(&MemoryChunks::with_segment_bytes(64 << 10), &chunks)?;
    }
}

#[test]
fn every_flipped_byte_is_noticed_and_only_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (len, id) = (9000, 5);
    let place = store.append(tag(id), &bytes(id, len)).unwrap();
    let path = dir.path().join("00000001.seg");
    let file = File::options().read(true).write(true).open(path).unwrap();
    let start = u64::from(place.position);
    let data = start + 32 + 4 * 3;
    for at in (start..data).chain((data..data + len as u64).step_by(501)) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x80], at).unwrap();
        let fault = read(&store, id, place).unwrap_err();
        assert_eq!(fault.errno(), Errno::EIO);
        if at >= data {
            let block = data + (at - data) / 4096 * 4096;
            assert!(matches!(fault, ChunkFault::Corrupt { position, .. } if position == block), "{fault}");
            let other = if at < data + 4096 { 4096 } else { 0 };
            store.read(ChunkId(id), place, other, &mut [0; 4096]).unwrap();
        }
        let damaged = u32::try_from(at.saturating_sub(data)).unwrap();
        assert!(store.read(ChunkId(id), place, damaged.min(8999), &mut [0; 1]).is_err(), "byte {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(read(&store, id, place).unwrap(), bytes(id, len));
}

#[test]
fn appends_of_many_threads_do_not_touch_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all: Vec<(u64, usize, ChunkPlace)> = std::thread::scope(|scope| {
        let writer = |thread: u64| {
            let store = &store;
            move || {
                let one = |n: u64| {
                    let (id, len) = (thread * 1000 + n, 1 + usize::try_from(n * 97 % 6000).unwrap());
                    let place = store.append(tag(id), &bytes(id, len)).unwrap();
                    if n.is_multiple_of(10) {
                        store.sync().unwrap();
                    }
                    assert_eq!(read(store, id, place).unwrap(), bytes(id, len));
                    (id, len, place)
                };
                (0..60).map(one).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (1..=8).map(|thread| scope.spawn(writer(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut by_place: Vec<_> = all.iter().map(|(.., place)| *place).collect();
    by_place.sort_unstable();
    for pair in by_place.windows(2) {
        let end = u64::from(pair[0].position) + pair[0].record_bytes();
        assert!(pair[0].segment < pair[1].segment || end <= u64::from(pair[1].position), "{pair:?}");
    }
    let reopened = open(dir.path());
    for (id, len, place) in all {
        assert_eq!(read(&reopened, id, place).unwrap(), bytes(id, len));
    }
}

#[test]
fn a_torn_tail_is_skipped_and_never_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let whole = first.append(tag(1), &bytes(1, 5000)).unwrap();
    let torn = first.append(tag(2), &bytes(2, 5000)).unwrap();
    drop(first);
    let path = dir.path().join("00000001.seg");
    for cut in [1, 20, 40, 5000] {
        let file = File::options().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len((u64::from(torn.position) + torn.record_bytes() - cut).min(len)).unwrap();
        let (store, found) = LocalChunks::open(dir.path(), &small()).unwrap();
        assert!(!found.clean && found.torn_bytes > 0, "{found:?}");
        assert_eq!(read(&store, 1, whole).unwrap(), bytes(1, 5000));
        assert!(matches!(read(&store, 2, torn), Err(ChunkFault::WrongRecord { .. })) || cut < 8);
        let (found, skipped) = records(&store, SegmentId(1));
        assert_eq!((found.len(), skipped > 0), (1, true));
    }
    let store = open(dir.path());
    assert_eq!(store.append(tag(3), b"after").unwrap().segment, SegmentId(2));
}

#[test]
fn an_orderly_stop_goes_on_in_the_same_segment_and_a_kill_in_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let one = first.append(tag(1), b"one").unwrap();
    first.close().unwrap();
    drop(first);
    let (second, found) = LocalChunks::open(dir.path(), &small()).unwrap();
    assert!(found.clean);
    let two = second.append(tag(2), b"two").unwrap();
    assert_eq!(two.segment, one.segment);
    drop(second);
    let (third, found) = LocalChunks::open(dir.path(), &small()).unwrap();
    assert!(!found.clean && found.torn_bytes == 0, "{found:?}");
    let three = third.append(tag(3), b"three").unwrap();
    assert_eq!(three.segment, SegmentId(2));
    for (id, place, text) in [(1, one, "one"), (2, two, "two"), (3, three, "three")] {
        assert_eq!(read(&third, id, place).unwrap(), text.as_bytes());
    }
}

#[test]
fn a_file_longer_than_any_position_is_walked_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).append(tag(1), &bytes(1, 5000)).unwrap();
    let path = folder.path().join("00000001.seg");
    let head = std::fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(6 << 30).unwrap();
    let store = open(folder.path());
    let mut found = 0;
    let skipped = store
        .records(SegmentId(1), &mut |_| {
            found += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((found, skipped), (1, (6 << 30) - head.len() as u64));
}

#[test]
fn a_segment_stored_in_a_file_is_not_taken_for_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for id in 1..=4 {
        store.append(tag(id), &bytes(id, 1000)).unwrap();
    }
    let segment = std::fs::read(dir.path().join("00000001.seg")).unwrap();
    let holder = store.append(tag(5), &segment).unwrap();
    let file = File::options().write(true).open(dir.path().join("00000001.seg")).unwrap();
    file.write_all_at(b"gone", u64::from(holder.position)).unwrap();
    let (found, skipped) = records(&store, SegmentId(1));
    assert_eq!(found.len(), 4);
    assert_eq!(skipped, holder.record_bytes());
}

#[test]
fn a_failed_write_leaves_nothing_and_the_next_append_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let before = store.append(tag(1), &bytes(1, 100)).unwrap();
    // A file that cannot be written stands for any failure: neither the record nor the cut succeeds.
    let readonly = Arc::new(File::open(dir.path().join("00000001.seg")).unwrap());
    lock(&store.active).open.as_mut().unwrap().file = readonly;
    assert!(matches!(store.append(tag(2), &bytes(2, 100)), Err(ChunkFault::Disk { .. })));
    let after = store.append(tag(3), &bytes(3, 100)).unwrap();
    assert_eq!(after.segment, SegmentId(2));
    assert_eq!(read(&store, 1, before).unwrap(), bytes(1, 100));
    assert_eq!(read(&store, 3, after).unwrap(), bytes(3, 100));
    assert_eq!(records(&store, SegmentId(1)).0.len(), 1);
}

#[test]
fn a_place_given_back_is_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(tag(1), &bytes(1, 100)).unwrap();
    let (open, place) = store.reserve(5000).unwrap();
    open.file.write_all_at(&[1; 300], u64::from(place.position)).unwrap();
    store.give_back(&open, place);
    let again = store.append(tag(2), &bytes(2, 10)).unwrap();
    assert_eq!((again.segment, again.position), (place.segment, place.position));
    let (reserved, gap) = store.reserve(50).unwrap();
    let behind = store.append(tag(3), &bytes(3, 10)).unwrap();
    store.give_back(&reserved, gap);
    assert_eq!(store.append(tag(4), &bytes(4, 10)).unwrap().segment, SegmentId(2));
    assert_eq!(read(&store, 3, behind).unwrap(), bytes(3, 10));
    let (found, skipped) = records(&store, SegmentId(1));
    assert_eq!((found.len(), skipped), (3, gap.record_bytes()));
}

#[test]
fn a_full_disk_is_enospc() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&full);
    let room = move |_, _| if flag.load(Ordering::Relaxed) { Err(Errno::ENOSPC) } else { Ok(()) };
    let options = LocalOptions { room: Arc::new(room), ..small() };
    let store = LocalChunks::open(dir.path(), &options).unwrap().0;
    assert_eq!(store.append(tag(1), b"x").unwrap_err().errno(), Errno::ENOSPC);
    full.store(false, Ordering::Relaxed);
    assert_eq!(store.append(tag(1), b"x").unwrap().position, super::SEGMENT_HEAD_BYTES);
}

#[test]
fn open_files_are_bounded_and_a_deleted_segment_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let place_of = |id: u64| {
        store.seal();
        store.append(tag(id), &bytes(id, 10)).unwrap()
    };
    let places: Vec<_> = (1..=80).map(place_of).collect();
    for (id, &place) in (1..).zip(&places) {
        assert_eq!(read(&store, id, place).unwrap(), bytes(id, 10));
        assert!(store.files.len() <= 64);
    }
    assert!(lock(&store.dirty).files.len() <= super::DIRTY_SEGMENTS_MAX + 1);
    store.delete_segment(SegmentId(1)).unwrap();
    assert!(matches!(read(&store, 1, places[0]), Err(ChunkFault::Missing { segment: SegmentId(1) })));
    assert!(matches!(store.delete_segment(SegmentId(1)), Err(ChunkFault::Missing { .. })));
    assert!(matches!(store.delete_segment(SegmentId(80)), Err(ChunkFault::InUse { .. })));
    let listed = store.segments().unwrap();
    assert_eq!(listed.len(), 79);
    assert_eq!(listed.iter().filter(|segment| !segment.deletable).count(), 1);
}
