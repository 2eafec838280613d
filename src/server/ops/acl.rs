//! POSIX ACLs as the kernel passes them (`struct posix_acl_xattr_header`): how they and the mode follow each other.
//!
//! ```text
//! 0  u32 version (2)      4  { u16 tag, u16 permissions, u32 id }...      little-endian
//! ```
//! Checking an access against an ACL is the kernel's part; here is `fs/posix_acl.c` for creation, chmod and setting.

use super::Try;
use crate::base::{Errno, posix};
use crate::server::meta::{Inode, Txn, View, attributes, inodes};

/// Extended attribute of the access ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Extended attribute of the default ACL.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A list whose form was checked: entries in order, exactly one for owner, group and others, a mask where there are
/// named users or groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads a value. `None` is a list without entries: the same as no ACL.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Errno> {
        let (version, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (raw, odd) = rest.as_chunks::<8>();
        if !odd.is_empty() {
            return Err(Errno::EINVAL);
        }
        let entries: Vec<Entry> = raw
            .iter()
            .map(|e| Entry {
                tag: u16::from_le_bytes([e[0], e[1]]),
                perm: u16::from_le_bytes([e[2], e[3]]),
                id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
            })
            .collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self(entries);
        acl.check()?;
        Ok(Some(acl))
    }

    /// `posix_acl_valid`.
    fn check(&self) -> Result<(), Errno> {
        let count = |tag| self.0.iter().filter(|e| e.tag == tag).count();
        let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        let ordered = self.0.is_sorted_by_key(|e| e.tag);
        let plain = self.0.iter().all(|e| known.contains(&e.tag) && e.perm <= 7);
        let single = [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&tag| count(tag) == 1) && count(MASK) <= 1;
        let masked = count(USER) + count(GROUP) == 0 || count(MASK) == 1;
        if ordered && plain && single && masked { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for e in &self.0 {
            bytes.extend_from_slice(&e.tag.to_le_bytes());
            bytes.extend_from_slice(&e.perm.to_le_bytes());
            bytes.extend_from_slice(&e.id.to_le_bytes());
        }
        bytes
    }

    /// The permission bits it stands for, and whether they say all of it (`posix_acl_equiv_mode`).
    pub(super) fn mode(&self) -> (u32, bool) {
        let mut mode = 0;
        for e in &self.0 {
            match e.tag {
                USER_OBJ => mode |= u32::from(e.perm) << 6,
                GROUP_OBJ => mode |= u32::from(e.perm) << 3,
                OTHER => mode |= u32::from(e.perm),
                _ => {}
            }
        }
        let mask = self.0.iter().find(|e| e.tag == MASK);
        if let Some(mask) = mask {
            mode = mode & !0o070 | u32::from(mask.perm) << 3;
        }
        let whole = self.0.iter().all(|e| matches!(e.tag, USER_OBJ | GROUP_OBJ | OTHER));
        (mode, whole)
    }

    /// chmod: owner, mask (or group) and others follow the mode (`__posix_acl_chmod_masq`).
    fn chmod(&mut self, mode: u32) {
        let masked = self.0.iter().any(|e| e.tag == MASK);
        for e in &mut self.0 {
            let bits = match e.tag {
                USER_OBJ => mode >> 6,
                GROUP_OBJ if !masked => mode >> 3,
                MASK => mode >> 3,
                OTHER => mode,
                _ => continue,
            };
            e.perm = perm(bits);
        }
    }

    /// Creation: permissions both in the default ACL and in the mode asked for (`posix_acl_create_masq`). Returns the
    /// permission bits of the new inode.
    fn create(&mut self, mode: u32) -> u32 {
        let masked = self.0.iter().any(|e| e.tag == MASK);
        let mut left = 0;
        for e in &mut self.0 {
            let shift = match e.tag {
                USER_OBJ => 6,
                GROUP_OBJ if !masked => 3,
                MASK => 3,
                OTHER => 0,
                _ => continue,
            };
            e.perm &= perm(mode >> shift);
            left |= u32::from(e.perm) << shift;
        }
        left
    }
}

fn perm(bits: u32) -> u16 {
    u16::try_from(bits & 7).unwrap_or(0)
}

/// What a new inode gets from its directory.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) mode: u32,
    pub(super) access: Option<Acl>,
    pub(super) default: Option<Acl>,
}

/// `posix_acl_create`: with a default ACL in the directory it decides, else the umask.
pub(super) fn inherit(view: &dyn View, dir: &Inode, mode: u32, umask: u32) -> Try<Inherited> {
    let Some(default) = load(view, dir, DEFAULT)? else {
        return Ok(Inherited { mode: posix::masked(mode, umask), ..Inherited::default() });
    };
    let mut access = default.clone();
    let mode = mode & !0o777 | access.create(mode);
    let (_, whole) = access.mode();
    Ok(Inherited { mode, access: (!whole).then_some(access), default: Some(default) })
}

/// The ACL of an inode; most have none, which its flags say.
pub(super) fn load(view: &dyn View, inode: &Inode, name: &[u8]) -> Try<Option<Acl>> {
    if inode.flags & inodes::flags::HAS_ACL == 0 {
        return Ok(None);
    }
    match attributes::xattr(view, inode.ino, name)? {
        // Checked before it was stored; if damage made it unreadable, no permission may come from guessing.
        Some(bytes) => Ok(Acl::parse(&bytes).map_err(|_| Errno::EIO)?),
        None => Ok(None),
    }
}

/// Stores an ACL; the inode's record is the caller's to store.
pub(super) fn store(txn: &mut dyn Txn, inode: &mut Inode, name: &[u8], acl: &Acl) {
    attributes::put_xattr(txn, inode.ino, name, &acl.encode());
    inode.flags |= inodes::flags::HAS_ACL | inodes::flags::HAS_XATTR;
}

/// After chmod: the access ACL follows.
pub(super) fn follow_chmod(txn: &mut dyn Txn, inode: &mut Inode) -> Try<()> {
    if let Some(mut acl) = load(txn, inode, ACCESS)? {
        acl.chmod(inode.mode);
        store(txn, inode, ACCESS, &acl);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Acl, Entry, GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ};
    use crate::base::Errno;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect())
    }

    fn named() -> Acl {
        acl(&[
            (USER_OBJ, 7, u32::MAX),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, u32::MAX),
            (GROUP, 7, 100),
            (MASK, 7, u32::MAX),
            (OTHER, 4, u32::MAX),
        ])
    }

    #[test]
    fn a_list_reads_as_it_was_written_and_a_malformed_one_is_refused() {
        let good = named();
        assert_eq!(Acl::parse(&good.encode()), Ok(Some(good.clone())));
        assert_eq!(Acl::parse(&2u32.to_le_bytes()), Ok(None));
        assert_eq!(Acl::parse(&3u32.to_le_bytes()), Err(Errno::EOPNOTSUPP));
        let bytes = good.encode();
        assert_eq!(Acl::parse(&bytes[..bytes.len() - 1]), Err(Errno::EINVAL));
        let no_mask = acl(&[(USER_OBJ, 7, 0), (USER, 6, 1), (GROUP_OBJ, 5, 0), (OTHER, 4, 0)]);
        let twice = acl(&[(USER_OBJ, 7, 0), (USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 4, 0)]);
        let wide = acl(&[(USER_OBJ, 8, 0), (GROUP_OBJ, 5, 0), (OTHER, 4, 0)]);
        for bad in [no_mask, twice, wide, acl(&[(OTHER, 4, 0)])] {
            assert_eq!(Acl::parse(&bad.encode()), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn the_mode_follows_the_list_and_the_list_the_mode() {
        assert_eq!(named().mode(), (0o774, false));
        assert_eq!(acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]).mode(), (0o640, true));
        let mut list = named();
        list.chmod(0o751);
        assert_eq!(list.mode(), (0o751, false));
        assert_eq!(list.0[2].perm, 5, "the group's own entry stays, the mask moves");
    }

    #[test]
    fn creation_keeps_what_both_the_default_and_the_mode_allow() {
        let mut list = named();
        assert_eq!(list.create(0o664), 0o664);
        assert_eq!(list.0[4].perm, 6);
        let mut plain = acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(plain.create(0o666), 0o640);
    }
}
