//! How a command ends: its exit code, and one line on the standard error that names the remedy.

use std::fmt;
use std::process::ExitCode;

/// Exit codes, the same for every command. They are documented in `ringfs --help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Exit {
    /// Done.
    Ok = 0,
    /// It failed; the line on the standard error says why.
    Failed = 1,
    /// The command line is wrong (clap uses this number too).
    Usage = 2,
    /// Something is in use: a mount with open files, a store with a server.
    Busy = 3,
    /// The check itself worked and found something wrong (`fsck`, `doctor`).
    Found = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// One line, without the program's name in front.
    pub(super) message: String,
    /// What the shell gets.
    pub(super) exit: Exit,
}

impl Failure {
    /// Ends with [`Exit::Failed`].
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Failed }
    }

    /// Ends with [`Exit::Usage`].
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Usage }
    }

    /// Ends with [`Exit::Busy`].
    pub(super) fn busy(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Busy }
    }
}

impl fmt::Display for Failure {
    /// Line breaks of a cause become spaces: it stays one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message.replace('\n', " "))
    }
}

impl std::error::Error for Failure {}

/// A warning for the person at the terminal.
pub(super) fn warn(message: impl fmt::Display) {
    eprintln!("ringfs: warning: {message}");
}
