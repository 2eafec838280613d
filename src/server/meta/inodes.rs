//! Inodes: who a file is, without its bytes and names.

use super::{Order, StoreFault, Txn, View, keys};
use crate::base::posix::{Attributes, Fields};
use crate::base::{Attr, Ino, Kind, Time};
use std::ops::ControlFlow;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An inode as the server holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Type and permission bits.
    pub mode: u32,
    /// Names; of a directory 2 + its subdirectories; 0 without a name (an orphan).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file.
    pub rdev: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Length in bytes; of a symbolic link that of its target.
    pub size: u64,
    /// Bytes its extents cover.
    pub data_bytes: u64,
    /// Of a directory: the one it is in (the root: itself). Of another file: one it is or was in.
    pub parent: Ino,
    /// Of a directory: how many names it holds.
    pub entries: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// Bits of [`Inode::flags`].
pub mod flags {
    /// It has extended attributes (without it none need be looked for).
    pub const HAS_XATTR: u32 = 1;
    /// It has a POSIX ACL.
    pub const HAS_ACL: u32 = 2;
    /// It was made without a name (`O_TMPFILE`) and may still get one.
    pub const LINKABLE: u32 = 4;
}

impl Inode {
    /// A new one without a name: no links for a file, 2 for a directory; all times `now`.
    #[must_use]
    pub fn new(ino: Ino, mode: u32, owner: (u32, u32), parent: Ino, now: Time) -> Self {
        let nlink = if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 0 };
        Self {
            ino,
            mode,
            nlink,
            uid: owner.0,
            gid: owner.1,
            rdev: 0,
            flags: 0,
            size: 0,
            data_bytes: 0,
            parent,
            entries: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        }
    }

    /// What stat(2) tells.
    #[must_use]
    pub fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            blocks: self.data_bytes.div_ceil(512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
        }
    }

    /// Type of the file. Decoding refuses a mode without one.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode).unwrap_or(Kind::File)
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

impl Attributes for Inode {
    fn fields(&mut self) -> Fields<'_> {
        Fields {
            mode: &mut self.mode,
            uid: &mut self.uid,
            gid: &mut self.gid,
            size: &mut self.size,
            atime: &mut self.atime,
            mtime: &mut self.mtime,
            ctime: &mut self.ctime,
        }
    }
}

/// The stored part, after its length (u16). Later versions append fields: a shorter record reads as zeros there,
/// the tail of a longer one is not looked at.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Default)]
#[repr(C)]
struct InodeFixed {
    mode: U32,
    nlink: U32,
    uid: U32,
    gid: U32,
    rdev: U32,
    flags: U32,
    size: U64,
    data_bytes: U64,
    parent: U64,
    entries: U64,
    secs: [I64; 4],
    nanos: [U32; 4],
}

const FIXED_BYTES: usize = size_of::<InodeFixed>();
/// Length of the shortest record ever written.
const FIXED_BYTES_MIN: usize = 104;
/// [`FIXED_BYTES`], as the record says it.
const FIXED_BYTES_U16: u16 = 104;
const _: () = assert!(FIXED_BYTES == FIXED_BYTES_U16 as usize && FIXED_BYTES >= FIXED_BYTES_MIN);

fn encode(inode: &Inode) -> [u8; 2 + FIXED_BYTES] {
    let times = [inode.atime, inode.mtime, inode.ctime, inode.btime];
    let fixed = InodeFixed {
        mode: inode.mode.into(),
        nlink: inode.nlink.into(),
        uid: inode.uid.into(),
        gid: inode.gid.into(),
        rdev: inode.rdev.into(),
        flags: inode.flags.into(),
        size: inode.size.into(),
        data_bytes: inode.data_bytes.into(),
        parent: inode.parent.0.into(),
        entries: inode.entries.into(),
        secs: times.map(|time| time.secs.into()),
        nanos: times.map(|time| time.nanos.into()),
    };
    let mut bytes = [0; 2 + FIXED_BYTES];
    bytes[..2].copy_from_slice(&FIXED_BYTES_U16.to_le_bytes());
    bytes[2..].copy_from_slice(fixed.as_bytes());
    bytes
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<Inode, StoreFault> {
    let damaged = |why| StoreFault::damaged(key, why);
    let ino = Ino(keys::number(key).ok_or_else(|| damaged("key has no inode number"))?);
    let Some((prefix, body)) = bytes.split_first_chunk::<2>() else {
        return Err(damaged("shorter than its length field"));
    };
    if body.len() != usize::from(u16::from_le_bytes(*prefix)) || body.len() < FIXED_BYTES_MIN {
        return Err(damaged("another length than it says"));
    }
    let mut fixed = InodeFixed::default();
    let known = body.len().min(FIXED_BYTES);
    fixed.as_mut_bytes()[..known].copy_from_slice(&body[..known]);
    let time = |at: usize| Time { secs: fixed.secs[at].get(), nanos: fixed.nanos[at].get() };
    let mode = fixed.mode.get();
    if Kind::from_mode(mode).is_err() {
        return Err(damaged("mode without a file type"));
    }
    Ok(Inode {
        ino,
        mode,
        nlink: fixed.nlink.get(),
        uid: fixed.uid.get(),
        gid: fixed.gid.get(),
        rdev: fixed.rdev.get(),
        flags: fixed.flags.get(),
        size: fixed.size.get(),
        data_bytes: fixed.data_bytes.get(),
        parent: Ino(fixed.parent.get()),
        entries: fixed.entries.get(),
        atime: time(0),
        mtime: time(1),
        ctime: time(2),
        btime: time(3),
    })
}

/// The inode, if it exists.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn get(view: &dyn View, ino: Ino) -> Result<Option<Inode>, StoreFault> {
    let key = keys::inode(ino);
    view.get(&key)?.map(|bytes| decode(&key, &bytes)).transpose()
}

/// Stores it.
pub fn put(txn: &mut dyn Txn, inode: &Inode) {
    txn.put(&keys::inode(inode.ino), &encode(inode));
}

/// Removes it; its names, extents, attributes and usage are the caller's concern.
pub fn delete(txn: &mut dyn Txn, ino: Ino) {
    txn.delete(&keys::inode(ino));
}

/// Visits all inodes from `from` on, in order of number. A damaged one is handed over as its fault.
///
/// # Errors
/// The store cannot be read.
pub fn each(
    view: &dyn View,
    from: Ino,
    visit: &mut dyn FnMut(Result<Inode, StoreFault>) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    let end = keys::after(keys::letter::INODE);
    view.scan(&keys::inode(from), &end, Order::Forward, &mut |key, value| visit(decode(key, value)))
}

#[cfg(test)]
mod tests {
    use super::{FIXED_BYTES_MIN, Inode, decode, encode};
    use crate::base::{Ino, Time};
    use crate::server::meta::keys;

    fn sample() -> Inode {
        let now = Time { secs: -5, nanos: 999_999_999 };
        let mut inode = Inode::new(Ino(77), libc::S_IFREG | 0o640, (1000, 100), Ino(2), now);
        inode.size = 1 << 40;
        inode.data_bytes = 4097;
        inode.mtime = Time { secs: i64::MAX, nanos: 1 };
        inode
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let inode = sample();
        assert_eq!(decode(&keys::inode(inode.ino), &encode(&inode)).unwrap(), inode);
        assert_eq!(inode.attr().blocks, 9);
    }

    #[test]
    fn a_longer_record_of_a_later_version_reads_and_a_torn_one_does_not() {
        let inode = sample();
        let key = keys::inode(inode.ino);
        let mut longer = encode(&inode).to_vec();
        longer.extend_from_slice(b"later");
        let len = u16::try_from(longer.len() - 2).unwrap();
        longer[..2].copy_from_slice(&len.to_le_bytes());
        assert_eq!(decode(&key, &longer).unwrap(), inode);

        let whole = encode(&inode);
        for len in 0..2 + FIXED_BYTES_MIN {
            assert!(decode(&key, &whole[..len]).is_err(), "{len}");
        }
        assert!(decode(b"I", &whole).is_err());
        let mut no_type = sample();
        no_type.mode = 0o644;
        assert!(decode(&key, &encode(&no_type)).is_err());
    }
}
