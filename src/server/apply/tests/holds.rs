//! Open files without a name: over sessions, over a restart.

use super::rig::{ROOT, Rig};
use crate::base::Time;
use crate::base::{Errno, Ino, SessionId};
use crate::server::apply::{Found, Volume, VolumeOptions};
use crate::server::store::{Store, StoreOptions};
use crate::wire::{MakeFlags, Query};
use std::sync::Arc;

const OTHER: SessionId = SessionId(8);

#[test]
fn a_file_lives_until_the_last_session_drops_it() {
    let rig = Rig::new();
    let f = rig.file(ROOT, "f");
    rig.write(f, 0, b"data").unwrap();
    assert!(matches!(rig.volume.query(OTHER, &Query::Hold { ino: f }), Ok(Found::Attr(_))));
    assert_eq!(rig.unlink(ROOT, "f").unwrap().orphan, Some(f));
    rig.release(&[f]);
    assert_eq!(rig.read(f, 0, 9), Ok(b"data".to_vec()), "the other one has it open");
    rig.write(f, 4, b"more").unwrap();
    assert_eq!(rig.volume.query(OTHER, &Query::Drop { inos: vec![f, f, Ino(999)] }), Ok(Found::Empty));
    rig.volume.wait_reaped();
    assert_eq!(rig.read(f, 0, 9), Err(Errno::ESTALE));
    assert_eq!(rig.volume.query(OTHER, &Query::Hold { ino: f }), Err(Errno::ESTALE));
    assert_eq!(rig.volume.usage().unwrap().inodes, 1);
}

#[test]
fn a_session_that_ends_drops_everything() {
    let rig = Rig::new();
    let (f, g) = (rig.file(ROOT, "f"), rig.file(ROOT, "g"));
    for ino in [f, g] {
        rig.volume.query(rig.session, &Query::Hold { ino }).unwrap();
    }
    rig.unlink(ROOT, "f").unwrap();
    rig.volume.put_session(rig.session, b"record").unwrap();
    rig.volume.end_session(rig.session).unwrap();
    rig.volume.wait_reaped();
    assert_eq!(rig.attr(f), Err(Errno::ESTALE));
    assert!(rig.attr(g).is_ok());
    assert_eq!(rig.volume.sessions().unwrap(), []);
    assert_eq!(rig.volume.holds_of(rig.session), 0);
}

fn open(folder: &std::path::Path) -> Volume {
    let store = Store::open(folder, &StoreOptions::new(Time::default(), (0, 0))).unwrap();
    let mut options = VolumeOptions::new(Arc::new(Time::default));
    options.collect_every = None;
    Volume::open(store, options).unwrap()
}

#[test]
fn orphans_survive_a_restart_until_the_grace_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (kept, lost);
    {
        let store = Store::open(&path, &StoreOptions::new(Time::default(), (0, 0))).unwrap();
        let rig = Rig::over(store);
        (kept, lost) = (rig.file(ROOT, "kept"), rig.file(ROOT, "lost"));
        rig.write(kept, 0, b"kept").unwrap();
        rig.unlink(ROOT, "kept").unwrap();
        rig.unlink(ROOT, "lost").unwrap();
        rig.volume.put_session(rig.session, b"host").unwrap();
        rig.volume.close().unwrap();
    }
    let volume = open(&path);
    let session = SessionId(7);
    assert_eq!(volume.sessions().unwrap(), [(session, b"host".to_vec())]);
    assert_eq!(volume.reassert(session, &[kept]), Ok(true));
    assert_eq!(volume.reassert(session, &[Ino(999_999)]), Ok(false));
    volume.wait_reaped();
    assert!(volume.query(session, &Query::GetAttr { ino: lost }).is_ok(), "somebody may still want it");
    volume.end_grace();
    volume.wait_reaped();
    assert_eq!(volume.query(session, &Query::GetAttr { ino: lost }), Err(Errno::ESTALE));
    let read = volume.query(session, &Query::Read { ino: kept, offset: 0, len: 9 });
    assert_eq!(read, Ok(Found::Data(bytes::Bytes::from_static(b"kept"))));
    volume.release(session, &[kept]);
    volume.wait_reaped();
    assert_eq!(volume.usage().unwrap().inodes, 1);
}

#[test]
fn a_session_holds_no_more_than_it_may_and_can_still_remove_and_let_go() {
    let store = Store::memory().unwrap();
    let mut options = VolumeOptions::new(Arc::new(Time::default));
    options.holds_max = 2;
    let rig = Rig::with(Volume::open(store, options).unwrap());
    let inos = ["a", "b", "c"].map(|text| rig.file(ROOT, text));
    let hold = |session, ino| rig.volume.query(session, &Query::Hold { ino }).map(|_| ());
    assert_eq!([0, 1, 2].map(|at| hold(rig.session, inos[at])), [Ok(()), Ok(()), Err(Errno::ENFILE)]);
    assert_eq!(hold(rig.session, inos[0]), Ok(()), "it holds this one already");
    let flags = MakeFlags { hold: true, exclusive: true };
    assert_eq!(rig.make_as(ROOT, "d", libc::S_IFREG | 0o644, 0, flags), Err(Errno::ENFILE));
    assert_eq!(rig.lookup(ROOT, "d"), Err(Errno::ENOENT));
    assert_eq!(hold(OTHER, inos[2]), Ok(()), "the bound is each session's own");
    assert_eq!(rig.unlink(ROOT, "a").map(|done| done.orphan), Ok(Some(inos[0])));
    rig.release(&[inos[0]]);
    assert_eq!(hold(rig.session, inos[2]), Ok(()));
}
