//! write, read, truncate, fallocate, copy, seek, and the counting of bytes.

use super::rig::{ROOT, Rig};
use crate::base::limits::FILE_BYTES_MAX;
use crate::base::{Errno, Ino};
use crate::server::apply::Found;
use crate::server::meta::{chunk_table, extents};
use crate::server::ops::EXTENTS_PER_STEP;
use crate::wire::{Mutation, Query, SeekTo};
use std::ops::ControlFlow;

const KEEP: u32 = libc::FALLOC_FL_KEEP_SIZE.cast_unsigned();
const PUNCH: u32 = libc::FALLOC_FL_PUNCH_HOLE.cast_unsigned();
const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE.cast_unsigned();

fn seek(rig: &Rig, ino: Ino, offset: u64, to: SeekTo) -> Result<u64, Errno> {
    match rig.ask(&Query::Seek { ino, offset, to })? {
        Found::Offset(offset) => Ok(offset),
        other => panic!("{other:?}"),
    }
}

fn copy(rig: &Rig, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64, Errno> {
    let copy =
        Mutation::Copy { source: from.0, source_offset: from.1, target: to.0, target_offset: to.1, len };
    rig.run(&copy).map(|done| done.bytes)
}

fn allocate(rig: &Rig, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<u64, Errno> {
    rig.run(&Mutation::Allocate { ino, mode, offset, len }).map(|done| done.attr.expect("attributes").size)
}

/// Chunks in the table.
fn chunks(rig: &Rig) -> usize {
    let mut count = 0;
    chunk_table::each(rig.volume.store().engine(), &mut |chunk| {
        chunk.unwrap();
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    count
}

fn extent_count(rig: &Rig) -> usize {
    let mut count = 0;
    extents::each_of_all(rig.volume.store().engine(), &mut |extent| {
        extent.unwrap();
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    count
}

#[test]
fn what_is_written_is_read_and_holes_are_zeros() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let done = rig.write(f, 10, b"hello").unwrap();
    assert_eq!((done.bytes, done.offset, done.attr.unwrap().size), (5, 10, 15));
    assert_eq!(rig.read(f, 8, 100), Ok(b"\0\0hello".to_vec()));
    rig.write(f, 12, b"XY").unwrap();
    assert_eq!(rig.read(f, 10, 5), Ok(b"heXYo".to_vec()));
    assert_eq!(rig.read(f, 15, 5), Ok(Vec::new()));
    assert_eq!(rig.read(f, u64::MAX, 5), Ok(Vec::new()));
    assert_eq!(rig.write(f, 3, b"").unwrap().bytes, 0);
    assert_eq!(rig.volume.usage().unwrap().bytes, 5);
    assert_eq!(rig.append(f, b"end").unwrap().offset, 15);
    assert_eq!(rig.read(f, 14, 9), Ok(b"oend".to_vec()));
    let d = rig.dir(ROOT, "d");
    let p = rig.make(ROOT, "p", libc::S_IFIFO | 0o600).unwrap().ino;
    assert_eq!(rig.write(d, 0, b"x"), Err(Errno::EISDIR));
    assert_eq!(rig.write(p, 0, b"x"), Err(Errno::EINVAL));
    assert_eq!(rig.read(d, 0, 1), Err(Errno::EISDIR));
    assert_eq!(rig.write(Ino(99_999), 0, b"x"), Err(Errno::ESTALE));
}

#[test]
fn what_is_cut_off_stays_gone() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    rig.write(f, 0, &[7; 100]).unwrap();
    rig.write(f, 100, &[8; 100]).unwrap();
    assert_eq!(rig.truncate(f, 50).unwrap().size, 50);
    assert_eq!(rig.volume.usage().unwrap().bytes, 50);
    assert_eq!(chunks(&rig), 1);
    rig.truncate(f, 150).unwrap();
    let mut expected = vec![7; 50];
    expected.resize(150, 0);
    assert_eq!(rig.read(f, 0, 500), Ok(expected));
    let before = rig.attr(f).unwrap();
    let same = rig.truncate(f, 150).unwrap();
    assert!(same.mtime > before.mtime, "the same length is a change too");
    rig.truncate(f, 0).unwrap();
    assert_eq!((chunks(&rig), extent_count(&rig)), (0, 0));
    assert_eq!(rig.volume.usage().unwrap().bytes, 0);
    let d = rig.dir(ROOT, "d");
    assert_eq!(rig.truncate(d, 0), Err(Errno::EISDIR));
    let p = rig.make(ROOT, "p", libc::S_IFIFO | 0o600).unwrap().ino;
    assert_eq!(rig.truncate(p, 0), Err(Errno::EINVAL));
}

#[test]
fn files_end_where_offsets_end() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    assert_eq!(rig.truncate(f, FILE_BYTES_MAX).unwrap().size, FILE_BYTES_MAX);
    assert_eq!(rig.truncate(f, FILE_BYTES_MAX + 1), Err(Errno::EFBIG));
    assert_eq!(rig.write(f, FILE_BYTES_MAX, b"x"), Err(Errno::EFBIG));
    assert_eq!(rig.write(f, u64::MAX, b"x"), Err(Errno::EFBIG));
    assert_eq!(rig.append(f, b"x"), Err(Errno::EFBIG));
    assert_eq!(rig.write(f, FILE_BYTES_MAX - 1, b"xy").unwrap().bytes, 1);
    assert_eq!(rig.read(f, FILE_BYTES_MAX - 2, 9), Ok(b"\0x".to_vec()));
    assert_eq!(allocate(&rig, f, 0, FILE_BYTES_MAX - 1, 2), Err(Errno::EFBIG));
    assert_eq!(seek(&rig, f, 0, SeekTo::Data), Ok(FILE_BYTES_MAX - 1));
}

#[test]
fn fallocate_punches_zeroes_and_grows() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    rig.write(f, 0, &[1; 100]).unwrap();
    assert_eq!(allocate(&rig, f, PUNCH | KEEP, 10, 20), Ok(100));
    assert_eq!(allocate(&rig, f, ZERO, 90, 20), Ok(110));
    assert_eq!(allocate(&rig, f, ZERO | KEEP, 100, 50), Ok(110));
    assert_eq!(allocate(&rig, f, 0, 100, 100), Ok(200));
    assert_eq!(allocate(&rig, f, KEEP, 100, 1000), Ok(200));
    let mut expected = vec![1; 200];
    expected[10..30].fill(0);
    expected[90..].fill(0);
    assert_eq!(rig.read(f, 0, 1000), Ok(expected));
    assert_eq!(rig.volume.usage().unwrap().bytes, 70);
    for (mode, offset, len, errno) in [
        (0, 0, 0, Errno::EINVAL),
        (PUNCH, 0, 1, Errno::EOPNOTSUPP),
        (8, 0, 1, Errno::EOPNOTSUPP),
        (0, u64::MAX, 1, Errno::EINVAL),
    ] {
        assert_eq!(allocate(&rig, f, mode, offset, len), Err(errno), "{mode} {offset} {len}");
    }
    let d = rig.dir(ROOT, "d");
    let p = rig.make(ROOT, "p", libc::S_IFIFO | 0o600).unwrap().ino;
    assert_eq!(allocate(&rig, d, 0, 0, 1), Err(Errno::EISDIR));
    assert_eq!(allocate(&rig, p, 0, 0, 1), Err(Errno::ENODEV));
}

#[test]
fn a_copy_shares_chunks_until_both_are_gone() {
    let rig = Rig::new();
    let (a, b) = (rig.file(ROOT, "a"), rig.file(ROOT, "b"));
    rig.write(a, 0, b"0123456789").unwrap();
    assert_eq!(copy(&rig, (a, 2), (b, 5), 100), Ok(8));
    assert_eq!(rig.read(b, 0, 100), Ok(b"\0\0\0\0\x0023456789".to_vec()));
    assert_eq!(chunks(&rig), 1);
    let gone = rig.unlink(ROOT, "a").unwrap().orphan.unwrap();
    rig.release(&[gone]);
    assert_eq!(rig.read(b, 5, 8), Ok(b"23456789".to_vec()));
    assert_eq!(rig.volume.usage().unwrap().bytes, 8);
    assert_eq!(copy(&rig, (b, 5), (b, 7), 8), Err(Errno::EINVAL), "onto itself");
    assert_eq!(copy(&rig, (b, 5), (b, 20), 4), Ok(4));
    assert_eq!(rig.read(b, 13, 100), Ok(b"\0\0\0\0\0\0\x002345".to_vec()));
    assert_eq!(copy(&rig, (b, 100), (b, 0), 4), Ok(0));
    assert_eq!(copy(&rig, (ROOT, 0), (b, 0), 4), Err(Errno::EISDIR));
    rig.truncate(b, 0).unwrap();
    assert_eq!(chunks(&rig), 0);
}

#[test]
fn seek_finds_data_and_holes() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    assert_eq!(seek(&rig, f, 0, SeekTo::Hole), Err(Errno::ENXIO));
    rig.write(f, 100, &[1; 50]).unwrap();
    rig.write(f, 150, &[1; 50]).unwrap();
    rig.truncate(f, 300).unwrap();
    for (offset, data, hole) in [
        (0, Ok(100), Ok(0)),
        (100, Ok(100), Ok(200)),
        (120, Ok(120), Ok(200)),
        (200, Err(Errno::ENXIO), Ok(200)),
        (299, Err(Errno::ENXIO), Ok(299)),
        (300, Err(Errno::ENXIO), Err(Errno::ENXIO)),
    ] {
        assert_eq!(seek(&rig, f, offset, SeekTo::Data), data, "{offset}");
        assert_eq!(seek(&rig, f, offset, SeekTo::Hole), hole, "{offset}");
    }
    rig.truncate(f, 180).unwrap();
    assert_eq!(seek(&rig, f, 100, SeekTo::Hole), Ok(180), "the end is a hole");
}

/// Fills a file with `count` extents of two bytes, each in front of a hole of two; from its end, so that
/// nothing before has to be looked at.
fn shred(rig: &Rig, ino: Ino, count: u64) {
    for i in (0..count).rev() {
        rig.write(ino, i * 4, &[1, 2]).unwrap();
    }
}

#[test]
fn what_is_too_much_for_one_transaction_is_done_in_several() {
    let rig = Rig::new();
    let (f, g) = (rig.file(ROOT, "f"), rig.file(ROOT, "g"));
    let many = EXTENTS_PER_STEP as u64 * 2 + 10;
    shred(&rig, f, many);
    let step = EXTENTS_PER_STEP as u64;
    // A copy says how far it came.
    assert_eq!(copy(&rig, (f, 0), (g, 0), many * 4), Ok(step * 4));
    // Writing, punching and truncating go all the way.
    let commits = rig.volume.store().engine().last_commit().0;
    let bytes: Vec<u8> = (1..=251).cycle().take(1 << 14).collect();
    assert_eq!(rig.write(f, 0, &bytes).unwrap().bytes, 1 << 14);
    assert!(rig.volume.store().engine().last_commit().0 >= commits + 2);
    assert_eq!(rig.read(f, 0, 1 << 14), Ok(bytes));
    rig.truncate(f, 0).unwrap();
    shred(&rig, f, many);
    let commits = rig.volume.store().engine().last_commit().0;
    assert_eq!(allocate(&rig, f, PUNCH | KEEP, 1, many * 4), Ok(many * 4 - 2));
    assert!(rig.volume.store().engine().last_commit().0 >= commits + 3);
    assert_eq!(rig.read(f, 0, 8), Ok(vec![1, 0, 0, 0, 0, 0, 0, 0]));
    rig.truncate(f, 0).unwrap();
    shred(&rig, f, many);
    let commits = rig.volume.store().engine().last_commit().0;
    assert_eq!(rig.truncate(f, 6).unwrap().size, 6);
    assert!(rig.volume.store().engine().last_commit().0 >= commits + 3);
    assert_eq!(rig.read(f, 0, 100), Ok(vec![1, 2, 0, 0, 1, 2]));
    shred(&rig, f, many);
    let gone = [("f", f), ("g", g)].map(|(text, ino)| {
        assert_eq!(rig.unlink(ROOT, text).unwrap().orphan, Some(ino));
        ino
    });
    rig.release(&gone);
    assert_eq!((chunks(&rig), extent_count(&rig)), (0, 0));
    assert_eq!(rig.volume.usage().unwrap(), crate::server::meta::counters::Usage { inodes: 1, bytes: 0 });
}

#[test]
fn df_tells_what_is_used() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    rig.write(f, 0, &[1; 4096]).unwrap();
    let Ok(Found::FsStat(stat)) = rig.ask(&Query::StatFs) else { panic!("no statfs") };
    assert_eq!(stat.bytes_total - stat.bytes_free, 4096);
    assert_eq!(stat.inodes_used, 2);
}
