//! Checks of single files: create, open, links, special files, life without a name.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::mknod;

use super::ground::{Outcome, at, c_path, fails, holds, new_file, pattern, same};

pub(super) fn create_write_read_stat(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let bytes = pattern(300_000, 1);
    let mut file = new_file(&path)?;
    at("write", file.write_all(&bytes))?;
    let open = at("fstat", file.metadata())?;
    drop(file);
    same("read back", at("read", fs::read(&path))? == bytes, true)?;
    let closed = at("stat", fs::metadata(&path))?;
    same("size", closed.len(), 300_000)?;
    same("inode", closed.ino(), open.ino())?;
    same("links", closed.nlink(), 1)?;
    holds("blocks are counted", closed.blocks() >= 300_000 / 512)?;
    at(
        "overwrite",
        at("open", OpenOptions::new().write(true).open(&path))?.write_all_at(b"middle", 150_000),
    )?;
    let mut want = bytes;
    want[150_000..150_006].copy_from_slice(b"middle");
    same("after overwrite", at("read", fs::read(&path))? == want, true)
}

pub(super) fn exclusive_create(dir: &Path) -> Outcome {
    let path = dir.join("file");
    new_file(&path)?;
    fails("O_EXCL on a file", OpenOptions::new().write(true).create_new(true).open(&path), Errno::EEXIST)?;
    at("link", symlink("nowhere", dir.join("link")))?;
    fails(
        "O_EXCL on a symlink",
        OpenOptions::new().write(true).create_new(true).open(dir.join("link")),
        Errno::EEXIST,
    )
}

pub(super) fn open_flags(dir: &Path) -> Outcome {
    let path = dir.join("file");
    at("write", fs::write(&path, b"content"))?;
    let flags = |flags: i32| OpenOptions::new().read(true).custom_flags(flags).open(&path);
    fails("O_DIRECTORY on a file", flags(libc::O_DIRECTORY), Errno::ENOTDIR)?;
    at("O_NOATIME", flags(libc::O_NOATIME))?;
    at("link", symlink("file", dir.join("link")))?;
    let link = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(dir.join("link"));
    fails("O_NOFOLLOW on a symlink", link, Errno::ELOOP)?;
    fails("write to a folder", OpenOptions::new().write(true).open(dir), Errno::EISDIR)?;
    let read_only = at("open", File::open(&path))?;
    fails("write to a read-only handle", (&read_only).write(b"x"), Errno::EBADF)?;
    at("O_TRUNC", OpenOptions::new().write(true).truncate(true).open(&path))?;
    same("size after O_TRUNC", at("stat", fs::metadata(&path))?.len(), 0)
}

pub(super) fn append(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let open = || at("open", OpenOptions::new().append(true).create(true).open(&path));
    let (mut one, mut two) = (open()?, open()?);
    for round in 0..50_u8 {
        at("append", one.write_all(&[b'a', round]))?;
        at("append", two.write_all(&[b'b', round]))?;
    }
    let want: Vec<u8> = (0..50_u8).flat_map(|round| [b'a', round, b'b', round]).collect();
    same("appended", at("read", fs::read(&path))?, want)
}

pub(super) fn truncate_and_extend(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let bytes = pattern(10_000, 2);
    at("write", fs::write(&path, &bytes))?;
    let file = at("open", OpenOptions::new().read(true).write(true).open(&path))?;
    at("ftruncate", file.set_len(5_001))?;
    same("shorter", at("read", fs::read(&path))? == bytes[..5_001], true)?;
    at("ftruncate", file.set_len(9_000))?;
    let longer = at("read", fs::read(&path))?;
    same("longer", longer.len(), 9_000)?;
    holds("kept part", longer[..5_001] == bytes[..5_001])?;
    holds("the new part is zero", longer[5_001..].iter().all(|byte| *byte == 0))?;
    let text = c_path(&path);
    at("truncate", nix::unistd::truncate(text.as_c_str(), 0))?;
    same("empty", at("stat", fs::metadata(&path))?.len(), 0)?;
    fails("truncate a folder", nix::unistd::truncate(dir, 0), Errno::EISDIR)
}

pub(super) fn symlink_readlink(dir: &Path) -> Outcome {
    let target = "t/".repeat(2_000);
    at("symlink", symlink(&target, dir.join("long")))?;
    same("target", at("readlink", fs::read_link(dir.join("long")))?, PathBuf::from(&target))?;
    same("size", at("lstat", fs::symlink_metadata(dir.join("long")))?.len(), 4_000)?;
    at("symlink", symlink("file", dir.join("short")))?;
    at("write through", fs::write(dir.join("short"), b"through"))?;
    same("read", at("read", fs::read(dir.join("file")))?, b"through".to_vec())?;
    at("symlink", symlink("loop", dir.join("loop")))?;
    fails("a loop", fs::metadata(dir.join("loop")), Errno::ELOOP)?;
    fails("readlink of a file", fs::read_link(dir.join("file")), Errno::EINVAL)
}

pub(super) fn hard_links(dir: &Path) -> Outcome {
    let (one, two) = (dir.join("one"), dir.join("two"));
    at("write", fs::write(&one, b"shared"))?;
    at("link", fs::hard_link(&one, &two))?;
    let (first, second) = (at("stat", fs::metadata(&one))?, at("stat", fs::metadata(&two))?);
    same("one inode", first.ino(), second.ino())?;
    same("links", (first.nlink(), second.nlink()), (2, 2))?;
    at("chmod", fs::set_permissions(&two, fs::Permissions::from_mode(0o600)))?;
    same("mode by the other name", at("stat", fs::metadata(&one))?.mode() & 0o777, 0o600)?;
    fails("link over a file", fs::hard_link(&one, &two), Errno::EEXIST)?;
    fails("link of a folder", fs::hard_link(dir, dir.join("x")), Errno::EPERM)?;
    at("rename onto itself", fs::rename(&one, &two))?;
    holds("a rename between two links does nothing", one.exists() && two.exists())?;
    at("unlink", fs::remove_file(&one))?;
    same("links left", at("stat", fs::metadata(&two))?.nlink(), 1)?;
    same("bytes left", at("read", fs::read(&two))?, b"shared".to_vec())
}

pub(super) fn special_files(dir: &Path) -> Outcome {
    let mode = Mode::from_bits_truncate(0o640);
    at("mknod file", mknod(&dir.join("file"), SFlag::S_IFREG, mode, 0))?;
    at("mkfifo", mknod(&dir.join("fifo"), SFlag::S_IFIFO, mode, 0))?;
    let _socket = at("bind", std::os::unix::net::UnixListener::bind(dir.join("socket")))?;
    let kind = |name: &str| at("lstat", fs::symlink_metadata(dir.join(name)));
    holds("file", kind("file")?.is_file())?;
    holds("fifo", kind("fifo")?.file_type().is_fifo())?;
    holds("socket", kind("socket")?.file_type().is_socket())?;
    if nix::unistd::geteuid().is_root() {
        let number = nix::sys::stat::makedev(259, 70_000);
        at("mknod chr", mknod(&dir.join("chr"), SFlag::S_IFCHR, mode, number))?;
        at("mknod blk", mknod(&dir.join("blk"), SFlag::S_IFBLK, mode, nix::sys::stat::makedev(7, 3)))?;
        holds("character device", kind("chr")?.file_type().is_char_device())?;
        same("device number", kind("chr")?.rdev(), number)?;
        holds("block device", kind("blk")?.file_type().is_block_device())?;
    }
    Ok(())
}

pub(super) fn fifo_carries_bytes(dir: &Path) -> Outcome {
    let path = dir.join("fifo");
    at("mkfifo", nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)))?;
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::write(path, b"through the fifo")
    });
    same("bytes", at("read", fs::read(&path))?, b"through the fifo".to_vec())?;
    at("write", writer.join().map_err(|_| "the writer panicked")?)
}

pub(super) fn unlink_while_open(dir: &Path) -> Outcome {
    let path = dir.join("file");
    let mut file = new_file(&path)?;
    at("write", file.write_all(b"before"))?;
    at("unlink", fs::remove_file(&path))?;
    fails("the name is gone", fs::metadata(&path), Errno::ENOENT)?;
    same("links", at("fstat", file.metadata())?.nlink(), 0)?;
    at("write", file.write_all(b" and after"))?;
    at("ftruncate", file.set_len(12))?;
    at("fsync", file.sync_all())?;
    at("fchmod", file.set_permissions(fs::Permissions::from_mode(0o600)))?;
    let mut text = String::new();
    at("seek", file.seek(SeekFrom::Start(0)))?;
    at("read", file.read_to_string(&mut text))?;
    same("content", text.as_str(), "before and a")?;
    new_file(&path)?;
    same("a new file of the name is another", at("stat", fs::metadata(&path))?.len(), 0)
}

pub(super) fn anonymous_file(dir: &Path) -> Outcome {
    let open = |flags: i32| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE | flags).mode(0o640).open(dir)
    };
    let mut file = at("O_TMPFILE", open(0))?;
    same("links", at("fstat", file.metadata())?.nlink(), 0)?;
    at("write", file.write_all(b"was nameless"))?;
    same("no name is seen", at("list", fs::read_dir(dir))?.count(), 0)?;
    let own = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    at("linkat", nix::unistd::linkat(AT_FDCWD, &own, AT_FDCWD, &dir.join("named"), flags))?;
    same("bytes", at("read", fs::read(dir.join("named")))?, b"was nameless".to_vec())?;
    same("links after", at("fstat", file.metadata())?.nlink(), 1)?;
    let closed = at("O_EXCL", open(libc::O_EXCL))?;
    let own = PathBuf::from(format!("/proc/self/fd/{}", closed.as_raw_fd()));
    fails(
        "linkat of an exclusive one",
        nix::unistd::linkat(AT_FDCWD, &own, AT_FDCWD, &dir.join("no"), flags),
        Errno::ENOENT,
    )
}
