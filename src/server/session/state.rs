//! One session: its phase, its connections, and the frames in hand.

use super::lease_desk::Numbers;
use super::phase::{Event, Phase};
use super::record::About;
use crate::base::{Errno, SessionId};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Closes one connection; must not block and may be called more than once.
pub(crate) type Closer = Box<dyn Fn() + Send + Sync>;

/// Number of a connection, never reused by a server.
pub(crate) type LinkId = u64;

/// A session. Its gate is locked for moments only, never while something else is waited for.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) about: About,
    /// Ranges of inode numbers it was given, newest last.
    numbers: Mutex<Vec<Numbers>>,
    gate: Mutex<Gate>,
    /// Frames in hand went down to 0.
    idle: Condvar,
}

struct Gate {
    phase: Phase,
    links: Vec<(LinkId, Closer)>,
    /// Frames being worked on. Whoever takes this to 0 after the end sweeps, so that nothing of a session is applied
    /// after what it held was given up.
    in_hand: u32,
    swept: bool,
    /// Time of the last sign of life.
    heard: Duration,
    frames: u64,
}

/// Whether the caller has to sweep the session now.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sweep {
    /// Yes, and nobody else will.
    Now,
    /// No: it goes on, or a frame in hand will, or somebody did.
    No,
}

/// What an operator is told.
pub(super) struct Pulse {
    pub(super) phase: Phase,
    pub(super) links: usize,
    pub(super) silent: Duration,
    pub(super) frames: u64,
}

impl Session {
    pub(super) fn new(id: SessionId, about: About, phase: Phase, now: Duration) -> Self {
        let gate = Gate { phase, links: Vec::new(), in_hand: 0, swept: false, heard: now, frames: 0 };
        let numbers = super::table::numbers::ranges(&about);
        Self { id, about, numbers: Mutex::new(numbers), gate: Mutex::new(gate), idle: Condvar::new() }
    }

    /// Adds a connection; with `alone` the others are closed, and their frames are not taken any more. `false`: the
    /// session has ended.
    pub(super) fn attach(&self, link: LinkId, closer: Closer, alone: bool, now: Duration) -> bool {
        let mut gate = self.gate();
        let Some(phase) = gate.phase.on(Event::Attached) else { return false };
        gate.phase = phase;
        gate.heard = now;
        let old = if alone { std::mem::take(&mut gate.links) } else { Vec::new() };
        gate.links.push((link, closer));
        drop(gate);
        old.iter().for_each(|(_, close)| close());
        true
    }

    /// Removes a connection. The clock of the lease starts anew.
    pub(super) fn detach(&self, link: LinkId, now: Duration) {
        let mut gate = self.gate();
        let before = gate.links.len();
        gate.links.retain(|(id, _)| *id != link);
        if gate.links.len() < before {
            gate.heard = gate.heard.max(now);
        }
        if gate.links.is_empty()
            && let Some(phase) = gate.phase.on(Event::Detached)
        {
            gate.phase = phase;
        }
    }

    /// A frame came on `link` and will be worked on.
    ///
    /// # Errors
    /// ESTALE: the session is over, or came back on another connection.
    pub(super) fn enter(&self, link: LinkId, now: Duration) -> Result<(), Errno> {
        let mut gate = self.gate();
        if gate.phase != Phase::Live || !gate.links.iter().any(|(id, _)| *id == link) {
            return Err(Errno::ESTALE);
        }
        gate.heard = gate.heard.max(now);
        gate.in_hand += 1;
        gate.frames += 1;
        Ok(())
    }

    /// A frame will be worked on that came on a connection which may be gone.
    ///
    /// # Errors
    /// ESTALE: the session is over.
    pub(super) fn enter_of_any(&self) -> Result<(), Errno> {
        let mut gate = self.gate();
        if gate.phase == Phase::Ended {
            return Err(Errno::ESTALE);
        }
        gate.in_hand += 1;
        Ok(())
    }

    /// It has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.gate().phase == Phase::Ended
    }

    /// It has no connection.
    pub(super) fn is_lost(&self) -> bool {
        self.gate().phase == Phase::Lost
    }

    /// The work on a frame is done. The client could not be heard while it waited for that, so its clock starts anew.
    pub(super) fn leave(&self, now: Duration) -> Sweep {
        let mut gate = self.gate();
        gate.heard = gate.heard.max(now);
        gate.in_hand = gate.in_hand.checked_sub(1).unwrap_or_else(|| unreachable!("left without entering"));
        if gate.in_hand > 0 {
            return Sweep::No;
        }
        self.idle.notify_all();
        gate.sweep()
    }

    /// A sign of life that is not a frame: the peer takes what it is sent.
    pub(super) fn touch(&self, now: Duration) {
        let mut gate = self.gate();
        gate.heard = gate.heard.max(now);
    }

    /// Ends the session where `event` says so; closes its connections.
    pub(super) fn end(&self, event: Event) -> Sweep {
        self.end_locked(self.gate(), event)
    }

    fn end_locked(&self, mut gate: MutexGuard<'_, Gate>, event: Event) -> Sweep {
        gate.phase = gate.phase.on(event).unwrap_or(gate.phase);
        if gate.phase != Phase::Ended {
            return Sweep::No;
        }
        let links = std::mem::take(&mut gate.links);
        let sweep = if gate.in_hand == 0 { gate.sweep() } else { Sweep::No };
        drop(gate);
        links.iter().for_each(|(_, close)| close());
        sweep
    }

    /// Ends the session if it was silent for longer than `lease`; one in the server's own process never is.
    pub(super) fn expire(&self, lease: Duration, now: Duration) -> Sweep {
        let gate = self.gate();
        let silent = now.saturating_sub(gate.heard);
        let timed = matches!(gate.phase, Phase::Live | Phase::Lost) && !self.about.local;
        // With a frame in hand it is the server that is slow, not the client.
        if !timed || silent <= lease || gate.in_hand > 0 {
            return Sweep::No;
        }
        let (host, mount_point) = (&self.about.host, &self.about.mount_point);
        let silent_ms = silent.as_millis();
        tracing::warn!(session = %self.id, host, mount_point, silent_ms, "session expired: what it held is given up");
        self.end_locked(gate, Event::LeaseOver)
    }

    /// Waits until no frame is in hand, at most `limit`. Says whether that is so.
    pub(super) fn wait_idle(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut gate = self.gate();
        while gate.in_hand > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            gate = self.idle.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Its ranges of inode numbers. Locked while more are taken.
    pub(super) fn numbers(&self) -> MutexGuard<'_, Vec<Numbers>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pulse(&self, now: Duration) -> Pulse {
        let gate = self.gate();
        let silent = now.saturating_sub(gate.heard);
        Pulse { phase: gate.phase, links: gate.links.len(), silent, frames: gate.frames }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    fn sweep(&mut self) -> Sweep {
        if self.phase != Phase::Ended || std::mem::replace(&mut self.swept, true) {
            return Sweep::No;
        }
        Sweep::Now
    }
}

#[cfg(test)]
mod tests {
    use super::{About, Closer, Event, Phase, Session, SessionId, Sweep};
    use crate::base::Errno;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const LEASE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn session() -> Session {
        Session::new(SessionId(1), About::default(), Phase::Lost, at(0))
    }

    fn closer(closed: &Arc<AtomicUsize>) -> Closer {
        let closed = Arc::clone(closed);
        Box::new(move || {
            closed.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn a_session_is_swept_once_and_only_after_the_last_frame_in_hand() {
        let session = session();
        let closed = Arc::default();
        assert!(session.attach(1, closer(&closed), false, at(0)));
        session.enter(1, at(1)).unwrap();
        session.enter(1, at(1)).unwrap();
        assert_eq!(session.end(Event::Bye), Sweep::No);
        assert_eq!(closed.load(Ordering::Relaxed), 1);
        assert_eq!(session.enter(1, at(2)), Err(Errno::ESTALE));
        assert_eq!(session.leave(at(2)), Sweep::No);
        assert_eq!(session.leave(at(2)), Sweep::Now);
        assert_eq!(session.end(Event::Bye), Sweep::No);
        assert!(!session.attach(2, closer(&closed), false, at(3)));
    }

    #[test]
    fn a_connection_that_was_replaced_is_closed_and_its_frames_are_not_taken() {
        let session = session();
        let closed = Arc::default();
        assert!(session.attach(1, closer(&closed), false, at(0)));
        session.enter(1, at(0)).unwrap();
        assert!(session.attach(2, closer(&closed), true, at(0)));
        assert_eq!(closed.load(Ordering::Relaxed), 1);
        assert_eq!(session.enter(1, at(0)), Err(Errno::ESTALE));
        assert!(!session.wait_idle(Duration::from_millis(1)), "its last frame is still in hand");
        assert_eq!(session.leave(at(0)), Sweep::No);
        assert!(session.wait_idle(Duration::from_millis(1)));
        session.detach(1, at(0));
        session.enter(2, at(0)).unwrap();
    }

    #[test]
    fn a_lease_runs_from_the_last_frame_or_the_loss_of_the_connection_and_not_while_the_server_works() {
        let session = session();
        assert!(session.attach(1, Box::new(|| {}), false, at(0)));
        session.enter(1, at(5)).unwrap();
        assert_eq!(session.expire(LEASE, at(100)), Sweep::No);
        assert_eq!(session.leave(at(100)), Sweep::No);
        assert_eq!(session.expire(LEASE, at(110)), Sweep::No);
        session.detach(1, at(110));
        assert_eq!(session.expire(LEASE, at(120)), Sweep::No);
        assert_eq!(session.expire(LEASE, at(121)), Sweep::Now);
        let local = Session::new(SessionId(2), About { local: true, ..About::default() }, Phase::Lost, at(0));
        assert!(local.attach(1, Box::new(|| {}), false, at(0)));
        assert_eq!(local.expire(LEASE, at(1000)), Sweep::No);
    }
}
