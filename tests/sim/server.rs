//! The server's end: frames are worked on by the real server, and each answer is compared with the reference at the moment at
//! which it was made.

use super::client::{Open, What};
use super::model::{Act, Look, Seen};
use super::ops::NAMES;
use super::world::{Event, MS, World};
use ringfs::base::{Errno, Ino};
use ringfs::server::meta::Engine;
use ringfs::wire::{
    Answer, Done, Frame, FrameKind, Mutation, Outcome, Peer, Query, Ticket, Told, answer, mutation, outcome,
    query,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a frame asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Look(Look, bool),
    Batch,
}

impl World {
    pub(super) fn arrives_at_server(&mut self, conn: u64, frame: Frame) {
        let (Some(link), true) = (self.conns.get(&conn), self.server.is_some()) else { return };
        let Some(peer) = &link.peer else { return };
        let sequence = frame.header.sequence;
        if let Some(asked) = asked(&frame) {
            self.asked.insert((conn, sequence), asked);
        }
        let out = Arc::clone(&self.out);
        peer.submit(frame, Box::new(move |frame| out.lock().unwrap().push((conn, frame))));
        self.after_server();
    }

    /// The server has done something: what it says goes out, connections that it closed are closed.
    pub(super) fn after_server(&mut self) {
        loop {
            let said = std::mem::take(&mut *self.out.lock().unwrap());
            if said.is_empty() {
                break;
            }
            said.iter().for_each(|(_, frame)| self.ran(frame));
            // What is lost with a session is lost before others get what it had.
            self.sessions();
            for (conn, frame) in said {
                self.takes_effect(conn, &frame);
                self.carry(conn, false, frame);
            }
        }
        self.sessions();
        let closed: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, link)| link.peer.is_some() && link.closed.load(Ordering::Relaxed))
            .map(|(id, _)| *id)
            .collect();
        for id in closed {
            let there = self.dice.roll(2 * MS);
            let here = there + self.dice.roll(100 * MS);
            self.after(there, Event::Missed(id));
            self.after(here, Event::Broken(id));
            self.conns.get(&id).unwrap().closed.store(false, Ordering::Relaxed);
        }
    }

    /// Notes what a frame says of local mutations.
    fn ran(&mut self, frame: &Frame) {
        if frame.header.kind != FrameKind::Outcomes {
            return;
        }
        let all = outcome::decode(&frame.body).unwrap();
        let commit = all.commit();
        let session = frame.header.session.0;
        if commit > 0
            && let Some((first, last)) = self.spans.get(&(session, frame.header.sequence))
        {
            for ticket in *first..=*last {
                self.executed.entry((session, ticket)).or_insert(commit);
            }
        }
    }

    fn takes_effect(&mut self, conn: u64, frame: &Frame) {
        let session = frame.header.session.0;
        let Some(asked) = self.asked.remove(&(conn, frame.header.sequence)) else { return };
        match (frame.header.kind, asked) {
            (FrameKind::Outcomes, Asked::Batch) => {
                let all = outcome::decode(&frame.body).unwrap();
                let commit = all.commit();
                if commit == 0 {
                    // Refused, not executed.
                    return;
                }
                for told in all {
                    match told.unwrap() {
                        Told::Ran { .. } => {}
                        Told::One(outcome) => self.one(session, commit, &outcome),
                    }
                }
            }
            (FrameKind::Answer, Asked::Look(look, whole)) => {
                let (answer, _) = answer::decode(&frame.body, &frame.payload).unwrap();
                // Of a connection that its own client has replaced nothing is worked on.
                let link = &self.conns[&conn];
                let old = link.peer.is_none() || self.clients[link.client].links[link.lane] != Some(conn);
                if !(old && matches!(answer, Err(Errno::ESTALE))) {
                    self.is_behind(session, link.client, frame.header.sequence, look);
                    self.told(session, look, whole, &answer);
                }
            }
            _ => {}
        }
    }

    fn one(&mut self, session: u128, commit: u64, outcome: &Outcome) {
        let key = (session, outcome.ticket.0);
        let Some((caller, mutation)) = self.waited.get(&key).copied() else {
            if self.widowed {
                self.tear("a mutation that others depend on is lost with the power and with its client");
            }
            if !self.torn && self.live.contains(&session) {
                let act = self.model.acts().find(|act| (act.session, act.ticket) == key).cloned();
                panic!("a local mutation fails late: {key:x?}: {:?}: {act:?}", outcome.result);
            }
            return;
        };
        // Answered from the record it names a later commit.
        if self.executed.contains_key(&key) {
            return;
        }
        self.executed.insert(key, commit);
        if !self.acted.insert(key) {
            // Lost with the power, and done anew in its old place, at another time.
            match self.model.again(session, key.1, self.time()) {
                Err(wrong) if self.widowed || self.torn => self.tear(&wrong),
                done => done.unwrap_or_else(|wrong| panic!("{wrong}")),
            }
            return;
        }
        let mutation = match (mutation, &outcome.result) {
            (Mutation::Make { parent, name, mode, umask, rdev, target, flags, .. }, Ok(done))
                if !done.existed =>
            {
                let ino = done.attr.map(|attr| attr.ino);
                Mutation::Make { parent, name, mode, umask, rdev, target, flags, ino }
            }
            (other, _) => other,
        };
        if matches!(outcome.result, Err(Errno::ESTALE | Errno::ENOENT))
            && named(&mutation).iter().any(|ino| self.model.attr(*ino).is_none_or(|attr| attr.nlink == 0))
        {
            return;
        }
        let mut touched: BTreeSet<Ino> = named(&mutation).into_iter().collect();
        if let Ok(done) = &outcome.result {
            touched.extend(done.named.iter().flatten());
            touched.extend(done.attr.map(|attr| attr.ino));
            self.unheard.insert(key, touched.into_iter().map(|ino| (ino, false)).collect());
        }
        if let Ok(Done { existed: true, attr: Some(attr), .. }) = &outcome.result {
            // What the same client changed meanwhile is not in it.
            let own = self.clients.iter().find(|client| client.session == session);
            if own.is_none_or(|own| own.tree.last_ticket(attr.ino).is_some()) {
                return;
            }
        }
        let at = self.time();
        let act = Act { session, ticket: key.1, at, caller, mutation, result: outcome.result };
        let want = self.model.act(act);
        self.note(format!(
            "ticket {} of session {session:x} is executed: {:?}",
            key.1,
            outcome.result.map(|_| ())
        ));
        self.counts.compared += 1;
        let same = match (&want, &outcome.result) {
            (Ok(want), Ok(found)) => alike(want, found),
            (want, found) => want == found,
        };
        if !same && self.widowed {
            self.tear("what others see is not what it was before the power was lost");
        }
        assert!(
            same || self.torn,
            "session {session:x}, ticket {}: the server says {:?}, a single host {want:?}: {mutation:?}",
            key.1,
            outcome.result
        );
    }

    /// A question is answered after all that its own client had completed before it was asked.
    fn is_behind(&self, session: u128, client: usize, sequence: u64, look: Look) {
        let call = self.clients[client].calls.get(&sequence);
        let Some(What::Ask { since, .. }) = call.map(|call| &call.what) else { return };
        if !self.live.contains(&session) || matches!(look, Look::Read(_)) {
            return;
        }
        let before = |act: &&Act| {
            let local = !self.waited.contains_key(&(session, act.ticket));
            local && act.session == session && act.ticket <= since.0
        };
        let missing =
            self.model.acts().filter(before).find(|act| !self.executed.contains_key(&(session, act.ticket)));
        assert!(missing.is_none(), "{look:?} of session {session:x} overtakes {missing:?}");
    }

    /// A question was answered by the server.
    fn told(&mut self, session: u128, look: Look, whole: bool, answer: &Result<Answer<'_>, Errno>) {
        if !self.live.contains(&session) || self.torn {
            return;
        }
        let seen = match answer {
            Ok(Answer::Attr(attr)) => Ok(Seen::Attr(*attr)),
            Ok(Answer::Data(data)) => Ok(Seen::Bytes(data.to_vec())),
            Ok(Answer::Entries { entries, end }) if whole && *end => {
                Ok(Seen::Names(entries.iter().map(|entry| (entry.name.to_vec(), entry.ino)).collect()))
            }
            Ok(_) => return,
            Err(Errno::EAGAIN) => return,
            Err(errno) => Err(*errno),
        };
        // What the same client has changed meanwhile is not in an answer that it asked for before.
        let inos = [Some(target(look)), if let Ok(Seen::Attr(attr)) = &seen { Some(attr.ino) } else { None }];
        for ((whose, _), touched) in &mut self.unheard {
            if *whose != session {
                touched
                    .iter_mut()
                    .filter(|(ino, _)| inos.contains(&Some(**ino)))
                    .for_each(|(_, told)| *told = true);
            }
        }
        let own = self.clients.iter().find(|client| client.session == session);
        let ahead = |client: &super::client::Client| {
            inos.iter().flatten().any(|ino| client.tree.last_ticket(*ino).is_some())
        };
        if own.is_none_or(ahead) {
            return;
        }
        self.compare(session, look, seen, "the server");
    }

    /// Whether the client may be ignorant of what it asked for itself: its mutation is executed, the outcome is on its way, and
    /// nobody else has been told.
    pub(super) fn ignorant(&self, session: u128, look: Look, seen: &Result<Seen, Errno>) -> bool {
        let found = if let Ok(Seen::Attr(attr)) = seen { Some(attr.ino) } else { None };
        let of = |touched: &BTreeMap<Ino, bool>, ino: Ino| touched.get(&ino) == Some(&false);
        self.unheard.iter().any(|((whose, _), touched)| {
            *whose == session && (of(touched, target(look)) || found.is_some_and(|ino| of(touched, ino)))
        })
    }

    /// Compares what somebody is told with the reference.
    pub(super) fn compare(&mut self, session: u128, look: Look, seen: Result<Seen, Errno>, who: &str) {
        self.counts.compared += 1;
        let want = self.model.look(look);
        if self.torn {
            return;
        }
        let open = |ino: &Ino| {
            let own = self.clients.iter().find(|client| client.session == session);
            own.is_some_and(|own| own.open.get(ino).is_some_and(|state| *state != Open::Asked))
        };
        let dead = |ino: Ino| !open(&ino) && self.model.attr(ino).is_none_or(|attr| attr.nlink == 0);
        if matches!(seen, Err(Errno::ESTALE | Errno::ENOENT)) && dead(target(look)) {
            return;
        }
        let seen = match (seen, &want) {
            // A hole that is smaller than a block may be told as one more.
            (Ok(Seen::Attr(attr)), Ok(Seen::Attr(want))) if attr.blocks.abs_diff(want.blocks) == 1 => {
                Ok(Seen::Attr(ringfs::base::Attr { blocks: want.blocks, ..attr }))
            }
            (seen, _) => seen,
        };
        if seen != want && self.widowed {
            return self.tear("what is seen is not what it was before the power was lost");
        }
        assert_eq!(seen, want, "session {session:x} is told by {who}: {look:?}");
        self.model.looked(session, look, seen);
    }

    /// All that the session made up to this ticket is on the disk: an fsync has said so.
    pub(super) fn promised(&mut self, session: u128, last: Ticket, unanswered: &BTreeSet<Ticket>) {
        self.counts.fsyncs += 1;
        if self.torn {
            return;
        }
        let safe = self.disk.durable();
        for act in self.model.acts().filter(|act| act.session == session && act.ticket <= last.0) {
            if act.result.is_err() || unanswered.contains(&Ticket(act.ticket)) {
                continue;
            }
            let commit = self.executed.get(&(session, act.ticket));
            assert!(
                commit.is_some_and(|commit| *commit <= safe),
                "session {session:x}: an fsync has returned, and ticket {} is in commit {commit:?} of {safe} \
                 (last {:?}): {act:?}",
                act.ticket,
                self.disk.last_commit()
            );
        }
    }
}

fn asked(frame: &Frame) -> Option<Asked> {
    match frame.header.kind {
        FrameKind::Batch => {
            // What cannot be read is the simulation's own fault.
            assert!(mutation::decode_batch(&frame.body, &frame.payload).all(|one| one.is_ok()));
            Some(Asked::Batch)
        }
        FrameKind::Call => {
            let look = match query::decode(&frame.body).unwrap() {
                Query::Lookup { parent, name } => {
                    Look::Name(parent, NAMES.iter().find(|text| text.as_bytes() == name.bytes())?)
                }
                Query::GetAttr { ino } => Look::Attr(ino),
                Query::ReadDir { ino, cookie, .. } => return Some(Asked::Look(Look::List(ino), cookie == 0)),
                Query::Read { ino, .. } => Look::Read(ino),
                _ => return None,
            };
            Some(Asked::Look(look, true))
        }
        _ => None,
    }
}

/// The inode that a question names.
pub(super) fn target(look: Look) -> Ino {
    match look {
        Look::Name(ino, _) | Look::Attr(ino) | Look::List(ino) | Look::Read(ino) => ino,
    }
}

/// Inodes that a mutation says.
fn named(mutation: &Mutation<'_>) -> Vec<Ino> {
    match *mutation {
        Mutation::Make { parent, .. } | Mutation::Unlink { parent, .. } | Mutation::Rmdir { parent, .. } => {
            vec![parent]
        }
        Mutation::Link { ino, parent, .. } => vec![ino, parent],
        Mutation::Rename { parent, new_parent, .. } => vec![parent, new_parent],
        Mutation::SetAttr { ino, .. } | Mutation::Write { ino, .. } | Mutation::SetXattr { ino, .. } => {
            vec![ino]
        }
        _ => Vec::new(),
    }
}

/// Whether two outcomes say the same: what nobody holds is gone at the server, and kept in the reference.
fn alike(want: &Done, found: &Done) -> bool {
    let plain = |done: &Done| Done { orphan: None, ..*done };
    plain(want) == plain(found)
}
