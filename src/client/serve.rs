//! The handler the transport calls: decodes a request, picks its operation, hands the answer back.
//!
//! In: calls of the kernel on the queue threads. Out: one answer to each, from here when no server is needed, else
//! from a token by whoever brings the server's answer; with a server in this process that is still this thread, so
//! nobody is woken. Owns nothing but a reference to the mount. Knows what the kernel is asked for at INIT.
//!
//! | refused | with | and the kernel then |
//! |---|---|---|
//! | BMAP | ENOSYS | does not ask again: there is no block device |
//! | POLL | ENOSYS | takes files as always ready, as on any disk |
//! | IOCTL | ENOTTY | tells the program; it goes on asking |
//! | NOTIFY_REPLY | no reply | nothing was ever retrieved |
//!
//! OPEN, OPENDIR, FLUSH and the xattr operations are never ENOSYS, since each would end for the whole mount.
#![forbid(unsafe_code)]

use super::mount::{KernelCaches, Mount, Stale};
use super::ops::{self, Context, Reply, open_mode};
use crate::base::{Errno, Ino};
use crate::kernel::abi::InitFlags;
use crate::kernel::decode::Request;
use crate::kernel::transport::{
    Call, Handler, Negotiated, Notice, Notifier, Offered, Refused, Token, Verdict, Wanted,
};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use zerocopy::IntoBytes;

/// How long an unmount waits for the server before it leaves without a word.
pub const LEAVE_GRACE: Duration = Duration::from_secs(8);

/// Features asked for besides [`Wanted::default`]'s. Not among them: `WRITEBACK_CACHE` (the kernel would own sizes and
/// times), `CACHE_SYMLINKS` and `NO_OPENDIR_SUPPORT` (both let it keep what another mount may change).
const FEATURES: InitFlags = InitFlags::POSIX_LOCKS
    .with(InitFlags::FLOCK_LOCKS)
    .with(InitFlags::EXPORT_SUPPORT)
    .with(InitFlags::DONT_MASK)
    .with(InitFlags::POSIX_ACL)
    .with(InitFlags::SETXATTR_EXT)
    .with(InitFlags::DO_READDIRPLUS)
    .with(InitFlags::READDIRPLUS_AUTO)
    .with(InitFlags::DIRECT_IO_ALLOW_MMAP);

/// All optional features a mount asks for: what the null source asks for too, to be comparable.
#[must_use]
pub fn features() -> InitFlags {
    Wanted::default().flags.with(FEATURES)
}

/// See the module.
#[derive(Debug)]
pub struct Serve {
    mount: Arc<Mount>,
}

impl Serve {
    /// Serves this mount.
    #[must_use]
    pub fn new(mount: Arc<Mount>) -> Self {
        Self { mount }
    }
}

impl Reply for Token {
    fn errno(self, errno: Errno) {
        self.error(errno);
    }

    fn parts(self, parts: &[&[u8]]) {
        self.ok_parts(parts);
    }

    fn fill(self, bytes_max: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.reply_with(bytes_max, |buffer| Ok(write(buffer)));
    }
}

impl Handler for Serve {
    fn handle(&self, call: Call<'_>) -> Verdict {
        let cx = Context {
            mount: Arc::clone(&self.mount),
            unique: call.unique(),
            ino: call.node(),
            caller: call.caller(),
        };
        dispatch(cx, call)
    }

    fn forget(&self, ino: Ino, lookups: u64) {
        ops::lookup::forget(&self.mount, ino, lookups);
    }

    fn interrupt(&self, unique: u64) {
        self.mount.interrupt(unique);
    }

    fn init(&self, _offered: &Offered) -> Wanted {
        Wanted { flags: features(), ..Wanted::default() }
    }

    fn started(&self, negotiated: &Negotiated, notifier: Notifier) {
        self.mount.set_open_mode(open_mode(negotiated.flags.has(InitFlags::DIRECT_IO_ALLOW_MMAP)));
        let epochs = negotiated.minor >= MINOR_OF_EPOCHS;
        self.mount.set_caches(Arc::new(Caches { notifier, epochs }));
    }

    fn destroyed(&self) {
        if let Err(errno) = self.mount.leave(LEAVE_GRACE) {
            tracing::error!(%errno, "unmounted before the server had made everything durable");
        }
    }
}

/// Minor version of the protocol that has INC_EPOCH (Linux 6.16).
const MINOR_OF_EPOCHS: u32 = 44;

/// The kernel's caches, by its notifications.
struct Caches {
    notifier: Notifier,
    epochs: bool,
}

impl KernelCaches for Caches {
    fn can_forget_names(&self) -> bool {
        self.epochs
    }

    fn forget(&self, stale: &Stale) {
        let (done, all_done) = channel();
        if stale.names && self.epochs {
            self.send(|| Notice::IncEpoch, &done);
        }
        for ino in &stale.inodes {
            self.send(|| Notice::InvalInode { ino: *ino, offset: 0, len: 0 }, &done);
        }
        drop(done);
        // Ends when the last completion has run, or was dropped with a mount that is gone.
        while all_done.recv().is_ok() {}
    }
}

impl Caches {
    /// Queues a notification. A full queue is waited for: the kernel must hear of it, and this is a thread that may wait.
    fn send(&self, notice: impl Fn() -> Notice, done: &Sender<()>) {
        loop {
            let done = done.clone();
            // Dropping it is what tells; what the kernel did not have it need not forget.
            let completion = Box::new(move |_| drop(done));
            match self.notifier.send(notice(), Some(completion)) {
                Err(Refused::Full) => std::thread::sleep(FULL_PAUSE),
                Ok(()) | Err(Refused::Gone) => return,
            }
        }
    }
}

/// How long a full queue of notifications is given to empty.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Leaves the answer to a token and goes on with the operation's second step.
fn later(call: Call<'_>, second: impl FnOnce(Token)) -> Verdict {
    let (token, verdict) = call.defer();
    second(token);
    verdict
}

/// For operations that may not need the server, or refuse: `Ok(None)` is an empty answer.
fn maybe(call: Call<'_>, second: Result<Option<impl FnOnce(Token)>, Errno>) -> Verdict {
    match second {
        Ok(Some(second)) => later(call, second),
        Ok(None) => call.ok(&[]),
        Err(errno) => call.error(errno),
    }
}

fn dispatch(cx: Context, call: Call<'_>) -> Verdict {
    use ops::{attributes, data, directory, lock, lookup, make, open, remove, xattr};
    let request = match Request::parse(call.header(), call.args_bytes(), call.payload()) {
        Ok(request) => request,
        Err(errno) => return call.error(errno),
    };
    macro_rules! later {
        ($second:expr) => {{
            let second = $second;
            later(call, second)
        }};
    }
    macro_rules! maybe {
        ($second:expr) => {{
            let second = $second;
            maybe(call, second)
        }};
    }
    match request {
        Request::Lookup { name } => later!(lookup::lookup(cx, name)),
        Request::Getattr { .. } => later!(attributes::getattr(cx)),
        Request::Statx { .. } => later!(attributes::statx(cx)),
        Request::Setattr(set) => later!(attributes::setattr(cx, &set)),
        Request::Readlink => later!(lookup::readlink(cx)),
        Request::Symlink { name, target } => later!(make::symlink(cx, name, target)),
        Request::Mknod { args, name } => later!(make::mknod(cx, &args, name)),
        Request::Mkdir { args, name } => later!(make::mkdir(cx, &args, name)),
        Request::Link { target, name } => later!(make::link(cx, target, name)),
        Request::Create { args, name } => later!(make::create(cx, &args, name)),
        Request::Tmpfile(args) => later!(make::tmpfile(cx, &args)),
        Request::Unlink { name } => later!(remove::unlink(cx, name)),
        Request::Rmdir { name } => later!(remove::rmdir(cx, name)),
        Request::Rename { name, new_parent, new_name, flags } => {
            later!(remove::rename(cx, name, new_parent, new_name, flags))
        }
        Request::Open(args) => later!(open::open(cx, &args)),
        Request::Release(args) => maybe!(open::release(cx, &args)),
        Request::Flush(args) => maybe!(Ok(open::flush(cx, &args))),
        Request::Opendir(args) => call.ok(open::opendir(&cx, &args).as_bytes()),
        Request::Releasedir(args) => maybe!(open::releasedir(cx, &args)),
        Request::Read(args) => later!(data::read(cx, &args)),
        Request::Write { args, data } => later!(data::write(cx, &args, data)),
        Request::Fsync(args) | Request::Fsyncdir(args) => later!(data::fsync(cx, &args)),
        Request::Syncfs => later!(data::syncfs(cx)),
        Request::Lseek(args) => maybe!(data::lseek(cx, &args).map(Some)),
        Request::Fallocate(args) => later!(data::fallocate(cx, &args)),
        Request::CopyFileRange { args, wide } => maybe!(data::copy_file_range(cx, &args, wide).map(Some)),
        Request::Readdir(args) => later!(directory::readdir(cx, &args, false)),
        Request::Readdirplus(args) => later!(directory::readdir(cx, &args, true)),
        Request::Statfs => later!(lookup::statfs(cx)),
        Request::Setxattr { args, name, value } => later!(xattr::set(cx, &args, name, value)),
        Request::Getxattr { size, name } => later!(xattr::get(cx, size, name)),
        Request::Listxattr { size } => later!(xattr::list(cx, size)),
        Request::Removexattr { name } => later!(xattr::remove(cx, name)),
        Request::Access { .. } => later!(lookup::access(cx)),
        Request::Getlk(lock) => later!(lock::getlk(cx, &lock)),
        Request::Setlk(lock) => later!(lock::setlk(cx, &lock, false)),
        Request::Setlkw(lock) => {
            let second = lock::setlk(cx, &lock, true);
            match call.defer_wait() {
                (Some(token), verdict) => {
                    second(token);
                    verdict
                }
                (None, verdict) => verdict,
            }
        }
        Request::Bmap(_) | Request::Poll(_) => call.error(Errno::ENOSYS),
        Request::Ioctl { .. } => call.error(Errno::ENOTTY),
        Request::NotifyReply { .. } => call.no_reply(),
    }
}
