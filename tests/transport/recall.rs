//! What notifications wait for: the order of a recall (R5.2, R5.9) rests on it.

use crate::memory::{Answers, Memory};
use crate::mounted::{Mounted, PATIENCE, eventually, kinds};
use ringfs::base::{Errno, Ino, Name};
use ringfs::kernel::abi::Opcode;
use ringfs::kernel::transport::Notice;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Pages of the mapped file.
const PAGES: u64 = 16;

const LONG: Duration = Duration::from_secs(3600);

/// Sends a notification; its result comes when the kernel has returned from it.
fn notify(memory: &Memory, notice: Notice) -> Receiver<Result<(), Errno>> {
    let (done, result) = channel();
    // Nobody listens any more when the test has failed.
    let completion = Box::new(move |outcome| {
        let _ = done.send(outcome);
    });
    memory.notifier.get().unwrap().send(notice, Some(completion)).unwrap();
    result
}

/// Linux 6.16 has `INC_EPOCH`.
fn has_epochs() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 16) {
        println!("skipped: {release} has no INC_EPOCH");
    }
    version >= (6, 16)
}

/// A recall's notifications: every name is stale, and these inodes' attributes and data.
fn recall(memory: &Memory, inos: impl Iterator<Item = Ino>) -> Vec<Receiver<Result<(), Errno>>> {
    let inode = |ino| notify(memory, Notice::InvalInode { ino, offset: 0, len: 0 });
    std::iter::once(notify(memory, Notice::IncEpoch)).chain(inos.map(inode)).collect()
}

#[test]
fn a_recall_returns_while_a_create_is_unanswered_and_inval_entry_does_not() {
    if !has_epochs() {
        return;
    }
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::with_ttl(Answers::AtOnce, LONG);
        let mounted = Mounted::new(kind, memory.clone());
        let (stop, steps) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 2]);
        std::thread::scope(|scope| {
            // find and touch, as fast as they can, while notifications come.
            let (mounted, stop, steps) = (&mounted, &stop, &steps);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for entry in fs::read_dir(&mounted.dir).unwrap() {
                        let _ = entry.unwrap().metadata();
                    }
                    steps[0].fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = mounted.path(&format!("touched{}", n % 20));
                    fs::write(&path, b"x").unwrap();
                    fs::remove_file(&path).unwrap();
                    steps[1].fetch_add(1, Ordering::Relaxed);
                }
            });
            eventually("both loops run", || steps.iter().all(|n| n.load(Ordering::Relaxed) > 20));
            for round in 0..10 {
                let name = format!("held{round}");
                let path = mounted.path(&name);
                let caller = scope.spawn(move || fs::write(path, b"y"));
                eventually("the create is held", || memory.creates.lock().unwrap().len() == 1);
                let began = Instant::now();
                for returned in recall(&memory, [Ino::ROOT, Ino(2), Ino(3)].into_iter()) {
                    // The kernel says ENOENT of an inode it does not have.
                    assert!(matches!(returned.recv_timeout(PATIENCE), Ok(Ok(()) | Err(Errno::ENOENT))));
                }
                println!("INC_EPOCH and 3 INVAL_INODE: {:?}", began.elapsed());
                // This one needs the directory's lock, which the caller of the create has.
                let parsed = Name::parse(name.as_bytes()).unwrap().to_buf();
                let blocked = notify(&memory, Notice::InvalEntry { parent: Ino::ROOT, name: parsed });
                assert!(blocked.recv_timeout(Duration::from_millis(30)).is_err(), "it waits");
                let began = Instant::now();
                memory.answer_creates();
                assert!(blocked.recv_timeout(PATIENCE).is_ok());
                println!("INVAL_ENTRY after the create's answer: {:?}", began.elapsed());
                caller.join().unwrap().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn after_a_new_epoch_every_name_is_asked_for_again_and_attributes_when_their_inode_is_invalidated() {
    if !has_epochs() {
        return;
    }
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::with_ttl(Answers::AtOnce, LONG);
        let mounted = Mounted::new(kind, memory.clone());
        let file = fs::File::create(mounted.path("name")).unwrap();
        let asked = |op, work: &dyn Fn()| {
            let before = mounted.running().counters().of(op);
            work();
            mounted.running().counters().of(op) - before
        };
        let by_name = || {
            fs::metadata(mounted.path("name")).unwrap();
        };
        let by_descriptor = || {
            file.metadata().unwrap();
        };
        assert_eq!(asked(Opcode::Lookup, &by_name), 0, "the name is cached");
        assert_eq!(asked(Opcode::Getattr, &by_descriptor), 0, "the attributes are");
        let returned = notify(&memory, Notice::IncEpoch);
        assert_eq!(returned.recv_timeout(PATIENCE).unwrap(), Ok(()));
        assert_eq!(asked(Opcode::Getattr, &by_descriptor), 0, "an epoch is for names alone");
        assert_eq!(asked(Opcode::Lookup, &by_name), 1);
        assert_eq!(asked(Opcode::Lookup, &by_name), 0, "it is cached again");
        let ino = Ino(file.metadata().unwrap().ino());
        let returned = notify(&memory, Notice::InvalInode { ino, offset: -1, len: 0 });
        assert_eq!(returned.recv_timeout(PATIENCE).unwrap(), Ok(()));
        assert_eq!(asked(Opcode::Getattr, &by_descriptor), 1);
        assert_eq!(asked(Opcode::Getattr, &by_descriptor), 0);
        assert_eq!(asked(Opcode::Lookup, &by_name), 0, "an inode's attributes are no names");
    }
}

#[test]
fn a_recall_of_a_mapped_file_returns_while_it_is_written_and_keeps_every_store() {
    for kind in kinds() {
        println!("{kind}");
        let memory = Memory::with_ttl(Answers::AtOnce, LONG);
        let mounted = Mounted::new(kind, memory.clone());
        fs::write(mounted.path("mapped"), vec![0; 1 << 16]).unwrap();
        let ino = Ino(fs::metadata(mounted.path("mapped")).unwrap().ino());
        let stop = AtomicBool::new(false);
        let (mut slowest, mut rounds) = (Duration::ZERO, 0_u64);
        std::thread::scope(|scope| {
            let (dir, stop) = (&mounted.dir, &stop);
            let writer = scope.spawn(move || write_mapped(dir, stop));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(fs::read(dir.join("mapped")).unwrap().len(), 1 << 16);
                }
            });
            while rounds < 200 {
                let began = Instant::now();
                let returned = notify(&memory, Notice::InvalInode { ino, offset: 0, len: 0 });
                assert!(returned.recv_timeout(PATIENCE).is_ok());
                slowest = slowest.max(began.elapsed());
                rounds += 1;
            }
            stop.store(true, Ordering::Relaxed);
            let stores = writer.join().unwrap();
            println!("{rounds} INVAL_INODE among {stores} stores, slowest {slowest:?}");
        });
    }
}

/// Stores rising numbers through a shared mapping, each where the one of a round before must still stand, until
/// `stop`; says how many.
#[allow(unsafe_code, reason = "memmap2 cannot know who else changes the file")]
fn write_mapped(dir: &Path, stop: &AtomicBool) -> u64 {
    let file = fs::File::options().read(true).write(true).open(dir.join("mapped")).unwrap();
    // SAFETY: the file is this test's own, nobody makes it shorter, and nobody else writes to it.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
    let mut stored = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let at = usize::try_from(stored % PAGES).unwrap() * 4096;
        let place = &mut map[at..at + 8];
        let before = u64::from_le_bytes((&*place).try_into().unwrap());
        assert_eq!(before, if stored < PAGES { 0 } else { stored - PAGES + 1 }, "a store was lost");
        stored += 1;
        place.copy_from_slice(&stored.to_le_bytes());
    }
    stored
}
