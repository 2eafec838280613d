//! What single calls wait for: fsync of a new file, with nothing else to do and beside `rm -rf`; and the recall of a lease.

use crate::mount::Mount;
use crate::phases::{Phase, Until, Work, histogram};
use crate::target::Target;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Calls of each kind.
    #[arg(long, default_value_t = 300)]
    calls: u64,
    /// Files in the tree that is removed beside.
    #[arg(long, default_value_t = 50_000)]
    files: u64,
    /// Changes that are pending when a lease is recalled.
    #[arg(long, default_value_t = 100)]
    pending: u64,
    /// Where the server's store and the local file system's folder are.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
}

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    println!("  {:<44} {:>9} {:>9} {:>9} {:>7}", "what", "p50 us", "p99 us", "max us", "calls");
    let mut results = Vec::new();
    let mut told = |what: &str, times: &Histogram<u64>| {
        let us = |nanos: u64| nanos as f64 / 1e3;
        let (p50, p99) = (us(times.value_at_quantile(0.5)), us(times.value_at_quantile(0.99)));
        println!("  {what:<44} {p50:>9.0} {p99:>9.0} {:>9.0} {:>7}", us(times.max()), times.len());
        results.push(json!({"what": what, "p50_us": p50, "p99_us": p99, "max_us": us(times.max()), "calls": times.len()}));
    };
    let target = Target::served(ringfs, &args.disk, &[])?;
    let local = Target::local(&args.disk)?;
    // By turns, so that both meet the same disk.
    let (mut ours, mut theirs) = (histogram()?, histogram()?);
    for nth in 0..args.calls {
        synced(&target.dir, nth, &mut ours)?;
        synced(&local.dir, nth, &mut theirs)?;
    }
    told("fsync of a new file, ringfs", &ours);
    told("fsync of a new file, local", &theirs);
    drop(local);
    told("one round trip to the server", &round_trips(&target, args.calls)?);
    told("fsync of a new file beside rm -rf", &beside_removal(&target, args)?);
    let other = target.beside(ringfs)?;
    told(&format!("recall with {} changes pending", args.pending), &recalls(&target, &other, args)?);
    told("recall with a full log", &recalls_of_a_full_log(&target, &other, args)?);
    Ok(json!({"workload": "waits", "calls": args.calls, "results": results}))
}

/// A new file of 100 bytes, written and synced: only the fsync is timed.
fn synced(dir: &Path, nth: u64, times: &mut Histogram<u64>) -> Result<(), String> {
    let path = dir.join(format!("s{nth}"));
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = std::fs::File::create_new(&path).map_err(told)?;
    file.write_all(&[b'x'; 100]).map_err(told)?;
    timed(times, || file.sync_all()).map_err(told)
}

fn timed<T>(times: &mut Histogram<u64>, call: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let gave = call();
    times.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    gave
}

/// statfs is asked of the server each time.
fn round_trips(target: &Target, calls: u64) -> Result<Histogram<u64>, String> {
    let mut times = histogram()?;
    for _ in 0..calls {
        timed(&mut times, || rustix::fs::statfs(&target.dir)).map_err(|error| format!("statfs: {error}"))?;
    }
    Ok(times)
}

fn beside_removal(target: &Target, args: &Args) -> Result<Histogram<u64>, String> {
    let tree = target.dir.join("tree");
    let threads = 8;
    Work::new(&tree, threads)?.run(Phase::Create, Until::Count(args.files / threads as u64))?;
    target.drain()?;
    let over = AtomicBool::new(false);
    let mut times = histogram()?;
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let removed = std::fs::remove_dir_all(&tree);
            over.store(true, Ordering::Release);
            removed
        });
        for nth in args.calls.. {
            if over.load(Ordering::Acquire) {
                break;
            }
            synced(&target.dir, nth, &mut times)?;
        }
        let removed = remover.join().map_err(|_| "the remover panicked".to_owned())?;
        removed.map_err(|error| format!("{}: {error}", tree.display()))
    })?;
    Ok(times)
}

/// One mount changes a directory, the other makes a name in it: the first call of the other is timed.
fn recalls(target: &Target, other: &Mount, args: &Args) -> Result<Histogram<u64>, String> {
    let mut times = histogram()?;
    for nth in 0..args.calls {
        let name = format!("r{nth}");
        let mut work = Work::new(&target.dir.join(&name), 1)?;
        work.run(Phase::Create, Until::Count(args.pending))?;
        let path = other.point().join(&name).join("t0/theirs");
        timed(&mut times, || std::fs::File::create_new(&path))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(times)
}

/// The same while other threads of the first mount keep its log full.
fn recalls_of_a_full_log(target: &Target, other: &Mount, args: &Args) -> Result<Histogram<u64>, String> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let filler = scope.spawn(|| {
            let mut work = Work::new(&target.dir.join("fill"), 4)?;
            while !over.load(Ordering::Acquire) {
                work.run(Phase::Create, Until::Time(Duration::from_millis(200)))?;
                work.run(Phase::Unlink, Until::Time(Duration::from_millis(200)))?;
            }
            Ok::<(), String>(())
        });
        std::thread::sleep(Duration::from_millis(500));
        let times = full(target, other, args);
        over.store(true, Ordering::Release);
        filler.join().map_err(|_| "the filler panicked".to_owned())??;
        times
    })
}

fn full(target: &Target, other: &Mount, args: &Args) -> Result<Histogram<u64>, String> {
    let mut times = histogram()?;
    for nth in 0..args.calls {
        let name = format!("f{nth}");
        Work::new(&target.dir.join(&name), 1)?.run(Phase::Create, Until::Count(10))?;
        let path = other.point().join(&name).join("t0/theirs");
        timed(&mut times, || std::fs::File::create_new(&path))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(times)
}
