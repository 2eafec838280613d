//! What programs do on a mount.

use crate::memory::{Answers, Memory};
use crate::mounted::{Mounted, eventually, kinds};
use ringfs::kernel::abi::Opcode;
use ringfs::kernel::transport::{Choice, End, Kind, Options};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Runs `script` over every transport, with answers at once and from another thread.
fn everywhere(script: impl Fn(&Mounted, &Memory)) {
    for kind in kinds() {
        for answers in [Answers::AtOnce, Answers::FromAnotherThread] {
            println!("{kind}, {answers:?}");
            let memory = Memory::new(answers);
            let mounted = Mounted::new(kind, memory.clone());
            assert_eq!(mounted.running().kind(), kind);
            script(&mounted, &memory);
            let counters = mounted.running().monitor();
            assert_eq!(mounted.unmount(), End::Unmounted);
            assert_eq!(memory.destroyed.load(Ordering::SeqCst), 1);
            let counters = counters.counters();
            assert_eq!(counters.deferred, counters.late_replies, "{counters:?}");
        }
    }
}

#[test]
fn files_are_made_written_listed_renamed_and_removed() {
    everywhere(|mounted, _| {
        let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 / 5) as u8).collect();
        fs::write(mounted.path("big"), &big).unwrap();
        assert!(fs::read(mounted.path("big")).unwrap() == big, "contents differ");
        let mut names = BTreeSet::new();
        for i in 0..300 {
            let name = format!("{i:0width$}", width = 1 + i % 200);
            fs::write(mounted.path(&name), name.as_bytes()).unwrap();
            names.insert(name);
        }
        for name in &names {
            assert_eq!(fs::read(mounted.path(name)).unwrap(), name.as_bytes());
        }
        fs::rename(mounted.path("big"), mounted.path("small")).unwrap();
        names.insert("small".to_owned());
        let listed: BTreeSet<String> = fs::read_dir(&mounted.dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(listed, names);
        for name in &names {
            fs::remove_file(mounted.path(name)).unwrap();
        }
        assert_eq!(fs::read_dir(&mounted.dir).unwrap().count(), 0);
        let missing = fs::metadata(mounted.path("big")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let xattr = nix::sys::statvfs::statvfs(&mounted.dir).unwrap();
        assert_eq!(xattr.blocks(), 100);
    });
}

#[test]
fn more_callers_than_entries_are_all_served() {
    everywhere(|mounted, _| {
        std::thread::scope(|scope| {
            for worker in 0..48 {
                scope.spawn(move || {
                    for i in 0..20 {
                        let path = mounted.path(&format!("{worker}-{i}"));
                        fs::write(&path, format!("{worker} {i}")).unwrap();
                        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{worker} {i}"));
                        fs::remove_file(&path).unwrap();
                    }
                });
            }
        });
        let counters = mounted.running().counters();
        assert_eq!(counters.of(Opcode::Create), 48 * 20);
        assert_eq!(counters.of(Opcode::Unlink), 48 * 20);
        assert_eq!(counters.dropped, 0);
    });
}

#[test]
fn a_handler_that_panics_or_forgets_to_answer_costs_its_caller_an_error_and_nobody_else() {
    everywhere(|mounted, _| {
        for name in ["panic", "dropped", "toomuch", "fillpanic"] {
            let error = fs::metadata(mounted.path(name)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}");
        }
        fs::write(mounted.path("fine"), b"still").unwrap();
        let counters = mounted.running().counters();
        // The panicking handler dropped its call too.
        assert_eq!((counters.panics, counters.dropped), (1, 2));
    });
}

#[test]
fn a_signal_reaches_the_handler_and_ends_the_call() {
    everywhere(|mounted, memory| {
        let mut child = Command::new("stat")
            .arg(mounted.path("slow"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the lookup is held", || memory.held.lock().unwrap().len() == 1);
        let unique = memory.held.lock().unwrap()[0].unique();
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        eventually("the interrupt has come", || memory.interrupted.lock().unwrap().contains(&unique));
        assert!(memory.held.lock().unwrap().is_empty());
    });
}

#[test]
fn references_are_given_back() {
    everywhere(|mounted, memory| {
        for i in 0..50 {
            let path = mounted.path(&format!("f{i}"));
            fs::write(&path, b"x").unwrap();
            fs::remove_file(&path).unwrap();
        }
        // Each CREATE counts once, and the LOOKUP before each UNLINK too, since names may not be cached.
        eventually("all references are back", || memory.forgotten.load(Ordering::Relaxed) >= 100);
        let counters = mounted.running().counters();
        assert!(counters.forgets >= 50, "{counters:?}");
    });
}

#[test]
fn a_notification_drops_what_the_kernel_has_cached() {
    for kind in kinds() {
        let memory = Memory::with_ttl(Answers::AtOnce, Duration::from_secs(3600));
        let mounted = Mounted::new(kind, memory.clone());
        fs::write(mounted.path("name"), b"x").unwrap();
        let lookups = || mounted.running().counters().of(Opcode::Lookup);
        let before = lookups();
        fs::metadata(mounted.path("name")).unwrap();
        assert_eq!(lookups(), before, "the name is cached");
        let (done, result) = std::sync::mpsc::channel();
        let notice = ringfs::kernel::transport::Notice::InvalEntry {
            parent: ringfs::base::Ino::ROOT,
            name: ringfs::base::Name::parse(b"name").unwrap().to_buf(),
        };
        let completion = Box::new(move |result| done.send(result).unwrap());
        memory.notifier.get().unwrap().send(notice, Some(completion)).unwrap();
        assert_eq!(result.recv_timeout(crate::mounted::PATIENCE).unwrap(), Ok(()));
        fs::metadata(mounted.path("name")).unwrap();
        assert_eq!(lookups(), before + 1);
        assert_eq!(mounted.running().counters().notices, 1);
    }
}

#[test]
fn queues_that_the_kernel_refuses_leave_a_working_mount() {
    if !kinds().contains(&Kind::Uring) {
        return;
    }
    for choice in [Choice::Auto, Choice::Only(Kind::Uring)] {
        let memory = Memory::new(Answers::AtOnce);
        let options = Options { choice, claim_payload_bytes: Some(4096), ..Options::default() };
        let mounted = Mounted::with(memory, &options);
        assert_ne!(mounted.running().kind(), Kind::Uring);
        let why = mounted.running().fallback().unwrap();
        assert!(why.contains("refused its queues"), "{why}");
        fs::write(mounted.path("works"), b"yes").unwrap();
        assert_eq!(fs::read(mounted.path("works")).unwrap(), b"yes");
        let counters = mounted.running().counters();
        assert_eq!(counters.of(Opcode::Create), 1, "{counters:?}");
        assert_eq!(mounted.unmount(), End::Unmounted);
    }
}

#[test]
fn what_is_negotiated_was_offered() {
    for kind in kinds() {
        let memory = Memory::new(Answers::AtOnce);
        let mounted = Mounted::new(kind, memory.clone());
        let negotiated = *memory.negotiated.get().unwrap();
        assert!(negotiated.minor >= 32);
        assert_eq!(negotiated.max_write, 1 << 20);
        let over_uring = negotiated.flags.has(ringfs::kernel::abi::InitFlags::OVER_IO_URING);
        assert_eq!(over_uring, kind == Kind::Uring);
        let _ = Arc::clone(&memory);
        assert_eq!(mounted.unmount(), End::Unmounted);
    }
}
