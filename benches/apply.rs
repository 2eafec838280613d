//! What a mutation costs the server, in batches as a client with leases sends them: time and allocations, over keys in
//! memory and over a store in a folder, and what the engine alone takes for the same keys.
//!
//! `cargo bench --bench apply` prints one row per kind of mutation: the median of batches in nanoseconds of this thread's
//! processor per mutation, so that what else the machine does counts little,
//! allocations per mutation, and the fastest and slowest batch. `cargo bench --bench apply -- folder` runs those over a folder.
#![allow(unsafe_code, reason = "counts allocations, which takes a global allocator")]

use nix::time::{ClockId, clock_gettime};
use ringfs::base::{Caller, Ino, Name, SessionId, Time};
use ringfs::server::apply::{Volume, VolumeOptions};
use ringfs::server::meta::Changes;
use ringfs::server::store::{Store, StoreOptions};
use ringfs::wire::{
    Expect, MakeFlags, Mutation, Origin, SetAttr, Ticket, TimeSet, Told, WriteFlags, mutation, outcome,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: does what the system's allocator does and counts besides; its callers keep that allocator's contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: `layout` is as whoever called this promised it to be, and is handed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: only the counting `alloc` of this program gave `pointer` out, for this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSION: SessionId = SessionId(7);
const BATCH: u64 = 256;
const BATCHES: u64 = 160;

/// One client of one volume.
struct Rig {
    kind: &'static str,
    volume: Volume,
    ticket: Cell<u64>,
    _folder: Option<tempfile::TempDir>,
}

/// Time of the processor that this thread has used.
fn processor_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of every kernel"))
}

/// The numbers that the client takes.
fn ino(nth: u64) -> Ino {
    Ino((1 << 40) + nth)
}

impl Rig {
    fn new(kind: &'static str, store: Store, folder: Option<tempfile::TempDir>) -> Self {
        let mut options = VolumeOptions::new(Arc::new(|| Time { secs: 1_700_000_000, nanos: 0 }));
        options.collect_every = None;
        let volume = Volume::open(store, options).expect("open");
        volume.set_gate(Box::new(|_, _| Ok(())));
        volume.end_grace();
        Self { kind, volume, ticket: Cell::new(1), _folder: folder }
    }

    /// Runs batches of what `each` makes of a number and a name, and prints their row.
    fn row(&self, name: &str, each: impl for<'n> Fn(u64, Name<'n>) -> Mutation<'n>) {
        let mut took = Vec::with_capacity(usize::try_from(BATCHES).expect("few"));
        let mut allocations = 0;
        for batch in 0..BATCHES {
            let (mut body, mut payload) = (Vec::new(), Vec::new());
            let first = self.ticket.get();
            for nth in batch * BATCH..(batch + 1) * BATCH {
                let text = format!("file-{nth:08}.txt");
                let at = Time { secs: 1_700_000_001, nanos: u32::try_from(nth).expect("few") };
                let ticket = Ticket(self.ticket.replace(self.ticket.get() + 1));
                let origin = Origin { ticket, caller: Caller::ROOT, at: Some(at) };
                let name = Name::parse(text.as_bytes()).expect("a name");
                mutation::encode(&mut body, &mut payload, origin, &each(nth, name));
            }
            let before = ALLOCATIONS.load(Relaxed);
            let started = processor_time();
            let answer = self.volume.apply(SESSION, &body, &payload, first).expect("a batch");
            took.push(processor_time().saturating_sub(started));
            allocations += ALLOCATIONS.load(Relaxed) - before;
            let told: Vec<_> = outcome::decode(&answer).expect("outcomes").map(Result::unwrap).collect();
            let last = Ticket(first + BATCH - 1);
            assert_eq!(told, [Told::Ran { first: Ticket(first), last }], "{name}");
        }
        print(self.kind, name, took, allocations);
    }
}

fn print(kind: &str, name: &str, mut took: Vec<Duration>, allocations: u64) {
    let name = format!("{kind}: {name}");
    let count = took.len();
    took.sort();
    #[expect(clippy::cast_precision_loss, reason = "numbers shown with one digit")]
    let (nanos, each) = (
        |nth: usize| took[nth].as_nanos() as f64 / BATCH as f64,
        allocations as f64 / (count as f64 * BATCH as f64),
    );
    println!(
        "{name:<44} {:>9.1} ns  {each:>6.2} allocations  {:>8.1}..{:.1} ns",
        nanos(count / 2),
        nanos(0),
        nanos(count - 1)
    );
}

fn make(parent: Ino, mode: u32, made: Ino, name: Name<'_>) -> Mutation<'_> {
    let flags = MakeFlags { hold: false, exclusive: true };
    Mutation::Make { parent, name, mode, umask: 0o022, rdev: 0, target: b"", flags, ino: Some(made) }
}

fn unlink(parent: Ino, gone: Ino, name: Name<'_>) -> Mutation<'_> {
    Mutation::Unlink { parent, name, ino: Some(gone), hold: false }
}

fn mutations(rig: &Rig) {
    let all = BATCH * BATCHES;
    let (files, dirs) = (ino(1 << 30), ino((1 << 30) + 1));
    let (file, dir) = (libc::S_IFREG | 0o644, libc::S_IFDIR | 0o755);
    for (made, text) in [(files, &b"files"[..]), (dirs, b"dirs")] {
        let mut body = Vec::new();
        let ticket = Ticket(rig.ticket.replace(rig.ticket.get() + 1));
        let origin = Origin { ticket, caller: Caller::ROOT, at: Some(Time::default()) };
        let name = Name::parse(text).expect("a name");
        mutation::encode(&mut body, &mut Vec::new(), origin, &make(Ino::ROOT, dir, made, name));
        rig.volume.apply(SESSION, &body, b"", 0).expect("a batch");
    }
    rig.row("create", |nth, name| make(files, file, ino(nth), name));
    rig.row("write 4 KiB", |nth, _| Mutation::Write {
        ino: ino(nth),
        offset: 0,
        flags: WriteFlags::default(),
        data: &[7; 4096],
    });
    rig.row("setattr (times)", |nth, _| {
        let time = Some(TimeSet::At(Time { secs: 1_600_000_000, nanos: 5 }));
        let set = SetAttr { atime: time, mtime: time, ..SetAttr::default() };
        Mutation::SetAttr { ino: ino(nth), set }
    });
    rig.row("rename to another directory", |nth, name| Mutation::Rename {
        parent: files,
        name,
        new_parent: dirs,
        new_name: name,
        flags: 0,
        ino: Some(ino(nth)),
        replaced: Expect::Absent,
        hold: false,
    });
    rig.row("unlink (4 KiB)", |nth, name| unlink(dirs, ino(nth), name));
    rig.row("create again", |nth, name| make(files, file, ino(nth + all), name));
    rig.row("unlink (empty)", |nth, name| unlink(files, ino(nth + all), name));
    rig.row("mkdir", |nth, name| make(dirs, dir, ino(nth + 2 * all), name));
}

/// What the engine takes for the keys of a create, and for looking for what is not there.
fn floor(rig: &Rig) {
    let engine = rig.volume.store().engine();
    let (mut took, mut looked) = (Vec::new(), Vec::new());
    let mut allocations = 0;
    for batch in 0..BATCHES {
        let mut changes = Changes::default();
        let mut missing = Vec::new();
        for nth in batch * BATCH..(batch + 1) * BATCH {
            let scattered = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            changes.put(&[&b"YI"[..], &nth.to_be_bytes()].concat(), &[5; 106]);
            changes.put(&[&b"YD00000000"[..], &scattered[..7]].concat(), &[6; 28]);
            missing.push([&b"YD00000001"[..], &scattered[..7]].concat());
        }
        let started = processor_time();
        for key in &missing {
            assert!(engine.get(key).expect("readable").is_none());
        }
        looked.push(processor_time().saturating_sub(started));
        let before = ALLOCATIONS.load(Relaxed);
        let started = processor_time();
        engine.commit(&changes).expect("committed");
        took.push(processor_time().saturating_sub(started));
        allocations += ALLOCATIONS.load(Relaxed) - before;
    }
    print(rig.kind, "look for a key that is not there", looked, 0);
    print(rig.kind, "the engine alone: two keys in 512", took, allocations);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runs = |kind: &str| wanted.is_empty() || wanted.iter().any(|part| part == kind);
    if runs("memory") {
        let rig = Rig::new("memory", Store::memory().expect("a volume in memory"), None);
        mutations(&rig);
        floor(&rig);
    }
    if runs("folder") {
        let folder = tempfile::tempdir().expect("a folder");
        let options = StoreOptions::new(Time::default(), (0, 0));
        let store = Store::open(&folder.path().join("store"), &options).expect("a store");
        let rig = Rig::new("folder", store, Some(folder));
        mutations(&rig);
        floor(&rig);
    }
}
