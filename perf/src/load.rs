//! The work itself: threads that repeat one operation on a mount for a while and time each.

use hdrhistogram::Histogram;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// statx of an open file with `AT_STATX_FORCE_SYNC`: one GETATTR.
    Getattr,
    /// open(O_CREAT|O_EXCL) and close, each thread in a directory of its own: LOOKUP, CREATE, (FLUSH,) RELEASE.
    Create,
}

/// What came out.
pub(crate) struct Outcome {
    /// Operations of all threads.
    pub(crate) operations: u64,
    /// Wall time.
    pub(crate) wall: Duration,
    /// Of single operations, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn median_us(&self) -> f64 {
        self.latency.value_at_quantile(0.5) as f64 / 1e3
    }
}

/// Where threads run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// All on one processor.
    On(usize),
    /// Spread over those this process may use, each staying where it is.
    Spread,
    /// Where the scheduler puts them.
    Free,
}

/// Runs `threads` threads for `time`.
pub(crate) fn run(
    dir: &Path,
    operation: Operation,
    threads: usize,
    time: Duration,
    place: Place,
) -> Result<Outcome, String> {
    let barrier = Barrier::new(threads);
    let results: Vec<Result<Worked, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|nth| {
                let barrier = &barrier;
                let dir = dir.join(format!("t{nth}"));
                scope.spawn(move || {
                    match place {
                        Place::On(cpu) => pin(cpu),
                        Place::Spread => pin(nth % processors()),
                        Place::Free => {}
                    }
                    work(dir, operation, time, barrier)
                })
            })
            .collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|result| result.unwrap_or_else(|_| Err("a worker panicked".to_owned()))).collect()
    });
    let mut latency = Histogram::new(3).map_err(|error| error.to_string())?;
    let (mut operations, mut wall) = (0, Duration::ZERO);
    for worked in results {
        let worked = worked?;
        operations += worked.latency.len();
        wall = wall.max(worked.wall);
        latency.add(&worked.latency).map_err(|error| error.to_string())?;
    }
    Ok(Outcome { operations, wall, latency })
}

/// Does `work` while a thread on each processor of this process keeps it busy.
pub(crate) fn beside_busy_cores<T>(work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cpu in 0..processors() {
            let over = &over;
            scope.spawn(move || {
                pin(cpu);
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

struct Worked {
    wall: Duration,
    latency: Histogram<u64>,
}

fn work(dir: PathBuf, operation: Operation, time: Duration, barrier: &Barrier) -> Result<Worked, String> {
    let told = |what: &str, error: rustix::io::Errno| format!("{what} in {}: {error}", dir.display());
    match rustix::fs::mkdir(&dir, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(told("mkdir", error)),
    }
    let file = create(&dir.join("file"), false).map_err(|error| told("create", error))?;
    let mut latency = Histogram::<u64>::new_with_max(60_000_000_000, 3).map_err(|error| error.to_string())?;
    let round = std::process::id();
    barrier.wait();
    let started = Instant::now();
    let mut nth = 0_u64;
    loop {
        let before = Instant::now();
        match operation {
            Operation::Getattr => {
                let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
                let stat = rustix::fs::statx(&file, "", flags, StatxFlags::BASIC_STATS);
                stat.map_err(|error| told("statx", error))?;
            }
            Operation::Create => {
                let path = dir.join(format!("{round}-{nth}"));
                drop(create(&path, true).map_err(|error| told("create", error))?);
            }
        }
        let after = Instant::now();
        latency.saturating_record(u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX));
        nth += 1;
        if after - started >= time {
            return Ok(Worked { wall: after - started, latency });
        }
    }
}

fn create(path: &Path, exclusive: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let flags = if exclusive { flags | OFlags::EXCL } else { flags };
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
}

/// Processors this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    // Without it the numbers are noisier, not wrong.
    rustix::thread::sched_setaffinity(None, &set).ok();
}
