//! The golden inputs: one of each thing the decoders read, made by the encoders, and inputs that once made trouble.

use crate::meta_values::{INO, NAME_KEY, RAW};
use ringfs::base::{Attr, Caller, ChunkId, ChunkPlace, Errno, Ino, Kind, Name, SegmentId, SessionId, Time};
use ringfs::kernel::abi::{LkIn, MknodIn, Opcode, ReadIn, Rename2In, SetattrIn, SetxattrIn, WriteIn};
use ringfs::server::chunks::local::{LocalChunks, LocalOptions};
use ringfs::server::chunks::{ChunkStore, ChunkTag};
use ringfs::server::meta::extents::Extent;
use ringfs::server::meta::memory::MemoryEngine;
use ringfs::server::meta::{
    Inode, NameHash, Order, Superblock, Txn, View, WriteTxn, attributes, chunk_table, counters, dirents,
    extents, inodes, sessions, superblock,
};
use ringfs::wire::hello::{self, Challenge, Hello, Proof, Refusal, Welcome};
use ringfs::wire::{
    Answer, DirEntry, Done, Expect, Frame, FrameKind, FsStat, Grant, Keep, LeaseMode, LockKind, LockOwner,
    LockRequest, MakeFlags, Mutation, Notice, Origin, Outcome, Query, Recall, Returned, SeekTo, SetAttr,
    Ticket, TimeSet, WriteFlags, answer, lease, mutation, notice, outcome, query,
};
use std::ops::ControlFlow;
use zerocopy::IntoBytes;

/// Target, name of the file, bytes.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

/// All of them.
pub(crate) fn all() -> Vec<Seed> {
    let mut all = Vec::new();
    fuse(&mut all);
    queries(&mut all);
    answers(&mut all);
    mutations(&mut all);
    hellos(&mut all);
    meta(&mut all);
    chunks(&mut all);
    let lines: [&[u8]; 4] = [
        b"{\"ask\":\"status\"}\n",
        b"{\"ask\":\"prepare_unmount\"}",
        b"{\"ok\":{\"pid\":7,\"version\":\"0.1.0\"}}",
        b"{\"error\":\"the disk of the store is full\"}",
    ];
    for (number, line) in lines.iter().enumerate() {
        all.push(("control_request", format!("line-{number}"), line.to_vec()));
    }
    all.push(("control_request", "trouble-deep".to_owned(), b"[".repeat(4000)));
    all
}

fn name(bytes: &[u8]) -> Name<'_> {
    Name::parse(bytes).expect("a name")
}

/// Name, opcode, extensions, record, payload.
type Asked<'a> = (&'a str, Opcode, u8, Vec<u8>, &'a [u8]);

fn fuse(all: &mut Vec<Seed>) {
    let lock = LkIn { owner: 5, ..LkIn::default() };
    let groups = [&32_u32.to_le_bytes()[..], &[0; 4]].concat();
    let requests: [Asked<'_>; 11] = [
        ("lookup", Opcode::Lookup, 0, Vec::new(), b"name\0"),
        ("write", Opcode::Write, 0, WriteIn { size: 5, ..WriteIn::default() }.as_bytes().to_vec(), b"12345"),
        ("read", Opcode::Read, 0, ReadIn { size: u32::MAX, ..ReadIn::default() }.as_bytes().to_vec(), &[]),
        (
            "setattr",
            Opcode::Setattr,
            0,
            SetattrIn { valid: 0xffff, ..SetattrIn::default() }.as_bytes().to_vec(),
            &[],
        ),
        ("setlkw", Opcode::Setlkw, 0, lock.as_bytes().to_vec(), &[]),
        ("rename2", Opcode::Rename2, 0, Rename2In::default().as_bytes().to_vec(), b"old\0new\0"),
        ("symlink", Opcode::Symlink, 0, Vec::new(), b"name\0target\0"),
        ("mknod", Opcode::Mknod, 0, MknodIn::default().as_bytes().to_vec(), b"node\0"),
        (
            "setxattr",
            Opcode::Setxattr,
            0,
            SetxattrIn { size: 2, ..SetxattrIn::default() }.as_bytes().to_vec(),
            b"user.a\0vv",
        ),
        ("statfs", Opcode::Statfs, 0, Vec::new(), &[]),
        ("trouble-extension", Opcode::Lookup, 1, Vec::new(), &groups),
    ];
    for (name, opcode, extensions, args, payload) in requests {
        let record = u8::try_from(args.len()).expect("a small record");
        let number = u8::try_from(opcode as u32).expect("a small opcode");
        let bytes = [&[number, extensions, record][..], &args, payload].concat();
        all.push(("fuse_request", name.to_owned(), bytes));
    }
}

/// As the target reads it: the length of the payload stands first.
fn body(all: &mut Vec<Seed>, name: String, body: &[u8], payload: &[u8]) {
    let payload_bytes = u16::try_from(payload.len()).expect("a small payload").to_le_bytes();
    all.push(("wire_frame", name, [&payload_bytes[..], body, payload].concat()));
}

fn lock(flock: bool) -> LockRequest {
    let owner = if flock { LockOwner::Flock(8) } else { LockOwner::Record(7) };
    LockRequest { owner, kind: LockKind::Write, start: 10, end: u64::MAX, pid: 9, handle: 3 }
}

fn queries(all: &mut Vec<Seed>) {
    let (ino, parent) = (Ino(16), Ino(1));
    let locks = vec![(ino, lock(false)), (ino, lock(true))];
    let queries = [
        Query::Lookup { parent, name: name(b"name") },
        Query::ReadDir { ino, cookie: u64::MAX, bytes_max: u32::MAX, plus: true },
        Query::Read { ino, offset: u64::MAX, len: u32::MAX },
        Query::GetXattr { ino, name: b"user.x" },
        Query::Seek { ino, offset: 5, to: SeekTo::Hole },
        Query::Drop { inos: vec![ino, parent] },
        Query::Sync { ino: Some(ino), data_only: true },
        Query::GetLock { ino, lock: lock(false) },
        Query::SetLock { ino, lock: lock(true), wait: true },
        Query::CancelLock { sequence: 4 },
        Query::UnlockOwner { ino, owner: 7 },
        Query::Reassert { holds: vec![ino, parent], locks, last: true },
        Query::Status,
        Query::Return { returned: vec![Returned { ino, number: 7, keep: Keep::Shared, open: true }] },
        Query::Numbers { count: 9 },
        Query::Evict { session: SessionId(9) },
    ];
    for (number, query) in queries.iter().enumerate() {
        let mut bytes = Vec::new();
        query::encode(&mut bytes, query);
        if number == 0 {
            let frame = Frame::new(
                FrameKind::Call,
                2,
                SessionId(7 << 64 | 9),
                42,
                bytes.clone(),
                bytes::Bytes::new(),
            );
            let whole = [&frame.header.encode()[..], &frame.body].concat();
            body(all, "frame-call".to_owned(), &whole, b"");
        }
        body(all, format!("query-{number:02}"), &bytes, b"");
    }
}

fn attr() -> Attr {
    let time = |secs| Time { secs, nanos: 3 };
    Attr {
        ino: Ino(12),
        mode: 0o100_600,
        nlink: 1,
        uid: 2,
        gid: 3,
        rdev: 4,
        size: 5,
        blocks: 8,
        atime: time(-1),
        mtime: time(2),
        ctime: time(3),
        btime: time(4),
    }
}

fn answers(all: &mut Vec<Seed>) {
    let entry = |ino, attr| DirEntry { ino: Ino(ino), cookie: 16, kind: Kind::File, name: b"entry", attr };
    let entries = vec![entry(20, None), entry(12, Some(attr()))];
    let stat = FsStat { bytes_total: 9, bytes_free: 8, inodes_used: 7, inodes_free: 6 };
    let answers = [
        Err(Errno::ENOENT),
        Ok(Answer::Empty),
        Ok(Answer::Attr(attr())),
        Ok(Answer::Bytes(b"target")),
        Ok(Answer::Data(b"data")),
        Ok(Answer::Offset(u64::MAX)),
        Ok(Answer::FsStat(stat)),
        Ok(Answer::Lock(lock(true))),
        Ok(Answer::Entries { entries, end: true }),
        Ok(Answer::Numbers { first: Ino(16), count: 9 }),
    ];
    let grant = |ino, mode| Grant { ino: Ino(ino), mode, number: 9, plain: true };
    let grants = [grant(20, LeaseMode::Exclusive), grant(12, LeaseMode::Shared)];
    for (number, answer) in answers.iter().enumerate() {
        let mut bytes = Vec::new();
        answer::encode(&mut bytes, answer);
        lease::encode_grants(&mut bytes, &grants[..number % 3]);
        body(all, format!("answer-{number:02}"), &bytes, b"data");
    }
    let mut bytes = Vec::new();
    notice::encode(&mut bytes, &Notice::Recall(Recall { ino: Ino(20), keep: Keep::Shared, number: 9 }));
    notice::encode(&mut bytes, &Notice::Durable);
    body(all, "notices".to_owned(), &bytes, b"");
    let done = Done {
        attr: Some(attr()),
        orphan: Some(Ino(12)),
        named: [Some(Ino(12)), None],
        bytes: 7,
        offset: 8,
        existed: true,
    };
    let mut bytes = Vec::new();
    outcome::begin(&mut bytes, u64::MAX);
    outcome::encode_ran(&mut bytes, Ticket(1), Ticket(u64::MAX));
    for result in [Ok(done), Ok(Done::default()), Err(Errno::EEXIST)] {
        outcome::encode(&mut bytes, &Outcome { ticket: Ticket(u64::MAX), result });
    }
    body(all, "outcomes".to_owned(), &bytes, b"");
}

fn mutations(all: &mut Vec<Seed>) {
    let (ino, parent) = (Ino(16), Ino(1));
    let set = SetAttr {
        mode: Some(0o644),
        size: Some(u64::MAX),
        atime: Some(TimeSet::Now),
        mtime: Some(TimeSet::At(Time { secs: i64::MIN, nanos: 999_999_999 })),
        ..SetAttr::default()
    };
    let make = MakeFlags { hold: true, exclusive: true };
    let flags = WriteFlags { append: true, kill_suidgid: true };
    let write = Mutation::Write { ino, offset: u64::MAX, flags, data: b"written" };
    let mutations = [
        Mutation::Make {
            parent,
            name: name(b"a"),
            mode: 0o100_644,
            umask: 0o22,
            rdev: 7,
            target: b"",
            flags: make,
            ino: None,
        },
        Mutation::Tmpfile { parent, mode: 0o600, umask: 0o77 },
        Mutation::Link { ino, parent, name: name(b"b") },
        Mutation::Rename {
            parent,
            name: name(b"d"),
            new_parent: ino,
            new_name: name(b"e"),
            flags: 2,
            ino: None,
            replaced: Expect::Any,
            hold: true,
        },
        Mutation::Unlink { parent, name: name(b"c"), ino: Some(ino), hold: true },
        Mutation::Rename {
            parent,
            name: name(b"d"),
            new_parent: parent,
            new_name: name(b"e"),
            flags: 0,
            ino: Some(ino),
            replaced: Expect::Is(Ino(17)),
            hold: false,
        },
        Mutation::SetAttr { ino, set },
        write,
        Mutation::Allocate { ino, mode: 3, offset: u64::MAX, len: u64::MAX },
        Mutation::Copy { source: ino, source_offset: u64::MAX, target: ino, target_offset: 1, len: u64::MAX },
        Mutation::SetXattr { ino, name: b"user.x", value: b"v", flags: 1, kill_sgid: true },
        Mutation::RemoveXattr { ino, name: b"user.x" },
    ];
    let at = Some(Time { secs: 1_800_000_000, nanos: 999_999_999 });
    let (mut whole, mut payload) = (Vec::new(), Vec::new());
    for (ticket, mutation) in (1..).zip(&mutations) {
        mutation::encode(
            &mut whole,
            &mut payload,
            Origin { ticket: Ticket(ticket), caller: Caller { uid: 1, gid: 2, pid: 3 }, at },
            mutation,
        );
    }
    body(all, "batch".to_owned(), &whole, &payload);
    // Once made gigabytes of one frame.
    let (mut one, mut payload) = (Vec::new(), Vec::new());
    mutation::encode(&mut one, &mut payload, Origin::waited(Ticket(1), Caller::ROOT), &write);
    body(all, "trouble-same-bytes".to_owned(), &one.repeat(3), &payload);
    // Once made more outcomes than fit a frame.
    body(all, "trouble-empty-records".to_owned(), &[4, 0, 0, 0, 0, 0, 0, 0].repeat(300), b"");
}

fn hellos(all: &mut Vec<Seed>) {
    let said = Hello {
        version_oldest: 1,
        version_newest: u32::MAX,
        session: vec![7; 16],
        resumed: true,
        host: "host".to_owned(),
        pid: 9,
        mount_point: "/mnt".to_owned(),
        nonce: vec![1; 32],
        volume: vec![2; 16],
        observer: true,
        leases: true,
    };
    let welcome = Welcome {
        version: 2,
        volume: vec![2; 16],
        epoch: 3,
        session_known: true,
        lease_ms: 10_000,
        read_only: true,
        program: "0.1.0".to_owned(),
        name_key: vec![4; 16],
        clock_nanos: u64::MAX,
        grace_ms: 500,
    };
    let messages = [
        ("hello", hello::encode(&said)),
        ("challenge", hello::encode(&Challenge { nonce: vec![1; 32], proof: vec![2; 32] })),
        ("proof", hello::encode(&Proof { proof: vec![3; 32] })),
        ("welcome", hello::encode(&welcome)),
        ("refusal", hello::encode(&Refusal { reason: "no".to_owned(), retry: true })),
    ];
    all.extend(messages.map(|(name, bytes)| ("wire_hello", name.to_owned(), bytes)));
}

/// Keys and values of a small volume.
fn volume() -> MemoryEngine {
    let engine = MemoryEngine::new();
    let mut txn = WriteTxn::new(&engine);
    let (now, hash) = (Time { secs: 5, nanos: 6 }, NameHash::new(NAME_KEY));
    superblock::put(&mut txn, &Superblock::new([1; 16], NAME_KEY, now));
    for (ino, mode) in [(INO, 0o040_755), (Ino(21), 0o100_644), (Ino(22), 0o120_777)] {
        inodes::put(&mut txn, &Inode::new(ino, mode, (1, 2), INO, now));
    }
    for (text, ino, kind) in [(&b"file"[..], Ino(21), Kind::File), (b"link", Ino(22), Kind::Symlink)] {
        dirents::put(&mut txn, &hash, INO, name(text), dirents::Target { ino, kind }).expect("memory");
    }
    attributes::put_xattr(&mut txn, INO, b"user.x", b"value");
    attributes::put_symlink(&mut txn, Ino(22), b"file");
    for (number, start) in [(1, 0), (2, 400)] {
        let place = ChunkPlace { segment: SegmentId(1), position: 16 * number, len: 500 };
        let chunk = ChunkId(number.into());
        chunk_table::add(&mut txn, chunk, place).expect("memory");
        extents::put(&mut txn, INO, &Extent { start, len: 500, chunk, offset: 0 }).expect("memory");
    }
    txn.add_usage(3, 900);
    counters::take_inos(&mut txn, 9).expect("memory");
    counters::next_epoch(&mut txn).expect("memory");
    sessions::put(&mut txn, SessionId(1), b"record");
    sessions::put_result(&mut txn, SessionId(1), 5, b"result");
    sessions::put_mark(&mut txn, SessionId(1), 6);
    sessions::put_orphan(&mut txn, Ino(21));
    txn.commit().expect("memory");
    engine
}

fn raw(key: &[u8], value: &[u8]) -> Vec<u8> {
    let [low, high] = u16::try_from(value.len()).expect("a small value").to_le_bytes();
    let bytes = u8::try_from(key.len()).expect("a small key");
    [&[RAW, low, high, bytes][..], key, value].concat()
}

fn meta(all: &mut Vec<Seed>) {
    let mut whole = Vec::new();
    let scan = volume().scan(b"", b"\xff", Order::Forward, &mut |key, value| {
        let record = raw(key, value);
        whole.extend_from_slice(&record);
        all.push(("meta_values", format!("key-{}", hex(key)), record));
        ControlFlow::Continue(())
    });
    scan.expect("memory can be read");
    all.push(("meta_values", "volume".to_owned(), whole.clone()));
    let extent = |start: u64, len: u64, offset: u32| {
        let key = ringfs::server::meta::keys::extent(INO, start);
        raw(&key, &[&len.to_le_bytes()[..], &1_u64.to_le_bytes(), &offset.to_le_bytes()].concat())
    };
    // Once an overflow while it was judged.
    all.push(("meta_values", "trouble-extent-length".to_owned(), extent(300, u64::MAX, 1)));
    // Once an underflow of what a write adds.
    let overlap = [whole, extent(0, 1000, 0), extent(250, 1000, 0)].concat();
    all.push(("meta_values", "trouble-extents-overlap".to_owned(), overlap));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn chunks(all: &mut Vec<Seed>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = LocalChunks::open(folder.path(), &LocalOptions::default()).expect("a folder");
    let path = folder.path().join("00000001.seg");
    for (number, len) in [(1, 1_usize), (2, 100), (3, 5000)] {
        let tag = ChunkTag { chunk: ChunkId(number), ino: INO };
        store.append(tag, &b"0123456789".repeat(len)[..len]).expect("room");
        all.push(("chunk_record", format!("records-{number}"), std::fs::read(&path).expect("a file")));
    }
    all.push(("chunk_record", "torn".to_owned(), std::fs::read(&path).expect("a file")[..900].to_vec()));
    all.push(("chunk_record", "trouble-empty".to_owned(), Vec::new()));
}
