//! A server that does what a test says, one frame at a time. Every wait has a generous bound.

use super::super::{Link, LinkFault, LinkOptions, Owner, Target, Tickets};
use crate::base::{Errno, Ino, SessionId};
use crate::client::link::Batch;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::hello::{self, Hello, Welcome};
use crate::wire::{
    Answer, Done, Frame, FrameKind, Header, Mutation, Origin, Outcome, Query, Ticket, WriteFlags, answer,
    mutation, outcome, query, version,
};
use bytes::Bytes;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const VOLUME: [u8; 16] = [7; 16];

pub(super) struct Server {
    listener: UnixListener,
    pub(super) lease_ms: u32,
    folder: tempfile::TempDir,
}

/// One connection, as the server has it.
pub(super) struct Conn {
    pub(super) stream: UnixStream,
    pub(super) session: SessionId,
}

impl Server {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self { listener, lease_ms: 30_000, folder }
    }

    pub(super) fn target(&self) -> Target {
        Target::Unix(self.folder.path().join("socket"))
    }

    pub(super) fn accept(&self) -> Conn {
        self.listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("nobody connects: {error}"),
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Conn { stream, session: SessionId(0) }
    }

    pub(super) fn welcome(&self, session_known: bool) -> Welcome {
        Welcome {
            version: u32::from(version::NEWEST),
            volume: VOLUME.to_vec(),
            epoch: 1,
            session_known,
            lease_ms: self.lease_ms,
            read_only: false,
            program: "test".into(),
            ..Welcome::default()
        }
    }

    /// Both connections of a session, accepted without a secret. Returns whether it is a resumed one.
    pub(super) fn accept_both(&self, session_known: bool) -> (Conn, Conn, bool) {
        let mut metadata = self.accept();
        let hello = metadata.hello();
        metadata.welcome(&self.welcome(session_known));
        let mut data = self.accept();
        let second = data.hello();
        assert!(!second.resumed, "it stands beside the first");
        assert_eq!(hello.session, second.session);
        data.welcome(&self.welcome(true));
        (metadata, data, hello.resumed)
    }

    /// The same for a session that comes back; its re-assertion is taken.
    pub(super) fn accept_again(&self) -> (Conn, Conn) {
        let (mut metadata, data, resumed) = self.accept_both(true);
        assert!(resumed);
        loop {
            let (frame, last) = metadata.reassert();
            metadata.answer(&frame, &Ok(Answer::Empty));
            if last.2 {
                return (metadata, data);
            }
        }
    }

    pub(super) fn options() -> LinkOptions {
        let mut options = LinkOptions::new("/mnt").unwrap();
        options.backoff_min = Duration::from_millis(1);
        options.backoff_max = Duration::from_millis(5);
        options
    }

    /// A link and the server's ends of its connections.
    pub(super) fn link(&self) -> (Arc<Link>, Conn, Conn) {
        self.link_with(Self::options())
    }

    pub(super) fn link_with(&self, options: LinkOptions) -> (Arc<Link>, Conn, Conn) {
        let opening = self.open(options);
        let (metadata, data, resumed) = self.accept_both(false);
        assert!(!resumed);
        let (link, welcome) = opening.join().unwrap().unwrap();
        assert_eq!(welcome.volume, VOLUME);
        (link, metadata, data)
    }

    pub(super) fn open(
        &self,
        options: LinkOptions,
    ) -> std::thread::JoinHandle<Result<(Arc<Link>, Welcome), LinkFault>> {
        let target = self.target();
        std::thread::spawn(move || Link::open(target, options))
    }
}

impl Conn {
    pub(super) fn frame(&mut self) -> Frame {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).unwrap();
        let header = Header::decode(&head).unwrap();
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body).unwrap();
        header.check_body(&body).unwrap();
        let mut payload = vec![0; header.payload_bytes as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Frame { header, body, payload: payload.into() }
    }

    /// The next frame that is no keepalive; those are answered.
    pub(super) fn request(&mut self) -> Frame {
        loop {
            let frame = self.frame();
            if frame.header.kind == FrameKind::Call && query::decode(&frame.body) == Ok(Query::Ping) {
                self.answer(&frame, &Ok(Answer::Empty));
                continue;
            }
            return frame;
        }
    }

    pub(super) fn hello(&mut self) -> Hello {
        let frame = self.frame();
        assert_eq!((frame.header.kind, frame.header.version), (FrameKind::Hello, 0));
        self.session = frame.header.session;
        let hello: Hello = hello::decode(&frame.body).unwrap();
        assert_eq!(hello.session, self.session.0.to_le_bytes());
        hello
    }

    pub(super) fn cold(&mut self, kind: FrameKind, message: &impl prost::Message) {
        let frame = Frame::new(kind, 0, self.session, 0, hello::encode(message), Bytes::new());
        self.send(&frame);
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome) {
        self.cold(FrameKind::Welcome, welcome);
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&bytes_of(frame)).unwrap();
    }

    pub(super) fn answer(&mut self, asked: &Frame, answer: &Result<Answer<'_>, Errno>) {
        let frame = answer_to(asked, answer);
        self.send(&frame);
    }

    pub(super) fn outcomes(&mut self, asked: &Frame) {
        let frame = outcomes_of(asked);
        self.send(&frame);
    }

    /// A piece of a re-assertion: its frame, and its number of holds, of locks, and whether it is the last.
    pub(super) fn reassert(&mut self) -> (Frame, (Vec<Ino>, usize, bool)) {
        let frame = self.frame();
        let Ok(Query::Reassert { holds, locks, last }) = query::decode(&frame.body) else {
            panic!("expected a re-assertion, not {:?}", query::decode(&frame.body))
        };
        let piece = (holds, locks.len(), last);
        (frame, piece)
    }
}

pub(super) fn bytes_of(frame: &Frame) -> Vec<u8> {
    [&frame.header.encode()[..], &frame.body, &frame.payload].concat()
}

pub(super) fn answer_to(asked: &Frame, answer: &Result<Answer<'_>, Errno>) -> Frame {
    let mut body = Vec::new();
    answer::encode(&mut body, answer);
    let payload = match answer {
        Ok(Answer::Data(data)) => Bytes::copy_from_slice(data),
        _ => Bytes::new(),
    };
    let h = asked.header;
    Frame::new(FrameKind::Answer, h.version, h.session, h.sequence, body, payload)
}

/// Every mutation is done; `offset` repeats the ticket.
pub(super) fn outcomes_of(asked: &Frame) -> Frame {
    let mut body = Vec::new();
    outcome::begin(&mut body, 1);
    for mutation in mutation::decode_batch(&asked.body, &asked.payload) {
        let (Origin { ticket, .. }, mutation) = mutation.unwrap();
        mutation.unwrap();
        let done = Done { offset: ticket.0, ..Done::default() };
        outcome::encode(&mut body, &Outcome { ticket, result: Ok(done) });
    }
    let h = asked.header;
    Frame::new(FrameKind::Outcomes, h.version, h.session, h.sequence, body, Bytes::new())
}

/// What a closure of a request was given.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Got {
    Empty,
    Offset(u64),
    Bytes(Vec<u8>),
    Tickets(Vec<u64>),
    Failed(Errno),
}

pub(super) struct Inbox {
    sender: Sender<(u64, Got)>,
    receiver: Receiver<(u64, Got)>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }

    /// A closure that puts what it gets here under `key`.
    pub(super) fn call(
        &self,
        key: u64,
    ) -> impl for<'a> FnOnce(Result<Answer<'a>, Errno>) + Send + 'static + use<> {
        let sender = self.sender.clone();
        move |answer: Result<Answer<'_>, Errno>| {
            let got = match answer {
                Ok(Answer::Empty) => Got::Empty,
                Ok(Answer::Offset(offset)) => Got::Offset(offset),
                Ok(Answer::Data(bytes) | Answer::Bytes(bytes)) => Got::Bytes(bytes.to_vec()),
                Ok(other) => panic!("unexpected {other:?}"),
                Err(errno) => Got::Failed(errno),
            };
            sender.send((key, got)).unwrap();
        }
    }

    pub(super) fn batch(
        &self,
        key: u64,
    ) -> impl for<'a> FnOnce(Result<&'a [Outcome], Errno>) + Send + 'static + use<> {
        let sender = self.sender.clone();
        move |outcomes: Result<&[Outcome], Errno>| {
            let got = match outcomes {
                Ok(outcomes) => {
                    let offset = |outcome: &Outcome| outcome.result.unwrap().offset;
                    Got::Tickets(outcomes.iter().map(offset).collect())
                }
                Err(errno) => Got::Failed(errno),
            };
            sender.send((key, got)).unwrap();
        }
    }

    pub(super) fn next(&self) -> (u64, Got) {
        self.receiver.recv_timeout(PATIENCE).unwrap()
    }

    pub(super) fn receive_now(&self) -> Option<(u64, Got)> {
        self.receiver.try_recv().ok()
    }
}

pub(super) fn seek(offset: u64) -> Query<'static> {
    Query::Seek { ino: Ino(1), offset, to: crate::wire::SeekTo::Data }
}

/// What a `seek` asked for.
pub(super) fn asked_offset(frame: &Frame) -> u64 {
    match query::decode(&frame.body) {
        Ok(Query::Seek { offset, .. }) => offset,
        other => panic!("expected a seek, not {other:?}"),
    }
}

pub(super) fn write_batch(tickets: &[u64], data: &[u8]) -> Batch {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for ticket in tickets {
        let write = Mutation::Write { ino: Ino(2), offset: 0, flags: WriteFlags::default(), data };
        mutation::encode(
            &mut body,
            &mut payload,
            Origin::waited(Ticket(*ticket), crate::base::Caller::ROOT),
            &write,
        );
    }
    let tickets: Vec<Ticket> = tickets.iter().map(|ticket| Ticket(*ticket)).collect();
    let tickets = match tickets[..] {
        [one] => Tickets::One(one),
        _ => Tickets::Many(tickets.into()),
    };
    Batch { tickets, body: body.into(), payload: payload.into() }
}

/// Polls until `what` holds.
pub(super) fn eventually(mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < deadline, "it never came about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn weak<O: Owner + 'static>(owner: &Arc<O>) -> Weak<dyn Owner> {
    let weak: Weak<O> = Arc::downgrade(owner);
    weak
}
