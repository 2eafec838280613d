//! What FUSE over io_uring adds: the command in a submission entry, and the header that each ring entry
//! lends to the kernel (`struct fuse_uring_req_header`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `FUSE_IO_URING_CMD_REGISTER`: lends an entry's buffers.
pub const CMD_REGISTER: u32 = 1;
/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`: gives a reply, and the entry back.
pub const CMD_COMMIT_AND_FETCH: u32 = 2;

/// Buffers that REGISTER names: header and payload. The kernel refuses any other number in `len`.
pub const REGISTER_BUFFERS: u32 = 2;

/// The command area of a 128-byte submission entry.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CmdReq {
    /// None defined.
    pub flags: u64,
    /// The request being answered, from [`EntInOut::commit_id`].
    pub commit_id: u64,
    /// Queue of the entry.
    pub qid: u16,
    /// Zero.
    pub padding: [u8; 6],
}

/// Where request and reply of one entry say what lies in its payload.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EntInOut {
    /// None defined.
    pub flags: u64,
    /// Names the request in the commit.
    pub commit_id: u64,
    /// Bytes in the payload: of the request, then of the reply.
    pub payload_bytes: u32,
    /// Zero.
    pub padding: u32,
    /// Zero.
    pub reserved: u64,
}

/// Offset of the header of request and reply.
pub const IN_OUT_OFFSET: usize = 0;
/// Offset of the request's record.
pub const OP_IN_OFFSET: usize = 128;
/// Room for the request's record.
pub const OP_IN_BYTES: usize = 128;
/// Offset of [`EntInOut`].
pub const ENT_IN_OUT_OFFSET: usize = 256;
/// Bytes of the whole header.
pub const HEADER_BYTES: usize = 288;

const _: () = {
    assert!(size_of::<CmdReq>() == 24);
    assert!(size_of::<EntInOut>() == 32);
    assert!(ENT_IN_OUT_OFFSET + size_of::<EntInOut>() == HEADER_BYTES);
    assert!(OP_IN_OFFSET + OP_IN_BYTES == ENT_IN_OUT_OFFSET);
};
