//! A real server on a real store, asked by a client that speaks raw frames: it can misbehave as no link would.

mod frames;
mod handshake;
mod leases;
mod sessions;
mod sockets;

use super::{Listen, ServeOptions, Server};
use crate::base::{Attr, Caller, Errno, Ino, Name, SessionId, Time};
use crate::server::apply::{Volume, VolumeOptions};
use crate::server::store::{OpenFault, Store, StoreOptions};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::hello::{self, Hello, Refusal, Welcome};
use crate::wire::{
    Answer, Done, Frame, FrameKind, Header, LockKind, LockOwner, LockRequest, MakeFlags, Mutation, Origin,
    Query, Ticket, Told, answer, mutation, outcome, query, version,
};
use bytes::Bytes;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No test waits longer for anything that is to come.
const PATIENCE: Duration = Duration::from_secs(30);

const LEASE_MS: u64 = 10_000;

/// A server on a store in a folder, with a clock that the test moves.
struct Rig {
    folder: tempfile::TempDir,
    clock: Arc<AtomicU64>,
    options: ServeOptions,
    server: Option<Server>,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ServeOptions)) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let now = Arc::clone(&clock);
        let mut options = ServeOptions {
            lease: Duration::from_millis(LEASE_MS),
            grace: Duration::from_millis(LEASE_MS),
            clock: Arc::new(move || Duration::from_millis(now.load(Ordering::SeqCst))),
            ..ServeOptions::default()
        };
        change(&mut options);
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Self { folder, clock, options, server: None };
        rig.start();
        rig
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn start(&mut self) {
        let options = StoreOptions::new(Time::default(), (0, 0));
        let until = Instant::now() + PATIENCE;
        let store = loop {
            // Threads of the server before may still be on their way out.
            match Store::open(&self.folder.path().join("store"), &options) {
                Ok(store) => break store,
                Err(OpenFault::InUse { .. }) if Instant::now() < until => std::thread::yield_now(),
                Err(fault) => panic!("{fault}"),
            }
        };
        let volume = Volume::open(store, VolumeOptions::new(Arc::new(Time::default))).unwrap();
        let server = Server::open(volume, self.options.clone()).unwrap();
        server.listen(&Listen::Unix(self.socket())).unwrap();
        self.server = Some(server);
    }

    /// Ends the server without a word to anybody.
    fn crash(&mut self) {
        self.server = None;
    }

    fn restart(&mut self) {
        self.crash();
        self.start();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Lets time pass.
    fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
        self.server().tick();
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.server().status()).unwrap()
    }

    fn client(&self, session: u128) -> Client {
        Client::connect(&self.socket(), session, false)
    }

    fn resume(&self, session: u128) -> Client {
        Client::connect(&self.socket(), session, true)
    }

    fn wait_for(&self, what: &str, reached: impl Fn(&serde_json::Value) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !reached(&self.status()) {
            assert!(Instant::now() < until, "never came: {what}; {}", self.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn hello(session: u128, resumed: bool) -> Hello {
    Hello {
        version_oldest: u32::from(version::OLDEST),
        version_newest: u32::from(version::NEWEST),
        session: session.to_le_bytes().to_vec(),
        resumed,
        host: "host".to_owned(),
        pid: 7,
        mount_point: "/mnt".to_owned(),
        nonce: vec![1; 32],
        ..Hello::default()
    }
}

/// A connection that sends and receives frames.
struct Wire(UnixStream);

impl Wire {
    fn open(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, frame: &Frame) {
        self.0.write_all(&bytes_of(frame)).unwrap();
    }

    fn say(&mut self, kind: FrameKind, body: Vec<u8>) {
        self.send(&Frame::new(kind, 0, SessionId(0), 0, body, Bytes::new()));
    }

    /// The next frame; `None` when the server closed the connection.
    fn receive(&mut self) -> Option<Frame> {
        let mut header = [0; HEADER_BYTES];
        if let Err(error) = self.0.read_exact(&mut header) {
            let silent =
                matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(!silent, "the server neither answers nor closes");
            return None;
        }
        let header = Header::decode(&header).unwrap();
        let mut body = vec![0; header.body_bytes as usize];
        self.0.read_exact(&mut body).unwrap();
        header.check_body(&body).unwrap();
        let mut payload = vec![0; header.payload_bytes as usize];
        self.0.read_exact(&mut payload).unwrap();
        Some(Frame { header, body, payload: payload.into() })
    }

    /// The answer to a hello.
    fn welcome(&mut self) -> Result<Welcome, Refusal> {
        let frame = self.receive().expect("closed without a word");
        match frame.header.kind {
            FrameKind::Welcome => Ok(hello::decode(&frame.body).unwrap()),
            FrameKind::Refusal => Err(hello::decode(&frame.body).unwrap()),
            kind => panic!("{kind:?} after a hello"),
        }
    }

    fn hello(path: &Path, hello: &Hello) -> Result<(Self, Welcome), Refusal> {
        let mut wire = Self::open(path);
        wire.say(FrameKind::Hello, hello::encode(hello));
        let welcome = wire.welcome()?;
        Ok((wire, welcome))
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    [&frame.header.encode()[..], &frame.body, &frame.payload].concat()
}

/// A session's connection.
struct Client {
    wire: Wire,
    welcome: Welcome,
    session: SessionId,
    sequence: u64,
}

/// What an answer says, owned.
#[derive(Clone, PartialEq, Debug)]
enum Said {
    Empty,
    Attr(Attr),
    Lock(LockRequest),
    Bytes(Vec<u8>),
    Numbers(Ino, u32),
    Other,
}

impl Said {
    fn of(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Empty => Self::Empty,
            Answer::Attr(attr) => Self::Attr(attr),
            Answer::Lock(lock) => Self::Lock(lock),
            Answer::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Answer::Numbers { first, count } => Self::Numbers(first, count),
            _ => Self::Other,
        }
    }
}

impl Client {
    fn connect(path: &Path, session: u128, resumed: bool) -> Self {
        let (wire, welcome) = Wire::hello(path, &hello(session, resumed)).unwrap();
        // Sequences go on after a reconnect; so far apart none meets another.
        Self { wire, welcome, session: SessionId(session), sequence: 1000 }
    }

    fn frame(&mut self, kind: FrameKind, body: Vec<u8>, payload: Vec<u8>) -> Frame {
        self.sequence += 1;
        Frame::new(kind, version::NEWEST, self.session, self.sequence, body, payload.into())
    }

    /// Sends a query; returns its sequence.
    fn ask(&mut self, asked: &Query<'_>) -> u64 {
        let mut body = Vec::new();
        query::encode(&mut body, asked);
        let frame = self.frame(FrameKind::Call, body, Vec::new());
        self.wire.send(&frame);
        self.sequence
    }

    /// The next answer, of whatever query.
    fn answer(&mut self) -> Option<(u64, Result<Said, Errno>)> {
        let frame = self.wire.receive()?;
        assert_eq!((frame.header.kind, frame.header.session), (FrameKind::Answer, self.session));
        let said = answer::decode(&frame.body, &frame.payload).unwrap().0.map(Said::of);
        Some((frame.header.sequence, said))
    }

    fn call(&mut self, asked: &Query<'_>) -> Result<Said, Errno> {
        let sequence = self.ask(asked);
        let (answered, said) = self.answer().expect("closed");
        assert_eq!(answered, sequence, "{asked:?}");
        said
    }

    /// Whether the server still talks to this connection.
    fn is_open(&mut self) -> bool {
        let mut body = Vec::new();
        query::encode(&mut body, &Query::Ping);
        let frame = self.frame(FrameKind::Call, body, Vec::new());
        self.wire.0.write_all(&bytes_of(&frame)).is_ok() && self.answer().is_some()
    }

    fn lock(&mut self, ino: u64, lock: LockRequest, wait: bool) -> u64 {
        self.ask(&Query::SetLock { ino: Ino(ino), lock, wait })
    }

    fn lock_now(&mut self, ino: u64, lock: LockRequest) -> Result<Said, Errno> {
        self.call(&Query::SetLock { ino: Ino(ino), lock, wait: false })
    }

    /// Sends one mutation and returns the outcome with its bytes.
    fn mutate(&mut self, ticket: u64, asked: &Mutation<'_>) -> (Result<Done, Errno>, Vec<u8>) {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(ticket), Caller::ROOT), asked);
        let frame = self.frame(FrameKind::Batch, body, payload);
        self.wire.send(&frame);
        let frame = self.wire.receive().expect("closed");
        assert_eq!(frame.header.kind, FrameKind::Outcomes);
        let outcomes: Vec<_> = outcome::decode(&frame.body)
            .unwrap()
            .map(|told| match told {
                Ok(Told::One(outcome)) => outcome,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((outcomes.len(), outcomes[0].ticket), (1, Ticket(ticket)));
        (outcomes[0].result, frame.body)
    }

    fn make(&mut self, ticket: u64, name: &str) -> (Result<Done, Errno>, Vec<u8>) {
        self.mutate(ticket, &make(name))
    }
}

fn make(name: &str) -> Mutation<'_> {
    Mutation::Make {
        parent: Ino::ROOT,
        name: Name::parse(name.as_bytes()).unwrap(),
        mode: libc::S_IFREG | 0o644,
        umask: 0,
        rdev: 0,
        target: b"",
        flags: MakeFlags { hold: true, exclusive: true },
        ino: None,
    }
}

fn lookup(name: &str) -> Query<'_> {
    Query::Lookup { parent: Ino::ROOT, name: Name::parse(name.as_bytes()).unwrap() }
}

fn record(kind: LockKind, start: u64, end: u64) -> LockRequest {
    LockRequest { owner: LockOwner::Record(1), kind, start, end, pid: 7, handle: 1 }
}

fn exclusive() -> LockRequest {
    record(LockKind::Write, 0, i64::MAX as u64)
}

fn unlock() -> LockRequest {
    record(LockKind::Unlock, 0, i64::MAX as u64)
}
