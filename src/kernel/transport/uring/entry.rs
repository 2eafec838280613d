//! What stands in an entry and in the submissions that lend it: the kernel's layouts, read and written.
#![allow(unsafe_code, reason = "sets a field of a submission that its crate has no name for")]

use super::owner::HEADER_BYTES;
use crate::kernel::abi::{InHeader, UNIQUE_RESEND, ring};
use crate::kernel::transport::call::{Layout, Outcome};
use crate::kernel::transport::channel::reply_header;
use io_uring::{opcode, squeue::Entry128, types};
use zerocopy::{FromBytes, IntoBytes};

/// Places of the two descriptors among the ring's registered files.
const DEVICE: types::Fixed = types::Fixed(0);
pub(super) const EVENT_FILE: types::Fixed = types::Fixed(1);

/// Reads where the parts of a request lie in an entry. No layout: the kernel's numbers do not add up.
pub(super) fn read_entry(memory: &[u8]) -> (InHeader, Option<Layout>, u64) {
    let header = InHeader::read_from_prefix(memory).map(|(header, _)| header).unwrap_or_default();
    let ent = ring::EntInOut::read_from_prefix(&memory[ring::ENT_IN_OUT_OFFSET..]);
    let ent = ent.map(|(ent, _)| ent).unwrap_or_default();
    let payload = ent.payload_bytes as usize;
    // The length of the record is not told: it is what the header's length leaves.
    let args = (header.len as usize).checked_sub(size_of::<InHeader>() + payload);
    let layout =
        args.filter(|&n| n <= ring::OP_IN_BYTES && HEADER_BYTES + payload <= memory.len()).map(|args| {
            Layout {
                args: ring::OP_IN_OFFSET..ring::OP_IN_OFFSET + args,
                payload: HEADER_BYTES..HEADER_BYTES + payload,
                reply_at: HEADER_BYTES,
            }
        });
    (header, layout, ent.commit_id)
}

/// Completes the reply in an entry whose body is in place already.
pub(super) fn write_reply(memory: &mut [u8], unique: u64, outcome: Outcome) {
    let (error, bytes) = match outcome {
        Outcome::Reply { error, bytes } => (error, bytes),
        // An entry goes back by a commit in any case; the kernel ignores what it says to a NOTIFY_REPLY.
        Outcome::NoReply | Outcome::Pending | Outcome::Deferred => (0, 0),
    };
    let header = reply_header(unique & !UNIQUE_RESEND, error, bytes);
    memory[..size_of_val(&header)].copy_from_slice(header.as_bytes());
    if let Ok((ent, _)) = ring::EntInOut::mut_from_prefix(&mut memory[ring::ENT_IN_OUT_OFFSET..]) {
        ent.payload_bytes = u32::try_from(bytes).unwrap_or(0);
    }
}
fn command(op: u32, qid: u16, commit_id: u64) -> opcode::UringCmd80 {
    let request = ring::CmdReq { flags: 0, commit_id, qid, padding: [0; 6] };
    let mut area = [0; 80];
    area[..size_of_val(&request)].copy_from_slice(request.as_bytes());
    opcode::UringCmd80::new(DEVICE, op).cmd(area)
}

/// Hands a reply over and asks for the next request.
pub(super) fn commit(qid: u16, commit_id: u64, index: u32) -> Entry128 {
    command(ring::CMD_COMMIT_AND_FETCH, qid, commit_id).build().user_data(u64::from(index))
}

/// A submission entry as the kernel lays it out, for the one field the crate cannot set.
#[repr(C)]
struct RawEntry {
    before: [u8; 24],
    /// `sqe->len`.
    len: u32,
    after: [u8; 100],
}

/// Lends the kernel an entry for the first time. `buffers` must stay until the submission has been read.
pub(super) fn register(qid: u16, index: u32, buffers: &[libc::iovec; 2]) -> Entry128 {
    let address = buffers.as_ptr().expose_provenance() as u64;
    let entry = command(ring::CMD_REGISTER, qid, 0).addr(Some(address)).build().user_data(u64::from(index));
    // SAFETY: `Entry128` is `#[repr(C)]`, 128 bytes of plain integers, as `RawEntry` is; both directions are checked for
    // size by the compiler.
    let mut raw: RawEntry = unsafe { std::mem::transmute(entry) };
    raw.len = ring::REGISTER_BUFFERS;
    // SAFETY: as above; every value of the field is valid.
    unsafe { std::mem::transmute(raw) }
}
