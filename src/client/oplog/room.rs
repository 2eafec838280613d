//! What a mutation takes of the log's room, and why one does not get in.

use crate::base::Errno;
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::wire::Mutation;

/// Why a mutation did not enter the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No room at present: park the request.
    Full,
    /// No frame can carry it.
    TooLarge,
}

impl Refused {
    /// What the caller gets when it cannot be parked.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Self::Full => Errno::ENOMEM,
            Self::TooLarge => Errno::E2BIG,
        }
    }
}

/// Bytes of the log a mutation takes, at most: what it brings itself, and a flat sum for its record.
///
/// # Errors
/// [`Refused::TooLarge`] for what no frame can carry.
pub fn cost(mutation: &Mutation<'_>) -> Result<usize, Refused> {
    let (body, payload) = match mutation {
        Mutation::Make { name, target, .. } => (name.bytes().len() + target.len(), 0),
        Mutation::Link { name, .. } | Mutation::Unlink { name, .. } | Mutation::Rmdir { name, .. } => {
            (name.bytes().len(), 0)
        }
        Mutation::Rename { name, new_name, .. } => (name.bytes().len() + new_name.bytes().len(), 0),
        Mutation::Write { data, .. } => (0, data.len()),
        Mutation::SetXattr { name, value, .. } => (name.len() + value.len(), 0),
        Mutation::RemoveXattr { name, .. } => (name.len(), 0),
        Mutation::Tmpfile { .. }
        | Mutation::SetAttr { .. }
        | Mutation::Allocate { .. }
        | Mutation::Copy { .. } => (0, 0),
    };
    if body + COST_ONE > FRAME_BODY_BYTES_MAX || payload > FRAME_PAYLOAD_BYTES_MAX {
        return Err(Refused::TooLarge);
    }
    Ok(body + payload + COST_ONE)
}

/// What each mutation costs besides its names and data; some records are shorter.
pub(super) const COST_ONE: usize = 256;
