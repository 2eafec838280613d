//! make, unlink, rmdir, link, rename.

use super::rig::{ROOT, Rig, START, name};
use crate::base::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use crate::base::{Caller, Errno, Ino, Kind};
use crate::server::apply::Found;
use crate::wire::{MakeFlags, Mutation, Query};

const FILE: u32 = libc::S_IFREG | 0o666;
const DIR: u32 = libc::S_IFDIR | 0o777;
const EXCLUSIVE: MakeFlags = MakeFlags { hold: false, exclusive: true };
const OPEN: MakeFlags = MakeFlags { hold: false, exclusive: false };

#[test]
fn a_new_file_belongs_to_its_caller_and_changes_its_directory() {
    let rig = Rig::new();
    rig.caller.set(Caller { uid: 1000, gid: 100, pid: 1 });
    let before = rig.attr(ROOT).unwrap();
    let made = rig.make_as(ROOT, "a", FILE, 0o027, EXCLUSIVE).unwrap().attr.unwrap();
    assert_eq!((made.mode, made.uid, made.gid), (libc::S_IFREG | 0o640, 1000, 100));
    assert_eq!((made.nlink, made.size, made.blocks), (1, 0, 0));
    assert_eq!((made.btime, made.mtime), (START, START));
    let after = rig.attr(ROOT).unwrap();
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    assert_eq!(rig.lookup(ROOT, "a").unwrap(), made);
    assert_eq!(rig.lookup(ROOT, "b"), Err(Errno::ENOENT));
    assert_eq!(rig.lookup(made.ino, "b"), Err(Errno::ENOTDIR));
}

#[test]
fn every_kind_of_file_can_be_made() {
    let rig = Rig::new();
    let kinds = [libc::S_IFREG, libc::S_IFDIR, libc::S_IFLNK, libc::S_IFIFO, libc::S_IFSOCK];
    for (i, kind) in kinds.into_iter().enumerate() {
        let made = rig.make(ROOT, &format!("k{i}"), kind | 0o777).unwrap();
        assert_eq!((made.mode & libc::S_IFMT, made.rdev), (kind, 0));
    }
    let device = rig.make(ROOT, "dev", libc::S_IFCHR | 0o600).unwrap();
    assert_eq!(device.rdev, 0x0501);
    assert_eq!(rig.make(ROOT, "bad", 0o600), Err(Errno::EINVAL));
    let link = rig.lookup(ROOT, "k2").unwrap();
    assert_eq!(link.size, 6);
    assert_eq!(
        rig.ask(&Query::ReadLink { ino: link.ino }).map(|f| matches!(f, Found::Bytes(b) if &*b == b"target")),
        Ok(true)
    );
    assert_eq!(rig.ask(&Query::ReadLink { ino: ROOT }), Err(Errno::EINVAL));
    assert_eq!(rig.attr(ROOT).unwrap().nlink, 3);
}

#[test]
fn the_target_of_a_symlink_is_checked() {
    let rig = Rig::new();
    let long = vec![b'x'; SYMLINK_BYTES_MAX + 1];
    for (target, errno) in [(&b""[..], Errno::ENOENT), (&long, Errno::ENAMETOOLONG), (b"a\0b", Errno::EINVAL)]
    {
        let mode = libc::S_IFLNK | 0o777;
        let make = Mutation::Make {
            parent: ROOT,
            name: name("l"),
            mode,
            umask: 0,
            rdev: 0,
            target,
            flags: EXCLUSIVE,
            ino: None,
        };
        assert_eq!(rig.run(&make), Err(errno));
    }
    assert_eq!(rig.make(ROOT, "l", libc::S_IFLNK | 0o777).unwrap().mode & 0o777, 0o777);
}

#[test]
fn a_taken_name_is_opened_or_refused_as_open_does() {
    let rig = Rig::new();
    let file = rig.file(ROOT, "f");
    rig.dir(ROOT, "d");
    rig.make(ROOT, "l", libc::S_IFLNK | 0o777).unwrap();
    assert_eq!(rig.make_as(ROOT, "f", FILE, 0, EXCLUSIVE), Err(Errno::EEXIST));
    let opened = rig.make_as(ROOT, "f", FILE, 0, MakeFlags { hold: true, exclusive: false }).unwrap();
    assert!(opened.existed && opened.attr.unwrap().ino == file);
    assert_eq!(rig.volume.holds_of(rig.session), 1);
    assert_eq!(rig.make_as(ROOT, "d", FILE, 0, OPEN), Err(Errno::EISDIR));
    assert_eq!(
        rig.make_as(ROOT, "l", FILE, 0, OPEN),
        Err(Errno::ESTALE),
        "the kernel follows the link itself"
    );
    assert_eq!(rig.make_as(ROOT, "f", DIR, 0, OPEN), Err(Errno::EEXIST), "mkdir never opens");
    assert_eq!(rig.make_as(file, "x", FILE, 0, OPEN), Err(Errno::ENOTDIR));
    assert_eq!(rig.make_as(Ino(9_999), "x", FILE, 0, OPEN), Err(Errno::ESTALE));
}

#[test]
fn a_setgid_directory_hands_on_its_group() {
    let rig = Rig::new();
    let dir = rig.make(ROOT, "d", DIR | libc::S_ISGID).unwrap();
    rig.run(&Mutation::SetAttr {
        ino: dir.ino,
        set: crate::wire::SetAttr { gid: Some(55), ..Default::default() },
    })
    .unwrap();
    rig.caller.set(Caller { uid: 1000, gid: 100, pid: 1 });
    let sub = rig.make(dir.ino, "sub", DIR).unwrap();
    assert_eq!((sub.gid, sub.mode & libc::S_ISGID), (55, libc::S_ISGID));
    let file = rig.make(dir.ino, "file", libc::S_IFREG | 0o2755).unwrap();
    assert_eq!((file.gid, file.mode & 0o7777), (55, 0o755), "not a program of a foreign group");
    rig.caller.set(Caller { uid: 1000, gid: 55, pid: 1 });
    assert_eq!(rig.make(dir.ino, "own", libc::S_IFREG | 0o2755).unwrap().mode & 0o7777, 0o2755);
}

#[test]
fn unlink_and_rmdir_tell_directories_from_files() {
    let rig = Rig::new();
    let (dir, _) = (rig.dir(ROOT, "d"), rig.file(ROOT, "f"));
    rig.file(dir, "inside");
    assert_eq!(rig.unlink(ROOT, "d"), Err(Errno::EISDIR));
    assert_eq!(rig.rmdir(ROOT, "f"), Err(Errno::ENOTDIR));
    assert_eq!(rig.rmdir(ROOT, "d"), Err(Errno::ENOTEMPTY));
    assert_eq!(rig.unlink(ROOT, "no"), Err(Errno::ENOENT));
    let gone = rig.unlink(dir, "inside").unwrap().orphan.unwrap();
    assert_eq!(rig.attr(gone).unwrap().nlink, 0);
    assert_eq!(rig.rmdir(ROOT, "d").unwrap().orphan, Some(dir));
    assert_eq!(rig.attr(dir).unwrap().nlink, 0);
    assert_eq!(rig.attr(ROOT).unwrap().nlink, 2);
    assert_eq!(rig.make(dir, "late", FILE), Err(Errno::ENOENT), "a removed directory takes no names");
    assert_eq!(rig.lookup(dir, "inside"), Err(Errno::ENOENT));
    rig.release(&[gone, dir]);
    assert_eq!(rig.attr(gone), Err(Errno::ESTALE));
    assert_eq!(rig.attr(dir), Err(Errno::ESTALE));
}

#[test]
fn link_counts_and_refuses() {
    let rig = Rig::new();
    let (dir, file) = (rig.dir(ROOT, "d"), rig.file(ROOT, "f"));
    let before = rig.attr(file).unwrap();
    let linked = rig.link(file, dir, "g").unwrap().attr.unwrap();
    assert_eq!(linked.nlink, 2);
    assert!(linked.ctime > before.ctime && linked.mtime == before.mtime);
    assert_eq!(rig.link(file, dir, "g"), Err(Errno::EEXIST));
    assert_eq!(rig.link(dir, ROOT, "x"), Err(Errno::EPERM));
    assert_eq!(rig.link(dir, ROOT, "f"), Err(Errno::EEXIST), "the name is looked at first");
    assert_eq!(rig.link(file, file, "x"), Err(Errno::ENOTDIR));
    assert_eq!(rig.unlink(ROOT, "f").unwrap().orphan, None);
    assert_eq!(rig.unlink(dir, "g").unwrap().orphan, Some(file));
    assert_eq!(rig.link(file, dir, "back"), Err(Errno::ENOENT), "it had names and lost them");
}

#[test]
fn a_file_made_without_a_name_can_get_one_once() {
    let rig = Rig::new();
    let dir = rig.dir(ROOT, "d");
    let made = rig.run(&Mutation::Tmpfile { parent: dir, mode: 0o666, umask: 0o022 }).unwrap().attr.unwrap();
    assert_eq!((made.nlink, made.mode), (0, libc::S_IFREG | 0o644));
    assert_eq!(rig.attr(dir).unwrap().mtime, rig.attr(dir).unwrap().btime, "no name was made");
    assert_eq!(rig.link(made.ino, dir, "t").unwrap().attr.unwrap().nlink, 1);
    rig.release(&[made.ino]);
    assert_eq!(rig.lookup(dir, "t").unwrap().ino, made.ino, "it lives by its name now");
    rig.unlink(dir, "t").unwrap();
    assert_eq!(rig.link(made.ino, dir, "u"), Err(Errno::ENOENT));
    let lost = rig.run(&Mutation::Tmpfile { parent: dir, mode: 0o666, umask: 0 }).unwrap().attr.unwrap();
    rig.release(&[lost.ino]);
    assert_eq!(rig.attr(lost.ino), Err(Errno::ESTALE));
}

#[test]
fn too_many_links_are_refused() {
    let rig = Rig::new();
    let file = rig.file(ROOT, "f");
    let store = rig.volume.store();
    let mut txn = store.begin();
    for ino in [file, ROOT] {
        let mut inode = crate::server::meta::inodes::get(&txn, ino).unwrap().unwrap();
        inode.nlink = LINKS_MAX;
        crate::server::meta::inodes::put(&mut txn, &inode);
    }
    txn.commit().unwrap();
    assert_eq!(rig.link(file, ROOT, "g"), Err(Errno::EMLINK));
    assert_eq!(rig.make(ROOT, "sub", DIR), Err(Errno::EMLINK));
    assert!(rig.make(ROOT, "plain", FILE).is_ok(), "only subdirectories link to their parent");
}

#[test]
fn rename_moves_and_replaces() {
    let rig = Rig::new();
    let (a, b) = (rig.dir(ROOT, "a"), rig.dir(ROOT, "b"));
    let (f, g) = (rig.file(a, "f"), rig.file(b, "g"));
    let before = rig.attr(f).unwrap();
    assert_eq!(rig.rename((a, "f"), (b, "g"), 0).unwrap().orphan, Some(g));
    assert_eq!(rig.lookup(b, "g").unwrap().ino, f);
    assert_eq!(rig.lookup(a, "f"), Err(Errno::ENOENT));
    assert!(rig.attr(f).unwrap().ctime > before.ctime);
    // A directory over an empty directory, below another parent.
    let (x, y) = (rig.dir(a, "x"), rig.dir(b, "y"));
    assert_eq!(rig.rename((a, "x"), (b, "y"), 0).unwrap().orphan, Some(y));
    assert_eq!((rig.attr(a).unwrap().nlink, rig.attr(b).unwrap().nlink), (2, 3));
    assert_eq!(rig.ask(&Query::Parent { ino: x }), Ok(Found::Attr(rig.attr(b).unwrap())));
    rig.file(x, "full");
    let z = rig.dir(a, "z");
    assert_eq!(rig.rename((a, "z"), (b, "y"), 0), Err(Errno::ENOTEMPTY));
    assert_eq!(rig.rename((a, "z"), (b, "g"), 0), Err(Errno::ENOTDIR));
    assert_eq!(rig.rename((b, "g"), (a, "z"), 0), Err(Errno::EISDIR));
    assert_eq!(rig.rename((a, "no"), (b, "g"), 0), Err(Errno::ENOENT));
    assert_eq!(rig.attr(z).unwrap().nlink, 2);
}

#[test]
fn a_directory_does_not_move_below_itself() {
    let rig = Rig::new();
    let a = rig.dir(ROOT, "a");
    let b = rig.dir(a, "b");
    let c = rig.dir(b, "c");
    let f = rig.file(c, "f");
    for parent in [a, b, c] {
        assert_eq!(rig.rename((ROOT, "a"), (parent, "new"), 0), Err(Errno::EINVAL));
    }
    assert_eq!(rig.rename((c, "f"), (ROOT, "a"), 0), Err(Errno::ENOTEMPTY), "an ancestor is never empty");
    assert_eq!(rig.rename((b, "c"), (ROOT, "a"), libc::RENAME_EXCHANGE), Err(Errno::EINVAL));
    assert_eq!(rig.rename((b, "c"), (ROOT, "moved"), 0).map(|d| d.orphan), Ok(None));
    assert_eq!(rig.lookup(c, "f").unwrap().ino, f);
}

#[test]
fn two_names_of_one_file_rename_to_nothing() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    rig.link(f, ROOT, "g").unwrap();
    let before = rig.attr(f).unwrap();
    assert_eq!(rig.rename((ROOT, "f"), (ROOT, "g"), 0).unwrap().orphan, None);
    assert_eq!(rig.rename((ROOT, "f"), (ROOT, "f"), 0).unwrap().orphan, None);
    assert_eq!(rig.attr(f).unwrap(), before);
    assert!(rig.lookup(ROOT, "f").is_ok() && rig.lookup(ROOT, "g").is_ok());
    assert_eq!(rig.rename((ROOT, "f"), (ROOT, "f"), libc::RENAME_NOREPLACE), Err(Errno::EEXIST));
}

#[test]
fn the_flags_of_rename() {
    let rig = Rig::new();
    let (a, b) = (rig.dir(ROOT, "a"), rig.dir(ROOT, "b"));
    let (f, d) = (rig.file(a, "f"), rig.dir(b, "d"));
    for bad in
        [8, libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT]
    {
        assert_eq!(rig.rename((a, "f"), (b, "d"), bad), Err(Errno::EINVAL));
    }
    assert_eq!(rig.rename((a, "f"), (b, "d"), libc::RENAME_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(rig.rename((a, "f"), (b, "no"), libc::RENAME_EXCHANGE), Err(Errno::ENOENT));
    assert_eq!(rig.rename((a, "f"), (b, "d"), libc::RENAME_EXCHANGE).unwrap().orphan, None);
    assert_eq!((rig.lookup(a, "f").unwrap().ino, rig.lookup(b, "d").unwrap().ino), (d, f));
    assert_eq!((rig.attr(a).unwrap().nlink, rig.attr(b).unwrap().nlink), (3, 2));
    assert_eq!(rig.ask(&Query::Parent { ino: d }), Ok(Found::Attr(rig.attr(a).unwrap())));
    rig.rename((b, "d"), (b, "e"), libc::RENAME_WHITEOUT).unwrap();
    let left = rig.lookup(b, "d").unwrap();
    assert_eq!((left.kind(), left.rdev, left.nlink), (Kind::CharDevice, 0, 1));
    assert_eq!(rig.lookup(b, "e").unwrap().ino, f);
}
