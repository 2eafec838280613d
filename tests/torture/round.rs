//! One round: workers at work in a folder of the round, visitors beside them, and the check of what was kept.

use crate::numbered::{Journal, Worker, is_of};
use crate::prefix::{Kept, in_order, kept};
use crate::random::Random;
use crate::state::look;
use crate::visitor::Visitor;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No round may take longer, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Lease and grace in seconds: short, so that rounds are.
pub(crate) const TIMES: [&str; 4] = ["--lease", "2", "--grace", "2"];

/// The lease of [`TIMES`].
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// `RINGFS_ROUNDS`, or what fits into a short run.
pub(crate) fn rounds(usual: u64) -> u64 {
    let text = std::env::var("RINGFS_ROUNDS").ok();
    text.map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("RINGFS_ROUNDS is not a number: {text}"))
    })
}

/// How long all rounds together may take, in seconds.
pub(crate) fn seconds(rounds: u64) -> u64 {
    PATIENCE.as_secs() * (rounds + 2)
}

/// See the module.
pub(crate) struct Round {
    name: String,
    stop: Arc<AtomicBool>,
    pub(crate) workers: Vec<Worker>,
    visitors: Vec<Visitor>,
}

impl Round {
    /// Two workers on each of `mounts`; their folder is made on the first.
    pub(crate) fn start(number: u64, mounts: &[PathBuf], random: &mut Random) -> Self {
        let name = format!("r{number}");
        fs::create_dir(mounts[0].join(&name)).unwrap();
        fs::create_dir(mounts[0].join(&name).join("shared")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for (side, mount) in mounts.iter().enumerate() {
            for nth in 0..2 {
                let worker = format!("w{side}{nth}");
                workers.push(Worker::start(&mount.join(&name), &worker, random.next(), &stop));
            }
        }
        Self { name, stop, workers, visitors: Vec::new() }
    }

    /// A visitor on `mount` for the worker at a place.
    pub(crate) fn visit(&mut self, mount: &Path, worker: usize, rest: Duration) {
        let of = &self.workers[worker];
        let folder = mount.join(&self.name);
        self.visitors.push(Visitor::start(&folder, &of.name, &of.shown, rest, &self.stop));
    }

    /// Waits until each worker has done so much more, or has ended with an error.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: usize) {
        advance(&self.workers, more);
    }

    /// The same for the workers of one mount.
    #[track_caller]
    pub(crate) fn goes_on_at(&self, side: usize, more: usize) {
        advance(&self.workers[2 * side..2 * side + 2], more);
    }

    /// `ringfs flush` of a mount: what its workers had done before is promised.
    pub(crate) fn flush(&self, mount: &Path, side: usize) {
        let before: Vec<usize> = self.workers.iter().map(Worker::answered).collect();
        let ran = crate::fixture::ringfs(&["flush", mount.to_str().unwrap()]);
        if ran.code == 0 {
            for (at, worker) in self.workers.iter().enumerate().filter(|(at, _)| at / 2 == side) {
                worker.promise(before[at]);
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// What the workers have done until now, while some may still wait in a call.
    pub(crate) fn journals(&self) -> Ended {
        let journals = self.workers.iter().map(|worker| worker.journal.lock().unwrap().clone()).collect();
        Ended { name: self.name.clone(), journals, met: Vec::new(), visits: 0 }
    }

    /// [`Round::end`], where visitors of a mount that was killed have met its death.
    ///
    /// # Errors
    /// As [`Round::end`].
    pub(crate) fn end_beside_a_dead_mount(mut self) -> Result<Ended, String> {
        self.stop();
        for visitor in std::mem::take(&mut self.visitors) {
            match visitor.end() {
                Err(error) if error.raw_os_error().is_none() && error.kind() == ErrorKind::Other => {
                    return Err(format!("{}: a visitor met: {error}", self.name));
                }
                _ => {}
            }
        }
        self.end()
    }

    /// Ends workers and visitors. The visitors must have met nothing; what the workers met comes with their journals.
    ///
    /// # Errors
    /// A visitor saw what must not be.
    pub(crate) fn end(self) -> Result<Ended, String> {
        self.stop();
        let mut visits = 0;
        for visitor in self.visitors {
            visits += visitor.end().map_err(|error| format!("{}: a visitor met: {error}", self.name))?;
        }
        let (mut journals, mut met) = (Vec::new(), Vec::new());
        for worker in self.workers {
            let (journal, end) = worker.end();
            met.push(end.err());
            journals.push(journal);
        }
        Ok(Ended { name: self.name, journals, met, visits })
    }
}

#[track_caller]
fn advance(workers: &[Worker], more: usize) {
    let before: Vec<usize> = workers.iter().map(Worker::steps).collect();
    let until = Instant::now() + PATIENCE;
    for (worker, before) in workers.iter().zip(before) {
        while worker.steps() < before + more && !worker.has_ended() {
            assert!(Instant::now() < until, "{} does not go on", worker.name);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A round whose workers have ended.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) journals: Vec<Journal>,
    pub(crate) met: Vec<Option<std::io::Error>>,
    pub(crate) visits: u64,
}

impl Ended {
    /// Nobody met an error.
    ///
    /// # Errors
    /// Somebody did.
    pub(crate) fn without_errors(&self) -> Result<(), String> {
        for (journal, met) in self.journals.iter().zip(&self.met) {
            if let Some(error) = met {
                return Err(format!(
                    "{}: {} met: {error}; its last: {:?}",
                    self.name,
                    journal.name,
                    journal.steps.last().map(crate::numbered::Step::short)
                ));
            }
        }
        Ok(())
    }

    /// What is kept of each worker of `sides`, seen through `mount`; also that it is in order.
    ///
    /// # Errors
    /// Something is there that never was, or is missing, or was kept without what came before it.
    pub(crate) fn kept(&self, mount: &Path, sides: &[usize], late: bool) -> Result<Vec<Kept>, String> {
        let mut all = Vec::new();
        for side in sides {
            let mut of_mount = Vec::new();
            for journal in &self.journals[2 * side..2 * side + 2] {
                let seen = look(&mount.join(&self.name), |path| is_of(&journal.name, path));
                let kept = kept(journal, &seen, late).map_err(|why| format!("{}: {why}", self.name))?;
                of_mount.push((journal, kept));
            }
            if !late {
                in_order(&of_mount).map_err(|why| format!("{}: {why}", self.name))?;
            }
            all.extend(of_mount.into_iter().map(|(_, kept)| kept));
        }
        Ok(all)
    }

    /// All that returned is there, seen through each of `mounts`.
    ///
    /// # Errors
    /// As [`Ended::kept`], or something is missing.
    pub(crate) fn all_kept(&self, mounts: &[PathBuf], sides: &[usize]) -> Result<(), String> {
        for mount in mounts {
            let kept = self.kept(mount, sides, false)?;
            let of = sides.iter().flat_map(|side| &self.journals[2 * side..2 * side + 2]);
            for (journal, kept) in of.zip(kept) {
                if kept.most < journal.returned() {
                    return Err(format!(
                        "{}: on {} {} has {} of {} operations that returned",
                        self.name,
                        mount.display(),
                        journal.name,
                        kept.most,
                        journal.returned()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes the round's folder away again, through a mount.
    pub(crate) fn remove(&self, mount: &Path) {
        fs::remove_dir_all(mount.join(&self.name)).unwrap();
    }

    /// Operations of all workers.
    pub(crate) fn operations(&self) -> usize {
        self.journals.iter().map(|journal| journal.steps.len()).sum()
    }
}

/// Fails with the line that repeats the run.
#[track_caller]
pub(crate) fn must(result: Result<(), String>, seed: u64, test: &str) {
    if let Err(why) = result {
        panic!("{why}\nrerun with: RINGFS_SEED={seed} cargo test --test torture {test}");
    }
}
