//! Segments as files in a folder.
//!
//! ```text
//! DIR/NNNNNNNN.seg   8 bytes "rfsSEG01", u32 segment number, u32 checksum of those 12 bytes, then records
//! DIR/clean          the segment that may be appended to and its length, after an orderly stop; gone while open
//! ```
//!
//! Positions are given out under a lock, bytes are written outside of it, so that appends of several threads go side
//! by side. After a stop that was not orderly the last segment may end in a torn record: nothing is appended to it
//! any more, and readers of records skip what is not valid.

use super::{ChunkFault, ChunkStore, ChunkTag, Record, SEGMENT_BYTES, Segment, Why, record};
use crate::base::place::{CHECKSUM_BLOCK_BYTES, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, record_bytes};
use crate::base::{ChunkId, ChunkPlace, Errno, SegmentId};
use files::{FileCache, SEGMENT_HEAD_BYTES, disk_fault, list_segments, path_of};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod files;

/// Asked before bytes are written: is there room for so many? `ENOSPC` refuses.
pub type RoomCheck = Arc<dyn Fn(u64, Why) -> Result<(), Errno> + Send + Sync>;

/// How to open the folder.
#[derive(Clone)]
pub struct LocalOptions {
    /// See [`RoomCheck`].
    pub room: RoomCheck,
    /// Size at which a segment is closed; [`SEGMENT_BYTES`] but in tests.
    pub segment_bytes: u32,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { room: Arc::new(|_, _| Ok(())), segment_bytes: SEGMENT_BYTES }
    }
}

/// Segments that wait for a sync; the append that fills the last of them syncs all.
const DIRTY_SEGMENTS_MAX: usize = 16;

/// Chunks in files. Lock order: `syncing`, `active`, `dirty`, the file cache.
pub struct LocalChunks {
    folder: PathBuf,
    room: RoomCheck,
    segment_bytes: u32,
    active: Mutex<Active>,
    files: FileCache,
    dirty: Mutex<Dirty>,
    /// Held during a sync, so that who comes meanwhile waits for what is being synced on his behalf.
    syncing: Mutex<()>,
    latch: Mutex<Option<String>>,
}

impl std::fmt::Debug for LocalChunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalChunks").field("folder", &self.folder).finish_non_exhaustive()
    }
}

struct Active {
    /// Newest segment of all, existing or not any more.
    newest: SegmentId,
    /// The one appended to.
    open: Option<Open>,
}

#[derive(Clone)]
struct Open {
    segment: SegmentId,
    file: Arc<File>,
    /// Where the next record goes.
    tail: u32,
}

#[derive(Default)]
struct Dirty {
    files: BTreeMap<SegmentId, Arc<File>>,
    /// A file was made since the folder was synced.
    folder: bool,
}

/// What was found when a folder was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Segments.
    pub segments: usize,
    /// Whether the last user stopped in an orderly way.
    pub clean: bool,
    /// Bytes at the end of the last segment that are no whole record.
    pub torn_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalChunks {
    /// Opens the segments in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(folder: &Path, options: &LocalOptions) -> Result<(Self, Found), ChunkFault> {
        std::fs::create_dir_all(folder).map_err(disk_fault("make", folder))?;
        let segments = list_segments(folder)?;
        let newest = segments.last().copied().unwrap_or(SegmentId(0));
        let mark = files::take_clean_mark(folder)?;
        let mut store = Self {
            folder: folder.to_path_buf(),
            room: Arc::clone(&options.room),
            segment_bytes: options.segment_bytes,
            active: Mutex::new(Active { newest, open: None }),
            files: FileCache::new(folder),
            dirty: Mutex::default(),
            syncing: Mutex::new(()),
            latch: Mutex::new(None),
        };
        let mut found = Found { segments: segments.len(), clean: segments.is_empty(), torn_bytes: 0 };
        if newest > SegmentId(0) {
            let open = store.reopen(newest, mark)?;
            found.clean = open.is_some();
            if open.is_none() {
                found.torn_bytes = store.records(newest, &mut |_| ControlFlow::Continue(()))?;
            }
            store.active.get_mut().unwrap_or_else(PoisonError::into_inner).open = open;
        }
        Ok((store, found))
    }

    /// The last segment, if the mark left by an orderly stop still fits it.
    fn reopen(&self, newest: SegmentId, mark: Option<(SegmentId, u32)>) -> Result<Option<Open>, ChunkFault> {
        let Some((segment, tail)) = mark.filter(|(segment, _)| *segment == newest) else { return Ok(None) };
        let path = path_of(&self.folder, segment);
        let file = File::options().read(true).write(true).open(&path).map_err(disk_fault("open", &path))?;
        let len = file.metadata().map_err(disk_fault("look at", &path))?.len();
        let fits = len == u64::from(tail)
            && tail >= SEGMENT_HEAD_BYTES
            && tail <= self.segment_bytes.max(SEGMENT_BYTES);
        Ok(fits.then(|| Open { segment, file: Arc::new(file), tail }))
    }

    fn check_latch(&self) -> Result<(), ChunkFault> {
        match &*lock(&self.latch) {
            Some(cause) => Err(ChunkFault::Latched { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Gives out the place of a record: from now on nobody else writes there.
    fn reserve(&self, len: u32) -> Result<(Open, ChunkPlace), ChunkFault> {
        let bytes = u32::try_from(record_bytes(len)).expect("a chunk is small");
        let mut active = lock(&self.active);
        let full = |open: &Open| u64::from(open.tail) + u64::from(bytes) > u64::from(self.segment_bytes);
        if active.open.as_ref().is_none_or(full) {
            active.open = None;
            let segment = SegmentId(active.newest.0.checked_add(1).ok_or(ChunkFault::Full)?);
            let file = Arc::new(files::make_segment(&self.folder, segment)?);
            self.files.insert(segment, &file);
            lock(&self.dirty).folder = true;
            active.newest = segment;
            active.open = Some(Open { segment, file, tail: SEGMENT_HEAD_BYTES });
        }
        let open = active.open.as_mut().expect("set above");
        let place = ChunkPlace { segment: open.segment, position: open.tail, len };
        let reserved = open.clone();
        open.tail += bytes;
        Ok((reserved, place))
    }

    /// Takes a place back whose record could not be written. When others have taken places behind it, or the file
    /// cannot be cut, the segment is closed and the gap stays; readers of records skip it.
    fn give_back(&self, reserved: &Open, place: ChunkPlace) {
        let mut active = lock(&self.active);
        let Some(open) = active.open.as_mut().filter(|open| open.segment == place.segment) else { return };
        let end = u64::from(place.position) + place.record_bytes();
        let cut = u64::from(open.tail) == end && reserved.file.set_len(u64::from(place.position)).is_ok();
        if cut {
            open.tail = place.position;
        } else {
            active.open = None;
        }
    }

    fn append_for(&self, tag: ChunkTag, bytes: &[u8], why: Why) -> Result<ChunkPlace, ChunkFault> {
        let mut head = record::encode_head(tag, bytes)?;
        self.check_latch()?;
        let len = u32::try_from(bytes.len()).expect("checked by encode_head");
        (self.room)(record_bytes(len), why).map_err(|_| ChunkFault::Full)?;
        let (open, place) = self.reserve(len)?;
        record::seal_head(&mut head, place.segment, place.position);
        if let Err(source) = write_record(&open.file, place, &head, bytes) {
            self.give_back(&open, place);
            return Err(disk_fault("write", &path_of(&self.folder, place.segment))(source));
        }
        if self.mark_dirty(&open) > DIRTY_SEGMENTS_MAX {
            self.sync()?;
        }
        Ok(place)
    }

    fn mark_dirty(&self, open: &Open) -> usize {
        let mut dirty = lock(&self.dirty);
        dirty.files.entry(open.segment).or_insert_with(|| Arc::clone(&open.file));
        dirty.files.len()
    }
}

/// Writes head and bytes of a record, and the padding: one system call but after a short write.
fn write_record(file: &File, place: ChunkPlace, head: &[u8], bytes: &[u8]) -> io::Result<()> {
    const ZEROS: [u8; RECORD_ALIGN_BYTES as usize] = [0; RECORD_ALIGN_BYTES as usize];
    let raw = head.len() + bytes.len();
    let padding = &ZEROS[..raw.next_multiple_of(ZEROS.len()) - raw];
    let mut at = u64::from(place.position);
    let offset = i64::try_from(at).expect("a position in a segment is small");
    let parts = [IoSlice::new(head), IoSlice::new(bytes), IoSlice::new(padding)];
    let mut done = match nix::sys::uio::pwritev(file, &parts, offset) {
        Ok(written) => written,
        Err(nix::errno::Errno::EINTR) => 0,
        Err(error) => return Err(error.into()),
    };
    for part in [head, bytes, padding] {
        let skip = done.min(part.len());
        done -= skip;
        if skip < part.len() {
            file.write_all_at(&part[skip..], at + skip as u64)?;
        }
        at += part.len() as u64;
    }
    Ok(())
}

impl ChunkStore for LocalChunks {
    fn append(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault> {
        self.append_for(tag, bytes, Why::New)
    }

    fn append_moved(&self, tag: ChunkTag, bytes: &[u8]) -> Result<ChunkPlace, ChunkFault> {
        self.append_for(tag, bytes, Why::Move)
    }

    fn read(&self, chunk: ChunkId, place: ChunkPlace, from: u32, out: &mut [u8]) -> Result<(), ChunkFault> {
        record::check_range(chunk, place, from, out.len())?;
        let file = self.files.get(place.segment)?;
        let read = Read { file: &file, chunk, place };
        let mut head = vec![0; record::head_bytes(place.len) as usize];
        let done = if out.len() == place.len as usize {
            read.whole(&mut head, out)
        } else {
            read.part(&mut head, from, out)
        };
        done.map_err(|error| match error {
            ReadError::Fault(fault) => fault,
            ReadError::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                ChunkFault::WrongRecord {
                    chunk,
                    segment: place.segment,
                    position: u64::from(place.position),
                    why: "the segment ends before it",
                }
            }
            ReadError::Io(source) => disk_fault("read", &path_of(&self.folder, place.segment))(source),
        })
    }

    fn sync(&self) -> Result<(), ChunkFault> {
        let _one_at_a_time = lock(&self.syncing);
        self.check_latch()?;
        let Dirty { files, folder } = std::mem::take(&mut *lock(&self.dirty));
        let sync = || {
            for (&segment, file) in &files {
                file.sync_data().map_err(disk_fault("sync", &path_of(&self.folder, segment)))?;
            }
            if folder {
                let opened = File::open(&self.folder).and_then(|folder| folder.sync_all());
                opened.map_err(disk_fault("sync", &self.folder))?;
            }
            Ok(())
        };
        sync().inspect_err(|fault: &ChunkFault| {
            lock(&self.latch).get_or_insert_with(|| fault.to_string());
        })
    }

    fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    fn seal(&self) {
        lock(&self.active).open = None;
    }

    fn newest(&self) -> SegmentId {
        lock(&self.active).newest
    }

    fn delete_segment(&self, segment: SegmentId) -> Result<(), ChunkFault> {
        if segment >= self.newest() {
            return Err(ChunkFault::InUse { segment });
        }
        let path = path_of(&self.folder, segment);
        let removed = match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ChunkFault::Missing { segment }),
            other => other.map_err(disk_fault("remove", &path)),
        };
        // After the name is gone nobody opens it anew; the bytes go with the last reader.
        self.files.remove(segment);
        lock(&self.dirty).files.remove(&segment);
        removed
    }

    fn segments(&self) -> Result<Vec<Segment>, ChunkFault> {
        let (newest, open) = {
            let active = lock(&self.active);
            (active.newest, active.open.as_ref().map(|open| open.segment))
        };
        let mut all = Vec::new();
        for id in list_segments(&self.folder)? {
            let path = path_of(&self.folder, id);
            let bytes = match std::fs::metadata(&path) {
                Ok(found) => found.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(disk_fault("look at", &path)(error)),
            };
            all.push(Segment { id, bytes, sealed: Some(id) != open, deletable: id < newest });
        }
        Ok(all)
    }

    fn records(
        &self,
        segment: SegmentId,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<u64, ChunkFault> {
        let file = self.files.get(segment)?;
        files::walk_records(&file, segment, visit)
            .map_err(disk_fault("read", &path_of(&self.folder, segment)))
    }

    fn close(&self) -> Result<(), ChunkFault> {
        self.sync()?;
        let open = lock(&self.active).open.take();
        open.map_or(Ok(()), |open| files::leave_clean_mark(&self.folder, open.segment, open.tail))
    }

    fn disk_bytes(&self) -> Result<u64, ChunkFault> {
        let mut bytes = 0;
        for id in list_segments(&self.folder)? {
            let path = path_of(&self.folder, id);
            bytes += match std::fs::metadata(&path) {
                Ok(found) => found.blocks() * 512,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(disk_fault("look at", &path)(error)),
            };
        }
        Ok(bytes)
    }
}

/// One read of (a part of) a chunk.
struct Read<'r> {
    file: &'r File,
    chunk: ChunkId,
    place: ChunkPlace,
}

enum ReadError {
    Fault(ChunkFault),
    Io(io::Error),
}

impl From<ChunkFault> for ReadError {
    fn from(fault: ChunkFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const BLOCK: u32 = CHECKSUM_BLOCK_BYTES;

impl Read<'_> {
    /// All of it: header and bytes in one system call.
    fn whole(&self, head: &mut [u8], out: &mut [u8]) -> Result<(), ReadError> {
        let position = i64::from(self.place.position);
        let wanted = head.len() + out.len();
        let mut parts = [IoSliceMut::new(head), IoSliceMut::new(out)];
        let got = nix::sys::uio::preadv(self.file, &mut parts, position).unwrap_or(0);
        if got < wanted {
            // Short, interrupted or refused: once more, piece by piece, which also tells why.
            self.file.read_exact_at(head, u64::from(self.place.position))?;
            self.file.read_exact_at(out, self.data_start())?;
        }
        record::expect_head(head, self.chunk, self.place)?;
        for (block, bytes) in (0..).zip(out.chunks(BLOCK as usize)) {
            record::verify_block(head, self.chunk, self.place, block, bytes)?;
        }
        Ok(())
    }

    /// A part: whole blocks are read into `out`, the ragged ends through a block of their own.
    fn part(&self, head: &mut [u8], from: u32, out: &mut [u8]) -> Result<(), ReadError> {
        self.file.read_exact_at(head, u64::from(self.place.position))?;
        record::expect_head(head, self.chunk, self.place)?;
        let mut at = from;
        let mut out = out;
        while !out.is_empty() {
            let left = u32::try_from(out.len()).expect("no longer than a chunk");
            let block = at / BLOCK;
            let start = block * BLOCK;
            let end = self.place.len.min(start.saturating_add(BLOCK));
            let covers_block = at == start && left >= end - start;
            // As many whole blocks as fit, or the part of this one.
            let take = if !covers_block {
                (end - at).min(left)
            } else if at + left == self.place.len {
                left
            } else {
                (left / BLOCK * BLOCK).max(end - start)
            };
            let (now, rest) = out.split_at_mut(take as usize);
            if covers_block {
                self.file.read_exact_at(now, self.data_start() + u64::from(at))?;
                for (number, bytes) in (block..).zip(now.chunks(BLOCK as usize)) {
                    record::verify_block(head, self.chunk, self.place, number, bytes)?;
                }
            } else {
                let mut whole = [0; BLOCK as usize];
                let whole = &mut whole[..(end - start) as usize];
                self.file.read_exact_at(whole, self.data_start() + u64::from(start))?;
                record::verify_block(head, self.chunk, self.place, block, whole)?;
                let skip = (at - start) as usize;
                now.copy_from_slice(&whole[skip..skip + now.len()]);
            }
            at += take;
            out = rest;
        }
        Ok(())
    }

    fn data_start(&self) -> u64 {
        u64::from(self.place.position) + u64::from(record::head_bytes(self.place.len))
    }
}

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));

#[cfg(test)]
mod tests;
