//! What is known of the names in one directory: a map from cookie to entry, and the ranges of cookies in which no other
//! name exists.

use crate::base::name_hash::{SLOTS, cookie};
use crate::base::{Ino, Kind, Name};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Names that fit into the entry itself.
const SHORT_BYTES: usize = 21;

/// Most ranges of one directory: what failed lookups in a huge one leave behind must not grow for ever.
const RANGES_MAX: usize = 1 << 16;

/// A name and the type of what it stands for.
enum Packed {
    Short { kind: Kind, len: u8, bytes: [u8; SHORT_BYTES] },
    Long { kind: Kind, bytes: Box<[u8]> },
}

/// An entry.
pub(super) struct Entry {
    pub(super) ino: Ino,
    name: Packed,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    fn new(name: &[u8], ino: Ino, kind: Kind) -> Self {
        let mut bytes = [0; SHORT_BYTES];
        let name = match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(name);
                Packed::Short { kind, len, bytes }
            }
            _ => Packed::Long { kind, bytes: name.into() },
        };
        Self { ino, name }
    }

    pub(super) fn name(&self) -> &[u8] {
        match &self.name {
            Packed::Short { len, bytes, .. } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Packed::Long { bytes, .. } => bytes,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.name {
            Packed::Short { kind, .. } | Packed::Long { kind, .. } => *kind,
        }
    }
}

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It stands for this inode.
    Is {
        /// Where it stands.
        cookie: u64,
        ino: Ino,
        kind: Kind,
    },
    /// It does not exist.
    Absent,
    /// The server must be asked.
    Unknown,
}

/// See the module.
#[derive(Default)]
pub(super) struct Directory {
    names: BTreeMap<u64, Entry>,
    /// Ends of the known ranges by their starts, both inclusive; no two touch.
    known: BTreeMap<u64, u64>,
}

/// All cookies that a name with this hash can have.
fn bucket(hash: u64) -> RangeInclusive<u64> {
    cookie(hash, 0)..=cookie(hash, SLOTS - 1)
}

impl Directory {
    /// Nothing is known.
    pub(super) fn is_unknown(&self) -> bool {
        self.names.is_empty() && self.known.is_empty()
    }

    /// Nothing but what is known exists.
    pub(super) fn complete(&mut self) {
        self.known.clear();
        self.known.insert(0, u64::MAX);
    }

    /// How many names it has, if all are known.
    pub(super) fn entries(&self) -> Option<u64> {
        (self.known.get(&0) == Some(&u64::MAX)).then_some(self.names.len() as u64)
    }

    /// How many names are known.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The known names, in order of their cookies.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.names.values()
    }

    /// The known entries after `cookie`, each with its cookie, up to the end of the known range in which they lie; that end
    /// too. `None`: not known what follows.
    pub(super) fn after(&self, cookie: u64) -> Option<(impl Iterator<Item = (u64, &Entry)>, u64)> {
        let from = cookie.saturating_add(1);
        let end = self.end_of_range(from)?;
        Some((self.names.range(from..=end).map(|(cookie, entry)| (*cookie, entry)), end))
    }

    /// Looks a name up.
    pub(super) fn find(&self, hash: u64, name: Name<'_>) -> Found {
        // Where nearly every name stands.
        let first = cookie(hash, 0);
        match self.names.get(&first) {
            Some(entry) if entry.name() == name.bytes() => {
                Found::Is { cookie: first, ino: entry.ino, kind: entry.kind() }
            }
            _ => self.look(hash, name).0,
        }
    }

    /// The same, and whether no other name has this hash. Where one does, the slot that the server gives to a new name
    /// is not for the client to guess.
    pub(super) fn look(&self, hash: u64, name: Name<'_>) -> (Found, bool) {
        let bucket = bucket(hash);
        let (mut found, mut alone) = (None, true);
        for (cookie, entry) in self.names.range(*bucket.start()..) {
            if cookie > bucket.end() {
                break;
            }
            if entry.name() == name.bytes() {
                found = Some(Found::Is { cookie: *cookie, ino: entry.ino, kind: entry.kind() });
            } else {
                alone = false;
            }
        }
        let known = || self.end_of_range(*bucket.start()).is_some_and(|end| end >= *bucket.end());
        (found.unwrap_or_else(|| if known() { Found::Absent } else { Found::Unknown }), alone)
    }

    /// `name`, of which `found` is known, stands for `ino` from now on. It keeps its cookie.
    pub(super) fn put(&mut self, hash: u64, found: Found, name: Name<'_>, ino: Ino, kind: Kind) {
        let at = match found {
            Found::Is { cookie, .. } => cookie,
            Found::Absent | Found::Unknown => cookie(hash, 0),
        };
        self.names.insert(at, Entry::new(name.bytes(), ino, kind));
    }

    /// What stands at this cookie goes away.
    pub(super) fn take(&mut self, cookie: u64) {
        self.names.remove(&cookie);
    }

    /// The server says: between the cookies `from` and `to`, both exclusive where there is a listing before, these names
    /// exist and no others.
    pub(super) fn learn<'e>(
        &mut self,
        range: RangeInclusive<u64>,
        entries: impl Iterator<Item = (u64, &'e [u8], Ino, Kind)>,
    ) {
        if range.is_empty() {
            return;
        }
        if self.names.range(range.clone()).next().is_some() {
            let old: Vec<u64> = self.names.range(range.clone()).map(|(cookie, _)| *cookie).collect();
            for cookie in old {
                self.names.remove(&cookie);
            }
        }
        for (cookie, name, ino, kind) in entries.filter(|(cookie, ..)| range.contains(cookie)) {
            self.names.insert(cookie, Entry::new(name, ino, kind));
        }
        self.know(range);
    }

    /// The server says: there is no such name.
    pub(super) fn learn_absent(&mut self, hash: u64, name: Name<'_>) {
        if let Found::Is { cookie, .. } = self.find(hash, name) {
            self.names.remove(&cookie);
        }
        if self.known.len() < RANGES_MAX && self.names.range(bucket(hash)).next().is_none() {
            self.know(bucket(hash));
        }
    }

    /// Nothing is known of this name any more.
    pub(super) fn forget(&mut self, hash: u64) {
        let bucket = bucket(hash);
        while let Some((&cookie, _)) = self.names.range(bucket.clone()).next() {
            self.names.remove(&cookie);
        }
        if let Some((&start, &end)) = self.known.range(..=*bucket.end()).next_back()
            && end >= *bucket.start()
        {
            self.known.remove(&start);
            if start < *bucket.start() {
                self.known.insert(start, bucket.start() - 1);
            }
            if end > *bucket.end() {
                self.known.insert(bucket.end() + 1, end);
            }
        }
    }

    fn end_of_range(&self, at: u64) -> Option<u64> {
        self.known.range(..=at).next_back().map(|(_, end)| *end).filter(|end| *end >= at)
    }

    /// Adds a range, and makes one of it and those it meets.
    fn know(&mut self, range: RangeInclusive<u64>) {
        let (mut start, mut end) = range.into_inner();
        while let Some((&s, &e)) = self.known.range(..=end.saturating_add(1)).next_back() {
            if e.saturating_add(1) < start {
                break;
            }
            self.known.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.known.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::{Directory, Found, SHORT_BYTES, bucket};
    use crate::base::name_hash::cookie;
    use crate::base::{Ino, Kind, Name};

    fn name(text: &str) -> Name<'_> {
        Name::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn pieces_of_a_listing_join_into_the_whole() {
        let mut dir = Directory::default();
        let at = |hash| cookie(hash, 0);
        dir.learn(0..=at(5), [(at(5), &b"a"[..], Ino(2), Kind::File)].into_iter());
        dir.learn(at(9) + 1..=u64::MAX, std::iter::empty());
        assert_eq!((dir.entries(), dir.known.len()), (None, 2));
        assert_eq!(dir.find(7, name("b")), Found::Unknown);
        dir.learn(at(5) + 1..=at(9), [(at(9), &b"c"[..], Ino(3), Kind::Symlink)].into_iter());
        assert_eq!((dir.entries(), dir.known.len()), (Some(2), 1));
        assert_eq!(dir.find(7, name("b")), Found::Absent);
        assert_eq!(dir.find(9, name("c")), Found::Is { cookie: at(9), ino: Ino(3), kind: Kind::Symlink });
        dir.forget(7);
        assert_eq!((dir.find(7, name("b")), dir.find(6, name("x"))), (Found::Unknown, Found::Absent));
        dir.learn_absent(7, name("b"));
        assert_eq!((dir.entries(), dir.known.len()), (Some(2), 1));
    }

    #[test]
    fn half_a_bucket_says_nothing_of_a_name_that_may_stand_in_the_other_half() {
        let mut dir = Directory::default();
        dir.learn(0..=cookie(5, 0), [(cookie(5, 0), &b"a"[..], Ino(2), Kind::File)].into_iter());
        assert_eq!(dir.find(5, name("b")), Found::Unknown);
        assert_eq!(dir.find(4, name("b")), Found::Absent);
        dir.learn(cookie(5, 0) + 1..=u64::MAX, [(cookie(5, 1), &b"b"[..], Ino(3), Kind::File)].into_iter());
        let alone = |hash, text| dir.look(hash, name(text)).1;
        assert!(!alone(5, "a") && !alone(5, "new") && alone(4, "new"));
        let mut all = Vec::new();
        let (entries, end) = dir.after(0).unwrap();
        all.extend(entries.map(|(_, entry)| entry.name().to_vec()));
        assert_eq!((all, end), (vec![b"a".to_vec(), b"b".to_vec()], u64::MAX));
    }

    #[test]
    fn names_of_every_length_come_back() {
        let mut dir = Directory::default();
        for len in [1, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, 255] {
            let long = "n".repeat(len);
            dir.put(len as u64, Found::Absent, name(&long), Ino(len as u64), Kind::File);
            let found = dir.find(len as u64, name(&long));
            let cookie = *bucket(len as u64).start();
            assert_eq!(found, Found::Is { cookie, ino: Ino(len as u64), kind: Kind::File });
        }
    }
}
