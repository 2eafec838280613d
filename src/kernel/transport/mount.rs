//! From a directory to a connection with the kernel, and back.
//!
//! In: mount options and a mount point. Out: the descriptor of /dev/fuse that belongs to the mount, with INIT waiting
//! in it. As root by mount(2); as another user by the setuid helper fusermount3; or a descriptor that a parent has
//! mounted already, named `/dev/fd/N`. Who answers the requests is not known here.
//!
//! The crate fuse-backend-rs can mount too, but always with its own options and without telling why it failed;
//! docs/decisions/0002-mounting.md has the comparison.
#![allow(
    unsafe_code,
    reason = "takes over descriptors that arrive as numbers: from fusermount3 and from /dev/fd/N"
)]

use super::options::{MountOptions, SUBTYPE};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType};
use std::fs::{File, OpenOptions};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The device through which the kernel talks to a file system in user space.
pub const DEVICE: &str = "/dev/fuse";

/// The setuid helper that mounts for ordinary users.
const HELPER: &str = "fusermount3";

/// Why a directory could not be mounted. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountFault {
    /// The mount point is not there.
    #[error("mount point {0} does not exist: create it with mkdir")]
    Missing(PathBuf),
    /// The mount point is no directory.
    #[error("mount point {0} is not a directory")]
    NotDirectory(PathBuf),
    /// A daemon died and left its mount behind.
    #[error("mount point {0} is a stale mount whose daemon is gone: run `ringfs umount {0}` first")]
    Stale(PathBuf),
    /// The mount point holds files that would be hidden.
    #[error("mount point {0} is not empty: choose an empty directory, or mount over it with -o nonempty")]
    NotEmpty(PathBuf),
    /// The mount point cannot be looked at.
    #[error("mount point {path}: {errno}")]
    Point {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// No /dev/fuse.
    #[error(
        "{DEVICE} does not exist: load the kernel module with `modprobe fuse`, or pass the device to the container"
    )]
    NoDevice,
    /// /dev/fuse is there but not for us.
    #[error(
        "{DEVICE} may not be opened ({0}): run as root, or let the administrator allow it (`chmod 666 {DEVICE}`)"
    )]
    DeviceDenied(Errno),
    /// mount(2) failed.
    #[error("mounting {path} failed: {errno}{hint}")]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
        /// Remedy, starting with a separator, or empty.
        hint: &'static str,
    },
    /// fusermount3 is not installed.
    #[error("mounting as an ordinary user needs {HELPER}: install the package fuse3, or run as root")]
    NoHelper,
    /// fusermount3 refused.
    #[error("{HELPER} refused: {0}")]
    Helper(String),
    /// A `/dev/fd/N` that is not a connection with the kernel.
    #[error(
        "/dev/fd/{0} is not an open {DEVICE}: it must be opened and mounted by whoever starts this program"
    )]
    BadDescriptor(RawFd),
}

/// Mounts `point` and returns the connection's descriptor.
///
/// `point` may be `/dev/fd/N`: then nothing is mounted, and the descriptor is taken over.
///
/// # Errors
/// A [`MountFault`] that names the remedy; nothing is left mounted.
pub fn mount(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountFault> {
    if let Some(number) = descriptor_of(point) {
        return take_over(number);
    }
    let mode = check_point(point, options.nonempty)?;
    let euid = nix::unistd::geteuid();
    if euid.is_root() {
        return mount_directly(point, mode, options);
    }
    open_device().map(drop)?;
    mount_by_helper(point, options)
}

/// Whether [`mount`] has a chance: looks at the mount point and opens the device. For a program that has other things to
/// do first and should not begin them in vain.
///
/// # Errors
/// What [`mount`] would say.
pub fn check(point: &Path, options: &MountOptions) -> Result<(), MountFault> {
    if descriptor_of(point).is_some() {
        return Ok(());
    }
    check_point(point, options.nonempty)?;
    open_device().map(drop)
}

/// The `N` of `/dev/fd/N`.
#[must_use]
pub fn descriptor_of(point: &Path) -> Option<RawFd> {
    point.to_str()?.strip_prefix("/dev/fd/")?.parse().ok()
}

/// Detaches `point`. `lazy` detaches it even while files on it are open; they stay usable until closed.
///
/// # Errors
/// `EBUSY` while files are open and not `lazy`; `EPERM` for a mount of somebody else; `EINVAL` when nothing is mounted.
pub fn unmount(point: &Path, lazy: bool) -> Result<(), Errno> {
    if nix::unistd::geteuid().is_root() {
        let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        return nix::mount::umount2(point, flags | MntFlags::UMOUNT_NOFOLLOW);
    }
    let mut helper = Command::new(HELPER);
    helper.arg("-u").args(lazy.then_some("-z")).arg("--").arg(point);
    let output = helper.stdin(Stdio::null()).output().map_err(|_| Errno::ENOENT)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(if said.contains("busy") { Errno::EBUSY } else { Errno::EPERM })
}

/// Whether `device` is an open /dev/fuse.
fn is_device(file: &File) -> bool {
    /// Number of the character device /dev/fuse: misc major, minor 229 (Documentation/admin-guide/devices.txt).
    const FUSE_RDEV: u64 = nix::libc::makedev(10, 229);
    file.metadata().is_ok_and(|meta| meta.rdev() == FUSE_RDEV)
}

fn take_over(number: RawFd) -> Result<OwnedFd, MountFault> {
    if number < 0 || nix::fcntl::fcntl(borrow(number), nix::fcntl::FcntlArg::F_GETFD).is_err() {
        return Err(MountFault::BadDescriptor(number));
    }
    // SAFETY: the descriptor is open (asked just above), and by the convention of `/dev/fd/N` mount points whoever
    // started this program opened it for us alone; nothing else in the process closes it, since nothing else knows it.
    let file = unsafe { File::from_raw_fd(number) };
    if !is_device(&file) {
        // Not ours after all: leave it open, as it was found.
        std::mem::forget(file);
        return Err(MountFault::BadDescriptor(number));
    }
    let cloexec = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&file, cloexec).map_err(|_| MountFault::BadDescriptor(number))?;
    Ok(file.into())
}

fn borrow(number: RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: used for one fcntl(F_GETFD) alone, which answers EBADF for a number that is not open and changes nothing;
    // `number` is not negative (the caller checked), so it is not the niche value -1.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
}

/// Looks at the mount point and returns its mode.
fn check_point(point: &Path, nonempty: bool) -> Result<u32, MountFault> {
    let path = || point.to_path_buf();
    let errno = |error: &std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
    let meta = match std::fs::metadata(point) {
        Ok(meta) => meta,
        Err(error) => {
            return Err(match errno(&error) {
                Errno::ENOENT => MountFault::Missing(path()),
                Errno::ENOTCONN => MountFault::Stale(path()),
                errno => MountFault::Point { path: path(), errno },
            });
        }
    };
    if !meta.is_dir() {
        return Err(MountFault::NotDirectory(path()));
    }
    let mut names =
        std::fs::read_dir(point).map_err(|e| MountFault::Point { path: path(), errno: errno(&e) })?;
    if !nonempty && names.next().is_some() {
        return Err(MountFault::NotEmpty(path()));
    }
    Ok(meta.mode())
}

/// Opens the device.
fn open_device() -> Result<File, MountFault> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| {
        match Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)) {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => MountFault::NoDevice,
            errno => MountFault::DeviceDenied(errno),
        }
    })
}

fn mount_directly(point: &Path, mode: u32, options: &MountOptions) -> Result<OwnedFd, MountFault> {
    let device = open_device()?;
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut data = format!(
        "fd={},rootmode={:o},user_id={uid},group_id={gid}",
        device.as_raw_fd(),
        mode & nix::libc::S_IFMT
    );
    if options.default_permissions {
        data.push_str(",default_permissions");
    }
    if options.allow_other.unwrap_or(true) {
        data.push_str(",allow_other");
    }
    let kind = format!("fuse.{SUBTYPE}");
    let mounted = nix::mount::mount(
        Some(options.source.as_str()),
        point,
        Some(kind.as_str()),
        options.flags | MsFlags::empty(),
        Some(data.as_str()),
    );
    match mounted {
        Ok(()) => Ok(device.into()),
        Err(errno) => Err(MountFault::Mount { path: point.to_path_buf(), errno, hint: hint(errno) }),
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => ": mounting is not allowed here; a container needs CAP_SYS_ADMIN",
        Errno::ENODEV => ": the kernel has no FUSE; load it with `modprobe fuse`",
        _ => "",
    }
}

/// Lets fusermount3 mount: it passes the descriptor back over a socket whose number stands in `_FUSE_COMMFD`.
fn mount_by_helper(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountFault> {
    let fault = |errno: Errno| MountFault::Helper(format!("no socket to talk to it: {errno}"));
    let pair =
        nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.map_err(fault)?;
    // The helper inherits its end: a duplicate without close-on-exec, gone again right after the start.
    let inherited = nix::unistd::dup(&theirs).map_err(fault)?;
    let mut helper = Command::new(HELPER);
    helper.arg("-o").arg(options.words().join(",")).arg("--").arg(point);
    helper.env("_FUSE_COMMFD", inherited.as_raw_fd().to_string());
    let child = helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => MountFault::NoHelper,
        _ => MountFault::Helper(error.to_string()),
    })?;
    drop((theirs, inherited));
    let device = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(|error| MountFault::Helper(error.to_string()))?;
    match device {
        Ok(Some(device)) => Ok(device),
        Ok(None) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().trim_start_matches("fusermount3: ");
            let hint =
                if said.contains("user_allow_other") { "" } else { "; `ringfs doctor` looks for the cause" };
            Err(MountFault::Helper(format!("{}{hint}", said.lines().next().unwrap_or("it said nothing"))))
        }
        Err(errno) => Err(fault(errno)),
    }
}

/// One descriptor from the socket; `None` when the other side closed it without sending one.
fn receive_descriptor(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    loop {
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            nix::sys::socket::recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags);
        let message = match message {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control
                && let Some(&number) = numbers.first()
            {
                // SAFETY: the kernel has just made this descriptor for us with SCM_RIGHTS; nobody else has its number,
                // and there is room for one only, so none is left behind.
                return Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        return Ok(None);
    }
}

#[cfg(test)]
mod tests {
    use super::{MountFault, check_point, descriptor_of, mount, receive_descriptor};
    use crate::kernel::transport::options::MountOptions;
    use nix::sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    };
    use std::fs::File;
    use std::io::IoSlice;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::path::Path;

    #[test]
    fn each_bad_mount_point_gets_its_own_answer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        File::create(&file).unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(check_point(&missing, false), Err(MountFault::Missing(_))));
        assert!(matches!(check_point(&file, false), Err(MountFault::NotDirectory(_))));
        assert!(matches!(check_point(dir.path(), false), Err(MountFault::NotEmpty(_))));
        assert!(check_point(dir.path(), true).is_ok());
    }

    #[test]
    fn only_a_number_behind_dev_fd_is_a_descriptor() {
        assert_eq!(descriptor_of(Path::new("/dev/fd/7")), Some(7));
        for path in ["/dev/fd/", "/dev/fd/x", "/dev/fd/7/x", "/mnt", "/dev/fdx/3"] {
            assert_eq!(descriptor_of(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused_and_stays_open() {
        let file = tempfile::tempfile().unwrap();
        let number = file.into_raw_fd();
        for _ in 0..2 {
            let result = mount(Path::new(&format!("/dev/fd/{number}")), &MountOptions::new("s"));
            assert!(matches!(result, Err(MountFault::BadDescriptor(n)) if n == number), "{result:?}");
        }
        let closed = mount(Path::new("/dev/fd/9999"), &MountOptions::new("s"));
        assert!(matches!(closed, Err(MountFault::BadDescriptor(9999))), "{closed:?}");
        nix::unistd::close(number).unwrap();
    }

    #[test]
    fn a_descriptor_comes_through_the_helpers_socket_and_its_absence_is_noticed() {
        let pair =
            || socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (ours, theirs) = pair();
        let file = tempfile::tempfile().unwrap();
        let numbers = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
        assert!(receive_descriptor(&ours).unwrap().is_some());
        let (ours, theirs) = pair();
        drop(theirs);
        assert!(receive_descriptor(&ours).unwrap().is_none());
    }
}
