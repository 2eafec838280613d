//! Who may answer and change what on its own: the server's record of leases (decision 0004), as a value.
//!
//! Comes in: what requests need, grants to be tried, what clients give back, ends of sessions, the time. Goes out:
//! grants, recalls to be sent, requests that may go on. Absent on purpose: connections, frames, locks, a clock; no
//! request is refused here, it waits.
//!
//! | rule | where |
//! |---|---|
//! | one session alone has an exclusive lease of an inode, and nobody else any | [`LeaseTable::grant`] |
//! | a read conflicts with a foreign exclusive lease, a write with any foreign one | [`LeaseTable::admit`] |
//! | what is given back names its grant | [`LeaseTable::give_back`] |
//! | no grant while somebody waits, the inode is contested, or it was written since the look | [`LeaseTable::grant`] |
//! | who does not give back in time has its session ended | [`LeaseTable::tick`] |

mod contest;
mod hash;
mod overlap;
mod waits;

#[cfg(test)]
mod tests;

use crate::base::{Ino, SessionId};
use crate::wire::{Grant, Keep, LeaseMode, Recall, Returned};
use contest::Contests;
use hash::NumberMap;
use overlap::Overlap;
pub(crate) use overlap::Stamp;
use rustc_hash::FxHashMap;
use std::time::Duration;
pub(crate) use waits::WaitId;
use waits::{Wait, Waits};

/// What a request does to an inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Access {
    /// It tells something of it.
    Read,
    /// It changes it.
    Write,
}

/// Bounds of leases.
#[derive(Clone, Copy, Debug)]
pub struct LeaseLimits {
    /// Most leases of one session; each takes some 70 bytes.
    pub leases_max: usize,
    /// How long a session may take to give back what is recalled.
    pub recall_timeout: Duration,
}

impl Default for LeaseLimits {
    fn default() -> Self {
        Self { leases_max: 1 << 20, recall_timeout: Duration::from_secs(10) }
    }
}

/// What a change of the table means for others.
#[derive(Default, Debug)]
pub(crate) struct Effects {
    /// To be sent.
    pub(crate) recalls: Vec<(SessionId, Recall)>,
    /// To be begun anew.
    pub(crate) woken: Vec<WaitId>,
}

/// Leases of one session, for the operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LeaseView {
    pub(crate) shared: usize,
    pub(crate) exclusive: usize,
    /// Recalls sent since the session began.
    pub(crate) recalls: u64,
    /// Recalls that are not answered.
    pub(crate) outstanding: usize,
    /// Age of the oldest of those.
    pub(crate) oldest: Duration,
}

/// A session's place in the table: leases name it by its index.
struct Seat {
    session: SessionId,
    shared: usize,
    exclusive: usize,
    recalls: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    number: u64,
    seat: u32,
    exclusive: bool,
    /// It is in [`LeaseTable::recalls`].
    recalled: bool,
    /// The holder has had a write of its own executed that it has not heard the end of: what it tells its programs may be
    /// older. Nobody else is told of the inode before that has been recalled.
    behind: bool,
}

/// The leases of one inode; nearly always one.
enum Holders {
    One(Lease),
    Many(Vec<Lease>),
}

const _: () = assert!(size_of::<(Ino, Holders)>() <= 48, "a lease must stay small: there are millions");

impl Holders {
    fn as_slice(&self) -> &[Lease] {
        match self {
            Self::One(lease) => std::slice::from_ref(lease),
            Self::Many(all) => all,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Lease] {
        match self {
            Self::One(lease) => std::slice::from_mut(lease),
            Self::Many(all) => all,
        }
    }

    fn push(&mut self, lease: Lease) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, lease]),
            Self::Many(all) => all.push(lease),
        }
    }

    /// Removes the lease of a seat; says which it was and whether none is left.
    fn remove(&mut self, seat: u32) -> (Option<Lease>, bool) {
        match self {
            Self::One(lease) => {
                let found = (lease.seat == seat).then_some(*lease);
                (found, found.is_some())
            }
            Self::Many(all) => {
                let found = all.iter().position(|lease| lease.seat == seat).map(|at| all.swap_remove(at));
                if let [last] = all[..] {
                    *self = Self::One(last);
                }
                (found, false)
            }
        }
    }
}

struct Outstanding {
    keep: Keep,
    since: Duration,
}

/// See the module.
pub(crate) struct LeaseTable {
    limits: LeaseLimits,
    inodes: NumberMap<Ino, Holders>,
    seats: Vec<Option<Seat>>,
    by_session: NumberMap<SessionId, u32>,
    /// Number of the last grant.
    number: u64,
    recalls: FxHashMap<(Ino, u32), Outstanding>,
    contests: Contests,
    overlap: Overlap,
    waits: Waits,
}

impl LeaseTable {
    /// Nobody has a lease. Grants are numbered above those of earlier epochs, so that what was granted by an earlier
    /// server cannot be given back to this one.
    pub(crate) fn new(limits: LeaseLimits, epoch: u64) -> Self {
        Self {
            limits,
            inodes: NumberMap::default(),
            seats: Vec::new(),
            by_session: NumberMap::default(),
            number: epoch << 40,
            recalls: FxHashMap::default(),
            contests: Contests::default(),
            overlap: Overlap::default(),
            waits: Waits::default(),
        }
    }

    /// The session wants leases. Asked again it keeps those it has.
    pub(crate) fn join(&mut self, session: SessionId) {
        if self.by_session.contains_key(&session) {
            return;
        }
        let seat = Some(Seat { session, shared: 0, exclusive: 0, recalls: 0 });
        let at = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        match self.seats.get_mut(at) {
            Some(free) => *free = seat,
            None => self.seats.push(seat),
        }
        self.by_session.insert(session, u32::try_from(at).unwrap_or(u32::MAX));
    }

    /// The session has ended, and all its leases with it.
    pub(crate) fn leave(&mut self, session: SessionId, out: &mut Effects) {
        let Some(seat) = self.by_session.remove(&session) else { return };
        let mut freed = Vec::new();
        let overlap = &mut self.overlap;
        self.inodes.retain(|ino, holders| {
            let (lease, empty) = holders.remove(seat);
            if let Some(lease) = lease {
                freed.push(*ino);
                if lease.exclusive {
                    overlap.gave_up(*ino);
                }
            }
            !empty
        });
        self.recalls.retain(|(_, other), _| *other != seat);
        self.seats[seat as usize] = None;
        // In an order that does not hang on a secret: a simulation goes the same way each time.
        freed.sort_unstable();
        for ino in freed {
            self.wake(ino, out);
        }
    }

    /// Whether a request of the session may do this to all these inodes now. If not, those in the way are recalled, and
    /// the caller is to [`LeaseTable::wait`] before anything else happens to the table.
    pub(crate) fn admit(
        &mut self,
        session: SessionId,
        access: Access,
        inos: &[Ino],
        now: Duration,
        out: &mut Effects,
    ) -> bool {
        let seat = self.seat(session);
        let mut free = true;
        for &ino in inos {
            self.contests.asked(ino, session, access, now);
            if self.blocked(ino, seat, access) {
                free = false;
                self.recall(ino, session, access, now, out);
            }
        }
        free
    }

    /// Whether no other session has any lease on the inodes: a local mutation needs that.
    pub(crate) fn is_alone(&self, session: SessionId, inos: &[Ino]) -> bool {
        let seat = self.seat(session);
        inos.iter().all(|ino| !self.conflicts(*ino, seat, Access::Write))
    }

    /// Whether the session may be told of the inode: no other may be changing it.
    pub(crate) fn may_read(&self, session: SessionId, ino: Ino) -> bool {
        !self.conflicts(ino, self.seat(session), Access::Read)
    }

    /// The request waits for those of the inodes that are in its way. It is woken, by [`Effects::woken`], when none is.
    pub(crate) fn wait(&mut self, session: SessionId, access: Access, inos: &[Ino]) -> WaitId {
        let seat = self.seat(session);
        let inos = inos.iter().copied().filter(|ino| self.blocked(*ino, seat, access)).collect();
        self.waits.insert(session, access, inos)
    }

    /// The request is gone.
    pub(crate) fn forget(&mut self, wait: WaitId) {
        self.waits.remove(wait);
    }

    /// A read that was admitted begins.
    pub(crate) fn begin_read(&mut self) -> Stamp {
        self.overlap.begin()
    }

    /// It has ended.
    pub(crate) fn end_read(&mut self, stamp: Stamp) {
        self.overlap.end(stamp);
    }

    /// Whether what the read found of the inode may be older than a change that was completed, under a lease, before the
    /// read began: it has to look again.
    pub(crate) fn is_stale(&self, ino: Ino, stamp: Stamp) -> bool {
        self.overlap.given_up(ino, stamp)
    }

    /// A write that was admitted begins; until it ends nothing of these inodes is granted, and no other write of them is
    /// admitted.
    pub(crate) fn begin_write(&mut self, session: SessionId, inos: &[Ino]) {
        inos.iter().for_each(|ino| self.overlap.pin(*ino));
        let Some(seat) = self.seat(session) else { return };
        for ino in inos {
            let holders = self.inodes.get_mut(ino).map_or(&mut [][..], Holders::as_mut_slice);
            holders.iter_mut().filter(|lease| lease.seat == seat).for_each(|own| own.behind = true);
        }
    }

    /// It has ended.
    pub(crate) fn end_write(&mut self, inos: &[Ino], out: &mut Effects) {
        inos.iter().for_each(|ino| self.overlap.unpin(*ino));
        inos.iter().for_each(|ino| self.wake(*ino, out));
    }

    /// The lease a session gets with an answer that tells of the inode, by a read that began at `stamp`; `None`: it
    /// keeps what it has. Whether the inode is plain is for the caller to say.
    pub(crate) fn grant(
        &mut self,
        session: SessionId,
        ino: Ino,
        stamp: Stamp,
        now: Duration,
    ) -> Option<Grant> {
        let seat = self.seat(session)?;
        if self.overlap.changed(ino, stamp) || self.waits.wanted(ino) || self.contests.contested(ino, now) {
            return None;
        }
        let owner = self.seats[seat as usize].as_mut()?;
        let full = owner.shared + owner.exclusive >= self.limits.leases_max;
        let number = self.number + 1;
        let lease = |exclusive| Lease { number, seat, exclusive, recalled: false, behind: false };
        let mode = match self.inodes.get_mut(&ino) {
            None if full => return None,
            None => {
                self.inodes.insert(ino, Holders::One(lease(true)));
                owner.exclusive += 1;
                LeaseMode::Exclusive
            }
            Some(Holders::One(own)) if own.seat == seat => {
                if own.exclusive || own.recalled {
                    return None;
                }
                *own = lease(true);
                owner.shared -= 1;
                owner.exclusive += 1;
                LeaseMode::Exclusive
            }
            Some(holders) => {
                let taken = |lease: &Lease| lease.exclusive || lease.seat == seat;
                if full || holders.as_slice().iter().any(taken) {
                    return None;
                }
                holders.push(lease(false));
                owner.shared += 1;
                LeaseMode::Shared
            }
        };
        self.number = number;
        Some(Grant { ino, mode, number, plain: false })
    }

    /// The session makes this inode locally: it has it exclusively from birth, without a message. Over the bound it is
    /// recalled at once.
    pub(crate) fn made(&mut self, session: SessionId, ino: Ino, now: Duration, out: &mut Effects) {
        let Some(seat) = self.seat(session) else { return };
        if self.inodes.contains_key(&ino) {
            return;
        }
        let Some(owner) = self.seats[seat as usize].as_mut() else { return };
        owner.exclusive += 1;
        let over = owner.shared + owner.exclusive > self.limits.leases_max;
        let lease = Lease { number: 0, seat, exclusive: true, recalled: over, behind: false };
        self.inodes.insert(ino, Holders::One(lease));
        if over {
            owner.recalls += 1;
            self.recalls.insert((ino, seat), Outstanding { keep: Keep::Nothing, since: now });
            out.recalls.push((session, Recall { ino, keep: Keep::Nothing, number: 0 }));
        }
    }

    /// The session gives a lease back, or a part of it. Of another grant than the one it has it changes nothing: the two
    /// have crossed.
    pub(crate) fn give_back(&mut self, session: SessionId, returned: &Returned, out: &mut Effects) {
        let Some(seat) = self.seat(session) else { return };
        let ino = returned.ino;
        let Some(holders) = self.inodes.get_mut(&ino) else { return };
        let own = holders.as_mut_slice().iter_mut().find(|lease| lease.seat == seat);
        let Some(own) = own.filter(|lease| lease.number == returned.number) else { return };
        let Some(owner) = self.seats[seat as usize].as_mut() else { return };
        let was_exclusive = own.exclusive;
        let gone = returned.keep == Keep::Nothing;
        if was_exclusive {
            owner.exclusive -= 1;
            self.overlap.gave_up(ino);
        } else {
            owner.shared -= 1;
        }
        if own.recalled
            && (gone || self.recalls.get(&(ino, seat)).is_some_and(|recall| recall.keep == Keep::Shared))
        {
            own.recalled = false;
            self.recalls.remove(&(ino, seat));
        }
        if gone {
            if holders.remove(seat).1 {
                self.inodes.remove(&ino);
            }
        } else {
            (own.exclusive, own.behind) = (false, false);
            owner.shared += 1;
        }
        self.wake(ino, out);
    }

    /// Lets time pass. Sessions that did not give back in time are returned: they are to be ended.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<SessionId> {
        self.contests.tick(now);
        let timeout = self.limits.recall_timeout;
        let late = self.recalls.iter().filter(|(_, recall)| now.saturating_sub(recall.since) > timeout);
        let seats = late.filter_map(|((_, seat), _)| self.seats[*seat as usize].as_ref());
        let mut late: Vec<SessionId> = seats.map(|seat| seat.session).collect();
        late.sort_unstable();
        late.dedup();
        late
    }

    /// The recalls the session has not answered: a new connection may not have heard of them.
    pub(crate) fn outstanding(&self, session: SessionId) -> Vec<Recall> {
        let Some(seat) = self.seat(session) else { return Vec::new() };
        let own = self.recalls.iter().filter(|((_, other), _)| *other == seat);
        own.map(|((ino, _), recall)| Recall {
            ino: *ino,
            keep: recall.keep,
            number: self.number_of(*ino, seat),
        })
        .collect()
    }

    /// What the session has.
    pub(crate) fn view(&self, session: SessionId, now: Duration) -> LeaseView {
        let Some(seat) = self.seat(session) else { return LeaseView::default() };
        let Some(owner) = self.seats[seat as usize].as_ref() else { return LeaseView::default() };
        let own = || self.recalls.iter().filter(|((_, other), _)| *other == seat);
        let oldest = own().map(|(_, recall)| now.saturating_sub(recall.since)).max().unwrap_or_default();
        let Seat { shared, exclusive, recalls, .. } = *owner;
        LeaseView { shared, exclusive, recalls, outstanding: own().count(), oldest }
    }

    /// Inodes with a lease, requests that wait, contested inodes.
    pub(crate) fn totals(&self) -> (usize, usize, usize) {
        (self.inodes.len(), self.waits.len(), self.contests.count())
    }

    fn seat(&self, session: SessionId) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    fn number_of(&self, ino: Ino, seat: u32) -> u64 {
        let holders = self.inodes.get(&ino).map_or(&[][..], Holders::as_slice);
        holders.iter().find(|lease| lease.seat == seat).map_or(0, |lease| lease.number)
    }

    fn conflicts(&self, ino: Ino, seat: Option<u32>, access: Access) -> bool {
        let holders = self.inodes.get(&ino).map_or(&[][..], Holders::as_slice);
        holders.iter().any(|lease| lease.in_way(seat, access))
    }

    fn blocked(&self, ino: Ino, seat: Option<u32>, access: Access) -> bool {
        (access == Access::Write && self.overlap.pinned(ino)) || self.conflicts(ino, seat, access)
    }

    fn recall(&mut self, ino: Ino, session: SessionId, access: Access, now: Duration, out: &mut Effects) {
        let seat = self.seat(session);
        let keep = if access == Access::Read { Keep::Shared } else { Keep::Nothing };
        let Some(holders) = self.inodes.get_mut(&ino) else { return };
        let mut sent = false;
        for lease in holders.as_mut_slice().iter_mut().filter(|lease| lease.in_way(seat, access)) {
            let new = Outstanding { keep, since: now };
            let asked = self.recalls.entry((ino, lease.seat));
            let more = match asked {
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(new);
                    true
                }
                std::collections::hash_map::Entry::Occupied(mut asked) => {
                    let more = keep < asked.get().keep;
                    if more {
                        asked.insert(new);
                    }
                    more
                }
            };
            lease.recalled = true;
            if let Some(holder) = self.seats[lease.seat as usize].as_mut().filter(|_| more) {
                holder.recalls += 1;
                out.recalls.push((holder.session, Recall { ino, keep, number: lease.number }));
                sent = true;
            }
        }
        if sent {
            self.contests.recalled(ino, session, access, now);
        }
    }

    fn wake(&mut self, ino: Ino, out: &mut Effects) {
        let Self { waits, inodes, by_session, overlap, .. } = self;
        let holders = inodes.get(&ino).map_or(&[][..], Holders::as_slice);
        let pinned = overlap.pinned(ino);
        let suits = |wait: &Wait| {
            let seat = by_session.get(&wait.session).copied();
            let barred = pinned && wait.access == Access::Write;
            !barred && !holders.iter().any(|lease| lease.in_way(seat, wait.access))
        };
        waits.wake(ino, suits, &mut out.woken);
    }
}

impl Lease {
    /// Whether it is in the way of somebody who has this seat, or none.
    fn in_way(&self, seat: Option<u32>, access: Access) -> bool {
        Some(self.seat) != seat && (self.exclusive || self.behind || access == Access::Write)
    }
}
