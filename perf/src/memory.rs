//! Resident memory of the daemon: idle, and per inode it knows.

use crate::mount::Mount;
use serde_json::{Value, json};
use std::path::Path;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Inodes to make known to the mount.
    #[arg(long, default_value_t = 100_000)]
    inodes: u32,
}

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let mount = Mount::start(ringfs, "embedded", &[], None)?;
    let idle = resident(mount.pid())?;
    println!("idle mount with an embedded server: {:.1} MB resident", megabytes(idle));
    let dir = mount.point().join("many");
    let told = |error: std::io::Error| format!("{}: {error}", dir.display());
    std::fs::create_dir(&dir).map_err(told)?;
    for nth in 0..args.inodes {
        std::fs::File::create(dir.join(nth.to_string())).map_err(told)?;
    }
    let after = resident(mount.pid())?;
    let each = after.saturating_sub(idle) as f64 / f64::from(args.inodes);
    println!(
        "after making {} files: {:.1} MB resident, {each:.0} bytes more per file (client, server and store's caches)",
        args.inodes,
        megabytes(after)
    );
    Ok(json!({"workload": "memory", "idle_bytes": idle, "inodes": args.inodes, "resident_bytes": after,
        "bytes_per_inode": each}))
}

/// `VmRSS` of a process, in bytes.
fn resident(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|kb| kb * 1024).ok_or_else(|| format!("{path} has no VmRSS"))
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
