//! Which inodes are wanted by several sessions so often that leases on them are not worth it (R5.7): after some recalls
//! in a short time nothing is granted until there has been no conflict for as long.

use super::Access;
use crate::base::{Ino, SessionId};
use rustc_hash::FxHashMap;
use std::time::Duration;

/// So many recalls within [`WINDOW`] make an inode contested.
pub(super) const RECALLS: u8 = 3;

/// See [`RECALLS`].
pub(super) const WINDOW: Duration = Duration::from_secs(2);

/// It stays so until there was no conflict for this long.
pub(super) const QUIET: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Contests {
    all: FxHashMap<Ino, Contest>,
}

struct Contest {
    /// Recalls since `since`.
    recalls: u8,
    since: Duration,
    /// The last conflict.
    last: Duration,
    contested: bool,
    /// Who asked last, and what for.
    who: SessionId,
    access: Access,
}

impl Contests {
    /// A lease of the inode had to be recalled for this session.
    pub(super) fn recalled(&mut self, ino: Ino, session: SessionId, access: Access, now: Duration) {
        let new = Contest { recalls: 0, since: now, last: now, contested: false, who: session, access };
        let contest = self.all.entry(ino).or_insert(new);
        if now.saturating_sub(contest.since) > WINDOW {
            contest.since = now;
            contest.recalls = 0;
        }
        contest.recalls = contest.recalls.saturating_add(1);
        contest.last = now;
        contest.contested |= contest.recalls >= RECALLS;
    }

    /// The session asks for the inode. While nobody has a lease, this is how a conflict shows.
    pub(super) fn asked(&mut self, ino: Ino, session: SessionId, access: Access, now: Duration) {
        if self.all.is_empty() {
            return;
        }
        let Some(contest) = self.all.get_mut(&ino) else { return };
        if contest.who != session && (access == Access::Write || contest.access == Access::Write) {
            contest.last = now;
        }
        (contest.who, contest.access) = (session, access);
    }

    /// Whether nothing is to be granted.
    pub(super) fn contested(&self, ino: Ino, now: Duration) -> bool {
        let contest = if self.all.is_empty() { None } else { self.all.get(&ino) };
        contest.is_some_and(|contest| contest.contested && now.saturating_sub(contest.last) < QUIET)
    }

    /// Forgets those that are quiet.
    pub(super) fn tick(&mut self, now: Duration) {
        self.all.retain(|_, contest| now.saturating_sub(contest.last) < QUIET);
    }

    /// How many are contested.
    pub(super) fn count(&self) -> usize {
        self.all.values().filter(|contest| contest.contested).count()
    }
}
