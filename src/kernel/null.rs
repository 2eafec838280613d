//! A file system that remembers nothing and answers at once: what is left is the cost of the transport.
//!
//! In: any request. Out: success with fresh numbers and long timeouts, "absent" to LOOKUP, zeros to READ. It is measured
//! with the same flags and mount options as a real mount, so that the difference is what the file system costs.
//! Nothing is allocated and nothing is shared between threads.
//!
//! What a number stands for is in the number itself: its lowest bits tell the type, so GETATTR needs no memory.

use crate::base::{Attr, Errno, HandleId, Ino, Kind, Time};
use crate::kernel::abi::{InitFlags, Opcode};
use crate::kernel::decode::{DirWriter, Request, SetAttr, reply};
use crate::kernel::transport::{Call, Handler, Offered, Verdict, Wanted};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use zerocopy::IntoBytes;

/// Nothing changes behind the kernel's back, so it may believe an answer for a day.
const TTL: Duration = Duration::from_hours(24);

/// Threads that count for themselves; more share.
const COUNTERS: usize = 64;

/// What is negotiated, so that the floor is measured under the conditions of the mount it is compared with.
#[derive(Clone, Copy, Debug)]
pub struct NullOptions {
    /// Optional INIT features.
    pub flags: InitFlags,
    /// `FOPEN_*` flags of each open file.
    pub open_flags: u32,
}

impl NullOptions {
    /// The least a server can ask for.
    pub const BARE: Self = Self { flags: InitFlags::NONE, open_flags: 0 };
}

/// The handler behind the source `null:`.
#[derive(Debug)]
pub struct Null {
    options: NullOptions,
    made: [Counter; COUNTERS],
}

/// Alone on its cache lines: each thread counts without disturbing the others.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Null {
    /// A file system without memory.
    #[must_use]
    pub fn new(options: NullOptions) -> Self {
        Self { options, made: std::array::from_fn(|_| Counter::default()) }
    }

    /// A number not given out before, which says of what type it is.
    fn fresh(&self, thread: usize, kind: Kind) -> Attr {
        let slot = thread % COUNTERS;
        let nth = self.made[slot].0.fetch_add(1, Relaxed) + 1;
        let nth = nth * COUNTERS as u64 + slot as u64;
        attr(Ino(nth * 8 + code(kind)))
    }

    fn made(&self, call: Call<'_>, mode: u32) -> Verdict {
        let Ok(kind) = Kind::from_mode(mode) else { return call.error(Errno::EINVAL) };
        let attr = self.fresh(call.thread(), kind);
        call.ok(reply::entry(&attr, TTL, TTL).as_bytes())
    }

    fn opened(&self, call: Call<'_>) -> Verdict {
        call.ok(reply::open(HandleId(0), self.options.open_flags).as_bytes())
    }
}

impl Handler for Null {
    fn handle(&self, call: Call<'_>) -> Verdict {
        match call.opcode() {
            // A real server parses names and data; the floor is what remains without.
            Opcode::Lookup => call.error(Errno::ENOENT),
            Opcode::Getattr => {
                let attr = attr(call.node());
                call.ok(reply::attributes(&attr, TTL).as_bytes())
            }
            Opcode::Statx => {
                let attr = attr(call.node());
                call.ok(reply::statx(&attr, TTL).as_bytes())
            }
            Opcode::Mkdir => self.made(call, libc::S_IFDIR),
            Opcode::Symlink => self.made(call, libc::S_IFLNK),
            Opcode::Create | Opcode::Tmpfile => {
                let attr = self.fresh(call.thread(), Kind::File);
                let open = reply::open(HandleId(0), self.options.open_flags);
                call.ok(reply::create(reply::entry(&attr, TTL, TTL), open).as_bytes())
            }
            Opcode::Open | Opcode::Opendir => self.opened(call),
            Opcode::Statfs => call.ok(reply::statfs(1 << 40, 1 << 40, 1 << 40, 1 << 40).as_bytes()),
            Opcode::Getxattr | Opcode::Removexattr => call.error(Errno::ENODATA),
            Opcode::Readlink => call.ok(b"null"),
            Opcode::NotifyReply => call.no_reply(),
            Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
            | Opcode::Release
            | Opcode::Releasedir
            | Opcode::Flush
            | Opcode::Fsync
            | Opcode::Fsyncdir
            | Opcode::Setxattr
            | Opcode::Setlk
            | Opcode::Setlkw
            | Opcode::Access
            | Opcode::Fallocate
            | Opcode::Syncfs => call.ok(&[]),
            _ => self.handle_parsed(call),
        }
    }

    fn forget(&self, _ino: Ino, _lookups: u64) {}

    fn interrupt(&self, _unique: u64) {}

    fn init(&self, _offered: &Offered) -> Wanted {
        Wanted { flags: self.options.flags, ..Wanted::default() }
    }
}

impl Null {
    /// Requests whose answer depends on what they ask.
    fn handle_parsed(&self, call: Call<'_>) -> Verdict {
        let request = match Request::parse(call.header(), call.args_bytes(), call.payload()) {
            Ok(request) => request,
            Err(errno) => return call.error(errno),
        };
        match request {
            Request::Setattr(set) => {
                let attr = changed(call.node(), &set);
                call.ok(reply::attributes(&attr, TTL).as_bytes())
            }
            Request::Mknod { args, .. } => {
                let mode = args.mode;
                self.made(call, mode)
            }
            Request::Link { target, .. } => call.ok(reply::entry(&attr(target), TTL, TTL).as_bytes()),
            Request::Write { args, .. } => call.ok(reply::written(args.size).as_bytes()),
            Request::Read(args) => {
                let size = usize::try_from(args.size).unwrap_or(usize::MAX);
                call.reply_with(size, |out| {
                    out.fill(0);
                    Ok(out.len())
                })
            }
            Request::Readdir(args) => listing(call, args.offset, false),
            Request::Readdirplus(args) => listing(call, args.offset, true),
            Request::Listxattr { size: 0 } => call.ok(reply::xattr_size(0).as_bytes()),
            Request::Listxattr { .. } => call.ok(&[]),
            Request::Getlk(_) => call.ok(reply::lock(None).as_bytes()),
            Request::CopyFileRange { args, wide: false } => {
                call.ok(reply::written(u32::try_from(args.len).unwrap_or(u32::MAX)).as_bytes())
            }
            _ => call.error(Errno::ENOSYS),
        }
    }
}

fn listing(call: Call<'_>, offset: u64, plus: bool) -> Verdict {
    let node = call.node();
    call.reply_with(usize::MAX, |out| {
        let mut writer = DirWriter::new(out);
        let mut add = |next, parent| match plus {
            false => writer.add_dot(node, next, parent),
            true => writer.add_plus_dot(node, next, parent),
        };
        let _whole = (offset > 0 || add(1, false)) && (offset > 1 || add(2, true));
        Ok(writer.used())
    })
}

fn code(kind: Kind) -> u64 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
        Kind::CharDevice => 5,
        Kind::BlockDevice => 6,
    }
}

/// Attributes by number alone. The root's number ends in the code of a directory, as it should.
fn attr(ino: Ino) -> Attr {
    let (mode, nlink) = match ino.0 % 8 {
        1 => (libc::S_IFDIR | 0o777, 2),
        2 => (libc::S_IFLNK | 0o777, 1),
        3 => (libc::S_IFIFO | 0o666, 1),
        4 => (libc::S_IFSOCK | 0o666, 1),
        5 => (libc::S_IFCHR | 0o666, 1),
        6 => (libc::S_IFBLK | 0o666, 1),
        _ => (libc::S_IFREG | 0o666, 1),
    };
    let time = Time::default();
    let (size, blocks, rdev, uid, gid) = (0, 0, 0, 0, 0);
    Attr {
        ino,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        size,
        blocks,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    }
}

fn changed(ino: Ino, set: &SetAttr) -> Attr {
    let was = attr(ino);
    let kind = was.mode & libc::S_IFMT;
    Attr {
        mode: set.mode.map_or(was.mode, |mode| kind | mode & !libc::S_IFMT),
        uid: set.uid.unwrap_or(was.uid),
        gid: set.gid.unwrap_or(was.gid),
        size: set.size.unwrap_or(was.size),
        ..was
    }
}

#[cfg(test)]
mod tests {
    use super::{Null, NullOptions, attr, changed};
    use crate::base::{Ino, Kind};
    use crate::kernel::decode::SetAttr;
    use std::collections::HashSet;

    #[test]
    fn fresh_numbers_are_unique_and_tell_their_type() {
        let null = Null::new(NullOptions::BARE);
        let kinds = [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket];
        let mut seen = HashSet::from([Ino::ROOT]);
        for round in 0..100 {
            for thread in 0..200 {
                let kind = kinds[round % kinds.len()];
                let made = null.fresh(thread, kind);
                assert!(seen.insert(made.ino), "{} came twice", made.ino);
                assert_eq!(attr(made.ino).kind(), kind);
            }
        }
        assert!(attr(Ino::ROOT).is_dir());
    }

    #[test]
    fn setattr_answers_with_what_was_set_and_keeps_the_type() {
        let set = SetAttr { mode: Some(0o100_600), size: Some(7), uid: Some(3), ..SetAttr::default() };
        let after = changed(Ino::ROOT, &set);
        assert_eq!((after.mode, after.size, after.uid), (libc::S_IFDIR | 0o600, 7, 3));
    }
}
