//! Batches of the owner's log, notices, and the time until which leases are valid.

use super::super::{Held, Link, LinkOptions, LogOutcomes, Logged, Owner, boottime};
use super::peer::{Conn, Got, Inbox, Server, eventually, seek, weak};
use crate::base::{Caller, Errno, Ino};
use crate::wire::{
    Answer, Done, Frame, FrameKind, Keep, Mutation, Notice, Origin, Outcome, Query, Recall, SetAttr, Ticket,
    answer, mutation, notice, outcome, query,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the owner heard, in its order.
#[derive(Clone, PartialEq, Debug)]
enum Heard {
    Recalled(Vec<Recall>),
    Durable(u64),
    Answered(u64, Vec<(u64, Errno)>),
    Waited(u64, Outcome),
    Replay(bool),
    Answer(u64),
    Lost(bool),
}

#[derive(Default)]
struct Log {
    heard: Mutex<Vec<Heard>>,
    replay: Mutex<Vec<Logged>>,
    held: Mutex<Held>,
}

impl Log {
    fn hear(&self, heard: Heard) {
        self.heard.lock().unwrap().push(heard);
    }

    fn all(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Owner for Log {
    fn held(&self) -> Held {
        self.held.lock().unwrap().clone()
    }

    fn lost(&self, restarted: bool) {
        self.hear(Heard::Lost(restarted));
    }

    fn recalled(&self, recalls: &[Recall]) {
        self.hear(Heard::Recalled(recalls.to_vec()));
    }

    fn durable(&self, commit: u64) {
        self.hear(Heard::Durable(commit));
    }

    fn answered(&self, first: Ticket, outcomes: &LogOutcomes<'_>) {
        assert_eq!(outcomes.commit(), COMMIT);
        let failures: Vec<_> = outcomes.failures().map(|(ticket, errno)| (ticket.0, errno)).collect();
        match outcomes.waited() {
            Some(waited) if failures.is_empty() => self.hear(Heard::Waited(first.0, waited)),
            _ => self.hear(Heard::Answered(first.0, failures)),
        }
    }

    fn replay(&self, restarted: bool) -> Vec<Logged> {
        self.hear(Heard::Replay(restarted));
        self.replay.lock().unwrap().clone()
    }
}

/// In which the server says that a batch is.
const COMMIT: u64 = 40;

fn batch(tickets: &[u64], local: bool) -> Logged {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    let at = local.then_some(crate::base::Time { secs: 5, nanos: 0 });
    for ticket in tickets {
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        let origin = Origin { ticket: Ticket(*ticket), caller: Caller::ROOT, at };
        mutation::encode(&mut body, &mut payload, origin, &Mutation::SetAttr { ino: Ino(2), set });
    }
    Logged {
        first: Ticket(tickets[0]),
        last: Ticket(*tickets.last().unwrap()),
        count: u32::try_from(tickets.len()).unwrap(),
        local,
        unanswered: false,
        before: 0,
        body: body.into(),
        payload: payload.into(),
    }
}

/// The outcomes of a batch; those of `failed` failed.
fn outcomes(asked: &Frame, failed: &[u64], durable: u64) -> Frame {
    let mut body = Vec::new();
    outcome::begin(&mut body, COMMIT);
    for read in mutation::decode_batch(&asked.body, &asked.payload) {
        let origin = read.unwrap().0;
        let ticket = origin.ticket;
        if failed.contains(&ticket.0) {
            outcome::encode(&mut body, &Outcome { ticket, result: Err(Errno::ENOSPC) });
        } else if origin.at.is_some() {
            outcome::encode_ran(&mut body, ticket, ticket);
        } else {
            outcome::encode(&mut body, &Outcome { ticket, result: Ok(Done::default()) });
        }
    }
    let h = asked.header;
    Frame::new(FrameKind::Outcomes, h.version, h.session, h.sequence, body, Bytes::new()).durable(durable)
}

fn opened(server: &Server) -> (Arc<Link>, Conn, Conn, Arc<Log>) {
    let options = LinkOptions { leases: true, ..Server::options() };
    let (link, metadata, data) = server.link_with(options);
    let log = Arc::new(Log::default());
    link.set_owner(weak(&log));
    (link, metadata, data, log)
}

fn recall(ino: u64) -> Recall {
    Recall { ino: Ino(ino), keep: Keep::Nothing, number: ino + 7 }
}

fn say(conn: &mut Conn, version: u16, notices: &[Notice], durable: u64) {
    let mut body = Vec::new();
    notices.iter().for_each(|said| notice::encode(&mut body, said));
    let frame = Frame::new(FrameKind::Notice, version, conn.session, 0, body, Bytes::new());
    conn.send(&frame.durable(durable));
}

#[test]
fn notices_come_in_their_place_among_the_answers() {
    let server = Server::new();
    let (link, mut metadata, _data, log) = opened(&server);
    let told = Arc::clone(&log);
    link.call(&seek(3), move |answer| {
        let Ok(Answer::Offset(offset)) = answer else { panic!("{answer:?}") };
        told.hear(Heard::Answer(offset));
    });
    let asked = metadata.request();
    metadata.answer(&asked, &Ok(Answer::Offset(3)));
    let version = asked.header.version;
    say(&mut metadata, version, &[Notice::Recall(recall(5)), Notice::Recall(recall(6))], 0);
    say(&mut metadata, version, &[Notice::Durable], 9);
    say(&mut metadata, version, &[Notice::Durable], 9);
    say(&mut metadata, version, &[Notice::Recall(recall(7))], 8);
    let expected = [
        Heard::Answer(3),
        Heard::Recalled(vec![recall(5), recall(6)]),
        Heard::Durable(9),
        Heard::Recalled(vec![recall(7)]),
    ];
    eventually(|| log.all().len() == expected.len());
    assert_eq!(log.all(), expected);
    assert_eq!(link.status().reconnects, 0);
}

#[test]
fn a_batch_of_the_log_is_answered_to_its_owner_before_it_is_called_durable() {
    let server = Server::new();
    let (link, mut metadata, mut data, log) = opened(&server);
    link.send(batch(&[1, 2, 4], true));
    link.send(Logged { payload: Bytes::from_static(b"small"), ..batch(&[5], true) });
    let first = metadata.request();
    assert_eq!(first.header.kind, FrameKind::Batch);
    metadata.send(&outcomes(&first, &[2], 3));
    let second = metadata.request();
    assert_eq!(&second.payload[..], b"small", "in its place among the batches, whatever it carries");
    metadata.send(&outcomes(&second, &[], 3));
    link.send(Logged { payload: Bytes::from_static(b"large"), ..batch(&[6], false) });
    let third = data.request();
    data.send(&outcomes(&third, &[], 99));
    eventually(|| log.all().len() == 4);
    let waited = Outcome { ticket: Ticket(6), result: Ok(Done::default()) };
    let mut heard = log.all();
    // One connection tells what is durable, so that it never goes back.
    heard.sort_by_key(|heard| matches!(heard, Heard::Waited(6, _)));
    assert_eq!(heard[..2], [Heard::Answered(1, vec![(2, Errno::ENOSPC)]), Heard::Durable(3)]);
    assert_eq!(heard[3], Heard::Waited(6, waited));
}

#[test]
fn outcomes_that_leave_a_mutation_out_end_the_connection() {
    for (asked, told) in [(vec![1, 2, 3], vec![1, 3]), (vec![1, 2], vec![2, 1]), (vec![1, 2], vec![1, 3])] {
        let server = Server::new();
        let (link, mut metadata, _data, log) = opened(&server);
        link.send(batch(&asked, true));
        let frame = metadata.request();
        let mut body = Vec::new();
        outcome::begin(&mut body, COMMIT);
        for ticket in told {
            outcome::encode(&mut body, &Outcome { ticket: Ticket(ticket), result: Ok(Done::default()) });
        }
        let h = frame.header;
        metadata.send(&Frame::new(FrameKind::Outcomes, h.version, h.session, h.sequence, body, Bytes::new()));
        server.accept_both(true);
        eventually(|| log.all() == [Heard::Replay(false)]);
    }
}

#[test]
fn after_a_lost_connection_the_log_is_replayed_between_the_pieces_of_the_reassertion() {
    let server = Server::new();
    let (link, mut metadata, data, log) = opened(&server);
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    metadata.request();
    link.send(batch(&[1, 2], true));
    metadata.request();
    let new = Logged { unanswered: true, ..batch(&[6], false) };
    *log.replay.lock().unwrap() =
        vec![batch(&[1, 2], true), batch(&[3], false), new.clone(), batch(&[4, 5], true)];
    log.held.lock().unwrap().holds = vec![Ino(8)];
    drop((metadata, data));
    let (mut metadata, _data, resumed) = server.accept_both(true);
    assert!(resumed);
    let (piece, (holds, _, last)) = metadata.reassert();
    assert_eq!((holds, last), (vec![Ino(8)], false));
    metadata.answer(&piece, &Ok(Answer::Empty));
    for expected in [batch(&[1, 2], true), batch(&[3], false), batch(&[4, 5], true)] {
        let frame = metadata.frame();
        assert_eq!((frame.header.kind, Bytes::from(frame.body.clone())), (FrameKind::Batch, expected.body));
        metadata.send(&outcomes(&frame, &[], 0));
    }
    let (end, (holds, locks, last)) = metadata.reassert();
    assert_eq!((holds, locks, last), (vec![], 0, true));
    metadata.answer(&end, &Ok(Answer::Empty));
    let frame = metadata.frame();
    assert_eq!(Bytes::from(frame.body.clone()), new.body, "what no server has answered is new to this one");
    metadata.send(&outcomes(&frame, &[], 0));
    let asked = metadata.request();
    assert_eq!(query::decode(&asked.body), Ok(seek(1)), "then what else was in flight");
    metadata.answer(&asked, &Ok(Answer::Offset(1)));
    assert_eq!(inbox.next(), (1, Got::Offset(1)));
    let expected = [
        Heard::Replay(false),
        Heard::Answered(1, vec![]),
        Heard::Answered(3, vec![]),
        Heard::Answered(4, vec![]),
        Heard::Answered(6, vec![]),
    ];
    let heard: Vec<_> = log
        .all()
        .into_iter()
        .map(|heard| match heard {
            Heard::Waited(first, _) => Heard::Answered(first, vec![]),
            other => other,
        })
        .collect();
    assert_eq!(heard, expected);
    link.send(batch(&[6], true));
    assert_eq!(Bytes::from(metadata.request().body), batch(&[6], true).body);
}

#[test]
fn a_restarted_server_is_told_to_the_owner_and_counts_its_commits_anew() {
    let server = Server::new();
    let (link, mut metadata, data, log) = opened(&server);
    link.send(batch(&[1], true));
    let asked = metadata.request();
    metadata.send(&outcomes(&asked, &[], 50));
    eventually(|| log.all().len() == 2);
    drop((metadata, data));
    let mut again = server.accept();
    again.hello();
    let welcome = crate::wire::hello::Welcome { epoch: 2, ..server.welcome(true) };
    again.welcome(&welcome);
    let mut beside = server.accept();
    beside.hello();
    beside.welcome(&welcome);
    let (end, _) = again.reassert();
    again.answer(&end, &Ok(Answer::Empty));
    say(&mut again, asked.header.version, &[Notice::Durable], 2);
    eventually(|| log.all().len() == 4);
    assert_eq!(log.all()[2..], [Heard::Replay(true), Heard::Durable(2)]);
}

#[test]
fn a_session_lost_with_its_server_is_told_apart_from_one_the_server_gave_up() {
    for epoch in [1, 2] {
        let server = Server::new();
        let (_link, metadata, data, log) = opened(&server);
        drop((metadata, data));
        let mut again = server.accept();
        assert!(again.hello().resumed);
        again.welcome(&crate::wire::hello::Welcome { epoch, ..server.welcome(false) });
        eventually(|| log.all() == [Heard::Lost(epoch == 2)]);
    }
}

#[test]
fn what_the_log_sends_without_a_connection_comes_from_its_replay() {
    let server = Server::new();
    let (link, metadata, data, log) = opened(&server);
    drop((metadata, data));
    eventually(|| !link.status().connected);
    link.send(batch(&[1], true));
    *log.replay.lock().unwrap() = vec![batch(&[1], true)];
    let (mut metadata, _data, _) = server.accept_both(true);
    assert_eq!(Bytes::from(metadata.frame().body), batch(&[1], true).body);
    let (_, (_, _, last)) = metadata.reassert();
    assert!(last);
    link.send(batch(&[2], true));
    assert_eq!(Bytes::from(metadata.request().body), batch(&[2], true).body, "once, and in its place");
}

#[test]
fn what_the_log_sent_after_a_session_was_lost_goes_out_in_the_next_one() {
    let server = Server::new();
    let (link, metadata, data, log) = opened(&server);
    drop((metadata, data));
    let mut again = server.accept();
    again.hello();
    again.welcome(&server.welcome(false));
    eventually(|| log.all().iter().any(|heard| matches!(heard, Heard::Lost(_))));
    link.send(batch(&[7], false));
    *log.replay.lock().unwrap() = vec![batch(&[7], false)];
    let (mut metadata, _data, resumed) = server.accept_both(false);
    assert!(!resumed);
    assert_eq!(Bytes::from(metadata.request().body), batch(&[7], false).body);
}

#[test]
fn an_answer_shows_that_the_session_lived_when_it_was_asked_for() {
    let server = Server::new();
    let before = boottime();
    let (link, mut metadata, _data, _log) = opened(&server);
    let opened = link.answered_since();
    assert!(opened >= before && opened <= boottime());
    let inbox = Inbox::new();
    let asked = boottime();
    link.call(&seek(1), inbox.call(1));
    let frame = metadata.request();
    let later = boottime();
    metadata.answer(&frame, &Ok(Answer::Offset(1)));
    assert_eq!(inbox.next(), (1, Got::Offset(1)));
    assert!((asked..=later).contains(&link.answered_since()), "by the asking, not by the answer");
}

#[test]
fn an_idle_session_shows_four_times_in_a_lease_that_it_lives() {
    let mut server = Server::new();
    server.lease_ms = 400;
    let (link, mut metadata, mut data, _log) = opened(&server);
    let first = link.answered_since();
    std::thread::scope(|scope| {
        for conn in [&mut metadata, &mut data] {
            scope.spawn(|| {
                for _ in 0..5 {
                    let ping = conn.frame();
                    assert_eq!(query::decode(&ping.body), Ok(Query::Ping));
                    conn.answer(&ping, &Ok(Answer::Empty));
                }
            });
        }
    });
    eventually(|| link.answered_since() >= first + Duration::from_millis(400));
    assert_eq!(link.status().reconnects, 0);
}

#[test]
fn the_servers_clock_is_known_from_the_welcome() {
    let server = Server::new();
    let opening = server.open(Server::options());
    let told = crate::wire::hello::Welcome { clock_nanos: 5_000_000_000_000, ..server.welcome(false) };
    let before = boottime();
    for _ in 0..2 {
        let mut conn = server.accept();
        conn.hello();
        conn.welcome(&told);
    }
    let (link, _) = opening.join().unwrap().unwrap();
    let at = link.server_time(boottime());
    let most = 5000 + i64::try_from((boottime() - before).as_secs()).unwrap() + 60;
    assert!((4990..=most).contains(&at.secs), "{at:?}");
    assert_eq!(link.welcome(), told);
}

#[test]
fn grants_come_with_the_answer() {
    let server = Server::new();
    let (link, mut metadata, _data, log) = opened(&server);
    let grant =
        crate::wire::Grant { ino: Ino(4), mode: crate::wire::LeaseMode::Exclusive, number: 3, plain: true };
    let told = Arc::clone(&log);
    link.call_leased(&seek(1), move |answer, grants| {
        assert_eq!((answer, grants.iter().collect::<Vec<_>>()), (Err(Errno::ENOENT), vec![grant]));
        told.hear(Heard::Answer(0));
    });
    let asked = metadata.request();
    let mut body = Vec::new();
    answer::encode(&mut body, &Err(Errno::ENOENT));
    crate::wire::lease::encode_grants(&mut body, &[grant]);
    let h = asked.header;
    metadata.send(&Frame::new(FrameKind::Answer, h.version, h.session, h.sequence, body, Bytes::new()));
    eventually(|| log.all() == [Heard::Answer(0)]);
}
