//! Two mounts of one server: what one did, the other sees in its next call.

use crate::ground::{Mounted, Way, World, can_mount, eventually};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn with_two(check: impl Fn(&Mounted, &Mounted)) {
    if !can_mount() {
        return;
    }
    for ways in [(Way::Inside, Way::Socket), (Way::Socket, Way::Socket)] {
        let world = World::new();
        let (a, b) = (world.plain(ways.0), world.plain(ways.1));
        check(&a, &b);
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_one_has_done_the_other_sees_at_once() {
    with_two(|a, b| {
        for round in 0..50 {
            let (one, other) = if round % 2 == 0 { (a, b) } else { (b, a) };
            let name = format!("f{round}");
            assert!(!other.path(&name).exists());
            fs::write(one.path(&name), "first").unwrap();
            assert_eq!(fs::read_to_string(other.path(&name)).unwrap(), "first");
            fs::write(other.path(&name), "something longer").unwrap();
            assert_eq!(fs::read_to_string(one.path(&name)).unwrap(), "something longer");
            fs::set_permissions(other.path(&name), fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(fs::metadata(one.path(&name)).unwrap().mode() & 0o777, 0o600);
            let moved = format!("g{round}");
            fs::rename(one.path(&name), one.path(&moved)).unwrap();
            assert!(!other.path(&name).exists() && other.path(&moved).exists());
            assert_eq!(names(&a.point), names(&b.point));
            fs::create_dir(one.path("dir")).unwrap();
            fs::write(other.path("dir/inside"), "").unwrap();
            let not_empty = fs::remove_dir(one.path("dir")).unwrap_err();
            assert_eq!(not_empty.kind(), ErrorKind::DirectoryNotEmpty);
            fs::remove_dir_all(one.path("dir")).unwrap();
            assert!(!other.path("dir").exists());
        }
    });
}

#[test]
fn an_open_file_shows_what_the_other_writes_and_cuts() {
    with_two(|a, b| {
        fs::write(a.path("f"), "0123456789").unwrap();
        let reader = File::open(b.path("f")).unwrap();
        let mut bytes = [0; 10];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        let writer = File::options().write(true).open(a.path("f")).unwrap();
        writer.write_all_at(b"abc", 4).unwrap();
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"0123abc789");
        writer.set_len(5).unwrap();
        assert_eq!(reader.metadata().unwrap().len(), 5);
        assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), 5);
        writer.write_all_at(b"z", 99).unwrap();
        assert_eq!(reader.metadata().unwrap().len(), 100);
    });
}

#[test]
fn an_exclusive_create_has_one_winner() {
    with_two(|a, b| {
        let start = Barrier::new(2);
        let race = |mounted: &Mounted| -> Vec<bool> {
            (0..10_000)
                .map(|nth| {
                    start.wait();
                    match File::create_new(mounted.path(format!("f{nth}"))) {
                        Ok(_) => true,
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                        Err(error) => panic!("{error}"),
                    }
                })
                .collect()
        };
        let (won_a, won_b) = thread::scope(|scope| {
            let other = scope.spawn(|| race(b));
            (race(a), other.join().unwrap())
        });
        for (nth, (a, b)) in won_a.into_iter().zip(won_b).enumerate() {
            assert!(a != b, "f{nth} has {} winners", if a { 2 } else { 0 });
        }
    });
}

#[test]
fn a_create_that_is_not_exclusive_has_no_loser() {
    with_two(|a, b| {
        let start = Barrier::new(2);
        let race = |mounted: &Mounted| {
            for nth in 0..300 {
                start.wait();
                let mut file =
                    File::options().append(true).create(true).open(mounted.path(format!("f{nth}"))).unwrap();
                file.write_all(b"x").unwrap();
                start.wait();
                // Removed while the other may still have it open.
                let _ = fs::remove_file(mounted.path(format!("f{nth}")));
                assert!(file.metadata().unwrap().len() == 2, "both wrote to the same file");
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| race(b));
            race(a);
        });
        for mounted in [a, b] {
            eventually("nothing is held", || mounted.client.namespace.inodes.counts().held == 0);
        }
    });
}

#[test]
fn appends_of_both_lose_nothing() {
    with_two(|a, b| {
        const RECORD: usize = 100;
        let append = |mounted: &Mounted, byte: u8| {
            let mut file = File::options().append(true).create(true).open(mounted.path("log")).unwrap();
            for _ in 0..400 {
                file.write_all(&[byte; RECORD]).unwrap();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| append(b, b'b'));
            append(a, b'a');
        });
        let all = fs::read(a.path("log")).unwrap();
        assert_eq!(all.len(), 2 * 400 * RECORD);
        let whole = |record: &[u8]| record.iter().all(|byte| *byte == record[0]);
        assert!(all.chunks(RECORD).all(whole), "records are not torn");
        assert_eq!(all.iter().filter(|byte| **byte == b'a').count(), 400 * RECORD);
    });
}

#[test]
fn a_file_unlinked_on_one_lives_on_where_it_is_open() {
    with_two(|a, b| {
        fs::write(a.path("f"), "content").unwrap();
        let mut open = File::options().read(true).write(true).open(b.path("f")).unwrap();
        fs::remove_file(a.path("f")).unwrap();
        assert!(!b.path("f").exists());
        // A new file of the same name is another one.
        fs::write(a.path("f"), "new").unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        open.write_all(b" and more").unwrap();
        let meta = open.metadata().unwrap();
        assert_eq!((text.as_str(), meta.nlink(), meta.len()), ("content", 0, 16));
        fs::rename(a.path("f"), a.path("g")).unwrap();
        fs::write(a.path("h"), "over").unwrap();
        let replaced = File::open(b.path("g")).unwrap();
        fs::rename(a.path("h"), a.path("g")).unwrap();
        assert_eq!(std::io::read_to_string(replaced).unwrap(), "new");
        assert_eq!(fs::read_to_string(b.path("g")).unwrap(), "over");
        drop(open);
        eventually("it is let go", || b.client.namespace.inodes.counts().held == 0);
    });
}

fn record(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn shared(mounted: &Mounted) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(mounted.path("lock")).unwrap()
}

#[test]
fn record_locks_of_one_stop_the_other_until_they_end() {
    with_two(|a, b| {
        let (on_a, on_b) = (shared(a), shared(b));
        fcntl(&on_a, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 0, 10))).unwrap();
        let refused = fcntl(&on_b, FcntlArg::F_SETLK(&record(libc::F_RDLCK, 5, 1)));
        assert_eq!(refused, Err(Errno::EAGAIN));
        fcntl(&on_b, FcntlArg::F_SETLK(&record(libc::F_RDLCK, 10, 1))).unwrap();
        let mut seen = record(libc::F_WRLCK, 0, 0);
        fcntl(&on_b, FcntlArg::F_GETLK(&mut seen)).unwrap();
        assert_eq!((i32::from(seen.l_type), seen.l_start, seen.l_len), (libc::F_WRLCK, 0, 10));
        fcntl(&on_a, FcntlArg::F_SETLK(&record(libc::F_UNLCK, 0, 5))).unwrap();
        fcntl(&on_b, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 0, 5))).unwrap();
        // Any close of the file by its process ends the process's locks.
        drop(shared(a));
        fcntl(&on_b, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 0, 10))).unwrap();
    });
}

#[test]
fn locks_of_an_open_file_end_with_it() {
    with_two(|a, b| {
        let on_a = shared(a);
        fcntl(&on_a, FcntlArg::F_OFD_SETLK(&record(libc::F_WRLCK, 0, 10))).unwrap();
        let on_b = shared(b);
        let ask = || fcntl(&on_b, FcntlArg::F_OFD_SETLK(&record(libc::F_WRLCK, 0, 10)));
        assert_eq!(ask(), Err(Errno::EAGAIN));
        drop(shared(a));
        assert_eq!(ask(), Err(Errno::EAGAIN), "another descriptor's close does not end it");
        drop(on_a);
        eventually("the lock is let go", || ask().is_ok());

        let on_a = Flock::lock(shared(a), FlockArg::LockExclusive).unwrap();
        let refused =
            Flock::lock(shared(b), FlockArg::LockSharedNonblock).map(|_| ()).map_err(|(_, errno)| errno);
        assert_eq!(refused, Err(Errno::EAGAIN));
        thread::scope(|scope| {
            let waits = scope.spawn(|| Flock::lock(shared(b), FlockArg::LockShared).map(|_| ()).is_ok());
            on_a.unlock().unwrap();
            assert!(waits.join().unwrap());
        });
    });
}

#[test]
fn who_waits_in_a_circle_over_two_mounts_is_told() {
    with_two(|a, b| {
        let (on_a, on_b) = (shared(a), shared(b));
        fcntl(&on_a, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 0, 1))).unwrap();
        fcntl(&on_b, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 1, 1))).unwrap();
        let wait = |file: &File, start| {
            let result = fcntl(file, FcntlArg::F_SETLKW(&record(libc::F_WRLCK, start, 1)));
            if result.is_err() {
                // The one who is told gives way, so that the other is granted.
                fcntl(file, FcntlArg::F_SETLK(&record(libc::F_UNLCK, 0, 2))).unwrap();
            }
            result
        };
        let results = thread::scope(|scope| {
            let other = scope.spawn(|| wait(&on_b, 0));
            [wait(&on_a, 1), other.join().unwrap()]
        });
        let told = results.iter().filter(|result| **result == Err(Errno::EDEADLK)).count();
        let granted = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((told, granted), (1, 1), "{results:?}");
    });
}

#[test]
fn a_mount_that_ends_takes_its_locks_and_open_files_with_it() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let a = world.plain(Way::Inside);
    {
        // A client without a kernel: it goes without closing anything.
        let b = world.client(Way::Socket, ringfs::client::mount::Options::default());
        let on_a = shared(&a);
        let lock = ringfs::wire::LockRequest {
            owner: ringfs::wire::LockOwner::Record(1),
            kind: ringfs::wire::LockKind::Write,
            start: 0,
            end: 9,
            pid: 1,
            handle: 1,
        };
        let ino = ringfs::base::Ino(on_a.metadata().unwrap().ino());
        let (tell, told) = std::sync::mpsc::channel();
        let query = ringfs::wire::Query::SetLock { ino, lock, wait: false };
        b.ask(ringfs::client::mount::Interrupt::Never, &query, move |answer, _| {
            tell.send(answer.map(|_| ())).unwrap();
        });
        told.recv().unwrap().unwrap();
        let ask = || fcntl(&on_a, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 0, 1)));
        assert_eq!(ask(), Err(Errno::EAGAIN));
        b.leave(Duration::from_secs(10)).unwrap();
        eventually("its lock is gone", || ask().is_ok());
    }
}

/// Ends the writer, also when the test fails: a scope waits for its threads.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_restart_of_the_server_costs_time_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let mut world = World::new();
    let (a, b) = (world.plain(Way::Socket), world.plain(Way::Socket));
    let on_a = shared(&a);
    fcntl(&on_a, FcntlArg::F_SETLK(&record(libc::F_WRLCK, 0, 10))).unwrap();
    fs::write(a.path("gone"), "still here").unwrap();
    let orphan = File::options().read(true).write(true).open(a.path("gone")).unwrap();
    fs::remove_file(b.path("gone")).unwrap();

    let stop = AtomicBool::new(false);
    let point = &a.point;
    let written = thread::scope(|scope| {
        let _stop_whatever_happens = Stop(&stop);
        let writer = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                fs::write(point.join(format!("f{count}")), format!("{count}")).unwrap();
                fs::rename(point.join(format!("f{count}")), point.join(format!("g{count}"))).unwrap();
                count += 1;
            }
            count
        });
        eventually("files are being written", || a.path("g20").exists());
        for _ in 0..3 {
            world.restart(|| thread::sleep(Duration::from_millis(50)));
            let seen = fs::read_dir(&b.point).unwrap().count();
            eventually("it goes on", || fs::read_dir(&b.point).unwrap().count() > seen + 10);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });

    for nth in 0..written {
        assert_eq!(fs::read_to_string(b.path(format!("g{nth}"))).unwrap(), nth.to_string());
        assert!(!b.path(format!("f{nth}")).exists());
    }
    assert_eq!(std::io::read_to_string(&orphan).unwrap(), "still here");
    orphan.write_all_at(b"and written", 0).unwrap();
    let on_b = shared(&b);
    let refused = fcntl(&on_b, FcntlArg::F_SETLK(&record(libc::F_RDLCK, 5, 1)));
    assert_eq!(refused, Err(Errno::EAGAIN), "the lock was asserted again");
    let status = a.client.status().link;
    assert!(status.reconnects >= 3 && status.sessions_lost == 0, "{status:?}");
}

#[test]
fn who_waits_for_a_server_that_is_away_can_be_killed_and_is_not_disturbed_otherwise() {
    if !can_mount() {
        return;
    }
    let mut world = World::new();
    let mounted = world.plain(Way::Socket);
    fs::write(mounted.path("f"), "content\n").unwrap();
    let path = mounted.path("f").display().to_string();
    // The shell itself opens the file, handles the signal, and goes on.
    let script = format!("trap 'echo signal' USR1; read word < {path}; echo $? $word");
    let mut patient = None;
    world.restart(|| {
        let spawn = |script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let doomed = spawn(&format!("exec cat {path}"));
        let waiting = spawn(&script);
        let asleep = |child: &Child| {
            let state = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap();
            state.contains("request_wait_answer") || state.contains("fuse")
        };
        eventually("both wait for the server", || asleep(&doomed) && asleep(&waiting));
        kill(pid(&waiting), Signal::SIGUSR1).unwrap();
        kill(pid(&doomed), Signal::SIGTERM).unwrap();
        let doomed = std::sync::Mutex::new(doomed);
        eventually("the one that was killed is gone", || {
            doomed.lock().unwrap().try_wait().unwrap().is_some()
        });
        patient = Some(waiting);
    });
    let out = patient.unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text, "signal\n0 content\n", "{}", String::from_utf8_lossy(&out.stderr));
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}
