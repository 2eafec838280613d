//! Random operations. Few names, few files, so that they meet: a name is made, replaced, linked, removed and made again.

use crate::random::Random;

/// Files kept open.
pub(crate) const SLOTS: usize = 6;

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Which of two mounts, where there are two.
    pub(crate) side: usize,
    /// Which user.
    pub(crate) user: usize,
    pub(crate) op: Op,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Open {
        slot: usize,
        path: String,
        flags: i32,
        mode: u32,
    },
    Tmpfile {
        slot: usize,
        path: String,
        excl: bool,
    },
    Close {
        slot: usize,
    },
    Read {
        slot: usize,
        offset: u64,
        len: usize,
    },
    Write {
        slot: usize,
        offset: u64,
        len: usize,
        seed: u64,
    },
    /// write(2): at the position, or at the end with `O_APPEND`.
    Put {
        slot: usize,
        len: usize,
        seed: u64,
    },
    Ftruncate {
        slot: usize,
        len: u64,
    },
    Truncate {
        path: String,
        len: u64,
    },
    Allocate {
        slot: usize,
        mode: i32,
        offset: u64,
        len: u64,
    },
    Copy {
        from: usize,
        to: usize,
        from_offset: u64,
        to_offset: u64,
        len: usize,
    },
    Sync {
        slot: usize,
    },
    /// What `SEEK_DATA` and `SEEK_HOLE` say must agree with what is read.
    Holes {
        slot: usize,
    },
    StatSlot {
        slot: usize,
    },
    ChmodSlot {
        slot: usize,
        mode: u32,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    Rmdir {
        path: String,
    },
    Unlink {
        path: String,
    },
    Mknod {
        path: String,
        kind: u32,
    },
    Symlink {
        target: String,
        path: String,
    },
    Readlink {
        path: String,
    },
    Link {
        from: String,
        to: String,
        follow: bool,
    },
    LinkSlot {
        slot: usize,
        to: String,
    },
    Rename {
        from: String,
        to: String,
        flags: u32,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Chown {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        follow: bool,
    },
    Times {
        path: String,
        atime: Option<i64>,
        mtime: Option<i64>,
        follow: bool,
    },
    SetXattr {
        path: String,
        name: &'static str,
        value: Vec<u8>,
        flags: u32,
    },
    GetXattr {
        path: String,
        name: &'static str,
    },
    RemoveXattr {
        path: String,
        name: &'static str,
    },
    ListXattr {
        path: String,
    },
    List {
        path: String,
    },
    Stat {
        path: String,
        follow: bool,
    },
    Access {
        path: String,
        mode: u32,
    },
}

/// What the reference can do; the others are not asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) acl: bool,
    pub(crate) zero_range: bool,
    pub(crate) whiteout: bool,
}

const ACL_ACCESS: &str = "system.posix_acl_access";
const ACL_DEFAULT: &str = "system.posix_acl_default";

/// Makes steps without end.
pub(crate) struct Script {
    random: Random,
    abilities: Abilities,
    sides: u64,
}

impl Script {
    pub(crate) fn new(seed: u64, sides: usize, abilities: Abilities) -> Self {
        Self { random: Random::new(seed), abilities, sides: sides as u64 }
    }

    pub(crate) fn step(&mut self) -> Step {
        let side = self.small(self.sides);
        let user = if self.random.below(10) < 7 { 0 } else { 1 + self.small(2) };
        let op = match self.random.below(100) {
            0..40 => self.data(),
            40..75 => self.names(),
            _ => self.attributes(),
        };
        // Only root can put the times right that a failed whiteout leaves behind on ext4 (see `settle_parent`).
        let user = match &op {
            Op::Rename { flags, .. } if *flags == libc::RENAME_WHITEOUT => 0,
            _ => user,
        };
        Step { side, user, op }
    }

    fn data(&mut self) -> Op {
        let slot = self.slot();
        match self.random.below(34) {
            0..7 => Op::Open { slot, path: self.path(), flags: self.open_flags(), mode: self.mode() },
            7..9 => Op::Tmpfile { slot, path: self.path(), excl: self.random.one_in(3) },
            9 => Op::Close { slot },
            10..15 => Op::Read { slot, offset: self.offset(), len: self.len() },
            15..20 => Op::Write { slot, offset: self.offset(), len: self.len(), seed: self.random.next() },
            20..23 => Op::Put { slot, len: self.len(), seed: self.random.next() },
            23..25 => Op::Ftruncate { slot, len: self.offset() },
            25 => Op::Truncate { path: self.path(), len: self.offset() },
            26..29 => {
                Op::Allocate { slot, mode: self.allocate(), offset: self.offset(), len: self.len() as u64 }
            }
            29..31 => Op::Copy {
                from: slot,
                to: self.slot(),
                from_offset: self.offset(),
                to_offset: self.offset(),
                len: self.len(),
            },
            31 => Op::Holes { slot },
            32 => Op::StatSlot { slot },
            _ if self.random.one_in(4) => Op::Sync { slot },
            _ => Op::ChmodSlot { slot, mode: self.mode() },
        }
    }

    fn names(&mut self) -> Op {
        let path = self.path();
        match self.random.below(30) {
            0..6 => Op::Mkdir { path, mode: self.mode() | if self.random.one_in(8) { 0o2000 } else { 0 } },
            6..8 => Op::Rmdir { path },
            8..12 => Op::Unlink { path },
            12..14 => Op::Mknod {
                path,
                kind: self.random.pick(&[libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR]),
            },
            14..17 => Op::Symlink { target: self.target(), path },
            17 => Op::Readlink { path },
            18..21 => Op::Link { from: path, to: self.path(), follow: self.random.one_in(3) },
            21..23 => Op::LinkSlot { slot: self.slot(), to: path },
            _ => Op::Rename { from: path, to: self.path(), flags: self.rename_flags() },
        }
    }

    fn attributes(&mut self) -> Op {
        let path = self.path();
        let follow = self.random.one_in(2);
        match self.random.below(26) {
            0..3 => Op::Chmod {
                path,
                mode: self.mode() | self.random.pick(&[0, 0, 0, 0o4000, 0o2000, 0o6000, 0o1000]),
            },
            3..6 => {
                let id = [None, Some(0), Some(1000), Some(1001)];
                Op::Chown { path, uid: self.random.pick(&id), gid: self.random.pick(&id), follow }
            }
            6..9 => {
                let time = [None, Some(1000), Some(2000), Some(123_456)];
                Op::Times { path, atime: self.random.pick(&time), mtime: self.random.pick(&time), follow }
            }
            9..12 => self.set_xattr(path),
            12 => Op::GetXattr { path, name: self.xattr_name() },
            13 => Op::RemoveXattr { path, name: self.xattr_name() },
            14 => Op::ListXattr { path },
            15..18 => Op::List { path: if self.random.one_in(3) { ".".into() } else { path } },
            18..24 => Op::Stat { path, follow },
            _ => Op::Access { path, mode: u32::try_from(self.small(8)).unwrap() },
        }
    }

    fn set_xattr(&mut self, path: String) -> Op {
        let name = self.xattr_name();
        let value = if name == ACL_ACCESS || name == ACL_DEFAULT {
            self.acl()
        } else {
            // Small: an ordinary file system has a few thousand bytes for all of a file's.
            let len = self.random.pick(&[0_usize, 1, 10, 100]);
            crate::random::pattern(self.random.next(), len)
        };
        Op::SetXattr { path, name, value, flags: self.random.pick(&[0, 0, 1, 2]) }
    }

    fn xattr_name(&mut self) -> &'static str {
        let names: &[&str] = &["user.a", "user.b", "user.c", "trusted.a", ACL_ACCESS, ACL_DEFAULT];
        self.random.pick(if self.abilities.acl { names } else { &names[..4] })
    }

    /// A valid ACL with an entry for a user and one for a group, or the least there is.
    fn acl(&mut self) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        let long = self.random.one_in(2);
        let none = u32::MAX;
        let entries: &[(u16, u32)] = if long {
            &[(1, none), (2, 1000), (4, none), (8, 1001), (0x10, none), (0x20, none)]
        } else {
            &[(1, none), (4, none), (0x20, none)]
        };
        for (tag, id) in entries {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(self.random.below(8)).unwrap().to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    fn path(&mut self) -> String {
        let depth = self.random.pick(&[1, 1, 1, 2, 2, 3]);
        let mut path = String::new();
        for level in 0..depth {
            if level > 0 {
                path.push('/');
            }
            path.push(self.random.pick(&['a', 'b', 'c', 'd']));
        }
        if self.random.one_in(40) {
            path.push('/');
        }
        path
    }

    /// Never upwards: that would lead out of the tree.
    fn target(&mut self) -> String {
        match self.random.below(8) {
            0 => "./a".into(),
            1 => "nowhere/at/all".into(),
            2 => "x".repeat(300),
            _ => self.path(),
        }
    }

    fn open_flags(&mut self) -> i32 {
        let how = self.random.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
        let mut flags = how | libc::O_NONBLOCK;
        let more: [(u64, i32); 6] = [
            (2, libc::O_CREAT),
            (6, libc::O_EXCL | libc::O_CREAT),
            (5, libc::O_TRUNC),
            (4, libc::O_APPEND),
            (8, libc::O_NOFOLLOW),
            (30, libc::O_DSYNC),
        ];
        for (one_in, flag) in more {
            if self.random.one_in(one_in) {
                flags |= flag;
            }
        }
        flags
    }

    fn rename_flags(&mut self) -> u32 {
        match self.random.below(8) {
            0 => libc::RENAME_NOREPLACE,
            1 | 2 => libc::RENAME_EXCHANGE,
            3 if self.abilities.whiteout => libc::RENAME_WHITEOUT,
            _ => 0,
        }
    }

    fn allocate(&mut self) -> i32 {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        match self.random.below(6) {
            0 => 0,
            1 => keep,
            2 if self.abilities.zero_range => libc::FALLOC_FL_ZERO_RANGE,
            3 if self.abilities.zero_range => libc::FALLOC_FL_ZERO_RANGE | keep,
            _ => libc::FALLOC_FL_PUNCH_HOLE | keep,
        }
    }

    fn offset(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 0,
            1 => 4096 * self.random.below(40),
            _ => self.random.below(200_000),
        }
    }

    fn len(&mut self) -> usize {
        let len = match self.random.below(8) {
            0 => 4096 * (1 + self.random.below(20)),
            1 => 1 + self.random.below(300_000),
            2 | 3 => 1 + self.random.below(20_000),
            _ => 1 + self.random.below(500),
        };
        usize::try_from(len).unwrap()
    }

    fn mode(&mut self) -> u32 {
        self.random.pick(&[0o777, 0o777, 0o755, 0o750, 0o700, 0o666, 0o644, 0o640, 0o600, 0o444, 0o000])
    }

    fn slot(&mut self) -> usize {
        self.small(SLOTS as u64)
    }

    fn small(&mut self, bound: u64) -> usize {
        usize::try_from(self.random.below(bound)).unwrap()
    }
}
