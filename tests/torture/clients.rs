//! The daemon of a mount killed under load, again and again.

use crate::fixture::{can_mount, ringfs};
use crate::random::{Random, seed};
use crate::round::{PATIENCE, Round, TIMES, must, rounds, seconds};
use crate::stage::Stage;
use crate::watch::Watch;
use std::path::Path;
use std::time::Duration;

/// What a system call gives when the daemon of its mount has been killed.
const DEAD: [i32; 4] = [libc::ENOTCONN, libc::ECONNABORTED, libc::ECANCELED, libc::EIO];

#[test]
fn kills_of_a_client_keep_a_prefix_with_all_that_was_promised() {
    if !can_mount() {
        return;
    }
    let (seed, rounds) = (seed(), rounds(4));
    let test = "kills_of_a_client_keep_a_prefix_with_all_that_was_promised";
    let mut random = Random::new(seed);
    let stage = Stage::lasting(seconds(rounds), &TIMES);
    let other = stage.mount("b");
    let (mut operations, mut lost) = (0, 0);
    for number in 0..rounds {
        let watch = Watch::new(stage.place.path(), PATIENCE, &format!("{test}: round {number}"));
        let done = round(number, &stage, &other, &mut random);
        let hung = watch.end();
        must(done.as_ref().map(|_| ()).map_err(Clone::clone).and(hung), seed, test);
        let done = done.unwrap_or_default();
        (operations, lost) = (operations + done.0, lost + done.1);
    }
    eprintln!("{rounds} kills, {operations} operations, {lost} not kept");
    stage.end_and_check();
}

/// Gives the number of operations, and of those that were not kept.
fn round(number: u64, stage: &Stage, other: &Path, random: &mut Random) -> Result<(usize, usize), String> {
    let point = stage.mount("a");
    let daemon = stage.daemon("a");
    let mounts = [point.clone(), other.to_path_buf()];
    let mut round = Round::start(number, &mounts, random);
    if random.one_in(2) {
        round.visit(&point, 2, Duration::from_millis(5 + random.below(40)));
    }
    round.goes_on(20);
    std::thread::sleep(Duration::from_millis(random.below(400)));
    if random.one_in(3) {
        round.flush(&point, 0);
        std::thread::sleep(Duration::from_millis(random.below(50)));
    }
    // Asking for its process before the work ends would give it time to send all.
    stage.kill_process("a", daemon);
    // The other mount works on; the dead one's leases are in nobody's way for longer than they last.
    round.goes_on_at(1, 10);
    let ended = round.end_beside_a_dead_mount()?;
    for (journal, met) in ended.journals.iter().zip(&ended.met) {
        let errno = met.as_ref().map(|error| error.raw_os_error());
        let right = match errno {
            None => journal.name.starts_with("w1"),
            Some(errno) => journal.name.starts_with("w0") && errno.is_some_and(|errno| DEAD.contains(&errno)),
        };
        if !right {
            return Err(format!("{}: {} met {met:?}", ended.name, journal.name));
        }
    }
    ended.all_kept(&mounts[1..], &[1])?;
    let before = ended.kept(other, &[0], false)?;
    ringfs(&["umount", point.to_str().unwrap()]).ok();
    stage.mount("a");
    let after = ended.kept(&point, &[0], false)?;
    if before != after {
        return Err(format!("{}: kept {before:?}, and later {after:?}", ended.name));
    }
    ended.all_kept(&mounts, &[1])?;
    ended.remove(if random.one_in(2) { &point } else { other });
    stage.umount("a");
    let lost = ended.journals[..2]
        .iter()
        .zip(&after)
        .map(|(journal, kept)| journal.returned() - kept.most.min(journal.returned()));
    let lost = lost.sum();
    Ok((ended.operations(), lost))
}
