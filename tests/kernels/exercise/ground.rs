//! What the checks are written with.

use std::ffi::CString;
use std::fmt::Debug;
use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// What a check says: nothing, or why it failed.
pub(super) type Outcome = Result<(), String>;

/// An error with the step that met it.
pub(super) fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{step}: {error:?}"))
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, have: T, want: T) -> Outcome {
    if have == want { Ok(()) } else { Err(format!("{what}: {have:?}, expected {want:?}")) }
}

pub(super) fn holds(what: &str, truth: bool) -> Outcome {
    if truth { Ok(()) } else { Err(what.to_owned()) }
}

/// The step must fail, with this errno.
pub(super) fn fails<T: Debug, E: Into<std::io::Error>>(
    what: &str,
    result: Result<T, E>,
    want: Errno,
) -> Outcome {
    match result {
        Ok(value) => Err(format!("{what}: succeeded with {value:?}, expected {want}")),
        Err(error) => {
            let error: std::io::Error = error.into();
            same(what, error.raw_os_error().map(Errno::from_raw), Some(want))
        }
    }
}

pub(super) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

pub(super) fn new_file(path: &Path) -> Result<File, String> {
    at("create", OpenOptions::new().read(true).write(true).create_new(true).open(path))
}

/// Bytes that differ at every place, so that a shifted or repeated block shows.
pub(super) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// How many files a check with many of them makes: fewer under emulation, where `EXERCISE_DIVISOR` says so.
pub(super) fn many(count: usize) -> usize {
    let divisor = std::env::var("EXERCISE_DIVISOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    count / std::cmp::max(divisor, 1_usize)
}
