//! Corners of names, each with a test of its own (spec 3.10).

use super::{
    Clock, DIR, Denied, FILE, HASH, Known, ROOT, Tree, TreeBounds, USER, at, list, make, name, names, new,
    root_attr, rooted,
};
use crate::base::{Attr, Errno, Ino, Name, SetAttr, TimeSet};
use crate::client::tree::{Change, New};
use crate::wire::{Grant, LeaseMode};

fn attr(tree: &mut Tree, ino: Ino) -> Attr {
    match tree.attr(ino) {
        Known::Yes(attr) => attr,
        other => panic!("{ino}: {other:?}"),
    }
}

#[test]
fn a_file_unlinked_before_its_create_was_sent_lives_until_it_is_forgotten() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "x", 20, FILE);
    let removed = tree.unlink(&clock.next(), ROOT, name("x")).unwrap();
    assert_eq!((removed.ino, removed.orphan), (Ino(20), true));
    assert_eq!(tree.lookup(ROOT, name("x")), Known::No(Errno::ENOENT));
    assert_eq!(attr(&mut tree, Ino(20)).nlink, 0);
    let written = tree.write(&clock.next(), Ino(20), 0, 10, false, false).unwrap();
    assert_eq!((written.bytes, attr(&mut tree, Ino(20)).size), (10, 10));
    tree.forgotten(Ino(20));
    assert_eq!((tree.attr(Ino(20)), tree.last_ticket(Ino(20))), (Known::Unknown, Some(clock.last())));
}

#[test]
fn a_file_that_lost_its_last_name_gets_none_again() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "x", 20, FILE);
    tree.unlink(&clock.next(), ROOT, name("x")).unwrap();
    assert_eq!(tree.link(&clock.next(), Ino(20), ROOT, name("y")), Err(Denied::No(Errno::ENOENT)));
}

#[test]
fn linking_a_file_made_without_a_name_is_for_the_server() {
    let (mut tree, mut clock) = rooted();
    let nameless = Attr { ino: Ino(20), mode: FILE, nlink: 0, ..root_attr() };
    tree.granted([super::grant(Ino(20), LeaseMode::Exclusive, 5)]);
    tree.learn_attr(tree.stamp(), &nameless);
    assert_eq!(tree.link(&clock.next(), Ino(20), ROOT, name("y")), Err(Denied::Ask));
}

#[test]
fn renaming_a_hard_link_onto_the_other_does_nothing() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "x", 20, FILE);
    tree.link(&clock.next(), Ino(20), ROOT, name("y")).unwrap();
    let before = (attr(&mut tree, ROOT), attr(&mut tree, Ino(20)));
    let renamed = tree.rename(&clock.next(), (ROOT, name("x")), (ROOT, name("y")), 0).unwrap();
    assert!(renamed.nothing && renamed.orphan.is_none());
    assert_eq!((attr(&mut tree, ROOT), attr(&mut tree, Ino(20))), before);
    assert_eq!(names(&mut tree, ROOT), ["x", "y"]);
}

#[test]
fn a_file_that_is_renamed_over_lives_on_without_a_name() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "old", 20, FILE);
    make(&mut tree, &mut clock, ROOT, "new", 21, FILE);
    tree.write(&clock.next(), Ino(20), 0, 4096, false, false).unwrap();
    let renamed = tree.rename(&clock.next(), (ROOT, name("new")), (ROOT, name("old")), 0).unwrap();
    assert_eq!((renamed.replaced, renamed.orphan), (Some(Ino(20)), Some(Ino(20))));
    let old = attr(&mut tree, Ino(20));
    assert_eq!((old.nlink, old.size, old.blocks), (0, 4096, 8));
    assert_eq!(names(&mut tree, ROOT), ["old"]);
}

#[test]
fn a_directory_moves_with_children_the_server_does_not_know_yet() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, DIR);
    make(&mut tree, &mut clock, ROOT, "b", 21, DIR);
    make(&mut tree, &mut clock, Ino(20), "c", 22, DIR);
    make(&mut tree, &mut clock, Ino(22), "f", 23, FILE);
    tree.rename(&clock.next(), (Ino(20), name("c")), (Ino(21), name("d")), 0).unwrap();
    assert_eq!((names(&mut tree, Ino(20)), names(&mut tree, Ino(21))), (vec![], vec!["d".to_owned()]));
    assert_eq!(names(&mut tree, Ino(22)), ["f"]);
    let above = tree.parent(Ino(22));
    assert_eq!(above, Known::Yes(attr(&mut tree, Ino(21))), "what .. is after the move");
    assert_eq!(tree.ancestors(Ino(23)), [Ino(23), Ino(22), Ino(21), ROOT]);
}

#[test]
fn a_directory_counts_its_subdirectories() {
    let (mut tree, mut clock) = rooted();
    let nlink = |tree: &mut Tree, ino: u64| attr(tree, Ino(ino)).nlink;
    make(&mut tree, &mut clock, ROOT, "a", 20, DIR);
    make(&mut tree, &mut clock, ROOT, "b", 21, DIR);
    make(&mut tree, &mut clock, Ino(20), "c", 22, DIR);
    assert_eq!((nlink(&mut tree, 1), nlink(&mut tree, 20), nlink(&mut tree, 21)), (4, 3, 2));
    tree.rename(&clock.next(), (Ino(20), name("c")), (Ino(21), name("c")), 0).unwrap();
    assert_eq!((nlink(&mut tree, 20), nlink(&mut tree, 21)), (2, 3));
    tree.rmdir(&clock.next(), Ino(21), name("c")).unwrap();
    assert_eq!((nlink(&mut tree, 21), nlink(&mut tree, 22)), (2, 0));
}

#[test]
fn a_directory_does_not_move_below_itself() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, DIR);
    make(&mut tree, &mut clock, Ino(20), "b", 21, DIR);
    let moved = tree.rename(&clock.next(), (ROOT, name("a")), (Ino(21), name("a")), 0);
    assert_eq!(moved, Err(Denied::No(Errno::EINVAL)));
    let over = tree.rename(&clock.next(), (Ino(20), name("b")), (ROOT, name("a")), 0);
    assert_eq!(over, Err(Denied::No(Errno::ENOTEMPTY)));
}

#[test]
fn where_a_directory_lies_must_be_known_to_move_another_into_it() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, DIR);
    // Known by its number alone, as after an open by handle.
    tree.granted([super::grant(Ino(30), LeaseMode::Exclusive, 7)]);
    let asked = tree.stamp();
    tree.learn_attr(asked, &Attr { ino: Ino(30), ..root_attr() });
    tree.learn_listing(asked, Ino(30), 0, &[], true);
    assert_eq!(tree.rename(&clock.next(), (ROOT, name("a")), (Ino(30), name("a")), 0), Err(Denied::Ask));
    make(&mut tree, &mut clock, ROOT, "f", 21, FILE);
    assert!(tree.rename(&clock.next(), (ROOT, name("f")), (Ino(30), name("f")), 0).is_ok());
}

#[test]
fn the_umask_and_a_setgid_directory_shape_what_is_made() {
    let (mut tree, mut clock) = rooted();
    let mut set = |tree: &mut Tree, mode| {
        let set = SetAttr { mode: Some(mode), gid: Some(7), ..SetAttr::default() };
        tree.set_attr(&clock.next(), ROOT, &set).unwrap();
    };
    set(&mut tree, 0o2755);
    let mut clock = Clock(100);
    let file = make(&mut tree, &mut clock, ROOT, "f", 20, FILE | 0o2111);
    assert_eq!((file.mode, file.uid, file.gid), (libc::S_IFREG | 0o755, USER.uid, 7));
    let dir = make(&mut tree, &mut clock, ROOT, "d", 21, DIR);
    assert_eq!((dir.mode, dir.gid), (libc::S_IFDIR | 0o2755, 7));
    let link = New { target: b"x", mode: libc::S_IFLNK | 0o777, ..new(22, 0) };
    let link = tree.make(&clock.next(), ROOT, name("l"), &link).unwrap().attr;
    assert_eq!((link.mode, link.size, link.gid), (libc::S_IFLNK | 0o777, 1, 7));
    assert_eq!(tree.read_link(Ino(22)), Known::Yes(&b"x"[..]));
}

#[test]
fn under_an_acl_that_the_mount_does_not_know_the_server_makes_files_and_changes_modes() {
    let mut tree = Tree::new(HASH, TreeBounds::default());
    let mut clock = Clock::default();
    tree.granted([Grant { ino: ROOT, mode: LeaseMode::Exclusive, number: 1, plain: false }]);
    let asked = tree.stamp();
    tree.learn_attr(asked, &root_attr());
    tree.learn_listing(asked, ROOT, 0, &[], true);
    assert_eq!(tree.make(&clock.next(), ROOT, name("x"), &new(20, FILE)), Err(Denied::Ask));
    let mode = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    assert_eq!(tree.set_attr(&clock.next(), ROOT, &mode), Err(Denied::Ask));
    let time = SetAttr { mtime: Some(TimeSet::Now), ..SetAttr::default() };
    assert!(tree.set_attr(&clock.next(), ROOT, &time).is_ok());
    assert!(!tree.xattr_is_absent(ROOT));
}

#[test]
fn names_of_any_bytes_and_of_255_are_kept() {
    let (mut tree, mut clock) = rooted();
    let long = [b'n'; 255];
    let odd: [&[u8]; 5] = [b"\xff\xfe", b"a\nb", b"a:b;c", b" ", &long];
    for (ino, bytes) in (20..).zip(odd) {
        tree.make(&clock.next(), ROOT, Name::parse(bytes).unwrap(), &new(ino, FILE)).unwrap();
    }
    let (found, end) = list(&mut tree, ROOT, 0);
    assert_eq!(end, Known::Yes(true));
    for (ino, bytes) in (20..).zip(odd) {
        assert!(found.iter().any(|(name, at, _)| name == bytes && *at == Ino(ino)));
        assert_eq!(tree.lookup(ROOT, Name::parse(bytes).unwrap()), Known::Yes(attr(&mut tree, Ino(ino))));
    }
}

#[test]
fn times_of_a_directory_go_forward_though_the_clock_goes_back_an_hour() {
    let (mut tree, _) = rooted();
    let mut last = attr(&mut tree, ROOT);
    for (ticket, secs) in [(1, 5000), (2, 1400), (3, 1401), (4, 5000), (5, 8600)] {
        let change = Change { at: at(secs), caller: USER, ticket: crate::wire::Ticket(ticket) };
        let text: [&'static str; 5] = ["a", "b", "c", "d", "e"];
        let index = usize::try_from(ticket - 1).unwrap();
        tree.make(&change, ROOT, name(text[index]), &new(20 + ticket, FILE)).unwrap();
        let now = attr(&mut tree, ROOT);
        assert!(now.mtime > last.mtime && now.ctime > last.ctime && now.mtime == now.ctime);
        last = now;
    }
    assert_eq!(last.ctime, at(8600));
}

#[test]
fn a_listing_tells_the_numbers_that_stat_tells_of_files_not_sent_yet() {
    let (mut tree, mut clock) = rooted();
    for (ino, text) in (20..).zip(["a", "b", "c"]) {
        make(&mut tree, &mut clock, ROOT, text, ino, FILE);
    }
    let (found, _) = list(&mut tree, ROOT, 0);
    assert_eq!(found.len(), 3);
    for (bytes, ino, _) in found {
        assert_eq!(tree.lookup(ROOT, Name::parse(&bytes).unwrap()), Known::Yes(attr(&mut tree, ino)));
    }
}

#[test]
fn positions_in_a_listing_stay_while_names_come_go_and_are_applied() {
    let (mut tree, mut clock) = rooted();
    for (ino, text) in (20..).zip(["a", "b", "c", "d", "e", "f"]) {
        make(&mut tree, &mut clock, ROOT, text, ino, FILE);
    }
    let (before, _) = list(&mut tree, ROOT, 0);
    assert!(before.is_sorted_by_key(|(_, _, cookie)| *cookie));
    let (gone, kept) = (&before[2], &before[3..]);
    tree.applied(clock.last());
    let text = ["a", "b", "c", "d", "e", "f"].into_iter().find(|text| text.as_bytes() == gone.0).unwrap();
    tree.unlink(&clock.next(), ROOT, name(text)).unwrap();
    make(&mut tree, &mut clock, ROOT, "new", 30, FILE);
    // Going on after a name that is gone.
    let (after, end) = list(&mut tree, ROOT, gone.2);
    let after: Vec<_> = after.into_iter().filter(|(_, ino, _)| *ino != Ino(30)).collect();
    assert_eq!((&after[..], end), (kept, Known::Yes(true)));
}

#[test]
fn two_names_swap_what_they_stand_for_and_a_whiteout_is_for_the_server() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "d", 20, DIR);
    make(&mut tree, &mut clock, ROOT, "f", 21, FILE);
    make(&mut tree, &mut clock, Ino(20), "e", 22, DIR);
    let swap = libc::RENAME_EXCHANGE;
    tree.rename(&clock.next(), (ROOT, name("f")), (Ino(20), name("e")), swap).unwrap();
    assert_eq!(tree.lookup(ROOT, name("f")), Known::Yes(attr(&mut tree, Ino(22))));
    assert_eq!(tree.lookup(Ino(20), name("e")), Known::Yes(attr(&mut tree, Ino(21))));
    assert_eq!((attr(&mut tree, ROOT).nlink, attr(&mut tree, Ino(20)).nlink), (4, 2));
    let whiteout = tree.rename(&clock.next(), (ROOT, name("d")), (ROOT, name("x")), libc::RENAME_WHITEOUT);
    assert_eq!(whiteout, Err(Denied::Ask));
    let unknown = tree.rename(&clock.next(), (ROOT, name("d")), (ROOT, name("x")), 1 << 20);
    assert_eq!(unknown, Err(Denied::No(Errno::EINVAL)));
}

#[test]
fn a_directory_of_many_names_is_known_in_pieces_and_as_a_whole() {
    let (mut tree, mut clock) = rooted();
    let texts: Vec<String> = (0..20_000).map(|n| format!("file {n}")).collect();
    for (ino, text) in (100..).zip(&texts) {
        tree.make(&clock.next(), ROOT, Name::parse(text.as_bytes()).unwrap(), &new(ino, FILE)).unwrap();
    }
    let (found, end) = list(&mut tree, ROOT, 0);
    assert_eq!((found.len(), end), (20_000, Known::Yes(true)));
    let middle = found[9_999].2;
    assert_eq!(list(&mut tree, ROOT, middle).0.len(), 10_000);
    assert_eq!((tree.counts().names, tree.counts().inodes), (20_000, 20_001));
}

#[test]
fn cutting_a_file_that_may_begin_with_a_small_hole_is_for_the_server() {
    let (mut tree, mut clock) = rooted();
    tree.granted([super::grant(Ino(20), LeaseMode::Exclusive, 5)]);
    let file = Attr { ino: Ino(20), mode: FILE, nlink: 1, size: 110, blocks: 1, ..root_attr() };
    tree.learn_attr(tree.stamp(), &file);
    let cut = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    // Its data may begin behind the first 31 bytes.
    assert_eq!(tree.set_attr(&clock.next(), Ino(20), &cut(31)), Err(Denied::Ask));
    assert_eq!(tree.set_attr(&clock.next(), Ino(20), &cut(0)).unwrap().blocks, 0);
    let whole = Attr { size: 1024, blocks: 2, ..file };
    tree.learn_attr(tree.stamp(), &whole);
    tree.applied(clock.last());
    tree.learn_attr(tree.stamp(), &whole);
    assert_eq!(tree.set_attr(&clock.next(), Ino(20), &cut(31)).unwrap().blocks, 1);
}
