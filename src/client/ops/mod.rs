//! What each request of the kernel means: one function per operation, one file per group.
//!
//! In: a checked request with its [`Context`]. Out: one answer. An operation comes in two steps, since request and
//! reply share their memory: the function reads the request and keeps what it needs; the closure it returns gets the
//! [`Reply`], asks the server, and answers from the completion. Operations that need no server answer at once.
//! Nothing here waits. Owns nothing: counts, handles and locks are the namespace's.
//!
//! Two rules hold for all of them. What changes the namespace's counts does so before the reply goes out, since the
//! kernel's next request may be older than our next line. And an inode the server does not know is ESTALE where
//! the request names it by number, so that the kernel walks the path again, and ENOENT where it names a directory
//! to do something in: that is what a removed directory answers.
//!
//! | kernel may keep | under a lease, while it is good and not recalled | without |
//! |---|---|---|
//! | names, also negative | as long as the lease of their directory is good ([`Kept`]) | not at all: entry time 0, ENOENT instead of a negative entry |
//! | attributes | as long as the lease of their inode is good, apart from programs with setuid or setgid bits | attribute time 0 |
//! | file data | nothing: [`open_mode`] | nothing |
//! | directory listings | nothing: no `FOPEN_CACHE_DIR` | nothing |
//! | targets of symbolic links | nothing: `CACHE_SYMLINKS` is not asked for | nothing |
#![forbid(unsafe_code)]

pub mod attributes;

pub mod data;

pub mod directory;

pub mod lock;

pub mod lookup;

pub mod make;

pub mod open;

pub mod remove;

pub mod xattr;

#[cfg(test)]
mod tests;

use crate::base::limits::NAME_BYTES_MAX;
use crate::base::{Attr, Caller, Errno, Ino};
use crate::client::mount::{Asker, Interrupt, Kept, Mount};
use crate::kernel::abi::flags::{FOPEN_DIRECT_IO, FOPEN_PARALLEL_DIRECT_WRITES};
use crate::kernel::abi::{AttrOut, EntryOut};
use crate::kernel::decode::reply;
use crate::wire::{Answer, Done, Mutation, Query};
use std::sync::Arc;
use zerocopy::{Immutable, IntoBytes};

/// Where the answer to one request goes. Each method is the answer; a reply that is dropped without one is
/// answered with EIO by whoever made it.
pub trait Reply: Send + 'static {
    /// No.
    fn errno(self, errno: Errno);

    /// These bytes, one part after the other.
    fn parts(self, parts: &[&[u8]]);

    /// What `write` puts into a buffer of up to `bytes_max` bytes, as many as it says.
    fn fill(self, bytes_max: usize, write: impl FnOnce(&mut [u8]) -> usize);

    /// Done, and nothing to tell.
    fn empty(self)
    where
        Self: Sized,
    {
        self.parts(&[]);
    }

    /// One record of the kernel's.
    fn record<T: IntoBytes + Immutable>(self, record: &T)
    where
        Self: Sized,
    {
        self.parts(&[record.as_bytes()]);
    }

    /// A record, or no.
    fn result<T: IntoBytes + Immutable>(self, result: Result<T, Errno>)
    where
        Self: Sized,
    {
        match result {
            Ok(record) => self.record(&record),
            Err(errno) => self.errno(errno),
        }
    }

    /// Done, or no.
    fn done(self, result: Result<(), Errno>)
    where
        Self: Sized,
    {
        match result {
            Ok(()) => self.empty(),
            Err(errno) => self.errno(errno),
        }
    }
}

/// What every operation has besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// The mount.
    pub mount: Arc<Mount>,
    /// Number of the request, by which an interrupt names it.
    pub unique: u64,
    /// Inode the request is for.
    pub ino: Ino,
    /// Who asks.
    pub caller: Caller,
}

impl Context {
    fn asker(&self) -> Asker {
        Asker { unique: self.unique, pid: self.caller.pid }
    }

    /// Asks the server; `then` gives the answer to the reply. An interrupt can end it while the server is away.
    fn ask<R: Reply>(
        self,
        query: &Query<'_>,
        reply: R,
        then: impl FnOnce(&Arc<Mount>, R, Result<Answer<'_>, Errno>, Kept) + Send + 'static,
    ) {
        let mount = Arc::clone(&self.mount);
        mount.ask(Interrupt::WhenAway(self.asker()), query, move |answer, kept| {
            then(&self.mount, reply, answer, kept);
        });
    }

    /// Makes a change: reads it now, sends it when the reply is there. `then` gives its outcome to the reply.
    fn mutate<R: Reply, F>(self, mutation: &Mutation<'_>, then: F) -> impl FnOnce(R) + use<R, F>
    where
        F: FnOnce(&Arc<Mount>, R, Result<Done, Errno>, Kept) + Send + 'static,
    {
        let mount = self.mount;
        let change = mount.accept(self.caller, mutation);
        move |reply| {
            let m = Arc::clone(&mount);
            mount.apply(change, move |outcome, kept| then(&m, reply, outcome, kept));
        }
    }
}

/// A name that outlives its request, without an allocation.
#[derive(Clone, Copy)]
struct ShortName {
    len: usize,
    bytes: [u8; NAME_BYTES_MAX],
}

impl ShortName {
    /// # Panics
    /// For more than 255 bytes: names of files and attributes have been checked before they come here.
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Self { len: name.len(), bytes }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// `FOPEN_*` of an open file: where the kernel allows shared mappings of files it does not cache, nothing is cached
/// (Linux 6.6); before that the page cache is used but never kept over an open, and the kernel drops pages when it
/// sees another mtime or size (`AUTO_INVAL_DATA`), which it asks for before each read.
#[must_use]
pub fn open_mode(direct_io_allow_mmap: bool) -> u32 {
    if direct_io_allow_mmap { FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES } else { 0 }
}

/// An entry for the kernel, counted as a lookup.
fn entry(mount: &Mount, attr: &Attr, kept: Kept) -> EntryOut {
    mount.namespace.inodes.looked_up(attr.ino);
    let kept = kept.of(attr);
    reply::entry(attr, kept.name, kept.attributes)
}

fn attributes(attr: &Attr, kept: Kept) -> AttrOut {
    reply::attributes(attr, kept.of(attr).attributes)
}

/// The attributes in an answer.
fn attr(answer: Result<Answer<'_>, Errno>) -> Result<Attr, Errno> {
    match answer? {
        Answer::Attr(attr) => Ok(attr),
        other => Err(unexpected(&other)),
    }
}

/// Nothing but success.
fn success(answer: Result<Answer<'_>, Errno>) -> Result<(), Errno> {
    match answer? {
        Answer::Empty | Answer::Attr(_) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// The attributes an outcome brings.
fn made(outcome: Result<Done, Errno>) -> Result<Attr, Errno> {
    outcome?.attr.ok_or_else(|| {
        tracing::error!("the server answered a mutation without attributes");
        Errno::EIO
    })
}

fn unexpected(answer: &Answer<'_>) -> Errno {
    tracing::error!(?answer, "the server answered something else than was asked");
    Errno::EIO
}

/// For requests that name an inode by its number: the server does not know it, so the name that led here is stale.
fn stale(errno: Errno) -> Errno {
    if errno == Errno::ENOENT { Errno::ESTALE } else { errno }
}
