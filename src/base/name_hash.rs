//! The keyed hash of a file name, and the position (cookie) that it gives the name in its directory.
//!
//! A cookie is `(hash << 7 | slot) + 16`: below 2^63, stable over restarts and over changes of other names. Names with
//! the same hash have slots of their own. The server keeps names by hash; a client that knows the key knows where in a
//! listing a name stands, or would stand.

use super::Name;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Cookies below this one are not used here: 0 is the start of a directory, the first few are for `.` and `..`.
pub const FIRST_COOKIE: u64 = 16;

/// Most names of one directory with the same hash.
pub const SLOTS: u8 = 1 << SLOT_BITS;

const SLOT_BITS: u32 = 7;
const HASH_BITS: u32 = 56;
/// The largest hash: one less than all ones, so that the largest cookie stays a positive number.
pub const HASH_MAX: u64 = (1 << HASH_BITS) - 2;
const _: () = assert!(((HASH_MAX << SLOT_BITS) | (SLOTS as u64 - 1)) + FIRST_COOKIE <= i64::MAX as u64);

/// The hash of names of one volume. Its key is known to the volume's server and clients alone: nobody else can choose
/// names that collide.
#[derive(Clone, Copy)]
pub struct NameHash([u8; 16]);

impl NameHash {
    /// With the volume's key.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// 56 bits.
    #[must_use]
    pub fn hash(&self, name: Name<'_>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(name.bytes());
        (hasher.finish() >> (64 - HASH_BITS)).min(HASH_MAX)
    }

    /// The key, for those who may know it.
    #[must_use]
    pub fn key(&self) -> [u8; 16] {
        self.0
    }
}

impl std::fmt::Debug for NameHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameHash(secret)")
    }
}

/// The cookie of the name in this slot of its hash. All names of one hash lie from slot 0 to slot [`SLOTS`] - 1, without
/// another between them.
#[must_use]
pub fn cookie(hash: u64, slot: u8) -> u64 {
    ((hash << SLOT_BITS) | u64::from(slot)) + FIRST_COOKIE
}

/// The hash whose names stand at or around a cookie. One that was never given out still says where to go on.
#[must_use]
pub fn hash_of(cookie: u64) -> u64 {
    (cookie.saturating_sub(FIRST_COOKIE) >> SLOT_BITS).min(HASH_MAX)
}

#[cfg(test)]
mod tests {
    use super::{FIRST_COOKIE, HASH_MAX, NameHash, SLOTS, cookie, hash_of};
    use crate::base::Name;

    #[test]
    fn a_cookie_leads_back_to_its_hash_and_stays_positive() {
        for hash in [0, 1, 12_345, HASH_MAX] {
            for slot in [0, 1, SLOTS - 1] {
                let at = cookie(hash, slot);
                assert!(at >= FIRST_COOKIE && i64::try_from(at).is_ok());
                assert_eq!(hash_of(at), hash);
            }
        }
        assert_eq!((hash_of(0), hash_of(u64::MAX)), (0, HASH_MAX));
    }

    #[test]
    fn the_hash_depends_on_the_key_and_does_not_change_between_versions() {
        let name = Name::parse(b"name").unwrap();
        let (one, other) = (NameHash::new([1; 16]), NameHash::new([2; 16]));
        assert_ne!(one.hash(name), other.hash(name));
        assert_eq!(one.hash(name), GOLDEN, "stored directories are ordered by it");
        assert_eq!(format!("{one:?}"), "NameHash(secret)");
    }

    const GOLDEN: u64 = 54_967_271_176_023_502;
}
