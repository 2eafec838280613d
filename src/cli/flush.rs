//! `ringfs flush`: everything durable when it returns.

use super::args::FlushArgs;
use super::fail::Failure;
use super::target::{ask_daemon, mount_at};
use crate::control::Ask;
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// Not everything is known to be durable.
pub(super) fn run(args: &FlushArgs) -> Result<(), Failure> {
    let mount = mount_at(&args.dir)?;
    let patience = Duration::from_secs(args.timeout.into());
    ask_daemon(&mount, Ask::Flush, patience)
        .map(|_| ())
        .map_err(|fault| Failure::new(format!("{}: not flushed: {fault}", args.dir.display())))
}
