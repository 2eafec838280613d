//! Checks of bytes: allocation, holes, copies, mappings, direct input and output, syncing.

#![allow(unsafe_code, reason = "mappings and copy_file_range have no safe wrapper among our crates")]

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::fcntl::fallocate;
use nix::libc;
use nix::unistd::Whence;

use super::ground::{Outcome, at, fails, holds, new_file, pattern, same};

pub(super) fn fallocate_and_punch(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let file = new_file(&path)?;
    at("fallocate", fallocate(&file, FallocateFlags::empty(), 0, 50_000))?;
    same("size", at("fstat", file.metadata())?.len(), 50_000)?;
    at("keep size", fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 50_000, 50_000))?;
    same("size kept", at("fstat", file.metadata())?.len(), 50_000)?;
    let mut bytes = pattern(50_000, 4);
    at("write", file.write_all_at(&bytes, 0))?;
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    at("punch", fallocate(&file, punch, 5_000, 20_001))?;
    bytes[5_000..25_001].fill(0);
    same("punched", at("read", fs::read(&path))? == bytes, true)?;
    at("zero", fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 30_000, 1_000)).or_else(|why| {
        // ZERO_RANGE is optional in POSIX file systems; the refusal must be the documented one.
        if why.contains("EOPNOTSUPP") { Ok(()) } else { Err(why) }
    })?;
    fails("length zero", fallocate(&file, FallocateFlags::empty(), 0, 0), Errno::EINVAL)
}

pub(super) fn seek_hole_and_data(dir: &Path) -> Outcome {
    let file = new_file(&dir.join("file"))?;
    at("extend", file.set_len(8 << 20))?;
    at("write", file.write_all_at(&pattern(4_096, 5), 4 << 20))?;
    let seek = |offset: i64, whence| nix::unistd::lseek(&file, offset, whence);
    same("the file begins with a hole", seek(0, Whence::SeekHole), Ok(0))?;
    let data = at("SEEK_DATA", seek(0, Whence::SeekData))?;
    holds("data starts at or before what was written", (1..=4 << 20).contains(&data))?;
    let hole = at("SEEK_HOLE", seek(4 << 20, Whence::SeekHole))?;
    holds("the hole starts after it", ((4 << 20) + 4_096..8 << 20).contains(&hole))?;
    fails("no data after", seek(hole, Whence::SeekData), Errno::ENXIO)?;
    fails("past the end", seek(8 << 20, Whence::SeekHole), Errno::ENXIO)
}

fn copy_file_range(
    from: &File,
    read: &mut i64,
    to: &File,
    written: &mut i64,
    length: usize,
) -> Result<usize, Errno> {
    // SAFETY: both offsets are borrowed for the call alone, and the descriptors are open files.
    let copied = unsafe { libc::copy_file_range(from.as_raw_fd(), read, to.as_raw_fd(), written, length, 0) };
    Errno::result(copied).map(|copied| usize::try_from(copied).unwrap_or(0))
}

pub(super) fn copy_range(dir: &Path) -> Outcome {
    let bytes = pattern(400_000, 6);
    at("write", fs::write(dir.join("from"), &bytes))?;
    let from = at("open", File::open(dir.join("from")))?;
    let to = new_file(&dir.join("to"))?;
    let (mut read, mut written) = (1_000_i64, 77_i64);
    let mut left = 300_000_usize;
    while left > 0 {
        let copied = at("copy", copy_file_range(&from, &mut read, &to, &mut written, left))?;
        holds("it moves on", copied > 0)?;
        left -= copied;
    }
    let copy = at("read", fs::read(dir.join("to")))?;
    same("length", copy.len(), 300_077)?;
    holds("bytes", copy[77..] == bytes[1_000..301_000] && copy[..77].iter().all(|byte| *byte == 0))?;
    let end = copy_file_range(&from, &mut 400_000, &to, &mut 0, 10);
    same("at the end", end, Ok(0))
}

pub(super) fn map_private_and_read(dir: &Path) -> Outcome {
    let bytes = pattern(100_000, 7);
    at("write", fs::write(dir.join("file"), &bytes))?;
    let file = at("open", File::open(dir.join("file")))?;
    // SAFETY: this process alone uses the file, and it does not shrink while the map lives.
    let map = at("mmap", unsafe { memmap2::Mmap::map(&file) })?;
    holds("mapped bytes", map[..] == bytes[..])?;
    // SAFETY: a private map: stores stay in this process, and the file keeps its length.
    let mut private = at("mmap private", unsafe { memmap2::MmapOptions::new().map_copy(&file) })?;
    private[50_000] ^= 0xFF;
    same("a private store stays private", at("read", fs::read(dir.join("file")))? == bytes, true)
}

pub(super) fn map_shared_and_write(dir: &Path) -> Outcome {
    let mut bytes = pattern(100_000, 8);
    at("write", fs::write(dir.join("file"), &bytes))?;
    let file = at("open", OpenOptions::new().read(true).write(true).open(dir.join("file")))?;
    // SAFETY: writes through `file` come only after the map's own stores are synced, and no one truncates it.
    let mut map = at("mmap shared", unsafe { memmap2::MmapMut::map_mut(&file) })?;
    for place in (0..bytes.len()).step_by(4_999) {
        map[place] ^= 0x5A;
        bytes[place] ^= 0x5A;
    }
    at("msync", map.flush())?;
    same("stores reach the file", at("read", fs::read(dir.join("file")))? == bytes, true)?;
    at("pwrite", file.write_all_at(b"by write", 20_000))?;
    holds("a write shows in the map", &map[20_000..20_008] == b"by write")?;
    map[60_000] = 1;
    drop(map);
    bytes[20_000..20_008].copy_from_slice(b"by write");
    bytes[60_000] = 1;
    at("fsync", file.sync_all())?;
    drop(file);
    same("after munmap and fsync", at("read", fs::read(dir.join("file")))? == bytes, true)
}

pub(super) fn direct_io(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let file = at(
        "O_DIRECT",
        OpenOptions::new().read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path),
    )?;
    let mut space = vec![0_u8; (1 << 20) + 4_096];
    let start = space.as_ptr().align_offset(4_096);
    let block = &mut space[start..start + (1 << 20)];
    let bytes = pattern(1 << 20, 9);
    block.copy_from_slice(&bytes);
    at("write", file.write_all_at(block, 0))?;
    block.fill(0);
    at("read", file.read_exact_at(block, 0))?;
    holds("read back", *block == bytes)?;
    same("buffered read", at("read", fs::read(&path))? == bytes, true)?;
    at(
        "buffered write",
        at("open", OpenOptions::new().write(true).open(&path))?.write_all_at(b"buffered", 4_096),
    )?;
    at("read", file.read_exact_at(&mut block[..8_192], 0))?;
    holds("direct sees buffered", &block[4_096..4_104] == b"buffered")
}

pub(super) fn large_file_and_sparse_offset(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let mut file = new_file(&path)?;
    let block = pattern(1 << 20, 10);
    for _ in 0..12 {
        at("write", file.write_all(&block))?;
    }
    at("far", file.write_all_at(b"far", 5 << 40))?;
    same("size", at("fstat", file.metadata())?.len(), (5 << 40) + 3)?;
    let mut back = vec![0_u8; 1 << 20];
    at("read", file.read_exact_at(&mut back, 7 << 20))?;
    holds("block", back == block)?;
    at("read", file.read_exact_at(&mut back, 1 << 40))?;
    holds("hole", back.iter().all(|byte| *byte == 0))?;
    let mut three = [0; 3];
    at("read", file.read_exact_at(&mut three, 5 << 40))?;
    same("far bytes", &three, b"far")?;
    holds("a hole takes no space", at("fstat", file.metadata())?.blocks() < (64 << 20) / 512)?;
    same("past the end", at("read", file.read_at(&mut three, 6 << 40))?, 0)
}

pub(super) fn sync_calls(dir: &Path) -> Outcome {
    let file = new_file(&dir.join("file"))?;
    at("write", file.write_all_at(b"x", 0))?;
    at("fdatasync", file.sync_data())?;
    at("fsync", file.sync_all())?;
    let folder = at("open", File::open(dir))?;
    at("fsync folder", folder.sync_all())?;
    at("syncfs", nix::unistd::syncfs(folder.as_fd()))?;
    let path = dir.join("synced");
    let mut synced = at(
        "O_SYNC",
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_SYNC).open(path),
    )?;
    at("write", synced.write_all(b"durable"))
}
