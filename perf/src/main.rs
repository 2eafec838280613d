//! `perf`: measures ringfs from outside, with its own binary on real mounts.
//!
//! Whatever is compared runs in turn, round after round, in one call; medians and ratios of rounds are told, never
//! one number alone. See README.md beside this for what each workload shows.

mod durable;
mod load;
mod memory;
mod mount;
mod names;
mod numbers;
mod phases;
mod target;
mod transport;
mod waits;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measure ringfs on real mounts, interleaved", version)]
struct Args {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/ringfs")]
    ringfs: PathBuf,
    /// Write the results as JSON to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// The floor of each transport: `null:` mounts, one request at a time and from many threads.
    Transport(transport::Args),
    /// Resident memory: an idle mount, and one that knows many inodes.
    Memory(memory::Args),
    /// Names made, looked at, renamed, removed: ringfs, the transport's floor, the local file system, directories NAME=DIR.
    Names(names::Args),
    /// Many files made and removed, until all is durable.
    Durable(durable::Args),
    /// What fsync waits for, and a call that recalls another mount's lease.
    Waits(waits::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.workload {
        Workload::Transport(workload) => transport::run(&args.ringfs, workload),
        Workload::Memory(workload) => memory::run(&args.ringfs, workload),
        Workload::Names(workload) => names::run(&args.ringfs, workload),
        Workload::Durable(workload) => durable::run(&args.ringfs, workload),
        Workload::Waits(workload) => waits::run(&args.ringfs, workload),
    };
    let written = result.and_then(|json| match &args.json {
        Some(path) => std::fs::write(path, format!("{json:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display())),
        None => Ok(()),
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}
