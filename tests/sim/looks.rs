//! What a program asks: answered by the kernel, by what is known here, or by the server.

use super::client::{Todo, What};
use super::model::{Look, Seen};
use super::ops::name;
use super::plant::Plant;
use super::world::World;
use ringfs::base::{Errno, Ino};
use ringfs::client::tree::Known;
use ringfs::wire::{Query, Ticket};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

impl World {
    pub(super) fn look(&mut self, c: usize, look: Look) {
        if let Some(seen) = self.in_kernel(c, look) {
            self.counts.kernel += 1;
            self.answered_here(c, look, seen, "its kernel");
            return;
        }
        let mut list = None;
        if self.valid(c) {
            if let Some(seen) = self.here(c, look) {
                self.counts.here += 1;
                self.keep(c, look, &seen);
                self.answered_here(c, look, seen, "its tree");
                return;
            }
            if let Look::Name(parent, _) = look {
                list = self.clients[c].tree.should_list_first(parent).then_some(parent);
            }
        }
        self.counts.asked += 1;
        self.clients[c].busy += 1;
        let client = &mut self.clients[c];
        let behind = match look {
            Look::Read(ino) => client.tree.last_ticket(ino),
            _ => (client.log.waiting() > 0).then(|| client.log.last()),
        };
        match behind.filter(|_| !self.planted(Plant::AskedEarly)) {
            Some(ticket) if self.clients[c].log.applied_through() < ticket => {
                let since = self.clients[c].log.last();
                let reached = self.clients[c].todo(Todo::Ask(look, list.is_some(), since));
                let due = self.clients[c].log.after_applied(ticket, reached);
                self.run_due(c, due);
                self.pump(c);
            }
            _ => {
                let since = self.clients[c].log.last();
                self.ask(c, look, list.is_some(), since);
            }
        }
    }

    pub(super) fn answered_here(&mut self, c: usize, look: Look, seen: Result<Seen, Errno>, who: &str) {
        let session = self.clients[c].session;
        assert!(
            self.torn || !self.ended.contains(&session),
            "session {session:x} has ended at the server, and {who} answers {look:?}"
        );
        self.note(format!("client {c}: {look:?} answered by {who}"));
        if !self.ignorant(session, look, &seen) {
            self.compare(session, look, seen, who);
        }
    }

    pub(super) fn in_kernel(&self, c: usize, look: Look) -> Option<Result<Seen, Errno>> {
        let kernel = &self.clients[c].kernel;
        let attr =
            |ino: Ino| kernel.attrs.get(&ino).filter(|(_, until)| *until > self.now).map(|(attr, _)| *attr);
        match look {
            Look::Attr(ino) => attr(ino).map(|attr| Ok(Seen::Attr(attr))),
            Look::Name(parent, text) => match kernel.names.get(&(parent, text)) {
                Some((Some(ino), until)) if *until > self.now => attr(*ino).map(|attr| Ok(Seen::Attr(attr))),
                Some((None, until)) if *until > self.now => Some(Err(Errno::ENOENT)),
                _ => None,
            },
            Look::List(_) | Look::Read(_) => None,
        }
    }

    /// The kernel keeps what a reply says, as long as leases are good.
    pub(super) fn keep(&mut self, c: usize, look: Look, seen: &Result<Seen, Errno>) {
        let client = &mut self.clients[c];
        let until = client.answered_since + client.usable;
        if until <= self.now {
            return;
        }
        if let Ok(Seen::Attr(attr)) = seen
            && client.tree.may_cache(attr.ino)
        {
            client.kernel.attrs.insert(attr.ino, (*attr, until));
        }
        let ino = match seen {
            Ok(Seen::Attr(attr)) => Some(attr.ino),
            Err(Errno::ENOENT) => None,
            _ => return,
        };
        if let Look::Name(parent, text) = look
            && client.tree.may_cache_name(parent)
        {
            client.kernel.names.insert((parent, text), (ino, until));
        }
    }

    pub(super) fn here(&mut self, c: usize, look: Look) -> Option<Result<Seen, Errno>> {
        let tree = &mut self.clients[c].tree;
        let known = match look {
            Look::Name(parent, text) => tree.lookup(parent, name(text)),
            Look::Attr(ino) => tree.attr(ino),
            Look::List(dir) => {
                let mut names = BTreeMap::new();
                let all = tree.list(dir, 0, true, &mut |entry| {
                    names.insert(entry.name.to_vec(), entry.ino);
                    ControlFlow::Continue(())
                });
                return match all {
                    Known::Yes(true) => Some(Ok(Seen::Names(names))),
                    Known::No(errno) => Some(Err(errno)),
                    _ => None,
                };
            }
            Look::Read(_) => return None,
        };
        match known {
            Known::Yes(attr) => Some(Ok(Seen::Attr(attr))),
            Known::No(errno) => Some(Err(errno)),
            Known::Unknown => None,
        }
    }

    pub(super) fn ask(&mut self, c: usize, look: Look, list_first: bool, since: Ticket) {
        let stamp = self.clients[c].tree.stamp();
        let bytes_max = if self.dice.one_in(3) { 500 } else { 1 << 16 };
        let (query, then) = match look {
            Look::Name(parent, _) if list_first => {
                (Query::ReadDir { ino: parent, cookie: 0, bytes_max, plus: true }, Some(look))
            }
            Look::Name(parent, text) => (Query::Lookup { parent, name: name(text) }, None),
            Look::Attr(ino) => (Query::GetAttr { ino }, None),
            Look::List(ino) => (Query::ReadDir { ino, cookie: 0, bytes_max, plus: true }, None),
            Look::Read(ino) => (Query::Read { ino, offset: 0, len: 1 << 16 }, None),
        };
        let look =
            if let (Some(_), Look::Name(parent, _)) = (then, look) { Look::List(parent) } else { look };
        let lane = usize::from(matches!(look, Look::Read(_)));
        self.ask_server(c, lane, &query, What::Ask { look, stamp, then, since });
    }
}
