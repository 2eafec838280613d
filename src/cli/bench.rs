//! `ringfs bench`: small files through the ordinary system calls, on any file system, one phase after the other.
//!
//! Each thread does each phase over its own files; a phase begins when every thread has ended the one before. The
//! clock runs around every single call (open to close for files), so the table shows tails, not only rates.

use super::args::BenchArgs;
use super::fail::Failure;
use super::print;
use hdrhistogram::Histogram;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Longest latency kept apart from longer ones: an hour.
const NANOS_MAX: u64 = 3_600_000_000_000;

/// One step over all files.
type Step = fn(&Plan, &Names, &mut Vec<u8>) -> io::Result<()>;

const PHASES: [(&str, Step); 6] = [
    ("create", |plan, names, bytes| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&names.first)?;
        file.write_all(bytes)?;
        if plan.fsync { file.sync_all() } else { Ok(()) }
    }),
    ("stat", |_, names, _| fs::symlink_metadata(&names.first).map(|_| ())),
    ("read", |plan, names, bytes| {
        bytes.clear();
        File::open(&names.first)?.read_to_end(bytes)?;
        let whole = bytes.len() == plan.size;
        if whole { Ok(()) } else { Err(io::Error::other("a file came back shorter than it was written")) }
    }),
    ("rename", |_, names, _| fs::rename(&names.first, &names.second)),
    ("list", |_, names, _| list(&names.dir)),
    ("unlink", |_, names, _| fs::remove_file(&names.second)),
];

struct Plan {
    size: usize,
    fsync: bool,
}

struct Names {
    dir: PathBuf,
    first: PathBuf,
    second: PathBuf,
}

/// What one phase cost.
struct Measured {
    name: &'static str,
    wall: Duration,
    nanos: Histogram<u64>,
}

/// Runs the command.
///
/// # Errors
/// A call on the directory failed; the folder made for the run is removed all the same.
pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let folder = args.dir.join(format!("ringfs-bench-{}", std::process::id()));
    let failed = |error: io::Error| Failure::new(format!("{}: {error}", folder.display()));
    fs::create_dir(&folder).map_err(failed)?;
    let measured = measure(args, &folder);
    let removed = fs::remove_dir_all(&folder);
    let measured = measured.map_err(failed)?;
    removed.map_err(failed)?;
    if args.json { print::json(&as_json(args, &measured)) } else { print::text(&table(&measured)) }
}

fn measure(args: &BenchArgs, folder: &Path) -> io::Result<Vec<Measured>> {
    let threads = usize::try_from(args.threads).unwrap_or(1);
    let plan = Plan { size: usize::try_from(args.size).unwrap_or(0), fsync: args.fsync };
    let dirs: Vec<PathBuf> = (0..threads)
        .map(|thread| if args.shared { folder.to_owned() } else { folder.join(format!("t{thread}")) })
        .collect();
    for dir in dirs.iter().filter(|_| !args.shared) {
        fs::create_dir(dir)?;
    }
    let mut results = Vec::with_capacity(PHASES.len());
    for (name, step) in PHASES {
        let start = Barrier::new(threads + 1);
        let (wall, pieces) = std::thread::scope(|scope| {
            let workers: Vec<_> = dirs
                .iter()
                .enumerate()
                .map(|(thread, dir)| {
                    let (plan, start) = (&plan, &start);
                    let share = share_of(args.files, args.threads, thread);
                    // A directory is listed once by each thread, not once per file.
                    let share = if name == "list" { share.min(1) } else { share };
                    scope.spawn(move || {
                        start.wait();
                        one_thread(plan, step, dir, thread, share)
                    })
                })
                .collect();
            start.wait();
            let begin = Instant::now();
            let pieces: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            (begin.elapsed(), pieces)
        });
        let mut nanos = histogram();
        for piece in pieces {
            let piece = piece.map_err(|_| io::Error::other("a bench thread panicked"))??;
            nanos.add(piece).map_err(io::Error::other)?;
        }
        results.push(Measured { name, wall, nanos });
    }
    Ok(results)
}

fn one_thread(plan: &Plan, step: Step, dir: &Path, thread: usize, files: u32) -> io::Result<Histogram<u64>> {
    let mut nanos = histogram();
    let mut bytes = vec![0x5a; plan.size];
    for number in 0..files {
        let names = Names {
            dir: dir.to_owned(),
            first: dir.join(format!("t{thread}-f{number}")),
            second: dir.join(format!("t{thread}-r{number}")),
        };
        let begin = Instant::now();
        step(plan, &names, &mut bytes)?;
        let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(NANOS_MAX);
        nanos.saturating_record(took);
    }
    Ok(nanos)
}

fn list(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        entry?;
    }
    Ok(())
}

/// Files of one thread; the first threads take what does not divide evenly.
fn share_of(files: u32, threads: u32, thread: usize) -> u32 {
    let extra = usize::try_from(files % threads).is_ok_and(|extra| thread < extra);
    files / threads + u32::from(extra)
}

fn histogram() -> Histogram<u64> {
    let made = Histogram::new_with_bounds(1, NANOS_MAX, 3);
    made.expect("1, an hour and 3 digits are bounds a histogram takes")
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn table(measured: &[Measured]) -> String {
    let mut text = format!("{:<8}{:>10}{:>12}", "phase", "calls", "calls/s");
    for (name, _) in QUANTILES {
        text.push_str(&format!("{name:>11}"));
    }
    text.push_str(&format!("{:>11}\n", "max"));
    for phase in measured {
        text.push_str(&format!("{:<8}{:>10}{:>12.0}", phase.name, phase.nanos.len(), phase.rate()));
        for (_, quantile) in QUANTILES {
            text.push_str(&micros(phase.nanos.value_at_quantile(quantile)));
        }
        text.push_str(&micros(phase.nanos.max()));
        text.push('\n');
    }
    text.push_str("latencies in microseconds\n");
    text
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people: three digits are looked at")]
    fn rate(&self) -> f64 {
        self.nanos.len() as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a latency for people: one decimal is shown")]
fn micros(nanos: u64) -> String {
    format!("{:>11.1}", nanos as f64 / 1000.0)
}

fn as_json(args: &BenchArgs, measured: &[Measured]) -> serde_json::Value {
    let phases: Vec<_> = measured
        .iter()
        .map(|phase| {
            let mut object = json!({
                "phase": phase.name,
                "calls": phase.nanos.len(),
                "calls_per_second": phase.rate(),
                "max_ns": phase.nanos.max(),
            });
            for (name, quantile) in QUANTILES {
                object[format!("{name}_ns")] = phase.nanos.value_at_quantile(quantile).into();
            }
            object
        })
        .collect();
    json!({
        "files": args.files,
        "threads": args.threads,
        "size_bytes": args.size,
        "shared_directory": args.shared,
        "fsync": args.fsync,
        "phases": phases,
    })
}

#[cfg(test)]
mod tests {
    use super::{measure, share_of};
    use crate::cli::args::BenchArgs;

    #[test]
    fn every_file_belongs_to_one_thread() {
        for (files, threads) in [(10, 3), (2, 4), (1, 1), (7, 7)] {
            let threads_usize = usize::try_from(threads).unwrap();
            assert_eq!((0..threads_usize).map(|t| share_of(files, threads, t)).sum::<u32>(), files);
        }
    }

    #[test]
    fn each_phase_touches_each_file_once_and_leaves_nothing() {
        for shared in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let args = BenchArgs {
                dir: folder.path().into(),
                files: 25,
                threads: 3,
                size: 100,
                shared,
                fsync: false,
                json: false,
            };
            let measured = measure(&args, folder.path()).unwrap();
            let calls: Vec<_> = measured.iter().map(|phase| (phase.name, phase.nanos.len())).collect();
            let all =
                [("create", 25), ("stat", 25), ("read", 25), ("rename", 25), ("list", 3), ("unlink", 25)];
            assert_eq!(calls, all);
        }
    }
}
