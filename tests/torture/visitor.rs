//! A visitor looks from one mount at what a worker on another does: it must see all that has returned, and nothing by half.

use crate::numbered::{REPLACED, Shown, version};
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// See the module.
pub(crate) struct Visitor(JoinHandle<Result<u64, Error>>);

impl Visitor {
    /// Visits the folder of a worker until `stop` is set or an error comes, and rests `rest` between two visits.
    pub(crate) fn start(
        folder: &Path,
        worker: &str,
        shown: &Arc<Shown>,
        rest: Duration,
        stop: &Arc<AtomicBool>,
    ) -> Self {
        let (folder, shown, stop) = (folder.join(worker), Arc::clone(shown), Arc::clone(stop));
        Self(std::thread::spawn(move || {
            let mut visits = 0;
            while !stop.load(Ordering::Relaxed) {
                visit(&folder, &shown)?;
                visits += 1;
                std::thread::sleep(rest);
            }
            Ok(visits)
        }))
    }

    /// Waits until it ends; gives the number of visits.
    pub(crate) fn end(self) -> Result<u64, Error> {
        self.0.join().unwrap()
    }
}

fn visit(folder: &Path, shown: &Shown) -> Result<(), Error> {
    let (at_least, bytes) = seen(&shown.lines_returned, &folder.join("log"))?;
    let text = String::from_utf8(bytes).map_err(Error::other)?;
    let lines = text.lines().count() as u64;
    let begun = shown.lines_begun.load(Ordering::SeqCst);
    let in_order = text.lines().enumerate().all(|(at, line)| line == at.to_string());
    if lines < at_least || lines > begun || !in_order {
        return Err(Error::other(format!(
            "{}: {lines} lines, of which {at_least} had returned and {begun} were begun; in order: {in_order}",
            folder.join("log").display()
        )));
    }
    for which in 0..REPLACED {
        let path = folder.join(format!("t{which}"));
        let (at_least, bytes) = seen(&shown.versions_returned[which], &path)?;
        if at_least == 0 && bytes.is_empty() {
            continue;
        }
        let number: u64 = std::str::from_utf8(bytes.get(..10).unwrap_or_default())
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::other(format!("{} has {} bytes", path.display(), bytes.len())))?;
        let begun = shown.versions_begun[which].load(Ordering::SeqCst);
        if number < at_least || number > begun || bytes != version(number) {
            return Err(Error::other(format!(
                "{}: version {number}, {} bytes; {at_least} was there and {begun} begun",
                path.display(),
                bytes.len()
            )));
        }
    }
    Ok(())
}

/// What had returned before, and then the content: nothing where nothing had returned.
fn seen(returned: &AtomicU64, path: &Path) -> Result<(u64, Vec<u8>), Error> {
    let at_least = returned.load(Ordering::SeqCst);
    let mut read = std::fs::read(path);
    // A name that is replaced between its lookup and the open is looked up once more by the kernel; who comes between that too
    // leaves a stale one.
    for _ in 0..3 {
        match read {
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => read = std::fs::read(path),
            _ => break,
        }
    }
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound && at_least == 0 => Ok((0, Vec::new())),
        Err(error) => Err(Error::new(error.kind(), format!("{}: {error}", path.display()))),
        Ok(bytes) => Ok((at_least, bytes)),
    }
}
