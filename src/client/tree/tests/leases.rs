//! What comes with leases and goes with them.

use super::{
    Clock, DIR, Denied, FILE, HASH, Known, ROOT, Tree, TreeBounds, grant, list, make, name, names, new,
    root_attr, rooted,
};
use crate::base::{Attr, Errno, Ino, Kind, SetAttr};
use crate::wire::{DirEntry, Keep, LeaseMode, Recall, Returned, Ticket};

fn recall(ino: Ino, keep: Keep) -> Recall {
    Recall { ino, keep, number: 1 }
}

fn file(ino: u64) -> Attr {
    Attr { ino: Ino(ino), mode: FILE, nlink: 1, ..root_attr() }
}

#[test]
fn without_a_lease_nothing_is_kept_and_without_knowledge_nothing_is_said() {
    let mut tree = Tree::new(HASH, TreeBounds::default());
    let asked = tree.stamp();
    tree.learn_attr(asked, &root_attr());
    tree.learn_absent(asked, ROOT, name("x"));
    assert_eq!((tree.attr(ROOT), tree.lookup(ROOT, name("x"))), (Known::Unknown, Known::Unknown));
    tree.granted([grant(ROOT, LeaseMode::Shared, 3)]);
    assert_eq!((tree.attr(ROOT), tree.wants_attr(ROOT), tree.may_cache(ROOT)), (Known::Unknown, true, true));
    tree.learn_attr(asked, &root_attr());
    tree.learn_absent(asked, ROOT, name("x"));
    assert_eq!(tree.attr(ROOT), Known::Yes(root_attr()));
    assert_eq!(tree.lookup(ROOT, name("x")), Known::No(Errno::ENOENT));
    assert_eq!(tree.lookup(ROOT, name("y")), Known::Unknown);
}

#[test]
fn under_a_shared_lease_errors_are_told_and_changes_are_for_the_server() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "x", 20, FILE);
    tree.applied(Ticket(9));
    tree.recall_begin(&recall(ROOT, Keep::Shared));
    assert_eq!(tree.recall_stop(&[ROOT]), None);
    let back = tree.recall_finish(&[ROOT], |_| true);
    assert_eq!(back, [Returned { ino: ROOT, number: 1, keep: Keep::Shared, open: true }]);
    assert_eq!(names(&mut tree, ROOT), ["x"]);
    assert!(tree.may_cache(ROOT));
    assert_eq!(tree.make(&clock.next(), ROOT, name("x"), &new(21, FILE)), Err(Denied::No(Errno::EEXIST)));
    assert_eq!(tree.unlink(&clock.next(), ROOT, name("y")), Err(Denied::No(Errno::ENOENT)));
    assert_eq!(tree.make(&clock.next(), ROOT, name("y"), &new(21, FILE)), Err(Denied::Ask));
    assert_eq!(tree.unlink(&clock.next(), ROOT, name("x")), Err(Denied::Ask));
}

#[test]
fn a_recall_lets_local_completion_go_on_until_it_is_stopped_and_waits_for_what_was_completed() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, FILE);
    assert!(tree.recall_begin(&recall(ROOT, Keep::Nothing)));
    assert!(!tree.recall_begin(&recall(ROOT, Keep::Shared)), "it wants no more than the first");
    assert!(!tree.may_cache(ROOT) && !tree.may_cache_name(ROOT) && tree.may_cache(Ino(20)));
    make(&mut tree, &mut clock, ROOT, "b", 21, FILE);
    let mut kernel: Vec<_> = tree.recall_names(ROOT).iter().map(|n| n.as_name().bytes().to_vec()).collect();
    kernel.sort();
    assert_eq!(kernel, [b"a", b"b"]);
    assert_eq!(tree.recall_stop(&[ROOT]), Some(Ticket(2)));
    assert_eq!(tree.make(&clock.next(), ROOT, name("c"), &new(22, FILE)), Err(Denied::Ask));
    assert!(tree.recall_finish(&[ROOT], |_| false).is_empty(), "the log is not that far");
    tree.applied(Ticket(2));
    let back = tree.recall_finish(&[ROOT], |_| false);
    assert_eq!(back, [Returned { ino: ROOT, number: 1, keep: Keep::Nothing, open: false }]);
    assert_eq!((tree.attr(ROOT), tree.lookup(ROOT, name("zz"))), (Known::Unknown, Known::Unknown));
    assert_eq!(tree.counts().names, 0);
    assert!(matches!(tree.attr(Ino(20)), Known::Yes(_)), "the children have leases of their own");
}

#[test]
fn what_is_recalled_and_not_known_is_given_back_all_the_same() {
    let (mut tree, _) = rooted();
    tree.recall_begin(&Recall { ino: Ino(77), keep: Keep::Nothing, number: 40 });
    let back = tree.recall_finish(&[Ino(77), Ino(78)], |_| false);
    assert_eq!(back, [Returned { ino: Ino(77), number: 40, keep: Keep::Nothing, open: false }]);
}

#[test]
fn a_grant_that_came_while_its_predecessor_was_recalled_is_the_one_given_back() {
    let (mut tree, _) = rooted();
    tree.recall_begin(&recall(ROOT, Keep::Nothing));
    tree.granted([grant(ROOT, LeaseMode::Exclusive, 8)]);
    assert_eq!(tree.recall_finish(&[ROOT], |_| false)[0].number, 8);
    tree.granted([grant(ROOT, LeaseMode::Exclusive, 9), grant(ROOT, LeaseMode::Shared, 8)]);
    tree.recall_begin(&recall(ROOT, Keep::Nothing));
    assert_eq!(tree.recall_finish(&[ROOT], |_| false)[0].number, 9, "an older grant changes nothing");
}

#[test]
fn recall_during_a_rename_between_two_directories() {
    let (mut tree, mut clock) = rooted();
    for (ino, text) in [(20, "top"), (21, "from"), (22, "to")] {
        make(&mut tree, &mut clock, ROOT, text, ino, DIR);
    }
    make(&mut tree, &mut clock, Ino(20), "deep", 23, DIR);
    make(&mut tree, &mut clock, Ino(21), "moves", 24, DIR);
    tree.applied(clock.last());
    tree.rename(&clock.next(), (Ino(21), name("moves")), (Ino(23), name("moves")), 0).unwrap();
    // It rests on where the directories above the new place are: they wait for it too.
    for ino in [ROOT, Ino(20), Ino(21), Ino(23), Ino(24)] {
        tree.recall_begin(&recall(ino, Keep::Nothing));
        assert_eq!(tree.recall_stop(&[ino]), Some(clock.last()), "{ino}");
    }
    assert_eq!(tree.last_ticket(Ino(22)), None);
}

#[test]
fn an_answer_older_than_a_change_teaches_nothing() {
    let (mut tree, mut clock) = rooted();
    let asked = tree.stamp();
    make(&mut tree, &mut clock, ROOT, "a", 20, FILE);
    tree.learn_listing(asked, ROOT, 0, &[], true);
    tree.learn_absent(asked, ROOT, name("a"));
    assert_eq!(names(&mut tree, ROOT), ["a"]);
    // Asked later, but the server had not got it.
    let asked = tree.stamp();
    tree.applied(Ticket(1));
    tree.learn_listing(asked, ROOT, 0, &[], true);
    assert_eq!(names(&mut tree, ROOT), ["a"]);
    let asked = tree.stamp();
    tree.learn_listing(asked, ROOT, 0, &[], true);
    assert_eq!(names(&mut tree, ROOT), [""; 0], "this one knows better");
}

#[test]
fn an_answer_older_than_the_outcome_of_a_change_teaches_nothing() {
    let (mut tree, _) = rooted();
    tree.granted([super::grant(Ino(20), LeaseMode::Shared, 5)]);
    let file = Attr { ino: Ino(20), mode: FILE, nlink: 1, ..root_attr() };
    tree.forget_attr(Ino(20));
    // Asked for on one connection, while the server makes the change that went over the other.
    let (begun, asked) = (tree.stamp(), tree.stamp());
    let after = Attr { size: 33, blocks: 1, ..file };
    tree.learn_attr(begun, &after);
    tree.is_newest(Ino(20));
    tree.learn_attr(asked, &file);
    assert_eq!(tree.attr(Ino(20)), Known::Yes(after));
}

#[test]
fn an_answer_older_than_a_change_teaches_nothing_also_when_the_inode_was_given_back_between() {
    let (mut tree, mut clock) = rooted();
    let asked = tree.stamp();
    let set = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    tree.set_attr(&clock.next(), ROOT, &set).unwrap();
    tree.applied(Ticket(1));
    tree.recall_begin(&recall(ROOT, Keep::Nothing));
    assert_eq!(tree.recall_finish(&[ROOT], |_| false).len(), 1);
    tree.granted([grant(ROOT, LeaseMode::Exclusive, 50)]);
    tree.learn_attr(asked, &root_attr());
    assert_eq!(tree.attr(ROOT), Known::Unknown);
    tree.learn_attr(tree.stamp(), &root_attr());
    assert_eq!(tree.attr(ROOT), Known::Yes(root_attr()));
}

#[test]
fn what_the_server_did_for_a_waiting_caller_is_asked_for_again() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, FILE);
    tree.forget_name(ROOT, name("b"));
    assert_eq!(tree.lookup(ROOT, name("b")), Known::Unknown);
    assert_eq!(tree.lookup(ROOT, name("c")), Known::No(Errno::ENOENT));
    assert!(tree.wants_attr(ROOT) && tree.xattr_is_absent(ROOT));
    tree.forget_attr(Ino(20));
    assert!(tree.wants_attr(Ino(20)) && !tree.xattr_is_absent(Ino(20)));
    tree.forget_listing(ROOT);
    assert_eq!((list(&mut tree, ROOT, 0).1, tree.counts().names), (Known::Unknown, 0));
}

#[test]
fn the_first_lookup_in_a_directory_asks_for_its_listing_once() {
    let (mut tree, _) = rooted();
    assert!(!tree.should_list_first(ROOT), "it is known");
    assert!(tree.should_list_first(Ino(20)));
    assert!(!tree.should_list_first(Ino(20)), "tried");
    tree.granted([grant(Ino(20), LeaseMode::Shared, 4)]);
    let entry = DirEntry { ino: Ino(21), cookie: 999, kind: Kind::File, name: b"a", attr: Some(file(21)) };
    tree.learn_listing(tree.stamp(), Ino(20), 0, &[entry], false);
    assert!(!tree.should_list_first(Ino(20)), "it goes on name by name");
    assert_eq!(list(&mut tree, Ino(20), 0).1, Known::Yes(false));
    assert_eq!(list(&mut tree, Ino(20), 999).1, Known::Unknown);
}

#[test]
fn what_was_not_used_for_longest_is_given_up_when_there_is_too_much() {
    let mut tree = Tree::new(HASH, TreeBounds { inodes_max: 4, names_max: 100 });
    let grants: Vec<_> = (20..30).map(|ino| grant(Ino(ino), LeaseMode::Exclusive, ino)).collect();
    tree.granted(grants);
    for ino in 20..30 {
        tree.learn_attr(tree.stamp(), &file(ino));
    }
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    tree.set_attr(&Clock::default().next(), Ino(21), &set).unwrap();
    let mut back = tree.trim(|ino| ino == Ino(20));
    for _ in 0..3 {
        assert!(matches!(tree.attr(Ino(22)), Known::Yes(_) | Known::Unknown));
        back.extend(tree.trim(|ino| ino == Ino(20)));
    }
    assert!(!tree.is_over());
    assert_eq!((back.len(), tree.counts().inodes), (6, 4));
    assert!(back.iter().all(|back| back.number == back.ino.0 && back.keep == Keep::Nothing));
    assert!(matches!(tree.attr(Ino(20)), Known::Yes(_)), "the kernel has it");
    assert_eq!(tree.last_ticket(Ino(21)), Some(Ticket(1)), "it has a change that is not applied");
}

#[test]
fn a_lost_session_leaves_nothing_but_what_is_not_applied() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, DIR);
    tree.applied(Ticket(1));
    make(&mut tree, &mut clock, Ino(20), "b", 21, FILE);
    let mut gone = tree.drop_leases();
    gone.sort_unstable();
    assert_eq!(gone, [ROOT, Ino(20), Ino(21)]);
    for ino in gone {
        assert_eq!((tree.attr(ino), tree.may_cache(ino)), (Known::Unknown, false));
    }
    assert_eq!((tree.last_ticket(Ino(20)), tree.last_ticket(ROOT)), (Some(Ticket(2)), None));
    assert_eq!(tree.ancestors(Ino(21)), [Ino(21), Ino(20), ROOT], "where its failure is told");
}

#[test]
fn a_make_that_fails_late_takes_its_name_along_and_poisons_the_inode() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, FILE);
    make(&mut tree, &mut clock, ROOT, "b", 21, FILE);
    tree.applied(Ticket(2));
    let touched = tree.roll_back(&[(ROOT, name("a"))], &[], Some(Ino(20)));
    assert_eq!(touched, [ROOT, Ino(20)]);
    assert_eq!(tree.lookup(ROOT, name("a")), Known::Unknown);
    assert!(matches!(tree.lookup(ROOT, name("b")), Known::Yes(_)), "its neighbour stays");
    assert_eq!((tree.attr(Ino(20)), tree.poisoned(Ino(20))), (Known::No(Errno::EIO), Some(Errno::EIO)));
    let written = tree.write(&clock.next(), Ino(20), 0, 1, false, false);
    assert_eq!(written, Err(Denied::No(Errno::EIO)));
    assert!(tree.wants_attr(ROOT), "its counts are what the server says");
    tree.forgotten(Ino(20));
    assert_eq!(tree.poisoned(Ino(20)), None);
}

#[test]
fn blocks_are_told_while_they_are_known() {
    let (mut tree, mut clock) = rooted();
    make(&mut tree, &mut clock, ROOT, "a", 20, FILE);
    let blocks = |tree: &mut Tree| match tree.attr(Ino(20)) {
        Known::Yes(attr) => Some(attr.blocks),
        _ => None,
    };
    let mut write = |tree: &mut Tree, offset, len| {
        tree.write(&clock.next(), Ino(20), offset, len, false, false).unwrap();
    };
    write(&mut tree, 0, 700);
    assert_eq!(blocks(&mut tree), Some(2));
    write(&mut tree, 100, 1000);
    assert_eq!(blocks(&mut tree), Some(3));
    write(&mut tree, 1 << 20, 1000);
    assert_eq!(blocks(&mut tree), Some(5), "behind a hole");
    write(&mut tree, 1100, 1000);
    assert_eq!(blocks(&mut tree), None, "who knows what was there");
    assert!(tree.wants_attr(Ino(20)));
    let cut = SetAttr { size: Some(10), ..SetAttr::default() };
    assert_eq!(tree.set_attr(&Clock(50).next(), Ino(20), &cut), Err(Denied::Ask));
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(tree.set_attr(&Clock(50).next(), Ino(20), &cut).unwrap().blocks, 0);
}
