//! Leases over the wire: who is granted what, who waits for whom, and that nobody waits for ever.

use super::{Client, LEASE_MS, PATIENCE, Rig, Said, Wire, hello, lookup, make};
use crate::base::{Attr, Caller, Errno, Ino, Name, SessionId, Time};
use crate::wire::{
    Done, Frame, FrameKind, Grant, Keep, LeaseMode, MakeFlags, Mutation, Notice, Origin, Outcome, Peer,
    Query, Recall, Returned, SetAttr, Ticket, Told, answer, mutation, notice, outcome, query,
};
use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).unwrap()
}

/// The client of a session that wants leases, and what it was granted and told beside its answers.
struct Leased {
    client: Client,
    grants: Vec<Grant>,
    notices: Vec<(Notice, u64)>,
    /// Frames of the other kind: what waited comes when it can.
    other: VecDeque<Frame>,
}

impl Leased {
    fn new(rig: &Rig, session: u128) -> Self {
        Self::connect(rig, session, false)
    }

    fn connect(rig: &Rig, session: u128, resumed: bool) -> Self {
        let hello = crate::wire::hello::Hello { leases: true, ..hello(session, resumed) };
        let (wire, welcome) = Wire::hello(&rig.socket(), &hello).unwrap();
        let client = Client { wire, welcome, session: SessionId(session), sequence: 1000 };
        Self { client, grants: Vec::new(), notices: Vec::new(), other: VecDeque::new() }
    }

    /// The next frame of a kind; what is said before is kept.
    fn receive(&mut self, kind: FrameKind) -> Frame {
        if let Some(at) = self.other.iter().position(|frame| frame.header.kind == kind) {
            return self.other.remove(at).unwrap();
        }
        loop {
            let frame = self.client.wire.receive().expect("closed");
            if frame.header.kind == kind {
                return frame;
            }
            if frame.header.kind != FrameKind::Notice {
                self.other.push_back(frame);
                continue;
            }
            assert_eq!(frame.header.sequence, 0);
            let durable = frame.header.durable();
            self.notices.extend(notice::decode(&frame.body).map(|notice| (notice.unwrap(), durable)));
        }
    }

    /// The next answer: its sequence and what it says.
    fn answer(&mut self) -> (u64, Result<Said, Errno>) {
        let frame = self.receive(FrameKind::Answer);
        let (said, grants) = answer::decode(&frame.body, &frame.payload).unwrap();
        self.grants = grants.iter().collect();
        (frame.header.sequence, said.map(Said::of))
    }

    fn call(&mut self, asked: &Query<'_>) -> Result<Said, Errno> {
        let sequence = self.client.ask(asked);
        let (answered, said) = self.answer();
        assert_eq!(answered, sequence, "{asked:?}");
        said
    }

    fn attr(&mut self, asked: &Query<'_>) -> Attr {
        match self.call(asked) {
            Ok(Said::Attr(attr)) => attr,
            other => panic!("{asked:?}: {other:?}"),
        }
    }

    /// The lease of an inode that came with the last answer.
    fn grant(&self, ino: Ino) -> Option<Grant> {
        self.grants.iter().copied().find(|grant| grant.ino == ino)
    }

    /// The next recall.
    fn recall(&mut self) -> Recall {
        loop {
            for (notice, _) in self.notices.drain(..) {
                if let Notice::Recall(recall) = notice {
                    return recall;
                }
            }
            let frame = self.client.wire.receive().expect("closed");
            assert_eq!(frame.header.kind, FrameKind::Notice, "an answer nobody asked for");
            self.notices.extend(notice::decode(&frame.body).map(|notice| (notice.unwrap(), 0)));
        }
    }

    fn give_back(&mut self, recall: Recall) {
        self.give(Returned { ino: recall.ino, number: recall.number, keep: recall.keep, open: false });
    }

    fn give(&mut self, returned: Returned) {
        assert_eq!(self.call(&Query::Return { returned: vec![returned] }), Ok(Said::Empty));
    }

    /// Inode numbers of its own.
    fn numbers(&mut self) -> (Ino, u32) {
        match self.call(&Query::Numbers { count: 1 }) {
            Ok(Said::Numbers(first, count)) => (first, count),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, at: Option<Time>, ticket: u64, asked: &[Mutation<'_>]) {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        for (ticket, asked) in (ticket..).zip(asked) {
            let origin = Origin { ticket: Ticket(ticket), caller: Caller::ROOT, at };
            mutation::encode(&mut body, &mut payload, origin, asked);
        }
        let frame = self.client.frame(FrameKind::Batch, body, payload);
        self.client.wire.send(&frame);
    }

    /// What became of a batch: the commit, and the outcomes of those that failed or were waited for.
    fn outcomes(&mut self) -> (u64, Vec<Result<Done, Errno>>) {
        let frame = self.receive(FrameKind::Outcomes);
        let outcomes = outcome::decode(&frame.body).unwrap();
        let commit = outcomes.commit();
        let told = outcomes.filter_map(|told| match told.unwrap() {
            Told::One(Outcome { result, .. }) => Some(result),
            Told::Ran { .. } => None,
        });
        (commit, told.collect())
    }

    /// Mutations that this client has completed; which of them failed.
    fn local(&mut self, ticket: u64, asked: &[Mutation<'_>]) -> Vec<Result<Done, Errno>> {
        self.send(Some(Time { secs: 7, nanos: 0 }), ticket, asked);
        self.outcomes().1
    }

    /// One that is waited for.
    fn waited(&mut self, ticket: u64, asked: &Mutation<'_>) -> Result<Done, Errno> {
        self.send(None, ticket, std::slice::from_ref(asked));
        self.outcomes().1[0]
    }

    fn made(&mut self, ticket: u64, text: &str) -> Ino {
        self.waited(ticket, &make(text)).unwrap().attr.unwrap().ino
    }
}

fn chmod(ino: Ino, mode: u32) -> Mutation<'static> {
    Mutation::SetAttr { ino, set: SetAttr { mode: Some(mode), ..SetAttr::default() } }
}

fn unlink(text: &str) -> Mutation<'_> {
    Mutation::Unlink { parent: Ino::ROOT, name: name(text), ino: None, hold: false }
}

fn parked(rig: &Rig, count: u64) {
    rig.wait_for("as many requests wait", |status| status["parked"] == count);
}

#[test]
fn answers_grant_to_those_who_ask_for_leases_and_to_nobody_else() {
    let rig = Rig::new();
    let mut a = Leased::new(&rig, 1);
    let ino = a.made(1, "f");
    let mut without = rig.client(2);
    without.ask(&lookup("f"));
    let frame = without.wire.receive().unwrap();
    assert!(answer::decode(&frame.body, &[]).unwrap().1.is_empty());
    assert_eq!(a.call(&lookup("absent")), Err(Errno::ENOENT));
    let root = a.grant(Ino::ROOT).expect("the directory, whose names are known to be without it");
    assert_eq!((root.mode, root.plain, a.grants.len()), (LeaseMode::Exclusive, true, 1));
    a.attr(&lookup("f"));
    assert_eq!(a.grants.iter().map(|grant| grant.ino).collect::<Vec<_>>(), [ino], "the directory it has");
    // The same session's connection for data grants nothing.
    let other = a.made(2, "other");
    let mut data = rig.client(1);
    data.ask(&Query::GetAttr { ino: other });
    let frame = data.wire.receive().unwrap();
    assert!(answer::decode(&frame.body, &[]).unwrap().1.is_empty());
    let set = Mutation::SetXattr { ino: other, name: b"user.x", value: b"v", flags: 0, kill_sgid: false };
    assert!(a.waited(3, &set).is_ok());
    a.attr(&Query::Hold { ino: other });
    assert_eq!(a.grant(other).map(|grant| (grant.mode, grant.plain)), Some((LeaseMode::Exclusive, false)));
    let session = &rig.status()["sessions"][0];
    assert_eq!((&session["leases_exclusive"], &session["leases_shared"]), (&3.into(), &0.into()));
}

#[test]
fn a_read_waits_for_the_local_changes_of_another_and_holds_up_nothing_behind_it() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = a.made(1, "f");
    a.attr(&Query::GetAttr { ino });
    let grant = a.grant(ino).unwrap();
    let asked = b.client.ask(&Query::GetAttr { ino });
    assert_eq!(b.call(&Query::Ping), Ok(Said::Empty), "what waits is outside of the order");
    let recall = a.recall();
    assert_eq!(recall, Recall { ino, keep: Keep::Shared, number: grant.number });
    assert_eq!(a.local(2, &[chmod(ino, 0o600)]), [], "it had completed that before");
    a.give_back(recall);
    let (sequence, said) = b.answer();
    let Ok(Said::Attr(attr)) = said else { panic!("{said:?}") };
    assert_eq!((sequence, attr.mode & 0o777, attr.ctime.secs), (asked, 0o600, 7));
    assert_eq!(b.grant(ino).map(|grant| grant.mode), Some(LeaseMode::Shared));
    // With two readers neither may change it locally.
    assert_eq!(a.local(3, &[chmod(ino, 0o644)]), [Err(Errno::EAGAIN)]);
    // A change that is waited for takes it from both, but for its own.
    b.send(None, 1, &[chmod(ino, 0o640)]);
    let recall = a.recall();
    assert_eq!((recall.ino, recall.keep), (ino, Keep::Nothing));
    a.give_back(recall);
    assert!(b.outcomes().1[0].is_ok());
    assert_eq!(rig.status()["parked"], 0);
}

#[test]
fn a_lookup_waits_for_the_directory_and_then_for_what_it_finds() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = a.made(1, "f");
    a.attr(&lookup("f"));
    assert_eq!(a.grants.len(), 2);
    let asked = b.client.ask(&lookup("f"));
    let first = a.recall();
    assert_eq!((first.ino, first.keep), (Ino::ROOT, Keep::Shared));
    a.give_back(first);
    let second = a.recall();
    assert_eq!((second.ino, second.keep), (ino, Keep::Shared));
    assert_eq!(a.local(2, &[chmod(ino, 0o611)]), []);
    a.give_back(second);
    let (sequence, said) = b.answer();
    let Ok(Said::Attr(attr)) = said else { panic!("{said:?}") };
    assert_eq!((sequence, attr.mode & 0o777), (asked, 0o611));
}

#[test]
fn a_listing_leaves_out_the_attributes_that_are_anothers_and_recalls_no_children() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let (own, free) = (a.made(1, "own"), a.made(2, "free"));
    a.attr(&Query::GetAttr { ino: own });
    let list = Query::ReadDir { ino: Ino::ROOT, cookie: 0, bytes_max: 65536, plus: true };
    b.client.ask(&list);
    let frame = b.receive(FrameKind::Answer);
    let (said, grants) = answer::decode(&frame.body, &[]).unwrap();
    let Ok(answer::Answer::Entries { entries, end: true }) = said else { panic!("{said:?}") };
    let bare: Vec<_> = entries.iter().map(|entry| (entry.ino, entry.attr.is_some())).collect();
    assert!(bare.contains(&(own, false)) && bare.contains(&(free, true)), "{bare:?}");
    let mut granted: Vec<_> = grants.iter().map(|grant| grant.ino).collect();
    granted.sort_unstable();
    assert_eq!(granted, [Ino::ROOT, free]);
    assert_eq!(rig.status()["sessions"][0]["recalls"], 0);
}

#[test]
fn two_renames_that_each_need_what_the_other_session_has_both_happen() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let dir = |text| Mutation::Make {
        parent: Ino::ROOT,
        name: name(text),
        mode: libc::S_IFDIR | 0o755,
        umask: 0,
        rdev: 0,
        target: b"",
        flags: MakeFlags { hold: false, exclusive: true },
        ino: None,
    };
    let d1 = a.waited(1, &dir("d1")).unwrap().attr.unwrap().ino;
    let d2 = a.waited(2, &dir("d2")).unwrap().attr.unwrap().ino;
    for (parent, text, ticket) in [(d1, "x", 3), (d2, "y", 4)] {
        let Mutation::Make { mode, umask, rdev, target, flags, ino, .. } = make("any") else {
            unreachable!()
        };
        let make = Mutation::Make { parent, name: name(text), mode, umask, rdev, target, flags, ino };
        a.waited(ticket, &make).unwrap();
    }
    a.attr(&Query::GetAttr { ino: d1 });
    b.attr(&Query::GetAttr { ino: d2 });
    let rename = |parent, text, new_parent| Mutation::Rename {
        parent,
        name: name(text),
        new_parent,
        new_name: name(text),
        flags: 0,
        ino: None,
        replaced: crate::wire::Expect::Any,
        hold: false,
    };
    a.send(None, 5, &[rename(d1, "x", d2)]);
    b.send(None, 1, &[rename(d2, "y", d1)]);
    parked(&rig, 2);
    let (from_a, from_b) = (a.recall(), b.recall());
    assert_eq!((from_a.ino, from_b.ino), (d1, d2));
    a.give_back(from_a);
    b.give_back(from_b);
    assert!(a.outcomes().1[0].is_ok() && b.outcomes().1[0].is_ok());
    assert!(b.call(&Query::Lookup { parent: d2, name: name("x") }).is_ok());
    assert!(b.call(&Query::Lookup { parent: d1, name: name("y") }).is_ok());
}

#[test]
fn what_a_session_makes_with_its_own_numbers_is_leased_to_it_from_birth() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let (first, count) = a.numbers();
    assert!(count >= 1024);
    let (second, _) = b.numbers();
    assert!(second.0 >= first.0 + u64::from(count), "nobody else gets them");
    let local = |text, ino| {
        let Mutation::Make { parent, mode, umask, rdev, target, flags, .. } = make("any") else {
            unreachable!()
        };
        Mutation::Make { parent, name: name(text), mode, umask, rdev, target, flags, ino: Some(ino) }
    };
    let last = Ino(first.0 + u64::from(count) - 1);
    assert_eq!(a.local(1, &[local("one", first), local("two", last)]), []);
    assert_eq!(a.local(3, &[local("stolen", second)]), [Err(Errno::EINVAL)]);
    assert_eq!(a.local(4, &[local("past", Ino(last.0 + 1))]), [Err(Errno::EINVAL)]);
    b.client.ask(&lookup("one"));
    let recall = a.recall();
    assert_eq!(recall, Recall { ino: first, keep: Keep::Shared, number: 0 });
    a.give_back(recall);
    assert_eq!(b.answer().1.map(|said| matches!(said, Said::Attr(_))), Ok(true));
    // Also the next server knows whose they are.
    rig.restart();
    let mut a = Leased::connect(&rig, 1, true);
    a.send(Some(Time::default()), 5, &[local("three", Ino(first.0 + 1)), local("four", second)]);
    let last = Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true };
    assert_eq!(a.call(&last), Ok(Said::Empty));
    assert_eq!(Leased::connect(&rig, 2, true).call(&last), Ok(Said::Empty));
    assert_eq!(a.outcomes().1, [Err(Errno::EINVAL)]);
}

#[test]
fn who_gives_back_what_he_has_open_holds_it_from_then_on() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = b.made(1, "f");
    assert_eq!(b.call(&Query::Drop { inos: vec![ino] }), Ok(Said::Empty));
    a.attr(&Query::GetAttr { ino });
    b.send(None, 2, &[unlink("f")]);
    let recall = a.recall();
    a.give(Returned { ino, number: recall.number, keep: Keep::Nothing, open: true });
    assert!(b.outcomes().1[0].is_ok());
    assert_eq!(a.attr(&Query::GetAttr { ino }).nlink, 0);
    assert_eq!(a.call(&Query::Drop { inos: vec![ino] }), Ok(Said::Empty));
    let until = std::time::Instant::now() + PATIENCE;
    while a.call(&Query::GetAttr { ino }) != Err(Errno::ESTALE) {
        assert!(std::time::Instant::now() < until, "nobody holds it any more");
    }
}

#[test]
fn who_does_not_give_back_in_time_is_ended() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = b.made(1, "f");
    a.attr(&Query::GetAttr { ino });
    b.client.ask(&Query::GetAttr { ino });
    parked(&rig, 1);
    let view = rig.status()["sessions"][0].clone();
    assert_eq!((&view["recalls"], &view["recalls_outstanding"]), (&1.into(), &1.into()));
    rig.pass(LEASE_MS * 6 / 10);
    assert_eq!((a.call(&Query::Ping), b.call(&Query::Ping)), (Ok(Said::Empty), Ok(Said::Empty)));
    rig.pass(LEASE_MS * 6 / 10);
    assert!(matches!(b.answer().1, Ok(Said::Attr(_))));
    assert_eq!(b.grant(ino).map(|grant| grant.mode), Some(LeaseMode::Exclusive));
    assert!(!Leased::connect(&rig, 1, true).client.welcome.session_known, "though it was not silent");
    assert_eq!(rig.status()["session_count"], 1);
}

#[test]
fn a_recall_is_said_again_to_who_was_away() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = b.made(1, "f");
    a.attr(&Query::GetAttr { ino });
    let number = a.grant(ino).unwrap().number;
    drop(a);
    rig.wait_for("a is away", |status| status["sessions"][0]["connections"] == 0);
    b.client.ask(&Query::GetAttr { ino });
    parked(&rig, 1);
    let mut a = Leased::connect(&rig, 1, true);
    assert_eq!(a.recall(), Recall { ino, keep: Keep::Shared, number });
    // Also behind what it says that it holds: before, a client may not listen yet.
    let last = Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true };
    assert_eq!(a.call(&last), Ok(Said::Empty));
    let recall = a.recall();
    assert_eq!(recall, Recall { ino, keep: Keep::Shared, number });
    a.give_back(recall);
    assert!(matches!(b.answer().1, Ok(Said::Attr(_))));
}

#[test]
fn an_operator_ends_a_session_and_those_who_wait_for_it_go_on() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = b.made(1, "f");
    a.attr(&Query::GetAttr { ino });
    b.client.ask(&Query::GetAttr { ino });
    parked(&rig, 1);
    assert_eq!(a.call(&Query::Evict { session: SessionId(2) }), Err(Errno::EPERM), "no client may");
    let watching = crate::wire::hello::Hello { observer: true, session: Vec::new(), ..hello(0, false) };
    let (wire, welcome) = Wire::hello(&rig.socket(), &watching).unwrap();
    assert!(welcome.name_key.is_empty());
    let mut observer = Client { wire, welcome, session: SessionId(0), sequence: 0 };
    assert_eq!(observer.call(&Query::Evict { session: SessionId(77) }), Err(Errno::ENOENT));
    assert_eq!(observer.call(&Query::Evict { session: SessionId(1) }), Ok(Said::Empty));
    assert!(matches!(b.answer().1, Ok(Said::Attr(_))));
}

#[test]
fn a_change_that_waits_and_is_sent_again_on_a_new_connection_happens_once() {
    let rig = Rig::new();
    let (mut a, mut b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = a.made(1, "f");
    a.attr(&Query::GetAttr { ino });
    let append = Mutation::Write {
        ino,
        offset: 0,
        flags: crate::wire::WriteFlags { append: true, kill_suidgid: false },
        data: b"once",
    };
    b.send(None, 1, &[append]);
    let recall = a.recall();
    parked(&rig, 1);
    let mut back = Leased::connect(&rig, 2, true);
    back.send(None, 1, &[append]);
    rig.wait_for("the copy of the lost connection is gone", |status| status["parked"] == 1);
    a.give_back(recall);
    assert_eq!(back.outcomes().1[0].unwrap().attr.unwrap().size, 4);
    assert_eq!(back.attr(&Query::GetAttr { ino }).size, 4);
}

#[test]
fn after_a_restart_only_what_was_accepted_before_is_taken_until_all_are_back() {
    let mut rig = Rig::new();
    let (mut a, b) = (Leased::new(&rig, 1), Leased::new(&rig, 2));
    let ino = a.made(1, "f");
    a.attr(&Query::GetAttr { ino });
    drop((a, b));
    rig.restart();
    let mut new = Leased::new(&rig, 3);
    assert!(new.client.welcome.grace_ms > 0);
    new.client.ask(&Query::GetAttr { ino });
    parked(&rig, 1);
    let mut a = Leased::connect(&rig, 1, true);
    assert_eq!(a.made(1, "f"), ino, "what was done is answered from the record");
    a.send(Some(Time::default()), 2, &[chmod(ino, 0o600)]);
    a.send(None, 3, &[make("replayed")]);
    a.client.ask(&Query::GetAttr { ino: Ino::ROOT });
    parked(&rig, 4);
    let last = Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true };
    assert_eq!(a.call(&last), Ok(Said::Empty));
    // It has replayed: from now on it is one of those who wait.
    a.send(None, 4, &[make("late")]);
    parked(&rig, 5);
    assert_eq!((new.call(&Query::Ping), a.call(&Query::Ping)), (Ok(Said::Empty), Ok(Said::Empty)));
    let mut b = Leased::connect(&rig, 2, true);
    assert_eq!(b.call(&last), Ok(Said::Empty));
    // What is done again is done before anybody is answered.
    assert_eq!(a.outcomes().1, []);
    assert!(a.outcomes().1[0].is_ok());
    let (_, said) = new.answer();
    let Ok(Said::Attr(attr)) = said else { panic!("{said:?}") };
    assert_eq!(attr.mode & 0o777, 0o600);
    assert!(matches!(a.answer().1, Ok(Said::Attr(_))));
    assert!(a.outcomes().1[0].is_ok());
    assert_eq!(rig.status()["parked"], 0);
}

#[test]
fn what_is_durable_is_told_unasked_to_those_who_wait_for_it() {
    let rig = Rig::new();
    let mut a = Leased::new(&rig, 1);
    a.attr(&Query::GetAttr { ino: Ino::ROOT });
    a.send(Some(Time::default()), 1, &[chmod(Ino::ROOT, 0o700)]);
    let (commit, failed) = a.outcomes();
    assert_eq!(failed, []);
    let durable = loop {
        if let Some((_, durable)) = a.notices.iter().find(|(notice, _)| *notice == Notice::Durable) {
            break *durable;
        }
        let frame = a.client.wire.receive().expect("closed");
        assert_eq!(frame.header.kind, FrameKind::Notice);
        let durable = frame.header.durable();
        a.notices.extend(notice::decode(&frame.body).map(|notice| (notice.unwrap(), durable)));
    };
    assert!(durable >= commit, "{durable} is told, {commit} is waited for");
    a.client.ask(&Query::Ping);
    assert!(a.receive(FrameKind::Answer).header.durable() >= commit, "each frame says it");
}

#[test]
fn the_mount_of_the_same_process_takes_notices_and_gives_back_like_the_others() {
    let rig = Rig::new();
    let mut b = Leased::new(&rig, 2);
    let ino = b.made(1, "f");
    let (tell, told) = mpsc::channel();
    let hello = crate::wire::hello::Hello { leases: true, ..hello(50, false) };
    let (peer, _) = rig.server().local(&hello, Arc::new(move |frame| drop(tell.send(frame)))).unwrap();
    let peer = Arc::new(peer);
    let sequence = std::cell::Cell::new(0);
    let ask = |asked: &Query<'_>| {
        let mut body = Vec::new();
        query::encode(&mut body, asked);
        let (reply, answers) = mpsc::channel();
        sequence.set(sequence.get() + 1);
        let version = crate::wire::version::NEWEST;
        let frame =
            Frame::new(FrameKind::Call, version, SessionId(50), sequence.get(), body, bytes::Bytes::new());
        peer.submit(frame, Box::new(move |frame| drop(reply.send(frame))));
        answers.recv_timeout(PATIENCE).unwrap()
    };
    let frame = ask(&Query::GetAttr { ino });
    let grant = answer::decode(&frame.body, &[]).unwrap().1.iter().next().unwrap();
    assert_eq!((grant.ino, grant.mode), (ino, LeaseMode::Exclusive));
    b.client.ask(&Query::GetAttr { ino });
    let frame = told.recv_timeout(PATIENCE).unwrap();
    let recall = Recall { ino, keep: Keep::Shared, number: grant.number };
    assert_eq!(notice::decode(&frame.body).collect::<Vec<_>>(), [Ok(Notice::Recall(recall))]);
    let returned = vec![Returned { ino, number: grant.number, keep: Keep::Shared, open: false }];
    ask(&Query::Return { returned });
    assert!(matches!(b.answer().1, Ok(Said::Attr(_))));
}
