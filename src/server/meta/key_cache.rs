//! Values of the keys that mutations ask for, as they were last written or read: a look into the engine's sorted files
//! costs as much as the change it is made for, and what is changed was mostly made or looked at a moment ago.
//!
//! The cache says only what is committed. Whoever writes tells it before the engine ([`KeyCache::begin`]) and after it
//! ([`Commit::done`]); a value that was read from the engine while that went on may be of before, and is not kept.

use super::{Changes, Value, keys::letter};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use rustc_hash::FxBuildHasher;
use std::sync::{PoisonError, RwLock};

/// What an entry takes besides the bytes of its key and value: both handles, the place in the map, and the header of
/// the value's bytes.
const ENTRY_BYTES: usize = 112;

/// Bytes of an entry with a usual name, for the first size of the map.
const USUAL_BYTES: usize = 180;

#[derive(Clone)]
struct Weigh;

impl Weighter<Value, Value> for Weigh {
    fn weight(&self, key: &Value, value: &Value) -> u64 {
        (ENTRY_BYTES + key.len() + value.len()) as u64
    }
}

/// See the module.
pub(super) struct KeyCache {
    values: Cache<Value, Value, Weigh, FxBuildHasher>,
    /// Steps of commits: odd while one is on its way. Held for reading while a value that was read is kept.
    steps: RwLock<u64>,
}

/// A commit on its way. Dropped, it failed: nothing that is known counts any more.
pub(super) struct Commit<'c> {
    cache: &'c KeyCache,
    done: bool,
}

/// Which keys are kept: those that are asked for one by one, which is of extents only the first one of a file.
fn keeps(key: &[u8]) -> bool {
    match key.first() {
        Some(&(letter::INODE | letter::DIRENT | letter::CHUNK)) => true,
        Some(&letter::EXTENT) => key.ends_with(&[0; 8]),
        _ => false,
    }
}

impl KeyCache {
    /// One that takes about `bytes`; of 0 it keeps nothing.
    pub(super) fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes).unwrap_or(usize::MAX) / USUAL_BYTES;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usual)
            .weight_capacity(bytes)
            .build()
            .expect("both capacities are given");
        let values = Cache::with_options(options, Weigh, FxBuildHasher, DefaultLifecycle::default());
        Self { values, steps: RwLock::new(0) }
    }

    /// The value of `key`: what is known, or what `read` finds in the engine.
    pub(super) fn get<E>(
        &self,
        key: &[u8],
        read: impl FnOnce() -> Result<Option<Value>, E>,
    ) -> Result<Option<Value>, E> {
        if !keeps(key) {
            return read();
        }
        if let Some(value) = self.values.get(key) {
            return Ok(Some(value));
        }
        let before = *self.steps.read().unwrap_or_else(PoisonError::into_inner);
        let found = read()?;
        if let Some(value) = &found {
            let now = self.steps.read().unwrap_or_else(PoisonError::into_inner);
            if *now == before && before.is_multiple_of(2) {
                self.values.insert(Value::from(key), value.clone());
            }
        }
        Ok(found)
    }

    /// A commit is on its way to the engine. One at a time.
    pub(super) fn begin(&self) -> Commit<'_> {
        self.step();
        Commit { cache: self, done: false }
    }

    fn step(&self) {
        *self.steps.write().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl Commit<'_> {
    /// The engine has it.
    pub(super) fn done(mut self, changes: &Changes) {
        for (key, value) in changes.iter().filter(|(key, _)| keeps(key)) {
            match value {
                Some(value) => self.cache.values.insert(key.clone(), value.clone()),
                None => drop(self.cache.values.remove(&**key)),
            }
        }
        self.done = true;
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.cache.values.clear();
        }
        self.cache.step();
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, KeyCache, Value};
    use std::convert::Infallible;

    fn value(text: &str) -> Value {
        Value::from(text.as_bytes())
    }

    /// What is known of `key`, if the engine is not asked.
    fn known(cache: &KeyCache, key: &[u8]) -> Option<Value> {
        cache.get(key, || Ok::<_, Infallible>(None)).unwrap()
    }

    fn changes(writes: &[(&[u8], Option<&str>)]) -> Changes {
        let mut changes = Changes::default();
        for (key, write) in writes {
            match write {
                Some(text) => changes.put(key, text.as_bytes()),
                None => changes.delete(key),
            }
        }
        changes
    }

    #[test]
    fn what_is_committed_or_read_is_known_and_what_is_removed_is_not() {
        let cache = KeyCache::new(1 << 20);
        cache.begin().done(&changes(&[(b"I1", Some("a")), (b"D1", Some("b")), (b"U", Some("c"))]));
        assert_eq!(known(&cache, b"I1"), Some(value("a")));
        assert_eq!(known(&cache, b"D1"), Some(value("b")));
        assert_eq!(known(&cache, b"U"), None, "not asked for by mutations");
        assert_eq!(cache.get(b"I2", || Ok::<_, Infallible>(Some(value("d")))), Ok(Some(value("d"))));
        assert_eq!(known(&cache, b"I2"), Some(value("d")));
        cache.begin().done(&changes(&[(b"I1", None), (b"I2", Some("e"))]));
        assert_eq!(known(&cache, b"I1"), None);
        assert_eq!(known(&cache, b"I2"), Some(value("e")));
    }

    #[test]
    fn what_is_read_while_a_commit_is_on_its_way_is_not_kept() {
        let cache = KeyCache::new(1 << 20);
        let old = || Ok::<_, Infallible>(Some(value("old")));
        let commit = cache.begin();
        assert_eq!(cache.get(b"I1", old), Ok(Some(value("old"))));
        assert_eq!(known(&cache, b"I1"), None);
        commit.done(&changes(&[(b"I2", Some("new"))]));
        // A whole commit between the look and the keeping.
        let read = || {
            cache.begin().done(&changes(&[(b"I1", Some("new"))]));
            old()
        };
        assert_eq!(cache.get(b"I1", read), Ok(Some(value("old"))));
        assert_eq!(known(&cache, b"I1"), Some(value("new")));
    }

    #[test]
    fn a_commit_that_fails_leaves_nothing_known() {
        let cache = KeyCache::new(1 << 20);
        cache.begin().done(&changes(&[(b"I1", Some("a"))]));
        drop(cache.begin());
        assert_eq!(known(&cache, b"I1"), None);
        cache.begin().done(&changes(&[(b"I1", Some("b"))]));
        assert_eq!(known(&cache, b"I1"), Some(value("b")));
    }

    #[test]
    fn it_takes_no_more_than_it_may() {
        let cache = KeyCache::new(64 << 10);
        for nth in 0..10_000u32 {
            let key = [&b"I"[..], &nth.to_be_bytes()].concat();
            cache.begin().done(&changes(&[(&key, Some("some value"))]));
        }
        let (kept, taken) = (cache.values.len(), cache.values.weight());
        assert!(kept > 100 && taken <= 64 << 10, "{kept} values of {taken} bytes");
    }
}
