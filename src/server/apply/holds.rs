//! Who holds which inode open, and which inodes have no name. A value: no I/O, no clock.
//!
//! Holds are not stored: after a restart each client says again what it holds, and until [`Holds::end_grace`] every
//! orphan is kept. Orphans are in the store too; the set here saves a look-up at each close.

use crate::base::{Ino, SessionId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Holds of all sessions.
pub(super) struct Holds {
    sessions: FxHashMap<SessionId, FxHashSet<Ino>>,
    /// How many sessions hold it; absent: none.
    holders: FxHashMap<Ino, u32>,
    orphans: FxHashSet<Ino>,
    grace: bool,
    /// See [`Holds::has_room`].
    per_session_max: usize,
}

impl Holds {
    /// After a start, with the orphans found in the store.
    pub(super) fn new(orphans: Vec<Ino>, per_session_max: usize) -> Self {
        let orphans = orphans.into_iter().collect();
        Self {
            sessions: FxHashMap::default(),
            holders: FxHashMap::default(),
            orphans,
            grace: true,
            per_session_max,
        }
    }

    /// Whether the session may hold one more. Asked before what can be refused; an orphan that a session made by
    /// unlinking is held all the same.
    pub(super) fn has_room(&self, session: SessionId) -> bool {
        self.count(session) < self.per_session_max
    }

    /// The session holds it. Idempotent.
    pub(super) fn hold(&mut self, session: SessionId, ino: Ino) {
        if self.sessions.entry(session).or_default().insert(ino) {
            *self.holders.entry(ino).or_insert(0) += 1;
        }
    }

    /// Lost its last name, or was made without one.
    pub(super) fn orphaned(&mut self, ino: Ino) {
        self.orphans.insert(ino);
    }

    /// Has a name, or does not exist any more.
    pub(super) fn not_orphan(&mut self, ino: Ino) {
        self.orphans.remove(&ino);
    }

    /// Whether it may be removed, if it is an orphan.
    pub(super) fn is_free(&self, ino: Ino) -> bool {
        !self.grace && !self.holders.contains_key(&ino)
    }

    /// The session lets go of these; returns the orphans that nobody holds now. Idempotent.
    pub(super) fn release(&mut self, session: SessionId, inos: &[Ino]) -> Vec<Ino> {
        let Some(held) = self.sessions.get_mut(&session) else { return Vec::new() };
        let dropped: Vec<Ino> = inos.iter().copied().filter(|ino| held.remove(ino)).collect();
        if held.is_empty() {
            self.sessions.remove(&session);
        }
        self.unhold(&dropped)
    }

    /// The session lets go of everything.
    pub(super) fn release_all(&mut self, session: SessionId) -> Vec<Ino> {
        let held: Vec<Ino> = self.sessions.remove(&session).into_iter().flatten().collect();
        self.unhold(&held)
    }

    fn unhold(&mut self, inos: &[Ino]) -> Vec<Ino> {
        let mut dead = Vec::new();
        for ino in inos {
            let count = self.holders.get_mut(ino).expect("a session holds it, so it is counted");
            *count -= 1;
            if *count == 0 {
                self.holders.remove(ino);
                if self.orphans.contains(ino) && !self.grace {
                    dead.push(*ino);
                }
            }
        }
        dead
    }

    /// From now on, what nobody holds goes. Returns the orphans nobody holds.
    pub(super) fn end_grace(&mut self) -> Vec<Ino> {
        self.grace = false;
        self.orphans.iter().copied().filter(|ino| !self.holders.contains_key(ino)).collect()
    }

    /// Whether the session holds it.
    pub(super) fn holds(&self, session: SessionId, ino: Ino) -> bool {
        self.sessions.get(&session).is_some_and(|held| held.contains(&ino))
    }

    /// How many inodes the session holds.
    pub(super) fn count(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, FxHashSet::len)
    }
}

#[cfg(test)]
mod tests {
    use super::Holds;
    use crate::base::{Ino, SessionId};

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn an_orphan_dies_with_its_last_holder_and_once() {
        let mut holds = Holds::new(Vec::new(), 9);
        holds.end_grace();
        for session in [A, A, B] {
            holds.hold(session, Ino(20));
        }
        holds.orphaned(Ino(20));
        assert_eq!(holds.release(A, &[Ino(20), Ino(20), Ino(21)]), []);
        assert!(!holds.is_free(Ino(20)));
        assert_eq!(holds.release(B, &[Ino(20)]), [Ino(20)]);
        assert_eq!(holds.release(B, &[Ino(20)]), []);
        assert!(holds.is_free(Ino(20)));
    }

    #[test]
    fn after_a_restart_orphans_wait_for_those_who_hold_them() {
        let mut holds = Holds::new(vec![Ino(20), Ino(21)], 9);
        holds.hold(A, Ino(20));
        assert!(!holds.is_free(Ino(21)), "somebody may still come and hold it");
        assert_eq!(holds.end_grace(), [Ino(21)]);
        assert_eq!(holds.release_all(A), [Ino(20)]);
    }

    #[test]
    fn what_has_a_name_does_not_die() {
        let mut holds = Holds::new(Vec::new(), 9);
        holds.end_grace();
        holds.hold(A, Ino(20));
        assert_eq!(holds.release(A, &[Ino(20)]), []);
        holds.hold(A, Ino(21));
        holds.orphaned(Ino(21));
        holds.not_orphan(Ino(21));
        assert_eq!(holds.release_all(A), []);
    }
}
