//! Bad frames on an established connection, and peers that do not read.

use super::{Client, Rig, Said, Wire, bytes_of, make};
use crate::base::limits::FRAME_BODY_BYTES_MAX;
use crate::base::{Caller, Errno, Ino, SessionId};
use crate::server::serve::output::Output;
use crate::server::serve::socket::{Family, Socket};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::{Frame, FrameKind, Mutation, Origin, Query, Ticket, WriteFlags, mutation, query, version};
use bytes::Bytes;
use proptest::prelude::{Strategy, any, prop_oneof};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

fn call(session: u128, sequence: u64, asked: &Query<'_>) -> Frame {
    let mut body = Vec::new();
    query::encode(&mut body, asked);
    Frame::new(FrameKind::Call, version::NEWEST, SessionId(session), sequence, body, Bytes::new())
}

#[test]
fn a_frame_that_breaks_the_protocol_ends_its_connection_and_no_other() {
    let rig = Rig::new();
    let mut other = rig.client(1);
    let good = call(2, 1, &Query::Ping);
    let with = |change: &dyn Fn(&mut Frame)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let kind = |kind| Frame::new(kind, version::NEWEST, SessionId(2), 1, Vec::new(), Bytes::new());
    let bad = [
        with(&|frame| frame.header.session = SessionId(1)),
        with(&|frame| frame.header.version += 1),
        with(&|frame| frame.header.sequence = 0),
        with(&|frame| frame.body[0] ^= 1),
        with(&|frame| frame.header.body_bytes = u32::MAX),
        kind(FrameKind::Hello),
        kind(FrameKind::Answer),
        kind(FrameKind::Outcomes),
        kind(FrameKind::Notice),
        // A call that holds no query, and a batch cut short.
        kind(FrameKind::Call),
        Frame::new(FrameKind::Batch, version::NEWEST, SessionId(2), 1, vec![1, 0, 0], Bytes::new()),
    ];
    for frame in &bad {
        let mut client = rig.client(2);
        client.wire.send(frame);
        // What can be answered is answered with a refusal first.
        let last = std::iter::from_fn(|| client.wire.receive()).count();
        assert!(last <= 1, "{frame:?}");
        assert!(other.is_open(), "{frame:?}");
    }
    assert_eq!(rig.status()["faults"], bad.len());
    assert!(rig.client(2).is_open());
}

#[test]
fn a_query_of_a_later_version_fails_alone() {
    let rig = Rig::new();
    let mut client = rig.client(1);
    let mut body = Vec::new();
    crate::wire::record::push(&mut body, 999, &[0_u8; 8], &[]);
    let frame = client.frame(FrameKind::Call, body, Vec::new());
    client.wire.send(&frame);
    assert_eq!(client.answer(), Some((client.sequence, Err(Errno::EOPNOTSUPP))));
    assert!(client.is_open());
}

/// Bytes a hostile client may send after its hello.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let queries = prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
            |(ino, cookie, bytes_max, plus)| {
                call(2, 1, &Query::ReadDir { ino: Ino(ino), cookie, bytes_max, plus })
            }
        ),
        (1..3_u64, any::<u64>(), any::<u32>())
            .prop_map(|(ino, offset, len)| { call(2, 1, &Query::Read { ino: Ino(ino), offset, len }) }),
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(ino, sequence, data_only)| {
            let ino = (ino % 2 == 0).then_some(Ino(ino));
            if data_only {
                call(2, 1, &Query::CancelLock { sequence })
            } else {
                call(2, 1, &Query::Sync { ino, data_only })
            }
        }),
        proptest::collection::vec(any::<u64>(), 0..50).prop_map(|inos| {
            let holds = inos.into_iter().map(Ino).collect();
            call(2, 1, &Query::Reassert { holds, locks: Vec::new(), last: true })
        }),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|body| {
            Frame::new(FrameKind::Call, version::NEWEST, SessionId(2), 1, body, Bytes::new())
        }),
        (proptest::collection::vec(any::<u8>(), 0..200), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(body, payload)| Frame::new(
                FrameKind::Batch,
                1,
                SessionId(2),
                1,
                body,
                payload.into()
            )),
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..300),
        // Frames whole, and with one byte of header, body or payload changed.
        (proptest::collection::vec(queries, 1..4), any::<proptest::sample::Index>(), any::<u8>()).prop_map(
            |(frames, at, flip)| {
                let mut bytes: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                bytes
            }
        ),
    ]
}

#[test]
fn whatever_a_client_sends_the_server_and_its_other_clients_go_on() {
    use proptest::test_runner::{Config, TestRunner};
    let rig = Rig::new();
    let other = std::cell::RefCell::new(rig.client(1));
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    runner
        .run(&hostile(), |bytes| {
            let mut wire = rig.client(2).wire;
            // Either side may hang up amid it.
            drop(wire.0.write_all(&bytes));
            drop(wire.0.shutdown(std::net::Shutdown::Write));
            let mut answers = Vec::new();
            let ended = wire.0.read_to_end(&mut answers);
            let hung = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!hung, "the server neither answers nor closes");
            assert!(other.borrow_mut().is_open());
            Ok(())
        })
        .unwrap();
    rig.wait_for("connections end", |status| status["connections"] == 1);
}

#[test]
fn a_listing_longer_than_a_frame_may_be_is_cut_to_it() {
    let rig = Rig::new();
    let mut client = rig.client(1);
    assert!(client.make(1, "x").0.is_ok());
    let all = Query::ReadDir { ino: Ino::ROOT, cookie: 0, bytes_max: u32::MAX, plus: true };
    assert_eq!(client.call(&all), Ok(Said::Other));
}

/// A file of a megabyte.
fn megabyte(client: &mut Client) -> Ino {
    let Ok(done) = client.make(1, "big").0 else { panic!("not made") };
    let ino = done.attr.unwrap().ino;
    let data = vec![7; 1 << 20];
    let write = Mutation::Write { ino, offset: 0, flags: WriteFlags::default(), data: &data };
    assert_eq!(client.mutate(2, &write).0.map(|done| done.bytes), Ok(1 << 20));
    ino
}

#[test]
fn a_client_that_takes_no_answers_slows_itself_down_alone_and_gets_them_all_in_the_end() {
    const READS: usize = 40;
    let rig = Rig::new();
    let mut greedy = rig.client(1);
    let ino = megabyte(&mut greedy);
    for _ in 0..READS {
        greedy.ask(&Query::Read { ino, offset: 0, len: 1 << 20 });
    }
    let mut other = rig.client(2);
    assert!(other.is_open());
    rig.wait_for("answers pile up", |status| status["bytes_out"].as_u64() >= Some(8 << 20));
    assert!(other.is_open());
    for _ in 0..READS {
        let frame = greedy.wire.receive().expect("closed");
        assert_eq!((frame.payload.len(), frame.payload[0]), (1 << 20, 7));
    }
    assert!(greedy.is_open() && other.is_open());
}

#[test]
fn a_connection_whose_answers_pile_up_without_bound_is_closed() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let output = Output::new(Arc::new(Socket::new(Family::Unix, ours.into()).unwrap()));
    let frame = |sequence| {
        let payload = Bytes::from(vec![1; 4 << 20]);
        Frame::new(FrameKind::Answer, 1, SessionId(1), sequence, Vec::new(), payload)
    };
    for sequence in 1..=8 {
        output.send(frame(sequence));
    }
    assert!(output.is_open(), "32 MiB may wait, less what the socket took");
    output.send(frame(9));
    output.send(frame(10));
    assert!(!output.is_open());
    // What the socket had taken is there, then the end.
    let mut taken = Vec::new();
    theirs.read_to_end(&mut taken).unwrap();
    assert!(taken.len() >= HEADER_BYTES && taken.len() < 5 << 20);
}

#[test]
fn a_reader_takes_no_more_frames_while_too_many_answers_wait() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let output = Arc::new(Output::new(Arc::new(Socket::new(Family::Unix, ours.into()).unwrap())));
    for sequence in 1..=7 {
        let payload = Bytes::from(vec![1; 4 << 20]);
        output.send(Frame::new(FrameKind::Answer, 1, SessionId(1), sequence, Vec::new(), payload));
    }
    assert!(output.queued_bytes() > 24 << 20);
    let writing = Arc::clone(&output);
    let writer = std::thread::spawn(move || writing.write_loop());
    let reader = std::thread::spawn(move || {
        let mut wire = Wire(theirs);
        (1..=7).for_each(|sequence| assert_eq!(wire.receive().unwrap().header.sequence, sequence));
    });
    let alive = std::cell::Cell::new(0_u32);
    assert!(output.wait_for_room(&|| alive.set(alive.get() + 1)));
    assert!(output.queued_bytes() <= 8 << 20);
    assert!(alive.get() > 0, "a peer that takes something is a sign of life");
    reader.join().unwrap();
    output.finish();
    writer.join().unwrap();
}

#[test]
fn answers_of_many_threads_arrive_whole_and_once_while_the_peer_dawdles() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let output = Arc::new(Output::new(Arc::new(Socket::new(Family::Unix, ours.into()).unwrap())));
    let writing = Arc::clone(&output);
    let writer = std::thread::spawn(move || writing.write_loop());
    let senders: Vec<_> = (0..4_u64)
        .map(|thread| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                for i in 0..50 {
                    let sequence = thread * 50 + i;
                    let payload = Bytes::from(vec![u8::try_from(sequence).unwrap(); 20_000]);
                    output.send(Frame::new(
                        FrameKind::Answer,
                        1,
                        SessionId(1),
                        sequence,
                        vec![5; 9],
                        payload,
                    ));
                }
            })
        })
        .collect();
    let mut wire = Wire(theirs);
    let mut seen: Vec<u64> = (0..200)
        .map(|_| {
            let frame = wire.receive().unwrap();
            let sequence = frame.header.sequence;
            assert!(frame.payload.iter().all(|byte| u64::from(*byte) == sequence));
            sequence
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    output.finish();
    writer.join().unwrap();
    assert!(wire.receive().is_none());
}

#[test]
fn a_refused_batch_names_each_of_its_mutations() {
    let rig = Rig::new();
    drop(rig.client(1));
    rig.wait_for("it is gone", |status| status["connections"] == 0);
    rig.pass(super::LEASE_MS + 1);
    let mut late = rig.resume(1);
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for ticket in [5, 6, 7] {
        mutation::encode(
            &mut body,
            &mut payload,
            Origin::waited(Ticket(ticket), Caller::ROOT),
            &make("late"),
        );
    }
    assert!(body.len() < FRAME_BODY_BYTES_MAX);
    let frame = late.frame(FrameKind::Batch, body, payload);
    late.wire.send(&frame);
    let frame = late.wire.receive().unwrap();
    let outcomes: Vec<_> = crate::wire::outcome::decode(&frame.body)
        .unwrap()
        .map(|told| match told {
            Ok(crate::wire::Told::One(outcome)) => outcome,
            other => panic!("{other:?}"),
        })
        .collect();
    let told: Vec<_> = outcomes.iter().map(|outcome| (outcome.ticket.0, outcome.result)).collect();
    assert_eq!(told, [5, 6, 7].map(|ticket| (ticket, Err(Errno::ESTALE))));
}
