//! The lines of the control socket, and their bounds.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line a client may send. Requests are a word each; anything longer is not from our own program.
pub const ASK_BYTES_MAX: usize = 4096;

/// Longest answer. A status is some kilobytes; the bound is for the client, which must not trust the daemon.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// What a client asks of a mount daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Everything `ringfs status` prints. Answered from memory: also when the server is away.
    Status,
    /// Who answers: process id and program version. Answered at once, whatever the mount does.
    Ping,
    /// Make everything durable that was written before; answered when it is.
    Flush,
    /// The mount is about to be taken away: flush, and say in the log that the end was asked for.
    PrepareUnmount,
    /// What was answered as done and then refused; answered from memory.
    Errors {
        /// Empty the list afterwards, and complete changes locally again if too many errors had ended that.
        clear: bool,
    },
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done; `Status`, `Ping` and `Errors` bring their data, the others `null`.
    Ok(Value),
    /// It was not; one line for the user.
    Error(String),
}

impl Ask {
    /// Reads a line.
    ///
    /// # Errors
    /// One line for the user: it is not a request, or one of a later version.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}

impl Reply {
    /// Reads a line.
    ///
    /// # Errors
    /// One line for the user: it is not an answer.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}
