//! What calls name, and files that are open.

use super::client::{Open, What};
use super::model::Look;
use super::world::World;
use ringfs::base::Ino;
use ringfs::wire::{Mutation, Query};

impl World {
    pub(super) fn open(&mut self, c: usize, ino: Ino) {
        if self.clients[c].open.contains_key(&ino) {
            return;
        }
        if self.valid(c) && self.clients[c].tree.may_cache(ino) {
            self.clients[c].open.insert(ino, Open::Leased);
            return;
        }
        if self.clients[c].log.waiting() > 0 {
            return;
        }
        self.clients[c].open.insert(ino, Open::Asked);
        self.ask_server(c, 0, &Query::Hold { ino }, What::Hold(ino));
    }

    pub(super) fn close(&mut self, c: usize, ino: Ino) {
        let client = &mut self.clients[c];
        let Some(state) = client.open.remove(&ino) else { return };
        if state == Open::Held {
            if client.tree.last_ticket(ino).is_some() {
                client.orphans.push(ino);
            } else {
                client.orphans.retain(|other| *other != ino);
                self.ask_server(c, 0, &Query::Drop { inos: vec![ino] }, What::Other);
            }
        }
    }
}

/// What the kernel looks up first.
pub(super) fn looks(mutation: &Mutation<'static>) -> Vec<Look> {
    let text = |name: ringfs::base::Name<'static>| {
        *super::ops::NAMES.iter().find(|text| text.as_bytes() == name.bytes()).unwrap()
    };
    match *mutation {
        Mutation::Make { parent, name, .. }
        | Mutation::Unlink { parent, name, .. }
        | Mutation::Rmdir { parent, name, .. } => vec![Look::Attr(parent), Look::Name(parent, text(name))],
        Mutation::Link { ino, parent, name } => vec![Look::Attr(ino), Look::Name(parent, text(name))],
        Mutation::Rename { parent, name, new_parent, new_name, .. } => {
            vec![Look::Name(parent, text(name)), Look::Name(new_parent, text(new_name))]
        }
        Mutation::SetAttr { ino, .. } | Mutation::Write { ino, .. } | Mutation::SetXattr { ino, .. } => {
            vec![Look::Attr(ino)]
        }
        _ => Vec::new(),
    }
}

/// The names that a mutation says, and the inodes.
pub(super) fn said(mutation: &Mutation<'static>) -> (Vec<(Ino, &'static str)>, Vec<Ino>) {
    let (mut names, mut inos) = (Vec::new(), Vec::new());
    let text = |name: ringfs::base::Name<'static>| {
        *super::ops::NAMES.iter().find(|text| text.as_bytes() == name.bytes()).unwrap()
    };
    match *mutation {
        Mutation::Make { parent, name, .. }
        | Mutation::Unlink { parent, name, .. }
        | Mutation::Rmdir { parent, name, .. } => names.push((parent, text(name))),
        Mutation::Link { ino, parent, name } => {
            inos.push(ino);
            names.push((parent, text(name)));
        }
        Mutation::Rename { parent, name, new_parent, new_name, .. } => {
            names.extend([(parent, text(name)), (new_parent, text(new_name))]);
        }
        Mutation::SetAttr { ino, .. } | Mutation::Write { ino, .. } | Mutation::SetXattr { ino, .. } => {
            inos.push(ino);
        }
        _ => {}
    }
    (names, inos)
}
