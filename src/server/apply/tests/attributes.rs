//! setattr, times, extended attributes, ACLs.

use super::rig::{ROOT, Rig};
use crate::base::limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::base::{Caller, Errno, Time};
use crate::server::apply::Found;
use crate::wire::{MakeFlags, Mutation, Query, SetAttr, TimeSet, WriteFlags};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const CREATE: u32 = libc::XATTR_CREATE.cast_unsigned();
const REPLACE: u32 = libc::XATTR_REPLACE.cast_unsigned();

/// An ACL as the kernel passes it: tags 1 owner, 2 user, 4 group, 16 mask, 32 others.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&perm.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

const NONE: u32 = u32::MAX;

#[test]
fn chmod_keeps_the_type_and_chown_takes_powers_away() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let changed = rig.set(f, SetAttr { mode: Some(libc::S_IFDIR | 0o6755), ..SetAttr::default() }).unwrap();
    assert_eq!(changed.mode, libc::S_IFREG | 0o6755);
    let changed = rig.set(f, SetAttr { uid: Some(5), ..SetAttr::default() }).unwrap();
    assert_eq!((changed.uid, changed.mode & 0o7777), (5, 0o755));
    rig.set(f, SetAttr { mode: Some(0o6745), ..SetAttr::default() }).unwrap();
    let changed = rig.set(f, SetAttr { gid: Some(6), ..SetAttr::default() }).unwrap();
    assert_eq!(changed.mode & 0o7777, 0o2745, "setgid without group execution is no power");
    let d = rig.dir(ROOT, "d");
    rig.set(d, SetAttr { mode: Some(0o6777), ..SetAttr::default() }).unwrap();
    assert_eq!(rig.set(d, SetAttr { uid: Some(5), ..SetAttr::default() }).unwrap().mode & 0o7777, 0o6777);
    let link = rig.make(ROOT, "l", libc::S_IFLNK | 0o777).unwrap().ino;
    assert_eq!(rig.set(link, SetAttr { mode: Some(0), ..SetAttr::default() }), Err(Errno::EOPNOTSUPP));
}

#[test]
fn writing_takes_powers_away_when_asked() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    rig.set(f, SetAttr { mode: Some(0o6755), ..SetAttr::default() }).unwrap();
    rig.setxattr(f, "security.capability", b"cap", 0).unwrap();
    rig.write(f, 0, b"x").unwrap();
    assert_eq!(rig.attr(f).unwrap().mode & 0o7777, 0o6755);
    assert_eq!(rig.getxattr(f, "security.capability"), Err(Errno::ENODATA));
    let flags = WriteFlags { append: false, kill_suidgid: true };
    rig.run(&Mutation::Write { ino: f, offset: 0, flags, data: b"y" }).unwrap();
    assert_eq!(rig.attr(f).unwrap().mode & 0o7777, 0o755);
}

#[test]
fn allocating_and_copying_take_powers_away_from_what_others_may_run() {
    let rig = Rig::new();
    let (f, source) = (rig.file(ROOT, "f"), rig.file(ROOT, "source"));
    rig.write(source, 0, b"data").unwrap();
    let allocate = Mutation::Allocate { ino: f, mode: 0, offset: 0, len: 9 };
    let copy = Mutation::Copy { source, source_offset: 0, target: f, target_offset: 0, len: 4 };
    for change in [allocate, copy] {
        // Mode, group of the caller, mode afterwards: the group's setgid bit is left to its members where it is no power.
        for (mode, gid, after) in [(0o6755, 0, 0o755), (0o6745, 0, 0o2745), (0o6745, 7, 0o745)] {
            rig.set(f, SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
            rig.run(&change).unwrap();
            assert_eq!(rig.attr(f).unwrap().mode & 0o7777, mode, "the superuser's change takes nothing away");
            rig.caller.set(Caller { uid: 1000, gid, pid: 1 });
            rig.run(&change).unwrap();
            rig.caller.set(Caller::ROOT);
            assert_eq!(rig.attr(f).unwrap().mode & 0o7777, after);
        }
    }
}

#[test]
fn times_are_set_kept_and_never_go_backwards() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let past = Time { secs: -1, nanos: 5 };
    let set = SetAttr { mtime: Some(TimeSet::At(past)), atime: Some(TimeSet::Now), ..SetAttr::default() };
    let changed = rig.set(f, set).unwrap();
    assert_eq!((changed.mtime, changed.atime), (past, changed.ctime));
    let mut last = changed;
    for step in 0..6 {
        match step % 3 {
            0 => rig.advance(10),
            1 => rig.set_back(1_000_000),
            _ => {}
        }
        rig.write(f, 0, b"x").unwrap();
        let now = rig.attr(f).unwrap();
        assert!(now.ctime > last.ctime && now.mtime > last.mtime, "{now:?} after {last:?}");
        last = now;
    }
    // A time in the future is the user's wish, not the clock's.
    let future = Time { secs: 1 << 40, nanos: 0 };
    rig.set(f, SetAttr { mtime: Some(TimeSet::At(future)), ..SetAttr::default() }).unwrap();
    rig.write(f, 0, b"x").unwrap();
    assert!(rig.attr(f).unwrap().mtime < future);
    assert_eq!(
        rig.set(f, SetAttr::default()).unwrap(),
        rig.attr(f).unwrap(),
        "nothing asked, nothing changed"
    );
}

#[test]
fn extended_attributes_are_created_replaced_and_removed() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    assert_eq!(rig.setxattr(f, "user.a", b"1", REPLACE), Err(Errno::ENODATA));
    rig.setxattr(f, "user.a", b"1", CREATE).unwrap();
    assert_eq!(rig.setxattr(f, "user.a", b"2", CREATE), Err(Errno::EEXIST));
    rig.setxattr(f, "user.a", b"", REPLACE).unwrap();
    assert_eq!(rig.getxattr(f, "user.a"), Ok(Vec::new()));
    assert_eq!(rig.setxattr(f, "user.a", b"2", 8), Err(Errno::EINVAL));
    rig.setxattr(f, "trusted.b", b"2", 0).unwrap();
    let Ok(Found::Bytes(list)) = rig.ask(&Query::ListXattr { ino: f }) else { panic!("no list") };
    assert_eq!(&*list, b"trusted.b\0user.a\0");
    let before = rig.attr(f).unwrap();
    rig.run(&Mutation::RemoveXattr { ino: f, name: b"user.a" }).unwrap();
    assert!(rig.attr(f).unwrap().ctime > before.ctime);
    assert_eq!(rig.run(&Mutation::RemoveXattr { ino: f, name: b"user.a" }), Err(Errno::ENODATA));
    assert_eq!(rig.getxattr(f, "user.a"), Err(Errno::ENODATA));
}

#[test]
fn names_and_sizes_of_extended_attributes_are_checked() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let long = format!("user.{}", "x".repeat(251));
    for (key, errno) in [
        ("", Errno::ERANGE),
        (&*long, Errno::ERANGE),
        ("user.", Errno::EINVAL),
        ("other.x", Errno::EOPNOTSUPP),
        ("system.x", Errno::EOPNOTSUPP),
    ] {
        assert_eq!(rig.setxattr(f, key, b"", 0), Err(errno), "{key}");
        assert_eq!(rig.getxattr(f, key), Err(errno), "{key}");
    }
    let value = vec![1; XATTR_VALUE_BYTES_MAX + 1];
    assert_eq!(rig.setxattr(f, "user.big", &value, 0), Err(Errno::E2BIG));
    rig.setxattr(f, "user.big", &value[1..], 0).unwrap();
    assert_eq!(rig.getxattr(f, "user.big").unwrap().len(), XATTR_VALUE_BYTES_MAX);
    let fifo = rig.make(ROOT, "p", libc::S_IFIFO | 0o600).unwrap().ino;
    assert_eq!(rig.setxattr(fifo, "user.a", b"", 0), Err(Errno::EPERM));
    assert_eq!(rig.getxattr(fifo, "user.a"), Err(Errno::ENODATA));
    rig.setxattr(fifo, "trusted.a", b"", 0).unwrap();
}

#[test]
fn the_list_of_attributes_has_an_end() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let key = |i: usize| format!("user.{i:0>250}");
    let fits = XATTR_LIST_BYTES_MAX / 256;
    for i in 0..fits {
        rig.setxattr(f, &key(i), b"", 0).unwrap();
    }
    assert_eq!(rig.setxattr(f, &key(fits), b"", 0), Err(Errno::ENOSPC));
    rig.setxattr(f, &key(0), b"again", 0).unwrap();
}

#[test]
fn an_access_acl_and_the_mode_follow_each_other() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    let list = acl(&[(1, 6, NONE), (2, 7, 1000), (4, 4, NONE), (16, 6, NONE), (32, 0, NONE)]);
    rig.setxattr(f, ACCESS, &list, 0).unwrap();
    assert_eq!(rig.attr(f).unwrap().mode & 0o7777, 0o660, "the group bits show the mask");
    rig.set(f, SetAttr { mode: Some(0o741), ..SetAttr::default() }).unwrap();
    let follows = acl(&[(1, 7, NONE), (2, 7, 1000), (4, 4, NONE), (16, 4, NONE), (32, 1, NONE)]);
    assert_eq!(rig.getxattr(f, ACCESS), Ok(follows));
    // A list that says no more than the mode is not kept.
    rig.set(f, SetAttr { mode: Some(0o2755), ..SetAttr::default() }).unwrap();
    let plain = acl(&[(1, 6, NONE), (4, 4, NONE), (32, 4, NONE)]);
    let set =
        Mutation::SetXattr { ino: f, name: ACCESS.as_bytes(), value: &plain, flags: 0, kill_sgid: true };
    rig.run(&set).unwrap();
    assert_eq!(rig.attr(f).unwrap().mode & 0o7777, 0o644);
    assert_eq!(rig.getxattr(f, ACCESS), Err(Errno::ENODATA));
    rig.run(&Mutation::RemoveXattr { ino: f, name: ACCESS.as_bytes() }).unwrap();
    assert_eq!(rig.setxattr(f, DEFAULT, &plain, 0), Err(Errno::EACCES));
    assert_eq!(rig.setxattr(f, ACCESS, b"bad", 0), Err(Errno::EINVAL));
    let link = rig.make(ROOT, "l", libc::S_IFLNK | 0o777).unwrap().ino;
    assert_eq!(rig.setxattr(link, ACCESS, &plain, 0), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    let rig = Rig::new();
    let d = rig.dir(ROOT, "d");
    let list = acl(&[(1, 7, NONE), (2, 6, 1000), (4, 5, NONE), (16, 7, NONE), (32, 5, NONE)]);
    rig.setxattr(d, DEFAULT, &list, 0).unwrap();
    let flags = MakeFlags { hold: false, exclusive: true };
    let file = rig.make_as(d, "f", libc::S_IFREG | 0o664, 0o077, flags).unwrap().attr.unwrap();
    assert_eq!(file.mode & 0o7777, 0o664, "the umask is not looked at");
    let access = acl(&[(1, 6, NONE), (2, 6, 1000), (4, 5, NONE), (16, 6, NONE), (32, 4, NONE)]);
    assert_eq!(rig.getxattr(file.ino, ACCESS), Ok(access));
    assert_eq!(rig.getxattr(file.ino, DEFAULT), Err(Errno::ENODATA));
    let sub = rig.make_as(d, "s", libc::S_IFDIR | 0o777, 0o077, flags).unwrap().attr.unwrap();
    assert_eq!(rig.getxattr(sub.ino, DEFAULT), Ok(list));
    let link = rig.make_as(d, "l", libc::S_IFLNK | 0o777, 0o077, flags).unwrap().attr.unwrap();
    assert_eq!(link.mode & 0o7777, 0o777);
    // Without names in it the default list decides the mode and leaves no access list.
    rig.setxattr(d, DEFAULT, &acl(&[(1, 7, NONE), (4, 5, NONE), (32, 0, NONE)]), 0).unwrap();
    let file = rig.make_as(d, "g", libc::S_IFREG | 0o666, 0, flags).unwrap().attr.unwrap();
    assert_eq!(file.mode & 0o7777, 0o640);
    assert_eq!(rig.getxattr(file.ino, ACCESS), Err(Errno::ENODATA));
}
