//! Answers from what is known here: translates between the wire's words and the tree's.

use super::Mount;
use super::asked::About;
use super::caches::Kept;
use super::state::State;
use crate::base::{Attr, Errno, Ino};
use crate::client::tree::{Known, Stamp};
use crate::wire::{Answer, DirEntry, Grants, Query};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// An answer that was known here.
#[derive(Debug)]
pub(super) enum Here {
    Attr(Attr),
    Bytes(Box<[u8]>),
    No(Errno),
}

impl Here {
    /// In the words of the wire.
    pub(super) fn answer(&self) -> Result<Answer<'_>, Errno> {
        match self {
            Self::Attr(attr) => Ok(Answer::Attr(*attr)),
            Self::Bytes(bytes) => Ok(Answer::Bytes(bytes)),
            Self::No(errno) => Err(*errno),
        }
    }
}

impl State {
    /// How long the kernel may keep a name in `parent`, and the attributes of `ino`. `left`: how long leases are good.
    pub(super) fn kept(&self, parent: Option<Ino>, ino: Option<Ino>, left: Duration) -> Kept {
        let time = |may: bool| if may { left } else { Duration::ZERO };
        Kept {
            name: time(self.names_kept && parent.is_some_and(|parent| self.tree.may_cache_name(parent))),
            attributes: time(ino.is_some_and(|ino| self.tree.may_cache(ino))),
            here: false,
        }
    }

    /// The answer to a question, if it is known here.
    pub(super) fn answer(&mut self, query: &Query<'_>, left: Duration) -> Option<(Here, Kept)> {
        let (known, parent) = match query {
            Query::Lookup { parent, name } => (self.tree.lookup(*parent, *name), Some(*parent)),
            Query::GetAttr { ino } => (self.tree.attr(*ino), None),
            Query::Parent { ino } => (self.tree.parent(*ino), None),
            Query::ReadLink { ino } => {
                return match self.tree.read_link(*ino) {
                    Known::Yes(target) => Some((Here::Bytes(target.into()), Kept::default())),
                    Known::No(errno) => Some((Here::No(errno), Kept::default())),
                    Known::Unknown => None,
                };
            }
            Query::GetXattr { ino, .. } if self.tree.xattr_is_absent(*ino) => {
                return Some((Here::No(Errno::ENODATA), Kept::default()));
            }
            Query::ListXattr { ino } if self.tree.xattr_is_absent(*ino) => {
                return Some((Here::Bytes(Box::default()), Kept::default()));
            }
            _ => return None,
        };
        match known {
            Known::Yes(attr) => Some((Here::Attr(attr), self.kept(parent, Some(attr.ino), left))),
            Known::No(errno) => Some((Here::No(errno), self.kept(parent, None, left))),
            Known::Unknown => None,
        }
    }

    /// The directory whose listing is to be asked for in place of this question.
    pub(super) fn unknown_directory(&mut self, query: &Query<'_>) -> Option<Ino> {
        let Query::Lookup { parent, .. } = query else { return None };
        self.tree.should_list_first(*parent).then_some(*parent)
    }

    /// Remembers an answer, as far as leases allow. Says how long the kernel may keep it: only what is known from here on, for
    /// then its recall is heard here.
    fn learn(
        &mut self,
        stamp: Stamp,
        about: &About,
        answer: &Result<Answer<'_>, Errno>,
        left: Duration,
    ) -> Kept {
        match (about, answer) {
            (About::Name { parent, name }, Ok(Answer::Attr(attr))) => {
                let name = name.as_name();
                self.tree.learn_name(stamp, *parent, name, attr);
                let kept = self.kept(Some(*parent), Some(attr.ino), left);
                Kept {
                    name: if self.tree.lookup(*parent, name) == Known::Yes(*attr) {
                        kept.name
                    } else {
                        Duration::ZERO
                    },
                    ..self.kept_attr(attr, kept)
                }
            }
            (About::Name { parent, name }, Err(Errno::ENOENT)) => {
                let name = name.as_name();
                self.tree.learn_absent(stamp, *parent, name);
                let absent = self.tree.lookup(*parent, name) == Known::No(Errno::ENOENT);
                if absent { self.kept(Some(*parent), None, left) } else { Kept::default() }
            }
            (About::Inode(ino), Ok(Answer::Attr(attr))) if attr.ino == *ino => {
                self.tree.learn_attr(stamp, attr);
                self.kept_attr(attr, self.kept(None, Some(*ino), left))
            }
            (About::Listing { ino, cookie }, Ok(Answer::Entries { entries, end })) => {
                self.tree.learn_listing(stamp, *ino, *cookie, entries, *end);
                Kept::default()
            }
            (About::Target(ino), Ok(Answer::Bytes(target))) => {
                self.tree.learn_target(*ino, target);
                Kept::default()
            }
            _ => Kept::default(),
        }
    }

    fn kept_attr(&mut self, attr: &Attr, kept: Kept) -> Kept {
        let known = self.tree.attr(attr.ino) == Known::Yes(*attr);
        if known { kept } else { Kept { attributes: Duration::ZERO, ..kept } }
    }
}

impl Mount {
    /// Visits the entries of a directory behind `cookie`, as far as they are known here and `visit` goes on. `None`: the server
    /// must be asked.
    pub fn list(
        &self,
        ino: Ino,
        cookie: u64,
        plus: bool,
        mut visit: impl FnMut(&DirEntry<'_>, Kept) -> ControlFlow<()>,
    ) -> Option<Result<(), Errno>> {
        let mut state = self.state();
        let left = self.leases_left(super::boottime(), &state)?;
        let kept = state.kept(Some(ino), None, left);
        // Rather too little than what is being recalled.
        let attributes = if state.tree.counts().recalls == 0 { left } else { Duration::ZERO };
        let kept = Kept { attributes, ..kept };
        let known = state.tree.list(ino, cookie, plus, &mut |entry| visit(&entry, kept));
        let listed = match known {
            Known::Yes(_) => Ok(()),
            Known::No(errno) => Err(errno),
            Known::Unknown => return None,
        };
        state.counts.listed();
        Some(listed)
    }

    /// Remembers what the server said; says how long the kernel may keep it.
    pub(super) fn learn(
        self: &Arc<Self>,
        stamp: Stamp,
        about: &About,
        answer: &Result<Answer<'_>, Errno>,
        grants: Grants<'_>,
    ) -> Kept {
        let mut state = self.state();
        state.tree.granted(grants.iter());
        let left = self.leases_left(super::boottime(), &state);
        let kept = state.learn(stamp, about, answer, left.unwrap_or_default());
        // The first grant is what makes local changes possible.
        let numbers = !grants.is_empty() && state.numbers.are_low();
        drop(state);
        if numbers {
            self.fetch_numbers();
        }
        kept
    }
}
