//! Content: what was written is what is read, whoever looks and whenever the server hears of it.

use crate::fixture::ringfs;
use crate::pair::Pair;
use crate::random::pattern;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_file_opened_right_after_close_has_all_that_was_written() {
    let Some(pair) = Pair::new() else { return };
    pair.slow(|| {
        for n in 0..20 {
            let path = pair.a.join(format!("f{n}"));
            fs::write(&path, b"first ").unwrap();
            let mut file = OpenOptions::new().read(true).append(true).open(&path).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "first ");
            file.write_all(b"second").unwrap();
        }
    });
    for n in 0..20 {
        assert_eq!(fs::read(pair.b.join(format!("f{n}"))).unwrap(), b"first second");
    }
    pair.end();
}

#[test]
fn what_the_kernel_forgets_before_the_server_has_it_is_not_lost() {
    let Some(pair) = Pair::new() else { return };
    pair.slow(|| {
        for n in 0..50 {
            fs::write(pair.a.join(format!("f{n}")), n.to_string()).unwrap();
        }
        // Dentries and inodes: FORGETs are sent for all of them.
        fs::write("/proc/sys/vm/drop_caches", b"2").unwrap();
    });
    for mount in [&pair.a, &pair.b] {
        for n in 0..50 {
            assert_eq!(fs::read_to_string(mount.join(format!("f{n}"))).unwrap(), n.to_string());
        }
    }
    pair.end();
}

#[test]
fn a_file_made_and_removed_while_open_lives_until_it_is_closed() {
    let Some(pair) = Pair::new() else { return };
    let mut files = pair.slow(|| {
        let open = |n: u32| {
            let path = pair.a.join("f");
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).open(&path).unwrap();
            file.write_all_at(&pattern(u64::from(n), 5000), 0).unwrap();
            fs::remove_file(&path).unwrap();
            file
        };
        (0..10).map(open).collect::<Vec<File>>()
    });
    assert_eq!(fs::read_dir(&pair.b).unwrap().count(), 0);
    for (n, file) in (0..).zip(&mut files) {
        file.sync_all().unwrap();
        file.write_all_at(b"more", 5000).unwrap();
        let mut bytes = vec![0; 5004];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[..5000] == pattern(n, 5000) && &bytes[5000..] == b"more");
    }
    drop(files);
    pair.end();
}

#[test]
fn a_process_that_dies_without_closing_leaves_what_it_wrote() {
    let Some(pair) = Pair::new() else { return };
    let script = "exec 3>f; printf written >&3; : >empty; kill -9 $$";
    let out = Command::new("sh").args(["-c", script]).current_dir(&pair.a).output().unwrap();
    assert!(!out.status.success());
    assert_eq!(fs::read(pair.b.join("f")).unwrap(), b"written");
    assert_eq!(fs::read(pair.b.join("empty")).unwrap(), b"");
    pair.end();
}

#[test]
fn a_process_killed_in_fsync_harms_nobody() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..10 {
        let script = format!(
            "import os\nf=os.open('f{n}',os.O_CREAT|os.O_WRONLY)\nprint(flush=True)\nwhile 1: os.write(f,b'x'); os.fsync(f)"
        );
        let mut child = Command::new("python3")
            .args(["-c", &script])
            .current_dir(&pair.a)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        std::thread::sleep(Duration::from_millis(n));
        child.kill().unwrap();
        child.wait().unwrap();
        File::open(pair.a.join(format!("f{n}"))).unwrap().sync_all().unwrap();
    }
    assert_eq!(fs::read_dir(&pair.b).unwrap().count(), 10);
    pair.end();
}

#[test]
fn descriptors_that_were_duplicated_and_inherited_write_to_one_file() {
    let Some(pair) = Pair::new() else { return };
    let mut file = File::create_new(pair.a.join("f")).unwrap();
    for n in 0..20 {
        let mut copy = file.try_clone().unwrap();
        writeln!(copy, "{n}").unwrap();
        drop(copy);
        let child = Command::new("sh").args(["-c", "echo child"]).stdout(file.try_clone().unwrap()).status();
        assert!(child.unwrap().success());
    }
    writeln!(file, "end").unwrap();
    drop(file);
    let text = fs::read_to_string(pair.b.join("f")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 41);
    assert_eq!((lines[0], lines[1], lines[40]), ("0", "child", "end"));
    pair.end();
}

#[test]
fn fsync_through_a_descriptor_for_reading_works_and_counts() {
    let Some(pair) = Pair::new() else { return };
    fs::write(pair.a.join("f"), b"kept").unwrap();
    File::open(pair.a.join("f")).unwrap().sync_all().unwrap();
    File::open(&pair.a).unwrap().sync_all().unwrap();
    pair.stage.kill_daemon("a");
    assert_eq!(fs::read(pair.b.join("f")).unwrap(), b"kept");
    pair.stage.umount("a");
    pair.end();
}

#[test]
fn a_flush_waits_for_all_creates_that_have_returned() {
    let Some(pair) = Pair::new() else { return };
    for n in 0..1000 {
        File::create_new(pair.a.join(format!("f{n}"))).unwrap();
    }
    ringfs(&["flush", pair.a.to_str().unwrap()]).ok();
    pair.stage.kill_daemon("a");
    assert_eq!(fs::read_dir(&pair.b).unwrap().count(), 1000);
    pair.stage.umount("a");
    pair.end();
}

#[test]
fn a_large_file_written_over_many_flushes_has_no_holes() {
    let Some(pair) = Pair::new() else { return };
    let bytes = pattern(1, 9_000_003);
    let mut file = File::create_new(pair.a.join("f")).unwrap();
    for (n, piece) in bytes.chunks(123_457).enumerate() {
        file.write_all(piece).unwrap();
        if n % 7 == 0 {
            ringfs(&["flush", pair.a.to_str().unwrap()]).ok();
            assert_eq!(file.metadata().unwrap().len(), fs::metadata(pair.b.join("f")).unwrap().len());
        }
    }
    drop(file);
    assert!(fs::read(pair.b.join("f")).unwrap() == bytes);
    assert!(fs::read(pair.a.join("f")).unwrap() == bytes);
    pair.end();
}

#[test]
fn many_open_files_take_writes_in_any_order() {
    let Some(pair) = Pair::new() else { return };
    let mut random = crate::random::Random::new(3);
    let files: Vec<File> =
        (0..300).map(|n| File::create_new(pair.a.join(format!("f{n}"))).unwrap()).collect();
    let mut lengths = vec![0; files.len()];
    for n in 0..1500_u64 {
        let at = usize::try_from(random.below(files.len() as u64)).unwrap();
        let page = random.below(8);
        files[at].write_all_at(&pattern(at as u64 * 8 + page, 4096), page * 4096).unwrap();
        lengths[at] = lengths[at].max((page + 1) * 4096);
        if n % 50 == 0 {
            assert_eq!(fs::metadata(pair.a.join(format!("f{at}"))).unwrap().len(), lengths[at]);
        }
    }
    drop(files);
    for (at, length) in lengths.iter().enumerate() {
        let bytes = fs::read(pair.b.join(format!("f{at}"))).unwrap();
        assert_eq!(bytes.len() as u64, *length);
        for (page, bytes) in (0..).zip(bytes.chunks(4096)) {
            let zeros = bytes.iter().all(|byte| *byte == 0);
            assert!(zeros || bytes == pattern(at as u64 * 8 + page, 4096), "f{at} page {page}");
        }
    }
    pair.end();
}

#[test]
fn signals_that_a_program_handles_disturb_no_create_and_no_close() {
    let Some(pair) = Pair::new() else { return };
    let script = "
import os, signal
signal.signal(signal.SIGALRM, lambda *a: None)
signal.setitimer(signal.ITIMER_REAL, .0005, .0005)
for n in range(400):
    f = os.open(f'f{n}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert os.write(f, b'whole') == 5
    os.close(f)
signal.setitimer(signal.ITIMER_REAL, 0)
";
    let out = Command::new("python3").args(["-c", script]).current_dir(&pair.a).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for n in 0..400 {
        assert_eq!(fs::read(pair.b.join(format!("f{n}"))).unwrap(), b"whole");
    }
    pair.end();
}
