//! Where a server is (`unix:PATH`, `tcp://HOST:PORT`), the secret it wants, and asking it something as an operator.

use super::fail::Failure;
use super::print;
use crate::base::Errno;
use crate::client::link::{Link, LinkOptions, Secret, Target};
use crate::wire::hello::Welcome;
use crate::wire::{Answer, Query};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longest secret: a line of hexadecimal digits or any other bytes. A larger file was named by mistake.
const SECRET_BYTES_MAX: u64 = 4096;

/// Shortest: below this a secret can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a word is a server's address rather than a path.
#[must_use]
pub(super) fn is_address(word: &str) -> bool {
    word.starts_with("unix:") || word.starts_with("tcp:")
}

/// Refuses a word that was meant as an address, rather than to make a directory of that name. `known` lists the forms
/// that are taken besides a directory.
///
/// # Errors
/// [`super::fail::Exit::Usage`].
pub(super) fn refuse_unknown_scheme(what: &str, word: &str, known: &str) -> Result<(), Failure> {
    let Some((scheme, rest)) = word.split_once(':') else { return Ok(()) };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    // `a:b/c` may be a directory; `a:b` is more likely a mistake, and `./a:b` says what is meant.
    if !is_scheme || rest.contains('/') && !rest.starts_with("//") {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{what} {word}: unknown scheme {scheme}:; use {known}, or a directory (./{word} if it is one)"
    )))
}

/// The address as the link takes it.
///
/// # Errors
/// It is not one of the two forms.
pub(super) fn parse(word: &str) -> Result<Target, Failure> {
    let wrong =
        |why: &str| Failure::usage(format!("server address {word}: {why}; use unix:PATH or tcp://HOST:PORT"));
    if let Some(path) = word.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(wrong("the path is missing"));
        }
        let path = super::mountinfo::absolute(Path::new(path))
            .map_err(|error| Failure::new(format!("{path}: {error}")))?;
        return Ok(Target::Unix(path));
    }
    let Some(rest) = word.strip_prefix("tcp://") else { return Err(wrong("unknown form")) };
    let Some((host, port)) = rest.rsplit_once(':') else { return Err(wrong("the port is missing")) };
    if host.is_empty() {
        return Err(wrong("the host is missing"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(Target::Tcp(rest.to_owned())),
        _ => Err(wrong("the port must be a number from 1 to 65535")),
    }
}

/// The secret in a file: all its bytes but a line break at the end.
///
/// # Errors
/// The file cannot be read, is too short or too long, or others may read it.
pub(super) fn read_secret(path: &Path) -> Result<Secret, Failure> {
    read_secret_bytes(path).map(|bytes| Secret::new(&bytes))
}

/// See [`read_secret`].
///
/// # Errors
/// See [`read_secret`].
pub(super) fn read_secret_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot read the secret file {shown}: {error}"));
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(format!(
            "others may read the secret file {shown} (mode {:04o}); run `chmod 600 {shown}`",
            mode & 0o7777
        )));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let secret = bytes.trim_ascii_end();
    if secret.len() < SECRET_BYTES_MIN || bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(Failure::new(format!(
            "the secret file {shown} must hold {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes; make one with \
             `(umask 077; head -c 32 /dev/urandom | base64 > {shown})`"
        )));
    }
    Ok(secret.to_vec())
}

/// The secret of an optional file.
///
/// # Errors
/// See [`read_secret`].
pub(super) fn optional_secret(path: Option<&Path>) -> Result<Option<Secret>, Failure> {
    path.map(read_secret).transpose()
}

/// What the server at `address` tells of itself.
///
/// # Errors
/// There is none, or it does not answer.
pub(super) fn status(address: &str, secret: Option<&Path>) -> Result<Value, Failure> {
    let (welcome, answer) = ask(address, secret, &Query::Status)?;
    let bytes =
        answer.map_err(|errno| Failure::new(format!("{address} did not tell its status: {errno}")))?;
    let server: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("{address} sent a status that is not JSON: {error}")))?;
    Ok(json!({
        "address": address,
        "program": welcome.program,
        "volume": print::uuid(&welcome.volume),
        "server": server,
    }))
}

/// Asks a server one thing, as an operator, without a session. The answer is its bytes.
///
/// # Errors
/// There is no server, or it does not answer.
pub(super) fn ask(
    address: &str,
    secret: Option<&Path>,
    query: &Query<'_>,
) -> Result<(Welcome, Result<Vec<u8>, Errno>), Failure> {
    let mut options = LinkOptions::new("").map_err(Failure::new)?;
    options.observer = true;
    options.secret = optional_secret(secret)?;
    let (link, welcome) = Link::open(parse(address)?, options).map_err(Failure::new)?;
    let (tell, told) = channel();
    link.call(query, move |answer| {
        let answer = match answer {
            Ok(Answer::Bytes(bytes)) => Ok(bytes.to_vec()),
            Ok(Answer::Empty) => Ok(Vec::new()),
            Ok(_) => Err(Errno::EPROTO),
            Err(errno) => Err(errno),
        };
        // The receiver may have given up waiting.
        drop(tell.send(answer));
    });
    let answer = told.recv_timeout(PATIENCE);
    link.close(Duration::ZERO);
    let answer = answer
        .map_err(|_| Failure::new(format!("{address} did not answer within {} s", PATIENCE.as_secs())))?;
    Ok((welcome, answer))
}

/// A path that stays right after the daemon has left the current directory.
///
/// # Errors
/// The current directory is gone.
pub(super) fn settled(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::{is_address, parse, read_secret, refuse_unknown_scheme};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn addresses_that_cannot_work_are_refused_with_the_forms_that_can() {
        for good in ["unix:/run/s", "tcp://localhost:7420", "tcp://[::1]:7420"] {
            assert!(is_address(good) && parse(good).is_ok(), "{good}");
        }
        for bad in ["unix:", "tcp://h", "tcp://:1", "tcp://h:0", "tcp://h:99999", "tcp:h:1", "http://h:1"] {
            assert!(parse(bad).unwrap_err().message.contains("tcp://HOST:PORT"), "{bad}");
        }
        assert!(!is_address("/srv/store"));
    }

    #[test]
    fn a_word_with_a_scheme_is_no_directory() {
        for bad in ["http://h/x", "s3://bucket", "tpc://h:1", "plain:x", "git+ssh://h/x", "nfs:"] {
            let refused = refuse_unknown_scheme("source", bad, "unix:PATH").unwrap_err().message;
            let scheme = bad.split(':').next().unwrap();
            assert!(
                refused.contains(&format!("scheme {scheme}:")) && refused.contains("unix:PATH"),
                "{refused}"
            );
        }
        for good in ["store", "/srv/a:b", "./http://h/x", "../s3:x", "a:b/c", "1:2", ":x"] {
            assert!(refuse_unknown_scheme("source", good, "").is_ok(), "{good}");
        }
    }

    #[test]
    fn a_secret_others_can_read_or_that_is_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |bytes: &[u8], mode| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(read_secret(&path).is_err());
        write(b"0123456789abcdef\n", 0o644);
        assert!(read_secret(&path).unwrap_err().message.contains("chmod 600"));
        write(b"short\n", 0o600);
        assert!(read_secret(&path).unwrap_err().message.contains("/dev/urandom"));
        write(&[b'x'; 5000], 0o600);
        assert!(read_secret(&path).is_err());
        write(b"0123456789abcdef\n", 0o600);
        let with_break = read_secret(&path).unwrap();
        write(b"0123456789abcdef", 0o600);
        assert!(with_break == read_secret(&path).unwrap());
    }
}
