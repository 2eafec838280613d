//! The files themselves: names, the cache of open ones, the walk over records, the mark of an orderly stop.

use super::lock;
use crate::base::SegmentId;
use crate::base::place::{RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES};
use crate::server::chunks::record::{self, HEAD_BYTES_MAX};
use crate::server::chunks::{ChunkFault, Record, SEGMENT_BYTES};
use rustc_hash::FxHashMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Bytes at the beginning of a segment.
pub(super) const SEGMENT_HEAD_BYTES: u32 = 16;
const _: () = assert!(SEGMENT_HEAD_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const SEGMENT_MAGIC: &[u8; 8] = b"rfsSEG01";

/// Most segments kept open for reading.
const OPEN_FILES_MAX: usize = 64;

pub(super) fn disk_fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChunkFault {
    let path = path.to_path_buf();
    move |source| match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => ChunkFault::Full,
        _ => ChunkFault::Disk { action, path, source },
    }
}

pub(super) fn path_of(folder: &Path, segment: SegmentId) -> PathBuf {
    folder.join(format!("{segment}.seg"))
}

/// Numbers of all segments, in order. Files with other names are not ours and are left alone.
pub(super) fn list_segments(folder: &Path) -> Result<Vec<SegmentId>, ChunkFault> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(disk_fault("list", folder))? {
        let name = entry.map_err(disk_fault("list", folder))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse().ok());
        found.extend(number.map(SegmentId).filter(|&segment| *name == *format!("{segment}.seg")));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn make_segment(folder: &Path, segment: SegmentId) -> Result<File, ChunkFault> {
    let path = path_of(folder, segment);
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(disk_fault("make", &path))?;
    let mut head = [0; SEGMENT_HEAD_BYTES as usize];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    head[8..12].copy_from_slice(&segment.0.to_le_bytes());
    let sum = record::checksum(&head[..12]);
    head[12..].copy_from_slice(&sum.to_le_bytes());
    if let Err(error) = file.write_all_at(&head, 0) {
        // An empty file would keep the number from being used; if it cannot be removed, that is all it does.
        let _removed = std::fs::remove_file(&path);
        return Err(disk_fault("write", &path)(error));
    }
    Ok(file)
}

/// Open segments, at most [`OPEN_FILES_MAX`]: the one not read for longest goes.
pub(super) struct FileCache {
    folder: PathBuf,
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    files: FxHashMap<SegmentId, (Arc<File>, u64)>,
    /// Counts uses.
    now: u64,
}

impl FileCache {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), open: Mutex::default() }
    }

    pub(super) fn insert(&self, segment: SegmentId, file: &Arc<File>) {
        let mut open = lock(&self.open);
        open.now += 1;
        let now = open.now;
        if open.files.len() >= OPEN_FILES_MAX
            && let Some((&oldest, _)) = open.files.iter().min_by_key(|(_, (_, used))| *used)
        {
            open.files.remove(&oldest);
        }
        open.files.insert(segment, (Arc::clone(file), now));
    }

    pub(super) fn get(&self, segment: SegmentId) -> Result<Arc<File>, ChunkFault> {
        {
            let mut open = lock(&self.open);
            open.now += 1;
            let now = open.now;
            if let Some((file, used)) = open.files.get_mut(&segment) {
                *used = now;
                return Ok(Arc::clone(file));
            }
        }
        let path = path_of(&self.folder, segment);
        match File::open(&path) {
            Ok(file) => {
                let file = Arc::new(file);
                self.insert(segment, &file);
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ChunkFault::Missing { segment }),
            Err(error) => Err(disk_fault("open", &path)(error)),
        }
    }

    pub(super) fn remove(&self, segment: SegmentId) {
        lock(&self.open).files.remove(&segment);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.open).files.len()
    }
}

/// Bytes read at a time: any header with its checksums fits.
const WINDOW_BYTES: usize = 64 << 10;
const _: () = assert!(WINDOW_BYTES >= HEAD_BYTES_MAX);

/// A sliding view of a file, so that a walk over small records does not read each of them on its own.
struct Window<'f> {
    file: &'f File,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Up to `len` bytes from `at`; fewer at the end of the file.
    fn at(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let inside = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let skip = match inside.filter(|&skip| skip + len <= self.bytes.len()) {
            Some(skip) => skip,
            None => {
                self.fill(at)?;
                0
            }
        };
        let end = self.bytes.len().min(skip + len);
        Ok(&self.bytes[skip..end])
    }

    fn fill(&mut self, at: u64) -> io::Result<()> {
        self.start = at;
        self.bytes.resize(WINDOW_BYTES, 0);
        let mut done = 0;
        while done < WINDOW_BYTES {
            match self.file.read_at(&mut self.bytes[done..], at + done as u64) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(done);
        Ok(())
    }
}

/// Bytes of a file in which records are looked for: no segment is longer, and positions are numbers of 32 bits.
const REACH_BYTES: u64 = SEGMENT_BYTES as u64;

/// Visits the records of a segment in order of position; returns how many bytes belong to none.
pub(super) fn walk_records(
    file: &File,
    segment: SegmentId,
    visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> io::Result<u64> {
    let whole = file.metadata()?.len();
    let len = whole.min(REACH_BYTES);
    let mut window = Window { file, start: 0, bytes: Vec::new() };
    let mut at = SEGMENT_HEAD_BYTES;
    let mut skipped = whole - len;
    while u64::from(at) < len {
        let found = record_at(&mut window, segment, at)?;
        match found.filter(|record| u64::from(at) + record.place.record_bytes() <= len) {
            Some(record) => {
                if visit(record).is_break() {
                    break;
                }
                at += u32::try_from(record.place.record_bytes()).expect("a record is small");
            }
            None => {
                skipped += u64::from(RECORD_ALIGN_BYTES).min(len - u64::from(at));
                at += RECORD_ALIGN_BYTES;
            }
        }
    }
    Ok(skipped)
}

fn record_at(window: &mut Window<'_>, segment: SegmentId, at: u32) -> io::Result<Option<Record>> {
    let header = window.at(u64::from(at), RECORD_HEADER_BYTES as usize)?;
    let Some(claimed) = record::claimed_len(header) else { return Ok(None) };
    let head_bytes = record::head_bytes(claimed) as usize;
    let head = window.at(u64::from(at), head_bytes)?;
    Ok((head.len() == head_bytes).then(|| record::verify_head(head, segment, at)).flatten())
}

const CLEAN_MARK: &str = "clean";

/// Reads the mark of an orderly stop and removes it: from now on a stop is not orderly until it is left again. A mark
/// that cannot be understood is as good as none.
pub(super) fn take_clean_mark(folder: &Path) -> Result<Option<(SegmentId, u32)>, ChunkFault> {
    let path = folder.join(CLEAN_MARK);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(disk_fault("read", &path))?,
    };
    std::fs::remove_file(&path).map_err(disk_fault("remove", &path))?;
    let parse = |text: &str| {
        let (segment, tail) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((SegmentId(segment.parse().ok()?), tail.parse().ok()?))
    };
    Ok(std::str::from_utf8(&text).ok().and_then(parse))
}

pub(super) fn leave_clean_mark(folder: &Path, segment: SegmentId, tail: u32) -> Result<(), ChunkFault> {
    let path = folder.join(CLEAN_MARK);
    std::fs::write(&path, format!("{} {tail}\n", segment.0)).map_err(disk_fault("write", &path))
}
