//! The writes of one transaction.

use super::{Value, keys::letter};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::ops::Bound;

/// The writes of one transaction, at most one per key: a value, or `None` for a removal.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// In the order in which the keys were first written.
    writes: Vec<(Value, Option<Value>)>,
    /// Where each key stands in `writes`.
    places: FxHashMap<Value, usize>,
    /// The keys among them that begin with one of [`SCANNED`].
    ordered: BTreeSet<Value>,
}

/// Of these keys mutations scan ranges. A range of others is put in order when it is asked for.
const SCANNED: [u8; 2] = [letter::EXTENT, letter::XATTR];

/// What a write replaced.
#[derive(Debug)]
pub(super) struct Undo {
    place: usize,
    /// `None`: the key was not written before.
    before: Option<Option<Value>>,
}

impl Changes {
    /// Sets `key`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let _kept = self.set(key, Some(Value::from(value)));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &[u8]) {
        let _kept = self.set(key, None);
    }

    /// Writes `key`; the result takes that back.
    pub(super) fn set(&mut self, key: &[u8], value: Option<Value>) -> Undo {
        if let Some(&place) = self.places.get(key) {
            let before = std::mem::replace(&mut self.writes[place].1, value);
            return Undo { place, before: Some(before) };
        }
        let (key, place) = (Value::from(key), self.writes.len());
        if key.first().is_some_and(|letter| SCANNED.contains(letter)) {
            self.ordered.insert(key.clone());
        }
        self.places.insert(key.clone(), place);
        self.writes.push((key, value));
        Undo { place, before: None }
    }

    /// Takes a write back. All later ones have been taken back before.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo.before {
            Some(before) => self.writes[undo.place].1 = before,
            None => {
                let newest = self.writes.pop();
                let (key, _) = newest.filter(|_| self.writes.len() == undo.place).expect("the newest key");
                self.places.remove(&key);
                self.ordered.remove(&key);
            }
        }
    }

    /// What is written at `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Value>> {
        self.places.get(key).map(|&place| &self.writes[place].1)
    }

    /// The writes in `from..to`, in key order.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> Vec<(&Value, &Option<Value>)> {
        let scanned = from.first().filter(|letter| SCANNED.contains(letter));
        if scanned.is_some_and(|&letter| *to <= *[letter + 1].as_slice()) {
            let keys = self.ordered.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
            return keys.filter_map(|key| Some((key, self.get(key)?))).collect();
        }
        let inside = |key: &[u8]| from <= key && key < to;
        let mut found: Vec<_> =
            self.writes.iter().filter(|(key, _)| inside(key)).map(|(key, write)| (key, write)).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found
    }

    /// The writes, each key once, in no order that matters.
    pub fn iter(&self) -> impl Iterator<Item = (&Value, Option<&Value>)> {
        self.writes.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// How many keys are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().map(|(key, value)| (key.len() + value.map_or(0, |v| v.len())) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Changes;
    use crate::server::meta::Value;

    #[test]
    fn ranges_are_in_key_order_whatever_they_begin_with_and_writes_can_be_taken_back() {
        let mut changes = Changes::default();
        for key in [&b"E3"[..], b"E1", b"F", b"D9", b"E2", b"X1", b"D1"] {
            changes.put(key, b"first");
        }
        let before = changes.clone();
        let undo = [b"E2", b"E0", b"E2", b"D1", b"D5"].map(|key| changes.set(key, None));
        let keys = |changes: &Changes, from: &[u8], to: &[u8]| {
            changes.range(from, to).iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&changes, b"E", b"F"), [b"E0", b"E1", b"E2", b"E3"]);
        assert_eq!(keys(&changes, b"E1", b"E3"), [b"E1", b"E2"]);
        assert_eq!(keys(&changes, b"D2", b"E2"), [&b"D5"[..], b"D9", b"E0", b"E1"]);
        assert_eq!(keys(&changes, b"E3", b"Y"), [&b"E3"[..], b"F", b"X1"]);
        assert_eq!(changes.get(b"E2"), Some(&None));
        for undo in undo.into_iter().rev() {
            changes.undo(undo);
        }
        assert_eq!(keys(&changes, b"", b"\xff"), keys(&before, b"", b"\xff"));
        assert_eq!(changes.get(b"E2"), Some(&Some(Value::from(&b"first"[..]))));
        assert_eq!((changes.get(b"E0"), changes.len()), (None, 7));
    }
}
