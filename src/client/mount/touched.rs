//! What a mutation of the server's making touches: while it is on its way nothing of that is known for sure, and nothing of it is
//! changed here. The server would execute such a change behind the one on its way, though it was seen here before.

use super::state::State;
use crate::base::{Ino, Name, NameBuf};
use crate::client::tree::{Known, Stamp, Tree};
use crate::wire::{Done, Mutation};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Touched {
    names: Vec<(Ino, NameBuf)>,
    inos: Vec<Ino>,
    /// Directories in which a name is taken away that stands for nobody here knows what.
    strange: Vec<Ino>,
    /// When the mutation was taken.
    stamp: Option<Stamp>,
}

impl Touched {
    /// What `mutation` touches, as far as that is known before it is done. What was known of it is forgotten.
    pub(super) fn new(state: &mut State, mutation: &Mutation<'_>) -> Self {
        let mut touched = Self::of(state, mutation);
        touched.forget(state);
        touched.stamp = Some(state.tree.stamp());
        touched
    }

    fn of(state: &mut State, mutation: &Mutation<'_>) -> Self {
        let mut touched = Self::default();
        match *mutation {
            Mutation::Make { parent, name, .. } => touched.name(state, parent, name, false),
            Mutation::Link { ino, parent, name } => {
                touched.inos.push(ino);
                touched.name(state, parent, name, false);
            }
            Mutation::Unlink { parent, name, .. } | Mutation::Rmdir { parent, name, .. } => {
                touched.name(state, parent, name, true);
            }
            Mutation::Rename { parent, name, new_parent, new_name, .. } => {
                touched.name(state, parent, name, true);
                touched.name(state, new_parent, new_name, true);
            }
            Mutation::SetAttr { ino, .. }
            | Mutation::Write { ino, .. }
            | Mutation::Allocate { ino, .. }
            | Mutation::SetXattr { ino, .. }
            | Mutation::RemoveXattr { ino, .. } => touched.inos.push(ino),
            Mutation::Copy { source, target, .. } => touched.inos.extend([source, target]),
            Mutation::Tmpfile { .. } => {}
        }
        touched
    }

    /// A name, its directory, and what it stands for if that is known.
    fn name(&mut self, state: &mut State, parent: Ino, name: Name<'_>, taken: bool) {
        match state.tree.lookup(parent, name) {
            Known::Yes(attr) => self.inos.push(attr.ino),
            Known::Unknown if taken => self.strange.push(parent),
            Known::Unknown | Known::No(_) => {}
        }
        self.names.push((parent, name.to_buf()));
    }

    /// The inodes that are changed, as far as they are known.
    fn changed(&self) -> impl Iterator<Item = Ino> {
        self.names.iter().map(|(parent, _)| *parent).chain(self.inos.iter().copied())
    }

    /// Whether it may change this inode.
    fn may_change(&self, tree: &Tree, ino: Ino) -> bool {
        self.changed().any(|other| other == ino)
            || self.strange.iter().any(|dir| !tree.is_named_elsewhere(ino, *dir))
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
            if known {
                state.tree.is_newest(*ino);
            } else {
                state.tree.forget_attr(*ino);
            }
        }
        // What the names stood for, which nobody here may have known.
        for ino in done.into_iter().flat_map(|done| done.named).flatten() {
            state.tree.forget_attr(ino);
            state.tree.forget_place(ino);
        }
        let parents = self.names.iter().map(|(parent, _)| *parent);
        let mut wanted: Vec<Ino> = parents.filter(|parent| state.tree.wants_attr(*parent)).collect();
        wanted.dedup();
        wanted
    }
}

impl State {
    /// Whether a mutation of the server's making that is on its way may change what this one changes.
    pub(super) fn is_behind(&mut self, mutation: &Mutation<'_>) -> bool {
        if self.on_the_way.is_empty() {
            return false;
        }
        let wanted = Touched::of(self, mutation);
        let tree = &self.tree;
        self.on_the_way.values().any(|other| wanted.changed().any(|ino| other.may_change(tree, ino)))
    }

    /// Whether it could be completed here, as far as leases go.
    pub(super) fn is_leased(&self, mutation: &Mutation<'_>) -> bool {
        match *mutation {
            Mutation::Make { parent, .. }
            | Mutation::Link { parent, .. }
            | Mutation::Unlink { parent, .. }
            | Mutation::Rmdir { parent, .. }
            | Mutation::Rename { parent, .. } => self.tree.is_changeable(parent),
            Mutation::SetAttr { ino, .. } | Mutation::Write { ino, .. } => self.tree.is_changeable(ino),
            Mutation::Tmpfile { .. }
            | Mutation::Allocate { .. }
            | Mutation::Copy { .. }
            | Mutation::SetXattr { .. }
            | Mutation::RemoveXattr { .. } => false,
        }
    }
}
