//! Notices: what the server says unasked, on the connection for metadata. The frame has sequence 0 and is not answered.

use super::WireFault;
use super::lease::{Recall, WireLease};
use super::record::{Records, push};
use zerocopy::little_endian::U32;

/// One thing the server says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// It wants a lease back.
    Recall(Recall),
    /// More is durable: the frame's header says up to which commit ([`super::Header::durable`]).
    Durable,
}

const RECALL: u16 = 224;
const DURABLE: u16 = 225;

/// Appends the record of `notice` to `body`.
pub fn encode(body: &mut Vec<u8>, notice: &Notice) {
    match notice {
        Notice::Recall(recall) => push(body, RECALL, &WireLease::of_recall(recall), &[]),
        Notice::Durable => push(body, DURABLE, &U32::ZERO, &[]),
    }
}

/// Reads the notices of a frame, in order.
///
/// # Errors
/// An item is `Err` for bytes that are no notice.
pub fn decode(body: &[u8]) -> impl Iterator<Item = Result<Notice, WireFault>> {
    Records::new(body).map(|record| {
        let record = record?;
        match record.kind {
            RECALL => Ok(Notice::Recall(record.fixed::<WireLease>().recall())),
            DURABLE => Ok(Notice::Durable),
            kind => Err(WireFault::Unknown { kind }),
        }
    })
}
