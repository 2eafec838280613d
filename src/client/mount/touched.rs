//! What a mutation of the server's making touches: while it is on its way nothing of that is known for sure.

use super::state::State;
use crate::base::{Ino, Name, NameBuf};
use crate::client::tree::{Known, Stamp};
use crate::wire::{Done, Mutation};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Touched {
    names: Vec<(Ino, NameBuf)>,
    inos: Vec<Ino>,
    /// When the mutation was taken.
    stamp: Option<Stamp>,
}

impl Touched {
    /// What `mutation` touches, as far as that is known before it is done. What was known of it is forgotten.
    pub(super) fn new(state: &mut State, mutation: &Mutation<'_>) -> Self {
        let mut touched = Self::default();
        match *mutation {
            Mutation::Make { parent, name, .. } => touched.name(state, parent, name),
            Mutation::Link { ino, parent, name } => {
                touched.inos.push(ino);
                touched.name(state, parent, name);
            }
            Mutation::Unlink { parent, name, .. } | Mutation::Rmdir { parent, name, .. } => {
                touched.name(state, parent, name);
            }
            Mutation::Rename { parent, name, new_parent, new_name, .. } => {
                touched.name(state, parent, name);
                touched.name(state, new_parent, new_name);
            }
            Mutation::SetAttr { ino, .. }
            | Mutation::Write { ino, .. }
            | Mutation::Allocate { ino, .. }
            | Mutation::SetXattr { ino, .. }
            | Mutation::RemoveXattr { ino, .. } => touched.inos.push(ino),
            Mutation::Copy { source, target, .. } => touched.inos.extend([source, target]),
            Mutation::Tmpfile { .. } => {}
        }
        touched.forget(state);
        touched.stamp = Some(state.tree.stamp());
        touched
    }

    /// A name, its directory, and what it stands for if that is known.
    fn name(&mut self, state: &mut State, parent: Ino, name: Name<'_>) {
        if let Known::Yes(attr) = state.tree.lookup(parent, name) {
            self.inos.push(attr.ino);
        }
        self.names.push((parent, name.to_buf()));
    }

    fn forget(&self, state: &mut State) {
        for (parent, name) in &self.names {
            state.tree.forget_name(*parent, name.as_name());
        }
        for ino in &self.inos {
            state.tree.forget_attr(*ino);
        }
    }

    /// The outcome is there. What it says is learned, unless something else came in between; the rest is forgotten once more,
    /// since answers that were on their way may have brought it back. Gives the directories whose attributes have to be
    /// asked for before anything can be completed in them again.
    pub(super) fn done(&self, state: &mut State, done: Option<&Done>) -> Vec<Ino> {
        let learned = self.stamp.zip(done.and_then(|done| done.attr));
        if let Some((stamp, attr)) = learned {
            state.tree.learn_attr(stamp, &attr);
        }
        for (parent, name) in &self.names {
            state.tree.forget_name(*parent, name.as_name());
        }
        for ino in &self.inos {
            let known = learned
                .is_some_and(|(_, attr)| attr.ino == *ino && state.tree.attr(*ino) == Known::Yes(attr));
            if !known {
                state.tree.forget_attr(*ino);
            }
        }
        // What the names stood for, which nobody here may have known.
        for ino in done.into_iter().flat_map(|done| done.named).flatten() {
            state.tree.forget_attr(ino);
        }
        let parents = self.names.iter().map(|(parent, _)| *parent);
        let mut wanted: Vec<Ino> = parents.filter(|parent| state.tree.wants_attr(*parent)).collect();
        wanted.dedup();
        wanted
    }
}
