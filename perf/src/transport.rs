//! The floor of each transport: what a request costs when the file system behind it does nothing.

use crate::load::{self, Operation};
use crate::mount::Mount;
use crate::numbers::{median, range, ratios, short};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; every transport runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Threads of the capacity measurement.
    #[arg(long, default_value_t = 8)]
    threads: usize,
    /// Negotiate as little as possible instead of what a real mount negotiates.
    #[arg(long)]
    bare: bool,
    /// Transports to compare; ratios are to the last.
    #[arg(long, value_delimiter = ',', default_value = "uring,ring,blocking")]
    transports: Vec<String>,
}

/// One thing that is measured on each transport.
struct Case {
    name: &'static str,
    operation: Operation,
    /// One thread and the daemon on processor 0: the shortest way there is.
    same_core: bool,
}

const CASES: [Case; 4] = [
    Case { name: "GETATTR, 1 thread, same core", operation: Operation::Getattr, same_core: true },
    Case { name: "CREATE, 1 thread, same core", operation: Operation::Create, same_core: true },
    Case { name: "GETATTR, all threads", operation: Operation::Getattr, same_core: false },
    Case { name: "CREATE, all threads", operation: Operation::Create, same_core: false },
];

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for case in &CASES {
        let (mut rates, mut medians) =
            (vec![Vec::new(); args.transports.len()], vec![Vec::new(); args.transports.len()]);
        for _ in 0..args.rounds {
            for (nth, transport) in args.transports.iter().enumerate() {
                let mut options = vec!["--transport", transport];
                if args.bare {
                    options.push("--bare");
                }
                let cpu = case.same_core.then_some(0);
                let mount = Mount::start(ringfs, "null:", &options, cpu.map(|_| "0"))?;
                let threads = if case.same_core { 1 } else { args.threads };
                let outcome = load::run(mount.point(), case.operation, threads, time, cpu)?;
                rates[nth].push(outcome.rate());
                medians[nth].push(outcome.median_us());
            }
        }
        results.push(tell(case, args, &rates, &medians));
    }
    let (rounds, seconds, threads, processors) =
        (args.rounds, args.seconds, args.threads, load::processors());
    Ok(json!({"workload": "transport", "rounds": rounds, "seconds": seconds, "threads": threads,
        "processors": processors, "bare": args.bare, "results": results}))
}

fn tell(case: &Case, args: &Args, rates: &[Vec<f64>], medians: &[Vec<f64>]) -> Value {
    println!("\n{} (medians of {} rounds of {} s)", case.name, args.rounds, args.seconds);
    println!("  {:<10} {:>10} {:>19} {:>10} {:>9}", "transport", "ops/s", "min..max", "p50 us", "rate x");
    let mut rows = Vec::new();
    for (nth, transport) in args.transports.iter().enumerate() {
        let (low, high) = range(&rates[nth]);
        let ratio = rates.last().map_or(f64::NAN, |last| median(&ratios(&rates[nth], last)));
        let (rate, p50) = (median(&rates[nth]), median(&medians[nth]));
        let spread = format!("{}..{}", short(low), short(high));
        println!("  {transport:<10} {:>10} {spread:>19} {p50:>10.2} {ratio:>9.2}", short(rate));
        rows.push(
            json!({"transport": transport, "ops_per_s": rate, "ops_per_s_min": low, "ops_per_s_max": high,
            "p50_us": p50, "rate_ratio": ratio}),
        );
    }
    json!({"case": case.name, "rows": rows})
}
