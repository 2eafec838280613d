//! readdir: bounded pieces, stable positions.

use super::rig::{ROOT, Rig};
use crate::base::Errno;
use crate::server::apply::Found;
use crate::wire::{Query, answer};
use std::collections::BTreeSet;

#[test]
fn a_large_directory_comes_in_pieces_and_each_name_once() {
    let rig = Rig::new();
    let d = rig.dir(ROOT, "d");
    let count = 3_000;
    for i in 0..count {
        rig.file(d, &format!("name-{i}"));
    }
    let bytes_max = 4096;
    let (mut seen, mut cookie, mut pieces) = (BTreeSet::new(), 0, 0);
    loop {
        let query = Query::ReadDir { ino: d, cookie, bytes_max, plus: true };
        let result = rig.ask(&query);
        let mut body = Vec::new();
        assert!(Found::encode(&result, &mut body).is_empty());
        assert!(body.len() <= bytes_max as usize, "{} bytes", body.len());
        let Ok(Found::Listing(list)) = result else { panic!("no listing") };
        for entry in list.entries() {
            assert!(entry.cookie > cookie && entry.cookie > 2);
            assert_eq!(entry.attr.unwrap().ino, entry.ino);
            assert!(seen.insert(entry.name.to_vec()));
            cookie = entry.cookie;
        }
        pieces += 1;
        if list.is_end() {
            break;
        }
    }
    assert_eq!(seen.len(), count);
    assert!(pieces > 10);
}

#[test]
fn a_listing_goes_on_where_it_was_while_names_come_and_go() {
    let rig = Rig::new();
    let d = rig.dir(ROOT, "d");
    for i in 0..100 {
        rig.file(d, &format!("keep-{i}"));
        rig.file(d, &format!("drop-{i}"));
    }
    let before = rig.names(d, 100_000);
    let (_, _, middle) = before[100];
    for i in 0..100 {
        rig.unlink(d, &format!("drop-{i}")).unwrap();
        rig.file(d, &format!("new-{i}"));
    }
    let Ok(Found::Listing(rest)) =
        rig.ask(&Query::ReadDir { ino: d, cookie: middle, bytes_max: 100_000, plus: false })
    else {
        panic!("no listing")
    };
    let rest: BTreeSet<String> =
        rest.entries().map(|e| String::from_utf8_lossy(e.name).into_owned()).collect();
    for (name, _, cookie) in before.iter().filter(|(name, ..)| name.starts_with("keep")) {
        assert_eq!(rest.contains(name), *cookie > middle, "{name}");
    }
}

#[test]
fn a_listing_needs_room_for_one_name_and_a_directory() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "file");
    let list = |ino, bytes_max| rig.ask(&Query::ReadDir { ino, cookie: 0, bytes_max, plus: false });
    assert_eq!(list(f, 4096), Err(Errno::ENOTDIR));
    assert_eq!(list(ROOT, 10), Err(Errno::EINVAL));
    let one = u32::try_from(answer::entry_bytes(4, false) + 64).unwrap();
    assert!(matches!(list(ROOT, one), Ok(Found::Listing(list)) if list.is_end()));
    let d = rig.dir(ROOT, "d");
    assert!(matches!(list(d, 10), Ok(Found::Listing(list)) if list.is_end()), "nothing needs no room");
    let names: Vec<_> = rig.names(ROOT, 4096).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), 2);
}
