//! How a client gives leases back.

use super::client::{Open, Recalling, Todo, What};
use super::plant::Plant;
use super::world::{MS, Step, World};
use ringfs::wire::{Keep, Query, Recall};

impl World {
    pub(super) fn recalled(&mut self, c: usize, recalls: Vec<Recall>) {
        self.counts.recalls += recalls.len() as u64;
        self.note(format!("client {c} is recalled {recalls:?}"));
        self.clients[c].recalls.extend(recalls);
        self.begin_recall(c);
    }

    pub(super) fn begin_recall(&mut self, c: usize) {
        let client = &mut self.clients[c];
        if client.recalling != Recalling::Nothing || client.recalls.is_empty() {
            return;
        }
        let mut inos = Vec::new();
        for recall in std::mem::take(&mut client.recalls) {
            client.tree.recall_begin(&recall);
            inos.push(recall.ino);
        }
        inos.sort_unstable();
        inos.dedup();
        client.recalling = Recalling::Begun(inos);
        let delay = self.dice.pick(&[10, MS, 10 * MS]);
        self.step(c, delay, Step::Invalidated);
    }

    /// The kernel has forgotten what is recalled.
    pub(super) fn invalidated(&mut self, c: usize) {
        let keeps = self.planted(Plant::KernelKeeps);
        let client = &mut self.clients[c];
        let Recalling::Begun(inos) = &client.recalling else { return };
        let inos = inos.clone();
        if !keeps {
            client.kernel.names.clear();
            client.kernel.attrs.retain(|ino, _| !inos.contains(ino));
        }
        let last = client.tree.recall_stop(&inos);
        client.recalling = Recalling::Stopped(inos);
        match last.filter(|_| self.plant != Some(Plant::ReturnBeforeFlush)) {
            Some(last) => {
                let reached = self.clients[c].todo(Todo::FinishRecall);
                let due = self.clients[c].log.after_applied(last, reached);
                self.run_due(c, due);
                self.pump(c);
            }
            None => self.finish_recall(c),
        }
    }

    pub(super) fn finish_recall(&mut self, c: usize) {
        let early = self.planted(Plant::ReturnBeforeFlush);
        let client = &mut self.clients[c];
        let Recalling::Stopped(inos) = std::mem::replace(&mut client.recalling, Recalling::Nothing) else {
            return;
        };
        if early {
            let all = client.log.last();
            client.tree.applied(all);
        }
        let applied = client.log.applied_through();
        client.tree.applied(applied);
        let open = &client.open;
        let mut returned = client.tree.recall_finish(&inos, |ino| open.contains_key(&ino));
        for one in returned.iter().filter(|one| one.open && one.keep == Keep::Nothing) {
            client.open.insert(one.ino, Open::Held);
        }
        if self.plant == Some(Plant::OpenNotSaid) {
            returned.iter_mut().for_each(|one| one.open = false);
        }
        if self.plant == Some(Plant::ReturnWithoutNumber) {
            returned.iter_mut().for_each(|one| one.number = u64::MAX);
        }
        self.note(format!("client {c} gives back {returned:?}"));
        if !returned.is_empty() {
            self.ask_server(c, 0, &Query::Return { returned }, What::Other);
        }
        self.begin_recall(c);
    }
}
