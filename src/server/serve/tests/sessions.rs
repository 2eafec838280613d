//! Sessions over real sockets: locks between them, loss of connections, expiry, restarts.

use super::{LEASE_MS, PATIENCE, Rig, Said, exclusive, hello, lookup, record, unlock};
use crate::base::{Errno, Ino, Name, SessionId, Time};
use crate::server::apply::{Volume, VolumeOptions};
use crate::server::serve::{ServeOptions, Server};
use crate::server::session::About;
use crate::server::store::Store;
use crate::wire::{
    Frame, FrameKind, LockKind, LockOwner, LockRequest, Mutation, Peer, Query, query, version,
};
use bytes::Bytes;
use std::sync::{Arc, mpsc};

#[test]
fn locks_of_two_sessions_exclude_each_other_and_are_served_in_order() {
    let rig = Rig::new();
    let (mut a, mut b, mut c) = (rig.client(1), rig.client(2), rig.client(3));
    assert_eq!(a.lock_now(9, exclusive()), Ok(Said::Empty));
    assert_eq!(b.lock_now(9, exclusive()), Err(Errno::EAGAIN));
    let Ok(Said::Lock(in_way)) = b.call(&Query::GetLock { ino: Ino(9), lock: exclusive() }) else { panic!() };
    assert_eq!((in_way.kind, in_way.pid), (LockKind::Write, 0), "a pid of another mount means nothing");
    let first = b.lock(9, exclusive(), true);
    rig.wait_for("b waits", |status| status["lock_waiters"] == 1);
    let second = c.lock(9, exclusive(), true);
    rig.wait_for("c waits", |status| status["lock_waiters"] == 2);
    assert_eq!(a.lock_now(9, unlock()), Ok(Said::Empty));
    assert_eq!(b.answer(), Some((first, Ok(Said::Empty))));
    assert!(b.is_open());
    assert_eq!(b.lock_now(9, unlock()), Ok(Said::Empty));
    assert_eq!(c.answer(), Some((second, Ok(Said::Empty))));
}

#[test]
fn a_circle_over_two_sessions_is_refused_and_a_wait_can_be_given_up() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    assert_eq!(a.lock_now(9, record(LockKind::Write, 0, 0)), Ok(Said::Empty));
    assert_eq!(b.lock_now(9, record(LockKind::Write, 1, 1)), Ok(Said::Empty));
    let waiting = a.lock(9, record(LockKind::Write, 1, 1), true);
    rig.wait_for("a waits", |status| status["lock_waiters"] == 1);
    let closing = b.call(&Query::SetLock { ino: Ino(9), lock: record(LockKind::Read, 0, 0), wait: true });
    assert_eq!(closing, Err(Errno::EDEADLK));
    let cancel = a.ask(&Query::CancelLock { sequence: waiting });
    assert_eq!(a.answer(), Some((waiting, Err(Errno::EINTR))));
    assert_eq!(a.answer(), Some((cancel, Ok(Said::Empty))));
}

#[test]
fn locks_end_with_their_owner_their_handle_and_their_session() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let flock = LockRequest { owner: LockOwner::Flock(5), handle: 3, ..exclusive() };
    assert_eq!(a.lock_now(9, exclusive()), Ok(Said::Empty));
    assert_eq!(a.lock_now(9, flock), Ok(Said::Empty), "records and flocks do not see each other");
    assert_eq!(b.lock_now(9, flock), Err(Errno::EAGAIN));
    assert_eq!(a.call(&Query::UnlockHandle { ino: Ino(9), handle: 3 }), Ok(Said::Empty));
    assert_eq!(b.lock_now(9, flock), Ok(Said::Empty));
    assert_eq!(b.lock_now(9, exclusive()), Err(Errno::EAGAIN));
    assert_eq!(a.call(&Query::UnlockOwner { ino: Ino(9), owner: 1 }), Ok(Said::Empty));
    assert_eq!(b.lock_now(9, exclusive()), Ok(Said::Empty));
    let waiting = a.lock(9, exclusive(), true);
    rig.wait_for("a waits", |status| status["lock_waiters"] == 1);
    let bye = b.frame(FrameKind::Bye, Vec::new(), Vec::new());
    b.wire.send(&bye);
    assert_eq!(a.answer(), Some((waiting, Ok(Said::Empty))), "a goodbye ends the locks at once");
    assert_eq!(b.wire.receive(), None);
    rig.wait_for("b is gone", |status| status["session_count"] == 1);
}

#[test]
fn a_lost_connection_keeps_its_locks_for_the_lease_and_then_gives_them_up() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    assert_eq!(a.lock_now(9, exclusive()), Ok(Said::Empty));
    assert!(a.make(1, "made").0.is_ok());
    drop(a);
    rig.wait_for("a is lost", |status| status["sessions"][0]["phase"] == "lost");
    rig.pass(LEASE_MS - 1);
    assert!(b.is_open());
    assert_eq!(b.lock_now(9, exclusive()), Err(Errno::EAGAIN));
    let waiting = b.lock(9, exclusive(), true);
    rig.wait_for("b waits", |status| status["lock_waiters"] == 1);
    rig.pass(2);
    assert_eq!(b.answer(), Some((waiting, Ok(Said::Empty))));
    // It comes back too late: it is told so, and nothing of it is worked on.
    let mut late = rig.resume(1);
    assert!(!late.welcome.session_known);
    assert_eq!(late.make(2, "late").0, Err(Errno::ESTALE));
    assert_eq!(late.call(&Query::Ping), Err(Errno::ESTALE));
    assert_eq!(late.lock_now(10, exclusive()), Err(Errno::ESTALE));
    assert_eq!(b.call(&lookup("late")), Err(Errno::ENOENT));
    assert!(b.call(&lookup("made")).is_ok());
    let as_new = super::Wire::hello(&rig.socket(), &hello(1, false)).err().unwrap();
    assert!(as_new.reason.contains("expired"), "{}", as_new.reason);
}

#[test]
fn a_silent_connection_expires_and_is_closed_and_one_that_pings_is_not() {
    let rig = Rig::new();
    let (mut silent, mut lively) = (rig.client(1), rig.client(2));
    for _ in 0..4 {
        rig.pass(LEASE_MS / 3);
        assert!(lively.is_open());
    }
    assert_eq!(silent.wire.receive(), None);
    assert!(!rig.resume(1).welcome.session_known);
}

#[test]
fn a_replayed_batch_is_answered_and_not_repeated() {
    let mut rig = Rig::new();
    let mut a = rig.client(1);
    let (done, first) = a.make(1, "once");
    assert!(done.is_ok());
    drop(a);
    let mut again = rig.resume(1);
    assert!(again.welcome.session_known);
    assert_eq!(again.make(1, "once").1, first, "the same bytes as before");
    rig.restart();
    let mut after = rig.resume(1);
    let commit_bytes = 16;
    assert_eq!(after.make(1, "once").1[commit_bytes..], first[commit_bytes..], "also from the store");
    assert_eq!(
        after.call(&Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true }),
        Ok(Said::Empty)
    );
    assert_eq!(after.make(2, "once").0, Err(Errno::EEXIST), "a new ticket is a new mutation");
    // Another session's tickets are its own.
    assert_eq!(rig.client(2).make(1, "once").0, Err(Errno::EEXIST));
}

#[test]
fn a_waiting_request_sent_again_on_a_new_connection_is_answered_there_once() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    assert_eq!(a.lock_now(9, exclusive()), Ok(Said::Empty));
    let first = b.lock(9, exclusive(), true);
    rig.wait_for("b waits", |status| status["lock_waiters"] == 1);
    let mut back = rig.resume(2);
    assert_eq!(b.wire.receive(), None, "the former connection is closed");
    back.sequence = b.sequence - 1;
    assert_eq!(back.lock(9, exclusive(), true), first);
    assert!(a.is_open());
    assert_eq!(rig.status()["lock_waiters"], 1);
    assert_eq!(a.lock_now(9, unlock()), Ok(Said::Empty));
    assert_eq!(back.answer(), Some((first, Ok(Said::Empty))));
    assert!(back.is_open());
}

#[test]
fn a_second_connection_beside_the_first_leaves_it_alone() {
    let rig = Rig::new();
    let (mut metadata, mut data) = (rig.client(1), rig.client(1));
    assert!(metadata.is_open() && data.is_open());
    drop(data);
    rig.pass(1);
    assert!(metadata.is_open());
    assert_eq!(rig.status()["sessions"][0]["phase"], "live");
}

#[test]
fn after_a_restart_new_locks_wait_until_everybody_has_said_what_he_holds() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    assert_eq!(a.lock_now(9, exclusive()), Ok(Said::Empty));
    assert!(b.is_open());
    rig.restart();
    assert_eq!(rig.status()["grace"]["missing"], 2);
    // B is quicker, and asks for what A holds: one wants to wait, the other does not.
    let mut b = rig.resume(2);
    let last = Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true };
    assert_eq!(b.call(&last), Ok(Said::Empty));
    let patient = b.lock(9, exclusive(), true);
    let hasty = b.lock(9, record(LockKind::Read, 0, 0), false);
    rig.wait_for("both wait", |status| status["lock_waiters"] == 2);
    let mut a = rig.resume(1);
    let held = Query::Reassert { holds: Vec::new(), locks: vec![(Ino(9), exclusive())], last: false };
    assert_eq!(a.call(&held), Ok(Said::Empty));
    assert_eq!(rig.status()["grace"]["missing"], 1);
    assert_eq!(a.call(&last), Ok(Said::Empty));
    assert!(rig.status()["grace"].is_null(), "it ends when all are back");
    assert_eq!(b.answer(), Some((hasty, Err(Errno::EAGAIN))));
    assert_eq!(a.lock_now(9, unlock()), Ok(Said::Empty));
    assert_eq!(b.answer(), Some((patient, Ok(Said::Empty))));
    // Too late to claim what another got.
    assert_eq!(a.call(&held), Err(Errno::ESTALE));
}

#[test]
fn a_file_without_a_name_lives_until_its_maker_has_asked_again_what_became_of_it() {
    let mut rig = Rig::new();
    let nameless = Mutation::Tmpfile { parent: Ino::ROOT, mode: 0o600, umask: 0 };
    let told = rig.client(1).mutate(1, &nameless).0.unwrap();
    let ino = told.attr.unwrap().ino;
    // The answer did not reach it, so it does not know what it holds; and it is the last that all wait for.
    rig.restart();
    let mut a = rig.resume(1);
    let last = Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true };
    assert_eq!(a.call(&last), Ok(Said::Empty));
    assert!(rig.status()["grace"].is_null());
    rig.server().core.volume.wait_reaped();
    assert_eq!(a.mutate(1, &nameless).0, Ok(told));
    rig.pass(LEASE_MS);
    rig.server().core.volume.wait_reaped();
    assert!(a.call(&Query::GetAttr { ino }).is_ok());
}

#[test]
fn who_does_not_come_back_in_time_loses_what_he_had() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let kept = a.make(1, "kept").0.unwrap().attr.unwrap().ino;
    let lost = b.make(1, "lost").0.unwrap().attr.unwrap().ino;
    for (client, name) in [(&mut a, &b"kept"[..]), (&mut b, b"lost")] {
        let gone =
            Mutation::Unlink { parent: Ino::ROOT, name: Name::parse(name).unwrap(), ino: None, hold: true };
        assert!(client.mutate(2, &gone).0.is_ok());
    }
    assert_eq!(b.lock_now(9, exclusive()), Ok(Said::Empty));
    rig.restart();
    let mut a = rig.resume(1);
    let held = Query::Reassert { holds: vec![kept], locks: Vec::new(), last: true };
    assert_eq!(a.call(&held), Ok(Said::Empty));
    assert_eq!(rig.status()["usage"]["inodes"], 3, "kept for its holder until grace is over");
    let waiting = a.lock(9, exclusive(), true);
    rig.wait_for("a waits", |status| status["lock_waiters"] == 1);
    rig.pass(LEASE_MS - 1);
    assert!(a.is_open());
    assert_eq!(rig.status()["lock_waiters"], 1);
    rig.pass(1);
    assert_eq!(a.answer(), Some((waiting, Ok(Said::Empty))));
    assert!(a.call(&Query::GetAttr { ino: kept }).is_ok());
    rig.pass(LEASE_MS);
    let until = std::time::Instant::now() + PATIENCE;
    while a.call(&Query::GetAttr { ino: lost }) != Err(Errno::ESTALE) {
        assert!(std::time::Instant::now() < until, "the orphan lives on");
    }
    assert!(!rig.resume(2).welcome.session_known);
    // What is gone is gone, or will come with what is sent again: no reason to end a session.
    let gone = Query::Reassert { holds: vec![lost], locks: Vec::new(), last: true };
    assert_eq!(a.call(&gone), Ok(Said::Empty));
    assert_eq!(a.call(&Query::GetAttr { ino: lost }), Err(Errno::ESTALE));
}

#[test]
fn a_clean_shutdown_answers_what_is_in_hand_and_keeps_the_sessions() {
    let mut rig = Rig::new();
    let mut a = rig.client(1);
    assert!(a.make(1, "x").0.is_ok());
    let sync = a.ask(&Query::Sync { ino: None, data_only: false });
    assert_eq!(a.answer(), Some((sync, Ok(Said::Empty))));
    rig.server().shutdown().unwrap();
    rig.server().shutdown().unwrap();
    assert_eq!(a.wire.receive(), None);
    rig.restart();
    assert!(rig.resume(1).welcome.session_known);
}

fn local_call(peer: &dyn Peer, sequence: u64, asked: &Query<'_>) -> mpsc::Receiver<Frame> {
    let mut body = Vec::new();
    query::encode(&mut body, asked);
    let (reply, answers) = mpsc::channel();
    let frame = Frame::new(FrameKind::Call, version::NEWEST, SessionId(50), sequence, body, Bytes::new());
    peer.submit(frame, Box::new(move |frame| reply.send(frame).unwrap()));
    answers
}

#[test]
fn the_mount_of_the_same_process_shares_files_and_locks_with_the_others_and_ends_with_its_peer() {
    let rig = Rig::new();
    let mut a = rig.client(1);
    assert_eq!(a.lock_now(9, exclusive()), Ok(Said::Empty));
    let (peer, welcome) = rig.server().local(&hello(50, false), Arc::new(|_| {})).unwrap();
    assert_eq!((welcome.epoch, welcome.session_known), (1, false));
    let status = local_call(&peer, 1, &Query::Status).try_recv().expect("answered by the calling thread");
    assert_eq!(status.header.sequence, 1);
    let granted = local_call(&peer, 2, &Query::SetLock { ino: Ino(9), lock: exclusive(), wait: true });
    assert!(granted.try_recv().is_err());
    assert_eq!(a.lock_now(9, unlock()), Ok(Said::Empty));
    assert_eq!(granted.recv_timeout(PATIENCE).unwrap().header.sequence, 2);
    rig.pass(LEASE_MS * 3);
    let mut b = rig.client(2);
    assert_eq!(b.lock_now(9, exclusive()), Err(Errno::EAGAIN), "it has no lease that could be over");
    drop(peer);
    assert_eq!(b.lock_now(9, exclusive()), Ok(Said::Empty));
}

#[test]
fn a_session_that_died_with_the_servers_process_is_not_waited_for() {
    let volume = || {
        let store = Store::memory().unwrap();
        Volume::open(store, VolumeOptions::new(Arc::new(Time::default))).unwrap()
    };
    for (local, waited_for) in [(true, 0), (false, 1)] {
        let volume = volume();
        let record = About { local, ..About::default() };
        volume.put_session(SessionId(50), &prost::Message::encode_to_vec(&record)).unwrap();
        let server = Server::open(volume, ServeOptions::default()).unwrap();
        let status: serde_json::Value = serde_json::from_str(&server.status()).unwrap();
        assert_eq!((&status["session_count"], status["grace"].is_null()), (&waited_for.into(), local));
    }
}

#[test]
fn a_frame_that_breaks_the_protocol_in_the_same_process_is_answered_all_the_same() {
    let rig = Rig::new();
    let (peer, _) = rig.server().local(&hello(50, false), Arc::new(|_| {})).unwrap();
    let (reply, answers) = mpsc::channel();
    let frame = Frame::new(FrameKind::Call, version::NEWEST, SessionId(50), 7, Vec::new(), Bytes::new());
    peer.submit(frame, Box::new(move |frame| reply.send(frame).unwrap()));
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().header.sequence, 7);
    assert!(rig.client(1).is_open());
    rig.server().shutdown().unwrap();
    let after = local_call(&peer, 8, &Query::Ping).recv_timeout(PATIENCE).unwrap();
    let said = crate::wire::answer::decode(&after.body, &after.payload).unwrap().0;
    assert_eq!(said, Err(Errno::ENOTCONN));
}
