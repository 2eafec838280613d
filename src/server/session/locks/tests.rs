//! The table against a reference that keeps one entry per byte, and planted circles.

use super::{LockLimits, LockTable, Placed, Wake};
use crate::base::{Errno, Ino, SessionId};
use crate::wire::{LockKind, LockOwner, LockRequest};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use std::collections::{BTreeMap, BTreeSet};

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const FILE: Ino = Ino(100);
const OTHER: Ino = Ino(101);
const THIRD: Ino = Ino(102);

fn record(owner: u64, kind: LockKind, start: u64, end: u64) -> LockRequest {
    LockRequest { owner: LockOwner::Record(owner), kind, start, end, pid: 7, handle: owner }
}

fn write(owner: u64, start: u64, end: u64) -> LockRequest {
    record(owner, LockKind::Write, start, end)
}

fn flock(owner: u64, kind: LockKind) -> LockRequest {
    LockRequest { owner: LockOwner::Flock(owner), ..record(owner, kind, 0, 0) }
}

fn table() -> LockTable {
    LockTable::new(LockLimits::default(), false)
}

/// Sets with the wakes in one list.
struct Desk {
    table: LockTable,
    sequence: u64,
    wakes: Vec<Wake>,
}

impl Desk {
    fn new(table: LockTable) -> Self {
        Self { table, sequence: 0, wakes: Vec::new() }
    }

    fn set(&mut self, session: SessionId, ino: Ino, lock: LockRequest, wait: bool) -> Result<Placed, Errno> {
        self.sequence += 1;
        self.table.set(session, self.sequence, ino, &lock, wait, &mut self.wakes)
    }

    fn woken(&mut self) -> Vec<(u64, Result<(), Errno>)> {
        self.wakes.drain(..).map(|wake| (wake.sequence, wake.answer.map(|_| ()))).collect()
    }
}

#[test]
fn a_circle_of_two_owners_on_two_sessions_is_refused() {
    let mut desk = Desk::new(table());
    assert_eq!(desk.set(A, FILE, write(1, 0, 9), false), Ok(Placed::Done));
    assert_eq!(desk.set(B, FILE, write(1, 10, 19), false), Ok(Placed::Done));
    assert_eq!(desk.set(A, FILE, write(1, 10, 10), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(B, FILE, write(1, 0, 0), true), Err(Errno::EDEADLK));
    // The one refused gives way: the other is served.
    assert_eq!(desk.set(B, FILE, record(1, LockKind::Unlock, 0, 99), false), Ok(Placed::Done));
    assert_eq!(desk.woken(), [(3, Ok(()))]);
}

#[test]
fn a_circle_of_three_owners_over_three_files_and_two_sessions_is_refused() {
    let mut desk = Desk::new(table());
    let owners = [(A, 1, FILE), (A, 2, OTHER), (B, 1, THIRD)];
    for (session, owner, ino) in owners {
        assert_eq!(desk.set(session, ino, write(owner, 0, 9), false), Ok(Placed::Done));
    }
    assert_eq!(desk.set(A, OTHER, write(1, 0, 9), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(A, THIRD, write(2, 5, 5), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(B, FILE, write(1, 9, 9), true), Err(Errno::EDEADLK));
    // An owner outside the circle may wait for it.
    assert_eq!(desk.set(B, FILE, write(3, 9, 9), true), Ok(Placed::Waiting));
}

#[test]
fn a_circle_of_flocks_is_not_looked_for() {
    let mut desk = Desk::new(table());
    assert_eq!(desk.set(A, FILE, flock(1, LockKind::Write), false), Ok(Placed::Done));
    assert_eq!(desk.set(B, OTHER, flock(1, LockKind::Write), false), Ok(Placed::Done));
    assert_eq!(desk.set(A, OTHER, flock(1, LockKind::Write), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(B, FILE, flock(1, LockKind::Write), true), Ok(Placed::Waiting));
}

#[test]
fn a_grant_to_an_owner_with_another_waiting_thread_breaks_the_circle_it_closes() {
    let mut desk = Desk::new(table());
    assert_eq!(desk.set(A, FILE, write(1, 0, 0), false), Ok(Placed::Done));
    assert_eq!(desk.set(B, OTHER, write(1, 0, 0), false), Ok(Placed::Done));
    assert_eq!(desk.set(A, OTHER, write(2, 5, 5), false), Ok(Placed::Done));
    // B:1 waits for A:2, and in another thread A:2's own lock is waited for by nobody yet.
    assert_eq!(desk.set(B, OTHER, write(1, 5, 5), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(A, FILE, write(2, 0, 0), true), Ok(Placed::Waiting));
    // A:3 waits for A:1; when A:1 goes, A:2 is first in the queue and gets it: no circle, A:3 waits for A:2.
    assert_eq!(desk.set(B, FILE, write(1, 0, 0), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(A, FILE, record(1, LockKind::Unlock, 0, 0), false), Ok(Placed::Done));
    assert_eq!(desk.woken(), [(5, Ok(()))]);
    // Now A:2 wants what B:1 holds, while B:1 waits for A:2 twice over.
    assert_eq!(desk.set(A, OTHER, write(2, 0, 0), true), Err(Errno::EDEADLK));
}

#[test]
fn a_flock_is_given_up_before_it_is_converted() {
    let mut desk = Desk::new(table());
    assert_eq!(desk.set(A, FILE, flock(1, LockKind::Read), false), Ok(Placed::Done));
    assert_eq!(desk.set(B, FILE, flock(1, LockKind::Read), false), Ok(Placed::Done));
    assert_eq!(desk.set(A, FILE, flock(1, LockKind::Write), true), Ok(Placed::Waiting));
    // B's own conversion finds nobody in the way, since A gave its shared lock up; A waits on.
    assert_eq!(desk.set(B, FILE, flock(1, LockKind::Write), true), Ok(Placed::Done));
    assert_eq!(desk.woken(), []);
    assert_eq!(desk.set(B, FILE, flock(1, LockKind::Unlock), false), Ok(Placed::Done));
    assert_eq!(desk.woken(), [(3, Ok(()))]);
    // Records do not see flocks.
    assert_eq!(desk.set(B, FILE, write(1, 0, 99), false), Ok(Placed::Done));
}

#[test]
fn a_waiting_request_sent_again_keeps_its_one_place() {
    let mut desk = Desk::new(table());
    assert_eq!(desk.set(A, FILE, write(1, 0, 9), false), Ok(Placed::Done));
    let lock = write(1, 3, 3);
    let wakes = &mut desk.wakes;
    assert_eq!(desk.table.set(B, 50, FILE, &lock, true, wakes), Ok(Placed::Waiting));
    assert_eq!(desk.table.set(B, 50, FILE, &lock, true, wakes), Ok(Placed::Waiting));
    assert_eq!(desk.table.load(B), (0, 1));
    desk.table.unlock_owner(A, FILE, 1, wakes);
    assert_eq!(desk.woken(), [(50, Ok(()))]);
    // Sent again although it was granted: the answer was lost.
    assert_eq!(desk.table.set(B, 50, FILE, &lock, true, &mut desk.wakes), Ok(Placed::Done));
    assert_eq!(desk.table.total(), (1, 0));
}

#[test]
fn a_cancelled_wait_is_interrupted_and_a_granted_one_is_not() {
    let mut desk = Desk::new(table());
    assert_eq!(desk.set(A, FILE, write(1, 0, 9), false), Ok(Placed::Done));
    assert_eq!(desk.set(B, FILE, write(1, 0, 9), true), Ok(Placed::Waiting));
    desk.table.cancel(A, 2, &mut desk.wakes);
    desk.table.cancel(B, 1, &mut desk.wakes);
    assert_eq!(desk.woken(), [], "sequences are each session's own");
    desk.table.cancel(B, 2, &mut desk.wakes);
    assert_eq!(desk.woken(), [(2, Err(Errno::EINTR))]);
    desk.table.cancel(B, 2, &mut desk.wakes);
    desk.table.drop_session(A, &mut desk.wakes);
    assert_eq!(desk.woken(), []);
    assert!(desk.table.files.is_empty() && desk.table.places.is_empty() && desk.table.waits.is_empty());
}

#[test]
fn limits_are_answered_with_enolck_also_when_an_unlock_would_split() {
    let limits = LockLimits { per_file: 3, per_session: 4, waiting_per_session: 1 };
    let mut desk = Desk::new(LockTable::new(limits, false));
    for start in [0, 10, 20] {
        assert_eq!(desk.set(A, FILE, write(1, start, start + 4), false), Ok(Placed::Done));
    }
    assert_eq!(desk.set(A, FILE, write(1, 30, 34), false), Err(Errno::ENOLCK));
    assert_eq!(desk.set(A, FILE, record(1, LockKind::Unlock, 2, 2), false), Err(Errno::ENOLCK));
    assert_eq!(desk.set(A, FILE, record(1, LockKind::Unlock, 0, 4), false), Ok(Placed::Done));
    for ino in [OTHER, THIRD] {
        assert_eq!(desk.set(A, ino, write(1, 0, 0), false), Ok(Placed::Done));
    }
    assert_eq!(desk.set(A, Ino(103), write(1, 0, 0), false), Err(Errno::ENOLCK));
    assert_eq!(desk.set(B, OTHER, write(1, 0, 0), true), Ok(Placed::Waiting));
    assert_eq!(desk.set(B, THIRD, write(1, 0, 0), true), Err(Errno::ENOLCK));
    assert!(!desk.table.files.contains_key(&Ino(103)));
}

#[test]
fn a_frozen_table_lets_wait_what_may_conflict_and_serves_it_in_order_when_it_thaws() {
    let mut desk = Desk::new(LockTable::new(LockLimits::default(), true));
    desk.table.assert_held(A, FILE, &write(1, 0, 9)).unwrap();
    assert_eq!(desk.set(A, FILE, write(1, 2, 3), false), Ok(Placed::Done), "its own already");
    assert_eq!(desk.set(B, FILE, write(1, 5, 5), false), Err(Errno::EAGAIN), "certain already");
    assert_eq!(desk.set(B, FILE, write(1, 20, 29), false), Ok(Placed::Waiting));
    assert_eq!(desk.set(B, FILE, write(1, 5, 5), true), Ok(Placed::Waiting));
    let question = desk.table.test(B, 90, FILE, &write(1, 40, 40));
    assert_eq!(question, Ok(None));
    // A comes back with a lock that the second request would have taken away.
    desk.table.assert_held(A, FILE, &write(1, 20, 20)).unwrap();
    assert_eq!(desk.woken(), []);
    desk.table.thaw(&mut desk.wakes);
    assert_eq!(desk.woken(), [(3, Err(Errno::EAGAIN)), (90, Ok(()))]);
    desk.table.unlock_owner(A, FILE, 1, &mut desk.wakes);
    assert_eq!(desk.woken(), [(4, Ok(()))]);
    assert_eq!(desk.table.assert_held(A, FILE, &write(1, 5, 5)), Err(Errno::ESTALE));
}

// ---- the reference ----

type Owner = (u128, u64);
/// Kind, process id and handle of one locked byte.
type Byte = (bool, u32, u64);

#[derive(Clone, Debug)]
struct Asked {
    owner: Owner,
    ino: u64,
    start: u64,
    end: u64,
    byte: Byte,
    sequence: u64,
}

#[derive(Default)]
struct Reference {
    bytes: BTreeMap<(u64, u64), BTreeMap<Owner, Byte>>,
    waiting: Vec<Asked>,
}

impl Reference {
    fn blockers(&self, asked: &Asked) -> BTreeSet<Owner> {
        let bytes = (asked.start..=asked.end).filter_map(|at| self.bytes.get(&(asked.ino, at)));
        let all = bytes.flat_map(|owners| owners.iter());
        let in_way = all.filter(|(owner, byte)| **owner != asked.owner && (byte.0 || asked.byte.0));
        in_way.map(|(owner, _)| *owner).collect()
    }

    /// All owners that can be reached: closure by repetition.
    fn deadlocks(&self, asked: &Asked) -> bool {
        let mut reached = self.blockers(asked);
        loop {
            let waiting = self.waiting.iter().filter(|w| reached.contains(&w.owner));
            let more: BTreeSet<Owner> = waiting.flat_map(|w| self.blockers(w)).collect();
            if more.is_subset(&reached) {
                return reached.contains(&asked.owner);
            }
            reached.extend(more);
        }
    }

    fn grant(&mut self, asked: &Asked, woken: &mut Vec<(u64, Result<(), Errno>)>) {
        for at in asked.start..=asked.end {
            self.bytes.entry((asked.ino, at)).or_default().insert(asked.owner, asked.byte);
        }
        let mut own: Vec<Asked> = self.waiting.iter().filter(|w| w.owner == asked.owner).cloned().collect();
        own.sort_by_key(|w| w.sequence);
        for waiter in own {
            if self.deadlocks(&waiter) {
                self.waiting.retain(|w| w.sequence != waiter.sequence);
                woken.push((waiter.sequence, Err(Errno::EDEADLK)));
            }
        }
    }

    fn serve(&mut self, ino: u64, woken: &mut Vec<(u64, Result<(), Errno>)>) {
        let ready = |me: &Self| me.waiting.iter().position(|w| w.ino == ino && me.blockers(w).is_empty());
        while let Some(at) = ready(self) {
            let waiter = self.waiting.remove(at);
            woken.push((waiter.sequence, Ok(())));
            self.grant(&waiter, woken);
        }
    }

    fn forget(&mut self, which: impl Fn(u64, u64, &Owner, &Byte) -> bool) {
        for ((ino, at), owners) in &mut self.bytes {
            owners.retain(|owner, byte| !which(*ino, *at, owner, byte));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Lock { owner: Owner, ino: u64, start: u64, len: u64, write: bool, wait: bool, handle: u64 },
    Unlock { owner: Owner, ino: u64, start: u64, len: u64 },
    Cancel { nth: usize },
    CloseOwner { owner: Owner, ino: u64 },
    CloseHandle { session: u128, ino: u64, handle: u64 },
    EndSession { session: u128 },
}

fn step() -> impl Strategy<Value = Step> {
    let owner = || (1..3_u128, 1..4_u64);
    let range = || (0..14_u64, 1..8_u64);
    prop_oneof![
        8 => (owner(), 1..3_u64, range(), any::<bool>(), any::<bool>(), 1..3_u64).prop_map(
            |(owner, ino, (start, len), write, wait, handle)| Step::Lock { owner, ino, start, len, write, wait, handle }),
        4 => (owner(), 1..3_u64, range()).prop_map(|(owner, ino, (start, len))| Step::Unlock { owner, ino, start, len }),
        1 => (0..4_usize).prop_map(|nth| Step::Cancel { nth }),
        1 => (owner(), 1..3_u64).prop_map(|(owner, ino)| Step::CloseOwner { owner, ino }),
        1 => (1..3_u128, 1..3_u64, 1..3_u64).prop_map(|(session, ino, handle)| Step::CloseHandle { session, ino, handle }),
        1 => (1..3_u128, Just(())).prop_map(|(session, ())| Step::EndSession { session }),
    ]
}

/// Runs one step on both; what was answered at once and what was woken must be the same.
fn both(desk: &mut Desk, model: &mut Reference, step: &Step) {
    let mut woken = Vec::new();
    let lock = |owner: &Owner, kind, start, len, handle| LockRequest {
        owner: LockOwner::Record(owner.1),
        kind,
        start,
        end: start + len - 1,
        pid: 0,
        handle,
    };
    match step {
        Step::Lock { owner, ino, start, len, write, wait, handle } => {
            let kind = if *write { LockKind::Write } else { LockKind::Read };
            let request = lock(owner, kind, *start, *len, *handle);
            let found = desk.set(SessionId(owner.0), Ino(*ino), request, *wait);
            let (end, byte) = (request.end, (*write, 0, *handle));
            let sequence = desk.sequence;
            let asked = Asked { owner: *owner, ino: *ino, start: *start, end, byte, sequence };
            let expected = if model.blockers(&asked).is_empty() {
                model.grant(&asked, &mut woken);
                Ok(Placed::Done)
            } else if !wait {
                Err(Errno::EAGAIN)
            } else if model.deadlocks(&asked) {
                Err(Errno::EDEADLK)
            } else {
                model.waiting.push(asked);
                Ok(Placed::Waiting)
            };
            assert_eq!(found, expected, "{step:?}");
            model.serve(*ino, &mut woken);
        }
        Step::Unlock { owner, ino, start, len } => {
            let request = lock(owner, LockKind::Unlock, *start, *len, 1);
            assert_eq!(desk.set(SessionId(owner.0), Ino(*ino), request, false), Ok(Placed::Done));
            let hit = *start..*start + *len;
            model.forget(|i, at, o, _| i == *ino && o == owner && hit.contains(&at));
            model.serve(*ino, &mut woken);
        }
        Step::Cancel { nth } => {
            let Some(waiter) = model.waiting.get(*nth).cloned() else { return };
            desk.table.cancel(SessionId(waiter.owner.0), waiter.sequence, &mut desk.wakes);
            model.waiting.remove(*nth);
            woken.push((waiter.sequence, Err(Errno::EINTR)));
        }
        Step::CloseOwner { owner, ino } => {
            desk.table.unlock_owner(SessionId(owner.0), Ino(*ino), owner.1, &mut desk.wakes);
            model.forget(|i, _, o, _| i == *ino && o == owner);
            model.serve(*ino, &mut woken);
        }
        Step::CloseHandle { session, ino, handle } => {
            desk.table.unlock_handle(SessionId(*session), Ino(*ino), *handle, &mut desk.wakes);
            model.forget(|i, _, o, byte| i == *ino && o.0 == *session && byte.2 == *handle);
            model.serve(*ino, &mut woken);
        }
        Step::EndSession { session } => {
            desk.table.drop_session(SessionId(*session), &mut desk.wakes);
            let gone = model.waiting.iter().filter(|w| w.owner.0 == *session);
            woken.extend(gone.map(|w| (w.sequence, Err(Errno::ESTALE))));
            model.waiting.retain(|w| w.owner.0 != *session);
            model.forget(|_, _, o, _| o.0 == *session);
            (1..3).for_each(|ino| model.serve(ino, &mut woken));
        }
    }
    let mut found = desk.woken();
    // A session's end touches several files, whose order means nothing.
    if matches!(step, Step::EndSession { .. }) {
        found.sort_by_key(|(sequence, _)| *sequence);
        woken.sort_by_key(|(sequence, _)| *sequence);
    }
    assert_eq!(found, woken, "{step:?}");
}

/// The two agree on each byte, and on the bookkeeping.
fn same(desk: &Desk, model: &Reference) {
    let mut bytes: BTreeMap<(u64, u64), BTreeMap<Owner, Byte>> = BTreeMap::new();
    let mut pieces = 0;
    for (ino, file) in &desk.table.files {
        assert_eq!(file.pieces, file.held.values().map(Vec::len).sum::<usize>());
        pieces += file.pieces;
        for (holder, held) in &file.held {
            let LockOwner::Record(owner) = holder.owner else { continue };
            assert!(held.windows(2).all(|w| w[0].end < w[1].start && !w[0].continues_in(&w[1])), "{held:?}");
            for piece in held {
                for at in piece.start..=piece.end {
                    let byte = (piece.write, piece.pid, piece.handle);
                    bytes.entry((ino.0, at)).or_default().insert((holder.session.0, owner), byte);
                }
            }
        }
    }
    let expected = model.bytes.iter().filter(|(_, owners)| !owners.is_empty());
    assert_eq!(bytes, expected.map(|(at, owners)| (*at, owners.clone())).collect());
    assert_eq!(desk.table.total(), (pieces, model.waiting.len()));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    #[test]
    fn the_table_does_what_a_map_of_single_bytes_does(steps in proptest::collection::vec(step(), 1..60)) {
        let mut desk = Desk::new(table());
        let mut model = Reference::default();
        for step in &steps {
            both(&mut desk, &mut model, step);
            same(&desk, &model);
        }
    }
}
