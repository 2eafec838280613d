//! How a client comes to its connections: handshakes, what it says again, and what it loses with a session.

use super::client::{Open, Recalling, What};
use super::driver::duration;
use super::plant::Plant;
use super::world::{MARGIN, MS, Step, World};
use ringfs::base::{Ino, SessionId};
use ringfs::client::oplog::Batch;
use ringfs::wire::hello::Hello;
use ringfs::wire::{Frame, FrameKind, Origin, Peer, Query, answer, mutation, query, version};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

impl World {
    pub(super) fn disconnect(&mut self, c: usize) {
        let links = std::mem::take(&mut self.clients[c].links);
        for id in links.into_iter().flatten() {
            if let Some(link) = self.conns.get_mut(&id) {
                link.open = false;
            }
            let there = self.dice.roll(600 * MS);
            self.after(there, super::world::Event::Missed(id));
        }
        if !self.clients[c].connecting {
            self.clients[c].connecting = true;
            let delay = self.dice.roll(30 * MS);
            self.step(c, delay, Step::Connect);
        }
    }

    /// The client finds a connection broken.
    pub(super) fn broken(&mut self, conn: u64) {
        let Some(link) = self.conns.get_mut(&conn) else { return };
        let (c, life) = (link.client, link.life);
        if !std::mem::replace(&mut link.open, false) || self.clients[c].life != life {
            return;
        }
        if self.clients[c].links.contains(&Some(conn)) {
            self.note(format!("client {c} finds connection {conn} broken"));
            self.disconnect(c);
        }
    }

    pub(super) fn connect(&mut self, c: usize) {
        self.clients[c].connecting = false;
        if self.clients[c].connected() {
            return;
        }
        if let Err(why) = self.handshakes(c) {
            self.note(format!("client {c} cannot connect: {why}"));
            self.clients[c].links = [None, None];
            self.clients[c].connecting = true;
            let delay = self.dice.between(10 * MS, 200 * MS);
            self.step(c, delay, Step::Connect);
        }
    }

    pub(super) fn handshake(
        &mut self,
        c: usize,
        lane: usize,
        resumed: bool,
    ) -> Result<(u64, ringfs::wire::hello::Welcome), String> {
        let Some(server) = &self.server else { return Err("no server".into()) };
        let client = &self.clients[c];
        let hello = Hello {
            version_oldest: u32::from(version::OLDEST),
            version_newest: u32::from(version::NEWEST),
            session: client.session.to_le_bytes().to_vec(),
            resumed,
            host: "host".into(),
            mount_point: "/mnt".into(),
            nonce: vec![1; 32],
            leases: lane == 0,
            ..Hello::default()
        };
        let closed = Arc::new(AtomicBool::new(false));
        let (out, note) = (Arc::clone(&self.out), Arc::clone(&closed));
        let conn = self.next_conn;
        let notices = Arc::new(move |frame| out.lock().unwrap().push((conn, frame)));
        let close = Box::new(move || note.store(true, std::sync::atomic::Ordering::Relaxed));
        let (peer, welcome) = server.carried(&hello, notices, close).map_err(|refusal| refusal.reason)?;
        let id = self.new_conn(c, lane, closed);
        assert_eq!(id, conn);
        let link = self.conns.get_mut(&id).unwrap();
        link.peer = Some(peer);
        link.open = true;
        link.version = u16::try_from(welcome.version).unwrap();
        Ok((id, welcome))
    }

    pub(super) fn handshakes(&mut self, c: usize) -> Result<(), String> {
        let resumed = !self.clients[c].fresh;
        let fresh = self.clients[c].sequence;
        let (metadata, welcome) = self.handshake(c, 0, resumed)?;
        self.after_server();
        let restarted = self.clients[c].epoch != welcome.epoch;
        if resumed && !welcome.session_known {
            self.lost(c, restarted);
            return Err("the session is lost".into());
        }
        let (data, _) = self.handshake(c, 1, false)?;
        if resumed && !self.reassert(c, metadata) {
            self.lost(c, restarted);
            return Err("what it held is lost".into());
        }
        self.note(format!(
            "client {c} connects by {metadata} and {data}, resumed {resumed}, restarted {restarted}"
        ));
        self.clients[c].links = [Some(metadata), Some(data)];
        self.clients[c].fresh = false;
        self.clients[c].epoch = welcome.epoch;
        self.clients[c].usable = u64::from(welcome.lease_ms) * MS - MARGIN;
        self.clients[c].skew = i64::try_from(self.dice.roll(600)).unwrap() - 300;
        if restarted {
            self.clients[c].durable = 0;
            self.clients[c].commit = 0;
        }
        let now = duration(self.now);
        // A new session too: what was sent while there was none has gone nowhere.
        let batches = self.clients[c].log.replay(resumed && restarted, now);
        let lost = self.clients[c].log.lost_in_replay();
        self.answered(c, lost);
        if resumed && restarted && !self.planted(Plant::LeasesOutliveServer) {
            self.forget_leases(c);
        }
        // What no server has answered is new to one that restarted: it waits there until all others are back.
        let (known, new): (Vec<_>, Vec<_>) = {
            let early = self.planted(Plant::ReplayEarly);
            batches.into_iter().partition(|batch| batch.local || !batch.unanswered || early)
        };
        for batch in known {
            let anew = self.planted(Plant::ReplayAnew) && resumed && restarted;
            let batch = if anew { self.renumbered(c, batch) } else { batch };
            self.send_on(c, 0, batch);
        }
        if resumed {
            let last = Query::Reassert { holds: Vec::new(), locks: Vec::new(), last: true };
            self.ask_server(c, 0, &last, What::Asserted);
        }
        new.into_iter().for_each(|batch| self.send_on(c, 0, batch));
        self.clients[c].answered_since = self.now;
        // What was in flight is asked again, in its order.
        let calls: Vec<(u64, usize, Vec<u8>)> = self.clients[c]
            .calls
            .iter()
            .filter(|(sequence, _)| **sequence < fresh)
            .filter(|(_, call)| !matches!(call.what, What::Ping | What::Asserted))
            .map(|(sequence, call)| (*sequence, call.lane, call.body.clone()))
            .collect();
        let now = self.now;
        self.clients[c].calls.retain(|sequence, call| {
            !matches!(call.what, What::Ping) && (*sequence >= fresh || !matches!(call.what, What::Asserted))
        });
        for (sequence, lane, body) in calls {
            if let Some(call) = self.clients[c].calls.get_mut(&sequence) {
                call.asked = now;
            }
            self.transmit(c, lane, (FrameKind::Call, sequence, 0), body, bytes::Bytes::new());
        }
        self.pump(c);
        Ok(())
    }

    /// Tells the server what is open. False: some of it is gone.
    pub(super) fn reassert(&mut self, c: usize, conn: u64) -> bool {
        let client = &mut self.clients[c];
        let open = client.open.iter().filter(|(_, state)| **state != Open::Asked).map(|(ino, _)| *ino);
        let mut holds: Vec<Ino> = open.chain(client.orphans.iter().copied()).collect();
        // What the server has not got yet comes with what is sent again.
        holds.retain(|ino| client.tree.last_ticket(*ino).is_none());
        let (session, sequence) = (client.session, client.sequence);
        client.sequence += 1;
        let mut body = Vec::new();
        query::encode(&mut body, &Query::Reassert { holds, locks: Vec::new(), last: false });
        let said: Arc<Mutex<Option<Frame>>> = Arc::default();
        let answer = Arc::clone(&said);
        let link = &self.conns[&conn];
        let frame = Frame::new(
            FrameKind::Call,
            link.version,
            SessionId(session),
            sequence,
            body,
            bytes::Bytes::new(),
        );
        link.peer
            .as_ref()
            .unwrap()
            .submit(frame, Box::new(move |frame| *answer.lock().unwrap() = Some(frame)));
        self.after_server();
        let said = said.lock().unwrap().take();
        said.is_some_and(|frame| {
            answer::decode(&frame.body, &frame.payload).is_ok_and(|(answer, _)| answer.is_ok())
        })
    }

    pub(super) fn forget_leases(&mut self, c: usize) {
        let client = &mut self.clients[c];
        let _stale = client.tree.drop_leases();
        client.kernel.attrs.clear();
        client.kernel.names.clear();
        client.recalls.clear();
        client.recalling = Recalling::Nothing;
        for open in client.open.values_mut() {
            if *open == Open::Leased {
                *open = Open::Held;
            }
        }
    }

    /// The session is gone, and what was not applied with it.
    pub(super) fn lost(&mut self, c: usize, restarted: bool) {
        self.counts.lost += 1;
        self.note(format!("client {c} has lost session {:x}", self.clients[c].session));
        let client = &mut self.clients[c];
        let answered = client.log.fence(restarted);
        client.numbers.clear();
        client.numbers_asked = false;
        client.waiters.clear();
        let syncs = client.calls.values().filter(|call| matches!(call.what, What::Sync { .. })).count();
        (0..syncs).for_each(|_| client.log.sync_answered());
        client.calls.clear();
        client.busy = 0;
        client.open.clear();
        client.orphans.clear();
        self.answered(c, answered);
        self.forget_leases(c);
        self.clients[c].busy = 0;
        self.clients[c].todos.clear();
        self.clients[c].calls.clear();
        self.new_session(c);
    }

    /// The planted fault: the same mutations under new tickets.
    pub(super) fn renumbered(&mut self, c: usize, batch: Batch) -> Batch {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        for one in mutation::decode_batch(&batch.body, &batch.payload) {
            let (origin, mutation) = one.unwrap();
            let origin = Origin { ticket: ringfs::wire::Ticket(origin.ticket.0 + 1000 + c as u64), ..origin };
            mutation::encode(&mut body, &mut payload, origin, &mutation.unwrap());
        }
        Batch { body: body.into(), payload: payload.into(), ..batch }
    }
}
