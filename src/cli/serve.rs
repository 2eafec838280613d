//! `ringfs serve`: opens the store, listens, and stays until a signal ends it.

use super::args::ServeArgs;
use super::daemon::{self, Signals};
use super::fail::{Exit, Failure};
use super::own_server::OwnServer;
use super::{log, print, server_address};
use crate::server::serve::Listen;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::mpsc::channel;

/// Runs the command. `line` is what the daemon is started with.
///
/// # Errors
/// The store is not served, or was not closed in order.
pub(super) fn run(args: &ServeArgs, line: &[OsString]) -> Result<ExitCode, Failure> {
    if let Some(store) = args.store.to_str() {
        server_address::refuse_unknown_scheme("store", store, "--listen for addresses")?;
    }
    let addresses = args.listen.iter().map(|word| parse(word)).collect::<Result<Vec<_>, _>>()?;
    if !args.daemon.foreground && !daemon::is_child() {
        return daemon::start_and_wait(line);
    }
    let store = server_address::settled(&args.store)?;
    let signals = Signals::block()?;
    let log = log::start_for(&args.daemon)?;
    let server = OwnServer::open(&store, &args.times)?;
    for address in &addresses {
        let listening = server.listen(address)?;
        tracing::info!("serving {} at {listening}", store.display());
        print::text(&format!("listening at {listening}\n"))?;
    }
    if daemon::is_child() {
        daemon::leave_terminal();
    }
    let (tell, events) = channel();
    signals.listen(tell, |signal| signal)?;
    daemon::ready(&format!("serving {}", store.display()))?;
    loop {
        match events.recv() {
            Ok(Signal::SIGHUP) => log.reopen(),
            Ok(signal) => {
                tracing::info!("ending: {signal}");
                break;
            }
            Err(_) => return Err(Failure::new("no thread is left to hear signals")),
        }
    }
    daemon::notify_systemd("STOPPING=1");
    server.close().map_err(Failure::new)?;
    tracing::info!("{} is closed", store.display());
    Ok(Exit::Ok.into())
}

/// An address, with the path of a socket made independent of the current directory.
fn parse(word: &str) -> Result<Listen, Failure> {
    match word.parse::<Listen>().map_err(Failure::usage)? {
        Listen::Unix(path) => Ok(Listen::Unix(server_address::settled(&path)?)),
        tcp @ Listen::Tcp(_) => Ok(tcp),
    }
}
