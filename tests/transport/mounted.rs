//! Mounts for tests: a folder, a device, a handler, and a watchdog that cuts the connection of a mount that hangs.

use nix::mount::{MntFlags, MsFlags};
use ringfs::kernel::transport::{Choice, End, Handler, Kind, Options, Running, serve};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Nothing here takes a second on an idle machine; a loaded one gets a minute before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// All transports, or none with a printed reason.
pub(crate) fn kinds() -> Vec<Kind> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting needs root");
        return Vec::new();
    }
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: there is no /dev/fuse");
        return Vec::new();
    }
    let mut kinds = vec![Kind::Blocking, Kind::Ring];
    match std::fs::read_to_string("/sys/module/fuse/parameters/enable_uring") {
        Ok(text) if text.trim() == "Y" => kinds.push(Kind::Uring),
        _ => println!("skipped for uring: fuse.enable_uring is not Y"),
    }
    kinds
}

/// Polls `condition` until it holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Mounts a new device on `dir`.
pub(crate) fn mount_device(dir: &Path) -> OwnedFd {
    let device: OwnedFd =
        std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap().into();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("ringfs-test"), dir, Some("fuse.ringfs-test"), flags, Some(data.as_str()))
        .unwrap();
    device
}

/// Number of the connection mounted on `dir`, without asking the mount itself.
pub(crate) fn connection(dir: &Path) -> u32 {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = dir.to_str().unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(dir)).unwrap();
    line.split(' ').nth(2).unwrap().split_once(':').unwrap().1.parse().unwrap()
}

/// A served mount that goes away with this value.
pub(crate) struct Mounted {
    pub dir: PathBuf,
    pub running: Option<Running>,
    over: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new(kind: Kind, handler: Arc<dyn Handler>) -> Self {
        Self::with(handler, &Options { choice: Choice::Only(kind), ..Options::default() })
    }

    pub(crate) fn with(handler: Arc<dyn Handler>, options: &Options) -> Self {
        let folder = tempfile::Builder::new().prefix("ringfs-transport-").tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        let device = mount_device(&dir);
        let number = connection(&dir);
        let options = Options { connection: Some(number), mount_point: Some(dir.clone()), ..options.clone() };
        let running = serve(device, handler, &options);
        if running.is_err() {
            let _ = nix::mount::umount2(&dir, MntFlags::MNT_DETACH);
        }
        let over = Arc::new(AtomicBool::new(false));
        watch(number, dir.clone(), over.clone());
        Self { dir, running: Some(running.unwrap()), over, _folder: folder }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Unmounts and waits for the end.
    pub(crate) fn unmount(mut self) -> End {
        eventually("unmount", || nix::mount::umount(&self.dir).is_ok());
        self.running.take().unwrap().wait()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // Also when a test has failed and left calls behind.
            let _ = running.abort();
            let _ = nix::mount::umount2(&self.dir, MntFlags::MNT_DETACH);
            running.wait();
        } else {
            // An aborted mount has ended, but stands in the table until it is taken out.
            let _ = nix::mount::umount2(&self.dir, MntFlags::MNT_DETACH);
        }
        self.over.store(true, Ordering::Release);
    }
}

/// Cuts the connection if the test takes too long: whatever hangs on it then fails instead.
fn watch(connection: u32, dir: PathBuf, over: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        while !over.load(Ordering::Acquire) {
            if Instant::now() > deadline {
                eprintln!("the mount hangs: its connection {connection} is cut");
                let _ = std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
                let _ = nix::mount::umount2(&dir, MntFlags::MNT_FORCE);
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}
