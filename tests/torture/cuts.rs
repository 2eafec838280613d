//! The network cut between mounts and their server, for less and for more than a lease.

use crate::fixture::{can_mount, eventually, ringfs};
use crate::net::Net;
use crate::random::{Random, seed};
use crate::round::{Ended, LEASE, PATIENCE, Round, TIMES, must, rounds, seconds};
use crate::stage::Stage;
use crate::watch::Watch;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[test]
fn cuts_of_the_network_lose_nothing_in_time_and_keep_a_prefix_later() {
    if !can_mount() {
        return;
    }
    let Some(net) = Net::new() else { return };
    let (seed, rounds) = (seed(), rounds(4));
    let test = "cuts_of_the_network_lose_nothing_in_time_and_keep_a_prefix_later";
    let mut random = Random::new(seed);
    let stage = Stage::within(net.name(), "tcp://0.0.0.0:7420", seconds(rounds), &TIMES);
    let mounts = [0, 1].map(|link| stage.mount_at(["a", "b"][link], &net.server(link), &[]));
    let mut operations = 0;
    for number in 0..rounds {
        let watch = Watch::new(stage.place.path(), PATIENCE, &format!("{test}: round {number}"));
        // The first two rounds are one of each.
        let long = if number < 2 { number == 1 } else { random.one_in(2) };
        let done = if long {
            for_longer(number, &net, &mounts, &mut random)
        } else {
            for_a_moment(number, &net, &mounts, &mut random)
        };
        let hung = watch.end();
        must(done.as_ref().map(|_| ()).map_err(Clone::clone).and(hung), seed, test);
        operations += done.unwrap_or_default();
    }
    eprintln!("{rounds} cuts, {operations} operations");
    stage.end_and_check();
}

/// For less than a lease: nobody notices but by the time it takes.
fn for_a_moment(number: u64, net: &Net, mounts: &[PathBuf; 2], random: &mut Random) -> Result<usize, String> {
    let mut round = Round::start(number, mounts, random);
    let rest = Duration::from_millis(5 + random.below(60));
    round.visit(&mounts[1], 0, rest);
    round.visit(&mounts[0], 2, rest);
    std::thread::sleep(Duration::from_millis(20 + random.below(300)));
    let links: &[usize] = random.pick(&[&[0][..], &[1], &[0, 1]]);
    let at_the_server = random.one_in(2);
    links.iter().for_each(|link| net.cut(*link, at_the_server));
    std::thread::sleep(Duration::from_millis(10 + random.below(700)));
    links.iter().for_each(|link| net.mend(*link));
    round.goes_on(10);
    let ended = round.end()?;
    ended.without_errors()?;
    ended.all_kept(mounts, &[0, 1])?;
    ended.remove(&mounts[1]);
    Ok(ended.operations())
}

/// For longer than a lease: the one that is cut off loses what it had not handed over, a prefix is kept, and nothing of it
/// comes later. The other goes on.
fn for_longer(number: u64, net: &Net, mounts: &[PathBuf; 2], random: &mut Random) -> Result<usize, String> {
    let lost_before = lost(&mounts[0]);
    let round = Round::start(number, mounts, random);
    round.goes_on(10);
    std::thread::sleep(Duration::from_millis(random.below(300)));
    net.cut(0, random.one_in(2));
    std::thread::sleep(LEASE + Duration::from_millis(300 + random.below(1500)));
    round.goes_on_at(1, 10);
    round.stop();
    let snapshot = round.journals();
    // While it is still cut off: nobody who is connected waits for it any more.
    let name = snapshot.name.clone();
    let during = snapshot.kept(&mounts[1], &[0], false)?;
    net.mend(0);
    let ended = round.end()?;
    eventually("the mount is connected again", || {
        let status = ringfs(&["status", "--json", mounts[0].to_str().unwrap()]).ok().json();
        status["link"]["connected"] == true
    });
    for (journal, met) in ended.journals.iter().zip(&ended.met) {
        if met.is_some() && !journal.name.starts_with("w0") {
            return Err(format!("{name}: {} met {met:?}", journal.name));
        }
    }
    works_again(&ended, mounts)?;
    ended.all_kept(mounts, &[1])?;
    let after = ended.kept(&mounts[1], &[0], true)?;
    let here = ended.kept(&mounts[0], &[0], true)?;
    for (during, later) in during.iter().zip(after.iter().zip(&here)) {
        // One call may have waited for the whole time, and been made when all was over.
        if later.0.least > during.most + 1 || later.0 != later.1 {
            return Err(format!("{name}: kept {during:?} while it was cut off, later {later:?}"));
        }
    }
    tells_once_what_it_lost(&mounts[0], lost_before).map_err(|why| format!("{name}: {why}"))?;
    ended.remove(&mounts[0]);
    Ok(ended.operations())
}

/// Changes of a mount that were refused after they had been answered, so far.
fn lost(mount: &Path) -> u64 {
    let status = ringfs(&["status", "--json", mount.to_str().unwrap()]).ok().json();
    status["client"]["leases"]["failed_late"].as_u64().unwrap()
}

/// Who flushes the whole mount learns that something was lost, if it was, and then no more: an unmount flushes too, and would
/// be refused at the end of the test.
fn tells_once_what_it_lost(mount: &Path, before: u64) -> Result<(), String> {
    let lost = lost(mount) - before;
    let flush = || ringfs(&["flush", mount.to_str().unwrap()]);
    let (first, second) = (flush(), flush());
    let tells = first.code == 1 && first.err.contains("ringfs errors");
    if (if lost > 0 { tells } else { first.code == 0 }) && second.code == 0 {
        return Ok(());
    }
    Err(format!("{lost} changes were lost, and flushing twice said {first:?} and {second:?}"))
}

/// A mount that was cut off is not broken.
fn works_again(ended: &Ended, mounts: &[PathBuf; 2]) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: after the cut: {error}", ended.name);
    let file = mounts[0].join(&ended.name).join("after");
    std::fs::write(&file, b"after").map_err(told)?;
    std::fs::File::open(&file).and_then(|file| file.sync_all()).map_err(told)?;
    let seen = std::fs::read(mounts[1].join(&ended.name).join("after")).map_err(told)?;
    if seen == b"after" { Ok(()) } else { Err(format!("{}: the other sees {seen:?}", ended.name)) }
}
