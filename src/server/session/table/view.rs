//! What an operator is told of sessions.

use super::super::state::Session;
use super::{Sessions, millis};
use std::sync::Arc;

/// The state of one session, for the operator.
#[derive(Debug, serde::Serialize)]
pub struct SessionView {
    /// Session.
    pub id: String,
    /// Host name.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// Mount point there.
    pub mount_point: String,
    /// In the server's own process.
    pub local: bool,
    /// awaited, live, lost or ended.
    pub phase: &'static str,
    /// Connections.
    pub connections: usize,
    /// Milliseconds since the last sign of life.
    pub silent_ms: u64,
    /// Frames taken.
    pub frames: u64,
    /// Locked pieces of files.
    pub locks: usize,
    /// Lock requests that wait.
    pub lock_waiters: usize,
    /// Inodes it holds open.
    pub holds: usize,
    /// Leases that let it answer.
    pub leases_shared: usize,
    /// Leases that also let it change.
    pub leases_exclusive: usize,
    /// Recalls sent to it.
    pub recalls: u64,
    /// Recalls it has not answered.
    pub recalls_outstanding: usize,
    /// Age of the oldest of those in milliseconds.
    pub recall_oldest_ms: u64,
    /// Its requests that wait for leases of others, or for the end of grace.
    pub parked: usize,
}

impl Sessions {
    /// The first `max` sessions by id.
    pub(crate) fn views(&self, max: usize) -> Vec<SessionView> {
        let mut all: Vec<Arc<Session>> = self.table().all.values().cloned().collect();
        all.sort_by_key(|session| session.id);
        let now = self.now();
        let view = |session: Arc<Session>| {
            let pulse = session.pulse(now);
            let (locks, lock_waiters) = self.desk.load(session.id);
            let (leases, parked) = self.leases.view(session.id, now);
            SessionView {
                id: session.id.to_string(),
                host: session.about.host.clone(),
                pid: session.about.pid,
                mount_point: session.about.mount_point.clone(),
                local: session.about.local,
                phase: pulse.phase.word(),
                connections: pulse.links,
                silent_ms: millis(pulse.silent),
                frames: pulse.frames,
                locks,
                lock_waiters,
                holds: self.volume.holds_of(session.id),
                leases_shared: leases.shared,
                leases_exclusive: leases.exclusive,
                recalls: leases.recalls,
                recalls_outstanding: leases.outstanding,
                recall_oldest_ms: millis(leases.oldest),
                parked,
            }
        };
        all.into_iter().take(max).map(view).collect()
    }
}
