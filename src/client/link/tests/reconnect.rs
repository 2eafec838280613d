//! Connections that are cut, sessions that are taken up again or lost.

use super::super::{Held, Interrupted, Link, Owner};
use super::peer::{
    Conn, Got, Inbox, Server, answer_to, asked_offset, bytes_of, eventually, outcomes_of, seek, weak,
    write_batch,
};
use crate::base::{Errno, Ino, SessionId};
use crate::wire::hello::{Refusal, Welcome};
use crate::wire::{
    Answer, Frame, FrameKind, LockKind, LockOwner, LockRequest, Query, Ticket, mutation, query,
};
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn an_answer_cut_at_any_byte_is_asked_for_again_with_the_same_bytes() {
    let server = Server::new();
    let (link, mut metadata, mut data) = server.link();
    let inbox = Inbox::new();
    link.call(&seek(77), inbox.call(1));
    link.batch(write_batch(&[5], b"payload"), inbox.batch(2));
    let (asked, written) = (metadata.request(), data.request());
    let (answer, outcomes) = (answer_to(&asked, &Ok(Answer::Offset(78))), outcomes_of(&written));
    for cut in 0..bytes_of(&answer).len() {
        metadata.stream.write_all(&bytes_of(&answer)[..cut]).unwrap();
        let outcome_bytes = bytes_of(&outcomes);
        data.stream.write_all(&outcome_bytes[..cut.min(outcome_bytes.len() - 1)]).unwrap();
        drop((metadata, data));
        (metadata, data) = server.accept_again();
        assert_eq!(metadata.request(), asked, "cut at {cut}");
        assert_eq!(data.request(), written, "cut at {cut}");
    }
    metadata.send(&answer);
    assert_eq!(inbox.next(), (1, Got::Offset(78)));
    data.send(&outcomes);
    assert_eq!(inbox.next(), (2, Got::Tickets(vec![5])));
    assert_eq!(link.status().reconnects, bytes_of(&answer).len() as u64);
}

#[test]
fn a_request_cut_while_it_is_sent_is_sent_again_whole() {
    let server = Server::new();
    let (link, mut metadata, mut data) = server.link();
    let inbox = Inbox::new();
    let bytes = vec![9; 3 << 20];
    for ticket in 1..=3 {
        link.batch(write_batch(&[ticket], &bytes), inbox.batch(ticket));
    }
    for read in [1, 63, 64, 65, 1 << 20, 3 << 20] {
        let mut piece = vec![0; read];
        std::io::Read::read_exact(&mut data.stream, &mut piece).unwrap();
        drop((metadata, data));
        (metadata, data) = server.accept_again();
    }
    for ticket in 1..=3 {
        let frame = data.request();
        assert!(frame.payload[..] == bytes[..]);
        data.outcomes(&frame);
        assert_eq!(inbox.next(), (ticket, Got::Tickets(vec![ticket])));
    }
}

#[test]
fn what_is_in_flight_goes_out_again_in_order_and_before_what_is_new() {
    let server = Server::new();
    let (link, mut metadata, data) = server.link();
    let inbox = Inbox::new();
    for i in 0..20 {
        link.call(&seek(i), inbox.call(i));
    }
    let frames: Vec<Frame> = (0..20).map(|_| metadata.request()).collect();
    for frame in frames.iter().filter(|frame| asked_offset(frame).is_multiple_of(3)) {
        metadata.answer(frame, &Ok(Answer::Empty));
    }
    for _ in 0..7 {
        inbox.next();
    }
    drop((metadata, data));
    eventually(|| !link.status().connected);
    link.call(&seek(100), inbox.call(100));
    let (mut metadata, _data) = server.accept_again();
    link.call(&seek(101), inbox.call(101));
    let mut expected: Vec<u64> = (0..20_u64).filter(|i| !i.is_multiple_of(3)).collect();
    expected.extend([100, 101]);
    let found: Vec<u64> = expected.iter().map(|_| asked_offset(&metadata.request())).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_answer_that_comes_twice_is_ignored() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    let frame = metadata.request();
    metadata.answer(&frame, &Ok(Answer::Offset(2)));
    metadata.answer(&frame, &Ok(Answer::Offset(3)));
    link.call(&seek(2), inbox.call(2));
    let frame = metadata.request();
    metadata.answer(&frame, &Ok(Answer::Offset(4)));
    assert_eq!(inbox.next(), (1, Got::Offset(2)));
    assert_eq!(inbox.next(), (2, Got::Offset(4)));
    let status = link.status();
    assert_eq!((status.answers_ignored, status.reconnects), (1, 0));
}

#[derive(Default)]
struct Mount {
    held: Mutex<Held>,
    lost: AtomicU64,
}

impl Owner for Mount {
    fn held(&self) -> Held {
        self.held.lock().unwrap().clone()
    }

    fn lost(&self, restarted: bool) {
        assert!(!restarted, "the epoch is the same");
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

fn lock(handle: u64) -> LockRequest {
    let owner = LockOwner::Record(handle);
    LockRequest { owner, kind: LockKind::Write, start: 0, end: 9, pid: 1, handle }
}

#[test]
fn what_is_held_is_told_in_pieces_before_anything_is_sent_again() {
    let server = Server::new();
    let (link, mut metadata, data) = server.link();
    let mount = Arc::new(Mount::default());
    link.set_owner(weak(&mount));
    let holds: Vec<Ino> = (1..=40_000).map(Ino).collect();
    let locks = (0..5000).map(|i| (Ino(1), lock(i))).collect();
    *mount.held.lock().unwrap() = Held { holds: holds.clone(), locks };
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    metadata.request();
    drop((metadata, data));
    let (mut metadata, _data, resumed) = server.accept_both(true);
    assert!(resumed);
    let (mut told, mut locks, mut pieces) = (Vec::new(), 0, 0);
    loop {
        // Were the request sent first, this would find it instead.
        let (frame, piece) = metadata.reassert();
        metadata.answer(&frame, &Ok(Answer::Empty));
        told.extend(piece.0);
        locks += piece.1;
        pieces += 1;
        if piece.2 {
            break;
        }
    }
    assert_eq!((told == holds, locks, pieces), (true, 5000, 4), "three with something, and the end");
    assert_eq!(asked_offset(&metadata.request()), 1);
    assert_eq!(mount.lost.load(Ordering::SeqCst), 0);
}

/// After this the link has a fresh session and works.
fn expect_fresh(server: &Server, link: &Link, old: SessionId, mount: &Mount, inbox: &Inbox) {
    let (mut metadata, _data, resumed) = server.accept_both(false);
    assert!(!resumed);
    assert_ne!(metadata.session, old);
    for key in [1, 2] {
        assert_eq!(inbox.next(), (key, Got::Failed(Errno::EIO)));
    }
    assert_eq!(mount.lost.load(Ordering::SeqCst), 1);
    link.call(&seek(9), inbox.call(9));
    let frame = metadata.request();
    assert_eq!(asked_offset(&frame), 9, "nothing of the old session is sent again");
    metadata.answer(&frame, &Ok(Answer::Empty));
    assert_eq!(inbox.next(), (9, Got::Empty));
    let status = link.status();
    assert_eq!((status.sessions_lost, status.session), (1, metadata.session.to_string()));
}

fn two_in_flight(server: &Server) -> (Arc<Link>, Conn, Conn, Arc<Mount>, Inbox) {
    let (link, mut metadata, mut data) = server.link();
    let mount = Arc::new(Mount::default());
    link.set_owner(weak(&mount));
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    metadata.request();
    link.batch(write_batch(&[1], b"x"), inbox.batch(2));
    data.request();
    (link, metadata, data, mount, inbox)
}

#[test]
fn a_session_the_server_does_not_know_fails_what_is_in_flight_and_a_fresh_one_begins() {
    let server = Server::new();
    let (link, metadata, data, mount, inbox) = two_in_flight(&server);
    let old = metadata.session;
    drop((metadata, data));
    let mut again = server.accept();
    let hello = again.hello();
    assert!(hello.resumed && again.session == old && hello.volume == super::peer::VOLUME);
    again.welcome(&server.welcome(false));
    expect_fresh(&server, &link, old, &mount, &inbox);
}

#[test]
fn holds_that_could_not_be_had_again_end_the_session_at_both_sides() {
    let server = Server::new();
    let (link, metadata, data, mount, inbox) = two_in_flight(&server);
    let old = metadata.session;
    drop((metadata, data));
    let (mut metadata, _data, _) = server.accept_both(true);
    let (frame, _) = metadata.reassert();
    metadata.answer(&frame, &Err(Errno::ESTALE));
    // What was in flight went out behind the re-assertion.
    while metadata.frame().header.kind != FrameKind::Bye {}
    expect_fresh(&server, &link, old, &mount, &inbox);
}

#[test]
fn a_keepalive_answered_with_estale_takes_the_session_up_again() {
    let server = Server::new();
    let (_link, mut metadata, _data) = server.link();
    let ping = metadata.frame();
    assert_eq!(query::decode(&ping.body), Ok(Query::Ping));
    metadata.answer(&ping, &Err(Errno::ESTALE));
    server.accept_again();
}

#[test]
fn a_server_that_refuses_or_is_another_is_asked_again_until_it_is_right() {
    let server = Server::new();
    let (link, mut metadata, data) = server.link();
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    metadata.request();
    drop((metadata, data));
    let says = |text: &str| {
        eventually(|| link.status().fault.is_some_and(|fault| fault.contains(text)));
        assert!(!link.status().connected);
    };
    let mut conn = server.accept();
    conn.hello();
    conn.cold(FrameKind::Refusal, &Refusal { reason: "it speaks version 9 alone".into(), retry: false });
    says("version 9 alone");
    let mut conn = server.accept();
    conn.hello();
    conn.welcome(&Welcome { volume: vec![8; 16], ..server.welcome(true) });
    says("another volume");
    let mut conn = server.accept();
    conn.hello();
    drop(conn);
    says("closed the connection");
    let (mut metadata, _data) = server.accept_again();
    let frame = metadata.request();
    metadata.answer(&frame, &Ok(Answer::Empty));
    assert_eq!(inbox.next(), (1, Got::Empty));
    let status = link.status();
    assert_eq!((status.connected, status.fault, status.reconnects), (true, None, 1));
}

#[test]
fn a_silent_server_is_connected_to_anew() {
    let mut server = Server::new();
    server.lease_ms = 100;
    let (link, _metadata, _data) = server.link();
    // Nobody answers the keepalives; the old connections stay open.
    server.lease_ms = 30_000;
    let _again = server.accept_again();
    eventually(|| link.status().reconnects == 1);
}

#[test]
fn a_server_that_answers_keepalives_alone_is_not_silent() {
    let mut server = Server::new();
    server.lease_ms = 300;
    let (link, mut metadata, mut data) = server.link();
    let answered = Arc::new(AtomicU64::new(0));
    for conn in [&mut metadata, &mut data] {
        let mut conn = Conn { stream: conn.stream.try_clone().unwrap(), session: conn.session };
        let answered = Arc::clone(&answered);
        std::thread::spawn(move || {
            for _ in 0..10 {
                let frame = conn.frame();
                conn.answer(&frame, &Ok(Answer::Empty));
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    // Ten keepalives take three leases.
    eventually(|| answered.load(Ordering::SeqCst) == 20);
    assert_eq!(link.status().reconnects, 0);
}

#[test]
fn frames_that_make_no_sense_end_the_connection_and_not_the_request() {
    let server = Server::new();
    let (link, mut metadata, mut data) = server.link();
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    link.batch(write_batch(&[1], b"x"), inbox.batch(2));
    let (asked, written) = (metadata.request(), data.request());
    type Spoil = fn(&Frame, &Frame) -> Vec<u8>;
    let good = |asked: &Frame| answer_to(asked, &Ok(Answer::Empty));
    let spoils: [(&str, Spoil); 9] = [
        ("foreign bytes", |_, _| vec![0x55; 100]),
        ("a damaged body", |asked, _| {
            let mut bytes = bytes_of(&answer_to(asked, &Ok(Answer::Empty)));
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        }),
        ("another session", |asked, _| {
            let mut frame = answer_to(asked, &Ok(Answer::Empty));
            frame.header.session.0 ^= 1;
            bytes_of(&frame)
        }),
        ("another version", |asked, _| {
            let mut frame = answer_to(asked, &Ok(Answer::Empty));
            frame.header.version += 1;
            bytes_of(&frame)
        }),
        ("a sequence from the future", |asked, _| {
            let mut frame = answer_to(asked, &Ok(Answer::Empty));
            frame.header.sequence = 1 << 40;
            bytes_of(&frame)
        }),
        ("outcomes for a query", |asked, written| {
            let mut frame = outcomes_of(written);
            frame.header.sequence = asked.header.sequence;
            bytes_of(&frame)
        }),
        ("more bytes than asked", |asked, _| bytes_of(&answer_to(asked, &Ok(Answer::Data(b"data"))))),
        ("a request", |asked, _| bytes_of(asked)),
        ("an answer that ends early", |asked, _| {
            let mut body = Vec::new();
            crate::wire::record::push(&mut body, 195, &[0_u8; 4], &[]);
            let h = asked.header;
            let kind = FrameKind::Answer;
            bytes_of(&Frame::new(kind, h.version, h.session, h.sequence, body, bytes::Bytes::new()))
        }),
    ];
    for (what, spoil) in spoils {
        metadata.stream.write_all(&spoil(&asked, &written)).unwrap();
        (metadata, data) = server.accept_again();
        assert_eq!(metadata.request(), asked, "{what}");
        assert_eq!(data.request(), written, "{what}");
    }
    // Outcomes of other mutations, on the other connection.
    let other = write_batch(&[2], b"x");
    let mut frame = written.clone();
    frame.body = other.body.to_vec();
    data.outcomes(&frame);
    (metadata, data) = server.accept_again();
    assert_eq!((metadata.request(), data.request()), (asked.clone(), written.clone()));
    metadata.send(&good(&asked));
    data.outcomes(&written);
    let mut got = [inbox.next(), inbox.next()];
    got.sort_by_key(|(key, _)| *key);
    assert_eq!(got, [(1, Got::Empty), (2, Got::Tickets(vec![1]))]);
}

#[test]
fn without_a_connection_a_signal_ends_a_question_and_nothing_else() {
    let server = Server::new();
    let (link, mut metadata, data) = server.link();
    let inbox = Inbox::new();
    let before = link.call(&seek(1), inbox.call(1));
    metadata.request();
    assert_eq!(link.interrupt(before), Interrupted::Kept);
    drop((metadata, data));
    assert_eq!(inbox.next(), (1, Got::Failed(Errno::EINTR)));
    eventually(|| !link.status().connected);
    let question = link.call(&seek(2), inbox.call(2));
    let drops = link.call(&Query::Drop { inos: vec![Ino(4)] }, inbox.call(3));
    let wait = link.call(&Query::SetLock { ino: Ino(1), lock: lock(1), wait: true }, inbox.call(4));
    let batch = link.batch(write_batch(&[1], b"x"), inbox.batch(5));
    assert_eq!(link.interrupt(question), Interrupted::Failed);
    assert_eq!(inbox.next(), (2, Got::Failed(Errno::EINTR)));
    assert_eq!(link.interrupt(drops), Interrupted::Kept);
    assert_eq!(link.interrupt(wait), Interrupted::Cancelling);
    assert_eq!(link.interrupt(batch), Interrupted::Kept);
    let (mut metadata, mut data) = server.accept_again();
    let sequences: Vec<u64> = (0..3).map(|_| metadata.request().header.sequence).collect();
    assert_eq!(sequences[..2], [drops.0, wait.0]);
    assert!(sequences[2] > batch.0, "the cancellation comes behind the lock");
    assert_eq!(data.request().header.sequence, batch.0);
    assert_eq!(inbox.receive_now(), None);
}

#[test]
fn closing_without_a_connection_does_not_wait() {
    let server = Server::new();
    let (link, metadata, data) = server.link();
    let inbox = Inbox::new();
    drop((metadata, data));
    eventually(|| !link.status().connected);
    link.batch(write_batch(&[1], b"x"), inbox.batch(1));
    // A handshake is going on and gets no answer.
    let mut stuck = server.accept();
    stuck.hello();
    link.close(Duration::from_secs(3600));
    assert_eq!(inbox.next(), (1, Got::Failed(Errno::ENOTCONN)));
}

/// Applies each ticket once, and answers on whatever connection asks.
fn serve(conn: &mut Conn, applied: &Mutex<HashMap<Ticket, u64>>, frames: u64) {
    for _ in 0..frames {
        let mut head = [0; crate::wire::frame::HEADER_BYTES];
        if std::io::Read::read_exact(&mut conn.stream, &mut head).is_err() {
            return;
        }
        let header = crate::wire::Header::decode(&head).unwrap();
        let mut rest = vec![0; header.body_bytes as usize + header.payload_bytes as usize];
        if std::io::Read::read_exact(&mut conn.stream, &mut rest).is_err() {
            return;
        }
        let payload = rest.split_off(header.body_bytes as usize).into();
        let frame = Frame { header, body: rest, payload };
        let reply = match header.kind {
            FrameKind::Batch => {
                for mutation in mutation::decode_batch(&frame.body, &frame.payload) {
                    *applied.lock().unwrap().entry(mutation.unwrap().0.ticket).or_default() += 1;
                }
                outcomes_of(&frame)
            }
            _ => answer_to(&frame, &Ok(Answer::Empty)),
        };
        if conn.stream.write_all(&bytes_of(&reply)).is_err() {
            return;
        }
    }
}

#[test]
fn under_many_cuts_every_request_of_every_thread_is_answered_once() {
    const THREADS: u64 = 4;
    const EACH: u64 = 150;
    let server = Server::new();
    let (link, mut metadata, mut data) = server.link();
    let applied = Arc::new(Mutex::new(HashMap::new()));
    let answered = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..THREADS)
        .map(|t| {
            let (link, answered) = (Arc::clone(&link), Arc::clone(&answered));
            std::thread::spawn(move || {
                for i in 0..EACH {
                    let count = Arc::clone(&answered);
                    if i % 2 == 0 {
                        link.call(&seek(i), move |answer| {
                            assert_eq!(answer, Ok(Answer::Empty));
                            count.fetch_add(1, Ordering::SeqCst);
                        });
                    } else {
                        let ticket = t * EACH + i + 1;
                        link.batch(write_batch(&[ticket], &[7; 5000]), move |outcomes| {
                            assert_eq!(outcomes.unwrap()[0].ticket, Ticket(ticket));
                            count.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                }
            })
        })
        .collect();
    let mut cut_after = 3;
    while answered.load(Ordering::SeqCst) < THREADS * EACH {
        let ended = AtomicU64::new(0);
        let streams = [&metadata, &data].map(|conn| conn.stream.try_clone().unwrap());
        std::thread::scope(|scope| {
            for (conn, frames) in [(&mut metadata, cut_after), (&mut data, cut_after + 1)] {
                let (applied, ended) = (&applied, &ended);
                scope.spawn(move || {
                    serve(conn, applied, frames);
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
            let all = || answered.load(Ordering::SeqCst) == THREADS * EACH;
            eventually(|| all() || ended.load(Ordering::SeqCst) > 0);
            for stream in &streams {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        if answered.load(Ordering::SeqCst) == THREADS * EACH {
            break;
        }
        drop((metadata, data));
        (metadata, data) = server.accept_again();
        cut_after += 17;
    }
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(answered.load(Ordering::SeqCst), THREADS * EACH);
    assert_eq!(applied.lock().unwrap().len() as u64, THREADS * EACH / 2);
    assert_eq!(link.status().in_flight, 0);
}
