//! Mutations that later ones make superfluous before they are sent (R2.7), within the segment that still grows: it is one
//! frame and one transaction at the server, so nobody sees a state between, and a crash keeps all of it or nothing.
//!
//! - What is made and removed again goes, with the changes of its attributes between; the directory's times still
//!   travel. Not when anybody may hold it, or anything else has touched it: a write, a link, a rename, a name in it.
//! - A change of attributes goes into the next of the same inode by the same caller, when nothing has touched the inode
//!   between and one record says the same as two.
//!
//! A fold needs times that go forward: [`crate::wire::Origin::at`] later than the inode's time of change, as the mount
//! chooses it. A file made under one name and renamed, or made and changed, is not folded: no single record says when each was done,
//! and the times would differ.
//!
//! Only what came after the last barrier is folded: whoever waits for a ticket waits for what it meant.

use super::segment::Segment;
use crate::base::{Caller, Ino, Time};
use crate::wire::{Mutation, SetAttr, TimeSet};
use rustc_hash::FxHashMap;

/// What the growing segment holds of each inode, by where the records stand.
#[derive(Debug, Default)]
pub(super) struct Folds {
    traces: FxHashMap<Ino, Trace>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Trace {
    /// The `Make` of it.
    made: Option<usize>,
    /// Its last `SetAttr`, and how many other records touched it since.
    set: Option<(usize, u32)>,
    /// The `Unlink` or `Rmdir` of its only name, that wants to hold it.
    removed: Option<usize>,
    /// Other records that touch it.
    touches: u32,
}

/// What folding made of a mutation before it is appended.
pub(super) enum Folded<'a> {
    /// Itself.
    Same,
    /// This stands for it, and for what was taken out.
    Instead(Mutation<'a>),
}

impl Folds {
    /// Nothing before this may be folded any more.
    pub(super) fn forget(&mut self) {
        self.traces.clear();
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.traces.capacity() * (size_of::<(Ino, Trace)>() + 1) * 8 / 7
    }

    /// Takes out of the segment what `mutation` makes superfluous. Returns what to append, and how many were taken out.
    pub(super) fn fold<'a>(
        &mut self,
        segment: &mut Segment,
        caller: Caller,
        at: Time,
        mutation: &Mutation<'a>,
    ) -> (Folded<'a>, u64) {
        match *mutation {
            Mutation::Unlink { parent, ino: Some(ino), hold: false, .. }
            | Mutation::Rmdir { parent, ino: Some(ino), hold: false, .. } => {
                match self.vanish(segment, ino, parent) {
                    Some(gone) => (Folded::Instead(times_of(parent)), gone),
                    None => (Folded::Same, 0),
                }
            }
            Mutation::SetAttr { ino, set } => match self.merge(segment, caller, at, ino, set) {
                Some(merged) => (Folded::Instead(Mutation::SetAttr { ino, set: merged }), 1),
                None => (Folded::Same, 0),
            },
            _ => (Folded::Same, 0),
        }
    }

    /// Takes note of a record that was appended.
    pub(super) fn appended(&mut self, at: usize, mutation: &Mutation<'_>) {
        if self.traces.len() >= TRACES_MAX {
            self.forget();
        }
        match *mutation {
            Mutation::Make { parent, ino: Some(ino), flags, .. } => {
                self.touch(parent);
                if !flags.hold {
                    self.traces.insert(ino, Trace { made: Some(at), ..Trace::default() });
                }
            }
            Mutation::Make { parent, .. } | Mutation::Tmpfile { parent, .. } => self.touch(parent),
            Mutation::SetAttr { ino, .. } => {
                let trace = self.traces.entry(ino).or_default();
                // The one before stays for good.
                trace.touches += u32::from(trace.set.is_some());
                trace.set = Some((at, 0));
            }
            Mutation::Unlink { parent, ino, hold, .. } | Mutation::Rmdir { parent, ino, hold, .. } => {
                self.touch(parent);
                let Some(ino) = ino else { return };
                match self.traces.get_mut(&ino) {
                    Some(trace) if hold && trace.removed.is_none() => trace.removed = Some(at),
                    _ if hold => {
                        self.traces.insert(ino, Trace { removed: Some(at), touches: 1, ..Trace::default() });
                    }
                    _ => self.touch(ino),
                }
            }
            Mutation::Rename { parent, new_parent, ino, replaced, .. } => {
                [parent, new_parent].into_iter().chain(ino).for_each(|ino| self.touch(ino));
                if let crate::wire::Expect::Is(ino) = replaced {
                    self.touch(ino);
                }
            }
            Mutation::Link { ino, parent, .. } => [ino, parent].into_iter().for_each(|ino| self.touch(ino)),
            Mutation::Copy { source, target, .. } => {
                [source, target].into_iter().for_each(|ino| self.touch(ino));
            }
            Mutation::Write { ino, .. }
            | Mutation::Allocate { ino, .. }
            | Mutation::SetXattr { ino, .. }
            | Mutation::RemoveXattr { ino, .. } => self.touch(ino),
        }
    }

    /// The kernel forgot an inode whose name was removed: nobody holds it any more. Returns how many records were taken out;
    /// `None`: its removal is not in this segment.
    pub(super) fn clear_hold(&mut self, segment: &mut Segment, ino: Ino) -> Option<u64> {
        let removed = self.traces.get(&ino)?.removed?;
        segment.clear_hold(removed);
        let Some((origin, parent)) = segment.read(removed).and_then(|(origin, mutation)| match mutation {
            Mutation::Unlink { parent, .. } | Mutation::Rmdir { parent, .. } => Some((origin, parent)),
            _ => None,
        }) else {
            return Some(0);
        };
        // In its place, under its ticket: others may have touched the directory since.
        let vanishes =
            self.can_vanish(segment, ino, parent) && segment.replace(removed, origin, &times_of(parent));
        let gone = if vanishes { self.take_out(segment, ino, parent) } else { 0 };
        self.traces.remove(&ino);
        Some(gone)
    }

    /// Takes out all of an inode that was made here and of which its directory is to know nothing but the time.
    fn vanish(&mut self, segment: &mut Segment, ino: Ino, parent: Ino) -> Option<u64> {
        if !self.can_vanish(segment, ino, parent) {
            return None;
        }
        let mut gone = self.take_out(segment, ino, parent);
        self.traces.remove(&ino);
        // The directory's times may be told by the last record already, which then goes into this one.
        if let Some(trace) = self.traces.get_mut(&parent)
            && let Some((set, 0)) = trace.set
            && segment.read(set).is_some_and(|(_, mutation)| mutation == times_of(parent))
        {
            segment.make_hole(set);
            trace.set = None;
            gone += 1;
        }
        Some(gone)
    }

    fn can_vanish(&self, segment: &Segment, ino: Ino, parent: Ino) -> bool {
        let Some(Trace { made: Some(made), touches: 0, .. }) = self.traces.get(&ino) else { return false };
        // It has moved with a rename that counted as a touch; this is a second look at what the records say.
        segment.read(*made).is_some_and(
            |(_, mutation)| matches!(mutation, Mutation::Make { parent: there, .. } if there == parent),
        )
    }

    /// Takes out `Make` and `SetAttr`. Returns how many.
    fn take_out(&mut self, segment: &mut Segment, ino: Ino, parent: Ino) -> u64 {
        let Some(trace) = self.traces.get(&ino).copied() else { return 0 };
        let set = trace.set.map(|(set, _)| set);
        let gone: Vec<usize> = trace.made.into_iter().chain(set).collect();
        gone.iter().for_each(|record| segment.make_hole(*record));
        if let (Some(above), Some(made)) = (self.traces.get_mut(&parent), trace.made) {
            above.touches = above.touches.saturating_sub(1);
            if let Some((set, since)) = &mut above.set
                && *set < made
            {
                *since = since.saturating_sub(1);
            }
        }
        gone.len() as u64
    }

    fn merge(
        &mut self,
        segment: &mut Segment,
        caller: Caller,
        at: Time,
        ino: Ino,
        second: SetAttr,
    ) -> Option<SetAttr> {
        let trace = self.traces.get_mut(&ino)?;
        let (record, 0) = trace.set? else { return None };
        let (origin, Mutation::SetAttr { set: first, .. }) = segment.read(record)? else { return None };
        let same = origin.caller == caller && origin.at.is_some_and(|before| before <= at);
        let merged = merged(&first, &second).filter(|_| same)?;
        segment.make_hole(record);
        trace.set = None;
        Some(merged)
    }

    fn touch(&mut self, ino: Ino) {
        let trace = self.traces.entry(ino).or_default();
        trace.touches += 1;
        if let Some((_, since)) = &mut trace.set {
            *since += 1;
        }
    }
}

/// What two changes of attributes come to, when one can say it.
fn merged(first: &SetAttr, second: &SetAttr) -> Option<SetAttr> {
    let nothing = SetAttr::default();
    if *first == nothing || *second == nothing {
        // A change of nothing changes no time either.
        return None;
    }
    let plain = |set: &SetAttr| set.size.is_none() && !set.kill_suidgid && set.ctime.is_none();
    let chown = |set: &SetAttr| set.uid.is_some() || set.gid.is_some();
    // A change of owner takes powers away from what the mode was then.
    let powers = first.mode.is_some_and(|mode| mode & (libc::S_ISUID | libc::S_ISGID) != 0);
    let owners_told_apart = !chown(second) || !(chown(first) || powers);
    // "Now" is the time of its own record.
    let time = |first: Option<TimeSet>, second: Option<TimeSet>| match (first, second) {
        (_, Some(second)) => Some(Some(second)),
        (Some(TimeSet::Now), None) => None,
        (first, None) => Some(first),
    };
    if !plain(first) || !plain(second) || !owners_told_apart {
        return None;
    }
    Some(SetAttr {
        mode: second.mode.or(first.mode),
        uid: second.uid.or(first.uid),
        gid: second.gid.or(first.gid),
        size: None,
        atime: time(first.atime, second.atime)?,
        mtime: time(first.mtime, second.mtime)?,
        ctime: None,
        kill_suidgid: false,
    })
}

/// What is left of a name that came and went: its directory was changed at that time.
fn times_of(parent: Ino) -> Mutation<'static> {
    let set = SetAttr { mtime: Some(TimeSet::Now), ..SetAttr::default() };
    Mutation::SetAttr { ino: parent, set }
}

/// Inodes that are kept apart; beyond that folding begins anew. It bounds the memory.
const TRACES_MAX: usize = 4096;
