//! What the steps of a request cost inside the process: time, allocations, and the memory of a million inodes.
//!
//! `cargo bench` prints one row per step: the median of rounds in nanoseconds, allocations per operation, and the fastest
//! and slowest round. `cargo bench -- NAME` runs the rows whose name contains NAME; under `valgrind --tool=callgrind`
//! such a run gives instruction counts, which do not depend on what else the machine does.
#![allow(unsafe_code, reason = "counts allocations, which takes a global allocator")]

use ringfs::base::{Attr, Caller, Ino, Kind, Name, NameHash, SetAttr, Time};
use ringfs::client::namespace::Namespace;
use ringfs::client::oplog::{Action, Limits, Log};
use ringfs::client::tree::{Change, New, Tree, TreeBounds};
use ringfs::kernel::abi::{InHeader, Opcode};
use ringfs::kernel::decode::{Request, reply};
use ringfs::wire::{
    Answer, DirEntry, Grant, LeaseMode, MakeFlags, Mutation, Origin, Query, Ticket, answer, mutation, query,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged, with the contract the caller keeps towards us.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(i64::try_from(layout.size()).unwrap_or(0), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same on both sides.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(i64::try_from(layout.size()).unwrap_or(0), Relaxed);
        // SAFETY: `pointer` came from `alloc` above, hence from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(60);

/// Runs `step` in rounds and prints its row.
fn row(name: &str, mut step: impl FnMut()) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
        return;
    }
    let mut batch = 1_u32;
    while time(batch, &mut step) < ROUND / 10 {
        batch = batch.saturating_mul(2);
    }
    let before = ALLOCATIONS.load(Relaxed);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut operations = 0_u32;
        while started.elapsed() < ROUND {
            time(batch, &mut step);
            operations += batch;
        }
        rounds.push((started.elapsed().as_secs_f64() * 1e9 / f64::from(operations), operations));
    }
    let allocations = ALLOCATIONS.load(Relaxed) - before;
    let operations: u32 = rounds.iter().map(|(_, operations)| operations).sum();
    let mut nanos: Vec<f64> = rounds.iter().map(|(nanos, _)| *nanos).collect();
    nanos.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a count shown with two digits")]
    let each = allocations as f64 / f64::from(operations);
    println!(
        "{name:<44} {:>9.1} ns  {each:>6.2} allocations  {:>8.1}..{:.1} ns",
        nanos[ROUNDS / 2],
        nanos[0],
        nanos[ROUNDS - 1]
    );
}

fn time(batch: u32, step: &mut impl FnMut()) -> Duration {
    let started = Instant::now();
    for _ in 0..batch {
        step();
    }
    started.elapsed()
}

fn name(bytes: &'static [u8]) -> Name<'static> {
    Name::parse(bytes).expect("a constant that is a name")
}

fn attr() -> Attr {
    let time = Time { secs: 1_700_000_000, nanos: 1 };
    let (ino, mode, nlink) = (Ino(77), 0o100_644, 1);
    let (uid, gid, rdev, size, blocks) = (0, 0, 0, 4096, 8);
    Attr {
        ino,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        size,
        blocks,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    }
}

fn decode() {
    let header = |opcode: Opcode| InHeader { opcode: opcode as u32, nodeid: 1, ..InHeader::default() };
    let lookup = header(Opcode::Lookup);
    row("decode LOOKUP", || {
        black_box(Request::parse(black_box(&lookup), &[], b"a-file-name.txt\0").is_ok());
    });
    let create = header(Opcode::Create);
    row("decode CREATE", || {
        black_box(Request::parse(black_box(&create), &[0; 16], b"a-file-name.txt\0").is_ok());
    });
    let attr = attr();
    row("build an entry reply", || {
        black_box(reply::entry(black_box(&attr), Duration::ZERO, Duration::ZERO));
    });
}

fn codec() {
    let flags = MakeFlags { hold: true, exclusive: true };
    let make = Mutation::Make {
        parent: Ino(1),
        name: name(b"a-file-name.txt"),
        mode: 0o100_644,
        umask: 0o022,
        rdev: 0,
        target: b"",
        flags,
        ino: None,
    };
    let (mut body, mut payload) = (Vec::with_capacity(4096), Vec::new());
    row("encode a mutation", || {
        body.clear();
        mutation::encode(&mut body, &mut payload, Origin::waited(Ticket(1), Caller::ROOT), black_box(&make));
    });
    row("decode a mutation", || {
        black_box(mutation::decode_batch(black_box(&body), &[]).count());
    });
    let mut asked = Vec::with_capacity(4096);
    let lookup = Query::Lookup { parent: Ino(1), name: name(b"a-file-name.txt") };
    row("encode a query", || {
        asked.clear();
        query::encode(&mut asked, black_box(&lookup));
    });
    row("decode a query", || {
        black_box(query::decode(black_box(&asked)).is_ok());
    });
    let mut answered = Vec::with_capacity(4096);
    let found = Ok(Answer::Attr(attr()));
    row("encode an answer", || {
        answered.clear();
        answer::encode(&mut answered, black_box(&found));
    });
    row("decode an answer", || {
        black_box(answer::decode(black_box(&answered), &[]).is_ok());
    });
}

fn oplog() {
    let mut log = Log::new(Limits::default());
    let unlink =
        Mutation::Unlink { parent: Ino(1), name: name(b"a-file-name.txt"), ino: Some(Ino(9)), hold: false };
    let (mut now, mut commit) = (Duration::ZERO, 0);
    row("mutation log: accept; a 256th of sending and retiring", || {
        now += Duration::from_micros(20);
        let accepted = log.accept(now, Caller::ROOT, Time::default(), black_box(&unlink), None);
        let Action::Send(batch) = log.next(now) else {
            black_box(accepted.is_ok());
            return;
        };
        commit += 1;
        drop(log.answered(now, batch.first, commit, &mut std::iter::empty()));
        drop(black_box(log.durable(commit)));
    });
}

fn namespace() {
    let names = Namespace::default();
    row("namespace: look up and forget one inode", || {
        names.inodes.looked_up(black_box(Ino(9)));
        black_box(names.inodes.forget(Ino(9), 1));
    });
    let before = BYTES.load(Relaxed);
    let names = Namespace::default();
    for ino in 2..MANY + 2 {
        names.inodes.looked_up(Ino(ino));
    }
    let bytes = BYTES.load(Relaxed) - before;
    println!(
        "{:<44} {:>9.1} bytes each",
        "namespace: a million inodes known",
        f64::from(i32::try_from(bytes).unwrap_or(i32::MAX)) / 1e6
    );
    black_box(&names);
}

const MANY: u64 = 1_000_000;

/// A tree whose root is leased and empty.
fn rooted() -> Tree {
    let mut tree = Tree::new(NameHash::new([7; 16]), TreeBounds { inodes_max: 1 << 21, names_max: 1 << 22 });
    let root = Attr { ino: Ino::ROOT, mode: libc::S_IFDIR | 0o755, nlink: 2, size: 0, blocks: 0, ..attr() };
    tree.granted([Grant { ino: Ino::ROOT, mode: LeaseMode::Exclusive, number: 1, plain: true }]);
    let asked = tree.stamp();
    tree.learn_attr(asked, &root);
    tree.learn_listing(asked, Ino::ROOT, 0, &[], true);
    tree
}

fn change(ticket: &mut u64) -> Change {
    *ticket += 1;
    Change { at: Time { secs: 1_800_000_000, nanos: 1 }, caller: Caller::ROOT, ticket: Ticket(*ticket) }
}

fn new(ino: u64) -> New<'static> {
    New { ino: Ino(ino), mode: libc::S_IFREG | 0o644, umask: 0o022, rdev: 0, target: b"", exclusive: true }
}

/// What one known file takes, its name in the directory included.
fn print_bytes_each(what: &str, before: i64) {
    let bytes = BYTES.load(Relaxed) - before;
    let each = f64::from(i32::try_from(bytes).unwrap_or(i32::MAX)) / 1e6;
    println!("{what:<44} {each:>9.1} bytes each");
}

fn tree() {
    let before = BYTES.load(Relaxed);
    let (mut tree, mut ticket) = (rooted(), 0);
    for ino in 100..100 + MANY {
        let text = format!("file-{ino:08}.txt");
        let Ok(name) = Name::parse(text.as_bytes()) else { return };
        black_box(tree.make(&change(&mut ticket), Ino::ROOT, name, &new(ino)).is_ok());
    }
    print_bytes_each("tree: a million files made in a directory", before);
    let (found, absent) = (name(b"file-00500000.txt"), name(b"file-x.txt"));
    row("tree: look up one of a million", || {
        black_box(tree.lookup(Ino::ROOT, black_box(found)));
    });
    row("tree: look up an absent one of a million", || {
        black_box(tree.lookup(Ino::ROOT, black_box(absent)));
    });
    row("tree: attributes", || {
        black_box(tree.attr(black_box(Ino(600_000))));
    });
    let mut ino = 2 * MANY;
    row("tree: make and unlink, and forget", || {
        ino += 1;
        black_box(tree.make(&change(&mut ticket), Ino::ROOT, absent, &new(ino)).is_ok());
        black_box(tree.unlink(&change(&mut ticket), Ino::ROOT, absent).is_ok());
        tree.applied(Ticket(ticket));
        tree.forgotten(Ino(ino));
    });
    let mut places = (found, absent);
    row("tree: rename", || {
        let (from, to) = ((Ino::ROOT, places.0), (Ino::ROOT, places.1));
        black_box(tree.rename(&change(&mut ticket), from, to, 0).is_ok());
        places = (places.1, places.0);
    });
    let set = SetAttr { mode: Some(0o640), ..SetAttr::default() };
    row("tree: change a mode", || {
        black_box(tree.set_attr(&change(&mut ticket), Ino(600_000), black_box(&set)).is_ok());
    });
    row("tree: append to a file", || {
        black_box(tree.write(&change(&mut ticket), Ino(600_000), 0, 4096, true, true).is_ok());
    });
}

fn learned() {
    let before = BYTES.load(Relaxed);
    let mut tree = rooted();
    let names: Vec<String> = (0..MANY).map(|n| format!("file-{n:08}.txt")).collect();
    let kept = BYTES.load(Relaxed);
    let asked = tree.stamp();
    let mut from = 0;
    for (piece, names) in names.chunks(400).enumerate() {
        let first = piece as u64 * 400;
        let inos = || (first + 100..).zip(names);
        tree.granted(inos().map(|(ino, _)| Grant {
            ino: Ino(ino),
            mode: LeaseMode::Exclusive,
            number: ino,
            plain: true,
        }));
        let entries: Vec<DirEntry<'_>> = inos()
            .map(|(ino, name)| DirEntry {
                ino: Ino(ino),
                cookie: ino << 40,
                kind: Kind::File,
                name: name.as_bytes(),
                attr: Some(Attr { ino: Ino(ino), ..attr() }),
            })
            .collect();
        tree.learn_listing(asked, Ino::ROOT, from, &entries, false);
        from = entries.last().map_or(0, |entry| entry.cookie);
    }
    drop(names);
    let listed = kept - before;
    print_bytes_each("tree: a million files learned from a listing", before);
    black_box((&tree, listed));
}

fn main() {
    tree();
    learned();
    decode();
    codec();
    oplog();
    namespace();
}
