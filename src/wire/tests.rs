//! Every record there and back; damaged bytes; golden bytes of version 2.

use super::{
    Answer, DirEntry, Done, Expect, FsStat, Grant, Grants, Keep, LeaseMode, LockKind, LockOwner, LockRequest,
    MakeFlags, Mutation, Notice, Origin, Outcome, Query, Recall, Returned, SeekTo, SetAttr, Ticket, TimeSet,
    Told, WireFault, WriteFlags, answer, lease, mutation, notice, outcome, query,
};
use crate::base::limits::BATCH_MUTATIONS_MAX;
use crate::base::{Attr, Caller, Errno, Ino, Kind, Name, SessionId, Time};
use proptest::prelude::{any, proptest};

const CALLER: Caller = Caller { uid: 1000, gid: 100, pid: 77 };

fn name(bytes: &[u8]) -> Name<'_> {
    Name::parse(bytes).unwrap()
}

fn mutations() -> Vec<Mutation<'static>> {
    let set = SetAttr {
        mode: Some(0o644),
        uid: Some(1),
        gid: None,
        size: Some(1 << 40),
        atime: Some(TimeSet::Now),
        mtime: Some(TimeSet::At(Time { secs: -5, nanos: 999_999_999 })),
        ctime: None,
        kill_suidgid: true,
    };
    let flags = MakeFlags { hold: true, exclusive: false };
    vec![
        Mutation::Make {
            parent: Ino(1),
            name: name(b"a"),
            mode: 0o100_644,
            umask: 0o22,
            rdev: 7,
            target: b"",
            flags,
            ino: Some(Ino(77)),
        },
        Mutation::Tmpfile { parent: Ino(1), mode: 0o600, umask: 0o77 },
        Mutation::Link { ino: Ino(9), parent: Ino(1), name: name(b"\xff\n;") },
        Mutation::Unlink { parent: Ino(1), name: name(b"b"), ino: None, hold: false },
        Mutation::Rmdir { parent: Ino(1), name: name(b"c"), ino: Some(Ino(7)), hold: true },
        Mutation::Rename {
            parent: Ino(1),
            name: name(b"d"),
            new_parent: Ino(2),
            new_name: name(b"e"),
            flags: 2,
            ino: None,
            replaced: Expect::Any,
            hold: true,
        },
        Mutation::Rename {
            parent: Ino(1),
            name: name(b"d"),
            new_parent: Ino(1),
            new_name: name(b"e"),
            flags: 0,
            ino: Some(Ino(8)),
            replaced: Expect::Absent,
            hold: false,
        },
        Mutation::Rename {
            parent: Ino(1),
            name: name(b"d"),
            new_parent: Ino(2),
            new_name: name(b"e"),
            flags: 2,
            ino: Some(Ino(8)),
            replaced: Expect::Is(Ino(9)),
            hold: true,
        },
        Mutation::SetAttr { ino: Ino(3), set },
        Mutation::SetAttr { ino: Ino(3), set: SetAttr::default() },
        Mutation::Write {
            ino: Ino(3),
            offset: 5,
            flags: WriteFlags { append: true, kill_suidgid: false },
            data: b"xyz",
        },
        Mutation::Allocate { ino: Ino(3), mode: 3, offset: 4096, len: 8192 },
        Mutation::Copy { source: Ino(3), source_offset: 1, target: Ino(4), target_offset: 2, len: 3 },
        Mutation::SetXattr { ino: Ino(3), name: b"user.x", value: b"v", flags: 1, kill_sgid: true },
        Mutation::RemoveXattr { ino: Ino(3), name: b"user.x" },
    ]
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

fn lock() -> LockRequest {
    let end = i64::MAX.unsigned_abs();
    LockRequest { owner: LockOwner::Flock(3), kind: LockKind::Write, start: 1, end, pid: 9, handle: 4 }
}

fn queries() -> Vec<Query<'static>> {
    let ino = Ino(3);
    vec![
        Query::Lookup { parent: Ino(1), name: name(b"n") },
        Query::GetAttr { ino },
        Query::Parent { ino },
        Query::ReadLink { ino },
        Query::ReadDir { ino, cookie: 99, bytes_max: 4096, plus: true },
        Query::Read { ino, offset: 1 << 40, len: 4096 },
        Query::GetXattr { ino, name: b"user.x" },
        Query::ListXattr { ino },
        Query::StatFs,
        Query::Seek { ino, offset: 4, to: SeekTo::Hole },
        Query::Hold { ino },
        Query::Drop { inos: vec![Ino(4), Ino(5)] },
        Query::Sync { ino: None, data_only: false },
        Query::Sync { ino: Some(ino), data_only: true },
        Query::GetLock { ino, lock: lock() },
        Query::SetLock { ino, lock: lock(), wait: true },
        Query::CancelLock { sequence: 7 },
        Query::UnlockOwner { ino, owner: 8 },
        Query::UnlockHandle { ino, handle: 9 },
        Query::Reassert { holds: vec![ino], locks: vec![(ino, lock())], last: true },
        Query::Ping,
        Query::Status,
        Query::Return {
            returned: vec![
                Returned { ino, number: 7, keep: Keep::Shared, open: false },
                Returned { ino: Ino(4), number: 0, keep: Keep::Nothing, open: true },
            ],
        },
        Query::Numbers { count: 4096 },
        Query::Evict { session: SessionId(7 << 64 | 9) },
    ]
}

fn answers() -> Vec<Result<Answer<'static>, Errno>> {
    let entry = |attr| DirEntry { ino: Ino(4), cookie: 17, kind: Kind::Fifo, name: b"n", attr };
    vec![
        Err(Errno::EDEADLK),
        Ok(Answer::Empty),
        Ok(Answer::Attr(attr())),
        Ok(Answer::Bytes(b"target")),
        Ok(Answer::Data(b"data")),
        Ok(Answer::Offset(5)),
        Ok(Answer::FsStat(FsStat { bytes_total: 4, bytes_free: 3, inodes_used: 2, inodes_free: 1 })),
        Ok(Answer::Lock(lock())),
        Ok(Answer::Entries { entries: vec![entry(None), entry(Some(attr()))], end: true }),
        Ok(Answer::Numbers { first: Ino(1 << 40), count: 4096 }),
    ]
}

fn grants() -> Vec<Grant> {
    vec![
        Grant { ino: Ino(3), mode: LeaseMode::Exclusive, number: 9, plain: true },
        Grant { ino: Ino(4), mode: LeaseMode::Shared, number: u64::MAX, plain: false },
    ]
}

fn notices() -> Vec<Notice> {
    vec![
        Notice::Recall(Recall { ino: Ino(3), keep: Keep::Shared, number: 9 }),
        Notice::Recall(Recall { ino: Ino(4), keep: Keep::Nothing, number: 0 }),
        Notice::Durable,
    ]
}

/// Every second mutation is a local one.
fn origin(ticket: u64) -> Origin {
    let at = Time { secs: 1_800_000_000, nanos: 999_999_999 };
    Origin { ticket: Ticket(ticket), caller: CALLER, at: ticket.is_multiple_of(2).then_some(at) }
}

fn batch() -> (Vec<u8>, Vec<u8>) {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for (i, mutation) in mutations().iter().enumerate() {
        mutation::encode(&mut body, &mut payload, origin(i as u64 + 1), mutation);
    }
    (body, payload)
}

#[test]
fn every_mutation_survives_the_way_there_and_back() {
    let (body, payload) = batch();
    let back: Vec<_> = mutation::decode_batch(&body, &payload).map(Result::unwrap).collect();
    assert_eq!(back.len(), mutations().len());
    for (i, ((origin, found), sent)) in back.into_iter().zip(mutations()).enumerate() {
        assert_eq!(origin, self::origin(i as u64 + 1));
        assert_eq!(found, Ok(sent));
    }
}

#[test]
fn every_query_and_answer_survives_the_way_there_and_back() {
    for sent in queries() {
        let mut body = Vec::new();
        query::encode(&mut body, &sent);
        assert_eq!(query::decode(&body), Ok(sent));
    }
    for sent in answers() {
        let mut body = Vec::new();
        answer::encode(&mut body, &sent);
        assert_eq!(answer::decode(&body, b"data"), Ok((sent.clone(), Grants::default())));
        lease::encode_grants(&mut body, &grants());
        let (found, granted) = answer::decode(&body, b"data").unwrap();
        assert_eq!((found, granted.iter().collect::<Vec<_>>()), (sent, grants()));
    }
}

#[test]
fn every_notice_survives_the_way_there_and_back() {
    let mut body = Vec::new();
    for sent in notices() {
        notice::encode(&mut body, &sent);
    }
    let back: Result<Vec<_>, _> = notice::decode(&body).collect();
    assert_eq!(back, Ok(notices()));
    super::record::push(&mut body, 64, &zerocopy::little_endian::U64::ZERO, &[]);
    assert_eq!(notice::decode(&body).last(), Some(Err(WireFault::Unknown { kind: 64 })));
}

#[test]
fn only_grants_may_follow_an_answer() {
    let mut body = Vec::new();
    answer::encode(&mut body, &Ok(Answer::Empty));
    answer::encode(&mut body, &Ok(Answer::Empty));
    assert!(matches!(answer::decode(&body, &[]), Err(WireFault::Unknown { .. })));
    let mut body = Vec::new();
    answer::encode(&mut body, &Ok(Answer::Empty));
    super::record::push(&mut body, 203, &zerocopy::little_endian::U32::ZERO, &[&[0; 23]]);
    assert!(matches!(answer::decode(&body, &[]), Err(WireFault::Invalid { kind: 203, .. })));
}

#[test]
fn entry_bytes_is_what_an_entry_takes() {
    for plus in [false, true] {
        let entry =
            DirEntry { ino: Ino(4), cookie: 17, kind: Kind::File, name: b"four", attr: plus.then(attr) };
        let size = |entries: Vec<DirEntry<'_>>| {
            let mut body = Vec::new();
            answer::encode(&mut body, &Ok(Answer::Entries { entries, end: true }));
            body.len()
        };
        assert_eq!(size(vec![entry]) - size(vec![]), answer::entry_bytes(4, plus));
    }
}

#[test]
fn every_outcome_survives_the_way_there_and_back() {
    let done = Done {
        attr: Some(attr()),
        orphan: Some(Ino(5)),
        named: [Some(Ino(8)), Some(Ino(9))],
        bytes: 6,
        offset: 7,
        existed: true,
    };
    for result in [Ok(done), Ok(Done::default()), Err(Errno::ENOTEMPTY)] {
        let sent = Outcome { ticket: Ticket(3), result };
        let (mut body, mut one) = (Vec::new(), Vec::new());
        outcome::begin(&mut body, 77);
        outcome::encode_ran(&mut body, Ticket(1), Ticket(2));
        outcome::encode(&mut body, &sent);
        let back = outcome::decode(&body).unwrap();
        assert_eq!(back.commit(), 77);
        let ran = Told::Ran { first: Ticket(1), last: Ticket(2) };
        assert_eq!(back.collect::<Vec<_>>(), [Ok(ran), Ok(Told::One(sent))]);
        outcome::encode(&mut one, &sent);
        assert_eq!(outcome::decode_one(&one), Ok(sent));
        assert!(outcome::decode(&one).is_err(), "without a commit nobody knows when it is durable");
    }
    let (mut body, errno) = (Vec::new(), Errno::ESTALE);
    outcome::encode(&mut body, &Outcome { ticket: Ticket(3), result: Err(errno) });
    assert!(body.len() <= 24, "a failure is small: {} bytes", body.len());
}

#[test]
fn an_unknown_mutation_fails_alone() {
    let (mut body, mut payload) = batch();
    super::record::push(&mut body, 60, &zerocopy::little_endian::U64::new(99), &[b"?"]);
    let last = mutation::decode_batch(&body, &payload).last();
    let Some(Ok((origin, Err(WireFault::Unknown { kind: 60 })))) = last else { panic!("{last:?}") };
    assert_eq!(origin.ticket, Ticket(99));
    // How much data such a record has is not known, so nobody's data can be told behind it.
    let write = Mutation::Write { ino: Ino(3), offset: 0, flags: WriteFlags::default(), data: b"1" };
    mutation::encode(&mut body, &mut payload, origin, &write);
    let last = mutation::decode_batch(&body, &payload).last();
    assert!(matches!(last, Some(Err(WireFault::Invalid { .. }))), "{last:?}");
}

#[test]
fn batches_one_after_the_other_are_one_batch() {
    let (mut body, mut payload) = batch();
    let half = mutation::decode_batch(&body, &payload).count();
    body.extend_from_within(..);
    payload.extend_from_within(..);
    let all: Vec<_> = mutation::decode_batch(&body, &payload).collect::<Result<_, _>>().unwrap();
    assert_eq!(all[..half], all[half..]);
}

#[test]
fn the_records_of_a_small_file_are_small() {
    let at = Some(Time { secs: 1_800_000_000, nanos: 999_999_999 });
    let origin = Origin { ticket: Ticket(u64::MAX), caller: CALLER, at };
    let (parent, ino, name) = (Ino(1 << 40), Some(Ino(1 << 41)), name(b"n"));
    let flags = MakeFlags { hold: true, exclusive: true };
    let make =
        Mutation::Make { parent, name, mode: 0o100_644, umask: 0o22, rdev: 0, target: b"", flags, ino };
    for mutation in [make, Mutation::Unlink { parent, name, ino, hold: true }] {
        let mut body = Vec::new();
        mutation::encode(&mut body, &mut Vec::new(), origin, &mutation);
        assert!(body.len() <= 100, "{} bytes: {mutation:?}", body.len());
    }
}

#[test]
fn a_hold_can_be_taken_back_in_the_bytes() {
    let (unlinked, free) =
        (Mutation::Unlink { parent: Ino(1), name: name(b"b"), ino: None, hold: true }, false);
    for mutation in mutations().into_iter().chain([unlinked]) {
        let mut body = Vec::new();
        mutation::encode(&mut body, &mut Vec::new(), origin(1), &mutation);
        mutation::clear_hold(&mut body);
        let expected = match mutation {
            Mutation::Unlink { parent, name, ino, hold: _ } => {
                Mutation::Unlink { parent, name, ino, hold: free }
            }
            Mutation::Rmdir { parent, name, ino, hold: _ } => {
                Mutation::Rmdir { parent, name, ino, hold: free }
            }
            Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, hold: _ } => {
                Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, hold: free }
            }
            other => other,
        };
        let payload = if let Mutation::Write { data, .. } = mutation { data } else { b"" };
        let back: Vec<_> = mutation::decode_batch(&body, payload).map(Result::unwrap).collect();
        assert_eq!(back, [(origin(1), Ok(expected))]);
    }
    for len in 0..40 {
        mutation::clear_hold(&mut vec![4; len]);
    }
}

#[test]
fn data_outside_the_payload_is_refused() {
    let (body, payload) = batch();
    let faults = mutation::decode_batch(&body, &payload[..2]).filter(Result::is_err);
    assert_eq!(faults.count(), 1);
}

#[test]
fn version_two_keeps_its_bytes() {
    let (mut body, _) = batch();
    for sent in queries() {
        query::encode(&mut body, &sent);
    }
    for sent in answers() {
        answer::encode(&mut body, &sent);
    }
    lease::encode_grants(&mut body, &grants());
    for sent in notices() {
        notice::encode(&mut body, &sent);
    }
    let crc = super::frame::crc32c(&body);
    assert_eq!((body.len(), crc), GOLDEN, "the bytes of version 2 changed: that needs a new version");
}

/// Length and CRC32C of all records of version 2, one after the other.
const GOLDEN: (usize, u32) = (3976, 3_822_990_153);

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = query::decode(&bytes);
        let _ = answer::decode(&bytes, &[]);
        let _ = outcome::decode(&bytes).map(Iterator::count);
        let _ = notice::decode(&bytes).count();
        let _ = mutation::decode_batch(&bytes, &[]).count();
    }

    #[test]
    fn damaged_records_never_panic(at in 0usize..2000, value: u8) {
        let (mut body, payload) = batch();
        let len = body.len();
        body[at % len] = value;
        let _ = mutation::decode_batch(&body, &payload).count();
        for sent in queries() {
            let mut body = Vec::new();
            query::encode(&mut body, &sent);
            let len = body.len();
            body[at % len] = value;
            let _ = query::decode(&body);
        }
    }
}

#[test]
fn a_batch_holds_no_more_mutations_than_can_be_answered() {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    for ticket in 0..=BATCH_MUTATIONS_MAX as u64 {
        let unlink = Mutation::Unlink { parent: Ino(1), name: name(b"b"), ino: None, hold: true };
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(ticket), CALLER), &unlink);
    }
    let found: Vec<_> = mutation::decode_batch(&body, &payload).collect();
    assert!(found[..BATCH_MUTATIONS_MAX].iter().all(Result::is_ok));
    assert!(matches!(found[BATCH_MUTATIONS_MAX], Err(WireFault::Invalid { .. })));
}

#[test]
fn writes_cannot_name_more_bytes_than_came() {
    let write = Mutation::Write { ino: Ino(3), offset: 0, flags: WriteFlags::default(), data: b"12345678" };
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(1), CALLER), &write);
    // A second record that names the same bytes.
    body.extend_from_within(..);
    let found: Vec<_> = mutation::decode_batch(&body, &payload).collect();
    assert!(found[0].is_ok() && matches!(found[1], Err(WireFault::Invalid { .. })), "{found:?}");
}
