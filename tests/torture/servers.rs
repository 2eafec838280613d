//! The server killed and started again, under load from two mounts.

use crate::fixture::can_mount;
use crate::random::{Random, seed};
use crate::round::{PATIENCE, Round, TIMES, must, rounds, seconds};
use crate::stage::{Stage, check};
use crate::watch::Watch;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn kills_of_the_server_lose_and_repeat_nothing_that_returned() {
    if !can_mount() {
        return;
    }
    let (seed, rounds) = (seed(), rounds(5));
    let test = "kills_of_the_server_lose_and_repeat_nothing_that_returned";
    let mut random = Random::new(seed);
    let stage = Stage::lasting(seconds(rounds), &TIMES);
    let mounts = ["a", "b"].map(|name| stage.mount(name));
    let mut operations = 0;
    for number in 0..rounds {
        let watch = Watch::new(stage.place.path(), PATIENCE, &format!("{test}: round {number}"));
        let done = round(number, &stage, &mounts, &mut random);
        let hung = watch.end();
        must(done.as_ref().map(|_| ()).map_err(Clone::clone).and(hung), seed, test);
        operations += done.unwrap_or_default();
    }
    eprintln!("{rounds} kills, {operations} operations");
    stage.end_and_check();
}

fn round(number: u64, stage: &Stage, mounts: &[PathBuf; 2], random: &mut Random) -> Result<usize, String> {
    let mut round = Round::start(number, mounts, random);
    // Each looks at the other's work, so leases come and go while the server is killed.
    let rest = Duration::from_millis(5 + random.below(60));
    round.visit(&mounts[1], 0, rest);
    round.visit(&mounts[0], 2, rest);
    for _ in 0..=random.below(2) {
        std::thread::sleep(Duration::from_millis(20 + random.below(300)));
        if random.one_in(3) {
            round.flush(&mounts[0], 0);
        }
        stage.kill_server();
        check_names(stage);
        std::thread::sleep(Duration::from_millis(random.below(400)));
        stage.start();
        round.goes_on(10);
    }
    let ended = round.end()?;
    ended.without_errors()?;
    if ended.visits == 0 {
        return Err(format!("{}: nobody visited", ended.name));
    }
    ended.all_kept(mounts, &[0, 1])?;
    ended.remove(&mounts[0]);
    if mounts[1].join(&ended.name).exists() {
        return Err(format!("{} is still there on the other mount", ended.name));
    }
    Ok(ended.operations())
}

/// The store of a killed server is whole as it lies there.
fn check_names(stage: &Stage) {
    check(&stage.place.at("store"));
}
