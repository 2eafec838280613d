//! The words every layer shares: numbers with a meaning, names, attributes, errors, limits.
//!
//! Nothing here does I/O, reads a clock or takes a lock.
#![forbid(unsafe_code)]

pub mod attr;
pub mod caller;
pub mod errno;
pub mod ids;
pub mod limits;
pub mod name;
pub mod name_hash;
pub mod place;
pub mod posix;

pub use attr::{Attr, Kind, SetAttr, Time, TimeSet};
pub use caller::Caller;
pub use errno::Errno;
pub use ids::{ChunkId, HandleId, Ino, SessionId};
pub use name::{Name, NameBuf};
pub use name_hash::NameHash;
pub use place::{ChunkPlace, SegmentId};
