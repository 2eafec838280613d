//! Names in directories, in buckets by a keyed hash, so that a directory of any size is read in pieces whose
//! positions never move.
//!
//! Positions are cookies ([`crate::base::name_hash`]). The order of a listing is the order of the keys. Counting the
//! names ([`super::inodes::Inode::entries`]) is the caller's task, which writes the directory's inode anyway.

use super::{Order, StoreFault, Txn, View, keys};
use crate::base::name_hash::{NameHash, SLOTS, cookie, hash_of};
use crate::base::{Ino, Kind, Name};
use std::ops::ControlFlow;

/// One name in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dirent<'n> {
    /// The name.
    pub name: Name<'n>,
    /// Whose name it is.
    pub ino: Ino,
    /// Type of that inode.
    pub kind: Kind,
    /// Position of this name; a listing goes on after it.
    pub cookie: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The inode.
    pub ino: Ino,
    /// Its type.
    pub kind: Kind,
}

/// Bytes of an entry before its name.
const ENTRY_FIXED_BYTES: usize = 11;

/// An entry of a bucket, before it is known to which hash it belongs.
#[derive(Clone, Copy)]
struct Entry<'b> {
    slot: u8,
    target: Target,
    name: Name<'b>,
}

impl<'b> Entry<'b> {
    /// As found by a check of the whole store: also in the right bucket.
    fn checked(self, key: &[u8], hash: &NameHash, bits: u64) -> Result<Dirent<'b>, StoreFault> {
        if hash.hash(self.name) != bits {
            return Err(StoreFault::damaged(key, "a name with another hash"));
        }
        let Target { ino, kind } = self.target;
        Ok(Dirent { name: self.name, ino, kind, cookie: cookie(bits, self.slot) })
    }
}

/// Reads a bucket; a damaged one gives one fault and ends.
fn entries<'b>(key: &'b [u8], mut bytes: &'b [u8]) -> impl Iterator<Item = Result<Entry<'b>, StoreFault>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = split_entry(bytes);
        bytes = entry.map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry).ok_or_else(|| StoreFault::damaged(key, "not a list of names")))
    })
}

fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (&[slot, kind, len], rest) = bytes.split_first_chunk::<3>()?;
    let (ino, rest) = rest.split_first_chunk::<8>()?;
    let (name, rest) = rest.split_at_checked(usize::from(len))?;
    let name = Name::parse(name).ok()?;
    let kind = Kind::from_mode(u32::from(kind) << 12).ok()?;
    let target = Target { ino: Ino(u64::from_le_bytes(*ino)), kind };
    (slot < SLOTS).then_some((Entry { slot, target, name }, rest))
}

fn encode(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bucket =
        Vec::with_capacity(entries.iter().map(|e| ENTRY_FIXED_BYTES + e.name.bytes().len()).sum());
    for Entry { slot, target, name } in entries {
        let kind = u8::try_from(target.kind.mode_bits() >> 12).expect("four bits");
        let len = u8::try_from(name.bytes().len()).expect("a name has at most 255 bytes");
        bucket.extend_from_slice(&[*slot, kind, len]);
        bucket.extend_from_slice(&target.ino.0.to_le_bytes());
        bucket.extend_from_slice(name.bytes());
    }
    bucket
}

/// What `name` in `parent` stands for.
///
/// # Errors
/// The directory cannot be read or is damaged.
pub fn find(
    view: &dyn View,
    hash: &NameHash,
    parent: Ino,
    name: Name<'_>,
) -> Result<Option<Target>, StoreFault> {
    let key = keys::dirent(parent, hash.hash(name));
    let Some(bucket) = view.get(&key)? else { return Ok(None) };
    for entry in entries(&key, &bucket) {
        let entry = entry?;
        if entry.name == name {
            return Ok(Some(entry.target));
        }
    }
    Ok(None)
}

/// Sets what `name` in `parent` stands for; returns what it stood for before. A name that is replaced keeps its cookie.
///
/// # Errors
/// The directory cannot be read or is damaged; [`StoreFault::Collisions`] when [`SLOTS`] other names have its hash.
pub fn put(
    txn: &mut dyn Txn,
    hash: &NameHash,
    parent: Ino,
    name: Name<'_>,
    target: Target,
) -> Result<Option<Target>, StoreFault> {
    let key = keys::dirent(parent, hash.hash(name));
    let old = txn.get(&key)?.unwrap_or_default();
    if old.is_empty() {
        txn.put(&key, &encode(&[Entry { slot: 0, target, name }]));
        return Ok(None);
    }
    let mut bucket = entries(&key, &old).collect::<Result<Vec<_>, _>>()?;
    let replaced = match bucket.iter_mut().find(|entry| entry.name == name) {
        Some(entry) => Some(std::mem::replace(&mut entry.target, target)),
        None => {
            // In order of slots, so the first entry that is not in its own place marks the first free slot.
            let places = bucket.iter().zip(0..);
            let slot = places.take_while(|(entry, place)| entry.slot == *place).count();
            let free = u8::try_from(slot).ok().filter(|&free| free < SLOTS);
            let free = free.ok_or(StoreFault::Collisions { parent })?;
            bucket.insert(slot, Entry { slot: free, target, name });
            None
        }
    };
    txn.put(&key, &encode(&bucket));
    Ok(replaced)
}

/// Removes `name` from `parent`; returns what it stood for.
///
/// # Errors
/// The directory cannot be read or is damaged.
pub fn remove(
    txn: &mut dyn Txn,
    hash: &NameHash,
    parent: Ino,
    name: Name<'_>,
) -> Result<Option<Target>, StoreFault> {
    let key = keys::dirent(parent, hash.hash(name));
    let Some(old) = txn.get(&key)? else { return Ok(None) };
    let mut bucket = entries(&key, &old).collect::<Result<Vec<_>, _>>()?;
    let Some(at) = bucket.iter().position(|entry| entry.name == name) else { return Ok(None) };
    let removed = bucket.remove(at);
    if bucket.is_empty() {
        txn.delete(&key);
    } else {
        txn.put(&key, &encode(&bucket));
    }
    Ok(Some(removed.target))
}

/// Visits the names of `parent` after position `after` (0: all of them), in order of position.
///
/// # Errors
/// The directory cannot be read or is damaged.
pub fn list(
    view: &dyn View,
    parent: Ino,
    after: u64,
    visit: &mut dyn FnMut(Dirent<'_>) -> ControlFlow<()>,
) -> Result<(), StoreFault> {
    // A cookie that was never given out says where to go on, nothing more.
    let from = keys::dirent(parent, hash_of(after));
    let end = keys::after_number(keys::letter::DIRENT, parent.0);
    let mut fault = None;
    view.scan(&from, &end, Order::Forward, &mut |key, bucket| {
        let flow = list_bucket(key, bucket, after, visit);
        flow.unwrap_or_else(|found| {
            fault = Some(found);
            ControlFlow::Break(())
        })
    })?;
    fault.map_or(Ok(()), Err)
}

fn list_bucket(
    key: &[u8],
    bucket: &[u8],
    after: u64,
    visit: &mut dyn FnMut(Dirent<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreFault> {
    let (_, hash) = parse_key(key).ok_or_else(|| StoreFault::damaged(key, "not the key of a name"))?;
    for entry in entries(key, bucket) {
        let Entry { slot, target: Target { ino, kind }, name } = entry?;
        let cookie = cookie(hash, slot);
        if cookie > after && visit(Dirent { name, ino, kind, cookie }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Parent and hash of a key.
fn parse_key(key: &[u8]) -> Option<(Ino, u64)> {
    let parent = keys::number(key)?;
    let hash: &[u8; keys::HASH_BYTES] = key.get(9..)?.try_into().ok()?;
    let mut wide = [0; 8];
    wide[1..].copy_from_slice(hash);
    Some((Ino(parent), u64::from_be_bytes(wide)))
}

/// Visits all names of all directories, in order of parent. A damaged bucket is handed over as its fault.
///
/// # Errors
/// The store cannot be read.
pub fn each(
    view: &dyn View,
    hash: &NameHash,
    visit: &mut dyn FnMut(Ino, Result<Dirent<'_>, StoreFault>),
) -> Result<(), StoreFault> {
    let (from, end) = ([keys::letter::DIRENT], keys::after(keys::letter::DIRENT));
    view.scan(&from, &end, Order::Forward, &mut |key, bucket| {
        let Some((parent, bits)) = parse_key(key) else {
            visit(Ino(0), Err(StoreFault::damaged(key, "not the key of a name")));
            return ControlFlow::Continue(());
        };
        for entry in entries(key, bucket) {
            visit(parent, entry.and_then(|entry| entry.checked(key, hash, bits)));
        }
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
mod tests;
