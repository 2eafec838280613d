//! Every bound in one place: its name, its reason, and a check that runs before the program does.

/// Longest name in a directory (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

/// Longest target of a symbolic link, one less than `PATH_MAX` since the kernel adds a NUL.
pub const SYMLINK_BYTES_MAX: usize = 4095;

/// Longest value of an extended attribute (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// Longest list of extended-attribute names (`XATTR_LIST_MAX`).
pub const XATTR_LIST_BYTES_MAX: usize = 65_536;

/// Largest file: offsets are signed 64-bit numbers in every system call.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Largest WRITE or READ payload in one request (`max_write`): 256 pages, the kernel's default
/// `fs.fuse.max_pages_limit`.
pub const IO_BYTES_MAX: usize = 1 << 20;

/// Most links of one inode (ext4 allows 65,000; tools expect a limit to exist).
pub const LINKS_MAX: u32 = 65_000;

/// Largest body of a wire frame: a listing or a batch, without the file bytes in the payload.
pub const FRAME_BODY_BYTES_MAX: usize = 2 << 20;

/// Largest payload of a wire frame: one READ or WRITE, or the inline data of one batch.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Most mutations of one batch: each is answered with an outcome of some 150 bytes, and these must fit one frame.
pub const BATCH_MUTATIONS_MAX: usize = 8192;

/// Largest chunk: one record of a segment. Larger writes become several chunks.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Block size told by statfs and stat.
pub const BLOCK_BYTES: u32 = 4096;

const _: () = {
    // The kernel copies payloads by page; a ragged tail would cost one more copy per WRITE.
    assert!(IO_BYTES_MAX.is_multiple_of(4096));
    assert!(FRAME_PAYLOAD_BYTES_MAX >= IO_BYTES_MAX);
    // The largest extended attribute with its name and record must fit a body.
    assert!(FRAME_BODY_BYTES_MAX >= XATTR_VALUE_BYTES_MAX + 4096);
};
