//! What the server tells its operator, as JSON.

use super::Core;
use crate::base::limits::FRAME_BODY_BYTES_MAX;
use crate::server::session::TEXT_BYTES_MAX;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sessions told one by one; more are counted. Keeps the answer below the largest frame.
const SESSIONS_TOLD: usize = 1000;

/// What a session's numbers and the names of its fields take at most.
const VIEW_BYTES: usize = 512;

const _: () = {
    // Host and mount point are the client's words; JSON writes a quote or backslash as two bytes.
    let session = VIEW_BYTES + 2 * 2 * TEXT_BYTES_MAX;
    assert!((SESSIONS_TOLD + 1) * session <= FRAME_BODY_BYTES_MAX);
};

/// What happened since the start.
#[derive(Default)]
pub(super) struct Counters {
    /// Frames taken, answers given, by socket and in the process.
    pub(super) frames: AtomicU64,
    pub(super) answers: AtomicU64,
    /// Bytes of bodies and payloads of those frames and answers.
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Connections accepted, refused by the handshake, closed for a fault of the peer.
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) faults: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl Core {
    /// The state of the server. Keys are added, never renamed.
    pub(super) fn status(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (locks, lock_waiters) = self.sessions.desk.total();
        let grace = self.sessions.grace();
        let (leased, parked, contested) = self.sessions.leases.totals();
        let usage = self.volume.usage().ok();
        json!({
            "program": env!("CARGO_PKG_VERSION"),
            "volume": self.volume.store().superblock().uuid_text(),
            "epoch": self.epoch,
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "lease_ms": self.lease_ms(),
            "listening": self.connections.addresses(),
            "secret": self.options.secret.is_some(),
            "grace": grace.map(|(left_ms, missing)| json!({ "left_ms": left_ms, "missing": missing })),
            "sessions": self.sessions.views(SESSIONS_TOLD),
            "session_count": self.sessions.count(),
            "connections": self.connections.count(),
            "locks": locks,
            "lock_waiters": lock_waiters,
            "leased_inodes": leased,
            "contested_inodes": contested,
            "parked": parked,
            "usage": usage.map(|usage| json!({ "inodes": usage.inodes, "bytes": usage.bytes })),
            "fault": self.volume.latched(),
            "frames": get(&counters.frames),
            "answers": get(&counters.answers),
            "bytes_in": get(&counters.bytes_in),
            "bytes_out": get(&counters.bytes_out),
            "accepted": get(&counters.accepted),
            "refused": get(&counters.refused),
            "faults": get(&counters.faults),
        })
        .to_string()
    }

    /// The lease as a welcome tells it.
    pub(super) fn lease_ms(&self) -> u32 {
        u32::try_from(self.options.lease.as_millis()).unwrap_or(u32::MAX)
    }
}
