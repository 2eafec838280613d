//! What happens under the desk's mutex: admission, and what a change of the table makes due.

use super::super::leases::{Access, Effects, LeaseTable, WaitId};
use super::{Held, Inner, PARKED_BYTES_MAX, PARKED_MAX, Parked};
use crate::base::{Ino, SessionId};
use std::time::Duration;

impl Inner {
    pub(super) fn admit<R>(
        &mut self,
        session: SessionId,
        needs: &[(Access, &[Ino])],
        now: Duration,
        request: R,
        park: impl FnOnce(R) -> Parked,
    ) -> Result<R, Held<R>> {
        for &(access, inos) in needs {
            let mut free = false;
            self.change(|table, out| free = table.admit(session, access, inos, now, out));
            if free {
                continue;
            }
            if self.closed || !self.has_room(session) {
                return Err(Held::Full(request));
            }
            let parked = park(request);
            self.add_load(&parked);
            let id = self.table.wait(session, access, inos);
            self.parked.insert(id, parked);
            return Err(Held::Parked);
        }
        Ok(request)
    }

    pub(super) fn has_room(&self, session: SessionId) -> bool {
        let load = self.load.get(&session).copied().unwrap_or_default();
        load.requests < PARKED_MAX && load.bytes < PARKED_BYTES_MAX
    }

    /// Changes the table and takes note of what follows from that.
    pub(super) fn change(&mut self, work: impl FnOnce(&mut LeaseTable, &mut Effects)) {
        let mut out = Effects::default();
        work(&mut self.table, &mut out);
        for (session, recall) in out.recalls {
            let granting = self.granting.get(&session);
            let early = granting.is_some_and(|all| all.iter().any(|some| some.contains(&recall.number)));
            if early {
                self.held_back.push((session, recall))
            } else {
                self.outbox.push_back((session, recall))
            }
        }
        for id in out.woken {
            if let Some(parked) = self.parked.remove(&id) {
                self.make_ready(parked);
            }
        }
    }

    pub(super) fn wake_where(&mut self, which: impl Fn(&Parked) -> bool) {
        let ids: Vec<WaitId> =
            self.parked.iter().filter(|(_, parked)| which(parked)).map(|(id, _)| *id).collect();
        for id in ids {
            self.table.forget(id);
            if let Some(parked) = self.parked.remove(&id) {
                self.make_ready(parked);
            }
        }
        if let Some(frozen) = &mut self.frozen {
            let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(frozen).into_iter().partition(which);
            *frozen = left;
            gone.into_iter().for_each(|parked| self.make_ready(parked));
        }
    }

    pub(super) fn add_load(&mut self, parked: &Parked) {
        let load = self.load.entry(parked.session).or_default();
        load.requests += 1;
        load.bytes += parked.bytes;
    }

    pub(super) fn take_load(&mut self, parked: &Parked) {
        if let Some(load) = self.load.get_mut(&parked.session) {
            load.requests -= 1;
            load.bytes -= parked.bytes;
            if load.requests == 0 {
                self.load.remove(&parked.session);
            }
        }
    }

    pub(super) fn make_ready(&mut self, parked: Parked) {
        self.take_load(&parked);
        self.ready.push_back(parked);
    }

    pub(super) fn owns_number(&self, session: SessionId, ino: Ino) -> bool {
        let ranges = self.numbers.get(&session).map_or(&[][..], Vec::as_slice);
        // The newest are used most.
        ranges.iter().rev().any(|(first, end)| (*first..*end).contains(&ino.0))
    }
}
