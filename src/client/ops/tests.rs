//! Operations against a server whose answers the test gives, one by one, when it likes: what is asked, in which order,
//! and what the kernel is told. A real server is behind the tests that mount.

mod behind;
mod late;

use super::{Context, Reply, attributes, data, directory, lock, lookup, make, open, remove, xattr};
use crate::base::{Attr, Caller, Errno, HandleId, Ino, Kind, Name, Time};
use crate::client::late::LateOptions;
use crate::client::link::{LinkOptions, Target};
use crate::client::mount::{Mount, Options};
use crate::client::namespace::InodeCounts;
use crate::kernel::abi::flags::{OPEN_KILL_SUIDGID, WRITE_CACHE};
use crate::kernel::abi::{
    CreateIn, CreateOut, Dirent, Direntplus, EntryOut, FlushIn, OpenIn, OpenOut, ReadIn, ReleaseIn, WriteIn,
};
use crate::kernel::decode::{Lock, LockKind, LookupName};
use crate::wire::hello::Welcome;
use crate::wire::{
    Answer, DirEntry, Done, Frame, FrameKind, Mutation, Outcome, Peer, Query, WriteFlags, answer, mutation,
    outcome, query,
};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use zerocopy::FromBytes;

/// The server: keeps what it is asked until the test answers it.
#[derive(Default)]
struct Script(Mutex<VecDeque<(Frame, crate::wire::Reply)>>);

impl Peer for Script {
    fn submit(&self, frame: Frame, reply: crate::wire::Reply) {
        self.0.lock().unwrap().push_back((frame, reply));
    }
}

impl Script {
    fn take(&self) -> (Frame, crate::wire::Reply) {
        self.0.lock().unwrap().pop_front().expect("the client asked for something")
    }

    /// Until something is asked.
    fn wait(&self) {
        let started = std::time::Instant::now();
        while self.is_quiet() {
            assert!(started.elapsed().as_secs() < 30, "the client asked for nothing");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn is_quiet(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Answers the oldest question, after `check` has seen it.
    fn answer(&self, check: impl FnOnce(Query<'_>), told: Result<Answer<'_>, Errno>) {
        let (frame, reply) = self.take();
        assert_eq!(frame.header.kind, FrameKind::Call);
        check(query::decode(&frame.body).unwrap());
        let mut body = Vec::new();
        answer::encode(&mut body, &told);
        let payload = match told {
            Ok(Answer::Data(data)) => bytes::Bytes::copy_from_slice(data),
            _ => bytes::Bytes::new(),
        };
        let header = frame.header;
        reply(Frame::new(FrameKind::Answer, 1, header.session, header.sequence, body, payload));
    }

    fn asked(&self, expected: &Query<'_>, told: Result<Answer<'_>, Errno>) {
        self.answer(|found| assert_eq!(&found, expected), told);
    }

    /// Gives the oldest batch's only mutation its outcome, after `check` has seen it.
    fn outcome(&self, check: impl FnOnce(Mutation<'_>), result: Result<Done, Errno>) {
        self.outcome_in(1, check, result);
    }

    /// The same, in this commit.
    fn outcome_in(&self, commit: u64, check: impl FnOnce(Mutation<'_>), result: Result<Done, Errno>) {
        let (frame, reply) = self.take();
        assert_eq!(frame.header.kind, FrameKind::Batch);
        let (origin, mutation) = mutation::decode_batch(&frame.body, &frame.payload).next().unwrap().unwrap();
        check(mutation.unwrap());
        let mut body = Vec::new();
        outcome::begin(&mut body, commit);
        outcome::encode(&mut body, &Outcome { ticket: origin.ticket, result });
        let header = frame.header;
        reply(Frame::new(FrameKind::Outcomes, 1, header.session, header.sequence, body, bytes::Bytes::new()));
    }

    /// The oldest question is for a sync; all up to this commit is durable.
    fn synced(&self, commit: u64) {
        let (frame, reply) = self.take();
        assert_eq!(query::decode(&frame.body), Ok(Query::Sync { ino: None, data_only: false }));
        let mut body = Vec::new();
        answer::encode(&mut body, &Ok(Answer::Empty));
        let header = frame.header;
        let frame =
            Frame::new(FrameKind::Answer, 1, header.session, header.sequence, body, bytes::Bytes::new());
        reply(frame.durable(commit));
    }
}

/// Where the kernel would hear.
struct Told(Sender<Result<Vec<u8>, Errno>>);

impl Reply for Told {
    fn errno(self, errno: Errno) {
        self.0.send(Err(errno)).unwrap();
    }

    fn parts(self, parts: &[&[u8]]) {
        self.0.send(Ok(parts.concat())).unwrap();
    }

    fn fill(self, bytes_max: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut buffer = vec![0; bytes_max];
        let used = write(&mut buffer);
        buffer.truncate(used);
        self.0.send(Ok(buffer)).unwrap();
    }
}

struct Heard(Receiver<Result<Vec<u8>, Errno>>);

impl Heard {
    fn now(&self) -> Result<Vec<u8>, Errno> {
        self.0.try_recv().expect("the kernel was answered")
    }

    fn nothing(&self) {
        assert!(self.0.try_recv().is_err(), "the kernel was answered too early");
    }

    fn record<T: FromBytes>(&self) -> T {
        T::read_from_bytes(&self.now().unwrap()).unwrap()
    }
}

fn told() -> (Told, Heard) {
    let (send, receive) = channel();
    (Told(send), Heard(receive))
}

struct Bench {
    mount: Arc<Mount>,
    server: Arc<Script>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let server = Arc::new(Script::default());
        let peer: Arc<dyn Peer> = Arc::<Script>::clone(&server);
        let target = Target::Local { peer, welcome: Welcome::default(), notices: Arc::default() };
        let (mount, _) =
            Mount::open(target, LinkOptions::new("/test").unwrap(), options, LateOptions::default()).unwrap();
        Self { mount, server }
    }

    fn cx(&self, ino: Ino) -> Context {
        self.cx_of(ino, 2)
    }

    fn cx_of(&self, ino: Ino, unique: u64) -> Context {
        Context { mount: Arc::clone(&self.mount), unique, ino, caller: Caller { uid: 5, gid: 6, pid: 0 } }
    }

    /// Opens the file; the server is asked to hold it if `ask`.
    fn open(&self, ino: Ino, ask: bool) -> HandleId {
        let (reply, heard) = told();
        open::open(self.cx(ino), &OpenIn::default())(reply);
        if ask {
            self.server.asked(&Query::Hold { ino }, Ok(Answer::Attr(attr(ino))));
        }
        HandleId(heard.record::<OpenOut>().fh)
    }

    fn release(&self, ino: Ino, handle: HandleId) {
        let args = ReleaseIn { fh: handle.0, ..ReleaseIn::default() };
        assert!(open::release::<Told>(self.cx(ino), &args).unwrap().is_none());
    }

    fn counts(&self) -> InodeCounts {
        self.mount.namespace.inodes.counts()
    }
}

const FILE: Ino = Ino(9);

fn attr(ino: Ino) -> Attr {
    let time = Time { secs: 1, nanos: 2 };
    Attr {
        ino,
        mode: 0o100_644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 3,
        blocks: 8,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    }
}

fn name(bytes: &[u8]) -> Name<'_> {
    Name::parse(bytes).unwrap()
}

fn done(ino: Ino) -> Done {
    Done { attr: Some(attr(ino)), ..Done::default() }
}

#[test]
fn a_lookup_counts_before_the_kernel_hears_and_keeps_nothing() {
    let b = Bench::new();
    let (reply, heard) = told();
    lookup::lookup(b.cx(Ino::ROOT), LookupName::Name(name(b"f")))(reply);
    let question = Query::Lookup { parent: Ino::ROOT, name: name(b"f") };
    b.server.asked(&question, Ok(Answer::Attr(attr(FILE))));
    let entry: EntryOut = heard.record();
    assert_eq!((entry.nodeid, entry.entry_valid, entry.attr_valid), (9, 0, 0));
    assert_eq!(b.counts().known, 1);
    lookup::forget(&b.mount, FILE, 1);
    assert_eq!(b.counts().known, 0);
}

#[test]
fn an_unknown_inode_is_stale_and_an_unknown_name_is_absent() {
    let b = Bench::new();
    let (reply, heard) = told();
    lookup::lookup(b.cx(Ino::ROOT), LookupName::Name(name(b"f")))(reply);
    b.server.answer(|_| (), Err(Errno::ENOENT));
    assert_eq!(heard.now(), Err(Errno::ENOENT));
    let (reply, heard) = told();
    lookup::lookup(b.cx(FILE), LookupName::Itself)(reply);
    b.server.asked(&Query::GetAttr { ino: FILE }, Err(Errno::ENOENT));
    assert_eq!(heard.now(), Err(Errno::ESTALE));
    let (reply, heard) = told();
    attributes::getattr(b.cx(FILE))(reply);
    b.server.asked(&Query::GetAttr { ino: FILE }, Err(Errno::ENOENT));
    assert_eq!(heard.now(), Err(Errno::ESTALE));
}

#[test]
fn the_server_is_asked_to_hold_once_and_to_drop_after_the_last_close() {
    let b = Bench::new();
    b.mount.namespace.inodes.looked_up(FILE);
    let first = b.open(FILE, true);
    let second = b.open(FILE, false);
    b.release(FILE, first);
    assert!(b.server.is_quiet());
    b.release(FILE, second);
    b.server.asked(&Query::Drop { inos: vec![FILE] }, Ok(Answer::Empty));
    assert_eq!(b.counts().held, 0);
    let args = ReleaseIn { fh: second.0, ..ReleaseIn::default() };
    assert_eq!(open::release::<Told>(b.cx(FILE), &args).err(), Some(Errno::EBADF));
}

#[test]
fn an_open_does_not_overtake_a_drop_of_the_same_inode() {
    let b = Bench::new();
    b.mount.namespace.inodes.looked_up(FILE);
    let handle = b.open(FILE, true);
    b.release(FILE, handle);
    let (reply, heard) = told();
    open::open(b.cx(FILE), &OpenIn::default())(reply);
    heard.nothing();
    b.server.asked(&Query::Drop { inos: vec![FILE] }, Ok(Answer::Empty));
    heard.nothing();
    b.server.asked(&Query::Hold { ino: FILE }, Ok(Answer::Attr(attr(FILE))));
    heard.record::<OpenOut>();
    assert_eq!(b.counts().held, 1);
}

#[test]
fn drops_gather_while_one_is_on_its_way_and_for_a_moment_after() {
    let b = Bench::new();
    let handles: Vec<_> = (10..20).map(|ino| (Ino(ino), b.open(Ino(ino), true))).collect();
    for (ino, handle) in handles {
        b.release(ino, handle);
    }
    b.server.asked(&Query::Drop { inos: vec![Ino(10)] }, Ok(Answer::Empty));
    b.server.wait();
    b.server
        .answer(|found| assert!(matches!(found, Query::Drop { inos } if inos.len() == 9)), Ok(Answer::Empty));
    assert!(b.server.is_quiet());
    assert_eq!(b.counts(), InodeCounts::default());
}

#[test]
fn a_file_unlinked_while_open_is_dropped_when_closed_and_forgotten() {
    let b = Bench::new();
    b.mount.namespace.inodes.looked_up(FILE);
    let handle = b.open(FILE, true);
    let (reply, heard) = told();
    remove::unlink(b.cx(Ino::ROOT), name(b"f"))(reply);
    let orphan = Done { orphan: Some(FILE), ..Done::default() };
    let expected = Mutation::Unlink { parent: Ino::ROOT, name: name(b"f"), ino: None, hold: true };
    b.server.outcome(|found| assert_eq!(found, expected), Ok(orphan));
    assert_eq!(heard.now(), Ok(vec![]));
    b.release(FILE, handle);
    assert!(b.server.is_quiet(), "an O_PATH descriptor may still see it");
    lookup::forget(&b.mount, FILE, 1);
    b.server.asked(&Query::Drop { inos: vec![FILE] }, Ok(Answer::Empty));
}

#[test]
fn an_open_with_o_trunc_truncates_after_the_hold_and_is_undone_when_that_fails() {
    let b = Bench::new();
    b.mount.namespace.inodes.looked_up(FILE);
    let (reply, heard) = told();
    let flags = (libc::O_TRUNC | libc::O_WRONLY).cast_unsigned();
    open::open(b.cx(FILE), &OpenIn { flags, open_flags: OPEN_KILL_SUIDGID })(reply);
    b.server.asked(&Query::Hold { ino: FILE }, Ok(Answer::Attr(attr(FILE))));
    let truncates = |found: Mutation<'_>| {
        assert!(
            matches!(found, Mutation::SetAttr { ino: FILE, set } if set.size == Some(0) && set.kill_suidgid)
        );
    };
    b.server.outcome(truncates, Err(Errno::EROFS));
    assert_eq!(heard.now(), Err(Errno::EROFS));
    b.server.asked(&Query::Drop { inos: vec![FILE] }, Ok(Answer::Empty));
    assert!(b.mount.namespace.handles.is_empty());
}

#[test]
fn a_create_that_finds_a_file_opens_it_and_one_that_finds_another_kind_starts_over() {
    let b = Bench::new();
    let create = |flags: i32| {
        let (reply, heard) = told();
        let args = CreateIn { flags: flags.cast_unsigned(), mode: 0o644, ..CreateIn::default() };
        make::create(b.cx(Ino::ROOT), &args, name(b"f"))(reply);
        heard
    };
    let heard = create(libc::O_CREAT);
    b.server.outcome(
        |found| assert!(matches!(found, Mutation::Make { flags, .. } if flags.hold && !flags.exclusive)),
        Ok(Done { existed: true, ..done(FILE) }),
    );
    heard.nothing();
    b.server.asked(&Query::Hold { ino: FILE }, Ok(Answer::Attr(attr(FILE))));
    assert_eq!(heard.record::<CreateOut>().entry.nodeid, 9);
    let counts = b.counts();
    assert_eq!((counts.known, counts.held, b.mount.namespace.handles.len()), (1, 1, 1));

    let heard = create(libc::O_CREAT);
    b.server.outcome(|_| (), Err(Errno::EEXIST));
    assert_eq!(heard.now(), Err(Errno::ESTALE));
    let heard = create(libc::O_CREAT | libc::O_EXCL);
    b.server.outcome(|_| (), Err(Errno::EEXIST));
    assert_eq!(heard.now(), Err(Errno::EEXIST));
}

#[test]
fn a_created_file_is_open_and_held_without_another_question() {
    let b = Bench::new();
    let (reply, heard) = told();
    make::create(b.cx(Ino::ROOT), &CreateIn::default(), name(b"f"))(reply);
    b.server.outcome(|_| (), Ok(done(FILE)));
    let made: CreateOut = heard.record();
    assert!(b.server.is_quiet());
    b.release(FILE, HandleId(made.open.fh));
    b.server.asked(&Query::Drop { inos: vec![FILE] }, Ok(Answer::Empty));
    lookup::forget(&b.mount, FILE, 1);
    assert_eq!(b.counts(), InodeCounts::default());
}

#[test]
fn append_is_left_to_the_server_except_for_pages_of_the_cache() {
    let b = Bench::new();
    let write = |write_flags, flags: i32| {
        let (reply, heard) = told();
        let args =
            WriteIn { offset: 7, size: 3, write_flags, flags: flags.cast_unsigned(), ..WriteIn::default() };
        data::write(b.cx(FILE), &args, b"abc")(reply);
        heard
    };
    let expects = |append| {
        move |found: Mutation<'_>| {
            let flags = WriteFlags { append, kill_suidgid: false };
            assert_eq!(found, Mutation::Write { ino: FILE, offset: 7, flags, data: b"abc" });
        }
    };
    let written = Done { bytes: 3, ..done(FILE) };
    let heard = write(0, libc::O_APPEND);
    b.server.outcome(expects(true), Ok(written));
    assert_eq!(heard.now(), Ok(vec![3, 0, 0, 0, 0, 0, 0, 0]));
    let heard = write(WRITE_CACHE, libc::O_APPEND | libc::O_SYNC);
    b.server.outcome(expects(false), Ok(written));
    heard.now().unwrap();
    let heard = write(0, libc::O_SYNC);
    b.server.outcome(expects(false), Ok(written));
    heard.nothing();
    b.server.asked(&Query::Sync { ino: None, data_only: false }, Err(Errno::EIO));
    assert_eq!(heard.now(), Err(Errno::EIO));
}

#[test]
fn a_listing_is_cut_where_the_kernels_buffer_ends_and_goes_on_there() {
    let b = Bench::new();
    let list = |offset, size, plus| {
        let (reply, heard) = told();
        directory::readdir(b.cx(Ino(4)), &ReadIn { offset, size, ..ReadIn::default() }, plus)(reply);
        heard
    };
    let entry =
        |n: u64| DirEntry { ino: Ino(n), cookie: n + 16, kind: Kind::File, name: b"name", attr: None };
    let heard = list(0, 4096, false);
    b.server.asked(&Query::Parent { ino: Ino(4) }, Ok(Answer::Attr(attr(Ino(3)))));
    let entries = || (20..400).map(entry).collect();
    b.server.answer(
        |found| assert!(matches!(found, Query::ReadDir { cookie: 0, bytes_max: 4096, .. })),
        Ok(Answer::Entries { entries: entries(), end: false }),
    );
    let bytes = heard.now().unwrap();
    let all: Vec<Dirent> =
        bytes.chunks(32).map(|record| Dirent::read_from_prefix(record).unwrap().0).collect();
    assert_eq!((all.len(), all[0].ino, all[1].ino), (128, 4, 3));
    assert_eq!((all[0].off, all[1].off, all[2].off, all[127].off), (1, 2, 36, 36 + 125));

    let heard = list(1, 4096, true);
    b.server.asked(&Query::Parent { ino: Ino(4) }, Err(Errno::ENOENT));
    let with = |n: u64| DirEntry { attr: Some(attr(Ino(n))), ..entry(n) };
    let entries = (20..400).map(with).collect();
    b.server.answer(|_| (), Ok(Answer::Entries { entries, end: false }));
    let bytes = heard.now().unwrap();
    let all: Vec<Direntplus> =
        bytes.chunks(160).map(|record| Direntplus::read_from_prefix(record).unwrap().0).collect();
    assert_eq!((all.len(), all[0].entry.nodeid, all[0].dirent.off, all[0].dirent.ino), (25, 0, 2, 4));
    assert_eq!(b.counts().known, 24, "one lookup for each entry returned, none for the dots");

    let heard = list(36, 4096, false);
    b.server.answer(
        |found| assert!(matches!(found, Query::ReadDir { cookie: 36, .. })),
        Ok(Answer::Entries { entries: vec![], end: true }),
    );
    assert_eq!(heard.now(), Ok(vec![]));
}

#[test]
fn the_size_of_an_attribute_is_told_and_a_buffer_too_small_is_erange() {
    let b = Bench::new();
    for (size, expected) in
        [(0, Ok(vec![5, 0, 0, 0, 0, 0, 0, 0])), (5, Ok(b"value".to_vec())), (4, Err(Errno::ERANGE))]
    {
        let (reply, heard) = told();
        xattr::list(b.cx(FILE), size)(reply);
        b.server.asked(&Query::ListXattr { ino: FILE }, Ok(Answer::Bytes(b"value")));
        assert_eq!(heard.now(), expected);
    }
}

fn refusal(frame: &Frame, errno: Errno) -> Frame {
    let mut body = Vec::new();
    answer::encode(&mut body, &Err(errno));
    let header = frame.header;
    Frame::new(FrameKind::Answer, 1, header.session, header.sequence, body, bytes::Bytes::new())
}

fn write_lock(handle: HandleId) -> Lock {
    Lock { handle, owner: 77, start: 0, end: 9, kind: LockKind::Write, pid: 1, flock: false }
}

#[test]
fn a_waiting_lock_is_cancelled_by_an_interrupt_before_and_after_it_is_asked() {
    let b = Bench::new();
    let handle = b.open(FILE, true);
    let (reply, heard) = told();
    lock::setlk(b.cx_of(FILE, 40), &write_lock(handle), true)(reply);
    let (frame, waiting) = b.server.take();
    b.mount.interrupt(40);
    b.server.asked(&Query::CancelLock { sequence: frame.header.sequence }, Ok(Answer::Empty));
    heard.nothing();
    waiting(refusal(&frame, Errno::EINTR));
    assert_eq!(heard.now(), Err(Errno::EINTR));

    b.mount.interrupt(44);
    let (reply, heard) = told();
    lock::setlk(b.cx_of(FILE, 44), &write_lock(handle), true)(reply);
    let (frame, waiting) = b.server.take();
    b.server.asked(&Query::CancelLock { sequence: frame.header.sequence }, Ok(Answer::Empty));
    waiting(refusal(&frame, Errno::EINTR));
    assert_eq!(heard.now(), Err(Errno::EINTR));
    assert!(b.server.is_quiet());
    assert!(b.mount.namespace.locks.all().is_empty());
}

#[test]
fn a_lock_refused_because_of_a_file_that_closes_is_asked_for_again() {
    let b = Bench::new();
    let (first, second) = (b.open(FILE, true), b.open(FILE, false));
    let flock = |handle: HandleId| Lock { owner: handle.0, flock: true, ..write_lock(handle) };
    let try_lock = |handle| {
        let (reply, heard) = told();
        lock::setlk(b.cx(FILE), &flock(handle), false)(reply);
        heard
    };
    let heard = try_lock(first);
    b.server.answer(|_| (), Ok(Answer::Empty));
    heard.now().unwrap();
    let heard = try_lock(second);
    b.server.answer(|_| (), Err(Errno::EAGAIN));
    assert_eq!(heard.now(), Err(Errno::EAGAIN), "nobody has closed anything");

    assert!(open::flush::<Told>(b.cx(FILE), &FlushIn { fh: first.0, ..FlushIn::default() }).is_none());
    let heard = try_lock(second);
    b.server.answer(|_| (), Err(Errno::EAGAIN));
    heard.nothing();
    let (reply, released) = told();
    let args = ReleaseIn { fh: first.0, ..ReleaseIn::default() };
    open::release(b.cx(FILE), &args).unwrap().unwrap()(reply);
    b.server.asked(&Query::UnlockHandle { ino: FILE, handle: first.0 }, Ok(Answer::Empty));
    released.now().unwrap();
    b.server.answer(|found| assert!(matches!(found, Query::SetLock { .. })), Ok(Answer::Empty));
    heard.now().unwrap();

    // A duplicate was closed, the lock lives on: told when the grace is over.
    assert!(open::flush::<Told>(b.cx(FILE), &FlushIn { fh: second.0, ..FlushIn::default() }).is_none());
    let third = b.open(FILE, false);
    let heard = try_lock(third);
    b.server.answer(|_| (), Err(Errno::EAGAIN));
    while b.server.is_quiet() {
        std::thread::yield_now();
    }
    b.server.answer(|_| (), Err(Errno::EAGAIN));
    assert_eq!(heard.0.recv(), Ok(Err(Errno::EAGAIN)));
}

#[test]
fn closing_unlocks_what_was_locked_and_asks_nothing_otherwise() {
    let b = Bench::new();
    let handle = b.open(FILE, true);
    let flush = FlushIn { fh: handle.0, lock_owner: 77, ..FlushIn::default() };
    assert!(open::flush::<Told>(b.cx(FILE), &flush).is_none());
    let (reply, heard) = told();
    lock::setlk(b.cx(FILE), &write_lock(handle), false)(reply);
    b.server.answer(|found| assert!(matches!(found, Query::SetLock { wait: false, .. })), Ok(Answer::Empty));
    assert_eq!(heard.now(), Ok(vec![]));
    assert_eq!(b.mount.namespace.locks.all().len(), 1);

    let (reply, heard) = told();
    open::flush(b.cx(FILE), &flush).unwrap()(reply);
    b.server.asked(&Query::UnlockOwner { ino: FILE, owner: 77 }, Ok(Answer::Empty));
    assert_eq!(heard.now(), Ok(vec![]));
    assert!(b.mount.namespace.locks.all().is_empty());

    let (reply, heard) = told();
    let args = ReleaseIn { fh: handle.0, ..ReleaseIn::default() };
    open::release(b.cx(FILE), &args).unwrap().unwrap()(reply);
    heard.nothing();
    b.server.asked(&Query::UnlockHandle { ino: FILE, handle: handle.0 }, Ok(Answer::Empty));
    assert_eq!(heard.now(), Ok(vec![]));
    b.server.asked(&Query::Drop { inos: vec![FILE] }, Ok(Answer::Empty));
}

#[test]
fn a_lock_that_was_asked_to_end_is_not_asserted_again() {
    use crate::client::link::Owner;
    use crate::wire::LockKind::{Read, Write};
    let b = Bench::new();
    let handle = b.open(FILE, true);
    let ask = |lock: Lock, wait| {
        let (reply, heard) = told();
        lock::setlk(b.cx(FILE), &lock, wait)(reply);
        heard
    };
    let asserted = || {
        let mut all: Vec<_> = b.mount.held().locks.iter().map(|(_, l)| (l.start, l.end, l.kind)).collect();
        all.sort_unstable_by_key(|(start, ..)| *start);
        all
    };
    let granted = |lock, wait| {
        let _heard = ask(lock, wait);
        b.server.answer(|_| (), Ok(Answer::Empty));
    };
    let lock = write_lock(handle);
    granted(lock, false);
    // The server may have given it to another when the connection is lost before its answer has come.
    let unlocked = ask(Lock { start: 3, end: 5, kind: LockKind::Unlock, ..lock }, false);
    assert_eq!(asserted(), [(0, 2, Write), (6, 9, Write)]);
    assert!(b.mount.namespace.locks.owner_has_any(FILE, 77));
    b.server.answer(|_| (), Ok(Answer::Empty));
    unlocked.now().unwrap();
    let _weaker = ask(Lock { start: 7, kind: LockKind::Read, ..lock }, false);
    assert_eq!(asserted(), [(0, 2, Write), (6, 6, Write), (7, 9, Read)]);
    b.server.answer(|_| (), Ok(Answer::Empty));
    // What is not held in some way may be refused, and then nothing has changed.
    let _wider = ask(Lock { end: 20, kind: LockKind::Read, ..lock }, false);
    b.server.answer(|_| (), Err(Errno::EAGAIN));
    assert_eq!(asserted(), [(0, 2, Write), (6, 6, Write), (7, 9, Read)]);
    let (reply, _closed) = told();
    open::flush(b.cx(FILE), &FlushIn { fh: handle.0, lock_owner: 77, ..FlushIn::default() }).unwrap()(reply);
    assert_eq!(asserted(), []);
    b.server.answer(|_| (), Ok(Answer::Empty));

    // A flock is given up before it is converted.
    let flock = Lock { flock: true, kind: LockKind::Read, ..lock };
    granted(flock, false);
    let _stronger = ask(Lock { kind: LockKind::Write, ..flock }, true);
    assert_eq!(asserted(), []);
    b.server.answer(|_| (), Ok(Answer::Empty));
    assert_eq!(asserted(), [(0, 9, Write)]);
    let (reply, _released) = told();
    let args = ReleaseIn { fh: handle.0, ..ReleaseIn::default() };
    open::release(b.cx(FILE), &args).unwrap().unwrap()(reply);
    assert_eq!(asserted(), []);
}

#[test]
fn a_change_that_finds_the_log_full_waits_for_room_and_nothing_is_lost() {
    let b = Bench::new();
    // As many as a server that is not known yet is given to do.
    let changes = 1024 + 10;
    let heard: Vec<_> = (0..changes)
        .map(|n: u64| {
            let (reply, heard) = told();
            let name = format!("f{n}");
            remove::unlink(b.cx(Ino::ROOT), Name::parse(name.as_bytes()).unwrap())(reply);
            heard
        })
        .collect();
    assert_eq!(b.mount.status().mutations_parked, 10);
    for (n, heard) in heard.iter().enumerate() {
        let name = format!("f{n}");
        b.server.outcome(
            |found| {
                assert!(
                    matches!(found, Mutation::Unlink { name: found, .. } if found.bytes() == name.as_bytes())
                )
            },
            Err(Errno::ENOENT),
        );
        assert_eq!(heard.now(), Err(Errno::ENOENT));
    }
    let status = b.mount.status();
    assert_eq!((status.mutations_parked, status.mutations_unsettled), (0, 0));
}

#[test]
fn changes_that_wait_for_the_disk_together_are_each_told_when_a_sync_covers_them() {
    let b = Bench::with(Options { sync: true, ..Options::default() });
    let change = |name: &'static [u8]| {
        let (reply, heard) = told();
        remove::unlink(b.cx(Ino::ROOT), self::name(name))(reply);
        heard
    };
    let (first, second) = (change(b"one"), change(b"two"));
    b.server.outcome_in(1, |_| (), Ok(Done::default()));
    // A sync is asked for behind both, which the server does before it applies the second.
    b.server.outcome_in(2, |_| (), Ok(Done::default()));
    b.server.synced(1);
    assert_eq!(first.now(), Ok(vec![]));
    second.nothing();
    b.server.synced(2);
    assert_eq!(second.now(), Ok(vec![]));
    assert!(b.server.is_quiet());
    let status = b.mount.status();
    assert_eq!((status.log.kept, status.mutations_unsettled), (0, 0));
}

#[test]
fn leaving_makes_durable_first_and_tells_what_went_wrong() {
    let b = Bench::new();
    let (mount, server) = (Arc::clone(&b.mount), Arc::clone(&b.server));
    let leaving = std::thread::spawn(move || mount.leave(std::time::Duration::from_secs(20)));
    while server.is_quiet() {
        std::thread::yield_now();
    }
    b.server.asked(&Query::Sync { ino: None, data_only: false }, Err(Errno::ENOSPC));
    assert_eq!(leaving.join().unwrap(), Err(Errno::ENOSPC));
    assert_eq!(b.server.take().0.header.kind, FrameKind::Bye);
    assert_eq!(b.mount.leave(std::time::Duration::ZERO), Err(Errno::ENOSPC));
    let (reply, heard) = told();
    attributes::getattr(b.cx(FILE))(reply);
    assert_eq!(heard.now(), Err(Errno::ENOTCONN));
}
