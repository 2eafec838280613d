//! Asking a mount that may hang, from a process of its own.
//!
//! A thread that waits for a hanging mount cannot be ended, not even by SIGKILL, and keeps its whole process from
//! ending; if that process is the mount's own daemon, for good. So whoever must not hang asks through a child
//! (`ringfs ask-mount …`, hidden from the help) and leaves it behind when it does not answer.

use super::args::{AskMountArgs, Question};
use super::fail::{Exit, Failure};
use super::{info, print};
use crate::base::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// The child's line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Ok(Value),
    Errno(i32),
}

/// What came of it.
pub(super) enum Answer {
    /// The mount answered.
    Ok(Value),
    /// The mount, or the kernel in its place, said no. `ENOTCONN`: nobody serves it any more.
    Errno(Errno),
    /// No answer within the time.
    Silent,
}

/// Asks about `path` and waits for `patience` at most.
///
/// # Errors
/// The system gives no process.
pub(super) fn ask(question: Question, path: &Path, patience: Duration) -> Result<Answer, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot start a process to ask the mount: {error}"));
    let word = match question {
        Question::Statfs => "statfs",
        Question::Describe => "describe",
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg("ask-mount").arg(word).arg("--").arg(path);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take();
    let (tell, told) = channel();
    let reader = std::thread::Builder::new().name("ask-mount".into()).spawn(move || {
        let mut text = Vec::new();
        let read = output.map(|mut output| output.read_to_end(&mut text));
        // Whoever asked may have given up.
        let _ = tell.send(read.and_then(Result::ok).map(|_| text));
    });
    reader.map_err(failed)?;
    let text = told.recv_timeout(patience);
    if text.is_err() {
        // Takes effect when the mount lets go of it; not waited for.
        if let Err(error) = child.kill() {
            tracing::debug!(%error, "a process that asks a hanging mount stays");
        }
        return Ok(Answer::Silent);
    }
    // It has closed its output, so it is ending.
    if let Err(error) = child.wait() {
        tracing::debug!(%error, "lost the process that asked the mount");
    }
    Ok(match serde_json::from_slice(&text.ok().flatten().unwrap_or_default()) {
        Ok(Line::Ok(value)) => Answer::Ok(value),
        Ok(Line::Errno(errno)) => Answer::Errno(Errno::from_raw(errno)),
        Err(_) => Answer::Errno(Errno::EIO),
    })
}

/// The child: asks, prints one line.
///
/// # Errors
/// Nobody reads the line.
pub(super) fn run(args: &AskMountArgs) -> Result<Exit, Failure> {
    let answer = match args.question {
        Question::Statfs => nix::sys::statvfs::statvfs(&args.path).map(|_| Value::Null).map_err(Errno::from),
        Question::Describe => info::describe(&args.path).map_err(Errno::from),
    };
    let line = match answer {
        Ok(value) => Line::Ok(value),
        Err(errno) => Line::Errno(errno.raw()),
    };
    let line = serde_json::to_string(&line).map_err(Failure::new)?;
    print::text(&format!("{line}\n"))?;
    Ok(Exit::Ok)
}
