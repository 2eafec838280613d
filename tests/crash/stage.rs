//! A server of its own and its mounts, for tests that kill both.

#[path = "guard.rs"]
pub(crate) mod guard;

use crate::fixture::{Place, RINGFS, Started, eventually, ringfs};
pub(crate) use guard::Guard;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

impl Place {
    /// Ends the embedded mount and checks its store.
    #[track_caller]
    pub(crate) fn end_and_check(&self) {
        ringfs(&["umount", &self.mnt()]).ok();
        check(&self.at("store"));
    }
}

/// The store is whole, down to the last byte.
#[track_caller]
pub(crate) fn check(store: &str) {
    let ran = ringfs(&["fsck", "--data", store]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// What mounts are called.
const MOUNTS: [&str; 4] = ["a", "b", "c", "d"];

/// See the module.
pub(crate) struct Stage {
    pub(crate) place: Place,
    server: RefCell<Option<Started>>,
    /// Words of the command line before the program's name.
    before: Vec<String>,
    /// Where it listens, if not at a socket in the place.
    listen: Option<String>,
    more: Vec<String>,
    _guard: Guard,
}

/// How long a test may take before its mounts are cut, in seconds.
const PATIENCE: u64 = 400;

impl Stage {
    /// Starts a server; `more` are its options.
    pub(crate) fn new(more: &[&str]) -> Self {
        Self::lasting(PATIENCE, more)
    }

    /// The same for tests that take so many seconds.
    pub(crate) fn lasting(seconds: u64, more: &[&str]) -> Self {
        let stage = Self::unborn(seconds, more);
        stage.start();
        stage
    }

    /// The same in a network namespace, where it listens at an address that is not this host's.
    pub(crate) fn within(namespace: &str, listen: &str, seconds: u64, more: &[&str]) -> Self {
        let mut stage = Self::unborn(seconds, more);
        let secret = stage.place.at("secret");
        std::fs::write(&secret, "shared by this test's server and its mounts").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        stage.more.extend(["--secret-file".to_owned(), secret]);
        stage.before = ["ip", "netns", "exec", namespace].map(str::to_owned).to_vec();
        stage.listen = Some(listen.to_owned());
        stage.start();
        stage
    }

    fn unborn(seconds: u64, more: &[&str]) -> Self {
        let place = Place::new();
        let guard = Guard::new(place.path(), seconds);
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        Self { place, server: RefCell::new(None), before: Vec::new(), listen: None, more, _guard: guard }
    }

    pub(crate) fn address(&self) -> String {
        self.listen.clone().unwrap_or_else(|| format!("unix:{}", self.place.at("sock")))
    }

    /// Starts the server and waits until it listens.
    #[track_caller]
    pub(crate) fn start(&self) {
        let mut words = self.before.clone();
        words.push(RINGFS.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let log = self.place.at("server.log");
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.args(["serve", &self.place.at("store"), "--foreground", "--listen", &self.address()]);
        command.args(&self.more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().unwrap();
        let mut byte = [0; 1];
        let mut line = Vec::new();
        let out = child.stdout.as_mut().unwrap();
        while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).unwrap();
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(line.starts_with("listening at"), "{line:?}: {}", log());
        *self.server.borrow_mut() = Some(Started(child));
    }

    /// Process of the server.
    pub(crate) fn server_process(&self) -> Pid {
        let id = self.server.borrow().as_ref().expect("a server").0.id();
        Pid::from_raw(i32::try_from(id).unwrap())
    }

    /// kill -9 of the server.
    pub(crate) fn kill_server(&self) {
        drop(self.server.borrow_mut().take().expect("a server"));
    }

    /// Ends the server with SIGTERM.
    #[track_caller]
    pub(crate) fn stop_server(&self) {
        let mut server = self.server.borrow_mut().take().expect("a server");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.ended(), 0, "{}", self.log("server"));
    }

    /// Mounts the server at `name` in the place.
    #[track_caller]
    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        self.mount_with(name, &[])
    }

    #[track_caller]
    pub(crate) fn mount_with(&self, name: &str, more: &[&str]) -> PathBuf {
        self.mount_at(name, &self.address(), more)
    }

    /// The same by another address of the server.
    #[track_caller]
    pub(crate) fn mount_at(&self, name: &str, address: &str, more: &[&str]) -> PathBuf {
        let point = self.place.path().join(name);
        std::fs::create_dir_all(&point).unwrap();
        let (log, secret) = (self.place.at(&format!("{name}.log")), self.place.at("secret"));
        let mut args = vec!["mount", address, point.to_str().unwrap(), "--log", &log];
        if self.listen.is_some() {
            args.extend(["--secret-file", &secret]);
        }
        args.extend(more);
        ringfs(&args).ok();
        point
    }

    #[track_caller]
    pub(crate) fn umount(&self, name: &str) {
        ringfs(&["umount", "--timeout", "60", &self.place.at(name)]).ok();
    }

    /// Process of the daemon behind a mount.
    #[track_caller]
    pub(crate) fn daemon(&self, name: &str) -> Pid {
        let status = ringfs(&["status", "--json", &self.place.at(name)]).ok().json();
        Pid::from_raw(i32::try_from(status["daemon"]["pid"].as_i64().unwrap()).unwrap())
    }

    /// kill -9 of the daemon behind a mount; waits until the mount is dead.
    #[track_caller]
    pub(crate) fn kill_daemon(&self, name: &str) {
        self.kill_process(name, self.daemon(name));
    }

    /// The same with the process that [`Stage::daemon`] told.
    #[track_caller]
    pub(crate) fn kill_process(&self, name: &str, daemon: Pid) {
        kill(daemon, Signal::SIGKILL).unwrap();
        let point = self.place.path().join(name);
        eventually("the mount of a killed daemon is dead", || {
            std::fs::metadata(&point).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
        });
    }

    /// What the server says of itself.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        ringfs(&["status", "--json", &self.address()]).ok().json()["server"].take()
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.at(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Ends mounts and server, and checks the store.
    #[track_caller]
    pub(crate) fn end_and_check(&self) {
        for name in MOUNTS {
            if crate::fixture::is_mounted(&self.place.path().join(name)) {
                self.umount(name);
            }
        }
        self.stop_server();
        check(&self.place.at("store"));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in std::iter::once("server").chain(MOUNTS) {
                eprintln!("--- {name}.log\n{}", self.log(name));
            }
        }
    }
}
