//! Every rule of the table alone, then all of them at random against a model.

use super::contest::{QUIET, RECALLS, WINDOW};
use super::{Access, Effects, LeaseLimits, LeaseTable, WaitId};
use crate::base::{Ino, SessionId};
use crate::wire::{Grant, Keep, LeaseMode, Recall, Returned};
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);
/// Wants no leases.
const PLAIN: SessionId = SessionId(9);
const X: Ino = Ino(20);
const Y: Ino = Ino(21);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Rig {
    table: LeaseTable,
    now: Duration,
}

impl Rig {
    fn new() -> Self {
        Self::bounded(100)
    }

    fn bounded(leases_max: usize) -> Self {
        let limits = LeaseLimits { leases_max, recall_timeout: at(1000) };
        let mut table = LeaseTable::new(limits, 1);
        [A, B, C].into_iter().for_each(|session| table.join(session));
        Self { table, now: at(0) }
    }

    /// A read of an inode, from its beginning to its answer; nothing is in its way.
    fn read(&mut self, session: SessionId, ino: Ino) -> Option<Grant> {
        assert_eq!(self.admit(session, Access::Read, ino), None);
        let stamp = self.table.begin_read();
        let grant = self.table.grant(session, ino, stamp, self.now);
        self.table.end_read(stamp);
        grant
    }

    /// What is recalled; `None`: the way is free.
    fn admit(&mut self, session: SessionId, access: Access, ino: Ino) -> Option<Vec<(SessionId, Recall)>> {
        let mut out = Effects::default();
        let free = self.table.admit(session, access, &[ino], self.now, &mut out);
        assert!(out.woken.is_empty() && (!free || out.recalls.is_empty()));
        (!free).then_some(out.recalls)
    }

    fn give_back(&mut self, session: SessionId, ino: Ino, number: u64, keep: Keep) -> Vec<WaitId> {
        let mut out = Effects::default();
        self.table.give_back(session, &Returned { ino, number, keep, open: false }, &mut out);
        assert!(out.recalls.is_empty());
        out.woken
    }

    fn leases(&self, session: SessionId) -> (usize, usize) {
        let view = self.table.view(session, self.now);
        (view.shared, view.exclusive)
    }
}

fn mode(grant: Option<Grant>) -> Option<LeaseMode> {
    grant.map(|grant| grant.mode)
}

#[test]
fn the_first_is_granted_exclusively_and_a_reader_makes_it_shared() {
    let mut rig = Rig::new();
    let first = rig.read(A, X).unwrap();
    assert_eq!(first.mode, LeaseMode::Exclusive);
    assert_eq!(rig.read(A, X), None, "it has all there is");
    let recall = Recall { ino: X, keep: Keep::Shared, number: first.number };
    assert_eq!(rig.admit(B, Access::Read, X), Some(vec![(A, recall)]));
    let wait = rig.table.wait(B, Access::Read, &[X]);
    assert_eq!(rig.admit(B, Access::Read, X), Some(Vec::new()), "it is recalled once");
    assert_eq!(rig.give_back(A, X, first.number, Keep::Shared), [wait]);
    let second = rig.read(B, X).unwrap();
    assert_eq!(second.mode, LeaseMode::Shared);
    assert!(second.number > first.number);
    assert_eq!((rig.leases(A), rig.leases(B)), ((1, 0), (1, 0)));
    // Alone again, a shared lease becomes an exclusive one when it is asked for.
    assert_eq!(rig.read(B, X), None);
    rig.give_back(A, X, first.number, Keep::Nothing);
    assert_eq!(mode(rig.read(B, X)), Some(LeaseMode::Exclusive));
    assert_eq!((rig.leases(A), rig.leases(B)), ((0, 0), (0, 1)));
}

#[test]
fn a_write_waits_for_every_lease_of_others_and_for_other_writes() {
    let mut rig = Rig::new();
    let a = rig.read(A, X).unwrap();
    rig.admit(B, Access::Read, X);
    rig.give_back(A, X, a.number, Keep::Shared);
    let b = rig.read(B, X).unwrap();
    let mut recalls = rig.admit(C, Access::Write, X).unwrap();
    recalls.sort_by_key(|(session, _)| *session);
    let recall = |number| Recall { ino: X, keep: Keep::Nothing, number };
    assert_eq!(recalls, [(A, recall(a.number)), (B, recall(b.number))]);
    let wait = rig.table.wait(C, Access::Write, &[X]);
    assert_eq!(rig.give_back(A, X, a.number, Keep::Nothing), [0; 0]);
    assert_eq!(rig.give_back(B, X, b.number, Keep::Shared), [0; 0], "it is to keep nothing");
    assert_eq!(rig.give_back(B, X, b.number, Keep::Nothing), [wait]);
    // Its own lease is in nobody's way but the others'.
    assert_eq!(rig.admit(C, Access::Write, X), None);
    rig.table.begin_write(C, &[X]);
    assert_eq!(rig.admit(PLAIN, Access::Read, X), None, "the volume orders reads and writes");
    assert_eq!(rig.admit(PLAIN, Access::Write, X), Some(Vec::new()));
    let wait = rig.table.wait(PLAIN, Access::Write, &[X]);
    let mut out = Effects::default();
    rig.table.end_write(&[X], &mut out);
    assert_eq!(out.woken, [wait]);
}

#[test]
fn a_write_by_one_of_those_who_share_is_told_to_nobody_before_the_writer_knows_of_it() {
    let mut rig = Rig::new();
    let a = rig.read(A, X).unwrap();
    rig.give_back(A, X, a.number, Keep::Shared);
    assert_eq!(rig.admit(A, Access::Write, X), None);
    rig.table.begin_write(A, &[X]);
    rig.table.end_write(&[X], &mut Effects::default());
    // Until it hears the outcome it answers its programs from what it knew.
    let recall = Recall { ino: X, keep: Keep::Shared, number: a.number };
    assert_eq!(rig.admit(B, Access::Read, X), Some(vec![(A, recall)]));
    let wait = rig.table.wait(B, Access::Read, &[X]);
    assert_eq!(rig.give_back(A, X, a.number, Keep::Shared), [wait]);
    assert_eq!(mode(rig.read(B, X)), Some(LeaseMode::Shared));
}

#[test]
fn a_stronger_recall_follows_a_weaker_one() {
    let mut rig = Rig::new();
    let a = rig.read(A, X).unwrap();
    rig.admit(B, Access::Read, X);
    let read = rig.table.wait(B, Access::Read, &[X]);
    let recall = Recall { ino: X, keep: Keep::Nothing, number: a.number };
    assert_eq!(rig.admit(C, Access::Write, X), Some(vec![(A, recall)]));
    assert_eq!(rig.table.outstanding(A), [recall]);
    let write = rig.table.wait(C, Access::Write, &[X]);
    assert_eq!(rig.give_back(A, X, a.number, Keep::Shared), [read]);
    assert_eq!(rig.table.outstanding(A), [recall], "the second one is not answered by that");
    assert_eq!(rig.give_back(A, X, a.number, Keep::Nothing), [write]);
    assert_eq!(rig.table.outstanding(A), []);
}

#[test]
fn what_is_given_back_is_the_grant_that_is_named() {
    let mut rig = Rig::new();
    let a = rig.read(A, X).unwrap();
    rig.admit(B, Access::Read, X);
    rig.give_back(A, X, a.number, Keep::Shared);
    let b = rig.read(B, X).unwrap();
    rig.give_back(A, X, a.number, Keep::Nothing);
    let anew = rig.read(B, X).unwrap();
    assert!(anew.number > b.number);
    // Sent before the new grant was known.
    rig.give_back(B, X, b.number, Keep::Nothing);
    assert_eq!(rig.leases(B), (0, 1));
    rig.give_back(A, X, anew.number, Keep::Nothing);
    assert_eq!(rig.leases(B), (0, 1), "of another session");
    rig.give_back(B, X, anew.number, Keep::Nothing);
    assert_eq!(rig.leases(B), (0, 0));
    assert_eq!(rig.table.totals(), (0, 0, 0));
}

#[test]
fn a_read_that_a_write_overlapped_grants_nothing_of_what_was_written() {
    let mut rig = Rig::new();
    let early = rig.table.begin_read();
    rig.table.begin_write(C, &[X]);
    let amid = rig.table.begin_read();
    assert_eq!(rig.table.grant(A, X, amid, rig.now), None, "it is being written");
    let mut out = Effects::default();
    rig.table.end_write(&[X], &mut out);
    let late = rig.table.begin_read();
    for stamp in [early, amid] {
        assert_eq!(rig.table.grant(A, X, stamp, rig.now), None, "the look may have been before the write");
        assert!(rig.table.grant(A, Y, stamp, rig.now).is_some() || stamp == amid);
    }
    assert!(rig.table.grant(A, X, late, rig.now).is_some());
    [early, amid, late].into_iter().for_each(|stamp| rig.table.end_read(stamp));
}

#[test]
fn a_read_that_began_before_an_exclusive_lease_was_given_up_has_to_look_again() {
    let mut rig = Rig::new();
    let early = rig.table.begin_read();
    let a = rig.read(A, X).unwrap();
    assert!(!rig.table.is_stale(X, early));
    rig.give_back(A, X, a.number, Keep::Shared);
    assert!(
        rig.table.is_stale(X, early),
        "it was changed locally, perhaps, and the look was before that arrived"
    );
    assert_eq!(rig.table.grant(B, X, early, rig.now), None);
    let late = rig.table.begin_read();
    assert!(!rig.table.is_stale(X, late));
    assert!(rig.table.grant(B, X, late, rig.now).is_some());
    // A shared lease that is given up leaves nothing behind.
    rig.give_back(A, X, a.number, Keep::Nothing);
    assert!(!rig.table.is_stale(X, late));
    rig.table.end_read(late);
    rig.table.end_read(early);
    // Neither does the end of a session pass unnoticed.
    let stamp = rig.table.begin_read();
    assert!(rig.table.grant(C, Y, stamp, rig.now).is_some());
    rig.table.leave(C, &mut Effects::default());
    assert!(rig.table.is_stale(Y, stamp));
}

#[test]
fn nothing_is_granted_of_what_somebody_waits_for() {
    let mut rig = Rig::new();
    let a = rig.read(A, X).unwrap();
    rig.admit(B, Access::Read, X);
    rig.give_back(A, X, a.number, Keep::Shared);
    rig.admit(C, Access::Write, X);
    let wait = rig.table.wait(C, Access::Write, &[X]);
    assert_eq!(rig.read(B, X), None, "else readers could keep a writer waiting for ever");
    rig.table.forget(wait);
    assert_eq!(mode(rig.read(B, X)), Some(LeaseMode::Shared));
    assert_eq!(rig.read(A, X), None, "its own is recalled");
}

#[test]
fn a_contested_inode_is_not_leased_until_it_is_quiet() {
    let mut rig = Rig::new();
    for turn in 0..RECALLS {
        let owner = if turn % 2 == 0 { A } else { B };
        let other = if turn % 2 == 0 { B } else { A };
        let grant = rig.read(owner, X).expect("not contested yet");
        assert!(rig.admit(other, Access::Write, X).is_some());
        rig.give_back(owner, X, grant.number, Keep::Nothing);
    }
    assert_eq!((rig.read(A, X), rig.table.totals().2), (None, 1));
    assert!(rig.read(A, Y).is_some(), "another inode is not");
    rig.now += QUIET - at(1);
    assert_eq!(rig.read(A, X), None);
    // Two sessions, one of which writes: still a conflict.
    assert_eq!(rig.admit(B, Access::Write, X), None);
    rig.now += at(1);
    assert_eq!(rig.read(B, X), None, "the quiet time runs from the last conflict");
    rig.now += QUIET;
    rig.table.tick(rig.now);
    assert_eq!((mode(rig.read(B, X)), rig.table.totals().2), (Some(LeaseMode::Exclusive), 0));
}

#[test]
fn recalls_that_are_far_apart_do_not_make_a_contest() {
    let mut rig = Rig::new();
    for _ in 0..RECALLS * 2 {
        let grant = rig.read(A, X).expect("not contested");
        assert!(rig.admit(B, Access::Write, X).is_some());
        rig.give_back(A, X, grant.number, Keep::Nothing);
        rig.now += WINDOW + at(1);
    }
}

#[test]
fn who_wants_no_leases_gets_none_and_waits_for_those_of_others() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(PLAIN, X), None);
    rig.read(A, X).unwrap();
    assert_eq!(rig.admit(PLAIN, Access::Read, X).map(|recalls| recalls.len()), Some(1));
}

#[test]
fn a_session_has_no_more_leases_than_it_may() {
    let mut rig = Rig::bounded(2);
    assert!(rig.read(A, Ino(30)).is_some() && rig.read(A, Ino(31)).is_some());
    assert_eq!(rig.read(A, Ino(32)), None);
    assert!(rig.read(B, Ino(32)).is_some(), "another session may");
    // What it makes it has from birth; over the bound that is taken back at once.
    let mut out = Effects::default();
    rig.table.made(A, X, rig.now, &mut out);
    assert_eq!(out.recalls, [(A, Recall { ino: X, keep: Keep::Nothing, number: 0 })]);
    assert_eq!(rig.leases(A), (0, 3));
    rig.give_back(A, X, 0, Keep::Nothing);
    assert_eq!((rig.leases(A), rig.table.outstanding(A)), ((0, 2), Vec::new()));
}

#[test]
fn what_a_session_makes_is_its_own_from_birth() {
    let mut rig = Rig::new();
    let mut out = Effects::default();
    rig.table.made(A, X, rig.now, &mut out);
    assert!(out.recalls.is_empty() && rig.table.is_alone(A, &[X, Y]) && !rig.table.is_alone(B, &[Y, X]));
    let recall = Recall { ino: X, keep: Keep::Shared, number: 0 };
    assert_eq!(rig.admit(B, Access::Read, X), Some(vec![(A, recall)]));
    rig.give_back(A, X, 0, Keep::Shared);
    assert!(rig.table.may_read(B, X) && rig.table.is_alone(A, &[X]));
    rig.table.made(PLAIN, Y, rig.now, &mut out);
    assert_eq!(rig.admit(B, Access::Write, Y), None, "nobody who wants none has any");
}

#[test]
fn who_does_not_give_back_in_time_is_named_and_frees_all_by_its_end() {
    let mut rig = Rig::new();
    rig.read(A, X).unwrap();
    rig.read(A, Y).unwrap();
    rig.now = at(5);
    rig.admit(B, Access::Write, X);
    let wait = rig.table.wait(B, Access::Write, &[X]);
    assert_eq!(rig.table.tick(at(1005)), []);
    assert_eq!(rig.table.view(A, at(1005)).oldest, at(1000));
    assert_eq!(rig.table.tick(at(1006)), [A]);
    let mut out = Effects::default();
    rig.table.leave(A, &mut out);
    assert_eq!((out.woken, out.recalls), (vec![wait], Vec::new()));
    assert_eq!(rig.table.tick(at(9999)), []);
    assert_eq!(rig.table.totals(), (0, 0, 0));
    // Its place is taken by another, who has none of its leases.
    rig.table.join(SessionId(7));
    assert_eq!(rig.leases(SessionId(7)), (0, 0));
    assert_eq!(rig.read(A, X), None);
}

#[test]
fn a_request_waits_for_all_that_is_in_its_way() {
    let mut rig = Rig::new();
    let (x, y) = (rig.read(A, X).unwrap(), rig.read(B, Y).unwrap());
    let mut out = Effects::default();
    assert!(!rig.table.admit(C, Access::Write, &[X, Y, X, Ino(99)], rig.now, &mut out));
    assert_eq!(out.recalls.len(), 2);
    let wait = rig.table.wait(C, Access::Write, &[X, Y, X, Ino(99)]);
    assert_eq!(rig.give_back(A, X, x.number, Keep::Nothing), [0; 0]);
    assert_eq!(rig.give_back(B, Y, y.number, Keep::Nothing), [wait]);
}

#[test]
fn grants_of_another_epoch_cannot_be_given_back() {
    let mut rig = Rig::new();
    let old = rig.read(A, X).unwrap();
    rig.table = LeaseTable::new(LeaseLimits::default(), 2);
    rig.table.join(A);
    let new = rig.read(A, X).unwrap();
    assert!(new.number > old.number + 1_000_000);
    rig.give_back(A, X, old.number, Keep::Nothing);
    assert_eq!(rig.leases(A), (0, 1));
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// A read begins, if it may.
    Look {
        who: usize,
        ino: u64,
    },
    /// The n-th read under way answers.
    Answer {
        nth: usize,
    },
    /// A waited write, if it may.
    Write {
        who: usize,
        ino: u64,
    },
    GiveBack {
        who: usize,
        ino: u64,
        keep: bool,
        stale: bool,
    },
    Made {
        who: usize,
        ino: u64,
    },
    Leave {
        who: usize,
    },
    Pass {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0..3_usize;
    let ino = 1..4_u64;
    prop_oneof![
        4 => (who.clone(), ino.clone()).prop_map(|(who, ino)| Step::Look { who, ino }),
        4 => (0..4_usize).prop_map(|nth| Step::Answer { nth }),
        3 => (who.clone(), ino.clone()).prop_map(|(who, ino)| Step::Write { who, ino }),
        5 => (who.clone(), ino.clone(), any::<bool>(), 0..8_u8)
            .prop_map(|(who, ino, keep, stale)| Step::GiveBack { who, ino, keep, stale: stale == 0 }),
        1 => (who.clone(), 4..7_u64).prop_map(|(who, ino)| Step::Made { who, ino }),
        1 => who.prop_map(|who| Step::Leave { who }),
        1 => (1..900_u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// What the clients believe, and what is true at the server: a version for each inode, which a write raises. Whoever has
/// a lease knows a version, and it must be the true one at every moment.
#[derive(Default)]
struct Model {
    leases: BTreeMap<(SessionId, Ino), (u64, bool, u64)>,
    versions: BTreeMap<Ino, u64>,
    waits: BTreeMap<WaitId, (SessionId, Access, Ino)>,
    reads: Vec<(SessionId, Ino, super::Stamp, u64)>,
    /// Written by their holder, who may not have heard the end of it.
    behind: BTreeSet<(SessionId, Ino)>,
}

impl Model {
    fn check(&self, table: &LeaseTable) {
        for ((session, ino), (number, exclusive, known)) in &self.leases {
            assert_eq!(known, self.versions.get(ino).unwrap_or(&0), "{session:?} knows old {ino:?}");
            let others = self.leases.keys().filter(|(other, of)| of == ino && other != session).count();
            assert!(!exclusive || others == 0, "{ino:?} is exclusive beside others, grant {number}");
        }
        for session in [A, B, C] {
            let own = self.leases.iter().filter(|((who, _), _)| *who == session);
            let exclusive = own.clone().filter(|(_, (_, exclusive, _))| *exclusive).count();
            let view = table.view(session, at(0));
            assert_eq!((view.shared + view.exclusive, view.exclusive), (own.count(), exclusive));
        }
        for (who, access, ino) in self.waits.values() {
            assert!(!self.free(*who, *access, *ino), "{who:?} waits to {access:?} {ino:?}, for nothing");
        }
    }

    fn free(&self, who: SessionId, access: Access, ino: Ino) -> bool {
        let mut others = self.leases.iter().filter(|((other, of), _)| *of == ino && *other != who);
        others.all(|(lease, (_, exclusive, _))| {
            access == Access::Read && !exclusive && !self.behind.contains(lease)
        })
    }

    fn woken(&mut self, out: Effects) {
        for id in out.woken {
            let (who, access, ino) = self.waits.remove(&id).expect("it waited");
            assert!(self.free(who, access, ino), "woken too early");
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one arm for each step of a history")]
fn no_history_leaves_a_lease_on_an_old_state_or_a_request_waiting_for_nothing() {
    let histories = proptest::collection::vec(steps(), 1..120);
    let mut runner = TestRunner::new(Config { cases: 400, ..Config::default() });
    let result = runner.run(&histories, |steps| {
        let mut rig = Rig::new();
        let mut model = Model::default();
        let sessions = [A, B, C];
        for step in steps {
            let mut out = Effects::default();
            match step {
                Step::Look { who, ino } => {
                    let (who, ino) = (sessions[who], Ino(ino));
                    let free = rig.table.admit(who, Access::Read, &[ino], rig.now, &mut out);
                    assert_eq!(free, model.free(who, Access::Read, ino));
                    if free {
                        // Under an exclusive lease of its own a session knows more than the server.
                        let version = *model.versions.entry(ino).or_default();
                        model.reads.push((who, ino, rig.table.begin_read(), version));
                    } else {
                        let id = rig.table.wait(who, Access::Read, &[ino]);
                        model.waits.insert(id, (who, Access::Read, ino));
                    }
                }
                Step::Answer { nth } if nth < model.reads.len() => {
                    let (who, ino, stamp, version) = model.reads.remove(nth);
                    let grant = rig.table.grant(who, ino, stamp, rig.now);
                    rig.table.end_read(stamp);
                    if let Some(Grant { mode, number, .. }) = grant {
                        model.behind.remove(&(who, ino));
                        model.leases.insert((who, ino), (number, mode == LeaseMode::Exclusive, version));
                    }
                }
                Step::Write { who, ino } => {
                    let (who, ino) = (sessions[who], Ino(ino));
                    if rig.table.admit(who, Access::Write, &[ino], rig.now, &mut out) {
                        assert!(model.free(who, Access::Write, ino));
                        rig.table.begin_write(who, &[ino]);
                        let version = model.versions.entry(ino).or_default();
                        *version += 1;
                        // Its own lease learns from the outcome.
                        if let Some((_, _, known)) = model.leases.get_mut(&(who, ino)) {
                            *known = *version;
                            model.behind.insert((who, ino));
                        }
                        rig.table.end_write(&[ino], &mut out);
                    } else {
                        assert!(!model.free(who, Access::Write, ino));
                        let id = rig.table.wait(who, Access::Write, &[ino]);
                        model.waits.insert(id, (who, Access::Write, ino));
                    }
                }
                Step::GiveBack { who, ino, keep, stale } => {
                    let (who, ino) = (sessions[who], Ino(ino));
                    let number = model.leases.get(&(who, ino)).map_or(5, |(number, ..)| *number);
                    let number = if stale { number.wrapping_sub(1) } else { number };
                    let keep = if keep { Keep::Shared } else { Keep::Nothing };
                    if let Some((_, exclusive, known)) = model.leases.get_mut(&(who, ino)).filter(|_| !stale)
                    {
                        if *exclusive {
                            // A local change, applied before.
                            let version = model.versions.entry(ino).or_default();
                            *version += 1;
                            *known = *version;
                        }
                        *exclusive = false;
                        model.behind.remove(&(who, ino));
                        if keep == Keep::Nothing {
                            model.leases.remove(&(who, ino));
                        }
                    }
                    rig.table.give_back(who, &Returned { ino, number, keep, open: false }, &mut out);
                }
                Step::Made { who, ino } => {
                    let (who, ino) = (sessions[who], Ino(ino));
                    if model.leases.keys().all(|(_, of)| *of != ino) && !model.versions.contains_key(&ino) {
                        model.versions.insert(ino, 0);
                        model.leases.insert((who, ino), (0, true, 0));
                        rig.table.made(who, ino, rig.now, &mut out);
                    }
                }
                Step::Leave { who } => {
                    let who = sessions[who];
                    rig.table.leave(who, &mut out);
                    let mut changed = BTreeSet::new();
                    model.leases.retain(|(session, ino), (_, exclusive, _)| {
                        if *session == who && *exclusive {
                            changed.insert(*ino);
                        }
                        *session != who
                    });
                    model.behind.retain(|(session, _)| *session != who);
                    for ino in changed {
                        *model.versions.entry(ino).or_default() += 1;
                    }
                    model.woken(std::mem::take(&mut out));
                    let gone: Vec<WaitId> =
                        model.waits.iter().filter(|(_, wait)| wait.0 == who).map(|(id, _)| *id).collect();
                    for id in gone {
                        rig.table.forget(id);
                        model.waits.remove(&id);
                    }
                    model.reads.retain(|(session, _, stamp, _)| {
                        if *session == who {
                            rig.table.end_read(*stamp);
                        }
                        *session != who
                    });
                    rig.table.join(who);
                }
                Step::Pass { ms } => rig.now += at(ms),
                Step::Answer { .. } => {}
            }
            model.woken(out);
            model.check(&rig.table);
        }
        Ok(())
    });
    result.unwrap();
}
