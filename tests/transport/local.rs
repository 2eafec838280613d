//! What a request costs that a mount completes itself, under leases: allocations and system calls of the queue's thread.

use crate::counting::ALLOCATIONS;
use crate::ground::{Way, World, can_mount, eventually};
use crate::mounted::{Mounted, kinds};
use ringfs::base::Ino;
use ringfs::client::mount::{Mount, Options as ClientOptions};
use ringfs::client::serve::Serve;
use ringfs::kernel::transport::{
    Call, Choice, Handler, Negotiated, Notifier, Offered, Options, Verdict, Wanted,
};
use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what a mount allocates while it handles requests.
struct Counted {
    serve: Serve,
    allocations: AtomicU64,
    requests: AtomicU64,
}

impl Handler for Counted {
    fn handle(&self, call: Call<'_>) -> Verdict {
        let before = ALLOCATIONS.get();
        let verdict = self.serve.handle(call);
        self.allocations.fetch_add(ALLOCATIONS.get() - before, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        verdict
    }
    fn forget(&self, ino: Ino, lookups: u64) {
        self.serve.forget(ino, lookups);
    }
    fn interrupt(&self, unique: u64) {
        self.serve.interrupt(unique);
    }
    fn init(&self, offered: &Offered) -> Wanted {
        self.serve.init(offered)
    }
    fn started(&self, negotiated: &Negotiated, notifier: Notifier) {
        self.serve.started(negotiated, notifier);
    }
    fn destroyed(&self) {
        self.serve.destroyed();
    }
}

fn asked(mount: &Mount) -> u64 {
    let o = mount.status().operations;
    o.lookup.asked + o.attributes.asked + o.make.asked + o.unlink.asked + o.write.asked
}

#[test]
fn a_request_that_is_completed_here_costs_hardly_an_allocation_and_no_system_call_of_its_own() {
    const FILES: u64 = 1000;
    if !can_mount() {
        return;
    }
    for kind in kinds() {
        let world = World::new();
        let client = world.client(Way::Socket, ClientOptions::default());
        let counted = Arc::new(Counted {
            serve: Serve::new(Arc::clone(&client)),
            allocations: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        let options = Options { choice: Choice::Only(kind), threads: Some(1), ..Options::default() };
        let mounted = Mounted::with(counted.clone(), &options);
        fs::create_dir(mounted.path("d")).unwrap();
        eventually("numbers for what is to be made", || client.status().leases.numbers > 3 * FILES);
        let round = || {
            for nth in 0..FILES {
                File::create(mounted.path(&format!("d/f{nth}"))).unwrap();
            }
            for nth in 0..FILES {
                fs::metadata(mounted.path(&format!("d/f{nth}"))).unwrap();
                fs::remove_file(mounted.path(&format!("d/f{nth}"))).unwrap();
            }
        };
        // Tables have grown after this.
        round();
        eventually("the first round is applied", || client.status().log.waiting == 0);
        let (before, counters) = (asked(&client), mounted.running().counters());
        let [allocations, requests] = [&counted.allocations, &counted.requests];
        let (a, r) = (allocations.load(Ordering::Relaxed), requests.load(Ordering::Relaxed));
        round();
        let (a, r) = (allocations.load(Ordering::Relaxed) - a, requests.load(Ordering::Relaxed) - r);
        let after = mounted.running().counters();
        assert_eq!(asked(&client) - before, 0, "everything was completed here");
        let per = |n: u64| n as f64 / r as f64;
        let (enters, wakes) = (per(after.enters - counters.enters), after.wakes - counters.wakes);
        println!("{kind}: {} allocations, {enters} enters per request of {r}, {wakes} wakes", per(a));
        // Pieces of the log and of the directory's tree, some dozens of requests each.
        assert!(per(a) < 0.2, "{kind}: {a} allocations of {r} requests");
        // One for each, and some for a RELEASE, for which nobody waits.
        assert!(enters <= 1.3, "{kind}: {enters} enters per request");
        assert_eq!(wakes, 0, "a reply from the queue's own thread wakes nobody");
    }
}
