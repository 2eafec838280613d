//! A server on a store in a folder of its own, and mounts of it.

#[path = "../crash/guard.rs"]
mod guard;

use guard::Guard;
use ringfs::base::Time;
use ringfs::client::late::LateOptions;
use ringfs::client::link::{LinkOptions, LocalNotices, Target};
use ringfs::client::mount::{Mount, Options as ClientOptions};
use ringfs::client::serve::Serve;
use ringfs::kernel::transport::{
    self, Choice, DEVICE, End, Kind, MountOptions, Options, Running, TransportFault, unmount,
};
use ringfs::server::apply::{Volume, VolumeOptions};
use ringfs::server::serve::{Listen, ServeOptions, Server};
use ringfs::server::store::{Store, StoreOptions};
use ringfs::wire::hello::Hello;
use ringfs::wire::version;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How a mount reaches the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// By calls: the server is in the mount's process.
    Inside,
    /// Over a unix socket.
    Socket,
}

/// A server and where it lives. Ends in order when dropped.
pub(crate) struct World {
    server: Option<Server>,
    socket: PathBuf,
    mounts: AtomicUsize,
    scratch: tempfile::TempDir,
    _guard: Guard,
}

/// How long a test may take before its mounts are cut, in seconds. Some race thousands of times, which takes minutes on a machine
/// with other work: this is for what hangs for good.
const PATIENCE: u64 = 1200;

/// Whether this host lets us mount; says so once if not.
pub(crate) fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new(DEVICE).exists();
    if !can {
        eprintln!("skipped: needs root and {DEVICE}");
    }
    can
}

impl World {
    pub(crate) fn new() -> Self {
        let scratch = tempfile::Builder::new().prefix("ringfs-mount-").tempdir().unwrap();
        let socket = scratch.path().join("socket");
        let guard = Guard::new(scratch.path(), PATIENCE);
        let mut world = Self { server: None, socket, mounts: AtomicUsize::new(0), scratch, _guard: guard };
        world.start();
        world
    }

    fn start(&mut self) {
        let folder = self.scratch.path().join("store");
        let store = Store::open(&folder, &StoreOptions::new(now(), (0, 0))).unwrap();
        let volume = Volume::open(store, VolumeOptions::new(Arc::new(now))).unwrap();
        let options = ServeOptions { grace: Duration::from_secs(3), ..ServeOptions::default() };
        let server = Server::open(volume, options).unwrap();
        server.listen(&Listen::Unix(self.socket.clone())).unwrap();
        self.server = Some(server);
    }

    /// Ends the server in order, does something without one, and starts the next one on the same store.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce()) {
        let server = self.server.take().unwrap();
        server.shutdown().unwrap();
        drop(server);
        meanwhile();
        self.start();
    }

    /// A client that is not mounted.
    pub(crate) fn client(&self, way: Way, own: ClientOptions) -> Arc<Mount> {
        let options = LinkOptions { leases: !own.sync, ..LinkOptions::new("/test").unwrap() };
        let target = match way {
            Way::Socket => Target::Unix(self.socket.clone()),
            Way::Inside => {
                let hello = Hello {
                    version_oldest: u32::from(version::OLDEST),
                    version_newest: u32::from(version::NEWEST),
                    session: options.session.0.to_le_bytes().to_vec(),
                    pid: std::process::id(),
                    leases: options.leases,
                    ..Hello::default()
                };
                let notices = Arc::<LocalNotices>::default();
                let (peer, welcome) = self.server.as_ref().unwrap().local(&hello, notices.sink()).unwrap();
                Target::Local { peer: Arc::new(peer), welcome, notices }
            }
        };
        Mount::open(target, options, own, LateOptions::default()).unwrap().0
    }

    /// Mounts. `None` where the transport cannot be had, which it says.
    pub(crate) fn mount(&self, way: Way, kind: Kind) -> Option<Mounted> {
        self.mount_with(way, kind, ClientOptions::default())
    }

    /// The same, with options.
    pub(crate) fn mount_with(&self, way: Way, kind: Kind, own: ClientOptions) -> Option<Mounted> {
        let nth = self.mounts.fetch_add(1, Ordering::Relaxed);
        let point = self.scratch.path().join(format!("mount-{nth}"));
        std::fs::create_dir(&point).unwrap();
        let client = self.client(way, own);
        let device = transport::mount(&point, &MountOptions::new("ringfs-test")).unwrap();
        let options = Options { choice: Choice::Only(kind), ..Options::default() };
        match transport::serve(device, Arc::new(Serve::new(Arc::clone(&client))), &options) {
            Ok(running) => Some(Mounted { point, client, running: Some(running) }),
            Err(TransportFault::Unavailable { why, .. }) => {
                unmount(&point, true).unwrap();
                eprintln!("skipped on {kind}: {why}");
                None
            }
            Err(fault) => {
                // Nobody else ends it.
                let ended = unmount(&point, true);
                panic!("{fault}; unmounted: {ended:?}");
            }
        }
    }

    /// A mount by the way that every host has.
    pub(crate) fn plain(&self, way: Way) -> Mounted {
        self.mount(way, Kind::Blocking).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        let ended = server.shutdown();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// A mount. Unmounted in order when dropped.
pub(crate) struct Mounted {
    pub(crate) point: PathBuf,
    pub(crate) client: Arc<Mount>,
    running: Option<Running>,
}

impl Mounted {
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        let unmounted = unmount(&self.point, panicking);
        let Some(running) = self.running.take() else { return };
        if panicking {
            // A request without an answer would keep us here.
            let _ = running.abort();
            return;
        }
        unmounted.unwrap();
        assert_eq!(running.wait(), End::Unmounted);
    }
}

fn now() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::from_nanos(u64::try_from(now.as_nanos()).unwrap())
}

/// Waits until `holds`; fails after half a minute.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
