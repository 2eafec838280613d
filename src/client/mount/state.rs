//! What is known and what is not sent yet: all that stands behind the mount's one lock.

use super::change::{Again, Waiter};
use super::numbers::Numbers;
use super::status::Counts;
use super::touched::Touched;
use super::{Mount, Options};
use crate::base::{Ino, NameHash};
use crate::client::oplog::{Limits, Log};
use crate::client::tree::{Tree, TreeBounds};
use crate::wire::hello::Welcome;
use crate::wire::{Answer, Query, Ticket};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) log: Log,
    pub(super) numbers: Numbers,
    /// Who waits for the outcome of a mutation.
    pub(super) waiters: FxHashMap<Ticket, Waiter>,
    /// What mutations touch that are the server's to make and have no outcome yet.
    pub(super) on_the_way: FxHashMap<Ticket, Touched>,
    /// Changes that begin anew when one of these has its outcome.
    pub(super) behind: Vec<Again>,
    /// Inodes whose last name was taken here, and the mutation that took it, while that is not durable.
    pub(super) unlinked: FxHashMap<Ino, Ticket>,
    /// The same in the order of the tickets.
    unlinked_by: VecDeque<(Ticket, Ino)>,
    /// When the thread for batches looks next; `None`: it sleeps until it is woken.
    pub(super) alarm: Option<Duration>,
    /// The kernel may keep names: they can be taken back.
    pub(super) names_kept: bool,
    /// Too much went wrong late: nothing is completed here any more.
    pub(super) degraded: bool,
    pub(super) counts: Counts,
}

impl State {
    pub(super) fn new(options: &Options, welcome: &Welcome) -> Self {
        let bounds = TreeBounds { inodes_max: options.cache_inodes, ..TreeBounds::default() };
        let limits =
            Limits { waiting_max: options.log_operations, gather: options.gather, ..Limits::default() };
        // Of a server that grants nothing: then nothing is hashed.
        let name_key = welcome.name_key.as_slice().try_into().unwrap_or_default();
        Self {
            tree: Tree::new(NameHash::new(name_key), bounds),
            log: Log::new(limits),
            numbers: Numbers::default(),
            waiters: FxHashMap::default(),
            on_the_way: FxHashMap::default(),
            behind: Vec::new(),
            unlinked: FxHashMap::default(),
            unlinked_by: VecDeque::new(),
            alarm: None,
            names_kept: false,
            degraded: false,
            counts: Counts::default(),
        }
    }

    /// The mutation with this ticket took the inode's last name.
    pub(super) fn took_last_name(&mut self, ino: Ino, ticket: Ticket) {
        self.unlinked.insert(ino, ticket);
        self.unlinked_by.push_back((ticket, ino));
    }

    /// More is applied: forgets what is kept for what is not.
    pub(super) fn applied(&mut self) {
        self.tree.applied(self.log.applied_through());
        let durable = self.log.durable_through();
        while let Some(&(ticket, ino)) = self.unlinked_by.front()
            && ticket <= durable
        {
            self.unlinked_by.pop_front();
            if self.unlinked.get(&ino) == Some(&ticket) {
                self.unlinked.remove(&ino);
            }
        }
    }

    /// What was held by mutations of the session is not any more.
    pub(super) fn session_lost(&mut self) {
        self.unlinked.clear();
        self.unlinked_by.clear();
    }

    /// Whether the server knows by now that this inode is to be held, if it is to be.
    pub(super) fn hold_is_applied(&self, ino: Ino) -> bool {
        self.unlinked.get(&ino).is_none_or(|ticket| *ticket <= self.log.applied_through())
    }

    /// The log has taken a local mutation: when the thread for batches has to be told to look, if it has to be told.
    pub(super) fn arrange(&mut self, now: Duration) -> Option<Duration> {
        let at = self.log.when(now)?;
        let sooner = self.alarm.is_none_or(|alarm| at < alarm);
        sooner.then(|| {
            self.alarm = Some(at);
            at
        })
    }
}

impl Mount {
    /// Asks for inode numbers when the stock is low.
    pub(super) fn fetch_numbers(self: &Arc<Self>) {
        let Some(count) = self.state().numbers.wanted(super::boottime()) else { return };
        let mount = Arc::clone(self);
        self.link.call(&Query::Numbers { count }, move |answer| {
            let mut state = mount.state();
            match answer {
                Ok(Answer::Numbers { first, count }) => {
                    state.numbers.got(super::boottime(), first, count);
                }
                Ok(_) | Err(_) => state.numbers.refused(),
            }
        });
    }
}
