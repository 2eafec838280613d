//! How long until many new files, and their removal, are durable.

use crate::numbers::{median, short};
use crate::phases::{Phase, Until, Work};
use crate::target::{Target, busy};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files in all.
    #[arg(long, default_value_t = 100_000)]
    files: u64,
    /// Threads.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    threads: Vec<usize>,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the server's store is.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
}

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    println!("{} files, then flush, then the same to remove them", args.files);
    println!(
        "  {:<8} {:<8} {:>10} {:>11} {:>11} {:>13}",
        "threads", "phase", "caller/s", "durable/s", "cpu us/op", "frames"
    );
    let mut results = Vec::new();
    for threads in &args.threads {
        let mut all = [const { Vec::new() }; 2];
        for _ in 0..args.rounds {
            let target = Target::served(ringfs, &args.disk, &[])?;
            let mut work = Work::new(&target.dir, *threads)?;
            target.drain()?;
            for (phase, rows) in [Phase::Create, Phase::Unlink].into_iter().zip(&mut all) {
                rows.push(once(&target, &mut work, phase, args.files / *threads as u64)?);
            }
        }
        for (phase, rows) in ["create", "unlink"].into_iter().zip(&all) {
            let of = |at: usize| median(&rows.iter().map(|row: &[f64; 4]| row[at]).collect::<Vec<_>>());
            let (caller, durable, cpu, frames) = (of(0), of(1), of(2), of(3));
            println!(
                "  {threads:<8} {phase:<8} {:>10} {:>11} {cpu:>11.1} {frames:>13.0}",
                short(caller),
                short(durable)
            );
            results.push(json!({"threads": threads, "phase": phase, "caller_per_s": caller,
                "durable_per_s": durable, "cpu_us_per_op": cpu, "frames": frames}));
        }
    }
    Ok(json!({"workload": "durable", "files": args.files, "rounds": args.rounds, "results": results}))
}

/// Operations per second for the caller and until all is durable, processor time of one, frames of all.
fn once(target: &Target, work: &mut Work, phase: Phase, each: u64) -> Result<[f64; 4], String> {
    let (cpu, frames) = (busy()?, target.messages());
    let began = Instant::now();
    let ran = work.run(phase, Until::Count(each))?;
    target.drain()?;
    let durable = ran.operations as f64 / began.elapsed().as_secs_f64();
    let cpu = (busy()? - cpu) * 1e6 / ran.operations as f64;
    let frames =
        frames.zip(target.messages()).map_or(f64::NAN, |(before, after)| (after.1 - before.1) as f64);
    Ok([ran.rate(), durable, cpu, frames])
}
