//! What a client's link does: connects, takes a session up again, matches answers; and gives leases back.

use super::client::{Call, Open, What};
use super::driver::duration;
use super::model::{Look, Seen};
use super::plant::Plant;
use super::world::World;
use ringfs::base::{Errno, SessionId};
use ringfs::client::oplog::{Batch, Due};
use ringfs::wire::{
    Answer, Done, Frame, FrameKind, Grant, Notice, Outcome, Query, Told, answer, notice, outcome, query,
};

impl World {
    pub(super) fn ask_server(&mut self, c: usize, lane: usize, asked: &Query<'_>, what: What) {
        let mut body = Vec::new();
        query::encode(&mut body, asked);
        let client = &mut self.clients[c];
        let sequence = client.sequence;
        client.sequence += 1;
        client.calls.insert(sequence, Call { lane, body: body.clone(), what, asked: self.now });
        self.transmit(c, lane, (FrameKind::Call, sequence, 0), body, bytes::Bytes::new());
    }

    pub(super) fn transmit(
        &mut self,
        c: usize,
        lane: usize,
        (kind, sequence, before): (FrameKind, u64, u64),
        body: impl Into<bytes::Bytes>,
        payload: bytes::Bytes,
    ) {
        let client = &self.clients[c];
        let Some(conn) = client.links[lane] else { return };
        let version = self.conns[&conn].version;
        let settled = client.log.settled_below().0;
        let body: bytes::Bytes = body.into();
        let frame = Frame::new(kind, version, SessionId(client.session), sequence, body.to_vec(), payload);
        self.carry(conn, true, frame.settled(settled).before(before));
    }

    pub(super) fn send_frame(&mut self, c: usize, batch: Batch) {
        let lane = usize::from(!batch.local && !batch.payload.is_empty());
        self.send_on(c, lane, batch);
    }

    /// What is sent again goes over the connection for metadata, whatever it is.
    pub(super) fn send_on(&mut self, c: usize, lane: usize, batch: Batch) {
        let client = &mut self.clients[c];
        let sequence = client.sequence;
        client.sequence += 1;
        if batch.local {
            self.spans.insert((client.session, sequence), (batch.first.0, batch.last.0));
        }
        self.note(format!("client {c} sends tickets {}..={} as {sequence}", batch.first.0, batch.last.0));
        let before = if self.planted(Plant::OrderNotSaid) { 0 } else { batch.before };
        self.transmit(c, lane, (FrameKind::Batch, sequence, before), batch.body, batch.payload);
    }

    // What comes in.

    pub(super) fn arrives_at_client(&mut self, conn: u64, frame: &Frame) {
        let Some(link) = self.conns.get(&conn) else { return };
        let (c, lane) = (link.client, link.lane);
        if !link.open || link.life != self.clients[c].life || self.clients[c].links[lane] != Some(conn) {
            return;
        }
        if lane == 0 {
            let durable = frame.header.durable();
            if durable > self.clients[c].durable {
                self.clients[c].durable = durable;
                let due = self.clients[c].log.durable(durable);
                self.run_due(c, due);
                self.pump_later(c);
            }
        }
        match frame.header.kind {
            FrameKind::Answer => {
                let (answer, grants) = answer::decode(&frame.body, &frame.payload).unwrap();
                let grants: Vec<Grant> = if lane == 0 { grants.iter().collect() } else { Vec::new() };
                if let Some(call) = self.clients[c].calls.remove(&frame.header.sequence) {
                    let client = &mut self.clients[c];
                    client.answered_since = client.answered_since.max(call.asked);
                    self.answer(c, &call, &answer, grants);
                }
            }
            FrameKind::Outcomes => self.outcomes(c, frame),
            FrameKind::Notice if lane == 0 => {
                let mut recalls = Vec::new();
                for one in notice::decode(&frame.body) {
                    if let Notice::Recall(recall) = one.unwrap() {
                        recalls.push(recall);
                    }
                }
                self.recalled(c, recalls);
            }
            _ => panic!("a frame of kind {:?}", frame.header.kind),
        }
    }

    pub(super) fn outcomes(&mut self, c: usize, frame: &Frame) {
        let all = outcome::decode(&frame.body).unwrap();
        let commit = all.commit();
        let (mut first, mut failures, mut waited) = (None, Vec::new(), None);
        for told in all {
            match told.unwrap() {
                Told::Ran { first: begin, .. } => first = first.or(Some(begin)),
                Told::One(one) => {
                    first = first.or(Some(one.ticket));
                    if let Err(errno) = one.result {
                        failures.push((one.ticket, errno));
                    }
                    waited = Some(one);
                }
            }
        }
        let Some(first) = first else { return };
        self.clients[c].commit = self.clients[c].commit.max(commit);
        let now = duration(self.now);
        let answered = self.clients[c].log.answered(now, first, commit, &mut failures.into_iter());
        if self.planted(Plant::ForgottenEarly) {
            let due = self.clients[c].log.durable(commit);
            self.run_due(c, due);
        }
        if let Some(Outcome { ticket, result: Ok(Done { attr: Some(attr), existed: false, .. }) }) = &waited
            && !self.planted(Plant::NumberForgotten)
        {
            self.clients[c].log.numbered(*ticket, attr.ino);
        }
        if let Some(one) = waited {
            self.outcome(c, one.ticket, one.result);
        }
        self.answered(c, answered);
    }

    pub(super) fn answer(
        &mut self,
        c: usize,
        call: &Call,
        answer: &Result<Answer<'_>, Errno>,
        grants: Vec<Grant>,
    ) {
        self.clients[c].tree.granted(grants);
        match (&call.what, answer) {
            (What::Ask { look, stamp, then, since }, answer) => {
                self.learn(c, *look, *stamp, answer);
                self.clients[c].busy = self.clients[c].busy.saturating_sub(1);
                if let Some(look) = then {
                    let known = self.valid(c).then(|| self.here(c, *look)).flatten();
                    match known {
                        Some(seen) => self.answered_here(c, *look, seen, "its tree, after a listing"),
                        None => {
                            self.clients[c].busy += 1;
                            self.ask(c, *look, false, *since);
                        }
                    }
                }
            }
            (What::Sync { commit }, answer) => {
                let before = self.planted(Plant::SyncOfBefore);
                let log = &mut self.clients[c].log;
                let due = match answer {
                    Ok(_) if before => log.durable(*commit),
                    // Its frame has told what is durable.
                    Ok(_) => Due::default(),
                    Err(errno) => log.sync_failed(*errno),
                };
                if answer.is_ok() {
                    log.sync_answered();
                }
                self.run_due(c, due);
                self.pump(c);
            }
            (What::Numbers, Ok(Answer::Numbers { first, count })) => {
                let client = &mut self.clients[c];
                client.numbers_asked = false;
                client.numbers.extend(first.0..first.0 + u64::from(*count));
            }
            (What::Numbers, _) => self.clients[c].numbers_asked = false,
            (What::Hold(ino), Ok(_)) => {
                if let Some(open) = self.clients[c].open.get_mut(ino) {
                    *open = Open::Held;
                }
            }
            (What::Hold(ino), Err(_)) => drop(self.clients[c].open.remove(ino)),
            (What::Ping | What::Asserted, Err(Errno::ESTALE)) => {
                self.note(format!("client {c} is told that its session has ended"));
                self.disconnect(c);
            }
            _ => {}
        }
    }

    pub(super) fn learn(
        &mut self,
        c: usize,
        look: Look,
        stamp: ringfs::client::tree::Stamp,
        answer: &Result<Answer<'_>, Errno>,
    ) {
        let stamp = if self.planted(Plant::OldAnswer) { self.clients[c].tree.stamp() } else { stamp };
        let tree = &mut self.clients[c].tree;
        match (look, answer) {
            (Look::Name(parent, text), Ok(Answer::Attr(attr))) => {
                tree.learn_name(stamp, parent, super::ops::name(text), attr);
                let known = tree.lookup(parent, super::ops::name(text));
                if known == ringfs::client::tree::Known::Yes(*attr) && self.valid(c) {
                    self.keep(c, look, &Ok(Seen::Attr(*attr)));
                }
            }
            (Look::Name(parent, text), Err(Errno::ENOENT)) => {
                tree.learn_absent(stamp, parent, super::ops::name(text));
            }
            (Look::Attr(ino), Ok(Answer::Attr(attr))) if attr.ino == ino => tree.learn_attr(stamp, attr),
            (Look::List(dir), Ok(Answer::Entries { entries, end })) => {
                tree.learn_listing(stamp, dir, 0, entries, *end);
            }
            _ => {}
        }
    }
}
