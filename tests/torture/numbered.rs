//! A worker that numbers its operations and knows of each when it was begun and whether it returned.
//!
//! It works in a folder of its own, and in one that all workers share, where its names begin with its own.

use crate::random::{Random, pattern};
use crate::state::{Op, State};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The clock of all workers: each beginning and each return has a number.
static CLOCK: AtomicU64 = AtomicU64::new(1);

fn tick() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

/// Names that a worker keeps at most.
const NAMES_MAX: usize = 150;

/// Files that are replaced by renames, over and over.
pub(crate) const REPLACED: usize = 3;

/// One operation of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) begun: u64,
    /// When it returned, having succeeded.
    pub(crate) returned: Option<u64>,
    /// What it returned otherwise.
    pub(crate) failed: Option<i32>,
}

impl Step {
    pub(crate) fn short(&self) -> String {
        let mut text = format!("{:?}", self.op);
        if let Op::Write(path, bytes) | Op::Append(path, bytes) = &self.op {
            text = format!("{path} gets {} bytes", bytes.len());
        }
        format!("{text} begun {} returned {:?} failed {:?}", self.begun, self.returned, self.failed)
    }
}

/// What a worker did and was promised.
#[derive(Clone, Default, Debug)]
pub(crate) struct Journal {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    /// So many of the first steps are promised durable.
    pub(crate) durable: usize,
}

impl Journal {
    /// Steps that returned.
    pub(crate) fn returned(&self) -> usize {
        self.steps.iter().filter(|step| step.returned.is_some()).count()
    }
}

/// What visitors on other mounts need to know while the worker works.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) lines_begun: AtomicU64,
    pub(crate) lines_returned: AtomicU64,
    /// Version of each replaced file: one that is being put there, and one that is there.
    pub(crate) versions_begun: [AtomicU64; REPLACED],
    pub(crate) versions_returned: [AtomicU64; REPLACED],
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) journal: Arc<Mutex<Journal>>,
    pub(crate) shown: Arc<Shown>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Worker {
    /// Starts a worker in `folder`, where `shared` exists. It ends when `stop` is set, or with the first error.
    pub(crate) fn start(folder: &Path, name: &str, seed: u64, stop: &Arc<AtomicBool>) -> Self {
        let journal = Arc::new(Mutex::new(Journal { name: name.to_owned(), ..Journal::default() }));
        let shown = Arc::new(Shown::default());
        let mut at_work = AtWork {
            folder: folder.to_path_buf(),
            name: name.to_owned(),
            random: Random::new(seed),
            state: State::default(),
            journal: Arc::clone(&journal),
            shown: Arc::clone(&shown),
            next: 0,
            stop: Arc::clone(stop),
        };
        let thread = std::thread::spawn(move || match at_work.run() {
            Err(error) if told_to_stop(&error) => Ok(()),
            end => end,
        });
        Self { name: name.to_owned(), journal, shown, thread }
    }

    pub(crate) fn steps(&self) -> usize {
        self.journal.lock().unwrap().steps.len()
    }

    /// Whether it met an error, which [`Worker::end`] tells.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// All that has returned is promised durable when what the caller begins now has returned.
    pub(crate) fn answered(&self) -> usize {
        self.journal.lock().unwrap().returned()
    }

    pub(crate) fn promise(&self, steps: usize) {
        let mut journal = self.journal.lock().unwrap();
        journal.durable = journal.durable.max(steps);
    }

    /// Waits until it ends; gives what it did and what it met.
    pub(crate) fn end(self) -> (Journal, Result<(), Error>) {
        let met = self.thread.join().unwrap();
        let journal = self.journal.lock().unwrap().clone();
        (journal, met)
    }
}

/// Whether a path is one of this worker's.
pub(crate) fn is_of(worker: &str, path: &str) -> bool {
    path == "shared"
        || path == worker
        || path.starts_with(&format!("{worker}/"))
        || path.starts_with(&format!("shared/{worker}-"))
}

/// The bytes of a version of a replaced file.
pub(crate) fn version(number: u64) -> Vec<u8> {
    let mut bytes = format!("{number:010}\n").into_bytes();
    bytes.extend(pattern(number, usize::try_from(number * 379 % 9000).unwrap()));
    bytes
}

struct AtWork {
    folder: PathBuf,
    name: String,
    random: Random,
    state: State,
    journal: Arc<Mutex<Journal>>,
    shown: Arc<Shown>,
    next: u64,
    stop: Arc<AtomicBool>,
}

/// What an operation gives that was not begun because the worker was told to stop.
fn told_to_stop(error: &Error) -> bool {
    error.kind() == ErrorKind::Interrupted && error.raw_os_error().is_none()
}

impl AtWork {
    fn run(&mut self) -> Result<(), Error> {
        let own = self.name.clone();
        self.state.apply(&Op::Mkdir("shared".into()));
        self.journal.lock().unwrap().steps.push(Step {
            op: Op::Mkdir("shared".into()),
            begun: 0,
            returned: Some(0),
            failed: None,
        });
        self.step(Op::Mkdir(own.clone()), |at| fs::create_dir(at))?;
        let log_path = format!("{own}/log");
        let mut log = self.create(&log_path, true)?;
        loop {
            self.next += 1;
            match self.random.below(100) {
                0..16 => self.append(&mut log, &log_path)?,
                16..32 => self.replace()?,
                32..52 => self.make()?,
                52..62 => self.unlink()?,
                62..70 => self.folders()?,
                70..80 => self.rename()?,
                80..93 => self.attributes()?,
                93..96 => self.synced(|| log.sync_all())?,
                96..98 => {
                    let folder = self.folder.join(&own);
                    self.synced(|| File::open(&folder)?.sync_all())?;
                }
                _ => self.look_around()?,
            }
            if self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    }

    /// One operation, from its beginning to its return.
    fn step<T>(&mut self, op: Op, call: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
        let (Op::Create(path)
        | Op::Write(path, _)
        | Op::Append(path, _)
        | Op::Truncate(path, _)
        | Op::Chmod(path, _)
        | Op::Mkdir(path)
        | Op::Rmdir(path)
        | Op::Unlink(path)
        | Op::Rename(path, _)
        | Op::Link(path, _)
        | Op::Symlink(_, path)) = &op;
        if self.stop.load(Ordering::SeqCst) {
            return Err(ErrorKind::Interrupted.into());
        }
        let at = self.folder.join(path);
        let begun = tick();
        self.journal.lock().unwrap().steps.push(Step { op: op.clone(), begun, returned: None, failed: None });
        let gave = call(&at);
        let mut journal = self.journal.lock().unwrap();
        let step = journal.steps.last_mut().unwrap();
        match gave {
            Ok(value) => {
                step.returned = Some(tick());
                drop(journal);
                self.state.apply(&op);
                Ok(value)
            }
            Err(error) => {
                step.failed = error.raw_os_error();
                Err(error)
            }
        }
    }

    /// A new name, in the worker's folder, one below it, or the shared one.
    fn fresh(&mut self, kind: char) -> String {
        let (own, next) = (self.name.clone(), self.next);
        if self.random.one_in(5) {
            return format!("shared/{own}-{kind}{next}");
        }
        let folders: Vec<String> =
            self.state.folders().into_iter().filter(|path| *path != "shared").cloned().collect();
        let folder = &folders[usize::try_from(self.random.below(folders.len() as u64)).unwrap()];
        format!("{folder}/{kind}{next}")
    }

    fn pick(&mut self, from: Vec<String>) -> Option<String> {
        let at = usize::try_from(self.random.below(from.len().max(1) as u64)).unwrap();
        from.into_iter().nth(at)
    }

    fn any_file(&mut self) -> Option<String> {
        let files = self.state.files().into_iter().cloned().collect();
        self.pick(files)
    }

    fn create(&mut self, path: &str, append: bool) -> Result<File, Error> {
        let mut options = OpenOptions::new();
        options.create_new(true).mode(0o644).append(append).write(true);
        self.step(Op::Create(path.to_owned()), |at| options.open(at))
    }

    fn make(&mut self) -> Result<(), Error> {
        if self.state.files().len() > NAMES_MAX {
            return self.unlink();
        }
        let path = self.fresh('f');
        let file = self.create(&path, false)?;
        if self.random.one_in(3) {
            return Ok(());
        }
        let bytes = pattern(self.next, usize::try_from(1 + self.random.below(6000)).unwrap());
        self.step(Op::Write(path, bytes.clone()), |_| whole(file.write_at(&bytes, 0)?, bytes.len()))
    }

    fn append(&mut self, log: &mut File, path: &str) -> Result<(), Error> {
        let number = self.shown.lines_begun.fetch_add(1, Ordering::SeqCst);
        let line = format!("{number}\n").into_bytes();
        self.step(Op::Append(path.to_owned(), line.clone()), |_| whole(log.write(&line)?, line.len()))?;
        self.shown.lines_returned.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Puts a new version of a file in the place of the old one, as editors do, with an fsync now and then.
    fn replace(&mut self) -> Result<(), Error> {
        let which = usize::try_from(self.random.below(REPLACED as u64)).unwrap();
        let (new, old) = (format!("{}/new", self.name), format!("{}/t{which}", self.name));
        let number = self.next;
        let file = self.create(&new, false)?;
        let bytes = version(number);
        self.step(Op::Write(new.clone(), bytes.clone()), |_| whole(file.write_at(&bytes, 0)?, bytes.len()))?;
        if self.random.one_in(6) {
            self.synced(|| file.sync_all())?;
        }
        let to = self.folder.join(&old);
        self.shown.versions_begun[which].store(number, Ordering::SeqCst);
        self.step(Op::Rename(new, old), |at| fs::rename(at, to))?;
        self.shown.versions_returned[which].store(number, Ordering::SeqCst);
        Ok(())
    }

    fn unlink(&mut self) -> Result<(), Error> {
        let Some(path) = self.any_file() else { return Ok(()) };
        self.step(Op::Unlink(path), |at| fs::remove_file(at))
    }

    fn folders(&mut self) -> Result<(), Error> {
        let own = format!("{}/", self.name);
        let below: Vec<String> =
            self.state.folders().into_iter().filter(|path| path.starts_with(&own)).cloned().collect();
        let empty: Vec<String> = below.iter().filter(|path| self.state.is_empty(path)).cloned().collect();
        match self.random.below(4) {
            0 if !empty.is_empty() => {
                let path = self.pick(empty).unwrap();
                self.step(Op::Rmdir(path), |at| fs::remove_dir(at))
            }
            1 if !below.is_empty() => {
                let path = self.pick(below).unwrap();
                let new = format!("{own}d{}", self.next);
                let to = self.folder.join(&new);
                self.step(Op::Rename(path, new), |at| fs::rename(at, to))
            }
            _ if below.len() < 20 => {
                let path = self.fresh('d');
                // Folders in the shared place would be met by others.
                let path = if path.starts_with("shared") { format!("{own}d{}", self.next) } else { path };
                self.step(Op::Mkdir(path), |at| fs::create_dir(at))
            }
            _ => Ok(()),
        }
    }

    fn rename(&mut self) -> Result<(), Error> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let new = if self.random.one_in(3) { self.any_file().unwrap() } else { self.fresh('f') };
        if new == path || same_file(&self.folder, &path, &new) {
            // Two names of one file: rename does nothing, and says that it did.
            return Ok(());
        }
        let to = self.folder.join(&new);
        self.step(Op::Rename(path, new), |at| fs::rename(at, to))
    }

    fn attributes(&mut self) -> Result<(), Error> {
        let kind = self.random.below(10);
        if kind == 0 {
            let path = self.fresh('l');
            let target = format!("to {}", self.next);
            return self.step(Op::Symlink(target.clone(), path), |at| std::os::unix::fs::symlink(target, at));
        }
        let Some(path) = self.any_file() else { return Ok(()) };
        match kind {
            1..5 => {
                let mode = self.random.pick(&[0o644, 0o600, 0o640, 0o755]);
                self.step(Op::Chmod(path, mode), |at| fs::set_permissions(at, Permissions::from_mode(mode)))
            }
            5..7 => {
                let len = usize::try_from(self.random.below(7000)).unwrap();
                self.step(Op::Truncate(path, len), |at| {
                    nix::unistd::truncate(at, i64::try_from(len).unwrap()).map_err(Error::from)
                })
            }
            _ if self.state.files().len() < NAMES_MAX => {
                let new = self.fresh('f');
                let to = self.folder.join(&new);
                self.step(Op::Link(path, new), |at| fs::hard_link(at, to))
            }
            _ => Ok(()),
        }
    }

    /// What returned before `sync` is durable when it has returned.
    fn synced(&mut self, sync: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let before = self.journal.lock().unwrap().steps.len();
        sync()?;
        let mut journal = self.journal.lock().unwrap();
        journal.durable = journal.durable.max(before);
        Ok(())
    }

    /// The worker sees its own work: the names of a folder, and one file whole.
    fn look_around(&mut self) -> Result<(), Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder.join(&self.name))? {
            names.push(format!("{}/{}", self.name, entry?.file_name().to_str().unwrap()));
        }
        names.sort();
        let depth = self.name.matches('/').count() + 1;
        let wanted = self.state.paths().filter(|path| {
            path.starts_with(&format!("{}/", self.name)) && path.matches('/').count() == depth
        });
        let wanted: Vec<&String> = wanted.collect();
        if names.iter().collect::<Vec<_>>() != wanted {
            return Err(Error::other(format!("{} lists {names:?}, not {wanted:?}", self.name)));
        }
        let Some(path) = self.any_file() else { return Ok(()) };
        let bytes = fs::read(self.folder.join(&path));
        let mode = fs::metadata(self.folder.join(&path))?.permissions().mode() & 0o7777;
        let node = crate::state::Node::File { bytes: bytes?, mode };
        if self.state.is(&path, Some(&node)) {
            return Ok(());
        }
        Err(Error::other(format!("{path} is {node:?}, not {:?}", self.state.get(&path))))
    }
}

fn same_file(folder: &Path, a: &str, b: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ino = |path: &str| fs::symlink_metadata(folder.join(path)).map(|stat| stat.ino()).ok();
    ino(a).is_none() || ino(a) == ino(b)
}

/// One call takes all bytes.
fn whole(took: usize, of: usize) -> Result<(), Error> {
    if took == of { Ok(()) } else { Err(Error::new(ErrorKind::WriteZero, format!("{took} of {of} bytes"))) }
}
