//! Several clients and a server in one thread, with everything that can happen to them, all from a seed; what each is told is
//! compared with one host's file system. See `world` for what happens, `server` for what is compared and when.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod changes;
mod client;
mod connect;
mod counts;
mod dice;
mod disk;
mod driver;
mod ends;
mod faults;
mod link;
mod looks;
mod model;
mod names;
mod ops;
mod plant;
mod recalls;
mod server;
mod world;

use counts::Counts;
use plant::Plant;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use world::{Trace, World};

thread_local! {
    /// While a seed runs: where it failed.
    static FAILED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A seed that fails is told with its events, or was meant to fail: nothing is said when it does.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let running = FAILED_AT.with_borrow_mut(|at| {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                at.as_mut().map(|at| at.push_str(&place)).is_some()
            });
            if !running {
                usual(info);
            }
        }));
    });
    FAILED_AT.set(Some(String::new()));
}

/// Runs a seed. `Err`: what went wrong, with the last events.
fn run(seed: u64, plant: Option<Plant>) -> Result<Counts, String> {
    quietly();
    let trace = Trace::default();
    let kept = Trace::clone(&trace);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, plant, trace);
        let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
        world.note(format!("{:?}", world.counts));
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        world.counts
    }));
    let place = FAILED_AT.take().unwrap_or_default();
    ran.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let events: Vec<String> = kept.lock().unwrap().iter().cloned().collect();
        format!("{}\n{place}: {}", events.join("\n"), text.unwrap_or_default())
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn check(seed: u64) -> Counts {
    run(seed, None).unwrap_or_else(|wrong| {
        panic!("{wrong}\nseed {seed} fails; again by: SIM_SEED={seed} cargo test --test sim one_seed")
    })
}

/// `SIM_SEED=… cargo test --test sim one_seed`; `SIM_PLANT=Expired` puts a fault in, `SIM_EVENTS=9999` tells more of what went before.
#[test]
fn one_seed() {
    let plant = std::env::var("SIM_PLANT").ok();
    let plant =
        plant.map(|name| Plant::ALL.into_iter().find(|(plant, _)| format!("{plant:?}") == name).unwrap().0);
    let seed = number("SIM_SEED").unwrap_or(0);
    match (plant, run(seed, plant)) {
        (_, Err(wrong)) => panic!("{wrong}"),
        (_, Ok(counts)) => println!("{counts:?}"),
    }
}

#[test]
fn clients_and_server_are_one_file_system_whatever_happens_to_them() {
    let first = number("SIM_FIRST").unwrap_or(1);
    let seeds = number("SIM_SEEDS").unwrap_or(200);
    let mut sum = Counts::default();
    for seed in first..first + seeds {
        sum.add(&check(seed));
    }
    println!("{seeds} seeds from {first}: {sum:?}");
    assert!(sum.local > 0 && sum.compared > sum.local, "{sum:?}");
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for (plant, known) in Plant::ALL {
        let mut seeds = std::iter::once(known).chain(1..2000);
        match seeds.find(|seed| run(*seed, Some(plant)).is_err() && run(*seed, None).is_ok()) {
            Some(seed) => println!("({plant:?}, {seed})"),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
