//! File data: READ, WRITE, FSYNC, FSYNCDIR, SYNCFS, LSEEK, FALLOCATE, COPY_FILE_RANGE.

use super::{Context, Reply, stale, unexpected};
use crate::base::{Errno, HandleId, Ino, limits};
use crate::kernel::abi::flags::{WRITE_CACHE, WRITE_KILL_SUIDGID};
use crate::kernel::abi::{
    CopyFileRangeIn, CopyFileRangeOut, FallocateIn, FsyncIn, LseekIn, LseekOut, ReadIn, WriteIn,
};
use crate::kernel::decode;
use crate::wire::{Answer, Mutation, Query, SeekTo, WriteFlags};

/// Most bytes one COPY_FILE_RANGE can report: its answer has 32 bits. A whole number of pages.
const COPY_BYTES_MAX_NARROW: u64 = 0xffff_f000;

/// READ. Shorter than asked only at the end of the file.
pub fn read<R: Reply>(cx: Context, args: &ReadIn) -> impl FnOnce(R) + use<R> {
    #[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
    let len = args.size.min(limits::IO_BYTES_MAX as u32);
    let query = Query::Read { ino: cx.ino, offset: args.offset, len };
    move |reply: R| {
        cx.ask(&query, reply, |_, reply, answer, _| match answer {
            Ok(Answer::Data(data)) => reply.parts(&[data]),
            Ok(other) => reply.errno(unexpected(&other)),
            Err(errno) => reply.errno(stale(errno)),
        });
    }
}

/// WRITE. With `O_APPEND` the server finds the end of the file, so that appends of several mounts do not overwrite
/// each other; a page of the cache (`WRITE_CACHE`) has its place already, and its handle is any that was open.
pub fn write<R: Reply>(cx: Context, args: &WriteIn, data: &[u8]) -> impl FnOnce(R) + use<R> {
    let ino = cx.ino;
    let cached = args.write_flags & WRITE_CACHE != 0;
    let flags = WriteFlags {
        append: !cached && args.flags & libc::O_APPEND.cast_unsigned() != 0,
        kill_suidgid: args.write_flags & WRITE_KILL_SUIDGID != 0,
    };
    let sync = !cached && args.flags & libc::O_DSYNC.cast_unsigned() != 0;
    let handle = HandleId(args.fh);
    let mutation = Mutation::Write { ino, offset: args.offset, flags, data };
    cx.mutate(&mutation, move |mount, reply: R, outcome, _| {
        let written = outcome.map_err(stale).map(|done| {
            // The server never writes more than it was given, which came in a request of 32-bit size.
            decode::reply::written(u32::try_from(done.bytes).unwrap_or(u32::MAX))
        });
        match (written, sync) {
            // The kernel does not follow a direct write by an FSYNC.
            (Ok(written), true) => {
                mount.sync(Some((ino, handle)), move |result| reply.result(result.map(|()| written)));
            }
            (written, _) => reply.result(written),
        }
    })
}

/// FSYNC and FSYNCDIR: what was answered before is durable when this is answered.
pub fn fsync<R: Reply>(cx: Context, args: &FsyncIn) -> impl FnOnce(R) + use<R> {
    let of = Some((cx.ino, HandleId(args.fh)));
    sync(cx, of)
}

/// SYNCFS.
pub fn syncfs<R: Reply>(cx: Context) -> impl FnOnce(R) + use<R> {
    sync(cx, None)
}

fn sync<R: Reply>(cx: Context, of: Option<(Ino, HandleId)>) -> impl FnOnce(R) + use<R> {
    move |reply: R| cx.mount.sync(of, move |result| reply.done(result))
}

/// LSEEK: `SEEK_DATA` and `SEEK_HOLE`; the kernel answers the others itself.
///
/// # Errors
/// EINVAL for another `whence`.
pub fn lseek<R: Reply>(cx: Context, args: &LseekIn) -> Result<impl FnOnce(R) + use<R>, Errno> {
    let to = match i32::try_from(args.whence) {
        Ok(libc::SEEK_DATA) => SeekTo::Data,
        Ok(libc::SEEK_HOLE) => SeekTo::Hole,
        _ => return Err(Errno::EINVAL),
    };
    let query = Query::Seek { ino: cx.ino, offset: args.offset, to };
    Ok(move |reply: R| {
        cx.ask(&query, reply, |_, reply, answer, _| match answer {
            Ok(Answer::Offset(offset)) => reply.record(&LseekOut { offset }),
            Ok(other) => reply.errno(unexpected(&other)),
            Err(errno) => reply.errno(stale(errno)),
        });
    })
}

/// FALLOCATE.
pub fn fallocate<R: Reply>(cx: Context, args: &FallocateIn) -> impl FnOnce(R) + use<R> {
    let mutation = Mutation::Allocate { ino: cx.ino, mode: args.mode, offset: args.offset, len: args.length };
    cx.mutate(&mutation, |_, reply: R, outcome, _| reply.done(outcome.map(|_| ()).map_err(stale)))
}

/// COPY_FILE_RANGE (`wide` false) and COPY_FILE_RANGE_64.
///
/// # Errors
/// EINVAL for flags: none are defined.
pub fn copy_file_range<R: Reply>(
    cx: Context,
    args: &CopyFileRangeIn,
    wide: bool,
) -> Result<impl FnOnce(R) + use<R>, Errno> {
    if args.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mutation = Mutation::Copy {
        source: cx.ino,
        source_offset: args.off_in,
        target: Ino(args.nodeid_out),
        target_offset: args.off_out,
        len: if wide { args.len } else { args.len.min(COPY_BYTES_MAX_NARROW) },
    };
    Ok(cx.mutate(&mutation, move |_, reply: R, outcome, _| match outcome {
        Ok(done) if wide => reply.record(&CopyFileRangeOut { bytes_copied: done.bytes }),
        Ok(done) => reply.record(&decode::reply::written(u32::try_from(done.bytes).unwrap_or(u32::MAX))),
        Err(errno) => reply.errno(stale(errno)),
    }))
}
