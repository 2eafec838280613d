//! The key space. Numbers in keys are big-endian, so that key order is numeric order; numbers in values are
//! little-endian. One letter says what a key is.
//!
//! ```text
//! key                               value                                                   typed access
//! S                                 Superblock (protobuf)                                   superblock
//! Q                                 u64: number of the last commit (the engine's own)       Engine::last_commit
//! U                                 u64 inodes, u64 bytes                                   counters
//! W i                               u64: next inode number                                  counters
//! W c                               u64: next chunk number not yet reserved                 counters
//! W e                               u64: starts of a server so far                          counters
//! I ino:8                           u16 length, InodeFixed                                  inodes
//! D parent:8 hash:7                 { u8 slot, u8 kind, u8 length, u64 ino, name }...       dirents
//! X ino:8 name                      the value                                               attributes
//! L ino:8                           target of a symbolic link                               attributes
//! E ino:8 start:8                   u64 length, u64 chunk, u32 offset in the chunk          extents
//! C chunk:8                         u32 segment, u32 position, u32 length, u32 references   chunk_table
//! G segment:4                       u64 live bytes, u64 live chunks; absent: none           chunk_table
//! O ino:8                           empty: an inode without a name, kept while it is open   sessions
//! M session:16                      u64: highest ticket executed of its local mutations      sessions
//! N session:16                      record of a session, of the session layer's making      sessions
//! R session:16 seq:8                stored result of a mutation                             sessions
//! ```
//!
//! `hash` is the upper 56 bits of the keyed hash of the name ([`super::NameHash`]); names that collide share a value.

use crate::base::{ChunkId, Ino, SegmentId, SessionId};

/// Of the [`super::superblock::Superblock`].
pub const SUPERBLOCK: &[u8] = b"S";
/// Of the number of the last commit: the engine writes it with every commit.
pub const COMMIT: &[u8] = b"Q";
/// Of the usage counters.
pub const USAGE: &[u8] = b"U";
/// Of the next inode number.
pub const NEXT_INO: &[u8] = b"Wi";
/// Of the next chunk number not yet reserved.
pub const NEXT_CHUNK: &[u8] = b"Wc";
/// Of the number of starts of a server.
pub const EPOCH: &[u8] = b"We";

/// The letters of the keys that hold one record per thing.
pub mod letter {
    /// Inodes.
    pub const INODE: u8 = b'I';
    /// Names in directories.
    pub const DIRENT: u8 = b'D';
    /// Extended attributes.
    pub const XATTR: u8 = b'X';
    /// Targets of symbolic links.
    pub const SYMLINK: u8 = b'L';
    /// Extents of files.
    pub const EXTENT: u8 = b'E';
    /// Chunks.
    pub const CHUNK: u8 = b'C';
    /// Segments.
    pub const SEGMENT: u8 = b'G';
    /// Inodes without a name.
    pub const ORPHAN: u8 = b'O';
    /// How far the local mutations of a session were executed.
    pub const MARK: u8 = b'M';
    /// Sessions.
    pub const SESSION: u8 = b'N';
    /// Results of mutations.
    pub const RESULT: u8 = b'R';
}

/// Bytes of a name's hash in a key.
pub const HASH_BYTES: usize = 7;

/// Joins parts of known sizes into a key of a known size.
fn join<const N: usize>(letter: u8, parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    key[0] = letter;
    let mut at = 1;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, N, "parts of key {}", char::from(letter));
    key
}

/// The first key after all that begin with `letter`.
#[must_use]
pub const fn after(letter: u8) -> [u8; 1] {
    [letter + 1]
}

/// Inode `ino`.
#[must_use]
pub fn inode(ino: Ino) -> [u8; 9] {
    join(letter::INODE, &[&ino.0.to_be_bytes()])
}

/// Target of the symbolic link `ino`.
#[must_use]
pub fn symlink(ino: Ino) -> [u8; 9] {
    join(letter::SYMLINK, &[&ino.0.to_be_bytes()])
}

/// Orphan `ino`.
#[must_use]
pub fn orphan(ino: Ino) -> [u8; 9] {
    join(letter::ORPHAN, &[&ino.0.to_be_bytes()])
}

/// The names of directory `parent` whose hash is `hash` (56 bits).
#[must_use]
pub fn dirent(parent: Ino, hash: u64) -> [u8; 16] {
    join(letter::DIRENT, &[&parent.0.to_be_bytes(), &hash.to_be_bytes()[8 - HASH_BYTES..]])
}

/// Extended attribute `name` of `ino`.
#[must_use]
pub fn xattr(ino: Ino, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + name.len());
    key.push(letter::XATTR);
    key.extend_from_slice(&ino.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// The extent of `ino` that begins at byte `start`.
#[must_use]
pub fn extent(ino: Ino, start: u64) -> [u8; 17] {
    join(letter::EXTENT, &[&ino.0.to_be_bytes(), &start.to_be_bytes()])
}

/// Chunk `chunk`.
#[must_use]
pub fn chunk(chunk: ChunkId) -> [u8; 9] {
    join(letter::CHUNK, &[&chunk.0.to_be_bytes()])
}

/// Segment `segment`.
#[must_use]
pub fn segment(segment: SegmentId) -> [u8; 5] {
    join(letter::SEGMENT, &[&segment.0.to_be_bytes()])
}

/// Session `session`.
#[must_use]
pub fn session(session: SessionId) -> [u8; 17] {
    join(letter::SESSION, &[&session.0.to_be_bytes()])
}

/// Mark of session `session`.
#[must_use]
pub fn mark(session: SessionId) -> [u8; 17] {
    join(letter::MARK, &[&session.0.to_be_bytes()])
}

/// Result of mutation `seq` of `session`.
#[must_use]
pub fn result(session: SessionId, seq: u64) -> [u8; 25] {
    join(letter::RESULT, &[&session.0.to_be_bytes(), &seq.to_be_bytes()])
}

/// The end (exclusive) of the keys that begin with `letter` and `number`.
#[must_use]
pub fn after_number(letter: u8, number: u64) -> Vec<u8> {
    match number.checked_add(1) {
        Some(next) => join::<9>(letter, &[&next.to_be_bytes()]).to_vec(),
        None => after(letter).to_vec(),
    }
}

/// The number after the letter, when the key is long enough to have one.
#[must_use]
pub fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk()?))
}

/// The second number of a key, as in an extent's.
#[must_use]
pub fn second_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(9..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::{dirent, extent, inode, number, result, second_number};
    use crate::base::{Ino, SessionId};

    #[test]
    fn key_order_is_numeric_order() {
        let numbers = [0, 1, 255, 256, 1 << 32, u64::MAX];
        assert!(numbers.map(|n| inode(Ino(n))).is_sorted());
        assert!(numbers.map(|n| extent(Ino(7), n)).is_sorted());
        assert!(extent(Ino(7), u64::MAX) < extent(Ino(8), 0));
        assert!(result(SessionId(1), u64::MAX) < result(SessionId(2), 0));
    }

    #[test]
    fn the_drawn_bytes_are_the_bytes() {
        assert_eq!(inode(Ino(0x0102)), *b"I\0\0\0\0\0\0\x01\x02");
        assert_eq!(dirent(Ino(1), 0x00aa_0000_0000_00bb), *b"D\0\0\0\0\0\0\0\x01\xaa\0\0\0\0\0\xbb");
        let key = extent(Ino(3), 4096);
        assert_eq!((number(&key), second_number(&key)), (Some(3), Some(4096)));
        assert_eq!(second_number(&inode(Ino(3))), None);
    }
}
