//! The canonical bytes of one mutation, made once; what is sent again is these bytes.

use super::Refused;
use crate::base::Caller;
use crate::base::limits::{FRAME_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::wire::mutation::{self, Mutation, Origin, Ticket};
use bytes::Bytes;

/// One mutation as it goes over the wire. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its number.
    pub ticket: Ticket,
    /// Body of a batch that holds this mutation alone.
    pub body: Bytes,
    /// Payload of that batch: the data of a write, else empty.
    pub payload: Bytes,
}

impl Record {
    /// Encodes `mutation`; the data of a write is copied here, once.
    #[must_use]
    pub fn encode(ticket: Ticket, caller: Caller, mutation: &Mutation<'_>) -> Self {
        let (mut body, mut payload) = (Vec::with_capacity(BODY_BYTES_TYPICAL), Vec::new());
        mutation::encode(&mut body, &mut payload, Origin::waited(ticket, caller), mutation);
        Self { ticket, body: Bytes::from(body), payload: Bytes::from(payload) }
    }
}

/// Bytes of log a mutation takes: what it brings itself, and a flat sum for record, slot and frame.
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
    if body + COST_FLAT_BYTES > FRAME_BODY_BYTES_MAX || payload > FRAME_PAYLOAD_BYTES_MAX {
        return Err(Refused::TooLarge);
    }
    Ok(body + payload + COST_FLAT_BYTES)
}

/// Room for the fixed part of a record and a name of ordinary length.
const BODY_BYTES_TYPICAL: usize = 256;

/// What each mutation costs besides its names and data.
const COST_FLAT_BYTES: usize = 512;
