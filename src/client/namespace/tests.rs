use super::{Handles, Inodes, Locks, OpenStep};
use crate::base::{HandleId, Ino};
use crate::wire::{LockKind, LockOwner, LockRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const FILE: Ino = Ino(7);

/// Drops all that may be dropped, as the mount does with an answering server.
fn drop_all(inodes: &Inodes) -> Vec<Ino> {
    let mut all = Vec::new();
    while let Some(inos) = inodes.next_drops(2, |_| true) {
        let (waiters, again) = inodes.drops_done(&inos);
        assert!(again.is_empty());
        waiters.into_iter().for_each(|waiter| waiter());
        all.extend(inos);
    }
    all
}

#[test]
fn an_inode_is_held_from_its_first_open_to_its_last_close() {
    let inodes = Inodes::default();
    inodes.looked_up(FILE);
    assert_eq!(inodes.begin_open(FILE), OpenStep::Ask);
    inodes.held(FILE);
    assert_eq!(inodes.begin_open(FILE), OpenStep::Ready);
    assert!(!inodes.closed(FILE));
    assert_eq!(inodes.all_held(), [FILE]);
    assert!(inodes.closed(FILE));
    assert_eq!(drop_all(&inodes), [FILE]);
    assert_eq!((inodes.all_held(), inodes.counts().known), (vec![], 1));
    assert!(!inodes.forget(FILE, 1));
    assert_eq!(inodes.counts().known, 0);
}

#[test]
fn an_orphan_is_held_until_it_is_closed_and_forgotten() {
    for forget_first in [false, true] {
        let inodes = Inodes::default();
        inodes.created(FILE, false, false);
        assert!(!inodes.orphaned(FILE));
        if forget_first {
            assert!(!inodes.forget(FILE, 1));
            assert!(inodes.closed(FILE));
        } else {
            assert!(!inodes.closed(FILE));
            assert_eq!(drop_all(&inodes), []);
            assert!(inodes.forget(FILE, 1));
        }
        assert_eq!(drop_all(&inodes), [FILE]);
        assert_eq!(inodes.counts(), super::InodeCounts::default());
    }
}

#[test]
fn an_orphan_the_kernel_never_knew_is_dropped_at_once() {
    let inodes = Inodes::default();
    assert!(inodes.orphaned(FILE));
    assert_eq!(drop_all(&inodes), [FILE]);
    assert_eq!(inodes.counts().known, 0);
}

#[test]
fn what_is_opened_again_before_the_drop_goes_out_is_not_dropped() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, false);
    assert!(inodes.closed(FILE));
    assert_eq!(inodes.begin_open(FILE), OpenStep::Ready);
    assert_eq!(inodes.next_drops(8, |_| true), None);
    assert!(inodes.closed(FILE));
    assert_eq!(drop_all(&inodes), [FILE]);
}

#[test]
fn an_open_waits_for_the_drop_that_is_on_its_way() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, false);
    assert!(inodes.closed(FILE));
    let inos = inodes.next_drops(8, |_| true).unwrap();
    assert_eq!(inodes.begin_open(FILE), OpenStep::Wait);
    let ran = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&ran);
    inodes.after_drop(
        FILE,
        Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }),
    );
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    let (waiters, again) = inodes.drops_done(&inos);
    assert_eq!((waiters.len(), again.len()), (1, 0));
    waiters.into_iter().for_each(|waiter| waiter());
    assert_eq!(ran.load(Ordering::Relaxed), 1);
    assert_eq!(inodes.resume_open(FILE), OpenStep::Ask);
}

#[test]
fn a_last_name_lost_during_a_drop_asks_for_a_new_hold() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, false);
    assert!(inodes.closed(FILE));
    let inos = inodes.next_drops(8, |_| true).unwrap();
    assert!(!inodes.orphaned(FILE));
    let (_, again) = inodes.drops_done(&inos);
    assert_eq!(again, [FILE]);
    inodes.held(FILE);
    assert!(!inodes.closed(FILE), "the kernel still knows it");
    assert!(inodes.forget(FILE, 1));
    assert_eq!(drop_all(&inodes), [FILE]);
}

#[test]
fn a_last_name_lost_during_a_drop_of_a_forgotten_inode_drops_it_once_more() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, false);
    assert!(inodes.closed(FILE));
    let inos = inodes.next_drops(8, |_| true).unwrap();
    assert!(!inodes.orphaned(FILE));
    assert!(!inodes.forget(FILE, 1));
    assert_eq!(inodes.drops_done(&inos).1, []);
    assert_eq!(drop_all(&inodes), [FILE]);
    assert_eq!(inodes.counts().known, 0);
}

#[test]
fn what_a_mutation_that_is_sent_again_has_held_once_more_is_dropped_once_more() {
    let inodes = Inodes::default();
    // Nobody needs it any more.
    assert!(inodes.held_once_more(FILE));
    assert_eq!(drop_all(&inodes), [FILE]);
    assert_eq!(inodes.counts(), super::InodeCounts::default());
    // Open: it stays held, and is dropped once.
    inodes.created(FILE, true, false);
    assert!(!inodes.held_once_more(FILE));
    assert_eq!(inodes.all_held(), [FILE]);
    assert!(!inodes.forget(FILE, 1));
    assert!(inodes.closed(FILE));
    // While its Drop is on its way: another one makes sure.
    assert_eq!(inodes.next_drops(9, |_| true), Some(vec![FILE]));
    assert!(!inodes.held_once_more(FILE));
    let (_, again) = inodes.drops_done(&[FILE]);
    assert!(again.is_empty());
    assert_eq!(drop_all(&inodes), [FILE]);
    assert_eq!(inodes.counts(), super::InodeCounts::default());
    // Opened under a lease: a second restart must know that it is open.
    inodes.opened_leased(FILE);
    assert!(!inodes.held_once_more(FILE));
    assert_eq!(inodes.open_by_lease(), [FILE]);
}

#[test]
fn an_open_that_was_given_up_is_dropped_unless_another_holds() {
    let inodes = Inodes::default();
    inodes.looked_up(FILE);
    assert_eq!(inodes.begin_open(FILE), OpenStep::Ask);
    assert_eq!(inodes.begin_open(FILE), OpenStep::Ask);
    assert!(!inodes.open_failed(FILE, true));
    assert_eq!(inodes.all_held(), []);
    assert!(inodes.open_failed(FILE, true));
    assert_eq!(inodes.begin_open(FILE), OpenStep::Ask);
    inodes.held(FILE);
    assert_eq!(drop_all(&inodes), []);
    assert!(inodes.closed(FILE));
    assert_eq!(drop_all(&inodes), [FILE]);
}

#[test]
fn a_lost_session_leaves_the_open_files_to_be_held_again() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, false);
    inodes.created(Ino(8), false, false);
    assert!(!inodes.orphaned(Ino(8)));
    assert!(!inodes.closed(Ino(8)));
    assert_eq!(inodes.lost(), [FILE]);
    assert_eq!(inodes.all_held(), []);
    inodes.held(FILE);
    assert!(!inodes.closed(FILE));
    assert!(inodes.closed(FILE));
    assert!(!inodes.forget(Ino(8), 1), "it went with the session");
    assert_eq!(drop_all(&inodes), [FILE]);
}

#[test]
fn one_drop_is_on_its_way_at_a_time_and_the_rest_gathers() {
    let inodes = Inodes::default();
    for ino in 10..20 {
        inodes.created(Ino(ino), false, false);
    }
    assert!(inodes.closed(Ino(10)));
    let first = inodes.next_drops(8, |_| true).unwrap();
    for ino in 11..20 {
        assert!(inodes.closed(Ino(ino)));
    }
    assert_eq!(inodes.next_drops(8, |_| true), None);
    let _ = inodes.drops_done(&first);
    assert_eq!(inodes.next_drops(8, |_| true).unwrap().len(), 8);
}

#[test]
fn a_handle_ends_once_and_its_number_does_not_come_back() {
    let handles = Handles::default();
    let (a, b) = (handles.open(FILE, 1), handles.open(FILE, 2));
    assert_ne!(a, b);
    handles.mark_locked(a);
    assert!(handles.close(a).is_some_and(|handle| handle.locked && handle.ino == FILE));
    assert_eq!((handles.close(a), handles.len()), (None, 1));
    assert_ne!(handles.open(FILE, 0), a);
}

fn lock(owner: u64, kind: LockKind, start: u64, end: u64) -> LockRequest {
    LockRequest { owner: LockOwner::Record(owner), kind, start, end, pid: 1, handle: owner }
}

fn ranges(locks: &Locks) -> Vec<(u64, u64, LockKind)> {
    let mut all: Vec<_> = locks.all().into_iter().map(|(_, l)| (l.start, l.end, l.kind)).collect();
    all.sort_by_key(|range| range.0);
    all
}

#[test]
fn a_new_lock_cuts_the_owners_older_ones_and_leaves_other_owners_alone() {
    let locks = Locks::default();
    locks.granted(FILE, lock(1, LockKind::Read, 0, 99));
    locks.granted(FILE, lock(2, LockKind::Read, 0, 9));
    locks.granted(FILE, lock(1, LockKind::Write, 40, 49));
    locks.granted(FILE, lock(1, LockKind::Unlock, 90, 200));
    locks.unlock_handle(FILE, HandleId(2));
    assert_eq!(
        ranges(&locks),
        [(0, 39, LockKind::Read), (40, 49, LockKind::Write), (50, 89, LockKind::Read)]
    );
    assert!(locks.owner_has_any(FILE, 1) && !locks.owner_has_any(FILE, 2));
    assert!(locks.unlock_owner(FILE, 1) && !locks.unlock_owner(FILE, 1));
    assert_eq!(ranges(&locks), []);
}

#[test]
fn flock_and_record_locks_of_one_number_are_apart() {
    let locks = Locks::default();
    let flock = LockRequest { owner: LockOwner::Flock(1), ..lock(1, LockKind::Write, 0, 99) };
    locks.granted(FILE, flock);
    assert!(!locks.owner_has_any(FILE, 1));
    assert!(!locks.unlock_owner(FILE, 1));
    assert!(locks.unlock_handle(FILE, HandleId(1)));
}

#[test]
fn a_leased_inode_is_held_when_its_lease_ends_while_it_is_open() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, true);
    inodes.opened_leased(FILE);
    assert_eq!((inodes.all_held(), inodes.open_by_lease()), (vec![], vec![FILE]));
    assert!(!inodes.closed(FILE));
    assert!(inodes.lease_ends(FILE));
    assert_eq!((inodes.all_held(), inodes.open_by_lease()), (vec![FILE], vec![]));
    assert!(inodes.closed(FILE));
    assert_eq!(drop_all(&inodes), [FILE]);
    assert!(!inodes.lease_ends(FILE), "nobody has it open");
    inodes.opened_leased(FILE);
    assert_eq!(inodes.lost(), [FILE], "with the session the lease is gone");
}

#[test]
fn an_unlink_that_is_not_sent_yet_can_do_without_the_hold() {
    let inodes = Inodes::default();
    inodes.created(FILE, false, true);
    assert!(!inodes.closed(FILE));
    assert!(!inodes.orphaned(FILE));
    assert!(inodes.forget(FILE, 1), "held without need");
    inodes.not_held(FILE, true);
    assert_eq!(drop_all(&inodes), []);
    assert_eq!(inodes.counts(), super::InodeCounts::default());
}

#[test]
fn what_is_not_ready_to_be_dropped_waits_for_the_next_time() {
    let inodes = Inodes::default();
    assert!(inodes.orphaned(FILE) && inodes.orphaned(Ino(8)));
    let ready = |ino| ino == Ino(8);
    assert_eq!(inodes.next_drops(8, ready), Some(vec![Ino(8)]));
    assert!(inodes.drops_done(&[Ino(8)]).1.is_empty());
    assert_eq!(inodes.next_drops(8, ready), None);
    assert_eq!(drop_all(&inodes), [FILE]);
}
