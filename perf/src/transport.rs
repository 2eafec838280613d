//! The floor of each transport: what a request costs when the file system behind it does nothing.

use crate::load::{self, Operation, Place};
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
    /// Transports to compare; ratios are to the last. `uring/no-yield` is the one whose queues do not yield.
    #[arg(long, value_delimiter = ',', default_value = "uring,uring/no-yield,ring,blocking")]
    transports: Vec<String>,
    /// Only cases whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
}

/// One thing that is measured on each transport.
struct Case {
    name: &'static str,
    operation: Operation,
    /// As many threads as the arguments say, or one.
    all: bool,
    /// On processor 0 the daemon stays there too: the shortest way there is.
    place: Place,
    /// Beside programs that want every processor for themselves.
    busy: bool,
}

const fn one(name: &'static str, operation: Operation, place: Place, busy: bool) -> Case {
    Case { name, operation, all: false, place, busy }
}

const fn all(name: &'static str, operation: Operation) -> Case {
    Case { name, operation, all: true, place: Place::Spread, busy: false }
}

const CASES: [Case; 8] = [
    one("GETATTR, 1 thread, same core", Operation::Getattr, Place::On(0), false),
    one("CREATE, 1 thread, same core", Operation::Create, Place::On(0), false),
    one("GETATTR, 1 thread, not pinned", Operation::Getattr, Place::Free, false),
    one("CREATE, 1 thread, not pinned", Operation::Create, Place::Free, false),
    one("GETATTR, 1 thread, not pinned, busy cores", Operation::Getattr, Place::Free, true),
    one("CREATE, 1 thread, not pinned, busy cores", Operation::Create, Place::Free, true),
    all("GETATTR, all threads", Operation::Getattr),
    all("CREATE, all threads", Operation::Create),
];

/// What follows a transport whose queues must not yield.
const NO_YIELD: &str = "/no-yield";

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(&args.only)) {
        let (mut rates, mut medians) =
            (vec![Vec::new(); args.transports.len()], vec![Vec::new(); args.transports.len()]);
        for _ in 0..args.rounds {
            for (nth, transport) in args.transports.iter().enumerate() {
                let plain = transport.strip_suffix(NO_YIELD);
                let mut options = vec!["--transport", plain.unwrap_or(transport)];
                if plain.is_some() {
                    options.push("--no-yield");
                }
                if args.bare {
                    options.push("--bare");
                }
                let cpus = matches!(case.place, Place::On(_)).then_some("0");
                let mount = Mount::start(ringfs, "null:", &options, cpus)?;
                let threads = if case.all { args.threads } else { 1 };
                let run = || load::run(mount.point(), case.operation, threads, time, case.place);
                let outcome = if case.busy { load::beside_busy_cores(run) } else { run() }?;
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
    println!("  {:<14} {:>10} {:>19} {:>10} {:>9}", "transport", "ops/s", "min..max", "p50 us", "rate x");
    let mut rows = Vec::new();
    for (nth, transport) in args.transports.iter().enumerate() {
        let (low, high) = range(&rates[nth]);
        let ratio = rates.last().map_or(f64::NAN, |last| median(&ratios(&rates[nth], last)));
        let (rate, p50) = (median(&rates[nth]), median(&medians[nth]));
        let spread = format!("{}..{}", short(low), short(high));
        println!("  {transport:<14} {:>10} {spread:>19} {p50:>10.2} {ratio:>9.2}", short(rate));
        rows.push(
            json!({"transport": transport, "ops_per_s": rate, "ops_per_s_min": low, "ops_per_s_max": high,
            "p50_us": p50, "rate_ratio": ratio}),
        );
    }
    json!({"case": case.name, "rows": rows})
}
