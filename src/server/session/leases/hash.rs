//! A quick hash for numbers that no stranger chooses freely, with a secret of the process: a local mutation looks several
//! up under the table's lock.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map by inode or session number.
pub(super) type NumberMap<K, V> = HashMap<K, V, Seed>;

/// The secret.
#[derive(Clone)]
pub(super) struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Seed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Multiplies, and folds both halves of the product into one.
pub(super) struct Folded(u64);

/// An odd number without a pattern: the golden ratio's fraction.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of the product, one after the other")]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of the number, one after the other")]
    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
        self.write_u64((number >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    #[test]
    fn neighbours_and_multiples_spread_over_high_and_low_bits() {
        let seed = Seed::default();
        for step in [1_u64, 64, 1 << 20, 1 << 40] {
            let hashes: Vec<u64> = (0..4096).map(|nth| seed.hash_one(nth * step)).collect();
            for part in [0, 57] {
                let seen: HashSet<u64> = hashes.iter().map(|hash| hash >> part & 127).collect();
                assert!(seen.len() > 100, "step {step}, bits from {part}: {} of 128", seen.len());
            }
        }
    }
}
