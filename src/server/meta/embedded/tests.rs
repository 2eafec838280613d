use super::{EmbeddedEngine, EmbeddedOptions, newest_journal};
use crate::base::Errno;
use crate::server::meta::{Changes, CommitSeq, Engine, StoreFault, View};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn open(folder: &Path) -> EmbeddedEngine {
    EmbeddedEngine::open(folder, &EmbeddedOptions::default()).unwrap()
}

fn commit(engine: &EmbeddedEngine, key: &str, value: &[u8]) -> CommitSeq {
    let mut changes = Changes::default();
    changes.put(key.as_bytes(), value);
    engine.commit(&changes).unwrap()
}

/// What `kill -9` leaves behind: all that was handed to the system, and nothing else.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn journal(folder: &Path) -> std::path::PathBuf {
    let db = folder.join("db");
    db.join(format!("{}.jnl", newest_journal(&db).unwrap().unwrap()))
}

#[test]
fn a_commit_survives_a_kill_without_any_sync() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("a"));
    for n in 0..100 {
        commit(&engine, &format!("k{n:03}"), &[7; 100]);
    }
    copy(&dir.path().join("a"), &dir.path().join("b"));
    let killed = open(&dir.path().join("b"));
    assert_eq!(killed.last_commit(), CommitSeq(100));
    assert_eq!(killed.get(b"k099").unwrap().as_deref(), Some(&[7; 100][..]));
    assert_eq!(commit(&killed, "more", b""), CommitSeq(101));
}

#[test]
fn a_torn_last_commit_is_dropped_whole() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("a"));
    let mut changes = Changes::default();
    changes.put(b"one", &[1; 50]);
    engine.commit(&changes).unwrap();
    let whole = used(&journal(&dir.path().join("a")));
    changes.put(b"two", &[2; 50]);
    changes.delete(b"one");
    engine.commit(&changes).unwrap();
    let both = used(&journal(&dir.path().join("a")));
    for cut in [whole + 1, whole + 20, both - 1] {
        let copied = dir.path().join(format!("cut{cut}"));
        copy(&dir.path().join("a"), &copied);
        fs::File::options().write(true).open(journal(&copied)).unwrap().set_len(cut).unwrap();
        let torn = open(&copied);
        assert_eq!(torn.last_commit(), CommitSeq(1), "cut at {cut} of {both}");
        assert!(torn.get(b"one").unwrap().is_some() && torn.get(b"two").unwrap().is_none());
    }
}

/// Bytes of a journal before the zeros it is filled up with.
fn used(journal: &Path) -> u64 {
    let bytes = fs::read(journal).unwrap();
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1)
}

#[test]
fn a_journal_cut_short_of_what_was_persisted_is_reported_until_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("a"));
    commit(&engine, "one", &[1; 50]);
    let whole = used(&journal(&dir.path().join("a")));
    commit(&engine, "two", &[2; 50]);
    commit(&engine, "three", &[3; 50]);
    engine.persist().unwrap();
    let copied = dir.path().join("cut");
    copy(&dir.path().join("a"), &copied);
    fs::File::options().write(true).open(journal(&copied)).unwrap().set_len(whole).unwrap();
    let fault = EmbeddedEngine::open(&copied, &EmbeddedOptions::default()).unwrap_err();
    assert!(
        matches!(fault, StoreFault::CommitsLost { persisted: CommitSeq(3), found: CommitSeq(1) }),
        "{fault}"
    );
    let options = EmbeddedOptions { accept_lost_commits: true, ..EmbeddedOptions::default() };
    assert_eq!(EmbeddedEngine::open(&copied, &options).unwrap().last_commit(), CommitSeq(1));
    assert_eq!(open(&copied).last_commit(), CommitSeq(1));
}

#[test]
fn a_flipped_byte_in_the_journal_is_never_read_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("a"));
    for n in 0..20 {
        commit(&engine, &format!("k{n:03}"), &[b'v'; 40]);
    }
    engine.persist().unwrap();
    let end = used(&journal(&dir.path().join("a")));
    let mut refused = 0;
    for at in (0..end).step_by(197) {
        let copied = dir.path().join(format!("flip{at}"));
        copy(&dir.path().join("a"), &copied);
        let file = fs::File::options().read(true).write(true).open(journal(&copied)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let Ok(opened) = EmbeddedEngine::open(&copied, &EmbeddedOptions::default()) else {
            refused += 1;
            continue;
        };
        for n in 0..20 {
            let value = opened.get(format!("k{n:03}").as_bytes()).unwrap();
            assert_eq!(value.as_deref(), Some(&[b'v'; 40][..]), "byte {at}, key {n}");
        }
    }
    assert!(refused > 0, "no flip was noticed");
}

#[test]
fn the_journal_is_where_persist_looks() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    commit(&engine, "needle in the journal", b"");
    let bytes = fs::read(journal(dir.path())).unwrap();
    assert!(bytes.windows(21).any(|window| window == b"needle in the journal"));
    engine.persist().unwrap();
    assert!(super::lock(&engine.persisting).journal.is_some(), "took the slow way");
}

#[test]
fn persist_follows_the_journal_through_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let first = newest_journal(&dir.path().join("db")).unwrap();
    let mut rounds = 0;
    // fjall begins a new journal when a flush finds the old one over 64 MB.
    while newest_journal(&dir.path().join("db")).unwrap() == first {
        rounds += 1;
        assert!(rounds < 4000, "no rotation after {rounds} commits of 64 KiB");
        commit(&engine, &format!("k{rounds}"), &vec![3; 64 << 10]);
        if rounds % 100 == 0 {
            engine.persist().unwrap();
        }
    }
    commit(&engine, "after the rotation", b"");
    engine.persist().unwrap();
    let newest = newest_journal(&dir.path().join("db")).unwrap().unwrap();
    assert_eq!(super::lock(&engine.persisting).journal.as_ref().unwrap().0, newest);
    assert_eq!(super::lock(&engine.persisting).upto, engine.last_commit().0);
    drop(engine);
    let again = open(dir.path());
    assert!(again.get(b"after the rotation").unwrap().is_some());
    assert!(again.get(b"k1").unwrap().is_some());
}

#[test]
fn a_full_disk_refuses_a_commit_and_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&full);
    let room = move |_| if flag.load(Ordering::Relaxed) { Err(Errno::ENOSPC) } else { Ok(()) };
    let options = EmbeddedOptions { room: Arc::new(room), ..EmbeddedOptions::default() };
    let engine = EmbeddedEngine::open(dir.path(), &options).unwrap();
    let mut changes = Changes::default();
    changes.put(b"key", b"value");
    let fault = engine.commit(&changes).unwrap_err();
    assert_eq!(fault.errno(), Errno::ENOSPC);
    assert_eq!(engine.get(b"key").unwrap(), None);
    full.store(false, Ordering::Relaxed);
    assert_eq!(engine.commit(&changes).unwrap(), CommitSeq(1));
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = open(dir.path());
    let fault = EmbeddedEngine::open(dir.path(), &EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(fault, StoreFault::InUse { .. }), "{fault}");
}
