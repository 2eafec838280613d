//! Asking a mount daemon. Every step has a time limit: a daemon that hangs costs the caller that long, no longer.

use super::protocol::{Ask, REPLY_BYTES_MAX, Reply};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlFault {
    /// Nobody listens there: the daemon is gone, or not ours to speak to.
    #[error("cannot reach the mount's daemon at {path}: {source}")]
    Unreachable {
        /// The socket.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Who listens is neither root nor the user who mounted.
    #[error("{path} belongs to a process of user {uid}, which is not the mount's daemon")]
    Impostor {
        /// The socket.
        path: String,
        /// Who listens.
        uid: u32,
    },
    /// No answer within the time.
    #[error("the mount's daemon did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The daemon answered with something else than a reply line.
    #[error("the mount's daemon gave no usable answer: {0}")]
    Garbled(String),
    /// The daemon answered that it could not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon that listens at `path`, which must run as `owner` or as root, and waits for its answer for
/// `patience` at most.
///
/// # Errors
/// See [`ControlFault`].
pub fn ask(path: &Path, owner: Uid, ask: Ask, patience: Duration) -> Result<Value, ControlFault> {
    // The system takes 0 for "wait for ever".
    let patience = patience.max(Duration::from_millis(1));
    let deadline = Instant::now() + patience;
    let unreachable = |source| ControlFault::Unreachable { path: path.display().to_string(), source };
    let (mut stream, _) = connect(path, owner)?;
    stream.set_write_timeout(Some(patience)).map_err(unreachable)?;
    let mut line = serde_json::to_vec(&ask).map_err(|error| ControlFault::Garbled(error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(unreachable)?;
    let answer = read_line(&mut stream, deadline, patience)?;
    match Reply::parse(&answer) {
        Ok(Reply::Ok(value)) => Ok(value),
        Ok(Reply::Error(reason)) => Err(ControlFault::Refused(reason)),
        Err(error) => Err(ControlFault::Garbled(error)),
    }
}

/// Number of the process that listens at `path`, as the kernel knows it: also of one that hangs.
///
/// # Errors
/// Nobody listens, or somebody else.
pub fn daemon(path: &Path, owner: Uid) -> Result<u32, ControlFault> {
    let (_, pid) = connect(path, owner)?;
    u32::try_from(pid).map_err(|_| ControlFault::Garbled(format!("it has the process number {pid}")))
}

fn connect(path: &Path, owner: Uid) -> Result<(UnixStream, i32), ControlFault> {
    let unreachable = |source| ControlFault::Unreachable { path: path.display().to_string(), source };
    let stream = UnixStream::connect(path).map_err(unreachable)?;
    let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| unreachable(errno.into()))?;
    if peer.uid() != 0 && peer.uid() != owner.as_raw() {
        return Err(ControlFault::Impostor { path: path.display().to_string(), uid: peer.uid() });
    }
    Ok((stream, peer.pid()))
}

fn read_line(
    stream: &mut UnixStream,
    deadline: Instant,
    patience: Duration,
) -> Result<Vec<u8>, ControlFault> {
    let mut line = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ControlFault::Timeout(patience));
        }
        let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut piece));
        match read {
            Ok(0) => return Err(ControlFault::Garbled("it closed the connection".into())),
            Ok(n) => line.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(ControlFault::Timeout(patience));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ControlFault::Garbled(error.to_string())),
        }
        if let Some(end) = line.iter().position(|&b| b == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > REPLY_BYTES_MAX {
            return Err(ControlFault::Garbled(format!("more than {REPLY_BYTES_MAX} bytes")));
        }
    }
}
