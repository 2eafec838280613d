//! Where each inode's node is: an open table of places, four bytes a slot. The inode numbers stand in the nodes.

use crate::base::Ino;

/// A slot holds a place plus one; 0 is free. Whoever collides stands in one of the next slots, without a gap.
#[derive(Default)]
pub(super) struct Index {
    slots: Box<[u32]>,
    len: usize,
}

const SLOTS_MIN: usize = 16;

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place of `ino`. `at` says which inode a place belongs to.
    pub(super) fn find(&self, ino: Ino, at: impl Fn(u32) -> Ino) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.home(ino);
        while let Some(place) = self.slots[slot].checked_sub(1) {
            if at(place) == ino {
                return Some(place);
            }
            slot = self.next(slot);
        }
        None
    }

    /// Adds an inode that is not there. False: there is no number left for the place.
    #[must_use]
    pub(super) fn insert(&mut self, ino: Ino, place: u32, at: impl Fn(u32) -> Ino) -> bool {
        let Some(value) = place.checked_add(1) else { return false };
        if self.len + 1 > self.slots.len() / 8 * 7 {
            self.grow(at);
        }
        self.put(ino, value);
        self.len += 1;
        true
    }

    /// Removes an inode; its place.
    pub(super) fn remove(&mut self, ino: Ino, at: impl Fn(u32) -> Ino) -> Option<u32> {
        let place = self.find(ino, &at)?;
        let mut hole = self.home(ino);
        while self.slots[hole] != place + 1 {
            hole = self.next(hole);
        }
        self.len -= 1;
        // Those behind move up, so that nobody is cut off from where he belongs.
        let mut slot = self.next(hole);
        while let Some(other) = self.slots[slot].checked_sub(1) {
            let home = self.home(at(other));
            if self.distance(home, slot) >= self.distance(hole, slot) {
                self.slots[hole] = other + 1;
                hole = slot;
            }
            slot = self.next(slot);
        }
        self.slots[hole] = 0;
        Some(place)
    }

    /// All places.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter_map(|slot| slot.checked_sub(1))
    }

    fn grow(&mut self, at: impl Fn(u32) -> Ino) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![0; slots].into());
        for value in old.into_iter().filter(|value| *value != 0) {
            self.put(at(value - 1), value);
        }
    }

    fn put(&mut self, ino: Ino, value: u32) {
        let mut slot = self.home(ino);
        while self.slots[slot] != 0 {
            slot = self.next(slot);
        }
        self.slots[slot] = value;
    }

    /// The slot where a search begins: the upper bits of a product (Fibonacci hashing). The number of slots is a power of two.
    fn home(&self, ino: Ino) -> usize {
        let mixed = ino.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(mixed).unwrap_or(0) & (self.slots.len() - 1)
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Index;
    use crate::base::Ino;
    use std::collections::BTreeMap;

    #[test]
    fn it_finds_what_a_map_finds() {
        let (mut index, mut map, mut at) = (Index::default(), BTreeMap::new(), Vec::<Ino>::new());
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            // Few numbers, some of which begin in the same slot.
            let ino = Ino(((state >> 40) % 700) << ((state >> 33) % 3 * 16));
            if let Some(place) = map.remove(&ino) {
                assert_eq!(index.remove(ino, |place| at[place as usize]), Some(place));
            } else {
                let place = u32::try_from(at.len()).unwrap();
                at.push(ino);
                assert!(index.insert(ino, place, |place| at[place as usize]));
                map.insert(ino, place);
            }
            assert_eq!(index.len(), map.len());
            assert_eq!(index.find(ino, |place| at[place as usize]), map.get(&ino).copied());
        }
        for (ino, place) in &map {
            assert_eq!(index.find(*ino, |place| at[place as usize]), Some(*place));
        }
        assert_eq!(index.places().count(), map.len());
    }
}
