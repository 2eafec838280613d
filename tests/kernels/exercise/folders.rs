//! Checks of names: lookup, folders, listing, every form of rename.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::OFlag;
use nix::fcntl::RenameFlags;
use nix::fcntl::renameat2;
use nix::sys::stat::Mode;

use super::ground::{Outcome, at, fails, holds, many, new_file, same};

pub(super) fn lookup_of_absent_and_odd_names(dir: &Path) -> Outcome {
    fails("absent", fs::metadata(dir.join("absent")), Errno::ENOENT)?;
    fails("256 bytes", File::create(dir.join("n".repeat(256))), Errno::ENAMETOOLONG)?;
    fails("lookup of 256 bytes", fs::metadata(dir.join("n".repeat(256))), Errno::ENAMETOOLONG)?;
    at("file", File::create(dir.join("file")))?;
    fails("below a file", fs::metadata(dir.join("file/x")), Errno::ENOTDIR)?;
    let odd: [&[u8]; 6] =
        [&[b'n'; 255], b"new\nline", b"\xff\xfe not utf-8", b" ", b"a:b;c\\", "\u{e9}".as_bytes()];
    for name in odd {
        let path = dir.join(std::ffi::OsStr::from_bytes(name));
        at("odd name", fs::write(&path, name))?;
        same("odd name's bytes", at("read", fs::read(&path))?, name.to_vec())?;
    }
    let mut listed: Vec<Vec<u8>> = at("list", fs::read_dir(dir))?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name().as_bytes().to_vec()))
        .filter(|name| name != b"file")
        .collect();
    listed.sort();
    let mut want: Vec<Vec<u8>> = odd.iter().map(|name| name.to_vec()).collect();
    want.sort();
    same("listed", listed, want)
}

pub(super) fn mkdir_rmdir(dir: &Path) -> Outcome {
    let links = |path: &Path| at("stat", fs::metadata(path)).map(|meta| meta.nlink());
    let before = links(dir)?;
    at("mkdir", fs::create_dir(dir.join("sub")))?;
    same("parent's links", links(dir)?, before + 1)?;
    same("own links", links(&dir.join("sub"))?, 2)?;
    fails("mkdir twice", fs::create_dir(dir.join("sub")), Errno::EEXIST)?;
    at("write", fs::write(dir.join("sub/file"), b"x"))?;
    fails("rmdir of a full folder", fs::remove_dir(dir.join("sub")), Errno::ENOTEMPTY)?;
    fails("rmdir of a file", fs::remove_dir(dir.join("sub/file")), Errno::ENOTDIR)?;
    fails("unlink of a folder", fs::remove_file(dir.join("sub")), Errno::EISDIR)?;
    at("unlink", fs::remove_file(dir.join("sub/file")))?;
    at("rmdir", fs::remove_dir(dir.join("sub")))?;
    same("parent's links after", links(dir)?, before)
}

pub(super) fn set_group_id_folder(dir: &Path) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    at("chown", std::os::unix::fs::chown(dir, None, Some(7)))?;
    at("chmod", fs::set_permissions(dir, fs::Permissions::from_mode(0o2775)))?;
    at("mkdir", fs::create_dir(dir.join("sub")))?;
    new_file(&dir.join("file"))?;
    let sub = at("stat", fs::metadata(dir.join("sub")))?;
    same("folder's group and bit", (sub.gid(), sub.mode() & 0o2000), (7, 0o2000))?;
    same("file's group", at("stat", fs::metadata(dir.join("file")))?.gid(), 7)
}

pub(super) fn readdir_in_parts(dir: &Path) -> Outcome {
    let count = many(2_000);
    for number in 0..count {
        at("create", File::create(dir.join(format!("file-with-a-longer-name-{number:05}"))))?;
    }
    for _ in 0..2 {
        let mut names = Vec::new();
        for entry in at("list", fs::read_dir(dir))? {
            let entry = at("entry", entry)?;
            let meta = at("stat", entry.metadata())?;
            same("d_ino", entry.ino(), meta.ino())?;
            holds("d_type", at("type", entry.file_type())?.is_file())?;
            names.push(entry.file_name());
        }
        names.sort();
        names.dedup();
        same("each name once", names.len(), count)?;
    }
    Ok(())
}

pub(super) fn readdir_while_removing(dir: &Path) -> Outcome {
    let count = many(1_000);
    for number in 0..count {
        at("create", File::create(dir.join(format!("{number}"))))?;
    }
    let mut seen = 0;
    for entry in at("list", fs::read_dir(dir))? {
        at("unlink", fs::remove_file(at("entry", entry)?.path()))?;
        seen += 1;
    }
    same("every entry came once", seen, count)?;
    same("left", at("list", fs::read_dir(dir))?.count(), 0)
}

pub(super) fn folder_removed_while_open(dir: &Path) -> Outcome {
    let sub = dir.join("sub");
    at("mkdir", fs::create_dir(&sub))?;
    let open = at("open", File::open(&sub))?;
    at("rmdir", fs::remove_dir(&sub))?;
    same("links", at("fstat", open.metadata())?.nlink(), 0)?;
    let inside = nix::fcntl::openat(
        open.as_fd(),
        "x",
        OFlag::O_CREAT | OFlag::O_WRONLY,
        Mode::from_bits_truncate(0o644),
    );
    fails("create in a removed folder", inside, Errno::ENOENT)
}

pub(super) fn rename_over(dir: &Path) -> Outcome {
    let (one, two) = (dir.join("one"), dir.join("two"));
    at("write", fs::write(&one, b"first"))?;
    at("write", fs::write(&two, b"second, longer"))?;
    let mut replaced = at("open", File::open(&two))?;
    let inode = at("stat", fs::metadata(&one))?.ino();
    at("rename", fs::rename(&one, &two))?;
    fails("old name", fs::metadata(&one), Errno::ENOENT)?;
    same("inode", at("stat", fs::metadata(&two))?.ino(), inode)?;
    same("bytes", at("read", fs::read(&two))?, b"first".to_vec())?;
    let mut text = String::new();
    at("read", replaced.read_to_string(&mut text))?;
    same("the replaced file lives while open", text.as_str(), "second, longer")?;
    same("its links", at("fstat", replaced.metadata())?.nlink(), 0)
}

pub(super) fn rename_flags(dir: &Path) -> Outcome {
    let (one, two) = (dir.join("one"), dir.join("two"));
    at("write", fs::write(&one, b"1"))?;
    at("mkdir", fs::create_dir(&two))?;
    let with = |flags: RenameFlags| renameat2(AT_FDCWD, &one, AT_FDCWD, &two, flags);
    fails("NOREPLACE on an existing name", with(RenameFlags::RENAME_NOREPLACE), Errno::EEXIST)?;
    at("EXCHANGE", with(RenameFlags::RENAME_EXCHANGE))?;
    holds("exchanged", one.is_dir() && two.is_file())?;
    at("rmdir", fs::remove_dir(&one))?;
    fails("EXCHANGE with nothing", with(RenameFlags::RENAME_EXCHANGE), Errno::ENOENT)?;
    let back = renameat2(AT_FDCWD, &two, AT_FDCWD, &one, RenameFlags::RENAME_NOREPLACE);
    at("NOREPLACE to a free name", back)?;
    same("bytes", at("read", fs::read(&one))?, b"1".to_vec())
}

pub(super) fn rename_whiteout(dir: &Path) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let (one, two) = (dir.join("one"), dir.join("two"));
    at("write", fs::write(&one, b"1"))?;
    at("WHITEOUT", renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_WHITEOUT))?;
    let left = at("lstat", fs::symlink_metadata(&one))?;
    holds("a whiteout is left", left.file_type().is_char_device() && left.rdev() == 0)?;
    same("bytes", at("read", fs::read(&two))?, b"1".to_vec())
}

pub(super) fn rename_folder_rules(dir: &Path) -> Outcome {
    for name in ["a", "a/b", "full", "empty"] {
        at("mkdir", fs::create_dir(dir.join(name)))?;
    }
    at("write", fs::write(dir.join("full/file"), b"x"))?;
    at("write", fs::write(dir.join("file"), b"x"))?;
    let rename = |from: &str, to: &str| fs::rename(dir.join(from), dir.join(to));
    fails("into itself", rename("a", "a/b/c"), Errno::EINVAL)?;
    fails("over a full folder", rename("a", "full"), Errno::ENOTEMPTY)?;
    fails("a folder over a file", rename("a", "file"), Errno::ENOTDIR)?;
    fails("a file over a folder", rename("file", "empty"), Errno::EISDIR)?;
    let links = |path: PathBuf| at("stat", fs::metadata(path)).map(|meta| meta.nlink());
    let before = links(dir.to_path_buf())?;
    at("over an empty folder", rename("a", "empty"))?;
    same("parent's links", links(dir.to_path_buf())?, before - 1)?;
    at("to another parent", rename("empty/b", "full/b"))?;
    same("old parent's links", links(dir.join("empty"))?, 2)?;
    same("new parent's links", links(dir.join("full"))?, 3)?;
    let inside = at("stat", fs::metadata(dir.join("full/b/..")))?.ino();
    same("dot-dot", inside, at("stat", fs::metadata(dir.join("full")))?.ino())
}
