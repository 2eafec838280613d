//! What a program changes: completed here under leases, or the server's to make.

use super::client::{Open, Todo, Waiter, What};
use super::driver::duration;
use super::model::{Act, Look};
use super::names::said;
use super::ops::name;
use super::plant::Plant;
use super::world::{World, time_of};
use ringfs::base::{Attr, Errno, Ino, Time};
use ringfs::client::tree::{Change, Denied, Known, New};
use ringfs::wire::{Done, Expect, MakeFlags, Mutation, Query, SetAttr, Ticket, WriteFlags};

impl World {
    pub(super) fn change_time(&self, c: usize) -> Time {
        time_of(self.now.saturating_add_signed(self.clients[c].skew))
    }

    pub(super) fn mutate(&mut self, c: usize, mutation: &Mutation<'static>) {
        // What a mutation on its way changes at the server is not changed here, and that may be anything.
        let blind = self.is_in_flight(c, mutation);
        if self.valid(c) && self.clients[c].usable > 0 && !blind {
            match self.complete(c, mutation) {
                Ok(()) => return,
                Err(Denied::No(errno)) => {
                    let (at, caller) = (self.change_time(c), self.clients[c].caller());
                    let want = self.model.would(at, caller, mutation);
                    assert!(
                        self.torn || want.err() == Some(errno),
                        "client {c} says {errno:?}, a single host {want:?}: {mutation:?}"
                    );
                    return;
                }
                Err(Denied::Ask) => {}
            }
        }
        self.wait_for(c, mutation);
    }

    pub(super) fn number(&mut self, c: usize) -> Option<Ino> {
        let client = &mut self.clients[c];
        if client.numbers.len() < 8 && !client.numbers_asked && client.connected() {
            client.numbers_asked = true;
            self.ask_server(c, 0, &Query::Numbers { count: 16 }, What::Numbers);
        }
        self.clients[c].numbers.front().map(|number| Ino(*number))
    }

    /// Completes a change here, in the tree and the log, and at the same moment in the reference.
    pub(super) fn complete(&mut self, c: usize, mutation: &Mutation<'static>) -> Result<(), Denied> {
        let caller = self.clients[c].caller();
        let at = self.change_time(c);
        let number = if matches!(mutation, Mutation::Make { .. }) { self.number(c) } else { None };
        let client = &mut self.clients[c];
        let ticket = Ticket(client.log.last().0 + 1);
        let change = Change { at, caller, ticket };
        let mut done = Done::default();
        let tree = &mut client.tree;
        let record = match *mutation {
            Mutation::Make { parent, name, mode, umask, rdev, target, flags, .. } => {
                let ino = number.unwrap_or(Ino(0));
                let new = New { ino, mode, umask, rdev, target, exclusive: flags.exclusive };
                let made = tree.make(&change, parent, name, &new)?;
                done = Done { attr: Some(made.attr), existed: made.existed, ..done };
                if !made.existed && self.plant != Some(Plant::NumberTwice) {
                    client.numbers.pop_front();
                }
                let flags = MakeFlags { hold: false, exclusive: true };
                let record =
                    Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino: Some(ino) };
                (!made.existed).then_some(record)
            }
            Mutation::Link { ino, parent, name } => {
                done.attr = Some(tree.link(&change, ino, parent, name)?);
                Some(*mutation)
            }
            Mutation::Unlink { parent, name, .. } => {
                let removed = tree.unlink(&change, parent, name)?;
                done.orphan = removed.orphan.then_some(removed.ino);
                Some(Mutation::Unlink { parent, name, ino: Some(removed.ino), hold: removed.orphan })
            }
            Mutation::Rmdir { parent, name, .. } => {
                let removed = tree.rmdir(&change, parent, name)?;
                done.orphan = removed.orphan.then_some(removed.ino);
                Some(Mutation::Rmdir { parent, name, ino: Some(removed.ino), hold: removed.orphan })
            }
            Mutation::Rename { parent, name, new_parent, new_name, flags, .. } => {
                let renamed = tree.rename(&change, (parent, name), (new_parent, new_name), flags)?;
                done.orphan = renamed.orphan;
                let (ino, hold) = (Some(renamed.ino), renamed.orphan.is_some());
                let replaced = renamed.replaced.map_or(Expect::Absent, Expect::Is);
                let record =
                    Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, hold };
                (!renamed.nothing).then_some(record)
            }
            Mutation::SetAttr { ino, set } => {
                done.attr = Some(tree.set_attr(&change, ino, &set)?);
                (set != SetAttr::default()).then_some(*mutation)
            }
            Mutation::Write { ino, offset, flags, data } => {
                let len = data.len() as u64;
                let written = tree.write(&change, ino, offset, len, flags.append, flags.kill_suidgid)?;
                (done.bytes, done.offset) = (written.bytes, written.offset);
                let flags = WriteFlags { append: false, ..flags };
                Some(Mutation::Write { ino, offset: written.offset, flags, data })
            }
            _ => return Err(Denied::Ask),
        };
        self.completed(c, change, mutation, record, done);
        Ok(())
    }

    pub(super) fn completed(
        &mut self,
        c: usize,
        change: Change,
        mutation: &Mutation<'static>,
        record: Option<Mutation<'static>>,
        done: Done,
    ) {
        self.counts.local += 1;
        let session = self.clients[c].session;
        self.note(format!("client {c} completes ticket {}: {mutation:?}", change.ticket.0));
        assert!(
            self.torn || !self.ended.contains(&session),
            "session {session:x} has ended at the server, and its client completes {mutation:?}"
        );
        let Some(record) = record else {
            let want = self.model.would(change.at, change.caller, mutation);
            let same =
                want.as_ref().is_ok_and(|want| want.existed == done.existed && told(want.attr, done.attr));
            assert!(self.torn || same, "client {c} says {done:?}, a single host {want:?}: {mutation:?}");
            return;
        };
        let client = &mut self.clients[c];
        client.kernel_forgets(mutation);
        let drawn = client.log.accept(duration(self.now), change.caller, change.at, &record, None).unwrap();
        assert_eq!(drawn, change.ticket);
        if let Mutation::Make { ino: Some(ino), .. } = record {
            client.made.insert(ino);
        }
        if let Some(ino) = done.orphan {
            client.orphans.push(ino);
            if let Some(open) = client.open.get_mut(&ino) {
                *open = Open::Held;
            }
        }
        let ticket = change.ticket.0;
        let (at, caller) = (change.at, change.caller);
        let act = Act { session, ticket, at, caller, mutation: record, result: Ok(done) };
        let want = self.model.act(act);
        let same = want.as_ref().is_ok_and(|want| {
            told(want.attr, done.attr)
                && want.orphan == done.orphan
                && (want.bytes, want.offset) == (done.bytes, done.offset)
        });
        assert!(self.torn || same, "client {c} says {done:?}, a single host {want:?}: {record:?}");
        self.counts.compared += 1;
        self.pump_later(c);
    }

    pub(super) fn wait_for(&mut self, c: usize, mutation: &Mutation<'static>) {
        self.counts.waited += 1;
        let caller = self.clients[c].caller();
        let client = &mut self.clients[c];
        client.kernel_forgets(mutation);
        let ticket = client.log.accept_waited(duration(self.now), caller, mutation, None).unwrap();
        self.waited.insert((self.clients[c].session, ticket.0), (caller, *mutation));
        let waiter = self.touched(c, mutation);
        let client = &mut self.clients[c];
        client.waiters.insert(ticket, waiter);
        client.busy += 1;
        let before = Ticket(ticket.0 - 1);
        self.note(format!("client {c} waits with ticket {}: {mutation:?}", ticket.0));
        if self.clients[c].log.applied_through() >= before || self.planted(Plant::Overtaken) {
            return self.send_waited(c, ticket);
        }
        let reached = self.clients[c].todo(Todo::SendWaited(ticket));
        let due = self.clients[c].log.after_applied(before, reached);
        self.run_due(c, due);
        self.pump(c);
    }

    /// Whether a waited mutation on its way may change what this one changes.
    pub(super) fn is_in_flight(&mut self, c: usize, mutation: &Mutation<'static>) -> bool {
        let client = &mut self.clients[c];
        if client.waiters.is_empty() {
            return false;
        }
        let (names, mut inos) = said(mutation);
        for (parent, text) in names {
            inos.push(parent);
            if let Known::Yes(attr) = client.tree.lookup(parent, name(text)) {
                inos.push(attr.ino);
            }
        }
        client.waiters.values().any(|waiter| {
            let has =
                |ino: &Ino| waiter.inos.contains(ino) || waiter.names.iter().any(|(parent, _)| parent == ino);
            waiter.unknown || inos.iter().any(has)
        })
    }

    pub(super) fn touched(&mut self, c: usize, mutation: &Mutation<'static>) -> Waiter {
        let (names, mut inos) = said(mutation);
        let tree = &mut self.clients[c].tree;
        let mut unknown = false;
        for (parent, text) in &names {
            match tree.lookup(*parent, name(text)) {
                Known::Yes(attr) => inos.push(attr.ino),
                Known::No(_) => {}
                Known::Unknown => {
                    unknown = !matches!(mutation, Mutation::Make { .. } | Mutation::Link { .. })
                }
            }
        }
        if self.plant != Some(Plant::NothingForgotten) {
            for (parent, text) in &names {
                tree.forget_name(*parent, name(text));
            }
            inos.iter().for_each(|ino| tree.forget_attr(*ino));
        }
        Waiter { names, inos, unknown, stamp: tree.stamp() }
    }

    pub(super) fn send_waited(&mut self, c: usize, ticket: Ticket) {
        let now = duration(self.now);
        if let Some(batch) = self.clients[c].log.send_waited(ticket, now) {
            self.send_batch(c, batch);
        }
    }

    /// The outcome of a waited mutation is there.
    pub(super) fn outcome(&mut self, c: usize, ticket: Ticket, result: Result<Done, Errno>) {
        let session = self.clients[c].session;
        self.unheard.remove(&(session, ticket.0));
        let Some(waiter) = self.clients[c].waiters.remove(&ticket) else { return };
        let client = &mut self.clients[c];
        client.busy -= 1;
        // The kernel knows what its own calls change.
        client.kernel.attrs.clear();
        client.kernel.names.clear();
        let done = result.ok();
        if let Some(ino) = done.and_then(|done| done.orphan) {
            client.orphans.push(ino);
            if let Some(open) = client.open.get_mut(&ino) {
                *open = Open::Held;
            }
        }
        let tree = &mut client.tree;
        let learned = done.and_then(|done| done.attr);
        if let Some(attr) = learned {
            tree.learn_attr(waiter.stamp, &attr);
        }
        for (parent, text) in &waiter.names {
            tree.forget_name(*parent, name(text));
        }
        for ino in &waiter.inos {
            let known = learned.is_some_and(|attr| attr.ino == *ino && tree.attr(*ino) == Known::Yes(attr));
            if known {
                tree.is_newest(*ino);
            } else {
                tree.forget_attr(*ino);
            }
        }
        for ino in done.iter().flat_map(|done| done.named.into_iter().chain([done.orphan])).flatten() {
            tree.forget_attr(ino);
        }
        let mut wanted: Vec<Ino> = waiter.names.iter().map(|(parent, _)| *parent).collect();
        wanted.dedup();
        wanted.retain(|ino| tree.wants_attr(*ino));
        for ino in wanted {
            let stamp = self.clients[c].tree.stamp();
            let what = What::Ask { look: Look::Attr(ino), stamp, then: None, since: Ticket(0) };
            self.clients[c].busy += 1;
            self.ask_server(c, 0, &Query::GetAttr { ino }, what);
        }
    }
}

/// Whether what was told, if anything, is what is wanted. A hole that is smaller than a block may be told as one more.
fn told(want: Option<Attr>, done: Option<Attr>) -> bool {
    let same = |want: Attr, done: Attr| want == Attr { blocks: want.blocks, ..done };
    let near = |want: Attr, done: Attr| same(want, done) && want.blocks.abs_diff(done.blocks) <= 1;
    done.is_none_or(|done| want.is_some_and(|want| near(want, done)))
}
