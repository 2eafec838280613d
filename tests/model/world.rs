//! One tree of files and what happens to it: a reference folder, or one volume seen through one or two mounts.
//!
//! What a step gives is text that does not depend on which file system it is: no inode numbers, no sizes of folders, no
//! times but those that were set ([`time`]).

use crate::random::pattern;
use crate::script::{Op, SLOTS, Step};
use nix::unistd::{setfsgid, setfsuid};
use rustix::fs::{
    self, AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RawMode, RenameFlags, SeekFrom, Stat,
    Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::{self, Errno};
use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a step gave: words, or the errno.
pub(crate) type Gave = Result<String, Errno>;

/// Who the users of a script are.
const USERS: [(u32, u32); 3] = [(0, 0), (1000, 1000), (1001, 1000)];

/// An open file.
struct Open {
    side: usize,
    fd: OwnedFd,
}

/// See the module.
pub(crate) struct World {
    /// The root as each side sees it; a reference has one.
    roots: Vec<(PathBuf, OwnedFd)>,
    slots: Vec<Option<Open>>,
}

impl World {
    pub(crate) fn new(roots: &[&Path]) -> Self {
        let open = |root: &&Path| {
            let fd =
                fs::open(*root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            (root.to_path_buf(), fd)
        };
        let roots: Vec<_> = roots.iter().map(open).collect();
        fs::chmodat(&roots[0].1, ".", Mode::from_raw_mode(0o777), AtFlags::empty()).unwrap();
        Self { roots, slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// Closes all files.
    pub(crate) fn close(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
    }

    /// One step, as its user.
    pub(crate) fn run(&mut self, step: &Step) -> Gave {
        let (uid, gid) = USERS[step.user];
        setfsgid(gid.into());
        setfsuid(uid.into());
        let gave = self.work(step.side, &step.op);
        setfsuid(0.into());
        setfsgid(0.into());
        gave
    }

    fn work(&mut self, side: usize, op: &Op) -> Gave {
        match op {
            Op::Open { .. }
            | Op::Tmpfile { .. }
            | Op::Close { .. }
            | Op::Read { .. }
            | Op::Write { .. }
            | Op::Put { .. }
            | Op::Ftruncate { .. }
            | Op::Allocate { .. }
            | Op::Copy { .. }
            | Op::Sync { .. }
            | Op::Holes { .. }
            | Op::StatSlot { .. }
            | Op::ChmodSlot { .. }
            | Op::LinkSlot { .. } => self.with_files(side, op),
            Op::Truncate { .. }
            | Op::Mkdir { .. }
            | Op::Rmdir { .. }
            | Op::Unlink { .. }
            | Op::Mknod { .. }
            | Op::Symlink { .. }
            | Op::Readlink { .. }
            | Op::Link { .. }
            | Op::Rename { .. }
            | Op::List { .. } => self.with_names(side, op),
            _ => self.with_attributes(side, op),
        }
    }

    fn with_files(&mut self, side: usize, op: &Op) -> Gave {
        let nothing = |()| String::new();
        match op {
            Op::Open { slot, path, flags, mode } => {
                let flags = OFlags::from_bits_retain(flags.cast_unsigned()) | OFlags::CLOEXEC;
                let fd = fs::openat(self.dir(side), path, flags, mode_of(*mode))?;
                self.keep(*slot, side, fd)
            }
            Op::Tmpfile { slot, path, excl } => {
                let excl = if *excl { OFlags::EXCL } else { OFlags::empty() };
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | excl;
                let fd = fs::openat(self.dir(side), path, flags, mode_of(0o640))?;
                self.keep(*slot, side, fd)
            }
            Op::Close { slot } => {
                self.slots[*slot] = None;
                Ok(String::new())
            }
            Op::Read { slot, offset, len } => {
                let mut bytes = vec![0; *len];
                let got = io::pread(self.fd(*slot)?, &mut bytes[..], *offset)?;
                Ok(digest(&bytes[..got]))
            }
            Op::Write { slot, offset, len, seed } => {
                io::pwrite(self.fd(*slot)?, &pattern(*seed, *len), *offset).map(|put| put.to_string())
            }
            Op::Put { slot, len, seed } => {
                let fd = self.fd(*slot)?;
                // The kernel counts the position after an append from the size that it last heard of.
                if self.roots.len() > 1 {
                    fs::fstat(fd)?;
                }
                let put = io::write(fd, &pattern(*seed, *len))?;
                Ok(format!("{put}, then at {}", fs::tell(fd)?))
            }
            Op::Ftruncate { slot, len } => fs::ftruncate(self.fd(*slot)?, *len).map(nothing),
            Op::Allocate { slot, mode, offset, len } => {
                let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
                fs::fallocate(self.fd(*slot)?, mode, *offset, *len).map(nothing)
            }
            Op::Copy { from, to, from_offset, to_offset, len } => {
                if self.side_of(*from)? != self.side_of(*to)? {
                    return Ok("on two sides".into());
                }
                let (mut at, mut into) = (*from_offset, *to_offset);
                let (from, to) = (self.fd(*from)?, self.fd(*to)?);
                // The kernel cuts the length to the size of the source as it last heard of it, before anybody is asked.
                if self.roots.len() > 1 {
                    fs::fstat(from)?;
                }
                fs::copy_file_range(from, Some(&mut at), to, Some(&mut into), *len).map(|n| n.to_string())
            }
            Op::Sync { slot } => fs::fsync(self.fd(*slot)?).map(nothing),
            Op::Holes { slot } => holes(self.fd(*slot)?),
            Op::StatSlot { slot } => fs::fstat(self.fd(*slot)?).map(|stat| attributes(&stat)),
            Op::ChmodSlot { slot, mode } => fs::fchmod(self.fd(*slot)?, mode_of(*mode)).map(nothing),
            Op::LinkSlot { slot, to } => {
                let dir = self.dir(self.side_of(*slot)?);
                let name = format!("/proc/self/fd/{}", self.fd(*slot)?.as_raw_fd());
                fs::linkat(fs::CWD, name, dir, to, AtFlags::SYMLINK_FOLLOW).map(nothing)
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn with_names(&self, side: usize, op: &Op) -> Gave {
        let dir = self.dir(side);
        let done = match op {
            Op::Truncate { path, len } => {
                let len = i64::try_from(*len).unwrap();
                nix::unistd::truncate(&self.path(side, path), len)
                    .map_err(|e| Errno::from_raw_os_error(e as i32))
            }
            Op::Mkdir { path, mode } => fs::mkdirat(dir, path, mode_of(*mode)),
            Op::Rmdir { path } => fs::unlinkat(dir, path, AtFlags::REMOVEDIR),
            Op::Unlink { path } => fs::unlinkat(dir, path, AtFlags::empty()),
            Op::Mknod { path, kind } => fs::mknodat(
                dir,
                path,
                FileType::from_raw_mode(*kind as RawMode),
                mode_of(0o644),
                fs::makedev(1, 3),
            ),
            Op::Symlink { target, path } => fs::symlinkat(target, dir, path),
            Op::Readlink { path } => {
                return fs::readlinkat(dir, path, Vec::new()).map(|t| t.to_string_lossy().into_owned());
            }
            Op::Link { from, to, follow } => {
                let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                fs::linkat(dir, from, dir, to, flags)
            }
            Op::Rename { from, to, flags } => {
                let done = fs::renameat_with(dir, from, dir, to, RenameFlags::from_bits_retain(*flags));
                // The kernel cannot move its own record of a folder while it holds the lock of a rename between folders,
                // so one that another mount has moved is stale until somebody looks at it.
                let done = match done {
                    Err(Errno::STALE) if self.roots.len() > 1 => {
                        for path in [from, to] {
                            let _ = fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW);
                        }
                        fs::renameat_with(dir, from, dir, to, RenameFlags::from_bits_retain(*flags))
                    }
                    done => done,
                };
                if done.is_err() && *flags == libc::RENAME_WHITEOUT {
                    settle_parent(dir, from);
                }
                done
            }
            Op::List { path } => return list(dir, path),
            other => unreachable!("{other:?}"),
        };
        done.map(|()| String::new())
    }

    fn with_attributes(&self, side: usize, op: &Op) -> Gave {
        let dir = self.dir(side);
        let at = |follow: bool| if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let done = match op {
            Op::Chmod { path, mode } => fs::chmodat(dir, path, mode_of(*mode), AtFlags::empty()),
            Op::Chown { path, uid, gid, follow } => {
                fs::chownat(dir, path, uid.map(Uid::from_raw), gid.map(Gid::from_raw), at(*follow))
            }
            Op::Times { path, atime, mtime, follow } => {
                let times = Timestamps { last_access: timespec(*atime), last_modification: timespec(*mtime) };
                fs::utimensat(dir, path, &times, at(*follow))
            }
            Op::SetXattr { path, name, value, flags } => {
                let flags = XattrFlags::from_bits_retain(*flags);
                fs::lsetxattr(self.path(side, path), *name, value, flags)
            }
            Op::GetXattr { path, name } => {
                let mut value = vec![0; 70_000];
                let len = fs::lgetxattr(self.path(side, path), *name, &mut value[..])?;
                return Ok(digest(&value[..len]));
            }
            Op::RemoveXattr { path, name } => fs::lremovexattr(self.path(side, path), *name),
            Op::ListXattr { path } => return xattrs(&self.path(side, path)),
            Op::Stat { path, follow } => return fs::statat(dir, path, at(*follow)).map(|s| attributes(&s)),
            Op::Access { path, mode } => {
                // With the file system's user, not the real one.
                let access = fs::Access::from_bits_retain(*mode);
                fs::accessat(dir, path, access, AtFlags::EACCESS)
            }
            other => unreachable!("{other:?}"),
        };
        done.map(|()| String::new())
    }

    /// Everything there is, seen from one side.
    pub(crate) fn tree(&self, side: usize) -> String {
        let mut out = String::new();
        self.branch(side, ".", &mut out);
        out
    }

    fn branch(&self, side: usize, path: &str, out: &mut String) {
        let dir = self.dir(side);
        let stat = fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let here = self.path(side, path);
        let marks = match kind {
            FileType::Symlink => {
                fs::readlinkat(dir, path, Vec::new()).unwrap().to_string_lossy().into_owned()
            }
            FileType::RegularFile => digest(&std::fs::read(&here).unwrap()),
            _ => String::new(),
        };
        let xattrs = xattrs(&here).unwrap();
        writeln!(out, "{path}: {} {marks} [{xattrs}]", attributes(&stat)).unwrap();
        if kind == FileType::Directory {
            for name in names(dir, path).unwrap() {
                self.branch(side, &format!("{path}/{}", name.0), out);
            }
        }
    }

    /// A folder in a slot would behave differently when another mount removes it, by design.
    fn keep(&mut self, slot: usize, side: usize, fd: OwnedFd) -> Gave {
        let stat = fs::fstat(&fd)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        self.slots[slot] = is_file.then_some(Open { side, fd });
        Ok(attributes(&stat))
    }

    fn fd(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.slots[slot].as_ref().map(|open| &open.fd).ok_or(Errno::BADF)
    }

    fn side_of(&self, slot: usize) -> Result<usize, Errno> {
        self.slots[slot].as_ref().map(|open| open.side).ok_or(Errno::BADF)
    }

    fn dir(&self, side: usize) -> &OwnedFd {
        &self.roots[side % self.roots.len()].1
    }

    fn path(&self, side: usize, path: &str) -> PathBuf {
        self.roots[side % self.roots.len()].0.join(path)
    }
}

/// ext4 makes the whiteout first and takes it back when the rename fails, so the folder's time is its own there.
fn settle_parent(dir: &OwnedFd, path: &str) {
    let parent = path.trim_end_matches('/').rsplit_once('/').map_or(".", |(parent, _)| parent);
    let times = Timestamps { last_access: timespec(None), last_modification: timespec(Some(3000)) };
    // It may not be there, or not be this user's: then nothing was made in it.
    let _ = fs::utimensat(dir, parent, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode)
}

fn timespec(secs: Option<i64>) -> Timespec {
    match secs {
        Some(secs) => Timespec { tv_sec: secs, tv_nsec: 123_456_789 },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

/// Length and a sum that depends on each byte and its place.
fn digest(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{} bytes {sum:016x}", bytes.len())
}

/// A time that a script set, or that it is a later one.
fn time(secs: i64, nanos: u64) -> String {
    if secs < 1_000_000 { format!("{secs}.{nanos}") } else { "now".into() }
}

fn attributes(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = if kind == FileType::Directory { String::new() } else { format!(" size {}", stat.st_size) };
    let device = if kind == FileType::CharacterDevice { stat.st_rdev } else { 0 };
    format!(
        "{kind:?} {:o} links {} owner {}:{} device {device}{size} mtime {}",
        stat.st_mode & 0o7777,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
        time(stat.st_mtime, stat.st_mtime_nsec),
    )
}

/// Names with what the listing says of their kind, in order.
fn names(dir: &OwnedFd, path: &str) -> Result<Vec<(String, FileType)>, Errno> {
    let fd = fs::openat(dir, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push((name, entry.file_type()));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

fn list(dir: &OwnedFd, path: &str) -> Gave {
    names(dir, path).map(|names| format!("{names:?}"))
}

/// Names and values, in order.
fn xattrs(path: &Path) -> Gave {
    let mut list = vec![0; 70_000];
    let len = fs::llistxattr(path, &mut list[..])?;
    let mut out = Vec::new();
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 70_000];
        let len = fs::lgetxattr(path, name, &mut value[..]);
        let value = len.map(|len| digest(&value[..len]));
        out.push(format!("{}={value:?}", String::from_utf8_lossy(name)));
    }
    out.sort();
    Ok(out.join(" "))
}

/// Walks the data of a file; outside of it there must be zeros.
fn holes(fd: &OwnedFd) -> Gave {
    let size = u64::try_from(fs::fstat(fd)?.st_size).unwrap();
    let mut at = 0;
    while at < size {
        let data = match fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno),
        };
        assert!(data >= at && data <= size, "SEEK_DATA of {at} gave {data}");
        zeros(fd, at, data)?;
        if data == size {
            break;
        }
        at = fs::seek(fd, SeekFrom::Hole(data))?;
        assert!(at > data && at <= size, "SEEK_HOLE of {data} gave {at}");
    }
    // The position is left somewhere that differs: put it back.
    fs::seek(fd, SeekFrom::Start(0))?;
    Ok(String::new())
}

fn zeros(fd: &OwnedFd, from: u64, to: u64) -> Result<(), Errno> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
    match io::pread(fd, &mut bytes[..], from) {
        // It is open for writing alone.
        Err(Errno::BADF) => Ok(()),
        Err(errno) => Err(errno),
        Ok(got) => {
            assert!(
                bytes[..got].iter().all(|byte| *byte == 0),
                "data between {from} and {to}, where a hole is told"
            );
            Ok(())
        }
    }
}
