//! Requests and answers on connections that hold; the server in the same process.

use super::super::{Interrupted, Link, LinkOptions, Sequence, Target};
use super::peer::{
    Conn, Got, Inbox, PATIENCE, Server, answer_to, asked_offset, eventually, outcomes_of, seek, write_batch,
};
use crate::base::{Errno, Ino};
use crate::wire::hello::Welcome;
use crate::wire::{Answer, Frame, FrameKind, LockKind, LockOwner, LockRequest, Peer, Query, Reply, query};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn requests_are_pipelined_in_order_and_answers_find_their_callers_in_any_order() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let inbox = Inbox::new();
    let sequences: Vec<Sequence> = (0..100).map(|i| link.call(&seek(i), inbox.call(i))).collect();
    assert!(sequences.is_sorted());
    let mut frames: Vec<Frame> = (0..100).map(|_| metadata.request()).collect();
    assert_eq!(frames.iter().map(asked_offset).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    let found: Vec<Sequence> = frames.iter().map(|frame| Sequence(frame.header.sequence)).collect();
    assert_eq!(found, sequences);
    frames.reverse();
    for frame in &frames {
        metadata.answer(frame, &Ok(Answer::Offset(asked_offset(frame) + 1000)));
    }
    for i in (0..100).rev() {
        assert_eq!(inbox.next(), (i, Got::Offset(i + 1000)));
    }
    assert!(link.status().in_flight <= 2, "the keepalives alone");
}

#[test]
fn file_bytes_use_their_own_connection_and_a_full_one_delays_nothing() {
    let server = Server::new();
    let (link, mut metadata, mut data) = server.link();
    let inbox = Inbox::new();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    for ticket in 1..=20 {
        link.batch(write_batch(&[ticket], &bytes), inbox.batch(ticket));
    }
    // Nobody reads the data connection: 20 MB wait; metadata goes on.
    link.call(&seek(5), inbox.call(0));
    let frame = metadata.request();
    metadata.answer(&frame, &Ok(Answer::Offset(6)));
    assert_eq!(inbox.next(), (0, Got::Offset(6)));
    assert!(link.status().in_flight_bytes > 20_000_000);
    for ticket in 1..=20 {
        let frame = data.request();
        assert!(frame.payload[..] == bytes[..]);
        data.outcomes(&frame);
        assert_eq!(inbox.next(), (ticket, Got::Tickets(vec![ticket])));
    }
    link.call(&Query::Read { ino: Ino(2), offset: 0, len: 1 << 20 }, inbox.call(1));
    let frame = data.request();
    data.answer(&frame, &Ok(Answer::Data(&bytes)));
    assert_eq!(inbox.next(), (1, Got::Bytes(bytes)));
}

#[test]
fn a_batch_brings_one_outcome_for_each_mutation() {
    let server = Server::new();
    let (link, _metadata, mut data) = server.link();
    let inbox = Inbox::new();
    link.batch(write_batch(&[3, 4, 9], b"abc"), inbox.batch(0));
    let frame = data.request();
    data.outcomes(&frame);
    assert_eq!(inbox.next(), (0, Got::Tickets(vec![3, 4, 9])));
}

#[test]
fn each_frame_says_what_is_settled() {
    let server = Server::new();
    let options = Server::options();
    let settled = Arc::clone(&options.settled);
    let (link, mut metadata, _data) = server.link_with(options);
    settled.store(42, Ordering::Release);
    link.call(&seek(0), |_| ());
    assert_eq!(metadata.request().header.settled, 42);
}

#[test]
fn a_closure_may_make_the_next_request() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let server_side = std::thread::spawn(move || {
        for _ in 0..=500 {
            let frame = metadata.request();
            metadata.answer(&frame, &Ok(Answer::Offset(asked_offset(&frame))));
        }
    });
    let (done, end) = std::sync::mpsc::channel();
    chain(Arc::clone(&link), 500, done);
    end.recv_timeout(PATIENCE).unwrap();
    server_side.join().unwrap();
}

fn chain(link: Arc<Link>, left: u64, done: std::sync::mpsc::Sender<()>) {
    let next = Arc::clone(&link);
    link.call(&seek(left), move |answer| {
        assert_eq!(answer, Ok(Answer::Offset(left)));
        if left == 0 {
            done.send(()).unwrap();
        } else {
            chain(next, left - 1, done);
        }
    });
}

#[test]
fn an_answer_of_a_newer_kind_fails_its_request_alone() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let inbox = Inbox::new();
    link.call(&seek(0), inbox.call(0));
    link.call(&seek(1), inbox.call(1));
    let (first, second) = (metadata.request(), metadata.request());
    let mut body = Vec::new();
    crate::wire::record::push(&mut body, 999, &[0_u8; 4], &[]);
    let h = first.header;
    metadata.send(&Frame::new(
        FrameKind::Answer,
        h.version,
        h.session,
        h.sequence,
        body,
        bytes::Bytes::new(),
    ));
    metadata.answer(&second, &Ok(Answer::Empty));
    assert_eq!(inbox.next(), (0, Got::Failed(Errno::EOPNOTSUPP)));
    assert_eq!(inbox.next(), (1, Got::Empty));
}

#[test]
fn too_much_in_flight_and_what_no_frame_can_carry_is_refused_at_once() {
    let server = Server::new();
    let mut options = Server::options();
    // Two keepalives may be among them.
    options.in_flight_max = 10;
    let (link, _metadata, _data) = server.link_with(options);
    let inbox = Inbox::new();
    let inos = vec![Ino(1); 300_000];
    link.call(&Query::Drop { inos }, inbox.call(99));
    assert_eq!(inbox.next(), (99, Got::Failed(Errno::E2BIG)));
    for i in 0..11 {
        link.call(&seek(i), inbox.call(i));
    }
    let (key, got) = inbox.next();
    assert!(key >= 8 && got == Got::Failed(Errno::ENOMEM));
}

#[test]
fn a_waiting_lock_is_cancelled_at_the_server() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let inbox = Inbox::new();
    let lock = LockRequest {
        owner: LockOwner::Flock(1),
        kind: LockKind::Write,
        start: 0,
        end: 9,
        pid: 1,
        handle: 1,
    };
    let sequence = link.call(&Query::SetLock { ino: Ino(1), lock, wait: true }, inbox.call(0));
    let asked = metadata.request();
    assert_eq!(link.interrupt(sequence), Interrupted::Cancelling);
    let cancel = metadata.request();
    assert_eq!(query::decode(&cancel.body), Ok(Query::CancelLock { sequence: sequence.0 }));
    metadata.answer(&asked, &Err(Errno::EINTR));
    metadata.answer(&cancel, &Ok(Answer::Empty));
    assert_eq!(inbox.next(), (0, Got::Failed(Errno::EINTR)));
    assert_eq!(link.interrupt(sequence), Interrupted::Kept, "it is answered already");
}

#[test]
fn closing_waits_for_answers_takes_leave_and_refuses_what_comes_later() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let inbox = Inbox::new();
    link.call(&seek(1), inbox.call(1));
    let asked = metadata.request();
    let closing = std::thread::spawn({
        let link = Arc::clone(&link);
        move || link.close(PATIENCE)
    });
    eventually(|| {
        link.call(&seek(2), inbox.call(2));
        // Until closing has begun these are asked; then refused.
        matches!(inbox.receive_now(), Some((2, Got::Failed(Errno::ENOTCONN))))
    });
    metadata.answer(&asked, &Ok(Answer::Empty));
    assert_eq!(inbox.next(), (1, Got::Empty));
    loop {
        let frame = metadata.request();
        if frame.header.kind == FrameKind::Bye {
            break;
        }
        metadata.answer(&frame, &Ok(Answer::Empty));
    }
    closing.join().unwrap();
    assert!(!link.status().connected);
}

#[test]
fn what_closing_does_not_wait_for_fails() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let inbox = Inbox::new();
    link.batch(write_batch(&[1], b"x"), inbox.batch(1));
    link.close(Duration::ZERO);
    assert_eq!(inbox.next(), (1, Got::Failed(Errno::ENOTCONN)));
    expect_bye(&mut metadata);
}

#[test]
fn a_link_nobody_has_any_more_takes_leave() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    drop(link);
    expect_bye(&mut metadata);
}

/// The client does not wait for answers any more.
fn expect_bye(metadata: &mut Conn) {
    while metadata.frame().header.kind != FrameKind::Bye {}
}

#[test]
fn the_keepalive_measures_the_round_trip() {
    let server = Server::new();
    let (link, mut metadata, _data) = server.link();
    let server_side = std::thread::spawn(move || metadata.request());
    eventually(|| link.status().rtt_smoothed_us.is_some());
    link.call(&seek(0), |_| ());
    server_side.join().unwrap();
}

/// A server in this process: answers at once, or when told to.
#[derive(Default)]
struct Inside {
    later: Mutex<Vec<(Frame, Reply)>>,
    deferred: bool,
}

impl Peer for Inside {
    fn submit(&self, frame: Frame, reply: Reply) {
        if self.deferred {
            self.later.lock().unwrap().push((frame, reply));
        } else if frame.header.kind != FrameKind::Bye {
            reply(reply_to(&frame));
        }
    }
}

fn reply_to(frame: &Frame) -> Frame {
    match frame.header.kind {
        FrameKind::Batch => outcomes_of(frame),
        _ => answer_to(frame, &Ok(Answer::Offset(asked_offset(frame)))),
    }
}

fn inside(deferred: bool) -> (Arc<Link>, Arc<Inside>) {
    let peer = Arc::new(Inside { deferred, ..Inside::default() });
    let welcome = Welcome { lease_ms: 5, ..Welcome::default() };
    let target = Target::Local { peer: Arc::<Inside>::clone(&peer), welcome, notices: Arc::default() };
    let (link, welcome) = Link::open(target, LinkOptions::new("/mnt").unwrap()).unwrap();
    assert_eq!(welcome.lease_ms, 5);
    (link, peer)
}

#[test]
fn a_server_in_this_process_answers_inside_the_call() {
    let (link, _peer) = inside(false);
    let inbox = Inbox::new();
    link.call(&seek(4), inbox.call(1));
    link.batch(write_batch(&[1, 2], b"x"), inbox.batch(2));
    assert_eq!(inbox.receive_now(), Some((1, Got::Offset(4))));
    assert_eq!(inbox.receive_now(), Some((2, Got::Tickets(vec![1, 2]))));
    let status = link.status();
    assert_eq!((status.connected, status.in_flight, status.frames_sent), (true, 0, 2));
}

#[test]
fn a_server_in_this_process_may_answer_later_and_from_another_thread() {
    let (link, peer) = inside(true);
    let inbox = Inbox::new();
    link.call(&seek(4), inbox.call(1));
    link.batch(write_batch(&[1], b"x"), inbox.batch(2));
    assert_eq!((inbox.receive_now(), link.status().in_flight), (None, 2));
    let later = std::mem::take(&mut *peer.later.lock().unwrap());
    std::thread::spawn(move || {
        for (frame, reply) in later {
            reply(reply_to(&frame));
        }
    });
    assert_eq!(inbox.next(), (1, Got::Offset(4)));
    assert_eq!(inbox.next(), (2, Got::Tickets(vec![1])));
    link.close(Duration::ZERO);
    assert_eq!(peer.later.lock().unwrap()[0].0.header.kind, FrameKind::Bye);
    link.call(&seek(4), inbox.call(3));
    assert_eq!(inbox.next(), (3, Got::Failed(Errno::ENOTCONN)));
}
