//! What leases save, and what they must not change.

use crate::ground::{Mounted, Way, World, can_mount, eventually};
use ringfs::client::mount::{CloseWait, Options};
use ringfs::kernel::transport::Kind;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What the server was asked for one by one so far: operations that could have been answered from leases.
fn asked(mounted: &Mounted) -> u64 {
    let o = mounted.client.status().operations;
    let names = o.lookup.asked + o.listing.asked + o.make.asked + o.link.asked + o.unlink.asked;
    let attributes = o.attributes.asked + o.set_attributes.asked + o.xattr.asked + o.write.asked;
    names + attributes + o.rmdir.asked + o.rename.asked
}

#[test]
fn a_tree_made_and_removed_here_asks_the_server_nothing_after_the_first_touch() {
    const FILES: usize = 1000;
    if !can_mount() {
        return;
    }
    for way in [Way::Inside, Way::Socket] {
        let world = World::new();
        let mounted = world.plain(way);
        fs::create_dir(mounted.path("first")).unwrap();
        fs::remove_dir(mounted.path("first")).unwrap();
        eventually("numbers for what is to be made", || mounted.client.status().leases.numbers > 1100);
        // Of the first touch: what was made without numbers the server made, and the root's attributes after that come with a
        // question of their own, whose answer may be on its way yet. It is over when the same asks nothing.
        eventually("the first touch is over", || {
            let before = asked(&mounted);
            fs::create_dir(mounted.path("first")).unwrap();
            fs::remove_dir(mounted.path("first")).unwrap();
            asked(&mounted) == before
        });
        let before = (asked(&mounted), mounted.client.status());
        for folder in 0..10 {
            let folder = mounted.path(format!("d{folder}"));
            fs::create_dir(&folder).unwrap();
            for nth in 0..FILES / 10 {
                let path = folder.join(format!("f{nth}"));
                fs::write(&path, format!("{nth}")).unwrap();
                assert!(!folder.join("absent").exists());
                assert!(fs::metadata(&path).unwrap().len() < 4);
            }
            assert_eq!(names(&folder).len(), FILES / 10);
            fs::rename(folder.join("f0"), folder.join("g0")).unwrap();
            fs::hard_link(folder.join("f1"), folder.join("g1")).unwrap();
            fs::remove_dir_all(&folder).unwrap();
        }
        let after = (asked(&mounted), mounted.client.status());
        assert_eq!(after.0 - before.0, 0, "{way:?}: {:?}", after.1.operations);
        let mutations = after.1.log.accepted - before.1.log.accepted;
        assert!(mutations > 3 * FILES as u64, "{mutations}");
        let flushed = mounted.client.status();
        assert_eq!((flushed.leases.failed_late, flushed.leases.degraded), (0, false));
    }
}

#[test]
fn a_burst_travels_in_few_frames() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let mounted = world.plain(Way::Socket);
    fs::create_dir(mounted.path("d")).unwrap();
    eventually("numbers for what is to be made", || mounted.client.status().leases.numbers > 2100);
    let before = mounted.client.status().log;
    for nth in 0..1000 {
        File::create(mounted.path(format!("d/f{nth}"))).unwrap();
    }
    for nth in 0..1000 {
        fs::remove_file(mounted.path(format!("d/f{nth}"))).unwrap();
    }
    let after = mounted.client.status().log;
    let (mutations, frames) = (after.accepted - before.accepted, after.batches - before.batches);
    println!("{mutations} mutations in {frames} frames");
    // How many depends on how fast this host makes them: what comes within 20 ms travels together.
    assert!(mutations == 2000 && frames * 10 < mutations, "{mutations} mutations in {frames} frames");
}

#[test]
fn what_is_completed_on_one_the_other_sees_in_its_next_call() {
    if !can_mount() {
        return;
    }
    for ways in [(Way::Inside, Way::Socket), (Way::Socket, Way::Socket)] {
        let world = World::new();
        let (a, b) = (world.plain(ways.0), world.plain(ways.1));
        for round in 0..30 {
            let (one, other) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let (dir, at) = (format!("d{round}"), |name: &str| format!("d{round}/{name}"));
            // Known to be absent there, then made here.
            assert!(!other.path(&dir).exists());
            fs::create_dir(one.path(&dir)).unwrap();
            fs::write(one.path(at("f")), "12345").unwrap();
            assert_eq!(fs::metadata(other.path(at("f"))).unwrap().len(), 5);
            fs::hard_link(one.path(at("f")), one.path(at("l"))).unwrap();
            assert_eq!(fs::metadata(other.path(at("f"))).unwrap().nlink(), 2);
            assert_eq!(fs::read_to_string(other.path(at("l"))).unwrap(), "12345");
            // An open file and its attributes.
            let mut file = File::options().append(true).open(one.path(at("l"))).unwrap();
            file.write_all(b"678").unwrap();
            assert_eq!(fs::metadata(other.path(at("f"))).unwrap().len(), 8);
            assert_eq!(names(&other.path(&dir)), names(&one.path(&dir)));
            fs::remove_file(one.path(at("f"))).unwrap();
            assert!(!other.path(at("f")).exists());
            assert_eq!(names(&other.path(&dir)), BTreeSet::from(["l".to_owned()]));
            assert_eq!(fs::metadata(other.path(at("l"))).unwrap().nlink(), 1);
            fs::rename(other.path(at("l")), other.path(format!("moved{round}"))).unwrap();
            assert!(!one.path(at("l")).exists() && one.path(format!("moved{round}")).exists());
            fs::remove_dir(one.path(&dir)).unwrap();
            assert!(!other.path(&dir).exists());
        }
        let recalled = |mounted: &Mounted| mounted.client.status().leases.recalled;
        assert!(recalled(&a) > 0 && recalled(&b) > 0, "leases were given and taken back");
    }
}

#[test]
fn without_leases_every_change_is_the_servers_and_durable_when_it_is_answered() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let options = Options { sync: true, ..Options::default() };
    let mounted = world.mount_with(Way::Socket, Kind::Blocking, options).unwrap();
    for nth in 0..20 {
        fs::write(mounted.path(format!("f{nth}")), "x").unwrap();
        let status = mounted.client.status();
        assert_eq!((status.log.kept, status.mutations_unsettled), (0, 0));
    }
    // Several at a time, so that some are applied while the disk takes others.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mounted = &mounted;
            scope.spawn(move || {
                for nth in 0..20 {
                    fs::write(mounted.path(format!("t{thread}-{nth}")), "x").unwrap();
                    fs::remove_file(mounted.path(format!("t{thread}-{nth}"))).unwrap();
                }
            });
        }
    });
    let operations = mounted.client.status().operations;
    assert_eq!((operations.make.here, operations.lookup.here, operations.attributes.here), (0, 0, 0));
    assert!(operations.make.asked >= 20);
}

#[test]
fn a_close_can_wait_until_others_see_or_the_disk_has_what_was_written() {
    if !can_mount() {
        return;
    }
    for (close, durable) in [(CloseWait::Applied, false), (CloseWait::Durable, true)] {
        let world = World::new();
        let options = Options { close, ..Options::default() };
        let mounted = world.mount_with(Way::Socket, Kind::Blocking, options).unwrap();
        for nth in 0..20 {
            fs::write(mounted.path(format!("f{nth}")), "x").unwrap();
            let log = mounted.client.status().log;
            assert_eq!(log.waiting, 0, "{close:?}");
            assert!(!durable || log.kept == 0, "{close:?}");
        }
    }
}

#[test]
fn what_is_known_stays_within_its_bound() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let options = Options { cache_inodes: 200, ..Options::default() };
    let mounted = world.mount_with(Way::Inside, Kind::Blocking, options).unwrap();
    for nth in 0..1000 {
        fs::write(mounted.path(format!("f{nth}")), "x").unwrap();
    }
    // What the kernel has in its hand stays.
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    eventually("what is too much is given up", || mounted.client.status().leases.inodes <= 300);
    assert_eq!(fs::metadata(mounted.path("f1")).unwrap().len(), 1);
    assert_eq!(names(&mounted.point).len(), 1000);
}
