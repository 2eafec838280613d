//! Frames out of a stream of bytes.

use crate::wire::frame::HEADER_BYTES;
use crate::wire::{Frame, Header, WireFault};
use bytes::Bytes;
use std::io::{self, Read};

/// Bytes read ahead: a small frame comes whole with one receive.
const BUFFER_BYTES: usize = 16 << 10;

/// Most bytes reserved for a body or payload before they arrive: a header alone costs its sender nothing, so it must not
/// cost the server megabytes either.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFault {
    /// Bytes that are not the protocol.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// The connection ended amid a frame.
    #[error("the connection ended amid a frame")]
    Cut,
    /// The peer took too long.
    #[error("the peer was silent for too long")]
    Silent,
    /// The system's word.
    #[error("receive: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

/// Splits a stream into frames, checks header and body.
pub(super) struct FrameReader<R> {
    source: R,
    buffer: Box<[u8]>,
    /// `buffer[from..to]` is read, not used.
    from: usize,
    to: usize,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), from: 0, to: 0 }
    }

    /// Where the bytes come from.
    pub(super) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next frame; `None` when the stream ends between frames. `bytes_max` bounds body and payload each, below
    /// the limits of the protocol.
    pub(super) fn next(&mut self, bytes_max: usize) -> Result<Option<Frame>, ReadFault> {
        let Some(header) = self.header()? else { return Ok(None) };
        let header = Header::decode(&header)?;
        let (body_bytes, payload_bytes) = (header.body_bytes as usize, header.payload_bytes as usize);
        let longest = body_bytes.max(payload_bytes);
        if longest > bytes_max {
            return Err(WireFault::TooLong { bytes: longest as u64, max: bytes_max as u64 }.into());
        }
        let body = self.bytes(body_bytes)?;
        header.check_body(&body)?;
        let payload = self.bytes(payload_bytes)?;
        Ok(Some(Frame { header, body, payload: Bytes::from(payload) }))
    }

    fn header(&mut self) -> Result<Option<[u8; HEADER_BYTES]>, ReadFault> {
        loop {
            let ready = &self.buffer[self.from..self.to];
            if let Some(header) = ready.first_chunk::<HEADER_BYTES>() {
                let header = *header;
                self.from += HEADER_BYTES;
                return Ok(Some(header));
            }
            // Foreign bytes are told after four of them: an HTTP client waits for an answer and sends no more.
            if let Some(magic) = ready.first_chunk::<4>()
                && u32::from_le_bytes(*magic) != crate::wire::frame::MAGIC
            {
                return Err(WireFault::NotRingfs { found: u32::from_le_bytes(*magic) }.into());
            }
            let empty = ready.is_empty();
            self.buffer.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
            match self.source.read(&mut self.buffer[self.to..]) {
                Ok(0) if empty => return Ok(None),
                Ok(0) => return Err(ReadFault::Cut),
                Ok(count) => self.to += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, ReadFault> {
        let mut out = Vec::with_capacity(count.min(RESERVE_BYTES_MAX));
        let ready = count.min(self.to - self.from);
        out.extend_from_slice(&self.buffer[self.from..self.from + ready]);
        self.from += ready;
        let missing = count - ready;
        if missing > 0 {
            let got = self.source.by_ref().take(missing as u64).read_to_end(&mut out)?;
            if got < missing {
                return Err(ReadFault::Cut);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameReader, ReadFault};
    use crate::base::SessionId;
    use crate::wire::{Frame, FrameKind, WireFault};
    use std::io::Read;

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        [&frame.header.encode()[..], &frame.body, &frame.payload].concat()
    }

    fn frame(sequence: u64, body: usize, payload: usize) -> Frame {
        let payload = vec![7; payload].into();
        Frame::new(FrameKind::Batch, 1, SessionId(9), sequence, vec![5; body], payload)
    }

    /// Gives at most `step` bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_come_in() {
        let frames = [frame(1, 0, 0), frame(2, 100, 0), frame(3, 70_000, 3_000_000), frame(4, 1, 1)];
        let stream: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        for step in [1_000_000, 16_384, 63, 7] {
            let mut reader = FrameReader::new(Drip(&stream, step));
            for expected in &frames {
                assert_eq!(reader.next(usize::MAX).unwrap().as_ref(), Some(expected));
            }
            assert!(reader.next(usize::MAX).unwrap().is_none());
        }
    }

    #[test]
    fn a_stream_cut_anywhere_inside_a_frame_is_a_fault() {
        let stream = bytes_of(&frame(1, 10, 10));
        for end in 1..stream.len() {
            let found = FrameReader::new(&stream[..end]).next(usize::MAX);
            assert!(matches!(found, Err(ReadFault::Cut)), "{end}");
        }
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_are_read() {
        let stream = bytes_of(&frame(1, 101, 0));
        let found = FrameReader::new(&stream[..64]).next(100);
        assert!(matches!(found, Err(ReadFault::Wire(WireFault::TooLong { bytes: 101, max: 100 }))));
    }
}
