//! Resident memory of the daemon: idle, and per inode it knows.

use crate::mount::Mount;
use crate::target::Target;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Inodes to make known to the mount.
    #[arg(long, default_value_t = 100_000)]
    inodes: u32,
    /// Where the store of a server of its own is.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
}

pub(crate) fn run(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let embedded = embedded(ringfs, args)?;
    let served = served(ringfs, args)?;
    Ok(json!({"workload": "memory", "inodes": args.inodes, "embedded": embedded, "served": served}))
}

fn make(dir: &Path, inodes: u32) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", dir.display());
    std::fs::create_dir(dir).map_err(told)?;
    for nth in 0..inodes {
        std::fs::File::create(dir.join(nth.to_string())).map_err(told)?;
    }
    Ok(())
}

fn embedded(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let mount = Mount::start(ringfs, "embedded", &[], None)?;
    let idle = resident(mount.pid())?;
    println!("idle mount with an embedded server: {:.1} MB resident", megabytes(idle));
    make(&mount.point().join("many"), args.inodes)?;
    let after = resident(mount.pid())?;
    let each = after.saturating_sub(idle) as f64 / f64::from(args.inodes);
    println!(
        "after making {} files: {:.1} MB resident, {each:.0} bytes more per file (client, server and store's caches)",
        args.inodes,
        megabytes(after)
    );
    Ok(json!({"idle_bytes": idle, "resident_bytes": after, "bytes_per_inode": each}))
}

/// Client and server apart; and the most that a change took while it was in the client's log.
fn served(ringfs: &Path, args: &Args) -> Result<Value, String> {
    let target = Target::served(ringfs, &args.disk, &[])?;
    let sizes = || target.pids.iter().map(|pid| resident(*pid)).collect::<Result<Vec<u64>, String>>();
    let idle = sizes()?;
    let over = AtomicBool::new(false);
    let per_change = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most: Option<(u64, u64)> = None;
            while !over.load(Ordering::Acquire) {
                let status = target.status();
                let of = |name: &str| status.as_ref().and_then(|status| status["client"][name].as_u64());
                if let Some(seen) = of("mutations_unsettled").zip(of("mutation_bytes_unsettled")) {
                    most = most.max(Some(seen));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let made = make(&target.dir.join("many"), args.inodes);
        over.store(true, Ordering::Release);
        let most = watcher.join().map_err(|_| "the watcher panicked".to_owned())?;
        made.map(|()| most.filter(|(changes, _)| *changes > 0))
    })?;
    target.drain()?;
    let after = sizes()?;
    let each = |at: usize| after[at].saturating_sub(idle[at]) as f64 / f64::from(args.inodes);
    println!("with a server of its own: client {:.0}, server {:.0} bytes more per file", each(0), each(1));
    if let Some((changes, bytes)) = per_change {
        println!("largest log seen: {changes} changes, {:.0} bytes each", bytes as f64 / changes as f64);
    }
    Ok(json!({"client_bytes_per_inode": each(0), "server_bytes_per_inode": each(1), "idle_bytes": idle,
        "log": per_change.map(|(changes, bytes)| json!({"changes": changes, "bytes": bytes}))}))
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
