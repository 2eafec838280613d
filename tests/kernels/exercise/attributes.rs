//! Checks of modes, owners, times, extended attributes and access control lists.

#![allow(unsafe_code, reason = "extended attributes and statx have no safe wrapper among our crates")]

use std::ffi::CStr;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::Mode;
use nix::sys::stat::UtimensatFlags;
use nix::sys::stat::fchmodat;
use nix::sys::stat::utimensat;
use nix::sys::time::TimeSpec;

use super::ground::{Outcome, at, c_path, fails, holds, new_file, pattern, same};

pub(super) fn chmod_chown_clear_bits(dir: &Path) -> Outcome {
    let path = dir.join("file");
    at("write", fs::write(&path, b"x"))?;
    for mode in [0o000, 0o644, 0o4755, 0o7777] {
        at("chmod", fs::set_permissions(&path, fs::Permissions::from_mode(mode)))?;
        same("mode", at("stat", fs::metadata(&path))?.mode() & 0o7777, mode)?;
    }
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let before = at("stat", fs::metadata(&path))?;
    at("chown", std::os::unix::fs::chown(&path, Some(1), Some(2)))?;
    let after = at("stat", fs::metadata(&path))?;
    same("owner", (after.uid(), after.gid()), (1, 2))?;
    same("set-user-id after chown", after.mode() & 0o7777, 0o1777)?;
    holds("ctime moves", (after.ctime(), after.ctime_nsec()) >= (before.ctime(), before.ctime_nsec()))?;
    at("chmod", fchmodat(AT_FDCWD, &path, Mode::from_bits_truncate(0o6777), FchmodatFlags::FollowSymlink))?;
    same("set-user-id again", at("stat", fs::metadata(&path))?.mode() & 0o7777, 0o6777)
}

pub(super) fn times_in_nanoseconds(dir: &Path) -> Outcome {
    let path = dir.join("file");
    at("write", fs::write(&path, b"x"))?;
    let (atime, mtime) =
        (TimeSpec::new(1_000_000_001, 123_456_789), TimeSpec::new(4_000_000_002, 987_654_321));
    at("utimensat", utimensat(AT_FDCWD, &path, &atime, &mtime, UtimensatFlags::FollowSymlink))?;
    let meta = at("stat", fs::metadata(&path))?;
    same("atime", (meta.atime(), meta.atime_nsec()), (1_000_000_001, 123_456_789))?;
    same("mtime", (meta.mtime(), meta.mtime_nsec()), (4_000_000_002, 987_654_321))?;
    at(
        "now",
        utimensat(
            AT_FDCWD,
            &path,
            &TimeSpec::UTIME_OMIT,
            &TimeSpec::UTIME_NOW,
            UtimensatFlags::FollowSymlink,
        ),
    )?;
    let meta = at("stat", fs::metadata(&path))?;
    same("atime stays", (meta.atime(), meta.atime_nsec()), (1_000_000_001, 123_456_789))?;
    holds("mtime is now", meta.mtime() < 4_000_000_000)?;
    let folder = |dir: &Path| at("stat", fs::metadata(dir)).map(|meta| (meta.mtime(), meta.mtime_nsec()));
    at("old", utimensat(AT_FDCWD, dir, &atime, &atime, UtimensatFlags::FollowSymlink))?;
    at("create", File::create(dir.join("other")))?;
    holds("create moves the folder's mtime", folder(dir)?.0 > 1_000_000_001)?;
    at("old", utimensat(AT_FDCWD, dir, &atime, &atime, UtimensatFlags::FollowSymlink))?;
    at("unlink", fs::remove_file(dir.join("other")))?;
    holds("unlink moves the folder's mtime", folder(dir)?.0 > 1_000_000_001)?;
    at("old", utimensat(AT_FDCWD, &path, &atime, &atime, UtimensatFlags::FollowSymlink))?;
    at("write", at("open", OpenOptions::new().append(true).open(&path))?.write_all(b"y"))?;
    holds("write moves mtime", at("stat", fs::metadata(&path))?.mtime() > 1_000_000_001)
}

pub(super) fn birth_time(dir: &Path) -> Outcome {
    let path = dir.join("file");
    new_file(&path)?;
    let before = birth_of(&path)?;
    let now = at("clock", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH))?.as_secs();
    holds("birth is about now", before.0.abs_diff(i64::try_from(now).unwrap_or(0)) < 300)?;
    at("write", fs::write(&path, b"later"))?;
    let past = TimeSpec::new(1_000, 0);
    at("utimensat", utimensat(AT_FDCWD, &path, &past, &past, UtimensatFlags::FollowSymlink))?;
    same("birth does not move", birth_of(&path)?, before)
}

fn birth_of(path: &Path) -> Result<(i64, u32), String> {
    let text = c_path(path);
    let mut out = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `text` ends in NUL and outlives the call; `out` is a whole statx the kernel may fill.
    let status =
        unsafe { libc::statx(libc::AT_FDCWD, text.as_ptr(), 0, libc::STATX_BTIME, out.as_mut_ptr()) };
    at("statx", Errno::result(status))?;
    // SAFETY: zeroed before the call, and every bit pattern is a statx.
    let out = unsafe { out.assume_init() };
    holds("statx gives a birth time", out.stx_mask & libc::STATX_BTIME != 0)?;
    Ok((out.stx_btime.tv_sec, out.stx_btime.tv_nsec))
}

fn set_attribute(path: &Path, name: &CStr, value: &[u8], flags: i32) -> Result<i32, Errno> {
    let path = c_path(path);
    // SAFETY: both strings end in NUL, and the value's pointer and length come from one slice.
    let status =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    Errno::result(status)
}

fn get_attribute(path: &Path, name: &CStr) -> Result<Vec<u8>, Errno> {
    let path = c_path(path);
    let mut value = vec![0_u8; 70_000];
    // SAFETY: the kernel writes at most `value.len()` bytes into `value`, which nothing else borrows.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(length)?).unwrap_or(0));
    Ok(value)
}

fn list_attributes(path: &Path) -> Result<Vec<String>, Errno> {
    let path = c_path(path);
    let mut names = vec![0_u8; 70_000];
    // SAFETY: `names` is writable for its whole length and lives past the call.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(Errno::result(length)?).unwrap_or(0));
    Ok(names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

fn remove_attribute(path: &Path, name: &CStr) -> Result<i32, Errno> {
    let path = c_path(path);
    // SAFETY: two strings that end in NUL; the call keeps neither.
    Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) })
}

pub(super) fn extended_attributes(dir: &Path) -> Outcome {
    let path = dir.join("file");
    new_file(&path)?;
    fails("absent", get_attribute(&path, c"user.absent"), Errno::ENODATA)?;
    at("set", set_attribute(&path, c"user.one", b"first", 0))?;
    at("set empty", set_attribute(&path, c"user.empty", b"", 0))?;
    same("get", at("get", get_attribute(&path, c"user.one"))?, b"first".to_vec())?;
    same("get empty", at("get", get_attribute(&path, c"user.empty"))?, Vec::new())?;
    fails("XATTR_CREATE", set_attribute(&path, c"user.one", b"x", libc::XATTR_CREATE), Errno::EEXIST)?;
    fails("XATTR_REPLACE", set_attribute(&path, c"user.two", b"x", libc::XATTR_REPLACE), Errno::ENODATA)?;
    at("replace", set_attribute(&path, c"user.one", &pattern(3_000, 3), libc::XATTR_REPLACE))?;
    same("replaced", at("get", get_attribute(&path, c"user.one"))? == pattern(3_000, 3), true)?;
    let mut names = at("list", list_attributes(&path))?;
    names.retain(|name| name.starts_with("user."));
    names.sort();
    same("names", names, vec!["user.empty".to_owned(), "user.one".to_owned()])?;
    at("remove", remove_attribute(&path, c"user.one"))?;
    fails("remove twice", remove_attribute(&path, c"user.one"), Errno::ENODATA)?;
    at("folder", set_attribute(dir, c"user.folder", b"x", 0))?;
    if nix::unistd::geteuid().is_root() {
        at("trusted", set_attribute(&path, c"trusted.t", b"x", 0))?;
        same("trusted", at("get", get_attribute(&path, c"trusted.t"))?, b"x".to_vec())?;
    }
    Ok(())
}

/// A POSIX ACL as the kernel takes it: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

pub(super) fn access_control_list(dir: &Path) -> Outcome {
    const NO_ID: u32 = u32::MAX;
    let path = dir.join("file");
    new_file(&path)?;
    let entries = [(1, 6, NO_ID), (2, 7, 1_234), (4, 4, NO_ID), (0x10, 5, NO_ID), (0x20, 0, NO_ID)];
    at("set", set_attribute(&path, c"system.posix_acl_access", &acl(&entries), 0))?;
    same("get", at("get", get_attribute(&path, c"system.posix_acl_access"))?, acl(&entries))?;
    same("the mask is the group's mode", at("stat", fs::metadata(&path))?.mode() & 0o777, 0o650)?;
    at("chmod", fs::set_permissions(&path, fs::Permissions::from_mode(0o620)))?;
    let masked = [(1, 6, NO_ID), (2, 7, 1_234), (4, 4, NO_ID), (0x10, 2, NO_ID), (0x20, 0, NO_ID)];
    same("chmod sets the mask", at("get", get_attribute(&path, c"system.posix_acl_access"))?, acl(&masked))?;
    let default = [(1, 7, NO_ID), (2, 5, 1_234), (4, 5, NO_ID), (0x10, 5, NO_ID), (0x20, 0, NO_ID)];
    at("set default", set_attribute(dir, c"system.posix_acl_default", &acl(&default), 0))?;
    at("mkdir", fs::create_dir(dir.join("sub")))?;
    same(
        "a folder inherits",
        at("get", get_attribute(&dir.join("sub"), c"system.posix_acl_default"))?,
        acl(&default),
    )?;
    at("create", OpenOptions::new().write(true).create_new(true).mode(0o666).open(dir.join("born")))?;
    let born = [(1, 6, NO_ID), (2, 5, 1_234), (4, 5, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)];
    same(
        "a file inherits",
        at("get", get_attribute(&dir.join("born"), c"system.posix_acl_access"))?,
        acl(&born),
    )?;
    same("the umask does not count", at("stat", fs::metadata(dir.join("born")))?.mode() & 0o777, 0o640)?;
    at("remove", remove_attribute(dir, c"system.posix_acl_default"))?;
    fails("removed", get_attribute(dir, c"system.posix_acl_default"), Errno::ENODATA)
}
