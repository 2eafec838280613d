//! `ringfs evict`: ends a session at a server, for a client that hangs on to what others wait for.

use super::args::EvictArgs;
use super::fail::Failure;
use super::server_address;
use crate::base::{Errno, SessionId};
use crate::wire::Query;

/// Digits of a session that are shown, 4 bits each, at the top of its number.
const DIGITS: usize = 8;

/// Runs the command.
///
/// # Errors
/// There is no such session, or no such server.
pub(super) fn run(args: &EvictArgs) -> Result<(), Failure> {
    let EvictArgs { server, session, secret_file } = args;
    let id = parse(session)?;
    let (_, answer) = server_address::ask(server, secret_file.as_deref(), &Query::Evict { session: id })?;
    match answer {
        Ok(_) => Ok(()),
        Err(Errno::ENOENT) => Err(Failure::new(format!(
            "{server} has no session {session}; `ringfs status {server}` lists them"
        ))),
        Err(Errno::EEXIST) => {
            Err(Failure::new(format!("{server} has several sessions {session}: end one at its client")))
        }
        Err(errno) => Err(Failure::new(format!("{server} did not end session {session}: {errno}"))),
    }
}

fn parse(session: &str) -> Result<SessionId, Failure> {
    let wrong =
        || Failure::usage(format!("session {session}: use the {DIGITS} hexadecimal digits of the status"));
    if session.len() != DIGITS || !session.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let shown = u128::from_str_radix(session, 16).map_err(|_| wrong())?;
    Ok(SessionId(shown << (128 - 4 * DIGITS)))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::base::SessionId;

    #[test]
    fn a_session_is_named_by_what_the_status_shows_of_it() {
        let id = SessionId(0x0123_abcd << 96 | 77);
        let parsed = parse(&id.to_string()).unwrap();
        assert_eq!((parsed.to_string(), parsed.0 << 32), (id.to_string(), 0));
        for wrong in ["", "123", "+1234567", "0123abcd9", "0123abcg"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
