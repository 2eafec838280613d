//! One kind of operation, repeated by threads that each work in a directory of their own.

use hdrhistogram::Histogram;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What is repeated. In this order each finds what it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Mkdir,
    /// open(O_CREAT|O_EXCL) and close.
    Create,
    Stat,
    /// readdir and fstatat of each name; an operation is a name.
    List,
    Rename,
    Unlink,
    Rmdir,
}

pub(crate) const ALL: [Phase; 7] =
    [Phase::Mkdir, Phase::Create, Phase::Stat, Phase::List, Phase::Rename, Phase::Unlink, Phase::Rmdir];

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mkdir => "mkdir",
            Self::Create => "create",
            Self::Stat => "stat",
            Self::List => "ls -l",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
            Self::Rmdir => "rmdir",
        }
    }

    /// Whether it changes anything.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Self::Stat | Self::List)
    }
}

/// When a phase is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After so much time, or when nothing is left to work on.
    Time(Duration),
    /// After so many operations of each thread.
    Count(u64),
}

/// What came out.
pub(crate) struct Ran {
    pub(crate) operations: u64,
    /// From the first thread's start to the last one's end.
    pub(crate) wall: Duration,
    /// Of single operations, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Ran {
    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }
}

/// The threads' directories, and what is in each.
pub(crate) struct Work {
    dirs: Vec<Thread>,
}

/// When a thread began and ended, and how long each operation took.
type OfThread = (Instant, Instant, Histogram<u64>);

struct Thread {
    dir: PathBuf,
    folders: u64,
    /// Of each file whether it has its second name.
    renamed: Vec<bool>,
}

impl Work {
    /// Makes a directory for each of `threads`.
    pub(crate) fn new(below: &Path, threads: usize) -> Result<Self, String> {
        let mut dirs = Vec::with_capacity(threads);
        for nth in 0..threads {
            let dir = below.join(format!("t{nth}"));
            std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            dirs.push(Thread { dir, folders: 0, renamed: Vec::new() });
        }
        Ok(Self { dirs })
    }

    pub(crate) fn run(&mut self, phase: Phase, until: Until) -> Result<Ran, String> {
        let barrier = Barrier::new(self.dirs.len());
        let results: Vec<Result<OfThread, String>> = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .dirs
                .iter_mut()
                .map(|thread| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        thread.run(phase, until)
                    })
                })
                .collect();
            let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.map(|result| result.unwrap_or_else(|_| Err("a worker panicked".to_owned()))).collect()
        });
        let mut latency = histogram()?;
        let mut span: Option<(Instant, Instant)> = None;
        for result in results {
            let (began, ended, of_thread) = result?;
            latency.add(&of_thread).map_err(|error| error.to_string())?;
            span = Some(span.map_or((began, ended), |(first, last)| (first.min(began), last.max(ended))));
        }
        let wall = span.map_or(Duration::ZERO, |(first, last)| last - first);
        Ok(Ran { operations: latency.len(), wall, latency })
    }
}

pub(crate) fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_max(600_000_000_000, 3).map_err(|error| error.to_string())
}

impl Thread {
    fn run(&mut self, phase: Phase, until: Until) -> Result<OfThread, String> {
        let mut latency = histogram()?;
        let began = Instant::now();
        let mut last = began;
        let mut nth = 0;
        loop {
            let over = match until {
                Until::Time(time) => last - began >= time,
                Until::Count(count) => nth >= count,
            };
            if over {
                break;
            }
            if phase == Phase::List {
                nth += self.list(&mut latency)?;
                last = Instant::now();
                continue;
            }
            if !self
                .one(phase, nth)
                .map_err(|error| format!("{phase:?} in {}: {error}", self.dir.display()))?
            {
                break;
            }
            let now = Instant::now();
            latency.saturating_record(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX));
            last = now;
            nth += 1;
        }
        Ok((began, last, latency))
    }

    fn path(&self, kind: char, nth: u64) -> PathBuf {
        self.dir.join(format!("{kind}{nth}"))
    }

    fn file(&self, nth: u64) -> PathBuf {
        let second = usize::try_from(nth).is_ok_and(|nth| self.renamed[nth]);
        self.path(if second { 'g' } else { 'f' }, nth)
    }

    /// One operation; `false` when nothing is left to work on.
    fn one(&mut self, phase: Phase, nth: u64) -> Result<bool, rustix::io::Errno> {
        let files = self.renamed.len() as u64;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match phase {
            Phase::Mkdir => {
                rustix::fs::mkdir(self.path('d', self.folders), Mode::from_raw_mode(0o755))?;
                self.folders += 1;
            }
            Phase::Create => {
                drop(rustix::fs::open(self.path('f', files), flags, Mode::from_raw_mode(0o644))?);
                self.renamed.push(false);
            }
            Phase::Stat | Phase::Rename | Phase::Unlink if files == 0 => return Ok(false),
            Phase::Stat => drop(rustix::fs::statat(CWD, self.file(nth % files), AtFlags::SYMLINK_NOFOLLOW)?),
            Phase::Rename => {
                let nth = nth % files;
                let from = self.file(nth);
                if let Some(renamed) = usize::try_from(nth).ok().and_then(|nth| self.renamed.get_mut(nth)) {
                    *renamed = !*renamed;
                }
                rustix::fs::rename(from, self.file(nth))?;
            }
            Phase::Unlink => {
                rustix::fs::unlink(self.file(files - 1))?;
                self.renamed.pop();
            }
            Phase::Rmdir if self.folders == 0 => return Ok(false),
            Phase::Rmdir => {
                self.folders -= 1;
                rustix::fs::rmdir(self.path('d', self.folders))?;
            }
            Phase::List => return Ok(false),
        }
        Ok(true)
    }

    /// Lists the directory once, and stats each name; gives their number.
    fn list(&self, latency: &mut Histogram<u64>) -> Result<u64, String> {
        let told = |error: rustix::io::Errno| format!("ls -l {}: {error}", self.dir.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.dir, flags, Mode::empty()).map_err(told)?;
        let mut names = 0;
        let mut last = Instant::now();
        for entry in rustix::fs::Dir::read_from(&dir).map_err(told)? {
            let entry = entry.map_err(told)?;
            rustix::fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(told)?;
            let now = Instant::now();
            latency.saturating_record(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX));
            last = now;
            names += 1;
        }
        Ok(names)
    }
}
