//! No call may hang: when a round takes too long, what is known is printed, the mounts are cut, and the round fails.

use crate::fixture::ringfs;
use crate::stage::guard::abort_below;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// See the module.
pub(crate) struct Watch {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    expired: Arc<AtomicBool>,
}

impl Watch {
    /// Watches the mounts below `folder` for so long.
    pub(crate) fn new(folder: &Path, patience: Duration, what: &str) -> Self {
        let (done, ended) = channel();
        let expired = Arc::new(AtomicBool::new(false));
        let (folder, what, flag) = (folder.to_path_buf(), what.to_owned(), Arc::clone(&expired));
        let thread = std::thread::spawn(move || {
            if ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                eprintln!("{what}: not over within {patience:?}");
                tell(&folder);
                abort_below(&folder);
            }
        });
        Self { done: Some(done), thread: Some(thread), expired }
    }

    /// The round is over.
    ///
    /// # Errors
    /// It was cut.
    pub(crate) fn end(mut self) -> Result<(), String> {
        self.stop();
        if self.expired.load(Ordering::SeqCst) { Err("a mount hung; see above".into()) } else { Ok(()) }
    }

    fn stop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// State of the mounts below a folder, of their daemons' threads, and of this process's threads.
fn tell(folder: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    for point in points.filter(|point| point.starts_with(folder)) {
        let status = ringfs(&["status", "--json", point.to_str().unwrap()]);
        eprintln!("--- {}\n{}{}", point.display(), status.out, status.err);
        let pid = serde_json::from_str(&status.out)
            .ok()
            .and_then(|status: serde_json::Value| status["daemon"]["pid"].as_u64());
        if let Some(pid) = pid {
            threads(pid);
        }
    }
    threads(u64::from(std::process::id()));
}

fn threads(pid: u64) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stack: Vec<String> = read("stack").lines().take(6).map(str::to_owned).collect();
        eprintln!(
            "thread {} of {pid}: {} {}",
            task.file_name().display(),
            read("comm").trim(),
            stack.join(" ")
        );
    }
}
