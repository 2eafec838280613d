//! What client and server say to each other: frames, records in them, and the cold messages of a handshake.
//!
//! A connection carries frames ([`frame`]). A frame has a fixed header, a body and a payload. The body of a hot
//! frame is a sequence of size-versioned records ([`record`]): mutations ([`mutation`]) with their outcomes
//! ([`outcome`]), queries ([`query`]) with their answers ([`answer`]) and grants ([`lease`]), what the server says unasked
//! ([`notice`]). Handshake bodies are protobuf ([`hello`]).
//! The payload holds file bytes alone, so that a sender never copies them into the body.
//!
//! Decoding is total: any bytes give a value or a [`WireFault`], never a panic, and never allocate more than the
//! bytes that arrived. Golden bytes in `tests.rs` pin every version. Sockets are not here.
#![forbid(unsafe_code)]

pub mod answer;
pub mod frame;
pub mod hello;
pub mod lease;
pub mod mutation;
pub mod notice;
pub mod outcome;
pub mod peer;
pub mod query;
pub mod record;
pub mod version;

#[cfg(test)]
mod tests;

pub use answer::{Answer, DirEntry, FsStat, LockRange};
pub use frame::{Frame, FrameKind, Header};
pub use lease::{Grant, Grants, Keep, LeaseMode, Recall, Returned};
pub use mutation::{Expect, MakeFlags, Mutation, Origin, SetAttr, Ticket, TimeSet, WriteFlags};
pub use notice::Notice;
pub use outcome::{Done, Outcome, Told};
pub use peer::{Notices, Peer, Reply};
pub use query::{LockKind, LockOwner, LockRequest, Query, SeekTo};

/// Bytes from a peer that are not what the protocol says. The connection they came on is closed; an unknown
/// record alone is answered with `EOPNOTSUPP` and leaves the connection open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// The first four bytes of a header are not [`frame::MAGIC`]: the peer is not ringfs.
    #[error(
        "the peer does not speak the ringfs protocol (frame starts with {found:#010x}); check the address"
    )]
    NotRingfs {
        /// What stood in place of the magic number.
        found: u32,
    },
    /// The header's own checksum does not match.
    #[error("frame header damaged on the way: checksum {found:#010x}, expected {expected:#010x}")]
    HeaderChecksum {
        /// Checksum computed here.
        expected: u32,
        /// Checksum in the header.
        found: u32,
    },
    /// The body's checksum does not match.
    #[error("frame body damaged on the way: checksum {found:#010x}, expected {expected:#010x}")]
    BodyChecksum {
        /// Checksum computed here.
        expected: u32,
        /// Checksum in the header.
        found: u32,
    },
    /// A length over its limit in [`crate::base::limits`].
    #[error("frame of {bytes} bytes where {max} are allowed")]
    TooLong {
        /// What the peer claims.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A record ends before what it must hold.
    #[error("record of kind {kind} is cut short")]
    Short {
        /// Kind of the record, 0 if even that is missing.
        kind: u16,
    },
    /// A field holds what it must not.
    #[error("record of kind {kind}: {what}")]
    Invalid {
        /// Kind of the record.
        kind: u16,
        /// Which field, and why.
        what: &'static str,
    },
    /// A frame or record of a kind this version does not know.
    #[error("unknown kind {kind}: the peer is newer than this program")]
    Unknown {
        /// The kind.
        kind: u16,
    },
    /// A protobuf body that does not decode.
    #[error("handshake message cannot be read: {0}")]
    Cold(String),
}
