//! Questions: answered from what is known under leases, else by the server.
//!
//! What goes to the server goes behind everything that was accepted here before: an answer never lacks what a caller has
//! been told (R1.2). What it says is remembered as far as leases came with it.

use super::asked::{About, Behind, Owned};
use super::{Asker, Interrupt, Kept, Mount, boottime};
use crate::base::{Errno, Ino};
use crate::wire::{Answer, Query, Ticket};
use rustc_hash::FxHashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Bytes of a listing that is asked for in place of a first name: a small directory is known after one round trip.
const LISTING_BYTES: u32 = 64 << 10;

/// Goes on with a question that waited for the log; true: it is called off.
pub(super) type Ask = Box<dyn FnOnce(bool) + Send>;

impl Mount {
    /// Asks. `done` gets the answer exactly once, possibly before this returns.
    pub fn ask<F>(self: &Arc<Self>, interrupt: Interrupt, query: &Query<'_>, done: F)
    where
        F: FnOnce(Result<Answer<'_>, Errno>, Kept) + Send + 'static,
    {
        let now = boottime();
        let mut state = self.state();
        let mut listing = None;
        if let Some(left) = self.leases_left(now, &state) {
            if let Some((here, kept)) = state.answer(query, left) {
                state.counts.here(query);
                drop(state);
                return done(here.answer(), kept);
            }
            listing = state.unknown_directory(query);
        }
        state.counts.asked(query);
        let behind = match Behind::new(query) {
            Behind::Nothing => None,
            Behind::Inode(ino) => state.tree.last_ticket(ino),
            Behind::Everything => (state.log.waiting() > 0).then(|| state.log.last()),
        };
        drop(state);
        if behind.is_none() && listing.is_none() {
            return self.ask_server(interrupt, query, done);
        }
        let (mount, owned) = (Arc::clone(self), Owned::new(query));
        let ask = move |called_off: bool| match (listing, owned.query()) {
            _ if called_off => done(Err(Errno::EINTR), Kept::default()),
            (Some(ino), Some(_)) => mount.list_first(interrupt, ino, owned, done),
            (None, Some(query)) => mount.ask_server(interrupt, &query, done),
            (_, None) => done(Err(Errno::EIO), Kept::default()),
        };
        match (behind, self.asker(interrupt)) {
            (None, _) => ask(false),
            (Some(ticket), None) => self.after_applied_to(ticket, Box::new(move |_| ask(false))),
            (Some(ticket), Some(asker)) => self.ask_behind(ticket, asker, interrupt, Box::new(ask)),
        }
    }

    /// Who can be interrupted.
    fn asker(&self, interrupt: Interrupt) -> Option<Asker> {
        match interrupt {
            Interrupt::Lock(asker) => Some(asker),
            Interrupt::WhenAway(asker) => self.remote.then_some(asker),
            Interrupt::Never => None,
        }
    }

    /// Asks when the log is applied so far, unless who asks is interrupted before.
    fn ask_behind(self: &Arc<Self>, ticket: Ticket, asker: Asker, interrupt: Interrupt, ask: Ask) {
        let unique = asker.unique;
        self.behind().insert(unique, ask);
        let interrupted = self.pending.wait(asker, matches!(interrupt, Interrupt::Lock(_)));
        let mount = Arc::clone(self);
        self.after_applied_to(
            ticket,
            Box::new(move |_| {
                let ask = mount.behind().remove(&unique);
                if let Some(ask) = ask {
                    mount.pending.end(unique);
                    ask(false);
                }
            }),
        );
        if interrupted {
            self.interrupted(unique);
        }
    }

    /// An interrupt ends a question that waits for the log.
    pub(super) fn call_off(&self, unique: u64) {
        let ask = self.behind().remove(&unique);
        if let Some(ask) = ask {
            self.pending.end(unique);
            ask(true);
        }
    }

    fn behind(&self) -> MutexGuard<'_, FxHashMap<u64, Ask>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a directory's listing in place of one of its names; then for the name, if that is still not known.
    fn list_first<F>(self: &Arc<Self>, interrupt: Interrupt, ino: Ino, owned: Owned, done: F)
    where
        F: FnOnce(Result<Answer<'_>, Errno>, Kept) + Send + 'static,
    {
        let mount = Arc::clone(self);
        let listing = Query::ReadDir { ino, cookie: 0, bytes_max: LISTING_BYTES, plus: true };
        self.ask_server(interrupt, &listing, move |listed, _| {
            let Some(query) = owned.query() else { return done(Err(Errno::EIO), Kept::default()) };
            let mut state = mount.state();
            let left = mount.leases_left(boottime(), &state);
            let known = left.and_then(|left| state.answer(&query, left));
            drop(state);
            match (known, listed) {
                (Some((here, kept)), _) => done(here.answer(), kept),
                (None, Err(Errno::EINTR)) => done(Err(Errno::EINTR), Kept::default()),
                (None, _) => mount.ask_server(interrupt, &query, done),
            }
        });
    }

    /// Asks the server, and remembers what it says.
    pub(super) fn ask_server<F>(self: &Arc<Self>, interrupt: Interrupt, query: &Query<'_>, done: F)
    where
        F: FnOnce(Result<Answer<'_>, Errno>, Kept) + Send + 'static,
    {
        let stamp = self.state().tree.stamp();
        let (mount, about) = (Arc::clone(self), About::new(query));
        let unique = self.asker(interrupt).map(|asker| {
            self.pending.begin(asker, matches!(interrupt, Interrupt::Lock(_)));
            asker.unique
        });
        let sequence = self.link.call_leased(query, move |answer, grants| {
            if let Some(unique) = unique {
                mount.pending.end(unique);
            }
            let kept = match &about {
                Some(about) => mount.learn(stamp, about, &answer, grants),
                None => Kept::default(),
            };
            done(answer, kept);
        });
        if let Some(unique) = unique
            && self.pending.asked(unique, sequence)
        {
            self.interrupted(unique);
        }
    }
}
