//! rename(2) with its flags. The order of checks is that of `server::ops`.

use super::directory::Found;
use super::node::Node;
use super::{Change, Denied, Tree, flag};
use crate::base::posix::{self, RenameFlags};
use crate::base::{Errno, Ino, Kind, Name};

/// What came of a rename.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renamed {
    /// What the old name stood for.
    pub ino: Ino,
    /// What the new name stood for before, which the record says.
    pub replaced: Option<Ino>,
    /// The replaced inode lost its last name.
    pub orphan: Option<Ino>,
    /// Both names stand for the same file: nothing was changed, there is nothing to log.
    pub nothing: bool,
}

/// One of the two names.
struct Place<'a> {
    parent: Ino,
    dir: u32,
    name: Name<'a>,
    hash: u64,
    found: Found,
    alone: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
struct Target {
    cookie: u64,
    ino: Ino,
    kind: Kind,
}

impl Place<'_> {
    fn target(&self) -> Result<Option<Target>, Denied> {
        match self.found {
            Found::Is { cookie, ino, kind } => Ok(Some(Target { cookie, ino, kind })),
            Found::Absent => Ok(None),
            Found::Unknown => Err(Denied::Ask),
        }
    }
}

impl Tree {
    /// renameat2(2).
    ///
    /// # Errors
    /// As the server's, or [`Denied::Ask`]: also for a whiteout, which needs a number.
    pub fn rename(
        &mut self,
        change: &Change,
        from: (Ino, Name<'_>),
        to: (Ino, Name<'_>),
        flags: u32,
    ) -> Result<Renamed, Denied> {
        let flags = RenameFlags::parse(flags)?;
        let (old, new) = (self.known_directory(from.0)?, self.known_directory(to.0)?);
        let (from, to) = (self.place(old, from), self.place(new, to));
        let source = from.target()?.ok_or(Errno::ENOENT)?;
        let moves = old != new;
        if moves && self.nodes.at(new).nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        let target = to.target()?;
        flags.check_target(target.is_some())?;
        if moves {
            self.check_circle(flags, source, from.parent, target, to.parent)?;
        }
        let replaced = target.map(|target| target.ino);
        if replaced == Some(source.ino) {
            return Ok(Renamed { ino: source.ino, replaced, orphan: None, nothing: true });
        }
        if !(flags.exchange && target.is_some()) {
            let target = target.map(|target| self.replaceable(source.kind, target)).transpose()?;
            posix::check_replace(source.kind, target, moves.then(|| self.nodes.at(new).nlink))?;
        }
        let moved = self.known(source.ino)?;
        let other = target.map(|target| self.known(target.ino)).transpose()?;
        let same_hash = !moves && from.hash == to.hash;
        if flags.whiteout || same_hash || !from.alone || !to.alone {
            return Err(Denied::Ask);
        }
        for place in [Some(old), Some(new), Some(moved), other].into_iter().flatten() {
            self.may_change(place)?;
        }
        let moves_dirs = source.kind == Kind::Directory
            || target.is_some_and(|target| flags.exchange && target.kind == Kind::Directory);
        let orphan = match (target, other) {
            (Some(target), Some(other)) if flags.exchange => {
                self.exchange(change, (&from, source, moved), (&to, target, other))?;
                None
            }
            _ => self.replace(change, (&from, source, moved), (&to, target.zip(other)))?,
        };
        for place in [old, new].into_iter().take(if moves { 2 } else { 1 }) {
            self.nodes.at_mut(place).touch_content(change.at);
            self.touched(place, change);
        }
        if moves && moves_dirs {
            self.hold_chain(to.parent, change);
            self.hold_chain(from.parent, change);
        }
        Ok(Renamed { ino: source.ino, replaced, orphan, nothing: false })
    }

    /// That no circle came about rests on where the directories above are: none of them is given back, to be moved by
    /// another, before the server has executed the rename.
    fn hold_chain(&mut self, dir: Ino, change: &Change) {
        for above in self.ancestors(dir) {
            if let Some(node) = self.nodes.get_mut(above) {
                node.ticket = change.ticket.0;
            }
        }
    }

    fn place<'n>(&self, dir: u32, (parent, name): (Ino, Name<'n>)) -> Place<'n> {
        let hash = self.hash.hash(name);
        let names = self.nodes.at(dir).names();
        let (found, alone) = names.map_or((Found::Unknown, true), |names| names.look(hash, name));
        Place { parent, dir, name, hash, found, alone }
    }

    /// Kind and number of names of what is to be replaced. Of a file, or under a file, no names need be known.
    fn replaceable(&self, moved: Kind, target: Target) -> Result<(Kind, u64), Denied> {
        let both = moved == Kind::Directory && target.kind == Kind::Directory;
        Ok((target.kind, if both { self.entries(target.ino)? } else { 0 }))
    }

    /// A directory must not move below itself.
    fn check_circle(
        &self,
        flags: RenameFlags,
        source: Target,
        old_parent: Ino,
        target: Option<Target>,
        new_parent: Ino,
    ) -> Result<(), Denied> {
        if source.kind == Kind::Directory && self.is_at_or_below(new_parent, source.ino)? {
            return Err(Errno::EINVAL.into());
        }
        if let Some(target) = target
            && target.kind == Kind::Directory
            && self.is_at_or_below(old_parent, target.ino)?
        {
            return Err(if flags.exchange { Errno::EINVAL } else { Errno::ENOTEMPTY }.into());
        }
        Ok(())
    }

    /// Whether directory `below` is `above` or lies somewhere under it. While a directory is leased nobody else moves it.
    fn is_at_or_below(&self, below: Ino, above: Ino) -> Result<bool, Denied> {
        /// A tree that is deeper is for the server.
        const DEPTH_MAX: u32 = 1 << 12;
        let mut at = below;
        for _ in 0..DEPTH_MAX {
            if at == above {
                return Ok(true);
            }
            if at == Ino::ROOT {
                return Ok(false);
            }
            let node = self.nodes.get(at).filter(|node| node.has(flag::LEASED) && node.parent.0 != 0);
            at = node.ok_or(Denied::Ask)?.parent;
        }
        Err(Denied::Ask)
    }

    /// The new name stands for the moved inode; what it stood for loses a name. All is checked but the counts of links.
    fn replace(
        &mut self,
        change: &Change,
        (from, source, moved): (&Place<'_>, Target, u32),
        (to, target): (&Place<'_>, Option<(Target, u32)>),
    ) -> Result<Option<Ino>, Denied> {
        let dir = |target: &(Target, u32)| target.0.kind == Kind::Directory;
        let loses = u32::from(target.as_ref().is_some_and(dir));
        let moves = u32::from(from.dir != to.dir && source.kind == Kind::Directory);
        let enough = |node: &Node, lost: u32| node.nlink >= 2 + lost;
        // Counts that cannot be are damage, which the server has to find.
        if target.is_some_and(|(_, other)| self.nodes.at(other).nlink == 0)
            || !enough(self.nodes.at(to.dir), loses)
            || !enough(self.nodes.at(from.dir), moves)
        {
            return Err(Denied::Ask);
        }
        let orphan = target.filter(|(_, other)| self.lose_name(*other, change)).map(|(target, _)| target.ino);
        self.nodes.at_mut(to.dir).nlink -= loses;
        self.in_place(to.dir, |names| names.put(to.hash, to.found, to.name, source.ino, source.kind));
        self.in_place(from.dir, |names| names.take(source.cookie));
        self.nodes.at_mut(from.dir).nlink -= moves;
        self.nodes.at_mut(to.dir).nlink += moves;
        self.moved(moved, to.parent, change);
        Ok(orphan)
    }

    /// Two names swap what they stand for.
    fn exchange(
        &mut self,
        change: &Change,
        (from, source, moved): (&Place<'_>, Target, u32),
        (to, target, other): (&Place<'_>, Target, u32),
    ) -> Result<(), Denied> {
        let is_dir = |target: Target| target.kind == Kind::Directory;
        if from.dir != to.dir && is_dir(source) != is_dir(target) {
            let (loser, gainer) = if is_dir(source) { (from.dir, to.dir) } else { (to.dir, from.dir) };
            posix::check_links(self.nodes.at(gainer).nlink)?;
            if self.nodes.at(loser).nlink <= 2 {
                return Err(Denied::Ask);
            }
            self.nodes.at_mut(loser).nlink -= 1;
            self.nodes.at_mut(gainer).nlink += 1;
        }
        self.in_place(to.dir, |names| names.put(to.hash, to.found, to.name, source.ino, source.kind));
        self.in_place(from.dir, |names| names.put(from.hash, from.found, from.name, target.ino, target.kind));
        self.moved(moved, to.parent, change);
        self.moved(other, from.parent, change);
        Ok(())
    }

    fn moved(&mut self, place: u32, parent: Ino, change: &Change) {
        let node = self.nodes.at_mut(place);
        node.parent = parent;
        node.touch_attributes(change.at);
        self.touched(place, change);
    }
}
