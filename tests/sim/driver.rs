//! What a mount does with a call of a program: answers and completes under leases, else asks the server behind everything that
//! was completed before.

use super::client::{Recalling, Todo, What};
use super::names::looks;
use super::ops::Op;
use super::plant::Plant;
use super::world::{LEASE, MS, Step, World};
use ringfs::base::Ino;
use ringfs::client::oplog::{Action, Answered, Batch, Due};
use ringfs::wire::{Expect, Mutation, Query};
use std::time::Duration;

pub(super) const fn duration(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl World {
    pub(super) fn client_step(&mut self, c: usize, step: Step) {
        match step {
            Step::Op => {
                if self.ops_left > 0 {
                    let pause = 1 + self.dice.roll(2 * self.profile.pause);
                    self.step(c, pause, Step::Op);
                    let turn = self.active.is_none_or(|active| active == c);
                    if turn && self.clients[c].busy < 4 {
                        self.ops_left -= 1;
                        let op = self.draw(c);
                        self.begin_call(c, op);
                    }
                }
            }
            Step::Do(op) => self.call(c, op),
            Step::Pump => {
                self.clients[c].pumping = None;
                self.pump(c);
            }
            Step::Ping => {
                self.step(c, LEASE / 4, Step::Ping);
                if self.clients[c].connected() {
                    for lane in 0..2 {
                        self.ask_server(c, lane, &Query::Ping, What::Ping);
                    }
                    let silent = self.clients[c].answered_since + 2 * LEASE < self.now;
                    if silent {
                        self.disconnect(c);
                    }
                }
            }
            Step::Connect => self.connect(c),
            Step::Invalidated => self.invalidated(c),
        }
    }

    /// Whether leases may be used.
    pub(super) fn valid(&self, c: usize) -> bool {
        let client = &self.clients[c];
        if self.planted(Plant::Expired) {
            return true;
        }
        client.answered_since + client.usable > self.now
    }

    /// As a rule the kernel looks up what a call names before it passes it on.
    pub(super) fn begin_call(&mut self, c: usize, op: Op) {
        let looks = match op {
            Op::Mutate(mutation) => looks(&mutation),
            _ => Vec::new(),
        };
        if looks.is_empty() || self.dice.one_in(6) {
            return self.call(c, op);
        }
        looks.into_iter().for_each(|look| self.look(c, look));
        let later = self.dice.roll(8 * self.profile.delay);
        self.step(c, later, Step::Do(op));
    }

    pub(super) fn call(&mut self, c: usize, op: Op) {
        match op {
            Op::Look(look) => self.look(c, look),
            Op::Mutate(mutation) => self.mutate(c, &mutation),
            Op::Fsync => {
                let last = self.clients[c].log.last();
                if last.0 == 0 {
                    return;
                }
                let client = &mut self.clients[c];
                let unanswered = client.waiters.keys().copied().collect();
                client.fsyncs.insert(client.next_todo, unanswered);
                let reached = client.todo(Todo::Fsynced(last));
                client.busy += 1;
                let due = if self.planted(Plant::DurableEarly) {
                    self.clients[c].log.after_applied(last, reached)
                } else {
                    self.clients[c].log.after_durable(last, reached)
                };
                self.run_due(c, due);
                self.pump(c);
            }
            Op::Open(ino) => self.open(c, ino),
            Op::Close(ino) => self.close(c, ino),
            Op::Forget => {
                let kept: Vec<Ino> = std::mem::take(&mut self.clients[c].orphans);
                let client = &mut self.clients[c];
                let (drop, keep): (Vec<Ino>, Vec<Ino>) = kept.into_iter().partition(|ino| {
                    client.tree.last_ticket(*ino).is_none() && !client.open.contains_key(ino)
                });
                client.orphans = keep;
                drop.iter().for_each(|ino| client.tree.forgotten(*ino));
                if !drop.is_empty() {
                    self.ask_server(c, 0, &Query::Drop { inos: drop }, What::Other);
                }
            }
        }
    }

    // The log.

    pub(super) fn pump_later(&mut self, c: usize) {
        let delay = self.dice.pick(&[100, MS, 5 * MS]);
        self.look_at(c, self.now + delay);
    }

    pub(super) fn look_at(&mut self, c: usize, when: u64) {
        let when = when.max(self.now + 1);
        if self.clients[c].pumping.is_none_or(|at| when < at) {
            self.clients[c].pumping = Some(when);
            let delay = when - self.now;
            self.step(c, delay, Step::Pump);
        }
    }

    pub(super) fn pump(&mut self, c: usize) {
        loop {
            let now = duration(self.now);
            match self.clients[c].log.next(now) {
                Action::Send(batch) => self.send_batch(c, batch),
                Action::Sync => {
                    let commit = self.clients[c].commit;
                    let sync = Query::Sync { ino: None, data_only: false };
                    self.ask_server(c, 0, &sync, What::Sync { commit });
                }
                Action::Wait(until) => {
                    if let Some(until) = until {
                        let until = u64::try_from(until.as_micros()).unwrap();
                        self.look_at(c, until);
                    }
                    break;
                }
            }
        }
        self.reached(c);
    }

    pub(super) fn send_batch(&mut self, c: usize, batch: Batch) {
        if self.planted(Plant::Swapped) && batch.local {
            // Kept back until the next one has left.
            let before = self.clients[c].held_batch.take();
            match before {
                None if self.dice.one_in(3) => {
                    self.clients[c].held_batch = Some(batch);
                    return;
                }
                before => {
                    self.send_frame(c, batch);
                    before.into_iter().for_each(|batch| self.send_frame(c, batch));
                    return;
                }
            }
        }
        self.send_frame(c, batch);
    }

    pub(super) fn run_due(&mut self, c: usize, due: Due) {
        due.run();
        self.reached(c);
    }

    /// What the log has let go on.
    pub(super) fn reached(&mut self, c: usize) {
        loop {
            let all = std::mem::take(&mut *self.clients[c].reached.lock().unwrap());
            if all.is_empty() {
                return;
            }
            for (id, good) in all {
                let Some(todo) = self.clients[c].todos.remove(&id) else { continue };
                match todo {
                    Todo::Ask(look, list, since) => self.ask(c, look, list, since),
                    Todo::SendWaited(ticket) => self.send_waited(c, ticket),
                    Todo::FinishRecall => self.finish_recall(c),
                    Todo::Fsynced(last) => {
                        let client = &mut self.clients[c];
                        client.busy = client.busy.saturating_sub(1);
                        let unanswered = client.fsyncs.remove(&id).unwrap_or_default();
                        self.note(format!("client {c}: fsync up to ticket {} is {good}", last.0));
                        if good {
                            let session = self.clients[c].session;
                            self.promised(session, last, &unanswered);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn answered(&mut self, c: usize, mut answered: Answered) {
        let failed = std::mem::take(&mut answered.failed);
        let client = &mut self.clients[c];
        let applied = client.log.applied_through();
        client.tree.applied(applied);
        for failed in failed.iter().filter(|failed| failed.late) {
            let Some((_, mutation)) = failed.mutation() else { continue };
            let (mut names, mut inos, mut made) = (Vec::new(), Vec::new(), None);
            match mutation {
                Mutation::Make { parent, name, ino, .. } => {
                    names.push((parent, name));
                    made = ino.filter(|_| !failed.unknown);
                }
                Mutation::Link { ino, parent, name } => {
                    names.push((parent, name));
                    inos.push(ino);
                }
                Mutation::Unlink { parent, name, ino, .. } | Mutation::Rmdir { parent, name, ino, .. } => {
                    names.push((parent, name));
                    inos.extend(ino);
                }
                Mutation::Rename { parent, name, new_parent, new_name, ino, replaced, .. } => {
                    names.extend([(parent, name), (new_parent, new_name)]);
                    inos.extend(ino);
                    if let Expect::Is(ino) = replaced {
                        inos.push(ino);
                    }
                }
                Mutation::SetAttr { ino, .. } | Mutation::Write { ino, .. } => inos.push(ino),
                _ => {}
            }
            let _stale = client.tree.roll_back(&names, &inos, made);
            client.kernel.attrs.clear();
            client.kernel.names.clear();
        }
        let waiting = self.recalling(c);
        self.run_due(c, answered.due);
        if waiting {
            self.pump(c);
        } else {
            self.pump_later(c);
        }
    }

    pub(super) fn recalling(&self, c: usize) -> bool {
        matches!(self.clients[c].recalling, Recalling::Stopped(_))
    }
}
