//! When all has come to rest: the server's store is the reference, and nothing is left that should have gone.

use super::model::tree;
use super::world::World;
use ringfs::base::{Ino, SessionId};
use ringfs::server::fsck;
use ringfs::server::meta::sessions;
use ringfs::server::ops::read_plan;
use ringfs::server::store::Store;
use ringfs::wire::{Frame, FrameKind, Peer};
use std::ops::ControlFlow;

impl World {
    /// Nobody waits for anything, and everything is durable.
    pub(super) fn at_rest(&self) -> bool {
        let clients = self.clients.iter().all(|client| {
            client.alive
                && client.links.iter().all(|id| id.is_some_and(|id| self.conns[&id].peer.is_some()))
                && client.paused_until <= self.now
                && client.log.is_empty()
                && client.busy == 0
                && client.todos.is_empty()
                && client.waiters.is_empty()
                && client.recalls.is_empty()
                && client.recalling == super::client::Recalling::Nothing
        });
        let known = self.live.iter().all(|id| self.clients.iter().any(|client| client.session == *id));
        clients && known && self.server.is_some()
    }

    pub(super) fn unrest(&self) -> String {
        let mut text = format!("sessions {:x?}; ", self.live);
        for client in &self.clients {
            let calls: Vec<_> = client.calls.iter().map(|(id, call)| (id, &call.what)).collect();
            text += &format!(
                "client {}: session {:x}, alive {}, links {:?}, log {:?} of {}, busy {}, todos {:?}, {} waiters, {:?}, calls {calls:?}; ",
                client.id,
                client.session,
                client.alive,
                client.links,
                client.log,
                client.log.len(),
                client.busy,
                client.todos,
                client.waiters.len(),
                client.recalling
            );
        }
        text + &self.server.as_ref().map_or_else(String::new, ringfs::server::serve::Server::status)
    }

    pub(super) fn at_the_end(&mut self) {
        for client in 0..self.clients.len() {
            let links = std::mem::take(&mut self.clients[client].links);
            let Some(link) = links[0].and_then(|id| self.conns.get(&id)) else { continue };
            let session = self.clients[client].session;
            let sequence = self.clients[client].sequence;
            let bye = Frame::new(
                FrameKind::Bye,
                link.version,
                SessionId(session),
                sequence,
                Vec::new(),
                bytes::Bytes::new(),
            );
            link.peer.as_ref().unwrap().submit(bye, Box::new(|_| ()));
            self.after_server();
        }
        let server = self.server.take().unwrap();
        self.conns.values_mut().for_each(|conn| conn.peer = None);
        server.tick();
        server.work();
        let status = server.status();
        drop(server);
        for nothing in ["\"session_count\":0", "\"leased_inodes\":0", "\"parked\":0"] {
            assert!(status.contains(nothing), "something is left: {status}");
        }
        let mut left = Vec::new();
        let read = sessions::each(&self.disk, &mut |id, _| {
            left.push(id);
            ControlFlow::Continue(())
        });
        read.unwrap();
        assert!(left.is_empty(), "sessions are left: {left:?}");
        if self.torn {
            return;
        }
        let chunks = Store::over(Box::new(self.disk.clone()), Box::new(self.disk.clone())).unwrap();
        let content = |ino: Ino, size: u64| {
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            let plan = read_plan(&self.disk, ino, 0, 1 << 16).unwrap();
            for piece in &plan.pieces {
                let part = &mut bytes[piece.at..piece.at + piece.len];
                chunks.chunks().read(piece.chunk, piece.place, piece.from, part).unwrap();
            }
            bytes
        };
        let found = tree(&self.disk, &content);
        let want = tree(self.model.view(), &|ino, size| {
            let Ok(super::model::Seen::Bytes(mut bytes)) = self.model.look(super::model::Look::Read(ino))
            else {
                return Vec::new();
            };
            bytes.resize(usize::try_from(size).unwrap(), 0);
            bytes
        });
        for path in found.keys().chain(want.keys()) {
            if self.widowed && found.get(path) != want.get(path) {
                return self.tear("what was done again after a loss of power is not what it was");
            }
            assert_eq!(found.get(path), want.get(path), "{path} at the end");
        }
        let report = fsck::check(&chunks, fsck::Options::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}
