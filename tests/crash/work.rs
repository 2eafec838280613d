//! A program at work on a mount, which knows at each moment what it was promised.
//!
//! Each worker has a folder. Step `n` makes a file with `O_EXCL`, writes it, and then does one of the things that must not
//! happen twice: an append, a rename, a link, an unlink, a folder made or removed. Any error at all ends the worker.

use crate::random::pattern;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a folder holds: each name with the bytes of its file, `None` for a folder.
pub(crate) type Content = BTreeMap<String, Option<Vec<u8>>>;

/// What a worker knows.
#[derive(Default)]
pub(crate) struct Known {
    /// All that was answered.
    pub(crate) done: Content,
    /// The content when fsync last returned, and the log with it.
    pub(crate) durable: Content,
    /// Steps that are finished.
    pub(crate) steps: u64,
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) folder: PathBuf,
    pub(crate) known: Arc<Mutex<Known>>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Worker {
    /// Starts worker `number` below a mount; it ends when `stop` is set.
    pub(crate) fn start(mount: &Path, number: u64, sync: bool, stop: &Arc<AtomicBool>) -> Self {
        let folder = mount.join(format!("w{number}"));
        fs::create_dir(&folder).unwrap();
        let known = Arc::new(Mutex::new(Known::default()));
        let (stop, shared, own) = (Arc::clone(stop), Arc::clone(&known), folder.clone());
        let thread = std::thread::spawn(move || {
            let mut log = OpenOptions::new().append(true).create_new(true).open(own.join("log"))?;
            shared.lock().unwrap().done.insert("log".into(), Some(Vec::new()));
            let mut step = 0;
            while !stop.load(Ordering::Relaxed) {
                work(&own, &mut log, number, step, &shared)?;
                step += 1;
                shared.lock().unwrap().steps = step;
                if sync && step % 4 == 0 {
                    let before = shared.lock().unwrap().done.clone();
                    log.sync_all()?;
                    File::open(&own)?.sync_all()?;
                    shared.lock().unwrap().durable = before;
                }
            }
            Ok(())
        });
        Self { folder, known, thread }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.known.lock().unwrap().steps
    }

    /// Whether it met an error, which [`Worker::end`] tells.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it ends; gives what it met.
    pub(crate) fn end(self) -> (Arc<Mutex<Known>>, Result<(), Error>) {
        (Arc::clone(&self.known), self.thread.join().unwrap())
    }
}

/// One step. What is known changes after each call that returned.
fn work(folder: &Path, log: &mut File, worker: u64, step: u64, known: &Mutex<Known>) -> Result<(), Error> {
    let note = |change: &dyn Fn(&mut Content)| change(&mut known.lock().unwrap().done);
    let name = format!("f{step}");
    let path = folder.join(&name);
    let file = OpenOptions::new().write(true).read(true).create_new(true).open(&path)?;
    note(&|all| drop(all.insert(name.clone(), Some(Vec::new()))));
    let bytes = pattern(worker << 32 | step, usize::try_from(step * 977 % 20_000).unwrap());
    file.write_all_at(&bytes, 0)?;
    note(&|all| drop(all.insert(name.clone(), Some(bytes.clone()))));
    let line = format!("{worker} {step}\n");
    assert_eq!(log.write(line.as_bytes())?, line.len());
    note(&|all| all.get_mut("log").unwrap().as_mut().unwrap().extend_from_slice(line.as_bytes()));
    let other = format!("g{step}");
    let beside = folder.join(&other);
    match step % 5 {
        0 => {
            fs::rename(&path, &beside)?;
            note(&|all| drop(all.remove(&name).map(|bytes| all.insert(other.clone(), bytes))));
        }
        1 => {
            fs::hard_link(&path, &beside)?;
            note(&|all| drop(all.insert(other.clone(), all[&name].clone())));
        }
        2 => {
            fs::remove_file(&path)?;
            note(&|all| drop(all.remove(&name)));
            // Without a name, and open.
            let mut back = Vec::new();
            (&file).read_to_end(&mut back)?;
            assert_eq!(back, bytes, "an unlinked file that is open");
        }
        3 => {
            fs::create_dir(&beside)?;
            note(&|all| drop(all.insert(other.clone(), None)));
        }
        _ => {
            // The folder of the step before.
            let folder_name = format!("g{}", step - 1);
            fs::remove_dir(folder.join(&folder_name))?;
            note(&|all| drop(all.remove(&folder_name)));
            file.set_len(10)?;
            note(&|all| {
                let mut bytes = bytes.clone();
                bytes.resize(10, 0);
                all.insert(name.clone(), Some(bytes));
            });
        }
    }
    Ok(())
}

/// What is in a folder now.
pub(crate) fn content(folder: &Path) -> Content {
    let mut all = Content::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let bytes = entry.file_type().unwrap().is_file().then(|| fs::read(entry.path()).unwrap());
        assert!(all.insert(entry.file_name().into_string().unwrap(), bytes).is_none(), "a name twice");
    }
    all
}

/// Both must be the same; says where they are not, without all the bytes.
#[track_caller]
pub(crate) fn same(have: &Content, want: &Content) {
    let of = |content: &Content, name: &String| {
        content.get(name).map(|bytes| bytes.as_ref().map(|bytes| (bytes.len(), bytes.clone())))
    };
    let names: std::collections::BTreeSet<&String> = have.keys().chain(want.keys()).collect();
    let differ: Vec<String> = names
        .into_iter()
        .filter(|name| of(have, name) != of(want, name))
        .map(|name| {
            let len = |content: &Content| content.get(name).map(|bytes| bytes.as_ref().map(Vec::len));
            format!("{name}: have {:?} bytes, want {:?}", len(have), len(want))
        })
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
}
