//! A volume in memory (or in a folder) with one client, whose clock stands still unless a test moves it.

use super::super::{Found, Volume, VolumeOptions};
use crate::base::{Attr, Caller, Errno, Ino, Kind, Name, SessionId, Time};
use crate::server::store::Store;
use crate::wire::{
    Done, Expect, MakeFlags, Mutation, Origin, Outcome, Query, SetAttr, Ticket, Told, WriteFlags, mutation,
    outcome,
};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const ROOT: Ino = Ino::ROOT;
pub(super) const SESSION: SessionId = SessionId(7);

/// What the clock says first.
pub(super) const START: Time = Time { secs: 1_000, nanos: 0 };

pub(super) struct Rig {
    pub(super) volume: Volume,
    pub(super) session: SessionId,
    pub(super) caller: Cell<Caller>,
    clock: Arc<AtomicU64>,
    ticket: Cell<u64>,
}

pub(super) fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).expect("a good name")
}

/// The outcomes of a batch of waited mutations.
pub(super) fn waited(body: &[u8]) -> Vec<Outcome> {
    let one = |told| match told {
        Ok(Told::One(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    outcome::decode(body).expect("outcomes").map(one).collect()
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::over(Store::memory().expect("a volume in memory"))
    }

    pub(super) fn over(store: Store) -> Self {
        let rig = Self::in_grace(store);
        rig.volume.end_grace();
        rig
    }

    pub(super) fn in_grace(store: Store) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000_000_000));
        let shared = Arc::clone(&clock);
        let mut options =
            VolumeOptions::new(Arc::new(move || Time::from_nanos(shared.load(Ordering::Relaxed))));
        options.collect_every = None;
        Self::driving(Volume::open(store, options).expect("open"), clock)
    }

    /// Drives a volume that has a clock of its own.
    pub(super) fn with(volume: Volume) -> Self {
        volume.end_grace();
        Self::driving(volume, Arc::default())
    }

    fn driving(volume: Volume, clock: Arc<AtomicU64>) -> Self {
        Self { volume, session: SESSION, caller: Cell::new(Caller::ROOT), clock, ticket: Cell::new(0) }
    }

    pub(super) fn advance(&self, nanos: u64) {
        self.clock.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn set_back(&self, nanos: u64) {
        self.clock.fetch_sub(nanos, Ordering::Relaxed);
    }

    /// The bytes of a batch of one, with a new ticket.
    pub(super) fn batch(&self, mutation: &Mutation<'_>) -> (Vec<u8>, Vec<u8>) {
        self.ticket.set(self.ticket.get() + 1);
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        mutation::encode(
            &mut body,
            &mut payload,
            Origin::waited(Ticket(self.ticket.get()), self.caller.get()),
            mutation,
        );
        (body, payload)
    }

    pub(super) fn last_ticket(&self) -> u64 {
        self.ticket.get()
    }

    /// One mutation, its outcome settled with the next one.
    pub(super) fn run(&self, mutation: &Mutation<'_>) -> Result<Done, Errno> {
        let (body, payload) = self.batch(mutation);
        let outcomes = self.volume.apply(self.session, &body, &payload, self.ticket.get()).expect("a batch");
        let found = waited(&outcomes);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].ticket, Ticket(self.ticket.get()));
        found[0].result
    }

    pub(super) fn ask(&self, query: &Query<'_>) -> Result<Found, Errno> {
        self.volume.query(self.session, query)
    }

    pub(super) fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        match self.ask(&Query::GetAttr { ino })? {
            Found::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn lookup(&self, parent: Ino, text: &str) -> Result<Attr, Errno> {
        match self.ask(&Query::Lookup { parent, name: name(text) })? {
            Found::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn make_as(
        &self,
        parent: Ino,
        text: &str,
        mode: u32,
        umask: u32,
        flags: MakeFlags,
    ) -> Result<Done, Errno> {
        let target: &[u8] = if Kind::from_mode(mode) == Ok(Kind::Symlink) { b"target" } else { b"" };
        self.run(&Mutation::Make {
            parent,
            name: name(text),
            mode,
            umask,
            rdev: 0x0501,
            target,
            flags,
            ino: None,
        })
    }

    pub(super) fn make(&self, parent: Ino, text: &str, mode: u32) -> Result<Attr, Errno> {
        let flags = MakeFlags { hold: false, exclusive: true };
        self.make_as(parent, text, mode, 0, flags).map(|done| done.attr.expect("attributes"))
    }

    pub(super) fn file(&self, parent: Ino, text: &str) -> Ino {
        self.make(parent, text, libc::S_IFREG | 0o644).expect("a file").ino
    }

    pub(super) fn dir(&self, parent: Ino, text: &str) -> Ino {
        self.make(parent, text, libc::S_IFDIR | 0o755).expect("a directory").ino
    }

    pub(super) fn unlink(&self, parent: Ino, text: &str) -> Result<Done, Errno> {
        self.run(&Mutation::Unlink { parent, name: name(text), ino: None, hold: true })
    }

    pub(super) fn rmdir(&self, parent: Ino, text: &str) -> Result<Done, Errno> {
        self.run(&Mutation::Rmdir { parent, name: name(text), ino: None, hold: true })
    }

    pub(super) fn link(&self, ino: Ino, parent: Ino, text: &str) -> Result<Done, Errno> {
        self.run(&Mutation::Link { ino, parent, name: name(text) })
    }

    pub(super) fn rename(&self, from: (Ino, &str), to: (Ino, &str), flags: u32) -> Result<Done, Errno> {
        self.run(&Mutation::Rename {
            parent: from.0,
            name: name(from.1),
            new_parent: to.0,
            new_name: name(to.1),
            flags,
            ino: None,
            replaced: Expect::Any,
            hold: true,
        })
    }

    pub(super) fn set(&self, ino: Ino, set: SetAttr) -> Result<Attr, Errno> {
        self.run(&Mutation::SetAttr { ino, set }).map(|done| done.attr.expect("attributes"))
    }

    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Result<Attr, Errno> {
        self.set(ino, SetAttr { size: Some(size), ..SetAttr::default() })
    }

    pub(super) fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<Done, Errno> {
        self.run(&Mutation::Write { ino, offset, flags: WriteFlags::default(), data })
    }

    pub(super) fn append(&self, ino: Ino, data: &[u8]) -> Result<Done, Errno> {
        let flags = WriteFlags { append: true, kill_suidgid: false };
        self.run(&Mutation::Write { ino, offset: 12_345, flags, data })
    }

    pub(super) fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        match self.ask(&Query::Read { ino, offset, len })? {
            Found::Data(data) => Ok(data.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn setxattr(&self, ino: Ino, key: &str, value: &[u8], flags: u32) -> Result<Done, Errno> {
        let name = key.as_bytes();
        self.run(&Mutation::SetXattr { ino, name, value, flags, kill_sgid: false })
    }

    pub(super) fn getxattr(&self, ino: Ino, key: &str) -> Result<Vec<u8>, Errno> {
        match self.ask(&Query::GetXattr { ino, name: key.as_bytes() })? {
            Found::Bytes(value) => Ok(value.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    /// All names of a directory, asked for in pieces of `bytes_max`.
    pub(super) fn names(&self, ino: Ino, bytes_max: u32) -> Vec<(String, Ino, u64)> {
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let query = Query::ReadDir { ino, cookie, bytes_max, plus: false };
            let Found::Listing(list) = self.ask(&query).expect("a listing") else { panic!("no listing") };
            for entry in list.entries() {
                names.push((String::from_utf8_lossy(entry.name).into_owned(), entry.ino, entry.cookie));
                cookie = entry.cookie;
            }
            if list.is_end() {
                return names;
            }
        }
    }

    pub(super) fn release(&self, inos: &[Ino]) {
        self.volume.release(self.session, inos);
        self.volume.wait_reaped();
    }
}
