//! Cuts the mounts of a test that hangs, so that what waits in the kernel gets an error and the test fails, tells why, and cleans up.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Ends all mounts below a folder when the test takes too long, so that what hangs gets an error and fails.
pub(crate) struct Guard {
    _done: Sender<()>,
}

impl Guard {
    pub(crate) fn new(folder: &Path, seconds: u64) -> Self {
        let (done, ended) = channel::<()>();
        let folder = folder.to_path_buf();
        std::thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(seconds))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                eprintln!("{} took longer than {seconds} s: its mounts are cut", folder.display());
                abort_below(&folder);
            }
        });
        Self { _done: done }
    }
}

/// Writes to the `abort` files of the mounts below a folder.
pub(crate) fn abort_below(folder: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if Path::new(words[4]).starts_with(folder) {
            let minor = words[2].split(':').nth(1).unwrap();
            let file = format!("/sys/fs/fuse/connections/{minor}/abort");
            eprintln!("abort {}: {:?}", words[4], std::fs::write(file, "1"));
        }
    }
}
