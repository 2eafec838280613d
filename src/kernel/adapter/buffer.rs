//! The two buffers fuse-backend-rs wants around a request's bytes: one to write from, one to fill. Both move bytes
//! between the request's own memory and a file, without a buffer in between.
#![allow(unsafe_code, reason = "fuse-backend-rs describes memory that files read and write by pointer")]

use fuse_backend_rs::api::filesystem::{ZeroCopyReader, ZeroCopyWriter};
use fuse_backend_rs::common::file_buf::FileVolatileSlice;
use fuse_backend_rs::common::file_traits::FileReadWriteVolatile;
use std::io::{self, Read, Write};

/// The bytes of a WRITE, given away piece by piece.
pub(super) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.rest.read(out)
    }
}

impl ZeroCopyReader for Source<'_> {
    fn read_to(&mut self, file: &mut dyn FileReadWriteVolatile, count: usize, off: u64) -> io::Result<usize> {
        let bytes = &self.rest[..count.min(self.rest.len())];
        if bytes.is_empty() {
            return Ok(0);
        }
        // SAFETY: `bytes` is borrowed for the whole call, which is as long as the slice lives; the file only reads from
        // it, since `write_at_volatile` takes the slice as what is to be written.
        let slice = unsafe { FileVolatileSlice::from_raw_ptr(bytes.as_ptr().cast_mut(), bytes.len()) };
        let written = file.write_at_volatile(slice, off)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.rest = self.rest.get(written..).unwrap_or_default();
        Ok(written)
    }
}

/// The room for a READ's answer, filled from the front.
pub(super) struct Sink<'a> {
    room: &'a mut [u8],
    filled: usize,
}

impl<'a> Sink<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, filled: 0 }
    }

    /// Bytes written so far.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&mut self.room[self.filled..]).write(bytes)?;
        self.filled += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ZeroCopyWriter for Sink<'_> {
    fn write_from(
        &mut self,
        file: &mut dyn FileReadWriteVolatile,
        count: usize,
        off: u64,
    ) -> io::Result<usize> {
        let left = &mut self.room[self.filled..];
        let count = count.min(left.len());
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: `left` is borrowed mutably for the whole call, so nobody else looks at these bytes; any value a file
        // puts there is a valid `u8`.
        let slice = unsafe { FileVolatileSlice::from_mut_slice(&mut left[..count]) };
        let read = file.read_at_volatile(slice, off)?;
        self.filled += read.min(count);
        Ok(read)
    }

    fn available_bytes(&self) -> usize {
        self.room.len() - self.filled
    }
}

#[cfg(test)]
mod tests {
    use super::{Sink, Source};
    use fuse_backend_rs::api::filesystem::{ZeroCopyReader, ZeroCopyWriter};
    use std::io::{Read, Write};

    #[test]
    fn bytes_go_from_a_request_to_a_file_and_back_into_an_answer() {
        let mut file = tempfile::tempfile().unwrap();
        let mut source = Source::new(b"0123456789");
        assert_eq!(source.read_to(&mut file, 4, 100).unwrap(), 4);
        assert_eq!(source.read_to(&mut file, 100, 104).unwrap(), 6);
        assert_eq!(source.read_to(&mut file, 100, 110).unwrap(), 0, "nothing is left");
        let mut room = [0; 8];
        let mut sink = Sink::new(&mut room);
        assert_eq!(sink.write_from(&mut file, 100, 103).unwrap(), 7, "up to the end of the file");
        sink.write_all(b"x").unwrap();
        assert_eq!((sink.filled(), sink.available_bytes()), (8, 0));
        assert!(sink.write_all(b"y").is_err(), "there is no more room");
        assert_eq!(&room, b"3456789x");
    }

    #[test]
    fn a_source_is_readable_too() {
        let mut all = Vec::new();
        Source::new(b"abc").read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
    }
}
