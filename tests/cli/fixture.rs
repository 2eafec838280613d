//! Running the program with a deadline, and mounts that go away with the test.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command may take longer, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The program under test.
pub(crate) const RINGFS: &str = env!("CARGO_BIN_EXE_ringfs");

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// It must have worked.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It must have failed with this code, and one line that says `words`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        let last = self.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("ringfs: "), "{self:?}");
        for word in words {
            assert!(last.contains(word), "{word:?} is missing in {last:?}");
        }
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Whether a process runs; one that ended and was not yet fetched by its parent does not.
pub(crate) fn runs(pid: nix::unistd::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// Runs the program.
#[track_caller]
pub(crate) fn ringfs<S: AsRef<OsStr>>(args: &[S]) -> Ran {
    let mut command = Command::new(RINGFS);
    command.args(args);
    run(command)
}

/// Runs a command to its end, or to the deadline.
#[track_caller]
pub(crate) fn run(mut command: Command) -> Ran {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let code = wait(&mut child, DEADLINE).unwrap_or_else(|| panic!("{shown} did not end"));
    Ran { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// The exit code (128 + signal if it died of one), or nothing: then it is killed.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether this host lets the test mount; says so if not.
pub(crate) fn can_mount() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let device = Path::new("/dev/fuse").exists();
    if !root || !device {
        eprintln!("skipped: mounting needs root and /dev/fuse");
    }
    root && device
}

/// A folder with `store`, `mnt` and `log` in it; whatever is mounted on `mnt` goes away with it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ringfs-test-").tempdir_in("/tmp").unwrap();
        std::fs::create_dir(folder.path().join("mnt")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn mnt(&self) -> String {
        self.at("mnt")
    }

    /// Mounts the embedded store on `mnt`.
    #[track_caller]
    pub(crate) fn mount(&self, more: &[&str]) -> Ran {
        let (store, mnt, log) = (self.at("store"), self.mnt(), self.at("log"));
        let mut args = vec!["mount", &store, &mnt, "--log", &log];
        args.extend(more);
        let ran = ringfs(&args);
        if ran.code != 0 {
            eprintln!("log: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        ran
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        ringfs(&["status", "--json", &self.mnt()]).ok().json()
    }

    pub(crate) fn daemon(&self) -> nix::unistd::Pid {
        let pid = self.status()["daemon"]["pid"].as_i64().unwrap();
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap())
    }

    /// Kills a daemon and waits until its mount is dead.
    pub(crate) fn kill_daemon(&self) {
        let pid = self.daemon();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually("the mount of a killed daemon is dead", || {
            std::fs::metadata(self.mnt()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
        });
    }

    /// Asks the mount table, not the mount.
    pub(crate) fn is_mounted(&self) -> bool {
        is_mounted(Path::new(&self.mnt()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let path: PathBuf = name.path();
            if is_mounted(&path) {
                let ended = ringfs(&["umount", "--force", path.to_str().unwrap()]);
                eprintln!("cleaned up {}: {ended:?}", path.display());
            }
        }
    }
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// A process of the program that stays; killed with the test.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    #[track_caller]
    pub(crate) fn new(args: &[&str]) -> Self {
        let mut command = Command::new(RINGFS);
        // A group of its own: a terminal's ^C does not reach it.
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> i32 {
        wait(&mut self.0, DEADLINE).expect("it did not end")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}
