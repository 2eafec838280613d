//! What happens to the server, to connections and to clients that should not.

use super::client::Client;
use super::world::{Event, LEASE, MS, World, time_of};
use ringfs::base::SessionId;
use ringfs::server::apply::{Volume, VolumeOptions};
use ringfs::server::meta::sessions;
use ringfs::server::serve::{ServeOptions, Server};
use ringfs::server::store::Store;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl World {
    /// Starts the server's process.
    pub(super) fn start(&mut self) {
        let clock = Arc::clone(&self.clock);
        let mut options = VolumeOptions::new(Arc::new(move || time_of(clock.load(Ordering::Relaxed))));
        options.collect_every = None;
        options.threads = false;
        let clock = Arc::clone(&self.clock);
        let serve = ServeOptions {
            lease: Duration::from_micros(LEASE),
            grace: Duration::from_micros(LEASE),
            leases: ringfs::server::session::LeaseLimits {
                leases_max: 1000,
                recall_timeout: Duration::from_micros(LEASE),
            },
            clock: Arc::new(move || Duration::from_micros(clock.load(Ordering::Relaxed))),
            ..ServeOptions::default()
        };
        let store = Store::over(Box::new(self.disk.clone()), Box::new(self.disk.clone())).unwrap();
        let volume = Volume::open(store, options).unwrap();
        self.server = Some(Server::open(volume, serve).unwrap());
        self.note("server starts".into());
        self.after_server();
    }

    /// Ends the server's process without a word.
    pub(super) fn kill(&mut self, power: bool) {
        self.note(format!("server killed, power {}", if power { "lost" } else { "stays" }));
        for conn in self.conns.values_mut() {
            conn.peer = None;
        }
        self.out.lock().unwrap().clear();
        self.server = None;
        self.asked.clear();
        let ids: Vec<u64> = self.conns.iter().filter(|(_, conn)| conn.open).map(|(id, _)| *id).collect();
        for id in ids {
            let delay = self.dice.roll(50 * MS);
            self.after(delay, Event::Broken(id));
        }
        if power {
            self.disk.lose();
            let safe = self.disk.durable();
            let lost = self.executed.iter().filter(|(_, commit)| **commit > safe).map(|(key, _)| *key);
            self.powerless.extend(lost);
            self.executed.retain(|_, commit| *commit <= safe);
            self.nobody_hears();
            self.counts.power += 1;
            self.widows();
            self.note(format!("{} mutations are lost with the power", self.powerless.len()));
        }
        self.counts.kills += 1;
        let delay = self.dice.roll(600 * MS);
        self.after(delay, Event::Restart);
    }

    /// Something happens that should not.
    pub(super) fn fault(&mut self) {
        let client = usize::try_from(self.dice.roll(self.profile.clients as u64)).unwrap();
        match self.dice.roll(8) {
            0..3 if self.profile.cuts => self.cut(client),
            3 if self.profile.pauses && self.clients[client].alive => {
                let pause = self.dice.pick(&[LEASE / 3, LEASE / 2, LEASE * 3 / 2]);
                self.clients[client].paused_until = self.now + pause;
                self.note(format!("client {client} stands still for {} ms", pause / MS));
            }
            4 if self.profile.crashes && self.clients[client].alive => self.crash(client),
            5 if self.profile.kills && self.server.is_some() => self.kill(false),
            6 if self.profile.power && self.server.is_some() => self.kill(true),
            _ => {}
        }
    }

    /// The connections of a client break; each end finds out in its own time, and what is on its way may arrive.
    pub(super) fn cut(&mut self, client: usize) {
        self.counts.cuts += 1;
        let ids: Vec<u64> = self.clients[client].links.iter().flatten().copied().collect();
        self.note(format!("connections {ids:?} of client {client} are cut"));
        for id in ids {
            let (here, there) = (self.dice.roll(300 * MS), self.dice.roll(600 * MS));
            self.lose_on_the_way(id);
            self.after(here, Event::Broken(id));
            self.after(there, Event::Missed(id));
        }
    }

    /// What is behind some point on a connection that was cut never arrives.
    pub(super) fn lose_on_the_way(&mut self, conn: u64) {
        let (up, down) = (self.now + self.dice.roll(5 * MS), self.now + self.dice.roll(5 * MS));
        self.events.retain(|(when, _), event| match event {
            Event::Up(id, _) => *id != conn || *when < up,
            Event::Down(id, _) => *id != conn || *when < down,
            _ => true,
        });
        if let Some(link) = self.conns.get_mut(&conn) {
            // What is sent from here on goes nowhere.
            (link.up_last, link.down_last) = (u64::MAX / 2, u64::MAX / 2);
        }
    }

    pub(super) fn crash(&mut self, client: usize) {
        self.counts.crashes += 1;
        self.note(format!("client {client} crashes"));
        if self.dice.one_in(2) {
            self.cut(client);
        } else {
            for id in self.clients[client].links.into_iter().flatten() {
                let there = self.dice.roll(600 * MS);
                self.after(there, Event::Missed(id));
                self.conns.get_mut(&id).unwrap().open = false;
            }
        }
        let life = self.clients[client].life + 1;
        self.clients[client] = Client::new(client, life, self.hash, self.profile.inodes_max);
        self.clients[client].alive = false;
        self.widows();
        let delay = self.dice.between(10 * MS, LEASE);
        self.after(delay, Event::Revive(client));
    }

    /// Sessions that have ended at the server: nothing of them is executed any more, and nobody may have seen what was not.
    pub(super) fn sessions(&mut self) {
        let mut found = BTreeSet::new();
        let read = sessions::each(&self.disk, &mut |SessionId(id), _| {
            found.insert(id);
            ControlFlow::Continue(())
        });
        read.unwrap();
        let gone: Vec<u128> = self.live.difference(&found).copied().collect();
        self.live = found;
        for id in gone {
            self.ended.insert(id);
            self.widows();
            let executed = &self.executed;
            let lost = self.model.take_out(id, |act| !executed.contains_key(&(act.session, act.ticket)));
            let torn = self.torn || self.widowed;
            match lost {
                Ok(count) => {
                    self.counts.taken_out += count as u64;
                    self.note(format!("session {id:x} has ended at the server, {count} entries taken out"));
                }
                Err(_) if torn => self.tear("a session has ended, and took along what others saw"),
                Err(wrong) => panic!("session {id:x} ended: {wrong}"),
            }
        }
    }

    /// With the power goes what was on its way to clients. A waited mutation that is lost, and whose client has not heard of it, is
    /// as if it never had been; unless others have seen it.
    fn nobody_hears(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Down(..)));
        let unheard: Vec<_> =
            self.unheard.keys().filter(|key| !self.executed.contains_key(key)).copied().collect();
        for key in unheard {
            if self.torn {
                return;
            }
            self.unheard.remove(&key);
            self.acted.remove(&key);
            if let Err(wrong) = self.model.take_back(key.0, key.1) {
                self.tear(&wrong);
            }
        }
    }

    /// Looks whether something that was lost with the power has nobody who does it again.
    fn widows(&mut self) {
        let (executed, ended, clients) = (&self.executed, &self.ended, &self.clients);
        let lost = self.powerless.iter().filter(|key| !executed.contains_key(key));
        let has = |(id, _): &(u128, u64)| {
            !ended.contains(id) && clients.iter().any(|client| client.alive && client.session == *id)
        };
        self.widowed |= lost.into_iter().any(|key| !has(key));
    }

    /// The power was lost, and with it something that others depend on.
    pub(super) fn tear(&mut self, why: &str) {
        self.note(why.to_owned());
        self.torn = true;
        self.ops_left = 0;
        self.counts.torn += 1;
    }
}
