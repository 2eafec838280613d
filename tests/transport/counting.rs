//! What one request costs: system calls and allocations, counted.

use crate::mounted::{Mounted, kinds};
use ringfs::base::{Errno, Ino};
use ringfs::kernel::abi::{AttrOut, FuseAttr, GetattrIn, Opcode};
use ringfs::kernel::transport::{Call, Choice, Handler, Kind, Offered, Options, Verdict, Wanted};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::IntoBytes;

/// Counts the allocations of each thread.
struct CountingAllocator;

thread_local! {
    pub(crate) static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "a global allocator is unsafe by trait")]
// SAFETY: every method hands its arguments to the system's allocator unchanged; the counter allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on; `pointer` came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const THREADS: usize = 256;

/// Answers GETATTR of the root, at once or by a token on the same thread, and notes each thread's allocations.
pub(crate) struct Root {
    deferred: bool,
    first: [AtomicU64; THREADS],
    last: [AtomicU64; THREADS],
    seen: [AtomicU64; THREADS],
}

impl Root {
    pub(crate) fn new(deferred: bool) -> Arc<Self> {
        let zeros = || [const { AtomicU64::new(0) }; THREADS];
        Arc::new(Self { deferred, first: zeros(), last: zeros(), seen: zeros() })
    }

    /// Allocations between the 10th and the last request of each thread.
    fn allocations(&self) -> u64 {
        let late = |i: &usize| self.seen[*i].load(Ordering::Relaxed) > 10;
        (0..THREADS)
            .filter(late)
            .map(|i| self.last[i].load(Ordering::Relaxed) - self.first[i].load(Ordering::Relaxed))
            .sum()
    }
}

impl Handler for Root {
    fn handle(&self, call: Call<'_>) -> Verdict {
        let (thread, now) = (call.thread(), ALLOCATIONS.get());
        if self.seen[thread].fetch_add(1, Ordering::Relaxed) == 10 {
            self.first[thread].store(now, Ordering::Relaxed);
        }
        self.last[thread].store(now, Ordering::Relaxed);
        match call.opcode() {
            Opcode::Getattr => {
                let Ok(_) = call.args::<GetattrIn>() else { return call.error(Errno::EINVAL) };
                let attr = FuseAttr { ino: 1, mode: libc::S_IFDIR | 0o755, nlink: 2, ..FuseAttr::default() };
                let out = AttrOut { attr, ..AttrOut::default() };
                if self.deferred {
                    let (token, verdict) = call.defer();
                    token.reply_with(out.as_bytes().len(), |body| {
                        body.copy_from_slice(out.as_bytes());
                        Ok(body.len())
                    });
                    return verdict;
                }
                call.ok(out.as_bytes())
            }
            _ => call.error(Errno::ENOSYS),
        }
    }
    fn forget(&self, _: Ino, _: u64) {}
    fn interrupt(&self, _: u64) {}
    fn init(&self, _: &Offered) -> Wanted {
        Wanted::default()
    }
}

#[test]
fn a_request_costs_no_allocation_and_the_system_calls_it_must() {
    const REQUESTS: u64 = 2000;
    for kind in kinds() {
        for deferred in [false, true] {
            let root = Root::new(deferred);
            // One thread: several race for a request on the device, and a loser's call is wasted.
            let options = Options { choice: Choice::Only(kind), threads: Some(1), ..Options::default() };
            let mounted = Mounted::with(root.clone(), &options);
            assert_eq!(std::fs::metadata(&mounted.dir).unwrap().ino(), 1);
            let before = mounted.running().counters();
            for _ in 0..REQUESTS {
                std::fs::metadata(&mounted.dir).unwrap();
            }
            let after = mounted.running().counters();
            assert_eq!(after.of(Opcode::Getattr) - before.of(Opcode::Getattr), REQUESTS);
            let per = |n: u64| n as f64 / REQUESTS as f64;
            let enters = per(after.enters - before.enters);
            let (reads, writes) = (per(after.reads - before.reads), per(after.writes - before.writes));
            println!(
                "{kind}, deferred {deferred}: {enters} enters, {reads} reads, {writes} writes per request"
            );
            assert_eq!(root.allocations(), 0, "{kind}, deferred {deferred}");
            assert_eq!(after.wakes, 0, "a reply from the queue's own thread wakes nobody");
            // Room for a wake-up or two by something else.
            let most = |expected: f64, value: f64| {
                assert!(value <= expected + 0.02, "{kind}: {value} of {expected}")
            };
            match kind {
                Kind::Uring => {
                    most(1.0, enters);
                    most(0.0, reads);
                    most(0.0, writes);
                }
                Kind::Ring => {
                    most(1.0, enters);
                    most(1.0, writes);
                }
                Kind::Blocking => {
                    most(0.0, enters);
                    most(1.0, reads);
                    most(1.0, writes);
                }
            }
        }
    }
}
