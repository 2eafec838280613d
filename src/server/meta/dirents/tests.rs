use super::{Target, encode, find, list, put, remove};
use crate::base::name_hash::{FIRST_COOKIE, HASH_MAX, NameHash, SLOTS, cookie};
use crate::base::{Ino, Kind, Name, NameBuf};
use crate::server::meta::{StoreFault, Txn, View, WriteTxn, keys, memory::MemoryEngine};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const HASH: NameHash = NameHash::new([7; 16]);
const DIR: Ino = Ino(5);

fn file(ino: u64) -> Target {
    Target { ino: Ino(ino), kind: Kind::File }
}

fn listed(view: &dyn View, after: u64) -> Vec<(u64, NameBuf, Ino)> {
    let mut names = Vec::new();
    list(view, DIR, after, &mut |entry| {
        names.push((entry.cookie, entry.name.to_buf(), entry.ino));
        ControlFlow::Continue(())
    })
    .unwrap();
    names
}

/// A bucket of `DIR` as if `names` had the same hash.
fn collide(txn: &mut dyn Txn, hash: u64, names: &[(u8, &[u8])]) {
    let bucket: Vec<_> = names
        .iter()
        .map(|&(slot, name)| super::Entry {
            slot,
            target: file(u64::from(slot)),
            name: Name::parse(name).unwrap(),
        })
        .collect();
    txn.put(&keys::dirent(DIR, hash), &encode(&bucket));
}

#[test]
fn cookies_are_positive_and_leave_room_for_the_dots() {
    assert_eq!(cookie(0, 0), FIRST_COOKIE);
    assert!(i64::try_from(cookie(HASH_MAX, SLOTS - 1)).is_ok());
}

#[test]
fn names_that_collide_keep_their_places_and_gaps_are_filled() {
    let engine = MemoryEngine::new();
    let mut txn = WriteTxn::new(&engine);
    let name = Name::parse(b"newcomer").unwrap();
    let hash = HASH.hash(name);
    collide(&mut txn, hash, &[(0, b"a"), (2, b"c")]);
    assert_eq!(find(&txn, &HASH, DIR, name).unwrap(), None);
    assert_eq!(put(&mut txn, &HASH, DIR, name, file(9)).unwrap(), None);
    let order: Vec<_> =
        listed(&txn, 0).iter().map(|(cookie, _, ino)| ((cookie - FIRST_COOKIE) & 127, ino.0)).collect();
    assert_eq!(order, [(0, 0), (1, 9), (2, 2)]);
    assert_eq!(put(&mut txn, &HASH, DIR, name, file(10)).unwrap(), Some(file(9)));
    assert_eq!(listed(&txn, listed(&txn, 0)[0].0).len(), 2);
    assert_eq!(remove(&mut txn, &HASH, DIR, name).unwrap(), Some(file(10)));
    assert_eq!(listed(&txn, 0).len(), 2);
}

#[test]
fn a_full_bucket_refuses_one_more_name() {
    let engine = MemoryEngine::new();
    let mut txn = WriteTxn::new(&engine);
    let name = Name::parse(b"one too many").unwrap();
    let names: Vec<String> = (0..SLOTS).map(|slot| format!("n{slot}")).collect();
    let all: Vec<(u8, &[u8])> = (0..SLOTS).zip(names.iter().map(String::as_bytes)).collect();
    collide(&mut txn, HASH.hash(name), &all);
    assert!(matches!(put(&mut txn, &HASH, DIR, name, file(1)), Err(StoreFault::Collisions { parent: DIR })));
}

#[test]
fn damaged_buckets_are_faults() {
    let engine = MemoryEngine::new();
    let name = Name::parse(b"x").unwrap();
    let whole = encode(&[super::Entry { slot: 0, target: file(3), name }]);
    let mut bad_slot = whole.clone();
    bad_slot[0] = SLOTS;
    let mut bad_kind = whole.clone();
    bad_kind[1] = 15;
    let mut bad_name = whole.clone();
    bad_name[11] = b'/';
    for damaged in [&whole[..whole.len() - 1], &whole[..2], &bad_slot, &bad_kind, &bad_name] {
        let mut txn = WriteTxn::new(&engine);
        txn.put(&keys::dirent(DIR, HASH.hash(name)), damaged);
        assert!(find(&txn, &HASH, DIR, name).is_err());
        assert!(list(&txn, DIR, 0, &mut |_| ControlFlow::Continue(())).is_err());
        assert!(put(&mut txn, &HASH, DIR, name, file(4)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is added and removed, a listing in pieces shows every name that stayed, once.
    #[test]
    fn a_listing_in_pieces_never_loses_or_repeats_a_name(
        before in proptest::collection::btree_set("[a-z]{1,3}", 0..40),
        changed in proptest::collection::vec(("[a-z]{1,3}", any::<bool>()), 0..40),
        piece in 1usize..7,
    ) {
        let engine = MemoryEngine::new();
        let mut txn = WriteTxn::new(&engine);
        let mut model = BTreeMap::new();
        for (ino, name) in (1..).zip(&before) {
            put(&mut txn, &HASH, DIR, Name::parse(name.as_bytes()).unwrap(), file(ino)).unwrap();
            put(&mut txn, &HASH, Ino(DIR.0 + 1), Name::parse(name.as_bytes()).unwrap(), file(ino)).unwrap();
            model.insert(name.clone(), ino);
        }
        let mut changes = changed.iter();
        let mut touched = std::collections::BTreeSet::new();
        let mut seen = Vec::new();
        let mut after = 0;
        loop {
            let part: Vec<_> = listed(&txn, after).into_iter().take(piece).collect();
            let Some(last) = part.last() else { break };
            after = last.0;
            seen.extend(part.into_iter().map(|(_, name, _)| String::from_utf8(name.as_name().bytes().to_vec()).unwrap()));
            for (name, add) in changes.by_ref().take(2) {
                let parsed = Name::parse(name.as_bytes()).unwrap();
                touched.insert(name.clone());
                let old = if *add {
                    put(&mut txn, &HASH, DIR, parsed, file(999)).unwrap()
                } else {
                    remove(&mut txn, &HASH, DIR, parsed).unwrap()
                };
                prop_assert_eq!(old.map(|target| target.ino.0), model.get(name).copied());
                if *add { model.insert(name.clone(), 999) } else { model.remove(name) };
            }
        }
        for name in &before {
            let times = seen.iter().filter(|found| *found == name).count();
            prop_assert!(times == 1 || touched.contains(name) && times <= 2, "{name} shown {times} times");
        }
        let names: BTreeMap<_, _> = listed(&txn, 0).into_iter()
            .map(|(_, name, ino)| (String::from_utf8(name.as_name().bytes().to_vec()).unwrap(), ino.0)).collect();
        prop_assert_eq!(names, model);
    }
}
