//! What programs do next.

use super::client::Open;
use super::model::Look;
use super::world::World;
use ringfs::base::{Ino, Name, SetAttr, TimeSet};
use ringfs::server::meta::inodes;
use ringfs::wire::{Expect, MakeFlags, Mutation, WriteFlags};

pub(super) const NAMES: [&str; 6] =
    ["a", "b", "c", "d", "e", "a name that does not fit into the entry of a directory"];

static DATA: [u8; 512] = {
    let mut data = [0; 512];
    let mut at = 0;
    while at < data.len() {
        #[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
        {
            data[at] = (at * 31 + at / 16) as u8;
        }
        at += 1;
    }
    data
};

/// One call of a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Look(Look),
    Mutate(Mutation<'static>),
    Fsync,
    Open(Ino),
    Close(Ino),
    Forget,
}

pub(super) fn name(text: &'static str) -> Name<'static> {
    Name::parse(text.as_bytes()).unwrap()
}

impl World {
    /// Something to do in the places that exist.
    pub(super) fn draw(&mut self, client: usize) -> Op {
        let (mut all, mut dirs) = self.model.living();
        // Nobody else can know of what the server does not know.
        all.retain(|ino| self.knows(client, *ino));
        dirs.retain(|ino| self.knows(client, *ino));
        // Most of the time in few places, so that clients meet; or each in its own.
        let home = dirs[(client + 1) % dirs.len()];
        let homely = self.profile.homely;
        let dir = |world: &mut Self| {
            if world.dice.roll(10) < homely {
                home
            } else if world.dice.one_in(3) {
                Ino::ROOT
            } else {
                world.dice.pick(&dirs)
            }
        };
        let own: Vec<Ino> =
            all.iter().copied().filter(|ino| self.clients[client].made.contains(ino)).collect();
        let parent = dir(self);
        let text = self.dice.pick(&NAMES);
        let ino = if !own.is_empty() && self.dice.roll(10) < homely {
            self.dice.pick(&own)
        } else {
            self.dice.pick(&all)
        };
        match self.dice.roll(60) {
            0..9 => Op::Look(Look::Name(parent, text)),
            9..11 => Op::Look(Look::Attr(ino)),
            11..13 => {
                let open = self.open_of(client);
                Op::Look(Look::Attr(if open.is_empty() { ino } else { self.dice.pick(&open) }))
            }
            13..16 => Op::Look(Look::List(parent)),
            16..18 => Op::Look(Look::Read(ino)),
            18..30 => {
                let kinds = [libc::S_IFREG, libc::S_IFREG, libc::S_IFDIR, libc::S_IFLNK];
                let kind = self.dice.pick(&kinds);
                let kind = if dirs.len() > 5 && kind == libc::S_IFDIR { libc::S_IFREG } else { kind };
                let target: &[u8] = if kind == libc::S_IFLNK { b"to/somewhere" } else { b"" };
                let flags = MakeFlags { hold: false, exclusive: self.dice.one_in(2) };
                let (name, umask, rdev, ino) = (name(text), 0o022, 0, None);
                Op::Mutate(Mutation::Make {
                    parent,
                    name,
                    mode: kind | 0o777,
                    umask,
                    rdev,
                    target,
                    flags,
                    ino,
                })
            }
            30..36 => Op::Mutate(Mutation::Unlink { parent, name: name(text), ino: None, hold: true }),
            36..38 => Op::Mutate(Mutation::Rmdir { parent, name: name(text), ino: None, hold: true }),
            38..43 => {
                let (new_parent, new_text) = (dir(self), self.dice.pick(&NAMES));
                let flags = self.dice.pick(&[0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]);
                Op::Mutate(Mutation::Rename {
                    parent,
                    name: name(text),
                    new_parent,
                    new_name: name(new_text),
                    flags,
                    ino: None,
                    replaced: Expect::Any,
                    hold: true,
                })
            }
            43 | 44 => Op::Mutate(Mutation::Link { ino, parent, name: name(text) }),
            45..48 => {
                let mut set = SetAttr::default();
                match self.dice.roll(4) {
                    0 => set.mode = Some(self.dice.pick(&[0o600, 0o644, 0o755])),
                    1 => set.size = Some(self.dice.roll(300)),
                    2 => set.mtime = Some(TimeSet::Now),
                    _ => set.uid = Some(self.dice.pick(&[0, 7])),
                }
                Op::Mutate(Mutation::SetAttr { ino, set })
            }
            48..53 => {
                let from = usize::try_from(self.dice.roll(256)).unwrap();
                let len = usize::try_from(self.dice.between(1, 200)).unwrap();
                let flags = WriteFlags { append: self.dice.one_in(2), kill_suidgid: false };
                let offset = self.dice.roll(300);
                Op::Mutate(Mutation::Write { ino, offset, flags, data: &DATA[from..from + len] })
            }
            53 if self.dice.one_in(3) => {
                let (name, value, flags, kill_sgid) = (&b"user.a"[..], &b"v"[..], 0, false);
                Op::Mutate(Mutation::SetXattr { ino, name, value, flags, kill_sgid })
            }
            53 | 54 => Op::Fsync,
            55 | 56 => Op::Open(ino),
            57 | 58 => {
                let open = self.open_of(client);
                if open.is_empty() { Op::Open(ino) } else { Op::Close(self.dice.pick(&open)) }
            }
            _ => Op::Forget,
        }
    }

    fn knows(&self, client: usize, ino: Ino) -> bool {
        inodes::get(&self.disk, ino).unwrap().is_some() || self.clients[client].made.contains(&ino)
    }

    fn open_of(&self, client: usize) -> Vec<Ino> {
        let open = self.clients[client].open.iter();
        open.filter(|(_, state)| **state != Open::Asked).map(|(ino, _)| *ino).collect()
    }
}
