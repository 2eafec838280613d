//! The command line: the only place that names concrete stores, transports and servers, and ties them together.
//!
//! Comes in: arguments, in the form of a person, of /etc/fstab (`mount -t fuse.ringfs SRC DIR -o …` starts
//! `ringfs SRC DIR -o …`) or of a mount helper called `mount.ringfs`. Goes out: an exit code, and on failure one
//! line on the standard error that names the remedy.
#![forbid(unsafe_code)]

mod args;

mod bench;

mod cover;

mod daemon;

mod doctor;

mod errors;

mod evict;

mod fail;

mod flush;

mod front;

mod fsck;

mod helper;

mod info;

mod log;

mod mount;

mod mountinfo;

mod options;

mod own_server;

mod print;

mod probe;

mod procs;

mod remount;

mod rescue;

mod serve;

mod server_address;

mod status;

mod target;

mod umount;

use args::{Cli, Command};
use clap::Parser;
use fail::{Exit, Failure};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let line = helper::translate(std::env::args_os().collect());
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli, &line[1..]) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("ringfs: {failure}");
            failure.exit.into()
        }
    }
}

/// Runs one command. `line` is what a daemon is started with again.
fn run(cli: Cli, line: &[OsString]) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Mount(args) => mount::run(args, line),
        Command::Umount(args) => done(umount::run(&args)),
        Command::Status(args) => status::run(&args).map(Into::into),
        Command::Flush(args) => done(flush::run(&args)),
        Command::Errors(args) => errors::run(&args).map(Into::into),
        Command::Rescue(args) => done(rescue::run(&args)),
        Command::Info(args) => done(info::run(&args)),
        Command::Doctor(args) => doctor::run(&args).map(Into::into),
        Command::Bench(args) => done(bench::run(&args)),
        Command::AskMount(args) => probe::run(&args).map(Into::into),
        Command::Serve(args) => serve::run(&args, line),
        Command::Evict(args) => done(evict::run(&args)),
        Command::Fsck(args) => fsck::run(&args).map(Into::into),
    }
}

/// Help and version go to the standard output; what is wrong becomes one line, with clap's tip when it has one.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Bare;
    if !error.use_stderr() || error.kind() == Bare {
        let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        return error.print().map_or(Exit::Failed.into(), |()| exit.into());
    }
    let text = error.to_string();
    let words = |line: &str| line.trim().trim_start_matches("error: ").to_owned();
    let said: Vec<_> = text.lines().take_while(|line| !line.starts_with("Usage")).map(words).collect();
    let said: Vec<_> =
        said.into_iter().filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    eprintln!("ringfs: {}; see `ringfs help`", said.join("; "));
    Exit::Usage.into()
}

fn done(result: Result<(), Failure>) -> Result<ExitCode, Failure> {
    result.map(|()| Exit::Ok.into())
}
