//! The rules of POSIX that both sides follow: the server when it executes a mutation, the client when it completes one
//! locally. The same attributes and the same time in give the same attributes out, bit by bit.
//!
//! Values in, values or an errno out. What needs names, data, ACLs or extended attributes is the caller's.

use super::attr::{Attr, Kind, SetAttr, Time, TimeSet};
use super::caller::Caller;
use super::errno::Errno;
use super::limits::{FILE_BYTES_MAX, LINKS_MAX, SYMLINK_BYTES_MAX};

/// What the rules change of an inode, wherever it is kept.
#[derive(Debug)]
pub struct Fields<'i> {
    /// Type and permission bits.
    pub mode: &'i mut u32,
    /// Owner.
    pub uid: &'i mut u32,
    /// Group.
    pub gid: &'i mut u32,
    /// Length in bytes.
    pub size: &'i mut u64,
    /// Last access.
    pub atime: &'i mut Time,
    /// Last change of the content.
    pub mtime: &'i mut Time,
    /// Last change of anything.
    pub ctime: &'i mut Time,
}

/// Something with the attributes of an inode.
pub trait Attributes {
    /// Its fields, to change.
    fn fields(&mut self) -> Fields<'_>;
}

impl Attributes for Attr {
    fn fields(&mut self) -> Fields<'_> {
        Fields {
            mode: &mut self.mode,
            uid: &mut self.uid,
            gid: &mut self.gid,
            size: &mut self.size,
            atime: &mut self.atime,
            mtime: &mut self.mtime,
            ctime: &mut self.ctime,
        }
    }
}

/// One nanosecond later.
fn after(time: Time) -> Time {
    match time.nanos {
        999_999_999.. => Time { secs: time.secs.saturating_add(1), nanos: 0 },
        nanos => Time { nanos: nanos + 1, ..time },
    }
}

/// The time of a change of this inode: now, but always later than its last change. A change of content must change
/// mtime, or the kernel keeps old pages (`FUSE_AUTO_INVAL_DATA`), and ctime never goes backwards with the clock.
fn tick(fields: &Fields<'_>, now: Time) -> Time {
    let tick = now.max(after(*fields.ctime));
    // A user may have set mtime to just this time.
    if tick == *fields.mtime { after(tick) } else { tick }
}

/// Attributes change.
pub fn touch_attributes(inode: &mut impl Attributes, now: Time) {
    let fields = inode.fields();
    *fields.ctime = tick(&fields, now);
}

/// Content changes: bytes of a file or names of a directory.
pub fn touch_content(inode: &mut impl Attributes, now: Time) {
    let fields = inode.fields();
    let tick = tick(&fields, now);
    *fields.mtime = tick;
    *fields.ctime = tick;
}

/// `FUSE_HANDLE_KILLPRIV_V2`: a changed or given-away program does not keep its powers. A setgid bit without the
/// group's execute bit is no power (it meant mandatory locking), and stays where the superuser or a member of the group
/// changes the file (`setattr_should_drop_sgid`); of a caller's groups the kernel tells one.
pub fn kill_suidgid(inode: &mut impl Attributes, caller: Caller) {
    let Fields { mode, gid, .. } = inode.fields();
    if *mode & libc::S_IFMT == libc::S_IFDIR {
        return;
    }
    *mode &= !libc::S_ISUID;
    if *mode & libc::S_IXGRP != 0 || !may_set_gid(caller, *gid) {
        *mode &= !libc::S_ISGID;
    }
}

/// Supplementary groups do not travel with a request, so only the group it names counts.
fn may_set_gid(caller: Caller, gid: u32) -> bool {
    caller.uid == 0 || caller.gid == gid
}

/// Mode and group of what `caller` makes in a directory of `dir_mode` and `dir_gid`, before umask and ACL.
#[must_use]
pub fn born(dir_mode: u32, dir_gid: u32, mode: u32, caller: Caller) -> (u32, u32) {
    let mut mode = mode & (libc::S_IFMT | 0o7777);
    if dir_mode & libc::S_ISGID == 0 {
        return (mode, caller.gid);
    }
    if mode & libc::S_IFMT == libc::S_IFDIR {
        mode |= libc::S_ISGID;
    } else if !may_set_gid(caller, dir_gid) && mode & libc::S_IXGRP != 0 {
        // `mode_strip_sgid`: nobody lends his program the identity of a group he is not in. Kernels before 6.0
        // leave this to the file system.
        mode &= !libc::S_ISGID;
    }
    (mode, dir_gid)
}

/// The mode that the umask leaves, where no default ACL decides. A symbolic link has all bits.
#[must_use]
pub fn masked(mode: u32, umask: u32) -> u32 {
    if mode & libc::S_IFMT == libc::S_IFLNK { mode } else { mode & !(umask & 0o777) }
}

/// Whether an inode of this kind may be made with this symlink target.
///
/// # Errors
/// ENOENT, ENAMETOOLONG, EINVAL.
pub fn check_target(kind: Kind, target: &[u8]) -> Result<(), Errno> {
    match kind {
        Kind::Symlink if target.is_empty() => Err(Errno::ENOENT),
        Kind::Symlink if target.len() > SYMLINK_BYTES_MAX => Err(Errno::ENAMETOOLONG),
        Kind::Symlink if target.contains(&0) => Err(Errno::EINVAL),
        Kind::Symlink => Ok(()),
        _ if target.is_empty() => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether an inode with this many links may have one more.
///
/// # Errors
/// EMLINK.
pub fn check_links(nlink: u32) -> Result<(), Errno> {
    if nlink >= LINKS_MAX { Err(Errno::EMLINK) } else { Ok(()) }
}

/// Something was to be made under a name that stands for a `found`. A plain `O_CREAT` of a file (`may_open`) opens a
/// regular file that is there: only then `Ok`.
///
/// # Errors
/// EEXIST; EISDIR; ESTALE.
pub fn check_existing(found: Kind, may_open: bool) -> Result<(), Errno> {
    match found {
        _ if !may_open => Err(Errno::EEXIST),
        Kind::File => Ok(()),
        Kind::Directory => Err(Errno::EISDIR),
        // The caller's kernel did not know the name a moment ago. open(2) would follow the link, or open the pipe or
        // device, which only the kernel can: ESTALE makes it look the name up again (`do_filp_open`, LOOKUP_REVAL).
        _ => Err(Errno::ESTALE),
    }
}

/// Whether an inode may get one more name. `linkable`: it was made without one.
///
/// # Errors
/// EPERM, ENOENT, EMLINK.
pub fn check_link(kind: Kind, nlink: u32, linkable: bool) -> Result<(), Errno> {
    if kind == Kind::Directory {
        return Err(Errno::EPERM);
    }
    // A file that had a name and lost it stays without one, as in `vfs_link` (I_LINKABLE).
    if nlink == 0 && !linkable {
        return Err(Errno::ENOENT);
    }
    check_links(nlink)
}

/// Whether unlink(2) may remove a name of this.
///
/// # Errors
/// EISDIR.
pub fn check_unlink(kind: Kind) -> Result<(), Errno> {
    if kind == Kind::Directory { Err(Errno::EISDIR) } else { Ok(()) }
}

/// Whether rmdir(2) may remove a name of this.
///
/// # Errors
/// ENOTDIR, ENOTEMPTY.
pub fn check_rmdir(kind: Kind, entries: u64) -> Result<(), Errno> {
    match kind {
        Kind::Directory if entries > 0 => Err(Errno::ENOTEMPTY),
        Kind::Directory => Ok(()),
        _ => Err(Errno::ENOTDIR),
    }
}

/// `RENAME_*` as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenameFlags {
    /// The new name must be absent.
    pub no_replace: bool,
    /// The names swap what they stand for.
    pub exchange: bool,
    /// A whiteout is left at the old name.
    pub whiteout: bool,
}

impl RenameFlags {
    /// Reads the flags of `renameat2`.
    ///
    /// # Errors
    /// EINVAL for unknown ones and those that exclude each other.
    pub fn parse(raw: u32) -> Result<Self, Errno> {
        let has = |bit: u32| raw & bit != 0;
        let known = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
        let exchange = has(libc::RENAME_EXCHANGE);
        if has(!known) || (exchange && has(libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT)) {
            return Err(Errno::EINVAL);
        }
        Ok(Self { no_replace: has(libc::RENAME_NOREPLACE), exchange, whiteout: has(libc::RENAME_WHITEOUT) })
    }

    /// Whether they allow what is found at the new name.
    ///
    /// # Errors
    /// EEXIST, ENOENT.
    pub fn check_target(self, exists: bool) -> Result<(), Errno> {
        match exists {
            true if self.no_replace => Err(Errno::EEXIST),
            false if self.exchange => Err(Errno::ENOENT),
            _ => Ok(()),
        }
    }
}

/// Whether `moved` may take the place of `target` (its kind, and the number of names in it). `gaining` is the link count of the
/// directory of the new name when that is another than that of the old one.
///
/// # Errors
/// ENOTDIR, EISDIR, EMLINK, ENOTEMPTY, in this order.
pub fn check_replace(moved: Kind, target: Option<(Kind, u64)>, gaining: Option<u32>) -> Result<(), Errno> {
    let moves_dir = moved == Kind::Directory;
    let Some((kind, entries)) = target else {
        return gaining.filter(|_| moves_dir).map_or(Ok(()), check_links);
    };
    match (moves_dir, kind == Kind::Directory) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        (true, true) if entries > 0 => Err(Errno::ENOTEMPTY),
        _ => Ok(()),
    }
}

/// Whether `set` may be done to an inode of this kind.
///
/// # Errors
/// EISDIR, EFBIG, EINVAL for a length; EOPNOTSUPP for the mode of a symlink.
pub fn check_set_attr(kind: Kind, set: &SetAttr) -> Result<(), Errno> {
    match (set.size, kind) {
        (None, _) => {}
        (Some(_), Kind::Directory) => return Err(Errno::EISDIR),
        (Some(size), Kind::File) if size > FILE_BYTES_MAX => return Err(Errno::EFBIG),
        (Some(_), Kind::File) => {}
        (Some(_), _) => return Err(Errno::EINVAL),
    }
    if set.mode.is_some() && kind == Kind::Symlink { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// chmod, chown, truncate, utimes: what `set` does to attributes. Data, ACL and capabilities are the caller's. A `set`
/// that names nothing changes nothing. ctime is always `now`, also where the kernel sends one.
pub fn set_attr(inode: &mut impl Attributes, set: &SetAttr, caller: Caller, now: Time) {
    if *set == SetAttr::default() {
        return;
    }
    if set.kill_suidgid || set.uid.is_some() || set.gid.is_some() {
        kill_suidgid(inode, caller);
    }
    let fields = inode.fields();
    *fields.uid = set.uid.unwrap_or(*fields.uid);
    *fields.gid = set.gid.unwrap_or(*fields.gid);
    if let Some(mode) = set.mode {
        *fields.mode = *fields.mode & libc::S_IFMT | mode & 0o7777;
    }
    let now = tick(&fields, now);
    *fields.ctime = now;
    if let Some(size) = set.size {
        *fields.size = size;
        *fields.mtime = now;
    }
    let time = |wish: Option<TimeSet>, old: Time| match wish {
        None => old,
        Some(TimeSet::Now) => now,
        Some(TimeSet::At(time)) => time,
    };
    *fields.atime = time(set.atime, *fields.atime);
    *fields.mtime = time(set.mtime, *fields.mtime);
}

/// Where a write of `len` bytes ends: a file has a largest size, at which it is cut short.
///
/// # Errors
/// EFBIG when not one byte fits.
pub fn write_end(start: u64, len: u64) -> Result<u64, Errno> {
    if start >= FILE_BYTES_MAX { Err(Errno::EFBIG) } else { Ok(start + len.min(FILE_BYTES_MAX - start)) }
}

#[cfg(test)]
mod tests {
    use super::{
        RenameFlags, after, born, check_replace, masked, touch_attributes, touch_content, write_end,
    };
    use crate::base::limits::{FILE_BYTES_MAX, LINKS_MAX};
    use crate::base::{Attr, Caller, Errno, Ino, Kind, Time};

    fn attr(time: Time) -> Attr {
        let (mode, nlink, times) = (libc::S_IFREG | 0o644, 1, [time; 4]);
        let [atime, mtime, ctime, btime] = times;
        let (uid, gid, rdev, size, blocks) = (1000, 100, 0, 0, 0);
        Attr { ino: Ino(7), mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, btime }
    }

    #[test]
    fn each_change_is_later_than_the_one_before_also_when_the_clock_goes_back() {
        let now = Time { secs: 10, nanos: 999_999_999 };
        let next = Time { secs: 11, nanos: 0 };
        let mut inode = attr(now);
        touch_content(&mut inode, Time { secs: 3, nanos: 0 });
        assert_eq!((inode.mtime, inode.ctime), (next, next));
        inode.mtime = after(next);
        let before = inode;
        touch_attributes(&mut inode, now);
        assert_eq!(inode, Attr { ctime: after(after(next)), ..before }, "not just where mtime stands");
    }

    #[test]
    fn a_setgid_directory_gives_its_group_and_keeps_programs_of_strangers_powerless() {
        let caller = Caller { uid: 1000, gid: 100, pid: 1 };
        let program = libc::S_IFREG | 0o2755;
        assert_eq!(born(libc::S_IFDIR | 0o755, 5, program, caller), (program, 100));
        let dir = libc::S_IFDIR | 0o2755;
        assert_eq!(born(dir, 5, program, caller), (libc::S_IFREG | 0o755, 5));
        assert_eq!(born(dir, 100, program, caller), (program, 100));
        assert_eq!(born(dir, 5, program, Caller::ROOT), (program, 5));
        assert_eq!(born(dir, 5, libc::S_IFDIR | 0o755, caller), (libc::S_IFDIR | 0o2755, 5));
        assert_eq!(masked(libc::S_IFREG | 0o6666, 0o7022), libc::S_IFREG | 0o6644);
        assert_eq!(masked(libc::S_IFLNK | 0o777, 0o022), libc::S_IFLNK | 0o777);
    }

    #[test]
    fn flags_of_rename_that_are_unknown_or_exclude_each_other_are_refused() {
        for bad in [8, libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE, 1 << 31] {
            assert_eq!(RenameFlags::parse(bad), Err(Errno::EINVAL));
        }
        let exchange = RenameFlags::parse(libc::RENAME_EXCHANGE).unwrap();
        assert_eq!((exchange.check_target(false), exchange.check_target(true)), (Err(Errno::ENOENT), Ok(())));
        let no_replace = RenameFlags::parse(libc::RENAME_NOREPLACE).unwrap();
        assert_eq!(
            (no_replace.check_target(true), no_replace.check_target(false)),
            (Err(Errno::EEXIST), Ok(()))
        );
    }

    #[test]
    fn a_directory_replaces_an_empty_directory_alone() {
        let (dir, file) = (Kind::Directory, Kind::File);
        assert_eq!(check_replace(dir, Some((file, 0)), None), Err(Errno::ENOTDIR));
        assert_eq!(check_replace(file, Some((dir, 0)), None), Err(Errno::EISDIR));
        assert_eq!(check_replace(dir, Some((dir, 1)), Some(LINKS_MAX)), Err(Errno::ENOTEMPTY));
        assert_eq!(check_replace(dir, Some((dir, 0)), Some(LINKS_MAX)), Ok(()));
        assert_eq!(check_replace(dir, None, Some(LINKS_MAX)), Err(Errno::EMLINK));
        assert_eq!(check_replace(file, None, Some(LINKS_MAX)), Ok(()));
    }

    #[test]
    fn a_write_ends_at_the_largest_size() {
        assert_eq!(write_end(FILE_BYTES_MAX - 1, 10), Ok(FILE_BYTES_MAX));
        assert_eq!(write_end(FILE_BYTES_MAX, 1), Err(Errno::EFBIG));
    }
}
