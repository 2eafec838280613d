//! The frame: a 64-byte header, a body of records, a payload of file bytes.
//!
//! ```text
//!  0  u32 magic       "RFS1"            32  u64 settled   see Header::settled, Header::durable
//!  4  u16 version                       40  u32 body bytes
//!  6  u16 kind                          44  u32 payload bytes
//!  8  u128 session                      48  u32 CRC32C of the body
//! 24  u64 sequence                      52  u64 before    see Header::before
//!                                       60  u32 CRC32C of bytes 0..60
//! ```
//! All numbers are little-endian. The payload has no checksum of its own here: chunks carry theirs end to end.

use super::WireFault;
use crate::base::SessionId;
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};

/// First four bytes of each frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"RFS1");

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// Client's first frame ([`super::hello::Hello`]).
    Hello,
    /// Server wants proof of the secret ([`super::hello::Challenge`]).
    Challenge,
    /// Client's proof ([`super::hello::Proof`]).
    Proof,
    /// Server accepts the connection ([`super::hello::Welcome`]).
    Welcome,
    /// Server refuses the connection and closes it ([`super::hello::Refusal`]).
    Refusal,
    /// One query; answered by an `Answer` of the same sequence.
    Call,
    /// Answer to a `Call`.
    Answer,
    /// Mutations; answered by `Outcomes` of the same sequence, one for each.
    Batch,
    /// Outcomes of a `Batch`.
    Outcomes,
    /// Client leaves for good: its holds and locks end now.
    Bye,
    /// Server says something unasked ([`super::notice`]): sequence 0, no answer, on the connection for metadata alone.
    Notice,
}

const KINDS: [(FrameKind, u16); 11] = [
    (FrameKind::Hello, 1),
    (FrameKind::Challenge, 2),
    (FrameKind::Proof, 3),
    (FrameKind::Welcome, 4),
    (FrameKind::Refusal, 5),
    (FrameKind::Call, 6),
    (FrameKind::Answer, 7),
    (FrameKind::Batch, 8),
    (FrameKind::Outcomes, 9),
    (FrameKind::Bye, 10),
    (FrameKind::Notice, 11),
];

impl FrameKind {
    /// Number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    fn from_number(number: u16) -> Result<Self, WireFault> {
        let found = KINDS.iter().find(|(_, n)| *n == number).map(|(kind, _)| *kind);
        found.ok_or(WireFault::Unknown { kind: number })
    }
}

/// A checked header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Protocol version of the frame; 0 in a `Hello`, where it is not agreed yet.
    pub version: u16,
    /// What the frame is for.
    pub kind: FrameKind,
    /// Session it belongs to.
    pub session: SessionId,
    /// Number of the request, counted by the client; an answer repeats it.
    pub sequence: u64,
    /// From the client: every ticket below this is settled, so the server may forget its outcome (R7.2).
    /// From the server: see [`Header::durable`].
    pub settled: u64,
    /// From the client, of a batch that it sends again to a server that restarted: the commit of the server before that holds
    /// it. What is lost is done again in that order. 0: none is known.
    pub before: u64,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// CRC32C of the body.
    pub body_crc: u32,
}

impl Header {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// A [`WireFault`] for foreign bytes, a bad checksum, an unknown kind, or lengths over their limits.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireFault> {
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(WireFault::NotRingfs { found: magic });
        }
        let (expected, found) = (crc32c(&bytes[..60]), u32_at(bytes, 60));
        if expected != found {
            return Err(WireFault::HeaderChecksum { expected, found });
        }
        let header = Self {
            version: u16_at(bytes, 4),
            kind: FrameKind::from_number(u16_at(bytes, 6))?,
            session: SessionId(u128::from(u64_at(bytes, 8)) | u128::from(u64_at(bytes, 16)) << 64),
            sequence: u64_at(bytes, 24),
            settled: u64_at(bytes, 32),
            body_bytes: u32_at(bytes, 40),
            payload_bytes: u32_at(bytes, 44),
            body_crc: u32_at(bytes, 48),
            before: u64_at(bytes, 52),
        };
        within(header.body_bytes, FRAME_BODY_BYTES_MAX)?;
        within(header.payload_bytes, FRAME_PAYLOAD_BYTES_MAX)?;
        Ok(header)
    }

    /// In a frame of the server: the highest commit of this epoch that survives a loss of power, with all before it; 0
    /// for none. (`settled` from the client and this share their place.)
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.settled
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[6..8].copy_from_slice(&self.kind.number().to_le_bytes());
        out[8..24].copy_from_slice(&self.session.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.settled.to_le_bytes());
        out[40..44].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[44..48].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[48..52].copy_from_slice(&self.body_crc.to_le_bytes());
        out[52..60].copy_from_slice(&self.before.to_le_bytes());
        let crc = crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks the body that followed this header.
    ///
    /// # Errors
    /// [`WireFault::BodyChecksum`].
    pub fn check_body(&self, body: &[u8]) -> Result<(), WireFault> {
        let expected = crc32c(body);
        if expected == self.body_crc {
            return Ok(());
        }
        Err(WireFault::BodyChecksum { expected, found: self.body_crc })
    }
}

/// A frame ready to be sent, or one that has arrived and was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The header; lengths and checksum describe `body` and `payload`.
    pub header: Header,
    /// Records or a protobuf message.
    pub body: Vec<u8>,
    /// File bytes.
    pub payload: bytes::Bytes,
}

impl Frame {
    /// Builds a frame; lengths and checksum are filled in.
    ///
    /// # Panics
    /// When body or payload is over its limit: the caller is bound to split before.
    #[must_use]
    pub fn new(
        kind: FrameKind,
        version: u16,
        session: SessionId,
        sequence: u64,
        body: Vec<u8>,
        payload: bytes::Bytes,
    ) -> Self {
        assert!(body.len() <= FRAME_BODY_BYTES_MAX && payload.len() <= FRAME_PAYLOAD_BYTES_MAX);
        let header = Header {
            version,
            kind,
            session,
            sequence,
            settled: 0,
            before: 0,
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            body_crc: crc32c(&body),
        };
        Self { header, body, payload }
    }

    /// The same frame, telling the peer what is settled (see [`Header::settled`]).
    #[must_use]
    pub fn settled(mut self, settled: u64) -> Self {
        self.header.settled = settled;
        self
    }

    /// The same frame, telling in which commit of the server before it was done (see [`Header::before`]).
    #[must_use]
    pub fn before(mut self, commit: u64) -> Self {
        self.header.before = commit;
        self
    }

    /// The same frame of a server, telling the peer which commit is durable (see [`Header::durable`]).
    #[must_use]
    pub fn durable(self, commit: u64) -> Self {
        self.settled(commit)
    }
}

/// CRC32C (Castagnoli), the checksum of frames and chunks.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

fn within(bytes: u32, max: usize) -> Result<(), WireFault> {
    if bytes as usize <= max {
        return Ok(());
    }
    Err(WireFault::TooLong { bytes: u64::from(bytes), max: max as u64 })
}

fn u16_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameKind, HEADER_BYTES, Header};
    use crate::base::SessionId;
    use crate::wire::WireFault;

    fn sample() -> Frame {
        let body = vec![1, 2, 3];
        Frame::new(FrameKind::Batch, 1, SessionId(7 << 64 | 9), 42, body, bytes::Bytes::new())
            .settled(40)
            .before(9)
    }

    #[test]
    fn a_header_survives_the_way_there_and_back() {
        let frame = sample();
        assert_eq!(Header::decode(&frame.header.encode()), Ok(frame.header));
        assert_eq!(frame.header.check_body(&frame.body), Ok(()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let good = sample().header.encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_body_is_noticed() {
        let frame = sample();
        assert!(matches!(frame.header.check_body(&[1, 2, 4]), Err(WireFault::BodyChecksum { .. })));
    }

    #[test]
    fn lengths_over_the_limit_are_refused_before_anything_is_allocated() {
        let mut header = sample().header;
        header.body_bytes = u32::MAX;
        assert!(matches!(Header::decode(&header.encode()), Err(WireFault::TooLong { .. })));
    }
}
