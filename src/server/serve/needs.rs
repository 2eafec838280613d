//! What each request needs of the inodes it touches, in one table: the rest of admission ([`super::admit`]) does not know
//! the requests.

use crate::base::{Ino, Name};
use crate::wire::{Expect, Mutation, Query};

/// What a query needs before it may look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QueryNeeds {
    /// Nothing of any inode: it is about the session, its locks, or the volume as a whole.
    Nothing,
    /// To tell of this inode. What it finds on the way it needs too.
    Read(Ino),
}

/// What a query needs.
pub(super) fn of_query(query: &Query<'_>) -> QueryNeeds {
    match query {
        Query::Lookup { parent: ino, .. }
        | Query::GetAttr { ino }
        | Query::Parent { ino }
        | Query::ReadLink { ino }
        | Query::ReadDir { ino, .. }
        | Query::Read { ino, .. }
        | Query::GetXattr { ino, .. }
        | Query::ListXattr { ino }
        | Query::Seek { ino, .. }
        | Query::Hold { ino } => QueryNeeds::Read(*ino),
        Query::StatFs
        | Query::Drop { .. }
        | Query::Sync { .. }
        | Query::GetLock { .. }
        | Query::SetLock { .. }
        | Query::CancelLock { .. }
        | Query::UnlockOwner { .. }
        | Query::UnlockHandle { .. }
        | Query::Reassert { .. }
        | Query::Ping
        | Query::Status
        | Query::Return { .. }
        | Query::Numbers { .. }
        | Query::Evict { .. } => QueryNeeds::Nothing,
    }
}

/// Whether the answer may grant: it tells attributes of what it names.
pub(super) fn grants(query: &Query<'_>) -> bool {
    matches!(
        query,
        Query::Lookup { .. } | Query::GetAttr { .. } | Query::Hold { .. } | Query::ReadDir { plus: true, .. }
    )
}

/// What a mutation needs.
#[derive(Default, Debug)]
pub(super) struct MutationNeeds<'a> {
    /// Inodes it changes. In a local mutation all of them stand in its record.
    pub(super) writes: Inos,
    /// Inodes it only tells of or reads.
    pub(super) reads: Inos,
    /// Names whose inodes it changes or tells of, and which of the two.
    pub(super) names: [Option<(Ino, Name<'a>, Through)>; 2],
    /// The inode it makes with a number of its session's own.
    pub(super) makes: Option<Ino>,
}

/// What happens to the inode that a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Through {
    Write,
    Read,
}

/// A few inodes, without allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inos {
    all: [Ino; 4],
    len: usize,
}

impl Default for Inos {
    fn default() -> Self {
        Self { all: [Ino(0); 4], len: 0 }
    }
}

impl Inos {
    fn of(inos: impl IntoIterator<Item = Ino>) -> Self {
        let mut out = Self::default();
        for (place, ino) in out.all.iter_mut().zip(inos) {
            *place = ino;
            out.len += 1;
        }
        out
    }

    pub(super) fn as_slice(&self) -> &[Ino] {
        &self.all[..self.len]
    }
}

/// What a mutation needs. What a waited one does not say of the inodes behind its names is to be looked up.
pub(super) fn of_mutation<'a>(mutation: &Mutation<'a>) -> MutationNeeds<'a> {
    let none = MutationNeeds::default();
    match *mutation {
        Mutation::Make { parent, name, ino, .. } => MutationNeeds {
            writes: Inos::of([parent]),
            names: [Some((parent, name, Through::Read)), None],
            makes: ino,
            ..none
        },
        Mutation::Tmpfile { parent, .. } => MutationNeeds { reads: Inos::of([parent]), ..none },
        Mutation::Link { ino, parent, .. } => MutationNeeds { writes: Inos::of([ino, parent]), ..none },
        Mutation::Unlink { parent, name, ino, .. } | Mutation::Rmdir { parent, name, ino, .. } => {
            MutationNeeds {
                writes: Inos::of([parent].into_iter().chain(ino)),
                names: [Some((parent, name, Through::Write)), None],
                ..none
            }
        }
        Mutation::Rename { parent, name, new_parent, new_name, ino, replaced, .. } => {
            let replaced = if let Expect::Is(ino) = replaced { Some(ino) } else { None };
            MutationNeeds {
                writes: Inos::of([parent, new_parent].into_iter().chain(ino).chain(replaced)),
                names: [Some((parent, name, Through::Write)), Some((new_parent, new_name, Through::Write))],
                ..none
            }
        }
        Mutation::SetAttr { ino, .. }
        | Mutation::Write { ino, .. }
        | Mutation::Allocate { ino, .. }
        | Mutation::SetXattr { ino, .. }
        | Mutation::RemoveXattr { ino, .. } => MutationNeeds { writes: Inos::of([ino]), ..none },
        Mutation::Copy { source, target, .. } => {
            MutationNeeds { writes: Inos::of([target]), reads: Inos::of([source]), ..none }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Through, of_mutation};
    use crate::base::{Ino, Name};
    use crate::wire::{Expect, Mutation};

    #[test]
    fn a_rename_changes_both_directories_what_moves_and_what_it_replaces() {
        let (name, new_name) = (Name::parse(b"a").unwrap(), Name::parse(b"b").unwrap());
        let (parent, new_parent) = (Ino(1), Ino(2));
        let (ino, replaced) = (Some(Ino(3)), Expect::Is(Ino(4)));
        let rename =
            Mutation::Rename { parent, name, new_parent, new_name, flags: 0, ino, replaced, hold: false };
        let needs = of_mutation(&rename);
        assert_eq!(needs.writes.as_slice(), [Ino(1), Ino(2), Ino(3), Ino(4)]);
        assert_eq!(
            needs.names,
            [Some((Ino(1), name, Through::Write)), Some((Ino(2), new_name, Through::Write))]
        );
    }
}
