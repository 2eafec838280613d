//! Two mounts of one server that can be made to stand still.

use crate::stage::Stage;
use nix::sys::signal::{Signal, kill};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a slow server stands still.
const STILL: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct Pair {
    pub(crate) stage: Stage,
    pub(crate) a: PathBuf,
    pub(crate) b: PathBuf,
}

impl Pair {
    /// Nothing where this host cannot mount.
    pub(crate) fn new() -> Option<Self> {
        if !crate::fixture::can_mount() {
            return None;
        }
        let stage = Stage::new(&[]);
        let (a, b) = (stage.mount("a"), stage.mount("b"));
        // The first touch.
        assert!(listing(&a).is_empty());
        Some(Self { stage, a, b })
    }

    /// The server stands still while `work` begins, and goes on after a moment, done or not.
    pub(crate) fn slow<T>(&self, work: impl FnOnce() -> T) -> T {
        let server = self.stage.server_process();
        kill(server, Signal::SIGSTOP).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(STILL);
                kill(server, Signal::SIGCONT).unwrap();
            });
            work()
        })
    }

    /// Ends both mounts and the server in order, and checks the store.
    #[track_caller]
    pub(crate) fn end(self) {
        self.stage.end_and_check();
    }
}

/// Names in a folder.
#[track_caller]
pub(crate) fn listing(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.insert(name.clone()), "{name} is listed twice");
    }
    names
}

/// A set of names.
pub(crate) fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}
