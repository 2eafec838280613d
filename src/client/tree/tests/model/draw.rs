//! What happens next.

use super::{OTHER, World};
use crate::base::{Caller, Ino, Name, SetAttr, TimeSet};
use crate::client::tree::Change;
use crate::client::tree::tests::{ROOT, at};
use crate::wire::{Expect, MakeFlags, Mutation, WriteFlags};

const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"a name that does not fit into the entry itself"];

/// Numbers from a seed (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }
}

impl World {
    /// The time goes on, mostly.
    pub(super) fn change(&mut self) -> Change {
        let mut change = self.clock.next();
        change.at.nanos = u32::try_from(self.dice.roll(1000)).unwrap();
        change.at.secs -= i64::try_from(self.dice.roll(3)).unwrap();
        if self.dice.one_in(4) {
            change.caller = self.dice.pick(&[Caller { uid: 5, gid: 7, pid: 1 }, OTHER]);
        }
        change
    }

    pub(super) fn ino(&mut self) -> Ino {
        let recent = self.inos.len().saturating_sub(10);
        if self.dice.one_in(4) { ROOT } else { self.dice.pick(&self.inos[recent..]) }
    }

    pub(super) fn directory(&mut self) -> Ino {
        let ino = self.ino();
        let is_dir = self.plain.attr(ino).is_ok_and(|attr| attr.is_dir());
        if is_dir || self.dice.one_in(8) { ino } else { ROOT }
    }

    pub(super) fn name(&mut self) -> Name<'static> {
        Name::parse(self.dice.pick(&NAMES)).unwrap()
    }

    pub(super) fn next_ino(&mut self) -> Ino {
        self.next += 1;
        self.inos.push(Ino(self.next));
        Ino(self.next)
    }

    /// A mutation, with the chunk of a write.
    pub(super) fn mutation(&mut self) -> (Mutation<'static>, Option<(u64, u32)>) {
        let (parent, name) = (self.directory(), self.name());
        let mutation = match self.dice.roll(20) {
            0..7 => {
                let kinds = [
                    libc::S_IFREG,
                    libc::S_IFDIR,
                    libc::S_IFDIR,
                    libc::S_IFLNK,
                    libc::S_IFIFO,
                    libc::S_IFCHR,
                ];
                let kind = if self.dice.one_in(2) { libc::S_IFREG } else { self.dice.pick(&kinds) };
                let mode = kind | u32::try_from(self.dice.roll(0o10000)).unwrap();
                let target: &[u8] = if kind == libc::S_IFLNK { b"to/somewhere" } else { b"" };
                let target = if self.dice.one_in(20) { b"x\0" } else { target };
                let exclusive = self.dice.one_in(2);
                // A number of its own goes only with a name that is new, as in the client.
                let ino = self.plain.lookup(parent, name).is_err().then(|| self.next_ino());
                let flags = MakeFlags { hold: false, exclusive };
                Mutation::Make { parent, name, mode, umask: 0o026, rdev: 3, target, flags, ino }
            }
            7..10 => Mutation::Unlink { parent, name, ino: None, hold: true },
            10 | 11 => Mutation::Rmdir { parent, name, ino: None, hold: true },
            12..15 => {
                let flags = if self.dice.one_in(3) { u32::try_from(self.dice.roll(8)).unwrap() } else { 0 };
                let (new_parent, new_name) = (self.directory(), self.name());
                // A whiteout takes a number from the server.
                let flags = flags & !libc::RENAME_WHITEOUT;
                let (ino, replaced, hold) = (None, Expect::Any, true);
                Mutation::Rename { parent, name, new_parent, new_name, flags, ino, replaced, hold }
            }
            15 => Mutation::Link { ino: self.ino(), parent, name },
            16 | 17 => Mutation::SetAttr { ino: self.ino(), set: self.set() },
            18 => {
                let ino = self.ino();
                self.next += 1;
                let len = u32::try_from(self.dice.roll(4) * 512).unwrap();
                let flags = WriteFlags { append: self.dice.one_in(2), kill_suidgid: self.dice.one_in(2) };
                let offset = self.dice.roll(6) * 512;
                return (Mutation::Write { ino, offset, flags, data: b"" }, Some((self.next, len)));
            }
            _ if self.dice.one_in(2) => {
                let (ino, kill_sgid) = (self.ino(), false);
                Mutation::SetXattr { ino, name: b"user.a", value: b"v", flags: 0, kill_sgid }
            }
            _ => {
                let value = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x01\0\xff\xff\xff\xff";
                let (name, kill_sgid) = (&b"system.posix_acl_default"[..], false);
                Mutation::SetXattr { ino: parent, name, value, flags: 0, kill_sgid }
            }
        };
        (mutation, None)
    }

    pub(super) fn set(&mut self) -> SetAttr {
        let mut set = SetAttr::default();
        let mode = u32::try_from(self.dice.roll(0o10000)).unwrap();
        match self.dice.roll(6) {
            0 => set.mode = Some(mode),
            1 => (set.uid, set.gid) = (Some(7), self.dice.one_in(2).then_some(8)),
            2 => set.size = Some(self.dice.roll(8) * 512),
            3 => set.mtime = Some(if self.dice.one_in(2) { TimeSet::Now } else { TimeSet::At(at(5)) }),
            4 => (set.atime, set.mode) = (Some(TimeSet::Now), Some(mode)),
            _ => {}
        }
        set.kill_suidgid = self.dice.one_in(4);
        set
    }
}
