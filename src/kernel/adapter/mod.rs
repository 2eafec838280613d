//! Serves any fuse-backend-rs [`FileSystem`] through this crate's transport.
//!
//! In: requests of the transport, decoded here. Out: calls of the file system's methods, and their results as replies.
//! The trait is synchronous, so each request is answered on the queue thread that received it, and a method that blocks
//! (a waiting lock above all) blocks that queue.
//!
//! What the trait cannot express is refused on purpose: STATX and COPY_FILE_RANGE are ENOSYS (the kernel falls back to
//! GETATTR and to copying), TMPFILE is EOPNOTSUPP, which open(2) passes on.

mod buffer;
mod convert;

use crate::base::{Errno, HandleId, Ino, Name};
use crate::kernel::abi::{
    AttrOut, BmapOut, CreateIn, CreateOut, EntryOut, GetxattrOut, InitFlags, IoctlOut, LkOut, LseekOut,
    OpenOut, PollOut, ReadIn, WriteIn, WriteOut,
};
use crate::kernel::decode::{DirWriter, LookupName, Request};
use crate::kernel::transport::{Call, Handler, Offered, Verdict, Wanted};
use buffer::{Sink, Source};
use convert::{CName, context, errno};
use fuse_backend_rs::abi::fuse_abi::{CreateIn as BackendCreateIn, OpenOptions, stat64};
use fuse_backend_rs::api::filesystem::{
    Context, Entry, FileSystem, FsOptions, GetxattrReply, IoctlData, ListxattrReply,
};
use std::ffi::CString;
use std::io;
use std::time::Duration;
use zerocopy::{Immutable, IntoBytes};

/// A file system of fuse-backend-rs as a [`Handler`].
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use fuse_backend_rs::passthrough::{Config, PassthroughFs};
/// use ringfs::kernel::adapter::Adapter;
///
/// let config = Config { root_dir: "/srv/data".to_owned(), do_import: true, ..Config::default() };
/// let fs = PassthroughFs::<()>::new(config)?;
/// fs.import()?;
/// let handler = Adapter::new(fs);
/// # let _ = handler;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Adapter<F> {
    fs: F,
}

impl<F: FileSystem> Adapter<F> {
    /// Wraps a file system that is ready to be initialised.
    pub fn new(fs: F) -> Self {
        Self { fs }
    }
}

/// A small reply, built beside the request so that both can be read at once.
struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    const NOTHING: Self = Self { bytes: Vec::new() };

    fn of(record: &(impl IntoBytes + Immutable)) -> Self {
        Self { bytes: record.as_bytes().to_vec() }
    }
}

type Answer = Result<Reply, Errno>;

impl<F: FileSystem + Send + Sync + 'static> Handler for Adapter<F> {
    fn handle(&self, call: Call<'_>) -> Verdict {
        let context = context(call.header());
        let node = F::Inode::from(call.node().0);
        let answer = match Request::parse(call.header(), call.args_bytes(), call.payload()) {
            Err(errno) => Err(errno),
            // These three fill the reply in place, and what they need of the request is a copy.
            Ok(Request::Read(args)) => return self.read(call, &context, node, args),
            Ok(Request::Readdir(args)) => return self.readdir(call, &context, node, args, false),
            Ok(Request::Readdirplus(args)) => return self.readdir(call, &context, node, args, true),
            Ok(Request::NotifyReply { .. }) => return call.no_reply(),
            Ok(request) => self.answer(&context, node, request),
        };
        match answer {
            Ok(reply) => call.ok(&reply.bytes),
            Err(errno) => call.error(errno),
        }
    }

    fn forget(&self, ino: Ino, lookups: u64) {
        self.fs.forget(&Context::new(), F::Inode::from(ino.0), lookups);
    }

    fn interrupt(&self, _unique: u64) {
        // Every request is answered before the next is read, so there is nothing to interrupt.
    }

    fn init(&self, offered: &Offered) -> Wanted {
        let capable = FsOptions::from_bits_truncate(offered.flags.0);
        match self.fs.init(capable) {
            Ok(wanted) => Wanted { flags: InitFlags(wanted.bits()), ..Wanted::default() },
            Err(error) => {
                tracing::warn!(%error, "the file system refused INIT; going on without optional features");
                Wanted { flags: InitFlags::NONE, ..Wanted::default() }
            }
        }
    }

    fn destroyed(&self) {
        self.fs.destroy();
    }
}

impl<F: FileSystem> Adapter<F> {
    fn answer(&self, c: &Context, node: F::Inode, request: Request<'_>) -> Answer {
        let fs = &self.fs;
        match request {
            Request::Lookup { name: LookupName::Name(name) } => {
                entry(fs.lookup(c, node, CName::new(name).get()))
            }
            Request::Lookup { name: LookupName::Itself } => entry(fs.lookup(c, node, c".")),
            Request::Lookup { name: LookupName::Parent } => entry(fs.lookup(c, node, c"..")),
            Request::Getattr { handle } => attributes(fs.getattr(c, node, handle.map(file::<F>))),
            Request::Setattr(set) => {
                let (stat, valid) = convert::set_attr(&set);
                attributes(fs.setattr(c, node, stat, set.handle.map(file::<F>), valid))
            }
            Request::Readlink => bytes(fs.readlink(c, node)),
            Request::Symlink { name, target } => {
                let target = CString::new(target).map_err(|_| Errno::EINVAL)?;
                entry(fs.symlink(c, &target, node, CName::new(name).get()))
            }
            Request::Mknod { args: a, name } => {
                entry(fs.mknod(c, node, CName::new(name).get(), a.mode, a.rdev, a.umask))
            }
            Request::Mkdir { args, name } => {
                entry(fs.mkdir(c, node, CName::new(name).get(), args.mode, args.umask))
            }
            Request::Unlink { name } => nothing(fs.unlink(c, node, CName::new(name).get())),
            Request::Rmdir { name } => nothing(fs.rmdir(c, node, CName::new(name).get())),
            Request::Rename { name, new_parent, new_name, flags } => {
                let new_parent = F::Inode::from(new_parent.0);
                nothing(fs.rename(
                    c,
                    node,
                    CName::new(name).get(),
                    new_parent,
                    CName::new(new_name).get(),
                    flags,
                ))
            }
            Request::Link { target, name } => {
                entry(fs.link(c, F::Inode::from(target.0), node, CName::new(name).get()))
            }
            Request::Open(args) => opened(fs.open(c, node, args.flags, args.open_flags)),
            Request::Opendir(args) => {
                opened(fs.opendir(c, node, args.flags).map(|(handle, options)| (handle, options, None)))
            }
            Request::Create { args, name } => self.create(c, node, args, name),
            Request::Write { args, data } => self.write(c, node, args, data),
            Request::Statfs => done(fs.statfs(c, node), |stat| Reply::of(&convert::statfs(&stat))),
            Request::Release(args) => {
                let flush = args.release_flags & crate::kernel::abi::flags::RELEASE_FLUSH != 0;
                let unlock = args.release_flags & crate::kernel::abi::flags::RELEASE_FLOCK_UNLOCK != 0;
                let owner = (flush || unlock).then_some(args.lock_owner);
                nothing(fs.release(c, node, args.flags, args.fh.into(), flush, unlock, owner))
            }
            Request::Releasedir(args) => nothing(fs.releasedir(c, node, args.flags, args.fh.into())),
            Request::Flush(args) => nothing(fs.flush(c, node, args.fh.into(), args.lock_owner)),
            Request::Fsync(args) => nothing(fs.fsync(c, node, args.fsync_flags & 1 != 0, args.fh.into())),
            Request::Fsyncdir(args) => {
                nothing(fs.fsyncdir(c, node, args.fsync_flags & 1 != 0, args.fh.into()))
            }
            Request::Access { mask } => nothing(fs.access(c, node, mask)),
            Request::Fallocate(a) => nothing(fs.fallocate(c, node, a.fh.into(), a.mode, a.offset, a.length)),
            Request::Lseek(a) => done(fs.lseek(c, node, a.fh.into(), a.offset, a.whence), |offset| {
                Reply::of(&LseekOut { offset })
            }),
            other => self.answer_rest(c, node, other),
        }
    }

    /// Extended attributes, locks, and the operations hardly anybody serves.
    fn answer_rest(&self, c: &Context, node: F::Inode, request: Request<'_>) -> Answer {
        let fs = &self.fs;
        match request {
            Request::Setxattr { args, name, value } => {
                let name = CString::new(name.bytes()).map_err(|_| Errno::EINVAL)?;
                nothing(fs.setxattr(c, node, &name, value, args.flags))
            }
            Request::Getxattr { size, name } => {
                let name = CString::new(name.bytes()).map_err(|_| Errno::EINVAL)?;
                done(fs.getxattr(c, node, &name, size), |reply| match reply {
                    GetxattrReply::Value(bytes) => Reply { bytes },
                    GetxattrReply::Count(size) => Reply::of(&GetxattrOut { size, padding: 0 }),
                })
            }
            Request::Listxattr { size } => done(fs.listxattr(c, node, size), |reply| match reply {
                ListxattrReply::Names(bytes) => Reply { bytes },
                ListxattrReply::Count(size) => Reply::of(&GetxattrOut { size, padding: 0 }),
            }),
            Request::Removexattr { name } => {
                let name = CString::new(name.bytes()).map_err(|_| Errno::EINVAL)?;
                nothing(fs.removexattr(c, node, &name))
            }
            Request::Getlk(lock) => {
                let found = fs.getlk(c, node, file::<F>(lock.handle), lock.owner, convert::lock(&lock), 0);
                done(found, |l| {
                    let lk = crate::kernel::abi::FileLock {
                        start: l.start,
                        end: l.end,
                        kind: l.lock_type,
                        pid: l.pid,
                    };
                    Reply::of(&LkOut { lk })
                })
            }
            Request::Setlk(lock) | Request::Setlkw(lock) => {
                let flags = if lock.flock { crate::kernel::abi::flags::LK_FLOCK } else { 0 };
                let (handle, wanted) = (file::<F>(lock.handle), convert::lock(&lock));
                nothing(match request {
                    Request::Setlkw(_) => fs.setlkw(c, node, handle, lock.owner, wanted, flags),
                    _ => fs.setlk(c, node, handle, lock.owner, wanted, flags),
                })
            }
            Request::Bmap(a) => {
                done(fs.bmap(c, node, a.block, a.blocksize), |block| Reply::of(&BmapOut { block }))
            }
            Request::Ioctl { args: a, data } => {
                let data = IoctlData { result: 0, data: (!data.is_empty()).then_some(data) };
                let result = fs.ioctl(c, node, a.fh.into(), a.flags, a.cmd, data, a.out_size);
                done(result, |out| {
                    let mut reply =
                        Reply::of(&IoctlOut { result: out.result, flags: 0, in_iovs: 0, out_iovs: 0 });
                    reply.bytes.extend_from_slice(out.data.unwrap_or_default());
                    reply
                })
            }
            Request::Poll(a) => {
                let events = fs.poll(c, node, a.fh.into(), a.kh.into(), a.flags, a.events);
                done(events, |revents| Reply::of(&PollOut { revents, padding: 0 }))
            }
            Request::Tmpfile(_) => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn create(&self, c: &Context, node: F::Inode, args: CreateIn, name: Name<'_>) -> Answer {
        let wanted = BackendCreateIn {
            flags: args.flags,
            mode: args.mode,
            umask: args.umask,
            fuse_flags: args.open_flags,
        };
        let created = self.fs.create(c, node, CName::new(name).get(), wanted);
        done(created, |(found, handle, options, backing)| {
            Reply::of(&CreateOut { entry: convert::entry(&found), open: open_out(handle, options, backing) })
        })
    }

    fn write(&self, c: &Context, node: F::Inode, args: WriteIn, data: &[u8]) -> Answer {
        use crate::kernel::abi::flags::{WRITE_CACHE, WRITE_LOCKOWNER};
        let owner = (args.write_flags & WRITE_LOCKOWNER != 0).then_some(args.lock_owner);
        let late = args.write_flags & WRITE_CACHE != 0;
        let mut source = Source::new(data);
        let (handle, offset) = (args.fh.into(), args.offset);
        let (fs, size, flags) = (&self.fs, args.size, args.flags);
        let written =
            fs.write(c, node, handle, &mut source, size, offset, owner, late, flags, args.write_flags);
        done(written, |n| Reply::of(&WriteOut { size: u32::try_from(n).unwrap_or(size), padding: 0 }))
    }

    fn read(&self, call: Call<'_>, c: &Context, node: F::Inode, args: ReadIn) -> Verdict {
        let owner =
            (args.read_flags & crate::kernel::abi::flags::READ_LOCKOWNER != 0).then_some(args.lock_owner);
        let room = usize::try_from(args.size).unwrap_or(usize::MAX);
        call.reply_with(room, |out| {
            let mut sink = Sink::new(out);
            let (handle, offset) = (args.fh.into(), args.offset);
            let read = self.fs.read(c, node, handle, &mut sink, args.size, offset, owner, args.flags);
            read.map_err(|error| errno(&error))?;
            Ok(sink.filled())
        })
    }

    fn readdir(&self, call: Call<'_>, c: &Context, node: F::Inode, args: ReadIn, plus: bool) -> Verdict {
        let room = usize::try_from(args.size).unwrap_or(usize::MAX);
        call.reply_with(room, |out| {
            let mut writer = DirWriter::new(out);
            let (fs, handle) = (&self.fs, F::Handle::from(args.fh));
            // The trait's contract: the number of bytes an entry took, 0 when it did not fit.
            let listed = if plus {
                fs.readdirplus(c, node, handle, args.size, args.offset, &mut |d, found| {
                    let before = writer.used();
                    add(&mut writer, d.ino, d.offset, d.type_, d.name, Some(&convert::entry(&found)));
                    Ok(writer.used() - before)
                })
            } else {
                fs.readdir(c, node, handle, args.size, args.offset, &mut |d| {
                    let before = writer.used();
                    add(&mut writer, d.ino, d.offset, d.type_, d.name, None);
                    Ok(writer.used() - before)
                })
            };
            listed.map_err(|error| errno(&error))?;
            Ok(writer.used())
        })
    }
}

/// Adds one entry if it fits. A name no directory may hold is left out: the file system below is not to be trusted.
fn add(writer: &mut DirWriter<'_>, ino: u64, next: u64, type_: u32, name: &[u8], found: Option<&EntryOut>) {
    let (ino, kind) = (Ino(ino), convert::kind(type_));
    let _fits = match (name, found) {
        (b"." | b"..", None) => writer.add_dot(ino, next, name == b".."),
        (b"." | b"..", Some(_)) => writer.add_plus_dot(ino, next, name == b".."),
        _ => match (Name::parse(name), found) {
            (Ok(name), None) => writer.add(ino, next, kind, name),
            (Ok(name), Some(found)) => writer.add_plus(found, ino, next, kind, name),
            (Err(_), _) => true,
        },
    };
}

fn file<F: FileSystem>(handle: HandleId) -> F::Handle {
    F::Handle::from(handle.0)
}

fn done<T>(result: io::Result<T>, reply: impl FnOnce(T) -> Reply) -> Answer {
    result.map(reply).map_err(|error| errno(&error))
}

fn nothing(result: io::Result<()>) -> Answer {
    done(result, |()| Reply::NOTHING)
}

fn bytes(result: io::Result<Vec<u8>>) -> Answer {
    done(result, |bytes| Reply { bytes })
}

fn entry(result: io::Result<Entry>) -> Answer {
    done(result, |found| Reply::of(&convert::entry(&found)))
}

fn attributes(result: io::Result<(stat64, Duration)>) -> Answer {
    done(result, |(stat, ttl)| {
        Reply::of(&AttrOut {
            attr_valid: ttl.as_secs(),
            attr_valid_nsec: ttl.subsec_nanos(),
            dummy: 0,
            attr: convert::attr(stat, 0),
        })
    })
}

fn opened<H: Into<u64>>(result: io::Result<(Option<H>, OpenOptions, Option<u32>)>) -> Answer {
    done(result, |(handle, options, backing)| Reply::of(&open_out(handle, options, backing)))
}

fn open_out<H: Into<u64>>(handle: Option<H>, options: OpenOptions, backing: Option<u32>) -> OpenOut {
    OpenOut {
        fh: handle.map_or(0, Into::into),
        open_flags: options.bits(),
        backing_id: backing.unwrap_or(0).cast_signed(),
    }
}
