//! Errors that come late: a mutation was answered to its caller, and then the server refused it or was lost.
//!
//! Comes in: what failed and whom it concerns ([`Late::failed`]), descriptors that are opened and synced. Goes out: the
//! errno for each who has to learn of it ([`cursors`], R4.2), the list for the operator ([`record`], R4.5), the data in
//! a folder of files ([`rescue`], R4.4), and whether so much fails that nothing should be completed locally any more
//! (R4.9).
//!
//! [`Late`] is behind one mutex that is held for a few instructions; files are written by a thread of its own, so that it
//! may be told of failures wherever they become known. What the mount shows is put right elsewhere.
#![forbid(unsafe_code)]

mod cursors;
mod record;
mod rescue;
#[cfg(test)]
mod tests;

pub use cursors::{Cursor, Errors};
pub use record::{FailureLine, LateReport, LateStatus};
pub use rescue::{Item, RescueFault, default_folder, discard, list, range_lines, retrieve};

use crate::base::{Errno, Ino};
use crate::wire::Mutation;
use record::Records;
use rescue::{Area, Save};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How it behaves.
#[derive(Clone, Debug)]
pub struct LateOptions {
    /// Folder for data that would be lost. Made when it is needed. `None`: such data is counted and gone.
    pub rescue: Option<PathBuf>,
    /// Bytes of it.
    pub rescue_bytes_max: u64,
    /// So many late refusals within [`Self::window`] end local completion.
    pub refusals_max: usize,
    /// See above.
    pub window: Duration,
}

impl Default for LateOptions {
    fn default() -> Self {
        Self {
            rescue: None,
            rescue_bytes_max: 1 << 30,
            // One program that does the same wrong thing some times is no reason to slow down all others.
            refusals_max: 64,
            window: Duration::from_secs(60),
        }
    }
}

/// A mutation that its caller thinks was done, and that will not be.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// What it was, with the data of a write.
    pub mutation: &'a Mutation<'a>,
    /// Why.
    pub errno: Errno,
    /// The file or directory it was about, from the root of the mount, where the mount knows it.
    pub path: Option<&'a [u8]>,
    /// Seconds since 1970, for the operator.
    pub seconds: u64,
    /// Time since the machine started, for the window.
    pub now: Duration,
}

/// See the module.
pub struct Late {
    options: LateOptions,
    state: Mutex<State>,
    degraded: AtomicBool,
}

struct State {
    errors: Errors,
    records: Records,
    writer: Option<Writer>,
}

struct Writer {
    send: Sender<Save>,
    thread: JoinHandle<()>,
}

impl Late {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(options: LateOptions) -> Self {
        let records = Records::new(options.refusals_max, options.window);
        Self {
            options,
            state: Mutex::new(State { errors: Errors::default(), records, writer: None }),
            degraded: AtomicBool::new(false),
        }
    }

    /// What a descriptor that is being opened keeps, for [`Self::check`].
    #[must_use]
    pub fn open(&self, ino: Ino) -> Cursor {
        self.lock().errors.open(Some(ino))
    }

    /// The same for those who sync the whole mount.
    #[must_use]
    pub fn open_mount(&self) -> Cursor {
        self.lock().errors.open(None)
    }

    /// What a sync through a descriptor has to tell: each error of its inode once.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT or EROFS: something that was answered as done was not.
    pub fn check(&self, ino: Ino, cursor: &mut Cursor) -> Result<(), Errno> {
        self.lock().errors.check(Some(ino), cursor)
    }

    /// The same of the whole mount.
    ///
    /// # Errors
    /// See [`Self::check`].
    pub fn check_mount(&self, cursor: &mut Cursor) -> Result<(), Errno> {
        self.lock().errors.check(None, cursor)
    }

    /// Takes note of a failure: `concerned` are the inode, its directory and all directories above, the root last. The data
    /// of a write is copied and saved.
    pub fn failed(&self, failure: &Failure<'_>, concerned: impl IntoIterator<Item = Ino>) {
        let mut state = self.lock();
        let number = state.records.number();
        let rescued = self.rescue(&mut state, number, failure);
        for ino in concerned {
            state.errors.raise(Some(ino), failure.errno);
        }
        state.errors.raise(None, failure.errno);
        let line = state.records.add(failure, rescued);
        tracing::error!(
            op = line.op,
            errno = %failure.errno,
            path = line.path.as_deref().unwrap_or("?"),
            ino = line.ino,
            "the server refused what was answered as done; `ringfs errors` lists it"
        );
        if state.records.too_many() && !self.degraded.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "too much was refused late: from now on every change waits for the server; `ringfs errors --clear` ends that"
            );
        }
    }

    /// Whether so much failed late that every change should wait for the server.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.degraded.load(Ordering::Acquire)
    }

    /// The operator has read the list: it is emptied, and local completion goes on. What descriptors have to learn, and what
    /// was rescued, stays.
    pub fn clear(&self) {
        self.lock().records.clear();
        self.degraded.store(false, Ordering::Release);
    }

    /// The list.
    #[must_use]
    pub fn report(&self) -> LateReport {
        let failures = self.lock().records.lines();
        LateReport { degraded: self.degraded(), failures, status: self.status() }
    }

    /// Numbers.
    #[must_use]
    pub fn status(&self) -> LateStatus {
        let state = self.lock();
        LateStatus {
            degraded: self.degraded(),
            rescue: self.options.rescue.as_ref().map(|folder| folder.display().to_string()),
            ..state.records.status()
        }
    }

    /// Waits until what was to be rescued is on the disk.
    pub fn finish(&self) {
        let writer = self.lock().writer.take();
        if let Some(Writer { send, thread }) = writer {
            drop(send);
            if thread.join().is_err() {
                tracing::error!("the thread that rescues data panicked");
            }
        }
    }

    /// Hands the data of a write to the thread that saves it. True: it did.
    fn rescue(&self, state: &mut State, number: u64, failure: &Failure<'_>) -> bool {
        let Mutation::Write { ino, offset, flags, data } = failure.mutation else { return false };
        let Some(folder) = &self.options.rescue else {
            state.records.gone(data.len() as u64);
            return false;
        };
        let save = Save {
            number,
            ino: *ino,
            offset: (!flags.append).then_some(*offset),
            path: failure.path.map(<[u8]>::to_vec),
            errno: failure.errno,
            seconds: failure.seconds,
            data: data.to_vec(),
        };
        if state.writer.is_none() {
            let area = Area::new(folder.clone(), self.options.rescue_bytes_max);
            state.writer = start(area);
        }
        let sent = state.writer.as_ref().is_some_and(|writer| writer.send.send(save).is_ok());
        if !sent {
            state.records.gone(data.len() as u64);
        }
        sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each step is complete or not begun when something panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.finish();
    }
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// The thread that writes files. What waits for it has a bound: it is part of what the log held.
fn start(mut area: Area) -> Option<Writer> {
    let (send, saves) = channel::<Save>();
    let work = move || {
        for save in saves {
            if let Err(error) = area.save(&save) {
                tracing::error!(%error, ino = save.ino.0, bytes = save.data.len(), "data could not be rescued");
            }
        }
    };
    match crate::thread::start("ringfs-rescue", work) {
        Ok(thread) => Some(Writer { send, thread }),
        Err(error) => {
            tracing::error!(%error, "no thread to rescue data");
            None
        }
    }
}
