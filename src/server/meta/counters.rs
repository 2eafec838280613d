//! Counters in keys of their own, so that they change in the transaction of what they count.

use super::{StoreFault, Txn, View, keys};
use crate::base::{ChunkId, Ino};

/// What the volume holds: `df` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Inodes, orphans among them.
    pub inodes: u64,
    /// Sum of [`super::inodes::Inode::data_bytes`].
    pub bytes: u64,
}

/// The usage counters.
///
/// # Errors
/// They cannot be read or are damaged.
pub fn usage(view: &dyn View) -> Result<Usage, StoreFault> {
    let Some(bytes) = view.get(keys::USAGE)? else { return Ok(Usage::default()) };
    let damaged = || StoreFault::damaged(keys::USAGE, "not two numbers");
    let (inodes, bytes) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let bytes: &[u8; 8] = bytes.try_into().map_err(|_| damaged())?;
    Ok(Usage { inodes: u64::from_le_bytes(*inodes), bytes: u64::from_le_bytes(*bytes) })
}

/// Stores the usage counters.
pub fn put_usage(txn: &mut dyn Txn, usage: Usage) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&usage.inodes.to_le_bytes());
    bytes[8..].copy_from_slice(&usage.bytes.to_le_bytes());
    txn.put(keys::USAGE, &bytes);
}

/// Writes what a transaction counted. Counters that would leave the range of numbers were wrong before: they stop at its
/// end, and `ringfs fsck --repair` counts anew.
pub(super) fn count(txn: &mut dyn Txn, inodes: i64, bytes: i64) -> Result<(), StoreFault> {
    if inodes == 0 && bytes == 0 {
        return Ok(());
    }
    let old = match usage(txn) {
        Err(fault @ StoreFault::Damaged { .. }) => {
            tracing::error!(%fault, "what the volume holds is not known");
            return Ok(());
        }
        other => other?,
    };
    let new = old.inodes.checked_add_signed(inodes).zip(old.bytes.checked_add_signed(bytes));
    if new.is_none() {
        tracing::error!(
            ?old,
            inodes,
            bytes,
            "the volume counts less than it holds; run `ringfs fsck --repair`"
        );
    }
    let inodes = old.inodes.saturating_add_signed(inodes);
    put_usage(txn, Usage { inodes, bytes: old.bytes.saturating_add_signed(bytes) });
    Ok(())
}

/// First inode number given to a file; below are the root and numbers for the future.
pub const FIRST_INO: Ino = Ino(16);

/// Inode numbers end here; the bits above say the volume, 0 until there are several in one store.
pub const LAST_INO: Ino = Ino((1 << 48) - 1);

/// The next inode number that nobody has.
///
/// # Errors
/// The store cannot be read, or has given out all numbers.
pub fn next_ino(view: &dyn View) -> Result<Ino, StoreFault> {
    Ok(Ino(number(view, keys::NEXT_INO)?.unwrap_or(FIRST_INO.0)))
}

/// Takes `count` inode numbers that nobody had; returns the first.
///
/// # Errors
/// The store cannot be read, or has given out all numbers.
pub fn take_inos(txn: &mut dyn Txn, count: u64) -> Result<Ino, StoreFault> {
    let first = next_ino(txn)?;
    let next = first.0.checked_add(count).filter(|&next| next <= LAST_INO.0);
    let next = next.ok_or_else(|| StoreFault::damaged(keys::NEXT_INO, "no inode numbers left"))?;
    put_next_ino(txn, Ino(next));
    Ok(first)
}

/// Sets the next inode number.
pub fn put_next_ino(txn: &mut dyn Txn, next: Ino) {
    txn.put(keys::NEXT_INO, &next.0.to_le_bytes());
}

/// The next chunk number that nobody has.
///
/// # Errors
/// The store cannot be read.
pub fn next_chunk(view: &dyn View) -> Result<ChunkId, StoreFault> {
    Ok(ChunkId(number(view, keys::NEXT_CHUNK)?.unwrap_or(1)))
}

/// Sets the next chunk number.
pub fn put_next_chunk(txn: &mut dyn Txn, next: ChunkId) {
    txn.put(keys::NEXT_CHUNK, &next.0.to_le_bytes());
}

/// Takes `count` chunk numbers that nobody had; returns the first.
///
/// # Errors
/// The store cannot be read, or has given out all numbers.
pub fn take_chunks(txn: &mut dyn Txn, count: u64) -> Result<ChunkId, StoreFault> {
    let first = next_chunk(txn)?;
    let next = first.0.checked_add(count);
    let next = next.ok_or_else(|| StoreFault::damaged(keys::NEXT_CHUNK, "no chunk numbers left"))?;
    put_next_chunk(txn, ChunkId(next));
    Ok(first)
}

/// Counts one more start of a server; the first one is 1.
///
/// # Errors
/// The store cannot be read.
pub fn next_epoch(txn: &mut dyn Txn) -> Result<u64, StoreFault> {
    let last = number(txn, keys::EPOCH)?.unwrap_or(0);
    let epoch = last.checked_add(1).ok_or_else(|| StoreFault::damaged(keys::EPOCH, "no number left"))?;
    txn.put(keys::EPOCH, &epoch.to_le_bytes());
    Ok(epoch)
}

fn number(view: &dyn View, key: &[u8]) -> Result<Option<u64>, StoreFault> {
    let Some(bytes) = view.get(key)? else { return Ok(None) };
    let bytes: [u8; 8] = bytes[..].try_into().map_err(|_| StoreFault::damaged(key, "not a number"))?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::{FIRST_INO, Usage, take_inos, usage};
    use crate::base::Ino;
    use crate::server::meta::{Txn, WriteTxn, memory::MemoryEngine};

    #[test]
    fn numbers_are_taken_once_and_usage_never_wraps() {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        assert_eq!(take_inos(&mut txn, 3).unwrap(), FIRST_INO);
        assert_eq!(take_inos(&mut txn, 1).unwrap(), Ino(FIRST_INO.0 + 3));
        txn.add_usage(2, 100);
        let before = txn.savepoint();
        txn.add_usage(70, 700);
        txn.rollback(before);
        txn.add_usage(-1, -100);
        txn.commit().unwrap();
        assert_eq!(usage(&engine).unwrap(), Usage { inodes: 1, bytes: 0 });
        let mut txn = WriteTxn::new(&engine);
        txn.add_usage(1, -1);
        txn.commit().unwrap();
        assert_eq!(usage(&engine).unwrap(), Usage { inodes: 2, bytes: 0 });
    }
}
