//! Queue threads that yield: what they promise whatever the machine does meanwhile.

use crate::counting::Root;
use crate::mounted::{Mounted, PATIENCE, eventually, kinds};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use ringfs::kernel::transport::{Choice, Counters, End, Kind, Options, may_yield};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a slow machine to get eight requests into it.
const TICK: Duration = Duration::from_millis(100);

/// A mount whose queues may yield, or none with a printed reason.
fn mounted(tick: Duration) -> Option<Mounted> {
    if !kinds().contains(&Kind::Uring) {
        return None;
    }
    if let Err(why) = may_yield() {
        println!("skipped: {why}");
        return None;
    }
    let choice = Choice::Only(Kind::Uring);
    Some(Mounted::with(Root::new(false), &Options { choice, yield_tick: tick, ..Options::default() }))
}

fn request(mounted: &Mounted, times: usize) {
    for _ in 0..times {
        fs::metadata(&mounted.dir).unwrap();
    }
}

fn counters(mounted: &Mounted) -> Counters {
    mounted.running().counters()
}

/// Asks until a queue has yielded once more.
fn make_one_yield(mounted: &Mounted) {
    let before = counters(mounted).yields;
    eventually("a queue yields", || {
        request(mounted, 50);
        counters(mounted).yields > before
    });
}

/// Queue threads of this process that have the policy of those that yield: the 41st word of their lines.
fn yielding_threads() -> usize {
    let lines = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        let path: PathBuf = task.unwrap().path().join("stat");
        fs::read_to_string(path).ok()
    });
    lines
        .filter(|line| {
            let (_, rest) = line.rsplit_once(") ").unwrap();
            rest.split(' ').nth(38) == Some(libc::SCHED_IDLE.to_string().as_str())
        })
        .count()
}

/// Raises the flag at the end, also when the test has failed: others wait for it.
struct Raised<'f>(&'f AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_stream_yields_and_policies_change_for_few_of_its_requests() {
    const REQUESTS: u64 = 3000;
    let Some(mounted) = mounted(TICK) else { return };
    make_one_yield(&mounted);
    let before = counters(&mounted);
    request(&mounted, REQUESTS as usize);
    let after = counters(&mounted);
    let changes = after.yields - before.yields + after.put_back - before.put_back;
    println!("{changes} changes of policies in {REQUESTS} requests");
    assert!(changes * 8 <= REQUESTS, "{changes} changes");
    assert_eq!(mounted.unmount(), End::Unmounted);
}

#[test]
fn who_yields_beside_programs_that_want_every_core_is_put_back_and_all_is_served() {
    const REQUESTS: usize = 2000;
    let Some(mounted) = mounted(Duration::from_millis(2)) else { return };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
        for cpu in (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()) {
            let over = &over;
            scope.spawn(move || {
                let mut own = CpuSet::new();
                own.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &own).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let _ends = Raised(&over);
        let began = Instant::now();
        for _ in 0..REQUESTS / 10 {
            request(&mounted, 10);
            assert!(began.elapsed() < PATIENCE, "starved: {:?}", counters(&mounted));
        }
        eventually("nobody yields any more", || {
            let now = counters(&mounted);
            now.yields == now.put_back
        });
    });
    println!("yielded {} times beside them", counters(&mounted).yields);
    assert_eq!(mounted.unmount(), End::Unmounted);
}

#[test]
fn a_mount_without_requests_is_not_looked_after() {
    let Some(mounted) = mounted(TICK) else { return };
    let idle = |what: &str| {
        let before = counters(&mounted).yield_looks;
        std::thread::sleep(5 * TICK);
        assert_eq!(counters(&mounted).yield_looks, before, "{what}");
    };
    idle("before the first request");
    make_one_yield(&mounted);
    eventually("it is put back when nothing comes", || {
        let now = counters(&mounted);
        now.yields == now.put_back
    });
    // The watch counts when it wakes, and puts back after that.
    idle("after the last one");
    assert_eq!(mounted.unmount(), End::Unmounted);
}

#[test]
fn a_mount_ends_while_its_queues_yield() {
    // Nobody is put back for two seconds, or it is by the end.
    let Some(mounted) = mounted(Duration::from_secs(2)) else { return };
    let monitor = mounted.running().monitor();
    eventually("a queue yields", || {
        request(&mounted, 5);
        monitor.counters().yields > monitor.counters().put_back && yielding_threads() > 0
    });
    assert_eq!(mounted.unmount(), End::Unmounted);
    let after = monitor.counters();
    assert_eq!(after.yields, after.put_back, "a queue thread is ordinary when its handler learns of the end");
}

#[test]
fn who_is_told_not_to_yield_does_not() {
    if !kinds().contains(&Kind::Uring) {
        return;
    }
    let choice = Choice::Only(Kind::Uring);
    let options = Options { choice, yields: false, yield_tick: TICK, ..Options::default() };
    let mounted = Mounted::with(Root::new(false), &options);
    request(&mounted, 500);
    assert_eq!(counters(&mounted).yields, 0);
    assert_eq!(mounted.running().why_no_yield(), Some("it is switched off"));
    assert_eq!(mounted.unmount(), End::Unmounted);
}
