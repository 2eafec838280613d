//! Names made, looked at, renamed and removed: ringfs with a server in its own process against the floor of its transport,
//! the local file system, and any directories that are named.

use crate::numbers::{median, range, ratios, short};
use crate::phases::{ALL, Phase, Ran, Until, Work};
use crate::target::{Target, busy};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// More directories to compare with, mounted already: NAME=DIR.
    #[arg(value_name = "NAME=DIR")]
    named: Vec<String>,
    /// Command that returns when all is durable in a named directory, which is its last word: NAME=COMMAND. Default: syncfs(2).
    #[arg(long, value_name = "NAME=COMMAND")]
    drain: Vec<String>,
    /// Only the directories that are named.
    #[arg(long)]
    only_named: bool,
    /// Rounds; every target runs once in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each phase. Phases that remove end when nothing is left.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Threads.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    threads: Vec<usize>,
    /// Where the server's store and the local file system's folder are.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
}

/// One phase of one target in one round.
struct Measured {
    rate: f64,
    /// With the time until all was durable.
    drained_rate: f64,
    p50_us: f64,
    p99_us: f64,
    wall_s: f64,
    cpu_us: f64,
    /// Per operation: the kernel's requests, frames to the server.
    messages: Option<(f64, f64)>,
}

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for threads in &args.threads {
        let mut of_targets: Vec<(String, Vec<Vec<Measured>>)> = Vec::new();
        for round in 0..args.rounds {
            for target in makers(ringfs, args) {
                let target = target()?;
                let measured = measure(&target, *threads, time, round)?;
                match of_targets.iter_mut().find(|(name, _)| *name == target.name) {
                    Some((_, rounds)) => rounds.push(measured),
                    None => of_targets.push((target.name.clone(), vec![measured])),
                }
            }
        }
        for (nth, phase) in ALL.iter().enumerate() {
            results.push(tell(*phase, nth, *threads, args, &of_targets));
        }
    }
    Ok(json!({"workload": "names", "rounds": args.rounds, "seconds": args.seconds, "results": results}))
}

/// Each target is made anew in each round, one at a time, so that none stands idle beside another.
fn makers<'a>(ringfs: &'a Path, args: &'a Args) -> Vec<Box<dyn Fn() -> Result<Target, String> + 'a>> {
    let mut makers: Vec<Box<dyn Fn() -> Result<Target, String> + 'a>> = Vec::new();
    if !args.only_named {
        makers.push(Box::new(|| Target::floor(ringfs)));
        makers.push(Box::new(|| Target::served(ringfs, &args.disk, &[])));
        makers.push(Box::new(|| Target::local(&args.disk)));
    }
    for word in &args.named {
        makers.push(Box::new(move || Target::named(word, &args.drain)));
    }
    makers
}

fn measure(target: &Target, threads: usize, time: Duration, round: usize) -> Result<Vec<Measured>, String> {
    let below = target.dir.join(format!("perf-{}-{threads}-{round}", std::process::id()));
    let mut work = Work::new(&below, threads)?;
    let mut all = Vec::with_capacity(ALL.len());
    for phase in ALL {
        // What is removed must have been made: the makers work longer.
        let time = if matches!(phase, Phase::Create | Phase::Mkdir) { time.mul_f64(1.5) } else { time };
        target.drain()?;
        let (before, messages) = (busy()?, target.messages());
        let began = Instant::now();
        let ran = work.run(phase, Until::Time(time))?;
        if phase.changes() {
            target.drain()?;
        }
        all.push(measured(target, &ran, began.elapsed(), busy()? - before, messages));
    }
    std::fs::remove_dir_all(&below).map_err(|error| format!("{}: {error}", below.display()))?;
    Ok(all)
}

fn measured(target: &Target, ran: &Ran, drained: Duration, cpu: f64, before: Option<(u64, u64)>) -> Measured {
    let operations = (ran.operations as f64).max(1.0);
    let per = |after: u64, before: u64| after.saturating_sub(before) as f64 / operations;
    let messages = before.zip(target.messages());
    Measured {
        rate: ran.rate(),
        drained_rate: operations / drained.as_secs_f64(),
        p50_us: ran.latency.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: ran.latency.value_at_quantile(0.99) as f64 / 1e3,
        wall_s: ran.wall.as_secs_f64(),
        cpu_us: cpu * 1e6 / operations,
        messages: messages.map(|(before, after)| (per(after.0, before.0), per(after.1, before.1))),
    }
}

fn tell(
    phase: Phase,
    nth: usize,
    threads: usize,
    args: &Args,
    targets: &[(String, Vec<Vec<Measured>>)],
) -> Value {
    println!("\n{}, {threads} threads (medians of {} rounds)", phase.name(), args.rounds);
    println!(
        "  {:<12} {:>9} {:>17} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "target",
        "ops/s",
        "min..max",
        "drained/s",
        "p50 us",
        "p99 us",
        "cpu us",
        "wall s",
        "req/op",
        "frm/op",
        "ringfs x"
    );
    let pick = |rounds: &Vec<Vec<Measured>>, of: &dyn Fn(&Measured) -> f64| -> Vec<f64> {
        rounds.iter().map(|round| of(&round[nth])).collect()
    };
    let own = targets.iter().find(|(name, _)| name == "ringfs");
    let mut rows = Vec::new();
    for (name, rounds) in targets {
        let of = |of: &dyn Fn(&Measured) -> f64| median(&pick(rounds, of));
        let rates = pick(rounds, &|m| m.rate);
        let (low, high) = range(&rates);
        let (rate, drained) = (median(&rates), of(&|m| m.drained_rate));
        let requests = of(&|m| m.messages.map_or(f64::NAN, |(requests, _)| requests));
        let frames = of(&|m| m.messages.map_or(f64::NAN, |(_, frames)| frames));
        let (p50, p99, cpu, wall) =
            (of(&|m| m.p50_us), of(&|m| m.p99_us), of(&|m| m.cpu_us), of(&|m| m.wall_s));
        // What ringfs does for each operation of this target, round by round: by the caller's clock, and with the drain.
        let times = own.map(|(_, own)| median(&ratios(&pick(own, &|m| m.rate), &rates)));
        let drained_times = own.map(|(_, own)| {
            median(&ratios(&pick(own, &|m| m.drained_rate), &pick(rounds, &|m| m.drained_rate)))
        });
        println!(
            "  {name:<12} {:>9} {:>17} {:>9} {p50:>9.1} {p99:>9.1} {cpu:>8.1} {wall:>8.1} {requests:>8.2} {frames:>8.3} {:>9}",
            short(rate),
            format!("{}..{}", short(low), short(high)),
            short(drained),
            times.map_or_else(String::new, |times| format!("{times:.2}")),
        );
        rows.push(json!({"target": name, "ops_per_s": rate, "ops_per_s_min": low, "ops_per_s_max": high,
            "drained_ops_per_s": drained, "p50_us": p50, "p99_us": p99, "cpu_us_per_op": cpu, "wall_s": wall,
            "requests_per_op": requests, "frames_per_op": frames, "ringfs_times": times,
            "ringfs_times_drained": drained_times}));
    }
    json!({"phase": phase.name(), "threads": threads, "rows": rows})
}
