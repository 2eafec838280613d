//! What a link is told when it opens, and what it asks its owner later.

use super::{LinkFault, LocalNotices, LogOutcomes};
use crate::base::{Ino, SessionId};
use crate::wire::hello::Welcome;
use crate::wire::{LockRequest, Peer, Recall, Ticket};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Where the server is.
#[derive(Clone)]
pub enum Target {
    /// A unix socket.
    Unix(PathBuf),
    /// HOST:PORT, looked up anew for each connection.
    Tcp(String),
    /// The server runs in this process; `peer` is a session already made under [`LinkOptions::session`], and `welcome` what
    /// it said. It is never disconnected and not pinged: its session lives as long as the process.
    Local {
        /// The session.
        peer: Arc<dyn Peer>,
        /// Volume, epoch, whether it is read-only.
        welcome: Welcome,
        /// What the server was given for its notices.
        notices: Arc<LocalNotices>,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Local { .. } => f.write_str("the server in this process"),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A shared secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The secret is these bytes, all of them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a link behaves. [`LinkOptions::new`] gives the values a mount uses.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Name of the first session. When a server forgets it the link goes on under a fresh one.
    pub session: SessionId,
    /// Only looks: the server makes no session of it and answers nothing but its status.
    pub observer: bool,
    /// Asks for leases, and takes notices.
    pub leases: bool,
    /// Host name, for the server's operator.
    pub host: String,
    /// Mount point, for the server's operator.
    pub mount_point: String,
    /// Proves either side to the other. With one, a server that cannot prove it is refused.
    pub secret: Option<Secret>,
    /// For a connection to come about.
    pub connect_timeout: Duration,
    /// For the whole handshake of a connection, and for each piece of the re-assertion.
    pub handshake_timeout: Duration,
    /// Wait before the second attempt to reconnect (the first is at once); doubles with each, with jitter.
    pub backoff_min: Duration,
    /// Bound of the above.
    pub backoff_max: Duration,
    /// Requests in flight, over both connections; one more is answered with ENOMEM.
    pub in_flight_max: usize,
    /// Bytes of requests in flight.
    pub in_flight_bytes_max: usize,
    /// Every ticket below this is settled; the mutation log keeps it up to date, each frame tells it.
    pub settled: Arc<AtomicU64>,
}

impl LinkOptions {
    /// The values a mount uses, with a random session.
    ///
    /// # Errors
    /// [`LinkFault::System`] when the system has no random numbers.
    pub fn new(mount_point: &str) -> Result<Self, LinkFault> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
        Ok(Self {
            session: random_session()?,
            observer: false,
            leases: false,
            host: host.unwrap_or_default().trim().to_owned(),
            mount_point: mount_point.to_owned(),
            secret: None,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            // Above all that the mutation log and the kernel's queues let through.
            in_flight_max: 1 << 17,
            in_flight_bytes_max: 256 << 20,
            settled: Arc::new(AtomicU64::new(1)),
        })
    }
}

/// A new name for a session.
///
/// # Errors
/// [`LinkFault::System`] when the system has no random numbers.
pub fn random_session() -> Result<SessionId, LinkFault> {
    Ok(SessionId(u128::from_le_bytes(random_bytes()?)))
}

/// Random bytes of the system.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], LinkFault> {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| LinkFault::System { what: "random numbers", cause: std::io::Error::last_os_error() })?;
    Ok(bytes)
}

/// What the link needs to know of the mount when a session is taken up again. Called on the link's thread; must not
/// wait for an answer of the server.
pub trait Owner: Send + Sync {
    /// What this session holds open and has locked, without what is only asked for and not answered yet: that is
    /// sent again by itself.
    fn held(&self) -> Held;

    /// The server does not know the session any more: open files without a name and locks are gone. All that was in
    /// flight fails with EIO right after this; new requests go to a fresh session. `restarted`: it is another server than
    /// before, which has only what was durable.
    fn lost(&self, restarted: bool);

    /// The server wants leases back. Called on the thread that receives, behind the closures of the answers that came
    /// before; it must only take note.
    fn recalled(&self, _recalls: &[Recall]) {}

    /// All that is in the server's commits up to this one is durable. Called on the thread that receives, behind the
    /// outcomes and before the closure of the answer whose frame brought it.
    fn durable(&self, _commit: u64) {}

    /// What became of a batch of [`super::Link::send`]; called for each once, unless its connection was lost before.
    fn answered(&self, _first: Ticket, _outcomes: &LogOutcomes<'_>) {}

    /// Batches of the log that a new connection has to send again, in the order of their tickets. `restarted`: the server
    /// is another one than before, and has only what was durable; its commits count anew.
    fn replay(&self, _restarted: bool) -> Vec<Logged> {
        Vec::new()
    }
}

/// Mutations of the owner's log that go out as one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Lowest ticket.
    pub first: Ticket,
    /// Highest ticket.
    pub last: Ticket,
    /// Number of mutations.
    pub count: u32,
    /// They were completed locally: their frame keeps its place among all such frames.
    pub local: bool,
    /// No server has answered them before. A waited mutation of which that is so is new to a server that restarted, and waits
    /// there for all that others had completed under their leases.
    pub unanswered: bool,
    /// The commit of a server before this one in which they were done; 0: none is known.
    pub before: u64,
    /// Their records.
    pub body: Bytes,
    /// Their data.
    pub payload: Bytes,
}

/// See [`Owner::held`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Held {
    /// Inodes held open.
    pub holds: Vec<Ino>,
    /// Locks granted.
    pub locks: Vec<(Ino, LockRequest)>,
}
